"""Atomic files and the check that a folder takes them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from nodebits.core.errors import NodebitsError


class OutputError(NodebitsError, OSError):
    """A folder or file that cannot be written."""


def write_atomic(path: Path, content: bytes) -> None:
    """Writes ``content`` so that ``path`` holds the old bytes or the new ones, never a part.

    Raises:
        OutputError: The file cannot be written; the old file is untouched.
    """
    name = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a result is as readable as any other new file.
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
        _sync_folder(path.parent)
    except OSError as error:
        if name is not None:
            with contextlib.suppress(OSError):
                os.unlink(name)
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        if name is not None:
            with contextlib.suppress(OSError):
                os.unlink(name)
        raise


def ensure_writable_folder(folder: Path) -> Path:
    """Creates ``folder`` if need be and proves that a file can be written there.

    Raises:
        OutputError: It cannot be created or written, or it is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise OutputError(
            f"cannot write to output folder {folder}: {error.strerror or error}; "
            "choose another folder with --out"
        ) from error
    return folder


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
