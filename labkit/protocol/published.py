"""What a paper prints, as a table of its lab, and where in a run the same number stands.

    preset,case,quantity,value,spread,source,ours
    mnist,"train, 25% wrong, final",share of y,0.94093,,Table 15,alignment:final[1]

*preset* is the paper's setting, by the name of a preset. *ours* says which value of which experiment is the
same quantity: its name in the frames, a place behind the seeds and, after a question mark, what the settings
must be. Several stand beside each other; none where nothing of ours measures it. What a paper says of a curve
is read off ours: `scaling:exponent(r_by_size,sizes)` is the exponent of r in the settings' sizes,
`width:least(l2,widths)` the width at which ℓ₂ is least.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from labkit.protocol.experiment import Run
from labkit.protocol.replication import data_file
from labkit.protocol.statistics import exponent

FILE = "published.csv"
_PLACE = re.compile(
    r"(?P<experiment>[\w-]+):((?P<curve>exponent|least)\()?(?P<name>\w+)(\[(?P<at>[-:\d,]+)\])?"
    r"(?(curve),(?P<axis>\w+)\))(\?(?P<when>\S+))?"
)


@dataclass(frozen=True)
class Published:
    """A number that a paper prints.

    Attributes:
        preset: the paper's setting.
        case: which of a table's rows.
        quantity: what was measured.
        value, spread: as printed; None: no spread is.
        source: where.
        ours: where the same number of ours stands, "" for nowhere.
    """

    preset: str
    case: str
    quantity: str
    value: float
    spread: float | None
    source: str
    ours: str

    def experiments(self) -> tuple[str, ...]:
        """Names of those that measure it."""
        return tuple(found["experiment"] for found in _PLACE.finditer(self.ours))

    def measured(self, run: Run) -> np.ndarray | None:
        """The same number of a run, one a seed.

        Args:
            run: of any experiment.

        Returns:
            (S,), or None where this run does not have it.
        """
        for found in _PLACE.finditer(self.ours):
            asked = dict(parse_qsl(found["when"] or ""))
            own: Mapping[str, Any] = run.settings.to_dict()
            if found["experiment"] != run.experiment.name or any(str(own[k]) != v for k, v in asked.items()):
                continue
            for frame in reversed(run.frames):
                if found["name"] in frame.values:
                    places = found["at"].split(",") if found["at"] else ()
                    index = (slice(None) if place == ":" else int(place) for place in places)
                    value = frame.values[found["name"]][(slice(None), *index)]
                    if found["curve"]:
                        x = np.array(getattr(run.settings, found["axis"]))
                        return _read_off(found["curve"], x, value)
                    return value.reshape(len(value), -1).mean(axis=1)
        return None


def _read_off(curve: str, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """The exponent of y (S, G) in x (G,), or the x at which y is least; None where the curve is not whole."""
    if np.isnan(y).any():
        return None
    return exponent(x, y) if curve == "exponent" else x[y.argmin(axis=1)].astype(float)


@lru_cache(maxsize=16)
def published(package: str) -> tuple[Published, ...]:
    """What the paper of a lab prints.

    Args:
        package: of the lab.

    Returns:
        The rows of its table; none where it has no table.
    """
    path = data_file(package, FILE)
    if path is None or not path.is_file():
        return ()
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(
            Published(
                row["preset"], row["case"], row["quantity"], float(row["value"]),
                float(row["spread"]) if row["spread"] else None, row["source"], row["ours"],
            )
            for row in csv.DictReader(file)
        )  # fmt: skip
