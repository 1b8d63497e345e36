"""The run folder asks the task: a second one runs through it by one entry in the table."""
import inspect
import json
from dataclasses import dataclass, fields, make_dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, Value

from course_lib import loading, runs
from course_lib.data import load_data, load_to_audit
from course_lib.errors import InputError, held_notes
from course_lib.pairs import read_pairs
from course_lib.recipe import Recipe, Settings, check_inputs, setting
from course_lib.show import new_figure
from course_lib.squad import read_questions
from course_lib.tables import read_rows
from course_lib.tokens import tokenize
from course_lib.training import Task, batch_logits, predict_logits
from course_lib.turns import read_file

N = 60

@dataclass
class Rated(Recipe):
    "A recipe that knows the second task."
    task: str = setting("rating", choices=("text-classification", "rating"))

def rating_loss(model, batch):
    "How far off a number is, squared."
    return (batch_logits(model, batch).squeeze(-1) - batch["labels"]).square().mean(), {}

def one_number(rows):
    "A head with a single output."
    return {"rating": len(rows)}

def as_they_are(splits, names):
    "There is no order of classes to keep."
    return splits

def with_ratings(splits, tokenizer, max_length):
    "Token ids, and the class as a number."
    tokens = tokenize(splits, tokenizer, max_length)
    return {name: part.cast_column("labels", Value("float32")) for name, part in tokens.items()}

def predict_ratings(model, rows):
    "A number for each row."
    return predict_logits(model, rows).squeeze(-1), torch.tensor(rows["labels"][:])

def distance(predictions, labels):
    "Mean absolute error."
    return (predictions - labels).abs().mean()

def score_ratings(rows, predictions, known, recipe):
    "Mean absolute error of the model, and of always saying the mean."
    labels = np.array(rows["label"][:])
    def error(guess):
        found = float(np.abs(labels - guess).mean())
        return {"distance": {"value": found, "low": found, "high": found}}
    mean = np.mean(known["train"]["label"][:]) if known else 0.5
    return {"n": len(labels), "metrics": error(predictions.numpy()),
            "baselines": {"the_mean": error(mean)}}

def draw_ratings(rows, predictions):
    fig, ax = new_figure()
    ax.scatter(rows["label"][:], predictions)
    return {"reliability": (fig, "Rating against class.")}

def rate_texts(model, tokenizer, recipe, texts, batch_size):
    ids = Dataset.from_dict({"input_ids": tokenizer(texts)["input_ids"]})
    numbers = predict_logits(model, ids, batch_size).squeeze(-1).tolist()
    return [{"text": t, "rating": number} for t, number in zip(texts, numbers)]

def compare_ratings(rows, predictions, names):
    gap = (predictions[0] - predictions[1]).abs().max().item()
    return {"gap": gap, "verdict": "the same" if gap == 0 else "not the same"}

def ratings(model, tokenizer, rows, features):
    return predict_ratings(model, features)[0]

def nearer(metrics): return "Nearer is better."

def describe_ratings(recipe, metrics):
    return {"does": "Gives a text a number.", "use": "Ask it."}

RATING = runs.RunTask(
    Task("rating", rating_loss, predict=predict_ratings), read=runs.read_splits,
    read_more=lambda recipe, data, names: runs.read_labelled(recipe, data, ["bad", "good"]),
    classes=one_number, match=as_they_are, features=with_ratings, metrics={"distance": distance},
    predict=ratings, score=score_ratings, compare=compare_ratings, figures=draw_ratings,
    answer=rate_texts, verdict=nearer, card=describe_ratings)

@pytest.fixture
def table(tmp_path):
    rows = [{"text": f"{word} film number {i}", "label": label}
            for i in range(N // 2) for word, label in (("dull", "bad"), ("bright", "good"))]
    pd.DataFrame(rows).to_csv(tmp_path / "films.csv", index=False)
    return str(tmp_path / "films.csv")

@pytest.fixture
def rating(monkeypatch):
    "The second task, in the table of the run folder and in that of the heads."
    head = loading.TASKS["text-classification"]
    monkeypatch.setitem(runs.TASKS, "rating", RATING)
    monkeypatch.setitem(loading.TASKS, "rating", head)

def test_another_task_is_one_entry(table, rating, tmp_path):
    out = tmp_path / "run"
    settings = {"data": table, "epochs": 2, "metric_for_best_model": "loss"}
    metrics = runs.fine_tune(Rated(**settings), out, progress=False)
    assert set(metrics["metrics"]) == {"distance"} and set(metrics["baselines"]) == {"the_mean"}
    history = pd.read_csv(out / "history.csv")
    assert history["distance"].notna().sum() == 2
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["classes"] == {"rating": 44} and recipe["task"] == "rating"
    card = (out / "README.md").read_text()
    assert "Gives a text a number." in card and "![Rating against class.](reliability.png)" in card
    assert "Nearer is better." in card and not (out / "roc.png").exists()

    again = runs.evaluate(out, table)
    assert again["n"] == N and again["trained_on"] == 44 and again["split"] == "films.csv"
    (answer,) = runs.predict(out, ["a bright film"])
    assert set(answer) == {"text", "rating"} and isinstance(answer["rating"], float)
    assert runs.compare(out, out, table)["verdict"] == "the same"
    assert runs.fine_tune(Rated(**settings), out, resume=True) == metrics

def test_the_kept_weights_are_recorded(table, tmp_path):
    best, last = tmp_path / "best", tmp_path / "last"
    settings = {"data": table, "epochs": 3, "learning_rate": 1e-3}
    runs.fine_tune(Recipe(metric_for_best_model="accuracy", **settings), best, progress=False)
    runs.fine_tune(Recipe(load_best_model_at_end=False, **settings), last, progress=False)
    history = pd.read_csv(best / "history.csv").query("split == 'validation'")
    found = json.loads((best / "recipe.json").read_text())["kept"]
    first_best = history.loc[history["accuracy"].idxmax()]
    assert found == {"epoch": first_best["epoch"], "step": first_best["step"], "by": "accuracy"}
    said = f"the weights of epoch {found['epoch']}, the best validation by accuracy, were kept"
    assert said in (best / "README.md").read_text()
    found = json.loads((last / "recipe.json").read_text())["kept"]
    assert found["epoch"] == 3 and found["by"] is None
    assert "the weights of epoch 3, the last one, were kept" in (last / "README.md").read_text()

IGNORED = [(task, name) for task, names in {
    "token-classification": ("delimiter", "header", "class_weight"),
    "question-answering": ("labels", "class_weight"), "summarization": ("labels", "class_weight"),
    "translation": ("labels",), "text-generation": ("label", "labels", "class_weight")}.items()
    for name in names]

@pytest.mark.parametrize("task, name", IGNORED)
def test_a_setting_that_a_task_would_ignore_is_refused(task, name, tmp_path):
    value = {"labels": ["a", "b"], "class_weight": "balanced", "delimiter": ";"}.get(name, "word")
    with pytest.raises(InputError, match=f"^{name} – has no use in {task} – leave it out$"):
        runs.fine_tune(Recipe(task=task, data="reviews", **{name: value}), tmp_path / "run")
    assert not (tmp_path / "run").exists()

def test_so_it_is_where_rows_are_scored():
    recipe = {"task": "token-classification", "text": None, "label": None}
    with pytest.raises(InputError, match="^header – has no use in token-classification"):
        runs.rows_to_score(recipe, "entities.conll", [], None, None, None, None, "word,tag")

def test_files_without_columns(tmp_path):
    (tmp_path / "a.en").write_text("one\ntwo\n")
    (tmp_path / "a.de").write_text("eins\nzwei\n")
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "f.csv").write_text("__label__x one\n__label__y two\n")
    (tmp_path / "q.json").write_text('{"data": []}')
    assert len(read_pairs(tmp_path / "a.en", label="de")) == 2
    for read, file in ((read_pairs, "a.en"), (read_file, "a.txt"), (read_rows, "f.csv"),
                       (read_questions, "q.json")):
        for form in ({"header": "a,b"}, {"delimiter": ";"}):
            with pytest.raises(InputError, match=f"{file} has no columns – leave it out"):
                read(tmp_path / file, **form)

@pytest.mark.parametrize("rows, slices", [
    ([{"slice": "hard"}, {}], ["hard", "none"]), ([{}, {"slice": "hard"}], ["none", "hard"]),
    ([{"slice": None}, {"slice": "hard"}], ["none", "hard"]), ([{}, {}], None),
    ([{"slice": "a", "answer": "accept"}, {"slice": "b", "answer": "accept"},
      {"slice": "c", "answer": "reject", "text": None}], ["a", "b"])])
def test_slices_of_all_kinds_of_files(rows, slices, tmp_path):
    table = [{"text": f"film {i}", "label": "xyx"[i], **row} for i, row in enumerate(rows)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, table)))
    recipe = dict.fromkeys(("text", "label", "encoding", "delimiter", "header"))
    _, read = runs.read_labelled(recipe, str(path), None)
    with held_notes() as notes:
        found = runs.with_slices(read, {**recipe, "task": "text-classification"}, str(path))
    assert not notes and found["text"][:] == ["film 0", "film 1"]
    if slices: assert found["slice"][:] == slices
    else: assert found is read

def test_every_field_of_the_recipe_is_an_option():
    from course_lib import cli
    options = inspect.signature(cli.fine_tune).parameters
    assert {f.name for f in fields(Recipe)} <= set(options)
    for f in fields(Recipe):
        if f.name != "data": assert options[f.name].default == f.default, f.name

def test_a_new_field_is_an_option(monkeypatch):
    import typer
    from course_lib import cli
    from typer.testing import CliRunner
    new = ("label_smoothing", float, setting(0.1, 0, 1, "share of the target for the others"))
    monkeypatch.setattr(cli, "Recipe", make_dataclass("Wider", [new], bases=(Recipe,)))
    app, got = typer.Typer(), {}

    @app.command()
    @cli.takes_recipe
    def train(data: str, **settings): got.update(settings)

    helped = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert "--label-smoothing" in helped.output and "Share of the target" in helped.output
    done = CliRunner().invoke(app, ["reviews", "--label-smoothing", "0.2", "--no-bf16"])
    assert done.exit_code == 0 and got["label_smoothing"] == 0.2 and got["bf16"] is False
    assert got["epochs"] == Settings.epochs and got["learning_rate"] is None

@pytest.mark.parametrize("option, value", [
    ("encoding", "cp1252"), ("delimiter", ";"), ("header", "text,label")])
def test_options_of_files_are_refused_for_hub_data(option, value, tmp_path):
    name, given = "someone/films", {option: value}
    message = f"{option} '{value}' – {name} comes from the hub – leave it out"
    with pytest.raises(InputError, match=message): load_data(name, **given)
    with pytest.raises(InputError, match=message): load_to_audit(name, **given)
    with pytest.raises(InputError, match=message): check_inputs(Recipe(data=name, **given))
    recipe = {**vars(Recipe()), "classes": ["neg", "pos"]}
    form = {"encoding": None, "delimiter": None, "header": None, **given}
    with pytest.raises(InputError, match=message):
        runs.rows_to_score(recipe, name, ["neg", "pos"], None, None, **form)

def test_a_file_among_hub_data_uses_the_options(tmp_path):
    table = tmp_path / "more.csv"
    table.write_text("text;label\nGood;pos\nBad;neg\n")
    check_inputs(Recipe(data="someone/films", test=str(table), delimiter=";"))

@pytest.mark.parametrize("file, option", [("a.jsonl", "delimiter"), ("a.jsonl", "header"),
    ("a.parquet", "delimiter"), ("a.parquet", "header"), ("a.parquet", "encoding")])
def test_options_that_a_file_has_no_use_for(file, option, tmp_path):
    path, table = tmp_path / file, pd.DataFrame({"text": ["Good", "Bad"], "label": ["x", "y"]})
    if file == "a.jsonl": table.to_json(path, orient="records", lines=True)
    else: table.to_parquet(path)
    assert len(read_rows(path)) == 2
    with pytest.raises(InputError, match=f"{option} .* – {path} .* – leave it out"):
        read_rows(path, **{option: "utf-8" if option == "encoding" else ";"})
