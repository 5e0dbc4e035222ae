"""A plan cut into stages: what a sum over neighbours reads was written by a stage before."""

from __future__ import annotations

from dataclasses import dataclass, field

from nodebits.plan.by_row import RowPlan

# What makes rows of a few bits of the rows of one value.
_PACKING = ("quantize_pack", "pack_own")
_WITHOUT_ROWS = ("csr", "expect", "self_loops", "self_loops_weighted", "in_order")


@dataclass
class Stage:
    """Steps that are run together for a block of rows.

    Attributes:
        steps: Their numbers, in order.
        tables: Values whose rows are read of neighbours.
        reads: Values of stages before that are read of the block's own rows.
        writes: Values that later stages read, or that are returned.
        whole: Whether its one step is run on all rows at once.
    """

    steps: list[int] = field(default_factory=list)
    tables: list[int] = field(default_factory=list)
    reads: list[int] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    whole: bool = False


def stages_of(plan: RowPlan) -> list[Stage]:
    """The stages of a plan, first to last."""
    stages = [Stage()]
    made: set[int] = set()
    for number, step in enumerate(plan.steps):
        if step["op"] in _WITHOUT_ROWS:
            continue
        whole = plan.is_whole(number)
        new = plan.is_sum(number) and any(value in made for value in plan.sources(number))
        if new or whole or stages[-1].whole:
            stages.append(Stage(whole=whole))
            made = set()
        stages[-1].steps.append(number)
        made |= set(step["outs"])
    for at in range(len(stages)):
        _pack_early(plan, stages, at)
    stages = [stage for stage in stages if stage.steps]
    for at, stage in enumerate(stages):
        _describe(plan, stage, stages[at + 1 :])
    return stages


def _pack_early(plan: RowPlan, stages: list[Stage], at: int) -> None:
    """Packs what a stage has where later ones only pack it: the floats need no file then."""
    stage = stages[at]
    if stage.whole:
        return

    def packs(other: Stage, number: int) -> bool:
        reads = {v for v in plan.reads[number] if v not in plan.constants}
        return plan.steps[number]["op"] in _PACKING and len(reads) == 1 and not other.whole

    values = {out for n in stage.steps for out in (*plan.steps[n]["outs"], *plan.reads_own[n])}
    for value in sorted(v for v in values if plan.axis(v) == "node" and v != plan.output):
        readers = [(s, n) for s in stages[at + 1 :] for n in s.steps if value in plan.reads[n]]
        if all(packs(*reader) for reader in readers):
            for other, number in readers:
                other.steps.remove(number)
                stage.steps.append(number)


def _describe(plan: RowPlan, stage: Stage, later: list[Stage]) -> None:
    made = [out for n in stage.steps for out in plan.steps[n]["outs"] if plan.axis(out) == "node"]
    wanted = {v for other in later for n in other.steps for v in plan.reads[n]} | {plan.output}
    stage.writes = [value for value in dict.fromkeys(made) if value in wanted]
    sums = [n for n in stage.steps if plan.is_sum(n)]
    stage.tables = list(dict.fromkeys(v for n in sums for v in plan.sources(n)))
    own = (v for n in stage.steps for v in plan.reads_own[n])
    stage.reads = [v for v in dict.fromkeys(own) if plan.axis(v) == "node" and v not in made]
