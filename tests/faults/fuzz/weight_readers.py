"""Readers of weights and arrays: of CLIPs, segmenters, attributes, checkpoints, in every format that they may have."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.faults.fuzz.reader import CLASSES, Reader, each

__all__ = ["WEIGHT_READERS"]


def _attributes() -> Any:
    return torch.randn(16, 5, generator=torch.Generator().manual_seed(0))


def _make_attributes(folder: Path) -> None:
    from safetensors.torch import save_file

    values = _attributes()
    torch.save([values, torch.ones(3, 5)], folder / "a.pth")
    torch.save(values, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    np.save(folder / "a.npy", values.numpy(), allow_pickle=False)
    np.savez(folder / "z.npy.npz", a=values.numpy())
    (folder / "z.npy.npz").rename(folder / "z.npy")
    save_file({"a": values}, folder / "a.safetensors")


def _load_attributes(path: Path) -> Any:
    from excel_core.text.attributes_file import load_attributes

    return load_attributes(path, 16)


def _small_state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"visual.proj": torch.randn(8, 4, generator=generator), "logit_scale": torch.tensor(1.0)}


class _Scripted(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = torch.nn.Linear(4, 3).half()
        self.register_buffer("input_resolution", torch.tensor(32))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


def _make_clips(folder: Path) -> None:
    import warnings

    from safetensors.torch import save_file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(_Scripted()).save(str(folder / "openai.pt"))
    torch.save({"state_dict": {f"module.{key}": value for key, value in _small_state().items()}}, folder / "a.pt")
    torch.save(_small_state(), folder / "legacy.bin", _use_new_zipfile_serialization=False)
    save_file(_small_state(), folder / "a.safetensors")


def _load_clip(path: Path) -> Any:
    from excel_core.models.clip_weights import _fill, _read_state, expand_token_rows

    state = expand_token_rows(_read_state(path)[0], 49408)
    _fill(torch.nn.Linear(2, 2), state, str(path))


def _make_published(folder: Path) -> None:
    from safetensors.torch import save_file

    names = ("decoder_fts_fuse.linear_fuse.weight", "decoder.linear_pred.weight", "encoder.visual.proj")
    state = {f"module.{name}": torch.ones(4, 4, 1, 1) for name in names}
    torch.save(state, folder / "a.pth")
    torch.save({"model": state}, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file(state, folder / "a.safetensors")


def _load_published(path: Path) -> Any:
    from excel_core.models.published_checkpoint import is_published, read_published

    is_published(path)
    return read_published(path).sizes


def _architecture() -> Any:
    from excel_core.config import SegmenterSpec
    from excel_core.models.checkpoints import Architecture

    return Architecture("excel-tiny", 2, 8, CLASSES, SegmenterSpec(width=8, layers=1, heads=2))


def _make_trained(folder: Path) -> None:
    from excel_core.models.checkpoints import save_checkpoint, save_segmenter

    architecture = _architecture()
    segmenter = architecture.build()
    save_segmenter(folder / "segmenter.safetensors", architecture, segmenter)
    save_checkpoint(
        folder / "checkpoint.pt", architecture, {"iteration": 3, "segmenter": segmenter.state_dict(), "losses": [0.5]}
    )


def _load_segmenter(path: Path) -> Any:
    from excel_core.models.checkpoints import load_segmenter

    return load_segmenter(path, _architecture())


def _load_checkpoint(path: Path) -> Any:
    from excel_core.models.checkpoints import load_checkpoint

    return load_checkpoint(path, _architecture())


def _load_portable(path: Path) -> Any:
    from excel_core.prediction.trained_segmenter import load_portable

    return load_portable(path)


def _load_goldens(path: Path) -> Any:
    from excel_core.evaluation.parity import load_goldens

    return load_goldens(path)


def _make_goldens(folder: Path) -> None:
    np.savez(folder / "a.npz", a=np.ones((2, 3), np.float32), b=np.arange(3))
    np.savez_compressed(folder / "b.npz", a=np.ones((2, 3), np.float32))


WEIGHT_READERS = (
    Reader(
        "attributes",
        _make_attributes,
        each(_load_attributes, "a.pth", "legacy.pt", "a.npy", "z.npy", "a.safetensors"),
        ["a.pth", "legacy.pt", "a.npy", "z.npy", "a.safetensors"],
        (b"'descr'", b"'|O'", b"'shape': (", b"torch\nFloatStorage\n", b"__metadata__", b'"F64"', b'"shape":['),
    ),
    Reader(
        "CLIP weights",
        _make_clips,
        each(_load_clip, "openai.pt", "a.pt", "legacy.bin", "a.safetensors"),
        ["openai.pt", "openai.pt", "a.pt", "legacy.bin", "a.safetensors"],
        (
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"\x81",
            b"R",
            b"b",
            b"c__torch__.A\nB\n",
            b"cposix\nsystem\n",
            b"(",
            b"t",
            b"Q",
            b"h\x00",
        ),
    ),
    Reader(
        "published checkpoint",
        _make_published,
        each(_load_published, "a.pth", "legacy.pt", "a.safetensors"),
        ["a.pth", "legacy.pt", "a.safetensors"],
        (b"cbuiltins\nbytearray\n", b"R", b"decoder.", b"module.", b'"F32"'),
    ),
    Reader(
        "segmenter",
        _make_trained,
        each(_load_segmenter, "segmenter.safetensors"),
        ["segmenter.safetensors"],
        (b"architecture", b"__metadata__", b'"F16"', b'"shape":['),
    ),
    Reader(
        "checkpoint",
        _make_trained,
        each(_load_checkpoint, "checkpoint.pt"),
        ["checkpoint.pt"],
        (b"architecture", b"format", b"PK\x03\x04", b"data.pkl", b"constants.pkl"),
    ),
    Reader(
        "exported segmenter",
        _make_trained,
        each(_load_portable, "segmenter.safetensors"),
        ["segmenter.safetensors"],
        (b"format", b"excel-segmenter/1", b"digest"),
    ),
    Reader(
        "golden arrays",
        _make_goldens,
        each(_load_goldens, "a.npz", "b.npz"),
        ["a.npz", "b.npz"],
        (b"'|O'", b"PK\x01\x02", b"'shape': ("),
    ),
)
