"""The made-up corpus: the same bytes every time, the published formats, and something to learn."""

import csv
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from transformers import RobertaTokenizer

from scripts.demo_corpus.annotations import TASKS
from scripts.demo_corpus.real import content_words
from scripts.demo_corpus.words import VERBS, word_look
from scripts.make_demo_data import main
from utils.errors import UserError
from utils.files import read_json, read_jsonl

SEED = 7
OPTIONS = ["--seed", str(SEED), "--videos", "8", "--queries_per_video", "3", "--workers", "1"]
INTERVALS = {"tv": 1.5, "violin": 1.5, "didemo": 1.5, "msrvtt": 2.0, "how2": 2.0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    main(["--output", str(folder), *OPTIONS])
    return folder


def lines(path: Path) -> list[dict]:
    return [row for _, row in read_jsonl(path)]


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def durations(corpus: Path, dataset: str) -> dict[str, float]:
    name = "vid2dur_idx.json" if dataset == "tv" else f"{dataset}_vid2dur_idx.json"
    return {
        vid: entry[0]
        for videos in read_json(corpus / "ann" / name).values()
        for vid, entry in videos.items()
    }


def test_the_same_options_give_the_same_bytes_whatever_the_processes(corpus, tmp_path):
    options = ["--datasets", "tv", "how2", "--workers", "2"]
    main(["--output", str(tmp_path), *OPTIONS, *options])
    again = files_below(tmp_path)
    first = files_below(corpus)
    assert {name.split("/")[1] for name in again if name.startswith("features")} == {"tv", "how2"}
    assert [name for name, content in again.items() if first[name] != content] == []


def test_another_seed_gives_another_corpus(corpus, tmp_path):
    main(["--output", str(tmp_path), *OPTIONS, "--seed", "8", "--datasets", "msrvtt"])
    assert (tmp_path / "ann/tvr_val.jsonl").read_bytes() != (
        corpus / "ann/tvr_val.jsonl"
    ).read_bytes()


def test_a_broken_off_run_goes_on_and_keeps_what_there_is(corpus, tmp_path):
    options = ["--output", str(tmp_path), *OPTIONS, "--datasets", "msrvtt"]
    main(options)
    lost = [tmp_path / "ann/tvr_val.jsonl", next((tmp_path / "features").rglob("*.npz"))]
    content = [path.read_bytes() for path in lost]
    for path in lost:
        path.unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    main(options)
    assert [path.read_bytes() for path in lost] == content
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_folder_with_another_corpus_is_refused(corpus):
    with pytest.raises(UserError, match="another --output"):
        main(["--output", str(corpus), *OPTIONS, "--seed", "8"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--videos", "-1"], "--videos must be 1 or more"),
        (["--toker_size", "100"], "--toker_size of 262"),
        (["--tvr_annotations", "x.jsonl"], "go together"),
        (["--train_share", "1.0"], r"--train_share must lie in \[0, 1\)"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        main(["--output", str(tmp_path), *options])


def test_every_split_of_every_task_is_there(corpus):
    names = {path.name for path in (corpus / "ann").iterdir()}
    splits = {"train", "val", "test"}
    for task in ("violin", "msrvtt", "didemo"):
        assert {f"{task}_{split}.jsonl" for split in splits} <= names
    for task in ("tvr", "tvqa"):
        assert {f"{task}_{split}.jsonl" for split in ("train", "val", "test_public")} <= names
    assert {f"tvc_{name}.jsonl" for name in ("train", "val", "test_public_release")} <= names
    for split in ("train", "val"):
        assert {f"how2R_{split}_release.csv", f"how2qa_{split}.jsonl"} <= names
    for split in splits:
        assert f"yc2r_{split}.jsonl" in names
    assert {f"vatex_en_r_{split}.jsonl" for split in ("train", "val", "test_public")} <= names
    assert {f"vlep_{split}.jsonl" for split in ("train", "dev", "test")} <= names
    assert {f"yc2c_{split}_release.jsonl" for split in ("val", "test")} <= names
    assert {
        f"vatex_en_c_{split}_release.jsonl" for split in ("test_public", "test_private")
    } <= names
    assert "vlep_vid2dur_idx.json" not in names
    assert set(TASKS) == {"tvr", "tvqa", "tvc", "violin", "msrvtt", "didemo", "how2r", "how2qa"} | {
        *("yc2r", "vatex_en_r", "vlep", "yc2c", "vatex_en_c")
    }


def test_vleps_likelier_event_is_what_always_follows(corpus):
    """Its verb is the one that follows the scene's; the other event is of another scene."""
    third = {verb.third: verb for verb in VERBS}
    answers = Counter()
    for row in lines(corpus / "ann/vlep_train.jsonl"):
        likely, other = row["events"][row["answer"]], row["events"][1 - row["answer"]]
        answers[row["answer"]] += 1
        words = [event.rstrip(".").split() for event in (likely, other)]
        assert sum(a != b for a, b in zip(*words, strict=True)) >= 2
        (follows,) = (third[word] for word in words[0] if word in third)
        seen = VERBS[VERBS.index(follows) - 1]
        assert seen.base in visible(corpus, "vlep", row["vid_name"])
    assert min(answers.values()) > 10


def visible(corpus: Path, dataset: str, vid: str) -> set[str]:
    """The verbs whose look the video's frames have."""
    frames = np.load(corpus / "features" / dataset / "slowfast" / f"{vid}.npz")["features"]
    looks = {verb.base: word_look(verb.base, "slowfast", 2304, SEED) for verb in VERBS}
    return {word for word, look in looks.items() if (frames[:, look.units] > 0).mean(1).max() > 0.9}


@pytest.mark.parametrize("task", ["yc2r", "vatex_en_r"])
def test_test_splits_of_value_hide_the_videos(corpus, task):
    split = "test" if task == "yc2r" else "test_public"
    assert {*lines(corpus / f"ann/{task}_{split}.jsonl")[0]} == {"desc", "desc_id"}
    row = lines(corpus / f"ann/{task}_val.jsonl")[0]
    assert {*row} == {"vid_name", "duration", "desc", "desc_id"}
    dataset = "yc2" if task == "yc2r" else "vatex"
    splits = read_json(corpus / f"ann/{dataset}_vid2dur_idx.json")
    assert row["vid_name"] in splits["val"] and split in splits and "test_private" not in splits


@pytest.mark.parametrize(
    ("task", "key"),
    [
        *(("tvr", "desc_id"), ("tvqa", "qid"), ("tvc", "clip_id"), ("violin", "desc_id")),
        *(("didemo", "desc_id"), ("how2r", "desc_id"), ("how2qa", "qid")),
    ],
)
def test_ids_are_unique_over_the_splits(corpus, task, key):
    files = (corpus / f"ann/{task}_{split}.jsonl" for split in ("train", "val", "test"))
    rows = [row for path in files if path.exists() for row in lines(path)]
    assert rows
    assert len({row[key] for row in rows}) == len(rows)


@pytest.mark.parametrize("dataset", INTERVALS)
def test_splits_share_no_video(corpus, dataset):
    name = "vid2dur_idx.json" if dataset == "tv" else f"{dataset}_vid2dur_idx.json"
    splits = read_json(corpus / "ann" / name)
    assert min(map(len, splits.values())) >= 4
    assert len(durations(corpus, dataset)) == sum(map(len, splits.values()))


def test_video_indices_are_ids_in_no_order(corpus):
    splits = read_json(corpus / "ann/vid2dur_idx.json")
    indices = [entry[1] for videos in splits.values() for entry in videos.values()]
    assert len(set(indices)) == len(indices)
    assert indices != sorted(indices)


@pytest.mark.parametrize(
    ("task", "dataset"), [("tvr", "tv"), ("tvc", "tv"), ("didemo", "didemo"), ("how2r", "how2")]
)
def test_moments_lie_within_their_videos(corpus, task, dataset):
    length = durations(corpus, dataset)
    for split in ("train", "val"):
        for row in lines(corpus / f"ann/{task}_{split}.jsonl"):
            assert row["duration"] == length[row["vid_name"]]
            spans = row["ts"] if task == "didemo" else [row["ts"]]
            for start, end in spans:
                assert 0 <= start < end <= row["duration"]


def test_tvr_rows(corpus):
    train = lines(corpus / "ann/tvr_train.jsonl")
    assert set(train[0]) == {"vid_name", "duration", "ts", "desc", "type", "desc_id"}
    assert {row["type"] for row in train} == {"v", "t", "vt"}
    assert set(lines(corpus / "ann/tvr_test_public.jsonl")[0]) == {"desc", "desc_id"}
    every = [
        row["desc"]
        for split in ("train", "val")
        for row in lines(corpus / f"ann/tvr_{split}.jsonl")
    ]
    assert len(set(every)) > 0.97 * len(every)  # a query points at one video


def test_a_query_is_seen_and_heard_where_it_says(corpus):
    """Type t: somebody says the topic within the moment (it is the last content word)."""
    spoken = {row["vid_name"]: row["sub"] for row in lines(corpus / "ann/tv_subtitles.jsonl")}
    checked = 0
    for row in lines(corpus / "ann/tvr_train.jsonl"):
        topic = re.search(r"about the (\w+)", row["desc"])
        if row["type"] != "t" or not topic:
            continue
        start, end = row["ts"]
        heard = [
            s["text"].lower()
            for s in spoken[row["vid_name"]]
            if start < s["end"] and s["start"] < end
        ]
        assert any(topic[1] in text for text in heard), row
        checked += 1
    assert checked > 0


@pytest.mark.parametrize(("task", "answers"), [("tvqa", 5), ("how2qa", 4)])
def test_questions_have_distinct_answers_and_even_places(corpus, task, answers):
    rows = lines(corpus / f"ann/{task}_train.jsonl")
    for row in rows:
        options = [row[f"a{i}"] for i in range(answers)]
        assert len(set(options)) == answers
        assert f"a{answers}" not in row
        assert 0 <= row["answer_idx"] < answers
    assert len(Counter(row["answer_idx"] for row in rows)) == answers
    if task == "tvqa":
        assert "answer_idx" not in lines(corpus / "ann/tvqa_test_public.jsonl")[0]


def test_violin_comes_in_pairs_that_differ_in_a_word(corpus):
    pairs = defaultdict(dict)
    for row in lines(corpus / "ann/violin_train.jsonl"):
        name, number, label = row["desc_id"].rsplit("-", 2)
        assert name == row["vid_name"]
        assert int(label) == row["label"]
        pairs[name, number][row["label"]] = re.findall(r"\w+", row["desc"])
    for pair in pairs.values():
        assert len(pair[0]) == len(pair[1])
        assert sum(a != b for a, b in zip(pair[0], pair[1], strict=True)) == 1


def test_tvc_captions(corpus):
    for split, count in (("train", 2), ("val", 4)):
        for row in lines(corpus / f"ann/tvc_{split}.jsonl"):
            texts = [caption["desc"] for caption in row["descs"]]
            assert len(set(texts)) == len(texts) == count
    assert lines(corpus / "ann/tvc_val_release.jsonl") == lines(corpus / "ann/tvc_val.jsonl")
    assert "descs" not in lines(corpus / "ann/tvc_test_public_release.jsonl")[0]


def test_msrvtt_rows(corpus):
    assert set(lines(corpus / "ann/msrvtt_train.jsonl")[0]) == {"clip_name", "sen_id", "caption"}
    test = lines(corpus / "ann/msrvtt_test.jsonl")
    assert set(test[0]) == {"clip_name", "retrieval_key", "caption"}
    assert len({row["clip_name"] for row in test}) == len(test)


def test_didemo_annotators(corpus):
    for row in lines(corpus / "ann/didemo_train.jsonl"):
        assert len(row["ts"]) >= 4
        assert all(second % 5 == 0 for span in row["ts"] for second in span)
        assert Counter(map(tuple, row["ts"])).most_common(1)[0][1] >= 3


def test_how2_csv_tells_the_same_as_the_json_lines(corpus):
    with (corpus / "ann/how2R_train_release.csv").open(newline="") as file:
        published = list(csv.reader(file))
    rows = lines(corpus / "ann/how2r_train.jsonl")
    assert len(published) == len(rows)
    for (video, clip, moment, text), row in zip(published, rows, strict=True):
        start, end = map(float, clip.strip("[]").split(":"))
        assert end - start == 60
        assert row["vid_name"] == f"{video}.{int(start // 60)}"
        span = [float(second) - start for second in moment.strip("[]").split(":")]
        assert span == pytest.approx(row["ts"])
        assert text == row["desc"]
    with (corpus / "ann/how2QA_train_release.csv").open(newline="") as file:
        for record, row in zip(
            csv.reader(file), lines(corpus / "ann/how2qa_train.jsonl"), strict=True
        ):
            assert record[-2:] == [row["q"], row[f"a{row['answer_idx']}"]]
            assert set(record[2:5]) == {row[f"a{i}"] for i in range(4)} - {record[-1]}


@pytest.mark.parametrize("dataset", INTERVALS)
def test_subtitles_are_sorted_and_cover_the_data_set(corpus, dataset):
    rows = lines(corpus / f"ann/{dataset}_subtitles.jsonl")
    length = durations(corpus, dataset)
    assert {row["vid_name"] for row in rows} == set(length)
    for row in rows:
        starts = [line["start"] for line in row["sub"]]
        assert starts == sorted(starts)
        for line in row["sub"]:
            assert line["text"].startswith(" ")
            assert 0 <= line["start"] < line["end"] <= length[row["vid_name"]]


def test_subtitles_are_as_rough_as_in_the_wild(corpus):
    rows = [row for path in (corpus / "ann").glob("*_subtitles.jsonl") for row in lines(path)]
    texts = [line["text"] for row in rows for line in row["sub"]]
    assert any(not row["sub"] for row in rows)
    assert any(text.isupper() for text in texts)
    assert any("&" in text and ";" in text for text in texts)


def test_long_videos_are_whole_and_in_shards(corpus):
    """What HowTo100M looks like: minutes long, subtitles of the whole video, features in shards."""
    frames = read_json(corpus / "ann/ht_vid2nframe.json")
    assert all(2 * count > 60 for count in frames.values())
    subtitles = {row["vid_name"]: row["sub"] for row in lines(corpus / "ann/ht_subtitles.jsonl")}
    assert subtitles.keys() == frames.keys()
    assert max(line["end"] for sub in subtitles.values() for line in sub) > 60
    found = []
    for shard in (0, 1):
        files = (corpus / f"features/ht_{shard}/resnet_features").rglob("*.npz")
        names = {path.stem for path in files}
        assert names and all(
            len(np.load(path)["features"]) == frames[path.stem]
            for path in (corpus / f"features/ht_{shard}/resnet_features").rglob("*.npz")
        )
        found.append(names)
    assert not found[0] & found[1]
    assert found[0] | found[1] == frames.keys()


@pytest.mark.parametrize("dataset", [*INTERVALS, "yc2", "vatex", "vlep"])
def test_feature_files_are_as_long_as_the_tables_say(corpus, dataset):
    expected = defaultdict(int)
    for vid, frames in read_json(corpus / f"ann/{dataset}_vid2nframe.json").items():
        expected[vid.rsplit(".", 1)[0] if dataset == "how2" else vid] += frames
    found = {}
    for extractor, width in (("resnet", 2048), ("slowfast", 2304)):
        folder = extractor if dataset not in INTERVALS else f"{extractor}_features"
        for path in (corpus / "features" / dataset / folder).rglob("*.npz"):
            with np.load(path) as arrays:
                assert arrays.files == ["features"]
                features = arrays["features"]
            assert features.dtype == np.float32
            assert features.shape[1] == width
            found[path.stem] = min(found.get(path.stem, 1000), len(features))
    assert found == dict(expected)


def test_frames_of_a_moment_show_the_words_of_its_query(corpus):
    """A query's words, added up, are nearest to the frames of its own video, and of its moment."""
    frames = {}
    for path in (corpus / "features/tv/resnet_features").rglob("*.npz"):
        with np.load(path) as arrays:
            frames[path.stem] = arrays["features"]
    names = sorted(frames)
    right = inside = total = 0
    for row in lines(corpus / "ann/tvr_train.jsonl"):
        if row["type"] != "v":
            continue
        direction = np.zeros(2048)
        for word in re.findall(r"\w+", row["desc"].lower()):
            if word not in ("in", "is", "and", "the"):
                look = word_look(word, "resnet", 2048, SEED)
                direction[look.units] += look.strengths
        scores = {vid: frames[vid] @ direction for vid in names}
        right += max(names, key=lambda vid: scores[vid].max()) == row["vid_name"]
        second = (int(scores[row["vid_name"]].argmax()) + 0.5) * 1.5
        inside += row["ts"][0] - 1.5 <= second <= row["ts"][1] + 1.5
        total += 1
    assert total >= 10
    assert right / total > 0.9  # chance: 1 in 16
    assert inside / total > 0.9


def test_the_tokenizer_loads_as_roberta(corpus):
    tokenizer = RobertaTokenizer.from_pretrained(corpus / "toker")
    assert [tokenizer.bos_token_id, tokenizer.pad_token_id] == [0, 1]
    assert [tokenizer.eos_token_id, tokenizer.unk_token_id] == [2, 3]
    assert tokenizer.mask_token_id == len(tokenizer) - 1
    dot, end = tokenizer.convert_tokens_to_ids([".", "<|endoftext|>"])
    assert 3 < dot < end == len(tokenizer) - 2
    text = " Ada, isn't that the wooden ladder? “Ünusual” words…"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_the_tokenizer_size_is_kept(corpus):
    vocabulary = json.loads((corpus / "toker/vocab.json").read_text(encoding="utf-8"))
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(vocabulary) <= 1000


def test_pretraining_splits_name_videos_with_features(corpus):
    every = set(durations(corpus, "tv"))
    train, val = (
        set(read_json(corpus / f"ann/tv_pretrain_{split}.json")) for split in ("train", "val")
    )
    assert train and val
    assert train | val <= every
    assert not train & val


def write_real_queries(folder: Path) -> list[str]:
    rows = [
        {"vid_name": f"show_{n}", "ts": [3.0, 9.0], "desc": "Monica's cat eats a Purple cake.",
         "type": kind, "desc_id": n}
        for n, kind in enumerate(["v", "t", "vt", "v"])
    ]  # fmt: skip
    queries, lengths = folder / "queries.jsonl", folder / "durations.json"
    queries.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lengths.write_text(json.dumps({"val": {f"show_{n}": [31.0, 70 - n] for n in range(4)}}))
    return ["--tvr_annotations", str(queries), "--video2dur", str(lengths)]


def test_content_words():
    assert content_words("Monica's cat is on the cat's 'purple' mat.") == (
        *("monica", "cat", "purple", "mat"),
    )


def test_real_queries_get_videos_and_subtitles(tmp_path):
    real = write_real_queries(tmp_path)
    output = tmp_path / "out"
    main(["--output", str(output), "--seed", str(SEED), "--half", "--workers", "1", *real])
    assert read_json(output / "ann/vid2dur_idx.json")["val"]["show_2"] == [31.0, 68]
    assert read_json(output / "ann/tv_vid2nframe.json")["show_0"] == 21
    with np.load(output / "features/tv/resnet_features/tv/show_0.npz") as arrays:
        features = arrays["features"]
    assert features.dtype == np.float16
    look = word_look("purple", "resnet", 2048, SEED)
    seen = features[:, look.units].astype(np.float32).mean(axis=1)
    assert seen[2:6].min() > 3 * max(seen[:2].max(), seen[6:].max())  # 3 s to 9 s
    spoken = {row["vid_name"]: row["sub"] for row in lines(output / "ann/tv_subtitles.jsonl")}
    inside = {
        vid: " ".join(s["text"] for s in subtitles if s["start"] < 9.0 and s["end"] > 3.0)
        for vid, subtitles in spoken.items()
    }
    words = content_words("Monica cat eats purple cake")
    assert any(word in inside["show_1"] for word in words)  # type t is heard
    assert not any(word in inside["show_0"] for word in words)  # type v is not


def test_real_queries_are_split_by_video(tmp_path):
    real = write_real_queries(tmp_path)
    output = tmp_path / "out"
    main(["--output", str(output), "--train_share", "0.5", "--workers", "1", *real])
    splits = read_json(output / "ann/vid2dur_idx.json")
    assert {split: len(videos) for split, videos in splits.items()} == {"train": 2, "val": 2}
    for split, videos in splits.items():
        assert {row["vid_name"] for row in lines(output / f"ann/tvr_{split}.jsonl")} == set(videos)


def test_a_real_query_without_a_moment_is_refused(tmp_path):
    real = write_real_queries(tmp_path)
    Path(real[1]).write_text('{"desc": "x", "desc_id": 1}\n')
    with pytest.raises(UserError, match=r"queries.jsonl:1: it has no vid_name, ts or desc"):
        main(["--output", str(tmp_path / "out"), *real])


def test_a_real_video_without_a_duration_is_named(tmp_path):
    real = write_real_queries(tmp_path)
    Path(real[3]).write_text('{"val": {"show_0": [31.0, 1]}}')
    with pytest.raises(UserError, match="lacks 3 videos"):
        main(["--output", str(tmp_path / "out"), *real])
