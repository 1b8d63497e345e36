"""Files are replaced whole or not at all, and what a disk refuses is one line."""
import errno
import os
import resource
import signal
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from course_lib.errors import InputError
from course_lib.files import (check_log, check_new_file, check_new_folder, check_readable, checksum,
                              exists, folder_at_once, is_file, is_folder, lies_in, names_in,
                              read_json_file, same_file, try_place, write_atomically, write_json,
                              writing)

LONG = "x" * 300


@pytest.fixture
def small_files():
    "Within it no file may grow beyond 4,000 bytes, as on a disk that is full."
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def write_text(path): path.write_text("x" * 10_000)
def write_torch(path): torch.save({"a": torch.zeros(10_000)}, path)
def write_safetensors(path): save_file({"a": torch.zeros(10_000)}, path)


@pytest.mark.parametrize("write", [write_text, write_torch, write_safetensors])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, small_files, write):
    (tmp_path / "old").write_text("old")
    for name in ("old", "new/deep/file"):
        with pytest.raises(InputError, match="can't be written") as e:
            write_atomically(tmp_path / name, write)
        assert str(tmp_path / name) in str(e.value)
    assert os.listdir(tmp_path) == ["old"] and (tmp_path / "old").read_text() == "old"


@pytest.mark.parametrize("place, words", [
    ("/proc/course/file", "can't be written"), ("/", "can't be written|is a folder"),
    (LONG, "give a shorter name"), (f"{LONG}/file", "give a shorter name"),
    (".", "name of a file")])
def test_places_where_nothing_can_be_written(tmp_path, monkeypatch, place, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words): write_atomically(place, write_text)
    with pytest.raises(InputError, match=words): check_new_file(place)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_what_the_system_refuses(tmp_path, number):
    def write(path): raise OSError(number, os.strerror(number))
    with pytest.raises(InputError, match=os.strerror(number)):
        write_atomically(tmp_path / "new/file", write)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_belongs_to_somebody_else(tmp_path):
    "As another user, since root may do anything; in a fork, since one can't become root again."
    (tmp_path / "theirs").mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0: os.setuid(65534)
            else: (tmp_path / "theirs").chmod(0o000)
            assert not exists(tmp_path / "theirs/a") and not is_file(tmp_path / "theirs/a")
            for attempt in (try_place, lambda p: write_atomically(p, write_text), check_readable):
                with pytest.raises(InputError, match="[Pp]ermission denied"):
                    attempt(tmp_path / "theirs/a")
            os._exit(0)
        except BaseException as e:
            os.write(2, f"{e!r}\n".encode())
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    (tmp_path / "theirs").chmod(0o700)


def test_what_is_no_fault_of_the_disk_passes(tmp_path):
    for error in (RuntimeError("shapes don't match"), KeyError("a"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            with writing(tmp_path): raise error
    def write(path):
        path.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): write_atomically(tmp_path / "a/b", write)
    assert os.listdir(tmp_path) == []


def test_readers_never_see_half_a_file(tmp_path):
    path, contents = tmp_path / "state", ["a" * 300_000, "b" * 300_000]
    def replace(text): write_atomically(path, lambda p: p.write_text(text))
    replace(contents[0])
    seen, done = [], threading.Event()
    def read():
        while not done.is_set(): seen.append(path.read_text() in contents)
    reader = threading.Thread(target=read)
    reader.start()
    for i in range(100): replace(contents[i % 2])
    done.set()
    reader.join()
    assert len(seen) > 1 and all(seen)


def test_questions_about_impossible_paths():
    for path in (LONG * 20, "a\0b", "/root\0/x"):
        assert not exists(path) and not is_file(path) and not is_folder(path)
        with pytest.raises(InputError): check_readable(path)


def test_an_input_is_never_an_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_text("text,label\n")
    Path("other.csv").write_text("")
    os.symlink("data.csv", "soft.csv")
    os.link("data.csv", "hard.csv")
    Path("folder").mkdir()
    for name in ("data.csv", "./folder/../data.csv", tmp_path / "data.csv", "soft.csv", "hard.csv"):
        assert same_file(name, "data.csv")
        for force in (False, True):
            with pytest.raises(InputError, match="would be lost"):
                check_new_file(name, [None, "data.csv"], force)
    with pytest.raises(InputError, match="force=True"): check_new_file("other.csv", ["data.csv"])
    before = sorted(tmp_path.rglob("*"))
    check_new_file("other.csv", ["data.csv"], force=True)
    check_new_file("a/b/c.html", ["data.csv", "gone.csv"])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_no_part_of_a_folder(tmp_path, small_files):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/a").write_text("old")
    for name in ("old", "new/deep"):
        with pytest.raises(InputError, match="can't be written"):
            with folder_at_once(tmp_path / name) as work:
                (work / "a").write_text("new")
                (work / "b").write_text("x" * 10_000)
    assert names_in(tmp_path) == ["old"] and (tmp_path / "old/a").read_text() == "old"


def test_where_a_path_leads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run/model").mkdir(parents=True)
    os.symlink("run", "link")
    os.symlink("circle", "circle")
    for path in ("run", "run/model", "./run/../run/x", "link/model", tmp_path / "run/model"):
        assert lies_in(path, "run") and lies_in(path, "link")
    for path in (".", "runs", "run/..", "x\0", "x" * 5000, "circle"):
        assert not lies_in(path, "run")
    assert exists("circle") and not is_file("circle") and not same_file("circle", "circle")


def test_names_as_long_as_they_may_be(tmp_path):
    for name in ("x" * 255, "é" * 127):
        check_new_file(tmp_path / name)
        write_atomically(tmp_path / name, write_text)
    assert len(names_in(tmp_path)) == 2


def test_a_try_takes_nothing_that_lies_beside_it(tmp_path):
    (tmp_path / ".a.try").write_text("mine")
    (tmp_path / "a").write_text("old")
    check_new_file(tmp_path / "a", force=True)
    try_place(tmp_path / "new/a")
    assert names_in(tmp_path) == [".a.try", "a"] and (tmp_path / ".a.try").read_text() == "mine"


def test_what_a_killed_process_has_left_is_ours(tmp_path):
    (tmp_path / ".recipe.json.tmp").write_text("half")
    check_new_folder(tmp_path, files={"recipe.json"})
    with pytest.raises(InputError, match="other things"): check_new_folder(tmp_path, files={"a"})
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(InputError, match="is there already"):
        check_new_folder(tmp_path, files={"recipe.json"})


def test_lines_are_added_to_a_log_of_ours_alone(tmp_path):
    log, begins = tmp_path / "log.jsonl", '{"window": '
    for content in (None, "", begins + "1}\n"):
        if content is not None: log.write_text(content)
        check_log(log, [], begins)
    for content in ("text,label\n", "{"):
        log.write_text(content)
        with pytest.raises(InputError, match="no log"): check_log(log, [], begins)
    log.write_text(begins)
    with pytest.raises(InputError, match="would be lost"): check_log(log, [tmp_path], begins)


def test_json_and_checksums(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1, None]})
    assert read_json_file(tmp_path / "a.json") == {"é": [1, None]}
    assert checksum(tmp_path / "a.json") == checksum(tmp_path / "a.json")
    assert len(checksum(__file__)) == 16
    for bad in (b"{", b"\xff", b"[]", b"null", b"5", b'{"a":' * 100_000):
        (tmp_path / "a.json").write_bytes(bad)
        with pytest.raises(InputError, match="force=True"): read_json_file(tmp_path / "a.json")
