"""Tables of ``deep.py`` and ``deep_speed.py``: Markdown from the rows that are there.

python benchmarks/deep_table.py
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from accuracy import read_rows

RESULTS = Path(__file__).resolve().parent / "results"
Rows = list[dict[str, Any]]


def cell(rows: Rows, field: str = "packed") -> str:
    """Mean and sample deviation in percent, with the number of runs."""
    values = [100 * row.get(field, row["simulated"]) for row in rows]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread} ({len(values)})"


def group(rows: Rows, study: str, *fields: str) -> dict[tuple[Any, ...], Rows]:
    """Rows of a study by some fields."""
    found: dict[tuple[Any, ...], Rows] = defaultdict(list)
    for row in rows:
        if row["study"] == study:
            found[tuple(row[f] for f in fields)].append(row)
    return found


def table(head: list[str], body: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main_table(rows: Rows) -> str:
    """Packed test accuracy by data set and width, beside float."""
    found = group(rows, "table", "dataset", "name", "bits", "ranges")

    def shown(*key: Any) -> str:
        return cell(found[key]) if found.get(key) else "–"

    body = []
    for dataset, name in dict.fromkeys(key[:2] for key in found):
        line = [dataset, name, cell(found[dataset, name, 32, "none"], "float")]
        line.append(shown(dataset, name, 32, "none"))
        line += [shown(dataset, name, b, r) for b in (8, 4) for r in ("grid", "scale")]
        line.append(shown(dataset, name, 2, "scale"))
        cut = [r for r in rows if r["study"] == "snap" and r["dataset"] == dataset]
        cut = [r for r in cut if r["extra"]["snap"] == "bt"] if name == "APPNP" else []
        body.append([*line, cell(cut) if cut else "–"])
    head = ["data set", "propagation", "float", "float, distilled"]
    head += [f"INT{bits}, {ranges}" for bits in (8, 4) for ranges in ("grid", "scale")]
    return table([*head, "INT2, scale", "INT2, cut"], body)


def ranges_table(rows: Rows) -> str:
    """Validation of 8 and 4 bits with ranges of a grid and with learned scales."""
    body = []
    for study in ("table", "depth"):
        found = group(rows, study, "dataset", "name", "bits", "ranges")
        for dataset, name, bits in dict.fromkeys(key[:3] for key in found):
            both = [found.get((dataset, name, bits, r)) for r in ("grid", "scale")]
            if bits in (8, 4) and all(both):
                steps = "2 to 64" if study == "depth" else "10"
                line = [dataset, name, steps, str(bits)]
                body.append([*line, *[cell(c, "val") for c in both if c]])
    return table(["data set", "propagation", "steps", "bits", "grid", "learned scale"], body)


def ablation_table(rows: Rows, field: str) -> str:
    """Propagation by range by width."""
    found = group(rows, "ablation", "name", "ranges", "bits")
    body = []
    for name in dict.fromkeys(key[0] for key in found):
        for ranges in ("none", "minmax", "grid", "learned", "scale"):
            cells = [found.get((name, ranges, b)) for b in (8, 4, 2)]
            if ranges == "none":
                shown = cell(found[name, "none", 32], field)
                body.append([name, "float, distilled", shown, shown, shown])
            elif any(cells):
                body.append([name, ranges, *[cell(c, field) if c else "–" for c in cells]])
    return table(["propagation", "range", "8 bits", "4 bits", "2 bits"], body)


def depth_table(rows: Rows) -> str:
    """Family by depth by width."""
    for row in rows:
        options = row["options"]
        row["depth"] = options.get("steps", options.get("num_layers"))
    found = group(rows, "depth", "dataset", "name", "bits", "ranges", "depth")
    depths = sorted({key[4] for key in found})
    body = []
    order = sorted(found, key=lambda key: (key[0], key[1], -key[2], key[3]))
    for dataset, name, bits, ranges in dict.fromkeys(key[:4] for key in order):
        cells = [found.get((dataset, name, bits, ranges, d)) for d in depths]
        shown = "float" if bits == 32 else f"INT{bits}" + ", grid" * (ranges == "grid")
        body.append([dataset, name, shown, *[cell(c) if c else "–" for c in cells]])
    return table(["data set", "family", "width", *map(str, depths)], body)


def speed_table(rows: Rows) -> str:
    """Milliseconds of a forward and the ratio to the best float32."""
    body = [
        [
            row["graph"],
            str(row["steps"]),
            str(row["columns"]),
            str(row["threads"]),
            row["impl"],
            f"{1e3 * row['median_s']:.1f}",
            f"{row['ratio_best_float32']:.2f}",
        ]
        for row in rows
    ]
    return table(
        ["graph", "steps", "columns", "threads", "implementation", "ms", "times best float32"],
        body,
    )


def main() -> None:
    """Writes ``deep.md``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    folder = parser.parse_args().results
    rows = [row for file in sorted((folder / "deep").glob("*.jsonl")) for row in read_rows(file)]
    snap = group(rows, "snap", "name", "bits")
    text = (
        "# Deep low-bit networks\n\nRendered by `benchmarks/deep_table.py`. Test accuracy in "
        "percent of the packed model, mean ± sample deviation (runs); epochs selected on "
        "validation; public splits.\n\n## Width\n\n" + main_table(rows)
    )
    text += "\n## Range of a grid or learned scale, validation\n\n" + ranges_table(rows)
    text += "\n## What helps (Cora), test\n\n" + ablation_table(rows, "packed")
    text += "\n## The same, validation\n\n" + ablation_table(rows, "val")
    if snap:
        scale = [{**r, "study": "snap", "snap": "none"} for r in rows if r["study"] == "table"]
        cut = [{**r, "snap": r["extra"]["snap"]} for r in rows if r["study"] == "snap"]
        two = [r for r in [*scale, *cut] if r["bits"] == 2 and r["name"] == "APPNP"]
        found = group(two, "snap", "dataset", "snap")
        body = [
            [dataset, snap, cell(runs, "val"), cell(runs)]
            for (dataset, snap), runs in sorted(found.items())
        ]
        text += "\n## Truncated two-bit codes (APPNP)\n\n"
        text += table(["data set", "snap", "validation", "test"], body)
    text += "\n## Depth\n\n" + depth_table(rows)
    for name in ("deep_speed.jsonl", "deep_speed-epyc.jsonl"):
        speed = read_rows(folder / name)
        if speed:
            machine = speed[0]["processor"]
            text += f"\n## Speed, {machine} (`{name}`)\n\n" + speed_table(speed)
    (folder / "deep.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
