"""Claims and their verdicts: the rule is written before the run, and it can say no.

A claim names what is measured and which rules decide. Judging it gives one of five words:

    holds           the rule is met: in every seed for an exact rule,
                    by the interval over seeds for the others
    fails           it is not
    undecided       the interval straddles the edge, or a check (mixing, convergence, number of seeds) failed
    out of regime   a condition of the theorem is not met, so it promises nothing here
    reported        there is no promise to test; the values are shown

A *vacuous* bound holds, but says less than a trivial one.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from labkit.experiment import Run
from labkit.rules import Check, Evidence, Rule
from labkit.stats import interval, spread

WORDS = ("holds", "fails", "undecided", "out of regime", "reported")
# A claim with several parts is as good as its worst part.
_SEVERITY = ("fails", "undecided", "out of regime", "holds", "reported")


@dataclass(frozen=True)
class Claim:
    """One result of a paper, as something that a run can confirm or refute.

    Attributes:
        id: its id on the claim sheet, such as "J3".
        statement: the result in one sentence, in its right form.
        source: where it stands: paper and equation.
        rules: one rule a part.
        measure: Run -> one Evidence a rule. It looks at settings, prediction and frames alone.
        expected: the verdict that an honest run at the quick preset gives.
        says: verdict word -> the sentence printed beside it; constant text, so that notebooks compare equal.
    """

    id: str
    statement: str
    source: str
    rules: tuple[Rule, ...]
    measure: Callable[[Run], Evidence | tuple[Evidence, ...]]
    expected: str
    says: Mapping[str, str] = field(default_factory=dict)

    @property
    def rule(self) -> str:
        return "; ".join(str(rule) for rule in self.rules)

    def to_dict(self) -> dict[str, Any]:
        """The static fields: what is known before any run."""
        return {
            "id": self.id, "statement": self.statement, "source": self.source, "rule": self.rule,
            "expected": self.expected,
        }  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What a run says of a claim.

    Attributes:
        word: one of WORDS.
        vacuous: a bound that holds and says less than a trivial one.
        predicted, measured: one number (or None) a part, averaged over seeds.
        spread: the standard deviation over seeds of each part's measurement.
        distance: how many such spreads the nearest part stands from its edge (inf: no spread at all).
        note: the reason, with numbers.
        sentence: one constant sentence.
    """

    id: str
    statement: str
    source: str
    rule: str
    word: str
    vacuous: bool
    expected: str
    predicted: tuple[float | None, ...]
    measured: tuple[float | None, ...]
    spread: tuple[float | None, ...]
    distance: float
    note: str
    sentence: str
    parts: tuple[str, ...]

    @property
    def line(self) -> str:
        """Constant text: no number that could differ between machines."""
        vacuous = " (vacuous)" if self.vacuous else ""
        return f"{self.id} {self.word}{vacuous}: {self.sentence}"

    def to_dict(self) -> dict[str, Any]:
        def plain(values: tuple[float | None, ...]) -> Any:
            return values[0] if len(values) == 1 else list(values)

        return {
            "id": self.id,
            "statement": self.statement,
            "source": self.source,
            "rule": self.rule,
            "verdict": self.word,
            "vacuous": self.vacuous,
            "expected": self.expected,
            "predicted": plain(self.predicted),
            "measured": plain(self.measured),
            "spread": plain(self.spread),
            "note": self.note,
        }

    def __str__(self) -> str:
        return self.line


def judge(claim: Claim, run: Run) -> Verdict:
    """Decides a claim from one run.

    A run that diverged before it measured what the claim looks at leaves the claim undecided.

    Raises:
        KeyError, ValueError, IndexError: the run does not carry yet what the claim looks at (a partial run).
    """
    try:
        found = claim.measure(run)
    except (KeyError, ValueError, IndexError):
        if run.status != "diverged":
            raise
        reason = f"the run diverged before this could be measured: {run.frames[-1].note}".rstrip(": ")
        nothing = Evidence(checks=(Check("what it looks at is missing", 1, 0, reason),))
        found = (nothing,) * len(claim.rules)
    evidence = found if isinstance(found, tuple) else (found,)
    if len(evidence) != len(claim.rules):
        raise ValueError(f"{claim.id}: {len(evidence)} pieces of evidence for {len(claim.rules)} rules")
    decided = [_decide(rule, piece) for rule, piece in zip(claim.rules, evidence, strict=True)]
    words = [word for word, _, _ in decided]
    word = min(words, key=_SEVERITY.index)
    if run.status == "diverged" and word in ("holds", "reported"):
        word = "undecided"
        decided.append((word, "the run diverged", 0.0))
    return Verdict(
        id=claim.id, statement=claim.statement, source=claim.source, rule=claim.rule, word=word,
        vacuous=word == "holds" and any(piece.vacuous for piece in evidence), expected=claim.expected,
        predicted=tuple(_mean(piece.predicted) for piece in evidence),
        measured=tuple(_mean(piece.measured) for piece in evidence),
        spread=tuple(None if piece.measured is None else spread(piece.measured) for piece in evidence),
        distance=min(distance for _, _, distance in decided),
        note="; ".join(note for note in (*(n for _, n, _ in decided), *(p.note for p in evidence)) if note),
        sentence=claim.says.get(word, claim.statement), parts=tuple(words),
    )  # fmt: skip


def _decide(rule: Rule, evidence: Evidence) -> tuple[str, str, float]:
    """Word, reason and distance from the edge (in spreads) of one part."""
    for condition in evidence.conditions:
        if not condition.met:
            return "out of regime", str(condition), np.inf
    for check in evidence.checks:
        if not check.met:
            return "undecided", f"{check}; {check.remedy}", 0.0
    if rule.reports:
        return "reported", "", np.inf
    margins = np.asarray(rule.margins(evidence), dtype=float)
    if np.isnan(margins).any():
        return "undecided", "a measured value is not a number", 0.0
    sd = spread(margins)
    distance = float(abs(margins.mean()) / sd) if sd > 0 else np.inf
    if rule.exact:
        return ("holds" if (margins >= 0).all() else "fails"), "", distance
    if margins.size < 2:
        return "undecided", "one seed has no spread; use at least three", 0.0
    low, high = interval(margins)
    if low > 0:
        return "holds", "", distance
    if high < 0:
        return "fails", "", distance
    return "undecided", f"the interval over {margins.size} seeds straddles the edge; use more seeds", distance


def _mean(values: Any) -> float | None:
    if values is None:
        return None
    values = np.asarray(values, dtype=float)
    return float(values.mean()) if values.size else None


class Verdicts(tuple[Verdict, ...]):
    """Several verdicts: one constant line each as text, a table with the numbers as HTML."""

    def __str__(self) -> str:
        return "\n".join(verdict.line for verdict in self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(
            f"<th>{name}</th>" for name in ("", "verdict", "claim", "predicted", "measured", "rule")
        )
        rows = "".join(_row(verdict) for verdict in self)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def judge_all(run: Run, ids: tuple[str, ...] | None = None) -> Verdicts:
    """Judges the run's claims, or those named."""
    return Verdicts(judge(claim, run) for claim in run.experiment.claims if ids is None or claim.id in ids)


def _row(verdict: Verdict) -> str:
    vacuous = "<br><i>vacuous</i>" if verdict.vacuous else ""
    cells = (
        f"<b>{html.escape(verdict.id)}</b>",
        html.escape(verdict.word) + vacuous,
        f"{html.escape(verdict.statement)}<br><small>{html.escape(verdict.note)}</small>",
        numbers(verdict.predicted),
        numbers(verdict.measured, verdict.spread),
        f"<small>{html.escape(verdict.rule)}</small>",
    )
    return (
        "<tr>"
        + "".join(f"<td style='text-align:left;vertical-align:top'>{cell}</td>" for cell in cells)
        + "</tr>"
    )


def numbers(values: tuple[float | None, ...], spreads: tuple[float | None, ...] = ()) -> str:
    """The numbers of a verdict as a person reads them: "0.398 ± 0.004, 2.1"."""
    texts = []
    for index, value in enumerate(values):
        wide = spreads[index] if index < len(spreads) else None
        texts.append("–" if value is None else f"{value:.3g}" + (f" ± {wide:.1g}" if wide else ""))
    return ", ".join(texts)
