"""The page in a real browser: on a phone, wide, dark, printed, offline, with hostile names."""

import functools
import itertools
import re
import shutil
import time

import pytest

from tests.trainer.report.making import TAGS, facts, findings
from trainer.report import page
from trainer.report.check import Check

SECTIONS = {"checks", "tags", "thresholds", "precision", "confusions", "calibration", "training"}
SECTIONS |= {"worst", "best", "data", "settings"}
HOSTILE = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "</style><script>window.hacked = 1</script>",
    "$\\frac{1}{0}$ {{ 7 * 7 }}",
    "a" * 200,
)


@pytest.fixture(scope="session")
def browser():
    """Chromium; skips where none is installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is in PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@functools.cache
def usual_page():
    """The page of the usual findings: most tests look at it without changing it."""
    return page.render(findings())


class Opened:
    """A page in a tab of its own, with all that it complained of and asked for."""

    def __init__(self, browser, path, **options):
        self.context = browser.new_context(**options)
        self.context.set_offline(True)
        self.tab = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("dialog", self._refuse)
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(path.as_uri())

    def _refuse(self, dialog):
        self.complaints.append(dialog.message)
        dialog.dismiss()

    def ask(self, script):
        return self.tab.evaluate(script)

    def images(self):
        """How many pictures there are, and how many are decoded."""
        self.ask("document.querySelectorAll('img').forEach(i => { i.loading = 'eager' })")
        self.ask("Promise.all([...document.images].map(i => i.decode()))")
        return self.ask("[document.images.length, [...document.images].filter(i => i.naturalWidth).length]")


@pytest.fixture
def open_page(browser, tmp_path):
    opened = []

    def open_it(found=None, **options):
        path = tmp_path / "report.html"
        path.write_text(page.render(found) if found else usual_page(), encoding="utf-8")
        opened.append(Opened(browser, path, **options))
        return opened[-1]

    yield open_it
    for each in opened:
        assert each.complaints == []
        assert all(url.startswith(("file:", "data:")) for url in each.requests)
        each.context.close()


PHONE, WIDE = {"width": 360, "height": 740}, {"width": 1280, "height": 900}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, WIDE], ids=["phone", "wide"])
def test_everything_is_there_and_nothing_scrolls_sideways(open_page, viewport, scheme):
    opened = open_page(viewport=viewport, color_scheme=scheme)
    assert opened.ask("document.documentElement.scrollWidth") <= viewport["width"]
    assert set(opened.ask("[...document.querySelectorAll('main h2')].map(h => h.id)")) == SECTIONS
    assert opened.ask("document.querySelectorAll('nav a').length") == len(SECTIONS)
    count, decoded = opened.images()
    assert count == decoded == 8
    assert opened.ask("document.querySelectorAll('main svg').length") == 2 * len(TAGS) + 3


@pytest.mark.parametrize("viewport", [PHONE, WIDE], ids=["phone", "wide"])
def test_wide_tables_scroll_in_their_own_box(open_page, viewport):
    opened = open_page(viewport=viewport)
    boxes = opened.ask(
        "[...document.querySelectorAll('table')].map(t => getComputedStyle(t.parentElement).overflowX)"
    )
    assert set(boxes) == {"auto"}


LONG = (
    "Land principally occupied by agriculture, with significant areas of natural vegetation",
    "Land_principally_occupied_by_agriculture_with_significant_areas_of_natural_vegetation",
)


def test_long_tags_stay_beside_their_figures_and_leave_them_room(open_page):
    opened = open_page(findings(tags=LONG + TAGS[2:]), viewport=PHONE)
    for table in ("table.sortable", "table.heat"):
        box = opened.tab.locator(f".scroll:has({table})")
        box.evaluate("each => { each.scrollLeft = 60 }")
        assert box.evaluate("each => each.scrollLeft") == 60, "the table is wider than its box"
        edge = box.bounding_box()["x"]
        for head in box.locator("tbody th").all():
            place = head.bounding_box()
            assert place["x"] == pytest.approx(edge, abs=1)
            assert place["width"] < 180
            assert head.evaluate("each => each.scrollWidth <= each.clientWidth")


def test_long_tags_fit_a_printed_page(open_page):
    opened = open_page(findings(tags=LONG + TAGS[2:]), viewport={"width": 720, "height": 1_000})
    opened.tab.emulate_media(media="print")
    assert opened.ask("document.documentElement.scrollWidth") <= 720
    assert opened.ask("getComputedStyle(document.querySelector('tbody th')).position") == "static"


def test_a_table_of_hundreds_of_tags_scrolls_under_its_head_and_is_printed_whole(open_page):
    tags = tuple(f"tag_{i}" for i in range(300))
    opened = open_page(findings(tags=tags), viewport=WIDE)
    for name in ("tags", "data"):
        box = opened.tab.locator(f"section[aria-labelledby={name}] .tall")
        box.evaluate("each => { for (let up = each; up; up = up.parentElement) up.open = true }")
        box.evaluate("each => { each.scrollTop = 2000 }")
        assert box.evaluate("each => each.scrollTop") == 2000
        assert box.evaluate("each => each.clientHeight") < WIDE["height"]
        heads, top = box.locator("thead th"), box.bounding_box()["y"]
        assert [head.bounding_box()["y"] for head in heads.all()] == pytest.approx(
            [top] * heads.count(), abs=1
        )
    opened.tab.emulate_media(media="print")
    assert opened.ask("[...document.querySelectorAll('.tall')].every(t => t.scrollHeight == t.clientHeight)")
    assert opened.ask("getComputedStyle(document.querySelector('.tall thead th')).position") == "static"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_of_text_has_contrast(open_page, scheme):
    opened = open_page(color_scheme=scheme)

    def luminance(name):
        value = opened.ask(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()")
        parts = [int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    # 4.5 is WCAG 2.2's level AA for text, success criterion 1.4.3, and its formula of contrast.
    for text in ("ink", "muted", "accent", "pass", "look", "fail"):
        for ground in ("page", "panel"):
            dark, light = sorted((luminance(text), luminance(ground)))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_dark_and_light_differ_and_print_is_light(open_page):
    opened = open_page(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert opened.ask(ground) != "rgb(255, 255, 255)"
    opened.tab.emulate_media(media="print", color_scheme="dark")
    assert opened.ask(ground) == "rgb(255, 255, 255)"
    opened.tab.emulate_media(media="screen", color_scheme="light")
    assert opened.ask(ground) == "rgb(255, 255, 255)"


def test_print_shows_what_is_folded_and_nothing_is_cut_off(open_page):
    opened = open_page(viewport={"width": 720, "height": 1_000})
    opened.tab.emulate_media(media="print")
    folded = "[...document.querySelectorAll('details > :not(summary)')]"
    shown = f"{folded}.every(e => e.checkVisibility({{ contentVisibilityAuto: true }}))"
    deadline = time.monotonic() + 30
    while not opened.ask(shown) and time.monotonic() < deadline:  # a busy browser takes the medium up later
        time.sleep(0.1)
    assert opened.ask(shown)
    assert opened.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert opened.ask("document.documentElement.scrollWidth") <= 720
    assert opened.tab.pdf(format="A4").startswith(b"%PDF")


def test_it_is_built_for_screen_readers(open_page):
    opened = open_page()
    levels = opened.ask("[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert opened.ask("[...document.images].every(i => i.alt)")
    assert opened.ask("[...document.querySelectorAll('th')].every(t => t.scope)")
    svg = "[...document.querySelectorAll('svg')].every(s => s.closest('figure').ariaLabel)"
    assert opened.ask(svg)
    assert opened.ask("document.documentElement.lang") == "en"
    assert opened.ask("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size") == opened.ask(
        "document.querySelectorAll('[id]').length"
    )
    verdicts = opened.ask("[...document.querySelectorAll('.checks .tone')].map(e => e.textContent)")
    assert verdicts == ["✕ fail", "! look", "✓ pass"]  # words and signs, not colour alone


@pytest.mark.parametrize("column", ["support", "precision", "F2", "average precision"])
def test_a_click_sorts_the_tags_and_another_turns_them_round(open_page, column):
    found = findings()
    rows = list(found.document["tags"].values())
    # As text, digit by digit, the second would be the largest of the three, and the first the smallest.
    for row, value in zip(rows, (0.5, 1 / 12, 5 / 7), strict=False):
        row |= {"fbeta": value, "average_precision": value}
    rows[3]["average_precision"] = None
    opened = open_page(found)
    columns = ["tag", "support", "precision", "recall", "F2", "average precision", "threshold"]
    cells = f"table.sortable tbody td:nth-child({columns.index(column) + 1})"

    def figures():
        texts = opened.tab.locator(cells).all_text_contents()
        return [-1.0 if text == "-" else float(text) for text in texts]

    button = opened.tab.get_by_role("button", name=re.compile(f"^{column}"))
    button.click()
    assert figures() == sorted(figures(), reverse=True)
    assert opened.ask("document.querySelector('th[aria-sort]').ariaSort") == "descending"
    button.click()
    assert figures() == sorted(figures())


def test_it_says_the_same_without_scripts(open_page):
    opened = open_page(java_script_enabled=False)
    assert opened.tab.get_by_role("button").count() == 0
    assert opened.tab.locator("table.sortable tbody tr").count() == len(TAGS)
    opened.complaints.clear()  # Chromium notes that it blocks scripts


def test_hostile_names_and_tags_run_nothing(open_page):
    tags = HOSTILE + TAGS[len(HOSTILE) :]
    found = findings(
        tags=tags,
        names=list(HOSTILE),
        checks=[Check("x", HOSTILE[0], "fail", HOSTILE[1])],
        facts={**facts(tags, suspicious=2, suspicious_names=list(HOSTILE[:2])), "dataset": HOSTILE[2]},
        config={HOSTILE[0]: HOSTILE[1]},
    )
    opened = open_page(found, viewport=PHONE)
    opened.tab.wait_for_timeout(200)
    assert opened.ask("window.hacked") is None
    assert opened.ask("document.scripts.length") == 1
    assert opened.ask("document.querySelector('table.sortable tbody th').textContent") == HOSTILE[0]
    assert opened.ask("document.documentElement.scrollWidth") <= 360
    assert "{{ 7 * 7 }}" in opened.ask("document.body.textContent")


@pytest.mark.parametrize("name", ["\u202egpj.x", "مرحبا بالعالم"])
def test_names_written_from_right_to_left_leave_figures_and_words_in_their_places(open_page, name):
    told = f"2 pictures are known ({name} is {name}, 3 of 12): keep one."
    found = findings(tags=(name, *TAGS[1:]), names=[name], checks=[Check("x", "Known", "look", told)])
    opened = open_page(found)
    assert opened.ask("document.querySelector('.checks p').textContent") == told

    def left_of(selector, word):
        """Where a word begins on the screen, in pixels."""
        return opened.tab.locator(selector).first.evaluate(
            """(each, word) => {
                const walk = document.createTreeWalker(each, NodeFilter.SHOW_TEXT);
                for (let node; (node = walk.nextNode());) {
                    const at = node.data.indexOf(word), range = document.createRange();
                    if (at < 0) continue;
                    range.setStart(node, at);
                    range.setEnd(node, at + word.length);
                    return range.getBoundingClientRect().left;
                }
            }""",
            word,
        )

    sentence = [left_of(".checks p", word) for word in ("2 pictures", " is ", "3 of", "12", "keep one")]
    assert sentence == sorted(sentence)
    assert left_of(".gallery figcaption", name) < left_of(".gallery figcaption", "F2")
    figure = opened.tab.locator(f".gallery li:has-text('{name}')").first
    assert figure.locator("bdi").bounding_box()["x"] < figure.locator("small").bounding_box()["x"]


def test_its_policy_stops_what_escaping_might_miss(browser, tmp_path):
    path = tmp_path / "report.html"
    injected = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
    path.write_text(usual_page().replace("<main>", "<main>" + injected), encoding="utf-8")
    opened = Opened(browser, path)
    opened.tab.wait_for_timeout(200)
    assert opened.ask("window.hacked") is None
    assert any("Content Security Policy" in text for text in opened.complaints)
    opened.context.close()
