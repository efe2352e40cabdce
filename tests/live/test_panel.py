"""The panel without a browser: widgets are set as the front end would set them."""

from __future__ import annotations

import dataclasses
import gc
import io
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest

from labkit.figures import Measured
from labkit.live import Panel, session
from labkit.protocol.experiment import Frame, drain
from labkit.protocol.replication import Replication

Make = Callable[..., Panel]


def until(condition: Callable[[], Any], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False


def train_and_keep(one: Panel, *rates: float) -> None:
    for rate in rates:
        one.controls.widgets["rate"].value = rate
        one.train_button.click()
        assert one.wait(20)
        one.keep_button.click()


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("labkit-")]


def test_a_new_panel_predicts_and_does_not_train(panel: Make, toy: Any) -> None:
    """Catches: opening a notebook starts minutes of training."""
    one = panel()
    assert one.wait(20)
    assert toy.LOG.runs == [] and one.run.frames == ()
    assert set(one.run.prediction) == {"time", "fast", "slow"}
    assert bytes(one.image.value).startswith(b"\x89PNG")


def test_a_panel_of_a_run_shows_it_and_computes_nothing(panel: Make, toy: Any) -> None:
    """Catches: a lesson that trains each network twice, or a stored notebook with dashed lines alone."""
    run = drain(toy.TOY, toy.TOY.preset(steps=40, pause=0.0))
    toy.LOG.__init__()
    one = panel(run)
    bundle, about = one._repr_mimebundle_()
    assert bundle["image/png"] == bytes(one.image.value) == run.figure().there().png()
    assert about["image/png"]["alt"] == run.figure().words
    assert toy.LOG.runs == [] and not one.busy and workers() == []
    one.controls.widgets["rate"].value = 2.0
    assert one.wait(20) and [settings.rate for settings in toy.LOG.runs] == [2.0]
    assert one._session.previous == (run,) and one.verdict_table.value.count("✓ holds") == 2
    assert one._repr_mimebundle_()[0]["image/png"] != bundle["image/png"]
    with pytest.raises(ValueError, match="settings: a run has its own"):
        Panel(run, run.settings)


def test_train_runs_to_the_end_and_every_claim_gets_its_verdict(panel: Make, toy: Any) -> None:
    """Catches: the last frame or the last verdict lost because drawing was throttled."""
    one = panel({"steps": 40, "pause": 0.001})
    one.train_button.click()
    assert one.wait(20)
    assert one.run.status == "done" and len(one.run.frames) == 41
    assert "Done at step 40" in one.status_line.value
    assert one.verdict_table.value.count("✓ holds") == 2 and "so far" not in one.verdict_table.value
    assert toy.LOG.open == 0 and one.bar.value == 1.0


def test_a_claim_waits_as_dots_until_its_frames_are_there(panel: Make) -> None:
    """Catches: a claim that raises KeyError on a partial run shown as an error, or as failed."""
    one = panel({"steps": 400, "pause": 0.005})
    one.train_button.click()
    assert until(lambda: "so far" in one.verdict_table.value)
    assert "…" in one.verdict_table.value and one.error_box.value == ""
    one.stop_button.click()
    assert one.wait(20)


def test_stop_ends_a_run_between_frames_and_keeps_the_curves(panel: Make, toy: Any) -> None:
    """Catches: Stop that waits for the run, throws the curves away, or closes the generator from outside."""
    one = panel({"steps": 400, "pause": 0.02})
    one.train_button.click()
    assert until(lambda: len(one.run.frames) > 10)
    one.stop_button.click()
    assert until(lambda: toy.LOG.open == 0), "the generator is still open"
    assert one.wait(20)
    assert one.run.status == "stopped" and 10 < len(one.run.frames) < 300
    assert "Stopped at step" in one.status_line.value and one.error_box.value == ""
    assert toy.LOG.closed_in == ["labkit-toy"]


def test_a_run_that_ends_at_once_has_the_last_word(panel: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: "Stopping …" written over what a run that has ended says of itself."""
    one = panel({"steps": 400, "pause": 0.02})
    one.train_button.click()
    assert until(lambda: len(one.run.frames) > 3)
    stop = one._session.stop

    def stop_and_see_it_end() -> bool:
        under_way = stop()
        assert one.wait(20)
        return under_way

    monkeypatch.setattr(one._session, "stop", stop_and_see_it_end)
    one.stop_button.click()
    assert "Stopped at step" in one.status_line.value


def test_ten_quick_moves_leave_one_run_and_no_second_thread(panel: Make, toy: Any) -> None:
    """Catches: every slider event starts a run of its own; superseded runs go on in leaked threads."""
    one = panel({"steps": 300, "pause": 0.005})
    assert one.wait(20)
    slider = one.controls.widgets["rate"]
    for i in range(10):
        slider.value = 0.5 + 0.1 * i
        time.sleep(0.03)
    assert until(lambda: len(one.run.frames) > 5)
    assert len(workers()) == 1 and toy.LOG.most_open == 1
    assert len(toy.LOG.runs) == 1 and toy.LOG.runs[0].rate == pytest.approx(1.4)
    assert one.error_box.value == ""
    one.stop_button.click()
    assert one.wait(20)


def test_a_moved_slider_supersedes_the_run_in_flight(panel: Make, toy: Any) -> None:
    """Catches: two runs drawing into one picture."""
    one = panel({"steps": 400, "pause": 0.01})
    one.train_button.click()
    assert until(lambda: len(one.run.frames) > 5)
    one.controls.widgets["rate"].value = 2.0
    assert until(lambda: len(toy.LOG.runs) == 2)
    assert toy.LOG.most_open == 1
    assert until(lambda: len(one.run.frames) > 3) and one.run.settings.rate == 2.0
    one.stop_button.click()
    assert one.wait(20)


def test_the_first_frame_is_shown_while_the_run_goes_on(panel: Make, toy: Any) -> None:
    """Catches: a picture that waits for the end of the run. How soon: `benchmarks/run.py first-frame`."""
    one = panel({"steps": 4000, "pause": 0.005})
    assert one.wait(20)
    shown: list[int] = []
    one.image.observe(lambda change: shown.append(toy.LOG.open) if one.run.frames else None, "value")
    one.controls.widgets["rate"].value = 1.5
    assert until(lambda: shown)
    assert shown[0] == 1
    one.stop_button.click()
    assert one.wait(20)


def test_what_a_tick_shows_is_drawn_until_the_next_frame_and_never_kept(
    toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: a network in training whose numbers stand in the table, in a claim, or after Stop."""

    def run(setup: Any, prediction: Any) -> Any:
        frames = toy.run(setup, prediction)
        first = next(frames)
        yield Frame.tick(0, 0.0, lambda: first.values)
        while not released.wait(0.01):
            yield Frame.tick(0, 0.0, lambda: broken.append(0) or 1 / 0)
        yield from (first, *frames)

    def figure(frames: Any, *others: Any, **more: Any) -> Any:
        drawn.append(frames)
        return toy.figure(frames, *others, **more)

    released, drawn, broken = threading.Event(), list[Any](), list[int]()
    experiment = dataclasses.replace(toy.TOY, run=run, figure=figure)
    monkeypatch.setattr(session, "SHARE", 0.9)
    one = Panel(experiment, toy.TOY.preset("quick", pause=0.01), train=False)
    try:
        one.train_button.click()
        assert until(lambda: len(broken) > 1 and "as it stands" in one.status_line.value)
        assert len(drawn[-1]) == 1 and not one.run.frames
        assert not any(mark.y.size for mark in one._session.chart().panels[0].marks if type(mark) is Measured)
        one.stop_button.click()
        assert one.wait(20)
        assert [frame.status for frame in one.run.frames] == ["stopped"] and len(drawn[-1]) == 1
        released.set()
        one.train_button.click()
        assert until(lambda: len(one.run.frames) > 3)
        assert all(frame.showing is None for frame in one.run.frames)
        assert "as it stands" not in one.status_line.value
    finally:
        one.close()
        one.wait(5)


def test_the_dashed_prediction_moves_with_the_slider_where_it_is_cheap(panel: Make, toy: Any) -> None:
    """Catches: sliders that report only when let go although the prediction is instant."""
    one = panel(train=False)
    assert one.wait(20)
    assert one.controls.widgets["rate"].continuous_update
    pictures: list[bytes] = []
    one.image.observe(lambda change: pictures.append(change["new"]), "value")

    def move() -> bool:
        one.controls.widgets["rate"].value = 0.5 + (one.controls.widgets["rate"].value + 0.1) % 2
        return len(pictures) >= 6

    assert until(move), "no picture while the slider moves"
    assert one.wait(20) and toy.LOG.runs == []
    rate = one.controls.widgets["rate"].value
    assert one.run.prediction["fast"][-1] == pytest.approx(np.exp(-4 * rate))


def test_a_costly_prediction_waits_for_the_release(panel: Make) -> None:
    """Catches: a spectrum computed for every pixel of a drag."""
    one = panel({"cost": 0.2})
    assert one.wait(20)
    assert not one.controls.widgets["rate"].continuous_update


def test_the_last_run_turns_grey_when_a_setting_changes(panel: Make) -> None:
    """Catches: nothing to compare with after a slider moved."""
    one = panel({"steps": 20, "pause": 0.0}, train=False)
    one.train_button.click()
    assert one.wait(20)
    one.controls.widgets["rate"].value = 2.0
    assert one.wait(5)
    assert [run.settings.rate for run in one._session.previous] == [1.0]
    assert "rate 1" in one.grey_line.value
    one.clear_button.click()
    assert one.wait(5)
    assert one._session.previous == () and one.grey_line.value == ""


def test_kept_runs_stay_grey_over_several_changes(panel: Make) -> None:
    """Catches: Keep that keeps only the last run."""
    one = panel({"steps": 20, "pause": 0.0}, train=False)
    train_and_keep(one, 0.5, 1.5, 2.5)
    one.controls.widgets["rate"].value = 3.0
    assert one.wait(5)
    assert [run.settings.rate for run in one._session.previous] == [0.5, 1.5, 2.5]
    # In the picture each has a number and a name: a saved file is all that somebody else may have.
    assert one.chart().runs == {1: "rate 0.5", 2: "rate 1.5", 3: "rate 2.5"}
    assert one.grey_line.value.count("2: rate 1.5") == 1


def test_a_kept_run_never_makes_way_by_itself(panel: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: the run that a person wanted to compare with, gone when another is kept."""
    monkeypatch.setattr("labkit.live.session.KEPT", 2)
    one = panel({"steps": 5, "pause": 0.0}, train=False)
    train_and_keep(one, 0.5, 1.5, 2.5)
    assert [run.settings.rate for run in one._session.kept] == [0.5, 1.5]
    assert "2 runs are kept" in one.status_line.value and "Clear" in one.status_line.value


@pytest.mark.parametrize("where", ["prepare", "predict", "run", "figure"])
def test_an_exception_in_the_worker_is_shown_and_the_panel_lives_on(
    panel: Make, toy: Any, where: str
) -> None:
    """Catches: a traceback lost in a thread, and a panel dead after it."""
    one = panel({"steps": 30, "pause": 0.0}, train=False)
    assert one.wait(20)
    one.controls.widgets["fault"].value = where
    one.train_button.click()
    assert one.wait(20)
    assert f"broken on purpose in {where}" in one.error_box.value and "Traceback" in one.error_box.value
    assert toy.LOG.open == 0
    one.controls.widgets["fault"].value = "none"
    one.train_button.click()
    assert one.wait(20)
    assert one.run.status == "done" and one.error_box.value == ""


@pytest.mark.parametrize("where", ["prepare", "predict"])
def test_after_an_error_nothing_stands_that_belongs_to_other_settings(panel: Make, where: str) -> None:
    """Catches: green verdicts and curves of the run before, under settings that were never run."""
    one = panel({"steps": 30, "pause": 0.0}, train=False)
    one.train_button.click()
    assert one.wait(20)
    before = np.asarray(PIL.Image.open(io.BytesIO(one.image.value)).convert("L"))
    one.controls.widgets["fault"].value = where
    one.train_button.click()
    assert one.wait(20)
    assert "holds</span>" not in one.verdict_table.value and one.verdict_table.value.count("…") == 2
    after = np.asarray(PIL.Image.open(io.BytesIO(one.image.value)).convert("L"))
    # Axes and words stay where they were; the curves are gone.
    assert after.shape == before.shape and (after < 200).sum() < 0.7 * (before < 200).sum()
    one.controls.widgets["fault"].value = "none"
    one.train_button.click()
    assert one.wait(20) and one.verdict_table.value.count("✓ holds") == 2


def test_a_claim_that_breaks_says_so_and_the_others_are_decided(panel: Make) -> None:
    """Catches: one broken claim that takes the run down with it."""
    one = panel({"steps": 30, "pause": 0.0, "fault": "claim"})
    one.train_button.click()
    assert one.wait(20)
    assert "RuntimeError: broken on purpose in claim" in one.verdict_table.value
    assert one.verdict_table.value.count("✓ holds") == 1


def test_before_a_run_each_claim_says_by_which_rule_it_will_be_decided(panel: Make) -> None:
    """Catches: a rule that appears only once its outcome is known."""
    one = panel()
    assert one.wait(20)
    shown = one.verdict_table.value
    assert "prediction" in shown and "theorem" in shown
    assert "rate of decay: holds if within 0.5 of the prediction, in every seed" in shown


def test_a_verdict_stands_with_its_numbers_by_name_the_rule_and_its_replication(
    panel: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: a word without the numbers it was read from."""
    found = Replication("holds", {"holds": 19, "fails": 1}, seeds=3)
    monkeypatch.setattr("labkit.protocol.judging.replication_of", lambda *_: found)
    one = panel({"steps": 30, "pause": 0.0, "noise": 0.0})
    one.train_button.click()
    assert one.wait(20)
    shown = one.verdict_table.value
    assert "slow part at the end: predicted 0.67, measured 0.67 (3 seeds); holds if" in shown
    assert "holds in 19 of 20 blocks of 3 seeds" in shown and "expected" not in shown


def test_a_word_that_is_not_the_expected_one_says_so(panel: Make, toy: Any) -> None:
    """Catches: a surprise that looks like any other verdict."""
    surprising = dataclasses.replace(toy.CLAIMS[1], expected="fails")
    one = Panel(dataclasses.replace(toy.TOY, claims=(surprising,)), toy.TOY.preset(steps=10, pause=0.0))
    one.train_button.click()
    assert one.wait(20)
    assert "✓ holds" in one.verdict_table.value and "fails expected" in one.verdict_table.value
    one.close()


def test_a_stored_notebook_shows_a_picture_and_constant_text(panel: Make) -> None:
    """Catches: GitHub shows nothing, or nbval sees different text each time."""
    bundle, about = panel()._repr_mimebundle_()
    assert about["image/png"]["alt"].startswith("Figure. ")
    assert bundle["text/plain"] == "<Panel>"
    assert PIL.Image.open(io.BytesIO(bundle["image/png"])).size == (900, 340)


def test_settings_that_want_too_much_memory_are_named_and_leave_the_cell_whole(toy: Any) -> None:
    """Catches: a traceback of an allocator in the box, and one of the figure below the cell."""

    def greedy(settings: Any) -> Any:
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 42949672960 bytes."
        )

    one = Panel(dataclasses.replace(toy.TOY, prepare=greedy), toy.TOY.preset(width=5000))
    bundle, _ = one._repr_mimebundle_()
    assert bundle["text/plain"] == "<Panel>" and "image/png" not in bundle and one.wait(20)
    assert "out of memory, for an array of 40 GiB, at width=5000 (slider 16 to 1024)" in one.error_box.value
    assert "DefaultCPUAllocator" not in one.error_box.value
    one.close()


def test_a_forgotten_panel_goes_away_with_its_run_and_thread(toy: Any) -> None:
    """Catches: widgets' callbacks keep every panel ever made, training, for the life of the kernel."""
    # Far longer than the test waits: the panel must go before its run has ended by itself.
    one = Panel(toy.TOY, toy.TOY.preset("quick", steps=40_000, pause=0.01))
    one.train_button.click()
    assert until(lambda: toy.LOG.open == 1)
    gone = weakref.ref(one)
    del one

    def collected() -> bool:
        # While it draws, the worker holds the panel; in between the collector must find it free.
        time.sleep(0.1)
        gc.collect()
        return gone() is None

    assert until(collected, 60)
    assert until(lambda: toy.LOG.open == 0)
    assert until(lambda: not workers())


def test_a_shown_panel_stays_alive_without_a_name(toy: Any) -> None:
    """Catches: display(Panel(...)) with buttons that do nothing."""
    widget = Panel(toy.TOY).widget
    gc.collect()
    held = widget.labkit_panel
    assert held is not None and held.wait(10)
    held.close()


def test_closing_ends_the_run_the_thread_and_the_widgets(panel: Make, toy: Any) -> None:
    """Catches: close() that leaves training going on."""
    one = panel({"steps": 400, "pause": 0.01})
    one.train_button.click()
    assert until(lambda: toy.LOG.open == 1)
    one.close()
    assert until(lambda: toy.LOG.open == 0)
    assert until(lambda: not workers())
    assert one.image.comm is None


def test_an_idle_thread_ends_and_a_new_wish_starts_another(panel: Make) -> None:
    """Catches: one sleeping thread left for every panel in a notebook."""
    one = panel({"steps": 10, "pause": 0.0})
    assert one.wait(20)
    assert until(lambda: not workers())
    one.train_button.click()
    assert one.wait(20) and one.run.status == "done"


def test_steps_given_to_the_panel_reach_the_run(toy: Any) -> None:
    """Catches: the visible step of the lesson replaced by the library's own."""
    seen: list[Any] = []

    def run(setup: Any, prediction: Any, project: Any = None) -> Any:
        seen.append(project)
        return toy.run(setup, prediction)

    experiment = dataclasses.replace(toy.TOY, run=run)
    one = Panel(experiment, toy.TOY.preset("quick", steps=10, pause=0.0), project="mine")
    one.train_button.click()
    assert one.wait(20) and seen == ["mine"]
    one.close()


def test_an_unknown_control_is_refused_by_name(toy: Any) -> None:
    """Catches: a dead control."""
    with pytest.raises(ValueError, match="'wdith' is not a setting; there is rate, width"):
        Panel(toy.TOY, controls=("wdith",))
