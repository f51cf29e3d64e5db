"""The protocol of a number, in words that stand beside it: split, labels used, refinement, scales, method."""

from excel_core.cams.pseudo_labels import crf_source, step_names, voted_step
from excel_core.config import CamSpec, RunSpec

__all__ = ["FULLY_SUPERVISED", "WITH_SAM", "Protocol", "refinement_words", "seed_protocol", "segmentation_protocol"]

Protocol = dict[str, str]
FULLY_SUPERVISED = "true masks: fully supervised"
WITH_SAM = "image-level labels +SAM"  # a proposer of masks that learnt from masks had a part in the number


def seed_protocol(run: RunSpec, kind: str, split: str, step: str) -> Protocol:
    """Label maps of CAMs, `kind` static or lvc, after `step` of the refinement."""
    by_gradcam = run.cams.producer == "gradcam"
    seed = "GradCAM seed" if by_gradcam else "CAM seed"
    if kind == "lvc":
        guided = by_gradcam and run.train.guided_from is not None
        seed += (" with the learnt affinity" if by_gradcam else " with LVC") + (", guided by the head" if guided else "")
    seed += ", the pseudo labels" if step == step_names(run.refine)[-1] else ""
    mirrored = ", with mirror" if kind == "lvc" and run.dynamic.mirror and not by_gradcam else ""
    scales = f"{_view_words(run.cams)}{_input_words(run.cams.input, run.cams.image_size)}{mirrored}"
    labels = {"labels": "image-level ground truth", "refinement": refinement_words(run, step), "scales": scales}
    voted = {"supervision": WITH_SAM} if step == "votes" else {}
    seed += " +SAM" if voted else ""
    return _marked(run, {"what": seed, "split": split, **labels}, trained=kind == "lvc") | voted


def refinement_words(run: RunSpec, step: str) -> str:
    """The refinement of CAMs up to `step`, e.g. `affinity+PAR+CRF`; marks a PAR or CRF that is not the published one."""
    spec = run.refine
    if step == "votes":
        return f"{refinement_words(run, voted_step(spec))}+mask votes"
    # The CRF may refine the maps before PAR: then PAR is no step of its result.
    last_step = crf_source(spec) if step == "crf" else step
    steps = step_names(spec)[: step_names(spec).index(last_step) + 1]
    steps += ["crf"] if step == "crf" else []
    unusual = [] if spec.crf.normalised else ["not normalised"]
    unusual += ["wrapped BGR"] if spec.crf.image == "wrapped_bgr" else []
    names = {
        "affinity": "affinity",
        "par": "PAR (photo)" if spec.par.image == "photo" else "PAR",
        "crf": f"CRF ({', '.join(unusual)})" if unusual else "CRF",
    }
    return "+".join(names[name] for name in steps if name != "raw") or "raw"


def segmentation_protocol(run: RunSpec, split: str, variant: str) -> Protocol:
    """Label maps of the trained segmenter: single_scale, multi_scale or multi_scale_crf."""
    spec = run.predict
    flips = "flip" if spec.flip == "all" else "flip except at 1.0"
    small = f", averaged at {spec.average_at:g} of the size" if spec.average_at < 1 else ""
    scales = "single" if variant == "single_scale" else f"{','.join(map(str, spec.scales))} + {flips}{small}"
    scales += _input_words(spec.protocol, spec.image_size)
    refinement = "CRF" if variant.endswith("crf") else "none"
    protocol = {"what": "segmentation", "split": split, "labels": "none", "refinement": refinement, "scales": scales}
    return _marked(run, protocol, trained=True)


def _view_words(spec: CamSpec) -> str:
    """From which sides of a photo CAMs are made, and through which windows."""
    sides = "single" if spec.scales == (1.0,) else ",".join(map(str, spec.scales))
    return sides if spec.window is None else f"{sides}, windows of {spec.window} in {spec.image_size}"


def _input_words(kind: str, side: int) -> str:
    """What the tower sees of a photo, where that is no square."""
    words = {"square": "", "native": ", native size", "longest_side": f", longer side {side}"}
    return words.get(kind, f", longer side {side} in whole patches")


def _marked(run: RunSpec, protocol: Protocol, trained: bool) -> Protocol:
    """`protocol` with the method; where a training had a part in the number, also its supervision and its checkpoint."""
    if trained and run.train.supervision == "masks":
        words = {"what": f"{protocol['what']}, fully supervised", "supervision": FULLY_SUPERVISED}
        protocol = protocol | words
    if trained and run.train.from_checkpoint is not None:
        protocol = protocol | {"weights": "published checkpoint"}
    return protocol | {"method": run.method}
