"""A golden set that the repository has all of: weights by number, drawn scenes, and results that were right once.

The published programs' own arrays come with weights and photos that are not the project's to give. This set has the same form
and the same keys, small. Its results are tests/data/golden_set.npz and golden_programs.npz, written by

    python -m tests.parity.golden_set

at a commit whose code agrees with the published arrays (`excel parity`, all keys). So the two comparisons, and every function
that they go through, are held without them. Write them again only when a published comparison demands other numbers.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from excel_core.config import SegmenterSpec
from excel_core.evaluation import parity, parity_programs
from excel_core.models.segmenter import Segmenter
from excel_core.world.scenes import render_scene
from tests.core.published_toys import published_state

__all__ = ["CLASSES", "write_golden_set", "write_programs"]

DATA = Path(__file__).parent.parent / "data"
CLASSES = ("car", "cup", "flower", "house", "umbrella")
BACKGROUND_PROMPTS, ATTRIBUTES = 4, 24
BLOCKS, WIDTH, JOINT, PATCH = 8, 64, 32, 16
SIZE, SCENES = 64, (11, 12)  # of the two images, in pixels; numbers of their scenes
PRESENT = ((0,), (1, 3, 4))  # indices of the classes that their CAMs are refined for
PHOTO_SIZE = 400  # more than the network sees, 320, so that it matters how photos are made smaller
LABELS = {"photo_a": ("car", "flower"), "photo_b": ("cup", "house", "umbrella")}
ITERATIONS = (100, 14_000, 24_000)  # one in each phase of the published schedule
Arrays = dict[str, NDArray[np.generic]]


def write_golden_set(folder: Path) -> Path:
    """Write set.npz, set_clip.npz and set_head.npz into `folder` → their prefix."""
    np.savez(folder / "set.npz", **_inputs(), **_load("golden_set.npz"))
    return _write_weights(folder)


def write_programs(folder: Path, skip: str = "") -> Path:
    """Write programs.npz and the photos with their labels into `folder` → the file. Leaves out keys that begin with `skip`."""
    results = {key: value for key, value in _load("golden_programs.npz").items() if not skip or not key.startswith(skip)}
    _write_photos(folder)
    np.savez(folder / "programs.npz", **results, **({} if skip == "train" else _crops()))
    return folder / "programs.npz"


def _load(name: str) -> Arrays:
    with np.load(DATA / name) as archive:
        return dict(archive)


def _write_weights(folder: Path) -> Path:
    clip, head = _weights()
    np.savez(folder / "set_clip.npz", **clip)
    np.savez(folder / "set_head.npz", **head)
    return folder / "set"


def _weights() -> tuple[Arrays, Arrays]:
    """A CLIP under OpenAI's names, a neck and head under the published ones; filled by NumPy, whose streams never change."""
    from open_clip.model import CLIP

    vision = {"image_size": 96, "layers": BLOCKS, "width": WIDTH, "head_width": 64, "patch_size": PATCH}
    text = {"context_length": 77, "vocab_size": 64, "width": WIDTH, "heads": 1, "layers": 1}
    model = CLIP(JOINT, vision, text, quick_gelu=True)
    clip = {key: _filled(key, tuple(value.shape)) for key, value in model.state_dict().items()}
    segmenter = Segmenter(BLOCKS, WIDTH, len(CLASSES), SegmenterSpec(width=32, layers=2))
    frozen = parity.clip_from_openai_state({key: torch.from_numpy(value) for key, value in clip.items()}, quick_gelu=True)
    head = {
        key.replace("decoder_fts_fuse.", "neck."): _filled(key, tuple(value.shape))
        for key, value in published_state(frozen, segmenter, prefix="").items()
        if "decoder" in key
    }
    return clip, head


def _filled(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Seeded by the key: scales of layer norms near 1, weights of unit gain, small biases."""
    random = np.random.default_rng(list(key.encode()))
    values = random.standard_normal(shape)
    if key == "logit_scale":
        return np.full(shape, 4.6, np.float32)
    if key.endswith("weight") and len(shape) == 1:
        return np.asarray(1 + 0.1 * values, np.float32)
    scale = float(np.prod(shape[1:])) ** -0.5 if len(shape) > 1 else 0.1
    return np.asarray(scale * values, np.float32)


def _inputs() -> Arrays:
    """What the golden set starts from: images in CLIP's colours and as PAR sees them, texts, attribute centroids, classes."""
    pixels = np.stack([render_scene(seed, SIZE).image for seed in SCENES]).transpose(0, 3, 1, 2).astype(np.float32)
    mean = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)[:, None, None]
    std = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)[:, None, None]
    random = np.random.default_rng(3)
    text = random.standard_normal((len(CLASSES) + BACKGROUND_PROMPTS, JOINT)).astype(np.float32)
    bank = random.standard_normal((JOINT, ATTRIBUTES)).astype(np.float32)
    return {
        "image": (pixels / 255 - mean) / std,
        "par_image": pixels,
        "text": text / np.linalg.norm(text, axis=1, keepdims=True),
        "bank": bank / np.linalg.norm(bank, axis=0, keepdims=True),
        **{f"classes_{i}": np.array(classes) for i, classes in enumerate(PRESENT)},
    }


def _write_photos(folder: Path) -> None:
    (folder / "JPEGImages").mkdir(parents=True)
    for seed, name in enumerate(LABELS, start=21):
        scene = render_scene(seed, PHOTO_SIZE).image[:-32]  # wider than high
        Image.fromarray(scene).save(folder / "JPEGImages" / f"{name}.png")
    rows = [f"{name},{' '.join(classes)}" for name, classes in LABELS.items()]
    (folder / "labels.csv").write_text("\n".join(["image,labels", *rows, ""]))


def _crops() -> Arrays:
    """Two crops to train on."""
    pixels = np.stack([render_scene(seed, 96).image for seed in (31, 32)]).transpose(0, 3, 1, 2)
    return {"train_pixels": pixels, "train_classes": np.array([[1, 0, 1, 0, 0], [0, 0, 0, 1, 0]], np.uint8)}


def main(folder: Path) -> None:
    """Compute the results and write them to tests/data; `folder` is for what is needed on the way."""
    prefix, inputs = _write_weights(folder), _inputs()
    shapes = {"static_cams": np.zeros((2, (SIZE // PATCH) ** 2, len(CLASSES)), np.float32)}
    golden = inputs | shapes | {"pseudo_labels": np.zeros((2, SIZE, SIZE), np.uint8)}
    clip = parity.golden_clip(prefix)
    segmenter = parity.golden_segmenter(prefix, clip, len(CLASSES))
    with torch.inference_mode():
        labels = parity._compute(golden, clip, segmenter)["pseudo_labels"].to(torch.uint8)
        computed = parity._compute(golden | {"pseudo_labels": labels.numpy()}, clip, segmenter)
    results = {key: value.numpy() for key, value in computed.items()}
    for key in ("pseudo_labels", "pseudo_labels_dynamic", "affinity_labels"):
        results[key] = results[key].astype(np.uint8)
    np.savez_compressed(DATA / "golden_set.npz", **results)

    _write_photos(folder)
    np.savez(folder / "set.npz", **inputs)
    names = ("voc_ms_labels", "voc_ms_logits_mean", "coco_ms_labels", "static_par", "lvc_flip_cams", "lvc_flip_par")
    empty = np.zeros(1)
    asked = {f"{photo}_{name}": empty for photo in LABELS for name in names}
    asked |= {f"train_{i}_{name}": empty for i in ITERATIONS for name in ("losses", "labels", "linear_pred_bias")}
    photos = {photo: list(classes) for photo, classes in LABELS.items()}
    programs = parity_programs._computed(prefix, asked | _crops(), folder, photos, CLASSES)
    np.savez_compressed(DATA / "golden_programs.npz", **{key: value.numpy() for key, value in programs})


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
