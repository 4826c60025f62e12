"""Commands that the documentation shows, and what the scripts' ``--help`` says."""

import contextlib
import importlib.util
import io
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support import REPOSITORY


@cache
def help_text(script: str) -> str:
    """What ``python SCRIPT --help`` prints."""
    spec = importlib.util.spec_from_file_location(f"readme_{Path(script).stem}", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as stopped:
        module.main(["--help"])
    assert stopped.value.code == 0
    return printed.getvalue()


DOCUMENT = REPOSITORY / "docs" / "DATA.md"


def documented_commands(heading: str) -> list[list[str]]:
    """Words of the commands of the section's code blocks."""
    section = DOCUMENT.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    section = section.partition("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("python ")]
