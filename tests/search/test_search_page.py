"""The page of the search in a real browser (Debian's chromium), on real films."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from search.engine import MomentSearch
from search.records import Line
from search.store import Index
from tests.support.colour_films import ColourScorer, make_film, new_film, write_index
from tests.support.search_server import RunningServer, serving

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium: apt-get install chromium"),
]
TRICK = "<script>window.stolen = 1</script><img src=x onerror='window.stolen = 2'>"
PHONE = {"width": 390, "height": 844}
HUNDRED_SECONDS = 1.0


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """Films and their index; the second has green at 24–30 and 36–39 seconds."""
    folder = tmp_path_factory.mktemp("films")
    first = make_film(folder / "harbour.mp4", [("red", 12), ("grey", 9), ("blue", 6)])
    spans = [("grey", 24), ("green", 6), ("grey", 6), ("green", 3), ("grey", 3)]
    second = make_film(folder / "signals & lamps.mp4", spans)
    third = make_film(folder / "old.avi", [("blue", 9), ("red", 4.5)], "mpeg4")
    lines = [
        Line(2, 5, "Nothing to see yet."),
        Line(24.2, 27, f"The green light is on. {TRICK}"),
        Line(27, 29.5, "Go!"),
    ]
    write_index(
        folder / "index",
        [
            new_film("harbour.mp4", first, [Line(1, 8, "Red sails in the harbour.")]),
            new_film("signals & lamps.mp4", second, lines),
            new_film("old.avi", third),
        ],
    )
    return folder


@pytest.fixture(scope="module")
def site(films) -> Iterator[RunningServer]:
    with serving(MomentSearch(Index.open(films / "index"), ColourScorer())) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, site, request) -> Iterator:
    """A page of the service; what its scripts complain of, or are refused, fails the test."""
    options = getattr(request, "param", {})
    context = browser.new_context(base_url=site.url, **options)
    context.set_default_timeout(15000)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda told: told.type == "error" and wrong.append(told.text))
    yield opened
    context.close()
    assert [line for line in wrong if "Failed to load resource" not in line] == []


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Callable:
    """Take a screenshot, into the folder $HERO_SCREENSHOTS if it is set."""
    folder = Path(os.environ.get("HERO_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)

    def take(page, name: str) -> None:
        path = folder / f"{name}.png"
        page.screenshot(path=path)
        assert path.stat().st_size > 1000

    return take


def ask(page, sentence: str) -> None:
    page.goto("/")
    page.fill("#query", sentence)
    page.press("#query", "Enter")
    page.wait_for_selector(".card")


def video_time(page) -> float:
    return page.evaluate("document.querySelector('video').currentTime")


def wait_for_time(page, start: float, end: float) -> None:
    """Wait until the film is there, has pictures and stands between two times."""
    page.wait_for_function(
        "([start, end]) => { const v = document.querySelector('video'); return v.readyState >= 2"
        " && !v.seeking && v.currentTime >= start && v.currentTime <= end; }",
        arg=[start, end],
    )


def stand_at(page, seconds: float) -> None:
    """Stop the film at a time."""
    page.evaluate(
        "(t) => { const v = document.querySelector('video'); v.pause(); v.currentTime = t; }",
        seconds,
    )


def colour_shown(page) -> list[int]:
    """The colour in the middle of the picture on display."""
    return page.evaluate(
        """() => {
            const video = document.querySelector("video");
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
            const brush = canvas.getContext("2d");
            brush.drawImage(video, 0, 0);
            return [...brush.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data];
        }"""
    )


def test_a_moment_of_the_second_film_is_played(page, picture):
    ask(page, "a green light")
    cards = page.locator(".card")
    assert cards.count() == 2
    assert cards.nth(0).locator(".name").inner_text() == "signals & lamps.mp4"
    assert cards.nth(0).locator(".times").inner_text() == "0:00:24.0 – 0:00:30.0"
    assert cards.nth(0).locator("mark").all_inner_texts() == ["green", "light"]
    page.wait_for_function(
        "() => [...document.querySelectorAll('.card img')].every((i) => i.naturalWidth === 160)"
    )
    picture(page, "results")
    cards.nth(0).locator("button").click()
    wait_for_time(page, 24, 30)
    red, green, blue, _ = colour_shown(page)
    assert green > 150 and red < 80 and blue < 80
    stand_at(page, 25)
    page.wait_for_function("() => document.querySelector('#caption').textContent.includes('green')")
    page.wait_for_function("() => document.querySelector('#curve path').getAttribute('d')")
    picture(page, "player")
    assert page.locator("#bars button").count() == 2
    left = page.evaluate("document.querySelector('#bars [aria-current]').style.left")
    assert float(left.rstrip("%")) == pytest.approx(100 * 24 / 42, abs=0.1)
    page.evaluate(
        "() => { const v = document.querySelector('video'); v.currentTime = 28; v.play(); }"
    )
    page.wait_for_function("() => document.querySelector('#caption').textContent === 'Go!'")
    page.wait_for_function("() => document.querySelector('video').paused")  # at the moment's end
    assert 29.5 < video_time(page) <= 30.2


def test_keys_go_from_moment_to_moment(page):
    ask(page, "a green light")
    page.locator(".card button").first.click()
    wait_for_time(page, 24, 30)
    page.keyboard.press("n")
    wait_for_time(page, 36, 39)
    assert page.locator(".card.open").inner_text().count("0:00:36.0") == 1
    page.keyboard.press("n")  # there is no third
    stand_at(page, 37)
    page.keyboard.press("ArrowLeft")
    wait_for_time(page, 31.9, 32.1)
    page.keyboard.press("p")
    wait_for_time(page, 24, 30)
    stand_at(page, 25)
    page.locator("#film").click()  # the focus is on no button
    page.keyboard.press("Space")
    page.wait_for_function("() => !document.querySelector('video').paused")
    page.keyboard.press("Space")
    page.wait_for_function("() => document.querySelector('video').paused")
    page.keyboard.press("/")
    page.keyboard.type("np ")  # in the box these are letters
    assert page.input_value("#query") == "np "
    page.keyboard.press("Escape")
    page.wait_for_selector("#player", state="hidden")
    assert page.evaluate("document.querySelector('video').getAttribute('src')") is None


def test_text_is_never_markup(page, picture):
    ask(page, "green")
    words = page.locator(".card .words").first.inner_text()
    assert TRICK in words
    page.locator(".card button").first.click()
    wait_for_time(page, 24, 30)
    stand_at(page, 25)
    page.wait_for_function(
        "() => document.querySelector('#caption').textContent.includes('<script>')"
    )
    picture(page, "markup")
    assert page.locator(".card script, #caption script, .words img, #caption img").count() == 0
    assert page.evaluate("window.stolen") is None
    page.goto("/?q=" + "%3Cimg%20src%3Dx%20onerror%3D%22window.stolen%3D3%22%3E%20green")
    page.wait_for_selector(".card")
    assert page.evaluate("window.stolen") is None
    assert page.title().startswith("<img")


def test_the_address_holds_what_is_shown(page, site):
    ask(page, "a green light")
    assert page.url == f"{site.url}/?q=a+green+light"
    page.locator(".card button").nth(1).click()
    wait_for_time(page, 36, 39)
    assert page.url.endswith("q=a+green+light&moment=2")
    page.reload()
    wait_for_time(page, 36, 39)
    assert page.input_value("#query") == "a green light"
    page.go_back()
    page.wait_for_selector("#player", state="hidden")
    page.fill("#query", "red")
    page.click("form button")
    page.wait_for_function("() => document.querySelector('.name')?.textContent === 'harbour.mp4'")
    page.go_back()
    page.wait_for_function(
        "() => document.querySelector('.name')?.textContent.startsWith('signals')"
    )
    assert page.input_value("#query") == "a green light"


def test_a_film_that_browsers_cannot_play_says_so(page, picture):
    ask(page, "blue")
    page.locator(".card", has_text="old.avi").locator("button").click()
    page.wait_for_selector("#problem:visible")
    page.wait_for_function("() => document.querySelector('#problem').textContent.includes('mpeg4')")
    assert "ffmpeg -i" in page.locator("#problem").inner_text()
    picture(page, "cannot-play")
    page.keyboard.press("n")  # to a film that plays
    wait_for_time(page, 21, 27)
    assert page.locator("#problem").is_hidden()


def test_nothing_found_is_said(page, picture):
    ask(page, "mermaids")
    page.wait_for_function(
        "() => document.querySelector('#status').textContent.startsWith('Nothing')"
    )
    assert page.locator(".card.doubtful").count() == page.locator(".card").count() > 0
    picture(page, "doubtful")


def test_what_must_be_said_is_said(page, site, monkeypatch):
    monkeypatch.setattr(site.service.engine.scorer, "label", "by <b>colours</b>, not by HERO")
    ask(page, "green")
    assert page.locator("#note").inner_text() == "Note: by <b>colours</b>, not by HERO."


def test_it_begins_with_what_can_be_searched(page, picture):
    page.goto("/")
    page.wait_for_function(
        "() => document.querySelector('#status').textContent.includes('3 films')"
    )
    page.press("#query", "Enter")
    assert page.locator(".card").count() == 0
    picture(page, "start")


def test_slow_and_failed_answers(page, picture):
    held: list = []
    page.route(re.compile("/api/search"), lambda route: held.append(route))

    def asked() -> object:
        for _ in range(300):
            if held:
                return held.pop()
            page.wait_for_timeout(50)
        raise AssertionError("nothing was asked for")

    page.goto("/")
    page.fill("#query", "green")
    page.press("#query", "Enter")
    page.wait_for_function(
        "() => document.querySelector('#status').textContent.startsWith('Still')"
    )
    asked().fulfill(status=503, json={"detail": "too many requests at once"})
    page.wait_for_selector("#status.failed")
    assert "too many requests" in page.locator("#status").inner_text()
    picture(page, "failed")
    page.click("#status button")
    asked().fulfill(status=500, body="Internal Server Error")
    page.wait_for_function("() => document.querySelector('#status').textContent.includes('500')")
    page.click("#status button")
    asked().continue_()
    page.wait_for_selector(".card")


def test_a_service_that_is_gone(page):
    page.goto("/")
    page.route(re.compile("/api/"), lambda route: route.abort())
    page.fill("#query", "green")
    page.press("#query", "Enter")
    page.wait_for_selector("#status.failed")
    assert "does not answer" in page.locator("#status").inner_text()


def test_an_answer_that_comes_too_late_is_not_shown(page):
    held: list = []
    page.goto("/")
    page.route(re.compile("/api/search.*q=red"), lambda route: held.append(route))
    for sentence in ("red", "green"):
        page.fill("#query", sentence)
        page.press("#query", "Enter")
    page.wait_for_selector(".card")
    for route in held:
        route.continue_()
    page.wait_for_timeout(300)
    assert set(page.locator(".name").all_inner_texts()) == {"signals & lamps.mp4"}


@pytest.mark.parametrize("page", [{"viewport": PHONE, "has_touch": True}], indirect=True)
def test_on_a_phone(page, picture):
    ask(page, "a green light")
    page.locator(".card button").first.tap()
    wait_for_time(page, 24, 30)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
    for name in ("#video", "#timeline", "#next", ".card"):
        box = page.locator(name).first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"] + 1, name
    assert page.locator("#next").bounding_box()["height"] >= 36
    picture(page, "phone")


@pytest.mark.parametrize("page", [{"color_scheme": "dark"}], indirect=True)
def test_in_the_dark(page, picture):
    ask(page, "a green light")
    page.locator(".card button").first.click()
    wait_for_time(page, 24, 30)
    colours = page.evaluate(
        "['color', 'backgroundColor'].map((k) => getComputedStyle(document.body)[k])"
    )
    ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
    assert ink > 600 and paper < 150
    picture(page, "dark")


def test_a_hundred_results(page, site, picture):
    """From the answer, which a film of a hundred moments would give, to what is on display."""
    found = [
        {"video": "2", "file": "/f.mp4", "name": f"film {n}.mp4", "start": n / 4, "end": n / 4 + 3}
        | {"score": 1 / (n + 1), "text": f"The green light number {n}. {TRICK}"}
        for n in range(100)
    ]
    page.route(re.compile("/api/search"), lambda route: route.fulfill(json={"moments": found}))
    page.goto("/")
    page.wait_for_function("() => document.querySelector('#status').textContent")
    seconds = page.evaluate(
        """async () => {
            document.querySelector("#query").value = "green light";
            const begun = performance.now();
            document.querySelector("form").requestSubmit();
            while (document.querySelectorAll(".card").length < 100)
                await new Promise((resolve) => setTimeout(resolve, 1));
            await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 0)));
            return (performance.now() - begun) / 1000;
        }"""
    )
    assert seconds < HUNDRED_SECONDS
    picture(page, "hundred")


def test_more_results_on_demand(page):
    asked = []

    def answer(route) -> None:
        top = int(re.search(r"top=(\d+)", route.request.url)[1])
        asked.append(top)
        found = [
            {"video": "2", "file": "/f", "name": "f", "start": n / 4, "end": n / 4 + 3}
            | {"score": 1 / (n + 1), "text": ""}
            for n in range(min(top, 33))
        ]
        route.fulfill(json={"moments": found})

    page.route(re.compile("/api/search"), answer)
    ask(page, "green")
    for count in (20, 33):
        page.click("#more:enabled")
        page.wait_for_function(f"() => document.querySelectorAll('.card').length === {count}")
    assert asked == [10, 20, 40] and page.locator(".card").count() == 33
    assert page.locator("#more").is_hidden() and "top=40" in page.url


def test_the_page_for_programs(page, picture):
    page.goto("/docs")
    page.wait_for_selector("#schemas h2")
    titles = page.locator("h2").all_inner_texts()
    assert "GET /api/search" in titles and "GET /api/videos/{video}/thumbnail" in titles
    assert "MomentEntry" in titles
    picture(page, "docs")
