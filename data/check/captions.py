"""Captions of clips (TVC)."""

from collections.abc import Iterator
from dataclasses import dataclass

from data.check.databases import CaptionSet, Corpus, RunData
from data.check.findings import Case, Check, Drops, Finding, Severity, examine
from data.check.queries import CLAMPED, span_cases
from data.check.records import BAD_TEXT, RecordReader, record_cases
from data.check.tokens import OUTSIDE_MODEL, outside
from data.clips import starts_beyond
from data.stores.records import CaptionRecord
from data.video_pool import feature_name

AGAIN = "make the database again (scripts/prepro_tvc.py)"
WARNING = Severity.WARNING

NO_CAPTIONS = Check("captions", "it has no caption to learn from", "take a split with captions")
COUNT = Check("side files", "fewer records than vid2caps.json has captions", AGAIN)
SIDE_CHECKS = (NO_CAPTIONS, COUNT)

LOST = Check("records", "vid2caps.json has the caption, cap.db not", AGAIN, drops=Drops.RECORD)
UNLISTED = Check("records", "in cap.db, not in vid2caps.json", AGAIN, WARNING)
OTHER_VIDEO = Check("side files", "video differs from vid2caps.json's", AGAIN, drops=Drops.RECORD)
OUTSIDE = Check("vocabulary", OUTSIDE_MODEL, AGAIN, drops=Drops.RECORD)
EMPTY = Check(
    "empty texts", "captions without a token", "nothing: they teach to say nothing", WARNING
)
BEYOND = Check(
    "spans",
    "clips that reach more than a frame beyond the video's end",
    "nothing: they are cut to the last frame",
    WARNING,
)
AFTER_CUT = Check(
    "spans",
    "captions of clips that start after the last kept frame",
    "nothing: they are left out of training; a longer --max_clip_len may reach them",
    WARNING,
)
CLIP_LOST = Check("side files", "a caption's clip is not in clip.db", AGAIN, WARNING)
RECORD_CHECKS = (
    BAD_TEXT,
    LOST,
    UNLISTED,
    OTHER_VIDEO,
    OUTSIDE,
    EMPTY,
    CLAMPED,
    BEYOND,
    AFTER_CUT,
    CLIP_LOST,
)


def quick_findings(corpus: Corpus) -> Iterator[Finding]:
    """Check what the side files tell."""
    for captions in corpus.captions:
        yield from examine(captions.path, SIDE_CHECKS, _side_cases(captions))


def _side_cases(captions: CaptionSet) -> Iterator[Case]:
    listed = sum(map(len, captions.by_video.values()))
    if not listed:
        yield NO_CAPTIONS("vid2caps.json", "it lists none")
    if len(captions.captions) < listed:
        yield COUNT("", f"{len(captions.captions)}, not {listed}")


def full_findings(data: RunData, corpus: Corpus, workers: int) -> Iterator[Finding]:
    """Read every caption."""
    for captions in corpus.captions:
        ids = list(captions.captions.keys())
        there = set(ids)
        video_of = {id_: vid for vid, own in captions.by_video.items() for id_ in own}
        cases = [LOST(id_) for id_ in video_of if id_ not in there]
        cases += [UNLISTED(id_) for id_ in ids if id_ not in video_of]
        look = CaptionLimits(video_of, frozenset(captions.clips.keys()), corpus, data.vocab_size)
        reader = RecordReader(captions.captions, CaptionRecord, look, BAD_TEXT)
        cases += record_cases(reader, ids, workers)
        yield from examine(captions.path, RECORD_CHECKS, cases, of=len(ids), read=video_of)


@dataclass(frozen=True)
class CaptionLimits:
    """What a caption's record has to agree with.

    Attributes:
        video_of: video of every caption.
        clips: ids of ``clip.db``.
        corpus: frames of the features.
        vocab_size: of the model.
    """

    video_of: dict[str, str]
    clips: frozenset[str]
    corpus: Corpus
    vocab_size: int

    def __call__(self, id_: str, record: CaptionRecord) -> Iterator[Case]:
        """Yield what is wrong with the record of a caption."""
        vid = feature_name(str(record.vid_name), self.corpus.id2nframe)
        tokens, moment = record.input_ids, record.ts
        if self.video_of.get(id_, vid) != vid:
            yield OTHER_VIDEO(id_, f"{vid}, not {self.video_of[id_]}")
        if str(record.clip_id) not in self.clips:
            yield CLIP_LOST(id_, f"{record.clip_id}")
        odd = outside([tokens], self.vocab_size)
        if odd:
            yield OUTSIDE(id_, odd)
        if not tokens:
            yield EMPTY(id_)
        frames, interval = self.corpus.id2nframe.get(vid), self.corpus.interval
        yield from span_cases(id_, moment, frames, interval, BEYOND)
        if frames is not None:
            kept = self.corpus.kept(frames)
            if starts_beyond(moment[0], interval, kept):
                yield AFTER_CUT(id_, f"from {moment[0]:g} s, kept until {kept * interval:g}")
