"""A real browser on pages that a report wrote: `make test-browser`, not part of the ordinary suite."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from harness.plugins import load
from harness.types import Row

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ABORTED = ("net::ERR_ABORTED", None)
Open = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert found, f"none of {', '.join(BROWSERS)} is on PATH; Debian: apt-get install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"] if os.getuid() == 0 else [])
        yield started
        started.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Open a page; at the end nothing was logged, nothing raised, and nothing left the machine."""
    said: list[str] = []
    contexts = []

    def start(path: Path, hash: str = "", width: int = 1280, height: int = 900, scheme: Any = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"raised: {error}"))
        page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: request.url.startswith("file:") or said.append(f"request: {request.url}"))
        # what is still loading when a test goes elsewhere is aborted
        page.on("requestfailed", lambda request: request.failure in ABORTED or said.append(f"failed: {request.url}"))
        page.goto(f"{path.as_uri()}{hash}")
        return page

    yield start
    for context in contexts:
        context.close()
    assert said == []


def written(sample: Any) -> Path:
    index: Path = load("reporters", "html")().write(sample.report, sample.folder)
    return index


@pytest.fixture
def failing(mixed: Any) -> Path:
    """Overview of a run in which everything happens; its last case is a batch of two pictures."""
    row: Row = next(row for row in mixed.rows if row.case.name == "144x144" and row.variant.axis == "w")
    for digest in set(row.runs.values()):
        own = mixed.folder / "runs" / digest
        picture = np.asarray(Image.open(own / "image-0.png"))[:, ::-1]
        Image.fromarray(picture).save(own / "image-1.png")
        mixed.runs[digest] = replace(mixed.runs[digest], images=("image-0.png", "image-1.png"))
    return written(mixed)


@pytest.fixture
def passing(good: Any) -> Path:
    return written(good)


@pytest.fixture
def many(mixed: Any) -> Path:
    """Overview of 500 rows."""
    rows = list(mixed.rows)
    for number in range(500 - len(rows)):
        row = rows[number % len(rows)]
        mixed.rows.append(replace(row, case=replace(row.case, name=f"{row.case.name}-{number}")))
    return written(mixed)
