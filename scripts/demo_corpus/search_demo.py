"""The demo of search: train on films, and search others by sentences."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from evaluation.nms import temporal_iou
from scripts.demo_corpus.demo_task import Command, DemoTask
from utils.files import read_json

EXTRACTOR = "scripts.demo_corpus.film_features:ColoursAndShapes"
INTERVAL = 1.5
CORPUS = "films"
RIGHT = 0.5  # least overlap (temporal IoU) of the top moment with the true one


@dataclass(frozen=True, kw_only=True)
class SearchTask(DemoTask):
    """Train on films, index others, and search these for sentences."""

    train: str = "train_vcmr.py"
    evaluate: str = "eval_vcmr.py"
    seed: int = 1  # of the films; the training's is its own option

    @property
    def index(self) -> Path:
        """Folder of the search index."""
        return self.output / "index"

    @property
    def films(self) -> Path:
        """Folder of the films to search."""
        return self.output / "films" / "search"

    @property
    def answers(self) -> Path:
        """File of the search results."""
        return self.output / "search_answers.json"

    def truth(self) -> list[dict]:
        """Return the true moments: sentence, file, start, end."""
        return read_json(self.ann / "films_sentences.json")

    def preparation(self, size: str) -> Iterator[tuple[str, Command]]:
        """Yield every script by itself, as for one's own videos."""
        out, learn = self.output, self.output / "films" / "learn"
        features, database, texts = out / "features", out / "video_db", out / "txt_db"
        info, counts = (database / CORPUS / n for n in ("video_feat_info.pkl", "id2nframe.json"))
        spoken = self.ann / "films_subtitles.jsonl"
        frames: Command = ["--frame_length", INTERVAL]
        toker: Command = ["--toker", out / "toker"]
        films: Command = ["--output", out, "--size", size, "--seed", self.seed]
        yield "Make films", ["scripts/make_demo_films.py", *films]
        yield (
            "Extract features of the training films",
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
        yield (
            "Make a database of them",
            [
                *("scripts/convert_videodb.py", "--vfeat_info_file", info, "--output", database),
                *("--dataset", CORPUS, "--feat_version", "shapes", *frames),
            ],
        )
        yield (
            "Read the subtitles",
            [
                *("scripts/convert_subtitles.py", "--input", learn, "--output", spoken),
                *("--vid2nframe", counts),
            ],
        )
        yield (
            "Make a database of them",
            [
                *("scripts/prepro_sub.py", "--annotation", spoken),
                *("--output", texts / "films_subtitles.db", "--vid2nframe", counts),
                *(*frames, *toker),
            ],
        )
        for split in ("train", "val"):
            yield (
                f"Make a database of the {split} sentences",
                [
                    *("scripts/prepro_query.py", "--annotation", self.ann / f"films_{split}.jsonl"),
                    *("--output", texts / f"films_{split}.db", "--task", "tvr", *toker),
                ],
            )

    def evaluation(self, checkpoint: int) -> Iterator[tuple[str, Command]]:
        index: Command = ["--index", self.index]
        films: Command = ["--videos", self.films, "--run", self.run, "--models", EXTRACTOR]
        yield "Index the other films", ["index_videos.py", *films, *index]
        sentences = [row["sentence"] for row in self.truth()]
        outputs: Command = ["--json", self.answers, "--html", self.answers.with_suffix(".html")]
        search: Command = ["search_videos.py", *index, "--query", *sentences]
        yield "Search them", [*search, "--top", 3, *outputs]

    def report(self, checkpoint: int) -> None:
        """Print the top moment of each sentence and the true one."""
        rows = self.compare()
        shown = ("sentence", "true", "found", "overlap")
        right = sum(overlap >= RIGHT for *_, overlap in rows)
        print("\n" + tabulate(rows, headers=shown, floatfmt=".2f"))
        print(f"\n{right} of {len(rows)} top moments overlap the true one by {RIGHT} or more")
        print(f"With pictures: {self.answers.with_suffix('.html')}")

    def compare(self) -> list[tuple[str, str, str, float]]:
        """Return for each sentence the true moment, the top result, and their temporal IoU."""
        answers, rows = read_json(self.answers), []
        for true in self.truth():
            result, overlap = "nothing", 0.0
            for top in answers[true["sentence"]][:1]:
                top = top | {"file": Path(top["file"]).name}
                result = _moment(top)
                if top["file"] == true["file"]:
                    times = (true["start"], true["end"], top["start"], top["end"])
                    overlap = float(temporal_iou(*map(np.asarray, times)))
            rows.append((true["sentence"], _moment(true), result, overlap))
        return rows


def _moment(entry: dict) -> str:
    return f"{entry['file']} {entry['start']:.1f}–{entry['end']:.1f} s"
