"""The page in a headless Chromium, where there is one."""

import shutil
from pathlib import Path

import pytest

from deploy.reporting.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window_and_the_console_stays_silent(width: int, scheme: str, ended_run: Path) -> None:
    path = write_report(str(ended_run))
    with playwright.sync_playwright() as engines:
        browser = engines.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
        chart = page.locator(".chart svg").first
        chart.hover(position={"x": 60, "y": 60})
        assert page.locator(".chart .step").first.inner_text() in ("1", "2")
        assert page.locator(".chart .cursor").first.get_attribute("visibility") == "visible"
        browser.close()
    assert said == []
