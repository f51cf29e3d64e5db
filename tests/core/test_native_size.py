"""Photos at their native size, and CAMs of grids that differ in one shard of the store."""

import numpy as np
import pytest
import torch
from PIL import Image

from excel_core.cams.cam_model import CamModel
from excel_core.config import CamSpec
from excel_core.models.native_size import MAX_NATIVE_SIDE, native_grid
from excel_core.stores import CamReader, CamWriter, join_cams


@pytest.mark.parametrize(
    ("size", "grid"),
    [((375, 500), (24, 32)), ((112, 160), (7, 10)), ((1, 1), (1, 1)), ((2048, 1024), (64, 32)), ((4000, 10), (64, 1))],
)
def test_sides_are_whole_patches_rounded_up(size, grid):
    assert native_grid(*size, patch=16) == grid


def test_the_network_sees_pillows_bicubic(small_clip):
    image = np.random.default_rng(0).integers(0, 256, (21, 30, 3), dtype=np.uint8)
    cam_model = CamModel(small_clip, torch.zeros(1, 16), 1, CamSpec(input="native", normalisation="clip"))
    got = cam_model.prepare([image])
    resized = np.asarray(Image.fromarray(image).resize((32, 24), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    torch.testing.assert_close(got[0], torch.from_numpy(((resized - mean) / std).astype(np.float32)).permute(2, 0, 1))


def test_a_large_photo_is_shrunk_first(small_clip):
    image = np.zeros((2, 3 * MAX_NATIVE_SIDE, 3), np.uint8)
    cam_model = CamModel(small_clip, torch.zeros(1, 16), 1, CamSpec(input="native"))
    assert cam_model.prepare([image]).shape == (1, 3, 8, MAX_NATIVE_SIDE)


def test_cams_come_back_on_their_own_grids(tmp_path):
    """A shard stores all images on the largest grid."""
    grids, classes = [(2, 5), (4, 3), (1, 1)], [(0,), (1, 2), ()]
    random = torch.Generator().manual_seed(0)
    cams = [torch.rand(1, max(1, len(c)), *grid, generator=random).half() for grid, c in zip(grids, classes, strict=True)]
    writer = CamWriter(tmp_path / "shard", ["a", "b", "c"], classes, grids=grids)
    for each in cams:
        writer.add(1, each)
    writer.close()
    (tmp_path / "whole" / "cams.zarr").mkdir(parents=True)
    (tmp_path / "shard" / "cams.zarr").rename(tmp_path / "whole" / "cams.zarr" / "s")
    join_cams(tmp_path / "whole", {"s": tmp_path / "shard"})
    reader = CamReader(tmp_path / "whole")
    for image, stored, names in zip("abc", cams, classes, strict=True):
        found, read = reader.read(image)
        assert tuple(found) == names
        np.testing.assert_array_equal(read, stored[0, : len(names)].float().numpy())
    together = reader.read_together(["a", "b"]).cams
    assert together.shape == (2, 2, 4, 5) and (together[0, 0, :2] == cams[0][0, 0].float().numpy()).all()
    assert reader.read_together(["c"]).cams.shape == (1, 2, 1, 1)
