"""Judging: from a claim and a run to a word, with the distance to the place where the word changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Run, drain
from labkit.protocol.replication import replication_of
from labkit.protocol.rules import EVERY, LEAST_SEEDS, AtMost, Check, Evidence, Rule, pair
from labkit.protocol.statistics import half_width
from labkit.protocol.verdicts import Part, Verdict, Verdicts

# A claim with several parts is as good as its worst part.
_SEVERITY = ("fails", "undecided", "out of regime", "holds", "reported")
_MANY = 6  # entries that are shown one by one; of more, the one nearest to its edge


def judge(claim: Claim, run: Run) -> Verdict:
    """Decides a claim from one run.

    A run that diverged before it measured what the claim looks at leaves the claim undecided.

    Args:
        claim: what to decide.
        run: one run of the claim's experiment.

    Returns:
        Verdict: the word, and the numbers it rests on.

    Raises:
        KeyError, ValueError, IndexError: the run does not carry yet what the claim looks at (a partial run).
    """
    diverged = run.status == "diverged"
    try:
        found = claim.measure(run)
    except (KeyError, ValueError, IndexError):
        if not diverged:
            raise
        found = (Evidence(checks=(Check("what it looks at was not reached", 1, 0),)),) * len(claim.rules)
    evidence = found if isinstance(found, tuple) else (found,)
    if len(evidence) != len(claim.rules):
        raise ValueError(f"{claim.id}: {len(evidence)} pieces of evidence for {len(claim.rules)} rules")
    parts = tuple(_decide(rule, piece) for rule, piece in zip(claim.rules, evidence, strict=True))
    word = min((part.word for part in parts), key=_SEVERITY.index)
    reason = "; ".join(dict.fromkeys(part.reason for part in parts if part.reason))
    if diverged and word in ("holds", "reported", "undecided"):
        # More seeds would diverge, too.
        word, reason = "undecided", f"the run diverged: {run.frames[-1].note or 'lower the learning rate'}"
    return Verdict(
        claim, word, word == "holds" and any(piece.vacuous for piece in evidence), parts, reason,
        replication_of(claim, run.experiment, run.settings), run.experiment.name, run.settings.to_dict(),
    )  # fmt: skip


def judge_all(run: Run, ids: tuple[str, ...] | None = None) -> Verdicts:
    """Judges the run's claims, or those named.

    Args:
        run: one run of an experiment.
        ids: of the claims; all of the experiment's when left out. Others are passed over.

    Returns:
        Verdicts, in the order of the claims.

    Raises:
        KeyError, ValueError, IndexError: as `judge`.
    """
    return Verdicts(judge(claim, run) for claim in run.experiment.claims if ids is None or claim.id in ids)


def _decide(rule: Rule, evidence: Evidence) -> Part:
    word, reason, distance = _word(rule, evidence)
    predicted, measured, wide, labels = _entries(rule, evidence)
    size = 0 if evidence.measured is None else len(np.atleast_1d(np.asarray(evidence.measured)))
    return Part(
        rule, word, predicted, measured, wide, labels, size, _tightness(rule, evidence), distance, reason,
        evidence.note,
    )  # fmt: skip


def _word(rule: Rule, evidence: Evidence) -> tuple[str, str, float]:
    """Word, reason, and distance from the place where the word changes."""
    for condition in evidence.conditions:
        if not condition.met:
            return "out of regime", str(condition), np.inf
    for check in evidence.checks:
        if not check.met:
            return "undecided", f"{check}{f'; {check.remedy}' if check.remedy else ''}", 0.0
    if rule.reports:
        return "reported", "", np.inf
    margins = rule.components(evidence)
    if np.isnan(margins).any():
        return "undecided", f"{rule.quantity}: a measured value is not a number", 0.0
    return _every_seed(rule, margins) if rule.by == EVERY else _by_interval(rule, margins)


def _every_seed(rule: Rule, margins: np.ndarray) -> tuple[str, str, float]:
    least = margins.min(axis=0)
    # A bound that is infinite for one seed has no spread there.
    finite = np.isfinite(margins).all(axis=0)
    between = np.zeros(len(least))
    if len(margins) > 1:
        between[finite] = margins[:, finite].std(axis=0, ddof=1)
    if (least >= 0).all():
        return "holds", "", float(_ratios(least, between).min())
    beyond = int((margins < 0).any(axis=1).sum())
    told = f"{rule.quantity}: beyond the edge in {beyond} of {len(margins)} seeds"
    return "fails", told, _furthest(-least, between)


def _by_interval(rule: Rule, margins: np.ndarray) -> tuple[str, str, float]:
    seeds = len(margins)
    if seeds < LEAST_SEEDS:
        told = f"an interval needs {LEAST_SEEDS} seeds, this run has {seeds}; raise seeds"
        return "undecided", f"{rule.quantity}: {told}", 0.0
    mean, half = margins.mean(axis=0), half_width(margins)
    between = margins.std(axis=0, ddof=1) / np.sqrt(seeds)
    low, high = mean - half, mean + half
    if (high < 0).any():
        return "fails", f"{rule.quantity}: the interval lies beyond the edge", _furthest(-high, between)
    if (low >= 0).all():
        return "holds", "", float(_ratios(low, between).min())
    distance = min(_furthest(-low, between), float(_ratios(high, between).min()))
    told = f"the interval over {seeds} seeds lies across the edge; more seeds narrow it"
    return "undecided", f"{rule.quantity}: {told}", distance


def _furthest(excess: np.ndarray, between: np.ndarray) -> float:
    """Any one column keeps the word what it is, so the furthest counts."""
    return float(_ratios(excess, between)[excess > 0].max())


def _ratios(size: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """size / unit, infinite where there is no spread."""
    return np.divide(size, unit, out=np.full(len(size), np.inf), where=unit > 0)


def _tightness(rule: Rule, evidence: Evidence) -> float | None:
    if not isinstance(rule, AtMost) or evidence.measured is None:
        return None
    measured, predicted = pair(evidence)
    positive = measured > 0
    return float((predicted[positive] / measured[positive]).min()) if positive.any() else np.inf


def _entries(
    rule: Rule, evidence: Evidence
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
    """What is shown of a part: predicted, measured, spread and label of each entry.

    All entries of a short row; of a longer one, or of a curve, the entry nearest to its edge, seed by seed.
    """
    if evidence.measured is None:
        return (), (), (), ()
    measured = np.atleast_1d(np.asarray(evidence.measured, dtype=float))
    predicted = None
    if evidence.predicted is not None:
        predicted = np.broadcast_to(np.asarray(evidence.predicted, dtype=float), measured.shape)
    flat = measured.reshape(len(measured), -1)
    columns = None if predicted is None else predicted.reshape(len(measured), -1)
    labels = rule.groups if len(rule.groups) == flat.shape[1] else ("",) * flat.shape[1]
    if flat.shape[1] > (_MANY if any(labels) else 1):
        nearest = _nearest(rule, evidence, flat.shape[1])
        rows = np.arange(len(flat))
        flat = flat[rows, nearest][:, None]
        columns = None if columns is None else columns[rows, nearest][:, None]
        labels = ("nearest to its edge",)
    wide = flat.std(axis=0, ddof=1) if len(flat) > 1 else np.zeros(flat.shape[1])
    means = () if columns is None else tuple(float(v) for v in columns.mean(axis=0))
    # Equal values have a spread of rounding.
    wide = np.where(wide > 1e-12 * np.abs(flat).max(axis=0), wide, 0.0)
    return means, tuple(float(v) for v in flat.mean(axis=0)), tuple(float(v) for v in wide), labels


def _nearest(rule: Rule, evidence: Evidence, count: int) -> np.ndarray:
    """Of each seed, the entry with the smallest margin."""
    if rule.reports:
        return np.zeros(len(np.atleast_1d(np.asarray(evidence.measured))), dtype=int)
    margins = rule.components(evidence)
    margins = np.where(np.isnan(margins), -np.inf, margins)
    return margins.argmin(axis=1) % count


@contextmanager
def planted(faults: Mapping[str, Any]) -> Iterator[None]:
    """Plants faults in the measuring code and takes them out again: "module:name" -> original -> faulty.

    Args:
        faults: "module:name" -> a function from the original to what takes its place.

    Returns:
        A context manager; the originals are back when it ends, also after an exception.

    Raises:
        AttributeError: the module has no such name, so that the fault would change nothing.
    """
    with ExitStack() as undo:
        for target, fault in faults.items():
            module, _, path = target.partition(":")
            *owners, name = path.split(".")
            owner: Any = import_module(module)
            for one in owners:
                owner = getattr(owner, one)
            original = getattr(owner, name)
            setattr(owner, name, fault(original))
            undo.callback(setattr, owner, name, original)
        yield


def run_in(world: World, experiment: Experiment, settings: Any = None) -> Run:
    """Runs an experiment in another world: with other settings, or with a fault planted.

    Args:
        world: whose settings or faults hold.
        experiment: what to run.
        settings: before the world changes them; the quick preset when left out.

    Returns:
        Run.
    """
    settings = experiment.presets["quick"] if settings is None else settings
    with planted(world.faults):
        return drain(experiment, settings.replace(**world.changes))
