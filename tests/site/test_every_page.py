"""Every page, as a reader opens it from a server: whole, silent, accessible; on a desk, on a phone, light and dark."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.site.reader import DESK, LESSONS, PAGES, PHONE, overhang, reading, unfold

RAW = re.compile(r"\$[^$\n]+\$|\\[(\[]|\\begin\{|```|\{(prf|glue|cite|ref|numref|eq|doc)[:}]|:label:|:class:")


@pytest.fixture(scope="module", params=PAGES)
def page(request, browser, web):
    """One page, opened once for all tests of this file, from a sub-path: that needs relative links."""
    with reading(browser, web, request.param) as page:
        page.name = request.param
        yield page


def test_asks_nothing_of_other_hosts(page):
    assert not page.log.elsewhere, f"{page.name} asks {page.log.elsewhere}"


def test_is_silent_and_lacks_nothing(page):
    assert not page.log.failed, f"{page.name}: {page.log.failed}"
    assert not page.log.errors, f"{page.name} logs {page.log.errors}"


def test_mathematics_is_drawn(page):
    undrawn = page.locator("main :is(.math.notranslate, .mathjax_process)").evaluate_all(
        "all => all.filter(e => /\\\\[(\\[]/.test(e.textContent)).map(e => e.textContent)"
    )
    assert not undrawn, f"{page.name}: MathJax left {undrawn[:3]}"
    wrong = page.locator("mjx-merror, mjx-mtext[style*='color: red']").evaluate_all("all => all.map(e => e.outerHTML)")
    assert not wrong, f"{page.name}: MathJax can't read a formula, or doesn't know a command in it: {wrong[:3]}"
    if page.name in LESSONS:
        assert page.locator("main mjx-container").count() > 10, f"{page.name}: no mathematics"
        assert page.locator("main mjx-assistive-mml math").count() > 10, f"{page.name}: no MathML for screen readers"


def test_no_markup_is_left_in_the_text(page):
    text = page.evaluate("""() => {
      const main = document.querySelector("main").cloneNode(true);
      main.querySelectorAll("pre, code, script, style, noscript, mjx-container").forEach(e => e.remove());
      return main.textContent;
    }""")
    left = [text[max(0, m.start() - 40) : m.end() + 20] for m in RAW.finditer(text)]
    assert not left, f"{page.name}: {left[:3]}"


def test_pictures_are_told_in_words_with_their_numbers(page):
    pictures = page.locator("main :is(img, svg)").evaluate_all(
        "all => all.filter(e => !e.closest('[aria-hidden=true], summary, button, a')).map("
        "e => (e.tagName === 'IMG' ? e.alt : e.getAttribute('aria-label')) || '')"
    )
    silent = [words for words in pictures if not re.search(r"\d", words) or len(words) < 20]
    assert not silent, f"{page.name}: {len(silent)} of {len(pictures)} pictures without words and numbers: {silent[:3]}"
    if page.name in LESSONS:
        assert len(pictures) > 1, f"{page.name}: no picture"


def test_an_id_names_one_thing(page):
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    twice = {name for name in ids if ids.count(name) > 1}
    assert not twice, f"{page.name}: {twice}"


def keep_one_word_of_each_colour(page):
    """A long lesson has ten thousand coloured words of code in a dozen colours; axe would look at each of them."""
    page.evaluate("""() => {
      const seen = new Set();
      const known = (colour) => seen.has(colour) || !seen.add(colour);
      [...document.querySelectorAll("main pre span[class]")]
        .filter(word => known(getComputedStyle(word).color + word.className))
        .forEach(word => word.replaceWith(...word.childNodes));
    }""")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing(page, scheme, size):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(size)
    unfold(page)
    keep_one_word_of_each_colour(page)
    page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=scheme)
    page.wait_for_timeout(400)  # colours fade over
    # Between light and dark only colours change, and axe takes seconds on a long page.
    rules = {"runOnly": ["color-contrast", "link-in-text-block"]} if scheme == "dark" else {}
    found = Axe().run(page, options={"resultTypes": ["violations"], **rules}).response["violations"]
    report = [f"{v['id']} ({v['impact']}): {n['target']} {n['failureSummary']}" for v in found for n in v["nodes"]]
    assert not found, f"{page.name}, {scheme}, {size['width']} px:\n" + "\n".join(report)


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_nothing_sticks_out_sideways(page, size):
    page.set_viewport_size(size)
    unfold(page)
    over = overhang(page)
    assert over <= 0, f"{page.name} is {over} px wider than a screen of {size['width']} px"


def test_a_phone_shows_every_formula_of_a_line_whole(page):
    """MathJax 3 does not break a formula within a line: one wider than its box is cut off. Split it in the text."""
    page.set_viewport_size(PHONE)
    unfold(page)
    cut = page.locator("main mjx-container:not([display])").evaluate_all("""all => all.flatMap(formula => {
      if (formula.closest(".pst-scrollable-table-container")) return [];
      let box = formula.parentElement;
      while (getComputedStyle(box).display === "inline") box = box.parentElement;
      const over = formula.getBoundingClientRect().right - box.getBoundingClientRect().right;
      return over > 1 ? [`${Math.round(over)} px of ${formula.textContent}`] : [];
    })""")
    assert not cut, f"{page.name}: cut on a phone: {cut}"
