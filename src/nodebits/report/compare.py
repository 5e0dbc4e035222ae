"""The leaderboard of a comparison: a page, a Markdown table, and CSV."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from typing import Any

from nodebits.report.charts import Dots, inline, scatter
from nodebits.report.page import render
from nodebits.report.published import published_for
from nodebits.report.words import count_of, figure, heading, human_bytes, letter, spread_of

Row = dict[str, Any]
_COLOURS = ("c2", "c3", "c1", "c4", "c5", "c6", "c7", "c8")


def render_compare(rows: list[Row], command: str) -> str:
    """Returns the page for rows as ``run_compare`` writes them."""
    groups = grouped(rows)
    counted = [row for row in rows if not row["error"]]
    return render(
        "compare.html",
        title="Leaderboard",
        details=[count_of(len(rows), "row"), count_of(len(groups), "data set and model")],
        tiles=[],
        report={"interrupted": False, "command": command},
        groups=[_group(key, members) for key, members in groups.items()],
        machines=_machines(counted),
        versions=_versions(counted),
        failed=[row for row in rows if row["error"]],
    )


def leaderboard_markdown(rows: list[Row]) -> str:
    """Returns a table per data set and model; figures of the packed model lead."""
    lines = ["# Leaderboard", ""]
    for (dataset, model), members in grouped(rows).items():
        machines = list(_machines(members).values())
        head = _columns(members, machines)
        lines += [f"## {model.upper()} on {dataset}", "", _line(head), _line(["---"] * len(head))]
        lines += [_line(_cells(row, machines)) for row in members if not row["error"]]
        for one in published_for(dataset, model):
            lines.append(_line(_published_cells(one, members, len(head))))
        lines.append("")
    failed = [row for row in rows if row["error"]]
    if failed:
        lines += ["## Failed", "", "| run | error |", "|---|---|"]
        lines += [_line([_name(row), row["error"]]) for row in failed]
        lines.append("")
    lines += [f"* {text}" for text in _notes(rows)]
    return "\n".join(lines) + "\n"


def leaderboard_csv(rows: list[Row]) -> str:
    """Returns the rows as a spreadsheet, one line each, means and standard deviations apart."""
    names = (
        "dataset", "model", "method", "preset", "bits", "metric", "seeds", "float", "float_std",
        "float_distilled", "simulated", "packed", "packed_std", "validation", "average_bits",
        "average_bits_with_scales", "file_bytes", "float_file_bytes", "activation_bytes",
        "float_ms", "packed_ms", "packed_prepared_ms", "processor", "isa", "threads", "error",
    )  # fmt: skip
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: value for name, value in _flat(row).items() if name in names})
    return stream.getvalue()


def grouped(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by data set and model; wider rows first, the better before the worse."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["dataset"], row["model"]].append(row)
    return {key: sorted(groups[key], key=_place) for key in sorted(groups)}


def front_of(points: list[tuple[float, float]], higher: bool) -> list[tuple[float, float]]:
    """Points ``(cost, figure)`` that no other one beats in both, cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda p: (p[0], -p[1] if higher else p[1])):
        if not front or (value > front[-1][1] if higher else value < front[-1][1]):
            front.append((cost, value))
    return front


def _place(row: Row) -> tuple[Any, ...]:
    if row["error"]:
        return (1, -row["bits"], 0.0)
    mean = row["packed"]["mean"]
    return (0, -row["bits"], -mean if row["metric"]["higher_is_better"] else mean)


def _machines(rows: list[Row]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Classes of machines in the order of their rows: times of two are not compared."""
    keys = [_machine(row) for row in rows if not row["error"]]
    return {key: key for key in keys}


def _machine(row: Row) -> tuple[Any, ...]:
    return row["processor"], row["isa"], row["threads"]


def _machine_text(machine: tuple[Any, ...]) -> str:
    processor, isa, threads = machine
    return f"{processor}, {isa}, {count_of(threads, 'thread')}"


def _versions(rows: list[Row]) -> list[str]:
    found = {", ".join(f"{n} {v}" for n, v in row["versions"].items()) for row in rows}
    return sorted(found)


def _columns(rows: list[Row], machines: list[Any]) -> list[str]:
    metric = next((row["metric"] for row in rows if not row["error"]), None)
    head = "figure" if metric is None else heading(metric)
    times = [f"times faster ({letter(i)})" for i in range(len(machines))]
    return [
        "method", "bits", f"packed, {head}", "float", "float, trained alike", "average bits",
        "with scales", "file", "of float's", "activations, of float's", *times, "runs",
    ]  # fmt: skip


def _cells(row: Row, machines: list[Any]) -> list[str]:
    metric, packed = row["metric"], row["packed"]
    alike = row["float_distilled"]
    times = row["latency_ms"]
    speed = [
        f"{times['float'] / times['packed']:.2f}" if _machine(row) == machine else ""
        for machine in machines
    ]
    return [
        method_of(row),
        str(row["bits"]),
        spread_of(packed, metric),
        spread_of(row["float"], metric),
        "" if alike is None else spread_of(alike, metric),
        f"{row['average_bits']:.2f}",
        f"{row['average_bits_with_scales']:.2f}",
        human_bytes(row["file_bytes"]),
        f"{row['file_bytes'] / row['float_file_bytes']:.2f}",
        f"{row['activation_bytes'] / max(row['float_activation_bytes'], 1):.2f}",
        *speed,
        str(len(packed["values"])),
    ]


def _published_cells(one: Any, rows: list[Row], width: int) -> list[str]:
    metric = next((row["metric"] for row in rows if not row["error"]), {"share": True})
    mean = figure(one.figure, metric)
    text = mean if one.spread is None else f"{mean} ± {figure(one.spread, metric)}"
    name = f"*{one.method}, {one.source}; epochs by {one.selected}*"
    return [name, f"*{one.bits:g}*", f"*{text}*", *[""] * (width - 3)]


def method_of(row: Row) -> str:
    """Returns a row's method, with its preset where that is not the default."""
    preset = "" if row["preset"] == "default" else f", {row['preset']}"
    return f"{row['method']}{preset}"


def _name(row: Row) -> str:
    return f"{row['model'].upper()} on {row['dataset']}, {method_of(row)}, {row['bits']} bits"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _notes(rows: list[Row]) -> list[str]:
    counted = [row for row in rows if not row["error"]]
    notes = [
        f"{letter(i)}: {_machine_text(machine)}" for i, machine in enumerate(_machines(counted))
    ]
    notes += [f"versions: {text}" for text in _versions(counted)]
    notes += [
        "packed: the model loaded back from its file; mean and standard deviation over runs",
        "epochs were chosen on the validation split; papers' rows say what theirs were chosen on",
        "average bits: over all activations, the input too; papers count as they say",
        "times: one forward beside PyG's float model, medians of interleaved rounds",
    ]
    return notes


def _flat(row: Row) -> dict[str, Any]:
    flat = {k: row[k] for k in ("dataset", "model", "method", "preset", "bits", "error")}
    flat["seeds"] = row.get("seeds")
    if row["error"]:
        return flat
    for name in ("float", "packed"):
        flat |= {name: row[name]["mean"], f"{name}_std": row[name]["std"]}
    alike = row["float_distilled"]
    flat |= {
        "metric": row["metric"]["name"],
        "float_distilled": "" if alike is None else alike["mean"],
        "simulated": row["simulated"]["mean"],
        "validation": row["validation"]["simulated"]["mean"],
    }
    flat |= {f"{name}_ms": value for name, value in row["latency_ms"].items()}
    return {**row, **flat}


def _group(key: tuple[str, str], rows: list[Row]) -> dict[str, Any]:
    dataset, model = key
    counted = [row for row in rows if not row["error"]]
    machines = list(_machines(rows).values())
    metric = counted[0]["metric"] if counted else {"share": True, "higher_is_better": True}
    head = _columns(rows, machines)
    table = [{"cells": _cells(row, machines), "sort": _sortable(row, machines)} for row in counted]
    papers = [
        [cell.strip("*") for cell in _published_cells(one, rows, len(head))]
        for one in published_for(dataset, model)
    ]
    charts = {}
    if counted:
        charts = {
            "Against bytes of the file and activations": _chart(counted, metric, "KiB", _bytes),
            "Against milliseconds of one forward": _chart(
                [row for row in counted if _machine(row) == machines[0]], metric, "ms", _time
            ),
        }
    return {
        "name": f"{model.upper()} on {dataset}",
        "columns": head,
        "rows": table,
        "papers": papers,
        "charts": charts,
    }


def _sortable(row: Row, machines: list[Any]) -> list[str]:
    """What a column is sorted by: numbers where it shows numbers."""
    alike = row["float_distilled"]
    times = row["latency_ms"]
    speed = [
        f"{times['float'] / times['packed']}" if _machine(row) == machine else ""
        for machine in machines
    ]
    numbers = (
        row["bits"], row["packed"]["mean"], row["float"]["mean"],
        "" if alike is None else alike["mean"], row["average_bits"],
        row["average_bits_with_scales"], row["file_bytes"],
        row["file_bytes"] / row["float_file_bytes"],
        row["activation_bytes"] / max(row["float_activation_bytes"], 1),
    )  # fmt: skip
    return [method_of(row), *map(str, numbers), *speed, str(len(row["packed"]["values"]))]


def _bytes(row: Row) -> float:
    return float(row["file_bytes"] + row["activation_bytes"]) / 1024


def _time(row: Row) -> float:
    return float(row["latency_ms"]["packed"])


def _chart(rows: list[Row], metric: dict[str, Any], unit: str, cost: Any) -> Any:
    by_method: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        by_method[method_of(row)].append((cost(row), row["packed"]["mean"]))
    points = [point for found in by_method.values() for point in found]
    groups = [Dots("front", front_of(points, metric["higher_is_better"]), "rule", stairs=True)]
    groups += [
        Dots(name, found, _COLOURS[i % len(_COLOURS)])
        for i, (name, found) in enumerate(by_method.items())
    ]
    return inline(
        scatter(
            groups,
            unit,
            rows[0]["float"]["mean"],
            "float",
            percent=metric["share"],
        )
    )
