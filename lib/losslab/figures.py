"""Figures in one style that carry their own alternative text.

`new` makes a Matplotlib figure, `show` displays it as inline SVG. Three rules hold for every figure:

* Ink (black) follows the page, light or dark. The data colours of `COLORS` stay: each has a contrast of at least 3:1 on
  white and on dark pages, and the colour-blind can tell them apart.
* Colour is never the only cue: `line` and `points` give each meaning its own line and its own marker.
* The alternative text is required, and it states the numbers that a reader would take from the picture.

Nothing here leaves a pyplot figure open, so no figure is shown twice.
"""
import sys
from numbers import Integral

import matplotlib as mpl
import numpy as np
from IPython.display import display
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from .axes import TensorAxes, numbers
from .inline import CSS, DARK, INK, PAGE, PAPER, check_alt, figcaption, svg

__all__ = ["COLORS", "DIVERGING", "INK", "SEQUENTIAL", "label_line", "line", "markup", "merge_tree", "new",
           "points", "show", "spectrum", "surface", "svg"]

# meaning: (colour, dashes, width of the line, marker)
MEANINGS = {
    "landscape": (INK, "-", 1.6, "."),
    "descent": ("#2c5ee2", "-", 2.4, "D"),
    "saddle": ("#d4792b", (0, (5, 1.5)), 1.8, "X"),
    "minimum": ("#33a369", (0, (9, 2)), 1.8, "o"),
    "barrier": ("#b62a99", (0, (3, 1, 1, 1)), 1.8, "^"),
    "theory": ("#ad78df", "-", 1.8, "P"),
    "measured": ("#925c2b", (0, (2.5, 1)), 1.8, "s"),
    "muted": ("#696969", (0, (1, 1.5)), 1.5, "v"),
}
COLORS = {meaning: row[0] for meaning, row in MEANINGS.items()}
SEQUENTIAL = LinearSegmentedColormap.from_list("depth", ["#22356b", "#476aa3", "#84a9c9", "#c5d9e0", "#faf3dc"])
DIVERGING = "PuOr"
SIZES = {"normal": (5.6, 3.3), "wide": (6.0, 2.7), "tall": (5.6, 5.2), "square": (4.6, 4.4)}  # inches
STYLE = {
    "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": INK, "grid.alpha": 0.14, "grid.linewidth": 0.6,
    "axes.prop_cycle": mpl.cycler(color=[COLORS[k] for k in ("descent", "saddle", "minimum", "barrier", "theory")]),
}


def new(rows=1, cols=1, size="normal"):
    """A figure in the style of the course, and its axes: one `Axes`, or an array of them as `Figure.subplots` gives.
    They draw tensors as they are.

    `size` is "normal", "wide", "tall", "square" or a pair (width, height) in inches. Small is right: the picture grows
    to the width of the page, and its text with it.

    >>> figure, axes = new(1, 2, size="wide")
    >>> axes.shape
    (2,)
    """
    if isinstance(size, str):
        if size not in SIZES:
            raise ValueError(f"size: got {size!r}, expected one of {list(SIZES)} or (width, height) in inches")
        size = SIZES[size]
    for name, value in (("rows", rows), ("cols", cols)):
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name}: got {value!r}, expected a positive integer")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, cols, subplot_kw={"axes_class": TensorAxes})
    for ax in figure.axes:  # most ticks are made later, when the style is no longer in force
        ax.tick_params(labelsize=9, width=0.8, length=3)
    return figure, axes


def line(meaning, halo=False):
    """Keyword arguments of `ax.plot` for a line that means `meaning`; with a light `halo` where it runs on a surface.

    >>> line("descent")["color"] == COLORS["descent"]
    True
    """
    color, dashes, width, _ = _look(meaning)
    effects = {"path_effects": [withStroke(linewidth=width + 1.8, foreground=PAPER)]} if halo else {}
    return {"color": color, "linestyle": dashes, "linewidth": width} | effects


def points(meaning):
    """Keyword arguments of `ax.plot` for points that mean `meaning`.

    >>> points("saddle")["marker"]
    'X'
    """
    color, _, _, marker = _look(meaning)
    return {"color": color, "marker": marker, "linestyle": "none", "markersize": 7.5, "markeredgecolor": PAGE,
            "markeredgewidth": 0.8, "zorder": 3}


def _look(meaning):
    if meaning not in MEANINGS:
        raise ValueError(f"meaning: got {meaning!r}, expected one of {list(MEANINGS)}")
    return MEANINGS[meaning]


class _Shown:
    """HTML in a notebook, the alternative text in a terminal."""

    def __init__(self, markup, alt):
        self.markup, self.alt = markup, alt

    def _repr_html_(self):
        return self.markup

    def __repr__(self):
        return self.alt


def show(figure, alt, caption=None):
    """Display `figure` with its alternative text, and with a caption below it if there is one. Returns None.

    `alt` says what the picture shows, with its numbers: at least 20 characters and a digit. The caption may hold
    `$mathematics$`. Raises TypeError or ValueError for an unfit `alt` and for data that are not finite.

    >>> figure, ax = new()
    >>> _ = ax.plot([-1, 0, 1], [1, 0, 1], **line("landscape"))
    >>> show(figure, "A parabola with its minimum 0 at 0.")
    A parabola with its minimum 0 at 0.
    """
    display(_Shown(markup(figure, alt, caption), check_alt(alt)))
    if "matplotlib.pyplot" in sys.modules:  # a reader's own figure may come from there
        sys.modules["matplotlib.pyplot"].close(figure)


def markup(figure, alt, caption=None):
    """The HTML that `show` displays: `<figure class="losslab-figure">` with the inline SVG and the caption."""
    return f'<figure class="losslab-figure">{CSS}{svg(figure, alt)}{figcaption(caption)}</figure>'


# ---- drawing

def _array(values):
    return np.asarray(numbers(values), float)


def label_line(ax, x, y, text, color=INK, offset=(5, 0), **kwargs):
    """Write `text` to the right of the last point of the line (x, y): better than a legend where there is room.

    `offset` moves it, in points. Other keywords go to `ax.annotate`.

    >>> figure, ax = new()
    >>> label_line(ax, [0, 1], [0, 2], "loss").get_text()
    'loss'
    """
    x, y = _array(x), _array(y)
    if x.ndim != 1 or x.shape != y.shape or x.size == 0:
        raise ValueError(f"x, y: got shapes {x.shape} and {y.shape}, expected two equal lengths, at least 1")
    return ax.annotate(text, (x[-1], y[-1]), offset, textcoords="offset points",
                       **{"va": "center", "color": color, "annotation_clip": False} | kwargs)


def surface(ax, s, t, values, levels=9, log=False, cmap=SEQUENTIAL):
    """Filled contours of `values`, shape (len(t), len(s)), over the plane (s, t), dark where they are low.

    About `levels` contours at round numbers; with `log=True` (positive values only) they are 1, 2, 5, 10, ... or 1, 10,
    100, ... Every second one carries its level. Draw on it with `line(..., halo=True)`. Returns the `ContourSet`.

    >>> figure, ax = new()
    >>> s = np.linspace(-1, 1, 21)
    >>> surface(ax, s, s, s[:, None] ** 2 + s**2 + 0.1, levels=6, log=True).levels.tolist()
    [0.2, 0.5, 1.0, 2.0]
    """
    s, t, values = _array(s), _array(t), _array(values)
    if s.ndim != 1 or t.ndim != 1 or values.shape != (t.size, s.size):
        raise ValueError(f"values: got shape {values.shape}, expected (len(t), len(s)) = ({t.size}, {s.size})")
    if not np.isfinite(values).all():
        raise ValueError("values: got numbers that are not finite")
    if log and values.min() <= 0:
        raise ValueError(f"values: got {values.min():.3g}, expected positive values with log=True")
    marks = _log_levels(values.min(), values.max(), levels) if log else levels
    look = {"norm": mpl.colors.LogNorm(values.min(), values.max())} if log else {}
    filled = ax.contourf(s, t, values, marks, cmap=cmap, extend="both" if log else "neither", **look)
    lines = ax.contour(s, t, values, filled.levels, colors=PAPER, linewidths=0.5, linestyles="-")
    corner, span = np.array([s[0], t[0]]), np.array([s[-1] - s[0], t[-1] - t[0]])
    contours = [(c - corner) / span for path in lines.get_paths() for c in path.to_polygons(closed_only=False)]
    for label in ax.clabel(lines, lines.levels[::2], fmt=_number, fontsize=8, colors=DARK, inline=False):
        label.set(rotation=0, zorder=2.5, bbox={"facecolor": PAPER, "alpha": 0.8, "pad": 1, "edgecolor": "none"})
        place = (label.get_position() - corner) / span
        own = min(contours, key=lambda c, place=place: np.linalg.norm(c - place, axis=1).min())
        inside = 0.06 < place.min() and place.max() < 0.94  # no label is cut by the edge,
        label.set_visible(bool(inside and np.ptp(own, axis=0).max() > 0.2))  # or hides a small well
    ax.grid(False)
    return filled


def _number(value):
    return f"{value:.3g}".replace("-", "−")


def _log_levels(low, high, count):
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for mantissas in ([1, 2, 5], [1, 3], [1]):
        levels = np.outer(decades, mantissas).ravel()
        levels = levels[(levels > low) & (levels < high)]
        if len(levels) <= count:
            break
    return levels if len(levels) > 1 else np.geomspace(low, high, count + 2)[1:-1]


def spectrum(ax, eigenvalues, tolerance=None):
    """Eigenvalues on a symmetric logarithmic axis: negative ones down, zeros as rings, positive ones up.

    An eigenvalue of size at most `tolerance` counts as zero (default: 1e-12 of the largest). Returns the three counts
    (negative, zero, positive), which the picture states too.

    >>> figure, ax = new()
    >>> spectrum(ax, [-1.0, 0.0, 2.0, 3.0])
    (1, 1, 2)
    """
    values = _array(eigenvalues)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"eigenvalues: got shape {values.shape}, expected (M,) with M > 0, all finite")
    size = np.abs(values)
    tolerance = 1e-12 * size.max() if tolerance is None else float(tolerance)
    negative, zero, positive = values[values < -tolerance], values[size <= tolerance], values[values > tolerance]
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.vlines(negative, -1, 0, color=COLORS["saddle"], linewidth=1.4)
    ax.vlines(positive, 0, 1, color=COLORS["minimum"], linewidth=1.4)
    ax.plot(0 * zero, 0 * zero, "o", color=COLORS["muted"], markerfacecolor="none", markersize=7)
    smallest = size[size > tolerance].min(initial=size.max()) or 1.0
    ax.set_xscale("symlog", linthresh=10.0 ** np.floor(np.log10(smallest)))
    ax.xaxis.get_major_locator().set_params(numticks=7)
    ax.set(ylim=(-1.3, 1.6), yticks=[], xlabel="eigenvalue")
    ax.spines["left"].set_visible(False)
    ax.grid(False)
    counts = len(negative), len(zero), len(positive)
    names = [f"{count} {name}" for count, name in zip(counts, ("negative", "zero", "positive"), strict=True)]
    for x, text, side in zip((0.02, 0.5, 0.98), names, ("left", "center", "right"), strict=True):
        ax.text(x, 0.98, text, transform=ax.transAxes, ha=side, va="top")
    return counts


def merge_tree(ax, tree, level=None, top=None):
    """The merge tree of a landscape (`levelsets.MergeTree`): a branch for each valley, from its bottom up to its pass,
    where it joins the branch of an older one. Valleys with a global minimum are green, spurious ones magenta.

    `level` draws a water line; what lies above it is faint. `top` is where the oldest branch ends. Returns the places
    of the valleys on the horizontal axis, an array (valleys,).

    >>> from losslab import levelsets
    >>> figure, ax = new()
    >>> merge_tree(ax, levelsets.merge_tree([0.0, 1.0, 0.5], [[0, 1, 3.0], [1, 2, 2.0]])).tolist()
    [0.0, 2.0, 1.0]
    """
    bottoms, into = _array(tree.bottoms), np.asarray(tree.into)
    finite = _array(tree.passes)[1:]
    top = 1.08 * max(bottoms.max(), finite.max(initial=bottoms.max())) if top is None else float(top)
    passes = np.concatenate([[top], finite])
    order = [0]  # valleys that join later stand further out
    for i in sorted(range(1, len(into)), key=lambda i: -passes[i]):
        order.insert(order.index(into[i]) + i % 2, i)
    place = np.argsort(order).astype(float)
    spurious = set(np.asarray(tree.spurious).tolist())
    for i in range(len(into)):
        meaning = "barrier" if i in spurious else "minimum"
        joint = [place[i]] * 2 + ([place[into[i]]] if i else [])
        height = [bottoms[i]] + [passes[i]] * (2 if i else 1)
        _branch(ax, joint[:2], height[:2], line(meaning) | {"linestyle": "-"}, level)
        if i:
            _branch(ax, joint[1:], height[1:], {"color": INK, "linewidth": 1.2}, level)
        ax.plot(place[i], bottoms[i], **points("minimum" if i not in spurious else "barrier"),
                alpha=1.0 if level is None or bottoms[i] <= level else 0.3)
    if level is not None:
        ax.axhline(level, color=COLORS["descent"], linewidth=2.4)
    ax.set(xlim=(-0.7, len(into) - 0.3), ylim=(None, top), xticks=[], ylabel="level $u$")
    ax.spines["bottom"].set_visible(False)
    return place


def _branch(ax, x, y, look, level):
    """A straight branch; above the level it is faint."""
    wet = y[1] if level is None else min(max(level, y[0]), y[1])
    if y[0] == y[1]:
        ax.plot(x, y, **look, alpha=1.0 if level is None or y[0] <= level else 0.3)
        return
    ax.plot(x, [y[0], wet], **look)
    ax.plot(x, [wet, y[1]], **look, alpha=0.3)
