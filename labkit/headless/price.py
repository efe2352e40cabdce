"""What a run costs whose settings lie above their sliders, found by small runs before it begins.

Those settings are moved from the quick preset's values toward what is asked, by factors of two in all, until
three seconds are spent or one run needs a second to begin or a quarter of a GiB; the growth over the last of
them is carried on to what is asked. All other settings stay as asked. A run is left half a second after its
progress moved: two are compared at the same share of it, and the first one's whole time is that of the quick
preset, as stored. So no experiment needs a formula of its own. What grows only late in a run is not seen.

What a preset costs is told by its own beginning (`labkit.headless.begun`), and kept beside its lab.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.headless.memory import Watched, free_bytes
from labkit.headless.plan import Task
from labkit.protocol.experiment import Experiment, experiment_mode
from labkit.protocol.replication import seconds_of
from labkit.protocol.shortage import in_bytes

if TYPE_CHECKING:
    from torch.utils._python_dispatch import TorchDispatchMode

BUDGET, LOOK = 3.0, 0.5  # seconds for all small runs, and for one since it moved
ENOUGH_SECONDS, ENOUGH_BYTES = 1.0, 2**28  # one whose preparation takes as much shows how it grows
MORE = 5  # runs, at least, where the price is kept: two that are hardly apart tell little
LEAST_SECONDS, LEAST_BYTES = 0.02, 2**25  # below, what is measured is noise
SLOW = 1e9  # operations a second of a run whose time they decide
MIB = 2**20  # the least that is told
NO_PRICE = "no price, as smaller runs end in an error"
LONGEST = 3600.0  # more than any lesson: whoever means it says so


@dataclass(frozen=True)
class Price:
    """What a run will take, about.

    Attributes:
        seconds: on one core of this machine.
        bytes: at its peak, beyond what the process has now.
        flops: floating-point operations of matrix products and convolutions; None: not counted.
        longest: seconds, if no training ends before its longest; None: not known, or none may.
    """

    seconds: float
    bytes: float
    flops: float | None = None
    longest: float | None = None

    def __str__(self) -> str:
        counted = "" if self.flops is None else f", {self.flops:.1e} operations"
        return f"about {self.time} and {in_bytes(self.bytes)}{counted}"

    @property
    def time(self) -> str:
        """As text, with the longest where that is another."""
        least = duration(self.seconds)
        most = least if self.longest is None else duration(self.longest)
        return least if most == least else f"{least} (at most {most})"

    def times(self, factor: float) -> Price:
        """The same on a slower machine."""
        longest = None if self.longest is None else self.longest * factor
        return replace(self, seconds=self.seconds * factor, longest=longest)


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them, such as "2.2 min".

    Args:
        seconds: not negative.

    Returns:
        Two digits and the unit.
    """
    ends = {"s": (1.0, 100), "min": (60.0, 100), "h": (3600.0, 100), "days": (86400.0, 366)}
    unit, size = next(
        ((name, size) for name, (size, most) in ends.items() if seconds < most * size), ("years", 31557600.0)
    )
    return f"{float(f'{max(seconds / size, 1):.2g}'):g} {unit}"


@dataclass(frozen=True)
class Trial:
    """A run that was left when it had shown enough.

    Attributes:
        before: seconds until the prediction was there.
        seconds: after it (or operations, where they are counted), at which
        shares: of the run were done.
        peak: bytes.
    """

    before: float
    seconds: np.ndarray
    shares: np.ndarray
    peak: int

    @property
    def whole(self) -> float:
        """Seconds after it of a run that goes on as it went so far, or since it first moved, if that is less.

        Raises:
            ValueError: it has not moved.
        """
        if not self.shares[-1]:
            raise ValueError("the run shows no progress")
        first, ever = int((self.shares > 0).argmax()), self.seconds[-1] / self.shares[-1]
        if self.shares[first] == self.shares[-1]:
            return float(ever)
        pace = (self.seconds[-1] - self.seconds[first]) / (self.shares[-1] - self.shares[first])
        return float(min(ever, self.seconds[first] + pace * (1 - self.shares[first])))

    def looked(self, seconds: float) -> Trial:
        """The same, left so many seconds after it first moved."""
        first = int((self.shares > 0).argmax())
        seen = 1 + int(np.searchsorted(self.seconds, self.seconds[first] + seconds))
        return replace(self, seconds=self.seconds[:seen], shares=self.shares[:seen])

    def until(self, share: float) -> float:
        return max(float(np.interp(share, self.shares, self.seconds)), LEAST_SECONDS)


def approve(
    tasks: Sequence[Task], preset: str, *, insist: bool, tell: Callable[[str], None],
    progress: Callable[[float, str], None], kept: Callable[[Experiment, str], Price | None],
) -> None:  # fmt: skip
    """Tells the price of each task that is no quick one: of its preset, or of what was set above its sliders.

    Args:
        tasks: that are to be run.
        preset: they started from.
        insist: run them whatever the price.
        tell: is given a line a price.
        progress: told what is being priced.
        kept: what a preset by itself costs, None where nobody knows (`labkit.headless.prices`).

    Raises:
        ValueError: without `insist`, for a price above an hour or above the memory that is free.
    """
    refused = []
    for task in tasks:
        experiment, settings = task.experiment, task.settings
        own = experiment.presets[preset]
        above = {k: v for k, v in settings.beyond_sliders().items() if v != getattr(own, k)}
        if above:
            progress(0.0, f"pricing {experiment.name}")
            found, at = price(experiment, settings, tuple(above)), settings.with_sliders(above)
        elif preset == "quick":
            continue
        else:
            found, at = kept(experiment, preset), f"preset {preset}"
        told = f"{experiment.name} at {at}: {found or (NO_PRICE if above else 'no price is kept')}"
        reason = _too_much(found, free_bytes(settings.device)) if found and not insist else ""
        if reason:
            refused.append(f"{told}, {reason}")
        else:
            tell(told)
    if refused:
        raise ValueError(f"{'; '.join(refused)} (--insist runs it all the same)")


def _too_much(found: Price, free: int | None) -> str:
    if free is not None and found.bytes > free:
        return f"more than the {in_bytes(free)} of memory that are free"
    return "more than an hour" if found.seconds > LONGEST else ""


def price(
    experiment: Experiment, settings: Any, above: Sequence[str], *, operations: bool = False
) -> Price | None:  # fmt: skip
    """What a run takes, by runs with smaller values of some settings.

    Args:
        experiment: that would be run.
        settings: at which.
        above: the settings to start small.
        operations: count them, too, which takes as long again.

    Returns:
        Price, or None where the small runs raise, or no settings between are valid.
    """
    quick = experiment.presets["quick"].replace(device=settings.device)
    steps = list(_between(experiment, settings, above))
    if not steps or (len(steps) < 2 and not operations):
        return None
    try:
        with experiment_mode():
            found = _costs(experiment, quick, steps, fewest=MORE if operations else 2)
            seconds, size = _carried_on(found)
            if not operations:
                return Price(seconds, size)
            counted = _costs(experiment, quick, steps[: len(found)], counter())
            whole, _ = _carried_on(counted)
            spent, done = (last[:2].sum() for _, last in (found[-1], counted[-1]))
            # Counts grow more evenly than times; they say little where others work than torch.
            return Price(spent * whole / done if done > SLOW * spent else seconds, size, whole)
    except Exception:  # The run itself will tell, of the values that were asked for.
        return None


def _costs(
    experiment: Experiment, quick: Any, steps: Sequence[tuple[float, Any]], *counter: Any, fewest: int = 2
) -> list[tuple[float, np.ndarray]]:
    """(place, [seconds or operations before the run, in it, bytes]) of the places that can be paid."""
    base, spent = Watched.now(quick.device), 0.0
    for once in (quick, steps[0][1]):
        tried(experiment, once)  # what is done once only, such as reading data
    last = tried(experiment, quick, *counter)
    stored = None if counter else seconds_of(experiment)
    whole = stored or last.before + last.whole
    running = max(whole - last.before, LEAST_SECONDS)
    found: list[tuple[float, np.ndarray]] = []
    for place, point in steps:
        trial = tried(experiment, point, *counter)
        share = min(trial.shares[-1], last.shares[-1])
        running *= trial.until(share) / last.until(share)
        found.append((place, np.array([trial.before, running, trial.peak - base])))
        last, spent = trial, spent + trial.before + trial.seconds[-1]
        enough = trial.before > ENOUGH_SECONDS or trial.peak - base > ENOUGH_BYTES or spent > BUDGET
        if enough and len(found) >= fewest and not counter:
            break
    return found


def _between(experiment: Experiment, settings: Any, above: Sequence[str]) -> Iterator[tuple[float, Any]]:
    """(place, settings): 0 with the quick preset's values of `above`, 1 as asked; a factor of two apart."""
    knobs = settings.knobs()
    ends = {name: (getattr(experiment.presets["quick"], name), getattr(settings, name)) for name in above}
    ends = {name: (low, high) for name, (low, high) in ends.items() if 0 < low < high}
    length = sum(math.log2(high / low) for low, high in ends.values())
    before = None
    for step in range(math.ceil(length) + 1):
        share = step / max(math.ceil(length), 1)
        values = {name: low * (high / low) ** share for name, (low, high) in ends.items()}
        values = {name: round(v) if knobs[name].type is int else v for name, v in values.items()}
        place = sum(math.log2(values[name] / low) for name, (low, _) in ends.items()) / max(length, 1e-9)
        try:
            point = settings.replace(**values)
        except ValueError:  # Settings that do not go together.
            continue
        if point != before:  # Small whole numbers may be rounded to the same.
            before = point
            yield place, point


def _carried_on(found: Sequence[tuple[float, np.ndarray]]) -> tuple[float, float]:
    """From the last place to 1, each cost by the power by which it grew over the last factor of four."""
    place, new = found[-1]
    costs = np.maximum(new, 0.0)
    if len(found) > 1:
        before, old = found[-3 if len(found) > 3 else -2]
        least = np.array([LEAST_SECONDS, LEAST_SECONDS, LEAST_BYTES])
        growth = np.maximum(np.maximum(new, least) / np.maximum(old, least), 1.0)
        with np.errstate(over="ignore"):
            costs = costs * growth ** ((1 - place) / (place - before))
    return float(costs[0] + costs[1]), max(float(costs[2]), MIB)


def counter() -> TorchDispatchMode:
    """Counts the operations of matrix products and convolutions, as torch has formulas for them.

    Returns:
        A mode to be entered, whose `flops` grow.
    """
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    class Counter(TorchDispatchMode):
        flops = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            formula = flop_registry.get(func._overloadpacket)
            if formula is not None:
                self.flops += formula(*args, **(kwargs or {}), out_val=out)
            return out

    return Counter()


def tried(experiment: Experiment, settings: Any, counter: Any = None, *, look: float = LOOK) -> Trial:
    """A run that is left after a look.

    Args:
        experiment: to begin.
        settings: at which.
        counter: of operations, in the place of seconds.
        look: seconds since it first moved; four times as long where its last progress is older.

    Returns:
        Trial.
    """
    # Of a processor that others use, too, only the own time is counted; a GPU's is waited for.
    clock = time.process_time if settings.device == "cpu" else time.perf_counter
    spent = clock if counter is None else lambda: float(counter.flops)
    seconds, shares, first = [0.0], [0.0], 0.0
    start = spent()
    with Watched(settings.device) as memory, counter or nullcontext():
        setup = experiment.prepare(settings)
        prediction = experiment.predict(setup)
        before, began = spent(), clock()
        for frame in experiment.run(setup, prediction):
            if frame.status == "diverged":  # as on noise that stands in for images; the advice takes its time
                break
            now, share = clock() - began, min(float(frame.progress or 0.0), 1.0)
            moved = share > shares[-1]
            if moved and not shares[-1]:
                first = now
            if moved or (shares[-1] and now - first > 4 * look):
                seconds.append(spent() - before)
                shares.append(max(share, shares[-1]))
                if now - first > look:
                    break
        else:
            seconds.append(spent() - before)
            shares.append(1.0)
    return Trial(before - start, np.array(seconds), np.array(shares), memory.peak)
