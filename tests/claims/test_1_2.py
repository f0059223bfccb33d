"""Lesson 1.2 on twenty seeds: its propositions, and every certificate and line that the lesson itself prints."""


import pytest
import torch
from torch.func import hessian, jacrev

from losslab import MLP, Landscape, backend, certify, data
from losslab.critical import NoClearGap, inertia, manufacture
from losslab.descend import adam
from losslab.spectrum import eigenvalues
from tests.claims.rerun import rerun

SEEDS = range(20)
NETS = [MLP([2, 3, 2, 1]), MLP([3, 4, 4, 4, 1]), MLP([2, 3, 3, 3, 3, 1]), MLP([2, 4, 3]),
        MLP([3, 5, 2], "sigmoid", bias=False)]


# ---- the lesson's own cells, run with another seed

COMPARED = ["same-hessian", "deep", "turning", "deep-certificate", "lower-point", "iris", "iris-minima", "iris-passes",
            "five-lines", "five-certificates", "five-kernel", "digits", "digits-bound", "digits-refusal", "convolution",
            "convolution-shown", "solution-indefinite", "solution-dead", "solution-logistic", "solution-random"]


def run(seed, names):
    """{cell: what it prints and which certificates it displays} for cells of the lesson, with SEED replaced."""
    return rerun("1_landscapes/1_2_flat_ground", seed, names)[0]


@pytest.fixture(scope="module")
def as_printed():
    return run(3, COMPARED)


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_the_lesson_prints_holds_for_twenty_seeds(seed, as_printed):
    assert run(seed, COMPARED) == as_printed


def test_certificates_of_the_lesson_hold_where_they_should(as_printed):
    fails = {name for name, text in as_printed.items() if "FAILS" in text}
    assert fails == {"digits", "convolution-shown"}  # the two that the lesson says must fail
    assert sum(text.count("holds:") for text in as_printed.values()) == 7
    assert not any("False" in text for text in as_printed.values())


# ---- the propositions

@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_hessian_decides(seed):
    """A quadratic with random cubic and quartic terms: the Hessian's sign decides near 0; with a zero, nothing."""
    draw = backend.generator(seed)
    A = backend.normal(4, 4, seed=draw)
    Q, cubic, quartic = torch.linalg.qr(A)[0], backend.normal(4, 4, 4, seed=draw), backend.normal(4, seed=draw)

    def with_hessian(diagonal):
        H = Q @ torch.diag(backend.tensor(diagonal, "diagonal")) @ Q.T
        return Landscape.of_function(
            lambda v: v @ H @ v / 2 + torch.einsum("ijk,i,j,k", cubic, v, v, v) + quartic @ v**4, M=4)

    around = 1e-3 * torch.nn.functional.normalize(backend.normal(500, 4, seed=draw), dim=1)
    bowl, saddle = with_hessian([0.3, 1.0, 2.0, 4.0]), with_hessian([-0.3, 1.0, 2.0, 4.0])
    assert certify.strict_minimum(bowl, [0.0] * 4) and bool((bowl.value(around) > 0).all())
    assert not certify.strict_minimum(saddle, [0.0] * 4) and bool(saddle.value(1e-3 * Q[:, 0]) < 0)
    # The same semidefinite Hessian, three ends: up on both sides, up and down, down on both sides.
    H = Q @ torch.diag(backend.tensor([0.0, 1.0, 2.0, 4.0], "diagonal")) @ Q.T
    ends = {}
    for name, tail in (("up", lambda t: t**4), ("through", lambda t: t**3), ("down", lambda t: -(t**4))):
        flat = Landscape.of_function(lambda v, tail=tail: v @ H @ v / 2 + tail(v @ Q[:, 0]), M=4)
        assert inertia(flat.hessian([0.0] * 4)).counts == (0, 1, 3)
        ends[name] = [bool(flat.value(t * Q[:, 0]) > 0) for t in (-0.1, 0.1)]
    assert ends == {"up": [True, True], "through": [False, True], "down": [False, False]}


@pytest.mark.parametrize("net", NETS, ids=repr)
def test_manufactured_points(net):
    """Critical to rounding, loss |r|^2 / n, and the Hessian of the proposition, by automatic differentiation."""
    for seed in SEEDS:
        size = (0.01, 0.3, 2.0)[seed % 3]
        x = backend.normal(80, net.widths[0], seed=seed, scale=1.5)
        point = manufacture(net, x, size, seed)
        landscape, theta = point.landscape, point.theta
        assert certify.critical_point(landscape, theta, tol=1e-14 * max(1.0, size))
        aside = backend.normal(net.M, seed=backend.generator(seed, "moved"))
        assert not certify.critical_point(landscape, theta + 1e-6 * aside)
        assert float(landscape.value(theta)) == pytest.approx(size**2, rel=1e-12)
        if seed < 3:
            J, bend = by_differentiation(net, x, theta, point.r)
            H = 2 / landscape.n * (J.T @ J + bend)
            assert torch.allclose(landscape.hessian(theta), H, rtol=0, atol=1e-11 * float(H.abs().max()))
            assert (J.T @ point.r.flatten()).abs().max() < 1e-12 * float(J.abs().max()) * size * landscape.n


def by_differentiation(net, x, theta, r):
    """J and the sum of r_j times the Hessian of output j, without the library's own derivatives."""
    return jacrev(lambda t: net(t, x).flatten())(theta), hessian(lambda t: (r * net(t, x)).sum())(theta)


def turning_sizes(net, x, theta, seed):
    """As in the lesson, by another route: the eigenvalues of R^-T H_1 R^-1 with H_0 = R^T R from a QR of J."""
    unit = manufacture(net, x, 1.0, seed, theta)
    R = torch.linalg.qr(unit.landscape.jacobian(theta)).R * (2 / unit.landscape.n) ** 0.5
    half = torch.linalg.solve_triangular(R.T, unit.landscape.residual(theta), upper=False)
    mu = torch.linalg.eigvalsh(torch.linalg.solve_triangular(R.T, half.T, upper=False))
    return (-1 / mu[mu < -1e-9 * mu.abs().max()]).sort().values.tolist()


def conditioned(net, x, draws, seed):
    thetas = backend.normal(draws, net.M, seed=backend.generator(seed, "weights"), scale=1.2)
    s = torch.linalg.svdvals(Landscape(net, x, torch.zeros(len(x), 1)).jacobian(thetas))
    return thetas[int((s[:, -1] / s[:, 0]).argmax())]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("net, n, draws", [(NETS[0], 40, 200), (NETS[1], 120, 50)], ids=["shallow", "deep"])
def test_staircase(net, n, draws, seed):
    """Between two turning sizes the counted index is the predicted one; below the first, a strict local minimum."""
    x = backend.normal(n, net.widths[0], seed=seed, scale=1.5)
    theta = conditioned(net, x, draws, seed)
    turns = turning_sizes(net, x, theta, seed)
    assert len(turns) >= 5

    def at(size):
        return manufacture(net, x, size, seed, theta).landscape

    sizes = [turns[0] / 3] + [(a * b) ** 0.5 for a, b in zip(turns[:5], turns[1:6], strict=False)]
    for index, size in enumerate(sizes):
        assert inertia(at(size).hessian(theta)).counts == (index, 0, net.M - index)
    assert certify.strict_minimum(at(0.9 * turns[0]), theta) and not certify.strict_minimum(at(1.1 * turns[0]), theta)
    moved = theta + 1e-4 * backend.normal(net.M, seed=backend.generator(seed, "moved"))
    assert not certify.strict_minimum(at(0.9 * turns[0]), moved)
    assert not certify.inertia(at(1.1 * turns[0]), theta, (0, 0, net.M))


def test_the_deep_network_turns_before_the_median_of_the_shallow_ones():
    def first(net, n, draws, seed):
        x = backend.normal(n, net.widths[0], seed=seed, scale=1.5)
        return turning_sizes(net, x, conditioned(net, x, draws, seed), seed)[0]

    median = sorted(first(NETS[0], 40, 200, seed) for seed in SEEDS)[9]  # the lower of the two in the middle
    assert max(first(NETS[1], 120, 50, seed) for seed in range(12)) < median


def product_of(widths):
    """A linear network on Gaussian data, and for a theta its orbit directions: W_1 <- A W_1, W_2 <- W_2 A^-1."""
    net = MLP(widths, "identity", bias=False)
    d, h, k = widths

    def tangents(theta):
        (W1, _), (W2, _) = net.layers(theta)
        units = torch.eye(h * h, dtype=theta.dtype, device=theta.device).view(h * h, h, h)
        return torch.stack([torch.cat([(E @ W1).flatten(), -(W2 @ E).flatten()]) for E in units])

    return net, tangents


@pytest.mark.parametrize("seed", SEEDS)
def test_symmetries_give_zeros(seed):
    """A manufactured point of a linear network: H kills the h^2 directions of W_1 -> A W_1, W_2 -> W_2 A^-1."""
    net, tangents = product_of([4, 2, 3])
    x = backend.normal(30, 4, seed=seed)
    point = manufacture(net, x, 0.1, seed)
    landscape, theta, directions = point.landscape, point.theta, tangents(point.theta)
    assert certify.critical_point(landscape, theta)
    assert landscape.hvp(theta, directions).abs().max() < 1e-12 * landscape.hessian(theta).abs().max()
    rank = int(torch.linalg.matrix_rank(directions))
    found = inertia(landscape.hessian(theta))
    assert rank == 4 and found.zero >= rank
    # Away from a critical point the velocity of this symmetry, which is no translation, is not in the kernel.
    away = theta + 0.1 * backend.normal(net.M, seed=seed + 200)
    assert landscape.hvp(away, tangents(away)).abs().max() > 1e-4


@pytest.mark.parametrize("seed", SEEDS)
def test_morse_bott_minima(seed):
    """Kernel = tangent space of the orbit and H >= 0: no point near theta lies lower; along the orbit it is level."""
    net, tangents = product_of([4, 2, 3])
    x = backend.normal(30, 4, seed=seed)
    point = manufacture(net, x, 0.01, seed)
    landscape, theta, directions = point.landscape, point.theta, tangents(point.theta)
    found, here = inertia(landscape.hessian(theta)), float(landscape.value(theta))
    assert found.counts == (0, 4, net.M - 4) and int(torch.linalg.matrix_rank(directions)) == 4
    source = backend.generator(seed, "steps")
    around = torch.nn.functional.normalize(backend.normal(2000, net.M, seed=source), dim=1)
    along = torch.nn.functional.normalize(backend.normal(2000, 4, seed=source) @ directions, dim=1)
    for radius in (1e-1, 1e-2, 1e-3):
        for near in (around, along):  # along the tangent space the loss is level to second order, and still not lower
            assert float(landscape.value(theta + radius * near).min()) >= here - 1e-15
    (W1, _), (W2, _) = net.layers(theta)
    A = torch.eye(2, dtype=theta.dtype, device=theta.device) + 0.3 * backend.normal(2, 2, seed=source)
    orbit = torch.cat([(A @ W1).flatten(), (W2 @ torch.linalg.inv(A)).flatten()])
    assert float(landscape.value(orbit)) == pytest.approx(here, rel=1e-9)
    # Where the kernel is larger than the orbit, the criterion says nothing: x^3 has H >= 0 and no minimum.
    cubic = Landscape.of_function(lambda w: w[0] ** 3 + w[1] ** 2, M=2)
    assert inertia(cubic.hessian([0.0, 0.0])).counts == (0, 1, 1) and float(cubic.value([-0.1, 0.0])) < 0


def test_perfect_classifiers_are_never_critical():
    """Twenty classifiers of digits, every one perfect: the bound is positive, below |g|, and equals <g, u> / |u|."""
    images, net = data.digits(n=300), MLP([64, 6, 10])
    landscape = Landscape(net, images.x, images.y, "cross_entropy")
    starts = torch.stack([net.init(seed) for seed in SEEDS])
    ends = adam(landscape, starts, steps=600, step=2e-2).theta
    outputs = landscape.outputs(ends)
    perfect = (outputs.argmax(2) == images.y).all(1)
    assert perfect.sum() >= 15
    for theta, f in zip(ends[perfect], outputs[perfect], strict=True):
        margins = f.gather(1, images.y[:, None]) - f
        W, b = net.layers(theta)[-1]
        bound = float((f.softmax(1) * margins).sum(1).mean() / torch.cat([W.flatten(), b]).norm())
        g = landscape.gradient(theta)
        (u, c), last = net.layers(g)[-1], torch.cat([W.flatten(), b])
        slope = float(torch.cat([u.flatten(), c]) @ last / last.norm())
        assert 0 < bound <= float(g.norm()) and bound == pytest.approx(-slope, rel=1e-9)
        assert not certify.critical_point(landscape, theta)
        with pytest.raises(NoClearGap):
            inertia(eigenvalues(landscape, theta))
