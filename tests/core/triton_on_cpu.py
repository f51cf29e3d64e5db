"""Triton's kernels on tiny pictures, by its interpreter, beside the CPU's path. Run with TRITON_INTERPRET=1."""

import torch
import torch.nn.functional as F

from excel_core.cams.affinity import _boxes_by_region
from excel_core.cams.packed_labels import packed_labels
from excel_core.cams.par import map_slots, pixel_adaptive_refinement, refine_packed_pictures
from excel_core.cams.pseudo_labels import refine_labels
from excel_core.config import CrfSpec, ParSpec, RefineSpec
from excel_core.kernels.boxes_triton import boxes_of_regions
from excel_core.kernels.gpu import pack_sizes

CPU = torch.device("cpu")
SIZES = [(9, 34), (8, 3)]


def _smooth(channels: int, size: tuple[int, int], seed: int) -> torch.Tensor:
    coarse = torch.rand(1, channels, 4, 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)


def par(precision: str, tolerance: float) -> None:
    """Two pictures of different sizes, packed."""
    spec, labels = ParSpec(dilations=(1, 4), iterations=2, precision=precision), 3
    images = [_smooth(3, size, i) for i, size in enumerate(SIZES)]
    maps = [_smooth(labels, size, 10 + i) for i, size in enumerate(SIZES)]
    colours = torch.cat([F.pad(image[0].flatten(1).T, (0, 1)) for image in images])
    slots = torch.cat([F.pad(each[0].flatten(1).T, (0, map_slots(labels) - labels)) for each in maps])
    got = refine_packed_pictures(colours, slots, pack_sizes(SIZES, CPU), spec)[:, :labels]
    pairs = zip(images, maps, strict=True)
    expected = torch.cat([pixel_adaptive_refinement(image, each, spec)[0].flatten(1).T for image, each in pairs])
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=0)


def boxes() -> None:
    for shape in ((4, 7), (1, 3)):
        for share in (0.2, 0.5):
            above = torch.rand(3, *shape, generator=torch.Generator().manual_seed(int(10 * share))) < share
            assert torch.equal(boxes_of_regions(above), _boxes_by_region(above)), (shape, share)


def labels() -> None:
    """All of two photos, from CAMs to label maps by step."""
    spec, classes = RefineSpec(par=ParSpec(dilations=(1, 4), iterations=1), crf=CrfSpec(enabled=False)), [(4,), (0, 2)]
    images = [(_smooth(3, size, i)[0].permute(1, 2, 0) * 255).byte().numpy() for i, size in enumerate(SIZES)]
    inputs, cams = torch.cat([_smooth(3, (32, 32), 20 + i) for i in range(2)]), torch.zeros(2, 2, 4, 4)
    for row, own in zip(cams, classes, strict=True):
        row[: len(own)] = torch.rand(len(own), 4, 4, generator=torch.Generator().manual_seed(len(own)))
    attention = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(9))
    packed = packed_labels(images, inputs, classes, cams, attention, spec)
    for i, (image, own) in enumerate(zip(images, classes, strict=True)):
        expected = refine_labels(image, inputs[i], own, cams[i, : len(own)], attention[i], spec)
        got = packed.of_photo(i)
        assert list(got) == list(expected)
        for step, label_map in expected.items():
            assert (got[step] != label_map).sum() <= 1, step  # a pixel between two labels may fall to either


if __name__ == "__main__":
    par("fp32", 1e-5)
    par("fp16", 2e-2)
    boxes()
    labels()
