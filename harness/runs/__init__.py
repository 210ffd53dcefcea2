"""Run folders: plan, recorded runs and samples on disk, and the merging of several."""
