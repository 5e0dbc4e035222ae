"""The compare job: methods and widths beside each other, a quantize job each, and a leaderboard."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nodebits.core.affine import check_bits
from nodebits.core.errors import ConfigError, NodebitsError, OutputError
from nodebits.core.fields import check_fields
from nodebits.core.files import refuse_existing, write_atomically
from nodebits.core.registry import METHODS
from nodebits.jobs.compare_rows import ROWS_FILE, failed_row, key_of, read_rows, row_of, write_rows
from nodebits.jobs.data import load_data
from nodebits.jobs.folder import PAGE_FILE, job_folder
from nodebits.jobs.quantize import REPORT_FILE, JobInterruptedError, run_job
from nodebits.jobs.quantize_config import JobConfig
from nodebits.jobs.settings import CompareSettings, QuantizeSettings
from nodebits.methods.base import method_class
from nodebits.report.compare import leaderboard_csv, leaderboard_markdown, render_compare

MARKDOWN_FILE, CSV_FILE = "leaderboard.md", "leaderboard.csv"
# What one method may do on some data; a full disk or Ctrl-C ends the whole comparison.
_FAILURES = (
    NodebitsError, ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
_RUNS, _FLOATS = "runs", "float"


@dataclass(frozen=True, kw_only=True)
class CompareConfig(CompareSettings):
    """One comparison: its settings, and the jobs they stand for."""

    def __post_init__(self) -> None:
        """Rejects values of another type or outside their range, naming the field.

        Raises:
            BitwidthError: One of ``bits`` is no width.
            UnknownNameError: There is no such method, or no such add-on behind one.
            ConfigError: Any other field.
        """
        if not self.bits or not self.methods:
            raise ConfigError("methods and bits name at least one each, such as all and 8,4,2")
        for bits in self.bits:
            check_bits(bits)
        check_fields(self)
        self.chosen()

    def chosen(self) -> list[tuple[str, str]]:
        """Returns methods with their presets, each once, in the order given."""
        found: dict[tuple[str, str], None] = {}
        for text in self.methods:
            name, _, preset = text.partition(":")
            for one in METHODS.names() if name == "all" else [name]:
                method_class(one)
                found[one, preset or self.preset] = None
        return list(found)

    def jobs(self) -> list[JobConfig]:
        """Returns the jobs, a row of the leaderboard each.

        Raises:
            ConfigError: A preset is none.
        """
        shared = {f.name for f in fields(QuantizeSettings)} & {f.name for f in fields(self)}
        common: dict[str, Any] = {
            name: getattr(self, name) for name in shared - {"out", "preset", "bits", "force"}
        }
        found = []
        for method, preset in self.chosen():
            for bits in self.bits:
                own: dict[str, Any] = {"method": method, "preset": preset, "bits": bits}
                found.append(JobConfig(out=self.out, force=True, **common, **own))
        return found


def run_compare(config: CompareConfig, command: str = "") -> dict[str, Any]:
    """Runs what the folder has no row of yet, and draws the leaderboard of all its rows.

    Rows of other data sets, models and settings stay: a folder gathers what is run into it. A run
    that fails leaves a row that says why, and is tried again the next time.

    Returns:
        ``rows`` of this comparison, ``failed`` keys among them, ``interrupted``.

    Raises:
        OutputExistsError: The folder holds results that are no comparison's.
        OutputBusyError: Another job is writing into the folder.
        OutputError: The folder cannot be written.
        FileFormatError: Its rows cannot be read.
        NodebitsError: Bad settings or data.
    """
    jobs = config.jobs()
    with job_folder(config.out):
        rows = {row["key"]: row for row in read_rows(config.out / ROWS_FILE)}
        if not rows:  # what lies there is no comparison's
            drawn = (MARKDOWN_FILE, CSV_FILE, PAGE_FILE)
            refuse_existing([config.out / name for name in drawn], config.force, "--force")
        interrupted = False
        if not config.render_only:
            _check_data(config)
            interrupted = _run_missing(config, jobs, rows, command)
        elif not rows:
            raise ConfigError(
                f"{config.out} holds no rows to draw: leave out --render-only, or name a folder "
                "that has some"
            )
        if rows:  # Ctrl-C may come before the first
            _write(config.out, list(rows.values()), command)
    keys = set(rows) if config.render_only else {key_of(job) for job in jobs}
    mine = [row for key, row in rows.items() if key in keys]
    return {
        "rows": mine,
        "failed": [row["key"] for row in mine if row["error"]],
        "interrupted": interrupted,
    }


def _check_data(config: CompareConfig) -> None:
    """Data that cannot be loaded are no failure of every method."""
    load_data(config, None)


def _run_missing(
    config: CompareConfig, jobs: list[JobConfig], rows: dict[str, Any], command: str
) -> bool:
    """Runs jobs without a row, each kept as soon as it is there; returns whether Ctrl-C came."""
    missing = [
        job for job in jobs if config.force or key_of(job) not in rows or rows[key_of(job)]["error"]
    ]
    for job in tqdm(
        missing, "rows", disable=None if config.progress is None else not config.progress
    ):
        try:
            row = _row(config, job, command)
        except (JobInterruptedError, KeyboardInterrupt):
            return True
        if row is None:
            return True
        rows[row["key"]] = row
        write_rows(config.out / ROWS_FILE, rows.values())
    return False


def _row(config: CompareConfig, job: JobConfig, command: str) -> dict[str, Any] | None:
    """Runs one job, or reads what it left; None where it was interrupted."""
    key = key_of(job)
    folder = config.out / _RUNS / f"{job.method}-{job.preset}-{job.bits}-{key}"
    job = JobConfig(**{f.name: getattr(job, f.name) for f in fields(job)} | {"out": folder})
    try:
        report = None if config.force else _finished(folder / REPORT_FILE)
        if report is None:
            report = run_job(job, command, floats=config.out / _FLOATS / _float_key(job))
    except (JobInterruptedError, OutputError):
        raise
    except _FAILURES as error:
        return failed_row(job, error, command)
    return None if report["interrupted"] else row_of(job, report, command)


def _finished(path: Path) -> dict[str, Any] | None:
    """The report of a job that was not stopped by Ctrl-C; None where there is none to read."""
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return None if report.get("interrupted", True) else report


def _float_key(job: JobConfig) -> str:
    """A name for the jobs whose float models are one: they differ in how it is quantized alone."""
    plain: dict[str, Any] = {"method": "uniform", "bits": 8, "preset": "default", "overrides": {}}
    return key_of(JobConfig(**{f.name: getattr(job, f.name) for f in fields(job)} | plain))


def _write(folder: Path, rows: list[dict[str, Any]], command: str) -> None:
    write_atomically(folder / MARKDOWN_FILE, leaderboard_markdown(rows).encode())
    write_atomically(folder / CSV_FILE, leaderboard_csv(rows).encode())
    write_atomically(folder / PAGE_FILE, render_compare(rows, command).encode())
