"""What holds for every experiment of every lab; a test file subclasses `LabTests` and fills in the tables.

The functions below it change a run after the fact, so that a claim can be shown what it must refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from labkit.figures import Raster
from labkit.protocol.claims import Claim
from labkit.protocol.experiment import Experiment, Frame, Run, drain
from labkit.protocol.judging import judge, run_in
from labkit.protocol.memory import Memory, remembering
from labkit.protocol.rules import Reported
from labkit.protocol.verdicts import Verdict
from labkit.training._run import TrainingRun
from tests.runs import shared_run

# What the host may ask of another device: now and then who has stopped, and what is shown.
WAITS_A_STEP, WAITS_A_FRAME, BYTES_A_FRAME = 0.5, 6, 2**17
Change = Callable[[np.ndarray], np.ndarray]
Violation = Callable[[Run], Run]


def quick_runs(experiments: Iterable[Experiment]) -> Callable[[str], Run]:
    """Name -> that experiment's run at the quick preset, made once in a session."""
    known = {experiment.name: experiment for experiment in experiments}
    return cache(lambda name: shared_run(known[name]))


def verdict(id: str, run: Run) -> Verdict:
    return judge(run.claim(id), run)


def word(claim: Claim, run: Run) -> str:
    """The verdict, or "" where the run does not carry what the claim looks at."""
    try:
        return judge(claim, run).word
    except (KeyError, ValueError, IndexError):
        return ""


def changed(run: Run, **values: Change) -> Run:
    """The run with some of its frame values replaced; `prediction_x` replaces the prediction x."""
    known = {f"prediction_{name}" for name in run.prediction}.union(*(f.values for f in run.frames))
    assert set(values) <= known, f"the run has no {', '.join(set(values) - known)}"
    prediction = {
        name: values.get(f"prediction_{name}", same)(value) for name, value in run.prediction.items()
    }
    frames = tuple(
        replace(frame, values={name: values.get(name, same)(value) for name, value in frame.values.items()})
        for frame in run.frames
    )
    return replace(run, prediction=prediction, frames=frames)


def same(value: np.ndarray) -> np.ndarray:
    return value


def constant(value: float) -> Change:
    return lambda old: np.full_like(old, value, dtype=float)


def swapped(run: Run, first: str, second: str) -> Run:
    """Two series exchanged, such as the parts on I and on N."""
    names = {first: second, second: first}
    frames = tuple(
        replace(frame, values={names.get(name, name): value for name, value in frame.values.items()})
        for frame in run.frames
    )
    return replace(run, frames=frames)


def replaced(run: Run, target: str, source: str, factor: float = 1.0) -> Run:
    """One series put in the place of another."""
    frames = []
    for frame in run.frames:
        values = dict(frame.values)
        if target in values:
            values[target] = factor * values[source]
        frames.append(replace(frame, values=values))
    return replace(run, frames=tuple(frames))


def at_frame(run: Run, name: str, change: Change, *, frame: int = -1, seed: int = 1) -> Run:
    """The run in which a value is another in one seed at one of the frames that carry it."""
    place = [number for number, one in enumerate(run.frames) if name in one.values][frame]
    value = np.array(run.frames[place].values[name], dtype=float)
    value[seed] = change(value[seed])
    frames = list(run.frames)
    frames[place] = replace(frames[place], values=dict(frames[place].values) | {name: value})
    return replace(run, frames=tuple(frames))


def moved(settings: Any, name: str) -> Any:
    """Another value of a setting: the next one up, or the lowest where the slider ends."""
    knob, value = settings.knobs()[name], getattr(settings, name)
    if knob.choices is not None:
        return next(choice for choice in knob.choices if choice != value)
    if knob.type is bool:
        return not value
    low, high = knob.slider
    more = value + knob.type(knob.step or 1) if knob.scale == "linear" else 2 * value
    return more if more <= high else knob.type(low)


def measured_anew(experiment: Experiment) -> list[str]:
    """The settings that share the training of an experiment."""
    return [name for name, knob in experiment.settings.knobs().items() if knob.remeasures]


def changes(experiment: Experiment, settings: Any, base: Sequence[Mapping[str, np.ndarray]]) -> bool:
    """Whether a person sees anything else than `base`; runs no further than to the first difference."""
    setup = experiment.prepare(settings)
    prediction = experiment.predict(setup)
    frames = (frame.values for frame in experiment.run(setup, prediction) if not frame.is_tick)
    seen = chain([prediction], frames)
    return any(a is None or b is None or not equal([a], [b]) for a, b in zip_longest(seen, base))


def values(run: Run) -> list[dict[str, np.ndarray]]:
    """All that a person sees: the prediction, and the values of every frame."""
    return [dict(run.prediction), *(dict(frame.values) for frame in run.frames)]


def equal(a: Sequence[Mapping[str, np.ndarray]], b: Sequence[Mapping[str, np.ndarray]]) -> bool:
    """The same names with the same bits."""
    return len(a) == len(b) and all(
        p.keys() == q.keys() and all(np.array_equal(p[key], q[key], equal_nan=True) for key in p)
        for p, q in zip(a, b, strict=True)
    )


def glimpses(run: Run) -> Callable[[Frame], None]:
    """Looks at ticks of a run like this one, as a panel would, ever more seldom: something must be seen."""
    looks = kept = 0

    def drawn(*frames: Frame) -> int:
        chart = run.experiment.draw(frames, run.prediction, (), run.settings)
        curves = [mark.y for panel in chart.panels for mark in panel.marks if hasattr(mark, "y")]
        pictures = [mark.values for panel in chart.panels for mark in panel.marks if isinstance(mark, Raster)]
        return sum(int(np.isfinite(np.asarray(one, float)).sum()) for one in (*curves, *pictures))

    def look(frame: Frame) -> None:
        nonlocal looks, kept
        kept += not frame.is_tick
        if frame.showing is not None:
            looks += 1
            if looks & (looks - 1) == 0:
                more = drawn(*run.frames[:kept], replace(frame, values=frame.showing()))
                assert more >= drawn(*run.frames[:kept]) and (kept or more > drawn())

    return look


class LabTests:
    """What holds for a group of experiments.

    Attributes:
        lab: begins the names of pictures left for a person to look at.
        experiments: those tested here.
        quick: name -> run at the quick preset; staticmethod(quick_runs(experiments)).
        violated: claim -> what it must refuse: runs in which one thing is not as the paper says.
        apart: claims that no changed run can refute; a test of its own stands for each.
        cheap: experiment -> settings with which a run takes a moment.
        repeated: experiment -> settings for the test of its randomness; those of `cheap` otherwise.
        elsewhere: experiment -> changes of `cheap` with which another device's rounding stays rounding.
        longer: experiment with a training loop of its own -> changes of `cheap` that add 20 steps or more.
    """

    lab: ClassVar[str]
    experiments: ClassVar[tuple[Experiment, ...]]
    quick: ClassVar[Callable[[str], Run]]
    violated: ClassVar[dict[str, list[Violation]]]
    apart: ClassVar[frozenset[str]] = frozenset()
    cheap: ClassVar[dict[str, dict[str, Any]]]
    repeated: ClassVar[dict[str, dict[str, Any]]] = {}
    elsewhere: ClassVar[dict[str, dict[str, Any]]] = {}
    longer: ClassVar[dict[str, dict[str, Any]]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        claims = [(claim.id, one.name) for one in self.experiments for claim in one.claims]
        if "case" in metafunc.fixturenames:
            cases = [(id, name, k) for id, name in claims for k in range(len(self.violated.get(id, ())))]
            metafunc.parametrize(("id", "name", "case"), cases)
        elif "world" in metafunc.fixturenames:
            worlds = [
                (claim.id, one.name, k)
                for one in self.experiments for claim in one.claims for k in range(len(claim.worlds))
            ]  # fmt: skip
            metafunc.parametrize(("id", "name", "world"), worlds)
        elif "id" in metafunc.fixturenames:
            metafunc.parametrize(("id", "name"), claims)
        elif "read" in metafunc.fixturenames:
            metafunc.parametrize("read", [one.name for one in self.experiments if measured_anew(one)])
        elif "name" in metafunc.fixturenames:
            metafunc.parametrize("name", [one.name for one in self.experiments])

    def experiment(self, name: str) -> Experiment:
        return next(one for one in self.experiments if one.name == name)

    def small(self, name: str, **changes: Any) -> Any:
        return self.experiment(name).preset(**{"seeds": 1} | self.cheap[name] | changes)

    def outcome_when_small(self, name: str) -> list[dict[str, np.ndarray]]:
        return values(shared_run(self.experiment(name), self.small(name)))

    def test_every_claim_is_decided_as_expected(self, id: str, name: str) -> None:
        """A preset that drifts to the edge of a verdict, or a claim whose `expected` is a wish."""
        found, claim = verdict(id, self.quick(name)), self.quick(name).claim(id)
        assert found.word == claim.expected, found.notes
        assert found.sentence in claim.says.values()

    def test_every_number_of_a_claim_has_a_name(self, id: str, name: str) -> None:
        """Numbers that nobody can check, a part that the paper asserts and no rule judges."""
        claim = self.quick(name).claim(id)
        names = [rule.quantity for rule in claim.rules]
        assert all(names) and len(set(names)) == len(names)
        assert len({isinstance(rule, Reported) for rule in claim.rules}) == 1
        for part in verdict(id, self.quick(name)).parts:
            assert part.measured and part.rule.quantity in str(part)

    def test_predictions_and_findings_name_a_world_where_they_fail(self, id: str, name: str) -> None:
        """A verdict that no circumstances could turn."""
        claim = self.quick(name).claim(id)
        assert claim.worlds or claim.kind == "theorem" or claim.expected == "reported"
        assert claim.because or claim.expected == "holds"

    @pytest.mark.slow
    def test_a_claim_comes_out_otherwise_in_its_worlds(self, id: str, name: str, world: int) -> None:
        """A claim that has been seen to fail on arrays alone, never in earnest."""
        experiment = self.experiment(name)
        claim = next(one for one in experiment.claims if one.id == id)
        other = claim.worlds[world]
        elsewhere = experiment.preset(**other.changes)
        found = judge(claim, run_in(other, experiment) if other.faults else shared_run(experiment, elsewhere))
        assert found.word == other.word != claim.expected, f"{other.says}: {found.word}; {found.notes}"

    def test_every_claim_can_fail(self, id: str, name: str, case: int) -> None:
        """A verdict that cannot fail."""
        found = verdict(id, self.violated[id][case](self.quick(name)))
        assert found.word == "fails", f"{found.word}: {found.notes}"

    def test_every_claim_has_its_cases(self) -> None:
        """A claim added without anything that it must refuse."""
        claims = {claim.id for one in self.experiments for claim in one.claims}
        assert {id for id, cases in self.violated.items() if cases} | self.apart == claims

    def test_an_experiment_keeps_the_protocol(self, name: str) -> None:
        """Frames without a seed axis, tensors in frames, steps or progress that go back, a run that ends
        without saying how, a prediction that looks at the run.
        """
        experiment, settings = self.experiment(name), self.small(name, seeds=2)
        setup = experiment.prepare(settings)
        before = experiment.predict(setup)
        frames: list[Frame] = list(experiment.run(setup, before))
        after = experiment.predict(setup)
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[key], after[key], equal_nan=True) for key in before)
        assert all(isinstance(value, np.ndarray) for value in before.values())
        progress = [frame.progress for frame in frames if frame.progress is not None]
        assert progress[0] >= 0 and progress[-1] == 1.0
        assert progress == sorted(progress), progress
        run = self.quick(name)
        assert {frame.status for frame in (*frames[:-1], *run.frames[:-1])} <= {"running"}
        for these, seeds in ((frames, 2), (run.frames, run.settings.seeds)):
            steps = [frame.step for frame in these]
            assert steps == sorted(steps)
            assert these[-1].status == "done"
            for frame in these:
                for key, value in frame.values.items():
                    assert type(value) is np.ndarray and value.shape[0] == seeds, key
        assert set(experiment.controls) <= set(experiment.settings.knobs())
        assert {"quick", "paper"} <= set(experiment.presets)

    def test_a_figure_draws_before_during_and_after(self, name: str, artifacts: Path) -> None:
        """A figure that needs the last frame, so that a panel has nothing to show; or in which a run that was
        kept leaves no trace.
        """
        experiment, run = self.experiment(name), self.quick(name)
        for frames in ((), run.frames[:1], run.frames):
            for previous in ((), (run,)):
                chart = experiment.draw(frames, run.prediction, previous, run.settings)
                says, facts = chart.caption.split("\n")
                assert says.endswith(".") and says.count(" ") > 3 and f"{run.settings.seeds - 1}" in facts
                assert list(chart.runs) == [1] * len(previous)
                # An earlier run adds the same marks to each; and a run at its end is drawn in the notebook.
                if bool(previous) == (frames is run.frames):
                    assert (png := chart.png())[:4] == b"\x89PNG"
        (artifacts / f"{self.lab}-{name}.png").write_bytes(png)

    def test_a_seed_gives_bit_equal_frames(self, name: str) -> None:
        """Randomness from outside the seed, or a seed that changes nothing; or what a tick shows changes the
        run, breaks, or cannot be drawn.
        """
        experiment = self.experiment(name)
        settings = experiment.preset(**self.repeated[name]) if name in self.repeated else self.small(name)
        first = shared_run(experiment, settings)
        second = drain(experiment, settings, progress=glimpses(first))
        assert [frame.step for frame in first.frames] == [frame.step for frame in second.frames]
        assert equal(values(first), values(second))
        assert changes(experiment, self.small(name, seed=1), self.outcome_when_small(name))

    def test_the_panel_controls_are_alive(self, name: str) -> None:
        """A slider that does nothing: each control, moved, must change the prediction or the frames."""
        experiment, settings = self.experiment(name), self.small(name)
        base = self.outcome_when_small(name)
        for control in experiment.controls:
            other = settings.replace(**{control: moved(settings, control)})
            assert changes(experiment, other, base), f"{name}: {control} changes nothing"

    def test_settings_that_only_measure_anew_train_nothing(
        self, read: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A panel that acts at once on a setting which asks for another training; or shows of the networks
        that it kept something else than a run of these settings would.
        """
        experiment, settings = self.experiment(read), self.small(read)
        other = settings.replace(**{name: moved(settings, name) for name in measured_anew(experiment)})
        with remembering(Memory()):
            drain(experiment, settings)
            with monkeypatch.context() as patch:
                patch.delattr(TrainingRun, "frames")
                again = drain(experiment, other)
        assert equal(values(again), values(drain(experiment, other)))

    def _same_on(self, name: str, moved: Callable[[Any], Any]) -> int:
        """The frames of another device, against those of the CPU; how many there are."""
        experiment, settings = self.experiment(name), self.small(name, **self.elsewhere.get(name, {}))
        first = shared_run(experiment, settings)
        here = values(first)
        there = values(drain(experiment, moved(settings), progress=glimpses(first)))
        assert len(here) == len(there)
        for a, b in zip(here, there, strict=True):
            assert a.keys() == b.keys()
            for key in a:
                np.testing.assert_allclose(b[key], a[key], rtol=1e-3, atol=1e-5, err_msg=key)
        return len(here)

    @pytest.mark.slow
    @pytest.mark.apart
    def test_a_device_that_is_pretended_gives_the_same(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Tensors of two devices that meet, work that stays on the CPU, a loop that waits at every step."""
        from tests.device.pretended import UNAVAILABLE, on_device, pretended

        if UNAVAILABLE:
            pytest.skip(UNAVAILABLE)
        if self.experiment(name).settings.knobs()["device"].choices == ("cpu",):
            with pytest.raises(ValueError, match="device"):
                self.small(name, device="cuda")
            return
        counts = dict.fromkeys(("_forward", "_look"), 0)
        for method in counts:
            made = getattr(TrainingRun, method)

            def counted(run: TrainingRun, *args: Any, _made: Any = made, _name: str = method) -> Any:
                counts[_name] += run.ensemble.device.type != "cpu"
                return _made(run, *args)

            monkeypatch.setattr(TrainingRun, method, counted)
        with pretended() as log:
            frames = self._same_on(name, on_device)
        assert 0 < log.to_host.total() <= BYTES_A_FRAME * frames
        # Once a diverged run, a stable rate is looked for.
        once = ("training/stability.py", "training/_advice.py")
        waits = sum(count for line, count in log.waits.items()
                    if line.startswith("training/") and not line.startswith(once))  # fmt: skip
        steps, looks = counts.values()
        assert waits <= WAITS_A_STEP * steps + WAITS_A_FRAME * frames + 2 * looks + 32
        if name in self.longer:
            with pretended() as more:
                drain(self.experiment(name), on_device(self.small(name, **self.longer[name])))
            assert more.waits.total() - log.waits.total() < 20

    @pytest.mark.gpu
    def test_a_card_gives_the_same(self, name: str) -> None:
        """Frames that another arithmetic changes by more than rounding, or a claim that it turns."""
        if not torch.cuda.is_available():
            pytest.skip("torch finds no CUDA device here")
        experiment = self.experiment(name)
        if "cuda" in (experiment.settings.knobs()["device"].choices or ()):
            self._same_on(name, lambda settings: settings.replace(device="cuda"))
            run = drain(experiment, experiment.preset(device="cuda"))
            found = {claim.id: word(claim, run) for claim in experiment.claims}
            assert found == {claim.id: claim.expected for claim in experiment.claims}


class TrainingTests(LabTests):
    """The same, where networks are trained.

    Attributes:
        too_fast: experiment -> settings with which training diverges.
    """

    too_fast: ClassVar[dict[str, dict[str, Any]]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "fast" in metafunc.fixturenames:
            metafunc.parametrize("fast", list(self.too_fast))
        else:
            super().pytest_generate_tests(metafunc)

    def test_a_learning_rate_past_the_edge_is_a_result(self, fast: str) -> None:
        """A traceback, silence, or a claim that holds, where a run diverges."""
        experiment = self.experiment(fast)
        run = drain(experiment, experiment.preset(**self.too_fast[fast]))
        assert run.status == "diverged"
        assert "stable" in run.frames[-1].note
        assert "holds" not in [word(claim, run) for claim in experiment.claims]
        assert "copy" not in run.frames[-1].note
        assert run.figure().png()[:4] == b"\x89PNG"
        assert run.figure((run,)).png()[:4] == b"\x89PNG"

    @pytest.mark.slow
    def test_the_advised_value_is_a_stop_of_the_slider_and_works(self, fast: str) -> None:
        """A rate in units that the slider does not have, or one with which the run diverges again."""
        experiment = self.experiment(fast)
        settings = experiment.preset(**self.too_fast[fast])
        (name,) = (name for name in ("lr", "step") if name in experiment.settings.knobs())
        knob = experiment.settings.knobs()[name]
        top = settings.replace(**{name: knob.slider[1]})
        run = drain(experiment, top)
        if run.status != "diverged":  # the slider ends below the edge
            run = drain(experiment, settings)
        taken = re.search(rf"Take {name}=(\S+) or less", run.note)
        assert taken is not None, run.note
        value = knob.parse(taken[1])
        assert value in knob.stops(getattr(experiment.preset(), name)), run.note
        assert drain(experiment, settings.replace(**{name: value})).status != "diverged", run.note
