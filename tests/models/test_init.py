"""Initialisations: their variance, and what a seed fixes."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from labkit.models import INITS, initialize, mlp, one_hidden, resnet20

# (rows b, columns a) -> variance of one weight
VARIANCES: dict[str, Callable[[int, int], float]] = {
    "glorot": lambda b, a: 2 / (a + b),
    "glorot-normal": lambda b, a: 2 / (a + b),
    "lecun": lambda b, a: 1 / a,
    "he": lambda b, a: 2 / a,
    "standard": lambda b, a: 1.0,
    "inverse-sqrt-width": lambda b, a: 1 / 300,
    "orthogonal": lambda b, a: 1 / max(a, b),
}
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "mlp": lambda **how: mlp(6, 7, 2, 3, **how),
    "one hidden": lambda **how: one_hidden(6, 8, 3, **how),
    "one hidden, gaussian": lambda **how: one_hidden(6, 8, 3, readout="gaussian", **how),
    "resnet": lambda **how: resnet20(3, 1, width=2, blocks=1, **how),
}


def test_every_initialisation_has_a_stated_variance() -> None:
    """An initialisation that no test looks at."""
    assert set(VARIANCES) == set(INITS)


@pytest.mark.parametrize("init", INITS)
def test_weights_have_the_stated_variance(init: str) -> None:
    """A standard deviation where the paper means a variance, or fan-in for fan-out."""
    for weight in (layer.weight.detach() for layer in mlp(400, 300, 2, 100, init=init).layers):
        found = float(weight.square().mean()) / VARIANCES[init](*weight.shape)
        # At least 30,000 entries: the mean square has a relative sd of sqrt(2 / 30000) = .008; four of them.
        assert found == pytest.approx(1, abs=0.033)
        assert abs(float(weight.mean())) < 4 * math.sqrt(VARIANCES[init](*weight.shape) / weight.numel())


def test_glorot_is_uniform_and_glorot_normal_is_not() -> None:
    """Two names for one draw."""
    edge = math.sqrt(6 / 700)
    uniform, normal = (
        mlp(400, 300, 1, 2, init=init).layers[0].weight for init in ("glorot", "glorot-normal")
    )
    assert 0.999 * edge < float(uniform.detach().abs().max()) <= edge < float(normal.detach().abs().max())


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5)])
def test_orthogonal_weights_are_orthonormal(shape: tuple[int, int]) -> None:
    """The transpose forgotten for wide layers."""
    layer = nn.utils.skip_init(nn.Linear, shape[1], shape[0], dtype=torch.float64)
    W = initialize(layer, "orthogonal", torch.Generator().manual_seed(0)).weight.detach()
    gram = W @ W.T if shape[0] <= shape[1] else W.T @ W
    assert torch.allclose(gram, torch.eye(min(shape), dtype=torch.float64), atol=1e-12)


def test_convolutions_count_their_receptive_field() -> None:
    """Fan-in of a convolution taken as its channels: nine times the variance."""
    conv = nn.utils.skip_init(nn.Conv2d, 40, 50, 3)
    weight = initialize(conv, "he", torch.Generator().manual_seed(0)).weight.detach()
    assert float(weight.square().mean()) == pytest.approx(2 / (40 * 9), rel=0.05)
    assert not conv.bias.any()


def test_norm_layers_become_the_identity() -> None:
    """Norm weights drawn like a layer's."""
    model = nn.Sequential(nn.utils.skip_init(nn.Linear, 4, 4), nn.BatchNorm1d(4))
    nn.init.constant_(model[1].weight, 3.0)
    initialize(model, "he", torch.Generator().manual_seed(0))
    assert torch.equal(model[1].weight, torch.ones(4)) and not model[1].bias.any()


@pytest.mark.parametrize("name", BUILDERS)
def test_a_seed_gives_the_same_weights_in_float32_and_float64(name: str) -> None:
    """A theorem checked on another network than the one that is trained."""
    single, double = (BUILDERS[name](seed=5, dtype=dtype) for dtype in (torch.float32, torch.float64))
    for key, value in double.state_dict().items():
        assert torch.equal(single.state_dict()[key], value.float())


@pytest.mark.parametrize("name", BUILDERS)
def test_seeds_differ_and_repeat(name: str) -> None:
    """A seed that is ignored, or a second draw that goes on where the first ended."""
    first, again, other = (next(BUILDERS[name](seed=seed).parameters()) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_global_generator_is_left_alone(name: str) -> None:
    """A layer's own constructor drawing from torch's generator."""
    before = torch.get_rng_state()
    BUILDERS[name](seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_a_narrow_network_is_no_corner_of_a_wide_one() -> None:
    """Widths that share their numbers: a slope over widths would have hidden correlations."""
    narrow, wide = (one_hidden(50, width, 2, dtype=torch.float64).W.detach() for width in (40, 80))
    overlap = torch.corrcoef(torch.stack([narrow.flatten(), wide[:40].flatten()]))[0, 1]
    # 2,000 pairs of independent numbers: sd .022.
    assert abs(float(overlap)) < 0.09


def test_data_of_the_same_seed_are_not_the_weights() -> None:
    """x = torch.randn(seed 0) equal to W of seed 0."""
    x = torch.randn(40, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    W = one_hidden(50, 40, 2, seed=0, dtype=torch.float64).W.detach()
    assert abs(float(torch.corrcoef(torch.stack([x.flatten(), W.flatten()]))[0, 1])) < 0.09


def test_inverse_sqrt_width_is_refused_where_there_is_no_one_width() -> None:
    """A width guessed for a convolutional or a conical network."""
    for module in (
        resnet20(width=2, blocks=1),
        nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)),
    ):
        with pytest.raises(ValueError, match=r"'inverse-sqrt-width' is for fully connected.*take 'lecun'"):
            initialize(module, "inverse-sqrt-width", torch.Generator())


def test_modules_with_other_parameters_are_refused_by_name() -> None:
    """An embedding or W of (1.1) left as it was, silently."""
    with pytest.raises(ValueError, match=r"module: holds 0 \(Embedding\)"):
        initialize(nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 2)), "he", torch.Generator())
    with pytest.raises(ValueError, match="module: holds no weights"):
        initialize(nn.ReLU(), "he", torch.Generator())
