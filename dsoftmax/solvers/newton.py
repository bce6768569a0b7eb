"""Newton's method with the curvature of a sample: few passes, each followed by work in memory.

The *surrogate* of the objective is that of a sample of the rows, corrected so that its gradient at
the current point is the full one (Shamir, Srebro and Zhang, Communication-efficient distributed
optimization using an approximate Newton-type method, 2014). It is damped by a multiple of the
squared distance, which grows when the surrogate promised too much (Marquardt, 1963). Its minimum is
sought in memory: by L-BFGS in coordinates in which the sample's features are uncorrelated, or by
FISTA under an L1 penalty. A pass then evaluates that minimum; where the surrogate is not trusted,
also a shorter step: the point after a quarter of the search. The same pass picks another sample,
of rows that matter at the new point. A surrogate on the sample of an earlier pass is corrected by
what passes have found since about the difference of the two curvatures.
"""

from __future__ import annotations

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
from dsoftmax.solvers.trust_region import after_trials, before_trials, trusted_trial
from dsoftmax.typing import Array

SearchState = LBFGSState | FISTAState

_FIRST, _LATER, _NONSMOOTH = 60, 40, 120  # evaluations of the surrogate in one search
_PATIENCE = 8  # passes after which a search may take as many evaluations more
_ENOUGH = 0.01  # of the surrogate's first gradient may be left
_NOISE_OF_DOUBLE = 0.5 * float(np.finfo(np.float64).eps)
_MOST_IDLE = 5
# Stacked models pick another sample after these passes: the first surrogates are poor.
_RESAMPLE_AFTER = (0, 2)


@dataclass(frozen=True)
class Newton(Solver[NewtonState]):
    """Newton's method on the surrogate that a sample makes; full passes.

    Parameters
    ----------
    penalty : ElasticNet
    tol : stop at largest projected gradient entry <= tol * its value at the intercept-only model
    noise : relative rounding error of a value of the objective
    backtrack : whether a pass evaluates a shorter step too, where the surrogate is not trusted
    memory : of the search, as for L-BFGS
    effort : evaluations that a search in memory may take, relative to what is best for one model;
        a stack of models gains more from a pass, and less from a search
    single_model : whether the sample serves this model alone: then each pass picks another, and
        searches that ended at rounding error go on in float64
    """

    penalty: ElasticNet
    tol: float
    noise: float
    backtrack: bool = True
    memory: int | None = None
    effort: float = 1.0
    single_model: bool = True

    name: ClassVar[str] = "newton"
    needs_sample: ClassVar[bool] = True

    @classmethod
    def from_params(cls, params: SolverParams) -> Newton:
        """Return the solver for the parameters of a fit."""
        return cls(params.penalty, params.tol, params.noise)

    def start(
        self, point: Array, at_intercept_only: Evaluation, intercept_only: Array
    ) -> NewtonState:
        """Return the first state; the intercept-only point needs no evaluation."""
        value, gradient = float(at_intercept_only.value[0]), at_intercept_only.gradient[0]
        norm = self._norm(intercept_only, gradient)
        status = Status.CONVERGED if norm == 0 else Status.RUNNING
        state = NewtonState(intercept_only, value, norm, status, self.tol * norm, gradient)
        if np.array_equal(point, intercept_only):
            return state
        return replace(state, trials=(Trial(point, 0.0, None),), gain_ratio=np.nan)

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
            n_passes=max(1, state.n_passes),
            use_float64=False,
            n_no_progress=0,
            least_norm=np.inf,
        )
        return replace(after, distance=self._distance(state, after, np.nan))

    def ask(self, state: NewtonState) -> Request:
        """Return the trials, the centre of a new surrogate, or the next point of the search."""
        if state.trials:
            points = np.stack([trial.point for trial in state.trials])
            renews = self.single_model or state.n_passes in _RESAMPLE_AFTER
            resample_at = state.point if renews and state.trials[0].secant is not None else None
            return Request(
                points, RowSelection.ALL, resample_at=resample_at, root=state.root, take_best=True
            )
        if state.search is None or state.surrogate is None:
            metric = not (state.knows_metric or self._nonsmooth)
            return Request(
                state.point[None], RowSelection.SAMPLE, metric=metric, use_float64=state.use_float64
            )
        steps = self._searcher(state).ask(state.search).points
        points = np.stack([state.surrogate.point(step) for step in steps])
        return Request(points, RowSelection.SAMPLE, use_float64=state.use_float64)

    def tell(self, state: NewtonState, result: Evaluation) -> NewtonState:
        """Compare the trials, make a new surrogate, or go on with the search."""
        if state.trials:
            return self._compare_trials(state, result)
        if state.search is None or state.surrogate is None:
            return self._make_surrogate(state, result)
        return self._search_on(state, state.surrogate, state.search, result)

    def gap(self, state: NewtonState) -> float | None:
        """Return an estimate of how far the objective is above its minimum.

        Half of Newton's decrement squared (Boyd and Vandenberghe, Convex Optimization, 2004,
        section 9.5.1), with the curvature found by the search; or the error of the surrogate's
        prediction at the new point, if that is larger. None before a search has ended, and under
        an L1 penalty, where searches rarely reach the minimum of the surrogate.
        """
        return None if np.isnan(state.distance) else state.distance

    def _distance(self, state: NewtonState, after: NewtonState, foreseen: float) -> float:
        """Return that estimate after trials, for the value that the surrogate predicted."""
        if self._nonsmooth or not state.pairs:
            return float("nan")
        root, gradient = state.root, after.gradient
        along = (gradient if root is None else product(root, gradient)).ravel()
        decrement = 0.5 * float(along @ two_loop(along, state.pairs))
        return float(np.fmax(decrement, abs(after.value - foreseen)))

    def guess(self, state: NewtonState) -> tuple[Array, float, float] | None:
        """Return the trial that no pass is left to evaluate, if the surrogate was right so far.

        Its objective is the surrogate's prediction, and its gap about the gain that it predicts.
        """
        trial = trusted_trial(state)
        if trial is None:
            return None
        value, (l2_value, _) = state.value + trial.gain, self.penalty.l2_value_gradient(trial.point)
        if value < l2_value + self.penalty.l1_value(trial.point):  # which no objective can be
            return None
        return trial.point, value, -trial.gain

    def guess_of_sample(self, state: NewtonState) -> tuple[Array, float] | None:
        """Return the minimum of the sample's own objective, and its value there.

        None if the search for it has not ended, or once it was evaluated on all rows.
        """
        if state.n_passes or not state.trials or state.trials[0].secant is None:
            return None
        if state.search_evaluations >= self._limit(state):
            return None
        return state.trials[0].point, state.value + state.trials[0].gain

    def _norm(self, point: Array, gradient: Array) -> float:
        return largest(self.penalty.min_norm_subgradient(point, gradient))

    @property
    def _nonsmooth(self) -> bool:
        return self.penalty.alpha * self.penalty.l1_ratio > 0

    def _cautious(self, state: NewtonState) -> bool:
        """Whether the next pass evaluates a shorter step, too."""
        return self.backtrack and (state.underdetermined or state.failed)

    def _searcher(self, state: NewtonState) -> Any:
        noise = min(self.noise, _NOISE_OF_DOUBLE) if state.use_float64 else self.noise
        if self._nonsmooth:
            return FISTA(self.penalty, _ENOUGH, noise)
        return LBFGS(_ENOUGH, noise, self.memory)

    def _limit(self, state: NewtonState) -> int:
        """Return how many evaluations a search may take."""
        # Where many passes were needed, the surrogates are hard to minimise, too.
        most = _LATER * (1 + state.n_passes // _PATIENCE) if state.n_passes else _FIRST
        return int(self.effort * (_NONSMOOTH if self._nonsmooth else most))

    def _make_surrogate(self, state: NewtonState, result: Evaluation) -> NewtonState:
        """Make the surrogate from what the sample says at the centre, and start the search."""
        if result.root is not None:
            state = replace(state, root=result.root)
        if not state.knows_metric:  # the first, of a warm start too
            state = before_trials(state, result)
        gradient = result.gradient[0]
        # From afar, the minimum of the sample alone is nearer than that of the corrected surrogate.
        correction = state.gradient - gradient if state.n_passes else np.zeros_like(gradient)
        surrogate = Surrogate(
            state.point,
            float(result.value[0]),
            gradient,
            correction,
            state.root,
            state.damping,
            low_rank_from(state.secants, gradient.size) if state.secants else None,
            self._nonsmooth,
        )
        pairs = () if self._nonsmooth else (surrogate.with_curvature(state.pairs),)
        search = self._searcher(state).start(
            surrogate.origin, surrogate.at_origin, surrogate.origin, *pairs
        )
        state = replace(
            state,
            surrogate=surrogate,
            knows_metric=True,
            search=search,
            search_evaluations=0,
            early_point=None,
        )
        return state if search.status is Status.RUNNING else self._propose(state, surrogate, search)

    def _search_on(
        self, state: NewtonState, surrogate: Surrogate, search: SearchState, result: Evaluation
    ) -> NewtonState:
        searcher = self._searcher(state)
        search = searcher.tell(search, surrogate.evaluation(searcher.ask(search).points, result))
        state = replace(state, search=search, search_evaluations=state.search_evaluations + 1)
        limit = self._limit(state)
        if (
            self._cautious(state)
            and state.early_point is None
            and state.search_evaluations >= limit // 4
        ):
            state = replace(state, early_point=self._trial(surrogate, search))
        if search.status is Status.RUNNING and state.search_evaluations < limit:
            return state
        return self._propose(state, surrogate, search)

    def _trial(self, surrogate: Surrogate, search: SearchState) -> Trial | None:
        """Return the current point of the search, if it lowered the surrogate."""
        displacement = search.point - surrogate.origin
        gain = search.value - surrogate.value - self.penalty.l1_value(surrogate.centre)
        if not gain < 0 or not np.any(displacement):
            return None
        change = surrogate.sample_change(search.point, search.gradient)
        return Trial(
            surrogate.point(search.point), gain, Secant(displacement.ravel(), change.ravel())
        )

    def _propose(
        self, state: NewtonState, surrogate: Surrogate, search: SearchState
    ) -> NewtonState:
        """End the search, and propose its points for evaluation on all rows."""
        best = self._trial(surrogate, search)
        pairs = (
            surrogate.with_curvature(search.pairs, -1.0) if isinstance(search, LBFGSState) else ()
        )
        at_rest = search.status in (Status.PRECISION, Status.IMPRECISE)
        use_float64 = state.use_float64 or (self.single_model and at_rest)
        state = replace(state, search=None, pairs=pairs, use_float64=use_float64)
        if best is None and state.n_passes == 0:  # the sample alone finds no better point
            return replace(state, surrogate=None, n_passes=1)
        if best is None:
            return replace(state, status=state.at_rest(self.noise))
        if not self._cautious(state):
            return replace(state, trials=(best,), early_point=None)
        early_point = state.early_point
        if early_point is None or np.array_equal(early_point.point, best.point):
            half = 0.5 * (state.point + best.point)
            early_point = Trial(half, 0.75 * best.gain, None)
        return replace(state, trials=(best, early_point), early_point=None)

    def _compare_trials(self, state: NewtonState, result: Evaluation) -> NewtonState:
        """Move to the better trial, and learn from both how far to trust the surrogate."""
        trials = state.trials
        penalties = [self.penalty.l1_value(trial.point) for trial in trials]
        values = np.where(np.isfinite(result.value), result.value + penalties, np.inf)
        best = int(np.argmin(values))
        after = after_trials(state, values, result)
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
        # The first trial was the minimum of the surrogate.
        foreseen = state.value + trials[0].gain if trials[0].secant is not None else np.nan
        after = replace(after, distance=self._distance(state, after, foreseen))
        idle = 0 if lower or flatter else state.n_no_progress + 1
        after = replace(after, n_no_progress=idle, least_norm=min(norm, state.least_norm))
        if after.gradient_norm <= after.target:
            return replace(after, status=Status.CONVERGED)
        return after if idle < _MOST_IDLE else replace(after, status=after.at_rest(self.noise))
