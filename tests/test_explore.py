"""The slider: one picture at a time, a label, a readout, and something to see without JavaScript."""
import re

import numpy as np
import pytest

from losslab import explore, figures
from tests.test_figures import Elements


def draw(slope):
    figure, ax = figures.new()
    ax.plot([-1, 1], [-slope, slope], **figures.line("theory"))
    ax.set(xlim=(-1, 1), ylim=(-5, 5), xlabel="$x$")
    return figure


def readout(slope):
    return f'slope {slope} < "10" &lt; 11'


def alt(slope):
    return f"A line of slope {slope} through zero."


def make(values=(1, 2, 3, 4), draw=draw, **changes):
    return explore.slider(values, draw, **({"label": "slope &amp; a", "readout": readout, "alt": alt} | changes))


def test_one_frame_shows_and_the_control_waits_for_javascript():
    page = Elements(make(start=1)._repr_html_())
    frames = [a for a in page.all("div") if a["class"].startswith("frame")]
    assert [("hidden" in a, a["data-readout"]) for a in frames] == [
        (True, readout(1)), (False, readout(2)), (True, readout(3)), (True, readout(4))]
    assert [a["class"] for a in frames].count("frame start") == 1 and frames[1]["class"] == "frame start"
    assert [a["aria-label"] for a in page.all("svg", role="img")] == [alt(v) for v in (1, 2, 3, 4)]
    (controls,) = page.all("div", **{"class": "controls"})
    assert "hidden" in controls  # the script takes this away
    assert page.all("noscript") and "4 frames" in page.text


def test_the_control_has_a_label_a_value_and_a_live_readout():
    page = Elements(make(start=np.int64(2), caption="Steeper with $a$.")._repr_html_())
    (control,) = page.all("input")
    assert control["type"] == "range" and (control["min"], control["max"], control["value"]) == ("0", "3", "2")
    assert control["aria-valuetext"] == readout(3)
    (label,) = page.all("label")
    assert label["for"] == control["id"]
    (output,) = page.all("output")
    assert output["aria-live"] == "off"  # the slider itself reads the numbers aloud, once
    assert "slope &amp; a" in page.text and r"Steeper with \(a\)." in page.text
    assert page.text.count(readout(3)) == 2  # beside the control, and for print


def test_the_longest_readout_keeps_its_room():
    page = Elements(make(values=(1, 2.25, 3))._repr_html_())
    (room,) = page.all("span")
    assert room == {"class": "room", "aria-hidden": "true"}
    assert page.text.count(readout(2.25)) == 1 and page.text.count(readout(3)) == 0


def test_sliders_share_no_ids_and_one_slider_is_always_the_same():
    ids = [set(re.findall(r' id="([^"]+)"', s._repr_html_())) for s in (make(), make(values=(5, 6)), make(label="b"))]
    assert ids[0] and not ids[0] & ids[1] and len(ids[0] - ids[2]) == 1  # same frames, another control
    assert make()._repr_html_() == make()._repr_html_()


def test_text_says_what_it_is():
    assert repr(make()) == "Slider 'slope &amp; a': 4 frames, the first: " + readout(1)


def test_markup_asks_nothing_of_other_hosts():
    assert not re.search(r"https?:|//\w", make()._repr_html_().replace("http://www.w3.org", ""))


def test_axes_stay_where_they_are():
    """Wider tick labels would move the axes; every frame takes the places of the start frame."""
    drawn = []

    def wide(scale):
        figure, ax = figures.new()
        ax.plot([0, 1], [0, scale])
        drawn.append(figure)
        return figure

    make(values=(1, 1_000_000), draw=wide, start=1)
    start, other = (figure.axes[0].get_position().bounds for figure in drawn)
    assert drawn[0].axes[0].get_ylim()[1] > 1000 and np.allclose(start, other)
    make(values=(1,), draw=wide)
    assert not np.allclose(start, drawn[2].axes[0].get_position().bounds)


def test_twenty_frames_are_light():
    assert len(make(values=range(1, 21))._repr_html_()) < 20 * 10_000


@pytest.mark.parametrize("changes, error, words", [
    ({"values": []}, ValueError, "values: got none"),
    ({"draw": 3}, TypeError, "draw: got int, expected a function"),
    ({"readout": "x"}, TypeError, "readout: got str"),
    ({"alt": "A line of slope 1."}, TypeError, "alt: got str, expected a function"),
    ({"label": " "}, ValueError, "label: got"),
    ({"start": 4}, ValueError, "start: got 4, expected an integer from 0 to 3"),
    ({"start": -1}, ValueError, "start: got -1"),
    ({"start": 1.0}, ValueError, "start: got 1.0"),
    ({"draw": lambda v: None}, TypeError, "draw: got NoneType, expected a matplotlib Figure.*\n.*frame 0, value 1"),
    ({"alt": lambda v: "no number in this sentence"}, ValueError, "alt: got.*\n.*frame 0, value 1"),
    ({"alt": lambda v: alt(v) if v < 3 else ""}, ValueError, "alt: got ''.*\n.*frame 2, value 3"),
    ({"readout": lambda v: None}, ValueError, "readout: got None.*\n.*frame 0"),
    ({"draw": lambda v: figures.new(size="wide" if v == 2 else "normal")[0]}, ValueError, "another size.*\n.*frame 1"),
    ({"caption": ""}, ValueError, "caption: got ''"),
])
def test_bad_arguments(changes, error, words):
    with pytest.raises(error, match=words):
        make(**changes)


def test_a_slider_that_is_too_heavy(monkeypatch):
    monkeypatch.setattr(explore, "LIMIT", 20_000)
    with pytest.raises(ValueError, match=r"values: 8 frames make 0\.\d MB, expected at most 0\.02 MB"):
        make(values=range(1, 9))
