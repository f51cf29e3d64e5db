"""The kernels on a GPU against the CPU's path: PAR, boxes, resizing, labels, and training's labels in a CUDA graph."""

import pytest
import torch
import torch.nn.functional as F

from excel_core.cams.affinity import _boxes_by_region, box_masks, upsample_with_background
from excel_core.cams.par import _refine_by_planes, map_slots, pixel_adaptive_refinement, refine_packed_pictures
from excel_core.cams.pseudo_labels import class_slots, refine_batch
from excel_core.config import ParSpec, RefineSpec
from excel_core.kernels.gpu import has_triton, pack_sizes
from excel_core.models.clip import resize_pixels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GPU = torch.device("cuda")
SIZES = [(37, 20), (9, 70), (1, 1), (64, 64), (120, 333), (375, 500)]


def _rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def _smooth(channels, size, seed):
    """Planes (1, channels, *size) in [0, 1] as smooth as a photo's, with some noise."""
    coarse = _rand(1, channels, 8, 8, seed=seed)
    smooth = F.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    return (smooth + 0.02 * _rand(1, channels, *size, seed=seed + 1)).clamp(0, 1)


def test_triton_runs_there():
    assert has_triton(GPU)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("labels", [1, 2, 3, 5, 21])
def test_par_of_a_batch_is_the_cpus(size, labels):
    image, maps = _rand(2, 3, *size) * 255, _rand(2, labels, *size, seed=1)
    spec = ParSpec(iterations=5 if labels > 5 else 20)
    got = pixel_adaptive_refinement(image.to(GPU), maps.to(GPU), spec)
    torch.testing.assert_close(got.cpu(), pixel_adaptive_refinement(image, maps, spec), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dilations", [(1,), (3, 30), (1, 2, 4, 8, 12, 24)])
def test_par_of_other_dilations(dilations):
    image, maps, spec = _rand(1, 3, 50, 40), _rand(1, 4, 50, 40, seed=1), ParSpec(dilations=dilations, iterations=7)
    got = pixel_adaptive_refinement(image.to(GPU), maps.to(GPU), spec)
    torch.testing.assert_close(got.cpu(), _refine_by_planes(image, maps, spec), atol=1e-4, rtol=0)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_par_of_packed_pictures(precision):
    """Pictures of many sizes in one launch are as each on its own; in half precision 99.9 % of the labels are."""
    spec, labels = ParSpec(precision=precision), 3
    images = [_smooth(3, size, 10 * i) for i, size in enumerate(SIZES)]
    maps = [_smooth(labels, size, 10 * i + 5) for i, size in enumerate(SIZES)]
    colours = torch.cat([F.pad(image[0].flatten(1).T, (0, 1)) for image in images])
    slots = torch.cat([F.pad(each[0].flatten(1).T, (0, map_slots(labels) - labels)) for each in maps])
    got = refine_packed_pictures(colours.to(GPU), slots.to(GPU), pack_sizes(SIZES, GPU), spec).cpu()[:, :labels]
    pairs = zip(images, maps, strict=True)
    expected = torch.cat([pixel_adaptive_refinement(image, each, spec)[0].flatten(1).T for image, each in pairs])
    if precision == "fp32":
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    assert (got.argmax(1) == expected.argmax(1)).float().mean() >= 0.999
    torch.testing.assert_close(got, expected, atol=2e-2, rtol=0)


@pytest.mark.parametrize("shape", [(7, 9), (1, 5), (12, 3), (20, 20), (1, 1), (64, 64), (33, 64)])
def test_boxes_are_those_of_the_regions(shape):
    for share in (0.02, 0.2, 0.35, 0.5, 0.8, 1.0):
        maps = torch.where(_rand(16, *shape, seed=int(100 * share)) < share, 1.0, 0.0)
        got = box_masks(maps.to(GPU), 0.5).cpu()
        assert torch.equal(got, _boxes_by_region(maps > 0))


def test_boxes_follow_a_region_to_its_end():
    snake = torch.zeros(1, 20, 20)
    snake[0, ::2] = 1
    snake[0, 1::4, -1] = snake[0, 3::4, 0] = 1
    lone = snake.clone()
    lone[0, 3, 0] = 0  # cut in two
    for maps in (snake, lone):
        assert torch.equal(box_masks(maps.to(GPU), 0.5).cpu(), _boxes_by_region(maps > 0))


@pytest.mark.parametrize("power", [1.0, 2.5])
def test_resizing_is_torchs(power):
    from excel_core.kernels.resize_triton import enlarged_cams, enlarged_colours, labels_of, shrunk_photos

    sizes, counts = pack_sizes(SIZES, GPU), [3, 1, 2, 3, 1, 2]
    cams, inputs = _rand(6, 20, 20, 4).to(GPU), _rand(6, 3, 64, 64, seed=1).to(GPU)
    pixels = (_rand(sizes.pixels, 3, seed=2) * 256).byte().to(GPU)
    maps = enlarged_cams(cams, torch.tensor(counts, dtype=torch.int32, device=GPU), power, sizes)
    names = torch.arange(24, dtype=torch.uint8, device=GPU).reshape(6, 4)
    labels, colours, squares = labels_of(maps, names, sizes), enlarged_colours(inputs, sizes), shrunk_photos(pixels, sizes, 32)
    first = 0
    for i, ((h, w), count) in enumerate(zip(SIZES, counts, strict=True)):
        here = slice(first, first + h * w)
        first += h * w
        expected = upsample_with_background(cams[i].permute(2, 0, 1)[1 : count + 1], (h, w), power, rescale=False)
        own = maps[here].T.reshape(4, h, w)
        torch.testing.assert_close(own[: count + 1], expected, atol=1e-5, rtol=0)
        assert (own[count + 1 :] == -1).all()
        assert torch.equal(labels[here].reshape(h, w), names[i][own.argmax(0)])
        enlarged = F.interpolate(inputs[i : i + 1], size=(h, w), mode="bilinear", align_corners=True)[0]
        torch.testing.assert_close(colours[here, :3].T.reshape(3, h, w), enlarged, atol=1e-5, rtol=0)
        shrunk = resize_pixels(pixels[here].reshape(h, w, 3).permute(2, 0, 1)[None].float() / 255, 32)[0]
        torch.testing.assert_close(squares[i], shrunk, atol=1e-5, rtol=0)


def _training_batch(seed):
    pixels = torch.cat([_smooth(3, (128, 128), seed + i) for i in range(4)]) * 255
    return pixels, _rand(4, 6, 8, 8, seed=seed), _rand(4, 64, 64, seed=seed + 1)


def test_training_labels_are_the_cpus():
    (pixels, cams, attention), spec, classes = _training_batch(0), RefineSpec(), [(0,), (1, 2), (3, 4, 5), (2,)]
    slots = class_slots(classes, 4)
    got = refine_batch(pixels.to(GPU), slots.to(GPU), cams.to(GPU), attention.to(GPU), spec)
    assert (got.cpu() == refine_batch(pixels, slots, cams, attention, spec)).float().mean() >= 0.999


def test_training_labels_in_a_cuda_graph():
    """Captured once, replayed with other inputs, it gives what it gives outside."""
    spec, batches = RefineSpec(), [_training_batch(seed) for seed in (0, 50)]
    slots = [class_slots(classes, 4) for classes in ([(0,), (1, 2), (3,), (2,)], [(1, 2, 3), (5,), (0, 4), (3, 2)])]
    inputs = [tensor.to(GPU) for tensor in (batches[0][0], slots[0], *batches[0][1:])]
    pairs = zip(batches, slots, strict=True)
    expected = [refine_batch(b[0].to(GPU), s.to(GPU), b[1].to(GPU), b[2].to(GPU), spec) for b, s in pairs]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        labels = refine_batch(*inputs, spec)
    for number, (batch, slot) in enumerate(zip(batches, slots, strict=True)):
        for held, new in zip(inputs, (batch[0], slot, *batch[1:]), strict=True):
            held.copy_(new)
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(labels, expected[number])
