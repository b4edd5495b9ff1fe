"""The page in a headless Chromium, where there is one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from common.config.service import MetricsSection
from common.metrics.exporter import Exporter, Metrics
from deploy.reporting import live
from deploy.reporting.live import LiveReport
from deploy.reporting.report import write_report
from tests.deploy.reporting.conftest import event, step

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


@pytest.mark.parametrize("size", [5e-8, 5e-5, 0.123, 12345.0, 5e7])
def test_no_label_of_a_chart_is_cut_at_its_edge(size: float, run_folder: Callable[..., Path]) -> None:
    steps = [step(number, policy_loss=(-1) ** number * size, grad_norm=-size * number) for number in range(1, 5)]
    path = write_report(str(run_folder(steps, [])))
    with playwright.sync_playwright() as engines:
        browser = engines.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 844})
        page.goto(path.as_uri())
        cut = page.evaluate(
            """[...document.querySelectorAll(".chart svg text")].filter((text) => {
              const box = text.getBBox(), width = text.ownerSVGElement.viewBox.baseVal.width;
              return box.x < 0 || box.x + box.width > width;
            }).map((text) => text.textContent)"""
        )
        assert page.locator(".chart svg text", has_text="−").count() > 0
        browser.close()
    assert cut == []


def test_the_page_of_a_run_at_work_follows_it_and_tells_when_the_driver_has_gone(
    run_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "REFRESH_SECONDS", 1)
    folder = run_folder([step(1), step(2)], [event(0, "started", resumed_from="")])
    exporter = Exporter(Metrics(), MetricsSection(port=0))
    exporter.show("try", LiveReport(folder))
    with playwright.sync_playwright() as engines:
        browser = engines.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 844})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(exporter.url)
        assert page.title() == "try · at work · VA-π run"
        assert "2 of 10" in page.locator(".figures").inner_text()
        page.get_by_text("The whole recipe, as resolved").click()
        page.evaluate("scrollTo(0, 300)")
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(step(3)) + "\n")
        page.get_by_text("3 of 10").wait_for()
        assert page.locator("details[open] pre").is_visible()
        assert page.evaluate("scrollY") == 300
        chart = page.locator(".chart svg").first
        chart.hover(position={"x": 60, "y": 60})
        assert page.locator(".chart .cursor").first.get_attribute("visibility") == "visible"
        page.mouse.move(5, 5)
        exporter.close()
        page.get_by_text("The driver does not answer").wait_for()
        assert "3 of 10" in page.locator(".figures").inner_text()
        browser.close()
    assert errors == []
