"""R1: opening a file runs no code from it.

    python benchmarks/reliability/hostile_files.py

Hostile files of every kind are given to every reader, while Python reports what is done: running or
compiling code, importing, unpickling, opening a library, a socket, a process or a file for writing,
and removing or renaming files. The readers ran once before, so that nothing of their own is
imported for the first time.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import Result, record

from fuzz.containerwise import Parts, built
from fuzz.target import CORPUS
from fuzz.targets import TARGETS

_FORBIDDEN = (
    *("exec", "compile", "import", "pickle.find_class", "marshal.loads", "ctypes.dlopen"),
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn"),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.link", "os.symlink"),
    *("os.truncate", "shutil.rmtree", "shutil.copyfile", "socket.__new__", "socket.connect"),
    *("code.__new__", "tempfile.mkstemp", "urllib.Request"),
)
watching = False
seen: list[str] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not watching:
        return
    writes = event == "open" and len(arguments) > 2 and _writes(arguments[1], arguments[2])
    if writes or event in _FORBIDDEN:
        seen.append(f"{event} {str(arguments)[:100]}")


def _writes(mode: Any, flags: Any) -> bool:
    bits = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    return bool(flags & bits) if isinstance(flags, int) and flags else "w" in str(mode or "")


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Notes what is done in it."""
    global watching
    watching = True
    try:
        yield
    finally:
        watching = False


class Attack:
    """What runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.command = f"touch {marker}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def archive(**members: bytes) -> bytes:
    """A zip of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in members.items():
            made.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def with_header(data: bytes) -> bytes:
    """What safetensors calls a file: a length, and as much text."""
    return len(data).to_bytes(8, "little") + data


def pickles(marker: Path) -> dict[str, bytes]:
    """Files that run a command where somebody unpickles them."""
    attack = Attack(marker)
    plain = pickle.dumps(attack)
    saved, old, npy, npz = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"version": 1, "fingerprint": "fuzz", "state": attack}, saved)
    torch.save(attack, old, _use_new_zipfile_serialization=False)
    objects = np.array([attack], dtype=object)
    np.save(npy, objects, allow_pickle=True)
    with np.load(CORPUS / "data" / "graph.npz") as arrays:
        np.savez(npz, **{**dict(arrays), "labels": objects})
    made = {f"pickle {n}": pickle.dumps(attack, n) for n in range(pickle.HIGHEST_PROTOCOL + 1)}
    return made | {
        "torch.save": saved.getvalue(),
        "torch.save of old": old.getvalue(),
        "npy of objects": npy.getvalue(),
        "npz of objects": npz.getvalue(),
        "pickle behind a header": with_header(b"{}") + plain,
        "pickle as a header": with_header(plain),
        "pickle in an archive": archive(archive__data_pkl=plain),
        "pickle behind a model": (CORPUS / "model" / "linear").read_bytes() + plain,
    }


def programs(marker: Path) -> dict[str, bytes]:
    """Files that something might run."""
    python = f"import os; os.system('touch {marker}')\n".encode()
    return {
        "a Python file": python,
        "a shell script": f"#!/bin/sh\ntouch {marker}\n".encode(),
        "an ELF header": b"\x7fELF\x02\x01\x01" + bytes(57),
        "Python in a header": with_header(python),
        "an archive with __main__": archive(__main__py=python, main_py=python),
        "an archive that climbs": archive(**{"..__..__climbed": b"x", "labels.npy": python}),
        "a model and an archive": (CORPUS / "model" / "linear").read_bytes() + archive(a=python),
        "YAML": f"!!python/object/apply:os.system ['touch {marker}']\n".encode(),
    }


def bombs() -> dict[str, bytes]:
    """Files that cost far more than they weigh."""
    return {
        "deep lists": with_header(b"[" * 100_000),
        "deep lists alone": b"[" * 100_000,
        "many values": with_header(b"{" + b"[]," * 500_000),
        "a long number": b'{"version": ' + b"9" * 100_000 + b"}",
        "a long header": (2**63).to_bytes(8, "little") + b"{}",
        "a packed archive": _packed(),
        "an array of ever": archive(labels_npy=_array("(99999999999,)")),
        "deep TOML": b"bits = " + b"[" * 5_000,
    }


def _packed() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("labels.npy", bytes(200 << 20))
    return buffer.getvalue()


def _array(shape: str) -> bytes:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def models(marker: Path) -> dict[str, bytes]:
    """Files that are right to the last checksum and name what they should not."""
    code = f"__import__('os').system('touch {marker}')"
    changes: dict[str, dict[str, Any]] = {
        "class of builtins": {"class": "builtins.eval"},
        "class that is code": {"class": code},
        "class of torch": {"class": "torch.nn.Linear"},
        "no class": {"class": None},
        "options that are code": {"config": {"in_channels": code}},
        "site __class__": {"sites": {"__class__": {"kind": "static", "bits": 4, "num_scales": 1}}},
        "site forward": {"sites": {"forward": {"kind": "float", "bits": None}}},
        "kind that is code": {"sites": {"input": {"kind": code}}},
    }
    made = {name: _changed("layers", change) for name, change in changes.items()}
    for name, value in (
        ("module that is code", {"module": code}),
        ("model that is code", {"model": {"name": code}}),
        ("model of ever", {"model": {"name": "gcn", "num_layers": 10**12}}),
        ("metadata that is code", {"metadata": {"__reduce__": code}}),
        ("norms that climb", {"norms": ["__class__.__init__", "../x", ""]}),
        ("a version that is text", {"version": code}),
        ("a kind that is code", {"format": code}),
    ):
        made[name] = _changed("", value)
    return made


def _changed(key: str, change: dict[str, Any]) -> bytes:
    parts = Parts((CORPUS / "model" / "linear").read_bytes())
    holders = parts.header[key].values() if key else [parts.header]
    for holder in holders:
        holder.update(change)
    return built(parts)


def texts(marker: Path) -> dict[str, bytes]:
    """Studies, tables and options that name what they should not."""
    code = f"__import__('os').system('touch {marker}')"
    study = json.loads((CORPUS / "study" / "search.json").read_text())
    return {
        "study of code": json.dumps({**study, "settings": code, "context": code}).encode(),
        "trials of code": json.dumps({**study, "trials": [{"__class__": code}]}).encode(),
        "table of code": json.dumps({"version": 1, "costs": {code: {"1": code}}}).encode(),
        "options of code": f'bits = "{code}"\n'.encode(),
        "options with an include": b'config = "/etc/passwd"\n"$include" = "x"\n',
        "options that climb": b'data-root = "../../../etc"\ndataset = "../../x"\n',
    }


def main() -> None:
    """Writes the row."""
    started = time.perf_counter()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sys.addaudithook(_hook)
    with tempfile.TemporaryDirectory() as folder:
        marker, path = Path(folder) / "ran", Path(folder) / "file"
        targets = [made() for made in TARGETS]
        for target in targets:
            target.warm_up(path)
        files = {
            **pickles(marker),
            **programs(marker),
            **bombs(),
            **models(marker),
            **texts(marker),
        }
        # Once unwatched: what an error's first use imports is no file's doing.
        opened = 0
        for watch in (False, True):
            for data in files.values():
                path.write_bytes(data)
                for target in targets:
                    with watched() if watch else contextlib.nullcontext():
                        opened += _opened(target, path)
        left = sorted(set(os.listdir(folder)) - {"file"})
    effects = len(seen) + len(left)
    for line in (*seen, *left):
        print(line, file=sys.stderr)
    record(
        Result(
            "R1",
            "Opening a file runs no code from it",
            f"{len(files)} hostile files, each given to {len(targets)} readers: {effects} side "
            f"effects (code, imports, pickles, libraries, processes, sockets, files written)",
            len(files) * len(targets),
            effects,
            not effects,
        ),
        started,
    )


def _opened(target: Any, path: Path) -> int:
    """1 where a reader took the file, 0 where it refused it."""
    try:
        target.run(target.names[-1] if target.name != "model" else "linear", path)
    except target.expected:
        return 0
    return 1


if __name__ == "__main__":
    main()
