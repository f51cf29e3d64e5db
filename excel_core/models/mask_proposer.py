"""A promptable segmenter (SAM, SAM 2) that proposes every mask of a photo, through transformers' mask generation.

An optional extra: `pip install 'excel-wsss[sam]'`. Its weights learnt from masks of other photos, so that numbers made with its
proposals are marked +SAM.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from excel_core.errors import ModelError, SettingError
from excel_core.files import first_sentence

__all__ = ["MaskProposer", "check_proposer"]

POINTS_AT_ONCE = 64  # prompts that go through the mask decoder together


def check_proposer() -> None:
    """SettingError where transformers is not installed."""
    if find_spec("transformers") is None:
        raise SettingError(
            "refine.votes.enabled=true: proposes masks by transformers, which is not installed; pip install 'excel-wsss[sam]', "
            "or name a folder of ready masks: --set refine.votes.masks=FOLDER"
        )


class MaskProposer:
    """`name`: a mask generation model of transformers by its name (facebook/sam-vit-base, facebook/sam2.1-hiera-small), which
    is downloaded, or a folder that holds one. ModelError where it cannot be had; weights are read from safetensors alone."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        check_proposer()
        from transformers import pipeline

        try:
            # Code that comes with a model is not run.
            self._generator: Any = pipeline(
                "mask-generation", model=name, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"refine.votes.model={name}: cannot be loaded ({first_sentence(error)}); name a SAM or SAM 2 of transformers, "
                "or a folder with config.json, preprocessor_config.json and model.safetensors"
            ) from None

    def propose(self, photo: NDArray[np.uint8]) -> Iterator[NDArray[np.bool_]]:
        """photo (H, W, 3) uint8 RGB → its masks (H, W) bool, the model's own thresholds applied, best first."""
        from PIL import Image

        outputs = self._generator(Image.fromarray(photo), points_per_batch=POINTS_AT_ONCE)
        for index in np.argsort(-np.asarray(outputs["scores"], dtype=np.float64), kind="stable"):
            yield np.asarray(outputs["masks"][index], dtype=bool)
