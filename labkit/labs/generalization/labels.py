"""True or random labels: which number knows the difference? (E1, E6, E7, E8; paper 2, Figs. 1 and 2)

One architecture, one stop, three sizes m of the training set. The networks are looked at each time the loss
has fallen by another half decade, true and random labels side by side: the norm alone says how long one has
trained, over the squared margin it tells the labels apart. Momentum starts anew after each look.

The noise of Fig. 2 has standard deviation α(10|w_i| + 1) for prior and posterior alike, so its prior knows
the weights: the divergence compares networks, but (5) to (8) are proved for a σ fixed beforehand, and are
evaluated with such. Their loss is the error rate, as it must lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, figures, training
from labkit.labs import common
from labkit.labs.generalization import label_panels, shared
from labkit.labs.generalization.label_panels import Values
from labkit.labs.generalization.shared import KINDS
from labkit.measure.sharpness import expected_sharpness, parameter_vector
from labkit.models.rescaling import rescale_nodes
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.memory import once
from labkit.protocol.rules import EVERY, AtMost, Between, Check, Evidence
from labkit.protocol.settings import knob
from labkit.protocol.statistics import exponent
from labkit.theory import pac_bayes

SHARES = (1 / 6, 0.4, 1)  # sizes of the training set, in units of the largest
SIGMAS = np.geomspace(0.02, 2.0, 9)  # fixed noise of the bounds
DELTA = 0.05
RESCALED = (0.1, 10.0)  # factors of the units in E6
MOVED = 1.5  # what we call a change of sharpness: by this factor or more
ABOVE, BELOW = 1.05, 0.95  # random over true: from these factors on we call a measure larger or smaller
FASTER = 0.2  # and by so much more in the exponent of m we call its growth faster


@dataclass(frozen=True)
class Labels(shared.Trained):
    n: int = knob(
        300, "largest training set m; a sixth and two fifths of it are fitted too", slider=(180, 900),
        bounds=(90, None), step=30, label="largest m",
    )  # fmt: skip
    label_noise: float = shared.label_noise("the random network's", 0.2)
    n_test: int = shared.n_test(1000)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(round(share * self.n) for share in SHARES)

    @property
    def levels(self) -> np.ndarray:
        """Losses at which the networks are looked at: half decades from 1 to the stop."""
        return np.geomspace(1.0, self.stop, round(-2 * np.log10(self.stop)) + 1)


def prepare(settings: Labels) -> common.Setup:
    """sets[size][true or random][seed]; one network a seed: all fits of a seed start alike."""
    sets = tuple(
        tuple(
            tuple(shared.classification(settings, m, seed, noise) for seed in common.seeds(settings))
            for noise in (0.0, settings.label_noise)
        )
        for m in settings.sizes
    )
    return common.Setup(settings, sets, shared.networks(settings, sets[0][0][0].shape))


def predict(setup: common.Setup) -> Prediction:
    """K of (5) at each σ for the weights at the start; training makes their norm larger, and so the bound."""
    settings = setup.settings
    squares = [float(parameter_vector(model).double().square().sum()) for model in setup.models]
    start = [
        [pac_bayes.complexity(w / (2 * SIGMAS**2), m, DELTA / len(SIGMAS)) for m in settings.sizes]
        for w in squares
    ]
    known = {"sizes": np.array(settings.sizes), "levels": settings.levels, "sigmas": SIGMAS}
    return known | {"start": np.array(start)}


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings, sizes = setup.settings, setup.settings.sizes
    values = blank(len(setup.models), len(sizes), len(settings.levels))
    begun, step, notes = 0.0, 0, list[str]()
    for g, m in enumerate(sizes):
        part = 0.97 * m / sum(sizes)
        ensembles = [training.Ensemble(setup.models) for _ in KINDS]
        if not (yield from _down(setup, g, ensembles, values, notes, (begun, part))):
            return
        step += len(settings.levels)
        begun += part
        last = g == len(sizes) - 1
        yield Frame(
            step, common.snapshot(values), 1.0 if last else begun, "done" if last else "running",
            "; ".join(notes) if last else "",
        )  # fmt: skip


def _down(
    setup: common.Setup, g: int, ensembles: Sequence[training.Ensemble], values: dict[str, np.ndarray],
    notes: list[str], span: tuple[float, float],
) -> Generator[Frame, None, bool]:  # fmt: skip
    """Trains both kinds of labels of one size side by side, from loss to loss; false if one diverges.

    Args:
        span: of the run's progress, where this begins and how much it is.
    """
    settings, levels, (begun, part) = setup.settings, setup.settings.levels, span
    spent, missed = [0, 0], [False, False]
    for t, level in enumerate(levels):
        step = g * len(levels) + t
        for k in (k for k in range(len(KINDS)) if not missed[k]):
            # Random labels take about four times the steps.
            begin, end = (begun + part * (t + share) / len(levels) for share in ((0, 0.2), (0.2, 1))[k])
            sets = setup.sets[g][k]
            outcome = yield from shared.fit(
                settings, ensembles[k], shared.samples(sets), loss=float(level), span=(begin, end), step=step,
                epochs=settings.epochs - spent[k], seed=settings.seed + 1000 * t,
                showing=partial(_look_early, setup, (0, g, k, t), values),
            )  # fmt: skip
            notes += outcome.told(f"{KINDS[k]} labels, m = {settings.sizes[g]}")
            if outcome.word == "diverged":
                yield Frame(step, common.snapshot(values), begin, "diverged", notes[-1])
                return False
            spent[k], missed[k] = spent[k] + outcome.epochs, outcome.word == "missed"
            for s, one in enumerate(sets):
                common.put(values, (s, g, k, t), _look(settings, ensembles[k].member(s), one))
                yield Frame.tick(step, end)
            if missed[k] or t + 1 == len(levels):
                for s, one in enumerate(sets):
                    at_the_end(settings, ensembles[k].member(s), one, values, (s, g, k))
                    yield Frame.tick(step, end)
            if not k:  # seen while the random ones are fitted
                yield Frame(step, common.snapshot(values), end)
        yield Frame(step + 1, common.snapshot(values), begun + part * (t + 1) / len(levels))
    return True


def _look_early(
    setup: common.Setup, place: tuple[int, ...], values: dict[str, np.ndarray], ensemble: training.Ensemble
) -> dict[str, np.ndarray]:
    """A copy of `values` with what the first seed's network has become."""
    settings, (s, g, k, _) = setup.settings, place
    one, model, seen = setup.sets[g][k][s], ensemble.member(s), common.snapshot(values)
    if settings.network == "mlp":  # the norms of a VGG take longer than its training to a next look
        common.put(seen, place, _look(settings, model, one))
    noise = shared.noisy(settings, shared.folded(model), one.x_train, one.y_train, s)
    common.put(seen, (s, g, k, -1), noise)
    return seen


def _look(settings: Labels, model: nn.Module, one: data.Dataset) -> dict[str, float]:
    found = shared.measured(settings, model, one.x_train, one.y_train)
    return found | {"test_error": shared.test_error(model, one.x_test, one.y_test)}


def blank(seeds: int, sizes: int, levels: int) -> dict[str, np.ndarray]:
    """Nothing yet: arrays (S, sizes, true or random, losses, ...), which are filled in as training goes."""
    values = shared.grid(seeds, sizes, len(KINDS), levels)
    values["sharpness"] = values["sharpness"][..., 0]
    values["rescaled"] = values["sharpness"].copy()
    return values | common.blank(seeds, sizes, len(KINDS), **dict.fromkeys(BOUNDS, SIGMAS.shape))


BOUNDS = ("train_noisy", "test_noisy", "pac_bayes", "gaussian", "complexity")


def at_the_end(
    settings: Labels, model: nn.Module, one: data.Dataset, values: dict[str, np.ndarray],
    place: tuple[int, int, int],
) -> None:  # fmt: skip
    """What noise does; max sharpness after a rescaling, too; and the bounds with what they bound."""
    model = shared.folded(model)
    noise = shared.perturbed(settings, model, one.x_train, one.y_train, seed=place[0])
    values["sharpness"][place] = noise["sharpness"]
    values["divergence"][place][-1], values["plane"][place][-1] = noise["divergence"], noise["plane"]
    generator = torch.Generator().manual_seed(place[0])
    other = rescale_nodes(model, generator=generator, low=RESCALED[0], high=RESCALED[1])
    values["rescaled"][place] = shared.steepest(settings, other, one.x_train, one.y_train)

    noisy = {
        name: perturbed_error(settings, model, x, y, place[0])
        for name, x, y in (("train", one.x_train, one.y_train), ("test", one.x_test, one.y_test))
    }
    norm = float(parameter_vector(model).double().square().sum())
    clean = common.fitted(model, one.x_train, one.y_train)[1]
    # One of several σ is chosen after the fact, so each is bounded at δ over their number.
    delta = DELTA / len(SIGMAS)
    kl = norm / (2 * SIGMAS**2)
    found = {
        "train_noisy": noisy["train"], "test_noisy": noisy["test"],
        "complexity": pac_bayes.complexity(kl, one.n, delta),
        "pac_bayes": pac_bayes.pac_bayes_bound(noisy["train"], kl, one.n, delta),
        "gaussian": [
            pac_bayes.gaussian_bound(clean, rise, norm, float(sigma), one.n, delta)
            for sigma, rise in zip(SIGMAS, noisy["train"] - clean, strict=True)
        ],
    }  # fmt: skip
    common.put(values, place, found)


def perturbed_error(settings: Labels, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> np.ndarray:
    """Mean error rate of the network with noise of each σ of `SIGMAS` on all weights alike."""
    near = shared.probed(settings, len(x))
    found = once(
        expected_sharpness, model, x[near], y[near], alphas=SIGMAS.tolist(), draws=settings.draws,
        loss="error", relative=0.0, generator=seed,
    )  # fmt: skip
    return np.clip((found.mean + found.loss).numpy(), 0.0, 1.0)


def figure(frames: Frames, prediction: Prediction, settings: Labels | None = None) -> figures.Chart:
    now = newest(frames, prediction, settings)
    return figures.Chart.of(
        settings,
        "Networks that fit true labels and networks that fit random ones, in each of the measures.",
        *(panel(now, prediction) for panel in label_panels.PANELS),
    )


def newest(frames: Sequence[Frame], prediction: Prediction, settings: Labels | None) -> Values:
    """What has been found so far, of all sizes and losses."""
    found = next((frame.values for frame in reversed(frames) if "norm" in frame.values), None)
    shape = settings.seeds if settings else 2, len(prediction["sizes"]), len(prediction["levels"])
    return blank(*shape) if found is None else found


def fitted(run: Run) -> tuple[Check, ...]:
    return shared.converged(run, (..., -1))


def _growth(run: Run, values: np.ndarray) -> np.ndarray:
    """The exponent in m of values (S, G); not a number where some are missing."""
    if not (values > 0).all():
        return np.full(len(values), np.nan)
    return exponent(np.array(run.settings.sizes, dtype=float), values)


def over_true(values: np.ndarray) -> np.ndarray:
    """Random over true labels: (..., 2) -> (...)."""
    return values[..., 1] / values[..., 0]


def _norms_order(run: Run) -> tuple[Evidence, Evidence]:
    found = np.stack([run.last(name)[..., -1] for name in shared.MEASURES], axis=1)  # (S, 4, G, 2)
    ratio, checks = over_true(found), fitted(run)
    growth = np.stack([_growth(run, ratio[:, i]) for i in range(len(shared.MEASURES))], axis=1)
    by_size = "; ".join(f"{word} {common.means(ratio[:, i], '.3g')}" for i, word in enumerate(NORMS))
    return Evidence(ratio, checks=checks, note=f"{_at(run)}: {by_size}"), Evidence(growth, checks=checks)


def _at(run: Run) -> str:
    return f"at m = {', '.join(map(str, run.settings.sizes))}"


def _sharpness_alone(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    sharp, rescaled, checks = run.last("sharpness"), run.last("rescaled"), fitted(run)
    ratio = over_true(sharp)
    moved = np.exp(np.abs(np.log(rescaled / sharp))).reshape(len(sharp), -1)
    return (
        Evidence(ratio[:, 0], checks=checks, note=f"{_at(run)}: {common.means(ratio, '.3g')}"),
        Evidence(ratio[:, -1] / ratio[:, 0], checks=checks),
        Evidence(moved, checks=checks),
    )  # fmt: skip


def _joint(run: Run) -> tuple[Evidence, Evidence]:
    found, checks = run.last("divergence")[..., -1], fitted(run)
    ratio, growth = over_true(found), [_growth(run, found[..., k]) for k in (0, 1)]
    return (
        Evidence(ratio, checks=checks, note=f"{_at(run)}: {common.means(ratio, '.3g')}"),
        Evidence(
            growth[1] - growth[0], checks=checks,
            note=f"true grows like m to the {growth[0].mean():.2g}, random to the {growth[1].mean():.2g}",
        ),
    )  # fmt: skip


def _valid_and_vacuous(run: Run) -> tuple[Evidence, Evidence, Evidence]:
    tested, five, eight = (run.last(name) for name in ("test_noisy", "pac_bayes", "gaussian"))
    missing = float(np.isnan(five).sum())
    checks = (Check("bounds that could not be evaluated", missing, 0.0, "let the training come to its end"),)
    if missing:
        return (Evidence(checks=checks),) * 3
    true, random = five.min(axis=-1).mean(axis=0)[-1]
    small = (run.last("complexity") <= 1).mean()
    return (
        Evidence(
            tested, five, vacuous=bool((pac_bayes.vacuous(five)).all()),
            note=f"least bound (5) at m = {run.settings.sizes[-1]}: true {true:.3g}, random {random:.3g}",
        ),
        Evidence(tested, eight, vacuous=bool(pac_bayes.vacuous(eight).all())),
        # For K <= 1 (5) is below (6); for K > 1 both exceed 1.
        Evidence(np.minimum(five, 1.0), eight, note=f"K ≤ 1 at {small:.0%} of the places"),
    )  # fmt: skip


NORMS = tuple(shared.NAMES.values())
_SAME = World("labels not drawn anew: both networks learn the true ones", {"label_noise": 0.0})

E1 = Claim(
    "E1", "finding",
    "Norm over margin (ℓ₂, ℓ₁-path, ℓ₂-path, spectral) is larger for random than for true labels at every m, "
    "and the ratio grows with m.",
    "paper 2, Fig. 1",
    (
        Between("norm over margin, random over true labels", low=ABOVE, by=EVERY),
        Between("exponent of that ratio in m", NORMS, low=FASTER, by=EVERY),
    ),
    _norms_order, "holds",
    {"holds": "all four measures order the labels at every m, and their gap widens",
     "fails": "some measure does not order the labels, or its gap does not widen"},
    (_SAME,),
)  # fmt: skip
E6 = Claim(
    "E6", "finding",
    "How max sharpness alone orders the labels depends on m: at the smallest m random labels are the "
    "flatter, and random over true grows to the largest; and rescaling units, which leaves the function "
    f"alone, changes it {MOVED}-fold or more.",
    "paper 2, §2.4 and Fig. 2 left",
    (
        Between("max sharpness at the smallest m, random over true labels", high=BELOW, by=EVERY),
        Between("growth of that ratio from the smallest m to the largest", low=ABOVE, by=EVERY),
        Between("factor by which rescaling units moves max sharpness", low=MOVED, by=EVERY),
    ),
    _sharpness_alone, "holds",
    {"holds": "at the smallest m random labels look flatter than true ones, towards the largest less so, and "
     "rescaling moves sharpness at will",
     "fails": "random labels do not look flatter, or not less so with m, or rescaling leaves sharpness alone",
     "undecided": "a network is not fitted"},
    (_SAME,),
)  # fmt: skip
E7 = Claim(
    "E7", "finding",
    "At an expected sharpness of .05 the divergence is larger for random labels at every m, "
    "and grows faster with m.",
    "paper 2, Fig. 2 middle and right",
    (
        Between("KL, random over true labels", low=ABOVE, by=EVERY),
        Between("exponent of KL in m, random less true labels", low=FASTER, by=EVERY),
    ),
    _joint, "holds",
    {"holds": "at equal sharpness random labels need the larger divergence, and it grows faster with m",
     "fails": "at equal sharpness the divergence does not tell the labels apart"},
    (_SAME,),
)  # fmt: skip
E8 = Claim(
    "E8", "theorem",
    "PAC-Bayes for the error rate: (5) and (8) bound the test error of the perturbed network at every σ; "
    "(6), which is (8) for this noise, follows from (5).",
    "paper 2, (5), (6), (8)",
    (
        AtMost("test error of the perturbed network, against (5)"),
        AtMost("test error of the perturbed network, against (8)"),
        AtMost("(5) or one, whichever is less, against (6)"),
    ),
    _valid_and_vacuous, "holds",
    {"holds": "valid, and at this size without content: the least bound exceeds 1",
     "fails": "a test error exceeds its bound, or (6) is below (5)"},
)  # fmt: skip

LABELS = Experiment(
    "labels", "True or random labels: which number knows the difference?", Labels,
    {
        "quick": Labels(),
        "paper": Labels(**shared.CIFAR, network="vgg", n=40_000),
        "afternoon": Labels(
            dataset="cifar10", network="vgg", width=8, n=180, n_test=500, lr=0.01, stop=1e-3, epochs=2000,
            ascent=40, draws=10, seeds=1,
        ),
    },
    prepare, predict, run, figure, (E1, E6, E7, E8),
    controls=("n", "width", "lr", "stop", "label_noise", "alpha", "epsilon"),
)  # fmt: skip
