"""Newton's method with the curvature of a sample: few passes, each followed by work in memory.

The objective is modelled by that of a sample of the rows, corrected so that its gradient at
the current point is the full one (Shamir, Srebro and Zhang, Communication-efficient distributed
optimization using an approximate Newton-type method, 2014), bent by what earlier passes told
about the difference of the two curvatures, and damped by a multiple of the squared distance
that grows when the model promised too much (Marquardt, 1963). The minimum of the model is
sought in memory: by L-BFGS in coordinates in which the sample's features are uncorrelated, or
by FISTA where the penalty has corners. A pass then evaluates two rivals: where that search
ended, and where it was after a quarter of its way, which is the more cautious step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dsoftmax.penalty import ElasticNet
from dsoftmax.reduction import Array
from dsoftmax.solvers.base import Evaluation, Request, Rows, State, Status, largest
from dsoftmax.solvers.bend import Bend, Secant, bend_from
from dsoftmax.solvers.fista import FISTA, FISTAState
from dsoftmax.solvers.lbfgs import LBFGS, LBFGSState, Pair

_FIRST, _LATER, _CORNERED = 60, 40, 120  # evaluations of the model in one search
_ENOUGH = 0.01  # of the model's gradient may be left
_DAMPING, _LEAST_DAMPING = 0.01, 1e-6
_MOST_SECANTS, _SECANT_BYTES = 20, 1 << 26
_MOST_IDLE = 5


class Trial(NamedTuple):
    """A point that is to be evaluated on all rows.

    Attributes
    ----------
    point : (n_features + 1, n_columns)
    gain : by how much the model says that it is below the centre (not positive)
    secant : the way from the centre, and the change of the sample's gradient, in the coordinates
        of the search; None for a point that comes from elsewhere
    """

    point: Array
    gain: float
    secant: Secant | None


@dataclass(frozen=True)
class NewtonState(State):
    """State of Newton's method; `point` is the centre of the model.

    Attributes
    ----------
    gradient : (n_features + 1, n_columns), of the smooth part on all rows, at `point`
    target : the norm of the projected gradient to reach
    sample_gradient : the same on the sample, or None while it is unknown
    root : (n_features + 1, n_features + 1) or None: R with R.T R the inverse of the metric, by
        which the coordinates of the search are stretched
    damping : of the model
    secants : what all rows told beyond the sample
    bend : of the model
    pairs : what the search has learned about the sample's curvature
    search : state of the search under way, or None
    first_value : the model at the centre
    evaluations : of the search so far
    early : where it was after a quarter of its way
    trials : what to evaluate on all rows next
    rounds : how often that was done
    renewed : whether the rows in memory are those that matter at a model
    ratio : of what the last trial gained to what the model had said
    least_norm, idle : as of L-BFGS
    """

    gradient: Array
    target: float
    damping: float = _DAMPING
    sample_gradient: Array | None = None
    root: Array | None = None
    knows_metric: bool = False
    secants: tuple[Secant, ...] = ()
    bend: Bend | None = None
    pairs: tuple[Pair, ...] = ()
    search: LBFGSState | FISTAState | None = None
    first_value: float = 0.0
    evaluations: int = 0
    early: Trial | None = None
    trials: tuple[Trial, ...] = ()
    rounds: int = 0
    renewed: bool = False
    ratio: float = 1.0
    least_norm: float = np.inf
    idle: int = 0


@dataclass(frozen=True)
class Newton:
    """Newton's method on the model that a sample makes; full passes.

    Parameters
    ----------
    penalty : ElasticNet
    tol : stop at largest projected gradient entry <= tol * its value at the intercept-only model
    noise : relative rounding error of a value of the objective
    """

    penalty: ElasticNet
    tol: float
    noise: float

    name: ClassVar[str] = "newton"
    mini_batch: ClassVar[bool] = False
    penalties: ClassVar[Sequence[str]] = ("l2", "l1")

    def start(self, point: Array, known: Evaluation, at: Array) -> NewtonState:
        """Return the first state; where `point` is `at`, nothing has to be evaluated again."""
        gradient = known.gradient[0]
        norm = largest(self.penalty.projected(at, gradient))
        status = Status.CONVERGED if norm == 0 else Status.RUNNING
        state = NewtonState(at, float(known.value[0]), norm, status, gradient, self.tol * norm)
        if np.array_equal(point, at):
            return state
        return replace(state, trials=(Trial(point, 0.0, None),))

    def ask(self, state: NewtonState) -> Request:
        """Return the trials, the centre of a new model, or the next point of the search."""
        if state.trials:
            points = np.stack([trial.point for trial in state.trials])
            renew = not state.renewed and state.trials[0].secant is not None
            return Request(points, Rows.ALL, renew=renew, rivals=True)
        if state.search is None:
            return Request(state.point[None], Rows.SAMPLE, metric=not state.knows_metric)
        steps = self._searcher.ask(state.search).points
        points = np.stack([self._place(state, step) for step in steps])
        return Request(points, Rows.SAMPLE)

    def tell(self, state: NewtonState, result: Evaluation) -> NewtonState:
        """Judge the trials, make a new model, or go on with the search."""
        if state.trials:
            return self._judge(state, result)
        if state.search is None:
            return self._make_model(state, result)
        return self._search_on(state, result)

    def guess(self, state: State) -> tuple[Array, float]:
        """Return the best model known, and its objective: when the budget is spent.

        A trial that no pass is left to evaluate is taken if the model kept its word so far; its
        objective is then what the model says.
        """
        assert isinstance(state, NewtonState)
        trials = [trial for trial in state.trials if trial.secant is not None]
        if not trials or state.ratio < 0.25:
            return state.point, state.value
        # Before anything was evaluated, the word of the model is that of a sample alone.
        trial = trials[0] if state.rounds > 0 and state.ratio >= 0.5 else trials[-1]
        return trial.point, state.value + trial.gain

    @property
    def _cornered(self) -> bool:
        return self.penalty.alpha * self.penalty.l1_ratio > 0

    @property
    def _searcher(self) -> Any:
        if self._cornered:
            return FISTA(self.penalty, _ENOUGH, self.noise)
        return LBFGS(_ENOUGH, self.noise)

    def _limit(self, state: NewtonState) -> int:
        """Return how many evaluations a search may take."""
        if self._cornered:
            return _CORNERED
        return _LATER if state.rounds else _FIRST

    # The search takes steps from the centre, stretched by the root of the metric; under a
    # penalty with corners, which stretching would turn, it works on the points themselves.

    def _place(self, state: NewtonState, step: Array) -> Array:
        if self._cornered:
            return step
        return state.point + (step if state.root is None else state.root.T @ step)

    def _stretched(self, state: NewtonState, gradient: Array) -> Array:
        return gradient if state.root is None else np.asarray(state.root @ gradient)

    def _excess(self, state: NewtonState, step: Array) -> tuple[Array, Array]:
        """Return the gradient of what the model adds to the sample, apart from the correction.

        Both of its parts are quadratic in the way from the centre, of which they are the products
        with the damping and the bend.
        """
        way = step - state.point if self._cornered else step
        far = self._place(state, step) - state.point
        added = state.damping * self._stretched(state, far)
        return way, added if state.bend is None else added + state.bend(way)

    def _make_model(self, state: NewtonState, result: Evaluation) -> NewtonState:
        """Take the sample's value and gradient at the centre, and start the search there."""
        if result.metric is not None and not self._cornered:
            root = np.linalg.inv(np.linalg.cholesky(result.metric))
            state = replace(state, root=root, knows_metric=True)
        bend = bend_from(state.secants, state.point.size) if state.secants else None
        state = replace(
            state, sample_gradient=result.gradient[0], bend=bend, knows_metric=True,
            first_value=float(result.value[0]), evaluations=0, early=None,
        )  # fmt: skip
        origin = state.point if self._cornered else np.zeros_like(state.point)
        gradient = self._stretched(state, result.gradient[0] + self._correction(state))
        known = Evaluation(result.value[:1], gradient[None], np.zeros(1))
        if self._cornered:
            search = self._searcher.start(origin, known, origin)
        else:
            search = self._searcher.start(origin, known, origin, self._bent_pairs(state))
        state = replace(state, search=search)
        return state if search.status is Status.RUNNING else self._propose(state)

    def _correction(self, state: NewtonState) -> Array:
        """Return what makes the sample's gradient at the centre the full one.

        Not for the first model: from far, the minimum of the sample as it is lies nearer.
        """
        if state.rounds == 0 or state.sample_gradient is None:
            return np.zeros_like(state.gradient)
        return state.gradient - state.sample_gradient

    def _bent_pairs(self, state: NewtonState) -> tuple[Pair, ...]:
        """Return what is known of the sample's curvature, as that of the model."""
        pairs = []
        for pair in state.pairs:
            step = pair.step.reshape(state.point.shape)
            change = pair.change + self._excess(state, step)[1].ravel()
            product = float(pair.step @ change)
            if product > 0:
                pairs.append(Pair(pair.step, change, 1.0 / product))
        return tuple(pairs)

    def _search_on(self, state: NewtonState, result: Evaluation) -> NewtonState:
        steps = self._searcher.ask(state.search).points
        values, gradients = [], []
        correction = self._correction(state)
        for step, value, gradient in zip(steps, result.value, result.gradient, strict=True):
            way, added = self._excess(state, step)
            far = self._place(state, step) - state.point
            values.append(value + float(np.vdot(correction, far)) + 0.5 * float(np.vdot(way, added)))
            gradients.append(self._stretched(state, gradient + correction) + added)
        modelled = Evaluation(np.array(values), np.stack(gradients), result.accuracy)
        search = self._searcher.tell(state.search, modelled)
        state = replace(state, search=search, evaluations=state.evaluations + 1)
        limit = self._limit(state)
        if state.early is None and state.evaluations >= limit // 4:
            state = replace(state, early=self._trial(state))
        if search.status is Status.RUNNING and state.evaluations < limit:
            return state
        return self._propose(state)

    def _trial(self, state: NewtonState) -> Trial | None:
        """Return where the search is, if it has got anywhere."""
        search = state.search
        assert search is not None
        way, added = self._excess(state, search.point)
        start = self._stretched(state, state.sample_gradient + self._correction(state))
        change = search.gradient - start - added
        gain = search.value - state.first_value - self.penalty.absolute(state.point)
        if not gain < 0 or not np.any(way):
            return None
        secant = Secant(way.ravel().copy(), change.ravel())
        return Trial(self._place(state, search.point), gain, secant)

    def _propose(self, state: NewtonState) -> NewtonState:
        """End the search, and have its points evaluated on all rows."""
        best = self._trial(state)
        pairs = self._sample_pairs(state)
        state = replace(state, search=None, pairs=pairs)
        if best is None:
            return replace(state, status=Status.PRECISION)
        early = state.early
        if early is None or np.array_equal(early.point, best.point):
            half = 0.5 * (state.point + best.point)
            early = Trial(half, 0.75 * best.gain, None)
        return replace(state, trials=(best, early), early=None)

    def _sample_pairs(self, state: NewtonState) -> tuple[Pair, ...]:
        """Return what the search has learned, without what the model added."""
        if not isinstance(state.search, LBFGSState):
            return ()
        pairs = []
        for pair in state.search.pairs:
            step = pair.step.reshape(state.point.shape)
            change = pair.change - self._excess(state, step)[1].ravel()
            pairs.append(Pair(pair.step, change, 0.0))
        return tuple(pairs)

    def _judge(self, state: NewtonState, result: Evaluation) -> NewtonState:
        """Go to the better of the trials, and learn from both how far the model is to be trusted."""
        trials = state.trials
        absolute = [self.penalty.absolute(trial.point) for trial in trials]
        values = np.where(np.isfinite(result.value), result.value + absolute, np.inf)
        best = int(np.argmin(values))
        after = self._learned(state, values, result)
        norm = largest(self.penalty.projected(trials[best].point, result.gradient[best]))
        noise = self.noise * abs(state.value)
        lower = values[best] < state.value - noise
        flatter = norm < min(state.least_norm, state.gradient_norm)
        if lower or (flatter and values[best] <= state.value + noise):
            after = replace(
                after, point=trials[best].point, value=float(values[best]), gradient_norm=norm,
                gradient=result.gradient[best],
            )  # fmt: skip
        idle = 0 if lower or flatter else state.idle + 1
        after = replace(after, idle=idle, least_norm=min(norm, state.least_norm))
        if after.gradient_norm <= after.target:
            return replace(after, status=Status.CONVERGED)
        return replace(after, status=Status.PRECISION) if idle >= _MOST_IDLE else after

    def _learned(self, state: NewtonState, values: Array, result: Evaluation) -> NewtonState:
        """Return the state after the trials, whose centre is still the old one."""
        after = replace(state, trials=(), rounds=state.rounds + 1, sample_gradient=None)
        if state.trials[0].secant is not None:
            ratio = float((values[0] - state.value) / state.trials[0].gain)
            after = replace(after, ratio=ratio, damping=_damping(state.damping, ratio))
        if result.renewed:
            return replace(
                after, renewed=True, root=None, knows_metric=False, secants=(), pairs=(),
                bend=None,
            )  # fmt: skip
        secants = list(state.secants)
        for trial, gradient, value in sorted(
            zip(state.trials, result.gradient, values, strict=True), key=lambda item: -item[2]
        ):
            if trial.secant is not None and np.isfinite(value):
                change = self._stretched(state, gradient - state.gradient).ravel()
                secants.append(Secant(trial.secant.step, change - trial.secant.change))
        most = min(max(_SECANT_BYTES // (16 * state.point.size), 2), _MOST_SECANTS)
        return replace(after, secants=tuple(secants[-most:]))


def _damping(damping: float, ratio: float) -> float:
    """Return the damping after a step that gained `ratio` times what the model had said."""
    if not ratio >= 0.25:
        return 4 * damping
    if ratio > 1:  # it was too cautious
        return max(damping / 10, _LEAST_DAMPING)
    return max(damping / 2, _LEAST_DAMPING) if ratio > 0.75 else damping
