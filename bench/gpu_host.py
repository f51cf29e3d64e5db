"""What threads of the host do beside a GPU: decode photos, write label maps, write and read CAMs and attention."""

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.gpu_timing import Case, case
from excel_core.datasets.images import read_image
from excel_core.datasets.jpeg import torchvision_decodes_alike
from excel_core.datasets.palette import save_labels_png

__all__ = ["host"]


def host(paths: list[Path], tiny: bool) -> Iterator[Case]:
    """How much of each a second, by number of threads."""
    with tempfile.TemporaryDirectory() as scratch:
        yield from _photos_and_label_maps(Path(scratch), paths[: 2 if tiny else 64], 1 if tiny else 4)
        yield from _cams(Path(scratch), *((8, 8) if tiny else (256, 32)))


def _photos_and_label_maps(folder: Path, paths: list[Path], repeats: int) -> Iterator[Case]:
    decoders: dict[str, Callable[[Path], Any]] = {"Pillow": read_image}
    if torchvision_decodes_alike():
        decoders["torchvision"] = partial(read_image, by_torchvision=True)
    labels = [(np.asarray(read_image(path))[..., 0] // 100).astype(np.uint8) for path in paths]
    files = [(folder / f"{i}.png", each) for i, each in enumerate(labels * repeats)]
    for threads in (1, 8, torch.get_num_threads()):
        with ThreadPoolExecutor(threads) as pool:
            for name, decode in decoders.items():
                speed = _items_per_second(pool, decode, paths * repeats)
                yield case(f"photos decoded by {name}, {threads} threads", speed, None, "images/s", 0)
            speed = _items_per_second(pool, lambda pair: save_labels_png(*pair), files)
            size = sum(path.stat().st_size for path, _ in files) / len(files)
            yield case(f"label maps written, {threads} threads", speed, None, "maps/s", 0, bytes=round(size))


def _cams(folder: Path, count: int, batch: int) -> Iterator[Case]:
    """A shard of `count` images, written `batch` by `batch` and read again."""
    from excel_core.stores import CamReader, CamWriter, join_cams

    ids, random = [str(i) for i in range(count)], np.random.default_rng(0)
    cams = torch.from_numpy(random.random((batch, 2, 20, 20), dtype=np.float32)).half()
    attention = (torch.from_numpy(random.standard_normal((batch, 400, 400), dtype=np.float32)) * 2).softmax(-1).half()
    for name, kept in (("CAMs", None), ("CAMs and attention", attention)):
        target = folder / name
        (target / "all").mkdir(parents=True)
        first = CamWriter(folder / f"{name}, first", ids, [[1, 2]] * count)
        first.add(batch, cams, kept)
        first.close()  # by now all is imported
        started = time.perf_counter()
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            writer = CamWriter(target, ids, [[1, 2]] * count, pool.submit)
            for _ in range(0, count, batch):
                writer.add(batch, cams, kept)
            writer.close()
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / count
        yield case(f"{name} written, a shard of {count}", count / seconds, None, "images/s", 0, bytes=round(size))
        (target / "all" / "cams.zarr").mkdir()
        (target / "cams.zarr").rename(target / "all" / "cams.zarr" / "shard")
        join_cams(target / "all", {"shard": target})
        reader = CamReader(target / "all")
        groups = [ids[i : i + batch] for i in range(0, count, batch)]
        for threads in (1, 4):
            with ThreadPoolExecutor(threads) as pool:
                speed = batch * _items_per_second(pool, reader.read_together, groups)
                yield case(f"{name} read, {threads} threads", speed, None, "images/s", 0)


def _items_per_second(pool: ThreadPoolExecutor, call: Callable[[Any], Any], items: list[Any]) -> float:
    started = time.perf_counter()
    list(pool.map(call, items))
    return len(items) / (time.perf_counter() - started)
