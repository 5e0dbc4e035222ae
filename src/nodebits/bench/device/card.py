"""A card as measurements see it: whether it can serve, its name, waiting for it, its memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nodebits.core.errors import ConfigError
from nodebits.graph import Graph
from nodebits.ops.backends.triton import choice

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
DEVICES = ("cpu", "cuda")


def require_card(cpu_too: bool = True) -> None:
    """Refuses a measurement where no kernel could run.

    Args:
        cpu_too: Whether the CPU can be measured in its place.

    Raises:
        ConfigError: Says what is missing, and what to do.
    """
    problem = choice.device_problem() or choice.triton_problem()
    if problem is not None:
        raise ConfigError(
            f"--device cuda measures kernels on a CUDA card: {problem}; run it where "
            "nodebits info lists kernels of triton"
            + ", or with --device cpu to measure the CPU"
            * cpu_too
        )


def describe_card(device: torch.device) -> dict[str, Any]:
    """Name of the card and version of CUDA; nothing for the CPU."""
    if device.type == "cpu":
        return {}
    return {"card": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}


def finished(call: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """A call that ends when the device is done; on the CPU the call itself."""
    if device.type != "cuda":
        return call

    def waiting() -> object:
        result = call()
        torch.cuda.synchronize(device)
        return result

    return waiting


def free_memory(device: torch.device) -> int:
    """Bytes of the card that nothing holds, or that torch keeps and would use again."""
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + kept)


def extra_memory(call: Callable[[], object], device: torch.device) -> int:
    """Bytes of the card that torch held at the worst moment of a call beyond those before it."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = finished(call, device)()
    most = torch.cuda.max_memory_allocated(device)
    del result
    return int(most - before)


def graph_on(graph: Graph, device: torch.device) -> Graph:
    """The topology on a device; the graph itself where it is there."""
    if graph.device.type == device.type:
        return graph
    return Graph(graph.indptr.to(device), graph.indices.to(device), graph.num_src)
