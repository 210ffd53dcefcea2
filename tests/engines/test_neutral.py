"""Options that change the order of sums alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.engines import _neutral


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with _neutral.applied({"threads": before + 1}):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", [{"keys": "reversed"}, {"attention": "_native_math"}])
def test_attention_comes_to_the_same(options: dict[str, Any], masked: bool) -> None:
    from harness.spatial import attention

    random = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 40, 3, 8, generator=random)
    mask = torch.arange(40).expand(2, -1) < torch.tensor([[40], [30]]) if masked else None
    stock = attention.attend
    expected = stock(query, key, value, mask)
    with _neutral.applied(options):
        assert torch.allclose(attention.attend(query, key, value, mask), expected, atol=1e-5)
    assert attention.attend is stock
