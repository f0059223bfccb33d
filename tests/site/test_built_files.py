"""The built files themselves: which pages there are, where their links lead, what the launch buttons say."""

import os
import re
from collections import defaultdict
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from tests.site.extension import extension
from tests.site.reader import LESSONS, PAGES


class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.add(given.get("id"))
        self.links += [given[key] for key in ("href", "src") if given.get(key)]


@pytest.fixture(scope="module")
def site(html):
    """Every page of the folder with its ids and links."""
    files = [path for path in html.rglob("*.html") if "_static" not in path.parts]
    return {path: Links(path.read_text(encoding="utf-8")) for path in files}


def test_there_are_the_pages_of_the_contents_and_no_others(html, site):
    built = {path.relative_to(html).with_suffix("").as_posix() for path in site}
    assert built == {*PAGES, "index"}


def test_every_link_inside_the_site_leads_somewhere(html, site):
    dead = defaultdict(set)
    for path, page in site.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto", "data", "javascript"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            inside = target.is_file() and html.resolve() in target.parents and not parts.path.startswith("/")
            if not inside or (parts.fragment and target in site and unquote(parts.fragment) not in site[target].ids):
                dead[path.relative_to(html).as_posix()].add(link)
    assert not dead, dict(dead)


def test_the_launch_buttons_are_those_of_this_repository_or_none(html, site):
    repository = extension.find_repository(os.environ, extension.git("remote", "get-url", "origin"))
    for lesson in LESSONS:
        links = site[html / f"{lesson}.html"].links
        found = [link for link in links if re.search(r"mybinder\.org|colab\.research|^https://github\.com", link)]
        expected = [url for url, *_ in extension.launch_links(repository, f"{lesson}.ipynb")]
        if repository:
            expected += [f"{repository.server}/{repository.name}"] * 2  # the button and the footer
        assert sorted(found) == sorted(expected), lesson
        assert any(link.endswith(f"_sources/{lesson}.ipynb") for link in links), f"{lesson}: no download button"


def test_theorems_carry_the_number_of_their_lesson(html):
    for lesson in LESSONS:
        number = ".".join(map(str, extension.lesson_number(lesson)))
        text = (html / f"{lesson}.html").read_text(encoding="utf-8")
        captions = re.findall(r'class="caption-number">(\w+ [\d.]+)', text)
        assert captions, f"{lesson}: no numbered block"
        assert all(re.search(rf" {re.escape(number)}\.\d+$", caption) for caption in captions), captions
        titles = re.findall(r"<h1>([^<]*)", text)
        assert titles, f"{lesson}: no title"
        assert all(title.startswith(f"{number} ") for title in titles), f"{lesson}: {titles} without its number"
