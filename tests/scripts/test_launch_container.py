"""launch_container.sh, sourced by a real bash, with a stand-in for docker."""

import json
import os
import shlex
import shutil

import pytest

from tests.support import REPOSITORY
from tests.support.containers import NAMES, Shell, mounts


@pytest.fixture
def shell(tmp_path) -> Shell:
    return Shell(tmp_path)


def gpus(call: list[str]) -> str | None:
    return call[call.index("--gpus") + 1] if "--gpus" in call else None


def test_mounts_data_and_source(shell):
    shell.source(*NAMES)
    txt, video, finetune, pretrained = map(str, shell.folders)
    call = shell.run_call()
    assert mounts(call) == {
        "/txt": (txt, False),
        "/video": (video, False),
        "/storage": (finetune, True),
        "/pretrain": (pretrained, False),
        "/src": (str(REPOSITORY), True),
    }
    assert call[-1] == "hero:1.0"
    assert call[call.index("--workdir") + 1] == "/src"
    assert call[call.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert "--tty" not in call  # stdin is no terminal here


def test_prepro_may_write_databases(shell):
    shell.source(*shell.folders, "--prepro")
    writable = {name for name, (_, can_write) in mounts(shell.run_call()).items() if can_write}
    assert writable == {"/txt", "/video", "/storage", "/src"}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, "all"),
        ({"CUDA_VISIBLE_DEVICES": "0,3"}, '"device=0,3"'),  # docker reads it as CSV
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
    ],
)
def test_visible_gpus(shell, env, expected):
    shell.source(*shell.folders, **env)
    assert gpus(shell.run_call()) == expected


def test_builds_a_missing_image(shell):
    shell.source(*shell.folders, IMAGE_STATUS="1", HERO_IMAGE="mine:2")
    calls = [json.loads(line) for line in shell.calls.read_text().splitlines()]
    assert calls[0] == ["inspect", "--type", "image", "mine:2"]
    assert calls[1] == ["build", "--tag", "mine:2", str(REPOSITORY)]
    assert calls[2][0] == "run" and calls[2][-1] == "mine:2"


def test_dry_run_prints_what_would_run(shell):
    printed = shell.source(*shell.folders, "--dry-run", CUDA_VISIBLE_DEVICES="1").stdout
    assert not shell.calls.exists()
    shell.source(*shell.folders, CUDA_VISIBLE_DEVICES="1")
    assert shlex.split(printed.splitlines()[0]) == ["docker", *shell.run_call()]


def test_missing_folders_are_named(shell):
    result = shell.source("nowhere", *shell.folders[1:3], "not here")
    assert "no such folder: 'nowhere' 'not here'" in result.stderr
    assert "status 2" in result.stdout
    assert not shell.calls.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "four folders are needed, not 1"),
        ([*NAMES, "--prep"], "unknown option --prep"),
    ],
)
def test_wrong_arguments(shell, arguments, message):
    result = shell.source(*arguments)
    assert message in result.stderr
    assert "status 2" in result.stdout


def test_the_callers_shell_is_left_as_it_was(shell):
    # The shell lives on, gets the container's status, and none of the script's settings.
    result = shell.source(*shell.folders, RUN_STATUS="3")
    assert "status 3, flags hBc" in result.stdout


def test_docker_missing_is_said(shell):
    (shell.folder / "bin" / "docker").unlink()
    tools = shell.folder / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "id"):
        (tools / name).symlink_to(shutil.which(name))
    result = shell.source(*shell.folders, PATH=str(tools))
    assert "neither docker nor podman is installed" in result.stderr


def test_a_command_runs_instead_of_a_shell(shell):
    shell.source(*shell.folders, "--prepro", "--", "python", "train_vcmr.py", "--dry-run")
    call = shell.run_call()
    assert call[-4:] == ["hero:1.0", "python", "train_vcmr.py", "--dry-run"]


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("podman", ["--userns", "keep-id", "--workdir"]),
        ("buildah", ["--isolation", "chroot", "--workingdir"]),
    ],
)
def test_other_engines_get_the_same_mounts(shell, engine, options):
    (shell.folder / "bin" / engine).symlink_to(shell.folder / "bin" / "docker")
    shell.source(*NAMES)
    by_docker = mounts(shell.run_call())
    shell.calls.unlink()
    shell.source(*NAMES, "--", "true", HERO_CONTAINER_ENGINE=engine)
    call = shell.run_call()
    assert mounts(call) == by_docker
    assert set(options) < set(call) and call[-1] == "true"
    assert gpus(call) is None


def test_an_unknown_engine_is_refused(shell):
    result = shell.source(*NAMES, HERO_CONTAINER_ENGINE="lxc")
    assert "HERO_CONTAINER_ENGINE is docker, podman or buildah, not lxc" in result.stderr
    assert "status 2" in result.stdout and not shell.calls.exists()


def test_build_options_are_the_callers(shell):
    options = "--build-arg BASE=docker.io/debian:bookworm-slim"
    shell.source(*NAMES, IMAGE_STATUS="1", HERO_BUILD_OPTIONS=options)
    calls = [json.loads(line) for line in shell.calls.read_text().splitlines()]
    assert calls[1] == ["build", "--tag", "hero:1.0", *options.split(), str(REPOSITORY)]
