"""Settings of an experiment: each knob once, with default, range, scale, unit and a sentence.

    @dataclass(frozen=True)
    class Residuals(Settings):
        width: int = knob(512, "hidden units k", slider=(16, 4096), bounds=(1, None), scale="log2")

Sliders, command-line flags, error messages and captions are all made from these fields.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, ClassVar

# As training names one of the networks that it trains side by side.
_COPY = r"copy \d+ of \d+ \(seed \d+\)"
_SCALES = ("linear", "log", "log2")


@dataclass(frozen=True)
class Knob:
    """One setting as an interface sees it.

    Attributes:
        slider: the range (lowest, highest) that a slider offers, or None for a choice or a switch.
        bounds: what is valid at all, (lowest, highest); None means unbounded on that side.
        scale: "linear", "log" (decades) or "log2" (octaves).
        step: the slider's step on a linear scale.
        choices: the allowed values of a choice.
        remeasures: whether another value only measures anew what was trained.
    """

    name: str
    type: type
    default: Any
    help: str
    slider: tuple[float, float] | None
    bounds: tuple[float | None, float | None]
    scale: str
    step: float | None
    unit: str
    choices: tuple[Any, ...] | None
    label: str
    remeasures: bool = False

    def check(self, value: Any) -> Any:
        """Returns the value in this knob's type.

        Raises:
            ValueError: not of the type, not finite, out of bounds or not among the choices.
        """
        if self.choices is not None:
            if value not in self.choices:
                offered = ", ".join(str(choice) for choice in self.choices)
                raise ValueError(f"{self.name} must be one of {offered}; got {value!r}")
            return value
        if self.type is bool:
            if not isinstance(value, bool):
                raise ValueError(f"{self.name} must be true or false; got {value!r}")
            return value
        if self.type is str:
            if not isinstance(value, str) or not value:
                raise ValueError(f"{self.name} must be a text that is not empty; got {value!r}")
            return value
        if isinstance(value, bool) or not hasattr(value, "__float__") or not math.isfinite(float(value)):
            raise ValueError(f"{self.name} must be a finite number; got {value!r}")
        if self.type is int and int(value) != value:
            raise ValueError(f"{self.name} must be a whole number; got {value!r}")
        low, high = self.bounds
        if (low is not None and value < low) or (high is not None and value > high):
            raise ValueError(f"{self.name} must be {_range(low, high)}; got {value!r}")
        return self.type(value)

    def stops(self, value: Any) -> list[Any]:
        """Where its slider stops when it was made at a value, which is one of them; none without a slider."""
        if self.slider is None or self.choices is not None:
            return []
        if self.scale == "log2" or (self.scale == "log" and self.type is int):
            return self._whole_stops(value)
        first, last, step = self.track(value)
        places = (first + step * i for i in range(int((last - first) / step + 1e-6) + 1))
        return [self.type(f"{10**at:.3g}" if self.scale == "log" else f"{at:.10g}") for at in places]

    def _whole_stops(self, value: Any) -> list[Any]:
        low, high = self.slider or (1, 2)
        stops: list[Any] = []
        if self.scale == "log2":
            at = float(low)  # octaves from its low end: 40, 80, .. as well as 64, 128, ..
            while at <= high * (1 + 1e-9):
                stops.append(self.type(at))
                at *= 2
        else:
            for decade in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
                digits = (digit * 10**decade for digit in (1, 2, 5))
                stops += [self.type(stop) for stop in digits if low <= stop <= high]
        return sorted({*stops, self.type(low), self.type(high), value})

    def track(self, value: float) -> tuple[float, float, float]:
        """Ends and step of its slider made at a value; on a "log" scale in decades.

        There the value and the upper end are stops, so that a slider can be put back.
        """
        first, last = (float(end) for end in self.slider or (value, value))
        first, last = min(first, value), max(last, value)
        if self.scale != "log":
            whole = self.type is int
            return (
                first,
                last,
                self.step or (1 if whole else 10.0 ** math.floor(math.log10((last - first) / 20))),
            )
        low, high, at = math.log10(first), math.log10(last), math.log10(value)
        if high > at:
            step = (high - at) / max(1, round((high - at) / 0.05))
            return at - step * math.floor((at - low) / step + 1e-9), high, step
        return low, high, (high - low) / max(1, round((high - low) / 0.05)) or 0.05

    def parse(self, text: str) -> Any:
        """Reads a value from a command line."""
        text = text.strip()
        if self.choices is not None:
            return self.check(next((choice for choice in self.choices if str(choice) == text), text))
        if self.type is bool:
            words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
            return self.check(words.get(text.lower(), text))
        if self.type is str:
            return self.check(text)
        try:
            number: float = int(text)
        except ValueError:
            try:
                number = float(text)
            except ValueError:
                raise ValueError(f"{self.name} must be a number; got {text!r}") from None
        return self.check(number)


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"between {low:g} and {high:g}"
    return f"at least {low:g}" if low is not None else f"at most {high:g}"


def knob(
    default: Any,
    help: str,
    *,
    slider: tuple[float, float] | None = None,
    bounds: tuple[float | None, float | None] | None = None,
    scale: str = "linear",
    step: float | None = None,
    unit: str = "",
    choices: tuple[Any, ...] | None = None,
    label: str = "",
    remeasures: bool = False,
) -> Any:
    """Declares one setting.

    `bounds` defaults to the slider's range; `label` to the setting's name in words.

    Args:
        default: the value of the quick preset.
        help: a sentence.
        slider: its ends; None where there is no slider.
        bounds: of what is accepted; None at an end leaves it open.
        scale: "linear", "log" or "log2", as the slider moves.
        step: of the slider.
        unit: as it is printed.
        choices: the values accepted, where they are few.
        label: on the slider.
        remeasures: another value asks for no other training: a panel acts on it at once.

    Returns:
        A dataclass field.

    Raises:
        ValueError: the scale is unknown.
    """
    if scale not in _SCALES:
        raise ValueError(f"scale must be one of {', '.join(_SCALES)}; got {scale!r}")
    meta = {
        "help": help, "slider": slider, "bounds": bounds or slider or (None, None), "scale": scale,
        "step": step, "unit": unit, "choices": choices, "label": label,
        "remeasures": remeasures,
    }  # fmt: skip
    return field(default=default, metadata=meta)


def on_cpu() -> Any:
    """Declares `device` for an experiment that a card could not make faster; a panel shows the reason.

    Returns:
        A dataclass field.

    Raises:
        ValueError: as `knob`.
    """
    why = "its matrices are so small that a card would be waited for longer than it computes"
    return knob("cpu", f"on the CPU, whatever there is: {why}", choices=("cpu",))


@dataclass(frozen=True)
class Settings:
    """Base of every experiment's settings: immutable, checked when made.

    What was changed by `replace`, `parse` or `preset` counts as typed. Where typed values call for it, the
    others follow them (`follow`), so that nobody is refused for a default; they are the settings of the run.

    Attributes:
        typed: name -> value of what was typed.
        note: what untyped settings leave out, as one sentence, or "".
    """

    seed: int = knob(0, "the first seed; it fixes data, noise, initialisation and batches", bounds=(0, 2**31))
    seeds: int = knob(3, "independent repetitions", slider=(1, 10), bounds=(1, 1000))
    device: str = knob("cpu", "where to run", choices=("cpu", "cuda", "mps"))

    # No fields: two settings with the same values are the same.
    _start: ClassVar[Settings | None] = None
    typed: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    note: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, knob_ in self.knobs().items():
            object.__setattr__(self, name, knob_.check(getattr(self, name)))

    @classmethod
    def knobs(cls) -> dict[str, Knob]:
        """Name -> knob, in the order of declaration with seed, seeds and device last."""
        found = {}
        for item in fields(cls):
            kind = type(item.default)
            meta = {key: item.metadata[key] for key in item.metadata if key != "label"}
            label = item.metadata["label"] or item.name.replace("_", " ")
            found[item.name] = Knob(item.name, kind, item.default, label=label, **meta)
        common = ("seed", "seeds", "device")
        return {name: found[name] for name in (*(n for n in found if n not in common), *common)}

    def replace(self, **changes: Any) -> Any:
        """A copy with changes.

        Raises:
            ValueError: a change names no setting (the closest ones are offered) or is out of its range.
        """
        known = self.knobs()
        for name in changes:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=3) or list(known)
                raise ValueError(
                    f"{name} is not a setting of {type(self).__name__}; there is {', '.join(close)}"
                )
        start = self._start or self
        typed = {**self.typed, **{name: known[name].check(value) for name, value in changes.items()}}
        followed, note = start.follow(typed)
        made = dataclasses.replace(start, **followed, **typed)
        for name, value in {"_start": start, "typed": typed, "note": note}.items():
            object.__setattr__(made, name, value)
        return made

    def follow(self, typed: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """What other settings become when some are typed, and what that leaves out, in one sentence."""
        return {}, ""

    def advised(self, note: str) -> str:
        """A note on a run that diverged, in the person's terms.

        "Take 0.4 × lr" becomes the next lower stop of its slider, rates stand in the slider's unit, and
        copies that were trained side by side have the names of their seeds.
        """
        note = re.sub(rf"{_COPY}(, {_COPY})*", self._seeds_of, note)
        found = re.search(r"Take (\S+) × (\w+)", note)
        if found is None or found[2] not in self.knobs():
            return note
        name, knob_, now = found[2], self.knobs()[found[2]], getattr(self, found[2])
        raw = re.search(r"lr=(\S+) is", note)
        unit = now / float(raw[1]) if raw else 1.0
        note = re.sub(r"lr=(\S+) is", f"{name}={now:g} is", note)
        note = re.sub(r"about ([\d.e+-]*\d)", lambda rate: f"about {float(rate[1]) * unit:.2g}", note)
        most = now * float(found[1])
        stops = knob_.stops(getattr(self._start or self, name))
        value = max((stop for stop in stops if stop <= most), default=float(f"{most:.1g}"))
        return note.replace(found[0], f"Take {name}={value:g} or less")

    def _seeds_of(self, copies: re.Match[str]) -> str:
        own = range(self.seed, self.seed + self.seeds)
        found: dict[str, None] = {}  # each once, in order
        for copy in re.finditer(r"(\d+) of (\d+) \(seed (\d+)", copies[0]):
            place, size, seed = map(int, copy.groups())
            seed = own[place] if size == self.seeds else seed
            found[f"seed {seed}" if seed in own else f"one of {size} networks"] = None
        return ", ".join(found)

    def parse(self, texts: Mapping[str, str]) -> Any:
        """A copy with changes read from texts, as from `--set name=value`."""
        known = self.knobs()
        read = {name: known[name].parse(text) if name in known else text for name, text in texts.items()}
        return self.replace(**read)

    def changes_from(self, other: Settings) -> dict[str, Any]:
        """The settings in which this differs from another of its class."""
        return {
            name: getattr(self, name) for name in self.knobs() if getattr(self, name) != getattr(other, name)
        }

    def shares_training_with(self, other: Settings) -> bool:
        """Whether this differs from another of its class only in what is measured after training."""
        knobs = self.knobs()
        return all(knobs[name].remeasures for name in self.changes_from(other))

    def told_from(self, other: Settings) -> str:
        """In words, how this differs from another of its class: "width 64, depth 1"."""
        knobs, told = self.knobs(), []
        for name, value in self.changes_from(other).items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            told.append(f"{knobs[name].label or name} {shown}")
        return ", ".join(told) or "the same settings"

    def beyond_sliders(self) -> dict[str, Any]:
        """The settings above what their sliders offer."""
        sliders = {name: one.slider for name, one in self.knobs().items() if one.slider}
        return {name: getattr(self, name) for name, ends in sliders.items() if getattr(self, name) > ends[1]}

    def with_sliders(self, names: Iterable[str]) -> str:
        """Some settings as a person gives them: "width=100000 (slider 16 to 4096), depth=4"."""
        knobs, beyond = self.knobs(), self.beyond_sliders()

        def told(name: str) -> str:
            low, high = knobs[name].slider or (0, 0)
            slider = f" (slider {low:g} to {high:g})" if name in beyond else ""
            return f"{name}={getattr(self, name)}{slider}"

        return ", ".join(map(told, names))

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.knobs()}
