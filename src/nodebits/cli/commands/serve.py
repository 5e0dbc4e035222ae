"""``nodebits serve``: a model behind HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nodebits.cli import options
from nodebits.cli.generate import command
from nodebits.cli.settings import SavedModel
from nodebits.core.options import options_of
from nodebits.serving.settings import Serving

if TYPE_CHECKING:
    from nodebits.serving.served import Loaded


def _serve(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Answer over HTTP what a model says of nodes, new nodes, pairs or graphs.

    POST /predict takes JSON; / is a page of the status, /openapi.json describes all paths. A model
    file that changes is loaded while the old one answers, also at SIGHUP; SIGTERM ends the server
    when all requests are answered.

    [bold]Examples[/bold]

      nodebits serve runs/cora/model.safetensors --data ./cora --port 8000

      curl -H 'Content-Type: application/json' -d '{"nodes": [1, 5]}' localhost:8000/predict
    """
    given = {field.name: values.pop(field.name) for field in fields(Serving)}
    settings = Serving(**given)
    settings.token()  # refused before torch is imported
    options.take_data(values, None)
    options.check_dataset(values["dataset"], values["data_root"])
    from nodebits.data.extras import require

    for name in ("starlette", "uvicorn", "prometheus_client"):
        require(name, "serve", "nodebits serve needs")
    from nodebits.serving.server import Server
    from nodebits.serving.service import Service

    asked = SavedModel(**{**values, "split": options.split_of(values["split"])})
    service = Service(_loader(asked, settings.log), asked.model, settings)

    def started(address: str) -> None:
        served = service.present()
        if json:
            from nodebits.cli.output import print_json

            print_json({"address": address, "model": served.version, "data": served.loaded.name})
        else:
            typer.echo(f"model {served.version} for {served.loaded.name} answers at {address}")
        typer.get_text_stream("stdout").flush()

    Server(service, started).run()
    return 0


def _loader(asked: SavedModel, log: Path | None = None) -> Callable[[], Loaded]:
    """Reads the data once, and the model at every call."""
    from nodebits.cli.loading import Opened, check_fit, one_graph, opened
    from nodebits.core.errors import ConfigError
    from nodebits.report.sites import open_model
    from nodebits.serving.served import Loaded
    from nodebits.serving.sessions import session_of
    from nodebits.tasks import find_task

    kept: list[Opened] = []

    def load() -> Loaded:
        packed = open_model(asked.model, asked.allow or ())
        named = packed.metadata.get("task") if packed.spec is None else packed.spec.task
        task = find_task(named if isinstance(named, str) else "node")
        if log is not None and task.level.unit != "node":
            raise ConfigError(f"--log is for models of nodes; this one predicts {task.level.unit}s")
        if task.level.many_graphs and asked.dataset is None:
            about = packed.metadata.get("data")
            classes = about.get("classes") if isinstance(about, dict) else None
            return Loaded(packed, task, "graphs of requests", None, None, classes)
        if not kept:
            kept.append(opened(asked, asks=True))
            packed = kept[0].packed
        found = kept[0]
        check_fit(asked.model, packed, found.dataset)
        if task.level != found.problem.task.level:
            raise ConfigError(
                f"{asked.model} is for {task.level.unit}s now, the data that are served are of "
                f"{found.problem.task.level.unit}s: start another server"
            )
        classes = found.dataset.about.get("classes")
        session = (
            None if log is None else session_of(packed, one_graph(found.problem, found.name), log)
        )
        ids = found.dataset.ids
        return Loaded(packed, task, found.name, found.problem, ids, classes, session)

    return load


serve = command(
    _serve,
    SavedModel,
    [*options_of(Serving), *options.DATA],
    leave_out=["metric"],
    spelled={**options.OF_SAVED_MODEL},
)
