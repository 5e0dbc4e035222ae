"""The report of a quantize job as one self-contained page: no script, no font, no network."""

from __future__ import annotations

from html import escape
from typing import Any

from nodebits.bench.style import STYLE
from nodebits.bench.svg import Bar, Series, bar_chart, line_chart

_NAMES = {
    "float": "float",
    "float_distilled": "float, distilled",
    "simulated": "simulated",
    "packed": "packed, from file",
    "quantized": "quantized",
}


def render_html(report: dict[str, Any]) -> str:
    """Returns the page for a report as ``build_report`` makes it."""
    model, method, dataset = report["model"], report["method"], report["dataset"]
    bits = f"{method['bits']} bit" + ("s" if method["bits"] > 1 else "")
    title = f"{model['name'].upper()} on {dataset['name']}, {bits}"
    sections = [
        _header(report, title),
        _tiles(report),
        _card("Accuracy on the test split", _accuracy(report), wide=True),
        _curve_cards(report),
        _card("Bytes", _bytes(report)),
        _card("Latency of one forward", _latency(report)),
        _card("Sites", _sites(report), wide=True),
        *_widths(report),
        _card("How it was made", _origin(report), wide=True),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def human_bytes(count: float) -> str:
    """Returns a size with a binary unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _header(report: dict[str, Any], title: str) -> str:
    method, model = report["method"], report["model"]
    details = [
        f"method {method['name']}, preset {method['preset']}",
        f"{model['num_layers']} layers, hidden width {model['hidden_channels']}",
        f"{len(report['runs'])} run" + ("s" if len(report["runs"]) > 1 else ""),
    ]
    warning = ""
    if report["interrupted"]:
        warning = '<p class="warning">Training was interrupted: these are results until then.</p>'
    return f"<header><h1>{escape(title)}</h1><p>{escape(' · '.join(details))}</p>{warning}</header>"


def _tiles(report: dict[str, Any]) -> str:
    accuracy, size, bits = report["accuracy"], report["bytes"], report["bits"]
    difference = 100 * (accuracy["packed"]["mean"] - accuracy["float"]["mean"])
    activations = size["float_activations"] / max(size["activations"], 1)
    tiles = [
        (
            f"{100 * accuracy['packed']['mean']:.1f}%",
            f"packed accuracy, {difference:+.1f} to float",
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
    body = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(text)}</span></div>'
        for value, text in tiles
    )
    return f'<section class="tiles">{body}</section>'


def _accuracy(report: dict[str, Any]) -> str:
    accuracy, runs = report["accuracy"], report["runs"]
    names = [
        name for name in ("float", "float_distilled", "simulated", "packed") if name in accuracy
    ]
    head = "".join(f"<th>{_NAMES[name]}</th>" for name in names)
    rows = []
    for run in runs:
        label = f"seed {run['seed']}" + ("" if run["fold"] is None else f", fold {run['fold']}")
        cells = "".join(f"<td>{100 * run[name]:.2f}</td>" for name in names)
        rows.append(
            f"<tr><th>{label}</th>{cells}<td>{100 * run['agreement']:.2f}</td>"
            f"<td>{_epoch(run)}</td></tr>"
        )
    total = "".join(
        f"<td>{100 * accuracy[name]['mean']:.2f} ± {100 * accuracy[name]['std']:.2f}</td>"
        for name in names
    )
    return (
        f"<table><thead><tr><th></th>{head}<th>agreement</th><th>best epoch</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody><tfoot><tr><th>mean ± std</th>{total}"
        f"<td>{100 * report['agreement']:.2f}</td><td></td></tr></tfoot></table>"
        '<p class="note">Percent. Every epoch was chosen on the validation split; the test split '
        "was looked at once, at the end.</p>"
    )


def _epoch(run: dict[str, Any]) -> str:
    return "–" if run["best_epoch"] is None else f"{run['best_epoch'] + 1} of {run['epochs']}"


def _curve_cards(report: dict[str, Any]) -> str:
    curves = report["curves"]
    css = {"float": "c1", "float_distilled": "c3", "quantized": "c2"}

    def chart(curve: str, percent: bool) -> str:
        series = [
            Series(_NAMES[name], values[curve], css[name], values["best_epoch"])
            for name, values in curves.items()
        ]
        return line_chart(series, "epoch", percent)

    if not curves:
        return ""
    return _card("Validation accuracy", chart("val_accuracy", True)) + _card(
        "Validation loss", chart("val_loss", False)
    )


def _bytes(report: dict[str, Any]) -> str:
    size = report["bytes"]
    pairs = [
        ("File", "float_file", "file"),
        ("Weights", "float_weights", "weights"),
        ("Activations", "float_activations", "activations"),
    ]
    parts = []
    for title, float_key, packed_key in pairs:
        bars = [
            Bar("float", size[float_key], human_bytes(size[float_key]), "c1"),
            Bar("packed", size[packed_key], human_bytes(size[packed_key]), "c2"),
        ]
        parts.append(f"<h3>{title}</h3>{bar_chart(bars)}")
    return "".join(parts)


def _latency(report: dict[str, Any]) -> str:
    latency = report["latency_ms"]
    names = {"packed_prepared": "packed, prepared", "packed_captured": "packed, captured"}
    bars = [
        Bar(
            names.get(name, name),
            value["median"],
            f"{value['median']:.2f} ms",
            "c1" if name == "float" else "c2",
        )
        for name, value in latency.items()
    ]
    return bar_chart(bars) + (
        f'<p class="note">Median of {latency["float"]["repeats"]} interleaved rounds, '
        f"{_threads(report)}, instruction set {escape(str(report['isa']))}. "
        "Float and packed get the same features and edges; prepared has its rows packed and its "
        "graph sorted before; captured repeats the compiled calls of such a forward. "
        f"{escape(report['capture_refused'])}</p>"
    )


def _threads(report: dict[str, Any]) -> str:
    count = report["threads"]
    return f"{count} thread" + ("s" if count > 1 else "")


def _sites(report: dict[str, Any]) -> str:
    sites = report["sites"]
    largest = max((site["bytes"] for site in sites), default=0) or 1
    rows = "".join(
        f"<tr><th>{escape(str(site['layer']))}</th><td>{escape(str(site['site']))}</td>"
        f"<td>{_bits_badge(site['bits'])}</td><td>{escape(str(site['granularity']))}</td>"
        f"<td>{site['num_rows']:,} × {site['num_cols']:,}</td><td>{human_bytes(site['bytes'])}</td>"
        f"<td>{human_bytes(site['scale_bytes'])}</td>"
        f'<td class="meter"><i style="width:{100 * site["bytes"] / largest:.1f}%"></i></td></tr>'
        for site in sites
    )
    return (
        '<table class="text"><thead><tr><th>layer</th><th>site</th><th>bits</th><th>scale per</th>'
        "<th>shape</th><th>codes</th><th>scales</th><th></th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        f'<p class="note">Float layers: {escape(float_layer_list(report["float_layers"]))}. '
        "Averages and bytes count what they read and hold.</p>"
    )


def float_layer_list(layers: dict[str, str]) -> str:
    """Returns the layers that stayed in float as one phrase."""
    return ", ".join(f"{path or 'model'} ({name})" for path, name in layers.items()) or "none"


def _bits_badge(bits: Any) -> str:
    if bits is None or (isinstance(bits, (int, float)) and bits >= 32):
        return '<span class="badge float">float</span>'
    return f'<span class="badge">{bits:g}</span>'


def _widths(report: dict[str, Any]) -> list[str]:
    """Histogram per site, and mean width against in-degree, where nodes have their own widths."""
    by_degree = {entry["site"]: entry["classes"] for entry in report["widths"]["by_degree"]}
    cards = []
    for entry in report["widths"]["histograms"]:
        bars = [
            Bar(f"{bits} bit" + ("s" if bits > 1 else ""), count, str(count), "c2")
            for bits, count in enumerate(entry["nodes"], start=1)
            if count
        ]
        rows = "".join(
            f"<tr><th>{row['degrees']}</th><td>{row['nodes']}</td>"
            f"<td>{row['mean_width']:.2f}</td></tr>"
            for row in by_degree.get(entry["site"], [])
        )
        table = (
            "<table><thead><tr><th>in-degree</th><th>nodes</th><th>mean width</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )
        trend = [row["mean_width"] for row in by_degree.get(entry["site"], [])]
        chart = ""
        if len(trend) > 1:
            label = "in-degree class, by powers of two"
            chart = line_chart([Series("mean width", trend, "c2")], label)
        title = f"Widths at {entry['site']}, {entry['mean']:.2f} on average"
        cards.append(_card(title, bar_chart(bars) + chart + (table if rows else "")))
    return cards


def _origin(report: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    entries = [
        ("Command", f"<code>{escape(report['command'])}</code>" if report["command"] else "–"),
        ("Data", escape(report["dataset"]["notes"])),
        ("Versions", escape(versions)),
        ("Processor", escape(f"{report['processor']}, {_threads(report)}")),
        ("Training", f"{report['train_seconds']:.0f} s in all"),
        ("Best run", f"seed {report['runs'][report['best_run']]['seed']}, chosen on validation"),
    ]
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in entries) + "</dl>"


def _card(title: str, body: str, wide: bool = False) -> str:
    return f'<section class="card{" wide" if wide else ""}"><h2>{title}</h2>{body}</section>'
