"""The protocol of a number, in words that stand beside it: split, labels used, refinement, scales, method."""

from excel_core.cams.pseudo_labels import crf_source, step_names, voted_step
from excel_core.config import RunSpec

__all__ = ["FULLY_SUPERVISED", "WITH_SAM", "Protocol", "refinement_words", "seed_protocol", "segmentation_protocol"]

Protocol = dict[str, str]
FULLY_SUPERVISED = "true masks: fully supervised"
WITH_SAM = "image-level labels +SAM"  # a proposer of masks that learnt from masks had a part in the number


def seed_protocol(run: RunSpec, kind: str, split: str, step: str) -> Protocol:
    """Label maps of CAMs, `kind` static or lvc, after `step` of the refinement."""
    seed = "CAM seed" if kind == "static" else "CAM seed with LVC"
    seed += ", the pseudo labels" if step == step_names(run.refine)[-1] else ""
    mirrored = ", with mirror" if kind == "lvc" and run.dynamic.mirror else ""
    labels = {"labels": "image-level ground truth", "refinement": refinement_words(run, step), "scales": f"single{mirrored}"}
    voted = {"supervision": WITH_SAM} if step == "votes" else {}
    seed += " +SAM" if voted else ""
    return _marked(run, {"what": seed, "split": split, **labels}, trained=kind == "lvc") | voted


def refinement_words(run: RunSpec, step: str) -> str:
    """The refinement of CAMs up to `step`, e.g. `affinity+PAR+CRF`; marks a PAR or CRF that is not the published one."""
    spec = run.refine
    if step == "votes":
        return f"{refinement_words(run, voted_step(spec))}+mask votes"
    # The CRF may refine the maps before PAR: then PAR is no step of its result.
    last = crf_source(spec) if step == "crf" else step
    steps = step_names(spec)[: step_names(spec).index(last) + 1]
    steps += ["crf"] if step == "crf" else []
    names = {
        "affinity": "affinity",
        "par": "PAR" if spec.par.image == "network_input" else "PAR (photo)",
        "crf": "CRF" if spec.crf.normalised else "CRF (not normalised)",
    }
    return "+".join(names[name] for name in steps if name != "raw") or "raw"


def segmentation_protocol(run: RunSpec, split: str, variant: str) -> Protocol:
    """Label maps of the trained segmenter: single_scale, multi_scale or multi_scale_crf."""
    spec = run.predict
    flips = "flip" if spec.flip == "all" else "flip except at 1.0"
    small = f", averaged at {spec.average_at:g} of the size" if spec.average_at < 1 else ""
    scales = "single" if variant == "single_scale" else f"{','.join(map(str, spec.scales))} + {flips}{small}"
    refinement = "CRF" if variant.endswith("crf") else "none"
    protocol = {"what": "segmentation", "split": split, "labels": "none", "refinement": refinement, "scales": scales}
    return _marked(run, protocol, trained=True)


def _marked(run: RunSpec, protocol: Protocol, trained: bool) -> Protocol:
    """`protocol` with the method; where a training had a part in the number, also its supervision and its checkpoint."""
    if trained and run.train.supervision == "masks":
        words = {"what": f"{protocol['what']}, fully supervised", "supervision": FULLY_SUPERVISED}
        protocol = protocol | words
    if trained and run.train.from_checkpoint is not None:
        protocol = protocol | {"weights": "published checkpoint"}
    return protocol | {"method": run.method}
