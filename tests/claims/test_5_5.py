"""Lesson 5.5: every claim, and every certificate, with the data that could refute it."""

import ast
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from scipy import special, stats

from losslab import MLP, Landscape, backend, certify, data, descend

LESSON = Path(__file__).parents[2] / "lessons" / "5_traps" / "5_5_representation.ipynb"
SEEDS = range(20)
F64 = torch.float64


def of_the_lesson(*ids):
    """The functions that these cells of the lesson define: what a reader sees is what is tested."""
    cells = {cell["id"]: "".join(cell["source"]) for cell in json.loads(LESSON.read_text(encoding="utf-8"))["cells"]}
    names = {"torch": torch, "math": math, "MLP": MLP, "certify": certify}
    for key in ids:
        tree = ast.parse(cells[key])
        tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        exec(compile(tree, key, "exec"), names)  # noqa: S102
    return names


LIB = of_the_lesson("slider-frames", "certificate-bound", "certificate-blind", "certificate-bounded", "circle")
F, interpolant, represents = LIB["F"], LIB["interpolant"], LIB["represents"]
out_of_reach, bounded, wrong_share = LIB["out_of_reach"], LIB["bounded"], LIB["wrong_share"]
LIB["bend"] = BEND = float((4 * math.pi**2 * torch.sin(2 * math.pi * (t := torch.linspace(0, 1, 20001, dtype=F64)))
                            + 12.5 * math.pi**2 * torch.cos(5 * math.pi * t)).abs().max())


def curve(seed, terms=4):
    """A random smooth function on the line and its second derivative."""
    source = backend.generator(seed, "curve")
    a, b = backend.normal(terms, seed=source).cpu(), backend.uniform(terms, high=2 * math.pi, seed=source).cpu()
    k = torch.arange(1, terms + 1, dtype=F64)
    return (lambda x: (a * torch.sin(k * x[..., None] * 2 + b)).sum(-1),
            lambda x: -(4 * k**2 * a * torch.sin(k * x[..., None] * 2 + b)).sum(-1))


def sup_error(function, m, points):
    net, theta = interpolant(function, m)
    assert net.widths == (1, m, 1) and net.activation.name == "relu"
    x = torch.linspace(0, 1, m * points + 1, dtype=F64)
    e = (net(theta, x[:, None])[:, 0].cpu() - function(x)).abs()
    assert float(e[::points].max()) < 1e-11 * (1 + m)  # it passes through the knots
    return float(e.max())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_interpolant(seed):
    """The bound for each m; the constant in the limit, from both sides; a function that is only continuous."""
    function, second = (F, None) if seed == 0 else curve(seed)
    most = BEND if seed == 0 else float(second(torch.linspace(0, 1, 20001, dtype=F64)).abs().max())
    for m in (1, 2, 3, 7, 20, 64):
        assert sup_error(function, m, 64) <= most / 8 / m**2 * (1 + 1e-3)
    assert 0.985 < sup_error(function, 256, 16) * 256**2 / (most / 8) < 1.001
    c = float(backend.uniform(1, seed=seed))
    for m in (4, 64, 1024):  # its values change by at most m^-0.3 within 1/m, and the net lies between two of them
        assert sup_error(lambda x: (x - c).abs() ** 0.3, m, 64) <= m**-0.3


def test_the_certificate_of_the_interpolant_and_a_moved_one():
    for m in (4, 16, 33, 64):
        net, theta = interpolant(F, m)
        bound = BEND / 8 / m**2
        assert represents(net, theta, bound)
        if m >= 16:
            assert not represents(net, theta, 0.9 * bound)  # the constant 1/8 is needed
        for entry in (-1, m, 2 * m):  # the output bias, the first kink, the first slope
            moved = theta.clone()
            moved[entry] += bound
            assert not represents(net, moved, bound)


def test_the_square_root():
    for m in (1, 2, 3, 5, 16, 100, 777):
        assert sup_error(torch.sqrt, m, 8) == pytest.approx(1 / (4 * m**0.5), rel=1e-9)
        net, theta = interpolant(torch.sqrt, m)
        at = torch.tensor([[1 / (4 * m)]], dtype=F64)  # where the error is largest
        assert float(at.sqrt() - net(theta, at).cpu()) == pytest.approx(1 / (4 * m**0.5), rel=1e-9)


def grid(d, points, reach=1.0):
    side = torch.linspace(-reach, reach, points, dtype=F64)
    return torch.cartesian_prod(*[side] * d).reshape(-1, d)


@pytest.mark.parametrize("seed", SEEDS)
def test_relu_nets_approximate_continuous_functions(seed):
    """The two steps of the proof, carried out in the plane: exponentials, then one interpolant for each of them."""
    source = backend.generator(seed)
    x, w = grid(2, 21), backend.normal(60, 2, seed=source, scale=1.5).cpu()
    turn = float(backend.uniform(1, high=2 * math.pi, seed=source))
    along = math.cos(turn) * x[:, 0] + math.sin(turn) * x[:, 1]
    for y, reached in ((torch.cos(2 * along) * x[:, 0], 0.01), (along.abs(), 0.15)):
        features = torch.exp(x @ w.T)
        scale, c = features.norm(dim=0), torch.zeros(60, dtype=F64)
        first = []
        for k in (5, 60):  # more exponentials come closer
            half = features[:, :k] / scale[:k]
            c[:k] = torch.linalg.lstsq(half, y[:, None], rcond=1e-8, driver="gelsd").solution[:, 0] / scale[:k]
            first.append(float((features @ c - y).abs().max()))
        assert first[1] < reached and first[1] < 0.3 * first[0]
        second = []
        for m in (100, 200):  # knots for each exponential: on the square |<w, x>| <= T
            total, allowed, wide = torch.zeros(len(x), dtype=F64), 1e-7, MLP([2, m, 1], "relu")
            for k, T in enumerate(w.abs().sum(1).tolist()):
                net, theta = interpolant(lambda s, T=T: torch.exp(2 * T * s - T), m)  # t = 2 T s - T with s in [0, 1]
                (W1, b1), (W2, b2) = net.layers(theta)
                first_layer = (W1 @ w[k : k + 1] / (2 * T), b1 + 0.5)
                total += wide(wide.flatten([first_layer, (c[k] * W2, c[k] * b2)]), x)[:, 0]
                allowed += float(c[k].abs()) * (2 * T / m) ** 2 * math.exp(T) / 8
            second.append(float((total - features @ c).abs().max()))
            assert second[-1] <= allowed
        assert second[1] < 0.5 * second[0]  # in theory a quarter


BOUNDED = {"tanh": torch.tanh, "logistic": torch.sigmoid, "step": lambda z: (z > 0).double(), "sin": torch.sin,
           "bump": lambda z: torch.exp(-z * z), "odd": lambda z: torch.where(z.abs() < 1, z.sign(), 0.1 * torch.cos(z))}


def units(sigma, x, m, seed, spread=4.0):
    """m random units at the points x (n, d): kinks anywhere in the cube of half-width 1."""
    source = backend.generator(seed, "units")
    w, c = backend.normal(m, x.shape[1], seed=source, scale=spread).cpu(), backend.uniform(
        m, x.shape[1], low=-1, seed=source).cpu()
    return sigma(x @ w.T - (w * c).sum(1))


def fit(features, y, weights=None):
    """Least squares with the given weights of the points."""
    root = torch.ones(len(y), dtype=F64) if weights is None else weights.sqrt()
    scale = features.norm(dim=0).clamp_min(1e-12)
    a = torch.linalg.lstsq(root[:, None] * features / scale, (root * y)[:, None], rcond=1e-12, driver="gelsd").solution
    return (features / scale @ a)[:, 0]


@pytest.mark.parametrize("seed", SEEDS)
def test_hornik(seed):
    """Bounded activations, continuous or not: any values at 30 atoms; and a jump in the plane in L^1, L^2, L^4."""
    source = backend.generator(seed)
    atoms = backend.uniform(30, 2, low=-1, seed=source).cpu()  # a finite measure with 30 atoms: L^p is all of R^30
    values = backend.normal(30, seed=source).cpu()
    x = backend.normal(400, 2, seed=source, scale=0.6).cpu()  # a Gaussian measure, sampled
    weights = torch.exp(-x[:, 0])  # ... with another density
    jump = (x.square().sum(1) < 0.5).double()
    for name, sigma in BOUNDED.items():
        assert float((fit(units(sigma, atoms, 4000, seed), values) - values).abs().max()) < 1e-6, name
        for p in (1, 2, 4):
            few, many = (fit(units(sigma, x, m, seed), jump, weights) - jump for m in (3, 300))
            few, many = (float((weights * e.abs() ** p).sum() ** (1 / p)) for e in (few, many))
            assert many < 0.5 * few, (name, p)
    # Bounded and not constant, but 0 almost everywhere: nothing at all is fitted.
    point = units(lambda z: (z == 0).double(), atoms, 400, seed)
    assert float((fit(point, values) - values).abs().max()) == float(values.abs().max())
    # Part 2, for the continuous ones: the largest error on a compact set falls too.
    fine, smooth = torch.linspace(-1, 1, 801, dtype=F64)[:, None], curve(seed)[0](torch.linspace(0, 1, 801, dtype=F64))
    for name in ("tanh", "logistic", "sin", "bump"):
        assert float((fit(units(BOUNDED[name], fine, 100, seed, 8.0), smooth) - smooth).abs().max()) < 1e-3, name
    # A polynomial is not bounded, and does not do it: six atoms in general position exhaust a quadratic in the plane.
    assert float((fit(units(torch.square, atoms, 400, seed), values) - values).abs().max()) > 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_the_ramp(seed):
    """Bounded, continuous, not constant, a ReLU net of two units; as a bounded activation it passes Hornik's test."""
    def ramp(z):
        return z.relu() - (z - 1).relu()

    z = backend.normal(10_000, seed=seed, scale=3.0).cpu()
    assert bool(((ramp(z) >= 0) & (ramp(z) <= 1 + 1e-12)).all()) and float(ramp(z).max() - ramp(z).min()) > 0.99
    net = MLP([1, 2, 1], "relu")
    theta = torch.tensor([1.0, 1.0, 0.0, -1.0, 1.0, -1.0, 0.0], dtype=F64)
    assert torch.allclose(net(theta, z[:, None])[:, 0].cpu(), ramp(z), atol=1e-12)
    source = backend.generator(seed)
    atoms, values = backend.uniform(30, 2, low=-1, seed=source).cpu(), backend.normal(30, seed=source).cpu()
    assert float((fit(units(ramp, atoms, 400, seed), values) - values).abs().max()) < 1e-6
    x = torch.linspace(-1, 1, 801, dtype=F64)[:, None]
    y = curve(seed)[0](torch.linspace(0, 1, 801, dtype=F64))
    errors = [float((fit(units(ramp, x, m, seed, 8.0), y) - y).abs().max()) for m in (4, 200)]
    assert errors[1] < 0.05 and errors[1] < 0.2 * errors[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_leshno_lin_pinkus_schocken(seed):
    """No polynomial, whatever else it is: the error falls. A polynomial: it stays, above a certified floor."""
    x = torch.linspace(-1, 1, 801, dtype=F64)[:, None]
    y = curve(seed, terms=6)[0](torch.linspace(0, 1.6, 801, dtype=F64))
    others = {"tanh": torch.tanh, "relu": torch.relu, "abs": torch.abs, "relu^2": lambda z: z.relu() ** 2,
              "step": lambda z: (z > 0).double(), "exp": torch.exp, "z sin z": lambda z: z * torch.sin(z),
              "nearly a polynomial": lambda z: z**2 + 0.01 * torch.sin(2 * z)}
    for name, sigma in others.items():
        spread = 3.0 if name == "exp" else 8.0
        errors = [float((fit(units(sigma, x, m, seed, spread), y) - y).abs().max()) for m in (3, 400)]
        assert errors[1] < (0.35 if name == "step" else 0.1) * errors[0], (name, errors)
    for q in (1, 2, 3, 4):
        errors = [float((fit(units(lambda z, q=q: z**q + z, x, m, seed), y) - y).abs().max()) for m in (10, 50, 200)]
        assert max(errors) - min(errors) < 1e-6 * max(errors)  # the same polynomial, whatever the width
        floor, _, _ = best_floor(lambda t: curve(seed, terms=6)[0](0.8 * (t + 1)), q, seed)
        assert errors[-1] >= floor > 0


def divided(t):
    """The weights of the proposition for the points t."""
    gaps = t[:, None] - t + torch.eye(len(t), dtype=F64)
    weights = 1 / gaps.prod(1)
    return weights / weights.abs().sum()


def best_floor(function, q, seed, tries=300):
    """The best lower bound over random sets of q + 2 points in [-1, 1], with its points and weights."""
    sets = backend.uniform(tries, q + 2, low=-1, seed=backend.generator(seed, "points")).cpu().sort(1).values
    bounds = [float((divided(t) * function(t)).sum().abs()) for t in sets]
    best = max(range(tries), key=bounds.__getitem__)
    return bounds[best], sets[best], divided(sets[best])


@pytest.mark.parametrize("seed", SEEDS)
def test_polynomials_stay_where_they_are(seed):
    """Rank C(d + q, q) at any width; the floor holds for fitted nets; its weights are blind, and not when moved."""
    source = backend.generator(seed)
    for d, q in ((1, 2), (1, 5), (2, 2), (2, 3), (3, 2)):
        x = backend.uniform(150, d, low=-1, seed=source).cpu()
        coefficients = backend.normal(q + 1, seed=source).cpu()

        def sigma(z, a=coefficients):
            return sum(c * z**k for k, c in enumerate(a))

        for width in (60, 120):
            singular = torch.linalg.svdvals(units(sigma, x, width, seed, 1.0))
            dimension = math.comb(d + q, q)
            assert singular[dimension - 1] > 1e-6 * singular[0] and singular[dimension] < 1e-10 * singular[0]
    function = curve(seed)[0]
    for q in (1, 2, 4):
        floor, t, weights = best_floor(function, q, seed)
        assert float(weights.abs().sum()) == pytest.approx(1)
        assert max(abs(float((weights * t**k).sum())) for k in range(q + 1)) < 1e-12
        assert bool((weights[:-1] * weights[1:] < 0).all())  # signs alternate
        best = fit(torch.stack([t**k for k in range(q + 1)], 1), function(t))
        assert float((best - function(t)).abs().max()) >= floor * (1 - 1e-9)
        moved = t.clone()
        moved[1] += 0.05 * (t[2] - t[1])
        assert max(abs(float((weights * moved**k).sum())) for k in range(q + 1)) > 1e-6


def test_the_certificates_of_impossibility_and_moved_ones():
    quadratic, quartic = [0, 0.3835, 0.6165, 1], [0, 0.1895, 0.397, 0.603, 0.8105, 1]
    assert out_of_reach(quadratic, 2, 0.839) and out_of_reach(quartic, 4, 0.572)
    assert not out_of_reach(quadratic, 2, 0.84) and not out_of_reach(quartic, 4, 0.573)  # more than the truth
    assert not out_of_reach(quadratic, 3, 0.1)  # four points are not blind to cubics
    for i in range(4):
        moved = list(quadratic)
        moved[i] += 0.005 if i < 3 else -0.005
        assert not out_of_reach(quadratic, 2, 0.5, at=moved)
    # The floors are reached: minimax polynomials, found by weighting the points where the error is largest.
    x = torch.linspace(0, 1, 1001, dtype=F64)
    for q, floor in ((2, 0.839), (4, 0.572)):
        weights, powers = torch.ones_like(x), torch.stack([(2 * x - 1) ** k for k in range(q + 1)], 1)
        for _ in range(400):  # Lawson's iteration
            e = (fit(powers, F(x), weights) - F(x)).abs()
            weights = weights * e / (weights * e).mean()
        assert floor <= float(e.max()) < floor + 0.01


@pytest.mark.parametrize("seed", SEEDS)
def test_no_condition_can_go(seed):
    source = backend.generator(seed)
    x = torch.linspace(0.01, 3, 300, dtype=F64)
    # 1. No biases and tanh.
    net = MLP([1, 20, 1], "tanh", bias=False)
    theta = backend.normal(50, net.M, seed=source, scale=2.0)
    function = curve(seed)[0]
    e = [(net(theta, (s * x)[:, None])[..., 0].cpu() - function(s * x)).abs() for s in (1, -1)]
    assert bool((torch.maximum(*e) >= (function(x) + function(-x)).abs() / 2 - 1e-12).all())
    # 2. The whole line: ReLU nets beyond their last kink.
    net = MLP([1, 10, 1], "relu")
    theta = backend.normal(50, net.M, seed=source)
    theta[0, net.slots[1][0] : net.slots[1][1]] = 0  # one of them is constant
    (W, b), _ = net.layers(theta)
    for one, last in zip(theta, (-b / W[..., 0]).amax(1).tolist(), strict=True):
        far = max(last, 0) + torch.logspace(0, 8, 4000, dtype=F64)
        assert float((torch.sin(far) - net(one, far[:, None])[:, 0].cpu()).abs().max()) > 0.999
    # 3. p = infinity, and the ramp's L^p error in closed form.
    net = MLP([1, 10, 1], "tanh")
    theta = backend.normal(50, net.M, seed=source, scale=20.0)
    near = torch.tensor([[0.5 - 1e-9], [0.5]], dtype=F64)
    g = net(theta, near)[..., 0].cpu()
    assert bool((torch.maximum(g[:, 0].abs(), (1 - g[:, 1]).abs()) >= 0.5 - 1e-4).all())
    for p, width in itertools.product((1, 2, 5), (0.5, 0.1, 0.01)):
        u = (torch.arange(20_000, dtype=F64) + 0.5) / 20_000 - 0.5  # midpoints of cells in the ramp, of width 1
        ramp = (u + 0.5).clamp(0, 1)
        measured = float(width * ((ramp - (u >= 0).double()).abs() ** p).mean()) ** (1 / p)
        assert measured == pytest.approx(0.5 * (width / (p + 1)) ** (1 / p), rel=1e-6)
    area_on_the_whole_plane(seed)


def squares(g, T, p, cells=10):
    """The integral of |g|^p over the square of half-width T, by midpoints; g takes points (n, 2)."""
    side = (torch.arange(2 * T * cells, dtype=F64) + 0.5) / cells - T
    return float((g(torch.cartesian_prod(side, side)).abs() ** p).mean()) * (2 * T) ** 2


def area_on_the_whole_plane(seed):
    """4. The integral of |g|^p grows at least like the side of the square, for nets that cancel too; not on a line."""
    source = backend.generator(500 + seed)
    turn = math.pi * (torch.arange(3, dtype=F64) + 0.6 * backend.uniform(3, seed=source).cpu()) / 3
    u = torch.stack([turn.cos(), turn.sin()], 1)  # no two of them parallel
    steep, shift = (backend.uniform(3, low=a, high=b, seed=source).cpu() for a, b in ((1, 2), (-1, 1)))
    height = backend.uniform(3, low=0.5, high=1.5, seed=source).cpu() * torch.tensor([1.0, -1.0, 1.0], dtype=F64)

    def ridges(x):  # six units in three parallel pairs: each pair vanishes away from a line
        z = steep * (x @ u.T) + shift
        return (torch.tanh(z + 1) - torch.tanh(z - 1)) @ height

    net = MLP([2, 6, 1], "tanh")
    one = backend.normal(net.M, seed=source)
    for p in (1, 2, 3):
        for g, times in ((ridges, 1.8), (lambda x: net(one, x)[:, 0].cpu(), 3)):  # like T, and like T^2
            assert squares(g, 20, p) > times * squares(g, 10, p) > 0
    # One ridge along an axis, p = 1, in closed form; on the line the same two units have the integral 4 a for every T.
    a = 0.5 + float(backend.uniform(1, seed=source))

    def bump(z):
        return torch.tanh(z + a) - torch.tanh(z - a)

    for T in (10, 20):
        one_side = 2 * (math.log(math.cosh(T + a)) - math.log(math.cosh(T - a)))
        assert one_side == pytest.approx(4 * a, rel=1e-6)
        assert squares(lambda x: bump(x[:, 0]), T, 1) == pytest.approx(2 * T * one_side, rel=1e-6)
    # The proof's step: differences along u_2 and u_3, turned by a quarter, leave a function of <u_1, x> alone.
    along, x = torch.tensor([-u[0, 1], u[0, 0]], dtype=F64), 3 * backend.normal(200, 2, seed=source).cpu()

    def without(g, k, tau=0.7):
        step = tau * torch.tensor([-u[k, 1], u[k, 0]], dtype=F64)
        return lambda x: g(x + step) - g(x)

    left = without(without(ridges, 1), 2)
    assert float((left(x + 5 * along) - left(x)).abs().max()) < 1e-12 < 1e-3 < float(left(x).abs().max())
    assert float((without(ridges, 1)(x + 5 * along) - without(ridges, 1)(x)).abs().max()) > 1e-3
    # On the line steps are dense in L^2: the difference of two steep units tends to an indicator, like n^(-1/2).
    line = (torch.arange(400_000, dtype=F64) + 0.5) / 1e4 - 20
    steps = [(torch.tanh(n * (line + a)) - torch.tanh(n * (line - a))) / 2 for n in (10, 100)]
    off = [float((step - (line.abs() < a).double()).square().sum()) / 1e4 for step in steps]
    assert off[0] == pytest.approx(10 * off[1], rel=1e-2) and off[0] < 0.1


def relu_sum(c, a, w, b):
    return lambda x: c + torch.relu(x @ w.T + b) @ a


def way_out(x, a, w, b):
    """The direction of the proof: along it f does not fall, from x on."""
    h, d = w.shape
    singular = torch.linalg.svdvals(w)
    if h < d or singular[-1] < 1e-12 * singular[0]:
        return torch.linalg.svd(w).Vh[-1]
    v = torch.linalg.solve(w, torch.eye(d, dtype=F64)[:, 0])
    active = float(w[0] @ x + b[0]) > 0
    return v if active and float(a[0]) >= 0 else -v


@pytest.mark.parametrize("seed", SEEDS)
def test_it_takes_d_plus_one_walls(seed):
    source = backend.generator(seed)
    inside = 0
    for d in (1, 2, 3):
        for h in range(1, d + 1):
            for dependent in (False, True)[: 1 + (h == d > 1)]:
                a, b = backend.normal(h, seed=source).cpu(), backend.normal(h, seed=source).cpu()
                w, c = backend.normal(h, d, seed=source).cpu(), float(backend.normal(1, seed=source))
                if dependent:
                    w[-1] = 2 * w[0]
                f = relu_sum(c, a, w, b)
                for x in backend.normal(20, d, seed=source, scale=2.0).cpu():
                    if float(f(x)) > 0:
                        inside += 1
                        v = way_out(x, a, w, b)
                        values = f(x + torch.logspace(-2, 4, 200, dtype=F64)[:, None] * v)
                        assert float(v.norm()) > 0
                        assert bool((values >= f(x) - 1e-8).all()) and bool((values.diff() >= -1e-8).all())
    assert inside > 20
    # d + 1 units: the corners of a simplex bound a region around 0.
    for d in (1, 2, 3, 5):
        corners = torch.eye(d + 1, dtype=F64) - 1 / (d + 1)
        basis = torch.linalg.svd(corners).Vh[:d]
        f = relu_sum(1.0, -torch.ones(d + 1, dtype=F64), corners @ basis.T, torch.zeros(d + 1, dtype=F64))
        far = backend.normal(500, d, seed=source).cpu()
        far = far / far.norm(dim=1, keepdim=True) * (2 * (d + 1))
        assert float(f(torch.zeros(d, dtype=F64))) == 1 and bool((f(far) < 0).all())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_certificate_of_a_bounded_region_and_moved_ones(seed):
    """Three walls around a point hold; fewer never do; one turned outwards does not; large circles agree."""
    source = backend.generator(seed)
    angle = torch.tensor([0.0, 2.1, 4.2], dtype=F64) + 0.4 * backend.uniform(3, seed=source).cpu()
    W, b = torch.stack([angle.cos(), angle.sin()], 1), backend.normal(3, seed=source).cpu()
    net = MLP([2, 3, 1], "relu")
    theta = net.flatten([(W, b), (-1 - backend.uniform(1, 3, seed=source).cpu(), torch.ones(1, dtype=F64))])
    assert bounded(net, theta)
    turned = theta.clone()
    turned[net.slots[1][0]] *= -1
    cut = theta.clone()
    cut[net.slots[1][0]] = 0
    assert not bounded(net, turned) and not bounded(net, cut)
    circle = torch.linspace(0, 2 * math.pi, 721, dtype=F64)
    rim = 1e4 * torch.stack([circle.cos(), circle.sin()], 1)
    random = net.init(seed, batch=30).cpu()
    for one in torch.cat([random, theta[None]]):
        assert bool(bounded(net, one)) == bool((net(one, rim) < 0).all())
    for h in (1, 2):
        small = MLP([2, h, 1], "relu")
        assert not any(bounded(small, one) for one in backend.normal(50, small.M, seed=source))


def test_m_units_draw_2m_sides():
    for m in (3, 5, 7, 9, 15, 31):
        angle = 2 * math.pi * torch.arange(1, m + 1, dtype=F64) / m
        w = torch.stack([angle.cos(), angle.sin()], 1)
        turn = torch.arange(2 * m * 500, dtype=F64) * math.pi / (m * 500)  # starts at the middle of a side
        radius = 1 / torch.relu(torch.stack([turn.cos(), turn.sin()], 1) @ w.T).sum(1)
        inner = 2 * math.sin(math.pi / (2 * m))
        offset = (turn + math.pi / (2 * m)) % (math.pi / m) - math.pi / (2 * m)
        assert torch.allclose(radius, inner / offset.cos(), rtol=1e-12)  # 2 m straight sides at the same distance
        # The share of the square: areas in polar coordinates.
        R = math.sqrt(2 / math.pi)
        scaled = radius * R * math.cos(math.pi / (4 * m)) / inner
        assert float(scaled.max()) < 1  # the polygon lies in the square
        share = float((R**2 - scaled**2).abs().mean()) * math.pi / 4
        assert share == pytest.approx(wrong_share(m), rel=1e-4)
    assert wrong_share(101) == pytest.approx(math.pi**2 / 32 / 101**2, rel=1e-3)
    assert wrong_share(3) < 0.04
    even = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=F64)  # m = 4: a square, no octagon
    assert float(torch.relu(torch.tensor([0.5, 0.5], dtype=F64) @ even.T).sum()) == 1


def test_descent_finds_the_hexagon_sometimes():
    """As in the lesson, with other starts: some of 48 arrive, most do not; all that do have a bounded region."""
    points = backend.uniform(7000, 2, low=-1, high=1, seed=0)
    inside = (points.square().sum(1, keepdim=True) < 2 / math.pi).double()
    net = MLP([2, 3, 1], "relu")
    theta = net.init(20, scale=2.0, batch=48)
    theta[:, net.slots[0][1] : net.slots[0][2]] = backend.normal(48, 3, seed=21)
    run = descend.adam(Landscape(net, points[:2000], inside[:2000], loss="logistic"), theta, steps=1000, step=0.05)
    right = ((net(run.theta, points[2000:]) > 0) == (inside[2000:] > 0)).double().mean((-2, -1))
    assert 1 <= int((right > 0.94).sum()) <= 24
    assert all(bounded(net, one) for one in run.theta[right > 0.94])


@pytest.mark.parametrize("m", [32, 64])
def test_descent_does_not_find_the_interpolant(m):
    x = torch.linspace(0, 1, 193, dtype=F64)[:, None]
    net, by_hand = interpolant(F, m)
    landscape, source = Landscape(net, x, F(x)), backend.generator(1000 + m)  # other starts than the lesson's
    w, kinks = backend.normal(20, m, seed=source), backend.uniform(20, m, seed=source)
    v = backend.normal(20, m, seed=source) / m**0.5
    start = net.flatten([(w[:, :, None], -w * kinks), (v[:, None], torch.zeros_like(v[:, :1]))])
    run = descend.adam(landscape, start, steps=1500, step=0.01)
    run = descend.levenberg_marquardt(landscape, run.theta, max_steps=60)
    exists = float(landscape.value(by_hand))
    assert bool((run.value > 2 * exists).all())
    assert float(descend.levenberg_marquardt(landscape, by_hand, max_steps=60).value) < 0.5 * exists


def all_matrices(rows, columns):
    """Every matrix with entries +1 and -1: the whole distribution, so that means are exact."""
    entries = list(itertools.product((1.0, -1.0), repeat=rows * columns))
    return torch.tensor(entries, dtype=F64).reshape(-1, rows, columns)


def test_the_mean_square_of_a_signal():
    """No sampling: the mean over all matrices with entries +-sqrt(v), for up to three layers."""
    signs, x = all_matrices(2, 2), torch.tensor([0.6, -1.1], dtype=F64)
    start = float(x.square().sum())
    for v in (0.5, 1.0, 0.2):
        layers = {"linear": (lambda z, Wz: Wz, 2 * v), "relu": (lambda z, Wz: Wz.relu(), v),
                  "residual": (lambda z, Wz: z + Wz, 1 + 2 * v)}
        for layer, factor in layers.values():
            z = x[None]
            for D in (1, 2, 3):
                z = layer(z, z @ (v**0.5 * signs).mT).reshape(-1, 2)  # every matrix after every history
                assert len(z) == 16**D
                assert float(z.square().sum(1).mean()) == pytest.approx(factor**D * start, rel=1e-12)
    # E[W^T W], not E[W W^T]: 3 rows and 2 columns, v = 1/3.
    W = all_matrices(3, 2) / 3**0.5
    assert torch.allclose((W.mT @ W).mean(0), torch.eye(2, dtype=F64), atol=1e-12)
    assert torch.allclose((W @ W.mT).mean(0), 2 / 3 * torch.eye(3, dtype=F64), atol=1e-12)
    assert float((W @ x).square().sum(1).mean()) == pytest.approx(start, rel=1e-12)
    skewed = 2 * W  # another second moment: not kept
    assert float((skewed @ x).square().sum(1).mean()) == pytest.approx(4 * start, rel=1e-12)
    # The limits.
    assert (1 + 1e-6) ** 10**6 == pytest.approx(math.e, rel=1e-5) and (1 + 1e-8) ** 10**4 == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mean_square_of_a_signal_for_gaussian_layers(seed):
    """Two layers of width 30, 2,000 draws: within 5 standard errors, estimated from the draws. Orthogonal: exact."""
    h, draws, source = 30, 2000, backend.generator(seed)
    e1 = torch.eye(h, 1, dtype=F64, device=backend.device())
    for step, factor in ((lambda z, W: W @ z, 1.0), (lambda z, W: (2**0.5 * W @ z).relu(), 1.0),
                         (lambda z, W: (W @ z).relu(), 0.25), (lambda z, W: z + 0.5**0.5 * W @ z, 1.5**2)):
        z = e1.expand(draws, h, 1)
        for _ in range(2):
            z = step(z, backend.normal(draws, h, h, seed=source, scale=h**-0.5))
        squares = z.square().sum((1, 2))
        assert abs(float(squares.mean()) - factor) < 5 * float(squares.std()) / draws**0.5
    z = e1.expand(20, h, 1)
    for _ in range(50):
        z = backend.orthogonal(20, h, h, seed=source) @ z
    assert float((z.norm(dim=1) - 1).abs().max()) < 1e-12


def mixture(kind, h, v):
    """(mean, variance) of ln(|z_l|^2 / |z_{l-1}|^2): the theorem, summed term by term."""
    if kind == "linear":
        k, p = torch.tensor([float(h)], dtype=F64), torch.ones(1, dtype=F64)
    elif kind == "relu":
        k = torch.arange(1, h + 1, dtype=F64)
        p = torch.as_tensor(stats.binom.pmf(k.numpy(), h, 0.5))
    else:
        j = torch.arange(0, int(1 / v + 200), dtype=F64)
        k, p = h + 2 * j, torch.as_tensor(stats.poisson.pmf(j.numpy(), 0.5 / v))
    psi, trigamma = torch.special.digamma(k / 2), torch.special.polygamma(1, k / 2)
    mean = float((p * psi).sum() / p.sum())
    return mean + math.log(2 * v), float((p * (trigamma + (psi - mean) ** 2)).sum() / p.sum())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_typical_size_of_a_signal(seed):
    """Width 16, 8 layers, 400 draws: mean and variance per layer, no memory of the layer before; 5 standard errors."""
    h, D, draws, source = 16, 8, 400, backend.generator(seed)
    steps = {"linear": (lambda z, W: W @ z, 1 / h), "relu": (lambda z, W: (W @ z).relu(), 1 / h),
             "residual": (lambda z, W: z + W @ z, 1 / h)}
    for kind, (step, v) in steps.items():
        z = torch.eye(h, 1, dtype=F64, device=backend.device()).expand(draws, h, 1)
        logs = torch.zeros(D + 1, draws, dtype=F64)
        for layer in range(1, D + 1):
            z = step(z, backend.normal(draws, h, h, seed=source, scale=v**0.5))
            logs[layer] = z.square().sum((1, 2)).log()
        gains = logs[:, logs[-1].isfinite()].diff(dim=0)  # without the draws in which a ReLU layer is dead
        assert gains.shape[1] >= draws - 3
        mean, variance = mixture(kind, h, v)
        assert abs(float(gains.mean()) - mean) < 5 * (variance / gains.numel()) ** 0.5, kind
        spread = (gains - mean).square()
        assert abs(float(spread.mean()) - variance) < 5 * float(spread.std()) / gains.numel() ** 0.5, kind
        a, b = gains[1:] - mean, gains[:-1] - mean
        assert abs(float((a * b).mean()) / variance) < 5 / a.numel() ** 0.5, kind
        ranks = gains[[0, -1]].sort(1).values  # the same distribution in the first and in the last layer
        assert stats.ks_2samp(ranks[0], ranks[1]).pvalue > 1e-5, kind


def test_the_typical_size_and_the_mean_square_part():
    """Digamma's asymptotics, the fourth moment, and the numbers of the lesson's table."""
    for h in (20, 100, 1000):
        drift = special.digamma(h / 2) - math.log(h / 2)
        assert drift < 0 and drift == pytest.approx(-1 / h, rel=1 / h)
        assert stats.chi2(h).moment(2) / h**2 == pytest.approx(1 + 2 / h)
    expected = {("linear", 1.0): 0.6050, ("linear", 0.81): 1.607e-5, ("relu", 1.0): 2.49e-16, ("relu", 2.0): 0.2805,
                ("residual", 1.0): 7.72e14, ("residual", 0.01): 1.63, ("residual", 1e-4): 1.005}
    for (kind, s), size in expected.items():
        assert math.exp(50 * mixture(kind, 100, s / 100)[0]) == pytest.approx(size, rel=5e-3), kind
    # Residual layers with v = 1/(h D): the geometric mean tends to e^(1/2 - 1/h), not to the root of the mean square.
    for h in (10, 100):
        limit = math.exp(0.5 - 1 / h)
        assert math.exp(500 * mixture("residual", h, 1 / (h * 1000))[0]) == pytest.approx(limit, rel=1e-3)
        assert limit < 0.995 * math.e**0.5


def test_dead_layers():
    """With h = 3 a ReLU layer is dead with probability 1/8: the share that lives after 5 layers, 5 standard errors."""
    draws, source = 4000, backend.generator(0)
    z = torch.eye(3, 1, dtype=F64, device=backend.device()).expand(draws, 3, 1)
    for _ in range(5):
        z = (backend.normal(draws, 3, 3, seed=source) @ z).relu()
    alive, expected = float((z.square().sum((1, 2)) > 0).double().mean()), (7 / 8) ** 5
    assert abs(alive - expected) < 5 * (expected * (1 - expected) / draws) ** 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_along_a_ray(seed):
    """f and its gradient scale as t^K and t^(K-1), for nets without biases; with biases they do not."""
    for widths in ([2, 5, 1], [3, 6, 6, 6, 1], [2] + [5] * 9 + [1]):
        x = backend.normal(7, widths[0], seed=seed)
        for bias in (False, True):
            net = MLP(widths, "relu", bias=bias)
            landscape = Landscape(net, x, torch.zeros(7, 1))
            moved = 0.1 * backend.normal(net.M, seed=backend.generator(seed, "biases"))
            theta = net.init(seed, scale=1.4) + (moved if bias else 0)
            for t in (0.3, 2.0):
                f, g = landscape.outputs(theta), landscape.jacobian(theta)
                scaled = [torch.allclose(landscape.outputs(t * theta), t**net.depth * f, rtol=1e-9, atol=0),
                          torch.allclose(landscape.jacobian(t * theta), t ** (net.depth - 1) * g, rtol=1e-9, atol=0)]
                assert scaled == [not bias] * 2 or (bias and not any(scaled))


def test_the_plateau_and_the_foot_of_the_cliff():
    """As in the lesson, in other directions: no descent leaves the plateau; from the foot nearly all learn."""
    flowers = data.iris()
    net = MLP([3] + [16] * 20 + [1], "relu", bias=False)
    landscape, theta = Landscape(net, flowers.x, flowers.y), net.init(seed=20, batch=20)
    ends = [descend.gradient_descent(landscape, scale * theta, steps=200, step=0.01).value for scale in (1, 2**0.5)]
    assert bool((ends[0] > 0.99).all()) and int((ends[1] < 0.9).sum()) >= 15
