"""Attack a server; after each attack it has to be ready. By hand:

    python tests/attack_server.py RUN --cases 10000

Starts `serve(RUN)` in a process of its own. First requests made by schemathesis from the server's
own description: right ones, and ones that break it in one place; no status of 500 or above, none
that isn't documented, each answer in its documented form. Then by hand what no client would send:
slow, endless and half-closed connections, 100 MB, JSON that is broken in many ways, huge batches,
paths that lead out.
"""
import argparse
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from load_server import memory, start_server

CONFIG = """
[checks]
negative_data_rejection.expected-statuses = ["4xx"]
positive_data_acceptance.expected-statuses = ["2xx", "422"]
"""
ROUND = 2000 # cases with one seed
JSON = "Content-Type: application/json\r\n"
BODIES = {
    "bad UTF-8": b'{"text": "\xff\xfe"}', "UTF-16": "{}".encode("utf-16"),
    "deep lists": b"[" * 10**6, "deep objects": b'{"a":' * 10**5, "NaN": b'{"text": NaN}',
    "infinity": b'{"text": "a", "truncate": -Infinity}',
    "huge number": b'{"texts": ' + b"9" * 10**5,
    "1e999": b'{"text": "a", "truncate": 1e999}', "equal keys": b'{"text":"a","text":"b"}',
    "surrogate": b'{"text": "\\udfff"}', "nothing": b"", "a NUL": b"\x00", "null": b"null",
    "empty batch": b'{"texts": []}', "nested texts": b'{"texts": [["a"]]}',
    "huge batch": json.dumps({"texts": ["a"] * 100_000}).encode(),
    "33 texts": json.dumps({"texts": ["a"] * 33}).encode(),
    "a million letters": json.dumps({"text": "a" * 10**6}).encode(),
    "a million words": json.dumps({"text": "a " * 5 * 10**5}).encode(),
    "marks upon marks": json.dumps({"text": "e" + "\u0301" * 50_000}).encode()}
PATHS = ["/../../../etc/passwd", "/%2e%2e%2f%2e%2e%2fetc/passwd", "//etc/passwd", "/predict%00",
         "/\\..\\..\\windows", "/predict;a=b", "/./predict/../..//", "/" + "a" * 15_000, "/%zz",
         "/docs", "/.git/config", "/predict/" + "../" * 1000]


def talk(port: int, *pieces: bytes, half_close: bool = False, pause: float = 0.0) -> bytes:
    "What the server says before it closes the connection."
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            if half_close: connection.shutdown(socket.SHUT_WR)
        except ConnectionError: pass
        try:
            while piece := connection.recv(2**16): said += piece
        except ConnectionError: pass
    return said


def post(body: bytes, more: str = JSON, path: str = "/predict") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def status(reply: bytes) -> int: # 0 for none
    found = re.match(rb"HTTP/1\.1 (\d+)", reply)
    return int(found[1]) if found else 0


def connections(port: int) -> dict: # attack: (status that came, those that may)
    "What is wrong below the content."
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\n{JSON}".encode()
    chunk = b"10000\r\n" + b"a" * 2**16 + b"\r\n"
    right = post(b'{"text": "a"}')
    attacks = {
        "silence": ([], {}, {0}), "half a header": ([head], {}, {408}),
        "a letter at a time": ([b"P", *[b"O"] * 30], {"pause": 0.1}, {400, 408}),
        "a slow body": ([head + b"Content-Length: 100\r\n\r\n", *[b"a"] * 30], {"pause": 0.1},
                        {408}),
        "a body cut off": ([head + b"Content-Length: 100\r\n\r\n{"], {"half_close": True}, {408}),
        "half-closed": ([right], {"half_close": True}, {200}),
        "100 MB": ([head + b"Content-Length: 104857600\r\n\r\n", *[b"a" * 2**20] * 100], {}, {413}),
        "100 MB in chunks": ([head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 1600], {},
                             {413}),
        "negative length": ([head + b"Content-Length: -1\r\n\r\n"], {}, {400}),
        "huge length": ([head + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n"], {}, {400, 413}),
        "two lengths": ([head + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"], {}, {400}),
        "length and chunks": ([head + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"],
                              {}, {400}),
        "bad chunk": ([head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"], {}, {400, 408}),
        "long header": ([head + b"X-A: " + b"a" * 10**6 + b"\r\n\r\n"], {}, {431}),
        "many headers": ([head + b"X-A: b\r\n" * 50_000 + b"\r\n"], {}, {431}),
        "TLS": ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)], {}, {400}),
        "HTTP/2": ([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], {}, {400, 505}),
        "no host": ([b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"], {}, {421}),
        "a foreign host": ([right.replace(b"localhost", b"evil.example")], {}, {421}),
        "a form": ([post(b"text=a", "Content-Type: application/x-www-form-urlencoded\r\n")], {},
                   {415}),
        "upgrade": ([right.replace(b"Connection: close",
                                   b"Connection: upgrade, close\r\nUpgrade: websocket")], {},
                    {200, 400, 426})}
    return {what: (status(talk(port, *pieces, **how)), wanted)
            for what, (pieces, how, wanted) in attacks.items()}


def by_hand(port: int, ready) -> dict: # attack: status; ready() is asked after each
    "All attacks of this file."
    found = {}
    for what, body in BODIES.items():
        found[what] = status(talk(port, post(body)))
        assert 400 <= found[what] < 500 or what == "marks upon marks", (what, found[what])
        ready()
    for path in PATHS:
        found[path[:30]] = status(talk(port, post(b"{}", path=path)))
        assert 400 <= found[path[:30]] < 500, (path, found[path[:30]])
        ready()
    for what, (came, wanted) in connections(port).items():
        found[what] = came
        assert came in wanted, (what, came, wanted)
        ready()
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    ready()
    for connection in idle: connection.close()
    return found


def by_schema(url: str, cases: int, *more: str) -> str: # what schemathesis says at the end
    "Requests made from the description. SystemExit if one of them finds something."
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "schemathesis.toml")
        config.write_text(CONFIG)
        command = ["schemathesis", "--config-file", str(config), "run", url, "--max-examples",
                   str(cases), "--phases", "examples,coverage,fuzzing", "--no-color", *more]
        program = Path(sys.executable).with_name(command[0])
        done = subprocess.run([str(program), *command[1:]], cwd=folder, capture_output=True,
                              text=True)
    if done.returncode: raise SystemExit(done.stdout[-5000:] + done.stderr[-2000:])
    return re.search(r"(?m)^Test cases:\n.*$", done.stdout)[0]


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("run")
    ask.add_argument("--cases", type=int, default=2000)
    given = ask.parse_args()
    process, port = start_server(given.run, patience=1.0)
    drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
    def ready():
        assert httpx.get(f"http://127.0.0.1:{port}/ready", timeout=60).status_code == 200
    try:
        before = memory(process.pid)
        for seed in range(-(-given.cases // ROUND)): # many at once take schemathesis far longer
            cases = min(ROUND, given.cases)
            print(by_schema(f"http://127.0.0.1:{port}/openapi.json", cases, "--seed", str(seed)))
            ready()
        for what, came in by_hand(port, ready).items(): print(f"{what:32} {came or 'closed'}")
        print(f"memory {before:.0f} → {memory(process.pid):.0f} MiB")
        process.terminate()
        assert process.wait(timeout=30) == 0
    finally: process.kill()
    drain.wait()


if __name__ == "__main__": main()
