"""Numbers for the content of tensors, as they are made where compiled kernels are not."""

from __future__ import annotations

import pytest
import torch
from operator_inputs import generator

from nodebits.ops import content


def test_every_byte_its_place_and_the_size_count() -> None:
    g = generator()
    data = torch.randint(0, 256, (67,), generator=g, dtype=torch.uint8)
    expected = content._digest_there(data)
    assert content._digest_there(data.clone()) == expected and 0 <= expected < 1 << 64
    others = [data[:66], torch.cat([data, data.new_zeros(1)]), data.flip(0), data.roll(8)]
    for at in range(67):
        for bit in (1, 128):
            other = data.clone()
            other[at] ^= bit
            others.append(other)
    assert len({expected, *map(content._digest_there, others)}) == len(others) + 1


def test_words_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = torch.randint(0, 256, (1000,), generator=generator(), dtype=torch.uint8)
    expected = content._digest_there(data)
    monkeypatch.setattr(content, "_CHUNK", 7)
    assert content._digest_there(data) == expected


def test_nothing_has_a_number() -> None:
    assert content._digest_there(torch.zeros(0, dtype=torch.uint8)) == 0
