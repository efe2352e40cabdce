"""Which names are public, and where each is defined: the one list behind the reference and its tests.

A room with a face (`__all__`, or what its `__init__` imports) has the names of that face. Of a room without
one, whose modules are read and imported one by one, every class and function of a module without underscore
is public.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from types import ModuleType
from typing import Any

FACES = ("measure", "krylov", "models", "data", "training", "figures", "live")
OPEN = ("theory", "protocol", "headless", "classroom")
ROOMS = ("measure", "krylov", "theory", "models", "data", "training", "figures", "protocol", "headless",
         "live", "classroom")  # fmt: skip


@dataclass(frozen=True)
class Name:
    """One public name. `place` is where one imports it from, `module` where its code stands."""

    name: str
    place: str
    module: str
    value: Any

    @property
    def path(self) -> str:
        return f"{self.place}.{self.name}"

    @property
    def doc(self) -> str:
        """The docstring; of a constant, the string below its assignment."""
        if inspect.isclass(self.value) or inspect.isfunction(self.value):
            return inspect.getdoc(self.value) or ""
        return inspect.cleandoc(_constants(importlib.import_module(self.module))[self.name])

    @property
    def summary(self) -> str:
        """The first paragraph in one line."""
        return " ".join(self.doc.partition("\n\n")[0].split())


@functools.cache
def public(room: str) -> list[Name]:
    """The public names of a room, module by module and in the order of the source."""
    face = importlib.import_module(f"labkit.{room}")
    exported = _exported(face) if room in FACES else None
    return [
        Name(name, module.__name__ if exported is None else face.__name__, module.__name__, value)
        for module in _modules(face)
        for name, value in _defined(module).items()
        if exported is None or name in exported
    ]


def _exported(face: ModuleType) -> set[str]:
    if hasattr(face, "__all__"):
        return set(face.__all__)
    own = {name for name, value in vars(face).items() if not inspect.ismodule(value)}
    return {name for name in own if not name.startswith("_") and name != "annotations"}


def _modules(face: ModuleType) -> list[ModuleType]:
    inner = pkgutil.walk_packages(face.__path__, face.__name__ + ".")
    names = [info.name for info in inner if "._" not in info.name]
    return [face, *map(importlib.import_module, names)]


def _defined(module: ModuleType) -> dict[str, Any]:
    """Classes, functions and documented constants whose code stands in this module."""
    constants = _constants(module)
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (name in constants or getattr(value, "__module__", None) == module.__name__)
        and (name in constants or inspect.isclass(value) or inspect.isfunction(value))
    }


@functools.cache
def _constants(module: ModuleType) -> dict[str, str]:
    """Name -> the string below, for what a module assigns at its top."""
    body = ast.parse(inspect.getsource(module)).body
    found = {}
    for node, after in zip(body, body[1:], strict=False):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(target, ast.Name) and told and isinstance(after.value.value, str):
            found[target.id] = after.value.value
    return found
