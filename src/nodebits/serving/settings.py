"""What a server is told; nothing here imports torch, so that a command's help does not wait."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nodebits.core.errors import ConfigError
from nodebits.core.fields import check_fields
from nodebits.core.options import Amount, Count, Range

TOKEN_VARIABLE = "NODEBITS_TOKEN"
_SHORTEST_TOKEN = 16


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits.

    Attributes:
        max_body: Bytes of the body of a request.
        max_rows: Nodes, pairs or graphs that one request asks about.
        max_nodes: Nodes that one request brings along.
        max_edges: Edges that one request brings along.
        queue: Requests that wait or are answered; further ones get status 503.
        batch: Requests that are answered together.
        window_ms: Milliseconds that a batch waits for further requests.
        timeout: Seconds that a request may take, from its first byte to its answer.
    """

    max_body: Count = 8 << 20
    max_rows: Count = 10_000
    max_nodes: Count = 100_000
    max_edges: Count = 200_000
    queue: Count = 256
    batch: Count = 64
    window_ms: Amount = 0.5
    timeout: Annotated[float, Range(0.01)] = 10.0

    def __post_init__(self) -> None:
        """Rejects values of another type or outside their range, naming the field.

        Raises:
            ConfigError: Names the field.
        """
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Serving(Limits):
    """Server.

    Attributes:
        host: Address to listen at; any but this machine's own needs a token.
        port: Port to listen at, 0 for a free one.
        token_file: File of the token that clients must send; default: NODEBITS_TOKEN, if it is set.
        log: Folder of updates: POST /update changes the graph, and a next start goes on from there.
        watch: Seconds between looks at the model file, which is loaded when it changed; 0: never.
        keep_alive: Seconds that a connection stays open between requests.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Range(0, 65_535)] = 8000
    token_file: Path | None = None
    log: Path | None = None
    watch: Amount = 1.0
    # Clients that keep connections, and pools of proxies, count on a minute.
    keep_alive: Annotated[float, Range(1)] = 75.0

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def token(self) -> str | None:
        """The token that clients must send, or None.

        Raises:
            ConfigError: There is none, and other machines can reach the server; or it is empty,
                short, or not of printable ASCII; or the file cannot be read.
        """
        origin = f"the variable {TOKEN_VARIABLE}"
        token = os.environ.get(TOKEN_VARIABLE)
        if self.token_file is not None:
            origin = f"--token-file {self.token_file}"
            try:
                token = self.token_file.read_text(encoding="utf-8").strip()
            except (OSError, ValueError) as error:
                raise ConfigError(f"{origin} cannot be read: {error}") from error
        if token is None:
            if self.is_local:
                return None
            raise ConfigError(
                f"--host {self.host} can be reached by other machines, which needs a token: set "
                f"{TOKEN_VARIABLE} or --token-file, or keep to --host 127.0.0.1"
            )
        if len(token) < _SHORTEST_TOKEN or not (token.isascii() and token.isprintable()):
            raise ConfigError(
                f"the token of {origin} has {len(token)} characters: it must be printable ASCII, "
                f"{_SHORTEST_TOKEN} characters or more, such as "
                "'python -c \"import secrets; print(secrets.token_hex(32))\"' prints"
            )
        return token
