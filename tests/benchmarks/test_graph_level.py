"""The grid of graph-level sets runs as written, and the table says what the committed rows say."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import graph_level
import graph_level_table
from nodebits.core.errors import UnknownNameError
from nodebits.data.catalogue import find_entry
from nodebits.jobs.compare_rows import key_of, read_rows
from nodebits.methods import method_names

GRID = tomllib.loads(graph_level.GRID.read_text(encoding="utf-8"))


def comparisons(*words: str) -> list[graph_level.CompareConfig]:
    return list(graph_level.comparisons(GRID, graph_level.parse(list(words))))


def test_the_grid_names_what_there_is() -> None:
    parts = comparisons()
    assert {part.dataset for part in parts} >= {"MNIST", "CIFAR10", "AQSOL", "ESOL", "DD"}
    assert all(find_entry(part.dataset).name == part.dataset for part in parts)
    assert {part.model for part in parts} == {"gin", "gcn", "gat"}
    assert {method for part in parts for method, _ in part.chosen()} <= set(method_names())
    keys = [key_of(job) for part in parts for job in part.jobs()]
    assert len(set(keys)) == len(keys)
    assert all((part.folds is None) == (part.seeds > 1) for part in parts)


def test_a_part_of_the_grid(tmp_path: Path) -> None:
    images = tmp_path / "MNIST" / "raw"
    images.mkdir(parents=True)
    words = "--datasets MNIST:50 ESOL --models gin --bits 4 --epochs 3 --seeds 1 --folds 2".split()
    mnist, esol = comparisons(*words, "--data-root", str(tmp_path))
    assert (mnist.dataset, mnist.seeds, mnist.folds) == ("MNIST-slic:50", 1, None)
    assert (esol.seeds, esol.folds, esol.hidden, esol.layers) == (1, 2, 110, 4)
    assert mnist.bits == (4,) and mnist.float_epochs == mnist.epochs == 3
    said = graph_level.command(graph_level.parse([*words, "--data-root", str(tmp_path)]))
    assert said.endswith(" ".join(words)) and str(tmp_path) not in said
    with pytest.raises(UnknownNameError):
        comparisons("--datasets", "Nothing")


def test_the_table_holds_the_committed_rows() -> None:
    rows = read_rows(graph_level_table.ROWS)
    text = graph_level_table.render(rows)
    assert graph_level_table.TABLE.read_text(encoding="utf-8") == text
    assert all(row["dataset"] in text and row["command"] in text for row in rows)


@pytest.mark.parametrize(
    ("name", "released"),
    [
        ("MNIST-slic:2000", "MNIST"),
        ("CIFAR10-jpeg-slic", "CIFAR10"),
        ("ZINC12k_alt", "ZINC12k_alt"),
        ("REDDIT-BINARY", "REDDIT-BINARY"),
    ],
)
def test_names_that_papers_know(name: str, released: str) -> None:
    assert graph_level_table.released_name(name) == released
