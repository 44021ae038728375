"""Files that programs write: what is checked before a run, what a write does to what is there, and where a lost one goes."""

import argparse
import contextlib
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.output_file import OutputError, OutputFile, check, output_path, replace, results_to, write
from infra.web_address import parse

TEXT = '{"figure": 1}\n'


def make_folder(path: Path) -> None:
    path.mkdir()


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_file_above(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


@pytest.mark.parametrize(
    ("make", "name", "problem"),
    [
        (make_folder, "x", "it is a folder"),
        (make_loop, "x", "symbolic links"),
        (make_file_above, "x", "Not a directory"),
        (lambda path: None, "none/x", "there is no folder"),
        (lambda path: None, "x" * 300, "File name too long"),
        (lambda path: None, "x\0y", "null byte"),
    ],
)
def test_what_cannot_be_written_is_one_line_before_the_run(
    tmp_path: Path, make: Callable[[Path], None], name: str, problem: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    make(folder / name)
    with pytest.raises(OutputError, match=problem) as refused:
        output_path(str(folder / name), "--json")
    assert str(refused.value).startswith("--json: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["", ".", "..", "folder/", "/"])
def test_a_name_that_is_not_one_of_a_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action=OutputFile)
    with pytest.raises(OutputError, match=r"^--json: .*(name|Name)"):
        parser.parse_args(["--json", name])
    assert list(tmp_path.iterdir()) == []


def test_a_check_changes_nothing(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("old")
    for path in (old, new, Path("/dev/null"), Path("/dev/full"), Path("-")):
        check(path)
    assert (old.read_text(), [path.name for path in tmp_path.iterdir()]) == ("old", ["old"])


def test_a_regular_file_is_replaced_in_one_step_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    path.chmod(0o640)
    with path.open() as reader:
        write(path, TEXT)
        assert reader.read() == "old", "somebody who reads the old file still has all of it"
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (TEXT, 0o640)
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_links_are_followed_and_stay_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link, dangling = tmp_path / "elsewhere" / "x.json", tmp_path / "link", tmp_path / "dangling"
    target.write_text("old")
    link.symlink_to("elsewhere/x.json")
    dangling.symlink_to("elsewhere/new.json")
    for path in (link, dangling):
        check(path)
        write(path, TEXT)
        assert path.is_symlink()
        assert path.read_text() == TEXT
    assert sorted(file.name for file in (tmp_path / "elsewhere").iterdir()) == ["new.json", "x.json"]


def test_another_name_of_the_same_file_stays_the_same_file(tmp_path: Path) -> None:
    path, other = tmp_path / "x", tmp_path / "y"
    path.write_text("old")
    other.hardlink_to(path)
    write(path, TEXT)
    assert other.read_text() == TEXT


def test_a_name_of_the_longest_length_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    check(path)
    write(path, TEXT)
    assert path.read_text() == TEXT


def test_a_pipe_is_written_in_place(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    check(path)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    write(path, TEXT)
    reader.join()
    assert read == [TEXT]
    assert path.is_fifo()


@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd"])
def test_a_descriptor_is_written_in_place(folder: str) -> None:
    """As `--json >(command)` names it."""
    reading, writing = os.pipe()
    try:
        path = Path(folder, str(writing))
        check(path)
        write(path, TEXT)
        assert os.read(reading, 100).decode() == TEXT
    finally:
        os.close(reading)
        os.close(writing)


def test_a_device_is_written_in_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A device stays one. What it does not accept is printed instead."""
    device = tmp_path / "full"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
    except OSError:
        device = Path("/dev/full")
    check(device)
    with pytest.raises(
        OutputError, match=r"No space left on device. The results are printed on standard output instead"
    ):
        write(device, TEXT)
    assert capsys.readouterr().out == TEXT
    assert stat.S_ISCHR(device.stat().st_mode)


def test_what_becomes_unwritable_during_the_run_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "folder" / "x.json"
    path.parent.mkdir()
    check(path)
    path.parent.rmdir()
    with pytest.raises(OutputError, match="printed on standard output"):
        write(path, TEXT)
    assert capsys.readouterr().out == TEXT


def test_what_cannot_be_printed_either_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Path("/dev/full").open("w") as full:
        with contextlib.redirect_stdout(full), pytest.raises(OutputError, match=r"The results are in .*results-"):
            write(tmp_path / "none" / "x.json", TEXT)
        with contextlib.suppress(OSError):
            full.close()
    (saved,) = tmp_path.glob("results-*")
    assert saved.read_text() == TEXT


def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write(path, TEXT)
    assert (path.read_text(), capsys.readouterr().out) == ("old", TEXT)
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_standard_output_gets_the_results_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with results_to(Path("-")):
        print("progress")
        write(Path("-"), TEXT)
    print("after")
    told = capsys.readouterr()
    assert (told.out, told.err) == (f"{TEXT}after\n", "progress\n")


def test_a_file_that_is_named_like_standard_output_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(output_path("./-", "--json"), TEXT)
    assert (tmp_path / "-").read_text() == TEXT


def test_a_socket_is_refused_or_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        with pytest.raises(OutputError):
            write(tmp_path / "s", TEXT)
    assert capsys.readouterr().out == TEXT


def test_no_password_is_written(tmp_path: Path) -> None:
    address = parse("http://user:pl4nted-secret@127.0.0.1:1/v1")
    write(tmp_path / "x", f"a http://me:other@host/ b {address.authorization} c pl4nted-secret")
    assert (tmp_path / "x").read_text() == "a http://***@host/ b Basic *** c ***"


def test_a_new_file_of_secrets_is_private_from_the_start(tmp_path: Path) -> None:
    replace(tmp_path / "keys", "sk-1", new_mode=0o600)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600
