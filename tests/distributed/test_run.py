"""Ranks have the bits of one process; what they send, and what becomes of one that ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from forking import Python

TESTS = Path(__file__).resolve().parent.parent
HEAD = """
import os, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from packed_models import *
from nodebits.core.errors import *
from nodebits.distributed.errors import RankError
from nodebits.distributed.files import read_part, write_parts
from nodebits.distributed.launch import gathered, joined
from nodebits.distributed.progress import Progress
from nodebits.distributed.run import run_part
from ranks import ended, start
import nodebits.distributed.run as running

folder = Path(sys.argv[1])

def same(first, second):
    return torch.equal(first.view(torch.int32), second.view(torch.int32))

def whole(case):
    return case.packed.predict(case.x, case.edge_index, **case.extra)

def work_of(case, parts, timeout=30.0, kept=False):
    def work(rank):
        loaded = read_part(parts, rank)
        with joined(timeout) as ranks:
            progress = Progress(parts, rank, "key") if kept else None
            found = run_part(case.packed, loaded, ranks.world, timeout, progress)
            out = gathered(found.outputs, loaded.part.nodes, NODES, ranks, timeout)
        return out, found.sent, found.resumed
    return work
"""


def check(python: Python, tmp_path: Path, code: str) -> None:
    result = python(HEAD + code, tmp_path, path=[TESTS, TESTS / "distributed"])
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("worlds", ["2, 3", pytest.param("1, 4, 5, 8", marks=pytest.mark.slow)])
def test_ranks_have_the_bits_of_one_process(python: Python, tmp_path: Path, worlds: str) -> None:
    check(
        python,
        tmp_path,
        f"""
for world in ({worlds},):
    for name in ("gcn", "gin", "sage", "appnp"):
        case = make_case(name)
        parts = folder / f"{{name}}-{{world}}"
        about = write_parts(parts, case.edge_index, {{"x": case.x}}, {{}}, world, name="small")
        found = ended(start(world, work_of(case, parts), folder), folder)
        outputs = found[0][0]
        assert same(outputs, whole(case)), (name, world)
        # Each boundary row crosses once in a layer, as packed as it is: four bits a value here.
        widths = {{"gcn": (16, CLASSES), "gin": (FEATURES, 16), "sage": (FEATURES, 16),
                   "appnp": (CLASSES,) * 10}}[name]
        expected = about.boundary * sum((4 * width + 7) // 8 for width in widths)
        assert sum(sent for _, sent, _ in found) == expected, name
""",
    )


def test_attention_edge_weights_and_models_of_ones_own(python: Python, tmp_path: Path) -> None:
    check(
        python,
        tmp_path,
        """
from torch import nn
from torch_geometric.nn import GATConv, GCNConv, SAGEConv, SGConv, TAGConv
from nodebits.methods import UniformConfig

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = GATConv(FEATURES, 4, heads=2), GATConv(8, CLASSES)
    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)

class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = GCNConv(FEATURES, 8), GCNConv(8, CLASSES)
    def forward(self, x, edge_index, edge_weight):
        return self.second(self.first(x, edge_index, edge_weight).relu(), edge_index, edge_weight)

class Largest(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = SAGEConv(FEATURES, 8, "max"), SAGEConv(8, CLASSES, "sum")
    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)

x, edges = small_graph()
weight = torch.rand(edges.size(1))
from torch_geometric.nn import GATv2Conv, ResGatedGraphConv, TransformerConv

class Others(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = GATv2Conv(FEATURES, 4, heads=2), ResGatedGraphConv(8, 8)
        self.third = TransformerConv(8, CLASSES)
    def forward(self, x, edge_index):
        x = self.second(self.first(x, edge_index).relu(), edge_index).relu()
        return self.third(x, edge_index)

class Powers(Attention):
    def __init__(self):
        super().__init__()
        self.first, self.second = SGConv(FEATURES, 8, K=2), TAGConv(8, CLASSES, K=2)

models = [Attention(), Largest(), UserModel(), Weighted(), Others(), Powers()]
for model, others in zip(models, [{}, {}, {}, {"edge_weight": weight}, {}, {}]):
    torch.manual_seed(3)
    packed = convert(two_steps(model, UniformConfig(bits=4), x, edges, **others))
    name = type(model).__name__
    write_parts(folder / name, edges, {"x": x}, others, 3, name="small")
    expected = packed.predict(x, edges, **others)
    class Case:
        pass
    Case.packed = packed
    found = ended(start(3, work_of(Case, folder / name), folder), folder)
    assert same(found[0][0], expected), name
""",
    )


WEIGHTED = """
from torch import nn
from torch_geometric.nn import GCNConv, GraphConv
from nodebits.methods import UniformConfig

class Net(nn.Module):
    def __init__(self, first, second, both=True):
        super().__init__()
        self.first, self.second, self.both = first, second, both
    def forward(self, x, edge_index, edge_weight=None):
        last = edge_weight if self.both else None
        return self.second(self.first(x, edge_index, edge_weight).relu(), edge_index, last)

x, edges = small_graph()
weight = torch.rand(edges.size(1))

class Case:
    def __init__(self, packed):
        self.packed = packed

def packed_net(*given):
    torch.manual_seed(3)
    return convert(two_steps(Net(*given), UniformConfig(bits=4), x, edges))
"""


def test_edge_weights_count_in_a_model_that_was_trained_without(
    python: Python, tmp_path: Path
) -> None:
    check(
        python,
        tmp_path,
        WEIGHTED
        + """
models = {
    "gcn": packed_net(GCNConv(FEATURES, 8), GCNConv(8, CLASSES)),
    "graph": packed_net(GraphConv(FEATURES, 8), GraphConv(8, CLASSES)),
    "first layer alone": packed_net(GCNConv(FEATURES, 8), GCNConv(8, CLASSES), False),
}
for name, packed in models.items():
    packed.predict(x, edges)
    assert packed.plan(x, edges) is not None  # of another call
    for of_edges in ({"edge_weight": weight}, {}):
        expected = packed.predict(x, edges, **of_edges)
        for world in (1, 2, 3):
            parts = folder / f"{name} {world} {len(of_edges)}"
            write_parts(parts, edges, {"x": x}, of_edges, world, name="small")
            found = ended(start(world, work_of(Case(packed), parts), folder), folder)
            assert same(found[0][0], expected), (name, world, of_edges, found)
    assert not same(packed.predict(x, edges, weight), packed.predict(x, edges))
""",
    )


def test_what_the_model_does_not_take_is_named(python: Python, tmp_path: Path) -> None:
    check(
        python,
        tmp_path,
        WEIGHTED
        + """
def refused(packed, of_nodes, of_edges, *words):
    write_parts(folder / "parts", edges, of_nodes, of_edges, 1, name="small")
    try:
        run_part(packed, read_part(folder / "parts", 0))
    except ConfigError as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError(words)

packed = packed_net(GCNConv(FEATURES, 8), GCNConv(8, CLASSES))
named = "Net takes (x, edge_index, edge_weight)"
refused(packed, {"x": x}, {"edge_score": weight}, "edge_score", named)
refused(packed, {"x": x, "pos": x}, {}, "pos", named)
refused(packed, {"features": x}, {}, "features", "'x'", named)
refused(make_case("gcn").packed, {"x": x}, {"edge_wieght": weight}, "edge_wieght")
""",
    )


def test_ranks_whose_nodes_have_no_edges_of_their_own(python: Python, tmp_path: Path) -> None:
    check(
        python,
        tmp_path,
        """
case = make_case("gcn")
half = NODES // 2
first = torch.arange(half)
crossing = torch.stack([first, first + half])  # into the second half, from the first
for name, edges in {"crossing": crossing, "none": crossing[:, :0]}.items():
    parts = folder / name
    write_parts(parts, edges, {"x": case.x}, {}, 2, name="small")
    found = ended(start(2, work_of(case, parts), folder), folder)
    assert same(found[0][0], case.packed.predict(case.x, edges)), (name, found)
""",
    )


def test_a_step_that_stands_in_the_way_is_named(python: Python, tmp_path: Path) -> None:
    check(
        python,
        tmp_path,
        """
from torch import nn
from torch_geometric.nn import GCNConv, LayerNorm, SAGEConv
from nodebits.methods import UniformConfig

class Net(nn.Module):
    def __init__(self, between, layer=SAGEConv):
        super().__init__()
        self.first, self.between, self.second = layer(FEATURES, 8), between, SAGEConv(8, CLASSES)
    def forward(self, x, edge_index):
        return self.second(self.between(self.first(x, edge_index)), edge_index)

class Centered(nn.Module):
    def forward(self, x):
        return x - x.mean(0)

class Backwards(Net):
    def forward(self, x, edge_index):
        return super().forward(x, edge_index.flip(0))

class Degrees(Net):
    def forward(self, x, edge_index):
        ones = torch.ones_like(edge_index[1], dtype=torch.float32)
        degree = x.new_zeros(x.size(0)).index_add(0, edge_index[1], ones)
        return super().forward(x * degree.view(-1, 1), edge_index)

x, edges = small_graph()
write_parts(folder / "parts", edges, {"x": x}, {}, 1, name="small")
loaded = read_part(folder / "parts", 0)
models = {
    "layer norm": Net(LayerNorm(8)), "centered": Net(Centered()),
    "backwards": Backwards(nn.ReLU()), "degrees": Degrees(nn.ReLU()),
}
for name, model in models.items():
    torch.manual_seed(3)
    packed = convert(two_steps(model, UniformConfig(bits=4), x, edges))
    ops = {step["op"] for step in packed.plan(x, edges).about["steps"]}
    try:
        run_part(packed, loaded)
    except ConfigError as error:
        words = str(error)
        assert "together, and a rank has its own alone" in words, (name, words)
        assert words.split("'")[1].split(":")[0] in ops, (name, words)
        print(name, words)
    else:
        raise AssertionError(name)
""",
    )


def test_a_rank_that_is_killed_or_stuck_is_named_and_the_next_run_goes_on(
    python: Python, tmp_path: Path
) -> None:
    check(
        python,
        tmp_path,
        """
case = make_case("gcn")
case.packed.plan(case.x, case.edge_index)  # for all ranks, before the time counts
parts = folder / "parts"
write_parts(parts, case.edge_index, {"x": case.x}, {}, 3, name="small")
begin = running.Exchange.begin

def harmed(signal_number):
    def work(rank):
        seen = []
        def late(self, rows, what, whole=False):
            seen.append(what)
            if rank == 1 and len(seen) == 2:
                os.kill(os.getpid(), signal_number)
            return begin(self, rows, what, whole)
        running.Exchange.begin = late
        began = time.monotonic()
        try:
            work_of(case, parts, 1.5, kept=True)(rank)
        except RankError as error:
            return str(error), time.monotonic() - began
    return work

# Killed: the others say so, and the last layer that all have finished is taken up.
processes = start(3, harmed(signal.SIGKILL), folder)
found = ended(processes, folder)
assert found[1] is None
for rank in (0, 2):
    text, seconds = found[rank]
    assert "another rank ended during layer 2 of 2" in text and "run the same command" in text, text
    assert seconds < 1.4, seconds
again = ended(start(3, work_of(case, parts, kept=True), folder), folder)
assert same(again[0][0], whole(case)) and [one[2] for one in again] == [1, 1, 1]


# Stuck: at the timeout.
other = folder / "other"
write_parts(other, case.edge_index, {"x": case.x}, {}, 3, name="small")
parts = other
processes = start(3, harmed(signal.SIGSTOP), folder)
while not all((folder / str(rank)).exists() for rank in (0, 2)):
    time.sleep(0.02)
os.kill(processes[1], signal.SIGKILL)
found = ended(processes, folder)
for rank in (0, 2):
    text, seconds = found[rank]
    assert "layer 2 of 2" in text and 1.0 < seconds < 10, (text, seconds)
""",
    )


def test_what_is_wrong_on_one_rank_ends_all_and_what_cannot_run_says_so(
    python: Python, tmp_path: Path
) -> None:
    check(
        python,
        tmp_path,
        """
case = make_case("gcn")
x = case.x.clone()
x[0, 0] = float("nan")
write_parts(folder / "nan", case.edge_index, {"x": x}, {}, 2, name="small")
first, second = ended(start(2, work_of(case, folder / "nan"), folder), folder)
assert isinstance(first, NonFiniteError) and isinstance(second, RankError), (first, second)

write_parts(folder / "good", case.edge_index, {"x": case.x}, {}, 2, name="small")
loaded = read_part(folder / "good", 0)
def refused(packed, words, world=2):
    try:
        run_part(packed, loaded, world)
    except ConfigError as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)
refused(case.packed, "in 2 parts, and there are 3 processes", 3)
refused(make_case("gcn", "a2q").packed, "parameters for every node")
refused(make_case("gin", task="graph").packed, "together, and a rank has its own alone")

# Ranks with other models notice before anything is computed.
cases = [case, make_case("sage")]
found = ended(start(2, lambda rank: work_of(cases[rank], folder / "good")(rank), folder), folder)
assert all(isinstance(one, ConfigError) and "different models" in str(one) for one in found), found
""",
    )


@pytest.mark.slow
def test_a_hundred_kills_leave_the_same_bits(python: Python, tmp_path: Path) -> None:
    check(
        python,
        tmp_path,
        """
import random
case = make_case("gcn")
parts, rng = folder / "parts", random.Random(0)
write_parts(parts, case.edge_index, {"x": case.x}, {}, 2, name="small")
expected, resumed = whole(case), 0
for _ in range(100):
    # A rank whose first one is killed before they have met waits for it this long.
    processes = start(2, work_of(case, parts, 2, kept=True), folder)
    time.sleep(rng.uniform(0, 0.25))
    try:
        os.kill(processes[rng.randrange(2)], signal.SIGKILL)
    except ProcessLookupError:
        pass
    ended(processes, folder)
    found = ended(start(2, work_of(case, parts, kept=True), folder), folder)
    assert same(found[0][0], expected)
    resumed += found[0][2]
print(resumed)
""",
    )


@pytest.mark.slow
def test_features_and_kinds_of_edges(python: Python, tmp_path: Path) -> None:
    check(
        python,
        tmp_path,
        """
from torch import nn
from torch_geometric.nn import (AGNNConv, FiLMConv, GATConv, GATv2Conv, GENConv, GINEConv, PNAConv,
                                ResGatedGraphConv, RGCNConv, SAGEConv, TransformerConv)
from nodebits.methods import UniformConfig

class Net(nn.Module):
    def __init__(self, first):
        super().__init__()
        self.first, self.second = first, SAGEConv(8, CLASSES)
    def forward(self, x, edge_index, edge_attr):
        return self.second(self.first(x, edge_index, edge_attr).relu(), edge_index)

class Cosines(Net):
    def __init__(self):
        super().__init__(AGNNConv())
        self.second = AGNNConv()
    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)

class Bonds(Net):
    def __init__(self):
        super().__init__(TransformerConv(FEATURES, 4, 2, edge_dim=8))
        self.kinds = nn.ModuleList([nn.Embedding(3, 8) for _ in range(2)])
        self.norm = nn.LayerNorm(8)
    def forward(self, x, edge_index, edge_attr):
        rows = sum(table(edge_attr[:, i]) for i, table in enumerate(self.kinds))
        return super().forward(x, edge_index, self.norm(rows))

x, edges = small_graph()
features = {"edge_attr": torch.randn(edges.size(1), 3)}
bonds = {"edge_attr": torch.arange(2 * edges.size(1)).view(-1, 2) % 3}
kinds = {"edge_attr": torch.arange(edges.size(1)) % 3}
pna = ["mean", "std", "max"], ["identity"], torch.ones(64)
models = {
    "gine": (Net(GINEConv(nn.Linear(FEATURES, 8), edge_dim=3)), features),
    "gen": (Net(GENConv(FEATURES, 8, edge_dim=3, norm=None)), features),
    "gatv2": (Net(GATv2Conv(FEATURES, 4, 2, edge_dim=3, add_self_loops=False)), features),
    "gated": (Net(ResGatedGraphConv(FEATURES, 8, edge_dim=3)), features),
    "gat": (Net(GATConv(FEATURES, 4, 2, edge_dim=3)), features),
    "loops of ones": (Net(GATConv(FEATURES, 4, 2, edge_dim=3, fill_value=1.0)), features),
    "gatv2, loops": (Net(GATv2Conv(FEATURES, 4, 2, edge_dim=3, fill_value="add")), features),
    "transformer": (Net(TransformerConv(FEATURES, 4, 2, edge_dim=3)), features),
    "pna": (Net(PNAConv(FEATURES, 8, *pna, edge_dim=3)), features),
    "rgcn": (Net(RGCNConv(FEATURES, 8, 3, aggr="max")), kinds),
    "film": (Net(FiLMConv(FEATURES, 8, 3)), kinds),
    "bonds": (Bonds(), bonds),
    "agnn": (Cosines(), {}),
}
packed, abouts = {}, {}
for name, (model, of_edges) in models.items():
    torch.manual_seed(3)
    packed[name] = convert(two_steps(model, UniformConfig(bits=4), x, edges, **of_edges))
for world, above in ((2, None), (3, 6)):
    for name, (_, of_edges) in models.items():
        parts = folder / f"{name} {world}"
        given = edges, {"x": x}, of_edges, world
        abouts[name] = write_parts(parts, *given, split_hubs=above, name="small")
        assert (abouts[name].hubs > 0) == (world == 3)
    def work(rank):
        results = {}
        with joined(30.0) as ranks:
            for name in models:
                loaded = read_part(folder / f"{name} {world}", rank)
                progress = Progress(folder / f"{name} {world}", rank, "key")
                for _ in range(2):  # the second goes on where the last layer began
                    found = run_part(packed[name], loaded, world, 30.0, progress)
                    nodes = loaded.part.nodes
                    out = gathered(found.outputs, nodes, NODES, ranks, 30.0)
                    results.setdefault(name, []).append((out, found))
        return results
    found = ended(start(world, work, folder), folder)
    for name, (_, of_edges) in models.items():
        expected = packed[name].predict(x, edges, **of_edges)
        for out, one in found[0][name]:
            assert same(out, expected), (name, world)
        assert one.layers == 1 or one.resumed == one.layers - 1, (name, one)
    if world == 2:
        # A row crosses once for the sum and the products with both ends, and two floats with it.
        sent = sum(one["agnn"][0][1].sent for one in found)
        assert sent == abouts["agnn"].boundary * 2 * (FEATURES // 2 + 8), (sent, abouts["agnn"])
""",
    )
