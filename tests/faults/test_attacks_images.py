"""Image files that ask for more memory than they are worth: one reason in the table of images, and bounded memory.

Each is read in a process whose address space may grow by MAX_GROWTH and no more, where anything above that is a MemoryError.
"""

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from excel_core.datasets.doctor.checks import ImageLook, look_at_image
from excel_core.datasets.images import read_image
from excel_core.errors import DataError
from tests.conftest import ROOT
from tests.png_bytes import chunk, png

MAX_GROWTH = 1 << 30
LARGE = 9400  # pixels a side: just below Pillow's limit of 89 million
READ = """
import json, resource, sys
from pathlib import Path
from excel_core.datasets.images import read_image
from excel_core.datasets.palette import load_labels_png
from excel_core.errors import DataError
from PIL import Image
import numpy as np
used = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]),) * 2)
for name in sys.argv[2:]:
    path = Path(name)
    try:
        read = load_labels_png(path) if path.stem.startswith("label") else read_image(path)
        print(json.dumps([path.name, list(read.shape), int(read.max())]), flush=True)
        del read
    except DataError as error:
        print(json.dumps([path.name, str(error)]), flush=True)
"""


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg_of_size(width: int, height: int) -> bytes:
    """A small JPEG whose header says another size."""
    content = saved(Image.new("RGB", (16, 16)), "JPEG")
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


def gif_of_size(width: int, height: int) -> bytes:
    """A GIF of 16 by 16 pixels with a frame that says another size."""
    content = bytearray(saved(Image.new("P", (16, 16)), "GIF"))
    at = content.index(b"\x2c", 13) + 5
    content[at : at + 4] = struct.pack("<HH", width, height)
    return bytes(content)


def animation(mode: str, kind: str) -> bytes:
    """60 frames of 4 million pixels."""
    first, *others = (Image.new(mode, (2000, 2000), number if mode == "P" else (number, 0, 0)) for number in range(60))
    return saved(first, kind, save_all=True, append_images=others)


ZEROS = zlib.compress(bytes(200 << 20), 9)  # 200 MB in 200 KB
NAME = b"Comment\0"
REFUSED: dict[str, Callable[[], bytes]] = {
    "65535 by 65535 bits.png": lambda: png(65535, 65535, 1, 0, rows=zlib.compress(bytes(1 << 20))),
    "2^31 by 2^31.png": lambda: png(2**31 - 1, 2**31 - 1, 8, 2, rows=b""),
    "half a terabyte of rows.png": lambda: png(LARGE * 2, LARGE * 2, 16, 6, rows=ZEROS),
    "text bomb.png": lambda: png(16, 16, 8, 2, chunk(b"zTXt", NAME + b"\0" + ZEROS)),
    "international text bomb.png": lambda: png(16, 16, 8, 2, chunk(b"iTXt", NAME + b"\1\0\0\0" + ZEROS)),
    "colour profile bomb.png": lambda: png(16, 16, 8, 2, chunk(b"iCCP", NAME + b"\0" + ZEROS)),
    "many texts.png": lambda: png(16, 16, 8, 2, *[chunk(b"tEXt", NAME + bytes([65] * 900_000))] * 90),
    "a chunk of 4 GB.png": lambda: png(16, 16, 8, 2)[:33] + struct.pack(">I", 0xFFFFFFF0) + b"tEXt" + bytes(100),
    "65500 by 65500.jpg": lambda: jpeg_of_size(65500, 65500),
    "a frame of 65535 by 65535.gif": lambda: gif_of_size(65535, 65535),
    "16383 by 16383.webp": lambda: (
        b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + b"\xfe\x3f\0\xfe\x3f\0"
    ),
    "10^9 by 10^9.ppm": lambda: b"P6 1000000000 1000000000 255\n" + bytes(100),
    "a side of 10^5000.ppm": lambda: b"P6 1" + b"0" * 5000 + b" 16 255\n" + bytes(100),
    "65535 by 65535.bmp": lambda: (
        b"BM" + struct.pack("<IHHI", 99, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 65535, 65535, 1, 24, *[0] * 6) + bytes(99)
    ),
}  # fmt: skip
READ_WHOLE: dict[str, Callable[[], bytes]] = {
    "89 million bits.png": lambda: png(LARGE, LARGE, 1, 0),
    "89 million colours.png": lambda: png(LARGE, LARGE, 8, 2),
    "89 million of a palette with transparency.png": lambda: png(
        LARGE, LARGE, 8, 3, chunk(b"PLTE", bytes(range(6))), chunk(b"tRNS", b"\x80\xff")
    ),
    "89 million of 16 bits.png": lambda: png(LARGE, LARGE, 16, 0),
    "89 million with alpha.png": lambda: png(LARGE, LARGE, 8, 6),
    "label 89 million of a palette.png": lambda: png(LARGE, LARGE, 8, 3, chunk(b"PLTE", bytes(6))),
    "label 89 million colours.png": lambda: png(LARGE, LARGE, 8, 2),
    "an animation.png": lambda: animation("RGB", "PNG"),
    "an animation.gif": lambda: animation("P", "GIF"),
}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process' memory are Linux's here")
def test_bombs_are_one_reason_and_large_images_bounded_memory(tmp_path: Path, soak: bool, figures: Any) -> None:
    whole = READ_WHOLE if soak else dict(list(READ_WHOLE.items())[2:8:2])
    for name, make in (REFUSED | whole).items():
        (tmp_path / name).write_bytes(make())
    paths = [str(tmp_path / name) for name in (*REFUSED, *whole)]
    read = subprocess.run(
        [sys.executable, "-c", READ, str(MAX_GROWTH), *paths], capture_output=True, text=True, timeout=600, cwd=ROOT
    )
    assert read.returncode == 0, read.stderr[-2000:]
    answers = {name: rest for name, *rest in map(json.loads, read.stdout.splitlines())}
    for name in REFUSED:
        (reason,) = answers[name]
        assert name in reason and "\n" not in reason and len(reason) < 400, reason
    for name in whole:
        assert isinstance(answers[name][0], list), answers[name]
    figures("image_bombs", refused=len(REFUSED), read=len(whole), max_growth_bytes=MAX_GROWTH)


@pytest.mark.parametrize("name", [name for name in REFUSED if name.endswith(".png")])
def test_the_doctor_says_so_of_a_header(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(REFUSED[name]())
    for quick in (True, False):
        try:  # a header may be sound where the rest is not
            assert look_at_image(tmp_path, name, quick) == ImageLook(16, 16, 1) and quick
        except DataError as error:
            assert name in str(error)


def test_large_images_are_what_small_ones_are(tmp_path: Path) -> None:
    """Conversion in strips: pixels at both sides of a strip's edge are those of the image in one piece."""
    values = np.random.default_rng(0).integers(0, 256, (600, 20, 4), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = Image.alpha_composite(Image.new("RGBA", (20, 600), "white"), Image.fromarray(values)).convert("RGB")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.array(expected))
    grey = np.arange(600 * 20, dtype=np.uint16).reshape(600, 20) * 5
    Image.fromarray(grey).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png")[:, :, 2], (grey.astype(int) * 255 + 32767) // 65535)
