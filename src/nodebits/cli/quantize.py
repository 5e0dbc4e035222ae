"""``nodebits quantize``: train, pack, save, load back, measure."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nodebits.cli import options


class Preset(StrEnum):
    """Where settings come from."""

    default = "default"
    published = "published"


class Mode(StrEnum):
    """How the uniform method finds its ranges."""

    qat = "qat"
    ptq = "ptq"
    nqat = "nqat"


_SIZES, _TRAINING, _WIDTHS, _MEASURING = "Architecture", "Training", "Bit widths", "Measuring"


def _option(flag: str, panel: str, text: str, **more: Any) -> Any:
    return typer.Option(flag, rich_help_panel=panel, help=text, **more)


def _site_width(flag: str, text: str) -> Any:
    return _option(flag, _WIDTHS, f"{text}; 32 for float.", callback=options.site_width)


Bits = Annotated[
    int,
    _option("--bits", _WIDTHS, "Width of quantized tensors, 1 to 8.", callback=options.width),
]
InputBits = Annotated[int | None, _site_width("--input-bits", "Rows entering linear maps")]
WeightBits = Annotated[int | None, _site_width("--weight-bits", "Weight matrices")]
MessageBits = Annotated[int | None, _site_width("--message-bits", "Rows entering neighbour sums")]
AttentionBits = Annotated[int | None, _site_width("--attention-bits", "Attention and edge weights")]
Ranges = Annotated[
    str | None,
    _option("--ranges", _WIDTHS, "degree-quant: learned, percentile; smp: learned, grid, minmax."),
]
Snap = Annotated[
    str | None, _option("--snap", _WIDTHS, "smp at 2 bits: none, bt or bt_skew (BT, BT*).")
]
Override = Annotated[
    list[str] | None,
    _option(
        "--override",
        _WIDTHS,
        "Width of a site: 'convs.0.*=4'; sgquant: 'convs.1.message=8,4,2,2', by degree bucket.",
        metavar="SITE=BITS",
    ),
]
Splits = Annotated[
    str | None, _option("--splits", _WIDTHS, "sgquant: in-degrees at which buckets begin: 4,8,16.")
]
Hidden = Annotated[
    int | None, _option("--hidden", _SIZES, "Hidden width, all heads together.", min=1)
]
Layers = Annotated[int | None, _option("--layers", _SIZES, "Number of layers.", min=1)]
Heads = Annotated[int | None, _option("--heads", _SIZES, "Attention heads.", min=1)]
Dropout = Annotated[
    float | None,
    _option("--dropout", _SIZES, "Dropout probability.", min=0.0, max=1.0, callback=options.finite),
]
Steps = Annotated[
    int | None,
    _option("--steps", _SIZES, "Propagation steps of appnp, smp, dagnn, elastic.", min=1),
]
Teleport = Annotated[
    float | None,
    _option(
        "--teleport",
        _SIZES,
        "alpha of appnp, smp, gcnii, in (0, 1].",
        min=0.0,
        max=1.0,
        callback=options.finite,
    ),
]
Residual = Annotated[
    bool | None, _option("--residual/--no-residual", _SIZES, "deepgcn: add a layer's input.")
]
Operator = Annotated[str | None, _option("--operator", _SIZES, "smp: adjacency or laplacian.")]
Multiplier = Annotated[str | None, _option("--multiplier", _SIZES, "smp: none, basic or modified.")]
Tolerance = Annotated[
    float | None,
    _option(
        "--tolerance", _SIZES, "smp: change allowed per entry of A_hat.", callback=options.finite
    ),
]


def _rate(flag: str, text: str) -> Any:
    return _option(flag, _TRAINING, text, min=0.0, callback=options.finite)


Epochs = Annotated[
    int | None, _option("--epochs", _TRAINING, "Epochs, of float training too.", min=1)
]
FloatEpochs = Annotated[int | None, _option("--float-epochs", _TRAINING, "Float epochs.", min=1)]
LearningRate = Annotated[float | None, _rate("--lr", "Rate of quantized training.")]
WeightDecay = Annotated[float | None, _rate("--weight-decay", "Decay of weights.")]
QuantizerRate = Annotated[float | None, _rate("--quantizer-lr", "Rate of scales and offsets.")]
BatchSize = Annotated[int | None, _option("--batch-size", _TRAINING, "Graphs per batch.", min=1)]
Patience = Annotated[
    int | None,
    _option("--patience", _TRAINING, "Stop after so many epochs without progress.", min=0),
]
WarmStart = Annotated[
    bool | None,
    _option("--warm-start/--no-warm-start", _TRAINING, "Start from the float weights."),
]
Distill = Annotated[
    bool | None,
    _option("--distill/--no-distill", _TRAINING, "Follow the float model on all nodes."),
]
FloatDistilled = Annotated[
    bool,
    _option("--float-distilled", _TRAINING, "Also train a float model that way, as a reference."),
]
Repeats = Annotated[int, _option("--latency-repeats", _MEASURING, "Timed rounds.", min=1)]
Progress = Annotated[
    bool | None,
    _option("--progress/--no-progress", _MEASURING, "Progress bars; default: on a terminal."),
]


def quantize(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the results.")],
    dataset: options.Dataset = "digits",
    data_root: options.DataRoot = None,
    cache: options.Cache = None,
    split: options.Split = None,
    use_node_attr: options.UseNodeAttr = None,
    model: options.Model = "gcn",
    method: options.Method = "degree-quant",
    preset: Annotated[
        Preset,
        typer.Option(help="published: the paper's own settings, no warm start, no distillation."),
    ] = Preset.default,
    mode: Annotated[
        Mode | None,
        typer.Option(help="uniform and sgquant: train (qat, nqat) or calibrate only (ptq)."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs.")] = 1,
    folds: Annotated[
        int | None, typer.Option(min=1, max=10, help="Folds of the ten-fold protocol (TU sets).")
    ] = None,
    bits: Bits = 4,
    input_bits: InputBits = None,
    weight_bits: WeightBits = None,
    message_bits: MessageBits = None,
    attention_bits: AttentionBits = None,
    override: Override = None,
    splits: Splits = None,
    ranges: Ranges = None,
    snap: Snap = None,
    hidden: Hidden = None,
    layers: Layers = None,
    heads: Heads = None,
    dropout: Dropout = None,
    steps: Steps = None,
    teleport: Teleport = None,
    residual: Residual = None,
    operator: Operator = None,
    multiplier: Multiplier = None,
    tolerance: Tolerance = None,
    epochs: Epochs = None,
    float_epochs: FloatEpochs = None,
    lr: LearningRate = None,
    weight_decay: WeightDecay = None,
    quantizer_lr: QuantizerRate = None,
    batch_size: BatchSize = None,
    patience: Patience = None,
    warm_start: WarmStart = None,
    distill: Distill = None,
    float_distilled: FloatDistilled = False,
    threads: options.Threads = None,
    latency_repeats: Repeats = 30,
    progress: Progress = None,
    force: options.Force = False,
    config: options.ConfigFile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> int:
    """Train a float and a quantized model, pack it, save it, load it back and measure.

    Writes model.safetensors (the run that validation likes best), report.json and report.html to
    the output folder. Stopped with Ctrl-C, the same command continues. Results of another job are
    replaced with --force only.

    [bold]Examples[/bold]

      nodebits quantize --out runs/digits

      nodebits quantize --dataset Cora --model gat --bits 4 --seeds 3 --out runs/cora

      nodebits quantize --config job.toml --bits 8 --out runs/eight
    """
    options.check_dataset(dataset, data_root)
    from nodebits.cli.output import print_json, print_report
    from nodebits.jobs.quantize import run_job
    from nodebits.jobs.quantize_config import JobConfig

    overrides: dict[str, Any] = {
        "mode": None if mode is None else mode.value,
        "input_bits": input_bits,
        "weight_bits": weight_bits,
        "message_bits": message_bits,
        "attention_bits": attention_bits,
        "ranges": ranges,
        "snap": snap,
        "overrides": options.overrides(override) or None,
        "splits": None if splits is None else options.integers(splits, "--splits"),
    }
    architecture = {
        "steps": steps,
        "teleport": teleport,
        "residual": residual,
        "operator": operator,
        "multiplier": multiplier,
        "tolerance": tolerance,
    }
    job = JobConfig(
        out=out,
        dataset=dataset,
        data_root=data_root,
        cache=cache,
        split=options.split_of(split),
        use_node_attr=bool(use_node_attr),
        model=model,
        method=method,
        bits=bits,
        preset=preset.value,
        overrides={name: value for name, value in overrides.items() if value is not None},
        seeds=seeds,
        folds=folds,
        hidden=hidden,
        layers=layers,
        heads=heads,
        dropout=dropout,
        architecture={name: value for name, value in architecture.items() if value is not None},
        epochs=epochs,
        float_epochs=float_epochs,
        lr=lr,
        weight_decay=weight_decay,
        quantizer_lr=quantizer_lr,
        batch_size=batch_size,
        patience=patience,
        warm_start=warm_start,
        distill=distill,
        float_distilled=float_distilled,
        threads=threads,
        latency_repeats=latency_repeats,
        progress=progress,
        force=force,
    )
    report = run_job(job, command=shlex.join(context.obj))
    if json:
        print_json(report)
    else:
        print_report(report, out)
    if report["interrupted"]:
        print(
            "nodebits: interrupted; the best model so far was kept, the same command continues",
            file=sys.stderr,
        )
        return 1
    return 0
