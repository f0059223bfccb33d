"""Lesson 3.5: merging ReLU neurons by direction, what it costs, and the experiment with digits that could refute it."""

import pytest
import torch

from losslab import MLP, Landscape, backend, certify, critical, data, descend, embedding

SEEDS = range(20)


def rescaled_split(net, theta, layer, seed):
    """Every neuron of a layer split into 2 or 3 copies with random shares, each rescaled by 0.2 to 5."""
    wider, wide = net, theta
    for neuron in range(1, net.widths[layer] + 1):
        shares = backend.normal(2 + (neuron + seed) % 2, seed=backend.generator(1000 * seed + neuron, "shares"))
        shares[0] += 1 - shares.sum()
        wider, wide = embedding.split(wider, wide, layer, neuron, shares)
    layers = wider.layers(wide)
    (W, b), (out, c) = layers[layer - 1 : layer + 1]
    rho = 10 ** backend.uniform(len(W), low=-0.7, high=0.7, seed=backend.generator(seed, "lengths"))
    layers[layer - 1 : layer + 1] = [(W * rho[:, None], b * rho), (out / rho, c)]
    return wider, wider.flatten(layers)


def rows_of(net, theta, layer):
    W, b = net.layers(theta)[layer - 1]
    return torch.cat([W, b[:, None]], 1)


def case(seed):
    """A random ReLU network with two or three hidden layers or one, and one of its hidden layers."""
    source = backend.generator(seed)
    depth = 2 + seed % 3
    widths = [int(w) for w in torch.randint(2, 5, (depth + 1,), generator=source)]
    return MLP(widths, "relu"), 1 + int(torch.randint(0, depth - 1, (), generator=source))


@pytest.mark.parametrize("seed", SEEDS)
def test_merging_by_direction(seed):
    """Same output, critical points to critical points, and the way back from a rescaled split."""
    net, layer = case(seed)
    x = backend.normal(60, net.widths[0], seed=seed)
    planted = critical.manufacture(net, x, size=0.3, seed=seed, spread=0.8)
    wider, wide = rescaled_split(net, planted.theta, layer, seed)
    assert certify.critical_point(Landscape(wider, x, planted.landscape.y), wide, tol=1e-11)  # weights up to 50
    merged = embedding.merge_directions(wider, wide, layer, 1 - 1e-9, floor=0.0)
    assert merged.network.widths == net.widths
    size = max(1.0, float(net(planted.theta, 3 * x).abs().max()))
    assert certify.same_output(wider, wide, merged.network, merged.theta, x, tol=1e-12 * size)
    assert certify.critical_point(Landscape(merged.network, x, planted.landscape.y), merged.theta, tol=1e-11)
    before, after = rows_of(net, planted.theta, layer), rows_of(merged.network, merged.theta, layer)
    rho = before.norm(dim=1)
    cosines = (before / rho[:, None]) @ after.T
    order = cosines.argmax(1)  # the narrow network's neurons, up to their order and length
    assert sorted(order.tolist()) == list(range(len(before))) and float(cosines.amax(1).min()) > 1 - 1e-12
    out, new = net.layers(planted.theta)[layer][0], merged.network.layers(merged.theta)[layer][0]
    assert torch.allclose(out * rho, new[:, order], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy", "logistic"])
@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_of_a_group_become_the_gradient_of_its_neuron(seed, loss):
    """At any point, for any loss: rows by sum of rho_k g_k, output weights by g_k / rho_k. So 0 goes to 0."""
    net, layer = case(seed)
    x = backend.normal(30, net.widths[0], seed=seed)
    k = net.widths[-1]
    y = torch.arange(30) % k if loss == "cross_entropy" else backend.uniform(30, k, seed=seed + 1)
    wider, wide = rescaled_split(net, backend.normal(net.M, seed=1000 + seed), layer, seed)
    merged = embedding.merge_directions(wider, wide, layer, 1 - 1e-9, floor=0.0)
    far, near = (n.layers(Landscape(n, x, y, loss).gradient(t))
                 for n, t in ((wider, wide), (merged.network, merged.theta)))
    rho = rows_of(wider, wide, layer).norm(dim=1)
    member = (merged.groups == torch.arange(len(merged.sizes)).to(merged.groups)[:, None]).to(rho)
    (W, b), (out, c) = far[layer - 1 : layer + 1]
    (V, d), (new, e) = near[layer - 1 : layer + 1]
    close = {"rtol": 1e-8, "atol": 1e-10 * (1 + float(V.abs().max()))}
    assert torch.allclose((member * rho) @ torch.cat([W, b[:, None]], 1), torch.cat([V, d[:, None]], 1), **close)
    close["atol"] = 1e-10 * (1 + float(new.abs().max()))
    assert torch.allclose(out / rho, new[:, merged.groups], **close) and torch.allclose(c, e, **close)
    for l in set(range(net.depth)) - {layer - 1, layer}:
        assert torch.allclose(far[l][0], near[l][0], rtol=1e-8, atol=1e-9 * (1 + float(far[l][0].abs().max())))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_merged_landscape_is_a_piece_of_the_wide_one(seed):
    """The proof's map T: affine, to the wide network's point, with L = L' o T, also far away and on kinks."""
    net, layer = case(seed)
    x = backend.normal(30, net.widths[0], seed=seed)
    x[:10] = 0  # with all biases 0 these samples lie on the kinks of the first layer
    y = backend.normal(30, net.widths[-1], seed=seed + 1)
    theta = net.flatten([(W, 0 * b) for W, b in net.layers(backend.normal(net.M, seed=1000 + seed))])
    wider, wide = rescaled_split(net, theta, layer, seed)
    pairs = wider.layers(wide)
    pairs[layer - 1][0][0], pairs[layer - 1][1][0], pairs[layer][0][:, 1] = 0, 0, 0  # two to be dropped
    wide = wider.flatten(pairs)
    merged = embedding.merge_directions(wider, wide, layer, 1 - 1e-9, floor=0.0)
    assert (merged.groups < 0).sum() == 2
    rho, out = rows_of(wider, wide, layer).norm(dim=1), pairs[layer][0]
    kept = merged.groups >= 0
    groups, rho, sums = merged.groups[kept], rho[kept], merged.network.layers(merged.theta)[layer][0]
    total = torch.zeros(len(merged.sizes)).to(rho).index_add(0, groups, rho)

    def embed(narrow):
        small = merged.network.layers(narrow)
        large = list(small)
        W, b, A = (old.clone() for old in (*pairs[layer - 1], out))
        W[kept], b[kept] = rho[:, None] * small[layer - 1][0][groups], rho * small[layer - 1][1][groups]
        A[:, kept] = out[:, kept] + ((small[layer][0] - sums) / total)[:, groups]
        large[layer - 1 : layer + 1] = [(W, b), (A, small[layer][1])]
        return wider.flatten(large)

    assert torch.allclose(embed(merged.theta), wide, rtol=1e-12, atol=1e-12)
    big, little = Landscape(wider, x, y), Landscape(merged.network, x, y)
    for size in (1e-3, 0.1, 3.0):
        moved = merged.theta + backend.normal(len(merged.theta), seed=2000 + seed, scale=size)
        assert float(big.value(embed(moved))) == pytest.approx(float(little.value(moved)), rel=1e-9)
        middle = embed((moved + merged.theta) / 2) - (embed(moved) + wide) / 2
        assert float(middle.abs().max()) < 1e-10 * (1 + float(embed(moved).abs().max()))


@pytest.mark.parametrize("seed", SEEDS)
def test_both_certificates_refuse_a_wrong_grouping(seed):
    net = MLP([3 + seed % 2, 3, 2], "relu")
    x = backend.normal(40, net.widths[0], seed=seed)
    for attempt in range(seed, seed + 200, 20):  # the first network that has two directions to confuse
        planted = critical.manufacture(net, x, size=0.3, seed=attempt)
        u = rows_of(net, planted.theta, 1)
        u = u / u.norm(dim=1, keepdim=True)
        closest = float((u @ u.T - 2 * torch.eye(3).to(u)).max())
        if closest > 0.02:
            break
    assert closest > 0.02
    wider, wide = rescaled_split(net, planted.theta, 1, seed)
    wrong = embedding.merge_directions(wider, wide, 1, closest - 0.01, floor=0.0)
    assert len(wrong.sizes) == 2
    assert not certify.same_output(wider, wide, wrong.network, wrong.theta, x)
    assert not certify.critical_point(Landscape(wrong.network, x, planted.landscape.y), wrong.theta)


def changes(net, theta, layer, cosine, floor, x):
    """Of what layer + 1 receives: its change (n,), what every neuron adds to the bound, |(a, 1)| (n,), |u_k - u|."""
    merged = embedding.merge_directions(net, theta, layer, cosine, floor)
    pairs = net.layers(theta), merged.network.layers(merged.theta)
    short, less = (MLP(n.widths[: layer + 2], "relu") for n in (net, merged.network))
    change = (short(short.flatten(pairs[0][: layer + 1]), x) - less(less.flatten(pairs[1][: layer + 1]), x)).norm(dim=1)
    below = MLP(net.widths[:layer], "relu", output_activation="relu") if layer > 1 else None
    a = below(below.flatten(pairs[0][: layer - 1]), x) if below else x
    rows, u = rows_of(net, theta, layer), rows_of(merged.network, merged.theta, layer)
    u = torch.cat([u, torch.zeros_like(u[:1])])[merged.groups]
    rho = rows.norm(dim=1)[:, None]
    parts = pairs[0][layer][0].norm(dim=0) * (rows - rho * u).norm(dim=1)
    return change, parts, (a.square().sum(1) + 1).sqrt(), (rows / rho - u).norm(dim=1), merged.groups >= 0


@pytest.mark.parametrize("seed", SEEDS)
def test_cost_of_merging(seed):
    """What the next layer receives changes within the bound, in every layer, at every input; the dropped ones count."""
    source, ratios = backend.generator(seed), []
    for _ in range(10):
        depth = int(torch.randint(2, 4, (), generator=source))
        layer = int(torch.randint(1, depth, (), generator=source))
        widths = [2, *[4] * (depth - 1), 3]
        widths[layer] = 30
        net = MLP(widths, "relu")
        theta, x = backend.normal(net.M, seed=source), backend.normal(200, 2, seed=source, scale=3.0)
        cosine, floor = (float(v) for v in backend.uniform(2, low=0.05, high=0.95, seed=source))
        change, parts, length, apart, kept = changes(net, theta, layer, cosine, floor / 2, x)
        assert bool((change <= parts.sum() * length * (1 + 1e-12)).all())
        assert float(apart[kept].max()) <= (2 * (1 - cosine)) ** 0.5 + 1e-12
        ratios.append(float((change / (parts.sum() * length)).max()))
        # Nothing merged, some dropped: without the dropped neurons the bound would be wrong.
        change, parts, length, _, kept = changes(net, theta, layer, 1 - 1e-9, 0.3, x)
        assert not bool(kept.all()) and bool((change <= parts.sum() * length * (1 + 1e-12)).all())
        assert bool((change > 10 * parts[kept].sum() * length).any())
    assert max(ratios) > 0.05  # a bound, but not one that nothing could come near


def test_the_bound_is_reached():
    """A dropped neuron that is fully active changes the output by its amplitude times |x|: no constant is to spare."""
    net = MLP([2, 2, 1], "relu", bias=False)
    u = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    theta = net.flatten([(u, None), (torch.tensor([[1.0, 1e-9]], dtype=torch.float64), None)])
    merged = embedding.merge_directions(net, theta, 1, 0.5)
    assert merged.groups.tolist() == [0, -1]
    change = (net(theta, u[1:]) - merged.network(merged.theta, u[1:])).abs()
    assert float(change) == pytest.approx(1e-9, rel=1e-6)


def test_digits_pruned_by_merging():
    """Lesson 3.5's experiment: 5 seeds, 400 neurons, all five keep accuracy within 1.5 points at fewer than 70."""
    net, good, gathered = MLP([64, 400, 10], "relu"), 0, 0
    for seed in range(5):
        digits = data.digits(pixels="unit", one_hot=True, seed=seed)
        ground = Landscape(net, digits.x[:1400], digits.y[:1400])
        x, labels = digits.x[1400:], digits.y[1400:].argmax(1)

        def accuracy(network, theta, x=x, labels=labels):
            return float((network(theta, x).argmax(1) == labels).double().mean())

        start = backend.normal(net.M, seed=backend.generator(seed, "weights"), scale=1e-8)
        run = descend.sgd(ground, start, 1000, 0.01, 200, seed, every=50)
        merged = embedding.merge_directions(net, run.theta, 1, 0.7)
        full, k = accuracy(net, run.theta), len(merged.sizes)
        assert full > 0.92  # there is something to lose
        good += k < 70 and accuracy(merged.network, merged.theta) >= full - 0.015
        (W, b), (out, c) = net.layers(run.theta)
        largest = (rows_of(net, run.theta, 1).norm(dim=1) * out.norm(dim=0)).argsort(descending=True)[:k]
        small = MLP([64, k, 10], "relu")
        top = accuracy(small, small.flatten([(W[largest], b[largest]), (out[:, largest], c)]))
        assert top < accuracy(merged.network, merged.theta) - 0.05
        mean, early = ground.y.mean(0), run.trajectory[4]  # step 200: the neurons do nothing yet, and have gathered
        c = net.layers(early)[1][1]
        assert float((net(early, ground.x) - c).abs().max()) < 1e-6 and float((c - mean).norm()) < 0.05
        assert len(embedding.merge_directions(net, early, 1, 0.7).sizes) <= 50
        on_plateau = run.trajectory[8]  # step 400: the loss is that of the best constant, up to 2 %
        assert float(ground.value(on_plateau)) > 0.98 * float((ground.y - mean).square().sum(1).mean())
        there = embedding.merge_directions(net, on_plateau, 1, 0.7)
        both = (there.groups >= 0) & (merged.groups >= 0)  # not because neurons fall silent: 250 and more are heard
        assert int(both.sum()) >= 250
        gathered += len(there.sizes) <= 20
        part = MLP([64, int(both.sum()), 10], "relu")
        then, late = (embedding.merge_directions(part, part.flatten([(V[both], e[both]), (out[:, both], c)]), 1, 0.7,
                                                 floor=0.0) for V, e in (net.layers(on_plateau)[0], (W, b)))
        assert len(late.sizes) >= 2 * len(then.sizes)  # the same neurons part again
    assert (good, gathered) == (5, 5)
    control = descend.sgd(ground, net.init(seed=4), 400, 0.01, 200, seed)
    assert accuracy(net, control.theta) > 0.92
    assert len(embedding.merge_directions(net, control.theta, 1, 0.7).sizes) == 400
