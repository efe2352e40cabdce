"""The rules that decide claims: few, shared, written before the run, each with the number it is about.

A rule names a continuous quantity, an effect size or a band for it, and how seeds decide:

    "every seed"    one seed beyond the edge refutes it: inequalities, identities, effects far above spread
    "interval"      the 95 % interval of the mean over five seeds or more lies inside the band (holds), beyond
                    an edge (fails) or across one (undecided): an equivalence where theory gives a number

`Rule.components` turns evidence into margins (S, C): seeds first, one column an edge, each continuous and
>= 0 where the edge is kept. Nothing is ranked, and no worst case over columns goes into an interval.
Every rule has a satisfied and a violated example in `EXAMPLES`, which tests run and documentation shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

By = Literal["every seed", "interval"]
EVERY: By = "every seed"
INTERVAL: By = "interval"
# Student's interval over fewer values follows the luck of two or three numbers.
LEAST_SEEDS = 5


@dataclass(frozen=True)
class Condition:
    """A condition of a theorem, with measured constants: it promises nothing unless left <= right."""

    name: str
    left: float
    right: float

    @property
    def met(self) -> bool:
        return bool(self.left <= self.right)

    def __str__(self) -> str:
        return f"{self.name}: {self.left:.3g} {'≤' if self.met else '>'} {self.right:.3g}"


@dataclass(frozen=True)
class Check(Condition):
    """A check of the measurement itself, such as mixing or convergence, with what to do if it fails."""

    remedy: str = ""


@dataclass(frozen=True)
class Evidence:
    """What was measured for one rule.

    Attributes:
        measured: (S, ...), seeds first.
        predicted: what the theory says, broadcastable to `measured`; None where the rule needs none.
        conditions: the theorem's regime.
        checks: the measurement's own soundness.
        vacuous: the bound, if it holds, says less than a trivial one.
        note: more for the person, where the quantity does not tell all.
    """

    measured: Any = None
    predicted: Any = None
    conditions: tuple[Condition, ...] = ()
    checks: tuple[Check, ...] = ()
    vacuous: bool = False
    note: str = ""


@dataclass(frozen=True)
class Rule:
    """What all rules share.

    Attributes:
        quantity: the name of what is measured, as a person reads it: "exponent of r in H".
        groups: names of the entries along the last axis of `measured`, where each is shown.
        unit: of the quantity, "" for a pure number.
        by: how the seeds decide.
    """

    quantity: str
    groups: tuple[str, ...] = ()
    unit: str = ""
    by: By = EVERY
    reports: ClassVar[bool] = False

    @property
    def edge(self) -> str:
        """The band as a text: "within 2 % of the prediction"."""
        raise NotImplementedError

    def components(self, evidence: Evidence) -> np.ndarray:
        """Margins (S, C), >= 0 where an edge is kept."""
        raise NotImplementedError

    @property
    def how(self) -> str:
        return "in every seed" if self.by == EVERY else "by the 95 % interval over seeds"

    @property
    def told(self) -> str:
        return f"{self.edge}, {self.how}"

    def __str__(self) -> str:
        return f"{self.quantity}: {self.told}"


@dataclass(frozen=True)
class Equals(Rule):
    """|measured - predicted| <= tolerance, relative to |predicted| unless `absolute`."""

    tolerance: float = 0.0
    absolute: bool = False

    def components(self, evidence: Evidence) -> np.ndarray:
        measured, predicted = pair(evidence)
        scale = 1.0 if self.absolute else np.maximum(np.abs(predicted), np.finfo(float).tiny)
        off = (measured - predicted) / scale
        return _columns(self.tolerance - off, self.tolerance + off)

    @property
    def edge(self) -> str:
        if not self.tolerance:
            return "is the prediction, to the bit"
        wide = f"{self.tolerance:g}" if self.absolute else _percent(self.tolerance)
        return f"within {wide} of the prediction"


@dataclass(frozen=True)
class AtMost(Rule):
    """measured <= predicted everywhere, up to rounding of relative size `slack`: a bound."""

    slack: float = 1e-9

    def components(self, evidence: Evidence) -> np.ndarray:
        measured, predicted = pair(evidence)
        # Infinite bounds are kept by everything; inf - inf would be no number.
        with np.errstate(invalid="ignore"):
            margins = predicted + self.slack * np.maximum(np.abs(predicted), np.abs(measured)) - measured
        return _columns(np.where((predicted == np.inf) & np.isfinite(measured), np.inf, margins))

    @property
    def edge(self) -> str:
        return "at most its bound"


@dataclass(frozen=True)
class Between(Rule):
    """The measured value lies in [low, high]: a slope, a ratio, a contrast against a stated effect size."""

    low: float = -np.inf
    high: float = np.inf
    by: By = INTERVAL

    def components(self, evidence: Evidence) -> np.ndarray:
        values = np.asarray(evidence.measured, dtype=float)
        sides = [values - self.low] if np.isfinite(self.low) else []
        sides += [self.high - values] if np.isfinite(self.high) else []
        return _columns(*sides)

    @property
    def edge(self) -> str:
        if not np.isfinite(self.high):
            return f"at least {self.low:g}"
        return (
            f"between {self.low:g} and {self.high:g}" if np.isfinite(self.low) else f"at most {self.high:g}"
        )


@dataclass(frozen=True)
class Located(Rule):
    """A place, such as the index of a gap, is exactly where it was predicted, in every run."""

    def components(self, evidence: Evidence) -> np.ndarray:
        measured, predicted = pair(evidence)
        return _columns(np.where(np.isnan(measured), np.nan, np.where(measured == predicted, 0.0, -1.0)))

    @property
    def edge(self) -> str:
        return "exactly at the predicted place"


@dataclass(frozen=True)
class Reported(Rule):
    """The paper asserts nothing here: the values are shown as found."""

    reports: ClassVar[bool] = True

    def components(self, evidence: Evidence) -> np.ndarray:
        return np.zeros((1, 1))

    @property
    def edge(self) -> str:
        return "reported as found"

    @property
    def how(self) -> str:
        return "not judged"


def pair(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """What was measured, and what was predicted for each of its entries.

    Args:
        evidence: with a prediction.

    Returns:
        Measured (S, ...), and predicted in the same shape.
    """
    measured = np.asarray(evidence.measured, dtype=float)
    return measured, np.broadcast_to(np.asarray(evidence.predicted, dtype=float), measured.shape)


def _columns(*margins: np.ndarray) -> np.ndarray:
    """Margins side by side: each (S, ...) -> (S, C)."""
    return np.concatenate([np.atleast_1d(m).reshape(len(np.atleast_1d(m)), -1) for m in margins], axis=1)


def _percent(share: float) -> str:
    """.02 -> "2 %", and 1e-10 as it is: nobody reads 0.00000001 %."""
    return f"{100 * share:g} %" if share >= 1e-4 else f"{share:g}"


_AROUND_MINUS_ONE = Evidence([-1.0, -1.05, -0.98, -1.01, -0.97])
# rule -> (satisfied, violated)
EXAMPLES: tuple[tuple[Rule, Evidence, Evidence], ...] = (
    (Equals("x", tolerance=0.02), Evidence([1.01, 0.99], 1.0), Evidence([1.01, 1.03], 1.0)),
    (Equals("x", tolerance=0.1, by=INTERVAL), Evidence([1.01, 0.97, 1.0, 1.02, 0.99], 1.0),
     Evidence([1.21, 1.17, 1.2, 1.22, 1.19], 1.0)),
    (AtMost("x"), Evidence([[0.1, 0.9], [0.2, 0.8]], 1.0), Evidence([[0.1, 0.9], [0.2, 1.1]], 1.0)),
    (Between("x", low=-1.2, high=-0.8), _AROUND_MINUS_ONE, Evidence([-0.5, -0.52, -0.49, -0.5, -0.51])),
    (Between("x", low=0.1, by=EVERY), Evidence([0.2, 0.3, 0.15]), Evidence([0.2, 0.3, 0.05])),
    (Located("x"), Evidence([45, 45, 45], 45), Evidence([45, 44, 45], 45)),
)  # fmt: skip
