"""One training step: PyG's float model, quantization-aware, Degree-Quant."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch_geometric.nn import APPNP

from nodebits.bench.speed.graphs import BenchGraph
from nodebits.bench.speed.models import Sizes, float_model
from nodebits.bench.speed.rows import Call, Candidate, Protocol, Row, Skip, measure
from nodebits.methods import DegreeQuantConfig, QuantConfig, UniformConfig, prepare
from nodebits.nn.registry import layer_for
from nodebits.tasks import Task, find_task


def measure_steps(
    bench: BenchGraph,
    models: Sequence[str],
    bits: Sequence[int],
    sizes: Sizes,
    protocol: Protocol,
) -> list[Row]:
    """Measures full-batch steps: forward, loss on the training nodes, backward, Adam.

    Args:
        bench: Graph, features and labels (drawn where the graph has none).
        models: See :data:`nodebits.bench.speed.models.MODELS`.
        bits: Widths.
        sizes: Of the models.
        protocol: How to measure.

    Raises:
        UnknownNameError: There is no such model.
    """
    generator = torch.Generator().manual_seed(0)
    nodes = bench.graph.num_dst
    y = bench.y
    if y is None:
        y = torch.randint(0, bench.num_classes, (nodes,), generator=generator, device="cpu")
    mask = bench.train_mask
    if mask is None:
        mask = torch.rand(nodes, generator=generator, device="cpu") < 0.1
    edge_index = bench.edge_index
    if edge_index is None:
        edge_index = torch.stack([bench.graph.indices.long(), bench.graph.rows])
    there = protocol.device
    x, edge_index, y, mask = (t.to(there) for t in (bench.features(), edge_index, y, mask))
    steps = _Steps(x, edge_index, y, mask, find_task(bench.task))
    rows: list[Row] = []
    for name in models:
        model = float_model(name, bench.num_features, bench.num_classes, sizes)
        model = model.to(protocol.device)
        widest = max(sizes.hidden, bench.num_features if name in ("gin", "sage") else 0)
        messages = bench.graph.num_edges * (48 + 16 * widest)
        needs = messages + 8 * steps.x.nbytes
        candidates = [
            Candidate("PyG float", "float32", steps.step_of(model), 32, needs=needs),
        ]
        if protocol.card:
            halves = "PyG bfloat16 by autocast"
            build = steps.step_of(copy.deepcopy(model), torch.bfloat16)
            candidates.append(Candidate(halves, "float", build, 16, needs=needs))
        for width in bits:
            for title, config in (
                ("QAT", UniformConfig(bits=width)),
                ("Degree-Quant", DegreeQuantConfig(bits=width)),
            ):
                candidates.append(
                    Candidate(
                        f"nodebits {title} {width}",
                        "nodebits",
                        steps.quantized_step_of(name, model, config),
                        width,
                        needs=needs,
                    )
                )
        widths = f"{bench.num_features}-{sizes.hidden}-{bench.num_classes}"
        rows += measure(f"train {name} {widths}", bench.name, candidates, protocol)
    return rows


class _Steps:
    def __init__(self, x: Tensor, edge_index: Tensor, y: Tensor, mask: Tensor, task: Task) -> None:
        self.x, self.edge_index, self.y, self.mask, self.task = x, edge_index, y, mask, task

    def step_of(self, model: nn.Module, lower: torch.dtype | None = None) -> Callable[[], Call]:
        def build() -> Call:
            model.train()
            optimizer = torch.optim.Adam(model.parameters(), 1e-3)

            def step() -> float:
                optimizer.zero_grad()
                kind = self.x.device.type
                with torch.autocast(kind, dtype=lower, enabled=lower is not None):
                    out = model(self.x, self.edge_index)
                    loss = self.task.loss(out[self.mask], self.y[self.mask])
                loss.backward()
                optimizer.step()
                return loss.item()

            return step

        return build

    def quantized_step_of(
        self, name: str, model: nn.Module, config: QuantConfig
    ) -> Callable[[], Call]:
        def build() -> Call:
            if name == "appnp" and layer_for(APPNP(K=1, alpha=0.1)) is None:
                raise Skip("APPNP has no quantized form in this version")
            return self.step_of(prepare(model, config))()

        return build
