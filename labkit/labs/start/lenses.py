"""One network through five lenses at once, each with what is known of it before training.

Full-batch gradient descent on ½‖f − y‖² (paper 4, (1.3)), a fully connected network without biases, images
of norm √d. Dashed is the network linearised at its start (`labkit.labs.start.linear`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from labkit import data, models, training
from labkit.labs import common
from labkit.labs.start import claims, panels
from labkit.labs.start.linear import kernel, linearize
from labkit.measure import confusion, gradient_gram, layer_norms, margins
from labkit.protocol.experiment import Experiment, Frame, Prediction
from labkit.protocol.memory import once
from labkit.protocol.settings import knob
from labkit.theory.distance import initial_norms, layer_shapes, xavier_sds

EPSILON = 0.05  # the rise of the mean loss at the flatness radius (paper 3, (16))
DIRECTIONS = 8  # random directions, each taken both ways
CURVES, LOOKS = 60, 12  # moments for what costs nothing, and for what costs something


@dataclass(frozen=True)
class Lenses(common.OnData):
    width: int = knob(256, "hidden units", slider=(4, 512), bounds=(1, 10_000), scale="log2")
    depth: int = knob(2, "hidden layers", slider=(1, 4), bounds=(1, 50), step=1)
    label_noise: float = knob(
        0.0, "share of training labels drawn anew, uniform over all classes", slider=(0, 1), step=0.05,
        label="label noise (redraw)",
    )  # fmt: skip
    lr: float = knob(
        0.9, "learning rate in units of 1/λ₁²; theory asks for at most 1, and above 2 the linearised network "
        "diverges", slider=(0.05, 10), bounds=(1e-6, 1e3), scale="log", label="learning rate",
    )  # fmt: skip
    steps: int = knob(300, "steps of gradient descent", slider=(10, 2000), bounds=(1, None), scale="log")
    rank: int = knob(
        10, "dimension of the information space", slider=(1, 60), bounds=(1, None), step=1, remeasures=True
    )
    activation: str = knob("tanh", "of the hidden layers", choices=("tanh", "relu"))
    n: int = knob(80, "training images", slider=(20, 300), bounds=(4, None), step=10)
    classes: int = knob(3, "classes", slider=(2, 10), bounds=(2, None), step=1)
    dataset: str = knob("digits", "name of a data set, or path to an .npz")

    @property
    def limits(self) -> Mapping[str, tuple[int, str]]:
        return {"rank": (self.n * self.classes - 1, "n·classes - 1, for a label space of n·classes,")}


@dataclass(frozen=True)
class Setup:
    """directions: for each seed (p, DIRECTIONS), columns of length 1."""

    settings: Lenses
    sets: tuple[data.Dataset, ...]
    models: tuple[nn.Module, ...]
    directions: tuple[Tensor, ...]
    steps: tuple[int, ...]

    @property
    def x(self) -> list[Tensor]:
        return [_scaled(one.x_train) for one in self.sets]

    @property
    def x_test(self) -> list[Tensor]:
        return [_scaled(one.x_test) for one in self.sets]

    @property
    def y(self) -> list[Tensor]:
        return [data.one_hot(one.y_train, self.settings.classes) for one in self.sets]


def _scaled(x: Tensor) -> Tensor:
    return math.sqrt(x.shape[1]) * x


def prepare(settings: Lenses) -> Setup:
    sets = common.datasets(
        settings, n_test=150, normalize="standardize+unit-length", label_noise=settings.label_noise,
        noise_kind="redraw",
    )  # fmt: skip
    nets, directions = [], []
    for one, seed in zip(sets, common.seeds(settings), strict=True):
        net = models.mlp(
            one.x_train.shape[1], settings.width, settings.depth, settings.classes, bias=False, init="lecun",
            activation=settings.activation, seed=seed, device=settings.device,
        )  # fmt: skip
        p = sum(weight.numel() for weight in net.parameters())
        drawn = torch.randn(p, DIRECTIONS, generator=torch.Generator().manual_seed(seed))
        nets.append(net)
        directions.append((drawn / drawn.norm(dim=0)).to(settings.device))
    steps = tuple(common.measured_steps(settings.steps, CURVES))
    return Setup(settings, sets, tuple(nets), tuple(directions), steps)


def predict(setup: Setup) -> Prediction:
    settings, steps = setup.settings, np.asarray(setup.steps)
    found = [
        once(linearize, *parts)
        for parts in zip(setup.models, setup.x, setup.y, setup.x_test, setup.directions, strict=True)
    ]
    # One learning rate for all seeds, from the steepest of them.
    lr = settings.lr / max(float(one.spectrum[0]) for one in found)
    start = np.array([np.linalg.norm(one.coefficients) for one in found])
    shares = np.stack([one.residuals(lr, steps) for one in found]) / start[:, None, None]
    labels = [(s.y_train.cpu().numpy(), s.y_test.cpu().numpy()) for s in setup.sets]
    errors = np.stack([o.errors(lr, steps, *own) for o, own in zip(found, labels, strict=True)])
    cosines = np.stack([one.cosines(lr, steps) for one in found])
    sizes = layer_shapes(setup.sets[0].x_train.shape[1], settings.width, settings.depth + 1, settings.classes)
    norms = initial_norms(sizes, xavier_sds("lecun", sizes))
    slopes = np.array([one.slopes for one in found])
    with np.errstate(over="ignore", invalid="ignore"):
        information = np.linalg.norm(shares[:, :, : settings.rank], axis=2)
        nuisance = np.linalg.norm(shares[:, :, settings.rank :], axis=2)
    return {
        "steps": steps, "lr": np.asarray(lr), "start": start, "rank": np.asarray(settings.rank),
        "gram": np.stack([one.gram for one in found]), "basis": np.stack([one.basis for one in found]),
        "train_error": errors[:, 0], "test_error": errors[:, 1],
        "distance": np.stack([one.distance(lr, steps) for one in found]),
        "origin": np.asarray(math.sqrt(norms.frobenius_squared.sum())),
        "spectral": np.asarray(norms.spectral.prod()),
        # The mean loss of the linear model rises by r²‖Ju‖²/2n around its minimum.
        "radius": np.sqrt(2 * settings.n * EPSILON / slopes),
        "information": information, "nuisance": nuisance,
        "smallest": cosines[:, 0], "mean": cosines[:, 1],
    }  # fmt: skip


Gram = Callable[..., Tensor]


def run(setup: Setup, prediction: Prediction, *, gram: Gram = gradient_gram) -> Iterator[Frame]:
    """Trains all seeds at once; `gram` gives the inner products of the gradients of all samples."""
    settings = setup.settings
    ensemble = training.Ensemble(setup.models)
    looks = _looks(setup.steps)
    lens = _Lens(setup, prediction, gram)
    shown = time.perf_counter()
    for frame in training.train(
        ensemble, setup.x, setup.y, loss="half-sum", lr=float(prediction["lr"]), steps=settings.steps,
        measure_at=setup.steps, seed=list(common.seeds(settings)),
    ):  # fmt: skip
        if frame.is_tick or frame.status == "diverged":
            yield frame if frame.is_tick else _diverged(frame, settings.lr)
            shown = time.perf_counter()
            continue
        values = lens.glance(ensemble)
        if frame.step in looks:
            last = frame.step == settings.steps
            for more in (lens.norms(ensemble), lens.flatness(ensemble), lens.gradients(ensemble, last)):
                for found in more:
                    values |= found
                    if time.perf_counter() - shown > 0.08:
                        yield Frame.tick(frame.step, frame.progress)
                        shown = time.perf_counter()
        yield Frame(frame.step, values, frame.progress, frame.status, frame.note)
        shown = time.perf_counter()


def _diverged(frame: Frame, lr: float) -> Frame:
    # In the units of the slider, in which the linearised network has one limit for every set and width.
    told = f"lr={lr:.3g} is too large: steps are stable up to 2, in units of 1/λ₁². Take {1 / lr:.2g} × lr"
    return Frame(frame.step, {}, frame.progress, "diverged", told if lr > 2 else frame.note)


def _looks(steps: tuple[int, ...]) -> frozenset[int]:
    places = np.linspace(0, len(steps) - 1, min(LOOKS, len(steps))).round().astype(int)
    return frozenset(steps[place] for place in places)


class _Lens:
    """What is measured on the ensemble at one step: dictionaries of (S,) arrays, a little at a time."""

    def __init__(self, setup: Setup, prediction: Prediction, gram: Gram) -> None:
        self.setup, self.prediction, self._gram = setup, prediction, gram
        self.x, self.y, self.x_test = torch.stack(setup.x), torch.stack(setup.y), torch.stack(setup.x_test)
        self.labels = torch.stack([one.y_train for one in setup.sets])
        self.test_labels = torch.stack([one.y_test for one in setup.sets])
        self.basis = torch.as_tensor(prediction["basis"]).to(self.x.device)
        self.radius = prediction["radius"].copy()
        self._probe = training.Ensemble(setup.models)
        start = training.Ensemble(setup.models).weights()
        self._start = {name: weight.double().clone() for name, weight in start.items()}
        self._spectral = self._norms(training.Ensemble(setup.models))[0]

    def glance(self, ensemble: training.Ensemble) -> dict[str, np.ndarray]:
        """Errors, distances and the two parts of the residual."""
        with torch.no_grad():
            outputs, test = ensemble(self.x).double(), ensemble(self.x_test)
        residuals = (outputs - self.y.double()).flatten(1)
        modes = (self.basis.mT @ residuals[:, :, None])[:, :, 0].cpu().numpy()
        modes = modes / self.prediction["start"][:, None]
        rank = int(self.prediction["rank"])
        now = ensemble.weights()
        moved = sum(((now[name].double() - old) ** 2).flatten(1).sum(1) for name, old in self._start.items())
        whole = sum((weight.double() ** 2).flatten(1).sum(1) for weight in now.values())
        assert isinstance(moved, Tensor) and isinstance(whole, Tensor)
        return {
            "loss": (residuals**2).sum(1).cpu().numpy() / (2 * self.setup.settings.n),
            "train_error": common.error_rate(outputs, self.labels),
            "test_error": common.error_rate(test, self.test_labels),
            "distance": moved.sqrt().cpu().numpy(), "origin": whole.sqrt().cpu().numpy(),
            "information": np.linalg.norm(modes[:, :rank], axis=1),
            "nuisance": np.linalg.norm(modes[:, rank:], axis=1),
        }  # fmt: skip

    def norms(self, ensemble: training.Ensemble) -> Iterator[dict[str, np.ndarray]]:
        """∏‖W_k‖₂ between what the distance allows and what the margins ask for; and ∏‖W_k‖_F."""
        spectral, frobenius = self._norms(ensemble)
        now = ensemble.weights()
        moved = torch.stack(
            [(now[name].double() - old).flatten(1).norm(dim=1) for name, old in self._start.items()], dim=1
        )
        yield {
            "spectral": spectral.prod(axis=1), "frobenius": frobenius.prod(axis=1),
            "ceiling": (self._spectral + moved.cpu().numpy()).prod(axis=1),
        }  # fmt: skip
        with torch.no_grad():
            outputs = ensemble(self.x).double()
        yield {"floor": np.array([_asked(*one) for one in zip(outputs, self.labels, self.x, strict=True)])}

    def _norms(self, ensemble: training.Ensemble) -> tuple[np.ndarray, np.ndarray]:
        """‖W_k‖₂ and ‖W_k‖_F, each (S, layers)."""
        found = [layer_norms(ensemble.member(s), self.x[s, :1]) for s in range(ensemble.size)]
        return common.stack([one.spectral for one in found]), common.stack([one.frobenius for one in found])

    def flatness(self, ensemble: training.Ensemble) -> Iterator[dict[str, np.ndarray]]:
        """The radius at which the mean loss, averaged over directions, is EPSILON higher: secant steps from
        the radius before, which are exact for a quadratic."""
        for _ in range(2):
            total = np.zeros(ensemble.size)
            for d in range(DIRECTIONS):
                total += self._rise(ensemble, d)
                yield {}
            rise = np.maximum(total / DIRECTIONS, EPSILON / 16)
            self.radius = self.radius * np.sqrt(EPSILON / rise)
        yield {"radius": self.radius.copy(), "rise": rise}

    def _rise(self, ensemble: training.Ensemble, d: int) -> np.ndarray:
        """L(w ± r u) − L(w), the mean of both signs, along direction d: (S,)."""
        columns, place = torch.stack([u[:, d] for u in self.setup.directions]), 0
        radius = torch.as_tensor(self.radius).to(columns)[:, None]
        steps: Mapping[str, Tensor] = {}
        for name, weight in ensemble.weights().items():
            size = weight[0].numel()
            part = (radius * columns[:, place : place + size]).view(weight.shape)
            steps, place = {**steps, name: part}, place + size
        losses = []
        with torch.no_grad():
            for sign in (0.0, 1.0, -1.0):
                for name, weight in self._probe.weights().items():
                    weight.copy_(ensemble.weights()[name] + sign * steps[name])
                gaps = (self._probe(self.x).double() - self.y.double()).square()
                losses.append(gaps.sum((1, 2)) / (2 * self.setup.settings.n))
        return ((losses[1] + losses[2]) / 2 - losses[0]).cpu().numpy()

    def gradients(self, ensemble: training.Ensemble, last: bool) -> Iterator[dict[str, np.ndarray]]:
        """What the gradients of all samples say of each other; at the end how far the kernel has moved."""
        rows, moved = [], []
        for s in range(ensemble.size):
            net = ensemble.member(s)
            gram = self._gram(net, self.x[s], self.y[s], loss="half-sum").double().cpu()
            pairs = confusion(gram)
            # Σ_{i≠j} ⟨g_i, g_j⟩ = ‖Σ g_i‖² − Σ ‖g_i‖²: in units of a mean squared gradient.
            unit = float(gram.diagonal().mean()) or 1.0
            asked = (unit - float(gram.mean()) * len(gram)) / (len(gram) - 1) / unit
            rows.append((pairs.minimum_cosine, pairs.mean_cosine, pairs.eta / unit, asked))
            if last:
                old = self.prediction["gram"][s]
                moved.append(np.linalg.norm(kernel(net, self.x[s]) - old) / np.linalg.norm(old))
            yield {}
        names = ("smallest", "mean", "eta", "eta_least")
        yield dict(zip(names, np.array(rows).T.copy(), strict=True)) | (
            {"kernel": np.array(moved)} if last else {}
        )


def _asked(outputs: Tensor, labels: Tensor, x: Tensor) -> float:
    """The Lipschitz constant that two images of different labels ask for: (γ_i + γ_j)/(√2‖x_i − x_j‖) at
    most, γ the margins; 0 where no pair asks for any."""
    found = margins(outputs, labels)
    pairs = (found[:, None] + found) / (math.sqrt(2) * torch.cdist(x.double(), x.double()))
    apart = labels[:, None] != labels
    return max(float(pairs[apart].max()), 0.0) if apart.any() else 0.0


LENSES = Experiment(
    "lenses", "One network, five lenses", Lenses,
    {
        "quick": Lenses(),
        "paper": Lenses(dataset="mnist", n=400, classes=10, width=2048, rank=50, steps=2000),
    },
    prepare, predict, run, panels.figure, claims.CLAIMS,
    controls=("width", "depth", "label_noise", "lr"),
)  # fmt: skip
