"""The page of a quantize job."""

from __future__ import annotations

from collections import Counter
from typing import Any

from markupsafe import Markup

from nodebits.report.advice import next_steps
from nodebits.report.charts import Bar, Series, bars, inline, lines
from nodebits.report.page import render
from nodebits.report.words import (
    count_of,
    figure,
    human_bytes,
    model_sizes,
    model_title,
    percent_sign,
)

_NAMES = {
    "float": "float",
    "float_distilled": "float, distilled",
    "simulated": "simulated",
    "packed": "packed, from file",
    "quantized": "quantized",
    "packed_module": "packed, without its plan",
    "packed_prepared": "packed, prepared",
}
_COLOURS = {"float": "c1", "float_distilled": "c3", "quantized": "c2"}


def render_quantize(report: dict[str, Any]) -> str:
    """Returns the page for a report as ``build_report`` makes it."""
    model, method, dataset = report["model"], report["method"], report["dataset"]
    columns = ("float", "float_distilled", "simulated", "packed")
    return render(
        "quantize.html",
        report=report,
        title=f"{model_title(model)} on {dataset['name']}, {count_of(method['bits'], 'bit')}",
        details=[
            f"method {method['name']}, preset {method['preset']}",
            model_sizes(model),
            count_of(len(report["runs"]), "run"),
        ],
        tiles=_tiles(report),
        metric=report["metric"],
        figures=report[report["metric"]["name"]],
        columns=[name for name in columns if name in report[report["metric"]["name"]]],
        names=_NAMES,
        curves=_curves(report["curves"], report["metric"]),
        sizes=_sizes(report["bytes"]),
        latency=_latency(report["latency_ms"]),
        largest=max((site["bytes"] for site in report["sites"]), default=0) or 1,
        layers=_layers(report["sites"]),
        plan=_plan(report),
        advice=next_steps(report),
        widths=_widths(report["widths"]),
        origin={
            "Training": f"{report['train_seconds']:.0f} s in all",
            "Best run": f"seed {report['runs'][report['best_run']]['seed']}, chosen on validation",
        },
    )


def _tiles(report: dict[str, Any]) -> list[tuple[str, str]]:
    metric, size, bits = report["metric"], report["bytes"], report["bits"]
    packed, floats = (report[metric["name"]][name]["mean"] for name in ("packed", "float"))
    difference = figure(packed - floats, metric, 1)
    signed = difference if difference.startswith("-") else f"+{difference}"
    activations = size["float_activations"] / max(size["activations"], 1)
    return [
        (
            f"{figure(packed, metric, 1)}{percent_sign(metric)}",
            f"packed {metric['title']}, {signed} to float",
        ),
        (
            f"{bits['average']:.2f}",
            f"bits on average, {bits['average_with_scales']:.2f} with scales",
        ),
        (
            f"{size['float_file'] / size['file']:.1f}×",
            f"smaller file, activations {activations:.1f}×",
        ),
        (f"{report['speedup']:.2f}×", f"speed, {report['speedup_prepared']:.2f}× prepared"),
        (f"{100 * report['agreement']:.2f}%", "packed predicts as simulated"),
    ]


# Heights in the picture of the model: floats are cut off, or 8 bits would look like none.
_TALLEST = 10.0


def _layers(sites: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sites by layer in the order they run, each with its height in the picture."""
    found: dict[str, list[dict[str, Any]]] = {}
    for site in sites:
        bits = 32.0 if site["bits"] is None else float(site["bits"])
        kind = "float" if bits >= 32 else "weight" if "weight" in site["site"] else "rows"
        height = 100 * min(bits, _TALLEST) / _TALLEST
        bar = {"site": site["site"], "bits": f"{bits:.3g}", "height": height, "kind": kind}
        found.setdefault(site["layer"], []).append(bar)
    return [{"name": name or "model", "bars": bars} for name, bars in found.items()]


def _plan(report: dict[str, Any]) -> list[tuple[str, str]]:
    """What is said of the plan: pairs of a term and its text."""
    plan, latency = report["plan"], report["latency_ms"]
    if plan["reason"]:
        return [("Plan", f"none: {plan['reason']}")]
    count, python = len(plan["steps"]), len(plan["python"])
    kinds = Counter(name.partition(":")[0] for name in plan["steps"])
    module, packed = latency["packed_module"]["median"], latency["packed"]["median"]
    return [
        ("Steps", f"{count}, {count - python} of them compiled"),
        ("Of these", ", ".join(f"{many} {name}" for name, many in kinds.most_common())),
        ("Python runs", ", ".join(plan["python"]) or "none"),
        ("Saves", f"{module - packed:.2f} of {module:.2f} ms beside the model's own layers"),
    ]


def _curves(curves: dict[str, Any], metric: dict[str, Any]) -> dict[str, Markup]:
    def chart(curve: str, percent: bool) -> Markup:
        series = [
            Series(_NAMES[name], values[curve], _COLOURS[name], values["best_epoch"])
            for name, values in curves.items()
        ]
        return inline(lines(series, "epoch", percent))

    if not curves:
        return {}
    return {
        f"Validation {metric['title']}": chart(f"val_{metric['name']}", metric["share"]),
        "Validation loss": chart("val_loss", False),
    }


def _sizes(size: dict[str, int]) -> Markup:
    names = {"File": "file", "Weights": "weights", "Activations": "activations"}
    return inline(
        bars(
            {
                title: [
                    Bar("float", size[f"float_{key}"], human_bytes(size[f"float_{key}"]), "c1"),
                    Bar("packed", size[key], human_bytes(size[key]), "c2"),
                ]
                for title, key in names.items()
            }
        )
    )


def _latency(latency: dict[str, Any]) -> Markup:
    names = {**_NAMES, "packed": "packed"}
    drawn = [
        Bar(
            names[name],
            value["median"],
            f"{value['median']:.2f} ms",
            "c1" if name == "float" else "c2",
        )
        for name, value in latency.items()
    ]
    return inline(bars({"": drawn}))


def _widths(widths: dict[str, Any]) -> list[dict[str, Any]]:
    """Histogram per site, and mean width against in-degree, where nodes have their own widths."""
    by_degree = {entry["site"]: entry["classes"] for entry in widths["by_degree"]}
    found = []
    for entry in widths["histograms"]:
        counts = [
            Bar(count_of(bits, "bit"), count, str(count), "c2")
            for bits, count in enumerate(entry["nodes"], start=1)
            if count
        ]
        charts, classes = [inline(bars({"": counts}))], by_degree.get(entry["site"], [])
        trend = [row["mean_width"] for row in classes]
        if len(trend) > 1:
            label = "in-degree class, by powers of two"
            charts.append(inline(lines([Series("mean width", trend, "c2")], label)))
        found.append(
            {"name": entry["site"], "mean": entry["mean"], "charts": charts, "classes": classes}
        )
    return found
