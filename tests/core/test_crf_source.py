"""Which maps a CAM seed's CRF refines, and that it says so."""

import numpy as np
import pytest
import torch

from excel_core.cams.crf import dense_crf
from excel_core.cams.pseudo_labels import crf_source, label_steps, step_names
from excel_core.config import RefineSpec

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
MAPS = {
    step: torch.rand(3, 24, 30, generator=torch.Generator().manual_seed(i)) for i, step in enumerate(("raw", "affinity", "par"))
}


def _spec(**crf):
    return RefineSpec.model_validate({"crf": crf})


@pytest.mark.parametrize("of", ["par", "affinity"])
@pytest.mark.parametrize("normalised", [True, False])
def test_the_crf_refines_the_maps_that_are_asked_for(of, normalised):
    spec = _spec(of=of, normalised=normalised)
    maps = MAPS[of].numpy()
    probabilities = maps / maps.sum(axis=0, keepdims=True) if normalised else maps
    expected = np.array([0, 5, 8])[dense_crf(IMAGE, probabilities, spec.crf).argmax(axis=0)]
    labels = label_steps(IMAGE, [4, 7], MAPS, spec)
    assert list(labels) == step_names(spec) == ["raw", "affinity", "par", "crf"]
    assert (labels["crf"] == expected).all()
    assert (labels["par"] == np.array([0, 5, 8])[MAPS["par"].argmax(dim=0)]).all()  # PAR stays, whatever the CRF is of


def test_what_is_switched_off_cannot_be_refined():
    assert crf_source(_spec()) == "par"
    assert crf_source(_spec(of="affinity")) == "affinity"
    assert crf_source(RefineSpec.model_validate({"par": {"enabled": False}})) == "affinity"
    assert crf_source(RefineSpec.model_validate({"affinity": {"enabled": False}, "crf": {"of": "affinity"}})) == "raw"
