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
    """

    best: Tensor
    values: Tensor
    vectors: Tensor
    floor: float


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
