"""What a bit table costs, from its widths alone: bytes and average bits exact, latency predicted.

Bytes are those of the packed model in one forward: codes and scales of all activation tensors and
weights. They add up over sites, so each site's share is looked up by its widths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nodebits.core.errors import ConfigError, UnknownNameError
from nodebits.core.packing import row_bytes
from nodebits.engine.buckets import Buckets
from nodebits.methods import SGQuantConfig
from nodebits.runtime import Account
from nodebits.search.evaluator import Evaluator
from nodebits.search.latency import LatencyTable
from nodebits.search.space import Point, Space

OBJECTIVES = ("bytes", "bits", "latency")
Widths = int | tuple[int, ...]


@dataclass(frozen=True)
class _Tensor:
    """Shape of what sits at a site; rows of every degree bucket where widths follow degrees."""

    num_rows: int
    num_cols: int
    rows_per_bucket: tuple[int, ...] | None


class CostModel:
    """Costs of the points of a space.

    Args:
        evaluator: Gives shapes and scales.
        space: The slots.
        latency: Table of measured latencies, for the objective ``latency``.
    """

    def __init__(
        self, evaluator: Evaluator, space: Space, latency: LatencyTable | None = None
    ) -> None:
        self.space, self.latency_table = space, latency
        self._evaluator = evaluator
        reference = space.config(space.uniform(8))
        account = evaluator.account(reference)
        self._tensors = _tensors(account, evaluator, space)
        self._weights = {
            f"{w.layer}.weight" if w.layer else "weight": (w.num_rows, w.num_cols)
            for w in account.weights
            if w.site == "quantized_weight"
        }
        searched = {site for slot in space.slots for site in slot.sites}
        self._fixed_bytes = sum(
            site.bytes + site.scale_bytes
            for site in (*account.sites, *account.weights)
            if _path(site.layer, site.site) not in searched
        )
        fixed = [s for s in account.sites if _path(s.layer, s.site) not in searched]
        self._fixed_bits = sum(s.bits * s.elements for s in fixed)
        self._elements = sum(s.elements for s in account.sites)
        self._scale_bytes: dict[tuple[str, Widths], int] = {}

    def of(self, point: Point, objective: str) -> float:
        """Cost of a point.

        Raises:
            UnknownNameError: On an unknown objective.
            ConfigError: For ``latency`` without a table.
        """
        if objective == "bytes":
            return float(self.bytes(point))
        if objective == "bits":
            return self.bits(point)
        if objective == "latency":
            if self.latency_table is None:
                raise ConfigError("the objective latency needs a table of kernel costs")
            return self.latency_table.predict(self.space, point)
        raise UnknownNameError.for_name("objective", objective, OBJECTIVES)

    def bytes(self, point: Point) -> int:
        """Bytes of all activation tensors and weights of one packed forward."""
        total = self._fixed_bytes
        for site, widths in _by_site(self.space, point).items():
            if site in self._weights:
                assert isinstance(widths, int)
                rows, cols = self._weights[site]
                total += rows * row_bytes(cols, widths) + 4 * rows
                continue
            tensor = self._tensors[site]
            if isinstance(widths, int):
                total += tensor.num_rows * row_bytes(tensor.num_cols, widths)
            else:
                assert tensor.rows_per_bucket is not None
                for rows, width in zip(tensor.rows_per_bucket, widths, strict=True):
                    total += rows * row_bytes(tensor.num_cols, width)
            total += self._scales(site, widths, point)
        return total

    def _scales(self, site: str, widths: Widths, point: Point) -> int:
        # Every mixture of widths carries the same scales.
        key = (site, widths if isinstance(widths, int) else ())
        if key not in self._scale_bytes:
            frozen = self._evaluator.frozen(self.space.config(point), site)
            # A softmax site has one constant scale.
            rows = self._tensors[site].num_rows
            self._scale_bytes[key] = 4 if frozen is None else frozen.scale_bytes(rows)
        return self._scale_bytes[key]

    def bucket_shares(self) -> list[float] | None:
        """Share of nodes in each degree bucket; None for methods without buckets."""
        for tensor in self._tensors.values():
            if tensor.rows_per_bucket is not None:
                total = max(sum(tensor.rows_per_bucket), 1)
                return [rows / total for rows in tensor.rows_per_bucket]
        return None

    def bits(self, point: Point) -> float:
        """Average bits over the elements of all activation tensors, scales left out."""
        total = self._fixed_bits
        for site, widths in _by_site(self.space, point).items():
            if site in self._weights:
                continue
            tensor = self._tensors[site]
            if isinstance(widths, int):
                total += widths * tensor.num_rows * tensor.num_cols
            else:
                assert tensor.rows_per_bucket is not None
                rows = zip(tensor.rows_per_bucket, widths, strict=True)
                total += tensor.num_cols * sum(n * width for n, width in rows)
        return total / max(self._elements, 1)


def _path(layer: str, site: str) -> str:
    name = "weight" if site == "quantized_weight" else site
    return f"{layer}.{name}" if layer else name


def _by_site(space: Space, point: Point) -> dict[str, Widths]:
    return {
        site: tuple(value) if isinstance(value, list) else value
        for site, value in space.table(point).items()
    }


def _tensors(account: Account, evaluator: Evaluator, space: Space) -> dict[str, _Tensor]:
    graph = evaluator.graph()
    counts = None
    config = space.config(space.uniform(8))
    if graph is not None and isinstance(config, SGQuantConfig):
        widths = [8] * (len(config.splits) + 1)
        bucket = Buckets(config.splits, widths).of(graph)
        counts = tuple(torch.bincount(bucket, minlength=len(widths)).tolist())
    return {_path(s.layer, s.site): _Tensor(s.num_rows, s.num_cols, counts) for s in account.sites}
