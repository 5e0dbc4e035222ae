"""What ``nodebits bench`` is told, by subject; commands make their options from it.

Nothing here imports torch; ``SpeedSettings`` checks the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nodebits.core.options import Count, Range

_Least = Annotated[int, Range(0)]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Timing.

    Attributes:
        bits: Widths, comma-separated.
        threads: Numbers of threads, comma-separated, a run each, by default torch's.
        repeats: Rounds behind a median.
        budget: Seconds after which a slow one stops at three rounds.
        only: Only implementations whose name has one of these parts, comma-separated.
        device: Where to measure, cpu or cuda.
    """

    bits: tuple[int, ...] = (8, 4, 2, 1)
    threads: tuple[int, ...] = ()
    repeats: Count = 9
    budget: float = 20.0
    only: tuple[str, ...] = ()
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class OnGraph:
    """Graph.

    Attributes:
        graph: reddit-like, products-like, arxiv-like, random:NODES:EDGES, or a data set (Cora).
        communities: Communities of a generated graph, 0 for no locality.
        reorder: Also with nodes renumbered for locality.
        seed: Seed of a generated graph.
        cache: Cache folder.
        data_root: Folder of raw data.
    """

    graph: str = "arxiv-like"
    communities: _Least = 0
    reorder: bool = False
    seed: _Least = 0
    cache: Path | None = None
    data_root: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Sums.

    Attributes:
        columns: Columns of a row.
        weighted: Also with a weight per edge.
    """

    columns: Count = 128
    weighted: bool = True


@dataclass(frozen=True, kw_only=True)
class OfModels:
    """Models.

    Attributes:
        models: Of gcn, gin, sage, gat, appnp, comma-separated.
        hidden: Hidden width, by default 128, on data sets 64 (GAT: all heads).
    """

    models: tuple[str, ...] = ("gcn",)
    hidden: Count | None = None


@dataclass(frozen=True, kw_only=True)
class OfMolecules:
    """Molecules.

    Attributes:
        graphs: Molecules of the batch.
    """

    graphs: Count = 4096


@dataclass(frozen=True, kw_only=True)
class OnHost:
    """Rows of the host.

    Attributes:
        nodes: Rows that the host keeps.
        batch: Rows that a sample asks for.
    """

    nodes: Count = 232_965
    batch: Count = 100_000


@dataclass(frozen=True, kw_only=True)
class Written:
    """Output.

    Attributes:
        json: Write all rows to this file.
        plot: Draw them to this file (png, svg, pdf).
        force: Replace results that exist.
    """

    json: Path | None = None
    plot: Path | None = None
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Aggregate(Written, Timing, Sums, OnGraph):
    """Sums over neighbours."""


@dataclass(frozen=True, kw_only=True)
class Dense(Written, Timing):
    """Product.

    Attributes:
        shape: Rows, inputs and outputs.
    """

    shape: str = "232965x600x128"


@dataclass(frozen=True, kw_only=True)
class Model(Written, Timing, OfModels, OnGraph):
    """Forwards of models."""

    bits: tuple[int, ...] = (8, 4, 2)
    models: tuple[str, ...] = ("gcn", "gin", "sage", "gat", "appnp")


@dataclass(frozen=True, kw_only=True)
class Train(Written, Timing, OfModels, OnGraph):
    """Training steps."""

    bits: tuple[int, ...] = (4,)
    repeats: Count = 15


@dataclass(frozen=True, kw_only=True)
class Molecules(Written, Timing, OfModels, OfMolecules):
    """Models of graphs.

    Attributes:
        models: Of gcn and gin, comma-separated.
        hidden: Hidden width, by default 128.
    """

    bits: tuple[int, ...] = (8, 4, 2)
    models: tuple[str, ...] = ("gcn", "gin")
    hidden: Count | None = None


@dataclass(frozen=True, kw_only=True)
class HostRows(Written, Timing, Sums, OnHost):
    """Rows of the host."""

    device: str = "cuda"


@dataclass(frozen=True, kw_only=True)
class Growth(Written, Timing, Sums):
    """Growth.

    Attributes:
        first: Fewest edges.
        last: Most edges.
        cache: Cache folder.
    """

    first: int = 100_000
    last: int = 100_000_000
    cache: Path | None = None
