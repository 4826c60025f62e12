"""Videos that something asks for: are they there?"""

from collections.abc import Iterator

from data.doctor.databases import Corpus, WantedVideos
from data.doctor.findings import Case, Check, Drops, Finding, examine

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


def quick_findings(corpus: Corpus) -> Iterator[Finding]:
    """Look for every video in the side files of features and subtitles."""
    for wanted in corpus.wanted:
        checks = [NONE_WANTED]
        checks += [NO_FEATURES] if corpus.all_features else []
        checks += [NO_SUBTITLES] if corpus.reads_text and corpus.vid2len else []
        cases = _missing(corpus, wanted, set(checks))
        yield from examine(wanted.by, checks, cases, of=len(wanted.vids))


def _missing(corpus: Corpus, wanted: WantedVideos, checks: set[Check]) -> Iterator[Case]:
    if not wanted.vids:
        yield NONE_WANTED("", "no video")
    featured = corpus.id2nframe if wanted.shard is None else wanted.shard.id2nframe
    for vid in wanted.vids:
        if NO_FEATURES in checks and vid not in featured:
            yield NO_FEATURES(vid)
        if NO_SUBTITLES in checks and vid not in corpus.vid2len:
            yield NO_SUBTITLES(vid)
