"""``nodebits partition``: a graph in parts, one for each process that will run a model on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nodebits.cli import options
from nodebits.cli.generate import command
from nodebits.cli.settings import Written
from nodebits.core.options import options_of
from nodebits.distributed.settings import Division

_Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the parts.")]


def _partition(context: typer.Context, json: bool, values: dict[str, Any]) -> int:
    """Divide the nodes of a graph among processes, each of which then loads its part alone.

    A part has what the model reads: features, edges, edge weights. The processes have the bits of
    one, and send each other packed rows.

    [bold]Example[/bold]

      nodebits partition runs/cora/model.safetensors --parts 4 --out parts

      torchrun --nproc-per-node 4 -m nodebits predict runs/cora/model.safetensors
      --data parts --out pred.csv
    """
    division = Division(**{name: values.pop(name) for name in ("parts", "by", "split_hubs")})
    options.take_data(values, None)
    options.check_dataset(values["dataset"], values["data_root"])
    from nodebits.cli.loading import one_graph, opened
    from nodebits.cli.output import print_json
    from nodebits.core.errors import OutputExistsError
    from nodebits.distributed.divide import arguments_by_row
    from nodebits.distributed.files import is_folder_of_parts, write_parts

    asked = Written(**{**values, "split": options.split_of(values["split"])})
    if asked.out.exists() and not asked.force:
        what = "holds parts" if is_folder_of_parts(asked.out) else "is there"
        raise OutputExistsError(f"{asked.out} {what} already: use another --out, or --force")
    found = opened(asked, asks=True)
    inputs = one_graph(found.problem, found.name)
    given, others = inputs.arguments(found.packed)
    of_nodes, of_edges = arguments_by_row(found.packed, given, others)
    classes = found.dataset.about.get("classes")
    contents = write_parts(
        asked.out,
        inputs.edge_index,
        of_nodes,
        of_edges,
        division.parts,
        division.by,
        division.split_hubs,
        name=found.name,
        ids=None if found.dataset.ids is None else list(found.dataset.ids),
        classes=None if classes is None else list(classes),
    )
    if json:
        about = {name: value for name, value in vars(contents).items() if name != "ids"}
        print_json({**about, "out": str(asked.out)})
    else:
        hubs = ""
        if contents.split_hubs is not None:
            hubs = f", and {contents.partial} partial sums of {contents.hubs} hubs"
        typer.echo(
            f"{contents.nodes} nodes of {contents.name} in {contents.parts} parts written to "
            f"{asked.out}; {contents.boundary} rows cross between them in a layer{hubs}"
        )
    return 0


partition = command(
    _partition,
    Written,
    [*options_of(Division), *options.DATA],
    leave_out=["metric"],
    spelled={**options.OF_SAVED_MODEL, "out": _Out},
)
