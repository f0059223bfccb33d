"""Deep linear nets: what is known in closed form, and paths built by hand.

The net is W_K ... W_1 x without biases, the loss the square loss, any width, any depth. In the formulas samples are
columns: X (d, n), Y (k, n); `landscape.x` and `landscape.y` hold them as rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from . import backend
from .landscape import Landscape
from .network import MLP
from .pieces import deep_linear

RANK = 1e-9  # relative to the largest singular value: those below count as zero


def chain(landscape: Landscape) -> MLP:
    """The net of a deep linear landscape. Raises TypeError for any other landscape."""
    if not deep_linear(landscape):
        raise TypeError(f"landscape is {landscape!r}; expected MLP(widths, 'identity', bias=False) with a square loss")
    return landscape.network


def product(network: MLP, theta) -> Tensor:
    """The linear map W_K ... W_1 that the net computes: (k, d), or (B, k, d).

    >>> product(MLP([2, 1, 2], "identity", bias=False), [1.0, 2.0, 3.0, 4.0])
    tensor([[3., 6.],
            [4., 8.]], dtype=torch.float64)
    """
    (C, _), *others = network.layers(backend.tensor(theta, "theta"))
    for W, _ in others:
        C = W @ C
    return C


@dataclass(frozen=True)
class Explained:
    """What a linear map can explain of the targets.

    best      Y X^+ (k, d), the least-squares map of least norm
    values    lambda_1 >= ... >= lambda_k >= 0, the eigenvalues of S = (Y X^+ X)(Y X^+ X)^T, times the loss's factor
    vectors   (k, k), their orthonormal eigenvectors as columns
    floor     the loss of `best`: no linear map has a lower one
    rank      q, the rank of S: how many lambda are positive
    """

    best: Tensor
    values: Tensor
    vectors: Tensor
    floor: float

    @property
    def rank(self) -> int:
        return int((self.values > RANK**2 * self.values[0]).sum())  # they are squares of singular values


def explained(landscape: Landscape) -> Explained:
    """`Explained` of a deep linear landscape. Source: Baldi and Hornik 1989.

    >>> net = MLP([2, 1, 2], "identity", bias=False)
    >>> explained(Landscape(net, [[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 2.0]], "sse")).values
    tensor([9., 4.], dtype=torch.float64)
    """
    chain(landscape)
    x, y = landscape.x, landscape.y
    best = (torch.linalg.pinv(x) @ y).mT
    fitted = x @ best.mT
    vectors, s, _ = torch.linalg.svd(torch.linalg.qr(fitted, mode="r")[1].mT)
    factor = landscape.weight * landscape.loss.scale(landscape.k)
    values = torch.cat([s.square(), s.new_zeros(landscape.k - len(s))])
    return Explained(best, factor * values, vectors, float(factor * (y - fitted).square().sum()))


def lowest(landscape: Landscape) -> float:
    """The global minimum of a deep linear net's square loss, in closed form, for any depth, widths and data.

    With p the smallest width, floor + lambda_{p+1} + ... + lambda_k: the best map of rank at most p (Eckart and Young).

    >>> net = MLP([2, 1, 2], "identity", bias=False)
    >>> lowest(Landscape(net, [[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 2.0]], "sse"))
    4.0
    """
    e = explained(landscape)
    return e.floor + float(e.values[min(landscape.network.widths):].sum())


# ---- lesson 2.1: critical points and symmetry

def critical_point(landscape: Landscape, chosen, through: int | None = None) -> Tensor:
    """The critical point (M,) that fits the modes `chosen` of the targets and no other.

    Mode i, counted from 1, is the eigenvector u_i of `explained`, with lambda_i > 0. The chosen u_i are the first
    columns of W_K, the rows u_i^T Y X^+ the first rows of W_1; they are 0 elsewhere. Each matrix between them is the
    identity on its first `through` units and 0 elsewhere: at least the number of modes (the default), at most the
    smallest hidden width. With one hidden layer there is none between. Source: lesson 2.1; Baldi and Hornik 1989.

    Raises ValueError for modes that are not there or do not fit through the smallest hidden layer, TypeError for a net
    without hidden layers.

    >>> net = MLP([2, 1, 2], "identity", bias=False)
    >>> landscape = Landscape(net, [[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 2.0]], "sse")
    >>> theta = critical_point(landscape, [2])
    >>> float(landscape.value(theta)), float(landscape.gradient(theta).norm())
    (9.0, 0.0)
    """
    e, rows, through = _modes(landscape, chosen, through)
    theta = landscape.x.new_zeros(landscape.M)
    (first, _), *between, (last, _) = landscape.network.layers(theta)  # views of theta
    U, r = e.vectors[:, rows], len(rows)
    first[:r], last[:, :r] = U.mT @ e.best, U
    for W, _ in between:
        W.diagonal()[:through] = 1.0
    return theta


def critical_value(landscape: Landscape, chosen) -> float:
    """The loss at `critical_point`, by formula: the floor plus the lambda of all modes that are not chosen."""
    e, rows, _ = _modes(landscape, chosen, None)
    return e.floor + float(e.values.sum() - e.values[rows].sum())


def critical_inertia(landscape: Landscape, chosen, through: int | None = None) -> tuple[int, int, int]:
    """(n_-, n_0, n_+) of the Hessian at `critical_point`, by formula, for any depth, widths and data.

    I is the set of r chosen modes, J that of the others with lambda > 0, m = h for one hidden layer, else `through`:

        n_- = #{(i, j) in I x J: lambda_j > lambda_i} + (m - r) #J
        n_+ = r (rank X + k - r) - #{(i, j) in I x J: lambda_j >= lambda_i} + (m - r) #J

    Two lambda that differ by less than 1e-9 of the largest count as equal. Source: lesson 2.1.

    >>> net = MLP([2, 1, 2], "identity", bias=False)
    >>> landscape = Landscape(net, [[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 2.0]], "sse")
    >>> critical_inertia(landscape, [1]), critical_inertia(landscape, [2]), critical_inertia(landscape, [])
    ((0, 1, 3), (1, 1, 2), (2, 0, 2))
    """
    e, rows, m = _modes(landscape, chosen, through)
    widths, r = landscape.network.widths, len(rows)
    m = widths[1] if len(widths) == 3 else m
    left = [j for j in range(e.rank) if j not in rows]
    gap = e.values[left][None] - e.values[rows][:, None]  # lambda_j - lambda_i
    same = RANK * float(e.values[0])
    unused = (m - r) * len(left)
    negative = int((gap > same).sum()) + unused
    rank = int(torch.linalg.matrix_rank(landscape.x))
    positive = r * (rank + widths[-1] - r) - int((gap > -same).sum()) + unused
    return negative, landscape.M - negative - positive, positive


def grow(landscape: Landscape, chosen, new: int) -> Tensor:
    """The direction (M,) from `critical_point(chosen)`, through its first unused units, in which the mode `new` grows.

    At the point plus t times it the loss is that of the point minus lambda_new (2 t^K - t^(2K)): it falls from t = 0 to
    t = 1, where the next critical point lies, that of `chosen` and `new` up to symmetry. Source: lesson 2.1.

    >>> net = MLP([1, 1, 1, 1], "identity", bias=False)
    >>> cubic = Landscape(net, [[1.0]], [[8.0]], "sse")
    >>> grow(cubic, [], 1)
    tensor([2., 2., 2.], dtype=torch.float64)
    """
    _, rows, _ = _modes(landscape, chosen, None)
    e, more, _ = _modes(landscape, [*chosen, new], None)
    u, r = e.vectors[:, more[-1]], len(rows)
    row = u @ e.best
    s = float((landscape.x @ row).norm())  # the singular value of this mode
    size = s ** (1 / landscape.network.depth)
    theta = landscape.x.new_zeros(landscape.M)
    (first, _), *between, (last, _) = landscape.network.layers(theta)  # views of theta
    first[r], last[:, r] = size * row / s, size * u
    for W, _ in between:
        W[r, r] = size
    return theta


def _modes(landscape, chosen, through):
    """Explained, the chosen modes counted from 0 in the order given, and `through`; all checked."""
    widths = chain(landscape).widths
    if len(widths) < 3:
        raise TypeError(f"landscape is {landscape!r}; expected a network with a hidden layer")
    e, rows, p = explained(landscape), [int(i) - 1 for i in chosen], min(widths[1:-1])
    if len(set(rows)) < len(rows) or any(not 0 <= i < e.rank for i in rows) or len(rows) > p:
        raise ValueError(f"chosen is {list(chosen)}; expected at most {p} different modes from 1 to {e.rank}")
    if through is not None and (len(widths) == 3 or not len(rows) <= through <= p):
        raise ValueError(f"through is {through}; expected from {len(rows)} to {p}, and at least two hidden layers")
    return e, rows, len(rows) if through is None else through


def move(landscape: Landscape, theta, maps) -> Tensor:
    """theta (M,) or (B, M) moved along its orbit: W_l -> T_l W_l T_(l-1)^-1, T_0 and T_K the identity.

    `maps` holds T_1, ..., T_(K-1), one invertible matrix (d_l, d_l), or a batch (B, d_l, d_l), for every hidden layer.
    The product W_K ... W_1 stays the same, and with it every output. Raises ValueError for matrices of other shapes,
    torch.linalg.LinAlgError for a singular one. Source: lesson 2.1.

    >>> net = MLP([1, 1, 1], "identity", bias=False)
    >>> move(Landscape(net, [[1.0]], [[1.0]]), [3.0, 1.0], [[[2.0]]])
    tensor([6.0000, 0.5000], dtype=torch.float64)
    """
    net, theta = chain(landscape), backend.tensor(theta, "theta")
    maps = [backend.tensor(T, "maps") for T in maps]
    hidden = [(width, width) for width in net.widths[1:-1]]
    if [tuple(T.shape[-2:]) for T in maps] != hidden:
        raise ValueError(f"maps has the shapes {[tuple(T.shape) for T in maps]}; expected {hidden}")
    weights = [W for W, _ in net.layers(theta)]
    for number, T in enumerate(maps):
        weights[number] = T @ weights[number]
        weights[number + 1] = weights[number + 1] @ torch.linalg.inv(T)
    shape = torch.broadcast_shapes(*(W.shape[:-2] for W in weights))
    return net.flatten([(W.expand(*shape, -1, -1), None) for W in weights])


def orbit_directions(landscape: Landscape, theta) -> Tensor:
    """The directions in which `move` sets off from theta (M,): (P, M), or (B, P, M), P the sum of d_l^2, l hidden.

    For every hidden layer l and every entry of a matrix A, W_l moves by A W_l and W_(l+1) by -W_(l+1) A. The directions
    span the tangent space of the orbit; they can depend on each other where weights have low rank.

    >>> net = MLP([1, 1, 1], "identity", bias=False)
    >>> orbit_directions(Landscape(net, [[1.0]], [[1.0]]), [3.0, 1.0])
    tensor([[ 3., -1.]], dtype=torch.float64)
    """
    net, theta = chain(landscape), backend.tensor(theta, "theta")
    weights = [W.unsqueeze(-3) for W, _ in net.layers(theta)]
    blocks = []
    for number, d in enumerate(net.widths[1:-1]):
        A = torch.eye(d * d, dtype=theta.dtype, device=theta.device).view(d * d, d, d)
        still = [torch.zeros_like(W).expand(*W.shape[:-3], d * d, -1, -1) for W in weights]
        still[number] = A @ weights[number]
        still[number + 1] = -weights[number + 1] @ A
        blocks.append(net.flatten([(W, None) for W in still]))
    return torch.cat(blocks, -2)
