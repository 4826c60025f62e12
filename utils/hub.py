"""Folders of the Hugging Face hub, or of its local cache."""

from functools import cache
from pathlib import Path

from utils.errors import UserError


@cache
def fetch_folder(name: str, files: tuple[str, ...], problem: str, remedy: str) -> Path:
    """Return the local folder with those of ``files`` that the model ``name`` has.

    Args:
        name: of the model in the hub.
        files: to fetch.
        problem, remedy: texts of the error message, before and after the reason.

    Raises:
        UserError: offline, no such name, no access, a path that does not exist, …
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:
        reason = (str(error).split("\n")[0].strip() or type(error).__name__).rstrip(".;:")
        raise UserError(f"{problem} ({reason}); {remedy}") from error
