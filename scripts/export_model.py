#!/usr/bin/env python
"""Export a trained model to a folder that can be passed on.

python scripts/export_model.py --run /storage/tvr_default --checkpoint best --output hero-tvr

The folder has the weights (model.safetensors), their sizes and the options of the run
(config.json), the tokenizer of its databases, and a model card (README.md) to complete. Every
--checkpoint takes it, and a hub name once it is uploaded (hf upload NAME hero-tvr):

python eval_vcmr.py --checkpoint hero-tvr --output_dir results --vfeat_db … --sub_txt_db …

Paths that exist on one machine only are left out; those of the container (/txt, …) stay.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
from safetensors.torch import save_file
from torch import Tensor

from config.model_config import ModelConfig
from config.shared_model import (
    CARD,
    CONFIG,
    MODEL_TYPE,
    TOKENIZER_FILES,
    WEIGHTS,
    SharedModel,
    shared_options,
)
from config.storage import default_storage, from_container, usable_storage
from config.value import TASKS, parse_name
from data.prepare.work import add_force, script_parser
from data.stores.build_folder import build_folder, check_folder
from data.stores.lmdb_io import TextDb
from data.tokenize import (
    load_tokenizer,
    named_in_environment,
    other_tokenizer,
    tokenizer_folder,
    tokenizer_meta,
)
from data.vocabulary import named_tokenizer
from engine.endings import validated_metrics
from engine.restore import STEP, RunFolder
from engine.run import Checkpoint, known_tokenizer
from model.checkpoint import read_state_dict
from utils.errors import UserError, run_main
from utils.files import read_json, write_json
from utils.logger import setup_logging

DATABASES = ("train_query_txt_db", "train_db", "sub_txt_db")  # made with the run's tokenizer
DATABASES_OF_ENTRIES = ("query_txt_db", "sub_txt_db")
SCRIPTS = {name: task.script.removesuffix(".py") for name, task in TASKS.items()} | {
    "didemo": "eval_vcmr",
    "msrvtt": "eval_vr",
}


CARD_TEXT = """---
tags:
- video-language
- {model_type}
- {task}
---

# HERO, {task}

HERO ([Li et al., EMNLP 2020](https://arxiv.org/abs/2005.00200)), task `{task}`{after}.

## Data

{data}

Frame features: `{features}`.

## Metrics

On the validation split:

{metrics}

## Use

```bash
{command}
```

## Options

{options}
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("--run", required=True, help="folder of the finished run")
    add("--checkpoint", default="best", help="step, best, or a file (default: %(default)s)")
    add("--output", required=True, help="folder to make")
    add("--toker", help="tokenizer, hub name or folder (default: that of the run's databases)")
    add("--storage", default=default_storage(), help="as in training (default: $HERO_STORAGE)")
    add_force(parser)
    return parser.parse_args(argv)


def is_exported(folder: Path) -> bool:
    """Return whether a folder is an exported model."""
    try:
        return SharedModel.find(str(folder)) is not None
    except UserError:
        return False


def find_tokenizer(saved: Mapping[str, Any], toker: str | None) -> Path:
    """Return the folder of ``toker``, ``$HERO_TOKER``, or the tokenizer of the run's databases.

    Raises:
        UserError: none is known, or it cannot be had.
    """
    toker = toker or named_in_environment()
    entries = saved.get("train_datasets", [])
    paths = [saved.get(name) for name in DATABASES]
    paths += [entry.get(name) for entry in entries for name in DATABASES_OF_ENTRIES]
    for path in paths:
        if path and Path(path).is_dir() and not toker:
            return tokenizer_folder(named_tokenizer(TextDb(path)))
    if not toker:
        raise UserError("the run's databases are not here: name its tokenizer with --toker")
    return tokenizer_folder(toker)


def write_weights(source: Path, target: Path) -> None:
    """Write all tensors of a checkpoint; those that share memory get their own."""
    state = read_state_dict(source)
    tensors = {n: v.contiguous().clone() for n, v in state.items() if isinstance(v, Tensor)}
    save_file(tensors, target, metadata={"format": "pt"})


def model_card(
    model: Mapping[str, Any], data: list[str], metrics: Mapping[str, Any], name: str
) -> str:
    """Return the text of the model card.

    Args:
        model: the content of ``config.json``.
        data: names of what it learnt from and was validated on.
        metrics: of the validation, by name.
        name: of the model, as commands have it.
    """
    task, step, options = model["task"], model["step"], model["options"]
    after = "" if step is None else f", after {step} steps of training"
    return CARD_TEXT.format(
        model_type=MODEL_TYPE,
        task=task,
        after=after,
        data="\n".join(f"- {line}" for line in data) or "Not stated.",
        features=options.get("vfeat_version"),
        metrics=_table(("metric", "%"), metrics) if metrics else "Not recorded.",
        command=use_of(task, name),
        options=_table(("option", "value"), options),
    )


def _table(head: tuple[str, str], rows: Mapping[str, Any]) -> str:
    lines = [head, ("---", "---"), *((name, f"`{value}`") for name, value in rows.items())]
    return "\n".join(f"| {left} | {right} |" for left, right in lines)


def data_of(saved: Mapping[str, Any]) -> list[str]:
    """Names of the databases and corpora in a run's options, without where they lay."""
    texts = [
        f"{option}: `{Path(path).name}`"
        for option, path in saved.items()
        if isinstance(path, str) and path and option.endswith(("_db", "_ref"))
    ]
    texts += [
        f"{name}: `{entry['name']}`"
        for name in ("train_datasets", "val_datasets")
        for entry in saved.get(name, [])
    ]
    return texts + [f"corpus: `{target['name']}`" for target in saved.get("targets", [])]


def task_of(saved: Mapping[str, Any]) -> str:
    """Return what a run learnt: a task, or VALUE's data sets."""
    names = [parse_name(entry["name"])[0] for entry in saved.get("train_datasets", [])]
    return saved.get("task") or ", ".join(dict.fromkeys(names)) or "pretraining"


def use_of(task: str, name: str) -> str:
    """The command that uses a model."""
    data_set = task.split(", ")[0]
    script = SCRIPTS.get(data_set) or SCRIPTS.get(data_set.split("_")[0])
    if script is None:
        return f"python train_vcmr.py --checkpoint {name} …"
    if script.startswith("inf_"):
        return (
            f"python {script}.py --checkpoint {name} --target_clip CLIPS.jsonl --output OUT.jsonl"
        )
    return f"python {script}.py --checkpoint {name} --output_dir RESULTS"


def main(argv: list[str] | None = None) -> None:
    """Write the folder."""
    given = parse_arguments(argv)
    setup_logging(is_main=True)
    check_folder(given.output, given.force, is_exported)
    run = RunFolder(from_container(given.run, given.storage))
    hps = read_json(run.log / "hps.json")
    storage = given.storage or usable_storage(hps.get("storage"))
    checkpoint = Checkpoint.of(run, from_container(given.checkpoint, storage))
    weights = run.find_checkpoint(checkpoint.name)
    tokenizer = find_tokenizer(from_container(hps, storage), given.toker)
    number = STEP.fullmatch(checkpoint.label)
    step = int(number[1]) if number else None
    known = known_tokenizer(run, storage)
    own = tokenizer_meta(load_tokenizer(str(tokenizer)))
    if difference := other_tokenizer(own, known):
        raise UserError(f"{tokenizer} is not the run's tokenizer: its {difference}; name --toker")
    model = {
        "model_type": MODEL_TYPE,
        "task": task_of(hps),
        "step": step,
        "model_config": ModelConfig.from_json(run.log / "model_config.json").to_dict(),
        "tokenizer": own,
        "options": shared_options(hps),
    }
    name = Path(given.output).name
    with build_folder(given.output, given.force, is_exported) as folder:
        write_weights(weights, folder / WEIGHTS)
        for file in TOKENIZER_FILES:
            if (tokenizer / file).is_file():
                shutil.copy(tokenizer / file, folder / file)
        card = model_card(model, data_of(hps), validated_metrics(run, step), name)
        (folder / CARD).write_text(card, encoding="utf-8")
        write_json(folder / CONFIG, model, indent=2)
    print(f"wrote {given.output}: {weights}, the tokenizer of {tokenizer}, {CARD}")


if __name__ == "__main__":
    run_main(main)
