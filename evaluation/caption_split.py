"""Caption the clips of a split, and score the captions if there are references."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from config.evaluation import TvcInferenceOptions
from config.training import TvcOptions
from config.value import SetOptions
from data.batch import CaptionBatch, ClipsToCaption
from data.loader import evaluation_batches
from data.tvc import CaptionDataset, TargetClips
from data.video import VideoSource
from data.vocabulary import Vocabulary
from engine.run import Run, on_main
from evaluation.caption_metrics import score_lines
from evaluation.objectives import measure
from evaluation.two_streams import AveragedStepper
from evaluation.value_metrics import PARAGRAPH, segment_metrics
from model.decoding import DecodingSettings
from model.tvc import HeroForTvc, write_captions
from utils.errors import UserError
from utils.files import check_output, write_jsonl


class CaptionSplit:
    """All clips of a file.

    Args:
        target: JSON lines of the clips.
        videos: of the clips.
        vocabulary: of the captions.
        run: decoding options, batch size (in videos), ranks.
        need_references: whether every clip must have captions to score with.

    Raises:
        UserError: the file is malformed, a database lacks a video, or references are missing.
    """

    def __init__(
        self,
        target: str | Path,
        videos: VideoSource,
        vocabulary: Vocabulary,
        run: Run[TvcOptions | TvcInferenceOptions | SetOptions],
        need_references: bool = False,
    ) -> None:
        self.clips = TargetClips(target, videos, whole_videos=run.options.task != "tvc")
        self.vocabulary = vocabulary
        self.run = run
        self.settings = DecodingSettings.from_options(
            run.options, vocabulary.begin, vocabulary.end, vocabulary.known_ids
        )
        without = [line["clip_id"] for line in self.clips.lines if not line.get("descs")]
        self.has_references = len(without) < len(self.clips.lines)
        if without and (need_references or self.has_references):
            raise UserError(f"{target}: clip {without[0]} has no reference captions (descs)")

    def caption(
        self, model: HeroForTvc, others: Sequence[tuple["CaptionSplit", HeroForTvc]] = ()
    ) -> list[dict[str, Any]]:
        """Caption every clip; all ranks take part.

        Args:
            model: of the task.
            others: splits of the same clips and their models, whose logits are averaged with these.

        Returns:
            Lines for the task's server, in the target's order.
        """
        if any(split.clips.lines != self.clips.lines for split, _ in others):
            raise UserError(
                "the two runs caption other clips: name the file for both (--target_clip)"
            )
        streams = [(self, model), *others]
        texts: dict[int, str] = {}
        with self.run.precision.autocast():
            for batches in zip(*(split._batches() for split, _ in streams), strict=True):
                steppers = [
                    one.stepper(batch.video, batch.clips, self.settings)
                    for (_, one), batch in zip(streams, batches, strict=True)
                ]
                stepper = AveragedStepper(steppers) if others else steppers[0]
                captions = write_captions(stepper, batches[0].clips, self.settings)
                texts |= zip(batches[0].indices, map(self.vocabulary.text, captions), strict=True)
        for share in self.run.comm.all_gather_object(texts):
            texts |= share
        moment = () if self.clips.whole_videos else ("ts",)
        return [
            {key: line[key] for key in ("vid_name", "clip_id", *moment) if key in line}
            | {"descs": [{"desc": texts[place]}]}
            for place, line in enumerate(self.clips.lines)
        ]

    def _batches(self) -> Iterator[ClipsToCaption]:
        size = self.run.options.val_batch_size
        return evaluation_batches(self.clips, self.clips.collate, size, self.run, "captions")

    def evaluate(
        self,
        model: HeroForTvc,
        output: str | Path,
        others: Sequence[tuple["CaptionSplit", HeroForTvc]] = (),
    ) -> dict[str, float]:
        """Write the captions of all clips to ``output``, then score them if there are references.

        Returns:
            Metrics in percent; empty without references and on ranks other than 0.

        Raises:
            UserError: a split of ``others`` (see :meth:`caption`) has other clips, or Java, which
                the metrics need, is missing; then the captions are still written.
        """
        on_main(self.run.comm, lambda: check_output(output))
        lines = self.caption(model, others)
        if not self.run.comm.is_main:
            return {}
        write_jsonl(output, lines)
        self.clips.coverage.warn_of_metrics()
        if not self.has_references:
            return {}
        score = segment_metrics if self.run.options.task == "yc2c" else score_lines
        return score(lines, self.clips.lines)

    def validate(self, model: HeroForTvc, data: CaptionDataset, step: int) -> dict[str, float]:
        """Return the mean loss per token of ``data``'s captions and the metrics of
        :meth:`evaluate`, which writes into ``results/``; the model is in evaluation mode."""

        def sums(batch: CaptionBatch) -> tuple[int, dict[str, Tensor]]:
            losses = model(batch)["caption"]
            return len(losses), {"caption": losses.sum(dtype=torch.float64)}

        size = self.run.options.val_batch_size
        batches = evaluation_batches(data, data.collate, size, self.run, "val losses")
        loss = measure(sums, batches, self.run.comm).means["caption"]
        output = self.run.folder.results / f"results_{step}_all.jsonl"
        return {"loss/caption": loss} | self.evaluate(model, output)


def show_metrics(metrics: Mapping[str, float]) -> str:
    """Return a table: a row of all clips and, if there are such metrics, one of paragraphs."""
    headers = [name for name in metrics if not name.startswith(PARAGRAPH)]
    rows: list[list[float | str]] = [[metrics[name] for name in headers]]
    if len(metrics) > len(headers):
        headers = ["", *headers]
        paragraphs = [metrics[f"{PARAGRAPH}{name}"] for name in headers[1:]]
        rows = [["clips", *rows[0]], ["paragraphs", *paragraphs]]
    return tabulate(rows, headers=headers, floatfmt=".2f")
