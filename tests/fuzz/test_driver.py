"""The driver: inputs are what their numbers say, faults are found, and a run can be continued."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz.attempt import Meter, Place, attempt
from fuzz.bytewise import mutate_bytes
from fuzz.chunk import GOOD, make_input, run_chunk
from fuzz.containerwise import Parts, built, built_folded
from fuzz.jsonwise import mutate_json
from fuzz.npzwise import mutate_npz
from fuzz.run import Driver, check_settings, load_targets
from fuzz.target import CORPUS, Target
from fuzz.targets import TARGETS
from fuzz.tomlwise import mutate_toml
from nodebits.core.errors import FileFormatError
from nodebits.runtime import container
from packed_models import threads

HERE = Path(__file__).parent
SLICE = 2_500


class Faulty(Target):
    """A reader whose faults are known by the first byte."""

    name, share = "config", 1.0
    faults: dict[int, Callable[[], object]]

    def input(self, r: random.Random) -> tuple[str, bytes]:
        return "any", bytes([r.randrange(256)])

    def run(self, name: str, path: Path) -> None:
        fault = self.faults.get(path.read_bytes()[0])
        if fault is None:
            raise FileFormatError("as it should be")
        fault()


def untyped() -> None:
    raise KeyError("field")


def slow() -> None:
    end = time.process_time() + 1.05
    while time.process_time() < end:
        pass


def large() -> None:
    bytearray(os.urandom(1) * (200 << 20))


def tried(fault: Callable[[], object], folder: Path) -> str:
    target = Faulty()
    target.faults = {0: fault}
    return attempt(target, "any", b"\0", Place(folder / "input"), Meter()).kind


def test_every_fault_has_its_class(tmp_path: Path) -> None:
    assert tried(untyped, tmp_path) == "untyped"
    assert tried(slow, tmp_path) == "hang"
    assert tried(large, tmp_path) == "memory"
    target = Faulty()
    target.faults = {}
    outcome = attempt(target, "any", b"\0", Place(tmp_path / "input"), Meter())
    assert outcome.kind == "typed" and outcome.error == "FileFormatError"


def test_a_crash_is_found_kept_and_passed(tmp_path: Path) -> None:
    target = Faulty()
    target.faults = {200: lambda: os._exit(9), 201: untyped}
    driver = Driver([target], 0, 2_000, 2, tmp_path)
    target.warm_up = lambda path: None  # type: ignore[method-assign]
    first = [make_input(0, number, [target])[2][0] for number in range(2_000)]
    summary = driver.run()
    kinds = {key.split("/")[2]: count for key, count in summary["counts"].items()}
    assert kinds["crash"] == first.count(200) > 0
    assert kinds["untyped"] == first.count(201) > 0
    assert summary["inputs"] == 2_000 and summary["bad"] == kinds["crash"] + kinds["untyped"]
    kept = [path for path in (tmp_path / "findings").iterdir() if path.suffix != ".txt"]
    assert {path.read_bytes() for path in kept} == {bytes([200]), bytes([201])}
    again = Driver([target], 0, 2_000, 2, tmp_path).run()
    assert again["counts"] == summary["counts"]


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    check_settings(tmp_path, {"seed": 1, "code": "a"})
    check_settings(tmp_path, {"seed": 1, "code": "a"})
    with pytest.raises(SystemExit, match="another code"):
        check_settings(tmp_path, {"seed": 1, "code": "b"})


def test_a_file_taken_apart_is_put_together_again(tmp_path: Path) -> None:
    for path in sorted((CORPUS / "model").iterdir()):
        made, parts = tmp_path / "made", Parts(path.read_bytes())
        made.write_bytes(built(parts))
        one, other = (container.read(p, container.MODEL) for p in (path, made))
        assert one[0] == other[0] and one[1].keys() == other[1].keys()
        if parts.folds:
            made.write_bytes(built_folded(parts))
            again = Parts(made.read_bytes())
            assert (again.header, again.payload) == ({**parts.header, "version": 3}, parts.payload)
            folded = container.read(made, container.MODEL)
            assert folded[0]["version"] == 4 and folded[1].keys() == one[1].keys()


def test_mutations_change_and_mostly_keep_the_checksums(tmp_path: Path) -> None:
    parts, r, found = Parts((CORPUS / "model" / "gcn").read_bytes()), random.Random(0), Counter()
    for _ in range(300):
        (tmp_path / "made").write_bytes(parts.mutated(r))
        try:
            container.read(tmp_path / "made", container.MODEL)
            found["read"] += 1
        except FileFormatError as error:
            found["digest" if "checksum" in str(error) else "form"] += 1
    assert found["read"] > 150 and found["digest"] < 60 and found["form"] > 10


@pytest.mark.parametrize(
    ("mutate", "seed"),
    [
        (mutate_bytes, CORPUS / "model" / "linear"),
        (mutate_toml, CORPUS / "config" / "quantize.toml"),
        (mutate_npz, CORPUS / "data" / "graph.npz"),
        (lambda r, d: mutate_json(r, d.decode()).encode(), CORPUS / "study" / "search.json"),
    ],
)
def test_mutations_differ_and_repeat(
    mutate: Callable[[random.Random, bytes], bytes], seed: Path
) -> None:
    data = seed.read_bytes()
    made = [mutate(random.Random(number), data) for number in range(50)]
    assert made == [mutate(random.Random(number), data) for number in range(50)]
    assert len(set(made)) > 40 and sum(m != data for m in made) > 40


def test_numbers_beyond_float_are_changed_again() -> None:
    for number in range(300):
        mutate_json(random.Random(number), '{"a": [1.0, 1e999, -1e999, NaN], "b": 1}')


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> list[Target]:
    with threads(1):
        made = load_targets()
        for target in made:  # every seed is valid and runs
            target.warm_up(tmp_path_factory.mktemp("seeds") / "seed")
    return made


def test_corpus_is_small() -> None:
    assert sum(p.stat().st_size for p in CORPUS.rglob("*") if p.is_file()) < 200 << 10


def test_a_slice_of_the_inputs_keeps_the_promises(targets: list[Target], tmp_path: Path) -> None:
    with threads(1):
        found = run_chunk(targets, 0, range(SLICE), tmp_path, limit_memory=False)
    bad = {key: n for key, n in found["counts"].items() if key.split("/")[2] not in GOOD}
    assert not bad, [json.loads(p.read_text().partition("\n}")[0] + "}")["error"] for p in
                     tmp_path.glob("*.txt")]  # fmt: skip
    assert sum(found["counts"].values()) == SLICE
    ran = {key.split("/")[0] for key in found["counts"] if key.endswith("/ran/ran")}
    assert ran >= {"model", "lite", "features", "checkpoint", "study", "costs"}


@pytest.mark.parametrize("path", sorted((HERE / "regressions").glob("*--*")), ids=lambda p: p.name)
def test_what_once_failed(path: Path, targets: list[Target], tmp_path: Path) -> None:
    name, seed = path.name.split("--")[:2]
    target = next(t for t in targets if t.name == name)
    with threads(1):
        outcome = attempt(target, seed, path.read_bytes(), Place(tmp_path / "input"), Meter())
    assert outcome.kind in GOOD, outcome.trace


def test_names_of_targets_are_their_folders() -> None:
    # Seeds of lite are the models of its own tests.
    names = {made.name for made in TARGETS}  # type: ignore[attr-defined]
    assert names == {p.name for p in CORPUS.iterdir()} | {"lite"}
