"""A process that cuts images: reads the names of parts, and says when each is done."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from nodebits.core.errors import NodebitsError
from nodebits.data.superpixels.images import KINDS
from nodebits.data.superpixels.parts import Part, make_part


def work(name: str, root: Path, folder: Path, asked: TextIO, answers: TextIO) -> None:
    """Makes the parts that lines ``SPLIT NUMBER`` name, and answers each with a line.

    Args:
        name: Of the set.
        root: Folder of raw data.
        folder: Folder of the parts.
        asked: Lines.
        answers: ``done``, or ``error``, its type and why.
    """
    kind = KINDS[name]
    images = kind.read(root)
    for line in asked:
        split, number = line.split()
        try:
            make_part(kind, images, Part(split, int(number)), folder)
        except NodebitsError as error:
            said = " ".join(str(error).split())
            print("error", type(error).__name__, said, file=answers, flush=True)
        else:
            print("done", file=answers, flush=True)


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.stdin, sys.stdout)
