"""Gradient checkpointing: a forward that is run again, for its gradients, has the same ranges."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import GCNConv

from nodebits import calibrate, prepare
from nodebits.core.errors import ConfigError
from nodebits.methods import make_config, method_names
from packed_models import FEATURES, small_graph

X, EDGES = small_graph()


class Recurrent(nn.Module):
    """One layer twice: the second call of a step moves the ranges that the first one had."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = GCNConv(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        self.form: bool | None = None

    def part(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear(self.conv(x, EDGES))
        return result

    def forward(self, x: Tensor, edge_index: Any) -> Any:
        for _ in range(2):
            x = self.part(x) if self.form is None else self._again(x)
        return x

    def _again(self, x: Tensor) -> Any:
        return checkpoint(self.part, x, use_reentrant=self.form)


def gradients(method: str, form: bool | None, calibrated: bool) -> dict[str, Tensor]:
    """Of two steps whose second one brings the other sign; with the state at the end."""
    torch.manual_seed(0)
    prepared = prepare(Recurrent(), make_config(method, bits=4)).train()
    if calibrated:
        calibrate(prepared, X.abs(), EDGES)
        prepared.train()
    prepared.form = form
    config = make_config(method, bits=4)
    for x in (X.abs(), X):
        out = prepared(x.clone().requires_grad_(), EDGES)
        (out.square().sum() + config.penalty(prepared)).backward()
    found = {n: p.grad for n, p in prepared.named_parameters() if p.grad is not None}
    return {**found, **{f"state {n}": t for n, t in prepared.state_dict().items()}}


FORMS = [(method, form) for method in method_names() for form in (False, True)]


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize(("method", "form"), [f for f in FORMS if f != ("a2q", True)])
def test_gradients_are_those_without_a_checkpoint(
    method: str, calibrated: bool, form: bool
) -> None:
    once, again = gradients(method, None, calibrated), gradients(method, form, calibrated)
    assert once.keys() == again.keys()
    for name, value in once.items():
        torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_penalties_of_a_forward_without_gradients_are_refused() -> None:
    """The reentrant form gives no gradient to what is computed beside the region's result."""
    with pytest.raises(ConfigError, match=r"site 'conv\.lin\.input'.*use_reentrant=False"):
        gradients("a2q", True, calibrated=True)


def test_copies_and_pickles_take_no_ranges_of_calls_along() -> None:
    prepared = prepare(Recurrent(), make_config("uniform", bits=4)).train()
    prepared.form = False
    out = prepared(X.clone().requires_grad_(), EDGES)
    site = prepared.get_submodule("linear.input")
    assert site._replay._calls
    for other in (copy.deepcopy(site), pickle.loads(pickle.dumps(site))):
        assert not other._replay._calls and torch.equal(other.scale, site.scale)
    out.sum().backward()
