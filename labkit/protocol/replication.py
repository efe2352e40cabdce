"""How often a verdict came out over disjoint blocks of seeds: one small data file a lab, in the package.

    {"versions": {...}, "seconds": {"spectrum": 3.1, …},
     "claims": {"J3": {"mark": "…", "blocks": {"0": {"word": "holds", "distance": 7.1,
                                                                         "measured": [[45.0]]}, …}}}}

*Seconds* are those of an experiment's newest block, on one core. The *mark* is of the settings (seed and
device apart) and of the rules; a file with another mark is stale, and says nothing of the claim as it is now.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment

FILE = "replication.json"
# The share of blocks in which the expected word must come out.
SHARE = 0.95


@dataclass(frozen=True)
class Replication:
    """How often each word came out.

    Attributes:
        expected: the word that the claim expects.
        words: word -> number of blocks.
        seeds: seeds a block.
        least: the smallest distance, over blocks, from the place where the word changes.
        vacuous: blocks in which the bound says less than a trivial one.
    """

    expected: str
    words: Mapping[str, int]
    seeds: int
    least: float = float("inf")
    vacuous: int = 0

    @property
    def blocks(self) -> int:
        return sum(self.words.values())

    @property
    def share(self) -> float:
        return self.words.get(self.expected, 0) / max(self.blocks, 1)

    def __str__(self) -> str:
        return f"{self.words.get(self.expected, 0)} of {self.blocks} blocks"

    def to_dict(self) -> dict[str, Any]:
        return {
            "expected": self.words.get(self.expected, 0), "blocks": self.blocks, "words": dict(self.words),
            "seeds": self.seeds, "least_distance": self.least, "vacuous": self.vacuous,
        }  # fmt: skip


def mark(claim: Claim, settings: Any) -> str:
    """A hash of what a verdict depends on: the settings but seed and device, and the rules.

    Args:
        claim: whose rules count.
        settings: of its experiment.

    Returns:
        Hexadecimal digits.
    """
    values = {k: v for k, v in settings.to_dict().items() if k not in ("seed", "device")}
    # Not their repr, which shows a NumPy scalar differently from version to version.
    rules = [[type(rule).__name__, asdict(rule)] for rule in claim.rules]
    told = json.dumps([values, rules], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def replication_of(claim: Claim, experiment: Experiment, settings: Any) -> Replication | None:
    """The replication of a claim at these settings, or None where there is none.

    Args:
        claim: whose words were counted.
        experiment: that decides it.
        settings: at which.

    Returns:
        Replication, or None.
    """
    record = recorded(experiment.home)["claims"].get(claim.id) if experiment.home else None
    if record is None or not record["blocks"] or record["mark"] != mark(claim, settings):
        return None
    return counted(claim.expected, list(record["blocks"].values()), settings.seeds)


def seconds_of(experiment: Experiment) -> float | None:
    """How long the quick preset took on one core when it was replicated, or None where nobody noted it.

    Args:
        experiment: of a lab.

    Returns:
        Seconds, of the newest block.
    """
    return recorded(experiment.home).get("seconds", {}).get(experiment.name) if experiment.home else None


def counted(expected: str, blocks: Sequence[Mapping[str, Any]], seeds: int) -> Replication:
    """Counts the words of blocks as the data file holds them.

    Args:
        expected: the word that the claim expects.
        blocks: one mapping a block of seeds.
        seeds: in a block.

    Returns:
        Replication.
    """
    words = [block["word"] for block in blocks]
    distances = [float("inf") if block["distance"] is None else block["distance"] for block in blocks]
    counts = {word: words.count(word) for word in dict.fromkeys(words)}
    least = min(distances, default=float("inf"))
    return Replication(expected, counts, seeds, least, sum("vacuous" in block for block in blocks))


@lru_cache(maxsize=16)
def recorded(package: str) -> dict[str, Any]:
    """What the data file of a lab holds; empty where there is none."""
    nothing: dict[str, Any] = {"versions": {}, "claims": {}}
    path = data_file(package, FILE)
    if path is None or not path.is_file():
        return nothing
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def data_file(package: str, name: str) -> Path | None:
    """Where a package keeps a data file, found without importing it; None where it is no package.

    Args:
        package: its full name.
        name: of the file.

    Returns:
        The path, of a file that need not be there.
    """
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) / name if places else None
