"""Lab 1's experiments without training: each claim is decided as expected at quick, and each can fail."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from labkit.figures import Bound, Points, Predicted
from labkit.labs.distance import initialization
from labkit.labs.distance.complexity import COMPLEXITY
from labkit.labs.distance.concentration import CONCENTRATION
from labkit.labs.distance.initialization import INITIALIZATION, layer_norms
from labkit.measure.rademacher import rademacher_lower
from labkit.protocol.experiment import Run, drain
from labkit.protocol.judging import judge
from tests.labs.checks import Change, LabTests, Violation, changed, quick_runs, verdict

EXPERIMENTS = (INITIALIZATION, CONCENTRATION, COMPLEXITY)
CHEAP = {
    "initialization": {"widest": 80, "matrices": 4, "n": 20},
    "concentration": {"draws": 200, "signs": 20},
    "complexity": {"widest": 64, "m": 20, "draws": 4, "matrices": 3, "steps": 5},
}
quick = quick_runs(EXPERIMENTS)


def words(id: str, run: Run) -> list[str]:
    """The word of each part."""
    return [part.word for part in verdict(id, run).parts]


def growing(run: Run, name: str, power: float, layer: int | None = None) -> Run:
    """The run in which a value (of one layer) has an extra factor H^power."""
    frames = []
    for frame in run.frames:
        values = dict(frame.values)
        if name in values and frame.step < len(run.prediction["widths"]):
            factor = (run.prediction["widths"][frame.step] / run.prediction["widths"][0]) ** power
            values[name] = values[name].astype(float)
            values[name][..., slice(None) if layer is None else layer] *= factor
        frames.append(replace(frame, values=values))
    return replace(run, frames=tuple(frames))


def scaled_layer(layer: int, factor: float) -> Change:
    def scale(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[..., layer] *= factor
        return values

    return scale


def along(run: Run, layer: int, power: float) -> Change:
    factor = (run.prediction["widths"] / run.prediction["widths"][0]) ** power

    def grow(curve: np.ndarray) -> np.ndarray:
        curve = curve.copy()
        curve[:, layer] *= factor
        return curve

    return grow


def tilted_norms(run: Run, norm: str, layer: int, power: float) -> Run:
    """A norm of one layer that has another exponent; its curve goes along, so that the exponents decide."""
    return growing(changed(run, **{f"prediction_{norm}": along(run, layer, power)}), norm, power, layer)


def tilted_product(run: Run, power: float) -> Run:
    """A product with another exponent at every depth; its curve goes along, so that the exponents decide."""
    factor = (run.prediction["widths"] / run.prediction["widths"][0]) ** power
    return growing(changed(run, prediction_frobenius_product=lambda v: v * factor), "frobenius", power, 0)


# What each claim must refuse: a run in which one thing is not as the paper says.
VIOLATED: dict[str, list[Violation]] = {
    "D1": [
        lambda run: changed(run, frobenius=scaled_layer(2, 1.1)),
        lambda run: changed(run, frobenius=np.sqrt),
        lambda run: changed(run, spectral=scaled_layer(0, 2)),
        lambda run: changed(run, spectral=scaled_layer(3, 1.2)),
        *(partial(tilted_norms, norm="frobenius", layer=layer, power=power)
          for layer, power in ((0, 0.4), (0, -0.4), (2, 1.2), (2, -1.2), (-1, 0.4), (-1, -0.4))),
        # The paper's other statement, ‖Z₁‖₂ = Θ(√n), and norms that vanish.
        *(partial(tilted_norms, norm="spectral", layer=layer, power=power)
          for layer, power in ((0, 0.25), (2, 0.25), (-1, 0.25), (0, -0.2), (2, -0.7), (-1, -0.2))),
    ],
    "D2": [
        lambda run: growing(run, "frobenius", 0.5, 1),
        lambda run: changed(run, frobenius=scaled_layer(-1, 2)),
        *(partial(tilted_product, power=power) for power in (0.3, -0.3)),
    ],
    "D3": [
        lambda run: growing(run, "spectral", 0.5, 0),
        lambda run: growing(run, "spectral", -0.5, -1),
    ],
    "D4": [
        lambda run: changed(run, share=lambda v: np.minimum(v * 20, 1)),
        lambda run: changed(run, share=lambda v: v * 0.9),
        lambda run: changed(run, prediction_tail=lambda v: v**2 / 16),
        lambda run: changed(run, prediction_exact=lambda v: v[:, ::-1]),
    ],
    "D5": [
        lambda run: changed(run, ratio=lambda v: v * 1.1),
        lambda run: changed(run, ratio=lambda v: v * 0.7),
        lambda run: changed(run, rms=lambda v: v + 1e-6),
    ],
    "D8": [
        lambda run: changed(run, gain=lambda v: v * 300),
        lambda run: growing(run, "gain", 2.5),
        lambda run: changed(run, loss=lambda v: v * 1e6),
    ],
    "D22": [
        lambda run: changed(run, gap=lambda v: 2 * v),
        lambda run: growing(run, "gap", 0.5),
        lambda run: growing(run, "gap", -0.5),
        lambda run: changed(run, gap=lambda v: v[..., ::-1]),
        lambda run: changed(run, gap=np.ones_like),
    ],
    "D10": [
        lambda run: changed(run, sup=lambda v: v * 20),
        lambda run: changed(run, sup_m=lambda v: v * 20),
    ],
    "D17": [
        lambda run: growing(run, "sup", 0.3),
        lambda run: growing(run, "sup", -0.3),
        lambda run: changed(run, sup_m=lambda v: v**0 * 100),
        lambda run: changed(run, sup_m=lambda v: v**2),
    ],
}  # fmt: skip


class TestTheory(LabTests):
    lab = "distance"
    experiments = EXPERIMENTS
    quick = staticmethod(quick)
    violated = VIOLATED
    cheap = CHEAP

    def test_a_figure_shows_the_theory_before_the_first_frame(self, name: str) -> None:
        """A panel without a prediction, or points that were not measured yet."""
        run, shown = quick(name), []
        for frames in ((), run.frames[:1], run.frames):
            chart = run.experiment.figure(frames, run.prediction, run.settings)
            assert all(any(isinstance(m, Predicted | Bound) for m in panel.marks) for panel in chart.panels)
            there = [mark for panel in chart.there().panels for mark in panel.marks]
            shown.append(sum(isinstance(mark, Points) for mark in there))
        assert shown[0] == 0 < shown[1] <= shown[2]

    def test_a_partial_run_is_not_judged(self, name: str) -> None:
        """A verdict on half of the widths."""
        run = quick(name)
        for claim in run.experiment.claims:
            with pytest.raises((KeyError, ValueError)):
                judge(claim, replace(run, frames=run.frames[:2]))


def test_with_sd_one_over_root_fan_in_the_first_layer_breaks_d1() -> None:
    """The sheet's erratum, to be seen: ‖Z₁‖₂ climbs, the products gain a power of H."""
    run = drain(INITIALIZATION, INITIALIZATION.preset(init="lecun", widest=1280))
    assert words("D1", run) == ["holds", "holds", "fails", "fails"]
    assert words("D2", run) == ["holds", "fails"]
    assert verdict("D3", run).word == "fails"


@pytest.mark.parametrize("init", ["inverse-sqrt-width", "glorot"])
def test_the_papers_initialisations_keep_d1_and_d2(init: str) -> None:
    """A rule fitted to one initialisation; the uniform one has the same norms."""
    run = drain(INITIALIZATION, INITIALIZATION.preset(init=init, widest=1280))
    assert verdict("D1", run).word == verdict("D2", run).word == verdict("D3", run).word == "holds"


def test_narrow_networks_do_not_decide_an_exponent() -> None:
    """784 inputs and 80 units: a verdict about a power law that has not begun."""
    run = drain(INITIALIZATION, INITIALIZATION.preset(widest=80, matrices=3))
    assert {verdict(id, run).word for id in ("D1", "D2", "D3")} == {"undecided"}
    assert "raise widest" in verdict("D2", run).reason


def test_the_sheets_exponents() -> None:
    """1.02 / 2.06 / 2.98 / 4.05 for d = 3..6 in the last octave, up to sampling error."""
    run = quick("initialization")
    products = [frame.values["frobenius"] for frame in run.frames[-2:]]
    for depth in (3, 4, 5, 6):
        before, after = (v[:, : depth - 1].prod(1) * v[:, -1] for v in products)
        assert np.log2(after / before).mean() == pytest.approx(depth - 2, abs=0.12)


def test_the_norms_of_a_layer_are_those_of_linear_algebra() -> None:
    """Catches too few Lanczos steps, and the long side taken for the short one."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((10, 300), (300, 10), (200, 200), (1, 5)):
        weight = torch.randn(shape, generator=generator, dtype=torch.float64)
        squared, top = layer_norms(weight)
        assert squared == pytest.approx(float((weight**2).sum()))
        exact = float(torch.linalg.matrix_norm(weight, 2))
        assert exact * (1 - 1e-3) < top < exact * (1 + 1e-9)


def test_a_notebooks_own_norms_are_what_is_measured() -> None:
    """A visible step that is ignored: norms that are wrong must end in a verdict that says so."""

    def wrong(weight: torch.Tensor) -> tuple[float, float]:
        squared, top = layer_norms(weight)
        return squared, squared**0.5

    settings = INITIALIZATION.preset(widest=320, matrices=3)
    assert verdict("D1", drain(INITIALIZATION, settings, norms=wrong)).word == "fails"


def test_a_notebooks_own_climb_is_what_is_measured() -> None:
    """The same for the climb: one in too large a ball goes too far; a plain tensor of values will do."""

    def too_far(Z, x, r, **how):
        return rademacher_lower(Z, x, r * len(Z) ** 0.5 * 3, **how).values

    settings = COMPLEXITY.preset(**CHEAP["complexity"], seeds=3)
    right = drain(COMPLEXITY, settings)
    plain = drain(COMPLEXITY, settings, climb=lambda *a, **k: rademacher_lower(*a, **k).values)
    np.testing.assert_array_equal(right.last("sup_m"), plain.last("sup_m"))
    assert verdict("D10", drain(COMPLEXITY, settings, climb=too_far)).word == "fails"


def test_climbs_that_disagree_decide_no_exponent() -> None:
    """An exponent read off climbs that were stopped too early."""
    run = changed(quick("complexity"), gap=lambda v: v + 0.5)
    found = verdict("D17", run)
    assert found.word == "undecided" and "raise steps" in found.reason


def test_an_untrained_network_with_less_than_its_product_is_not_the_largest() -> None:
    """A gain of a mean image, or of another layer's norm: at one image and one layer both sides are equal."""
    weight = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    one = SimpleNamespace(x_train=torch.eye(2), y_train=torch.tensor([0, 1]), classes=2)
    found = initialization._loss(one.x_train @ weight.T, one, [3.0])
    assert found["gain"] == 3.0 and found["output"] == 2.5
    assert found["loss"] == pytest.approx(1.0) and found["loss_bound"] == pytest.approx(8.0)


def test_the_sheets_values_without_biases() -> None:
    """r = 2: about 103 to 121 under 780 for d = 3, and 207 to 228 under 3050 for d = 4, at m = 200."""
    settings = COMPLEXITY.preset(biases=False, widest=128)
    run = drain(COMPLEXITY, settings, climb=partial(rademacher_lower))
    sup = np.stack([frame.values["sup"] for frame in run.frames if "sup" in frame.values]).mean((0, 1))
    bound = np.stack([f.values["sup_bound"] for f in run.frames if "sup" in f.values]).mean((0, 1))
    np.testing.assert_allclose(sup, [112, 217], rtol=0.15)
    np.testing.assert_allclose(bound, [780, 3050], rtol=0.1)
