"""The folder of a job: nothing of it stays where the job wrote nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodebits.core.errors import OutputBusyError
from nodebits.jobs.folder import job_folder


def fail(folder: Path, *names: str) -> None:
    with pytest.raises(ValueError, match="bad data"), job_folder(folder):
        for name in names:
            (folder / name).write_text("work")
        raise ValueError("bad data")


def test_a_job_that_wrote_nothing_leaves_no_folder(tmp_path: Path) -> None:
    fail(tmp_path / "runs" / "new")
    assert not list(tmp_path.iterdir())


def test_what_was_there_or_was_written_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    fail(tmp_path / "mine")
    fail(tmp_path / "runs" / "new", "checkpoint")
    assert (tmp_path / "mine").is_dir()
    assert [path.name for path in (tmp_path / "runs" / "new").iterdir()] == ["checkpoint"]


def test_a_second_job_leaves_the_folder_of_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with job_folder(folder):
        with pytest.raises(OutputBusyError), job_folder(folder):
            pass
        assert folder.is_dir()
    assert folder.is_dir()
