"""The page of a search: front of accuracy against bytes and against measured milliseconds."""

from __future__ import annotations

from html import escape
from typing import Any

from nodebits.bench.html import human_bytes
from nodebits.bench.scatter import Dots, scatter_chart
from nodebits.bench.style import STYLE


def render_search(report: dict[str, Any]) -> str:
    """Returns the page for what ``run_search`` found."""
    model, dataset = report["model"], report["dataset"]
    title = f"Bit search: {model['name'].upper()} on {dataset['name']}"
    sections = [
        _header(report, title),
        _tiles(report),
        _card("Accuracy against bytes", _chart(report, "bytes", "KiB", 1024.0)),
        _card("Accuracy against time", _times(report)),
        _card("Chosen table", _table(report), wide=True),
        _card("Front", _front(report), wide=True),
        _card("How it was made", _origin(report), wide=True),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _header(report: dict[str, Any], title: str) -> str:
    details = [
        f"method {report['method']}",
        f"least {report['objective']} within {report['max_drop']:g} points of float",
        f"strategy {report['strategy']}, {len(report['trials'])} configurations measured",
    ]
    warning = ""
    if report["interrupted"]:
        warning = '<p class="warning">The search was interrupted: the same command continues.</p>'
    return f"<header><h1>{escape(title)}</h1><p>{escape(' · '.join(details))}</p>{warning}</header>"


def _tiles(report: dict[str, Any]) -> str:
    chosen = report["chosen"]
    if chosen is None:
        tiles = [("none", "configuration keeps the promise when confirmed")]
        if report["nearest"] is not None:
            confirmed = report["nearest"]["confirmation"]
            tiles.append((_drop(confirmed), "points lost by the nearest one"))
    else:
        confirmed = chosen["confirmation"]
        accuracy = confirmed["summary"]["val"]["mean"]
        tiles = [
            (human_bytes(chosen["bytes"]), "activations and weights, packed"),
            (f"{chosen['bits']:.2f}", "bits on average over activations"),
            (
                f"{100 * accuracy:.1f}%",
                f"on validation, packed, mean of {len(confirmed['seeds'])} seeds; "
                f"{_drop(confirmed)} points lost",
            ),
        ]
        if chosen["milliseconds"] is not None:
            tiles.append((f"{chosen['milliseconds']:.2f} ms", "one packed forward"))
    body = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(text)}</span></div>'
        for value, text in tiles
    )
    return f'<section class="tiles">{body}</section>'


def _chart(report: dict[str, Any], cost: str, unit: str, divisor: float) -> str:
    def dots(items: list[dict[str, Any]]) -> list[tuple[float, float]]:
        return [(item[cost] / divisor, item["accuracy"]) for item in items]

    groups = [
        Dots("measured", dots(report["trials"]), "c1"),
        Dots("front", sorted(dots(report["front"])), "c2", stairs=report["objective"] == cost),
    ]
    return scatter_chart(groups, f"{cost}, {unit}", report["target"])


def _times(report: dict[str, Any]) -> str:
    timed = [p for p in report["front"] if p["milliseconds"] is not None]
    points = sorted((p["milliseconds"], p["accuracy"]) for p in timed)
    return scatter_chart(
        [Dots("front, measured", points, "c2")], "one packed forward, ms", report["target"]
    )


def _table(report: dict[str, Any]) -> str:
    chosen = report["chosen"]
    if chosen is None:
        return (
            "<p>No configuration keeps the promise when confirmed: raise the budget or the allowed "
            "drop.</p>"
        )
    rows = "".join(
        f"<tr><th>{escape(site)}</th><td>{_widths(width)}</td></tr>"
        for site, width in chosen["table"].items()
    )
    return (
        '<table class="text"><thead><tr><th>site</th><th>bits (lowest degrees first)</th></tr>'
        f"</thead><tbody>{rows}</tbody></table>"
        '<p class="note">config.toml holds this table for nodebits quantize --config.</p>'
    )


def _widths(width: int | list[int]) -> str:
    widths = width if isinstance(width, list) else [width]
    return " ".join(f'<span class="badge">{w}</span>' for w in widths)


def _front(report: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{human_bytes(p['bytes'])}</td><td>{p['bits']:.2f}</td>"
        f"<td>{_number(p['predicted_ms'])}</td><td>{_number(p['milliseconds'])}</td>"
        f"<td>{100 * p['accuracy']:.2f}</td><td>{_confirmed(p, 'val')}</td>"
        f"<td>{_confirmed(p, 'test')}</td><td>{_drop(p['confirmation'])}</td></tr>"
        for p in [*report["front"], *(c for c in report["confirmed"] if c not in report["front"])]
    )
    return (
        "<table><thead><tr><th>bytes</th><th>bits</th><th>ms, predicted</th><th>ms, measured</th>"
        "<th>accuracy, calibrated</th><th>confirmed, validation</th><th>test</th>"
        "<th>drop</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        '<p class="note">Percent; calibrated on validation. Confirmed: packed models, mean and '
        "standard deviation over seeds; drop: points of validation accuracy, with its standard "
        "error, beside float models of the same seeds. Nothing was chosen by the test split. "
        f"Float: {100 * report['float']['val']:.2f}.</p>"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _confirmed(point: dict[str, Any], split: str) -> str:
    if point["confirmation"] is None:
        return "–"
    found = point["confirmation"]["summary"][split]
    return f"{100 * found['mean']:.2f} ± {100 * found['std']:.2f}"


def _drop(confirmation: dict[str, Any] | None) -> str:
    if confirmation is None:
        return "–"
    return f"{confirmation['drop']:.2f} ± {confirmation['error']:.2f}"


def _origin(report: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    threads = f"{report['threads']} thread" + ("s" if report["threads"] > 1 else "")
    entries = [
        ("Command", f"<code>{escape(report['command'])}</code>" if report["command"] else "–"),
        ("Data", escape(report["dataset"]["notes"])),
        ("Space", f"{len(report['space']['slots'])} slots, {report['space']['size']:.3g} points"),
        ("Versions", escape(versions)),
        ("Processor", escape(f"{report['processor']}, {threads}, {report['isa']}")),
        ("Time", f"{report['seconds']:.0f} s in all"),
    ]
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in entries) + "</dl>"


def _card(title: str, body: str, wide: bool = False) -> str:
    return f'<section class="card{" wide" if wide else ""}"><h2>{title}</h2>{body}</section>'
