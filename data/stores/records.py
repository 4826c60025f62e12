"""What records and side files of databases must look like: types, ranges and lengths.

Fields that nothing here reads may hold anything. Records are read as these types; what is copied or
written back is the raw record with all its fields.
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
Name = Id | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]  # as lines have it: text or a number
Token = Annotated[int, Meta(ge=0, le=_INT32)]
Tokens = list[Token]
Count = Annotated[int, Meta(ge=0, le=_INT32)]
Frames = Annotated[int, Meta(ge=0, le=MAX_FRAMES)]  # how many a video has
Width = Annotated[int, Meta(ge=1, le=MAX_WIDTH)]
Frame = Annotated[int, Meta(ge=0, le=_INT32)]  # one that a video may lack: left out
FrameBefore = Annotated[int, Meta(ge=-_INT32, le=_INT32)]  # also one before the video's start
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
    """What a run reads of a video's subtitles."""

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
    """The same, and what it was made from."""

    sub2frames: list[tuple[Count, list[FrameBefore]]]
    duration: Frames
    sub: list[SubtitleLine] = []


class _OfVideo(msgspec.Struct, kw_only=True):
    """What queries, questions and statements have in common."""

    qid: Name | None = None
    vid: Name | None = None


class QueryRecord(_OfVideo):
    """A query about a moment or a video; ``target`` is a moment, or one of each annotator."""

    input_ids: Tokens
    desc_id: Name | None = None
    target: Target | None = None

    def __post_init__(self) -> None:
        require_moments("target", self.target)


class StatementRecord(_OfVideo):
    """A statement; ``target`` is 1 if it is true."""

    input_ids: Tokens
    target: int | None = None

    shared: ClassVar[int | None] = None  # it is one text
    choices: ClassVar[int] = 2


class QuestionRecord(_OfVideo):
    """A question and its answers; ``ts`` tells a moment, or anything else: then it tells none."""

    input_ids: Annotated[list[Tokens], Meta(min_length=2)]
    target: int | None = None
    ts: Any = None

    shared: ClassVar[int] = 1  # texts that stand before every answer

    @property
    def choices(self) -> int:
        """How many answers there are."""
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
    """What somebody said of a clip."""

    desc: str


class VideoLine(msgspec.Struct, kw_only=True):
    """A line of whole videos to caption, or of captions."""

    vid_name: Name
    clip_id: Name
    descs: list[Description] | None = None


class ClipLine(VideoLine, kw_only=True):
    """The same of clips."""

    ts: Moment


class TruthLine(msgspec.Struct):
    """A line that predictions are scored with; ``ts`` is a moment, or one of each annotator."""

    ts: Target | None = None
    type: str | None = None

    def __post_init__(self) -> None:
        require_moments("ts", self.ts)


class MetaFile(msgspec.Struct):
    """``meta.json``: what a run reads of it."""

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
    "vid2dur_idx.json": dict[str, Any],  # data.video_indices knows its splits
    "cap2vid.json": dict[Id, Name],
    "vid2caps.json": dict[Id, list[Name]],
    "clip2vid.json": dict[Id, Name],
    "vid2clips.json": dict[Id, list[Name]],
    "meta.json": dict[str, Any],  # and a MetaFile
}
