"""Databases from raw files: the files of each database.

Queries: txt_db/<task>_<split>.db from the first of
  how2R_<split>_release.csv, how2QA_<split>_release.csv, <split>_data.json
                               How2R, How2QA and DiDeMo as published; the JSON lines made of them
                               are kept in txt_db/ann
  <task>_<split>.jsonl, <task>_<split>_release.jsonl
  A TVR test split takes its videos from the file of durations (see below).
Captions: txt_db/tvc_<split>.db from tvc_<split>.jsonl or tvc_<split>_release.jsonl, also copied to
  txt_db, where validation and inference look for it, and the subtitles' annotation. Of VALUE's yc2c
  and vatex_en_c clips are copied, and queries of yc2r and vatex_en_r are the captions to train on.
Subtitles: txt_db/<corpus>_subtitles.db from
  <corpus>_subtitles.jsonl     tv also: tvqa_preprocessed_subtitles.jsonl, or a folder of .srt (or
                               .vtt, .ass) files, tvqa_subtitles
  <corpus>_vid2nframe.json     {video: frames}, the id2nframe.json of the video database; not needed
                               where that exists or is made
  <corpus>_vid2dur_idx.json    {split: {video: [seconds, index]}}, optional; tv also:
                               vid2dur_idx.json, tvr_video2dur_idx.json
  Those of ht (HowTo100M) are of whole videos, and are cut into clips as the features are.
Features: video_db/<corpus> from per-video files of both extractors, in a folder <corpus> below
  --feature_dir, in several <corpus>_0, <corpus>_1, … (shards: a database each), or, where all data
  sets are of one corpus, in --feature_dir itself; also in folders named as VALUE's. Or an existing
  feature database, as other projects publish HERO's own: a folder resnet_slowfast_<interval> with
  data.mdb, which --feature_dir names or has anywhere below it. It is linked, not copied, and its
  frames are counted where it has no id2nframe.json.
Pre-training: txt_db/pretrain_splits/<corpus>_{train,val}.json (a training list for each shard),
  copies of <corpus>_pretrain_{train,val}.json, or else chosen from the databases of subtitles and
  features, without the videos that fine-tuning is validated on, if its annotations exist.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from data.prepare.feature_parts import PUBLISHED, is_value_folder, part_folder
from data.prepare.folder_files import list_files
from data.prepare.subtitle_files import SUFFIXES
from data.prepare.work import is_same_value
from data.stores.build_folder import build_folder, is_database
from data.stores.frame_counts import COUNTS_FILE, counts_path, own_counts_path
from data.stores.lmdb_io import FeatureDb, feature_db_path
from data.stores.records import ID2NFRAME
from scripts.preparation.datasets import Catalogue, Corpus, Dataset, catalogue
from scripts.preparation.graph import Step
from scripts.preparation.process import run_script
from scripts.preparation.published import check_caption_db, check_features, check_text_db
from utils.errors import UserError
from utils.files import atomic_write, read_json, write_json

SPLITS = ("train", "val", "test", "test_public", "test_private")
ENCODINGS = ("cp1252", "iso-8859-1")  # of subtitles that are not UTF-8; the last decodes anything
# Query databases whose videos are excluded from pre-training, by corpus.
VALIDATED_ON = {"tv": ("tvr_val", "tvqa_val"), "ht": ("how2r_val", "how2qa_val")}


@dataclass(frozen=True)
class RawFiles:
    """The raw files, and the options of the steps."""

    annotations: Path  # folder
    features: Path | None  # folder of the extractors' files; None: no features are made
    txt_db: Path  # folder of the text databases to be
    video_db: Path  # folder of the feature databases
    toker: str  # tokenizer
    workers: int  # processes that share the work of a step
    sets: Catalogue = field(default_factory=catalogue)  # which data sets there are

    def first(self, *names: str) -> Path | None:
        """Return the first of these annotation files that exists."""
        paths = (self.annotations / name for name in names)
        return next((path for path in paths if path.is_file()), None)

    def durations(self, corpus: str) -> Path | None:
        """Return the file {split: {video: [seconds, index]}}."""
        return self.first(f"{corpus}_vid2dur_idx.json", *self.sets.corpora[corpus].durations)

    def subtitles(self, corpus: str) -> Path | None:
        """Return the subtitles as JSON lines."""
        return self.first(f"{corpus}_subtitles.jsonl", *self.sets.corpora[corpus].subtitles)

    def subtitle_folder(self, corpus: str) -> Path | None:
        """Return the folder of subtitle files."""
        folders = (
            folder
            for pattern in (f"{corpus}_subtitles", *self.sets.corpora[corpus].subtitle_folders)
            for folder in sorted(self.annotations.glob(pattern))
            if any(path.suffix.lower() in SUFFIXES for path in list_files(folder).files)
        )
        return next(folders, None)

    def queries(self, task: str, split: str) -> Path | None:
        """Return the annotations as JSON lines."""
        return self.first(f"{task}_{split}.jsonl", f"{task}_{split}_release.jsonl")

    @cached_property
    def _databases(self) -> list[Path]:
        """Folders of LMDB databases in the folder of features."""
        found = self.features.rglob("data.mdb") if self.features else ()
        return sorted(path.parent for path in found)

    def database(self, corpus: str, alone: bool = True) -> Path | None:
        """Return the existing feature database of a corpus, as its recipes read it.

        Args:
            corpus: its name.
            alone: all features are of this corpus; else its folder must have its name.

        Raises:
            UserError: there are several.
        """
        info = self.sets.corpora[corpus]
        name = feature_db_path(Path(), "resnet_slowfast", info.interval, info.compressed).name
        names = {name, name.replace(f"_{info.interval:g}", f"_{info.interval:.1f}")}
        if self.features is None:
            made = map((self.video_db / corpus).joinpath, sorted(names))
            return next(filter(is_database, made), None)
        if alone and is_database(self.features):
            return self.features
        found = [path for path in self._databases if path.name in names]
        own = [path for path in found if path.parent.name == corpus]
        found = own or (found if alone else [])
        if len(found) > 1:
            raise UserError(
                f"--feature_dir {self.features} holds {len(found)} databases {name} "
                f"({', '.join(map(str, found))}): name the one to take"
            )
        return found[0] if found else None

    def shards(self, corpus: str) -> list[str]:
        """Return the names of the feature databases, existing or to be made: one per shard."""
        root = self.features or self.video_db
        folders = filter(Path.is_dir, root.glob(f"{corpus}_*"))
        numbers = (folder.name.removeprefix(f"{corpus}_") for folder in folders)
        shards = [
            f"{corpus}_{number}" for number in sorted(filter(str.isdecimal, numbers), key=int)
        ]
        return [corpus] if (root / corpus).is_dir() else shards or [corpus]

    def extracted(self, name: str) -> Path | None:
        """Return the folder of the extractors' files that a feature database is made from."""
        own = self.features and self.features / name
        return own if own and own.is_dir() else self.features

    def frames(self, corpus: str) -> tuple[Path, ...]:
        """Return the files {video: frames} of the feature databases, existing or to be made."""
        return tuple(self.counts(corpus, name) for name in self.shards(corpus))

    def counts(self, corpus: str, name: str) -> Path:
        """Return the same file of the feature database ``name`` of (a shard of) a corpus."""
        folder, interval = self.video_db / name, self.sets.corpora[corpus].interval
        extracted = self.extracted(name)
        resnet = extracted and part_folder(extracted, "resnet")
        if resnet and is_value_folder(resnet) and not (folder / COUNTS_FILE).is_file():
            return own_counts_path(folder, interval)
        return counts_path(folder, interval)


def raw_steps(names: Iterable[str], files: RawFiles) -> list[Step]:
    """Return the steps that make databases of some data sets from the annotations that exist.

    Raises:
        UserError: there are none, or the features are of one corpus and the data sets of several.
    """
    names = list(names)
    steps: dict[str, Step] = {}
    corpora = list(dict.fromkeys(files.sets.datasets[name].corpus for name in names))
    for corpus in corpora:
        database = files.database(corpus, alone=len(corpora) == 1)
        if database is not None:
            _add(steps, [_database_step(corpus, database, files)])
        for shard in files.shards(corpus) if database is None else ():
            if len(corpora) > 1 and files.features and files.extracted(shard) == files.features:
                raise UserError(
                    f"these data sets are of {', '.join(corpora)}: --feature_dir must have a "
                    f"folder for each, and {files.features / corpus} does not exist"
                )
            _add(steps, _feature_steps(corpus, shard, files))
        _add(steps, _subtitle_steps(corpus, files))
    for name in names:
        dataset = files.sets.datasets[name]
        for split in dict.fromkeys((*SPLITS, *dataset.splits, *dataset.targets)):
            if dataset.splits:
                _add(steps, _query_steps(name, split, files))
            if dataset.captions or dataset.targets:
                _add(steps, _caption_steps(name, split, files))
        for learnt, split in dataset.learns_from:
            _add(steps, _query_steps(learnt, split, files))
        _add(steps, _pretraining_steps(dataset.corpus, files) if dataset.pretraining else ())
    if not steps:
        datasets = (files.sets.datasets[name] for name in names)
        wanted = "; ".join(_public_annotations(each) for each in datasets if each.annotation)
        raise UserError(
            f"{files.annotations} has none of the files that --help lists; published are {wanted}"
        )
    return list(steps.values())


def _add(steps: dict[str, Step], more: Iterable[Step]) -> None:
    steps.update((step.name, step) for step in more)


def _public_annotations(dataset: Dataset) -> str:
    """Return the published annotation files of a data set, and their address."""
    splits = dict.fromkeys((*dataset.splits, *dataset.captions, *dataset.targets))
    return f"{', '.join(map(dataset.annotation.format, splits))} ({dataset.annotations_at})"


def missing_files(names: Iterable[str], files: RawFiles, steps: Iterable[Step]) -> list[str]:
    """Return lines about files that the data sets' recipes need and that are missing."""
    made = {step.name for step in steps}
    missing: dict[str, str] = {}
    names = list(names)
    for name in names:
        dataset = files.sets.datasets[name]
        if not dataset.annotation:
            continue
        wanted = [(name, split) for split in dict.fromkeys((*dataset.splits, *dataset.captions))]
        for own, split in (*wanted, *dataset.learns_from):
            missing[f"txt_db/{own}_{split}.db"] = files.sets.datasets[own].source(split)
        for split in dataset.targets:
            missing[f"txt_db/{name}_{split}_release.jsonl"] = dataset.source(split)
        if not name.endswith("_video_only"):
            source = files.sets.corpus_of(name).subtitles_at
            subtitles = f"{dataset.corpus}_subtitles"
            missing[f"txt_db/{subtitles}.db"] = source or f"{subtitles}.jsonl"
    lines = [
        f"passed over: {step}, which has no annotation in {files.annotations} ({source})"
        for step, source in sorted(missing.items())
        if step not in made
    ]
    if "tvr" in names and files.durations("tv") is None:
        source = files.sets.datasets["tvr"].annotations_at
        lines.append(
            f"{files.annotations} has no tvr_video2dur_idx.json ({source}): only videos that "
            "queries name are searched, and a test split names none"
        )
    return lines


def _database_step(corpus: str, source: Path, files: RawFiles) -> Step:
    """Return the step that links an existing feature database."""
    info, folder = files.sets.corpora[corpus], files.video_db / corpus
    target = feature_db_path(folder, "resnet_slowfast", info.interval, info.compressed)
    if source.parent.resolve() == folder.resolve():
        target = source
    return Step(
        f"video_db/{corpus}",
        "link the feature database, count its frames",
        lambda _: take_database(source, target, info),
        (target, folder / COUNTS_FILE),
        (source / "data.mdb",),
        check=partial(check_features, info, folder),
    )


def take_database(source: Path, target: Path, corpus: Corpus) -> None:
    """Link a feature database to ``target``, and count its frames.

    Raises:
        UserError: it is damaged.
    """
    counts = target.parent / COUNTS_FILE
    known = counts_path(source.parent, corpus.interval)
    if source.resolve() != target.resolve():
        link_folder(source, target)
        counts.unlink(missing_ok=True)
        if known.is_file():
            write_json(counts, read_json(known, ID2NFRAME))
    db = FeatureDb(target.parent, interval=corpus.interval, compressed=corpus.compressed)
    write_json(counts, db.id2nframe)
    db.close()


def link_folder(source: Path, target: Path) -> None:
    """Make ``target`` hold hard links to the files of ``source``, which container mounts keep; on
    another file system it becomes a symbolic link."""
    if target.is_symlink():
        target.unlink()
    try:
        with build_folder(target, force=True) as folder:
            for path in source.iterdir():
                if path.is_file() and path.name != "lock.mdb":
                    os.link(path.resolve(), folder / path.name)
    except OSError:
        target.symlink_to(source.resolve())


def _feature_steps(corpus: str, name: str, files: RawFiles) -> Iterator[Step]:
    """Yield the steps that make the feature database ``name`` of (a shard of) a corpus."""
    extracted = files.extracted(name)
    if extracted is None:
        return
    info, folder = files.sets.corpora[corpus], files.video_db / name
    paths, target = folder / "video_feat_info.pkl", ("--output", files.video_db, "--dataset", name)
    workers = ("--workers", files.workers)
    pairing = ("--feature_dir", extracted, "--parts", *PUBLISHED, *target, *workers)
    yield Step(
        f"video_db/{name}/video_feat_info.pkl",
        "pair the feature files",
        lambda _: run_script("collect_video_feature_paths", *pairing),
        # An unchanged list is not rewritten, so that the database remains current.
        (folder / "corrupted.json", paths),
        (extracted,),
    )
    database = feature_db_path(folder, "resnet_slowfast", info.interval, info.compressed)
    options = (
        *("--vfeat_info_file", paths, *target, *workers, "--frame_length", info.interval),
        *(("--compress",) if info.compressed else ()),
        *(("--clip_interval", info.clip_interval) if info.clip_interval else ()),
    )
    yield Step(
        f"video_db/{name}",
        "convert the features to a database",
        _script(f"video_db/{name}", "convert_videodb", *options),
        (database, files.counts(corpus, name)),
        (paths,),
        check=partial(check_features, info, folder),
    )


def _script(step: str, name: str, *arguments: object) -> Callable[[bool], None]:
    """Return an action that runs a script, with ``--force`` to replace a database."""

    def run(rebuild: bool) -> None:
        try:
            run_script(name, *arguments, *(("--force",) if rebuild else ()))
        except UserError as error:  # prepare_data.py's --force takes the step's name
            raise UserError(str(error).replace("--force", f"--force {step}")) from None

    return run


def _text_step(
    files: RawFiles,
    name: str,
    what: str,
    script: str,
    annotation: Path,
    more: tuple[object, ...] = (),
    inputs: tuple[Path, ...] = (),
    check: Callable[[Path], None] = check_text_db,
    hint: str = "",
) -> Step:
    """Return the step that makes a text database ``txt_db/<name>``."""
    output = files.txt_db / name
    options = ("--annotation", annotation, "--output", output, "--toker", files.toker)
    return Step(
        f"txt_db/{name}",
        what,
        _script(f"txt_db/{name}", script, *options, "--workers", files.workers, *more),
        (output,),
        (annotation, *inputs),
        check=partial(check, output),
        otherwise=partial(_made_otherwise, output, annotation, files.toker),
        hint=hint,
    )


def _made_otherwise(output: Path, annotation: Path, toker: str) -> str | None:
    """Return how ``output`` was made, if not from this annotation with this tokenizer."""
    meta = read_json(output / "meta.json")
    for name, value in (("annotation", str(annotation)), ("toker", toker)):
        if not is_same_value(meta.get(name), value):
            return f"made with --{name} {meta.get(name)}, not {value}"
    return None


def _subtitle_lines(corpus: str, files: RawFiles) -> tuple[Path | None, list[Step]]:
    """Return the subtitles as JSON lines, and the step that makes them from a folder of files."""
    lines, folder = files.subtitles(corpus), files.subtitle_folder(corpus)
    if lines is not None or folder is None:
        return lines, []
    lines = files.txt_db / "ann" / f"{corpus}_subtitles.jsonl"
    options = ("--input", folder, "--encoding", *ENCODINGS)
    what = "convert subtitle files"
    return lines, [_lines_step(lines, what, "convert_subtitles", options, (folder,))]


def _lines_step(
    lines: Path,
    what: str,
    script: str,
    options: tuple[object, ...],
    inputs: tuple[Path, ...],
    hint: str = "",
) -> Step:
    """Return the step that makes JSON lines in ``txt_db/ann``."""

    def run(_rebuild: bool) -> None:
        run_script(script, *options, "--output", lines)

    return Step(f"txt_db/ann/{lines.name}", what, run, (lines,), inputs, hint=hint)


def _subtitle_steps(corpus: str, files: RawFiles) -> Iterator[Step]:
    annotation, conversion = _subtitle_lines(corpus, files)
    if annotation is None:
        return
    yield from conversion
    info = files.sets.corpora[corpus]
    table = None if files.features else files.first(f"{corpus}_vid2nframe.json")
    frames = (table,) if table else files.frames(corpus)
    timing = ("--vid2nframe", *frames, "--frame_length", info.interval)
    hint = (
        f": give --feature_dir, or put {corpus}_vid2nframe.json into {files.annotations}, a "
        f"copy of the id2nframe.json of video_db/{corpus}"
    )
    hint += f" (features: {info.features_at})" if info.features_at else ""
    durations = files.durations(corpus)
    if info.whole_subtitles:
        cut, durations = files.txt_db / "ann" / f"{corpus}_clips.jsonl", None
        options = ("--annotation", annotation, *timing, "--clip_interval", info.clip_interval)
        what = "cut subtitles as their videos are cut"
        yield _lines_step(cut, what, "cut_clips", options, (annotation, *frames), hint)
        annotation = cut
    yield _text_step(
        files,
        f"{corpus}_subtitles.db",
        "tokenise subtitles and match them with frames",
        "prepro_sub",
        annotation,
        (
            *("--task", corpus, *timing),
            *(("--vid2dur_idx", durations) if durations else ()),
            *(() if info.nframe_group is None else ("--nframe_group", info.nframe_group)),
        ),
        (*frames, durations) if durations else frames,
        hint=hint,
    )


def _query_steps(task: str, split: str, files: RawFiles) -> Iterator[Step]:
    annotation = files.queries(task, split)
    dataset = files.sets.datasets[task]
    published = files.first(dataset.annotation.format(split)) if dataset.converted else None
    if published is not None:
        annotation = files.txt_db / "ann" / f"{task}_{split}.jsonl"
        options = ("--task", task, "--annotation", published)
        what, script = "convert annotations", "convert_annotations"
        yield _lines_step(annotation, what, script, options, (published,))
    if annotation is None:
        return
    more: tuple[object, ...] = ("--task", task)
    durations = files.durations(dataset.corpus)
    if task == "tvr" and split.startswith("test") and durations:
        more += ("--vid2dur_idx", durations, "--split", split)
    what = "tokenise queries"
    yield _text_step(files, f"{task}_{split}.db", what, "prepro_query", annotation, more)


def _caption_steps(name: str, split: str, files: RawFiles) -> Iterator[Step]:
    annotation = files.queries(name, split)
    if annotation is None:
        return
    dataset, copy = files.sets.datasets[name], f"{name}_{split}_release.jsonl"
    yield _copy_step(files, copy, "copy clips and captions", annotation)
    if not dataset.captions:
        return
    subtitles, conversion = _subtitle_lines(dataset.corpus, files)
    yield from conversion
    if subtitles is None:
        source = files.sets.corpus_of(name).subtitles_at
        raise UserError(f"{files.annotations} has no {dataset.corpus}_subtitles.jsonl ({source})")
    yield _text_step(
        files,
        f"{name}_{split}.db",
        "tokenise captions",
        "prepro_tvc",
        annotation,
        ("--subtitles", subtitles),
        (subtitles,),
        check_caption_db,
    )


def _copy_step(files: RawFiles, name: str, what: str, source: Path) -> Step:
    target = files.txt_db / name

    def copy(_rebuild: bool) -> None:
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)

    return Step(f"txt_db/{name}", what, copy, (target,), (source,))


def _pretraining_steps(corpus: str, files: RawFiles) -> Iterator[Step]:
    given = {split: files.first(f"{corpus}_pretrain_{split}.json") for split in ("train", "val")}
    if any(given.values()):
        for split, path in given.items():
            if path is None:
                raise UserError(
                    f"{files.annotations} has one list of videos to pre-train on, but no "
                    f"{corpus}_pretrain_{split}.json: put both there, or none to choose them"
                )
            name = f"pretrain_splits/{corpus}_{split}.json"
            yield _copy_step(files, name, "copy a list of videos to pre-train on", path)
        return
    lists = files.txt_db / "pretrain_splits"
    subtitles = files.txt_db / f"{corpus}_subtitles.db"
    excluded = []
    for name in VALIDATED_ON[corpus]:
        task, split = name.split("_")
        of_task = list(_query_steps(task, split, files))
        excluded += [path for step in of_task[-1:] for path in step.outputs]
        yield from of_task
    shards = files.shards(corpus)
    options: tuple[object, ...] = ("--name", corpus, "--output", lists)
    options += ("--sub_txt_db", subtitles)
    options += ("--vfeat_db", *(files.video_db / name for name in shards))
    options += ("--clips",) if files.sets.corpora[corpus].clip_interval else ()
    options += ("--exclude", *excluded) if excluded else ()
    train = [f"_{number}" for number in range(len(shards))] if len(shards) > 1 else [""]
    yield Step(
        f"txt_db/pretrain_splits/{corpus}",
        "choose videos to pre-train on",
        lambda _: run_script("make_pretrain_splits", *options),
        tuple(lists / f"{corpus}_{name}.json" for name in (*(f"train{n}" for n in train), "val")),
        (subtitles, *files.frames(corpus), *excluded),
        hint=": give --feature_dir, or download the features first",
    )
