"""The demos of captioning: a model's captions, compared with always the same caption."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from evaluation.caption_metrics import score_lines
from scripts.demo_corpus.demo_task import Command, DemoTask, compare
from utils.files import read_jsonl


@dataclass(frozen=True, kw_only=True)
class CaptionTask(DemoTask):
    """Caption clips."""

    train: str = "train_tvc.py"
    evaluate: str = "inf_tvc.py"

    @property
    def references(self) -> Path:
        """File of the clips to caption, with reference captions."""
        return self.output / "txt_db" / f"{self.data[0]}_val_release.jsonl"

    def captions(self, checkpoint: int) -> Path:
        """Return the file of the model's captions."""
        return self.results_folder / f"captions_{checkpoint}.jsonl"

    def output_option(self, checkpoint: int) -> Path:
        """Return that file as the inference script expects it."""
        return self.captions(checkpoint)

    def training_captions(self) -> Iterable[str]:
        """Yield the captions that it is trained on."""
        for _, row in read_jsonl(self.ann / f"{self.data[0]}_train.jsonl"):
            yield from (desc["desc"] for desc in row["descs"])

    def evaluation(self, checkpoint: int) -> Iterator[tuple[str, Command]]:
        options: Command = ["--model_dir", self.run, "--ckpt_step", checkpoint]
        options += ["--target_clip", self.references, "--output", self.output_option(checkpoint)]
        yield f"Describe the clips of the {self.split} split", [self.evaluate, *options]

    def same_caption(self) -> tuple[str, dict[str, float]]:
        """Return the most frequent training caption, and its scores if every clip has it."""
        always = Counter(self.training_captions()).most_common(1)[0][0]
        references = [row for _, row in read_jsonl(self.references)]
        same = [row | {"descs": [{"desc": always}]} for row in references]
        return always, score_lines(same, references)

    def report(self, checkpoint: int) -> None:
        references = [row for _, row in read_jsonl(self.references)]
        captions = [row for _, row in read_jsonl(self.captions(checkpoint))]
        always, scores = self.same_caption()
        print(f"\nFor comparison, the most frequent caption for every clip: “{always}”")
        compare("metric", score_lines(captions, references), scores, "same")
        for caption, row in zip(captions[:5], references, strict=False):
            predicted, true = (line["descs"][0]["desc"] for line in (caption, row))
            print(f"  predicted: {predicted}\n  reference: {true}")
