"""Images, labels, and how they are cut into shards."""

from typing import Annotated, Literal

from pydantic import Field

from excel_core.config.base import Positive, Spec, Unit

__all__ = ["DatasetSpec", "ShardSpec"]


class DatasetSpec(Spec):
    """Where images and image-level labels come from."""

    layout: Literal["voc", "world", "coco", "folder"] = Field("voc", description="how the data folder is laid out")
    prompts: str = Field("voc", description="class file: one of prompts/, a path, or `data`: the data folder's own classes")
    train_split: str = Field("train_aug", description="split whose image-level labels supervise")
    seed_splits: tuple[str, ...] = Field(
        ("train",), description="splits whose CAM seeds are scored, where they have masks; they need image-level labels"
    )
    val_splits: tuple[str, ...] = Field(("val",), description="splits the segmenter is scored on, where they have masks")
    test_splits: tuple[str, ...] = Field((), description="further splits it segments, without labels and masks")
    labels: Literal["published", "folder"] = Field(
        "published",
        description="voc: image-level labels of VOC 2012's images, as published (excel ships them), or the folder's own "
        "Annotations; a labels.csv in the folder wins over both",
    )
    partial: bool = Field(False, description="voc: images that a list names and the folder lacks are left out and counted")
    max_images: Positive | None = Field(None, description="first so many images of each split; None: all")
    max_bad: Unit = Field(0.01, description="share of bad images that ends the run before work starts; one is always skipped")
    max_side: Annotated[int, Field(ge=64)] | None = Field(
        None,
        description="folder: longer side of a photo, pixels; larger ones are shrunk, their label maps too; None: no limit",
    )
    scene_size: Annotated[int, Field(ge=32, le=1024)] = Field(128, description="world: side of a scene, pixels")
    train_scenes: Positive = Field(240, description="world: training scenes")
    val_scenes: Positive = Field(40, description="world: held-out scenes of each validation split")

    @property
    def cam_splits(self) -> tuple[str, ...]:
        """Splits whose images get CAMs and label maps: the training split, then the seed splits, each once."""
        return tuple(dict.fromkeys((self.train_split, *self.seed_splits)))

    @property
    def labelled_splits(self) -> tuple[str, ...]:
        """Splits whose images need labels, each once."""
        return tuple(dict.fromkeys((*self.cam_splits, *self.val_splits)))

    @property
    def settings_of_splits(self) -> dict[str, str]:
        """Every split once, in the manifest's order → the setting that names it, as `dataset.val_splits=[{}]`."""
        pairs = [(self.train_split, "dataset.train_split={}")]
        for field in ("seed_splits", "val_splits", "test_splits"):
            pairs += [(split, f"dataset.{field}=[{{}}]") for split in getattr(self, field)]
        settings: dict[str, str] = {}
        for split, setting in pairs:
            settings.setdefault(split, setting)
        return settings


class ShardSpec(Spec):
    """How images are cut into the pieces that are cached and scheduled on their own, and what those keep for later ones."""

    # Shards are a power of two, so they hold images/2 to images on average: 165 each of VOC's 10,582 at 256, 64 in all. What
    # orchestration adds to one (docs/speed.md: some 10 ms in the flow's process, 0.1 s on Dask) is a thousandth or less of
    # CAMs on a CPU, 80 s a shard. Larger ones would lose more at a kill: at 256 up to 2 minutes of CAMs or refinement.
    images: Positive = Field(256, description="images per shard, at most about; shards are cut by a digest of the image's id")
    keep_attention: bool = Field(
        True,
        description="CAMs are stored with the attention that refinement needs, else it encodes each image again: 0.25 MB per "
        "image of 400 patches; none is stored of images of more than 1,024 patches",
    )
