"""Kill runs at random moments, resume them, and compare what they end with, to the bit: `python tests/kill_and_resume.py [--runs 100]`

Every run is killed (SIGKILL) up to three times, wherever it happens to be: in a step, in a validation, while it writes its
checkpoint. The children are forked, so that the libraries are imported only once.
"""
import argparse, hashlib, json, os, random, signal, sys, tempfile, time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2ForSequenceClassification

from course_lib.training import fit, write_atomically

torch.set_num_threads(1)


def job(folder: Path) -> None:
    "Train a small GPT with dropout, or go on with it; write down the checksum of its weights and its losses."
    rng = torch.Generator().manual_seed(0)
    rows = [{"input_ids": torch.randint(2, 99, (int(torch.randint(3, 30, (1,), generator=rng)),), generator=rng).tolist(), "labels": i % 2} for i in range(200)]
    torch.manual_seed(0)
    model = GPT2ForSequenceClassification(GPT2Config(n_layer=2, n_embd=64, n_head=2, vocab_size=99, n_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=1))
    history = fit(model, Dataset.from_list(rows[:160]), Dataset.from_list(rows[160:]), epochs=3, batch_size=8, gradient_accumulation_steps=2, learning_rate=1e-3,
                  checkpoint=folder / "checkpoint", save_seconds=0.03, resume=True, progress=False)
    weights = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.state_dict().values())).hexdigest()
    result = json.dumps([weights, history["loss"].tolist(), history["step"].tolist()])
    write_atomically(folder / "result.json", lambda path: path.write_text(result))


def attempt(folder: Path, seconds: float | None) -> bool:
    "Run the job in a child and kill it after some seconds; whether it was killed."
    child = os.fork()
    if child == 0:
        code = 1
        try: job(folder); code = 0
        finally: os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status): raise SystemExit(f"a run failed in {folder}")
    return os.WIFSIGNALED(status)


def main():
    p = argparse.ArgumentParser(); p.add_argument("--runs", type=int, default=100); p.add_argument("--seed", type=int, default=0)
    args, rng = p.parse_args(), random.Random(p.parse_args().seed)
    with tempfile.TemporaryDirectory() as work:
        start = time.perf_counter()
        attempt(Path(work), None)
        seconds, wanted, kills, in_the_middle = time.perf_counter() - start, (Path(work) / "result.json").read_text(), 0, 0
        for i in range(args.runs):
            folder = Path(work) / str(i); folder.mkdir()
            for _ in range(3):
                if not (folder / "result.json").exists(): kills += (killed := attempt(folder, rng.uniform(0, seconds))); in_the_middle += killed and any((folder / "checkpoint").glob("*-*.pt"))
            if not (folder / "result.json").exists(): attempt(folder, None)
            if (folder / "result.json").read_text() != wanted: raise SystemExit(f"run {i} ended with other weights or another history")
    print(f"{args.runs} runs, killed {kills} times, {in_the_middle} of them with a checkpoint to go on from: all equal to the undisturbed run, to the bit")
    if not in_the_middle: sys.exit("no run was killed in its middle: nothing was shown")


if __name__ == "__main__":
    main()
