"""Paths through parameter space: polylines with their losses, barrier and length."""

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor

from . import backend
from .landscape import Landscape
from .losses import Square
from .network import MLP


@dataclass(frozen=True, eq=False)
class Path:
    """A polyline in a landscape: `points` (T, M), joined by T - 1 straight pieces; `names` has a name for each piece.

    Whoever gets one can cut it, join it and draw it without knowing what made it. What its loss does between the
    points is the business of `certify.path_below` and `certify.monotone_path`.

    Raises ValueError where points have another shape than (T, M) with T of at least 2, or names another length.

    >>> bowl = Landscape.of_function(lambda u: (u ** 2).sum(), M=2)
    >>> path = Path(bowl, [[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]], ["down", "up"])
    >>> path, path.losses.tolist(), path.barrier, path.length
    (Path(3 points: down, up), [4.0, 0.0, 1.0], 0.0, 3.0)
    """

    landscape: Landscape
    points: Tensor
    names: tuple[str, ...] = ()

    def __post_init__(self):
        points = backend.tensor(self.points, "points")
        if points.dim() != 2 or len(points) < 2 or points.shape[1] != self.landscape.M:
            raise ValueError(f"points has shape {tuple(points.shape)}; expected (T, {self.landscape.M}), T at least 2")
        names = tuple(self.names)
        if names and len(names) != len(points) - 1:
            raise ValueError(f"names has {len(names)} entries; expected one for each of the {len(points) - 1} pieces")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "names", names)

    def __repr__(self):
        legs = f": {', '.join(name for name, _, _ in self.legs)}" if self.names else ""
        return f"Path({len(self.points)} points{legs})"

    @cached_property
    def losses(self) -> Tensor:
        """The loss at each point, (T,)."""
        return self.landscape.value(self.points)

    @cached_property
    def barrier(self) -> float:
        """The highest loss at the points, minus the loss at the higher end: 0 where no point is above both ends."""
        return float(self.losses.max() - torch.maximum(self.losses[0], self.losses[-1]))

    @cached_property
    def length(self) -> float:
        """The Euclidean length, in units of theta. Divide by |end - start| for the normalised length."""
        return float(self._steps.sum())

    @cached_property
    def _steps(self) -> Tensor:
        return (self.points[1:] - self.points[:-1]).norm(dim=1)

    @property
    def legs(self) -> list[tuple[str, int, int]]:
        """[(name, first point, last point)]: neighbouring pieces of one name are one leg."""
        legs, start = [], 0
        for name, pieces in groupby(self.names):
            end = start + len(list(pieces))
            legs.append((name, start, end))
            start = end
        return legs

    def at(self, t) -> Tensor:
        """The points at the fractions t (B,) of the length, from 0 to 1: (B, M)."""
        t = backend.tensor(t, "t")
        if t.dim() != 1 or not bool(((0 <= t) & (t <= 1)).all()):
            raise ValueError(f"t has shape {tuple(t.shape)}; expected a list of numbers from 0 to 1")
        ends = torch.cat([self._steps.new_zeros(1), self._steps.cumsum(0)])
        way = t * ends[-1]
        piece = torch.searchsorted(ends, way, right=True).sub(1).clamp(0, len(self._steps) - 1)
        part = ((way - ends[piece]) / self._steps[piece].clamp_min(1e-300)).clamp(0, 1)
        return torch.lerp(self.points[piece], self.points[piece + 1], part[:, None])

    def then(self, other: "Path") -> "Path":
        """This path and after it `other`, which begins where this one ends. Raises ValueError where it does not."""
        gap = float((self.points[-1] - other.points[0]).norm())
        if gap > 1e-12 * (1 + float(self.points[-1].norm())):
            raise ValueError(f"other begins {gap:.3g} away from the end of this path; expected the same point")
        names = self._all_names() + other._all_names() if self.names or other.names else ()
        return Path(self.landscape, torch.cat([self.points, other.points[1:]]), names)

    def _all_names(self):
        return self.names or ("",) * (len(self.points) - 1)

    def reversed(self) -> "Path":
        """The same way back."""
        return Path(self.landscape, self.points.flip(0), self.names[::-1])

    def refined(self, between: int) -> "Path":
        """The same polyline with `between` more points on every piece."""
        if isinstance(between, bool) or not isinstance(between, int) or between < 0:
            raise ValueError(f"between is {between!r}; expected an integer of at least 0")
        t = torch.arange(between + 1, dtype=self.points.dtype, device=self.points.device) / (between + 1)
        inner = torch.lerp(self.points[:-1, None], self.points[1:, None], t[:, None])
        names = tuple(name for name in self.names for _ in range(between + 1))
        return Path(self.landscape, torch.cat([inner.flatten(0, 1), self.points[-1:]]), names)


def polyline(landscape: Landscape, points, names=()) -> Path:
    """The path along the straight pieces between `points` (T, M)."""
    return Path(landscape, points, names)


def straight(landscape: Landscape, a, b, points: int = 2) -> Path:
    """The straight line from a (M,) to b (M,), with so many points on it, its ends among them.

    >>> double_well = Landscape.of_function(lambda u: ((u ** 2 - 1) ** 2).sum(), M=1)
    >>> straight(double_well, [-1.0], [1.0], points=3).barrier
    1.0
    """
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise ValueError(f"points is {points!r}; expected an integer of at least 2")
    a, b = backend.tensor(a, "a"), backend.tensor(b, "b")
    for name, end in (("a", a), ("b", b)):
        if end.shape != (landscape.M,):
            raise ValueError(f"{name} has shape {tuple(end.shape)}; expected ({landscape.M},)")
    return Path(landscape, torch.stack([a, b])).refined(points - 2)


def refit(landscape: Landscape, theta, live=None) -> Tensor:
    """theta with the last layer at its least-squares optimum, the other layers unchanged: (M,), or (B, M).

    The loss is convex in the last layer, so this is the lowest point that it can reach alone. With `live`, a list of
    hidden units, only these are used: the other units of the last hidden layer get outgoing weights 0. Where several
    optima exist, the one of least norm. Raises TypeError unless the loss is a square loss of an MLP whose output is
    linear, ValueError for units that do not exist.

    >>> net = MLP([1, 2, 1], bias=False)
    >>> landscape = Landscape(net, [[1.0], [2.0]], [1.0, 3.0])
    >>> float(landscape.value(refit(landscape, [1.0, 2.0, 0.0, 0.0]))) < 1e-24
    True
    """
    net = landscape.network if landscape.n else None
    if not isinstance(net, MLP) or not isinstance(landscape.loss, Square) or net.output_activation.name != "identity":
        raise TypeError(f"landscape is {landscape!r}; expected an MLP with linear output and a square loss")
    if net.depth < 2:
        raise TypeError(f"landscape is {landscape!r}; expected a network with a hidden layer")
    theta, h = backend.tensor(theta, "theta"), net.widths[-2]
    live = range(h) if live is None else list(live)
    if any(not 0 <= j < h for j in live):
        raise ValueError(f"live is {list(live)}; expected units from 0 to {h - 1}")
    body = MLP(net.widths[:-1], net.activation, net.bias, net.activation)
    features = body(theta[..., :body.M], landscape.x)  # (..., n, h)
    used = features[..., list(live)]
    if net.bias:
        used = torch.cat([used, torch.ones_like(features[..., :1])], -1)
    best = (torch.linalg.pinv(used) @ landscape.y).mT  # (..., k, len(live) + 1)
    W = features.new_zeros(*best.shape[:-1], h)
    W[..., list(live)] = best[..., :len(live)]
    parts = [theta[..., :body.M], W.flatten(-2)] + ([best[..., -1]] if net.bias else [])
    return torch.cat(parts, -1)
