"""Models of graphs on a batch of made-up molecules: PyG's, eager and compiled, and packed ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nodebits.bench.device.peers import model_peers
from nodebits.bench.speed.rows import Call, Candidate, Protocol, Row, measure
from nodebits.core.errors import UnknownNameError
from nodebits.methods import UniformConfig, calibrate, prepare
from nodebits.models import ModelSpec, build_model
from nodebits.runtime import convert

ATOMS = 28  # kinds, as ZINC has
MODELS = ("gcn", "gin")
_LAYERS, _CLASSES = 4, 10
Batch = tuple[Tensor, Tensor, Tensor]


def molecules(count: int) -> Batch:
    """Made-up molecules of ZINC's sizes in one batch: rings and chains, a kind for each atom.

    Args:
        count: Molecules, each of 12 to 37 atoms.

    Returns:
        Features float32 ``[N, 28]``, edges int64 ``[2, E]`` both ways, and the graph of each node,
        int64 ``[N]``.
    """
    g = torch.Generator().manual_seed(0)
    sizes = torch.randint(12, 38, (count,), generator=g, device="cpu")
    batch = torch.repeat_interleave(torch.arange(count, device="cpu"), sizes)
    first = sizes.cumsum(0) - sizes
    place = torch.arange(batch.numel(), device="cpu") - first[batch]
    later = (place > 0).nonzero().view(-1)
    # Every atom is bound to one of the three before it, every ninth to one further back.
    back = torch.randint(1, 4, (later.numel(),), generator=g, device="cpu").minimum(place[later])
    chain = torch.stack([later - back, later])
    closing = later[place[later] % 9 == 8]
    rings = torch.stack([closing - 5, closing])
    one_way = torch.cat([chain, rings], 1).unique(dim=1)
    kinds = torch.randint(0, ATOMS, (batch.numel(),), generator=g, device="cpu")
    x = functional.one_hot(kinds, ATOMS).float()
    return x, torch.cat([one_way, one_way.flip(0)], 1), batch


def measure_molecules(
    models: Sequence[str], count: int, hidden: int, bits: Sequence[int], protocol: Protocol
) -> list[Row]:
    """Measures models of four layers, whose answers are of graphs, on one batch of them.

    Args:
        models: Of :data:`MODELS`.
        count: Molecules of the batch.
        hidden: Hidden width.
        bits: Widths of the packed models.
        protocol: How to measure.

    Raises:
        UnknownNameError: There is no such model here.
        RuntimeError: A packed model says something else than on the CPU.
    """
    given, device = molecules(count), protocol.device
    x, edge_index, batch = (one.to(device) for one in given)
    rows: list[Row] = []
    for name in models:
        if name not in MODELS:
            raise UnknownNameError.for_name("model of molecules", name, MODELS)
        spec = ModelSpec(name, ATOMS, hidden, _CLASSES, num_layers=_LAYERS, task="graph")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = build_model(spec).eval()
        there = copy.deepcopy(model).to(device)
        candidates = model_peers(there, x, edge_index, batch=batch)
        candidates += [
            Candidate(f"nodebits u{width}", "nodebits", _packed(model, width, given, device), width)
            for width in bits
        ]
        with torch.no_grad():
            widths = f"{name}, {_LAYERS} layers of {hidden}"
            rows += measure(widths, f"{count} molecules", candidates, protocol)
    return rows


def _packed(model: nn.Module, bits: int, given: Batch, device: torch.device) -> Callable[[], Call]:
    def build() -> Call:
        x, edge_index, batch = given
        prepared = prepare(model, UniformConfig(bits=bits, mode="ptq"))
        calibrate(prepared, x, edge_index, batch=batch)
        packed = convert(prepared)
        expected = packed.predict(x, edge_index, batch=batch)
        packed = packed.to(device)
        there = [one.to(device) for one in given]

        def call() -> Tensor:
            found: Tensor = packed.predict(there[0], there[1], batch=there[2])
            return found

        if not torch.equal(call().cpu(), expected):
            raise RuntimeError(f"the model at {bits} bits differs from that of the CPU")
        return call

    return build
