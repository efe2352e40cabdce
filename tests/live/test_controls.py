"""A widget for every knob; what it reports is what the settings take."""

from __future__ import annotations

from typing import Any

import ipywidgets
import pytest

from labkit.live.controls import Controls, control


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rate", ipywidgets.FloatSlider),
        ("width", ipywidgets.SelectionSlider),
        ("lr", ipywidgets.FloatLogSlider),
        ("steps", ipywidgets.IntSlider),
        ("kind", ipywidgets.Dropdown),
        ("seed", ipywidgets.BoundedIntText),
    ],
)
def test_each_kind_of_knob_gets_its_widget(toy: Any, name: str, kind: type) -> None:
    """Catches: a learning rate on a linear slider."""
    knob = toy.Toy.knobs()[name]
    made = control(knob, knob.default)
    assert type(made) is kind and made.tooltip == knob.help and made.description == knob.label


def test_what_nobody_moved_keeps_its_exact_value(toy: Any) -> None:
    """Catches: settings changed by a slider's rounding before anybody touched it."""
    settings = toy.Toy(rate=1.23456, lr=0.0371, width=100, noise=0.333)
    assert Controls(settings, ("rate",), lambda: None).settings() == settings


def test_a_browser_that_snaps_a_log_slider_to_its_stops_changes_nothing(toy: Any) -> None:
    """Catches: a training that nobody asked for, at 0.00199 in place of 0.002, when a panel is drawn anew."""
    calls: list[int] = []
    settings = toy.Toy(lr=0.0371)
    controls = Controls(settings, ("lr",), lambda: calls.append(1))
    slider = controls.widgets["lr"]
    stops = [10 ** (slider.min + slider.step * i) for i in range(60)]
    nearest = min(range(60), key=lambda i: abs(stops[i] / 0.0371 - 1))
    slider.value = stops[nearest]
    assert not calls and controls.settings() == settings
    slider.value = stops[nearest + 1]
    assert calls and controls.settings().lr == pytest.approx(stops[nearest + 1], rel=5e-3)


def test_a_browser_that_reports_a_slider_back_changes_nothing(toy: Any) -> None:
    """Catches: a training that nobody asked for, because 0.3 came back as 0.30000000000000004."""
    calls: list[int] = []
    settings = toy.Toy(noise=0.3)
    controls = Controls(settings, ("noise",), lambda: calls.append(1))
    slider = controls.widgets["noise"]
    slider.value = 0.30000000000000004
    slider.value = 0.3
    assert not calls and controls.settings() == settings
    slider.value = 0.3 - slider.step
    assert len(calls) == 1
    slider.value = 0.3  # a person moves it back
    assert len(calls) == 2 and controls.settings() == settings


def test_a_linear_slider_between_two_stops_keeps_its_value(toy: Any) -> None:
    """Catches: the same with 0.33 on a slider of steps 0.05, which a browser draws at 0.35."""
    calls: list[int] = []
    settings = toy.Toy(noise=0.33)
    controls = Controls(settings, ("noise",), lambda: calls.append(1))
    slider = controls.widgets["noise"]
    slider.value = slider.min + slider.step * round((0.33 - slider.min) / slider.step)
    assert not calls and controls.settings() == settings


def test_octaves_and_odd_values_share_a_slider(toy: Any) -> None:
    """Catches: a width of 100 that jumps to 128 by itself, or cannot be shown."""
    made = control(toy.Toy.knobs()["width"], 100)
    assert [stop for _, stop in made.options] == [16, 32, 64, 100, 128, 256, 512, 1024]


def test_a_value_beyond_the_slider_widens_it(toy: Any) -> None:
    """Catches: a legal setting cut to the slider's range."""
    made = control(toy.Toy.knobs()["rate"], 50.0)
    assert made.max == 50.0 and made.value == 50.0


def test_a_dragged_float_is_a_short_number(toy: Any) -> None:
    """Catches: label_noise=0.15000000000000002 in the line that repeats the run."""
    controls = Controls(toy.Toy(), ("noise", "lr"), lambda: None)
    controls.widgets["noise"].value = 0.05 * 3
    controls.widgets["lr"].value = 10**-1.35
    assert repr(controls.settings().noise) == "0.15" and repr(controls.settings().lr) == "0.0447"


def test_every_slider_changes_the_settings(toy: Any) -> None:
    """Catches: a dead control."""
    calls: list[int] = []
    controls = Controls(toy.Toy(), toy.TOY.controls, lambda: calls.append(1))
    for name in toy.TOY.controls:
        widget = controls.widgets[name]
        if hasattr(widget, "options"):
            widget.value = widget.options[-1][1]
        else:
            widget.value = widget.max if not hasattr(widget, "base") else widget.base**widget.max
        assert name in controls.settings().changes_from(toy.Toy())
    assert len(calls) == 4
