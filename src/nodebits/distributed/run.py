"""A plan on the nodes of one rank, with the bits of the plan on all of them."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nodebits.core.errors import ConfigError
from nodebits.core.signature import names_of
from nodebits.distributed.exchange import (
    Exchange,
    from_rank,
    least_of_ranks,
    of_all_ranks,
)
from nodebits.distributed.files import LoadedPart
from nodebits.distributed.progress import Progress
from nodebits.distributed.runner import Runner
from nodebits.distributed.works import works_of
from nodebits.engine.sites.widths import NodeWidths
from nodebits.plan.plan import Plan
from nodebits.runtime import PackedModel

# Nodes and edges of the example that a plan is made on, as far as there are so many.
_EXAMPLE = 1 << 12
# One of so many of its edges is a loop.
_LOOPED = 3


@dataclass(frozen=True)
class Found:
    """What a rank has at the end.

    Attributes:
        outputs: float32 ``[n, ...]``, rows in the order of ``part.nodes``.
        sent: Bytes that this rank sent to others: rows, and shares of hubs.
        layers: Steps that read rows of neighbours.
        resumed: Layer that the run began with; 0 is the first.
        rounded: Steps whose last bits depend on where in a tensor a value lies.
    """

    outputs: Tensor
    sent: int
    layers: int
    resumed: int
    rounded: list[str]


def run_part(
    packed: PackedModel,
    loaded: LoadedPart,
    world: int = 1,
    timeout: float = 60.0,
    progress: Progress | None = None,
    model: str = "",
) -> Found:
    """Runs a model on the nodes of this rank; all ranks must call it.

    Args:
        packed: The model, the same on all ranks.
        loaded: The part of this rank.
        world: Number of ranks.
        timeout: Of the process group, for errors.
        progress: Where finished layers are kept, and taken from; None keeps none.
        model: What tells the model from others; default: its tensors.

    Raises:
        ConfigError: The model cannot run on parts, names the step or site; or ranks differ.
        RankError: Another rank ended or is stuck.
        NodebitsError: As :meth:`PackedModel.predict`.
    """
    if world != loaded.contents.parts:
        raise ConfigError(
            f"the graph is in {loaded.contents.parts} parts, and there are {world} processes: "
            f"torchrun --nproc-per-node {loaded.contents.parts}, or divide it anew"
        )
    for name, site in packed.module.named_modules():
        if isinstance(site, NodeWidths) and site.bound and not site.fallback:
            raise ConfigError(
                f"site {name} has parameters for every node of one graph, which parts of it have "
                "not: run this model in one process"
            )
    _check_names(packed, loaded)
    told = (model or _told(packed), loaded.contents.id)
    all_told = of_all_ranks((told, loaded.part.indices.numel()), timeout)
    if len({one for one, _ in all_told}) > 1:
        raise ConfigError("ranks have different models, or parts of different graphs")
    # An example has edges; this rank may have none.
    maker = max(range(len(all_told)), key=lambda rank: all_told[rank][1])
    made = _plan(packed, loaded) if loaded.rank == maker else ""
    plan = from_rank(maker, made, timeout)
    works = works_of(plan)
    kept = -1
    if progress is not None:
        kept = least_of_ranks(max(progress.layers(), default=-1), timeout)
        # One that is further than others has its last layers twice; one that has less begins anew.
        has = kept in progress.layers()
        kept = kept if least_of_ranks(int(has), timeout) else -1
    runner = Runner(works, loaded, Exchange(loaded.part, world, timeout), progress)
    with torch.no_grad():
        outputs = runner.run(kept)
    return Found(outputs, runner.exchange.sent, works.layers, max(kept, 0), works.rounded)


def _names(packed: PackedModel, loaded: LoadedPart) -> tuple[Sequence[str], set[str]]:
    """Names of features and edges in the model's forward, and all that the part has of it."""
    leading = names_of(packed.module.forward)[:2]
    return leading, {*leading[1:], *loaded.of_nodes, *loaded.of_edges}


def _check_names(packed: PackedModel, loaded: LoadedPart) -> None:
    """Refuses a part that has what the model does not take, or lacks what it needs.

    Raises:
        ConfigError: Names it.
    """
    forward = packed.module.forward
    leading, has = _names(packed, loaded)
    try:
        if leading[:1] and leading[0] not in has:
            raise TypeError(f"missing a required argument: {leading[0]!r}")
        inspect.signature(forward).bind(**dict.fromkeys(has))
    except TypeError as error:
        raise ConfigError(
            f"the parts have {', '.join(sorted(has))}, and forward of "
            f"{type(packed.module).__name__} takes ({', '.join(names_of(forward))}): {error}. "
            "Divide the data with this model"
        ) from None


def _plan(packed: PackedModel, loaded: LoadedPart) -> Plan | str:
    """The plan of a call with what the part has, made on the nodes of this rank.

    That of other calls may read less: a model without its edge weights has other outputs.
    """
    leading, has = _names(packed, loaded)
    part, whole = loaded.part, loaded.part.nodes.numel()
    # Rows up to the one in which the example has edges enough.
    count = int(torch.searchsorted(part.indptr, min(_EXAMPLE, int(part.indptr[-1]))))
    count = min(max(count, _EXAMPLE), whole)
    held = int(part.indptr[count])
    rows = torch.arange(count, device="cpu").repeat_interleave(part.indptr[: count + 1].diff())
    # Any sources do for an example, and features of other ranks are not here.
    edges = torch.stack([part.indices[:held].long() % max(count, 1), rows])
    # Without loops, edges and nodes are as many as edges with a loop for each: sizes that differ.
    edges[0, ::_LOOPED] = rows[::_LOOPED]
    given = {name: value[:count] for name, value in loaded.of_nodes.items()}
    given |= {name: value[:held] for name, value in loaded.of_edges.items()}
    made = packed.plan(given.pop(leading[0]), edges, **given)
    if isinstance(made, Plan):
        return made
    known = packed.plan()
    if isinstance(known, Plan) and {one["name"] for one in known.about["arguments"]} == has:
        return known
    return made


def _told(packed: PackedModel) -> str:
    """What tells a model from others: its tensors."""
    found = hashlib.sha256()
    for name, value in packed.module.state_dict().items():
        if isinstance(value, Tensor):
            found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            found.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
