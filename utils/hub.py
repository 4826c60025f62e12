"""Folders of the Hugging Face hub, or of its local cache."""

from functools import cache
from pathlib import Path


class NotFetchedError(ValueError):
    """Why the hub gave nothing: a few words on one line."""


@cache
def fetch_folder(name: str, files: tuple[str, ...]) -> Path:
    """Return the local folder with those of ``files`` that the model ``name`` has.

    Raises:
        NotFetchedError: offline, no such name, no access, a path that does not exist, …
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:
        raise NotFetchedError((str(error).splitlines() or [type(error).__name__])[0]) from error
