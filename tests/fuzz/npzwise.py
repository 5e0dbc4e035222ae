"""Mutations of NumPy archives: arrays of another type, shape or content, and names."""

from __future__ import annotations

import io
import random
import zipfile

from fuzz.bytewise import mutate_bytes


def mutate_npz(r: random.Random, data: bytes) -> bytes:
    """Changed bytes of the archive, or of one member, in an archive that is right again."""
    if r.random() < 0.3:
        return mutate_bytes(r, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = r.choice(list(members))
    kind = r.random()
    if kind < 0.1:
        del members[name]
    elif kind < 0.2:
        members[name] = members[r.choice(list(members))]
    elif kind < 0.55:  # values alone: after the array's header
        start = members[name].index(b"\n") + 1
        members[name] = members[name][:start] + mutate_bytes(r, members[name][start:] or b"\0")
    elif kind < 0.8:
        members[name] = mutate_bytes(r, members[name])
    else:
        header, newline, rest = members[name].partition(b"\n")
        old, new = r.choice(_HEADERS)
        members[name] = header.replace(old, new) + newline + rest
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for member, content in members.items():
            archive.writestr(zipfile.ZipInfo(member), content)
    return buffer.getvalue()


_HEADERS = (
    (b"<f4", b"|O "),
    (b"<f4", b"<f2"),
    (b"<f4", b"<c8"),
    (b"<i4", b"<u4"),
    (b"<i8", b"<f8"),
    (b"<i8", b"<M8"),
    (b"False", b"True "),
    (b"(9,)", b"(9999999999,)"),
    (b"(2,)", b"(1,)"),
    (b"(10,)", b"(-1,)"),
    (b"{", b"__import__('os')"),
)
