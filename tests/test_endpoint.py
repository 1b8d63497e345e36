"""A server's answers equal the local ones, and each of its failures is one line without the key."""
import ast
import gzip
import json
import logging
import math
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import numpy as np
import pytest
import torch
from conftest import ROOT
from datasets import Dataset

from course_lib import endpoint as module
from course_lib.data import load_data
from course_lib.endpoint import (
    Endpoint, call, check_fine_tuning_file, create_job, endpoint_answers, endpoint_scores,
    upload_file, wait_for_job, write_fine_tuning_file
)
from course_lib.errors import InputError
from course_lib.models import load
from course_lib.prompting import TEMPLATE, VERBALIZER, few_shot_prompt, score_labels

LONGER = {"negative": " unbearable", "positive": " unforgettable", "mixed": " so and so"}
KEY = "sk-test-0123456789"


def from_chapter(*names) -> dict:
    "Functions that the chapter doesn't export, and its imports, over the module's own names."
    def wanted(node):
        if isinstance(node, ast.FunctionDef): return node.name in names
        return isinstance(node, (ast.Import, ast.ImportFrom))

    space = dict(vars(module))
    for cell in json.loads((ROOT / "nbs/09_endpoint.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code": continue
        tree = ast.parse("".join(cell["source"]))
        tree.body = [n for n in tree.body if wanted(n)]
        exec(compile(tree, "09_endpoint", "exec"), space)
    return space


CHAPTER = from_chapter("completions", "chat")


@contextmanager
def local_server(routes, script=()): # path -> function of the body; failures to play first
    "A server on a free port of this machine; gives its address, the script, and what it was sent."
    script, seen = list(script), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append((self.path, dict(self.headers), raw))
            status, body, headers, seconds = script.pop(0) if script else (200, None, {}, 0)
            time.sleep(seconds)
            if body is None:
                answer = next(routes[p] for p in routes if self.path.startswith(p))
                body = answer(json.loads(raw) if raw[:1] == b"{" else raw)
            try: self.reply(status, headers, body)
            except OSError: pass                            # the other side has given up waiting
        do_GET = do_POST

        def reply(self, status, headers, body):
            if isinstance(body, (dict, list)): body = json.dumps(body).encode()
            pieces = [body] if isinstance(body, bytes) else body
            if isinstance(body, bytes): headers = {"Content-Length": len(body), **headers}
            self.send_response(status)
            for name, value in headers.items(): self.send_header(name, str(value))
            self.end_headers()
            for piece in pieces: self.wfile.write(piece)

        def log_message(self, *_): pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    often = {"poll_interval": 0.02}
    threading.Thread(target=server.serve_forever, kwargs=often, daemon=True).start()
    try: yield f"http://127.0.0.1:{server.server_port}/v1", script, seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def gpt():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load("tiny-gpt2", "text-generation")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def reviews(): return load_data("reviews")


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
    usual = {"/v1/completions": CHAPTER["completions"], "/v1/chat/completions": CHAPTER["chat"]}
    return lambda script=(), routes=None: local_server(routes or usual, script)


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
            "can't be reached .*peer closed connection.*, 3 times",
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
        call(end(url, key), "/x", json={})
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


class Clock:
    "The time, in which nobody sleeps."
    def __init__(self, slept: list):
        self.sleep, self.time, self.monotonic = slept.append, time.time, time.monotonic


def test_pauses(server, key, monkeypatch):
    slept = []
    monkeypatch.setattr(module, "time", Clock(slept))
    routes = {"/v1/x": lambda body: {"ok": 1}}
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
        ("http://localhost:99999/v1", "not the address"),
        ("http://localhost:0/v1", "not the address"),
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


@pytest.mark.parametrize("tries", [0, -1])
def test_at_least_one_try(tries):
    with pytest.raises(InputError, match=f"tries={tries} – is no number of tries"):
        Endpoint("http://localhost/v1", "m", tries=tries)


# What only a hostile or broken server sends

def pieces(n: int, size: int = 2**16, seconds: float = 0.0):
    "A reply without an end, as far as its reader can know."
    for _ in range(n):
        time.sleep(seconds)
        yield b" " * size


def test_a_reply_that_drips_has_an_end(server, key):
    "No silence is as long as the time limit, the whole reply is longer than ten of them."
    began = time.monotonic()
    with server([(200, pieces(500, 1, 0.02), {}, 0)]) as (url, *_):
        with pytest.raises(InputError, match="didn't finish its reply in 1 s"):
            call(end(url, key, tries=1, timeout=0.1), "/x")
    assert 1 < time.monotonic() - began < 5


def test_a_reply_too_large_is_not_read_to_its_end(server, key, monkeypatch):
    monkeypatch.setattr(module, "MAX_REPLY", 2**20)
    sent = []
    def endless():
        for piece in pieces(10_000):
            sent.append(len(piece))
            yield piece
    with server([(200, endless(), {}, 0)]) as (url, *_):
        with pytest.raises(InputError, match="sends more than 1 MiB"): call(end(url, key), "/x")
    assert sum(sent) < 64 * 2**20


def test_compressed_replies_are_not_asked_for_and_not_unpacked(server, key):
    bomb = gzip.compress(gzip.compress(b" " * 2**26))
    for coding in ("gzip, gzip", "gzip", "deflate"):
        reply = (200, bomb, {"Content-Encoding": coding}, 0)
        with server([reply]) as (url, script, seen):
            with pytest.raises(InputError, match="sends a compressed reply"):
                call(end(url, key), "/x")
        assert seen[0][1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("body", [
    b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b'"\\ud800"', b"\x1b[2J\x1b]0;title\x07"
])
def test_json_that_hurts_its_reader(server, key, body):
    with server([(200, body, {}, 0)]) as (url, *_):
        with pytest.raises(InputError, match="no JSON object") as e: call(end(url, key), "/x")
    assert str(e.value).isprintable()


def test_a_message_can_be_printed_anywhere(server, key):
    said = f"\ud800 \x1b[31m{KEY}\x00 \u202egnp.exe"
    with server([(400, {"error": {"message": said}}, {}, 0)]) as (url, *_):
        with pytest.raises(InputError, match="refused the request") as e: call(end(url, key), "/x")
    assert str(e.value).isprintable() and KEY not in str(e.value)
    str(e.value).encode()


def test_numbers_that_no_float_holds(server, key):
    logprobs = {"tokens": [" bad"], "token_logprobs": [10**400]}
    reply = {"choices": [{"index": 0, "logprobs": logprobs}]}
    with server([(200, reply, {}, 0)]) as (url, *_):
        with pytest.raises(InputError, match="no log-probabilities"):
            endpoint_scores(end(url, key), ["It was"], {"n": " bad"})


def test_what_cant_be_sent_is_not_tried_again(server, key):
    with server() as (url, script, seen):
        for text in ("half a letter \ud800",):
            with pytest.raises(InputError, match="can't be asked"):
                endpoint_scores(end(url, key), [text], VERBALIZER)
        with pytest.raises(InputError, match="can't be asked"): wait_for_job(end(url, key), "j\n")
    assert not seen


# The way there

def test_a_redirect_gets_neither_request_nor_key(server, key):
    with server(routes={"/v1": lambda body: {"ok": 1}}) as (elsewhere, _, asked):
        script = [(s, b"", {"Location": f"{elsewhere}/x"}, 0) for s in (301, 302, 307, 308)]
        with server(script) as (url, *_):
            for _ in range(4):
                with pytest.raises(InputError, match="redirects elsewhere"):
                    call(end(url, key), "/x")
    assert not asked


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "foo://x:1", "http://[::1"])
def test_a_proxy_that_cant_be_used(monkeypatch, proxy):
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(InputError, match="the proxy or the certificates") as e:
        Endpoint("https://models.example/v1", "m")
    assert "\n" not in str(e.value)
    Endpoint("http://localhost:1/v1", "m")               # is asked through none


def test_servers_elsewhere_are_asked_through_the_proxy(server, monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    for name in ("no_proxy", "NO_PROXY"): monkeypatch.delenv(name, raising=False)
    with server(routes={"http://models.example/v1/x": lambda body: {"ok": 1}}) as (url, _, seen):
        monkeypatch.setenv("http_proxy", url)
        assert call(end("http://models.example/v1", "NO_KEY"), "/x") == {"ok": 1}
    assert seen[0][0] == "http://models.example/v1/x"


def test_the_key_is_in_no_log_and_no_object(server, key, caplog):
    with caplog.at_level(logging.DEBUG), server() as (url, *_):
        endpoint = end(url, key)
        endpoint_scores(endpoint, ["It was"], VERBALIZER)
    assert caplog.records and KEY not in caplog.text
    assert KEY not in repr(endpoint) and KEY not in repr(vars(endpoint))
    assert KEY not in repr(endpoint.client.headers)


def test_a_connection_is_used_again():
    sent = []
    def answer(request):
        sent.append(request.url)
        return httpx.Response(200, json={"ok": 1})
    endpoint = Endpoint("https://models.example/v1", "m", transport=httpx.MockTransport(answer))
    client = endpoint.client
    for _ in range(3): assert call(endpoint, "/x") == {"ok": 1}
    assert endpoint.client is client and len(sent) == 3


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
