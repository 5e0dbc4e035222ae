"""A model of pairs of nodes: embeddings of any model of nodes, and a head that scores pairs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nodebits.core.errors import ConfigError

HEADS = ("dot", "mlp")


class PairModel(nn.Module):
    """Scores pairs of nodes by the embeddings that another model gives them.

    The head ``dot`` is one number, the product of both. The head ``mlp`` maps every node once for
    each side, so that a pair costs a sum: ``W2 relu(Ws h_source + Wt h_target)``.
    """

    def __init__(
        self, gnn: nn.Module, channels: int, out_channels: int = 1, head: str | None = None
    ) -> None:
        """Puts a head behind a model.

        Args:
            gnn: Called as ``gnn(x, edge_index)``; gives ``[N, channels]``.
            channels: Width of the embeddings.
            out_channels: Outputs per pair.
            head: ``dot`` or ``mlp``; None: ``dot`` where one output is asked for.

        Raises:
            ConfigError: There is no such head, or it cannot have so many outputs.
        """
        super().__init__()
        head = ("dot" if out_channels == 1 else "mlp") if head is None else head
        if head not in HEADS:
            raise ConfigError(f"head is {head!r}: use one of {', '.join(HEADS)}")
        if head == "dot" and out_channels != 1:
            raise ConfigError(f"the head 'dot' has one output, {out_channels} are asked for: 'mlp'")
        self.gnn, self.head = gnn, head
        if head == "mlp":
            self.source = nn.Linear(channels, channels)
            self.target = nn.Linear(channels, channels, bias=False)
            self.act = nn.ReLU()
            self.out = nn.Linear(channels, out_channels)

    def forward(
        self,
        x: Any,
        edge_index: Any,
        edge_label_index: Tensor,
        edge_weight: Tensor | None = None,
        edge_attr: Tensor | None = None,
    ) -> Tensor:
        """Scores pairs.

        Args:
            x: Features ``[N, C]``.
            edge_index: Any adjacency, of the messages.
            edge_label_index: int64 ``[2, P]``, the pairs.
            edge_weight: Passed on where given.
            edge_attr: Likewise.

        Returns:
            ``[P, out_channels]``.
        """
        given = {"edge_weight": edge_weight, "edge_attr": edge_attr}
        h = self.gnn(x, edge_index, **{k: v for k, v in given.items() if v is not None})
        if self.head == "dot":
            source, target = h[edge_label_index[0]], h[edge_label_index[1]]
            score: Tensor = (source * target).sum(dim=-1, keepdim=True)
            return score
        ends = self.source(h)[edge_label_index[0]] + self.target(h)[edge_label_index[1]]
        result: Tensor = self.out(self.act(ends))
        return result

    @property
    def supports_edge_weight(self) -> bool:
        """As of the model of nodes."""
        return bool(getattr(self.gnn, "supports_edge_weight", True))
