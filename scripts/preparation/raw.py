"""Databases from raw files: which annotation file becomes which database.

Queries: txt_db/<task>_<split>.db from the first of
  <task>_<split>.jsonl, <task>_<split>_release.jsonl
  how2R_<split>_release.csv, how2QA_<split>_release.csv, <split>_data.json
                               How2R, How2QA and DiDeMo as published come before those; txt_db/ann
                               keeps the JSON lines made of them
  A TVR test split takes its videos from the file of durations (see below).
Captions: txt_db/tvc_<split>.db from tvc_<split>.jsonl or tvc_<split>_release.jsonl, also copied to
  txt_db, where validation and inference look for it, and the subtitles' annotation.
Subtitles: txt_db/<corpus>_subtitles.db from
  <corpus>_subtitles.jsonl     tv also: tvqa_preprocessed_subtitles.jsonl
  <corpus>_vid2nframe.json     {video: frames}, the id2nframe.json of the video database; not needed
                               where there is one, or one is made
  <corpus>_vid2dur_idx.json    {split: {video: [seconds, index]}}, optional; tv also:
                               vid2dur_idx.json, tvr_video2dur_idx.json
  Those of ht (HowTo100M) tell of whole videos, and are cut into clips as the features are.
Features: video_db/<corpus> from per-video files of both extractors, in a folder <corpus> below
  --feature_dir, in several <corpus>_0, <corpus>_1, … (shards: a database each), or, where all data
  sets are of one corpus, in --feature_dir itself.
Pre-training: txt_db/pretrain_splits/<corpus>_{train,val}.json (a training list for each shard),
  copies of <corpus>_pretrain_{train,val}.json, or else chosen from the databases of subtitles and
  features, without the videos that fine-tuning is validated on, if its annotations are there.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data.stores.lmdb_io import feature_db_path
from scripts.preparation.datasets import CORPORA, DATASETS
from scripts.preparation.graph import Step
from scripts.preparation.process import run_script
from scripts.preparation.published import check_caption_db, check_features, check_text_db
from utils.errors import UserError
from utils.files import atomic_write, read_json

SPLITS = ("train", "val", "test", "test_public", "test_private")
# Annotations published in another format, which convert_annotations.py knows.
CONVERTED = {
    "how2r": "how2R_{}_release.csv",
    "how2qa": "how2QA_{}_release.csv",
    "didemo": "{}_data.json",
}
# What pre-training must not have seen, by corpus.
VALIDATED_ON = {"tv": ("tvr_val", "tvqa_val"), "ht": ("how2r_val", "how2qa_val")}


@dataclass(frozen=True)
class RawFiles:
    """Where raw files lie, and what becomes of them.

    Attributes:
        annotations: folder.
        features: folder of the extractors' files; None: no features are made.
        txt_db: folder of the text databases to be.
        video_db: folder of the feature databases.
        toker: tokenizer.
        workers: processes that share the work of a step.
    """

    annotations: Path
    features: Path | None
    txt_db: Path
    video_db: Path
    toker: str
    workers: int

    def first(self, *names: str) -> Path | None:
        """The first annotation file that is there."""
        paths = (self.annotations / name for name in names)
        return next((path for path in paths if path.is_file()), None)

    def durations(self, corpus: str) -> Path | None:
        """{split: {video: [seconds, index]}}."""
        return self.first(f"{corpus}_vid2dur_idx.json", *CORPORA[corpus].durations)

    def subtitles(self, corpus: str) -> Path | None:
        """Subtitles as JSON lines."""
        return self.first(f"{corpus}_subtitles.jsonl", *CORPORA[corpus].subtitles)

    def queries(self, task: str, split: str) -> Path | None:
        """Annotations as JSON lines."""
        return self.first(f"{task}_{split}.jsonl", f"{task}_{split}_release.jsonl")

    def shards(self, corpus: str) -> list[str]:
        """Names of the feature databases that are there, or to be: one, or one for each shard."""
        root = self.features or self.video_db
        found = {
            path.name.removeprefix(f"{corpus}_"): path.name
            for path in root.glob(f"{corpus}_*")
            if path.is_dir()
        }
        numbers = sorted(filter(str.isdecimal, found), key=int)
        if not numbers or (root / corpus).is_dir():
            return [corpus]
        return [found[number] for number in numbers]

    def extracted(self, name: str) -> Path | None:
        """The extractors' files that a feature database is made from."""
        own = self.features and self.features / name
        return own if own and own.is_dir() else self.features

    def frames(self, corpus: str) -> tuple[Path, ...]:
        """{video: frames} of each feature database that is there, or to be."""
        return tuple(self.video_db / name / "id2nframe.json" for name in self.shards(corpus))


def raw_steps(names: Iterable[str], files: RawFiles) -> list[Step]:
    """Steps that make the databases of some data sets from whatever annotations there are.

    Raises:
        UserError: there are none, or the features are of one corpus and the data sets of several.
    """
    names = list(names)
    steps: dict[str, Step] = {}
    corpora = list(dict.fromkeys(DATASETS[name].corpus for name in names))
    for corpus in corpora:
        for shard in files.shards(corpus):
            if len(corpora) > 1 and files.features and files.extracted(shard) == files.features:
                raise UserError(
                    f"these data sets are of {', '.join(corpora)}: --feature_dir must have a "
                    f"folder for each, and {files.features / corpus} does not exist"
                )
            _add(steps, _feature_steps(corpus, shard, files))
        _add(steps, _subtitle_steps(corpus, files))
    for name in names:
        for split in SPLITS:
            _add(steps, _query_steps(name, split, files) if DATASETS[name].splits else ())
            _add(steps, _caption_steps(name, split, files) if DATASETS[name].captions else ())
        _add(
            steps,
            _pretraining_steps(DATASETS[name].corpus, files) if DATASETS[name].pretraining else (),
        )
    if not steps:
        raise UserError(f"{files.annotations} has none of the files that --help lists")
    return list(steps.values())


def _add(steps: dict[str, Step], more: Iterable[Step]) -> None:
    steps.update((step.name, step) for step in more)


def missing_annotations(names: Iterable[str], steps: Iterable[Step]) -> list[str]:
    """Databases that recipes of the data sets found read, and that no annotation is there for."""
    made = {step.name for step in steps}
    missing: list[str] = []
    for name in names:
        dataset = DATASETS[name]
        own = [f"txt_db/{name}_{split}.db" for split in (*dataset.splits, *dataset.captions)]
        if made.intersection(own):
            missing += {*own, f"txt_db/{dataset.corpus}_subtitles.db"} - made
    return sorted(set(missing))


def _feature_steps(corpus: str, name: str, files: RawFiles) -> Iterator[Step]:
    """The feature database ``name`` of (a shard of) a corpus."""
    extracted = files.extracted(name)
    if extracted is None:
        return
    of, folder = CORPORA[corpus], files.video_db / name
    paths, target = folder / "video_feat_info.pkl", ("--output", files.video_db, "--dataset", name)
    workers = ("--workers", files.workers)
    yield Step(
        f"video_db/{name}/video_feat_info.pkl",
        "pair the feature files",
        lambda _: run_script(
            "collect_video_feature_paths", "--feature_dir", extracted, *target, *workers
        ),
        # The list stays untouched, and so the database current, where it would say the same.
        (folder / "corrupted.json", paths),
        (extracted,),
    )
    database = feature_db_path(folder, "resnet_slowfast", of.interval, of.compressed)
    options = (
        *("--vfeat_info_file", paths, *target, *workers, "--frame_length", of.interval),
        *(("--compress",) if of.compressed else ()),
        *(("--clip_interval", of.clip_interval) if of.clip_interval else ()),
    )
    yield Step(
        f"video_db/{name}",
        "gather the features in a database",
        _script(f"video_db/{name}", "convert_videodb", *options),
        (database, folder / "id2nframe.json"),
        (paths,),
        check=partial(check_features, of, folder),
    )


def _script(step: str, name: str, *arguments: object) -> Callable[[bool], None]:
    """An action that runs a script, with ``--force`` where a database is to be replaced."""

    def run(rebuild: bool) -> None:
        try:
            run_script(name, *arguments, *(("--force",) if rebuild else ()))
        except UserError as error:  # what to pass to prepare_data.py is meant for this step alone
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
    """A step that makes a text database ``txt_db/<name>``."""
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
    """How ``output`` was made, if not from this annotation with this tokenizer."""
    meta = read_json(output / "meta.json")
    for name, value in (("annotation", annotation), ("toker", toker)):
        recorded = str(meta.get(name))
        if recorded != str(value) and Path(recorded).resolve() != Path(value).resolve():
            return f"made with --{name} {recorded}, not {value}"
    return None


def _subtitle_steps(corpus: str, files: RawFiles) -> Iterator[Step]:
    annotation = files.subtitles(corpus)
    if annotation is None:
        return
    of = CORPORA[corpus]
    table = None if files.features else files.first(f"{corpus}_vid2nframe.json")
    frames = (table,) if table else files.frames(corpus)
    timing = ("--vid2nframe", *frames, "--frame_length", of.interval)
    hint = (
        f": give --feature_dir, or put {corpus}_vid2nframe.json into {files.annotations}, a "
        f"copy of the id2nframe.json of video_db/{corpus}"
    )
    durations = files.durations(corpus)
    if of.whole_subtitles:
        cut, durations = files.txt_db / "ann" / f"{corpus}_clips.jsonl", None
        options = ("--annotation", annotation, "--output", cut, *timing)
        options += ("--clip_interval", of.clip_interval)
        yield Step(
            f"txt_db/ann/{cut.name}",
            "cut subtitles as their videos are cut",
            lambda _: run_script("cut_clips", *options),
            (cut,),
            (annotation, *frames),
            hint=hint,
        )
        annotation = cut
    yield _text_step(
        files,
        f"{corpus}_subtitles.db",
        "tokenise subtitles and match them with frames",
        "prepro_sub",
        annotation,
        ("--task", corpus, *timing, *(("--vid2dur_idx", durations) if durations else ())),
        (*frames, durations) if durations else frames,
        hint=hint,
    )


def _query_steps(task: str, split: str, files: RawFiles) -> Iterator[Step]:
    annotation = files.queries(task, split)
    published = files.first(CONVERTED[task].format(split)) if task in CONVERTED else None
    if published is not None:
        annotation = files.txt_db / "ann" / f"{task}_{split}.jsonl"
        options = ("--task", task, "--annotation", published, "--output", annotation)
        yield Step(
            f"txt_db/ann/{task}_{split}.jsonl",
            "convert annotations",
            lambda _: run_script("convert_annotations", *options),
            (annotation,),
            (published,),
        )
    if annotation is None:
        return
    more: tuple[object, ...] = ("--task", task)
    durations = files.durations(DATASETS[task].corpus)
    if task == "tvr" and split.startswith("test") and durations:
        more += ("--vid2dur_idx", durations, "--split", split)
    what = "tokenise queries"
    yield _text_step(files, f"{task}_{split}.db", what, "prepro_query", annotation, more)


def _caption_steps(name: str, split: str, files: RawFiles) -> Iterator[Step]:
    annotation = files.queries(name, split)
    if annotation is None:
        return
    subtitles = files.subtitles(DATASETS[name].corpus)
    if subtitles is None:
        raise UserError(
            f"{files.annotations} has no tv_subtitles.jsonl (or tvqa_preprocessed_subtitles.jsonl)"
        )
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
    yield _copy_step(files, f"{name}_{split}_release.jsonl", "copy clips and captions", annotation)


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
                    f"{corpus}_pretrain_{split}.json: put both there, or none to have them chosen"
                )
            name = f"pretrain_splits/{corpus}_{split}.json"
            yield _copy_step(files, name, "copy a list of videos to pre-train on", path)
        return
    lists = files.txt_db / "pretrain_splits"
    subtitles = files.txt_db / f"{corpus}_subtitles.db"
    excluded = []
    for name in VALIDATED_ON[corpus]:
        of_task = list(_query_steps(*name.split("_"), files))
        excluded += [path for step in of_task[-1:] for path in step.outputs]
        yield from of_task
    shards = files.shards(corpus)
    options = ("--name", corpus, "--output", lists, "--sub_txt_db", subtitles)
    options += ("--vfeat_db", *(files.video_db / name for name in shards))
    options += ("--clips",) if CORPORA[corpus].clip_interval else ()
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
