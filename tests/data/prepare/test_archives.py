"""Archives: what they may hold, where it goes, and what must not happen."""

import gzip
import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from data.prepare.archives import ArchiveError, extract, link_or_copy, put_folder
from utils.errors import UserError

OUTSIDE = "outside the folder|no archive of data|beneath a link|neither a file nor"


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """A member of a tar file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def write_tar(path: Path, *members: tarfile.TarInfo, mode: str = "w") -> Path:
    """A tar file; regular members hold their own name."""
    with tarfile.open(path, mode) as tar:
        for info in members:
            content = info.name.encode() if info.isreg() else b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def listing(folder: Path) -> dict[str, str]:
    """{path: content} of all files."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder, deep enough for what escapes from it to be seen."""
    path = tmp_path / "outside" / "deep" / "inside"
    path.mkdir(parents=True)
    return path


ESCAPES = {
    "absolute": [member("/tmp/hero_escaped")],
    "up": [member("../escaped")],
    "up behind a folder": [member("a/../../escaped")],
    "up and back": [member("a/../b")],
    "absolute link": [member("a", tarfile.SYMTYPE, "/etc")],
    "link up": [member("a", tarfile.SYMTYPE, "..")],
    "link up from a folder": [member("a/b", tarfile.SYMTYPE, "../../c")],
    "link up behind a name": [
        member("x", tarfile.SYMTYPE, "d/.."),
        member("d", tarfile.SYMTYPE, "."),
    ],
    "through a link": [member("a", tarfile.SYMTYPE, "b"), member("a/c")],
    "link beneath a link": [
        member("l", tarfile.SYMTYPE, "."),
        member("l/x", tarfile.SYMTYPE, ".."),
    ],
    "hard link out": [member("a", tarfile.LNKTYPE, "../escaped")],
    "hard link to an absolute path": [member("a", tarfile.LNKTYPE, "/etc/passwd")],
    "device": [member("a", tarfile.CHRTYPE)],
    "block device": [member("a", tarfile.BLKTYPE)],
    "pipe": [member("a", tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("name", ESCAPES)
def test_a_member_that_would_escape_is_refused(folder, tmp_path, name):
    archive = write_tar(tmp_path / "bad.tar", member("good"), *ESCAPES[name])
    with pytest.raises(ArchiveError, match=OUTSIDE):
        extract(archive, folder)
    assert {path.name for path in tmp_path.iterdir()} == {"bad.tar", "outside"}
    assert list((tmp_path / "outside").iterdir()) == [folder.parent]
    assert list(folder.parent.iterdir()) == [folder]
    assert not Path("/tmp/hero_escaped").exists()
    assert set(listing(folder)) <= {"good"}


def test_links_within_are_kept(folder, tmp_path):
    members = [
        member("a/b/file"),
        member("a/link", tarfile.SYMTYPE, "b/file"),
        member("a/b/up", tarfile.SYMTYPE, "../b/file"),
        member("a/hard", tarfile.LNKTYPE, "a/b/file"),
    ]
    extract(write_tar(tmp_path / "links.tar", *members), folder)
    assert listing(folder) == dict.fromkeys(["a/b/file", "a/link", "a/b/up", "a/hard"], "a/b/file")


@pytest.mark.parametrize("name", ["/tmp/hero_escaped", "../escaped", "a/../../escaped"])
def test_a_zip_member_that_would_escape_is_refused(folder, tmp_path, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as packed:
        packed.writestr("good", "")
        packed.writestr(name, "")
    with pytest.raises(ArchiveError, match=OUTSIDE):
        extract(tmp_path / "bad.zip", folder)
    assert not any(folder.iterdir()) and list(folder.parent.iterdir()) == [folder]


def test_a_link_in_a_zip_is_refused(folder, tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as packed:
        packed.writestr(info, "/etc")
    with pytest.raises(ArchiveError, match="neither a file nor a folder"):
        extract(tmp_path / "bad.zip", folder)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_damaged_archives(folder, tmp_path, mode):
    archive = write_tar(tmp_path / "a.tar", *(member("x" * 90 + str(n)) for n in range(50)))
    if mode != "w":
        packed = tmp_path / "packed.tar"
        with tarfile.open(packed, mode) as tar:
            tar.add(archive, "a")
        archive = packed
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2 - 300])
    with pytest.raises(ArchiveError, match="is damaged, or no archive"):
        extract(archive, folder)


def test_a_tar_file_that_ends_between_two_members(folder, tmp_path):
    """Without its end, or with a damaged header, tarfile takes what it has read for all."""
    archive = write_tar(tmp_path / "a.tar", *(member(str(n)) for n in range(9)))
    whole = archive.read_bytes()
    for broken in (whole[: 4 * 1024], whole[:4096] + b"?" * 512 + whole[4608:]):
        archive.write_bytes(broken)
        with pytest.raises(ArchiveError, match=r"is damaged, or no archive \(.* at byte 4096"):
            extract(archive, folder)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_one_wrong_byte_anywhere_in_a_compressed_archive(folder, tmp_path, mode):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, mode) as tar:
        info = member("x")
        content = random.Random(0).randbytes(20_000)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    whole = archive.read_bytes()
    for place in (300, len(whole) // 2, len(whole) - 300, len(whole) - 7):
        broken = bytearray(whole)
        broken[place] ^= 0x55
        archive.write_bytes(broken)
        with pytest.raises(ArchiveError, match="is damaged, or no archive"):
            extract(archive, folder)


def levels(count: int) -> str:
    return "/".join("d" * count)


HOSTILE = {
    "hard link to nothing": ([member("a", tarfile.LNKTYPE, "b")], "a file that is not before it"),
    "hard link to a folder": (
        [member("b", tarfile.DIRTYPE), member("a", tarfile.LNKTYPE, "b")],
        "a file that is not before it",
    ),
    "1,500 levels": ([member(levels(1500))], "lies 1500 levels deep"),
    "a long name": ([member("x" * 300)], "is damaged, or no archive"),
    "a file and a folder": ([member("a"), member("a/b")], "is damaged, or no archive"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_archive_of_data_has(folder, tmp_path, name):
    members, message = HOSTILE[name]
    with pytest.raises(ArchiveError, match=message) as error:
        extract(write_tar(tmp_path / "a.tar", *members), folder)
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


def claiming(path: Path, kind: bytes, size: int) -> Path:
    """A small tar.gz whose second member claims a size, and has a part of it in zeros."""
    first, info = member("first"), member("x", kind)
    info.size = size
    with gzip.open(path, "wb") as packed:
        packed.write(first.tobuf() + info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 22))
    return path


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
def test_a_bomb_is_not_unpacked(folder, tmp_path, kind):
    with pytest.raises(ArchiveError, match=r"a header of \d+ bytes|makes more than 1073741824"):
        extract(claiming(tmp_path / "a.tar", kind, 4 << 30), folder)


def test_zip_files_that_are_encrypted_unknown_or_bombs(folder, tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a", "text")
    whole = path.read_bytes()
    local, central = whole.index(b"PK\x03\x04"), whole.index(b"PK\x01\x02")
    for place, value, message in (
        (6, b"\x01\x00", "is encrypted"),
        (8, b"\x63\x00", "is packed by the unknown method 99"),
        (22, b"\xff\xff\xff\xf0", "makes more than 1073741824 bytes"),
        (14, b"\x00\x00\x00\x01", "damaged, or no archive \\(Bad CRC-32"),
    ):
        broken = bytearray(whole)
        for start in (local + place, central + place + 2):
            broken[start : start + len(value)] = value
        path.write_bytes(broken)
        with pytest.raises(ArchiveError, match=message):
            extract(path, folder)


def test_a_tar_file_that_ends_in_a_zip_file(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as checkpoint:
        checkpoint.writestr("weights", "")
    with tarfile.open(tmp_path / "run.tar", "w") as tar:
        tar.add(tmp_path / "model.pt", "model.pt")
    assert zipfile.is_zipfile(tmp_path / "run.tar")  # so Python takes it for one
    extract(tmp_path / "run.tar", folder)
    assert [path.name for path in folder.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("content", [b"", b"<html>no such blob</html>"])
def test_no_archives(folder, tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ArchiveError, match="is damaged, or no archive"):
        extract(tmp_path / "a.tar", folder)


# --------------------------------------------------------------------------------------------------
# Putting folders in place
# --------------------------------------------------------------------------------------------------


def needs_id(folder: Path) -> None:
    """What the tests want of a folder."""
    if not (folder / "id").is_file():
        raise UserError(f"{folder}/id is missing")


def put(source: Path, target: Path, replaceable: bool = False) -> None:
    put_folder(source, target, needs_id, lambda _: replaceable)


@pytest.mark.parametrize("prefix", ["", "./", "tv/", "video_db/tv/", "other/"])
@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_archive_holds_the_folder_or_its_content(tmp_path, prefix, kind):
    archive = tmp_path / f"tv.{kind}"
    names = [f"{prefix}id", f"{prefix}sub/file"]
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for name in names:
                packed.writestr(name, name)
    else:
        junk = [] if prefix in ("", "./") else [member(f"._{prefix}")]
        mode = "w:gz" if kind == "tar.gz" else "w"
        write_tar(archive, *map(member, names), *junk, mode=mode)
    put(archive, tmp_path / "here" / "tv")
    assert listing(tmp_path / "here") == {"tv/id": names[0], "tv/sub/file": names[1]}


def test_a_folder_instead_of_an_archive(tmp_path):
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    for name in ("id", "deep/data.mdb", "deep/log"):
        (source / name).write_text(name)
    put(source, tmp_path / "here" / "tv")
    made = tmp_path / "here" / "tv"
    assert listing(made) == listing(source)
    # Records are shared; what a run appends to is not.
    assert (made / "deep" / "data.mdb").samefile(source / "deep" / "data.mdb")
    assert not (made / "deep" / "log").samefile(source / "deep" / "log")


def test_what_is_not_as_it_should_be_is_not_put_in_place(tmp_path):
    archive = write_tar(tmp_path / "a.tar", member("tv/other"), member("tv/more"))
    with pytest.raises(
        ArchiveError, match=r"a\.tar does not hold what it should: tv/id is missing"
    ):
        put(archive, tmp_path / "here" / "tv")
    assert not list((tmp_path / "here").iterdir())


def test_what_is_there_is_replaced_only_if_it_may_be(tmp_path):
    archive = write_tar(tmp_path / "a.tar", member("id"))
    target = tmp_path / "here" / "tv"
    put(archive, target)
    (target / "mine").write_text("")
    with pytest.raises(UserError, match="exists and is no database"):
        put(archive, target)
    assert (target / "mine").exists()
    put(archive, target, replaceable=True)
    assert listing(target) == {"id": "id"}


def test_links_where_links_can_be(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("x")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")

    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr("os.link", refuse)
    link_or_copy(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_text() == "x" and not (tmp_path / "c").samefile(tmp_path / "a")
