"""Replication: every experiment over disjoint blocks of seeds, and how often each word came out.

Block b of an experiment with S seeds has the seeds b·S … (b + 1)·S − 1; block 0 is what a notebook shows.
Each finished block is written at once, so that an interrupted replication goes on where it stopped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from labkit.headless.files import write_atomically
from labkit.headless.listing import store
from labkit.headless.sweep import Failed, sweep
from labkit.headless.versions import versions
from labkit.protocol.experiment import Experiment, Lab, Run
from labkit.protocol.judging import judge
from labkit.protocol.replication import FILE, SHARE, Replication, counted, data_file, mark, recorded

# Called with the share that is done, in [0, 1], and what has just come out.
Progress = Callable[[float, str], None]
# Of a block: what was judged, and the seconds that it took.
Kept = tuple[Mapping[str, Any], float] | Failed


@dataclass(frozen=True)
class Replicated:
    """A claim after its replication.

    Attributes:
        id, expected: of the claim.
        replication: how often each word came out.
        failed: what blocks raised that did not come to their end.
    """

    id: str
    expected: str
    replication: Replication
    failed: tuple[str, ...] = ()

    @property
    def enough(self) -> bool:
        """Does the expected word come out in at least 19 of 20 blocks?"""
        return not self.failed and self.replication.share >= SHARE


def replicate(
    labs: Sequence[Lab],
    *,
    blocks: int = 20,
    executor: Executor | None = None,
    folder: Path | None = None,
    only: Sequence[str] = (),
    progress: Progress | None = None,
) -> tuple[Replicated, ...]:
    """Runs every experiment of the labs over disjoint blocks of seeds, and counts the words of each claim.

    A block that raises is tried once more, and does not lose the others. What is recorded already, with the
    present settings and rules, is not run again; what `labkit claims` lists is written anew in any case.

    Args:
        labs: what to replicate.
        blocks: how many blocks of seeds.
        executor: where to run; this process when left out.
        folder: where the data files are written, one a lab; into the package itself when left out.
        only: names of experiments; all when empty.
        progress: told the share done after each block.

    Returns:
        One Replicated a claim.

    Raises:
        ValueError: blocks is not positive, or `only` names an experiment that no lab has.
    """
    _check(labs, blocks, only)
    records = {lab.number: _Record(lab, folder) for lab in labs}
    wanted = [(lab, e) for lab in labs for e in lab.experiments if not only or e.name in only]
    missing = [records[lab.number].missing(experiment, blocks) for lab, experiment in wanted]
    total, done = sum(map(len, missing)), 0

    def note(lab: Lab, name: str, settings: Any, kept: Kept) -> None:
        nonlocal done
        done += 1
        words = records[lab.number].add(name, settings, kept)
        if progress is not None:
            progress(done / total, f"{lab.number} {name}, seed {settings.seed}: {words}")

    try:
        for (lab, experiment), seeds in zip(wanted, missing, strict=True):
            if seeds:
                each = partial(note, lab, experiment.name)
                sweep(experiment, {"seed": seeds}, executor=executor, keep=_judged_and_timed, each=each)
    finally:  # The listing tells of these counts.
        for lab in labs if folder is None else ():
            store(lab)
    return tuple(row for lab, experiment in wanted for row in records[lab.number].rows(experiment, blocks))


def _check(labs: Sequence[Lab], blocks: int, only: Sequence[str]) -> None:
    if blocks < 1:
        raise ValueError(f"blocks must be at least 1; got {blocks}")
    known = [experiment.name for lab in labs for experiment in lab.experiments]
    if unknown := [name for name in only if name not in known]:
        raise ValueError(f"experiment: no lab here has {', '.join(unknown)}; there is {', '.join(known)}")


def judged(run: Run) -> dict[str, dict[str, Any]]:
    """Claim -> word, distance and measured numbers of a run: what is kept of a block.

    Args:
        run: of one block of seeds.

    Returns:
        Plain data, as the data file holds it.

    Raises:
        KeyError, ValueError, IndexError: as `judge`.
    """
    found = {}
    for claim in run.experiment.claims:
        verdict = judge(claim, run)
        near = verdict.distance
        measured = [[float(f"{value:.4g}") for value in part.measured] for part in verdict.parts]
        found[claim.id] = {
            "word": verdict.word,
            "distance": float(f"{near:.3g}") if math.isfinite(near) else None,
            "measured": [[v if math.isfinite(v) else None for v in values] for values in measured],
        }
        if verdict.vacuous:
            found[claim.id]["vacuous"] = True
    return found


def _judged_and_timed(run: Run) -> tuple[dict[str, dict[str, Any]], float]:
    return judged(run), run.seconds


class _Record:
    """The data file of one lab, and what blocks raised that are missing in it."""

    def __init__(self, lab: Lab, folder: Path | None) -> None:
        self.lab = lab
        path = folder / f"{lab.name}.json" if folder else data_file(lab.experiments[0].home, FILE)
        assert path is not None
        self.path = path
        self.claims = self._read()
        self.failed: dict[str, list[str]] = {}

    def _read(self) -> dict[str, Any]:
        """What is recorded of the claims as they are: with other settings or rules it counts no more."""
        there = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
        self.seconds: dict[str, float] = there.get("seconds", {})
        found = {}
        for experiment in self.lab.experiments:
            for claim in experiment.claims:
                now = mark(claim, experiment.presets["quick"])
                old = there.get("claims", {}).get(claim.id, {})
                found[claim.id] = old if old.get("mark") == now else {"mark": now, "blocks": {}}
        return found

    def missing(self, experiment: Experiment, blocks: int) -> list[int]:
        """The first seeds of the blocks that are still to be run."""
        wanted = self._seeds(experiment, blocks)
        ids = [claim.id for claim in experiment.claims]
        return [s for s in wanted if any(str(s) not in self.claims[id]["blocks"] for id in ids)]

    def add(self, name: str, settings: Any, kept: Kept) -> str:
        """Writes down a block of an experiment, unless it failed; what came out, in words."""
        if isinstance(kept, Failed):
            self.failed.setdefault(name, []).append(f"seed {settings.seed}: {kept.message}")
            return kept.message
        found, seconds = kept
        self.claims = self._read()  # Another replication may have written other experiments since.
        self.seconds[name] = round(seconds, 1)
        for id, block in found.items():
            blocks = {**self.claims[id]["blocks"], str(settings.seed): block}
            self.claims[id]["blocks"] = dict(sorted(blocks.items(), key=lambda item: int(item[0])))
        lines = ",\n".join(
            f" {json.dumps(id)}: {json.dumps(record)}"
            for id, record in self.claims.items()
            if record["blocks"]
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        facts = "".join(
            f'"{key}": {json.dumps(value)},\n'
            for key, value in (("versions", versions()), ("seconds", self.seconds))
        )
        write_atomically(self.path, f'{{{facts}"claims": {{\n{lines}\n}}}}\n')
        recorded.cache_clear()
        return ", ".join(f"{id} {block['word']}" for id, block in found.items())

    def rows(self, experiment: Experiment, blocks: int) -> list[Replicated]:
        wanted = {str(seed) for seed in self._seeds(experiment, blocks)}
        return [
            Replicated(claim.id, claim.expected, counted(
                claim.expected,
                [block for seed, block in self.claims[claim.id]["blocks"].items() if seed in wanted],
                experiment.presets["quick"].seeds,
            ), tuple(self.failed.get(experiment.name, ())))
            for claim in experiment.claims
        ]  # fmt: skip

    @staticmethod
    def _seeds(experiment: Experiment, blocks: int) -> range:
        seeds = experiment.presets["quick"].seeds
        return range(0, blocks * seeds, seeds)
