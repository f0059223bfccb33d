"""Quadratic networks with one output: paths through the symmetric matrices that they stand for (lesson 2.4).

f(x) = sum_j v_j <w_j, x>^2 = x^T S x with S = sum_j v_j w_j w_j^T: the loss depends on the parameters through the
symmetric matrix S alone. Here parameters are moved so that S stays where it is, or goes along a straight line. Most of
these moves are curved, so the paths are polygons with their points on the curves, close together.
"""

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .landscape import Landscape
from .lifting import ZERO, Walk, one_hidden
from .losses import Square
from .paths import Path

STEP = 0.1  # no straight piece of a curve is longer than this times (1 + |theta|)
HALVINGS = 40  # where two eigenvalues nearly meet, their vectors turn quickly


def matrix(landscape: Landscape, theta) -> Tensor:
    """S = sum_j v_j w_j w_j^T: (d, d), or (B, d, d) for a batch of theta.

    >>> from losslab import MLP
    >>> one = Landscape(MLP([2, 1, 1], "quadratic", bias=False), [[1.0, 0.0]], [0.0])
    >>> matrix(one, torch.tensor([1.0, 2.0, -1.0]))
    tensor([[-1., -2.],
            [-2., -4.]])
    """
    (W, _), (U, _) = _network(landscape).layers(torch.as_tensor(theta))
    return W.mT @ (U.mT * W)


def _network(landscape):
    network = one_hidden(landscape)
    if network.activation.name not in ("quadratic", "z^2") or network.widths[2] != 1:
        raise ValueError(f"landscape has {network!r}; expected the quadratic activation and one output")
    return network


def best_matrix(landscape: Landscape) -> Tensor:
    """The symmetric matrix S (d, d) of least square loss on the data, of least norm: a linear least squares problem.

    Any S of rank r needs r units, so with h >= d units this is the global minimum.
    """
    _network(landscape)
    if not isinstance(landscape.loss, Square):
        raise ValueError(f"landscape has the loss {landscape.loss!r}; expected a square loss")
    x, d = landscape.x, landscape.x.shape[1]
    squares = (x[:, :, None] * x[:, None, :]).flatten(1)
    S = (torch.linalg.pinv(squares) @ landscape.y).view(d, d)
    return (S + S.mT) / 2


@dataclass(frozen=True)
class Frame:
    """Eigenvalues (d,) and orthonormal eigenvectors, the columns (d, d), of a symmetric matrix.

    `groups` holds the numbers of those that nothing tells apart: any other orthonormal basis of a group would do.
    """

    values: Tensor
    vectors: Tensor
    groups: list[list[int]]

    @property
    def live(self) -> list[int]:
        """The numbers of the eigenvalues that are not zero."""
        return [i for i, value in enumerate(self.values.tolist()) if value]

    def near(self, vectors: Tensor) -> "Frame":
        """The same matrix, with its eigenvectors in the order and as near as possible to the columns of `vectors`."""
        seen = torch.empty_like(vectors)  # (i, j): how much of vector i lies in the group of eigenvector j
        for group in self.groups:
            seen[:, group] = (vectors.T @ self.vectors[:, group]).square().sum(1, keepdim=True)
        order = torch.as_tensor(linear_sum_assignment(-seen.cpu().numpy())[1], device=vectors.device)
        out, groups = torch.empty_like(vectors), []
        for group in self.groups:
            mine = torch.isin(order, torch.tensor(group, device=order.device)).nonzero()[:, 0]
            U, _, V = torch.linalg.svd(self.vectors[:, group].T @ vectors[:, mine])
            out[:, mine] = self.vectors[:, group] @ (U @ V)
            groups.append(mine.tolist())
        return Frame(self.values[order], out, groups)


def frame(S: Tensor, change: Tensor | None = None) -> Frame:
    """The eigenvalues and eigenvectors of S (d, d); in a multiple eigenvalue those that continue along S + t * change.

    By perturbation theory these are the ones that diagonalise `change` there. Eigenvalues within 1e-9 of the largest
    count as equal, and as zero if they are equal to zero.
    """
    values, V = torch.linalg.eigh(S)
    values, groups = _grouped(values)
    if change is None:
        return Frame(values, V, groups)
    finer = []
    for group in groups:
        block = V[:, group]
        rates, turn = torch.linalg.eigh(block.T @ change @ block)
        V[:, group] = block @ turn
        alike = _grouped(rates, float(change.abs().max()))[1]
        finer += [[group[i] for i in part] for part in alike]
    return Frame(values, V, finer)


def _grouped(values, size=None):
    """Sorted values, the tiny ones set to 0, and the runs of equal ones."""
    tol = ZERO * (float(values.abs().max()) if size is None else size)
    cuts = [0, *((values[1:] - values[:-1] > tol).nonzero()[:, 0] + 1).tolist(), len(values)]
    groups = [list(range(i, j)) for i, j in zip(cuts, cuts[1:], strict=False)]
    return torch.where(values.abs() <= tol, 0.0, values), groups


class _Bend(Walk):
    """A walk that may also follow curves. Nothing here changes S, but for `along`."""

    def bend(self, name, curve):
        """Follow curve(t) -> (W (T, h, d), u (T, h)) from t = 0 to 1, t halved until no step is long."""
        t = torch.linspace(0, 1, 5, dtype=self.W.dtype, device=self.W.device)
        for _ in range(HALVINGS):
            W, u = curve(t)
            points = torch.cat([W.flatten(1), u], 1)
            long = (points[1:] - points[:-1]).norm(dim=1) > STEP * (1 + points[:-1].norm(dim=1))
            if not bool(long.any()):
                break
            t = torch.cat([t, ((t[1:] + t[:-1]) / 2)[long]]).sort().values
        self.W, self.U = W[-1].clone(), u[-1:].clone()
        self.points += list(points[1:])
        self.names += [name] * (len(points) - 1)

    def pair(self, name, i, j, angle, boost=False):
        """Turn units i and j of one sign, or boost two of opposite signs: v_i w_i w_i^T + v_j w_j w_j^T is constant."""
        cos, sin, sign = (torch.cosh, torch.sinh, 1) if boost else (torch.cos, torch.sin, -1)

        def curve(t):
            c, s = cos(t * angle)[:, None], sin(t * angle)[:, None]
            W = self.W.repeat(len(t), 1, 1)
            W[:, i], W[:, j] = c * self.W[i] + s * self.W[j], sign * s * self.W[i] + c * self.W[j]
            return W, self.U.expand(len(t), -1)

        if abs(float(angle)) > 0:
            self.bend(name, curve)

    def signs(self):
        """Outer weights 1 or -1, and w_j = 0 where the outer weight was 0."""
        off = (self.U[0] == 0).nonzero()[:, 0].tolist()
        if off:
            self.aim(off, 0 * self.W[off])
            U = self.U.clone()
            U[:, off] = 1.0
            self.step("wake idle units", U=U)
        size, sign = self.U[0].abs(), self.U[0].sign()

        def curve(t):
            return self.W * size[:, None] ** (t[:, None, None] / 2), sign * size ** (1 - t[:, None])

        if bool((size != 1).any()):
            self.bend("rescale", curve)

    def free(self):
        """While the units that are not 0 depend on each other, make one of them 0."""
        while True:
            on = (self.W.norm(dim=1) > ZERO * max(1.0, float(self.W.norm()))).nonzero()[:, 0].tolist()
            if not on:
                return on
            _, s, V = torch.linalg.svd(self.W[on].T)
            if len(s) == len(on) and float(s[-1]) > ZERO * float(s[0]):
                return on
            nu = dict(zip(on, V[-1].tolist(), strict=True))  # sum_j nu_j w_j = 0
            ends = []
            for group in ([j for j in on if self.U[0, j] > 0], [j for j in on if self.U[0, j] < 0]):
                for j in group[1:]:  # turn until one unit of each sign carries all of nu
                    a, b = torch.tensor([nu[group[0]], nu[j]], dtype=self.W.dtype)
                    self.pair("turn", group[0], j, torch.atan2(b, a))
                    nu[group[0]], nu[j] = float(torch.hypot(a, b)), 0.0
                ends += group[:1]
            ends = [j for j in ends if abs(nu[j]) > ZERO]
            small = min(ends, key=lambda j: float(self.W[j].norm()))
            if len(ends) == 2:  # two parallel units of opposite signs: the longer one takes over
                large = ends[ends[0] == small]
                U = self.U.clone()
                U[0, large] += U[0, small] * (nu[large] / nu[small]) ** 2
                U[0, small] = 0.0
                self.step("merge parallel units", U=U)
            else:
                W = self.W.clone()
                W[small] = 0.0  # it is 0 but for rounding
                self.W = W
            self.signs()

    def spectral(self, goal: Frame):
        """To v_i = eigenvalues, w_i = eigenvectors of S. Returns {number of the eigenvalue: its slot}."""
        self.signs()
        on = self.free()
        slots = {}
        for i in goal.live:
            sign = torch.sign(goal.values[i])
            slots[i] = next(j for j in on if self.U[0, j] == sign and j not in slots.values())
        Q = goal.vectors[:, goal.live] / goal.values[goal.live].abs().sqrt()
        order = list(slots.values())
        for number, slot in enumerate(order):  # Q^T w_j is to be the unit vector of j's own number, up to sign
            rest = order[number + 1 :]
            alike = [j for j in rest if self.U[0, j] == self.U[0, slot]]
            other = [j for j in rest if self.U[0, j] != self.U[0, slot]]
            for first, group in ((slot, alike), (other[0] if other else slot, other[1:])):
                for j in group:
                    row = self.W @ Q[:, number]
                    self.pair("turn", first, j, torch.atan2(row[j], row[first]))
            if other:
                row = self.W @ Q[:, number]
                self.pair("boost", slot, other[0], -torch.atanh(row[other[0]] / row[slot]), boost=True)
        size = torch.ones_like(self.U[0])
        size[order] = goal.values[goal.live].abs()
        sign = self.U[0].sign()
        if order:
            self.bend("rescale", lambda t: (self.W * size[:, None] ** (-t[:, None, None] / 2),
                                            sign * size ** t[:, None]))
        idle = [j for j in range(len(self.W)) if j not in order]
        U = self.U.clone()
        U[0, idle] = 0.0
        self.step("silence", U=U)
        dark = [i for i in range(len(goal.values)) if i not in slots]
        slots |= dict(zip(dark, idle, strict=False))
        self.aim([slots[i] for i in dark], goal.vectors[:, dark].T)
        return slots

    def along(self, slots, start: Frame, end: Frame):
        """S goes straight from `start` to `end`, units as eigenvectors. Returns the frame reached, and its slots."""
        first, last = (f.vectors @ torch.diag(f.values) @ f.vectors.T for f in (start, end))
        rows = [slots[i] for i in range(len(start.values))]
        reached = []

        def curve(t):
            W, u = self.W.repeat(len(t), 1, 1), self.U.new_zeros(len(t), len(self.W))
            now = Frame(start.values, self.W[rows].T, start.groups)
            for k, part in enumerate(t.tolist()):  # each eigenvector goes on as the nearest one of the next matrix
                if k:
                    now = (end if k == len(t) - 1 else frame(torch.lerp(first, last, part))).near(now.vectors)
                W[k, rows], u[k, rows] = now.vectors.T, now.values
            reached[:] = [now]
            return W, u

        self.bend("straight in S", curve)
        return reached[0], rows


def descend(landscape: Landscape, theta) -> Path:
    """From theta (M,) to a global minimum of the square loss, without a rise: needs only h >= d units.

    First the units become the eigenvectors of S, with S constant; then S goes straight to `best_matrix`.
    """
    walk = _start(landscape, theta, spare=0)
    S, best = matrix(landscape, walk.points[0]), best_matrix(landscape)
    start, end = frame(S, best - S), frame(best, best - S)
    walk.along(walk.spectral(start), start, end)
    return walk.path()


def connect(landscape: Landscape, a, b) -> Path:
    """From a to b, never above the higher of the two, for any loss that is convex in the output: needs h >= d + 1.

    From both to eigenvectors, with S constant; straight in S between them; the spare unit puts the units into order.
    """
    forth, back = _start(landscape, a, spare=1), _start(landscape, b, spare=1)
    A, B = matrix(landscape, forth.points[0]), matrix(landscape, back.points[0])
    start = frame(A, B - A)
    end, there = forth.along(forth.spectral(start), start, frame(B, B - A))
    goal = back.spectral(end)
    forth.rearrange({there[i]: goal[i] for i in end.live})
    live = [goal[i] for i in end.live]
    for slot in live:  # sigma is even: a unit may change its sign, through the spare one
        if float(forth.W[slot] @ back.W[slot]) < 0:
            hole = next(j for j in range(len(forth.W)) if j not in live)
            forth.shift(slot, hole, mirror=True)
            forth.shift(hole, slot)
    idle = [j for j in range(len(forth.W)) if j not in live]
    forth.aim(idle, back.W[idle])
    forth.step("settle", W=back.W, U=back.U)  # only rounding moves
    return forth.path().then(back.path().reversed())


def _start(landscape, theta, spare) -> _Bend:
    d, h, _ = _network(landscape).widths
    if h < d + spare:
        raise ValueError(f"landscape has width {h}; expected at least {d + spare}")
    return _Bend(landscape, theta)
