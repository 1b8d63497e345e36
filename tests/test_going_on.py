"""Going on with a model that was fine-tuned: a run by its folder, its head kept or new."""
import csv
import json
import shutil

import pytest
import torch
from conftest import run_course
from safetensors.torch import load_file

from course_lib.errors import InputError, held_notes
from course_lib.loading import find_model, quiet
from course_lib.models import load
from course_lib.recipe import LEARNING_RATES, Recipe, first_model, model_folder
from course_lib.runs import fine_tune, load_run, predict

LABELS = ["no", "yes"]
TEXTS = ["A joy from the first frame to the last.", "Dull.", "We left after an hour of it."]


def write_table(path, labels, n=60):
    "Texts with as many different labels."
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for i in range(n):
            name = labels[i % len(labels)]
            table.writerow([f"number {i} of the {name} kind", name])
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    "A short run, and a table for a second one, with the same labels in another order of rows."
    folder = tmp_path_factory.mktemp("first")
    recipe = Recipe(data=write_table(folder / "t.csv", LABELS), epochs=1, max_length=16, seed=3)
    with held_notes() as notes: fine_tune(recipe, folder / "run", progress=False)
    assert not any("trained head" in text for text in notes)
    write_table(folder / "more.csv", LABELS[::-1])
    write_table(folder / "other.csv", ["dull", "fine", "great"])
    return folder


def goes_on(first, table, out, **settings):
    "A second run from the first one, without a step that moves anything: its rate is 0."
    recipe = Recipe(data=first / table, model=str(first / "run"), epochs=1, max_length=16,
                    learning_rate=0.0, **settings)
    with held_notes() as notes: fine_tune(recipe, out, progress=False)
    return recipe, notes


def weights(run):
    "All weights of a run."
    return load_file(run / "model" / "model.safetensors")


def test_a_run_means_its_model(first, monkeypatch):
    "By its folder or by that of the model, absolute or not, in a recipe and for `load`."
    run = first / "run"
    assert model_folder(str(run)) == find_model(run) == str(run / "model")
    assert find_model(run / "model") == str(run / "model")
    assert model_folder("gpt2") == "gpt2" and model_folder("tiny-gpt2") == "tiny-gpt2"
    monkeypatch.chdir(first)
    recipes = [Recipe(model=name) for name in ("run", "run/model", str(run), "./run/")]
    assert {recipe.model for recipe in recipes} == {str((run / "model").resolve())}
    one, two = (load(name, labels=LABELS)[0] for name in ("run", "run/model"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))


def test_what_it_was_made_from(first, tmp_path):
    "The learning rate suits the model in the beginning; a circle of runs has no beginning."
    assert first_model(str(first / "run" / "model")) == "tiny-gpt2"
    assert Recipe(model=str(first / "run")).learning_rate == LEARNING_RATES["tiny-gpt2"]
    for a, b in ("ab", "ba"):
        (tmp_path / a / "model").mkdir(parents=True)
        told = {"model": str(tmp_path / b / "model")}
        (tmp_path / a / "recipe.json").write_text(json.dumps(told))
    assert first_model(str(tmp_path / "a" / "model")).endswith("model")
    assert first_model("no/such/model") == "no/such/model"


def test_the_head_is_kept_for_the_same_labels(first, tmp_path):
    "Nothing moves at a rate of 0, so all weights and answers are those of the first run."
    recipe, notes = goes_on(first, "more.csv", tmp_path / "second")
    assert recipe.model == str((first / "run" / "model").resolve())
    assert "the model has a trained head for no, yes, which is trained further" in notes
    before, after = weights(first / "run"), weights(tmp_path / "second")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert predict(tmp_path / "second", TEXTS) == predict(first / "run", TEXTS)
    card = (tmp_path / "second" / "README.md").read_text(encoding="utf-8")
    assert "# run, fine-tuned on more.csv" in card


def test_other_labels_are_refused(first, tmp_path):
    "One line, before anything is written, which says what to do."
    done = run_course("fine-tune", "--data", first / "other.csv", "--model", first / "run",
                      "--out", tmp_path / "second")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "its head was trained for no, yes, the data have dull, fine, great" in done.stderr
    assert "--new-head" in done.stderr and not (tmp_path / "second").exists()


@pytest.mark.parametrize("table, labels", [("other.csv", ["dull", "fine", "great"]),
                                           ("more.csv", LABELS)])
def test_a_new_head_on_the_old_body(first, tmp_path, table, labels):
    "The body is that of the first run; the head is another one, for these labels."
    _, notes = goes_on(first, table, tmp_path / "second", new_head=True)
    assert not any("trained head" in text for text in notes)
    before, after = weights(first / "run"), weights(tmp_path / "second")
    body = [name for name in before if name.startswith("transformer.")]
    assert body and all(torch.equal(before[name], after[name]) for name in body)
    assert after["score.weight"].shape[0] == len(labels)
    if table == "more.csv": assert not torch.equal(before["score.weight"], after["score.weight"])
    model, _, recipe = load_run(tmp_path / "second")
    assert list(model.config.id2label.values()) == labels and recipe["new_head"] is True


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-bert", "tiny-t5"])
def test_new_heads_of_other_families(name, tmp_path):
    "The same seed makes the same head; without a trained head, nothing changes."
    model, tokenizer = load(name, labels=LABELS, seed=1)
    with quiet():
        for part in (model, tokenizer): part.save_pretrained(tmp_path / "saved")
    asked = {"labels": ["a", "b"], "new_head": True}
    one, same, other = (dict(load(tmp_path / "saved", seed=seed, **asked)[0].named_parameters())
                        for seed in (7, 7, 8))
    prefix = model.base_model_prefix + "."
    for key, value in model.named_parameters():
        assert torch.equal(one[key], same[key])
        if key.startswith(prefix): assert torch.equal(value, one[key])
    moved = [key for key in one if not torch.equal(one[key], other[key])]
    assert moved and not any(key.startswith(prefix) for key in moved)
    plain, asked = (load(name, labels=LABELS, new_head=new)[0] for new in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), asked.parameters()))


def test_new_heads_are_for_labels():
    "A model that writes has none."
    with pytest.raises(InputError, match="new_head – is for a task with labels"):
        Recipe(task="text-generation", new_head=True)


@pytest.mark.parametrize("named", ["run", "run/model"])
@pytest.mark.parametrize("how", [["--force"], ["--resume"], []])
def test_the_run_it_came_from_is_not_overwritten(first, named, how):
    "Whatever is asked for."
    before = {path: path.stat().st_mtime_ns for path in (first / "run").rglob("*")}
    done = run_course("fine-tune", "--data", first / "more.csv", "--model", first / named,
                      "--out", first / "run", *how)
    assert done.returncode == 2 and "would be lost" in done.stderr
    done = run_course("fine-tune", "--data", first / "more.csv", "--model", first / named,
                      "--out", first / "run" / "model", *how)
    assert done.returncode == 2
    assert before == {path: path.stat().st_mtime_ns for path in (first / "run").rglob("*")}


def test_nor_through_a_link(first, tmp_path):
    "Another spelling of the same folder."
    (tmp_path / "link").symlink_to(first / "run", target_is_directory=True)
    done = run_course("fine-tune", "--data", first / "more.csv", "--model", first / "run",
                      "--out", tmp_path / "link", "--force")
    assert done.returncode == 2 and "would be lost" in done.stderr


def test_an_unfinished_run(first, tmp_path):
    "It has no model yet."
    shutil.copytree(first / "run", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "model")
    for ask in (find_model, lambda name: Recipe(model=str(name))):
        with pytest.raises(InputError, match="has no model yet"): ask(tmp_path / "cut")
    done = run_course("fine-tune", "--data", first / "more.csv", "--model", tmp_path / "cut",
                      "--out", tmp_path / "second")
    assert done.returncode == 2 and "has no model yet" in done.stderr
    assert not (tmp_path / "second").exists()


def test_other_tasks_and_lora(first, tmp_path):
    "The body can learn another task, and an adapter goes on with a head of the run."
    model, _ = load(first / "run", "question-answering")
    assert type(model).__name__ == "GPT2ForQuestionAnswering"
    pytest.importorskip("peft")
    _, notes = goes_on(first, "more.csv", tmp_path / "second", lora_rank=2)
    assert any("trained further" in text for text in notes)
    card = (tmp_path / "second" / "adapter" / "README.md").read_text(encoding="utf-8")
    assert str((first / "run" / "model").resolve()) in card
    wanted, found = (predict(run, TEXTS) for run in (first / "run", tmp_path / "second"))
    for one, other in zip(wanted, found):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)


def test_a_run_from_before_a_setting_was_there(first, tmp_path):
    "It was made with what is the default now, and resumes."
    shutil.copytree(first / "run", tmp_path / "old")
    path = tmp_path / "old" / "recipe.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    newer = ("pair", "stride", "new_head")
    path.write_text(json.dumps({k: v for k, v in told.items() if k not in newer}))
    asked = {"data": first / "t.csv", "epochs": 1, "max_length": 16, "seed": 3}
    with held_notes():
        found = fine_tune(Recipe(**asked), tmp_path / "old", resume=True, progress=False)
        assert found == json.loads((tmp_path / "old" / "metrics.json").read_text(encoding="utf-8"))
        with pytest.raises(InputError, match="was begun with stride = None, now it is 4"):
            fine_tune(Recipe(**asked, stride=4), tmp_path / "old", resume=True, progress=False)
