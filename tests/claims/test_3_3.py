"""Lesson 3.3 on twenty seeds: its theorems over random architectures, and what the lesson itself prints."""

import random

import pytest
import torch
from torch.func import hessian

from losslab import MLP, Landscape, backend, certify, data
from losslab.critical import NoClearGap, inertia, manufacture
from losslab.descend import polish
from losslab.embedding import inner_coupling, inner_hessian, null, split, split_basis, split_directions
from tests.claims.rerun import rerun

SEEDS = range(20)
ACTIVATIONS = ["tanh", "sigmoid", "softplus", torch.sin]


# ---- the lesson's own cells, run with another seed

COMPARED = ["zero-count", "irreversible", "block", "three", "certify-both", "certify-both-shown", "search", "iris",
            "iris-chain", "iris-escape", "iris-escape-shown", "coupled", "bad-made", "bad-made-shown", "bad-lower",
            "generic", "solution-copies", "solution-ends", "solution-relu", "solution-null"]


def run(seed, names):
    """What cells of the lesson print, with SEED replaced, and the names that they leave behind."""
    return rerun("3_embedding/3_3_minimum_to_saddle", seed, names, {"flowers": data.iris(), "right": right})


def right(triple):
    """Stands in the lesson beside the 360 networks, which most tests here do not want to wait for."""
    old, added, new = triple
    return tuple(a + b for a, b in zip(old, added, strict=True)) == new


@pytest.fixture(scope="module")
def as_printed():
    return run(3, COMPARED)[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_the_lesson_prints_holds_for_twenty_seeds(seed, as_printed):
    assert run(seed, COMPARED)[0] == as_printed


def test_the_lesson_says_false_only_of_moved_witnesses(as_printed):
    said_false = {name: text.count("False") for name, text in as_printed.items() if "False" in text}
    assert said_false == {"block": 2, "certify-both": 6, "iris-escape": 1}
    assert not any("FAILS" in text for text in as_printed.values())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_points_that_a_search_found(seed):
    said, space = run(seed, ["irreversible", "block", "random-networks", "polished-run"])
    assert said["polished-run"].count("True") == 2 and len(space["found"]) >= 20
    assert {old[0] for old, _, _ in space["found"]} >= {1, 2}  # saddles too


# ---- random places

def conditioned(net, x, seed, draws=60):
    thetas = backend.normal(draws, net.M, seed=backend.generator(seed, "weights"), scale=1.2)
    s = torch.linalg.svdvals(Landscape(net, x, torch.zeros(len(x), net.widths[-1])).jacobian(thetas))
    return thetas[int((s[:, -1] / s[:, 0]).argmax())]


def somewhere(seed, outputs=(1, 1, 2, 3), losses=("mse", "logistic")):
    """A random network on random data, a random theta (not critical), a random split."""
    draw = random.Random(seed)
    hidden = draw.choice([1, 2, 3])
    widths = [draw.randint(1, 4), *(draw.randint(1, 6) for _ in range(hidden)), draw.choice(outputs)]
    net = MLP(widths, draw.choice(ACTIVATIONS), bias=draw.random() < 0.8)
    source = backend.generator(seed)
    x, y = backend.normal(12, widths[0], seed=source), backend.uniform(12, widths[-1], seed=source)
    layer = draw.randint(1, hidden)
    alpha = draw.choice([0.0, 1.0, draw.uniform(0, 1), draw.uniform(-1, 0), draw.uniform(1, 2)])
    landscape = Landscape(net, x, y, draw.choice(losses))
    return landscape, backend.normal(net.M, seed=source), layer, draw.randint(1, widths[layer]), alpha


def widened(landscape, theta, layer, neuron, alpha):
    wider, wide = split(landscape.network, theta, layer, neuron, [1 - alpha, alpha])
    return Landscape(wider, landscape.x, landscape.y, landscape.loss), wide


def after(*case):
    wide, point = widened(*case)
    return inertia(wide.hessian(point))


def lift(net, g, layer, neuron, alpha):
    """What a split does to gradients, of shape (M,) or (B, M): a copy's row times its share, its column as it was."""
    (layers, s), wider = (net.layers(g), neuron - 1), list(net.widths)
    wider[layer] += 1
    W, b = layers[layer - 1]
    out, c = layers[layer]
    shares = torch.ones(wider[layer], dtype=g.dtype)
    shares[s], shares[-1] = 1 - alpha, alpha
    W = torch.cat([W, W[..., s : s + 1, :]], -2) * shares[:, None]
    b = None if b is None else torch.cat([b, b[..., s : s + 1]], -1) * shares
    layers[layer - 1 : layer + 1] = [(W, b), (torch.cat([out, out[..., s : s + 1]], -1), c)]
    return MLP(wider, net.activation, net.bias).flatten(layers)


# ---- theorem: irreversibility

@pytest.mark.parametrize("block", range(20))
def test_embeddings_take_no_count_away(block):
    """A^T H' A = H, grad L' = Gamma grad L and H' A = Gamma H at random points; counts at manufactured ones."""
    for seed in range(10 * block, 10 * block + 10):
        landscape, theta, layer, neuron, alpha = somewhere(seed)
        net = landscape.network
        wide, point = widened(landscape, theta, layer, neuron, alpha)
        A = split(net, torch.eye(net.M, dtype=theta.dtype), layer, neuron, [1 - alpha, alpha])[1].T
        H, wide_H = landscape.hessian(theta), wide.hessian(point)
        near = dict(rtol=0, atol=1e-12 * float(wide_H.abs().max().clamp_min(1)))
        assert int(torch.linalg.matrix_rank(A)) == net.M
        assert torch.allclose(A.T @ wide_H @ A, H, **near)
        assert torch.allclose(wide.gradient(point), lift(net, landscape.gradient(theta), layer, neuron, alpha), **near)
        assert torch.allclose((wide_H @ A).T, lift(net, H, layer, neuron, alpha), **near)
    x = backend.normal(60, 2, seed=block, scale=1.5)
    net = MLP([2, 3, 2, 1])
    theta, counted = conditioned(net, x, block, draws=200), 0
    for size in (0.01, 0.5):
        place = manufacture(net, x, size, block, theta).landscape
        old = inertia(place.hessian(theta)).counts
        draw = random.Random(block)
        wider, silent = null(net, theta, draw.randint(1, 2), bias=draw.uniform(-1, 1))
        chain = [(Landscape(wider, x, place.y), silent), (place, theta)]
        for _ in range(3):  # splits, one after the other
            layer = draw.randint(1, 2)
            neuron = draw.randint(1, chain[-1][0].network.widths[layer])
            chain.append(widened(*chain[-1], layer, neuron, draw.uniform(-1, 2)))
        for at, point in chain:
            try:
                new = inertia(at.hessian(point)).counts
            except NoClearGap:
                continue
            counted += 1
            assert all(n >= o for o, n in zip(old, new, strict=True))
    assert counted >= 6


def test_congruence_alone_does_not_keep_the_zeros():
    """Q indefinite and a line e with e^T Q e = 0, in random coordinates: the congruence holds and the zero is gone."""
    for seed in SEEDS:
        Q = backend.normal(2, 2, seed=seed)
        turned = Q @ backend.tensor([[0.0, 1.0], [1.0, 0.0]], "swap") @ Q.T
        e = torch.linalg.inv(Q).T[:, :1]
        assert abs(float(e.T @ turned @ e)) < 1e-9 * float(turned.abs().max() * (e.T @ e))
        assert inertia((turned + turned.T) / 2).counts == (1, 0, 1)


# ---- theorem: the Hessian of a split

def by_differentiation(landscape, theta, layer, neuron):
    """B_s and C_s sample by sample, with every derivative by automatic differentiation."""
    net, layers = landscape.network, landscape.network.layers(theta)
    B, C = 0.0, 0.0
    for x, y in zip(landscape.x, landscape.y, strict=True):
        a = x
        for W, b in layers[: layer - 1]:
            a = net.activation.value(W @ a + (0 if b is None else b))
        W, b = layers[layer - 1]
        z = (W @ a + (0 if b is None else b)).detach().requires_grad_()
        features = net.activation.value(z)
        slope = torch.autograd.grad(features.sum(), z, create_graph=True)[0]
        bend = torch.autograd.grad(slope.sum(), z)[0]
        W, b = layers[layer]
        p = (W @ features + (0 if b is None else b)).detach().requires_grad_()
        out = p
        for W_next, b_next in layers[layer + 1 :]:
            out = W_next @ net.activation.value(out) + (0 if b_next is None else b_next)
        one = Landscape(MLP([1, len(y)], bias=False), [[1.0]], y[None], landscape.loss)
        loss = one.loss.gradient(out.detach()[None, None], y[None])[0, 0]
        e = torch.autograd.grad(out, p, grad_outputs=loss)[0] * landscape.weight
        seen = torch.cat([a, a.new_ones(1)]) if net.bias else a
        s = neuron - 1
        B = B + (W[:, s] @ e) * bend[s] * torch.outer(seen, seen)
        C = C + torch.outer(e, seen) * slope[s].detach()
    return B, C


def K_of(B, C, alpha):
    return torch.cat([torch.cat([alpha * (1 - alpha) * B, C.T], 1), torch.cat([C, C.new_zeros(len(C), len(C))], 1)])


@pytest.mark.parametrize("block", range(20))
def test_the_hessian_of_a_split(block):
    """200 networks, layers, neurons, shares: every entry of P H' P^T = diag(H, K), with B and C found another way."""
    for seed in range(1000 + 10 * block, 1010 + 10 * block):
        landscape, theta, layer, neuron, alpha = somewhere(seed)
        B, C = by_differentiation(landscape, theta, layer, neuron)
        near = dict(rtol=0, atol=1e-12 * float(max(1, B.abs().max(), C.abs().max())))
        assert torch.allclose(inner_hessian(landscape, theta, layer, neuron), B, **near)
        assert torch.allclose(inner_coupling(landscape, theta, layer, neuron), C, **near)
        wider, P = split_basis(landscape.network, layer, neuron, alpha)
        wide, point = widened(landscape, theta, layer, neuron, alpha)
        H = wide.hessian(point)
        if seed % 10 == 0:  # the wide Hessian without the library's own formulas
            def value(t, net=wider, on=landscape):
                f = net(t, on.x)
                square = (f - on.y).square().sum(1)
                logistic = (torch.logaddexp(f, torch.zeros_like(f)) - on.y * f).sum(1)
                return (square if type(on.loss).__name__ == "Square" else logistic).mean()
            assert torch.allclose(hessian(value)(point), H, rtol=0, atol=1e-11 * float(H.abs().max().clamp_min(1)))
        scale = float(H.abs().max().clamp_min(1))
        error = P @ H @ P.T - torch.block_diag(landscape.hessian(theta), K_of(B, C, alpha))
        assert int(torch.linalg.matrix_rank(P)) == wider.M and float(error.abs().max()) < 1e-12 * scale
        moved = K_of(B, C, alpha + 0.1) - K_of(B, C, alpha)  # the share is seen, unless B vanishes
        assert float(moved.abs().max()) > 1e-12 or abs((2 * alpha + 0.1) - 1) < 1e-6 or float(B.abs().max()) < 1e-9


# ---- corollary: the inertia of a split

def test_the_inertia_of_a_split():
    """The 360 networks of the lesson: at least 200 have a clear gap, and each of these is predicted exactly."""
    said, space = run(3, ["irreversible", "block", "random-networks", "random-run"])
    assert said["random-run"].count("True") == 4 and "False" not in said["random-run"]
    assert len(space["cases"]) == 360 and len(space["clear"]) >= 200 and space["worst"] < 1e-12
    kinds = {(case[0].network.depth, case[0].network.activation.name) for case, triple in
             zip(space["cases"], map(space["compare"], *zip(*space["cases"], strict=True)), strict=True) if triple}
    assert {depth for depth, _ in kinds} == {2, 3, 4}
    assert {name for _, name in kinds} == {"tanh", "sigmoid", "softplus", "sin", "quadratic"}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_inertia_of_a_split_in_the_last_hidden_layer(seed):
    """One output: inertia(H) + inertia(alpha (1 - alpha) B) + (0, 1, 0), and (0, d + 2, 0) at the ends."""
    draw, checked = random.Random(seed), 0
    for widths in ([2, 3, 1], [1, 2, 1], [3, 2, 2, 1]):
        net = MLP(widths)
        x = backend.normal(3 * net.M, widths[0], seed=seed, scale=1.5)
        theta = conditioned(net, x, seed)
        place, layer = manufacture(net, x, draw.choice([0.05, 0.5]), seed, theta).landscape, len(widths) - 2
        neuron = draw.randint(1, widths[layer])
        B = inner_hessian(place, theta, layer, neuron)
        assert float(inner_coupling(place, theta, layer, neuron).abs().max()) < 1e-13
        for alpha in (draw.uniform(-1, -0.1), draw.uniform(0.1, 0.9), draw.uniform(1.1, 2), 0.0, 1.0):
            try:
                old, added = inertia(place.hessian(theta)), inertia(alpha * (1 - alpha) * B)
                new = after(place, theta, layer, neuron, alpha)
            except NoClearGap:
                continue
            checked += 1
            if alpha in (0.0, 1.0):
                assert added.counts == (0, len(B), 0)
            more = (added.negative, added.zero + 1, added.positive)
            assert new.counts == tuple(o + m for o, m in zip(old.counts, more, strict=True))
    assert checked >= 5


# ---- corollary: minimum or saddle

def planted_theta(seed):
    factors = backend.uniform(4, low=0.7, high=1.3, seed=backend.generator(seed, "weights"))
    return factors * backend.tensor([1.0, 0.4, 1.0, 0.2], "theta")


def planted(sign, seed):
    """Data B+ or B-, around weights that are random."""
    theta = planted_theta(seed)
    made = data.definite(sign, theta=theta.tolist(), size=0.1)
    return Landscape(MLP([1, 1, 1]), made.x, made.y), made.theta


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sign", [1, -1])
def test_minimum_or_saddle_with_a_definite_inner_hessian(sign, seed):
    ground, theta = planted(sign, seed)
    assert certify.strict_minimum(ground, theta)
    line = split_directions(ground.network, theta, 1, 1, 2)
    for alpha in (-1.1, -0.2, 0.2, 0.5, 0.8, 1.2, 2.3):
        wide, point = widened(ground, theta, 1, 1, alpha)
        pull = split_basis(ground.network, 1, 1, alpha)[1][4 + seed % 2]
        kept = (0 < alpha < 1) == (sign > 0)
        assert inertia(wide.hessian(point)).counts == ((0, 1, 6) if kept else (2, 1, 4))
        assert bool(certify.degenerate_minimum(wide, point, line, points=20)) == kept
        assert bool(certify.strict_saddle(wide, point, pull)) == (not kept)
        moved = point + 1e-6 * pull
        assert not certify.strict_saddle(wide, moved, pull) and not certify.degenerate_minimum(wide, moved, line)
        around = point + 1e-3 * torch.nn.functional.normalize(backend.normal(500, 7, seed=seed), dim=1)
        if kept:
            assert float(wide.value(around).min()) >= float(wide.value(point)) - 1e-15
        else:
            sides = wide.value(torch.stack([point + 1e-3 * pull, point - 1e-3 * pull]))
            assert float(sides.min()) < float(wide.value(point)) - 1e-14
    for alpha in (0.0, 1.0):  # no negative eigenvalue, and a lower point within 0.1
        wide, point = widened(ground, theta, 1, 1, alpha)
        assert inertia(wide.hessian(point)).counts == (0, 3, 4)
        outwards = -1 if (alpha == 0) == (sign > 0) else 1
        wide, beside = widened(ground, theta, 1, 1, alpha + 0.02 * outwards)
        way = torch.linalg.eigh(wide.hessian(beside)).eigenvectors[:, 0]
        near = torch.stack([beside + t * way for t in (-0.02, -0.01, 0.01, 0.02)])
        assert float((near - point).norm(dim=1).max()) < 0.1
        assert float(wide.value(near).min()) < float(wide.value(point)) - 1e-13


@pytest.mark.parametrize("seed", SEEDS)
def test_minimum_or_saddle_with_an_indefinite_or_vanishing_one(seed):
    net, x = MLP([1, 1, 1]), backend.normal(20, 1, seed=seed, scale=1.5)
    theta = planted_theta(seed)
    seen = set()
    for draw in range(4):
        ground = manufacture(net, x, 0.05, 100 * seed + draw, theta).landscape
        assert certify.strict_minimum(ground, theta)
        indefinite = inertia(inner_hessian(ground, theta, 1, 1)).counts == (1, 0, 1)
        found = [after(ground, theta, 1, 1, alpha).index for alpha in (-0.7, 0.3, 0.5, 1.4)]
        assert (min(found) == 1) == indefinite and max(found) > 0
        seen.add(indefinite)
    assert True in seen
    flat = without_bend(net, x, theta, 0.05, seed)
    assert all(after(flat, theta, 1, 1, alpha).counts == (0, 3, 4) for alpha in (-0.7, 0.0, 0.3, 1.0, 1.4))


# ---- proposition: a coupled neuron

@pytest.mark.parametrize("seed", SEEDS)
def test_a_coupled_neuron_makes_a_strict_saddle(seed):
    """The formula for K over random B, C; and splits of minima in nets with several outputs or a wide next layer."""
    draw, source = random.Random(seed), backend.generator(seed)
    for _ in range(10):
        p, m = draw.randint(1, 5), draw.randint(1, 4)
        rank, alpha = draw.randint(0, min(p, m)), draw.choice([0.0, 0.4, 1.7])
        B = backend.normal(p, p, seed=source)
        B = B + B.T
        C = backend.normal(m, rank, seed=source) @ backend.normal(rank, p, seed=source)
        V = torch.linalg.svd(C)[2][rank:]
        added = inertia(alpha * (1 - alpha) * V @ B @ V.T).counts if len(V) else (0, 0, 0)
        assert inertia(K_of(B, C, alpha)).counts == (rank + added[0], m - rank + added[1], rank + added[2])
    for widths, layer in (([2, 3, 2], 1), ([2, 2, 3, 1], 1)):
        net = MLP(widths)
        x = backend.normal(4 * net.M, widths[0], seed=seed, scale=1.5)
        theta = conditioned(net, x, seed)
        place = manufacture(net, x, 0.1, seed, theta).landscape
        for neuron in range(1, widths[layer] + 1):
            C = inner_coupling(place, theta, layer, neuron)
            a = net.layers(theta)[layer][0][:, neuron - 1]
            assert float((a @ C).abs().max()) < 1e-13  # critical: so the rank is at most d_{l+1} - 1
            assert float(torch.linalg.svdvals(C)[0]) > 1e-6
            for alpha in (-0.5, 0.0, 0.5, 1.0):
                wide, point = widened(place, theta, layer, neuron, alpha)
                way = torch.linalg.eigh(wide.hessian(point)).eigenvectors[:, 0]
                assert certify.strict_saddle(wide, point, way)


# ---- proposition: truly bad, as far as splits go

def bends(net, theta, x):
    """The columns a_s tanh''(z_s) (x^2, x, 1) for one input: by automatic differentiation."""
    (W, b), (a, _) = net.layers(theta)
    z = (x * W.mT + b).requires_grad_()
    slope = torch.autograd.grad(torch.tanh(z).sum(), z, create_graph=True)[0]
    bend = torch.autograd.grad(slope.sum(), z)[0]
    return torch.cat([a * bend * x**k for k in (2, 1, 0)], 1)


def without_bend(net, x, theta, size, seed):
    plain = Landscape(net, x, torch.zeros(len(x), 1))
    Q = torch.linalg.qr(torch.cat([plain.jacobian(theta), bends(net, theta, x)], 1)).Q
    r = backend.normal(len(x), 1, seed=backend.generator(seed, "residual"))
    for _ in range(2):
        r = r - Q @ (Q.T @ r)
    return Landscape(net, x, plain.outputs(theta) - size * r / r.square().mean().sqrt())


@pytest.mark.parametrize("seed", SEEDS)
def test_what_splits_can_and_cannot_do(seed):
    """One hidden layer. B not 0: a strict saddle after one split. All B, C 0, positive loss or none: not in 3 splits.

    Several layers: here at zero loss only; with positive loss in the next test.
    """
    draw = random.Random(seed)
    for h in (1, 2):
        net, x = MLP([1, h, 1]), backend.normal(20 * h, 1, seed=seed, scale=2.0)
        theta = conditioned(net, x, seed, draws=200)
        usual = manufacture(net, x, 0.05, seed, theta).landscape
        found = [after(usual, theta, 1, s, alpha).index for s in range(1, h + 1) for alpha in (-0.5, 0.5)]
        assert max(found) > 0
        for size in (0.003, 0.0):
            made = without_bend(net, x, theta, size, seed)
            before = inertia(made.hessian(theta))
            assert before.index == 0 and certify.critical_point(made, theta)
            at, point = made, theta
            for _ in range(3):
                neuron, alpha = draw.randint(1, at.network.widths[1]), draw.choice([0.0, 0.4, -0.8, 1.6])
                at, point = widened(at, point, 1, neuron, alpha)
                assert inertia(at.hessian(point)).index == 0
                for s in range(1, at.network.widths[1] + 1):
                    for part in (inner_hessian, inner_coupling):
                        assert float(part(at, point, 1, s).abs().max()) < 1e-13
    deep = MLP([2, 3, 2, 2])  # zero loss, deep, two outputs: every B and C is 0 because e is
    x = backend.normal(80, 2, seed=seed)
    theta = conditioned(deep, x, seed)
    exact = Landscape(deep, x, deep(theta, x))
    for layer, neuron in ((1, 1), (2, 2)):
        assert after(exact, theta, layer, neuron, 1.5).counts[0] == 0
        assert not inner_coupling(exact, theta, layer, neuron).any()


def flat_in_both_layers(net, x, theta, size, seed):
    """Widths 1-h-h'-1: targets that make theta critical with all B_s = 0 and C_s = 0, with loss size^2."""
    (W1, b1), (W2, b2), (W3, _) = net.layers(theta)
    first = torch.tanh(x @ W1.T + b1)
    second = torch.tanh(first @ W2.T + b2)
    one, columns = torch.ones_like(x), []
    for seen, out, weights, e in ((x, first, W2, W3 * (1 - second**2)), (first, second, W3, one)):
        seen, slope = torch.cat([seen, one], 1), 1 - out**2
        bend = (e @ weights) * -2 * out * slope
        columns += [torch.einsum("ns,nj,nk->nsjk", bend, seen, seen), torch.einsum("nu,ns,nj->nusj", e, slope, seen)]
    plain = Landscape(net, x, torch.zeros(len(x), 1))
    V, S, _ = torch.linalg.svd(torch.cat([plain.jacobian(theta), *(c.flatten(1) for c in columns)], 1),
                               full_matrices=False)
    V = V[:, S > 1e-13 * S[0]]
    r = backend.normal(len(x), 1, seed=backend.generator(seed, "residual"))
    for _ in range(3):
        r = r - V @ (V.T @ r)
    return Landscape(net, x, plain.outputs(theta) - size * r / r.square().mean().sqrt())


@pytest.mark.parametrize("seed", SEEDS)
def test_what_splits_cannot_do_in_a_deep_network(seed):
    """Widths 1-2-2-1, positive loss, all B, C equal to 0: four splits in both layers, and no negative eigenvalue."""
    draw, net, size = random.Random(seed), MLP([1, 2, 2, 1]), 0.003
    x = backend.normal(90, 1, seed=seed, scale=2.0)
    theta = conditioned(net, x, seed, draws=200)
    at, point = flat_in_both_layers(net, x, theta, size, seed), theta
    assert certify.critical_point(at, point) and float(at.value(point)) == pytest.approx(size**2)
    assert inertia(at.hessian(point)).index == 0
    usual = manufacture(net, x, size, seed, theta).landscape  # the same theta and loss, and only critical
    assert max(float(inner_coupling(usual, theta, 1, s).abs().max()) for s in (1, 2)) > 1e-8
    lowest = []  # relative to the largest eigenvalue; no count, for some eigenvalues of K lie at its tolerance
    for layer in (1, 2):
        for alpha in (-0.5, 0.5):
            wide, there = widened(usual, theta, layer, 1, alpha)
            values = torch.linalg.eigvalsh(wide.hessian(there))
            lowest.append(float(values[0]) / max(1.0, float(values[-1])))
    assert min(lowest) < -1e-9  # rounding stays above -1e-14, see below
    for layer in (1, 2, 2, 1):
        neuron = draw.randint(1, at.network.widths[layer])
        at, point = widened(at, point, layer, neuron, draw.choice([0.0, 0.4, -0.8, 1.6]))
        H = at.hessian(point)
        assert float(torch.linalg.eigvalsh(H)[0]) > -1e-14 * float(H.abs().max().clamp_min(1))
        for on in (1, 2):
            for s in range(1, at.network.widths[on] + 1):
                for part in (inner_hessian, inner_coupling):
                    assert float(part(at, point, on, s).abs().max()) < 1e-14


# ---- proposition: generic targets

@pytest.mark.parametrize("seed", SEEDS)
def test_generic_targets(seed):
    """30 samples: rank [J S] > M at a random theta; noise on the targets of a point with B = 0 brings B back."""
    for h in (1, 2, 3):
        net, x = MLP([1, h, 1]), backend.normal(30, 1, seed=seed, scale=2.0)
        theta = backend.normal(net.M, seed=backend.generator(seed, "weights"))
        both = torch.cat([Landscape(net, x, torch.zeros(30, 1)).jacobian(theta), bends(net, theta, x)], 1)
        assert int(torch.linalg.matrix_rank(both)) > net.M
    net = MLP([1, 1, 1])
    theta = planted_theta(seed)
    made, noise = without_bend(net, x, theta, 0.05, seed), backend.normal(30, 1, seed=seed + 50)
    sizes = []
    for eta in (1e-3, 1e-4):
        near = Landscape(net, x, made.y + eta * noise)
        end = polish(near, theta, tol=1e-13)
        assert certify.strict_minimum(near, end.theta)
        sizes.append(float(inner_hessian(near, end.theta, 1, 1).abs().max()) / eta)
        assert max(after(near, end.theta, 1, 1, alpha).index for alpha in (-0.5, 0.5)) > 0
    assert min(sizes) > 1e-3 and max(sizes) < 1.5 * min(sizes)
