"""Model files: every damage is noticed, every interrupted write leaves the old file."""

from __future__ import annotations

import ast
import builtins
import errno
import functools
import hashlib
import inspect
import io
import json
import os
import pickle
import resource
import signal
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from torch_geometric.nn import GCNConv

from forking import Python
from nodebits.core.errors import FileFormatError, FileVersionError, OutputError
from nodebits.core.files import write_atomically
from nodebits.methods import UniformConfig, calibrate, prepare
from nodebits.runtime import (
    PackedModel,
    container,
    convert,
    entries,
    folded,
    load,
    model_file,
    read_header,
)
from nodebits.runtime.container import FORMAT_VERSION
from packed_models import make_case, threads

# A name outside ASCII and outside the basic plane: its escapes are two halves in JSON.
# What a model's file is written and read by.
READERS = (model_file, container, entries, folded)
METADATA = {"dataset": "Köln \U0001f600", "accuracy": 0.815}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threads(1):
        yield


class Tiny(nn.Module):
    """One convolution: the smallest file with every part."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(3, 2)

    def forward(self, x: Any, edge_index: Any) -> torch.Tensor:
        return self.conv(x, edge_index)


def tiny(seed: int = 0) -> PackedModel:
    torch.manual_seed(seed)
    model = prepare(Tiny(), UniformConfig(bits=4))
    calibrate(model, *inputs())
    return convert(model)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-1, 1, 15).view(5, 3)
    return x, torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])


@functools.cache
def good() -> bytes:
    """The bytes of a small file."""
    stored: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container, "write_atomically", lambda path, data: stored.append(data))
        tiny().save("unused", METADATA)
    return stored[0]


@functools.cache
def plain() -> bytes:
    """The same in the form of version 3, as files that are no models have: tensors by name."""
    header, tensors = container.read_stream(io.BytesIO(good()), len(good()), container.MODEL)
    stored: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container, "write_atomically", lambda path, data: stored.append(data))
        container.write("unused", container.MODEL, {**header, "version": 3}, tensors)
    return stored[0]


def header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def parse(data: bytes) -> None:
    """All of ``load`` that looks at the bytes; without the disk it is fast enough for thousands."""
    container.read_stream(io.BytesIO(data), len(data), container.MODEL)


def rebuild(change: Callable[[dict[str, Any]], None], data: bytes | None = None) -> bytes:
    """A file with another JSON header, correctly signed."""
    data = good() if data is None else data
    end = header_end(data)
    outer = json.loads(data[8:end])
    inner = json.loads(outer["__metadata__"]["nodebits"].partition(" ")[2])
    change(inner)
    text = json.dumps(inner, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    outer["__metadata__"]["nodebits"] = f"{digest} {text}"
    raw = json.dumps(outer).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + data[end:]


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "model.safetensors"
    model = tiny()
    model.save(path, METADATA)
    assert os.listdir(path.parent) == [path.name]
    first = path.read_bytes()
    loaded = load(str(path), model=Tiny())
    assert loaded.metadata == METADATA
    assert torch.equal(loaded.predict(*inputs()), model.predict(*inputs()))
    loaded.save(path, loaded.metadata)
    assert read_header(path.read_bytes()) == read_header(first)
    tensors = container.read(path, container.MODEL)[1]
    state = {name for name in tensors if not name.startswith("plan.")}
    assert state == set(model.module.state_dict())


# ---- damage ----


either_form = pytest.mark.parametrize("made", (good, plain), ids=lambda made: made.__name__)


@either_form
def test_every_header_bit(made: Callable[[], bytes]) -> None:
    data = made()
    parse(data)
    unnoticed = []
    for position in range(header_end(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            try:
                parse(bytes(damaged))
            except FileFormatError:
                continue
            unnoticed.append((position, bit))
    assert not unnoticed


def flip_payload(data: bytes, count: int, check: Callable[[bytes], None]) -> None:
    start = header_end(data)
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 8 * (len(data) - start), (count,), generator=generator).tolist()
    for bit in bits:
        damaged = bytearray(data)
        damaged[start + bit // 8] ^= 1 << bit % 8
        with pytest.raises(FileFormatError, match="checksum"):
            check(bytes(damaged))


def test_a_thousand_payload_bits(tmp_path: Path) -> None:
    case = make_case("gat", "degree-quant")
    path = tmp_path / "model.safetensors"
    case.packed.save(path)
    flip_payload(path.read_bytes(), 1000, parse)


@either_form
def test_every_payload_bit_of_a_small_file(made: Callable[[], bytes]) -> None:
    data = made()
    start = header_end(data)
    for bit in range(8 * (len(data) - start)):
        damaged = bytearray(data)
        damaged[start + bit // 8] ^= 1 << bit % 8
        with pytest.raises(FileFormatError):
            parse(bytes(damaged))


def test_load_notices_what_the_parts_notice(tmp_path: Path) -> None:
    data = good()
    end = header_end(data)
    for position in (0, 7, 8, 40, end - 1, end, len(data) - 1):
        damaged = bytearray(data)
        damaged[position] ^= 1
        path = tmp_path / "damaged.safetensors"
        path.write_bytes(damaged)
        with pytest.raises(FileFormatError, match=r"damaged\.safetensors"):
            load(path, model=Tiny())


@either_form
def test_every_truncation(made: Callable[[], bytes]) -> None:
    data = made()
    for length in range(len(data)):
        with pytest.raises(FileFormatError):
            parse(data[:length])


def test_bytes_after_the_end() -> None:
    for tail in (b"\0", b" " * 8, good()):
        with pytest.raises(FileFormatError):
            parse(good() + tail)


def random_bytes(seed: int) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    return bytes(torch.randint(0, 256, (4096,), generator=generator, dtype=torch.uint8).tolist())


def zip_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.json", "{}")
    return buffer.getvalue()


def torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(3)}, buffer)
    return buffer.getvalue()


def with_header(raw: bytes, tail: bytes = b"") -> bytes:
    return struct.pack("<Q", len(raw)) + raw + tail


FOREIGN = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "zeros": b"\0" * 64,
    "random": random_bytes(0),
    "random, short header": with_header(random_bytes(1)[:100], random_bytes(2)),
    "text": b"not a model at all, just some text of a few words\n",
    "json": json.dumps({"version": 1, "layers": {}}).encode(),
    "zip": zip_file(),
    "torch": torch_file(),
    "pickle": pickle.dumps({"nodebits": 1}),
    "safetensors": safetensors.torch.save({"weight": torch.ones(3)}),
    "safetensors with other metadata": safetensors.torch.save(
        {"weight": torch.ones(3)}, {"format": "pt"}
    ),
    "list": with_header(b"[1, 2]"),
    "number": with_header(b"7"),
    "metadata is text": with_header(b'{"__metadata__": "nodebits"}'),
    "metadata is null": with_header(b'{"__metadata__": null}'),
    "header is a number": with_header(b'{"__metadata__": {"nodebits": 3}}'),
    "header is half a pair": with_header(rb'{"__metadata__": {"nodebits": "0 \ud83d"}}'),
    "deep": with_header(b"[" * 200_000),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.bin"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(FileFormatError, match=r"foreign\.bin"):
        load(path)
    assert path.read_bytes() == FOREIGN[kind]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere.safetensors")


def test_newer_version(tmp_path: Path) -> None:
    path = tmp_path / "newer.safetensors"
    for version in (999, FORMAT_VERSION + 1):
        path.write_bytes(rebuild(lambda header, v=version: header.update(version=v)))
        with pytest.raises(FileVersionError, match=f"{version}.*upgrade") as caught:
            load(path)
        assert "newer.safetensors" in str(caught.value)
    for version in (None, "1", 1.5):
        with pytest.raises(FileVersionError):
            read_header(rebuild(lambda header, v=version: header.update(version=v)))
    parse(rebuild(lambda header: None))


def test_unsigned_change_of_the_header() -> None:
    with pytest.raises(FileFormatError, match="checksum"):
        read_header(plain().replace(rb"\"bits\": 4", rb"\"bits\": 2", 1))
    with pytest.raises(FileFormatError, match="checksum"):
        read_header(good().replace(rb"\"version\": 4", rb"\"version\": 3", 1))


def stored(tensors: dict[str, torch.Tensor]) -> bytes:
    metadata = json.loads(plain()[8 : header_end(plain())])["__metadata__"]
    return safetensors.torch.save(tensors, metadata)


def test_missing_extra_and_swapped_tensors() -> None:
    tensors = safetensors.torch.load(plain())
    parse(stored(tensors))
    for name in tensors:
        with pytest.raises(FileFormatError, match=name):
            parse(stored({n: t for n, t in tensors.items() if n != name}))
    with pytest.raises(FileFormatError, match="stranger"):
        parse(stored({**tensors, "stranger": torch.ones(2)}))
    bias, packed = "conv.bias", "conv.lin.quantized_weight.packed"
    for changed in (
        tensors[bias].view(1, -1),
        tensors[bias].view(torch.int32),
        tensors[bias][:1].clone(),
    ):
        with pytest.raises(FileFormatError, match=bias):
            parse(stored({**tensors, bias: changed}))
    with pytest.raises(FileFormatError, match=packed):
        parse(stored({**tensors, packed: tensors[packed].flip(0)}))


def test_duplicate_tensor() -> None:
    data = plain()
    end = header_end(data)
    outer = json.loads(data[8:end])
    entry = json.dumps({"conv.bias": outer["conv.bias"]}).encode()[1:-1]
    raw = data[8:end].rstrip()[:-1] + b"," + entry + b"}"
    outer["conv.bias"]["data_offsets"] = [len(data) - end, len(data) - end + 8]
    moved = json.dumps({"conv.bias": outer["conv.bias"]}).encode()[1:-1]
    parse(data)
    shifted = with_header(data[8:end].rstrip()[:-1] + b"," + moved + b"}", data[end:] + b"\0" * 8)
    with pytest.raises(FileFormatError):
        parse(shifted)
    try:
        parse(with_header(raw, data[end:]))  # the same entry twice changes nothing
    except FileFormatError:
        pass


# ---- nothing is executed ----


def test_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = set()
    for node in ast.walk(ast.parse("".join(map(inspect.getsource, READERS)))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert not imported & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}

    def refuse(*args: Any, **keywords: Any) -> None:
        raise AssertionError("a model file must not be executed")

    path = tmp_path / "model.safetensors"
    case = make_case()
    case.packed.save(path)
    for module, name in (
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
        (builtins, "eval"),
    ):
        monkeypatch.setattr(module, name, refuse)
    assert torch.equal(load(path).predict(case.x, case.edge_index), case.simulated)


# ---- interrupted and failing writes ----

KILLED = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[3])
import torch
torch.set_num_threads(1)
from nodebits.runtime import load
from runtime_tiny import Tiny, inputs, tiny

path, kills = sys.argv[1], int(sys.argv[2])
models = [tiny(seed) for seed in (0, 1)]
results = [model.predict(*inputs()) for model in models]
assert not torch.equal(*results)
models[0].save(path)
seen = set()
for number in range(kills):
    ready, signalled = os.pipe()
    child = os.fork()
    if child == 0:
        step = 0
        while True:
            step += 1
            models[step % 2].save(path)
            if step == 2:
                os.write(signalled, b"x")
    os.read(ready, 1)
    os.close(ready), os.close(signalled)
    time.sleep(0.0007 * (number % 11))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = load(path, model=Tiny()).predict(*inputs())
    matches = [torch.equal(found, result) for result in results]
    assert any(matches), number
    seen.add(matches.index(True))
print(len(seen))
"""


def test_killed_while_saving(tmp_path: Path, python: Python) -> None:
    """The file is the old one or the new one; a kill leaves at most its own temporary file."""
    kills = 20
    folder = tmp_path / "out"
    path = folder / "model.safetensors"
    helpers = tmp_path / "helpers"
    helpers.mkdir()
    source = "\n".join(inspect.getsource(part) for part in (Tiny, tiny, inputs))
    (helpers / "runtime_tiny.py").write_text(
        "from typing import Any\nimport torch\nfrom torch import nn\n"
        "from torch_geometric.nn import GCNConv\n"
        "from nodebits.methods import UniformConfig, calibrate, prepare\n"
        "from nodebits.runtime import PackedModel, convert\n" + source
    )
    done = python(KILLED, path, str(kills), helpers)
    assert done.returncode == 0, done.stderr
    left = [name for name in os.listdir(folder) if name != path.name]
    assert len(left) <= kills
    assert all(name.startswith(f".{path.name}.") and name.endswith(".tmp") for name in left)
    tiny().save(path)
    assert len(os.listdir(folder)) == len(left) + 1, "a save that ends leaves nothing"


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """A file that must survive, alone in its folder."""
    path = tmp_path / "model.safetensors"
    tiny(0).save(path)
    before = path.read_bytes()
    yield path
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_full_disk_at_fsync(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"model\.safetensors.*No space left") as caught:
        tiny(1).save(old)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(old)


@pytest.mark.parametrize("share", (0.0, 0.3, 0.99))
def test_write_that_stops_after_some_bytes(old: Path, share: float) -> None:
    """The kernel itself refuses the rest: a limit on the size of files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * old.stat().st_size), before[1]))
    try:
        with pytest.raises(OSError, match=r"model\.safetensors") as caught:
            tiny(1).save(old)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG


class FailingStream(io.BytesIO):
    """Takes a few writes, then the disk is full."""

    def __init__(self, handle: int, budget: list[int]) -> None:
        super().__init__()
        self.handle, self.budget = handle, budget

    def fileno(self) -> int:
        return self.handle

    def write(self, data: Any) -> int:
        self.budget[0] -= 1
        if self.budget[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(self.handle, data)

    def close(self) -> None:
        if not self.closed:
            os.close(self.handle)
        super().close()


def test_nth_write_fails(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = [3]
    monkeypatch.setattr(os, "fdopen", lambda handle, mode: FailingStream(handle, budget))
    for number in range(3):
        tiny(0).save(old)
        assert len(os.listdir(tmp_path)) == 1, number
    with pytest.raises(OSError, match=r"model\.safetensors.*No space left"):
        tiny(1).save(old)


def test_rename_fails(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Any, target: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), source)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match="Permission denied") as caught:
        tiny(1).save(old)
    assert caught.value.filename == str(old)


def test_interrupted_by_the_user(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny(1).save(old)


def test_metadata_that_is_not_json(old: Path) -> None:
    with pytest.raises(TypeError):
        tiny(1).save(old, {"tensor": torch.ones(2)})


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    """Below a regular file, where root cannot write either."""
    blocker = tmp_path / "file"
    blocker.write_text("kept")
    for path in (blocker / "model.safetensors", blocker / "folder" / "model.safetensors"):
        with pytest.raises(OSError, match=r"model\.safetensors") as caught:
            tiny().save(path)
        assert caught.value.filename == str(path)
    assert blocker.read_text() == "kept"
    assert os.listdir(tmp_path) == ["file"]


def test_path_is_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "model.safetensors"
    target.mkdir()
    with pytest.raises(OutputError, match=r"model\.safetensors.*it is a folder"):
        tiny().save(target)
    assert os.listdir(tmp_path) == [target.name]


def test_write_atomically_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "data"
    for content in (b"long content", b"", b"x"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["data"]
