"""Sublevel sets: how many valleys there are at each level, and where they merge.

A function on a space that is cut into cells: below every level each cell is connected (or empty), and two neighbours
hang together from the level of their link on. How the cells appear and merge is a tree. On the cells of a small ReLU
net that tree is exact (`relu_cells`, lesson 2.5); on a grid it is the tree of the sampled function only (`grid`).
"""

import itertools
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import nnls
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from . import backend

SAME = 1e-9  # relative: levels closer than this count as one; births and links are rounded to about 1e-14
PARALLEL = 1e-14  # radians, and the sine: samples this near to one direction have one, up to rounding
LIMIT = 300_000  # cells


@dataclass(frozen=True)
class MergeTree:
    """The valleys of a function and where they merge, as `merge_tree` finds them. Entry i of an array is one valley.

    bottoms: the levels at which they appear, rising; the first is the global minimum
    passes: the levels at which they merge with an older (deeper) valley; infinite for the first
    cells: the cells of their bottoms
    into: the numbers of the valleys that they merge into; -1 for the first
    slack: levels closer than this count as one

    Two parts of the set of global minimisers that do not hang together are two valleys with equal bottoms.
    """

    bottoms: np.ndarray
    passes: np.ndarray
    cells: np.ndarray
    into: np.ndarray
    slack: float = 0.0

    def __repr__(self):
        return (f"MergeTree({len(self.bottoms)} valleys, {len(self.spurious)} spurious; "
                f"minimum {self.minimum:.5g} in {self.global_components} piece(s))")

    @property
    def minimum(self) -> float:
        """The global minimum."""
        return float(self.bottoms[0])

    @property
    def barriers(self) -> np.ndarray:
        """The climb from each bottom to its pass."""
        return self.passes - self.bottoms

    @property
    def spurious(self) -> np.ndarray:
        """The numbers of the valleys without a global minimum: their bottoms are clearly higher."""
        return np.flatnonzero(self.bottoms > self.minimum + self.slack)

    @property
    def global_components(self) -> int:
        """The number of components of the set of global minima."""
        return len(self.bottoms) - len(self.spurious)

    @property
    def levels(self) -> np.ndarray:
        """All bottoms and all finite passes, rising: between two of them the number of valleys stays the same."""
        levels = np.sort(np.concatenate([self.bottoms, self.passes[1:]]))
        return levels[np.diff(levels, append=np.inf) > self.slack]

    def count(self, u) -> np.ndarray:
        """N_u, the number of components of the sublevel set, at the levels u."""
        return (np.searchsorted(self.bottoms, u, side="right")
                - np.searchsorted(np.sort(self.passes), u, side="right"))


def merge_tree(births, links) -> MergeTree:
    """The merge tree of cells whose lowest points lie at the levels `births` (C,).

    A row (i, j, level) of `links` (E, 3) says that cells i and j hang together from that level on. Union-find over the
    links in rising order; where two valleys meet, the one with the higher bottom ends (the elder rule of persistent
    homology). Valleys less deep than 1e-9 of the largest birth are rounding, and left out; bottoms that near to the
    lowest one count as global. (The largest birth of `relu_cells` is between a half and the whole of the mean of y^2.)

    Raises ValueError for shapes and numbers that do not fit, and where the cells do not all join.

    >>> tree = merge_tree([0.0, 1.0, 0.5], [[0, 1, 3.0], [1, 2, 2.0]])
    >>> tree.bottoms.tolist(), tree.passes.tolist(), tree.count([0.2, 0.7, 1.5, 2.5, 3.5]).tolist()
    ([0.0, 0.5, 1.0], [inf, 3.0, 2.0], [1, 2, 3, 2, 1])
    """
    births = _levels(births, "births", 1)
    slack = SAME * float(np.abs(births).max())  # no floor: a landscape may be small as a whole
    parent = list(range(len(births)))  # the root of a component is its deepest cell
    ended = {}  # the bottom of a valley: its pass, and the bottom of the valley it merges into

    def root(cell):
        while parent[cell] != cell:
            parent[cell] = cell = parent[parent[cell]]  # halves the way for the next time
        return cell

    links = _checked(births, links)
    for i, j, level in links[_spanning(len(births), links)].tolist():
        i, j = int(i), int(j)
        older, younger = sorted((root(i), root(j)), key=lambda c: (births[c], c))
        if level > births[younger] + slack:
            ended[younger] = level, older
        parent[younger] = older
    cells = [root(0), *sorted(ended, key=lambda c: (births[c], c))]
    number = {cell: k for k, cell in enumerate(cells)}
    passes, into = zip((np.inf, -1), *((ended[c][0], number[ended[c][1]]) for c in cells[1:]), strict=True)
    return MergeTree(births[cells], np.array(passes), np.array(cells), np.array(into), slack)


def _checked(births, links):
    links, C = _levels(links, "links", 2, empty=len(births) == 1), len(births)
    cells, level = links[:, :2], links[:, 2:]
    if links.shape[1] != 3 or not ((cells >= 0) & (cells < C) & (cells == cells.round())).all():
        raise ValueError(f"links has shape {links.shape}; expected rows (i, j, level), i and j from 0 to {C - 1}")
    if (level < births[cells.astype(int)] - SAME * np.abs(births).max()).any():
        raise ValueError("links has a level below the birth of one of its cells; expected at least both")
    return links


def _spanning(C, links):
    """The rows of links that a spanning tree needs, rising: any other link closes a circle that it does not lower."""
    order = np.argsort(links[:, 2], kind="stable")
    i, j = np.sort(links[order, :2].astype(int), axis=1).T
    _, lowest = np.unique(i * C + j, return_index=True)  # of several links between two cells
    rank = coo_array((lowest + 1, (i[lowest], j[lowest])), shape=(C, C)).tocsr()  # + 1: a rank of 0 would be no link
    kept = np.sort(minimum_spanning_tree(rank).data.astype(int)) - 1
    if len(kept) < C - 1:
        raise ValueError(f"links leave {C} cells in {C - len(kept)} pieces; expected one")
    return order[kept]


def _levels(values, name, axes, empty=False):
    values = np.asarray(values.cpu() if torch.is_tensor(values) else values, dtype=float)
    values = values.reshape(0, 3) if empty and values.size == 0 else values
    if values.ndim != axes or (values.size == 0 and not empty) or not np.isfinite(values).all():
        raise ValueError(f"{name} has shape {values.shape}; expected {axes} axis(es) of finite numbers, not empty")
    return values


def grid(values, diagonal: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(births, links) for `merge_tree`, of a function sampled on a grid of any dimension: of the sample only.

    Every point is a cell, and neighbours along an axis (with `diagonal`, along diagonals too) hang together from the
    higher of their two values on. Between the points the function was not looked at: it may have valleys and walls
    there. Points are numbered as in `values.flatten()`.

    >>> merge_tree(*grid([3.0, 0.0, 2.0, 1.0, 4.0]))
    MergeTree(2 valleys, 1 spurious; minimum 0 in 1 piece(s))
    """
    values = np.asarray(values.cpu() if torch.is_tensor(values) else values, dtype=float)
    flat = _levels(values.reshape(-1), "values", 1)
    number = np.arange(values.size).reshape(values.shape)
    rows = []
    for step in itertools.product((-1, 0, 1), repeat=values.ndim):
        if step <= (0,) * values.ndim or (not diagonal and sum(map(abs, step)) > 1):
            continue  # each pair of neighbours once
        here = tuple(slice(max(0, -s), min(0, -s) or None) for s in step)
        there = tuple(slice(max(0, s), min(0, s) or None) for s in step)
        i, j = number[here].ravel(), number[there].ravel()
        rows.append(np.stack([i, j, np.maximum(flat[i], flat[j])], 1))
    return flat, np.concatenate(rows)


# ---- ReLU nets with one hidden layer


@dataclass(frozen=True)
class ReluCells:
    """The cells of a small ReLU net and their lowest points, as `relu_cells` finds them.

    births (C,), links (E, 3): for `merge_tree`
    x (n, d), y (n,), h: the data, and the number of hidden units
    rays (m, d): the rays that bound the cones of a unit; a *signed* ray has the number r, or m + r with the sign -1
    states (C, h): the state of every unit, a cone c, or m + c with the sign -1
    sets (C,), faces (E,): the signed rays of a cell and of a link, as bits of an integer
    solved: for every such set of signed rays the lowest loss, and the coefficients (2 m,) that reach it
    """

    births: np.ndarray
    links: np.ndarray
    x: np.ndarray
    y: np.ndarray
    h: int
    rays: np.ndarray
    states: np.ndarray = field(repr=False)
    sets: np.ndarray = field(repr=False)
    faces: np.ndarray = field(repr=False)
    solved: dict = field(repr=False)

    def __repr__(self):
        return f"ReluCells(width {self.h}, {len(self.y)} samples: {len(self.births)} cells, {len(self.links)} links)"

    def theta(self, cell: int) -> torch.Tensor:
        """The lowest point of a cell: theta (M,) for MLP([d, h, 1], "relu", bias=False), output weights +1 and -1."""
        return self._point(cell, cell, self.sets[cell])

    def road(self, tree: MergeTree, valley: int) -> torch.Tensor:
        """A path (T, M) from the bottom of a spurious valley over its pass to the bottom of the valley it merges into.

        Its vertices lie in the links of the spanning tree, which are the lowest possible. On each of its pieces one
        cell is crossed, where the loss is convex, or a unit with weights 0 changes its sign: the loss is nowhere
        higher than at the vertices, and there it is at most the pass.
        """
        if not 0 < valley < len(tree.cells):
            raise ValueError(f"valley is {valley}; expected 1 to {len(tree.cells) - 1}: the first has no pass")
        start, end = int(tree.cells[valley]), int(tree.cells[tree.into[valley]])
        kept = _spanning(len(self.births), self.links)
        tree_links = coo_array((kept + 1, (self.links[kept, 0].astype(int), self.links[kept, 1].astype(int))),
                               shape=(len(self.births),) * 2).tocsr()
        _, before = breadth_first_order(tree_links, end, directed=False)
        both = tree_links + tree_links.T
        path, cell = [self.theta(start)], start
        while cell != end:
            following = int(before[cell])
            face = self.faces[int(both[cell, following]) - 1]
            path += [self._point(cell, following, face), self._point(following, cell, face)]
            cell = following
        path = torch.stack([*path, self.theta(end)])
        moved = (path[1:] - path[:-1]).abs().amax(1) > 0
        return torch.cat([path[:1], path[1:][moved]])

    def _point(self, cell, neighbour, bits):
        """theta (M,) in `cell`, of the lowest point that it shares with `neighbour`: the set of signed rays `bits`.

        Where several units have a signed ray in both cells, the first gets its coefficient.
        """
        (m, d), left = self.rays.shape, self.solved[int(bits)][1].copy()
        W, v, own = np.zeros((self.h, d)), np.ones(self.h), _own(m, d)
        for unit, (state, other) in enumerate(zip(self.states[cell], self.states[neighbour], strict=True)):
            v[unit] = 1.0 - 2.0 * (state // m)
            for signed in range(2 * m):
                if (own[state] & own[other]) >> signed & 1:
                    W[unit] += left[signed] * self.rays[signed % m]
                    left[signed] = 0.0
        return backend.tensor(np.concatenate([W.ravel(), v]), "theta")


def relu_cells(x, y, h: int) -> ReluCells:
    """The cells of f(x) = sum_j v_j relu(<w_j, x>) with h units and the loss mean_i (f(x_i) - y_i)^2 (lesson 2.5).

    x has shape (n, 1), or (n, 2), for instance with a constant 1 beside the input; y (n,). The loss depends on
    a_j = |v_j| w_j and the sign of v_j only. The rays on which some <a, x_i> is 0 cut the plane of a unit into at most
    2 n cones; a cell gives a cone and a sign to every unit, so there are up to (4 n)^h. On a cell the loss is a convex
    quadratic function of the coefficients of the signed rays, which are not negative: its lowest point is a
    non-negative least-squares problem, solved once for each set of signed rays. Links: a unit passes from a cone
    to the next one through their common ray, or changes its sign where a_j = 0. Exact but for rounding.

    Raises ValueError where the x_i do not span the plane, for an x_i = 0, for two directions that differ by 1e-14 to
    1e-9 (float64 does not tell what happens between them), and for more than 300,000 cells.

    >>> cells = relu_cells([[1.0], [-1.0]], [1.0, 2.0], h=1)
    >>> merge_tree(cells.births, cells.links).passes.tolist()
    [inf, 2.5]
    """
    x, y = _data(x, y)
    if isinstance(h, bool) or not isinstance(h, int) or h < 1:
        raise ValueError(f"h is {h!r}; expected a positive integer")
    rays = _rays(x)
    m, d = len(rays), x.shape[1]
    if (2 * m) ** h > LIMIT or 2 * m > 62:
        raise ValueError(f"h = {h} and {m} cones: (2 * {m})^{h} cells; expected at most {LIMIT:,}, of up to 31 cones")
    own = _own(m, d)
    states = np.indices((2 * m,) * h).reshape(h, -1).T
    sets, faces, pairs = np.bitwise_or.reduce(own[states], 1), [], []
    for unit in range(h):
        others = np.bitwise_or.reduce(np.delete(own[states], unit, 1), 1) if h > 1 else np.zeros_like(sets)
        for u, v in _doors(m, d):
            here = np.flatnonzero(states[:, unit] == u)
            pairs.append(np.stack([here, here + (v - u) * (2 * m) ** (h - 1 - unit)], 1))
            faces.append(others[here] | own[u] & own[v])  # what both states share
    pairs, faces = np.concatenate(pairs), np.concatenate(faces)
    solved = _solve(x, y, rays, np.union1d(sets, faces))
    births, levels = (np.array([solved[s][0] for s in which.tolist()]) for which in (sets, faces))
    return ReluCells(births, np.column_stack([pairs, levels]), x, y, h, rays, states, sets, faces, solved)


def _data(x, y):
    x, y = (backend.tensor(v, name).cpu().numpy() for v, name in ((x, "x"), (y, "y")))
    if x.ndim != 2 or x.shape[1] not in (1, 2):
        raise ValueError(f"x has shape {x.shape}; expected (n, 1) or (n, 2)")
    if y.reshape(-1).shape != x.shape[:1]:
        raise ValueError(f"y has shape {y.shape}; expected ({len(x)},)")
    if not x.any(1).all():
        raise ValueError("x has a row of zeros; expected none: no unit can tell it from nothing")
    return x, y.reshape(-1)


def _rays(x):
    """The unit vectors (m, d) that bound the cones: those orthogonal to a sample, by angle; on a line +1 and -1."""
    if x.shape[1] == 1:
        return np.array([[1.0], [-1.0]])
    angles = np.sort(np.arctan2(x[:, 0], -x[:, 1]) % np.pi)
    gaps = np.diff(angles, append=angles[0] + np.pi)
    apart = gaps > PARALLEL  # parallel samples share their rays
    if (gaps[apart] < 1e-9).any():
        raise ValueError(f"x has samples whose directions differ by {gaps[apart].min():.1e}; expected 0 (parallel), "
                         "or at least 1e-9")
    if apart.sum() < 2:
        raise ValueError(f"x has {len(x)} samples in one direction; expected at least two directions")
    angles = np.concatenate([angles[apart], angles[apart] + np.pi])
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _own(m, d):
    """The signed rays of the 2 m states of one unit, as bits: cone c lies between the rays c and c + 1; on a line it
    is a ray."""
    own = 1 << np.arange(m)
    own = own if d == 1 else own | np.roll(own, -1)
    return np.concatenate([own, own << m])


def _doors(m, d):
    """(state, state) of one unit: the next cone, with either sign, and the other sign. On a line 0 and 1 are all."""
    turn = [(c, (c + 1) % m) for c in range(1 if d == 1 else m)]
    return turn + [(m + u, m + v) for u, v in turn] + [(c, m + c) for c in range(m)]


def _features(x, rays):
    """(n, 2 m): what units on the signed rays answer; on the boundary of a half-plane exactly 0."""
    z = x @ rays.T
    z[z < 3 * PARALLEL * np.linalg.norm(x, axis=1)[:, None]] = 0.0
    return np.concatenate([z, -z], 1)


def _solve(x, y, rays, sets):
    """{set: (lowest mean square, coefficients (2 m,))} by non-negative least squares."""
    A, solved = _features(x, rays), {}
    for bits in sets.tolist():
        c = np.zeros(A.shape[1])
        used = [r for r in range(A.shape[1]) if bits >> r & 1 and A[:, r].any()]
        if used:
            c[used] = nnls(A[:, used], y)[0]
        solved[bits] = float(np.square(A @ c - y).mean()), c
    return solved


# ---- checks, for `certify.valleys`: from the data and the coefficients alone, by other means than above


def complete(cells: ReluCells) -> bool:
    """Whether the cones cover the plane (the line) with no sample changing its sign inside one, each cell is there
    once, and so is each link, with the rays that its two cells share.
    """
    x, rays, states, m = cells.x, cells.rays, cells.states, len(cells.rays)
    own = np.array([1 << c for c in range(m)])
    if x.shape[1] == 1:
        covered, degree = np.array_equal(rays, [[1.0], [-1.0]]), 2
    else:
        after = np.roll(rays, -1, 0)
        own |= np.roll(own, -1)
        turn = np.arctan2(rays[:, 0] * after[:, 1] - rays[:, 1] * after[:, 0], (rays * after).sum(1))
        covered = (turn > 0).all() and abs(turn.sum() - 2 * np.pi) < 1e-9
        middle = np.maximum(x @ (rays + after).T, 0) - np.maximum(x @ rays.T, 0) - np.maximum(x @ after.T, 0)
        covered &= (np.abs(middle) < 3 * PARALLEL * np.linalg.norm(x, axis=1)[:, None]).all()
        covered, degree = covered and np.abs(np.linalg.norm(rays, axis=1) - 1).max() < 1e-12, 3
    own = np.concatenate([own, own << m])
    C = (2 * m) ** cells.h
    cell = np.ravel_multi_index(states.T, (2 * m,) * cells.h)
    if len(np.unique(cell)) != C or not np.array_equal(cells.sets, np.bitwise_or.reduce(own[states], 1)):
        return False
    pairs = np.sort(cells.links[:, :2].astype(int), 1)
    moved = states[pairs[:, 0]] != states[pairs[:, 1]]
    u, v = states[pairs[:, 0]][moved], states[pairs[:, 1]][moved]
    if not ((moved.sum(1) == 1).all() and len(np.unique(pairs, axis=0)) * 2 == cells.h * C * degree):
        return False
    step = (u - v) % m
    near = np.where(u // m == v // m, (step == 1) | (step == m - 1), step == 0)
    others = np.bitwise_or.reduce(np.where(moved, 0, own[states[pairs[:, 0]]]), 1)
    return bool(covered and near.all() and np.array_equal(cells.faces, others | own[u] & own[v]))


def duality_gap(cells: ReluCells) -> float:
    """How far a level of `cells` may be from the lowest loss on its cell or link, in units of the mean of y^2.

    The coefficients c >= 0 reach the loss |A c - y|^2 / n; by weak duality r with A^T r <= 0 shows that no c >= 0 goes
    below (2 <r, y> - |r|^2) / n. With r = y - A c the two agree at the minimum. Returned is the largest of: the
    distance of a level to either, a negative coefficient, and a positive entry of A^T r (relative to its column and
    to |y|). An entry e > 0 in place of 0 lowers the bound by 2 e c / n, with c the coefficient at the lowest point, of
    which nothing is known: that is rounding only while the coefficients are not huge.
    """
    A, y = _features(cells.x, cells.rays), cells.y
    bits = np.fromiter(cells.solved, dtype=np.int64)
    levels, c = (np.array(part) for part in zip(*cells.solved.values(), strict=True))
    used = (bits[:, None] >> np.arange(A.shape[1]) & 1).astype(bool)
    r = y - c @ A.T
    size = max(float(np.square(y).mean()), 1e-300)
    reached, bound = np.square(r).mean(1), (2 * (r @ y) - np.square(r).sum(1)) / len(y)
    slope = np.where(used, r @ A, 0.0) / np.linalg.norm(A, axis=0).clip(1e-300) / np.linalg.norm(y).clip(1e-300)
    told = np.array([cells.solved[s][0] for s in np.concatenate([cells.sets, cells.faces]).tolist()])
    given = np.concatenate([cells.births, cells.links[:, 2]])
    apart = max(np.abs(given - told).max(), np.abs(levels - reached).max(), np.abs(levels - bound).max())
    return float(max(apart / size, slope.max(), -c.min(), np.abs(c[~used]).max(initial=0.0)))


def components(births, links, u: float) -> int:
    """The number of components of the cells and links at or below u, by a search through their graph."""
    return len(np.unique(_labels(births, links, u)[births <= u]))


def miscounted(cells: ReluCells, tree: MergeTree) -> int:
    """At how many levels a search finds another number of components than the tree tells.

    The number can change only at a birth and at the level of a link. It is looked at below the first of all these
    levels and after each, whether the tree names it or not. Levels closer than 1e-9 of the mean of y^2 are one; a
    row of such levels that is longer than that counts as wrong, since inside it nobody looked.
    """
    near = _near(cells)
    levels = np.unique(np.concatenate([cells.births, cells.links[:, 2]]))
    last = np.diff(levels, append=np.inf) > 2 * near
    first = np.concatenate([[True], last[:-1]])
    tried = [levels[0] - near, *(levels[last] + near)]
    wrong = sum(components(cells.births, cells.links, u) != tree.count(u) for u in tried)
    return int(wrong + (levels[last] - levels[first] > 2 * near).sum())


def mispaired(cells: ReluCells, tree: MergeTree) -> int:
    """Of how many valleys the tree tells a wrong bottom, or a wrong pass, or a wrong way out.

    The bottom has to be the birth of its cell. Just below the pass the valley lives: nothing in the component of that
    cell lies lower than the bottom, and no other valley that lives there is in it. Just above the pass it hangs
    together with the valley that the tree names, an earlier one in the order of the bottoms, which does not end before.
    """
    births, links, near, count = cells.births, cells.links, _near(cells), len(tree.bottoms)
    if not (len(tree.passes) == len(tree.cells) == len(tree.into) == count and np.isposinf(tree.passes[0])
            and (np.diff(tree.bottoms) >= 0).all() and ((tree.cells >= 0) & (tree.cells < len(births))).all()
            and ((tree.into[1:] >= 0) & (tree.into[1:] < np.arange(1, count))).all()
            and 0 <= tree.slack <= 2 * near * (1 + 1e-9)):
        return count
    wrong = np.abs(births[tree.cells] - tree.bottoms) > near
    for k, (cell, to) in enumerate(zip(tree.cells[1:], tree.into[1:], strict=True), start=1):
        below, above = (_labels(births, links, tree.passes[k] + step) for step in (-near, near))
        wrong[k] |= births[below == below[cell]].min() < tree.bottoms[k] - near
        alive = tree.cells[(tree.bottoms <= tree.passes[k] - near) & (tree.passes >= tree.passes[k] - near)]
        wrong[k] |= (below[alive] == below[cell]).sum() != 1 or above[cell] != above[tree.cells[to]]
        wrong[k] |= tree.passes[to] < tree.passes[k] - near
    return int(wrong.sum())


def _near(cells):
    """Half the distance below which two levels count as one."""
    return SAME * max(float(np.square(cells.y).mean()), 1e-300) / 2


def _labels(births, links, u):
    """The component (C,) of every cell in the graph of the links at or below u."""
    i, j = links[links[:, 2] <= u, :2].astype(int).T
    return connected_components(coo_array((np.ones(len(i)), (i, j)), shape=(len(births),) * 2), directed=False)[1]
