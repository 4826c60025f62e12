"""Side files that are sound JSON and make no sense: other types, ids that no record has."""

import json
from collections.abc import Callable
from typing import Any

from tests.hostile.harness import Case, Make, Place, damaged_file
from tests.hostile.line_files import NAN
from tests.hostile.records import without_references
from tests.hostile.text_files import checking, of_task
from tests.hostile.worlds import evaluation, search, training
from utils.files import read_json

Change = Callable[[Any], Any]


def edited(arrange: Make, file: str, change: Change) -> Make:
    """A sound world with the content of one JSON file changed."""
    return damaged_file(
        arrange, file, lambda path: path.write_text(json.dumps(change(read_json(path))))
    )


def entry(key: str, value: Any) -> Change:
    """One entry is another."""
    return lambda content: content | {key: value}


def without(key: str) -> Change:
    """An entry is missing."""
    return lambda content: {name: value for name, value in content.items() if name != key}


def block(name: str, key: str, value: Any) -> Change:
    """One size of one part of the model is another."""
    return lambda content: content | {name: content[name] | {key: value}}


QUESTIONS, STATEMENTS = of_task(training, "tvqa"), of_task(training, "violin")
CAPTIONS = of_task(training, "tvc")

# reader, script, arrangement, file, [(mutation, change, words)]
SIDES: list[tuple[str, str, Make, str, list[tuple[str, Change, tuple[str, ...]]]]] = [
    (
        *("query lengths", "train_vcmr", training, "train.db/id2len.json"),
        [
            ("an id that no record has", entry("zz", 3), ("zz", "train.db")),
            ("a length that is a text", entry("a0", "3"), ("id2len.json", "a0")),
            ("a negative length", entry("a0", -3), ("id2len.json", "a0")),
            ("a length that is NaN", entry("a0", NAN), ("id2len.json", "a0")),
            ("a length that is null", entry("a0", None), ("id2len.json", "a0")),
            ("a length that is an object", entry("a0", {}), ("id2len.json", "a0")),
            ("no entries", lambda content: {}, ("train.db",)),
        ],
    ),
    (
        *("question lengths", "train_videoQA", QUESTIONS, "train.db/id2len.json"),
        [
            ("an id that no record has", entry("zz", [1, 2, 1]), ("zz", "train.db")),
            ("texts", entry("a0", ["1", "2", "1"]), ("id2len.json", "a0")),
            ("a number", entry("a0", 4), ("a0",)),
            ("other numbers of answers", entry("a0", [1, 2]), ("a0",)),
            ("an empty list", entry("a0", []), ("a0",)),
        ],
    ),
    (
        *("statement lengths", "eval_violin", of_task(evaluation, "violin"), "val.db/id2len.json"),
        [
            ("an id that no record has", entry("zz", 3), ("zz", "val.db")),
            ("a length that is a list", entry("c-0", [3, 4]), ("id2len.json", "c-0")),
        ],
    ),
    (
        *("videos of queries", "train_vcmr", training, "train.db/query2video.json"),
        [
            ("a video that is a list", entry("a0", ["a"]), ("query2video.json",)),
            ("a video that is null", entry("a0", None), ("a0",)),
            ("an unknown video", entry("a0", "unknown"), ("unknown",)),
            ("a query without a video", without("a0"), ("a0",)),
            ("a video that is an object", entry("a0", {}), ("query2video.json",)),
        ],
    ),
    (
        *("query meta", "train_vcmr", training, "train.db/meta.json"),
        [
            ("no CLS", without("CLS"), ("meta.json", "CLS")),
            ("CLS that is a text", entry("CLS", "<s>"), ("meta.json", "CLS")),
            ("a negative CLS", entry("CLS", -1), ("meta.json", "CLS")),
            ("CLS beyond the vocabulary", entry("CLS", 602), ("train.db", "CLS")),
            ("CLS that is a list", entry("CLS", [0]), ("meta.json", "CLS")),
        ],
    ),
    (
        *("subtitle meta", "pretrain", of_task(training, "pretrain"), "subtitles.db/meta.json"),
        [
            ("no MASK", without("MASK"), ("meta.json", "MASK")),
            ("MASK that is NaN", entry("MASK", NAN), ("meta.json", "MASK")),
            ("MASK beyond the vocabulary", entry("MASK", 60_000), ("subtitles.db", "MASK")),
            ("v_range backwards", entry("v_range", [49, 4]), ("meta.json", "v_range")),
            ("v_range beyond the vocabulary", entry("v_range", [4, 10**6]), ("v_range",)),
            ("v_range of three", entry("v_range", [4, 5, 6]), ("meta.json", "v_range")),
            ("v_range of texts", entry("v_range", ["4", "49"]), ("meta.json", "v_range")),
            ("no SEP", without("SEP"), ("meta.json", "SEP")),
        ],
    ),
    (
        *("index of videos", "eval_vcmr", evaluation, "subtitles.db/vid2dur_idx.json"),
        [
            ("a split that is a list", entry("val", ["c"]), ("vid2dur_idx.json",)),
            ("an entry that is a number", entry("val", {"c": 7}), ("vid2dur_idx.json", "c")),
            ("an index that is a text", entry("val", {"c": [8.0, "99"]}), ("vid2dur_idx.json",)),
            ("an index that is NaN", entry("val", {"c": [8.0, NAN]}), ("vid2dur_idx.json", "c")),
            (
                "one index for two videos",
                entry("val", {"c": [8.0, 99], "d": [6.0, 99]}),
                ("vid2dur_idx.json", "99"),
            ),
            ("an entry cut short", entry("val", {"c": [8.0]}), ("vid2dur_idx.json", "c")),
        ],
    ),
    (
        *("captions of videos", "train_tvc", CAPTIONS, "train.db/cap.db/vid2caps.json"),
        [
            ("a caption that no record has", entry("a", ["zz"]), ("zz",)),
            ("a caption that is a list", entry("a", [["a0"]]), ("vid2caps.json",)),
            ("captions that are a text", entry("a", "a0"), ("vid2caps.json",)),
            ("an unknown video", entry("unknown", ["a0"]), ("unknown",)),
        ],
    ),
    (
        *("list of videos", "pretrain", of_task(training, "pretrain"), "vids.json"),
        [
            ("a name that is null", lambda _: ["a", None], ("vids.json",)),
            ("a name that is a number with a fraction", lambda _: ["a", 1.5], ("vids.json",)),
            ("an unknown video", lambda _: ["a", "unknown"], ("unknown",)),
            ("no videos", lambda _: [], ("vids.json",)),
        ],
    ),
    (
        *("model", "train_vcmr", training, "model.json"),
        [
            (
                "a width that is a text",
                block("f_config", "hidden_size", "16"),
                ("model.json", "hidden_size"),
            ),
            (
                "a negative width",
                block("f_config", "hidden_size", -16),
                ("model.json", "hidden_size"),
            ),
            ("a width of 10^9", block("f_config", "hidden_size", 10**9), ("model.json",)),
            (
                "a dropout that is NaN",
                block("f_config", "hidden_dropout_prob", NAN),
                ("model.json", "valid JSON"),
            ),
            (
                "heads that do not divide the width",
                block("c_config", "num_attention_heads", 3),
                ("model.json", "multiple of 3 heads"),
            ),
            ("no blocks", lambda _: {}, ("model.json",)),
            ("a block that is a list", entry("f_config", [1]), ("model.json", "f_config")),
            (
                "half a layer",
                block("f_config", "num_hidden_layers", 1.5),
                ("model.json", "num_hidden_layers"),
            ),
        ],
    ),
    (
        *("options of the run", "eval_vcmr", evaluation, "run/log/hps.json"),
        [
            (
                "a batch that is a text",
                entry("vcmr_eval_video_batch_size", "many"),
                ("hps.json", "vcmr_eval_video_batch_size"),
            ),
            ("a threshold that is NaN", entry("nms_thd", NAN), ("nms_thd",)),
            ("a database that is a number", entry("vfeat_db", 7), ("hps.json", "vfeat_db")),
            ("a path of a megabyte", entry("vfeat_db", "x" * 1_000_000), ("too long",)),
            ("an unknown task", entry("task", "cooking"), ("hps.json", "task")),
            ("no databases", without("vfeat_db"), ("vfeat_db",)),
        ],
    ),
    (
        *("config", "train_vcmr", training, "config.json"),
        [
            ("an unknown option of a megabyte", entry("x" * 1_000_000, 1), ("config.json",)),
            (
                "a value of a megabyte",
                entry("num_train_steps", "x" * 1_000_000),
                ("config.json", "num_train_steps"),
            ),
            (
                "a number that is a list",
                entry("num_train_steps", [1]),
                ("config.json", "num_train_steps"),
            ),
            (
                "a number that is true",
                entry("num_train_steps", True),
                ("config.json", "num_train_steps"),
            ),
            ("a number that is NaN", entry("learning_rate", NAN), ("learning_rate",)),
            ("half a step", entry("num_train_steps", 1.5), ("config.json", "num_train_steps")),
        ],
    ),
    (
        *("config", "pretrain", of_task(training, "pretrain"), "config.json"),
        [
            ("targets that are an object", entry("targets", {}), ("config.json", "targets")),
            ("targets that are numbers", entry("targets", [1]), ("config.json", "targets")),
            ("no targets", entry("targets", []), ("targets",)),
        ],
    ),
]
CASES = [
    Case(reader, mutation, script, edited(arrange, file, change), words)
    for reader, script, arrange, file, changes in SIDES
    for mutation, change, words in changes
]


def feature_meta(content: str) -> Make:
    """A search of features whose meta.json says something else."""

    def make(place: Place) -> list[object]:
        arguments = search(place)
        place.write("video/resnet_slowfast_2/meta.json", content)
        return arguments

    return make


CASES += [
    Case("feature meta", content[:30], "scripts.search_videos", feature_meta(content), words)
    for content, words in (
        ("[1]", ("meta.json",)),
        ('{"extraction": 7}', ("meta.json", "extraction")),
        ('{"extraction": {"resnet": 7}}', ("meta.json", "extraction")),
    )
]


def references(content: str) -> Make:
    """Captioning with other references."""

    def make(place: Place) -> list[object]:
        arguments = without_references(place)
        place.write("ref.jsonl", content + "\n")
        return arguments

    return make


CLIP = {"vid_name": "c", "clip_id": "cc", "ts": [1.0, 3.5], "descs": [{"desc": "words"}]}
CASES += [
    Case(
        "references",
        f"{field} {json.dumps(value)[:30]}",
        "inf_tvc",
        references(json.dumps(CLIP | {field: value})),
        ("ref.jsonl", field),
    )
    for field, value in (
        ("descs", ["words"]),
        ("descs", "words"),
        ("descs", [{"text": "words"}]),
        ("descs", [{"desc": 7}]),
        ("descs", {"desc": "words"}),
        ("ts", [1.0]),
        ("ts", [NAN, 3.0]),
        ("clip_id", None),
        ("vid_name", 1.5),
    )
]


CASES += [
    Case(
        "query lengths",
        f"{mutation}, in the check-up",
        "scripts.check_data",
        edited(checking, "train.db/id2len.json", change),
        words,
        code=1,
    )
    for mutation, change, words in (
        ("an id that no record has", entry("zz", 3), ("zz",)),
        ("a length that is a text", entry("a0", "3"), ("a0",)),
    )
]
