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
        durations: further names of the file of durations.
    """

    interval: float = 1.5
    compressed: bool = False
    clip_interval: int | None = None
    whole_subtitles: bool = False
    subtitles: tuple[str, ...] = ()
    durations: tuple[str, ...] = ()


CORPORA = {
    "tv": Corpus(
        subtitles=("tvqa_preprocessed_subtitles.jsonl",),
        durations=("vid2dur_idx.json", "tvr_video2dur_idx.json"),
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


_PUBLIC = ("train", "val", "test_public")
_THREE = ("train", "val", "test")

DATASETS = {
    "tvr": Dataset("tv", _PUBLIC, runs=("tvr_default",)),
    "tvqa": Dataset("tv", _PUBLIC),
    "tvc": Dataset("tv", captions=("train", "val"), targets=("val", "test_public")),
    "violin": Dataset("violin", _THREE),
    "didemo": Dataset("didemo", _THREE, asr="didemo_asr.jsonl"),
    "msrvtt": Dataset("msrvtt", _THREE, asr="msrvtt_asr.jsonl"),
    "how2r": Dataset("how2", ("train", "val"), published=False),
    "how2qa": Dataset("how2", ("train", "val"), published=False),
    "tv_pretrain": Dataset("tv", pretraining=True, weights="pretrain-tv-init.bin"),
    "ht_pretrain": Dataset("ht", pretraining=True, weights="pretrain-tv-init.bin", published=False),
}
