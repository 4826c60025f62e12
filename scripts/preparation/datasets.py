"""Data sets: which corpus of videos each is about, and which databases its recipes read."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from config.groups import Kind
from config.value import TASKS, ValueTask


@dataclass(frozen=True, slots=True)
class Corpus:
    """Videos with subtitles.

    Attributes:
        interval: seconds per frame.
        compressed: whether the features are stored compressed.
        clip_interval: seconds of the clips that its videos are cut into; None: they stay whole.
        whole_subtitles: its annotation file is about whole videos, and is cut, too.
        subtitles: further names of the annotation file.
        subtitle_folders: names (patterns) of folders of subtitle files that do as well.
        durations: further names of the file of durations.
        nframe_group: frames of a pseudo-subtitle, and videos without features are left out; None:
            as HERO has it.
        subtitles_at, features_at: where they can be had.
    """

    interval: float = 1.5
    compressed: bool = False
    clip_interval: int | None = None
    whole_subtitles: bool = False
    subtitles: tuple[str, ...] = ()
    subtitle_folders: tuple[str, ...] = ()
    durations: tuple[str, ...] = ()
    nframe_group: int | None = None
    subtitles_at: str = ""
    features_at: str = ""


CORPORA = {
    "tv": Corpus(
        subtitles=("tvqa_preprocessed_subtitles.jsonl",),
        subtitle_folders=("tvqa_subtitles*", "*subtitles*"),
        durations=("vid2dur_idx.json", "tvr_video2dur_idx.json"),
        subtitles_at="tvqa_preprocessed_subtitles.jsonl: https://github.com/jayleicn/TVRetrieval; "
        "or a folder tvqa_subtitles of .srt files: https://github.com/jayleicn/TVQA",
        features_at="HERO's own, tvr_feature_release.tar.gz: https://github.com/houzhijian/CONQUER",
    ),
    "how2": Corpus(interval=2, clip_interval=60),
    "violin": Corpus(compressed=True),
    "didemo": Corpus(),
    "msrvtt": Corpus(interval=2),
    "ht": Corpus(interval=2, clip_interval=60, whole_subtitles=True),
}


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set."""

    corpus: str  # the videos it is about
    splits: tuple[str, ...] = ()  # of its queries, questions or statements
    captions: tuple[str, ...] = ()  # splits of its captions
    targets: tuple[str, ...] = ()  # splits whose clips and captions are wanted as JSON lines, too
    # queries of other data sets that are its captions to train on: (name, split)
    learns_from: tuple[tuple[str, str], ...] = ()
    pretraining: bool = False  # whether there are lists of videos to pre-train on
    weights: str = "hero-tv-ht100.pt"  # what its recipe starts from
    runs: tuple[str, ...] = ()  # fine-tuned models
    asr: str | None = None  # the file of its recognised speech, where it was published
    published: bool = True  # whether its databases were
    annotation: str = ""  # the published annotation file of a split
    # it is of another format than JSON lines, which convert_annotations.py knows
    converted: bool = False
    annotations_at: str = ""  # where it can be had


_PUBLIC = ("train", "val", "test_public")
_THREE = ("train", "val", "test")
_HOW2 = "https://github.com/ych133/How2R-and-How2QA"

DATASETS = {
    "tvr": Dataset(
        "tv",
        _PUBLIC,
        runs=("tvr_default",),
        annotation="tvr_{}_release.jsonl",
        annotations_at="https://github.com/jayleicn/TVRetrieval",
    ),
    "tvqa": Dataset(
        "tv",
        _PUBLIC,
        annotation="tvqa_{}.jsonl",
        annotations_at="http://tvqa.cs.unc.edu, https://github.com/jayleicn/TVQA",
    ),
    "tvc": Dataset(
        "tv",
        captions=("train", "val"),
        targets=("val", "test_public"),
        annotation="tvc_{}_release.jsonl",
        annotations_at="https://github.com/jayleicn/TVCaption",
    ),
    "violin": Dataset(
        "violin",
        _THREE,
        annotation="violin_{}.jsonl",
        annotations_at="https://github.com/jimmy646/violin",
    ),
    "didemo": Dataset(
        "didemo",
        _THREE,
        asr="didemo_asr.jsonl",
        annotation="{}_data.json",
        converted=True,
        annotations_at="https://github.com/LisaAnne/TemporalLanguageRelease",
    ),
    "msrvtt": Dataset(
        "msrvtt",
        _THREE,
        asr="msrvtt_asr.jsonl",
        annotation="msrvtt_{}.jsonl",
        annotations_at="http://ms-multimedia-challenge.com/2017/challenge",
    ),
    "how2r": Dataset(
        "how2",
        ("train", "val"),
        published=False,
        annotation="how2R_{}_release.csv",
        converted=True,
        annotations_at=_HOW2,
    ),
    "how2qa": Dataset(
        "how2",
        ("train", "val"),
        published=False,
        annotation="how2QA_{}_release.csv",
        converted=True,
        annotations_at=_HOW2,
    ),
    "tv_pretrain": Dataset("tv", pretraining=True, weights="pretrain-tv-init.bin"),
    "ht_pretrain": Dataset("ht", pretraining=True, weights="pretrain-tv-init.bin", published=False),
}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Which data sets there are.

    Attributes:
        corpora, datasets: by name.
    """

    corpora: Mapping[str, Corpus]
    datasets: Mapping[str, Dataset]

    def corpus_of(self, dataset: str) -> Corpus:
        """The videos that a data set is about."""
        return self.corpora[self.datasets[dataset].corpus]


VALUE = "value"
_RELEASE = "_release.jsonl"


def _value_dataset(task: ValueTask) -> Dataset:
    """One of VALUE's data sets, by the files that its recipes read."""
    own, at = f"{task.name}_", "https://github.com/VALUE-Leaderboard/DataRelease"
    if task.kind is not Kind.CAPTIONS:
        files = (*task.train, *task.evaluated.values())
        splits = tuple(file.removeprefix(own).removesuffix(".db") for file in files)
        return Dataset(
            task.corpus, splits, published=False, annotation=f"{own}{{}}.jsonl", annotations_at=at
        )
    train = [file.removesuffix(".db") for file in task.train]
    others = [name.rpartition("_") for name in train if not name.startswith(own)]
    return Dataset(
        task.corpus,
        captions=tuple(name.removeprefix(own) for name in train if name.startswith(own)),
        targets=tuple(
            file.removeprefix(own).removesuffix(_RELEASE) for file in task.evaluated.values()
        ),
        learns_from=tuple((other, split) for other, _, split in others),
        published=False,
        annotation=f"{own}{{}}{_RELEASE}",
        annotations_at=at,
    )


def catalogue(value: bool = False) -> Catalogue:
    """HERO's data sets and VALUE's; of those that both have, ``value``: VALUE's, else HERO's.

    VALUE's videos all have features every 1.5 seconds, uncompressed, and its How2 is cut already.
    """
    names = dict.fromkeys(task.corpus for task in TASKS.values())
    corpora = {
        name: replace(
            CORPORA.get(name, Corpus()),
            interval=1.5,
            compressed=False,
            clip_interval=None,
            nframe_group=5,
        )
        for name in names
    }
    datasets = {name: _value_dataset(task) for name, task in TASKS.items()}
    if value:
        return Catalogue(CORPORA | corpora, DATASETS | datasets)
    return Catalogue(corpora | CORPORA, datasets | DATASETS)
