"""Certificates: a claim about a landscape, recomputed in float64 from its witness alone.

A witness is a point, a set of points, a path (T, M) or a box. Every function here answers with a `Certificate`; none
trusts the code that found the witness. `how` says what the check is worth: "exact" where a finite computation decides
the claim, "computed" where it rests on float64 numbers with the stated tolerance, "sampled" where only some points of
infinitely many were looked at: evidence, not proof.
"""

import html
from dataclasses import dataclass, field

import numpy as np
import torch

from . import backend, levelsets, pieces
from .critical import NoClearGap
from .critical import inertia as count_inertia
from .landscape import Landscape
from .network import MLP
from .paths import Path

ROUNDING = 1e-12  # relative: differences of losses below this are not told apart


@dataclass(frozen=True)
class Certificate:
    """A checked claim. `str()` is the same on every machine; in a notebook the measured numbers are shown too.

    >>> bowl = Landscape.of_function(lambda t: (t ** 2).sum(), M=2)
    >>> print(critical_point(bowl, [0.0, 0.0]))
    holds: |gradient| <= 1e-12 [computed in float64]
    >>> bool(critical_point(bowl, [1.0, 0.0]))
    False
    """

    claim: str
    holds: bool
    how: str
    measured: dict[str, object] = field(default_factory=dict)

    def __bool__(self):
        return bool(self.holds)

    def __str__(self):
        return f"{'holds' if self.holds else 'FAILS'}: {self.claim} [{self.how}]"

    def __repr__(self):
        return f"{self} ({self.numbers})" if self.measured else str(self)

    @property
    def numbers(self) -> str:
        """The measured numbers in words."""
        return ", ".join(f"{name} = {_number(value)}" for name, value in self.measured.items())

    def _repr_html_(self):
        mark, word = ("✓", "holds") if self.holds else ("✗", "FAILS")
        return (f'<div class="losslab-certificate losslab-{word.lower()}" style="border-left:4px solid currentColor;'
                f'padding:.2em .8em;margin:.4em 0"><strong>{mark} {word}</strong> {html.escape(self.claim)} '
                f'<em>[{html.escape(self.how)}]</em> <code>{html.escape(self.numbers)}</code></div>')


def _number(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def critical_point(landscape: Landscape, theta, tol: float = 1e-12) -> Certificate:
    """|gradient| <= tol at theta (M,), or at every one of a batch (B, M).

    1e-12 is about 10^4 roundings of a loss of order 1: what a polished point reaches. It shows that the gradient is
    small there, as it is in a saturated tail too; that a critical point is near needs a non-degenerate Hessian as well.
    """
    norm = landscape.gradient(theta).norm(dim=-1)
    largest = float(norm.max())
    return Certificate(f"|gradient| <= {tol:g}" + _everywhere(norm), largest <= tol, "computed in float64",
                       {"|gradient|": largest})


def _everywhere(values) -> str:
    return f" at all {values.numel()} points" if values.dim() else ""


def inertia(landscape: Landscape, theta, expected: tuple[int, int, int], tol: float | None = None) -> Certificate:
    """The Hessian at theta (M,) has `expected` = (n_-, n_0, n_+), with a clear gap at zero (`critical.inertia`).

    The certificate fails, and says so, where there is no clear gap.
    """
    expected = tuple(int(e) for e in expected)
    if len(expected) != 3 or sum(expected) != landscape.M or min(expected) < 0:
        raise ValueError(f"expected is {expected}; expected three counts that add up to M = {landscape.M}")
    claim = f"the Hessian has inertia {expected}"
    try:
        found = count_inertia(_one(landscape.hessian(theta)), tol)
    except NoClearGap as refusal:
        return Certificate(claim, False, "computed in float64", {"refused": str(refusal)})
    return Certificate(claim, found.counts == expected, "computed in float64",
                       {"inertia": found.counts, "largest zero": found.largest_zero,
                        "smallest non-zero": found.smallest_nonzero})


def _one(values, axes=2):
    """What a landscape answered at theta, if theta was one vector: then it has so many axes, for a batch one more."""
    if values.dim() != axes:
        raise ValueError(f"theta is a batch of {values.shape[0]}; expected one vector (M,)")
    return values


def _steepest(landscape, points) -> float:
    """The largest |gradient| / (1 + |theta|) at the points (P, M): weights of size 10 round ten times more coarsely."""
    return float((landscape.gradient(points).norm(dim=1) / (1 + points.norm(dim=1))).max())


def strict_minimum(landscape: Landscape, theta, tol: float = 1e-12) -> Certificate:
    """theta (M,) is a strict local minimum: |gradient| <= tol, and the smallest eigenvalue of H is clearly positive.

    Clearly: above 1e-9 * max(1, largest eigenvalue), the tolerance for "zero" of `critical.inertia`. Then Newton's
    step, of length about |gradient| / smallest eigenvalue, leads to the exact minimum; that length is reported.
    """
    norm = float(landscape.gradient(theta).norm())
    eigenvalues = torch.linalg.eigvalsh(_one(landscape.hessian(theta)))
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    holds = norm <= tol and smallest > 1e-9 * max(1.0, largest)
    return Certificate(f"strict local minimum: |gradient| <= {tol:g} and H positive definite", holds,
                       "computed in float64", {"|gradient|": norm, "smallest eigenvalue": smallest,
                                               "distance to the exact minimum": norm / abs(smallest or 1.0)})


def strict_saddle(landscape: Landscape, theta, direction, tol: float = 1e-12) -> Certificate:
    """theta (M,) is a critical point, no local minimum: |gradient| <= tol, and H bends down along `direction` d (M,).

    Down: d^T H d / |d|^2 below -1e-9 * max(1, |H d| / |d|), the tolerance for "zero" of `critical.inertia`. One product
    H d is enough, so this works for any M; the eigenvector of the smallest eigenvalue is the best witness, and random
    directions are a poor one. That an exact critical point is near is the caller's proof, as for `critical_point`.

    >>> saddle = Landscape.of_function(lambda t: t[0] ** 2 - t[1] ** 2, M=2)
    >>> print(strict_saddle(saddle, [0.0, 0.0], [0.0, 1.0]))
    holds: strict saddle: |gradient| <= 1e-12, and the direction has negative curvature [computed in float64]
    >>> bool(strict_saddle(saddle, [0.0, 0.0], [1.0, 0.0]))
    False
    """
    d = backend.tensor(direction, "direction")
    if d.shape != (landscape.M,) or not bool(d.any()):
        raise ValueError(f"direction has shape {tuple(d.shape)}; expected ({landscape.M},), not all zero")
    norm = float(_one(landscape.gradient(theta), axes=1).norm())
    d = d / d.norm()
    Hd = landscape.hvp(theta, d)
    curvature = float(d @ Hd)
    holds = norm <= tol and curvature < -1e-9 * max(1.0, float(Hd.norm()))
    return Certificate(f"strict saddle: |gradient| <= {tol:g}, and the direction has negative curvature", holds,
                       "computed in float64", {"|gradient|": norm, "curvature": curvature})


def degenerate_minimum(landscape: Landscape, theta, tangent, tol: float = 1e-12, points: int = 0,
                       reach: float = 1.0) -> Certificate:
    """theta (M,) is a local minimum on a manifold S of critical points whose tangent space the rows of `tangent` span.

    The Morse-Bott criterion (lesson 1.2): |gradient| <= tol, the Hessian has no negative eigenvalue and a clear gap at
    zero (`critical.inertia`), it sends an orthonormal basis of the tangent to vectors within its tolerance for zero,
    1e-9 * max(1, largest eigenvalue), and it has no more zeros than the tangent has dimensions. That S exists, with
    this tangent, is the caller's proof. If S is flat, theta + span(tangent), let `points` ask for the gradient
    at that many Gaussian points of it, at distances of about `reach`: within tol * (1 + their size). Sampled.

    tangent has shape (P, M), or (M,) for one direction; its rows may depend on each other.
    """
    tangent = backend.tensor(tangent, "tangent")
    tangent = tangent[None] if tangent.dim() == 1 else tangent
    if tangent.dim() != 2 or tangent.shape[1] != landscape.M or not bool(tangent.any()):
        raise ValueError(f"tangent has shape {tuple(tangent.shape)}; expected (P, {landscape.M}), not all zero")
    if points < 0 or not reach > 0:
        raise ValueError(f"points, reach are {points}, {reach}; expected at least 0, and a positive number")
    claim = "local minimum: H >= 0, and its kernel is the tangent space of a manifold of critical points"
    how = "computed in float64; that the manifold is critical is proved, or sampled, elsewhere"
    H = _one(landscape.hessian(theta))
    theta = backend.tensor(theta, "theta")
    _, s, V = torch.linalg.svd(tangent, full_matrices=False)
    basis = V[s > 1e-10 * s[0]]
    norm = float(landscape.gradient(theta).norm())
    measured = {"|gradient|": norm, "dimension of the tangent": len(basis)}
    critical = norm <= tol
    if points:
        how = f"computed in float64; critical at {points:,} sampled points of theta + the span of the tangent"
        draw = backend.generator(0, "certificate")
        c = backend.normal(points, len(basis), seed=draw, scale=reach / len(basis) ** 0.5)
        worst = _steepest(landscape, theta + c @ basis)
        measured["largest |gradient| / (1 + |theta|) on it"] = worst
        critical = critical and worst <= tol
    try:
        found = count_inertia(H)
    except NoClearGap as refusal:
        return Certificate(claim, False, how, measured | {"refused": str(refusal)})
    pushed = float(torch.linalg.matrix_norm(basis @ H, 2))
    measured |= {"inertia": found.counts, "|H on the tangent|": pushed, "smallest non-zero": found.smallest_nonzero}
    holds = critical and found.negative == 0 and found.zero == len(basis) and pushed <= found.tolerance
    return Certificate(claim, holds, how, measured)


def critical_subspace(landscape: Landscape, theta, directions, points: int = 200, reach: float = 2.0, seed: int = 0,
                      tol: float = 1e-12) -> Certificate:
    """Every point of theta + span(rows of directions) is critical, with the same loss; the rows (P, M) are independent.

    Sampled at `points` Gaussian points, each coefficient with standard deviation `reach`: |gradient| <= tol *
    (1 + |point|), since weights of size 10 round ten times more coarsely, and losses equal to 1e-12 * max(1, loss).
    Independent: the smallest singular value is above 1e-10 times the largest. With P directions that are dependent the
    subspace would have fewer dimensions than claimed, and the certificate fails.

    >>> valley = Landscape.of_function(lambda t: (t[0] - t[1]) ** 2, M=2)
    >>> print(critical_subspace(valley, [3.0, 3.0], [[1.0, 1.0]]))
    holds: an affine subspace of dimension 1, critical everywhere, with one loss [sampled at 200 points]
    >>> bool(critical_subspace(valley, [3.0, 3.0], [[1.0, 1.1]]))
    False
    """
    theta, directions = landscape.point(theta), backend.tensor(directions, "directions")
    if directions.dim() != 2 or directions.shape[1] != landscape.M or len(directions) == 0:
        raise ValueError(f"directions has shape {tuple(directions.shape)}; expected (P, {landscape.M}), P at least 1")
    if points < 1 or not reach > 0:
        raise ValueError(f"points, reach are {points}, {reach}; expected at least 1, and a positive number")
    s = torch.linalg.svdvals(directions)
    rank = int((s > 1e-10 * s[0]).sum())
    draw = backend.generator(seed, "certificate")
    there = theta + backend.normal(points, len(directions), seed=draw, scale=reach) @ directions
    worst = _steepest(landscape, there)
    here = float(landscape.value(theta))
    spread = float((landscape.value(there) - here).abs().max())
    holds = rank == len(directions) and worst <= tol and spread <= ROUNDING * max(1.0, abs(here))
    return Certificate(f"an affine subspace of dimension {len(directions)}, critical everywhere, with one loss", holds,
                       f"sampled at {points:,} points", {"rank": rank, "largest |gradient| / (1 + |theta|)": worst,
                                                         "loss": here, "largest difference of losses": spread})


def distinct(points, separation: float = 1e-6) -> Certificate:
    """The points (P, M) are pairwise more than `separation` apart. Exact but for rounding."""
    points = backend.tensor(points, "points")
    if points.dim() != 2 or points.shape[0] < 2:
        raise ValueError(f"points has shape {tuple(points.shape)}; expected (P, M) with P of at least 2")
    gap = float(torch.pdist(points).min())
    return Certificate(f"{points.shape[0]} points, pairwise more than {separation:g} apart", gap > separation,
                       "exact", {"smallest distance": gap})


def _points(landscape: Landscape, path) -> torch.Tensor:
    points = path.points if isinstance(path, Path) else backend.tensor(path, "path")
    if points.dim() != 2 or len(points) < 2 or points.shape[1] != landscape.M:
        raise ValueError(f"path has shape {tuple(points.shape)}; expected (T, {landscape.M}) with T of at least 2")
    return points


def _along(landscape: Landscape, points, between: int) -> tuple[float, float, str]:
    """The highest loss along the polyline, the largest rise from a point to a later one, and how that is known."""
    if isinstance(between, bool) or not isinstance(between, int) or between < 0:
        raise ValueError(f"between is {between!r}; expected an integer of at least 0")
    known = pieces.bounds(landscape, points)
    if known:
        return known.highest, known.rise, f"exact on {len(points) - 1:,} whole pieces, up to rounding"
    values = Path(landscape, points).refined(between).losses
    rise = float((values - values.cummin(0).values).max())
    return float(values.max()), rise, f"sampled at {len(values):,} points"


def monotone_path(landscape: Landscape, path, between: int = 9, tol: float = ROUNDING,
                  strict: bool = False) -> Certificate:
    """The loss does not rise along the polyline `path`, a `Path` or points (T, M): no point is above an earlier one.

    A rise of tol * max(1, loss at the start) is rounding. Exact where every piece is of a kind that `pieces.bounds`
    knows: then the whole pieces are covered, not only points. Otherwise sampled, with `between` points on every piece
    beside its ends: between these the loss could still rise.

    With `strict` the loss must fall from each point to the next, by more than tol times the larger of the two losses in
    absolute value. This is always sampled.
    """
    points = _points(landscape, path)
    if strict:
        values = Path(landscape, points).refined(between).losses
        fall = values[:-1] - values[1:]
        clear = bool((fall > tol * torch.maximum(values[:-1].abs(), values[1:].abs())).all())
        return Certificate("the loss falls strictly along the path", clear, f"sampled at {len(values):,} points",
                           {"smallest fall": float(fall.min()), "start": float(values[0]), "end": float(values[-1])})
    _, rise, how = _along(landscape, points, between)
    start, end = landscape.value(points[[0, -1]]).tolist()
    return Certificate("the loss does not rise along the path", rise <= tol * max(1.0, abs(start)), how,
                       {"largest rise": rise, "start": start, "end": end})


def path_below(landscape: Landscape, path, level: float, between: int = 9, tol: float = ROUNDING) -> Certificate:
    """The loss stays at or below `level` along the polyline `path`, a `Path` or points (T, M), up to
    tol * max(1, |level|). Exact or sampled like `monotone_path`.

    >>> scalar = Landscape(MLP([1, 1, 1], "identity", bias=False), [[1.0]], [[1.0]], "sse")
    >>> print(path_below(scalar, [[1.0, 1.0], [0.0, 0.0], [-1.0, -1.0]], 1.0))
    holds: the loss stays at or below 1 along the path [exact on 2 whole pieces, up to rounding]
    >>> bool(path_below(scalar, [[1.0, 1.0], [-1.0, -1.0]], 0.99))
    False
    """
    if not level == level or abs(level) == float("inf"):
        raise ValueError(f"level is {level}; expected a finite number")
    top, _, how = _along(landscape, _points(landscape, path), between)
    return Certificate(f"the loss stays at or below {level:.6g} along the path",
                       top <= level + tol * max(1.0, abs(level)), how, {"highest loss": top})


def valleys(cells: levelsets.ReluCells, tree: levelsets.MergeTree, tol: float = ROUNDING) -> Certificate:
    """`tree` tells how many valleys a small ReLU net has at every level; `cells` hold the witnesses (lesson 2.5).

    The witnesses are non-negative coefficients for every cell and link. Checked anew, from data and width:

    * the cones cover the plane, no sample changes its sign inside one, no cell or link is missing (`complete`);
    * the coefficients reach their levels, and no others lie lower, by weak duality (`duality_gap` at most tol);
    * after every level of a cell or a link a search through the graph of all cells and links below finds as many
      components as the tree tells, which was made by union-find (`miscounted`);
    * each valley lives alone until its pass, and there reaches the valley that the tree names (`mispaired`).

    Levels closer than 1e-9 of the mean of y^2 count as one.

    >>> from dataclasses import replace
    >>> cells = levelsets.relu_cells([[1.0], [-1.0]], [1.0, 2.0], h=1)
    >>> tree = levelsets.merge_tree(cells.births, cells.links)
    >>> print(valleys(cells, tree))
    holds: N_u = 1, 2, 1 from u = 0.5, 2, 2.5 on, each pass as in the tree [exact up to rounding: 4 cells, 4 links]
    >>> bool(valleys(cells, replace(tree, passes=tree.passes - 0.01)))
    False
    """
    whole, gap = levelsets.complete(cells), levelsets.duality_gap(cells)
    counts, pairs = levelsets.miscounted(cells, tree), levelsets.mispaired(cells, tree)
    levels, zero = tree.levels, tol * float(np.square(cells.y).mean())  # below this a level is 0 up to rounding
    shown = [", ".join(text[:6]) + (", ..." if len(text) > 6 else "") for text in
             ([str(count) for count in tree.count(levels)],
              [f"{level if level > zero else 0.0:.6g}" for level in levels])]
    return Certificate(f"N_u = {shown[0]} from u = {shown[1]} on, each pass as in the tree",
                       whole and gap <= tol and counts == pairs == 0,
                       f"exact up to rounding: {len(cells.births):,} cells, {len(cells.links):,} links",
                       {"nothing missing": whole, "largest duality gap": gap, "levels with another count": counts,
                        "wrong valleys": pairs})


def same_output(network: MLP, theta, other: MLP, theta_other, x=None, points: int = 1000, reach: float = 3.0,
                tol: float = ROUNDING) -> Certificate:
    """Two networks compute the same: their outputs differ by at most tol * max(1, largest |output|).

    Looked at on the inputs x (n, d), where they are given, and on `points` Gaussian inputs of standard deviation
    `reach`. Sampled: other inputs were not looked at. theta (M,) and theta_other (M',) may be batches of equal length,
    or one of them a batch: then all pairs are compared. Raises ValueError where the networks differ in their numbers of
    inputs or outputs.

    >>> one, two = MLP([1, 1, 1]), MLP([1, 2, 1])
    >>> print(same_output(one, [2.0, 0.0, 3.0, 0.0], two, [2.0, 2.0, 0.0, 0.0, 1.0, 2.0, 0.0]))
    holds: the two networks have the same output [sampled at 1,000 inputs]
    >>> bool(same_output(one, [2.0, 0.0, 3.0, 0.0], two, [2.0, 2.0, 0.0, 0.0, 1.0, 2.1, 0.0]))
    False
    """
    ends = [(net.widths[0], net.widths[-1]) for net in (network, other)]
    if ends[0] != ends[1]:
        raise ValueError(f"network and other have {ends[0]} and {ends[1]} inputs and outputs; expected the same")
    if points < 1 or not reach > 0:
        raise ValueError(f"points, reach are {points}, {reach}; expected at least 1, and a positive number")
    inputs = backend.normal(points, ends[0][0], seed=backend.generator(0, "certificate"), scale=reach)
    if x is not None:
        x = backend.tensor(x, "x")
        if x.dim() != 2 or x.shape[1] != ends[0][0]:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (n, {ends[0][0]})")
        inputs = torch.cat([x, inputs])
    first = network(backend.tensor(theta, "theta"), inputs)
    second = other(backend.tensor(theta_other, "theta_other"), inputs)
    if first.dim() == second.dim() == 3 and len(first) != len(second):
        raise ValueError(f"theta and theta_other have batches of {len(first)} and {len(second)}; expected equal ones")
    difference, size = (values.abs().flatten(-2).amax(-1) for values in (second - first, first))  # () or (B,)
    holds = bool((difference <= tol * size.clamp_min(1)).all())
    return Certificate("the two networks have the same output" + _everywhere(difference), holds,
                       f"sampled at {len(inputs):,} inputs",
                       {"largest difference": float(difference.max()), "largest output": float(size.max())})


def fits(landscape: Landscape, theta, tol: float = ROUNDING) -> Certificate:
    """theta (M,) realises the data: every output lies within tol of its target.

    1e-12 is rounding for outputs of order 1. Targets that are off by less would pass too: "exactly" means exactly in
    float64. Raises ValueError for class labels, and for a landscape without data.

    >>> from losslab import MLP
    >>> line = Landscape(MLP([1, 1], bias=False), [[1.0], [2.0]], [[3.0], [6.0]])
    >>> print(fits(line, [3.0]))
    holds: every output is within 1e-12 of its target [computed in float64]
    >>> bool(fits(line, [3.1]))
    False
    """
    if not hasattr(landscape, "y") or landscape.loss.labels:
        raise ValueError(f"landscape is {landscape!r}; expected one with targets that are numbers")
    worst = float((_one(landscape.outputs(theta)) - landscape.y).abs().max())
    return Certificate(f"every output is within {tol:g} of its target", worst <= tol, "computed in float64",
                       {"largest residual": worst})


def falls_towards(landscape: Landscape, centre, starts, points: int = 65, tol: float = ROUNDING) -> Certificate:
    """The loss rises on none of the straight lines from the starts (B, M) to the centre (M,).

    Each line is looked at in `points` equally spaced points; a rise of tol * max(1, loss at its start) is rounding.
    Sampled: other starts, and the points between, were not looked at. Holding for all starts it would say that every
    sublevel set is star-shaped around the centre.

    >>> bowl = Landscape.of_function(lambda t: (t ** 2).sum(), M=2)
    >>> print(falls_towards(bowl, [0.0, 0.0], [[1.0, 2.0], [-3.0, 0.0]]))
    holds: the loss rises on none of 2 straight lines to the centre [sampled at 65 points each]
    >>> bool(falls_towards(bowl, [0.1, 0.0], [[1.0, 2.0], [-3.0, 0.0]]))
    False
    """
    centre, starts = landscape.point(centre, "centre"), backend.tensor(starts, "starts")
    if starts.dim() != 2 or starts.shape[0] == 0 or starts.shape[1] != landscape.M:
        raise ValueError(f"starts has shape {tuple(starts.shape)}; expected (B, {landscape.M}) with B of at least 1")
    if points < 2:
        raise ValueError(f"points is {points}; expected at least 2")
    t = torch.linspace(0, 1, points, dtype=starts.dtype, device=starts.device)[:, None]
    lines = torch.lerp(starts[:, None], centre, t)
    values = landscape.value(lines.flatten(0, 1)).reshape(len(starts), points)
    rise = values.diff(dim=1).amax(1)
    rising = int((rise > tol * values[:, 0].abs().clamp_min(1)).sum())
    return Certificate(f"the loss rises on none of {len(starts):,} straight lines to the centre", rising == 0,
                       f"sampled at {points} points each", {"lines that rise": rising,
                                                            "largest rise": float(rise.max())})


def minimum_containing(landscape: Landscape, lower, upper, inside, points: int = 33,
                       lipschitz: float | None = None) -> Certificate:
    """The open box (lower, upper) in R^M contains a local minimum: `inside` has a lower loss than every boundary point.

    Auer, Herbster and Warmuth 1995: a bounded open set is minimum-containing when every boundary point is beaten by a
    point inside. In one dimension the boundary is two points and the check is complete. In more, every face is covered
    by a grid of `points` per axis. With a Lipschitz constant of the loss on the box (in the Euclidean norm), the grid's
    margin must also exceed lipschitz * the largest distance to a grid point, and the check is complete again; without,
    it is sampled. Lower means lower by more than rounding, 1e-12 * max(1, loss): in a saturated tail no box passes.
    """
    lower, upper, inside = (backend.tensor(v, n).reshape(-1) for v, n in
                            ((lower, "lower"), (upper, "upper"), (inside, "inside")))
    for value, name in ((lower, "lower"), (upper, "upper"), (inside, "inside")):
        if value.shape[0] != landscape.M:
            raise ValueError(f"{name} has {value.shape[0]} entries; expected M = {landscape.M}")
    if not bool((lower < upper).all()):
        raise ValueError("lower is not below upper in every coordinate; expected a box with an inside")
    if points < 2:
        raise ValueError(f"points is {points}; expected at least 2 per axis")
    boundary, reach = _faces(lower, upper, points)
    low, rim = float(landscape.value(inside)), float(landscape.value(boundary).min())
    needed = ROUNDING * max(1.0, abs(low))
    if landscape.M == 1:
        how = "exact: both boundary points were evaluated"
    elif lipschitz is None:
        how = f"sampled at {len(boundary):,} boundary points"
    else:
        needed += lipschitz * reach
        how = f"computed at {len(boundary):,} boundary points, covered with the Lipschitz constant {lipschitz:.4g}"
    within = bool(((inside > lower) & (inside < upper)).all())
    return Certificate("the box contains a local minimum: a point inside lies below the whole boundary",
                       within and rim - low > needed, how,
                       {"inside": low, "lowest on the boundary": rim, "margin": rim - low, "margin needed": needed})


def _faces(lower, upper, points):
    """A grid on all 2 M faces of the box, and the largest distance of a boundary point from its nearest grid point."""
    M = lower.numel()
    t = torch.linspace(0, 1, points, dtype=lower.dtype, device=lower.device)
    grid = torch.cartesian_prod(*[t] * (M - 1)).reshape(-1, M - 1) if M > 1 else t.new_zeros(1, 0)
    faces = []
    for axis in range(M):
        for end in (0.0, 1.0):
            column = torch.full_like(grid[:, :1] if M > 1 else t[:1, None], end)
            faces.append(torch.cat([grid[:, :axis], column, grid[:, axis:]], 1))
    cell = (upper - lower) / (points - 1)
    reach = float((cell.square().sum() - cell.square().min()).sqrt() / 2) if M > 1 else 0.0
    return lower + torch.cat(faces) * (upper - lower), reach
