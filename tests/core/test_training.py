"""Training: schedule, augmentation, bit-exact resume, what learns, and that no mask can be opened."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from excel_core.config import RefineSpec, SegmenterSpec, TrainSpec
from excel_core.datasets.mask_guard import forbid_mask_access
from excel_core.datasets.masks import TrueMask, VocMaskReader
from excel_core.datasets.palette import save_labels_png
from excel_core.errors import MaskLeakError, StoreError
from excel_core.models.checkpoints import Architecture, load_segmenter, save_checkpoint, save_segmenter
from excel_core.models.clip import normalise_pixels
from excel_core.training.batches import Batch, Batches
from excel_core.training.loop import train
from excel_core.training.optimiser import learning_rate, make_optimiser
from excel_core.training.samples import LabelFile, TrainingImage, augment, is_varied, plain_sample
from excel_core.training.step import training_step

SPEC = TrainSpec(
    segmenter=SegmenterSpec(width=16, layers=1, heads=2),
    iterations=8,
    batch_size=2,
    crop=48,
    warmup=2,
    dynamic_from=3,
    own_argmax_from=6,
    checkpoint_every=3,
)
REFINE = RefineSpec.model_validate({"par": {"iterations": 2}, "affinity": {"layers": 2}})


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for i, classes in enumerate([(0,), (1, 2), (2,), ()]):
        path = tmp_path / "JPEGImages" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40 + 9 * i, 60, 3), dtype=np.uint8)).save(path)
        found.append(TrainingImage(path, classes))
    return found


def _architecture(cam_model, spec=SPEC):
    return Architecture("small", 4, 32, ("a", "b", "c"), spec.segmenter)


class _Killed(Exception):
    pass


def _killed_and_resumed(cam_model, images, shape, path):
    """Train, be killed after 5 iterations, train on from the checkpoint at `path`: the segmenter and its losses."""

    def kill(done):
        if done == 5:
            raise _Killed

    with pytest.raises(_Killed):
        train(cam_model, images, SPEC, REFINE, shape, path, kill)
    resumed_at = []
    model, losses = train(cam_model, images, SPEC, REFINE, shape, path, resumed_at.append)
    assert resumed_at[0] == 4  # after the checkpoint at 3, not from the start
    return model, losses


def test_resume_is_bit_exact(cam_model, images, tmp_path):
    shape = _architecture(cam_model)
    whole, losses = train(cam_model, images, SPEC, REFINE, shape, tmp_path / "a.pt")
    resumed, again = _killed_and_resumed(cam_model, images, shape, tmp_path / "b.pt")
    assert again == losses
    for ours, theirs in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_worker_meets_is_one_line(cam_model, images, tmp_path, workers):
    spec = SPEC.model_copy(update={"workers": workers})
    mask = tmp_path / "SegmentationClass" / "a.png"
    save_labels_png(mask, np.zeros((40, 60), np.uint8))
    (tmp_path / "pseudo.png").symlink_to(mask)
    images = [replace(image, labels=LabelFile(tmp_path / "pseudo.png")) for image in images]
    with forbid_mask_access(stage="train"), pytest.raises(MaskLeakError) as refused:
        train(cam_model, images, spec, REFINE, _architecture(cam_model), tmp_path / "a.pt")
    assert str(refused.value).startswith(f"train: open of the segmentation mask {mask}") and "\n" not in str(refused.value)


def test_workers_do_not_change_the_losses(cam_model, images, tmp_path):
    shape = _architecture(cam_model)
    spec = SPEC.model_copy(update={"iterations": 3})
    _, alone = train(cam_model, images, spec, REFINE, shape, tmp_path / "a.pt")
    _, helped = train(cam_model, images, spec.model_copy(update={"workers": 2}), REFINE, shape, tmp_path / "b.pt")
    assert alone == helped


def test_only_neck_and_head_learn(cam_model, images, tmp_path):
    frozen = {key: value.clone() for key, value in cam_model.clip.model.state_dict().items()}
    segmenter, losses = train(cam_model, images, SPEC, REFINE, _architecture(cam_model), tmp_path / "a.pt")
    assert all(torch.equal(frozen[key], value) for key, value in cam_model.clip.model.state_dict().items())
    assert all(parameter.grad is None for parameter in cam_model.clip.model.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in segmenter.named_parameters() if "neck.fuse" in n)
    assert all(np.isfinite([row.loss, row.segmentation, row.diversity]).all() for row in losses)
    assert not segmenter.training


def test_a_checkpoint_of_another_architecture_is_refused(cam_model, images, tmp_path):
    def kill(done):
        if done == 4:
            raise _Killed

    with pytest.raises(_Killed):
        train(cam_model, images, SPEC, REFINE, _architecture(cam_model), tmp_path / "a.pt", kill)
    wider = SPEC.model_copy(update={"segmenter": SegmenterSpec(width=32, layers=1, heads=2)})
    with pytest.raises(StoreError, match="another architecture .*segmenter: expected .*32.*got .*16.*rerun train"):
        train(cam_model, images, wider, REFINE, _architecture(cam_model, wider), tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(b"half a file")
    with pytest.raises(StoreError, match="not readable.*remove it and rerun train"):
        train(cam_model, images, SPEC, REFINE, _architecture(cam_model), tmp_path / "a.pt")


def test_saved_weights_come_back(cam_model, images, tmp_path):
    shape = _architecture(cam_model)
    segmenter = shape.build()
    save_segmenter(tmp_path / "s.safetensors", shape, segmenter)
    back = load_segmenter(tmp_path / "s.safetensors", shape)
    assert all(torch.equal(a, b) for a, b in zip(segmenter.state_dict().values(), back.state_dict().values(), strict=True))
    other = Architecture("other", 4, 32, ("a", "b", "c"), SPEC.segmenter)
    with pytest.raises(StoreError, match="clip: expected other, got small"):
        load_segmenter(tmp_path / "s.safetensors", other)


@pytest.mark.parametrize("workers", [0, 1])
def test_training_on_a_mask_fails(cam_model, images, tmp_path, workers):
    leak = tmp_path / "SegmentationClass" / "0.png"
    leak.parent.mkdir()
    leak.write_bytes(Path(images[0].path).read_bytes())
    spec = SPEC.model_copy(update={"workers": workers})
    with forbid_mask_access(stage="train"), pytest.raises(MaskLeakError, match="train"):
        train(cam_model, [TrainingImage(leak, (0,))], spec, REFINE, _architecture(cam_model), tmp_path / "a.pt")


def test_a_crop_of_one_label_is_drawn_again():
    """As published, but on labels of the run's own: no label may cover 75 % of a crop, background counts, the tenth stays."""
    labels = np.zeros((64, 640), np.uint8)
    labels[:, 600:] = 1  # where crops may see two labels
    image, spec = np.repeat(labels[..., None], 3, axis=2), TrainSpec(crop=64, scale=(1.0, 1.0))

    def share(rule, seed):
        sample = augment(image, (0,), labels, spec.model_copy(update={"crop_rule": rule}), np.random.default_rng(seed))
        assert torch.equal(sample.labels, sample.pixels[0])  # cut out together
        return float(torch.bincount(sample.labels.flatten().long(), minlength=2).max()) / 64**2

    ruled, random = ([share(rule, seed) for seed in range(60)] for rule in ("pseudo", "random"))
    assert sum(value < 0.75 for value in ruled) > 3 * sum(value < 0.75 for value in random)
    assert max(ruled) == 1  # ten draws that all saw one label
    assert (
        is_varied(np.array([[0, 0, 1, 255]]))
        and not is_varied(np.array([[0, 0, 0, 1]]))
        and not is_varied(np.full((2, 2), 255))
    )


def test_sides_are_cut_off_and_labels_pad_with_ignore():
    spec = TrainSpec(crop=64, scale=(0.799, 0.799))
    sample = augment(np.zeros((50, 60, 3), np.uint8), (), np.zeros((50, 60), np.uint8), spec, np.random.default_rng(0))
    assert sample.valid.sum() == 39 * 47  # int(0.799 * 50) and int(0.799 * 60), where rounding would give 40 and 48
    assert torch.equal(sample.labels == 255, ~sample.valid)


def test_every_epoch_has_one_order_without_the_last_incomplete_batch(images):
    spec = SPEC.model_copy(update={"order_seed": 2732})
    order = Batches([*images, *images, images[0]], spec, slice(0, 2)).order
    whole = torch.randperm(9, generator=torch.Generator().manual_seed(2732)).tolist()
    assert order == whole[:8]
    assert Batches(images[:1], spec, slice(0, 2)).order == [0]  # fewer than a batch
    batches = Batches(images, spec, slice(0, 2))
    first, third = batches[0], batches[2]  # the same images again, in other crops
    assert torch.equal(first.slots, third.slots)
    assert not torch.equal(first.pixels, third.pixels) and torch.equal(batches[2].planes, third.planes)


def test_segmenters_are_kept_on_the_way(cam_model, images, tmp_path):
    seen = {}
    spec = SPEC.model_copy(update={"keep_every": 4})
    keep = lambda t, segmenter: seen.update({t: segmenter.classifier.bias.detach().clone()})  # noqa: E731
    last, _ = train(cam_model, images, spec, REFINE, _architecture(cam_model), tmp_path / "a.pt", on_snapshot=keep)
    assert list(seen) == [4, 8]
    assert torch.equal(seen[8], last.classifier.bias) and not torch.equal(seen[4], seen[8])


def test_learning_rate_warms_up_and_decays_to_zero():
    spec = TrainSpec(iterations=100, warmup=10, learning_rate=2e-3)
    rates = [learning_rate(t, spec) for t in range(100)]
    assert rates[0] == pytest.approx(2e-9) and rates[10] == pytest.approx(2e-3 * 0.9)
    assert np.diff(rates[:10]).min() > 0 and np.diff(rates[10:]).max() < 0
    assert rates[50] == pytest.approx(1e-3) and rates[99] == pytest.approx(2e-5)


def test_augmentation_crops_pads_and_mirrors():
    rng = np.random.default_rng(0)
    image = np.full((30, 50, 3), 200, dtype=np.uint8)
    spec = TrainSpec(crop=64, scale=(1.0, 1.0))
    sample = augment(image, (1, 2), None, spec, rng)
    pixels, valid = sample.pixels, sample.valid
    assert sample.classes == (1, 2) and (sample.labels == 255).all()  # the whole photo's classes; no labels
    assert pixels.shape == (3, 64, 64) and pixels.dtype == torch.uint8 and valid.sum() == 30 * 50
    assert (pixels[:, valid] == 200).all() and (pixels[:, ~valid] == 0).all()
    big = rng.integers(0, 255, (100, 120, 3), dtype=np.uint8)
    sample = augment(big, (), None, TrainSpec(crop=32, scale=(1.0, 1.0)), rng)
    pixels, valid = sample.pixels, sample.valid
    windows = np.lib.stride_tricks.sliding_window_view(big, (32, 32, 3)).reshape(-1, 32, 32, 3)
    crop = pixels.permute(1, 2, 0).numpy()
    assert valid.all()
    assert any((windows == c).all((1, 2, 3)).any() for c in (crop, crop[:, ::-1]))


def _labelled(images, tmp_path):
    """The images with labels of two halves, as the crop rule looks at and the fully supervised mode trains on."""
    found = []
    for image in images:
        with Image.open(image.path) as picture:
            labels = np.zeros((picture.height, picture.width), np.uint8)
        labels[:, labels.shape[1] // 2 :] = 1 + image.classes[0] if image.classes else 255
        path = tmp_path / "labels" / f"{image.path.stem}.png"
        save_labels_png(path, labels)
        found.append(replace(image, labels=LabelFile(path)))
    return found


def test_resume_is_exact_where_labels_choose_the_crops(cam_model, images, tmp_path):
    """The number of draws of a crop depends on what they show, but a sample's draws are its own."""
    shape, ruled = _architecture(cam_model), _labelled(images, tmp_path)
    _, losses = train(cam_model, ruled, SPEC, REFINE, shape, tmp_path / "a.pt")
    _, random = train(cam_model, ruled, SPEC.model_copy(update={"crop_rule": "random"}), REFINE, shape, tmp_path / "c.pt")
    assert losses != random  # the rule was at work
    _, again = _killed_and_resumed(cam_model, ruled, shape, tmp_path / "b.pt")
    assert again == losses


def test_a_kill_right_after_a_checkpoint_costs_no_kept_segmenter(cam_model, images, tmp_path, monkeypatch):
    spec, shape = SPEC.model_copy(update={"keep_every": 3}), _architecture(cam_model)
    whole, killed = {}, {}
    train(cam_model, images, spec, REFINE, shape, tmp_path / "a.pt", on_snapshot=_into(whole))

    def save_and_die(*arguments):
        save_checkpoint(*arguments)
        raise _Killed

    with monkeypatch.context() as patched:
        patched.setattr("excel_core.training.loop.save_checkpoint", save_and_die)
        with pytest.raises(_Killed):
            train(cam_model, images, spec, REFINE, shape, tmp_path / "b.pt", on_snapshot=_into(killed))
    train(cam_model, images, spec, REFINE, shape, tmp_path / "b.pt", on_snapshot=_into(killed))
    assert list(killed) == list(whole) == [3, 6]
    for iteration, state in whole.items():
        assert all(torch.equal(a, b) for a, b in zip(state.values(), killed[iteration].values(), strict=True))


def _into(found):
    def keep(iteration, segmenter):
        found[iteration] = {key: value.clone() for key, value in segmenter.state_dict().items()}

    return keep


@pytest.mark.parametrize("supervision", ["labels", "masks"])
def test_labels_that_are_masks_fail_behind_the_guard(cam_model, images, tmp_path, supervision):
    """Weak supervision that reads a mask as its pseudo label, and the reader itself, inside the guard."""
    spec, root = SPEC.model_copy(update={"supervision": supervision}), tmp_path / "data"
    mask = root / "SegmentationClass" / "0.png"
    save_labels_png(mask, np.ones((40, 60), np.uint8))
    behind = LabelFile(mask) if supervision == "labels" else TrueMask(VocMaskReader(root), "0", 40, 60)
    leaking = [replace(images[0], labels=behind)]
    with forbid_mask_access(stage="train"), pytest.raises(MaskLeakError, match="train: .*SegmentationClass"):
        train(cam_model, leaking, spec, REFINE, _architecture(cam_model), tmp_path / "a.pt")
    if supervision == "masks":
        train(
            cam_model, leaking, spec.model_copy(update={"iterations": 1}), REFINE, _architecture(cam_model), tmp_path / "a.pt"
        )


def _pair_loss(probability, labels):
    """L_div of one image in loops: pairs within radius 2 on a 6 x 6 grid, labels of each patch's top-left pixel."""
    small = labels[::8, ::8].flatten()
    sums, counts = [0.0, 0.0], [0, 0]
    for i in range(36):
        for j in range(36):
            near = max(abs(i // 6 - j // 6), abs(i % 6 - j % 6)) <= 2
            if near and small[i] != 255 and small[j] != 255:
                same = int(small[i] == small[j])
                sums[same] += float(1 - probability[i, j] if same else probability[i, j])
                counts[same] += 1
    return 0.5 * (sums[1] / (counts[1] + 1) + sums[0] / (counts[0] + 1))


@pytest.mark.parametrize("iteration", [0, 4, 7])  # where weak labels would be static, dynamic, and the head's own
def test_with_masks_the_targets_are_the_masks(cam_model, iteration):
    """The step's losses equal those computed by hand from the crop of the mask, whatever the schedule says."""
    spec = SPEC.model_copy(
        update={"supervision": "masks", "radius": 2, "segmenter": SPEC.segmenter.model_copy(update={"dropout": 0.0})}
    )
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8)
    mask = torch.zeros(48, 48, dtype=torch.uint8)
    mask[10:30, 5:40], mask[:, 44:], mask[40:] = 2, 3, 255
    sample = replace(plain_sample(pixels, (0,)), labels=mask)  # its image-level label is no class of the mask
    segmenter = _architecture(cam_model, spec).build().train()
    with torch.no_grad():
        encoded = cam_model.encode(normalise_pixels(pixels[None] / 255, "imagenet"), 2)
        output = segmenter(cam_model.layers(encoded), (6, 6))
        logits = F.interpolate(output.logits, size=(48, 48), mode="bilinear", align_corners=False)[0].double()
        unit = F.normalize(output.features[0].flatten(1), dim=0).double()
    cosine = unit.T @ unit
    pixel_losses = torch.logsumexp(logits, dim=0) - logits.gather(0, (mask.long() % 255)[None])[0]
    by_hand = 0.5 * float(pixel_losses[mask == 0].mean() + pixel_losses[(mask > 0) & (mask < 255)].mean())
    pairs = _pair_loss(torch.sigmoid(3 * (cosine - cosine.mean())), mask.numpy())
    step = training_step(cam_model, segmenter, make_optimiser(segmenter, spec), Batch.of([sample]), iteration, spec, REFINE)
    assert torch.equal(step.labels[0], mask.long())
    assert step.losses[:3].tolist() == pytest.approx([by_hand + 0.1 * pairs, by_hand, pairs], rel=1e-4)
    weak = spec.model_copy(update={"supervision": "labels"})
    again = training_step(cam_model, segmenter, make_optimiser(segmenter, weak), Batch.of([sample]), iteration, weak, REFINE)
    assert not torch.equal(again.labels[0], mask.long())  # labels of its one class and background
