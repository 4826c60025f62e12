"""Data sets: which corpus of videos each is about, and which databases its recipes read."""

from dataclasses import dataclass


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
        subtitles_at, features_at: where they can be had.
    """

    interval: float = 1.5
    compressed: bool = False
    clip_interval: int | None = None
    whole_subtitles: bool = False
    subtitles: tuple[str, ...] = ()
    subtitle_folders: tuple[str, ...] = ()
    durations: tuple[str, ...] = ()
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
    """A data set.

    Attributes:
        corpus: the videos it is about.
        splits: of its queries, questions or statements.
        captions: splits of its captions.
        targets: splits whose clips and captions are wanted as JSON lines, too.
        pretraining: whether there are lists of videos to pre-train on.
        weights: what its recipe starts from.
        runs: fine-tuned models.
        asr: the file of its recognised speech, where it was published.
        published: whether its databases were.
        annotation: the published annotation file of a split.
        annotations_at: where it can be had.
    """

    corpus: str
    splits: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    pretraining: bool = False
    weights: str = "hero-tv-ht100.pt"
    runs: tuple[str, ...] = ()
    asr: str | None = None
    published: bool = True
    annotation: str = ""
    annotations_at: str = ""


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
        annotations_at=_HOW2,
    ),
    "how2qa": Dataset(
        "how2",
        ("train", "val"),
        published=False,
        annotation="how2QA_{}_release.csv",
        annotations_at=_HOW2,
    ),
    "tv_pretrain": Dataset("tv", pretraining=True, weights="pretrain-tv-init.bin"),
    "ht_pretrain": Dataset("ht", pretraining=True, weights="pretrain-tv-init.bin", published=False),
}
