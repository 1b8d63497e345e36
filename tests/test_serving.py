"""The server: limits hold, errors have one form, batches change nothing, no request is lost."""
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import attack_server
import httpx
import load_server
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from course_lib.errors import InputError
from course_lib.server import STATUSES, Limits, Refused, in_thread, read_json, request_id
from course_lib.serving import (Batcher, Source, create_app, find_source, read_request, read_token,
                                serve)


class Toy:
    "An answerer that needs no model: how long each text is."
    task, max_tokens = "text-classification", 50

    def __init__(self, name="toy@1", seconds=0.0): self.name, self.seconds = name, seconds

    def answer(self, texts):
        time.sleep(self.seconds)
        if "broken" in texts: raise RuntimeError("the model failed")
        if texts[0].endswith(20 * "."): raise ValueError(f"can't read {texts}")
        if "bad" in texts: raise InputError("text 1 – is bad – leave it out")
        return [{"text": text, "label": str(len(text)), "by": self.name} for text in texts]

    def count_tokens(self, texts): return [max(len(t.split()), len(t) // 8) for t in texts]


class Holds:
    "A source that holds one answerer."
    def __init__(self, model): self.model = model

    def current(self):
        if self.model is None: raise Refused(503, "no model", retry_after="1")
        return self.model


def app_of(model=None, limits=None, **more):
    more.setdefault("say", lambda event, **line: None)
    return create_app(Holds(model or Toy()), limits, **more)


def client_of(app): return TestClient(app, "http://localhost")


def error_of(reply): # its status; the form is checked
    found = reply.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert found["type"] == STATUSES[reply.status_code][0]
    return reply.status_code


def test_answers_come_in_order_and_name_their_model():
    reply = client_of(app_of()).post("/predict", json={"texts": ["a", "bcd", "ef"]})
    assert reply.status_code == 200 and reply.json()["model"] == "toy@1"
    assert [a["label"] for a in reply.json()["answers"]] == ["1", "3", "2"]


BAD = [("no JSON", b"{", 400), ("not UTF-8", b'{"text": "\xff"}', 400), ("nothing", b"", 400),
       ("deep", b'{"text": ' + b"[" * 50_000, 400), ("NaN", b'{"text": NaN}', 400),
       ("twice", b'{"text": "a", "text": "b"}', 400), ("surrogate", b'{"text": "\\ud800"}', 400),
       ("a list", b'["a"]', 422), ("none", b"{}", 422), ("both", b'{"text":"a","texts":[]}', 422),
       ("number", b'{"text": 1}', 422), ("null", b'{"texts": [null]}', 422),
       ("no texts", b'{"texts": []}', 422), ("blank", b'{"text": " \\n "}', 422),
       ("unknown", b'{"text": "a", "x": 1}', 422), ("cut?", b'{"text":"a","truncate":"no"}', 422),
       ("many", json.dumps({"texts": ["a"] * 33}).encode(), 413), ("model", b'{"text":"bad"}', 422),
       ("large", b'{"text": "' + b"a" * 2**20 + b'"}', 413),
       ("long", json.dumps({"text": "word " * 60}).encode(), 422)]


@pytest.mark.parametrize("body, status", [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_body_is_a_clear_error(body, status):
    reply = client_of(app_of()).post("/predict", content=body,
                                     headers={"Content-Type": "application/json"})
    assert error_of(reply) == status and " – " in reply.json()["error"]["message"]


@pytest.mark.parametrize("kind, status", [
    ("application/json", 200), ("application/json; charset=utf-8", 200),
    ('Application/JSON;charset="UTF-8"', 200), ("text/plain", 415), ("", 415),
    ("application/json; charset=utf-16", 415), ("application/x-www-form-urlencoded", 415)])
def test_content_types(kind, status):
    reply = client_of(app_of()).post("/predict", content=b'{"text": "a"}',
                                     headers={"Content-Type": kind})
    assert reply.status_code == status


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["text", "texts", "truncate", "a"]), inner, max_size=4)
).map(lambda value: json.dumps(value).encode())))
def test_any_body_is_answered_or_refused_in_the_one_form(body):
    try: texts, truncate = read_request(read_json(body), Limits())
    except Refused as e: assert e.status in (400, 413, 422)
    else: assert all(isinstance(text, str) and text.strip() for text in texts)


def test_a_long_text_is_cut_only_if_asked():
    client, long = client_of(app_of()), "word " * 60
    assert error_of(client.post("/predict", json={"text": long})) == 422
    assert client.post("/predict", json={"text": long, "truncate": True}).status_code == 200
    umlauts = "ä " * 51
    assert error_of(client.post("/predict", json={"text": umlauts})) == 422


def test_paths_and_methods():
    client = client_of(app_of())
    for path in ("/nothing", "/predict/", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/docs",
                 "/static/..%2f..%2fetc", "/predict%00", "/redoc"):
        assert error_of(client.get(path)) == 404, path
    reply = client.get("/predict")
    assert error_of(reply) == 405 and reply.headers["Allow"] == "POST"
    assert client.get("/health").json() == {"status": "alive"}


def test_only_the_names_of_this_machine_are_hosts():
    client = client_of(app_of())
    for host in ("127.0.0.1", "localhost:80", "[::1]:8000", "LOCALHOST"):
        assert client.get("/ready", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", ""):
        assert error_of(client.get("/ready", headers={"Host": host})) == 421
    anywhere = client_of(app_of(hosts=None))
    assert anywhere.get("/ready", headers={"Host": "evil.example"}).status_code == 200


def test_a_token_is_asked_for_where_it_should_be():
    client = client_of(app_of(token="open-sesame"))
    for path in ("/", "/health", "/ready", "/openapi.json"):
        assert client.get(path).status_code == 200
    for header in ({}, {"Authorization": "Bearer open-sesam"}, {"Authorization": "open-sesame"},
                   {"Authorization": "Basic open-sesame"}, {"Authorization": "Bearer é"}):
        encoded = {k: v.encode() for k, v in header.items()}
        reply = client.post("/predict", json={"text": "a"}, headers=encoded)
        assert error_of(reply) == 401 and reply.headers["WWW-Authenticate"] == "Bearer"
        assert error_of(client.get("/metrics", headers=encoded)) == 401
    key = {"Authorization": "bearer open-sesame"}
    assert client.post("/predict", json={"text": "a"}, headers=key).status_code == 200
    described = client.get("/openapi.json").json()
    assert "401" in described["paths"]["/predict"]["post"]["responses"]


def test_no_model_yet():
    client = client_of(create_app(Holds(None), say=lambda *_, **__: None))
    assert client.get("/health").status_code == 200
    for reply in (client.get("/ready"), client.post("/predict", json={"text": "a"})):
        assert error_of(reply) == 503 and reply.headers["Retry-After"] == "1"


def test_logs_carry_ids_and_times_and_no_texts():
    lines = []
    client = client_of(app_of(say=lambda event, **more: lines.append((event, more))))
    reply = client.post("/predict", json={"text": "my secret"}, headers={"X-Request-Id": "ab-1"})
    client.post("/predict", json={"text": "my secret 1", "x": 2})
    client.post("/predict", json={"text": "broken"})
    assert reply.headers["X-Request-Id"] == "ab-1"
    assert lines[0][1]["id"] == "ab-1" and lines[0][1]["texts"] == 1 and lines[0][1]["ms"] > 0
    client.post("/predict", json={"text": "my secret".ljust(33, ".")})
    assert "secret" not in json.dumps(lines)
    assert [event for event, _ in lines] == ["request", "request", *["fault", "request"] * 2]
    told = []
    chatty = client_of(app_of(say=lambda event, **more: told.append(more), log_texts=True))
    chatty.post("/predict", json={"text": "my words"})
    assert told[0]["content"] == ["my words"]


@pytest.mark.parametrize("odd", [b"a" * 65, b"a b", b"\xff", b"<script>", b"", b"a\nb"])
def test_an_odd_id_is_replaced(odd):
    made = request_id(odd)
    assert len(made) == 32 and made != odd.decode("latin-1")


def test_metrics_count_what_happened():
    client = client_of(app_of())
    for text in ("a", "b", ""): client.post("/predict", json={"text": text})
    for i in range(50): client.get(f"/nothing/{i}")
    text = client.get("/metrics").text
    assert 'course_requests_total{path="/predict",status="200"} 2.0' in text
    assert 'course_requests_total{path="/predict",status="422"} 1.0' in text
    assert 'course_requests_total{path="other",status="404"} 50.0' in text
    assert "nothing" not in text and "course_batch_texts_count" in text


def test_a_watcher_sees_every_batch_and_can_fail_nothing():
    seen = []
    def watch(texts, answers):
        seen.extend(texts)
        raise ValueError("a broken watcher")
    app = app_of(watch=watch)
    client = client_of(app)
    for text in "abc": assert client.post("/predict", json={"text": text}).status_code == 200
    app.state.service.batcher.thread.shutdown()
    assert seen == ["a", "b", "c"]


def gather(batcher, requests):
    async def all_of():
        return await asyncio.gather(*map(batcher.ask, requests), return_exceptions=True)
    return asyncio.run(all_of())


def test_batches_are_filled_and_answers_stay_with_their_requests():
    sizes = []
    def answer(texts):
        sizes.append(len(texts))
        return [text.upper() for text in texts]
    requests = [[f"{i}.{j}" for j in range(i % 5 + 1)] for i in range(100)]
    found = gather(Batcher(answer, max_batch=16), requests)
    assert found == [[text.upper() for text in texts] for texts in requests]
    assert max(sizes) <= 16 and len(sizes) < 30 and sum(sizes) == sum(map(len, requests))


def test_one_bad_request_fails_alone():
    def answer(texts):
        if "x" in texts: raise InputError("x – is bad – leave it out")
        return texts
    found = gather(Batcher(answer), [["a"], ["x"], ["b"]])
    assert found[0] == ["a"] and found[2] == ["b"] and isinstance(found[1], InputError)


def test_what_doesn_t_fit_is_refused_and_room_comes_back():
    batcher = Batcher(lambda texts: texts, max_batch=4, max_waiting=8)
    found = gather(batcher, [[str(i)] for i in range(20)])
    refused = [f for f in found if isinstance(f, Refused)]
    assert len(refused) == 12 and all(f.status == 503 for f in refused)
    assert int(refused[0].headers["retry-after"]) >= 1 and batcher.waiting == 0


def test_after_the_deadline_nothing_is_read_any_more():
    release, read = threading.Event(), []
    def answer(texts):
        read.extend(texts)
        release.wait(5)
        return texts
    async def run():
        batcher = Batcher(answer, max_batch=1, deadline=0.2)
        found = await asyncio.gather(*[batcher.ask([t]) for t in "abc"], return_exceptions=True)
        release.set()
        await batcher.working
        return found
    found = asyncio.run(run())
    assert [f.status for f in found] == [503] * 3 and read == ["a"]


def test_a_slow_first_batch_locks_nobody_out():
    batcher = Batcher(lambda texts: texts, deadline=0.5)
    batcher.speed = 0.01 # texts a second
    assert gather(batcher, [["a"]]) == [["a"]]


def test_the_queue_is_refused_when_it_would_be_too_late():
    batcher = Batcher(lambda texts: texts, deadline=5)
    batcher.speed = 1 # text a second
    found = gather(batcher, [[str(i)] for i in range(20)])
    assert [isinstance(f, Refused) for f in found] == [False] * 5 + [True] * 15


def test_a_source_follows_and_a_broken_version_changes_nothing():
    meant, broken = ["m@1"], set()
    def load(place, name):
        if name in broken: raise InputError("no model there – at all – really")
        return Toy(name)
    source = Source(lambda: meant[0], lambda name: name, load, say=lambda *_, **__: None)
    with pytest.raises(Refused): source.current()
    source.refresh()
    first = source.current()
    source.refresh()
    assert source.current() is first and source.loads == 1
    meant[0] = "m@2"
    source.refresh()
    assert source.current().name == "m@2"
    meant[0] = "m@3"
    broken.add("m@3")
    with pytest.raises(InputError): source.refresh()
    assert source.current().name == "m@2"


def test_versions_are_swapped_between_two_batches():
    "Each answer of a request comes from the version that the reply names, while versions change."
    source, app = Holds(Toy("v@0")), None
    app = create_app(source, say=lambda *_, **__: None)
    names, done = set(), threading.Event()
    def swap():
        number = 0
        while not done.wait(0.002):
            number += 1
            source.model = Toy(f"v@{number}")
    swapper = threading.Thread(target=swap)
    swapper.start()
    with in_thread(app) as address, httpx.Client(base_url=address) as client:
        for _ in range(200):
            found = client.post("/predict", json={"texts": ["a", "b", "c"]}).json()
            assert {a["by"] for a in found["answers"]} == {found["model"]}
            names.add(found["model"])
        done.set()
    swapper.join()
    assert len(names) > 5


def test_the_page_holds_no_address_and_runs_only_its_own_script():
    reply = client_of(app_of()).get("/")
    assert "http:" not in reply.text and "https:" not in reply.text and "src=" not in reply.text
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_each_status_is_documented_with_the_form_of_errors():
    app = app_of()
    described = client_of(app).get("/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if status == "200": continue
                content = response["content"]["application/json"]
                assert content["example"]["error"]["type"] == STATUSES[int(status)][0]
    body = described["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert body["example"]["texts"] and "1,048,576 bytes" in described["info"]["description"]


@pytest.mark.parametrize("token", ["short", "has a space", "non-äscii-token", "line\nbreaks!"])
def test_tokens_that_no_header_carries(token):
    with pytest.raises(InputError, match="is no token"): read_token(token, None)


def test_where_a_token_comes_from(tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_TOKEN", raising=False)
    assert read_token(None, None) is None
    monkeypatch.setenv("COURSE_TOKEN", "of-the-environment")
    assert read_token(None, None) == "of-the-environment"
    (tmp_path / "token").write_text("of-the-file\n")
    assert read_token(None, str(tmp_path / "token")) == "of-the-file"
    with pytest.raises(InputError): read_token(None, str(tmp_path / "none"))


def test_what_can_t_be_served_is_said_before_anything_is_loaded(tmp_path):
    with pytest.raises(InputError, match="no run folder"): serve(tmp_path)
    with pytest.raises(InputError, match="no run folder"): serve("./nothing")
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "recipe.json").write_text("{}")
    with pytest.raises(InputError, match="is no port"): serve(run, port=70_000)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(InputError, match="can't be listened on"):
            serve(run, port=taken.getsockname()[1])
    assert find_source(str(run), "").look() == "run"


def test_a_stage_of_the_registry_is_followed(tmp_path):
    registry = pytest.importorskip("course_lib.registry").open_registry(tmp_path / "registry")
    from course_lib.models import load
    from course_lib.runs import save_model
    for seed in (0, 1):
        model, tokenizer = load("tiny-gpt2", labels=["no", "yes"], seed=seed)
        run = tmp_path / f"run{seed}"
        save_model(run / "model", model, tokenizer)
        recipe = {"task": "text-classification", "classes": {"no": 1, "yes": 1}, "max_length": 64}
        (run / "recipe.json").write_text(json.dumps(recipe))
        registry.add(run, "reviews")
    with pytest.raises(InputError): find_source("reviews", str(tmp_path / "registry"))
    registry.promote("reviews", 1)
    source = find_source("reviews", str(tmp_path / "registry"))
    pinned = find_source("reviews@1", str(tmp_path / "registry"))
    source.refresh()
    first = source.current()
    registry.promote("reviews", 2, force=True)
    for one in (source, pinned): one.refresh()
    assert [one.current().name for one in (source, pinned)] == ["reviews@2", "reviews@1"]
    new, old, kept = (one.answer(["a film"]) for one in (source.current(), first, pinned.current()))
    assert new != old == kept
    registry.rollback("reviews")
    source.refresh()
    assert source.current().name == "reviews@1"


TASKS = {"text-classification": ("tiny-bert", ["no", "yes"]), "text-generation": ("tiny-gpt2", []),
         "token-classification": ("tiny-bert", ["O", "B-PER", "I-PER"]),
         "question-answering": ("tiny-bert", []), "summarization": ("tiny-t5", []),
         "translation": ("tiny-t5", [])}


@pytest.mark.parametrize("task", TASKS)
def test_a_run_of_every_task_is_served_with_an_example(task, tmp_path):
    from course_lib.models import load
    from course_lib.runs import predict, save_model
    name, labels = TASKS[task]
    model, tokenizer = load(name, task, labels or None)
    save_model(tmp_path / "run/model", model, tokenizer)
    recipe = {"task": task, "model": name, "classes": dict.fromkeys(labels, 1), "max_length": 64}
    (tmp_path / "run/recipe.json").write_text(json.dumps(recipe))
    source = find_source(str(tmp_path / "run"), "")
    source.refresh()
    client = client_of(create_app(source, say=lambda *_, **__: None))
    post = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    asked = post["requestBody"]["content"]["application/json"]["example"]
    answered = post["responses"]["200"]["content"]["application/json"]["example"]
    reply = client.post("/predict", json=asked)
    assert reply.json() == answered and reply.json()["model"] == "run"
    assert reply.json()["answers"] == predict(tmp_path / "run", asked["texts"])
    assert client.get("/").status_code == 200
    long = {"text": asked["texts"][0] + " word" * 400}
    windows = task in ("token-classification", "question-answering")
    assert client.post("/predict", json=long).status_code == (200 if windows else 422)
    if task == "question-answering":
        assert error_of(client.post("/predict", json={"text": "no context"})) == 422


def test_a_model_that_talks_gets_the_routes_of_a_chat():
    pytest.importorskip("course_lib.completions")
    from course_lib.serving import RunModel, add_chat
    model = RunModel("tiny-gpt2", "talker")
    app = create_app(Holds(model), say=lambda *_, **__: None)
    add_chat(app, model)                       # it has no template yet
    client = client_of(app)
    assert error_of(client.get("/v1/models")) == 404
    model.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    for name in ("talker@1", "talker@2"):
        model.name = name
        add_chat(app, model)
        assert client.get("/v1/models").json()["data"][0]["id"] == name
    asked = {"model": "talker@2", "messages": [{"role": "user", "content": "Hello"}],
             "max_tokens": 4}
    reply = client.post("/v1/chat/completions", json=asked)
    assert reply.status_code == 200 and reply.json()["choices"][0]["message"]["role"] == "assistant"
    assert client.post("/predict", json={"text": "Hello"}).json()["model"] == "talker@2"
    assert "/v1/chat/completions" in client.get("/openapi.json").json()["paths"]


# ------------------------------------------------------------------ a real server

SERVER = """
import sys, time
sys.path.insert(0, {tests!r})
from test_serving import Holds, Toy
from course_lib.server import Limits, make_server
from course_lib.serving import create_app, listen
limits = Limits(patience={patience}, notice=0.3, deadline=5)
app = create_app(Holds(Toy(seconds={seconds})), limits)
listener = listen("127.0.0.1", 0)
print(listener.getsockname()[1], flush=True)
make_server(app).run(sockets=[listener])
"""


@pytest.fixture
def start(tmp_path):
    running = []
    def begin(seconds=0.0, patience=0.5):
        code = SERVER.format(tests=str(ROOT / "tests"), seconds=seconds, patience=patience)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                                   stderr=open(tmp_path / "log", "w"), text=True,
                                   env={**os.environ, "PYTHONPATH": str(ROOT)})
        running.append(process)
        port = int(process.stdout.readline())
        until(lambda: is_ready(port))
        return process, port
    yield begin
    for process in running: process.kill()
    for process in running: process.wait()


def until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it didn't happen in time"
        time.sleep(0.02)


def is_ready(port) -> bool:
    try: return httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200
    except httpx.HTTPError: return False


def talk(port, *pieces, half_close=False, pause=0.0) -> bytes:
    "What the server says to these bytes until it closes."
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        said = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            if half_close: connection.shutdown(socket.SHUT_WR)
        except OSError: pass                   # it has hung up while we were sending
        try:
            while piece := connection.recv(65536): said += piece
        except ConnectionResetError: pass
        return said


HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"text": "a"}'
WHOLE = HEAD + b"Content-Length: 13\r\n\r\n" + BODY


def test_hostile_connections_get_a_clear_error_or_are_closed(start):
    _, port = start()
    assert talk(port) == b""
    assert talk(port, HEAD).startswith(b"HTTP/1.1 408")
    assert talk(port, *[b"POST /"] * 1, *[b"x"] * 8, pause=0.1).startswith(b"HTTP/1.1 408")
    assert talk(port, HEAD + b"X-A: " + b"a" * 70_000).startswith(b"HTTP/1.1 431")
    assert talk(port, HEAD + b"X-A: " + b"a" * 20_000 + b"\r\nConnection: close\r\n\r\n"
                ).startswith(b"HTTP/1.1 431")
    assert talk(port, b"GET /" + b"a" * 30_000 + b" HTTP/1.1\r\nConnection: close\r\n\r\n"
                ).startswith(b"HTTP/1.1 431")
    assert talk(port, HEAD + b"Content-Length: 13\r\n\r\n{").startswith(b"HTTP/1.1 408")
    assert talk(port, b"\x16\x03\x01\x02\x00\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert talk(port, HEAD + b"Content-Length: x\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert talk(port, HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
                ).startswith(b"HTTP/1.1 400")
    assert talk(port, WHOLE, half_close=True).startswith(b"HTTP/1.1 200")
    chunk = b"%x\r\n%s\r\n" % (2**16, b"a" * 2**16)
    reply = talk(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 40)
    assert reply.startswith(b"HTTP/1.1 413")
    asked = HEAD + b"Expect: 100-continue\r\nContent-Length: 104857600\r\n\r\n"
    assert b"connection: close" in talk(port, asked)
    assert is_ready(port)


def test_a_hundred_megabytes_are_refused_unread(start):
    process, port = start()
    reply = talk(port, HEAD + b"Content-Length: 104857600\r\n\r\n", *[b"a" * 2**20] * 100)
    assert reply.startswith(b"HTTP/1.1 413") and is_ready(port)


def test_a_pipelined_pair_and_an_expectation(start):
    _, port = start()
    reply = talk(port, WHOLE + WHOLE.replace(b"Content-Type", b"Connection: close\r\nContent-Type"))
    assert reply.count(b"HTTP/1.1 200") == 2
    asked = HEAD + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 13\r\n\r\n"
    assert b"100 Continue" in talk(port, asked, BODY)


def test_many_idle_connections_are_let_go(start):
    _, port = start()
    idle = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(200)]
    assert is_ready(port)
    for connection in idle: assert connection.recv(1) == b""


def test_a_stopped_server_answers_what_it_has_accepted(start, tmp_path):
    process, port = start(seconds=0.2, patience=10)
    replies, closed = [], []
    def ask():
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            while True:
                try: reply = client.post("/predict", json={"text": "a"})
                except httpx.ConnectError: return
                replies.append(reply.status_code)
                if reply.headers.get("connection") == "close": return closed.append(1)
    clients = [threading.Thread(target=ask) for _ in range(16)]
    for client in clients: client.start()
    until(lambda: len(replies) > 20)
    process.send_signal(signal.SIGTERM)
    until(lambda: not is_ready(port))
    for client in clients: client.join()
    assert process.wait(timeout=20) == 0
    assert set(replies) == {200} and len(closed) == 16
    lines = [json.loads(line) for line in Path(tmp_path / "log").read_text().splitlines()]
    predicted = [line for line in lines if line.get("path") == "/predict"]
    assert len(predicted) == len(replies) and {line["status"] for line in predicted} == {200}


def test_all_that_attack_server_does_by_hand(start):
    process, port = start()
    def ready(): assert is_ready(port) and process.poll() is None
    found = attack_server.by_hand(port, ready)
    assert len(found) > 50


def test_requests_made_from_the_description(start):
    pytest.importorskip("schemathesis")
    _, port = start()
    said = attack_server.by_schema(f"http://127.0.0.1:{port}/openapi.json", 100, "--seed", "1")
    assert int(re.search(r"(\d+) passed", said)[1]) > 150 and is_ready(port)


def under_load(port, clients, seconds, **more):
    texts = ["a" * n for n in range(1, 50)]
    wanted = [{"text": text, "label": str(len(text)), "by": "toy@1"} for text in texts]
    return asyncio.run(load_server.load(port, texts, wanted, clients, seconds, **more))


def test_under_load_no_answer_is_lost_or_wrong(start):
    process, port = start(patience=10)
    found = under_load(port, 32, 2, stop=load_server.never)
    assert set(found["statuses"]) == {200} and found["statuses"][200] > 100 and not found["wrong"]


def test_too_much_load_gives_200_and_503_in_time_and_no_growing_memory(start):
    process, port = start(seconds=0.3, patience=10)   # at most 64 texts in 0.3 s, 512 may wait
    under_load(port, 64, 0.5, stop=load_server.never)
    before = load_server.memory(process.pid)
    found = under_load(port, 700, 3, stop=load_server.never)
    assert set(found["statuses"]) == {200, 503} and not found["wrong"]
    assert found["p99_ms"] < 5000              # the deadline
    assert load_server.memory(process.pid) < before + 60 and is_ready(port)


def test_a_stop_under_load_loses_no_request(start):
    process, port = start(seconds=0.05, patience=10)
    def stop_soon():
        time.sleep(0.7)
        process.send_signal(signal.SIGTERM)
    stopper = threading.Thread(target=stop_soon)
    stopper.start()
    found = under_load(port, 32, 20)
    stopper.join()
    assert set(found["statuses"]) == {200} and not found["wrong"] and process.wait(20) == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "A run folder of a model that has learned nothing."
    from course_lib.models import load
    from course_lib.runs import save_model
    folder = tmp_path_factory.mktemp("served") / "run"
    model, tokenizer = load("tiny-gpt2", labels=["no", "yes"])
    save_model(folder / "model", model, tokenizer)
    recipe = {"task": "text-classification", "classes": {"no": 1, "yes": 1}, "max_length": 64}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder


def serving(run, **environment): # (process, what it has logged, filled while it runs)
    code = f"from course_lib.serving import serve; serve({str(run)!r}, port=0)"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": str(ROOT), **environment})
    said = []
    threading.Thread(target=lambda: said.extend(process.stderr), daemon=True).start()
    return process, said


def test_serve_lives_before_it_is_ready_and_asks_for_its_token(run):
    process, said = serving(run, COURSE_TOKEN="open-sesame")
    try:
        until(lambda: said)
        address = json.loads(said[0])["url"]
        with httpx.Client(base_url=address) as client:
            assert client.get("/health").status_code == 200
            early = client.get("/ready")
            assert error_of(early) == 503 and early.headers["Retry-After"] == "1"
            until(lambda: client.get("/ready").status_code == 200, seconds=60)
            assert error_of(client.post("/predict", json={"text": "a"})) == 401
            key = {"Authorization": "Bearer open-sesame"}
            reply = client.post("/predict", json={"text": "a"}, headers=key).json()
        assert reply["model"] == "run" and set(reply["answers"][0]["scores"]) == {"no", "yes"}
        process.terminate()
        assert process.wait(20) == 0
        until(lambda: json.loads(said[-1])["event"] == "stopped")
        assert not any("open-sesame" in line for line in said)
    finally: process.kill()


def test_a_model_that_can_t_be_loaded_ends_the_server(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/model/model.safetensors").write_bytes(b"no weights")
    process, said = serving(tmp_path / "run")
    try: assert process.wait(60) != 0
    finally: process.kill()
    until(lambda: any("InputError" in line and " – " in line for line in said))


def test_without_the_extra_a_line_says_what_to_install():
    code = "import sys; sys.modules['fastapi'] = None; import course_lib.serving"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode and "pip install 'course-lib[serve]'" in done.stderr.splitlines()[-1]
