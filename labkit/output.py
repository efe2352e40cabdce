"""What the command line shows and writes: verdict table, progress, files that appear whole or not at all."""

from __future__ import annotations

import os
import textwrap
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from labkit.audit import AuditResult


def verdict_table(result: AuditResult) -> str:
    """The verdicts of an audit as text: a row a claim, and below it a sentence and the reason."""
    from labkit.claims import numbers

    head = ("claim", "verdict", "expected", "predicted", "measured")
    rows = [
        (
            verdict.id,
            verdict.word + (" (vacuous)" if verdict.vacuous else ""),
            verdict.expected,
            numbers(verdict.predicted),
            numbers(verdict.measured, verdict.spread),
        )
        for verdict in result.verdicts
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True)).rstrip()]
    lines.append("  ".join("-" * width for width in widths))
    for row, verdict in zip(rows, result.verdicts, strict=True):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        for text in (verdict.sentence, verdict.note):
            lines.extend(textwrap.wrap(text, 96, initial_indent="       ", subsequent_indent="       "))
    counts = [verdict.word for verdict in result.verdicts]
    summary = ", ".join(f"{counts.count(word)} {word}" for word in dict.fromkeys(counts))
    lines.append(f"\nlab {result.lab.number}, {result.lab.title}: {summary or 'no claims'}")
    lines.append(f"preset {result.preset}, seed {result.seed}, {result.device}, {result.seconds:.0f} s")
    return "\n".join(lines)


class ProgressBar:
    """The progress of an audit: a bar that redraws itself on a terminal, else one line an experiment."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._start, self._drawn, self._name = clock(), float("-inf"), ""
        self._live = stream.isatty()

    def __enter__(self) -> ProgressBar:
        return self

    def __call__(self, share: float, name: str) -> None:
        now = self._clock()
        if not self._live:
            if name != self._name:
                self._stream.write(f"{share:4.0%} {name} ({now - self._start:.0f} s)\n")
        elif now - self._drawn >= 0.1 or name != self._name:
            self._drawn = now
            bar = ("#" * round(30 * share)).ljust(30, ".")
            self._stream.write(f"\r[{bar}] {share:4.0%} {now - self._start:4.0f} s  {name[:30]:<30}")
        self._name = name
        self._stream.flush()

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._stream.write("\r" + " " * 80 + "\r")
            self._stream.flush()


def check_writable(path: Path, option: str) -> None:
    """Refuses a path that cannot be written, before anything costly is done.

    Raises:
        ValueError: the folder is missing or not writable, or the path is a folder.
    """
    folder = path.resolve().parent
    if path.is_dir():
        raise ValueError(f"{option}: {path} is a folder; name a file in it")
    if not folder.is_dir():
        raise ValueError(f"{option}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ValueError(f"{option}: {path} cannot be written; check its permissions")


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that no reader and no interruption ever sees half of it."""
    path = path.resolve()
    if path.exists() and not path.is_file():  # A device or a pipe: it must not be replaced by a file.
        path.write_text(text, encoding="utf-8")
        return
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
