"""The search: a space that can be enumerated is, in batches; Optuna proposes from one that cannot.

`to_study` puts candidates into an Optuna study with the caps as constraints, so that Optuna's own tools (importances, plots,
storages) can be used on a front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.records.costs import Costs
from autotune.records.front import Candidate
from autotune.records.plan import LEVERS, Plan
from autotune.records.precision import Precision
from autotune.search.exact import Estimator, Known, Progress, undominated
from autotune.search.front import COMPARED, Neighbours, among, objectives, pareto, with_reasons
from autotune.search.grid import Grid
from autotune.search.space import Space

if TYPE_CHECKING:
    import optuna

__all__ = ["Found", "estimated", "search", "to_study"]

Pricing = Callable[[Mapping[str, Sequence[Any]], NDArray[np.int64]], Costs]

_ENUMERABLE = 1_000_000  # rows of a grid: a second, and some hundred MB
_PROPOSALS = 2_000
_SEED = 0


class Found(NamedTuple):
    """What a search brings back."""

    front: tuple[Candidate, ...]
    """The plans nobody beats, with reasons, from the fastest to the smallest."""
    evaluated: tuple[Candidate, ...]
    """Every plan that was estimated."""
    searched: int
    """How many plans there were to choose from."""


def search(
    space: Space,
    estimate: Estimator,
    costs: Pricing | None = None,
    *,
    enumerable: int = _ENUMERABLE,
    proposals: int = _PROPOSALS,
    progress: Progress | None = None,
) -> Found:
    """The Pareto front of the whole space, or of what Optuna proposes of it.

    Args:
        space: the plans worth looking at.
        estimate: one estimate for each plan of a batch.
        costs: what plans cost at least, so that not all have to be estimated; without it they are.
        enumerable: above this size Optuna proposes.
        proposals: how many plans it may propose.
        progress: called with plans done and plans in all.
    """
    if space.size > enumerable:
        return _proposed(space, estimate, proposals, progress)
    grid = Grid(space)
    known = Known(grid, estimate)
    if costs is None:
        known.estimate_all(progress)
        latency_s = np.array([known[row].estimate.latency_s for row in range(len(grid))])
    else:
        least = costs(space.values, grid.codes)
        undominated(grid, least, known, progress=progress)
        latency_s = least.latency_s
    evaluated = tuple(known.made[row] for row in sorted(known.made))
    rows = {candidate.plan.id: row for row, candidate in known.made.items()}
    front = [
        with_reasons(candidate, _beside(rows[candidate.plan.id], grid, known, latency_s), space)
        for candidate in pareto(evaluated)
    ]
    return Found(tuple(front), evaluated, len(grid))


def _beside(row: int, grid: Grid, known: Known, latency_s: NDArray[np.float64]) -> Neighbours:
    """The plans nearest in time that differ in one lever. Not all are estimated yet."""

    def neighbours(lever: str) -> dict[Any, Candidate]:
        rows = grid.beside(row, lever)
        nearest = sorted(rows, key=lambda value: abs(latency_s[rows[value]] - latency_s[row]))
        return {value: known[rows[value]] for value in nearest[:COMPARED]}

    return neighbours


def to_study(
    candidates: Iterable[Candidate], *, max_vram_bytes: int | None = None, max_ram_bytes: int | None = None
) -> optuna.Study:
    """An Optuna study of these candidates: VRAM, RAM, seconds and loss of quality minimised, caps as constraints.

    `study.best_trials` is the feasible Pareto front.
    """
    import optuna

    candidates = list(candidates)
    distributions = {
        name: optuna.distributions.CategoricalDistribution(_choices(getattr(c.plan, name) for c in candidates))
        for name in LEVERS
    }
    study = _new_study()
    for candidate in candidates:
        study.add_trial(_trial(candidate, distributions, max_vram_bytes, max_ram_bytes))
    return study


def _trial(
    candidate: Candidate,
    distributions: Mapping[str, optuna.distributions.BaseDistribution],
    max_vram_bytes: int | None,
    max_ram_bytes: int | None,
) -> optuna.trial.FrozenTrial:
    import optuna

    constraints = {}
    if max_vram_bytes is not None:
        constraints["vram_bytes"] = float(candidate.estimate.needed_bytes - max_vram_bytes)
    if max_ram_bytes is not None:
        constraints["ram_bytes"] = float(candidate.estimate.host_ram_bytes - max_ram_bytes)
    return optuna.trial.create_trial(
        params={name: _choice(getattr(candidate.plan, name)) for name in LEVERS},
        distributions=dict(distributions),
        values=[float(value) for value in objectives(candidate)],
        constraints=constraints,
        user_attrs={"plan": candidate.plan.id},
    )


def estimated(plans: Sequence[Plan], estimate: Estimator) -> list[Candidate]:
    """These plans with their estimates."""
    return [Candidate(plan=p, estimate=e) for p, e in zip(plans, estimate(plans), strict=True)]


def _proposed(space: Space, estimate: Estimator, proposals: int, progress: Progress | None) -> Found:
    evaluated = _propose(space, estimate, proposals, progress)
    beside = among(evaluated)
    front = tuple(with_reasons(candidate, beside(candidate), space) for candidate in pareto(evaluated))
    return Found(front, tuple(evaluated), len(evaluated))


def _propose(space: Space, estimate: Estimator, proposals: int, progress: Progress | None) -> list[Candidate]:
    """Optuna asks, the replay tells. A plan proposed again is told from memory: Optuna does not de-duplicate."""
    import optuna

    study = _new_study()
    known: dict[tuple[Any, ...], Candidate] = {}
    for done in range(proposals):
        trial = study.ask()
        values = {name: trial.suggest_categorical(name, _choices(choices)) for name, choices in space.values.items()}
        plan = Plan(**values, id=f"p{trial.number}")
        if not space.allows(plan):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        if _key(plan) not in known:
            known[_key(plan)] = Candidate(plan=plan, estimate=estimate([plan])[0])
        study.tell(trial, [float(value) for value in objectives(known[_key(plan)])])
        if progress:
            progress(done + 1, proposals)
    return list(known.values())


def _new_study() -> optuna.Study:
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(directions=["minimize"] * 4, sampler=optuna.samplers.NSGAIISampler(seed=_SEED))
    finally:
        optuna.logging.set_verbosity(verbosity)


def _choices(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(map(_choice, values)))


def _choice(value: Any) -> Any:
    """As Optuna's storages keep it: a precision in its written form."""
    return value.written if isinstance(value, Precision) else value


def _key(plan: Plan) -> tuple[Any, ...]:
    return tuple(plan.values[name] for name in LEVERS)
