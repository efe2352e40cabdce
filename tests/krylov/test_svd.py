"""Top-k SVD against known spectra: values, copies, doubt, budgets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.krylov import as_operator, certificate, svd, topk
from labkit.krylov.bidiagonal import Factorisation
from labkit.krylov.operators import ShortSide
from tests.krylov.spectra import SHAPES, SPECTRA, check_svd, hidden, matrix, problem

TOLERANCE = {
    torch.float64: 1e-6,
    torch.float32: 1e-5,
}  # asked: 1e-6, and 32 eps = 3.8e-6 with rounding on top


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("method", ["gram", "lanczos"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", list(SPECTRA))
def test_finds_the_leading_triplets_of_every_known_spectrum(name, shape, method, dtype):
    """Catches a wrong orientation, ghosts, missed copies, and NaN at rank deficiency."""
    A, s = problem(name, *shape, dtype)
    result = svd(hidden(A), 20, method=method, max_products=600)
    check_svd(A, result, s, TOLERANCE[dtype])
    assert bool(result.converged.all()) and result.complete and result.method == method


@pytest.mark.parametrize("name", ["decaying", "copies-9", "rank-7", "zero", "all-equal"])
@pytest.mark.parametrize("shape", [(30, 45), (45, 30), (30, 30)])
def test_k_may_be_all_of_them(name, shape):
    """Catches a breakdown where the short side is exhausted."""
    A, s = problem(name, *shape)
    check_svd(A, svd(hidden(A), 30, method="lanczos"), s, 1e-6)
    check_svd(A, svd(A, 30), s, 1e-6)


@pytest.mark.parametrize("value", [2.5, -2.5, 0.0])
def test_one_by_one(value):
    """Catches a basis that needs room for a second vector, and a lost sign."""
    A = torch.tensor([[value]])
    for method in ("gram", "lanczos"):
        result = svd(A, 1, method=method)
        assert result.s.item() == pytest.approx(abs(value)) and bool(result.converged.all())
        assert (result.U * result.s @ result.V.T).item() == pytest.approx(value)


@pytest.mark.parametrize("shape", [(1, 9), (9, 1)])
def test_a_single_row_or_column(shape):
    """Catches a squeezed dimension."""
    A = torch.arange(1.0, 10.0, dtype=torch.float64).reshape(shape)
    check_svd(A, svd(hidden(A), 1), torch.tensor([285.0], dtype=torch.float64).sqrt(), 1e-6)


def test_no_ghosts_long_past_convergence():
    """Catches lost orthogonality: the first value would return many times, with converged residuals."""
    s = torch.cat([torch.tensor([100.0, 50.0, 20.0]), 1 / torch.arange(1, 198)]).double()
    A = matrix(s, 200, 300)
    result = svd(hidden(A), 150, method="lanczos")
    check_svd(A, result, s, 1e-6)
    assert int((result.s > 10).sum()) == 3


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("copies", [2, 3, 30])
def test_every_copy_of_a_repeated_value_is_found(copies, dtype):
    """Catches what a single Krylov space cannot hold: it sees one copy, and its residuals say converged."""
    top = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64).repeat_interleave(copies)
    s = torch.cat([top, 0.1 / torch.arange(1, 121 - len(top))])
    A = matrix(s, 120, 150, dtype)
    result = svd(hidden(A), len(top), method="lanczos", max_products=1000)
    check_svd(A, result, s, TOLERANCE[dtype])
    assert result.complete


@pytest.mark.parametrize("seed", range(8))
def test_one_hidden_copy_below_a_decaying_spectrum_is_found(seed):
    """Catches a search that gives up early: one lone copy of the fifth value, and no other sign of it."""
    s = 1 / torch.arange(1, 201, dtype=torch.float64)
    s = torch.cat([s[:5], s[4:5], s[5:-1]])
    A = matrix(s, 200, 200, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    check_svd(A, svd(hidden(A), 12, method="lanczos", generator=generator), s, 1e-6)


def test_without_the_search_copies_are_missed_and_nothing_shows_it(monkeypatch):
    """Catches a test of copies that would pass anyway: the residuals of the wrong answer are all small."""
    A, s = problem("copies-3", 60, 90)
    monkeypatch.setattr(topk, "_search", lambda *_: "nothing")
    result = svd(hidden(A), 5, method="lanczos")
    assert float(result.residual.max()) < 1e-6 and bool(result.converged.all())
    with pytest.raises(AssertionError, match="ratio"):
        check_svd(A, result, s, 1e-6)


def test_an_overlooked_value_is_as_improbable_as_said():
    """Catches a bound that promises too much, or so little that searches never end.

    P <= 0.2: of 300 runs 60 may overlook a value, and 82 is three standard deviations more.
    """
    s = 1 / torch.arange(1, 61, dtype=torch.float64)
    view = ShortSide(as_operator(torch.diag(s)))
    generator = torch.Generator().manual_seed(0)
    wrong = sure = 0
    for _ in range(300):
        run = Factorisation(view, 60, generator)
        chain = run.inject()
        for _ in range(3):
            run.advance(chain)
        diagonal, ahead = run.tail(0, chain)
        t = float(run.ritz()[1][0]) + 1e-9
        wrong += t < 1 and certificate.overlooked(diagonal, ahead, t, 60, run.noise()) <= 0.2
        sure += certificate.overlooked(diagonal, ahead, 1.2, 60, run.noise()) <= 0.2
    assert wrong <= 82
    assert sure >= 150


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), kept=st.integers(1, 8), share=st.floats(0.1, 0.999))
def test_what_is_locked_and_what_is_left_bound_the_whole(seed, kept, share):
    """Catches a coupling that is left out or weighed wrong: bounded() must imply the values of [S E; 0 D]."""
    g = torch.Generator().manual_seed(seed)
    values = torch.rand(kept, generator=g, dtype=torch.float64).sort(descending=True)[0] + 0.5
    E = 10.0 ** (-3 * torch.rand(kept, 1, generator=g)) * torch.randn(kept, 6, generator=g).double()
    D = torch.randn(5, 6, generator=g, dtype=torch.float64)
    outside = share * float(values[-1])
    D *= outside / torch.linalg.matrix_norm(D, 2)
    whole = torch.cat([torch.cat([torch.diag(values), E], 1), torch.cat([torch.zeros(5, kept), D], 1)])
    true = torch.linalg.svdvals(whole)
    for k in range(1, kept + 1):
        for slack in (1e-3, 1e-2, 0.1, 1.0):
            if certificate.bounded(values, E, k, slack, outside):
                assert bool((true[:k] <= values[:k] + slack + 1e-12).all())
    assert certificate.bounded(values, 0 * E, kept, 1e-3, outside)  # and it is not for ever "no"


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 14),
    p=st.integers(1, 14),
    seed=st.integers(0, 10**6),
    rank=st.integers(0, 14),
    data=st.data(),
)
def test_equals_the_dense_svd_on_small_random_matrices(m, p, seed, rank, data):
    """Catches edge cases nobody listed: any shape, rank and k, integer entries so that values repeat."""
    k = data.draw(st.integers(1, min(m, p)))
    g = torch.Generator().manual_seed(seed)
    A = (torch.randint(-1, 2, (m, rank), generator=g) @ torch.randint(-1, 2, (rank, p), generator=g)).double()
    s = torch.linalg.svdvals(A)
    for method in ("gram", "lanczos"):
        result = svd(hidden(A), k, method=method)
        check_svd(A, result, s, 1e-6)
        assert bool(result.converged.all())


def test_a_decaying_spectrum_costs_two_products_a_triplet():
    """Catches a lost early stop, and a count that leaves products out."""
    A, s = problem("decaying", 600, 700)
    seen = {"forward": 0, "backward": 0, "width": 0}

    def count(side, M, V):
        seen[side] += V.shape[1]
        seen["width"] = max(seen["width"], V.shape[1])
        return M @ V

    counted = hidden(A, matmat=lambda V: count("forward", A, V), rmatmat=lambda U: count("backward", A.T, U))
    result = svd(counted, 50, method="lanczos")
    check_svd(A, result, s, 1e-6)
    assert result.products <= 105
    assert 2 * result.products - 1 <= seen["forward"] + seen["backward"] <= 2 * result.products
    assert seen["width"] == 1


@pytest.mark.parametrize("budget", [1, 3, 20, 24])
def test_a_small_budget_is_told_not_raised(budget):
    """Catches an exception, or a triplet called converged, when the products ran out."""
    A, _ = problem("slow", 200, 220)
    result = svd(hidden(A), 20, method="lanczos", max_products=budget)
    assert result.products <= budget + 1 + 20
    assert not bool(result.converged.any()) and not result.complete
    assert result.U.shape == (200, 20) and result.orthogonality < 1e-10
    assert bool(torch.isfinite(result.residual).all())


def test_residuals_are_true_also_where_nothing_converged():
    """Catches a residual that is the cheap estimate of another vector, or of one side only."""
    A, s = problem("slow", 200, 220)
    for verify in ("probe", "each"):
        r = svd(hidden(A), 20, method="lanczos", max_products=40, verify=verify)
        true = torch.maximum((A @ r.V - r.U * r.s).norm(dim=0), (A.T @ r.U - r.V * r.s).norm(dim=0)) / r.s[0]
        assert torch.allclose(r.residual, true, rtol=1e-6, atol=1e-12)
        assert 1e-6 < float(true.max()) < 1 and float(s[0]) > 0


def test_a_wrong_transpose_is_never_called_converged():
    """Catches trust in a pair of functions that are no transposes: factor 2, permutation, lost chunk."""
    A, _ = problem("decaying", 40, 50)
    dropped = A.clone()
    dropped[30:] = 0
    wrong = {
        "twice": lambda U: 2 * A.T @ U,
        "permuted": lambda U: A.T @ U.flip(0),
        "dropped": lambda U: dropped.T @ U,
    }
    for name, rmatmat in wrong.items():
        result = svd(hidden(A, rmatmat=rmatmat), 5, method="lanczos", max_products=60)
        assert not bool(result.converged.all()), name


def test_an_operator_that_changes_is_never_called_converged():
    """Catches trust in recorded products when the operator drifts between calls, as with active dropout."""
    A, _ = problem("decaying", 40, 50)
    g = torch.Generator().manual_seed(3)
    noisy = hidden(A, matmat=lambda V: A @ V * (1 + 0.01 * torch.randn(1, generator=g, dtype=A.dtype)))
    assert not bool(svd(noisy, 5, method="lanczos").converged.any())


def test_restarts_within_a_small_memory():
    """Catches a basis that outgrows its budget, and a restart that loses the chains or the copies."""
    A, s = problem("slow", 300, 400)
    memory = 45 * 700 * 8

    def narrow(M, V):
        assert V.shape[1] * 700 * 8 <= memory
        return M @ V

    operator = hidden(A, matmat=lambda V: narrow(A, V), rmatmat=lambda U: narrow(A.T, U))
    result = svd(operator, 15, memory=memory, method="lanczos", verify="each")
    check_svd(A, result, s, 1e-6)
    assert bool(result.converged.all()) and result.products > 45
    A, s = problem("copies-3", 300, 400)
    check_svd(A, svd(hidden(A), 12, memory=memory, method="lanczos"), s, 1e-6)


def test_a_memory_that_holds_no_answer_names_its_price():
    """Catches an allocation beyond the budget, or a refusal without a way out."""
    A, _ = problem("slow", 300, 400)
    with pytest.raises(ValueError, match=r"memory: 15 triplets .* Pass memory=196000 .* smaller k"):
        svd(hidden(A), 15, memory=30 * 700 * 8)
    with pytest.raises(ValueError, match="memory: a Gram matrix of side 300 .* method='lanczos'"):
        svd(hidden(A), 15, memory=10**6, method="gram")


def test_the_two_routes_agree_and_are_two():
    """Catches one route that silently calls the other."""
    A, _ = problem("decaying", 100, 120)
    gram, lanczos = svd(A, 10, method="gram"), svd(A, 10, method="lanczos")
    assert gram.method == "gram" and lanczos.method == "lanczos"
    assert torch.allclose(gram.s, lanczos.s, atol=1e-10) and not torch.equal(gram.s, lanczos.s)
    assert torch.allclose(gram.U, lanczos.U, atol=1e-4)  # signs are fixed, so vectors can be compared


def test_uses_the_gram_matrix_that_an_operator_offers():
    """Catches an ignored shortcut; without it this k takes 100 products."""
    A, s = problem("decaying", 300, 400)
    result = svd(hidden(A, gram=lambda: A @ A.T), 40)
    check_svd(A, result, s, 1e-6)
    assert result.method == "gram" and result.products <= 25


def test_falls_back_on_lanczos_where_the_gram_matrix_is_too_coarse():
    """Catches small values read off a squared matrix: 1e-4 s₁ is below what a float32 Gram holds."""
    s = 10.0 ** torch.linspace(0, -6, 60, dtype=torch.float64)
    A = matrix(s, 60, 80)
    coarse = hidden(A, gram=lambda: (A @ A.T).float())
    result = svd(coarse, 50, tol=1e-9)
    assert result.method == "lanczos"
    check_svd(A, result, s, 1e-9)


def test_the_generator_decides_and_the_global_one_is_left_alone():
    """Catches a draw from the global generator, and results that differ from call to call."""
    A, _ = problem("decaying", 50, 60)
    before = torch.get_rng_state()
    a, b = svd(hidden(A), 5, method="lanczos"), svd(hidden(A), 5, method="lanczos")
    c = svd(hidden(A), 5, method="lanczos", generator=torch.Generator().manual_seed(9))
    assert torch.equal(a.U, b.U) and torch.equal(a.residual, b.residual)
    assert not torch.equal(a.U, c.U) and torch.allclose(a.s, c.s, atol=1e-9)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("k", [0, -1, 31, 2.0, True, "3"])
def test_a_k_that_cannot_be_is_refused_by_name(k):
    """Catches a k that is cut to fit, or an error from deep inside."""
    with pytest.raises(ValueError, match=r"^k: .*30"):
        svd(torch.zeros(30, 40), k)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tol": 0.0}, "tol:"),
        ({"tol": float("nan")}, "tol:"),
        ({"max_products": 0}, "max_products:"),
        ({"max_products": 1.5}, "max_products:"),
        ({"method": "arnoldi"}, "method: .*'gram'.*'arnoldi'"),
        ({"verify": "never"}, "verify:"),
    ],
)
def test_other_arguments_are_refused_by_name(arguments, message):
    """Catches a typing error that silently means the default."""
    with pytest.raises(ValueError, match=message):
        svd(torch.eye(4), 2, **arguments)
