"""What the labs share: their data, one set a seed, and how frames become arrays for figures and claims."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data
from labkit.data.loading import stamp
from labkit.data.strata import choose
from labkit.protocol import lengths
from labkit.protocol.experiment import Frame, Frames, Run, series
from labkit.protocol.rules import Check
from labkit.protocol.settings import Settings
from labkit.training import Ensemble, LossBelow, train
from labkit.training.dynamics import Gradient, descend


@dataclass(frozen=True)
class OnData(Settings):
    """Settings of an experiment on a data set: where another one is named, what was not typed follows it.

    Attributes:
        drawn: setting -> the training samples that a run draws for each one of it.
    """

    drawn: ClassVar[Mapping[str, int]] = {"n": 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, (most, words) in self.limits.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be at most {words} = {most}; got {getattr(self, name)}")

    @property
    def limits(self) -> Mapping[str, tuple[int, str]]:
        """Setting -> the most that it can be beside the others, as a number and in words."""
        return {}

    def follow(self, typed: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """Classes as the data have them, as many samples as there are, and what goes with that."""
        before = self.to_dict()
        if typed.get("dataset", before["dataset"]) == before["dataset"]:
            return {}, ""
        try:
            counts = data.class_counts(typed["dataset"])
        except ValueError:  # `load` says what is wrong with it
            return {}, ""
        trial, knobs = copy.copy(self), self.knobs()
        now = vars(trial)  # of a copy that nobody has checked yet
        now.update(typed)
        if "classes" in knobs and "classes" not in typed:
            now["classes"] = min(len(counts), int((knobs["classes"].slider or (0, len(counts)))[1]))
        kept = counts[: now.get("classes", len(counts))]
        self._shrink(now, typed, sum(kept))
        for name, (most, _) in trial.limits.items():
            if name not in typed:
                now[name] = min(now[name], most)
        used = sum(now[name] * each for name, each in self.drawn.items())
        followed = {name: now[name] for name in knobs.keys() - typed.keys() if now[name] != before[name]}
        return followed, _left_out(Path(now["dataset"]).name, counts, len(kept), used, now["seed"])

    def _shrink(self, now: dict[str, Any], typed: Mapping[str, Any], there: int) -> None:
        """Fewer samples, where those that nobody asked for are more than there are."""
        free = {name: now[name] * each for name, each in self.drawn.items() if name not in typed}
        room = there - sum(now[name] * each for name, each in self.drawn.items() if name in typed)
        if room < 0 or sum(free.values()) <= room:  # `load` refuses what was asked for and is not there
            return
        least = {name: int(self.knobs()[name].bounds[0] or 1) for name in free}
        for name in list(free):
            now[name] = max(now[name] * room // sum(free.values()), least[name])
            room -= now[name] * self.drawn[name]
            del free[name]
        if room < 0:
            needed = sum(low * self.drawn[name] for name, low in least.items())
            raise ValueError(
                f"dataset: {now['dataset']} has {there} training samples; this experiment takes {needed} "
                "or more"
            )


@lru_cache(maxsize=32)
def _left_out(name: str, counts: tuple[int, ...], classes: int, used: int, seed: int) -> str:
    """What a run does not look at, of the classes and training samples that are there; in one sentence."""
    there, parts = sum(counts[:classes]), []
    if classes < len(counts):
        parts.append(f"the first {classes} of {len(counts)} classes")
    if used < there:
        parts.append(f"{used} of {there} training samples")
        labels = torch.arange(classes).repeat_interleave(torch.tensor(counts[:classes]))
        found = labels[choose(labels, used, None, seed=seed, part="train")].unique()
        lost = [str(label) for label in range(classes) if label not in found]
        parts += [f"none of them of class {', '.join(lost)}"] if lost else []
    return f"{name}: {', '.join(parts)}." if parts else ""


def load(dataset: str, **how: Any) -> data.Dataset:
    """`data.load` for experiments, whose networks take features; as images where they are not flattened.

    Raises:
        ValueError: the file holds token ids, or vectors where images are wanted.
    """
    try:
        loaded = data.load(dataset, **how)
    except ValueError as problem:
        raise type(problem)(_in_settings(str(problem))) from None
    if loaded.tokens:
        raise ValueError(
            f"dataset: {loaded.name} holds whole numbers (token ids), and these networks take floats or "
            "uint8 pixels"
        )
    if len(loaded.shape) == 1 and not how.get("flatten"):
        raise ValueError(
            f"dataset: {loaded.name} holds vectors of {loaded.dim} features, and these networks take images, "
            "(n, H, W), (n, H, W, C) or (n, C, H, W)"
        )
    return loaded


def _in_settings(message: str) -> str:
    """What `data.load` says, beginning with the name of the setting at fault."""
    name, sign, rest = message.partition("=")
    own = {"name_or_path": "dataset", "name": "dataset", "n_train": "n"}.get(name, name)
    return f"{own}{sign}{rest}" if own.isidentifier() else f"dataset: {message}"


def classification(
    dataset: str, *, n: int, classes: int | None, n_test: int, label_noise: float, normalize: str, seed: int,
    noise_kind: str = "strict", dtype: torch.dtype = torch.float32, device: str = "cpu", flatten: bool = True,
) -> data.Dataset:  # fmt: skip
    """A noisy training set and at most `n_test` clean test samples, as vectors or as images.

    All samples, in their order, are one set for every seed, and stand in memory once.
    """
    whole = n == _available(dataset, classes)
    how = (normalize, 0 if whole else seed, dtype, device, flatten, stamp(dataset))
    loaded = _clean(dataset, None if whole else n, classes, *how)
    tested = None if whole and n_test >= loaded.n_test else min(n_test, loaded.n_test)
    chosen = loaded.subset(n_test=tested, seed=seed)
    return chosen.with_label_noise(label_noise, noise_kind, seed=seed) if label_noise else chosen


def _available(dataset: str, classes: int | None) -> int | None:
    try:
        return sum(data.class_counts(dataset)[:classes])
    except ValueError:  # `load` says what is wrong with it
        return None


@lru_cache(maxsize=32)
def _clean(
    dataset: str,
    n: int | None,
    classes: int | None,
    normalize: str,
    seed: int,
    dtype: torch.dtype,
    device: str,
    flatten: bool,
    stamp: tuple[int, ...],
) -> data.Dataset:
    # Kept, because a prediction that follows a slider cannot read a file each time; the stamp tells when the
    # file has changed. A Dataset is immutable.
    return load(
        dataset,
        n_train=n,
        classes=classes,
        normalize=normalize,
        flatten=flatten,
        seed=seed,
        dtype=dtype,
        device=device,
    )


def with_spare(whole: data.Dataset, n: int, n_test: int, seed: int) -> data.Dataset:
    """n training samples of a seed, of which smaller sets are the first, and up to `n_test` others.

    Samples of the training split that are not used join a test split that is smaller than `n_test`.
    """
    ordered = whole.subset(n_train=whole.n, n_test=whole.n_test, seed=seed)
    spare = slice(n, n + max(n_test - whole.n_test, 0))
    return replace(
        ordered,
        x_train=ordered.x_train[:n], y_train=ordered.y_train[:n], clean_train=ordered.clean_train[:n],
        x_test=torch.cat([ordered.x_test[:n_test], ordered.x_train[spare]]),
        y_test=torch.cat([ordered.y_test[:n_test], ordered.y_train[spare]]),
    )  # fmt: skip


def datasets(
    settings: Any, *, n_test: int, normalize: str, label_noise: float = 0.0, noise_kind: str = "strict",
    dtype: torch.dtype = torch.float32, flatten: bool = True, classes: int | None = None,
) -> tuple[data.Dataset, ...]:  # fmt: skip
    """One data set a seed, from the settings that all experiments on images share.

    Args:
        classes: how many, where that is no setting; None for all.
    """
    return tuple(
        classification(
            settings.dataset, n=settings.n, classes=getattr(settings, "classes", classes), n_test=n_test,
            label_noise=label_noise, noise_kind=noise_kind, normalize=normalize, seed=seed, dtype=dtype,
            device=settings.device, flatten=flatten,
        )
        for seed in seeds(settings)
    )  # fmt: skip


@dataclass(frozen=True)
class Given:
    """A function of a run with one more argument: as `partial`, but claims that hold it compare equal."""

    function: Callable[[Run, str], Any]
    argument: str

    def __call__(self, run: Run) -> Any:
        return self.function(run, self.argument)


@dataclass(frozen=True)
class Setup:
    """What most experiments prepare.

    Attributes:
        sets, models: one a seed; where `prepare` has several of each seed, they are nested, the seeds last.
    """

    settings: Any
    sets: tuple[Any, ...] = ()
    models: tuple[Any, ...] = ()


def seeds(settings: Settings) -> range:
    """The seeds of a run."""
    return range(settings.seed, settings.seed + settings.seeds)


def together(sets: Sequence[data.Dataset], *names: str) -> list[Tensor]:
    """Parts of the data sets of all seeds, such as "x_test": (S, n, ...) each."""
    return [torch.stack([getattr(one, name) for one in sets]) for name in names]


def error_rate(outputs: Tensor, labels: Tensor) -> np.ndarray:
    """Share of wrong classes: outputs (S, n, K), labels (S, n) -> (S,)."""
    return (outputs.argmax(-1) != labels).double().mean(-1).cpu().numpy()


def curve(frames: Sequence[Frame], name: str) -> tuple[np.ndarray, np.ndarray]:
    """One value over a run, as figures take it: steps (T,) and values (S, T)."""
    steps, values = series(frames, name)
    return steps, values.T


def history(frames: Sequence[Frame], name: str, places: int = 0) -> np.ndarray:
    """One value over a run, or over the places of a sweep, the seeds first: (S, T, ...).

    Raises:
        KeyError: not all of so many places have been reached.
    """
    values = series(frames, name)[1]
    if len(values) < places:
        raise KeyError(name)
    return values.swapaxes(0, 1)


def newest(frames: Sequence[Frame], name: str) -> np.ndarray | None:
    """The newest value of `name`, or None while no frame carries it."""
    return next((frame.values[name] for frame in reversed(frames) if name in frame.values), None)


def seen(frames: Frames, name: str, *shape: int, at: tuple[int, ...] = ()) -> np.ndarray:
    """What stands behind the seeds at a place of the newest `name`; NaN, (1, *shape), while there is none."""
    found, place = newest(frames, name), cast(Any, (slice(None), *at))
    return np.full((1, *shape), np.nan) if found is None else found[place]


def stack(values: Sequence[Tensor | float]) -> np.ndarray:
    """One value a seed -> an array with a leading seed axis."""
    return np.stack([v.detach().cpu().numpy() if isinstance(v, Tensor) else np.asarray(v) for v in values])


def measured_steps(steps: int, count: int = 120) -> list[int]:
    """About `count` steps from 0 to `steps`: every one at first, then sparser, as residuals fall by rates."""
    return sorted({0, steps, *np.unique(np.geomspace(1, max(steps, 1), count).round().astype(int)).tolist()})


@dataclass(frozen=True)
class Outcome:
    """How a training to one loss ended.

    Attributes:
        word: "done", "missed" (the loss was not reached in time) or "diverged".
        epochs: what the slowest copy took.
        note: the sentence of the training loop.
    """

    word: str
    epochs: int
    note: str

    @property
    def missed(self) -> str:
        """The note, where the loss was not reached in time."""
        return self.note if self.word == "missed" else ""

    def told(self, who: str) -> list[str]:
        """What a run has to say of networks that it calls `who`: nothing, if they came to their end."""
        return [f"{who}: {self.note}"] if self.word != "done" else []


Showing = Callable[[Ensemble], Mapping[str, np.ndarray]]  # what a tick shows of networks as they are


def shown_by(
    frame: Frame, showing: Showing | None, ensemble: Ensemble
) -> Callable[[], Mapping[str, np.ndarray]] | None:
    """What a tick has to show at a frame of a training: nothing, where that is not being done now."""
    return None if showing is None or frame.again else partial(showing, ensemble)


def fit(
    ensemble: Ensemble, samples: Sequence[tuple[Tensor, Tensor]], *, loss: float, lr: float, epochs: int,
    seed: int, span: tuple[float, float], step: int, batch: int = 64,
    showing: Showing | None = None,
) -> Generator[Frame, None, Outcome]:  # fmt: skip
    """SGD with momentum .9 on the cross-entropy, until that of every copy is below `loss`; passes on ticks.

    Args:
        samples: (x, y) of each copy.
        epochs: the longest training.
        seed: of the minibatches; copy s takes seed + s.
        span: progress of the whole run at the start and at the end of this training.
        step: the step that the ticks carry.
        showing: of the networks, on the way.
    """
    xs, ys = zip(*samples, strict=True)
    each = -(-len(xs[0]) // batch)
    first = share = 0.0
    ended = Frame.tick(step)
    for ended in train(
        ensemble, xs, ys, loss="cross-entropy", lr=lr, momentum=0.9, batch_size=batch, epochs=epochs,
        stop=LossBelow(loss), measure_at=10 * each, seed=seed, read_at_end=True,
    ):  # fmt: skip
        if "loss" in ended.values and np.all(ended.values["loss"] > 0):
            # The loss falls about as a power of the steps, so its logarithm says how far the way has gone.
            now = float(np.log(ended.values["loss"]).mean())
            first = first or now
            share = min(max((first - now) / max(first - math.log(loss), 1e-9), share), 1.0)
        if ended.status == "running":
            told = lengths.shown(share, ended.progress or 0.0)
            yield Frame.tick(step, span[0] + (span[1] - span[0]) * told, shown_by(ended, showing, ensemble))
    if ended.status == "diverged":
        return Outcome("diverged", 0, ended.note)
    taken = -(-int(ended.values["steps"].max()) // each)
    return Outcome("missed" if "not reached" in ended.note else "done", taken, ended.note)


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    """(n, K) float64, without a graph, in the mode in which the model is."""
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(1000)]).double()


def fitted(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Cross-entropy and share of wrong classes over a set, in the mode in which the model is."""
    found = outputs(model, x)
    return float(nn.functional.cross_entropy(found, y)), float((found.argmax(1) != y).double().mean())


def change(model: nn.Module, other: nn.Module, x: Tensor) -> float:
    """The largest change of an output from one network to another, over the largest output."""
    with torch.no_grad():
        before, after = model(x), other(x)
    return float((after - before).abs().max() / before.abs().max())


def snapshot(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A copy for a frame, which later measurements do not change."""
    return {name: value.copy() for name, value in values.items()}


def worst(values: np.ndarray) -> float:
    """The largest value, infinite where one is missing."""
    return math.inf if np.isnan(values).any() else float(np.max(values))


def converged(train_error: np.ndarray, loss: np.ndarray, stop: float, advice: str) -> tuple[Check, ...]:
    """What makes minima comparable: all samples are fitted, to one loss."""
    # Some slack: the loop looks at the loss in float32, and batch norm is folded after it.
    return (
        Check("training error is zero", worst(train_error), 0.0, advice),
        Check("training loss has reached the stop", worst(loss), 1.02 * stop, "raise epochs"),
    )


def means(values: np.ndarray, form: str = ".3f") -> str:
    """Means over seeds, (S, G), as a person reads them."""
    return ", ".join(f"{value:{form}}" for value in values.mean(axis=0))


def blank(*places: int, **axes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Arrays (*places, *axes) of nothing yet, by their names."""
    return {name: np.full((*places, *shape), np.nan) for name, shape in axes.items()}


def stacked(found: Sequence[Mapping[str, Any]], axis: int = 0) -> dict[str, np.ndarray]:
    """What was found for each seed, by its names: one array of each, the seeds first; or at another axis."""
    return {name: np.stack([one[name] for one in found], axis) for name in found[0]}


def gather(
    values: dict[str, np.ndarray], shape: tuple[int, ...], place: tuple[int, ...], found: Mapping[str, Any]
) -> None:
    """Writes what was found at a place into arrays (*shape, ...), which are made as their names come up."""
    for name, value in found.items():
        values.setdefault(name, np.full((*shape, *np.shape(value)), np.nan))[place] = value


def alone(shape: tuple[int, ...], place: tuple[int, ...], found: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays (*shape, ...) of what was found at one place."""
    values: dict[str, np.ndarray] = {}
    gather(values, shape, place, found)
    return values


def spans(costs: Iterable[float], begin: float = 0.0, end: float = 1.0) -> list[tuple[float, float]]:
    """The progress of a run at the start and at the end of each of its parts, from what they cost."""
    done = np.cumsum([0.0, *costs])
    return list(itertools.pairwise((begin + (end - begin) * done / done[-1]).tolist()))


def sweep(
    look: Callable[[int, int], Mapping[str, Any]], seeds: int, costs: Sequence[float], note: str = "",
    begin: float = 0.0,
) -> Iterator[Frame]:  # fmt: skip
    """Measures at one place after the other, at each for all seeds; a frame carries all places so far.

    Args:
        look: (place, seed) -> what is found there, by its names; frames have it as (seeds, places, ...).
        costs: of each place, for the progress of the run.
        note: of the last frame.
        begin: the progress of the run before the first place.
    """
    values: dict[str, np.ndarray] = {}
    for place, (before, end) in enumerate(spans(costs, begin)):
        for seed in range(seeds):
            gather(values, (seeds, len(costs)), (seed, place), look(place, seed))
            yield Frame.tick(place, before + (end - before) * seed / seeds, partial(snapshot, values))
        last = place == len(costs) - 1
        yield Frame(place, snapshot(values), end, "done" if last else "running", note if last else "")


def by_seed(
    look: Callable[[int], Mapping[str, Any]], seeds: int, step: int, span: tuple[float, float],
    status: str = "running",
) -> Iterator[Frame]:  # fmt: skip
    """Measures at one step for one seed after the other; a frame carries all seeds so far.

    Args:
        look: seed -> what is found there, by its names; frames have it as (seeds, ...).
        span: of the run's progress, where this begins and ends.
        status: of the last frame.
    """
    values: dict[str, np.ndarray] = {}
    for seed in range(seeds):
        gather(values, (seeds,), (seed,), look(seed))
        left = 1 - (seed + 1) / seeds
        now = span[1] - (span[1] - span[0]) * left
        yield Frame(step, snapshot(values), now, "running" if left else status)


def put(values: Mapping[str, np.ndarray], place: tuple[int, ...], found: Mapping[str, Any]) -> None:
    """Writes what was found into the arrays of its names."""
    for name, value in found.items():
        values[name][place] = value


def whole(run: Run, *names: str) -> list[np.ndarray]:
    """What a run measured under these names.

    Raises:
        ValueError: some of it is not there yet.
    """
    found = [run.last(name) for name in names]
    if not all(np.isfinite(one).all() for one in found):
        raise ValueError(f"{', '.join(names)}: not everything has been trained and measured yet")
    return found


Look = Callable[[Sequence[Tensor], int], Mapping[str, np.ndarray]]


def follow(
    gradients: Sequence[Gradient], start: Tensor, look: Look, *, lr: float, steps: int, shown: np.ndarray,
    tick: int, lost: float = np.inf, advice: str = "", temperature: float = 0.0,
    noises: Sequence[Sequence[torch.Generator]] = (),
) -> Iterator[Frame]:  # fmt: skip
    """Descends from one start by several gradients side by side.

    Args:
        look: (states, one a gradient; step) -> what a frame carries.
        shown: the steps of which there are frames; between them there is a tick every `tick` steps.
        lost: at a weight of this size a run has diverged, and says this `advice`.
        noises: where each gradient's added noise comes from.
    """
    looked_at = set(shown.tolist())
    record = sorted(looked_at | set(range(0, steps, tick)))
    paths = [
        descend(one, start, lr=lr, steps=steps, temperature=temperature, generator=noise, record=record)
        for one, noise in itertools.zip_longest(gradients, noises)
    ]
    for moments in zip(*paths, strict=True):
        step, states = moments[0][0], [state for _, state in moments]
        if not all(bool((state.abs() < lost).all()) for state in states):
            yield Frame(step, {}, step / steps, "diverged", advice)
            return
        status = "done" if step == steps else "running"
        yield Frame(step, look(states, step) if step in looked_at else {}, step / steps, status)
