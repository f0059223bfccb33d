"""One browser and one server for all tests of a worker."""

import pytest

from tests.site.reader import HTML, chromium, served


@pytest.fixture(scope="session")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def html():
    assert (HTML / "index.html").exists(), "there is no site in _build/html: run `make book` first"
    return HTML


@pytest.fixture(scope="session")
def web(html, tmp_path_factory):
    """The site on a server, two folders below its root, as on GitHub Pages."""
    root = tmp_path_factory.mktemp("server")
    (root / "courses").mkdir()
    (root / "courses" / "landscapes").symlink_to(html)
    with served(root) as address:
        yield f"{address}courses/landscapes/"


@pytest.fixture(scope="session")
def disk(html):
    """The site as a folder on disk."""
    return html.as_uri() + "/"
