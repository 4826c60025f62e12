"""Published databases, weights and runs: download, check, unpack.

A mirror has one folder for each folder below the storage, and in it

    txt_db/<name>.db.tar          text databases
    txt_db/<name>.jsonl           clips and captions (TVC)
    txt_db/pretrain_splits/*.json videos to pre-train on
    video_db/<corpus>.tar         frame features with their id2nframe.json
    pretrained/<name>             weights
    finetune/<run>.tar            fine-tuned models
    asr/<name>.jsonl              recognised speech
    SHA256SUMS                    checksums of all, as sha256sum prints them (optional)

Archives may also be ``.tar.gz``, ``.tgz`` and ``.zip``, and hold the folder itself or its content;
in a local folder that serves as a mirror, they may be unpacked already.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data.prepare.archives import ArchiveError, link_or_copy, put_folder
from data.prepare.mirror import Mirror
from data.stores.build_folder import is_database
from data.stores.lmdb_io import FeatureDb, TextDb
from scripts.preparation.datasets import Catalogue, Corpus, catalogue
from scripts.preparation.graph import Step
from utils.errors import UserError
from utils.files import atomic_write, read_json, read_jsonl
from utils.tensor_files import UnreadableFileError, read_weights

DOWNLOADS = ".downloads"
PRETRAINED = "hero-tv-ht100.pt"


@dataclass(frozen=True)
class Item:
    """A published file or folder."""

    name: str  # path below the storage, and (an archive: with its ending) below the mirror
    check: Callable[[Path], object]  # raises :class:`UserError` for a path that is not it; cheap
    packed: bool = True  # a folder, published as an archive
    replaceable: Callable[[Path], bool] = is_database  # whether such a folder may be replaced


def check_text_db(path: Path) -> None:
    """Open a text database."""
    if not len(TextDb(path)):
        raise UserError(f"{path} holds no records")


def check_caption_db(path: Path) -> None:
    """Open both parts of a caption database."""
    for part in ("cap.db", "clip.db"):
        TextDb(path / part)


def check_features(corpus: Corpus, path: Path) -> None:
    """Open the feature database that a corpus' recipes read, and its first record."""
    db = FeatureDb(path, interval=corpus.interval, compressed=corpus.compressed)
    if not db.id2nframe or not db.width:
        raise UserError(f"{path} holds no features")


def has_features(path: Path) -> bool:
    """Return whether ``path`` is the folder of a corpus' feature databases."""
    return any(path.glob("resnet_slowfast_*/data.mdb"))


def check_weights(path: Path) -> None:
    """Open a file of weights."""
    try:
        read_weights(path, mapped=True)
    except UnreadableFileError as error:
        raise UserError(f"{path} {error}") from None


def check_run(path: Path) -> None:
    """Open the options and weights of a run."""
    options, weights = path / "log" / "hps.json", list(path.glob("ckpt/model_step_*.pt"))
    if not options.is_file() or not weights:
        raise UserError(f"{path} is no run: log/hps.json or ckpt/model_step_….pt is missing")
    if not isinstance(read_json(options), dict):
        raise UserError(f"{options} must hold one JSON object of options")
    for file in weights:
        check_weights(file)


def check_lines(path: Path) -> None:
    """Read JSON lines."""
    for _ in read_jsonl(path):
        pass


def items(name: str, asr: bool, sets: Catalogue) -> Iterator[Item]:
    """Yield all that a data set's recipes read."""
    dataset = sets.datasets[name]
    text = partial(Item, check=check_text_db)
    plain = partial(Item, packed=False)
    yield text(f"txt_db/{dataset.corpus}_subtitles.db")
    for own, split in (*((name, split) for split in dataset.splits), *dataset.learns_from):
        yield text(f"txt_db/{own}_{split}.db")
    for split in dataset.captions:
        yield Item(f"txt_db/{name}_{split}.db", check_caption_db)
    for split in dataset.targets:
        yield plain(f"txt_db/{name}_{split}_release.jsonl", check_lines)
    if dataset.pretraining:
        for split in ("train", "val"):
            yield plain(f"txt_db/pretrain_splits/{dataset.corpus}_{split}.json", read_json)
    yield Item(
        f"video_db/{dataset.corpus}",
        partial(check_features, sets.corpus_of(name)),
        replaceable=has_features,
    )
    yield plain(f"pretrained/{dataset.weights}", check_weights)
    for run in dataset.runs:
        yield Item(f"finetune/{run}", check_run, replaceable=lambda _: False)
    if asr and dataset.asr:
        yield plain(f"asr/{dataset.asr}", check_lines)


def published_steps(
    names: Iterable[str],
    storage: Path,
    mirror: Mirror,
    asr: bool = False,
    sets: Catalogue | None = None,
) -> list[Step]:
    """Return steps that download, check and unpack all that some data sets' recipes read.

    Args:
        names: of data sets; ``pretrained``: only the weights that fine-tuning starts from.
        storage: folder to write to.
        mirror: source of the downloads.
        asr: recognised speech, too.
        sets: known data sets; None: HERO's, and VALUE's new ones.
    """
    sets = sets or catalogue()
    wanted: dict[str, Item] = {}
    for name in names:
        if name == "pretrained":
            found: Iterable[Item] = [Item(f"pretrained/{PRETRAINED}", check_weights, packed=False)]
        else:
            found = items(name, asr, sets)
        wanted |= {item.name: item for item in found}
    return [step for item in wanted.values() for step in _steps(item, storage, mirror)]


def _steps(item: Item, storage: Path, mirror: Mirror) -> Iterator[Step]:
    """Yield the steps that download an item (unless the mirror is local) and put it in place."""
    target, received = storage / item.name, storage / DOWNLOADS / item.name

    def receive(rebuild: bool) -> None:
        if rebuild:
            received.unlink(missing_ok=True)
        mirror.fetch(item.name, received, item.packed)

    def put(_rebuild: bool) -> None:
        if mirror.is_local:
            _put(item, mirror.fetch(item.name, received, item.packed), target)
            return
        try:
            _put(item, received, target, own=True)
        except ArchiveError as error:
            received.unlink(missing_ok=True)
            raise UserError(
                f"{item.name} of {mirror.address} is damaged and was deleted ({error}); run again "
                "to download it again, or report it to the mirror's maintainer"
            ) from None

    if not mirror.is_local:
        yield Step(
            f"download {item.name}", f"from {mirror.address}", receive, (received,), temporary=True
        )
    yield Step(
        item.name,
        "unpack and check" if item.packed else "check and put in place",
        put,
        (target,),
        () if mirror.is_local else (received,),
        check=partial(item.check, target),
    )


def _put(item: Item, source: Path, target: Path, own: bool = False) -> None:
    """Check an archive, folder or file, and put it in place.

    Args:
        own: ``source`` is temporary, so ``target`` may be a hard link to it.
    """
    if item.packed:
        if target.is_dir() and any(target.iterdir()) and not item.replaceable(target):
            raise UserError(f"{target} exists, but is not {item.name}; move it away, run again")
        put_folder(source, target, item.check, item.replaceable)
        return
    try:
        item.check(source)
    except UserError as error:
        raise ArchiveError(str(error)) from None
    with atomic_write(target) as temporary:
        if own:
            link_or_copy(source, temporary)
        else:
            shutil.copyfile(source, temporary)
