"""The rules that decide claims. Few, shared, named;
each turns evidence into one margin a seed, >= 0 when it is met.

Rules marked *exact* must be met in every seed: one violation of an inequality refutes it. The others are
decided by the interval of the mean margin over seeds. Every rule has a satisfied and a violated example in
`EXAMPLES`, which the tests run and the documentation shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from labkit.stats import rank_correlation


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
        note: numbers for the person.
    """

    measured: Any = None
    predicted: Any = None
    conditions: tuple[Condition, ...] = ()
    checks: tuple[Check, ...] = ()
    vacuous: bool = False
    note: str = ""


class Rule(Protocol):
    """What a rule offers: is it exact, does it only report, and the margin of each seed."""

    reports: ClassVar[bool]

    @property
    def exact(self) -> bool: ...

    def margins(self, evidence: Evidence) -> np.ndarray: ...


@dataclass(frozen=True)
class Equals:
    """|measured - predicted| <= tolerance, relative to |predicted| unless `absolute`."""

    tolerance: float
    absolute: bool = False
    exact: bool = True
    reports: ClassVar[bool] = False

    def margins(self, evidence: Evidence) -> np.ndarray:
        measured, predicted = _pair(evidence)
        scale = 1.0 if self.absolute else np.maximum(np.abs(predicted), np.finfo(float).tiny)
        return _worst(self.tolerance - np.abs(measured - predicted) / scale)

    def __str__(self) -> str:
        return f"equals the prediction within {self.tolerance:g}{'' if self.absolute else ' of it'}"


@dataclass(frozen=True)
class AtMost:
    """measured <= predicted everywhere, up to rounding of relative size `slack`."""

    slack: float = 1e-9
    exact: bool = True
    reports: ClassVar[bool] = False

    def margins(self, evidence: Evidence) -> np.ndarray:
        measured, predicted = _pair(evidence)
        return _worst(predicted + self.slack * np.maximum(np.abs(predicted), np.abs(measured)) - measured)

    def __str__(self) -> str:
        return (
            "at most the prediction, everywhere" if self.exact else "at most the prediction, by the interval"
        )


@dataclass(frozen=True)
class Exponent:
    """The measured slope of logarithms, one a seed, lies in [low, high]."""

    low: float
    high: float
    exact: bool = False
    reports: ClassVar[bool] = False

    def margins(self, evidence: Evidence) -> np.ndarray:
        slopes = np.asarray(evidence.measured, dtype=float)
        return np.minimum(slopes - self.low, self.high - slopes)

    def __str__(self) -> str:
        return f"exponent between {self.low:g} and {self.high:g}"


@dataclass(frozen=True)
class Ordered:
    """Groups along the last axis increase, each by more than `gap`: measured is (S, G)."""

    gap: float = 0.0
    exact: bool = False
    reports: ClassVar[bool] = False

    def margins(self, evidence: Evidence) -> np.ndarray:
        return _worst(np.diff(np.asarray(evidence.measured, dtype=float), axis=-1) - self.gap)

    def __str__(self) -> str:
        return "increasing from group to group" + (f" by more than {self.gap:g}" if self.gap else "")


@dataclass(frozen=True)
class Monotone:
    """Spearman's correlation of the groups with their order, times `direction`, is at least `at_least`."""

    at_least: float = 0.8
    direction: int = 1
    exact: bool = False
    reports: ClassVar[bool] = False

    def margins(self, evidence: Evidence) -> np.ndarray:
        measured = np.atleast_2d(np.asarray(evidence.measured, dtype=float))
        return self.direction * rank_correlation(np.arange(measured.shape[-1]), measured) - self.at_least

    def __str__(self) -> str:
        way = "rises" if self.direction > 0 else "falls"
        return f"{way}: rank correlation at least {self.at_least:g}"


@dataclass(frozen=True)
class Located:
    """A place, such as the index of a gap, is exactly where it was predicted, in every run."""

    exact: bool = True
    reports: ClassVar[bool] = False

    def margins(self, evidence: Evidence) -> np.ndarray:
        measured, predicted = _pair(evidence)
        return _worst(np.where(measured == predicted, 0.0, -1.0))

    def __str__(self) -> str:
        return "exactly at the predicted place"


@dataclass(frozen=True)
class Reported:
    """Nothing is promised: the values are shown as found."""

    exact: bool = True
    reports: ClassVar[bool] = True

    def margins(self, evidence: Evidence) -> np.ndarray:
        return np.zeros(1)

    def __str__(self) -> str:
        return "reported as found"


def _pair(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    measured = np.asarray(evidence.measured, dtype=float)
    return measured, np.broadcast_to(np.asarray(evidence.predicted, dtype=float), measured.shape)


def _worst(margins: np.ndarray) -> np.ndarray:
    """The smallest margin of each seed."""
    margins = np.atleast_1d(margins)
    return margins.reshape(len(margins), -1).min(axis=1)


# rule -> (satisfied, violated)
EXAMPLES: tuple[tuple[Rule, Evidence, Evidence], ...] = (
    (Equals(0.02), Evidence([1.01, 0.99], 1.0), Evidence([1.01, 1.03], 1.0)),
    (AtMost(), Evidence([[0.1, 0.9], [0.2, 0.8]], 1.0), Evidence([[0.1, 0.9], [0.2, 1.1]], 1.0)),
    (Exponent(-1.2, -0.8), Evidence([-1.0, -1.05, -0.98]), Evidence([-0.5, -0.52, -0.49])),
    (Ordered(), Evidence([[1, 2, 3], [1, 2.1, 3.2]]), Evidence([[1, 2, 1.5], [1, 2.1, 1.4], [1, 2, 1.6]])),
    (Monotone(0.8), Evidence([[1, 2, 3, 4], [1, 2, 4, 5]]), Evidence([[4, 3, 2, 1], [4, 3, 1, 2]])),
    (Located(), Evidence([45, 45, 45], 45), Evidence([45, 44, 45], 45)),
)
