"""Published annotations → JSON lines."""

import json
from collections import Counter
from pathlib import Path

import pytest

from scripts import convert_annotations
from utils.errors import UserError


def convert(task: str, source: Path, *more: str) -> list[dict]:
    """Run the script on ``source`` and parse what it writes."""
    output = source.with_name("out.jsonl")
    arguments = ["--task", task, "--annotation", str(source), "--output", str(output), *more]
    convert_annotations.main(arguments)
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_how2r_becomes_relative_to_the_clip(tmp_path):
    source = tmp_path / "how2r.csv"
    source.write_text(
        "abc-1_x,[180:240],[180.0:187.07],A woman sews\n"
        'abc-1_x,[0:60],[17.1:38.11],"In the garage, a ""maker"" talks."\n'
        "\n"
        "def,[60:120],[102.37:120.09],Onions\n"
    )
    assert convert("how2r", source) == [
        {
            "vid_name": "abc-1_x.3",
            "duration": 60.0,
            "ts": [0.0, 7.07],
            "desc": "A woman sews",
            "desc_id": 0,
        },
        {
            "vid_name": "abc-1_x.0",
            "duration": 60.0,
            "ts": [17.1, 38.11],
            "desc": 'In the garage, a "maker" talks.',
            "desc_id": 1,
        },
        {
            "vid_name": "def.1",
            "duration": 60.0,
            "ts": [42.37, 60.09],
            "desc": "Onions",
            "desc_id": 2,
        },
    ]


def how2qa(tmp_path: Path, rows: int) -> Path:
    """A How2QA file."""
    source = tmp_path / "how2qa.csv"
    source.write_text(
        "".join(f"v,[134.15:181.52],w{i},x{i},y{i},q{i}?,r{i}\n" for i in range(rows))
    )
    return source


def test_how2qa_places_the_right_answer_evenly_and_the_same_again(tmp_path):
    source = how2qa(tmp_path, 402)
    questions = convert("how2qa", source)
    for i, question in enumerate(questions):
        place = question["answer_idx"]
        answers = [question[f"a{k}"] for k in range(4)]
        assert answers[place] == f"r{i}"
        assert answers[:place] + answers[place + 1 :] == [f"w{i}", f"x{i}", f"y{i}"]
        assert question["q"] == f"q{i}?" and question["qid"] == i
        # 134.15 s lies in the clip from 120 s on.
        assert question["vid_name"] == "v.2" and question["ts"] == "14.15-61.52"
    places = [question["answer_idx"] for question in questions]
    assert sorted(Counter(places).values()) == [100, 100, 101, 101]
    assert places != sorted(places) and places[:4] != [0, 1, 2, 3]
    assert convert("how2qa", source) == questions
    assert [q["answer_idx"] for q in convert("how2qa", source, "--seed", "1")] != places


def test_didemo_segments_become_seconds(tmp_path):
    source = tmp_path / "didemo.json"
    source.write_text(
        json.dumps(
            [
                {
                    "annotation_id": 31,
                    "description": "the cat jumps",
                    "video": "x@N0_1.mov",
                    "times": [[0, 0], [1, 2], [3, 3], [1, 2]],
                },
                {"annotation_id": 32, "description": "b", "video": "y", "times": [[5, 5], [0, 1]]},
            ]
        )
    )
    first, second = convert("didemo", source)
    assert first == {
        "vid_name": "x@N0_1.mov",
        "ts": [[0, 5], [5, 15], [15, 20], [5, 15]],
        "target": [5, 15],
        "desc": "the cat jumps",
        "desc_id": 31,
    }
    assert second["target"] == [25, 30]  # the first of equals


@pytest.mark.parametrize(
    ("task", "text", "wanted", "said"),
    [
        (
            "how2r",
            "v,[60:120],[3:9],a\nv,[60:120],[70:75],b\nv,[60:120],[80:75],c\n",
            [10.0, 15.0],
            "left out 2 moment(s) that are negative or end before they start: "
            "{0}:1 [-57, -51], {0}:3 [20, 15]",
        ),
        (
            "how2qa",
            "v,[9:2],a,b,c,q,d\nv,[61:63],a,b,c,q,d\n",
            "1.0-3.0",
            "left out 1 moment(s) that are negative or end before they start: {0}:1 [9, 2]",
        ),
        (
            "didemo",
            '[{"annotation_id": 1, "description": "a", "video": "v", "times": [[-1, 0], [1, 1]]},'
            '{"annotation_id": 2, "description": "a", "video": "v", "times": [[3, 2]]}]',
            [[5, 10]],
            "left out 2 moment(s) that are negative or end before they start: "
            "record 1 [-1, 0], record 2 [3, 2]",
        ),
    ],
)
def test_impossible_moments_are_left_out_and_counted(tmp_path, capsys, task, text, wanted, said):
    (tmp_path / "odd").write_text(text)
    (record,) = convert(task, tmp_path / "odd")
    assert record["ts"] == wanted
    assert said.format(tmp_path / "odd") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("how2r", "v,[0:60],[1:2],a\nv,[0:60],[1:2]\n", r"bad:2 has 3 cells instead of 4"),
        ("how2r", "v,[0:60],1:2,a\n", r"bad:1: '1:2' is no \[start:end\]"),
        ("how2r", "v,[0:60],[2:1],a\n", r"holds no annotations \(moments that .* start: 1\)"),
        ("how2r", "v,[30:60],[2:1],a\n", r"bad:1"),
        ("how2r", "v,[30:90],[40:41],a\n", r"bad:1: clip '\[30:90\]' does not start"),
        ("how2r", 'v,[0:60],[1:2],"a\n', r"is no CSV file"),
        ("how2r", "", r"holds no annotations"),
        ("how2qa", "v,[0:nan],a,b,c,q,d\n", r"bad:1: '\[0:nan\]' is no"),
        ("didemo", "{", "expected a list|is not valid JSON"),
        ("didemo", "{}", r"expected a list, got an object"),
        ("didemo", "[]", r"holds no annotations"),
        (
            "didemo",
            '[{"annotation_id": 1, "description": "a"}]',
            r"record 1: it lacks|1: times:",
        ),
        (
            "didemo",
            '[{"annotation_id": 1, "description": "a", "video": "v", "times": []}]',
            r"record 1: it lacks|1: times:",
        ),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(tmp_path, task, text, message):
    (tmp_path / "bad").write_text(text)
    with pytest.raises(UserError, match=message):
        convert(task, tmp_path / "bad")
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv cannot be read"):
        convert("how2r", tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is no CSV file in UTF-8"):
        convert("how2qa", tmp_path / "binary.csv")
