"""Paths, and what is known about the loss on their whole pieces."""

import pytest
import torch
from numpy.polynomial import Polynomial

from losslab import MLP, Landscape, backend, certify, data, linear, paths, pieces

BOWL = Landscape.of_function(lambda u: (u**2).sum(), M=2)


def deep(widths, seed, n=12, loss="sse"):
    d = data.gaussian(n, widths[0], widths[-1], seed)
    return Landscape(MLP(widths, "identity", bias=False), d.x, d.y, loss)


def test_a_path_knows_its_legs_its_length_and_its_losses():
    path = paths.polyline(BOWL, [[2.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 3.0]], ["down", "down", "up"])
    assert path.legs == [("down", 0, 2), ("up", 2, 3)]
    assert path.length == 5.0 and path.barrier == 0.0 and path.losses.tolist() == [4.0, 1.0, 0.0, 9.0]
    there = path.at([0.0, 0.2, 0.4, 0.7, 1.0])
    assert torch.allclose(there, backend.tensor([[2, 0], [1, 0], [0, 0], [0, 1.5], [0, 3]], "there"))
    back = path.reversed()
    assert back.legs == [("up", 0, 1), ("down", 1, 3)] and back.points[0].tolist() == [0.0, 3.0]
    both = path.then(back)
    assert both.length == 10.0 and both.legs == [("down", 0, 2), ("up", 2, 4), ("down", 4, 6)]
    fine = path.refined(3)
    assert len(fine.points) == 13 and abs(fine.length - 5.0) < 1e-14 and fine.legs == [("down", 0, 8), ("up", 8, 12)]


def test_a_resting_piece_does_not_disturb():
    path = paths.polyline(BOWL, [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert path.at([0.0, 0.5, 1.0]).tolist() == [[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]]


def test_straight_lines_have_a_barrier():
    hill = Landscape.of_function(lambda u: -(u**2).sum(), M=2)
    line = paths.straight(hill, [-1.0, 0.0], [1.0, 0.0], points=5)
    assert len(line.points) == 5 and line.barrier == 1.0 and line.length == 2.0


@pytest.mark.parametrize("call, words", [
    (lambda: paths.Path(BOWL, [[0.0, 0.0]]), r"points has shape \(1, 2\); expected \(T, 2\)"),
    (lambda: paths.Path(BOWL, [[0.0, 0.0], [float("nan"), 0.0]]), "points has 1 non-finite"),
    (lambda: paths.Path(BOWL, [[0.0, 0.0]] * 3, ["one"]), "names has 1 entries; expected one for each of the 2 pieces"),
    (lambda: paths.straight(BOWL, [0.0], [1.0, 1.0]), r"a has shape \(1,\); expected \(2,\)"),
    (lambda: paths.straight(BOWL, [0.0, 0.0], [1.0, 1.0], points=1), "points is 1"),
    (lambda: paths.straight(BOWL, [0.0, 0.0], [1.0, 1.0]).at([1.5]), "numbers from 0 to 1"),
    (lambda: paths.straight(BOWL, [0.0, 0.0], [1.0, 1.0]).refined(-1), "between is -1"),
    (lambda: paths.straight(BOWL, [0.0, 0.0], [1.0, 1.0]).then(paths.straight(BOWL, [0.0, 0.0], [1.0, 1.0])),
     "other begins 1.41 away"),
    (lambda: paths.refit(deep([2, 3, 2], 0), torch.zeros(12), live=[3]), r"live is \[3\]; expected units from 0 to 2"),
])
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("landscape", [BOWL, Landscape(MLP([1, 2]), [[1.0]], torch.zeros(1, 2)),
                                       Landscape(MLP([1, 2, 2]), [[1.0]], torch.tensor([0]), "cross_entropy")])
def test_refit_refuses_what_it_cannot_solve(landscape):
    with pytest.raises(TypeError, match="landscape is .*; expected"):
        paths.refit(landscape, torch.zeros(landscape.M))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_refit_is_the_lowest_point_of_the_last_layer(bias, seed):
    net = MLP([2, 4, 3, 2], "tanh", bias=bias)
    d = data.gaussian(20, 2, 2, seed)
    landscape = Landscape(net, d.x, d.y)
    theta = net.init(seed, batch=3)
    best = paths.refit(landscape, theta)
    last = net.slots[-1][0]
    assert torch.equal(best[:, :last], theta[:, :last])
    assert float(landscape.gradient(best)[:, last:].abs().max()) < 1e-13
    assert torch.allclose(paths.refit(landscape, theta[1]), best[1], atol=1e-12)
    some = paths.refit(landscape, theta, live=[0, 2])
    assert bool((net.layers(some)[-1][0][..., 1] == 0).all())
    assert bool((landscape.value(best) <= landscape.value(some)).all())


@pytest.mark.parametrize("widths", [(3, 2), (2, 3, 2), (2, 2, 3, 1), (3, 1, 2, 4, 2), (2, 2, 2, 2, 2, 2)])
@pytest.mark.parametrize("loss", ["sse", "mse"])
def test_bernstein_coefficients_are_the_loss(widths, loss):
    landscape = deep(widths, 3, loss=loss)
    points = backend.normal(6, landscape.M, seed=1)
    b = pieces.bernstein(landscape, points)
    K = len(widths) - 1
    assert b.shape == (5, 2 * K + 1)
    t = torch.linspace(0, 1, 7, dtype=b.dtype)
    basis = pieces._binomials(2 * K, b) * t[:, None] ** torch.arange(2 * K + 1) * (1 - t[:, None]) ** torch.arange(
        2 * K, -1, -1)
    dense = torch.lerp(points[:-1, None], points[1:, None], t[:, None])
    values = landscape.value(dense.flatten(0, 1)).view(5, 7)
    assert float(((b @ basis.mT - values) / values).abs().max()) < 1e-12
    # Halving describes the same polynomial: its ends and its middle.
    left, right = pieces._halved(b).unbind(1)
    assert torch.allclose(left[:, -1], values[:, 3]) and torch.equal(left[:, -1], right[:, 0])


@pytest.mark.parametrize("seed", range(20))
def test_bounds_are_tight_and_hold_between_the_points(seed):
    """Against numpy's roots: the highest value of the polynomials, and the largest climb, are what the bounds say."""
    landscape = deep((2, 2, 2, 2), seed)
    points = backend.normal(4, landscape.M, seed=seed)
    bound = pieces.bounds(landscape, points)
    found, ways = [], []
    for a, b in zip(points[:-1], points[1:], strict=True):
        t = torch.arange(7, dtype=a.dtype) / 6
        p = Polynomial.fit(t.numpy(), landscape.value(torch.lerp(a, b, t[:, None])).numpy(), 6, domain=[0, 1])
        turns = [r.real for r in p.deriv().roots() if abs(r.imag) < 1e-9 and 0 < r.real < 1]
        ways += [float(p(r)) for r in [0.0, *sorted(turns), 1.0]]
        found.append(max(ways))
    way = torch.tensor(ways, dtype=torch.float64)
    climb = float((way - way.cummin(0).values).max())
    assert abs(bound.highest - max(found)) < 1e-9 * max(found)
    assert abs(bound.rise - climb) < 1e-8 * max(found)
    assert bound.kinds == {"polynomial": 3}


def test_a_hill_between_two_points_is_seen_though_no_point_is_on_it():
    scalar = Landscape(MLP([1, 1, 1], "identity", bias=False), [[1.0]], [[1.0]], "sse")
    path = [[1.0, 1.0], [-1.0, -1.0]]
    assert not certify.path_below(scalar, path, 0.999) and certify.path_below(scalar, path, 1.0)
    assert not certify.monotone_path(scalar, path)
    assert "exact" in certify.path_below(scalar, path, 1.0).how


def one_layer(activation="relu", seed=0, loss="mse", k=1):
    net = MLP([2, 5, k], activation)
    d = data.gaussian(15, 2, k, seed)
    return net, Landscape(net, d.x, d.y if loss == "mse" else (d.y > 0).to(d.y), loss)


@pytest.mark.parametrize("loss", ["mse", "logistic"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "quadratic"])
def test_moving_the_last_layer_or_a_dead_unit_is_exact(activation, loss):
    net, landscape = one_layer(activation, loss=loss)
    a = net.init(1)
    last = net.slots[-1][0]
    b = a.clone()
    b[last:] = 0.5 * backend.normal(net.M - last, seed=2)
    b[last + 3] = 0
    c = b.clone()
    c[2 * 3:2 * 3 + 2] += 7.0  # incoming weights and bias of unit 3, which is dead in b and in c
    c[10 + 3] -= 5.0
    bound = pieces.bounds(landscape, torch.stack([a, b, c]))
    assert bound.kinds == {"convex": 1, "constant": 1}
    dense = paths.straight(landscape, a, b, points=2001).losses
    assert float(dense.max()) <= bound.highest <= float(dense[[0, -1]].max()) + 1e-12
    climb = float((dense - dense.cummin(0).values).max())
    assert bound.rise >= climb - 1e-12 and (loss == "logistic" or bound.rise <= climb + 1e-5)
    c[2 * 2] += 1.0  # now a live unit moves too
    assert pieces.bounds(landscape, torch.stack([a, b, c])) is None


def test_a_unit_that_is_dead_at_one_end_only_is_not_dead():
    net, landscape = one_layer()
    a = net.init(1)
    a[15] = 0.0
    b = a.clone()
    b[0] += 1.0
    assert pieces.bounds(landscape, torch.stack([a, b])).kinds == {"convex": 0, "constant": 1}
    b[15] = 0.1
    assert pieces.bounds(landscape, torch.stack([a, b])) is None


def test_a_unit_with_one_outgoing_weight_left_is_not_dead():
    net, landscape = one_layer(k=2)
    a = net.init(1)
    a[15] = a[20] = 0.0  # both outgoing weights of unit 0
    b = a.clone()
    b[0] += 1.0
    assert pieces.bounds(landscape, torch.stack([a, b])).kinds == {"convex": 0, "constant": 1}
    a[20] = b[20] = 0.5
    assert pieces.bounds(landscape, torch.stack([a, b])) is None


def test_nothing_is_claimed_where_nothing_is_known():
    net, landscape = one_layer()
    a = net.init(1)
    assert pieces.bounds(landscape, torch.stack([a, a + 1])) is None
    assert pieces.bounds(BOWL, torch.zeros(2, 2)) is None
    squashed = MLP([2, 3, 1], "tanh", output_activation="tanh")  # not convex in the last layer
    d = data.gaussian(5, 2, 1, 0)
    assert pieces.bounds(Landscape(squashed, d.x, d.y), torch.stack([squashed.init(0)] * 2)) is None
    assert "sampled" in certify.path_below(landscape, torch.stack([a, a + 1]), 100.0).how


@pytest.mark.parametrize("seed", range(20))
def test_the_floor_of_linear_maps_is_reached_and_not_passed(seed):
    widths = [(3, 2, 4), (4, 3, 2, 3), (3, 5, 3), (2, 1, 3, 1, 2)][seed % 4]
    landscape = deep(widths, seed, loss="mse" if seed % 2 else "sse")
    e = linear.explained(landscape)
    least = linear.lowest(landscape)
    p = min(widths)
    U = e.vectors[:, :p]
    C = U @ U.mT @ e.best  # the best map of rank p
    out = landscape.x @ C.mT
    factor = landscape.weight
    assert abs(float(factor * (out - landscape.y).square().sum()) - least) < 1e-12 * max(1, least)
    points = landscape.network.init(seed, batch=200, scale=1.5)
    assert float(landscape.value(points).min()) > least
    assert torch.allclose(linear.product(landscape.network, points[3]), linear.product(landscape.network, points)[3])


def test_the_theory_of_linear_nets_refuses_other_nets():
    with pytest.raises(TypeError, match="expected MLP.widths, 'identity', bias=False. with a square loss"):
        linear.lowest(Landscape(MLP([1, 1, 1]), [[1.0]], [[1.0]]))


# ---- nets with one hidden layer


def shallow(h, seed, n=9, d=2, k=1, activation="relu", bias=False):
    net = MLP([d, h, k], activation, bias=bias)
    landscape = Landscape(net, backend.normal(n, d, seed=seed), backend.normal(n, k, seed=seed + 100))
    return landscape, *net.init(seed + 200, batch=2, scale=2.0)


@pytest.mark.parametrize("h", [1, 2, 3, 5, 8, 20])
@pytest.mark.parametrize("k, activation, bias", [(1, "relu", False), (2, "tanh", True), (3, "relu", True)])
def test_the_half_network_path_ends_at_b_and_is_covered_whole(h, k, activation, bias):
    for seed in range(5):
        landscape, a, b = shallow(h, seed, k=k, activation=activation, bias=bias)
        path = paths.half_network(landscape, a, b)
        assert torch.equal(path.points[0], a) and torch.equal(path.points[-1], b) and len(path.points) == 8
        kinds = pieces.bounds(landscape, path.points).kinds
        assert sum(kinds.values()) == 7 and kinds["constant"] >= 3
        ours, theirs = (paths.strongest(landscape, end, h // 2) for end in (a, b))
        halves = [float(landscape.value(paths.refit(landscape, end, live)))
                  for end, live in ((a, ours), (b, theirs))]
        top = max(*halves, float(path.losses[0]), float(path.losses[-1]))
        assert float(path.losses.max()) == pytest.approx(top, rel=1e-11)
        assert certify.path_below(landscape, path, top, tol=1e-11)
        assert float(path.refined(20).losses.max()) <= top * (1 + 1e-11)
        assert not certify.path_below(landscape, path, top * (1 - 1e-6))


def test_the_loss_is_constant_where_units_are_aimed_and_go_home():
    landscape, a, b = shallow(8, 3)
    path = paths.half_network(landscape, a, b)
    for name, first, last in path.legs:
        if "aim" in name or name == "go home":
            assert float(path.losses[first]) == pytest.approx(float(path.losses[last]), rel=1e-11)


def test_halves_can_be_chosen_and_must_fit():
    landscape, a, b = shallow(6, 0)
    path = paths.half_network(landscape, a, b, ([0, 1, 2], [0, 1, 5]))  # 0 and 1 must lodge at 3 and 4
    assert torch.equal(path.points[-1], b) and certify.path_below(landscape, path, float(path.losses.max()))
    assert path.points[2].view(-1)[6:10].tolist() == b[0:4].tolist()
    assert torch.equal(paths.half_network(landscape, a, b, ([4], [0, 1, 2, 3])).points[-1], b)
    for halves in (([0, 1, 2, 3], [0, 1, 2]), ([6], [0]), ([-1], [0])):
        with pytest.raises(ValueError, match="halves are"):
            paths.half_network(landscape, a, b, halves)
    with pytest.raises(ValueError, match=r"b has shape \(3,\); expected"):
        paths.half_network(landscape, a, b[:3])
    deeper = Landscape(MLP([2, 3, 3, 1]), landscape.x, landscape.y)
    with pytest.raises(TypeError, match="one hidden layer"):
        paths.half_network(deeper, torch.zeros(25), torch.zeros(25))


def test_two_interpolating_halves_cost_nothing():
    landscape, a, b = shallow(24, 1, n=6, d=5)  # 12 units for 6 samples
    path = paths.half_network(landscape, paths.refit(landscape, a), paths.refit(landscape, b))
    assert float(path.losses.max()) < 1e-20


@pytest.mark.parametrize("seed", range(5))
def test_strongest_takes_the_best_unit_first_and_all_in_the_end(seed):
    landscape, a, _ = shallow(7, seed, bias=True)
    alone = [float(landscape.value(paths.refit(landscape, a, [j]))) for j in range(7)]
    assert paths.strongest(landscape, a, 1) == [min(range(7), key=alone.__getitem__)]
    assert paths.strongest(landscape, a, 7) == list(range(7)) and paths.strongest(landscape, a, 0) == []
    with pytest.raises(ValueError, match="size is 8"):
        paths.strongest(landscape, a, 8)


@pytest.mark.parametrize("bias", [True, False])
def test_matched_finds_a_shuffled_copy_and_balanced_keeps_the_function(bias):
    landscape, a, _ = shallow(6, 2, k=2, bias=bias)
    net = landscape.network
    (W, c), (V, e) = net.layers(a)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    shuffled = net.flatten([(W[order], c[order] if bias else None), (V[:, order], e)])
    assert torch.equal(paths.matched(net, a, shuffled), a)
    even = paths.balanced(net, torch.stack([a, shuffled]))
    assert torch.allclose(landscape.outputs(even[0]), landscape.outputs(a), atol=1e-14)
    (W, c), (V, _) = net.layers(even[0])
    into = (W.square().sum(1) + (c.square() if bias else 0)).sqrt()
    assert torch.allclose(into, V.norm(dim=0), atol=1e-14)
    with pytest.raises(ValueError, match="hidden layer of ReLUs"):
        paths.balanced(MLP([1, 2, 1]), torch.zeros(7))
    with pytest.raises(ValueError, match="expected one hidden layer"):
        paths.matched(MLP([1, 1]), [0.0, 0.0], [0.0, 0.0])


def test_a_piece_on_which_no_relu_switches_is_covered_whole():
    landscape, a, _ = shallow(3, 5)
    near = a.clone()
    near[:6] *= 1.5  # pre-activations keep their signs
    points = torch.stack([a, near])
    values = paths.straight(landscape, a, near, 200).losses
    top = float(pieces.bounds(landscape, points).highest)
    assert float(values.max()) <= top <= float(values.max()) + 1e-6
    far = a.clone()
    far[:6] *= -1
    assert pieces.bounds(landscape, torch.stack([a, far])) is None
    both = near.clone()
    both[6:] *= 2
    assert pieces.bounds(landscape, torch.stack([a, both])) is None


def test_a_small_sample_that_switches_a_relu_beside_large_ones_is_seen():
    net = MLP([2, 1, 1], "relu", bias=False)
    landscape = Landscape(net, [[1e9, 0.0], [0.0, 1e-6]], [1e9, 0.0])
    points = backend.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 1.0]], "points")
    assert pieces.bounds(landscape, points) is None  # the second sample goes from one side to the other
    points[1, 1] = 0.5
    assert pieces.bounds(landscape, points).kinds == {"convex": 1, "constant": 0}


def test_the_body_of_a_net_gives_its_last_features():
    net = MLP([2, 3, 4, 1], "tanh")
    theta, x = net.init(0, batch=2), backend.normal(5, 2, seed=1)
    (W, b) = net.layers(theta)[-1]
    features = net.body(theta[:, :net.body.M], x)
    assert features.shape == (2, 5, 4) and torch.allclose(features @ W.mT + b[:, None], net(theta, x))
