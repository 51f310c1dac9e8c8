"""The page in a browser: what it draws are the JSON's numbers, by mouse, key and finger."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_geometric.nn as pyg
from tiny import GRID, HOSTILE, make_model

from taghead.explain import explain_clip, load_view
from taghead.explain.page.clip_page import write_page
from taghead.explain.selection import Selection
from taghead.video import Preprocessing

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
SWITCHES = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 60_000  # on a busy machine; none is waited for in full
POSITIONS = GRID.height * GRID.width


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        playwright.expect.set_options(timeout=WAIT_MS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a page file; at the end nothing may have failed in it, or been asked for elsewhere."""
    faults: list[str] = []
    contexts = []

    def open_page(path: Path, **options: Any) -> Any:
        size = {"width": 1200, "height": 900}
        context = browser.new_context(**{"viewport": size, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        address = path.as_uri()

        def see_request(request: Any) -> None:
            if request.url != address and not request.url.startswith(("data:", "blob:")):
                faults.append(f"request: {request.url}")

        page.on("request", see_request)
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def page(opened: Any, explained: Any) -> Any:
    return opened(explained.folder / "page.html")


def weights_of(
    numbers: dict[str, Any],
    node: int,
    layer: int = 0,
    head: int | None = None,
    relation: str | None = None,
) -> dict[int, float]:
    """A token's incoming edges, from the JSON alone: the weight of each source."""
    found: dict[int, float] = {}
    for name, edges in numbers["layers"][layer]["relations"].items():
        if relation in (None, name):
            rows = np.array(edges["weights"])
            weights = rows.mean(0) if head is None else rows[head]
            for source, target, weight in zip(
                edges["source"], edges["target"], weights, strict=True
            ):
                if target == node:
                    found[source] = found.get(source, 0.0) + weight
    return found


def drawn(page: Any) -> tuple[dict[int, float], list[float | None]]:
    """The weights in the patches by position, and those under the frames."""
    patches = page.eval_on_selector_all(
        ".patch", "all => all.map(one => [Number(one.dataset.position), one.dataset.weight])"
    )
    frames = page.eval_on_selector_all(".thumb", "all => all.map(one => one.dataset.weight)")
    return (
        {position: float(weight) for position, weight in patches if weight},
        [float(weight) if weight else None for weight in frames],
    )


def assert_drawn(page: Any, numbers: dict[str, Any], node: int, **choice: Any) -> None:
    """That the page draws what the JSON says of a token."""
    expected = weights_of(numbers, node, **choice)
    patches, frames = drawn(page)
    t = node // POSITIONS
    here = {s % POSITIONS: w for s, w in expected.items() if s // POSITIONS == t}
    assert set(patches) == set(here)
    assert list(patches.values()) == pytest.approx([here[p] for p in patches], abs=5.1e-5)
    for frame, weight in enumerate(frames):
        inside = [w for s, w in expected.items() if s // POSITIONS == frame]
        assert (weight is None) == (not inside)
        assert weight is None or weight == pytest.approx(sum(inside), abs=5.1e-5)


def token_frame(page: Any) -> int:
    return int(page.get_attribute(".thumb[aria-current=true]", "data-frame"))


def patch(page: Any, position: int) -> Any:
    return page.locator(f".patch[data-position='{position}']")


def test_hovering_a_patch_draws_the_numbers_of_the_json(page: Any, explained: Any) -> None:
    t = token_frame(page)
    for position in (0, 24, 40):
        patch(page, position).hover()
        node = t * POSITIONS + position
        assert_drawn(page, explained.numbers, node)
        listed = page.eval_on_selector_all(
            "#edges tr[data-source]",
            "all => all.map(one => [one.dataset.source, one.lastChild.textContent])",
        )
        expected = weights_of(explained.numbers, node)
        assert listed
        for source, weight in listed:
            assert float(weight) == pytest.approx(expected[int(source)], abs=5.1e-5)
        strongest = max(
            (s for s in expected if s // POSITIONS == t), key=lambda source: expected[source]
        )
        line = page.locator(".line").last
        assert int(line.get_attribute("data-source")) == strongest
        assert float(line.get_attribute("data-weight")) == pytest.approx(
            expected[strongest], abs=5.1e-5
        )
        assert f"({t}, {position // 7}, {position % 7})" in page.inner_text("#incoming-title")
    page.mouse.move(1, 1)
    assert drawn(page)[0] == {}  # let go: the heat of the clip again
    assert page.inner_text("#incoming-title") == "The strongest edges"


def test_colours_follow_the_weights(page: Any, explained: Any) -> None:
    t = token_frame(page)
    patch(page, 24).hover()
    expected = weights_of(explained.numbers, t * POSITIONS + 24, relation="intra_frame")
    order = sorted(expected, key=lambda source: expected[source])
    opacity = (
        "one => Number(getComputedStyle(one).backgroundColor.split(/[,/]/).pop().slice(0, -1))"
    )
    weak, strong = (
        patch(page, source % POSITIONS).evaluate(opacity) for source in (order[0], order[-1])
    )
    assert strong > weak + 0.3
    assert strong == pytest.approx(0.7, abs=0.01)  # the strongest


@pytest.mark.parametrize("relation", ["intra_frame", "past_3f"])
def test_layer_head_and_relation_are_chosen(page: Any, explained: Any, relation: str) -> None:
    patch(page, 17).click()
    node = token_frame(page) * POSITIONS + 17
    page.select_option("#layer", "1")
    assert_drawn(page, explained.numbers, node, layer=1)
    page.select_option("#head", "2")
    assert_drawn(page, explained.numbers, node, layer=1, head=2)
    page.select_option("#relation", relation)
    assert_drawn(page, explained.numbers, node, layer=1, head=2, relation=relation)
    page.select_option("#layer", "0")
    page.select_option("#head", "-1")
    assert_drawn(page, explained.numbers, node, relation=relation)


def test_keys_reach_every_patch_and_the_reader_hears_it(page: Any, explained: Any) -> None:
    page.locator("#numbers").focus()
    page.keyboard.press("Tab")
    first = token_frame(page) * POSITIONS
    assert page.evaluate("document.activeElement.dataset.position") == "0"
    assert_drawn(page, explained.numbers, first)
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    node = first + 7 + 1
    assert_drawn(page, explained.numbers, node)
    playwright.expect(page.locator("#said")).to_contain_text("y 1, x 1")
    said = page.text_content("#said")
    expected = weights_of(explained.numbers, node, relation="intra_frame")
    assert f"{max(expected.values()):.4f}" in said
    assert "In time: t" in said
    page.keyboard.press("PageDown" if first == 0 else "PageUp")
    moved = node + (POSITIONS if first == 0 else -POSITIONS)
    assert_drawn(page, explained.numbers, moved)
    assert patch(page, 8).evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "play"
    assert_drawn(page, explained.numbers, moved)  # it was kept
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Escape")
    assert drawn(page)[0] == {}


def test_the_clip_is_scrubbed_and_played(page: Any, explained: Any) -> None:
    page.select_option("#heat", "none")
    seen = []
    for frame in (0, 20, 23, 31):
        page.locator("#scrub").fill(str(frame))
        seconds = explained.numbers["frames"]["seconds"][frame]
        assert page.inner_text("#clock") == f"{frame + 1} / 32 · {seconds:.2f} s"
        assert token_frame(page) == frame // 8
        seen.append(page.locator("#stage").screenshot())
    assert len(set(seen)) == 4  # also within a frame of tokens
    page.locator("#scrub").fill("0")
    page.click("#play")
    assert page.get_attribute("#play", "aria-label") == "Pause"
    playwright.expect(page.locator("#clock")).to_have_text(re.compile(r"^([4-9]|[123]\d) / 32 "))
    page.click("#play")
    assert page.get_attribute("#play", "aria-label") == "Play"
    stopped = page.inner_text("#clock")
    page.wait_for_timeout(200)
    assert page.inner_text("#clock") == stopped
    page.locator(".thumb").nth(2).click()
    assert token_frame(page) == 2


@pytest.mark.parametrize("numbers", [False, True])
def test_a_phone_shows_it_without_scrolling_sideways(
    opened: Any, explained: Any, numbers: bool
) -> None:
    size = {"width": 375, "height": 700}
    page = opened(explained.folder / "page.html", viewport=size, has_touch=True, is_mobile=True)
    if numbers:
        page.check("#numbers")
    node = token_frame(page) * POSITIONS + 30
    patch(page, 30).tap()
    assert_drawn(page, explained.numbers, node)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    box = patch(page, 30).bounding_box()
    assert min(box["width"], box["height"]) > 44  # a finger's
    shown = patch(page, 31).evaluate("one => getComputedStyle(one).color")
    assert (shown == "rgb(255, 255, 255)") is numbers
    patch(page, 30).tap()
    assert drawn(page)[0] == {}


def test_classes_and_evidence_are_those_of_the_json(page: Any, explained: Any) -> None:
    listed = page.locator("#classes li").all_inner_texts()
    assert len(listed) == 5
    for text, one in zip(listed, explained.numbers["classes"], strict=True):
        name, percent = text.split("\n")
        assert name == one["class"].replace("_", " ")
        assert percent == f"{100 * one['probability']:.1f}%"
    assert HOSTILE.replace("_", " ") in "".join(listed)
    assert page.locator("img, #classes script").count() == 0
    area = next(row for row in explained.numbers["areas"] if row["curve"] == "insertion")
    assert f"area {area['ranked']:.3f}" in page.inner_text("#curves")
    shares = re.findall(r"([\d.]+)%", page.inner_text("#flow"))
    told = [100 * row["share"] for row in explained.numbers["flow"]]
    assert [float(share) for share in shares] == pytest.approx(told, abs=0.051)


def test_over_smoothing_is_that_of_the_json(page: Any, explained: Any) -> None:
    numbers = explained.numbers["smoothing"]
    rows = [text.split() for text in page.locator("#smoothing tbody tr").all_inner_texts()]
    assert len(rows) == len(numbers["tokens"]) + len(numbers["added"])
    for text, row in zip(rows, numbers["tokens"], strict=False):
        shown = [float(number) for number in text[-2:]]
        told = [row["mean_cosine_distance"], row["effective_rank"]]
        assert shown == pytest.approx(told, rel=0.01, abs=1e-5)
    for text, row in zip(rows[len(numbers["tokens"]) :], numbers["added"], strict=True):
        shown = [float(number) for number in text[-3:]]
        told = [row["relative_norm"], row["cosine"], row["logit_change"]]
        assert shown == pytest.approx(told, rel=0.01, abs=1e-5)


def test_every_control_has_a_name(page: Any) -> None:
    for role in ("button", "combobox", "slider", "checkbox", "gridcell"):
        for control in page.get_by_role(role).all():
            assert control.evaluate("one => one.ariaLabel || one.labels?.[0]?.textContent.trim()")
    assert page.get_by_role("grid", name="Patches of the frame").count() == 1
    assert page.get_attribute("html", "lang") == "en"


def test_the_policy_refuses_what_is_not_the_pages_own(browser: Any, explained: Any) -> None:
    page = browser.new_page()
    page.goto((explained.folder / "page.html").as_uri())
    ran = page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.body.append(script);
          return window.ran ?? false;
        }"""
    )
    page.close()
    assert ran is False


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ({"mode": "none"}, "No graph"),
        ({"mode": "none", "readout": "gru"}, "No graph"),
        ({"mode": "union", "conv": pyg.GATConv}, "The strongest edges"),
    ],
    ids=["no graph", "no graph and no rollout", "self-loops"],
)
def test_other_heads(
    opened: Any, clip: Path, tmp_path: Path, options: dict[str, Any], title: str
) -> None:
    found = explain_clip(make_model(**options), load_view(clip, Preprocessing()), 1, draws=0)
    numbers = found.to_dict(tmp_path)
    write_page(found, numbers, Selection(), tmp_path / "page.html")
    page = opened(tmp_path / "page.html")
    assert page.inner_text("#incoming-title") == title
    has_rollout = found.rollout is not None
    assert page.locator("#heat option[value=rollout]").count() == has_rollout
    assert page.locator("#heat").input_value() == ("rollout" if has_rollout else "saliency")
    reason = "Without rollout: readout: GRUReadout has no weights of tokens"
    assert (reason in page.inner_text("#incoming-note")) == (not has_rollout)
    patch(page, 10).hover()
    assert ("(rollout)" in page.inner_text("#incoming-note")) == has_rollout
    assert "(saliency)" in page.inner_text("#incoming-note")
    t = token_frame(page)
    assert f"({t}, 1, 3)" in page.inner_text("#incoming-title")
    if not numbers["layers"]:
        assert drawn(page)[0] == {}
        assert page.locator("#layer").is_hidden()
        return
    node = t * POSITIONS + 10
    loops = numbers["layers"][0]["relations"]["intra_frame"]["self_loops"]
    own = page.locator("#edges tr[data-relation=self_loop]").inner_text()
    assert float(own.split()[-1]) == pytest.approx(np.mean(loops, axis=0)[node], abs=5.1e-5)
