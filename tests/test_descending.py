"""Descending paths of deep linear nets: every depth, width, rank of the data and kind of start, certified exactly."""

import math

import pytest
import torch

from losslab import MLP, Landscape, backend, certify, linear
from losslab.descending import chords_needed, descending, leading, raised


def drawn(seed):
    """A deep linear net of 2 to 5 matrices with widths 1 to 6, and data of any rank, few samples, or with ties."""
    source = backend.generator(seed)

    def number(low, high):
        return int(torch.randint(low, high + 1, (), generator=source))

    widths = [number(1, 6) for _ in range(2 + seed % 4 + 1)]
    d, k, n = widths[0], widths[-1], number(1, 25)
    kind = ("generic", "few samples", "low rank", "tie")[seed // 4 % 4]
    if kind == "tie":
        x, y = torch.eye(d).repeat(2, 1), torch.eye(max(d, k))[:d, :k].repeat(2, 1)
        y[0] *= number(1, 2)
    else:
        n = n if kind == "few samples" else 25
        x, y = backend.normal(n, d, seed=source), 2 * backend.normal(n, k, seed=source)
        if kind == "low rank":
            rank = number(1, max(1, d - 1))
            x = x[:, :rank] @ backend.normal(rank, d, seed=source)
    return Landscape(MLP(widths, "identity", bias=False), x, y, "sse"), source


def starts(landscape, source):
    """{kind: theta}: random, zero, an outer or an inner matrix zero, ranks lowered, and saddles of every rank."""
    net = landscape.network
    W = [W for W, _ in net.layers(backend.normal(net.M, seed=source))]
    points = {"random": W, "zero": [0 * V for V in W]}
    for l in range(net.depth):
        points[f"W_{l + 1} = 0"] = [0 * V if i == l else V for i, V in enumerate(W)]
    lowered = []
    for V in W:
        U, s, Vh = torch.linalg.svd(V, full_matrices=False)
        s[int(torch.randint(0, len(s) + 1, (), generator=source)):] = 0
        lowered.append(U * s @ Vh)
    points["low ranks"] = lowered
    points = {kind: net.flatten([(V, None) for V in Ws]) for kind, Ws in points.items()}
    modes = linear.explained(landscape).rank
    for r in range(min(modes, *net.widths[1:-1]) + 1):
        points[f"saddle of rank {r}"] = linear.critical_point(landscape, range(modes - r + 1, modes + 1))
    return points


@pytest.mark.parametrize("seed", range(48))
def test_the_path_never_rises_and_ends_at_the_minimum(seed):
    landscape, source = drawn(seed)
    lowest = linear.lowest(landscape)
    for kind, theta in starts(landscape, source).items():
        path = descending(landscape, theta)
        certificate = certify.monotone_path(landscape, path)
        assert certificate and "exact" in certificate.how, (kind, certificate)
        assert path.points[0].equal(theta)
        assert abs(float(path.losses[-1]) - lowest) <= 1e-10 * max(1.0, float(landscape.y.square().sum())), kind
        assert [name for name, _, _ in path.legs] == sorted({*path.names}, key=["stay", "rank", "fit", "turn"].index)


@pytest.mark.parametrize("seed", range(0, 48, 5))
def test_one_matrix_moves_until_the_turn_and_the_rank_legs_keep_the_product(seed):
    landscape, source = drawn(seed)
    net = landscape.network
    for theta in starts(landscape, source).values():
        path = descending(landscape, theta)
        products = linear.product(net, path.points)
        for i, name in enumerate(path.names):
            moved = [l for l, (W, _) in enumerate(net.layers(path.points), start=1) if not W[i].equal(W[i + 1])]
            assert moved in {"rank": [[l] for l in range(1, net.depth + 1)], "fit": [[1]],
                             "turn": [[1, net.depth]], "stay": [[]]}[name]
            if name == "rank":
                size = max(float(W[i].abs().max()) for W, _ in net.layers(path.points)) ** net.depth
                assert (products[i + 1] - products[i]).abs().max() <= 1e-12 * max(1.0, size)


@pytest.mark.parametrize("seed", [8, 9, 10, 11])
def test_what_no_sample_sees_of_the_first_matrix_stays_when_it_is_fitted(seed):
    landscape, source = drawn(seed)  # inputs of low rank, or few of them
    x = landscape.x
    unseen = torch.eye(x.shape[1]).to(x) - torch.linalg.pinv(x) @ x
    path = descending(landscape, backend.normal(landscape.M, seed=source))
    W_1 = landscape.network.layers(path.points)[0][0] @ unseen
    moves = [(W_1[i + 1] - W_1[i]).abs().max() for i, name in enumerate(path.names) if name != "rank"]
    assert moves and max(moves) < 1e-10 * max(1.0, float(path.points.abs().max()))


def test_a_net_with_one_matrix_goes_straight():
    x, y = backend.normal(2, 3, seed=0), backend.normal(2, 2, seed=1)
    landscape = Landscape(MLP([3, 2], "identity", bias=False), x, y, "sse")
    path = descending(landscape, backend.normal(6, seed=2))
    assert path.names == ("fit",) and abs(float(path.losses[-1]) - linear.lowest(landscape)) < 1e-12
    assert certify.monotone_path(landscape, path)


def test_a_global_minimum_stays_and_the_mean_square_loss_is_welcome():
    net = MLP([4, 2, 3], "identity", bias=False)
    landscape = Landscape(net, backend.normal(20, 4, seed=0), backend.normal(20, 3, seed=1), "mse")
    path = descending(landscape, net.init(seed=0))
    again = descending(landscape, path.points[-1])
    assert abs(float(path.losses[-1]) - linear.lowest(landscape)) < 1e-12
    assert again.names == ("stay",) and again.length == 0


@pytest.mark.parametrize("shape", [(4, 2), (2, 4), (3, 3), (1, 5), (5, 1)])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_the_rank_is_raised_and_the_product_kept(shape, rank):
    p, q = shape
    rank = min(rank, p, q)
    A, B = backend.normal(p, rank, seed=0) @ backend.normal(rank, q, seed=1), backend.normal(q, 3, seed=2)
    new, parted = raised(A, B)
    assert torch.linalg.matrix_rank(new) == min(p, q)
    for left, right in ((A, parted), ((A + new) / 2, parted), (new, parted), (A, (B + parted) / 2)):
        assert (left @ right - A @ B).abs().max() < 1e-13


def test_the_leading_space_is_the_nearest_where_there_is_a_tie():
    net = MLP([4, 2, 4], "identity", bias=False)
    landscape = Landscape(net, torch.eye(4), torch.diag(torch.tensor([3.0, 2.0, 2.0, 1.0])), "sse")
    known = linear.explained(landscape)
    Q = torch.linalg.qr(torch.tensor([[0.2, 0.0], [0.6, 0.0], [0.8, 0.0], [0.0, 1.0]], dtype=torch.float64))[0]
    U = leading(known, Q)
    assert (U.mT @ U - torch.eye(2)).abs().max() < 1e-14
    wanted = torch.tensor([0.0, 0.6, 0.8, 0.0], dtype=torch.float64)  # of the plane of the tie, nearest to Q
    assert (U @ (U.mT @ wanted) - wanted).norm() < 1e-12
    assert abs(float((U.mT @ torch.eye(4, dtype=torch.float64)[:, 0]).norm()) - 1) < 1e-12


def test_the_chords_are_as_many_as_the_lemma_says():
    angle, up = torch.tensor([math.pi / 2], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for gap, count in ((1.0, 2), (0.5, 3), (0.1, 5), (0.004, 25), (1e-12, 1500)):
        assert chords_needed(angle, up, up - gap) == count
    assert chords_needed(torch.zeros(1), up, 0 * up) == 0
    assert chords_needed(torch.tensor([0.5, 1.5]), torch.tensor([1.0, 1.0]), torch.tensor([0.9, 0.0])) == 2


def test_a_near_tie_is_certified_too():
    for gap in (1e-4, 1e-7, 1e-10, 1e-13):
        landscape = Landscape(MLP([2, 1, 2], "identity", bias=False), torch.eye(2),
                              torch.diag(torch.tensor([1.0, math.sqrt(1 - gap)], dtype=torch.float64)), "sse")
        path = descending(landscape, linear.critical_point(landscape, [2]))
        assert certify.monotone_path(landscape, path)
        assert abs(float(path.losses[-1]) - linear.lowest(landscape)) <= 1e-12


@pytest.mark.parametrize("make, error, message", [
    (lambda L: descending(L, torch.zeros(3)), ValueError, r"theta has shape \(3,\); expected \(4,\)"),
    (lambda L: descending(L, torch.zeros(2, 4)), ValueError, "theta has shape"),
    (lambda L: descending(L, [float("nan")] * 4), ValueError, "theta has 4 non-finite"),
    (lambda L: descending(L, torch.zeros(4), chords=0), ValueError, "chords is 0; expected an integer of at least 1"),
    (lambda L: descending(Landscape(MLP([2, 1, 2]), L.x, L.y), torch.zeros(7)), TypeError, "expected MLP"),
])
def test_unfit_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make(Landscape(MLP([2, 1, 2], "identity", bias=False), torch.eye(2), torch.eye(2), "sse"))
