"""The overview in a browser: every control, the keys, the address, and 500 rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

SHOWN = "table.rows tbody tr:not([hidden])"


def shown(page: Page) -> list[str]:
    """Anchors of the lines that are shown, in their order."""
    found: list[str] = page.eval_on_selector_all(SHOWN, "lines => lines.map(line => line.id)")
    return found


def cells(page: Page) -> set[str]:
    """Pages that the pictures which are shown link to."""
    found = page.eval_on_selector_all("a.cell:not([hidden])", "cells => cells.map(cell => cell.getAttribute('href'))")
    return set(found)


def address(page: Page) -> str:
    return page.url.partition("#")[2]


def test_pictures_come_first_and_the_table_is_a_click_away(failing: Path, visit: Any) -> None:
    page = visit(failing)
    assert page.locator("table.cases").is_visible()
    assert not page.locator("table.rows").is_visible()
    assert page.locator("table.cases tbody th").first.inner_text() == "128x128", "worst first"
    page.click("[data-view=table]")
    assert page.locator("table.rows").is_visible()
    assert not page.locator("table.cases").is_visible()
    assert address(page) == "view=table"
    page.click("[data-view=pictures]")
    assert address(page) == ""


def test_a_difference_takes_the_place_of_a_picture_on_hover_and_by_key(failing: Path, visit: Any) -> None:
    page = visit(failing)
    cell = page.locator("a.cell.fail")
    difference = cell.locator("img.difference")
    assert not difference.is_visible()
    cell.hover()
    assert difference.is_visible()
    assert difference.evaluate("async image => (await image.decode(), image.naturalWidth)") > 0
    page.mouse.move(2, 2)
    assert not difference.is_visible()
    page.keyboard.press("d")
    assert difference.is_visible()
    assert address(page) == "differences=on"
    assert page.locator("[name=differences]").is_checked()
    page.locator("[name=differences]").uncheck()
    assert not difference.is_visible()


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("cause", "ranks swapped in the gather", {"128x128_spatial-u2-w"}),
        ("engine", "fake", {"112x64-new_fake-u2"}),
        ("axis", "auto", {"128x128_spatial-u2-auto", "144x144_spatial-u2-auto"}),
        ("size", "112x64", {"112x64-new_fake-u2", "112x64-new_spatial-u2-h", "112x64-new_spatial-u2-w"}),
    ],
)
def test_rows_are_chosen_by_each_property(failing: Path, visit: Any, name: str, value: str, wanted: set[str]) -> None:
    page = visit(failing)
    everything = shown(page)
    page.select_option(f"[name={name}]", value)
    assert set(shown(page)) == wanted
    assert cells(page) == {f"rows/{anchor}.html" for anchor in wanted}
    assert page.locator("[data-count]").inner_text() == f"{len(wanted)} of {len(everything)} rows"
    page.reload()
    assert set(shown(page)) == wanted, "the address holds the choice"
    page.click("button[data-clear] >> nth=0")
    assert shown(page) == everything
    assert address(page) == ""


def test_rows_are_chosen_by_outcome_and_text_together(failing: Path, visit: Any) -> None:
    page = visit(failing)
    page.check("[name=outcome][value=fail]")
    page.check("[name=outcome][value=error]")
    assert set(shown(page)) == {"128x128_spatial-u2-w", "96x64-nasty_spatial-u2-h"}
    page.fill("[name=text]", "BOOM nasty")
    assert shown(page) == ["96x64-nasty_spatial-u2-h"]
    assert page.locator("table.cases tbody tr:not([hidden])").count() == 1
    page.fill("[name=text]", "nowhere")
    assert shown(page) == []
    page.click(".none [data-clear]")
    assert len(shown(page)) > 2
    assert page.input_value("[name=text]") == ""
    assert not page.is_checked("[name=outcome][value=fail]")


def test_rows_are_sorted_by_every_column(failing: Path, visit: Any) -> None:
    page = visit(failing, "#view=table")
    first = shown(page)
    names = page.eval_on_selector_all("[data-sort]", "buttons => buttons.map(button => button.dataset.sort)")
    assert {"verdict", "case", "axis", "shards", "pads", "exchange", "pair image", "golden image"} <= set(names)
    for name in names:
        head = page.locator(f'th:has([data-sort="{name}"])')
        orders = []
        for direction in ("ascending", "descending"):
            head.locator("button").click()
            assert head.get_attribute("aria-sort") == direction
            orders.append(shown(page))
        assert sorted(orders[0]) == sorted(orders[1]) == sorted(first)
        head.locator("button").click()
        assert shown(page) == first, "the third time the order is that of the report"
    page.click('[data-sort="exchange"]')
    assert shown(page)[0] == "128x128_spatial-u2-w", "the lowest"
    assert address(page) == "view=table&sort=exchange&order=up"
    page.reload()
    assert shown(page)[0] == "128x128_spatial-u2-w"
    page.click('[data-sort="exchange"]')
    assert shown(page)[-1] != "128x128_spatial-u2-w", "rows without a figure stay last"


def test_the_keys(failing: Path, visit: Any) -> None:
    page = visit(failing)
    page.keyboard.press("v")
    assert page.locator("table.rows").is_visible()
    page.keyboard.press("/")
    page.keyboard.type("144 d v")
    assert page.input_value("[name=text]") == "144 d v", "keys are text in a field"
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    assert page.input_value("[name=text]") == ""
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.getAttribute('href')") == f"rows/{shown(page)[1]}.html"
    page.keyboard.press("?")
    assert page.locator("dialog.keys").is_visible()
    page.keyboard.press("?")
    assert not page.locator("dialog.keys").is_visible()
    page.click("[data-help]")
    assert page.locator("dialog.keys").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/rows/*.html")


def test_500_rows_are_there_within_a_second_and_chosen_within_100_ms(many: Path, visit: Any) -> None:
    page = visit(many)
    assert len(shown(page)) == 500
    loaded = []
    for view in ("pictures", "table", "pictures"):
        page.goto("about:blank")
        page.goto(f"{many.as_uri()}#view={view}")
        loaded.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
    assert min(loaded) < 1000, loaded
    took = """text => {
      const field = document.querySelector("[name=text]");
      const start = performance.now();
      field.value = text;
      field.dispatchEvent(new Event("input", { bubbles: true }));
      document.body.offsetHeight;
      return performance.now() - start;
    }"""
    for view in ("pictures", "table"):
        page.click(f"[data-view={view}]")
        times = [page.evaluate(took, text) for text in ("nasty", "", "144", "", "u2-h", "")]
        assert min(times[0::2]) < 100, times
        assert min(times[1::2]) < 100, times
    loaded = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.initiatorType)")
    assert loaded.count("img") < 100, "pictures out of sight are not loaded"
