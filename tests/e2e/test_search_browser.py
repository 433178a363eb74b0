"""What a person with a browser sees and can do: with scripts on and off, on a phone and on a desk, by day and by night.

Screenshots are kept in the folder TICKWORK_ARTEFACTS, if it is set.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.kits.serve import Process, serving

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CHROMIUM, reason="there is no chromium: apt-get install chromium"),
]
WIDTHS = {390: 844, 1280: 800}
HTML = 50_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with serving(tmp_path_factory.mktemp("browser"), 120) as service:
        yield service


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("TICKWORK_ARTEFACTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[390, 1280])
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=[True, False], ids=["scripts", "no scripts"])
def scripts(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def page(browser: Browser, service: Process, scheme: str, width: int, scripts: bool) -> Iterator[Page]:
    """An empty page; at the end nothing may have been blocked, failed or complained about."""
    context = browser.new_context(
        base_url=service.url,
        viewport={"width": width, "height": WIDTHS[width]},
        color_scheme=scheme,
        java_script_enabled=scripts,
        is_mobile=width < 500,
        has_touch=width < 500,
    )
    page = context.new_page()
    page.set_default_timeout(30_000)
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on(
        "response", lambda answer: trouble.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
    )
    yield page
    context.close()
    assert trouble == []


def test_a_book_is_searched_for_filtered_opened_and_followed(
    page: Page, artefacts: Path, scheme: str, width: int, scripts: bool
) -> None:
    def seen(name: str) -> None:
        fits(page, width) if scripts else None
        assert len(page.content()) < HTML
        if scripts:
            page.screenshot(path=artefacts / f"{name}-{width}-{scheme}.png", full_page=True)

    page.goto("/")
    expect(page.get_by_role("searchbox")).to_be_visible()
    seen("home")
    page.get_by_role("searchbox").fill("whaling in Sicily")
    page.get_by_label("Words", exact=True).check()
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("searchbox")).to_have_value("whaling in Sicily")
    expect(page.get_by_label("Words", exact=True)).to_be_checked()
    results = page.locator(".results > li")
    expect(results).to_have_count(10)
    expect(page.locator("mark").first).to_have_text(re.compile("whaling|in|Sicily", re.I))
    first = results.first.bounding_box()
    assert first
    assert first["y"] < WIDTHS[width] * 0.75, "the first result is seen without scrolling"
    seen("results")

    english = page.get_by_role("complementary").get_by_role("link", name="eng", exact=True)
    count = int(english.locator("xpath=following-sibling::span").inner_text())
    english.click()
    expect(page.get_by_role("list", name="Chosen filters")).to_contain_text("language=eng")
    total = re.search(r"The best (\d+)", page.locator(".total").inner_text())
    assert total
    assert count <= int(total[1]) < 100, "of the hundred best so many, of all of them a few more"
    seen("filtered")
    page.get_by_role("link", name="Remove the filter language=eng").click()
    expect(results).to_have_count(10)
    page.get_by_role("link", name="Next").click()
    expect(page.locator(".total")).to_contain_text("11 to 20")

    title = results.first.get_by_role("link").inner_text()
    results.first.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(title)
    seen("item")
    like = page.get_by_role("region", name="Similar").get_by_role("link").first
    other = like.inner_text()
    assert other != title
    like.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(other)

    page.get_by_role("navigation", name="Main").get_by_role("link", name="doab").click()
    expect(page.locator(".total")).to_contain_text("120 items, newest first")
    seen("browse")


def fits(page: Page, width: int) -> None:
    """Nothing stands out at the side."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/?q=whaling+in+Sicily",
        "/?q=volume&mode=words&f=language%3Deng",
        "/browse/doab",
        "/item/doab/7",
        "/?q=zzz&mode=words",
    ],
)
@pytest.mark.parametrize("scripts", [True], indirect=True, ids=["scripts"])
def test_no_barriers(page: Page, target: str, artefacts: Path, scheme: str, width: int) -> None:
    page.goto(target)
    found: Any = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]})
    serious = [
        (one["id"], one["impact"], [node["html"][:200] for node in one["nodes"]])
        for one in found.response["violations"]
        if one["impact"] in ("serious", "critical", "moderate")
    ]
    assert serious == []


@pytest.mark.parametrize("scripts", [True], indirect=True, ids=["scripts"])
def test_a_refusal_has_no_barriers_either(
    browser: Browser, service: Process, artefacts: Path, width: int, scheme: str, scripts: bool
) -> None:
    context = browser.new_context(
        base_url=service.url, viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme
    )
    page = context.new_page()
    page.goto("/?q=x&mode=sql")
    page.screenshot(path=artefacts / f"refused-{width}-{scheme}.png", full_page=True)
    found: Any = Axe().run(page)
    assert [one["id"] for one in found.response["violations"] if one["impact"] in ("serious", "critical")] == []
    context.close()


@pytest.mark.parametrize("scripts", [True], indirect=True, ids=["scripts"])
def test_the_keyboard_is_enough_and_shows_where_it_is(page: Page, width: int) -> None:
    page.goto("/?q=whaling&mode=words")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0, "it comes into sight"
    passed = []
    for _ in range(60):
        page.keyboard.press("Tab")
        kind, outline = page.evaluate(
            "[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineWidth]"
        )
        passed.append(kind)
        if kind == "BODY":
            break
        assert outline == "3px", (kind, outline)
    assert {"A", "INPUT", "BUTTON"} <= set(passed)
    page.get_by_role("searchbox").focus()
    page.keyboard.press("End")
    page.keyboard.type(" in Krakow")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=whaling+in+Krakow*")


@pytest.mark.parametrize("scripts", [True], indirect=True, ids=["scripts"])
@pytest.mark.parametrize("width", [390], indirect=True)
def test_on_a_phone_all_can_be_touched_and_filters_are_a_step_away(page: Page, scheme: str) -> None:
    page.goto("/?q=whaling&mode=words")
    small = page.evaluate(
        """[...document.querySelectorAll('a:not(.skip), button, input, label')]
           .filter(one => one.getBoundingClientRect().height < 24)
           .map(one => one.outerHTML.slice(0, 120))"""
    )
    assert small == []
    page.get_by_role("link", name="Filters").click()
    expect(page.get_by_role("heading", name="Filters")).to_be_in_viewport()


def test_text_can_be_twice_as_large(browser: Browser, service: Process) -> None:
    context = browser.new_context(base_url=service.url, viewport={"width": 320, "height": 640})
    page = context.new_page()
    for target in ("/", "/?q=whaling", "/item/doab/7"):  # 1280 pixels at 400 % are 320
        page.goto(target)
        fits(page, 320)
    context.close()
