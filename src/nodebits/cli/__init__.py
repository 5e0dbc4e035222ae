"""The ``nodebits`` command."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

_NEEDED = ("typer", "rich")


def main() -> NoReturn:
    """Runs the command, or says what has to be installed for it, and exits the process."""
    missing = [name for name in _NEEDED if not _is_there(name)]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        print(
            f"nodebits: the command needs {' and '.join(missing)}, which {are} not installed: "
            "pip install 'nodebits[cli]'",
            file=sys.stderr,
        )
        sys.exit(1)
    from nodebits.cli.app import main as run

    run()


def _is_there(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
