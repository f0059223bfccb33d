"""One hidden layer as a linear model in lifted parameters: intrinsic dimension, and paths that never rise (lesson 2.4).

f(x) = sum_j v_j sigma(<w_j, x>) with v_j in R^k. The features phi_j = sigma(<w_j, x_i>) of all possible units span a
space of dimension q on the data, and f depends on the parameters only through the point sum_j phi_j v_j^T of it, in
which a convex loss is convex. All paths here are polylines. On each piece either the output weights move and nothing
else, and the loss is convex, or the input weights of idle units, whose output weights are zero, and it is constant.
"""

from dataclasses import dataclass
from math import comb

import torch
from scipy.linalg import qr
from torch import Tensor

from . import backend
from .critical import NoClearGap
from .landscape import Landscape
from .network import MLP, Activation
from .network import activation as as_activation
from .paths import Path, refit

ZERO = 1e-9  # relative: smaller singular values count as zero
CLEAR = 1e4  # a factor between the smallest singular value that counts and the largest that does not


@dataclass(frozen=True)
class Dimension:
    """An intrinsic dimension q with its evidence: the singular values (r,) of random features, the first one 1."""

    q: int
    singular_values: Tensor
    largest_zero: float
    smallest_nonzero: float


def polynomial(*coefficients: float) -> Activation:
    """The activation a_0 + a_1 z + a_2 z^2 + ..., with its exact derivatives.

    >>> cubic = polynomial(1, 0, 0, 2)
    >>> cubic.name, cubic.value(torch.tensor(2.0)).item()
    ('1 + 2z^3', 17.0)
    """
    if len(coefficients) < 2 or not any(coefficients):
        raise ValueError(f"coefficients is {coefficients}; expected a_0, a_1 and so on, not all zero")

    def derivative(a):
        return [i * c for i, c in enumerate(a)][1:] or [0.0]

    def value(z, a=coefficients):
        out = torch.zeros_like(z)
        for c in reversed(a):  # Horner
            out = out * z + c
        return out

    first, second = derivative(coefficients), derivative(derivative(coefficients))
    terms = [f"{'' if c == 1 and i else f'{c:g}'}{'' if i == 0 else 'z' if i == 1 else f'z^{i}'}"
             for i, c in enumerate(coefficients) if c]
    return Activation(" + ".join(terms).replace("+ -", "- "), value, lambda z, a: value(z, first),
                      lambda z, a, s: value(z, second))


def polynomial_dimension(coefficients, d: int) -> int:
    """q of a polynomial activation in d dimensions: the sum of binom(d + i - 1, i) over all i >= 0 with a_i != 0.

    <w, x>^i is linear in the monomials of degree i in x, of which there are so many. The constant is one of them.

    >>> polynomial_dimension([0, 0, 1], d=3), polynomial_dimension([1, 0, 0, 1], d=3)
    (6, 11)
    """
    return sum(comb(d + i - 1, i) for i, a in enumerate(coefficients) if a)


def intrinsic_dimension(activation, d: int | None = None, x=None, units: int = 400, points: int = 300,
                        seed: int = 0) -> Dimension:
    """The rank of the features of many Gaussian units on the inputs x (n, d), or on Gaussian points in R^d.

    The matrix [sigma(<w_j, x_i>)], each column scaled to length 1 (on Gaussian points first each row). On n given
    inputs the rank is at most n. Singular values above 1e-9 of the largest count; the others must be rounding, and
    10,000 times smaller. The rank must be the same with half of the units and of the Gaussian points: else more of them
    could show more.

    Raises NoClearGap where there is no such gap, as for tanh; ValueError where the rank still grows.

    >>> intrinsic_dimension("quadratic", d=4).q
    10
    >>> intrinsic_dimension("relu", x=[[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]]).q
    3
    """
    sigma = as_activation(activation)
    if (d is None) == (x is None):
        raise ValueError(f"d, x are {d!r}, {x!r}; expected one of them, the dimension or the inputs")
    source, given = backend.generator(seed, "units"), x is not None
    x = backend.tensor(x, "x") if given else backend.normal(points, d, seed=source)
    if x.dim() != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected (n, d)")
    phi = sigma.value(x @ backend.normal(x.shape[1], units, seed=source))
    phi = phi if given else torch.nn.functional.normalize(phi, dim=1)
    phi = torch.nn.functional.normalize(phi, dim=0)
    s, fewer = (torch.linalg.svdvals(part) for part in (phi, phi[: None if given else points // 2, : units // 2]))
    found = _count(s / s[0])
    if _count(fewer / fewer[0]).q < found.q:
        raise ValueError(f"units, points are {units}, {points}; expected more: the rank {found.q} still grows")
    return found


def _count(s: Tensor) -> Dimension:
    q = int((s > ZERO).sum())
    rounding = len(s) * torch.finfo(s.dtype).eps
    largest_zero, smallest = float(s[q]) if q < len(s) else 0.0, float(s[q - 1])
    if smallest < CLEAR * max(largest_zero, rounding) or largest_zero > 10 * rounding:
        raise NoClearGap(f"no clear gap: the singular values number {q} and {q + 1} are {smallest:.1e} and "
                         f"{largest_zero:.1e} of the largest; expected the second to be rounding, and the first at "
                         f"least {CLEAR:.0f} times as large")
    return Dimension(q, s, largest_zero, smallest)


def features(landscape: Landscape, theta) -> Tensor:
    """The outputs of the hidden units on the data: (n, h), or (B, n, h) for a batch of theta.

    >>> net = Landscape(MLP([1, 2, 1], "quadratic", bias=False), [[1.0], [2.0]], [0.0, 0.0])
    >>> features(net, [1.0, 3.0, 0.5, 0.5])
    tensor([[ 1.,  9.],
            [ 4., 36.]], dtype=torch.float64)
    """
    network = one_hidden(landscape)
    W = network.layers(backend.tensor(theta, "theta"))[0][0]
    return network.activation.value(landscape.x @ W.mT)


def one_hidden(landscape) -> MLP:
    """The network of the landscape; raises ValueError unless it has one hidden layer, no biases, a linear output."""
    net = landscape.network if landscape.n else None
    if not isinstance(net, MLP) or net.depth != 2 or net.bias or net.output_activation.name != "identity":
        raise ValueError(f"landscape is {landscape!r}; expected an MLP with one hidden layer, no bias, linear output")
    return net


class Walk:
    """A polyline in the making: W (h, d) and U (k, h) now, and the points so far."""

    def __init__(self, landscape, theta):
        self.landscape, self.network = landscape, one_hidden(landscape)
        theta = landscape.point(theta)
        (W, _), (U, _) = self.network.layers(theta.clone())
        self.W, self.U, self.points, self.names = W.clone(), U.clone(), [theta], []

    @property
    def phi(self):
        return self.network.activation.value(self.landscape.x @ self.W.T)

    def step(self, name, W=None, U=None):
        """A straight piece to new output weights, or to new input weights of idle units."""
        self.W, self.U = self.W if W is None else W, self.U if U is None else U
        self.points.append(self.network.flatten([(self.W, None), (self.U, None)]))
        self.names.append(name)

    def aim(self, slots, rows, name="re-aim idle units"):
        """New input weights for idle units."""
        assert not bool(self.U[:, slots].any()), "only idle units may be re-aimed"
        W = self.W.clone()
        W[slots] = rows
        self.step(name, W=W)

    def gather(self, units=None):
        """As few units as possible do all the work: (r,) slots with independent features. The outputs do not change.

        They are chosen among `units`, whose features must span those of all that work: by default, these.
        """
        units = self.U.any(0).nonzero()[:, 0] if units is None else units
        phi = self.phi
        slots = units[independent(phi[:, units])]
        U = torch.zeros_like(self.U)
        U[:, slots] = self.U @ torch.linalg.lstsq(phi[:, slots], phi).solution.T if len(slots) else 0.0
        self.step("gather", U=U)
        return slots.tolist()

    def raise_rank(self, q, source, tries=50):
        """The features get rank q, the intrinsic dimension on the data; the outputs do not change.

        While they are dependent, a null vector nu of Phi switches one unit off, U -> U - U_j nu^T / nu_j; it is then
        re-aimed, at the best of `tries` random places. Each turn raises the rank by one.
        """
        for _ in range(q + 1):
            phi = self.phi
            _, s, V = torch.linalg.svd(phi)
            rank = int((s > ZERO * s[0]).sum())
            if rank >= q:
                return
            nu = V[-1]
            j = int(nu.abs().argmax())
            if bool(self.U[:, j].any()):
                U = self.U - self.U[:, [j]] * nu / nu[j]
                U[:, j] = 0.0
                self.step("switch a unit off", U=U)
            rest = torch.cat([phi[:, :j], phi[:, j + 1 :]], 1)
            span = torch.linalg.svd(rest, full_matrices=False)
            span = span.U[:, span.S > ZERO * s[0]]
            rows = backend.normal(tries, self.W.shape[1], seed=source)
            made = self.network.activation.value(self.landscape.x @ rows.T)
            new = (made - span @ (span.T @ made)).norm(dim=0) / made.norm(dim=0).clamp_min(1e-300)
            self.aim([j], rows[new.argmax()])
        raise ValueError(f"theta has features of rank {rank} even after {q} new units; expected {q}: are units of very "
                         "different sizes, or more tries needed?")

    def shift(self, source, target, mirror=False):
        """The idle slot `target` takes over from `source`; with `mirror` as -w, the same for an even activation."""
        if mirror:
            self.aim([target], -self.W[[source]], name="mirror a unit")
        else:
            self.aim([target], self.W[[source]], name="copy a unit into an idle one")
        U = self.U.clone()
        U[:, target], U[:, source] = U[:, source], 0.0
        self.step("hand over", U=U)

    def rearrange(self, goal):
        """goal: {slot: the slot where its unit belongs}; all other slots are idle. One of them is the hole."""
        goal = dict(goal)
        while any(slot != end for slot, end in goal.items()):
            idle = [slot for slot in range(self.network.widths[1]) if slot not in goal]
            ready = [(slot, end) for slot, end in goal.items() if end in idle]
            slot, end = ready[0] if ready else (next(s for s, e in goal.items() if s != e), idle[0])
            self.shift(slot, end)
            goal[end] = goal.pop(slot)

    def path(self):
        return Path(self.landscape, torch.stack(self.points), tuple(self.names))


def independent(columns: Tensor) -> Tensor:
    """The numbers of independent columns that span all columns of a matrix (n, h): by a QR factorisation with pivots.

    >>> independent(torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.1]]))
    tensor([1, 2])
    """
    if columns.shape[1] == 0:
        return torch.zeros(0, dtype=torch.long)
    _, R, order = qr(columns.cpu().numpy(), mode="economic", pivoting=True)
    size = abs(R.diagonal())
    return torch.as_tensor(order[: int((size > ZERO * size[0]).sum())], dtype=torch.long)


def monotone(landscape: Landscape, theta, seed: int = 0, tries: int = 50) -> Path:
    """From theta (M,) to a global minimum, without a rise: needs width h >= q, the intrinsic dimension on the data.

    First the features get rank q, with constant outputs (`Walk.raise_rank`). Then the output weights go straight to the
    least squares optimum. (Proof of the theorem on width q in lesson 2.4.)

    Raises ValueError where h < q, or where the rank does not grow in floating point; TypeError for another loss.

    >>> net = Landscape(MLP([1, 1, 1], "quadratic", bias=False), [[1.0], [2.0]], [1.0, 4.0], loss="sse")
    >>> monotone(net, [0.0, 5.0]).names
    ('switch a unit off', 're-aim idle units', 'fit')
    """
    walk, q = Walk(landscape, theta), _dimension(landscape, seed)
    walk.raise_rank(q, backend.generator(seed, "rows"), tries)
    walk.step("fit", U=walk.network.layers(refit(landscape, walk.points[-1]))[1][0])
    return walk.path()


def _dimension(landscape, seed, spare=0):
    network = one_hidden(landscape)
    q, h = intrinsic_dimension(network.activation, x=landscape.x, seed=seed).q, network.widths[1]
    if h < q + spare:
        least = f"{q + 1}, the intrinsic dimension and one" if spare else f"the intrinsic dimension {q}"
        raise ValueError(f"landscape has width {h}; expected at least {least}")
    return q


def meet(landscape: Landscape, a, b) -> Path:
    """From a to b, never above the higher of the two: needs h >= the ranks of their features together, so h >= 2q does.

    Seven pieces: gather the work of a on few units; copy those that stand in the way of b's; aim idle units like b's;
    hand over on a straight line, the only piece on which the outputs change; the same backwards for b.

    Raises ValueError where the width is too small.
    """
    forth, back = Walk(landscape, a), Walk(landscape, b)
    h = forth.network.widths[1]
    mine, theirs = forth.gather(), back.gather()
    if len(mine) + len(theirs) > h:
        raise ValueError(f"landscape has width {h}; expected at least {len(mine)} + {len(theirs)}, the ranks of the "
                         "features in use at a and b")
    room = [slot for slot in range(h) if slot not in mine and slot not in theirs]
    clash = [slot for slot in mine if slot in theirs]
    if clash:
        there = room[: len(clash)]
        forth.aim(there, forth.W[clash], name="copy units into idle ones")
        U = forth.U.clone()
        U[:, there], U[:, clash] = U[:, clash], 0.0
        forth.step("make room", U=U)
        mine = [slot for slot in mine if slot not in clash] + there
    idle = [slot for slot in range(h) if slot not in mine]
    forth.aim(idle, back.W[idle])
    forth.step("hand over", U=back.U)
    forth.aim(mine, back.W[mine])
    return forth.path().then(back.path().reversed())


def exchange(landscape: Landscape, a, b, seed: int = 0) -> Path:
    """From a to b, never above the higher of the two: needs only h >= q + 1, one unit to spare.

    The features of both get rank q, and q units do all the work. Then from one basis of the feature space to the other:
    the idle unit takes the next unit of b's basis, which replaces one of a's (Steinitz), with constant outputs. Last,
    the output weights go straight to b's, the only piece on which the outputs change. For any loss convex in them.

    Raises ValueError where h < q + 1, or where the rank does not grow in floating point.
    """
    walk, goal = Walk(landscape, a), Walk(landscape, b)
    q, h = _dimension(landscape, seed, spare=1), walk.network.widths[1]
    for end, draw in ((walk, seed), (goal, seed + 1)):
        end.raise_rank(q, backend.generator(draw, "rows"))
    old, new = walk.gather(torch.arange(h)), goal.gather(torch.arange(h))
    wanted, place = list(new), {}  # place: {slot: the slot of `goal` whose unit it carries now}
    while wanted:
        live = [*old, *place]
        hole = next(slot for slot in range(h) if slot not in live)
        c = torch.linalg.lstsq(walk.phi[:, live], goal.phi[:, wanted]).solution  # the wanted units in the basis of now
        best = int(c[: len(old)].abs().argmax())
        row, column = divmod(best, len(wanted))
        walk.aim([hole], goal.W[[wanted[column]]])
        U = walk.U.clone()
        t = U[:, live[row]] / c[row, column]
        U[:, live] = U[:, live] - t[:, None] * c[:, column]
        U[:, hole], U[:, live[row]] = t, 0.0
        walk.step("exchange", U=U)
        place[hole] = wanted.pop(column)
        old.pop(row)
    walk.rearrange(place)
    idle = [slot for slot in range(h) if slot not in new]
    walk.aim(idle, goal.W[idle])
    walk.step("hand over", U=goal.U)
    return walk.path().then(goal.path().reversed())
