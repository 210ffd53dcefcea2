"""Files of a run between drawing and publication.

Packing a picture as PNG takes up to a tenth of the time in which a GPU draws it. Ranks therefore leave
pictures as they are, and they are packed here, while the ranks draw the next ones. Until its folder appears
a run counts as not drawn: when everything is killed in between, it is drawn again.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from harness import codec
from harness.errors import InfrastructureError
from harness.types import Run


@dataclass(frozen=True)
class Drawn:
    """A run that is over and has not appeared yet."""

    run: Run
    building: Path
    """Hidden folder in which the ranks have left their files."""
    folder: Path
    """Final place."""

    def publish(self) -> Run:
        """Make the folder appear, whole; ``run.json`` in it is written last.

        Raises
        ------
        InfrastructureError
            If it cannot be written; what there was of it is gone then.
        """
        try:
            images = tuple(_packed(self.building / name) for name in self.run.images)
            run = replace(self.run, images=images)
            codec.write_json(self.building / "run.json", run)
            shutil.rmtree(self.folder, ignore_errors=True)
            self.building.replace(self.folder)
        except OSError as error:
            shutil.rmtree(self.building, ignore_errors=True)  # half a run is of no use, and the room is needed
            raise cannot_write(self.folder, error) from None
        return run


def cannot_write(folder: Path, error: OSError, place: str = "") -> InfrastructureError:
    """Make the error of a run's folder that cannot be written: a full disk, say, or one without permission.

    Parameters
    ----------
    folder
        Final place of the run.
    error
        The system's error.
    place
        Place of the error where it is another: ranks on other nodes leave their files there first.
    """
    planned = next((parent for parent in folder.parents if (parent / "plan.json").is_file()), "RUN")
    remedy = f"mend that, then finish with: sp-harness run --resume {planned}"
    return InfrastructureError(f"{place or folder}: a run cannot be written ({error.strerror or error}); {remedy}")


def _packed(picture: Path) -> str:
    """Turn a picture into PNG; returns the name of the file."""
    from PIL import Image

    packed = picture.with_suffix(".png")
    with Image.open(picture) as image:
        # Level 1 takes a quarter of the default's time for a tenth more bytes.
        image.save(packed, compress_level=1)
    picture.unlink()
    return packed.name
