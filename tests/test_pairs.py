"""Two other ways of reading texts: in pairs, one text with a tab in it for all of the course and
two for the tokenizer; and, if they are long, in windows whose logits are averaged."""
import csv
import json
import os
import random

import pytest
import torch
from conftest import is_here, run_course
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from transformers import pipeline

from course_lib.behaviour import CHANGES
from course_lib.errors import InputError, held_notes
from course_lib.export import export
from course_lib.loading import quiet
from course_lib.models import load
from course_lib.monitoring import watch_file
from course_lib.page import write_page
from course_lib.recipe import Recipe, check_texts, read_recipe
from course_lib.runs import (classify_texts, compare, evaluate, fine_tune, known_splits, load_run,
                             predict, predict_table)
from course_lib.serving import RunModel, example_of
from course_lib.server import trial_page
from course_lib.tables import find_columns, read_table
from course_lib.tokens import encode, first_lengths, halves, pad_batch, tokenize
from course_lib.training import (batch_logits, make_batch, predict_classes, predict_logits,
                                 text_labels, text_logits)

LABELS = ["no", "yes"]
DONE = ["two men sleep", "a dog runs", "the girl sings a song", "a boy eats", "it rains at night"]
MODELS = ["tiny-gpt2", "tiny-bert", "tiny-t5", "minilm"]
PAIRS = ["Two men sleep.\tA man is awake.", "It rains.\tIt is dry, said the old man at the gate.",
         "She sings and sings and sings again, all day.\tShe sings.", "Yes\tNo",
         "One line\nand another\tA second text"]


def loaded(name):
    "A classifier by that name; minilm only where it is downloaded."
    if name == "minilm" and not is_here("minilm"): pytest.skip("first: course download minilm")
    return load(name, labels=LABELS)


def rows_of(texts, labels=None):
    "Texts as a split."
    features = Features(text=Value("string"), label=ClassLabel(names=LABELS))
    own = labels or [i % 2 for i in range(len(texts))]
    return Dataset.from_dict({"text": texts, "label": own}, features=features)


def write_table(path, n=60):
    "A table of premises and hypotheses; some halves hold tabs, and `slice` says which."
    rng = random.Random(0)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "premise", "hypothesis", "slice", "y"])
        for i in range(n):
            first, same = rng.choice(DONE), i % 2
            second = first if same else rng.choice([other for other in DONE if other != first])
            between = "\t" if i % 3 else " "
            kind = "with a tab" if i % 3 else "without"
            table.writerow([i, f"{first} {i}.", f"So{between}{second}.", kind, LABELS[same]])
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "A run on pairs, with its table."
    folder = tmp_path_factory.mktemp("pairs")
    recipe = Recipe(data=write_table(folder / "t.csv"), pair=True, text="premise,hypothesis",
                    label="y", model="tiny-bert", epochs=1, max_length=24)
    fine_tune(recipe, folder / "run", progress=False)
    return folder / "run", folder / "t.csv"


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_the_library(name):
    "Alone and in a padded batch, as the library's tokenizer and pipeline have them."
    model, tokenizer = loaded(name)
    tokens = tokenize(DatasetDict(train=rows_of(PAIRS)), tokenizer, 32, pair=True)["train"]
    ours = predict_logits(model, tokens, batch_size=3)
    firsts, seconds = zip(*(text.split("\t") for text in PAIRS))
    asked = tokenizer(list(firsts), list(seconds), truncation=True, max_length=32, padding=True,
                      return_tensors="pt")
    with torch.inference_mode(): theirs = model(**asked).logits
    assert torch.allclose(ours, theirs, atol=1e-5)
    both = [{"text": a, "text_pair": b} for a, b in zip(firsts, seconds)]
    parts = {"model": model, "tokenizer": tokenizer, "top_k": None}
    with quiet(): pipe = pipeline("text-classification", **parts)
    answers = pipe(both, truncation=True, max_length=32, batch_size=2, padding=True)
    recipe = {"task": "text-classification", "max_length": 32, "pair": True}
    for answer, mine in zip(answers, classify_texts(model, tokenizer, recipe, PAIRS, 64)):
        theirs = {own["label"]: own["score"] for own in answer}
        assert theirs == pytest.approx(mine["scores"], abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_separator_and_token_types(name):
    "The tokenizer's own separator stands between the halves, and its token types go along."
    model, tokenizer = loaded(name)
    rows = tokenize(DatasetDict(train=rows_of(PAIRS)), tokenizer, pair=True)["train"]
    separator = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else (
        tokenizer.eos_token_id)
    types = "token_type_ids" in tokenizer.model_input_names
    assert ("token_type_ids" in rows.column_names) == types == (name == "minilm")
    for row, text in zip(rows, PAIRS):
        first, second = text.split("\t")
        assert row["input_ids"] == tokenizer(first, second)["input_ids"]
        assert row["input_ids"].count(separator) == 2
        assert row["input_ids"] != tokenizer(text)["input_ids"]
    batch = make_batch(model, list(rows))
    assert ("token_type_ids" in batch) == types
    if types: assert batch["token_type_ids"].sum(-1).tolist() == [
        sum(row["token_type_ids"]) for row in rows]
    parts = [torch.cat([batch_logits(model, make_batch(model, [row])) for row in rows])]
    assert torch.allclose(batch_logits(model, batch), parts[0], atol=1e-5)


def test_padding_on_either_side_keeps_types_with_their_tokens():
    "A type belongs to a token, wherever the padding is."
    rows = [{"input_ids": [5, 6, 7], "token_type_ids": [0, 1, 1]},
            {"input_ids": [8], "token_type_ids": [1]}]
    right, left = (pad_batch(rows, 0, side) for side in ("right", "left"))
    assert right["token_type_ids"].tolist() == [[0, 1, 1], [1, 0, 0]]
    assert left["token_type_ids"].tolist() == [[0, 1, 1], [0, 0, 1]]
    assert "token_type_ids" not in pad_batch([{"input_ids": [5]}], 0)


def test_a_long_first_text_does_not_push_out_the_second():
    "The longer of the two is cut, and a note says so."
    _, tokenizer = load("tiny-bert", labels=LABELS)
    texts = ["so slow " * 300 + "\tIt is dry.", "It is dry.\t" + "so slow " * 300]
    with held_notes() as notes:
        rows = tokenize(DatasetDict(train=rows_of(texts)), tokenizer, 32, pair=True)["train"]
    short = tokenizer("It is dry.", add_special_tokens=False)["input_ids"]
    for ids in rows["input_ids"]:
        assert len(ids) == 32
        assert any(ids[i:i + len(short)] == short for i in range(32))
    assert len(notes) == 1 and "2 of 2 texts are longer than 32 tokens and are cut" in notes[0]
    with pytest.raises(InputError, match="max_length 4 – has no room for two texts – give 5"):
        encode(texts, tokenizer, 4, pair=True)
    assert len(encode(texts, tokenizer, 5, pair=True)["input_ids"][0]) == 5


def test_tabs_within_a_half(tmp_path):
    "They become spaces, so that one tab is left."
    with held_notes():
        rows = read_table(write_table(tmp_path / "t.csv"), label="y", pair=True)
    assert all(text.count("\t") == 1 for text in rows["text"]) and "So " in rows[1]["text"]
    with held_notes():
        joined = read_table(tmp_path / "t.csv", "premise,hypothesis", "y")
    assert joined[0]["text"] == rows[0]["text"].replace("\t", "\n")


def test_usual_names_of_two_columns():
    "Data sets of pairs have a handful of usual names."
    for names in (["question1", "question2"], ["Sentence2", "Sentence1"], ["text_a", "text_b"]):
        texts, _ = find_columns(["id", *names, "label"], None, None, "a.csv", pair=True)
        assert texts == sorted(names)
    with pytest.raises(InputError, match="a.csv – pair=True needs two text columns.*'text'.*pass"):
        find_columns(["text", "label"], None, None, "a.csv", pair=True)


@pytest.mark.parametrize("wrong", [
    {"text": "premise"}, {"text": "a,b,c"}, {"text": "a,a"}, {"task": "token-classification"},
    {"task": "question-answering", "text": "a,b"}])
def test_refused_recipes(wrong):
    "Before anything is read."
    with pytest.raises(InputError, match="pair"): Recipe(pair=True, **wrong)


@pytest.mark.parametrize("text", ["no tab", "two\ttabs\there", "\tx", "x\t ", "x\t"])
def test_refused_texts(text, run):
    "A pair is two texts with one tab between them."
    with pytest.raises(InputError, match="text 2 – is no pair of texts.*one tab"):
        check_texts(["a\tb", text], pair=True)
    with pytest.raises(InputError, match="text 2 – is no pair of texts"): halves(["a\tb", text])
    with pytest.raises(InputError, match="text 2 – is no pair of texts"):
        predict(run[0], ["a\tb", text])


def test_the_recipe_says_it(run):
    "The run folder records the pair, and the model card calls the tokenizer with two texts."
    folder, _ = run
    assert read_recipe(folder)["pair"] is True
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "a pair of texts" in card and "with a tab" in card
    code = card.split("```python\n")[1].split("```")[0]
    assert '["the first text"],' in code and '["the second text"],' in code
    before = os.getcwd()
    os.chdir(folder)
    try: exec(code, {})
    finally: os.chdir(before)
    assert known_splits(read_recipe(folder)) is not None


def test_all_ways_give_the_same_answers(run, tmp_path):
    "Texts, a table, standard input and the server."
    folder, table = run
    with held_notes(): rows = read_table(table, label="y", pair=True)
    texts = rows["text"][:]
    answers = predict(folder, texts)
    found, without = predict_table(folder, str(table))
    assert found["predicted_label"].tolist() == [answer["label"] for answer in answers]
    assert not without and RunModel(folder, "run").answer(texts) == answers
    done = run_course("predict", folder, "-", input="\n".join(texts[:5]) + "\n")
    assert [json.loads(line) for line in done.stdout.splitlines()] == answers[:5]
    done = run_course("predict", folder, "only one text")
    assert done.returncode == 2 and "one tab between them" in done.stderr
    (tmp_path / "half.csv").write_text("premise,hypothesis\nA man.,Nobody.\nA dog.,\n")
    found, without = predict_table(folder, str(tmp_path / "half.csv"))
    assert len(without) == 1 and found["predicted_label"].isna().tolist() == [False, True]


def test_scores(run):
    "Evaluated on its own table: the same rows, their slices, and baselines that saw the pairs."
    folder, table = run
    with held_notes(): found = evaluate(folder, str(table))
    right = [answer["label"] for answer in predict(folder, read_pairs(table))]
    accuracy = sum(a == LABELS[i % 2] for i, a in enumerate(right)) / len(right)
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert {*found["slices"]} == {"with a tab", "without"} and found["trained_on"] > 30


def read_pairs(table):
    "The pairs of a table as texts."
    with held_notes(): return read_table(table, label="y", pair=True)["text"][:]


def test_with_and_without_can_be_compared(run, tmp_path):
    "Each run reads the rows in its own way."
    folder, table = run
    recipe = Recipe(data=table, text="premise,hypothesis", label="y", model="tiny-bert", epochs=1,
                    max_length=24)
    fine_tune(recipe, tmp_path / "joined", progress=False)
    with held_notes():
        found = compare(folder, tmp_path / "joined", str(table))
        alone = evaluate(tmp_path / "joined", str(table))
        turned = compare(tmp_path / "joined", folder, str(table))
    assert found["second"] == turned["first"]
    assert found["second"]["accuracy"] == alone["metrics"]["accuracy"]
    assert found["trained_on"] == turned["trained_on"][::-1]


def test_what_cannot_read_pairs_says_so(run, tmp_path):
    "An exported file or page would read the pair as one text."
    folder, _ = run
    for kind in ("onnx", "onnx-int8", "gguf", "ctranslate2"):
        with pytest.raises(InputError, match="reads pairs of texts"):
            export(folder, tmp_path / kind, kind)
    with pytest.raises(InputError, match="reads pairs of texts"):
        write_page(folder, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_served(run):
    "The server shows an example with two texts, and a box for each."
    model = RunModel(run[0], "run")
    assert example_of(model).count("\t") == 1
    page = trial_page("run", model.task, example_of(model), False)
    assert "First text" in page and "Second text" in page and 'id="context"' in page
    firsts, seconds = zip(*(text.split("\t") for text in PAIRS))
    wanted = [len(ids) for ids in model.tokenizer(list(firsts), list(seconds))["input_ids"]]
    assert model.count_tokens(PAIRS) == wanted
    with pytest.raises(InputError, match="one tab"): model.answer(["no tab"])


def test_watched(run, tmp_path):
    "New pairs are read from both columns, or from lines with a tab."
    folder, _ = run
    large = tmp_path / "large.csv"
    recipe = Recipe(data=write_table(large, 240), pair=True, label="y", model="tiny-gpt2", epochs=1,
                    max_length=16)
    fine_tune(recipe, tmp_path / "run", progress=False)
    with held_notes(): found = watch_file(tmp_path / "run", str(large))
    (tmp_path / "new.txt").write_text("\n".join(read_pairs(large)) + "\n", encoding="utf-8")
    with held_notes(): again = watch_file(tmp_path / "run", str(tmp_path / "new.txt"))
    assert found.loc["length", "n"] == 240 and found["statistic"].equals(again["statistic"])


def test_harmless_changes_keep_the_tab():
    "The tests of a version of the registry change texts, and pairs stay pairs."
    rng = random.Random(0)
    for change, _ in CHANGES.values():
        for text in PAIRS:
            for one in change(text, rng) or (): check_texts([one], pair=True)


def test_loading_gives_back_the_pair(run):
    "A run that is loaded knows how its texts are read."
    assert load_run(run[0])[2]["pair"] is True


def write_documents(path, n=60):
    "Texts of 5 to 60 words with a label; a word of the label stands somewhere in each."
    rng = random.Random(1)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for i in range(n):
            words = rng.choices("the old man of sea has seen many ships pass by".split(), k=5 + i)
            words.insert(rng.randrange(len(words)), ("dull", "fine")[i % 2])
            table.writerow([f"{i} {' '.join(words)}", LABELS[i % 2]])
    return path


@pytest.fixture(scope="module")
def windows_run(tmp_path_factory):
    "A run on long texts in windows, the notes that it made, and its table."
    folder = tmp_path_factory.mktemp("windows")
    recipe = Recipe(data=write_documents(folder / "d.csv"), stride=4, max_length=16, epochs=2)
    with held_notes() as notes: fine_tune(recipe, folder / "run", progress=False)
    return folder / "run", folder / "d.csv", notes


LONG = [" ".join(f"word{i} and" for i in range(n)) for n in (1, 3, 8, 20, 50)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("stride", [0, 1, 5, 11])
def test_no_token_is_lost(name, stride):
    "Windows without what they share with the one before are the whole text."
    _, tokenizer = loaded(name)
    rows = tokenize(DatasetDict(train=rows_of(LONG)), tokenizer, 16, stride=stride)["train"]
    before = tokenizer("a")["input_ids"].index(tokenizer("a", add_special_tokens=False)[
        "input_ids"][0])
    after = tokenizer.num_special_tokens_to_add() - before
    for i, text in enumerate(LONG):
        own = [ids for ids, row in zip(rows["input_ids"], rows["row"]) if row == i]
        bodies = [ids[before:len(ids) - after] for ids in own]
        joined = [*bodies[0], *(token for body in bodies[1:] for token in body[stride:])]
        assert joined == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert all(len(ids) <= 16 for ids in own) and all(len(ids) == 16 for ids in own[:-1])
        labels = {label for label, row in zip(rows["labels"], rows["row"]) if row == i}
        assert labels == {i % 2}
    assert rows["row"][:] == sorted(rows["row"])


@pytest.mark.parametrize("name", MODELS)
def test_short_texts_stay_as_they_are(name):
    "The same ids, the same batches, the same logits to the last bit."
    model, tokenizer = loaded(name)
    splits = DatasetDict(train=rows_of(PAIRS))
    with held_notes() as notes:
        plain, windows = (tokenize(splits, tokenizer, 64, stride=s)["train"] for s in (None, 8))
    assert not notes
    assert plain["input_ids"][:] == windows["input_ids"][:]
    assert plain["labels"][:] == windows["labels"][:] and windows["row"][:] == list(range(5))
    assert torch.equal(predict_logits(model, plain), text_logits(model, windows))
    assert torch.equal(text_labels(plain), text_labels(windows))


def test_a_text_has_the_mean_of_its_windows():
    "By hand, and whichever rows of a split are looked at."
    model, tokenizer = load("tiny-bert", labels=LABELS)
    rows = tokenize(DatasetDict(train=rows_of(LONG)), tokenizer, 16, stride=4)["train"]
    logits, labels = predict_classes(model, rows)
    assert logits.shape == (5, 2) and labels.tolist() == [i % 2 for i in range(5)]
    for i, text in enumerate(LONG):
        asked = tokenizer(text, truncation=True, max_length=16, stride=4, padding=True,
                          return_overflowing_tokens=True, return_tensors="pt")
        asked.pop("overflow_to_sample_mapping")
        with torch.inference_mode(): by_hand = model(**asked).logits.mean(0)
        assert torch.allclose(by_hand, logits[i], atol=1e-5)
    last = [i for i, row in enumerate(rows["row"]) if row in (2, 4)]
    some, own = predict_classes(model, rows.select(last))
    assert torch.allclose(some, logits[[2, 4]], atol=1e-5) and own.tolist() == [0, 0]


def test_lengths_and_the_note():
    "The note says how many windows there are, and doesn't speak of texts that are cut."
    _, tokenizer = load("tiny-gpt2", labels=LABELS)
    columns = encode(LONG, tokenizer, 16, stride=4)
    wanted = [min(16, len(ids)) for ids in tokenizer(LONG)["input_ids"]]
    assert first_lengths(columns) == wanted
    with held_notes() as notes: tokenize(DatasetDict(train=rows_of(LONG)), tokenizer, 16, stride=4)
    long, windows = sum(n == 16 for n in wanted), len(columns["row"])
    assert notes == [f"{long} of 5 texts are longer than 16 tokens and are read in windows: the "
                     f"texts became {windows} windows"]


@pytest.mark.parametrize("settings", [
    {"stride": 4, "pair": True}, {"stride": 4, "task": "question-answering"},
    {"stride": 0, "task": "token-classification"}, {"stride": -1}, {"stride": 1.5}])
def test_refused_strides(settings):
    "Another task, pairs, and what is no number of tokens."
    with pytest.raises(InputError, match="stride"): Recipe(**settings)


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-bert"])
def test_a_stride_has_to_fit(name, tmp_path):
    "It must be less than what stands between the special tokens; nothing is written otherwise."
    _, tokenizer = load(name, labels=LABELS)
    room = 16 - tokenizer.num_special_tokens_to_add()
    encode(LONG, tokenizer, 16, stride=room - 1)
    for stride in (room, 16, 500):
        with pytest.raises(InputError, match=f"stride {stride} – is too much: .* {room} tokens"):
            encode(LONG, tokenizer, 16, stride=stride)
    table = write_documents(tmp_path / "d.csv")
    done = run_course("fine-tune", "--data", table, "--model", name, "--max-length", 16,
                      "--stride", room, "--out", tmp_path / "run")
    assert done.returncode == 2 and f"--stride {room} – is too much" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_in_windows(windows_run, tmp_path):
    "Training, validation, test, evaluate and predict: a text has one answer."
    folder, table, notes = windows_run
    assert any("became" in text for text in notes) and not any("are cut" in text for text in notes)
    recipe = read_recipe(folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert recipe["stride"] == 4 and metrics["n"] == recipe["rows"]["test"]
    splits = known_splits(recipe)
    model, tokenizer, _ = load_run(folder)
    for part in ("test", "validation"):
        answers = predict(folder, splits[part]["text"][:])
        labels = [LABELS[i] for i in splits[part]["label"]]
        accuracy = sum(a["label"] == l for a, l in zip(answers, labels)) / len(labels)
        if part == "test": assert metrics["metrics"]["accuracy"]["value"] == accuracy
        own = tokenize(DatasetDict(rows=splits[part]), tokenizer, 16, stride=4)["rows"]
        logits, wanted = predict_classes(model, own)
        assert (logits.argmax(-1) == wanted).float().mean().item() == pytest.approx(accuracy)
        for answer, line in zip(answers, logits.softmax(-1).tolist()):
            assert [answer["scores"][name] for name in LABELS] == pytest.approx(line, abs=2e-6)
    with held_notes(): found = evaluate(folder, str(table))
    assert found["n"] == 60 and found["trained_on"] == recipe["rows"]["train"]
    history = (folder / "history.csv").read_text().splitlines()
    assert sum(",validation," in line for line in history) == 2


def test_the_history_has_the_accuracy_of_texts(windows_run):
    "That of the kept epoch is the accuracy of the finished model on the validation texts."
    folder, _, _ = windows_run
    recipe = read_recipe(folder)
    with open(folder / "history.csv", encoding="utf-8") as file: lines = [*csv.DictReader(file)]
    step = str(recipe["kept"]["step"])
    kept = next(row for row in lines if row["split"] == "validation" and row["step"] == step)
    part = known_splits(recipe)["validation"]
    answers = [answer["label"] for answer in predict(folder, part["text"][:])]
    right = sum(a == LABELS[i] for a, i in zip(answers, part["label"]))
    assert float(kept["accuracy"]) == pytest.approx(right / len(part))


def test_the_card_of_windows(windows_run):
    "Its code gives the answer of the run."
    folder, _, _ = windows_run
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0].replace('"a text"', repr(LONG[3]))
    before, scope = os.getcwd(), {}
    os.chdir(folder)
    try: exec(code, scope)
    finally: os.chdir(before)
    probabilities = dict(zip(LABELS, scope["logits"].softmax(-1).tolist()))
    assert probabilities == pytest.approx(predict(folder, [LONG[3]])[0]["scores"], abs=1e-5)


def test_windows_elsewhere(windows_run, tmp_path):
    "The server reads them and refuses no length; an exported form would cut, and is refused."
    folder, _, _ = windows_run
    model = RunModel(folder, "run")
    assert model.max_tokens is None and model.answer(LONG) == predict(folder, LONG)
    with pytest.raises(InputError, match="reads long texts in windows"):
        export(folder, tmp_path / "onnx", "onnx")
    with pytest.raises(InputError, match="reads long texts in windows"):
        write_page(folder, tmp_path / "page.html")
