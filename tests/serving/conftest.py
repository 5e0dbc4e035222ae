"""Small models behind the application, asked without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from nodebits.runtime import PackedModel
from nodebits.serving.app import application
from nodebits.serving.served import Loaded, Served
from nodebits.serving.service import Service
from nodebits.serving.settings import Serving
from nodebits.tasks import find_task
from nodebits.train import NodeProblem
from packed_models import CLASSES, Case, make_case

TOKEN = "a token of many characters"


def node_data(x: Tensor, edge_index: Tensor, **fields: Tensor) -> Data:
    part = torch.arange(x.size(0)) % 3
    return Data(
        x=x,
        edge_index=edge_index,
        y=torch.arange(x.size(0)) // 3 % CLASSES,
        train_mask=part == 0,
        val_mask=part == 1,
        test_mask=part == 2,
        **fields,
    )


def loaded_nodes(packed: PackedModel, x: Tensor, edge_index: Tensor, **fields: Tensor) -> Loaded:
    problem = NodeProblem(node_data(x, edge_index, **fields))
    return Loaded(packed, find_task("node"), "small", problem)


def loaded_case(case: Case) -> Loaded:
    if case.spec.task == "graph":
        return Loaded(case.packed, find_task("graph"), "graphs of requests")
    return loaded_nodes(case.packed, case.x, case.edge_index)


@pytest.fixture(scope="session")
def case() -> Case:
    return make_case("gcn")


@pytest.fixture(scope="session")
def served(case: Case) -> Served:
    return Served(loaded_case(case), "v1")


def outputs_of(answer: bytes | Exception) -> Tensor:
    """The outputs in an answer, in the bits that the JSON stands for."""
    assert isinstance(answer, bytes), answer
    return torch.tensor(json.loads(answer)["outputs"], dtype=torch.float32)


@dataclass
class Answer:
    """What the application sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Speaks ASGI with an application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return await self.ask("GET", path, [b""], headers or {})

    async def post(
        self, body: Any, headers: Mapping[str, str] | None = None, path: str = "/predict"
    ) -> Answer:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"content-type": "application/json", "content-length": str(len(sent))}
        return await self.ask("POST", path, [sent], {**given, **(headers or {})})

    async def ask(
        self,
        method: str,
        path: str,
        chunks: Sequence[bytes | float | None],
        headers: Mapping[str, str],
    ) -> Answer:
        """Sends a body in pieces; a number is a pause, None means that the client goes away."""
        answer = Answer()
        left = list(chunks)
        path, _, query = path.partition("?")

        async def receive() -> dict[str, Any]:
            while left and isinstance(left[0], float):
                await asyncio.sleep(float(left.pop(0) or 0))
            if not left or left[0] is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            else:
                answer.body += message.get("body", b"")

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        }
        await self._app(scope, receive, send)
        return answer


class Fixed:
    """Loads what it is told to, and counts."""

    def __init__(self, *loaded: Loaded) -> None:
        self.loaded, self.count = list(loaded), 0

    def __call__(self) -> Loaded:
        self.count += 1
        return self.loaded[(self.count - 1) % len(self.loaded)]


@asynccontextmanager
async def serving(
    loaded: Loaded | Callable[[], Loaded], path: Path, token: str | None = None, **settings: Any
) -> AsyncIterator[tuple[Client, Service]]:
    """A service that runs, and a client of its application."""
    if not path.exists():
        path.write_bytes(b"a model")
    load = Fixed(loaded) if isinstance(loaded, Loaded) else loaded
    service = Service(load, path, Serving(**{"watch": 0, **settings}))
    await service.start()
    try:
        yield Client(application(service, token)), service
    finally:
        await service.stop()


def run(work: Coroutine[Any, Any, Any] | Awaitable[Any]) -> Any:
    async def inside() -> Any:
        return await work

    return asyncio.run(inside())
