"""One- and two-dimensional cuts through a landscape."""

import torch
from torch import Tensor

from . import backend
from .landscape import Landscape


def line(landscape: Landscape, origin, direction, t) -> Tensor:
    """L(origin + t * direction) for every t: shape (len(t),). For the line from a to b take b - a as the direction.

    >>> bowl = Landscape.of_function(lambda u: (u ** 2).sum(), M=2)
    >>> line(bowl, [0.0, 0.0], [1.0, 0.0], [0.0, 0.5, 1.0])
    tensor([0.0000, 0.2500, 1.0000], dtype=torch.float64)
    """
    t = _axis(t, "t")
    return landscape.value_in_span(origin, backend.tensor(direction, "direction")[None], t[:, None])


def plane(landscape: Landscape, origin, u, v, s, t) -> Tensor:
    """L(origin + s_i u + t_j v), shape (len(s), len(t)): row i belongs to s_i, column j to t_j.

    >>> saddle = Landscape.of_function(lambda w: w[0] ** 2 - w[1] ** 2, M=2)
    >>> plane(saddle, [0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 1.0, 3.0])
    tensor([[ 0., -1., -9.],
            [ 4.,  3., -5.]], dtype=torch.float64)
    """
    s, t = _axis(s, "s"), _axis(t, "t")
    directions = torch.stack([backend.tensor(u, "u"), backend.tensor(v, "v")])
    return landscape.value_in_span(origin, directions, torch.cartesian_prod(s, t)).view(s.numel(), t.numel())


def _axis(values, name: str) -> Tensor:
    values = backend.tensor(values, name)
    if values.dim() != 1 or values.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(values.shape)}; expected a list of numbers")
    return values
