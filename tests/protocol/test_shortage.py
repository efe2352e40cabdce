"""Want of memory is told with the settings that asked for it, whichever library says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labkit.protocol.shortage import shortage
from tests.tinylab import DECAY

QUICK = DECAY.presets["quick"]


@pytest.mark.parametrize(
    ("allocate", "size"),
    [
        (lambda: torch.empty(2**58, dtype=torch.uint8), "262144 TiB"),
        (lambda: torch.empty(2**40, 2**40), None),
        (lambda: torch.empty(2**70), None),
        (lambda: np.zeros(2**70), None),
        (lambda: bytes(2**70), None),
        (lambda: np.zeros((2**29, 2**29), np.uint8), "256. PiB"),
        (lambda: np.zeros((2**40, 2**40)), None),
    ],
)
def test_every_way_of_saying_it_is_known(allocate, size):
    """A RuntimeError on a CPU, a ValueError of NumPy: shown as something else, with a traceback."""
    with pytest.raises(Exception) as caught:
        allocate()
    told = shortage(caught.value, DECAY, QUICK.replace(width=100, noise=0.5))
    expected = f"out of memory{f', for an array of {size}' if size else ''}, at width=100 (slider 1 to 64)"
    assert told == expected


def test_the_settings_to_blame_are_those_above_their_sliders_else_those_changed():
    """Advice to lower what is as usual."""
    assert shortage(MemoryError(), DECAY, QUICK) == "out of memory"
    assert shortage(MemoryError(), DECAY, QUICK.replace(noise=0.5)) == "out of memory, at noise=0.5"
    cuda = RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of ...")
    told = shortage(cuda, DECAY, QUICK.replace(width=65))
    assert told == "out of memory, for an array of 20.00 GiB, at width=65 (slider 1 to 64)"


@pytest.mark.parametrize(
    "other", [ValueError("rank is too big for n"), RuntimeError("singular"), KeyError("loss")]
)
def test_other_errors_are_none(other):
    """Every error is taken for want of memory."""
    assert shortage(other, DECAY, QUICK) == ""
