"""Lesson 2.1: every claim, and every certificate, with the data and the moved witness that could refute it."""

import itertools

import pytest
import torch

from losslab import MLP, Landscape, backend, certify, descend, linear
from losslab.critical import inertia
from losslab.paths import polyline
from tests.claims.rerun import rerun

SEEDS = range(20)
LESSON = "2_linear/2_1_symmetry"
SHALLOW = [(5, 3, 4), (3, 2, 5), (4, 6, 3), (2, 3, 4), (4, 4, 4), (6, 1, 3)]
DEEP = [(4, 3, 2, 4), (3, 4, 5, 3), (3, 2, 3, 2, 3), (3, 2, 2, 3, 2, 4)]


def drawn(widths, seed, rank=None, n=30):
    """Random data of size one; targets of a given rank."""
    source, d, k = backend.generator(seed), widths[0], widths[-1]
    x = backend.normal(n, d, seed=source)
    y = x @ backend.normal(d, k, seed=source) + 0.3 * backend.normal(n, k, seed=source)
    if rank is not None:
        basis = torch.linalg.qr(backend.normal(k, min(rank, k), seed=source))[0]
        y = y @ basis @ basis.T
    return Landscape(MLP(widths, "identity", bias=False), x / n**0.5, y / n**0.5, "sse")


def modes(landscape):
    return linear.explained(landscape).rank


def sets(landscape):
    q = modes(landscape)
    return [chosen for r in range(min(q, *landscape.network.widths[1:-1]) + 1)
            for chosen in itertools.combinations(range(1, q + 1), r)]


def some_map(size, source):
    """An invertible matrix that is not orthogonal, with singular values from 0.6 to 1.7."""
    U, _, V = torch.linalg.svd(backend.normal(size, size, seed=source))
    return U @ torch.diag(torch.linspace(0.6, 1.7, size).to(U)) @ V


def is_critical(landscape, theta):
    return float(landscape.gradient(theta).norm()) < 1e-11 * (1 + float(theta.norm())) ** 3


# ---- symmetry

@pytest.mark.parametrize("seed", SEEDS)
def test_orbits(seed):
    source = backend.generator(seed, "maps")
    for widths in (SHALLOW[seed % len(SHALLOW)], DEEP[seed % len(DEEP)]):
        landscape = drawn(widths, seed)
        maps = [some_map(d, source) for d in widths[1:-1]]
        theta = backend.normal(landscape.M, seed=source)
        moved = linear.move(landscape, theta, maps)
        assert float(landscape.value(moved)) == pytest.approx(float(landscape.value(theta)), rel=1e-11)
        assert torch.allclose(landscape.outputs(moved), landscape.outputs(theta), atol=1e-10)
        # Weight decay: kept by orthogonal maps at random weights, and by no other kind at all weights.
        turned = linear.move(landscape, theta, [torch.linalg.qr(T)[0] for T in maps])
        assert float(turned.norm()) == pytest.approx(float(theta.norm()), rel=1e-12)
        bent = backend.normal(50, landscape.M, seed=source)
        assert float((linear.move(landscape, bent, maps).norm(dim=1) - bent.norm(dim=1)).abs().max()) > 1e-3
        # Critical points: the orbit is critical, with one inertia, and the Hessian kills its tangent.
        for chosen in sets(landscape)[:: 1 + len(sets(landscape)) // 4]:
            point = linear.move(landscape, linear.critical_point(landscape, chosen), maps)
            H, tangent = landscape.hessian(point), linear.orbit_directions(landscape, point)
            assert is_critical(landscape, point)
            assert float((tangent @ H).norm()) <= 1e-9 * float(H.norm()) * float(tangent.norm())
            assert inertia(H).counts == linear.critical_inertia(landscape, chosen)
            assert int(torch.linalg.matrix_rank(tangent)) <= inertia(H).zero
        assert float((landscape.hessian(theta) @ linear.orbit_directions(landscape, theta).T).norm()) > 1e-3
    # Dimensions: full row ranks from the input on, full column ranks towards the output, and any ranks for one layer.
    for widths in ((6, 4, 3, 2, 1), (1, 2, 4, 5), (2, 3, 3), (5, 2, 2, 2)):
        landscape = drawn(widths, seed)
        tangent = linear.orbit_directions(landscape, backend.normal(landscape.M, seed=source))
        assert int(torch.linalg.matrix_rank(tangent)) == sum(d * d for d in widths[1:-1])
    landscape = drawn((3, 4, 2), seed)
    for a, b in itertools.product(range(4), range(3)):
        W1 = backend.normal(4, a, seed=source) @ backend.normal(a, 3, seed=source)
        W2 = backend.normal(2, b, seed=source) @ backend.normal(b, 4, seed=source)
        tangent = linear.orbit_directions(landscape, landscape.network.flatten([(W1, None), (W2, None)]))
        assert int(torch.linalg.matrix_rank(tangent)) == 16 - (4 - a) * (4 - b)


# ---- one hidden layer: all critical points, and their inertia

def whitened(landscape):
    """The root R of X X^T and B = Y X^T R^-1: with A = W_1 R the loss is |W_2 A - B|^2 and a constant."""
    values, vectors = torch.linalg.eigh(landscape.x.T @ landscape.x)
    root = vectors @ torch.diag(values.sqrt()) @ vectors.T
    return root, landscape.y.T @ landscape.x @ torch.linalg.inv(root)


def general(landscape, chosen, nu, zeta, seed):
    """A critical point with idle weights N, Z of these ranks, moved by a random T."""
    source, (d, h, k), r = backend.generator(seed, "maps"), landscape.network.widths, len(chosen)
    theta, q = linear.critical_point(landscape, chosen), modes(landscape)
    (W1, _), (W2, _) = landscape.network.layers(theta)  # views
    kernel = torch.linalg.svd(landscape.y.T @ landscape.x)[2][q:]  # z with z X Y^T = 0
    mix = torch.linalg.qr(backend.normal(h - r, h - r, seed=source))[0]
    N = linear.explained(landscape).vectors[:, q:] @ backend.normal(k - q, nu, seed=source)
    Z = backend.normal(zeta, d - q, seed=source) @ kernel
    W2[:, r:], W1[r:] = N @ mix[:, :nu].T, mix[:, nu:nu + zeta] @ Z
    return linear.move(landscape, theta, [some_map(h, source)])


def taken_apart(landscape, theta):
    """The proof of the theorem, executed: (the modes of a critical point, how far it is from the form stated)."""
    (W1, _), (W2, _) = landscape.network.layers(theta)
    root, B = whitened(landscape)
    A, q = W1 @ root, modes(landscape)
    U, s, Vt = torch.linalg.svd(B)
    fitted = (U.T[:q] @ W2 @ A).norm(dim=1)
    chosen = [j for j in range(q) if fitted[j] > 0.5 * s[j]]
    if len(chosen) > len(A):
        return [j + 1 for j in chosen], float("inf")
    a, c = U[:, chosen].T @ W2, A @ Vt[chosen].T / s[chosen]
    e = torch.linalg.svd(a)[2][len(chosen):].T if chosen else torch.eye(len(W1), dtype=A.dtype)
    T = torch.linalg.inv(torch.cat([c, e], 1))
    V, W, r, best = W2 @ torch.linalg.inv(T), T @ W1, len(chosen), linear.explained(landscape).best
    N, Z = V[:, r:], W[r:]
    gaps = [V[:, :r] - U[:, chosen], W[:r] - U[:, chosen].T @ best, B.T @ N, Z @ landscape.x.T @ landscape.y, N @ Z]
    return [j + 1 for j in chosen], max(float(gap.abs().max()) if gap.numel() else 0.0 for gap in gaps)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_critical_points(seed):
    cases = [((5, 4, 4), 2, 1, 1), ((5, 3, 4), 4, 0, 1), ((3, 4, 5), 2, 2, 1), ((2, 6, 4), 2, 2, 0),
             ((4, 2, 3), 3, 0, 1)]
    widths, rank, nu, zeta = cases[seed % len(cases)]
    landscape = drawn(widths, seed, rank)
    total = float(landscape.y.square().sum())
    e = linear.explained(landscape)
    for chosen in sets(landscape):
        free = widths[1] - len(chosen)
        for N, Z in {(0, 0), (min(nu, free), min(zeta, max(0, free - nu)))}:
            theta = general(landscape, chosen, N, Z, seed)
            assert is_critical(landscape, theta)
            loss = total - float(sum(e.values[i - 1] for i in chosen))
            assert float(landscape.value(theta)) == pytest.approx(loss, abs=1e-10 * total)
            found, gap = taken_apart(landscape, theta)
            assert found == list(chosen) and gap < 1e-8
    # The other direction: critical points that a search finds, starting anywhere, have this form.
    landscape = drawn(SHALLOW[seed % len(SHALLOW)], seed)
    starts = backend.normal(16, landscape.M, seed=backend.generator(seed, "weights"))
    search = descend.polish(landscape, starts, method="gradient_norm", tol=1e-13)
    size = search.theta.norm(dim=1)
    arrived = search.theta[search.converged & (size < 30)]
    assert len(arrived) >= 3
    for theta in arrived:
        found, gap = taken_apart(landscape, theta)
        assert gap < 1e-4  # |g| is 1e-13, and a degenerate critical point is reached to about its root
        assert float(landscape.value(theta)) == pytest.approx(linear.critical_value(landscape, found), rel=1e-8)
    # Moved: a mixture of two modes, and idle weights with N Z not 0, are not critical; random weights lack the form.
    e = linear.explained(landscape)
    mixed = (e.vectors[:, 0] + e.vectors[:, 1]) / 2**0.5
    theta = linear.critical_point(landscape, [1])
    (W1, _), (W2, _) = landscape.network.layers(theta)
    W2[:, 0], W1[0] = mixed, mixed @ e.best
    assert not is_critical(landscape, theta)
    assert taken_apart(landscape, starts[0])[1] > 1e-3
    landscape = drawn((5, 4, 4), seed, 2)
    theta = linear.critical_point(landscape, [1])
    (W1, _), (W2, _) = landscape.network.layers(theta)
    W2[:, 1] = linear.explained(landscape).vectors[:, 3]
    W1[1] = torch.linalg.svd(landscape.y.T @ landscape.x)[2][4]
    assert not is_critical(landscape, theta)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_inertia_of_every_critical_point(seed):
    counted = 0
    for widths, rank in ((SHALLOW[seed % len(SHALLOW)], None), ((5, 4, 4), 2), ((3, 5, 4), 2), ((4, 4, 6), 1)):
        landscape = drawn(widths, seed, rank)
        d, h, k = widths
        q, values = modes(landscape), linear.explained(landscape).values
        for chosen in sets(landscape):
            left, r = [j for j in range(1, q + 1) if j not in chosen], len(chosen)
            wrong = sum(bool(values[j - 1] > values[i - 1]) for i in chosen for j in left)
            unused = (h - r) * (q - r)
            ranks = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1)]
            for nu, zeta in ranks:
                if nu > k - q or zeta > d - q or nu + zeta > h - r:
                    continue
                theta = general(landscape, chosen, nu, zeta, seed)
                positive = r * (d + k - r) - wrong + unused + nu * (d - q) + zeta * (k - q) - nu * zeta
                expected = (wrong + unused, landscape.M - wrong - unused - positive, positive)
                found = inertia(landscape.hessian(theta))
                assert found.counts == expected
                assert nu or zeta or linear.critical_inertia(landscape, chosen) == expected
                assert r < h or found.zero == h * h
                counted += 1
    assert counted > 20
    # Ties: equal eigenvalues give zeros; the inputs of a subspace add h (d - rank X) zeros.
    s = torch.sort(0.5 + backend.uniform(2, seed=seed)).values.flip(0)
    tied = Landscape(MLP([4, 2, 4], "identity", bias=False), torch.eye(4), torch.diag(s[[0, 0, 1, 1]]), "sse")
    assert linear.critical_inertia(tied, [1, 3]) == (1, 4 + 2, 9)  # 1-4 and 2-3: a tie, a wrong choice, a tie
    for chosen in sets(tied):
        assert certify.inertia(tied, linear.critical_point(tied, chosen), linear.critical_inertia(tied, chosen))
    wide = drawn((3, 2, 4), seed)
    seen_twice = torch.cat([wide.x, wide.x @ torch.ones(3, 2).to(wide.x)], 1)
    fewer = Landscape(MLP([5, 2, 4], "identity", bias=False), seen_twice, wide.y, "sse")
    for chosen in sets(wide):
        a, b = linear.critical_inertia(wide, chosen), linear.critical_inertia(fewer, chosen)
        assert b == (a[0], a[1] + 4, a[2])
        assert certify.inertia(fewer, linear.critical_point(fewer, chosen), b)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_hidden_layer_has_no_traps(seed):
    for widths, rank in ((SHALLOW[seed % len(SHALLOW)], None), ((4, 3, 5), 2)):
        landscape = drawn(widths, seed, rank)
        lowest = linear.lowest(landscape)
        for chosen in sets(landscape):
            theta = linear.critical_point(landscape, chosen)
            values, vectors = torch.linalg.eigh(landscape.hessian(theta))
            if float(landscape.value(theta)) > lowest + 1e-9:
                assert certify.strict_saddle(landscape, theta, vectors[:, 0], tol=1e-11)
            else:
                assert float(values[0]) > -1e-10 and linear.critical_inertia(landscape, chosen)[0] == 0
        ends = descend.levenberg_marquardt(landscape, landscape.network.init(seed, batch=10), tol=1e-10, max_steps=300)
        assert float((ends.value - lowest).abs().max()) < 1e-7
    # One orbit of minima, of corank h^2, when h <= q: the minimum found is the closed form, moved by some T.
    landscape = drawn((5, 3, 4), seed)
    found = descend.polish(landscape, descend.levenberg_marquardt(landscape, landscape.network.init(seed)).theta)
    closed = linear.critical_point(landscape, [1, 2, 3])
    T = landscape.network.layers(found.theta)[0][0] @ torch.linalg.pinv(landscape.network.layers(closed)[0][0])
    assert float((linear.move(landscape, closed, [T]) - found.theta).norm()) < 1e-7 * float(found.theta.norm())
    assert certify.degenerate_minimum(landscape, closed, linear.orbit_directions(landscape, closed))


# ---- deeper

@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_points_in_a_deep_network(seed):
    widths = DEEP[seed % len(DEEP)]
    flat = 0
    for rank in (None, 2):
        landscape = drawn(widths, seed, rank)
        q, p, values = modes(landscape), min(widths[1:-1]), linear.explained(landscape).values
        d, k, total = widths[0], widths[-1], float(landscape.y.square().sum())
        for chosen in sets(landscape):
            r = len(chosen)
            wrong = sum(bool(values[j] > values[i - 1]) for i in chosen for j in range(q) if j + 1 not in chosen)
            for m in range(r, p + 1):
                theta = linear.critical_point(landscape, chosen, through=m)
                assert is_critical(landscape, theta)
                loss = total - float(sum(values[i - 1] for i in chosen))
                assert float(landscape.value(theta)) == pytest.approx(loss, abs=1e-11 * total)
                negative, positive = wrong + (m - r) * (q - r), r * (d + k - r) - wrong + (m - r) * (q - r)
                found = inertia(landscape.hessian(theta))
                assert found.counts == (negative, landscape.M - negative - positive, positive)
                if m == r < min(p, q) and chosen == tuple(range(1, r + 1)):
                    flat += 1
                    assert found.negative == 0 and loss > linear.lowest(landscape) + 1e-6
                    assert not certify.degenerate_minimum(landscape, theta, linear.orbit_directions(landscape, theta)
                                                          if r else torch.eye(landscape.M)[:1])
        assert float(landscape.hessian(torch.zeros(landscape.M)).abs().max()) == 0.0
    assert flat >= 2
    # Equal eigenvalues, and inputs of a subspace, with two hidden layers.
    s = torch.sort(0.5 + backend.uniform(2, seed=seed)).values.flip(0)
    tied = Landscape(MLP([4, 3, 2, 4], "identity", bias=False), torch.eye(4), torch.diag(s[[0, 0, 1, 1]]), "sse")
    wide = drawn((3, 2, 3, 4), seed)
    seen_twice = torch.cat([wide.x, wide.x @ torch.ones(3, 2).to(wide.x)], 1)
    fewer = Landscape(MLP([5, 2, 3, 4], "identity", bias=False), seen_twice, wide.y, "sse")
    for landscape, d, worth in ((tied, 4, [2, 2, 1, 1]), (fewer, 3, [3, 2, 1])):  # d is the rank of X
        k, q = landscape.network.widths[-1], len(worth)
        for chosen in sets(landscape):
            r, left = len(chosen), [j for j in range(1, q + 1) if j not in chosen]
            pairs = [worth[j - 1] - worth[i - 1] for i in chosen for j in left]
            for m in range(r, 3):
                negative = sum(gap > 0 for gap in pairs) + (m - r) * (q - r)
                positive = r * (d + k - r) - sum(gap >= 0 for gap in pairs) + (m - r) * (q - r)
                expected = (negative, landscape.M - negative - positive, positive)
                theta = linear.critical_point(landscape, chosen, m)
                assert is_critical(landscape, theta) and linear.critical_inertia(landscape, chosen, m) == expected
                assert inertia(landscape.hessian(theta)).counts == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_the_way_from_saddle_to_saddle(seed):
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    for widths in (SHALLOW[seed % len(SHALLOW)], DEEP[seed % len(DEEP)]):
        landscape, K = drawn(widths, seed), len(widths) - 1
        values, q, p = linear.explained(landscape).values, modes(landscape), min(widths[1:-1])
        for chosen in sets(landscape):
            theta = linear.critical_point(landscape, chosen)
            for new in [j for j in range(1, q + 1) if j not in chosen and len(chosen) < p]:
                line = theta + t[:, None] * linear.grow(landscape, chosen, new)
                expected = landscape.value(theta) - values[new - 1] * (2 * t**K - t ** (2 * K))
                assert torch.allclose(landscape.value(line), expected, atol=1e-12 * float(landscape.y.square().sum()))
                leg = polyline(landscape, line[[0, -1]])
                assert certify.monotone_path(landscape, leg) and not certify.monotone_path(landscape, leg.reversed())
                assert is_critical(landscape, line[-1])
                up, last = line[[0, -1]].clone(), slice(landscape.network.slots[-1][0], None)
                up[1, last] = 2 * up[0, last] - up[1, last]
                climbs = landscape.value(polyline(landscape, up).at(t[1:]))
                assert bool((climbs > landscape.value(theta)).all())  # with the other sign: up
        grown = [linear.grow(landscape, range(1, r + 1), r + 1) for r in range(min(p, q))]
        road = polyline(landscape, torch.stack([torch.zeros(landscape.M).to(t), *grown]).cumsum(0))
        assert float(road.losses[-1]) == pytest.approx(linear.lowest(landscape), abs=1e-11)
        assert certify.monotone_path(landscape, road)
        for r, corner in enumerate(road.points):
            assert is_critical(landscape, corner)
            assert float(road.losses[r]) == pytest.approx(linear.critical_value(landscape, range(1, r + 1)), abs=1e-11)


def rests(landscape, seed):
    """The losses above the minimum, and the points, where a search for critical points ends."""
    starts = landscape.network.init(seed, batch=32, scale=1.5)
    ends = descend.polish(landscape, starts, method="gradient_norm", tol=1e-11)
    at = ends.theta[ends.converged]
    return landscape.value(at) - linear.lowest(landscape), at


@pytest.mark.parametrize("seed", SEEDS)
def test_kawaguchi(seed):
    widths = [(4, 2, 3), (4, 3, 2, 3), (5, 2, 4, 4), (4, 3, 2, 3, 4), (3, 2, 2, 3, 2, 2)][seed % 5]
    landscape = drawn(widths, seed)
    values, p, lowest = linear.explained(landscape).values, min(widths[1:-1]), linear.lowest(landscape)
    # The hypotheses: full ranks, k <= d, distinct eigenvalues.
    assert widths[-1] <= widths[0] and float((values[:-1] - values[1:]).min()) > 1e-3 and float(values[-1]) > 1e-3
    through = None if len(widths) == 3 else p
    bottom = linear.critical_point(landscape, range(1, min(p, widths[-1]) + 1), through)
    # 1. Not convex: between two global minima the loss is higher. Not concave: it bends upwards at one of them.
    mirrored = bottom.clone()
    mirrored[: landscape.network.slots[1][2]] *= -1  # W_1 and W_2
    assert float(landscape.value((bottom + mirrored) / 2)) > float(landscape.value(mirrored)) + 1e-6
    assert float(landscape.value(mirrored)) == pytest.approx(lowest, abs=1e-11)
    assert inertia(landscape.hessian(bottom)).positive > 0
    # 2. Descents end at the global minimum.
    ends = descend.levenberg_marquardt(landscape, landscape.network.init(seed, batch=10), tol=1e-10, max_steps=400)
    assert float((ends.value - lowest).abs().max()) < 1e-6
    # 3, 4. Critical points with middle rank p that are not optimal have a direction of negative curvature; moved, too.
    for chosen in sets(landscape):
        theta = linear.critical_point(landscape, chosen, through)
        source = backend.generator(seed, "maps")
        theta = linear.move(landscape, theta, [some_map(d, source) for d in widths[1:-1]])
        _, vectors = torch.linalg.eigh(landscape.hessian(theta))
        strict = bool(certify.strict_saddle(landscape, theta, vectors[:, 0], tol=1e-9))
        assert strict == (linear.critical_value(landscape, chosen) > lowest + 1e-9)
    # Without the rank of item 4 the Hessian sees nothing, with more than one hidden layer.
    dead = linear.critical_point(landscape, [1])
    if len(widths) > 3:
        assert inertia(landscape.hessian(dead)).negative == 0 and float(landscape.value(dead)) > lowest + 1e-6
    # Critical points of any kind that a search meets: no minus, then optimal or not of rank p.
    (above, at), checked = rests(landscape, seed), 0
    for gap, theta in zip(above, at, strict=True):
        weights = [W for W, _ in landscape.network.layers(theta)][1:-1]
        middle = torch.linalg.multi_dot([*weights[::-1]]) if len(weights) > 1 else (weights or [torch.eye(p)])[0]
        full = len(widths) == 3 or float(torch.linalg.svdvals(middle)[p - 1]) > 1e-2
        if float(gap) > 1e-4 and full:
            assert float(torch.linalg.eigvalsh(landscape.hessian(theta))[0]) < -1e-6
            checked += 1
    assert checked >= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_lu_and_kawaguchi(seed):
    """No hypothesis on eigenvalues, more outputs than inputs: descents end at the global minimum all the same."""
    s = 0.5 + backend.uniform(1, seed=seed)
    tied = Landscape(MLP([3, 2, 2, 3], "identity", bias=False), torch.eye(3), s.cpu() * torch.eye(3), "sse")
    for landscape in (tied, drawn((2, 3, 2, 4), seed), drawn((3, 2, 3, 2, 5), seed)):
        x, y = landscape.x, landscape.y
        assert torch.linalg.matrix_rank(x) == x.shape[1] and torch.linalg.matrix_rank(y) == y.shape[1]
        ends = descend.levenberg_marquardt(landscape, landscape.network.init(seed, batch=10), tol=1e-10, max_steps=400)
        assert float((ends.value - linear.lowest(landscape)).abs().max()) < 1e-6
        flat = linear.critical_point(landscape, [1])
        line = polyline(landscape, torch.stack([flat, flat + linear.grow(landscape, [1], 2)]))
        assert certify.monotone_path(landscape, line) and line.losses[1] < line.losses[0] - 1e-6


# ---- the lesson's own cells

LEVELS = ["descend", "table", "table-show", "plateaus"]
CELLS = ["descend", "three-moves", "zeros", "zeros-moved", "table", "table-show", "cases", "cases-moved", "fifty",
         "plateaus", "deep", "flat-fails", "ladder", "deep-starts"]
SOLUTIONS = ["solution-decay-code", "solution-iris-code", "solution-delay-code", "solution-alive-code"]


@pytest.fixture(scope="module")
def printed():
    return rerun(LESSON, 3, CELLS)[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_levels_of_the_descent_with_other_data(seed, printed):
    said, space = rerun(LESSON, seed, LEVELS)
    assert all(said[name] == printed[name] for name in LEVELS)
    assert max(abs(share) for share in space["shares"]) < 0.1  # how near the levels are, before polishing
    assert bool((space["far"] < 0.2 * space["rests"].theta.norm(dim=1)).all())  # and the points


@pytest.mark.parametrize("seed", range(3))
def test_the_lesson_with_other_data(seed, printed):
    """What the lesson prints does not depend on the data, and the solutions hold."""
    said, space = rerun(LESSON, seed, CELLS + SOLUTIONS * (seed == 1))
    assert all(said[name] == printed[name] for name in CELLS)
    assert float(space["away"].max()) < 1e-12
