"""What the shipped checkpoints are worth: fine-tune them, and others, over several seeds, and write `data/models/downstream.csv`.

    python scripts/downstream.py --plain runs/plain [--real COURSE_REAL_DATA] [--work runs/downstream] [--only tiny-gpt2]

Arms are the shipped (distilled) checkpoints, the plain ones in `--plain/tiny-gpt2` and so on, random weights, and
`minilm` (an extra). Finished runs are kept in `--work`, so it can be stopped and started again.
"""
import argparse, hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification

from course_lib.data import fingerprint, load_data, shipped
from course_lib.evaluation import tfidf_baseline
from course_lib.models import find_model, load
from course_lib.tokens import tokenize
from course_lib.training import fit, predict_logits, write_atomically

EPOCHS = {200: 15, 1000: 6} # of the smaller training sets; 3 of the others
RATES = {"tiny-gpt2": 5e-4, "tiny-bert": 5e-4, "tiny-t5": 5e-4, "minilm": 5e-5}


def tasks(real):
    "Name -> (training rows, rows to score)."
    reviews = load_data("reviews")
    found = {"reviews": (reviews["train"], reviews["test"])}
    if real:
        rt = load_data(f"{real}/rotten_tomatoes/train.csv", f"{real}/rotten_tomatoes/validation.csv")
        for n in (len(rt["train"]), 1000, 200): found[f"rotten_tomatoes {n}"] = (rt["train"].shuffle(seed=0).select(range(n)) if n < len(rt["train"]) else rt["train"], rt["validation"])
    return found


def right(model_name, weights, folder, train, score, seed):
    "For each scored row whether a model fine-tuned with that seed got it right."
    model, tokenizer = load(folder, labels=train.features["label"].names, seed=seed)
    if weights == "scratch":
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(model.config)
    tokens = tokenize({"train": train, "score": score}, tokenizer)
    fit(model, tokens["train"], epochs=EPOCHS.get(len(train), 3), learning_rate=RATES[model_name], seed=seed, batch_size=32 if model_name == "minilm" else 16)
    return predict_logits(model, tokens["score"]).argmax(-1).numpy() == np.array(score["label"][:])


def interval(ok, beside=None, draws=4000):
    "Mean over seeds and rows with a 95 % bootstrap interval that resamples both; of the difference if there is something beside."
    rng, difference = np.random.default_rng(0), ok.astype(float) - (0 if beside is None else beside)
    seeds, rows = difference.shape
    means = [difference[rng.integers(seeds, size=seeds)][:, rng.integers(rows, size=rows)].mean() for _ in range(draws)]
    return [round(float(x), 4) for x in (difference.mean(), *np.percentile(means, [2.5, 97.5]))]


def parts(task, score):
    "The scored rows as a whole and, for the reviews, slice by slice."
    whole = {task: np.ones(len(score), dtype=bool)}
    if task != "reviews": return whole
    of = pd.read_csv(shipped("reviews.csv")).set_index("text")["slice"]
    found = np.array([of[t] for t in score["text"]])
    return whole | {f"reviews, {name}": found == name for name in sorted(set(found))}


def summary(task, rows, model, weights, ok, words, scratch):
    "A line of the table: accuracy, and what was won over word counts and over random weights, each with its interval."
    named = lambda prefix, values: dict(zip((prefix, f"{prefix}_low", f"{prefix}_high") if prefix != "accuracy" else ("accuracy", "low", "high"), values))
    line = {"task": task, "rows": rows, "model": model, "weights": weights, "seeds": len(ok), "n": ok.shape[1], "tfidf": round(float(words.mean()), 4), **named("accuracy", interval(ok)), **named("over_tfidf", interval(ok, words))}
    return line if scratch is None or weights == "scratch" else {**line, **named("over_scratch", interval(ok, scratch))}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--plain"); p.add_argument("--real"); p.add_argument("--work", default="runs/downstream")
    p.add_argument("--seeds", type=int, default=5); p.add_argument("--only", nargs="*"); p.add_argument("--tasks", nargs="*")
    args = p.parse_args()
    work, out, table = Path(args.work), shipped("models") / "downstream.csv", []
    for task, (train, score) in tasks(args.real).items():
        if args.tasks and task not in args.tasks: continue
        words = tfidf_baseline(train, score["text"][:]).argmax(-1) == np.array(score["label"][:])
        by_arm = {}
        for name in args.only or [n for n in RATES if n == "minilm" or shipped(f"models/{n}").is_dir()]:
            for weights in ("scratch", "plain", "distilled") if name.startswith("tiny") else ("as published",):
                folder = find_model(f"{args.plain}/{name}" if weights == "plain" else name)
                if weights == "plain" and not args.plain: continue
                files = ("config.json", "tokenizer.json") + (() if weights == "scratch" else ("model.safetensors",))
                mark = hashlib.sha256(b"".join(Path(folder, f).read_bytes() for f in files) + f"{RATES[name]} {EPOCHS}".encode()).hexdigest()[:8]   # another model or recipe, another run
                found = []
                for seed in range(args.seeds):
                    key = work / f"{task} {name} {weights} {seed} {fingerprint(train)[:6]} {fingerprint(score)[:6]} {mark}.npy".replace(" ", "_")
                    if not key.exists():
                        ok = right(name, weights, folder, train, score, seed)
                        write_atomically(key, lambda path: np.save(open(path, "wb"), ok))
                        print(key.stem, f"{ok.mean():.3f} against {words.mean():.3f}", flush=True)
                    found.append(np.load(key))
                by_arm[name, weights] = np.array(found)
        for part, chosen in parts(task, score).items(): table += [summary(part, len(train), *arm, ok[:, chosen], words[chosen], by_arm[arm[0], "scratch"][:, chosen] if (arm[0], "scratch") in by_arm else None) for arm, ok in by_arm.items()]
    if not (args.only or args.tasks): pd.DataFrame(table).to_csv(out, index=False)      # never a part of the table
    print(pd.DataFrame(table).to_string())


if __name__ == "__main__":
    main()
