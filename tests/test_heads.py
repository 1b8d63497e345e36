"""A head for every task: which families have it, names of weights, adapters of its kind."""
import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (AutoModelForQuestionAnswering, LlamaConfig, LlamaForCausalLM,
                          LlamaForQuestionAnswering)

from course_lib.comparison import score_counts
from course_lib.data import fingerprint, load_data
from course_lib.errors import InputError
from course_lib.evaluation import accuracy, bootstrap_interval
from course_lib.loading import TASKS
from course_lib.models import load
from course_lib.recipe import Recipe
from course_lib.runs import add_peft_lora, peft_task, save_model

HEADS = {"token-classification": "TOKEN_CLS", "question-answering": "QUESTION_ANS",
         "summarization": "CAUSAL_LM", "translation": "CAUSAL_LM", "text-generation": "CAUSAL_LM",
         "text-classification": "SEQ_CLS", "multi-label-classification": "SEQ_CLS"}


@pytest.fixture
def llama(tmp_path):
    "A small model of a family that calls its body otherwise under the head for answers."
    torch.manual_seed(0)
    _, tokenizer = load("tiny-gpt2")
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64,
                         num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64)
    model = LlamaForCausalLM(config)
    for part in (model, tokenizer): part.save_pretrained(tmp_path / "llama")
    return str(tmp_path / "llama"), model


@pytest.mark.parametrize("task", TASKS)
def test_a_gpt_has_a_head_for_every_task(task, llama):
    labels = ["a", "b", "c"] if task.endswith("classification") else None
    for name in ("tiny-gpt2", llama[0]):
        model, _ = load(name, task, labels)
        assert not labels or model.config.num_labels == 3
        assert peft_task(model) == HEADS[task]
        wrapped = add_peft_lora(model, 2)
        trained = wrapped.num_parameters(only_trainable=True)
        assert 0 < trained < 0.2 * wrapped.num_parameters()


def test_the_tasks_are_the_same_everywhere():
    assert set(Recipe.__dataclass_fields__["task"].metadata["choices"]) == set(TASKS)


def test_the_body_keeps_its_weights_under_a_head_that_calls_it_otherwise(llama, tmp_path):
    folder, original = llama
    model, tokenizer = load(folder, "question-answering")
    assert isinstance(model, LlamaForQuestionAnswering)
    wanted = original.model.layers[1].mlp.up_proj.weight
    assert torch.equal(model.transformer.layers[1].mlp.up_proj.weight, wanted)
    save_model(tmp_path / "run", model, tokenizer)
    plain = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "run")
    again, _ = load(str(tmp_path / "run"), "question-answering")
    for other in (plain, again):
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters()))


@pytest.mark.parametrize("name, task", [
    ("tiny-bert", "summarization"), ("tiny-bert", "text-generation"),
    ("tiny-t5", "text-generation"),
])
def test_a_family_without_that_head(name, task):
    with pytest.raises(InputError, match=f"its family, .*, can't do {task} – take another one"):
        load(name, task)


def test_a_model_never_writes_with_a_new_head(tmp_path):
    "A BERT has no weights for the next token; the library would begin with random ones."
    from transformers import BertConfig, BertModel
    _, tokenizer = load("tiny-gpt2")
    body = BertModel(BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2,
                                num_attention_heads=2, intermediate_size=64))
    for part in (body, tokenizer): part.save_pretrained(tmp_path)
    assert load(str(tmp_path), "token-classification", ["O", "B"])[0].config.num_labels == 2
    with pytest.raises(InputError, match="pre-trained weights are missing"):
        load(str(tmp_path), "text-generation")


def test_a_fingerprint_takes_every_column():
    rows = [{"text": "a", "summary": "b"}, {"text": "c", "summary": "d"}]
    other = [rows[0], {"text": "c", "summary": "e"}]
    first, second = (fingerprint(Dataset.from_list(part)) for part in (rows, other))
    assert first != second and first == fingerprint(Dataset.from_list(rows))
    assert fingerprint(load_data("reviews")["train"]) == "c702bc9ba7e12da6"


def test_scores_from_counts():
    rng = np.random.default_rng(0)
    ours, theirs = (1.0 * (rng.random((50, 1)) < p) for p in (0.8, 0.5))
    def share(counts): return counts.mean()
    def least(counts): return counts.min()
    found = score_counts({"share": share, "least": least}, ours, {"other": theirs})
    assert found["n"] == 50 and found["metrics"]["share"]["value"] == ours.mean()
    low, high = bootstrap_interval(accuracy, np.ones(50), ours[:, 0])
    assert (found["metrics"]["share"]["low"], found["metrics"]["share"]["high"]) == (low, high)
    gain = found["baselines"]["other"]["model_gain"]
    assert gain["value"] == ours.mean() - theirs.mean() and gain["low"] < gain["value"]
