"""The same report as JSON, and as the lines that a terminal shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labkit.headless.audit import AuditResult
from labkit.headless.report.sections import lost, surprises
from labkit.protocol.verdicts import summary


def report_json(results: Sequence[AuditResult]) -> dict[str, Any]:
    """Every lab as `labkit run --json` writes it, with the experiments that ended in an error."""
    labs = [result.to_json() for result in results]
    seconds = round(sum(result.seconds for result in results), 3)
    return {"preset": results[0].preset if results else None, "seconds": seconds, "labs": labs}


def report_lines(results: Sequence[AuditResult]) -> str:
    """A line a lab; below it what came out other than expected, and what ended in an error."""
    lines = []
    for result in results:
        found = summary(result.verdicts)
        lines.append(f"{result.lab.number} {result.lab.name}: {found}; {result.seconds:.0f} s")
        if other := surprises(result):
            lines.append(f"  other than expected: {', '.join(other)}")
        if undone := lost(result):
            lines.append(f"  not decided: {', '.join(undone)}")
        lines += [
            f"  error in {f.experiment.name}: {f.message}"
            if f.message
            else f"  {f.experiment.name}: interrupted"
            for f in result.failures
        ]
    return "\n".join(lines)
