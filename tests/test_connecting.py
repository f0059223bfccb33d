"""Paths below their ends in deep linear nets: random depths (2 to 5 matrices), widths, ranks and ends."""

import random

import pytest
import torch

from losslab import MLP, Landscape, backend, certify, connecting, data, linear

KINDS = ("random", "two minima", "zero to a minimum", "low rank to random", "mirrored")


def drawn(seed):
    """A deep linear landscape: 2 to 5 matrices, hidden widths above min(d, k), k below, at and above d."""
    draw = random.Random(seed)
    d, k = draw.randint(1, 5), draw.randint(1, 5)
    hidden = draw.randint(1, 4)
    widths = [d, *(min(d, k) + draw.randint(1, 3) for _ in range(hidden)), k]
    made = data.gaussian(draw.choice([3, 12, 25]), d, k, seed)  # with 3 samples X is rank deficient
    return Landscape(MLP(widths, "identity", bias=False), made.x, made.y, draw.choice(["sse", "mse"]))


def minimum(landscape, seed):
    """A global minimum, where no hidden width is below min(d, k)."""
    return connecting.factors(landscape.network, linear.explained(landscape).best, seed)


def two_ends(landscape, kind, seed):
    net = landscape.network
    a, b = net.init(seed, scale=2.0), net.init(seed + 1000)
    if kind == "low rank to random":
        W = net.layers(a)[seed % net.depth][0]
        W[:] = torch.outer(W[:, 0], W[0])
    elif kind != "random":
        b = minimum(landscape, seed + 1000)
        a = torch.zeros_like(b) if kind == "zero to a minimum" else minimum(landscape, seed)
    if kind == "mirrored":
        a = b.clone()
        (V, _), (W, _) = net.layers(a)[seed % (net.depth - 1)], net.layers(a)[seed % (net.depth - 1) + 1]
        V[0] *= -1
        W[:, 0] *= -1
    return a, b


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(20))
def test_connect_stays_below_its_ends(seed, kind):
    landscape = drawn(seed)
    net = landscape.network
    a, b = two_ends(landscape, kind, seed)
    path = connecting.connect(landscape, a, b)
    level = float(path.losses[[0, -1]].max())
    below = certify.path_below(landscape, path, level, tol=1e-11)
    assert below and below.how.startswith("exact on "), repr(below)
    assert torch.equal(path.points[0], a) and torch.equal(path.points[-1], b)
    if kind in ("two minima", "mirrored"):
        assert level == pytest.approx(linear.lowest(landscape), rel=1e-9, abs=1e-12)
        assert float((path.losses - level).abs().max()) < 1e-10 * max(1, level)

    step = path.points[1:] - path.points[:-1]
    moved = torch.stack([step[:, start:end].any(1) for start, end, _ in net.slots], 1)
    assert bool((moved.sum(1) == 1).all())  # one matrix at a time
    C = linear.product(net, path.points)
    change = (C[1:] - C[:-1]).abs().amax((1, 2))
    segment = torch.tensor([name == "segment" for name in path.names])
    assert int(segment.sum()) <= 1
    assert float(change[~segment].max()) < 1e-10 * max(1.0, float(C.abs().max()))
    k = min(net.widths[0], net.widths[-1])
    assert len(step) <= 2 * (net.depth - 1) * (2 * k + 1) + 1
    if kind == "random":
        assert len(step) == 2 * (net.depth - 1) * (2 * k + 1) + 1
    assert float(path.points.abs().max()) < 1e3 * max(1.0, float(a.abs().max()), float(b.abs().max()))


def test_connect_for_another_convex_loss():
    made = data.gaussian(20, 3, 2, seed=0)
    landscape = Landscape(MLP([3, 4, 3, 2], "identity", bias=False), made.x, (made.y > 0).double(), "logistic")
    for seed in range(5):
        a, b = landscape.network.init(seed), landscape.network.init(seed + 10)
        path = connecting.connect(landscape, a, b)  # one matrix at a time: convex on each piece, highest at its ends
        assert path.barrier <= 1e-12
        other = Landscape(landscape.network, [[1.0, 2, 3]], [[0.0, 1]], "sse")
        assert torch.equal(path.points, connecting.connect(other, a, b).points)  # data and loss are not looked at


def test_connect_where_nothing_moves_and_without_hidden_layers():
    landscape = drawn(3)
    a = landscape.network.init(0)
    assert float(connecting.connect(landscape, a, a).barrier) <= 1e-10
    zero = torch.zeros_like(a)
    assert float(connecting.connect(landscape, zero, zero).points[[0, -1]].abs().max()) == 0
    flat = Landscape(MLP([3, 2], "identity", bias=False), torch.eye(3), torch.ones(3, 2), "sse")
    a, b = flat.network.init(0), flat.network.init(1)
    assert torch.equal(connecting.connect(flat, a, b).points, torch.stack([a, b]))
    assert len(connecting.connect(flat, a, a).points) == 2


def test_connect_survives_nearly_dependent_rows():
    made = data.gaussian(20, 4, 3, 0)
    landscape = Landscape(MLP([4, 5, 3], "identity", bias=False), made.x, made.y, "sse")
    for size in 10.0 ** -torch.arange(3.0, 19.0):
        a, b = landscape.network.init(0), landscape.network.init(1)
        V = landscape.network.layers(a)[1][0]
        V[2] = V[0] + float(size) * V[2]
        path = connecting.connect(landscape, a, b)
        assert certify.path_below(landscape, path, float(path.losses[[0, -1]].max()), tol=1e-11)
        assert float(path.points.abs().max()) < 100
        products = linear.product(landscape.network, path.points[:path.names.index("segment") + 1])
        assert float((products - products[0]).abs().max()) < 1e-11


def test_a_new_row_is_new_to_both_ends():
    """What one end does not see may be all that the other end sees."""
    scalar = Landscape(MLP([1, 2, 1], "identity", bias=False), [[1.0]], [[1.0]], "sse")
    path = connecting.connect(scalar, [1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0])
    assert certify.path_below(scalar, path, 0.0) and float(path.points.abs().max()) < 3


@pytest.mark.parametrize("seed", range(20))
def test_exchange_keeps_the_product(seed):
    draw = random.Random(seed)
    k, q, p = draw.randint(1, 4), draw.randint(1, 5), draw.randint(2, 7)
    source = backend.generator(seed)
    V, W, r = (backend.normal(*shape, seed=source) for shape in ((k, p), (p, q), (p,)))
    if seed % 2 or p <= k:  # rank deficient
        V = torch.outer(V[:, 0], V[0])
    i = draw.randrange(k)
    new_V, new_W = connecting.exchange(V, W, i, r)
    others = torch.arange(k) != i
    assert torch.equal(new_V[i], r) and torch.equal(new_V[others], V[others])
    for left, right in ((V, new_W), (new_V, new_W), (0.3 * V + 0.7 * new_V, new_W), (V, 0.4 * W + 0.6 * new_W)):
        assert torch.allclose(left @ right, V @ W, rtol=0, atol=1e-11)
    for not_enough in (V[0], V.sum(0), torch.zeros(p)):
        with pytest.raises(ValueError, match="r lies in the row space"):
            connecting.exchange(V, W, i, not_enough)


@pytest.mark.parametrize("seed", range(20))
def test_factors_have_the_product(seed):
    net = drawn(seed).network
    C = backend.normal(net.widths[-1], net.widths[0], seed=seed)
    theta = connecting.factors(net, C, seed)
    assert torch.allclose(linear.product(net, theta), C, rtol=0, atol=1e-9)
    assert float((connecting.factors(net, C, seed + 1) - theta).abs().min()) > 0


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="C has shape"):
        connecting.factors(MLP([2, 3, 2], "identity", bias=False), torch.zeros(2, 3), 0)
    with pytest.raises(ValueError, match="expected hidden widths of at least 2"):
        connecting.factors(MLP([2, 1, 2], "identity", bias=False), torch.zeros(2, 2), 0)
    good = Landscape(MLP([2, 3, 2], "identity", bias=False), torch.eye(2), torch.eye(2), "sse")
    with pytest.raises(ValueError, match="a has shape"):
        connecting.connect(good, torch.zeros(3), torch.zeros(12))
    with pytest.raises(ValueError, match="b has shape"):
        connecting.connect(good, torch.zeros(12), torch.zeros(1, 12))
    for widths in ([2, 2, 2], [3, 2, 2], [2, 2, 5], [2, 3, 2, 2], [4, 3, 5, 3]):
        narrow = Landscape(MLP(widths, "identity", bias=False), torch.ones(1, widths[0]), torch.ones(1, widths[-1]))
        with pytest.raises(ValueError, match="expected hidden widths above min"):
            connecting.connect(narrow, torch.zeros(narrow.M), torch.zeros(narrow.M))
    for net in (MLP([2, 3, 2], "identity"), MLP([2, 3, 2], "tanh", bias=False),
                MLP([2, 3, 2], "identity", bias=False, output_activation="tanh")):
        with pytest.raises(TypeError, match="expected one of MLP"):
            connecting.connect(Landscape(net, torch.eye(2), torch.eye(2)), torch.zeros(net.M), torch.zeros(net.M))
    V, W = torch.eye(2, 3), torch.ones(3, 2)
    with pytest.raises(ValueError, match="V, W, r have shapes"):
        connecting.exchange(V, W.T, 0, torch.ones(3))
    with pytest.raises(ValueError, match="i is 2"):
        connecting.exchange(V, W, 2, torch.ones(3))
