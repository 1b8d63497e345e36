"""Distil a pre-trained `tiny-gpt2` from a sentence encoder: the second stage of the shipped checkpoint.

    python scripts/distil.py --corpus reviews.txt sentences.csv --student data/models/tiny-gpt2 --out data/models/tiny-gpt2 --work runs/distil

The student's state at the end token, mapped linearly, is drawn towards the teacher's embedding of the
same text (cosine), away from those of the other texts of the batch (contrastive cross-entropy, scale 20),
and the student goes on predicting the next token. Like the pre-training it can be stopped and started again.
"""
import argparse, csv, math, os, random, re, time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cosine_similarity, cross_entropy, normalize
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from course_lib.models import find_model
from course_lib.tokens import batches, epoch_order, pad_batch
from pretrain import documents


def passages(paths, limit, seed=0):
    "Pieces of one to three sentences, 5 to 60 words, each text once."
    rng, out = random.Random(seed), set()
    for text in documents(paths):
        sentences = [s for s in re.split(r"(?<=[.!?])\s+", text) if s.strip()]
        while sentences:
            n = rng.choice((1, 1, 2, 3))
            piece, sentences = " ".join(sentences[:n]), sentences[n:]
            if 5 <= len(piece.split()) <= 60: out.add(piece)
    out = sorted(out)
    rng.shuffle(out)
    return out[:limit]


@torch.inference_mode()
def teach(texts, teacher):
    "The teacher's embeddings: mean over real tokens, length one; (texts, width) in 16 bits."
    tokenizer, model = AutoTokenizer.from_pretrained(find_model(teacher)), AutoModel.from_pretrained(find_model(teacher), dtype=torch.float32).eval()
    ids = tokenizer(texts, truncation=True, max_length=96)["input_ids"]
    out = np.zeros((len(texts), model.config.hidden_size), dtype=np.float16)
    for rows in batches(sorted(range(len(ids)), key=lambda i: len(ids[i])), 64):
        batch = pad_batch([{"input_ids": ids[i]} for i in rows], tokenizer.pad_token_id)
        mask = batch["attention_mask"].unsqueeze(-1)
        states = model(**batch).last_hidden_state
        out[rows] = normalize((states * mask).sum(1) / mask.sum(1)).numpy()
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--student", "--out", "--work"): p.add_argument(name, required=True)
    p.add_argument("--corpus", nargs="+", required=True)
    p.add_argument("--teacher", default="minilm")
    p.add_argument("--texts", type=int, default=60_000)
    p.add_argument("--epochs", type=int, default=2)
    p.add_argument("--batch-size", type=int, default=64)
    p.add_argument("--learning-rate", type=float, default=1e-3)
    args = p.parse_args()
    work = Path(args.work); work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    texts = passages(args.corpus, args.texts)
    if not (work / "teacher.npy").exists(): np.save(work / "teacher.npy", teach(texts, args.teacher))
    targets = torch.from_numpy(np.load(work / "teacher.npy")).float()
    tokenizer = AutoTokenizer.from_pretrained(args.student)
    model = AutoModelForCausalLM.from_pretrained(args.student, dtype=torch.float32, resid_pdrop=0., embd_pdrop=0., attn_pdrop=0.)
    bridge = torch.nn.Linear(model.config.n_embd, targets.shape[1])
    ids = tokenizer(texts, truncation=True, max_length=96)["input_ids"]
    optimizer = torch.optim.AdamW([*model.parameters(), *bridge.parameters()], lr=args.learning_rate, weight_decay=0.01, fused=True)
    plan = [b for e in range(args.epochs) for b in batches(epoch_order(len(texts), 0, e), args.batch_size) if len(b) == args.batch_size]
    step, log, state, start, seconds = 0, [], work / "state.pt", time.time(), 0.
    if state.exists():
        s = torch.load(state, weights_only=True)
        model.load_state_dict(s["model"]); bridge.load_state_dict(s["bridge"]); optimizer.load_state_dict(s["optimizer"])
        step, log, seconds = s["step"], s["log"], s["seconds"]
    print(f"{len(texts):,} texts, step {step} of {len(plan)}", flush=True)
    tokens = log[-1]["tokens"] if log else 0
    while step < len(plan):
        rows = plan[step]
        batch = pad_batch([{"input_ids": ids[i]} for i in rows], tokenizer.pad_token_id)
        mask, goal = batch["attention_mask"], targets[rows]
        states = model.transformer(**batch).last_hidden_state
        pupil = bridge(states[torch.arange(len(rows)), mask.sum(-1) - 1])
        cosine = 1 - cosine_similarity(pupil, goal).mean()
        contrast = cross_entropy(20 * normalize(pupil) @ goal.T, torch.arange(len(rows)))
        real = mask[:, 1:].bool()
        language = cross_entropy(model.lm_head(states[:, :-1][real]), batch["input_ids"][:, 1:][real])
        loss = cosine + 0.5 * contrast + 0.3 * language
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
        rate = args.learning_rate * min(1, (step + 1) / 50) * (1 + math.cos(math.pi * step / len(plan))) / 2
        for g in optimizer.param_groups: g["lr"] = rate
        optimizer.step(); optimizer.zero_grad()
        step += 1; tokens += int(mask.sum())
        if step % 100 == 0 or step == len(plan):
            seconds += time.time() - start; start = time.time()
            log.append(dict(tokens=tokens, cosine=round(cosine.item(), 4), contrastive=round(contrast.item(), 4), language_model=round(language.item(), 4), learning_rate=rate, seconds=round(seconds)))
            print(step, log[-1], flush=True)
            tmp = state.with_suffix(".tmp")
            torch.save(dict(model=model.state_dict(), bridge=bridge.state_dict(), optimizer=optimizer.state_dict(), step=step, log=log, seconds=seconds), tmp)
            os.replace(tmp, state)
    out = Path(args.out)
    for k in ("resid_pdrop", "embd_pdrop", "attn_pdrop"): setattr(model.config, k, 0.1)
    model.half().save_pretrained(out); tokenizer.save_pretrained(out)
    with open(out / "log_distil.csv", "w", newline="") as f:
        w = csv.DictWriter(f, list(log[0])); w.writeheader(); w.writerows(log)


if __name__ == "__main__":
    main()
