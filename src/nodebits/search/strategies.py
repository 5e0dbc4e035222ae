"""Which points to measure next. All strategies answer the same question, :meth:`Strategy.ask`."""

from __future__ import annotations

import importlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nodebits.core.errors import MissingExtraError, UnknownNameError
from nodebits.search.pareto import pareto_front
from nodebits.search.space import Point, Space

Costs = Callable[[Point], float]


@dataclass(frozen=True)
class Observation:
    """A measured point."""

    point: Point
    score: float
    cost: float


class Strategy(ABC):
    """Least cost with a score of at least ``target``.

    Args:
        space: What may be chosen.
        cost: Cost of a point, known without measuring.
        target: Accuracy that a configuration must reach.
        seed: Of all random choices.
    """

    def __init__(self, space: Space, cost: Costs, target: float, seed: int) -> None:
        self.space, self.cost, self.target = space, cost, target
        self.rng = random.Random(seed)
        self.seed = seed

    @abstractmethod
    def ask(self, seen: Sequence[Observation], count: int) -> list[Point]:
        """Points to measure next: at most ``count``, none of them ``seen``."""

    def feasible(self, seen: Sequence[Observation]) -> list[Observation]:
        """What reaches the target."""
        return [o for o in seen if o.score >= self.target]

    def new_random(self, known: set[Point], count: int, draw: Callable[[], Point]) -> list[Point]:
        """Up to ``count`` points of ``draw`` that are not ``known``, which then knows them."""
        found: list[Point] = []
        for _ in range(50 * count):
            if len(found) == count:
                break
            point = draw()
            if point not in known:
                known.add(point)
                found.append(point)
        return found


class RandomStrategy(Strategy):
    """Even draws: the baseline."""

    def ask(self, seen: Sequence[Observation], count: int) -> list[Point]:
        known = {o.point for o in seen}
        return self.new_random(known, count, lambda: self.space.random(self.rng))


class TreeStrategy(Strategy):
    """SGQuant's loop as a constrained search.

    Published: measure N_mea random configurations, fit a regression-tree model of accuracy,
    predict N_sample candidates, measure the best, repeat. Ranking by accuracy alone drifts to wide
    configurations, so candidates are ranked by the expected saving, the saving over the cheapest
    feasible point times the model's probability of reaching the target; and candidates are drawn
    over all average widths, half of them near the Pareto front.

    Args:
        space: As in :class:`Strategy`.
        cost: Likewise.
        target: Likewise.
        seed: Likewise.
        samples: N_sample, candidates predicted per round.
        trees: Trees of the model.
    """

    def __init__(
        self,
        space: Space,
        cost: Costs,
        target: float,
        seed: int,
        *,
        samples: int = 2000,
        trees: int = 100,
    ) -> None:
        super().__init__(space, cost, target, seed)
        self.samples, self.trees = samples, trees

    def ask(self, seen: Sequence[Observation], count: int) -> list[Point]:
        known = {o.point for o in seen}
        if len(seen) < max(count, 8):
            return self.new_random(known, count, self._draw)
        candidates = self._candidates(seen, set(known))
        if not candidates:
            return []
        mean, spread = self._predict(seen, candidates)
        feasible = self.feasible(seen)
        best = min((o.cost for o in feasible), default=max(o.cost for o in seen))
        ranked = sorted(
            range(len(candidates)),
            key=lambda i: -self._gain(candidates[i], mean[i], spread[i], best, bool(feasible)),
        )
        # One in five stays random, so that the model also learns where it does not look.
        explore = count // 5
        chosen = [candidates[i] for i in ranked[: count - explore]]
        return chosen + self.new_random({*known, *chosen}, explore, self._draw)

    def _gain(self, point: Point, mean: float, spread: float, best: float, found: bool) -> float:
        from statistics import NormalDist

        chance = 1.0 - NormalDist(mean, spread).cdf(self.target)
        return max(best - self.cost(point), 0.0) * chance if found else chance

    def _draw(self) -> Point:
        """A point around a level drawn first: averages of many slots are all alike otherwise."""
        level = self.rng.random()
        point = []
        for slot in self.space.slots:
            place = level * (len(slot.choices) - 1) + self.rng.gauss(0.0, 1.0)
            index = min(max(round(place), 0), len(slot.choices) - 1)
            point.append(slot.choices[index])
        return tuple(point)

    def _candidates(self, seen: Sequence[Observation], known: set[Point]) -> list[Point]:
        drawn = self.new_random(known, self.samples // 2, self._draw)
        front = pareto_front(self.feasible(seen) or seen, lambda o: o.cost, lambda o: o.score)
        parents = [o.point for o in front[:8]]
        return drawn + self.new_random(
            known, self.samples // 2, lambda: self._mutate(self.rng.choice(parents))
        )

    def _mutate(self, parent: Point) -> Point:
        point = list(parent)
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            at = self.rng.randrange(len(point))
            choices = self.space.slots[at].choices
            step = self.rng.choice((-2, -1, -1, 1))
            index = min(max(choices.index(point[at]) + step, 0), len(choices) - 1)
            point[at] = choices[index]
        return tuple(point)

    def _predict(
        self, seen: Sequence[Observation], candidates: list[Point]
    ) -> tuple[list[float], list[float]]:
        """Mean and spread of the trees' predictions of accuracy."""
        import numpy as np

        ensemble = require("sklearn.ensemble")
        model = ensemble.ExtraTreesRegressor(
            self.trees, min_samples_leaf=2, random_state=self.seed, n_jobs=1
        )
        model.fit([self._features(o.point) for o in seen], [o.score for o in seen])
        rows = np.asarray([self._features(p) for p in candidates], dtype=np.float32)
        by_tree = np.stack([tree.predict(rows) for tree in model.estimators_])
        # A split of a few hundred nodes cannot tell accuracies closer than this apart.
        spread = np.maximum(by_tree.std(0), 2e-3)
        return by_tree.mean(0).tolist(), spread.tolist()

    def _features(self, point: Point) -> list[float]:
        return [*map(float, point), self.cost(point), sum(point) / len(point)]


class _OptunaStrategy(Strategy):
    """An Optuna sampler behind :meth:`ask`; what was measured elsewhere is told to it too."""

    def __init__(self, space: Space, cost: Costs, target: float, seed: int) -> None:
        super().__init__(space, cost, target, seed)
        self._optuna = require("optuna")
        self._optuna.logging.set_verbosity(self._optuna.logging.ERROR)
        distribution = self._optuna.distributions.CategoricalDistribution
        self._distributions = {
            f"{number:03d} {slot.name}": distribution(slot.choices)
            for number, slot in enumerate(space.slots)
        }
        self._told = 0
        self._study = self._new_study()

    def _new_study(self) -> Any:
        raise NotImplementedError

    def _values(self, seen: Observation) -> list[float]:
        raise NotImplementedError

    def ask(self, seen: Sequence[Observation], count: int) -> list[Point]:
        trial = self._optuna.trial
        for observation in seen[self._told :]:
            missing = max(self.target - observation.score, 0.0)
            self._study.add_trial(
                trial.create_trial(
                    params=dict(zip(self._distributions, observation.point, strict=True)),
                    distributions=self._distributions,
                    values=self._values(observation),
                    constraints={"score": missing},
                )
            )
        self._told = len(seen)
        known = {o.point for o in seen}
        points: list[Point] = []
        for _ in range(20 * count):
            if len(points) == count:
                break
            asked = self._study.ask(self._distributions)
            point = tuple(asked.params[name] for name in self._distributions)
            self._study.tell(asked, state=trial.TrialState.FAIL)
            if point not in known:
                known.add(point)
                points.append(point)
        missing_points = count - len(points)
        return points + self.new_random(known, missing_points, lambda: self.space.random(self.rng))


class TPEStrategy(_OptunaStrategy):
    """Optuna's tree-structured Parzen estimator, on the cost with the target as a constraint."""

    def _new_study(self) -> Any:
        samplers = self._optuna.samplers
        sampler = samplers.TPESampler(seed=self.seed, n_startup_trials=10, multivariate=True)
        return self._optuna.create_study(sampler=sampler, direction="minimize")

    def _values(self, seen: Observation) -> list[float]:
        return [seen.cost]


class NSGA2Strategy(_OptunaStrategy):
    """Optuna's NSGA-II, on cost and accuracy with the target as a constraint."""

    def _new_study(self) -> Any:
        samplers = self._optuna.samplers
        sampler = samplers.NSGAIISampler(seed=self.seed, population_size=20)
        return self._optuna.create_study(sampler=sampler, directions=["minimize", "maximize"])

    def _values(self, seen: Observation) -> list[float]:
        return [seen.cost, seen.score]


_STRATEGIES: dict[str, type[Strategy]] = {
    "nsga2": NSGA2Strategy,
    "random": RandomStrategy,
    "tpe": TPEStrategy,
    "tree": TreeStrategy,
}


def strategy_names() -> list[str]:
    """Known strategies."""
    return sorted(_STRATEGIES)


def make_strategy(name: str, space: Space, cost: Costs, target: float, seed: int = 0) -> Strategy:
    """Builds a strategy by name.

    Raises:
        UnknownNameError: On an unknown name.
        MissingExtraError: If it needs a package that is not installed.
    """
    if name not in _STRATEGIES:
        raise UnknownNameError.for_name("strategy", name, _STRATEGIES)
    return _STRATEGIES[name](space, cost, target, seed)


def require(module: str) -> Any:
    """Imports a module of the extra ``search``.

    Raises:
        MissingExtraError: If it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"sklearn": "scikit-learn"}.get(module.partition(".")[0], module)
        raise MissingExtraError(
            f"this search strategy needs {package}, which is not installed: "
            "pip install 'nodebits[search]' (the strategy 'random' needs nothing)"
        ) from error
