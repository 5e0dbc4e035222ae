"""The process: real sockets, and signals."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodebits.core.errors import FileFormatError, OutputError
from nodebits.serving.server import Server
from nodebits.serving.service import Service
from nodebits.serving.settings import Serving

from .conftest import loaded_case


class Running:
    """A server in a thread."""

    def __init__(self, load, path, **settings) -> None:
        path.write_bytes(b"a model")
        self.address: list[str] = []
        service = Service(load, path, Serving(port=0, watch=0, **settings))
        self.server = Server(service, self.address.append)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        until = time.monotonic() + 30
        while not self.address and time.monotonic() < until:
            time.sleep(0.005)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def running(case, tmp_path_factory) -> Iterator[Running]:
    loaded = loaded_case(case)
    server = Running(lambda: loaded, tmp_path_factory.mktemp("m") / "m", timeout=0.5)
    yield server
    server.stop()


def connection(running: Running) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", running.server.port, timeout=20)


def test_requests_of_one_connection(running):
    client = connection(running)
    assert running.address == [f"http://127.0.0.1:{running.server.port}"]
    for _ in range(3):
        client.request("POST", "/predict", '{"nodes": [1]}', {"Content-Type": "application/json"})
        answer = client.getresponse()
        assert answer.status == 200 and json.loads(answer.read())["rows"] == [1]
        assert answer.headers["server"] is None
    time.sleep(0.7)  # longer than a head may take: between requests nobody is late
    client.request("GET", "/health")
    assert client.getresponse().status == 200


def test_a_connection_stays_open_between_requests(running, case, tmp_path):
    """uvicorn's five seconds cut off clients that had a connection left from a busier time."""
    assert running.server.config.timeout_keep_alive >= 60
    loaded = loaded_case(case)
    short = Running(lambda: loaded, tmp_path / "m", keep_alive=1.0)
    try:
        with socket.create_connection(("127.0.0.1", short.server.port), 20) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = client.recv(4096)
            while not answer.endswith(b"}"):
                answer += client.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200")
            began = time.monotonic()
            assert client.recv(4096) == b"" and 0.5 < time.monotonic() - began < 10
    finally:
        short.stop()


@pytest.mark.parametrize("sent", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nX: a\r\n"])
def test_a_head_that_is_late(running, sent):
    with socket.create_connection(("127.0.0.1", running.server.port), 20) as client:
        client.sendall(sent)
        began, found = time.monotonic(), b""
        while piece := client.recv(4096):
            found += piece
    assert found.startswith(b"HTTP/1.1 408") and time.monotonic() - began < 10
    head, _, body = found.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head and json.loads(body)["error"]


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02", b"GET / HTTP/9\r\n\r\n", b"a" * 40_000])
def test_what_is_no_http(running, sent):
    with socket.create_connection(("127.0.0.1", running.server.port), 20) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        found = b""
        try:
            while piece := client.recv(4096):
                found += piece
        except ConnectionResetError:
            pass
    assert not found or found.startswith(b"HTTP/1.1 4")


def test_a_model_that_cannot_be_loaded_ends_the_server(tmp_path):
    def load():
        raise FileFormatError("it is damaged")

    (tmp_path / "m").write_bytes(b"x")
    server = Server(Service(load, tmp_path / "m", Serving(port=0)), print)
    with pytest.raises(FileFormatError, match="damaged"):
        server.run()


def test_a_port_that_is_taken(running, case, tmp_path):
    loaded = loaded_case(case)
    settings = Serving(port=running.server.port, watch=0)
    (tmp_path / "m").write_bytes(b"x")
    with pytest.raises(OutputError, match="choose another --port"):
        Server(Service(lambda: loaded, tmp_path / "m", settings), print).run()


PROCESS = """
import importlib.util, sys
from pathlib import Path
here, file = Path({here!r}), Path({file!r})
sys.path.insert(0, str(here.parent))
spec = importlib.util.spec_from_file_location("small", here / "conftest.py")
small = sys.modules["small"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)
from nodebits.serving.server import Server
from nodebits.serving.service import Service
from nodebits.serving.settings import Serving
loaded = small.loaded_case(small.make_case("gcn"))
service = Service(lambda: loaded, file, Serving(port=0, watch=0))
Server(service, lambda address: print(address, flush=True)).run()
print("ended", flush=True)
"""


@pytest.mark.slow
def test_signals(tmp_path):
    """SIGHUP loads the model anew; SIGTERM answers what waits and ends with status 0."""
    file = tmp_path / "m"
    file.write_bytes(b"one")
    code = PROCESS.format(here=str(Path(__file__).parent), file=str(file))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

        def version() -> str:
            client.request("GET", "/ready")
            return json.loads(client.getresponse().read())["model"]

        before = version()
        file.write_bytes(b"two")
        assert version() == before
        process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 30
        while version() == before:
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0 and process.stdout.read() == "ended\n"
    finally:
        process.kill()
