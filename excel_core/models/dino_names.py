"""DINOv2 encoders by name: their sizes and where their files are. Nothing is downloaded, and no weights are read here.

A name is `dino-tiny` (the picture-book world's, shipped), a published one such as `dinov2_vits14`, whose file lies where
torch.hub or timm keeps it, or NAME:FILE with a file of one's own, of torch or safetensors.
"""

from dataclasses import dataclass
from pathlib import Path

from excel_core.config import RunSpec
from excel_core.errors import ModelError, SettingError
from excel_core.models.clip_names import BUILT_IN_FOLDER
from excel_core.models.weight_files import require_weights

__all__ = [
    "DINO_SIZES", "TINY_DINO", "TINY_DINO_FILE", "WANTED_DINO", "DinoSizes", "check_dino_settings", "dino_file", "dino_sizes",
]  # fmt: skip

TINY_DINO = "dino-tiny"
TINY_DINO_FILE = BUILT_IN_FOLDER / "tiny_dino.safetensors"
WANTED_DINO = "give the published file of a DINOv2 (.pth or .safetensors)"


@dataclass(frozen=True)
class DinoSizes:
    """`width` D of its features, `heads` of a block, `patch`: side of a patch in pixels; `timm`: timm's name of the model, ""
    where it has none."""

    width: int
    heads: int
    patch: int
    timm: str = ""

    @property
    def registers(self) -> bool:
        """Whether it has register tokens."""
        return "_reg" in self.timm


DINO_SIZES = {
    TINY_DINO: DinoSizes(96, 3, 8),
    "dinov2_vits14": DinoSizes(384, 6, 14, "vit_small_patch14_dinov2.lvd142m"),
    "dinov2_vitb14": DinoSizes(768, 12, 14, "vit_base_patch14_dinov2.lvd142m"),
    "dinov2_vitl14": DinoSizes(1024, 16, 14, "vit_large_patch14_dinov2.lvd142m"),
    "dinov2_vits14_reg": DinoSizes(384, 6, 14, "vit_small_patch14_reg4_dinov2.lvd142m"),
    "dinov2_vitb14_reg": DinoSizes(768, 12, 14, "vit_base_patch14_reg4_dinov2.lvd142m"),
    "dinov2_vitl14_reg": DinoSizes(1024, 16, 14, "vit_large_patch14_reg4_dinov2.lvd142m"),
}


def dino_sizes(name: str) -> DinoSizes:
    """Sizes of the encoder `name`; ModelError for an unknown one, with the valid ones."""
    model = name.partition(":")[0]
    if model not in DINO_SIZES:
        raise ModelError(f"unknown DINO {model!r}; valid: {', '.join(DINO_SIZES)}, each also as NAME:FILE")
    return DINO_SIZES[model]


def dino_file(name: str) -> Path:
    """The file of `name`'s weights; ModelError where there is none, with where to put it."""
    model, separator, file_name = name.partition(":")
    sizes = dino_sizes(name)
    if separator:
        file = Path(file_name)
        if not file.is_file():
            raise ModelError(f"DINO weights {file_name!r} do not exist; {WANTED_DINO}")
        return file
    if model == TINY_DINO:
        return TINY_DINO_FILE
    import torch  # which takes seconds, and dino-tiny's file needs none of it

    published = Path(torch.hub.get_dir()) / "checkpoints" / _published_file(model)
    file = published if published.is_file() else _timm_file(sizes.timm) or published
    if not file.is_file():
        raise ModelError(
            f"the weights of {model} are not on this machine; fetch "
            f"https://dl.fbaipublicfiles.com/dinov2/{_published_folder(model)}/{_published_file(model)} to {published}, "
            f"or give any other place: {model}:/path/to/the/file"
        )
    return file


def _published_folder(model: str) -> str:
    return model.removesuffix("_reg")


def _published_file(model: str) -> str:
    return f"{_published_folder(model)}_{'reg4_' if model.endswith('_reg') else ''}pretrain.pth"


def _timm_file(timm_name: str) -> Path | None:
    """Where timm has downloaded the model before, if it has."""
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(f"timm/{timm_name}", "model.safetensors")
    return Path(file) if isinstance(file, str) else None


def check_dino_settings(run: RunSpec) -> None:
    """Before any work. SettingError for settings of a second encoder that go without one, or the reverse; ModelError for an
    unknown encoder, and where its file is not there."""
    by_gradcam = run.cams.producer == "gradcam"
    is_proxy = not by_gradcam and run.cams.calibration.attention == "proxy"
    if run.dino.model is not None:
        if not by_gradcam and not is_proxy:
            raise SettingError(
                "dino.model: the second encoder is WeCLIP+'s, or that of cams.calibration.attention=proxy; choose --method "
                "weclip_plus, set that attention, or leave it out"
            )
        require_weights(dino_file(run.dino.model), WANTED_DINO)
    elif is_proxy:
        raise SettingError(
            f"cams.calibration.attention=proxy: needs a second encoder; set dino.model to one of {', '.join(DINO_SIZES)}"
        )
    if run.ablation.second_encoder is not None:
        require_weights(dino_file(run.ablation.second_encoder), WANTED_DINO)
    if run.train.mutual_weight and (run.dino.model is None or not by_gradcam):
        raise SettingError(
            "train.mutual_weight: the mutual losses need a second encoder; set dino.model, or choose --method weclip_plus"
        )
