"""What a real browser makes of the page: it shows the bug, loads nothing, and fits a phone."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from html_pages import EVIL, NAMES, PAGES, planted_page

from torch_ref.report.html import write_html

CHROMIUM = "/usr/bin/chromium"
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)


class Browser:
    """One page of a real browser; what it says, asks for and fails at is kept."""

    def __init__(self, page: Any, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, file: Path, *, width: int = 1100, **media: str) -> Any:
        self.said.clear(), self.asked.clear()
        self.page.set_viewport_size({"width": width, "height": 800})
        self.page.emulate_media(**({"media": "screen", "color_scheme": "light"} | media))
        self.page.goto(file.as_uri())
        assert self.said == []
        assert self.asked == [file.as_uri()]
        return self.page

    def page_of(self, name: str) -> Path:
        file = self.folder / f"{name}.html"
        write_html(file, PAGES[name], "mine.py:twin")
        return file


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_page(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no {CHROMIUM} on this machine: apt-get install chromium")
    drive = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install it")
    folder = tmp_path_factory.mktemp("browser")
    with drive.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder / "profile", executable_path=CHROMIUM, args=QUIET.split(), headless=True
        )
        yield Browser(context.new_page(), folder)
        context.close()


def test_the_browser_shows_the_planted_bug_in_red(browser: Browser, planted: Path) -> None:
    page = browser.open(planted)
    first = page.locator("#r0 svg g.first")
    assert first.locator("text").inner_html() == "✗ w46 · first wrong"
    assert first.locator("title").inner_html() == "dL/dw46: first wrong"
    fill = "element => getComputedStyle(element).fill"
    red, green, blue = map(int, re.findall(r"\d+", first.locator("rect").evaluate(fill)))
    assert red > 2 * max(green, blue)
    right = page.locator("#r0 svg g.agree rect").first.evaluate(fill)
    assert right != first.locator("rect").evaluate(fill)
    assert "dL/dw46 has the wrong sign." in page.locator("#r0 .explanation").inner_text()
    assert page.get_by_role("heading", level=1).inner_text().endswith("enters at dL/dw46.")
    assert page.get_by_role("img", name="Graph of the quantities").count() == 2
    assert page.get_by_role("rowheader", name="dL/dw46 ✗ first wrong").count() == 2


@pytest.mark.parametrize("name", PAGES)
def test_nothing_scrolls_sideways_on_a_phone(browser: Browser, name: str) -> None:
    page = browser.open(browser.page_of(name), width=375)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    outside = """[...document.querySelectorAll("main *, header *, footer *")].filter(element =>
        !element.closest(".scroll, details") && element.getBoundingClientRect().right > 375.5
    ).map(element => element.outerHTML.slice(0, 80))"""
    assert page.evaluate(outside) == []


def test_dark_mode_and_print(browser: Browser, planted: Path) -> None:
    def colours(**media: str) -> tuple[int, int]:
        """Brightness of paper and ink, 0 to 765."""
        page = browser.open(planted, **media)
        found = page.evaluate(
            "(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))"
        )
        paper, ink = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in found)
        return paper, ink

    for media in ({}, {"media": "print"}, {"media": "print", "color_scheme": "dark"}):
        paper, ink = colours(**media)
        assert (paper > 700, ink < 100) == (True, True), media
    paper, ink = colours(color_scheme="dark")
    assert (paper < 100, ink > 600) == (True, True)


def test_names_do_nothing_but_stand_there(browser: Browser) -> None:
    page = browser.open(browser.page_of("names"))
    assert page.title() == f"{EVIL}: differ (gradtwin)"
    assert page.evaluate("document.scripts.length + document.images.length") == 0
    names = page.locator("#r1 .name").all_inner_texts()
    shown = [*NAMES[:2], "line\\nbreak", "turned\\u202eround", "half \\ud800 letter", NAMES[5]]
    assert names == [f"dL/d{name}" for name in reversed(shown)]
