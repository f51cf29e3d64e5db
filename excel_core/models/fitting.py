"""Whether a run's settings fit each other and the CLIP, by its description: no weights are read for it."""

from excel_core.config import RunSpec
from excel_core.errors import SettingError
from excel_core.models.clip_weights import clip_sizes

__all__ = ["require_fitting"]


def require_fitting(run: RunSpec) -> None:
    """SettingError for sides that are no whole number of patches, more calibrated or averaged blocks than the CLIP has, a head
    that its attention heads do not divide, and scales upside down. ModelError for a CLIP that is no ViT."""
    sizes, calibration, train = clip_sizes(run.clip.model), run.cams.calibration, run.train
    sides = {"cams.image_size": run.cams.image_size, "train.crop": train.crop, "predict.image_size": run.predict.image_size}
    for field, side in sides.items():
        if side % sizes.patch:
            whole = side // sizes.patch * sizes.patch
            raise SettingError(
                f"{field}={side}: expected a multiple of {sizes.patch}, patch of {run.clip.model}; set {whole + sizes.patch}"
            )
    blocks = {"refine.affinity.layers": run.refine.affinity.layers}
    if calibration.attention != "qk":
        blocks["cams.calibration.depth"] = calibration.depth
    for field, count in blocks.items():
        if count > sizes.blocks:
            raise SettingError(f"{field}={count}: expected at most {sizes.blocks}, the blocks of {run.clip.model}; lower it")
    width, heads = train.segmenter.width, train.segmenter.heads
    if width % heads:
        raise SettingError(
            f"train.segmenter.width={width}: expected a multiple of train.segmenter.heads={heads}; change either"
        )
    if train.scale[0] > train.scale[1]:
        raise SettingError(f"train.scale={list(train.scale)}: expected the least first; swap the two")
