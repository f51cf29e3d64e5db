"""How a number came about, in words that stand beside it: split, labels used, refinement, scales, method."""

from excel_core.config import RunSpec
from excel_core.seeds import crf_source, step_names

__all__ = ["FULLY_SUPERVISED", "Protocol", "refinement_words", "seed_protocol", "segmentation_protocol"]

Protocol = dict[str, str]
FULLY_SUPERVISED = "true masks: fully supervised"


def seed_protocol(run: RunSpec, kind: str, split: str, step: str) -> Protocol:
    """Label maps of CAMs, `kind` static or lvc, after `step` of the refinement."""
    what = "CAM seed" if kind == "static" else "CAM seed with LVC"
    about = what + (", the pseudo labels" if step == step_names(run.refine)[-1] else "")
    mirrored = ", with mirror" if kind == "lvc" and run.dynamic.mirror else ""
    labels = {"labels": "image-level ground truth", "refinement": refinement_words(run, step), "scales": f"single{mirrored}"}
    return _marked(run, {"what": about, "split": split, **labels}, trained=kind == "lvc")


def refinement_words(run: RunSpec, step: str) -> str:
    """What was done to CAMs up to `step`: `affinity+PAR+CRF`; what differs from the published way is said."""
    spec = run.refine
    before = crf_source(spec) if step == "crf" else step
    path = step_names(spec)[: step_names(spec).index(before) + 1]
    path += ["crf"] if step == "crf" else []
    words = {
        "affinity": "affinity",
        "par": "PAR" if spec.par.image == "network_input" else "PAR (photo)",
        "crf": "CRF" if spec.crf.normalised else "CRF (not normalised)",
    }
    return "+".join(words[done] for done in path if done != "raw") or "raw"


def segmentation_protocol(run: RunSpec, split: str, variant: str) -> Protocol:
    """Label maps of the trained segmenter: single_scale, multi_scale or multi_scale_crf."""
    spec = run.predict
    flips = "flip" if spec.flip == "all" else "flip except at 1.0"
    small = f", averaged at {spec.average_at:g} of the size" if spec.average_at < 1 else ""
    scales = "single" if variant == "single_scale" else f"{','.join(map(str, spec.scales))} + {flips}{small}"
    refinement = "CRF" if variant.endswith("crf") else "none"
    about = {"what": "segmentation", "split": split, "labels": "none", "refinement": refinement, "scales": scales}
    return _marked(run, about, trained=True)


def _marked(run: RunSpec, protocol: Protocol, trained: bool) -> Protocol:
    """With the method; what a fully supervised training had a part in says so first of all."""
    if trained and run.train.supervision == "masks":
        words = {"what": f"{protocol['what']}, fully supervised", "supervision": FULLY_SUPERVISED}
        protocol = protocol | words
    if trained and run.train.from_checkpoint is not None:
        protocol = protocol | {"weights": "published checkpoint"}
    return protocol | {"method": run.method}
