"""Packed features read from their file: mapped, and decoded row by row."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nodebits import ops
from nodebits.core.errors import (
    ConfigError,
    FileFormatError,
    NodebitsError,
    NodeIndexError,
    ShapeError,
)
from nodebits.core.file_fields import (
    BITS,
    FLAG,
    SIZE,
    Choice,
    ListOf,
    Optional,
    Options,
    check_fields,
)
from nodebits.core.own_scale import OwnScale
from nodebits.engine.packed_input import PackedInput
from nodebits.engine.rows import Rows
from nodebits.engine.sites.own import DynamicRows
from nodebits.ops import host
from nodebits.ops.records import Source
from nodebits.ops.selection import take_rows
from nodebits.runtime import PackedModel, streamed
from nodebits.runtime.container import ROWS

_AXES = {"tensor": -1, "column": 1, "row": 0}
_FIELDS: Options = {
    "shape": ListOf(SIZE, 2),
    "bits": BITS,
    "granularity": Choice(tuple(_AXES)),
    "signed": FLAG,
    # Files of older versions cut no ranges of rows.
    "trim": Optional(FLAG, absent=True),
}


class PackedFeatures:
    """A matrix of features as its file holds it: packed, mapped, decoded where it is indexed.

    Attributes:
        shape: ``(N, C)``.
        bits: Width of a value.
        granularity: What shares a scale: tensor, column or row.
        signed: Whether any value was negative.
        path: The file.
        reader: The device that decodes rows, after :meth:`on_host`; None for the CPU.
    """

    reader: torch.device | None = None

    def __init__(self, path: str | Path, verify: bool = True) -> None:
        """Opens a file that :func:`pack_features` wrote.

        Args:
            path: The file.
            verify: Whether its bytes are compared with their checksums first, which reads them
                all once.

        Raises:
            FileNotFoundError: If there is no file.
            FileFormatError: If it is foreign, truncated or damaged.
            FileVersionError: If a newer version wrote it.
        """
        header, tensors = streamed.mapped(path, ROWS, verify)
        check_fields(header, _FIELDS, f"{path}: header", others=True)
        self.path = Path(path)
        self.shape = (int(header["shape"][0]), int(header["shape"][1]))
        self.bits, self.granularity = int(header["bits"]), str(header["granularity"])
        self.signed, self._trim = bool(header["signed"]), bool(header.get("trim"))
        try:
            self.rows = Rows.dense(
                tensors["packed"],
                self.bits,
                self.shape[1],
                tensors["scale"],
                tensors["zero_point"],
                _AXES[self.granularity],
            )
        except (KeyError, NodebitsError, TypeError) as error:
            raise FileFormatError(f"{path}: the rows are damaged: {error}") from error
        if self.rows.shape != self.shape:
            raise FileFormatError(
                f"{path}: the rows are {list(self.rows.shape)}, the header says {list(self.shape)}"
            )

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        rows, columns = self.shape
        return (
            f"PackedFeatures([{rows}, {columns}], bits={self.bits}, "
            f"granularity={self.granularity!r}, bytes={self.nbytes})"
        )

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales, mapped."""
        return self.rows.nbytes

    def on_host(self, device: torch.device | str) -> PackedFeatures:
        """These rows in the host's memory, from which a device takes those that it needs.

        The file is read once, into pinned memory, unless the device is the CPU. Indexing then takes
        and decodes rows on the device, and :meth:`input_of` is for
        :meth:`nodebits.PackedModel.predict_nodes` of a model there.

        Args:
            device: Such as ``"cuda"``.

        Raises:
            ConfigError: If the device is not there or cannot read the host's memory; says why.
            OutOfMemoryError: If the rows cannot be pinned.
        """
        there, made = host.reader(device), copy.copy(self)
        made.reader = there
        if there.type != "cpu":
            made.rows = self.rows.on_host(there)
        return made

    @property
    def _at(self) -> torch.device:
        """Where rows are decoded."""
        return torch.device("cpu") if self.reader is None else self.reader

    def __getitem__(self, index: Any) -> Tensor:
        """Decodes rows: ``(code - zero_point) * scale``.

        Args:
            index: A number, a slice, or int64 or bool tensors, arrays and lists of rows.

        Returns:
            float32 ``[n, C]``, or ``[C]`` for a number; on the device of :meth:`on_host`.

        Raises:
            NodeIndexError: If an index is no row.
            ShapeError: If the index is of another kind.
        """
        if isinstance(index, int) and not isinstance(index, bool):
            if not -len(self) <= index < len(self):
                raise NodeIndexError(f"row {index} of {self.path.name}, which has {len(self)} rows")
            return self._decoded(torch.tensor([index % len(self)], device=self._at))[0]
        if isinstance(index, slice):
            return self._decoded(torch.arange(len(self), device=self._at)[index])
        return self._decoded(self._places(index))

    def input_of(self, model: PackedModel) -> PackedInput:
        """These rows as the packed input of a model, to be passed to ``predict`` in place of ``x``.

        They are what ``model.pack_input`` makes of the matrix, so predictions are the same bits.

        Raises:
            ConfigError: If the model reads other widths, or scales of its own.
        """
        rows: dict[str, Rows] = {}
        for name, site in model.first_sites().items():
            mine = OwnScale(self.bits, self.signed, self._trim)
            wanted = isinstance(site, DynamicRows) and site.own == mine
            if self.granularity != "row" or not wanted:
                said = (
                    "with a scale per row"
                    if isinstance(site, DynamicRows)
                    else "with scales of the model"
                )
                sign = site.own.described if isinstance(site, DynamicRows) else ""
                raise ConfigError(
                    f"site {name} reads {site.bits} bits {said}{sign}; {self.path.name} has "
                    f"{self.bits} bits, a scale per {self.granularity}"
                    f"{mine.described}: pack the matrix alike, or with "
                    "model.pack_input"
                )
            rows[name] = self.rows
        return PackedInput(rows, self.shape, reader=self.reader)

    def transform(self, name: str = "x") -> Callable[[Any], Any]:
        """A transform for PyG's loaders: it decodes the features of the nodes of a batch.

        ``NeighborLoader(data, ..., transform=features.transform())`` takes ``data`` without ``x``.

        Args:
            name: Field of the batch to set.
        """

        def fill(batch: Any) -> Any:
            batch[name] = self[batch.n_id]
            return batch

        return fill

    def _places(self, index: Any) -> Tensor:
        try:
            index = torch.as_tensor(index, device=self._at)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ShapeError(f"rows are taken by numbers; got {type(index).__name__}") from error
        if index.dtype == torch.bool and tuple(index.shape) == (len(self),):
            found: Tensor = index.nonzero()[:, 0]
            return found
        if index.numel() == 0:
            return torch.empty(0, dtype=torch.int64, device=self._at)
        if index.dim() != 1 or index.is_floating_point() or index.dtype == torch.bool:
            raise ShapeError(
                f"rows are taken by integers [n], or a bool per row ([{len(self)}]); got "
                f"{index.dtype} {list(index.shape)}"
            )
        places: Tensor = index.to(torch.int64)
        return places

    def _decoded(self, index: Tensor) -> Tensor:
        scale, zero_point = self.rows.scale, self.rows.zero_point
        axis = _AXES[self.granularity]
        # Taken first: an index of 32 bits does not reach all rows, and pages come in once.
        packed = take_rows(self.rows.data.packed, index)  # type: ignore[attr-defined]
        if axis == 0:
            scale = take_rows(scale, index)
        places = torch.arange(index.numel(), dtype=torch.int32, device=index.device)
        source = Source(packed, self.bits, self.shape[1])
        return ops.gather_rows(source, places, 0, index.numel(), scale, zero_point, axis)
