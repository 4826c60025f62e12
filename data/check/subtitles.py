"""Subtitle databases: do they tell of the same frames as the features?"""

from collections.abc import Iterator
from dataclasses import dataclass

from data.check.databases import Corpus
from data.check.findings import Case, Check, Drops, Finding, Severity, examine
from data.check.records import BAD_VIDEO, RecordReader, record_cases
from data.check.tokens import OUTSIDE_MODEL, outside
from data.stores.lmdb_io import TextDb
from data.stores.records import WholeSubtitleRecord
from data.usable import subtitle_fault

AGAIN = "make the subtitle database again (scripts/prepro_sub.py --vid2nframe the features')"
OUTSIDE = Check("vocabulary", OUTSIDE_MODEL, AGAIN, drops=Drops.VIDEO)
INTERVAL = Check(
    "interval",
    "seconds per frame differ from the option",
    "give the --vfeat_interval of both databases, or make one of them again",
    Severity.WARNING,
)
FRAMES = Check(
    "frame counts",
    "subtitles were matched to another number of frames",
    AGAIN,
    Severity.WARNING,
)
ONE_FRAME = Check(
    "frame counts",
    "subtitles were matched to one frame more or less, or to frames that are cut off",
    AGAIN,
    Severity.WARNING,
)
NO_LENGTHS = Check("side files", "there is no vid2len.json", AGAIN, Severity.WARNING)
COUNT = Check("side files", "number of records is not vid2len.json's", AGAIN, Severity.WARNING)
SIDE_CHECKS = (INTERVAL, FRAMES, ONE_FRAME, NO_LENGTHS, COUNT)

LOST = Check(
    "records", "vid2len.json or the run has the video, the database not", AGAIN, drops=Drops.VIDEO
)
LENGTH = Check("side files", "duration differs from vid2len.json", AGAIN, Severity.WARNING)
NO_FRAMES = Check(
    "sub2frames",
    "frames in sub2frames that cannot exist",
    "nothing: they are left out",
    Severity.WARNING,
)
TEXTS = Check("texts", "subtitles and their tokens differ in number", AGAIN, Severity.WARNING)
EMPTY = Check(
    "empty texts", "subtitles without text", "nothing: they are read as such", Severity.WARNING
)
BEYOND = Check(
    "spans",
    "subtitles that start after the video's end",
    "nothing: they get no frame",
    Severity.WARNING,
)
USELESS = Check(
    "spans",
    "no subtitle meets a frame of its video",
    "fix the times, which must be seconds, and make the database again",
)
RECORD_CHECKS = (
    BAD_VIDEO,
    OUTSIDE,
    LOST,
    FRAMES,
    ONE_FRAME,
    LENGTH,
    NO_FRAMES,
    TEXTS,
    EMPTY,
    BEYOND,
)


def quick_findings(corpus: Corpus) -> Iterator[Finding]:
    """Check what the side files tell."""
    db = corpus.subtitles
    if db is None or not corpus.reads_text:
        return
    yield from examine(db.path, SIDE_CHECKS, _side_cases(corpus, db), of=len(corpus.vid2len))


def _side_cases(corpus: Corpus, db: TextDb) -> Iterator[Case]:
    told = db.meta.get("frame_length")
    if told is not None and told != corpus.interval:
        yield INTERVAL("frame_length", f"{told}, vfeat_interval {corpus.interval}")
    if not corpus.vid2len:
        yield NO_LENGTHS("vid2len.json")
        return
    if len(db) != len(corpus.vid2len):
        yield COUNT("", f"{len(db)}, not {len(corpus.vid2len)}")
    limits = SubtitleLimits.of(corpus, 0)
    for vid, frames in corpus.vid2len.items():
        if corpus.used is None or vid in corpus.used:
            yield from limits.frame_cases(vid, frames)


def full_findings(corpus: Corpus, vocab_size: int, workers: int) -> Iterator[Finding]:
    """Read every record."""
    db = corpus.subtitles
    if db is None or not corpus.reads_text:
        return
    ids = list(db.keys())
    there = set(ids)
    expected = [*corpus.vid2len] or [*(corpus.used or [])]
    cases = [LOST(vid) for vid in expected if vid not in there]
    reader = RecordReader(db, WholeSubtitleRecord, SubtitleLimits.of(corpus, vocab_size), BAD_VIDEO)
    cases += record_cases(reader, ids, workers)
    fault = subtitle_fault(db)
    useless = [USELESS("", fault)] if fault and any(case.check is BEYOND for case in cases) else []
    yield from examine(db.path, [USELESS], useless)
    yield from examine(db.path, RECORD_CHECKS, cases, of=len(ids), read=corpus.used)


@dataclass(frozen=True)
class SubtitleLimits:
    """What a subtitle record has to agree with.

    Attributes:
        id2nframe: frames of the features.
        vid2len: frames as the side file has them.
        max_clip_len: frames that the run keeps, −1: all.
        interval: seconds per frame.
        vocab_size: of the model.
    """

    id2nframe: dict[str, int]
    vid2len: dict[str, int]
    max_clip_len: int
    interval: float
    vocab_size: int

    @classmethod
    def of(cls, corpus: Corpus, vocab_size: int) -> "SubtitleLimits":
        """Those of a corpus."""
        return cls(
            corpus.id2nframe, corpus.vid2len, corpus.max_clip_len, corpus.interval, vocab_size
        )

    def frame_cases(self, vid: str, frames: int) -> Iterator[Case]:
        """Compare the number of frames that subtitles were matched to with the features'."""
        featured = self.id2nframe.get(vid, frames)
        if frames == featured:
            return
        least = min(frames, featured)
        cut = 0 <= self.max_clip_len <= least
        check = ONE_FRAME if cut or abs(frames - featured) == 1 else FRAMES
        yield check(vid, f"{frames}, features have {featured}")

    def __call__(self, vid: str, record: WholeSubtitleRecord) -> Iterator[Case]:
        """Yield what is wrong with a video's record."""
        frames, texts, subtitles = record.duration, record.input_ids, record.sub
        yield from self.frame_cases(vid, frames)
        if self.vid2len.get(vid, frames) != frames:
            yield LENGTH(vid, f"{frames}, not {self.vid2len[vid]}")
        odd = outside(texts, self.vocab_size)
        if odd:
            yield OUTSIDE(vid, odd)
        if subtitles and len(subtitles) != len(texts):
            yield TEXTS(vid, f"{len(subtitles)} subtitles, {len(texts)} texts")
        yield from impossible_frames(vid, record)
        empty = sum(not tokens for tokens in texts) if subtitles else 0
        if empty:
            yield EMPTY(vid, f"{empty} of {len(texts)}")
        late = sum(sub.start >= frames * self.interval for sub in subtitles)
        if late:
            yield BEYOND(vid, f"{late} of {len(subtitles)}")


def impossible_frames(vid: str, record: WholeSubtitleRecord) -> Iterator[Case]:
    """The first frames of ``record`` that cannot exist, if any.

    ``sub2frames`` may go on after the last frame, ``unique_sub2frames`` may not.
    """
    for matched, end in ((record.sub2frames, None), (record.unique_sub2frames, record.duration)):
        for _, places in matched:
            if places and (min(places) < 0 or (end is not None and max(places) >= end)):
                there = f"frames {min(places)} … {max(places)} of {record.duration}"
                yield NO_FRAMES(vid, there)
                return
