"""Pictures to look at: prompts x sizes x steps, drawn by the stock pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PROMPTS = (
    "a purple ring right and a yellow ball left on tiles at day",
    "a red cube left and a blue cone right on grass at night",
    "a red ball left of a blue cube, tiles, day",
    "a green cone in front of a white ring, a blue ball behind it, tiles, evening light, long shadows",
    "a tower left, a small boat right, calm water, a bridge between them, clouds, morning",
    "a large red house with blue trim in the middle on snow at evening, the sun on the right",
    "a small green tree left, a pink arrow in the middle and a black tower with yellow trim right on stone at day",
    "a picture of a white boat with red trim on the left and a large orange ball on the right on water at morning, "
    "clouds in the sky, the boat is white, the light falls from the left",
    "a yellow house right and a purple tree left on wood at evening, the sun on the right",
    "a blue arrow at the right and a green bridge with white trim on the left, grass, day, the ground is grass. the "
    "arrow is blue, on the left stands a green bridge, the sky is clear, the bridge has white trim",
    "a large white cone with red trim left, a small black cube in the middle and a pink ring with green trim right on "
    "tiles at night, the moon on the right, the cone has red trim. the cube is black, the ring is pink. on the right "
    "stands a pink ring with green trim, the ground is tiles, it is night, the cone is white, the light falls from the "
    "right, the black cube is small, the sky is clear, the ring has green trim",
    "a red boat",
)
SIZES = ((1280, 720), (720, 1280), (720, 720), (256, 144))
SWAPS = (
    "a red house left and a blue boat right on grass at day",
    "a blue house left and a red boat right on grass at day",
    "a red house right and a blue boat left on grass at day",
    "a red boat left and a blue house right on grass at day",
    "a red house left and a blue boat right on water at day",
    "a red house left and a blue boat right on grass at night",
    "a small red house left and a large blue boat right on grass at day",
    "a red house with yellow trim left and a blue boat right on grass at day, the sun on the right",
)
CELL_PX = 176
"""Longer side of a picture on the sheet."""


def write(checkpoint: Path, picture: Path, what: str, device: str, steps: int) -> None:
    """Draw and save one sheet: a row for each prompt, a column for each size.

    Parameters
    ----------
    checkpoint : Path
        Folder in Hugging Face layout.
    picture : Path
        JPEG or PNG to write.
    what : {"sheet", "swaps", "small"}
        All prompts at all sizes; word swaps at one size; all prompts at two small sizes.
    device : str
        Where to draw.
    steps : int
        Denoise steps.
    """
    import torch
    from diffusers import ZImagePipeline

    pipeline = ZImagePipeline.from_pretrained(checkpoint, torch_dtype=torch.float32).to(device)
    pipeline.set_progress_bar_config(disable=True)
    prompts: tuple[str, ...] = PROMPTS
    sizes: tuple[tuple[int, int], ...] = SIZES
    cell = CELL_PX
    if what == "swaps":
        prompts, sizes, cell = SWAPS, ((640, 368),), 320
    elif what == "small":
        sizes = ((256, 144), (144, 256))
    rows = [[_draw(pipeline, prompt, width, height, steps) for width, height in sizes] for prompt in prompts]
    _grid(rows, prompts, cell).save(picture, quality=88)


def _draw(pipeline: Any, prompt: str, width: int, height: int, steps: int) -> Any:
    import torch

    return pipeline(
        prompt=prompt, width=width, height=height, num_inference_steps=steps, guidance_scale=0.0,
        generator=torch.Generator("cpu").manual_seed(0),
    ).images[0]  # fmt: skip


def _grid(rows: list[list[Any]], labels: tuple[str, ...], cell: int) -> Any:
    """Pictures in two halves side by side, each row under the first words of its prompt."""
    from PIL import Image, ImageDraw

    small = [[_reduced(picture, cell) for picture in row] for row in rows]
    widths = [max(row[i].width for row in small) for i in range(len(small[0]))]
    tall = max(picture.height for row in small for picture in row)
    half = -(-len(rows) // 2)
    across = sum(widths) + 4 * len(widths)
    sheet = Image.new("RGB", (2 * across, half * (tall + 16)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (row, label) in enumerate(zip(small, labels, strict=True)):
        x, y = index // half * across, index % half * (tall + 16)
        pen.text((x + 2, y + 1), label[: across // 6 - 2], fill="black")
        for picture, width in zip(row, widths, strict=True):
            sheet.paste(picture, (x, y + 14))
            x += width + 4
    return sheet


def _reduced(picture: Any, cell: int) -> Any:
    from PIL import Image

    scale = min(1.0, cell / max(picture.size))
    return picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
