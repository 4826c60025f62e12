"""A complete mirror of the published files, each of them tiny, written out by hand."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import torch

from data.stores.lmdb_io import FeatureDbWriter, TextDbWriter
from utils.files import write_json, write_jsonl

TEXT = [
    *("tv_subtitles", "violin_subtitles", "didemo_subtitles", "msrvtt_subtitles", "how2_subtitles"),
    *("tvr_train", "tvr_val", "tvr_test_public", "tvqa_train", "tvqa_val", "tvqa_test_public"),
    *("violin_train", "violin_val", "violin_test", "didemo_train", "didemo_val", "didemo_test"),
    *("msrvtt_train", "msrvtt_val", "msrvtt_test"),
    *("how2r_train", "how2r_val", "how2qa_train", "how2qa_val"),
]
CAPTIONS = ["tvc_train", "tvc_val"]
# corpus: seconds per frame, compressed
FEATURES = {
    "tv": (1.5, False),
    "violin": (1.5, True),
    "didemo": (1.5, False),
    "msrvtt": (2, False),
    "how2": (2, False),
}


def write_text_db(path: Path) -> None:
    """A text database of one record."""
    with TextDbWriter(path) as db:
        db.put("q", {"desc": path.name})
        db.write_side("meta.json", {"toker": "roberta-base"})


def write_folders(root: Path) -> None:
    """All that is published as archives, unpacked."""
    for name in TEXT:
        write_text_db(root / "txt_db" / f"{name}.db")
    for name in CAPTIONS:
        for part in ("cap.db", "clip.db"):
            write_text_db(root / "txt_db" / f"{name}.db" / part)
    for name, (interval, compressed) in FEATURES.items():
        folder = root / "video_db" / name
        with FeatureDbWriter(folder, interval=interval, compressed=compressed) as db:
            db.put("v", np.ones((2, 3), np.float32))
    run = root / "finetune" / "tvr_default"
    write_json(run / "log" / "hps.json", {"task": "tvr"})
    (run / "ckpt").mkdir()
    torch.save({"weight": torch.ones(1)}, run / "ckpt" / "model_step_4800.pt")


def write_files(root: Path) -> None:
    """All that is published as it is."""
    for name in ("tvc_val_release", "tvc_test_public_release"):
        write_jsonl(root / "txt_db" / f"{name}.jsonl", [{"clip_id": 1}])
    for name in ("didemo_asr", "msrvtt_asr"):
        write_jsonl(root / "asr" / f"{name}.jsonl", [{"vid_name": "v", "sub": []}])
    for split in ("train", "val"):
        write_json(root / "txt_db" / "pretrain_splits" / f"tv_{split}.json", ["v"])
    (root / "pretrained").mkdir()
    weights = {"weight": torch.ones(1)}
    torch.save(weights, root / "pretrained" / "hero-tv-ht100.pt")
    old = root / "pretrained" / "pretrain-tv-init.bin"
    torch.save(weights, old, _use_new_zipfile_serialization=False)


def pack(root: Path, mirror: Path) -> None:
    """Archives of the folders in ``root``: of all kinds, with the folder or only its content."""
    folders = [
        path for name in ("txt_db", "video_db", "finetune") for path in (root / name).iterdir()
    ]
    for number, folder in enumerate(sorted(path for path in folders if path.is_dir())):
        archive = mirror / folder.relative_to(root)
        archive.parent.mkdir(parents=True, exist_ok=True)
        kind = ("tar", "gztar", "zip")[number % 3]
        inner = {"base_dir": folder.name} if number % 2 else {}
        root_dir = folder.parent if number % 2 else folder
        shutil.make_archive(str(archive), kind, root_dir=root_dir, **inner)


def write_checksums(mirror: Path) -> None:
    """``sha256sum`` of all files."""
    files = sorted(path for path in mirror.rglob("*") if path.is_file())
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(mirror)}\n"
        for path in files
    ]
    (mirror / "SHA256SUMS").write_text("".join(lines))


def write_mirror(root: Path) -> tuple[Path, Path]:
    """Folders of a mirror of archives, and of one where they are unpacked."""
    packed, unpacked = root / "packed", root / "unpacked"
    write_folders(unpacked)
    pack(unpacked, packed)
    for mirror in (packed, unpacked):
        write_files(mirror)
    write_checksums(packed)
    return packed, unpacked


def paths_of(recipe: Path) -> set[str]:
    """Everything below /txt, /video and /pretrain that a recipe names, as paths of a storage."""
    folders = {"txt": "txt_db", "video": "video_db", "pretrain": "pretrained"}
    found: set[str] = set()

    def walk(value: object) -> None:
        if isinstance(value, dict | list):
            for member in value.values() if isinstance(value, dict) else value:
                walk(member)
        elif isinstance(value, str) and value.startswith("/"):
            _, top, rest = value.split("/", 2)
            if top in folders:
                found.add(f"{folders[top]}/{rest}")

    walk(json.loads(recipe.read_text()))
    return found
