"""Lesson 3.1 on random networks: its lemma, theorem, corollary and propositions, and what the lesson itself prints."""

import contextlib
import io
import random

import pytest
import torch
from torch.func import hessian

from losslab import MLP, Landscape, backend, certify, descend
from losslab.critical import inertia, manufacture
from losslab.embedding import inner_hessian, null, split
from tools import notebooks

LESSON = notebooks.ROOT / "lessons" / "3_embedding" / "3_1_one_neuron_more.ipynb"
SEEDS = range(20)
SIGMA = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": torch.nn.functional.softplus, "sin": torch.sin,
         "relu": torch.relu}


# ---- the lesson's own cells, with another seed

COMPARED = ["doubled", "every-loss", "signals", "measure", "counts", "sixty", "certify-critical", "null-cases",
            "solution-twice", "solution-bias", "solution-relu", "solution-cross"]
FIXED = ["slider-frames", "split-code", "certify-output", "moved", "inertias", "null-inertias", "pull",
         "sample-dependent"]


def run(seed, names, cases=0):
    """{cell: what it prints and which certificates it displays}, and the variables, with SEED replaced."""
    cells = {cell.id: cell.source for cell in notebooks.read(LESSON).cells if cell.cell_type == "code"}
    assert cells["setup"].count("SEED = 3\n") == 1 and cells["random-case"].count("range(250)") == 1
    space, said = {}, {}
    exec(cells["setup"].replace("SEED = 3\n", f"SEED = {seed}\n"), space)
    space["display"] = lambda *shown: print(*shown, sep="\n")
    for name in names:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(cells[name].replace("range(250)", f"range({cases})"), space)
        said[name] = printed.getvalue()
    return said, space


@pytest.fixture(scope="module")
def as_printed():
    return run(3, [*FIXED[:4], *COMPARED, *FIXED[4:], "random-case"], cases=250)


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_the_lesson_prints_holds_for_twenty_seeds(seed, as_printed):
    said, _ = run(seed, COMPARED)
    assert said == {name: as_printed[0][name] for name in COMPARED}


def test_certificates_of_the_lesson_hold_where_they_should(as_printed):
    said = as_printed[0]
    fails = {name: text.count("FAILS:") for name, text in said.items() if "FAILS" in text}
    assert fails == {"moved": 2, "certify-critical": 2, "null-cases": 1, "sample-dependent": 1}
    assert sum(text.count("holds:") for text in said.values()) == 1 + 2 + 5 + 3 + 1
    assert "refused: alphas sum to 1.1" in said["moved"] and not any("False" in text for text in said.values())


def check(cases, least):
    for case in cases:
        assert max(case["output"], case["representation"]) <= 1e-13
        assert max(case["gradient"], case["Hessian"]) <= 1e-12 and case["error vectors"] <= 1e-11
    clear = [case for case in cases if case["narrow"] and case["wide"]]
    assert len(clear) >= least
    for case in clear:
        assert all(w >= n for n, w in zip(case["narrow"], case["wide"], strict=True))
        assert case["wide"][1] >= 1  # the line of alpha


def test_two_hundred_and_fifty_random_networks(as_printed):
    check(as_printed[1]["cases"], least=200)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_networks_of_twenty_seeds(seed):
    _, space = run(seed, ["signals", "measure", "counts", "random-case"], cases=20)
    check(space["cases"], least=14)


def test_how_many_negative_eigenvalues_a_split_of_the_minimum_brings():
    """One, two or three, by neuron and by "alpha between 0 and 1 or not"; for some seeds two for every neuron."""
    seen, alike = set(), 0
    for seed in range(6):
        x, net = backend.normal(40, 2, seed=seed, scale=1.5), MLP([2, 3, 2, 1])
        thetas = backend.normal(200, net.M, seed=backend.generator(seed, "weights"), scale=1.2)
        s = torch.linalg.svdvals(Landscape(net, x, torch.zeros(40, 1)).jacobian(thetas))
        theta = thetas[int((s[:, -1] / s[:, 0]).argmax())]
        point, here = manufacture(net, x, 0.02, seed, theta), set()
        if inertia(point.landscape.hessian(theta)).counts == (0, 0, 20):
            for layer, neuron in ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2)):
                found = []
                for alpha in (0.3, 0.5, -0.7, 1.6):
                    wider, wide = split(net, theta, layer, neuron, [1 - alpha, alpha])
                    found.append(inertia(Landscape(wider, x, point.landscape.y).hessian(wide)).counts)
                assert found[0] == found[1] and found[2] == found[3]
                here |= set(found)
        seen, alike = seen | here, alike + (here == {(2, 1, 22)})
    assert seen == {(2, 1, 22), (1, 1, 23), (3, 1, 21)} and alike >= 1


# ---- the statements, by code that shares nothing with the library's split and derivatives

def drawn(seed, smooth=False):
    """A random network as its widths and [(W, b)], a place to split, and alpha; depth 2 to 4, widths 1 to 6."""
    pick = random.Random(seed)
    widths = [pick.randint(1, 6) for _ in range(pick.randint(3, 5))]
    name = pick.choice([n for n in SIGMA if not (smooth and n == "relu")])
    layer = pick.randint(1, len(widths) - 2)
    neuron = pick.randint(1, widths[layer])
    alpha = pick.choice([0.0, 0.5, 1.0, pick.uniform(-1, 2), pick.uniform(-1, 2), pick.uniform(-1, 2)])
    source = backend.generator(seed)
    layers = [(backend.normal(d, c, seed=source).cpu(), backend.normal(d, seed=source).cpu())
              for c, d in zip(widths[:-1], widths[1:], strict=True)]
    return widths, name, layers, layer, neuron, alpha


def by_hand(layers, layer, neuron, alpha):
    """The definition, entry by entry."""
    layers = [(W.tolist(), b.tolist()) for W, b in layers]
    (W, b), (V, _) = layers[layer - 1], layers[layer]
    W.append(list(W[neuron - 1]))
    b.append(b[neuron - 1])
    for row in V:
        row.append(alpha * row[neuron - 1])
        row[neuron - 1] *= 1 - alpha
    return [(torch.tensor(W, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)) for W, b in layers]


def flat(layers):
    return torch.cat([part.flatten() for pair in layers for part in pair])


def unflat(theta, widths):
    layers, start = [], 0
    for c, d in zip(widths[:-1], widths[1:], strict=True):
        layers.append((theta[start : start + c * d].view(d, c), theta[start + c * d : start + c * d + d]))
        start += c * d + d
    return layers


def features(layers, name, x):
    """[f0, ..., fK], samples as rows; the last layer has no activation."""
    f = [x]
    for number, (W, b) in enumerate(layers, start=1):
        u = f[-1] @ W.T + b
        f.append(u if number == len(layers) else SIGMA[name](u))
    return f


LOSSES = {
    "mse": lambda f, y: (f - y).square().sum(1),
    "logistic": lambda f, y: (torch.nn.functional.softplus(f) - torch.sigmoid(y) * f).sum(1),
    "cross_entropy": lambda f, y: torch.logsumexp(f, 1) - f.gather(1, y.argmax(1, keepdim=True))[:, 0],
}


def twice(rows, s, first, second):
    """Row s times `first`, and times `second` at the end."""
    rows = torch.cat([rows, second * rows[s - 1 : s]])
    return torch.cat([rows[: s - 1], first * rows[s - 1 : s], rows[s:]])


def close(a, b):
    assert a.shape == b.shape
    return bool((a - b).abs().max() <= 1e-12 * max(1.0, float(b.abs().max())))


@pytest.mark.parametrize("seed", range(60))
def test_the_lemma(seed):
    """Features, error vectors (by automatic differentiation, as derivatives by the features) and all gradients."""
    widths, name, layers, l, s, alpha = drawn(seed)
    x = backend.normal(30, widths[0], seed=seed).cpu()
    y = backend.normal(30, widths[-1], seed=seed + 1).cpu()
    wide = by_hand(layers, l, s, alpha)
    library = split(MLP(widths, SIGMA[name]), flat(layers), l, s, [1 - alpha, alpha])[1]
    assert torch.equal(library.cpu(), flat(wide))
    for loss in LOSSES.values():
        found = []
        for network in (layers, wide):
            parts = [part.clone().requires_grad_() for pair in network for part in pair]
            f = features(list(zip(parts[::2], parts[1::2], strict=True)), name, x)
            total = loss(f[-1], y).sum()
            z = torch.autograd.grad(total, f[1:], retain_graph=True)
            g = [part / len(x) for part in torch.autograd.grad(total, parts)]
            found.append(([a.detach() for a in f[1:]], z, g))
        (f, z, g), (f_wide, z_wide, g_wide) = found
        for m in range(1, len(widths)):
            here = m == l
            assert close(f_wide[m - 1].T, twice(f[m - 1].T, s, 1, 1) if here else f[m - 1].T)
            assert close(z_wide[m - 1].T, twice(z[m - 1].T, s, 1 - alpha, alpha) if here else z[m - 1].T)
            W, b = g[2 * m - 2 : 2 * m]
            if here:
                W, b = twice(W, s, 1 - alpha, alpha), twice(b, s, 1 - alpha, alpha)
            if m == l + 1:
                W = twice(W.T, s, 1, 1).T
            assert close(g_wide[2 * m - 2], W) and close(g_wide[2 * m - 1], b)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_zero_output_column_gives_no_line(seed):
    """Why "if the output column is not zero": without it the image of all alpha is one point, and has no zero."""
    net, x = MLP([1, 1, 2]), backend.normal(30, 1, seed=seed, scale=1.5)
    for column, expected in (((0.0, 0.0), (4, 0, 6)), ((0.6, -0.4), None)):
        theta = backend.tensor([1.3, 0.4, *column, 0.2, -0.1], "theta")
        point = manufacture(net, x, 0.5, seed, theta)
        wider, wide = split(net, theta, 1, 1, [0.7, 0.3])
        other = split(net, theta, 1, 1, [-0.2, 1.2])[1]
        landscape = Landscape(wider, x, point.landscape.y)
        assert certify.critical_point(landscape, wide) and torch.equal(wide, other) == (not any(column))
        H = landscape.hessian(wide)
        if expected:
            assert inertia(point.landscape.hessian(theta)).counts == (2, 0, 4) and inertia(H).counts == expected
        else:
            along = other - wide
            assert (H @ along).norm() < 1e-12 * along.norm()  # the control: here the line is there, and is a zero


def critical_points(seed):
    """Critical points of three losses: (network, x, y, loss, theta)."""
    widths, name, _, l, s, alpha = drawn(seed)
    net = MLP(widths, SIGMA[name])
    x = backend.normal(2 * net.M + 10, widths[0], seed=seed, scale=1.5)
    point = manufacture(net, x, 0.3, seed)
    yield net, x, point.landscape.y, "mse", point.theta, l, s, alpha
    # The gradient of the logistic loss in f is sigmoid(f) - y: take r from above, small enough that 0 <= y <= 1.
    chance = torch.sigmoid(net(point.theta, x))
    room = torch.where(point.r > 0, chance, 1 - chance) / point.r.abs()
    yield net, x, (chance - 0.9 * room.min() * point.r).clamp(0, 1), "logistic", point.theta, l, s, alpha
    # Labels drawn from a network's own softmax: the minimum of the cross-entropy is near its weights.
    net = MLP([2, 2, 3])
    theta = backend.tensor([1.5, 0.5, -0.5, 1.5, 0.5, -0.5, 2.0, 0.0, -1.0, 1.5, -1.0, -1.5, 0.0, 0.0, 0.0], "theta")
    x = backend.normal(500, 2, seed=seed, scale=1.5)
    chances = net(theta, x).softmax(1).cumsum(1)
    y = (backend.uniform(500, 1, seed=backend.generator(seed, "labels")) > chances[:, :2]).sum(1)
    bottom = descend.polish(Landscape(net, x, y, "cross_entropy"), theta, tol=1e-13)
    assert bool(bottom.converged)
    yield net, x, y, "cross_entropy", bottom.theta, 1, 1 + seed % 2, alpha


def same_representation(net, theta, wider, wide, x):
    """Every feature of one network is a feature of the other in the same layer, on all samples, to 1e-12."""
    found = [features([(W.cpu(), b.cpu()) for W, b in n.layers(t)], n.activation.name, x.cpu())
             for n, t in ((net, theta), (wider, wide))]
    for a, b in zip(*found, strict=True):
        apart = (a.T[:, None] - b.T[None]).abs().amax(2)  # (narrow features, wide features)
        if max(apart.amin(0).max(), apart.amin(1).max()) > 1e-12 * max(1.0, float(a.abs().max())):
            return False
    return True


@pytest.mark.parametrize("seed", SEEDS)
def test_one_neuron_more(seed):
    """Output, representation, loss, criticality for three losses; they fail for moved weights and wrong shares."""
    for net, x, y, loss, theta, l, s, alpha in critical_points(seed):
        narrow = Landscape(net, x, y, loss)
        wider, wide = split(net, theta, l, s, [1 - alpha, alpha])
        landscape = Landscape(wider, x, y, loss)
        assert certify.critical_point(narrow, theta, tol=1e-12 * (1 + float(theta.norm())))
        assert certify.same_output(net, theta, wider, wide, x, tol=1e-13)
        assert same_representation(net, theta, wider, wide, x)
        assert certify.critical_point(landscape, wide, tol=1e-12 * (1 + float(wide.norm())))
        assert float(landscape.value(wide)) == pytest.approx(float(narrow.value(theta)), rel=1e-13)
        moved = wide + 1e-5 * backend.normal(wider.M, seed=backend.generator(seed, "nudge"))
        assert not certify.same_output(net, theta, wider, moved, x)
        assert not same_representation(net, theta, wider, moved, x)
        assert not certify.critical_point(landscape, moved, tol=1e-12 * (1 + float(moved.norm())))
        with pytest.raises(ValueError, match="alphas sum to"):
            split(net, theta, l, s, [1 - alpha, alpha + 1e-3])


@pytest.mark.parametrize("seed", SEEDS)
def test_every_wider_network_of_the_same_depth(seed):
    pick = random.Random(seed)
    net, x, y, loss, theta, *_ = next(critical_points(seed))
    target = [w + pick.randint(0, 4) * (0 < i < net.depth) for i, w in enumerate(net.widths)]
    target[1] += 1
    wider, wide = net, theta
    for layer in range(1, net.depth):
        while wider.widths[layer] < target[layer]:
            alpha = pick.uniform(-0.5, 1.5)
            wider, wide = split(wider, wide, layer, pick.randint(1, wider.widths[layer]), [1 - alpha, alpha])
    assert list(wider.widths) == target and wider.depth == net.depth
    landscape = Landscape(wider, x, y, loss)
    assert certify.same_output(net, theta, wider, wide, x)
    assert certify.critical_point(landscape, wide, tol=1e-12 * (1 + float(wide.norm())))
    assert not certify.critical_point(landscape, 1.001 * wide)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_small_hessian_inside_the_large_one(seed):
    """H' A = C H, A^T C = I, A^T H' A = H at any theta, by automatic differentiation; then the eigenvalues."""
    widths, name, layers, l, s, alpha = drawn(seed, smooth=True)
    widths = [min(w, 4) for w in widths]
    layers = [(W[:d, :c], b[:d]) for (W, b), c, d in zip(layers, widths[:-1], widths[1:], strict=True)]
    s = min(s, widths[l])
    wider = [w + (i == l) for i, w in enumerate(widths)]
    x = backend.normal(20, widths[0], seed=seed).cpu()
    y = backend.normal(20, widths[-1], seed=seed + 1).cpu()

    def loss(shape):
        return lambda theta: LOSSES["mse"](features(unflat(theta, shape), name, x)[-1], y).mean()

    theta = flat(layers)
    eye = torch.eye(len(theta), dtype=torch.float64)
    A = torch.stack([flat(by_hand(unflat(e, widths), l, s, alpha)) for e in eye], 1)
    # C as the lemma has it: the shares on the rows of layer l, copies in the columns of layer l + 1.
    rows = []
    for e in eye:
        (W, b), (V, c) = unflat(e, widths)[l - 1 : l + 1]
        new = unflat(e, widths)
        new[l - 1] = twice(W, s, 1 - alpha, alpha), twice(b, s, 1 - alpha, alpha)
        new[l] = twice(V.T, s, 1, 1).T, c
        rows.append(flat(new))
    C = torch.stack(rows, 1)
    H, H_wide = hessian(loss(widths))(theta), hessian(loss(wider))(A @ theta)
    scale = max(1.0, float(H_wide.abs().max()))
    assert (A.T @ C - eye).abs().max() < 1e-15
    assert (H_wide @ A - C @ H).abs().max() < 1e-12 * scale and (A.T @ H_wide @ A - H).abs().max() < 1e-12 * scale
    # On an orthonormal basis Q of the image of A the large Hessian is Q^T H' Q, with the inertia of H: interlacing.
    Q, R = torch.linalg.qr(A)
    inside = torch.linalg.solve_triangular(R.T, H, upper=False)
    inside = torch.linalg.eigvalsh(torch.linalg.solve_triangular(R.T, inside.T, upper=False))
    large, p = torch.linalg.eigvalsh(H_wide), len(theta)
    assert (large[:p] <= inside + 1e-12 * scale).all() and (large[-p:] >= inside - 1e-12 * scale).all()
    tau = 1e-8 * scale  # eigenvalues that are clear of zero: their signs can be counted
    stretch = float(torch.linalg.matrix_norm(A, 2)) ** 2
    small = torch.linalg.eigvalsh(H)
    assert (large < -tau / stretch / 2).sum() >= (small < -tau).sum()
    assert (large > tau / stretch / 2).sum() >= (small > tau).sum()


def test_two_curves_cross_at_the_three_neurons(as_printed):
    """In the lesson's plane: value and first derivatives of the pull are 0, its second derivatives have both signs."""
    net, point, x = (as_printed[1][name] for name in ("curve_net", "curve", "curve_x"))
    x, y = x.cpu()[:, 0], point.landscape.y.cpu()[:, 0]
    (W, b), _ = net.layers(point.theta.cpu())
    residual = net(point.theta, point.landscape.x)[:, 0].cpu() - y

    def pull(at):
        return (2 * residual * torch.tanh(at[0] * x + at[1])).mean()

    for row in torch.stack([W[:, 0], b], 1):
        assert max(pull(row).abs(), torch.func.grad(pull)(row).abs().max()) < 1e-14
        low, high = torch.linalg.eigvalsh(hessian(pull)(row))
        assert low < -1e-3 and high > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_when_a_silent_neuron_is_critical(seed):
    """The largest average of error times feature over the next layer's neurons is the gradient, and decides."""
    net, x, y, _, theta, l, s, _ = next(critical_points(seed))
    layers = [(W.cpu(), b.cpu()) for W, b in net.layers(theta)]
    name = drawn(seed)[1]
    source = backend.generator(seed)
    d = net.widths[l - 1]
    W, b = layers[l - 1]
    chosen = {"null": (torch.zeros(d).double(), 1.3), "copy": (W[s - 1], float(b[s - 1])),
              "random": (2 * backend.normal(d, seed=source).cpu(), 0.4)}
    f = features([(W.clone().requires_grad_(), b) for W, b in layers], name, x.cpu())
    above = f[l] @ layers[l][0].T + layers[l][1]  # what layer l + 1 receives; its derivative is z times g
    rest = above if l + 1 == net.depth else SIGMA[name](above)
    for number, (V, c) in enumerate(layers[l + 1 :], start=l + 2):
        u = rest @ V.T + c
        rest = u if number == net.depth else SIGMA[name](u)
    (pushed,) = torch.autograd.grad(LOSSES["mse"](rest, y.cpu()).sum(), above)
    for kind, (w, beta) in chosen.items():
        wider, wide = null(net, theta, l, beta) if kind == "null" else null(net, theta, l, beta, w)
        landscape = Landscape(wider, x, y)
        feature = SIGMA[name](f[l - 1].detach() @ w + beta)
        averages = pushed.T @ feature / len(x)
        assert float(landscape.gradient(wide).norm()) == pytest.approx(float(averages.norm()), rel=1e-9, abs=1e-12)
        assert certify.same_output(net, theta, wider, wide)
        critical = bool(certify.critical_point(landscape, wide, tol=1e-11))
        assert critical == (float(averages.norm()) <= 1e-11)
        assert critical or kind == "random"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_silent_neuron_that_listens_at_random_is_not_critical(seed):
    for widths in ([2, 3, 2, 1], [3, 4, 2], [2, 3, 3, 2]):
        net = MLP(widths, ("tanh", "softplus", torch.sin)[seed % 3])
        x = backend.normal(60, widths[0], seed=seed, scale=1.5)
        point = manufacture(net, x, 0.3, seed)
        for layer in range(1, net.depth):
            wider, wide = null(net, point.theta, layer, 0.4, backend.normal(widths[layer - 1], seed=1000 + seed))
            assert certify.same_output(net, point.theta, wider, wide)
            assert not certify.critical_point(Landscape(wider, x, point.landscape.y), wide, tol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_biases_a_null_neuron_needs_an_activation_that_is_zero_at_zero(seed):
    x = backend.normal(40, 2, seed=seed, scale=1.5)
    for name, safe in (("tanh", True), ("relu", True), (torch.sin, True), ("sigmoid", False), ("softplus", False)):
        net = MLP([2, 3, 2, 1], name, bias=False)
        point = manufacture(net, x, 0.3, seed)
        for layer in (1, 2):
            wider, wide = null(net, point.theta, layer)
            assert bool(certify.critical_point(Landscape(wider, x, point.landscape.y), wide)) == safe


@pytest.mark.parametrize("seed", SEEDS)
def test_a_silent_neuron_that_is_critical_by_accident(seed):
    """One output, one hidden layer: on a line of input weights the condition changes sign, and a bisection finds it."""
    net = MLP([2, 3, 1])
    x = backend.normal(40, 2, seed=seed, scale=1.5)
    point = manufacture(net, x, 0.5, seed)
    y = point.landscape.y
    t = torch.linspace(-20, 20, 2001).to(x)
    for w, tilt, bias in backend.normal(5, 3, 2, seed=seed + 50):  # five lines: not every one need meet a zero

        def pull(t, w=w, tilt=tilt, bias=bias):
            wider, wide = null(net, point.theta, 1, bias[0], torch.outer(t, w) + tilt)
            return Landscape(wider, x, y).gradient(wide)[:, wider.slots[1][0] + 3]

        change = (pull(t)[1:].sign() != pull(t)[:-1].sign()).nonzero().flatten()
        if len(change) > 0:
            break
    assert len(change) > 0
    low, high = t[change[:1]], t[change[:1] + 1]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if pull(middle).sign() == pull(low).sign() else (low, middle)
    wider, lucky = null(net, point.theta, 1, bias[0], middle * w + tilt)
    assert certify.critical_point(Landscape(wider, x, y), lucky)
    other = manufacture(net, x, 0.5, seed + 1, point.theta).landscape
    assert certify.critical_point(other, point.theta)
    assert not certify.critical_point(Landscape(wider, x, other.y), lucky)


def test_two_curves_cross_at_every_neuron_of_the_map(as_printed):
    """The gradient of a silent neuron's output weight vanishes there to second order, with curvatures of both signs."""
    space = as_printed[1]
    net, curve, pull = space["curve_net"], space["curve"], space["pull"]
    for neuron in (1, 2, 3):
        (W, b), (V, _) = net.layers(curve.theta)
        w, beta, v = W[neuron - 1], b[neuron - 1], float(V[0, neuron - 1])
        t = 1e-3
        steps = torch.tensor([[0, 0], [t, 0], [-t, 0], [0, t], [0, -t]]).to(w)
        values = pull(w + steps[:, 0], beta + steps[:, 1])
        assert values[0].abs() < 1e-14 and values.abs().max() < 100 * t**2  # no first-order part
        bend = inner_hessian(curve.landscape, curve.theta, 1, neuron)
        low, high = torch.linalg.eigvalsh(bend).tolist()
        assert low < -1e-4 and high > 1e-4
        # B_s is v times the second derivative of the gradient in (w, beta).
        second = (values[[1, 3]] + values[[2, 4]] - 2 * values[0]) / t**2
        assert torch.allclose(v * second, bend.diagonal(), rtol=0, atol=1e-4)
