"""Inertia with its gap, its refusal, and manufactured critical points."""

import pytest
import torch

from losslab import MLP, Landscape, backend
from losslab.critical import NoClearGap, inertia, manufacture


@pytest.mark.parametrize("seed", range(10))
def test_inertia_survives_a_change_of_basis(seed):
    counts = (2, 3, 4)
    size = 1 + 10 * backend.uniform(9, seed=seed)
    signs = torch.tensor([-1.0] * 2 + [0.0] * 3 + [1.0] * 4, dtype=torch.float64, device=size.device)
    Q = torch.linalg.qr(backend.normal(9, 9, seed=seed + 100)).Q
    H = Q @ torch.diag(size * signs) @ Q.T
    found = inertia((H + H.T) / 2)
    assert found.counts == counts and found.index == 2
    assert found.largest_zero < 1e-13 and found.smallest_nonzero >= 1 - 1e-12


def test_a_batch_of_hessians_gives_a_list():
    H = torch.diag_embed(torch.tensor([[1.0, -1.0], [1.0, 0.0]]))
    assert [i.counts for i in inertia(H)] == [(1, 0, 1), (0, 1, 1)]


@pytest.mark.parametrize("eigenvalues, clear", [
    ([1.0, 1e-13, -1e-5], True),
    ([1.0, 5e-10, 2e-9], False),  # on both sides of the tolerance, with nothing between
    ([1.0, 2e-14, 3e-15], True),
    ([573.0, 8.7e-7, 1.0], True),  # small, but far above rounding
    ([1.0, 5e-10, 6e-8], True),
    ([1.0, 5e-10, 4e-8], False),
])
def test_zero_needs_a_clear_gap(eigenvalues, clear):
    if clear:
        assert sum(inertia(eigenvalues).counts) == 3
    else:
        with pytest.raises(NoClearGap, match="no clear gap at zero"):
            inertia(eigenvalues)


def test_a_tolerance_of_ones_own():
    assert inertia([1.0, 1e-4], tol=1e-3).counts == (0, 1, 1)
    assert inertia([1.0, 1e-4]).counts == (0, 0, 2)


@pytest.mark.parametrize("value, words", [
    (torch.zeros(2, 3), r"hessian has shape \(2, 3\)"),
    ([[1.0, 2.0], [0.0, 1.0]], "hessian is not symmetric: entries differ from their mirror image by up to 2.0e"),
    ([[float("nan")]], "hessian has 1 non-finite"),
])
def test_bad_hessians_are_refused(value, words):
    with pytest.raises(ValueError, match=words):
        inertia(value)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("widths, activation, bias", [((2, 3, 2, 1), "tanh", True), ((2, 3, 3, 2, 2), "softplus", True),
                                                      ((3, 4, 2), torch.sin, False)])
def test_manufactured_points_are_critical_in_any_depth(widths, activation, bias, seed):
    net = MLP(widths, activation, bias=bias)
    x = backend.normal(40, widths[0], seed=1000 + seed, scale=1.5)
    for size in (0.02, 0.5):
        point = manufacture(net, x, size, seed=seed)
        L = point.landscape
        assert abs(float(L.value(point.theta)) - size**2) < 1e-13
        # J has entries of order 1 to 100 here, so 1e-13 is a few hundred roundings of J^T r.
        assert float(L.gradient(point.theta).norm()) < 1e-13 * (1 + float(L.jacobian(point.theta).abs().max()))
        assert torch.allclose(L.outputs(point.theta) - L.y, point.r, atol=1e-14)
        assert point.rank <= net.M and point.full_rank == (point.rank == net.M)


def test_theta_may_be_given():
    net = MLP([2, 3, 1])
    theta = backend.normal(net.M, seed=4)
    assert torch.equal(manufacture(net, backend.normal(30, 2, seed=1), 0.1, theta=theta).theta, theta)


@pytest.mark.parametrize("call, words", [
    (lambda: manufacture(MLP([2, 3, 1]), torch.randn(30, 2), 0.0), "size is 0.0; expected a positive number"),
    (lambda: manufacture(MLP([2, 3, 1]), torch.randn(5, 2), 0.1), "the Jacobian has rank 5 = n k"),
])
def test_what_can_not_be_manufactured(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_moving_the_point_spoils_it():
    point = manufacture(MLP([2, 3, 1]), backend.normal(30, 2, seed=1), 0.1)
    assert isinstance(point.landscape, Landscape)
    assert float(point.landscape.gradient(point.theta + 1e-6).norm()) > 1e-9
