"""Deep linear nets whose hidden layers are wider than min(d, k): any two points, joined by a path below the higher one.

The path of lesson 2.2, a polyline on which one matrix moves at a time. `exchange` is the step that it is made of.
"""

from functools import reduce

import torch
from torch import Tensor

from . import backend
from .landscape import Landscape
from .linear import RANK
from .network import MLP
from .paths import Path
from .pieces import is_linear


def exchange(V, W, i: int, r) -> tuple[Tensor, Tensor]:
    """V (k, p) and W (p, q) with row i of V exchanged for r (p,), and the product V W as it was: the new (V, W).

    First W moves along q, the part of r that V does not see, V q = 0: no change of V W. It ends where r W is row i of
    V W. Then row i of V moves to r, and this row of the product is the same at both ends. Raises ValueError where r
    lies in the row space of V: there is no such q.

    >>> V, W = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0], [0.0]])
    >>> exchange(V, W, 0, torch.tensor([0.0, 1.0]))
    (tensor([[0., 1.]], dtype=torch.float64), tensor([[3.],
            [3.]], dtype=torch.float64))
    """
    V, W, r = (backend.tensor(value, name) for value, name in ((V, "V"), (W, "W"), (r, "r")))
    if V.dim() != 2 or W.dim() != 2 or r.dim() != 1 or not V.shape[1] == W.shape[0] == len(r):
        raise ValueError(f"V, W, r have shapes {tuple(V.shape)}, {tuple(W.shape)}, {tuple(r.shape)}; expected (k, p), "
                         "(p, q), (p,)")
    if not 0 <= i < len(V):
        raise ValueError(f"i is {i}; expected a row of V, from 0 to {len(V) - 1}")
    _, s, rows = torch.linalg.svd(V, full_matrices=False)
    rows = rows[s > 1e-14 * s[0]]  # only rounding counts as zero: V q has to be zero
    q = r - rows.mT @ (rows @ r)
    if not q.norm() > RANK * r.norm():
        raise ValueError("r lies in the row space of V; expected a row with a part that V does not see")
    W = W + torch.outer(q, V[i] @ W - r @ W) / (q @ r)
    V = V.clone()
    V[i] = r
    return V, W


def connect(landscape: Landscape, a, b) -> Path:
    """A path from a (M,) to b (M,) on which the loss is nowhere above the larger of its two ends, for any depth.

    For hidden widths above min(d, k) and every loss that is convex in the output. One matrix moves at a time, along a
    straight line. On all pieces but one the product W_K ... W_1 stays as it is: rows of the last matrices are
    exchanged until both ends have the same ones. On the piece named "segment" the product moves straight. The data are
    never looked at. Where k > d the transposed chain is used. Source: Freeman and Bruna 2017, for the
    statement.

    Raises TypeError unless the landscape is that of an MLP without biases and with identity activations, ValueError
    for a hidden width of min(d, k) or less.

    >>> net = MLP([1, 2, 1], "identity", bias=False)
    >>> connect(Landscape(net, [[1.0]], [[1.0]], "sse"), [1.0, 0.0, 1.0, 0.0], [-1.0, 0.0, -1.0, 0.0]).barrier
    0.0
    """
    net = linear_net(landscape)
    k = min(net.widths[0], net.widths[-1])
    if min(net.widths[1:-1], default=k + 1) <= k:
        raise ValueError(f"landscape has widths {net.widths}; expected hidden widths above min(d, k) = {k}")
    there, back = ways = [_Way(net, landscape.point(theta, name)) for theta, name in ((a, "a"), (b, "b"))]
    tops, lift = [way.W[-1] for way in ways], None
    for l in range(net.depth - 1, 0, -1):
        products = [V @ way.W[l - 1] for V, way in zip(tops, ways, strict=True)]
        for i in range(k):
            r = _new_row(*tops)
            for j, way in enumerate(ways):
                tops[j], lower = exchange(tops[j], way.W[l - 1], i, r)
                way.move(l - 1, lower, f"exchange {way.rows} of W{way.number(l)}")
                way.move(l, tops[j] if lift is None else lift @ tops[j], way.names[-1])
        lift = torch.linalg.pinv(tops[0])  # both tops are the same now
        for way, C in zip(ways, products, strict=True):
            way.move(l - 1, lift @ C, f"shorten W{way.number(l - 1)}")
        tops = products
    points, names = there.points + back.points[::-1], there.names + ["segment"] + back.names[::-1]
    return Path(landscape, *without_stops(torch.stack(points), names))


def factors(network: MLP, C, seed: int) -> Tensor:
    """A random theta (M,) of a linear net with the product C (k, d): Gaussian factors, the outermost one solved for.

    For hidden widths of at least min(d, k). Solved for is W_1, or W_K where k > d. Raises ValueError for a narrower
    net, and for a C of another shape.

    >>> from losslab.linear import product
    >>> net = MLP([2, 3, 4, 2], "identity", bias=False)
    >>> (product(net, factors(net, [[1.0, 2.0], [3.0, 4.0]], seed=0)) * 1000).round() / 1000
    tensor([[1., 2.],
            [3., 4.]], dtype=torch.float64)
    """
    C, (d, *hidden, k) = backend.tensor(C, "C"), network.widths
    if C.shape != (k, d):
        raise ValueError(f"C has shape {tuple(C.shape)}; expected ({k}, {d}) for {network!r}")
    if min(hidden, default=d + k) < min(d, k):
        raise ValueError(f"network has widths {network.widths}; expected hidden widths of at least {min(d, k)}")
    theta = network.init(seed)
    W = [W for W, _ in network.layers(theta)]  # views of theta
    others = reduce(lambda C, W: W @ C, W[:-1] if k > d else W[1:], torch.eye(d if k > d else W[0].shape[0]).to(C))
    if k > d:
        W[-1][:] = C @ torch.linalg.pinv(others)
    else:
        W[0][:] = torch.linalg.pinv(others) @ C
    return theta


def linear_net(landscape: Landscape) -> MLP:
    """The net of a landscape with any loss, if it is linear: no biases, all activations the identity; or TypeError."""
    if not is_linear(landscape):
        raise TypeError(f"landscape is {landscape!r}; expected one of MLP(widths, 'identity', bias=False)")
    return landscape.network


def without_stops(points: Tensor, names) -> tuple[Tensor, list[str]]:
    """The polyline `points` (T, M) with the names of its T - 1 pieces, less the pieces of length 0."""
    keep = (points[1:] != points[:-1]).any(1)
    if not bool(keep.any()):  # a path has two points, even where they are equal
        keep[-1] = True
    return torch.cat([points[:1], points[1:][keep]]), [name for name, kept in zip(names, keep, strict=True) if kept]


def _new_row(V, other) -> Tensor:
    """A unit vector (p,) at least 45 degrees from the row spaces of V and of other, (k, p) with k < p."""
    unseen, unseen_too = (torch.linalg.svd(v).Vh[len(v):] for v in (V, other))
    left, _, right = torch.linalg.svd(unseen @ unseen_too.mT)  # the pair at the smallest angle: at most 90 degrees
    r = torch.nn.functional.normalize(left[:, 0] @ unseen + right[0] @ unseen_too, dim=0)
    return r * r[r.abs().argmax()].sign()  # the other sign would do as well: the same one on every machine


class _Way:
    """A point on its way: `W`, its matrices from the input on, or transposed from the output on where k > d; `points`
    and `names`, where it has been and the name of each move."""

    def __init__(self, net, theta):
        self.net, self.turned = net, net.widths[-1] > net.widths[0]
        self.rows = "columns" if self.turned else "rows"
        self.W = self._turn([W for W, _ in net.layers(theta)])
        self.points, self.names = [theta], []

    def _turn(self, matrices):
        return [W.mT for W in matrices[::-1]] if self.turned else list(matrices)

    def number(self, l):
        """The number of matrix l in the network, from 1."""
        return self.net.depth - l if self.turned else l + 1

    def move(self, l, W, name):
        """Let matrix l move straight to W."""
        self.W[l] = W
        self.points.append(self.net.flatten([(W, None) for W in self._turn(self.W)]))
        self.names.append(name)
