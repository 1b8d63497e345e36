"""Training steps alone and beside a busy process, with and without `share_cores`.

`python tests/beside_a_busy_process.py` is not a test, since it needs a machine of which nobody else
wants anything; it takes some minutes. The candidates take turns, each in a process of its own, and
medians are kept. What it finds is written to data/machine.json, where the page on the machine
reads it.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from course_lib.machine import SETTINGS, share_cores  # noqa: E402

AS_IT_IS, VARIABLES, SHARED = "as it is", "variables at the start", "share_cores"
ALONE, BESIDE = "alone", "beside one busy process"


def train(model_name: str, steps: int, batch_size: int) -> dict:
    "Seconds, processor time and pages of some training steps; two steps before them don't count."
    import resource

    from course_lib.data import load_data
    from course_lib.models import load
    from course_lib.tokens import tokenize
    from course_lib.training import fit
    splits = load_data("reviews")
    model, tokenizer = load(model_name, labels=splits["train"].features["label"].names)
    tokens = tokenize(splits, tokenizer)["train"].select(range(steps * batch_size))
    options = {"epochs": 1, "batch_size": batch_size, "progress": False}
    fit(model, tokens.select(range(2 * batch_size)), **options)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    fit(model, tokens, **options)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "processor": processor, "pages": after.ru_minflt - before.ru_minflt}


def measure(setting: str, threads: int, *job) -> dict:
    "The same in a process of its own, with that setting."
    plain = {k: v for k, v in os.environ.items() if k not in SETTINGS}
    environment = {**plain, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    if setting == VARIABLES: environment.update(SETTINGS)
    command = [sys.executable, __file__, "--child", setting, *map(str, job)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def waiting(rounds: int, steps: int) -> list:
    "Seconds with two threads, for each setting alone and beside a busy process."
    found = {(setting, beside): [] for setting in (AS_IT_IS, SHARED) for beside in (ALONE, BESIDE)}
    for _ in range(rounds):
        for setting, beside in found:
            busy = None
            if beside == BESIDE: busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            try: result = measure(setting, 2, "tiny-gpt2", steps, 16)
            finally:
                if busy: busy.kill()
            found[setting, beside].append(result["seconds"])
            print(f"{setting:12} {beside:24} {result['seconds']:7.2f} s", file=sys.stderr)
    medians = {key: round(statistics.median(values), 2) for key, values in found.items()}
    return [{"setting": setting, **{beside: medians[setting, beside] for beside in (ALONE, BESIDE)}}
            for setting in (AS_IT_IS, SHARED)]


def memory(rounds: int, steps: int) -> list:
    "Processor time and pages with one thread, for each model and setting."
    settings = (AS_IT_IS, VARIABLES, SHARED)
    found = {(model, setting): [] for model in ("tiny-gpt2", "minilm") for setting in settings}
    for _ in range(rounds):
        for model, setting in found:
            result = measure(setting, 1, model, steps, 16)
            found[model, setting].append(result)
            print(f"{model:10} {setting:24} {result['processor']:6.2f} s", file=sys.stderr)
    rows = []
    for (model, setting), results in found.items():
        processor = statistics.median(r["processor"] for r in results)
        pages = statistics.median(r["pages"] for r in results)
        rows.append({"model": model, "setting": setting, "processor time (s)": round(processor, 2),
                     "pages fetched": round(pages, -3)})
    return rows


def this_machine() -> str:
    "Processor, cores and the version of torch, in words."
    from importlib.metadata import version
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line]
    kind = names[0] if names else platform.processor()
    return f"{kind}, {os.cpu_count()} cores, {platform.system()}, torch {version('torch')}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", type=Path, default=ROOT / "data/machine.json")
    arguments = parser.parse_args()
    if arguments.child:
        setting, model, steps, batch_size = arguments.child
        if setting == SHARED: assert share_cores(), "numpy or torch is loaded already"
        print(json.dumps(train(model, int(steps), int(batch_size))))
        return
    found = {"machine": this_machine(), "rounds": arguments.rounds,
             "steps": waiting(arguments.rounds, arguments.steps),
             "memory": memory(arguments.rounds, 20)}
    arguments.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
