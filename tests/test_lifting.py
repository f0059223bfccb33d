"""Lifted models: intrinsic dimension, paths of one hidden layer, and paths of quadratic networks."""

import pytest
import torch

from losslab import MLP, Landscape, backend, certify, data, lifting, paths, quadratic
from losslab.critical import NoClearGap


def net(widths, activation="quadratic", seed=0, n=30, loss="sse"):
    made = data.gaussian(n, widths[0], widths[-1], seed)
    return Landscape(MLP(widths, activation, bias=False), made.x, made.y, loss)


@pytest.mark.parametrize("a", [(1, 0, 0, 2), (0, -1, 0.5), (3, 1), (0, 0, 0, 0, 1)])
def test_a_polynomial_has_its_exact_derivatives(a):
    sigma = lifting.polynomial(*a)
    z = backend.normal(20, seed=1)
    value = sum(c * z**i for i, c in enumerate(a))
    slope = sum(i * c * z ** (i - 1) for i, c in enumerate(a) if i)
    bend = sum(i * (i - 1) * c * z ** (i - 2) for i, c in enumerate(a) if i > 1) + 0 * z
    found = sigma.value(z)
    assert torch.allclose(found, value) and torch.allclose(sigma.slope(z, found), slope)
    assert torch.allclose(sigma.bend(z, found, slope), bend)
    landscape = net([2, 3, 1], sigma)  # and the layer-wise route uses them
    theta = backend.normal(landscape.M, seed=2)
    step = 1e-6 * backend.normal(landscape.M, seed=3)
    rise = landscape.value(theta + step) - landscape.value(theta - step)
    assert float(rise) == pytest.approx(2 * float(landscape.gradient(theta) @ step), rel=1e-6)


def test_names_of_polynomials():
    assert [lifting.polynomial(*a).name for a in ((0, 0, 1), (1, -1), (0, 2.5, 0, -3))] == [
        "z^2", "1 - 1z", "2.5z - 3z^3"]


@pytest.mark.parametrize("seed", range(5))
def test_features_times_output_weights_are_the_outputs(seed):
    landscape = net([3, 5, 2], "tanh", seed)
    theta = backend.normal(4, landscape.M, seed=seed)
    U = landscape.network.layers(theta)[1][0]
    phi = lifting.features(landscape, theta)
    assert phi.shape == (4, 30, 5) and torch.allclose(phi @ U.mT, landscape.outputs(theta))
    assert torch.equal(lifting.features(landscape, theta[1]), phi[1])


@pytest.mark.parametrize("seed", range(20))
def test_independent_columns_span_all(seed):
    rank, columns = 1 + seed % 4, 6
    A = backend.normal(8, rank, seed=seed) @ backend.normal(rank, columns, seed=seed + 1)
    A[:, 2] = 0.0
    chosen = lifting.independent(A)
    assert len(chosen) == rank and 2 not in chosen.tolist()
    assert int(torch.linalg.matrix_rank(A[:, chosen])) == rank
    assert lifting.independent(A[:, :0]).tolist() == [] and lifting.independent(0 * A).tolist() == []


def test_the_rank_is_refused_where_it_is_no_number():
    with pytest.raises(NoClearGap, match="no clear gap: the singular values number"):
        lifting.intrinsic_dimension("tanh", d=1)
    with pytest.raises(ValueError, match="expected more: the rank 300 still grows"):
        lifting.intrinsic_dimension("tanh", d=3)
    with pytest.raises(ValueError, match="expected more"):
        lifting.intrinsic_dimension("quadratic", d=4, units=12, points=12)  # q = 10: six units show six
    assert lifting.intrinsic_dimension("quadratic", d=4, units=24, points=24).q == 10
    near = lifting.polynomial(0, 1, 1e-6)  # 1e-6: a second gap, but the smaller one is a gap too
    assert lifting.intrinsic_dimension(near, d=2).q == 5
    with pytest.raises(NoClearGap):
        lifting.intrinsic_dimension(lifting.polynomial(0, 1, 1e-10), d=2)


@pytest.mark.parametrize("call, words", [
    (lambda: lifting.polynomial(1.0), "coefficients is"),
    (lambda: lifting.polynomial(0.0, 0.0), "not all zero"),
    (lambda: lifting.intrinsic_dimension("tanh"), "d, x are None, None; expected one of them"),
    (lambda: lifting.intrinsic_dimension("tanh", x=[1.0]), r"x has shape \(1,\); expected \(n, d\)"),
    (lambda: lifting.features(Landscape(MLP([2, 3, 1]), [[0.0, 1.0]], [1.0]), torch.zeros(13)), "no bias"),
    (lambda: lifting.features(net([2, 3, 3, 1]), torch.zeros(18)), "one hidden layer"),
    (lambda: lifting.monotone(net([2, 3, 1]), torch.zeros(2, 9)), r"theta has shape \(2, 9\); expected \(9,\)"),
    (lambda: lifting.monotone(net([2, 2, 1]), torch.zeros(6)), "width 2; expected at least the intrinsic dimension 3"),
    (lambda: lifting.meet(net([2, 3, 1]), backend.normal(9, seed=0), backend.normal(9, seed=1)), "at least 3 . 3"),
    (lambda: lifting.exchange(net([2, 3, 1]), torch.zeros(9), torch.ones(9)), "width 3; expected at least 4"),
    (lambda: quadratic.matrix(net([2, 3, 1], "tanh"), torch.zeros(9)), "expected the quadratic activation"),
    (lambda: quadratic.matrix(net([2, 3, 2]), torch.zeros(12)), "one output"),
    (lambda: quadratic.descend(net([3, 2, 1]), torch.zeros(8)), "width 2; expected at least 3"),
    (lambda: quadratic.connect(net([2, 2, 1]), torch.zeros(6), torch.ones(6)), "width 2; expected at least 3"),
    (lambda: quadratic.best_matrix(net([2, 2, 1], loss="logistic")), "expected a square loss"),
])
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_points_meet_where_their_units_just_fit():
    landscape = net([3, 5, 1])  # q = 6
    a, b = backend.normal(20, seed=0), backend.normal(20, seed=1)
    a[15:18], b[17:] = 0.0, 0.0  # two units work in a, two in b; then three
    level = float(landscape.value(torch.stack([a, b])).max())
    assert certify.path_below(landscape, lifting.meet(landscape, a, b), level)
    b[17], a[17] = 1.0, 1.0
    with pytest.raises(ValueError, match="width 5; expected at least 3 . 3"):
        lifting.meet(landscape, a, b)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_the_scale_of_the_inputs_does_not_matter(size):
    landscape = net([3, 6, 1])
    scaled = Landscape(landscape.network, size * landscape.x, landscape.y, "sse")
    theta = backend.normal(landscape.M, seed=1)
    theta[:18] = theta[:3].repeat(6)  # all units equal
    path = lifting.monotone(scaled, theta)
    assert len(path.names) <= 13 and certify.monotone_path(scaled, path)
    assert float(path.losses[-1]) == pytest.approx(float(lifting.monotone(landscape, theta).losses[-1]), rel=1e-8)
    line = Landscape(MLP([1, 2, 1], "relu", bias=False), [[size**2], [-(size**2)]], [1.0, 1.0], "sse")
    for seed in range(10):  # only a unit with the other sign is new
        assert len(lifting.monotone(line, torch.ones(4), seed).names) == 3


def test_a_rank_that_does_not_grow_is_refused():
    """One unit is so large that the others count as zero beside it: no endless search."""
    landscape = net([3, 7, 1])
    theta = backend.normal(landscape.M, seed=1)
    theta[:3] *= 1e6
    for walk in (lambda: lifting.monotone(landscape, theta), lambda: lifting.exchange(landscape, theta, 0 * theta)):
        with pytest.raises(ValueError, match="features of rank 1 even after 6 new units; expected 6"):
            walk()


def test_only_idle_units_are_aimed():
    walk = lifting.Walk(net([2, 3, 1]), backend.normal(9, seed=0))
    with pytest.raises(AssertionError, match="only idle units"):
        walk.aim([1], walk.W[[0]])


@pytest.mark.parametrize("seed", range(20))
def test_units_are_put_into_any_order(seed):
    """A random permutation of the working units through one hole, with constant outputs."""
    h = 3 + seed % 4
    landscape = net([2, h, 2], "tanh", seed)
    theta = backend.normal(landscape.M, seed=seed)
    hole = seed % h
    theta[2 * h + hole], theta[3 * h + hole] = 0.0, 0.0
    walk = lifting.Walk(landscape, theta)
    slots = [j for j in range(h) if j != hole]
    order = torch.randperm(h, generator=backend.generator(seed))[: h - 1].tolist()
    before = walk.W.clone()
    walk.rearrange(dict(zip(slots, order, strict=True)))
    assert torch.equal(walk.W[order], before[slots])
    path = walk.path() if walk.names else None
    if path:
        assert "exact" in certify.monotone_path(landscape, path).how
        outputs = landscape.outputs(path.points)
        assert float((outputs - outputs[0]).abs().max()) < 1e-12


def test_inputs_are_left_alone():
    for h, walk in ((6, lifting.monotone), (3, quadratic.descend)):
        landscape = net([3, h, 1])
        theta = backend.normal(landscape.M, seed=1)
        kept = theta.clone()
        walk(landscape, theta)
        assert torch.equal(theta, kept)


@pytest.mark.parametrize("seed", range(10))
def test_the_best_matrix_is_the_best(seed):
    d = 2 + seed % 3
    landscape = net([d, d * (d + 1) // 2, 1], seed=seed, n=(25, 4)[seed % 2])
    low = float(landscape.value(paths.refit(landscape, backend.normal(landscape.M, seed=seed))))
    best = quadratic.best_matrix(landscape)
    assert torch.equal(best, best.T)
    values, V = torch.linalg.eigh(best)
    theta = landscape.network.flatten([(torch.cat([V.T, torch.zeros(d * (d - 1) // 2, d).to(V)]), None),
                                       (torch.cat([values, torch.zeros(d * (d - 1) // 2).to(V)])[None], None)])
    assert torch.allclose(quadratic.matrix(landscape, theta), best)
    assert float(landscape.value(theta)) == pytest.approx(low, rel=1e-9, abs=1e-9)


def test_a_frame_continues_through_a_multiple_eigenvalue():
    S, change = torch.eye(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    change[0, 1] = change[1, 0] = 1.0
    found = quadratic.frame(S, change)
    moved = torch.linalg.eigh(S + 1e-3 * change).eigenvectors
    assert float((moved.T @ found.vectors).abs().max(0).values.min()) > 1 - 1e-9
    assert found.groups == [[0], [1], [2]] and quadratic.frame(S).groups == [[0, 1, 2]]
    assert quadratic.frame(S, 0 * change).groups == [[0, 1, 2]]
    turned = backend.orthogonal(3, 3, seed=0).cpu()
    near = quadratic.frame(S).near(turned)
    assert torch.allclose(near.vectors, turned) and sorted(near.groups[0]) == [0, 1, 2]
    plain = quadratic.frame(torch.diag(torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)))
    back = plain.near(torch.eye(3, dtype=torch.float64) + 0.1)
    assert back.values.tolist() == [1.0, -2.0, 0.0] and torch.allclose(back.vectors, torch.eye(3, dtype=torch.float64))


def of_matrix(S, h):
    """Weights of h units with the matrix S, hidden behind random moves that keep it."""
    values, V = torch.linalg.eigh(torch.tensor(S, dtype=torch.float64))
    W, u = torch.zeros(h, len(V), dtype=torch.float64), torch.zeros(h, dtype=torch.float64)
    W[: len(V)], u[: len(V)] = V.T, values
    return torch.cat([W.flatten(), u]).to(backend.device())


DIAGONAL = [torch.diag(torch.tensor(v)).tolist() for v in
            ([1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [1.0, 1.0, -1.0], [1.0, 0.0, 0.0], [-1.0, -1.0, -1.0])]


@pytest.mark.parametrize("first", range(6))
@pytest.mark.parametrize("second", range(6))
def test_connecting_matrices_with_multiple_eigenvalues(first, second):
    """Nothing tells the eigenvectors apart: no jump, and both ends exactly."""
    landscape = net([3, 4, 1], seed=first)
    a, b = of_matrix(DIAGONAL[first], 4), of_matrix(DIAGONAL[second], 4)
    turn = backend.orthogonal(3, 3, seed=second)
    b[:9] = (b[:9].view(3, 3) @ turn).flatten()
    path = quadratic.connect(landscape, a, b)
    assert torch.equal(path.points[0], a) and torch.equal(path.points[-1], b)
    assert certify.path_below(landscape, path, float(path.losses[[0, -1]].max()), between=0)
    size = (path.points[1:] - path.points[:-1]).norm(dim=1)
    for step, name in zip(size.tolist(), path.names, strict=True):
        assert name not in ("turn", "boost", "rescale", "straight in S") or step < 0.25 * (1 + 6)
        assert name != "settle" or step < 1e-8


def test_vectors_that_turn_quickly_are_followed():
    """Two eigenvalues that nearly meet: the steps get short there, and none is long."""
    landscape = net([2, 3, 1])
    eps = 1e-7
    S = torch.tensor([[[1.0, eps], [eps, -1.0]], [[-1.0, eps], [eps, 1.0]]])
    a, b = (of_matrix(s, 3) for s in S.tolist())
    path = quadratic.connect(landscape, a, b)
    bent = [(p, q) for p, q, name in zip(path.points, path.points[1:], path.names, strict=False)
            if name == "straight in S"]
    assert len(bent) > 40 or max(float((q - p).norm()) for p, q in bent) < 0.2 * (1 + 3)
    assert max(float((q - p).norm() / (1 + p.norm())) for p, q in bent) < 0.21
