"""The page of a search: front of the metric against bytes and against measured milliseconds."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from nodebits.report.charts import Dots, inline, scatter
from nodebits.report.page import render
from nodebits.report.words import (
    drop_unit,
    figure,
    heading,
    human_bytes,
    model_title,
    percent_sign,
)


def render_search(report: dict[str, Any]) -> str:
    """Returns the page for what ``run_search`` found."""
    others = [point for point in report["confirmed"] if point not in report["front"]]
    space, unit = report["space"], drop_unit(report["metric"])
    return render(
        "search.html",
        report=report,
        metric=report["metric"],
        head=heading(report["metric"]),
        title=f"Bit search: {model_title(report['model'])} on {report['dataset']['name']}",
        details=[
            f"method {report['method']}",
            f"least {report['objective']} within {report['max_drop']:g} {unit} of float",
            f"strategy {report['strategy']}, {len(report['trials'])} configurations measured",
        ],
        tiles=_tiles(report),
        bytes_chart=_bytes(report),
        time_chart=_times(report),
        points=[*report["front"], *others],
        drop=_drop,
        origin={
            "Space": f"{len(space['slots'])} slots, {space['size']:.3g} points",
            "Time": f"{report['seconds']:.0f} s in all",
        },
    )


def _tiles(report: dict[str, Any]) -> list[tuple[str, str]]:
    chosen, unit = report["chosen"], drop_unit(report["metric"])
    if chosen is None:
        tiles = [("none", "configuration keeps the promise when confirmed")]
        if report["nearest"] is not None:
            nearest = report["nearest"]["confirmation"]
            tiles.append((_drop(nearest), f"{unit} lost by the nearest one"))
        return tiles
    confirmed = chosen["confirmation"]
    metric = report["metric"]
    kept = figure(confirmed["summary"]["val"]["mean"], metric, 1)
    tiles = [
        (human_bytes(chosen["bytes"]), "activations and weights, packed"),
        (f"{chosen['bits']:.2f}", "bits on average over activations"),
        (
            f"{kept}{percent_sign(metric)}",
            f"on validation, packed, mean of {len(confirmed['seeds'])} seeds; "
            f"{_drop(confirmed)} {unit} lost",
        ),
    ]
    if chosen["milliseconds"] is not None:
        tiles.append((f"{chosen['milliseconds']:.2f} ms", "one packed forward"))
    return tiles


def _bytes(report: dict[str, Any]) -> Markup:
    name, share = report["metric"]["name"], report["metric"]["share"]

    def dots(items: list[dict[str, Any]]) -> list[tuple[float, float]]:
        return [(item["bytes"] / 1024, item[name]) for item in items]

    groups = [
        Dots("measured", dots(report["trials"]), "c1"),
        Dots("front", sorted(dots(report["front"])), "c2", report["objective"] == "bytes"),
    ]
    return inline(scatter(groups, "bytes, KiB", report["target"], percent=share))


def _times(report: dict[str, Any]) -> Markup:
    timed = [p for p in report["front"] if p["milliseconds"] is not None]
    metric = report["metric"]
    points = sorted((p["milliseconds"], p[metric["name"]]) for p in timed)
    dots = Dots("front, measured", points, "c2")
    chart = scatter([dots], "one packed forward, ms", report["target"], percent=metric["share"])
    return inline(chart)


def _drop(confirmation: dict[str, Any] | None) -> str:
    if confirmation is None:
        return "–"
    return f"{confirmation['drop']:.2f} ± {confirmation['error']:.2f}"
