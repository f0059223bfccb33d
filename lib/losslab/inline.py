"""A Matplotlib figure as inline SVG of a web page: plumbing behind `figures` and `explore`.

The SVG is small and always the same bytes for the same figure. Ink (black) becomes `currentColor`, so that axes and
text follow the page. Text stays text, in the page's own kind of font. Browsers lack TeX's fonts, so simple formulas
become Unicode text with raised and lowered parts; what is beyond that is left to Matplotlib's own mathematics.
"""
import hashlib
import html
import io
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import Formatter, LogFormatter

INK = "#000000"  # drawn as `currentColor`
PAGE = "#fffffe"  # drawn as the background of the page
PAPER, DARK = "#ffffff", "#111111"  # these stay as they are: a white label and the text on it
TEXT_SHARE = 55  # per cent of a data colour in text; the rest is ink: a contrast of 4.5:1 on light and on dark pages
FONTS = "system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,'Liberation Sans',sans-serif"
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
ET.register_namespace("", SVG[1:-1])

HOSTS = ("--pst-color-background", "--jp-layout-color0", "--vscode-editor-background", "--colab-primary-surface-color")
CSS = f"""<style>
:where(.losslab-figure,.losslab-slider){{margin:1em 0}}
:where(.losslab-figure,.losslab-slider) :where(figcaption){{font-size:.92em;margin:.4em 0 0;text-align:left}}
.losslab-figure,.losslab-slider{{--losslab-page:{",".join(f"var({name}" for name in HOSTS) + ")" * len(HOSTS)}}}
:is(.losslab-figure,.losslab-slider) text:not([style*="{DARK}"])
{{paint-order:stroke;stroke:var(--losslab-page,transparent);stroke-width:2.5px}}
@media print{{.losslab-figure,.losslab-slider{{--losslab-page:#fff;background:#fff}}
:is(.losslab-figure,.losslab-slider),:is(.losslab-figure,.losslab-slider) figcaption{{color:#000!important}}}}
</style>"""  # text that crosses a line stays readable; :where() lets every other rule win, the book's among them


def check_alt(alt):
    """Return `alt`, on one line, if it can stand for a picture: at least 20 characters, several words, a digit.

    >>> check_alt("figure_1.png")
    Traceback (most recent call last):
    ValueError: alt: got 'figure_1.png', expected a sentence of at least 20 characters that states the numbers
    """
    if not isinstance(alt, str):
        raise TypeError(f"alt: got {type(alt).__name__}, expected a str")
    alt = " ".join(alt.split())
    if len(alt) < 20 or " " not in alt or not re.search(r"\d", alt):
        raise ValueError(f"alt: got {alt!r}, expected a sentence of at least 20 characters that states the numbers")
    return alt


def figcaption(caption):
    """A `<figcaption>`, or nothing for None; MathJax sets `$...$` in it, in the book and in Jupyter.

    >>> figcaption("The loss $L$.")
    '<figcaption class="mathjax_process">The loss \\\\(L\\\\).</figcaption>'
    """
    if caption is None:
        return ""
    if not isinstance(caption, str) or not caption.strip():
        raise ValueError(f"caption: got {caption!r}, expected text or None")
    text = re.sub(r"\$([^$]+)\$", r"\\(\1\\)", html.escape(caption, quote=False))
    return f'<figcaption class="mathjax_process">{text}</figcaption>'


def svg(figure, alt):
    """One `<svg>` element with `alt` as its label. Its ids start with a hash of its content, so that two figures on one
    page never share an id. Raises TypeError or ValueError for an unfit `alt`, a figure that is none, data not finite.
    """
    alt = check_alt(alt)
    if not isinstance(figure, Figure):
        raise TypeError(f"figure: got {type(figure).__name__}, expected a matplotlib Figure")
    _check_data(figure)
    for legend in figure.findobj(Legend):  # its box has the colour of the page, not white
        legend.get_frame().set(facecolor=PAGE, edgecolor="none", alpha=0.85)
    formulas = _plain_text(figure)
    file = io.StringIO()
    style = {"svg.fonttype": "none", "svg.hashsalt": "losslab", "mathtext.fontset": "dejavusans"}
    with mpl.rc_context(style):
        figure.savefig(file, format="svg", transparent=True, dpi=72)
    root = ET.fromstring(file.getvalue())
    _compact(root, formulas)
    width, height = (round(float(root.get(k)[:-2]), 2) for k in ("width", "height"))
    body = "".join(ET.tostring(child, encoding="unicode") for child in root)
    body = body.replace(f' xmlns="{SVG[1:-1]}"', "").replace(" />", "/>")
    prefix = "f" + hashlib.sha256(body.encode()).hexdigest()[:8]
    for number, name in enumerate(re.findall(r' id="([^"]+)"', body)):
        body = re.sub(rf'(id="|href="#|url\(#){name}\b', rf"\g<1>{prefix}-{number}", body)
    style = f"width:100%;max-width:{round(width * 1.6)}px;height:auto;display:block;margin:auto;overflow:visible"
    return (f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(alt)}" style="{style}" '
            f'font-family="{FONTS}" fill="currentColor" stroke-linejoin="round">{body}</svg>')


def _check_data(figure):
    """A gap (some NaN) is a choice of the author; infinity, or nothing but NaN, is a mistake."""
    for ax in figure.axes:
        series = [(line, np.asarray(line.get_xydata(), float)) for line in ax.lines]
        for artist in ax.collections:
            offsets = np.ma.filled(np.ma.asarray(artist.get_offsets(), float), np.nan)
            series += [(artist, offsets)] + [(artist, path.vertices) for path in artist.get_paths()]
        for artist, xy in series:
            if np.isinf(xy).any() or (xy.size and np.isnan(xy).any(axis=1).all()):
                raise ValueError(f"figure: {artist.get_label()!r} was drawn from data that are not finite")


# ---- smaller and in the page's colours

def _compact(root, formulas):
    """Strip what a page does not need, round coordinates to 0.01 pt, set colours and formulas."""
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    used = set(re.findall(r"#([\w.-]+)", " ".join(v for e in root.iter() for v in e.attrib.values())))
    for e in root.iter():
        is_text = e.tag in (SVG + "text", SVG + "tspan")
        e.tail = None
        e.text = e.text if is_text else None
        if e.get("id") not in used:
            e.attrib.pop("id", None)
        for key in {"d", "x", "y", "width", "height", "transform", "points"} & set(e.attrib):
            if e is not root:
                e.set(key, _short(e.get(key)))
        if re.match(r"rotate\(-?0 ", e.get("transform", "")):
            del e.attrib["transform"]
        if XLINK + "href" in e.attrib:
            e.set("href", e.attrib.pop(XLINK + "href"))
        if "style" in e.attrib:
            e.set("style", _restyle(e.get("style"), is_text))
    styles = {e.get("id"): e.get("style") for e in root.iter(SVG + "path")}
    for e in root.iter(SVG + "use"):  # a tick looks like its model
        if e.get("style") == styles.get(e.get("href", "")[1:]):
            e.attrib.pop("style", None)
    for e in list(root.iter(SVG + "text")):
        if e.text in formulas:
            _set_formula(e, formulas[e.text])
    for parent in list(root.iter())[::-1]:  # groups that say nothing
        parent[:] = [e for c in parent for e in (c if c.tag == SVG + "g" and not c.attrib else [c])]


def _short(numbers):
    numbers = re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), numbers)
    return re.sub(r" ?([MLQCZz]) ?", r"\1", " ".join(numbers.split()))


def _restyle(style, is_text):
    style = re.sub(r"font-family: [^;]*;? ?", "", style)
    if is_text:
        mixed = rf"fill: color-mix(in srgb,\1 {TEXT_SHARE}%,currentColor)"
        style = re.sub(rf"fill: (?!{INK}|{PAPER}|{DARK})(#\w{{6}})", mixed, style)
    style = style.replace(INK, "currentColor").replace(PAGE, "var(--losslab-page,Canvas)")
    return re.sub(r"([:;]) ", r"\1", style).strip("; ")


# ---- formulas

NAMES = """alpha α beta β gamma γ delta δ epsilon ϵ varepsilon ε zeta ζ eta η theta θ kappa κ lambda λ mu μ nu ν xi ξ
pi π rho ρ sigma σ tau τ phi φ varphi φ chi χ psi ψ omega ω Gamma Γ Delta Δ Theta Θ Lambda Λ Sigma Σ Phi Φ Psi Ψ Omega Ω
nabla ∇ partial ∂ infty ∞ cdot · times × le ≤ leq ≤ ge ≥ geq ≥ ne ≠ approx ≈ pm ± to → in ∈ sum ∑ prod ∏ ldots … dots …
mapsto ↦ circ ∘ ell ℓ top ⊤ sim ∼""".split()
SYMBOLS = dict(zip(NAMES[::2], NAMES[1::2], strict=True)) | {",": " ", " ": " ", "|": "‖"}
SYMBOLS |= {name: name for name in "min max log exp ln sin cos tanh".split()}
SPACED = set("=<>≤≥≠≈→∈↦±×∼")
SUPERSCRIPT = str.maketrans("-−0123456789", "⁻⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class _Decades(Formatter):
    """The labels of a logarithmic axis as plain text, 10⁻³ for `$10^{-3}$`, by way of the axis's own formatter."""

    def __init__(self, inner):
        self.inner = inner

    def set_axis(self, axis):
        self.inner.set_axis(axis)

    def set_locs(self, locs):
        self.inner.set_locs(locs)

    def __call__(self, x, pos=None):
        text = re.sub(r"\^\{([^}]*)\}", lambda m: m[1].translate(SUPERSCRIPT), self.inner(x, pos))
        return re.sub(r"\$|\\mathdefault|[{}]", "", text).replace(r"\times", "×").replace("-", "−")


def _plain_text(figure):
    """Set every formula of the figure as plain text; return {line of plain text: its parts} for `_set_formula`."""
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        if isinstance(axis.get_major_formatter(), LogFormatter):
            axis.set_major_formatter(_Decades(axis.get_major_formatter()))
        if isinstance(axis.get_minor_formatter(), LogFormatter):
            axis.set_minor_formatter(_Decades(axis.get_minor_formatter()))
    formulas = figure.__dict__.setdefault("_losslab_formulas", {})  # kept: the figure may be drawn again
    for text in figure.findobj(Text):
        lines = [_parts(line) for line in text.get_text().split("\n")]
        if is_math_text(text.get_text()) and None not in lines:
            plain = ["".join(part[0] for part in line) for line in lines]
            formulas |= dict(zip(plain, lines, strict=True))
            text.set_text("\n".join(plain))
    return formulas


def _parts(label):
    r"""[(text, italic, shift)] of a line with `$...$`, shift 1 raised, -1 lowered; None if it needs more than symbols.

    >>> _parts(r"$\lambda_{\min}$ and 1")
    [('λ', True, 0), ('min', False, -1), (' and 1', False, 0)]
    >>> _parts(r"$\frac{1}{2}$"), _parts(r"$x^{2_i}$")
    (None, None)
    """
    parts = []
    for i, piece in enumerate(label.split("$")):
        if i % 2 == 0:
            parts.append((piece, False, 0))
            continue
        shift = depth = 0
        for token in re.findall(r"\\[A-Za-z]+|\\.|\S", piece):
            if token in "^_" and not depth:
                shift = 1 if token == "^" else -1
            elif token in "{}":
                depth += 1 if token == "{" else -1
                shift = shift if depth else 0
            elif token in "^_" or (token[0] == "\\" and token[1:] not in SYMBOLS):
                return None
            else:
                text = SYMBOLS[token[1:]] if token[0] == "\\" else token.replace("-", "−").replace("'", "′")
                italic = len(text) == 1 and text.isalpha() and text.islower() | text.isascii()
                parts.append((f" {text} " if text in SPACED and not shift else text, italic, shift))
                shift = shift if depth else 0
    return [part for part in parts if part[0]]


def _set_formula(element, parts):
    """Give a `<text>` its parts as `<tspan>`s. Steps up and down are relative, so each part undoes the one before."""
    element.text, height = None, 0
    for text, italic, shift in parts:
        span = ET.SubElement(element, SVG + "tspan")
        span.text = text
        if italic:
            span.set("font-style", "italic")
        if shift:
            span.set("font-size", "75%")
        if 0.33 * shift != height:  # in em of the text, while `dy` counts in em of the part
            span.set("dy", f"{(height - 0.33 * shift) / (0.75 if shift else 1):.2f}em")
        height = 0.33 * shift
