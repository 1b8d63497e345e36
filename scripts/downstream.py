"""What a checkpoint is worth: fine-tune it over several seeds and put the scores into `data/models/downstream.csv`.

    python scripts/downstream.py tiny-bert --real COURSE_REAL_DATA [--plain runs/tiny-bert/plain] [--work runs/downstream]

Beside the shipped (distilled) weights stand random ones and, with `--plain`, those before distilling; `minilm` is an extra
and has one kind. Lines of the same task and model are replaced, the others are left. Each fine-tune is kept in `--work`,
so this can be stopped and started again.
"""
import argparse, hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification

from course_lib.data import fingerprint, load_data, shipped
from course_lib.evaluation import tfidf_baseline
from course_lib.files import write_atomically
from course_lib.models import find_model, load
from course_lib.recipe import LEARNING_RATES, PRESETS
from course_lib.tokens import tokenize
from course_lib.training import fit, predict_logits

TABLE = shipped("models") / "downstream.csv"
SMALL = {1000: {"epochs": 6}, 200: {"epochs": 15, "learning_rate": 5e-4}} # of what differs from the defaults with few rows


def settings(model, task, rows):
    "Epochs, learning rate and batch size, as documented for that model and size of data."
    if model == "minilm": return {"epochs": 3, "batch_size": 32, "learning_rate": LEARNING_RATES[model]}
    default = {"epochs": 3, "batch_size": 16, "learning_rate": LEARNING_RATES[model]}
    return {**default, **(PRESETS["tiny"] if task == "reviews" else SMALL.get(rows, {}))}


def tasks(real):
    "Name -> (training rows, rows to score)."
    reviews = load_data("reviews")
    found = {"reviews": (reviews["train"], reviews["test"])}
    if real:
        rt = load_data(f"{real}/rotten_tomatoes/train.csv", f"{real}/rotten_tomatoes/validation.csv")
        for n in (len(rt["train"]), 1000, 200): found[f"rotten_tomatoes {n}"] = (rt["train"].shuffle(seed=0).select(range(n)) if n < len(rt["train"]) else rt["train"], rt["validation"])
    return found


def right(weights, folder, train, score, seed, recipe):
    "For each scored row whether a model fine-tuned with that seed got it right."
    model, tokenizer = load(folder, labels=train.features["label"].names, seed=seed)
    if weights == "scratch":
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(model.config)
    tokens = tokenize({"train": train, "score": score}, tokenizer)
    fit(model, tokens["train"], seed=seed, **recipe)
    return predict_logits(model, tokens["score"]).argmax(-1).numpy() == np.array(score["label"][:])


def seeds_right(weights, folder, task, train, score, recipe, seeds, work):
    "The same for several seeds: (seeds, rows); what was computed before is read from `work`."
    files = ("config.json", "tokenizer.json") + (() if weights == "scratch" else ("model.safetensors",))
    mark = hashlib.sha256(b"".join(Path(folder, f).read_bytes() for f in files) + f"{recipe}".encode()).hexdigest()[:8]   # another model or recipe, another run
    found = []
    for seed in range(seeds):
        key = work / f"{task} {weights} {seed} {fingerprint(train)[:6]} {fingerprint(score)[:6]} {mark}.npy".replace(" ", "_")
        if not key.exists():
            ok = right(weights, folder, train, score, seed, recipe)
            write_atomically(key, lambda path: np.save(open(path, "wb"), ok))
            print(key.stem, f"{ok.mean():.3f}", flush=True)
        found.append(np.load(key))
    return np.array(found)


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


def line(ok, words, scratch):
    "Scores of one kind of weights: accuracy, and what was won over word counts and over random weights, each with its interval."
    named = lambda prefix, values: dict(zip((prefix, f"{prefix}_low", f"{prefix}_high"), values))
    found = {"seeds": len(ok), "n": ok.shape[1], "tfidf": round(float(words.mean()), 4), **named("accuracy", interval(ok)), **named("over_tfidf", interval(ok, words))}
    return found if scratch is None else {**found, **named("over_scratch", interval(ok, scratch))}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", choices=sorted(LEARNING_RATES)); p.add_argument("--plain"); p.add_argument("--real"); p.add_argument("--work", default="runs/downstream")
    p.add_argument("--seeds", type=int, default=5); p.add_argument("--tasks", nargs="*")
    args = p.parse_args()
    lines, shipped_folder = [], find_model(args.model)
    kinds = {"as published": shipped_folder} if args.model == "minilm" else {"scratch": shipped_folder, **({"plain": args.plain} if args.plain else {}), "distilled": shipped_folder}
    for task, (train, score) in tasks(args.real).items():
        if args.tasks and task not in args.tasks: continue
        recipe = settings(args.model, task, len(train))
        words = tfidf_baseline(train, score["text"][:]).argmax(-1) == np.array(score["label"][:])
        ok = {kind: seeds_right(kind, folder, task, train, score, recipe, args.seeds, Path(args.work) / args.model) for kind, folder in kinds.items()}
        for part, chosen in parts(task, score).items():
            for kind, folder in kinds.items():
                weights_hash = "" if kind == "scratch" else hashlib.sha256(Path(folder, "model.safetensors").read_bytes()).hexdigest()[:12]
                scratch = ok["scratch"][:, chosen] if "scratch" in ok and kind != "scratch" else None
                lines.append({"task": part, "rows": len(train), "model": args.model, "weights": kind, "sha256": weights_hash, **recipe, **line(ok[kind][:, chosen], words[chosen], scratch)})
    new, old = pd.DataFrame(lines), pd.read_csv(TABLE) if TABLE.exists() else None
    if old is not None: new = pd.concat([old[~(old["task"] + old["model"]).isin(new["task"] + new["model"])], new])
    write_atomically(TABLE, lambda path: new.to_csv(path, index=False))
    print(pd.DataFrame(lines).to_string())


if __name__ == "__main__":
    main()
