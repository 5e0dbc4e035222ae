"""Paths, limits and errors of the application."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import threading

import pytest
import torch

from nodebits.serving.app import application
from nodebits.serving.service import Service
from nodebits.serving.settings import Serving
from packed_models import FEATURES, NODES, make_case

from .conftest import TOKEN, Client, loaded_case, run, serving
from .test_requests import mutated

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def loaded(case):
    return loaded_case(case)


def test_paths(loaded, case, tmp_path):
    async def work():
        async with serving(loaded, tmp_path / "m") as (client, service):
            health, ready = await client.get("/health"), await client.get("/ready")
            assert health.json() == {"status": "ok"} and ready.json()["status"] == "ready"
            answer = await client.post({"nodes": [2, 5]})
            assert answer.status == 200 and answer.json()["model"] == ready.json()["model"]
            found = torch.tensor(answer.json()["outputs"])
            assert torch.equal(found, case.packed.predict(case.x, case.edge_index)[[2, 5]])
            new = await client.post({"new_nodes": {"x": [[0.5] * FEATURES], "edges": [[0, NODES]]}})
            assert new.json()["rows"] == [NODES]
            text = (await client.get("/metrics")).body.decode()
            assert 'nodebits_requests_total{path="/predict",status="200"} 2.0' in text
            assert 'nodebits_questions_total{kind="NewNodes"} 1.0' in text
            assert f'nodebits_model_info{{version="{service.served.version}"}} 1.0' in text
            assert "nodebits_request_seconds_bucket" in text and "nodebits_kernels_info" in text
            missing, method = await client.get("/x"), await client.get("/predict")
            assert missing.status == 404 and missing.json() == {"error": "there is no such path"}
            assert method.status == 405 and method.headers["allow"] == "POST"

    run(work())


def test_the_description_has_every_path_and_its_own_references(loaded, tmp_path):
    async def work():
        async with serving(loaded, tmp_path / "m") as (client, service):
            return (await client.get("/openapi.json")).json(), application(service, None).routes

    told, routes = run(work())
    assert set(told["paths"]) == {route.path for route in routes}
    for route in routes:
        assert {m.lower() for m in route.methods} - {"head"} == set(told["paths"][route.path])
    text = json.dumps(told)
    for name in set(text.split('"#/components/schemas/')[1:]):
        assert name.partition('"')[0] in told["components"]["schemas"]
    assert '"maxItems": 10000' in text


def test_a_token_is_asked_for(loaded, tmp_path):
    async def work():
        async with serving(loaded, tmp_path / "m", TOKEN) as (client, _):
            basic = base64.b64encode(f"me:{TOKEN}".encode()).decode()
            good = [f"Bearer {TOKEN}", f"bearer  {TOKEN}", f"Basic {basic}"]
            bad = ["", "Bearer", "Bearer x", f"Bearer {TOKEN}x", "Basic !", "Basic YQ==", TOKEN]
            bad.append("Basic " + base64.b64encode(b"me:\xff\xfe").decode())
            for path in ("/", "/metrics", "/openapi.json"):
                assert (await client.get(path)).status == 401
            for path in ("/health", "/ready"):
                assert (await client.get(path)).status == 200
            for value in bad:
                refused = await client.post({"nodes": [1]}, {"authorization": value})
                assert refused.status == 401 and "www-authenticate" in refused.headers
            for value in good:
                answer = await client.post(
                    {"nodes": [1]}, {"authorization": value, "host": "example.org"}
                )
                assert answer.status == 200

    run(work())


def test_without_a_token_pages_from_elsewhere_do_not_reach_the_model(loaded, tmp_path):
    async def work():
        async with serving(loaded, tmp_path / "m") as (client, _):
            for host in ("localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "[::1]"):
                assert (await client.post({"nodes": [1]}, {"host": host})).status == 200
            for host in ("example.org", "localhost.example.org:8000", "x@10.0.0.1"):
                refused = await client.post({"nodes": [1]}, {"host": host})
                assert refused.status == 403
            for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
                refused = await client.post({"nodes": [1]}, {"content-type": kind})
                assert refused.status == 415

    run(work())


def test_bodies_that_are_large_slow_or_broken_off(loaded, tmp_path):
    async def work():
        path, limits = tmp_path / "m", {"max_body": 1000, "timeout": 0.2}
        async with serving(loaded, path, **limits) as (client, _):
            large = b'{"nodes": [' + b"1, " * 400 + b"1]}"
            assert (await client.post(large)).status == 413
            announced = await client.post(b"{}", {"content-length": "9" * 5000})
            assert announced.status == 413 and "1000 bytes" in announced.json()["error"]
            pieces = [large[:600], large[600:]]
            assert (await client.ask("POST", "/predict", pieces, JSON)).status == 413
            slow = await client.ask("POST", "/predict", [b'{"no', 0.5, b'des": [1]}'], JSON)
            assert slow.status == 408
            await client.ask("POST", "/predict", [b'{"no', None], JSON)
            good = await client.ask("POST", "/predict", [b'{"no', 0.01, b'des": [1]}'], JSON)
            assert good.status == 200
            text = (await client.get("/metrics")).body.decode()
            assert 'path="/predict",status="413"} 3.0' in text

    run(work())


def test_more_than_there_is_room_for_is_told_to_come_later(loaded, tmp_path):
    async def work():
        async with serving(loaded, tmp_path / "m", queue=4, batch=1) as (client, service):
            gate, answer = threading.Event(), service.served.answer
            service.served.answer = lambda asked: gate.wait(20) and answer(asked)
            ask = {"nodes": [1], "num_neighbors": [2]}
            tasks = [asyncio.create_task(client.post(ask)) for _ in range(30)]
            while sum(task.done() for task in tasks) < 26:
                await asyncio.sleep(0.001)
            gate.set()
            answers = await asyncio.gather(*tasks)
            again = await client.post({"nodes": [1]})
            return [one.status for one in answers], answers, again

    statuses, answers, again = run(work())
    assert statuses.count(200) == 4 and statuses.count(503) == 26 and again.status == 200
    busy = next(one for one in answers if one.status == 503)
    assert busy.headers["retry-after"] == "1" and "too many requests" in busy.json()["error"]


def test_bodies_of_many_requests_are_not_held_at_once(loaded, tmp_path):
    async def work():
        async with serving(loaded, tmp_path / "m", max_body=1000) as (client, _):
            piece = b" " * 900
            slow = [piece, 0.2, b'{"nodes": [1]}']
            tasks = [client.ask("POST", "/predict", slow, JSON) for _ in range(12)]
            return [one.status for one in await asyncio.gather(*tasks)]

    statuses = run(work())
    assert sorted(set(statuses)) == [200, 503] and statuses.count(503) >= 4


def test_before_a_model_is_there_and_after_the_end(loaded, tmp_path):
    async def work():
        service = Service(lambda: loaded, tmp_path / "m", Serving(watch=0))
        (tmp_path / "m").write_bytes(b"x")
        client = Client(application(service, None))
        early = [await client.get("/ready"), await client.post({"nodes": [1]})]
        page = await client.get("/")
        assert [one.status for one in early] == [503, 503] and early[0].headers["retry-after"]
        assert page.status == 200 and b"being loaded" in page.body
        assert (await client.get("/health")).status == 200
        await service.start()
        assert (await client.get("/ready")).status == 200
        await service.stop()
        assert (await client.get("/ready")).status == 503

    run(work())


def test_the_page(loaded, tmp_path):
    async def work():
        async with serving(loaded, tmp_path / "m") as (client, service):
            plain = (await client.get("/")).body.decode()
            asked = await client.get("/?node=3")
            assert "GCN on small" in plain
            assert "convs.0.lin" in plain and service.served.version in plain
            assert "script-src" not in asked.headers["content-security-policy"]
            assert "Node <b>3</b>: <b>" in asked.body.decode()
            for wrong, words in (
                ("40", "0 to 39"),
                ("%3Cb%3E", "&lt;b&gt;"),
                ("9" * 30, "0 to 39"),
            ):
                page = await client.get(f"/?node={wrong}")
                assert page.status == 200 and words in page.body.decode()
                assert "<b>'" not in page.body.decode()

    run(work())


def test_a_page_of_a_model_of_graphs(tmp_path):
    async def work():
        loaded = loaded_case(make_case("gin", task="graph"))
        async with serving(loaded, tmp_path / "m") as (client, _):
            page = (await client.get("/?node=1")).body.decode()
            assert "POST /predict alone" in page
            answer = await client.post({"graphs": [{"x": [[0.1] * FEATURES], "edges": []}] * 2})
            assert answer.status == 200 and answer.json()["rows"] == [0, 1]
            refused = await client.post({"graphs": [{"x": [[0.1] * (FEATURES + 1)]}]})
            assert refused.status == 422 and "13" in refused.json()["error"]

    run(work())


def test_an_error_of_the_server_is_no_trace(loaded, tmp_path, caplog):
    async def work():
        async with serving(loaded, tmp_path / "m") as (client, service):
            service.metrics.text = lambda: 1 / 0
            return await client.get("/metrics")

    answer = run(work())
    assert answer.status == 500 and b"ZeroDivision" not in answer.body
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_bodies_are_never_an_error_of_the_server(loaded, tmp_path, count):
    async def work():
        rng, found = random.Random(count), []
        cases = [loaded, loaded_case(make_case("gin", task="graph"))]
        for one in cases:
            async with serving(one, tmp_path / "m") as (client, _):
                for _ in range(count // 2):
                    body = mutated(rng).replace(b"[1, 2, 3]", json.dumps([1.0] * FEATURES).encode())
                    found.append((await client.post(body)).status)
        return found

    found = run(work())
    assert set(found) == {200, 400, 413, 422} or set(found) == {200, 400, 422}
