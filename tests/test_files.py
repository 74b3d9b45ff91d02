"""replacing(): the new file, whole, or the old one, untouched."""

import os
import stat

import pytest

from zoo.files import replacing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("as_type", [str, lambda path: path])
def test_a_new_file_appears_whole(tmp_path, as_type):
    path = tmp_path / "a" / "b" / "file.txt"
    with replacing(as_type(path)) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["file.txt"]


def test_an_old_file_stays_until_the_block_ends(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_whatever_stops_the_block_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def stop():
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise error

    with pytest.raises(error):
        stop()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_block_that_fails_first_leaves_nothing(tmp_path):
    def stop():
        with replacing(tmp_path / "file.txt"):
            raise ValueError("nothing written")

    with pytest.raises(ValueError, match="nothing written"):
        stop()
    assert names(tmp_path) == []


def test_a_failing_replacement_leaves_no_temporary_file(tmp_path):
    (tmp_path / "folder" / "full").mkdir(parents=True)

    def write():
        with replacing(tmp_path / "folder") as temporary:
            temporary.write_text("new")

    with pytest.raises(OSError, match="folder"):
        write()
    assert names(tmp_path) == ["folder"]


def test_the_data_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(path.exists()), fsync(handle)))
    path = tmp_path / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert synced == [False]


def test_two_writers_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "file.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert names(tmp_path) == ["file.txt"]


def test_others_may_read_the_file(tmp_path):
    path = tmp_path / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
