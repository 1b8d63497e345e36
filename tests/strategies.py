"""What hypothesis draws for the tests and, for longer, for tests/fuzz.py; and what must then hold.

A check takes a new folder and what was drawn. It may end well or with our one error, InputError (on
the command line: exit code 0, or 2 and one line); anything else is a fault.
"""
import json
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import BytesIO, StringIO
from pathlib import Path

import pandas as pd
import typer
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from course_lib import exercises
from course_lib.cli import app, main
from course_lib.errors import InputError
from course_lib.loading import quiet
from course_lib.models import load
from course_lib.recipe import read_metrics, read_recipe
from course_lib.runs import known_splits
from course_lib.tables import read_table

# Files of tables

def as_bytes(text): return text.encode("utf-8", "surrogatepass")
def as_table(rows): return pd.DataFrame(rows, columns=["text", "label"]).to_csv(index=False)


def as_parquet(columns):
    "Columns of one length as a Parquet file; nothing where Arrow knows no type for them."
    buffer = BytesIO()
    try: pd.DataFrame(columns).to_parquet(buffer)
    except Exception: return b""
    return buffer.getvalue()


ENDINGS = ["csv", "tsv", "json", "jsonl", "parquet"]
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    SCALAR, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=8), x),
    max_leaves=6)

anything = st.binary(max_size=200)
like_a_file = st.text(alphabet='text,label\n\r"\t;[]{}:x1é\0\ud800', max_size=120).map(as_bytes)
cells = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=3)))
whole_tables = cells.map(lambda rows: as_table(rows).encode("utf-8", "replace"))
raw_tables = st.one_of(anything, like_a_file, whole_tables)

names = st.sampled_from(["text", "label", "id", "answer", "annotations", "messages", "accept",
                         "options", "data", "columns", "index"]) | st.text(max_size=4)
json_rows = st.lists(st.dictionaries(names, JSON, max_size=4), max_size=4)
json_tables = (json_rows | st.dictionaries(names, JSON | json_rows, max_size=4)).map(
    lambda found: json.dumps(found).encode())
json_line_tables = json_rows.map(lambda rows: "\n".join(map(json.dumps, rows)).encode())
of_one_kind = st.sampled_from([
    st.text(max_size=6), st.integers(-9, 9), st.floats(), st.booleans(), st.dates(),
    st.datetimes(), st.decimals(allow_nan=False, places=2, min_value=0, max_value=99),
    st.binary(max_size=4), st.lists(st.text(max_size=3), max_size=2), st.none(), st.timedeltas(),
    st.dictionaries(st.sampled_from("ab"), st.integers(0, 9))])
column = of_one_kind.flatmap(lambda kind: st.lists(kind | st.none(), min_size=4, max_size=4))
parquet_tables = st.dictionaries(names, column, max_size=4).map(as_parquet)
FILES = st.tuples(st.sampled_from([*ENDINGS, "txt"]), raw_tables) \
    | st.tuples(st.just("json"), json_tables) | st.tuples(st.just("jsonl"), json_line_tables) \
    | st.tuples(st.just("parquet"), parquet_tables)
options = st.fixed_dictionaries({}, optional={
    "text": st.sampled_from(["text", "label", "id", "text,id", ""]) | st.text(max_size=5),
    "label": st.sampled_from(["label", "text", "answer"]) | st.text(max_size=5),
    "labels": st.lists(st.sampled_from("abx1"), min_size=2, max_size=3, unique=True),
    "encoding": st.sampled_from(["utf-8", "cp1252", "utf-16", "gb18030", "ascii", "hex", "rot13",
                                 "idna", "undefined", "a\0b", ""]) | st.text(max_size=5),
    "delimiter": st.sampled_from([",", ";", "\t", "tab", "\\t", "::", "é"]) | st.text(max_size=1),
    "header": st.sampled_from(["text,label", "label,text", "a,b,c", ",", ""])})


def read_any(folder, file, **given):
    "A file of any content: a data set with texts, or one line about what is wrong."
    ending, raw = file
    path = folder / f"a.{ending}"
    path.write_bytes(raw)
    try: table = read_table(path, **given)
    except InputError as e: assert "\n" not in str(e)
    else:
        assert len(table) and set(table.features) == {"text", "label"}
        assert all(t.strip() for t in table["text"])


# Run folders

FIELDS = st.sampled_from(["task", "classes", "max_length", "data", "seed", "labels", "rows",
                          "fingerprints", "opened", "max_train_samples", "text", "kept"])
RECIPES = st.dictionaries(FIELDS, JSON, min_size=1, max_size=3)
SCORES = st.dictionaries(st.sampled_from(["split", "n", "metrics", "baselines", "slices",
                                          "best_baseline"]), JSON, min_size=1, max_size=3)
GOOD_RECIPE = {"task": "text-classification", "classes": ["neg", "pos"], "max_length": 24}
SCORE = {"value": 0.5, "low": 0.4, "high": 0.6}
GOOD_SCORES = {"split": "test", "n": 9, "metrics": {"accuracy": SCORE},
               "baselines": {"majority": {"accuracy": SCORE}}}


def read_any_recipe(folder, found):
    "A recipe.json with any values in its fields, or of any content."
    (folder / "model").mkdir()
    (folder / "recipe.json").write_bytes(as_content(found, GOOD_RECIPE))
    try: recipe = read_recipe(folder)
    except InputError: return
    known_splits({**recipe, "made_by": "somebody"})


def read_any_scores(folder, found):
    "A metrics.json with any values in its fields, or of any content."
    (folder / "metrics.json").write_bytes(as_content(found, GOOD_SCORES))
    try: read_metrics(folder)
    except InputError as e: assert "metrics.json" in str(e)


def as_content(found, good):
    "Bytes as they are, or the good fields with those that were drawn."
    return found if isinstance(found, bytes) else json.dumps({**good, **found}).encode()


# Models

NUMBER = st.integers(-2, 40)
CONFIGURED = st.sampled_from([
    "model_type", "architectures", "vocab_size", "n_embd", "n_layer", "n_head", "n_positions",
    "pad_token_id", "eos_token_id", "bos_token_id", "activation_function", "id2label", "label2id",
    "num_labels", "problem_type", "dtype", "torch_dtype", "auto_map", "quantization_config",
    "tie_word_embeddings", "layer_norm_epsilon", "resid_pdrop", "rope_scaling"])
SETTING = NUMBER | JSON | st.sampled_from(["gpt2", "bert", "t5", "llama", "float16", "gelu"])
TOKENIZED = st.sampled_from([
    "tokenizer_class", "model_max_length", "pad_token", "eos_token", "unk_token", "padding_side",
    "added_tokens_decoder", "chat_template", "auto_map", "truncation_side", "extra_special_tokens"])
PARTS = st.sampled_from(["version", "model", "normalizer", "pre_tokenizer", "post_processor",
                         "decoder", "added_tokens", "truncation", "padding"])
MODEL_FILES = st.tuples(st.just("config.json"), st.dictionaries(CONFIGURED, SETTING, min_size=1)) \
    | st.tuples(st.just("tokenizer_config.json"), st.dictionaries(TOKENIZED, SETTING, min_size=1)) \
    | st.tuples(st.just("tokenizer.json"), st.dictionaries(PARTS, JSON, min_size=1, max_size=2)) \
    | st.tuples(st.sampled_from(["config.json", "tokenizer_config.json", "tokenizer.json",
                                 "model.safetensors"]), anything)


@cache
def small_model():
    "The files of a small GPT-2, as bytes."
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"small-gpt2-{os.getpid()}"
    with quiet():
        shape = GPT2Config(vocab_size=8192, n_layer=2, n_embd=32, n_head=2)
        GPT2LMHeadModel(shape).save_pretrained(folder)
        load("tiny-gpt2", labels=["neg", "pos"])[1].save_pretrained(folder)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    return found


def load_any_model(folder, file):
    "The folder of a model with a file that was changed."
    name, content = file
    for own, raw in small_model().items(): (folder / own).write_bytes(raw)
    good = {} if isinstance(content, bytes) else json.loads(small_model()[name])
    (folder / name).write_bytes(as_content(content, good))
    try: model, tokenizer = load(str(folder), labels=["neg", "pos"])
    except InputError as e: assert "\n" not in str(e)
    else: assert model.config.num_labels == 2 and len(tokenizer)


# Notebooks that are handed in

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=9)
CELL = st.fixed_dictionaries({}, optional={
    "cell_type": st.sampled_from(["code", "markdown"]) | ANYTHING, "id": st.text() | ANYTHING,
    "source": st.text() | st.lists(st.text()) | ANYTHING,
    "metadata": st.fixed_dictionaries({"course": ANYTHING}) | ANYTHING})
NOTEBOOK = st.fixed_dictionaries({}, optional={
    "cells": st.lists(CELL | ANYTHING, max_size=4) | ANYTHING,
    "metadata": st.fixed_dictionaries({"course": st.fixed_dictionaries({"chapter": ANYTHING})})
    | ANYTHING}) | ANYTHING
SUBMISSION = NOTEBOOK.map(lambda found: json.dumps(found).encode()) | st.binary()


def read_any_submission(folder, data):
    "A file that is handed in, read and not run."
    known = {"small": {"s1", "c1", "9.1"}}
    try: assert exercises.chapter_of(exercises.read_submission(data, "a"), "a", known) == "small"
    except InputError as e: assert str(e).startswith("a – ")


# The command line

TABLE = "text,label\n" + "".join(f"film {i},{'pos' if i % 2 else 'neg'}\n" for i in range(20))
# commands that don't train, listen or measure, each with words that keep it from doing so
QUIET = {"audit": [], "fine-tune": ["--device", "nonsense"], "evaluate": [], "predict": [],
         "compare": [], "export": [], "watch": [], "build": ["novice"], "grade": [],
         "pretrain": ["--family", "none"], "registry list": [], "registry show": [],
         "registry add": [], "registry promote": [], "registry rollback": []}
VALUE = st.sampled_from([
    "a.csv", "b.json", "gone.csv", "run", ".", "/", "", "-", "--", "new.html", "new", "/proc/x",
    "text", "label", "text,label", "a,b", ";", "tab", "utf-8", "cp1252", "utf-16", "0", "1", "-1",
    "2.5", "1e9", "nan", "inf", "cpu", "meta", "x" * 300, "a\0b", "é\u202e", "\ud800", "m@1", "m"
]) | st.text(max_size=6)


def parameters(name): # of a command: flags of its options, and whether each takes a value
    "What can be given to a command."
    command = typer.main.get_command(app)
    for part in name.split(): command = command.commands[part]
    given = [p for p in command.params if p.param_type_name == "option"]
    return [(flag, not p.is_flag) for p in given for flag in [*p.opts, *p.secondary_opts]]


@st.composite
def command_lines(draw):
    "A command, some of its options with any values, and some words."
    name = draw(st.sampled_from(sorted(QUIET)))
    words = draw(st.lists(VALUE, max_size=2))
    for flag, takes in draw(st.lists(st.sampled_from(parameters(name)), max_size=4)):
        words += [flag, draw(VALUE)] if takes else [flag]
    needed = [["--data", draw(st.sampled_from(["a.csv", "b.json", "gone.csv"]))]] \
        if ("--data", True) in parameters(name) else [[]]
    return [*name.split(), *words, *draw(st.sampled_from([[], *needed])), *QUIET[name]]


def run_any_command(folder, arguments):
    "A command line, in a folder with two tables and a run that was cut off."
    before = Path.cwd()
    (folder / "a.csv").write_text(TABLE)
    (folder / "b.json").write_text('[{"text": "a", "label": "x"}, {"text": "b", "label": 1}]')
    (folder / "run").mkdir()
    (folder / "run/recipe.json").write_text("{}")
    out, error = StringIO(), StringIO()
    os.chdir(folder)
    try:
        with redirect_stdout(out), redirect_stderr(error): main(arguments)
    except SystemExit as end: code = end.code or 0
    finally: os.chdir(before)
    said = [line for line in error.getvalue().splitlines() if not line.startswith("note: ")]
    assert code in (0, 2), code
    assert code == 0 or (len(said) == 1 and said[0].startswith("course: ")), said


CHECKS = {
    "tables": (st.tuples(FILES), lambda folder, drawn: read_any(folder, *drawn)),
    "tables with options": (st.tuples(FILES, options), lambda folder, drawn: read_any(
        folder, drawn[0], **drawn[1])),
    "recipes": (RECIPES | anything, read_any_recipe),
    "scores": (SCORES | anything, read_any_scores),
    "models": (MODEL_FILES, load_any_model),
    "notebooks": (SUBMISSION, read_any_submission),
    "command lines": (command_lines(), run_any_command),
}
