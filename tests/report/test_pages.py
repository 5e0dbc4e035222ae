"""Pages: what users name is escaped, and charts live in the page's colours."""

from __future__ import annotations

import re

import pytest
from jinja2 import UndefinedError

from nodebits.report.charts import COLOURS, Bar, Dots, Series, bars, inline, lines, scatter
from nodebits.report.page import render
from nodebits.report.quantize import render_quantize
from nodebits.report.words import human_bytes


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 20, "3.0 MiB")]
)
def test_human_bytes(count, text):
    assert human_bytes(count) == text


def test_page_escapes_what_users_name():
    fit = {"best_epoch": 0, "loss": [1.0], "val_loss": [1.0], "val_accuracy": [0.5]}
    spread = {"mean": 0.5, "std": 0.0, "values": [0.5]}
    latency = {"median": 1.0, "minimum": 1.0, "p90": 1.0, "repeats": 1}
    run = {"seed": 0, "fold": 3, "float": 0.5, "simulated": 0.5, "packed": 0.5, "agreement": 1.0}
    report = {
        "interrupted": True,
        "dataset": {"name": "<b>odd</b>", "notes": "a & b"},
        "model": {"name": "gin", "num_layers": 2, "hidden_channels": 8},
        "method": {"name": "uniform", "bits": 1, "preset": "default"},
        "metric": {
            "name": "accuracy",
            "title": "accuracy",
            "higher_is_better": True,
            "share": True,
        },
        "accuracy": {"float": spread, "simulated": spread, "packed": spread},
        "agreement": 1.0,
        "bits": {"average": 1.0, "average_with_scales": 1.1},
        "bytes": {"file": 1, "float_file": 2, "activations": 1, "float_activations": 9}
        | {"weights": 1, "float_weights": 4},
        "float_layers": {"<norm>": "BatchNorm1d"},
        "sites": [],
        "widths": {"histograms": [], "by_degree": []},
        "plan": {"steps": ["gemm", "module: <odd>"], "python": ["module: <odd>"], "reason": ""},
        "latency_ms": dict.fromkeys(
            ("float", "packed", "packed_module", "packed_prepared"), latency
        ),
        "speedup": 1.0,
        "speedup_prepared": 1.0,
        "train_seconds": 1.0,
        "runs": [{**run, "best_epoch": None, "epochs": 0}],
        "best_run": 0,
        "curves": {"float": fit},
        "versions": {"torch": "2"},
        "processor": "p",
        "threads": 1,
        "isa": "avx2",
        "command": "nodebits quantize --out '<x>'",
    }
    page = render_quantize(report)
    assert "&lt;norm&gt; (BatchNorm1d)" in page
    assert "<b>odd" not in page and "<x>" not in page and "a &amp; b" in page
    assert "interrupted" in page and "1 bit" in page and "fold 3" in page
    assert "http" not in page
    assert "2, 1 of them compiled" in page and "module: &lt;odd&gt;" in page


def test_a_page_asks_for_all_its_values() -> None:
    with pytest.raises(UndefinedError, match="title"):
        render("quantize.html", report={"interrupted": False})


FIGURES = {
    "lines": lambda: lines([Series("a<b", [0.1, 0.5, 0.4], "c1", 1)], "epoch", percent=True),
    "one value": lambda: lines([Series("a<b", [0.1], "c1", 0)], "epoch"),
    "bars": lambda: bars({"": [Bar("a<b", 0.0, "0 B", "c2")] * 2, "more": []}),
    "scatter": lambda: scatter([Dots("a<b", [(1, 0.5), (2, 0.7)], "c2", True)], "bytes", 0.6),
    "no dots": lambda: scatter([Dots("a<b", [], "c2")], "bytes"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_charts_take_the_colours_of_the_page(name: str) -> None:
    text = str(inline(FIGURES[name]()))
    assert text.startswith('<svg class="chart" role="img" viewBox="') and text.endswith("</svg>\n")
    assert "a&lt;b" in text and "a<b" not in text
    assert "var(--" in text and not any(colour in text for colour in COLOURS.values())
    assert text == str(inline(FIGURES[name]()))


def test_two_charts_of_a_page_share_no_names() -> None:
    first, second = (
        re.findall(r' id="([^"]*)"', inline(lines([Series("x", values, "c1")], "epoch")))
        for values in ([0.1, 0.5], [3.0, 9.0, 4.0])
    )
    assert len(first) == len(set(first))
    # What is left is named by its content.
    assert all(re.fullmatch(r"[pm][0-9a-f]+", name) for name in [*first, *second])
