"""Folders of tables: ids, roles, categories, labels, splits, and what is wrong in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nodebits.core.errors import ConfigError, FileFormatError, LabelError, MissingExtraError
from nodebits.data import load_dataset
from nodebits.data.own.options import OwnOptions, split_rule
from nodebits.data.sources.base import Request, find_source

NODES = """id,colour,size,stock,kind,split
b7,red,0.5,true,cat,train
a1,blue,1.5,false,dog,train
c9,red,2.5,true,cat,val
d4,green,-1,false,dog,test
"""
EDGES = "source,target\nb7,a1\na1,c9\nc9,c9\nb7,a1\n"


def folder(place: Path, nodes: str = NODES, edges: str = EDGES, **more: str) -> Path:
    made = place / "shop"
    made.mkdir(exist_ok=True)
    for name, text in {"nodes": nodes, "edges": edges, **more}.items():
        (made / f"{name}.csv").write_text(text)
    return made


def test_ids_categories_and_string_labels_are_mapped(tmp_path: Path) -> None:
    found = load_dataset(str(folder(tmp_path)), target="kind")
    assert found.data.x.tolist() == [
        [0, 0, 1, 0.5, 1],
        [1, 0, 0, 1.5, 0],
        [0, 0, 1, 2.5, 1],
        [0, 1, 0, -1.0, 0],
    ]
    assert found.data.edge_index.tolist() == [[0, 1, 2, 0], [1, 2, 2, 1]]
    assert found.data.y.tolist() == [0, 1, 0, 1] and found.task == "node"
    assert found.ids == ["b7", "a1", "c9", "d4"]
    assert found.about["classes"] == ["cat", "dog"] and found.about["target"] == ["kind"]
    assert [i.tolist() for i in (found.train_idx, found.val_idx, found.test_idx)] == [
        [0, 1],
        [2],
        [3],
    ]
    for words in ("nodes by id", "colour one-hot in 3", "target kind", "classes cat, dog"):
        assert words in found.notes
    assert "1 self loops and 1 edges that stand twice (of 4 edges)" in found.notes


def test_new_data_become_the_same_features(tmp_path: Path) -> None:
    learned = load_dataset(str(folder(tmp_path)), target="kind")
    new = folder(
        tmp_path, "stock,id,size,colour\ntrue,z,1,blue\nfalse,y,2,pink\n", "source,target\nz,y"
    )
    source, _ = find_source(str(new), None)
    own = OwnOptions(schema=dict(learned.about), asks=True)
    asked = source.load(Request(str(new), task="node", own=own))
    assert asked.data.x.tolist() == [[1, 0, 0, 1, 1], [0, 0, 0, 2, 0]]  # pink was never seen
    assert "1 row of nodes.csv with a colour that the model does not know, such as 'pink'" in (
        asked.notes
    )
    assert asked.ids == ["z", "y"] and asked.about["classes"] == ["cat", "dog"]
    bare = folder(tmp_path, "id,size\nz,1\ny,2\n", "source,target\nz,y")
    with pytest.raises(FileFormatError, match="lacks colour, stock: the model was trained on"):
        source.load(Request(str(bare), task="node", own=own))


def test_numbers_are_regressed_and_split_by_time(tmp_path: Path) -> None:
    nodes = "id,day,price\n" + "".join(f"{n},2026-01-{28 - n:02},{n / 3:.3f}\n" for n in range(10))
    made = folder(tmp_path, nodes, "source,target\n0,1\n")
    found = load_dataset(str(made), target="price", split="time:day")
    assert found.task == "node-regression"
    assert found.train_idx.tolist() == [4, 5, 6, 7, 8, 9]  # the earliest
    assert found.test_idx.tolist() == [0, 1] and "the earliest 60 % train" in found.notes
    shares = load_dataset(str(made), target="price", split="0.5/0.3/0.2", seed=3, ignore=["day"])
    again = load_dataset(str(made), target="price", split="0.5/0.3/0.2", seed=3, ignore=["day"])
    other = load_dataset(str(made), target="price", split="0.5/0.3/0.2", seed=4, ignore=["day"])
    assert [len(i) for i in (shares.train_idx, shares.val_idx, shares.test_idx)] == [5, 3, 2]
    assert torch.equal(shares.train_idx, again.train_idx)
    assert not torch.equal(shares.train_idx, other.train_idx)


def test_rows_without_a_target_are_in_no_split_that_is_drawn(tmp_path: Path) -> None:
    cells = ["0.5", "", "1.5", "2.5", "", "3.5", "1", "2"]
    nodes = "id,price\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(cells))
    made = folder(tmp_path, nodes, "source,target\n0,1\n")
    found = load_dataset(str(made), target="price")
    held = torch.cat([found.train_idx, found.val_idx, found.test_idx])
    assert sorted(held.tolist()) == [0, 2, 3, 5, 6, 7] and "2 nodes have no target" in found.notes


def test_graphs_edges_and_links_of_tables(tmp_path: Path) -> None:
    nodes = "id,graph,w\n0,g1,1\n1,g1,2\n2,g0,3\n3,g0,4\n"
    graphs = "graph,label\ng1,toxic\ng0,fine\n"
    made = folder(tmp_path, nodes, "source,target\n0,1\n2,3\n", graphs=graphs)
    found = load_dataset(str(made))
    assert found.task == "graph" and found.ids == ["g1", "g0"]
    assert [int(graph.y) for graph in found.graphs] == [1, 0]
    assert found.graphs[1].x.tolist() == [[3.0], [4.0]]
    (made / "graphs.csv").unlink()
    edges = "from,to,weight,score\n" + "".join(f"{n % 4},{n * 3 % 4},2,{n}.5\n" for n in range(12))
    made = folder(tmp_path, "id,w\n0,1\n1,2\n2,3\n3,4\n", edges)
    found = load_dataset(str(made), target="score", task="edge-regression")
    assert found.data.edge_weight.unique().tolist() == [2.0]
    assert sum(len(i) for i in (found.train_idx, found.val_idx, found.test_idx)) == 12
    links = load_dataset(str(made), task="link", ignore=["score"], split="0.5/0.25/0.25")
    assert links.parts is not None
    assert [part.edge_label_index.size(1) for part in links.parts] == [6, 3, 3]
    assert links.parts[2].edge_index.size(1) == 9  # test messages run over the others


def test_tables_without_rows_are_there(tmp_path: Path) -> None:
    """They are not made up of others, nor looked for under another name."""
    made = folder(tmp_path, "id,a\n", "source,target\nb,c\n")
    source, _ = find_source(str(made), None)
    asked = Request(str(made), task="node", own=OwnOptions(asks=True))
    with pytest.raises(FileFormatError, match="line 2: 'source' is 'b', which is no node of nodes"):
        source.load(asked)
    (made / "edges.csv").write_text("source,target\n")
    assert source.load(asked).ids == []
    (made / "graphs.csv").write_text("id\n")
    (made / "nodes.csv").write_text("id,graph,a\n0,g,1\n")
    with pytest.raises(FileFormatError, match="line 2: 'graph' is 'g', which is no graph"):
        source.load(Request(str(made), task="graph", own=OwnOptions(asks=True)))


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_graph_without_nodes_is_named_wherever_it_stands(
    tmp_path: Path, place: int, asks: bool
) -> None:
    rows = ["g1,toxic", "g0,fine"]
    rows.insert(place, "g7,fine")
    graphs = "\n".join(["graph,label", *rows, ""])
    nodes = "id,graph,w\n0,g1,1\n1,g1,2\n2,g0,3\n3,g0,4\n"
    made = folder(tmp_path, nodes, "source,target\n0,1\n2,3\n", graphs=graphs)
    source, _ = find_source(str(made), None)
    words = rf"graphs\.csv, line {place + 2}: graph 'g7' has no nodes in nodes\.csv"
    with pytest.raises(FileFormatError, match=words):
        source.load(Request(str(made), task="graph", own=OwnOptions(asks=asks)))


def test_edges_alone_are_a_graph(tmp_path: Path) -> None:
    made = tmp_path / "only"
    made.mkdir()
    (made / "edges.csv").write_text(
        "source,target\n" + "".join(f"{n},{n + 9}\n" for n in range(20))
    )
    found = load_dataset(str(made), task="link")
    assert found.data.x.size() == (29, 2) and "log2(1 + degree)" in found.notes


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"nodes": "id,label\na,0\nb\n"}, {}, r"nodes\.csv, line 3: 1 values under 2 columns"),
        ({"nodes": 'id,label\na,"0\n1"\nb,1,2\n'}, {}, r"line 4: 3 values under 2"),
        ({"nodes": "id,id\na,0\n"}, {}, "line 1: the header has the name 'id' twice"),
        ({"nodes": "id,label\na,0\na,1\n"}, {}, "line 3: the id 'a' stands twice"),
        ({"edges": "source,target\nb7,zz\n"}, {}, r"edges\.csv, line 2: 'target' is 'zz', which"),
        ({"edges": "source\nb7\n"}, {}, "needs two columns"),
        ({"edges": "source;target\nb7;a1\n"}, {}, r"edges\.csv, line 1: .* 2 columns .*sep=';'"),
        ({"nodes": "id;a;label\nx;1,5;0\n"}, {}, r"nodes\.csv, line 1: .* 3 .*decimal=','"),
        ({"nodes": "id\ta\nx\t1\n"}, {}, r"separated by '\\t'"),
        ({"nodes": "id,label\n"}, {}, r"nodes\.csv has no rows"),
        ({}, {"target": "prize"}, r"no table has the target prize; there are nodes\.csv \(id"),
        ({}, {"target": "kind", "ignore": ["colr"]}, "no column 'colr'"),
        ({}, {"target": "kind", "split": "column:size"}, "line 2: 'size' is '0.5': write train"),
        ({}, {"target": "kind", "split": "time:colour"}, "holds neither numbers nor dates"),
        ({}, {"target": "kind", "split": "0.9/0.3/0.1"}, "sum to 1.3"),
        ({}, {"target": "kind", "split": "some"}, "split is 'some'"),
        ({"nodes": "id,a,label\nx,1,0\ny,,1\n"}, {}, "line 3: 'a' is empty: fill it"),
        ({"nodes": "id,a,label\nx,1,0\ny,inf,1\n"}, {}, "line 3: 'a' is 'inf'.*finite"),
        (
            {"nodes": "id,bio,label\n" + "".join(f"{n},text {n},{n % 2}\n" for n in range(20))},
            {},
            r"column 'bio' is text, 20 different ones in 20 rows.*ignore bio",
        ),
        (
            {"nodes": "id,w,label\n" + "".join(f"{n},{n},name {n}\n" for n in range(20))},
            {},
            "target 'label' is text, 20 different ones",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, change: dict[str, str], options: dict[str, Any], words: str
) -> None:
    if "nodes" in change:
        change = {"edges": "source,target\n", **change}
    made = folder(tmp_path, **change)
    with pytest.raises((FileFormatError, ConfigError, LabelError), match=words):
        load_dataset(str(made), **options)


def test_parquet_is_the_same_or_says_what_it_needs(tmp_path: Path) -> None:
    made = folder(tmp_path)
    expected = load_dataset(str(made), target="kind")
    (made / "nodes.csv").unlink()
    try:
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError:
        (made / "nodes.parquet").write_bytes(b"PAR1")
        with pytest.raises(MissingExtraError, match=r"pip install 'nodebits\[parquet\]'"):
            load_dataset(str(made), target="kind")
        return
    (tmp_path / "n.csv").write_text(NODES)
    table = pyarrow.csv.read_csv(tmp_path / "n.csv")
    pyarrow.parquet.write_table(table, made / "nodes.parquet")
    found = load_dataset(str(made), target="kind")
    for name in ("x", "y", "edge_index"):
        assert torch.equal(found.data[name], expected.data[name])


def test_ways_to_split() -> None:
    assert split_rule(None).kind == "default" and split_rule(4).seed == 4
    rule = split_rule("time:day:80/10/10")
    assert (rule.kind, rule.column, rule.shares) == ("time", "day", (0.8, 0.1, 0.1))
    assert split_rule("0.7/0.3").shares == pytest.approx((0.7, 0.3, 0.0))
    with pytest.raises(ConfigError, match="give one of them"):
        split_rule(3, 4)


def test_string_labels_of_arrays_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    y = np.array(["low", "high"] * 10)
    np.savez(path, x=np.eye(20), y=y, edge_index=np.arange(20).reshape(2, 10))
    found = load_dataset(str(path))
    assert found.about["classes"] == ["high", "low"] and found.data.y.tolist() == [1, 0] * 10


def test_columns_of_masks_are_splits(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    masks = {
        f"{name}_mask": np.stack([np.arange(6) // 2 == n, np.arange(6) % 3 == n], axis=1)
        for n, name in enumerate(("train", "val", "test"))
    }
    np.savez(path, x=np.eye(6), y=np.arange(6) % 2, edge_index=np.zeros((2, 1), int), **masks)
    assert load_dataset(str(path)).train_idx.tolist() == [0, 1]
    assert load_dataset(str(path), split=1).train_idx.tolist() == [0, 3]
    with pytest.raises(ConfigError, match="have 2"):
        load_dataset(str(path), split=2)
