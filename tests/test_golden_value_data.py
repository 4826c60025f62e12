"""VALUE's raw annotations become the recorded databases."""

import pytest

from data.stores.lmdb_io import TextDb
from scripts import prepro_query, prepro_sub, prepro_tvc
from tests.recorded_value import ValueWorld
from tests.test_prepro import assert_same_database
from utils.files import read_json, read_jsonl

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
