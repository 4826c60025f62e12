"""Checks of subtitle databases, and of their frames against the features'."""

from collections.abc import Iterator
from functools import partial

from data.check.databases import Corpus
from data.check.findings import Case, Check, Drops, Finding, examine, warning
from data.check.records import BAD_VIDEO, record_cases
from data.check.tokens import OUTSIDE_MODEL, outside
from data.stores.lmdb_io import TextDb
from data.stores.records import WholeSubtitleRecord
from data.usable import subtitle_fault

AGAIN = "make the subtitle database again (scripts/prepro_sub.py --vid2nframe the features')"
OUTSIDE = Check("vocabulary", OUTSIDE_MODEL, AGAIN, drops=Drops.VIDEO)
INTERVAL = warning(
    "interval",
    "seconds per frame differ from the option",
    "give the --vfeat_interval of both databases, or make one of them again",
)
FRAMES = warning("frame counts", "subtitles were matched to another number of frames", AGAIN)
ONE_FRAME = warning(
    "frame counts",
    "subtitles were matched to one frame more or less, or to frames that are cut off",
    AGAIN,
)
NO_LENGTHS = warning("side files", "there is no vid2len.json", AGAIN)
COUNT = warning("side files", "number of records is not vid2len.json's", AGAIN)
SIDE_CHECKS = (INTERVAL, FRAMES, ONE_FRAME, NO_LENGTHS, COUNT)

LOST = Check(
    "records", "vid2len.json or the run has the video, the database not", AGAIN, drops=Drops.VIDEO
)
LENGTH = warning("side files", "duration differs from vid2len.json", AGAIN)
NO_FRAMES = warning(
    "sub2frames", "frames in sub2frames that cannot exist", "nothing: they are left out"
)
TEXTS = warning("texts", "subtitles and their tokens differ in number", AGAIN)
EMPTY = warning("empty texts", "subtitles without text", "nothing: they are read as such")
BEYOND = warning(
    "spans", "subtitles that start after the video's end", "nothing: they get no frame"
)
USELESS = Check(
    "spans",
    "no subtitle meets a frame of its video",
    "fix the times, which must be seconds, and make the database again",
)
RECORD_CHECKS = (
    *(BAD_VIDEO, OUTSIDE, LOST, FRAMES, ONE_FRAME),
    *(LENGTH, NO_FRAMES, TEXTS, EMPTY, BEYOND),
)


def quick_findings(corpus: Corpus) -> Iterator[Finding]:
    """Check side files."""
    db = corpus.subtitles
    if db is not None and corpus.reads_text:
        yield from examine(db.path, SIDE_CHECKS, _side_cases(corpus, db), of=len(corpus.vid2len))


def _side_cases(corpus: Corpus, db: TextDb) -> Iterator[Case]:
    interval = db.meta.get("frame_length")
    if interval is not None and interval != corpus.interval:
        yield INTERVAL("frame_length", f"{interval}, vfeat_interval {corpus.interval}")
    if not corpus.vid2len:
        yield NO_LENGTHS("vid2len.json")
        return
    if len(db) != len(corpus.vid2len):
        yield COUNT("", f"{len(db)}, not {len(corpus.vid2len)}")
    for vid, frames in corpus.vid2len.items():
        if corpus.used is None or vid in corpus.used:
            yield from _frame_cases(corpus, vid, frames)


def full_findings(corpus: Corpus, vocab_size: int, workers: int) -> Iterator[Finding]:
    """Check every record."""
    db = corpus.subtitles
    if db is None or not corpus.reads_text:
        return
    listed = [*corpus.vid2len] or [*(corpus.used or [])]
    look = partial(_subtitle_cases, corpus, vocab_size)
    cases = [
        *record_cases(db, WholeSubtitleRecord, look, listed, workers, bad=BAD_VIDEO, lost=LOST)
    ]
    fault = subtitle_fault(db)
    useless = [USELESS("", fault)] if fault and any(case.check is BEYOND for case in cases) else []
    yield from examine(db.path, [USELESS], useless)
    yield from examine(db.path, RECORD_CHECKS, cases, of=len(db), read=corpus.used)


def _frame_cases(corpus: Corpus, vid: str, frames: int) -> Iterator[Case]:
    """Compare the number of frames that subtitles were matched to with the features'."""
    featured = corpus.id2nframe.get(vid, frames)
    if frames == featured:
        return
    cut = 0 <= corpus.max_clip_len <= min(frames, featured)
    check = ONE_FRAME if cut or abs(frames - featured) == 1 else FRAMES
    yield check(vid, f"{frames}, features have {featured}")


def _subtitle_cases(
    corpus: Corpus, vocab_size: int, vid: str, record: WholeSubtitleRecord
) -> Iterator[Case]:
    frames, texts, subtitles = record.duration, record.input_ids, record.sub
    yield from _frame_cases(corpus, vid, frames)
    if corpus.vid2len.get(vid, frames) != frames:
        yield LENGTH(vid, f"{frames}, not {corpus.vid2len[vid]}")
    if wrong := outside(texts, vocab_size):
        yield OUTSIDE(vid, wrong)
    if subtitles and len(subtitles) != len(texts):
        yield TEXTS(vid, f"{len(subtitles)} subtitles, {len(texts)} texts")
    yield from _impossible_frames(vid, record)
    empty = sum(not tokens for tokens in texts) if subtitles else 0
    if empty:
        yield EMPTY(vid, f"{empty} of {len(texts)}")
    late = sum(sub.start >= frames * corpus.interval for sub in subtitles)
    if late:
        yield BEYOND(vid, f"{late} of {len(subtitles)}")


def _impossible_frames(vid: str, record: WholeSubtitleRecord) -> Iterator[Case]:
    """Yield the first frames of ``record`` that cannot exist, if any.

    ``sub2frames`` may reach beyond the last frame, ``unique_sub2frames`` may not.
    """
    for matched, end in ((record.sub2frames, None), (record.unique_sub2frames, record.duration)):
        for _, frames in matched:
            if frames and (min(frames) < 0 or (end is not None and max(frames) >= end)):
                yield NO_FRAMES(vid, f"frames {min(frames)} … {max(frames)} of {record.duration}")
                return
