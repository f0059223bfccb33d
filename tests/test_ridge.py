"""Weight decay: the landscape, and the path below its ends for one hidden layer."""

import random

import pytest
import torch

from losslab import MLP, Landscape, backend, certify, connecting, data, ridge


def drawn(seed):
    draw = random.Random(seed)
    d, k = draw.randint(1, 5), draw.randint(1, 5)
    made = data.gaussian(draw.choice([3, 12, 25]), d, k, seed)
    net = MLP([d, min(d, k) + draw.randint(1, 3), k], "identity", bias=False)
    return Landscape(net, made.x, made.y, "sse"), draw.choice([0.01, 0.3, 5.0])


def two_ends(net, kind, seed):
    a, b = net.init(seed, scale=2.0), net.init(seed + 1000)
    (W, _), (V, _) = net.layers(a)
    if kind == "zero":
        a[:] = 0
    elif kind == "low rank":
        V[:], W[1:] = torch.outer(V[:, 0], V[0]), 0
    elif kind == "mirrored":
        a = b.clone()
        (W, _), (V, _) = net.layers(a)
        W[0] *= -1
        V[:, 0] *= -1
    elif kind == "one factor zero":
        V[:] = 0
    return a, b


@pytest.mark.parametrize("kind", ["random", "zero", "low rank", "mirrored", "one factor zero"])
@pytest.mark.parametrize("seed", range(12))
def test_the_path_stays_below_its_ends(seed, kind):
    landscape, weight = drawn(seed)
    net = landscape.network
    a, b = two_ends(net, kind, seed)
    path = ridge.connect(landscape, a, b, weight, steps=12)
    assert torch.equal(path.points[0], a) and torch.equal(path.points[-1], b)
    losses, level = path.losses, float(path.losses[[0, -1]].max())
    assert certify.path_below(path.landscape, path, level, between=0, tol=1e-11)
    C = torch.stack([net.layers(theta)[1][0] @ net.layers(theta)[0][0] for theta in path.points])
    size = path.points.square().sum(1)
    seen = {}
    for name, first, last in path.legs:
        change = losses[first:last + 1].diff()
        half = "there" if "segment" not in seen and "rotate" not in seen else "back"
        seen.setdefault(name, []).append(half)
        if name == "rotate":
            assert float(change.abs().max()) < 1e-11 * level
        elif name in ("strip", "balance"):
            assert float((change if half == "there" else -change).max()) < 1e-11 * level
        if name != "segment":
            assert float((C[first:last + 1] - C[first]).abs().max()) < 1e-11 * max(1.0, float(C.abs().max()))
        if name in ("segment", "rotate"):  # balanced: the norms are twice the nuclear norm
            nuclear = torch.linalg.svdvals(C[first + 1:last]).sum(1)
            assert torch.allclose(size[first + 1:last], 2 * nuclear, rtol=1e-10, atol=1e-12)
    bends = losses - weight * size
    assert torch.allclose(bends, landscape.value(path.points), rtol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_more_points_are_nearer(seed):
    landscape, _ = drawn(seed)
    a, b = two_ends(landscape.network, "random", seed)
    widest = []
    for steps in (50, 1000):
        path = ridge.connect(landscape, a, b, 0.1, steps=steps)
        way = (path.points[1:] - path.points[:-1]).norm(dim=1)
        widest.append(max(float(way[first:last].max()) for name, first, last in path.legs if name != "strip"))
    assert widest[1] < 0.4 * widest[0]


def test_half_a_turn():
    """The mirrored minimum of the scalar net with two units: the unit turns in the plane of both."""
    landscape = Landscape(MLP([1, 2, 1], "identity", bias=False), [[1.0]], [[1.0]], "sse")
    root = 0.9**0.5  # the minimum for weight 0.1: product c with 2 (c - 1) + 2 weight = 0
    a = torch.tensor([root, 0.0, root, 0.0], dtype=torch.float64)
    path = ridge.connect(landscape, a, -a, 0.1, steps=8)
    assert [name for name, _, _ in path.legs] == ["rotate"] and len(path.points) == 10
    assert float((path.losses - 0.19).abs().max()) < 1e-14
    assert certify.critical_point(path.landscape, path.points)
    assert float(path.points[:, [1, 3]].abs().amin(1).max()) > 0.94  # half way the other unit has it all


def test_the_decayed_landscape():
    made = data.gaussian(10, 3, 2, 0)
    for net, loss in ((MLP([3, 4, 2]), "mse"), (MLP([3, 4, 2], "identity", bias=False), "sse")):
        landscape = Landscape(net, made.x, made.y, loss)
        theta = net.init(0, batch=3)
        both = ridge.decayed(landscape, 0.7)
        assert torch.allclose(both.value(theta), landscape.value(theta) + 0.7 * theta.square().sum(1), rtol=1e-14)
        assert torch.allclose(both.gradient(theta), landscape.gradient(theta) + 1.4 * theta, rtol=1e-10)


def test_bad_arguments_are_named():
    landscape = Landscape(MLP([2, 3, 2], "identity", bias=False), torch.eye(2), torch.eye(2), "sse")
    zero = torch.zeros(12)
    for arguments, words in (((zero[:3], zero, 1.0), "a has shape"), ((zero, zero[:3], 1.0), "b has shape"),
                             ((zero, zero, -1.0), "weight is"), ((zero, zero, float("nan")), "weight is"),
                             ((zero, zero, 1.0, 0), "steps is"), ((zero, zero, 1.0, 2.5), "steps is")):
        with pytest.raises(ValueError, match=words):
            ridge.connect(landscape, *arguments)
    for widths in ([2, 2, 2], [2, 3, 3, 2], [2, 2]):
        other = Landscape(MLP(widths, "identity", bias=False), torch.eye(2), torch.eye(2), "sse")
        with pytest.raises(ValueError, match="expected one hidden width, above"):
            ridge.connect(other, torch.zeros(other.M), torch.zeros(other.M), 1.0)
    bowl = Landscape.of_function(lambda t: (t**2).sum(), M=2)
    with pytest.raises(TypeError, match="expected an MLP on data"):
        ridge.decayed(bowl, 1.0)
    with pytest.raises(TypeError, match="expected one of MLP"):
        ridge.connect(bowl, [0.0, 0.0], [0.0, 0.0], 1.0)
    assert connecting.linear_net(landscape) is landscape.network and backend.dtype() is torch.float64
