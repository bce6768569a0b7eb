"""One event of each kind, as a fit and a search report them."""

from __future__ import annotations

from dsoftmax.events import (
    CandidatesJudged,
    CheckpointWritten,
    ChunkQuarantined,
    FitEnded,
    FitResumed,
    FitStarted,
    PassEnded,
    RowsDone,
    StepEnded,
    TimeSplit,
    ValidationScores,
)

SECRET = "https://user:password@store/data.zarr"
SPLIT = TimeSplit(1.0, 2.0, 5.0, 2.0)
STARTED = FitStarted(1000, 64, 10, 16, 64_000, "lbfgs", 20, 2, "http://127.0.0.1:8787/status")
SCORES = ValidationScores(0.75, 0.7, 0.69, 0.68, 0.3, 0.05)
PASS = PassEnded(1.0, 1, 0.7, 0.1, 0.8, 6.0, 1000, 64_000, SPLIT, 3, 5.0, SCORES)
STEP = StepEnded(0.5, 1, 0.7, 0.1, 0.8, 1.0, 500, 32_000, SPLIT, 0)
JUDGED = CandidatesJudged(
    (10.0, 0.1),
    (0.0, 0.5),
    (0.75, float("nan")),
    (0.1, float("nan")),
    (0.7, 0.2),
    (2, 3),
    (False, True),
    0,
)
ENDED_EVENT = FitEnded("converged", True, 0.6, 1, 1, 7.0, 3, SPLIT)
ALL = (
    STARTED,
    FitResumed(SECRET, 1, 1, 6.0, (STEP, PASS), False),
    RowsDone(1, 2),
    STEP,
    JUDGED,
    PASS,
    CheckpointWritten(SECRET, 10, 0.1),
    ChunkQuarantined(0, 10, f"{SECRET}: rows 0 to 9"),
    ENDED_EVENT,
)
