"""An installed chromium, driven by playwright, without a network."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed"))


@dataclasses.dataclass
class Opened:
    """A page in the browser, and all that went wrong or went out."""

    page: Any
    requests: list[str]
    said: list[str]

    def check(self) -> None:
        """No request but the file itself, no message, no violation of the policy."""
        assert self.requests == [self.page.url], self.requests
        assert self.said == []

    def script(self, code: str) -> Any:
        """What a piece of script gives."""
        return self.page.evaluate(code)

    def state(self, field: str) -> Any:
        """A field of the explorer's state."""
        return self.script(f"document.querySelector('.explorer').circuit.state.{field}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        # The sandbox of chromium refuses to run as root.
        arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        yield driver.chromium.launch(executable_path=CHROMIUM, args=arguments)


Open = Callable[..., Opened]
_WATCH = (
    "window.violations = []; document.addEventListener('securitypolicyviolation', (e) => violations.push(e.violatedDirective));"
)


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """`opened(file, width=400, dark=True)` opens a page offline."""
    contexts = []

    def open_page(file: Path, *, width: int = 1400, height: int = 900, dark: bool = False) -> Opened:
        scheme = "dark" if dark else "light"
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        found = Opened(page, [], [])
        page.on("request", lambda request: found.requests.append(request.url))
        page.on("console", lambda message: found.said.append(message.text))
        page.on("pageerror", lambda error: found.said.append(str(error)))
        page.add_init_script(_WATCH)
        page.goto(file.as_uri())
        assert page.evaluate("violations") == []
        return found

    yield open_page
    for context in contexts:
        context.close()
