"""Running labs headless: choose the claims, run the experiments that decide them, judge.

The command line, the report and the tests all go through `audit`. It uses the same `drain` and `judge` as a
notebook, so an audit cannot come to another verdict than the lesson.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from labkit.headless.carry import Outcome, Progress, carry_out
from labkit.headless.plan import Task, plan
from labkit.headless.run_folder import Place, opened
from labkit.headless.versions import versions
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Lab, Run, resolve_device
from labkit.protocol.verdicts import Verdict, Verdicts


@dataclass(frozen=True)
class Failure:
    """An experiment that did not come to its end: it raised, and the others went on; or somebody interrupted.

    Attributes:
        message: what was raised, in one line; "" for an interruption.
        claims: the selected claims that stay undecided for it.
    """

    experiment: Experiment
    message: str
    claims: tuple[Claim, ...]

    def to_dict(self) -> dict[str, Any]:
        ids = [claim.id for claim in self.claims]
        message = self.message or "interrupted"
        return {"experiment": self.experiment.name, "message": message, "claims": ids}


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
        seconds: of runs and judging, added up; with several processes they pass side by side.
        preset: the name of the preset that the settings started from.
        failures: the experiments that raised, where the audit was told to go on, or were interrupted; their
            claims are not judged.
        pictures: experiment -> its figure as HTML, where figures were asked for.
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
    pictures: Mapping[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Experiment name -> setting -> value."""
        return {run.experiment.name: run.settings.to_dict() for run in self.runs}

    @property
    def interrupted(self) -> bool:
        """Whether it is a part of what was asked for."""
        return any(not failure.message for failure in self.failures)

    def to_json(self) -> dict[str, Any]:
        """The run as plain JSON values: NaN becomes null, an infinity the text "inf" or "-inf"."""
        return plain(
            {
                "lab": self.lab.name,
                "paper": self.lab.paper,
                "settings": self.settings,
                "notes": {run.experiment.name: run.note for run in self.runs if run.note},
                "seed": self.seed,
                "device": self.device,
                "versions": dict(self.versions),
                "seconds": round(self.seconds, 3),
                "interrupted": self.interrupted,
                "claims": [verdict.to_dict() for verdict in self.verdicts],
                "failures": [failure.to_dict() for failure in self.failures],
            }
        )


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in an audit, with what was done until then."""

    def __init__(self, results: tuple[AuditResult, ...]) -> None:
        super().__init__()
        self.results = results


def audit(
    lab: Lab,
    *,
    all_claims: bool = False,
    experiments: Sequence[str] = (),
    preset: str = "quick",
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    keep_going: bool = False,
    draw: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
    approve: Callable[[Sequence[Task]], None] | None = None,
    folder: Path | None = None,
    page: Callable[[AuditResult], str] | None = None,
) -> AuditResult:
    """Runs the experiments that decide the selected claims, and judges those claims.

    Args:
        lab: the lab to run.
        all_claims: every claim of the lab, rather than its core claims.
        experiments: names; these alone, with all their claims.
        preset: where the settings start from.
        changes: setting -> value, or its text as on a command line; for every experiment that has it.
        seed: the first seed.
        device: "auto", "cpu", "cuda" or "mps".
        keep_going: an experiment that raises becomes one of the result's failures, and the others still run;
            one that wants more memory than there is does so in any case.
        draw: make the figures, too.
        executor: where to run; this thread when left out.
        progress: told the share done, of the time expected, and the experiment's name.
        approve: is given what will be run before anything is, and may raise.
        folder: where the run is kept while it goes on; one that was ended there goes on from there.
        page: makes the page of an experiment so far, for the folder; at the top level of a module.

    Returns:
        AuditResult: the runs, the verdicts and, with `keep_going`, the failures.

    Raises:
        ValueError: an unknown experiment, preset, setting or device, a value out of its range, or a folder
            in which another run is or goes on.
        Exception: what `approve` raised or, without `keep_going`, an experiment.
        Interrupted: by Ctrl-C, once an experiment is done.
    """
    changes = dict(changes or {})
    device = resolve_device(str(changes.pop("device", device)))
    tasks = plan(
        lab, all_claims=all_claims, experiments=experiments, preset=preset, changes=changes, seed=seed,
        device=device,
    )  # fmt: skip
    if approve is not None:
        approve(tasks)
    facts = {"seed": tasks[0].settings.seed if tasks else seed, "device": device, "preset": preset}
    with nullcontext() if folder is None else opened(folder, _settled(tasks)):
        if folder is not None:
            place = Place(folder, page and partial(_page_so_far, page, lab, facts))
            tasks = [replace(task, place=place) for task in tasks]
        (result,) = _audit([lab], tasks, facts, keep_going, draw, executor, progress)
    return result


def _page_so_far(
    page: Callable[[AuditResult], str], lab: Lab, facts: Mapping[str, Any], run: Run, picture: str
) -> str:
    found = {run.experiment.name: picture}
    return page(
        AuditResult(
            lab, (run,), Verdicts(()), versions=versions(), seconds=run.seconds, pictures=found, **facts
        )
    )


def _settled(tasks: Sequence[Task]) -> dict[str, Any]:
    """All that decides what comes out, as a folder keeps it."""
    found = {"lab": tasks[0].lab.name} if tasks else {}
    for task in tasks:
        found |= {f"{task.experiment.name}: {k}": v for k, v in task.settings.to_dict().items()}
    return plain(found)


def audit_labs(
    labs: Sequence[Lab],
    *,
    all_claims: bool = True,
    preset: str = "quick",
    seed: int = 0,
    device: str = "cpu",
    draw: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> tuple[AuditResult, ...]:
    """Audits several labs; an experiment that raises does not lose the others.

    Args:
        labs: what to audit, in this order.
        all_claims, preset, seed, device, draw, executor: as for `audit`.
        progress: told the share of the whole that is done, and "lab number experiment".

    Returns:
        One AuditResult a lab.

    Raises:
        ValueError: a preset that an experiment of any lab lacks, or an unknown device; before the first run.
        Interrupted: by Ctrl-C, once an experiment is done.
    """
    device = resolve_device(device)
    tasks = [
        task
        for lab in labs
        for task in plan(lab, all_claims=all_claims, preset=preset, seed=seed, device=device)
    ]
    facts = {"seed": seed, "device": device, "preset": preset}
    return _audit(labs, tasks, facts, True, draw, executor, progress)


def _audit(
    labs: Sequence[Lab],
    tasks: Sequence[Task],
    facts: Mapping[str, Any],
    keep_going: bool,
    draw: bool,
    executor: Executor | None,
    progress: Progress | None,
) -> tuple[AuditResult, ...]:
    outcomes: dict[int, Outcome] = {}

    def results() -> tuple[AuditResult, ...]:
        return tuple(_result(lab, tasks, outcomes, facts) for lab in labs)

    try:
        carry_out(
            tasks, outcomes, keep_going=keep_going, draw=draw, executor=executor, progress=progress
        )  # fmt: skip
    except KeyboardInterrupt:
        if any(outcome.run for outcome in outcomes.values()):
            raise Interrupted(results()) from None
        raise
    return results()


def _result(
    lab: Lab, tasks: Sequence[Task], outcomes: Mapping[int, Outcome], facts: Mapping[str, Any]
) -> AuditResult:
    runs, failures, seconds = [], [], 0.0
    pictures: dict[str, str] = {}
    verdicts: dict[str, Verdict] = {}
    for place, task in enumerate(tasks):
        if task.lab is not lab:
            continue
        found = outcomes.get(place, Outcome(None, {}))
        seconds += found.seconds
        verdicts.update(found.verdicts)
        if found.run is None:
            failures.append(Failure(task.experiment, found.message, task.claims))
            continue
        runs.append(found.run)
        if found.picture:
            pictures[task.experiment.name] = found.picture
    return AuditResult(
        lab=lab,
        runs=tuple(runs),
        verdicts=Verdicts(verdicts[claim.id] for claim in lab.claims if claim.id in verdicts),
        versions=versions(),
        seconds=seconds,
        failures=tuple(failures),
        pictures=pictures,
        **facts,
    )


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
