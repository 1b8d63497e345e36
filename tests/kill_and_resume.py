"""Kill runs at random moments, resume them, and compare what they end with, to the bit.

`python tests/kill_and_resume.py [--runs 20]`: a classifier, a language model, and two tasks on one
body. Every run is killed (SIGKILL) up to three times, wherever it happens to be: in a step, in a
validation, while it writes its checkpoint. The children are forked, so that the libraries are
imported only once.
"""
import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from course_lib.files import write_atomically
from course_lib.multitask import over_tasks
from course_lib.training import Task, fit

torch.set_num_threads(1)
CONFIG = GPT2Config(n_layer=2, n_embd=64, n_head=2, vocab_size=99, n_positions=32, pad_token_id=0,
                    bos_token_id=1, eos_token_id=1)


def rows_of(n, seed=0):
    "Texts of 3 to 30 tokens with a class."
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 30, (n,), generator=rng).tolist()
    texts = [torch.randint(2, 99, (length,), generator=rng).tolist() for length in lengths]
    return [{"input_ids": ids, "labels": i % 2} for i, ids in enumerate(texts)]


def next_token_loss(model, batch):
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    wanted = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)[:, 1:]
    return cross_entropy(model(**inputs).logits[:, :-1].flatten(0, 1), wanted.flatten()), {}


def classifier():
    return GPT2ForSequenceClassification(CONFIG), rows_of(160), {"validation": rows_of(40, 1)}


def language_model():
    task = Task("text-generation", next_token_loss, weight=lambda row: len(row["input_ids"]) - 1)
    return GPT2LMHeadModel(CONFIG), rows_of(160), {"validation": rows_of(40, 1), "task": task}


def two_tasks():
    first, second = (GPT2ForSequenceClassification(CONFIG) for _ in range(2))
    second.transformer = first.transformer
    train = {"a": rows_of(100), "b": rows_of(60, 1)}
    validation = {name: rows_of(20, 2) for name in train}
    plan = over_tasks(train, ["a", "b", "a"] * 10)
    return torch.nn.ModuleDict({"a": first, "b": second}), plan, {"validation": validation}


JOBS = {"classification": classifier, "language model": language_model, "two tasks": two_tasks}


def job(name: str, folder: Path) -> None:
    "Train with dropout, or go on with it; write down the checksum of the weights and the losses."
    torch.manual_seed(0)
    model, train, options = JOBS[name]()
    history = fit(model, train, epochs=3, batch_size=8, gradient_accumulation_steps=2,
                  learning_rate=1e-3, checkpoint=folder / "checkpoint", resume=True,
                  progress=False, **options)
    weights = b"".join(p.detach().numpy().tobytes() for p in model.state_dict().values())
    found = [
        hashlib.sha256(weights).hexdigest(),
        history["loss"].tolist(),
        history["step"].tolist(),
    ]
    write_atomically(folder / "result.json", lambda path: path.write_text(json.dumps(found)))


def attempt(name: str, folder: Path, seconds: float | None) -> bool:
    "Run the job in a child and kill it after some seconds; whether it was killed."
    child = os.fork()
    if child == 0:
        code = 1
        try:
            job(name, folder)
            code = 0
        finally: os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a run failed in {folder}")
    return os.WIFSIGNALED(status)


def disturb(name: str, folder: Path, seconds: float, rng: random.Random) -> tuple:
    "Kill a run up to three times, then let it end: how often, and how often with a checkpoint."
    kills = in_the_middle = 0
    for _ in range(3):
        if (folder / "result.json").exists(): break
        killed = attempt(name, folder, rng.uniform(0, seconds))
        kills += killed
        in_the_middle += killed and any((folder / "checkpoint").glob("*-*.pt"))
    if not (folder / "result.json").exists(): attempt(name, folder, None)
    return kills, in_the_middle


def try_task(name: str, runs: int, rng: random.Random) -> int:
    "An undisturbed run, then some that are killed: how many in their middle. Exits if one differs."
    with tempfile.TemporaryDirectory() as work:
        start = time.perf_counter()
        attempt(name, Path(work), None)
        seconds, wanted = time.perf_counter() - start, (Path(work) / "result.json").read_text()
        kills = in_the_middle = 0
        for i in range(runs):
            folder = Path(work) / str(i)
            folder.mkdir()
            more, middle = disturb(name, folder, seconds, rng)
            kills += more
            in_the_middle += middle
            if (folder / "result.json").read_text() != wanted:
                raise SystemExit(f"{name}: run {i} ended with other weights or another history")
    print(f"{name}: {runs} runs, killed {kills} times, {in_the_middle} of them with a checkpoint "
          "to go on from: all equal to the undisturbed run, to the bit")
    return in_the_middle


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--runs", type=int, default=20)
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    rng = random.Random(args.seed)
    shown = [try_task(name, args.runs, rng) for name in JOBS]
    if not any(shown): sys.exit("no run was killed in its middle: nothing was shown")


if __name__ == "__main__":
    main()
