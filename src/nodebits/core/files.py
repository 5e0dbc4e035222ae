"""Files that are whole or not there, and the check that a folder takes them."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from nodebits.core.errors import (
    ConfigError,
    FileFormatError,
    OutputBusyError,
    OutputError,
    OutputExistsError,
)


def open_regular(path: str | Path) -> BinaryIO:
    """Opens a file for reading; what has no end, or would wait for a writer, is refused.

    Raises:
        FileNotFoundError: If there is nothing.
        FileFormatError: If it is a folder, a pipe, a device or the like.
    """
    path = Path(path)
    # A pipe without a writer would be waited for, for good.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        kind = "a folder" if path.is_dir() else "no regular file"
        raise FileFormatError(f"{path} is {kind}: a file is expected")
    return os.fdopen(descriptor, "rb")


def write_atomically(path: str | Path, data: bytes) -> None:
    """Writes ``data`` so that readers see the old file or the whole new one, also after a crash.

    A process that is killed while it writes (``kill -9``, power loss) leaves its temporary file
    ``.NAME.*.tmp`` beside the old one: it may be deleted. Any other failure removes it.

    A file that is replaced keeps its permissions; a symbolic link keeps leading where it led, and
    the file there is replaced.

    Args:
        path: File to write; its folder is made if need be.
        data: Its new content.

    Raises:
        OutputError: If that fails; it names ``path``, and the old file is untouched.
    """
    path = Path(path)
    try:
        # Of a loop of links there is no end; opening it says so.
        target = path.resolve(strict=True) if path.is_symlink() and path.exists() else path
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace_file(target, data)
    except OSError as error:
        # A failing write or fsync names no file at all, a failing mkdir or rename another one.
        reason = f"cannot write {path}: {error.strerror or error}"
        raise OutputError(error.errno, reason, str(path)) from error


def _replace_file(path: Path, data: bytes) -> None:
    mode = _mode(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            os.unlink(temporary)
        raise
    if os.name == "posix":
        _sync_folder(path.parent)


def _mode(path: Path) -> int:
    """Permissions of the file that is replaced, or of any other new file: mkstemp's is private."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return 0o666 & ~_umask()
    if not stat.S_ISREG(mode):  # a rename would put a file in the place of a device
        reason = "it is a folder" if stat.S_ISDIR(mode) else "it is a device, a pipe or the like"
        raise OSError(errno.EINVAL, f"{reason}, name a regular file")
    return stat.S_IMODE(mode)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Hurries the new name to the disk.

    A failure is no error: the new file is in place, and after a power loss the old one or the new
    one is, as promised. Folders that may be written but not read cannot even be opened.
    """
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def ensure_writable_folder(folder: Path) -> Path:
    """Creates ``folder`` if need be and proves that a file can be written there.

    Raises:
        OutputError: If it cannot be created or written, or is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"cannot write to output folder {folder}: {reason}; choose another folder"
        raise OutputError(error.errno, message, str(folder)) from error
    return folder


def refuse_existing(paths: Iterable[Path], force: bool, option: str = "force=True") -> None:
    """Refuses to replace results, unless it is asked for.

    Args:
        paths: Files that are about to be written.
        force: Whether existing ones may be replaced.
        option: How to ask for it, for the message.

    Raises:
        OutputExistsError: Names the first that exists.
    """
    for path in () if force else paths:
        if os.path.lexists(path):
            message = f"{path} exists: choose another name, or {option} replaces it"
            raise OutputExistsError(errno.EEXIST, message, str(path))


@contextmanager
def claimed(
    files: Mapping[str, Path | None],
    reads: Iterable[Path | None] = (),
    force: bool = False,
    option: str = "force=True",
) -> Iterator[None]:
    """What is about to be written: files that differ, may be written, and are nobody else's.

    They are locked while it is open, see :func:`writing`.

    Args:
        files: By what the user calls them, such as an option; None where one is not asked for.
        reads: Files that are read meanwhile, which none of them may be.
        force: Whether existing ones may be replaced.
        option: How to ask for it, for the message.

    Raises:
        ConfigError: Two of them are one file.
        OutputExistsError: One exists, or is read.
        OutputBusyError: Another process or thread writes one.
        OutputError: A folder cannot be created or written.
    """
    wanted = {name: file for name, file in files.items() if file is not None}
    named: dict[Path, str] = {}
    for name, file in wanted.items():
        other = named.setdefault(Path(os.path.realpath(file)), name)
        if other != name:
            raise ConfigError(f"{other} and {name} are one file, {file}: give each one of its own")
    with ExitStack() as locks:
        for file in wanted.values():
            ensure_writable_folder(file.absolute().parent)
            locks.enter_context(writing(file))
        for source in filter(None, reads):
            for file in wanted.values():
                refuse_input(file, source)
        refuse_existing(wanted.values(), force, option)
        yield


def refuse_input(output: Path, source: Path) -> None:
    """Refuses to replace what is being read, whether it is asked for or not.

    Args:
        output: File that is about to be written.
        source: File that is read for it.

    Raises:
        OutputExistsError: They are one file.
    """
    if output.exists() and source.exists() and output.samefile(source):
        message = f"{output} is what this command reads: choose another name for what it writes"
        raise OutputExistsError(errno.EEXIST, message, str(output))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Keeps others that write ``path`` (a file or a folder) out while it is open.

    The lock is a file beside ``path`` that is gone afterwards. It belongs to the process: one that
    is killed leaves a file that hinders nobody. On Windows, and on file systems without locks,
    nobody is kept out.

    Raises:
        OutputBusyError: Another process or thread has it open.
        OutputError: The lock cannot be written.
    """
    absolute = Path(os.path.abspath(path))
    lock = absolute.parent / f".{absolute.name}.lock"
    try:
        absolute.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(lock)
    except BlockingIOError as error:
        message = f"another command is writing {path}: wait for it, or choose another name"
        raise OutputBusyError(error.errno, message, str(path)) from error
    except OSError as error:
        message = f"cannot write {path}: {error.strerror or error}"
        raise OutputError(error.errno, message, str(path)) from error
    owner = os.getpid()
    try:
        yield
    finally:
        if descriptor is not None:
            # Removed while it is held: whoever waits for this file finds that it is another one.
            if os.getpid() == owner:  # a forked child has a copy, and no right to remove it
                with suppress(OSError):  # what is left hinders nobody
                    lock.unlink()
            os.close(descriptor)


def _locked(lock: Path) -> int | None:
    """Opens and locks a file that is still the one at that path; None where there are no locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        except FileNotFoundError:
            pass  # removed by its owner between our opening and locking it
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError as error:
            os.close(descriptor)
            lock.unlink(missing_ok=True)
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                return None
            raise
        os.close(descriptor)
