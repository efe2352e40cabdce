"""The public measures, each as a route from a generated model to what its dense twin gives as well."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import labkit
from labkit import measure

from .models import DTYPES, Spec, as_function, build, inputs
from .twins import Twin, log_cosh, loss_at, loss_gradients, plainly, targets, twin

Pairs = Iterator[tuple[Any, Any]]


@dataclass(frozen=True, eq=False)
class Case:
    """A spec with its model, its inputs and what is true of it."""

    spec: Spec
    model: nn.Module
    x: Tensor
    y: Tensor
    true: Twin

    @property
    def how(self) -> dict[str, Any]:
        """Arguments that all measures of outputs take."""
        free = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        params = {"params": free} if self.spec.setting == "function" else {}
        return {**params, "memory": self.spec.memory}

    @property
    def given(self) -> Any:
        return as_function(self.model) if self.spec.setting == "function" else self.model

    @property
    def loss(self) -> Any:
        return log_cosh if self.spec.loss == "log cosh" else self.spec.loss

    @cached_property
    def own_warnings(self) -> set[str]:
        """What the model says of itself in plain passes, with gradients and without."""
        with plainly(), torch.random.fork_rng(), warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            for grad in (False, True):
                with torch.set_grad_enabled(grad):
                    build(self.spec)(self.x.detach().clone())
            twin(self.spec)
        return {str(w.message)[:200] for w in heard}

    def random(self, *shape: int) -> Tensor:
        source = torch.Generator().manual_seed(300 + self.spec.seed)
        drawn = torch.randn(shape, generator=source, dtype=torch.float64)
        return drawn.to(DTYPES[self.spec.dtype])

    @property
    def gradients(self) -> Tensor:
        """(n, p), of each sample's loss."""
        return loss_gradients(self.spec, self.true, self.y)


def made(spec: Spec) -> Case:
    true = twin(spec)
    if not bool(twin(spec, dtype=DTYPES[spec.dtype]).outputs.isfinite().all()):
        true = replace(true, excuse="not finite")
    x = inputs(spec)
    if spec.setting == "x requires grad" and x.is_floating_point():
        x.requires_grad_()
    model = build(spec)
    first = next(p for p in model.parameters() if p.requires_grad)
    first.grad = torch.ones_like(first)
    return Case(spec, model, x, targets(spec, true.shape), true)


def by_products(route: str) -> Callable[[Case], Pairs]:
    """J, J v, J^T u one column and several, and the Gram matrix, by one route of `jacobian`."""

    def check(case: Case) -> Pairs:
        J, true = labkit.jacobian(case.given, case.x, **case.how, route=route), case.true.J
        assert J.shape == true.shape, f"J is {J.shape}, should be {tuple(true.shape)}"
        V, U = case.random(J.shape[1], 3), case.random(J.shape[0], 2)
        yield J.matmat(V[:, 0]), true @ V[:, 0].double()
        yield J.rmatmat(U[:, 0]), true.T @ U[:, 0].double()
        yield J.matmat(V), true @ V.double()
        yield J.rmatmat(U), true.T @ U.double()
        yield J.gram(), true @ true.T
        yield J.dense(), true

    return check


def kernel(case: Case) -> Pairs:
    J, shape = case.true.J, (case.spec.n, case.true.K)
    yield labkit.empirical_ntk(case.given, case.x, **case.how), (J @ J.T).view(*shape, *shape)


def kernel_of_two(case: Case) -> Pairs:
    with plainly():
        other = inputs(case.spec, seed=150)
    J, J2 = case.true.J, twin(case.spec, other).J
    shape = (case.spec.n, case.true.K)
    yield labkit.empirical_ntk(case.given, case.x, other, **case.how), (J @ J2.T).view(*shape, *shape)


def singular_values(case: Case) -> Pairs:
    J = labkit.jacobian(case.given, case.x, **case.how, route="products")
    # Squares: by the Gram matrix a value is right to rounding of the first one's square.
    yield labkit.singular_values(J).square(), torch.linalg.svdvals(case.true.J).square()


def leading_values(case: Case) -> Pairs:
    J = labkit.jacobian(case.given, case.x, **case.how)
    top = labkit.svd(J, min(2, *J.shape), tol=1e-12)
    if bool(top.converged.all()) and top.complete:
        yield top.s.square(), torch.linalg.svdvals(case.true.J)[: top.k].square()
        yield top.U * top.s, case.true.J @ top.V.double()


def gram_of_gradients(case: Case) -> Pairs:
    g = case.gradients
    yield measure.gradient_gram(case.given, case.x, case.y, loss=case.loss, **case.how), g @ g.T


def gradients_of_batches(case: Case) -> Pairs:
    how = {name: value for name, value in case.how.items() if name != "memory"}
    batches = [list(range(case.spec.n)), [case.spec.n - 1]]
    g = torch.stack([case.gradients[batch].mean(0) for batch in batches])
    found = measure.batch_gradients(
        case.given, case.x, case.y, batches, loss=case.loss, batch_statistics=False, **how
    )
    yield found, g


def gradients_of_samples(case: Case) -> Pairs:
    yield measure.sample_gradients(case.model, case.x, case.y, loss=case.loss), case.gradients


def worst_rise(case: Case) -> Pairs:
    """The rise at the perturbation that is reported is the one that is reported, and the box holds it."""
    found = measure.max_sharpness(case.model, case.x, case.y, loss=case.loss, alpha=0.01, steps=6)
    w = weights(case.model)
    nu = torch.cat([found.perturbation[name].double().reshape(-1) for name in case.true.names])
    rounding = torch.finfo(DTYPES[case.spec.dtype]).eps
    assert bool((nu.abs() <= 0.01 * (w.abs() + 1) * (1 + 4 * rounding)).all()), "outside of the box"
    start = loss_at(case.spec, w, case.y)
    yield number(found.loss), number(start)
    yield number(found.loss + found.value), number(loss_at(case.spec, w + nu, case.y))
    slope = case.gradients.mean(0) * (len(case.x) if case.spec.loss == "half-sum" else 1)
    # A step by the gradient's signs reaches first order; far less means that the gradient was another's.
    first_order = float((slope.abs() * 0.01 * (w.abs() + 1)).sum())
    at_corner = loss_at(case.spec, w + 0.01 * (w.abs() + 1) * slope.sign(), case.y) - start
    if at_corner > 0.5 * first_order and case.spec.dtype == "float64":
        assert found.value >= 0.3 * at_corner, f"rise {found.value:.3g}, a corner has {at_corner:.3g}"


def mean_rise(case: Case) -> Pairs:
    found = measure.expected_sharpness(
        case.model, case.x, case.y, loss=case.loss, alphas=[0.01], draws=2, generator=7
    )
    w, source = weights(case.model), torch.Generator().manual_seed(7)
    for draw in range(2):
        noise = torch.randn(w.shape, generator=source, dtype=DTYPES[case.spec.dtype]).double()
        moved = loss_at(case.spec, w + 0.01 * noise * (10 * w.abs() + 1), case.y)
        yield number(found.loss + float(found.values[0, draw])), number(moved)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().double().reshape(-1) for p in model.parameters() if p.requires_grad])


def _losses(case: Case) -> bool:
    """Squared losses take any outputs, class numbers K >= 2 of them; which of several is not said."""
    known = case.spec.outputs not in ("tuple", "dict")
    return known and (case.spec.loss != "cross-entropy" or (len(case.true.shape) == 1 and case.true.K > 1))


def _in_its_mode(case: Case) -> bool:
    """Minibatch gradients put batch norm into a mode of their own, whichever the model is in."""
    return _losses(case) and case.spec.setting != "training mode"


def _modules(case: Case) -> bool:
    """Measures that move a module's own parameters, by the names of losses."""
    return (
        case.spec.setting != "function"
        and case.spec.loss != "log cosh"
        and len(case.true.shape) == 1
        and _losses(case)
    )


def _precise(case: Case) -> bool:
    return case.spec.dtype != "bfloat16"


@dataclass(frozen=True)
class Route:
    """check: yields (found, expected). takes: whether the route is meant for the case."""

    check: Callable[[Case], Pairs]
    takes: Callable[[Case], bool] = lambda case: True


ROUTES: dict[str, Route] = {
    "jacobian": Route(by_products("auto")),
    "jacobian, stored": Route(by_products("stored")),
    "jacobian, products": Route(by_products("products")),
    "empirical_ntk": Route(kernel),
    "empirical_ntk of two": Route(kernel_of_two),
    "singular_values": Route(singular_values, _precise),
    "svd": Route(leading_values, _precise),
    "gradient_gram": Route(gram_of_gradients, _losses),
    "batch_gradients": Route(gradients_of_batches, _in_its_mode),
    "sample_gradients": Route(
        gradients_of_samples, lambda case: _modules(case) and case.spec.loss != "half-sum"
    ),
    "max_sharpness": Route(worst_rise, _modules),
    "expected_sharpness": Route(mean_rise, _modules),
}
