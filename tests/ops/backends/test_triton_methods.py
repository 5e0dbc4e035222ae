"""Training steps of every method on the kernels in Triton's language: the codes of the CPU."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from on_triton import DEVICE, needs_triton, serving
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import nodebits
from nodebits import ops
from nodebits.methods import make_config, method_names
from nodebits.models import ModelSpec, build_model
from packed_models import CLASSES, FEATURES, NODES, small_graph

pytestmark = [
    needs_triton,
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),
    pytest.mark.filterwarnings("ignore::nodebits.core.errors.DegenerateSiteWarning"),
    pytest.mark.filterwarnings("ignore::nodebits.core.errors.SaturationWarning"),
]
# Degree-Quant, MixQ and A2Q draw or learn more than scales; GAT adds weighted sums.
MODELS = {"gcn": method_names(), "gat": ["uniform", "degree-quant"], "gin": ["uniform", "a2q"]}


def step(model: nn.Module, device: torch.device, amp: bool = False) -> tuple[Tensor, list[Tensor]]:
    """The loss of one step in training, and its gradients."""
    torch.manual_seed(1)
    x, edge_index = (t.to(device) for t in small_graph())
    target = (torch.arange(NODES) % CLASSES).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
        loss = cross_entropy(model(x, edge_index), target)
    loss.backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    return loss.detach().cpu(), [grad.cpu() for grad in found]


def prepared_by(method: str, name: str) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(ModelSpec(name, FEATURES, 8, CLASSES, heads=2))
    prepared = nodebits.prepare(model, make_config(method, bits=4)).train()
    prepared(*small_graph())  # ranges are found, on the CPU for both
    return prepared


@pytest.mark.parametrize(("name", "method"), [(n, m) for n, of in MODELS.items() for m in of])
@pytest.mark.parametrize("amp", [False, True])
def test_a_step(name: str, method: str, amp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from nodebits.ops.backends.triton import calls

    used: Counter[str] = Counter()
    call = calls.call

    def counted(op: Any, checked: Any) -> Any:
        used[op.name] += 1
        return call(op, checked)

    here = prepared_by(method, name)
    there = copy.deepcopy(here).to(DEVICE)
    expected, of_cpu = step(here, torch.device("cpu"))
    monkeypatch.setattr(calls, "call", counted)
    # Off the CPU there are no compiled functions beside the operators.
    with ops.force_isa("reference"), serving():
        found, of_device = step(there, DEVICE, amp)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert len(of_device) == len(of_cpu) > 0
    for mine, theirs in zip(of_device, of_cpu, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)
    assert used["fake_quantize_backward"] or used["rescale_backward"], used
