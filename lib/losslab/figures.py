"""Figures in one style that carry their own alternative text.

`new` makes a Matplotlib figure, `show` displays it as inline SVG. Three rules hold for every figure:

* Ink (black) becomes `currentColor`: axes and text follow the page, light or dark. The data colours of `COLORS` stay:
  each has a contrast of at least 3:1 on white and on the dark pages.
* Colour is never the only cue: `line` and `points` give each meaning its own dashes and its own marker.
* The alternative text is required, and it states the numbers that a reader would take from the picture.

Nothing here touches pyplot, so no figure stays open and none is shown twice.
"""
import hashlib
import html
import io
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import Formatter, LogFormatter

INK = "#000000"  # drawn as `currentColor`
PAPER, DARK = "#ffffff", "#111111"  # these stay as they are: marker edges, and text on them
COLORS = {
    "descent": "#325fe4", "saddle": "#e47231", "minimum": "#45a471", "barrier": "#e061d9",
    "theory": "#895190", "measured": "#9f5235", "muted": "#656565",
}
DASHES = {
    "descent": "-", "saddle": (0, (5, 1.5)), "minimum": "-", "barrier": (0, (3, 1, 1, 1)),
    "theory": (0, (6, 2)), "measured": "-", "muted": (0, (1, 1.5)),
}
MARKERS = {
    "descent": "D", "saddle": "X", "minimum": "o", "barrier": "^", "theory": "s", "measured": "P", "muted": ".",
}
SEQUENTIAL, DIVERGING = "cividis", "PuOr"
SIZES = {"normal": (5.6, 3.3), "wide": (6.4, 2.9), "tall": (5.6, 5.2), "square": (4.6, 4.6)}  # inches
STYLE = {
    "font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10, "legend.fontsize": 9,
    "xtick.labelsize": 9, "ytick.labelsize": 9, "mathtext.fontset": "dejavusans",
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": INK, "grid.alpha": 0.14, "grid.linewidth": 0.6,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "legend.frameon": False,
    "lines.linewidth": 1.8, "lines.markersize": 6,
    "axes.prop_cycle": mpl.cycler(color=[COLORS[k] for k in ("descent", "saddle", "minimum", "barrier")]),
    "svg.fonttype": "none", "svg.hashsalt": "losslab",
}


def new(rows=1, cols=1, size="normal"):
    """A figure in the style of the course, and its axes: one `Axes`, or an array of them as `Figure.subplots` gives.

    `size` is "normal", "wide", "tall", "square" or a pair (width, height) in inches. Small is right: the picture grows
    to the width of the page, and its text with it.

    >>> figure, axes = new(1, 2, size="wide")
    >>> axes.shape
    (2,)
    """
    if isinstance(size, str) and size not in SIZES:
        raise ValueError(f"size: got {size!r}, expected one of {sorted(SIZES)} or a pair (width, height) in inches")
    for name, value in (("rows", rows), ("cols", cols)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: got {value!r}, expected a positive integer")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZES.get(size, size) if isinstance(size, str) else size, layout="constrained")
        axes = figure.subplots(rows, cols)
    for ax in figure.axes:  # ticks are made late, when the style above is no longer in force
        ax.tick_params(labelsize=9, width=0.8, length=3)
    return figure, axes


def line(meaning, halo=False):
    """Keyword arguments of `ax.plot` for a line that means `meaning`; with a white `halo` where it runs on a surface.

    >>> line("descent")["color"] == COLORS["descent"]
    True
    """
    _known(meaning)
    return {"color": COLORS[meaning], "linestyle": DASHES[meaning], "linewidth": 1.8} | (
        {"path_effects": [withStroke(linewidth=3.4, foreground=PAPER)]} if halo else {})


def points(meaning):
    """Keyword arguments of `ax.plot` for points that mean `meaning`.

    >>> points("saddle")["marker"]
    'X'
    """
    _known(meaning)
    return {"color": COLORS[meaning], "marker": MARKERS[meaning], "linestyle": "none", "markersize": 7,
            "markeredgecolor": PAPER, "markeredgewidth": 0.7, "zorder": 3}


def _known(meaning):
    if meaning not in COLORS:
        raise ValueError(f"meaning: got {meaning!r}, expected one of {sorted(COLORS)}")


# ---- showing

def show(figure, alt, caption=None):
    """Display `figure` with its alternative text, and a caption below it if there is one.

    `alt` says what the picture shows, with its numbers: it has at least 20 characters and a digit. The caption may hold
    `$mathematics$`. Returns None. Raises TypeError or ValueError for an unfit `alt` and for data that are not finite.

    >>> figure, ax = new()
    >>> _ = ax.plot([-1, 0, 1], [1, 0, 1], **line("theory"))
    >>> show(figure, "A parabola with its minimum 0 at 0.")
    A parabola with its minimum 0 at 0.
    """
    display(_Shown(markup(figure, alt, caption), check_alt(alt)))


class _Shown:
    """What a notebook displays as HTML and a terminal as the alternative text."""

    def __init__(self, markup, alt):
        self.markup, self.alt = markup, alt

    def _repr_html_(self):
        return self.markup

    def __repr__(self):
        return self.alt


def markup(figure, alt, caption=None):
    """The HTML that `show` displays: `<figure class="losslab-figure">` with the inline SVG and the caption."""
    picture = svg(figure, alt)
    return f'<figure class="losslab-figure" style="margin:1em 0">{CSS}{picture}{figcaption(caption)}</figure>'


# The book's theme puts a light box behind HTML outputs when the page is dark; these pictures need none.
CSS = ("<style>html[data-theme] .bd-content div.cell_output .text_html:has(>.losslab-figure,>.losslab-slider)"
       "{background:none;color:inherit;padding:0}</style>")


def figcaption(caption):
    """A `<figcaption>`, or nothing; `$...$` in it is set by MathJax in the book and in Jupyter."""
    if caption is None:
        return ""
    if not isinstance(caption, str) or not caption.strip():
        raise ValueError(f"caption: got {caption!r}, expected text or None")
    text = re.sub(r"\$([^$]+)\$", r"\\(\1\\)", html.escape(caption, quote=False))
    return f'<figcaption class="mathjax_process">{text}</figcaption>'


def check_alt(alt):
    """Return `alt` if it can stand for the picture, else raise.

    >>> check_alt("figure.png")
    Traceback (most recent call last):
    ValueError: alt: got 'figure.png', expected a sentence of at least 20 characters that states the numbers
    """
    if not isinstance(alt, str):
        raise TypeError(f"alt: got {type(alt).__name__}, expected a str")
    alt = " ".join(alt.split())
    if len(alt) < 20 or " " not in alt or not re.search(r"\d", alt):
        raise ValueError(f"alt: got {alt!r}, expected a sentence of at least 20 characters that states the numbers")
    return alt


def svg(figure, alt):
    """The figure as one `<svg>` element for an HTML page: small, the same bytes for the same figure, ink as
    `currentColor`, text as text, ids with a prefix of their own, `role="img"` with `alt` as its label.

    >>> figure, ax = new()
    >>> svg(figure, "Empty axes from 0 to 1.")[:17]
    '<svg viewBox="0 0'
    """
    alt = check_alt(alt)
    if not isinstance(figure, Figure):
        raise TypeError(f"figure: got {type(figure).__name__}, expected a matplotlib Figure")
    _check_data(figure)
    formulas = _plain_text(figure)
    file = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ET.fromstring(file.getvalue())
    _compact(root, formulas)
    width, height = (round(float(root.get(k)[:-2]), 2) for k in ("width", "height"))
    body = "".join(ET.tostring(child, encoding="unicode") for child in root).replace(f' xmlns="{SVG}"', "")
    prefix = "f" + hashlib.sha256(body.encode()).hexdigest()[:8] + "-"
    body = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}", body)
    style = f"width:100%;max-width:{round(width * 1.6)}px;height:auto;display:block;margin:auto;overflow:visible"
    return (f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(alt)}" style="{style}" '
            f'font-family="{FONTS}" stroke-linejoin="round">{body}</svg>')


SVG, XLINK = "http://www.w3.org/2000/svg", "{http://www.w3.org/1999/xlink}"
FONTS = "system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,'Liberation Sans',sans-serif"
ET.register_namespace("", SVG)


def _check_data(figure):
    """A gap (some NaN) is a choice; infinity, or nothing but NaN, is a mistake."""
    for ax in figure.axes:
        series = [(a, np.asarray(a.get_xydata(), float)) for a in ax.lines]
        series += [(a, np.ma.filled(np.ma.asarray(a.get_offsets(), float), np.nan)) for a in ax.collections]
        for artist, xy in series:
            if np.isinf(xy).any() or (xy.size and np.isnan(xy).any(axis=1).all()):
                raise ValueError(f"figure: {artist.get_label()!r} has data that are not finite")


def _compact(root, formulas):
    """Strip what a page does not need, round coordinates to 0.01 pt, turn ink into `currentColor`."""
    used = set(re.findall(r"#([\w.-]+)", " ".join(v for e in root.iter() for v in e.attrib.values())))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith("}metadata") or child.tag.endswith("}style"):
                parent.remove(child)
    for e in root.iter():
        e.tail = None
        if e.get("id") not in used:
            e.attrib.pop("id", None)
        if not e.tag.endswith("}text") and not e.tag.endswith("}tspan"):
            e.text = None
        for key in ("d", "x", "y", "width", "height", "transform", "points"):
            if key in e.attrib and e is not root:
                e.set(key, _short(e.get(key)))
        if e.get("transform", "").startswith(("rotate(0", "rotate(-0")):
            del e.attrib["transform"]
        if XLINK + "href" in e.attrib:
            e.set("href", e.attrib.pop(XLINK + "href"))
        if "style" in e.attrib:
            e.set("style", _restyle(e.get("style"), e.tag.endswith("}text")))
        if e.tag.endswith("}text") and e.text in formulas:
            _set_formula(e, formulas[e.text])
    for parent in list(root.iter())[::-1]:  # groups that say nothing
        children = []
        for child in parent:
            children += list(child) if child.tag == f"{{{SVG}}}g" and not child.attrib else [child]
        parent[:] = children


def _short(numbers):
    numbers = re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), numbers)
    return re.sub(r" ?([MLQCZz]) ?", r"\1", " ".join(numbers.split()))


def _restyle(style, is_text):
    style = re.sub(r"font-family: [^;]*;? ?", "", style)
    if is_text:  # text in a data colour is mixed with the ink: 4.5:1 on light and on dark pages
        style = re.sub(r"fill: (#(?!000000|ffffff|111111)\w{6})", r"fill: color-mix(in srgb,\1 55%,currentColor)", style)
        style = style if "fill" in style else style + "; fill: #000000"
    return re.sub(r"([:;]) ", r"\1", style.replace(INK, "currentColor")).rstrip("; ")


# ---- formulas: browsers lack TeX's fonts, so simple mathematics becomes text in Unicode with raised and lowered parts

SYMBOLS = dict(zip(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi varphi chi psi "
    "omega Gamma Delta Theta Lambda Sigma Phi Psi Omega nabla partial infty cdot times le leq ge geq ne approx pm to in "
    "sum prod ldots dots mapsto circ ell top sim".split(),
    "α β γ δ ϵ ε ζ η θ κ λ μ ν ξ π ρ σ τ φ φ χ ψ ω Γ Δ Θ Λ Σ Φ Ψ Ω ∇ ∂ ∞ · × ≤ ≤ ≥ ≥ ≠ ≈ ± → ∈ ∑ ∏ … … ↦ ∘ ℓ ⊤ ∼".split()))
SPACED = set("=<>≤≥≠≈→∈↦±×∼")
SUPERSCRIPT = str.maketrans("-−0123456789", "⁻⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class _Decades(Formatter):
    """The labels of a logarithmic axis, 10⁻³ for `$10^{-3}$`, by the axis's own formatter."""

    def __init__(self, inner):
        self.inner = inner

    def set_axis(self, axis):
        self.inner.set_axis(axis)

    def set_locs(self, locs):
        self.inner.set_locs(locs)

    def __call__(self, x, pos=None):
        text = re.sub(r"\^\{([^}]*)\}", lambda m: m[1].translate(SUPERSCRIPT), self.inner(x, pos))
        return re.sub(r"\$|\\mathdefault|[{}]", "", text).replace(r"\times", "×")


def _plain_text(figure):
    """Set every formula of the figure as plain text; return {plain text: its parts} for `_set_formula`."""
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatter):
                axis.set_major_formatter(_Decades(axis.get_major_formatter()))
            if isinstance(axis.get_minor_formatter(), LogFormatter):
                axis.set_minor_formatter(_Decades(axis.get_minor_formatter()))
    formulas = figure.__dict__.setdefault("_losslab_formulas", {})  # the figure may be drawn again
    for text in figure.findobj(Text):
        parts = _parts(text.get_text())
        if parts:
            plain = "".join(part[0] for part in parts)
            formulas[plain] = parts
            text.set_text(plain)
    return formulas


def _parts(label):
    """[(text, italic, shift)] of a label with `$...$`, shift 1 above, -1 below; None if there is nothing to do.

    >>> _parts(r"$\lambda_{\min}$ and 1")
    [('λ', True, 0), ('min', False, -1), (' and 1', False, 0)]
    """
    pieces = label.split("$")
    if len(pieces) % 2 == 0 or len(pieces) == 1:
        return None
    parts = []
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            parts.append((piece, False, 0))
            continue
        shift = depth = 0
        for token in re.findall(r"\\[A-Za-z]+|\\.|\S", piece):
            if token in "^_":
                shift = 1 if token == "^" else -1
                continue
            if token in "{}":
                depth += 1 if token == "{" else -1
                shift = shift if depth else 0
                continue
            if token in (r"\min", r"\max", r"\log", r"\exp", r"\ln", r"\sin", r"\cos", r"\tanh"):
                parts.append((token[1:], False, shift))
            elif token[0] == "\\":
                if token[1:] not in SYMBOLS and token not in (r"\,", r"\ ", r"\|"):
                    return None  # left to Matplotlib
                symbol = SYMBOLS.get(token[1:], {r"\|": "‖"}.get(token, " "))
                parts.append((f" {symbol} " if symbol in SPACED and not shift else symbol, symbol in "αβγδϵεζηθκλμνξπρστφχψωℓ", shift))
            else:
                token = token.replace("-", "−").replace("'", "′")
                parts.append((f" {token} " if token in SPACED and not shift else token, token.isalpha(), shift))
            shift = shift if depth else 0
    return [part for part in parts if part[0]]


def _set_formula(element, parts):
    element.text, back = None, 0
    for text, italic, shift in parts:
        span = ET.SubElement(element, f"{{{SVG}}}tspan")
        span.text = text
        if italic:
            span.set("font-style", "italic")
        dy = back - 0.33 * shift  # in em of the full size: lines go down, superscripts up
        back = 0.33 * shift
        if shift:
            span.set("font-size", "75%")
        if dy:
            span.set("dy", f"{dy / (0.75 if shift else 1):.2f}em")


# ---- drawing

def _array(values):
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, float)


def label_line(ax, x, y, text, color=INK, offset=(5, 0), **kwargs):
    """Write `text` to the right of the last point of the line (x, y): better than a legend where there is room.

    >>> figure, ax = new()
    >>> label_line(ax, [0, 1], [0, 2], "loss").get_text()
    'loss'
    """
    x, y = _array(x), _array(y)
    if x.ndim != 1 or x.shape != y.shape or x.size == 0:
        raise ValueError(f"x, y: got shapes {x.shape} and {y.shape}, expected one length, at least 1")
    return ax.annotate(text, (x[-1], y[-1]), offset, textcoords="offset points", va="center", color=color, **kwargs)


def surface(ax, s, t, values, levels=10, log=False, labels=True):
    """Filled contours of `values`, shape (len(t), len(s)), over the plane (s, t); returns the `ContourSet`.

    `log=True` spaces the levels evenly in the logarithm (positive values only). Every second contour carries its level.

    >>> figure, ax = new()
    >>> s = np.linspace(-1, 1, 21)
    >>> surface(ax, s, s, s[:, None] ** 2 + s**2).levels.size > 4
    True
    """
    s, t, values = _array(s), _array(t), _array(values)
    if values.shape != (t.size, s.size):
        raise ValueError(f"values: got shape {values.shape}, expected (len(t), len(s)) = {(t.size, s.size)}")
    if not np.isfinite(values).all():
        raise ValueError("values: got numbers that are not finite")
    if log and values.min() <= 0:
        raise ValueError(f"values: got {values.min():.3g}, expected positive values with log=True")
    z = np.log10(values) if log else values
    filled = ax.contourf(s, t, z, levels, cmap=SEQUENTIAL)
    lines = ax.contour(s, t, z, filled.levels, colors=PAPER, linewidths=0.5, linestyles="-")
    if labels:
        form = (lambda v: f"{10**v:.2g}") if log else (lambda v: f"{v:.3g}")
        for text in ax.clabel(lines, lines.levels[1:-1:2], fmt=form, fontsize=8, colors=DARK, inline=False):
            text.set(rotation=0, bbox={"facecolor": PAPER, "alpha": 0.8, "pad": 1, "edgecolor": "none"})
    ax.grid(False)
    return filled


def spectrum(ax, eigenvalues, tolerance=None):
    """Eigenvalues as ticks on a symmetric logarithmic axis: negative ones down, zeros as rings, positive ones up.

    An eigenvalue counts as zero below `tolerance` (default: the size of rounding, 1e-12 of the largest). Returns the
    three counts (negative, zero, positive).

    >>> figure, ax = new()
    >>> spectrum(ax, [-1.0, 0.0, 2.0, 3.0])
    (1, 1, 2)
    """
    values = _array(eigenvalues)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"eigenvalues: got shape {values.shape}, expected (M,) with M > 0, all finite")
    size = np.abs(values)
    tolerance = 1e-12 * size.max() if tolerance is None else float(tolerance)
    negative, positive = values[values < -tolerance], values[values > tolerance]
    zero = values[size <= tolerance]
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.vlines(negative, -1, 0, color=COLORS["saddle"], linewidth=1.4)
    ax.vlines(positive, 0, 1, color=COLORS["minimum"], linewidth=1.4)
    ax.plot(zero, 0 * zero, "o", color=COLORS["muted"], markerfacecolor="none", markersize=7)
    nonzero = size[size > tolerance]
    ax.set_xscale("symlog", linthresh=10 ** np.floor(np.log10(nonzero.min())) if nonzero.size else 1)
    ax.xaxis.get_major_locator().set_params(numticks=7)
    ax.set(ylim=(-1.6, 1.6), yticks=[], xlabel="eigenvalue")
    ax.spines["left"].set_visible(False)
    ax.grid(False)
    counts = len(negative), len(zero), len(positive)
    for x, (count, name) in zip((0.02, 0.5, 0.98), zip(counts, ("negative", "zero", "positive"))):
        ax.text(x, 0.97, f"{count} {name}", transform=ax.transAxes, ha={0.02: "left", 0.98: "right"}.get(x, "center"), va="top")
    return counts
