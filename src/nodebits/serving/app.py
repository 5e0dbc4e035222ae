"""The ASGI application: paths, bodies, tokens, and every error as JSON."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from nodebits.serving.errors import RequestError, busy
from nodebits.serving.metrics import CONTENT_TYPE
from nodebits.serving.openapi import description
from nodebits.serving.page import status_page
from nodebits.serving.service import Service

_log = logging.getLogger("nodebits.serving")
# Bodies that are held at once take as much as so many of the largest.
_BODIES = 8
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
Endpoint = Callable[[Request], Awaitable[Response]]


def application(service: Service, token: str | None) -> Starlette:
    """The application of a service, which others start and stop.

    Args:
        service: The service.
        token: That clients must send; None: only this machine is listened to.
    """
    paths = _Paths(service, token)
    routes = [
        Route("/predict", paths.guarded(paths.predict), methods=["POST"]),
        Route("/update", paths.guarded(paths.update), methods=["POST"]),
        Route("/health", paths.open(paths.health)),
        Route("/ready", paths.open(paths.ready)),
        Route("/metrics", paths.guarded(paths.metrics)),
        Route("/openapi.json", paths.guarded(paths.openapi)),
        Route("/", paths.guarded(paths.page)),
    ]

    async def other(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        reason = {404: "there is no such path", 405: "the path has no such method"}
        headers = dict(getattr(error, "headers", None) or {})
        return _refused(status, reason.get(status, "the request was refused"), headers)

    return Starlette(routes=routes, exception_handlers={HTTPException: other})


class _Paths:
    def __init__(self, service: Service, token: str | None) -> None:
        self._service, self._token = service, token
        self._requests, self._held = 0, 0
        self._description = json.dumps(description(service.settings, token is not None)).encode()

    # --- who may ask ---

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """An endpoint for those who have the token."""

        async def answer(request: Request) -> Response:
            self._check_host(request)
            if self._token is not None and not _has_token(request, self._token):
                raise _Denied
            return await endpoint(request)

        return self.open(answer)

    def open(self, endpoint: Endpoint) -> Endpoint:
        """An endpoint for all, whose errors are answers."""

        async def answer(request: Request) -> Response:
            try:
                response = await endpoint(request)
            except _Denied:
                response = _refused(
                    401,
                    "a token is needed: Authorization: Bearer TOKEN",
                    {"WWW-Authenticate": 'Basic realm="nodebits, token as the password"'},
                )
            except RequestError as error:
                wait = error.retry_after
                headers = {} if wait is None else {"Retry-After": str(wait)}
                response = _refused(error.status, str(error), headers)
            except ClientDisconnect:
                response = _refused(400, "the client went away")
            except Exception:
                _log.exception("%s failed", request.url.path)
                response = _refused(500, "the server failed; its log says where")
            self._service.metrics.request(request.url.path, response.status_code)
            return response

        return answer

    def _check_host(self, request: Request) -> None:
        """Without a token a page from elsewhere must not reach us by a name of its own."""
        name = request.headers.get("host", "localhost").rpartition("@")[2]
        name = name if name.endswith("]") or ":" not in name else name.rpartition(":")[0]
        if self._token is None and name.lower() not in (*_LOCAL_NAMES, self._service.settings.host):
            raise RequestError(
                403, f"the host name {name[:100]!r} is not of this machine: use localhost"
            )

    # --- what is asked ---

    async def predict(self, request: Request) -> Response:
        """``POST /predict``."""
        began = time.monotonic()

        async def ask(body: bytes, deadline: float) -> bytes:
            answer, asked = await self._service.predict(body, deadline)
            self._service.metrics.answered(time.monotonic() - began, asked)
            return answer

        return await self._answered(request, ask)

    async def update(self, request: Request) -> Response:
        """``POST /update``."""
        return await self._answered(request, self._service.update)

    async def _answered(
        self, request: Request, ask: Callable[[bytes, float], Awaitable[bytes]]
    ) -> Response:
        """The answer to the body of a request, which is read within the limits."""
        began = time.monotonic()
        settings = self._service.settings
        if self._requests >= settings.queue:
            raise busy("too many requests are answered already")
        self._requests += 1
        held = 0
        try:
            body = bytearray()
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise RequestError(415, "the body must be JSON: Content-Type: application/json")
            announced = request.headers.get("content-length", "")
            if announced.isdecimal() and int(announced[:20]) > settings.max_body:
                raise self._too_large()
            try:
                async with asyncio.timeout(settings.timeout):
                    async for chunk in request.stream():
                        body += chunk
                        held += len(chunk)
                        self._held += len(chunk)
                        if len(body) > settings.max_body:
                            raise self._too_large()
                        if self._held > _BODIES * settings.max_body:
                            raise busy("the bodies of other requests take all the room")
            except TimeoutError:
                raise RequestError(
                    408, f"the body was not there within {settings.timeout:g} seconds"
                ) from None
            return _json(await ask(bytes(body), began + settings.timeout))
        finally:
            self._requests -= 1
            self._held -= held

    def _too_large(self) -> RequestError:
        most = self._service.settings.max_body
        return RequestError(413, f"the body has more than {most} bytes: ask for less at once")

    async def health(self, request: Request) -> Response:
        """``GET /health``: the process lives."""
        del request
        return _json(b'{"status":"ok"}')

    async def ready(self, request: Request) -> Response:
        """``GET /ready``: there is a model, and the server does not stop."""
        del request
        version = self._service.present().version
        return _json(json.dumps({"status": "ready", "model": version}).encode())

    async def metrics(self, request: Request) -> Response:
        """``GET /metrics``."""
        del request
        return Response(self._service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def openapi(self, request: Request) -> Response:
        """``GET /openapi.json``."""
        del request
        return _json(self._description)

    async def page(self, request: Request) -> Response:
        """``GET /``: a page of the status, and what is said of ``?node=``."""
        node = request.query_params.get("node", "")[:200].strip()
        answer, fault = None, ""
        if node:
            asked: Any = int(node) if node.isdecimal() and len(node) < 19 else node
            names = None if self._service.served is None else self._service.served.facts.names
            body = json.dumps({"nodes": [node if names and node in names else asked]})
            try:
                deadline = time.monotonic() + self._service.settings.timeout
                text, _ = await self._service.predict(body.encode(), deadline)
                answer = json.loads(text)
            except RequestError as error:
                fault = str(error)
        page = status_page(self._service, node, answer, fault)
        policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"
        return Response(
            page, media_type="text/html", headers={"Content-Security-Policy": policy, **_PLAIN}
        )


class _Denied(Exception):
    """A request without the token."""


_PLAIN = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, {**_PLAIN, **(headers or {})}, "application/json")


def _refused(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    return _json(json.dumps({"error": reason}).encode(), status, headers)


def _has_token(request: Request, token: str) -> bool:
    """Whether a request has the token, as a bearer or, of a browser, as a password."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    given = value.strip()
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.encode(), token.encode())
