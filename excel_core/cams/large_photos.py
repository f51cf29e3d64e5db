"""From CAMs to label maps for large photos: the steps of pseudo_labels.py, window by window over maps on disk.

Whole, affinity, PAR and CRF take 300 bytes a pixel and more. Here they take no more than MAX_BYTES_AT_ONCE of arrays, beside
the photo's own pixels and one plane of floats. The labels are the same.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.affinity import affinity_cams, rescaled, with_background
from excel_core.cams.crf import appearance_colours
from excel_core.cams.crf_tiles import crf_labels_with_confidence
from excel_core.cams.par import pixel_adaptive_refinement
from excel_core.config import ParSpec, RefineSpec
from excel_core.datasets.palette import IGNORE
from excel_core.disk_maps import MAX_BYTES_AT_ONCE, DiskMaps, Tile, strips, tiles
from excel_core.kernels.compiled import has_loops
from excel_core.kernels.resize import axis_of, resized_window

__all__ = ["large_label_steps", "par_by_tiles"]

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]
Colours = Callable[[slice, slice], Tensor]  # rows and columns of a photo → the colours (1, 3, h, w) that guide PAR there
AFFINITIES_COST = 6  # computing the affinities, in PAR's iterations


def large_label_steps(
    image: Image,
    network_input: Tensor,
    classes: Sequence[int],
    cams: Tensor,
    attention: Tensor,
    spec: RefineSpec,
    folder: Path | None = None,
) -> Iterator[tuple[str, Labels]]:
    """As `pseudo_labels.refine_labels`, step by step: (step, label map (H, W) uint8), so that one map is held at a time. Maps
    lie in temporary files in `folder`, 8 bytes per pixel and label; OSError where the disk is full."""
    size = (image.shape[0], image.shape[1])
    names = np.array([0, *(c + 1 for c in classes)], dtype=np.uint8)
    maps = _upsampled(cams, size, spec.background_power, folder)
    yield "raw", names[maps.highest()]
    if spec.affinity.enabled:
        refined = rescaled(affinity_cams(cams, attention, spec.affinity), spec.affinity.epsilon)
        maps = _upsampled(refined, size, spec.background_power, folder, half=spec.precision == "fp16")
        yield "affinity", names[maps.highest()]
    before_par = maps
    if spec.par.enabled:
        maps = par_by_tiles(_colours(image, network_input, spec.par), maps, spec.par, network_input.device)
        yield "par", names[maps.highest()]
    if spec.crf.enabled:
        source = maps if spec.crf.of == "par" else before_par
        del maps, before_par
        scores = _probabilities(source, spec.crf.normalised)
        labels, confidence = crf_labels_with_confidence(appearance_colours(image, spec.crf), scores, spec.crf)
        yield "crf", names[labels]
        if confidence is not None and spec.crf.confidence is not None:
            yield "confident", np.where(confidence >= spec.crf.confidence, names[labels], np.uint8(IGNORE))


def _upsampled(cams: Tensor, size: tuple[int, int], power: float, folder: Path | None, half: bool = False) -> DiskMaps:
    """As `affinity.upsample_with_background`, a class at a time."""
    maps = DiskMaps((len(cams) + 1, *size), folder)
    whole = slice(None)
    for k, cam in enumerate(cams, start=1):
        full = F.interpolate(cam[None, None], size=size, mode="bilinear", align_corners=False)[0]
        maps.write(whole, whole, (full.half().float() if half else full).cpu().numpy(), slice(k, k + 1))
    for rows in strips(size, 4 * maps.shape[0] + 8):
        full = torch.from_numpy(maps.read(rows, maps=slice(1, None)))
        background = with_background(full.half() if half else full, power)[:1]
        maps.write(rows, whole, background.numpy(), slice(0, 1))
    return maps


def _colours(image: Image, network_input: Tensor, spec: ParSpec) -> Colours:
    """As `pseudo_labels.par_colours`, of a window of the photo."""
    H, W = image.shape[:2]
    if spec.image == "photo":
        return lambda rows, columns: torch.from_numpy(image[rows, columns]).permute(2, 0, 1)[None].float()
    if network_input.device.type != "cpu" or not has_loops():
        whole = F.interpolate(network_input[None].float(), size=(H, W), mode="bilinear", align_corners=True)
        return lambda rows, columns: whole[..., rows, columns]
    source = np.ascontiguousarray(network_input.float().permute(1, 2, 0).numpy())
    vertical, horizontal = axis_of(source.shape[0], H, True), axis_of(source.shape[1], W, True)

    def window(rows: slice, columns: slice) -> Tensor:
        return torch.from_numpy(resized_window(source, vertical.part(rows), horizontal.part(columns)))[None]

    return window


def par_by_tiles(colours: Colours, maps: DiskMaps, spec: ParSpec, device: torch.device) -> DiskMaps:
    """As `pixel_adaptive_refinement` of one photo's maps (K, H, W), on the device, to the same values.

    A pixel depends on others up to the largest dilation away in each iteration. So a tile with a margin of `n` times that is
    exact after `n` iterations, and `n` iterations of all tiles are done before the next ones.
    """
    side, at_once = _plan(maps.shape[0], spec)
    reach, iterations_done = max(spec.dilations), 0
    refined = DiskMaps(maps.shape, maps.folder)
    source = maps
    while iterations_done < spec.iterations:
        at_a_time = spec.model_copy(update={"iterations": min(at_once, spec.iterations - iterations_done)})
        margin = at_a_time.iterations * reach
        for tile in tiles(maps.size, side, (margin, margin)):
            _refine_tile(colours, source, refined, tile, at_a_time, device)
        iterations_done += at_a_time.iterations
        # `maps` itself is the caller's, and is not written.
        source, refined = refined, DiskMaps(maps.shape, maps.folder) if source is maps else source
    return source


def _refine_tile(
    colours: Colours, source: DiskMaps, refined: DiskMaps, tile: Tile, spec: ParSpec, device: torch.device
) -> None:
    region = (tile.region_rows, tile.region_columns)
    cams = torch.from_numpy(source.read(*region))[None].to(device)
    result = pixel_adaptive_refinement(colours(*region).to(device), cams, spec)[0]
    refined.write(tile.rows, tile.columns, result[:, *tile.inner].cpu().numpy())


def _plan(labels: int, spec: ParSpec) -> tuple[int, int]:
    """A tile's side, and how many iterations are done before tiles exchange their values: few cost affinities computed anew,
    many cost margins."""
    reach = max(spec.dilations)
    bytes_per_pixel = 4 * (8 * len(spec.dilations) + 6 + 5 * labels)
    region = int((MAX_BYTES_AT_ONCE / bytes_per_pixel) ** 0.5)
    costs = {}
    for at_once in range(1, spec.iterations + 1):
        side = region - 2 * at_once * reach
        if side >= min(64, region // 4):
            passes = -(-spec.iterations // at_once)
            costs[passes * ((side + 2 * at_once * reach) / side) ** 2 * (AFFINITIES_COST + at_once)] = (side, at_once)
    return costs[min(costs)] if costs else (64, 1)


def _probabilities(maps: DiskMaps, normalised: bool) -> DiskMaps:
    """maps (K, H, W) → what the CRF of a CAM seed refines, as `pseudo_labels.label_steps`."""
    probabilities = DiskMaps(maps.shape, maps.folder)
    for rows in strips(maps.size, 4 * (3 * maps.shape[0] + 2)):
        scores = torch.from_numpy(maps.read(rows)).clamp_min_(0)
        if normalised:
            scores /= scores.sum(dim=0, keepdim=True).clamp_min(1e-8)
        probabilities.write(rows, slice(None), scores.numpy())
    return probabilities
