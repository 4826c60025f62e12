"""The encoding of a subtitle file: by its byte-order mark, UTF-8, given by the user, or guessed."""

import codecs
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import charset_normalizer

from utils.errors import RecordError, UserError

_MARKS = {  # UTF-32's first: UTF-16's is a prefix of it
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Letters beyond ASCII of the languages that are written in an encoding, one word per language. Of
# encodings that fit equally well, the first is taken.
_LATIN = (
    ("cp1252", "äöüß àâæçèéêëîïôœùûüÿ áéíñóúü áàâãçéêíóôõúü àèéìîòóù äåöéü æøåéòôêöüä"),
    ("cp1252", "áàâäçéèêëíïóòôöúùüñ äöšžå äõöüšž"),
    ("cp1250", "áčďéěíňóřšťúůýž áäčďéíĺľňóôŕšťúýž áéíóöőúüű ąćęłńóśźż ăâîşţ čćšžđ ëç"),
    ("cp1254", "çğıİöşüâîû"),
    ("cp1257", "ąčęėįšųūž āčēģīķļņšūžō"),
    ("cp1252", "áéíóúýþæöð"),  # last: short texts may be Turkish in cp1254
)
# Encodings of scripts without ASCII letters, and of several bytes; charset-normalizer decides.
_OTHERS = (
    *("cp1251", "cp1253", "cp1255", "cp1256", "gb18030", "big5", "cp932", "cp949", "euc_jp"),
    *("koi8_r", "cp866", "cp874", *dict(_LATIN)),
)
_ISO_2022 = re.compile(rb"\x1b\$[@B]")
_SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded text."""

    text: str  # without its byte-order mark
    encoding: str  # "utf-8" also for ASCII
    damaged: int = 0  # characters that could not be decoded, each replaced by U+FFFD


def require_encodings(names: Sequence[str]) -> None:
    """Raise UserError for the name of an encoding that Python does not know."""
    for name in names:
        try:
            "".encode(name)  # refuses codecs from text to text, or bytes to bytes
        except (LookupError, UnicodeError):
            raise UserError(f"--encoding {name} is not known; cp1252, utf-16, … are") from None


def decode_text(data: bytes, encodings: Sequence[str] = ()) -> Decoded:
    """Return the text of a file.

    Args:
        data: its bytes.
        encodings: for files without a byte-order mark that are not UTF-8: the first that decodes
            it is taken. Empty: one is guessed.

    Raises:
        RecordError: none of them decodes it, or none can be guessed.
    """
    marked = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    if (certain := marked or _wide_encoding(data)) is not None:
        return _decode(data, certain)
    if _ISO_2022.search(data):  # of seven bits, as ASCII
        with suppress(UnicodeDecodeError):
            return Decoded(data.decode("iso2022_jp_ext"), "iso-2022-jp")
    try:
        return Decoded(data.decode(), "utf-8")
    except UnicodeDecodeError:
        text = data.decode(errors="replace")
    damaged = text.count("\ufffd")
    intact = len(text) - len(text.encode("ascii", "ignore")) - damaged
    if intact > 3 * damaged:  # letters beyond ASCII; those of another encoding are rarely UTF-8
        return Decoded(text, "utf-8", damaged)
    for name in encodings or _guesses(data):
        try:
            return Decoded(data.decode(name), name)
        except UnicodeError:
            continue
    if encodings:
        raise RecordError(f"it is neither UTF-8 nor {' nor '.join(encodings)}; name its --encoding")
    raise RecordError("it is no text in any encoding that can be guessed; name its --encoding")


def _decode(data: bytes, encoding: str) -> Decoded:
    """Decode a text, replacing what is damaged."""
    name = encoding.removesuffix("-sig")
    try:
        return Decoded(data.decode(encoding), name)
    except UnicodeDecodeError:
        text = data.decode(encoding, "replace")
        return Decoded(text, name, text.count("\ufffd"))


def _wide_encoding(data: bytes) -> str | None:
    """Recognise UTF-16 and UTF-32 without a byte-order mark by the zero bytes of ASCII."""
    whole = data.rstrip(b"\0")
    zeros = [4 * whole[at::4].count(0) / max(len(whole), 1) for at in range(4)]  # shares by i % 4
    for name, low, high in (("utf-32-le", 0, (2, 3)), ("utf-32-be", 2, (0, 1))):
        if min(zeros[at] for at in high) > 0.9 > zeros[low]:
            return name
    for name, low, high in (("utf-16-le", 0, (1, 3)), ("utf-16-be", 1, (0, 2))):
        if min(zeros[at] for at in high) > 0.2 and max(zeros[low], zeros[low + 2]) < 0.02:
            return name
    return None


def _guesses(data: bytes) -> list[str]:
    """Return encodings of one or several bytes per letter that fit, the best first."""
    lines = [line for line in data.split(b"\n") if not line.isascii()]
    sample = b"\n".join(lines)[:_SAMPLE_BYTES]
    runs = re.findall(rb"[\x80-\xff]+", sample)
    if 2 * sum(len(run) == 1 for run in runs) >= sum(map(len, runs)):  # single, among ASCII letters
        ranked = sorted(_LATIN, key=lambda known: -_known_letters(sample, *known))
        return [name for name, _ in ranked]
    found = charset_normalizer.from_bytes(sample, cp_isolation=[*_OTHERS])
    return [match.encoding for match in found]


def _known_letters(sample: bytes, encoding: str, alphabets: str) -> float:
    """Return the share of the letters beyond ASCII that the best fitting language has."""
    letters = [x for x in sample.decode(encoding, "replace") if x > "\x7f" and x.isalpha()]
    known = (sum(x in own or x.lower() in own for x in letters) for own in alphabets.split())
    return max(known) / len(letters) if letters else 1.0
