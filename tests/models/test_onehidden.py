"""The network of equation (1.1) and the scale of its readout."""

import math

import pytest
import torch

from labkit.models import READOUTS, one_hidden


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_output_is_v_phi_of_w_x() -> None:
    """A transposed product, or the activation on the wrong side."""
    model = one_hidden(5, 6, 3, activation="tanh", dtype=torch.float64)
    x = torch.randn(4, 5, generator=generator(), dtype=torch.float64)
    for sample, output in zip(x, model(x), strict=True):
        assert torch.allclose(model.V @ torch.tanh(model.W @ sample), output, rtol=1e-14, atol=1e-14)


def test_images_are_flattened() -> None:
    """A network of the theory that cannot be given the data as loaded."""
    model = one_hidden(16, 6, 3)
    images = torch.randn(2, 1, 4, 4, generator=generator())
    assert torch.equal(model(images), model(images.reshape(2, 16)))


@pytest.mark.parametrize("readout", READOUTS)
def test_v_has_mean_zero_and_variance_nu_squared_over_k(readout: str) -> None:
    """The printed nu^2 / K, or nu taken for the variance: then E J J^T is not nu^2 Sigma."""
    nu, k, K = 3.0, 2000, 5
    scaled = one_hidden(4, k, K, output_std=nu, readout=readout, dtype=torch.float64).V * math.sqrt(k) / nu
    # 10,000 entries: the mean has sd .01 and the variance at most .014; four of each.
    assert abs(float(scaled.mean())) < 0.04
    assert abs(float(scaled.square().mean()) - 1) < 0.056


@pytest.mark.parametrize("readout", ["rademacher", "half"])
def test_signed_readouts_have_one_size(readout: str) -> None:
    """Signs drawn as numbers."""
    V = one_hidden(4, 50, 3, output_std=2.0, readout=readout, dtype=torch.float64).V
    assert torch.allclose(V.abs(), torch.full_like(V, 2 / math.sqrt(50)))


def test_half_has_rows_that_sum_to_zero_and_differ() -> None:
    """Rows that are all the same, which would give a readout of rank one."""
    V = one_hidden(4, 50, 3, readout="half", dtype=torch.float64).V
    assert torch.allclose(V.sum(1), torch.zeros(3, dtype=torch.float64))
    assert torch.linalg.matrix_rank(V) == 3


def test_half_refuses_an_odd_width() -> None:
    """A row that does not sum to zero, silently."""
    with pytest.raises(ValueError, match=r"width: got 7; readout='half' needs an even width.*rademacher"):
        one_hidden(4, 7, 1, readout="half")


def test_w_is_standard_normal_and_the_same_for_every_readout() -> None:
    """A readout that shifts the draw of W: a comparison of readouts would compare two networks."""
    kinds = [one_hidden(40, 500, 2, readout=readout, dtype=torch.float64).W for readout in READOUTS]
    assert all(torch.equal(W, kinds[0]) for W in kinds)
    # 20,000 entries: mean of sd .007, variance of sd .01.
    assert abs(float(kinds[0].detach().mean())) < 0.028 and abs(float(kinds[0].detach().var()) - 1) < 0.04


def test_v_is_a_parameter_only_if_it_is_trained() -> None:
    """A fixed readout in the Jacobian's columns, or a trained one left out."""
    assert [name for name, _ in one_hidden(4, 6, 2).named_parameters()] == ["W"]
    assert {name for name, _ in one_hidden(4, 6, 2, train_readout=True).named_parameters()} == {"W", "V"}
    assert set(one_hidden(4, 6, 2).state_dict()) == {"W", "V"}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"width": -3}, "width: got -3; it takes a whole number of at least 1"),
        ({"width": 2.5}, "width: got 2.5"),
        ({"inputs": 0}, "inputs: got 0"),
        ({"outputs": True}, "outputs: got True"),
        ({"output_std": 0.0}, "output_std: got 0.0; it takes a positive finite number"),
        ({"output_std": math.nan}, "output_std: got nan"),
        ({"readout": "ones"}, "readout: 'ones' is not one of rademacher, gaussian, half"),
        ({"seed": -1}, "seed: got -1"),
        ({"dtype": torch.int64}, "dtype: got torch.int64"),
    ],
)
def test_bad_arguments_are_named(bad: dict, message: str) -> None:
    """An error from deep inside torch, which names no argument."""
    with pytest.raises(ValueError, match=message):
        one_hidden(**({"inputs": 4, "width": 6, "outputs": 2} | bad))
