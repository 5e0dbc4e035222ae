"""The folder that a job writes into: checked before anything is trained, and its own meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nodebits.core.files import ensure_writable_folder, writing

PAGE_FILE = "report.html"


@contextmanager
def job_folder(folder: Path) -> Iterator[None]:
    """Keeps other jobs, of whatever kind, out of ``folder`` while it is open.

    A job that fails before it wrote anything leaves no folder behind that was not there.

    Raises:
        OutputBusyError: Another job is writing into the folder.
        OutputError: If it cannot be created or written, or is a file.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        ensure_writable_folder(folder)
        with writing(folder / PAGE_FILE):  # which every job writes
            yield
    except BaseException:
        for path in missing:
            with suppress(OSError):  # it holds something
                path.rmdir()
        raise
