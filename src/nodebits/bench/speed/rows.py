"""Candidates to measure side by side, and the rows that come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

from nodebits.bench.device.card import CPU, extra_memory, finished, free_memory
from nodebits.bench.speed.memory import MIB, available_memory, fits, peak_of
from nodebits.bench.speed.stream import Bandwidth
from nodebits.bench.timing import quantiles, sample_interleaved
from nodebits.core.errors import NodebitsError

# float32 and float: the peers that ratios are taken against; integer: torch's own low-bit
# operators; nodebits: ours.
Kind = Literal["float32", "float", "integer", "nodebits"]
Call = Callable[[], object]
Progress = Callable[[str], None]


class Skip(Exception):
    """Raised while a candidate is built: it is not measured, for the reason given."""


@dataclass(frozen=True)
class Candidate:
    """One implementation of an operation.

    Attributes:
        impl: Its name in the results.
        kind: Whose it is, and whether ratios are taken against it.
        build: Makes the operands and returns the call; may raise :class:`Skip`.
        bits: Width of its numbers.
        moved: Bytes that one call must move between memory and processor if nothing is reused
            and nothing is moved twice; None where that has no meaning.
        needs: Bytes that operands and one call take, about.
    """

    impl: str
    kind: Kind
    build: Callable[[], Call]
    bits: int
    moved: int | None = None
    needs: int = 0


@dataclass
class Row:
    """One measurement, or the reason why there is none.

    Attributes:
        op: Operation, such as ``aggregate``.
        graph: Graph, or shape.
        impl: Implementation.
        kind: See :class:`Candidate`.
        bits: Likewise.
        threads: Threads.
        median_s: Median seconds of a call; None if skipped, then ``note`` says why.
        p25_s: Quartile.
        p75_s: Quartile.
        spread: ``p75_s - p25_s``.
        repeats: Calls behind the median.
        bytes: See :attr:`Candidate.moved`.
        stream_share: ``bytes / median_s`` as a share of the bandwidth measured in the same run.
        ratio_best_float32: Median of the fastest float32 peer over this median.
        ratio_best_float: The same against the fastest peer of any float type.
        peak_mib: See :func:`nodebits.bench.speed.memory.peak_of`.
        note: What else is to be said.
    """

    op: str
    graph: str
    impl: str
    kind: Kind
    bits: int
    threads: int
    median_s: float | None = None
    p25_s: float | None = None
    p75_s: float | None = None
    spread: float | None = None
    repeats: int = 0
    bytes: int | None = None
    stream_share: float | None = None
    ratio_best_float32: float | None = None
    ratio_best_float: float | None = None
    peak_mib: float | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields by name, seconds and ratios to what was measured of them."""
        return {
            name: float(f"{value:.5g}") if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Protocol:
    """How a group of candidates is measured.

    Attributes:
        repeats: Rounds.
        warmup: Rounds before that do not count.
        budget: Seconds after which a slow candidate sits out further rounds (it has three).
        bandwidth: What shares are shares of, or None.
        only: Names (parts of them) of the implementations to measure, none for all.
        progress: Told what is being done.
        device: Where calls run.
        card: Whether the peers are those of a card, in place of those of a processor.
    """

    repeats: int = 9
    warmup: int = 1
    budget: float | None = 20.0
    bandwidth: Bandwidth | None = None
    only: Sequence[str] = ()
    progress: Progress = field(default=lambda text: None)
    device: torch.device = CPU
    card: bool = False


def measure(op: str, graph: str, candidates: Sequence[Candidate], protocol: Protocol) -> list[Row]:
    """Builds what fits the memory, times it in turns, then takes the peaks one by one.

    Args:
        op: Operation of all candidates.
        graph: What it runs on.
        candidates: Implementations; the order is kept.
        protocol: How to measure.

    Returns:
        A row for every candidate, skipped ones included.
    """
    threads = torch.get_num_threads()
    rows: dict[str, Row] = {}
    calls: dict[str, Call] = {}
    for candidate in candidates:
        if protocol.only and not any(part in candidate.impl for part in protocol.only):
            continue
        name = candidate.impl
        rows[name] = Row(op, graph, name, candidate.kind, candidate.bits, threads)
        rows[name].bytes = candidate.moved
        protocol.progress(f"{op}: preparing {name}")
        call = _built(candidate, rows[name], protocol)
        if call is not None:
            calls[name] = finished(call, protocol.device)
    samples = sample_interleaved(
        calls,
        protocol.repeats,
        protocol.warmup,
        protocol.budget,
        lambda text: protocol.progress(f"{op}: {text}"),
    )
    for name, taken in samples.items():
        row = rows[name]
        row.p25_s, row.median_s, row.p75_s = quantiles(taken, 0.25, 0.5, 0.75)
        row.spread, row.repeats = row.p75_s - row.p25_s, len(taken)
        if row.bytes is not None and protocol.bandwidth is not None:
            row.stream_share = row.bytes / row.median_s / protocol.bandwidth.best
        protocol.progress(f"{op}: peak memory of {name}")
        on_cpu = protocol.device.type == "cpu"
        call = calls[name]
        row.peak_mib = peak_of(call) if on_cpu else extra_memory(call, protocol.device) / MIB
    result = list(rows.values())
    add_ratios(result)
    return result


# What a peer says that cannot run here, also where its library is not installed.
_UNABLE = (RuntimeError, AttributeError)
_UNABLE_ON_CARDS = (*_UNABLE, ImportError, TypeError, ValueError)


def _built(candidate: Candidate, row: Row, protocol: Protocol) -> Call | None:
    on_cpu = protocol.device.type == "cpu"
    free = available_memory() if on_cpu else free_memory(protocol.device)
    if not (fits(candidate.needs) if on_cpu else candidate.needs <= free):
        row.note = (
            f"skipped: needs about {candidate.needs / MIB:,.0f} MiB, "
            f"{free / MIB:,.0f} MiB are available"
        )
        return None
    try:
        call = candidate.build()
        if protocol.card and candidate.kind != "nodebits":
            # Libraries for cards refuse types, sizes and memory when they are called.
            finished(call, protocol.device)()
        return call
    except Skip as reason:
        row.note = f"skipped: {reason}"
    except NodebitsError:
        raise
    except _UNABLE_ON_CARDS as error:
        if candidate.kind == "nodebits" or not (protocol.card or isinstance(error, _UNABLE)):
            raise
        # A peer that this build of torch lacks; ours must work.
        row.note = f"skipped: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return None


def add_ratios(rows: Sequence[Row]) -> None:
    """Fills the ratios of rows that were measured in one run."""
    for kinds, attribute in (
        (("float32",), "ratio_best_float32"),
        (("float32", "float"), "ratio_best_float"),
    ):
        peers = [r.median_s for r in rows if r.kind in kinds and r.median_s is not None]
        for row in rows:
            if peers and row.median_s is not None:
                setattr(row, attribute, min(peers) / row.median_s)
