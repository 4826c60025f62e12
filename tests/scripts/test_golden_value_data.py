"""VALUE's raw annotations become the recorded databases."""

import shutil

import pytest

from data.stores.lmdb_io import TextDb
from scripts import drop_ids, prepro_query, prepro_sub, prepro_tvc
from tests.support.databases import assert_same_database
from tests.support.recorded_value import ValueWorld
from utils.files import read_json, read_jsonl, write_json

pytestmark = pytest.mark.golden_value

QUERY_TASKS = ("yc2r", "vatex_en_r", "vlep", "violin", "tvqa", "tvr")


@pytest.fixture(scope="module")
def value(golden_value) -> ValueWorld:
    return ValueWorld(golden_value)


@pytest.fixture(scope="module")
def token_ids(value) -> dict[str, dict]:
    return value.expected_json("token_ids")


def prepared(value, script, name, output, *more) -> None:
    words = ["--annotation", value.annotation(name), "--output", output]
    script.main([*map(str, (*words, "--toker", value.world / "toker", *more))])


@pytest.mark.parametrize("task", QUERY_TASKS)
def test_query_databases(value, token_ids, tmp_path, task):
    names = {path.stem for path in (value.world / "txt_db").glob(f"{task}_*.db")}
    for name in names - {f"{task}_subtitles"}:
        recorded = value.world / "txt_db" / f"{name}.db"
        prepared(value, prepro_query, name, tmp_path / name, "--task", task)
        assert_same_database(tmp_path / name, recorded, token_ids[recorded.name])
        assert TextDb(tmp_path / name).meta["task"] == task


def test_subtitle_databases(value, token_ids, tmp_path, caplog):
    left_out = []
    for recorded in sorted((value.world / "txt_db").glob("*_subtitles.db")):
        corpus = recorded.stem.removesuffix("_subtitles")
        frames = value.world / "video_db" / corpus / "id2nframe_1.5.json"
        indices = value.world / "ann" / f"{corpus}_vid2dur_idx.json"
        more = ["--vid2dur_idx", indices] if indices.exists() else []
        made = tmp_path / corpus
        caplog.clear()
        words = ["--vid2nframe", frames, "--nframe_group", 5, *more]
        prepared(value, prepro_sub, recorded.stem, made, *words)
        assert_same_database(made, recorded, token_ids[recorded.name], own=("task",))
        vids = [line["vid_name"] for _, line in read_jsonl(value.annotation(recorded.stem))]
        lost = len(set(vids) - set(read_json(frames)))
        said = [r.getMessage() for r in caplog.records if "no features" in r.getMessage()]
        assert [f"{lost} of {len(vids)} videos" in text for text in said] == [True] * bool(lost)
        left_out.append(lost)
    assert any(left_out)


def test_caption_databases(value, token_ids, tmp_path):
    for recorded in (value.world / "txt_db").glob("tvc_*.db"):
        made = tmp_path / recorded.stem
        prepared(
            *(value, prepro_tvc, recorded.stem, made, "--subtitles"),
            value.annotation("tv_subtitles"),
        )
        for part, ids in (("cap.db", token_ids[f"{recorded.name}/cap.db"]), ("clip.db", None)):
            assert_same_database(made / part, recorded / part, ids)


@pytest.mark.parametrize("name", ["vlep_dev", "violin_val", "yc2r_val"])
def test_examples_are_dropped_by_their_ids(value, tmp_path, name):
    """From a database whose meta.json names no task, too."""
    old = value.texts(name)
    first, *others = old.side("id2len.json")
    for task in ({"task": old.meta["task"]}, {}):
        source = tmp_path / f"{len(task)}" / old.path.name
        shutil.copytree(old.path, source)
        meta = {key: entry for key, entry in old.meta.items() if key != "task"} | task
        write_json(source / "meta.json", meta)
        write_json(tmp_path / "drops.json", {"videos": [], "records": {source.name: [first]}})
        output = tmp_path / f"{len(task)}_without"
        drop_ids.main(
            ["--list", str(tmp_path / "drops.json"), "--output", str(output), str(source)]
        )
        copy = TextDb(output / old.path.name)
        assert list(copy.side("id2len.json")) == others and first not in copy
        lines = (copy.path / "query_data.jsonl").read_text().splitlines()
        assert len(lines) == len(others)
