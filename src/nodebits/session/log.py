"""A write-ahead log: a folder from which a session comes back with every acknowledged update.

The folder holds a snapshot, and the updates since then, each a record with checksums. A record is
written before its update is made, and so is what an update's caller is told. What a killed process
left of its last record is cut off, with a warning; anything else that is damaged is refused.
"""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from nodebits.core.errors import (
    ConfigError,
    FileFormatError,
    OutputError,
    OutputExistsError,
    TornLogWarning,
)
from nodebits.core.file_fields import Integer, check_fields
from nodebits.core.files import ensure_writable_folder, writing
from nodebits.runtime import container
from nodebits.session.records import MAGICS, Update, decoded, encoded, head_of, is_torn

SYNC = ("always", "os")
_NAME = re.compile(r"(snapshot|updates)-(\d{20})\.(safetensors|log)")


class Snapshot(NamedTuple):
    """A session at one moment.

    Attributes:
        number: Updates that it holds.
        tensors: ``features``, ``indptr``, ``indices``, ``removed``, and ``weight`` with weights.
    """

    number: int
    tensors: dict[str, Tensor]


class Log:
    """An open log, which no other process writes meanwhile.

    Args:
        folder: Its folder, made if need be.
        sync: ``always``: an update is on the disk when it is acknowledged. ``os``: it is with the
            operating system, and outlives the process, but not a power failure.

    Raises:
        ConfigError: If ``sync`` is neither.
        OutputBusyError: If another session has it open.
        OutputError: If the folder cannot be written.
    """

    def __init__(self, folder: str | Path, sync: str = "always") -> None:
        if sync not in SYNC:
            raise ConfigError(f"sync is {sync!r}: expected 'always' or 'os'")
        self.folder, self._sync = Path(folder), sync == "always"
        self._file: int | None = None
        self._size = 0
        self._last = 0  # bytes of the record that was written last
        self._refused = ""
        self._owner = os.getpid()
        self.number = 0
        self._lock = ExitStack()
        self._lock.enter_context(writing(self.folder))
        try:
            ensure_writable_folder(self.folder)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets others open the folder; nothing is written from then on."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._refused = self._refused or "the log is closed: come back with GraphSession.open"
        self._lock.close()

    def check_open(self) -> None:
        """Refuses to write what is not, or no longer, this process's.

        Raises:
            OutputError: If the log is closed, belongs to the process that forked this one, or
                could not be repaired after a failed write.
        """
        why = self._refused
        if os.getpid() != self._owner:
            why = (
                f"the log is open in process {self._owner}, which forked this one: update the "
                "session there, or copy the folder and open the copy"
            )
        if why:
            raise OutputError(errno.EIO, f"{self.folder}: {why}", str(self.folder))

    # --- reading ---

    def recover(self) -> tuple[Snapshot, list[Update]]:
        """The newest snapshot and the updates since then; the log goes on after them.

        Raises:
            FileNotFoundError: If the folder holds no session.
            FileFormatError: If a snapshot or a record before the last is damaged; names the file
                and the byte.
        """
        snapshots, logs = self._files("snapshot"), self._files("updates")
        if not snapshots:
            raise FileNotFoundError(errno.ENOENT, "the folder holds no session", str(self.folder))
        at = max(snapshots)
        header, tensors = container.read(snapshots[at], container.SESSION)
        check_fields(header, {"updates": Integer(at, at)}, f"{snapshots[at]}: header", others=True)
        updates: list[Update] = []
        number = at
        newest = max(logs, default=-1)
        for start in sorted(logs):
            if start < at and start != newest and min(s for s in logs if s > start) <= at:
                continue  # what the snapshot holds
            for found, update in self._records(logs[start], start, start == newest):
                if found > at:
                    updates.append(update)
                number = max(number, found)
            if start > number:
                raise FileFormatError(
                    f"{logs[start]} begins after update {start}, and the log before it ends at "
                    f"{number}: a file is missing"
                )
        self.number = number
        self._open(logs[newest] if newest >= at else self._path("updates", at))
        return Snapshot(at, tensors), updates

    def _files(self, kind: str) -> dict[int, Path]:
        names = ((path, _NAME.fullmatch(path.name)) for path in sorted(self.folder.iterdir()))
        return {int(m[2]): path for path, m in names if m is not None and m[1] == kind}

    def _path(self, kind: str, number: int) -> Path:
        return self.folder / f"{kind}-{number:020d}.{'log' if kind == 'updates' else 'safetensors'}"

    def _records(self, path: Path, start: int, last: bool) -> Iterator[tuple[int, Update]]:
        """The records of a file; what a killed process left of one is cut off."""
        data = memoryview(path.read_bytes())
        at, number = 0, start
        while at < len(data):
            head = head_of(data[at:])
            payload = None if head is None else head.payload(data[at:])
            if head is None or payload is None:
                self._cut(path, bytes(data[at:]), at, last)
                return
            if head.number != number + 1:
                raise FileFormatError(
                    f"{path} is damaged: at byte {at} is update {head.number} after {number}"
                )
            number = head.number
            yield number, decoded(payload, f"{path}: the record at byte {at}")
            at += head.record_bytes

    def _cut(self, path: Path, rest: bytes, at: int, last: bool) -> None:
        """Cuts off what was being written; damage of what was acknowledged is refused."""
        follows = self._next_record(rest)
        if not last or follows >= 0 or not is_torn(rest):
            told = f"; a whole record follows at byte {at + follows}" if follows >= 0 else ""
            raise FileFormatError(
                f"{path} is damaged at byte {at}: a record that was acknowledged does not match "
                f"its checksum{told}. Restore the file; to give up this record and what follows, "
                f"shorten it to {at} bytes"
            )
        warnings.warn(
            f"{path}: its last {len(rest)} byte(s), from byte {at} on, are a record that a killed "
            "process did not finish; its update was never acknowledged, and is dropped",
            TornLogWarning,
            stacklevel=2,
        )
        with path.open("r+b") as stream:
            stream.truncate(at)
            os.fsync(stream.fileno())

    @staticmethod
    def _next_record(rest: bytes) -> int:
        """Where the next whole record begins in the bytes from a damaged one on; -1 without."""
        for found in re.finditer(b"|".join(MAGICS), rest):
            data = memoryview(rest)[found.start() :]
            head = head_of(data)
            if found.start() and head is not None and head.payload(data) is not None:
                return found.start()
        return -1

    # --- writing ---

    def create(self, tensors: dict[str, Tensor]) -> None:
        """Begins a log.

        Raises:
            OutputExistsError: If the folder holds a session already.
        """
        if self._files("snapshot"):
            raise OutputExistsError(
                errno.EEXIST,
                f"{self.folder} holds a session: come back to it with GraphSession.open, or choose "
                "another folder",
                str(self.folder),
            )
        self.snapshot(tensors)

    def append(self, update: Update) -> None:
        """Writes an update, which may be made and acknowledged when this returns.

        Raises:
            OutputError: If it could not be written; it then is not in the log.
        """
        self.check_open()
        assert self._file is not None
        if not os.fstat(self._file).st_nlink:
            raise OutputError(
                errno.ENOENT,
                f"the log in {self.folder} was deleted, so that updates would be lost: snapshot() "
                "begins it anew",
                str(self.folder),
            )
        record = encoded(self.number + 1, update)
        try:
            left = memoryview(record)
            while left:
                left = left[os.write(self._file, left) :]
            if self._sync:
                os.fsync(self._file)
        except OSError as error:
            self._shorten()
            raise OutputError(
                error.errno,
                f"cannot write the log of {self.folder}: {error.strerror}; the update was not made",
                str(self.folder),
            ) from error
        self._last = len(record)
        self._size += self._last
        self.number += 1

    def take_back(self) -> None:
        """Takes the record out that was written last, whose update could not be made."""
        self._size -= self._last
        self.number -= 1
        self._last = 0
        self._shorten()

    def _shorten(self) -> None:
        """Cuts off what stands behind the records; where that fails nothing more is accepted."""
        assert self._file is not None
        try:
            os.ftruncate(self._file, self._size)
            os.fsync(self._file)
        except OSError as error:
            self._refused = (
                "the log could not be repaired after a failed write "
                f"({error.strerror}): open the session anew"
            )

    def snapshot(self, tensors: dict[str, Tensor]) -> None:
        """Writes the session as it is, and begins a new file of updates; older ones are removed.

        Raises:
            OutputError: If that fails; the log goes on as it was.
        """
        self.check_open()
        path = self._path("snapshot", self.number)
        container.write(path, container.SESSION, {"updates": self.number}, tensors)
        self._open(self._path("updates", self.number))
        for kind in ("updates", "snapshot"):
            for number, old in self._files(kind).items():
                if number < self.number:
                    with suppress(OSError):  # what is left is passed over
                        old.unlink()

    def flush(self) -> None:
        """Waits until all updates are on the disk.

        Raises:
            OutputError: If that fails, or as :meth:`check_open`.
        """
        self.check_open()
        assert self._file is not None
        try:
            os.fsync(self._file)
        except OSError as error:
            reason = f"cannot write the log of {self.folder}: {error.strerror}"
            raise OutputError(error.errno, reason, str(self.folder)) from error

    def _open(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        try:
            file = os.open(path, flags, 0o666)
            os.fsync(file)
        except OSError as error:
            raise OutputError(
                error.errno, f"cannot write {path}: {error.strerror}", str(path)
            ) from error
        if self._file is not None:
            os.close(self._file)
        self._file, self._size = file, os.fstat(file).st_size
