"""The runs of a plan that were recorded, by the sizes that they are for."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from nodebits.core.errors import NodebitsError, OutOfMemoryError
from nodebits.core.outcomes import Outcomes
from nodebits.plan.device.buckets import Sizes, bucket_of
from nodebits.plan.device.cuda_graph import Graphs, Recording
from nodebits.plan.device.padding import Padding

# Graphs of one plan; the one that was not used for longest goes first.
MOST_KEPT = 8
# Sizes that were seen once.
_MOST_SEEN = 64


class Run(Protocol):
    """The steps of a plan, see :class:`nodebits.plan.device.runner.StepRun`."""

    def run(
        self, given: Mapping[int, Any], outcomes: Outcomes, progress: Any = None
    ) -> tuple[Any, Tensor]:
        """The result, and whether a check found something wrong."""


class _Place:
    """Told which step runs."""

    step = "the arguments"


class _Arguments(NamedTuple):
    """Memory of the arguments, how many nodes are no padding, and whether an edge leads astray."""

    buffers: dict[int, Tensor]
    real: Tensor
    bad: Tensor


class _Kept(NamedTuple):
    """A run that was recorded, and the memory of its arguments."""

    arguments: _Arguments
    recording: Recording


class RecordedRuns:
    """Records runs at the second call of their sizes, and repeats them from then on.

    Safe to use from several threads, which take turns.

    Args:
        run: The steps.
        padding: Of the plan's arguments.
        graphs: What records.

    Attributes:
        stopped: Why nothing is recorded any more; an empty text before.
        refused: Why nothing is recorded for some sizes.
    """

    def __init__(self, run: Run, padding: Padding, graphs: Graphs) -> None:
        self._run, self._padding, self._graphs = run, padding, graphs
        self._kept: OrderedDict[Any, _Kept] = OrderedDict()
        self._seen: OrderedDict[Any, None] = OrderedDict()
        self._lock = threading.Lock()
        self.stopped = ""
        self.refused: dict[Sizes, str] = {}

    @property
    def sizes(self) -> list[Sizes]:
        """What is kept, the last used one last."""
        return [key[0] for key in self._kept]

    def forget(self) -> bool:
        """Drops all that is kept; returns whether there was something."""
        with self._lock:
            found = bool(self._kept)
            self._kept.clear()
        return found

    def run(self, values: Mapping[int, Tensor]) -> tuple[Any, Tensor] | None:
        """The result, and whether something was wrong; None where nothing is recorded.

        Args:
            values: Tensors of the inputs, by number.
        """
        real = None if self.stopped else self._padding.sizes(values)
        to = None if real is None else bucket_of(real)
        if real is None or to is None or to in self.refused:
            return None
        self._padding.check(values)
        key = to, self._padding.form(values)
        with self._lock, torch.inference_mode(False), torch.no_grad():
            kept = self._kept.get(key)
            if kept is None and not self._is_due(key):
                return None
            with self._graphs.turn():
                if kept is None:
                    kept = self._record(values, real, to)
                    if kept is None:
                        return None
                    self._keep(key, kept)
                else:
                    self._write(kept.arguments, values, real, to)
                self._kept.move_to_end(key)
                kept.recording.repeat()
                result, bad = kept.recording.result
                return self._padding.cut(result, real), bad.clone()

    def _is_due(self, key: Any) -> bool:
        """Whether calls of these sizes come again."""
        if key in self._seen:
            return True
        self._seen[key] = None
        while len(self._seen) > _MOST_SEEN:
            self._seen.popitem(last=False)
        return False

    def _keep(self, key: Any, kept: _Kept) -> None:
        self._kept[key] = kept
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    def _write(
        self, memory: _Arguments, values: Mapping[int, Tensor], real: Sizes, to: Sizes
    ) -> None:
        memory.real.fill_(real.nodes)
        memory.bad.copy_(self._padding.fill(memory.buffers, values, real, to))

    def _record(self, values: Mapping[int, Tensor], real: Sizes, to: Sizes) -> _Kept | None:
        """Records a run, or says once why none is."""
        place = _Place()
        try:
            return self._recorded(values, real, to, place)
        except OutOfMemoryError as error:
            self._stop(place.step, error)
        except NodebitsError as error:  # such as another way for sizes with padding
            self.refused[to] = str(error)
        except (RuntimeError, MemoryError) as error:
            self._stop(place.step, error)
        return None

    def _recorded(
        self, values: Mapping[int, Tensor], real: Sizes, to: Sizes, place: _Place
    ) -> _Kept:
        buffers = self._padding.buffers(values, to)
        some = next(iter(buffers.values()))
        memory = _Arguments(
            buffers, some.new_zeros(1, dtype=torch.int64), some.new_zeros(1, dtype=torch.bool)
        )
        self._write(memory, values, real, to)
        given = {**buffers, **self._padding.numbers(to)}

        def run() -> tuple[Any, Tensor]:
            outcomes = Outcomes(fixed=True, real=memory.real)
            outcomes.note(memory.bad)
            return self._run.run(given, outcomes, place)

        return _Kept(memory, self._graphs.record(run))

    def _stop(self, step: str, error: Exception) -> None:
        reason = str(error).strip().partition("\n")[0]
        self.stopped = f"step {step!r} cannot be recorded: {reason}"
        self._kept.clear()
        warnings.warn(
            f"no CUDA graph is made of this model, {self.stopped}. Its plan runs step by step, "
            "with the same results; packed.use_graphs = False does so without this warning",
            RuntimeWarning,
            stacklevel=2,
        )
