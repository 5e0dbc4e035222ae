"""The accelerator model against cases computed by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from accelerator import (
    PUBLISHED,
    Accelerator,
    Phase,
    cost_of,
    phases_of,
    read_accelerator,
    simulate,
)
from nodebits.core.errors import ConfigError

FAST = Accelerator(bytes_per_cycle=1e9)  # memory never waits


def product(counts: tuple[int, ...], columns: int = 20, outputs: int = 7) -> Phase:
    return Phase("lin.input", "product", counts, columns, outputs)


def test_a_product_takes_its_bits_times_its_tiles() -> None:
    # 3 rows of 1 bit and 2 of 4: 11 bits; 20 columns are 2 tiles of 16, 7 outputs are 1.
    cost = cost_of(product((3, 0, 0, 2, 0, 0, 0, 0)), FAST)
    assert cost.compute == cost.cycles == 11 * 2 * 1
    # Rows of ceil(20/8) = 3 and ceil(80/8) = 10 bytes; 7 weight rows of 20 four-bit codes.
    assert cost.bytes == 3 * 3 + 2 * 10 + 7 * 10
    wide = cost_of(product((3, 0, 0, 2, 0, 0, 0, 0), outputs=33), FAST)
    assert wide.compute == 11 * 2 * 3


def test_a_sum_takes_its_edges_at_any_width() -> None:
    phase = Phase("conv.message", "sum", (0, 2, 0, 0, 0, 0, 0, 2), 20, 20, edges=9)
    assert cost_of(phase, FAST).compute == 9 * 2
    serial = replace(FAST, sum_serial=True)
    assert cost_of(phase, serial).compute == 9 * 2 * 5  # rows of 5 bits on average
    assert cost_of(phase, FAST).bytes == 2 * 5 + 2 * 20 + 4 * 9


def test_memory_and_computing_overlap_or_add_up() -> None:
    phase = product((3, 0, 0, 2, 0, 0, 0, 0))
    slow = Accelerator(bytes_per_cycle=1.0)
    assert cost_of(phase, slow).cycles == 99
    assert cost_of(phase, replace(slow, overlap=False)).cycles == 99 + 22
    assert cost_of(phase, replace(slow, bytes_per_cycle=99.0)).cycles == 22


def test_speedup_of_a_two_layer_model() -> None:
    """Sums cost the same at any width, so a product half as wide gains less than two."""
    phases = [
        product((0, 10, 0, 0, 0, 0, 0, 0), 16, 16),
        Phase("conv.message", "sum", (0, 0, 0, 10, 0, 0, 0, 0), 16, 16, edges=30),
    ]
    found = simulate(phases, FAST)
    assert found["cycles"] == {"learned": 20 + 30, "int4": 40 + 30, "int8": 80 + 30}
    assert found["speedup"] == {"int4": 70 / 50, "int8": 110 / 50}
    assert found["bytes"]["int8"] > found["bytes"]["int4"] > found["bytes"]["learned"]


@pytest.mark.parametrize(
    ("raw", "learned", "int4"),
    [("own", 10 * 2 * 19, 10 * 4 * 19), ("equal", 10 * 19, 10 * 19), ("excluded", 0, 0)],
)
def test_raw_features_count_as_told(raw: str, learned: int, int4: int) -> None:
    phases = [
        product((0, 10, 0, 0, 0, 0, 0, 0), 300, 16),
        product((10, 0, 0, 0, 0, 0, 0, 0), 16, 16),
    ]
    found = simulate(phases, replace(FAST, raw_input=raw))
    assert found["cycles"]["learned"] == learned + 10
    assert found["cycles"]["int4"] == int4 + 40


def test_phases_come_from_the_account() -> None:
    sites = [
        {"layer": "a.lin", "site": "input", "bits": 2.5, "rows_per_width": (0, 1, 1) + (0,) * 5,
         "num_rows": 2, "num_cols": 5},
        {"layer": "a", "site": "message", "bits": 4, "rows_per_width": None, "num_rows": 2,
         "num_cols": 3},
        {"layer": "a", "site": "attention", "bits": 8, "num_rows": 6, "num_cols": 1},
    ]  # fmt: skip
    weights = [{"layer": "a.lin", "site": "quantized_weight", "bits": 4, "num_rows": 3}]
    first, second = phases_of(sites, weights, 6)
    assert (first.kind, first.out_columns, first.edges) == ("product", 3, 0)
    assert first.rows_per_width[:3] == (0, 1, 1)
    assert (second.kind, second.edges, second.rows_per_width[3]) == ("sum", 6, 2)
    sites[1]["bits"] = 32
    with pytest.raises(ConfigError, match=r"a\.message is left in float"):
        phases_of(sites, weights, 6)


def test_parameters_are_read(tmp_path: Path) -> None:
    assert read_accelerator() == Accelerator()
    path = tmp_path / "machine.toml"
    path.write_text("[combination]\nrows = 4\n[memory]\noverlap = false\n")
    assert read_accelerator(path) == Accelerator(product_rows=4, overlap=False)
    for text, names in (
        ("[combination]\nrow = 4", r"unknown entry combination\.row"),
        ("[combination]\nrows = 0", "product_rows is 0"),
        ("[accounting]\nraw_input = 'none'", "raw_input is 'none'"),
        ("rows = ", "machine.toml"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=names):
            read_accelerator(path)
    with pytest.raises(ConfigError, match="missing"):
        read_accelerator(tmp_path / "missing.toml")


def test_a_sum_adds_several_edges_at_once() -> None:
    phase = Phase("conv.message", "sum", (0, 0, 0, 4, 0, 0, 0, 0), 20, 20, edges=33)
    # 33 edges are 3 groups of 16, 20 columns are 2 blocks of 16.
    assert cost_of(phase, replace(FAST, sum_edges=16)).compute == 3 * 2
    with pytest.raises(ConfigError, match="sum_edges"):
        Accelerator(sum_edges=0)


@pytest.mark.parametrize(
    ("nodes", "edges", "outputs", "twos", "speedup"),
    [
        # Mean widths 1.70 and 1.87 as rows of 1 and 2 bits; edges with a loop per node.
        # Cora: 13,264 edges are 829 cycles in each of two sums; 2,708 rows of 4 bits are 10,832
        # cycles, 812 of 1 bit and 1,896 of 2 are 4,604: 12,490 / 6,262.
        (2708, 10_556 + 2708, 7, 1896, 12_490 / 6_262),
        # CiteSeer: 777 cycles a sum; 13,308 and 433 + 2 * 2,894 = 6,221: 14,862 / 7,775.
        (3327, 9_104 + 3327, 6, 2894, 14_862 / 7_775),
    ],
)
def test_inferred_parameters_give_the_published_pair(
    nodes: int, edges: int, outputs: int, twos: int, speedup: float
) -> None:
    hidden = (nodes - twos, twos, 0, 0, 0, 0, 0, 0)
    fours = (0, 0, 0, nodes, 0, 0, 0, 0)
    phases = [
        product((nodes, 0, 0, 0, 0, 0, 0, 0), 1433, 16),
        Phase("convs.0.message", "sum", fours, 16, 16, edges=edges),
        product(hidden, 16, outputs),
        Phase("convs.1.message", "sum", fours, outputs, outputs, edges=edges),
    ]
    found = simulate(phases, read_accelerator(PUBLISHED))
    assert found["speedup"]["int4"] == pytest.approx(speedup, rel=1e-12)
    published = {2708: 2.00, 3327: 1.91}[nodes]
    assert found["speedup"]["int4"] == pytest.approx(published, abs=0.006)
