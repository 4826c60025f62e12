"""Read files of ``torch.save`` (old and new format) and safetensors to the CPU.

Files are verified first, and nothing in them is executed.
"""

import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from utils.errors import UserError, shorten

# Keys of the weights in files that hold other state of a training too.
WRAPPERS = ("model_state_dict", "model_state", "state_dict", "model")
# A Hugging Face model folder holds one of these.
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")

_CHUNK_BYTES = 1 << 20
_ZIP = b"PK\x03\x04"
_HEADER_BYTES = 100 << 20  # safetensors' own limit
_LEGACY_PICKLES = 5  # magic number, protocol, system, content, keys of storages
_DEEPEST = 32  # of containers in containers
_LONGEST_NAME = 300
_MOST_REASON = 200  # characters
# A file may hold tensors that repeat one value, and zeros that a zip file packs small; not 10 TB.
_MOST_GROWTH, _ALWAYS_ALLOWED = 100, 1 << 30
# Allowed in a pickle: plain tensors and containers. PyTorch's restricted unpickler also allows
# tensors that no model uses, and any amount of memory (bytearray).
_GLOBALS = re.compile(
    r"torch\._utils _rebuild_(tensor(_v[23])?|parameter(_with_state)?)"
    r"|torch\._tensor _rebuild_from_type_v2|torch\.nn\.parameter Parameter"
    r"|torch(\.cuda)? (\w+Storage|Size|device|Tensor|b?float\w*|u?int\d+|bool|complex\d+)"
    r"|torch\.storage (Untyped|Typed)Storage|collections (OrderedDict|Counter)"
    r"|_codecs encode|(__builtin__|builtins) set"
)
_KINDS = {
    "torch._utils _rebuild_sparse_tensor": "sparse tensor",
    "torch._utils _rebuild_qtensor": "quantized tensor",
    "torch._utils _rebuild_nested_tensor": "nested tensor",
    "torch._utils _rebuild_meta_tensor_no_storage": "tensor without values (of the meta device)",
}
_DTYPES = {torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.complex128}
_DTYPES |= {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_DTYPES |= {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
_DTYPES |= {torch.uint16, torch.uint32, torch.uint64}


class UnreadableFileError(ValueError):
    """A file cannot be used; the message continues a sentence that begins with its path."""


def load_tensors(path: str | Path, mapped: bool = False) -> Any:
    """Return the content of a file of ``torch.save`` or safetensors.

    Args:
        path: a file.
        mapped: read a tensor's values only when they are used, for names and shapes.

    Raises:
        UnreadableFileError: it is damaged, cut short, or holds more than tensors and plain
            containers.
    """
    path = Path(path)
    if not path.is_file():  # a pipe would block
        raise UnreadableFileError("cannot be read (it is no file)")
    try:
        content = _load(path, mapped)
        _check_content(content, path.stat().st_size)
    except UnreadableFileError:
        raise
    except Exception as error:  # of any class, for a damaged file
        raise UnreadableFileError(
            f"cannot be read ({_reason(error)}); was it cut short?"
        ) from error
    return content


def _load(path: Path, mapped: bool) -> Any:
    with path.open("rb") as file:
        beginning = file.read(9)
        header_bytes = int.from_bytes(beginning[:8], "little")
        by_name = path.suffix == ".safetensors" and not beginning.startswith(_ZIP)
        if by_name or (beginning[8:] == b"{" and header_bytes <= _HEADER_BYTES):
            return load_file(path)
        file.seek(0)
        if beginning.startswith(_ZIP):
            _verify_zip(file)
        else:
            mapped = False
            for _ in range(_LEGACY_PICKLES):
                _check_pickle(file)
    with warnings.catch_warnings():
        # Of a damaged pickle, for which an error follows.
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _verify_zip(file: IO[bytes]) -> None:
    """Read every entry, which verifies its checksum, and check the pickle."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        _check_size(sum(entry.file_size for entry in entries), file.seek(0, 2))
        for entry in entries:
            try:
                with archive.open(entry) as stream:
                    while stream.read(_CHUNK_BYTES):
                        pass
            except Exception as error:
                raise UnreadableFileError(
                    f"is damaged (its entry {_short(entry.filename)}: {_reason(error)}); copy or "
                    "download it again"
                ) from error
            if entry.filename.lower().endswith("data.pkl"):
                with archive.open(entry) as stream:
                    _check_pickle(stream)


def _check_pickle(stream: IO[bytes]) -> None:
    """Check the functions of one pickle without executing it."""
    name = "it"
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "BINUNICODE":
            name = _short(str(argument))
        function = str(argument)
        if opcode.name != "GLOBAL" or _GLOBALS.fullmatch(function):
            continue
        kind = _KINDS.get(function) or _short(function.replace(" ", "."))
        raise UnreadableFileError(
            f"cannot be read (it holds a {kind}, not only tensors and plain values: {name})"
        )


def _check_content(content: Any, file_bytes: int) -> None:
    """Check nesting, dtypes and size of what was loaded."""
    claimed, seen, todo = 0, set(), [(content, "it", 0)]
    while todo:
        value, name, depth = todo.pop()
        if depth > _DEEPEST:
            raise UnreadableFileError(f"nests containers more than {_DEEPEST} levels deep")
        if isinstance(value, Tensor):
            if value.dtype not in _DTYPES:
                kind = str(value.dtype).removeprefix("torch.")
                raise UnreadableFileError(f"holds values of the type {kind} ({name})")
            claimed += value.numel() * value.element_size()
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            todo += [(inner, key, depth + 1) for key, inner in _entries(value)]
    _check_size(claimed, file_bytes)


def _entries(container: Any) -> Iterator[tuple[str, Any]]:
    named = isinstance(container, Mapping)
    for key, value in container.items() if named else enumerate(container):
        yield _short(key) if isinstance(key, str) else type(key).__name__, value


def _check_size(claimed: int, file_bytes: int) -> None:
    if claimed > max(_MOST_GROWTH * file_bytes, _ALWAYS_ALLOWED):
        raise UnreadableFileError(f"claims to hold {claimed} bytes in a file of {file_bytes}")


def _reason(error: Exception) -> str:
    message = str(error)
    if foreign := re.search(r"Unsupported global: GLOBAL (\S+)", message):
        return f"it holds a {foreign[1]}, not only tensors and plain values"
    return message.splitlines()[0][:_MOST_REASON] if message else type(error).__name__


def _short(name: str) -> str:
    """Return a name for a message."""
    return shorten(name if name.isprintable() else repr(name), 80)


def is_unzipped(path: str | Path) -> bool:
    """Return whether the file has ``torch.save``'s old format, which has no checksums."""
    return Path(path).suffix != ".safetensors" and not zipfile.is_zipfile(path)


def read_weights(path: str | Path, mapped: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Return the dictionary of tensors that :func:`load_tensors` finds, also below WRAPPERS.

    Returns:
        Tensors by name, possibly with other entries, and the keys of the wrappers.

    Raises:
        UnreadableFileError: see :func:`load_tensors`; or it holds no such dictionary.
    """
    state, keys = _unwrap(load_tensors(path, mapped))
    if not _has_tensors(state):
        is_map = isinstance(state, Mapping)
        held = [name for name, _ in _entries(state)][:8] if is_map else type(state).__name__
        raise UnreadableFileError(
            f"is no flat dictionary of tensors (a state_dict) but holds {held}"
        )
    for name in state:
        if not isinstance(name, str):
            shown = f"{name:.0f}"[:20] if isinstance(name, int | float) else ""
            raise UnreadableFileError(
                f"names an entry by a {type(name).__name__} {shown}".rstrip() + ", not by text"
            )
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise UnreadableFileError(f"has an entry with the unusable name {_short(name)}")
    return dict(state), keys


def _has_tensors(content: Any) -> bool:
    return isinstance(content, Mapping) and any(isinstance(v, Tensor) for v in content.values())


def _unwrap(content: Any, levels: int = 4) -> tuple[Any, list[str]]:
    """Return the dictionary of tensors below up to ``levels`` wrappers, and their keys.

    Where there is none, return ``content`` itself.
    """
    for key in WRAPPERS if isinstance(content, Mapping) and levels else ():
        inner, keys = _unwrap(content.get(key), levels - 1)
        if _has_tensors(inner):
            return inner, [key, *keys]
    return content, []


def copied_once(
    tensors: Mapping[str, Tensor], copy: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Copy tensors; tied weights share one copy, also in a file."""
    copies: dict[tuple, Tensor] = {}
    named = {}
    for name, tensor in tensors.items():
        key = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if key not in copies:
            copies[key] = copy(tensor.detach())
        named[name] = copies[key]
    return named


def infinite_weights(weights: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinite values."""
    return [
        name
        for name, value in weights.items()
        if value.is_floating_point() and value.numel() and not _is_finite(value)
    ]


def _is_finite(value: Tensor) -> bool:
    if value.dtype in (torch.float32, torch.float64):  # one pass, without a copy
        return all(extreme.isfinite() for extreme in value.aminmax())
    return bool(value.isfinite().all())


def weights_file(path: str | Path) -> Path:
    """Return the file of weights ``path``, or that in a Hugging Face model folder ``path``.

    Raises:
        UserError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"the weights {path} do not exist; fix the path, or download them")
    for name in FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path} holds no weights ({' or '.join(FOLDER_FILES)})")
