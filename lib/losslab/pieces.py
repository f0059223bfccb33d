"""What the loss does on the whole straight pieces of a polyline: bounds that hold between the points too.

On every piece from a to b the loss is bounded by some numbers c_0, ..., c_m, its controls: c_0 = L(a), c_m = L(b),
L never exceeds the largest of them, and never rises along the piece by more than the sum of the rises from one to the
next. Controls exist for four kinds of pieces:

* a polynomial of degree m in t has its Bernstein coefficients: a Bernstein polynomial is a mean of its coefficients,
  and has no more variation than they have (Farouki 2012, section 5.1). The square loss of a deep linear net is
  one on every piece, with m = 2 K; so is the square loss of any net where the last layer alone moves, with m = 2;
* where the last layer alone moves, every loss that is convex in the output is convex in t: it stays below the larger
  end, and L(b) - L(t) <= max(0, L'(b));
* where only incoming weights of dead units move, units with outgoing weights 0, the output is constant;
* where only the first of two layers moves and no ReLU goes on or off on any sample, the output is linear in t, and the
  square loss a polynomial with m = 2.
"""

from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor

from .landscape import Landscape
from .losses import CrossEntropy, Logistic, Square
from .network import MLP

HALVINGS = 40  # of a piece whose bound is not tight yet: each makes the gap four times smaller


@dataclass(frozen=True)
class Bounds:
    """`highest`: no point of the path is above it; `rise`: from no point to a later one does the loss rise by more.

    `kinds` counts the pieces: {"polynomial": ..., "convex": ..., "constant": ...}.
    """

    highest: float
    rise: float
    kinds: dict[str, int]


def bounds(landscape: Landscape, points: Tensor) -> Bounds | None:
    """Bounds on the loss along the polyline `points` (T, M); None where some piece is of none of the four kinds.

    They hold up to the rounding of float64 and are tight up to 1e-13 * max(1, loss).
    """
    if deep_linear(landscape):
        return _of(bernstein(landscape, points), True, {"polynomial": len(points) - 1})
    net = landscape.network if landscape.n else None
    if not isinstance(net, MLP) or net.output_activation.name != "identity":
        return None
    if not isinstance(landscape.loss, Square | CrossEntropy | Logistic):
        return None
    moved = points[1:] != points[:-1]
    outer = torch.arange(landscape.M, device=points.device) >= net.slots[-1][0]
    convex = ~moved[:, ~outer].any(1)
    constant = ~(moved & ~_idle(net, points[:-1])).any(1)
    square = isinstance(landscape.loss, Square)
    linear = convex | constant
    if square and not bool(linear.all()):
        linear |= ~moved[:, outer].any(1) & _same_side(net, points, landscape.x)
    if not bool(linear.all()):
        return None
    values, gradients = landscape.value_and_gradient(points)
    start, end, way = values[:-1], values[1:], points[1:] - points[:-1]
    if square:  # L(t) is quadratic, with L(1/2) = (L(0) + L(1)) / 4 + middle Bernstein coefficient / 2
        middle = 2 * landscape.value((points[1:] + points[:-1]) / 2) - (start + end) / 2
    else:
        middle = end - (gradients[1:] * way).sum(1).clamp_min(0)
    middle = torch.where(constant, (start + end) / 2, middle)
    kinds = {"convex": int((linear & ~constant).sum()), "constant": int(constant.sum())}
    return _of(torch.stack([start, middle, end], 1), square, kinds)


def _same_side(net: MLP, points: Tensor, x: Tensor) -> Tensor:
    """Where no hidden unit of a net with one hidden layer of ReLUs goes on or off on a sample: (T - 1,), as a mask."""
    if net.depth != 2 or net.activation.name != "relu":
        return points.new_zeros(len(points) - 1, dtype=torch.bool)
    first = MLP(net.widths[:-1], "identity", net.bias)
    z, size = first(points[:, :first.M], x), first(points[:, :first.M].abs(), x.abs())  # (T, n, h)
    side = torch.where(z.abs() > 1e-12 * size, z.sign(), 0.0)  # 0: on the edge, up to rounding
    return (side[1:] * side[:-1] >= 0).flatten(1).all(1)


def deep_linear(landscape: Landscape) -> bool:
    """Whether this is the square loss of a linear net (`is_linear`)."""
    return is_linear(landscape) and isinstance(landscape.loss, Square)


def is_linear(landscape: Landscape) -> bool:
    """Whether the network is an MLP without biases whose activations are all the identity, with any loss."""
    net = landscape.network if landscape.n else None
    return isinstance(net, MLP) and not net.bias and all(sigma.name == "identity" for sigma in net.activations)


def bernstein(landscape: Landscape, points: Tensor) -> Tensor:
    """The loss of a deep linear net on every piece of the polyline `points` (T, M), as a polynomial in t in [0, 1]:
    its Bernstein coefficients (T - 1, 2 K + 1).

    With s = 1 - t, W_l = s A_l + t B_l, and the residual W_K ... W_1 X - Y (s + t)^K is homogeneous in (s, t): its
    coefficients are found by multiplying out, the loss is its square.

    >>> scalar = Landscape(MLP([1, 1, 1], "identity", bias=False), [[1.0]], [[1.0]], "sse")
    >>> bernstein(scalar, torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64))  # ((1 - 2 t)^2 - 1)^2
    tensor([[0.0000, 0.0000, 2.6667, 0.0000, 0.0000]], dtype=torch.float64)
    """
    net = landscape.network
    # Only the triangle of a QR decomposition of the data enters: the sum over samples is done once.
    data = torch.linalg.qr(torch.cat([landscape.x, landscape.y], 1), mode="r")[1].mT
    X, Y = data[:landscape.x.shape[1]], data[landscape.x.shape[1]:]
    c = X.expand(len(points) - 1, 1, *X.shape)  # (pieces, degree + 1, rows, columns)
    for W, _ in net.layers(points):
        a, b = W[:-1, None] @ c, W[1:, None] @ c
        c = torch.cat([a, torch.zeros_like(a[:, :1])], 1) + torch.cat([torch.zeros_like(b[:, :1]), b], 1)
    K = net.depth
    c = c - _binomials(K, c)[:, None, None] * Y
    inner = torch.einsum("piab,pjab->pij", c, c)
    loss = torch.stack([inner.flip(2).diagonal(K - m, 1, 2).sum(1) for m in range(2 * K + 1)], 1)
    return landscape.weight * landscape.loss.scale(landscape.k) * loss / _binomials(2 * K, c)


def _binomials(n, like):
    return torch.tensor([comb(n, i) for i in range(n + 1)], dtype=like.dtype, device=like.device)


def _idle(net: MLP, theta: Tensor) -> Tensor:
    """Which entries of theta (P, M) are incoming weights of units whose outgoing weights are all 0: (P, M), as a mask.

    Nothing depends on these. Along a piece on which no other entries move, the outgoing weights stay 0, or are
    idle themselves.
    """
    layers, idle = net.layers(theta), []
    for number, (W, bias) in enumerate(layers, start=1):
        dead = W.new_zeros(W.shape[:2], dtype=torch.bool)
        if number < len(layers):
            dead = (layers[number][0] == 0).all(1)
        idle.append((dead[..., None].expand_as(W), None if bias is None else dead))
    return net.flatten(idle)


def _of(controls: Tensor, polynomial: bool, kinds: dict[str, int]) -> Bounds:
    """Bounds from the controls (P, m + 1) of all pieces, in their order; polynomial pieces are halved until tight."""
    tol = 1e-13 * max(1.0, float(controls[:, [0, -1]].abs().max()))
    for _ in range(HALVINGS if polynomial else 0):
        ends = torch.maximum(controls[:, 0], controls[:, -1])
        loose_top = (controls.amax(1) > max(float(ends.max()), float(controls.amax(1).max()) - tol))
        climb = (controls[:, -1] - controls[:, 0]).clamp_min(0)
        loose_rise = _rises(controls) > climb + tol
        loose = loose_rise | (loose_top & (controls.amax(1) > ends + tol))
        if not bool(loose.any()) or len(controls) > 200_000:
            break
        halves = torch.where(loose[:, None, None], _halved(controls), controls[:, None])
        keep = torch.stack([torch.ones_like(loose), loose], 1)
        controls = halves[keep]
    line = controls.flatten()
    drawn_up = float((line - line.cummin(0).values).max())
    return Bounds(float(controls.max()), max(drawn_up, float(_rises(controls).max())), kinds)


def _rises(controls):
    return (controls[:, 1:] - controls[:, :-1]).clamp_min(0).sum(1)


def _halved(controls):
    """The Bernstein coefficients of both halves (P, 2, m + 1), by de Casteljau's algorithm."""
    left, right, row = [], [], controls
    while True:
        left.append(row[:, 0])
        right.append(row[:, -1])
        if row.shape[1] == 1:
            return torch.stack([torch.stack(left, 1), torch.stack(right[::-1], 1)], 1)
        row = (row[:, 1:] + row[:, :-1]) / 2
