"""Newton's method with the curvature of a sample: few passes, each followed by work in memory.

The objective is modelled by that of a sample of the rows, corrected so that its gradient at the
current point is the full one (Shamir, Srebro and Zhang, Communication-efficient distributed
optimization using an approximate Newton-type method, 2014), and damped by a multiple of the
squared distance that grows when the model promised too much (Marquardt, 1963). Each pass keeps
other rows, which matter at the point that it evaluates; a model whose rows are those of an
earlier pass is bent by what all rows have told since about the difference of the two curvatures.
The minimum of the model is sought in memory: by L-BFGS in coordinates in which the sample's
features are uncorrelated, or by FISTA where the penalty has corners. A pass then evaluates where
that search ended; and where a model is not to be trusted, a rival: where the search was after a
quarter of its way, which is the more cautious step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dsoftmax.objective.evaluation import Evaluation
from dsoftmax.objective.penalty import ElasticNet, largest
from dsoftmax.solvers.base import Request, RowSelection, Solver, SolverParams, Status
from dsoftmax.solvers.fista import FISTA, FISTAState
from dsoftmax.solvers.lbfgs import LBFGS, LBFGSState, two_loop
from dsoftmax.solvers.linalg import product
from dsoftmax.solvers.low_rank import Secant, low_rank_from
from dsoftmax.solvers.newton_state import NewtonState, Trial
from dsoftmax.solvers.surrogate import Surrogate
from dsoftmax.typing import Array

Search = LBFGSState | FISTAState

_FIRST, _LATER, _CORNERED = 60, 40, 120  # evaluations of the model in one search
_PATIENCE = 8  # rounds after which a search may take as many evaluations more
_ENOUGH = 0.01  # of the model's gradient may be left
_DAMPING, _LEAST_DAMPING = 0.01, 1e-10  # some features have a curvature of 1e-7
_NOISE_OF_DOUBLE = 0.5 * float(np.finfo(np.float64).eps)
_POOR, _GOOD = 0.25, 0.75  # share of the gain that the model had promised
_MOST_SECANTS, _SECANT_BYTES = 20, 1 << 26
_MOST_IDLE = 5
_RENEW = (0, 2)  # rounds in which others choose other rows: the first models are far off


@dataclass(frozen=True)
class Newton(Solver[NewtonState]):
    """Newton's method on the model that a sample makes; full passes.

    Parameters
    ----------
    penalty : ElasticNet
    tol : stop at largest projected gradient entry <= tol * its value at the intercept-only model
    noise : relative rounding error of a value of the objective
    backtrack : whether a pass evaluates a shorter step too, where the surrogate is not trusted
    memory : of the search, as for L-BFGS
    effort : what a search may take, as a share of what is best for one model: a stack of them
        gains more than one does from a pass, and less from a search
    alone : whether the rows in memory serve this model alone: each pass keeps others, which
        matter to it, and searches that rounding error has ended go on in float64
    """

    penalty: ElasticNet
    tol: float
    noise: float
    backtrack: bool = True
    memory: int | None = None
    effort: float = 1.0
    alone: bool = True

    name: ClassVar[str] = "newton"
    needs_sample: ClassVar[bool] = True

    @classmethod
    def from_params(cls, params: SolverParams) -> Newton:
        """Return the solver for the parameters of a fit."""
        return cls(params.penalty, params.tol, params.noise)

    def start(
        self, point: Array, at_intercept_only: Evaluation, intercept_only: Array
    ) -> NewtonState:
        """Return the first state; where `point` is `at`, nothing has to be evaluated again."""
        gradient = at_intercept_only.gradient[0]
        norm = self._norm(intercept_only, gradient)
        status = Status.CONVERGED if norm == 0 else Status.RUNNING
        state = NewtonState(
            intercept_only,
            float(at_intercept_only.value[0]),
            norm,
            status,
            self.tol * norm,
            gradient,
        )
        if np.array_equal(point, intercept_only):
            return state
        return replace(state, trials=(Trial(point, 0.0, None),))

    def moved(self, state: NewtonState, point: Array, known: Evaluation) -> NewtonState:
        """Return the state at a point to which another model has led the way.

        Parameters
        ----------
        state : of this model; or of that one, with the target of this
        point : (n_features + 1, n_columns)
        known : the objective of this model there
        """
        gradient = known.gradient[0]
        after = replace(
            state,
            point=point,
            value=float(known.value[0]) + self.penalty.l1_value(point),
            gradient=gradient,
            gradient_norm=self._norm(point, gradient),
            status=Status.RUNNING,
            trials=(),
            search=None,
            surrogate=None,
            secants=(),
            rounds=max(1, state.rounds),
            use_float64=False,
            n_no_progress=0,
            least_norm=np.inf,
        )
        return replace(after, distance=self._distance(state, after, np.nan))

    def ask(self, state: NewtonState) -> Request:
        """Return the trials, the centre of a new model, or the next point of the search."""
        if state.trials:
            points = np.stack([trial.point for trial in state.trials])
            renews = self.alone or state.rounds in _RENEW
            resample_at = state.point if renews and state.trials[0].secant is not None else None
            return Request(
                points, RowSelection.ALL, resample_at=resample_at, root=state.root, take_best=True
            )
        if state.search is None or state.surrogate is None:
            metric = not (state.knows_metric or self._cornered)
            return Request(
                state.point[None], RowSelection.SAMPLE, metric=metric, use_float64=state.use_float64
            )
        steps = self._searcher(state).ask(state.search).points
        points = np.stack([state.surrogate.point(step) for step in steps])
        return Request(points, RowSelection.SAMPLE, use_float64=state.use_float64)

    def tell(self, state: NewtonState, result: Evaluation) -> NewtonState:
        """Judge the trials, make a new model, or go on with the search."""
        if state.trials:
            return self._judge(state, result)
        if state.search is None or state.surrogate is None:
            return self._make_model(state, result)
        return self._search_on(state, state.surrogate, state.search, result)

    def gap(self, state: NewtonState) -> float | None:
        """Return an estimate of how far the objective is above its minimum.

        Half of Newton's decrement squared (Boyd and Vandenberghe, Convex Optimization, 2004,
        section 9.5.1), with the curvature that the search has met; or what the model, whose
        minimum it was, had not foreseen at the point that was gone to, if that is more. None
        before a search has ended, and under a penalty with corners, where it is rarely at the
        minimum of the model.
        """
        return None if np.isnan(state.distance) else state.distance

    def _distance(self, state: NewtonState, after: NewtonState, foreseen: float) -> float:
        """Return that estimate for the state after trials whose first was to be of that value."""
        if self._cornered or not state.pairs:
            return float("nan")
        root, gradient = state.root, after.gradient
        along = (gradient if root is None else product(root, gradient)).ravel()
        decrement = 0.5 * float(along @ two_loop(along, state.pairs))
        return float(np.fmax(decrement, abs(after.value - foreseen)))

    def guess(self, state: NewtonState) -> tuple[Array, float, float] | None:
        """Return the trial that no pass is left to evaluate, if the model kept its word so far.

        Its objective is what the model says, and its gap at most about what it is to gain.
        """
        trials = [trial for trial in state.trials if trial.secant is not None]
        if not trials or not state.ratio >= _POOR:
            return None
        trial = trials[0] if state.ratio >= 2 * _POOR else trials[-1]
        return trial.point, state.value + trial.gain, -trial.gain

    def guess_of_sample(self, state: NewtonState) -> tuple[Array, float] | None:
        """Return the minimum of the sample as it is, and the objective that it has there.

        None if the search for it did not come to its end, or after the first evaluation since.
        """
        if state.rounds or not state.trials or state.trials[0].secant is None:
            return None
        if state.evaluations >= self._limit(state):
            return None
        return state.trials[0].point, state.value + state.trials[0].gain

    def _norm(self, point: Array, gradient: Array) -> float:
        return largest(self.penalty.min_norm_subgradient(point, gradient))

    @property
    def _cornered(self) -> bool:
        return self.penalty.alpha * self.penalty.l1_ratio > 0

    def _cautious(self, state: NewtonState) -> bool:
        """Whether the next pass evaluates a rival."""
        return self.backtrack and (state.thin or state.failed)

    def _searcher(self, state: NewtonState) -> Any:
        noise = min(self.noise, _NOISE_OF_DOUBLE) if state.use_float64 else self.noise
        if self._cornered:
            return FISTA(self.penalty, _ENOUGH, noise)
        return LBFGS(_ENOUGH, noise, self.memory)

    def _limit(self, state: NewtonState) -> int:
        """Return how many evaluations a search may take."""
        # Where many passes were needed, the models themselves are hard to minimise.
        most = _LATER * (1 + state.rounds // _PATIENCE) if state.rounds else _FIRST
        return int(self.effort * (_CORNERED if self._cornered else most))

    def _make_model(self, state: NewtonState, result: Evaluation) -> NewtonState:
        """Take the sample's value and gradient at the centre, and start the search there."""
        if result.root is not None:
            state = replace(state, root=result.root)
        if not state.knows_metric:  # the first, of a warm start too
            thin = result.share < 1 and result.rows < state.point.size
            state = replace(state, damping=_first_damping(result.share), thin=thin)
        gradient = result.gradient[0]
        # From far, the minimum of the sample as it is lies nearer than that of the corrected one.
        correction = state.gradient - gradient if state.rounds else np.zeros_like(gradient)
        surrogate = Surrogate(
            state.point,
            float(result.value[0]),
            gradient,
            correction,
            state.root,
            state.damping,
            low_rank_from(state.secants, gradient.size) if state.secants else None,
            self._cornered,
        )
        if self._cornered:
            search = self._searcher(state).start(
                surrogate.origin, surrogate.at_origin, surrogate.origin
            )
        else:
            pairs = surrogate.bent(state.pairs)
            search = self._searcher(state).start(
                surrogate.origin, surrogate.at_origin, surrogate.origin, pairs
            )
        state = replace(
            state, surrogate=surrogate, knows_metric=True, search=search, evaluations=0, early=None
        )
        return state if search.status is Status.RUNNING else self._propose(state, surrogate, search)

    def _search_on(
        self, state: NewtonState, surrogate: Surrogate, search: Search, result: Evaluation
    ) -> NewtonState:
        searcher = self._searcher(state)
        search = searcher.tell(search, surrogate.evaluation(searcher.ask(search).points, result))
        state = replace(state, search=search, evaluations=state.evaluations + 1)
        limit = self._limit(state)
        if self._cautious(state) and state.early is None and state.evaluations >= limit // 4:
            state = replace(state, early=self._trial(surrogate, search))
        if search.status is Status.RUNNING and state.evaluations < limit:
            return state
        return self._propose(state, surrogate, search)

    def _trial(self, surrogate: Surrogate, search: Search) -> Trial | None:
        """Return where the search is, if it has got anywhere."""
        way = search.point - surrogate.origin
        gain = search.value - surrogate.value - self.penalty.l1_value(surrogate.centre)
        if not gain < 0 or not np.any(way):
            return None
        change = surrogate.sample_change(search.point, search.gradient)
        return Trial(surrogate.point(search.point), gain, Secant(way.ravel(), change.ravel()))

    def _propose(self, state: NewtonState, surrogate: Surrogate, search: Search) -> NewtonState:
        """End the search, and have its points evaluated on all rows."""
        best = self._trial(surrogate, search)
        pairs = surrogate.bent(search.pairs, -1.0) if isinstance(search, LBFGSState) else ()
        use_float64 = state.use_float64 or (self.alone and search.status is Status.PRECISION)
        state = replace(state, search=None, pairs=pairs, use_float64=use_float64)
        if best is None and state.rounds == 0:  # the sample alone has nothing to say
            return replace(state, surrogate=None, rounds=1)
        if best is None:
            return replace(state, status=Status.PRECISION)
        if not self._cautious(state):
            return replace(state, trials=(best,), early=None)
        early = state.early
        if early is None or np.array_equal(early.point, best.point):
            half = 0.5 * (state.point + best.point)
            early = Trial(half, 0.75 * best.gain, None)
        return replace(state, trials=(best, early), early=None)

    def _judge(self, state: NewtonState, result: Evaluation) -> NewtonState:
        """Go to the better of the trials, and learn from both how far to trust the model."""
        trials = state.trials
        penalties = [self.penalty.l1_value(trial.point) for trial in trials]
        values = np.where(np.isfinite(result.value), result.value + penalties, np.inf)
        best = int(np.argmin(values))
        after = self._learned(state, values, result)
        norm = self._norm(trials[best].point, result.gradient[best])
        noise = self.noise * abs(state.value)
        lower = values[best] < state.value - noise
        flatter = norm < min(state.least_norm, state.gradient_norm)
        if lower or (flatter and values[best] <= state.value + noise):
            after = replace(
                after,
                point=trials[best].point,
                value=float(values[best]),
                gradient_norm=norm,
                gradient=result.gradient[best],
            )
        # The model took the first trial for its minimum.
        foreseen = state.value + trials[0].gain if trials[0].secant is not None else np.nan
        after = replace(after, distance=self._distance(state, after, foreseen))
        n_no_progress = 0 if lower or flatter else state.n_no_progress + 1
        after = replace(after, n_no_progress=n_no_progress, least_norm=min(norm, state.least_norm))
        if after.gradient_norm <= after.target:
            return replace(after, status=Status.CONVERGED)
        return replace(after, status=Status.PRECISION) if n_no_progress >= _MOST_IDLE else after

    def _learned(self, state: NewtonState, values: Array, result: Evaluation) -> NewtonState:
        """Return the state after the trials, whose centre is still the old one."""
        after = replace(state, trials=(), rounds=state.rounds + 1, surrogate=None)
        if state.trials[0].secant is not None:
            ratio = float((values[0] - state.value) / state.trials[0].gain)
            failed = state.failed or not ratio >= _POOR
            damping = _damping(state.damping, ratio, 2 if failed else 10)
            after = replace(after, ratio=ratio, damping=damping, failed=failed)
        if result.resampled:
            return replace(after, secants=())
        secants = (*state.secants, *_secants(state, values, result))
        most = min(max(_SECANT_BYTES // (16 * state.point.size), 2), _MOST_SECANTS)
        return replace(after, secants=secants[-most:])


def _secants(state: NewtonState, values: Array, result: Evaluation) -> Iterator[Secant]:
    """Yield what the trials tell of all rows beyond the sample, the best of them last."""
    for index in np.argsort(-values):
        secant = state.trials[index].secant
        if secant is not None and state.surrogate is not None and np.isfinite(values[index]):
            change = state.surrogate.stretched(result.gradient[index] - state.gradient)
            yield Secant(secant.step, change.ravel() - secant.change)


def _first_damping(share: float) -> float:
    """Return the damping of the first model, whose sample is a share of the rows.

    The error of what a sample tells has the factor (1 - share)^(1/2) (Cochran, Sampling
    techniques, 1977, section 2.6): a sample of all rows needs no damping.
    """
    return max(_DAMPING * math.sqrt(1 - share), _LEAST_DAMPING)


def _damping(damping: float, ratio: float, factor: float) -> float:
    """Return the damping after a step that gained `ratio` times what the model had said."""
    if not ratio >= _POOR:
        return 4 * damping
    return max(damping / factor, _LEAST_DAMPING) if ratio > _GOOD else damping
