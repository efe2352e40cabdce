"""Data with a known law, held to that law."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.data import gaussian_mixture, linear_teacher, low_rank_linear, sphere

DOUBLE = torch.float64


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 1000))
def test_centres_have_norm_one_and_keep_their_distance(classes, clusters, each, seed):
    """Catches centres off the sphere, too near each other, or clusters of unequal size."""
    count = classes * clusters
    data = gaussian_mixture(
        classes, clusters, each * count, 6, 0.3, min_distance=0.5, seed=seed, dtype=DOUBLE
    )
    assert data.centers.shape == (count, 6)
    assert torch.allclose(data.centers.norm(dim=1), torch.ones(count, dtype=DOUBLE), atol=1e-14)
    assert torch.pdist(data.centers).min() >= 0.5 - 1e-12
    assert torch.bincount(data.cluster, minlength=count).tolist() == [each] * count
    assert torch.equal(data.y_train, data.cluster // clusters)


def test_without_noise_every_sample_is_its_centre():
    """Catches samples at another centre than the one recorded, which is what the rank K^2 C rests on."""
    data = gaussian_mixture(3, 5, 45, 20, 0.0, dtype=DOUBLE)
    assert torch.equal(data.x_train, data.centers[data.cluster])
    assert len(torch.unique(data.x_train, dim=0)) == 15


def test_deviations_have_variance_sigma_squared_over_d():
    """Catches noise of standard deviation sigma a coordinate: sqrt(d) too much."""
    data = gaussian_mixture(2, 2, 4000, 10, 0.7, dtype=DOUBLE)
    squares = (data.x_train - data.centers[data.cluster]).square().sum(1)
    # E = sigma^2, standard deviation of the mean sigma^2 sqrt(2 / d / n) = 0.0035.
    assert abs(float(squares.mean()) - 0.49) < 5 * 0.0035


def test_noise_scales_fixed_deviations_and_seeds_change_them():
    """Catches samples drawn anew when the noise moves, and a seed without effect."""
    one, two, other = (
        gaussian_mixture(2, 2, 8, 5, noise, seed=seed, dtype=DOUBLE)
        for noise, seed in ((1, 0), (2, 0), (1, 1))
    )
    deviation = one.x_train - one.centers[one.cluster]
    assert torch.allclose(two.x_train - two.centers[two.cluster], 2 * deviation)
    assert not torch.allclose(other.x_train, one.x_train)
    assert not torch.allclose(one.x_train, one.x_test)


def test_float32_and_float64_see_the_same_samples():
    """Catches draws in the dtype asked for, which differ between dtypes."""
    single, double = (gaussian_mixture(2, 2, 8, 5, 0.3, dtype=dtype) for dtype in (torch.float32, DOUBLE))
    assert torch.equal(single.x_train, double.x_train.float())


def test_a_centre_is_not_the_first_weights_of_a_network_with_that_seed():
    """Catches the plain seed in two places: centres and weights would then be the same Gaussian numbers."""
    first = torch.randn(5, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    data = gaussian_mixture(2, 2, 8, 5, 0.0, seed=0, dtype=DOUBLE)
    assert (data.centers @ (first / first.norm())).abs().max() < 0.999


def test_unbalanced_clusters_are_drawn_independently():
    """Catches equal sizes where Definition 2.4 draws the membership."""
    data = gaussian_mixture(2, 3, 601, 4, 0.1, n_test=0, balanced=False, min_distance=0.2)
    sizes = torch.bincount(data.cluster, minlength=6)
    assert data.n == 601 and data.n_test == 0
    assert len(set(sizes.tolist())) > 1 and (sizes - 100).abs().max() < 50


def test_a_mixture_keeps_its_clusters_and_centres_through_transformations():
    """Catches a cluster column that no longer fits the samples, or centres left in the old coordinates."""
    data = gaussian_mixture(3, 2, 60, 5, 0.0, dtype=DOUBLE)
    for changed in (
        data.subset(n_train=13, seed=3),
        data.subset(classes=[2, 0]),
        data.standardized(),
        data.unit_length(),
        data.with_label_noise(0.5),
        data.to(dtype=torch.float32),
        data.flattened(),
    ):
        assert type(changed) is type(data)
        assert torch.allclose(changed.x_train, changed.centers[changed.cluster], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dim": 2, "clusters": 10}, "min_distance=0.5: 20 unit vectors (classes * clusters) in dim=2"),
        ({"dim": 1}, "could not be placed"),
        ({"min_distance": 2.5}, "min_distance=2.5: takes a number from 0 to 2"),
        ({"n": 10}, "n=10: balanced clusters take a multiple of classes * clusters = 4. Use n=8"),
        ({"n_test": 3}, "n_test=3"),
        ({"noise": -0.1}, "noise=-0.1"),
        ({"noise": float("nan")}, "noise=nan"),
        ({"classes": 1}, "classes=1"),
        ({"clusters": 0}, "clusters=0"),
        ({"dim": 0}, "dim=0"),
        ({"seed": -1}, "seed=-1"),
        ({"dtype": torch.int32}, "dtype=torch.int32"),
    ],
)
def test_an_impossible_mixture_names_the_argument(change, says):
    """Catches an endless search for centres that cannot be placed."""
    arguments = {"classes": 2, "clusters": 2, "n": 8, "dim": 5, "noise": 0.1, **change}
    with pytest.raises(ValueError) as error:
        gaussian_mixture(**arguments)
    assert says in str(error.value)


def test_the_sphere_is_uniform_and_of_norm_one():
    """Catches points of a cube pushed onto the sphere: their second moment is right, the fourth is not."""
    x = sphere(20_000, 4, dtype=DOUBLE)
    assert torch.allclose(x.norm(dim=1), torch.ones(20_000, dtype=DOUBLE), atol=1e-14)
    # E x_1^4 = 3 / (d (d + 2)) = 1/8; its deviation is below sqrt(E x_1^8 / n) = 0.0017 (E x_1^8 = 7/128).
    assert (x.pow(4).mean(0) - 1 / 8).abs().max() < 5 * 0.0017
    assert x.mean(0).abs().max() < 5 * 0.5 / 20_000**0.5
    assert torch.equal(sphere(5, 4), sphere(5, 4)) and not torch.equal(sphere(5, 4), sphere(5, 4, seed=1))


def test_the_linear_teacher_labels_are_x_theta():
    """Catches inputs that are normalised and a teacher that is not."""
    x, y, theta = linear_teacher(4000, 5, dtype=DOUBLE)
    assert torch.allclose(y, x @ theta, atol=1e-14)
    assert float(theta.norm()) == pytest.approx(1, abs=1e-14)
    covariance = x.T @ x / 4000
    assert (covariance - torch.eye(5, dtype=DOUBLE)).abs().max() < 5 * (2 / 4000) ** 0.5


def test_the_low_rank_model_is_the_one_of_section_5_1():
    """Catches bases that are not orthonormal, w_star outside range(V), and noise of variance sigma^2."""
    m = low_rank_linear(dtype=DOUBLE)
    identity = torch.eye(5, dtype=DOUBLE)
    assert m.X.shape == (200, 500) and m.U.shape == (200, 5) and m.V.shape == (500, 5)
    assert torch.allclose(m.U.T @ m.U, identity, atol=1e-13)
    assert torch.allclose(m.V.T @ m.V, identity, atol=1e-13)
    assert torch.allclose(m.X_clean, m.U @ m.V.T, atol=1e-14)
    assert torch.allclose(m.V @ (m.V.T @ m.w_star), m.w_star, atol=1e-13)
    assert float(m.w_star.norm()) == pytest.approx(5**0.5)
    assert torch.allclose(m.y_clean, m.X_clean @ m.w_star, atol=1e-13)
    # n times the mean square of N(0, sigma^2 / n) entries is sigma^2, to a relative sqrt(2 / entries).
    assert float((m.X - m.X_clean).square().mean()) * 200 == pytest.approx(0.04, rel=5 * (2 / 100_000) ** 0.5)
    assert float((m.y - m.y_clean).square().mean()) * 200 == pytest.approx(4, rel=5 * (2 / 200) ** 0.5)


def test_the_low_rank_model_follows_its_seed_and_its_noise():
    """Catches a clean part that changes with the noise, and a seed without effect."""
    one, loud, other = (
        low_rank_linear(20, 30, 3, sigma_x, 1.0, seed=seed)
        for sigma_x, seed in ((0.1, 0), (0.9, 0), (0.1, 1))
    )
    assert torch.equal(one.X_clean, loud.X_clean) and not torch.equal(one.X, loud.X)
    assert not torch.equal(one.X_clean, other.X_clean)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: low_rank_linear(10, 20, 11), "rank=11: takes at most min(n, d) = 10"),
        (lambda: low_rank_linear(sigma_y=-1), "sigma_y=-1"),
        (lambda: sphere(0, 3), "n=0"),
        (lambda: sphere(3, 3, dtype=torch.int64), "dtype=torch.int64"),
        (lambda: linear_teacher(3, -1), "dim=-1"),
    ],
)
def test_bad_sizes_are_named(call, says):
    """Catches an error from inside torch."""
    with pytest.raises(ValueError) as error:
        call()
    assert says in str(error.value)
