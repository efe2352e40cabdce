"""Settings that only measure anew act at once, on the networks that are trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from torch import Tensor

from labkit.figures import Chart, Earlier, Measured, Points
from labkit.figures.change import kind
from labkit.labs.generalization import LAYERS
from labkit.labs.jacobian import RESIDUALS, shared
from labkit.labs.sgd import ROBUSTNESS
from labkit.live import Panel, session
from labkit.live.controls import AT_ONCE
from labkit.protocol.experiment import drain
from labkit.training._run import TrainingRun

Counted = tuple[Panel, Callable[[], int]]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    """A panel that has trained, and how many trainings there have been."""
    begun: list[TrainingRun] = []
    frames = TrainingRun.frames
    monkeypatch.setattr(TrainingRun, "frames", lambda run: (begun.append(run), frames(run))[1])
    settings = RESIDUALS.preset(n=20, width=16, steps=30, rank=5, seeds=1)
    panel = Panel(RESIDUALS, settings, train=False)
    panel.train_button.click()
    assert panel.wait(20) and panel.run.status == "done" and len(begun) == 1
    yield panel, lambda: len(begun)
    panel.close()
    panel.wait(5)


def move(panel: Panel, **values: float) -> None:
    for name, value in values.items():
        panel.controls.widgets[name].value = value
    assert panel.wait(20)


def test_it_shows_what_a_run_of_these_settings_would(trained: Counted) -> None:
    """A slider that trains again, or shows the old curves under the new settings."""
    panel, trainings = trained
    before = panel.image.value
    move(panel, rank=8)
    assert trainings() == 1 and panel.image.value != before
    assert "without training" in panel.status_line.value and "∅" not in panel.verdict_table.value
    expected = drain(RESIDUALS, panel.run.settings)
    assert panel.run.settings.rank == 8 and len(panel.run.frames) == len(expected.frames)
    for name in ("information", "nuisance", "test_error"):
        assert np.array_equal(panel.run.series(name)[1], expected.series(name)[1])


def test_a_drag_leaves_its_last_value_beside_the_run_before(trained: Counted) -> None:
    """Each value of a drag in grey, one that is lost, a training for each."""
    panel, trainings = trained
    for rank in range(6, 26):
        panel.controls.widgets["rank"].value = rank
    move(panel, rank=30)
    assert trainings() == 1 and panel.run.settings.rank == 30 and panel.run.status == "done"
    assert [run.settings.rank for run in panel._session.previous] == [5]
    move(panel, rank=5)  # back where it was trained
    assert trainings() == 1 and panel.run.status == "done" and panel.run.frames


def test_after_a_training_the_next_picture_is_made_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second before the first of a drag, because a run that turns grey takes other room and marks."""
    ready, drawn = list[Chart](), list[Chart]()
    monkeypatch.setattr(Panel, "expect", lambda panel, chart: ready.append(chart))
    panel = Panel(RESIDUALS, RESIDUALS.preset(n=20, width=16, steps=30, rank=5, seeds=1), train=False)
    for width in (16, 32):  # the second has the first in grey, and the next picture has not
        panel.controls.widgets["width"].value = width
        panel.train_button.click()
        assert panel.wait(20)
    monkeypatch.setattr(Panel, "picture", lambda panel, chart, **how: drawn.append(chart))
    move(panel, rank=8)
    first, expected = (
        [[kind(mark) for mark in one.marks if isinstance(mark, Earlier)] for one in chart.panels]
        for chart in (drawn[0], ready[-1])
    )
    assert len(ready) == 2 and any(first) and first == expected
    panel.close()


def numbers(chart: Chart) -> list[np.ndarray]:
    """What is measured in a chart, mark by mark."""
    return [mark.y for one in chart.panels for mark in one.marks if isinstance(mark, Measured | Points)]


def values(chart: Chart) -> int:
    """How many measured numbers are drawn."""
    return sum(int(np.isfinite(one).sum()) for one in numbers(chart))


def test_what_one_seed_shows_is_drawn_before_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drag that shows nothing until all seeds are there, or what networks were before their training."""
    monkeypatch.setattr(session, "WHOLE", 0.0)
    monkeypatch.setattr(session, "EMPTY", 60.0)
    panel = Panel(LAYERS, LAYERS.preset(seeds=2, n=40, samples=20, width=16, epochs=3), train=False)
    panel.train_button.click()
    assert panel.wait(60)
    drawn: list[tuple[int, Chart]] = []
    monkeypatch.setattr(
        Panel, "picture", lambda panel, chart, **how: drawn.append((len(panel.run.frames), chart))
    )
    # At first nobody knows how long it takes, and the run before turns grey; then it is known to be soon.
    for sigma, early in ((0.05, 1), (0.02, 0)):
        move(panel, sigma=sigma)
        assert [(frames, values(chart)) for frames, chart in drawn[:early]] == early * [(0, 0)]
        frames, chart = drawn[early]
        assert frames == 0 < values(chart) < values(drawn[-1][1])
        for now, end in zip(numbers(chart), numbers(drawn[-1][1]), strict=True):
            there = np.isfinite(now)
            assert now.shape == end.shape and np.array_equal(now[there], end[there])
        drawn.clear()
    panel.close()


def test_the_first_picture_of_a_drag_shows_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves that vanish under the hand, and come back a second later."""
    monkeypatch.setattr(session, "WHOLE", 0.0)
    monkeypatch.setattr(session, "EMPTY", 60.0)
    panel = Panel(ROBUSTNESS, ROBUSTNESS.preset(seeds=1), train=False)
    panel.train_button.click()
    assert panel.wait(60)
    seen: list[int] = []
    monkeypatch.setattr(Panel, "picture", lambda panel, chart, **how: seen.append(values(chart)))
    move(panel, draws=7)
    assert seen[0] == 0 < seen[1]  # nobody knows yet how long it takes: the run before turns grey at once
    seen.clear()
    move(panel, draws=8)
    assert min(seen) > 0
    monkeypatch.setattr(session, "EMPTY", -60.0)
    move(panel, draws=9)
    seen.clear()
    move(panel, draws=10)  # the last took too long
    assert seen[0] == 0 < seen[1]
    panel.close()


def test_what_asks_for_training_waits_for_it(trained: Counted) -> None:
    """Measured curves of one width under the prediction of another."""
    panel, trainings = trained
    move(panel, width=32, rank=7)
    assert trainings() == 1 and panel.run.frames == () and "Press Train" in panel.status_line.value
    panel.train_button.click()
    assert panel.wait(20) and trainings() == 2 and panel.run.status == "done"
    panel.train_button.click()  # the same settings again: to watch
    assert panel.wait(20) and trainings() == 3


def test_the_panel_says_which_is_which(trained: Counted) -> None:
    """A person who has to try."""
    panel, _ = trained
    slow, heading, fast = panel.controls.front.children
    assert AT_ONCE in heading.value
    rank = panel.controls.widgets["rank"]
    assert fast.children == (rank,) and rank not in slow.children and rank.continuous_update


@pytest.mark.parametrize(("name", "value"), [("rank", 99), ("dataset", "nowhere.npz")])
def test_an_error_stands_beside_the_control_that_it_names(trained: Counted, name: str, value: object) -> None:
    """A message far from its cause, and verdicts of other settings in green above it."""
    panel, trainings = trained
    before, classes = panel.controls.widgets[name].value, panel.run.settings.classes
    move(panel, classes=2, **{name: value})
    (box,) = (
        box for group in (panel.controls.front, panel.controls.rest) for box in group.children
        if panel.controls.widgets[name] in getattr(box, "children", ())
    )  # fmt: skip
    after = box.children[box.children.index(panel.controls.widgets[name]) + 1]
    assert name in after.value and "role='alert'" in after.value and panel.error_box.value == ""
    assert (panel.more.selected_index == 0) == (name == "dataset")
    words = panel.verdict_table.value
    assert "holds</span>" not in words and words.count("…") == len(RESIDUALS.claims)
    move(panel, classes=classes, **{name: before})
    assert after not in box.children and panel.run.status == "done" and trainings() == 1


def test_a_measurement_that_fails_leaves_no_verdict_of_other_settings() -> None:
    """Green words of the value before, above the error of this one."""

    def project(basis: Tensor, residual: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        if rank == 8:
            raise RuntimeError("broken on purpose")
        return shared.project(basis, residual, rank)

    panel = Panel(RESIDUALS, RESIDUALS.preset(n=20, width=16, steps=30, rank=5, seeds=1), project=project)
    panel.train_button.click()
    assert panel.wait(20) and "holds</span>" in panel.verdict_table.value
    move(panel, rank=8)
    assert "broken on purpose" in panel.error_box.value
    words = panel.verdict_table.value
    assert "holds</span>" not in words and words.count("…") == len(RESIDUALS.claims)
    move(panel, rank=9)
    assert panel.error_box.value == "" and "holds</span>" in panel.verdict_table.value
    panel.close()
    panel.wait(5)


def test_the_sharp_picture_waits_until_the_drag_is_over(
    trained: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: a move that waits for half a second of drawing; a stored picture of the run before."""
    panel, _ = trained
    sharp: list[int] = []
    monkeypatch.setattr(
        Panel, "picture", lambda one, chart, rest=False, **how: rest and sharp.append(one.run.settings.rank)
    )
    monkeypatch.setattr(session, "REST", 60.0)
    for rank in (8, 9):
        panel.controls.widgets["rank"].value = rank
        end = time.monotonic() + 60
        while panel.run.settings.rank != rank or "Measured again" not in panel.status_line.value:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert not sharp
    monkeypatch.setattr(session, "REST", 0.1)
    move(panel, rank=10)
    assert sharp == [10]
