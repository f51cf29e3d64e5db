"""What is written is on the disk before it counts: which calls reach the system, in which order."""

import errno
import os

import pytest

from excel_core.errors import SettingError
from excel_core.files import written_then_renamed
from excel_core.sync import SWITCH, make_folder, sync_file, sync_folder, sync_tree


@pytest.fixture
def synced(monkeypatch):
    """Paths in the order in which they were synced, and "OLD -> NEW" for renames."""
    calls, fsync, replace = [], os.fsync, os.replace

    def noted_fsync(file):
        calls.append(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    def noted_replace(old, new):
        calls.append(f"{old} -> {new}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    monkeypatch.delenv(SWITCH, raising=False)
    return calls


def test_a_file_is_synced_then_renamed_then_its_folder_synced(tmp_path, synced):
    path = tmp_path / "a" / "b" / "file"
    with written_then_renamed(path) as temporary:
        temporary.write_text("x")
    assert synced == [
        str(tmp_path),  # the name of the new folder a
        str(tmp_path / "a"),
        str(temporary),
        f"{temporary} -> {path}",
        str(path.parent),
    ]


def test_a_tree_is_synced_files_first_and_its_top_last(tmp_path, synced):
    for name in ("a/1", "a/b/2", "c/3", "4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    sync_tree(tmp_path)
    files = {str(tmp_path / name) for name in ("a/1", "a/b/2", "c/3", "4")}
    assert set(synced[:4]) == files and synced[-1] == str(tmp_path)
    assert set(synced[4:-1]) == {str(tmp_path / name) for name in ("a", "a/b", "c")}
    assert synced.index(str(tmp_path / "a" / "b")) < synced.index(str(tmp_path / "a"))


def test_a_scratch_disk_is_not_waited_for(tmp_path, synced, monkeypatch):
    monkeypatch.setenv(SWITCH, "0")
    with written_then_renamed(tmp_path / "a" / "file") as temporary:
        temporary.write_text("x")
    sync_tree(tmp_path)
    sync_file(tmp_path / "a" / "file")
    sync_folder(tmp_path)
    assert synced == [f"{temporary} -> {tmp_path / 'a' / 'file'}"]
    monkeypatch.setenv(SWITCH, "no")
    with pytest.raises(SettingError, match="EXCEL_FSYNC='no': must be 1 .* or 0"):
        sync_folder(tmp_path)


def test_folders_of_a_file_system_that_syncs_none(tmp_path, monkeypatch):
    """A refusal is no loss there; an error of the disk is one."""
    monkeypatch.delenv(SWITCH, raising=False)
    for number, raises in ((errno.EINVAL, False), (errno.EIO, True)):

        def fail(file, number=number):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fail)
        if raises:
            with pytest.raises(OSError, match="Input/output error"):
                sync_folder(tmp_path)
        else:
            sync_folder(tmp_path)
            make_folder(tmp_path / "a" / "b")
