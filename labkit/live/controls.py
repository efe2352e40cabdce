"""A widget for every setting, made from its knob."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from labkit.protocol.settings import Knob, Settings

from . import words

AT_ONCE = "At once, on the networks that are trained:"
SLIDERS = (widgets.IntSlider, widgets.FloatSlider, widgets.FloatLogSlider, widgets.SelectionSlider)
_STYLE = {"description_width": "150px"}


def _layout() -> widgets.Layout:
    return widgets.Layout(
        flex="1 1 340px", min_width="260px", max_width="460px", width="auto", margin="1px 8px 1px 0"
    )


def control(knob: Knob, value: Any) -> Any:
    """The widget that fits a knob: a slider where it names a range, else a menu, a switch or a field."""
    label = knob.label + (f" ({knob.unit})" if knob.unit else "")
    common = {"description": label, "tooltip": knob.help, "style": _STYLE, "layout": _layout()}
    if knob.choices is not None:
        options = [(str(choice), choice) for choice in knob.choices]
        return widgets.Dropdown(options=options, value=value, **common)
    if knob.type is bool:
        return widgets.Checkbox(value=value, **{**common, "indent": True})
    if knob.type is str:
        return widgets.Text(value=value, continuous_update=False, **common)
    if knob.slider is None:
        return _field(knob, value, common)
    if knob.scale == "log2" or (knob.scale == "log" and knob.type is int):
        options = [(_short(stop), stop) for stop in knob.stops(value)]
        return widgets.SelectionSlider(options=options, value=value, continuous_update=False, **common)
    first, last, step = knob.track(value)
    if knob.scale == "log":
        return widgets.FloatLogSlider(
            value=value, min=first, max=last, step=step, base=10.0, readout_format=".2g",
            continuous_update=False, **common,
        )  # fmt: skip
    if knob.type is int:
        return widgets.IntSlider(
            value=value,
            min=int(first),
            max=int(last),
            step=int(step),
            continuous_update=False,
            **common,
        )
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    shown = f".{places + (round(step * 10**places) / 10**places != step)}f"
    return widgets.FloatSlider(
        value=value, min=first, max=last, step=step, readout_format=shown, continuous_update=False, **common
    )


def _field(knob: Knob, value: Any, common: dict[str, Any]) -> Any:
    low, high = knob.bounds
    kind = widgets.BoundedIntText if knob.type is int else widgets.BoundedFloatText
    far = 2**31 if knob.type is int else 1e300
    return kind(
        value=value, min=-far if low is None else low, max=far if high is None else high,
        continuous_update=False, **common,
    )  # fmt: skip


def _short(stop: Any) -> str:
    return f"{stop:.6g}" if isinstance(stop, float) else str(stop)


def _snapped(widget: Any, value: Any) -> Any:
    """The stop to which a browser moves a slider that was given a value between two stops.

    It does so unasked when it draws the slider anew, and reports it like a move of the person's.
    """
    if isinstance(widget, widgets.FloatLogSlider):
        position = math.log(value, widget.base)
    elif isinstance(widget, (widgets.FloatSlider, widgets.IntSlider)):
        position = value
    else:
        return value
    stop = min(widget.min + widget.step * round((position - widget.min) / widget.step), widget.max)
    near = widget.base**stop if isinstance(widget, widgets.FloatLogSlider) else stop
    return widget.value if math.isclose(widget.value, near, rel_tol=1e-6, abs_tol=1e-9) else near


def _put(widget: Any, value: Any) -> None:
    """Moves a widget to a value, wherever it lies."""
    if isinstance(widget, (widgets.IntSlider, widgets.FloatSlider)):
        widget.min, widget.max = min(widget.min, value), max(widget.max, value)
    elif isinstance(widget, widgets.SelectionSlider) and value not in [stop for _, stop in widget.options]:
        widget.options = sorted([*widget.options, (_short(value), value)], key=lambda option: option[1])
    widget.value = value


class Controls:
    """All settings of an experiment as widgets: those offered in front, the others folded away.

    A widget that the person moved is typed; the others stand at what the settings make of that.

    Args:
        settings: the values to begin with.
        front: the names offered in front, in order.
        changed: called, with no arguments, when the person changed a value.

    Raises:
        ValueError: ``front`` names something that is not a setting.
    """

    def __init__(self, settings: Settings, front: Sequence[str], changed: Callable[[], None]) -> None:
        self._settings, self._changed, self._told = settings, changed, settings
        knobs = settings.knobs()
        for name in front:
            if name not in knobs:
                raise ValueError(f"controls: {name!r} is not a setting; there is {', '.join(knobs)}")
        self.widgets = {name: control(knob, getattr(settings, name)) for name, knob in knobs.items()}
        self._shown = {name: widget.value for name, widget in self.widgets.items()}
        self._stand, self._following = settings.to_dict(), False
        for widget in self.widgets.values():
            widget.observe(self._observe, "value")
        self._said = widgets.HTML(layout=widgets.Layout(flex="1 1 100%"))
        self._boxes: dict[str, widgets.Box] = {}
        self.front = self._grouped(front)
        self.rest = self._grouped([name for name in knobs if name not in front])

    def _grouped(self, names: Sequence[str]) -> widgets.VBox:
        """What asks for another training, then what only measures anew."""
        knobs = self._settings.knobs()
        parts: list[Any] = []
        for at_once in (False, True):
            inside = [self.widgets[name] for name in names if knobs[name].remeasures == at_once]
            if inside and at_once:
                parts.append(widgets.HTML(words.quiet(AT_ONCE)))
            if inside:
                wrap = widgets.Layout(display="flex", flex_flow="row wrap", width="100%")
                parts.append(widgets.Box(inside, layout=wrap))
                self._boxes |= {name: parts[-1] for name in names if self.widgets[name] in inside}
        fixed = [knobs[name] for name in names if len(knobs[name].choices or ()) == 1]
        parts += [widgets.HTML(words.quiet(f"{knob.label}: {knob.help}.")) for knob in fixed]
        return widgets.VBox(parts, layout=widgets.Layout(width="100%"))

    def _observe(self, change: Any) -> None:
        if self._following:
            return
        # A browser that draws a slider anew reports its value back, moved to a stop or rounded another way.
        try:
            now = self.settings()
        except ValueError:
            now = None  # whoever asks for the settings tells why
        if now is None or now != self._told:
            self._told = now
            if now is not None:
                self._follow(now)
            self._changed()

    def _follow(self, now: Settings) -> None:
        """Moves what nobody moved to where it stands beside what was typed."""
        self._following = True
        try:
            for name, value in now.to_dict().items():
                if value != self._stand[name] and not self._moved(name):
                    _put(self.widgets[name], value)
                    self._stand[name], self._shown[name] = value, self.widgets[name].value
        finally:
            self._following = False

    def settings(self) -> Any:
        """The settings as the widgets stand.

        Raises:
            ValueError: the settings refuse a value, or a combination.
        """
        moved = {name: widget for name, widget in self.widgets.items() if self._moved(name)}
        return self._settings.replace(**{name: self._tidy(name, one.value) for name, one in moved.items()})

    def _moved(self, name: str) -> bool:
        # A widget may round what it was given; what nobody moved keeps its exact value.
        widget, shown = self.widgets[name], self._shown[name]
        return widget.value not in (shown, _snapped(widget, shown))

    def _tidy(self, name: str, value: Any) -> Any:
        if self._settings.knobs()[name].type is float and isinstance(value, (int, float)):
            return float(
                f"{value:.3g}" if isinstance(self.widgets[name], widgets.FloatLogSlider) else f"{value:.10g}"
            )
        return value

    def note(self, name: str, html: str) -> None:
        """Says something beside a control, in place of what was said before."""
        self.clear_note()
        self._said.value = html
        box = self._boxes[name]
        after = box.children.index(self.widgets[name]) + 1
        box.children = (*box.children[:after], self._said, *box.children[after:])

    def clear_note(self) -> None:
        for box in self._boxes.values():
            if self._said in box.children:
                box.children = tuple(child for child in box.children if child is not self._said)

    def folded(self, name: str) -> bool:
        """Whether a control is among those folded away."""
        return self._boxes[name] in self.rest.children

    def follow(self, wanted: bool, trained: bool) -> None:
        """Whether sliders report while they are dragged, or when they are let go.

        Args:
            wanted: of all.
            trained: of those, at least, that only measure anew.
        """
        knobs = self._settings.knobs()
        for name, widget in self.widgets.items():
            now = wanted or (trained and knobs[name].remeasures)
            if isinstance(widget, SLIDERS) and widget.continuous_update != now:
                widget.continuous_update = now
