"""How many runs keep their pictures in Prefect's database."""

import os

from artifacts.prefect_artifacts.server import KEEP_PICTURES
from excel_core.errors import SettingError

__all__ = ["kept_pictures"]

VARIABLE = "EXCEL_KEEP_PICTURES"


def kept_pictures() -> int:
    """EXCEL_KEEP_PICTURES: the newest artifacts of a kind that keep their pictures. SettingError unless it is 1 or more."""
    text = os.environ.get(VARIABLE) or str(KEEP_PICTURES)
    if not text.isascii() or not text.isdigit() or not int(text):
        raise SettingError(f"{VARIABLE}={text}: expected how many runs keep their pictures in Prefect's UI, 1 or more")
    return int(text)
