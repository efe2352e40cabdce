"""What the labs claim, stored beside each lab: a listing needs neither the lab nor torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from labkit.headless.files import write_atomically
from labkit.labs import find_lab, load_lab
from labkit.protocol.experiment import Lab
from labkit.protocol.replication import data_file, replication_of

FILE = "claims.json"


def listed(lab: int | str) -> list[dict[str, Any]]:
    """What is known of each claim of a lab before any run here, as plain JSON values.

    Args:
        lab: its number or name.

    Returns:
        One row a claim: as it is stored, or from the lab itself where nothing is.

    Raises:
        ValueError: there is no such lab.
    """
    _, _, package = find_lab(lab)
    path = data_file(package, FILE)
    if path is None or not path.is_file():
        return told(load_lab(lab))
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def told(lab: Lab) -> list[dict[str, Any]]:
    """The same from the lab itself, with the replications at the quick preset.

    Args:
        lab: whose claims are told.

    Returns:
        One row a claim, in the order of their numbers.
    """
    from labkit.headless.audit import plain

    return [plain(row) for row in _rows(lab)]


def _rows(lab: Lab) -> Iterator[dict[str, Any]]:
    owner = {claim.id: experiment for experiment in lab.experiments for claim in experiment.claims}
    for claim in lab.claims:
        experiment = owner[claim.id]
        found = replication_of(claim, experiment, experiment.presets["quick"])
        yield claim.to_dict() | {
            "lab": lab.name, "core": claim.id in lab.core, "experiment": experiment.name,
            "replication": found.to_dict() if found else None,
        }  # fmt: skip


def store(lab: Lab) -> None:
    """Writes the listing of a lab into its package, one claim a line.

    Args:
        lab: of a package of its own.
    """
    path = data_file(lab.experiments[0].home, FILE)
    assert path is not None
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in told(lab))
    write_atomically(path, f"[\n{lines}\n]\n")
