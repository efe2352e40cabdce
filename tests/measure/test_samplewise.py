"""Which graphs prove that samples do not meet; and that others are still held to a backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import measure, models
from labkit.measure.functional import Network
from labkit.measure.samplewise import samplewise
from labkit.measure.structure import Tapped

from .conftest import assert_close
from .test_strangers import made, module, numbers, twin

# As many samples as features, so that no shape tells one axis from the other.
N = 5
X = numbers(N, 6)
W, V, SQUARE = (nn.Parameter(numbers(*shape, seed=2)) for shape in ((N, 6), (N, N), (N, N)))
CLASSES = torch.zeros(N, dtype=torch.long)

APART: dict[str, Callable[[Tensor], Tensor]] = {
    "entries": lambda h: F.gelu(h.tanh() * h + 1).relu() / 2,
    "a parameter a place": lambda h: h + V,
    "softmax": lambda h: h.softmax(-1) * h.mean(1, keepdim=True),
    "axes moved within": lambda h: h.unsqueeze(1).transpose(1, 2).flatten(1).view(N, -1, 1).squeeze(),
    "cut and joined": lambda h: torch.cat([h[:, 1:], h[:, :1]], 1).sum(1),
    "a product": lambda h: F.layer_norm(h @ SQUARE, (N,)),
    "a loss": lambda h: F.cross_entropy(h, CLASSES, reduction="none")[:, None],
    "padded": lambda h: F.pad(h, (1, 0)),
}
TOGETHER: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda h: h - h.mean(0),
    "softmax": lambda h: h.softmax(0),
    "softmax, counted from the end": lambda h: h.softmax(-2),
    "scan": lambda h: h.cumsum(0),
    "reversed": lambda h: h.flip(0),
    "shifted": lambda h: F.pad(h, (0, 0, 1, -1)),
    "transposed": lambda h: h.T,
    "permuted": lambda h: h.permute(1, 0).relu(),
    "mixed by a parameter": lambda h: SQUARE @ h,
    "attention": lambda h: h @ h.T,
    "broadcast": lambda h: h + h[:, 0],
    "by numbers": lambda h: h[torch.arange(N).flip(0)],
    "a sum for all": lambda h: h + h.sum(0),
    "normalised together": lambda h: F.layer_norm(h, (N, N)),
    "batch statistics": lambda h: F.batch_norm(h, None, None, training=True),
    "samples as channels": lambda h: F.conv1d(h[None], V[:, :, None])[0],
    "one norm": lambda h: h / h.norm(),
    "spread": lambda h: h[:, 0].expand(N, N),
    "stacked": lambda h: torch.stack([h[i] for i in range(N)]),
    "one number": lambda h: h.sum(),
}


@pytest.mark.parametrize("name", APART)
def test_what_keeps_samples_apart_is_proved(name: str) -> None:
    """A pass spent on what the graph tells; each is in truth apart, by its derivative."""
    x = X.clone().requires_grad_()
    y = APART[name](F.linear(x, W))
    assert samplewise(y) and samplewise(y, x)
    J = torch.autograd.functional.jacobian(lambda x: APART[name](F.linear(x, W)).view(N, -1).cos().sum(1), x)
    across = ~torch.eye(N, dtype=torch.bool)
    assert J.any() and not J[across].any()


@pytest.mark.parametrize("name", TOGETHER)
def test_what_mixes_samples_is_not(name: str) -> None:
    """Wrong gradients without a word, for an axis taken for another."""
    x = X.clone().requires_grad_()
    y = TOGETHER[name](F.linear(x, W))
    assert y.ndim == 0 or not samplewise(y)


def test_samples_that_are_mixed_before_any_layer_are_seen_from_the_leaf_they_are() -> None:
    """x taken for a parameter, of which every view is harmless."""
    x = numbers(N, N).requires_grad_()
    for mixed in (x - x.mean(0), x.T @ SQUARE, x.flip(0), x.reshape(-1).view(N, N).T.relu()):
        assert not samplewise(mixed, x)
    assert samplewise(F.linear(x.clone(), SQUARE), x)


def test_networks_of_the_labs_are_proved() -> None:
    """An operation that the table does not know, and a second pass for every measure of these."""
    images, vectors = numbers(3, 3, 8, 8), numbers(3, 6)
    for model, x in (
        (models.mlp(6, 5, 2, 3, dtype=torch.float64), vectors),
        (models.resnet20(10, 3, width=4, dtype=torch.float64), images),
        (models.resnet20(10, 3, width=4, batch_norm=True, dtype=torch.float64).eval(), images),
    ):
        run = Tapped(Network(model, x), x)
        assert run.proved(run.backpropagations())


# What a graph does not show.


def hung_in(self: Any, x: Tensor) -> Tensor:
    """Hands back a gradient from which the mean over samples was taken."""
    h = self.first(x).tanh()
    if h.requires_grad:
        h.register_hook(lambda g: g - g.mean(0))
    return self.last(h)


def overwritten(self: Any, x: Tensor) -> Tensor:
    """Writes into a layer's input when the layer has been passed."""
    h = self.first(x)
    y = self.last(h)
    h.mul_(2)
    return y


def unwatched(self: Any, x: Tensor) -> Tensor:
    """A layer that is tapped where nothing comes of it, and used where no tap is."""
    self.first(x)
    return self.last(torch.addmm(self.first.bias, x, self.first.weight.T).tanh())


def layers(forward: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    return made(lambda: module(forward, first=nn.Linear(4, 5), last=nn.Linear(5, 3)))


def images(forward: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    parts = {"first": nn.Conv2d(1, 2, 1), "last": nn.Conv2d(2, 3, 2)}
    return made(lambda: nn.Sequential(nn.Unflatten(1, (1, 2, 2)), module(forward, **parts), nn.Flatten()))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: layers(hung_in), "derivative by parameter 'first"),
        (lambda: layers(overwritten), "cannot differentiate the model: .*inplace"),
        (lambda: images(overwritten).double(), "cannot differentiate the model: .*inplace"),
    ],
)
def test_what_a_graph_does_not_show_is_refused(build: Callable[[], nn.Module], words: str) -> None:
    """Gradients that a hook mixes; a layer's input that is another one by the time it is needed."""
    x, y = numbers(7, 4), torch.arange(7) % 3
    for call in (
        lambda: measure.gradient_gram(build(), x, y),
        lambda: measure.batch_gram(build(), x, y, [[0, 1], [2, 3]]),
        lambda: measure.jacobian(build(), x).gram(),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_a_layer_used_where_it_was_not_tapped_is_right() -> None:
    """Rows of zeros for a parameter that is read once, though not by its tap."""
    x = numbers(7, 4)
    D = twin(layers(unwatched), x)
    J = measure.jacobian(layers(unwatched), x)
    assert_close(J.dense(), D)
    assert_close(J.gram(), D @ D.T)
