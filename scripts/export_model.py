#!/usr/bin/env python
"""Export a trained model to a folder that can be shared.

python scripts/export_model.py --run /storage/tvr_default --checkpoint best --output hero-tvr

The folder has the weights (model.safetensors), the model's configuration and the options of the run
(config.json), the tokenizer of its databases, and a model card (README.md) to complete. Every
--checkpoint accepts it, or its hub name after an upload (hf upload NAME hero-tvr):

python eval_vcmr.py --checkpoint hero-tvr --output_dir results --vfeat_db … --sub_txt_db …

Local paths are left out; those of the container (/txt, …) are kept.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
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

# Made with the run's tokenizer; of a run, or of an entry of its lists.
DATABASES = ("train_query_txt_db", "train_db", "query_txt_db", "sub_txt_db")
SCRIPTS = {name: task.script for name, task in TASKS.items()}
SCRIPTS |= {"didemo": "eval_vcmr.py", "msrvtt": "eval_vr.py"}

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
    """Return the options of the command line."""
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
    with suppress(UserError):
        return SharedModel.find(str(folder)) is not None
    return False


def find_tokenizer(saved: Mapping[str, Any], toker: str | None) -> Path:
    """Return the folder of ``toker``, ``$HERO_TOKER``, or the tokenizer of the run's databases;
    UserError if none is known or available."""
    if toker := toker or named_in_environment():
        return tokenizer_folder(toker)
    for record in (saved, *saved.get("train_datasets", [])):
        for path in filter(None, map(record.get, DATABASES)):
            if Path(path).is_dir():
                return tokenizer_folder(named_tokenizer(TextDb(path)))
    raise UserError("the run's databases are not here: name its tokenizer with --toker")


def write_weights(source: Path, target: Path) -> None:
    """Write all tensors of a checkpoint; shared memory is copied."""
    state = read_state_dict(source)
    tensors = {n: v.contiguous().clone() for n, v in state.items() if isinstance(v, Tensor)}
    save_file(tensors, target, metadata={"format": "pt"})


def model_card(
    model: Mapping[str, Any], data: list[str], metrics: Mapping[str, Any], name: str
) -> str:
    """Return the text of the model card, given the content of ``config.json``, the names of the
    databases, the metrics of the validation, and the model's name in commands."""
    task, step, options = model["task"], model["step"], model["options"]
    return CARD_TEXT.format(
        model_type=MODEL_TYPE,
        task=task,
        after="" if step is None else f", after {step} steps of training",
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
    """Return the names of the databases and corpora in a run's options, without folders."""
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
    """Return a run's task, or VALUE's data sets."""
    names = [parse_name(entry["name"])[0] for entry in saved.get("train_datasets", [])]
    return saved.get("task") or ", ".join(dict.fromkeys(names)) or "pretraining"


def use_of(task: str, name: str) -> str:
    """Return a command that uses the model called ``name``."""
    data_set = task.split(", ")[0]
    script = SCRIPTS.get(data_set) or SCRIPTS.get(data_set.split("_")[0])
    if script is None:
        return f"python train_vcmr.py --checkpoint {name} …"
    captions = script.startswith("inf_")
    rest = "--target_clip CLIPS.jsonl --output OUT.jsonl" if captions else "--output_dir RESULTS"
    return f"python {script} --checkpoint {name} {rest}"


def main(argv: list[str] | None = None) -> None:
    """Export the model."""
    given = parse_arguments(argv)
    setup_logging(is_main=True)
    check_folder(given.output, given.force, is_exported)
    run = RunFolder(from_container(given.run, given.storage))
    hps = read_json(run.log / "hps.json")
    storage = given.storage or usable_storage(hps.get("storage"))
    checkpoint = Checkpoint.of(run, from_container(given.checkpoint, storage))
    weights = run.find_checkpoint(checkpoint.name)
    tokenizer = find_tokenizer(from_container(hps, storage), given.toker)
    match = STEP.fullmatch(checkpoint.label)
    step = int(match[1]) if match else None
    own = tokenizer_meta(load_tokenizer(str(tokenizer)))
    if difference := other_tokenizer(own, known_tokenizer(run, storage)):
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
