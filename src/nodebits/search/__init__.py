"""Bit allocation: which width at which site, found by measuring few configurations."""

from nodebits.search.costs import CostModel
from nodebits.search.evaluator import Evaluator
from nodebits.search.pareto import pareto_front
from nodebits.search.space import Slot, Space
from nodebits.search.strategies import Strategy, make_strategy, strategy_names
from nodebits.search.study import Study, StudySettings, Trial, run_study

__all__ = [
    "CostModel",
    "Evaluator",
    "Slot",
    "Space",
    "Strategy",
    "Study",
    "StudySettings",
    "Trial",
    "make_strategy",
    "pareto_front",
    "run_study",
    "strategy_names",
]
