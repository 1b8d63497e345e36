"""Pre-train the shipped `tiny-gpt2`: a byte-level BPE tokenizer, then next-token prediction.

    python scripts/pretrain.py --corpus books/*.txt reviews.txt --out data/models/tiny-gpt2 --work runs/pretrain

It can be stopped at any time and started again with the same arguments: it goes on from the
last state in `--work`. The learning rate is warmed up, held, and let down over the last fifth
(warm-up, stable, decay: Hu et al. 2024, MiniCPM), so that a longer run can share the held part.
"""
import argparse, csv, math, os, random, time
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from course_lib.tokens import train_tokenizer

SHAPE = dict(n_layer=4, n_embd=192, n_head=6, n_positions=256)


def documents(paths):
    "Every text of `paths`: a line of a .txt with one text a line, a paragraph of a book, the `text` column of a .csv."
    for path in map(Path, paths):
        if path.suffix == ".csv":
            with open(path, encoding="utf-8", newline="") as f:
                yield from (row["text"] for row in csv.DictReader(f))
        else:
            text = path.read_text(encoding="utf-8")
            blocks = text.split("\n\n") if text.count("\n\n") > 100 else text.split("\n")
            yield from (" ".join(b.split()) for b in blocks if len(b.split()) > 5)


def prepare(args):
    "Train the tokenizer and write the token ids, once; later starts read them back."
    work = Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    ids = work / "ids.npz"
    if not ids.exists():
        texts = list(documents(args.corpus))
        random.Random(0).shuffle(texts)
        tokenizer = train_tokenizer(texts, args.vocab_size, model_max_length=SHAPE["n_positions"])
        tokenizer.save_pretrained(work / "tokenizer")
        encoded = tokenizer.backend_tokenizer.encode_batch(texts)
        held = max(1, len(texts) // 100)
        parts = {"validation": encoded[:held], "train": encoded[held:]}
        np.savez(ids, **{k: np.concatenate([np.array(e.ids, dtype=np.uint16) for e in v]) for k, v in parts.items()})
    return np.load(ids), work


def rate(step, steps, peak):
    "Warm-up over 2 %, then `peak`, then linear to zero over the last fifth."
    return peak * min(1, (step + 1) / (0.02 * steps), (steps - step) / (0.2 * steps))


def chunks(ids, length, seed):
    "The token stream cut into rows of `length`, from a random start, in random order."
    rng = np.random.default_rng(seed)
    start = rng.integers(length)
    rows = (len(ids) - start) // length
    return ids[start:start + rows * length].reshape(rows, length)[rng.permutation(rows)]


@torch.inference_mode()
def perplexity(model, ids, length, rows=400):
    model.eval()
    x = torch.from_numpy(ids[: len(ids) // length * length].reshape(-1, length)[:rows].astype(np.int64))
    losses = [model(input_ids=b, labels=b).loss.item() * len(b) for b in x.split(8)]
    model.train()
    return math.exp(sum(losses) / len(x))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--corpus", nargs="+", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--work", required=True)
    p.add_argument("--tokens", type=float, default=10e6)
    p.add_argument("--batch-size", type=int, default=8)
    p.add_argument("--learning-rate", type=float, default=1.5e-3)
    p.add_argument("--vocab-size", type=int, default=8192)
    p.add_argument("--threads", type=int, default=0)
    args = p.parse_args()
    if args.threads: torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    ids, work = prepare(args)
    train, length = ids["train"], SHAPE["n_positions"]
    config = GPT2Config(vocab_size=args.vocab_size, activation_function="gelu_pytorch_tanh", bos_token_id=0,
                        eos_token_id=0, pad_token_id=1, resid_pdrop=0., embd_pdrop=0., attn_pdrop=0., **SHAPE)
    model = GPT2LMHeadModel(config)
    decay = [q for q in model.parameters() if q.ndim > 1]
    rest = [q for q in model.parameters() if q.ndim <= 1]
    optimizer = torch.optim.AdamW([dict(params=decay, weight_decay=0.1), dict(params=rest, weight_decay=0.)],
                                  betas=(0.9, 0.98), fused=True)
    per_step, step, log, seconds = args.batch_size * length, 0, [], 0.
    steps = int(args.tokens / per_step)
    state = work / "state.pt"
    if state.exists():
        s = torch.load(state, weights_only=True)
        model.load_state_dict(s["model"]); optimizer.load_state_dict(s["optimizer"])
        step, log, seconds = s["step"], s["log"], s["seconds"]
    print(f"{len(train):,} training tokens, {model.num_parameters():,} parameters, step {step} of {steps}", flush=True)
    rows_per_epoch, running, since = (len(train) - length) // length, 0., time.time()
    epoch, order = None, None
    while step < steps:
        e, i = divmod(step * args.batch_size, rows_per_epoch - args.batch_size)
        if e != epoch: epoch, order = e, chunks(train, length, e)
        x = torch.from_numpy(order[i:i + args.batch_size].astype(np.int64))
        loss = model(input_ids=x, labels=x).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
        for g in optimizer.param_groups: g["lr"] = rate(step, steps, args.learning_rate)
        optimizer.step(); optimizer.zero_grad()
        step += 1; running += loss.item()
        if step % 100 == 0 or step == steps:
            seconds += time.time() - since; since = time.time()
            row = dict(tokens=step * per_step, loss=round(running / (100 if step % 100 == 0 else step % 100), 4),
                       learning_rate=g["lr"], seconds=round(seconds))
            if step % 500 == 0 or step == steps: row["perplexity"] = round(perplexity(model, ids["validation"], length), 2)
            running = 0.; log.append(row); print(row, flush=True)
            tmp = state.with_suffix(".tmp")
            torch.save(dict(model=model.state_dict(), optimizer=optimizer.state_dict(), step=step, log=log, seconds=seconds), tmp)
            os.replace(tmp, state)
    out = Path(args.out)
    for k in ("resid_pdrop", "embd_pdrop", "attn_pdrop"): setattr(model.config, k, 0.1)
    model.half().save_pretrained(out)
    from transformers import AutoTokenizer
    AutoTokenizer.from_pretrained(work / "tokenizer").save_pretrained(out)
    fields = ["tokens", "loss", "learning_rate", "seconds", "perplexity"]
    with open(out / "log.csv", "w", newline="") as f:
        w = csv.DictWriter(f, fields); w.writeheader(); w.writerows(log)


if __name__ == "__main__":
    main()
