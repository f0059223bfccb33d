"""Weight decay: a deep linear net's loss plus weight * |theta|^2, and for one hidden layer a path below its ends.

The path of lesson 2.2. It never looks at the data or at the weight, only at the product C = W_2 W_1 and at the norms.
The least |W_1|^2 + |W_2|^2 for a product C is 2 |C|_* (nuclear norm), taken where W_1 W_1^T = W_2^T W_2: the factors
are balanced there, and the loss is a convex function of C. Where k > d the transposed matrices are used.
"""

import torch
from torch import Tensor

from .connecting import linear_net, without_stops
from .landscape import Landscape
from .linear import RANK
from .network import MLP
from .paths import Path


def decayed(landscape: Landscape, weight: float) -> Landscape:
    """The landscape of L(theta) + weight * |theta|^2, for an MLP on data. Raises TypeError for another landscape.

    >>> net = MLP([1, 1, 1], "identity", bias=False)
    >>> float(decayed(Landscape(net, [[1.0]], [[1.0]], "sse"), 0.5).value([1.0, 2.0]))
    3.5
    """
    if not landscape.n or not isinstance(landscape.network, MLP):
        raise TypeError(f"landscape is {landscape!r}; expected an MLP on data")
    if not 0 <= weight < float("inf"):
        raise ValueError(f"weight is {weight}; expected a number of at least 0")
    net, x, y, loss = landscape.network, landscape.x, landscape.y, landscape.loss
    return Landscape.of_function(lambda theta: landscape.weight * loss.values(net(theta, x), y).sum()
                                 + weight * theta.square().sum(), landscape.M)


def connect(landscape: Landscape, a, b, weight: float, steps: int = 24) -> Path:
    """A path from a (M,) to b (M,) in `decayed(landscape, weight)`, nowhere above the larger of its two ends.

    For one hidden layer of width h > min(d, k), and every loss that is convex in the output. The legs: "strip" from
    each factor what the other does not see; "balance" them; move their product on a straight "segment"; "rotate" the
    hidden units; balance and strip backwards. A curve, with `steps` points on each leg that is curved: the points lie
    on it, the straight pieces between them do not. Source: Freeman and Bruna 2017 for the statement.

    Raises TypeError and ValueError like `connecting.connect`, and ValueError for other than one hidden layer.

    >>> net = MLP([1, 2, 1], "identity", bias=False)
    >>> connect(Landscape(net, [[1.0]], [[1.0]], "sse"), [1.0, 0.0, 1.0, 0.0], [-1.0, 0.0, -1.0, 0.0], 0.1)
    Path(26 points: rotate)
    """
    net = linear_net(landscape)
    d, k = net.widths[0], net.widths[-1]
    if net.depth != 2 or net.widths[1] <= min(d, k):
        raise ValueError(f"landscape has widths {net.widths}; expected one hidden width, above min(d, k) = {min(d, k)}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps is {steps!r}; expected an integer of at least 1")
    a, b = landscape.point(a, "a"), landscape.point(b, "b")
    turned = k > d

    def flat(W, V):
        return net.flatten([(V.mT, None), (W.mT, None)] if turned else [(W, None), (V, None)])

    ways = []
    for theta in (a, b):
        W, V = ([V.mT for V, _ in net.layers(theta)[::-1]] if turned else [W for W, _ in net.layers(theta)])
        ways.append(_to_balance(W, V, steps))
    (there, C, Q), (back, D, P) = ways
    middle = [("segment", *_balanced(torch.lerp(C, D, t), Q)) for t in torch.linspace(0, 1, steps + 1).tolist()[1:]]
    for i in range(min(d, k)):
        for R in _turns(Q, P[:, i], i, steps):
            middle.append(("rotate", *_balanced(D, R)))
        Q = R
    stops = [("", a)] + [(name, flat(W, V)) for name, W, V in there + middle]
    backwards = [("", b)] + [(name, flat(W, V)) for name, W, V in back]
    names = [name for name, _ in stops[1:]] + ["rotate"] + [name for name, _ in backwards[:0:-1]]
    points = [theta for _, theta in stops] + [theta for _, theta in backwards[::-1]]
    return Path(decayed(landscape, weight), *without_stops(torch.stack(points), names))


def _balanced(C, Q) -> tuple[Tensor, Tensor]:
    """W_1, W_2 with W_2 W_1 = C and W_1 W_1^T = W_2^T W_2, for Q (h, k) with orthonormal columns; continuous in C:
    W_2 = (C C^T)^(1/4) Q^T, and W_1 = Q (C C^T)^(-1/4) C, with C's singular values replaced by their roots."""
    U, s, Vh = torch.linalg.svd(C, full_matrices=False)
    root = U * s.sqrt()
    return Q @ root @ Vh, root @ U.mT @ Q.mT


def _to_balance(W, V, steps):
    """The stops (name, W, V) from the factors W (h, d), V (k, h) to balanced ones, then C and Q of `_balanced`."""
    stops = []
    W = _seen(V) @ W
    stops.append(("strip", W, V))
    V = V @ _seen(W.mT)
    stops.append(("strip", W, V))
    C = V @ W
    U, s, Vh = torch.linalg.svd(C, full_matrices=False)
    r = int((s > RANK * s[0]).sum())
    root = s[:r].sqrt()
    # Now V = U_r root T and W = T^+ root V_r for some T (r, h), which becomes orthogonal: stretch -> stretch^0.
    left, stretch, right = torch.linalg.svd((U[:, :r] / root).mT @ V, full_matrices=True)
    for t in torch.linspace(0, 1, steps + 1).tolist():
        T, inverse = left * stretch ** (1 - t) @ right[:r], right[:r].mT * stretch ** (t - 1) @ left.mT
        stops.append(("balance", inverse @ (root[:, None] * Vh[:r]), U[:, :r] * root @ T))
    Z = torch.cat([left @ right[:r], right[r:len(C)]])  # (k, h), orthonormal rows
    return stops, C, Z.mT @ U.mT


def _seen(V):
    """The orthogonal projection on the row space of V."""
    _, s, rows = torch.linalg.svd(V, full_matrices=False)
    rows = rows[s > RANK * s[0]]
    return rows.mT @ rows


def _turns(Q, target, i, steps):
    """Q (h, k), turned in one plane until its column i is `target`; columns orthogonal to both stay: so many stops."""
    q = Q[:, i]
    normal = target - (q @ target) * q
    if normal.norm() < 1e-6:  # there already, or half a turn away: then any direction orthogonal to all columns will do
        normal = torch.linalg.svd(Q.mT).Vh[-1]
    normal = normal / normal.norm()
    angle = torch.atan2(normal @ target, q @ target)
    plane, quarter = torch.outer(q, q) + torch.outer(normal, normal), torch.outer(normal, q) - torch.outer(q, normal)
    for t in torch.linspace(0, 1, steps + 1).tolist()[1:]:
        yield Q + (torch.cos(t * angle) - 1) * plane @ Q + torch.sin(t * angle) * quarter @ Q
