"""Merge trees: against a hand-made forest, brute force, grids in the plane of one unit, and moved witnesses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from losslab import MLP, Landscape, certify, levelsets
from losslab.levelsets import grid, merge_tree, relu_cells


def random_data(seed, n):
    """One input with a constant beside it."""
    source = np.random.default_rng(seed)
    inputs = source.uniform(-2, 2, n)
    return np.stack([inputs, np.ones(n)], 1), source.normal(size=n)


def tree_of(cells):
    return merge_tree(cells.births, cells.links)


def struck_out(tree, valleys):
    """The tree without these valleys; what flowed into them flows where they did."""
    into, keep = tree.into.copy(), ~np.isin(np.arange(len(tree.into)), valleys)
    for k in sorted(valleys, reverse=True):
        into[into == k] = tree.into[k]
    number = np.cumsum(keep) - 1
    return replace(tree, bottoms=tree.bottoms[keep], passes=tree.passes[keep], cells=tree.cells[keep],
                   into=np.where(into < 0, -1, number[into])[keep])


# ---- merge trees


def test_a_tree_by_hand():
    #    births 0, 1, 0, 2; two global minima, one side valley that merges with the second, cell 3 is a slope
    tree = merge_tree([0.0, 1.0, 0.0, 2.0], [[0, 3, 5.0], [3, 2, 2.0], [1, 2, 3.0]])
    assert tree.bottoms.tolist() == [0, 0, 1] and tree.passes.tolist() == [np.inf, 5, 3]
    assert tree.cells.tolist() == [0, 2, 1] and tree.into.tolist() == [-1, 0, 1]
    assert tree.barriers.tolist() == [np.inf, 5, 2]
    assert tree.spurious.tolist() == [2] and tree.global_components == 2 and tree.minimum == 0
    assert tree.levels.tolist() == [0, 1, 3, 5]
    assert tree.count([-1, 0, 0.9, 1, 2.9, 3, 4.9, 5]).tolist() == [0, 2, 2, 3, 3, 2, 2, 1]


@pytest.mark.parametrize("seed", range(20))
def test_the_count_is_that_of_a_search_through_the_graph(seed):
    source = np.random.default_rng(seed)
    births = source.normal(size=30)
    pairs = [(i, int(source.integers(i))) for i in range(1, 30)] + source.integers(30, size=(60, 2)).tolist()
    pairs = np.array([pair for pair in pairs if pair[0] != pair[1]])
    links = np.column_stack([pairs, births[pairs].max(1) + source.exponential(size=len(pairs)) * source.integers(2)])
    tree = merge_tree(births, links)
    for u in np.concatenate([births, links[:, 2], births - 1e-6, links[:, 2] + 1e-6]):
        assert tree.count(u) == levelsets.components(births, links, u)


def test_several_links_between_two_cells_count_as_the_lowest():
    assert merge_tree([0.0, 1.0], [[0, 1, 4.0], [1, 0, 2.0]]).passes.tolist() == [np.inf, 2.0]


def test_one_cell_is_a_tree():
    assert repr(merge_tree([3.0], [])) == "MergeTree(1 valleys, 0 spurious; minimum 3 in 1 piece(s))"


def test_unfit_cells_and_links_are_refused():
    with pytest.raises(ValueError, match="births has shape"):
        merge_tree([], [])
    with pytest.raises(ValueError, match="births has shape"):
        merge_tree([0.0, np.nan], [[0, 1, 1.0]])
    with pytest.raises(ValueError, match="i and j from 0 to 1"):
        merge_tree([0.0, 1.0], [[0, 2, 3.0]])
    with pytest.raises(ValueError, match="below the birth"):
        merge_tree([0.0, 1.0], [[0, 1, 0.5]])
    with pytest.raises(ValueError, match="2 pieces"):
        merge_tree([0.0, 1.0, 2.0], [[0, 1, 3.0]])


# ---- grids


def test_a_grid_with_and_without_diagonals():
    values = [[0.0, 9.0, 9.0], [9.0, 1.0, 9.0], [9.0, 9.0, 2.0]]
    straight, diagonal = merge_tree(*grid(values)), merge_tree(*grid(values, diagonal=True))
    assert straight.bottoms.tolist() == [0, 1, 2] and straight.passes.tolist() == [np.inf, 9, 9]
    assert diagonal.bottoms.tolist() == [0]
    assert len(grid(np.zeros((4, 5)))[1]) == 4 * 4 + 3 * 5
    assert len(grid(np.zeros((4, 5)), diagonal=True)[1]) == 4 * 4 + 3 * 5 + 2 * 3 * 4
    assert len(grid(torch.zeros(3, 3, 3))[1]) == 3 * 2 * 9
    assert len(grid(torch.zeros(3, 3, 3), diagonal=True)[1]) == 3 * 18 + 6 * 12 + 4 * 8


def test_a_grid_that_is_too_coarse_misses_a_valley():
    def tree(points):
        t = np.linspace(-2, 2, points)
        return merge_tree(*grid((t**2 - 1) ** 2 + 0.2 * t))
    assert len(tree(401).bottoms) == 2 and len(tree(3).bottoms) == 1


# ---- cells of ReLU nets


def test_the_hand_example():
    tree = tree_of(relu_cells([[1.0], [-1.0]], [1.0, 2.0], 1))
    assert tree.bottoms == pytest.approx([0.5, 2]) and tree.passes[1] == pytest.approx(2.5)


@pytest.mark.parametrize(("h", "n", "seed", "expected", "valleys"), [
    (1, 6, 148, (0.71628, 1.10623, 1.50488, 0.39865), 1),
    (2, 6, 3, (0.35912, 0.57522, 1.27098, 0.69575), 16),
    (3, 5, 3, (0.00024, 0.00489, 0.69947, 0.69458), 42),
])
def test_three_data_sets_with_high_barriers(h, n, seed, expected, valleys):
    """Half of our levels: these numbers were found with the loss sum r^2 / (2 n)."""
    cells = relu_cells(*random_data(seed, n), h)
    tree = tree_of(cells)
    highest = tree.spurious[tree.barriers[tree.spurious].argmax()]
    found = tree.minimum, tree.bottoms[highest], tree.passes[highest], tree.barriers[highest]
    assert [round(value / 2, 5) for value in found] == pytest.approx(expected, abs=1e-9)
    assert len(tree.spurious) == valleys
    assert certify.valleys(cells, tree)


@pytest.mark.parametrize("seed", range(6))
def test_one_unit_against_a_grid_in_its_plane(seed):
    """(a, sign) lies in two planes, glued at 0; for inputs this far apart the mesh is fine enough."""
    x = np.stack([np.linspace(-2, 2, 5), np.ones(5)], 1)
    y = np.random.default_rng(seed).normal(size=5)
    cells = relu_cells(x, y, 1)
    tree, points = tree_of(cells), 401
    roads = [cells.road(tree, valley)[:, :2] for valley in range(1, len(tree.bottoms))]
    met = torch.cat([cells.theta(int(tree.cells[0]))[None, :2], *roads]).numpy()
    axes = np.linalg.inv(np.linalg.cholesky(x.T @ x / len(x)).T)  # in a = axes b the ditches are less narrow
    reach = 1.2 * np.abs(np.linalg.solve(axes, met.T)).max()
    t = np.linspace(-reach, reach, points)
    a = np.stack(np.meshgrid(t, t, indexing="ij"), -1).reshape(-1, 2) @ axes.T
    values = [np.square(sign * np.maximum(a @ x.T, 0) - y).mean(1) for sign in (1, -1)]
    births, links = grid(values[0].reshape(points, points), diagonal=True)
    other = links + [[len(births), len(births), 0]]
    other[:, 2] = np.maximum(*values[1][links[:, :2].astype(int)].T)
    origin = len(births) // 2
    glue = [[origin, origin + len(births), values[0][origin]]]
    sampled = merge_tree(np.concatenate(values), np.concatenate([links, other, glue]))
    deep, found = tree.barriers > 0.02, sampled.barriers > 0.02
    assert deep.sum() == found.sum()
    assert sampled.bottoms[found] == pytest.approx(tree.bottoms[deep], abs=0.01)
    assert sampled.passes[found][1:] == pytest.approx(tree.passes[deep][1:], abs=0.01)
    assert (sampled.bottoms[found] > tree.bottoms[deep] - 1e-12).all()


@pytest.mark.parametrize(("h", "n", "seed"), [(1, 6, 148), (2, 4, 0), (2, 6, 3), (3, 3, 1)])
def test_the_points_of_cells_have_their_levels_and_are_nowhere_undercut(h, n, seed):
    x, y = random_data(seed, n)
    cells = relu_cells(x, y, h)
    landscape = Landscape(MLP([2, h, 1], "relu", bias=False), x, y)
    some = range(0, len(cells.births), max(1, len(cells.births) // 40))
    points = torch.stack([cells.theta(cell) for cell in some])
    assert torch.allclose(landscape.value(points), torch.tensor(cells.births[list(some)]), atol=1e-12)
    source = torch.Generator().manual_seed(0)
    anywhere = 2 * torch.randn(20_000, landscape.M, dtype=torch.float64, generator=source)
    assert landscape.value(anywhere).min() > cells.births.min() - 1e-12


@pytest.mark.parametrize(("h", "n", "seed"), [(1, 6, 148), (2, 6, 3), (3, 3, 12), (2, 3, 0)])
def test_the_road_leads_over_the_pass(h, n, seed):
    x, y = random_data(seed, n)
    cells = relu_cells(x, y, h)
    tree, landscape = tree_of(cells), Landscape(MLP([2, h, 1], "relu", bias=False), x, y)
    for valley in range(1, len(tree.bottoms)):
        road = cells.road(tree, valley)
        values = landscape.value(road)
        assert float(values[0]) == pytest.approx(tree.bottoms[valley], abs=1e-12)
        assert float(values[-1]) == pytest.approx(tree.bottoms[tree.into[valley]], abs=1e-12)
        assert float(values.max()) == pytest.approx(tree.passes[valley], abs=1e-12)
        assert certify.path_below(landscape, road, tree.passes[valley])
        assert not certify.path_below(landscape, road, tree.passes[valley] - 1e-6)


def test_parallel_samples_share_their_rays():
    x = np.array([[1.0, 1.0], [-2.0, -2.0], [0.0, 1.0]])
    cells = relu_cells(x, [1.0, 0.5, -1.0], 2)
    assert len(cells.rays) == 4 and len(cells.births) == 64 and certify.valleys(cells, tree_of(cells))


def test_the_certificate_sees_a_moved_witness():
    cells = relu_cells(*random_data(3, 4), 2)
    tree = tree_of(cells)
    assert certify.valleys(cells, tree) and len(tree.bottoms) > 1
    dented = dict(cells.solved)
    bits = int(cells.sets[0])
    dented[bits] = (dented[bits][0], dented[bits][1] + 1e-6)
    raised = cells.births + 1e-6 * (np.arange(len(cells.births)) == tree.cells[0])
    turned = np.roll(cells.states, 1, 0)
    for moved in (replace(cells, y=cells.y + 1e-6), replace(cells, x=cells.x + 1e-6), replace(cells, solved=dented),
                  replace(cells, births=raised), replace(cells, links=cells.links[1:], faces=cells.faces[1:]),
                  replace(cells, states=turned), replace(cells, faces=np.roll(cells.faces, 1))):
        assert not certify.valleys(moved, tree)
    for other in (replace(tree, passes=tree.passes + 1e-6), replace(tree, bottoms=tree.bottoms - 1e-6),
                  replace(tree, bottoms=tree.bottoms[:-1], passes=tree.passes[:-1])):
        assert not certify.valleys(cells, other)


@pytest.mark.parametrize(("h", "n", "seed"), [(1, 6, 148), (2, 6, 3), (3, 5, 3), (3, 4, 0)])
def test_a_tree_without_one_of_its_valleys_is_refused(h, n, seed):
    """Also where bottom and pass lie between two levels that the rest of the tree names."""
    cells = relu_cells(*random_data(seed, n), h)
    tree = tree_of(cells)
    assert certify.valleys(cells, tree) and len(tree.bottoms) > 1
    for bottom in np.unique(tree.bottoms[1:].round(9)):
        alike = (1 + np.flatnonzero(np.abs(tree.bottoms[1:] - bottom) < 1e-8)).tolist()
        for struck in (alike, alike[:1]):
            fewer = struck_out(tree, struck)
            assert levelsets.miscounted(cells, fewer) > 0 and not certify.valleys(cells, fewer)


def test_valleys_with_each_others_passes_are_refused():
    """The numbers of valleys are right at every level; the barriers are not."""
    cells = relu_cells(*random_data(3, 6), 2)
    tree = tree_of(cells)
    first, last = tree.spurious[[0, -1]]
    passes, into = tree.passes.copy(), tree.into.copy()
    passes[[first, last]] = passes[[last, first]]
    into[first] = last
    twins = np.r_[tree.cells[[0, 0]], tree.cells[2:]]
    for other in (replace(tree, passes=passes), replace(tree, into=np.r_[-1, np.zeros(len(into) - 1, dtype=int)]),
                  replace(tree, into=into), replace(tree, cells=twins), replace(tree, cells=0 * tree.cells)):
        assert levelsets.miscounted(cells, other) == 0
        assert levelsets.mispaired(cells, other) > 0 and not certify.valleys(cells, other)
    for other in (replace(tree, into=tree.into[:-1]), replace(tree, cells=tree.cells - len(cells.births)),
                  replace(tree, passes=tree.passes.clip(max=3.0)), replace(tree, into=tree.into + len(into))):
        assert not certify.valleys(cells, other)
    # Each part on its own: a pass too late, a bottom too high or too low, one cell for two valleys, past a lower valley
    # to its own way out, and the two ends of a merging exchanged (then a valley flows into a later one).
    k, here = 12, np.arange(len(into))
    older = into[k]
    past = replace(tree, passes=np.where(here == k, tree.passes[older], tree.passes),
                   into=np.where(here == k, tree.into[older], tree.into))
    exchanged = replace(past, passes=np.where(here == older, tree.passes[k], past.passes),
                        into=np.where(here == older, k, past.into))
    inside = levelsets._labels(cells.births, cells.links, tree.passes[last] - 1e-6)
    upstairs = np.flatnonzero((inside == inside[tree.cells[last]]) & (cells.births > tree.bottoms[last] + 1e-6))[0]
    high = replace(tree, cells=np.where(here == last, upstairs, tree.cells),
                   bottoms=np.where(here == last, cells.births[upstairs], tree.bottoms))
    for other, wrong in ((replace(tree, passes=tree.passes + 1e-6 * (here == last)), 1), (high, 1),
                         (replace(tree, bottoms=tree.bottoms - 1e-6 * (here == 2)), 1),
                         (replace(tree, cells=twins), 2), (past, 2), (exchanged, 18)):
        assert levelsets.mispaired(cells, other) == wrong


def test_a_way_out_into_a_valley_that_has_ended_is_refused():
    cells = relu_cells(*random_data(3, 5), 3)
    tree = tree_of(cells)
    late = int(np.flatnonzero((tree.into == 0) & (tree.passes > tree.passes[1]))[-1])
    other = replace(tree, into=np.where(np.arange(len(tree.into)) == late, 1, tree.into))
    assert levelsets.mispaired(cells, tree) == 0 == levelsets.miscounted(cells, other)
    assert levelsets.mispaired(cells, other) == 1 and not certify.valleys(cells, other)


def test_levels_in_a_row_too_close_to_look_between_are_refused():
    cells = relu_cells([[1.0], [-1.0]], [1.0, 2.0], 1)
    near = levelsets._near(cells)
    more = [cells.links[:1] + [0, 0, k * near] for k in (1, 2, 3)]
    smeared = replace(cells, links=np.concatenate([cells.links, *more]))
    assert levelsets.miscounted(cells, tree_of(cells)) == 0 < levelsets.miscounted(smeared, tree_of(cells))


@pytest.mark.parametrize("scale", [1e-12, 1e-5, 1.0, 1e6])
def test_small_targets_have_the_same_valleys(scale):
    """No tolerance has a floor: the loss of targets of size 1e-5 is below 1e-9 everywhere near its valleys."""
    cells = relu_cells([[1.0], [-1.0]], [scale, 2 * scale], 1)
    tree = tree_of(cells)
    assert tree.bottoms / scale**2 == pytest.approx([0.5, 2]) and tree.passes[1] / scale**2 == pytest.approx(2.5)
    assert len(tree.spurious) == 1 and tree.levels / scale**2 == pytest.approx([0.5, 2, 2.5])
    proof = certify.valleys(cells, tree)
    assert proof and f"N_u = 1, 2, 1 from u = {0.5 * scale**2:.6g}, " in str(proof)
    assert not certify.valleys(cells, struck_out(tree, [1]))
    large, small = (tree_of(relu_cells(x, y * size, 2)) for x, y in [random_data(3, 6)] for size in (1.0, scale))
    assert len(small.spurious) == len(large.spurious) == 16
    assert small.barriers[1:] / scale**2 == pytest.approx(large.barriers[1:], rel=1e-9)


def test_two_valleys_in_one_place_are_refused():
    """Twins, with one bottom and one pass, may not share a cell, nor flow into each other; nor may a valley be flat."""
    cells = relu_cells(*random_data(3, 6), 2)
    tree = tree_of(cells)
    assert tree.bottoms[12] == pytest.approx(tree.bottoms[13]) and tree.passes[12] == pytest.approx(tree.passes[13])
    one_place, circle = tree.cells.copy(), tree.into.copy()
    one_place[12] = one_place[13]
    circle[[12, 13]] = 13, 12
    for other in (replace(tree, cells=one_place), replace(tree, into=circle)):
        assert levelsets.miscounted(cells, other) == 0
        assert levelsets.mispaired(cells, other) > 0 and not certify.valleys(cells, other)
    two = relu_cells(*random_data(0, 2), 2)
    one = tree_of(two)
    assert len(one.bottoms) == 1 and certify.valleys(two, one)
    shelf = int(np.argmax(two.births > one.minimum + 1e-3))
    level = two.births[shelf]
    flat = replace(one, bottoms=np.r_[one.bottoms, level], passes=np.r_[one.passes, level],
                   cells=np.r_[one.cells, shelf], into=np.r_[one.into, 0])
    assert levelsets.miscounted(two, flat) == 0 and not certify.valleys(two, flat)


def test_a_slack_that_hides_a_valley_is_refused():
    cells = relu_cells([[1.0], [-1.0]], [1.0, 2.0], 1)
    tree = tree_of(cells)
    for slack in (0.6, 2.0, -1.0):
        assert not certify.valleys(cells, replace(tree, slack=slack))


def test_rays_that_are_too_short_or_too_few_are_refused():
    cells = relu_cells(*random_data(3, 6), 2)
    size, (m, _) = np.square(cells.y).mean(), cells.rays.shape
    silent = replace(cells, rays=1e-13 * cells.rays, births=0 * cells.births + size, links=cells.links * [1, 1, 0]
                     + [0, 0, size], solved={bits: (size, np.zeros(2 * m)) for bits in cells.solved})
    assert levelsets.complete(cells) and not levelsets.complete(silent)
    # Small samples beside large ones: their sides count too.
    x = np.array([[1e9, 0.0], [0.0, 1e9], [1e-6, -1e-6], [-1e-6, 1e-6]])
    whole, part = relu_cells(x, [0.0, 0.0, 1.0, 1.0], 1), relu_cells(x[:2], [0.0, 0.0], 1)
    y = whole.y
    blind = replace(part, x=x, y=y, births=0 * part.births + 0.5, links=part.links * [1, 1, 0] + [0, 0, 0.5])
    assert levelsets.complete(whole) and levelsets.complete(part) and not levelsets.complete(blind)


@pytest.mark.parametrize("e", [1e-13, 1e-12, 4e-10])
def test_directions_too_near_to_tell_apart_are_refused(e):
    """Rounded to one direction they have another landscape: these samples are fitted exactly, by weights 1 / e."""
    with pytest.raises(ValueError, match="directions differ by"):
        relu_cells([[1.0, e], [-1.0, e], [0.0, -1.0]], [1.0, 2.0, 0.0], 1)


def test_cones_and_links_are_checked_on_their_own():
    cells = relu_cells(*random_data(3, 4), 2)
    assert levelsets.complete(cells)
    swapped = cells.faces.copy()
    swapped[[0, -1]] = swapped[[-1, 0]]
    links = cells.links.copy()
    links[0, :2] = links[0, 0], (links[0, 1] + 1) % len(cells.births)
    for moved in (replace(cells, faces=swapped), replace(cells, rays=cells.rays[::-1]), replace(cells, links=links),
                  replace(cells, x=cells.x + [[0.1, 0.0]]), replace(cells, rays=np.roll(cells.rays, 1, 0) * [1, -1])):
        assert not levelsets.complete(moved)


def test_unfit_data_are_refused():
    with pytest.raises(ValueError, match="x has shape"):
        relu_cells(np.zeros((3, 4)), np.zeros(3), 1)
    with pytest.raises(ValueError, match="y has shape"):
        relu_cells(np.ones((3, 1)), np.zeros(4), 1)
    with pytest.raises(ValueError, match="row of zeros"):
        relu_cells([[0.0], [1.0]], [1.0, 2.0], 1)
    with pytest.raises(ValueError, match="in one direction"):
        relu_cells([[1.0, 1.0], [2.0, 2.0]], [1.0, 2.0], 1)
    with pytest.raises(ValueError, match="h is 0"):
        relu_cells([[1.0], [2.0]], [1.0, 2.0], 0)
    with pytest.raises(ValueError, match="at most 300,000"):
        relu_cells(*random_data(0, 8), 4)
    cells = relu_cells([[1.0], [-1.0]], [1.0, 2.0], 1)
    with pytest.raises(ValueError, match="valley is 0"):
        cells.road(tree_of(cells), 0)
