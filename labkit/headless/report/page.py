"""The page: one lab with all of it, or several below a table that sums them up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from labkit.headless.audit import AuditResult
from labkit.headless.report.sections import (
    SIGNS,
    UNRUN,
    anchor,
    counts,
    lab_section,
    link,
    pairs,
    surprises,
    table,
    word,
)  # fmt: skip
from labkit.headless.report.style import STYLE

_LEGEND = (
    "Measured values are means over seeds ± one standard deviation, a line for each part of a claim. "
    "A vacuous bound holds, but says less than a trivial one."
)
_WORDS = {
    "holds": "the rule is met",
    "fails": "it is not",
    "undecided": "the interval over seeds straddles the edge, or a check failed",
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
    total = sum(sum(counts(result).values()) for result in results)
    labs = "one lab" if len(results) == 1 else f"{len(results)} labs"
    facts = f"{total} claims of {labs} · preset {first.preset} · seed {first.seed} · {first.device}"
    facts += f" · {sum(result.seconds for result in results):.0f} s"
    body = "\n".join(
        (
            f"<h1>{title}</h1>",
            f'<p class="facts">{escape(facts)}</p>',
            f'<nav aria-label="Labs">{_overview(results)}</nav>',
            *(lab_section(result, level=2) for result in results),
        )
    )
    return _page(title, body, first)


def _overview(results: Sequence[AuditResult]) -> str:
    """Lab by lab, how many claims came out how; words that never came up have no column."""
    found = [counts(result) for result in results]
    shown = [name for name in (*SIGNS, UNRUN) if any(name in count for count in found)]
    rows = []
    for result, count in zip(results, found, strict=True):
        name = f"{result.lab.number} · {result.lab.title}"
        cells = "".join(
            f'<td role="cell" class="count" data-name="{w}">{count.get(w, 0)}</td>' for w in shown
        )
        other = ", ".join(link(anchor(result, id), id) for id in surprises(result)) or "none"
        rows.append(
            f'<tr role="row"><th role="rowheader" scope="row">{link(anchor(result), name)}</th>{cells}'
            f'<td role="cell" data-name="other than expected">{other}</td></tr>'
        )
    head = tuple(word(name) if name in SIGNS else name for name in shown)
    return table("overview", "Verdicts by lab", ("lab", *head, "other than expected"), rows)


def _page(title: str, body: str, result: AuditResult) -> str:
    made = datetime.now(UTC)
    words = "".join(
        f"<div><dt>{word(name)}</dt><dd>{escape(says)}</dd></div>" for name, says in _WORDS.items()
    )
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
<dl>{words}</dl>
<h2>Versions</h2>
{pairs(result.versions)}
<p class="small">Made on <time datetime="{made:%Y-%m-%dT%H:%MZ}">{made.day} {made:%B %Y, %H:%M} UTC</time></p>
</footer>
</body>
</html>
"""
