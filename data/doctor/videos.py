"""Videos that something asks for: are they there?"""

from collections.abc import Iterator

from data.doctor.databases import Corpus, WantedVideos
from data.doctor.findings import Case, Check, Drops, Finding, Severity, examine

NO_FEATURES = Check(
    "videos in features",
    "videos without features",
    "convert them into the feature database too (scripts/convert_videodb.py), or leave them out",
    drops=Drops.VIDEO,
)
NO_SUBTITLES = Check(
    "videos in subtitles",
    "videos without subtitles",
    "make the subtitle database again from subtitles that cover them (scripts/prepro_sub.py; a "
    'silent one has "sub": []), or leave them out',
    drops=Drops.VIDEO,
)
NONE_WANTED = Check(
    "pool",
    "it names no videos",
    "give a database with query2video.json, video_ids.json, or vid2dur_idx",
)
NOT_SEARCHED = Check(
    "pool",
    "queries are about videos that are not searched: they cannot be answered rightly",
    "give a vid2dur_idx.json or video_ids.json that has them",
    Severity.WARNING,
)


def quick_findings(corpus: Corpus) -> Iterator[Finding]:
    """Look for every video in the side files of features and subtitles."""
    for wanted in corpus.wanted:
        checks = [NONE_WANTED, NOT_SEARCHED] if wanted.asked_for is not None else []
        checks += [NO_FEATURES] if corpus.all_features else []
        checks += [NO_SUBTITLES] if corpus.reads_text and corpus.vid2len else []
        cases = _missing(corpus, wanted, set(checks))
        yield from examine(wanted.by, checks, cases, of=len(wanted.vids))


def _missing(corpus: Corpus, wanted: WantedVideos, checks: set[Check]) -> Iterator[Case]:
    if wanted.asked_for is not None:
        if not wanted.vids:
            yield NONE_WANTED("", "no video")
        searched = set(wanted.vids)
        yield from (NOT_SEARCHED(vid) for vid in wanted.asked_for if vid not in searched)
    featured = corpus.id2nframe if wanted.shard is None else wanted.shard.id2nframe
    for vid in wanted.vids:
        if NO_FEATURES in checks and vid not in featured:
            yield NO_FEATURES(vid)
        if NO_SUBTITLES in checks and vid not in corpus.vid2len:
            yield NO_SUBTITLES(vid)
