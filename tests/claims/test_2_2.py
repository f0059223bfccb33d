"""Lesson 2.2 over random networks: rows exchanged, paths below their ends, the wall at equality and its height, weight
decay; and what the lesson itself prints, with other seeds."""

import random

import pytest
import torch
from scipy.linalg import logm

from losslab import MLP, Landscape, backend, certify, connecting, data, linear, paths, pieces, ridge
from tests.claims.rerun import rerun

SEEDS = range(20)
KINDS = ("random", "two minima", "zero to minimum", "rank one to random", "mirror image")


def deep(widths, n=20, seed=0, loss="sse"):
    made = data.gaussian(n, widths[0], widths[-1], seed)
    targets = made.x @ backend.normal(widths[0], widths[-1], seed=seed + 500) + 0.5 * made.y
    return Landscape(MLP(widths, "identity", bias=False), made.x, targets, loss)


def drawn(seed, least=1, hidden=None):
    """Two to five matrices, hidden widths of at least min(d, k) + least; some data leave X without full rank."""
    choose = random.Random(seed)
    d, k = choose.randint(1, 5), choose.randint(1, 5)
    hidden = choose.randint(1, 4) if hidden is None else hidden
    return deep([d, *(min(d, k) + choose.randint(least, least + 2) for _ in range(hidden)), k],
                choose.choice([3, 12, 25]), seed)


def minimum(landscape, seed):
    return connecting.factors(landscape.network, linear.explained(landscape).best, seed)


def mirrored(network, theta, layer):
    """One unit of a hidden layer reversed: a change of basis of determinant -1."""
    theta = theta.clone()
    (W, _), (V, _) = network.layers(theta)[layer - 1 : layer + 1]
    W[0] *= -1
    V[:, 0] *= -1
    return theta


def two_ends(landscape, kind, seed):
    net = landscape.network
    a, b = net.init(seed, scale=2.0), net.init(seed + 1000)
    if kind == "rank one to random":
        W, _ = net.layers(a)[seed % net.depth]
        W[:] = torch.outer(W[:, 0], W[0])
    elif kind != "random":
        b = minimum(landscape, seed)
        a = {"two minima": minimum(landscape, seed + 1), "zero to minimum": torch.zeros_like(b),
             "mirror image": mirrored(net, b, 1 + seed % (net.depth - 1))}[kind]
    return a, b


# ---- the lesson's own cells, with another seed

COMPARED = ["exchange", "run", "certificate", "certificate-shown", "headline", "headline-run", "logistic", "broken",
            "wall-certificate", "wall-run", "wall-search", "wider", "ridge-run", "solution-count-code",
            "solution-plateau-code", "solution-narrow-code", "solution-origin-code"]


def said_with(seed):
    said, space = rerun("2_linear/2_2_connected", seed, COMPARED)
    shown = said.pop("certificate-shown")  # with its level, which depends on the seed
    assert shown.startswith("holds: the loss stays at or below") and len(shown.splitlines()) == 1
    return said, space


def test_what_the_lesson_prints_does_not_depend_on_its_seed():
    first, space = said_with(3)
    assert space["worst"] < 1e-10 and space["exact"] == 120
    verdicts = [line.split()[0] for line in first["certificate"].splitlines()[2:]]
    assert verdicts == ["holds", "holds", "FAILS", "FAILS", "FAILS"]
    assert [line.split(":")[0] for line in first["wall-run"].splitlines()[::2]] == ["holds", "FAILS"] * 2
    assert first["ridge-run"].splitlines()[-1].endswith("FAILS the straight line")
    assert said_with(17)[0] == first


# ---- the lemma

@pytest.mark.parametrize("seed", SEEDS)
def test_exchange_one_row(seed):
    """The product is constant on both pieces; without the aim it is not; in the row space there is no way."""
    choose, source = random.Random(seed), backend.generator(seed)
    k, m = choose.randint(1, 4), choose.randint(1, 5)
    p = k + choose.randint(1, 3)
    V, W, r = (backend.normal(*shape, seed=source) for shape in ((k, p), (p, m), (p,)))
    if seed % 2:
        V[-1] = V[0]
    for i in range(k):
        new_V, new_W = connecting.exchange(V, W, i, r)
        assert torch.equal(new_V[i], r) and float((new_V - V)[torch.arange(k) != i].abs().sum()) == 0
        for t in torch.linspace(0, 1, 11).tolist():
            for left, right in ((V, torch.lerp(W, new_W, t)), (torch.lerp(V, new_V, t), new_W)):
                assert float((left @ right - V @ W).abs().max()) < 1e-11
        assert float((new_V @ W - V @ W).abs().max()) > 1e-6
        with pytest.raises(ValueError, match="row space"):
            connecting.exchange(V, W, i, backend.normal(k, seed=source) @ V)


# ---- the theorem

@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_wide_networks_are_connected(seed, kind):
    """Below the larger end on whole pieces; one matrix a piece; the product constant but on the segment; as counted."""
    landscape = drawn(seed)
    net = landscape.network
    a, b = two_ends(landscape, kind, seed)
    path = connecting.connect(landscape, a, b)
    top = float(path.losses[[0, -1]].max())
    certificate = certify.path_below(landscape, path, top, tol=1e-10)
    assert certificate and certificate.how.startswith("exact on ")
    assert torch.equal(path.points[0], a) and torch.equal(path.points[-1], b)
    step = path.points[1:] - path.points[:-1]
    moved = torch.stack([step[:, i:j].any(1) for i, j, _ in net.slots], 1)
    assert bool((moved.sum(1) == 1).all())
    assert len(step) <= 2 * (net.depth - 1) * (2 * min(net.widths[0], net.widths[-1]) + 1) + 1
    C = linear.product(net, path.points)
    still = (C[1:] - C[:-1]).abs().amax((1, 2)) < 1e-9 * max(1.0, float(C.abs().max()))
    assert all(bool(rest) or name == "segment" for rest, name in zip(still, path.names, strict=True))
    fine = path.refined(7).losses  # another route to the same: values, and second differences on each piece
    assert float(fine.max()) <= top + 1e-10 * max(1.0, top)
    bend = fine[:-1].view(-1, 8).diff(dim=1).diff(dim=1)
    assert float(bend.min()) > -1e-9 * max(1.0, top)
    if kind in ("two minima", "mirror image"):
        assert float(path.losses.max() - path.losses.min()) < 1e-10 * max(1.0, top)
        cut = torch.cat([path.points[:1], path.points[2:]])
        assert not certify.path_below(landscape, cut, top, tol=1e-10)
        assert not certify.path_below(landscape, path, top - 1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_convex_loss(seed):
    """The path does not depend on the loss; no corner is above the ends, for three losses that are no squares."""
    squares = drawn(seed)
    net, k = squares.network, squares.network.widths[-1]
    a, b = net.init(seed), net.init(seed + 50, scale=2.0)
    path = connecting.connect(squares, a, b)
    losses = {"logistic": (squares.y > 0).double(), "cross_entropy": torch.arange(squares.n) % k}
    for loss, y in [*losses.items(), (lambda f, y: (f - y).abs().sum(), squares.y)]:
        other = Landscape(net, squares.x, y, loss)
        same = connecting.connect(other, a, b)
        assert torch.equal(same.points, path.points)
        assert same.refined(3).barrier <= 1e-11 * max(1.0, float(same.losses.max()))


# ---- the wall

@pytest.mark.parametrize("seed", SEEDS)
def test_the_wall_at_equality(seed):
    """Singular means high; both signs occur at the floor; no polygon between them is lower; the line of item 3."""
    choose = random.Random(seed)
    k = choose.randint(1, 3)
    d, l, hidden = k + choose.randint(0, 2), choose.randint(1, 2), [k + choose.randint(0, 2) for _ in range(2)]
    hidden[l - 1] = k
    landscape = deep([d, *hidden, k], choose.choice([d, 20]), seed)
    net, known = landscape.network, linear.explained(landscape)
    floor, height = known.floor, known.floor + float(known.values[-1])
    upper = MLP(net.widths[l:], "identity", bias=False)

    def sign(theta):
        return float(torch.linalg.det(linear.product(upper, theta[..., net.slots[l][0]:])).sign())

    a = minimum(landscape, seed)
    b = mirrored(net, a, l)
    assert sign(a) * sign(b) == -1
    assert float(landscape.value(torch.stack([a, b])).max()) < known.floor + 1e-9 * max(1, known.floor) < height - 1e-6
    # (1) A singular matrix anywhere above layer l, everything else random, the last factor of the product at its best.
    for trial in range(10):
        theta = net.init(seed + trial)
        W = [W for W, _ in net.layers(theta)]
        broken = W[choose.randint(l, 2)]
        u, s, v = torch.linalg.svd(broken, full_matrices=False)
        s[k - 1:] = 0
        broken[:] = u * s @ v
        if trial == 0:  # the best one: a range of u_1, ..., u_{k - 1}
            W[2][:] = known.vectors[:, :-1] @ backend.normal(k - 1, hidden[1], seed=backend.generator(seed, "W_3"))
        W[0][:] = torch.linalg.pinv(W[2] @ W[1], rtol=1e-9) @ known.best
        assert float(torch.linalg.svdvals(linear.product(net, theta))[k - 1]) < 1e-9
        assert float(landscape.value(theta)) > height - 1e-8
        assert trial or float(landscape.value(theta)) == pytest.approx(height, rel=1e-8)
    # (2) No polygon is lower: exact tops.
    source = backend.generator(seed, "polygons")
    for corners in range(1, 16):
        between = backend.normal(1 + corners % 3, landscape.M, seed=source)
        assert pieces.bounds(landscape, torch.cat([a[None], between, b[None]])).highest > height - 1e-9
    # (3) One hidden layer; and of k units for k inputs and k + 1 outputs, where the wall is as high as its d-th value.
    for shallow in (Landscape(MLP([d, k, k], "identity", bias=False), landscape.x, landscape.y, "sse"),
                    deep([k, k, k + 1], 20, seed)):
        known = linear.explained(shallow)
        top = known.floor + float(known.values[k - 1])
        U, J = known.vectors[:, :k], torch.eye(k).to(known.vectors)
        J[-1, -1] = -1
        first, second = (shallow.network.flatten([(J_ @ U.mT @ known.best, None), (U @ J_, None)]) for J_ in (J @ J, J))
        line = paths.straight(shallow, first, second)
        assert pieces.bounds(shallow, line.points).highest == pytest.approx(top, rel=1e-9)
        t = torch.linspace(-1, 1, 21).to(U)
        hump = known.floor + (1 - t**2) ** 2 * known.values[k - 1]
        assert torch.allclose(shallow.value(line.at((1 - t) / 2)), hump, rtol=1e-9)
        for size in (2.0, 1.0, 0.3, 0.03):
            between = line.at([0.3, 0.6]) + backend.normal(2, shallow.M, seed=source, scale=size)
            around = torch.cat([first[None], between, second[None]])
            assert pieces.bounds(shallow, around).highest > top - 1e-9 * max(1.0, top)
    # One unit more, and the wall is gone.
    wide = Landscape(MLP([d, *[k + 1] * 2, k], "identity", bias=False), landscape.x, landscape.y, "sse")
    a = minimum(wide, seed)
    around = connecting.connect(wide, a, mirrored(wide.network, a, l))
    assert certify.path_below(wide, around, floor, tol=1e-10) and floor + 1e-6 < height


@pytest.mark.parametrize("seed", SEEDS)
def test_two_components_of_minima(seed):
    """Two minima whose determinants have the same sign are joined along GL(k) at the floor; W_1 = W_2^-1 C."""
    k = 2 + seed % 2
    landscape = deep([k + seed % 3, k, k], 20, seed)
    net, known = landscape.network, linear.explained(landscape)
    a, b = minimum(landscape, seed), minimum(landscape, seed + 100)
    T = [net.layers(theta)[1][0] for theta in (a, b)]
    if float(torch.linalg.det(T[0]) * torch.linalg.det(T[1])) < 0:
        b = mirrored(net, b, 1)
        T[1] = net.layers(b)[1][0]
    for theta in (a, b):
        (W, _), (V, _) = net.layers(theta)
        assert torch.allclose(W, torch.linalg.solve(V, known.best), atol=1e-9)
    u, s, v = torch.linalg.svd(torch.linalg.solve(T[0], T[1]))
    turn = torch.as_tensor(logm((u @ v).cpu().numpy()).real).to(u)  # (u v) is a rotation, v^T s v positive
    assert torch.allclose(torch.linalg.matrix_exp(turn), u @ v, atol=1e-9)
    way = []
    for t in torch.linspace(0, 1, 41).tolist():
        V = T[0] @ torch.linalg.matrix_exp(t * turn) @ (v.mT * s**t @ v)
        way.append(net.flatten([(torch.linalg.solve(V, known.best), None), (V, None)]))
    way = torch.stack(way)
    assert torch.allclose(way[[0, -1]], torch.stack([a, b]), atol=1e-8)
    assert float((landscape.value(way) - known.floor).abs().max()) < 1e-8 * known.floor
    assert bool((torch.linalg.det(net.layers(way)[1][0]) * torch.linalg.det(T[0]) > 0).all())


@pytest.mark.parametrize("seed", SEEDS)
def test_one_unit_narrower(seed):
    """Exercise: width 1 for two outputs, a wall at <u_1, w> = 0 of height floor + lambda_1."""
    thin = deep([2, 1, 2], 20, seed)
    known = linear.explained(thin)
    wall = known.floor + float(known.values[0])
    source = backend.generator(seed, "weights")
    orthogonal = torch.cat([backend.normal(300, 2, seed=source),
                            backend.normal(300, 1, seed=source) * known.vectors[:, 1]], 1)
    assert float(thin.value(orthogonal).min()) > wall - 1e-9
    u = known.vectors[:, 0]
    a = torch.cat([u @ known.best, u])
    for _ in range(10):
        between = backend.normal(2, thin.M, seed=source)
        assert pieces.bounds(thin, torch.cat([a[None], between, -a[None]])).highest > wall - 1e-9


# ---- weight decay

@pytest.mark.parametrize("seed", SEEDS)
def test_connected_with_weight_decay(seed):
    """Below the larger end at every point, for three weights; strip and balance never rise; the straight line does."""
    landscape = drawn(seed, hidden=1)
    net = landscape.network
    kinds = ("random", "zero to minimum", "rank one to random", "mirror image")
    for kind in kinds:
        a, b = two_ends(landscape, kind, seed)
        for weight in (0.0, 0.3, 5.0):
            path = ridge.connect(landscape, a, b, weight, steps=10)
            top = float(path.losses[[0, -1]].max())
            assert certify.path_below(path.landscape, path, top, between=0, tol=1e-10)
            assert torch.equal(path.points[0], a) and torch.equal(path.points[-1], b)
            down = True
            for name, i, j in path.legs:
                rise = path.losses[i:j + 1].diff() * (1 if down else -1)
                if name == "rotate":
                    assert float(rise.abs().max()) < 1e-10 * max(1.0, top)
                elif name == "segment" and j - i == 10:  # convex, in equal steps
                    assert float(path.losses[i:j + 1].diff().diff().min()) > -1e-9 * max(1.0, top)
                elif name != "segment":
                    assert float(rise.max()) < 1e-10 * max(1.0, top)
                down = down and name not in ("segment", "rotate")
    low = connecting.factors(net, linear.explained(landscape).best, seed)
    other = mirrored(net, low, 1)
    line = paths.straight(ridge.decayed(landscape, 0.0), low, other)
    assert not certify.path_below(line.landscape, line, float(line.losses[0]), between=49)
    # With two hidden layers the origin is a strict local minimum, at any width.
    deeper = deep([3, 4, 5, 2], 20, seed)
    decayed, zero = ridge.decayed(deeper, 0.01), torch.zeros(deeper.M)
    assert certify.strict_minimum(decayed, zero)
    assert float(decayed.value(minimum(deeper, seed))) < float(decayed.value(zero)) - 1
