"""The single neuron: data, landscape, and the search that finds every well."""

import math

import mpmath
import pytest
import torch

from losslab import backend, neuron


def dense_count(x, y, low, high, size=20001):
    """Minima of E on a dense even grid by comparing neighbours: an independent count for well separated wells."""
    w = torch.linspace(low, high, size, dtype=torch.float64)
    E = (torch.sigmoid(w[:, None] * x.flatten().cpu()) - y.flatten().cpu()).square().sum(1)
    return int(((E[1:-1] < E[:-2]) & (E[1:-1] < E[2:])).sum())


def test_data_holds_every_scale_on_every_axis():
    x, y = neuron.data(3, ratio=5, target=0.6, d=2)
    assert x.tolist() == [[1, 0], [5, 0], [25, 0], [0, 1], [0, 5], [0, 25]]
    assert y.shape == (6, 1) and bool((y == 0.6).all())
    many, _ = neuron.data(2, ratio=torch.tensor([2.0, 3.0]))
    assert many.tolist() == [[[1], [2]], [[1], [3]]]


@pytest.mark.parametrize("arguments, word", [
    (dict(k=0), "k is 0"), (dict(k=2.0), "k is 2.0"), (dict(k=True), "k is True"), (dict(k=2, d=0), "d is 0"),
    (dict(k=2, ratio=-1.0), "ratio"), (dict(k=2, ratio=math.inf), "ratio"), (dict(k=2, target=math.nan), "target"),
    (dict(k=2, ratio=[[2.0]]), "ratio"),
])
def test_data_refuses(arguments, word):
    with pytest.raises(ValueError, match=word):
        neuron.data(**arguments)


def test_the_landscape_is_the_sum_of_the_squares():
    x, y = neuron.data(2, d=2)
    w = torch.tensor([0.3, -0.2], dtype=torch.float64)
    by_hand = sum((0.75 - 1 / (1 + math.exp(-float(row @ w)))) ** 2 for row in x.cpu())
    assert float(neuron.landscape(x, y).value(w)) == pytest.approx(by_hand, abs=1e-15)


def test_a_single_point_has_its_minimum_at_the_inverse_logistic():
    for target in (0.1, 0.5, 0.75, 0.99):
        for scale in (-3.0, 0.01, 1.0, 1e4):
            x, y = torch.tensor([[scale]], dtype=torch.float64), torch.tensor([[target]], dtype=torch.float64)
            found = neuron.wells(x, y)
            expected = math.log(target / (1 - target)) / scale
            assert found.complete and found.count == 1 and not len(found.maxima)
            assert float(found.minima) == pytest.approx(expected, rel=1e-11, abs=1e-15 / abs(scale))
            assert float(neuron.single_minimum(x, y)) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_critical_points_against_fifty_digits(k):
    """The derivative, evaluated with 50 digits, changes sign within 1e-12 (relative) of every point found."""
    found = neuron.wells(*neuron.data(k))
    assert found.complete and found.count == k and len(found.maxima) == k - 1
    with mpmath.workdps(50):
        def slope(w):
            total = mpmath.mpf(0)
            for j in range(k):
                phi = 1 / (1 + mpmath.exp(-w * 10**j))
                total += 2 * 10**j * (phi - mpmath.mpf("0.75")) * phi * (1 - phi)
            return total
        for points, sign in ((found.minima, 1), (found.maxima, -1)):
            for w in points.tolist():
                assert sign * slope(mpmath.mpf(w) * (1 - mpmath.mpf("1e-12"))) < 0
                assert sign * slope(mpmath.mpf(w) * (1 + mpmath.mpf("1e-12"))) > 0


def test_values_and_boxes_belong_to_the_points():
    x, y = neuron.data(3)
    found, landscape = neuron.wells(x, y), neuron.landscape(x, y)

    def E(w):
        return landscape.value(w).cpu()

    torch.testing.assert_close(found.minimum_values, E(found.minima[:, None]), rtol=0, atol=1e-15)
    torch.testing.assert_close(found.maximum_values, E(found.maxima[:, None]), rtol=0, atol=1e-15)
    boxes = found.boxes
    assert len(boxes) == 3 and all(a < float(m) < b for (a, b), m in zip(boxes, found.minima, strict=True))
    assert all(left[1] <= right[0] for left, right in zip(boxes[:-1], boxes[1:], strict=True))
    ends = E(torch.tensor(boxes, dtype=torch.float64).reshape(-1, 1)).reshape(-1, 2)
    assert bool((ends > found.minimum_values[:, None]).all())
    torch.testing.assert_close(found.barriers, ends[:, [0, 1]].amin(1) - found.minimum_values, atol=0.05, rtol=0)
    assert float(found.barriers[1]) == pytest.approx(float(found.maximum_values[0] - found.minimum_values[1]))


def test_boxes_also_on_the_negative_side_and_across_zero():
    for sign in (-1, 1):
        x, y = neuron.data(2)
        found = neuron.wells(sign * x, y)
        assert [a < float(m) < b for (a, b), m in zip(found.boxes, found.minima, strict=True)] == [True, True]
    across = neuron.wells(torch.tensor([[1.0], [-1.5]]), torch.tensor([[0.8], [0.9]]))
    (a, b), = across.boxes
    assert a < float(across.minima) < b and a < 0 < b


def test_random_data_against_a_dense_grid():
    """200 data sets in one batch: counts agree with a dense grid, E' = 0 and the curvature has the right sign."""
    source = backend.generator(3)
    x, y = backend.normal(200, 5, 1, seed=source), backend.uniform(200, 5, 1, low=0.05, high=0.95, seed=source)
    all_wells = neuron.wells(x, y)
    assert all(w.complete for w in all_wells)
    for x_i, y_i, found in zip(x, y, all_wells, strict=True):
        assert len(found.maxima) == found.count - 1
        low, high = found.reach
        # The grid resolves a well only where it is wide and deep enough.
        wide = all(b - a > 1e-2 * (high - low) for a, b in found.boxes)
        if wide and float(found.barriers.min()) > 1e-5:
            assert dense_count(x_i, y_i, low, high) == found.count
        landscape = neuron.landscape(x_i, y_i)
        points = torch.cat([found.minima, found.maxima])[:, None]
        assert float(landscape.gradient(points).abs().max()) < 1e-12
        signs = landscape.hessian(points).flatten().sign().tolist()
        assert signs == [1.0] * found.count + [-1.0] * len(found.maxima)
    assert {w.count for w in all_wells} >= {1, 2}


def test_a_batch_gives_what_one_at_a_time_gives():
    ratios = torch.tensor([4.0, 6.0, 10.0])
    x, y = neuron.data(3, ratio=ratios)
    together = neuron.wells(x, y)
    assert [w.count for w in together] == [1, 3, 3]
    for i, w in enumerate(together):
        alone = neuron.wells(x[i], y[i])
        torch.testing.assert_close(w.minima, alone.minima, rtol=0, atol=0)
        assert w.reach == alone.reach


def test_scales_that_defeat_a_grid():
    """Ratio 100, five points: the smallest minimum lies at 1.1e-8; and far out the loss is a plateau in float64."""
    found = neuron.wells(*neuron.data(5, ratio=100.0))
    assert found.complete and found.count == 5 and float(found.minima[0]) < 2e-8
    # Ten points over nine decades of x: |x w| reaches 1e9 in the region searched.
    found = neuron.wells(*neuron.data(10))
    assert found.complete and found.count == 10


def test_it_says_when_it_is_not_complete():
    labels = neuron.wells(torch.tensor([[1.0], [-2.0], [0.5]]), torch.tensor([[1.0], [1.0], [0.0]]))
    assert not labels.complete and "outside (0, 1)" in labels.note
    # At the smallest ratio with two wells a minimum and a maximum meet: there, and only there, it gives up.
    low, high = 5.0, 6.0
    for _ in range(80):
        middle = (low + high) / 2
        found = neuron.wells(*neuron.data(2, ratio=middle))
        if not found.complete:
            break
        low, high = (middle, high) if found.count == 1 else (low, middle)
    assert not found.complete and "degenerate" in found.note and high - low < 1e-11
    assert [neuron.wells(*neuron.data(2, ratio=r)).count for r in (low, high)] == [1, 2]


def test_the_slope_keeps_its_digits_in_the_tails():
    z = torch.tensor([-700.0, -50.0, 0.0, 50.0, 700.0], dtype=torch.float64)
    with mpmath.workdps(50):
        exact = [float(mpmath.exp(-abs(u)) / (1 + mpmath.exp(-abs(u))) ** 2) for u in z.tolist()]
    torch.testing.assert_close(neuron._phi_slope(z), torch.tensor(exact, dtype=torch.float64), rtol=1e-13, atol=0)


def test_points_that_move_nothing_are_left_out():
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [0.75]])
    found = neuron.wells(x, y)
    assert found.complete and float(found.minima) == pytest.approx(math.log(3), rel=1e-12)
    assert float(found.minimum_values) == pytest.approx(2.25)


@pytest.mark.parametrize("x, y, word", [
    ([1.0, 2.0], [0.5, 0.5], "x has shape"), ([[1.0, 2.0]], [[0.5, 0.5]], "x has shape"),
    ([[1.0]], [0.5], "y has shape"), ([[0.0]], [[0.5]], "x is 0"),
    ([[math.nan]], [[0.5]], "x has 1 non-finite"), ([[1.0]], [[math.inf]], "y has 1 non-finite"),
    (torch.zeros(0, 1), torch.zeros(0, 1), "x has shape"),
])
def test_wells_refuses(x, y, word):
    with pytest.raises(ValueError, match=word):
        neuron.wells(torch.as_tensor(x), torch.as_tensor(y))
