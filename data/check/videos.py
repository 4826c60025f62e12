"""Checks of the videos that databases and lists name."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from data.check.databases import Corpus, WantedVideos
from data.check.findings import Case, Check, Drops, Finding, examine, warning
from data.video_indices import VIDEO_INDICES, shared_between_splits, split_parts, table_faults

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
NOT_SEARCHED = warning(
    "pool",
    "queries are about videos that are not searched: they count as wrong",
    "give a vid2dur_idx.json or video_ids.json that has them",
)
NONE_SEARCHED = Check(
    "pool",
    "all queries are about videos that are not searched",
    "give the query database of this split, or a vid2dur_idx.json that has its videos",
)
LISTED_TWICE = warning(
    "video names",
    "a list names a video twice",
    'leave one of them (1 and "1" are one)',
)
BAD_INDEX = Check(
    "video indices",
    "entries that are not [seconds, index], or videos of one split that share an index",
    "fix vid2dur_idx.json and make the subtitle database again: an index is the id of one video",
)
SHARED_INDEX = warning(
    "video indices",
    "videos of different splits share an index",
    "nothing, as long as their results files are not mixed",
)
NO_SPLIT = Check(
    "video indices",
    "a split that is searched is not in it",
    "fix vid2dur_idx.json and make the subtitle database again, or name one of its splits",
)


def quick_findings(corpus: Corpus) -> Iterator[Finding]:
    """Check whether the side files of features and subtitles have all videos."""
    for wanted in corpus.wanted:
        checks = [NO_FEATURES] if corpus.all_features else []
        checks += [NO_SUBTITLES] if corpus.reads_text and corpus.vid2len else []
        cases = _missing(corpus, wanted, set(checks))
        # Where none is available, the run cannot leave out what is missing.
        available = (corpus.available(wanted.vids) or None) if corpus.only_available else None
        yield from examine(wanted.by, checks, cases, of=len(wanted.vids), read=available)
        if wanted.asked_for is None:
            twice = [LISTED_TWICE(vid) for vid, count in Counter(wanted.vids).items() if count > 1]
            yield from examine(wanted.by, [LISTED_TWICE], twice, of=len(wanted.vids))
        else:
            pool_checks = [NONE_WANTED, NOT_SEARCHED, NONE_SEARCHED]
            kept = corpus.available(set(wanted.asked_for.values()))
            asked_for = {qid: vid for qid, vid in wanted.asked_for.items() if vid in kept}
            cases = _pool_cases(wanted.vids, asked_for)
            yield from examine(wanted.by, pool_checks, cases, of=len(asked_for))
    if corpus.subtitles is not None and corpus.subtitles.has_side(VIDEO_INDICES):
        where = corpus.subtitles.path / VIDEO_INDICES
        table = corpus.subtitles.side(VIDEO_INDICES)
        faults = [BAD_INDEX(fault.split, fault.text) for fault in table_faults(table, where)]
        yield from examine(where, [BAD_INDEX], faults, read=corpus.indexed)
        lacking = sorted(split for split in corpus.required if not split_parts(table, split))
        absent = [NO_SPLIT(split, f"it has {', '.join(table)}") for split in lacking]
        yield from examine(where, [NO_SPLIT] if corpus.required else [], absent)
        shared = shared_between_splits(table)
        cases = (SHARED_INDEX(str(index), ", ".join(vids)) for index, vids in shared)
        yield from examine(where, [SHARED_INDEX], cases)


def _missing(corpus: Corpus, wanted: WantedVideos, checks: set[Check]) -> Iterator[Case]:
    featured = corpus.id2nframe if wanted.shard is None else wanted.shard.id2nframe
    for vid in wanted.vids:
        if NO_FEATURES in checks and vid not in featured:
            yield NO_FEATURES(vid)
        if NO_SUBTITLES in checks and vid not in corpus.vid2len:
            yield NO_SUBTITLES(vid)


def _pool_cases(vids: Collection[str], asked_for: Mapping[str, str]) -> Iterator[Case]:
    """Compare a pool with its queries' videos."""
    if not vids:
        yield NONE_WANTED("", "no video")
    searched = set(vids)
    outside = [(qid, vid) for qid, vid in asked_for.items() if vid not in searched]
    check = NONE_SEARCHED if len(outside) == len(asked_for) else NOT_SEARCHED
    yield from (check(qid, f"video {vid}") for qid, vid in outside)
