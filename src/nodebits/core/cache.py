"""Where nodebits keeps what it can make again."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """The cache folder: ``cache``, else ``NODEBITS_CACHE``, else in the user's cache folder."""
    chosen = cache or os.environ.get("NODEBITS_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "nodebits"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "nodebits"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "nodebits"
