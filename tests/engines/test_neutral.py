"""Options that change nothing of the mathematics."""

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
@pytest.mark.parametrize("options", [{"keys": "reversed"}, {"keys": "twice"}, {"attention": "_native_math"}])
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


@pytest.mark.parametrize("options", [{"batch": "one by one"}, {"feed_forward": "float32"}, {"norms": "fused"}])
def test_the_transformer_comes_to_the_same(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import ZImageTransformer2DModel
    from diffusers.models.transformers.transformer_z_image import FeedForward

    from harness.planning.cut import cut
    from harness.spatial.group import SequenceGroup
    from harness.spatial.transformer import SpatialTransformer
    from harness.types import Size

    torch.manual_seed(0)
    model = ZImageTransformer2DModel(
        in_channels=4,
        dim=48,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 8, 8],
    )
    spatial, plan = SpatialTransformer(model, SequenceGroup()), cut(Size(64, 48), 1, "h")
    latents, captions = torch.randn(2, 4, 6, 8), [torch.randn(5, 16), torch.randn(40, 16)]
    batches: list[int] = []
    stock: Any = FeedForward.forward
    monkeypatch.setattr(FeedForward, "forward", lambda module, x: batches.append(len(x)) or stock(module, x))
    with torch.no_grad():
        conditions = spatial.prepare(captions, plan)
        expected = spatial(latents, torch.tensor([0.25, 0.25]), conditions)
        batches.clear()
        with _neutral.applied(options):
            found = spatial(latents, torch.tensor([0.25, 0.25]), conditions)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert set(batches) == ({1} if "batch" in options else {2})


def test_the_feed_forward_is_computed_in_float32() -> None:
    from diffusers.models.transformers.transformer_z_image import FeedForward

    torch.manual_seed(0)
    module, x = FeedForward(24, 64).bfloat16(), torch.randn(7, 24).bfloat16()
    exact = FeedForward(24, 64)
    exact.load_state_dict({name: weight.float() for name, weight in module.state_dict().items()})
    with torch.no_grad(), _neutral.applied({"feed_forward": "float32"}):
        assert torch.equal(module(x), exact(x.float()).bfloat16())
    with torch.no_grad():
        assert not torch.equal(module(x), exact(x.float()).bfloat16())


def test_fused_norms_round_once() -> None:
    from diffusers.models.normalization import RMSNorm

    torch.manual_seed(0)
    norm, x = RMSNorm(48, eps=1e-5).bfloat16(), torch.randn(7, 48).bfloat16()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
        exact = (
            x.double() * (x.double().square().mean(-1, keepdim=True) + 1e-5).rsqrt() * norm.weight.double()
        ).bfloat16()
        stock = norm(x)
        with _neutral.applied({"norms": "fused"}):
            assert torch.equal(norm(x), exact)
    assert not torch.equal(stock, exact)
