"""Paths through parameter space: polylines with their losses, barrier and length."""

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
from scipy.optimize import linear_sum_assignment
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
    return Path(landscape, torch.stack([landscape.point(a, "a"), landscape.point(b, "b")])).refined(points - 2)


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
    body = net.body
    features = body(theta[..., :body.M], landscape.x)  # (..., n, h)
    used = features[..., list(live)]
    if net.bias:
        used = torch.cat([used, torch.ones_like(features[..., :1])], -1)
    best = (torch.linalg.pinv(used) @ landscape.y).mT  # (..., k, len(live) + 1)
    W = features.new_zeros(*best.shape[:-1], h)
    W[..., list(live)] = best[..., :len(live)]
    parts = [theta[..., :body.M], W.flatten(-2)] + ([best[..., -1]] if net.bias else [])
    return torch.cat(parts, -1)


# ---- nets with one hidden layer


def half_network(landscape: Landscape, a, b, halves=None) -> Path:
    """A path from a (M,) to b (M,) through nets of which only some units work: one hidden layer, any activation.

    `halves` are the units of a and of b that are kept alive, at most h together; by default `strongest` chooses h // 2
    of each. The other units of a are switched off, aimed at b's half, and take over; then the rest is aimed at b, and
    switched on. Units of b's half whose own place is taken by a's half lodge elsewhere until it is free, so that the
    path ends at b itself, not at a copy in another order. Seven pieces: where outer weights move, the loss is convex
    (in the output, a linear function of them), where units are aimed their outer weights are zero. So the highest loss
    is that of one of the points: of an end, or of one of the two halves, refitted. (Lesson 2.5; the idea is Freeman and
    Bruna's.)

    Raises TypeError where `refit` does, and for more hidden layers; ValueError for halves that do not fit.

    >>> net = MLP([1, 2, 1], "relu", bias=False)
    >>> path = half_network(Landscape(net, [[1.0]], [2.0]), [1.0, -1.0, 2.0, 3.0], [-1.0, 2.0, 5.0, 1.0])
    >>> path.losses.tolist(), path.barrier
    ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 0.0)
    """
    net = _one_hidden(landscape)
    a, b, h = landscape.point(a, "a"), landscape.point(b, "b"), net.widths[1]
    ours, theirs = halves or (strongest(landscape, a, h // 2), strongest(landscape, b, h // 2))
    if not set(ours) | set(theirs) <= set(range(h)) or len(ours) + len(theirs) > h:
        raise ValueError(f"halves are {ours} and {theirs}; expected units from 0 to {h - 1}, at most {h} together")
    homeless = [j for j in theirs if j in set(ours)]
    free = [j for j in range(h) if j not in set(ours) | set(theirs)][:len(homeless)]
    place = {j: j for j in theirs} | dict(zip(homeless, free, strict=True))

    def aimed(theta, units):
        """theta with the incoming weights of b's units, given as {unit: place}."""
        (W, bias), outer = net.layers(theta.clone())
        (V, shift), _ = net.layers(b)
        W[list(units.values())] = V[list(units)]
        if net.bias:
            bias[list(units.values())] = shift[list(units)]
        return net.flatten([(W, bias), outer])

    def outer_of(theta, source, units):
        """theta with the outer weights of `source`, moved to the places {unit: place}; zero elsewhere."""
        inner, (v, shift) = net.layers(theta)[0], net.layers(source)[1]
        moved = torch.zeros_like(v)
        moved[:, list(units.values())] = v[:, list(units)]
        return net.flatten([inner, (moved, shift)])

    half_a, half_b = refit(landscape, a, ours), refit(landscape, b, theirs)
    points = [a, half_a, aimed(half_a, place)]
    points.append(outer_of(points[-1], half_b, place))
    points.append(aimed(points[-1], {j: j for j in range(h) if j not in place.values()}))
    points.append(outer_of(points[-1], half_b, {j: j for j in theirs}))
    points += [aimed(points[-1], {j: j for j in free}), b]
    return Path(landscape, torch.stack(points), HALVES)


HALVES = ("switch off half of A", "aim at half of B", "hand over", "aim at the rest of B", "go home", "aim at the rest",
          "switch on B")


def strongest(landscape: Landscape, theta, size: int) -> list[int]:
    """`size` hidden units of theta (M,) that fit the targets well together: greedy forward selection.

    Each time the unit is taken whose feature, made orthogonal to those taken before, takes most off the squared
    residual. One hidden layer, square loss, linear output.
    """
    net = _one_hidden(landscape)
    theta, body = landscape.point(theta), net.body
    if not 0 <= size <= net.widths[1]:
        raise ValueError(f"size is {size}; expected 0 to {net.widths[1]}")
    left, r = body(theta[:body.M], landscape.x), landscape.y  # (n, h), (n, k)
    if net.bias:
        left, r = left - left.mean(0), r - r.mean(0)
    length, chosen = left.norm(dim=0), []
    for _ in range(size):
        now = left.norm(dim=0)
        gain = torch.where(now > 1e-9 * length, (left.mT @ r).norm(dim=1) / now.clamp_min(1e-300), -1.0)
        gain[chosen] = -2.0
        j = int(gain.argmax())
        chosen.append(j)
        if gain[j] > 0:
            q = left[:, j] / now[j]
            left, r = left - torch.outer(q, q @ left), r - torch.outer(q, q @ r)
    return sorted(chosen)


def matched(network: MLP, a, b) -> Tensor:
    """b (M,) with its hidden units in the order that fits a (M,) best: the same function, one hidden layer.

    The permutation with the largest sum of inner products of the incoming (with bias) and outgoing weights, by
    `scipy.optimize.linear_sum_assignment`. Compare ReLU units after `balanced`.

    >>> net = MLP([1, 2, 1], "relu", bias=False)
    >>> matched(net, [1.0, -1.0, 2.0, 3.0], [-1.1, 1.2, 3.1, 2.2])
    tensor([ 1.2000, -1.1000,  2.2000,  3.1000], dtype=torch.float64)
    """
    if network.depth != 2:
        raise ValueError(f"network is {network!r}; expected one hidden layer")
    ((W, c), (V, _)), ((W2, c2), (V2, e2)) = (network.layers(backend.tensor(t, n)) for t, n in ((a, "a"), (b, "b")))
    score = W @ W2.mT + V.mT @ V2 + (torch.outer(c, c2) if network.bias else 0.0)
    order = linear_sum_assignment(score.cpu().numpy(), maximize=True)[1]
    return network.flatten([(W2[order], c2[order] if network.bias else None), (V2[:, order], e2)])


def balanced(network: MLP, theta) -> Tensor:
    """theta (M,), or (B, M), with every ReLU unit scaled so that its incoming weights (with bias) and its outgoing
    weights have one norm: the same function, since relu(c z) = c relu(z) for c > 0. One hidden layer.

    >>> balanced(MLP([1, 1, 1], "relu", bias=False), [8.0, 2.0])
    tensor([4., 4.], dtype=torch.float64)
    """
    if network.depth != 2 or network.activation.name != "relu":
        raise ValueError(f"network is {network!r}; expected one hidden layer of ReLUs")
    (W, c), (V, e) = network.layers(backend.tensor(theta, "theta"))
    into = (W.square().sum(-1) + (c.square() if network.bias else 0.0)).sqrt()
    out = V.norm(dim=-2)
    grow = torch.where((into > 0) & (out > 0), (out / into.clamp_min(1e-300)).sqrt(), 1.0)
    return network.flatten([(W * grow[..., None], c * grow if network.bias else None),
                            (V / grow[..., None, :], e)])


def _one_hidden(landscape):
    net = landscape.network if landscape.n else None
    if not isinstance(net, MLP) or net.depth != 2 or not isinstance(landscape.loss, Square):
        raise TypeError(f"landscape is {landscape!r}; expected an MLP with one hidden layer and a square loss")
    return net
