"""Running a lab headless: choose the claims, run the experiments that decide them, judge.

The command line, the report and the tests all go through `audit`. It uses the same `drain` and `judge` as a
notebook, so an audit cannot come to another verdict than the lesson.
"""

from __future__ import annotations

import difflib
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Lab, Run, drain, resolve_device
from labkit.protocol.judging import judge
from labkit.protocol.verdicts import Verdict, Verdicts

# Called with the share of the audit that is done, in [0, 1], and the experiment being run.
Progress = Callable[[float, str], None]

_VERSIONED = ("labkit", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "matplotlib")


@dataclass(frozen=True)
class Failure:
    """An experiment that raised in an audit of several labs, which went on without it.

    Attributes:
        message: what was raised, in one line.
        claims: the selected claims that stay undecided for it.
    """

    experiment: Experiment
    message: str
    claims: tuple[Claim, ...]

    def to_dict(self) -> dict[str, Any]:
        ids = [claim.id for claim in self.claims]
        return {"experiment": self.experiment.name, "message": self.message, "claims": ids}


@dataclass(frozen=True)
class AuditResult:
    """One audit: which runs were made and what they decided.

    Attributes:
        lab: the lab that was run.
        runs: one run an experiment, in the lab's order.
        verdicts: one a selected claim, in the order of the claims' numbers.
        seed: the first seed of every run.
        device: the device in use, never "auto".
        versions: package -> version.
        seconds: wall-clock time of runs and judging together.
        preset: the name of the preset that the settings started from.
        failures: the experiments that raised, where the audit was told to go on; their claims are not judged.
    """

    lab: Lab
    runs: tuple[Run, ...]
    verdicts: Verdicts
    seed: int
    device: str
    versions: Mapping[str, str]
    seconds: float
    preset: str = "quick"
    failures: tuple[Failure, ...] = ()

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Experiment name -> setting -> value."""
        return {run.experiment.name: run.settings.to_dict() for run in self.runs}

    def to_json(self) -> dict[str, Any]:
        """The run as plain JSON values: NaN becomes null, an infinity the text "inf" or "-inf"."""
        return plain(
            {
                "lab": self.lab.name,
                "paper": self.lab.paper,
                "settings": self.settings,
                "seed": self.seed,
                "device": self.device,
                "versions": dict(self.versions),
                "seconds": round(self.seconds, 3),
                "claims": [verdict.to_dict() for verdict in self.verdicts],
            }
        )


def audit(
    lab: Lab,
    *,
    all_claims: bool = False,
    preset: str = "quick",
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
    keep_going: bool = False,
) -> AuditResult:
    """Runs the experiments that decide the selected claims, and judges those claims.

    Args:
        lab: the lab to run.
        all_claims: every claim of the lab, rather than its core claims.
        preset: where the settings start from.
        changes: setting -> value, or its text as on a command line; for every experiment that has it.
        seed: the first seed.
        device: "auto", "cpu", "cuda" or "mps".
        progress: told, frame by frame, the share done and the experiment's name.
        keep_going: an experiment that raises becomes one of the result's failures, and the others still run.

    Returns:
        AuditResult: the runs, the verdicts and, with `keep_going`, the failures.

    Raises:
        ValueError: an unknown preset, setting or device, or a value out of its range.
    """
    changes = dict(changes or {})
    device = resolve_device(str(changes.pop("device", device)))
    selected = [claim for claim in lab.claims if all_claims or claim.id in lab.core]
    planned = _plan(lab, selected, preset, changes, seed, device)
    start = time.perf_counter()
    wanted = {claim.id: claim for claim in selected}
    runs: list[Run] = []
    verdicts: dict[str, Verdict] = {}
    failures: list[Failure] = []

    def failed(experiment: Experiment, problem: Exception) -> None:
        if not keep_going:
            raise problem
        message = " ".join(f"{type(problem).__name__}: {problem}".removesuffix(": ").split())
        lost = tuple(claim for claim in experiment.claims if claim.id in wanted)
        failures.append(Failure(experiment, message, lost))

    for experiment, settings in planned:
        # A data set that is not there is told now, and not after half of the runs.
        try:
            experiment.prepare(settings)
        except Exception as problem:
            failed(experiment, problem)
    unprepared = {failure.experiment.name for failure in failures}
    for index, (experiment, settings) in enumerate(planned):
        if experiment.name in unprepared:
            continue
        report = _reporter(progress, experiment.name, index, len(planned))
        try:
            run = drain(experiment, settings, progress=report)
            decided = {claim.id: judge(claim, run) for claim in experiment.claims if claim.id in wanted}
        except Exception as problem:
            failed(experiment, problem)
        else:
            runs.append(run)
            verdicts.update(decided)
    if progress is not None:
        progress(1.0, "done")
    return AuditResult(
        lab=lab,
        runs=tuple(runs),
        verdicts=Verdicts(verdicts[id] for id in wanted if id in verdicts),
        seed=runs[0].settings.seed if runs else seed,
        device=device,
        versions=versions(),
        seconds=time.perf_counter() - start,
        preset=preset,
        failures=tuple(failures),
    )


def audit_labs(
    labs: Sequence[Lab],
    *,
    all_claims: bool = True,
    preset: str = "quick",
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[AuditResult, ...]:
    """Audits several labs, one after the other; an experiment that raises does not lose the others.

    Args:
        labs: what to audit, in this order.
        all_claims, preset, seed, device: as for `audit`.
        progress: told the share of the whole that is done, and "lab number experiment".

    Returns:
        One AuditResult a lab.

    Raises:
        ValueError: a preset that an experiment of any lab lacks, or an unknown device; before the first run.
    """
    device = resolve_device(device)
    sizes = []
    for lab in labs:
        selected = [claim for claim in lab.claims if all_claims or claim.id in lab.core]
        sizes.append(len(_plan(lab, selected, preset, {}, seed, device)))
    results = []
    for index, lab in enumerate(labs):
        whole = max(sum(sizes), 1)
        inner = _inner(progress, lab, sum(sizes[:index]) / whole, sizes[index] / whole)
        results.append(
            audit(
                lab,
                all_claims=all_claims,
                preset=preset,
                seed=seed,
                device=device,
                progress=inner,
                keep_going=True,
            )  # fmt: skip
        )
    if progress is not None:
        progress(1.0, "done")
    return tuple(results)


def _inner(progress: Progress | None, lab: Lab, before: float, share: float) -> Progress | None:
    """The progress of one lab as a part of the whole."""
    if progress is None:
        return None
    outer = progress
    return lambda done, name: outer(before + share * done, f"{lab.number} {name}") if done < 1 else None


def versions() -> dict[str, str]:
    """The versions that a result depends on; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def plain(value: Any) -> Any:
    """Reduces a value to what JSON can hold, NumPy scalars and arrays included.

    Args:
        value: numbers, text, arrays, and mappings and sequences of them.

    Returns:
        The same of Python's own kinds.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _plan(
    lab: Lab, selected: list[Claim], preset: str, changes: dict[str, Any], seed: int, device: str
) -> list[tuple[Experiment, Any]]:
    """The experiments to run with their settings, all checked before the first one starts."""
    wanted = {claim.id for claim in selected}
    chosen = [e for e in lab.experiments if wanted.intersection(claim.id for claim in e.claims)]
    _check_names(lab, chosen, changes)
    planned = []
    for experiment in chosen:
        known = experiment.settings.knobs()
        own = {name: value for name, value in changes.items() if name in known}
        texts = {name: value for name, value in own.items() if isinstance(value, str)}
        settings = experiment.preset(preset, seed=seed, device=device)
        settings = settings.parse(texts).replace(**{n: v for n, v in own.items() if n not in texts})
        planned.append((experiment, settings))
    return planned


def _check_names(lab: Lab, chosen: list[Experiment], changes: Mapping[str, Any]) -> None:
    """Refuses a setting that would change nothing: one that no experiment has, or none of those that run."""
    owners: dict[str, list[str]] = {}
    for experiment in lab.experiments:
        for name in experiment.settings.knobs():
            owners.setdefault(name, []).append(experiment.name)
    running = {experiment.name for experiment in chosen}
    for name in changes:
        if name not in owners:
            close = difflib.get_close_matches(name, owners, n=3)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            known = ", ".join(sorted(owners))
            raise ValueError(f"{name} is not a setting of {lab.name}; {hint}settings: {known}")
        if not running.intersection(owners[name]):
            raise ValueError(
                f"{name} is a setting of {', '.join(owners[name])} alone, which the core claims do not need; "
                "run all claims to change it (all_claims=True, --all-claims)"
            )


def _reporter(progress: Progress | None, name: str, index: int, count: int) -> Callable[[Frame], None] | None:
    if progress is None:
        return None
    progress(index / count, name)
    return lambda frame: progress((index + min(max(frame.progress or 0.0, 0.0), 1.0)) / count, name)
