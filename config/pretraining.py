"""Options of pre-training: a mix of objectives over one or more corpora."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from config.groups import (
    Kind,
    RankingLossOptions,
    SpanLossOptions,
    TrainingOptions,
    VideoDbOptions,
)
from config.options import FRACTION, POSITIVE, option, redefault


@dataclass(frozen=True)
class SplitOptions:
    """A part of a corpus and the objectives trained on it; one loader per objective."""

    name: str
    tasks: list[str]  # rows of data.pretraining.OBJECTIVES
    train_idx: str | list[str]  # JSON lists of video names; with shards maybe one file per shard
    val_idx: str | list[str]
    ratio: list[float] = field(default_factory=list)  # weight of each task (none: equal)

    def __post_init__(self) -> None:
        if not self.ratio:
            object.__setattr__(self, "ratio", [1.0] * len(self.tasks))
        if not self.tasks or len(self.ratio) != len(self.tasks):
            raise ValueError("ratio needs one weight for each of tasks")
        if min(self.ratio) <= 0:
            raise ValueError("each ratio must be greater than 0")


@dataclass(frozen=True)
class CorpusOptions:
    """A corpus: its databases and splits."""

    name: str
    sub_txt_db: str
    splits: list[SplitOptions]
    vfeat_interval: float | None = None  # seconds per frame (null: the option's)
    vfeat_db: str | None = None
    vfeat_shards: list[str] = field(default_factory=list)  # one feature database each, in vfeat_db

    def __post_init__(self) -> None:
        if self.vfeat_db is None and not self.vfeat_shards:
            raise ValueError("needs vfeat_db, vfeat_shards or both")
        if not self.splits or (self.vfeat_interval is not None and self.vfeat_interval <= 0):
            raise ValueError("needs one split or more, and a vfeat_interval greater than 0")

    @property
    def feature_folders(self) -> list[str]:
        """Folders of its feature databases."""
        return self.vfeat_shards or [self.vfeat_db or ""]

    def under(self, txt_db: str, img_db: str) -> "CorpusOptions":
        """Return the corpus with its relative paths below the given folders."""

        def texts(names: str | list[str]) -> str | list[str]:
            if isinstance(names, str):
                return str(Path(txt_db, names))
            return [str(Path(txt_db, name)) for name in names]

        features = Path(img_db, self.vfeat_db or "")
        return replace(
            self,
            sub_txt_db=str(Path(txt_db, self.sub_txt_db)),
            vfeat_db=None if self.vfeat_shards else str(features),
            vfeat_shards=[str(features / shard) for shard in self.vfeat_shards],
            splits=[
                replace(split, train_idx=texts(split.train_idx), val_idx=texts(split.val_idx))
                for split in self.splits
            ],
        )


class PretrainOptions(SpanLossOptions, RankingLossOptions, TrainingOptions):
    """Pre-training (pretrain.py)"""

    KIND = Kind.CORPORA
    NEXT = "fine-tune from it: --checkpoint {output_dir}/ckpt/model_step_{best}.pt"

    targets: list[CorpusOptions] = option(help="corpora, their splits and objectives")
    targets_ratio: list[float] = option([], help="weight per corpus (none: equal)", rule=POSITIVE)
    objectives: list[str] = option(
        [], help="train these in every split, equally often (none: the splits' tasks)"
    )
    txt_db: str = option("", help="folder that relative paths of text files start from")
    img_db: str = option("", help="folder that relative paths of frame features start from")
    vfeat_interval: float = redefault(VideoDbOptions, "vfeat_interval", 1.5)
    mask_prob: float = option(0.15, help="share of tokens and frames to mask", rule=FRACTION)
    model_config: str = "config/hero_pretrain.json"
    val_batch_size: int = 32
    learning_rate: float = 3e-5
    num_train_steps: int = 100_000
    valid_steps: int = 500
    hard_negtiave_start_step: list[int] = [20_000]  # noqa: RUF012

    def resolve(self) -> None:
        """Set missing weights of corpora to 1, missing intervals to the option's."""
        super().resolve()
        targets = [replace(each, vfeat_interval=self.interval_of(each)) for each in self.targets]
        object.__setattr__(self, "targets", targets)
        if not self.targets_ratio:
            object.__setattr__(self, "targets_ratio", [1.0] * len(self.targets))

    def check(self) -> None:
        """Check that there are corpora, and a weight for each."""
        super().check()
        count = len(self.targets)
        self.require(count > 0, "targets", "one corpus or more")
        same = len(self.targets_ratio) == count
        self.require(same, "targets_ratio", f"as long as targets ({count} values)")
        self.require(self.token_budget is None, "token_budget", "null: pre-training mixes tasks")

    def interval_of(self, corpus: CorpusOptions) -> float:
        """Return the seconds per frame of a corpus."""
        return self.vfeat_interval if corpus.vfeat_interval is None else corpus.vfeat_interval

    def corpora(self) -> list[CorpusOptions]:
        """Return the targets with their paths below ``txt_db`` and ``img_db``, and with the
        option's objectives if it has any."""
        corpora = [target.under(self.txt_db, self.img_db) for target in self.targets]
        if not self.objectives:
            return corpora
        return [
            replace(
                corpus,
                splits=[replace(each, tasks=self.objectives, ratio=[]) for each in corpus.splits],
            )
            for corpus in corpora
        ]
