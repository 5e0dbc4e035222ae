"""What commands print: one table for people, or JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from nodebits.bench.speed.growth import edges_of
from nodebits.bench.speed.rows import Row
from nodebits.bench.speed.run import SpeedReport
from nodebits.report.compare import grouped, method_of
from nodebits.report.words import (
    busy_words,
    count_of,
    drop_unit,
    figure,
    float_layer_list,
    heading,
    human_bytes,
    model_title,
    percent_sign,
    spread_of,
)
from nodebits.tasks import Metrics, Task
from nodebits.train.problem import Split


def print_json(value: Any) -> None:
    """Prints JSON and nothing else on standard output."""
    print(json.dumps(value, indent=2))


def new_table(title: str, *columns: str, text_columns: int = 1) -> Table:
    """Returns a table whose columns after the first ``text_columns`` hold numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < text_columns else "right")
    return table


def print_table(table: Table, *notes: str, least_width: int = 0) -> None:
    """Prints a table and lines below it; a narrower terminal than ``least_width`` breaks lines."""
    console = Console()
    console.width = max(console.width, least_width)
    console.print(table)
    for note in filter(None, notes):
        console.print(note, highlight=False, soft_wrap=True, markup=False)


def print_report(report: Mapping[str, Any], folder: Path) -> None:
    """Prints the one table of a quantize job."""
    model, method, runs = report["model"], report["method"], len(report["runs"])
    metric, size, latency = report["metric"], report["bytes"], report["latency_ms"]
    figures = report[metric["name"]]
    title = (
        f"{model_title(model)} on "
        f"{report['dataset']['name']}, {method['name']}, "
        f"{count_of(method['bits'], 'bit')}, {count_of(runs, 'run')}"
    )
    table = new_table(title, "", heading(metric), "bits", "file", "activations", "latency")
    table.add_row(
        "float",
        spread_of(figures["float"], metric),
        "32",
        human_bytes(size["float_file"]),
        human_bytes(size["float_activations"]),
        f"{latency['float']['median']:.2f} ms",
    )
    if "float_distilled" in figures:
        distilled = spread_of(figures["float_distilled"], metric)
        table.add_row("float, distilled", distilled, "32", "", "", "")
    table.add_row("simulated", spread_of(figures["simulated"], metric), "", "", "", "")
    table.add_row(
        "packed",
        spread_of(figures["packed"], metric),
        f"{report['bits']['average']:.2f}",
        human_bytes(size["file"]),
        human_bytes(size["activations"]),
        f"{latency['packed']['median']:.2f} ms",
    )
    table.add_row(
        "packed, prepared", "", "", "", "", f"{latency['packed_prepared']['median']:.2f} ms"
    )
    floats = report["float_layers"]
    busy = busy_words(report.get("other_load"))
    print_table(
        table,
        f"float layers: {float_layer_list(floats)}" if floats else "",
        f"packed predicts as simulated on {100 * report['agreement']:.2f}% of the test split; "
        f"speed-up {report['speedup']:.2f}x, {report['speedup_prepared']:.2f}x prepared; "
        f"{report['isa']}, {count_of(report['threads'], 'thread')}; "
        f"trained {report['train_seconds']:.0f} s",
        busy and f"latencies: {busy}",
        report["dataset"]["notes"] if report["dataset"]["own"] else "",
        f"wrote model.safetensors, report.json and report.html to {folder}",
    )


# A name and six figures.
_SPEED_WIDTH = 110
_COMPARED_WIDTH = 100


def print_speed(report: SpeedReport) -> None:
    """Prints a table for every operation and number of threads, then what was skipped."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in report.rows:
        graph = "" if report.settings.what == "growth" else f", {row.graph}"
        groups.setdefault((row.op, graph, row.threads), []).append(row)
    for (op, graph, threads), rows in groups.items():
        rates = report.bandwidth[threads]
        card = report.environment.get("card")
        where = card or f"{count_of(threads, 'thread')}, {report.environment['isa']}"
        title = (
            f"{op}{graph}, {where}; stream "
            f"{rates['read'] / 1e9:.1f} GB/s read, {rates['triad'] / 1e9:.1f} GB/s triad"
        )
        names = ("ms", "± ms", "stream", "x float32", "x float", "peak MiB")
        table = new_table(title, "", *names)
        for row in rows:
            name = row.impl if op != "growth" else f"{row.impl}, {edges_of(row):,} edges"
            table.add_row(
                name,
                _figure(row.median_s, "{:,.2f}", 1e3),
                _figure(row.spread, "{:,.2f}", 1e3),
                _figure(row.stream_share, "{:.0f} %", 1e2),
                _figure(row.ratio_best_float32, "{:.2f}"),
                _figure(row.ratio_best_float, "{:.2f}"),
                _figure(row.peak_mib, "{:,.0f}"),
            )
        for column in table.columns[1:]:
            column.no_wrap = True
        notes = (f"{row.impl}: {row.note}" for row in rows if row.note)
        print_table(table, *notes, least_width=_SPEED_WIDTH)
    busy = busy_words(report.environment["other_load"])
    if busy:
        print(busy, file=sys.stderr)
    for threads, found in report.slopes().items():
        table = new_table(f"growth, {count_of(threads, 'thread')}", "", "log-log slope")
        for impl, slope in found.items():
            table.add_row(impl, f"{slope:.3f}")
        print_table(table)


def _figure(value: float | None, form: str, factor: float = 1.0) -> str:
    return "" if value is None else form.format(value * factor)


def print_metrics(name: str, metrics: Mapping[Split, Metrics], task: Task) -> None:
    """Prints metric and loss by split."""
    metric = task.metric.to_json()
    table = new_table(name, "split", "rows", heading(metric), task.loss_name)
    for split, value in metrics.items():
        table.add_row(split, f"{value.count:,}", figure(value.value, metric), f"{value.loss:.4f}")
    print_table(table)


def print_comparison(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Prints the rows of a comparison, the better of a width first."""
    for (dataset, model), members in grouped([dict(row) for row in rows]).items():
        done = [row for row in members if not row["error"]]
        if not done:
            continue
        names = ("bits", heading(done[0]["metric"]), "float", "average", "file", "times faster")
        table = new_table(f"{model_title({'name': model})} on {dataset}", "method", *names)
        for row in done:
            times = row["latency_ms"]
            table.add_row(
                method_of(row),
                str(row["bits"]),
                spread_of(row["packed"], row["metric"]),
                spread_of(row["float"], row["metric"]),
                f"{row['average_bits']:.2f}",
                human_bytes(row["file_bytes"]),
                f"{times['float'] / times['packed']:.2f}",
            )
        print_table(table)
    failed = [
        f"failed: {row['method']}, {row['bits']} bits: {row['error']}"
        for row in rows
        if row["error"]
    ]
    for line in failed:
        print(line, file=sys.stderr)
    print(f"wrote leaderboard.md, leaderboard.csv, report.html and rows.jsonl to {folder}")


def print_search(report: Mapping[str, Any], folder: Path) -> None:
    """Prints the front of a search and what was chosen."""
    metric = report["metric"]
    sign = percent_sign(metric)
    title = (
        f"{report['model']['name'].upper()} on {report['dataset']['name']}: least "
        f"{report['objective']}, float {figure(report['float']['val'], metric)}{sign} on validation"
    )
    figures = (f"calibrated {sign}".strip(), f"confirmed {sign}".strip(), "drop")
    table = new_table(title, "", "bytes", "bits", "latency", *figures, text_columns=1)
    others = [point for point in report["confirmed"] if point not in report["front"]]
    for point in [*report["front"], *others]:
        chosen = report["chosen"] is not None and point["table"] == report["chosen"]["table"]
        ms, confirmed = point["milliseconds"], point["confirmation"]
        table.add_row(
            "chosen" if chosen else "",
            human_bytes(point["bytes"]),
            f"{point['bits']:.2f}",
            "" if ms is None else f"{ms:.2f} ms",
            figure(point[metric["name"]], metric),
            "" if confirmed is None else figure(confirmed["summary"]["val"]["mean"], metric),
            "" if confirmed is None else f"{confirmed['drop']:.2f} ± {confirmed['error']:.2f}",
        )
    wrote = "front.json, report.html and study.json"
    if report["chosen"] is not None:
        wrote = f"config.toml, {wrote}"
    print_table(
        table,
        f"{count_of(len(report['trials']), 'configuration')} measured in "
        f"{report['seconds']:.0f} s, confirmation included; {metric['title']} on validation, "
        f"confirmed: mean over seeds of packed models; drop in "
        f"{drop_unit(metric)}, with its standard error",
        f"wrote {wrote} to {folder}",
    )
