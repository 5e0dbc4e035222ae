"""Nothing is replaced unasked, and two writers of one path do not meet."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nodebits.core.errors import OutputBusyError, OutputError, OutputExistsError
from nodebits.core.files import ensure_writable_folder, refuse_existing, write_atomically, writing


def test_existing_files_are_named(tmp_path: Path) -> None:
    refuse_existing([tmp_path / "new"], False)
    (tmp_path / "old").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("old", "link"):
        with pytest.raises(OutputExistsError, match=rf"{name} exists.*force") as caught:
            refuse_existing([tmp_path / "new", tmp_path / name], False)
        assert isinstance(caught.value, FileExistsError)
        refuse_existing([tmp_path / name], True)


def test_the_second_writer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "result"
    found: list[BaseException] = []

    def other() -> None:
        try:
            with writing(path):
                pass
        except OutputError as error:
            found.append(error)

    with writing(path), writing(tmp_path / "another"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        write_atomically(path, b"whole")
    assert isinstance(found[0], OutputBusyError) and str(path) in str(found[0])
    other()
    assert len(found) == 1 and os.listdir(tmp_path) == ["result"]


def test_a_killed_writer_hinders_nobody(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from nodebits.core.files import writing\n"
        "with writing(Path(sys.argv[1])): os._exit(9)"
    )
    path = tmp_path / "result"
    assert subprocess.run([sys.executable, "-c", code, str(path)], timeout=120).returncode == 9
    assert (tmp_path / ".result.lock").exists()
    with writing(path):
        pass
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/x"), writing(tmp_path / "file" / "x"):
        pass


def test_atomic_write_replaces_or_leaves(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_atomically(path, b"torn")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_folder_check_leaves_nothing(tmp_path):
    folder = ensure_writable_folder(tmp_path / "a" / "b")
    assert folder.is_dir() and not list(folder.iterdir())


def test_a_folder_that_cannot_be_synced_is_no_failed_write(tmp_path, monkeypatch):
    sync = os.fsync

    def only_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr("os.fsync", only_files)
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="pipe: it is a device, a pipe"):
        write_atomically(pipe, b"new")
    with pytest.raises(OutputError, match="it is a folder"):
        write_atomically(tmp_path, b"new")
    assert pipe.is_fifo() and [entry.name for entry in tmp_path.iterdir()] == ["pipe"]


def test_a_lock_that_fails_leaves_no_file(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fcntl, "flock", full)
    with pytest.raises(OutputError, match="No space left"), writing(tmp_path / "file"):
        pass
    assert not list(tmp_path.iterdir())
