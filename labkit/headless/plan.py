"""What an audit will run: experiments with their settings, all checked before the first one starts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labkit.headless.run_folder import Place
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Lab
from labkit.protocol.replication import seconds_of


@dataclass(frozen=True)
class Task:
    """An experiment that is to be run.

    Attributes:
        lab: it belongs to.
        settings: at which.
        claims: those of its claims that are to be decided.
        place: where the run is kept, so that another process can go on with it; None: nowhere.
    """

    lab: Lab
    experiment: Experiment
    settings: Any
    claims: tuple[Claim, ...]
    place: Place | None = None

    @property
    def weight(self) -> float:
        """How long it takes beside others: the seconds of its quick preset when it was replicated, or 5."""
        return seconds_of(self.experiment) or 5.0


def plan(
    lab: Lab,
    *,
    all_claims: bool,
    experiments: Sequence[str] = (),
    preset: str = "quick",
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> list[Task]:
    """The tasks of an audit of one lab, in the lab's order.

    Args:
        lab, all_claims, experiments, preset, changes, seed, device: as `audit` takes them.

    Returns:
        One Task an experiment.

    Raises:
        ValueError: an unknown experiment, preset or setting, or a value out of its range.
    """
    named = [lab.experiment(name) for name in experiments]
    selected = [claim for claim in lab.claims if all_claims or named or claim.id in lab.core]
    wanted = {claim.id for claim in selected}
    chosen = [e for e in named or lab.experiments if wanted.intersection(claim.id for claim in e.claims)]
    changes = dict(changes or {})
    _check_names(lab, chosen, changes)
    tasks = []
    for experiment in sorted(chosen, key=lab.experiments.index):
        known = experiment.settings.knobs()
        own = {name: value for name, value in changes.items() if name in known}
        texts = {name: value for name, value in own.items() if isinstance(value, str)}
        there = device if device in (known["device"].choices or ()) else "cpu"
        settings = experiment.preset(preset, seed=seed, device=there)
        settings = settings.parse(texts).replace(**{n: v for n, v in own.items() if n not in texts})
        claims = tuple(claim for claim in experiment.claims if claim.id in wanted)
        tasks.append(Task(lab, experiment, settings, claims))
    return tasks


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
                f"{name} is a setting of {', '.join(owners[name])} alone, which this run leaves out; run all "
                "claims to change it (all_claims=True, --all-claims), or name the experiment (--experiment)"
            )
