"""Kill index_videos.py at random moments, while films are replaced, removed and added.

python -m tests.support.index_kills WORK --kills 100 --films 30

The finished index must tell the same as one that is made of the same films without a kill. The
extractors are small ones (tests/support/small_extractors.py); processes are forked, so that a kill
hits the work and not the import of PyTorch.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import index_videos
from search.store import Index
from tests.support.index_content import content
from tests.support.small_extractors import use_small_networks
from tests.support.videos import make_video

ODD_NAMES = ("a b", 'it\'s "quoted"', "two\nlines", "Füße/日本", "%_; -- 🎬", "folder/x.y..z")
OPTIONS = ("--random_weights", "--workers", "1", "--batch_size", "2", "--device", "cpu")
# Until a kill, from the start, or (most of the time) from when the index is locked. Without a kill
# the films take about as long as the second.
LOADING_SECONDS, LONGEST_SECONDS = 1.0, 1.5


def film_path(folder: Path, number: int) -> Path:
    """Return the path of a film; the first have unusual names."""
    name = ODD_NAMES[number] if number < len(ODD_NAMES) else f"film{number}"
    return folder / f"{name}.mp4"


def make_film(folder: Path, number: int, draw: random.Random) -> None:
    """Write a film of some seconds; most have subtitles."""
    path = make_video(film_path(folder, number), draw.uniform(1, 5))
    subtitles = path.with_suffix(".srt")
    subtitles.unlink(missing_ok=True)
    if "\n" not in path.name and draw.random() < 0.8:
        text = "\n".join(
            f"{at + 1}\n00:00:0{at},000 --> 00:00:0{at},900\nWord{draw.randrange(99)} of it.\n"
            for at in range(draw.randrange(1, 6))
        )
        subtitles.write_text(text, encoding="utf-8")


def change_films(folder: Path, films: int, draw: random.Random) -> None:
    """Replace one film, and remove another or bring it back."""
    make_film(folder, draw.randrange(films), draw)
    paths = sorted(folder.rglob("*.mp4"))
    if len(paths) == films:
        draw.choice(paths).unlink()
    else:
        for number in range(films):
            if not film_path(folder, number).exists():
                make_film(folder, number, draw)


def start(arguments: list[str]) -> int:
    """Run index_videos.py in a child of this process; its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        index_videos.main(arguments)
        code = 0
    finally:
        os._exit(code)


def wait_for_lock(lock: Path, child: int) -> None:
    """Return when a child has locked the index; AssertionError after a minute."""
    end = time.monotonic() + 60
    while not (lock.is_file() and lock.read_text(encoding="utf-8").startswith(f"process {child} ")):
        assert time.monotonic() < end
        time.sleep(0.01)


def finish(arguments: list[str]) -> None:
    """Run index_videos.py to its end."""
    _, status = os.waitpid(start(arguments), 0)
    assert status == 0, status


def kill_often(work: Path, model: list[str], kills: int, films: int, seed: int) -> dict[str, int]:
    """Index films with so many kills; AssertionError if anything differs in the end.

    Args:
        work: an empty folder.
        model: options that name the model.
        kills, films: how many.
        seed: of chance.

    Returns:
        How many processes were killed, and how many ended before they could be.
    """
    use_small_networks()
    draw = random.Random(seed)
    folder = work / "films"
    for number in range(films):
        make_film(folder, number, draw)
    arguments = ["--videos", str(folder), *model, *OPTIONS, "--index"]
    killed = ended = 0
    while killed < kills:
        child = start([*arguments, str(work / "index")])
        if draw.random() < 0.2:
            time.sleep(draw.uniform(0, LOADING_SECONDS))
        else:
            wait_for_lock(work / "index" / "index.lock", child)
            time.sleep(draw.uniform(0, LONGEST_SECONDS))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        killed += os.WIFSIGNALED(status)
        ended += os.WIFEXITED(status)
        if (work / "index" / "index.sqlite").exists():
            assert len(Index.open(work / "index").films) <= films
        if draw.random() < 0.3 or os.WIFEXITED(status):
            change_films(folder, films, draw)
    finish([*arguments, str(work / "index")])
    finish([*arguments, str(work / "whole")])
    found, expected = (content(Index.open(work / name)) for name in ("index", "whole"))
    assert found == expected, {name for name in expected if found.get(name) != expected[name]}
    assert not list((work / "index").rglob("*.tmp"))
    assert len(found) == len(list(folder.rglob("*.mp4")))
    return {"killed": killed, "ended": ended, "films": len(found)}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--films", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options, model = parser.parse_known_args()
    if options.work.exists():
        shutil.rmtree(options.work)
    print(kill_often(options.work, model, options.kills, options.films, options.seed))


if __name__ == "__main__":
    main()
