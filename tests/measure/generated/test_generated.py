"""Models drawn from the table of kinds: every measure right, or refused in one clear line; nothing touched.

    pytest tests/measure/generated                                       a bounded slice, always the same
    LABKIT_GENERATED_MODELS=5000 pytest -m slow tests/measure/generated  so many models, and every kind alone

A model that fails is shrunk and printed as a `Spec`; once what is wrong is mended, it belongs into `MENDED`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import labkit

from .judge import findings
from .kinds import KINDS
from .mended import MENDED
from .models import SIZES, Spec, drawn
from .variants import Variant

# Torch's, of making odd layers; the judge listens for those of the measures by itself.
pytestmark = pytest.mark.filterwarnings("ignore")

MODELS = int(os.environ.get("LABKIT_GENERATED_MODELS", "500"))
SLICE = 5  # models a form of inputs; a model takes about a fifth of a second


@st.composite
def specs(draw: Callable[..., Any], inputs: str) -> Spec:
    return drawn(lambda options: draw(st.sampled_from(options)), inputs)


def hold(inputs: str, models: int) -> None:
    """Draw models until one has a finding."""

    @settings(max_examples=models, suppress_health_check=list(HealthCheck), database=None)
    @given(specs(inputs))
    def each(spec: Spec) -> None:
        assert findings(spec) in ([], None)

    each()


@pytest.mark.parametrize("inputs", SIZES)
def test_measures_are_right_or_refuse_in_one_line(inputs: str) -> None:
    """A wrong number without a word; an error from inside torch; a model refused for nothing; x changed."""
    hold(inputs, SLICE)


@pytest.mark.slow
@pytest.mark.parametrize("inputs", SIZES)
def test_so_do_they_on_many_models(inputs: str) -> None:
    """What a slice is too small to meet."""
    hold(inputs, MODELS // len(SIZES))


def alone(name: str) -> list[Spec]:
    """A kind behind a dense layer or on its own, once for each different set of options."""
    kind, found = KINDS[name], {}
    inputs = "vector" if kind.takes == "any" else kind.takes
    before = (("dense", 0),) if inputs == "vector" else ()
    for number in range(48):
        told = Told(number)
        kind.build(SIZES[inputs], told)
        found.setdefault(tuple(told.picked), Spec(inputs, (*before, (name, number)), n=6))
    return list(found.values())


class Told(Variant):
    """A variant that remembers which options were picked."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.picked: list[int] = []

    def pick(self, *options: Any) -> Any:
        self.picked.append(self.number % len(options))
        return super().pick(*options)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_so_do_they_on_every_kind_alone(name: str) -> None:
    """A variant that draws happen to miss."""
    wrong = {spec: found for spec in alone(name) if (found := findings(spec))}
    assert wrong == {}


@pytest.mark.parametrize("spec", MENDED, ids=str)
def test_what_was_mended_stays_so(spec: Spec) -> None:
    """Models that found a fault, shrunk."""
    assert findings(spec) == []


PLAIN, CENTRED = Spec(steps=(("dense", 0),)), Spec(steps=(("dense", 0), ("coupled", 0)))


@pytest.mark.parametrize(
    ("how", "what", "spec"),
    [
        ("doubles", "differs", PLAIN),
        ("changes x", "changed", PLAIN),
        ("draws", "changed", PLAIN),
        ("raises", "unclear", PLAIN),
        ("refuses", "unclear", PLAIN),
        ("warns", "warned", PLAIN),
        ("accepts", "accepted", CENTRED),
    ],
)
def test_the_judge_sees_planted_faults(
    how: str, what: str, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A harness that finds nothing anywhere proves nothing. A refusal from outside labkit is not labkit's."""
    kernel = labkit.empirical_ntk

    def faulty(model: Any, x: Tensor, **how_else: Any) -> Tensor:
        if how == "changes x":
            x.add_(1)
        elif how == "draws":
            torch.rand(1)
        elif how == "raises":
            return torch.ones(2)[5]
        elif how == "refuses":
            raise ValueError("empirical_ntk: no")
        elif how == "warns":
            warnings.warn("slow", stacklevel=1)
        elif how == "accepts":
            return torch.ones(1)
        found = kernel(model, x, **how_else)
        return 2 * found if how == "doubles" else found

    assert findings(spec, ["empirical_ntk"]) == []
    monkeypatch.setattr(labkit, "empirical_ntk", faulty)
    assert what in {one.what for one in findings(spec, ["empirical_ntk"]) or []}
