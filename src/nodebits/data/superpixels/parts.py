"""Arrays of many images in a folder of the cache: parts, each complete or not there.

A part holds the graphs of so many images of one split. What is there is not made again, so making
them may be stopped at any time, and the first graphs of a split need the first parts alone.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nodebits.core import errors
from nodebits.core.errors import FileFormatError, NodebitsError
from nodebits.core.files import ensure_writable_folder, write_atomically
from nodebits.data.extras import require
from nodebits.data.superpixels.images import Images, Kind
from nodebits.data.superpixels.segment import nearest, superpixels

PART = 500
# Changes when segment.py would make other arrays.
_DEFINITION = 1
_ARRAYS = ("x", "neighbours", "sizes", "labels")


@dataclass(frozen=True)
class Part:
    """Graphs of consecutive images of a split.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        number: The ``PART`` images from ``number * PART`` on.
    """

    split: str
    number: int

    def file(self, folder: Path) -> Path:
        """Its file below a folder."""
        return folder / f"{self.split}-{self.number:04}.npz"

    def images(self, images: Images) -> NDArray[np.int64]:
        """Numbers of its images."""
        start = self.number * PART
        return images.order[self.split][start : start + PART]


def parts_folder(kind: Kind, root: Path, cache: Path) -> Path:
    """The folder of parts; another one for other images, another scikit-image or definition."""
    skimage = require("skimage", "images", "superpixels need")
    facts = [str(_DEFINITION), skimage.__version__, str(PART)]
    for path in kind.found(root):
        state = path.stat()
        facts.append(f"{path.resolve()}:{state.st_size}:{state.st_mtime_ns}")
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    return cache / "superpixels" / f"{kind.name}-{key}"


def needed(images: Images, first: int | None) -> dict[str, list[Part]]:
    """Parts of every split that hold its first graphs; None for all."""
    return {
        split: [Part(split, n) for n in range(-(-_count(order, first) // PART))]
        for split, order in images.order.items()
    }


def _count(order: NDArray[np.int64], first: int | None) -> int:
    return len(order) if first is None else min(first, len(order))


def make_part(kind: Kind, images: Images, part: Part, folder: Path) -> None:
    """Cuts the images of a part and writes its file.

    Raises:
        FileFormatError: An image is damaged.
        OutputError: The file cannot be written.
    """
    numbers = part.images(images)
    graphs = [
        superpixels(images.image(int(n)), kind.most, kind.more, kind.compactness) for n in numbers
    ]
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        x=np.concatenate(graphs),
        neighbours=np.concatenate([nearest(x[:, -2:]) for x in graphs]),
        sizes=np.array([len(x) for x in graphs], np.int64),
        labels=images.labels[numbers],
    )
    write_atomically(part.file(folder), stream.getvalue())


def read_part(part: Part, folder: Path) -> dict[str, NDArray[np.generic]]:
    """Arrays of a part.

    Raises:
        FileFormatError: The file is damaged.
    """
    path = part.file(folder)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
        if len(arrays["x"]) != int(arrays["sizes"].sum()):
            raise ValueError(f"{len(arrays['x'])} rows for sizes of {arrays['sizes'].sum()}")
    except Exception as error:  # numpy and zipfile raise many kinds for damaged bytes
        raise FileFormatError(
            f"{path} is damaged ({type(error).__name__}: {error}): delete it, and it is made again"
        ) from error
    return arrays


def make_parts(kind: Kind, root: Path, images: Images, parts: list[Part], folder: Path) -> None:
    """Makes the parts that are not there, in as many processes as this one may run on.

    Raises:
        FileFormatError: An image is damaged.
        MissingExtraError: scikit-image or Pillow is not installed.
        OutputError: The folder cannot be written.
    """
    missing = [part for part in parts if not part.file(folder).is_file()]
    if not missing:
        return
    ensure_writable_folder(folder)
    total = sum(len(part.images(images)) for part in missing)
    workers = min(_processors(), len(missing))
    with tqdm(total=total, desc=f"superpixels of {kind.name}", unit="image", disable=None) as bar:
        if workers == 1:
            for part in missing:
                make_part(kind, images, part, folder)
                bar.update(len(part.images(images)))
            return
        for part in _by_workers(kind, root, missing, folder, workers):
            bar.update(len(part.images(images)))


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _by_workers(
    kind: Kind, root: Path, parts: list[Part], folder: Path, workers: int
) -> Iterator[Part]:
    """Yields parts as they are done.

    The processes are commands, not forks or spawns: these import the caller's script again, which
    a script without a guard does not survive, or copy a process whose threads hold locks.
    """
    queue: SimpleQueue[Part] = SimpleQueue()
    done: SimpleQueue[Part | Exception] = SimpleQueue()
    for part in parts:
        queue.put(part)
    command = [sys.executable, "-m", "nodebits.data.superpixels.worker"]
    command += [kind.name, os.fspath(root), os.fspath(folder)]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    started = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=paths
        )
        for _ in range(workers)
    ]

    def feed(process: subprocess.Popen[str]) -> None:
        try:
            while True:
                part = queue.get_nowait()
                _ask(process, part)
                done.put(part)
        except Empty:
            return
        except Exception as error:
            done.put(error)

    try:
        with ThreadPoolExecutor(workers) as threads:
            for process in started:
                threads.submit(feed, process)
            try:
                for _ in parts:
                    found = done.get()
                    if isinstance(found, Exception):
                        raise found
                    yield found
            finally:
                _stop(started)  # or the threads would wait for answers
    finally:
        _stop(started)


def _ask(process: subprocess.Popen[str], part: Part) -> None:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(f"{part.split} {part.number}\n")
        process.stdin.flush()
        answer = process.stdout.readline().strip()
    except OSError as error:
        raise NodebitsError(f"a process that cuts images has died ({error})") from error
    if answer.startswith("error "):
        _, kind, said = answer.split(" ", 2)
        raise getattr(errors, kind)(said)
    if answer != "done":
        raise NodebitsError(
            f"a process that cuts images ended with {process.wait()}: what it had done is kept, "
            "and the next call goes on"
        )


def _stop(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except OSError:
                    pass  # what was not sent is of no use
