"""Prompting: each score equal to the model's own, whatever the batch; no prompt is cut."""
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from course_lib.data import load_data
from course_lib.errors import InputError
from course_lib.models import load
from course_lib.prompting import (
    CONTENT_FREE, TEMPLATE, VERBALIZER, calibrate, draw_examples, encode, few_shot_log_probs,
    few_shot_prompt, fitting_prompts, prompt_accuracy, score_labels, split_words, template_parts
)


LONGER = {"negative": " unbearable", "positive": " unforgettable", "mixed": " so and so"}


@pytest.fixture(scope="module")
def gpt():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load("tiny-gpt2", "text-generation")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def reviews(): return load_data("reviews")


def one_by_one(model, tokenizer, prompts, verbalizer):
    "From transformers' own loss, a sequence at a time."
    rows = []
    for p in prompts:
        start, row = encode(tokenizer, [p])[0], []
        for word in verbalizer.values():
            own = tokenizer(word, add_special_tokens=False)["input_ids"]
            ids = torch.tensor([start + own])
            labels = ids.clone()
            labels[0, :len(start)] = -100
            with torch.inference_mode():
                row.append(-model(ids, labels=labels).loss.item() * len(own))
        rows.append(row)
    return np.array(rows)


# Scores

@pytest.mark.parametrize(
    "verbalizer",
    [
        VERBALIZER,
        LONGER,
        {"a": " unforgettable", "b": " unforgiving", "c": " unforgettable moments"},
    ],
)
@pytest.mark.parametrize("examples", [[], [("A joy.", "a"), ("Two lost hours.", "b")]])
def test_scores_are_the_losses(gpt, reviews, verbalizer, examples):
    shown = [(t, list(verbalizer)["ab".index(l)]) for t, l in examples]
    prompts = [
        few_shot_prompt(shown, t, TEMPLATE, verbalizer) for t in reviews["validation"]["text"][:6]
    ] + ["Fine", "it was not"]
    wanted = one_by_one(*gpt, prompts, verbalizer)
    for size in (1, 3, 64):
        assert (
            np.abs(score_labels(*gpt, prompts, verbalizer, batch_size=size) - wanted).max().max()
            < 1e-3
        )
    assert (
        np.abs(score_labels(*gpt, prompts[::-1], verbalizer)[::-1].to_numpy() - wanted).max() < 1e-3
    )


def test_one_token_is_the_log_softmax_of_the_next(gpt):
    model, tokenizer = gpt
    prompt = "Dull from start to end. Overall, this movie is"
    with torch.inference_mode():
        z = model(torch.tensor(encode(tokenizer, [prompt]))).logits[0, -1].log_softmax(-1)
    for word in VERBALIZER.values():
        (t,) = tokenizer(word, add_special_tokens=False)["input_ids"]
        assert (
            abs(score_labels(model, tokenizer, [prompt], {"x": word}).iloc[0, 0] - z[t].item())
            < 1e-4
        )


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.text("abc deé.!{}\n", min_size=1, max_size=40), min_size=1, max_size=5),
    st.integers(1, 4),
)
def test_no_score_depends_on_its_neighbours(gpt, texts, size):
    prompts = [few_shot_prompt([], t, "{text} It was{label}.", VERBALIZER) for t in texts]
    together = score_labels(*gpt, prompts, VERBALIZER, batch_size=size)
    alone = [score_labels(*gpt, [p], VERBALIZER).iloc[0] for p in prompts]
    assert np.abs(together.to_numpy() - np.array(alone)).max() < 1e-3
    assert list(together.columns) == list(VERBALIZER)


def test_same_prompt_twice_and_a_prompt_that_begins_another(gpt):
    prompts = ["It was", "It was", "It was a film that was"]
    found = score_labels(*gpt, prompts, LONGER)
    assert np.abs(found - one_by_one(*gpt, prompts, LONGER)).max().max() < 1e-3


@pytest.mark.parametrize(
    "prompt, word",
    [("It was ", " good"), ("It was\n", " good"), ("It was", ""), ("It was goo", "d"), ("", "")],
)
def test_a_border_inside_a_token_is_refused(gpt, prompt, word):
    with pytest.raises(InputError, match="prompt 0, 'x' – .* don't meet"):
        split_words(gpt[1], [prompt], {"x": word})


def test_too_long_is_refused_not_cut(gpt):
    with pytest.raises(InputError, match="the model reads 256") as e:
        score_labels(*gpt, ["fine", "so long " * 200 + "ago"], VERBALIZER)
    assert "prompt 1" in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-t5"])
def test_only_causal_models_are_asked(name):
    with pytest.raises(InputError): load(name, "text-generation")


# Templates, examples, room

def test_template():
    assert template_parts("a{text}b{label}c") == ("a", "b", "c")
    assert (
        few_shot_prompt([("{label}", "p")], "{text} {x}", "<{text}|{label}>", {"p": "yes"})
        == "<{label}|yes><{text} {x}|"
    )
    for bad in ("{text}", "{label}{text}", "{text}{label}{text}", "{text}{text}{label}", ""):
        with pytest.raises(InputError, match="template"): template_parts(bad)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 12), st.integers(0, 50))
def test_examples_are_balanced_and_fixed_by_the_seed(shots, seed):
    features = Features(text=Value("string"), label=ClassLabel(names=["a", "b", "c"]))
    train = Dataset.from_dict(
        {"text": [f"t{i}" for i in range(30)], "label": [0] * 20 + [1] * 6 + [2] * 4},
        features=features,
    )
    found = draw_examples(train, shots, seed)
    counts = [sum(l == n for _, l in found) for n in "abc"]
    assert len(found) == shots == len(set(found))
    assert max(counts) - min(counts) <= 1
    assert found == draw_examples(train, shots, seed)
    assert all(
        train.features["label"].int2str(train["label"][train["text"][:].index(t)]) == l
        for t, l in found
    )
    with pytest.raises(InputError, match="4 c"): draw_examples(train, 15, seed)


def test_seeds_differ(reviews):
    drawn = {tuple(draw_examples(reviews["train"], 4, s)) for s in range(10)}
    # and neither class always comes first
    assert len(drawn) == 10 and len({d[0][1] for d in drawn}) == 2


def test_whole_examples_are_dropped_the_oldest_first(gpt, reviews):
    tokenizer, examples = gpt[1], draw_examples(reviews["train"], 8, 0)
    texts = [*reviews["validation"]["text"][:20], "Fine.", ""]
    prompts, used = fitting_prompts(tokenizer, examples, texts, TEMPLATE, LONGER)
    longest = max(len(tokenizer(w, add_special_tokens=False)["input_ids"]) for w in LONGER.values())
    for p, k, t in zip(prompts, used, texts):
        assert p == few_shot_prompt(examples[8 - k:], t, TEMPLATE, LONGER)
        more = few_shot_prompt(examples[7 - k:], t, TEMPLATE, LONGER)
        assert (
            len(encode(tokenizer, [p])[0]) + longest
            <= 256
            < len(encode(tokenizer, [more])[0]) + longest + 1
        )
    score_labels(*gpt, prompts, LONGER)
    with pytest.raises(InputError, match="text 1 –"):
        fitting_prompts(tokenizer, examples, ["fine", "so long " * 200], TEMPLATE, VERBALIZER)
    assert fitting_prompts(tokenizer, [], [], TEMPLATE, VERBALIZER)[0] == []


# Calibration

def test_calibration_is_the_quotient():
    rng = np.random.default_rng(0)
    scores, empty = rng.normal(size=(20, 3)) * 3 - 40, rng.normal(size=(3, 3)) - 30
    p, prior = softmax(scores, -1), softmax(empty, -1).mean(0)
    wanted = (p / prior) / (p / prior).sum(-1, keepdims=True)
    assert np.allclose(np.exp(calibrate(scores, empty)), wanted)
    assert np.allclose(np.exp(calibrate(scores, empty)).sum(-1), 1)
    # an even prior changes nothing
    assert np.allclose(calibrate(scores, np.zeros((1, 3))), log_softmax(scores, -1))
    assert np.allclose(
        calibrate(scores + rng.normal(size=(20, 1)), empty + 7), calibrate(scores, empty)
    )
    # a prejudice for a word goes
    assert np.allclose(
        calibrate(scores + [5, 0, -2], empty[:1] + [5, 0, -2]), calibrate(scores, empty[:1])
    )


def test_log_probs_are_those_of_each_prompt(gpt, reviews):
    texts, examples = [*reviews["validation"]["text"][:10], "Fine."], draw_examples(
        reviews["train"], 8, 0
    )
    plain, calibrated, used = few_shot_log_probs(*gpt, texts, examples)
    prompts, kept = fitting_prompts(gpt[1], examples, texts, TEMPLATE, VERBALIZER)
    assert (used == kept).all() and len(set(used)) > 1
    for i in [list(used).index(k) for k in set(used)]:
        own = score_labels(*gpt, [prompts[i]], VERBALIZER)
        empty = score_labels(
            *gpt,
            [
                few_shot_prompt(examples[8 - kept[i] :], t, TEMPLATE, VERBALIZER)
                for t in CONTENT_FREE
            ],
            VERBALIZER,
        )
        assert np.allclose(plain[i], log_softmax(own, -1)[0], atol=1e-3)
        assert np.allclose(calibrated[i], calibrate(own, empty)[0], atol=1e-3)


def test_accuracy_of_a_seed(gpt, reviews):
    splits = DatasetDict(train=reviews["train"], validation=reviews["validation"].select(range(24)))
    found = prompt_accuracy(*gpt, splits, shots=2, seed=1)
    plain, calibrated, used = few_shot_log_probs(
        *gpt, splits["validation"]["text"][:], draw_examples(splits["train"], 2, 1)
    )
    labels = np.array(splits["validation"]["label"][:])
    assert (
        found
        == {
            "accuracy": (plain.argmax(1) == labels).mean(),
            "calibrated": (calibrated.argmax(1) == labels).mean(),
            "examples": 2.0,
        }
        == prompt_accuracy(*gpt, splits, shots=2, seed=1)
    )
    turned = dict(reversed(VERBALIZER.items()))
    assert prompt_accuracy(*gpt, splits, shots=2, seed=1, verbalizer=turned) == found
    with pytest.raises(InputError, match="a word for each label"):
        prompt_accuracy(*gpt, splits, shots=0, verbalizer={"good": " good", "bad": " bad"})


# What can't be asked

@pytest.mark.parametrize(
    "mistake, said",
    [
        (lambda m, t, d: score_labels(m, t, "one string", VERBALIZER), "is one text"),
        (lambda m, t, d: score_labels(m, t, ["fine", None], VERBALIZER), "text 1 – is NoneType"),
        (lambda m, t, d: few_shot_log_probs(m, t, ["fine"], [("x", "meh")]), "no word for 'meh'"),
        (lambda m, t, d: draw_examples(d["train"], -1), "-1 shots"),
        (lambda m, t, d: draw_examples(d["train"].remove_columns("text"), 1), "it needs `text`"),
        (
            lambda m, t, d: draw_examples(d["train"].cast_column("label", Value("int64")), 1),
            "ClassLabel",
        ),
        (lambda m, t, d: prompt_accuracy(m, t, d, 0, part="tset"), "the part 'tset'"),
        (
            lambda m, t, d: prompt_accuracy(
                m, t, DatasetDict(train=d["train"], validation=d["validation"].select([])), 0
            ),
            "has no rows",
        ),
    ],
)
def test_bad_input_is_one_line(gpt, reviews, mistake, said):
    with pytest.raises(InputError, match=said) as e: mistake(*gpt, reviews)
    assert "\n" not in str(e.value) and str(e.value).count(" – ") == 2
    assert score_labels(*gpt, [], VERBALIZER).shape == (0, 2)
