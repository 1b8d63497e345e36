"""Folders of models that somebody else has made: none of them runs code, asks a question, or loads
as something that it is not."""
import json
import os
import subprocess
import sys
import time

import pytest
import torch
from datasets import DatasetDict
from safetensors.torch import load_file, save_file
from transformers import (BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel,
                          LlamaConfig, LlamaForCausalLM, T5Config, T5ForSequenceClassification)
from transformers.pytorch_utils import Conv1D

from course_lib.chat import continue_text
from course_lib.choosing import pretrained
from course_lib.errors import InputError, held_notes
from course_lib.files import shipped
from course_lib.instruction import make_features, measure
from course_lib.loading import TASKS, find_model, is_finite, quiet
from course_lib.models import body_linears, load, read_by_head
from course_lib.pretraining import teacher_states
from course_lib.recipe import Recipe
from course_lib.runs import run_task
from course_lib.turns import texts_of

LABELS = ["negative", "positive"]
CODE = """from pathlib import Path
Path(__file__).parent.joinpath("was_run").write_text("")
raise RuntimeError("this must not be run")
"""


@pytest.fixture
def folder(tmp_path):
    "A small GPT-2 as it should be."
    with quiet():
        shape = GPT2Config(vocab_size=8192, n_layer=2, n_embd=32, n_head=2)
        GPT2LMHeadModel(shape).save_pretrained(tmp_path / "gpt")
        load("tiny-gpt2", labels=LABELS)[1].save_pretrained(tmp_path / "gpt")
    return tmp_path / "gpt"


def change(path, **fields): path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def complaint(name, **options):
    "What `load` says, in one line."
    with pytest.raises(InputError) as refused: load(str(name), **{"labels": LABELS, **options})
    (problem,) = refused.value.problems
    return problem


AUTO_MAPS = {
    "config.json": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model",
                    "AutoModelForSequenceClassification": "code.Model"},
    "tokenizer_config.json": {"AutoTokenizer": [None, "code.Tokenizer"]}}


@pytest.mark.parametrize("known_family", [True, False])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("part", AUTO_MAPS)
def test_code_beside_the_weights_is_refused_and_not_run(folder, part, task, known_family):
    change(folder / part, auto_map=AUTO_MAPS[part])
    if not known_family: change(folder / "config.json", model_type="of-my-own")
    (folder / "code.py").write_text(CODE)
    said = complaint(folder, task=task)
    assert str(folder) in said and part in said and "auto_map" in said
    assert not list(folder.rglob("was_run"))


def test_nothing_is_asked_on_the_terminal(folder):
    "In a process of its own whose input says yes to everything."
    change(folder / "tokenizer_config.json", auto_map=AUTO_MAPS["tokenizer_config.json"])
    (folder / "code.py").write_text(CODE)
    program = f"from course_lib.models import load\nload({str(folder)!r}, labels=['a', 'b'])"
    start = time.time()
    done = subprocess.run([sys.executable, "-c", program], input="y\n" * 9, text=True,
                          capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode != 0 and "InputError" in done.stderr.splitlines()[-1]
    assert "[y/N]" not in done.stdout + done.stderr and time.time() - start < 60
    assert not list(folder.rglob("was_run"))


@pytest.mark.parametrize("content", ["", "[1]", '"auto_map"', "{" * 100_000, '{"a":' * 100_000])
@pytest.mark.parametrize("part", AUTO_MAPS)
def test_configurations_that_are_none_give_one_line(folder, part, content):
    (folder / part).write_text(content)
    assert str(folder) in complaint(folder)


def test_the_library_is_told_to_run_no_code(folder, monkeypatch):
    "For a hub id there is no folder to look at beforehand; so each call says it."
    from course_lib import models
    said = []
    for kind in (models.AutoTokenizer, models.AutoConfig, TASKS["text-classification"]):
        def remember(*arguments, read=kind.from_pretrained, **options):
            said.append(options.get("trust_remote_code"))
            return read(*arguments, **options)
        monkeypatch.setattr(kind, "from_pretrained", remember)
    load(str(folder), labels=LABELS)
    assert said[:3] == [False, False, False]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("key", ["transformer.wte.weight", "transformer.h.1.ln_1.bias"])
def test_weights_that_are_not_finite_are_refused(folder, key, number):
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights[key].view(-1)[-1] = number
    weights["transformer.ln_f.bias"][0] = number       # a later one; the first is named
    save_file(weights, path, metadata={"format": "pt"})
    said = complaint(folder)
    assert f"{key} holds numbers that aren't finite" in said and "ln_f" not in said
    assert key in complaint(folder, task="text-generation", labels=None)
    for read in (lambda name: teacher_states(["A film."], name), pretrained):
        with pytest.raises(InputError, match=f"{key.removeprefix('transformer.')} holds numbers"):
            read(str(folder))


ASKED = {task: "A tide is a rise of the sea." for task in TASKS}
ASKED["question-answering"] = "What is it?\tA tide is a rise of the sea."


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-t5"])
def test_finite_weights_whose_answers_are_not_give_none(name, task):
    if name == "tiny-t5" and task not in ("summarization", "translation"): return
    labels = {"text-classification": LABELS, "token-classification": ["O", "B-A", "I-A"]}
    model, tokenizer = load(name, task, labels.get(task))
    for p in model.base_model.parameters():
        if p.dim() == 1: p.data.fill_(3e38)            # so that a product overflows
    with pytest.raises(InputError, match="gives no finite numbers for 1 of 1 texts"):
        run_task(task).answer(model, tokenizer, {"max_length": 64}, [ASKED[task]], 8)


def test_a_chat_and_a_perplexity_of_such_a_model():
    model, tokenizer = load("tiny-gpt2", "text-generation")
    model.transformer.ln_f.bias.data.fill_(3e38)
    for temperature in (0, 1):
        with pytest.raises(InputError, match="no finite numbers"):
            continue_text(model, tokenizer, "A tide", temperature=temperature)
    model, _ = load("tiny-gpt2", "text-generation")
    model.transformer.wpe.weight.data[8:] = float("nan") # of longer texts only
    rows = texts_of([("a", {"text": "A tide is a rise of the sea, twice a day."})], "a", None)
    features = make_features(DatasetDict(rows=rows), tokenizer, 64)["rows"]
    with pytest.raises(InputError, match="no finite numbers"):
        measure(model, tokenizer, rows, features)


@pytest.mark.parametrize("longest", [-1, 0, "x", [1]])
def test_a_length_that_no_text_can_have(folder, longest):
    change(folder / "tokenizer_config.json", model_max_length=longest)
    said = complaint(folder)
    assert str(folder) in said and "model_max_length" in said


def test_a_model_without_its_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    assert str(folder) in complaint(folder)
    (folder / "tokenizer_config.json").unlink()
    assert "has no vocabulary" in complaint(folder)


@pytest.mark.parametrize("kind", ["eos_token", "bos_token", "pad_token"])
@pytest.mark.parametrize("number, noted", [(0, False), (700, True), (50_256, False),
                                           (-1, False), (None, False)])
def test_special_tokens_that_are_words_to_the_tokenizer(folder, kind, number, noted):
    own = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1, f"{kind}_id": number}
    change(folder / "config.json", **own)
    with held_notes() as notes: load(str(folder), labels=LABELS)
    said = [text for text in notes if "tokenizer of another model" in text]
    assert len(said) == noted and all(f"{kind} has the number 700" in text for text in said)
    change(folder / "config.json", eos_token_id=[0, 701])
    with held_notes() as notes: load(str(folder), labels=LABELS)
    assert "eos_token has the number 701" in notes[0]


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-bert", "tiny-t5"])
def test_our_own_models_have_their_own_tokenizers(name):
    with held_notes() as notes: load(name, labels=LABELS)
    assert not notes


@pytest.mark.parametrize("device", ["meta", "nonsense", "", "cuda:x", "xla"])
def test_devices_on_which_nothing_is_computed(device):
    with pytest.raises(InputError, match="can't be used here"): Recipe(device=device)
    Recipe(device="cpu")


def test_infinities_of_both_signs_do_not_cancel():
    assert not is_finite(torch.tensor([float("inf"), float("-inf"), 0.0]))
    assert is_finite(torch.full((9,), 3e38))           # finite, though their sum is not
    assert not is_finite(torch.tensor([3e38, 3e38, float("nan")]))


def test_large_numbers_are_no_fault(folder):
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["transformer.ln_f.bias"][:] = 3e38
    save_file(weights, path, metadata={"format": "pt"})
    assert load(str(folder), labels=LABELS)[0].transformer.ln_f.bias.max() > 2e38


def test_a_path_is_a_folder_and_a_bare_name_the_shipped_model(folder, tmp_path, monkeypatch):
    folder.rename(tmp_path / "tiny-gpt2")
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_model("tiny-gpt2") == str(shipped("models/tiny-gpt2"))
    for name in ("./tiny-gpt2", "../" + tmp_path.name + "/tiny-gpt2", str(tmp_path / "tiny-gpt2")):
        assert find_model(name) == name
        assert load(name, labels=LABELS)[0].config.n_embd == 32
    monkeypatch.chdir(tmp_path / "inner")
    for name in ("./tiny-gpt2", "./minilm", "../tiny-bert", "/tiny-t5", "./gpt2"):
        assert "is not there" in complaint(name)


@pytest.mark.parametrize("name", ["", ".", "..", "tiny-gpt2/..", "../models/tiny-gpt2",
                                  "../../etc", "downstream.csv"])
def test_no_name_leads_out_of_the_shipped_models(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try: found = find_model(name)
    except InputError: return
    assert found == name                               # left to the hub, which knows no such name


# Which linear layers are the body's

def linears(model): return [m for m in model.modules() if isinstance(m, (torch.nn.Linear, Conv1D))]


SMALL_MODELS = {
    "GPT-2": lambda: TASKS["text-classification"].from_config(
        GPT2Config(vocab_size=99, n_layer=2, n_embd=32, n_head=2)),
    "BERT": lambda: BertForSequenceClassification(BertConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64)),
    "T5": lambda: T5ForSequenceClassification(T5Config(
        vocab_size=99, d_model=32, num_layers=2, num_heads=2, d_kv=16, d_ff=64))}


@pytest.mark.parametrize("family, per_model, heads", [
    ("GPT-2", 2 * 4, 1),                               # attention 2, feed-forward 2
    ("BERT", 2 * 6, 2),                                # attention 4, feed-forward 2; and a pooler
    ("T5", 2 * 6 + 2 * 10, 2)])                        # the decoder attends twice
def test_linear_layers_of_the_body(family, per_model, heads):
    model = SMALL_MODELS[family]()
    found = body_linears(model)
    head = {id(p) for p in read_by_head(model)}
    assert len(found) == per_model and len(linears(model)) == per_model + heads
    assert all(model.get_submodule(name) is layer for name, layer in found.items())
    assert not any(id(layer.weight) in head for layer in found.values())


@pytest.mark.parametrize("model", [
    lambda: GPT2LMHeadModel(GPT2Config(vocab_size=99, n_layer=2, n_embd=32, n_head=2)),
    lambda: LlamaForCausalLM(LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=64,
                                         num_hidden_layers=2, num_attention_heads=2,
                                         num_key_value_heads=1, tie_word_embeddings=True))])
def test_an_output_layer_that_shares_the_embedding_is_not_of_the_body(model):
    model = model()
    found = body_linears(model)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert found and len(found) == len(linears(model)) - 1 and "lm_head" not in found
