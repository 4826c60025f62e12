"""One tokenizer from the databases over the run to the search, or a word about it."""

import logging
import shutil
from pathlib import Path

import pytest
from transformers import RobertaTokenizer

import eval_vcmr
import inf_tvc
import train_vcmr
from config.config import VcmrOptions
from data.check.databases import open_databases
from data.check.tokens import quick_findings
from data.stores.lmdb_io import FeatureDb, TextDb
from data.tokenize import FINGERPRINT, fingerprint, load_tokenizer, other_tokenizer, tokenizer_meta
from data.vocabulary import Vocabulary
from scripts import (
    export_model,
    prepare_data,
    prepro_query,
    prepro_sub,
    prepro_tvc,
    search_videos,
)
from tests.support.recorded import recorded_run
from tests.support.recorded_answers import TVQA
from tests.support.tvr_runs import make_run
from utils.errors import UserError
from utils.files import read_json, read_jsonl, write_json, write_jsonl

pytestmark = pytest.mark.golden


@pytest.fixture
def toker(world) -> Path:
    return world / "toker"


@pytest.fixture
def other(toker, tmp_path) -> Path:
    """A tokenizer with the same special tokens in which two words have changed places."""
    folder = tmp_path / "other"
    shutil.copytree(toker, folder)
    vocabulary = read_json(folder / "vocab.json")
    first, second = [word for word in vocabulary if word.isalpha()][-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    write_json(folder / "vocab.json", vocabulary)
    return folder


def meta_of(folder: Path) -> dict:
    return tokenizer_meta(load_tokenizer(str(folder)))


def made_with(db: str, tokenizer: Path, folder: Path) -> str:
    """A copy of a database that says to be made with a tokenizer."""
    copy = folder / Path(db).name
    shutil.copytree(db, copy)
    meta = read_json(copy / "meta.json") | meta_of(tokenizer) | {"toker": str(tokenizer)}
    write_json(copy / "meta.json", meta)
    return str(copy)


# --- the fingerprint ----------------------------------------------------------------------------


def test_it_is_that_of_tokens_and_merges_in_whatever_files(toker, other, tmp_path):
    RobertaTokenizer.from_pretrained(toker).save_pretrained(tmp_path / "one_file")
    assert not (tmp_path / "one_file" / "merges.txt").exists()
    own = meta_of(toker)
    assert meta_of(tmp_path / "one_file") == own
    differing = {name for name, value in meta_of(other).items() if value != own[name]}
    assert differing == {FINGERPRINT}
    vocabulary = {"a": 0, "b": 1, "ab": 2}
    assert fingerprint(vocabulary, ["a b"]) == fingerprint(vocabulary, [["a", "b"]])
    assert fingerprint(vocabulary, ["a b"]) != fingerprint(vocabulary, ["b a"])


def test_only_what_both_know_can_differ():
    assert other_tokenizer({"CLS": 0, FINGERPRINT: "x"}, {"CLS": 0, "SEP": 2}) is None
    assert other_tokenizer({"CLS": 0, FINGERPRINT: "x"}, {FINGERPRINT: "y"}).endswith("x, there y")
    assert other_tokenizer({"CLS": 0}, {"CLS": 1}) == "CLS is 0, there 1"


def test_preprocessing_records_it(world, toker, tmp_path):
    annotation = str(world / "ann" / "tvr_val.jsonl")
    output = tmp_path / "made.db"
    words = ["--annotation", annotation, "--output", str(output), "--task", "tvr"]
    prepro_query.main([*words, "--toker", str(toker), "--workers", "1"])
    assert read_json(output / "meta.json").items() >= meta_of(toker).items()


# --- HERO_TOKER ---------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [prepro_query, prepro_sub, prepro_tvc, prepare_data])
def test_preparation_honours_the_environment(script, monkeypatch, capsys):
    monkeypatch.setenv("HERO_TOKER", "my/toker")
    seen = {}
    monkeypatch.setattr(script.argparse.ArgumentParser, "parse_args", keep_defaults(seen))
    with pytest.raises(StopIteration):
        script.main([])
    assert seen["toker"] == "my/toker"


def keep_defaults(seen):
    def parse(parser, *_):
        seen.update({action.dest: action.default for action in parser._actions})
        raise StopIteration

    return parse


def test_decoding_and_search_honour_the_environment(world, toker, other, tmp_path, monkeypatch):
    db = TextDb(made_with(world / "txt_db" / "tv_subtitles.db", toker, tmp_path))
    assert Vocabulary.of(db).tokenizer.name_or_path == str(toker)
    copied = tmp_path / "copy"
    shutil.copytree(toker, copied)
    monkeypatch.setenv("HERO_TOKER", str(copied))
    assert Vocabulary.of(db).tokenizer.name_or_path == str(copied)
    assert Vocabulary.of(db, str(toker)).tokenizer.name_or_path == str(toker)
    monkeypatch.setenv("HERO_TOKER", str(other))
    with pytest.raises(UserError, match=r"is not the one that made .*: its tokenizer_sha256 is"):
        Vocabulary.of(db)


# --- runs ---------------------------------------------------------------------------------------


def test_a_run_keeps_it_and_evaluation_warns(tvr_options, toker, other, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "hero")
    (tmp_path / "own").mkdir()
    (tmp_path / "their").mkdir()
    train = made_with(tvr_options["train_query_txt_db"], toker, tmp_path)
    changes = {"train_query_txt_db": train, "num_train_steps": 1, "n_workers": 0}
    write_json(tmp_path / "options.json", tvr_options | changes | {"full_eval_tasks": ["VR"]})
    train_vcmr.main(["--config", str(tmp_path / "options.json")])
    run = tmp_path / "run"
    kept = read_json(run / "log" / "tokenizer_info.json")
    assert kept.items() >= meta_of(toker).items() and kept["toker"] == str(toker)

    words = ["--output_dir", str(run), "--checkpoint", "1", "--n_workers", "0"]
    for tokenizer, folder, warned in ((toker, "own", False), (other, "their", True)):
        caplog.clear()
        queries = made_with(tvr_options["val_query_txt_db"], tokenizer, tmp_path / folder)
        eval_vcmr.main([*words, "--query_txt_db", queries])
        lines = [text for text in caplog.messages if "another tokenizer than the run's" in text]
        assert len(lines) == warned
        assert not warned or lines[0].startswith(f"{queries} was made with another tokenizer")


def test_answers_and_captions_warn_too(expected, world, tmp_path, caplog):
    answers, captions = (
        TVQA.run_folder(expected, tmp_path),
        recorded_run(expected, "exp_tvc", tmp_path, "head_tvc.pt"),
    )
    for run in (answers, captions):
        write_json(run / "log" / "tokenizer_info.json", {"SEP": 77})
    TVQA.evaluate_run(answers, world)
    assert "tv_subtitles.db was made with another tokenizer than the run's: its SEP" in caplog.text
    caplog.clear()
    clip = next(read_jsonl(world / "ann" / "tvc_val.jsonl"))[1] | {"descs": None}
    write_jsonl(tmp_path / "clip.jsonl", [clip])
    words = ["--model_dir", str(captions), "--checkpoint", "1", "--n_workers", "0", "--no_fp16"]
    words += ["--sub_txt_db", str(world / "txt_db" / "tv_subtitles.db"), "--max_gen_step", "2"]
    words += ["--vfeat_db", str(world / "video_db" / "tv")]
    words += [
        "--target_clip",
        str(tmp_path / "clip.jsonl"),
        "--output",
        str(tmp_path / "out.jsonl"),
    ]
    inf_tvc.main(words)
    assert "tv_subtitles.db was made with another tokenizer than the run's: its SEP" in caplog.text


def test_search_and_export_refuse_another(tvr_options, toker, other, tmp_path):
    run = make_run(tmp_path / "run", tvr_options, FeatureDb(tvr_options["vfeat_db"]).width)
    write_json(run / "log" / "tokenizer_info.json", meta_of(other))
    words = ["--run_dir", str(run), "--checkpoint", "1", "--n_workers", "0", "--query", "A man."]
    with pytest.raises(UserError, match=r"toker: not the run's tokenizer: its tokenizer_sha256"):
        search_videos.main(words)
    with pytest.raises(UserError, match=r"toker is not the run's tokenizer: its tokenizer_sha256"):
        export_model.main(["--run", str(run), "--checkpoint", "1", "--output", str(tmp_path / "m")])
    # Without subtitles the run itself tells which tokenizer it is.
    write_json(run / "log" / "tokenizer_info.json", {**meta_of(toker), "toker": str(toker)})
    assert search_videos.main([*words, "--task", "didemo_video_only"])


def test_the_data_check_compares_fingerprints(tvr_options, toker, other, tmp_path):
    changes = {
        "train_query_txt_db": made_with(tvr_options["train_query_txt_db"], toker, tmp_path),
        "val_query_txt_db": made_with(tvr_options["val_query_txt_db"], other, tmp_path),
        "sub_txt_db": made_with(tvr_options["sub_txt_db"], toker, tmp_path),
    }
    found = list(quick_findings(open_databases(VcmrOptions(**tvr_options | changes), 1000)))
    (line,) = [finding.line() for finding in found if finding.cases]
    assert changes["val_query_txt_db"] in line and "vocabulary differ" in line
