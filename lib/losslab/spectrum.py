"""Eigenvalues of a Hessian: all of them, or the largest by the Lanczos method."""

from dataclasses import dataclass

import torch
from torch import Tensor

from . import backend
from .landscape import Landscape


def eigenvalues(landscape: Landscape, theta) -> Tensor:
    """All eigenvalues of H in rising order: (M,), or (B, M) for a batch of theta.

    >>> saddle = Landscape.of_function(lambda t: t[0] ** 2 - t[1] ** 2, M=2)
    >>> eigenvalues(saddle, [0.0, 0.0])
    tensor([-2.,  2.], dtype=torch.float64)
    """
    return torch.linalg.eigvalsh(landscape.hessian(theta))


@dataclass(frozen=True)
class Top:
    """The largest eigenvalues (k,), falling, with their eigenvectors (k, M).

    `error` (k,) bounds the distance to an eigenvalue (see `top_eigenvalues`). `products` counts the products H v.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor
    error: Tensor
    products: int


def top_eigenvalues(landscape: Landscape, theta, k: int = 10, tol: float = 1e-5, seed: int = 0,
                    max_products: int = 400) -> Top:
    """The k algebraically largest eigenvalues of H at theta (M,), without H, by Lanczos with full reorthogonalisation.

    Stops when every error bound is at most tol * lambda_k, and those of the next two at most 1e-3 lambda_k. With the
    residual rho = |H v - lambda v| an eigenvalue lies within rho, and within rho^2 / gap (Kato and Temple), the gap to
    the other eigenvalues read off the Lanczos matrix.
    One starting vector finds one eigenvector of a multiple eigenvalue: at exact symmetries use `eigenvalues`. No bound
    excludes that an eigenvalue was passed over; the next two guard against it (without them one call in 170 did so).
    Source: Golub and Van Loan, Matrix Computations, chapter 10.

    Raises ValueError for k outside 1..M, RuntimeError when max_products are not enough.
    """
    if not 1 <= k <= landscape.M:
        raise ValueError(f"k is {k}; expected 1 to M = {landscape.M}")
    operator = landscape.operator(theta)
    limit, asked = min(max_products, landscape.M), min(k + 2, landscape.M)
    wanted = torch.tensor([max(tol, 1e-3)] * (asked - k) + [tol] * k, dtype=torch.float64)
    basis = torch.empty(limit + 1, landscape.M, dtype=torch.float64)
    diagonal, beside = [], []
    start = backend.normal(landscape.M, seed=backend.generator(seed, "Lanczos"))
    basis[0] = torch.nn.functional.normalize(start.cpu(), dim=0)
    for j in range(limit):
        w = torch.from_numpy(operator.matvec(basis[j].numpy()))
        diagonal.append(float(basis[j] @ w))
        for _ in range(2):  # twice is enough: Kahan and Parlett
            w -= basis[: j + 1].T @ (basis[: j + 1] @ w)
        beside.append(float(w.norm()))
        finished = j + 1 == limit or beside[-1] <= 1e-14 * max(map(abs, diagonal))
        if not finished:
            basis[j + 1] = w / beside[-1]
        if finished or (j + 1 >= asked and (j + 1 - asked) % 2 == 0):
            values, S = torch.linalg.eigh(torch.diag(torch.tensor(diagonal, dtype=torch.float64))
                                          + torch.diag(torch.tensor(beside[:-1], dtype=torch.float64), 1)
                                          + torch.diag(torch.tensor(beside[:-1], dtype=torch.float64), -1))
            error = _bound(values, beside[-1] * S[-1].abs())[-asked:]
            settled = len(values) >= k and bool((error <= wanted[-len(error):] * values[-k].abs()).all())
            if finished or settled:
                break
    if not settled and j + 1 < landscape.M:
        raise RuntimeError(f"Lanczos made {j + 1} products and has the first {k} eigenvalues to "
                           f"{float(error.max()):.1e}; expected {tol:g} times the last; raise max_products or tol")
    vectors = S[:, -k:].T @ basis[: j + 1]
    place = {"device": backend.device()}
    return Top(values[-k:].flip(0).to(**place), vectors.flip(0).to(**place), error[-k:].flip(0).to(**place), j + 1)


def _bound(values: Tensor, residual: Tensor) -> Tensor:
    """min(rho, rho^2 / gap) for sorted values; the gap is shortened by the neighbours' own residuals."""
    between = (values[1:] - values[:-1]) - torch.maximum(residual[1:], residual[:-1])
    wall = torch.full_like(values[:1], float("inf"))
    gap = torch.minimum(torch.cat([wall, between]), torch.cat([between, wall])).clamp_min(0)
    return torch.minimum(residual, residual.square() / gap)
