"""The page: one lab with all of it, or several below a table that sums them up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from labkit.headless.audit import AuditResult
from labkit.headless.report.sections import (
    UNRUN,
    anchor,
    lab_section,
    link,
    links,
    lost,
    pairs,
    surprises,
    table,
    word,
)  # fmt: skip
from labkit.headless.report.style import STYLE
from labkit.protocol.claims import KINDS
from labkit.protocol.verdicts import summary

_LEGEND = (
    "Measured values are means over seeds ± one standard deviation, a row for each part of a claim. "
    "A vacuous bound holds, but says less than a trivial one; bound/measured says how tight a bound is. "
    "Replication counts the blocks of other seeds in which the expected word came out."
)
_KINDS = {
    "theorem": "a proved statement, checked on real networks; it fails only by a bug or a broken assumption",
    "prediction": "a number from a formula against a measurement that does not contain it",
    "finding": "what the paper observed: it replicates or it does not",
}
_WORDS = {
    "holds": "the rule is met",
    "fails": "it is not",
    "undecided": "the interval over seeds lies across the edge, or a check failed",
    "out of regime": "a condition of the theorem is not met, so it promises nothing here",
    "reported": "there is no promise to test; the values are shown",
}


def to_html(result: AuditResult) -> str:
    """The page of one audit, complete in itself."""
    title = f"{result.lab.title}: what was predicted, and is it so?"
    return _page(title, lab_section(result, level=1), result)


def report_html(results: Sequence[AuditResult]) -> str:
    """The page of several audits: what came out, lab by lab, and all of each lab below it.

    Raises:
        ValueError: there is no audit.
    """
    if not results:
        raise ValueError("results: a report needs at least one audit, got none")
    first = results[0]
    title = "What was predicted, and is it so?"
    labs = "one lab" if len(results) == 1 else f"{len(results)} labs"
    facts = f"{labs} · preset {first.preset} · seed {first.seed} · {first.device}"
    facts += f" · {sum(result.seconds for result in results):.0f} s"
    every = summary([verdict for result in results for verdict in result.verdicts])
    body = "\n".join(
        (
            f"<h1>{title}</h1>",
            f'<p class="facts">{escape(facts)}</p>',
            f"<p>{every}.</p>",
            f'<nav aria-label="Labs">{_overview(results)}</nav>',
            *(lab_section(result, level=2) for result in results),
        )
    )
    return _page(title, body, first)


def _overview(results: Sequence[AuditResult]) -> str:
    """Lab by lab, what came out: the kinds apart, for their words do not add up."""
    undone = any(lost(result) for result in results)
    head = ("lab", *(f"{kind}s" for kind in KINDS), "other than expected", *([UNRUN] if undone else []))
    rows = []
    for result in results:
        cells = [_kind(result, kind) for kind in KINDS] + [links(result, surprises(result)) or "none"]
        cells += [links(result, lost(result)) or "none"] if undone else []
        name = link(anchor(result), f"{result.lab.number} · {result.lab.title}")
        told = "".join(
            f'<td role="cell" data-name="{column}">{cell}</td>'
            for column, cell in zip(head[1:], cells, strict=True)
        )
        rows.append(f'<tr role="row"><th role="rowheader" scope="row">{name}</th>{told}</tr>')
    return table("overview", "Verdicts by lab", head, ["\n".join(rows)])


def _kind(result: AuditResult, kind: str) -> str:
    own = [verdict for verdict in result.verdicts if verdict.claim.kind == kind]
    return summary(own) if own else "–"


def _page(title: str, body: str, result: AuditResult) -> str:
    made = datetime.now(UTC)
    words = "".join(
        f"<div><dt>{word(name)}</dt><dd>{escape(says)}</dd></div>" for name, says in _WORDS.items()
    )
    kinds = "".join(f"<div><dt>{name}</dt><dd>{escape(says)}</dd></div>" for name, says in _KINDS.items())
    return f"""<!doctype html>
<html lang="en" id="top">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
</main>
<footer>
<h2>How to read this page</h2>
<p>{_LEGEND}</p>
<dl>{kinds}</dl>
<dl>{words}</dl>
<h2>Versions</h2>
{pairs(result.versions)}
<p class="small">Made on <time datetime="{made:%Y-%m-%dT%H:%MZ}">{made.day} {made:%B %Y, %H:%M} UTC</time></p>
</footer>
</body>
</html>
"""
