"""A sweep loses nothing: to a point that raises, a process that is killed, an interrupt, a full disk."""

from __future__ import annotations

import sqlite3
from collections import Counter
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from labkit.headless.sweep import Failed, sweep
from labkit.headless.table import opened
from tests.sweeplab import BAD, DEADLY, POINTS, Points, notes, square


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_TEST_NOTES", str(tmp_path))
    return tmp_path


def swept(folder: Path, count: int, *, deadly: bool = False, **how: Any) -> list[Any]:
    return sweep(POINTS, {"point": range(count)}, Points(deadly=deadly), keep=square,
                 table=folder / "points.sqlite", **how)  # fmt: skip


def begun(folder: Path) -> Counter[int]:
    return Counter(point for point, _ in notes(folder))


def interrupt_at(count: int) -> Any:
    """A function for `each` that is Ctrl-C at so many results."""
    seen: list[Any] = []

    def each(settings: Any, kept: Any) -> None:
        seen.append(kept)
        if len(seen) == count:
            raise KeyboardInterrupt

    return each


@pytest.mark.parametrize("there", [None, ThreadPoolExecutor])
def test_an_interrupted_sweep_goes_on(there: Any, folder: Path) -> None:
    """Hours computed again, or lost; a value that is another when it comes from the file."""
    count = 100 if there else 20
    for stop in (3, 5):
        with there(1) if there else _nothing() as executor, pytest.raises(KeyboardInterrupt):
            swept(folder, count, executor=executor, each=interrupt_at(stop))
    found = swept(folder, count)
    assert found == [{"square": float(k * k), "none": None} if k != BAD else found[k] for k in range(count)]
    assert found == swept(folder, count)
    assert max(begun(folder).values()) <= (2 if there else 1)
    with sqlite3.connect(folder / "points.sqlite") as file:
        rows = file.execute("select point, kept, error, attempts from points order by rowid").fetchall()
    assert rows[3] == ('{"point": 3}', '{"square": 9.0, "none": null}', "", 1) and len(rows) == count


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: Any) -> None: ...


def test_a_point_that_raises_is_tried_once_more_and_told(folder: Path) -> None:
    """All other points lost to one; or a failure that reads like a result."""
    told: list[Any] = []
    found = swept(folder, BAD + 2, each=lambda settings, kept: told.append((settings.point, kept)))
    failed = Failed(Points(point=BAD), f"RuntimeError: point {BAD} never ends well", 2)
    assert [one for one in found if isinstance(one, Failed)] == [failed] == [found[BAD]]
    assert (BAD, failed) in told and len(told) == BAD + 2
    assert begun(folder)[BAD] == 2 and sum(begun(folder).values()) == BAD + 3
    assert swept(folder, BAD + 2)[BAD].message == failed.message and begun(folder)[BAD] == 2
    swept(folder, BAD + 2, retry=True)
    assert begun(folder)[BAD] == 4


def test_a_pool_that_lost_a_process_says_so_and_the_same_call_goes_on(folder: Path) -> None:
    """Two hundred failures for one process that was killed."""
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool, pytest.raises(BrokenExecutor):
        swept(folder, DEADLY + 5, deadly=True, executor=pool)
    with ProcessPoolExecutor(1, spawn) as pool:
        found = swept(folder, DEADLY + 5, deadly=True, executor=pool)
    assert [one["square"] for one in found] == [float(k * k) for k in range(DEADLY + 5)]
    assert [point for point, times in begun(folder).items() if times > 1] in ([DEADLY], [DEADLY - 1, DEADLY])


def test_what_only_imitates_an_executor_will_do(folder: Path) -> None:
    """submitit's jobs have `done` and `result`, and no callbacks."""

    class Job:
        def __init__(self, future: Future[Any]) -> None:
            self.done, self.result, self.exception = future.done, future.result, future.exception
            self.cancel = future.cancel

    class Imitation:
        def __init__(self, inner: Executor) -> None:
            self.inner = inner

        def submit(self, *args: Any) -> Job:
            return Job(self.inner.submit(*args))

    with ThreadPoolExecutor(2) as pool:
        found = swept(folder, 9, executor=Imitation(pool))
    assert [one["square"] for one in found] == [float(k * k) for k in range(9)]


def test_a_table_is_one_sweep_s_alone(folder: Path) -> None:
    """Points of other settings taken for these; two processes that compute the same."""
    path = folder / "points.sqlite"
    swept(folder, 3)
    swept(folder, 5)  # more points of the same
    assert sum(begun(folder).values()) == 5
    with pytest.raises(ValueError, match=r"it holds another sweep: settings .*\"seeds\": 3.* there, .*4"):
        sweep(POINTS, {"point": [1]}, Points(seeds=4), keep=square, table=path)
    with pytest.raises(ValueError, match="name what to keep"):
        sweep(POINTS, {"point": [1]}, table=path)
    with opened(folder / "held.sqlite", {}), pytest.raises(ValueError, match="another process is at work"):
        sweep(POINTS, {"point": [1]}, keep=square, table=folder / "held.sqlite")
    (folder / "thesis.txt").write_text("all my work " * 100)
    with pytest.raises(ValueError, match=r"thesis\.txt: file is not a database"):
        sweep(POINTS, {"point": [1]}, keep=square, table=folder / "thesis.txt")
    assert (folder / "thesis.txt").read_text().startswith("all my work")


@pytest.mark.slow
def test_two_hundred_points_on_a_cluster_lose_nothing(folder: Path) -> None:
    """A worker killed in the middle, a point that raises, an interrupt: 199 results and one failure told, and
    nothing computed twice but what was lost.
    """
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = client.get_executor()
        with pytest.raises(KeyboardInterrupt):
            swept(folder, 200, deadly=True, executor=executor, each=interrupt_at(120))
        first = notes(folder)
        with sqlite3.connect(folder / "points.sqlite") as file:
            kept = {int(row[0].split(": ")[1][:-1]) for row in file.execute("select point from points")}
        assert 120 <= len(kept) < 200
        found = swept(folder, 200, deadly=True, executor=client.get_executor())
    failures = [one for one in found if isinstance(one, Failed)]
    assert [one.settings.point for one in failures] == [BAD] and "never ends well" in failures[0].message
    assert [one["square"] for k, one in enumerate(found) if k != BAD] == [
        k * k for k in range(200) if k != BAD
    ]
    second = notes(folder)[len(first) :]
    assert not kept & {point for point, _ in second}
    # A worker cannot leave what it is at: each may still have begun a point of the first call.
    assert sum(times - 1 for times in Counter(point for point, _ in second).values()) <= 2
    # In the first call twice: the point that raises, and what the killed process had not handed over.
    killed = int((folder / "killed").read_text())
    twice = {point for point, times in Counter(point for point, _ in first).items() if times > 1}
    assert twice - {BAD} <= {point for point, process in first if process == killed} and DEADLY in twice
    assert len(first) + len(second) <= 200 + 1 + 20
