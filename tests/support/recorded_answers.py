"""Question answering and VIOLIN as recorded: models, items, run folders, training."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import eval_videoQA
import eval_violin
from config.model_config import ModelConfig
from data.batch import JudgedBatch
from data.candidates import CandidateDataset
from data.stores.lmdb_io import TextDb
from data.videoQA import QuestionDataset
from data.violin import StatementDataset
from engine.trainer import Task
from evaluation.answers import AnsweredSplit, answer_split
from model.candidates import CandidateModel
from model.layers import set_dropout
from model.videoQA import HeroForVideoQA
from model.violin import HeroForViolin
from tests.support.recorded import DEVICE, load_recorded, placed, recorded_run, recorded_source
from tests.support.recorded_runs import RecordedLoader, assert_recorded_run
from tests.support.thread_ranks import on_ranks


@dataclass(frozen=True)
class RecordedTask:
    """One task of a recorded world.

    Attributes:
        name: of its databases, runs and keys.
        head: file of the weights that the pre-trained model lacks.
        context: ``sub_ctx_len`` of the record.
        evaluate: ``main`` of the script that writes results.
        weights: factors of the losses in training.
        rates: learning rate and ``lr_mul`` of the recorded training.
    """

    name: str
    model_class: type[CandidateModel]
    dataset_class: type[CandidateDataset]
    head: str
    context: int
    evaluate: Callable[[list[str]], dict[str, float]]
    weights: dict[str, float]
    rates: tuple[float, float]

    def model(self, expected: Path) -> CandidateModel:
        """The recorded model, without dropout."""
        model = self.model_class(ModelConfig.from_json(expected / "model_finetune.json"))
        report = load_recorded(model, expected / "pretrained.pt", expected / self.head)
        assert not report.missing + report.new_heads
        set_dropout(model, 0.0)
        return model.to(DEVICE)

    def batch(self, data: CandidateDataset, *numbers: int) -> JudgedBatch:
        """Some items of a split, or all, as the model reads them."""
        return placed(data.collate([data[n] for n in numbers or range(len(data))]))

    def data(self, world: Path, split: str = "val", training: bool = False) -> CandidateDataset:
        """The items of a split."""
        source = recorded_source(world, context=self.context)
        db = TextDb(world / "txt_db" / f"{self.name}_{split}.db")
        return self.dataset_class(db, source, training=training)

    def contract(self, expected: Path) -> tuple[dict, dict]:
        """Names and shapes of the model's weights, and those they must be."""
        keys = json.loads((expected / "state_dict_keys.json").read_text())
        model = self.model_class(ModelConfig.from_json(expected / "model_finetune.json"))
        own = {name: list(value.shape) for name, value in model.state_dict().items()}
        return own, keys[self.model_class.__name__]["parameters"]

    def run_folder(self, expected: Path, folder: Path) -> Path:
        """A run folder as a user has it: options, model sizes, weights of step 1."""
        return recorded_run(expected, f"exp_{self.name}", folder, self.head)

    def evaluate_run(self, run: Path, world: Path, *more: str) -> dict[str, float]:
        """Call the script as a user does, on the validation split."""
        databases = world / "txt_db"
        return self.evaluate(
            [
                *("--query_txt_db", str(databases / f"{self.name}_val.db"), "--split", "val"),
                *("--sub_txt_db", str(databases / "tv_subtitles.db")),
                *("--vfeat_db", str(world / "video_db" / "tv")),
                *("--output_dir", str(run), "--checkpoint", "1", "--n_workers", "0", *more),
            ]
        )

    def recorded_metrics(self, expected: Path, script: str) -> tuple[float, float]:
        """Loss and accuracy in percent of the recorded run, to two decimals."""
        line = json.loads((expected / "metrics.json").read_text())[script]
        loss, accuracy = re.fullmatch(r"loss:([\d.]+), score: ([\d.]+)", line).groups()
        return float(loss), float(accuracy)

    def assert_trains_as_recorded(self, expected: Path, world: Path, folder: Path) -> None:
        """A short run through the engine."""
        model, data = self.model(expected), self.data(world, "train", training=True)
        task = Task(
            name=self.name,
            model=model,
            loader=RecordedLoader(data, data.collate, batch_size=2),
            loss_weights=self.weights,
            validate=lambda step: {},
        )
        rate, lr_mul = self.rates
        assert_recorded_run(
            model, task, self.name, expected, folder, accumulation=2, rate=rate, lr_mul=lr_mul
        )

    def answer_on_ranks(self, expected: Path, world: Path, size: int) -> list[AnsweredSplit]:
        """What each of several ranks knows after they shared the validation split."""
        model, data = self.model(expected).eval(), self.data(world)

        def work(comm) -> AnsweredSplit:
            shares = range(comm.rank, len(data), comm.size)
            return answer_split(
                model, (self.batch(data, number) for number in shares), comm, data.ids
            )

        return on_ranks(size, work)


TVQA = RecordedTask(
    name="tvqa",
    model_class=HeroForVideoQA,
    dataset_class=QuestionDataset,
    head="head_videoqa.pt",
    context=0,
    evaluate=eval_videoQA.main,
    weights={"qa": 1.0, "st_ed": 0.4},
    rates=(5e-5, 10.0),
)


VIOLIN = RecordedTask(
    name="violin",
    model_class=HeroForViolin,
    dataset_class=StatementDataset,
    head="head_violin.pt",
    context=2,
    evaluate=eval_violin.main,
    weights={"violin": 1.0},
    rates=(3e-5, 8.0),
)
