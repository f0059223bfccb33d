"""Critical points: inertia with the gap that separates "zero" from the rest, and manufactured critical points."""

from dataclasses import dataclass

import torch
from torch import Tensor

from . import backend
from .landscape import Landscape
from .network import MLP

CLEAR = 100.0  # a gap is clear when it spans at least this factor


class NoClearGap(ValueError):
    """The eigenvalues do not separate into "zero" and "not zero": no inertia is given rather than a wrong one."""


@dataclass(frozen=True)
class Inertia:
    """Numbers of negative, zero and positive eigenvalues, with the evidence for the word "zero".

    `largest_zero` is the largest |eigenvalue| that counts as zero (0 where there is none), `smallest_nonzero` the
    smallest that does not (infinity where there is none). `eigenvalues` are sorted, shape (M,).
    """

    negative: int
    zero: int
    positive: int
    tolerance: float
    largest_zero: float
    smallest_nonzero: float
    eigenvalues: Tensor

    @property
    def counts(self) -> tuple[int, int, int]:
        """(n_-, n_0, n_+)."""
        return self.negative, self.zero, self.positive

    @property
    def index(self) -> int:
        """n_-, the number of negative eigenvalues."""
        return self.negative

    def __str__(self):
        return f"({self.negative}, {self.zero}, {self.positive})"


def inertia(hessian, tol: float | None = None) -> Inertia | list[Inertia]:
    """The inertia of a symmetric matrix (M, M), of a batch (B, M, M) as a list, or of given eigenvalues (M,).

    An eigenvalue counts as zero when |eigenvalue| <= tol, by default 1e-9 * max(1, largest |eigenvalue|): three orders
    above what a point with |gradient| <= 1e-12 and a loss of order 1 leaves as rounding. The gap between the largest
    "zero" (or rounding, M * 2.2e-16 * largest, if that is more) and the smallest "non-zero" must span a factor 100.

    Raises NoClearGap (a ValueError) where it does not, ValueError for a matrix that is not square or not symmetric.

    >>> print(inertia([[2.0, 0.0], [0.0, -1.0]]), inertia(torch.zeros(3)))
    (1, 0, 1) (0, 3, 0)
    >>> inertia([1.0, 2e-9, 5e-10])
    Traceback (most recent call last):
        ...
    losslab.critical.NoClearGap: no clear gap at zero: the largest "zero" is 5.0e-10, the smallest "non-zero" 2.0e-09, \
a factor 4; expected at least 100
    """
    hessian = backend.tensor(hessian, "hessian")
    if hessian.dim() == 1:
        return _count(hessian.sort().values, tol)
    if hessian.dim() not in (2, 3) or hessian.shape[-1] != hessian.shape[-2]:
        raise ValueError(f"hessian has shape {tuple(hessian.shape)}; expected (M, M), (B, M, M) or eigenvalues (M,)")
    asymmetry = float((hessian - hessian.mT).abs().max())
    if asymmetry > 1e-10 * max(1.0, float(hessian.abs().max())):
        raise ValueError(f"hessian is not symmetric: entries differ from their mirror image by up to {asymmetry:.1e}")
    eigenvalues = torch.linalg.eigvalsh(hessian)
    return _count(eigenvalues, tol) if hessian.dim() == 2 else [_count(e, tol) for e in eigenvalues]


def _count(eigenvalues: Tensor, tol: float | None) -> Inertia:
    size = eigenvalues.abs()
    largest = float(size.max())
    if tol is None:
        tol = 1e-9 * max(1.0, largest)
    is_zero = size <= tol
    largest_zero = float(size[is_zero].max()) if bool(is_zero.any()) else 0.0
    smallest = float(size[~is_zero].min()) if not bool(is_zero.all()) else float("inf")
    floor = max(largest_zero, eigenvalues.numel() * torch.finfo(eigenvalues.dtype).eps * largest)
    if smallest < CLEAR * floor:
        raise NoClearGap(f'no clear gap at zero: the largest "zero" is {floor:.1e}, the smallest "non-zero" '
                         f"{smallest:.1e}, a factor {smallest / floor:.2g}; expected at least {CLEAR:.0f}")
    zero = int(is_zero.sum())
    negative = int((eigenvalues < -tol).sum())
    return Inertia(negative, zero, eigenvalues.numel() - negative - zero, tol, largest_zero, smallest, eigenvalues)


@dataclass(frozen=True)
class Manufactured:
    """A critical point made to measure: `theta` (M,) is critical for `landscape`; `r` (n, k) is its residual f - y."""

    landscape: Landscape
    theta: Tensor
    r: Tensor
    rank: int

    @property
    def full_rank(self) -> bool:
        """Whether the Jacobian has full column rank: then a small residual gives a strict local minimum."""
        return self.rank == self.landscape.M


def manufacture(network: MLP, x, size: float, seed: int = 0, theta=None, spread: float = 1.2) -> Manufactured:
    """Targets that make `theta` a critical point of the mean square loss, with loss size^2.

    Let J be the (n k, M) Jacobian of the stacked outputs at theta. For every r with J^T r = 0 the targets y = f - r
    make the gradient (2/n) J^T r vanish. Here r is a random element of that kernel with |r|^2 / n = size^2, and theta,
    where it is not given, is `spread` times Gaussian. Source: lesson 1.2, manufactured critical points.

    Raises ValueError when size is not positive, or when J has rank n k, so that only r = 0 is left.

    >>> point = manufacture(MLP([2, 3, 1]), backend.normal(20, 2, seed=1), size=0.1)
    >>> round(float(point.landscape.value(point.theta)), 12)
    0.01
    >>> bool(point.landscape.gradient(point.theta).norm() < 1e-14)
    True
    """
    if not size > 0:
        raise ValueError(f"size is {size}; expected a positive number")
    draw = backend.generator(seed, "critical point")
    x = backend.tensor(x, "x")
    theta = backend.normal(network.M, seed=draw, scale=spread) if theta is None else backend.tensor(theta, "theta")
    plain = Landscape(network, x, torch.zeros(x.shape[0], network.widths[-1]))
    f, J = plain.outputs(theta), plain.jacobian(theta)
    U, s, _ = torch.linalg.svd(J, full_matrices=False)
    rank = int((s > max(J.shape) * torch.finfo(s.dtype).eps * s[0]).sum())
    if rank == J.shape[0]:
        raise ValueError(f"the Jacobian has rank {rank} = n k, so only r = 0 solves J^T r = 0; expected "
                         f"more samples x outputs than {rank}")
    r, U = backend.normal(J.shape[0], seed=draw), U[:, :rank]
    for _ in range(2):  # once more removes what rounding left of the first projection
        r = r - U @ (U.T @ r)
    r = (size * plain.n**0.5 / r.norm()) * r
    r = r.view(plain.n, plain.k)
    return Manufactured(Landscape(network, x, f - r), theta, r, rank)
