"""The toy experiment as a module, and panels that are closed whatever happens."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from labkit.live import Panel
from labkit.protocol.experiment import Run


@pytest.fixture(scope="session")
def toy_module() -> ModuleType:
    path = Path(__file__).with_name("toy_lab.py")
    spec = importlib.util.spec_from_file_location("toy_lab", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_lab"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toy(toy_module: ModuleType) -> ModuleType:
    toy_module.LOG.__init__()
    return toy_module


@pytest.fixture
def panel(toy: ModuleType) -> Iterator[Callable[..., Panel]]:
    """Makes panels of the toy experiment, or of a run; they are closed at the end."""
    made: list[Panel] = []

    def make(first: dict[str, Any] | Run | None = None, **options: Any) -> Panel:
        if isinstance(first, Run):
            made.append(Panel(first, **options))
        else:
            made.append(Panel(toy.TOY, toy.TOY.preset("quick", **(first or {})), **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.wait(5.0)
