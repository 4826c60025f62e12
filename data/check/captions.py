"""Checks of captions of clips (TVC)."""

from collections.abc import Collection, Iterator, Mapping
from functools import partial

from data.check.databases import CaptionSet, Corpus, RunData
from data.check.findings import Case, Check, Drops, Finding, examine, warning
from data.check.queries import CLAMPED, span_cases
from data.check.records import BAD_TEXT, record_cases
from data.check.tokens import OUTSIDE_MODEL, outside
from data.clips import starts_beyond
from data.stores.records import CaptionRecord
from data.video_pool import feature_name

AGAIN = "make the database again (scripts/prepro_tvc.py)"

NO_CAPTIONS = Check("captions", "it has no caption to learn from", "take a split with captions")
COUNT = Check("side files", "fewer records than vid2caps.json has captions", AGAIN)
SIDE_CHECKS = (NO_CAPTIONS, COUNT)

LOST = Check("records", "vid2caps.json has the caption, cap.db not", AGAIN, drops=Drops.RECORD)
UNLISTED = warning("records", "in cap.db, not in vid2caps.json", AGAIN)
OTHER_VIDEO = Check("side files", "video differs from vid2caps.json's", AGAIN, drops=Drops.RECORD)
OUTSIDE = Check("vocabulary", OUTSIDE_MODEL, AGAIN, drops=Drops.RECORD)
EMPTY = warning("empty texts", "captions without a token", "nothing: they teach to say nothing")
BEYOND = warning(
    "spans",
    "clips that reach more than a frame beyond the video's end",
    "nothing: they are cut to the last frame",
)
AFTER_CUT = warning(
    "spans",
    "captions of clips that start after the last kept frame",
    "nothing: they are left out of training; a longer --max_clip_len may reach them",
)
CLIP_LOST = warning("side files", "a caption's clip is not in clip.db", AGAIN)
RECORD_CHECKS = (
    *(BAD_TEXT, LOST, UNLISTED, OTHER_VIDEO, OUTSIDE, EMPTY),
    *(CLAMPED, BEYOND, AFTER_CUT, CLIP_LOST),
)


def quick_findings(corpus: Corpus) -> Iterator[Finding]:
    """Check side files."""
    for captions in corpus.captions:
        yield from examine(captions.path, SIDE_CHECKS, _side_cases(captions))


def _side_cases(captions: CaptionSet) -> Iterator[Case]:
    listed = sum(map(len, captions.by_video.values()))
    if not listed:
        yield NO_CAPTIONS("vid2caps.json", "it lists none")
    if len(captions.captions) < listed:
        yield COUNT("", f"{len(captions.captions)}, not {listed}")


def full_findings(data: RunData, corpus: Corpus, workers: int) -> Iterator[Finding]:
    """Check every caption."""
    for captions in corpus.captions:
        video_of = {id_: vid for vid, own in captions.by_video.items() for id_ in own}
        clips = frozenset(captions.clips.keys())
        cases = record_cases(
            captions.captions,
            CaptionRecord,
            partial(_caption_cases, video_of, clips, corpus, data.vocab_size),
            video_of,
            workers,
            bad=BAD_TEXT,
            lost=LOST,
            unlisted=UNLISTED,
        )
        of = len(captions.captions)
        yield from examine(captions.path, RECORD_CHECKS, cases, of=of, read=video_of)


def _caption_cases(
    video_of: Mapping[str, str],
    clips: Collection[str],
    corpus: Corpus,
    vocab_size: int,
    id_: str,
    record: CaptionRecord,
) -> Iterator[Case]:
    vid = feature_name(str(record.vid_name), corpus.id2nframe)
    tokens, moment = record.input_ids, record.ts
    if video_of.get(id_, vid) != vid:
        yield OTHER_VIDEO(id_, f"{vid}, not {video_of[id_]}")
    if str(record.clip_id) not in clips:
        yield CLIP_LOST(id_, f"{record.clip_id}")
    if wrong := outside([tokens], vocab_size):
        yield OUTSIDE(id_, wrong)
    if not tokens:
        yield EMPTY(id_)
    frames, interval = corpus.id2nframe.get(vid), corpus.interval
    yield from span_cases(id_, moment, frames, interval, BEYOND)
    if frames is not None:
        kept = corpus.kept(frames)
        if starts_beyond(moment[0], interval, kept):
            yield AFTER_CUT(id_, f"from {moment[0]:g} s, kept until {kept * interval:g}")
