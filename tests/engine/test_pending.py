"""Chains: what is fused, what is not and why, and that no bit depends on it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.nn import GCN, GATConv, GCNConv, GraphConv, TAGConv

from nodebits import ops
from nodebits.core.errors import NonFiniteError
from nodebits.engine.chain import ChainRecord, deferring
from nodebits.engine.formats import raw
from nodebits.engine.pending import PendingRows, settle, unread
from nodebits.methods import UniformConfig, calibrate, prepare
from nodebits.models import ModelSpec, build_model
from nodebits.ops.feature_product import fused_gemm_features
from nodebits.runtime import PackedModel, convert
from packed_models import CLASSES, FEATURES, make_case, small_graph, threads

HIDDEN = 16
WIDE = 300  # columns that are taken for raw features, with a scale per row


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    torch.manual_seed(0)
    with threads(1):
        yield


def passed_on(records: list[ChainRecord]) -> list[tuple[str, str, str, str]]:
    return [
        ("+".join(r.layers), r.activation, "+".join(r.readers), r.float_reason) for r in records
    ]


END = "the model's result"
EXPECTED = {
    "gcn": [
        ("convs.0.lin", "", "convs.0.message", ""),
        ("convs.0", "relu", "convs.1.lin.input", ""),
        ("convs.1.lin", "", "convs.1.message", ""),
        ("convs.1", "", "", END),
    ],
    "gin": [
        ("convs.0", "", "convs.0.nn.lins.0.input", ""),
        ("convs.0.nn.lins.0", "relu", "convs.0.nn.lins.1.input", ""),
        ("convs.0.nn.lins.1", "relu", "convs.1.message", ""),
        ("convs.1", "", "convs.1.nn.lins.0.input", ""),
        ("convs.1.nn.lins.0", "relu", "convs.1.nn.lins.1.input", ""),
        ("convs.1.nn.lins.1", "", "", END),
    ],
    "gat": [
        ("convs.0.lin", "", "convs.0.message", ""),
        ("convs.0", "", "", "elu"),
        ("convs.1.lin", "", "convs.1.message", ""),
        ("convs.1", "", "", END),
    ],
    "sage": [
        ("convs.0", "", "convs.0.lin_l.input", ""),
        ("convs.0.lin_l+convs.0.lin_r", "relu", "convs.1.message+convs.1.lin_r.input", ""),
        ("convs.1", "", "convs.1.lin_l.input", ""),
        ("convs.1.lin_l+convs.1.lin_r", "", "", END),
    ],
}


# Rows of 2 bits within GIN's second MLP have a scale each: one for all serves few of them.
@pytest.mark.parametrize(
    ("name", "bits"), [*((name, 8) for name in EXPECTED), ("gcn", 2), ("gat", 2), ("sage", 2)]
)
def test_named_models(name: str, bits: int) -> None:
    case = make_case(name, bits=bits)
    for _ in range(2):
        out = case.packed.predict(case.x, case.edge_index)
        assert type(out) is Tensor and torch.equal(out, case.simulated)
        assert passed_on(case.packed.chains) == EXPECTED[name]
    last = case.packed.chains[-1]
    assert last.float_bytes == 4 * out.numel() and case.packed.chains[0].float_bytes == 0


def test_powers_go_on_as_codes() -> None:
    """One pass writes what a power's map and the next step read, and one call adds the maps."""
    x, edge_index = small_graph(60)
    prepared = prepare(TAGConv(FEATURES, 8, K=3).eval(), UniformConfig(bits=4))
    calibrate(prepared, x, edge_index)
    packed = convert(prepared)
    for _ in range(2):
        out = packed.predict(x, edge_index)
        assert torch.equal(out, prepared(x, edge_index))
        assert passed_on(packed.chains) == [
            ("", "", "lins.1.input+message_1", ""),
            ("", "", "lins.2.input+message_2", ""),
            ("", "", "lins.3.input", ""),
            ("lins.0+lins.1+lins.2+lins.3", "", "", END),
        ]


@pytest.mark.parametrize("method", ("a2q", "sgquant"))
@pytest.mark.parametrize("name", ("gcn", "gat", "sage"))
def test_rows_of_several_widths_join(name: str, method: str) -> None:
    """A width per node (or per degree) is packed by the operator that computes the rows."""
    widths = {"splits": (4, 8), "degree_bits": (6, 4, 3)} if method == "sgquant" else {}
    case = make_case(name, method, **widths)
    for isa in ops.available_isas():
        with ops.force_isa(isa):
            out = case.packed.predict(case.x, case.edge_index)
        assert torch.equal(out, case.simulated), isa
        chains = passed_on(case.packed.chains)
        if name == "sage":  # rows in different buckets: their two products are no one product
            assert ("convs.0.lin_l", "", "", "add") in chains, isa
            assert chains[0] == EXPECTED[name][0], isa
        else:
            assert chains == EXPECTED[name], isa
    assert case.packed.account(case.x, case.edge_index).average_bits < 8


def test_rows_bound_to_another_graph_wait_for_the_floats() -> None:
    case = make_case("gcn", "a2q")
    case.packed.serve_other_graphs()
    other = case.edge_index[:, 1:]
    case.packed.predict(case.x, other)
    reasons = [record.float_reason for record in case.packed.chains]
    assert reasons[0] == "site convs.0.message takes its scales from the rows"
    case.packed.predict(case.x, case.edge_index)
    assert passed_on(case.packed.chains) == EXPECTED["gcn"]


class Wrapped(nn.Module):
    """Two convolutions and the user's function between them."""

    def __init__(self, between: Callable[[Tensor], Any], first: nn.Module | None = None) -> None:
        super().__init__()
        self.first = GCNConv(FEATURES, HIDDEN) if first is None else first
        self.second = GCNConv(HIDDEN, CLASSES)
        self.between = between

    def forward(self, x: Any, edge_index: Any) -> Any:
        return self.second(self.between(self.first(x, edge_index)), edge_index)


def packed_and_simulated(model: nn.Module, bits: int = 4) -> tuple[PackedModel, Any, Any, Any]:
    x, edge_index = small_graph()
    prepared = prepare(model.eval(), UniformConfig(bits=bits))
    with torch.no_grad():
        calibrate(prepared, x, edge_index)
        simulated = prepared(x, edge_index)
    return convert(prepared), x, edge_index, simulated


def reason_of(packed: PackedModel, layer: str) -> str:
    return next(record.float_reason for record in packed.chains if record.layers == (layer,))


@pytest.mark.parametrize(
    "between, reason",
    [
        (F.relu, ""),
        (torch.relu, ""),
        (Tensor.relu, ""),
        (nn.ReLU(inplace=True), ""),
        (lambda x: x.relu_(), ""),
        (lambda x: F.dropout(x, 0.5, False).contiguous().float(), ""),
        (lambda x: F.relu(F.relu(x)), ""),
        (nn.Identity(), ""),
        (torch.sigmoid, "sigmoid"),
        (lambda x: x * 2, "mul"),
        (lambda x: 1 - x, "rsub"),
        (lambda x: x[:, torch.arange(HIDDEN)], "getitem"),
        (lambda x: F.relu(x.t()).t(), "t"),
        (lambda x: torch.cat([x[:, :4], F.relu(x[:, 4:])], 1), "getitem"),
        (lambda x: torch.stack([x, x]).mean(0), "stack"),
        (lambda x: x.detach().add_(1).relu_(), "add"),
        (nn.LayerNorm(HIDDEN), "layer_norm"),
    ],
)
def test_what_a_user_may_do(between: Callable[[Tensor], Any], reason: str) -> None:
    packed, x, edge_index, simulated = packed_and_simulated(Wrapped(between))
    for _ in range(2):
        assert torch.equal(packed.predict(x, edge_index), simulated)
        assert reason_of(packed, "first") == reason


@pytest.mark.parametrize("aggr", ("add", "mean"))
def test_graph_conv_joins_its_products(aggr: str) -> None:
    model = Wrapped(torch.relu, GraphConv(FEATURES, HIDDEN, aggr=aggr))
    packed, x, edge_index, simulated = packed_and_simulated(model)
    assert torch.equal(packed.predict(x, edge_index), simulated)
    assert passed_on(packed.chains)[:2] == [
        ("first", "", "first.lin_rel.input", ""),
        ("first.lin_rel+first.lin_root", "relu", "second.lin.input", ""),
    ]


class Sums(nn.Module):
    """Linears whose results are added in an order of their own."""

    def __init__(self, add: Callable[..., Tensor]) -> None:
        super().__init__()
        self.lins = nn.ModuleList(nn.Linear(FEATURES, HIDDEN) for _ in range(4))
        self.conv = GCNConv(HIDDEN, CLASSES)
        self.add = add

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(self.add(*(lin(x) for lin in self.lins)), edge_index)


@pytest.mark.parametrize(
    "add",
    (
        lambda a, b, c, d: (a + b) + (c + d),
        lambda a, b, c, d: a + (b + (c + d)),
        lambda a, b, c, d: a + b + c + d,
        lambda a, b, c, d: (a + (b + c)) + d,
    ),
)
def test_sums_keep_their_order(add: Callable[..., Tensor]) -> None:
    """Two sums, such as those of two SAGE layers that a node type adds, are not one sum."""
    packed, x, edge_index, simulated = packed_and_simulated(Sums(add))
    lins = packed.module.lins
    for _ in range(2):
        assert torch.equal(packed.predict(x, edge_index), simulated)
    with torch.no_grad():
        expected = add(*(lin(x) for lin in lins))
        with deferring():
            found = add(*(lin(unread(x)) for lin in lins))
            assert torch.equal(settle(found), expected)


@pytest.mark.parametrize("concat", (True, False))
def test_attention_sum_with_relu(concat: bool) -> None:
    channels = HIDDEN // 4 if concat else HIDDEN
    model = Wrapped(torch.relu, GATConv(FEATURES, channels, heads=4, concat=concat))
    packed, x, edge_index, simulated = packed_and_simulated(model)
    assert torch.equal(packed.predict(x, edge_index), simulated)
    assert (reason_of(packed, "first") == "") == concat


class ReadTwice(nn.Module):
    """A residual: the sum of the first layer is packed by the second and then read in float."""

    def __init__(self) -> None:
        super().__init__()
        self.first = GCNConv(FEATURES, HIDDEN)
        self.second = GCNConv(HIDDEN, HIDDEN)

    def forward(self, x: Any, edge_index: Any) -> dict[str, Any]:
        x = self.first(x, edge_index).relu()
        y = self.second(x, edge_index)
        return {"sum": x + y, "parts": [(y, 3)]}


def test_a_result_read_twice_is_computed_once_from_then_on() -> None:
    packed, x, edge_index, simulated = packed_and_simulated(ReadTwice())
    packed.use_plans = packed.module.first.eager = False  # its plan was made, and told it already
    for forward in range(3):
        out = packed.predict(x, edge_index)
        assert torch.equal(out["sum"], simulated["sum"])
        assert type(out["parts"][0][0]) is Tensor and out["parts"][0][1] == 3
        reasons = [r.float_reason for r in packed.chains if r.layers == ("first",)]
        expected = ["", "add"] if forward == 0 else ["it is read more than once"]
        assert reasons == expected


def test_writes_are_seen() -> None:
    """In-place changes between two uses, before and after packing."""

    def between(x: Tensor) -> Tensor:
        F.relu(x).sum()
        x.add_(1.0)
        return x

    class Thrice(Wrapped):
        def forward(self, x: Any, edge_index: Any) -> Any:
            x = self.first(x, edge_index)
            before = self.second(x, edge_index)
            x.mul_(2.0)
            return before + self.second(between(x), edge_index)

    packed, x, edge_index, simulated = packed_and_simulated(Thrice(between))
    for _ in range(2):
        assert torch.equal(packed.predict(x, edge_index), simulated)


@pytest.mark.parametrize("bits", (8, 4, 2, 1))
def test_raw_features_are_packed_on_the_way(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No packed matrix of features; what calibration did not see is still the definition."""
    x, edge_index = small_graph(features=WIDE)
    prepared = prepare(GCN(WIDE, HIDDEN, 2, CLASSES).eval(), UniformConfig(bits=bits))
    with torch.no_grad():
        calibrate(prepared, x.abs(), edge_index)
        simulated = prepared(x.abs(), edge_index), prepared(x, edge_index)
    packed = convert(prepared)
    packed.use_plans = False
    calls = []

    def counted(*args: Any) -> Any:
        calls.append(args)
        return fused_gemm_features(*args)

    monkeypatch.setattr(raw, "fused_gemm_features", counted)
    for isa in ops.available_isas():
        with ops.force_isa(isa):
            for features, expected in zip((x.abs(), x), simulated, strict=True):
                assert torch.equal(packed.predict(features, edge_index), expected), isa
                rows = packed.pack_input(features)
                assert torch.equal(packed.predict(rows, edge_index), expected), isa
            bad = x.clone()
            bad[3, 5] = torch.inf
            with pytest.raises(NonFiniteError, match=r"feature matrix.*\[3, 5\]"):
                packed.predict(bad, edge_index)
    assert len(calls) == 3 * len(ops.available_isas())
    assert packed.account(x, edge_index).sites[0].raw


def test_writes_to_features_come_after_their_product() -> None:
    """A product that still waits is that of the features as they were."""

    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = GCNConv(WIDE, HIDDEN), GCNConv(HIDDEN, CLASSES)
            self.lin = nn.Linear(WIDE, HIDDEN)

        def forward(self, x: Any, edge_index: Any) -> Any:
            product = self.lin(x)
            hidden = self.first(x, edge_index)
            x.mul_(-2.0)
            return self.second(hidden.relu(), edge_index), product, self.lin(x)

    x, edge_index = small_graph(features=WIDE)
    prepared = prepare(Writes().eval(), UniformConfig(bits=4))
    with torch.no_grad():
        calibrate(prepared, x.clone(), edge_index)
        simulated = prepared(x.clone(), edge_index)
    packed = convert(prepared)
    for isa in ops.available_isas():
        with ops.force_isa(isa):
            for found, expected in zip(
                packed.predict(x.clone(), edge_index), simulated, strict=True
            ):
                assert torch.equal(found, expected), isa


@pytest.mark.parametrize("bits", (8, 4, 2, 1))
@pytest.mark.parametrize("values", ("binary", "shares", "many"))
def test_sparse_features(bits: int, values: str) -> None:
    """Raw features of few values go in as sparse rows; no bit of the result depends on it."""
    nodes, width = 60, 400
    x = (torch.rand(nodes, width) < 0.01).float()
    if values == "shares":
        x = x / x.sum(1, keepdim=True).clamp_min(1)
    elif values == "many":
        x = x * torch.rand(nodes, width)
    x[7] = 0.0
    edge_index = small_graph(nodes)[1]
    model = GCN(width, HIDDEN, 2, CLASSES, dropout=0.5).eval()
    prepared = prepare(model, UniformConfig(bits=bits))
    with torch.no_grad():
        calibrate(prepared, x, edge_index)
        simulated = prepared(x, edge_index)
    packed = convert(prepared)
    rows = packed.pack_input(x)
    kept = rows.rows["convs.0.lin.input"]
    assert kept.data.name == "sparse" and (values == "many" or kept.data.values is None)
    for isa in ops.available_isas():
        with ops.force_isa(isa):
            assert torch.equal(packed.predict(x, edge_index), simulated)
            assert torch.equal(packed.predict(rows, edge_index), simulated)
    account = packed.account(x, edge_index)
    assert [site.sparse for site in account.sites] == [True, False, False, False]
    assert account.sites[0].bytes + account.sites[0].scale_bytes == kept.nbytes == rows.nbytes
    assert packed.chains[0].readers == ("convs.0.message",)
    broken = x.clone()
    broken[5, 9] = float("nan")
    with pytest.raises(NonFiniteError, match=r"the feature matrix has 1 value"):
        packed.predict(broken, edge_index)
    dense = torch.rand(nodes, width)
    assert packed.pack_input(dense).rows["convs.0.lin.input"].data.name == "dense"
    with torch.no_grad():
        assert torch.equal(packed.predict(dense, edge_index), prepared(dense, edge_index))
        below = x - (torch.rand(nodes, width) < 0.01).float()  # unseen signs
        assert torch.equal(packed.predict(below, edge_index), prepared(below, edge_index))


def test_outside_a_forward_results_are_plain() -> None:
    case = make_case()
    with torch.no_grad():
        out = case.packed.module(case.x, case.edge_index)
    assert type(out) is Tensor and torch.equal(out, case.simulated)


def test_pending_rows_are_a_tensor() -> None:
    case = make_case()
    with torch.no_grad(), deferring():
        rows = case.packed.module(case.x, case.edge_index)
        assert isinstance(rows, PendingRows)
        assert rows.shape == case.simulated.shape and rows.size(1) == CLASSES and len(rows) == 40
        assert rows.dtype == torch.float32 and rows.device == case.x.device and rows.dim() == 2
        assert not rows.requires_grad and hash(rows) and rows.is_floating_point()
        assert rows.numpy().tolist() == case.simulated.tolist()
        again = case.packed.module(case.x, case.edge_index)
        with torch._C.DisableTorchFunctionSubclass():  # callers that only the dispatcher sees
            assert torch.equal(torch.neg(again), -case.simulated)
        assert "tensor" in repr(again) and type(settle((rows,))[0]) is Tensor


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operators returned and that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, list[int]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(t, Tensor) and not isinstance(t, PendingRows):
                storage = t.untyped_storage()
                entry = self.live.setdefault(storage._cdata, [0, storage.nbytes()])
                if entry[0] == 0:
                    self.now += entry[1]
                entry[0] += 1
                weakref.finalize(t, self._gone, storage._cdata)
        self.peak = max(self.peak, self.now)
        return out

    def _gone(self, key: int) -> None:
        entry = self.live[key]
        entry[0] -= 1
        if entry[0] == 0:
            self.now -= entry[1]
            del self.live[key]


@pytest.mark.parametrize("name", ("gcn", "gin", "sage"))
def test_peak_memory_is_packed_rows(name: str) -> None:
    """A forward holds the packed rows that go in and out of a layer, and vectors of the graph."""
    nodes, hidden, bits = 3000, 128, 2
    x, edge_index = small_graph(nodes)
    spec = ModelSpec(name, FEATURES, hidden, CLASSES, num_layers=3)
    prepared = prepare(build_model(spec).eval(), UniformConfig(bits=bits, sum_bits=bits))
    calibrate(prepared, x, edge_index)
    packed = convert(prepared)
    packed.use_plans = False
    graph, rows = packed.prepare_graph(edge_index, nodes), packed.pack_input(x)
    for _ in range(2):  # what is kept with the graph; the first calls look at their codes
        packed.predict(rows, graph)
    with LiveBytes() as probe:
        packed.predict(rows, graph)
    one = nodes * hidden * bits // 8
    # The rows that go in, those that come out, and those that pending results of the callers still
    # hold, in case someone else asks for them. A float forward holds as many matrices, in float.
    tensors = {"gcn": 3, "gin": 4, "sage": 5}[name]
    assert one < probe.peak < tensors * one + 4 * nodes * CLASSES + 30_000
