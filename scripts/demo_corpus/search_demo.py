"""The demo of search: films to learn from, others that are searched by sentences."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from evaluation.nms import temporal_iou
from scripts.demo_corpus.demo_task import DemoTask
from scripts.demo_corpus.pretrain_demo import Command
from utils.files import read_json

EXTRACTOR = "scripts.demo_corpus.film_features:ColoursAndShapes"
INTERVAL = 1.5
CORPUS = "films"
RIGHT = 0.5  # least overlap (temporal IoU) of the top moment with the true one


@dataclass(frozen=True, kw_only=True)
class SearchTask(DemoTask):
    """Learn from films, index others, and find in them what sentences describe.

    Attributes:
        seed: of the films; the training's is its own option.
    """

    seed: int = 1

    @property
    def index(self) -> Path:
        """Of the films that are searched."""
        return self.output / "index"

    @property
    def films(self) -> Path:
        """Those that are searched."""
        return self.output / "films" / "search"

    @property
    def answers(self) -> Path:
        """What was found."""
        return self.output / "search_answers.json"

    def truth(self) -> list[dict]:
        """Return what should be found: sentence, file, start, end."""
        return read_json(self.ann / "films_sentences.json")

    def preparation(self, size: str) -> Iterator[tuple[str, Command]]:
        """See :class:`DemoTask`: every script by itself, as for one's own data."""
        out, learn = self.output, self.output / "films" / "learn"
        features, database, toker = out / "features", out / "video_db", out / "toker"
        frames: Command = ["--frame_length", INTERVAL]
        options: Command = ["--output", out, "--size", size, "--seed", self.seed]
        yield "Make films", ["scripts/make_demo_films.py", *options]
        yield (
            "Extract features of those to learn from",
            [
                *("scripts/extract_features.py", "--video_dir", learn, "--output", features),
                *("--models", EXTRACTOR, "--interval", INTERVAL, "--batch_size", 32),
            ],
        )
        yield (
            "Pair them (here they are of one kind)",
            [
                *("scripts/collect_video_feature_paths.py", "--feature_dir", features),
                *("--output", database, "--dataset", CORPUS, "--parts", "shapes"),
            ],
        )
        info = database / CORPUS / "video_feat_info.pkl"
        yield (
            "Make a database of them",
            [
                *("scripts/convert_videodb.py", "--vfeat_info_file", info, "--output", database),
                *("--dataset", CORPUS, "--feat_version", "shapes", *frames),
            ],
        )
        counts: Command = ["--vid2nframe", database / CORPUS / "id2nframe.json"]
        spoken = self.ann / "films_subtitles.jsonl"
        yield (
            "Read the subtitles",
            ["scripts/convert_subtitles.py", "--input", learn, "--output", spoken, *counts],
        )
        target = out / "txt_db" / "films_subtitles.db"
        yield (
            "Make a database of them",
            [
                *("scripts/prepro_sub.py", "--annotation", spoken, "--output", target),
                *counts,
                *frames,
                *("--toker", toker),
            ],
        )
        for split in ("train", "val"):
            names: Command = ["--annotation", self.ann / f"films_{split}.jsonl"]
            names += ["--output", out / "txt_db" / f"films_{split}.db"]
            yield (
                f"Make a database of the {split} sentences",
                ["scripts/prepro_query.py", *names, "--task", "tvr", "--toker", toker],
            )

    def evaluation(self, checkpoint: int) -> Iterator[tuple[str, Command]]:
        """See :class:`DemoTask`."""
        yield (
            "Index the other films",
            [
                *("index_videos.py", "--videos", self.films, "--index", self.index),
                *("--run", self.run, "--models", EXTRACTOR),
            ],
        )
        sentences = [row["sentence"] for row in self.truth()]
        page = self.answers.with_suffix(".html")
        yield (
            "Search them",
            [
                *("search_videos.py", "--index", self.index, "--query"),
                *sentences,
                *("--top", 3, "--json", self.answers, "--html", page),
            ],
        )

    def report(self, checkpoint: int) -> None:
        """Print the top moment of each sentence beside the true one."""
        rows = self.compare()
        shown = ("sentence", "true", "found", "overlap")
        right = sum(overlap >= RIGHT for *_, overlap in rows)
        print("\n" + tabulate(rows, headers=shown, floatfmt=".2f"))
        print(f"\n{right} of {len(rows)} top moments overlap the true one by {RIGHT} or more")
        print(f"With pictures: {self.answers.with_suffix('.html')}")

    def compare(self) -> list[tuple[str, str, str, float]]:
        """Sentence, the true moment, the top one that was found, and how they overlap."""
        answers, rows = read_json(self.answers), []
        for true in self.truth():
            top = next(iter(answers[true["sentence"]]), None)
            found, overlap = "nothing", 0.0
            if top is not None:
                found = _moment(Path(top["file"]).name, top["start"], top["end"])
                if Path(top["file"]).name == true["file"]:
                    times = (true["start"], true["end"], top["start"], top["end"])
                    overlap = float(temporal_iou(*map(np.asarray, times)))
            moment = _moment(true["file"], true["start"], true["end"])
            rows.append((true["sentence"], moment, found, overlap))
        return rows


def _moment(file: str, start: float, end: float) -> str:
    return f"{file} {start:.1f}–{end:.1f} s"
