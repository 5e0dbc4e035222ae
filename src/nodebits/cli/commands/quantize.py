"""``nodebits quantize``: train, pack, save, load back, measure."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import typer

from nodebits.cli import options
from nodebits.cli.generate import command
from nodebits.cli.registered import method_options, model_options
from nodebits.jobs.settings import QuantizeSettings

_METHOD, _MODEL = method_options(), model_options()


def _quantize(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Train a float and a quantized model, pack it, save it, load it back and measure.

    Writes model.safetensors (the run that validation likes best), report.json and report.html to
    the output folder. Stopped with Ctrl-C, the same command continues. Results of another job are
    replaced with --force only.

    [bold]Examples[/bold]

      nodebits quantize --out runs/digits

      nodebits quantize --dataset Cora --model gat --bits 4 --seeds 3 --out runs/cora

      nodebits quantize --data ./shop --target price --metric mae --out runs/shop

      nodebits quantize --config job.toml --bits 8 --out runs/eight
    """
    options.take_data(values)
    options.check_dataset(values["dataset"], values["data_root"])
    from nodebits.cli.output import print_json, print_report
    from nodebits.jobs.quantize import run_job
    from nodebits.jobs.quantize_config import JobConfig

    values["overrides"] = options.overrides(values["overrides"]) or None
    values["split"] = options.split_of(values["split"])
    values["use_node_attr"] = bool(values["use_node_attr"])
    overrides, architecture = (
        {option.name: value for option in found if (value := values.pop(option.name)) is not None}
        for found in (_METHOD, _MODEL)
    )
    job = JobConfig(**values, overrides=overrides, architecture=architecture)
    report = run_job(job, command=shlex.join(context.obj))
    if json:
        print_json(report)
    else:
        print_report(report, job.out)
    if report["interrupted"]:
        print(
            "nodebits: interrupted; the best model so far was kept, the same command continues",
            file=sys.stderr,
        )
        return 1
    return 0


quantize = command(
    _quantize,
    QuantizeSettings,
    [*_METHOD, *_MODEL, *options.DATA],
    leave_out=("overrides", "architecture"),
)
