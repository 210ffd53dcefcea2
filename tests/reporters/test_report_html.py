"""The pages: parsed, with every link followed and every picture found."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image

from harness.plugins import load
from harness.types import Judgement, Outcome, Relation, Verdict


class Page(HTMLParser):
    """Tags with their attributes, the text without scripts, and the text of each element that has an id."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.raw = path, path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.by_id: dict[str, str] = {}
        self.text = ""
        self.inside = ""
        self.feed(self.raw)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        found = {key: value or "" for key, value in attrs}
        self.tags.append((tag, found))
        self.inside = found.get("id", self.inside)

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.cdata_elem:
            return
        self.text += data
        self.by_id[self.inside] = self.by_id.get(self.inside, "") + data

    def values(self, tag: str, attribute: str) -> list[str]:
        return [attrs[attribute] for name, attrs in self.tags if name == tag and attribute in attrs]


def pages(sample: Any) -> dict[str, Page]:
    """Write a report and read its overview, ``index.html``, and the page of each row, named as the row's anchor."""
    index = load("reporters", "html")().write(sample.report, sample.folder)
    assert index == sample.folder / "index.html"
    return {"index.html": Page(index)} | {path.stem: Page(path) for path in (sample.folder / "rows").iterdir()}


@pytest.fixture
def site(mixed: Any) -> dict[str, Page]:
    for name in ("csv", "json", "junit", "markdown"):
        load("reporters", name)().write(mixed.report, mixed.folder)
    return pages(mixed)


def test_one_page_for_each_row_in_the_order_of_the_overview(mixed: Any, site: dict[str, Page]) -> None:
    lines = [anchor for anchor in site["index.html"].by_id if anchor in site]
    assert set(site) == {"index.html", *lines}
    assert len(lines) == len(mixed.rows)
    for before, after in pairwise(lines):
        assert f"../rows/{after}.html" in site[before].values("a", "href")
        assert f"../rows/{before}.html" in site[after].values("a", "href")


def test_pages_of_an_earlier_version_go(good: Any) -> None:
    left = [good.folder / name for name in ("none.html", "h.html", "rows/former.html")]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text("former")
    pages(good)
    assert [path.exists() and path.read_text() != "former" for path in left] == [False, True, False]


def test_each_axis_choice_has_an_overview_of_its_rows(site: dict[str, Page]) -> None:
    index = site["index.html"]
    folder = index.path.parent
    whole = set(Page(index.path).by_id) & set(site)
    parts = {axis: set(Page(folder / f"{axis}.html").by_id) & set(site) for axis in ("auto", "h", "w", "none")}
    assert set().union(*parts.values()) == whole
    assert sum(map(len, parts.values())) == len(whole)
    assert "128x128_spatial-u2-w" in parts["w"]
    assert {f"{axis}.html" for axis in parts} <= set(index.values("a", "href"))


def test_every_link_and_picture_is_there(site: dict[str, Page]) -> None:
    for page in site.values():
        targets = [*page.values("a", "href"), *page.values("img", "src"), *page.values("link", "href")]
        targets += page.values("script", "src")
        assert targets
        for target in targets:
            file, _, anchor = target.partition("#")
            assert (page.path.parent / unquote(file)).exists(), f"{page.path.name}: {target}"
            if anchor:
                assert anchor in page.by_id


def test_pages_need_no_network_and_load_pictures_late(site: dict[str, Page]) -> None:
    for page in site.values():
        assert "http:" not in page.raw
        assert "https:" not in page.raw
        assert all(
            attrs.keys() <= {"src"} or attrs["type"] == "application/json"
            for tag, attrs in page.tags
            if tag == "script"
        )
        policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv"))
        assert policy.startswith("default-src 'none'; img-src 'self' file:;")
        images = [attrs for tag, attrs in page.tags if tag == "img"]
        assert all(image["loading"] == "lazy" and not image["src"].startswith(("/", "data:")) for image in images)
    assets = site["index.html"].path.parent / "assets"
    assert "prefers-color-scheme: dark" in (assets / "style.css").read_text()
    for style in assets.glob("*.css"):
        assert not {"url(", "@import"} & set(style.read_text().split())
    for script in assets.glob("*.js"):
        assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)|fetch\(|innerHTML|eval\(", script.read_text())


def test_prompts_are_escaped_and_long_ones_kept_in_full(site: dict[str, Page]) -> None:
    page = site["96x64-nasty_spatial-u2-h"]
    assert [attrs for tag, attrs in page.tags if tag == "script" and "src" not in attrs] == [
        {"type": "application/json", "id": "viewer-data"}
    ], "only our own"
    assert '<script>alert("x")</script> & "quotes"' in page.text
    assert "a fox under a paper moon, " * 400 in page.text
    assert "<script>alert" not in page.raw


def test_failures_show_message_and_traceback(site: dict[str, Page]) -> None:
    row = site["96x64-nasty_spatial-u2-h"].text
    assert "raised on rank 1: RuntimeError: <boom>" in row
    assert 'File "engine.py", line 3' in row
    assert "all_to_all_single" in site["96x64-nasty_spatial-u2-w"].text
    assert "3 ranks do not divide 4 heads" in site["112x64-new_spatial-u2-h"].text


def test_a_row_shows_plan_figures_pictures_and_differences(site: dict[str, Page]) -> None:
    line = " ".join(site["index.html"].by_id["144x144_spatial-u2-w"].split())
    pictures = "31.4 dB / 0.9877 44.4 dB / 0.9877"
    assert f"5 | 4 64 each 47 / 15 (+32) 143.2 dB exact 31.4 dB 31.4 dB 44.4 dB {pictures}" in line
    text = " ".join(site["144x144_spatial-u2-w"].text.split())
    assert "golden image 44.4 dB / 0.9877" in text
    assert "rank 1 36 + 28 pads" in text
    for title in ("golden", "baseline", "replay", "candidate"):
        assert title in text
    assert "exchange: candidate \N{MINUS SIGN} replay amplified 255 times; largest difference 1 of 255" in text
    assert "layout: replay \N{MINUS SIGN} baseline amplified 128 times; largest difference 2 of 255" in text
    assert "pair: candidate \N{MINUS SIGN} baseline" in text
    assert "0.9877" in text
    assert "Wang 2004" in text
    assert "0.42 0.40 0.41 0.40" in text


def test_shared_runs_are_named(site: dict[str, Page]) -> None:
    auto = site["144x144_spatial-u2-auto"].text
    assert "shared with spatial-u2-h" in auto
    assert "shared with 2 other rows" in auto
    unpadded = site["128x128_spatial-u2-h"].text
    assert "the baseline itself: no surplus pads" in unpadded
    assert "one and the same run: nothing can differ" in unpadded


def test_index_says_what_broke_where_and_why(site: dict[str, Page]) -> None:
    index = site["index.html"]
    text = " ".join(index.text.split())
    assert "Splitting damages the picture at 128x128 on w, and 3 more rows do not pass." in text
    assert "ranks swapped in the gather 128x128 on w exchange is 21.1 dB" in text
    assert "Exit code 1: a verdict fails" in text
    assert "rows/128x128_spatial-u2-w.html" in index.values("a", "href")
    assert text.index("Splitting damages") < text.index("How to read this")
    assert "surplus pad tokens" in text
    assert "3.11.9" in text
    assert "partial" not in text


def test_failing_cases_come_first(site: dict[str, Page]) -> None:
    order = [anchor for anchor in site["index.html"].by_id if anchor in site]
    assert order[:3] == ["128x128_spatial-u2-w", "96x64-nasty_spatial-u2-h", "96x64-nasty_spatial-u2-w"]
    table = site["index.html"].text.partition("Every case on every axis")[2]
    assert table.index("128x128") < table.index("144x144")


def test_partial_report_with_notes_says_so_on_every_page(good: Any) -> None:
    good.changes.update(complete=False, notes=("Nothing was held to a golden.",))
    good.rows[1] = replace(good.rows[1], verdict=None, comparisons=())
    site = pages(good)
    assert all("This report is partial" in page.text for page in site.values())
    assert "Nothing was held to a golden." in site["index.html"].text
    assert "Recorded, not judged." in site["144x144_spatial-u2-h"].text


def test_missing_pictures_break_no_page(mixed: Any) -> None:
    shutil.rmtree(mixed.folder / "runs")
    shutil.rmtree(mixed.folder.parent / "goldens")
    mixed.runs.pop(mixed.rows[0].runs["candidate"])
    site = pages(mixed)
    assert "the picture is not in this folder" in site["144x144_spatial-u2-w"].text
    assert "no approved picture" in site["144x144_spatial-u2-w"].text
    assert "not run" in site["144x144_spatial-u2-auto"].text
    assert not any(page.values("img", "src") for page in site.values())


def test_goldens_are_copied_into_the_folder(good: Any) -> None:
    case = good.rows[0].case
    assert f"../golden/{case.key}.png" in pages(good)["144x144_spatial-u2-h"].values("img", "src")
    place = Path(good.golden_dirs[case.key])
    (place / "image.png").rename(place / "image-reduced.png")
    page = pages(good)["144x144_spatial-u2-h"]
    assert "approved, reduced" in page.text
    copy = good.folder / f"golden/{case.key}-reduced.jpg"
    assert f"../golden/{copy.name}" in page.values("img", "src")
    with Image.open(copy) as image, Image.open(place / "image-reduced.png") as source:
        assert (image.format, image.size) == ("JPEG", source.size)
    shutil.rmtree(place)  # the copy stays where the goldens are gone
    (good.folder / f"golden/{case.key}.png").unlink()
    assert f"../golden/{copy.name}" in pages(good)["144x144_spatial-u2-h"].values("img", "src")
    good.golden_dirs.clear()
    good.changes["golden"] = "off"
    assert "not held to a golden" in pages(good)["144x144_spatial-u2-h"].text


def test_sequences_of_pictures_and_equal_names_keep_their_rows_apart(good: Any) -> None:
    twin = replace(good.rows[1], case=replace(good.rows[1].case, name="144x144/x"))
    other = replace(good.rows[1], case=replace(good.rows[1].case, name="144x144?x"))
    good.rows += [twin, other]
    run = good.runs[twin.runs["candidate"]]
    good.runs[twin.runs["candidate"]] = replace(run, images=tuple(f"image-{i}.png" for i in range(10)))
    site = pages(good)
    assert {"144x144_x_spatial-u2-h", "144x144_x_spatial-u2-h_2"} <= set(site)
    assert "Picture 8 of 10" in site["144x144_x_spatial-u2-h"].text
    assert "2 more pictures" in site["144x144_x_spatial-u2-h"].text


@pytest.mark.parametrize(
    ("relation", "words"),
    [
        (Relation.CONTROL, "The engine differs from the baseline already on one device"),
        (Relation.GOLDEN_BASELINE, "The baseline no longer draws the approved picture"),
        (Relation.PAIR, "The picture moved further"),
    ],
)
def test_the_headline_names_the_first_thing_that_broke(good: Any, relation: Relation, words: str) -> None:
    broken = (
        Judgement(Relation.GOLDEN_CANDIDATE, False, "20 dB of latents"),
        Judgement(relation, False, "30 dB of latents"),
    )
    row = good.rows[2]
    good.rows[2] = replace(row, verdict=Verdict(Outcome.FAIL, "Broken.", judgements=broken))
    site = pages(good)
    headline = site["index.html"].raw.partition("<h1>")[2].partition("</h1>")[0]
    assert headline.startswith(words)
    assert "figure bad" in site["index.html"].raw


def test_a_good_report_says_what_splitting_and_pads_cost(good: Any) -> None:
    text = pages(good)["index.html"].text
    assert "All 3 rows judged pass: splitting itself costs nothing." in text
    assert "Lowest exchange: 143.2 dB" in text
    assert "3 rows pass with surplus pads" in text
    assert "pair down to 31.4 dB" in text
    assert "What broke" not in text
