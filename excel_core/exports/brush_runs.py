"""Label Studio's run lengths of a brush mask: the pixels as RGBA bytes, row by row, packed bit by bit as by thi.ng's rle-pack.

A header of 53 bits: how many values there are (32 bits), bits of a value - 1 (5), and four field widths - 1 (4 each). Then
records: 1 for a run or 0 for values one by one (1 bit), which width (2), how many - 1 (that width), and the value or values.
"""

import numpy as np
from numpy.typing import NDArray

from excel_core.errors import DataError

__all__ = ["decode_brush", "encode_brush"]

CHANNELS = 4  # red, green, blue, and alpha, which is the mask
WORD = 8  # bits of a value
WIDTHS = (3, 4, 8, 16)  # of the lengths that are written here


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """mask (H, W) → bytes as numbers."""
    bits = [f"{mask.size * CHANNELS:032b}{WORD - 1:05b}", *(f"{width - 1:04b}" for width in WIDTHS)]
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = np.diff(np.append(starts, flat.size)) * CHANNELS
    for length, inside in zip(lengths.tolist(), flat[starts].tolist(), strict=True):
        byte = "11111111" if inside else "00000000"
        while length > 0:
            run_length = min(length, 1 << WIDTHS[-1])
            number = next(number for number, width in enumerate(WIDTHS) if run_length <= 1 << width)
            bits.append(f"1{number:02b}{run_length - 1:0{WIDTHS[number]}b}{byte}")
            length -= run_length
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def decode_brush(content: object, height: int, width: int) -> NDArray[np.bool_]:
    """Bytes as numbers → where the brush was, (height, width). DataError for anything else, or for another size."""
    values = _values(_bits(content), height * width * CHANNELS)
    return values.reshape(height, width, CHANNELS)[..., -1] > 0


def _bits(content: object) -> NDArray[np.uint8]:
    if not isinstance(content, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in content):
        raise DataError("a brush mask whose run lengths are no list of bytes")
    return np.unpackbits(np.array(content, dtype=np.uint8))


def _values(bits: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """The unpacked values (count,); DataError where they are more, fewer, or end within a record."""
    text = bits.tobytes().translate(bytes([48, 49, *range(2, 256)])).decode("ascii")
    position = 0

    def read(width: int) -> int:
        nonlocal position
        if position + width > len(text):
            raise DataError("a brush mask that ends too early")
        position += width
        return int(text[position - width : position], 2)

    told, word = read(32), read(5) + 1
    widths = [read(4) + 1 for _ in range(4)]
    if told != count or word != WORD:
        raise DataError(f"a brush mask of {told:,} values of {word} bits instead of {count:,} of {WORD}")
    values = np.empty(count, dtype=np.uint8)
    filled = 0
    while filled < count:
        is_run = read(1)
        length = read(widths[read(2)]) + 1
        if filled + length > count:
            raise DataError("a brush mask with more values than its image has")
        if is_run:
            values[filled : filled + length] = read(WORD)
        else:
            end = position + length * WORD
            if end > len(bits):
                raise DataError("a brush mask that ends too early")
            values[filled : filled + length] = np.packbits(bits[position:end])
            position = end
        filled += length
    return values
