"""Sliders that move with and without a kernel.

Every position is drawn beforehand, as inline SVG; a few lines of JavaScript show one at a time. So the same slider
works in a live notebook, in the built page, from a file on disk and by keyboard. Without JavaScript and in print the
start frame is there, with its readout, and no control that does nothing.
"""
import hashlib
import html
from numbers import Integral

import numpy as np
from matplotlib.figure import Figure

from .inline import CSS, figcaption, svg

LIMIT = 1_500_000  # bytes of one slider

STYLE = """<style>
.losslab-slider .controls{display:flex;flex-wrap:wrap;align-items:center;gap:.3em 1em;margin:.4em 0}
.losslab-slider .controls[hidden],.losslab-slider .start-readout{display:none}
.losslab-slider label{display:flex;flex:1 1 100%;align-items:center;gap:.8em;margin:0}
.losslab-slider input{flex:1;min-width:8em;height:24px;margin:0;accent-color:#2c5ee2;cursor:pointer}
.losslab-slider .readout{display:grid;flex:1 1 100%;font-variant-numeric:tabular-nums}
.losslab-slider .readout>*{grid-area:1/1}
.losslab-slider .room{visibility:hidden}
@media print{.losslab-slider .controls,.losslab-slider .frame{display:none!important}
.losslab-slider .start-readout,.losslab-slider .frame.start{display:block!important}}
</style>"""

# Runs at once after its slider has arrived, wherever that is; a slider that is wired already is left alone.
SCRIPT = """<script>
for (const slider of document.querySelectorAll(".losslab-slider:not([data-ready])")) {
  slider.dataset.ready = "";
  const input = slider.querySelector("input"), output = slider.querySelector("output");
  while (document.querySelectorAll("#" + input.id).length > 1) input.id += "-again";  // the same slider, shown twice
  slider.querySelector("label").htmlFor = input.id;
  const frames = slider.querySelectorAll(".frame");
  const show = () => {
    frames.forEach((frame, i) => { frame.hidden = i !== +input.value; });
    output.textContent = frames[input.value].dataset.readout;
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.value = input.defaultValue;
  input.addEventListener("input", show);
  slider.querySelector(".controls").hidden = false;
  show();
}
</script>"""


class Slider:
    """What `slider` returns: shows itself in a notebook. `frames` is the list of (readout, alternative text)."""

    def __init__(self, markup, label, frames):
        self.markup, self.label, self.frames = markup, label, frames

    def _repr_html_(self):
        return self.markup

    def __repr__(self):
        return f"Slider {self.label!r}: {len(self.frames)} frames, the first: {self.frames[0][0]}"


def slider(values, draw, *, label, readout, alt, start=0, caption=None):
    """A picture that follows a slider over `values`.

    draw(value)     -> a figure from `figures.new`; the same size for every value. Set the same axis limits in every
                       frame, so that only the data move; the room around the axes is kept as in the start frame.
    readout(value)  -> one line of plain text with the numbers of this frame, shown beside the slider and read aloud
    alt(value)      -> the alternative text of this frame, as in `figures.show`
    label           -> the name of the slider, in plain text
    start           -> the position shown first

    Twenty to thirty frames are enough; a slider of more than 1.5 MB is refused. Raises TypeError or ValueError for
    unfit arguments, naming the frame.

    >>> from losslab import figures
    >>> def draw(a):
    ...     figure, ax = figures.new()
    ...     _ = ax.plot([-1, 1], [-a, a], **figures.line("theory")), ax.set_ylim(-3, 3)
    ...     return figure
    >>> slider([1, 2, 3], draw, label="slope", readout=lambda a: f"slope {a}",
    ...        alt=lambda a: f"A line of slope {a} through zero.")
    Slider 'slope': 3 frames, the first: slope 1
    """
    values = list(values)
    if not values:
        raise ValueError("values: got none, expected at least one")
    for name, function in (("draw", draw), ("readout", readout), ("alt", alt)):
        if not callable(function):
            raise TypeError(f"{name}: got {type(function).__name__}, expected a function of one value")
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"label: got {label!r}, expected the slider's name")
    if not isinstance(start, Integral) or not 0 <= start < len(values):
        raise ValueError(f"start: got {start!r}, expected an integer from 0 to {len(values) - 1}")

    frames, pictures, first = {}, {}, None
    for i in sorted(range(len(values)), key=lambda i: i != start):  # the start frame first: it sets the layout
        try:
            frames[i] = _line(readout(values[i])), alt(values[i])
            figure = _figure(draw(values[i]))
            pictures[i] = svg(figure if first is None else _like(first, figure), frames[i][1])
            first = first or figure
        except Exception as error:
            error.add_note(f"This was frame {i}, value {values[i]!r}.")
            raise
    frames, pictures = ([by_frame[i] for i in range(len(values))] for by_frame in (frames, pictures))

    markup = _markup(pictures, [line for line, _ in frames], label, start, caption)
    if len(markup.encode()) > LIMIT:
        raise ValueError(f"values: {len(values)} frames make {len(markup) / 1e6:.1f} MB, expected at most "
                         f"{LIMIT / 1e6} MB; take fewer frames or fewer points in each")
    return Slider(markup, label, frames)


def _line(readout):
    if not isinstance(readout, str) or not readout.strip():
        raise ValueError(f"readout: got {readout!r}, expected a line of text")
    return readout


def _figure(figure):
    if not isinstance(figure, Figure):
        raise TypeError(f"draw: got {type(figure).__name__}, expected a matplotlib Figure (from figures.new)")
    return figure


def _like(first, figure):
    """Check that the frame has the size of the first one, and give its axes the same places, so that nothing jumps."""
    if not np.allclose(first.get_size_inches(), figure.get_size_inches()) or len(first.axes) != len(figure.axes):
        raise ValueError("draw: got a figure of another size or with other axes than the start frame, expected the "
                         "same in every frame")
    for a, b in zip(first.axes, figure.axes, strict=True):
        b.set_position(a.get_position())  # which takes `b` out of the automatic layout
    return figure


def _markup(pictures, readouts, label, start, caption):
    frames = "".join(
        f'<div class="frame{" start" if i == start else ""}" data-readout="{html.escape(line)}"'
        f'{"" if i == start else " hidden"}>{picture}</div>'
        for i, (picture, line) in enumerate(zip(pictures, readouts, strict=True)))
    name = "s" + hashlib.sha256((label + frames).encode()).hexdigest()[:10]
    line = html.escape(readouts[start])  # and the longest keeps the room, so that the text below never jumps
    return (
        f'<figure class="losslab-slider">{CSS}{STYLE}{frames}'
        f'<div class="controls" hidden><label for="{name}">{html.escape(label)}'
        f'<input type="range" id="{name}" min="0" max="{len(pictures) - 1}" step="1" value="{start}" '
        f'aria-valuetext="{line}"></label><div class="readout"><output aria-live="off">{line}</output>'
        f'<span class="room" aria-hidden="true">{html.escape(max(readouts, key=len))}</span></div></div>'
        f'<p class="start-readout">{line}</p>'
        f'<noscript><style>.losslab-slider .start-readout{{display:block}}</style>'
        f'<p>With JavaScript on, a slider here moves through {len(pictures)} frames.</p></noscript>'
        f'{figcaption(caption)}</figure>{SCRIPT}')
