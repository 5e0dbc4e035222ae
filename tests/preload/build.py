"""Compiles what makes calls of the C library fail, and the environment that loads it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def compiler() -> str | None:
    """The C compiler, if there is one; on other systems than Linux None of them serves."""
    return shutil.which(os.environ.get("CC", "cc")) if sys.platform == "linux" else None


def preloaded(name: str, folder: Path) -> dict[str, str]:
    """Compiles ``name`` into ``folder``.

    Args:
        name: ``failing_memory`` or ``failing_files``.
        folder: Where the library is written.

    Returns:
        An environment for processes that find its functions in ``ctypes.CDLL(None)``.
    """
    source, library = Path(__file__).with_name(f"{name}.c"), folder / f"{name}.so"
    found = compiler()
    if found is None:
        raise SystemExit("this needs Linux and a C compiler: set CC to its name")
    subprocess.run(
        [found, "-O1", "-Wall", "-fPIC", "-shared", str(source), "-o", str(library), "-ldl"],
        check=True,
    )
    return {**os.environ, "LD_PRELOAD": str(library)}
