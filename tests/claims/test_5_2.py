"""Lesson 5.2: every claim, and every certificate, with the data that could refute it."""

import itertools
import math

import pytest
import torch

from losslab import Landscape, backend, certify, critical, descend, neuron

SEEDS = range(20)
CASES = list(itertools.product((1, 2, 3), (2, 3, 4)))  # d and k


def shaken(seed, k=3, d=2, along=0.05, targets=0.01):
    """Auer's data, every point moved along its axis, every target shifted."""
    x, y = neuron.data(k, d=d)
    noise = backend.normal(2, k * d, 1, seed=seed)
    return x * (1 + along * noise[0]), y + targets * noise[1]


def axis_of(x, y, i):
    """The one-dimensional data on axis i."""
    on = x[:, i] != 0
    return x[on, i : i + 1], y[on]


def random_data(seed, n=5, d=2):
    source = backend.generator(seed)
    return backend.normal(n, d, seed=source), backend.uniform(n, 1, low=0.1, high=0.9, seed=source)


def margin(landscapes, box, point):
    """The excess of the product box (2, d), from two numbers per axis."""
    return min(float(g.value(box[:, i : i + 1]).min() - g.value(point[i : i + 1]))
               for i, g in enumerate(landscapes))


@pytest.mark.parametrize("seed", SEEDS)
def test_critical_points_multiply(seed):
    """All products are critical with the predicted inertia; all that a search in the plane finds are products."""
    x, y = shaken(seed, along=0.2)
    landscape = neuron.landscape(x, y)
    axes = [neuron.wells(*axis_of(x, y, i)) for i in range(2)]
    assert all(w.complete for w in axes)
    lines = [torch.cat([w.minima, w.maxima]) for w in axes]
    tops = [torch.arange(len(line)) >= w.count for line, w in zip(lines, axes, strict=True)]
    points, index = torch.cartesian_prod(*lines), torch.cartesian_prod(*tops).sum(1).tolist()
    assert certify.critical_point(landscape, points)
    assert [found.index for found in critical.inertia(landscape.hessian(points))] == index
    assert not certify.critical_point(landscape, points + 1e-5)
    # The converse: critical points of any index, searched for in the plane, are among the products.
    starts = 10 ** backend.uniform(300, 2, low=-2.5, high=0.3, seed=backend.generator(seed, "starts"))
    end = descend.polish(landscape, starts, method="gradient_norm", max_steps=100)
    w = end.theta[end.converged].cpu()
    clear = torch.linalg.eigvalsh(landscape.hessian(w)).abs().amin(1) > 1e-3  # no plateau of float64
    assert int(clear.sum()) > 50
    assert float((torch.cdist(w[clear], points).min(1).values / w[clear].norm(dim=1)).max()) < 1e-6


def test_minima_of_a_sum_without_derivatives():
    """The first part asks for no smoothness: |t|, a step and a flat piece; strictness is lost exactly with the flat."""
    def bent(t):
        return (t.abs() - 1).abs()  # strict minima at -1 and 1

    def flat(t):
        return (t.abs() - 1).clamp_min(0)  # weak minima on [-1, 1]

    t = torch.arange(-200, 201, dtype=torch.float64) / 100

    def lows(v, strict=False):
        inner, left, right = v[1:-1], v[:-2], v[2:]
        return (inner < left) & (inner < right) if strict else (inner <= left) & (inner <= right)

    for first, second, strict in itertools.product((bent, flat), (bent, flat), (False, True)):
        a, b = first(t), second(t)
        E = a[:, None] + b
        centre = E[1:-1, 1:-1]
        low = torch.ones_like(centre, dtype=torch.bool)
        for i, j in itertools.product((0, 1, 2), repeat=2):
            if (i, j) != (1, 1):
                beside = E[i : i + centre.shape[0], j : j + centre.shape[1]]
                low &= centre < beside if strict else centre <= beside
        assert torch.equal(low, lows(a, strict)[:, None] & lows(b, strict))


@pytest.mark.parametrize("d, k", CASES)
def test_census(d, k):
    landscape, wells = neuron.landscape(*neuron.data(k, d=d)), neuron.wells(*neuron.data(k))
    points = torch.cartesian_prod(*[torch.cat([wells.minima, wells.maxima])] * d).reshape(-1, d)
    assert len(points) == (2 * k - 1) ** d and certify.critical_point(landscape, points)
    index = [found.index for found in critical.inertia(landscape.hessian(points))]
    counts = [index.count(j) for j in range(d + 1)]
    assert counts == [math.comb(d, j) * k ** (d - j) * (k - 1) ** j for j in range(d + 1)]
    assert sum((-1) ** j * c for j, c in enumerate(counts)) == 1
    assert all(found.zero == 0 for found in critical.inertia(landscape.hessian(points)))
    top = wells.maxima[:1].expand(d)
    assert certify.inertia(landscape, top, (d, 0, 0)) and not certify.inertia(landscape, top, (d - 1, 0, 1))
    assert not certify.inertia(landscape, wells.minima[:1].expand(d), (d, 0, 0))


@pytest.mark.parametrize("k", range(1, 9))
def test_exactly_as_many_as_the_theorem_says(k):
    """One axis: k minima, k - 1 maxima, no other critical point, none degenerate. The rest is the census."""
    wells, landscape = neuron.wells(*neuron.data(k)), neuron.landscape(*neuron.data(k))
    assert wells.complete and wells.count == k and len(wells.maxima) == k - 1
    if k <= 5:  # beyond, with x of 1e5 and more, rounding alone exceeds |gradient| <= 1e-12
        assert all(certify.strict_minimum(landscape, [w]) for w in wells.minima.tolist())
    bend = landscape.hessian(torch.cat([wells.minima, wells.maxima])[:, None]).flatten()
    assert bool((bend[:k] > 1e-2).all()) and bool((bend[k:] < -1e-2).all())


@pytest.mark.parametrize("d, k", CASES)
def test_the_table_by_three_routes(d, k):
    data = neuron.data(k, d=d)
    axes, cells = neuron.minima(*data, route="axes"), neuron.minima(*data, route="cells")
    blind = neuron.minima(*data, route="starts")
    assert axes.count == cells.count == blind.count == (len(data[0]) // d) ** d
    assert axes.complete and cells.complete and not blind.complete
    for other in (cells, blind):
        assert float((other.points / axes.points - 1).abs().max()) < 1e-9
    landscape = neuron.landscape(*data)
    assert all(certify.strict_minimum(landscape, w) for w in blind.points)
    assert not certify.strict_minimum(landscape, blind.points[0] * (1 + 1e-6))
    saddle = torch.cat([neuron.wells(*neuron.data(k)).maxima[:1], blind.points[0, 1:]])
    assert certify.critical_point(landscape, saddle) and not certify.strict_minimum(landscape, saddle)
    assert certify.distinct(blind.points.log(), separation=0.5)
    assert not certify.distinct(blind.points[[0, 1, 1]].log(), separation=0.5)
    # Different losses: multisets of d out of k.
    values = axes.values.sort().values
    assert 1 + int((values.diff() > 1e-9).sum()) == math.comb(d + k - 1, d)
    assert float((values.diff()[values.diff() <= 1e-9]).abs().max() if d > 1 else 0) < 1e-13


@pytest.mark.parametrize("seed", SEEDS)
def test_at_most_as_many_values_as_multisets(seed):
    """Any one-dimensional data, the same on each of three axes: the losses of the minima are sums over multisets."""
    source = backend.generator(seed)
    x1 = 10 ** backend.uniform(3, low=0, high=3, seed=source)
    x = torch.cat([x1[:, None] * torch.eye(3, dtype=x1.dtype, device=x1.device)[i] for i in range(3)])
    found, wells = neuron.minima(x, x.new_full((9, 1), 0.75)), neuron.wells(x1[:, None], x.new_full((3, 1), 0.75))
    k = wells.count
    values = found.values.sort().values
    assert found.complete and found.count == k**3
    assert 1 + int((values.diff() > 1e-12).sum()) <= math.comb(k + 2, 3)
    sums = torch.cartesian_prod(*[wells.minimum_values] * 3).reshape(-1, 3).sum(1)
    torch.testing.assert_close(values, sums.sort().values, rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
def test_excess_of_a_box(seed):
    """The formula against a fine grid on the faces, for random boxes too; moved boxes and points are refused."""
    x, y = shaken(seed)
    landscape, found = neuron.landscape(x, y), neuron.minima(x, y)
    one_axis = [neuron.landscape(*axis_of(x, y, i)) for i in range(2)]
    assert found.complete and found.count == 9
    for box, point in zip(found.boxes, found.points, strict=True):
        exact = margin(one_axis, box, point)
        certificate = certify.minimum_containing(landscape, *box, inside=point, points=400)
        assert exact > 0 and certificate
        assert exact - 1e-14 <= certificate.measured["margin"] <= exact + 1e-3
        assert not certify.minimum_containing(landscape, *(box + (box[1] - box[0]) / 2), inside=point)
        assert not certify.minimum_containing(landscape, *box, inside=found.points[(found.points != point).any(1)][0])
    # Random boxes, with the least inner value on a grid: the faces say what the formula says, on slopes too.
    cut = 10 ** backend.uniform(80, 2, 2, low=-2.5, high=0.4, seed=backend.generator(seed, "boxes")).sort(1).values
    formula = []
    for box in cut:
        inner = [torch.linspace(float(a), float(b), 402, dtype=torch.float64)[1:-1, None] for a, b in box.T]
        point = torch.stack([t[int(g.value(t).argmin()), 0] for g, t in zip(one_axis, inner, strict=True)])
        exact = margin(one_axis, box, point)
        seen = certify.minimum_containing(landscape, *box, inside=point, points=402)
        assert seen.measured["margin"] == pytest.approx(exact, abs=2e-3)
        assert bool(seen) or exact < 2e-3
        formula.append(exact)
    assert min(formula) < 1e-3 and max(formula) > 1e-2  # a box on a slope has no excess


@pytest.mark.parametrize("d, k", [(2, 3), (3, 2), (3, 4)])
def test_all_boxes_of_the_table_hold_with_the_same_excess(d, k):
    found, landscape = neuron.minima(*neuron.data(k, d=d)), neuron.landscape(*neuron.data(k, d=d))
    one_axis = [neuron.landscape(*neuron.data(k))] * d
    exact = [margin(one_axis, box, point) for box, point in zip(found.boxes, found.points, strict=True)]
    assert len(exact) == k**d and min(exact) == pytest.approx(0.01431, abs=5e-6)
    assert all(certify.minimum_containing(landscape, *box, inside=point, points=9)
               for box, point in zip(found.boxes, found.points, strict=True))
    lower, upper = found.boxes[:, 0], found.boxes[:, 1]
    for i, j in itertools.combinations(range(found.count), 2):
        assert bool(((upper[i] <= lower[j]) | (upper[j] <= lower[i])).any())  # disjoint


@pytest.mark.parametrize("seed", SEEDS)
def test_descent_falls_apart(seed):
    """Each coordinate of a descent on the sum is the descent on its axis; the share that arrives at the best minimum
    is p^d."""
    x, y = shaken(seed, k=2, d=3)
    start = backend.normal(50, 3, seed=backend.generator(seed, "starts"))
    together = descend.gradient_descent(neuron.landscape(x, y), start, steps=200, step=1 / 60).theta
    for i in range(3):
        on_axis = neuron.landscape(*axis_of(x, y, i))
        alone = descend.gradient_descent(on_axis, start[:, i : i + 1], steps=200, step=1 / 60)
        torch.testing.assert_close(together[:, i], alone.theta[:, 0], rtol=0, atol=1e-10)
    pair = neuron.wells(*neuron.data(2))
    top, best = float(pair.maxima[0]), float(pair.minima[pair.minimum_values.argmin()])
    p, d, n = 0.5 * math.erfc(-top / math.sqrt(2)), 1 + seed % 6, 400
    starts = backend.normal(n, d, seed=1000 + seed)
    end = descend.gradient_descent(neuron.landscape(*neuron.data(2, d=d)), starts, steps=1500, step=1 / 51).theta
    assert bool(((end < top) == (starts < top)).all())
    share = float(((end - best).norm(dim=1) < 1e-3).double().mean())
    assert abs(share - p**d) < 4 * math.sqrt(p**d * (1 - p**d) / n)


@pytest.mark.parametrize("seed", SEEDS)
def test_critical_points_lie_between_the_planes(seed):
    """Random data in the plane and in space: no direction leads away from all planes at a critical point, and it lies
    in the hull of the vertices; at random points such directions are common, and the slope there is positive."""
    d = 2 + seed % 2
    x, y = random_data(seed, n=6, d=d)
    landscape, planes = neuron.landscape(x, y), torch.logit(y[:, 0])
    starts = backend.normal(200, d, seed=backend.generator(seed, "starts"), scale=3.0)
    end = descend.polish(landscape, starts, method="gradient_norm", max_steps=60)
    w = end.theta[end.converged]
    w = w[torch.linalg.eigvalsh(landscape.hessian(w)).abs().amin(1) > 1e-6]
    assert len(w)
    sets = list(itertools.combinations(range(len(x)), d - 1))
    v = torch.stack([torch.linalg.svd(x[list(s)])[2][-1] for s in sets])
    v = torch.cat([v, -v])
    along = (v @ x.T).masked_fill((v @ x.T).abs() < 1e-12, 0)

    def away(points):
        """(points, directions): whether the direction leads away from all planes, or along them."""
        side = (points @ x.T - planes).sign()
        return (side[:, None] * along >= 0).all(2)

    assert not bool(away(w).any())
    vertices = torch.stack([torch.linalg.solve(x[list(s)], planes[list(s)])
                            for s in itertools.combinations(range(len(x)), d)])
    for point in w:  # in the hull: no direction out of many separates the point from all vertices
        out = backend.normal(2000, d, seed=backend.generator(seed, "directions"))
        assert bool((((vertices - point) @ out.T).amax(0) >= 0).all())
    far = backend.normal(500, d, seed=backend.generator(seed, "points"), scale=4.0)
    leads = away(far)
    assert bool(leads.any())
    slopes = landscape.gradient(far) @ v.T
    assert bool((slopes[leads] >= 0).all()) and bool((slopes[leads] > 0).any())
    # The complete search, which rests on the lemma, and a blind one agree where they both finish.
    if d == 2:
        covered = neuron.minima(x, y, route="cells")
        blind = neuron.minima(x, y, route="starts", starts=400, seed=1000 + seed)
        assert covered.complete or "stayed open" in covered.note
        if covered.complete:
            assert float(torch.cdist(blind.points, covered.points).min(1).values.max()) < 1e-6


@pytest.mark.parametrize("seed", SEEDS)
def test_small_noise_keeps_every_minimum(seed):
    """Noise within the proved bound: every box still holds, by its certificate. Far beyond the bound boxes are lost."""
    x, y = neuron.data(3, d=2)
    found, one_axis = neuron.minima(x, y), [neuron.landscape(*neuron.data(3))] * 2
    plain, n = neuron.landscape(x, y), len(x)
    source = backend.generator(seed)
    dx, dy = backend.normal(n, 2, seed=source), backend.uniform(n, 1, low=-1, seed=source)
    for box, point in zip(found.boxes, found.points, strict=True):
        epsilon = margin(one_axis, box, point)
        reach = box.abs().amax(0).norm()
        # Half of the allowance for the targets, half for the inputs.
        new_y = y + dy * epsilon / (8.01 * n)
        new_x = x + dx / dx.norm(dim=1, keepdim=True) * epsilon / (2.01 * n * float(reach))
        noisy = neuron.landscape(new_x, new_y)
        inside = box[0].to(x) + (box[1] - box[0]).to(x) * backend.uniform(2000, 2, seed=source)
        assert float((noisy.value(inside) - plain.value(inside)).abs().max()) < epsilon / 2
        assert certify.minimum_containing(noisy, *box, inside=point, points=200)
    strong = neuron.landscape(x * (1 + 0.9 * dx.sign()), y)
    assert not all(certify.minimum_containing(strong, *box, inside=point)
                   for box, point in zip(found.boxes, found.points, strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_off_the_axes_makes_minima(seed):
    """delta = 0.001: all nine are still in their boxes, and the whole plane holds more, all certified."""
    x, y = neuron.data(3, d=2)
    boxes = neuron.minima(x, y).boxes
    across = 0.001 * x.sum(1, keepdim=True) * backend.normal(6, 2, seed=200 + seed) * (x == 0)
    found = neuron.minima(x + across, y, route="cells")
    inside = ((found.points[:, None] > boxes[:, 0]) & (found.points[:, None] < boxes[:, 1])).all(2)
    assert inside.sum(0).tolist() == [1] * 9
    assert found.count > 9
    bend = torch.linalg.eigvalsh(neuron.landscape(x + across, y).hessian(found.points))
    assert bool((bend[:, 0] > 0).all())
    assert found.complete or "stayed open" in found.note


def test_ratio_of_the_slider():
    """9, 4, 1 as the points come together; and nothing else, at the slider's ratios."""
    ratios = [2.0, 3.0, 4.0, 4.25, 5.0, 5.5, 5.75, 6.0, 10.0, 20.0]
    counts = [neuron.minima(*neuron.data(3, ratio=R, d=2)) for R in ratios]
    assert all(c.complete for c in counts)
    assert [c.count for c in counts] == [1, 1, 1, 4, 4, 4, 9, 9, 9, 9]


def test_a_sum_is_needed_for_the_product_rule():
    """Without the sum the count is no product: the rule is refused for points off the axes."""
    x, y = neuron.data(2, d=2)
    with pytest.raises(ValueError, match="off the axes"):
        neuron.minima(x + 0.1, y, route="axes")
    rotated = Landscape.of_function(lambda t: (t[0] ** 2 - 1) ** 2 + (t[1] ** 2 - 1) ** 2 + 3 * t[0] * t[1], M=2)
    ends = descend.polish(rotated, backend.normal(200, 2, seed=0))
    kinds = ends.theta[ends.converged].mul(1e4).round().unique(dim=0)
    assert len(kinds) == 2  # not 2 x 2
