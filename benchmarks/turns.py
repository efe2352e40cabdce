"""Sides that take turns, the clock that times them, and the peaks of the machine they run on.

Calls alternate in one process, so that a busy machine slows all of them; a ratio is of medians. On one thread
the clock is processor time, which other programs disturb least. A large matrix product and a copy of a large
tensor take turns with them: flops and bytes over these two peaks are the least time that an answer can take.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from threadpoolctl import threadpool_limits

Call = Callable[[], Any]

SIDE = 1500  # of the matrix product that stands for the peak
COPIED = 2**25  # numbers of the copy that stands for the bandwidth
PATIENCE = 30.0  # seconds of one row, after which no other round begins


@dataclass(frozen=True)
class Case:
    """A row made ready: our ways, the others, and what the answer takes at the least.

    Attributes:
        ours: word -> a way of ours to the answer; the word is "" where there is one way.
        peers: name -> the same of another library; None where it is not installed.
        gap: how far an answer of ours and one of theirs are apart; by default of tensors, relative.
        tolerance: of the gap.
        flops, bytes: the least that the answer takes, as far as is known.
        floor: what stops us, in words, and a call that does only that.
        counts: of our answer, such as products, some with a note: these have targets, too.
        many: things in one call and their name, told per second.
        wall: whether the time is that of a clock on the wall, as where a call waits for another thread.
        rounds: how often everything is called; 0: what the comparison of the answers took.
    """

    ours: Mapping[str, Call]
    peers: Mapping[str, Call | None] = field(default_factory=dict)
    gap: Callable[[Any, Any], float] | None = None
    tolerance: float = 1e-3
    flops: float = 0.0
    bytes: float = 0.0
    floor: tuple[str, Call] | None = None
    counts: Callable[[Any], Mapping[str, float | tuple[float, str]]] | None = None
    many: tuple[int, str] | None = None
    wall: bool = False
    rounds: int | None = None


@dataclass(frozen=True)
class Row:
    """A measure that is timed.

    Attributes:
        name: by which it is asked for. what: in words, with sizes.
        make: makes it ready.
        targets: by the peer, how many times as fast; "peak": the share of it; "seconds" and counts: at most.
            Where there are several ways of ours, "way: peer".
        threads: where it is measured on as many, whatever was asked for.
        why: what stops a target that is missed.
    """

    name: str
    what: str
    make: Callable[[], Case]
    targets: Mapping[str, float] = field(default_factory=dict)
    threads: int | None = None
    why: str = ""


@dataclass(frozen=True)
class Line:
    """One number of a row; None where there is none to be had, and the note says why."""

    row: Row
    way: str
    beside: str
    value: float | None = None
    unit: str = "×"  # or "share", "s", "" for a count
    ours: float = 0.0
    theirs: float = 0.0
    note: str = ""

    @property
    def name(self) -> str:
        """The way of ours, and what it stands beside."""
        return ": ".join(part for part in (self.way, self.beside) if part)

    @property
    def target(self) -> float | None:
        """Of this number, where it has one."""
        return self.row.targets.get(self.name)

    @property
    def met(self) -> bool | None:
        """Whether the target is; None where there is none, or no number."""
        if self.target is None or self.value is None:
            return None
        return self.value >= self.target if self.unit in ("×", "share") else self.value <= self.target

    def shown(self, value: float | None) -> str:
        """A value, or the target, in the unit of this line."""
        if value is None:
            return "–"
        return f"{value:.0%}" if self.unit == "share" else f"{value:.3g} {self.unit}".strip()


def distance(a: Any, b: Any) -> float:
    """Of two answers, relative to the second: tensors, arrays and numbers."""
    first, second = (torch.as_tensor(value).detach().double() for value in (a, b))
    return float((first.reshape(second.shape) - second).norm() / second.norm())


def measured(row: Row, threads: int, rounds: int) -> Iterator[Line]:
    """The numbers of a row: answers are compared first, which warms all sides up; then they take turns."""
    threads = row.threads or threads
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with threadpool_limits(threads):
        case = row.make()
        clock = time.perf_counter if case.wall or threads > 1 else time.process_time
        yield from _measured(row, case, rounds if case.rounds is None else case.rounds, clock)


def _measured(row: Row, case: Case, rounds: int, clock: Callable[[], float]) -> Iterator[Line]:
    calls = {**case.ours, **{name: call for name, call in case.peers.items() if call is not None}}
    answers, first, failed = {}, {}, {}
    for name, call in list(calls.items()):
        start = clock()
        try:
            answers[name] = call()
        except Exception as error:  # another library's, of whatever kind
            if name in case.ours:
                raise
            failed[name] = f"failed: {type(error).__name__}: {error}".splitlines()[0][:100]
            del calls[name]
        first[name] = clock() - start
    gaps = {
        (way, peer): (case.gap or distance)(answers[way], answers[peer])
        for way in case.ours
        for peer in case.peers
        if peer in calls
    }
    counts = {way: dict(case.counts(answers[way])) if case.counts else {} for way in case.ours}
    answers.clear()
    floor = {"floor": case.floor[1]} if case.floor else {}
    times = first | (_turns(calls | floor, rounds, clock) if rounds else _turns(floor, 1, clock))
    if case.flops or case.bytes:
        times |= _peaks(rounds or 3, clock)
    for way in case.ours:
        ours, (share, note) = times[way], _limit(case, times[way], times)
        for peer in case.peers:
            wrong = gaps.get((way, peer), 0.0)
            if peer not in calls:
                yield Line(row, way, peer, note=failed.get(peer, "not installed"))
            elif not wrong <= case.tolerance:
                yield Line(row, way, peer, note=f"not timed: the answers are {wrong:.2g} apart")
            else:
                ratio = times[peer] / ours
                told = f"{note}, where it would be {ratio / share:.3g} ×" if share else note
                yield Line(row, way, peer, ratio, "×", ours, times[peer], told)
        for name, found in counts[way].items():
            value, told = found if isinstance(found, tuple) else (found, "")
            yield Line(row, way, name, value, "", note=told)
        if "peak" in row.targets and share is not None:
            yield Line(row, way, "peak", share, "share", ours, note=note)
        if "seconds" in row.targets or not case.peers:
            yield Line(row, way, "seconds", ours, "s", ours, note=note)


def _turns(calls: Mapping[str, Call], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each, called in turn."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    begun = time.perf_counter()
    for turn in range(rounds):
        if turn and time.perf_counter() - begun > PATIENCE:
            break
        for name, call in calls.items():
            start = clock()
            call()
            taken[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def _peaks(rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of a flop and of a byte, at best."""
    A, source = torch.randn(SIDE, SIDE), torch.ones(COPIED)
    target = torch.empty_like(source)
    out = torch.empty_like(A)
    calls: dict[str, Call] = {"flop": lambda: torch.mm(A, A, out=out), "byte": lambda: target.copy_(source)}
    _turns(calls, 1, clock)
    times = _turns(calls, rounds, clock)
    return {"flop": times["flop"] / (2 * SIDE**3), "byte": times["byte"] / (8 * COPIED)}


def _limit(case: Case, ours: float, times: Mapping[str, float]) -> tuple[float | None, str]:
    """The share of the machine's peak, and all that is told of how fast we could be."""
    share, notes = None, []
    if case.floor:
        notes.append(f"{case.floor[0]} alone: {times['floor'] / ours:.0%} of the time")
    if case.many:
        notes.append(f"{case.many[0] / ours:,.0f} {case.many[1]} a second")
    if case.flops or case.bytes:
        least = {"GEMM peak": case.flops * times["flop"], "bandwidth": case.bytes * times["byte"]}
        bound = max(least, key=lambda name: least[name])
        share = least[bound] / ours
        notes.append(f"{share:.0%} of the {bound}")
    return share, "; ".join(notes)
