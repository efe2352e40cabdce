"""Claims: the rule is written before the run, and it can say no.

A claim is of one of three kinds, which no summary adds up:

    theorem      a proved statement, checked on real networks with its conditions measured and its tightness
                 shown; it fails only by a bug or a broken assumption
    prediction   a number from a formula against a measurement that does not contain it
    finding      what the paper observed: it replicates or it does not

and a run gives it one of five words:

    holds           every rule is met
    fails           one is not
    undecided       an interval lies across its edge, or a check (mixing, convergence, number of seeds) failed
    out of regime   a condition of the theorem is not met, so it promises nothing here
    reported        the paper asserts nothing; the values are shown

A *vacuous* bound holds, but says less than a trivial one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.protocol.rules import Evidence, Rule

KINDS = ("theorem", "prediction", "finding")
WORDS = ("holds", "fails", "undecided", "out of regime", "reported")


@dataclass(frozen=True)
class World:
    """Circumstances in which a claim must come out otherwise: it has been seen to fail in earnest.

    Attributes:
        says: what is different, in a few words: "labels drawn anew".
        changes: setting -> value, of the claim's own experiment.
        faults: "module:name" -> what takes its place, made from the original: a fault planted in the code
            that measures, under the name by which the experiment finds it.
        word: the verdict there.
    """

    says: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    faults: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    word: str = "fails"


@dataclass(frozen=True)
class Claim:
    """One result of a paper, as something that a run can confirm or refute.

    Attributes:
        id: its id on the claim sheet, such as "J3".
        kind: one of KINDS.
        statement: the result in one sentence, in its right form; it says no more than its rules.
        source: where it stands: paper and equation.
        rules: one rule a part.
        measure: Run -> one Evidence a rule. It looks at settings, prediction and frames alone.
        expected: the verdict that an honest run at the quick preset gives.
        says: verdict word -> the sentence printed beside it; constant text, so that notebooks compare equal.
        worlds: where it comes out otherwise; a prediction or a finding has at least one.
        because: why another verdict than *holds* is expected.
    """

    id: str
    kind: str
    statement: str
    source: str
    rules: tuple[Rule, ...]
    measure: Callable[[Any], Evidence | tuple[Evidence, ...]]
    expected: str = "holds"
    says: Mapping[str, str] = field(default_factory=dict)
    worlds: tuple[World, ...] = ()
    because: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r} ({self.id})")
        if self.expected not in WORDS:
            raise ValueError(f"expected must be one of {', '.join(WORDS)}; got {self.expected!r} ({self.id})")

    @property
    def rule(self) -> str:
        return "; ".join(str(rule) for rule in self.rules)

    def to_dict(self) -> dict[str, Any]:
        """The static fields: what is known before any run."""
        return {
            "id": self.id, "kind": self.kind, "statement": self.statement, "source": self.source,
            "rule": self.rule, "expected": self.expected, "because": self.because,
            "quantities": [
                {"name": rule.quantity, "groups": list(rule.groups), "unit": rule.unit, "edge": rule.edge,
                 "decided": rule.how}
                for rule in self.rules
            ],
            "fails_in": [world.says for world in self.worlds],
        }  # fmt: skip
