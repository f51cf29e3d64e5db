"""The published way of computing what excel computes, written from the method's description: the yardstick of `make bench`.

Direct formulations, one image at a time in refinement: all neighbours of PAR materialised by grouped convolutions (im2col),
q-k attention of every block as a matrix, feature surgery by a tensor of images x tokens x classes x channels, a second pass
of the whole tower for dynamic CAMs, the dense CRF by pydensecrf over every label there is. It uses the same
FrozenClip, so results can be compared.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from excel_core.config import RefineSpec, RunSpec
from excel_core.models.clip import FrozenClip, normalise_pixels
from excel_core.models.segmenter import Segmenter
from excel_core.training.losses import diversity_loss, pair_labels, segmentation_loss

__all__ = ["Pass", "boxes", "chain", "crf_of_all_labels", "encode", "par", "surgery", "training_step"]

CALIBRATED, AVERAGED = 5, 6  # last blocks


@dataclass(frozen=True)
class Pass:
    """attention (12, B, N, N) head means; calibrated tokens (B, N, D_s); layers (12, B, N, D_s) for the neck."""

    attention: Tensor
    calibrated: Tensor
    layers: Tensor


def encode(clip: FrozenClip, image: Tensor, raw: Tensor | None = None) -> Pass:
    """image (B, 3, S, S) → both paths through all blocks; raw: the relation r (B, M, M) of LVC."""
    x = clip.tokens(image)
    second = None
    maps, outputs = [], []
    extra = None if raw is None else torch.softmax(raw.masked_fill(raw < 0, -torch.inf), dim=-1)
    count = len(clip.blocks)
    for block, layer in enumerate(clip.blocks):
        B, N, C = x.shape
        projected = F.linear(layer.ln_1(x), layer.attn.in_proj_weight, layer.attn.in_proj_bias)
        q, k, v = projected.reshape(B, N, 3, clip.heads, -1).permute(2, 0, 3, 1, 4)
        scale = q.shape[-1] ** -0.5
        weights = torch.softmax(q @ k.transpose(-1, -2) * scale, dim=-1)
        maps.append(weights.mean(dim=1))
        if block >= count - CALIBRATED:
            intra = sum(torch.softmax(o @ o.transpose(-1, -2) * scale, dim=-1) for o in (q, k, v)) / 3
            if extra is not None:
                intra[:, :, 1:, 1:] += extra[:, None]
            intra = intra.sum(dim=1, keepdim=True).repeat(1, clip.heads, 1, 1)
            second = x if second is None else second
            second = second + layer.attn.out_proj((intra @ v).transpose(1, 2).reshape(B, N, C))
        x = x + layer.attn.out_proj((weights @ v).transpose(1, 2).reshape(B, N, C))
        if block > count - CALIBRATED:
            outputs[block - 1] = x  # the accident of in-place updates
        x = x + layer.mlp(layer.ln_2(x))
        outputs.append(x)
    calibrated = torch.cat([x[:, :1], second[:, 1:]], dim=1)
    outputs[count - CALIBRATED - 1] = calibrated
    return Pass(torch.stack(maps), calibrated, torch.stack(outputs))


def surgery(features: Tensor, text: Tensor, classes: int) -> Tensor:
    """features P (B, N, D), text (C+Z, D) → CAMs (B, C, M) by the tensor (B, N, C+Z, D) of all products."""
    features = features / features.norm(dim=1, keepdim=True)
    present = torch.softmax(2 * features[:, :1] @ text.T, dim=-1)
    weights = present / present.mean(dim=-1, keepdim=True)
    products = features[:, :, None, :] * text[None, None] * weights[..., None]
    products = products - products.mean(dim=2, keepdim=True)
    scores = products.sum(dim=-1)
    low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    return ((scores - low) / (high - low))[:, 1:, :classes].transpose(1, 2)


def par(image: Tensor, maps: Tensor, dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24), iterations: int = 20) -> Tensor:
    """image (B, 3, H, W), maps (B, K, H, W) → refined maps: 48 neighbours as channels of grouped convolutions."""
    kernel = torch.zeros(8, 1, 3, 3)
    for n, place in enumerate(p for p in range(9) if p != 4):
        kernel[n, 0, place // 3, place % 3] = 1

    def neighbours(values: Tensor) -> Tensor:
        B, C, H, W = values.shape
        by_dilation = []
        for d in dilations:
            padded = F.pad(values, (d,) * 4, mode="replicate").reshape(B * C, 1, H + 2 * d, W + 2 * d)
            by_dilation.append(F.conv2d(padded, kernel.to(values), dilation=d).reshape(B, C, 8, H, W))
        return torch.cat(by_dilation, dim=2)

    around = neighbours(image)
    distance = (around - image[:, :, None].repeat(1, 1, 8 * len(dilations), 1, 1)).abs()
    affinity = -((distance / (around.std(dim=2, keepdim=True) + 1e-8) / 0.3) ** 2)
    steps = torch.tensor([1, 1, 1, 1, 1, 1, 1, 1]) * torch.tensor([2**0.5, 1, 2**0.5, 1, 1, 2**0.5, 1, 2**0.5])
    lengths = (
        torch.cat([steps * d for d in dilations]).to(image).reshape(1, 1, -1, 1, 1).expand(len(image), 1, -1, *image.shape[2:])
    )
    position = -((lengths / (lengths.std(dim=2, keepdim=True) + 1e-8) / 0.3) ** 2)
    weights = torch.softmax(affinity.mean(dim=1, keepdim=True), dim=2) + 0.01 * torch.softmax(position, dim=2)
    for _ in range(iterations):
        maps = (neighbours(maps) * weights).sum(dim=2)
    return maps


def affinity(cam: Tensor, attention: Tensor, threshold: float) -> Tensor:
    """One class: cam (h, w), attention (M, M) → refined, min-max scaled (h, w)."""
    matrix = affinity_matrix(attention)
    inside = boxes(cam, threshold).to(matrix)
    refined = ((matrix * inside.reshape(1, -1)) @ cam.reshape(-1, 1)).reshape(cam.shape)
    shifted = refined - refined.min()
    return shifted / (1e-7 + shifted.max())


def affinity_matrix(attention: Tensor) -> Tensor:
    """attention (M, M) → the affinity (M, M) along which CAMs spread."""
    matrix = attention
    for _ in range(3):
        matrix = matrix / matrix.sum(dim=0, keepdim=True)
        matrix = matrix / matrix.sum(dim=1, keepdim=True)
    matrix = (matrix + matrix.T) / 2
    return matrix @ matrix


def boxes(cam: Tensor, threshold: float) -> Tensor:
    """cam (h, w) → (h, w) on the CPU, 1 in the boxes around regions above `threshold` of the maximum."""
    grey = (cam.cpu().numpy() * 255).astype(np.uint8)
    h, w = grey.shape
    inside = torch.zeros(h, w)
    regions, _ = ndimage.label(grey > int(threshold * grey.max()), structure=np.ones((3, 3)))
    for rows, columns in ndimage.find_objects(regions):
        inside[rows.start : min(rows.stop, h - 1), columns.start : min(columns.stop, w - 1)] = 1
    return inside


def label(
    colours: Tensor, classes: tuple[int, ...], cams: Tensor, attention: Tensor, spec: RefineSpec, size: tuple[int, int]
) -> Tensor:
    """One image: colours (3, H, W), its classes, CAMs (C, h, w), attention (M, M) → labels (H, W)."""
    maps = torch.stack([affinity(cams[c], attention, spec.affinity.threshold) for c in classes])
    full = F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)
    full = torch.cat([1 - full.amax(dim=1, keepdim=True), full], dim=1)
    winner = par(colours[None], full).argmax(dim=1)[0]
    return torch.tensor([0, *(c + 1 for c in classes)], device=winner.device)[winner]


def averaged(attention: Tensor, heads: int) -> Tensor:
    """attention (12, B, N, N) → mean of the last blocks, patches only, the calibrated ones summed over heads."""
    scaled = attention[-AVERAGED:].clone()
    scaled[-CALIBRATED:] *= heads
    return scaled[:, :, 1:, 1:].mean(dim=0)


def chain(
    clip: FrozenClip, text: Tensor, image: NDArray[np.uint8], classes: tuple[int, ...], batch: Tensor, run: RunSpec
) -> Tensor:
    """One image (H, W, 3) and its network input (1, 3, S, S) → pseudo labels (H, W): CAM, affinity, PAR."""
    encoded = encode(clip, batch)
    side = batch.shape[-1] // clip.patch
    cams = surgery(clip.project(encoded.calibrated), text, len(text) - 25)[0].reshape(-1, side, side)
    colours = F.interpolate(batch, size=image.shape[:2], mode="bilinear", align_corners=True)[0]
    return label(colours, classes, cams, averaged(encoded.attention, clip.heads)[0], run.refine, image.shape[:2])


def crf_of_all_labels(image: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """image (H, W, 3), probabilities (K, H, W) → refined, by pydensecrf over all K labels."""
    from pydensecrf import densecrf
    from pydensecrf.utils import unary_from_softmax

    K, H, W = probabilities.shape
    crf = densecrf.DenseCRF2D(W, H, K)
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))
    crf.addPairwiseGaussian(sxy=1, compat=3)
    crf.addPairwiseBilateral(sxy=67, srgb=3, rgbim=np.array(image, order="C"), compat=4)
    return np.array(crf.inference(10)).reshape(K, H, W)


def training_step(
    clip: FrozenClip,
    segmenter: Segmenter,
    optimiser: torch.optim.Optimizer,
    text: Tensor,
    pixels: Tensor,
    classes: list[tuple[int, ...]],
    run: RunSpec,
    dynamic: bool,
) -> Tensor:
    """pixels (B, 3, S, S) in 0…255 → the loss, after one optimiser step; refinement image by image."""
    grid = (pixels.shape[-1] // clip.patch,) * 2
    network_input = normalise_pixels(pixels / 255, run.cams.normalisation)
    with torch.no_grad():
        encoded = encode(clip, network_input)
    output = segmenter(encoded.layers, grid)
    unit = F.normalize(output.features.flatten(2), dim=1)
    cosine = unit.transpose(1, 2) @ unit
    raw = 3 * (cosine - cosine.mean())
    probability = torch.sigmoid(raw)
    with torch.no_grad():
        used = encode(clip, network_input, raw) if dynamic else encoded
        cams = surgery(clip.project(used.calibrated), text, len(text) - 25)
        attention = averaged(encoded.attention, clip.heads)
        if dynamic:
            attention = _sharpened(encoded.attention, clip.heads, probability)
        labels = torch.stack(
            [
                label(pixels[i], image_classes, cams[i].reshape(-1, *grid), attention[i], run.refine, pixels.shape[-2:])
                for i, image_classes in enumerate(classes)
            ]
        )
    logits = F.interpolate(output.logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    pairs = pair_labels(labels, grid, run.train.radius)
    loss = segmentation_loss(logits, labels) + run.train.diversity_weight * diversity_loss(probability, pairs)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss.detach()


def _sharpened(attention: Tensor, heads: int, probability: Tensor) -> Tensor:
    """Dynamic refinement, image by image: the layers least below R, averaged, times R."""
    scaled = attention[-AVERAGED:].clone()
    scaled[-CALIBRATED:] *= heads
    scaled = scaled[:, :, 1:, 1:]
    sharpened = []
    for i, image_probability in enumerate(probability):
        excess = torch.stack([(image_probability - layer[i]).sum() for layer in scaled])
        chosen = [layer[i] for layer, over in zip(scaled, excess, strict=True) if over <= excess.mean()]
        sharpened.append(torch.stack(chosen).sum(dim=0) / (len(chosen) + 1e-5) * image_probability)
    return torch.stack(sharpened)
