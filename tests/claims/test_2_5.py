"""Lesson 2.5: one unit by hand, the cells of ReLU nets, the half-network path and the two thresholds of the width."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from losslab import MLP, Landscape, backend, certify, levelsets, lifting, paths
from losslab.levelsets import components, grid, merge_tree, relu_cells
from tests.claims.rerun import rerun
from tests.test_levelsets import random_data, tree_of

SEEDS = range(20)


def struck_out(tree):
    """The tree without its last valley, into which no other flows."""
    return replace(tree, **{name: getattr(tree, name)[:-1] for name in ("bottoms", "passes", "cells", "into")})


def relu_landscape(x, y, h):
    return Landscape(MLP([len(x[0]), h, 1], "relu", bias=False), x, y)


# ---- one unit


@pytest.mark.parametrize("seed", SEEDS)
def test_one_unit_has_a_spurious_valley(seed):
    """N_u = 1, 2, 1 from y_1^2/2, y_2^2/2, (y_1^2 + y_2^2)/2 on: by the cells, and by a grid in the plane of w, v."""
    low, high = np.sort(np.random.default_rng(seed).uniform(0.3, 2, 2)) + [0, 0.3]
    cells = relu_cells([[1.0], [-1.0]], [low, high], 1)
    tree = tree_of(cells)
    levels = np.array([low**2, high**2, low**2 + high**2]) / 2
    assert tree.levels == pytest.approx(levels, rel=1e-12)
    around = np.concatenate([levels - 1e-6, levels + 1e-6])
    assert tree.count(around).tolist() == [0, 1, 2, 1, 2, 1]
    assert len(tree.spurious) == 1 and tree.barriers[1] == pytest.approx(low**2 / 2, rel=1e-9)
    assert certify.valleys(cells, tree)
    assert not certify.valleys(relu_cells([[1.0], [-1.0]], [low, high + 1e-6], 1), tree)
    assert not certify.valleys(cells, struck_out(tree))
    small = relu_cells([[1.0], [-1.0]], [1e-5 * low, 1e-5 * high], 1)  # the tolerance shrinks with the targets
    assert len(tree_of(small).spurious) == 1 and certify.valleys(small, tree_of(small))
    if seed >= 4:  # a grid takes a second
        return
    t = torch.linspace(-3, 3, 301, dtype=torch.float64)  # w = 0 and v = 0 are among the grid lines
    values = relu_landscape([[1.0], [-1.0]], [low, high], 1).value(torch.cartesian_prod(t, t)).view(301, 301)
    births, links = grid(values, diagonal=True)
    sampled = merge_tree(births, links)
    deep = sampled.barriers > 0.5 * tree.barriers[1]
    assert sampled.bottoms[deep] == pytest.approx(tree.bottoms, abs=0.01)
    assert sampled.passes[deep][1] == pytest.approx(tree.passes[1], abs=0.01)


# ---- cells


SIZES = [(1, 3), (1, 5), (2, 2), (2, 3), (2, 4), (3, 2), (3, 3)]


def cell_of(cells, theta):
    """The cell in which theta (M,) lies, found from the signs of <w_j, x_i> alone."""
    h, m, d = cells.h, len(cells.rays), cells.x.shape[1]
    W, v = theta[: h * d].reshape(h, d), theta[h * d :]
    angle = np.arctan2(cells.rays[:, 1], cells.rays[:, 0])
    place = (np.arctan2(W[:, 1], W[:, 0])[:, None] - angle) % (2 * np.pi)
    state = place.argmin(1) + m * (v < 0)
    return np.ravel_multi_index(tuple(state), (2 * m,) * h)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_cells_decide(seed):
    """Every tree is certified; no random network is below its cell, and no random way is below the passes."""
    h, n = SIZES[seed % len(SIZES)]
    x, y = random_data(seed, n)
    cells = relu_cells(x, y, h)
    tree, landscape = tree_of(cells), relu_landscape(x, y, h)
    assert certify.valleys(cells, tree)
    for moved in (replace(cells, y=y + 1e-6), replace(cells, x=x + 1e-6)):
        assert not certify.valleys(moved, tree)
    if len(tree.bottoms) > 1:
        assert not certify.valleys(cells, replace(tree, passes=tree.passes + 1e-6))
        assert not certify.valleys(cells, struck_out(tree))
    thetas = backend.normal(300, landscape.M, seed=seed, scale=1.5)
    values = landscape.value(thetas).numpy()
    births = np.array([cells.births[cell_of(cells, theta)] for theta in thetas.numpy()])
    assert (values >= births - 1e-12).all()
    # Any way between two networks meets links: its highest loss is a level at which their cells hang together.
    for a, b in thetas.view(-1, 3, landscape.M)[:30, :2]:
        top = float(paths.straight(landscape, a, b, 400).losses.max()) + 1e-3
        below = cells.links[cells.links[:, 2] <= top]
        ends = [cell_of(cells, end) for end in (a.numpy(), b.numpy())]
        joined = np.concatenate([below, [[*ends, top]]]) if ends[0] != ends[1] else below
        assert components(cells.births, joined, top) == components(cells.births, below, top)


@pytest.mark.parametrize("seed", SEEDS)
def test_roads_over_the_passes_are_covered_whole(seed):
    h, n = SIZES[seed % len(SIZES)]
    x, y = random_data(seed, n)
    cells = relu_cells(x, y, h)
    tree, landscape = tree_of(cells), relu_landscape(x, y, h)
    for valley in range(1, min(6, len(tree.bottoms))):
        road = cells.road(tree, valley)
        proof = certify.path_below(landscape, road, tree.passes[valley])
        assert proof and proof.how.startswith("exact")
        assert not certify.path_below(landscape, road, tree.passes[valley] - 1e-6)


# ---- the half-network path


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_half_network_path(seed, activation):
    h, n, k = 2 + seed % 9, 5 + seed % 7, 1 + seed % 2
    net = MLP([3, h, k], activation, bias=False)
    landscape = Landscape(net, backend.normal(n, 3, seed=seed), backend.normal(n, k, seed=seed + 50))
    a, b = net.init(seed, batch=2, scale=2.0)
    some = torch.randperm(h, generator=backend.generator(seed, "halves")).tolist()
    chosen = some[: h // 2], sorted(some)[: h - h // 2]  # two sets that overlap
    for halves in (None, chosen):
        path = paths.half_network(landscape, a, b, halves)
        used = halves or tuple(paths.strongest(landscape, end, h // 2) for end in (a, b))
        refitted = [paths.refit(landscape, end, live) for end, live in zip((a, b), used, strict=True)]
        top = float(landscape.value(torch.stack([a, b, *refitted])).max())
        assert torch.equal(path.points[0], a) and torch.equal(path.points[-1], b) and len(path.points) == 8
        proof = certify.path_below(landscape, path, top, tol=1e-11)
        assert proof and proof.how.startswith("exact on 7 whole pieces")
        assert float(path.refined(30).losses.max()) <= top * (1 + 1e-11)
        assert not certify.path_below(landscape, path, top * (1 - 1e-6))
    loud = path.points.clone()
    loud[1:, -1] += 0.1  # the last unit is never silent
    assert "sampled" in certify.path_below(landscape, loud, top).how


# ---- width


@pytest.mark.parametrize("seed", SEEDS)
def test_width_n_and_2n(seed):
    n = 3 + seed % 3
    x, y = random_data(seed, n)
    # (1) from everywhere down to 0, at width n
    landscape = relu_landscape(x, y, n)
    for start in landscape.network.init(seed, batch=2, scale=2.0):
        down = lifting.monotone(landscape, start, seed)
        assert float(down.losses[-1]) < 1e-12
        assert certify.monotone_path(landscape, down, tol=1e-9)
    # (2) between random networks, and between networks with fitted output weights, at width 2n
    assert all(walks(x, y, 2 * n, seed))


def walks(x, y, h, seed):
    """Whether two half-network paths with n and min(n, h - n) units stay below the higher end."""
    n, landscape = len(y), relu_landscape(x, y, h)
    ends = landscape.network.init(seed, batch=4, scale=2.0)
    ends[2:] = paths.refit(landscape, ends[2:])
    for a, b in ends.view(2, 2, -1):
        halves = paths.strongest(landscape, a, n), paths.strongest(landscape, b, min(n, h - n))
        path = paths.half_network(landscape, a, b, halves)
        level = float(torch.maximum(*path.losses[[0, -1]]))
        yield bool(certify.path_below(landscape, path, level, tol=1e-9))


def test_with_one_unit_less_the_recipe_fails_somewhere():
    assert not all(all(walks(*random_data(seed, 5), 9, seed)) for seed in SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_thresholds_in_exact_trees(seed):
    for n, h in ((2, 1), (2, 2), (2, 3), (2, 4), (3, 2), (3, 3)):
        cells = relu_cells(*random_data(seed, n), h)
        tree = tree_of(cells)
        assert certify.valleys(cells, tree)
        if h >= n:
            assert len(tree.spurious) == 0 and tree.minimum < 1e-12
        if h > n:
            assert len(tree.bottoms) == 1


@pytest.mark.parametrize(("n", "h"), [(n, h) for n in (2, 3, 4) for h in (1, 2, 3, 4) if n + h < 8])
def test_no_depth_is_near_the_threshold(n, h, monkeypatch):
    """With 1e-12 in place of 1e-9 the trees are the same, so no valley is between."""
    made = [relu_cells(*random_data(seed, n), h) for seed in range({(3, 4): 4, (4, 3): 8}.get((n, h), 20))]
    trees = [tree_of(cells) for cells in made]
    monkeypatch.setattr(levelsets, "SAME", 1e-12)
    for cells, tree in zip(made, trees, strict=True):
        fine = tree_of(cells)
        assert fine.slack < 0.01 * tree.slack and len(fine.bottoms) == len(tree.bottoms)
        assert len(fine.spurious) == len(tree.spurious)


def test_below_n_there_are_data_with_a_spurious_valley():
    for n, h in ((2, 1), (3, 1), (3, 2), (4, 1), (4, 2), (4, 3)):
        assert any(len(tree_of(relu_cells(*random_data(seed, n), h)).spurious) for seed in range(8))


# ---- the lesson's own cells with other seeds


@pytest.mark.parametrize("seed", [1, 2])
def test_what_the_lesson_prints_does_not_depend_on_the_seed(seed):
    names = ["descents", "walk", "walk-certificate", "execute"]
    said, _ = rerun("2_linear/2_5_relu", seed, names, written=0)
    assert said["descents"].count("True") == 2 and "more than 100" in said["descents"]
    assert said["walk"].count("True") == 2 and "False" not in said["walk"]
    assert said["walk-certificate"].splitlines()[0].startswith("True | exact on 7")
    assert said["walk-certificate"].splitlines()[1].startswith("False | exact on 7")
    assert "sampled" in said["walk-certificate"].splitlines()[2]
    assert "100 of 100" in said["execute"] and "whole pieces: 100\n" in said["execute"]
    assert "all of them: False" in said["execute"]


def test_the_excess_falls_for_another_seed_too():
    said, space = rerun("2_linear/2_5_relu", 1, ["train", "excess"], written=0)
    assert (space["halves"].diff() <= 0).all() and "[128, 256]" in said["excess"]
    assert said["excess"].count("True") == 5


def test_the_table_for_other_data():
    said, space = rerun("2_linear/2_5_relu", 1, ["table"], written=0)
    assert said["table"].count("True") == 5
