"""The published numbers beside ours: of a run in a folder, or of the short record of one (`--json`)."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from labkit.protocol.experiment import Experiment, Lab, Run
from labkit.protocol.files import read_frames
from labkit.protocol.published import Published, published

QUICK = ("seed", "device")  # in which no two runs are said to differ
MANY = 5  # numbers of one quantity, up to which each is told


@dataclass(frozen=True)
class Record:
    """What is kept of a run beside the published numbers.

    Attributes:
        experiment: its name.
        settings: of the run.
        seconds: that it took.
        ended: the day and the minute.
        machine: processor, cores, system and torch.
        values: "preset, case, quantity" -> mean over seeds, spread (None: one seed), seeds.
        verdicts: claim -> word.
        measured: claim -> what it was judged by, quantity after quantity.
    """

    experiment: str
    settings: Mapping[str, Any]
    seconds: float
    ended: str
    machine: str
    values: Mapping[str, tuple[float, float | None, int]]
    verdicts: Mapping[str, str]
    measured: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Compared:
    """A published number and ours."""

    row: Published
    ours: tuple[float, float | None, int]

    @property
    def difference(self) -> str:
        """In the published spread where one is printed, else in its own unit."""
        off = self.ours[0] - self.row.value
        return f"{off:+.3g}" if self.row.spread is None else f"{off / self.row.spread:+.1f} spreads"

    def told(self) -> tuple[str, str, str]:
        """The published number, ours and the difference, as text."""
        value, spread, seeds = self.ours
        apart = f" ± {self.row.spread:g}" if self.row.spread is not None else ""
        own = f" ± {spread:.2g}" if spread is not None else ""
        return f"{self.row.value:.4g}{apart}", f"{value:.4g}{own} ({seeds})", self.difference


def records(lab: Lab, path: Path) -> list[Record]:
    """What a folder or a file holds of runs.

    Args:
        lab: whose experiments they are.
        path: of a folder that `labkit run --folder` made, or a file that `labkit compare --json` wrote.

    Returns:
        One Record an experiment that has ended.

    Raises:
        ValueError: it is neither, or of another lab, or none of its experiments has ended.
        OSError: it cannot be read.
    """
    facts = path / "run.json" if path.is_dir() else path
    try:
        told = json.loads(facts.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError(
            f"RUN: {path} is no folder of `labkit run --folder`, and no file of `labkit compare --json`"
        ) from None
    if not isinstance(told, dict) or told.get("lab") != lab.name:
        raise ValueError(f"RUN: {path} is of lab {told.get('lab', '?')}, not of {lab.name}")
    if not path.is_dir():
        return [
            Record(**one | {"values": {k: tuple(v) for k, v in one["values"].items()}})
            for one in told["runs"]
        ]
    found = [
        _record(lab, path, experiment, told)
        for experiment in lab.experiments
        if (path / experiment.name / "frames.npz").exists()
    ]
    if not found:
        raise ValueError(f"RUN: no experiment in {path} has come to its end yet")
    return found


def _record(lab: Lab, path: Path, experiment: Experiment, facts: Mapping[str, Any]) -> Record:
    file = path / experiment.name / "frames.npz"
    frames, seconds = read_frames(file)
    settings = experiment.settings(
        **{name: facts[f"{experiment.name}: {name}"] for name in experiment.settings.knobs()}
    )
    run = Run(experiment, settings, {}, frames, seconds)
    values = {}
    for row in published(experiment.home):
        if (measured := row.measured(run)) is not None:
            spread = float(measured.std(ddof=1)) if len(measured) > 1 else None
            values[_key(row)] = (float(measured.mean()), spread, len(measured))
    result = path / "result.json"
    claims = json.loads(result.read_text(encoding="utf-8"))["claims"] if result.exists() else []
    own = {claim["id"]: claim for claim in claims if claim["experiment"] == experiment.name}
    ended = datetime.fromtimestamp(file.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
    return Record(
        experiment.name, settings.to_dict(), seconds, ended, _machine(facts["torch"]), values,
        {id: claim["verdict"] for id, claim in own.items()},
        {id: _judged(claim) for id, claim in own.items()},
    )  # fmt: skip


def _judged(claim: Mapping[str, Any]) -> str:
    """What a claim measured; that it says nothing, or why it is undecided, after it."""
    why = [claim["reason"]] if claim["verdict"] == "undecided" else []
    return "; ".join([*map(_quantity, claim["quantities"]), *["vacuous"] * claim["vacuous"], *why])


def _quantity(found: Mapping[str, Any]) -> str:
    """A measured quantity, its edge in brackets; of many numbers the least and the greatest."""
    numbers = np.array(found["measured"], dtype=float).ravel()
    if len(numbers) == len(found["labels"]) <= MANY:
        told = ", ".join(
            f"{label} {number:.3g}".strip() for label, number in zip(found["labels"], numbers, strict=True)
        )
    else:
        told = f"{numbers.min():.3g} to {numbers.max():.3g}" if len(numbers) else "–"
    return f"{found['name']}: {told} ({found['edge']})"


def _key(row: Published) -> str:
    return f"{row.preset} | {row.case} | {row.quantity}"


def _machine(torch: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, torch {torch}"


def nearest(experiment: Experiment, record: Record) -> str:
    """The paper's setting from which a run differs least.

    Args:
        experiment: of the run.
        record: of it.

    Returns:
        The name of a preset of which numbers are published; where none are, of any that is not ours.
    """
    named = {row.preset for row in published(experiment.home) if _key(row) in record.values}
    theirs = [name for name in experiment.presets if name != "quick" and not name.startswith("afternoon")]
    among = [name for name in theirs if name in named] or theirs
    return min(among, key=lambda name: len(differences(experiment, record, name)), default="")


def differences(experiment: Experiment, record: Record, preset: str) -> dict[str, tuple[Any, Any]]:
    """In which settings a run differs from a preset.

    Args:
        experiment: of the run.
        record: of it.
        preset: its name.

    Returns:
        Setting -> what the paper has, what the run has.
    """
    paper = experiment.presets[preset].to_dict()
    own = dict(record.settings)
    if "dataset" in own:
        own["dataset"] = Path(own["dataset"]).stem  # the same data, out of a file
    return {
        name: (value, own[name]) for name, value in paper.items() if name not in QUICK and own[name] != value
    }


def compared(experiment: Experiment, record: Record, preset: str) -> list[Compared]:
    """The numbers of one of the paper's settings beside those of a run.

    Args:
        experiment: of the run.
        record: of it.
        preset: the paper's setting.

    Returns:
        Compared, in the order of the table.
    """
    rows = [row for row in published(experiment.home) if row.preset == preset]
    return [Compared(row, record.values[_key(row)]) for row in rows if _key(row) in record.values]


def told(lab: Lab, record: Record) -> str:
    """A run beside the published numbers, as text.

    Args:
        lab: of the run.
        record: of it.

    Returns:
        Lines: what was measured, published, ours, the difference; then what differs, and the verdicts.
    """
    experiment = lab.experiment(record.experiment)
    preset = nearest(experiment, record)
    lines = [f"{experiment.name}: {experiment.title}"]
    rows = compared(experiment, record, preset)
    table = [("", f"published ({preset})", "ours (seeds)", "difference")]
    table += [(f"{one.row.source}, {one.row.quantity}: {one.row.case}", *one.told()) for one in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines += [
        "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table
    ] if rows else ["  no number that the paper prints is measured by it"]  # fmt: skip
    if preset:
        off = differences(experiment, record, preset)
        other = ", ".join(f"{k} {b} ({preset} {a})" for k, (a, b) in off.items())
        lines.append(f"  settings: {other or f'those of {preset}'}")
    for id, word in record.verdicts.items():
        lines.append(f"  {id} {word}: {record.measured.get(id, '')}".rstrip(": "))
    if not record.verdicts:
        lines.append("  no verdicts, as it is not judged yet")
    lines.append(f"  {record.ended}, {record.seconds / 60:.0f} min, {record.machine}")
    return "\n".join(lines)


def to_json(lab: Lab, found: list[Record]) -> dict[str, Any]:
    """Records as JSON values, which `records` reads.

    Args:
        lab: of the runs.
        found: of them.

    Returns:
        A dictionary.
    """
    return {"lab": lab.name, "runs": [asdict(one) for one in found]}
