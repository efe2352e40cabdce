"""One audit as one HTML page: verdicts, figures, settings, versions. It loads nothing, and prints well."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

from labkit.audit import AuditResult, plain
from labkit.claims import Verdict, numbers
from labkit.experiment import Run

# A sign beside each word, so that nothing is told by colour alone.
_SIGNS = {"holds": "✓", "fails": "✗", "undecided": "?", "out of regime": "○", "reported": "•"}

_STYLE = """
:root { color-scheme: light dark;
  --ink: #1b1f24; --paper: #fff; --soft: #57606a; --line: #d0d7de; --tint: #f6f8fa;
  --holds: #00604a; --fails: #a33a00; --undecided: #6b4e00; --out: #3d4a9a; --reported: #444c56; }
@media screen and (prefers-color-scheme: dark) { :root {
  --ink: #e6edf3; --paper: #0d1117; --soft: #9aa4af; --line: #30363d; --tint: #161b22;
  --holds: #4fd1a5; --fails: #ff9e64; --undecided: #e3c05b; --out: #a5b4fc; --reported: #c0c8d0; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; margin-bottom: .2rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
p.facts, figcaption, .small { color: var(--soft); font-size: .875rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .5rem; border-bottom: 1px solid var(--line); }
thead th { font-size: .875rem; color: var(--soft); }
.word { font-weight: 700; white-space: nowrap; }
.holds { color: var(--holds); } .fails { color: var(--fails); } .undecided { color: var(--undecided); }
.out { color: var(--out); } .reported { color: var(--reported); }
td.number { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
figure { margin: 1.5rem 0; break-inside: avoid; }
figure img { width: 100%; height: auto; background: #fff; border: 1px solid var(--line); }
details { background: var(--tint); padding: .5rem 1rem; margin: .5rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .5rem 0; }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 42rem) {
  thead { position: absolute; clip-path: inset(50%); height: 1px; overflow: hidden; }
  tr, td, th { display: block; } td, th { border: 0; padding: .15rem 0; }
  tr { padding: .75rem 0; border-bottom: 1px solid var(--line); }
  td[data-name]::before { content: attr(data-name) ": "; color: var(--soft); } }
@media print { body { max-width: none; font-size: 10pt; } tr { break-inside: avoid; } }
"""


def to_html(result: AuditResult) -> str:
    """The page of one audit, complete in itself."""
    title = f"{result.lab.title}: what was predicted, and is it so?"
    facts = (
        f"Lab {result.lab.number} · {result.lab.paper} · preset {result.preset} · seed {result.seed} · "
        f"{result.device} · {result.seconds:.0f} s"
    )
    rows = "\n".join(_verdict_row(verdict) for verdict in result.verdicts)
    sections = "\n".join(_section(run) for run in result.runs)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="facts">{escape(facts)}</p>
<p>{escape(_summary(result))}</p>
<h2>Verdicts</h2>
<table>
<thead><tr><th scope="col">claim</th><th scope="col">verdict</th><th scope="col">statement</th>
<th scope="col">predicted</th><th scope="col">measured</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
<p class="small">Measured values are means over seeds ± one standard deviation; commas separate the parts of
a claim. A vacuous bound holds, but says less than a trivial one.</p>
{sections}
<h2>Versions</h2>
{_pairs(result.versions)}
</main>
</body>
</html>
"""


def _summary(result: AuditResult) -> str:
    words = [verdict.word for verdict in result.verdicts]
    counts = ", ".join(f"{words.count(word)} {word}" for word in _SIGNS if word in words)
    surprises = [verdict.id for verdict in result.verdicts if verdict.word != verdict.expected]
    told = f" Other than expected: {', '.join(surprises)}." if surprises else " All as expected."
    return f"{len(words)} claims: {counts}.{told}" if words else "No claim was selected."


def _verdict_row(verdict: Verdict) -> str:
    kind = verdict.word.split()[0]
    sign = f'<span aria-hidden="true">{_SIGNS[verdict.word]}</span>'
    word = f'<span class="word {kind}">{sign} {verdict.word}</span>'
    vacuous = "<br>vacuous" if verdict.vacuous else ""
    other = f'<br><span class="small">expected: {escape(verdict.expected)}</span>'
    note = f"<br>{escape(verdict.note)}" if verdict.note else ""
    return (
        f'<tr><th scope="row">{escape(verdict.id)}</th>'
        f"<td>{word}{vacuous}{other if verdict.expected != verdict.word else ''}</td>"
        f"<td>{escape(verdict.statement)}<br>"
        f'<span class="small">{escape(verdict.source)}; decided by: {escape(verdict.rule)}{note}</span></td>'
        f'<td class="number" data-name="predicted">{numbers(verdict.predicted)}</td>'
        f'<td class="number" data-name="measured">{numbers(verdict.measured, verdict.spread)}</td></tr>'
    )


def _section(run: Run) -> str:
    chart = run.figure()
    image = base64.b64encode(chart.png()).decode("ascii")
    panels = "; ".join(panel.title for panel in chart.panels if panel.title)
    alternative = f"{run.experiment.title} {panels}".strip()
    note = run.frames[-1].note if run.frames else ""
    ended = (
        f"<p>The run ended as <b>{escape(run.status)}</b>. {escape(note)}</p>" if run.status != "done" else ""
    )
    return f"""<section>
<h2>{escape(run.experiment.title)}</h2>
{ended}
<figure><img alt="{escape(alternative)}" src="data:image/png;base64,{image}">
<figcaption>{escape(chart.caption)}</figcaption></figure>
<details open><summary>Settings of {escape(run.experiment.name)}; {run.seconds:.1f} s</summary>
{_pairs(run.settings.to_dict())}</details>
</section>"""


def _pairs(values: Mapping[str, Any]) -> str:
    items = "".join(
        f"<dt>{escape(str(key))}</dt><dd>{escape(str(plain(value)))}</dd>" for key, value in values.items()
    )
    return f"<dl>{items}</dl>"
