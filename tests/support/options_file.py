"""Scripts that read their options from a file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run_with(main: Callable[[list[str]], Any], options: dict, folder: Path, *words: str) -> Any:
    """Write ``folder/options.json`` and call a script's ``main`` with it and with more words."""
    config = folder / "options.json"
    config.write_text(json.dumps(options))
    return main(["--config", str(config), *words])
