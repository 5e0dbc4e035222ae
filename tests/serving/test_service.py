"""Loads of a model while another one answers."""

from __future__ import annotations

import asyncio
import threading
import weakref

import pytest

from nodebits.core.errors import FileFormatError
from packed_models import FEATURES, NODES, make_case

from .conftest import Fixed, loaded_case, run, serving

BODY = {"nodes": [4]}
# More than is looked up at once: it goes by way of a batch.
WHOLE = {"nodes": [4] * 100}
SAMPLE = {"nodes": [4], "num_neighbors": [2, 2]}
NEW = {"new_nodes": {"x": [[0.5] * FEATURES], "edges": [[4, NODES]]}}


@pytest.fixture(scope="module")
def two():
    return [loaded_case(make_case("gcn")), loaded_case(make_case("sage"))]


def test_a_reload_changes_the_answers_and_fails_no_request(two, tmp_path):
    path = tmp_path / "m"

    async def work():
        load = Fixed(*two)
        async with serving(load, path) as (client, service):
            expected = {}
            for content in (b"0", b"1"):
                path.write_bytes(content)
                assert await service.reload()
                expected[service.served.version] = service.served.table[4].tolist()
            over = asyncio.Event()

            async def ask(body):
                found = []
                while not over.is_set():
                    found.append(await client.post(body))
                    await asyncio.sleep(0)
                return found

            asking = [asyncio.create_task(ask(body)) for body in (BODY, BODY, WHOLE)]
            for i in range(30):
                path.write_bytes(b"%d" % (i % 2))
                assert await service.reload()
            over.set()
            answers = [one for part in await asyncio.gather(*asking) for one in part]
            return expected, answers

    expected, answers = run(work())
    assert len(answers) > 30 and {one.status for one in answers} == {200}
    versions = {one.json()["model"] for one in answers}
    assert versions == set(expected)
    for one in answers:  # never the outputs of one version under the name of another
        assert one.json()["outputs"][0] == expected[one.json()["model"]]


@pytest.mark.usefixtures("no_collector")
def test_a_reload_lets_go_of_the_version_before(tmp_path):
    async def work():
        load = lambda: loaded_case(make_case("gcn"))  # noqa: E731
        async with serving(load, tmp_path / "m") as (client, service):
            for body in (BODY, SAMPLE, NEW):
                assert (await client.post(body)).status == 200
            old = service.served
            held = [weakref.ref(one) for one in (old, old.loaded.packed, old.table)]
            del old
            assert await service.reload()
            assert (await client.post(SAMPLE)).status == 200  # the last batch may hold its model
            assert [one() for one in held] == [None, None, None]

    run(work())


def test_a_file_that_cannot_be_loaded_leaves_the_model(two, tmp_path):
    async def work():
        def load():
            if (tmp_path / "m").read_bytes() == b"bad":
                raise FileFormatError("it is damaged")
            return two[0]

        async with serving(load, tmp_path / "m") as (client, service):
            before = service.served
            (tmp_path / "m").write_bytes(b"bad")
            assert not await service.reload()
            assert service.served is before and (await client.post(BODY)).status == 200
            page = (await client.get("/")).body.decode()
            assert "The last load failed: it is damaged" in page
            assert 'result="failed"} 1.0' in (await client.get("/metrics")).body.decode()
            (tmp_path / "m").write_bytes(b"good")
            assert await service.reload() and service.failure == ""
            assert service.served is not before

    run(work())


def test_a_file_that_changes_is_loaded_and_a_bad_one_tried_once(two, tmp_path):
    path = tmp_path / "m"

    async def work():
        tries = []

        def load():
            tries.append(path.read_bytes())
            if tries[-1] == b"bad":
                raise FileFormatError("it is damaged")
            return two[0]

        async with serving(load, path, watch=0.01) as (_, service):
            first = service.served.version
            path.write_bytes(b"bad")
            while not service.failure:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
            assert tries.count(b"bad") == 1
            path.unlink()
            await asyncio.sleep(0.03)
            path.write_bytes(b"another")
            while service.served.version == first:
                await asyncio.sleep(0.005)
            assert not service.failure

    run(work())


def test_a_request_that_waits_is_answered_before_the_end(two, tmp_path):
    async def work():
        gate = threading.Event()
        async with serving(two[0], tmp_path / "m") as (client, service):
            answer = service.served.answer
            service.served.answer = lambda asked: gate.wait(20) and answer(asked)
            waiting = asyncio.create_task(client.post(SAMPLE))
            await asyncio.sleep(0.05)
            stopping = asyncio.create_task(service.stop())
            await asyncio.sleep(0.01)
            refused = await client.post(BODY)
            gate.set()
            await stopping
            return (await waiting).status, refused.status

    assert run(work()) == (200, 503)


def test_the_first_load_that_fails_is_an_error(tmp_path):
    def load():
        raise FileFormatError("it is damaged")

    async def work():
        async with serving(load, tmp_path / "m"):
            pass

    with pytest.raises(FileFormatError, match="damaged"):
        run(work())
