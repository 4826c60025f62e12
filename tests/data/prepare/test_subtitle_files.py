"""The text and times of subtitle files of all formats and encodings."""

import re

import pytest

from data.prepare.subtitle_files import parse_subtitles, read_subtitles
from utils.errors import RecordError, UserError


def read(content: str | bytes, *encodings: str) -> list[tuple]:
    """[(text, start, end), …], of texts without the space in front."""
    data = content if isinstance(content, bytes) else content.encode()
    found = parse_subtitles(data, *encodings)
    assert all(cue.text.startswith(" ") for cue in found.cues)
    return [(cue.text[1:], cue.start, cue.end) for cue in found.cues]


def texts(content: str | bytes, *encodings: str) -> list[str]:
    return [text for text, _, _ in read(content, *encodings)]


def notes(content: str | bytes, *encodings: str) -> str:
    data = content if isinstance(content, bytes) else content.encode()
    return "; ".join(parse_subtitles(data, *encodings).notes)


def srt(*bodies: str) -> str:
    """Numbered subtitles, one a second from 1 s."""
    blocks = (
        f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n{body}\n" for n, body in enumerate(bodies, 1)
    )
    return "\n".join(blocks)


def vtt(*blocks: str) -> str:
    return "\n\n".join(("WEBVTT", *blocks)) + "\n"


SRT = """\
1
00:00:01,000 --> 00:00:02,500 X1:10 X2:20
<i>Good morning,</i>
{\\an8}dear <font color="#fff">Ada</font>!

2
00:01:00,5 --> 01:00:00.250
{laughs} 3 < 5 &amp; a

3
00:00:00,000 --> 00:00:00,900
<b></b>  &nbsp;

4
02:03,004 --> 02:04,000
\tIt's   12
4
"""


def test_srt():
    assert read(SRT) == [
        ("Good morning, dear Ada!", 1.0, 2.5),
        ("{laughs} 3 < 5 &amp; a", 60.5, 3600.25),  # prepro_sub.py unescapes
        ("It's 12 4", 123.004, 124.0),
    ]


def test_a_number_is_text_where_it_does_not_count():
    numberless = "00:00:01,000 --> 00:00:02,000\nThe answer is\n42\n\n"
    assert texts(numberless + "00:00:02,000 --> 00:00:03,000\nnext\n") == [
        "The answer is 42",
        "next",
    ]
    assert texts(numberless) == ["The answer is 42"]
    assert texts(srt("7", "The answer is\n42", "1")) == ["7", "The answer is 42", "1"]
    # The number of the second, or the blank line before it, is missing.
    second = "00:00:02,000 --> 00:00:03,000\nnext\n"
    assert texts(srt("It is\n42") + "\n" + second) == ["It is 42", "next"]
    assert texts(srt("It is") + "2\n" + second) == ["It is", "next"]
    # All numbers are 0; blank lines after each line; the file was cut after a number.
    assert texts(srt("a", "b").replace("1\n0", "0\n0").replace("2\n0", "0\n0")) == ["a", "b"]
    assert texts(srt("a", "b").replace("\n", "\n\n")) == ["a", "b"]
    assert texts(srt("a", "b") + "\n3\n") == ["a", "b"]
    # The first number is missing.
    assert texts(srt("a", "b", "c")[2:]) == ["a", "b", "c"]


def test_blank_lines_within_a_subtitle():
    assert texts(srt("one\n\n \ntwo", "three")) == ["one two", "three"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("if a < b and c > d then x<y, y>z", "if a < b and c > d then x<y, y>z"),
        ("a <b and c> d, 1<2>0, <3, <-, <laughs>", "a <b and c> d, 1<2>0, <3, <-, <laughs>"),
        ("<i>one</i> <B>two</B ><u >three< /u>", "one twothree"),
        ("one<br>two<br/>three<BR />four\\Nfive", "one two three four five"),
        (
            '<font face="Arial" size=12 color = #fff>one</font> <span class="a">two</span>',
            "one two",
        ),
        ("<c.colorE5E5E5>one</c><00:00:01.500><c> two</c>", "one two"),
        ("<v Ada>one\n<v Bob>two</v>", "one two"),
        ("{\\an8}{\\pos(1,2)}one {two} {", "one {two} {"),
        ('printf("C:\\new\\table")', 'printf("C:\\new\\table")'),
        ("A --> B", "A --> B"),
        ("We meet 10:30 -> 11:00\n10:30 → 11:00", "We meet 10:30 -> 11:00 10:30 → 11:00"),
    ],
)
def test_what_is_a_tag_in_srt_and_what_is_text(body, text):
    assert texts(srt(body)) == [text]


@pytest.mark.parametrize(
    ("times", "span"),
    [
        ("00:00:01,5 --> 00:00:02.250000", (1.5, 2.25)),
        ("0:00:01 --> 0:00:02", (1.0, 2.0)),
        ("123:00:01,000-->123:00:02,000", (442801.0, 442802.0)),
        ("00: 00: 01, 000 -> 00: 00: 02, 000", (1.0, 2.0)),
        ("  01:01.000 --> 01:02.000 align:start position:0%", (61.0, 62.0)),
        ("-00:00:01,000 --> 00:00:02,000", (0.0, 2.0)),
    ],
)
def test_times_in_srt(times, span):
    assert read(f"1\n{times}\nHi\n") == [("Hi", *span)]


def test_text_beside_the_times_is_text():
    assert texts("1\n00:00:01,000 --> 00:00:02,000 Hi,\nyou\n") == ["Hi, you"]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be"])
@pytest.mark.parametrize("content", [srt("Äda", "x"), vtt("00:01.000 --> 00:01.900\nÄda")])
def test_line_endings_and_byte_order_marks(content, ending, encoding):
    assert texts(content.replace("\n", ending).encode(encoding))[0] == "Äda"


def test_byte_order_marks_and_zeros_within():
    assert read("\ufeff" + srt("one") + "\n\ufeff" + srt("one", "two")[35:] + "\0\0\0\0\0") == [
        ("one", 1.0, 1.9),
        ("two", 2.0, 2.9),
    ]
    assert texts(srt("one") + "\x1a") == ["one"]
    with pytest.raises(RecordError, match="zero bytes only"):
        read(b"\0" * 400)


CHARACTERS = "one\u2028two\x0bthree\x85four"


@pytest.mark.parametrize(
    "content", [srt(CHARACTERS), vtt(f"00:01.000 --> 00:02.000\n{CHARACTERS}")]
)
def test_only_line_ends_end_lines(content):
    assert texts(content) == ["one two three four"]


YOUTUBE = """\
WEBVTT
Kind: captions
Language: en

00:00:00.160 --> 00:00:02.470 align:start position:0%
\x20
good<00:00:00.480><c> evening</c><00:00:00.960><c> and</c><00:00:01.200><c> welcome</c>

00:00:02.470 --> 00:00:02.480 align:start position:0%
good evening and welcome
\x20

00:00:02.480 --> 00:00:04.710 align:start position:0%
good evening and welcome
to<00:00:02.800><c> the</c><00:00:03.040><c> garden</c>
"""


def test_automatic_captions():
    """A line of one space is no empty line: it ends nothing."""
    assert read(YOUTUBE) == [
        ("good evening and welcome", 0.16, 2.47),
        ("good evening and welcome", 2.47, 2.48),
        ("good evening and welcome to the garden", 2.48, 4.71),
    ]


VTT = """\
WEBVTT - a title
Kind: captions

STYLE
::cue { color: red }

REGION
id:bill

NOTE from 00:00:01.000 to
00:00:02.000 nothing is said

intro
00:05.000 --> 00:07.000 align:start position:0%
<v Bob>Hello<00:00:05.560><c> big</c><00:00:06.000><c.yellow> world</c>
12

00:00:01.000 --> 00:00:02,000
first
by time
"""


def test_vtt():
    assert read(VTT) == [("first by time", 1.0, 2.0), ("Hello big world 12", 5.0, 7.0)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # What ends a cue: an empty line, or times.
        ("WEBVTT\n00:01.000 --> 00:02.000\none", [("one", 1.0, 2.0)]),
        (
            "WEBVTT\nKind: captions\n00:01.000 --> 00:02.000\none\n00:02.000 --> 00:03.000\ntwo\n",
            [("one", 1.0, 2.0), ("two", 2.0, 3.0)],
        ),
        (vtt("00:01.000 --> 00:02.000\none\n\t\ntwo\n\nthree"), [("one two", 1.0, 2.0)]),
        (vtt("id\n00:01.000 --> 00:02.000\n\nid"), []),
        (vtt("NOTE\n00:01.000 --> 00:02.000\none"), [("one", 1.0, 2.0)]),
        (vtt("NOTE\nit is\n00:01.000 --> 00:02.000\none"), [("one", 1.0, 2.0)]),
        # Times.
        (vtt("123:00:01.000 --> 123:00:02.000\none"), [("one", 442801.0, 442802.0)]),
        (vtt("00:01.000-->00:02.000line:0\none"), [("one", 1.0, 2.0)]),
        (" \n\n" + vtt("00:01.000 --> 00:02.000\none"), [("one", 1.0, 2.0)]),
        # Text.
        (vtt("00:01.000 --> 00:02.000\n{\\an8}one {two}"), [("one {two}", 1.0, 2.0)]),
        (vtt("00:01.000 --> 00:02.000\na < b and c > d"), [("a d", 1.0, 2.0)]),
        (
            vtt("00:01.000 --> 00:02.000\n<v\nBob>one</v> <i.x y>two</i> <rest"),
            [("one two", 1.0, 2.0)],
        ),
        (
            vtt("00:01.000 --> 00:02.000\n&lt;i&gt; &amp; &nbsp;{x}"),
            [("&lt;i&gt; &amp; {x}", 1.0, 2.0)],
        ),
        (vtt("00:01.000 --> 00:02.000\n&lrm;&rlm;&nbsp;\u200b"), []),
        (vtt("00:01.000 --> 00:02.000\nWEBVTT is\nWEBVTT 2"), [("WEBVTT is WEBVTT 2", 1.0, 2.0)]),
    ],
)
def test_the_algorithm_of_webvtt(content, expected):
    assert read(content) == expected


def segment(mpegts: int | None, local: str, *cues: str) -> str:
    header = "" if mpegts is None else f"X-TIMESTAMP-MAP=MPEGTS:{mpegts},LOCAL:{local}\n"
    return f"WEBVTT\n{header}\n" + "\n\n".join(cues) + "\n"


ONE, TWO = "00:01.000 --> 00:02.000\none", "00:02.000 --> 00:03.000\ntwo"


@pytest.mark.parametrize(
    ("segments", "times"),
    [
        ([(900000, "00:00:00.000", ONE), (900000, "00:00:00.000", TWO)], (1.0, 2.0)),
        ([(900000, "00:00:00.000", ONE), (1350000, "00:00:00.000", TWO)], (1.0, 7.0)),
        ([(900000, "00:00:00.000", ONE), (1350000, "00:00:05.000", TWO)], (1.0, 2.0)),
        ([(2**33 - 90000, "00:00.000", ONE), (360000, "00:00.000", TWO)], (1.0, 7.0)),
        ([(900000, "00:00.000", ONE), (900000, "00:00.000", ONE, TWO)], (1.0, 2.0)),
        ([(None, "", ONE), (None, "", TWO)], (1.0, 2.0)),
    ],
)
@pytest.mark.parametrize("between", ["", "\n", "\n\n\ufeff"])
def test_joined_segments(segments, times, between):
    joined = between.join(segment(*each) for each in segments)
    first, second = times
    assert read(joined) == [("one", first, first + 1), ("two", second, second + 1)]


HEAD = "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname\nStyle: x,y\n\n"
USUAL = (
    "[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)
LINE = "Dialogue: 0,0:00:01.00,0:00:02.50,x,,0,0,0,,"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("one, two\\Nthree\\hfour\\nfive", "one, two three four five"),
        ("{\\pos(1,2)}Good\\Nbye{a note}, {\\k20}A{\\k20}da", "Good bye, Ada"),
        ("{\\p1}m 0 0 l 100 0{\\p0}text", "text"),
        ("{\\an7\\p2}m 0 0{\\p0\\b1}one{\\pbo3} two", "one two"),
        ("\\{one\\} {two", "{one} {two"),
        ("a < b <i>c</i>", "a < b <i>c</i>"),
    ],
)
def test_ass(written, text):
    assert read(HEAD + USUAL + LINE + written) == [(text, 1.0, 2.5)]
    assert texts(LINE + written) == [text]  # without any heading


def test_ass_that_says_nothing():
    drawn = "{\\p1}m 0 0 l 100 0{\\p0}"
    comment = LINE.replace("Dialogue", "Comment") + "not said"
    assert texts(f"{HEAD}{USUAL}{LINE}{drawn}\n{comment}\n{LINE}said") == ["said"]
    assert "no subtitles" in notes(HEAD + USUAL)


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ("Layer, Start, End, Style, Text", "0,0:00:01.00,0:00:02.50,x,one, two, a, b, c, d, e, f"),
        ("Marked,Start,End,Text", "Marked=0, 0:00:01.00, 0:00:02.50,one, two, a, b, c, d, e, f"),
        ("END , start, Text", "0:00:02.50,0:00:01.00,one, two, a, b, c, d, e, f"),
    ],
)
def test_the_format_line_names_the_fields(fields, values):
    content = f"{HEAD}[Events]\nFormat: {fields}\nDialogue: {values}\n"
    assert read(content) == [("one, two, a, b, c, d, e, f", 1.0, 2.5)]


def test_formats_are_told_by_content():
    assert texts("\n\n" + HEAD + USUAL + LINE + "00:01.000 --> 00:02.000") == [
        "00:01.000 --> 00:02.000"
    ]
    assert texts(srt("[Events]", "Dialogue: a, b, c", "WEBVTT", "{1}{2}")) == [
        *("[Events]", "Dialogue: a, b, c", "WEBVTT", "{1}{2}"),
    ]
    assert read("{1}{1}25\n{25}{50}{y:i}one|two\n") == [("one two", 1.0, 2.0)]
    assert read("[10][20]/one|two\n") == [("one two", 1.0, 2.0)]
    ttml = '<tt xmlns="http://www.w3.org/ns/ttml"><body><div>{}</div></body></tt>'
    cue = '<p begin="00:00:01.000" end="00:00:02.000">one<br/>two</p>'
    assert read('<?xml version="1.0"?>\n' + ttml.format(cue)) == [("one two", 1.0, 2.0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{25}{50}one\n", "its times are frames"),
        ("<!DOCTYPE html>\n<!-- 1:0 --> <p>Not found</p>", "a web page, .* download it again"),
        ("<SAMI><BODY><SYNC Start=1000>one</SAMI>", "SAMI, .* convert it to SRT"),
        ("00:00:01:one\n00:00:02:two\n", "TMPlayer"),
        ("[00:01.00]one\n", "LRC"),
        ('{"events": []}', "JSON"),
        ("Good morning!\n", "no subtitles of a known format"),
        ("[Script Info]\nTitle: x\n", r"no \[Events\]"),
        ('<tt xmlns="http://www.w3.org/ns/ttml"><body>', "damaged ttml"),
        (bytes(range(256)) * 20, "no text|no subtitles"),
        ("1\n00:00:01,000 --> 00:xx:02,000\nHi\n", "line 2: '00:00:01,000 -->.* cannot be read"),
        (f"1\n{'9' * 5000}:00:01,000 --> 1:00:02,000\nHi\n", "no subtitles of a known"),
        ("1\n999:00:01,000 --> 999:00:02,000\nHi\n", "line 2: no video has a time of 3596402"),
    ],
)
def test_what_cannot_be_read_has_a_reason(content, message):
    with pytest.raises(RecordError, match=message):
        read(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (srt("kept") + "\n2\n00:00:09 -->\nHi\n", "1 subtitles are left out, .* line 6: '00:00:09"),
        (srt("kept") + "\n2\n00:00:09,0 --> 00:00:08,0\nHi\n", "line 6: it ends before it starts"),
        (vtt(ONE.replace("one", "kept"), "00:09.000 -->\nHi"), "line 6: '00:09.000 -->' cannot"),
        (vtt(ONE.replace("one", "kept"), "00:09.0 --> 00:60.0\nHi"), "line 6: .* cannot be read"),
        (
            f"{USUAL}{LINE}kept\nDialogue: 0,0:00:03.00\n{LINE.replace('01.00', 'x')}Hi",
            "2 .* line 4",
        ),
    ],
)
def test_what_is_malformed_is_left_out(content, message):
    assert texts(content) == ["kept"]
    assert re.search(message, notes(content))


@pytest.mark.parametrize("content", ["", " \n\n", "\ufeff", "WEBVTT\n", "WEBVTT", USUAL])
def test_a_file_without_subtitles(content):
    assert read(content) == []
    assert "no subtitles: nothing is said" in notes(content)


def test_times_without_text_are_said():
    assert "times, but no text" in notes(srt("", " ", "<i></i>"))


def test_a_damaged_file_is_read_as_what_it_is():
    whole = srt("Ä " * 40).encode()
    assert "1 characters are damaged" in notes(whole + b"\xc3")
    assert "3 characters are damaged" in notes(whole + b"\xff\xc3\x41\xff", "cp1252")
    assert texts(srt("Ä").encode("utf-16") + b"x", "cp1252") == ["Ä �"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Äda mag Käse", "cp1252"),
        ("Ça “va”? It’s £5 – and 20°C", "cp1252"),
        ("Příliš žluťoučký kůň úpěl ďábelské ódy", "cp1250"),
        ("Það er gott að sjá þig, ég kem", "cp1252"),
        ("Jó estét, őszintén szűk űr", "cp1250"),
        ("God kväll och välkommen till trädgården på ön", "cp1252"),
        ("Boa noite, você não está só; até amanhã, coração", "cp1252"),
        ("Perché è così? Sì, è già più tardi", "cp1252"),
        ("Labas vakaras, ačiū, kad atėjote į sodą, žmonės", "cp1257"),
        ("Dobra večer, žao mi je što kasnim", "cp1250"),
        ("Добрый вечер, друзья", "cp1251"),
        ("Добрый вечер, друзья, добро пожаловать в сад", "koi8_r"),
        ("Καλησπέρα σε όλους", "cp1253"),
        ("İyi akşamlar, hoş geldiniz arkadaşlar", "cp1254"),
        ("مساء الخير ومرحبا بكم في الحديقة", "cp1256"),
        ("大家晚上好，欢迎来到花园", "gbk"),
        ("大家晚上好，歡迎來到花園", "big5"),
        ("こんばんは、庭へようこそ", "shift_jis"),
        ("안녕하세요 여러분 환영합니다", "euc_kr"),
        ("こんばんは、庭へようこそ", "iso2022_jp"),
        ("大家晚上好", "utf-16-le"),
    ],
)
def test_an_encoding_is_guessed_and_said(text, encoding):
    content = srt(text, text).encode(encoding)
    assert texts(content) == [text, text]
    assert re.search("read as .*, which is a guess", notes(content)) or encoding in (
        "utf-16-le",
        "iso2022_jp",
    )


def test_encodings_that_are_named():
    utf, latin = srt("Käse"), srt("Käse").encode("cp1252")
    for content in (utf.encode(), utf.encode("utf-8-sig"), utf.encode("utf-16")):
        assert texts(content, "cp1252") == ["Käse"]
    assert texts(latin, "ascii", "cp1250", "cp437") == ["Käse"]
    assert notes(latin, "ascii", "cp1250", "cp437") == "read as cp1250"
    with pytest.raises(
        RecordError, match="neither UTF-8 nor ascii nor utf-16; name its --encoding"
    ):
        read(latin + b"x" * (len(latin) % 2 + 1), "ascii", "utf-16")


def test_files_are_named(tmp_path):
    path = tmp_path / "a.srt"
    with pytest.raises(UserError, match=f"{path} does not exist"):
        read_subtitles(path)
    path.write_text("Good morning!")
    with pytest.raises(UserError, match=f"{path}: it holds no subtitles of a known format"):
        read_subtitles(path)
