"""A path from anywhere to a global minimum of a deep linear net, along which the square loss never rises (lesson 2.3).

Three stages, all made of straight pieces. The narrowest hidden layer m, of width h, cuts the net in two: the map is A B
with A = W_K ... W_{m+1} (k, h) and B = W_m ... W_1 (h, d).

* rank   A, and all of B but W_1, get the largest rank they can have, and A B stays as it is: level
* fit    W_1 goes to its least-squares optimum, the other matrices stay: a convex quadratic
* turn   the column space of A turns to the h leading eigenvectors of `linear.explained`; W_K and W_1 move together

Source: Venturi, Bandeira and Bruna 2019 for the statement; the polygon of the third stage is ours.
"""

import torch
from torch import Tensor

from .landscape import Landscape
from .linear import Explained, chain, explained
from .paths import Path

TINY = 1e-12  # relative: singular values, differences of eigenvalues and gains below this count as zero
MOST = 1500  # chords: with so many the loss at the middle of a chord is within rounding of the loss at its ends


def descending(landscape: Landscape, theta, chords: int | None = None) -> Path:
    """A path from theta (M,) to a global minimum, on which the square loss of a deep linear net does not rise.

    Any depth, widths and data. The legs are called "rank", "fit" and "turn"; those that need not move are left out. A
    turn is a polygon inscribed in a geodesic of subspaces: with as many chords as `chords_needed` asks for, or with
    `chords` of them, which may be too few. Its numbers lose as many digits as the matrices of theta have condition.

    Raises TypeError for a landscape of another kind, ValueError for a theta of another shape or chords below 1.

    >>> from losslab import MLP
    >>> landscape = Landscape(MLP([2, 1, 2], "identity", bias=False), torch.eye(2), [[3.0, 0.0], [0.0, 2.0]], "sse")
    >>> saddle = torch.tensor([0.0, 2.0, 0.0, 1.0])  # it fits the second output, and the first is the larger one
    >>> path = descending(landscape, saddle)
    >>> path, float(path.losses[0]), round(float(path.losses[-1]), 12)
    (Path(4 points: turn), 9.0, 4.0)
    """
    net = chain(landscape)
    theta = landscape.point(theta)
    if chords is not None and (isinstance(chords, bool) or not isinstance(chords, int) or chords < 1):
        raise ValueError(f"chords is {chords!r}; expected an integer of at least 1")
    trail, known = _Trail(net, theta), explained(landscape)
    W, pinv = trail.W, torch.linalg.pinv
    onto = pinv(landscape.x) @ landscape.x  # projection on the columns of X: what the data see of W_1's rows
    if net.depth == 1:
        trail.go("fit", {0: W[0] + known.best - W[0] @ onto})
        return trail.path(landscape)
    M, N = _raise_ranks(trail)
    A = W[-1] @ M
    best = pinv(A) @ known.best
    trail.go("fit", {0: W[0] + pinv(N) @ (best - N @ W[0] @ onto)})
    if A.shape[1] < A.shape[0]:
        lefts, rights = _turn(A, known, chords)
        W_K, W_1 = W[-1] + (lefts - A) @ pinv(M), W[0] + pinv(N) @ (rights - best)
        for outer, inner in zip(W_K, W_1, strict=True):
            trail.go("turn", {-1: outer, 0: inner})
    return trail.path(landscape)


class _Trail:
    """The matrices W = [W_1, ..., W_K] as they are now, and the points passed."""

    def __init__(self, net, theta):
        self.net, self.points, self.names = net, [theta], []
        self.W = [W.clone() for W, _ in net.layers(theta)]

    def go(self, name, changed):
        """Move the matrices in `changed` {place: matrix} along a straight line. A move of rounding is not made."""
        W = list(self.W)
        for place, matrix in changed.items():
            W[place] = matrix
        there = self.net.flatten([(V, None) for V in W])
        if float((there - self.points[-1]).norm()) > 1e-13 * (1 + float(there.norm())):
            self.W[:] = W
            self.points.append(there)
            self.names.append(name)

    def path(self, landscape):
        if not self.names:
            return Path(landscape, torch.stack(self.points * 2), ["stay"])
        return Path(landscape, torch.stack(self.points), self.names)


def raised(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """(A', B') with A' of the largest rank for its shape and A' B' = A B, also on the two straight pieces that lead
    there: first B to B' = P_row(A) B, then A to A', which differs from A only on the complement of row(A).

    >>> A, B = torch.zeros(2, 2, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    >>> raised(A, B)[1].abs().max().item(), int(torch.linalg.matrix_rank(raised(A, B)[0]))
    (0.0, 2)
    """
    U, s, Vh = torch.linalg.svd(A)
    full, rank = len(s), int((s > TINY * s[0]).sum())
    if rank == full:
        return A, B
    size = s[:rank].mean() if rank else 1.0  # as large as what is there
    return A + size * U[:, rank:full] @ Vh[rank:full], Vh[:rank].mT @ (Vh[:rank] @ B)


def _raise_ranks(trail: _Trail) -> tuple[Tensor, Tensor]:
    """Full rank on both sides of the narrowest hidden layer m. Returns M = W_{K-1} ... W_{m+1}, N = W_m ... W_2.

    From the narrowest layer outwards: each partial product gets full rank, its outer neighbour gives way.
    """
    W, K, pinv = trail.W, trail.net.depth, torch.linalg.pinv
    hidden = trail.net.widths[1:-1]
    m = 1 + hidden.index(min(hidden))
    M = N = torch.eye(min(hidden)).to(W[0])
    for l in range(m, K - 1):  # W[l] is W_{l+1}
        new, outer = raised((W[l] @ M).mT, W[l + 1].mT)
        trail.go("rank", {l + 1: outer.mT})
        trail.go("rank", {l: W[l] + (new.mT - W[l] @ M) @ pinv(M)})
        M = new.mT
    for l in range(m - 1, 0, -1):
        new, outer = raised(N @ W[l], W[l - 1])
        trail.go("rank", {l - 1: outer})
        trail.go("rank", {l: W[l] + pinv(N) @ (new - N @ W[l])})
        N = new
    new, inner = raised(W[-1] @ M, N @ W[0])
    trail.go("rank", {0: W[0] + pinv(N) @ (inner - N @ W[0])})
    trail.go("rank", {-1: W[-1] + (new - W[-1] @ M) @ pinv(M)})
    return M, N


def leading(known: Explained, Q: Tensor) -> Tensor:
    """h leading eigenvectors (k, h); where lambda_h is a tie, those with a span nearest to the columns of Q (k, h)."""
    h, values, vectors = Q.shape[1], known.values, known.vectors
    tie = (values - values[h - 1]).abs() <= TINY * values[0]
    above = vectors[:, (values > values[h - 1]) & ~tie]
    level = vectors[:, tie]
    near = torch.linalg.svd(Q.mT @ level).Vh[: h - above.shape[1]]
    return torch.cat([above, level @ near.mT], 1)


def chords_needed(angle: Tensor, up: Tensor, low: Tensor) -> int:
    """So many equal chords that the loss falls along each of them: chord^2 <= (up - low) / up for every plane.

    In plane i a unit vector turns by `angle`, from a mixture of two directions with u^T S u = `up`, w^T S w = `low`.
    """
    gain = up - low
    turning = gain * angle.sin().square() > 0
    if not bool(turning.any()):
        return 0
    return min(MOST, int((angle[turning] * (up[turning] / gain[turning]).sqrt()).max().ceil().clamp_min(1)))


def _turn(A: Tensor, known: Explained, chords: int | None) -> tuple[Tensor, Tensor]:
    """A and its optimal partner A^+ Y X^+ at all corners of the turn but the first: (chords, k, h), (chords, h, d)."""
    Q, R = torch.linalg.qr(A)
    U = leading(known, Q)
    left, cos, right = torch.linalg.svd(Q.mT @ U)
    q, u = Q @ left, U @ right.mT  # principal vectors
    across = u - cos * q
    sin = across.norm(dim=0)
    angle, nu = torch.atan2(sin, cos), across / sin.clamp_min(1e-300)
    w = torch.nn.functional.normalize(q - cos * u, dim=0)
    up, low = ((known.values[:, None] * (known.vectors.mT @ v).square()).sum(0) for v in (u, w))
    angle = torch.where(sin.square() * (up - low) > TINY / 100 * known.values.sum(), angle, 0.0)
    count = chords_needed(angle, up, low)
    if count and chords:
        count = chords
    t = torch.arange(1, count + 1).to(Q)[:, None, None] / max(count, 1)
    p = q * (t * angle).cos() + nu * (t * angle).sin()  # (count, k, h)
    return p @ left.mT @ R, torch.linalg.solve(R, left @ p.mT @ known.best)
