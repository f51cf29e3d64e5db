"""The size at which the frozen encoders see a whole photo whose shape is kept (peers.md 2.1 and 3.8)."""

from excel_core.config import CamSpec
from excel_core.models.native_size import native_grid

__all__ = ["longest_side_size", "photo_grid"]

Size = tuple[int, int]


def longest_side_size(size: Size, side: int, patch: int, whole_patches: bool, least: int = 0) -> Size:
    """(H, W) of a photo → that of its input, the longer side `side`; no side below `least`, or below a patch.

    As published, sides are int(side * ratio) in double precision, so that 35 longest sides of 100 to 640 give 511 of 512, and
    the CLIP cuts off what is left over of a patch. `whole_patches` rounds to patches instead.
    """
    ratio = side / max(size)
    if whole_patches:
        height, width = (round(length * ratio / patch) * patch for length in size)
    else:
        height, width = (int(length * ratio) for length in size)
    least = max(least, patch)
    return max(least, height), max(least, width)


def photo_grid(size: Size, patch: int, spec: CamSpec) -> Size | None:
    """Rows and columns of patches of a photo's CAMs; None where all photos become squares of one size."""
    if spec.input == "square":
        return None
    if spec.input == "native":
        return native_grid(size[0], size[1], patch)
    height, width = longest_side_size(size, spec.image_size, patch, spec.input == "whole_patches")
    return height // patch, width // patch
