"""Lesson 5.1: every claim, and every certificate, with the data that could refute it."""

import itertools
import math

import pytest
import torch

from losslab import MLP, Landscape, backend, certify, descend, neuron

SEEDS = range(20)
LN3 = math.log(3)


def random_data(seed, n=6):
    source = backend.generator(seed)
    return backend.normal(n, 1, seed=source), backend.uniform(n, 1, low=0.02, high=0.98, seed=source)


def shaken(seed, k):
    """Auer's data with 5 % noise in x and 0.01 in y."""
    x, y = neuron.data(k)
    noise = backend.normal(2, k, 1, seed=seed)
    return x * (1 + 0.05 * noise[0]), y + 0.01 * noise[1]


def in_one_box(landscape, a, b, w):
    return certify.minimum_containing(landscape, [a], [b], inside=[w])


@pytest.mark.parametrize("seed", SEEDS)
def test_one_point_one_minimum(seed):
    """Falls strictly to 0 at the closed form, grows strictly after it, for the logistic and three other neurons."""
    source = backend.generator(seed)
    x, w_star = float(backend.normal(1, seed=source)), float(backend.normal(1, seed=source, scale=2.0))
    steps = torch.linspace(0.01, 3, 300, dtype=torch.float64) / abs(x)
    for phi in (torch.sigmoid, torch.tanh, torch.atan, torch.nn.functional.softplus):
        y = phi(torch.tensor(x * w_star, dtype=torch.float64))
        for side in (w_star + steps, w_star - steps):
            loss = (y - phi(x * side)).square()
            assert float(loss[0]) > 0 and bool((loss[1:] > loss[:-1]).all())
    target = torch.tensor([[torch.sigmoid(torch.tensor(x * w_star)).item()]], dtype=torch.float64)
    at = neuron.single_minimum(torch.tensor([[x]], dtype=torch.float64), target)
    assert float(at) == pytest.approx(math.log(float(target) / (1 - float(target))) / x, rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_where_the_critical_points_are(seed):
    x, y = random_data(seed)
    ends = neuron.single_minimum(x, y)
    low, high = float(ends.min()), float(ends.max())
    away = torch.logspace(-6, 1, 200, dtype=torch.float64)[:, None]
    gradient = neuron.landscape(x, y).gradient
    assert bool((gradient(low - away) < 0).all()) and bool((gradient(high + away) > 0).all())
    found = neuron.wells(x, y)
    assert found.complete and all(low <= w <= high for w in (*found.minima.tolist(), *found.maxima.tolist()))


@pytest.mark.parametrize("seed", SEEDS)
def test_minimum_containing_sets_contain_minima(seed):
    """Random intervals: wherever the certificate holds, the complete list has a minimum inside; both cases occur."""
    x, y = random_data(seed)
    landscape, found = neuron.landscape(x, y), neuron.wells(x, y)
    assert found.complete
    draw = backend.generator(seed, "boxes")
    ends = backend.uniform(200, 2, low=found.reach[0] - 0.5, high=found.reach[1] + 0.5, seed=draw).sort(1).values
    held = 0
    for a, b in ends.tolist():
        grid = torch.linspace(a, b, 102, dtype=torch.float64)[1:-1, None]
        lowest = float(grid[int(landscape.value(grid).argmin())])
        if b > a and in_one_box(landscape, a, b, lowest):
            held += 1
            assert any(a < w < b for w in found.minima.tolist())
    assert 0 < held < 200
    # Disjoint boxes around each of the minima: as many different ones.
    assert all(in_one_box(landscape, a, b, w) for (a, b), w in zip(found.boxes, found.minima.tolist(), strict=True))


def test_two_basins():
    x, y = neuron.data(2)
    landscape, found = neuron.landscape(x, y), neuron.wells(x, y)
    first, second = in_one_box(landscape, 0.03, 0.3, LN3 / 10), in_one_box(landscape, 0.3, 3.0, LN3)
    assert first and second and first.how.startswith("exact")
    assert found.complete and found.count == 2
    assert 0.03 < float(found.minima[0]) < 0.3 < float(found.minima[1]) < 3
    assert all(certify.strict_minimum(landscape, [w]) for w in found.minima.tolist())
    assert not any(certify.strict_minimum(landscape, [w]) for w in found.maxima.tolist())


@pytest.mark.parametrize("seed", SEEDS)
def test_certificates_hold_with_noise_and_fail_when_moved(seed):
    """The certificates of the lesson on 20 noisy copies of the data; a moved witness is refused."""
    x, y = shaken(seed, 2)
    landscape, found = neuron.landscape(x, y), neuron.wells(x, y)
    assert found.complete and found.count == 2
    assert in_one_box(landscape, 0.03, 0.3, LN3 / 10) and in_one_box(landscape, 0.3, 3.0, LN3)
    assert not in_one_box(landscape, 0.4, 3.0, 0.35)  # the point inside is outside
    assert not in_one_box(landscape, 1.3, 3.0, 1.4)  # the box lies on a slope
    left, right = found.minima.tolist()  # with one end at the better minimum, the worse one is no witness
    first_is_better = bool(found.minimum_values[0] < found.minimum_values[1])
    a, b, w = (left, 3.0, right) if first_is_better else (0.03, right, left)
    assert not in_one_box(landscape, a, b, w)
    assert not in_one_box(landscape, 45.0, 60.0, 50.0)  # the plateau of float64
    for w in found.minima.tolist():
        assert certify.strict_minimum(landscape, [w]) and not certify.strict_minimum(landscape, [w + 1e-3])
    assert certify.distinct(found.minima[:, None], separation=0.5)
    assert not certify.distinct(found.minima[[0, 0]][:, None], separation=0.5)
    x, y = shaken(seed, 3)
    found = neuron.wells(x, y)
    boxes = zip(found.boxes, found.minima.tolist(), strict=True)
    assert found.count == 3 and all(in_one_box(neuron.landscape(x, y), a, b, w) for (a, b), w in boxes)


@pytest.mark.parametrize("ratio", [10.0, 11.5, 30.0, 1000.0])
def test_as_many_valleys_as_points(ratio):
    """The boxes of the theorem, with the margins of its proof, for k up to 12 (fewer where x would leave 1e12)."""
    assert (0.75 - 1 / (1 + math.exp(-3))) ** 2 > 0.0410 and (0.75 - 1 / (1 + math.exp(-0.3))) ** 2 > 0.0308
    assert (3 - LN3) / 8 / 9 < 0.0265 and (math.exp(-3) + 2 * math.exp(-30)) / 2 < 0.0250
    for k in range(1, 13):
        if ratio ** (k - 1) > 1e12:
            break
        x, y = neuron.data(k, ratio=ratio)
        landscape = neuron.landscape(x, y)
        scales = [ratio**-j for j in range(k)]
        certificates = [in_one_box(landscape, 0.3 * s, 3 * s, LN3 * s) for s in scales]
        assert all(certificates) and all(c.measured["margin"] > 0.005 for c in certificates)
        assert all(3 * lower <= 0.3 * upper * (1 + 1e-15) for upper, lower in itertools.pairwise(scales))
        found = neuron.wells(x, y)
        assert found.complete and found.count == k


def test_valleys_that_are_too_close_fail():
    landscape = neuron.landscape(*neuron.data(3, ratio=2.0))
    assert not all(in_one_box(landscape, 0.3 * 2.0**-j, 3 * 2.0**-j, LN3 * 2.0**-j) for j in range(3))


@pytest.mark.parametrize("n, d", [(4, 1), (4, 2), (6, 2), (7, 2), (6, 3)])
def test_auer_herbster_warmuth(n, d):
    """All floor(n/d)^d boxes are minimum-containing. For d <= 2 with a Lipschitz constant, so completely."""
    k = n // d
    x, y = neuron.data(k, d=d)
    x = torch.cat([x, x.new_zeros(n - k * d, d)])
    landscape = neuron.landscape(x, torch.full((n, 1), 0.75, dtype=torch.float64))
    assert landscape.n == n
    boxes = list(itertools.product([10.0**-j for j in range(k)], repeat=d))
    assert len(boxes) == (n // d) ** d
    for scales in boxes:
        s = torch.tensor(scales, dtype=torch.float64)
        # For w > 0 each point's loss has a slope of at most x / 8. On an edge of a square one coordinate varies.
        slope = float(x[:, 0].sum()) / 8
        points, lipschitz = {1: (2, None), 2: (int(slope * 2.7 / 0.005), slope), 3: (9, None)}[d]
        certificate = certify.minimum_containing(landscape, 0.3 * s, 3 * s, LN3 * s, points=points, lipschitz=lipschitz)
        assert certificate, repr(certificate)
        assert certificate.how.startswith(("exact", "computed", "sampled")[d - 1])
        moved = certify.minimum_containing(landscape, 3.0 * s, 30 * s, 4.0 * s, points=min(points, 9))
        assert not moved


@pytest.mark.parametrize("seed", SEEDS)
def test_the_matching_loss_is_convex(seed):
    x, y = random_data(seed)
    landscape = Landscape(MLP([1, 1], bias=False), x, y, loss="logistic")
    w = torch.linspace(-30, 30, 6001, dtype=torch.float64)[:, None]
    assert bool((landscape.hessian(w) > 0).all())
    slope = landscape.gradient(w)[:, 0]
    assert bool((slope[1:] > slope[:-1]).all())
    ends = descend.polish(landscape, backend.normal(8, 1, seed=backend.generator(seed, "starts"), scale=2.0))
    assert bool(ends.converged.all()) and float(ends.theta.max() - ends.theta.min()) < 1e-9
    assert certify.strict_minimum(landscape, ends.theta[0])
    # The same data, with the square loss: not convex.
    square = neuron.landscape(x, y)
    assert bool((square.hessian(w) < 0).any())


def relu_minima(x, y):
    """Strict minima of a one-dimensional ReLU neuron in closed form: the parabola of each side, and the kink."""
    found, slopes = [], {}
    for side in (1, -1):
        mine = x.sign() == side
        a, b = float((x[mine] ** 2).sum()), float((x[mine] * y[mine]).sum())
        if a and b / a * side > 0:
            found.append(b / a)
        slopes[side] = -side * b if a else 0.0  # the loss's slope away from 0, over 2; 0 if that side is flat
        slopes[side] = slopes[side] if slopes[side] or not a else 1.0  # at the vertex: the parabola grows
    return found + [0.0] * (min(slopes.values()) > 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_relu_neuron_has_at_most_two_strict_minima(seed):
    """100 data sets a seed: a dense grid never sees more than one on a half-line, and agrees with the closed form."""
    most = 0
    for s in range(100):
        source = backend.generator(1000 * seed + s)
        x, y = backend.normal(8, 1, seed=source), backend.normal(8, 1, seed=source)
        landscape = Landscape(MLP([1, 1], output_activation="relu", bias=False), x, y, loss="sse")
        exact = relu_minima(x.flatten(), y.flatten())
        reach = 1.2 * max(map(abs, exact), default=1.0) + 0.1
        w = torch.linspace(-reach, reach, 4001, dtype=torch.float64)  # 0 is the middle one
        v = landscape.value(w[:, None]).cpu()
        seen = w[1:-1][(v[1:-1] < v[:-2]) & (v[1:-1] < v[2:])].tolist()
        assert sum(u >= 0 for u in seen) <= 1 and sum(u <= 0 for u in seen) <= 1
        if all(abs(u) > reach / 500 for u in exact if u):
            assert len(seen) == len(exact)
        most = max(most, len(seen))
    assert most == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_small_steps_do_not_jump(seed):
    x, y = random_data(seed) if seed else neuron.data(2)
    landscape, found = neuron.landscape(x, y), neuron.wells(x, y)
    assert found.complete
    bound = float((x.square() * (2 / 16 + 2 / 4 * torch.maximum(y, 1 - y))).sum())
    low, high = found.reach
    dense = torch.linspace(low - 1, high + 1, 4001, dtype=torch.float64)[:, None]
    assert float(landscape.hessian(dense).max()) <= bound
    walls = torch.cat([found.minima, found.maxima]).sort().values
    starts = backend.uniform(100, 1, low=low, high=high, seed=backend.generator(seed, "starts")).cpu()
    cell = torch.bucketize(starts[:, 0], walls)
    path = descend.gradient_descent(landscape, starts, steps=300, step=1 / bound, every=1).trajectory[..., 0].cpu()
    fence = torch.cat([walls.new_tensor([-math.inf]), walls, walls.new_tensor([math.inf])])
    assert bool((path >= fence[cell] - 1e-12).all()) and bool((path <= fence[cell + 1] + 1e-12).all())


def test_large_steps_do_jump():
    x, y = neuron.data(2)
    landscape, found = neuron.landscape(x, y), neuron.wells(x, y)
    starts = torch.linspace(-1, 0.4, 50, dtype=torch.float64)[:, None]
    ends = descend.gradient_descent(landscape, starts, steps=2000, step=1.0).theta.cpu()
    assert bool((ends > found.maxima).all())


def test_the_table_against_an_independent_grid():
    """Positions and losses for k = 2, 3, 4 as read off a grid of 400,001 points, by other code: positions to 5e-4."""
    table = {
        2: ([0.127642, 1.097415], [0.048596, 0.062491], [0.41672], [0.076801]),
        3: ([0.013001, 0.127618, 1.097415], [0.109496, 0.111094, 0.124991], [0.03955, 0.41672], [0.134333, 0.139301]),
        4: ([0.001303, 0.012998, 0.127618, 1.097415], [0.171833, 0.171995, 0.173594, 0.187491],
            [0.003935, 0.03955, 0.41672], [0.196341, 0.196833, 0.201801]),
    }
    for k, (minima, values, maxima, heights) in table.items():
        found = neuron.wells(*neuron.data(k))
        assert found.minima.tolist() == pytest.approx(minima, rel=5e-4)
        assert found.maxima.tolist() == pytest.approx(maxima, rel=5e-4)
        assert found.minimum_values.tolist() == pytest.approx(values, abs=6e-7)
        assert found.maximum_values.tolist() == pytest.approx(heights, abs=6e-7)
