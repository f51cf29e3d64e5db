"""A list of images, one id a line: the only reader of such lists, VOC's splits and `excel evaluate --split` alike.

2007_000032                                                   an id; it may hold spaces: my dog
/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png     SBD's form: two paths of one id

The file is UTF-8, or UTF-16 with its byte order mark, as Windows' tools write it.
"""

import re
import unicodedata
from pathlib import Path

from excel_core.datasets.manifest import check_image_id
from excel_core.errors import DataError
from excel_core.text_files import decoded_text

__all__ = ["read_list"]

# A line of the lists that come with SBD's augmented masks.
SBD_LINE = re.compile(r"/?JPEGImages/([^/]+)\.(?:jpg|jpeg|png)\s+/?SegmentationClass(?:Aug)?/\1\.png", re.IGNORECASE)


def read_list(path: Path) -> list[str]:
    """The ids of a list, in its order; empty lines do not count.

    Raises DataError, naming file and line: for a file that is not there or no text, a line that is no id, an id that is listed
    twice, however its accents are composed, and a list without any id.
    """
    ids: list[str] = []
    line_of: dict[str, int] = {}  # by the id with composed accents
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        pair = SBD_LINE.fullmatch(line.strip())
        image_id = check_image_id(pair[1] if pair else line.strip(), f"{path} line {number}")
        first = line_of.setdefault(unicodedata.normalize("NFC", image_id), number)
        if first != number:
            raise DataError(f"{path} line {number}: {image_id} is on line {first} already")
        ids.append(image_id)
    if not ids:
        raise DataError(f"{path}: lists no image; write one id a line")
    return ids


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such list; expected a text file with one image id a line") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        text = decoded_text(content)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8 ({error})") from error
    if text.count("\0") * 3 > len(text) > 0:  # every other byte is zero: UTF-16 without its mark
        raise DataError(f"{path}: not a text file in UTF-8: it looks like UTF-16 without a byte order mark; save it as UTF-8")
    return text
