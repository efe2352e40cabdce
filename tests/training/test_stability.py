"""The largest stable learning rate, and runs that go beyond it."""

import math

import numpy as np
import pytest
import torch

from labkit.training import Ensemble, largest_stable_lr, train
from tests.training.cases import CASES, data, linear

# Power iteration stops when lambda moves by less than 1e-4 of itself; the gap ratio here is about .7.
CLOSE = 1e-3


@pytest.mark.parametrize(("loss", "scale"), [("half-sum", 1.0), ("half-mean", 1 / 10), ("mean", 2 / 30)])
def test_on_a_linear_model_it_is_two_over_the_largest_eigenvalue(loss: str, scale: float) -> None:
    """A factor 2, n or K between the loss and its curvature."""
    x, y = data()
    largest = scale * float(torch.linalg.eigvalsh(x.T @ x)[-1])
    assert largest_stable_lr(linear(), x, y, loss=loss)[0] == pytest.approx(2 / largest, rel=CLOSE)
    heavy = largest_stable_lr(linear(), x, y, loss=loss, momentum=0.9)[0]
    assert heavy == pytest.approx(2 * 1.9 / largest, rel=CLOSE)


@pytest.mark.parametrize("name", ["one hidden", "resnet"])
def test_on_a_network_it_is_that_of_the_dense_hessian(name: str) -> None:
    """Second derivatives lost on the way through the batched or the vmapped route."""
    case = CASES[name]
    x, y = data(case.shape, n=4)
    models = [case.build(seed) for seed in range(2)]
    found = largest_stable_lr(Ensemble(models), x, y, tol=1e-7, max_products=2000)
    for s, model in enumerate(models):
        params = {k: p.detach() for k, p in model.named_parameters()}
        sizes = [p.numel() for p in params.values()]

        def loss(flat: torch.Tensor, model=model, params=params, sizes=sizes) -> torch.Tensor:
            parts = flat.split(sizes)
            own = {k: part.view_as(p) for (k, p), part in zip(params.items(), parts, strict=True)}
            return (torch.func.functional_call(model, own, (x,)) - y).square().sum() / 2

        flat = torch.cat([p.flatten() for p in params.values()])
        largest = float(torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))[-1])
        assert found[s] == pytest.approx(2 / largest, rel=1e-3)


def test_a_stronger_downward_curvature_does_not_count() -> None:
    """The eigenvalue of largest size taken for the largest one."""

    class Saddle(torch.nn.Module):
        """Loss 1/2 (f - y)^2 with f = w1^2 - 3 w0^2 at w = 0: Hessian diag(6 y, -2 y)."""

        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.w[1] ** 2 - 3 * self.w[0] ** 2) * x

    x = torch.ones(1, 1, dtype=torch.float64)
    assert largest_stable_lr(Saddle(), x, x)[0] == pytest.approx(2 / 6, rel=CLOSE)
    # y = -1: Hessian diag(-6, 2).
    assert largest_stable_lr(Saddle(), x, -x)[0] == pytest.approx(2 / 2, rel=CLOSE)


def test_a_flat_loss_has_no_limit() -> None:
    """A division by zero."""
    x, y = data()
    assert math.isinf(largest_stable_lr(linear(), 0 * x, y)[0])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_nine_tenths_of_it_converges_and_eleven_tenths_diverges(momentum: float) -> None:
    """A limit that is off by the momentum factor, or not a limit at all."""
    x, y = data(n=20)
    x = x @ torch.diag(torch.tensor([2.0, 1, 1, 1, 0.8], dtype=torch.float64))
    limit = float(largest_stable_lr(linear(), x, y, momentum=momentum)[0])
    best = float((x @ torch.linalg.lstsq(x, y).solution - y).square().sum() / 2)
    stable = list(train(linear(), x, y, lr=0.9 * limit, momentum=momentum, steps=600))
    assert stable[-1].status == "done"
    assert stable[-1].values["loss"][0] == pytest.approx(best, rel=1e-8)
    unstable = list(train(linear(), x, y, lr=1.1 * limit, momentum=momentum, steps=5000))
    assert unstable[-1].status == "diverged"
    assert f"the largest stable learning rate at the start is about {limit:.2g}" in unstable[-1].note


def test_a_diverged_run_ends_with_the_last_good_values_and_weights() -> None:
    """NaN in the last frame and in the network that the person goes on with."""
    x, y = data()
    model = linear()
    kept: list[np.ndarray] = []
    measure = {"w": lambda ensemble: ensemble.weights()["layers.0.weight"]}
    frames = list(train(model, x, y, lr=10.0, steps=500, measure=measure, measure_at=1))
    kept = [frame.values["w"] for frame in frames]
    assert frames[-1].status == "diverged" and frames[-1].step < 20
    assert np.array_equal(frames[-1].values["loss"], frames[-2].values["loss"])
    assert np.isfinite(kept[-1]).all() and np.array_equal(model.layers[0].weight.detach(), kept[-1][0])
    assert f"Values and weights are those of step {frames[-2].step}" in frames[-1].note


def test_an_ensemble_says_which_copy_diverged() -> None:
    """Sixteen seeds searched by hand."""
    x, y = data()
    frames = list(train(Ensemble([linear(seed=s) for s in range(3)]), [x, 100 * x, x], y, lr=0.01, steps=50))
    assert frames[-1].status == "diverged" and "diverged in copy 1 of 3 (seed 1) at step" in frames[-1].note


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["x", "y"])
@pytest.mark.parametrize("size", [1, 2])
def test_nan_in_the_data_is_a_diverged_run_and_no_traceback(which: str, bad: float, size: int) -> None:
    """A traceback from the middle of a linear-algebra routine; or a learning rate blamed for it."""
    given = dict(zip("xy", data(), strict=True))
    given[which][3, 0] = bad
    models = [linear(seed=s) for s in range(size)]
    (frame,) = train(models[0] if size == 1 else Ensemble(models), **given, lr=1e-3, steps=10)
    assert frame.status == "diverged" and not frame.is_tick
    assert f"{which} holds NaN or infinite numbers" in frame.note


def test_weights_that_are_nan_at_the_start_are_named() -> None:
    """The learning rate blamed for a broken checkpoint."""
    model = linear()
    with torch.no_grad():
        model.layers[0].weight[0, 0] = math.nan
    (frame,) = train(model, *data(), lr=1e-3, steps=10)
    assert frame.status == "diverged" and "started with NaN or infinite weights" in frame.note


def test_minibatch_and_adam_runs_get_advice_of_their_own() -> None:
    """The full-batch limit given to a run on minibatches, where it is another."""
    x, y = data(n=40)
    frames = list(train(linear(), x, y, lr=3.0, epochs=50, batch_size=8))
    assert frames[-1].status == "diverged" and "at the start, for one batch is about" in frames[-1].note
    frames = list(train(linear(), x, y, lr=1e7, steps=500, optimizer="adam"))
    assert frames[-1].status == "diverged" and "too large for Adam" in frames[-1].note


def test_closing_while_advice_is_sought_leaves_the_last_good_weights() -> None:
    """A person who presses Stop in that second goes on with the weights of the start, or with NaN."""
    case = CASES["one hidden"]
    x, y = data()
    model = case.build(0)
    frames = train(model, x, y, lr=5.0, steps=500, measure_at=1, tick_seconds=1e-9)
    good: list[torch.Tensor] = []
    for frame in frames:
        if frame.is_tick:
            break
        good = [model.W.detach().clone()]
    frames.close()
    assert frame.is_tick and frame.status == "running"
    assert torch.equal(model.W, good[0])
