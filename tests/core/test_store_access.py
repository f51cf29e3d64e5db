"""A store that others can write is refused, unless it is shared by name."""

import os
from pathlib import Path

import pytest

from excel_core.errors import SettingError
from flows.request import RunRequest
from flows.store_access import check_store_access


def test_a_store_that_everybody_can_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(SettingError, match="every user of this machine can write this store.*chmod o-w"):
        RunRequest.checked(preset="demo", store=str(tmp_path)).resolve()
    monkeypatch.setenv("EXCEL_SHARED_STORE", "1")
    check_store_access(tmp_path)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o775, 0o2775])
def test_a_store_of_ones_own_or_of_a_group_is_not(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    check_store_access(tmp_path)
    check_store_access(tmp_path / "not there yet")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners of files are POSIX's")
def test_another_users_store_is_refused_where_it_could_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1000)
    if owner != 0:
        with pytest.raises(SettingError, match="belongs to another user"):
            check_store_access(tmp_path)
    else:  # what root owns is trusted; root's own folder stands in for a stranger's
        os.chown(tmp_path, 12345, -1)
        with pytest.raises(SettingError, match="belongs to another user \\(id 12345\\)"):
            check_store_access(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # to look at it is no harm
    check_store_access(tmp_path)
