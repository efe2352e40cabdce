"""Angle or scale? Confusion of networks with small weights on the sphere, over dimension and depth (C5, C6).

g(x) = σ(W_β σ(... σ(W_0 x))) with orthogonal W_p, the last a unit row, and labels C(x) = u·x with |u| = 1:
Assumption 1 with equality. For the identity, gradients of g have inner products (β + 1)⟨x_i, x_j⟩: depth
multiplies η and leaves every cosine alone. That is an identity of orthogonal matrices. Gaussian ones divided
by their norm keep Assumption 1, too, and their cosines fall with depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from labkit import figures
from labkit.labs import common
from labkit.labs.confusion import shared
from labkit.measure.confusion import confusion
from labkit.protocol.claims import Claim, World
from labkit.protocol.experiment import Experiment, Frame, Frames, Prediction, Run
from labkit.protocol.rules import EVERY, AtMost, Between, Condition, Equals, Evidence
from labkit.protocol.settings import Settings, knob, on_cpu
from labkit.protocol.statistics import exponent
from labkit.theory import confusion as theory

DIMENSIONS = np.array([16, 32, 64, 128, 256])
DEPTHS = np.array([1, 3, 10, 30])
QUANTITIES = ("layer", "weights", "zeta", "zeta_x", "zeta_w")
SHARE = 0.5  # probability at which Thm 4.1 gives a level: the median is what is measured


@dataclass(frozen=True)
class Scale(Settings):
    n: int = knob(50, "samples N on the sphere", slider=(10, 100), bounds=(3, 1000), step=10)
    d: int = knob(64, "dimension of the depth sweep", slider=(16, 128), bounds=(2, 1024), scale="log2")
    depth: int = knob(3, "depth β of the dimension sweep", slider=(1, 10), bounds=(1, 100))
    activation: str = knob("tanh", "σ", choices=("identity", "tanh", "relu", "sigmoid"))
    loss: str = knob("square", "loss of a sample", choices=("square", "logistic"))
    weights: str = knob("orthogonal", "W_p: orthogonal, or Gaussian and divided by their norm",
                        choices=("orthogonal", "gaussian"))  # fmt: skip
    norm: float = knob(1.0, "operator norm of every W_p", slider=(0.5, 1.5), bounds=(0.01, 10), step=0.1)
    nets: int = knob(
        12, "data sets and networks a seed; the median is taken", slider=(1, 20), bounds=(1, 1000)
    )
    device: str = on_cpu()

    @property
    def jobs(self) -> tuple[tuple[int, int], ...]:
        """(dimension, depth) of every measurement, the dimension sweep first."""
        return (*((int(d), self.depth) for d in DIMENSIONS), *((self.d, int(depth)) for depth in DEPTHS))


@dataclass(frozen=True)
class Gradients:
    """∇_(W_p) g = δ_p h_pᵀ of each sample, never formed.

    Attributes:
        output: g, (n,). deltas, inputs: δ_p (n, rows) and h_p (n, columns) of each layer.
        by_input: ∇_x g, (n, d).
    """

    output: np.ndarray
    deltas: tuple[np.ndarray, ...]
    inputs: tuple[np.ndarray, ...]
    by_input: np.ndarray

    def gram(self) -> np.ndarray:
        """⟨∇_W g(x_i), ∇_W g(x_j)⟩, (n, n)."""
        pairs = zip(self.deltas, self.inputs, strict=True)
        return np.sum([(delta @ delta.T) * (h @ h.T) for delta, h in pairs], axis=0)

    def layer_norms(self) -> np.ndarray:
        """‖∇_(W_p) g(x_i)‖, (n, β + 1)."""
        pairs = zip(self.deltas, self.inputs, strict=True)
        return np.stack([np.linalg.norm(d, axis=1) * np.linalg.norm(h, axis=1) for d, h in pairs], axis=1)


def activate(name: str, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """σ(z) and σ'(z); the slope of ReLU at 0 is 0."""
    if name == "identity":
        return z, np.ones_like(z)
    if name == "tanh":
        value = np.tanh(z)
        return value, 1 - value**2
    if name == "relu":
        return np.maximum(z, 0.0), (z > 0).astype(float)
    value = expit(z)
    return value, value * (1 - value)


def gradients(weights: Sequence[np.ndarray], x: np.ndarray, activation: str) -> Gradients:
    """One pass forward and one back for g(x) = σ(W_β ... σ(W_0 x)), with one output; x is (n, d)."""
    h, inputs, slopes = x, [], []
    for W in weights:
        inputs.append(h)
        h, slope = activate(activation, h @ W.T)
        slopes.append(slope)
    deltas = [slopes[-1]]
    for W, slope in zip(weights[:0:-1], slopes[-2::-1], strict=True):
        deltas.append((deltas[-1] @ W) * slope)
    deltas.reverse()
    return Gradients(h[:, 0], tuple(deltas), tuple(inputs), deltas[0] @ weights[0])


def slopes_of_loss(g: np.ndarray, labels: np.ndarray, loss: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ζ = ∂f/∂g and its derivatives by g and by the label C: for (g - C)²/2 and log(1 + exp(-C g))."""
    if loss == "square":
        return g - labels, np.ones_like(g), -np.ones_like(g)
    s = expit(-labels * g)
    return -labels * s, labels**2 * s * (1 - s), -s + labels * g * s * (1 - s)


def predict(setup: common.Setup) -> Prediction:
    """The worst cosine of random data, what depth does to the identity, and what Thm 4.1 allows for."""
    settings = setup.settings
    pairs = settings.n * (settings.n - 1) / 2
    # One of two signs of a product is the bad one; the median over sets.
    single = -2 * np.expm1(np.log(0.5) / pairs)
    level = [theory.confusion_level(SHARE, settings.n, d, depth) for d, depth in settings.jobs]
    layers = DEPTHS + 1.0
    allowed = layers * (DEPTHS + 2.0) ** 2
    return {
        "dimensions": DIMENSIONS, "depths": DEPTHS, "allowed": np.array(level),
        "cosine": np.array([float(theory.pair_level(single, int(d))) for d in DIMENSIONS]),
        "growth": layers / layers[0], "allowed_growth": allowed / allowed[0],
    }  # fmt: skip


def run(setup: common.Setup, prediction: Prediction) -> Iterator[Frame]:
    settings = setup.settings
    jobs, seeds = settings.jobs, common.seeds(settings)
    values = common.blank(len(seeds), len(jobs), cosine=(), eta=())
    shares = values["shares"] = np.zeros((len(seeds), len(QUANTITIES)))
    for step, (d, depth) in enumerate(jobs):
        for place, seed in enumerate(seeds):
            # The same data at every depth, other networks.
            data, draw = np.random.default_rng([seed, d]), np.random.default_rng([seed, d, depth, step])
            found = []
            for _ in range(settings.nets):
                x, u = _unit(data, settings.n, d), _unit(data, 1, d)[0]
                weights = [settings.norm * W for W in _weights(draw, d, depth, settings.weights)]
                found.append(_confusion(gradients(weights, x, settings.activation), x @ u, settings.loss))
                lemma = _lemma(weights, _ball(draw, settings.n, d), u, settings)
                shares[place] = np.maximum(shares[place], lemma)
                yield Frame.tick(step, (step + place / len(seeds)) / len(jobs))
            values["cosine"][place, step], values["eta"][place, step] = np.median(found, axis=0)
        end = step + 1 == len(jobs)
        yield Frame(step, common.snapshot(values), (step + 1) / len(jobs), "done" if end else "running")


def _unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    x = rng.standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _ball(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Half of the points on the sphere, half at uniform radii within."""
    radii = np.where(np.arange(n) % 2, rng.random(n), 1.0)
    return radii[:, None] * _unit(rng, n, d)


def _weights(rng: np.random.Generator, d: int, depth: int, family: str) -> list[np.ndarray]:
    """W_0 ... W_(β-1) of operator norm 1, (d, d), and W_β a unit row (1, d)."""
    square = rng.standard_normal((depth, d, d))
    if family == "orthogonal":
        return [*np.linalg.qr(square)[0], _unit(rng, 1, d)]
    return [*(square / np.linalg.norm(square, 2, axis=(1, 2), keepdims=True)), _unit(rng, 1, d)]


def _confusion(found: Gradients, labels: np.ndarray, loss: str) -> tuple[float, float]:
    """-(smallest cosine) and η of one network's per-sample gradients, over all pairs i ≠ j."""
    zeta = slopes_of_loss(found.output, labels, loss)[0]
    pairs = confusion(found.gram() * zeta[:, None] * zeta)
    return -pairs.minimum_cosine, pairs.eta


def _lemma(weights: Sequence[np.ndarray], x: np.ndarray, u: np.ndarray, settings: Scale) -> np.ndarray:
    """The quantities of Lemma D.1 at their largest over points, as shares of its constants, (5,)."""
    found, bounds = gradients(weights, x, settings.activation), theory.lemma_constants(len(weights) - 1)
    zeta, by_g, by_label = slopes_of_loss(found.output, x @ u, settings.loss)
    layers = found.layer_norms()
    every = np.linalg.norm(layers, axis=1)
    by_x = by_g[:, None] * found.by_input + by_label[:, None] * u
    largest = {
        "layer": layers.max(), "weights": every.max(), "zeta": np.abs(zeta).max(),
        "zeta_x": np.linalg.norm(by_x, axis=1).max(), "zeta_w": (np.abs(by_g) * every).max(),
    }  # fmt: skip
    return np.array([largest[name] / getattr(bounds, name) for name in QUANTITIES])


def figure(frames: Frames, prediction: Prediction, settings: Scale | None = None) -> figures.Chart:
    d, depths = prediction["dimensions"], prediction["depths"]
    found = [common.seen(frames, name, len(d) + len(depths)) for name in ("cosine", "eta")]
    cosine, eta = (np.where(one > 0, one, np.nan) for one in found)  # none opposed is no place on a log axis
    over_depth = cosine[:, len(d) :], eta[:, len(d) :]
    cosine_growth, eta_growth = (one / one[:, :1] for one in over_depth)
    angle = (
        figures.Predicted(d, prediction["cosine"], label="random data", color=shared.COSINE),
        figures.Points(d, cosine[:, : len(d)], label="measured", color=shared.COSINE),
    )
    growth = (
        figures.Bound(depths, prediction["allowed_growth"], label="Thm 4.1", color=shared.DEPTH),
        figures.Predicted(depths, prediction["growth"], label="η, identity", color=shared.ETA),
        figures.Predicted(depths, np.ones(len(depths)), label="cosine, identity", color=shared.COSINE),
        figures.Points(depths, eta_growth, label="η", color=shared.ETA),
        figures.Points(depths, cosine_growth, label="cosine", color=shared.COSINE),
    )
    places, names = np.arange(len(QUANTITIES), dtype=float), ("∇_p g", "∇_W g", "ζ", "∇_x ζ", "∇_W ζ")
    shares = common.seen(frames, "shares", len(places))
    lemma = (
        figures.Bound(places, np.ones(len(places)), label="Lemma D.1", color=shared.ETA),
        figures.Points(places, shares, label="largest measured", color=shared.WIDTH, line=False),
    )
    return figures.Chart.of(
        settings, "Confusion at the start against dimension and depth, and the constants of Lemma D.1.",
        figures.Panel("Angle falls with d", angle, xlabel="dimension d", ylabel="−smallest cosine",
                      xscale="log2", yscale="log"),
        figures.Panel("Depth is scale", growth, xlabel="depth β", ylabel="factor over β = 1",
                      xscale="log", yscale="log"),
        figures.Panel("Lemma D.1", lemma, ylabel="share of the bound", ylim=(0, 1.2), xlim=(-0.4, 4.4),
                      xticks=tuple(zip(places.tolist(), names, strict=True))),
    )  # fmt: skip


def _regime(run: Run) -> tuple[Condition, ...]:
    z = np.concatenate([-np.geomspace(1, 1e-3, 50), np.geomspace(1e-3, 1, 50)])
    values, slopes = activate(run.settings.activation, z)
    return (
        Condition("Assumption 1, ‖W_p‖", run.settings.norm, 1.0 + 1e-9),
        Condition("largest |σ(z)/z|", float(np.abs(values / z).max()), 1.0 + 1e-9),
        Condition("largest |σ′(z)|", float(np.abs(slopes).max()), 1.0 + 1e-9),
    )


def _angle(run: Run) -> tuple[Evidence, ...]:
    cosine, eta = common.whole(run, "cosine", "eta")
    jump = Condition("jump of σ′", float(run.settings.activation == "relu"), 0.0)
    regime, count, layers = (*_regime(run), jump), len(DIMENSIONS), DEPTHS + 1.0
    allowed = run.prediction["allowed"]
    trivial = 4.0 * np.array([depth + 1 for _, depth in run.settings.jobs])
    means, etas = cosine.mean(axis=0), eta.mean(axis=0)
    note = (
        f"−cosine {means[0]:.2f} → {means[count - 1]:.2f} over d = 16 … 256; over depth 1 … 30 "
        f"{means[count]:.2f} → {means[-1]:.2f} while η goes {etas[count]:.2g} → {etas[-1]:.2g}; "
        f"Thm 4.1 allows {allowed[count]:.2g} → {allowed[-1]:.2g}"
    )
    return (
        Evidence(cosine[:, :count], run.prediction["cosine"], regime, note=note),
        Evidence(cosine[:, -1] / cosine[:, count], 1.0, regime),
        Evidence(exponent(layers, np.maximum(eta[:, count:], shared.TINY)), None, regime),
        Evidence(eta, allowed, regime, vacuous=bool((allowed > trivial).all())),
    )


def _constants(run: Run) -> Evidence:
    if len(run.frames) < len(run.settings.jobs):
        raise ValueError("shares: not every network was looked at yet")
    shares = run.last("shares")
    listed = ", ".join(
        f"{name} {share:.2f}" for name, share in zip(QUANTITIES, shares.max(axis=0), strict=True)
    )
    return Evidence(shares, 1.0, _regime(run), note=f"largest shares of the bounds: {listed}")


C5 = Claim(
    "C5", "theorem",
    "On the sphere, with orthogonal W_p, cosines of gradients are nearly those of the data: the smallest is "
    "that of random directions in d dimensions, at every d, and depth 30 leaves it as depth 1 has it; η "
    "grows with the number of matrices, at most in proportion: gradient scale. Thm 4.1's level, with its "
    "(β + 2)⁴, is never reached. An identity of orthogonal matrices, up to σ.",
    "paper 5, Thm 4.1",
    (
        Equals("−(smallest cosine), over d, against random data", tuple(f"d = {d}" for d in DIMENSIONS),
               tolerance=0.2),
        Equals("−(smallest cosine) at depth 30 over that at depth 1", tolerance=0.2),
        Between("exponent of the number of matrices in η", low=0.4, high=1.2, by=EVERY),
        AtMost("η, over d and depth, against Thm 4.1's level at probability ½"),
    ),
    _angle, "holds",
    {"holds": "with orthogonal weights cosines fall with d alone, and η grows with depth; others are not "
              "spoken of",
     "fails": "cosines are not the data's, or move with depth, or η does not grow with it",
     "out of regime": "the weights are not small, or σ is not what the theorem asks for"},
    worlds=(
        World("Gaussian weights divided by their norm", {"weights": "gaussian"}),
        World("every gradient replaced by their mean", faults={f"{__name__}:confusion": shared.all_alike}),
        World("the mean pair for the worst", faults={f"{__name__}:confusion": shared.mean_for_worst}),
    ),
)  # fmt: skip
C6 = Claim(
    "C6", "theorem",
    "Under Assumption 1 and |σ(z)| ≤ |z|: ‖∇_(W_p) g‖ ≤ 1 for each layer, |ζ| ≤ 2, and ‖∇_x ζ‖ and ‖∇_W ζ‖ "
    "are at most ζ₀ = 2√(β + 1).",
    "paper 5, Lemma D.1",
    (
        AtMost("largest share of the lemma's constant",
               ("‖∇_p g‖", "‖∇_W g‖", "|ζ|", "‖∇_x ζ‖", "‖∇_W ζ‖")),
    ),
    _constants, "holds",
    {"holds": "no sampled point exceeds a constant of the lemma",
     "fails": "a constant was exceeded",
     "out of regime": "the weights are not small, or σ is not what the lemma asks for"},
    worlds=(World("weights of norm 1.5", {"norm": 1.5}, word="out of regime"),),
)  # fmt: skip

SCALE = Experiment(
    "scale", "Angle or scale?", Scale,
    {"quick": Scale(), "paper": Scale(n=200, nets=20, seeds=5)},
    common.Setup, predict, run, figure, (C5, C6),
    controls=("n", "d", "depth", "activation", "loss", "weights", "norm"),
)  # fmt: skip
