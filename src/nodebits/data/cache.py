"""Where processed data sets live: a cache folder, so that raw data folders are only ever read.

PyG writes ``processed/`` next to ``raw/``. Here it works in the cache, on links to the raw files.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch_geometric

from nodebits.core.errors import DataNotFoundError, OutputError


def check_raw_files(name: str, raw: Path, required: Sequence[str]) -> None:
    """Checks that a data folder holds the files that PyG parses.

    Args:
        name: Data set, for the message.
        raw: The set's ``raw`` folder.
        required: File names.

    Raises:
        DataNotFoundError: the folder or a file is missing.
    """
    if not raw.is_dir():
        raise DataNotFoundError(
            f"data set {name!r}: no folder {raw}; put PyG's raw files there, or unset "
            "NODEBITS_DATA and pass no root to download them"
        )
    missing = [file for file in required if not (raw / file).is_file()]
    if missing:
        raise DataNotFoundError(
            f"data set {name!r}: {raw} lacks {', '.join(missing)}; the copy is incomplete, fetch "
            "it again"
        )


def raw_key(raw: Path) -> str:
    """A key that changes with the raw files, their place and PyG: no stale cache is read."""
    parts = [torch_geometric.__version__, str(raw.resolve())]
    for file in sorted(p for p in raw.iterdir() if p.is_file()):
        state = file.stat()
        parts.append(f"{file.name}:{state.st_size}:{state.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def link_raw(raw: Path, target: Path) -> None:
    """Links every raw file into ``target``, or copies it where links are not allowed."""
    target.mkdir(parents=True)
    for file in sorted(p for p in raw.iterdir() if p.is_file()):
        try:
            (target / file.name).symlink_to(file.resolve())
        except OSError:
            shutil.copyfile(file, target / file.name)


def build_once(final: Path, build: Callable[[Path], None]) -> Path:
    """Fills ``final`` by ``build`` unless it exists; it appears complete or not at all.

    The work is done in a neighbour folder and renamed. Two processes at once both work and the
    first to finish wins; unlike a lock file this also holds on network file systems.

    Args:
        final: The folder to make.
        build: Fills the (empty) folder that it is given.

    Returns:
        ``final``.

    Raises:
        OutputError: The folder cannot be written.
    """
    if final.is_dir():
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    except OSError as error:
        message = f"cannot write to the cache folder {final.parent}: {error.strerror or error}"
        raise OutputError(error.errno, message, str(final.parent)) from error
    try:
        build(work)
        try:
            work.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final
