"""LoRAP's prompt (Liu, Li and Rossi, arXiv 2601.15079): what is added to each aggregated row.

``s_i + sum_k softmax(A s_i)_k b_k``, where the few vectors ``b_k`` are of low rank, ``B = U V``.
The three maps are linear layers, so they become integer products as others do. What the paper
states and what is our reading of it: ``docs/methods/lorap.md``.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor, nn

# Prompts begin near zero: a warm start stays one.
_FIRST_SIZE = 0.01


class AggregationPrompt(nn.Module):
    """Adds to every row a mixture of learned vectors that the row itself chooses.

    Args:
        channels: Columns of the aggregated rows, C.
        count: Vectors, K.
        rank: Of the K vectors together.
        path: Where it stands in the model; its first weights follow from that alone.
        device: Of the weights; ``meta`` for none yet.

    Attributes:
        score: C to K, the scores that the softmax makes shares of.
        down: K to rank.
        up: rank to C.
    """

    def __init__(
        self,
        channels: int,
        count: int,
        rank: int,
        path: str = "",
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        made = "meta" if str(device) == "meta" else "cpu"
        self.score = nn.Linear(channels, count, bias=False, device=made)
        self.down = nn.Linear(count, rank, bias=False, device=made)
        self.up = nn.Linear(rank, channels, bias=False, device=made)
        if made != "meta":
            self._draw(torch.Generator(device="cpu").manual_seed(zlib.crc32(path.encode())))
            self.to(device)

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        for linear, size in ((self.score, 1.0), (self.down, 1.0), (self.up, _FIRST_SIZE)):
            bound = size / math.sqrt(linear.in_features)
            linear.weight.uniform_(-bound, bound, generator=generator)

    def forward(self, rows: Tensor) -> Tensor:
        """Adds the prompts; float32 ``[N, C]`` to float32 ``[N, C]``."""
        shares = self.score(rows).softmax(-1)
        result: Tensor = rows + self.up(self.down(shares))
        return result
