"""The labs, one package a paper, and lab 0, which shows them all at once.

A new lab is one line here and a package with a `LAB`.
"""

from __future__ import annotations

from importlib import import_module

from labkit.protocol.experiment import Lab

# number -> (name, package): read before any lab is imported, so that a listing is cheap.
LABS = {
    0: ("start", "labkit.labs.start"),
    1: ("distance", "labkit.labs.distance"),
    2: ("generalization", "labkit.labs.generalization"),
    3: ("sgd", "labkit.labs.sgd"),
    4: ("jacobian", "labkit.labs.jacobian"),
    5: ("confusion", "labkit.labs.confusion"),
}


def find_lab(lab: int | str) -> tuple[int, str, str]:
    """The number, the name and the package of a lab, which is not imported.

    Args:
        lab: 0 to 5, or a name such as "jacobian".

    Returns:
        Number, name and package, as in LABS.

    Raises:
        ValueError: there is no such lab.
    """
    wanted = str(lab).strip().lower()
    for number, (name, package) in LABS.items():
        if wanted in (str(number), f"{number:02d}", name):
            return number, name, package
    known = ", ".join(f"{number} ({name})" for number, (name, _) in LABS.items())
    raise ValueError(f"lab: there is no lab {lab!r}; there is {known}")


def load_lab(lab: int | str) -> Lab:
    """A lab by number or name.

    Args:
        lab: 0 to 5, or a name such as "jacobian".

    Returns:
        Lab: its experiments and claims.

    Raises:
        ValueError: there is no such lab.
    """
    loaded = import_module(find_lab(lab)[2]).LAB
    assert isinstance(loaded, Lab)
    return loaded
