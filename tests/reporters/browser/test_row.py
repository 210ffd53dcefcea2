"""The page of a row in a browser: views, zoom and pan in step, outlines, keys, the address."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page

from harness.types import Figure

from .conftest import written

MODES = ("one", "side", "swipe", "onion", "blink", "difference", "heat")
BATCH = "144x144_spatial-u2-w"
DAMAGED = "128x128_spatial-u2-w"


def row(index: Path, anchor: str) -> Path:
    return index.parent / "rows" / f"{anchor}.html"


def style(page: Page, selector: str, name: str) -> str:
    return str(page.eval_on_selector(selector, f"element => getComputedStyle(element).getPropertyValue('{name}')"))


def places(page: Page) -> set[str]:
    """Scale in percent, left and top in px of all pictures and outlines: one where they are in step."""
    found = page.eval_on_selector_all(
        ".canvas",
        "all => all.map(canvas => new DOMMatrix(getComputedStyle(canvas).transform))"
        ".map(({ a, e, f }) => [100 * a, e, f].map(Math.round).join())",
    )
    return set(found)


def sources(page: Page) -> list[str]:
    found = page.eval_on_selector_all(".stage img", "images => images.map(image => image.getAttribute('src'))")
    return [str(source) for source in found]


def address(page: Page) -> dict[str, str]:
    return dict(part.split("=") for part in page.url.partition("#")[2].split("&") if part)


def box_of(outline: Locator) -> list[str | None]:
    return [outline.locator("rect").get_attribute(name) for name in ("x", "y", "width", "height")]


def slide(page: Page, value: int) -> None:
    page.locator("[data-slider]").fill(str(value))


def test_every_view_shows_its_pictures(failing: Path, visit: Any) -> None:
    page = visit(row(failing, DAMAGED))
    for number, mode in enumerate(MODES, 1):
        page.click(f"[data-mode={mode}]")
        assert page.get_attribute(f"[data-mode={mode}]", "aria-checked") == "true"
        assert page.locator(".stage img").count() == {"one": 1, "heat": 1, "side": 4}.get(mode, 2)
        for image in page.locator(".stage img").all():
            assert image.evaluate("async image => (await image.decode(), image.naturalWidth)") > 0
        page.keyboard.press("1" if mode != "one" else "2")
        page.keyboard.press(str(number))
        assert address(page).get("mode", "swipe") == mode
    assert sources(page) == [source for source in sources(page) if source.startswith("../diffs/")]


def test_the_slider_moves_the_line_the_opacity_and_the_brightness(failing: Path, visit: Any) -> None:
    page = visit(row(failing, DAMAGED))
    slide(page, 30)
    assert "30%" in style(page, ".layer.b", "clip-path")
    assert address(page)["slider"] == "30"
    box = page.locator(".line").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 200, box["y"] + 50)
    page.mouse.up()
    assert int(address(page)["slider"]) > 40, "the line is dragged"
    page.click("[data-mode=onion]")
    slide(page, 25)
    assert float(style(page, ".layer.b", "opacity")) == pytest.approx(0.25)
    page.click("[data-mode=difference]")
    assert style(page, ".layer.b", "mix-blend-mode") == "difference"
    slide(page, 100)
    assert float(re.findall(r"[\d.]+", style(page, ".mix", "filter"))[0]) == pytest.approx(256, rel=0.01)
    assert page.locator("[data-slider-name]").inner_text() == "brightness"


def test_blinking_shows_the_two_in_turn_and_can_be_held(failing: Path, visit: Any) -> None:
    page = visit(row(failing, DAMAGED), "#mode=blink&slider=0")
    seen = """hidden => document.querySelector(".stage").classList.contains("turned") === (hidden === "a")
      && getComputedStyle(document.querySelector(`.layer.${hidden}`)).visibility === "hidden" """
    for hidden in ("a", "b", "a"):
        page.wait_for_function(seen, arg=hidden)
    page.click("[data-pause]")
    assert page.locator("[data-pause]").inner_text() == "Go on"
    page.locator(".stage").focus()
    page.keyboard.press(" ")
    assert page.locator("[data-pause]").inner_text() == "Hold"


def test_any_two_are_compared(failing: Path, visit: Any) -> None:
    page = visit(row(failing, DAMAGED))
    page.select_option("[data-side=a]", "golden")
    page.select_option("[data-side=b]", "baseline")
    first = sources(page)
    assert first[0].startswith("../golden/")
    page.click("[data-swap]")
    assert sources(page) == first[::-1]
    page.keyboard.press("x")
    assert sources(page) == first
    page.keyboard.press("b")
    assert address(page)["b"] == "replay"
    page.keyboard.press("a")
    assert address(page)["a"] == "baseline"
    page.keyboard.press("7")
    heat = page.input_value("[data-side=heat]")
    page.keyboard.press("h")
    assert page.input_value("[data-side=heat]") != heat
    page.select_option("[data-side=heat]", heat)
    assert page.input_value("[data-side=heat]") == heat


def test_zoom_and_pan_are_in_step(failing: Path, visit: Any) -> None:
    page = visit(row(failing, DAMAGED), "#mode=side")
    fit = places(page)
    assert len(fit) == 1
    text = page.locator("[data-zoom-text]")
    page.click("[data-zoom=one]")
    assert text.inner_text() == "100 %"
    for click in ("in", "in", "out"):
        page.click(f"[data-zoom={click}]")
    assert text.inner_text() == "141 %"
    page.keyboard.press("-")
    assert text.inner_text() == "100 %"
    page.keyboard.press("+")
    near = places(page)
    assert len(near) == 1
    stage = page.locator(".stage").bounding_box()
    assert stage is not None
    page.mouse.move(stage["x"] + 60, stage["y"] + 60)
    page.mouse.down()
    page.mouse.move(stage["x"] + 40, stage["y"] + 90, steps=3)
    page.mouse.up()
    panned = places(page)
    assert len(panned) == 1
    assert panned != near
    page.locator(".stage").focus()
    page.keyboard.press("ArrowRight")
    assert len(places(page)) == 1
    assert places(page) != panned
    before = text.inner_text()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -240)
    page.keyboard.up("Control")
    page.wait_for_function("before => document.querySelector('[data-zoom-text]').value !== before", arg=before)
    wanted = places(page)
    page.reload()
    assert places(page) == wanted, "the address holds zoom and place"
    page.mouse.dblclick(stage["x"] + 60, stage["y"] + 60)
    assert places(page) == fit
    page.mouse.dblclick(stage["x"] + 60, stage["y"] + 60)
    assert places(page) != fit
    page.keyboard.press("9")
    assert text.inner_text() == "100 %"
    page.click("[data-zoom=fit]")
    assert places(page) == fit


def test_small_pictures_keep_their_pixels(failing: Path, visit: Any) -> None:
    page = visit(row(failing, DAMAGED), "#zoom=8")
    assert style(page, ".stage img", "image-rendering") == "pixelated"
    page.click("[data-zoom=one]")
    assert style(page, ".stage img", "image-rendering") == "auto"


def test_shards_and_the_worst_tile_are_outlined(failing: Path, visit: Any) -> None:
    page = visit(row(failing, BATCH))
    assert [text.text_content() for text in page.locator(".shard text").all()] == [
        "rank 0: 5 columns, 45 tokens + 19 pads",
        "rank 1: 4 columns, 36 tokens + 28 pads",
    ]
    assert box_of(page.locator(".shard").nth(1)) == ["80", "0", "64", "144"]
    page.uncheck("[data-show=shards]")
    assert style(page, ".shard", "display") == "none"
    page.keyboard.press("s")
    assert style(page, ".shard", "display") != "none"
    assert address(page) == {}


def test_the_tile_outlined_is_that_of_the_two_compared(failing: Path, mixed: Any, visit: Any) -> None:
    def marked(comparison: Any) -> Any:
        box = (16, 32, 48, 64) if comparison.relation == "exchange" else (0, 0, 32, 32)
        return replace(comparison, figures=(*comparison.figures, Figure("worst-tile", "", "image", 12.5, "dB", box)))

    mixed.rows[:] = [replace(row, comparisons=tuple(map(marked, row.comparisons))) for row in mixed.rows]
    written(mixed)
    page = visit(row(failing, DAMAGED))
    tile = page.locator(".tile")
    assert tile.locator("text").text_content() == "worst tile of exchange: 12.5 dB"
    assert box_of(tile) == ["16", "32", "32", "32"]
    page.select_option("[data-side=a]", "baseline")
    assert tile.locator("text").text_content() == "worst tile of pair: 12.5 dB"
    page.keyboard.press("t")
    assert style(page, ".tile", "display") == "none"
    page.check("[data-show=tiles]")
    assert style(page, ".tile", "display") != "none"


def test_pictures_of_a_batch_and_those_below_are_shown(failing: Path, visit: Any) -> None:
    page = visit(row(failing, BATCH))
    page.select_option("[data-picture-select]", label="2")
    assert all(source.endswith("image-1.png") for source in sources(page))
    page.keyboard.press("n")
    assert all(source.endswith("image-0.png") for source in sources(page))
    page.locator(".layers >> nth=1").locator("[data-layer=baseline] a").click()
    assert address(page) == {"picture": "1", "a": "baseline"}
    page.locator(".layers >> nth=1").locator("[data-layer=replay] a").click(modifiers=["Shift"])
    assert address(page) == {"picture": "1", "a": "baseline", "b": "replay"}
    page.locator(".layers >> nth=0").locator("[data-layer=pair] a").click()
    assert address(page)["mode"] == "heat"
    assert sources(page)[0].startswith("../diffs/")
    assert page.locator(".layers figure.shown").count() == 1


def test_rows_are_walked_by_links_and_keys(failing: Path, visit: Any) -> None:
    page = visit(row(failing, DAMAGED))
    page.keyboard.press("j")
    page.wait_for_url("**/96x64-nasty_spatial-u2-h.html")
    assert page.locator(".stage img").count() > 0, "the baseline has a picture though the candidate broke"
    page.keyboard.press("k")
    page.wait_for_url(f"**/{DAMAGED}.html")
    page.click("[data-following]")
    page.wait_for_url("**/96x64-nasty_spatial-u2-h.html")
    page.keyboard.press("?")
    assert page.locator("dialog.keys dt").count() > 10
    page.keyboard.press("?")
    page.keyboard.press("u")
    page.wait_for_url("**/index.html")


def test_a_row_without_pictures_has_no_viewer_and_its_keys(failing: Path, visit: Any) -> None:
    page = visit(row(failing, "112x64-new_spatial-u2-h"))
    assert page.locator("#viewer").count() == 0
    page.keyboard.press("u")
    page.wait_for_url("**/index.html")


@pytest.mark.parametrize("hash", ["#mode=nothing&picture=99&zoom=x&a=<b>&slider=-4&x=1e999", "#=&&%F0"])
def test_an_address_that_makes_no_sense_breaks_nothing(failing: Path, visit: Any, hash: str) -> None:
    page = visit(row(failing, DAMAGED), hash)
    assert page.locator(".stage img").count() == 2
