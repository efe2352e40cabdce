"""What a panel says: status, verdicts, earlier runs and errors, as small pieces of HTML.

Inline styles only, with JupyterLab's own colour variables and a fallback: notebooks strip style sheets and
ids, and a dark theme must stay readable.
"""

from __future__ import annotations

import html
import traceback
from collections.abc import Sequence

from labkit.figures import Chart
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Run
from labkit.protocol.judging import judge
from labkit.protocol.verdicts import Verdict

INK = "var(--jp-ui-font-color1, #1f2430)"
QUIET = "var(--jp-ui-font-color2, #626a75)"
_FONT = "font-family:var(--jp-ui-font-family, sans-serif);font-size:13px;line-height:1.45"
_CELL = "padding:3px 10px 3px 0;vertical-align:top"
_SMALL = f"color:{QUIET};font-size:11.5px;white-space:normal"
# word -> (sign, background, text); the sign and the word carry the meaning, the colour only helps.
_CHIPS = {
    "holds": ("✓", "#d8efe6", "#00563f"),
    "fails": ("✗", "#fbdccb", "#8a3200"),
    "undecided": ("?", "#fdeecb", "#6b4a00"),
    "out of regime": ("∅", "#e3e6ea", "#3d444d"),
    "reported": ("●", "#d6e8f5", "#00456e"),
    "…": ("", "#eef0f2", "#626a75"),
}
# JupyterLab's outputs: the stored picture, which is the one before, is not shown twice.
ALIVE = (
    "<style>.jp-OutputArea-child:has(+ .jp-OutputArea-child .labkit-panel) { display: none }</style>"
    "<span class='labkit-panel'></span>"
)


def title(text: str) -> str:
    style = f"{_FONT};font-size:16px;font-weight:600;color:{INK};margin:2px 0 4px"
    return f"<div role='heading' aria-level='3' style='{style}'>{html.escape(text)}</div>"


def status(text: str, busy: bool = False) -> str:
    """The status line; read out politely by a screen reader when it changes."""
    weight = "600" if busy else "400"
    return (
        f"<div role='status' aria-live='polite' style='{_FONT};color:{QUIET};font-weight:{weight};"
        f"white-space:normal'>{html.escape(text)}</div>"
    )


def quiet(text: str) -> str:
    style = f"{_FONT};font-size:12px;color:{QUIET};white-space:normal"
    return f"<div style='{style}'>{html.escape(text)}</div>" if text else ""


def alternative(chart: Chart) -> str:
    """What the figure shows, for those who cannot see it: an empty element with a label."""
    text = html.escape(chart.words, quote=True)
    return f"<div role='img' aria-label='{text}' style='height:0'></div>"


def error(problem: BaseException, doing: str) -> str:
    """An error as a person needs it: what, while doing what, and the traceback folded away."""
    name = "" if isinstance(problem, ValueError) else f"{type(problem).__name__}: "
    trace = "".join(traceback.format_exception(problem))
    return (
        f"<div role='alert' style='{_FONT};color:#8a3200;background:#fdf0e8;border-left:4px solid #d55e00;"
        f"padding:6px 10px;margin:4px 0;white-space:normal'><b>{html.escape(doing)}</b><br>"
        f"{html.escape(name + str(problem))}"
        f"<details><summary style='cursor:pointer'>where it came from</summary>"
        f"<pre style='font-size:11px;overflow-x:auto;color:#3d444d;background:transparent'>"
        f"{html.escape(trace)}</pre></details></div>"
    )


def decide(experiment: Experiment, run: Run) -> list[tuple[Claim, Verdict | None, str]]:
    """Each claim with its verdict, or None while the frames do not carry enough, and a remark."""
    found: list[tuple[Claim, Verdict | None, str]] = []
    for claim in experiment.claims:
        try:
            found.append((claim, judge(claim, run) if run.frames else None, ""))
        except (KeyError, ValueError, IndexError):
            found.append((claim, None, ""))
        except Exception as problem:  # a claim that cannot be measured must not end the run that others need
            found.append((claim, None, f"{type(problem).__name__}: {problem}"))
    return found


def verdicts(decided: Sequence[tuple[Claim, Verdict | None, str]], final: bool) -> str:
    """The table of verdicts; until the run is over they are "so far"."""
    if not decided:
        return ""
    rows = []
    for claim, verdict, remark in decided:
        says = claim.statement if verdict is None else verdict.sentence
        small = [remark] if remark else _numbers(claim, verdict)
        lines = "".join(f"<div style='{_SMALL}'>{html.escape(text)}</div>" for text in small)
        rows.append(
            f"<tr><td style='{_CELL};font-weight:600'>{html.escape(claim.id)}"
            f"<div style='{_SMALL};font-weight:400'>{claim.kind}</div></td>"
            f"<td style='{_CELL};white-space:nowrap'>{_chip(verdict, final)}</td>"
            f"<td style='{_CELL};text-align:left;white-space:normal'>{html.escape(says)}{lines}</td></tr>"
        )
    style = f"{_FONT};color:{INK};border-collapse:collapse;border:none"
    return f"<table aria-label='Verdicts' style='{style}'><tbody>{''.join(rows)}</tbody></table>"


def _chip(verdict: Verdict | None, final: bool) -> str:
    """The word on its colour, with what it needs beneath: "vacuous", "holds expected"."""
    sign, back, ink = _CHIPS[verdict.word if verdict else "…"]
    chip = f"background:{back};color:{ink};border-radius:9px;padding:1px 9px;font-weight:600"
    if verdict is None:
        return f"<span style='{chip}'>{sign} …</span>"
    remarks = ["vacuous"] if verdict.vacuous else []
    remarks += [] if verdict.expected else [f"{verdict.claim.expected} expected"]
    below = "".join(f"<div style='{_SMALL}'>{html.escape(text)}</div>" for text in remarks)
    so_far = "" if final else f" <span style='color:{QUIET};font-size:11px'>so far</span>"
    return f"<span style='{chip}'>{sign} {html.escape(verdict.word)}</span>{so_far}{below}"


def _numbers(claim: Claim, verdict: Verdict | None) -> list[str]:
    """The rules before the run; after it each number by name, why, and how often it came out so."""
    if verdict is None:
        asked = (f"{'' if rule.reports else 'holds if '}{rule.told}" for rule in claim.rules)
        return [f"{rule.quantity}: {edge}" for rule, edge in zip(claim.rules, asked, strict=True)]
    found = verdict.replication
    replicated = f"{claim.expected} in {found} of {found.seeds} seeds" if found else ""
    return [text for text in (*map(str, verdict.parts), verdict.notes, replicated) if text]


def progress_line(frame: Frame, device: str, speed: float | None, seconds: float) -> str:
    """ "step 1,200 · 850 steps/s on cpu · 40 % · about 3 s left"."""
    parts = [f"step {frame.step:,}"]
    if speed:
        parts.append(
            f"{speed:,.0f} steps/s on {device}" if speed >= 10 else f"{speed:.2g} steps/s on {device}"
        )
    else:
        parts.append(f"on {device}")
    if frame.progress is not None:
        parts.append(f"{100 * frame.progress:.0f} %")
        if 0.02 < frame.progress < 1 and frame.status == "running":
            parts.append(f"about {seconds * (1 - frame.progress) / frame.progress:.0f} s left")
    return " · ".join(parts)
