"""The pages: parsed, with every link followed and every picture found."""

from __future__ import annotations

import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image

from harness.plugins import load
from harness.types import Judgement, Outcome, Relation, Verdict


class Page(HTMLParser):
    """Tags with their attributes, the text, and the text of each element that has an id."""

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
        self.text += data
        self.by_id[self.inside] = self.by_id.get(self.inside, "") + data

    def values(self, tag: str, attribute: str) -> list[str]:
        return [attrs[attribute] for name, attrs in self.tags if name == tag and attribute in attrs]


def pages(sample: Any) -> dict[str, Page]:
    index = load("reporters", "html")().write(sample.report, sample.folder)
    assert index == sample.folder / "index.html"
    return {path.name: Page(path) for path in sample.folder.glob("*.html")}


@pytest.fixture
def site(mixed: Any) -> dict[str, Page]:
    for name in ("csv", "json", "junit", "markdown"):
        load("reporters", name)().write(mixed.report, mixed.folder)
    return pages(mixed)


def test_one_page_for_each_axis_that_occurs(mixed: Any, good: Any, site: dict[str, Page]) -> None:
    assert set(site) == {"index.html", "auto.html", "h.html", "w.html", "none.html"}
    assert set(site["none.html"].by_id) == {"", "112x64-new_fake-u2"}
    assert len(site["w.html"].by_id) == 1 + sum(row.variant.axis == "w" for row in mixed.rows)


def test_every_link_and_picture_is_there(site: dict[str, Page]) -> None:
    for page in site.values():
        targets = page.values("a", "href") + page.values("img", "src") + page.values("link", "href")
        assert targets
        for target in targets:
            file, _, anchor = target.partition("#")
            assert (page.path.parent / unquote(file)).exists(), f"{page.path.name}: {target}"
            if anchor:
                assert anchor in site[file].by_id


def test_pages_need_no_network_and_load_pictures_late(site: dict[str, Page]) -> None:
    for page in site.values():
        assert "http:" not in page.raw
        assert "https:" not in page.raw
        assert "//" not in "".join(page.values("script", "src"))
        images = [attrs for tag, attrs in page.tags if tag == "img"]
        assert all(image["loading"] == "lazy" and not image["src"].startswith(("/", "data:")) for image in images)
    style = (site["index.html"].path.parent / "assets" / "style.css").read_text()
    assert "prefers-color-scheme: dark" in style
    assert "url(" not in style
    assert "@import" not in style


def test_prompts_are_escaped_and_long_ones_kept_in_full(site: dict[str, Page]) -> None:
    page = site["h.html"]
    assert len(page.values("script", "src")) == 0
    assert sum(tag == "script" for tag, _ in page.tags) == 1, "only our own"
    row = page.by_id["96x64-nasty_spatial-u2-h"]
    assert '<script>alert("x")</script> & "quotes"' in row
    assert "a fox under a paper moon, " * 400 in row
    assert "alert(" not in page.raw.partition("<script>")[2]


def test_failures_show_message_and_traceback(site: dict[str, Page]) -> None:
    row = site["h.html"].by_id["96x64-nasty_spatial-u2-h"]
    assert "raised on rank 1: RuntimeError: <boom>" in row
    assert 'File "engine.py", line 3' in row
    assert "all_to_all_single" in site["w.html"].by_id["96x64-nasty_spatial-u2-w"]
    assert "3 ranks do not divide 4 heads" in site["h.html"].by_id["112x64-new_spatial-u2-h"]


def test_a_row_shows_plan_figures_pictures_and_differences(site: dict[str, Page]) -> None:
    text = " ".join(site["w.html"].by_id["144x144_spatial-u2-w"].split())
    assert "5 | 4 64 each 47 / 15 (+32) 143.2 dB exact 31.4 dB 31.4 dB 44.4 dB" in text
    for title in ("golden", "baseline", "replay", "candidate"):
        assert title in text
    assert "exchange: candidate \N{MINUS SIGN} replay amplified 255 times; largest difference 1 of 255" in text
    assert "layout: replay \N{MINUS SIGN} baseline amplified 128 times; largest difference 2 of 255" in text
    assert "pair: candidate \N{MINUS SIGN} baseline" in text
    assert "0.9877" in text
    assert "Wang 2004" in text
    assert "0.42 0.40 0.41 0.40" in text


def test_shared_runs_are_named(site: dict[str, Page]) -> None:
    auto = site["auto.html"].by_id["144x144_spatial-u2-auto"]
    assert "shared with spatial-u2-h" in auto
    assert "shared with 2 other rows" in auto
    unpadded = site["h.html"].by_id["128x128_spatial-u2-h"]
    assert "the baseline itself: no surplus pads" in unpadded
    assert "one and the same run: nothing can differ" in unpadded


def test_index_says_what_broke_where_and_why(site: dict[str, Page]) -> None:
    index = site["index.html"]
    text = " ".join(index.text.split())
    assert "Splitting damages the picture at 128x128 on w, and 3 more rows do not pass." in text
    assert "ranks swapped in the gather 128x128 on w exchange is 21.1 dB" in text
    assert "Exit code 1: a verdict fails" in text
    assert "w.html#128x128_spatial-u2-w" in index.values("a", "href")
    assert text.index("Splitting damages") < text.index("How to read this")
    assert "surplus pad tokens" in text
    assert "3.11.9" in text
    assert "partial" not in text


def test_failing_cases_come_first(site: dict[str, Page]) -> None:
    order = [anchor for anchor in site["w.html"].by_id if anchor]
    assert order[:2] == ["128x128_spatial-u2-w", "96x64-nasty_spatial-u2-w"]
    table = site["index.html"].text.partition("Every case on every axis")[2]
    assert table.index("128x128") < table.index("144x144")


def test_partial_report_with_notes_says_so_on_every_page(good: Any) -> None:
    good.changes.update(complete=False, notes=("Nothing was held to a golden.",))
    good.rows[1] = replace(good.rows[1], verdict=None, comparisons=())
    site = pages(good)
    assert all("This report is partial" in page.text for page in site.values())
    assert "Nothing was held to a golden." in site["index.html"].text
    assert "Recorded, not judged." in site["h.html"].text


def test_missing_pictures_break_no_page(mixed: Any) -> None:
    shutil.rmtree(mixed.folder / "runs")
    shutil.rmtree(mixed.folder.parent / "goldens")
    mixed.runs.pop(mixed.rows[0].runs["candidate"])
    site = pages(mixed)
    assert "the picture is not in this folder" in site["w.html"].text
    assert "no approved picture" in site["w.html"].text
    assert "not run" in site["auto.html"].text
    assert not any(page.values("img", "src") for page in site.values())


def test_goldens_are_copied_into_the_folder(good: Any) -> None:
    case = good.rows[0].case
    assert f"golden/{case.key}.png" in pages(good)["h.html"].values("img", "src")
    place = Path(good.golden_dirs[case.key])
    (place / "image.png").rename(place / "image-reduced.png")
    page = pages(good)["h.html"]
    assert "approved, reduced" in page.text
    copy = good.folder / f"golden/{case.key}-reduced.jpg"
    assert f"golden/{copy.name}" in page.values("img", "src")
    with Image.open(copy) as image, Image.open(place / "image-reduced.png") as source:
        assert (image.format, image.size) == ("JPEG", source.size)
    shutil.rmtree(place)  # the copy stays where the goldens are gone
    (good.folder / f"golden/{case.key}.png").unlink()
    assert f"golden/{copy.name}" in pages(good)["h.html"].values("img", "src")
    good.golden_dirs.clear()
    good.changes["golden"] = "off"
    assert "not held to a golden" in pages(good)["h.html"].text


def test_sequences_of_pictures_and_equal_names_keep_their_rows_apart(good: Any) -> None:
    twin = replace(good.rows[1], case=replace(good.rows[1].case, name="144x144/x"))
    other = replace(good.rows[1], case=replace(good.rows[1].case, name="144x144?x"))
    good.rows += [twin, other]
    run = good.runs[twin.runs["candidate"]]
    good.runs[twin.runs["candidate"]] = replace(run, images=tuple(f"image-{i}.png" for i in range(10)))
    page = pages(good)["h.html"]
    assert {"144x144_x_spatial-u2-h", "144x144_x_spatial-u2-h_2"} <= set(page.by_id)
    assert "Picture 8 of 10" in page.text
    assert "2 more pictures" in page.text


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
    assert "figure bad" in site["w.html"].raw


def test_a_good_report_says_what_splitting_and_pads_cost(good: Any) -> None:
    text = pages(good)["index.html"].text
    assert "All 3 rows judged pass: splitting itself costs nothing." in text
    assert "Lowest exchange: 143.2 dB" in text
    assert "3 rows pass with surplus pads" in text
    assert "pair down to 31.4 dB" in text
    assert "What broke" not in text
