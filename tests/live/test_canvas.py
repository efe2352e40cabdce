"""Frames: equal to the figure drawn from scratch, and cheap."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest

from labkit.figures import (
    Bound,
    Chart,
    Earlier,
    Histogram,
    Level,
    Measured,
    Panel,
    Points,
    Predicted,
    Raster,
)
from labkit.live import Canvas
from labkit.live.canvas import encode
from labkit.protocol.experiment import drain

T = np.arange(100.0)


def chart(
    count: int, rate: float = 1.0, title: str = "loss", caption: str = "width 3", **panel: Any
) -> Chart:
    decay = np.exp(-rate * T / 30)
    seeds = decay * np.linspace(0.9, 1.1, 3)[:, None]
    marks = [Predicted(T, decay, "a"), Measured(T[:count], seeds[:, :count], "a"), Level(0.5 * rate, "half")]
    return Chart([Panel(title, marks, "step", "loss", **panel)], caption)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_a_frame_equals_the_figure_drawn_from_scratch() -> None:
    """Catches: curves left behind by an earlier frame, or missing from this one."""
    canvas = Canvas()
    for count in (0, 1, 30, 60):
        live = pixels(canvas.frame(chart(count, ylim=(0, 1.2))))
    fresh = pixels(Canvas().frame(chart(60, ylim=(0, 1.2))))
    assert np.array_equal(live, fresh)
    # Against the still figure only the stacking of curve and axis may differ, at a few pixels.
    assert np.mean(np.abs(live - pixels(chart(60, ylim=(0, 1.2)).png())).max(axis=2) > 60) < 0.002


def test_the_encoder_writes_what_a_reader_reads() -> None:
    """Catches: a wrong length, checksum or row order in the hand-written PNG."""
    colours = np.random.default_rng(0).integers(0, 256, (7, 5, 4), dtype=np.uint8)
    assert np.array_equal(pixels(encode(colours)), colours[..., :3])


def test_frames_and_moving_predictions_need_no_full_redraw() -> None:
    """Catches: a picture of 80 ms where one of 12 would do."""
    canvas = Canvas()
    canvas.frame(chart(0))
    canvas.frame(chart(1))
    settled = canvas.redraws
    for count in range(2, 90, 7):
        canvas.frame(chart(count))
    for rate in (1.0, 1.05, 1.1):
        canvas.frame(chart(0, rate, caption=f"rate {rate}"))
    assert canvas.redraws == settled


def test_a_moved_prediction_leaves_nothing_of_the_old_one() -> None:
    """Catches: a fan of dashed curves after a drag."""
    canvas = Canvas()
    for rate in (1.0, 1.2, 1.1):
        live = canvas.frame(chart(0, rate, ylim=(0, 1.2)))
    assert np.array_equal(pixels(live), pixels(Canvas().frame(chart(0, 1.1, ylim=(0, 1.2)))))


def test_a_changed_structure_is_drawn_again() -> None:
    """Catches: yesterday's title over today's curve."""
    twice, titled = Chart([*chart(9).panels] * 2), Chart(chart(9).panels, "width 3", "a title")
    for other in (chart(9, title="error"), chart(9, yscale="log"), chart(9, xlim=(0, 7)), twice, titled):
        canvas = Canvas()
        canvas.frame(chart(9))
        assert np.array_equal(pixels(canvas.frame(other)), pixels(Canvas().frame(other)))


def test_one_panel_on_new_axes_leaves_nothing_of_its_old_ones_and_touches_no_other() -> None:
    """Catches: half of a title, ticks under ticks, a scale of colours beside a curve."""
    kept, long = (
        chart(9, ylim=(0, 1.2)).panels[0],
        "A title that is longer than the panel below it",
    )
    others = [
        chart(9, ylim=(0, 1.2), **more).panels[0]
        for more in ({"title": long}, {"yscale": "symlog"}, {"xlim": (0, 7)}, {"title": "error"}, {})
    ]
    raster = Panel("map", [Raster(np.eye(3))], "step", "loss")
    canvas = Canvas()
    for place, other in enumerate((kept, *others, raster, others[0], raster, kept)):
        panels = [kept] * 5
        panels[place % 5] = other
        picture = Chart(panels, "width 3")
        assert np.array_equal(pixels(canvas.frame(picture)), pixels(Canvas().frame(picture)))


@pytest.mark.parametrize("scale", ["linear", "log", "log2", "symlog"])
def test_axes_that_get_other_limits_are_those_of_a_new_figure(scale: str) -> None:
    """Catches: small ticks of the limits before, a band or bar that ends where the axes once did."""

    def made(size: float) -> Chart:
        x, y = 1 + T, np.outer([1.0, 2.0], 1 + T)
        curve = [Measured(x, size * y, "a"), Points(x[:5], size * y[:, :5], "b", 1)]
        still = [Bound(x, 2 * x, "c", 2), Earlier(x, y, run=1), Level(9.0), Histogram(x, x[:-1], "d", 3)]
        return Chart([Panel("p", [*curve, *still], "x", "y", yscale=scale)])

    canvas = Canvas()
    canvas.frame(made(1.0))
    for size in (1e3, 1.0):
        live = pixels(canvas.frame(made(size)))
        kept = canvas._drawing.held  # type: ignore[union-attr]
        fresh = Canvas()
        fresh._drawing = SimpleNamespace(chart=made(size), held=kept, refresh=lambda chart: None)  # type: ignore[assignment]
        assert np.array_equal(live, pixels(fresh.frame(made(size))))


def test_axes_stand_still_while_names_come_and_go() -> None:
    """Catches: axes that jump, and are drawn anew, between each prediction and its first measurement."""

    def made(*names: str) -> Chart:
        marks = [Measured(T, T + i, name, i) for i, name in enumerate(names)]
        return Chart([Panel("loss", [Predicted(T, T), *marks]), Panel("error", [Predicted(T, T)])])

    canvas, few, many = Canvas(), made(), made("a name that fills half a row", "another, and as long")
    wide = pixels(canvas.frame(many))
    held = canvas.redraws
    assert not np.array_equal(pixels(canvas.frame(few)), pixels(Canvas().frame(few)))
    assert np.array_equal(pixels(canvas.frame(many)), wide) and canvas.redraws == held
    canvas.sharp(few, refit=True)
    assert np.array_equal(pixels(canvas.frame(few)), pixels(Canvas().frame(few)))


def test_limits_grow_with_room_and_not_with_every_frame() -> None:
    """Catches: a full redraw a frame for a curve that grows."""
    canvas = Canvas()
    for count in range(2, 100):
        canvas.frame(Chart([Panel("growing", [Measured(T[:count], T[:count] ** 2, "a")])]))
    assert canvas.redraws < 30


def test_the_picture_of_a_finished_run_has_no_room_left_to_grow(panel: Any) -> None:
    """Catches: a final figure with an empty fifth, unlike the one that Save writes."""
    one = panel({"steps": 30, "pause": 0.0, "noise": 0.5})
    one.train_button.click()
    assert one.wait(10)
    assert np.array_equal(pixels(bytes(one.image.value)), pixels(one.chart().png(dpi=200)))


def test_a_raster_follows_its_values_and_their_range() -> None:
    """Catches: colours frozen at the range of the first frame."""
    canvas = Canvas()
    canvas.frame(Chart([Panel("", [Raster(np.eye(3))])]))
    grown = Chart([Panel("", [Raster(100 * np.eye(3)[::-1])])])
    assert np.array_equal(pixels(canvas.frame(grown)), pixels(Canvas().frame(grown)))


def test_a_grey_run_added_and_removed_is_shown_and_gone() -> None:
    """Catches: Clear kept that clears nothing."""
    canvas, bare = Canvas(), chart(9)
    grey = Chart([Panel("loss", [Earlier(T, 0.3 + 0 * T), *bare.panels[0].marks], "step", "loss")], "width 3")
    first = pixels(canvas.frame(bare))
    assert np.abs(pixels(canvas.frame(grey)) - first).max() > 20
    assert np.array_equal(pixels(canvas.frame(bare)), first)


def test_the_picture_at_rest_has_twice_the_dots(toy: Any) -> None:
    """Catches: a blurred figure on the projector."""
    run = drain(toy.TOY, toy.TOY.preset("quick", steps=10, pause=0.0))
    assert pixels(Canvas().sharp(run.figure())).shape == (680, 1800, 3)
