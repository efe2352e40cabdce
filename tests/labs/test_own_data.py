"""A data set of one's own decides what nobody typed; what is typed stays; what is left out is said."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit import cli
from labkit.labs import LABS, load_lab
from labkit.live import Panel
from labkit.live.export import command_line
from labkit.protocol.experiment import Experiment, drain

RESIDUALS = load_lab("jacobian").experiment("residuals")
FOLLOWING = [
    one
    for lab in LABS
    for one in load_lab(str(lab)).experiments
    if "dataset" in one.settings.knobs() and one.settings.knobs()["dataset"].choices is None
]


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Writes clusters of a count a class to an .npz, and gives its path."""

    def write(*counts: int, shape: tuple[int, ...] = (7,), name: str = "mine.npz") -> str:
        rng, K = np.random.default_rng(0), len(counts)
        centres = rng.standard_normal((K, *shape))
        parts: dict[str, np.ndarray] = {}
        for part, y in (("train", np.repeat(np.arange(K), counts)), ("test", np.arange(2 * K) % K)):
            x = centres[y] + 0.5 * rng.standard_normal((len(y), *shape))
            parts |= {f"x_{part}": x.astype(np.float32), f"y_{part}": y}
        np.savez(tmp_path / name, **parts)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize(
    ("counts", "typed", "follows", "note"),
    [
        ((15, 15), {}, {"classes": 2, "n": 30}, ""),
        ((20,) * 12, {}, {"classes": 10, "n": 160},
         "mine.npz: the first 10 of 12 classes, 160 of 200 training samples."),
        ((150, 40, 9, 1), {"n": 40}, {"classes": 4, "n": 40},
         "mine.npz: 40 of 200 training samples, none of them of class 3."),
        ((20,) * 12, {"classes": 3}, {"classes": 3, "n": 60}, "mine.npz: the first 3 of 12 classes."),
        ((20,) * 12, {"classes": 12}, {"classes": 12, "n": 160}, "mine.npz: 160 of 240 training samples."),
        ((2, 2), {}, {"classes": 2, "n": 4, "rank": 7}, ""),
    ],
)  # fmt: skip
def test_what_nobody_typed_follows_the_data(
    file: Any, counts: Any, typed: Any, follows: Any, note: str
) -> None:
    """Catches: seven classes of ten dropped, or a run refused, for a default; what is typed overridden."""
    settings = RESIDUALS.preset(dataset=file(*counts), **typed)
    assert {name: getattr(settings, name) for name in follows} == follows
    assert settings.note == note
    (one, *_) = RESIDUALS.prepare(settings).sets
    assert (one.n, one.classes, one.dim) == (settings.n, settings.classes, 7)
    assert pickle.loads(pickle.dumps(settings)).note == note


def test_the_settings_go_back_with_the_data(file: Any) -> None:
    """Catches: the classes of a file kept for the next data set, and a default data set that follows, too."""
    own = RESIDUALS.preset(dataset=file(15, 15))
    assert own.replace(dataset="digits") == RESIDUALS.preset()
    assert own.replace(seed=3).n == 30 and own.replace(classes=2).replace(dataset="digits").classes == 2
    named = RESIDUALS.preset(dataset="mnist-5k")
    assert (named.classes, named.n) == (10, 160) and "160 of 4000" in named.note
    paper = RESIDUALS.preset("paper", dataset="fashion-mnist")  # known without a download
    assert (paper.n, paper.note) == (400, "fashion-mnist: 400 of 60000 training samples.")


def test_a_file_that_is_written_anew_is_read_anew(file: Any) -> None:
    """Catches: classes and samples of the file as it was at first."""
    for counts in ((15, 15), (20, 20, 20)):
        settings = RESIDUALS.preset(dataset=file(*counts), seeds=1)
        assert settings.classes == len(counts)
        assert RESIDUALS.prepare(settings).sets[0].n == sum(counts)


@pytest.mark.parametrize("experiment", FOLLOWING, ids=lambda one: one.name)
@pytest.mark.parametrize(
    "counts", [(50, 50), (20,) * 12, (150, 40, 9, 1)], ids=["two", "twelve", "unbalanced"]
)
def test_every_experiment_takes_a_file(file: Any, experiment: Experiment, counts: Any) -> None:
    """Catches: an experiment whose sizes, or classes, only fit its own data."""
    settings = experiment.preset(dataset=file(*counts, shape=(8, 8)), seeds=1)
    prediction = experiment.predict(experiment.prepare(settings))
    experiment.draw((), prediction, (), settings)
    assert (
        getattr(settings, "classes", 10) == min(len(counts), 10)
        or "classes" not in experiment.settings.knobs()
    )


def test_refusals_name_the_setting(file: Any) -> None:
    """Catches: an error in the words of a loader, or a torch error, which no control can be found for."""
    puzzle, two = load_lab("sgd").experiment("puzzle"), file(15, 15)
    with pytest.raises(
        ValueError, match=r"^dataset: .* has 30 training samples; this experiment takes 32 or"
    ):
        puzzle.preset(dataset=two)
    with pytest.raises(ValueError, match="^dataset: mine holds vectors of 7 features, .* take images"):
        puzzle.prepare(puzzle.preset(dataset=file(50, 50)))
    for typed, said in (
        ({"n": 40}, "^n=40: there are only 30"), ({"classes": 3}, "^classes=3: the data have 2"),
        ({"dataset": "digit"}, "^dataset='digit': unknown"),
        ({"dataset": __file__}, "^dataset: .*not an .npz"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            RESIDUALS.prepare(RESIDUALS.preset(**{"dataset": file(15, 15), **typed}))


def test_the_command_line_reports_what_it_used(file: Any, tmp_path: Path, capsys: Any) -> None:
    """Catches: a run whose JSON has the settings of the preset, and classes dropped without a word."""
    out = tmp_path / "out.json"
    words = [
        "run",
        "start",
        "--set",
        f"dataset={file(*(4,) * 12)}",
        "steps=20",
        "width=16",
        "--json",
        str(out),
    ]
    assert cli.main(words) == 0
    found, note = json.loads(out.read_text()), "mine.npz: the first 10 of 12 classes."
    assert f"lenses: {note}" in capsys.readouterr().out
    assert found["settings"]["lenses"]["classes"] == 10 and found["settings"]["lenses"]["n"] == 40
    assert note in found["notes"]["lenses"]


def test_a_panel_follows_a_path_and_repeats_what_it_did(file: Any) -> None:
    """Catches: sliders that show other classes than the run has, and a command that repeats another run."""
    lenses = load_lab("start").experiment("lenses")
    panel = Panel(lenses, lenses.preset(steps=10, seeds=1, width=16), train=False)
    assert panel.wait(60)
    sliders = panel.controls.widgets
    sliders["dataset"].value = file(*(4,) * 12, name="my data.npz")
    assert panel.wait(60)
    assert (sliders["classes"].value, sliders["n"].value) == (10, 40)
    assert panel.run.settings.classes == 10 and "first 10 of 12 classes" in panel.status_line.value
    sliders["classes"].value = 3  # the default, and typed all the same
    assert panel.wait(60)
    assert (panel.run.settings.classes, panel.run.settings.n, sliders["n"].value) == (3, 12, 12)
    command = command_line(lenses, panel.run.settings)
    assert command == panel.command_text.value and "classes=3" in command and "my data.npz'" in command
    sliders["dataset"].value = "digits"
    assert panel.wait(60)
    assert panel.run.settings == lenses.preset(steps=10, seeds=1, width=16) and sliders["n"].value == 80
    panel.close()


def test_a_run_of_a_file_says_what_it_left_out(file: Any) -> None:
    """Catches: a note that is lost between settings and run."""
    lenses = load_lab("start").experiment("lenses")
    run = drain(lenses, lenses.preset(dataset=file(*(4,) * 12), steps=10, seeds=1, width=16))
    assert run.status == "done" and run.note.startswith("mine.npz: the first 10 of 12 classes.")
