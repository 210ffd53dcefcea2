"""What ranks are forked with is all that loading a checkpoint imports."""

import subprocess
import sys

PROGRAM = """
import importlib, sys
from harness import models
from harness.models.z_image import PRELOAD, load_pipeline

for name in PRELOAD:
    importlib.import_module(name)
before = set(sys.modules)
load_pipeline(models.resolve("nano").path, "float32", "cpu")
late = {name for name in set(sys.modules) - before if name.split(".")[0] in ("torch", "diffusers", "transformers")}
sys.exit(", ".join(sorted(late)) or 0)
"""


def test_loading_imports_nothing_that_was_not_preloaded() -> None:
    """Each rank would import it by itself: slower, and nobody would notice."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr.splitlines()[-1]
