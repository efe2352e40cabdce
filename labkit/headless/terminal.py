"""What a terminal shows of a run: its verdicts with their numbers, and progress."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from labkit.headless.audit import AuditResult


def verdict_table(result: AuditResult) -> str:
    """The verdicts of an audit as text: a claim with its word, and below it every number by name."""
    lines = []
    for verdict in result.verdicts:
        found = verdict.replication
        replicated = f" · {verdict.claim.expected} in {found} of {found.seeds} seeds" if found else ""
        lines.append(f"{verdict.id:<4} {verdict.shown} · {verdict.claim.kind}{replicated}")
        told = [verdict.sentence, *(str(part) for part in verdict.parts), verdict.notes]
        for text in filter(None, told):
            lines.extend(textwrap.wrap(text, 100, initial_indent="     ", subsequent_indent="       "))
    for failure in filter(lambda one: one.message, result.failures):
        lost = ", ".join(claim.id for claim in failure.claims)
        lines.append(f"\nNot decided: {lost}, as {failure.experiment.name} ended: {failure.message}")
    lines += [f"\n{run.experiment.name}: {run.settings.note}" for run in result.runs if run.settings.note]
    if result.interrupted:
        left = [failure.experiment.name for failure in result.failures if not failure.message]
        lines.append(f"\nPartial: interrupted before the end of {', '.join(left)}")
    lines.append(f"\nlab {result.lab.number}, {result.lab.title}: {result.verdicts.summary}")
    lines.append(f"preset {result.preset}, seed {result.seed}, {result.device}, {result.seconds:.0f} s")
    return "\n".join(lines)


class ProgressBar:
    """The progress of an audit: a bar that redraws itself on a terminal, else a line an experiment and a line
    every ten seconds.
    """

    PATIENCE = 10.0

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._start, self._drawn, self._name = clock(), float("-inf"), ""
        self._live = stream.isatty()

    def __enter__(self) -> ProgressBar:
        return self

    def __call__(self, share: float, name: str) -> None:
        now = self._clock()
        if not self._live:
            if name != self._name or now - self._drawn >= self.PATIENCE:
                self._drawn = now
                self._stream.write(
                    f"{share:4.0%} {name} ({now - self._start:.0f} s{self._left(share, now)})\n"
                )
        elif now - self._drawn >= 0.1 or name != self._name:
            self._drawn = now
            bar = ("#" * round(30 * share)).ljust(30, ".")
            told = f"{now - self._start:4.0f} s{self._left(share, now)}"
            self._stream.write(f"\r[{bar}] {share:4.0%} {told}  {name[:30]:<30}")
        self._name = name
        self._stream.flush()

    def _left(self, share: float, now: float) -> str:
        """The time left, of a run that takes minutes and has shown how fast it is."""
        left = (now - self._start) * (1 - share) / max(share, 1e-9)
        if share < 0.02 or now - self._start + left < 120:
            return ""
        if left < 90:
            return f", about {left:.0f} s left"
        return f", about {left / 60:.0f} min left" if left < 5400 else f", about {left / 3600:.1f} h left"

    def say(self, line: str) -> None:
        """Writes a line that stays, above the bar."""
        self.__exit__()
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._stream.write("\r" + " " * 80 + "\r")
            self._stream.flush()
