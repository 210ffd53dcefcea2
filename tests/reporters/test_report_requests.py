"""Caches, sequences and batches: what a report says of a request that is more than one picture."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pandas as pd
from PIL import Image

from harness.types import Outcome

from .conftest import scene
from .featured import SERVED, SQUARE, STEPS, add_row, flat, write
from .test_report_html import pages

# ---------------------------------------------------------------- caches


def test_a_cached_row_shows_the_decisions_of_every_rank(new_sample: Any) -> None:
    sample = new_sample()
    add_row(sample, SQUARE, "aligned", cache="cache-dit")
    add_row(sample, SQUARE, "aligned")
    sample.golden(SQUARE, scene(SQUARE.size))
    site = pages(sample)
    assert "47 / 15 (+32) 1 of 4 141.0 dB" in flat(site["index.html"].by_id["square_spatial-u2-h-cache-dit"])
    page = site["square_spatial-u2-h-cache-dit"]
    text = flat(page.text)
    for name in ("baseline", "replay", "rank 0", "rank 1"):
        assert f"{name} · · C · 1 of 4 served" in text
    assert page.raw.count("step served") == 4 + 1, "and one in the key"
    assert "its reference did otherwise" not in page.raw
    assert "not held to a golden: a cache changes the picture" in text
    plain = site["square_spatial-u2-h"].raw
    assert "step served" not in plain
    assert "golden/" in plain
    assert "how many steps a cache served" in site["index.html"].text
    summary = write("markdown", sample).read_text()
    assert "(spatial-u2-h-cache-dit)<br>the cache served 1 of 4 steps |" in summary
    frame = pd.read_csv(write("csv", sample)).groupby("variant")["cache_served_steps"].first()
    assert frame["spatial-u2-h-cache-dit"] == 1


def test_a_cache_that_decides_otherwise_is_seen_first(new_sample: Any) -> None:
    sample = new_sample()
    other = (SERVED, (False, True, False, False))
    row = add_row(sample, SQUARE, "aligned", cache="cache-dit", decisions=other)
    assert row.verdict is not None
    assert row.verdict.outcome is Outcome.FAIL
    site = pages(sample)
    index, page = site["index.html"], site["square_spatial-u2-h-cache-dit"]
    assert "The cache decides otherwise when the picture is split at square on h." in index.text
    assert "cache differs" in index.text
    assert "rank 1 decided .C.., rank 0 ..C.. C: a step served" in flat(index.text)
    html = page.raw
    assert re.search(r'<span class="figure bad"[^>]*>differs</span>', html)
    marked = re.findall(r'title="([^"]*), its reference did otherwise"', html)
    assert marked == ["rank 1, step 2: served from the cache", "rank 1, step 3: computed"]
    assert html.index("rank 1, step 2") < html.index("<img"), "decisions before pictures"


def test_a_cache_that_never_served_is_named(new_sample: Any) -> None:
    sample = new_sample()
    never = (False,) * STEPS
    row = add_row(sample, SQUARE, "aligned", cache="cache-dit", decisions=(never, never))
    assert row.verdict is not None
    sample.rows[0] = replace(row, comparisons=row.comparisons[1:])
    site = pages(sample)
    assert "The cache never served a step at square on h." in site["index.html"].text
    assert re.search(r'<span class="figure bad"[^>]*>0 of 4</span>', site["index.html"].raw)


# ---------------------------------------------------------------- sequences and batches


def test_a_row_says_which_request_of_a_sequence_it_is(new_sample: Any) -> None:
    sample = new_sample()
    for number in (1, 2, 3):
        request = replace(SQUARE, name=f"mixed-{number}", sequence="mixed", seed=number % 2)
        for layout in ("aligned", "exact"):
            add_row(sample, request, layout, sequence=f"mixed/{layout}", after=str(number))
    site = pages(sample)
    for number in (1, 2, 3):
        for anchor in (f"mixed-{number}_spatial-u2-h", f"mixed-{number}_spatial-u2-h-exact"):
            assert f"request {number} of mixed" in site[anchor].text
    assert "request 3 of mixed" in write("markdown", sample).read_text()
    frame = pd.read_csv(write("csv", sample)).drop_duplicates("row")
    assert frame["sequence"].eq("mixed").all()
    assert frame["request"].tolist() == [1, 1, 2, 2, 3, 3]


def test_every_picture_of_a_batch_has_its_own_differences(new_sample: Any) -> None:
    sample = new_sample()
    batch = replace(SQUARE, name="batch", prompts=("a ball", "a <cone>"), num_images_per_prompt=2)
    row = add_row(sample, batch, "aligned")
    own = sample.folder / "runs" / row.runs["candidate"]
    picture = scene(batch.size)
    picture[70:80, 70:80] = 0
    Image.fromarray(picture).save(own / "image-3.png")
    page = pages(sample)["batch_spatial-u2-h"]
    html, text = page.raw, flat(page.text)
    for number, prompt in enumerate(("a ball", "a ball", "a <cone>", "a <cone>"), 1):
        assert f"Picture {number} of 4 {prompt}" in text
    candidate = row.runs["candidate"]
    assert [f'src="../runs/{candidate}/image-{index}.png"' in html for index in range(5)] == [True] * 4 + [False]
    differences = re.findall(r'<img[^>]* src="../(diffs/[^"]*)"', html)
    assert len(differences) == 2, "exchange and pair of the last picture"
    assert all("-3-h5_4" in file for file in differences)
    assert "equal to the last bit" in text
