"""Lesson 5.4: every claim, and every certificate, with the data and the moved witness that could refute it."""

import math

import pytest
import torch

from losslab import MLP, Landscape, backend, certify, data, descend, embedding
from losslab.critical import inertia, manufacture

SEEDS = range(20)
ONE = MLP([1, 1, 1])


def planted(seed, sign=1):
    """Data B+ or B- for a random unit and a random size of the residual; seed 0 is the lesson's own."""
    if seed == 0:
        return data.definite(sign)
    u = backend.uniform(5, seed=backend.generator(seed, "planted")).tolist()
    theta = (0.6 + 0.9 * u[0], -0.8 + 1.6 * u[1], 0.5 + 1.5 * u[2], -1 + 2 * u[3])
    return data.definite(sign, theta, size=0.05 + 0.2 * u[4])


def equal_split(made, h):
    """The landscape, the bottom and the tangent of the equal split into h copies."""
    net, bottom = embedding.split(ONE, made.theta, 1, 1, [1 / h] * h)
    return Landscape(net, made.x, made.y), bottom, embedding.split_directions(ONE, made.theta, 1, 1, h)


def features(landscape, theta):
    """The (n, h) outputs of the last hidden layer; the output is linear in the weights behind them."""
    start, end, _ = landscape.network.slots[-1]
    return landscape.jacobian(theta)[..., start:end]


def refit(landscape, theta):
    """theta with the least squares solution for the output weights, by the shortest change."""
    start = landscape.network.slots[-1][0]
    change = torch.linalg.pinv(landscape.jacobian(theta)[..., start:]) @ (landscape.y - landscape.outputs(theta))
    new = theta.clone()
    new[..., start:] += change[..., 0]
    return new


def strictly_down(landscape, start):
    line = torch.stack([start, refit(landscape, start)])
    return certify.monotone_path(landscape, line, between=999, strict=True), float(landscape.value(line[1]))


def level_road(landscape, theta, seed):
    """The proof of P, executed: free a dependent unit, re-aim it while it is idle, until the rank is n; then fit."""
    net, x = landscape.network, landscape.x
    d, h = net.widths[0], net.widths[1]
    out = net.slots[-1][0]
    source, path = backend.generator(seed, "units"), [theta]
    for _ in range(landscape.n + 1):
        theta = path[-1].clone()
        phi = features(landscape, theta)
        s, kernel = torch.linalg.svdvals(phi), torch.linalg.svd(phi).Vh[-1]
        if s[landscape.n - 1] > 1e-9:
            break
        j = int(kernel.abs().argmax())
        theta[out : out + h] -= theta[out + j] / kernel[j] * kernel
        theta[out + j] = 0.0
        path.append(theta.clone())
        # Random units, steep enough to tell the samples apart; the one whose feature is farthest from the others' span.
        w = backend.normal(500, d, seed=source, scale=4.0)
        b = -(w * x[torch.randint(len(x), (500,), generator=source).to(x.device)]).sum(1)
        b = b + backend.normal(500, seed=source)
        tried = net.activation.value(w @ x.T + b[:, None])  # (500, n)
        U, size, _ = torch.linalg.svd(torch.cat([phi[:, :j], phi[:, j + 1 :]], 1))
        rest = tried @ U[:, int((size > 1e-9).sum()) :]
        best = int((rest.norm(dim=1) / tried.norm(dim=1).clamp_min(1e-3)).argmax())
        theta[j * d : (j + 1) * d], theta[h * d + j] = w[best], b[best]
        path.append(theta)
    assert len(path) <= 2 * landscape.n + 1
    return torch.stack([*path, refit(landscape, path[-1])])


# ---- P, PT and basins

def has_p(heights, strict=False):
    """Piecewise linear on nodes, walls outside: do paths that never rise (or always fall) reach the lowest height?"""
    lowest, n = min(heights), len(heights)
    good = {i for i in range(n) if heights[i] == lowest}
    while True:
        more = {i for i in range(n) if i not in good for j in (i - 1, i + 1)
                if j in good and (heights[j] < heights[i] or not strict and heights[j] == heights[i])}
        if not more:
            return len(good) == n
        good |= more


def has_pt(heights):
    level = any(a == b > min(heights) for a, b in zip(heights, heights[1:], strict=False))
    return not level and has_p(heights, strict=True)


def basins(heights):
    """The heights of all runs of equal nodes with higher nodes, or a wall, on both sides."""
    runs = [heights[0]]
    for value in heights[1:]:
        if value != runs[-1]:
            runs.append(value)
    walled = [math.inf, *runs, math.inf]
    return [b for a, b, c in zip(walled, walled[1:], walled[2:], strict=False) if a > b < c]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_p_and_pt_exclude(seed):
    met = set()
    for heights in torch.randint(4, (100, 7), generator=backend.generator(seed)).tolist():
        walls = any(b > min(heights) for b in basins(heights))
        p, pt = has_p(heights), has_pt(heights)
        assert not ((p or pt) and walls)
        assert p == (not walls)  # on a line with walls outside, basins are the only obstacle
        assert pt <= p
        met.add((walls, p, pt))
    assert met == {(True, False, False), (False, True, False), (False, True, True)}
    assert has_p([2, 1, 1, 0]) and not has_pt([2, 1, 1, 0])  # the shelf
    assert not has_pt([0, 1, 1, 0]) and has_pt([2, 1, 0, 1]) and not has_p([0, 1, 0.5, 2])
    # (t^2 - a t) / (1 + t^2), a = 1 in the lesson: one local minimum, global, and left of the maximum no way to it.
    a = 0.5 + float(backend.uniform(1, seed=seed)) if seed else 1.0
    tail = Landscape.of_function(lambda t: (t[0] ** 2 - a * t[0]) / (1 + t[0] ** 2), M=1)
    top, bottom = ((-1 + sign * math.sqrt(1 + a * a)) / a for sign in (-1, 1))
    slope = tail.gradient(torch.tensor([[top - 1e-3], [top + 1e-3], [bottom - 1e-3], [bottom + 1e-3]]))[:, 0]
    assert (slope > 0).tolist() == [True, False, False, True]
    assert certify.strict_minimum(tail, [bottom]) and float(tail.value([top])) > 1 > float(tail.value([-1e6])) - 1e-5
    left = top - torch.logspace(-3, 3, 200, dtype=torch.float64)[:, None]
    assert bool((tail.gradient(left) > 0).all()) and bool((tail.value(left) > 1).all())


def test_shelf_and_basin():
    def smooth(s):
        return 3 * s.clamp(0, 1) ** 2 - 2 * s.clamp(0, 1) ** 3

    def shelf(t):
        return 1 - smooth((t - 1) / 2) + t.clamp(max=0) ** 2 + (t - 3).clamp(min=0) ** 2

    def basin(t):
        return 1 + smooth(t) / 2 - 1.5 * smooth((t - 1) / 2) + t.clamp(max=0) ** 2 + (t - 3).clamp(min=0) ** 2

    flat, hollow = (Landscape.of_function(lambda t, f=f: f(t[0]), M=1) for f in (shelf, basin))
    assert certify.minimum_containing(hollow, [-0.6], [0.9], [0.0])
    assert not any(certify.minimum_containing(flat, [-0.6], [b], [0.0]) for b in (0.3, 0.9, 1.5))
    assert certify.monotone_path(flat, [[0.5], [3.0]], between=999)
    assert not certify.monotone_path(flat, [[0.5], [3.0]], between=999, strict=True)  # level ground: no PT
    assert not certify.monotone_path(hollow, [[0.0], [3.0]], between=999)
    on_shelf = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    assert bool((flat.value(on_shelf) == 1).all()) and bool((flat.gradient(on_shelf) == 0).all())
    run, held = (descend.langevin(landscape, torch.full((300, 1), start), 5000, 0.04, 0.04, seed=1)
                 for landscape, start in ((flat, 0.5), (hollow, 0.0)))
    assert int((run.theta > 1).sum()) > 270 and int((held.theta > 1).sum()) == 0


# ---- what width n gives

@pytest.mark.parametrize("seed", SEEDS)
def test_width_n_separates_n_points(seed):
    """The steps of the proof have a determinant near 2^(n - 1); Gaussian units have rank n."""
    n, d = 4 + seed % 5, 1 + seed % 3
    x = backend.normal(n, d, seed=seed)
    w = backend.normal(d, seed=seed + 100)
    z = (x @ w).sort().values
    gaps = z[1:] - z[:-1]
    t = torch.cat([z[:1] - 1, (z[1:] + z[:-1]) / 2])
    steps = torch.tanh(40 / gaps.min() * (z[:, None] - t))
    assert float(torch.linalg.det(steps)) == pytest.approx(2 ** (n - 1), rel=1e-9)
    units = MLP([d, n], output_activation="tanh")
    made = units(backend.normal(50, units.M, seed=backend.generator(seed, "weights"), scale=2.0), x)
    assert bool((torch.linalg.svdvals(made)[:, -1] > 1e-13).all())
    made[:, :, 0] = made[:, :, 1]  # two equal units: the rank that the lemma excludes for almost all weights
    assert bool((torch.linalg.svdvals(made)[:, -1] < 1e-13).all())


def hard_starts(landscape, seed):
    """Points where the features have a small rank: all zero, all units equal, half of them equal, and a random one."""
    net, h = landscape.network, landscape.network.widths[1]
    random = backend.normal(net.M, seed=backend.generator(seed, "weights"))
    layers = [(W.clone(), b.clone()) for W, b in net.layers(random)]
    (W, b), last = layers
    for count in (h, h // 2):
        V, c = W.clone(), b.clone()
        V[:count], c[:count] = W[0], b[0]
        yield net.flatten([(V, c), last])
    yield torch.zeros_like(random)
    yield random


@pytest.mark.parametrize("seed", SEEDS)
def test_what_width_n_gives(seed):
    n, d = 4 + seed % 4, 1 + seed % 3
    made = data.gaussian(n, d, 1, seed)
    landscape = Landscape(MLP([d, n + seed % 2, 1]), made.x, made.y)  # width n or n + 1
    for theta in hard_starts(landscape, seed):
        road = level_road(landscape, theta, seed)
        assert certify.monotone_path(landscape, road, between=30), "P"
        assert float(landscape.value(road[-1])) < 1e-15
        shaken = theta + 0.3 * backend.normal(landscape.M, seed=seed + 50)
        falls, end = strictly_down(landscape, shaken)
        assert falls and end < 1e-12, "PT"
    # (1) Where the features have rank n, the gradient by the output weights is as large as the residual asks for.
    r = landscape.outputs(shaken) - landscape.y
    phi = features(landscape, shaken)
    start, end, _ = landscape.network.slots[-1]
    smallest = float(torch.linalg.svdvals(phi)[landscape.n - 1])
    assert float(landscape.gradient(shaken)[start:end].norm()) >= 2 / n * smallest * float(r.norm()) * (1 - 1e-9) > 0


# ---- splitting

def critical_nets(seed):
    """(landscape, theta, neuron) at critical points: square loss in one and two dimensions, and cross-entropy."""
    yield Landscape(ONE, planted(seed).x, planted(seed).y), planted(seed).theta, 1
    net = MLP([2, 2, 1])
    x = backend.normal(40, 2, seed=seed)
    for draw in range(50):  # the first one whose two matrices are far from singular
        theta = 0.9 * backend.normal(9, seed=backend.generator(100 * seed + draw, "weights"))
        point = manufacture(net, x, 0.2, seed, theta=theta)
        matrices = (point.landscape.hessian(point.theta),
                    embedding.inner_hessian(point.landscape, point.theta, 1, 1 + seed % 2))
        if all(torch.linalg.eigvalsh(A).abs().min() > 1e-5 for A in matrices):
            break
    yield point.landscape, point.theta, 1 + seed % 2
    f = point.landscape.outputs(point.theta)
    chance = torch.sigmoid(f)
    targets = chance - 0.5 * (torch.minimum(chance, 1 - chance) / point.r.abs()).min() * point.r
    yield Landscape(net, point.landscape.x, targets, loss="logistic"), point.theta, 1 + seed % 2


@pytest.mark.parametrize("seed", SEEDS)
def test_splitting_a_unit(seed):
    """The inertia of the formula, for all signs and zeros of the coefficients; the outputs and the loss stay."""
    for landscape, theta, neuron in critical_nets(seed):
        net = landscape.network
        d = net.widths[0]
        small = inertia(landscape.hessian(theta))
        B = inertia(embedding.inner_hessian(landscape, theta, 1, neuron), tol=1e-12)
        assert small.zero == B.zero == 0
        for alphas in ([0.4, 0.6], [1.5, -0.5], [0.0, 1.0], [0.2, 0.5, 0.3], [0.7, 0.7, -0.4], [1.6, -0.2, -0.4],
                       [0.5, 0.0, 0.5], [1.3, 0.0, -0.3], [1.0, 0.0, 0.0, 0.0]):
            plus, zero, minus = (sum(sign(a) for a in alphas) for sign in
                                 (lambda a: a > 0, lambda a: a == 0, lambda a: a < 0))
            expected = (small.negative + (plus - 1) * B.negative + minus * B.positive,
                        zero * (d + 1) + len(alphas) - 1,
                        small.positive + (plus - 1) * B.positive + minus * B.negative)
            wider, wide = embedding.split(net, theta, 1, neuron, alphas)
            larger = Landscape(wider, landscape.x, landscape.y, landscape.loss)
            assert float(larger.value(wide)) == pytest.approx(float(landscape.value(theta)), rel=1e-13)
            assert certify.critical_point(larger, wide)
            assert certify.inertia(larger, wide, expected, tol=1e-9), (alphas, expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_local_minima_are_a_simplex(seed):
    """Inside: certified. One or more negative: index 2 for each. On the edge: a lower point as near as we like."""
    made, k = planted(seed), 5
    directions = embedding.split_directions(ONE, made.theta, 1, 1, k)
    source = backend.generator(seed)
    inside = 0.05 + backend.uniform(k, seed=source)
    net, theta = embedding.split(ONE, made.theta, 1, 1, inside / inside.sum())
    wide = Landscape(net, made.x, made.y)
    assert certify.degenerate_minimum(wide, theta, directions, points=50)
    around = theta + 1e-2 * torch.nn.functional.normalize(backend.normal(2000, net.M, seed=source), dim=1)
    assert float(wide.value(around).min()) >= float(wide.value(theta)) - 1e-15
    for negative in (1, 2, 3):
        alphas = 0.2 + backend.uniform(k, seed=source)
        alphas[:negative] *= -0.1
        theta = embedding.split(ONE, made.theta, 1, 1, alphas / alphas.sum())[1]
        assert not certify.degenerate_minimum(wide, theta, directions)
        assert inertia(wide.hessian(theta)).index == 2 * negative
    alphas = 0.2 + backend.uniform(k, seed=source)
    alphas[1] = 0.0
    theta = embedding.split(ONE, made.theta, 1, 1, alphas / alphas.sum())[1]
    found = inertia(wide.hessian(theta))
    assert found.negative == 0 and found.zero == k - 1 + 2
    assert not certify.degenerate_minimum(wide, theta, directions)
    inner = float(embedding.inner_hessian(Landscape(ONE, made.x, made.y), made.theta, 1, 1)[0, 0])
    for size in (0.5, 0.3, 0.1, 1e-3):
        idle = theta.clone()
        idle[1] += size  # the input weight of the idle copy
        assert float((wide.value(idle) - wide.value(theta)).abs()) < 1e-16
        slope = float(wide.gradient(idle)[2 * k + 1])
        lower = idle.clone()
        lower[2 * k + 1] -= 0.1 * slope
        assert size < 0.1 or float(wide.value(lower)) < float(wide.value(theta)) - 1e-15
    assert slope == pytest.approx(inner * size**2 / (2 * float(made.theta[2])), rel=0.1)  # at the smallest size


@pytest.mark.parametrize("seed", SEEDS)
def test_width_is_no_cure(seed):
    """Certified at widths 12, 50 and 200 with the predicted inertia, eigenvalue and loss; each moved witness fails."""
    made = planted(seed)
    narrow = Landscape(ONE, made.x, made.y)
    assert certify.strict_minimum(narrow, made.theta)
    smallest = float(torch.linalg.eigvalsh(embedding.inner_hessian(narrow, made.theta, 1, 1))[0])
    loss = float(narrow.value(made.theta))
    for h in (2, 12, 50, 200):
        wide, bottom, tangent = equal_split(made, h)
        certificate = certify.degenerate_minimum(wide, bottom, tangent, points=50)
        assert certificate, repr(certificate)
        assert certificate.measured["inertia"] == (0, h - 1, 2 * h + 2)
        assert certificate.measured["smallest non-zero"] == pytest.approx(smallest / h, rel=1e-3)
        assert float(wide.value(bottom)) == pytest.approx(loss, rel=1e-12) and loss > 2e-3
        assert not certify.degenerate_minimum(wide, bottom + 1e-6, tangent)
        if h > 2:
            assert not certify.degenerate_minimum(wide, bottom, tangent[1:])
            aimed = bottom + backend.normal(wide.M, seed=seed)
            assert float(wide.value(refit(wide, aimed))) < 1e-15 < loss
        for alphas in ([-0.1] + [1.1 / (h - 1)] * (h - 1), [0.0] + [1 / (h - 1)] * (h - 1)):
            assert not certify.degenerate_minimum(wide, embedding.split(ONE, made.theta, 1, 1, alphas)[1], tangent)


def test_width_is_no_cure_for_sigmoids_either():
    w, b, v, c = data.definite().theta.tolist()
    made, unit = data.definite(), MLP([1, 1, 1], "sigmoid")
    theta = torch.tensor([2 * w, 2 * b, 2 * v, c - v], dtype=torch.float64)
    for h in (11, 12, 50):
        net, bottom = embedding.split(unit, theta, 1, 1, [1 / h] * h)
        tangent = embedding.split_directions(unit, theta, 1, 1, h)
        assert certify.degenerate_minimum(Landscape(net, made.x, made.y), bottom, tangent, points=50)


def test_data_with_the_other_sign():
    made = data.definite(-1)
    wide, bottom, tangent = equal_split(made, 12)
    assert certify.inertia(wide, bottom, (22, 11, 4)) and not certify.degenerate_minimum(wide, bottom, tangent)
    outer = embedding.split(ONE, made.theta, 1, 1, [2.1] + [-0.1] * 11)[1]
    assert certify.degenerate_minimum(wide, outer, tangent, points=50)


# ---- the ways out

def by_way_of_the_corner(made, h):
    """The wide landscape, its minimum, everything given to the first copy, and the idle copies aimed as steps."""
    wide, bottom, _ = equal_split(made, h)
    parked = embedding.split(ONE, made.theta, 1, 1, [1.0] + [0.0] * (h - 1))[1]
    aimed = parked.clone()
    aimed[1:h], aimed[h + 1 : 2 * h] = 3.0, -3.0 * torch.linspace(-2.7, 2.7, h - 1).to(aimed)
    return wide, bottom, parked, aimed


@pytest.mark.parametrize("seed", SEEDS)
def test_both_ways_out(seed):
    """The level road, and PT's line, strictly falling at 1,001 points for three sizes; both fail when moved."""
    made, h = planted(seed), 12
    wide, bottom, parked, aimed = by_way_of_the_corner(made, h)
    road = torch.stack([bottom, parked, aimed, refit(wide, aimed)])
    assert certify.monotone_path(wide, road, between=332) and certify.fits(wide, road[-1])
    assert float((road[1:] - road[:-1]).norm(dim=1).sum()) < 40
    assert not certify.monotone_path(wide, road, between=332, strict=True)  # two legs are level
    assert not certify.monotone_path(wide, road[[0, 2, 3]], between=332)  # not parked first
    assert not certify.fits(wide, bottom)
    for eps in (0.01, 0.1, 0.5):
        start = bottom.clone()
        start[: 2 * h] += eps * backend.normal(2 * h, seed=seed)
        falls, end = strictly_down(wide, start)
        assert falls and falls.how == "sampled at 1,001 points" and end < 1e-9
        too_far = torch.stack([start, 2 * refit(wide, start) - start])
        assert not certify.monotone_path(wide, too_far, between=999, strict=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_short_road_that_falls(seed):
    """The level road with the output bias off by eps and coming back: strictly falling, of a length free of eps."""
    made, h = planted(seed), 12
    wide, bottom, parked, aimed = by_way_of_the_corner(made, h)
    here = float(wide.value(bottom))

    def falling_road(*off):
        corners = torch.stack([bottom, parked, aimed])
        corners[:, -1] += torch.tensor(off).to(corners)
        return torch.cat([corners, refit(wide, corners[-1:])])

    lengths = []
    for eps in (1e-1, 1e-2, 1e-3, 1e-4):
        road = falling_road(eps, 0.7 * eps, 0.4 * eps)
        falls = certify.monotone_path(wide, road, between=333, strict=True)
        assert falls and falls.how == "sampled at 1,003 points" and certify.fits(wide, road[-1])
        assert float((road[0] - bottom).norm()) == pytest.approx(eps)
        for corner, off in zip(road, (eps, 0.7 * eps, 0.4 * eps), strict=False):
            assert float(wide.value(corner)) - here == pytest.approx(off**2, rel=1e-5)  # sum r_i = 0
        assert not certify.monotone_path(wide, falling_road(eps, eps, eps), between=333, strict=True)
        assert not certify.monotone_path(wide, falling_road(0.4 * eps, 0.7 * eps, eps), between=333)
        lengths.append(float((road[1:] - road[:-1]).norm(dim=1).sum()))
    assert max(lengths) < min(lengths) + 0.1 and max(lengths) < 40
    if seed == 0:
        assert lengths == pytest.approx([20] * 4, abs=0.1)
    # From input weights that are off by noise, where the straight line is 10^6 long: one leg more.
    own, bottom, _ = equal_split(planted(0), h)
    parked = embedding.split(ONE, planted(0).theta, 1, 1, [1.0] + [0.0] * (h - 1))[1]
    aimed[0], aimed[h], aimed[2 * h :] = parked[0], parked[h], parked[2 * h :]
    wide, start = own, bottom.clone()
    start[: 2 * h] += 0.01 * backend.normal(2 * h, seed=seed)
    off = float((own.outputs(start) - own.y).mean()) / 2
    road = torch.cat([start[None], falling_road(off, 0.8 * off, 0.5 * off)])
    assert certify.monotone_path(own, road, between=499, strict=True)
    assert float((road[1:] - road[:-1]).norm(dim=1).sum()) < 20.1 < 1e5 < float((refit(own, start) - start).norm())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_price_of_staying_near(seed):
    """The bound holds at every fitted point near the split; the length grows like eps^-2."""
    made, h = planted(seed), 12
    wide, bottom, _ = equal_split(made, h)
    r = (wide.outputs(bottom) - wide.y)[:, 0]
    gathered = float((r.abs() * (1 + wide.x[:, 0] ** 2)).sum())
    z = torch.linspace(-5, 5, 100_001, dtype=torch.float64)
    bend = torch.func.vmap(torch.func.grad(torch.func.grad(torch.tanh)))(z).abs().max()
    m = 4 / (3 * math.sqrt(3))
    assert m == pytest.approx(float(bend), rel=1e-8)
    lengths = []
    for eps in (0.005, 0.02, 0.1, 0.5, 3.0):
        start = bottom.clone()
        start[: 2 * h] += eps * backend.normal(2 * h, seed=seed)
        rho = float((start - bottom)[: 2 * h].view(2, h).norm(dim=0).max())
        end = refit(wide, start)
        assert float(wide.value(end)) < 1e-6  # float64: output weights of size 10^7
        assert float(end[2 * h : 3 * h].abs().sum()) >= 2 * float(r @ r) / (m * rho**2 * gathered)
    own, bottom, _ = equal_split(planted(0), h)  # the lesson's data, other noise
    for eps in (0.005, 0.02):
        start = bottom.clone()
        start[: 2 * h] += eps * backend.normal(2 * h, seed=seed)
        lengths.append(float((refit(own, start) - start).norm()))
    assert 1.5 < math.log(lengths[0] / lengths[1]) / math.log(4) < 3
    # Each unit on its own: what is left of its feature is of second order, with the constant of the proof.
    shifts = 0.5 * backend.normal(200, 2, seed=seed)
    w, b = made.theta[0], made.theta[1]
    moved = torch.tanh((w + shifts[:, :1]) * wide.x[:, 0] + b + shifts[:, 1:])
    assert bool(((moved @ r).abs() <= m / 2 * shifts.square().sum(1) * gathered).all())


@pytest.mark.parametrize("seed", SEEDS)
def test_shaken_gradient_descent_stays(seed):
    wide, bottom, _ = equal_split(planted(0), 12)
    shaken = bottom + 0.05 * torch.nn.functional.normalize(backend.normal(1, wide.M, seed=seed), dim=1)
    run = descend.gradient_descent(wide, shaken, steps=1500, step=0.1)
    assert 0.0225 - 1e-12 < float(run.value) < 0.02251 and float((run.theta - bottom).norm()) < 0.1


# ---- dead units, and the two lines

def dead_network(seed, n=5, h=20):
    x = (backend.normal(n, 1, seed=seed) * 0.5 + torch.arange(n).to(backend.device())[:, None] * 3).double()
    y = backend.normal(n, seed=seed + 100)
    landscape = Landscape(MLP([2, h, 1], "relu", bias=False), torch.cat([x, torch.ones_like(x)], 1), y)
    w = 0.3 * backend.normal(h, seed=backend.generator(seed, "weights"))
    theta = torch.cat([torch.stack([w, -(w[:, None] * x[:, 0]).amax(1) - 1.0], 1).flatten(),
                       backend.normal(h, seed=seed + 200)])
    return landscape, theta


@pytest.mark.parametrize("seed", SEEDS)
def test_a_dead_network(seed):
    """Constant in the ball, not beyond it; no strictly falling line starts there; the level road leads to 0."""
    landscape, theta = dead_network(seed)
    h, n = 20, 5
    before = theta[: 2 * h].view(h, 2) @ landscape.x.T
    ratio = -before / landscape.x.norm(dim=1)
    rho = float(ratio.min())
    assert bool((before < 0).all()) and rho > 0
    here = float(landscape.value(theta))
    assert here == pytest.approx(float(landscape.y.square().mean()), rel=1e-14)
    draw = backend.generator(seed, "directions")
    unit = torch.nn.functional.normalize(backend.normal(2000, landscape.M, seed=draw), dim=1)
    assert float((landscape.value(theta + 0.999 * rho * unit) - here).abs().max()) < 1e-14
    j, i = divmod(int(ratio.argmin()), n)  # the radius is the best possible: the nearest wall is this far
    beyond = theta.clone()
    beyond[2 * j : 2 * j + 2] += 1.01 * rho * landscape.x[i] / landscape.x[i].norm()
    assert float((landscape.value(beyond) - here).abs()) > 1e-12
    near = theta + 0.5 * rho * unit[0]
    assert int(torch.linalg.matrix_rank(features(landscape, near))) == 0
    assert not strictly_down(landscape, near)[0]
    knots = landscape.x[:, 0].sort().values
    silent, aimed = theta.clone(), theta.clone()
    silent[2 * h :] = aimed[2 * h :] = 0.0
    start = torch.cat([knots[:1] - 1, (knots[1:] + knots[:-1]) / 2])
    aimed[: 2 * h] = torch.stack([torch.ones(h).to(start), -start[torch.arange(h).clamp(max=n - 1)]], 1).flatten()
    road = torch.stack([theta, silent, aimed, refit(landscape, aimed)])
    assert certify.monotone_path(landscape, road, between=99) and certify.fits(landscape, road[-1], tol=1e-9)
    # The ball is sub-optimal with a single living unit too; with one input repeated and opposite targets it is not.
    alone = silent.clone()
    alone[:2] = aimed[:2]
    assert float(landscape.value(refit(landscape, alone))) < here - 1e-9
    twice = Landscape(MLP([2, h, 1], "relu", bias=False), landscape.x[[0, 0]], [1.0, -1.0])
    assert float(twice.value(theta)) == 1 and float(twice.value(2 * backend.normal(500, twice.M, seed=draw)).min()) >= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_two_lines(seed):
    def hyperbola(z):
        return torch.sqrt(1 + z * z) - 1

    source = backend.generator(seed)
    n, d, h = 4, 2, 8
    x, y = backend.normal(n, d, seed=source), -backend.uniform(n, low=0.2, high=2, seed=source)
    v = backend.uniform(h, low=0.2, high=1, seed=source)
    landscape = Landscape(MLP([d, h, 1], hyperbola, bias=False), x, y)
    flat = torch.cat([torch.zeros(h * d).to(v), v])
    here = float(landscape.value(flat))
    assert here == pytest.approx(float(y.square().mean()), rel=1e-14)
    around = torch.nn.functional.normalize(backend.normal(2000, landscape.M, seed=source), dim=1)
    assert float(landscape.value(flat + 0.999 * float(v.min()) * around).min()) >= here
    beyond = flat.clone()
    beyond[: h * d], beyond[h * d :] = 0.1 * backend.normal(h * d, seed=source), -0.5
    assert float(landscape.value(beyond)) < here
    generic = torch.cat([2 * backend.normal(h * d, seed=source), v])
    assert float(landscape.value(refit(landscape, generic))) < 1e-12


# ---- Li, Ding and Sun

@pytest.mark.parametrize("seed", SEEDS)
def test_wide_networks_have_no_bad_basin(seed):
    """From hard starts a path that never rises leads to 0, for ReLU and a sine; PT for a deep net; narrow: strict."""
    n, d = 4 + seed % 3, 1 + seed % 2
    made = data.gaussian(n, d, 1, seed)
    for activation in ("relu", torch.sin):
        landscape = Landscape(MLP([d, n, 1], activation), made.x, made.y)
        for theta in hard_starts(landscape, seed):
            road = level_road(landscape, theta, seed)
            assert certify.monotone_path(landscape, road, between=30)
            assert float(landscape.value(road[-1])) < 1e-15
    deep = Landscape(MLP([d, 2, n, 1]), made.x, made.y)
    theta = deep.network.init(seed, scale=2.0)
    (W, b), *_ = deep.network.layers(theta)
    W[1], b[1] = W[0], b[0]  # a view: the two units of the first layer are equal
    falls, end = strictly_down(deep, theta + 0.3 * backend.normal(deep.M, seed=seed + 1))
    assert falls and end < 1e-12
    assert certify.strict_minimum(Landscape(ONE, planted(seed).x, planted(seed).y), planted(seed).theta)
