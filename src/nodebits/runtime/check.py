"""What would become of a model, before anything is trained: one call on an example."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch_geometric.data.data import BaseData

from nodebits.core.errors import ConfigError, UnsupportedLayerWarning
from nodebits.core.modes import evaluating
from nodebits.methods import UniformConfig
from nodebits.methods.calibrate import calibrate, data_arguments
from nodebits.methods.prepare import prepare
from nodebits.nn.layer import QuantLayer
from nodebits.nn.wrappers import unwrap
from nodebits.runtime.account import Account
from nodebits.runtime.convert import convert
from nodebits.runtime.layer_errors import layer_calls, layer_errors, relative_error
from nodebits.runtime.packed import PackedModel
from nodebits.runtime.sample import Example
from nodebits.runtime.sites import runs_of

# In the order in which they are tried while there is time.
WIDTHS = (8, 4, 2, 6, 3, 5, 7, 1)
# How many float forwards the first width takes as long as, about, and the part of the budget that
# it may take.
_FORWARDS, _FIRST = 12, 0.5
_LEAST_NODES = 64


@dataclass(frozen=True)
class LayerCheck:
    """One layer.

    Attributes:
        path: In the model.
        kind: Class of the float layer.
        runs: See :class:`nodebits.runtime.sites.SiteLine`.
        float_bytes: Bytes of its own values in float32.
        time_share: Part of the float forward's time that it takes, with the layers inside it.
        byte_share: Part of the model's bytes in float32 that its own values are.
        errors: Relative difference of its result from the float layer's on the same input, by
            width, calibrated on the example and not trained; empty where it does not run alone.
        safe_bits: Least width tried whose error, and that of all larger ones, is within the limit;
            None if there is none.
        reason: Why it stays in float; empty otherwise.
    """

    path: str
    kind: str
    runs: str
    float_bytes: int
    time_share: float
    byte_share: float
    errors: Mapping[int, float] = field(default_factory=dict)
    safe_bits: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Check:
    """What :func:`check` found.

    Attributes:
        layers: Every layer with sites, and every one that stays in float.
        float_bytes: Bytes of the model's values in float32.
        packed_bytes: Bytes of the model at 8 bits.
        float_activation_bytes: Bytes of all tensors that layers read for the example, in float32;
            an estimate where a part of the example was tried.
        packed_activation_bytes: The same at 8 bits.
        float_seconds: A forward of the float model on the example, the better of two; likewise.
        packed_seconds: The same of the packed model at 8 bits.
        nodes: How many nodes of the example were tried; None for all of it.
        errors: Relative difference of the result from the float model's, by width, calibrated on
            the example and not trained; empty where the result holds no floats.
        limit: Error of a layer up to which a width counts as safe.
        warnings: What was said of layers on the way.
        seconds: What the check took.
    """

    layers: tuple[LayerCheck, ...]
    float_bytes: int
    packed_bytes: int
    float_activation_bytes: int
    packed_activation_bytes: int
    float_seconds: float
    packed_seconds: float
    errors: Mapping[int, float]
    limit: float
    warnings: tuple[str, ...]
    seconds: float
    nodes: int | None = None

    def __str__(self) -> str:
        rows = [("layer", "class", "runs", "time", "bytes", "safe from", "why")]
        for layer in self.layers:
            safe = "-" if layer.safe_bits is None else f"{layer.safe_bits} bits"
            shares = f"{100 * layer.time_share:.0f} %", f"{100 * layer.byte_share:.0f} %"
            rows.append((layer.path, layer.kind, layer.runs, *shares, safe, layer.reason))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        table = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
        lines = [line.rstrip() for line in table]
        lines.append(
            f"weights {self.float_bytes} -> {self.packed_bytes} bytes, activations "
            f"{self.float_activation_bytes} -> {self.packed_activation_bytes} bytes, time "
            f"{1e3 * self.float_seconds:.3g} -> {1e3 * self.packed_seconds:.3g} ms at 8 bits"
        )
        if self.nodes is not None:
            lines.append(
                f"tried on {self.nodes} nodes of the example; bytes of activations and times are "
                "estimates for all of it"
            )
        lines += [
            f"at {bits} bits the result differs by {100 * error:.2g} % before training"
            for bits, error in sorted(self.errors.items(), reverse=True)
        ]
        lines.append(
            f"safe: the layer alone differs by at most {100 * self.limit:.3g} % on this example, "
            "before training"
        )
        return "\n".join([*lines, *self.warnings])


def check(
    model: nn.Module, *example: Any, limit: float = 0.05, budget: float = 1.5, **keywords: Any
) -> Check:
    """Says what of ``model`` will run on integers, on tiles of decoded rows, or in float.

    The model is prepared and calibrated in a copy, at 8 bits and at further widths while there is
    time. Of an example whose forwards would take longer than the budget a part is tried.

    Args:
        model: A float model.
        *example: What it takes, ``x, edge_index`` as a rule; or one PyG ``Data``.
        limit: Largest relative error of a layer's result at a width that is called safe.
        budget: Seconds that it should take. 8 bits are always tried, on 64 nodes at least.
        **keywords: What it takes by name.

    Returns:
        The findings; printed, they are a table.

    Raises:
        NothingToQuantizeError: If no layer of the model can be quantized.
        ConfigError: If ``limit`` is not positive.

    Example:
        >>> print(nodebits.check(model, x, edge_index))
    """
    start = time.perf_counter()
    if not limit > 0:
        raise ConfigError(f"limit is {limit}: it must be a positive share, such as 0.05")
    model = unwrap(model)
    if len(example) == 1 and isinstance(example[0], BaseData):
        example, found = data_arguments(model, example[0])
        keywords = {**found, **keywords}
    tried = _affordable(model, example, keywords, budget)
    share = 1.0
    if tried is not None:
        example, keywords, share = tried.part.args, dict(tried.part.keywords), tried.share
    said: list[str] = []
    began = time.perf_counter()
    with _collected(said):
        prepared = _prepared(model, WIDTHS[0], example, keywords)
        took = time.perf_counter() - began
        packed = convert(prepared, leave_unseen="float")
    account = packed.account(*example, **keywords)
    paths = [path for path, _ in _shown(packed, account)]
    calls, whole_seconds = layer_calls(model, paths, example, keywords)
    expected, float_seconds = _timed(model, example, keywords)
    _, packed_seconds = _timed(packed, example, keywords)
    errors: dict[int, float] = {}
    by_layer: dict[str, dict[int, float]] = {path: {} for path in paths}
    for bits in WIDTHS:
        began = time.perf_counter()
        if bits != WIDTHS[0]:
            if began + took - start > budget:
                break
            with _collected(said):
                prepared = _prepared(model, bits, example, keywords)
        with torch.no_grad(), evaluating(prepared):
            error = relative_error(prepared(*example, **keywords), expected)
        if error is not None:
            errors[bits] = error
        for path, value in layer_errors(prepared, calls).items():
            by_layer[path][bits] = value
        seconds = time.perf_counter() - began
        took = took + seconds if bits == WIDTHS[0] else seconds
    return Check(
        tuple(
            LayerCheck(
                path or "model",
                kind,
                runs,
                size,
                calls[path].seconds / max(whole_seconds, 1e-12),
                size / max(sum(map(_own_bytes, model.modules())), 1),
                {} if runs == "float" else by_layer[path],
                None if runs == "float" else _safe(by_layer[path], limit),
                reason,
            )
            for path, kind, runs, size, reason in _described(model, packed, account, said)
        ),
        account.float_weight_bytes,
        account.weight_bytes,
        round(account.float_activation_bytes / share),
        round(account.activation_bytes / share),
        float_seconds / share,
        packed_seconds / share,
        errors,
        limit,
        tuple(said),
        time.perf_counter() - start,
        None if tried is None else tried.part.num_nodes,
    )


class _Tried(NamedTuple):
    """A part of an example, and its share of the whole."""

    part: Example
    share: float


def _affordable(
    model: nn.Module, args: tuple[Any, ...], keywords: Mapping[str, Any], budget: float
) -> _Tried | None:
    """The part of an example that there is time for; None for all of it."""
    whole = Example.of(args, keywords)
    if whole is None or whole.num_nodes <= _LEAST_NODES:
        return None
    forward, num_nodes = budget * _FIRST / _FORWARDS, _LEAST_NODES
    try:
        while True:
            part = whole.part(num_nodes)
            _, seconds = _timed(model, part.args, part.keywords)
            # A forward so short says what a call costs, not what a node does.
            if seconds > 0.2 * forward or 8 * num_nodes > whole.num_nodes:
                break
            num_nodes *= 8
        share = forward * part.size / max(seconds, 1e-9) / whole.size
        if share >= 1:
            return None
        if share * whole.num_nodes < num_nodes:
            part = whole.part(max(int(share * whole.num_nodes), _LEAST_NODES))
        elif share * whole.num_nodes > 1.5 * num_nodes:
            part = whole.part(int(share * whole.num_nodes))
        _timed(model, part.args, part.keywords)
    except Exception:  # whatever a model does that takes no part of its graph
        return None
    return _Tried(part, part.size / whole.size)


@contextmanager
def _collected(said: list[str]) -> Iterator[None]:
    """Adds to ``said`` what is said of layers, each thing once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    new = [str(w.message) for w in caught if w.category is UnsupportedLayerWarning]
    said[:] = dict.fromkeys([*said, *new])


def _prepared(
    model: nn.Module, bits: int, example: tuple[Any, ...], keywords: Mapping[str, Any]
) -> nn.Module:
    prepared = prepare(model, UniformConfig(bits=bits, sum_bits=bits, head_bits=bits, mode="ptq"))
    calibrate(prepared, *example, **keywords)
    return prepared


@torch.no_grad()
def _timed(
    model: nn.Module, example: tuple[Any, ...], keywords: Mapping[str, Any]
) -> tuple[Any, float]:
    """The result of a forward, and the better time of two."""
    times = []
    with evaluating(model):
        for _ in range(2):
            start = time.perf_counter()
            result = model(*example, **keywords)
            times.append(time.perf_counter() - start)
    return result, min(times)


def _shown(packed: PackedModel, account: Account) -> Iterator[tuple[str, nn.Module]]:
    """Layers with sites, and those that stay in float."""
    for path, layer in packed.module.named_modules():
        if isinstance(layer, QuantLayer) or path in account.float_layers:
            yield path, layer


def _described(
    model: nn.Module, packed: PackedModel, account: Account, said: list[str]
) -> Iterator[tuple[str, str, str, int, str]]:
    """Path, class, what it runs, its own bytes, and why it is in float."""
    twins = dict(model.named_modules())
    for path, layer in _shown(packed, account):
        twin = twins.get(path, layer)
        runs, reason = "float", _reason(path, said)
        if isinstance(layer, QuantLayer):
            reason = layer.float_reason
            runs = "float" if reason else runs_of(layer)
        yield path, type(twin).__name__, runs, _own_bytes(twin), reason


def _reason(path: str, said: list[str]) -> str:
    """What was said of a layer that has no sites."""
    start, between = f"layer {path or 'model'!r} (", " stays in float: "
    for text in said:
        if text.startswith(start) and between in text:
            return text.partition(between)[2].partition(". Supported: ")[0]
    return "layers of its class have no quantized form"


def _own_bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters(recurse=False))


def _safe(errors: Mapping[int, float], limit: float) -> int | None:
    """The least width from which on all that were tried are within the limit."""
    safe = None
    for bits in sorted(errors, reverse=True):
        if errors[bits] > limit:
            break
        safe = bits
    return safe
