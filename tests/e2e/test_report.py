"""Reports in a browser: by themselves, for everybody, on a phone and in the dark; and both clips play together."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.reports import MAKERS, Reports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 780}, "color_scheme": "light", "reduced_motion": "reduce"},
}
CLIPS = {"demo": 2, "resumed": 2, "killed": 2, "decode": 1}  # videos of a card
_SHIFTS = """() => new Promise((done) => {
  let moved = 0;
  new PerformanceObserver((list) => { for (const one of list.getEntries()) moved += one.value; })
    .observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(moved), 200);
})"""

_FOCUS = """() => {
  const one = document.activeElement;
  const seen = one.tagName == "INPUT" ? one.nextElementSibling : one;  // a radio button is as its words are
  return [one.className || one.tagName, getComputedStyle(seen).outlineStyle];
}"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip(
            "There is no Chromium here, so no report is looked at in one: install it, or name it in CHROMIUM."
        )
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=[*ARGUMENTS])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    return Reports(tmp_path_factory.mktemp("reports"))


@pytest.fixture
def shown(browser: Browser) -> Iterator[Any]:
    """Opens a report; in the end, all that went wrong in it or was asked of anybody fails the test."""
    wrong: list[str] = []
    contexts = []

    def show(path: Path, **look: Any) -> Page:
        context = browser.new_context(**look)
        contexts.append(context)
        own = path.as_uri()

        def asked(route: Any) -> None:
            if route.request.url == own:
                route.continue_()
            else:
                wrong.append(f"it asks for {route.request.url}")
                route.abort()

        context.route("**/*", asked)
        page = context.new_page()
        page.on("console", lambda said: wrong.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda one: one.url.startswith(("data:", own)) or wrong.append(f"it asks for {one.url}"),
        )
        page.goto(own, wait_until="load")
        return page

    yield show
    for context in contexts:
        context.close()
    assert not wrong


@pytest.mark.parametrize("name", MAKERS)
def test_it_opens_and_fits(reports: Reports, shown: Any, tmp_path: Path, name: str) -> None:
    path = reports.of(name)
    assert path.stat().st_size < 5_000_000
    folder = Path(os.environ.get("REPORT_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, folder / f"{name}.html")
    for look, options in LOOKS.items():
        page = shown(path, **options)
        page.wait_for_function(
            "() => [...document.querySelectorAll('video')].every((one) => one.readyState >= 2)"
        )
        assert page.evaluate("document.documentElement.scrollWidth") == options["viewport"]["width"]
        assert page.evaluate(_SHIFTS) < 0.01
        assert (
            page.locator("video").evaluate_all(
                "all => all.filter(one => one.error || !one.videoWidth).length"
            )
            == 0
        )
        assert page.locator("img").evaluate_all("all => all.filter(one => !one.naturalWidth).length") == 0
        page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)


@pytest.mark.parametrize(
    ("name", "word", "more"),
    [
        ("going", "Going on", "As of "),
        ("killed", "Killed", "It was killed, or its machine or its output is gone."),
    ],
)
def test_it_is_there_before_the_run_is_done(
    reports: Reports, shown: Any, name: str, word: str, more: str
) -> None:
    page = shown(reports.of(name))
    assert page.locator(".outcome").inner_text().strip() == word
    assert more.lower() in page.locator("header").inner_text().lower()
    assert page.get_by_text("so far").count() == 1
    assert page.locator(".plays").count() > 0  # what is committed is there to be seen


def test_what_was_killed_and_resumed_is_told_and_its_mp4s_are_beside_their_sources(
    reports: Reports, shown: Any
) -> None:
    page = shown(reports.of("resumed"))
    attempts = page.get_by_role("table", name="The run's attempts")
    assert attempts.get_by_role("cell", name="killed").count() == 1
    assert attempts.get_by_role("cell", name="done").count() == 1
    alike = [float(one) for one in page.locator("dt:text-is('SSIM') + dd").all_inner_texts()]
    assert len(alike) == len(page.locator(".plays").all()) > 6
    assert min(alike) > 0.75  # a frame too early or late, and moving bars are no more alike


@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("name", MAKERS)
def test_everybody_can_read_it(reports: Reports, shown: Any, name: str, look: str) -> None:
    page = shown(reports.of(name), **LOOKS[look])
    page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
    found = Axe().run(page).response["violations"]
    assert not [
        (one["id"], one["impact"], [node["html"][:200] for node in one["nodes"][:3]])
        for one in found
        if one["impact"] in ("serious", "critical", "moderate")
    ]


def times(page: Page) -> list[float]:
    found: list[float] = (
        page.locator(".plays").first.locator("video").evaluate_all("all => all.map(one => one.currentTime)")
    )
    return found


@pytest.mark.parametrize("name", CLIPS)
def test_clips_play_together_by_one_button(reports: Reports, shown: Any, name: str) -> None:
    page = shown(reports.of(name))
    card = page.locator(".plays").first
    assert card.locator("video").count() == CLIPS[name]
    assert card.locator("video[controls]").count() == 0
    button = card.get_by_role("button", name="Play")
    button.focus()
    page.keyboard.press("Enter")
    assert card.get_by_role("button", name="Pause").count() == 1
    for reached in (0.2, 0.4):
        page.wait_for_function(
            "least => document.querySelector('.plays video').currentTime > least", arg=reached
        )
        at = times(page)
        assert max(at) - min(at) < 0.15
        assert min(at) > 0
    page.keyboard.press("Space")
    stopped = times(page)
    page.wait_for_timeout(150)
    assert times(page) == stopped
    # From a place that they don't share they go on together.
    card.locator("video").last.evaluate("one => { one.currentTime = 0; }")
    page.keyboard.press("Enter")
    before = stopped[0]
    page.wait_for_function(
        "least => document.querySelector('.plays video').currentTime > least", arg=before + 0.1
    )
    at = times(page)
    assert max(at) - min(at) < 0.15
    # To their end, and from there once more.
    page.wait_for_function("() => document.querySelector('.plays video').ended")
    card.get_by_role("button", name="Play").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_function("() => !document.querySelector('.plays video').paused")
    assert max(times(page)) < 1


def test_one_card_plays_at_a_time_and_one_sound_is_heard(reports: Reports, shown: Any) -> None:
    page = shown(reports.of("demo"))
    first, second = (page.locator(".plays").nth(n) for n in (0, 1))
    first.get_by_role("button", name="Play").click()
    second.get_by_role("button", name="Play").click()
    assert first.get_by_role("button", name="Play").count() == 1
    assert second.get_by_role("button", name="Pause").count() == 1

    def muted() -> list[bool]:
        found: list[bool] = first.locator("video").evaluate_all("all => all.map(one => one.muted)")
        return found

    assert muted() == [False, True]
    first.get_by_role("radio", name="Original").focus()
    page.keyboard.press("ArrowRight")
    assert muted() == [True, False]
    page.keyboard.press("ArrowRight")
    assert muted() == [True, True]
    for number, silent in ((0, False), (1, False)):  # there is a sound in each, which Chromium has decoded
        heard = first.locator("video").nth(number).evaluate("one => one.webkitAudioDecodedByteCount > 0")
        assert heard is not silent


def test_it_is_walked_through_by_keyboard(reports: Reports, shown: Any) -> None:
    page = shown(reports.of("demo"), **LOOKS["phone"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"  # less motion
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        what, outline = page.evaluate(_FOCUS)
        if what == "BODY":  # that was the last one
            break
        reached.add(what)
        assert outline != "none", f"nobody sees that {what} has the focus"
    assert {"SUMMARY", "play", "INPUT", "scroll"} <= reached


def test_without_scripts_each_clip_has_its_own_controls(reports: Reports, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(reports.of("demo").as_uri())
    assert page.locator("video[controls]").count() == page.locator("video").count() > 0
    assert not page.locator(".play").first.is_visible()
    context.close()


def test_what_its_policy_forbids_is_not_done(reports: Reports, browser: Browser, tmp_path: Path) -> None:
    """Had an attack come through, it would not run: the policy alone stops scripts, styles and requests."""
    page_text = reports.of("errors").read_text()
    attack = (
        "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
        "<img src='https://example.invalid/a.png'><iframe src='data:text/html,taken'></iframe>"
    )
    path = tmp_path / "attacked.html"
    path.write_text(page_text.replace("</main>", f"{attack}</main>"))
    context = browser.new_context()
    page = context.new_page()
    refused: list[str] = []
    page.on("console", lambda said: refused.append(said.text))
    asked: list[str] = []
    page.on("requestfinished", lambda one: one.url.startswith(("data:", "file:")) or asked.append(one.url))
    page.goto(path.as_uri())
    assert page.title() != "taken"
    assert not asked
    assert len([one for one in refused if "Content Security Policy" in one]) >= 3
    context.close()
