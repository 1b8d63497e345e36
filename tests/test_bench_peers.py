"What the bench says of other libraries and of the machine: whether it is true."
import ast, inspect, json
from importlib.util import find_spec

import pandas as pd
import pytest
import torch
from datasets import Dataset

from course_lib import bench
from course_lib.files import shipped
from course_lib.training import fast_bfloat16


def guess_positive(train, share=1.0):
    "A peer that learns nothing and says 1."
    def learn():
        sum(i * i for i in range(200_000))
        return len(train["text"])
    def predict(texts): return [1 for _ in texts]
    return learn, predict


def break_down(train):
    "A peer whose library doesn't work here."
    raise ImportError("cannot import name 'attention' from 'library'")


@pytest.fixture
def splits():
    texts = ["A fine film.", "A dull film.", "Fine and long.", "Dull and long."] * 5
    rows = Dataset.from_dict({"text": texts, "label": [1, 0] * 10})
    return {"train": rows, "test": rows.select(range(10))}


def test_sixteen_bits_are_divided_by_their_own_peak(monkeypatch):
    peaks = {torch.float32: 1e9, torch.bfloat16: 4e9}
    monkeypatch.setattr(bench, "matrix_peak", lambda *a, dtype=torch.float32: peaks[dtype])
    names = ["ours", "tutorial loop", "ours, bf16", "Trainer, best, bf16"]
    seconds = pd.DataFrame([[1e3, 2e3, 5e2, 1e3]], columns=names)
    monkeypatch.setattr(bench, "in_turns", lambda *a: seconds)
    table = bench.training_table("tiny", 1, progress=False)
    share = bench.utilisation("tiny", bench.sentences(bench.ROWS["tiny"]), 1e3, 1e9)
    expected = [share, share / 2, share / 2, share / 4]  # twice as fast, four times the peak
    assert table["utilisation"].tolist() == pytest.approx(expected)
    assert table["ratio"].tolist() == [1, 2, 1, 2] and list(table.index) == names


@pytest.mark.skipif(not fast_bfloat16(torch.device("cpu")), reason="16-bit products aren't faster")
def test_the_machine_has_two_peaks():
    facts = bench.this_machine()
    assert facts["16-bit matrix product, GFLOP/s"] > facts["matrix product, GFLOP/s"]


def test_a_peer_has_a_process_and_a_row_of_its_own(monkeypatch, splits):
    monkeypatch.setitem(bench.PEERS, "guess", bench.Peer(guess_positive, {"share": 0.5}, None, 3))
    row = bench.run_peers(["guess"], splits, progress=False)["guess"]
    assert row["rows"] == 6 and row["n"] == 10 and row["accuracy"] == 0.5
    assert row["low"] < 0.25 and row["high"] > 0.75              # Wilson's interval of 5 in 10
    assert 0 < row["training seconds"] < row["seconds to first prediction"] < 60
    assert 1 < row["MiB"] < 60                                   # only what this peer imports
    seen = 6 * 4.5
    assert 0.5 < row["tokens a second"] * row["training seconds"] / seen < 2


def test_a_peer_that_cant_take_part_says_why(monkeypatch, splits):
    missing = bench.Peer(guess_positive, package="no_such_library")
    monkeypatch.setitem(bench.PEERS, "missing", missing)
    monkeypatch.setitem(bench.PEERS, "broken", bench.Peer(break_down))
    found = bench.run_peers(["missing", "broken"], splits, progress=False)
    assert found["missing"] == {"skipped": "no_such_library is not installed"}
    assert found["broken"]["skipped"].endswith("cannot import name 'attention' from 'library'")


def test_examples_are_the_first_of_each_class(splits):
    found = bench.examples_for(bench.Peer(guess_positive, examples=2), splits["train"])
    assert found["label"] == [0, 0, 1, 1]
    assert found["text"][:2] == ["A dull film.", "Dull and long."]
    whole = bench.examples_for(bench.Peer(guess_positive), splits["train"])
    assert whole["text"] == splits["train"]["text"][:]


def test_peers_bring_along_what_they_import():
    "A peer's source is all that its process gets: no name may come from the module around it."
    for peer in bench.PEERS.values():
        tree = ast.parse(inspect.getsource(peer.make))
        names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        around = {n for n in names if n in vars(bench) and n not in peer.make.__code__.co_varnames}
        imports = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
        own = {a.asname or a.name for n in imports for a in n.names}
        assert around - own - set(peer.make.__code__.co_cellvars) == set(), peer.make.__name__


EASY = {"text": ["A fine, warm film.", "A dull, cold, long, dull and cold film."] * 60,
        "label": [1, 0] * 60}


@pytest.mark.parametrize("make", [bench.by_trainer, bench.by_fit])
def test_answers_come_in_the_order_of_the_texts(make):
    "Trainer's `predict` follows the length if training does."
    options = {"model": "tiny-gpt2"} if make is bench.by_fit else {}
    learn, predict = make(EASY, learning_rate=1e-3, epochs=1, **options)
    assert learn() == 120
    texts = EASY["text"][:9] + ["A warm film."]
    assert predict(texts) == [1, 0, 1, 0, 1, 0, 1, 0, 1, 1]


@pytest.mark.parametrize("name", ["Lightning, tiny-gpt2", "spaCy, bag of words"])
def test_peers_learn_or_say_that_they_are_not_installed(name):
    easy = Dataset.from_dict(EASY)
    splits = {"train": easy, "test": easy.select(range(9))}
    row = bench.run_peers([name], splits, progress=False)[name]
    package = bench.PEERS[name].package
    if not find_spec(package): assert row == {"skipped": f"{package} is not installed"}
    else: assert row["accuracy"] == 1 and row["n"] == 9 and row["rows"] == 120


def test_the_recorded_peers_are_whole():
    recorded = json.loads(shipped("bench.json").read_text())
    assert set(recorded["peers"]) == set(bench.PEERS)
    assert recorded["peers, machine"]["processor"] and recorded["peers, machine"]["spacy"]
    for name, row in recorded["peers"].items():
        assert "skipped" in row or row["low"] < row["accuracy"] < row["high"], name
        if "skipped" not in row: assert row["n"] == 576 and row["MiB"] > 50
