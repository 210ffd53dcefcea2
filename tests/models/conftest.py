import os
from pathlib import Path
from typing import Any

import pytest

from harness import models

# Nothing here may wait for a network.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def nano_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.build("nano-random", tmp_path_factory.mktemp("nano") / "nano-random")


@pytest.fixture(scope="session")
def pipeline(nano_folder: Path) -> Any:
    from harness.models.z_image import load_pipeline

    return load_pipeline(str(nano_folder), "float32", "cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SP_HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
