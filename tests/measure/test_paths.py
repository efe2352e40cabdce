"""Path norms, against sums over all paths, one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from labkit.measure.paths import path_norm, path_norms
from labkit.models import fold_batch_norm, mlp, rescale_nodes, vgg
from tests.measure.conftest import drawn, generator
from tests.peers import torchvision


def paths(matrices: list[Tensor]) -> Iterator[tuple[int, float]]:
    """(output unit, product of weights) of every path with no zero weight on it, input side first."""

    def follow(unit: int, level: int, product: float) -> Iterator[tuple[int, float]]:
        if level == len(matrices):
            yield unit, product
            return
        column = matrices[level][:, unit].tolist()
        for above, weight in enumerate(column):
            if weight:
                yield from follow(above, level + 1, product * weight)

    for unit in range(matrices[0].shape[1]):
        yield from follow(unit, 0, 1.0)


def brute_force(matrices: list[Tensor], p: float) -> Tensor:
    sums = torch.zeros(matrices[-1].shape[0], dtype=torch.float64)
    for unit, product in paths(matrices):
        sums[unit] += abs(product) ** p
    return sums


def with_biases(matrices: list[Tensor], biases: list[Tensor]) -> list[Tensor]:
    """One more unit in each layer but the last, always 1."""
    found = []
    for level, (W, b) in enumerate(zip(matrices, biases, strict=True)):
        wide = torch.cat([W, b[:, None]], dim=1)
        one = torch.zeros(1, wide.shape[1], dtype=W.dtype)
        one[0, -1] = 1
        found.append(wide if level == len(matrices) - 1 else torch.cat([wide, one]))
    return found


def pooled(shape: tuple, kernel: int, stride: int, padding: int, kind: str, pad: bool = True) -> Tensor:
    """A pool as a matrix, window by window: 1 for each entry of a max, 1/count for a mean."""
    C, H, W = shape
    tall, wide = ((side + 2 * padding - kernel) // stride + 1 for side in (H, W))
    M = torch.zeros(C * tall * wide, C * H * W, dtype=torch.float64)
    for c, i, j in itertools.product(range(C), range(tall), range(wide)):
        places = [
            (c * H + y) * W + x
            for y in range(i * stride - padding, i * stride - padding + kernel)
            for x in range(j * stride - padding, j * stride - padding + kernel)
            if 0 <= y < H and 0 <= x < W
        ]
        count = kernel**2 if pad else len(places)
        M[(c * tall + i) * wide + j, places] = 1.0 if kind == "max" else 1.0 / count
    return M


def adaptive(shape: tuple, out: int, kind: str) -> Tensor:
    C, H, W = shape
    M = torch.zeros(C * out * out, C * H * W, dtype=torch.float64)
    for c, i, j in itertools.product(range(C), range(out), range(out)):
        rows = range(i * H // out, math.ceil((i + 1) * H / out))
        columns = range(j * W // out, math.ceil((j + 1) * W / out))
        places = [(c * H + y) * W + x for y in rows for x in columns]
        M[(c * out + i) * out + j, places] = 1.0 if kind == "max" else 1.0 / len(places)
    return M


def unrolled(model: nn.Sequential, shape: tuple) -> tuple[list[Tensor], list[Tensor]]:
    """The dense matrices and biases of a chain, each built entry by entry or by unit images."""
    matrices, biases = [], []
    for part in model:
        bias = None
        size = math.prod(shape)
        images = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
        if isinstance(part, nn.Linear):
            M, bias, after = part.weight.detach(), part.bias, (part.out_features,)
        elif isinstance(part, nn.Conv2d):
            out = F.conv2d(
                images, part.weight.detach(), None, part.stride, part.padding, part.dilation, part.groups
            )
            M, after = out.reshape(size, -1).T, tuple(out.shape[1:])
            bias = None if part.bias is None else part.bias.repeat_interleave(math.prod(after[1:]))
        elif isinstance(part, nn.MaxPool2d | nn.AvgPool2d):
            kind = "max" if isinstance(part, nn.MaxPool2d) else "average"
            pad = getattr(part, "count_include_pad", True)
            M = pooled(shape, part.kernel_size, part.stride, part.padding, kind, pad)
            after = tuple(part(torch.zeros(1, *shape)).shape[1:])
        elif isinstance(part, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            kind = "max" if isinstance(part, nn.AdaptiveMaxPool2d) else "average"
            M, after = adaptive(shape, part.output_size, kind), (shape[0], part.output_size, part.output_size)
        else:
            if isinstance(part, nn.Flatten):
                shape = (size,)
            continue
        matrices.append(M)
        biases.append(torch.zeros(len(M), dtype=torch.float64) if bias is None else bias.detach())
        shape = after
    return matrices, biases


def conv(*parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(*parts)


CHAINS = {
    "dense": (lambda: conv(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 3)), (3,)),
    "one layer": (lambda: conv(nn.Linear(3, 2)), (3,)),
    "one unit a layer": (lambda: conv(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)), (1,)),
    "stride and padding": (
        lambda: conv(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)),
        (1, 5, 4),
    ),
    "groups and dilation": (
        lambda: conv(nn.Conv2d(2, 4, 2, dilation=2, groups=2, bias=False), nn.ReLU(), nn.Conv2d(4, 1, 2)),
        (2, 4, 4),
    ),
    "max pool": (
        lambda: conv(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)),
        (1, 5, 5),
    ),
    "overlapping max pool": (
        lambda: conv(nn.Conv2d(1, 1, 2), nn.MaxPool2d(3, 1, padding=1), nn.Flatten(), nn.Linear(9, 2)),
        (1, 4, 4),
    ),
    "average pool": (
        lambda: conv(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 2)),
        (1, 5, 5),
    ),
    "average with padding": (
        lambda: conv(nn.Conv2d(1, 1, 2), nn.AvgPool2d(3, 2, 1), nn.Flatten(), nn.Linear(4, 2)),
        (1, 4, 4),
    ),
    "average without padding": (
        lambda: conv(nn.Conv2d(1, 1, 2), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Flatten()),
        (1, 4, 4),
    ),
    "adaptive average": (
        lambda: conv(nn.Conv2d(1, 2, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 2)),
        (1, 4, 4),
    ),
    "adaptive max": (
        lambda: conv(nn.Conv2d(1, 1, 2), nn.AdaptiveMaxPool2d(2), nn.Dropout(), nn.Flatten()),
        (1, 4, 4),
    ),
    "pool first": (
        lambda: conv(nn.AvgPool2d(2, 2, 0), nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2)),
        (1, 4, 4),
    ),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("p", [1, 2, 1.5])
def test_one_pass_equals_the_sum_over_paths(name: str, p: float) -> None:
    """Signs kept, a root taken, padding counted, a pool's window passed on once."""
    build, shape = CHAINS[name]
    model = drawn(build())
    matrices, biases = unrolled(model, shape)
    x = torch.zeros(1, *shape, dtype=torch.float64)
    expected = brute_force(matrices, p)
    assert torch.allclose(path_norms(model, x, p), expected, rtol=1e-12)
    assert math.isclose(float(path_norm(model, x, p)), float(expected.sum()), rel_tol=1e-12)
    augmented = brute_force(with_biases(matrices, biases), p)
    assert torch.allclose(path_norms(model, x, p, biases=True), augmented, rtol=1e-12)


class Block(nn.Module):
    """Two branches, one of them through a part."""

    def __init__(self, part: nn.Module, join) -> None:
        super().__init__()
        self.part, self.join = part, join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.part(x))


def plus(x: Tensor, z: Tensor) -> Tensor:
    z += x
    return z


def beside(x: Tensor, z: Tensor) -> Tensor:
    return torch.cat([x, z], 1)


class Shuffled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return torch.stack([second, 0.5 * first], 2).flatten(1, 2)


def part_of(kind: str, channels: int) -> nn.Module:
    return {
        "conv": lambda: nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        "depthwise": lambda: nn.Conv2d(channels, channels, 2, padding=1, groups=channels, bias=False),
        "transposed": lambda: nn.ConvTranspose2d(channels, 2, 2, stride=2, bias=False),
        "relu": lambda: nn.ReLU(inplace=True),
        "leaky": lambda: nn.LeakyReLU(0.1),
        "max": lambda: nn.MaxPool2d(2, ceil_mode=True),
        "dilated max": lambda: nn.MaxPool2d(2, 1, padding=1, dilation=2),
        "average": lambda: nn.AvgPool2d(2, padding=1, ceil_mode=True, count_include_pad=False),
        "shuffled": Shuffled,
        "skip": lambda: Block(
            nn.Sequential(part_of("conv", channels), nn.ReLU(True), part_of("conv", channels)), plus
        ),
        "dense": lambda: Block(nn.Sequential(nn.ReLU(), part_of("conv", channels)), beside),
    }[kind]()


def matrix(part: nn.Module, shape: tuple[int, ...], p: float) -> Tensor:
    """What paths do in a part, from its answers to unit images; branches by block matrices."""
    size = math.prod(shape)
    eye = torch.eye(size, dtype=torch.float64)
    if isinstance(part, nn.Sequential):
        M = eye
        for one in part:
            M, shape = (
                matrix(one, shape, p) @ M,
                tuple(one(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:]),
            )
        return M
    if isinstance(part, Block):
        through = matrix(part.part, shape, p)
        return eye + through if part.join is plus else torch.cat([eye, through])
    # A ReLU or a leaky one passes units on as they are, a max pool gives 1 for each place that holds one.
    return part(eye.reshape(size, *shape)).detach().reshape(size, -1).T.abs() ** p


@settings(deadline=None)
@given(
    kinds=st.lists(
        st.sampled_from(["conv", "depthwise", "transposed", "relu", "leaky", "max", "dilated max", "average",
                         "shuffled", "skip", "dense"]),
        max_size=5,
    ),
    p=st.sampled_from([1.0, 1.5, 2.0]),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_one_pass_equals_products_of_matrices_in_networks_with_branches(
    kinds: list, p: float, seed: int
) -> None:
    """A branch counted once, or its carried value written over in place; windows that hang over an edge."""
    channels, parts = 2, [nn.Conv2d(1, 2, 1, bias=False)]
    for kind in kinds:
        parts.append(part_of(kind, channels))
        channels = 2 * channels if kind == "dense" else channels
        if channels > 4:
            parts.append(nn.Conv2d(channels, 2, 1, bias=False))
            channels = 2
        channels = 2 if kind == "transposed" else channels
    model, shape = drawn(nn.Sequential(*parts), seed), (1, 3, 3)
    expected = matrix(model, shape, p).sum(1)
    assume(bool(expected.isfinite().all()))  # a dilated window on one pixel holds nothing
    found = path_norms(model, torch.zeros(1, *shape, dtype=torch.float64), p)
    assert torch.allclose(found, expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "regnet_x_400mf"])
def test_torchvisions_networks_are_their_own_absolute_networks(name: str) -> None:
    """Weights replaced by their absolute values and a max by a sum: then paths are what a unit puts out."""
    model = fold_batch_norm(drawn(getattr(torchvision().models, name)()), torch.zeros(2, 3, 32, 32))
    x = torch.ones(1, 3, 32, 32, dtype=torch.float64)
    found = path_norms(model, x, 1)
    for part in list(model.modules()):
        for child, inner in part.named_children():
            if isinstance(inner, nn.MaxPool2d):
                setattr(part, child, nn.AvgPool2d(3, 2, 1, divisor_override=1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_() if parameter.ndim > 1 else parameter.zero_()
        assert torch.allclose(found, model(x)[0], rtol=1e-11)


def test_a_parameter_added_or_multiplied_by_hand_is_a_bias_or_a_weight() -> None:
    """V phi(W x + b) of a network without modules; a gain that paths do not see."""
    gain = nn.Parameter(torch.tensor([[-2.0, 3.0]], dtype=torch.float64))
    W = nn.Parameter(torch.tensor([[1.0], [-4.0]], dtype=torch.float64))

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain, self.W = gain, W

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x @ self.W.T + 0.5) * self.gain

    x = torch.ones(1, 1, dtype=torch.float64)
    assert path_norms(Own(), x, 2).tolist() == [4.0, 9.0 * 16]
    assert path_norms(Own(), x, 1, biases=True).tolist() == [2 * 1.5, 3 * 4.5]


def test_the_exercises_example() -> None:
    """6 and 14, by hand."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 3.0]]))
        model[2].weight.fill_(1.0)
    x = torch.zeros(1, 2)
    assert float(path_norm(model, x, 1)) == 6.0 and float(path_norm(model, x, 2)) == 14.0


@given(seed=st.integers(0, 10**6), depth=st.integers(1, 4))
def test_rescaling_leaves_path_norms(seed: int, depth: int) -> None:
    """An input or an output weight that the pass leaves out."""
    model = drawn(mlp(6, 40, depth, 3), seed)
    same = rescale_nodes(model, generator=generator(seed), low=1e-3, high=1e3)
    x = torch.zeros(1, 6)
    for p in (1, 2):
        for biases in (False, True):
            before, after = (path_norms(m, x, p, biases=biases) for m in (model, same))
            assert torch.allclose(after, before, rtol=1e-10)


def test_rescaling_leaves_path_norms_of_a_vgg() -> None:
    """Max pools counted in a way that a channel's factor does not pass through."""
    model = fold_batch_norm(drawn(vgg(10, 1, size=8, width=2)))
    same = rescale_nodes(model, generator=generator(1), low=1e-2, high=1e2)
    x = torch.zeros(1, 1, 8, 8)
    for p in (1, 2):
        assert torch.allclose(path_norms(same, x, p), path_norms(model, x, p), rtol=1e-10)


def test_a_global_scale_has_degree_p_times_depth() -> None:
    """A layer left out of the product."""
    model = drawn(mlp(4, 5, 2, 3, bias=False))
    x = torch.zeros(1, 4)
    before = float(path_norm(model, x, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    assert math.isclose(float(path_norm(model, x, 2)), 2 ** (2 * 3) * before, rel_tol=1e-12)


def test_the_result_is_a_float64_number_and_the_model_stays() -> None:
    """Absolute values left in the weights."""
    model = mlp(4, 5, 1, 3)
    before = model.layers[0].weight.detach().clone()
    found = path_norm(model, torch.zeros(1, 4), 1)
    assert found.shape == () and found.dtype == torch.float64 and not found.requires_grad
    assert torch.equal(model.layers[0].weight, before)


def test_an_output_scale_scales_every_path() -> None:
    """The constant of paper 4's networks forgotten, or not raised to p."""
    plain, scaled = (
        mlp(4, 5, 1, 3, dtype=torch.float64),
        mlp(4, 5, 1, 3, output_scale=0.1, dtype=torch.float64),
    )
    x = torch.zeros(1, 4)
    assert math.isclose(float(path_norm(scaled, x, 2)), 0.01 * float(path_norm(plain, x, 2)), rel_tol=1e-12)


@pytest.mark.parametrize(
    ("model", "p", "message"),
    [
        (mlp(3, 4, 1, 2), 0.5, "p: got 0.5; it takes 1, 2 or another number of at least 1"),
        (mlp(3, 4, 1, 2, activation="tanh"), 1, r"tanh\(\) is not positively homogeneous.*no path norm"),
        (
            nn.Sequential(nn.Linear(3, 2), nn.ReLU6()),
            1,
            r"hardtanh\(\) is not positively .* \(in ReLU6 '1'\)",
        ),
        (
            nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)),
            1,
            r"layer_norm\(\) divides by .* \(in LayerNorm '1'\)",
        ),
        (Block(nn.Linear(3, 3), torch.mul), 1, r"mul\(\) multiplies two branches, a gate"),
        (Block(nn.Linear(3, 3), torch.sub), 1, r"sub\(\) takes a difference"),
    ],
)
def test_bad_arguments_are_named(model: nn.Module, p: float, message: str) -> None:
    """A path norm of a network whose units do not pass a path on."""
    with pytest.raises(ValueError, match=message):
        path_norm(model, torch.zeros(1, 3), p)
