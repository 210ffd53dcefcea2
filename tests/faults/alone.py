"""Planted bugs that are there on one device too; no comparison of an engine with itself can see them."""

ALONE = (
    "cache-halves-apart",
    "cache-serves-unguided",
    "cache-shared-by-halves",
    "caption-bucket-coarse",
    "caption-last-layer",
    "caption-slots-attended",
    "guidance-zero-is-one",
    "latents-half-precision",
    "mask-dropped",
    "pad-tokens-uninitialised",
    "schedule-of-defaults",
    "timestep-rounded",
)
