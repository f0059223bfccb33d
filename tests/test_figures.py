"""Figures: colours that everyone can tell apart, SVG that follows the page, alternative text that states numbers."""
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from losslab import backend, figures, inline, levelsets

ALT = "A parabola with its minimum 0 at 0."
DATA_COLORS = {meaning: color for meaning, color in figures.COLORS.items() if color != figures.INK}
# Machado, Oliveira, Fernandes, "A physiologically-based model for simulation of color vision deficiency" (2009),
# severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                            [0.004733, 0.691367, 0.303900]]),
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                [0.0193339, 0.1191920, 0.9503041]])


def rgb(color):
    return np.array(mpl.colors.to_rgb(color))


def linear(values):
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    light = sorted(linear(c) @ XYZ[1] for c in (a, b))
    return (light[1] + 0.05) / (light[0] + 0.05)


def lab(color, vision):
    x = XYZ @ np.clip(VISION[vision] @ linear(rgb(color)), 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(x > 216 / 24389, np.cbrt(x), (24389 / 27 * x + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def parabola(**kwargs):
    figure, ax = figures.new(**kwargs)
    x = np.linspace(-1, 1, 51)
    ax.plot(x, x**2, **figures.line("theory"))
    ax.plot([0], [0], **figures.points("minimum"))
    ax.set(xlabel=r"weight $\theta_1$", ylabel="loss")
    return figure, ax


class Elements(HTMLParser):
    """The elements of a piece of HTML as (tag, attributes), the text, and a check that the tags are balanced."""

    def __init__(self, markup):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(markup)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("input",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data

    def all(self, tag, **wanted):
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]


# ---- colours

@pytest.mark.parametrize("background", ["#ffffff", "#121212", "#14181e"])
def test_data_colours_stand_out_on_every_page(background):
    for meaning, color in DATA_COLORS.items():
        assert contrast(rgb(color), rgb(background)) >= 3, meaning


@pytest.mark.parametrize("background, ink", [("#ffffff", "#323232"), ("#121212", "#ced6dd")])
def test_text_in_a_data_colour_is_readable(background, ink):
    """The theme's own pairs of page and ink; the browser mixes the data colour with the ink."""
    share = inline.TEXT_SHARE / 100
    for meaning, color in DATA_COLORS.items():
        assert contrast(share * rgb(color) + (1 - share) * rgb(ink), rgb(background)) >= 4.5, meaning


@pytest.mark.parametrize("vision", VISION)
def test_colours_differ_for_every_reader(vision):
    """A CIE Lab distance of 20 is about ten times what the eye can just tell apart."""
    for (a, x), (b, y) in combinations(DATA_COLORS.items(), 2):
        assert np.linalg.norm(lab(x, vision) - lab(y, vision)) >= 20, (a, b)


def test_colour_is_never_the_only_cue():
    lines = [(str(dashes), width) for _, dashes, width, _ in figures.MEANINGS.values()]
    markers = [marker for *_, marker in figures.MEANINGS.values()]
    assert len(set(markers)) == len(markers)
    for (a, x), (b, y) in combinations(zip(figures.MEANINGS, lines, strict=True), 2):
        assert x != y or "landscape" in (a, b) or abs(x[1] - y[1]) > 0.5, (a, b)


def test_surface_colours_grow_lighter_all_the_way():
    lightness = [lab(figures.SEQUENTIAL(t), "normal")[0] for t in np.linspace(0, 1, 33)]
    assert np.all(np.diff(lightness) > 0.5)


# ---- the SVG

def test_svg_is_one_small_balanced_picture_with_its_text():
    markup = figures.svg(parabola()[0], ALT)
    page = Elements(markup)
    (picture,) = page.all("svg")
    assert picture["role"] == "img" and picture["aria-label"] == ALT
    assert "width:100%" in picture["style"] and picture["viewbox"].startswith("0 0 ")
    assert "weight θ1" in page.text and "loss" in page.text
    assert len(markup) < 12_000
    for noise in ("<g>", "<?xml", "<!DOCTYPE", "metadata", "<!--", "DejaVu", "xmlns", "matplotlib"):
        assert noise not in markup


def test_ink_follows_the_page_and_data_colours_stay():
    markup = figures.svg(parabola()[0], ALT)
    assert "#000000" not in markup and "currentColor" in markup
    assert figures.COLORS["theory"] in markup and figures.COLORS["minimum"] in markup
    assert "fill:#ffffff" not in markup  # no white box behind the picture
    assert Elements(markup).all("svg", fill="currentColor") and not re.search("<text[^>]*fill", markup)


def test_black_markers_follow_the_page_too():
    """Matplotlib leaves out a black fill, because black is what SVG fills with; here it is the ink."""
    figure, ax = figures.new()
    ax.plot([0, 1], [0, 1], "o", color=figures.INK, markeredgecolor=figures.COLORS["saddle"])
    fills = set(re.findall(r'fill[:=]"?([^;"]+)', figures.svg(figure, ALT)))
    assert fills == {"currentColor", "none"}


def test_text_in_a_data_colour_is_mixed_with_the_ink():
    figure, ax = figures.new()
    figures.label_line(ax, [0, 1], torch.tensor([0.0, 1.0]), "path", figures.COLORS["descent"])
    fill = f"color-mix(in srgb,{figures.COLORS['descent']} {inline.TEXT_SHARE}%,currentColor)"
    assert fill in figures.svg(figure, ALT)


def test_the_box_of_a_legend_has_the_colour_of_the_page():
    figure, ax = figures.new()
    ax.plot([0, 1], [0, 1], label="loss")
    ax.legend()
    markup = figures.svg(figure, ALT)
    assert "fill:var(--losslab-page" in markup and "#ffff" not in markup


def test_ids_are_unique_and_every_reference_resolves():
    first, second = parabola()[0], parabola(size="square")[0]
    markups = [figures.svg(f, ALT) for f in (first, second)]
    ids = [set(re.findall(r' id="([^"]+)"', m)) for m in markups]
    assert ids[0] and not ids[0] & ids[1]
    for markup, known in zip(markups, ids, strict=True):
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', markup))
        assert {a or b for a, b in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', markup)} == known


def test_same_figure_same_bytes_here_and_elsewhere():
    here = figures.svg(parabola()[0], ALT)
    figure = parabola()[0]
    assert figures.svg(figure, ALT) == here == figures.svg(figure, ALT)  # and drawing changes nothing
    code = "import sys; sys.path.insert(0, 'tests'); import test_figures as t; " \
           "sys.stdout.reconfigure(encoding='utf-8'); sys.stdout.write(t.figures.svg(t.parabola()[0], t.ALT))"
    root = Path(__file__).parents[1]
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=root)
    assert other.stdout.decode() == here


def test_no_global_state_is_left():
    before = dict(mpl.rcParams)
    figures.svg(parabola()[0], ALT)
    assert dict(mpl.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_a_figure_of_pyplot_is_closed_when_shown(capsys):
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    figure, ax = plt.subplots()
    ax.plot([0, 1])
    figures.show(figure, ALT)
    assert plt.get_fignums() == []
    assert capsys.readouterr().out.strip() == ALT


def test_formulas_become_text():
    figure, ax = figures.new()
    ax.set(title=r"$\lambda_{\min} < 0$", xlabel="$x^2$\nsecond line", ylabel=r"$\frac{1}{2}$")
    ax.set(yscale="log", ylim=(1e-3, 1))
    markup = figures.svg(figure, ALT)
    assert '<tspan font-style="italic">λ</tspan><tspan font-size="75%" dy="0.44em">min</tspan>' in markup
    assert '<tspan font-size="75%" dy="-0.44em">2</tspan>' in markup and "second line" in markup
    assert "10⁻³" in markup and "mathdefault" not in markup
    assert "$" not in markup and "frac" not in markup  # what is beyond symbols, Matplotlib sets


def test_formula_steps_up_and_down_again():
    label = r"$w_{ij}a^2 - \Theta$ at 0"
    assert inline._parts(label) == [("w", True, 0), ("i", True, -1), ("j", True, -1), ("a", True, 0), ("2", False, 1),
                                    ("−", False, 0), ("Θ", False, 0), (" at 0", False, 0)]
    figure, ax = figures.new()
    ax.set_xlabel(label)
    steps = re.findall(r'<tspan[^>]*?(font-size="75%")?(?: dy="([^"]+)em")?>', figures.svg(figure, ALT))
    heights = np.cumsum([float(dy or 0) * (0.75 if small else 1) for small, dy in steps])
    assert heights == pytest.approx([0, 0.33, 0.33, 0, -0.33, 0, 0, 0], abs=0.01)  # in em, downwards


# ---- showing

def test_show_displays_html_and_the_alternative_text(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", shown.append)
    assert figures.show(parabola()[0], ALT, caption="One minimum: $x < 1$ &amp; more.") is None
    page = Elements(shown[0]._repr_html_())
    assert page.all("figure", **{"class": "losslab-figure"}) and page.all("figcaption")
    assert r"One minimum: \(x < 1\) &amp; more." in page.text
    assert repr(shown[0]) == ALT


@pytest.mark.parametrize("alt, error", [
    (None, TypeError), (3, TypeError), ("", ValueError), ("   ", ValueError), ("short 1", ValueError),
    ("a sentence that is long but holds no number", ValueError), ("output_of_the_first_cell_1.png", ValueError)])
def test_unfit_alternative_text(alt, error):
    with pytest.raises(error, match="alt: got"):
        figures.show(parabola()[0], alt)


def test_alternative_text_is_escaped():
    markup = figures.svg(parabola()[0], 'Loss < 1 & "small" on 5 points.')
    (picture,) = Elements(markup).all("svg")
    assert picture["aria-label"] == 'Loss < 1 & "small" on 5 points.'


def test_data_that_are_not_finite():
    for bad in ([0, np.inf, 1], [np.nan] * 3):
        figure, ax = figures.new()
        ax.plot([0, 1, 2], bad, label="loss")
        with pytest.raises(ValueError, match="'loss' was drawn from data that are not finite"):
            figures.svg(figure, ALT)
    figure, ax = figures.new()
    ax.scatter([0, 1], [np.nan, np.nan], label="dots")
    with pytest.raises(ValueError, match="'dots'"):
        figures.svg(figure, ALT)
    figure, ax = figures.new()
    ax.plot([0, 1, 2, 3], [0, 1, np.nan, 1])  # a gap is allowed
    ax.fill_between([0, 1], [0, 1])
    assert figures.svg(figure, ALT)


def test_bad_arguments():
    with pytest.raises(ValueError, match="size: got 'huge'"):
        figures.new(size="huge")
    with pytest.raises(ValueError, match="rows: got 0"):
        figures.new(0)
    with pytest.raises(ValueError, match="meaning: got 'loss'"):
        figures.line("loss")
    with pytest.raises(TypeError, match="figure: got int"):
        figures.svg(3, ALT)
    with pytest.raises(ValueError, match="caption: got ''"):
        figures.show(parabola()[0], ALT, caption="")


def test_a_title_is_no_larger_than_a_label():
    ax = figures.new()[1]
    ax.set(title="a saddle")
    assert ax.title.get_fontsize() == ax.xaxis.label.get_fontsize() == 10
    assert ax.set_title("a saddle", fontsize=14).get_fontsize() == 14


def test_new_makes_what_is_asked_for():
    figure, axes = figures.new(np.int64(2), 3, size=(4, 3))
    assert isinstance(figure, Figure) and axes.shape == (2, 3) and tuple(figure.get_size_inches()) == (4, 3)
    assert not axes[0, 0].spines["top"].get_visible()


# ---- drawing

def test_axes_take_tensors_as_they_are():
    """A tensor with a gradient is refused by NumPy, as one on a GPU is: the axes must convert it themselves."""
    t = torch.linspace(0, 1, 5, dtype=torch.float64, device=backend.device()).requires_grad_()
    with pytest.raises(Exception, match="requires grad|device type tensor"):
        np.asarray(t)
    figure, ax = figures.new()
    (curve,) = ax.plot(t, t**2, **figures.line("descent"))
    assert curve.get_ydata().tolist() == (t**2).tolist()
    ax.scatter(t, t), ax.fill_between(t, t, 1), ax.axvline(t[1]), ax.vlines(t, 0, t)
    ax.set(xlim=(t[0], t[-1]), ylim=[t[0], 2])
    assert ax.get_xlim() == (0, 1)
    figures.label_line(ax, t, t, "line")
    figures.surface(figures.new()[1], t, t, t[:, None] + t)
    figures.spectrum(figures.new()[1], t)
    assert figures.svg(figure, ALT)


def test_surface_has_round_levels_and_labels_inside():
    s, t = torch.linspace(-1, 1, 31), torch.linspace(-2, 2, 21)
    values = 0.011 + s**2 + t[:, None] ** 2
    figure, ax = figures.new()
    assert figures.surface(ax, s, t, values, log=True).levels.tolist() == [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
    for label in (label for label in ax.texts if label.get_visible()):
        assert abs(label.get_position()[0]) < 0.88 and abs(label.get_position()[1]) < 1.76
    hidden = {label.get_text() for label in ax.texts if not label.get_visible()}
    assert hidden == {"0.02"}  # the small well stays in view
    figure, ax = figures.new()
    assert len(figures.surface(ax, s, t, s + 0 * t[:, None], levels=5).levels) > 3
    shown = [label.get_text() for label in ax.texts]
    assert any(text.startswith("−") for text in shown) and not any("-" in text for text in shown)
    _, ax = figures.new()
    figures.surface(ax, s, t, s + 0 * t[:, None], levels=[-0.99, 0, 0.99])
    assert not any(label.get_visible() for label in ax.texts)  # both contours run along an edge
    figure, ax = figures.new()  # less than one step of 1, 2, 5
    assert len(figures.surface(ax, s, t, 2.1 + 0.1 * s + 0 * t[:, None], levels=5, log=True).levels) == 5


def test_surface_refuses():
    _, ax = figures.new()
    s, t = np.linspace(0, 1, 4), np.linspace(0, 1, 3)
    with pytest.raises(ValueError, match=r"values: got shape \(4, 3\), expected .* \(3, 4\)"):
        figures.surface(ax, s, t, np.zeros((4, 3)))
    with pytest.raises(ValueError, match="not finite"):
        figures.surface(ax, s, t, np.full((3, 4), np.nan))
    with pytest.raises(ValueError, match="positive values"):
        figures.surface(ax, s, t, np.zeros((3, 4)), log=True)


def test_spectrum_counts_and_says_so():
    figure, ax = figures.new()
    values = torch.tensor([-3.0, -1e-3, 1e-14, 0.0, 0.5, 2.0, 9.0], dtype=torch.float64)
    assert figures.spectrum(ax, values) == (2, 2, 3)
    assert "−10⁰" in figures.svg(figure, ALT)
    assert figures.spectrum(figures.new()[1], values, tolerance=0.01) == (1, 3, 3)
    assert figures.spectrum(figures.new()[1], [0.0, 0.0]) == (0, 2, 0)
    for words in ("2 negative", "2 zero", "3 positive"):
        assert words in figures.svg(figure, ALT)
    for bad in ([], [[1.0]], [np.nan]):
        with pytest.raises(ValueError, match="eigenvalues: got"):
            figures.spectrum(ax, bad)


def test_label_line_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="x, y: got shapes"):
        figures.label_line(figures.new()[1], [0, 1], [0], "text")


def test_a_merge_tree_is_drawn_without_crossings():
    rng = np.random.default_rng(0)
    for _ in range(20):
        births = rng.normal(size=12)
        pairs = np.array([(i, int(rng.integers(i))) for i in range(1, 12)])
        tree = levelsets.merge_tree(births, np.column_stack([pairs, births[pairs].max(1) + rng.exponential(size=11)]))
        figure, ax = figures.new()
        place = figures.merge_tree(ax, tree, level=0.5)
        assert sorted(place.tolist()) == list(range(len(tree.bottoms)))
        for i in range(1, len(place)):  # the joint of i passes over no branch that is still alive there
            left, right = sorted((place[i], place[tree.into[i]]))
            under = (place > left) & (place < right)
            assert (tree.passes[under] <= tree.passes[i]).all()
