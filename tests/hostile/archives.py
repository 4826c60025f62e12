"""Archives and lists of checksums that a mirror may hand out."""

import bz2
import gzip
import hashlib
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable

from tests.hostile.harness import Case, Make, Place
from tests.support.small_mirror import write_text_db

NAME = "txt_db/tvr_val.db"


def database_files(place: Place) -> dict[str, bytes]:
    """The files of a small database."""
    folder = place.folder / "made" / "tvr_val.db"
    if not folder.exists():
        write_text_db(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def tar_of(files: dict[str, bytes], *more: tarfile.TarInfo, **options: int) -> bytes:
    """A tar file of a database, with further members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in more:
            tar.addfile(info, io.BytesIO(b"\0" * info.size))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def with_members(*more: tarfile.TarInfo) -> Callable[[dict], bytes]:
    """A database and something beside it."""
    return lambda files: tar_of(files, *more)


def flipped(content: bytes, at: int) -> bytes:
    """One byte is another."""
    changed = bytearray(content)
    changed[at] ^= 0xFF
    return bytes(changed)


def checksummed(block: bytearray) -> bytes:
    """A tar header whose checksum is right."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def size_field(value: bytes) -> Callable[[dict], bytes]:
    """The first member's size says something else."""

    def make(files: dict[str, bytes]) -> bytes:
        content = tar_of(files)
        block = bytearray(content[:512])
        block[124:136] = value.ljust(12, b"\0")[:12]
        return checksummed(block) + content[512:]

    return make


def pax_size(files: dict[str, bytes]) -> bytes:
    """A pax header that gives the next member a size that is no number."""
    record = b"13 size=many\n"
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    return header.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + tar_of(files)


def zip_of(files: dict[str, bytes], **options: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def zip_with(offset: int, value: bytes) -> Callable[[dict], bytes]:
    """A field of all headers of members is another; ``offset`` counts within the central one."""

    def make(files: dict[str, bytes]) -> bytes:
        content = bytearray(zip_of(files))
        at = -1
        while (at := content.find(b"PK\x01\x02", at + 1)) >= 0:
            content[at + offset : at + offset + len(value)] = value
        at = -1
        while (at := content.find(b"PK\x03\x04", at + 1)) >= 0:
            content[at + offset - 2 : at + offset - 2 + len(value)] = value
        return bytes(content)

    return make


def damaged_member(files: dict[str, bytes]) -> bytes:
    content = zip_of(files)
    return flipped(content, content.index(files["data.mdb"][:64]) + 40)


ARCHIVES: dict[str, tuple[str, Callable[[dict], bytes]]] = {
    "empty": (".tar", lambda files: b""),
    "a page of a web site": (".tar", lambda files: b"<html>not found</html>\n" * 100),
    "cut short": (".tar", lambda files: tar_of(files)[:5000]),
    "a hard link to a missing member": (
        ".tar",
        with_members(member("link", tarfile.LNKTYPE, "missing")),
    ),
    "1,500 levels": (".tar", with_members(member("d/" * 1500 + "file"))),
    "a name of 400 characters": (".tar", with_members(member("n" * 400))),
    "a file and a folder of one name": (
        ".tar",
        with_members(member("a"), member("a/b")),
    ),
    "a file outside": (".tar", with_members(member("../outside"))),
    "an absolute name": (".tar", with_members(member("/tmp/hostile_outside"))),
    "a link outside": (".tar", with_members(member("link", tarfile.SYMTYPE, "/etc"))),
    "a file through a link": (
        ".tar",
        with_members(member("link", tarfile.SYMTYPE, "."), member("link/file")),
    ),
    "a link to itself": (".tar", with_members(member("meta.json", tarfile.SYMTYPE, "meta.json"))),
    "a device": (".tar", with_members(member("null", tarfile.CHRTYPE))),
    "a negative size": (".tar", size_field(b"\xff" * 12)),
    "a size of 8 EB": (".tar", size_field(b"\x80\0\0\0\x7f" + b"\xff" * 7)),
    "a size that is no number": (".tar", size_field(b"many")),
    "a pax size that is no number": (".tar", pax_size),
    "nothing of a database": (".tar", lambda files: tar_of({"readme": b"hello"})),
    "a database cut short": (
        ".tar",
        lambda files: tar_of(files | {"data.mdb": files["data.mdb"][:8192]}),
    ),
    "gzip cut short": (".tar.gz", lambda files: gzip.compress(tar_of(files))[:-300]),
    "gzip with a wrong checksum": (".tgz", lambda files: flipped(gzip.compress(tar_of(files)), -6)),
    "gzip with damaged data": (".tar.gz", lambda files: flipped(gzip.compress(tar_of(files)), 90)),
    "xz damaged": (".tar", lambda files: flipped(lzma.compress(tar_of(files)), 120)),
    "xz cut short": (".tar", lambda files: lzma.compress(tar_of(files))[:-40]),
    "bzip2 damaged": (".tar", lambda files: flipped(bz2.compress(tar_of(files)), 90)),
    "zip encrypted": (".zip", zip_with(8, b"\x01\0")),
    "zip of an unknown method": (".zip", zip_with(10, struct.pack("<H", 99))),
    "zip of a method that Python lacks": (".zip", zip_with(10, struct.pack("<H", 9))),
    "zip with a wrong checksum": (".zip", damaged_member),
    "zip cut short": (".zip", lambda files: zip_of(files)[:-40]),
    "zip with a member outside": (".zip", lambda files: zip_of(files | {"../outside": b"x"})),
    "zip with a name of 400 characters": (".zip", lambda files: zip_of(files | {"n" * 400: b""})),
    "zip of 2,000 levels": (".zip", lambda files: zip_of(files | {"d/" * 2000 + "f": b""})),
    "zip of the version 9.9": (".zip", zip_with(6, b"\x63\0")),
}


def download(place: Place) -> list[object]:
    """Words of a download from the folder ``mirror``."""
    mirror = place.path("mirror/txt_db")
    mirror.mkdir(exist_ok=True)
    place.environment["HERO_BLOB_URL"] = str(mirror.parent)
    return ["--dataset", "tvr", "--storage", place.folder / "storage", "--only", NAME]


def offered(ending: str, make: Callable[[dict], bytes]) -> Make:
    """A download of an archive, where an older database is there already."""

    def arrange(place: Place) -> list[object]:
        arguments = download(place)
        place.write(f"mirror/{NAME}{ending}", make(database_files(place)))
        return arguments

    return arrange


CASES = [
    Case(
        "archive",
        mutation,
        "scripts.prepare_data",
        offered(ending, make),
        ("steps failed: txt_db/tvr_val.db",),
        told=(f"tvr_val.db{ending}",),
    )
    for mutation, (ending, make) in ARCHIVES.items()
]


def listed(text: bytes) -> Make:
    """A sound archive, and a list of checksums beside it."""

    def arrange(place: Place) -> list[object]:
        arguments = download(place)
        content = tar_of(database_files(place))
        place.write(f"mirror/{NAME}.tar", content)
        digest = hashlib.sha256(content).hexdigest().encode()
        place.write("mirror/SHA256SUMS", text.replace(b"DIGEST", digest))
        return arguments

    return arrange


CHECKSUMS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "another digest": (b"0" * 64 + b"  txt_db/tvr_val.db.tar\n", ("tvr_val.db.tar", "SHA-256")),
    "a digest cut short": (b"DIGEST"[:5] + b"  txt_db/tvr_val.db.tar\n", ("SHA256SUMS:1",)),
    "binary": (bytes(range(256)) * 10, ("SHA256SUMS:",)),
    "a page of a web site": (b"<html>\n", ("SHA256SUMS:1",)),
    "a second line that is none": (
        b"DIGEST  txt_db/tvr_val.db.tar\nwhat?\n",
        ("SHA256SUMS:2",),
    ),
    "one line of 20 MB": (b"a" * (20 << 20), ("SHA256SUMS",)),
}
CASES += [
    Case(
        "checksums",
        mutation,
        "scripts.prepare_data",
        listed(text),
        ("steps failed: txt_db/tvr_val.db",),
        told=words,
    )
    for mutation, (text, words) in CHECKSUMS.items()
]
