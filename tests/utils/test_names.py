"""Names and ids are text wherever they are compared, and each thing has one name.

The recorded world again, its videos renamed to whole numbers.
"""

import json
from pathlib import Path

import pytest

import eval_vcmr
import eval_vr
from data.check.broken_databases import BrokenRecords, drop_from
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter, TextDb, TextDbWriter
from data.tvc import CaptionDataset, TargetClips, caption_texts
from data.vcmr import MomentDataset
from data.video import SubtitleSource
from data.video_pool import feature_name, query_videos, read_split
from data.videoQA import QuestionDataset
from data.violin import StatementDataset
from scripts import (
    cut_clips,
    format_submission,
    make_pretrain_splits,
    prepro_query,
    prepro_sub,
    prepro_tvc,
)
from tests.evaluation.test_golden_eval import recorded_run
from utils.errors import RecordError, UserError
from utils.files import read_json, read_jsonl, write_json, write_jsonl
from utils.names import (
    QUERY_NAMES,
    QUESTION_NAMES,
    VIDEO_QUERY_NAMES,
    as_name,
    find_name,
    get_name,
    names_of_task,
    text_names,
)

ANNOTATIONS = ("tvr_val", "msrvtt_val", "tvqa_val", "violin_val", "tvc_val", "tv_subtitles")
TASKS = {"tvr_val": "tvr", "msrvtt_val": "msrvtt", "tvqa_val": "tvqa", "violin_val": "violin"}


class Numbered:
    """The recorded world with videos 10001, 10002, … in annotations, features and databases.

    Args:
        world: the recorded world.
        folder: where to.
        kind: ``int``, or ``str``: how annotations write a video's number.
    """

    def __init__(self, world: Path, folder: Path, kind: type = int) -> None:
        self.world, self.folder = world, folder
        features = FeatureDb(world / "video_db" / "tv")
        self.number = {vid: kind(10001 + n) for n, vid in enumerate(sorted(features.id2nframe))}
        with FeatureDbWriter(folder / "video") as db:
            for vid in features.id2nframe:
                db.put(str(self.number[vid]), features[vid])
        for name in ANNOTATIONS:
            lines = [self.renamed(line) for _, line in read_jsonl(world / "ann" / f"{name}.jsonl")]
            write_jsonl(folder / f"{name}.jsonl", lines)
        table = read_json(world / "ann" / "vid2dur_idx.json")
        indices = {s: {str(self.number[v]): e for v, e in x.items()} for s, x in table.items()}
        write_json(folder / "dur.json", indices)
        self.prepare(
            prepro_sub,
            "tv_subtitles",
            "sub.db",
            "--vid2nframe",
            folder / "video" / "id2nframe.json",
            "--vid2dur_idx",
            folder / "dur.json",
        )
        for name, task in TASKS.items():
            self.prepare(prepro_query, name, f"{name}.db", "--task", task)
        self.prepare(
            prepro_tvc, "tvc_val", "tvc_val.db", "--subtitles", folder / "tv_subtitles.jsonl"
        )

    def renamed(self, line: dict) -> dict:
        names = {k: self.number[line[k]] for k in ("vid_name", "clip_name") if k in line}
        if "qid" in line:
            names["qid"] = int(line["qid"])
        return line | names

    def prepare(self, script, name, output, *more) -> None:
        words = ["--annotation", self.folder / f"{name}.jsonl", "--output", self.folder / output]
        words += ["--toker", self.world / "toker", "--workers", 1, *more]
        script.main([str(word) for word in words])

    def source(self) -> SubtitleSource:
        features = FeatureDb(self.folder / "video", max_clip_len=100)
        return SubtitleSource(TextDb(self.folder / "sub.db"), features)

    def evaluate(self, script, run: Path, db: Path, *more: str) -> dict:
        words = ["--query_txt_db", db, "--split", "val", "--vfeat_db", self.folder / "video"]
        words += ["--sub_txt_db", self.folder / "sub.db", "--output_dir", run]
        words += ["--checkpoint", 1, "--n_workers", 0, *more]
        return script.main([str(word) for word in words])


@pytest.fixture(scope="module")
def numbered(world, tmp_path_factory) -> Numbered:
    return Numbered(world, tmp_path_factory.mktemp("numbered"))


@pytest.fixture(scope="module")
def named(world, tmp_path_factory) -> Numbered:
    return Numbered(world, tmp_path_factory.mktemp("named"), str)


def as_the_original_wrote_it(source: Path, target: Path) -> Path:
    """A query database whose record and side file name videos by numbers."""
    db = TextDb(source)
    with TextDbWriter(target) as writer:
        for id_ in db.keys():  # noqa: SIM118 (no mapping)
            record = db[id_]
            writer.put(id_, record | {"vid": int(record["vid"])})
        for path in source.glob("*.json"):
            writer.write_side(path.name, read_json(path))
        videos = {id_: int(vid) for id_, vid in db.side("query2video.json").items()}
        writer.write_side("query2video.json", videos)
        lines = (source / "query_data.jsonl").read_text()
        (writer.folder / "query_data.jsonl").write_text(lines)
    return target


# --- searching ------------------------------------------------------------------------------------


@pytest.mark.golden
@pytest.mark.parametrize("original", [False, True])
def test_moments_of_videos_that_are_numbers(numbered, named, expected, world, tmp_path, original):
    db = numbered.folder / "tvr_val.db"
    db = as_the_original_wrote_it(db, tmp_path / "tvr_val.db") if original else db
    run = recorded_run(expected, world, "exp_tvr_raw", tmp_path)
    wanted = named.evaluate(eval_vcmr, run, named.folder / "tvr_val.db")
    assert wanted["VR/r5"] > 0
    assert numbered.evaluate(eval_vcmr, run, db) == wanted
    results = read_json(run / "results_val" / "results_1_all.json")
    assert results["video2idx"]["10004"] == 5700
    ids = [line["desc_id"] for _, line in read_jsonl(numbered.folder / "tvr_val.jsonl")]
    assert [entry["desc_id"] for entry in results["VCMR"]] == ids and isinstance(ids[0], int)
    words = ["--task", "tvr", "--results", run / "results_val" / "results_1_all.json"]
    words += ["--annotation", numbered.folder / "tvr_val.jsonl", "--output", tmp_path / "out"]
    format_submission.main([str(word) for word in words])
    assert [entry["desc_id"] for entry in read_json(tmp_path / "out")["VCMR"]] == ids


@pytest.mark.golden
@pytest.mark.parametrize("original", [False, True])
def test_videos_that_are_numbers(numbered, expected, world, tmp_path, original):
    db = numbered.folder / "msrvtt_val.db"
    db = as_the_original_wrote_it(db, tmp_path / "q.db") if original else db
    run = recorded_run(expected, world, "exp_msrvtt_video_sub", tmp_path)
    metrics = numbered.evaluate(eval_vr, run, db, "--vfeat_interval", "1.5")
    assert list(metrics.values())[:4] == [25.0, 100.0, 100.0, 100.0]


@pytest.mark.golden
def test_the_subtitle_database_does_not_choose_the_videos_that_clip_queries_search(
    expected, world, tmp_path, caplog
):
    run = recorded_run(expected, world, "exp_msrvtt_video_sub", tmp_path)
    for more in ([], ["--task", "msrvtt_video_only"]):
        words = ["--query_txt_db", world / "txt_db" / "msrvtt_train.db", "--split", "val"]
        words += ["--vfeat_db", world / "video_db" / "tv", "--vfeat_interval", 1.5]
        words += ["--sub_txt_db", world / "txt_db" / "tv_subtitles.db", "--n_workers", 0]
        words += ["--output_dir", run, "--checkpoint", 1, *more]
        metrics = eval_vr.main([str(word) for word in words])
        results = read_json(run / "results_val" / "results_1_all.json")
        places = {
            vid: n
            for n, vid in enumerate(sorted(read_json(world / "video_db" / "tv" / "id2nframe.json")))
        }
        named = read_json(world / "txt_db" / "msrvtt_train.db" / "query2video.json").values()
        assert results["video2idx"] == {vid: places[vid] for vid in named}
        if not more:
            assert list(metrics.values())[:4] == [25.0, 75.0, 75.0, 75.0]


# --- queries and the pool -------------------------------------------------------------------------


def search_recorded(world: Path, run: Path, db: Path, *more: object, script=eval_vcmr) -> dict:
    """Evaluate on the recorded world."""
    words = ["--query_txt_db", db, "--split", "val", "--vfeat_db", world / "video_db" / "tv"]
    words += ["--sub_txt_db", world / "txt_db" / "tv_subtitles.db", "--output_dir", run]
    words += ["--checkpoint", 1, "--n_workers", 0, *more]
    return script.main([str(word) for word in words])


def prepare_lines(world: Path, folder: Path, task: str, lines: list[dict], *more: str) -> Path:
    """A query database of these lines."""
    write_jsonl(folder / "lines.jsonl", lines)
    words = ["--annotation", folder / "lines.jsonl", "--output", folder / "lines.db"]
    words += ["--task", task, "--toker", world / "toker", "--workers", 1, *more]
    prepro_query.main([str(word) for word in words])
    return folder / "lines.db"


def annotation(world: Path, name: str) -> list[dict]:
    return [line for _, line in read_jsonl(world / "ann" / f"{name}.jsonl")]


@pytest.mark.golden
@pytest.mark.parametrize("tasks", [["VCMR", "SVMR", "VR"], ["VCMR", "VR"]])
def test_queries_outside_the_pool_count_as_wrong(expected, world, tmp_path, caplog, tasks):
    inside, other = annotation(world, "tvr_val"), annotation(world, "tvr_train")[:5]
    db = prepare_lines(world, tmp_path, "tvr", inside + other)
    run = recorded_run(expected, world, "exp_tvr_raw", tmp_path)
    metrics = search_recorded(world, run, db, "--full_eval_tasks", *tasks)
    (warning,) = [record.getMessage() for record in caplog.records if "searched" in record.msg]
    assert f"5 of {len(inside) + 5} queries of {db}" in warning
    assert f"query {other[0]['desc_id']}, video {other[0]['vid_name']}" in warning
    assert f"as {world / 'txt_db' / 'tv_subtitles.db' / 'vid2dur_idx.json'} lacks them" in warning
    share = len(inside) / (len(inside) + 5)  # of the recorded recalls; the denominator grew
    recorded = {"VCMR/0.5-r100": 45, "VR/r1": 25, "VR/r5": 65, "SVMR/0.5-r100": 85}
    for name, value in recorded.items():
        if name.partition("/")[0] in tasks:
            assert metrics[name] == pytest.approx(share * value, abs=0.01)
    results = read_json(run / "results_val" / "results_1_all.json")
    assert len(results["VCMR"]) == len(inside) + 5
    if "SVMR" in tasks:
        assert [e["desc_id"] for e in results["SVMR"]] == [line["desc_id"] for line in inside]


@pytest.mark.golden
@pytest.mark.parametrize("tasks", [["VCMR", "SVMR", "VR"], ["VCMR", "VR"]])
def test_a_split_whose_queries_are_all_outside_the_pool(expected, world, tmp_path, tasks):
    run = recorded_run(expected, world, "exp_tvr", tmp_path)
    db = world / "txt_db" / "tvr_train.db"
    with pytest.raises(UserError, match=r"all 30 queries of .* not searched \(first: query 90045"):
        search_recorded(world, run, db, "--full_eval_tasks", *tasks)


@pytest.mark.golden
def test_moments_without_subtitles_are_searched_in_the_videos_that_queries_name(
    expected, world, tmp_path
):
    run = recorded_run(expected, world, "exp_tvr_raw", tmp_path)
    db = world / "txt_db" / "tvr_train.db"
    search_recorded(world, run, db, "--task", "didemo_video_only")
    results = read_json(run / "results_val" / "results_1_all.json")
    names = sorted(read_json(world / "video_db" / "tv" / "id2nframe.json"))
    assert results["video2idx"] == {
        vid: names.index(vid) for vid in read_json(db / "query2video.json").values()
    }


@pytest.mark.golden
def test_a_split_that_names_no_videos_has_no_metrics_and_says_so(expected, world, tmp_path, caplog):
    named = annotation(world, "msrvtt_val")
    fields = VIDEO_QUERY_NAMES.videos
    lines = [{k: v for k, v in line.items() if k not in fields} for line in named]
    table = world / "ann" / "vid2dur_idx.json"
    db = prepare_lines(world, tmp_path, "msrvtt", lines, "--vid2dur_idx", table, "--split", "val")
    run = recorded_run(expected, world, "exp_msrvtt_video_sub", tmp_path)
    caplog.set_level("INFO")
    metrics = search_recorded(world, run, db, "--vfeat_interval", 1.5, script=eval_vr)
    assert metrics == {}
    assert f"no metrics: the queries of {db} name no video" in caplog.messages
    pool = read_json(run / "results_val" / "results_1_all.json")["video2idx"]
    assert list(pool) == list(read_json(table)["val"])


@pytest.mark.golden
def test_queries_without_a_video_among_others(expected, world, tmp_path, caplog):
    lines = annotation(world, "tvr_val")
    db = prepare_lines(world, tmp_path, "tvr", lines)
    videos = read_json(db / "query2video.json")
    lost = list(videos)[:4]
    left = {qid: vid for qid, vid in videos.items() if qid not in lost}
    write_json(db / "query2video.json", left | dict.fromkeys(lost[:2]))  # null is absent
    run = recorded_run(expected, world, "exp_tvr_raw", tmp_path)
    metrics = search_recorded(world, run, db)
    assert f"4 of {len(lines)} queries of {db} (first: {lost[0]}) name no video" in caplog.text
    results = read_json(run / "results_val" / "results_1_all.json")
    assert [str(e["desc_id"]) for e in results["SVMR"]] == list(videos)[4:]
    best = {str(e["desc_id"]): e["predictions"][0][0] for e in results["VR"]}
    right = [best[q] == results["video2idx"][v] for q, v in videos.items() if q not in lost]
    assert metrics["VR/r1"] == pytest.approx(100 * sum(right) / len(right), abs=0.01)


# --- fields ---------------------------------------------------------------------------------------

SENTENCE = {"desc": "A man.", "sen_id": 3, "retrieval_key": "ret3", "desc_id": 9}
SENTENCE |= {"clip_name": "clip", "vid_name": "whole", "video_id": 7}


@pytest.mark.parametrize(
    ("absent", "qid", "vid"),
    [
        ((), "3", "clip"),
        (("sen_id", "clip_name"), "ret3", "whole"),
        (("sen_id", "retrieval_key", "clip_name", "vid_name"), "9", "7"),
    ],
)
@pytest.mark.parametrize("null", [False, True])
def test_fields_of_a_clip_query(world, tmp_path, absent, qid, vid, null):
    line = {k: v for k, v in SENTENCE.items() if k not in absent}
    line |= dict.fromkeys(absent) if null else {}
    db = TextDb(prepare_lines(world, tmp_path, "msrvtt", [line]))
    assert db.side("query2video.json") == {qid: vid}
    assert (db[qid]["qid"], db[qid]["vid"]) == (qid, vid)
    assert json.loads((db.path / "query_data.jsonl").read_text()) == line  # as it stands there


def test_other_lines_have_one_name_for_each_thing(world, tmp_path):
    line = SENTENCE | {"ts": [0, 1], "vid": "stray", "qid": "stray"}
    db = TextDb(prepare_lines(world, tmp_path, "tvr", [line]))
    assert db.side("query2video.json") == {"9": "whole"} and db["9"]["qid"] == "9"
    without = {k: v for k, v in line.items() if k != "vid_name"}
    db = TextDb(prepare_lines(world, tmp_path, "tvr", [without], "--force"))
    assert not db.has_side("query2video.json") and "vid" not in db["9"]


@pytest.mark.golden
def test_scoring_takes_the_names_that_writing_took(expected, world, tmp_path):
    lines = [
        line | {"desc_id": number, "vid_name": "another", "video_id": "a third"}
        for number, line in enumerate(annotation(world, "msrvtt_val"))
    ]
    db = prepare_lines(world, tmp_path, "msrvtt", lines)
    run = recorded_run(expected, world, "exp_msrvtt_video_sub", tmp_path)
    metrics = search_recorded(world, run, db, "--vfeat_interval", 1.5, script=eval_vr)
    assert list(metrics.values())[:4] == [25.0, 100.0, 100.0, 100.0]


@pytest.mark.parametrize("value", [True, 1.0, 10001.0, "", ["v"], {"v": 1}])
@pytest.mark.parametrize("field", ["vid_name", "desc_id"])
def test_names_that_are_none(world, tmp_path, field, value):
    good = {"desc": "A man.", "desc_id": 1, "vid_name": "v", "ts": [0, 1]}
    message = rf"lines\.jsonl:2: {field} must be a non-empty string or a whole number, not "
    with pytest.raises(UserError, match=message):
        prepare_lines(world, tmp_path, "tvr", [good, good | {"desc_id": 2} | {field: value}])


def test_ids_that_are_one_as_text(world, tmp_path):
    lines = [{"desc": "A man.", "desc_id": id_, "vid_name": "v", "ts": [0, 1]} for id_ in (1, "1")]
    with pytest.raises(UserError, match=r"lines\.jsonl:2: the id '1' was used in line 1"):
        prepare_lines(world, tmp_path, "tvr", lines)


@pytest.mark.parametrize(("first", "said"), [("v", "names no video"), (None, "names a video")])
@pytest.mark.parametrize("task", ["tvr", "msrvtt"])
def test_lines_with_and_without_a_video(world, tmp_path, task, first, said):
    second = None if first else "v"
    lines = [
        {"desc": "A man.", "desc_id": number, "vid_name": vid, "ts": [0, 1]}
        for number, vid in enumerate((first, first, second))
    ]
    with pytest.raises(UserError, match=rf"lines\.jsonl:3: unlike the lines before it {said}"):
        prepare_lines(world, tmp_path, task, lines)


def test_the_table_of_fields():
    assert names_of_task("msrvtt") == names_of_task("msrvtt_video_only") == VIDEO_QUERY_NAMES
    assert names_of_task("how2qa") == QUESTION_NAMES
    for task in ("tvr", "didemo_video_only", "yc2r", None):
        assert names_of_task(task) == QUERY_NAMES
    assert names_of_task("vlep").ids == ("example_id",)
    assert names_of_task("violin").ids == ("desc_id", "example_id")
    assert as_name(10001) == as_name("10001") == "10001" and as_name("été 1") == "été 1"
    assert find_name({"a": None}, "a", "b") is None
    assert get_name({"a": None, "b": 0}, "a", "b") == "0"
    with pytest.raises(RecordError, match="a or b must be"):
        get_name({"a": None}, "a", "b")
    with pytest.raises(UserError, match=r"list\.json: a name or id must be .*, not 1\.5"):
        text_names(["a", 1.5], "list.json")
    with pytest.raises(UserError, match=r"list\.json must list names, .*, not 7"):
        text_names(7, "list.json")


# --- video files' endings -------------------------------------------------------------------------


def test_a_video_files_ending_is_dropped_where_the_features_lack_it():
    known = {"a", "b.mp4", "c.1", "d.e"}
    names = {"a.mov": "a", "a.MP4": "a", "b.mp4": "b.mp4", "c.1": "c.1", "d.e.avi": "d.e"}
    names |= {"x.mov": "x.mov", "a.txt": "a.txt", ".mov": ".mov", "b": "b"}
    assert {name: feature_name(name, known) for name in names} == names


@pytest.mark.golden
def test_queries_that_name_files(expected, world, tmp_path):
    lines = annotation(world, "tvr_val")
    for place, line in enumerate(lines):
        line["vid_name"] += (".mov", ".mp4", "")[place % 3]
    run = recorded_run(expected, world, "exp_tvr_raw", tmp_path)
    metrics = search_recorded(world, run, prepare_lines(world, tmp_path, "tvr", lines))
    assert [metrics[f"SVMR/0.5-r{k}"] for k in (1, 5, 10, 100)] == [5, 30, 35, 85]
    videos = query_videos(TextDb(tmp_path / "lines.db"), FeatureDb(world / "video_db/tv").id2nframe)
    assert set(videos.values()) <= FeatureDb(world / "video_db" / "tv").id2nframe.keys()


# --- the other tasks and scripts ------------------------------------------------------------------


@pytest.mark.golden
@pytest.mark.parametrize("original", [False, True])
def test_questions_statements_and_moments(numbered, tmp_path, original):
    source = numbered.source()
    for name, dataset in (
        ("tvqa_val", QuestionDataset),
        ("violin_val", StatementDataset),
        ("tvr_val", MomentDataset),
    ):
        db = numbered.folder / f"{name}.db"
        db = TextDb(as_the_original_wrote_it(db, tmp_path / name) if original else db)
        data = dataset(db, source)
        theirs = annotation(numbered.world, name)
        for number, line in enumerate(theirs[:4]):
            item = data[number]
            assert item.ids == [str(line.get("qid", line.get("desc_id")))]
            assert item.video.vid == str(numbered.number[line["vid_name"]])
    assert all(type(id_) is str for id_ in db.side("id2len.json"))


@pytest.mark.golden
def test_captions_and_clips(numbered, world, tmp_path):
    source = numbered.source()
    data = CaptionDataset(caption_texts(numbered.folder / "tvc_val.db"), source)
    assert set(data.vids) <= set(map(str, numbered.number.values()))
    clip = TextDb(numbered.folder / "tvc_val.db" / "clip.db")
    theirs = TextDb(world / "txt_db" / "tvc_val.db" / "clip.db")
    for id_ in theirs.keys():  # noqa: SIM118 (no mapping)
        assert clip[id_]["sub_indices"] == theirs[id_]["sub_indices"]
    target = TargetClips(numbered.folder / "tvc_val.jsonl", source)
    for item in map(target.__getitem__, range(len(target))):
        assert {str(target.lines[place]["vid_name"]) for place in item.indices} == {item.video.vid}
    assert isinstance(target.lines[0]["vid_name"], int)  # handed in as it was given


@pytest.mark.golden
def test_long_videos_are_cut(numbered, tmp_path):
    words = ["--annotation", numbered.folder / "tv_subtitles.jsonl", "--output", tmp_path / "clips"]
    words += ["--vid2nframe", numbered.folder / "video" / "id2nframe.json"]
    words += ["--frame_length", 1.5, "--clip_interval", 15]
    cut_clips.main([str(word) for word in words])
    names = {line["vid_name"].partition(".")[0] for _, line in read_jsonl(tmp_path / "clips")}
    assert names == set(map(str, numbered.number.values()))


@pytest.mark.golden
def test_lists_of_numbers(numbered, tmp_path):
    folder = numbered.folder
    drops = {"videos": [10001], "records": {"violin_val.db": [], "tvr_val.db": [90415]}}
    write_json(tmp_path / "bad.json", drops)
    write_json(tmp_path / "list.json", [10001, "10002", 10003])
    drops = BrokenRecords.load(tmp_path / "bad.json")
    for name in ("tvr_val.db", "violin_val.db", "sub.db", "tvc_val.db", "tvc_val.jsonl"):
        drop_from(folder / name, tmp_path / name, drops)
    drop_from(tmp_path / "list.json", tmp_path / "left.json", drops)
    assert read_split(str(tmp_path / "left.json")) == ["10002", "10003"]
    assert read_split(str(tmp_path / "list.json")) == ["10001", "10002", "10003"]
    left = TextDb(tmp_path / "tvr_val.db")
    lines = [line for _, line in read_jsonl(tmp_path / "tvr_val.db" / "query_data.jsonl")]
    assert [str(line["desc_id"]) for line in lines] == list(left.side("id2len.json"))
    assert "90415" not in left and "90416" in left
    assert "10001" not in TextDb(tmp_path / "sub.db")
    for name in ("tvr_val.db", "violin_val.db"):
        assert "10001" not in TextDb(tmp_path / name).side("query2video.json").values()
    assert "10001" not in TextDb(tmp_path / "tvc_val.db" / "cap.db").side("vid2caps.json")
    assert all(line["vid_name"] != 10001 for _, line in read_jsonl(tmp_path / "tvc_val.jsonl"))


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["list", "database", "original"])
def test_videos_of_other_sets_are_kept_out_of_pre_training(numbered, tmp_path, kind):
    db = numbered.folder / "tvr_val.db"
    excluded = sorted(set(map(int, TextDb(db).side("query2video.json").values())))
    if kind == "list":
        write_json(tmp_path / "bad.json", excluded)
    elif kind == "original":
        as_the_original_wrote_it(db, tmp_path / "q.db")
    path = {"list": tmp_path / "bad.json", "database": db, "original": tmp_path / "q.db"}[kind]
    words = ["--name", "tv", "--output", tmp_path, "--sub_txt_db", numbered.folder / "sub.db"]
    words += ["--vfeat_db", numbered.folder / "video", "--exclude", path, "--val_share", 0.2]
    make_pretrain_splits.main([str(word) for word in words])
    listed = {*read_json(tmp_path / "tv_train.json"), *read_json(tmp_path / "tv_val.json")}
    assert listed == set(map(str, numbered.number.values())) - set(map(str, excluded))
