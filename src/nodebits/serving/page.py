"""The page of a server's status."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from nodebits.report.page import render
from nodebits.report.running import describe_backend
from nodebits.report.sites import sites_of
from nodebits.report.words import model_title
from nodebits.serving.metrics import PERCENTILES
from nodebits.serving.service import Service

_SHOWN_OUTPUTS = 12


def status_page(
    service: Service, node: str = "", answer: Mapping[str, Any] | None = None, fault: str = ""
) -> str:
    """HTML.

    Args:
        service: Whose status it is.
        node: What was asked for.
        answer: What the model says of it.
        fault: Why it says nothing.
    """
    served, metrics = service.served, service.metrics
    title, details = "nodebits serve", ["the model is being loaded"]
    sites: list[dict[str, Any]] = []
    if served is not None:
        loaded = served.loaded
        spec = loaded.packed.spec
        module = type(loaded.packed.module).__name__
        title = f"{module if spec is None else model_title(spec.to_json())} on {loaded.name}"
        details = [f"task {loaded.task.name}", f"model {served.version}"]
        if served.facts.rows:
            details.append(f"{served.facts.rows} nodes")
        sites = sites_of(loaded.packed)
    backend = describe_backend()
    times = {f"p{p:g}": f"{1000 * s:.2f} ms" for p, s in metrics.percentiles().items()}
    uptime = int(time.monotonic() - metrics.started)
    counts = metrics.counts
    tiles = [
        (str(counts.get("answered", 0)), "requests answered"),
        (str(counts.get("refused", 0)), "refused, 4xx"),
        (str(counts.get("busy", 0)), "sent away, 503"),
        (times.get("p50", "–"), "median latency"),
        (times.get("p99", "–"), "99th percentile"),
    ]
    loaded_at = datetime.fromtimestamp(service.loaded_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    state = {
        "Kernels": f"{backend['operators']}, {backend['isa']}",
        "Threads": backend["threads"],
        "Up for": f"{uptime // 3600} h {uptime // 60 % 60} min {uptime % 60} s",
        "Loads": f"{counts.get('loads', 0)}, {counts.get('failed loads', 0)} failed",
        "Last load": loaded_at if service.loaded_at else "–",
    }
    return render(
        "status.html",
        title=title,
        details=details,
        failure=service.failure,
        tiles=tiles,
        sites=sites,
        times={f"p{p:g}": times.get(f"p{p:g}", "–") for p in PERCENTILES},
        state=state,
        askable=served is not None and not served.facts.kinds["nodes"],
        rows=0 if served is None else served.facts.rows,
        node=node,
        answer=answer,
        outputs=_outputs(answer),
        fault=fault,
    )


def _outputs(answer: Mapping[str, Any] | None) -> list[tuple[str, str, float]]:
    """The largest outputs of the one row: which, the value, and a share of the largest."""
    if answer is None:
        return []
    row = answer["outputs"][0]
    values = row if isinstance(row, list) else [row]
    if any(isinstance(value, list) for value in values):
        return []
    order = sorted(range(len(values)), key=lambda i: -values[i])[:_SHOWN_OUTPUTS]
    least, most = min(values), max(values)
    span = (most - least) or 1.0
    return [(str(i), f"{values[i]:.6g}", (values[i] - least) / span) for i in order]
