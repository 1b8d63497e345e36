"""Versions never change, stages move in one step, and nothing that could do harm is handed out."""
import hashlib
import http.server
import json
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import string
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from conftest import ROOT
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from kill_promote import try_add, try_promote, write_run

from course_lib import store as module
from course_lib.errors import InputError
from course_lib.registry import open_registry, run_cases
from course_lib.store import (FolderStore, check_name, current, digest_of, files_of, manifest_of,
                              read_reference, stack_of)

PICKLE = b"\x80\x04]."


@pytest.fixture
def runs(tmp_path):
    return [write_run(tmp_path / f"run_{text}", text) for text in "abc"]


@pytest.fixture
def filled(tmp_path, runs):
    registry = open_registry(tmp_path / "registry")
    for run in runs[:2]: registry.add(run, "reviews")
    return registry


@contextmanager
def refused(*words: str):
    "One line of three parts that holds these words."
    with pytest.raises(InputError) as e: yield e
    said = str(e.value)
    assert said.count(" – ") >= 2 and "\n" not in said, said
    for word in words: assert word in said, said


# what a version is

def test_the_digest_is_that_of_sha256sum(filled, runs):
    folder = filled.resolve("reviews@1")
    names = files_of(folder)
    done = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True)
    assert manifest_of(folder).encode() == done.stdout
    assert folder.name == hashlib.sha256(done.stdout).hexdigest()
    assert names == ["model/config.json", "model/model.safetensors", "recipe.json"]


def test_the_same_files_are_the_same_version_and_are_stored_once(filled, runs, tmp_path):
    shutil.copytree(runs[0], tmp_path / "copy")
    (tmp_path / "copy/checkpoint").mkdir()
    (tmp_path / "copy/checkpoint/1.pt").write_bytes(PICKLE)        # stays outside
    assert filled.add(tmp_path / "copy", "reviews") == 1
    assert filled.add(runs[0], "other") == 1 and filled.add(runs[2], "reviews") == 3
    assert len(os.listdir(tmp_path / "registry/objects")) == 3
    assert filled.resolve("other@1") == filled.resolve("reviews@1")
    assert list(filled.list("reviews")["version"]) == [1, 2, 3] and len(filled.list()) == 4


def test_a_kept_version_is_no_longer_the_run(filled, runs):
    (runs[0] / "recipe.json").write_text("{}")
    shutil.rmtree(runs[1])
    assert filled.show("reviews", 1)["task"] == filled.show("reviews", 2)["task"]


def test_show_is_json(filled):
    filled.promote("reviews", 1)
    found = json.loads(json.dumps(filled.show("reviews", 1)))
    assert found["stages"] == ["production"] and found["labels"] == ["negative", "positive"]
    assert len(found["files"]) == 3 and found["metrics"] is None


def link(run): (run / "model/extra.json").symlink_to("/etc/passwd")
def link_inside(run): (run / "model/extra.json").symlink_to("config.json")
def broken_link(run): (run / "model/extra.json").symlink_to("nowhere")
def linked_folder(run): (run / "more").symlink_to("/etc")
def pipe(run): os.mkfifo(run / "pipe.json")
def line_break(run): (run / "a\nb.json").write_text("{}")
def hidden(run): (run / ".hidden.json").write_text("{}")
def space(run): (run / "a b.json").write_text("{}")
def no_utf8(run): open(os.fsencode(run) + b"/\xff.json", "w").close()
def long_name(run): (run / ("x" * 200 + ".json")).write_text("{}")
def program(run): (run / "model/modeling.py").write_text("print()")


def pickle(name):
    def write(run): (run / name).write_bytes(PICKLE)
    write.__name__ = name
    return write


PICKLES = ["model/pytorch_model.bin", "model/a.pt", "a.pth", "a.pkl", "a.pickle", "a.ckpt",
           "a.joblib", "a.npy", "a.PT", "a.h5", "model/no_ending"]
BAD = [link, link_inside, broken_link, linked_folder, pipe, line_break, hidden, space, no_utf8,
       long_name, program, *map(pickle, PICKLES)]


@pytest.mark.parametrize("spoil", BAD, ids=lambda f: f.__name__)
def test_what_has_no_place_in_a_version_is_not_taken_and_not_handed_out(spoil, runs, tmp_path):
    registry = open_registry(tmp_path / "registry")
    spoil(runs[0])
    with refused("remove it"): registry.add(runs[0], "reviews")
    assert not (tmp_path / "registry").exists()
    registry.add(runs[1], "reviews")
    folder = registry.resolve("reviews@1")
    spoil(folder)
    with refused(str(folder)): registry.resolve("reviews@1")


@pytest.mark.parametrize("place", [".", "missing", "model"])
def test_only_a_finished_run_can_be_added(tmp_path, runs, place):
    (runs[0] / "recipe.json").unlink()
    with refused("recipe.json"): open_registry(tmp_path / "registry").add(runs[0] / place, "a")
    for text in ("[]", "{}", "1", "{", '{"task": "text-classification"}'):
        (runs[2] / "recipe.json").write_text(text)
        with refused("recipe.json"): open_registry(tmp_path / "registry").add(runs[2], "a")
    shutil.rmtree(runs[1] / "model")
    with refused("model"): open_registry(tmp_path / "registry").add(runs[1], "a")
    assert not (tmp_path / "registry").exists()


# names

PLAIN = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=64)


@given(PLAIN.filter(lambda name: name[0] not in "._-"), st.integers(1, 10**9 - 1))
def test_plain_names_are_names(name, version):
    check_name(name)
    assert read_reference(f"{name}@{version}") == (name, version)
    assert read_reference(name) == (name, "production")


@given(st.text() | st.sampled_from(["../x", "a/b", "", ".", "..", "x" * 65, "a\0", "a\n", "a@1",
                                    "/etc", "~", "a\\b", "C:", "ａ", "-rf", "a b", "é"]))
def test_no_name_leads_out_of_the_folder(name):
    try: check_name(name)
    except InputError as e:
        assert str(e).isprintable() and len(str(e)) < 300
        return
    assert Path("objects", name).resolve().parent == Path("objects").resolve()
    assert name.isascii() and len(name) <= 64 and not set(name) & set("/\\@\0\n ")


@given(st.text() | st.builds("{}@{}".format, PLAIN, st.text()))
def test_a_reference_is_understood_or_refused(text):
    try: name, which = read_reference(text)
    except InputError as e: assert str(e).isprintable() and str(e).count(" – ") >= 2
    else:
        check_name(name)
        assert text == name or text == f"{name}@{which}"


@pytest.mark.parametrize("reference", ["reviews@0", "reviews@01", "reviews@-1", "reviews@", "@1",
                                       "reviews@1@1", "reviews@latest", "reviews@v1",
                                       "reviews@../1", "reviews@9999999999", "", "reviews@Prod"])
def test_references_that_mean_nothing(filled, reference):
    with refused("names no version"): filled.resolve(reference)


def test_what_isn_t_there(filled):
    with refused("it has versions 1 to 2 and stages none yet"): filled.resolve("reviews@3")
    filled.promote("reviews", 1, "staging")
    with refused("stages staging"): filled.resolve("reviews")
    with refused("it has reviews"): filled.resolve("review")
    for version in (None, 0, "x", 1.5):
        with refused("is no number"): filled.promote("reviews", version)
        with refused("is no number"): filled.show("reviews", version)
    for stage in ("", "../x", "Production", "latest", "v2", "2", None):
        with refused("stage"): filled.promote("reviews", 1, stage)


# what was changed

def rewritten(folder):
    path = folder / "recipe.json"
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"negative", b"negatiwe"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
def removed(folder): (folder / "model/config.json").unlink()
def added(folder): (folder / "notes.txt").write_text("hello")
def renamed(folder): (folder / "recipe.json").rename(folder / "recipes.json")
def replaced_by_a_link(folder):
    shutil.move(folder / "recipe.json", folder.parent / "moved.json")
    (folder / "recipe.json").symlink_to(folder.parent / "moved.json")
def replaced_by_a_folder(folder):
    (folder / "recipe.json").unlink()
    (folder / "recipe.json").mkdir()
def moved_elsewhere(folder):
    shutil.move(folder, folder.parent.parent / "elsewhere")
    folder.symlink_to(folder.parent.parent / "elsewhere")
def gone(folder): shutil.rmtree(folder)
def with_a_checkpoint(folder):
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint/1.pt").write_bytes(PICKLE)


@pytest.mark.parametrize("tamper", [rewritten, removed, added, renamed, replaced_by_a_link, gone,
                                    replaced_by_a_folder, moved_elsewhere, with_a_checkpoint],
                         ids=lambda f: f.__name__)
def test_a_version_that_was_changed_is_refused(filled, tamper):
    filled.promote("reviews", 1)
    folder = filled.resolve("reviews")
    filled.resolve("reviews")
    tamper(folder)
    for reference in ("reviews", "reviews@1"):
        with refused(str(folder)): filled.resolve(reference)
    with refused(): filled.promote("reviews", 1, "staging")
    assert filled.resolve("reviews@2").is_dir()                    # the others go on


def test_a_file_is_hashed_again_only_if_it_may_have_changed(tmp_path, monkeypatch):
    path, hashed = tmp_path / "a", []
    def digest(f, name):
        hashed.append(f.name)
        return hashlib.new(name, f.read())
    monkeypatch.setattr(module.hashlib, "file_digest", digest)
    path.write_text("one")
    first = module.sha256_of(path)
    assert module.sha256_of(path) == first and len(hashed) == 2    # too young to be trusted
    young = path.stat().st_ctime_ns
    monkeypatch.setattr(module.time, "time_ns", lambda: young + 3 * 10**9)
    for _ in range(3): assert module.sha256_of(path) == first
    assert len(hashed) == 3
    path.write_text("two")
    os.utime(path, ns=(young, young))
    assert module.sha256_of(path) != first and len(hashed) == 4


def edit(registry, command, triggers=False):
    with closing(sqlite3.connect(registry.store.place / "registry.db")) as db:
        if triggers: db.executescript("DROP TRIGGER no_change; DROP TRIGGER no_removal")
        db.execute(command)
        db.commit()


EDITS = [
    "UPDATE events SET digest = (SELECT digest FROM events WHERE version = 2) WHERE id = 1",
    "UPDATE events SET version = 3 WHERE id = 2", "UPDATE events SET name = 'x' WHERE id = 1",
    "UPDATE events SET detail = '' WHERE id = 1", "UPDATE events SET at = '' WHERE id = 3",
    "UPDATE events SET version = 2 WHERE kind = 'promote'", "DELETE FROM events WHERE id = 2",
    "UPDATE events SET digest = '../../../etc' WHERE id = 1",
    "UPDATE events SET seal = 'x' WHERE id = 3", "UPDATE events SET version = 'x' WHERE id = 3"]


@pytest.mark.parametrize("command", EDITS)
def test_a_row_that_was_changed_is_refused(filled, command):
    filled.promote("reviews", 1)
    with pytest.raises(sqlite3.IntegrityError, match="never"): edit(filled, command)
    assert filled.resolve("reviews").is_dir()
    edit(filled, command, triggers=True)
    for call in (lambda: filled.resolve("reviews"), filled.list,
                 lambda: filled.promote("reviews", 2, force=True)):
        with refused("tampered with"): call()


def test_a_list_of_files_that_leads_elsewhere_is_refused(filled, tmp_path):
    "Even where all seals fit."
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    for name in ("../../../secret.json", str(secret), "a//b.json", "./a.json", ".a.json", ""):
        text = f"{hashlib.sha256(b'{}').hexdigest()}  {name}\n"
        with module.database(filled.store.place) as db:
            version = len(filled.list("reviews")) + 1
            event = module.new_event("reviews", "add", version, "", digest_of(text), text)
            module.write_event(db, event)
        with refused("tampered with"): filled.resolve(f"reviews@{version}")


# places that can't be used

def write_other_database(path):
    with closing(sqlite3.connect(path)) as db: db.execute("CREATE TABLE events (a)")


SPOILED = {"is no database": lambda p: p.write_bytes(b"hello, I am a text" * 100),
           "is not a registry's": write_other_database,
           "is empty": lambda p: p.write_bytes(b""),
           "can't be used": lambda p: p.mkdir()}


@pytest.mark.parametrize("words", SPOILED)
def test_a_database_that_isn_t_ours(tmp_path, runs, words):
    place = tmp_path / "registry"
    place.mkdir()
    SPOILED[words](place / "registry.db")
    registry = open_registry(place)
    before = (place / "registry.db").is_file() and (place / "registry.db").read_bytes()
    for call in (registry.list, lambda: registry.resolve("a@1")):
        with refused("registry.db", words): call()
    if words == "is empty":
        assert registry.add(runs[0], "a") == 1                     # killed before it wrote a byte
        return
    with refused("registry.db", words): registry.add(runs[0], "a")
    assert before == ((place / "registry.db").is_file() and (place / "registry.db").read_bytes())


def test_a_damaged_database(filled):
    path = filled.store.place / "registry.db"
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with refused("registry"): filled.list()
    path.write_bytes(content[:6000])
    with refused("registry"): filled.list()


def test_no_registry_there(tmp_path, runs):
    for place in (tmp_path / "nothing", runs[0], runs[0] / "recipe.json"):
        with refused("is no registry"): open_registry(place).list()
    with refused("can't be written"): open_registry(runs[0] / "recipe.json").add(runs[1], "a")


def test_a_full_disk(filled, runs):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    known = filled.list()
    try:
        for room in (10_000, 2_000):                               # for the files, for no row
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
            with refused("can't be"): filled.add(runs[2], "reviews")
            if room == 2_000:
                with refused("registry.db"): filled.promote("reviews", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert filled.list().equals(known)
    assert len(os.listdir(filled.store.place / "objects")) == 2
    assert filled.add(runs[2], "reviews") == 3


@pytest.fixture
def shared(runs):
    "A registry in a folder that everybody may enter."
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        shutil.copytree(runs[2], Path(folder, "run"))
        registry = open_registry(Path(folder, "registry"))
        for run in runs[:2]: registry.add(run, "reviews")
        registry.promote("reviews", 1)
        yield registry
        Path(folder, "registry").chmod(0o755)


def as_another(job):
    "Run it as another user, since root may do anything; in a fork, since there is no way back."
    def changed(i):
        if os.getuid() == 0: os.setuid(65534)
        job()
    assert in_forks(1, changed) == [0]


def test_a_folder_that_one_may_only_read(shared):
    shared.store.place.chmod(0o555)
    def job():
        assert shared.resolve("reviews").is_dir()                  # a server needs no more
        for call in (lambda: shared.add(shared.store.place.parent / "run", "reviews"),
                     lambda: shared.promote("reviews", 2, force=True)):
            with refused("can't be written"): call()
    as_another(job)
    assert shared.resolve("reviews") == shared.resolve("reviews@1")


def test_files_that_one_may_not_read(shared):
    (shared.resolve("reviews@1") / "recipe.json").chmod(0o000)
    def file():
        with refused("recipe.json", "can't be read"): shared.resolve("reviews@1")
    as_another(file)
    shared.store.place.chmod(0o000)
    def folder():
        with refused("can't be read"): shared.resolve("reviews@2")
    as_another(folder)


# several at once

def in_forks(n, job):
    "Run job(i) in n children; their exit statuses."
    children = []
    for i in range(n):
        child = os.fork()
        if child == 0:
            try:
                job(i)
                os._exit(0)
            except BaseException as e:
                os.write(2, f"{e!r}\n".encode())
                os._exit(1)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_processes_that_add_at_once_get_different_versions(tmp_path):
    runs = [write_run(tmp_path / f"r{i}", f"text {i}") for i in range(12)]
    def add(i):
        for run in runs[i::4]: open_registry(tmp_path / "new/registry").add(run, "reviews")
    assert in_forks(4, add) == [0, 0, 0, 0]
    registry = open_registry(tmp_path / "new/registry")
    assert list(registry.list("reviews")["version"]) == list(range(1, 13))
    assert len({registry.resolve(f"reviews@{v}") for v in range(1, 13)}) == 12
    assert len(os.listdir(tmp_path / "new/registry/objects")) == 12


def test_who_reads_while_others_promote_sees_one_of_two(filled):
    filled.promote("reviews", 1)
    known = [filled.resolve(f"reviews@{v}") for v in (1, 2)]
    def job(i):
        for _ in range(40):
            if i < 2: assert filled.resolve("reviews") in known
            else:
                try: filled.promote("reviews", 1 + _ % 2, force=True)
                except InputError as e: assert "in the meantime" in str(e)
    assert in_forks(4, job) == [0] * 4


def test_a_stage_that_was_moved_in_the_meantime(filled, monkeypatch, runs):
    filled.promote("reviews", 1)
    filled.add(runs[2], "reviews")
    def compare(*args):
        filled.promote("reviews", 3, force=True)
        return comparison(0.1, 0.0, 0.2)
    monkeypatch.setattr("course_lib.runs.compare", compare)
    with refused("from version 1 to 3"): filled.promote("reviews", 2, data="rows.csv")
    assert filled.resolve("reviews") == filled.resolve("reviews@3")


def test_killed_while_it_promotes(tmp_path):
    found = try_promote(tmp_path, random.Random(1), 8)
    assert found["killed"] == 8


def test_killed_while_it_adds(tmp_path):
    found = try_add(tmp_path, random.Random(1), 8)
    assert found["killed"] == 8


def test_half_a_transaction_on_the_disk_is_undone_by_whoever_looks_first(shared):
    "The files as a power failure leaves them: rows have reached the disk, their journal is there."
    place, crashed = shared.store.place, shared.store.place.with_name("crashed")
    known = shared.list()
    with closing(sqlite3.connect(place / "registry.db", isolation_level=None)) as db:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN IMMEDIATE")
        for version in range(3, 200):
            event = module.new_event("reviews", "add", version, "", "0" * 64, "x" * 3000)
            module.write_event(db, event)
        shutil.copytree(place, crashed)
    database, journal = crashed / "registry.db", crashed / "registry.db-journal"
    assert database.stat().st_size > (place / "registry.db").stat().st_size and journal.exists()
    def who_may_only_read():
        with refused("registry.db"): open_registry(crashed).list()
    as_another(who_may_only_read)
    assert open_registry(crashed).list().equals(known) and not journal.exists()
    as_another(lambda: open_registry(crashed).resolve("reviews"))


# stages

def test_a_rollback_leads_back_the_whole_way(filled, runs):
    filled.add(runs[2], "reviews")
    for version in (1, 2, 3, 1): filled.promote("reviews", version, force=True)
    assert [filled.rollback("reviews") for _ in range(3)] == [3, 2, 1]
    with refused("nothing was in production before"): filled.rollback("reviews")
    with refused("nothing is in canary"): filled.rollback("reviews", "canary")
    filled.promote("reviews", 3, force=True)
    assert filled.rollback("reviews") == 1
    assert list(filled.history("reviews")["kind"].value_counts()) == [5, 4]


def test_stages_don_t_know_of_each_other(filled):
    filled.promote("reviews", 1)
    filled.promote("reviews", 2, "staging")
    filled.promote("reviews", 2, "eu")
    table = filled.list("reviews")
    assert list(table["stages"]) == ["production", "eu, staging"]
    assert filled.resolve("reviews@staging") == filled.resolve("reviews@2")


@given(st.lists(st.integers(1, 4) | st.none(), max_size=30))
def test_the_stack_is_that_of_a_simple_simulation(moves):
    events, stack = [], []
    for version in moves:
        if version is None and len(stack) < 2: continue
        if version is None: stack.pop()
        else: stack.append(version)
        kind = "promote" if version else "rollback"
        events.append({"kind": kind, "version": stack[-1], "stage": "production"})
    assert stack_of(events, "production") == stack
    assert current(events, "production") == (stack[-1] if stack else None)
    assert all(e["version"] == current(events[:i], "production") for i, e in enumerate(events, 1))


def comparison(value, low, high, p_value=0.01, seen=0, metric="accuracy"):
    found = {"split": "rows.csv", "n": 100, "difference": {metric: {
        "value": value, "low": low, "high": high}}, "trained_on": [seen, 0]}
    if p_value is None: return found
    return {**found, "only_first": 3, "only_second": 20, "p_value": p_value}


@pytest.mark.parametrize("found, words", [
    (comparison(0.1, 0.02, 0.2), None),
    (comparison(-0.1, -0.2, 0.01), None),                          # can't be told apart
    (comparison(0.0, 0.0, 0.0, 1.0), None),
    (comparison(-0.1, -0.2, -0.01), "is worse than reviews@1: accuracy -0.100 (-0.200 to -0.010)"),
    (comparison(-0.1, -0.2, -0.01, 0.06), None),                   # the two tests don't agree
    (comparison(-0.1, -0.2, -0.01, None, metric="f1"), "f1 -0.100"),
    (comparison(0.1, 0.02, 0.2, None, metric="bits_per_byte"), "bits per byte +0.100"),
    (comparison(-0.1, -0.2, -0.01, None, metric="loss"), None),
    (comparison(0.1, 0.02, 0.2, seen=7), "was trained on 7 of the 100 rows of rows.csv")])
def test_the_gate(filled, monkeypatch, found, words):
    filled.promote("reviews", 1)
    monkeypatch.setattr("course_lib.runs.compare", lambda *args: found)
    if words:
        with refused("reviews@2", words): filled.promote("reviews", 2, data="rows.csv")
        assert filled.resolve("reviews") == filled.resolve("reviews@1")
        filled.promote("reviews", 2, data="rows.csv", force=True)
    else:
        made = filled.promote("reviews", 2, data="rows.csv")
        assert made["before"] == 1 and made["comparison"] == found
        assert filled.history("reviews")["said"].iloc[-1] == made["said"]
    assert filled.resolve("reviews") == filled.resolve("reviews@2")


def test_without_data_only_an_empty_stage_can_be_filled(filled):
    assert filled.promote("reviews", 1)["said"] == "the first version in production"
    with refused("reviews@2", "without a comparison", "data=FILE"): filled.promote("reviews", 2)
    assert filled.promote("reviews", 1)["said"] == "is in production already"
    assert len(filled.history("reviews")) == 1
    made = filled.promote("reviews", 2, force=True)
    assert made["said"] == "forced, without a comparison" and made["before"] == 1


def test_a_version_that_fails_its_cases(filled, monkeypatch):
    "A model that calls everything positive that has a capital letter."
    rows = Dataset.from_dict({"text": ["A joy.", "a bore.", "Dull."], "label": [1, 0, 0]})
    recipe = {"task": "text-classification", "classes": {"negative": 1, "positive": 1}}
    def predict_texts(model, tokenizer, recipe, texts, batch_size):
        shares = [float(text != text.lower()) for text in texts]
        return [{"scores": {"positive": share, "negative": 1 - share}} for share in shares]
    monkeypatch.setattr("course_lib.runs.load_run", lambda run: (None, None, recipe))
    monkeypatch.setattr("course_lib.runs.predict_texts", predict_texts)
    monkeypatch.setattr("course_lib.runs.rows_to_score", lambda *args: ("cases.csv", rows))
    table = run_cases("run", "cases.csv")
    assert table.loc["cases", ["n", "failed"]].tolist() == [3, 1] and not table["passed"]["cases"]
    assert table.loc["upper case", ["n", "failed"]].tolist() == [3, 1]
    with refused("cases.csv", "cases (1 of 3)"): filled.promote("reviews", 1, cases="cases.csv")
    assert filled.promote("reviews", 1, cases="cases.csv", force=True)["before"] is None
    rows = rows.select([0, 1])
    assert filled.promote("reviews", 2, "staging", cases="cases.csv")["before"] is None


@pytest.mark.parametrize("change, words", [
    ({"task": "token-classification"}, "its task isn't that of reviews@1"),
    ({"classes": {"good": 1, "bad": 1}}, "its labels are not those of reviews@1"),
    ({"classes": {"positive": 5, "negative": 1}}, "without a comparison")]) # the order is no matter
def test_a_model_of_another_kind(filled, tmp_path, change, words):
    run = write_run(tmp_path / "other", "other")
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps({**recipe, **change}))
    filled.promote("reviews", 1)
    assert filled.add(run, "reviews") == 3
    with refused("reviews@3", words): filled.promote("reviews", 3)
    assert filled.promote("reviews", 3, force=True)["before"] == 1


# where it is

def test_torch_is_not_needed(filled, runs):
    code = ("import sys\nfrom course_lib.registry import open_registry\n"
            f"r = open_registry({str(filled.store.place)!r})\nr.add({str(runs[2])!r}, 'reviews')\n"
            "r.promote('reviews', 1)\nr.rollback\nr.show('reviews', 1)\nprint(r.list())\n"
            "try: r.promote('reviews', 2)\nexcept ValueError: pass\n"
            "assert not {'torch', 'transformers', 'mlflow'} & set(sys.modules)")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_the_place_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_REGISTRY", raising=False)
    assert open_registry().store == FolderStore(Path("runs/registry"))
    monkeypatch.setenv("COURSE_REGISTRY", str(tmp_path))
    assert open_registry().store == FolderStore(tmp_path)
    monkeypatch.setenv("COURSE_REGISTRY", "http://localhost:5000/")
    assert open_registry().store.server.url == "http://localhost:5000"
    for place in ("ftp://a", "http://", "http://me:x@a", "http://a b", "x://", "http://[", "https:///x"):
        with refused("is not the address"): open_registry(place)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    with refused("unencrypted"): open_registry("http://models.example")
    open_registry("https://models.example")


class Odd(http.server.BaseHTTPRequestHandler):
    "A server that is no MLflow."
    def do_GET(self):
        code, body = {"/hello": (200, b"hello"), "/fault": (500, b"a\nfault")}[self.path[:6]]
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args): pass


def test_a_server_that_is_no_mlflow():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with refused("no JSON"): open_registry(f"{address}/hello").list()
        with refused("500: a fault"): open_registry(f"{address}/fault").list()
        server.shutdown()
    with refused("can't be reached"): open_registry(address).list()


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    "The address of a real server, started for these tests."
    program = os.environ.get("COURSE_MLFLOW")
    if not program: pytest.skip("COURSE_MLFLOW names no mlflow executable (pip install mlflow)")
    work = tmp_path_factory.mktemp("mlflow")
    with closing(socket.create_server(("127.0.0.1", 0))) as free: port = free.getsockname()[1]
    command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{work}/mlflow.db",
               "--artifacts-destination", str(work / "artifacts")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    with open(work / "log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=work,
                                  start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, server, work / "log")
        yield address, work
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def wait_for(address, server, log):
    until = time.monotonic() + 600                                 # its imports are slow
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            if httpx.get(f"{address}/health", timeout=5, trust_env=False).is_success: return
        except httpx.HTTPError: time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


@pytest.mark.slow
def test_the_same_calls_against_mlflow(mlflow, runs, tmp_path, monkeypatch):
    address, _ = mlflow
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("course_lib.runs.compare", lambda new, old, data: comparison(
        *((0.1, 0.02, 0.2) if b'"c"' in Path(new, "recipe.json").read_bytes()
          else (-0.1, -0.2, -0.01))))
    found = []
    for place in (tmp_path / "registry", address):
        registry = open_registry(place)
        said = [registry.add(run, "reviews") for run in (*runs[:2], runs[0])]
        said += [registry.promote("reviews", 1)["said"]]
        for options in ({}, {"data": "rows.csv"}):
            with refused("reviews@2") as e: registry.promote("reviews", 2, **options)
            said.append(str(e.value))
        said += [registry.add(runs[2], "reviews"), registry.promote("reviews", 3, data="x")["said"],
                 registry.resolve("reviews").name, registry.rollback("reviews"),
                 registry.resolve("reviews").name, registry.resolve("reviews@2").name]
        with refused("nothing was in production before"): registry.rollback("reviews")
        with refused("it has reviews"): registry.resolve("other")
        registry.promote("reviews", 2, "staging", force=True)
        said += [registry.list()[["name", "version", "stages", "digest"]].to_string()]
        said += [registry.history("reviews").drop(columns="at").to_string()]
        said += [{k: v for k, v in registry.show("reviews", 2).items() if k != "added"}]
        found.append(said)
    for one, other in zip(*found, strict=True): assert one == other


@pytest.mark.slow
def test_what_mlflow_hands_out_is_verified(mlflow, runs, tmp_path, monkeypatch):
    address, work = mlflow
    registry = open_registry(address)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "first"))
    registry.add(runs[0], "checked")
    folder = registry.resolve("checked@1")
    assert folder.is_relative_to(tmp_path / "first")
    (folder / "recipe.json").chmod(0o644)
    (folder / "recipe.json").write_text("{}")                      # in the cache
    with refused("was changed"): registry.resolve("checked@1")
    stored = max((work / "artifacts").rglob("recipe.json"), key=lambda p: p.stat().st_mtime_ns)
    stored.write_text("{}")                                        # on the server
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "second"))
    with refused("was changed"): registry.resolve("checked@1")
    assert not [p for p in (tmp_path / "second").rglob("*") if p.is_file() and p.suffix != ".lock"]
    alias = {"name": "checked", "alias": "production", "version": "1"}
    httpx.post(f"{address}/api/2.0/mlflow/registered-models/alias", json=alias, trust_env=False)
    assert registry.history("checked")["said"].iloc[-1] == "set on the server"
