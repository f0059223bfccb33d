"""Deep linear nets: what is known in closed form, against the numbers; symmetry and critical points."""

import itertools

import pytest
import torch

from losslab import MLP, Landscape, backend, linear
from losslab.critical import inertia

SHAPES = [(2, 1, 2), (5, 2, 4), (3, 4, 5), (2, 6, 3), (4, 4, 4), (4, 3, 2, 4), (3, 2, 4, 5), (3, 2, 3, 2, 3),
          (2, 3, 3, 2, 4), (3, 2, 2, 3, 2, 2)]  # depth 2 to 5; more outputs than inputs; narrow in different places


def drawn(widths, seed=0, rank=None, rank_x=None, loss="sse", n=12):
    """The landscape of a deep linear net on random data, with targets or inputs of lower rank where that is said."""
    source = backend.generator(seed)
    x, y = (backend.normal(n, width, seed=source) for width in (widths[0], widths[-1]))
    y = y + 2 * x @ backend.normal(widths[0], widths[-1], seed=source)
    for data, wanted in ((x, rank_x), (y, rank)):
        if wanted is not None and wanted < data.shape[1]:
            basis = torch.linalg.qr(backend.normal(data.shape[1], wanted, seed=source))[0]
            data.copy_(data @ basis @ basis.T)
    return Landscape(MLP(widths, "identity", bias=False), x, y, loss)


def sets(landscape):
    """Every set of modes that fits through the net."""
    q = linear.explained(landscape).rank
    most = min(q, *landscape.network.widths[1:-1])
    return [chosen for r in range(most + 1) for chosen in itertools.combinations(range(1, q + 1), r)]


@pytest.mark.parametrize("ranks", [(None, None), (2, None), (1, None), (None, 2)], ids=str)
@pytest.mark.parametrize("widths", SHAPES, ids=str)
def test_critical_points_have_the_loss_and_the_inertia_of_the_formulas(widths, ranks):
    landscape = drawn(widths, seed=sum(widths), rank=ranks[0], rank_x=ranks[1])
    size = float(landscape.y.square().sum())
    values = []
    for chosen in sets(landscape):
        most = None if len(widths) == 3 else min(widths[1:-1])
        for through in {None, *([] if most is None else range(len(chosen), most + 1))}:
            theta = linear.critical_point(landscape, chosen, through)
            assert float(landscape.gradient(theta).norm()) < 1e-13 * size
            expected = linear.critical_value(landscape, chosen)
            assert float(landscape.value(theta)) == pytest.approx(expected, abs=1e-13 * size)
            assert inertia(landscape.hessian(theta)).counts == linear.critical_inertia(landscape, chosen, through)
        values.append(linear.critical_value(landscape, chosen))
    assert min(values) == pytest.approx(linear.lowest(landscape), abs=1e-13 * size)
    assert len(values) == len(set(values)) > 1


@pytest.mark.parametrize("loss", ["sse", "mse"])
def test_equal_eigenvalues_and_both_losses(loss):
    landscape = Landscape(MLP([3, 2, 3], "identity", bias=False), torch.eye(3), torch.diag(torch.tensor([2.0, 2, 1])),
                          loss)
    for chosen in sets(landscape):
        theta = linear.critical_point(landscape, chosen)
        assert inertia(landscape.hessian(theta)).counts == linear.critical_inertia(landscape, chosen)
        assert float(landscape.value(theta)) == pytest.approx(linear.critical_value(landscape, chosen))
    assert linear.critical_inertia(landscape, [1]) == linear.critical_inertia(landscape, [2]) == (2, 4, 6)


@pytest.mark.parametrize("loss", ["sse", "mse"])
@pytest.mark.parametrize("widths", SHAPES, ids=str)
def test_a_mode_grows_to_the_next_critical_point(widths, loss):
    landscape = drawn(widths, seed=3, loss=loss)
    e, K = linear.explained(landscape), len(widths) - 1
    t = torch.linspace(0, 1.2, 7, dtype=torch.float64)
    for chosen in sets(landscape):
        here = linear.critical_value(landscape, chosen)
        for new in set(range(1, e.rank + 1)) - set(chosen):
            if len(chosen) == min(widths[1:-1]):
                with pytest.raises(ValueError, match="chosen"):
                    linear.grow(landscape, chosen, new)
                continue
            line = linear.critical_point(landscape, chosen) + t[:, None] * linear.grow(landscape, chosen, new)
            expected = here - e.values[new - 1] * (2 * t**K - t ** (2 * K))
            assert torch.allclose(landscape.value(line), expected, rtol=1e-12, atol=1e-12 * here)
            end = linear.critical_point(landscape, chosen) + linear.grow(landscape, chosen, new)
            assert float(landscape.gradient(end).norm()) < 1e-12 * (1 + here)
            assert float(landscape.value(end)) == pytest.approx(linear.critical_value(landscape, [*chosen, new]))


@pytest.mark.parametrize("widths", SHAPES, ids=str)
def test_an_orbit_keeps_the_product_and_its_directions_are_its_tangent(widths):
    landscape = drawn(widths, seed=1)
    theta = landscape.network.init(seed=2, batch=3)
    maps = [torch.eye(d) + 0.4 * backend.normal(3, d, d, seed=d) for d in widths[1:-1]]
    moved = linear.move(landscape, theta, maps)
    assert moved.shape == theta.shape and float((moved - theta).norm()) > 0.1
    assert torch.allclose(linear.product(landscape.network, moved), linear.product(landscape.network, theta))
    back = linear.move(landscape, moved, [torch.linalg.inv(T) for T in maps])
    assert torch.allclose(back, theta)
    assert torch.allclose(linear.move(landscape, theta[1], [T[1] for T in maps]), moved[1])
    fan = linear.move(landscape, theta[1], maps)
    assert torch.allclose(fan[2], linear.move(landscape, theta[1], [T[2] for T in maps]))
    directions = linear.orbit_directions(landscape, theta)
    assert directions.shape == (3, sum(d * d for d in widths[1:-1]), landscape.M)
    assert torch.equal(linear.orbit_directions(landscape, theta[1]), directions[1])
    layer, row, column, eps = len(widths) - 3, 0, widths[-2] - 1, 1e-6  # an entry of the last hidden layer's matrix
    near = [torch.eye(d, dtype=torch.float64) for d in widths[1:-1]]
    near[layer][row, column] += eps
    number = sum(d * d for d in widths[1:-2]) + row * widths[-2] + column
    slope = (linear.move(landscape, theta[0], near) - theta[0]) / eps
    assert torch.allclose(slope, directions[0, number], atol=1e-5)


def test_the_orbit_s_dimension_for_weights_of_any_rank():
    for d, h, k in ((5, 3, 4), (2, 4, 3), (1, 3, 1)):
        landscape = drawn((d, h, k))
        for a, b in itertools.product(range(min(h, d) + 1), range(min(h, k) + 1)):
            W1 = backend.normal(h, a, seed=a) @ backend.normal(a, d, seed=10 + a)
            W2 = backend.normal(k, b, seed=20 + b) @ backend.normal(b, h, seed=30 + b)
            theta = landscape.network.flatten([(W1, None), (W2, None)])
            rank = int(torch.linalg.matrix_rank(linear.orbit_directions(landscape, theta)))
            assert rank == h * h - (h - a) * (h - b)


def test_what_is_asked_of_the_arguments():
    deep, one = drawn((3, 2, 2, 3)), drawn((3, 2, 3))
    for chosen in ([0], [4], [1, 1], [1, 2, 3], [-1]):
        with pytest.raises(ValueError, match="chosen is"):
            linear.critical_point(deep, chosen)
    for landscape, through in ((deep, 0), (deep, 3), (one, 1)):
        with pytest.raises(ValueError, match="through is"):
            linear.critical_inertia(landscape, [1], through)
    with pytest.raises(ValueError, match="modes from 1 to 1"):
        linear.critical_value(drawn((3, 2, 3), rank=1), [2])
    with pytest.raises(TypeError, match="hidden layer"):
        linear.critical_point(drawn((3, 3)), [1])
    for net in (MLP([3, 2, 3], bias=False), MLP([3, 2, 3], "identity")):
        landscape = Landscape(net, deep.x, deep.y)
        for function in (linear.critical_point, linear.critical_value, linear.critical_inertia):
            with pytest.raises(TypeError, match="identity"):
                function(landscape, [1])
        with pytest.raises(TypeError, match="identity"):
            linear.orbit_directions(landscape, landscape.network.init(0))
    for maps in ([torch.eye(2)], [torch.eye(2), torch.eye(3)], [torch.eye(2)] * 3):
        with pytest.raises(ValueError, match="maps has"):
            linear.move(deep, deep.network.init(0), maps)
    with pytest.raises(torch.linalg.LinAlgError):
        linear.move(one, one.network.init(0), [torch.ones(2, 2)])
