"""The price of a run with settings above their sliders: found by small runs, told before, refused if high."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from labkit.headless import memory, price
from labkit.headless.plan import plan
from labkit.protocol.experiment import Experiment, Frame
from labkit.protocol.settings import Settings, knob
from tests.tinylab import DECAY, LAB


@dataclass(frozen=True)
class Costly(Settings):
    width: int = knob(16, "units", slider=(4, 64), bounds=(1, None), scale="log2")
    n: int = knob(10, "samples", slider=(5, 40), bounds=(1, None))
    rank: int = knob(5, "below n", slider=(1, 20), bounds=(1, None))
    noise: float = knob(0.0, "share", slider=(0, 1), bounds=(0, None))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank >= self.n:
            raise ValueError(f"rank must be below n; got {self.rank}")


COSTLY: Experiment = replace(DECAY, name="costly", settings=Costly, presets={"quick": Costly()}, claims=())
WHOLE = 40.0  # seconds of the quick preset


def cost(s: Costly) -> tuple[float, float, float]:
    """Seconds before the run and in it, and bytes."""
    return 1e-3 * s.n**2, 1e-3 * s.width**2 * s.n, 2**22 * s.width * s.n


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Costly]:
    """The settings of all small runs, whose costs are those of `cost`: progress is slower at first."""
    made: list[Costly] = []

    def run(experiment: Experiment, settings: Costly) -> price.Trial:
        made.append(settings)
        before, seconds, size = cost(settings)
        shares = np.linspace(0, 1, 1001)
        times = np.sqrt(shares) * seconds
        seen = max(int((times <= price.LOOK).sum()), 2)
        return price.Trial(before, times[:seen], shares[:seen], int(2**30 + size))

    monkeypatch.setattr(price, "tried", run)
    monkeypatch.setattr(price.Watched, "now", staticmethod(lambda device: 2**30))
    monkeypatch.setattr(price, "seconds_of", lambda experiment: WHOLE)
    return made


def scaled(settings: Costly) -> tuple[float, float]:
    """What `price` should say, in the seconds of the machine that stored the quick preset's."""
    before, seconds, size = cost(settings)
    quick = cost(Costly())
    return before + (WHOLE - quick[0]) * seconds / quick[1], size


@pytest.mark.parametrize(
    "asked",
    [Costly(width=70), Costly(width=5000), Costly(n=3000), Costly(width=400, n=400), Costly(width=300, n=30)],
)
def test_the_price_is_that_of_the_whole_run(asked: Costly, tried: list[Costly]) -> None:
    """Orders of magnitude off: the run of a day that was told to take minutes."""
    found = price.price(COSTLY, asked, tuple(asked.beyond_sliders()))
    assert found is not None
    seconds, size = scaled(asked)
    # Between them lie a squared and a linear part.
    assert found.seconds == pytest.approx(seconds, rel=0.3)
    assert found.bytes == pytest.approx(size, rel=0.1)
    assert all(one.rank == asked.rank for one in tried) and len(tried) < 20


def test_small_runs_end_before_they_cost_much(tried: list[Costly]) -> None:
    """A price that costs as much as the run."""
    assert price.price(COSTLY, Costly(n=10**6), ("n",)) is not None
    assert sum(min(sum(cost(one)[:2]), price.LOOK + cost(one)[0]) for one in tried) < 10
    assert max(cost(one)[2] for one in tried) < 8 * price.ENOUGH_BYTES


def test_values_between_that_do_not_go_together_are_left_out(tried: list[Costly]) -> None:
    """A ValueError of settings that nobody asked for."""
    asked = Costly(n=2000, rank=15)
    found = price.price(COSTLY, asked, ("n",))
    assert found is not None and found.seconds == pytest.approx(scaled(asked)[0], rel=0.3)
    assert [one.n for one in tried[:4]] == [10, 19, 10, 19]


def test_what_starts_from_zero_has_no_price(tried: list[Costly]) -> None:
    """log(x / 0)."""
    assert price.price(COSTLY, Costly(noise=7.0), ("noise",)) is None and tried == []


def test_small_runs_that_raise_give_no_price() -> None:
    """The error of settings that nobody asked for; the run itself will tell its own."""

    def broken(settings: Any) -> Any:
        raise RuntimeError("not at this width")

    assert price.price(replace(COSTLY, prepare=broken), Costly(width=1000), ("width",)) is None


def test_a_small_run_is_left_in_time_and_closed() -> None:
    """The whole run, made to say what it costs; or a generator that is left open."""
    ended = []

    def endless(setup: Any, prediction: Any) -> Iterator[Frame]:
        try:
            for step in range(10**6):
                yield Frame.tick(step, progress=step / 10**6)
        finally:
            ended.append(step)

    trial = price.tried(replace(COSTLY, run=endless), Costly(), look=0.0)
    assert ended == [2] and trial.shares.tolist() == [0, 1e-6, 2e-6]
    whole = price.tried(DECAY, DECAY.presets["quick"])
    assert whole.shares[-1] <= 1 and len(whole.seconds) == len(whole.shares)


def test_a_run_that_diverges_is_no_whole_run() -> None:
    """Thirteen seconds for a run of minutes, because noise in the place of images blew up."""

    def diverges(setup: Any, prediction: Any) -> Iterator[Frame]:
        yield Frame.tick(1, progress=0.1)
        yield Frame(2, {}, None, "diverged")

    trial = price.tried(replace(COSTLY, run=diverges), Costly())
    assert trial.shares.tolist() == [0, 0.1]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.2, "1 s"), (99, "99 s"), (130, "2.2 min"), (7000, "1.9 h"), (4e5, "4.6 days"),
        (1.33e7, "150 days"), (4e7, "1.3 years"), (1e10, "320 years"),
    ],
)  # fmt: skip
def test_a_duration_is_told_in_the_unit_that_suits_it(seconds: float, told: str) -> None:
    """A year for five months."""
    assert price.duration(seconds) == told


def test_memory_that_is_given_back_is_seen() -> None:
    """What counts is the peak, not what is left."""
    before = memory.Watched.now("cpu")
    with memory.Watched("cpu") as watched:
        array = np.ones(2**25)
        time.sleep(0.05)
        del array
    assert watched.peak - before > 0.8 * 2**28


@pytest.mark.skipif(memory._data_bytes() is None, reason="Linux alone counts what a process may allocate")
def test_an_allocation_beyond_what_is_free_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux grants it, and ends the process when it is used: no word, and all other results lost."""
    monkeypatch.setattr(memory, "machine_bytes", lambda: (2**30, 2**28))
    with pytest.raises(MemoryError), memory.within_memory("cpu"):
        np.ones(2**27)
    with memory.within_memory("cuda"):
        np.ones(2**27)
    assert len(np.ones(2**27)) == 2**27


ABOVE = replace(DECAY, presets=DECAY.presets | {"paper": DECAY.presets["paper"].replace(width=500)})


def told(
    monkeypatch: pytest.MonkeyPatch, found: price.Price | None, *, preset: str = "quick",
    insist: bool = False, **changes: Any,
) -> list[str]:  # fmt: skip
    """The lines about a run with that price, on a machine with 8 GiB."""
    monkeypatch.setattr(price, "price", lambda *_: found)
    monkeypatch.setattr(price, "free_bytes", lambda device: 2**33)
    lines: list[str] = []
    lab = replace(LAB, experiments=(ABOVE,))
    tasks = plan(lab, all_claims=True, preset=preset, changes=changes)
    price.approve(tasks, preset, insist=insist, tell=lines.append, progress=lambda *_: None,
                  kept=lambda *_: None)  # fmt: skip
    return lines


def test_a_price_is_told_of_settings_above_their_sliders_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of minutes that nobody announced; or a word about settings that are as usual."""
    found = price.Price(130.0, 3e9)
    line = "decay at width={} (slider 1 to 64): about 2.2 min and 2.8 GiB"
    assert told(monkeypatch, found, width=64) == []
    assert told(monkeypatch, found, width=100) == [line.format(100)]
    assert told(monkeypatch, found, preset="paper") == ["decay at preset paper: no price is kept"]
    assert told(monkeypatch, found, preset="paper", width=501) == [line.format(501)]
    assert told(monkeypatch, None, width=100) == [f"decay at width=100 (slider 1 to 64): {price.NO_PRICE}"]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (price.Price(10.0, 2**33 + 1), "about 10 s and 8 GiB, more than the 8 GiB of memory that are free"),
        (price.Price(7200.0, 0), "about 2 h and 0 MiB, more than an hour"),
    ],
)
def test_a_price_too_high_is_refused_unless_one_insists(
    found: price.Price, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that stands still, or a kernel that is ended without a word."""
    with pytest.raises(ValueError, match=rf"width=100 \(slider 1 to 64\): {reason} \(--insist runs"):
        told(monkeypatch, found, width=100)
    assert len(told(monkeypatch, found, insist=True, width=100)) == 1
    assert len(told(monkeypatch, price.Price(3599.0, 2**33), width=100)) == 1


@pytest.mark.parametrize(("count", "seconds"), [(1e10, 12.0), (1e3, 27.0)])
def test_times_go_with_operations_where_these_decide_them(
    count: float, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two years for two weeks: a time that tripled over a factor of two, and operations that doubled."""

    def costs(experiment: Any, quick: Any, steps: Any, *counter: Any, **_: Any) -> Any:
        one, two = (count, 2 * count) if counter else (1.0, 3.0)
        return [(0.25, np.array([0.0, one, 0.0])), (0.5, np.array([0.0, two, 0.0]))]

    monkeypatch.setattr(price, "_costs", costs)
    found = price.price(DECAY, DECAY.presets["paper"], ("width",), operations=True)
    assert found is not None and found.flops == pytest.approx(8 * count)
    assert found.seconds == pytest.approx(seconds)
