"""Mutations of TOML: lines of a file of options, with values that their options do not take."""

from __future__ import annotations

import random

from fuzz.bytewise import mutate_bytes

_VALUES = (
    *("true", "false", "0", "-1", "1", "9", "33", "4.5", "1e400", "nan", "-inf", "9" * 400),
    *('""', '"x"', "'4'", '"8,4"', "[]", "[4, true]", "[[4]]", "{}", "{ a = 1 }", '"\\u0000"'),
    *("1979-05-27", "07:32:00", "0x7fffffffffffffff", "0b11", "1_000", '"' + "y" * 5000 + '"'),
    *("[" * 50 + "]" * 50, "[" * 2000 + "]" * 2000, '"gcn"', '"../x"', '"\\ud800"', '"""a\nb"""'),
)
_KEYS = (
    *("bits", "lr", "seeds", "dataset", "model", "method", "override", "splits", "choices", "out"),
    *("config", "no-such-key", "warm_start", "epochs", '""', '"a.b"', "a.b.c", "help", "split"),
    *("[quantize]", "[[override]]", "[override.x]", "folds", "threads", "device", "preset", "mode"),
)


def mutate_toml(r: random.Random, data: bytes) -> bytes:
    """One to three changed lines; or changed bytes."""
    if r.random() < 0.4:
        return mutate_bytes(r, data)
    lines = data.decode().splitlines()
    for _ in range(r.choice((1, 1, 2, 3))):
        at = r.randrange(len(lines))
        key, equals, _ = lines[at].partition(" = ")
        kind = r.random()
        if kind < 0.5 and equals:
            lines[at] = f"{key} = {r.choice(_VALUES)}"
        elif kind < 0.65:
            lines.insert(at, f"{r.choice(_KEYS)} = {r.choice(_VALUES)}")
        elif kind < 0.75:
            lines.insert(at, r.choice(_KEYS))
        elif kind < 0.85:
            lines[at] = r.choice(lines)
        elif kind < 0.95 and len(lines) > 1:
            del lines[at]
        else:
            r.shuffle(lines)
    return ("\n".join(lines) + "\n").encode(errors="surrogatepass")
