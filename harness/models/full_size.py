"""``z-image-random``: the released model's full size with random weights, made on the device that draws.

No files: the folder holds configurations only, and :func:`make` turns them into networks there and then.
It draws nothing a person could name; it is for speed, memory and exchange at the real shapes.
"""

from __future__ import annotations

from typing import Any

NAME = "z-image-random"
PATH = f"builtin:{NAME}"
"""What stands where other models have their folder."""

SEED = 0

TRANSFORMER: dict[str, Any] = {
    "in_channels": 16, "dim": 3840, "n_layers": 30, "n_refiner_layers": 2, "n_heads": 30, "n_kv_heads": 30,
    "norm_eps": 1e-5, "qk_norm": True, "cap_feat_dim": 2560, "rope_theta": 256.0, "t_scale": 1000.0,
    "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512],
}  # fmt: skip
VAE_CHANNELS = (128, 256, 512, 512)
ENCODER: dict[str, Any] = {
    "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 3, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128,
}  # fmt: skip


def make(
    dtype: Any,
    device: str,
    transformer: dict[str, Any] = TRANSFORMER,
    vae_channels: tuple[int, ...] = VAE_CHANNELS,
    encoder: dict[str, Any] = ENCODER,
) -> Any:
    """Make the pipeline straight on a device, in the dtype it will run in.

    Parameters
    ----------
    dtype : torch.dtype
        Of all three networks; with bfloat16 they take about 14 GB.
    device : {"cpu", "cuda"}
        Where the random numbers are drawn; every rank that draws on the same kind of device gets the same.
    transformer, vae_channels, encoder
        Shapes; tests ask for smaller ones.

    Returns
    -------
    diffusers.ZImagePipeline
        Not yet in evaluation mode.
    """
    import torch
    from diffusers import AutoencoderKL, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    from harness.models import nano

    tokenizer = nano.make_tokenizer()
    config = Qwen3Config(
        vocab_size=-(-len(tokenizer) // 64) * 64, max_position_embeddings=1024, use_cache=False,
        pad_token_id=tokenizer.pad_token_id, **encoder,
    )  # fmt: skip
    kind = torch.device(device)
    before = torch.get_default_dtype()
    # Who else draws random numbers in this process shall not notice.
    with torch.random.fork_rng([torch.cuda.current_device()] if kind.type == "cuda" else []), kind:
        torch.manual_seed(SEED)
        torch.set_default_dtype(dtype)
        try:
            networks = {
                "text_encoder": Qwen3Model(config),
                "transformer": ZImageTransformer2DModel(**transformer),
                "vae": AutoencoderKL(
                    down_block_types=("DownEncoderBlock2D",) * len(vae_channels),
                    up_block_types=("UpDecoderBlock2D",) * len(vae_channels),
                    block_out_channels=vae_channels, layers_per_block=2, latent_channels=16, norm_num_groups=32,
                    sample_size=1024, scaling_factor=0.3611, shift_factor=0.1159, force_upcast=True,
                    use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=True,
                ),
            }  # fmt: skip
        finally:
            torch.set_default_dtype(before)
        for pad in (networks["transformer"].x_pad_token, networks["transformer"].cap_pad_token):
            # Some releases of diffusers leave them unset.
            torch.nn.init.normal_(pad)
    return ZImagePipeline(scheduler=nano.make_scheduler(), tokenizer=tokenizer, **networks)
