"""Load a server and look at every answer. By hand:

    python tests/load_server.py RUN|EXPORT --seconds 60 [--clients 32] [--pipelines RUN]

Starts `serve(RUN)` in a process of its own. Clients ask one text at a time, each as soon as it has
its last answer, over a connection that stays open. Every answer is compared with the notebook's.
Then far more clients than it can bear: only 200 and 503, 99 of 100 within the deadline, memory
flat. At the end SIGTERM under load: every request that was sent is answered. With --pipelines, the
same texts through `transformers.pipeline`, before and after; with --words 5 texts are that short.
"""
import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import uvloop

START = "import sys, json; from course_lib.serving import serve, Limits; " \
        "serve(sys.argv[1], port=0, limits=Limits(**json.loads(sys.argv[2])))"


def start_server(place, **limits): # (process, port)
    "A server on a free port, with a model loaded."
    command = [sys.executable, "-c", START, str(place), json.dumps(limits)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    port = None
    for line in process.stderr:
        if not line.startswith("{"): continue
        found = json.loads(line)
        if found["event"] == "listening": port = int(found["url"].rpartition(":")[2])
        if found["event"] == "model" and "name" in found: return process, port
    raise SystemExit(f"the server ended with code {process.wait()}")


class Client(asyncio.Protocol):
    "A connection that sends a request and waits for its answer; as little work as possible."
    def __init__(self): self.buffer, self.reply, self.closing = b"", None, False

    def connection_made(self, transport): self.transport = transport

    def data_received(self, data):
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end: return
        at = head.find(b"content-length: ") + 16
        if len(body) < int(head[at:head.find(b"\r", at) if b"\r" in head[at:] else None]): return
        self.buffer, self.closing = b"", b"connection: close" in head
        self.reply.set_result((int(head[9:12]), body))

    def connection_lost(self, exc):
        self.closing = True
        if self.reply and not self.reply.done(): self.reply.set_result((0, b"lost"))

    async def ask(self, request: bytes): # (status, body); status 0 if the connection was lost
        self.reply = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.reply


def request_for(text: str) -> bytes:
    body = json.dumps({"text": text}).encode()
    return (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)) + body


async def load(port: int, texts: list, expected: list, clients: int, seconds: float,
               stop=lambda: False) -> dict: # what came back
    "So many clients, each one text after the other."
    requests = [request_for(text) for text in texts]
    loop, until = asyncio.get_running_loop(), time.perf_counter() + seconds
    statuses, times, wrong = {}, [], []

    async def one(number: int) -> None:
        draw, client = random.Random(number), None
        while time.perf_counter() < until and not stop():
            if client is None or client.closing:
                try: _, client = await loop.create_connection(Client, "127.0.0.1", port)
                except OSError: return         # it listens no more
            i = draw.randrange(len(texts))
            start = time.perf_counter()
            status, body = await client.ask(requests[i])
            times.append(time.perf_counter() - start)
            statuses[status] = statuses.get(status, 0) + 1
            if status == 200 and not same(json.loads(body)["answers"][0], expected[i]):
                wrong.append((texts[i], body))
            if client.closing and stop is not never: return
            if status == 503: await asyncio.sleep(0.05)
        client.transport.close()

    begin = time.perf_counter()
    await asyncio.gather(*[one(number) for number in range(clients)])
    spent, times = time.perf_counter() - begin, sorted(times)
    return {"clients": clients, "seconds": round(spent, 1), "statuses": statuses,
            "wrong": len(wrong), "per_second": round(statuses.get(200, 0) / spent, 1),
            "p50_ms": round(1000 * times[len(times) // 2], 1),
            "p99_ms": round(1000 * times[int(len(times) * 0.99)], 1)}


def never() -> bool: return False


def same(found: dict, wanted: dict) -> bool:
    "The same label, and probabilities within 1e-5 and the rounding of both."
    if "scores" not in wanted: return found == wanted
    apart = max(abs(found["scores"][k] - v) for k, v in wanted["scores"].items())
    return found["label"] == wanted["label"] and apart <= 1e-5


def processor_time(pid: int) -> float: # seconds
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float: # MiB
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def pipelines(place, texts: list) -> dict: # texts a second
    from transformers import pipeline

    from course_lib.runs import load_run
    model, tokenizer, _ = load_run(place)
    ask = pipeline("text-classification", model=model, tokenizer=tokenizer)
    found = {}
    for name, how in ("one by one", {}), ("batch_size=32", {"batch_size": 32}):
        start, processor = time.perf_counter(), time.process_time()
        if how: ask(texts, truncation=True, **how)
        else: [ask(text, truncation=True) for text in texts]
        found[name] = {"wall": round(len(texts) / (time.perf_counter() - start), 1),
                       "processor": round(len(texts) / (time.process_time() - processor), 1)}
    return found


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("run")
    ask.add_argument("--seconds", type=float, default=60)
    ask.add_argument("--clients", type=int, default=32)
    ask.add_argument("--words", type=int, help="of each text, to see what short ones gain")
    ask.add_argument("--pipelines", metavar="RUN", help="ask the library's pipelines as well")
    given = ask.parse_args()
    from course_lib.data import load_data
    from course_lib.serving import open_model
    texts = [" ".join(text.split()[:given.words]) for text in load_data("reviews")["test"]["text"]]
    expected = open_model(given.run, "expected").answer(texts)
    if given.pipelines: print("pipelines before:", pipelines(given.pipelines, texts[:256]))
    process, port = start_server(given.run, deadline=5.0)
    try: check(process, port, texts, expected, given.clients, given.seconds)
    finally: process.kill()
    if given.pipelines: print("pipelines after: ", pipelines(given.pipelines, texts[:256]))


def check(process, port: int, texts: list, expected: list, clients: int, seconds: float) -> None:
    "Load, overload, end."
    drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
    def run(*how, **more): return uvloop.run(load(port, texts, expected, *how, **more))
    run(128, min(4, seconds), stop=never)      # the largest batches, so that memory is at its size
    before = memory(process.pid)
    spent = processor_time(process.pid)
    found = run(clients, seconds, stop=never)
    spent = processor_time(process.pid) - spent
    rate = found["statuses"][200] / spent
    print("load:    ", found, f"{rate:.0f} texts a second of processor time")
    assert set(found["statuses"]) == {200} and not found["wrong"], found
    over = run(1024, seconds / 2, stop=never)
    print("overload:", over, f"memory {before:.0f} → {memory(process.pid):.0f} MiB")
    assert set(over["statuses"]) <= {200, 503} and not over["wrong"], over
    assert over["p99_ms"] < 5000 and memory(process.pid) < before + 100
    asyncio.run(asyncio.sleep(0.2))
    late = run_until_term(process, port, texts, expected, clients)
    print("SIGTERM: ", late, "exit code", process.wait(timeout=30))
    assert set(late["statuses"]) == {200} and process.returncode == 0, late
    drain.wait(timeout=5)


def run_until_term(process, port, texts, expected, clients) -> dict:
    async def both():
        loop = asyncio.get_running_loop()
        loop.call_later(1, os.kill, process.pid, signal.SIGTERM)
        return await load(port, texts, expected, clients, 20)
    return uvloop.run(both())


if __name__ == "__main__": main()
