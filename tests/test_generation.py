"""Scores of texts against transformers' loss and plain loops; decoding against the library's
processors; the cache against reading again; and what can't be scored is refused."""
import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import (AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig,
                          MinPLogitsWarper, RepetitionPenaltyLogitsProcessor,
                          TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)

from course_lib import generation
from course_lib.errors import InputError
from course_lib.generation import (behind_a_start, bits_per_byte, cache_bytes,
                                   continuation_log_likelihoods, count_targets, generate_until,
                                   keep_min_p, keep_top_k, keep_top_p,
                                   negative_log_likelihoods, penalise_repetition, perplexity,
                                   read_on, rolling_log_likelihoods, surprises, text_generation,
                                   text_rows, token_nats, unigram_baseline, window_rows,
                                   with_temperature, write)
from course_lib.loading import quiet
from course_lib.models import load
from course_lib.training import TaskLoss, fit

TINY = {"vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
SHAPE = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
         "intermediate_size": 64, "max_position_embeddings": 64, "num_key_value_heads": 2}
CONFIGS = {"gpt2": GPT2Config(n_layer=2, n_embd=32, n_head=4, n_positions=64, **TINY),
           "llama": LlamaConfig(**SHAPE, **TINY)}
USUAL = {"learning_rate": 1e-3, "bf16": False, "device": "cpu", "progress": False}


def new(family):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[family])).eval()
    for p in model.parameters(): p.data.mul_(3) # scores that aren't all alike
    return model


def rows_of(n=13, seed=0):
    "Rows of 1 to 30 tokens; some labels are masked, in one row all."
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        ids = rng.integers(2, 99, 1 + int(rng.integers(0, 30))).tolist()
        masked = rng.random(len(ids)) < 0.3 if i else np.ones(len(ids), bool)
        rows.append({"input_ids": ids, "labels": [-100 if m else t for m, t in zip(masked, ids)]})
    return rows


def plainly(model, row):
    "Nats at the targets of a row, from the logits of that row alone."
    with torch.no_grad(): log_p = model(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
    return [-log_p[i - 1, t].item() for i, t in enumerate(row["labels"]) if i and t != -100]


@pytest.fixture(scope="module")
def tiny(): return load("tiny-gpt2", task="text-generation")


# what a text costs

@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("size", [1, 4, 16])
def test_nats_are_those_of_each_row_alone(family, size):
    model, rows = new(family), rows_of()
    wanted = [plainly(model, row) for row in rows]
    found = token_nats(model, rows, size)
    assert [len(own) for own in found] == [count_targets(row) for row in rows]
    for ours, theirs in zip(found, wanted): np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    sums = negative_log_likelihoods(model, rows, size)
    np.testing.assert_allclose(sums, [[sum(own), len(own)] for own in wanted], rtol=1e-4)
    assert not model.training


def test_no_rows_and_the_mode_of_a_model_in_training():
    model = new("gpt2").train()
    before = negative_log_likelihoods(model, rows_of()) # without dropout, though it is training
    assert model.training and negative_log_likelihoods(model, []).shape == (0, 2)
    np.testing.assert_allclose(before, negative_log_likelihoods(model.eval(), rows_of()), rtol=1e-5)


@pytest.mark.parametrize("family", CONFIGS)
def test_loss_and_gradients_packed_and_padded(family, monkeypatch):
    model, rows = new(family), rows_of()
    loss = TaskLoss(model, text_generation).eval()
    found = []
    for packed in (True, False):
        if not packed: monkeypatch.setattr(generation, "worth_it", lambda mask: False)
        model.zero_grad()
        value, _ = loss("task", rows)
        value.backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
        found.append((value.item(), gradients))
    (a, packed), (b, padded) = found
    batch = text_generation.collate(model, rows)
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    theirs = cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    assert a == pytest.approx(b, rel=1e-5) and a == pytest.approx(theirs.item(), rel=1e-5)
    assert (packed - padded).norm() < 1e-4 * padded.norm()


def test_training_lowers_the_perplexity_and_resumes_to_the_bit(tmp_path):
    rows, base = rows_of(24), new("gpt2")
    whole, resumed = copy.deepcopy(base), copy.deepcopy(base)
    usual = {"task": text_generation, "metric": perplexity, "batch_size": 8, "epochs": 4, **USUAL}
    def interrupt(history):
        if len(history) == 5: raise KeyboardInterrupt
    history = fit(whole, rows, rows, **usual)
    with pytest.raises(KeyboardInterrupt):
        fit(copy.deepcopy(base), rows, rows, checkpoint=tmp_path, callbacks=[interrupt], **usual)
    fit(resumed, rows, rows, checkpoint=tmp_path, resume=True, **usual)
    for p, q in zip(whole.parameters(), resumed.parameters()): assert torch.equal(p, q)
    assert perplexity(*surprises(whole, rows)) < perplexity(*surprises(base, rows))
    held = history[history["split"] == "validation"]
    np.testing.assert_allclose(held["perplexity"], np.exp(held["loss"]), rtol=1e-3)


def test_letters_that_are_not_latin(tiny):
    model, tokenizer = tiny
    texts = ["Привет, мир!", "日本語の映画", "שלום עולם", "🎬🎬", "é"]
    rows = text_rows(texts, tokenizer)
    for row, own in zip(rows, token_nats(model, rows)):
        np.testing.assert_allclose(own, plainly(model, row), rtol=1e-4)
    found = rolling_log_likelihoods(model, tokenizer, texts, 16, 8)
    assert found["bytes"].tolist() == [len(text.encode()) for text in texts]
    lengths = [len(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts]
    assert found["tokens"].tolist() == lengths


@given(n=st.integers(1, 60), window=st.integers(2, 20), data=st.data())
def test_windows_score_each_token_once_with_enough_before_it(n, window, data):
    stride = data.draw(st.integers(1, window - 1))
    rows, seen = window_rows(list(range(n)), window, stride), []
    for i, row in enumerate(rows):
        assert len(row["input_ids"]) == len(row["labels"]) <= window
        for at, label in enumerate(row["labels"]):
            if label == -100: continue
            assert label == row["input_ids"][at] and (i == 0 or at >= window - stride)
            seen.append(label)
    assert seen == list(range(n))


def test_one_window_is_the_whole_text(tiny):
    model, tokenizer = tiny
    texts = ["Nobody laughed, and the popcorn was stale.", "Fine."]
    whole = negative_log_likelihoods(model, text_rows(texts, tokenizer, end=False))
    found = rolling_log_likelihoods(model, tokenizer, texts, 256, 128)
    np.testing.assert_allclose(found[["nats", "tokens"]], whole, rtol=1e-5)
    assert bits_per_byte(np.array([8 * math.log(2)]), np.array([4])) == pytest.approx(2)


def test_unigrams_sum_to_one_and_prefer_what_was_frequent():
    train = [{"labels": [7, 1, 1, 1, 2, -100]}]
    every = [{"labels": [0, token]} for token in range(5)]
    found = unigram_baseline(train, every, 5)
    p = np.exp(-found[:, 0])
    assert p.sum() == pytest.approx(1) and p[1] > p[2] > p[0] == p[3] == p[4] > 0
    assert p[1] == pytest.approx((3 + 2 / 5) / (4 + 2)) # Witten and Bell: 4 tokens, 2 kinds
    assert unigram_baseline(train, [{"labels": [3]}], 5).tolist() == [[0, 0]]


# choosing a token

PROCESSORS = [(with_temperature, TemperatureLogitsWarper, st.floats(0.1, 3)),
              (keep_top_k, TopKLogitsWarper, st.integers(1, 20)),
              (keep_top_p, TopPLogitsWarper, st.floats(0.01, 0.99)),
              (keep_min_p, MinPLogitsWarper, st.floats(0, 1))]


def random_scores(seed, symbols, ties):
    scores = 4 * torch.randn(2, symbols, generator=torch.Generator().manual_seed(seed))
    return scores.round() if ties else scores


@pytest.mark.parametrize("ours, theirs, values", PROCESSORS,
                         ids=["temperature", "top-k", "top-p", "min-p"])
@given(seed=st.integers(0, 2**31), symbols=st.integers(1, 40), ties=st.booleans(), data=st.data())
@settings(deadline=None)
def test_as_the_librarys_processors(ours, theirs, values, seed, symbols, ties, data):
    scores, value = random_scores(seed, symbols, ties), data.draw(values)
    found = ours(scores.clone(), value)
    assert torch.equal(found, theirs(value)(None, scores.clone()))
    assert not found.isnan().any() # and the best is kept
    assert ours is with_temperature or torch.equal(found.amax(-1), scores.amax(-1))


@given(seed=st.integers(0, 2**31), symbols=st.integers(1, 40), penalty=st.floats(0.5, 3),
       data=st.data())
@settings(deadline=None)
def test_repetition_penalty_as_the_librarys(seed, symbols, penalty, data):
    scores = random_scores(seed, symbols, False)[:1]
    ids = data.draw(st.lists(st.integers(0, symbols - 1), min_size=1, max_size=30))
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([ids]), scores.clone())
    assert torch.equal(penalise_repetition(scores[0].clone(), ids, penalty), theirs[0])
    assert torch.equal(penalise_repetition(scores[0], [], penalty), scores[0])


# a cache, and what is written with it

@given(cuts=st.lists(st.integers(1, 9), min_size=1, max_size=7))
@settings(deadline=None, max_examples=25)
def test_a_cache_filled_in_any_pieces(cuts):
    model, n = new("gpt2"), sum(cuts)
    ids = torch.randint(2, 99, (n,), generator=torch.Generator().manual_seed(n))
    cache = [{} for _ in model.transformer.h]
    with torch.inference_mode():
        pieces = [read_on(model, part.tolist(), cache) for part in ids.split(cuts)]
        whole = model(ids[None]).logits[0]
    assert (torch.cat(pieces) - whole).abs().max() < 1e-5 * whole.abs().max()
    assert cache[0]["key"].shape == (4, n, 8)
    assert cache_bytes(model.config, n) == 2 * 2 * 4 * 8 * n * 4


@pytest.mark.parametrize("family", CONFIGS)
def test_writing_is_greedy_generation(family):
    model, ids = new(family), [5, 9, 2, 17]
    with quiet():
        theirs = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=20)[0, 4:]
    assert write(model, ids, max_new_tokens=20) == theirs.tolist()
    full = write(model, ids, stop=lambda new: False, max_new_tokens=1000)
    assert len(full) == 64 - len(ids) + 1 # the last one is never read


def test_generation_ends_at_the_first_stop(tiny):
    model, tokenizer = tiny
    prompts = ["The film is a", "I have never seen"]
    free = generate_until(model, tokenizer, prompts, until=("\n",), max_new_tokens=30)
    stopped = generate_until(model, tokenizer, prompts, until=("\n", "."), max_new_tokens=30)
    assert all("." not in text for text in stopped)
    assert [text.split(".")[0] for text in free] == stopped


def test_a_continuation_is_the_end_of_the_whole(tiny):
    model, tokenizer = tiny
    pairs = [("The film is", " bad."), ("A quiet, odd", " little comedy")]
    found = continuation_log_likelihoods(model, tokenizer, pairs)
    for (text, continuation), value in zip(pairs, found):
        rows = text_rows([text, text + continuation], tokenizer, end=False)
        before, whole = negative_log_likelihoods(model, rows)[:, 0]
        assert value == pytest.approx(before - whole, abs=1e-3)


# what can't be

BAD_ROWS = [
    ([{"input_ids": [], "labels": []}], "row 0 – has no tokens – leave it out"),
    ([{"input_ids": [3, 4], "labels": [3]}], "row 0 – has 2 tokens and 1 labels"),
    ([{"input_ids": [3], "labels": [3]}, {"input_ids": [3] * 65, "labels": [3] * 65}],
     "row 1 – has 65 tokens, the model reads 64"),
    ([{"input_ids": [3, 99], "labels": [3, 4]}], "row 0 – holds an id outside of 0 to 98"),
    ([{"input_ids": [3, 4], "labels": [3, 99]}], "row 0 – holds an id outside of 0 to 98"),
    ([{"input_ids": [-1, 4], "labels": [3, 4]}], "row 0 – holds an id outside of 0 to 98"),
    ([{"input_ids": [3, 4], "labels": [3, -1]}], "row 0 – holds an id outside of 0 to 98"),
]


@pytest.mark.parametrize("rows, message", BAD_ROWS)
def test_rows_that_can_not_be_read(rows, message):
    model = new("gpt2")
    for refused in (lambda: negative_log_likelihoods(model, rows),
                    lambda: fit(model, rows, task=text_generation, **USUAL)):
        with pytest.raises(InputError) as e: refused()
        assert message in str(e.value) and "\n" not in str(e.value)


def test_a_head_that_caps_its_scores_is_refused():
    config = Gemma2Config(**SHAPE, **TINY, head_dim=8, final_logit_softcapping=0.01)
    with pytest.raises(InputError, match="changes the scores of its output matrix"):
        negative_log_likelihoods(AutoModelForCausalLM.from_config(config), rows_of())


REFUSED = {
    "an empty text": (lambda m, t: rolling_log_likelihoods(m, t, ["Fine.", ""]),
                      "text 1 – is empty – leave it out"),
    "one text for many": (lambda m, t: rolling_log_likelihoods(m, t, "Fine."), "is one text"),
    "a number": (lambda m, t: text_rows(["Fine.", 3], t), "text 1 – is int, not a text"),
    "half a character": (lambda m, t: behind_a_start(t, ["\ud800"]), "text 0 – is not UTF-8"),
    "a stride as long as the window": (lambda m, t: window_rows([1, 2], 8, 8),
                                       "stride=8 – is not between 1 and 7"),
    "no stride": (lambda m, t: rolling_log_likelihoods(m, t, ["Fine."], 8, 0), "stride=0"),
    "a window of one": (lambda m, t: rolling_log_likelihoods(m, t, ["Fine."], 1, 1), "stride=1"),
    "a window that is too long": (lambda m, t: rolling_log_likelihoods(m, t, ["Fine."], 257, 9),
                                  "window=257 – is more than the model reads – take 256"),
    "no targets": (lambda m, t: unigram_baseline([{"labels": [3]}], [], 5), "have no targets"),
    "temperature 0": (lambda m, t: with_temperature(torch.zeros(3), 0), "temperature=0"),
    "no tokens": (lambda m, t: keep_top_k(torch.zeros(3), 0), "k=0 – keeps nothing"),
    "a share above 1": (lambda m, t: keep_top_p(torch.zeros(3), 1.5), "p=1.5"),
    "min-p above 1": (lambda m, t: keep_min_p(torch.zeros(3), 2), "p=2"),
    "no penalty": (lambda m, t: penalise_repetition(torch.zeros(3), [1], 0), "penalty=0"),
    "nothing to continue": (lambda m, t: write(m, []), "give at least a word"),
    "too much to continue": (lambda m, t: write(m, [5] * 257), "has 257 tokens"),
    "nothing to write": (lambda m, t: write(m, [5], max_new_tokens=0), "writes nothing"),
    "a stop that is a text": (lambda m, t: generate_until(m, t, ["A"], "end"), "until='end'"),
    "an empty stop": (lambda m, t: generate_until(m, t, ["A"], ("",)), "until="),
    "a word that is cut": (lambda m, t: continuation_log_likelihoods(m, t, [("A ", "film")]),
                           "don't meet between"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, tiny):
    refused, message = REFUSED[name]
    with pytest.raises(InputError) as e: refused(*tiny)
    assert message in str(e.value) and " – " in str(e.value) and "\n" not in str(e.value)


def test_real_texts_that_are_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_REAL_DATA", str(tmp_path))
    with pytest.raises(InputError, match="COURSE_REAL_DATA"): generation.articles("valid")
    monkeypatch.delenv("COURSE_REAL_DATA")
    with pytest.raises(InputError, match="COURSE_REAL_DATA"): generation.articles("valid")


def test_articles_begin_with_their_titles(monkeypatch, tmp_path):
    text = " \n = One = \n \n Words . \n = = Part = = \n More . \n = Two = \n \n End . \n"
    (tmp_path / "wikitext2_heldout").mkdir()
    (tmp_path / "wikitext2_heldout/valid.txt").write_text(text, encoding="utf-8")
    monkeypatch.setenv("COURSE_REAL_DATA", str(tmp_path))
    first, second = generation.articles("valid")
    assert first.startswith("= One =") and "= = Part = =" in first and second.startswith("= Two =")
