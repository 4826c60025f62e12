"""Schemas of records and side files of databases: types, ranges and lengths.

Fields that are not listed may hold anything. Records are read as these types; copies are made of
the raw record with all its fields.
"""

from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from utils.decoding import Finite
from utils.names import MAX_NAME_LENGTH

MAX_FRAMES = 100_000  # of a video: 40 hours at 1.5 seconds a frame
MAX_RECORD_BYTES = 64 << 20  # of a text record, unpacked
MAX_FEATURE_BYTES = 1 << 30  # of a video's features, unpacked
MAX_WIDTH = 1 << 20  # values of a frame
_INT32 = 2**31 - 1

Id = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
Name = Id | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]  # in lines: text or a number
Token = Annotated[int, Meta(ge=0, le=_INT32)]
Tokens = list[Token]
Count = Annotated[int, Meta(ge=0, le=_INT32)]
Frames = Annotated[int, Meta(ge=0, le=MAX_FRAMES)]  # how many a video has
Width = Annotated[int, Meta(ge=1, le=MAX_WIDTH)]
Frame = Annotated[int, Meta(ge=0, le=_INT32)]  # left out where the video lacks it
FrameBefore = Annotated[int, Meta(ge=-_INT32, le=_INT32)]  # may be before the video's start
Seconds = Finite
# No tuple: msgspec 0.22 crashes on the type "number within limits, or tuple of two".
Moment = Annotated[list[Seconds], Meta(min_length=2, max_length=2)]

Target = list[Seconds | Moment]  # [start, end], or a list of such: see require_moments


def require_moments(field: str, target: Target | None) -> None:
    """Raise ValueError for a list that is neither [start, end] nor a list of such."""
    if target is None:
        return
    kinds = {*map(type, target)}
    if kinds != {list} and (kinds != {float} or len(target) != 2):
        raise ValueError(f"{field}: neither [start, end] in seconds nor a list of such")


class SubtitleRecord(msgspec.Struct):
    """A video's subtitles, as a run reads them."""

    input_ids: list[Tokens]
    unique_sub2frames: list[tuple[Count, list[Frame]]]

    def __post_init__(self) -> None:
        texts = len(self.input_ids)
        for number, _ in self.unique_sub2frames:
            if number >= texts:
                raise ValueError(f"unique_sub2frames: subtitle {number} of {texts}")


class SubtitleLine(msgspec.Struct):
    """A raw subtitle."""

    start: Seconds
    end: Seconds


class WholeSubtitleRecord(SubtitleRecord):
    """The same, with the fields that it was made from."""

    sub2frames: list[tuple[Count, list[FrameBefore]]]
    duration: Frames
    sub: list[SubtitleLine] = []


class _OfVideo(msgspec.Struct, kw_only=True):
    """Common fields of queries, questions and statements."""

    qid: Name | None = None
    vid: Name | None = None


class QueryRecord(_OfVideo):
    """A query for a moment or a video; ``target`` is a moment, or one of each annotator."""

    input_ids: Tokens
    desc_id: Name | None = None
    target: Target | None = None

    def __post_init__(self) -> None:
        require_moments("target", self.target)


class StatementRecord(_OfVideo):
    """A statement; ``target`` is 1 if it is true."""

    input_ids: Tokens
    target: int | None = None

    shared: ClassVar[int | None] = None  # one text
    choices: ClassVar[int] = 2


class QuestionRecord(_OfVideo):
    """A question and its answers; ``ts`` is a moment, or anything else for none."""

    input_ids: Annotated[list[Tokens], Meta(min_length=2)]
    target: int | None = None
    ts: Any = None

    shared: ClassVar[int] = 1  # texts that are read with every answer: the question

    @property
    def choices(self) -> int:
        """Number of answers."""
        return len(self.input_ids) - self.shared


class EventRecord(QuestionRecord):
    """Events, one of which comes next; ``ts`` is what came before."""

    shared: ClassVar[int] = 0


class CaptionRecord(msgspec.Struct):
    """A caption of a clip."""

    input_ids: Tokens
    vid_name: Name
    clip_id: Name
    ts: Moment


class ClipCaption(msgspec.Struct):
    """A caption, as its clip lists it."""

    id: Name


class ClipRecord(msgspec.Struct):
    """A clip with its captions."""

    captions: list[ClipCaption] = []


class Description(msgspec.Struct):
    """A description of a clip."""

    desc: str


class VideoLine(msgspec.Struct, kw_only=True):
    """A line about a whole video to caption, or its captions."""

    vid_name: Name
    clip_id: Name
    descs: list[Description] | None = None


class ClipLine(VideoLine, kw_only=True):
    """The same for a clip."""

    ts: Moment


class TruthLine(msgspec.Struct):
    """A line that predictions are scored with; ``ts`` is a moment, or one of each annotator."""

    ts: Target | None = None
    type: str | None = None

    def __post_init__(self) -> None:
        require_moments("ts", self.ts)


class MetaFile(msgspec.Struct):
    """``meta.json``, as a run reads it."""

    CLS: Token | None = None
    BOS: Token | None = None
    SEP: Token | None = None
    EOS: Token | None = None
    PAD: Token | None = None
    MASK: Token | None = None
    UNK: Token | None = None
    v_range: tuple[Token, Token] | None = None
    frame_length: Seconds | None = None
    toker: str | None = None
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        if self.v_range is not None and self.v_range[0] >= self.v_range[1]:
            raise ValueError("v_range: it must be [first, last + 1]")


ID2NFRAME = dict[Id, Frames]
SIDE_FILES: dict[str, Any] = {
    "id2len.json": dict[Id, Count | Annotated[list[Count], Meta(min_length=2)]],
    "query2video.json": dict[Id, Name | None],
    "video_ids.json": list[Name],
    "vid2len.json": ID2NFRAME,
    "vid2max_frame_sub_len.json": dict[Id, Count],
    "vid2dur_idx.json": dict[str, Any],  # splits: see data.video_indices
    "cap2vid.json": dict[Id, Name],
    "vid2caps.json": dict[Id, list[Name]],
    "clip2vid.json": dict[Id, Name],
    "vid2clips.json": dict[Id, list[Name]],
    "meta.json": dict[str, Any],  # and a MetaFile
}
