"""The names that ``load_dataset`` knows, and the PyG class and raw files behind each."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from nodebits.core.errors import ConfigError, UnknownNameError, UnsupportedTaskError

Family = Literal[
    "embedded", "planetoid", "amazon", "coauthor", "citation-full", "heterophilous", "tu",
    "superpixels", "slic", "aqsol", "zinc", "moleculenet", "tu-numbers",
]  # fmt: skip
TU_PREFIX = "tu:"
# Graphs with a split of their own: ``NAME:N`` are the first N of each part.
_GIVEN_SPLIT = ("superpixels", "slic", "aqsol", "zinc", "tu-numbers")


@dataclass(frozen=True)
class Entry:
    """One data set.

    Attributes:
        name: Canonical name.
        family: Which loader reads it.
        pyg_name: The name its PyG class takes.
        folder: Its folder below the data root.
        raw_files: The raw files without which it cannot be read.
        citation: Source.
        first: Only so many graphs of each part of the split; None for all.
    """

    name: str
    family: Family
    pyg_name: str = ""
    folder: str = ""
    raw_files: tuple[str, ...] = ()
    citation: str = ""
    first: int | None = None


_PLANETOID = (
    "Z. Yang, W. Cohen, R. Salakhutdinov. Revisiting Semi-Supervised Learning with Graph "
    "Embeddings. ICML 2016."
)
_SHCHUR = (
    "O. Shchur, M. Mumme, A. Bojchevski, S. Günnemann. Pitfalls of Graph Neural Network "
    "Evaluation. 2018."
)
_BOJCHEVSKI = (
    "A. Bojchevski, S. Günnemann. Deep Gaussian Embedding of Graphs: Unsupervised Inductive "
    "Learning via Ranking. ICLR 2018."
)
_PLATONOV = (
    "O. Platonov et al. A Critical Look at the Evaluation of GNNs under Heterophily: Are We "
    "Really Making Progress? ICLR 2023."
)
_TU = (
    "C. Morris et al. TUDataset: A Collection of Benchmark Datasets for Learning with Graphs. 2020."
)
_DWIVEDI = "V. P. Dwivedi et al. Benchmarking Graph Neural Networks. JMLR 24, 2023."
_ZINC_ALT = (
    "J. Irwin et al. ZINC: A Free Tool to Discover Chemistry for Biology. 2012; 11,888 molecules "
    "that are not those of the benchmark's ZINC: figures are not comparable with published ones."
)
_ESOL = (
    "J. S. Delaney. ESOL: Estimating Aqueous Solubility Directly from Molecular Structure. 2004."
)

_TU_NAMES = (
    "COLLAB",
    "DD",
    "ENZYMES",
    "IMDB-BINARY",
    "IMDB-MULTI",
    "MUTAG",
    "Mutagenicity",
    "NCI1",
    "PROTEINS",
    "REDDIT-BINARY",
    "REDDIT-MULTI-5K",
)


# Known, but for tasks that no loader here prepares yet.
_OTHER_TASKS = {
    **dict.fromkeys(("FreeSolv", "Lipo", "QM7b", "QM9"), "regression"),
    **dict.fromkeys(("PPI", "Yelp", "AmazonProducts"), "multi-label classification"),
    **dict.fromkeys(("Tox21", "SIDER", "MUV", "ToxCast", "PCBA"), "multi-label classification"),
}


def _tu(name: str) -> Entry:
    files = tuple(f"{name}_{part}.txt" for part in ("A", "graph_indicator"))
    # With the prefix the name finds the set again, wherever the data is.
    canonical = name if name in _TU_NAMES else f"TU:{name}"
    return Entry(canonical, "tu", name, name, files, _TU)


def _entries() -> list[Entry]:
    result = [Entry("digits", "embedded"), Entry("digits-graphs", "embedded")]
    parts = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
    for name in ("Cora", "CiteSeer", "PubMed"):
        files = tuple(f"ind.{name.lower()}.{part}" for part in parts)
        result.append(Entry(name, "planetoid", name, name, files, _PLANETOID))
    for name in ("Computers", "Photo"):
        files = (f"amazon_electronics_{name.lower()}.npz",)
        result.append(Entry(f"Amazon-{name}", "amazon", name, name, files, _SHCHUR))
    for name, short in (("CS", "cs"), ("Physics", "phy")):
        files = (f"ms_academic_{short}.npz",)
        result.append(Entry(f"Coauthor-{name}", "coauthor", name, name, files, _SHCHUR))
    for name in ("Cora", "Cora_ML", "CiteSeer", "DBLP", "PubMed"):
        low = name.lower()
        entry = Entry(
            f"CitationFull-{name}", "citation-full", low, low, (f"{low}.npz",), _BOJCHEVSKI
        )
        result.append(entry)
    for name in ("Roman-empire", "Amazon-ratings", "Minesweeper", "Tolokers", "Questions"):
        low = name.lower().replace("-", "_")
        result.append(Entry(name, "heterophilous", name, low, (f"{low}.npz",), _PLATONOV))
    return result + [_tu(name) for name in _TU_NAMES] + _benchmark_entries()


def _benchmark_entries() -> list[Entry]:
    """Superpixels, as released and made of images here, and molecules with a number each."""
    made = "The graphs are made here of the images, by SLIC; they are not the benchmark's files."
    lossy = "Of images that their publisher compressed as JPEG, which is lossy."
    parts = ("train.pickle", "val.pickle", "test.pickle")
    index = tuple(part.replace("pickle", "index") for part in parts)
    alt = tuple(f"ZINC12k_alt_{part}.txt" for part in ("A", "graph_indicator", "graph_attributes"))
    return [
        Entry("MNIST", "superpixels", "MNIST", "MNIST", ("MNIST_v2.pt",), _DWIVEDI),
        Entry("CIFAR10", "superpixels", "CIFAR10", "CIFAR10", ("CIFAR10_v2.pt",), _DWIVEDI),
        Entry("MNIST-slic", "slic", "MNIST", "MNIST", citation=f"{_DWIVEDI} {made}"),
        Entry("CIFAR10-jpeg-slic", "slic", "CIFAR10", "CIFAR10",
              citation=f"{_DWIVEDI} {made} {lossy}"),
        Entry("AQSOL", "aqsol", "AQSOL", "AQSOL", parts, _DWIVEDI),
        Entry("ZINC", "zinc", "ZINC", "ZINC", parts + index, _DWIVEDI),
        Entry("ZINC12k_alt", "tu-numbers", "ZINC12k_alt", "ZINC12k_alt", alt + index, _ZINC_ALT),
        Entry("ESOL", "moleculenet", "ESOL", "esol", ("delaney-processed.csv",), _ESOL),
    ]  # fmt: skip


ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _entries()}

_ALIASES = {
    "computers": "Amazon-Computers",
    "photo": "Amazon-Photo",
    "cs": "Coauthor-CS",
    "physics": "Coauthor-Physics",
    "cora-ml": "CitationFull-Cora_ML",
    "dblp": "CitationFull-DBLP",
}


def _fold(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")


_LOOKUP = {_fold(name): name for name in ENTRIES} | _ALIASES


def dataset_names() -> list[str]:
    """The canonical names, embedded sets first; ``TU:NAME`` reaches every other TU set."""
    return list(ENTRIES)


def data_folder(root: str | os.PathLike[str] | None) -> Path | None:
    """The folder of raw data: ``root``, else ``NODEBITS_DATA``, else None."""
    chosen = root or os.environ.get("NODEBITS_DATA")
    return Path(chosen).expanduser().absolute() if chosen else None


def find_entry(name: str, root: Path | None = None) -> Entry:
    """Finds a data set by name; case does not matter, nor ``_`` or a space for ``-``.

    Args:
        name: A canonical name, PyG's own name for it, ``TU:NAME`` for any set of the TU
            collection, or ``NAME:N`` for the first graphs of each part of a split.
        root: Data folder. A set of the TU collection in it is found without the prefix too.

    Raises:
        UnknownNameError: no such name; the message lists the closest.
        UnsupportedTaskError: a set for a task that is not prepared here.
        ConfigError: The first graphs of a set that is one graph, or has no split of its own.
    """
    if not isinstance(name, str):
        raise UnknownNameError(f"name is {name!r} ({type(name).__name__}): pass a string")
    if name.strip().lower().startswith(TU_PREFIX):
        tu_name = name.strip()[len(TU_PREFIX) :]
        if not tu_name or any(c in tu_name for c in "/\\") or tu_name.startswith("."):
            raise UnknownNameError(
                f"{name!r} is not a TU data set name; write it as TU:MUTAG, with no path in it"
            )
        known = _LOOKUP.get(_fold(tu_name))
        return ENTRIES[known] if known in _TU_NAMES else _tu(_folder(root, tu_name) or tu_name)
    plain, _, first = name.strip().rpartition(":")
    if first.isdecimal() and _fold(plain) in _LOOKUP:
        return _first_graphs(find_entry(plain, root), int(first))
    canonical = _LOOKUP.get(_fold(name))
    if canonical is not None:
        return _at_hand(ENTRIES[canonical], root)
    for other, task in _OTHER_TASKS.items():
        if _fold(other) == _fold(name):
            raise UnsupportedTaskError(
                f"data set {other} is for {task}, and only classification is loaded by name: pass "
                "its arrays as PATH.npz (nodebits datasets, nodebits tasks)"
            )
    folder = _folder(root, name)
    if folder is None or root is None:
        raise UnknownNameError.for_name("data set", name, ENTRIES)
    entry = _tu(folder)
    if not all((root / folder / "raw" / file).is_file() for file in entry.raw_files):
        raise UnknownNameError(
            f"unknown data set {name!r}: {root / folder} holds no graphs in a form known here "
            f"(raw/{entry.raw_files[0]} and so on). Known: {', '.join(ENTRIES)}, TU:NAME"
        )
    return entry


def _first_graphs(entry: Entry, count: int) -> Entry:
    if entry.family not in _GIVEN_SPLIT or count < 1:
        able = ", ".join(name for name, e in ENTRIES.items() if e.family in _GIVEN_SPLIT)
        raise ConfigError(
            f"{entry.name}:{count} is no data set: NAME:N, N at least 1, are the first N graphs of "
            f"each part of a split, of {able}"
        )
    return replace(entry, name=f"{entry.name}:{count}", first=count)


def _at_hand(entry: Entry, root: Path | None) -> Entry:
    """The released superpixels; those made of images where a data folder has only these."""
    if entry.family != "superpixels" or root is None:
        return entry
    raw = root / entry.folder / "raw"
    if any((raw / file).is_file() for file in entry.raw_files):
        return entry
    made = next(e for e in ENTRIES.values() if (e.family, e.pyg_name) == ("slic", entry.pyg_name))
    return made


def _folder(root: Path | None, name: str) -> str | None:
    """The folder of that name below the data root; case decides only between several."""
    if root is None or not root.is_dir():
        return None
    found = sorted(path.name for path in root.iterdir() if path.is_dir())
    same = [folder for folder in found if folder.lower() == name.strip().lower()]
    return name.strip() if name.strip() in same else next(iter(same), None)
