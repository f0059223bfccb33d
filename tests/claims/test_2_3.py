"""Lesson 2.3: every claim, and every certificate, with the nets, data and moved witnesses that could refute it."""

import math
import re

import pytest
import torch

from losslab import MLP, Landscape, backend, certify, linear
from losslab.critical import inertia
from losslab.descending import descending, raised
from tests.claims.rerun import rerun

SEEDS = range(20)
LESSON = "2_linear/2_3_no_spurious_valleys"
WIDTHS = [(5, 2, 4), (3, 1, 3), (4, 5, 3), (2, 3, 5), (5, 2, 3, 4), (6, 3, 2, 4), (4, 2, 2, 2, 5), (5, 3, 4, 3, 4),
          (5, 2, 4, 3, 3, 5), (5, 4, 3, 3, 2, 4)]  # 2 to 5 matrices, narrow in different places


def drawn(seed, widths=None):
    """A deep linear net on random data: of full rank, of low rank, with few samples, or with tied eigenvalues."""
    widths = widths or WIDTHS[seed % len(WIDTHS)]
    source, (d, *_, k) = backend.generator(seed), widths
    x, y = backend.normal(30, d, seed=source), 2 * backend.normal(30, k, seed=source)
    kind = seed % 4
    if kind == 1:
        x = x[:, :2] @ backend.normal(2, d, seed=source)
    elif kind == 2:
        x, y = x[:3], y[:3]
    elif kind == 3:
        x = torch.linalg.qr(x)[0]
        U, V = backend.orthogonal(k, k, seed=source), backend.orthogonal(d, d, seed=source)
        sizes = torch.tensor([3.0, 2.0, 2.0, 2.0, 1.0, 1.0], dtype=torch.float64)[: min(d, k)]
        y = x @ (U[:, : len(sizes)] * sizes @ V[: len(sizes)]).mT
    return Landscape(MLP(widths, "identity", bias=False), x, y, "sse")


def starts(landscape, seed):
    """{kind: theta}: random, zero, one matrix zero, ranks of 1, and the worst saddles."""
    net = landscape.network
    W = [W for W, _ in net.layers(backend.normal(net.M, seed=seed + 100))]
    points = {"random": W, "zero": [0 * V for V in W], "rank 1": [V[:, :1] @ V[:1] for V in W]}
    points |= {f"W_{l + 1} = 0": [0 * V if i == l else V for i, V in enumerate(W)] for l in range(net.depth)}
    points = {kind: net.flatten([(V, None) for V in Ws]) for kind, Ws in points.items()}
    modes = int((linear.explained(landscape).values > 1e-9).sum())
    for r in range(1, min(modes, *net.widths[1:-1]) + 1):
        points[f"saddle {r}"] = linear.critical_point(landscape, range(modes - r + 1, modes + 1))
    return points


def quadratic(landscape, v):
    """v^T S v for the columns v (k, r), each."""
    known = linear.explained(landscape)
    return (known.values[:, None] * (known.vectors.mT @ v).square()).sum(0)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_spurious_valleys(seed):
    landscape = drawn(seed)
    size = float(landscape.y.square().sum())
    for kind, theta in starts(landscape, seed).items():
        path = descending(landscape, theta)
        certificate = certify.monotone_path(landscape, path)
        assert certificate and certificate.how.startswith("exact"), (kind, certificate)
        assert path.points[0].equal(theta)
        assert abs(float(path.losses[-1]) - linear.lowest(landscape)) <= 1e-10 * max(1.0, size), kind
        if path.length > 0 and path.losses[0] - path.losses[-1] > 1e-6:  # moved witnesses
            assert not certify.monotone_path(landscape, path.reversed())
            corner = path.points.clone()
            corner[-1] += (corner[0] - corner[-1]) * 1e-3  # the end is not reached
            assert float(landscape.value(corner[-1])) - linear.lowest(landscape) > 1e-9
            over = torch.cat([path.points, 2 * path.points[-1:] - path.points[-2:-1]])  # and on, beyond the minimum
            assert not certify.monotone_path(landscape, over)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_column_space_leaves(seed):
    landscape = drawn(seed)
    known, (d, *_, k) = linear.explained(landscape), landscape.network.widths
    total = float(landscape.y.square().sum())
    r = 1 + seed % min(d, k)
    Q = torch.linalg.qr(backend.normal(k, r, seed=seed + 5))[0]
    W_2 = Q @ backend.normal(r, r, seed=seed + 1)
    left = total - float(quadratic(landscape, Q).sum())
    shallow = Landscape(MLP((d, r, k), "identity", bias=False), landscape.x, landscape.y, "sse")
    fit = shallow.network.flatten([(torch.linalg.pinv(W_2) @ known.best, None), (W_2, None)])
    assert abs(float(shallow.value(fit)) - left) < 1e-11 * total
    others = fit.repeat(200, 1)
    others[:, : r * d] += backend.normal(200, r * d, seed=seed + 2) * 10 ** backend.uniform(200, 1, low=-3, high=1,
                                                                                             seed=seed + 3)
    assert (shallow.value(others) > left - 1e-11 * total).all()
    p = min(landscape.network.widths)
    assert abs(linear.lowest(landscape) - (total - float(known.values[:p].sum()))) < 1e-11 * total
    spaces = torch.linalg.qr(backend.normal(200, k, p, seed=seed + 4))[0]
    assert all(float(quadratic(landscape, space).sum()) <= float(known.values[:p].sum()) * (1 + 1e-12)
               for space in spaces)


@pytest.mark.parametrize("seed", SEEDS)
def test_raising_the_rank(seed):
    p, q, r = 1 + seed % 5, 1 + seed // 2 % 4, 3
    rank = seed % (min(p, q) + 1)
    A = backend.normal(p, rank, seed=seed) @ backend.normal(rank, q, seed=seed + 50)
    B = backend.normal(q, r, seed=seed + 99)
    new, parted = raised(A, B)
    assert torch.linalg.matrix_rank(new) == min(p, q)
    landscape = Landscape(MLP((r, q, p), "identity", bias=False), torch.eye(r), backend.normal(r, p, seed=1), "sse")
    points = torch.stack([landscape.network.flatten([(b, None), (a, None)]) for a, b in
                          ((A, B), (A, parted), (new, parted))])
    assert certify.monotone_path(landscape, points) and certify.monotone_path(landscape, points.flip(0))
    if rank < min(p, q):  # A at once, before B has given way
        skipped = points[[0, 2]].clone()
        skipped[1, : q * r] = B.flatten()
        assert not (certify.monotone_path(landscape, skipped) and certify.monotone_path(landscape, skipped.flip(0)))
        assert new.equal(A) is False and torch.linalg.matrix_rank(A) == rank


@pytest.mark.parametrize("seed", SEEDS)
def test_one_matrix_at_a_time_is_not_enough(seed):
    landscape = drawn(seed)
    net = landscape.network
    theta = list(starts(landscape, seed).values())[-1]  # the worst saddle
    H = landscape.hessian(theta)
    for a, b, _ in net.slots:
        assert torch.linalg.eigvalsh(H[a:b, a:b])[0] > -1e-9 * max(1.0, float(H.abs().max()))
        moved = theta.repeat(100, 1)
        moved[:, a:b] += backend.normal(100, b - a, seed=seed + 1)
        assert (landscape.value(moved) > landscape.value(theta) * (1 - 1e-12)).all()
    if float(landscape.value(theta)) > linear.lowest(landscape) + 1e-6:
        assert inertia(H).negative > 0  # both together do it: full rank, so a strict saddle


@pytest.mark.parametrize("seed", SEEDS)
def test_the_loss_falls_like_sine_squared(seed):
    landscape = drawn(seed, [(5, 2, 4), (3, 1, 3), (6, 3, 5), (5, 2, 3, 4)][seed // 4 % 4])
    net, known = landscape.network, linear.explained(landscape)
    h = min(net.widths)
    path = descending(landscape, backend.normal(net.M, seed=seed + 7), chords=16)
    begin = [first for name, first, _ in path.legs if name == "turn"][0]
    # The column spaces at the corners, from the maps that the corners compute.
    columns = torch.linalg.qr(net.layers(path.points[begin:])[-1][0] @ (net.layers(path.points[begin:])[1][0]
                              if net.depth == 3 and net.widths[1] < net.widths[2] else torch.eye(h).to(landscape.x)))[0]
    F, cosine, G = torch.linalg.svd(columns[-1].mT @ columns[0])  # the end of the path is a leading space
    u, q = columns[-1] @ F, columns[0] @ G.mT
    assert abs(float(quadratic(landscape, u).sum() - known.values[:h].sum())) < 1e-10
    w = torch.nn.functional.normalize(q - cosine * u, dim=0)
    delta, angle = quadratic(landscape, u) - quadratic(landscape, w), cosine.clamp(max=1).acos()
    turning = angle > 1e-6
    assert turning.any() and (delta[turning] > 0).all()
    left = 1 - torch.arange(17, dtype=torch.float64) / 16
    formula = (delta * turning * (left[:, None] * angle).sin().square()).sum(1)
    measured = path.losses[begin:] - linear.lowest(landscape)
    assert (measured - formula).abs().max() < 1e-10 * max(1.0, float(path.losses[begin]))
    wrong = (delta * turning * (left[:, None] * angle).sin()).sum(1)  # the sine without its square would be seen
    assert (measured - wrong).abs().max() > 1e-3 * float(measured[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_chord_that_falls(seed):
    def gain(p, low):
        return (2 - p.square().sum(-1)) * (p[..., 0] ** 2 + low * p[..., 1] ** 2)

    s = torch.linspace(0, 1, 400, dtype=torch.float64)
    for low, u, start in zip(*backend.uniform(3, 50, seed=seed).tolist(), strict=True):
        longest = 2 * math.asin((1 - low) ** 0.5 / 2)  # chord^2 = (1 - low) / 1
        step = longest * (1.0 if u > 0.5 else u + 1e-3)
        first = math.pi / 2 if start > 0.7 else step + start * (math.pi / 2 - step)
        ends = torch.tensor([[math.cos(a), math.sin(a)] for a in (first, max(first - step, 0.0))], dtype=torch.float64)
        values = gain(torch.lerp(ends[0], ends[1], s[:, None]), low)
        assert (values.diff() > 0).all()
    # The bound is nearly sharp at a saddle: a chord longer by a quarter fails for close eigenvalues.
    low = 1 - 10 ** -float(backend.uniform(1, low=1.3, high=3, seed=seed))
    for factor, rises in ((1.0, True), (1.25, False)):
        step = 2 * math.asin(factor * (1 - low) ** 0.5 / 2)
        ends = torch.tensor([[0.0, 1.0], [math.sin(step), math.cos(step)]], dtype=torch.float64)
        assert bool((gain(torch.lerp(ends[0], ends[1], s[:, None]), low).diff() > 0).all()) == rises
    # And in a net: as many chords as asked for hold, two thirds of them fail, on whole pieces.
    net = Landscape(MLP((2, 1, 2), "identity", bias=False), torch.eye(2),
                    torch.diag(torch.tensor([1.0, low**0.5], dtype=torch.float64)), "sse")
    saddle = linear.critical_point(net, [2])
    enough = len(descending(net, saddle).points) - 1
    assert enough == math.ceil(math.pi / 2 / (1 - low) ** 0.5 - 1e-9)
    assert certify.monotone_path(net, descending(net, saddle))
    assert not certify.monotone_path(net, descending(net, saddle, chords=enough * 2 // 3))


@pytest.mark.parametrize("seed", SEEDS)
def test_clearing_the_way(seed):
    landscape = drawn(seed, [w for w in WIDTHS if len(w) > 3][seed % 6])
    net = landscape.network
    hidden = net.widths[1:-1]
    m, h = 1 + hidden.index(min(hidden)), min(hidden)
    raising = 0
    for kind, theta in starts(landscape, seed).items():
        path = descending(landscape, theta)
        last = max([end for name, _, end in path.legs if name == "rank"], default=0)
        product = linear.product(net, path.points[: last + 1])
        assert (product - product[0]).abs().max() < 1e-10 * max(1.0, float(product[0].abs().max())), kind
        W = [W for W, _ in net.layers(path.points[last])]
        sides = [torch.eye(h).to(W[0]), torch.eye(h).to(W[0])]
        for V in W[m:-1]:
            sides[0] = V @ sides[0]
        for V in reversed(W[1:m]):
            sides[1] = sides[1] @ V
        assert all(torch.linalg.matrix_rank(side) == h for side in sides), kind
        assert torch.linalg.matrix_rank(W[-1] @ sides[0]) == min(h, net.widths[-1]), kind
        raising += last > 0
    assert raising >= 3  # zero, rank 1, and at least one matrix that is zero


@pytest.mark.parametrize("seed", SEEDS)
def test_strictly_down(seed):
    # PT: near every start a point from which the loss falls strictly; two to five matrices.
    landscape = drawn(seed)
    for kind, theta in starts(landscape, seed).items():
        nudge = torch.nn.functional.normalize(backend.normal(landscape.M, seed=seed + 3), dim=0)
        near = theta + (0.3, 0.03)[seed % 2] * nudge
        path = descending(landscape, near)
        assert "rank" not in path.names and (path.losses.diff() < 0).all(), kind
        assert certify.monotone_path(landscape, path, strict=True), kind
        assert not certify.monotone_path(landscape, torch.cat([near[None], path.points]), strict=True)
    # Two matrices: from the point itself, also where the path of the theorem begins level.
    leave = rerun(LESSON, 0, ["sphere-data", "rank-run", "starts", "strict-run"])[1]["leave"]
    landscape = drawn(seed, WIDTHS[seed // 4 % 4])
    tried = 0
    for kind, theta in starts(landscape, seed).items():
        W_2 = landscape.network.layers(theta)[1][0]
        above = float(landscape.value(theta)) - linear.lowest(landscape)
        if torch.linalg.matrix_rank(W_2) < min(W_2.shape) and above > 1e-6:
            assert certify.monotone_path(landscape, leave(landscape, theta, step=1e-3), strict=True), kind
            assert not certify.monotone_path(landscape, descending(landscape, theta), strict=True), kind
            tried += 1
    assert tried >= 2


@pytest.mark.parametrize("seed", [0, 7])
def test_the_lesson_prints_the_same_with_another_seed(seed):
    names = ["sphere-data", "rank-run", "both-run", "sine-run", "chords-run", "starts", "starts-run", "moved",
             "strict-run", "valleys", "waits", "nonlinear"]
    said, _ = rerun(LESSON, seed, names)
    assert "False" not in said["starts-run"] + said["valleys"] + said["sine-run"] + said["waits"]
    assert said["moved"].count("FAILS") == 3 and said["moved"].startswith("holds: as it is")
    assert said["nonlinear"].count("no path rises: False; at least half of them rise: True") == 2
    assert said["nonlinear"].startswith("identity  no path rises: True; at least half of them rise: False")
    assert said["rank-run"].count("holds") == 2 and said["rank-run"].count("FAILS") == 1
    assert said["both-run"].splitlines()[:2] == [" W_1: 0 negative eigenvalues", " W_2: 0 negative eigenvalues"]
    assert said["chords-run"].splitlines()[-1].startswith("4 chords: FAILS")
    wasted = [int(asked) - int(fewest) for asked, fewest in
              re.findall(r"asks for +(\d+) chords.*rise: +(\d+)", said["chords-run"])]
    assert wasted == [1, 1, 0, 0, 1, 0, 0]  # one at most; "0": with one fewer the certificate fails
    assert said["strict-run"].count("True") == 4
