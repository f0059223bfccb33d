"""Gradient, Jacobian, Hessian-vector product and Hessian of a fully connected net, written out layer by layer.

Notation of the book, for one sample and one member of the batch. Forward: a_0 = x, z_l = W_l a_{l-1} + b_l,
a_l = sigma(z_l). Backward: e_l = dloss/da_l, delta_l = dloss/dz_l = sigma'(z_l) e_l, e_{l-1} = W_l^T delta_l.
Every array has the axes (batch, sample, unit); theta is (B, M), x is (n, d). `weight` is the factor in front of
each sample's loss. Sources: Pearlmutter 1994 (the product with the Hessian), Schraudolph 2002 (Gauss-Newton).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .losses import Loss
from .network import MLP, affine

PARTS = ("full", "gauss_newton", "residual")


@dataclass
class Pass:
    """What one forward and one backward sweep leave behind; index l counts layers from 1, a[0] is x."""

    layers: list[tuple[Tensor, Tensor | None]]
    a: list[Tensor]
    slope: list[Tensor]  # sigma'(z_l)
    bend: list[Tensor]  # sigma''(z_l)
    e: list[Tensor]  # dloss/da_l
    delta: list[Tensor]  # dloss/dz_l


def sweep(net: MLP, theta: Tensor, x: Tensor, y: Tensor, loss: Loss, bends: bool = True) -> Pass:
    """Forward and backward once; everything else is made from what this keeps."""
    layers, a, slope, bend = net.layers(theta), [x], [x], [x]
    for (W, b), sigma in zip(layers, net.activations, strict=True):
        z = affine(a[-1], W, b)
        a.append(sigma.value(z))
        slope.append(sigma.slope(z, a[-1]))
        if bends:
            bend.append(sigma.bend(z, a[-1], slope[-1]))
    e, delta = [x] * len(a), [x] * len(a)
    e[-1] = loss.gradient(a[-1], y)
    for l in range(net.depth, 0, -1):
        delta[l] = slope[l] * e[l]
        if l > 1:
            e[l - 1] = delta[l] @ layers[l - 1][0]
    return Pass(layers, a, slope, bend, e, delta)


def value(net: MLP, theta: Tensor, x: Tensor, y: Tensor, loss: Loss, weight: float) -> Tensor:
    """weight * sum of the losses of the samples, shape (B,)."""
    return weight * loss.values(net(theta, x), y).sum(-1)


def value_and_gradient(net, theta, x, y, loss, weight) -> tuple[Tensor, Tensor]:
    """(B,) and (B, M): dL/dW_l = sum over the samples of delta_l a_{l-1}^T, dL/db_l = sum of delta_l."""
    p = sweep(net, theta, x, y, loss, bends=False)
    out = torch.empty_like(theta)
    for (start, middle, end), a, delta in zip(net.slots, p.a[:-1], p.delta[1:], strict=True):
        torch.matmul(delta.mT, a, out=out[:, start:middle].unflatten(1, (delta.shape[-1], a.shape[-1])))
        if net.bias:
            out[:, middle:end] = delta.sum(1)
    return weight * loss.values(p.a[-1], y).sum(-1), out.mul_(weight)


def jacobian(net, theta, x) -> Tensor:
    """df/dtheta, shape (B, n, k, M): row c of sample i is the backward sweep that starts from output c."""
    p = sweep(net, theta, x, x, _Ones(), bends=False)
    B, n, k = p.a[-1].shape
    out = theta.new_empty(B, n, k, net.M)
    back = torch.diag_embed(p.slope[-1])  # (B, n, k, d_l): d f / d z_l
    for l in range(net.depth, 0, -1):
        start, middle, end = net.slots[l - 1]
        a = p.a[l - 1].expand(B, n, -1)
        out[..., start:middle] = (back.unsqueeze(-1) * a[:, :, None, None, :]).flatten(-2)
        if net.bias:
            out[..., middle:end] = back
        if l > 1:
            back = (back @ p.layers[l - 1][0][:, None]) * p.slope[l - 1].unsqueeze(-2)
    return out


class _Ones(Loss):
    """A loss with gradient 1: for sweeps that need the forward half only."""

    def gradient(self, f, y):
        return torch.ones_like(f)


def hvp(net: MLP, p: Pass, v: Tensor, y: Tensor, loss: Loss, weight: float, part: str = "full") -> Tensor:
    """H v, H0 v or H1 v for v (P, M): the derivative of both sweeps in the direction v (a dot below is d/dt).

    Forward: dz_l = W_l da_{l-1} + V_l a_{l-1} + c_l, da_l = sigma'(z_l) dz_l. Backward: de_{l-1} = W_l^T ddelta_l
    + V_l^T delta_l, ddelta_l = sigma'(z_l) de_l + sigma''(z_l) dz_l e_l. The Gauss-Newton part H0 keeps the terms
    that come from the loss's own curvature; the residual part H1 keeps the rest.
    """
    tangents = net.layers(v)
    bent = part != "gauss_newton"
    da, dz = [None] * (net.depth + 1), [None] * (net.depth + 1)
    for l, ((W, _), (V, c)) in enumerate(zip(p.layers, tangents, strict=True), start=1):
        dz[l] = affine(p.a[l - 1], V, c)
        if l > 1:
            dz[l] += da[l - 1] @ W.mT
        da[l] = p.slope[l] * dz[l]
    out = torch.empty_like(v)
    if part == "residual":
        de = torch.zeros_like(da[-1])
    else:
        de = loss.curvature_product(p.a[-1], y, da[-1])
    for l in range(net.depth, 0, -1):
        ddelta = p.slope[l] * de
        if bent:
            ddelta += p.bend[l] * dz[l] * p.e[l]
        start, middle, end = net.slots[l - 1]
        dW = out[:, start:middle].unflatten(1, tangents[l - 1][0].shape[1:])
        torch.matmul(ddelta.mT, p.a[l - 1], out=dW)
        if bent and l > 1:
            dW += p.delta[l].mT @ da[l - 1]
        if net.bias:
            out[:, middle:end] = ddelta.sum(1)
        if l > 1:
            de = ddelta @ p.layers[l - 1][0]
            if bent:
                de += p.delta[l] @ tangents[l - 1][0]
    return out.mul_(weight)


def hessian(net: MLP, p: Pass, y: Tensor, loss: Loss, weight: float, part: str = "full") -> Tensor:
    """The whole Hessian (B, M, M), or its part H0 or H1, assembled block by block.

    With P_l the Hessian of the loss in z_l, and for l >= m the forward derivatives Z = dz_l/dz_m and A = da_{l-1}/dz_m,
    the block of (W_l)_{pq} and (W_m)_{rs} is a sum over the samples of
    (P_l Z)_{pr} (a_{l-1})_q (a_{m-1})_s + (delta_l)_p A_{qr} (a_{m-1})_s; the second term is there for l > m only.
    A bias is a weight on a constant input 1.
    """
    P = _curvatures(net, p, y, loss, part)
    B, n = p.delta[-1].shape[:2]
    a = [_with_one(u, net.bias) for u in p.a[:-1]]  # inputs of each layer
    H = p.delta[-1].new_zeros(B, net.M, net.M)
    for m in range(1, net.depth + 1):
        Z, A = None, None  # dz_l/dz_m and da_{l-1}/dz_m; None stands for the identity and for "not yet"
        for l in range(m, net.depth + 1):
            if l > m:
                A = torch.diag_embed(p.slope[m]) if Z is None else p.slope[l - 1].unsqueeze(-1) * Z
                Z = p.layers[l - 1][0][:, None] @ A
            block = _outer_block(P[l] if Z is None else P[l] @ Z, a[l - 1], a[m - 1])
            if l > m and part != "gauss_newton":
                block[:, :, : A.shape[2]] += _inner_block(p.delta[l], A, a[m - 1], diagonal=l == m + 1)
            _store(H, net, block, l, m)
    return H.mul_(weight)


def _curvatures(net, p, y, loss, part) -> list[Tensor]:
    """P_l, shape (B, n, d_l, d_l): P_K from the loss, then P_l = S W^T P_{l+1} W S + diag(sigma'' e_l), S = sigma'."""
    P = [None] * (net.depth + 1)
    inner = None if part == "residual" else loss.curvature(p.a[-1], y)
    for l in range(net.depth, 0, -1):
        s = p.slope[l]
        P[l] = torch.zeros_like(torch.diag_embed(s)) if inner is None else s.unsqueeze(-1) * inner * s.unsqueeze(-2)
        if part != "gauss_newton":
            P[l].diagonal(dim1=-2, dim2=-1).add_(p.bend[l] * p.e[l])
        W = p.layers[l - 1][0][:, None]
        inner = W.mT @ P[l] @ W if l > 1 else None
    return P


def _with_one(a, bias):
    return torch.cat([a, torch.ones_like(a[..., :1])], -1) if bias else a


def _outer_block(S, left, right) -> Tensor:
    """sum over i of S_{pr} left_q right_s, shape (B, p, q, r, s): one matrix product with the samples inside."""
    B, n, dp, dr = S.shape
    if left is right and dp == dr:  # symmetric in (p, r) and in (q, s): a quarter of the work
        return _symmetric_block(S, left)
    pairs = (left.unsqueeze(-1) * right.unsqueeze(-2)).flatten(-2)
    block = S.flatten(-2).mT @ pairs
    return block.view(B, dp, dr, left.shape[-1], right.shape[-1]).permute(0, 1, 3, 2, 4).contiguous()


def _symmetric_block(S, a) -> Tensor:
    """The block of a layer with itself, from the pairs p <= r and q <= s alone."""
    B, d, e = S.shape[0], S.shape[-1], a.shape[-1]
    (p, r), (q, s) = torch.triu_indices(d, d, device=S.device), torch.triu_indices(e, e, device=S.device)
    St, at = S.flatten(-2).mT, a.mT  # the samples last: picking pairs then copies whole rows
    half = St[:, p * d + r] @ (at[..., q, :] * at[..., s, :]).mT
    position = torch.empty(e, e, dtype=torch.long, device=S.device)
    position[q, s] = position[s, q] = torch.arange(q.numel(), device=S.device)
    block = S.new_empty(B, d, e, d, e)
    for row in range(d):  # a row of units at a time keeps the memory at that of the result
        which = (p == row).nonzero().flatten()
        rows = half[:, which].index_select(-1, position.flatten()).view(B, d - row, e, e)
        block[:, row, :, row:] = rows.transpose(1, 2)
        block[:, row:, :, row] = rows
    return block


def _inner_block(delta, A, right, diagonal) -> Tensor:
    """sum over i of delta_p A_{qr} right_s, shape (B, p, q, r, s)."""
    B, n, dq, dr = A.shape
    pairs = (delta.unsqueeze(-1) * right.unsqueeze(-2)).flatten(-2)
    shape = (B, delta.shape[-1], dq, dr, right.shape[-1])
    if diagonal:  # A is diagonal one layer up: keep its diagonal alone
        block = A.new_zeros(shape)
        thin = (A.diagonal(dim1=-2, dim2=-1).mT @ pairs).view(B, dq, delta.shape[-1], right.shape[-1])
        block.diagonal(dim1=2, dim2=3).copy_(thin.permute(0, 2, 3, 1))
        return block
    return (A.flatten(-2).mT @ pairs).view(B, dq, dr, shape[1], shape[4]).permute(0, 3, 1, 2, 4)


def _store(H, net, block, l, m) -> None:
    """Write the block of layers l >= m into H and its transpose above the diagonal; the last index q is the bias."""
    B, dl, el, dm, em = block.shape
    rows, cols = _pieces(net, l, dl, el), _pieces(net, m, dm, em)
    for i, (r, q) in enumerate(rows):
        for j, (c, s) in enumerate(cols):
            piece = block[:, :, q, :, s].reshape(B, r.stop - r.start, c.stop - c.start)
            H[:, r, c] = piece
            if l > m:
                H[:, c, r] = piece.mT


def _pieces(net, l, d, e):
    """(slice of the flat vector, slice of the input axis) of the weights, and of the bias where there is one."""
    start, middle, end = net.slots[l - 1]
    weights = (slice(start, middle), slice(0, net.widths[l - 1]))
    return [weights, (slice(middle, end), slice(net.widths[l - 1], e))] if net.bias else [weights]


class Layerwise:
    """The functions above as a route of `Landscape`: `at` keeps the sweeps at theta, `hvp` and `hessian` use them."""

    def __init__(self, net: MLP):
        self.net, self.M = net, net.M

    def bytes_per_sample(self, work: str) -> int:
        """An upper estimate of what one sample of one parameter vector needs in `work`, in bytes."""
        units = sum(self.net.widths)
        if work == "jacobian":
            return 8 * 3 * self.net.widths[-1] * self.M
        if work == "hessian":
            widths = [w + 1 for w in self.net.widths]
            return 8 * 4 * sum(u * v for i, u in enumerate(widths) for v in widths[: i + 1])
        return 8 * units * {"value": 2, "gradient": 6, "hvp": 12}[work]

    def outputs(self, theta, x):
        return self.net(theta, x)

    def value(self, theta, x, y, loss, weight):
        return value(self.net, theta, x, y, loss, weight)

    def in_span(self, frame, x, y, loss, weight):
        """A function of c (G, 1 + P): the losses at theta = c frame, where the first layer is affine in c."""
        first = affine(x, *self.net.layers(frame)[0]).flatten(1)

        def value(c):
            a = self.net.activations[0].value((c @ first).view(len(c), x.shape[0], -1))
            for (W, b), sigma in list(zip(self.net.layers(c @ frame), self.net.activations, strict=True))[1:]:
                a = sigma.value(affine(a, W, b))
            return weight * loss.values(a, y).sum(-1)

        return value

    def value_and_gradient(self, theta, x, y, loss, weight):
        return value_and_gradient(self.net, theta, x, y, loss, weight)

    def jacobian(self, theta, x):
        return jacobian(self.net, theta, x)

    def at(self, theta, x, y, loss):
        return sweep(self.net, theta, x, y, loss)

    def hvp(self, point, v, x, y, loss, weight, part):
        return hvp(self.net, point, v, y, loss, weight, part)

    def hessian(self, point, x, y, loss, weight, part):
        return hessian(self.net, point, y, loss, weight, part)
