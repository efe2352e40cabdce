"""The versions that a result depends on."""

from __future__ import annotations

import platform
from importlib import metadata

_VERSIONED = ("labkit", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "matplotlib")


def versions() -> dict[str, str]:
    """Package -> version, and Python's own; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
