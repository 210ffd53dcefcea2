"""Every metric: the figure it must give, checked against scikit-image or by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from harness.metrics import ssim
from harness.plugins import Context, load, names
from harness.types import Domain, Figure

SHAPES: dict[Domain, tuple[int, ...]] = {"image": (64, 96, 3), "latents": (16, 8, 12)}


def measure(metric: str, reference: Any, candidate: Any, domain: Domain) -> Figure:
    figure: Figure = load("metrics", metric)().measure(reference, candidate, domain, Context())
    return figure


def noise(domain: Domain, seed: int = 0, shape: tuple[int, ...] | None = None) -> Any:
    generator = np.random.default_rng(seed)
    shape = shape or SHAPES[domain]
    if domain == "image":
        return generator.integers(0, 256, shape, dtype=np.uint8)
    return generator.normal(size=shape).astype(np.float32)


def changed(array: Any, index: Any, by: float) -> Any:
    copy = array.copy()
    copy[index] = copy[index] + np.asarray(by, copy.dtype)
    return copy


def test_every_file_is_a_metric() -> None:
    assert names("metrics") == ["max-abs", "p999", "psnr", "seam", "ssim", "worst-tile"]


@pytest.mark.parametrize(
    ("metric", "domain"),
    [
        (name, domain)
        for name in names("metrics")
        for domain in load("metrics", name).domains
        if name != "seam"  # speaks of places, not of size; tests/metrics/test_seam.py
    ],
)
def test_never_infinite_and_signed_as_promised(metric: str, domain: Domain) -> None:
    plugin = load("metrics", metric)
    reference = noise(domain)
    equal = measure(metric, reference, reference.copy(), domain)
    near = measure(metric, reference, changed(reference, (slice(0, 9), slice(0, 9)), 1), domain)
    far = measure(metric, reference, noise(domain, seed=1), domain)
    for figure in (equal, near, far):
        assert figure.metric == metric
        assert figure.domain == domain
        assert figure.value is None or math.isfinite(figure.value)
    assert near.value is not None
    assert far.value is not None
    assert (near.value > far.value) == plugin.higher_is_better


@pytest.mark.parametrize("metric", ["psnr", "worst-tile", "max-abs", "p999"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_give_no_figure(metric: str, bad: float) -> None:
    reference = noise("latents")
    candidate = np.full_like(reference, bad)
    figure = measure(metric, reference, candidate, "latents")
    assert figure.value is None
    assert figure.where_px is None


class TestPsnr:
    def test_one_grey_level_everywhere(self) -> None:
        reference = np.full((32, 32, 3), 7, np.uint8)
        figure = measure("psnr", reference, reference + np.uint8(1), "image")
        assert figure.value == pytest.approx(20 * math.log10(255))
        assert (figure.unit, figure.variant) == ("dB", "skimage, data_range=255")

    def test_latents_are_measured_against_the_span_of_the_reference(self) -> None:
        reference = np.linspace(-3, 5, 16 * 8 * 12, dtype=np.float32).reshape(16, 8, 12)
        figure = measure("psnr", reference, reference + np.float32(0.5), "latents")
        assert figure.value == pytest.approx(20 * math.log10(8 / 0.5), abs=1e-4)
        assert "span of the reference" in figure.variant

    @pytest.mark.parametrize("by", [1, 40, 255])
    def test_agrees_with_skimage(self, by: int) -> None:
        a = noise("image")
        b = np.clip(a + np.random.default_rng(1).integers(-by, by + 1, a.shape), 0, 255).astype(np.uint8)
        assert measure("psnr", a, b, "image").value == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-9)

    def test_agrees_with_skimage_on_latents(self) -> None:
        a, b = noise("latents").astype(np.float64), noise("latents", seed=1).astype(np.float64)
        expected = peak_signal_noise_ratio(a, b, data_range=a.max() - a.min())
        assert measure("psnr", a.astype(np.float32), b.astype(np.float32), "latents").value == pytest.approx(
            expected, abs=1e-9
        )

    def test_resolves_differences_of_one_float32_step(self) -> None:
        reference = noise("latents")
        candidate = np.nextafter(reference, np.float32(np.inf))
        error = np.mean((candidate.astype(np.float64) - reference) ** 2)
        span = float(np.max(reference)) - float(np.min(reference))
        figure = measure("psnr", reference, candidate, "latents")
        assert figure.value == pytest.approx(10 * math.log10(span**2 / error), abs=1e-6)
        assert figure.value is not None
        assert figure.value > 140

    def test_sums_of_squares_do_not_wrap(self) -> None:
        black = np.zeros((70_000, 1, 3), np.uint8)  # 255 squared in each row is more than 32 bits hold
        assert measure("psnr", black, black + np.uint8(255), "image").value == pytest.approx(0, abs=1e-12)

    def test_constant_reference_has_no_range(self) -> None:
        zeros = np.zeros((16, 4, 4), np.float32)
        assert measure("psnr", zeros, zeros + 1, "latents").value is None


def gradient(shape: tuple[int, ...]) -> Any:
    """Grey levels that rise by less than one a pixel, in both directions."""
    rows, columns, channels = np.indices(shape)
    return ((rows / 3 + columns / 5 + 7 * channels) % 256).astype(np.uint8)


def saturated(shape: tuple[int, ...]) -> Any:
    """Black and white fields with hard edges."""
    rows, columns, _ = np.indices(shape)
    return np.where((rows // 13 + columns // 17) % 2, 255, 0).astype(np.uint8)


def flat(level: int) -> Any:
    return lambda shape: np.full(shape, level, np.uint8)


SSIM_PAIRS: dict[str, tuple[Any, Any]] = {
    "noise": (lambda shape: noise("image", shape=shape), lambda a: noise("image", seed=1, shape=a.shape)),
    "near": (lambda shape: noise("image", shape=shape) // 2, lambda a: changed(a, ..., 1)),
    "half": (
        lambda shape: noise("image", shape=shape) // 2,
        lambda a: changed(a, (slice(None), slice(0, a.shape[1] // 2)), 9),
    ),
    # Where float32 would fail: the variance of a flat area is a small difference of large numbers.
    "flat, one level apart": (flat(250), lambda a: a - np.uint8(1)),
    "flat, far apart": (flat(200), lambda a: a // 2),
    "flat, black and white": (flat(0), lambda a: a + np.uint8(255)),
    "flat, one pixel": (flat(255), lambda a: changed(a, (5, 7, 1), 1)),
    "gradient": (gradient, lambda a: a ^ np.uint8(1)),
    "fields, one level apart": (saturated, lambda a: np.clip(a, 1, 254)),
    "fields, inverted": (saturated, lambda a: np.uint8(255) - a),
}


class TestSsim:
    # Sides shorter than a tile, of whole blocks and tiles, and just beyond.
    @pytest.mark.parametrize("size", [(11, 11), (16, 300), (19, 138), (75, 41), (266, 42), (267, 140)])
    @pytest.mark.parametrize("pair", SSIM_PAIRS)
    def test_equals_skimage(self, size: tuple[int, int], pair: str) -> None:
        make, change = SSIM_PAIRS[pair]
        reference = make((*size, 3))
        candidate = change(reference)
        expected = structural_similarity(
            reference,
            candidate,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=2,
        )
        figure = ssim.Ssim().measure(reference, candidate, "image", Context())
        assert figure.value == pytest.approx(expected, abs=1e-9)
        assert figure.variant == "Wang 2004, gaussian 1.5"

    def test_no_product_is_large_enough_for_several_threads(self) -> None:
        # OpenBLAS shares out what has more than 2**18 multiplications (GEMM_MULTITHREAD_THRESHOLD * 65536).
        longest_side = max(ssim.TILE_ROWS, ssim.TILE_COLUMNS) + ssim.MARGIN
        assert longest_side * ssim.BLOCK * (ssim.BLOCK + ssim.MARGIN) <= 2**18

    def test_too_small_for_the_window(self) -> None:
        a, b = noise("image", shape=(10, 40, 3)), noise("image", seed=1, shape=(10, 40, 3))
        assert measure("ssim", a, b, "image").value is None


class TestWorstTile:
    def test_points_at_the_changed_tile(self) -> None:
        reference = noise("image") // 2
        figure = measure("worst-tile", reference, changed(reference, (40, 70, 1), 30), "image")
        assert figure.where_px == (64, 32, 96, 64)
        assert figure.value == pytest.approx(10 * math.log10(255**2 / (30**2 / (32 * 32 * 3))))

    def test_last_tiles_end_at_the_border(self) -> None:
        reference = noise("image", shape=(48, 80, 3)) // 2
        figure = measure("worst-tile", reference, changed(reference, (47, 79), 9), "image")
        assert figure.where_px == (48, 16, 80, 48)
        assert figure.value == pytest.approx(10 * math.log10(255**2 / (81 / (32 * 32))))

    def test_latents_use_the_same_pixels(self) -> None:
        reference = noise("latents")
        figure = measure("worst-tile", reference, changed(reference, (3, 5, 9), 2.0), "latents")
        span = float(np.max(reference)) - float(np.min(reference))
        assert figure.where_px == (64, 32, 96, 64)
        assert figure.value == pytest.approx(10 * math.log10(span**2 / (4 / (16 * 16))), abs=1e-3)

    @pytest.mark.parametrize("shape", [(16, 48, 3), (33, 95, 3), (64, 64, 3)])
    def test_matches_a_plain_loop(self, shape: tuple[int, ...]) -> None:
        a, b = noise("image", shape=shape), noise("image", seed=1, shape=shape)
        squares = (a.astype(float) - b.astype(float)) ** 2
        tops, lefts = ([*range(0, n - 32, 32), max(0, n - 32)] for n in shape[:2])
        worst = max(squares[t : t + 32, left : left + 32].mean() for t in tops for left in lefts)
        assert measure("worst-tile", a, b, "image").value == pytest.approx(10 * math.log10(255**2 / worst))

    def test_a_small_part_weighs_more_than_in_the_whole(self) -> None:
        reference = noise("image") // 2
        seam = changed(reference, (slice(31, 33),), 20)
        whole, tile = (measure(m, reference, seam, "image").value for m in ("psnr", "worst-tile"))
        assert whole is not None
        assert tile is not None
        assert tile <= whole


class TestMaxAbsAndP999:
    def test_largest_and_its_token(self) -> None:
        reference = noise("image") // 2
        figure = measure("max-abs", reference, changed(reference, (17, 95, 2), 77), "image")
        assert (figure.value, figure.unit, figure.where_px) == (77, "of 255", (80, 16, 96, 32))

    def test_uint8_does_not_wrap(self) -> None:
        a, b = np.full((16, 16, 3), 5, np.uint8), np.full((16, 16, 3), 250, np.uint8)
        assert measure("max-abs", a, b, "image").value == 245
        assert measure("p999", b, a, "image").value == 245
        assert measure("p999", np.full_like(a, 0), np.full_like(a, 255), "image").value == 255

    def test_latents_have_their_own_unit_and_pixels(self) -> None:
        reference = np.zeros((16, 8, 12), np.float32)
        figure = measure("max-abs", reference, changed(reference, (0, 7, 3), 0.25), "latents")
        assert (figure.value, figure.unit, figure.where_px) == (0.25, "abs", (16, 48, 32, 64))

    def test_one_in_a_thousand_is_left_out(self) -> None:
        reference = np.zeros((100, 100, 1), np.uint8)
        candidate = reference.copy()
        candidate.flat[:9] = 200
        assert measure("max-abs", reference, candidate, "image").value == 200
        assert measure("p999", reference, candidate, "image").value == 0
        candidate.flat[:11] = 200
        assert measure("p999", reference, candidate, "image").value == 200

    @pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (16, 8, 12), (1, 1, 1001), (4, 50, 31)])
    def test_percentile_of_latents(self, shape: tuple[int, ...]) -> None:
        a, b = noise("latents", shape=shape), noise("latents", seed=1, shape=shape)
        expected = np.percentile(np.abs(a.astype(np.float64) - b), 99.9)
        assert measure("p999", a, b, "latents").value == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_one_bad_value_gives_no_percentile(self, bad: float) -> None:
        reference = noise("latents")
        candidate = reference.copy()
        candidate[3, 4, 5] = bad
        expected = None if np.isnan(bad) else np.percentile(np.abs(candidate - reference), 99.9)
        assert measure("p999", reference, candidate, "latents").value == expected
