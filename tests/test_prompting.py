"""Prompting: each score equal to the model's own, whatever the batch; prompts that are never cut.

A server's answers equal the local ones, and each of its failures is one line.
"""
import ast
import json
import math
import time

import numpy as np
import pytest
import torch
from conftest import ROOT
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from course_lib import prompting
from course_lib.data import InputError, load_data
from course_lib.models import load
from course_lib.prompting import (
    CONTENT_FREE, TEMPLATE, VERBALIZER, Endpoint, calibrate, call, check_fine_tuning_file,
    create_job, draw_examples, encode, endpoint_answers, endpoint_scores, few_shot_log_probs,
    few_shot_prompt, fitting_prompts, prompt_accuracy, score_labels, split_words, template_parts,
    upload_file, wait_for_job, write_fine_tuning_file
)


def from_chapter(*names) -> dict:
    "Functions that the chapter doesn't export, and its imports, over the module's own names."
    def wanted(node):
        if isinstance(node, ast.FunctionDef): return node.name in names
        return isinstance(node, (ast.Import, ast.ImportFrom))

    space = dict(vars(prompting))
    for cell in json.loads((ROOT / "nbs/09_prompting.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code": continue
        tree = ast.parse("".join(cell["source"]))
        tree.body = [n for n in tree.body if wanted(n)]
        exec(compile(tree, "09_prompting", "exec"), space)
    return space


CHAPTER = from_chapter("completions", "chat", "local_server")
LONGER = {"negative": " unbearable", "positive": " unforgettable", "mixed": " so and so"}
KEY = "sk-test-0123456789"


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


# Servers

@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("COURSE_TEST_KEY", KEY)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        # a server here is never asked through a proxy
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return "COURSE_TEST_KEY"


@pytest.fixture
def server(gpt):
    "The chapter's own server, with its answers."
    CHAPTER.update(model=gpt[0], tokenizer=gpt[1])
    return lambda script=(), routes=None: CHAPTER["local_server"](
        routes
        or {"/v1/completions": CHAPTER["completions"], "/v1/chat/completions": CHAPTER["chat"]},
        script,
    )


def end(url, key, **more):
    return Endpoint(url, "tiny-gpt2", key, **{"wait": 0.01, "tries": 3, "timeout": 5, **more})


def test_a_server_gives_the_same_scores(gpt, reviews, server, key):
    texts, shown = reviews["validation"]["text"][:5], [("A joy. Naïve — “fine”.", "positive")]
    prompts = [few_shot_prompt(shown, t, TEMPLATE, LONGER) for t in [*texts, "Voilà 🎬 …"]]
    with server() as (url, script, seen):
        found = endpoint_scores(end(url, key), prompts, LONGER, batch_size=4)
        said = endpoint_answers(end(url + "/", key), texts, "Which?", VERBALIZER)
    assert np.abs(found - score_labels(*gpt, prompts, LONGER)).max().max() < 1e-3
    assert len(seen) == math.ceil(18 / 4) + 5
    asked = [few_shot_prompt([], t, TEMPLATE, VERBALIZER) for t in texts]
    assert said == score_labels(*gpt, asked, VERBALIZER).idxmax(axis=1).tolist()
    assert all(h["Authorization"] == f"Bearer {KEY}" for _, h, _ in seen)


def test_without_a_key_none_is_sent(server, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with server(routes={"/v1/x": lambda body: {"ok": 1}}) as (url, script, seen):
        assert call(end(url, "NO_SUCH_KEY"), "/x") == {"ok": 1}
    assert "Authorization" not in seen[0][1]
    with (
        server([(401, {"error": {"message": "no key"}}, {}, 0)]) as (url, *_),
        pytest.raises(InputError, match="asks for a key .* NO_SUCH_KEY"),
    ):
        call(end(url, "NO_SUCH_KEY"), "/x")


def error(status, message="", headers=None, **more):
    return status, {"error": {"message": message, **more}}, headers or {}, 0


def choices(word, score):
    "An answer for two prompts, which ends in that token with that log-probability."
    found = {"tokens": ["It was", word], "token_logprobs": [None, score], "text_offset": [0, 6]}
    return 200, {"choices": [{"index": i, "logprobs": found} for i in (0, 1)]}, {}, 0


NAN = (
    b'{"choices": [{"index": 0, "logprobs": {"tokens": [" bad"], "token_logprobs": [NaN],'
    b' "text_offset": [6]}}, {"index": 1}]}'
)


@pytest.mark.parametrize(
    "script, said, requests",
    [
        ([error(401, f"Incorrect key {KEY}")], r"refused the key \(401\)", 1),
        ([error(403)], r"refused the key \(403\)", 1),
        ([error(404, "no model")], r"the model 'tiny-gpt2' \(404\): no model", 1),
        ([error(400, f"{KEY}\nmay not\r\necho")], r"\(400\): \[key\] may not echo", 1),
        ([error(429, "quota", code="insufficient_quota")], "used up", 1),
        ([error(429, "slow")] * 3, r"too many requests \(429\): slow, 3 times", 3),
        ([error(429, "", {"Retry-After": "3600"})], "a pause of 3600 s", 1),
        ([error(500)] * 3, r"fault of its own \(500\): no reason given, 3 times", 3),
        ([(503, b"<html>", {}, 0)] * 3, "503", 3),
        ([(502, b'{"error": "down"}', {}, 0)] * 3, "502.: down", 3),
        ([(200, b"<html>Welcome", {}, 0)], "no JSON object: '<html>Welcome'", 1),
        ([(200, b"[1]", {}, 0)], "no JSON object", 1),
        ([(200, b"\xff\xfe", {}, 0)], "no JSON object", 1),
        ([(200, b"", {}, 0)], "no JSON object", 1),
        ([(302, b"", {"Location": "http://127.0.0.1:9/"}, 0)], r"redirects elsewhere \(302\)", 1),
        ([(307, b"", {"Location": "http://127.0.0.1:9/"}, 0)], "redirects elsewhere", 1),
        ([(200, {}, {}, 0)], "one choice for each", 1),
        ([(200, {"choices": None}, {}, 0)], "one choice for each", 1),
        ([(200, {"choices": [{"index": 0}]}, {}, 0)], "one choice for each", 1),
        ([(200, {"choices": ["a", "b"]}, {}, 0)], "one choice for each", 1),
        (
            [(200, {"choices": [{"index": 0}, {"index": 1}]}, {}, 0)],
            "no log-probabilities of the prompt",
            1,
        ),
        (
            [(200, {"choices": [{"index": 0, "logprobs": None}, {"index": 1}]}, {}, 0)],
            "no log-probabilities",
            1,
        ),
        ([choices(" goo", -1.0)], "no token begins where", 1),
        ([choices(" bad", 3.0)], "gives 3.0 as a log-probability", 1),
        ([(200, NAN, {}, 0)], "gives nan", 1),
        (
            [(200, {}, {"Content-Length": "1000"}, 0)] * 3,
            "can't be reached .*IncompleteRead.*, 3 times",
            3,
        ),
        ([(200, b"{}", {}, 0.4)] * 3, "didn't answer within 0.1 s, 3 times", 3),
    ],
)
def test_each_failure_is_one_line_without_the_key(server, key, script, said, requests):
    with server(script) as (url, left, seen):
        timeout = 0.1 if "within" in said else 5
        with pytest.raises(InputError, match=said) as e:
            endpoint_scores(end(url, key, timeout=timeout), ["It was"], {"n": " bad", "p": " good"})
        assert timeout < 5 or len(seen) == requests
    assert "\n" not in str(e.value) and KEY not in str(e.value) and str(e.value).startswith(url)


def test_a_key_set_later_does_not_travel_in_the_clear(monkeypatch):
    monkeypatch.delenv("LATE_KEY", raising=False)
    endpoint = Endpoint(" http://127.0.0.2:9/v1/\n", "m", "LATE_KEY", tries=1)
    assert endpoint.url == "http://127.0.0.2:9/v1"
    monkeypatch.setenv("LATE_KEY", KEY)
    with pytest.raises(InputError, match="unencrypted") as e: call(endpoint, "/x")
    assert KEY not in str(e.value)


@pytest.mark.parametrize(
    "reply, said",
    [
        ((200, f"No entry for {KEY}".encode(), {}, 0), "no JSON object: 'No entry for .key.'"),
        (
            (200, {"error": {"message": f"overloaded, {KEY}"}}, {}, 0),
            "the reply is an error: overloaded, .key.",
        ),
        ((422, {"detail": f"{KEY}: no echo"}, {}, 0), r"\(422\): .key.: no echo"),
        ((400, {"object": "error", "message": "no such field"}, {}, 0), "400.: no such field"),
        ((400, b"plain words", {}, 0), "400.: plain words"),
        ((403, {"error": {"message": "your region"}}, {}, 0), "403.: your region"),
        (
            (408, b"", {}, 0),
            "fault of its own .408., 3 times|fault of its own .408.: no reason given, 3 times",
        ),
    ],
)
def test_what_a_server_says_is_passed_on_without_the_key(server, key, reply, said):
    with server([reply] * 3) as (url, *_), pytest.raises(InputError, match=said) as e:
        call(end(url, key), "/x", {})
    assert KEY not in str(e.value) and "\n" not in str(e.value)


def as_vllm(gpt, body, start="<s>"):
    """What a server sends that decodes each token by itself and adds up their lengths for
    `text_offset`, with a token in front."""
    choices = CHAPTER["completions"](body)["choices"]
    for c in choices:
        c["logprobs"]["tokens"].insert(0, start)
        c["logprobs"]["token_logprobs"].insert(0, None)
        lengths = [len(t) for t in c["logprobs"]["tokens"]]
        c["logprobs"]["text_offset"] = [sum(lengths[:i]) for i in range(len(lengths))]
    return {"choices": choices}


def test_offsets_are_not_trusted(gpt, server, key):
    prompts = ["Une comédie très drôle, 😀 ! It was", "A fine film. It was"]
    with server(routes={"/v1/completions": lambda body: as_vllm(gpt, body)}) as (url, *_):
        found = endpoint_scores(end(url, key), prompts, LONGER)
    assert np.abs(found - score_labels(*gpt, prompts, LONGER)).max().max() < 1e-3
    with pytest.raises(InputError, match="prompt 1 – ends with a space"):
        endpoint_scores(end("http://127.0.0.1:9/v1", key), ["It was", "It was "], LONGER)


@pytest.mark.parametrize(
    "tokens, values, total",
    [
        (["It", " was", " ", "bad"], [None, -1, -2, -3], -5),
        (["It", "was", "bad"], [None, -1, -3], -3),
        ([" was", " b", "ad"], [-1, -2, -4], -6),
        (["was ", " bad"], [-1, -2], -2),
    ],
)
def test_the_word_is_found_by_its_text(server, key, tokens, values, total):
    reply = {"choices": [{"index": 0, "logprobs": {"tokens": tokens, "token_logprobs": values}}]}
    with server([(200, reply, {}, 0)]) as (url, *_):
        assert endpoint_scores(end(url, key), ["It was"], {"n": " bad"}).iloc[0, 0] == total


def test_pauses(server, key, monkeypatch):
    slept = []
    monkeypatch.setattr(prompting.time, "sleep", slept.append)
    routes = {"/v1/x": lambda body: {"ok": 1}}
    CHAPTER["time"] = type("Clock", (), {"sleep": staticmethod(lambda s: None)})
    try:
        with server(
            [error(500), error(500), error(429, "", {"Retry-After": "7"}), error(500), error(500)],
            routes,
        ) as (url, *_):
            assert call(end(url, key, tries=6, wait=1, longest_wait=10), "/x") == {"ok": 1}
        assert slept == [1, 2, 7, 8, 10]
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 5))
        slept.clear()
        with server(
            [error(429, "", {"Retry-After": date}), error(429, "", {"Retry-After": "soon"})], routes
        ) as (url, *_):
            call(end(url, key, wait=2), "/x")
        assert 3 < slept[0] <= 5 and slept[1] == 4
    finally: CHAPTER["time"] = time


def test_nobody_there(key):
    with pytest.raises(InputError, match="can't be reached .*, 2 times"):
        call(end("http://127.0.0.1:9/v1", key, tries=2), "/x")


@pytest.mark.parametrize(
    "url, said",
    [
        ("api.openai.com", "not the address"),
        ("file:///etc/passwd", "not the address"),
        ("ftp://x/v1", "not the address"),
        ("", "not the address"),
        ("https:///v1", "not the address"),
        ("https://me:secret@host/v1", "holds a name or password"),
        ("http://example.org/v1", "unencrypted"),
        ("https://a..b/v1", "not the address"),
        ("http://[::1/v1", "not the address"),
        ("http://localhost:80x/v1", "not the address"),
    ],
)
def test_addresses_that_are_refused(key, url, said):
    with pytest.raises(InputError, match=said) as e: Endpoint(url, "m", key)
    assert "secret" not in str(e.value)


@pytest.mark.parametrize("bad", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_carries(bad, monkeypatch):
    monkeypatch.setenv("BAD_KEY", bad)
    with pytest.raises(InputError, match="BAD_KEY – holds") as e:
        call(end("http://127.0.0.1:9/v1", "BAD_KEY"), "/x")
    assert bad not in str(e.value)


def test_answers_of_a_chat(server, key):
    says = iter(
        ["Positive.", " NEGATIVE\n", "\"positive\"", "I think positive", "", None, "neutral"]
    )
    with server(
        routes={"/v1/chat": lambda body: {"choices": [{"message": {"content": next(says)}}]}}
    ) as (url, *_):
        assert endpoint_answers(end(url, key), ["t"] * 7, "i", VERBALIZER) == [
            "positive",
            "negative",
            "positive",
            None,
            None,
            None,
            None,
        ]
    for reply in ({}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": "x"}]}):
        with (
            server([(200, reply, {}, 0)]) as (url, *_),
            pytest.raises(InputError, match="choices.0..message"),
        ):
            endpoint_answers(end(url, key), ["t"], "i", VERBALIZER)


def test_answers_are_words_whatever_stands_around_them(server, key):
    says, bodies = iter(["“Positive”", "`positive`", "positive。", "U.S.", "**Negative**"]), []
    with server(
        routes={
            "/v1/chat": (
                lambda body: bodies.append(body)
                or {"choices": [{"message": {"content": next(says)}}]}
            )
        }
    ) as (url, *_):
        assert endpoint_answers(end(url, key), ["t"] * 3, "i", VERBALIZER) == ["positive"] * 3
        assert endpoint_answers(
            end(url, key),
            ["t"],
            "i",
            {"a": "U.S.", "b": "U.K."},
            max_tokens=None,
            temperature=None,
            max_completion_tokens=99,
        ) == ["a"]
        assert endpoint_answers(end(url, key), ["t"], "i", VERBALIZER) == ["negative"]
    assert bodies[0]["max_tokens"] == 8
    assert set(bodies[3]) == {"model", "messages", "max_completion_tokens"}
    with pytest.raises(InputError, match="two of its words are the same"):
        endpoint_answers(end("http://127.0.0.1:9/v1", key), ["t"], "i", {"a": "Yes", "b": " yes."})


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
        (lambda m, t, d: Endpoint("http://localhost/v1", "m", tries=0), "tries=0"),
    ],
)
def test_bad_input_is_one_line(gpt, reviews, mistake, said):
    with pytest.raises(InputError, match=said) as e: mistake(*gpt, reviews)
    assert "\n" not in str(e.value) and str(e.value).count(" – ") == 2
    assert score_labels(*gpt, [], VERBALIZER).shape == (0, 2)


# Hosted fine-tuning

def test_a_good_file_is_not_replaced_by_a_bad_one(reviews, tmp_path):
    part, path = reviews["validation"].select(range(30)), tmp_path / "f.jsonl"
    write_fine_tuning_file(part, path, "Say it", VERBALIZER)
    good = path.read_bytes()
    table = part.to_dict()
    unlabelled, empty = (
        Dataset.from_dict({**table, key: [value] * 30}, features=part.features)
        for key, value in (("label", -1), ("text", " "))
    )
    for rows, words, said in (
        (unlabelled, VERBALIZER, "row 0 – has no label, as 30"),
        (empty, VERBALIZER, "without content"),
        (part, {"Negative": " bad", "Positive": " good"}, "a word of its own"),
        (part, {"negative": "x", "positive": " x"}, "a word of its own"),
        (part.remove_columns("label"), None, "they need `text`"),
    ):
        with pytest.raises(InputError, match=said):
            write_fine_tuning_file(rows, path, "Say it", words)
        assert path.read_bytes() == good and len(list(tmp_path.iterdir())) == 1
    assert check_fine_tuning_file(path, list(VERBALIZER.values())).sum() == 30


def test_the_file_holds_what_was_given(reviews, tmp_path):
    part = reviews["validation"].select(range(30))
    counts = write_fine_tuning_file(part, tmp_path / "f.jsonl", "Say it", VERBALIZER)
    lines = [
        json.loads(line)["messages"]
        for line in (tmp_path / "f.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [m[1]["content"] for m in lines] == part["text"][:]
    assert [m[2]["content"] for m in lines] == [
        part.features["label"].names[y] for y in part["label"]
    ]
    assert all(m[0] == {"role": "system", "content": "Say it"} for m in lines)
    assert counts.to_dict() == {
        n: part["label"][:].count(i) for i, n in enumerate(part.features["label"].names)
    }
    with pytest.raises(InputError, match="10 at least"):
        write_fine_tuning_file(part.select(range(9)), tmp_path / "few.jsonl", "Say it")


GOOD = {
    "messages": [{"role": "user", "content": "Fine."}, {"role": "assistant", "content": "positive"}]
}


def messages(*pairs): return {"messages": [{"role": r, "content": c} for r, c in pairs]}


@pytest.mark.parametrize(
    "line, said",
    [
        ("nonsense", "no object"),
        ("[]", "no object"),
        ({"prompt": "x"}, "no object"),
        ({"messages": "x"}, "no list"),
        ({"messages": ["x"]}, "no list"),
        ({"messages": []}, "doesn't end with"),
        (messages(("human", "x"), ("assistant", "positive")), "role 'human'"),
        (messages(("user", "x"), ("system", "y"), ("assistant", "positive")), "system message"),
        (messages(("user", "x")), "doesn't end"),
        (messages(("assistant", "positive")), "doesn't end"),
        (messages(("user", " "), ("assistant", "positive")), "without content"),
        (messages(("user", None), ("assistant", "positive")), "without content"),
        (messages(("user", "x"), ("assistant", "so-so")), "'so-so' is none of the labels"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, said):
    path = tmp_path / "f.jsonl"
    bad = line if isinstance(line, str) else json.dumps(line)
    path.write_text(
        "\n".join(
            [json.dumps(GOOD)] * 11 + [bad] + [json.dumps(GOOD).replace("positive", "negative")]
        )
        + "\n",
        encoding="utf-8",
    )
    with pytest.raises(InputError, match=said) as e:
        check_fine_tuning_file(path, ["negative", "positive"])
    assert e.value.problems[0].startswith(f"{path}:12 –") and len(e.value.problems) == 1


def test_every_label_has_to_occur(tmp_path):
    (tmp_path / "f.jsonl").write_text("\n".join([json.dumps(GOOD)] * 12), encoding="utf-8")
    with pytest.raises(InputError, match="no line answers 'negative'"):
        check_fine_tuning_file(tmp_path / "f.jsonl", ["negative", "positive"])
    assert check_fine_tuning_file(tmp_path / "f.jsonl", ["positive"]).to_dict() == {"positive": 12}
    with pytest.raises(InputError, match="no such file"):
        check_fine_tuning_file(tmp_path / "none", ["positive"])


def test_a_job_from_file_to_model(server, key, tmp_path):
    path, got = tmp_path / "f.jsonl", {}
    path.write_bytes(
        "".join(json.dumps(GOOD, ensure_ascii=False) + "\n" for _ in range(12)).encode()
        + "é\r\n--x".encode()
    )
    stages = iter(["queued", "paused", "running", "succeeded"])
    def files(raw):
        got["file"] = raw
        return {"id": "file-1"}
    def jobs(body):
        got.setdefault("job", body)
        return {
            "id": "job-1",
            "status": next(stages) if isinstance(body, bytes) else "queued",
            "fine_tuned_model": "m:1",
        }
    with server([error(429)], {"/v1/files": files, "/v1/fine_tuning/jobs": jobs}) as (
        url, script, seen
    ):
        assert upload_file(end(url, key), path) == "file-1"
        assert create_job(end(url, key), "file-1", "file-2") == "job-1"
        assert wait_for_job(end(url, key), "job-1", every=0) == "m:1"
    assert path.read_bytes() in got["file"]
    assert b'name="purpose"\r\n\r\nfine-tune\r\n' in got["file"]
    assert got["job"] == {
        "model": "tiny-gpt2",
        "training_file": "file-1",
        "validation_file": "file-2",
    }
    kind = seen[1][1]["Content-Type"]
    assert kind.startswith("multipart/form-data; boundary=")
    assert got["file"].endswith(f"--{kind.partition('=')[2]}--\r\n".encode())


def test_a_job_is_not_started_twice(server, key, tmp_path):
    (tmp_path / "f").write_text("x")
    for script in ([error(500)] * 3, [(200, {"id": "j"}, {}, 0.4)] * 3):
        for start in (lambda e: create_job(e, "file-1"), lambda e: upload_file(e, tmp_path / "f")):
            with server(script) as (url, left, seen), pytest.raises(InputError):
                start(end(url, key, timeout=0.15))
            assert len(seen) == 1
    with server([error(429), error(429)], {"/v1/fine": lambda body: {"id": "j"}}) as (
        url, left, seen
    ):
        assert create_job(end(url, key), "f") == "j" and len(seen) == 3


@pytest.mark.parametrize(
    "reply, said",
    [
        ({"status": "failed", "error": {"message": "line 7"}}, "failed: line 7"),
        ({"status": "failed", "error": None}, "failed: no reason"),
        ({"status": "cancelled"}, "cancelled: no reason given – if that was not you"),
        ({"status": "failed", "error": {"message": None}}, "failed: no reason"),
        ({"status": "failed", "error": {"message": f"bad {KEY}"}}, "failed: bad .key."),
        ({"status": "succeeded"}, "no fine_tuned_model"),
        ({"id": "j"}, "no status"),
        ({"status": "running"}, "still running after 0.03 s"),
    ],
)
def test_a_job_that_ends_otherwise(server, key, reply, said):
    with (
        server(routes={"/v1/fine": lambda body: reply}) as (url, *_),
        pytest.raises(InputError, match=said) as e,
    ):
        wait_for_job(end(url, key), "j", every=0.01, longest=0.03)
    assert "\n" not in str(e.value)
