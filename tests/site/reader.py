"""A reader of the built site: the pages there are, a server, a browser, and a log of what each page asks for."""

import contextlib
import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import TimeoutError, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--no-first-run"]
PHONE, DESK = {"width": 390, "height": 800}, {"width": 1280, "height": 900}


def pages():
    """Every page of the site, from the table of contents; the search page is the one that Sphinx adds."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *files, "search"]


PAGES = pages()
LESSONS = [page for page in PAGES if page.startswith("lessons/")]


@contextlib.contextmanager
def chromium():
    """Debian's Chromium. Where it is missing the tests are skipped, in CI they fail: there it must be installed."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        message = "no browser: install the Debian package 'chromium' (apt-get install chromium)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def served(folder):
    """Serve a folder on this machine alone; gives the address, with a slash at its end."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


class Log:
    """What a page did: requests to other places, requests that failed, errors on the console."""

    def __init__(self, page, home):
        self.elsewhere, self.failed, self.errors = [], [], []

        def guard(route):
            url = route.request.url
            if url.startswith((home, "data:", "blob:")):
                route.continue_()
            else:
                self.elsewhere.append(url)
                route.abort()

        page.context.route("**/*", guard)
        page.on("requestfailed", self.miss)
        page.on("response", lambda reply: reply.status >= 400 and self.failed.append(f"{reply.url}: {reply.status}"))
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def miss(self, request):
        if "ERR_ABORTED" not in request.failure:  # that one the reader walked away from, by following a link
            self.failed.append(f"{request.url}: {request.failure}")


@contextlib.contextmanager
def reading(browser, home, name="", **options):
    """Open the page `name` below `home` in a fresh browser context, and wait until its mathematics is drawn."""
    context = browser.new_context(**{"viewport": DESK, "color_scheme": "light", **options})
    context.set_default_timeout(15_000)
    page = context.new_page()
    page.log = Log(page, home)
    if name:
        page.goto(f"{home}{name}.html", wait_until="load")
        if options.get("java_script_enabled", True):
            page.evaluate("window.MathJax?.startup?.promise")
            page.wait_for_load_state("networkidle")
    yield page
    context.close()


def overhang(page):
    """How many pixels the page is wider than the screen, once the sidebars have come to rest."""
    over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    with contextlib.suppress(TimeoutError):
        page.wait_for_function(f"{over} <= 0", timeout=3000)
    return page.evaluate(over)


def unfold(page):
    """Open everything that can be opened: hidden code, solutions, proofs."""
    page.evaluate("""() => {
      document.querySelectorAll("main details").forEach(fold => { fold.open = true; });
      document.querySelectorAll("main .toggle-hidden button.toggle-button").forEach(button => button.click());
    }""")
