"""Screenshots of a failing and a passing run, light and dark, wide and narrow, with what can be checked of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

SCREENS = os.environ.get("SP_HARNESS_SCREENSHOTS")
"""Folder to keep them in; by default they go with the test's own folder."""

EVERY_PICTURE = """async () => {
  const shown = [...document.images].filter(image => image.checkVisibility());
  for (const image of shown) image.loading = "eager";
  await Promise.all(shown.map(image => image.decode()));
}"""


@pytest.mark.parametrize("run", ["failing", "passing"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_pages_fit_their_window(
    request: pytest.FixtureRequest, visit: Any, tmp_path: Path, run: str, scheme: str, width: int
) -> None:
    index: Path = request.getfixturevalue(run)
    folder = Path(SCREENS) if SCREENS else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    row = index.parent / "rows" / ("128x128_spatial-u2-w.html" if run == "failing" else "144x144_spatial-u2-w.html")
    for name, path, hash in (("pictures", index, ""), ("table", index, "#view=table"), ("row", row, "")):
        page = visit(path, hash, width=width, scheme=scheme)
        page.add_style_tag(content="tr { content-visibility: visible !important }")  # also what is out of sight
        page.evaluate(EVERY_PICTURE)
        page.screenshot(path=folder / f"{run}-{name}-{scheme}-{width}.png", full_page=True)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width, "nothing sticks out"
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (max(ground) < 60) == (scheme == "dark")
        small = page.evaluate(
            "[...document.querySelectorAll('button, select, a.cell')].filter(e => e.checkVisibility() && "
            "e.getBoundingClientRect().height < 16).map(e => e.outerHTML)"
        )
        assert small == [], "controls can be hit"
