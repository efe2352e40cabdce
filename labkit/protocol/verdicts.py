"""What a run says of claims: the word with every number named, as constant lines, as a table, as JSON."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.protocol.claims import KINDS, WORDS, Claim
from labkit.protocol.replication import Replication
from labkit.protocol.rules import Rule


@dataclass(frozen=True)
class Part:
    """One rule of a claim after a run: the named number, what was predicted for it, and the word.

    Attributes:
        rule: the rule that decided.
        word: what it says, by itself.
        predicted, measured, spread: one number an entry of `labels`: means over seeds, and the standard
            deviation over seeds; predicted is empty where the rule needs no prediction.
        labels: a name for each entry; "" where there is a single one.
        seeds: how many.
        tightness: a bound over what it bounds, at its tightest entry; None for other rules.
        distance: from the place where the word changes, in standard deviations between blocks of seeds
            (of one seed where every seed decides, of the mean where the interval does); inf without spread.
        reason: why, where the word is not *holds*.
        note: more for the person.
    """

    rule: Rule
    word: str
    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    spread: tuple[float, ...]
    labels: tuple[str, ...]
    seeds: int
    tightness: float | None
    distance: float
    reason: str
    note: str

    def numbers(self) -> str:
        """ "predicted 90, measured 90 ± 0.2 (8 seeds)", an entry after the other."""
        entries = []
        for index, value in enumerate(self.measured):
            label = f"{self.labels[index]}: " if self.labels[index] else ""
            wide = f" ± {self.spread[index]:.1g}" if self.spread[index] else ""
            bound = "bound" if self.tightness is not None else "predicted"
            expected = f"{bound} {self.predicted[index]:.3g}, " if self.predicted else ""
            entries.append(f"{label}{expected}measured {value:.3g}{wide}")
        unit = f" {self.rule.unit}" if self.rule.unit else ""
        tight = f", bound/measured ≥ {self.tightness:.3g}" if self.tightness is not None else ""
        seeds = f" ({self.seeds} seed{'s' if self.seeds > 1 else ''})" if self.seeds else ""
        return "; ".join(entries) + unit + tight + seeds if entries else ""

    def __str__(self) -> str:
        told = self.numbers()
        edge = self.rule.told if self.rule.reports else f"holds if {self.rule.told}"
        return f"{self.rule.quantity}: {told or 'not measured'}; {edge}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.rule.quantity, "unit": self.rule.unit, "labels": list(self.labels),
            "predicted": list(self.predicted), "measured": list(self.measured), "spread": list(self.spread),
            "seeds": self.seeds, "edge": self.rule.edge, "decided": self.rule.how, "verdict": self.word,
            "tightness": self.tightness, "distance": self.distance, "reason": self.reason, "note": self.note,
        }  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What a run says of a claim.

    Attributes:
        claim: what was asked.
        word: one of WORDS.
        vacuous: a bound that holds and says less than a trivial one.
        parts: one a rule, with its numbers.
        reason: why the word is not *holds*, with what would help.
        replication: how often each word came out over blocks of seeds; None where these settings were not
            replicated.
        experiment, settings: of the run.
    """

    claim: Claim
    word: str
    vacuous: bool
    parts: tuple[Part, ...]
    reason: str = ""
    replication: Replication | None = None
    experiment: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.claim.id

    @property
    def expected(self) -> bool:
        """Did the word come out that the claim expects?"""
        return self.word == self.claim.expected

    @property
    def distance(self) -> float:
        """Of the part nearest to another word."""
        return min((part.distance for part in self.parts), default=float("inf"))

    @property
    def sentence(self) -> str:
        """One constant sentence for this word."""
        return self.claim.says.get(self.word) or _SENTENCES.get(self.word) or self.claim.statement

    @property
    def shown(self) -> str:
        """The word with what it needs: "holds (vacuous)", "fails (holds expected)"."""
        remarks = ["vacuous"] if self.vacuous else []
        remarks += [] if self.expected else [f"{self.claim.expected} expected"]
        return self.word + (f" ({', '.join(remarks)})" if remarks else "")

    @property
    def line(self) -> str:
        """Constant text: no number that could differ between machines."""
        return f"{self.id} {self.shown}: {self.sentence}"

    @property
    def notes(self) -> str:
        """The reason and what else the parts have to say."""
        said = [self.reason, *(part.note for part in self.parts)]
        return "; ".join(dict.fromkeys(text for text in said if text))

    def to_dict(self) -> dict[str, Any]:
        return self.claim.to_dict() | {
            "verdict": self.word, "vacuous": self.vacuous, "as_expected": self.expected,
            "quantities": [part.to_dict() for part in self.parts], "distance": self.distance,
            "reason": self.reason, "experiment": self.experiment, "settings": dict(self.settings),
            "replication": self.replication.to_dict() if self.replication else None,
        }  # fmt: skip

    def __str__(self) -> str:
        return self.line


_SENTENCES = {
    "undecided": "this run does not tell; the reason stands with the numbers",
    "out of regime": "a condition of the theorem is not met, so it promises nothing here",
    "fails": "this run says otherwise",
}


class Verdicts(tuple[Verdict, ...]):
    """Several verdicts: one constant line each as text, a table with the numbers as HTML."""

    def __str__(self) -> str:
        return "\n".join(verdict.line for verdict in self)

    __repr__ = __str__

    @property
    def summary(self) -> str:
        return summary(self)

    def _repr_html_(self) -> str:
        head = ("claim", "quantity", "predicted", "measured", "holds if", "verdict", "replication")
        rows = "".join(_rows(verdict) for verdict in self)
        cells = "".join(f"<th style='text-align:left'>{name}</th>" for name in head)
        return f"<table class='labkit-verdicts'><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table>"


def summary(verdicts: Iterable[Verdict]) -> str:
    """The kinds apart, and the vacuous apart from the rest.

    Args:
        verdicts: of any claims.

    Returns:
        One sentence, as `summarize` writes it.
    """
    return summarize((verdict.claim.kind, verdict.word, verdict.vacuous) for verdict in verdicts)


def summarize(outcomes: Iterable[tuple[str, str, bool]]) -> str:
    """Outcomes (kind, word, vacuous) as one sentence.

    >>> summarize([("theorem", "holds", True), ("finding", "fails", False)])
    '1 theorem checked, vacuous; 1 finding: 1 does not replicate'

    Args:
        outcomes: kind, word, and whether the bound was vacuous, one a claim.

    Returns:
        The sentence; no sum over kinds.
    """
    every, told = list(outcomes), []
    for kind in KINDS:
        own = [(word, vacuous) for k, word, vacuous in every if k == kind]
        if own:
            told.append(_SUMMARIES[kind](own))
    return "; ".join(told) or "no claims"


def _of_theorems(own: list[tuple[str, bool]]) -> str:
    vacuous = sum(vacuous for _, vacuous in own)
    others = _counted([word for word, _ in own if word != "holds"], {"fails": "fail"})
    told = f"{_many(len(own), 'theorem')} checked"
    if vacuous:
        told += ", vacuous" if len(own) == 1 else f", {vacuous} of them vacuous"
    return told + (f", {others}" if others else "")


def _of_predictions(own: list[tuple[str, bool]]) -> str:
    found = _counted([word for word, _ in own], {"holds": "hold", "fails": "fail"})
    return f"{_many(len(own), 'prediction')}: {found}"


def _of_findings(own: list[tuple[str, bool]]) -> str:
    many = {"holds": "replicate", "fails": "do not replicate"}
    one = {"holds": "replicates", "fails": "does not replicate"}
    return f"{_many(len(own), 'finding')}: {_counted([word for word, _ in own], many, one)}"


_SUMMARIES = {"theorem": _of_theorems, "prediction": _of_predictions, "finding": _of_findings}


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _counted(words: list[str], many: Mapping[str, str], one: Mapping[str, str] | None = None) -> str:
    found = [(words.count(word), word) for word in WORDS if word in words]
    single = one or {}
    return ", ".join(
        f"{count} {single.get(word, word) if count == 1 else many.get(word, word)}" for count, word in found
    )


def _rows(verdict: Verdict) -> str:
    """A row a part; claim, word and replication stand beside the first."""
    height = max(len(verdict.parts), 1)
    claim = f"<b>{html.escape(verdict.id)}</b><br><small>{verdict.claim.kind}</small>"
    replicated = html.escape(str(verdict.replication or "not replicated"))
    reason = f"<br><small>{html.escape(verdict.reason)}</small>" if verdict.reason else ""
    span = f" rowspan='{height}'"
    rows = []
    for index, part in enumerate(verdict.parts):
        cells = [_cell(claim, span)] if index == 0 else []
        note = f"<br><small>{html.escape(part.note)}</small>" if part.note else ""
        cells += [_cell(text) for text in (
            html.escape(part.rule.quantity + (f" ({part.rule.unit})" if part.rule.unit else "")) + note,
            entries(part, part.predicted), entries(part, part.measured, part.spread) + _tightness(part),
            f"<small>{html.escape(part.rule.told)}</small>",
        )]  # fmt: skip
        if index == 0:
            cells += [_cell(f"<b>{html.escape(verdict.shown)}</b>{reason}", span), _cell(replicated, span)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return "".join(rows)


def entries(part: Part, values: tuple[float, ...], spreads: tuple[float, ...] = ()) -> str:
    """The numbers of a part as HTML, an entry a line.

    Args:
        part: of a verdict, whose names and unit are used.
        values: one an entry.
        spreads: standard deviations to print behind them.

    Returns:
        HTML.
    """
    lines = []
    for index, value in enumerate(values):
        label = f"{html.escape(part.labels[index])}: " if part.labels[index] else ""
        wide = f" ± {spreads[index]:.1g}" if spreads and spreads[index] else ""
        lines.append(f"{label}{value:.3g}{wide}")
    return "<br>".join(lines) or "–"


def _tightness(part: Part) -> str:
    return f"<br><small>bound/measured ≥ {part.tightness:.3g}</small>" if part.tightness is not None else ""


def _cell(text: str, extra: str = "") -> str:
    return f"<td{extra} style='text-align:left;vertical-align:top'>{text}</td>"
