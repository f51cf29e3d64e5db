"""Who else may write the store. A run trusts what is in it: whoever can write there decides what the run reads."""

import os
import stat
from pathlib import Path

from excel_core.errors import SettingError

__all__ = ["check_store_access"]

SHARED = "EXCEL_SHARED_STORE"


def check_store_access(store: Path) -> None:
    """SettingError for a store that every user of the machine can write, and for one of another user; unless
    EXCEL_SHARED_STORE=1 says that these are trusted. A group that shares a store needs nothing."""
    if os.environ.get(SHARED) == "1" or not hasattr(os, "getuid") or not store.is_dir():
        return
    status, user = store.stat(), os.getuid()
    if status.st_mode & stat.S_IWOTH:
        problem, mend = "every user of this machine can write this store", f"chmod o-w {store}"
    elif user != 0 and status.st_uid not in (0, user) and os.access(store, os.W_OK):  # root in a container has others' folders
        problem, mend = f"this store belongs to another user (id {status.st_uid})", "name a store of your own"
    else:
        return
    raise SettingError(
        f"--store {store}: {problem}, and so decide what runs read; {mend}, or trust its writers by name: {SHARED}=1"
    )
