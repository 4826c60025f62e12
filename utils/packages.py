"""Packages that an installation may lack: those that requirements.txt does not list."""

import importlib
from typing import Any

from utils.errors import UserError

INSTALLATION = {
    "apex": "install it from https://github.com/NVIDIA/apex",
    "horovod": "run scripts/install_horovod.sh",
}


def require_package(module: str) -> Any:
    """Import a module of one of the packages of :data:`INSTALLATION`.

    Raises:
        UserError: it cannot be imported; says why, and how to install the package.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        install = INSTALLATION[module.partition(".")[0]]
        raise UserError(f"{module} cannot be imported ({error}): {install}") from error
