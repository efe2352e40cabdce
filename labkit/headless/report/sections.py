"""The sections of a report: a row a claim, a figure an experiment, and the links between the two."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from labkit.headless.audit import AuditResult, Failure, plain
from labkit.headless.report.pictures import figure
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Run
from labkit.protocol.verdicts import Part, Verdict, entries, summary

# A sign beside each word, so that nothing is told by colour alone.
SIGNS = {"holds": "✓", "fails": "✗", "undecided": "?", "out of regime": "○", "reported": "•"}
UNRUN = "not decided"


def anchor(result: AuditResult, name: str = "") -> str:
    """The address of a lab, or of a claim or an experiment in it, within the page."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(part for part in (result.lab.name, name) if part))


def link(target: str, text: str) -> str:
    """A link within the page, as HTML."""
    return f'<a href="#{escape(target)}">{escape(text)}</a>'


def surprises(result: AuditResult) -> list[str]:
    """The claims that came out other than expected."""
    return [verdict.id for verdict in result.verdicts if not verdict.expected]


def lost(result: AuditResult) -> list[str]:
    """The claims that an error or an interruption left without a verdict."""
    return [claim.id for failure in result.failures for claim in failure.claims]


def word(text: str) -> str:
    """A verdict word with its sign and colour."""
    sign = f'<span aria-hidden="true">{SIGNS[text]}</span>'
    return f'<span class="word {text.split()[0]}">{sign} {text}</span>'


def links(result: AuditResult, ids: list[str]) -> str:
    """Links to these claims of a lab, as HTML."""
    return ", ".join(link(anchor(result, id), id) for id in ids)


def _summary(result: AuditResult) -> str:
    """A lab in a sentence or two: its claims by kind, and which came out otherwise or not at all."""
    if not result.verdicts and not result.failures:
        return "No claim was selected."
    told = [f"{summary(result.verdicts)}." if result.verdicts else ""]
    if other := surprises(result):
        told.append(f"Other than expected: {links(result, other)}.")
    elif result.verdicts:
        told.append("All as expected.")
    if undone := lost(result):
        reason = "as the run was interrupted" if result.interrupted else "for an error"
        told.append(f"Not decided, {reason}: {links(result, undone)}.")
    return " ".join(filter(None, told))


def lab_section(result: AuditResult, level: int) -> str:
    """All of one lab: facts, verdicts, figures. `level` is that of its heading, 1 when it has the page."""
    lab = result.lab
    facts = (
        f"Lab {lab.number} · {lab.paper} · preset {result.preset} · seed {result.seed} · "
        f"{result.device} · {result.seconds:.0f} s"
    )
    heading = f"<h{level}{' class=new' if level > 1 else ''}>{escape(lab.title)}</h{level}>"
    runs = {run.experiment.name: _run(result, run, level + 1) for run in result.runs}
    named = runs | {f.experiment.name: _failure(result, f, level + 1) for f in result.failures}
    order = [experiment for experiment in lab.experiments if experiment.name in named]
    figures = "".join(f"<li>{link(anchor(result, e.name), e.title)}</li>" for e in order)
    back = f'<p class="small screen">{link("top", "Back to the top")}</p>'
    return f"""<section id="{anchor(result)}" aria-label="{escape(lab.title)}">
{heading}
<p class="facts">{escape(facts)}</p>
<p>{_summary(result)}</p>
<nav class="screen" aria-label="Figures of lab {lab.number}"><ul class="inline">{figures}</ul></nav>
{_verdicts(result)}
{chr(10).join(named[experiment.name] for experiment in order)}
{back}
</section>"""


def pairs(values: Mapping[str, Any]) -> str:
    """Names and values as a list in columns."""
    items = "".join(
        f"<div><dt>{escape(str(key))}</dt><dd>{escape(str(plain(value)))}</dd></div>"
        for key, value in values.items()
    )
    return f"<dl>{items}</dl>"


def table(kind: str, caption: str, head: tuple[str, ...], groups: list[str]) -> str:
    """A table that a screen reader still knows as one where a narrow screen shows it as a list.

    Args:
        groups: rows that belong together, and that paper does not part.
    """
    columns = "".join(f'<th role="columnheader" scope="col">{name}</th>' for name in head)
    return f"""<table role="table" class="{kind}">
<caption>{escape(caption)}</caption>
<thead role="rowgroup"><tr role="row">{columns}</tr></thead>
{chr(10).join(f'<tbody role="rowgroup">{rows}</tbody>' for rows in groups)}
</table>"""


_COLUMNS = ("claim", "kind", "quantity", "predicted", "measured", "holds if", "verdict", "replication")


def _verdicts(result: AuditResult) -> str:
    owner = {claim.id: e.name for e in result.lab.experiments for claim in e.claims}
    rows = {verdict.id: _rows(result, verdict, owner[verdict.id]) for verdict in result.verdicts}
    for failure in result.failures:
        rows |= {claim.id: _lost_rows(result, claim, failure) for claim in failure.claims}
    ordered = [rows[claim.id] for claim in result.lab.claims if claim.id in rows]
    return table("claims", "Verdicts", _COLUMNS, ordered) if ordered else ""


def _rows(result: AuditResult, verdict: Verdict, experiment: str) -> str:
    """The statement, and below it a row a part: its number by name, the rule, and what came out."""
    claim = verdict.claim
    said = "" if verdict.sentence == claim.statement else f"<br>In this run: {escape(verdict.sentence)}."
    more = [escape(claim.source), f"figure and settings: {link(anchor(result, experiment), experiment)}"]
    more += [f"{claim.expected} expected: {escape(claim.because)}"] if claim.because else []
    head = _head(result, claim, len(verdict.parts), f"{said}<br>{_small('; '.join(more))}")
    remarks = ["vacuous"] if verdict.vacuous else []
    remarks += [] if verdict.expected else [f"{claim.expected} expected"]
    remarks += [verdict.notes] if verdict.notes else []
    told = word(verdict.word) + "".join(f"<br>{_small(escape(text))}" for text in remarks)
    found = verdict.replication
    replicated = f"{claim.expected} in {found} of {found.seeds} seeds" if found else "not replicated"
    return head + _body(claim, [_part(part) for part in verdict.parts], told, replicated)


def _body(claim: Claim, parts: list[str], told: str, replicated: str) -> str:
    """A row a part; kind, verdict and replication stand beside the first, for all of them."""
    spanning = len(parts)
    kind = _cell("kind", claim.kind, spanning)
    ends = _cell("verdict", told, spanning) + _cell("replication", replicated, spanning)
    rows = [parts[0].join((kind, ends)), *parts[1:]]
    return "".join(f'<tr role="row">{row}</tr>' for row in rows)


def _head(result: AuditResult, claim: Claim, parts: int, more: str) -> str:
    return (
        f'<tr role="row" class="says" id="{anchor(result, claim.id)}"><th role="rowheader" scope="rowgroup" '
        f'rowspan="{1 + parts}">{escape(claim.id)}</th>'
        f'<td role="cell" colspan="{len(_COLUMNS) - 1}">{escape(claim.statement)}{more}</td></tr>'
    )


def _part(part: Part) -> str:
    tight = f"bound/measured ≥ {part.tightness:.3g}" if part.tightness is not None else ""
    seeds = f"{part.seeds} seed{'' if part.seeds == 1 else 's'}" if part.seeds else ""
    below = "".join(f"<br>{_small(text)}" for text in (tight, seeds) if text)
    unit = f" ({part.rule.unit})" if part.rule.unit else ""
    return (
        _cell("quantity", escape(part.rule.quantity + unit))
        + _cell("predicted", entries(part, part.predicted), number=True)
        + _cell("measured", entries(part, part.measured, part.spread) + below, number=True)
        + _cell("holds if", escape(part.rule.told))
    )


def _cell(name: str, content: str, rows: int = 1, *, number: bool = False) -> str:
    """A cell that carries its column's name, for where a narrow screen shows no head."""
    span = f' rowspan="{rows}"' if rows > 1 else ""
    kind = ' class="number"' if number else ""
    return f'<td role="cell"{kind}{span} data-name="{name}">{content}</td>'


def _small(content: str) -> str:
    return f'<span class="small">{content}</span>'


def _lost_rows(result: AuditResult, claim: Claim, failure: Failure) -> str:
    target = link(anchor(result, failure.experiment.name), failure.experiment.name)
    more = _small(f"{escape(claim.source)}; ended in an error: {target}")
    parts = [
        _cell("quantity", escape(rule.quantity)) + _cell("predicted", "–") + _cell("measured", "–")
        + _cell("holds if", escape(rule.told))
        for rule in claim.rules
    ]  # fmt: skip
    told = f'<span class="error">{UNRUN}</span>'
    return _head(result, claim, len(parts), f"<br>{more}") + _body(claim, parts, told, "–")


def _run(result: AuditResult, run: Run, level: int) -> str:
    own = {claim.id for claim in run.experiment.claims}
    decided = ", ".join(
        f"{link(anchor(result, verdict.id), verdict.id)} {word(verdict.word)}"
        for verdict in result.verdicts
        if verdict.id in own
    )
    note = run.frames[-1].note if run.frames else ""
    ended = (
        f"<p>The run ended as <b>{escape(run.status)}</b>. {escape(note)}</p>" if run.status != "done" else ""
    )
    return f"""<section id="{anchor(result, run.experiment.name)}">
<h{level}>{escape(run.experiment.title)}</h{level}>
<p class="small decides">Decides {decided}</p>
{ended}
{result.pictures.get(run.experiment.name) or figure(run)}
<details open><summary>Settings of {escape(run.experiment.name)}; {run.seconds:.1f} s</summary>
{pairs(run.settings.to_dict())}</details>
</section>"""


def _failure(result: AuditResult, failure: Failure, level: int) -> str:
    claims = ", ".join(link(anchor(result, claim.id), claim.id) for claim in failure.claims)
    again = f"labkit run {result.lab.number} --experiment {failure.experiment.name}"
    if failure.message:
        told = f'<span class="error">This experiment ended in an error:</span> {escape(failure.message)}'
        way = f"To see where the error came from: <code>{again} --traceback</code>"
    else:
        told = '<span class="error">This experiment was interrupted before its end.</span>'
        way = f"To run it: <code>{again}</code>"
    return f"""<section id="{anchor(result, failure.experiment.name)}">
<h{level}>{escape(failure.experiment.title)}</h{level}>
<p>{told}</p>
<p>Without it there is no verdict on {claims}. {way}</p>
</section>"""
