"""Several labels a text: the loss and the scores are those of three libraries, every usual form of
table is read, and bad ones are refused with a place and advice; a run from the command line."""
import itertools
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import run_course
from datasets import DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    f1_score, hamming_loss, precision_recall_fscore_support, precision_recall_curve)
from test_loop import CONFIGS, same
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from course_lib import runs
from course_lib.errors import InputError, held_notes
from course_lib.files import find_file
from course_lib.models import load
from course_lib.monitoring import answer_numbers
from course_lib.labels import (
    find_separator, labels_in, names_of, to_multi, truth_of, written_list)
from course_lib.multilabel import (
    ABOUT, FEW, STATISTICS, Judged, answer_texts, baselines, best_threshold, compare_labels,
    count_labels, counted_shares, encode_texts, epoch_f1, film_notes, fixed_answers, in_order,
    judge, label_report, macro_f1, micro_f1, multi_label, read_multi, score_labels, scores_of,
    settle_threshold, split_labels, threshold_of, verdict)
from course_lib.recipe import Recipe
from course_lib.registry import run_cases
from course_lib.tables import read_rows
from course_lib.training import TaskLoss, fit, predict_classes, weighted_losses

NAMES = ["acting", "humour", "music", "pictures", "story"]
QUICK = ["--epochs", 1, "--max-length", 16, "--batch-size", 8]
NOTHING = dict.fromkeys(("validation", "test", "text", "label", "labels", "encoding", "delimiter"))
tables = st.integers(1, 5).flatmap(lambda labels: st.tuples(*[st.lists(
    st.lists(st.booleans(), min_size=labels, max_size=labels), min_size=6, max_size=6)] * 2))


def rows_of(labels, names=None, texts=None):
    "Rows with these labels, and texts that all differ."
    texts = texts or [f"text {i}" for i in range(len(labels))]
    rows = [(f"row {text}", {"text": text, "labels": own}) for text, own in zip(texts, labels)]
    return to_multi(rows, "rows", names=names)


def read(path, label=None, names=None, text=None):
    return to_multi(read_rows(path), path.name, text, label, names)


def by_name(rows): return [[names_of(rows)[i] for i in own] for own in rows["labels"]]


# the loss

def network(family):
    torch.manual_seed(0)
    config = CONFIGS[family].from_dict({**CONFIGS[family].to_dict(), "num_labels": 3,
                                        "problem_type": "multi_label_classification"})
    return AutoModelForSequenceClassification.from_config(config).eval()


def some_rows(n=11):
    draw = torch.Generator().manual_seed(0)
    def ids(): return torch.randint(2, 99, (int(torch.randint(2, 15, (1,), generator=draw)),),
                                    generator=draw).tolist()
    return [{"input_ids": [*ids(), 1], "labels": [float(i % 2), float(i % 3 == 0), 0.0]}
            for i in range(n)]


@pytest.mark.parametrize("family", ["gpt2", "bert", "llama"])
def test_the_loss_is_that_of_torch_and_of_transformers(family):
    model = network(family)
    batch = multi_label.collate(model, some_rows())
    loss, _ = multi_label.loss(model, batch)
    with torch.no_grad(): theirs = model(**batch)
    wanted = binary_cross_entropy_with_logits(theirs.logits, batch["labels"])
    shares = theirs.logits.double().sigmoid()
    by_hand = -torch.where(batch["labels"] > 0, shares.log(), (1 - shares).log()).mean()
    for other in (wanted, theirs.loss, by_hand): assert abs(loss.item() - other.item()) < 1e-6


@pytest.mark.parametrize("family", ["gpt2", "bert", "llama"])
def test_parts_add_up_to_the_big_batch(family):
    rows, found = some_rows(), []
    for sizes in ([11], [1, 4, 6]):
        model, ends = network(family), [0, *itertools.accumulate(sizes)]
        parts = [("task", rows[a:b]) for a, b in itertools.pairwise(ends)]
        losses = list(weighted_losses(TaskLoss(model, multi_label), parts, {}))
        sum(losses).backward()
        gradient = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((sum(losses).item(), torch.cat(gradient)))
    (a, g), (b, h) = found
    assert abs(a - b) < 1e-5 and (g - h).norm() < 1e-4 * g.norm()


def test_resumed_to_the_bit(tmp_path):
    rows, whole, cut, resumed = some_rows(), *(network("gpt2") for _ in range(3))
    how = {"task": multi_label, "epochs": 3, "batch_size": 4, "progress": False, "device": "cpu",
           "bf16": False, "learning_rate": 1e-3}
    fit(whole, rows, rows, **how)
    def pull_the_plug(history):
        if len(history) == 6: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        fit(cut, rows, rows, checkpoint=tmp_path, callbacks=[pull_the_plug], **how)
    fit(resumed, rows, rows, checkpoint=tmp_path, resume=True, **how)
    assert same(whole, resumed) and not same(whole, network("gpt2"))


@pytest.mark.parametrize("labels", [[1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.5, 0.0, 1.0]])
def test_rows_that_the_model_has_no_outputs_for(labels):
    rows = [{"input_ids": [5, 1], "labels": labels}]
    with pytest.raises(InputError, match="the model has 3 outputs – give a 0 or a 1 for each"):
        fit(network("gpt2"), rows, task=multi_label, progress=False)


# scores

@given(tables)
def test_scores_are_those_of_scikit_learn(pair):
    truth, called = (np.array(side) for side in pair)
    counts = count_labels(truth, called)
    found = {name: statistic(counts) for name, statistic in STATISTICS.items()}
    flat = f1_score(truth.ravel(), called.ravel(), zero_division=0)
    assert found["micro_f1"] == pytest.approx(flat)
    used = (truth | called).any(0)
    if used.sum() > 1:
        wanted = f1_score(truth[:, used], called[:, used], average="macro", zero_division=0)
        assert found["macro_f1"] == pytest.approx(wanted)
    assert found["hamming_loss"] == pytest.approx(hamming_loss(truth, called))
    assert found["exact_match"] == pytest.approx((truth == called).all(1).mean())
    names = list(map(str, range(truth.shape[1])))
    if len(names) < 2: return
    wanted = precision_recall_fscore_support(truth, called, zero_division=0)
    for i, own in enumerate(label_report(counts, names).values()):
        ours = [own[k] for k in ("precision", "recall", "f1", "support")]
        assert ours == pytest.approx([each[i] for each in wanted])
        for part in ("precision", "recall"):
            assert own[f"{part}_low"] <= own[part] <= own[f"{part}_high"] or own[part] == 0


def test_of_nothing_all_f1_are_zero():
    counts = count_labels(np.zeros((3, 2), bool), np.zeros((3, 2), bool))
    assert micro_f1(counts) == macro_f1(counts) == 0.0


def test_an_exact_match_of_all_rows_still_has_an_interval():
    truth = np.eye(3, dtype=bool)
    found = scores_of(count_labels(truth, truth), {})["metrics"]["exact_match"]
    assert found["value"] == found["high"] == 1 and found["low"] < 0.6


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0])),
                min_size=1, max_size=12))
def test_no_threshold_is_better_than_the_chosen_one(pairs):
    truth, shares = (np.array(side) for side in zip(*pairs))
    limit = best_threshold(truth, shares)
    def f1(at): return micro_f1(count_labels(truth[:, None], (shares >= at)[:, None]))
    if not truth.any(): return
    precision, recall, tried = precision_recall_curve(truth, shares)
    wanted = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    assert f1(limit) == pytest.approx(wanted) and 0 <= limit <= 1


def test_where_nothing_is_there_the_threshold_is_one_half():
    assert best_threshold(np.zeros((2, 2), bool), np.ones((2, 2))) == 0.5


# the forms of tables

WANTED = [["b"], [], ["a", "b"]]


@pytest.mark.parametrize("sign", ["|", ";", ","])
def test_labels_between_separators(tmp_path, sign):
    path = tmp_path / "some.csv"
    path.write_text(f'text,labels\none,b\ntwo,\nthree,"b {sign} a"\n')
    with held_notes() as notes: rows = read(path)
    assert by_name(rows) == WANTED and names_of(rows) == ["a", "b"]
    assert f"the labels in column 'labels' are split at {sign!r}" in notes


@pytest.mark.parametrize("last", ['["b", "a"]', "['b', 'a']", "['b' 'a']", '["b", "a", ""]'])
def test_lists_written_as_text(tmp_path, last):
    path = tmp_path / "some.csv"
    pd.DataFrame({"text": ["one", "two", "three"], "labels": ["['b']", "[]", last]}).to_csv(path)
    assert by_name(read(path)) == WANTED


@pytest.mark.parametrize("cell, wanted", [
    ("[a] b", None), ("[1, 2]", [1, 2]), ("[", None), ("[" * 200_000 + "]" * 200_000, None),
    ('["a, b"]', ["a, b"]), ("[a, b]", None), ("[]", [])])
def test_what_is_a_written_list(cell, wanted): assert written_list(cell) == wanted


@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet"])
def test_lists(tmp_path, ending):
    table = [{"text": t, "labels": own} for t, own in zip(["one", "two", "three"], WANTED)]
    path = tmp_path / f"some.{ending}"
    if ending == "json": path.write_text(json.dumps(table))
    if ending == "jsonl": path.write_text("\n".join(map(json.dumps, table)))
    if ending == "parquet": pq.write_table(pa.Table.from_pylist(table), path)
    assert by_name(read(path)) == WANTED


def test_json_with_texts_null_and_numbers(tmp_path):
    path = tmp_path / "some.json"
    path.write_text(json.dumps([{"text": "one", "labels": "b"}, {"text": "two", "labels": None},
                                {"text": "three", "labels": "a|b"}, {"text": "4", "labels": [7]}]))
    assert by_name(read(path)) == [*WANTED, ["7"]]


@pytest.mark.parametrize("yes, no", [("1", "0"), ("true", "FALSE"), ("Yes", "no"), ("1.0", "0.0")])
def test_columns_of_yes_and_no(tmp_path, yes, no):
    path = tmp_path / "some.csv"
    path.write_text(f"id,comment,b,a\n1,one,{yes},{no}\n2,two,{no},{no}\n3,three,{yes},{yes}\n")
    assert by_name(read(path, "b, a", text="comment")) == WANTED
    with pytest.raises(InputError, match="no column is called labels – pass label=b,a"):
        read(path, text="comment")
    with pytest.raises(InputError, match="no column 'c' – the columns are 'id', 'comment', 'b'"):
        read(path, "b,c", text="comment")


def test_columns_in_json_and_parquet(tmp_path):
    table = [{"text": t, "a": "a" in own, "b": "b" in own}
             for t, own in zip(["one", "two", "three"], WANTED)]
    (tmp_path / "some.json").write_text(json.dumps(table))
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "some.parquet")
    for path in (tmp_path / "some.json", tmp_path / "some.parquet"):
        assert by_name(read(path, "a,b")) == WANTED


def test_a_column_may_have_a_comma_in_its_name(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text('text,"what, and how"\none,a|b\ntwo,b\n')
    assert by_name(read(path, "what, and how")) == [["a", "b"], ["b"]]


def test_a_folder_of_fasttext_and_annotation_tools(tmp_path):
    (tmp_path / "some.txt").write_text("__label__a __label__b one\n__label__b two\n")
    assert by_name(read(tmp_path / "some.txt")) == [["a", "b"], ["b"]]
    studio = [{"data": {"text": t}, "annotations": [{"result": [{"value": {"choices": own}}]}]}
              for t, own in (("one", ["a", "b"]), ("two", []))]
    (tmp_path / "some.json").write_text(json.dumps(studio))
    assert by_name(read(tmp_path / "some.json")) == [["a", "b"], []]


@pytest.mark.parametrize("cells, names, sign", [
    (["a", "b"], None, None), (["a|b", "c;d"], None, "|"), (["x, y; z"], None, ";"),
    (["a,b"], None, ","), (["x, y"], ["x, y", "z"], None), (["x, y;z"], ["x, y", "z"], ";"),
    (["a,b"], ["a", "b"], ","), (["A,b"], ["a", "b"], ","), ([], None, None)])
def test_what_separates_labels(cells, names, sign): assert find_separator(cells, names) == sign


@given(st.one_of(st.none(), st.text(), st.floats(), st.integers(), st.booleans(), st.dates(),
                 st.lists(st.one_of(st.none(), st.text(), st.integers(), st.lists(st.text()))),
                 st.dictionaries(st.text(), st.integers())), st.sampled_from([None, "|", ";", ","]))
def test_hostile_cells_give_names_or_nothing(value, sign):
    found = labels_in(value, sign)
    assert found is None or all(isinstance(one, str) and one.strip() for one in found)
    assert found is None or len(set(found)) == len(found)


BAD = {
    "a label in another spelling": ("text,labels\none,Music\ntwo,music|a\nthree,a\n", None,
                                    "bad.csv:3 – label 'music' (rows: 1) looks like 'Music'"),
    "no text": ("text,labels\n,a|b\n", None, "bad.csv:2, column 'text' – no text in this row"),
    "no labels at all": ("text,labels\none,\ntwo,\n", None, "no row has a label – pass label=NAME"),
    "one label": ("text,labels\none,a\ntwo,\n", None, "its only label is 'a' – pass label=NAME"),
    "a single column of yes and no": ("text,toxic\none,1\ntwo,0\n", "toxic",
                                      "its labels are only 0 and 1 – pass label=NAME,NAME"),
    "neither yes nor no": ("text,a,b\none,1,0\ntwo,1,2\n", "a,b",
                           "bad.csv:3, column 'b' – '2' is neither yes nor no – write 1 or 0"),
    "an empty cell among yes and no": ("text,a,b\none,1,0\ntwo,,1\n", "a,b",
                                       "bad.csv:3, column 'a' – '' is neither yes nor no"),
    "no such column": ("text,labels\none,a|b\n", "tags", "no column 'tags' – the columns are"),
    "no rows": ("text,labels\n", None, "has no rows below the header"),
    "an endless label": (f"text,labels\none,a|{'x' * 300}\n", None,
                         "bad.csv:2, column 'labels' – 'a|xxx"),
    "hundreds of labels": ("text,labels\none," + "|".join(f"l{i}" for i in range(1500)) + "\n",
                           None, "1500 different labels in 1500 rows – is this the label column?"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables(tmp_path, case):
    text, label, wanted = BAD[case]
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(InputError) as e: read(tmp_path / "bad.csv", label)
    assert wanted in str(e.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize("value, wanted", [
    ([None], "[None]' are no labels – give texts"), ({"a": 1}, "are no labels – give texts"),
    ([["a", "b"]], "are no labels – give texts")])
def test_bad_lists(tmp_path, value, wanted):
    rows = [{"text": "one", "labels": ["a", "b"]}, {"text": "two", "labels": value}]
    (tmp_path / "bad.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match=re.escape(wanted)): read(tmp_path / "bad.json")


def test_a_row_without_the_key_is_not_a_row_without_labels(tmp_path):
    rows = [{"text": "one", "labels": ["a", "b"]}, {"text": "two"}]
    (tmp_path / "bad.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match="item 2, column 'labels' – is not in this row"):
        read(tmp_path / "bad.json")


def test_many_problems_are_told_at_once(tmp_path):
    (tmp_path / "bad.csv").write_text("text,a,b\n" + "x,1,?\n" * 30)
    with pytest.raises(InputError) as e: read(tmp_path / "bad.csv", "a,b")
    assert len(e.value.problems) == 20


def test_labels_that_the_model_does_not_know(tmp_path):
    path = tmp_path / "more.csv"
    path.write_text("text,labels\none,a\ntwo,b|z\n")
    with pytest.raises(InputError, match="more.csv:3, column 'labels' – the label 'z' is not known "
                                         "– the known ones are a, b"): read(path, names=["a", "b"])
    path.write_text("text,a,z\none,1,0\n")
    with pytest.raises(InputError, match="label 'z' – is not known – the known ones are a, b"):
        read(path, "a,z", ["a", "b"])
    with pytest.raises(InputError, match="label 'c' – has no column here"):
        read(path, "a,z", ["a", "c", "z"])
    with pytest.raises(InputError, match="label 'b' – the model doesn't know it"):
        in_order(rows_of([["a", "b"]]), ["a", "c"])


def test_what_looks_the_same_is_one_label_and_names_are_sorted():
    rows = rows_of([["b", "10"], ["b\u200b", "2"], ["b", "b\u200b"]])
    assert names_of(rows) == ["2", "10", "b"] and rows["labels"][2] == [2]
    assert in_order(rows, ["b", "x", "2", "10"])["labels"][:] == [[0, 3], [0, 2], [0]]


# parts

@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=4), min_size=12, max_size=60),
       st.integers(0, 99))
def test_every_label_is_trained_on_and_every_row_is_somewhere_once(labels, seed):
    rows = rows_of([*labels, ["a", "b"]])
    splits = split_labels(rows, seed)
    assert truth_of(splits["train"]).any(0).all()
    texts = [text for part in splits.values() for text in part["text"]]
    assert sorted(texts) == sorted(rows["text"]) and set(splits) == {"train", "validation", "test"}
    again = split_labels(rows, seed)
    assert all(again[part]["text"][:] == splits[part]["text"][:] for part in splits)


def test_the_labels_have_like_shares_and_copies_stay_together():
    notes = film_notes(600).to_dict("records")
    rows = to_multi([(str(i), row) for i, row in enumerate([*notes, *notes[:90]])], "notes")
    splits = split_labels(rows, 1)
    shares = np.array([truth_of(part).mean(0) for part in splits.values()])
    assert (np.ptp(shares, axis=0) < 0.03).all()
    texts = [set(part["text"]) for part in splits.values()]
    assert not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])
    sizes = [len(part) / 690 for part in splits.values()]
    assert sizes == pytest.approx([0.7, 0.15, 0.15], abs=0.02)
    two = split_labels(rows, 1, (0.85, 0.15, 0))
    assert set(two) == {"train", "validation"} and len(two["train"]) == pytest.approx(586, abs=8)


def test_parts_from_files(tmp_path):
    train, more = tmp_path / "train.csv", tmp_path / "more.csv"
    lines = [f"t{i},{'a|b' if i % 2 else ''}\n" for i in range(9)]
    train.write_text("text,labels\n" + "".join(lines))
    more.write_text("text,labels\nt1,a|b\nnew,a\n")
    recipe = {**NOTHING, "data": str(train), "seed": 0}
    with held_notes() as notes:
        splits = read_multi({**recipe, "validation": str(more), "test": str(more)})
    assert len(splits["train"]) == 9 and len(splits["test"]) == 2
    assert any("has 1 of its 2 rows in training" in text for text in notes)
    both = read_multi({**recipe, "test": str(more)})
    assert set(both) == {"train", "validation", "test"} and len(both["test"]) == 2
    more.write_text("text,labels\nnew,zzz\n")
    with pytest.raises(InputError, match="csv:2, column 'labels' – the label 'zzz' is not known"):
        read_multi({**recipe, "test": str(more)})
    with pytest.raises(InputError, match="label 'c' – no training row has it"):
        read_multi({**recipe, "labels": ["a", "b", "c"]})
    with pytest.raises(InputError, match="is no file – give a table"):
        read_multi({**recipe, "data": "somebody/some-data"})


def test_one_label_in_nearly_every_row_is_noted(tmp_path):
    path = tmp_path / "plain.csv"
    path.write_text("text,labels\n" + "".join(f"t{i},{'ab'[i % 2]}\n" for i in range(20)))
    with held_notes() as notes: read_multi({**NOTHING, "data": str(path), "seed": 0})
    assert any("100.0% of the rows have exactly one label" in text for text in notes)


def test_the_notes_are_the_same_every_time():
    notes = film_notes(300)
    assert notes.equals(film_notes(300)) and not notes.equals(film_notes(300, 1))
    assert set("|".join(notes["labels"]).split("|")) == {*ABOUT, ""} and set(ABOUT) == set(NAMES)


# baselines

def test_constant_answers():
    found = fixed_answers({"a": 3, "b": 6, "c": 7}, 10, 2)
    assert found["majority"].tolist() == [[False, True, True]] * 2
    assert found["commonest_label"].tolist() == [[False, False, True]] * 2
    assert set(fixed_answers({"a": 3, "b": 6}, None, 1)) == {"commonest_label"}


def test_the_count_of_words_learns_words_and_characters():
    for word, other in (("piano", "fog"), ("钢琴", "大雾")):
        texts = [f"{word} {i}" if i % 2 else f"{other} {i}" for i in range(40)]
        labels = [["m", "always"] if i % 2 else ["f", "always"] for i in range(40)]
        rows = rows_of(labels, texts=texts)
        found = counted_shares(rows, rows, [f"{word} 99", f"{other} 98"])
        assert found.called[-2:].tolist() == [[True, False, True], [True, True, False]]


def test_scores_beside_baselines_and_the_verdict():
    rows = rows_of([["a", "b"] if i % 2 else [] for i in range(60)],
                   texts=[f"{'yes' if i % 2 else 'no'} {i}" for i in range(60)])
    splits = split_labels(rows, 0)
    known = DatasetDict(train=splits["train"], validation=splits["validation"])
    answers, best = baselines(known, rows)
    assert best == "tfidf_logistic_regression" and set(answers) == {
        "majority", "commonest_label", "tfidf_logistic_regression"}
    perfect = Judged(truth_of(rows).astype(float), 0.4)
    told = score_labels(rows, perfect, known, {})
    assert told["threshold"] == 0.4 and told["n"] == 60
    assert set(told["baselines"]) == {*answers, "this_model_at_0.5"}
    assert all("model_gain" in scores for scores in told["baselines"].values())
    assert "can't tell the model from the best baseline" in verdict(told)
    worse = score_labels(rows, Judged(1 - perfect.shares, 0.5), known, {})
    assert "The model is worse than the best baseline" in verdict(worse)
    assert "too few" in verdict({**told, "n": FEW - 1})
    recipe = {"classes": {"a": 30, "b": 30}, "rows": {"train": 40}}
    alone = score_labels(rows, perfect, None, recipe)
    assert set(alone["baselines"]) == {"majority", "commonest_label", "this_model_at_0.5"}
    assert verdict(alone) == ""


def test_two_models_whose_labels_are_in_another_order():
    rows = rows_of([["a"], ["b"], ["a", "b"]] * 10)
    truth = truth_of(rows).astype(float)
    told = compare_labels(rows, (Judged(truth, 0.5), Judged(truth[:, ::-1], 0.5)),
                          (["a", "b"], ["b", "a"]))
    assert all(gap["value"] == 0 for gap in told["difference"].values())
    told = compare_labels(rows, (Judged(truth, 0.5), Judged(truth, 2.0)), (["a", "b"], ["a", "b"]))
    assert "The first run is better" in told["verdict"]


# the model

def test_the_threshold_is_kept_with_the_model(tmp_path):
    model, tokenizer = load("tiny-gpt2", "multi-label-classification", ["a", "b"])
    rows = rows_of([["a"], ["b"], ["a", "b"], []])
    features = encode_texts(DatasetDict(rows=rows), tokenizer, 16)["rows"]
    assert threshold_of(model) == 0.5
    settle_threshold(model, tokenizer, rows, features)
    for part in (model, tokenizer): part.save_pretrained(tmp_path)
    again, _ = load(str(tmp_path), "multi-label-classification", ["a", "b"])
    assert threshold_of(again) == threshold_of(model) != 0.5
    found = judge(again, tokenizer, rows, features)
    answers = answer_texts(again, tokenizer, {"max_length": 16}, rows["text"][:], 2)
    said = [[name in answer["labels"] for name in ("a", "b")] for answer in answers]
    assert said == found.called.tolist()
    logits, _ = predict_classes(again, features)
    assert np.allclose(found.shares, logits.sigmoid(), atol=1e-6)
    for wrong in ("0.5", 7, None, True):
        again.config.label_threshold = wrong
        with pytest.raises(InputError, match="is no probability"): threshold_of(again)


def test_a_model_with_sigmoids_is_not_read_as_a_plain_classifier(tmp_path):
    model, tokenizer = load("tiny-gpt2", "multi-label-classification", ["a", "b"])
    for part in (model, tokenizer): part.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="use task=multi-label-classification"):
        load(str(tmp_path), labels=["a", "b"])


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-t5"])
def test_other_families_learn_it_too(name):
    model, tokenizer = load(name, "multi-label-classification", ["dog", "tree"])
    texts = ["a dog", "a tree", "a dog, a tree", "the sea"] * 6
    rows = rows_of([["dog"], ["tree"], ["dog", "tree"], []] * 6, texts=texts)
    features = encode_texts(DatasetDict(rows=rows), tokenizer, 16)["rows"]
    history = fit(model, features, features, task=multi_label, epochs=6, batch_size=8,
                  learning_rate=2e-3, metric={"f1": epoch_f1}, progress=False)
    losses = history.loc[history["split"] == "validation", "loss"]
    assert losses.iloc[-1] < 0.8 * losses.iloc[0]


# a run from the command line

@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "notes.csv"
    notes = film_notes(60, seed=3)
    notes.insert(0, "id", range(60))
    notes.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, table):
    out = tmp_path_factory.mktemp("run") / "notes"
    done = run_course("fine-tune", "--data", table, "--multi-label", "--out", out, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "split at '|'" in done.stderr and "micro f1" in done.stdout
    return out


def test_a_run_folder(folder, table):
    assert {p.name for p in folder.iterdir()} == {
        "recipe.json", "history.csv", "metrics.json", "loss.png", "threshold.png", "scores.png",
        "model", "README.md", "checkpoint"}
    files = ("recipe.json", "metrics.json")
    recipe, metrics = (json.loads((folder / name).read_text()) for name in files)
    assert recipe["task"] == "multi-label-classification" and list(recipe["classes"]) == NAMES
    assert set(metrics["metrics"]) == set(STATISTICS) and set(metrics["per_class"]) == set(NAMES)
    config = json.loads((folder / "model/config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["label_threshold"] == metrics["threshold"]
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card and "`acting`, `humour`" in card
    weights = folder / "model/model.safetensors"
    before = weights.stat().st_mtime_ns
    done = run_course("fine-tune", "--data", table, "--multi-label", "--out", folder, "--resume",
                      *QUICK)
    assert done.returncode == 0 and weights.stat().st_mtime_ns == before
    refused = run_course("fine-tune", "--data", table, "--multi-label", "--out", folder, *QUICK)
    assert refused.returncode == 2 and "--resume" in refused.stderr


def test_the_code_on_the_card_and_a_pipeline_say_what_predict_says(folder, capsys, monkeypatch):
    text = "The piano worked. The ending surprised me."
    done = run_course("predict", folder, text)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == {"text", "labels", "scores"} and set(answer["scores"]) == set(NAMES)
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)[1]
    monkeypatch.chdir(folder)
    exec(code.replace("a text", text), {})
    assert capsys.readouterr().out.strip() == str([answer["labels"]])
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    pipe = pipeline("text-classification", str(folder / "model"), tokenizer=tokenizer, top_k=None)
    theirs = {own["label"]: own["score"] for own in pipe(text)[0]}
    assert theirs == pytest.approx(answer["scores"], abs=1e-5)


def test_a_table_of_answers_can_be_read_and_scored(folder, table, tmp_path):
    out = tmp_path / "answers.csv"
    done = run_course("predict", folder, "--data", table, "--out", out)
    assert done.returncode == 0, done.stderr
    answers = pd.read_csv(out)
    assert list(answers["id"]) == list(range(60)) and "predicted_scores" in answers
    model, tokenizer, recipe = runs.load_run(folder)
    wanted = answer_texts(model, tokenizer, recipe, answers["text"].tolist(), 64)
    found = read(out, "predicted_labels", NAMES)
    assert by_name(found) == [answer["labels"] for answer in wanted]


def test_evaluate_and_compare(folder, table, tmp_path):
    done = run_course("evaluate", folder, "--data", table, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["n"] == 60 and told["trained_on"] == 42 and "majority" in told["baselines"]
    assert run_course("evaluate", folder, "--data", table).returncode == 0
    same = run_course("compare", folder, folder, "--data", table)
    assert same.returncode == 0 and "can't tell the two apart" in same.stdout
    (tmp_path / "other.csv").write_text("text,labels\nThe fog worked.,weather\n")
    done = run_course("evaluate", folder, "--data", tmp_path / "other.csv")
    assert done.returncode == 2 and "the label 'weather' is not known" in done.stderr
    wide = truth_of(read(table)).astype(int)
    columns = pd.DataFrame(wide, columns=NAMES).assign(text=pd.read_csv(table)["text"])
    columns.to_csv(tmp_path / "wide.csv", index=False)
    done = run_course("evaluate", folder, "--data", tmp_path / "wide.csv", "--label",
                      ",".join(NAMES[::-1]), "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["metrics"] == told["metrics"]


def test_a_test_file_with_a_label_of_its_own_is_refused_before_anything_is_written(table, tmp_path):
    (tmp_path / "test.csv").write_text("text,labels\nThe fog worked.,weather\n")
    done = run_course("fine-tune", "--data", table, "--test", tmp_path / "test.csv",
                      "--multi-label", "--out", tmp_path / "run", *QUICK)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert done.stderr.count("\n") == 1 and "test.csv:2, column 'labels' – the label 'weather'" \
        " is not known – the known ones are acting" in done.stderr


@pytest.mark.parametrize("more, wanted", [
    (["--task", "summarization"], "isn't about labels of whole texts, --multi-label is"),
    (["--class-weight", "balanced"], "class-weight – has no use in multi-label-classification"),
    (["--metric-for-best-model", "accuracy"], "it can be loss, micro_f1"),
    (["--label", "id"], "has no rows, since each label has too few texts to share them out"),
    (["--label", "nowhere"], "no column 'nowhere'")])
def test_what_does_not_fit_is_refused(table, tmp_path, more, wanted):
    done = run_course("fine-tune", "--data", table, "--multi-label", "--out", tmp_path / "run",
                      *QUICK, *more)
    assert done.returncode == 2 and wanted in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


def test_lora_and_allowed_labels(table, tmp_path):
    recipe = Recipe(data=str(table), task="multi-label-classification", epochs=1, max_length=16,
                    lora_rank=2, labels=NAMES[::-1], metric_for_best_model="micro_f1")
    metrics = runs.fine_tune(recipe, tmp_path / "run", progress=False)
    assert list(metrics["per_class"]) == NAMES[::-1]
    assert "task='multi-label-classification'" in (tmp_path / "run/adapter/README.md").read_text()


@pytest.mark.parametrize("form", [["--onnx"], ["--gguf"], ["--ctranslate2"], ["--page", "a.html"]])
def test_an_export_that_would_answer_with_one_label_is_refused(folder, tmp_path, form):
    done = run_course("export", folder, *form, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "several labels" in done.stderr or "the page can only tell classes" in done.stderr
    assert not list(tmp_path.iterdir())


def test_served_answers_are_those_of_the_run(folder):
    from course_lib.serving import RunModel
    served = RunModel(folder, "notes")
    texts = ["The piano worked.", "The jokes left me cold."]
    assert served.answer(texts) == runs.predict(folder, texts) and served.max_tokens == 16


def test_watching_sees_which_labels_go_together(folder, table):
    answers = [{"text": "", "labels": own, "scores": {}} for own in (["a", "b"], [])]
    numbers = answer_numbers(answers)
    assert numbers["label"].tolist() == ["a, b", "(none)"]
    done = run_course("watch", folder, "--data", table)
    assert done.returncode == 2 and "9 texts – are too few to compare with" in done.stderr


def test_cases_of_one_label_are_no_cases_here(folder, table):
    with pytest.raises(InputError, match="cases have one label each – leave cases out"):
        run_cases(folder, str(table))


def test_the_shipped_reviews_are_plain(tmp_path):
    with held_notes() as notes:
        read_multi({**NOTHING, "data": str(find_file("reviews")), "seed": 0})
    assert any("exactly one label" in text for text in notes)
