"""What a prediction is about: nodes, graphs, edges that there are, or links that may be."""

from __future__ import annotations

from dataclasses import dataclass

from nodebits.core.errors import ConfigError


@dataclass(frozen=True)
class Level:
    """What a prediction is about.

    Attributes:
        unit: One of them, such as ``node``; names of tasks begin with it.
        many_graphs: Whether a row is a graph, so that data are many graphs, in batches.
        pairs: Whether a row is a pair of nodes, which models are given in ``edge_label_index``.
        absent: Whether pairs without an edge are drawn as examples of targets zero.
        hint: What a model whose outputs have other rows may lack.
    """

    unit: str
    many_graphs: bool = False
    pairs: bool = False
    absent: bool = False
    hint: str = ""

    @property
    def recipe(self) -> str:
        """Whose recipes of models are used: those of ``node`` or of ``graph``."""
        return "graph" if self.many_graphs else "node"


_PAIR_HINT = "score the pairs of edge_label_index, as nodebits.models.PairModel does"
NODE = Level("node")
GRAPH = Level("graph", many_graphs=True, hint="pool the nodes of each graph by the batch vector")
EDGE = Level("edge", pairs=True, hint=_PAIR_HINT)
LINK = Level("link", pairs=True, absent=True, hint=_PAIR_HINT)
LEVELS = {level.unit: level for level in (NODE, GRAPH, EDGE, LINK)}


def level_of(name: str) -> Level:
    """The level that the name of a task begins with.

    Raises:
        ConfigError: It begins with none.
    """
    unit = name.partition("-")[0]
    if unit not in LEVELS:
        raise ConfigError(
            f"task {name!r}: its name must begin with what it is about, {', '.join(LEVELS)}, such "
            "as 'node-mine'"
        )
    return LEVELS[unit]
