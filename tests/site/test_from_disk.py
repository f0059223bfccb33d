"""The built folder opened from disk, without a server and without a network: read, search, drag; and print."""

import re

import pytest
from playwright.sync_api import expect

from tests.site.reader import LESSONS, PAGES, PHONE, overhang, reading

SLIDER = "figure.losslab-slider"


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_from_disk(browser, disk, name):
    with reading(browser, disk, name) as page:
        assert not page.log.elsewhere, f"{name} asks {page.log.elsewhere}"
        assert not page.log.failed, f"{name}: {page.log.failed}"
        assert not page.log.errors, f"{name} logs {page.log.errors}"
        formulas = page.locator("main .math.notranslate").count()
        assert page.locator("main .math.notranslate mjx-container").count() >= formulas, f"{name}: undrawn mathematics"
        fonts = page.evaluate("[...document.fonts].filter(f => f.status === 'error').map(f => f.family)")
        assert not fonts, f"{name}: fonts that did not load: {fonts}"


def test_the_folder_opens_on_the_home_page(browser, disk):
    with reading(browser, disk) as page:
        page.goto(f"{disk}index.html")
        page.wait_for_url(f"{disk}{PAGES[0]}.html")


@pytest.mark.parametrize("place", ["disk", "web"])
@pytest.mark.parametrize("lesson", LESSONS)
def test_search_finds_a_lesson(browser, request, place, lesson):
    home = request.getfixturevalue(place)
    with reading(browser, home, lesson) as page:
        title = page.locator("main article h1").first.inner_text()
        word = max(re.findall(r"[a-z]+", title), key=len)
        page.goto(f"{home}{PAGES[0]}.html")
        fields = page.locator(":is(.search-button-field, .search-button, .bd-search):visible")
        assert fields.count() == 1, f"{fields.count()} places to search from"
        fields.click()
        page.locator("#pst-search-dialog input[type=search]").fill(word)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{home}search.html?q={word}")
        page.locator(f"#search-results a[href*='{lesson}.html']").first.click()
        page.wait_for_url(f"{home}{lesson}.html*")
        page.wait_for_load_state("networkidle")
        assert not page.log.elsewhere + page.log.failed + page.log.errors, (
            f"searching for {word!r}: {page.log.elsewhere} {page.log.failed} {page.log.errors}"
        )


@pytest.mark.parametrize("size", [None, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("lesson", LESSONS)
def test_sliders_move_by_keyboard(browser, disk, lesson, size):
    with reading(browser, disk, lesson, **({"viewport": size} if size else {})) as page:
        sliders = page.locator(SLIDER).all()
        assert sliders, f"{lesson}: no slider"
        for slider in sliders:
            handle, readout = slider.locator("input[type=range]"), slider.locator("output")
            seen = []
            handle.focus()
            for key in ("Home", "ArrowRight", "End"):
                page.keyboard.press(key)
                frame = slider.locator(".frame:visible")
                assert frame.count() == 1, f"{lesson}: {frame.count()} frames at once"
                seen.append((readout.inner_text(), frame.inner_html()))
                assert handle.get_attribute("aria-valuetext") == readout.inner_text()
            words, pictures = zip(*seen, strict=True)
            assert len(set(words)) == 3, f"{lesson}: the readout does not follow the slider: {words}"
            assert len(set(pictures)) == 3, f"{lesson}: the picture does not follow the slider"


@pytest.mark.parametrize("lesson", LESSONS)
def test_without_javascript_the_first_frame_is_there(browser, disk, lesson):
    with reading(browser, disk, lesson, java_script_enabled=False) as page:
        assert page.locator("html").get_attribute("data-theme") == "light", f"{lesson}: no colours without JavaScript"
        for slider in page.locator(SLIDER).all():
            assert slider.locator(".frame.start").is_visible(), f"{lesson}: no frame without JavaScript"
            assert slider.locator(".start-readout").is_visible(), f"{lesson}: no readout without JavaScript"
            assert not slider.locator("input").is_visible(), f"{lesson}: a slider that can't move"
        for solution in page.locator("main div.solution > section").all():
            assert solution.is_visible(), f"{lesson}: a solution that can't be opened"


@pytest.mark.parametrize("lesson", LESSONS)
def test_on_paper_everything_is_open_and_the_first_frame_shows(browser, disk, lesson):
    with reading(browser, disk, lesson, viewport={"width": 720, "height": 1000}, color_scheme="dark") as page:
        theme = page.locator("html")
        expect(theme).to_have_attribute("data-theme", "dark")
        for slider in page.locator(SLIDER).all():
            slider.locator("input").press("End")
        page.emulate_media(media="print")
        expect(theme, f"{lesson}: dark paper").to_have_attribute("data-theme", "light")
        for slider in page.locator(SLIDER).all():
            frames = slider.locator(".frame:visible").count()
            assert frames == 1, f"{lesson}: {frames} frames on paper"
            assert slider.locator(".frame.start").is_visible(), f"{lesson}: not the first frame on paper"
            assert not slider.locator("input").is_visible(), f"{lesson}: a slider on paper"
        solutions = page.locator("main div.solution > section").all()
        assert solutions, f"{lesson}: no solution"
        for solution in solutions:
            assert solution.is_visible(), f"{lesson}: a folded solution on paper"
        expect(page.locator("main details:not([open])"), f"{lesson}: something folded on paper").to_have_count(0)
        for part in (".bd-sidebar-primary", ".bd-header-article", ".prev-next-footer"):
            assert not page.locator(part).is_visible(), f"{lesson}: {part} on paper"
        over = overhang(page)
        assert over <= 0, f"{lesson}: {over} px wider than the paper"
        page.emulate_media(media="screen")
        expect(theme, f"{lesson}: not dark any more").to_have_attribute("data-theme", "dark")
        expect(page.locator("main details[open]"), f"{lesson}: left unfolded after printing").to_have_count(0)
