"""Kill `promote` and `add` at random moments: the registry is as before or as after, never between.

`python tests/kill_promote.py [--runs 50]`. A child promotes two versions in turns, or adds new
ones, as fast as it can, and reports each through a pipe once it is done. It is killed (SIGKILL) at
a random moment. Then the registry must hold all that was reported and at most one more, every
version must verify, and the next call must work. The children are forked, so that nothing is
imported anew.
"""
import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from course_lib.registry import open_registry
from course_lib.store import current

NAME = "reviews"


def write_run(folder: Path, text: str) -> Path:
    "Something that has the files of a run."
    (folder / "model").mkdir(parents=True)
    recipe = {"task": "text-classification", "classes": {"negative": 1, "positive": 1}}
    (folder / "recipe.json").write_text(json.dumps({**recipe, "text": text}))
    (folder / "model/config.json").write_text("{}")
    (folder / "model/model.safetensors").write_bytes(text.encode() * 20_000)
    return folder


def promote(place: Path, runs: list, done) -> None:
    registry = open_registry(place)
    version = current(registry.events_of(NAME), "production") or 2
    while True:
        version = 3 - version
        registry.promote(NAME, version, force=True)
        done()


def add(place: Path, runs: list, done) -> None:
    registry = open_registry(place)
    for run in runs:
        registry.add(run, NAME)
        done()


def kill(job, place: Path, runs: list, seconds: float) -> int:
    "Do it in a child that is killed some time after its first report; how many it reported."
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try: job(place, runs, lambda: os.write(into, b"."))
        finally: os._exit(1)
    os.close(into)
    assert select.select([out], [], [], 60)[0], "the child does nothing"
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    reported = b""
    while piece := os.read(out, 65536): reported += piece
    os.close(out)
    return len(reported)


def try_promote(work: Path, rng: random.Random, runs: int) -> dict:
    "How many kills, how many of them left a journal, how many happened before the report."
    place = work / "registry"
    registry = open_registry(place)
    for text in "ab": registry.add(write_run(work / text, text), NAME)
    found = {"killed": 0, "with a journal": 0, "done but not reported": 0}
    moves = 0
    for _ in range(runs):
        reported = kill(promote, place, [], rng.uniform(0, 0.1))
        found["killed"] += 1
        found["with a journal"] += (place / "registry.db-journal").exists()
        history = registry.history(NAME)
        unreported = len(history) - moves - reported
        assert unreported in (0, 1), (len(history), moves, reported)
        found["done but not reported"] += unreported
        moves = len(history)
        last = int(history["version"].iloc[-1])
        assert registry.resolve(NAME) == registry.resolve(f"{NAME}@{last}")
    registry.promote(NAME, 1, force=True)
    return found


def try_add(work: Path, rng: random.Random, runs: int) -> dict:
    "How many kills, how many in the middle of a copy, how many files without a version."
    place = work / "added"
    registry = open_registry(place)
    found = {"killed": 0, "with half a copy": 0, "with files but no version": 0}
    known = 0
    for i in range(runs):
        written = [write_run(work / f"run_{i}_{j}", f"run {i} {j}") for j in range(20)]
        reported = kill(add, place, written, rng.uniform(0, 0.05))
        versions = registry.list(NAME)
        assert len(versions) - known - reported in (0, 1), (len(versions), known, reported)
        known = len(versions)
        assert list(versions["version"]) == list(range(1, len(versions) + 1))
        for version in versions["version"]: registry.resolve(f"{NAME}@{version}")
        objects = [p for p in (place / "objects").iterdir() if p.name != ".new"]
        found["killed"] += 1
        found["with half a copy"] += (place / "objects/.new").exists()
        found["with files but no version"] = len(objects) - len(versions)
        for run in written: shutil.rmtree(run)
    assert registry.add(write_run(work / "last", "last"), NAME) == known + 1
    assert not (place / "objects/.new").exists()
    return found


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--runs", type=int, default=50)
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    for name, attempt in (("promote", try_promote), ("add", try_add)):
        with tempfile.TemporaryDirectory() as work:
            found = attempt(Path(work), random.Random(args.seed), args.runs)
        told = ", ".join(f"{n} {what}" for what, n in found.items())
        print(f"{name}: {told}; {args.runs} of {args.runs} as before or as after", flush=True)
    if not found["killed"]: sys.exit("nothing was killed: nothing was shown")


if __name__ == "__main__":
    main()
