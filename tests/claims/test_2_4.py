"""Lesson 2.4: lifted models. Every theorem with the data, the start and the moved witness that could refute it."""

import math

import pytest
import torch
from scipy.ndimage import label

from losslab import MLP, Landscape, backend, certify, data, lifting, paths, quadratic
from tests.claims.rerun import rerun

SEEDS = range(20)
POLYNOMIALS = [((0, 0, 1), 3, 1), ((0, 1, 1), 2, 2), ((0, 1, 0, 1), 2, 1), ((1, 0, 0, 1), 2, 2), ((2, -1, 1), 3, 1)]


def problem(activation, d, k, h, seed, n=40, loss="sse"):
    made = data.gaussian(n, d, k, seed)
    y = (made.y > 0).to(made.y) if loss == "logistic" else made.y
    return Landscape(MLP([d, h, k], activation, bias=False), made.x, y, loss)


def starts(landscape, seed):
    """Random; all units equal; all zero; all idle; only some units idle, and equal ones among the others."""
    d, h, _ = landscape.network.widths
    random = backend.normal(landscape.M, seed=backend.generator(seed, "weights"))
    equal, idle, mixed = random.clone(), random.clone(), random.clone()
    equal[: h * d] = random[:d].repeat(h)
    idle[h * d :] = 0.0
    mixed[h * d :: 2] = 0.0
    mixed[: d * (h // 2)] = random[:d].repeat(h // 2)
    return [random, equal, torch.zeros_like(random), idle, mixed]


def lowest(landscape):
    """The lowest loss of any width, by least squares with the features of 300 other units."""
    d, _, k = landscape.network.widths
    many = Landscape(MLP([d, 300, k], landscape.network.activation, bias=False), landscape.x, landscape.y,
                     landscape.loss)
    return float(many.value(paths.refit(many, many.network.init(9, scale=d**0.5))))


def exact(certificate):
    return bool(certificate) and certificate.how.startswith("exact on")


# ---- too narrow

def squares(T=(3.0, -2.0), h=1):
    a = torch.arange(4, dtype=torch.float64) * math.pi / 4
    x = torch.stack([a.cos(), a.sin()], 1)
    return Landscape(MLP([2, h, 1], "quadratic", bias=False), x, T[0] * x[:, 0] ** 2 + T[1] * x[:, 1] ** 2, "sse")


def valleys(landscape, level, angles=360, turn=2 * math.pi, sizes=801, reach=6.0):
    """Components of {L <= level} in (angle of w, m = v |w|^2), from the landscape's own values on a grid.

    A whole turn counts in the weights, half a turn in the matrices, where w and -w are the same.
    """
    a = torch.arange(angles, dtype=torch.float64) * turn / angles
    m = torch.linspace(-reach, reach, sizes, dtype=torch.float64)
    grid = torch.stack([a.cos()[:, None].expand(angles, sizes), a.sin()[:, None].expand(angles, sizes),
                        m.expand(angles, sizes)], 2)
    below = landscape.value(grid.flatten(0, 1)).view(angles, sizes).cpu() <= level
    names, n = label(below.numpy())
    parent = list(range(n + 1))

    def root(i):
        return i if parent[i] == i else root(parent[i])

    for p, q in zip(names[0], names[-1], strict=True):  # the angle comes round
        if p and q:
            parent[root(p)] = root(q)
    return len({root(i) for i in range(1, n + 1)})


@pytest.mark.parametrize("seed", SEEDS)
def test_too_narrow_fails(seed):
    """The values of the proof, the bottoms, the wall, the number of valleys; and for other targets diag(A, -B)."""
    one = squares()
    levels = (6.0, 11.9, 12.1, 13.4, 13.6, 20.0)
    assert [valleys(one, u) for u in levels] == [2, 2, 4, 4, 1, 1]
    assert [valleys(one, u, 180, math.pi) for u in levels] == [1, 1, 2, 2, 1, 1]
    theta = backend.normal(200, 3, seed=seed)
    m, sine = theta[:, 2] * theta[:, :2].square().sum(1), (theta[:, 1] / theta[:, :2].norm(dim=1)).square()
    b = 3.5 - 5 * sine
    assert torch.allclose(one.value(theta), 13.5 - 2 * m * b + 1.5 * m**2)
    D = quadratic.matrix(one, theta) - torch.diag(torch.tensor([3.0, -2.0]).to(theta))
    metric = D.square().sum((1, 2)) + D.diagonal(dim1=1, dim2=2).sum(1).square() / 2
    assert torch.allclose(one.value(theta), metric)
    for w, v, bottom in (([0.0, 1.0], -1.0, 12.0), ([1.0, 0.0], 7 / 3, 16 / 3)):
        point, along = backend.tensor([*w, v], "point"), backend.tensor([*w, -2 * v], "along")
        assert certify.degenerate_minimum(one, point, along) and float(one.value(point)) == pytest.approx(bottom)
        assert not certify.degenerate_minimum(one, point + 1e-6, along)
    wrong = theta.clone()
    wrong[:, 2] = -wrong[:, 2].abs()
    assert float(one.value(wrong).min()) >= 12 - 1e-12  # nothing on that side is lower
    wrong[:, 2] = 0.0
    assert torch.allclose(one.value(wrong), one.value(wrong[:1]).expand(200)) and float(one.value(wrong[0])) == 13.5
    A, B = (1.5 + 2 * backend.uniform(2, seed=seed)).tolist()  # any diag(A, -B): bottoms 4/3 A^2 and 4/3 B^2
    other = squares((A, -B))
    wall = float(other.value(torch.zeros(3)))
    low, high = sorted([4 / 3 * A * A, 4 / 3 * B * B])
    found = []
    for angle, m in ((0.0, A - B / 3), (math.pi / 2, A / 3 - B)):
        point = backend.tensor([math.cos(angle), math.sin(angle), m], "point")
        found.append(float(other.value(point)))
        assert (float(other.gradient(point).norm()) < 1e-12)
    assert sorted(found) == pytest.approx([low, high])
    if 0 < high < wall - 0.1 and (A - B / 3) > 0 > (A / 3 - B) and high - low > 0.05:
        assert valleys(other, (low + high) / 2) == 2 and valleys(other, (high + wall) / 2) == 4
        assert valleys(other, wall + 0.1) == 1


# ---- intrinsic dimension

@pytest.mark.parametrize("seed", SEEDS)
def test_the_intrinsic_dimension_of_polynomials(seed):
    """The rank is the sum with the constant term, for random coefficients too; the sum without it is refuted."""
    draw = backend.generator(seed)
    for d in (1, 2, 3):
        chosen = (torch.rand(5, generator=draw) < 0.6).tolist()
        chosen[1 + seed % 4] = True
        size = (0.5 + torch.rand(5, generator=draw)).tolist()
        for a in (chosen, [True, *chosen[1:]], [False, *chosen[1:]]):
            coefficients = [c * s for c, s in zip(a, size, strict=True)]
            found = lifting.intrinsic_dimension(lifting.polynomial(*coefficients), d=d, seed=seed)
            assert found.q == lifting.polynomial_dimension(coefficients, d)
            assert found.smallest_nonzero > 1e10 * max(found.largest_zero, 1e-16)
            assert (found.q == lifting.polynomial_dimension([0, *coefficients[1:]], d)) == (not a[0])
    for name in ("tanh", "sigmoid", torch.sin):
        with pytest.raises(ValueError, match="no clear gap|still grows"):
            lifting.intrinsic_dimension(name, d=1 + seed % 3, seed=seed)
        n = 3 + seed % 10
        assert lifting.intrinsic_dimension(name, x=backend.normal(n, 2, seed=seed), seed=seed).q <= n
    assert lifting.intrinsic_dimension("relu", x=backend.normal(9, 3, seed=seed), seed=seed).q == 9


# ---- width q

@pytest.mark.parametrize("seed", SEEDS)
def test_width_q_has_property_p(seed):
    """From every kind of start to the lowest loss, exactly certified; a unit short is refused; moved paths fail."""
    a, d, k = POLYNOMIALS[seed % 5]
    q = lifting.polynomial_dimension(a, d)
    n = 7 + seed % 3
    for landscape in (problem(lifting.polynomial(*a), d, k, q + seed % 2, seed),
                      problem(("relu", "tanh")[seed % 2], 2, k, n, seed, n)):
        floor = lowest(landscape)
        for theta in starts(landscape, seed):
            path = lifting.monotone(landscape, theta, seed)
            assert exact(certify.monotone_path(landscape, path)) and torch.equal(path.points[0], theta)
            assert float(path.losses[-1]) == pytest.approx(floor, rel=1e-8, abs=1e-10)
            rank = int(torch.linalg.matrix_rank(lifting.features(landscape, path.points[-1])))
            assert rank == (q if landscape.n == 40 else n) and len(path.names) <= 2 * rank + 1
        path = lifting.monotone(landscape, starts(landscape, seed)[1], seed)
        assert not certify.monotone_path(landscape, torch.cat([path.points[:1], path.points[2:]]))
        assert not certify.monotone_path(landscape, path.reversed())
        assert not certify.monotone_path(landscape, torch.cat([path.points[:-1], 2 * path.points[-1:]
                                                               - path.points[-2:-1]]))
    narrow = problem(lifting.polynomial(*a), d, k, q - 1, seed)
    with pytest.raises(ValueError, match=f"width {q - 1}; expected at least the intrinsic dimension {q}"):
        lifting.monotone(narrow, starts(narrow, seed)[0], seed)


def mirror(landscape, theta):
    """The same function for an even activation: all input weights with the other sign."""
    d, h, _ = landscape.network.widths
    return torch.cat([-theta[: h * d], theta[h * d :]])


@pytest.mark.parametrize("seed", SEEDS)
def test_two_points_meet_at_width_2q(seed):
    """Seven exact pieces between any two points, for two losses; also at less width, where the ranks in use fit."""
    a, d, k = POLYNOMIALS[seed % 5]
    q = lifting.polynomial_dimension(a, d)
    for loss in ("sse", "logistic"):
        landscape = problem(lifting.polynomial(*a), d, k, 2 * q, seed, loss=loss)
        mine, theirs = starts(landscape, seed), starts(landscape, seed + 30)
        for i in range(5):
            s, t = mine[i], theirs[(i + seed) % 5]
            path = lifting.meet(landscape, s, t)
            assert torch.equal(path.points[0], s) and torch.equal(path.points[-1], t) and len(path.names) <= 7
            level = float(path.losses[[0, -1]].max())
            assert exact(certify.path_below(landscape, path, level))
            assert not certify.path_below(landscape, path, level - 1e-6 * max(1, level))
    low = problem("quadratic", 2, 1, 6, seed)
    point = lifting.monotone(low, starts(low, seed)[0], seed).points[-1]
    level = float(low.value(point))
    assert exact(certify.path_below(low, lifting.meet(low, point, mirror(low, point)), level))
    assert not certify.path_below(low, torch.stack([point, mirror(low, point)]), level)
    few = problem("quadratic", 3, 1, 4, seed)  # q = 6, but two units at each end do all the work
    draw = backend.generator(seed, "weights")
    ends = [backend.normal(few.M, seed=draw) for _ in range(2)]
    ends[0][12:14], ends[1][13:15] = 0.0, 0.0
    path = lifting.meet(few, *ends)
    assert exact(certify.path_below(few, path, float(path.losses[[0, -1]].max())))
    with pytest.raises(ValueError, match="width 4; expected at least 4 . 4, the ranks"):
        lifting.meet(few, *backend.normal(2, few.M, seed=draw))


@pytest.mark.parametrize("seed", SEEDS)
def test_one_spare_unit_is_enough(seed):
    """Exchange paths at width q + 1, exact, for two losses; at width q two minima can be apart."""
    a, d, k = POLYNOMIALS[seed % 5]
    q = lifting.polynomial_dimension(a, d)
    logistic = problem(lifting.polynomial(*a), d, k, q + 1, seed, loss="logistic")
    # with all targets 1 the logistic loss of some activations has no minimum
    ones = Landscape(logistic.network, logistic.x, torch.ones_like(logistic.y), "logistic")
    for landscape in (problem(lifting.polynomial(*a), d, k, q + 1, seed), logistic, ones,
                      problem("relu", 2, k, 7, seed, n=6)):
        mine, theirs = starts(landscape, seed), starts(landscape, seed + 30)
        for i in range(5):
            s, t = mine[i], theirs[(i + seed) % 5]
            path = lifting.exchange(landscape, s, t, seed)
            assert torch.equal(path.points[0], s) and torch.equal(path.points[-1], t)
            level = float(path.losses[[0, -1]].max())
            assert exact(certify.path_below(landscape, path, level))
            assert not certify.path_below(landscape, path, level - 1e-6 * max(1, level))
            outputs = landscape.outputs(path.points)  # they change on one piece only, the last "hand over"
            change = (outputs[1:] - outputs[:-1]).abs().flatten(1).amax(1) > 1e-8 * (1 + float(outputs.abs().max()))
            last = max(j for j, name in enumerate(path.names) if name == "hand over")
            assert change.nonzero()[:, 0].tolist() in ([], [last])
    even = problem("quadratic", 2, 1, 4, seed)
    point = lifting.monotone(even, starts(even, seed)[0], seed).points[-1]
    level = float(even.value(point))
    assert exact(certify.path_below(even, lifting.exchange(even, point, mirror(even, point), seed), level))
    assert not certify.path_below(even, torch.stack([point, mirror(even, point)]), level)
    scalar = Landscape.of_function(lambda t: (t[1] * t[0] ** 2 - 1) ** 2, M=2)
    theta = backend.normal(500, 2, seed=seed, scale=2)
    under = theta[scalar.value(theta) < 1]
    assert bool((under[:, 1] > 0).all()) and bool((under[:, 0] != 0).all())
    assert {bool(w > 0) for w in under[:, 0]} == {True, False}
    crossing = theta.clone()
    crossing[:, 0] = 0.0
    assert bool((scalar.value(crossing) == 1).all())
    alone = Landscape(MLP([1, 1, 1], "quadratic", bias=False), [[1.0]], [1.0], "sse")
    with pytest.raises(ValueError, match="width 1; expected at least 2"):
        lifting.exchange(alone, [1.0, 1.0], [-1.0, 1.0])


# ---- squares

def signed_starts(landscape, seed):
    d, h, _ = landscape.network.widths
    made = starts(landscape, seed)
    for signs in (torch.ones(h), -torch.ones(h), (-1.0) ** torch.arange(h)):
        made.append(torch.cat([made[0][: h * d], signs.to(made[0]) * made[0][h * d :].abs()]))
    return made


def steps(path):
    """The longest step on a curved leg, relative to 1 + |theta|."""
    norms = path.points.norm(dim=1)
    size = (path.points[1:] - path.points[:-1]).norm(dim=1) / (1 + torch.maximum(norms[:-1], norms[1:]))
    return max([float(s) for s, name in zip(size, path.names, strict=True)
                if name in ("turn", "boost", "rescale", "straight in S")], default=0.0)


def on_axes_and_signs(T, h):
    """The square loss with |D|^2 + (tr D)^2 / 2, D = S - T, from d + 2^(d-1) samples."""
    d = len(T)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * d).view(-1, d)[2 ** (d - 1) :]  # the first one is 1
    x = torch.cat([torch.eye(d), signs / 2 ** (d / 4)]).double()
    return Landscape(MLP([d, h, 1], "quadratic", bias=False), x, ((x @ T) * x).sum(1), "sse")


def the_widths_are_the_best_possible(h, d, seed):
    """A spurious valley at h < d, and two mirror images apart at d."""
    T = torch.diag(torch.tensor([4.0] + [-3.0] * h + [0.0] * (d - 1 - h), dtype=torch.float64))
    narrow, theta = on_axes_and_signs(T, h), backend.normal(1000, h * (d + 1), seed=seed)
    D = quadratic.matrix(narrow, theta) - T.to(theta)
    metric = D.square().sum((1, 2)) + D.diagonal(dim1=1, dim2=2).sum(1).square() / 2
    assert torch.allclose(narrow.value(theta), metric)
    rows = torch.eye(d, dtype=torch.float64)[1 : h + 1].flatten()
    bottom = torch.cat([rows, -3 * torch.ones(h, dtype=torch.float64)]).to(theta)
    assert float(narrow.value(bottom)) == pytest.approx(24)
    best = bottom.clone()
    best[:d], best[h * d] = torch.eye(d, dtype=torch.float64)[0].to(theta), 4.0
    assert float(narrow.value(best)) == pytest.approx(13.5)
    for tried in (theta, bottom + 0.3 * theta):  # anywhere, and near the bottom
        tried[:, h * d :] = -tried[:, h * d :].abs()
        assert float(narrow.value(tried).min()) >= 16
        tried[:, h * d] = 0.0  # on the way out some output weight is 0
        assert float(narrow.value(tried).min()) >= 25
    assert not certify.path_below(narrow, torch.stack([bottom, best]), 24.99)
    wide, more = on_axes_and_signs(T, d), d - h  # with d units there is a way out
    start = torch.cat([bottom[: h * d], bottom[:d].repeat(more), bottom[h * d :], bottom.new_zeros(more)])
    assert float(quadratic.descend(wide, start).losses[-1]) < 1e-9
    full = on_axes_and_signs(torch.eye(d, dtype=torch.float64), d)
    eye = torch.cat([torch.eye(d, dtype=torch.float64).flatten(), torch.ones(d, dtype=torch.float64)]).to(theta)
    near = eye + 0.15 * backend.normal(1000, len(eye), seed=seed + 1)
    near = near[full.value(near) < 1]
    assert len(near) > 5 and bool((torch.linalg.det(near[:, : d * d].view(-1, d, d)) > 0).all())
    mirrored = eye.clone()
    mirrored[:d] *= -1
    assert float(full.value(mirrored)) < 1e-24 and not certify.path_below(full, torch.stack([eye, mirrored]), 0.99)
    singular = backend.normal(1000, len(eye), seed=seed + 2)
    singular[:, :d] = singular[:, d : 2 * d]
    assert float(full.value(singular).min()) >= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_quadratic_networks_of_width_d(seed):
    """P at width d, one valley at d + 1, along curves without jumps; and both widths are the best possible."""
    d, n = 1 + seed % 4, (40, 3)[seed // 4 % 2]
    landscape = problem("quadratic", d, 1, d, seed, n)
    floor = float(problem("quadratic", d, 1, d * (d + 1) // 2, seed, n).value(lifting.monotone(
        problem("quadratic", d, 1, d * (d + 1) // 2, seed, n), torch.zeros((d + 1) * d * (d + 1) // 2)).points[-1]))
    seen = set()
    for theta in signed_starts(landscape, seed):
        path = quadratic.descend(landscape, theta)
        assert certify.monotone_path(landscape, path, between=0) and torch.equal(path.points[0], theta)
        assert float(path.losses[-1]) == pytest.approx(floor, rel=1e-9, abs=1e-9)
        assert steps(path) < 0.21
        last = path.legs[-1]
        assert last[0] == "straight in S" or landscape.value(theta) == pytest.approx(floor)
        S = quadratic.matrix(landscape, path.points)  # constant, and then straight
        assert float((S[: last[1] + 1] - S[0]).abs().max()) < 1e-9 * (1 + float(S[0].abs().max()))
        way = S[last[1] :] - S[last[1]]
        assert int(torch.linalg.matrix_rank(way.flatten(1), atol=1e-9, rtol=1e-9)) <= 1
        seen |= set(path.names)
    wide = problem("quadratic", d, 1, d + 1, seed, n)
    ends = signed_starts(wide, seed + 30)
    for s, t in zip(signed_starts(wide, seed), ends[seed % 8 :] + ends[: seed % 8], strict=True):
        path = quadratic.connect(wide, s, t)
        assert torch.equal(path.points[0], s) and torch.equal(path.points[-1], t) and steps(path) < 0.21
        assert certify.path_below(wide, path, float(path.losses[[0, -1]].max()), between=0)
        settle = path.names.index("settle")
        assert float((path.points[settle + 1] - path.points[settle]).norm()) < 1e-7
        seen |= set(path.names)
    other = problem("quadratic", d, 1, d + 1, seed, n, "logistic")  # the same points, another convex loss
    path = quadratic.connect(other, signed_starts(wide, seed)[seed % 8], ends[(seed + 3) % 8])
    assert certify.path_below(other, path, float(path.losses[[0, -1]].max()), between=0)
    assert d == 1 or {"turn", "boost", "merge parallel units"} <= seen
    if d > 1:  # the chords are not the path
        path = quadratic.descend(landscape, signed_starts(landscape, seed)[7])
        assert not certify.monotone_path(landscape, path.points[::8].clone(), between=9) or len(path.points) < 20
    with pytest.raises(ValueError, match=f"width {d}; expected at least {d + 1}"):
        quadratic.connect(landscape, *signed_starts(landscape, seed)[:2])
    h = 1 + seed % 3
    the_widths_are_the_best_possible(h, h + 1 + seed % 2, seed)


# ---- the lesson's own cells

CELLS = ["lift", "narrow-check", "ranks", "starts", "monotone", "moved", "meet", "mirror", "exchange", "quadratic-run"]


@pytest.mark.parametrize("seed", [11, 12])
def test_the_lesson_with_other_seeds(seed):
    said, _ = rerun("2_linear/2_4_lifting", seed, ["cone-count", *CELLS])
    assert said["lift"].endswith("True\n") and said["ranks"].count("gap above 10^12: True") == 7
    assert said["narrow-check"].splitlines()[-1].endswith("[(2, 1), (2, 1), (4, 2), (4, 2), (1, 1)]")
    assert said["monotone"].count("4 of 4, 4 of 4") == 6 and "holds" in said["monotone"]
    assert said["moved"].startswith("as built: True\n") and said["moved"].count(": False") == 2
    assert said["moved"].endswith("landscape has width 10; expected at least the intrinsic dimension 11\n")
    assert said["meet"].count("16 of 16 certified exactly") == 3 and said["meet"].count("met: True") == 3
    assert said["mirror"] == "seven pieces: True\nstraight line: False\n"
    assert said["exchange"].count("4 of 4 certified exactly") == 3
    assert said["exchange"].endswith("between mirror images: True\nstraight line: False\n")
    assert said["quadratic-run"].count("7 of 7 never rise, 7 of 7 end") == 2
    assert "42 of 42 pairs" in said["quadratic-run"] and said["quadratic-run"].endswith("False\n")
