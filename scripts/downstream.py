"""What a checkpoint is worth: fine-tune it over several seeds and record the scores.

    python scripts/downstream.py tiny-bert --real COURSE_REAL_DATA \\
        [--plain runs/tiny-bert/plain] [--work runs/downstream]

The table is `data/models/downstream.csv`. Beside the shipped (distilled) weights stand random ones
and, with `--plain`, those before distilling; `minilm` is downloaded and has one kind. Lines of the
same task and model are replaced, the others are left. Each fine-tune is kept in `--work`, so this
can be stopped and started again.
"""
import argparse
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification

from course_lib.data import fingerprint, load_data
from course_lib.counting import tfidf_baseline
from course_lib.files import shipped, write_atomically
from course_lib.loading import find_model
from course_lib.models import load
from course_lib.recipe import LEARNING_RATES, PRESETS
from course_lib.tokens import tokenize
from course_lib.training import fit, predict_logits

TABLE = shipped("models") / "downstream.csv"
SMALL = {1000: {"epochs": 6}, 200: {"epochs": 15, "learning_rate": 5e-4}} # what few rows change


def settings(model, task, rows):
    "Epochs, learning rate and batch size, as documented for that model and size of data."
    default = {"epochs": 3, "batch_size": 16, "learning_rate": LEARNING_RATES[model]}
    if model == "minilm": return {**default, "batch_size": 32}
    if task == "reviews": return {**default, **PRESETS["tiny"]}
    return {**default, **SMALL.get(rows, {})}


def tasks(real):
    "Name -> (training rows, rows to score)."
    reviews = load_data("reviews")
    found = {"reviews": (reviews["train"], reviews["test"])}
    if not real: return found
    folder = f"{real}/rotten_tomatoes"
    rt = load_data(f"{folder}/train.csv", f"{folder}/validation.csv")
    train, score = rt["train"], rt["validation"]
    found[f"rotten_tomatoes {len(train)}"] = (train, score)
    for n in (1000, 200):
        found[f"rotten_tomatoes {n}"] = (train.shuffle(seed=0).select(range(n)), score)
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


def mark_of(weights, folder, recipe):
    "Eight letters that change with the model and the recipe."
    files = ["config.json", "tokenizer.json"]
    if weights != "scratch": files.append("model.safetensors")
    content = b"".join(Path(folder, f).read_bytes() for f in files)
    return hashlib.sha256(content + f"{recipe}".encode()).hexdigest()[:8]


def seeds_right(weights, folder, task, train, score, recipe, seeds, work):
    "The same for several seeds: (seeds, rows); what was computed before is read from `work`."
    data = f"{fingerprint(train)[:6]} {fingerprint(score)[:6]}"
    mark = mark_of(weights, folder, recipe)
    found = []
    for seed in range(seeds):
        key = work / f"{task} {weights} {seed} {data} {mark}.npy".replace(" ", "_")
        if not key.exists():
            ok = right(weights, folder, train, score, seed, recipe)
            write_atomically(key, lambda path: np.save(open(path, "wb"), ok))
            print(key.stem, f"{ok.mean():.3f}", flush=True)
        found.append(np.load(key))
    return np.array(found)


def interval(ok, beside=None, draws=4000):
    """Mean over seeds and rows with a 95 % bootstrap interval that resamples both; of the
    difference if there is something beside."""
    rng = np.random.default_rng(0)
    difference = ok.astype(float) - (0 if beside is None else beside)
    seeds, rows = difference.shape
    means = []
    for _ in range(draws):
        of_seeds = difference[rng.integers(seeds, size=seeds)]
        means.append(of_seeds[:, rng.integers(rows, size=rows)].mean())
    low, high = np.percentile(means, [2.5, 97.5])
    return [round(float(x), 4) for x in (difference.mean(), low, high)]


def parts(task, score):
    "The scored rows as a whole and, for the reviews, slice by slice."
    whole = {task: np.ones(len(score), dtype=bool)}
    if task != "reviews": return whole
    of = pd.read_csv(shipped("reviews.csv")).set_index("text")["slice"]
    found = np.array([of[t] for t in score["text"]])
    return whole | {f"reviews, {name}": found == name for name in sorted(set(found))}


def named(prefix, values): return dict(zip((prefix, f"{prefix}_low", f"{prefix}_high"), values))


def line(ok, words, scratch):
    """Scores of one kind of weights: accuracy, and what was won over word counts and over random
    weights, each with its interval."""
    found = {"seeds": len(ok), "n": ok.shape[1], "tfidf": round(float(words.mean()), 4),
             **named("accuracy", interval(ok)), **named("over_tfidf", interval(ok, words))}
    if scratch is None: return found
    return {**found, **named("over_scratch", interval(ok, scratch))}


def kinds_of(model, plain):
    "Kind of weights -> folder."
    shipped_folder = find_model(model)
    if model == "minilm": return {"as published": shipped_folder}
    found = {"scratch": shipped_folder}
    if plain: found["plain"] = plain
    return {**found, "distilled": shipped_folder}


def hash_of(kind, folder):
    "Which weights these were; nothing for random ones."
    if kind == "scratch": return ""
    return hashlib.sha256(Path(folder, "model.safetensors").read_bytes()).hexdigest()[:12]


def lines_of(task, train, score, args):
    "The lines of the table for one task: a line for each part of its rows and kind of weights."
    recipe = settings(args.model, task, len(train))
    kinds = kinds_of(args.model, args.plain)
    words = tfidf_baseline(train, score["text"][:]).argmax(-1) == np.array(score["label"][:])
    work = Path(args.work) / args.model
    ok = {kind: seeds_right(kind, folder, task, train, score, recipe, args.seeds, work)
          for kind, folder in kinds.items()}
    lines = []
    for part, chosen in parts(task, score).items():
        for kind, folder in kinds.items():
            beside = None if kind == "scratch" or "scratch" not in ok else ok["scratch"][:, chosen]
            lines.append({"task": part, "rows": len(train), "model": args.model, "weights": kind,
                          "sha256": hash_of(kind, folder), **recipe,
                          **line(ok[kind][:, chosen], words[chosen], beside)})
    return lines


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", choices=sorted(LEARNING_RATES))
    p.add_argument("--plain")
    p.add_argument("--real")
    p.add_argument("--work", default="runs/downstream")
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--tasks", nargs="*")
    args = p.parse_args()
    lines = []
    for task, (train, score) in tasks(args.real).items():
        if not args.tasks or task in args.tasks: lines += lines_of(task, train, score, args)
    new = pd.DataFrame(lines)
    print(new.to_string())
    if TABLE.exists():
        old = pd.read_csv(TABLE)
        replaced = (old["task"] + old["model"]).isin(new["task"] + new["model"])
        new = pd.concat([old[~replaced], new])
    write_atomically(TABLE, lambda path: new.to_csv(path, index=False))


if __name__ == "__main__":
    main()
