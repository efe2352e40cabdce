"""The sections of a report: a row a claim, a figure an experiment, and the links between the two."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from labkit.headless.audit import AuditResult, Failure, plain
from labkit.headless.report.pictures import figure
from labkit.protocol.claims import Claim, Verdict, numbers
from labkit.protocol.experiment import Run

# A sign beside each word, so that nothing is told by colour alone.
SIGNS = {"holds": "✓", "fails": "✗", "undecided": "?", "out of regime": "○", "reported": "•"}
UNRUN = "not decided"


def anchor(result: AuditResult, name: str = "") -> str:
    """The address of a lab, or of a claim or an experiment in it, within the page."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(part for part in (result.lab.name, name) if part))


def link(target: str, text: str) -> str:
    return f'<a href="#{escape(target)}">{escape(text)}</a>'


def counts(result: AuditResult) -> dict[str, int]:
    """Word -> how many claims; those that an error left without a verdict come last."""
    words = [verdict.word for verdict in result.verdicts]
    found = {word: words.count(word) for word in SIGNS if word in words}
    lost = sum(len(failure.claims) for failure in result.failures)
    return found | ({UNRUN: lost} if lost else {})


def counted(count: int, name: str) -> str:
    """ "1 holds", "9 hold"."""
    return f"{count} {name if count == 1 else {'holds': 'hold', 'fails': 'fail'}.get(name, name)}"


def surprises(result: AuditResult) -> list[str]:
    """The claims that came out other than expected."""
    return [verdict.id for verdict in result.verdicts if verdict.word != verdict.expected]


def word(text: str) -> str:
    """A verdict word with its sign and colour."""
    sign = f'<span aria-hidden="true">{SIGNS[text]}</span>'
    return f'<span class="word {text.split()[0]}">{sign} {text}</span>'


def summary(result: AuditResult) -> str:
    """One sentence on a lab: how many claims, with which words, and which were not expected so."""
    found = counts(result)
    if not found:
        return "No claim was selected."
    told = ", ".join(counted(count, name) for name, count in found.items())
    other = ", ".join(link(anchor(result, id), id) for id in surprises(result))
    expected = f" Other than expected: {other}." if other else " All as expected." if result.verdicts else ""
    return f"{sum(found.values())} claims: {told}.{expected}"


def lab_section(result: AuditResult, level: int) -> str:
    """All of one lab: facts, verdicts, figures. `level` is that of its heading, 1 when it has the page."""
    lab = result.lab
    facts = (
        f"Lab {lab.number} · {lab.paper} · preset {result.preset} · seed {result.seed} · "
        f"{result.device} · {result.seconds:.0f} s"
    )
    heading = f"<h{level}{' class=new' if level > 1 else ''}>{escape(lab.title)}</h{level}>"
    runs = {run.experiment.name: _run(result, run, level + 1) for run in result.runs}
    lost = {f.experiment.name: _failure(result, f, level + 1) for f in result.failures}
    named = {**runs, **lost}
    order = [experiment for experiment in lab.experiments if experiment.name in named]
    figures = "".join(f"<li>{link(anchor(result, e.name), e.title)}</li>" for e in order)
    back = f'<p class="small screen">{link("top", "Back to the top")}</p>'
    return f"""<section id="{anchor(result)}" aria-label="{escape(lab.title)}">
{heading}
<p class="facts">{escape(facts)}</p>
<p>{summary(result)}</p>
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


def table(kind: str, caption: str, head: tuple[str, ...], rows: list[str]) -> str:
    """A table that a screen reader still knows as one where a narrow screen shows it as a list."""
    columns = "".join(f'<th role="columnheader" scope="col">{name}</th>' for name in head)
    return f"""<table role="table" class="{kind}">
<caption>{escape(caption)}</caption>
<thead role="rowgroup"><tr role="row">{columns}</tr></thead>
<tbody role="rowgroup">
{chr(10).join(rows)}
</tbody>
</table>"""


def _verdicts(result: AuditResult) -> str:
    owner = {claim.id: e.name for e in result.lab.experiments for claim in e.claims}
    rows = {verdict.id: _row(result, verdict, owner[verdict.id]) for verdict in result.verdicts}
    for failure in result.failures:
        rows |= {claim.id: _lost_row(result, claim, failure) for claim in failure.claims}
    ordered = [rows[claim.id] for claim in result.lab.claims if claim.id in rows]
    head = ("claim", "verdict", "statement", "predicted", "measured")
    return table("claims", "Verdicts", head, ordered) if ordered else ""


def _row(result: AuditResult, verdict: Verdict, experiment: str) -> str:
    vacuous = "<br>vacuous" if verdict.vacuous else ""
    other = f'<br><span class="small">expected: {escape(verdict.expected)}</span>'
    said = "" if verdict.sentence == verdict.statement else f"<br>In this run: {escape(verdict.sentence)}."
    note = f"<br>{escape(verdict.note)}" if verdict.note else ""
    cell = "".join(
        f'<td role="cell" class="number" data-name="{name}">{_parts(text)}</td>'
        for name, text in (
            ("predicted", numbers(verdict.predicted)),
            ("measured", numbers(verdict.measured, verdict.spread)),
        )
    )
    return (
        f'<tr role="row" id="{anchor(result, verdict.id)}"><th role="rowheader" scope="row">'
        f"{escape(verdict.id)}</th>"
        f'<td role="cell">{word(verdict.word)}{vacuous}'
        f"{other if verdict.expected != verdict.word else ''}</td>"
        f'<td role="cell">{escape(verdict.statement)}{said}<br>'
        f'<span class="small">{escape(verdict.source)}; decided by: {escape(verdict.rule)}; '
        f"figure and settings: {link(anchor(result, experiment), experiment)}{note}</span></td>{cell}</tr>"
    )


def _parts(text: str) -> str:
    """The parts of a claim one below another; on a narrow screen one after another."""
    return "".join(f"<span>{escape(part)}</span> " for part in text.split(", ")).rstrip()


def _lost_row(result: AuditResult, claim: Claim, failure: Failure) -> str:
    target = link(anchor(result, failure.experiment.name), failure.experiment.name)
    return (
        f'<tr role="row" id="{anchor(result, claim.id)}"><th role="rowheader" scope="row">'
        f'{escape(claim.id)}</th><td role="cell"><span class="error">{UNRUN}</span></td>'
        f'<td role="cell">{escape(claim.statement)}<br><span class="small">{escape(claim.source)}; '
        f"decided by: {escape(claim.rule)}; ended in an error: {target}</span></td>"
        '<td role="cell" class="number" data-name="predicted">–</td>'
        '<td role="cell" class="number" data-name="measured">–</td></tr>'
    )


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
{figure(run)}
<details open><summary>Settings of {escape(run.experiment.name)}; {run.seconds:.1f} s</summary>
{pairs(run.settings.to_dict())}</details>
</section>"""


def _failure(result: AuditResult, failure: Failure, level: int) -> str:
    claims = ", ".join(link(anchor(result, claim.id), claim.id) for claim in failure.claims)
    return f"""<section id="{anchor(result, failure.experiment.name)}">
<h{level}>{escape(failure.experiment.title)}</h{level}>
<p><span class="error">This experiment ended in an error:</span> {escape(failure.message)}</p>
<p>Without it there is no verdict on {claims}. To see where the error came from:
<code>labkit run {result.lab.number} --all-claims --traceback</code></p>
</section>"""
