"""Chapter 8: what it says of Trainer, tried on other settings than its own.

The chapter makes no module, so its definitions are read out of the notebook.
"""
import ast
import copy
import inspect
import json
import re

import datasets
import numpy as np
import pytest
import torch
import transformers
from conftest import ROOT, run_course
from sklearn.metrics import accuracy_score, f1_score
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from course_lib.data import load_data
from course_lib.errors import InputError
from course_lib.evaluation import wilson_interval
from course_lib.models import load
from course_lib.tokens import pad_batch, tokenize
from course_lib.training import predict_logits


def definitions(chapter: str) -> dict:
    "What a notebook imports and defines at its top level, with its constants; no more is run."
    space, kept = {}, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    for cell in json.loads((ROOT / f"nbs/{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code": continue
        tree = ast.parse("".join(cell["source"]))
        tree.body = [n for n in tree.body if isinstance(n, kept) or is_constant(n)]
        exec(compile(tree, chapter, "exec"), space)
    return space


def is_constant(node: ast.stmt) -> bool:
    "Whether a name in capitals is given a value."
    if not isinstance(node, ast.Assign): return False
    return isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper()


CHAPTER = definitions("08_trainer")
SETTINGS = inspect.signature(TrainingArguments).parameters


@pytest.fixture(scope="module", autouse=True)
def quiet():
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    datasets.enable_progress_bars()
    transformers.utils.logging.enable_progress_bar()


@pytest.fixture(scope="module")
def news():
    "Splits, a model without dropout, one with it, the tokenizer, 24 tokens of each item."
    splits = load_data("news", text="headline,lead")
    names = splits["train"].features["label"].names
    model, tokenizer = load("tiny-gpt2", labels=names)
    still, _ = load("tiny-gpt2", labels=names, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    return splits, still, model, tokenizer, tokenize(splits, tokenizer, 24)


# Names: a new version of transformers that brings one back, or drops another, is noticed here

@pytest.mark.parametrize("name", CHAPTER["OLD"])
def test_names_that_tutorials_still_print_are_gone(name, tmp_path):
    assert name not in SETTINGS
    old = {name: CHAPTER["OLD"][name][0]}
    assert name in CHAPTER["said"](lambda: TrainingArguments(str(tmp_path), **old))


@pytest.mark.parametrize("path", sorted((ROOT / "nbs").glob("*.ipynb")), ids=lambda p: p.stem)
def test_names_in_the_chapters_are_those_of_today(path):
    """Every keyword that a chapter gives to TrainingArguments or Trainer, where it doesn't show
    that one is gone."""
    known = {"TrainingArguments": SETTINGS, "Trainer": inspect.signature(Trainer).parameters}
    used = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = re.sub(r"(?m)^\s*[!%].*$", "", "".join(cell["source"]))
        if cell["cell_type"] != "code" or ("said(" in source and "complaint" in source): continue
        calls = [
            n
            for n in ast.walk(ast.parse(source))
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in known
        ]
        used += [(n.func.id, k.arg) for n in calls for k in n.keywords if k.arg]
    assert [(call, k) for call, k in used if k not in known[call]] == []
    assert used or path.stem != "08_trainer"


def test_settings_of_the_chapter_exist():
    named = """
        eval_strategy eval_steps save_steps save_total_limit load_best_model_at_end
        metric_for_best_model greater_is_better per_device_eval_batch_size
        gradient_accumulation_steps lr_scheduler_type max_grad_norm logging_nan_inf_filter
        train_sampling_strategy logging_steps seed
    """.split()
    assert {*CHAPTER["QUIET"], *CHAPTER["NAMES"].values(), *named} <= set(SETTINGS)
    ours = inspect.signature(CHAPTER["fit"]).parameters
    assert set(CHAPTER["NAMES"]) <= set(ours)
    parameters = set(inspect.signature(Trainer).parameters)
    named = "processing_class compute_metrics compute_loss_func callbacks data_collator".split()
    assert set(named) <= parameters and "tokenizer" not in parameters


@pytest.mark.parametrize(
    "line", ["from transformers import AdamW", "from datasets import load_metric"]
)
def test_what_was_imported_once_is_gone(line):
    with pytest.raises(ImportError): exec(line)


# Features and metrics

@pytest.mark.parametrize("limit", [4, 24, 128])
def test_three_ways_to_the_same_features(news, limit):
    splits, _, _, tokenizer, _ = news
    part = splits["validation"].select(range(30))
    strange = {
        "text": ["a", "ÄÖ 漢字 🎈\nx", " \t spaces  ", "word " * 300],
        "label": [0, 1, 2, 0],
    }
    strange = datasets.Dataset.from_dict(strange, features=part.features)
    odd = datasets.concatenate_datasets([part, strange])
    rows = CHAPTER["News"](odd, tokenizer, limit)
    mapped = CHAPTER["encode"](odd, tokenizer, limit)
    ours = tokenize({"x": odd}, tokenizer, limit)["x"]
    assert len(rows) == len(odd)
    for i in range(len(odd)):
        assert rows[i]["input_ids"] == mapped[i]["input_ids"] == ours[i]["input_ids"]
        assert rows[i]["labels"] == odd[i]["label"] == ours[i]["labels"]
        assert 0 < len(rows[i]["input_ids"]) <= limit
    batch = DataCollatorWithPadding(tokenizer)([rows[i] for i in range(len(rows))])
    mine = pad_batch([ours[i] for i in range(len(ours))], tokenizer.pad_token_id)
    assert set(batch) == set(mine)
    for k in mine: assert torch.equal(batch[k], mine[k])


@pytest.mark.parametrize("seed", range(8))
def test_metrics_equal_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(1, 200)), int(rng.integers(2, 6))
    logits, labels = rng.normal(size=(n, classes)), rng.integers(0, classes, n)
    found = CHAPTER["compute_metrics"](
        transformers.EvalPrediction(predictions=logits, label_ids=labels)
    )
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(-1)))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, logits.argmax(-1), average="macro"))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_evaluation_does_not_depend_on_the_batch_size(news, tmp_path, size):
    _, still, _, tokenizer, tokens = news
    part = tokens["validation"].select(range(40))
    where = dict(validation=part, per_device_eval_batch_size=size)
    found = CHAPTER["quiet_trainer"](still, tokenizer, str(tmp_path), **where).predict(part)
    logits, labels = predict_logits(still, part), torch.tensor(part["labels"][:])
    assert np.abs(found.predictions - logits.numpy()).max() < 1e-5
    assert (found.label_ids == labels.numpy()).all()
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert found.metrics["test_loss"] == pytest.approx(loss, abs=1e-5)


# The same run

def drawn(seed: int) -> tuple:
    "Random settings for both loops, and rows; both round the share of warm-up steps alike."
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(9, 40))
    size = int(rng.integers(2, 9))
    parts = int(rng.integers(1, 4))
    epochs = int(rng.integers(1, 3))
    steps = epochs * -(-rows // (size * parts))
    warmup = float(rng.choice([0, max(0, steps // 2 - 0.3) / steps]))
    return rows, dict(
        epochs=epochs, batch_size=size, gradient_accumulation_steps=parts,
        learning_rate=float(rng.choice([1e-4, 1e-3])), weight_decay=float(rng.choice([0, 0.1])),
        warmup_ratio=warmup, max_grad_norm=float(rng.choice([0.5, 1e6])),
        lr_scheduler_type=str(rng.choice(["linear", "cosine", "constant_with_warmup"])),
    )


@pytest.mark.parametrize("seed", range(8))
def test_trainer_takes_the_steps_of_fit(news, tmp_path, seed):
    _, still, _, tokenizer, tokens = news
    rows, settings = drawn(seed)
    train, folder = tokens["train"].select(range(rows)), str(tmp_path)
    history, log, (ours, theirs) = CHAPTER["both"](
        still, tokenizer, train, folder, CHAPTER["per_row"], **settings
    )
    assert len(history) == len(log)
    assert (history["loss"] - log["loss"]).abs().max() < 1e-4, settings
    assert (history["learning_rate"] - log["learning_rate"]).abs().max() < 1e-12
    assert CHAPTER["distance"](ours, theirs) < 0.005 * CHAPTER["distance"](ours, still)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_is_not_divided_unless_told(news, tmp_path, parts):
    "The day this fails, transformers has mended it (issue 47688), and the chapter has to change."
    _, still, _, tokenizer, tokens = news
    rows = tokens["train"].select(range(32))
    frozen = dict(
        epochs=1, batch_size=4, gradient_accumulation_steps=parts, learning_rate=0.0
    )
    history, log, _ = CHAPTER["both"](still, tokenizer, rows, str(tmp_path), **frozen)
    assert np.allclose(log["loss"] / history["loss"], parts, rtol=1e-4)
    told = copy.deepcopy(still)
    told.accepts_loss_kwargs = False
    history, log, _ = CHAPTER["both"](told, tokenizer, rows, str(tmp_path), **frozen)
    assert np.allclose(log["loss"], history["loss"], rtol=1e-4)


# Cut off, and ended early

@pytest.mark.slow
@pytest.mark.parametrize("cut, parts", [(2, 1), (3, 2)])
def test_resumed_equals_uncut(news, tmp_path, cut, parts):
    _, _, model, tokenizer, tokens = news
    rows, made = tokens["train"].select(range(36)), {}
    for name, callbacks, resume in (
        ("whole", [], None),
        ("cut", [CHAPTER["StopAt"](cut)], None),
        ("resumed", [], tmp_path / f"cut/checkpoint-{cut}"),
    ):
        made[name] = copy.deepcopy(model)
        trainer = CHAPTER["quiet_trainer"](
            made[name], tokenizer, str(tmp_path / name), rows, callbacks=callbacks,
            num_train_epochs=2, gradient_accumulation_steps=parts, learning_rate=1e-3,
            save_strategy="steps", save_steps=1,
        )
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        assert trainer.state.global_step == (cut if name == "cut" else trainer.state.max_steps)
    def same(a, b):
        return all(torch.equal(p, q) for p, q in zip(made[a].parameters(), made[b].parameters()))
    assert same("whole", "resumed") and not same("whole", "cut")


def test_a_run_that_has_gone_wrong_is_ended(news, tmp_path):
    _, still, _, tokenizer, tokens = news
    broken = copy.deepcopy(still)
    broken.score.weight.data[0, 0] = float("nan")
    watch = CHAPTER["Watch"]()
    trainer = CHAPTER["quiet_trainer"](
        broken, tokenizer, str(tmp_path), tokens["train"].select(range(16)), callbacks=[watch],
        max_steps=4,
    )
    trainer.train()
    # the filter is on, and the callback isn't deceived
    assert trainer.state.global_step == 1 and watch.history[0]["loss"] == 0.0


# Real news

def test_names_that_do_not_fit_are_refused(tmp_path):
    rows = [f"{1 + i % 3},title {i} of {i % 7},what happened {i}" for i in range(60)]
    (tmp_path / "train.csv").write_text(
        "label,title,description\n" + "\n".join(rows) + "\n", encoding="utf-8"
    )
    for written, said in (
        ("World\nSports\n", "has 2 names, the rows have 3 labels"),
        ("World\n\nSports\n", "write one name a line"),
        (None, "no such file"),
    ):
        if written is None: (tmp_path / "classes.txt").unlink()
        else: (tmp_path / "classes.txt").write_text(written, encoding="utf-8")
        with pytest.raises(InputError, match=said): CHAPTER["ag_news"](tmp_path)


def test_no_folder_is_said_in_one_line(tmp_path):
    with pytest.raises(InputError, match="no such file"): CHAPTER["ag_news"](tmp_path)


@pytest.mark.slow
def test_real_ag_news(real_data, tmp_path):
    if not (real_data / "ag_news/train.csv").exists():
        pytest.skip("COURSE_REAL_DATA has no ag_news/train.csv")
    splits = CHAPTER["ag_news"](real_data / "ag_news", rows=(320, 60, 150))
    assert splits["train"].features["label"].names == ["World", "Sports", "Business", "Sci/Tech"]
    assert [len(p) for p in splits.values()] == [320, 60, 150]
    trainer = CHAPTER["fine_tune_topics"](splits, str(tmp_path / "run"), num_train_epochs=2)
    found = trainer.predict(CHAPTER["encode"](splits["test"], trainer.processing_class, 64))
    right = int((found.predictions.argmax(-1) == found.label_ids).sum())
    # a quarter would be guessing
    assert wilson_interval(right, 150)[0] > 0.4, f"{right} of 150 right"


@pytest.mark.slow
def test_real_ag_news_on_the_command_line(real_data, tmp_path):
    "The line that stands in the chapter, on the first rows of the file and for one epoch."
    if not (real_data / "ag_news/train.csv").exists():
        pytest.skip("COURSE_REAL_DATA has no ag_news/train.csv")
    cells = json.loads((ROOT / "nbs/08_trainer.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells)
    line = re.search(r'(?m)^course fine-tune --data "\$COURSE.*ag_news.*$', text)[0]
    path = str(real_data / "ag_news/train.csv")
    part = load_data(path, text="title,description", label="label")["validation"].select(range(120))
    rows = []
    for r in part:
        title, description = r["text"].split("\n", 1)
        rows.append({"label": int(r["label"]), "title": title, "description": description})
    datasets.Dataset.from_list(rows).to_csv(tmp_path / "train.csv")
    words = [str(tmp_path / "train.csv") if "$COURSE" in w else w for w in line.split()[1:]]
    words[words.index("--out") + 1] = str(tmp_path / "run")
    done = run_course(*words, "--epochs", 1)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/metrics.json").read_text())["n"] > 10
