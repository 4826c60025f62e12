"""The data sets: the corpus of videos of each, and the databases that its recipes read."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from config.groups import Kind
from config.value import TASKS, ValueTask


@dataclass(frozen=True, slots=True)
class Corpus:
    """Videos with subtitles."""

    interval: float = 1.5  # seconds per frame
    compressed: bool = False  # features are stored compressed
    clip_interval: int | None = None  # seconds of the clips that videos are cut into; None: uncut
    whole_subtitles: bool = False  # the annotation file is of whole videos, and is cut, too
    subtitles: tuple[str, ...] = ()  # further names of the annotation file
    subtitle_folders: tuple[str, ...] = ()  # patterns of folders of subtitle files used instead
    durations: tuple[str, ...] = ()  # further names of the file of durations
    nframe_group: int | None = None  # frames of a pseudo-subtitle; None: the script's default
    subtitles_at: str = ""  # their address
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

    corpus: str  # its videos
    splits: tuple[str, ...] = ()  # of its queries, questions or statements
    captions: tuple[str, ...] = ()  # splits of its captions
    targets: tuple[str, ...] = ()  # splits whose clips and captions are needed as JSON lines, too
    # Queries of other data sets that are its captions to train on: (name, split).
    learns_from: tuple[tuple[str, str], ...] = ()
    pretraining: bool = False  # there are lists of videos to pre-train on
    weights: str = "hero-tv-ht100.pt"  # initial weights of its recipe
    runs: tuple[str, ...] = ()  # fine-tuned models
    asr: str | None = None  # the file of its recognised speech, if published
    published: bool = True  # its databases are published
    annotation: str = ""  # name of the published annotation file, {} for the split
    converted: bool = False  # it is no JSON lines: convert_annotations.py converts it
    annotations_at: str = ""  # its address

    def source(self, split: str) -> str:
        """Return the published annotation file of a split, and its address."""
        return f"{self.annotation.format(split)}: {self.annotations_at}"


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
    """The data sets, and their corpora, by name."""

    corpora: Mapping[str, Corpus]
    datasets: Mapping[str, Dataset]

    def corpus_of(self, dataset: str) -> Corpus:
        """Return the corpus of a data set."""
        return self.corpora[self.datasets[dataset].corpus]


VALUE = "value"


def _value_dataset(task: ValueTask) -> Dataset:
    """Return one of VALUE's data sets, by the files that its recipes read."""
    own, is_captions = f"{task.name}_", task.kind is Kind.CAPTIONS
    ending = "_release.jsonl" if is_captions else ".jsonl"
    dataset = Dataset(
        task.corpus,
        published=False,
        annotation=f"{own}{{}}{ending}",
        annotations_at="https://github.com/VALUE-Leaderboard/DataRelease",
    )
    train = [file.removesuffix(".db") for file in task.train]
    splits = tuple(name.removeprefix(own) for name in train if name.startswith(own))
    evaluated = (file.removeprefix(own) for file in task.evaluated.values())
    if not is_captions:
        return replace(dataset, splits=(*splits, *(file.removesuffix(".db") for file in evaluated)))
    others = [name.rpartition("_") for name in train if not name.startswith(own)]
    return replace(
        dataset,
        captions=splits,
        targets=tuple(file.removesuffix(ending) for file in evaluated),
        learns_from=tuple((other, split) for other, _, split in others),
    )


def catalogue(value: bool = False) -> Catalogue:
    """Return HERO's and VALUE's data sets; of those that both have, VALUE's if ``value``.

    VALUE's videos all have features every 1.5 seconds, uncompressed, and its How2 is cut already.
    """
    options: dict[str, Any] = {"interval": 1.5, "compressed": False, "clip_interval": None}
    options["nframe_group"] = 5
    corpora = {
        task.corpus: replace(CORPORA.get(task.corpus, Corpus()), **options)
        for task in TASKS.values()
    }
    datasets = {name: _value_dataset(task) for name, task in TASKS.items()}
    if value:
        return Catalogue(CORPORA | corpora, DATASETS | datasets)
    return Catalogue(corpora | CORPORA, datasets | DATASETS)
