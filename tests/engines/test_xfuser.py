"""xFuser's engine as far as it goes without xFuser."""

from __future__ import annotations

from harness import models
from harness.engines.xfuser import XfuserEngine
from harness.types import Case, Size, Variant

CASE = Case("144x144", "nano", Size(144, 144), ("a red ball",))


def test_ring_is_refused_in_a_sentence_and_pads_are_those_of_one_device() -> None:
    nano = models.resolve("nano")
    assert "ring attention needs FlashAttention" in str(XfuserEngine.limits(CASE, Variant("xfuser", ring=2), nano))
    assert XfuserEngine.limits(CASE, Variant("xfuser", ulysses=4), nano) is None  # heads that it pads
    assert XfuserEngine.image_pads(CASE, Variant("xfuser", ulysses=2), nano) == 15
