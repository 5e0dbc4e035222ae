"""Rows of a comparison: one run each, as a line of JSON whose schema has a number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nodebits.core.errors import FileFormatError
from nodebits.core.files import open_regular, write_atomically
from nodebits.jobs.quantize_config import JobConfig

ROWS_FILE = "rows.jsonl"
SCHEMA = 1
# What every row has; one that failed has an error in place of the figures.
_ALWAYS = ("schema", "key", "dataset", "model", "method", "preset", "bits", "error", "command")
_FIGURES = ("metric", "float", "simulated", "packed", "average_bits", "file_bytes", "latency_ms")


def key_of(config: JobConfig) -> str:
    """Returns a text that is equal for jobs that compute the same, and for no others."""
    return hashlib.sha256(config.fingerprint().encode()).hexdigest()[:12]


def row_of(config: JobConfig, report: dict[str, Any], command: str) -> dict[str, Any]:
    """Returns the row of a finished job, from its report."""
    figures = report[report["metric"]["name"]]
    size, bits = report["bytes"], report["bits"]
    return {
        **_head(config, command),
        "task": report["dataset"]["task"],
        "notes": report["dataset"]["notes"],
        "architecture": report["model"],
        "epochs": _epochs(report),
        "settings": report["method"]["settings"],
        "metric": report["metric"],
        **{name: figures[name] for name in ("float", "simulated", "packed")},
        "float_distilled": figures.get("float_distilled"),
        "validation": report[f"validation_{report['metric']['name']}"],
        "agreement": report["agreement"],
        "average_bits": bits["average"],
        "average_bits_with_scales": bits["average_with_scales"],
        "sites": {f"{s['layer']}.{s['site']}": s["bits"] for s in report["sites"]},
        "file_bytes": size["file"],
        "float_file_bytes": size["float_file"],
        "activation_bytes": size["activations"],
        "float_activation_bytes": size["float_activations"],
        "latency_ms": {name: value["median"] for name, value in report["latency_ms"].items()},
        "train_seconds": report["train_seconds"],
        **{name: report[name] for name in ("versions", "processor", "isa", "threads")},
        "error": None,
    }


def _epochs(report: dict[str, Any]) -> dict[str, int]:
    """Epochs of every model of the best run; none of one that was not trained."""
    curves = report["curves"]
    return {
        name: len(curves[name]["loss"]) if name in curves else 0 for name in ("float", "quantized")
    }


def failed_row(config: JobConfig, error: Exception, command: str) -> dict[str, Any]:
    """Returns the row of a job that failed; it says why."""
    return {**_head(config, command), "error": f"{type(error).__name__}: {error}"}


def _head(config: JobConfig, command: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "key": key_of(config),
        "dataset": Path(config.dataset).name,
        "model": config.model,
        "method": config.method,
        "preset": config.preset,
        "bits": config.bits,
        "seeds": config.seeds,
        "folds": config.folds,
        "command": command,
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a file, the last of each key; no file is no rows.

    Raises:
        FileFormatError: A line is no row, or of a schema that this version does not know.
    """
    if not path.exists():
        return []
    with open_regular(path) as stream:
        lines = stream.read().decode(errors="replace").splitlines()
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            row = _checked(line, f"{path}, line {number}")
            rows[row["key"]] = row
    return list(rows.values())


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replaces the rows of a file, all at once.

    Raises:
        OutputError: The file cannot be written.
    """
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    write_atomically(path, text.encode())


def _checked(line: str, place: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise FileFormatError(f"{place} is no JSON ({error}): mend or delete the line") from error
    schema = row.get("schema") if isinstance(row, dict) else None
    if schema != SCHEMA:
        cure = (
            "a newer nodebits wrote it"
            if isinstance(schema, int) and schema > SCHEMA
            else ("write it anew into another folder")
        )
        raise FileFormatError(f"{place} has schema {schema!r}, this version reads {SCHEMA}: {cure}")
    wanted = _ALWAYS if row.get("error") else (*_ALWAYS, *_FIGURES)
    missing = [name for name in wanted if name not in row]
    if missing:
        raise FileFormatError(f"{place} lacks {', '.join(missing)}: mend or delete the line")
    return row
