"""Embedding a net into a wider one: splitting a neuron, adding a silent one, the free directions, the inner Hessian.

Layers and neurons are counted from 1, as in the book: hidden layer l has the weights W_l, and neuron s of it is row s
of (W_l, b_l) and column s of W_{l+1}.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist, pdist
from torch import Tensor
from torch.func import jacrev

from . import backend
from .critical import inertia
from .landscape import Landscape
from .network import MLP, affine


def split(network: MLP, theta, layer: int, neuron: int, alphas) -> tuple[MLP, Tensor]:
    """Split a neuron into k copies that share its output weights: the wider network, and its parameters.

    All copies have the old row of (W_l, b_l). Copy i has alpha_i times the old column of W_{l+1}, and the alphas sum
    to 1, so the output is the same for every input, and critical points go to critical points, for every loss. The
    first copy stands in the old place, the others come after the last neuron of the layer, in the order of the alphas.
    theta is (M,) or (B, M), alphas (k,) or (B, k); with a batch in one of them, or equal ones in both, (B, M') comes
    back. Source: Fukumizu and Amari 2000; Zhang et al. 2021.

    Raises ValueError for a layer or neuron that is not there, wrong shapes, and alphas that do not sum to 1 (to 1e-12
    times the sum of their sizes).

    >>> net = MLP([1, 2, 1])
    >>> theta, x = net.init(seed=0), torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    >>> wider, wide = split(net, theta, layer=1, neuron=2, alphas=[-0.5, 1.0, 0.5])
    >>> wider.widths, bool((wider(wide, x.to(wide)) - net(theta, x)).abs().max() < 1e-15)
    ((1, 4, 1), True)
    >>> split(net, theta, layer=1, neuron=2, alphas=[0.5, 0.6])
    Traceback (most recent call last):
        ...
    ValueError: alphas sum to 1.1; expected 1
    """
    theta, one = _checked(network, theta, layer, neuron)
    alphas = backend.tensor(alphas, "alphas")
    if alphas.dim() not in (1, 2) or alphas.shape[-1] < 1:
        raise ValueError(f"alphas has shape {tuple(alphas.shape)}; expected (k,) or (B, k) with k of at least 1")
    one, alphas = one and alphas.dim() == 1, alphas.reshape(-1, alphas.shape[-1])
    if 1 != len(theta) != len(alphas) != 1:
        raise ValueError(f"theta and alphas have batches of {len(theta)} and {len(alphas)}; expected equal ones")
    error = (alphas.sum(1) - 1).abs() / alphas.abs().sum(1).clamp_min(1)
    if float(error.max()) > 1e-12:
        raise ValueError(f"alphas sum to {float(alphas.sum(1)[error.argmax()]):.15g}; expected 1")
    layers = network.layers(theta)
    W, b = layers[layer - 1]
    out, c = layers[layer]
    s, more = neuron - 1, alphas.shape[1] - 1
    W = torch.cat([W, W[:, s : s + 1].expand(-1, more, -1)], 1)
    b = None if b is None else torch.cat([b, b[:, s : s + 1].expand(-1, more)], 1)
    shared = out[:, :, s, None] * alphas[:, None, :]  # (B, d_{l+1}, k)
    B = len(shared)
    out = torch.cat([out[:, :, :s].expand(B, -1, -1), shared[:, :, :1], out[:, :, s + 1 :].expand(B, -1, -1),
                     shared[:, :, 1:]], 2)
    layers[layer - 1 : layer + 1] = [(W, b), (out, c)]
    wider = _widened(network, layer, more)
    wide = wider.flatten([tuple(None if p is None else p.expand(B, *p.shape[1:]) for p in pair) for pair in layers])
    return wider, wide[0] if one else wide


def null(network: MLP, theta, layer: int, bias=0.0, weights=None) -> tuple[MLP, Tensor]:
    """Add a silent neuron, the last of hidden layer l: the wider network, and its parameters.

    Its output weights are 0, so the output is the same for every input. Without `weights` its input weights are 0 too:
    the null embedding, which in a network with biases sends critical points to critical points, for every loss and
    whatever its bias. (Without biases that needs sigma(0) = 0.) With other `weights` the new point is in general not
    critical. Source: Zhang et al. 2022; lesson 3.1.

    theta is (M,) or (B, M), bias a number or (B,), weights (d_{l-1},) or (B, d_{l-1}); with a batch in one of them, or
    equal ones in several, (B, M') comes back. Raises ValueError for a layer that is not there, wrong shapes, and a bias
    other than 0 in a network without biases.

    >>> net = MLP([2, 1, 1])
    >>> wider, wide = null(net, [1.0, 2.0, 3.0, 4.0, 5.0], layer=1, bias=0.5)
    >>> for W, b in wider.layers(wide):
    ...     print(W.tolist(), b.tolist())
    [[1.0, 2.0], [0.0, 0.0]] [3.0, 0.5]
    [[4.0, 0.0]] [5.0]
    """
    theta, one = _checked(network, theta, layer, 1)
    d, bias = network.widths[layer - 1], backend.tensor(bias, "bias")
    weights = theta.new_zeros(d) if weights is None else backend.tensor(weights, "weights")
    if bias.dim() > 1:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; expected a number or (B,)")
    if weights.dim() not in (1, 2) or weights.shape[-1] != d:
        raise ValueError(f"weights has shape {tuple(weights.shape)}; expected ({d},) or (B, {d})")
    if not network.bias and bool(bias.any()):
        raise ValueError(f"bias is not 0, but {network!r}; expected 0")
    one = one and bias.dim() == 0 and weights.dim() == 1
    bias, weights = bias.reshape(-1, 1), weights.reshape(-1, 1, d)
    B = max(len(theta), len(bias), len(weights))
    if any(len(value) not in (1, B) for value in (theta, bias, weights)):
        raise ValueError(f"theta, bias and weights have batches of {len(theta)}, {len(bias)} and {len(weights)}; "
                         "expected equal ones")
    layers = network.layers(theta.expand(B, -1))
    (W, b), (out, c) = layers[layer - 1 : layer + 1]
    W = torch.cat([W, weights.expand(B, -1, -1)], 1)
    b = None if b is None else torch.cat([b, bias.expand(B, -1)], 1)
    layers[layer - 1 : layer + 1] = [(W, b), (torch.cat([out, torch.zeros_like(out[:, :, :1])], 2), c)]
    wider = _widened(network, layer, 1)
    wide = wider.flatten(layers)
    return wider, wide[0] if one else wide


def split_directions(network: MLP, theta, layer: int, neuron: int, copies: int) -> Tensor:
    """The k - 1 directions in which the alphas of a split into k copies may move: (k - 1, M'), or (B, k - 1, M').

    Row i moves output weight from the first copy to copy i + 1. The split points of all alphas with sum 1 are
    split(alphas) + a linear combination of these rows, whatever the alphas: an affine subspace of dimension k - 1
    (if the neuron's output weights are not all 0), of critical points if theta is one.

    >>> net = MLP([1, 1, 1])
    >>> split_directions(net, [1.0, 2.0, 3.0, 4.0], layer=1, neuron=1, copies=2)
    tensor([[ 0.,  0.,  0.,  0., -3.,  3.,  0.]], dtype=torch.float64)
    """
    if isinstance(copies, bool) or not isinstance(copies, int) or copies < 2:
        raise ValueError(f"copies is {copies!r}; expected an integer of at least 2")
    theta, one = _checked(network, theta, layer, neuron)
    corner = torch.eye(copies, dtype=theta.dtype, device=theta.device)  # alphas with all the weight on one copy
    points = torch.stack([split(network, theta, layer, neuron, alphas)[1] for alphas in corner], 1)
    directions = points[:, 1:] - points[:, :1]
    return directions[0] if one else directions


def inner_hessian(landscape: Landscape, theta, layer: int, neuron: int) -> Tensor:
    """B_s = sum over samples of z_s sigma''(w_s a + b_s) (a, 1)(a, 1)^T, shape (d + 1, d + 1), or a batch of them.

    a is the input of hidden layer l (its d numbers; without biases the 1 is left out, and the shape is (d, d)), and z_s
    the derivative of the loss by the neuron's output, with the loss's own weight. For one hidden layer and one output
    z_s = loss'(f) v_s. If a neuron is split into alpha and 1 - alpha, the loss bends by alpha (1 - alpha) B_s in the
    directions that pull the two copies apart. Source: Fukumizu and Amari 2000; the name is that of Ding et al. 2026.

    Raises TypeError for a landscape without an MLP, ValueError for a layer or neuron that is not there.

    >>> from losslab import data
    >>> plus = data.definite(+1)
    >>> landscape = Landscape(MLP([1, 1, 1]), plus.x, plus.y)
    >>> inner_hessian(landscape, plus.theta, layer=1, neuron=1).diagonal() > 7e-4
    tensor([True, True])
    """
    one, error, out, _, bend, a = _around(landscape, theta, layer, neuron)
    answer = (((out[:, None] @ error) * bend) * a) @ a.mT
    return answer[0] if one else answer


def inner_coupling(landscape: Landscape, theta, layer: int, neuron: int) -> Tensor:
    """C_s = sum over samples of e sigma'(w_s a + b_s) (a, 1)^T, shape (d_{l+1}, d + 1), or a batch of them.

    e (d_{l+1}) is the derivative of the loss by the pre-activations of layer l + 1; a as in `inner_hessian`. C_s is how
    the gradient in the output weights of a copy of the neuron changes as the copy's input weights move. At a critical
    point v^T C_s = 0 for the neuron's output weights v: so C_s = 0 if layer l + 1 is one unit and v is not 0.
    Source: lesson 3.3.

    >>> from losslab import data
    >>> plus = data.definite(+1)
    >>> inner_coupling(Landscape(MLP([1, 1, 1]), plus.x, plus.y), plus.theta, layer=1, neuron=1).abs() < 1e-15
    tensor([[True, True]])
    """
    one, error, _, slope, _, a = _around(landscape, theta, layer, neuron)
    answer = (error * slope) @ a.mT
    return answer[0] if one else answer


def _around(landscape, theta, layer, neuron):
    """Whether theta is one vector, and what the neuron sees: error (B, d_{l+1}, n) behind it, its output weights
    (B, d_{l+1}), slope and bend (B, 1, n) of its activation, and its input (a, 1) (B, d + 1, n)."""
    network, s = getattr(landscape, "network", None), neuron - 1
    if not isinstance(network, MLP):
        raise TypeError(f"landscape is {landscape!r}; expected one with a losslab.MLP")
    theta, one = _checked(network, theta, layer, neuron)
    layers, inputs, slopes, bends = network.layers(theta), [landscape.x.mT.expand(len(theta), -1, -1)], [], []
    for (W, b), sigma in zip(layers, network.activations, strict=True):
        z = affine(W, inputs[-1], b)
        inputs.append(sigma.value(z))
        slopes.append(sigma.slope(z, inputs[-1]))
        bends.append(sigma.bend(z, inputs[-1], slopes[-1]))
    error = slopes[-1] * (landscape.weight * landscape.loss.gradient(inputs[-1].mT, landscape.y).mT)  # dL/dz_K
    for (W, _), slope in zip(layers[:layer:-1], slopes[-2:layer - 1:-1], strict=True):
        error = slope * (W.mT @ error)  # dL/dz_l, down to layer l + 1
    a = inputs[layer - 1]
    a = torch.cat([a, torch.ones_like(a[:, :1])], 1) if network.bias else a
    return one, error, layers[layer][0][:, :, s], slopes[layer - 1][:, s, None], bends[layer - 1][:, s, None], a


def split_basis(network: MLP, layer: int, neuron: int, alpha: float) -> tuple[MLP, Tensor]:
    """The wider network, and a basis of its parameter space, as rows (M', M'), in which a split looks simple.

    The split T leaves 1 - alpha of the output weights and gives alpha to a copy. First the M lifted directions T e_i.
    Then the d + 1 that pull the copies apart: alpha times a unit vector for the old row of (W_l, b_l), alpha - 1 times
    it for the new one. Then the d_{l+1} that shift output weight: +1 for the old copy, -1 for the new one. With these
    rows as P the Hessians obey, at every theta, critical or not,

        P H'(T theta) P^T = diag(H(theta), K),   K = [[alpha (1 - alpha) B_s, C_s^T], [C_s, 0]]

    with B_s of `inner_hessian` and C_s of `inner_coupling`. Source: lesson 3.3.

    >>> net = MLP([1, 1, 1])
    >>> split_basis(net, layer=1, neuron=1, alpha=0.25)[1][4:]
    tensor([[ 0.2500, -0.7500,  0.0000,  0.0000,  0.0000,  0.0000,  0.0000],
            [ 0.0000,  0.0000,  0.2500, -0.7500,  0.0000,  0.0000,  0.0000],
            [ 0.0000,  0.0000,  0.0000,  0.0000,  1.0000, -1.0000,  0.0000]],
           dtype=torch.float64)
    """
    like = backend.tensor(alpha, "alpha")
    if like.dim() != 0:
        raise ValueError(f"alpha has shape {tuple(like.shape)}; expected a number")
    _checked(network, like.new_zeros(getattr(network, "M", 0)), layer, neuron)
    eye = torch.eye(network.M, dtype=like.dtype, device=like.device)
    wider, lifted = split(network, eye, layer, neuron, torch.stack([1 - like, like]))
    d, e, s = network.widths[layer - 1], network.widths[layer + 1], neuron - 1
    p = d + network.bias
    more = like.new_zeros(p + e, wider.M)
    layers = wider.layers(more)  # views: what is written there, stands in `more`
    i, j = torch.arange(p, device=like.device), torch.arange(e, device=like.device)
    W, b = layers[layer - 1]
    W[i[:d], s, i[:d]], W[i[:d], -1, i[:d]] = like, like - 1
    if b is not None:
        b[d, s], b[d, -1] = like, like - 1
    out = layers[layer][0]
    out[p + j, j, s], out[p + j, j, -1] = 1.0, -1.0
    return wider, torch.cat([lifted, more])


def splits(network: MLP, theta, steps, alphas) -> tuple[MLP, Tensor]:
    """Split one neuron after the other: T^alpha_kappa ... T^alpha_1 theta, and the network that it belongs to.

    steps is a list of kappa pairs (layer, neuron). Step i leaves 1 - alpha_i of the output weights where they were and
    puts a copy with the share alpha_i at the end of the layer; later steps may split it again. alphas is (kappa,) or
    (B, kappa). The result is a polynomial in the alphas, not an affine function: shares multiply.

    >>> net = MLP([1, 1, 1], bias=False)
    >>> splits(net, [1.0, 1.0], [(1, 1), (1, 2)], [0.5, 0.4])[1]  # the outgoing shares are 1 - .5, .5 (1 - .4), .5 .4
    tensor([1.0000, 1.0000, 1.0000, 0.5000, 0.3000, 0.2000], dtype=torch.float64)
    """
    steps, alphas = list(steps), backend.tensor(alphas, "alphas")
    if alphas.dim() not in (1, 2) or alphas.shape[-1] != len(steps):
        raise ValueError(f"alphas has shape {tuple(alphas.shape)}; expected ({len(steps)},) or (B, {len(steps)})")
    for i, (layer, neuron) in enumerate(steps):
        a = alphas[..., i]
        network, theta = split(network, theta, layer, neuron, torch.stack([1 - a, a], -1))
    return network, theta


def subspace(network: MLP, theta, steps) -> tuple[MLP, Tensor, Tensor]:
    """The affine subspace theta_B + span(v_1, ..., v_kappa) that kappa splits reach from theta (M,).

    Returns the wider network, theta_B = T_kappa ... T_1 theta (every alpha 0), shape (M',), and the rows
    v_i = T_kappa ... T_{i+1} V_i T_{i-1} ... T_1 theta, shape (kappa, M'). T and V are linear and V = T^1 - T^0, so
    v_i is the point with alpha_i = 1 and the other alphas 0, minus theta_B. If theta is critical, the whole subspace
    is. v_i = 0 where step i splits a neuron without output weights. Source: Zhang et al. 2021; lesson 3.2.

    >>> wider, point, v = subspace(MLP([1, 1, 1], bias=False), [2.0, 3.0], [(1, 1), (1, 1)])
    >>> point, v[1]
    (tensor([2., 2., 2., 3., 0., 0.], dtype=torch.float64), tensor([ 0.,  0.,  0., -3.,  0.,  3.], dtype=torch.float64))
    """
    steps = list(steps)
    corners = torch.eye(len(steps) + 1, dtype=backend.dtype())[:, 1:]  # a row of zeros, then the unit vectors
    if backend.tensor(theta, "theta").dim() != 1 or not steps:
        raise ValueError("theta must be one vector (M,), steps at least one pair (layer, neuron)")
    wider, points = splits(network, theta, steps, corners)
    return wider, points[0], points[1:] - points[0]


def compatible(network: MLP, maps, seed: int, batch: int | None = None,
               spread: float = 1.0) -> tuple[list[Tensor], list[Tensor]]:
    """Random coefficients of a compatible embedding: shares alpha^0, ..., alpha^K and factors beta^1, ..., beta^K.

    maps holds one list I_l for each hidden layer: neuron j of the wide layer copies neuron I_l(j) of the narrow one,
    and every narrow neuron has a copy. alpha^l is (d'_l,), beta^l (d'_l, d'_{l-1}), with a batch axis if asked for.
    They satisfy `conditions` = 0. All solutions have the form beta^l = 1 (alpha^{l-1})^T + S - 1 (alpha^l)^T S on each
    block of copies of one neuron by copies of another, where the rows of S sum to 0; alphas and S are Gaussian here,
    `spread` times. With spread 0 every copy has an equal share.

    >>> alphas, betas = compatible(MLP([1, 1, 2, 1]), [[1, 1], [1, 2, 1]], seed=0)
    >>> [tuple(beta.shape) for beta in betas], bool(max(c.abs().max() for c in conditions(alphas, betas,
    ...     [[1, 1], [1, 2, 1]])) < 1e-15)
    ([(2, 1), (3, 2), (1, 3)], True)
    """
    P, draw = _copies(_maps(network, maps), network), backend.generator(seed, "shares")
    rows = 1 if batch is None else batch
    alphas = [torch.ones(rows, len(P[0]), dtype=P[0].dtype, device=P[0].device)]
    betas = []
    for below, here in zip(P[:-1], P[1:], strict=True):
        z = backend.normal(rows, len(here), seed=draw, scale=spread)
        alphas.append((1 - z @ here) / here.sum(0) @ here.mT + z)  # each neuron's copies: shares that sum to 1
        S = backend.normal(rows, len(here), len(below), seed=draw, scale=spread)
        S = S - S @ below / below.sum(0) @ below.mT
        betas.append(alphas[-2][:, None] + S - here @ (here.mT @ (alphas[-1][..., None] * S)))
    return (alphas, betas) if batch is not None else ([a[0] for a in alphas], [b[0] for b in betas])


def conditions(alphas, betas, maps) -> list[Tensor]:
    """How far coefficients are from compatible: a forward and a backward residual for each layer, 0 where it holds.

    Forward: the weights with which a neuron reads the copies of one neuron sum to 1. Backward: the average of the
    factors over the copies of one neuron, weighted with their shares, is alpha^{l-1}, whichever the neuron.
    """
    ends = [list(range(1, alphas[i].shape[-1] + 1)) for i in (0, -1)]
    P = [torch.nn.functional.one_hot(torch.tensor(I) - 1).to(alphas[0]) for I in (ends[0], *maps, ends[1])]
    residuals = []
    for l, beta in enumerate(betas, start=1):
        residuals += [beta @ P[l - 1] - 1, P[l].mT @ (alphas[l][..., None] * beta) - alphas[l - 1][..., None, :]]
    return residuals


def general(network: MLP, theta, maps, betas) -> tuple[MLP, Tensor]:
    """W'_l[j, i] = beta^l[j, i] W_l[I_l(j), I_{l-1}(i)], b'_l[j] = b_l[I_l(j)]: the wide network, its parameters.

    With compatible coefficients (`compatible`) the output is the same and critical points go to critical points. Others
    are allowed: then neither need hold. theta is (M,) or (B, M), beta^l as there, with a batch axis or without.

    >>> net, maps = MLP([1, 1, 2, 1]), [[1, 1], [1, 2, 1]]
    >>> theta, x = net.init(seed=0), torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    >>> wider, wide = general(net, theta, maps, compatible(net, maps, seed=1)[1])
    >>> wider.widths, bool((wider(wide, x.to(wide)) - net(theta, x)).abs().max() < 1e-14)
    ((1, 2, 3, 1), True)
    """
    maps = _maps(network, maps)
    theta, one = _checked(network, theta, 1, 1)
    betas = [backend.tensor(beta, "betas") for beta in betas]
    widths = [len(I) for I in maps]
    shapes = [tuple(beta.shape[-2:]) for beta in betas]
    if shapes != list(zip(widths[1:], widths[:-1], strict=True)):
        raise ValueError(f"betas have shapes {shapes}; expected (..., d'_l, d'_(l-1)) for the widths {widths}")
    batches = [len(theta)] + [len(beta) for beta in betas if beta.dim() == 3]
    one, B = one and len(batches) == 1, next((b for b in batches if b != 1), 1)
    if any(b not in (1, B) for b in batches):
        raise ValueError(f"theta and betas have batches of {batches}; expected equal ones")
    layers = []
    for (W, b), beta, below, here in zip(network.layers(theta), betas, maps[:-1], maps[1:], strict=True):
        W = beta * W[:, [i - 1 for i in here]][:, :, [i - 1 for i in below]]
        layers.append((W.expand(B, -1, -1), None if b is None else b[:, [i - 1 for i in here]].expand(B, -1)))
    wider = MLP(widths, network.activation, network.bias, network.output_activation)
    wide = wider.flatten(layers)
    return wider, wide[0] if one else wide


def tangent(network: MLP, theta, maps, alphas, betas) -> Tensor:
    """Directions (P, M') that span the tangent space, at one point, of the family of compatible embeddings of theta.

    P is 0 where nothing is free. The rows are the kernel of the linearised `conditions`, carried to the parameters:
    nothing of how the coefficients were found goes into it. Their rank is the dimension of the family, sum kappa_l +
    sum kappa_l kappa_{l-1} with kappa_l = d'_l - d_l, if no entry of W_2, ..., W_K is 0. Source: proved in lesson 3.2.

    Raises NoClearGap where the singular values of the linearised conditions do not part into 0 and not 0.
    """
    free = [a.clone() for a in alphas[1:-1]] + [b.clone() for b in betas]
    sizes, starts = [p.numel() for p in free], len(alphas) - 2

    def residual(flat):
        parts = [f.view_as(p) for f, p in zip(flat.split(sizes), free, strict=True)]
        return torch.cat([c.flatten() for c in
                          conditions([alphas[0], *parts[:starts], alphas[-1]], parts[starts:], maps)])

    _, s, V = torch.linalg.svd(jacrev(residual)(torch.cat([p.flatten() for p in free])))
    kernel = V[inertia(s, tol=1e-10 * float(s[0])).positive :]
    moved = [part.view(-1, *b.shape) for part, b in zip(kernel.split(sizes, 1)[starts:], betas, strict=True)]
    wider, there = general(network, theta, maps, moved)  # linear in the betas; the biases do not move
    still = general(network, theta, maps, [0 * b for b in betas])[1]
    return there - still


def surjections(wide: int, narrow: int) -> int:
    """The number of maps from {1, ..., wide} onto {1, ..., narrow}: narrow! times a Stirling number. Exact.

    >>> surjections(5, 3)
    150
    """
    return sum((-1) ** k * math.comb(narrow, k) * (narrow - k) ** wide for k in range(narrow + 1))


@dataclass(frozen=True)
class Merged:
    """A network whose layer was merged: the narrower `network`, its parameters `theta` (M',), and `groups` (d_l,).

    groups[k] says, from 0, which neuron of the narrower layer stands for neuron k, and -1 that none does; `sizes`
    counts them.
    """

    network: MLP
    theta: Tensor
    groups: Tensor

    @property
    def sizes(self) -> list[int]:
        """How many neurons each new one stands for."""
        return self.groups[self.groups >= 0].bincount().tolist()


def merge(network: MLP, theta, layer: int, distance: float) -> Merged:
    """Put one neuron in the place of every group of like ones: the way back from `split`.

    Neurons are alike whose rows u = (w, b) are close: average linkage (SciPy), cut at `distance`. For the odd
    activation tanh a neuron (-u, -a) does the same as (u, a), so rows are compared up to their sign and are turned to
    agree with the group's neuron of largest output weights. The new neuron has the mean of the rows, weighted by the
    sizes |a| of the output weights, and the sum of the output weights. Groups are numbered by their first neurons.

    If the rows of every group are equal (up to that sign), the output is the same for every input, and a critical point
    goes to a critical point (lesson 3.4). If they are only close, so are the outputs. theta is one vector (M,).

    Raises ValueError for a layer that is not there, a batch, a distance below 0.

    >>> net = MLP([1, 2, 1])
    >>> wider, wide = split(net, [1.0, -2.0, 0.5, 0.0, 3.0, 4.0, 5.0], layer=1, neuron=2, alphas=[0.5, 0.75, -0.25])
    >>> back = merge(wider, wide, layer=1, distance=1e-6)
    >>> back.theta, back.groups, back.sizes
    (tensor([ 1.0000, -2.0000,  0.5000,  0.0000,  3.0000,  4.0000,  5.0000],
           dtype=torch.float64), tensor([0, 1, 1, 1]), [1, 3])
    """
    theta, one = _checked(network, theta, layer, 1)
    if not one:
        raise ValueError(f"theta is a batch of {len(theta)}; expected one vector ({network.M},)")
    if not 0 <= distance < float("inf"):
        raise ValueError(f"distance is {distance!r}; expected a number of at least 0")
    layers = network.layers(theta[0])
    (W, b), (out, c) = layers[layer - 1 : layer + 1]
    rows = W if b is None else torch.cat([W, b[:, None]], 1)
    odd = network.activation.value is torch.tanh
    groups = _alike(rows, distance, odd)
    size, count = out.norm(dim=0), int(groups.max()) + 1
    member = groups == torch.arange(count, device=groups.device)[:, None]  # (count, d_l)
    lead = torch.where(member, size, -1.0).argmax(1)  # the neuron of largest output weights of every group
    sign = torch.ones_like(size)
    if odd:
        sign = torch.where((rows * rows[lead[groups]]).sum(1) < 0, -1.0, 1.0).to(rows)
    share = torch.where(member, size, 0.0)
    share = torch.where(share.sum(1, keepdim=True) > 0, share, member.to(share))  # silent groups: the plain mean
    share = share / share.sum(1, keepdim=True)
    # As a correction to the lead's row: where all rows are equal it is exactly 0.
    apart = sign[:, None] * rows - rows[lead[groups]]
    rows, out = rows[lead] + share @ apart, (out * sign) @ member.to(out).T
    layers[layer - 1] = (rows, None) if b is None else (rows[:, :-1], rows[:, -1])
    layers[layer] = (out, c)
    narrower = _widened(network, layer, count - len(groups))
    return Merged(narrower, narrower.flatten(layers), groups)


def merge_directions(network: MLP, theta, layer: int, cosine: float, floor: float = 1e-3) -> Merged:
    """Put one ReLU neuron in the place of every group that looks the same way: only directions count, not lengths.

    Let rho_k = |(w_k, b_k)|, u_k = (w_k, b_k) / rho_k and a_k be the output weights of neuron k. As relu(rho z) =
    rho relu(z) for rho > 0, a neuron does rho_k a_k relu(<u_k, (x, 1)>). Groups: complete linkage (SciPy), so that any
    two directions of a group have at least the given cosine, 0 < cosine <= 1. The new neuron has the unit row u of the
    mean direction, weighted by the amplitudes rho_k |a_k|, and the output weights sum of rho_k a_k. Neurons with an
    amplitude below `floor` times the largest are dropped first. Groups are numbered by their first neurons.

    If all directions of every group are equal and what is dropped has amplitude 0, the output is the same for every
    input, and a critical point goes to a critical point. In general what the next layer receives changes by at most
    |(x, 1)| times the sum of |a_k| |(w_k, b_k) - rho_k u|, with u = 0 for the dropped ones. Source: lesson 3.5.

    Raises ValueError for another activation than ReLU, a layer that is not there, a batch, a cosine or floor out of
    range, and a layer whose neurons all have amplitude 0. Directions that are equal up to rounding have a cosine of at
    least 1 - 1e-12.

    >>> net = MLP([1, 3, 1], "relu", bias=False)
    >>> merge_directions(net, [1.0, 3.0, -2.0, 2.0, 4.0, 5.0], layer=1, cosine=0.99).theta  # 2 + 3 * 4, and 2 * 5
    tensor([ 1., -1., 14., 10.], dtype=torch.float64)
    """
    theta, one = _checked(network, theta, layer, 1)
    if network.activation.name != "relu":
        raise ValueError(f"network is {network!r}; expected relu, for which a row may be rescaled")
    if not one:
        raise ValueError(f"theta is a batch of {len(theta)}; expected one vector ({network.M},)")
    if not 0 < cosine <= 1:
        raise ValueError(f"cosine is {cosine!r}; expected above 0 and at most 1")
    if not 0 <= floor < 1:
        raise ValueError(f"floor is {floor!r}; expected from 0 to below 1")
    layers = network.layers(theta[0])
    (W, b), (out, c) = layers[layer - 1 : layer + 1]
    rows = W if b is None else torch.cat([W, b[:, None]], 1)
    rho = rows.norm(dim=1)
    amplitude = rho * out.norm(dim=0)
    if not bool(amplitude.any()):
        raise ValueError(f"all {len(rows)} neurons of layer {layer} have amplitude 0; expected one that does something")
    kept = (amplitude > 0) & (amplitude >= floor * amplitude.max())
    u = rows[kept] / rho[kept, None]
    groups = torch.full_like(kept, -1, dtype=torch.int64)
    groups[kept] = _clusters(pdist(u.cpu().numpy()), "complete", math.sqrt(2 * (1 - cosine))).to(groups)
    member = (groups == torch.arange(int(groups.max()) + 1, device=groups.device)[:, None]).to(u)  # (count, d_l)
    mean = (member * amplitude)[:, kept] @ u
    rows, out = mean / mean.norm(dim=1, keepdim=True), (out * rho) @ member.T
    layers[layer - 1] = (rows, None) if b is None else (rows[:, :-1], rows[:, -1])
    layers[layer] = (out, c)
    narrower = _widened(network, layer, len(member) - len(groups))
    return Merged(narrower, narrower.flatten(layers), groups)


def _alike(rows: Tensor, distance: float, odd: bool) -> Tensor:
    """The group of every row, from 0, numbered by their first rows; if `odd`, u and -u count as the same."""
    points = rows.cpu().numpy()
    apart = pdist(points)
    if odd:
        between = cdist(points, -points)
        apart = np.minimum(apart, between[np.triu_indices(len(points), 1)])
    return _clusters(apart, "average", distance).to(rows.device)


def _clusters(apart: np.ndarray, method: str, distance: float) -> Tensor:
    """Groups from 0, numbered by their first members, of points with these pairwise distances, as from `pdist`."""
    if not len(apart):  # one point
        return torch.zeros(1, dtype=torch.int64)
    labels = fcluster(linkage(apart, method), distance, "distance")
    _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
    return torch.as_tensor(first.argsort().argsort()[labels])


def _maps(network, maps) -> list[list[int]]:
    """The maps of all layers, the identity at both ends."""
    maps, hidden = [list(I) for I in maps], network.widths[1:-1]
    if len(maps) != len(hidden) or any(set(I) != set(range(1, d + 1)) for I, d in zip(maps, hidden, strict=True)):
        raise ValueError(f"maps is {maps}; expected one list for each hidden layer, in which every neuron occurs: "
                         f"1 to {', 1 to '.join(map(str, hidden))}")
    return [list(range(1, network.widths[0] + 1)), *maps, list(range(1, network.widths[-1] + 1))]


def _copies(maps, network) -> list[Tensor]:
    """P_l (d'_l, d_l) with a 1 where neuron j of the wide layer copies neuron s of the narrow one."""
    return [torch.eye(d, dtype=backend.dtype(), device=backend.device())[[i - 1 for i in I]]
            for I, d in zip(maps, network.widths, strict=True)]


def _checked(network, theta, layer, neuron) -> tuple[Tensor, bool]:
    if not isinstance(network, MLP):
        raise TypeError(f"network must be a losslab.MLP; got {type(network).__name__}")
    for name, value, most in (("layer", layer, network.depth - 1), ("neuron", neuron, None)):
        most = network.widths[layer] if most is None else most
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ValueError(f"{name} is {value!r}; expected 1 to {most} for {network!r}")
    theta = backend.tensor(theta, "theta")
    if theta.dim() not in (1, 2) or theta.shape[-1] != network.M:
        raise ValueError(f"theta has shape {tuple(theta.shape)}; expected ({network.M},) or (B, {network.M})")
    return theta.reshape(-1, network.M), theta.dim() == 1


def _widened(network: MLP, layer: int, more: int) -> MLP:
    """The same kind of network with `more` further neurons in a hidden layer."""
    widths = list(network.widths)
    widths[layer] += more
    return MLP(widths, network.activation, network.bias, network.output_activation)
