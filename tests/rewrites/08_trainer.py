"""Other right answers to the exercises of chapter 8."""
import itertools
import math

import numpy as np


def e8_1_loop(old):
    new = {}
    for name, value in old.items():
        if name == "evaluation_strategy": new["eval_strategy"] = value
        elif name == "no_cuda": new["use_cpu"] = value
        elif name == "warmup_ratio": new["warmup_steps"] = value
        elif name != "group_by_length": new[name] = value
        elif value: new["train_sampling_strategy"] = "group_by_length"
    return new


def e8_1_popped_from_a_copy(old):
    new = dict(old)
    for before, now in (("evaluation_strategy", "eval_strategy"), ("no_cuda", "use_cpu"),
                        ("warmup_ratio", "warmup_steps")):
        if before in new: new[now] = new.pop(before)
    if new.pop("group_by_length", False): new |= {"train_sampling_strategy": "group_by_length"}
    return new


def e8_1_match(old):
    def entry(name, value):
        match name:
            case "evaluation_strategy": return {"eval_strategy": value}
            case "no_cuda": return {"use_cpu": value}
            case "warmup_ratio": return {"warmup_steps": value}
            case "group_by_length":
                return {"train_sampling_strategy": "group_by_length"} if value else {}
            case _: return {name: value}
    return {k: v for pair in old.items() for k, v in entry(*pair).items()}


def e8_1_two_lists(old):
    before = ["evaluation_strategy", "no_cuda", "warmup_ratio"]
    now = ["eval_strategy", "use_cpu", "warmup_steps"]
    kept = {k: old[k] for k in old if k not in [*before, "group_by_length"]}
    moved = {b: old[a] for a, b in zip(before, now) if a in old}
    grouped = [("train_sampling_strategy", "group_by_length")] if old.get("group_by_length") else []
    return {**kept, **moved, **dict(grouped)}


def e8_1_zipped(old):
    names = {"evaluation_strategy": "eval_strategy", "no_cuda": "use_cpu",
             "warmup_ratio": "warmup_steps", "group_by_length": "train_sampling_strategy"}
    values = [("group_by_length" if v else None) if k == "group_by_length" else v
              for k, v in old.items()]
    new = dict(zip((names.get(k, k) for k in old), values))
    if new.get("train_sampling_strategy", 0) is None: del new["train_sampling_strategy"]
    return new


def steps_and_warmup(rows, size, parts, epochs, warmup):
    steps = epochs * math.ceil(math.ceil(rows / size) / parts)
    return steps, int(warmup) if warmup >= 1 else math.ceil(warmup * steps)


def e8_2_formula(rows, batch_size, gradient_accumulation_steps, epochs, warmup_steps):
    steps, warmup = steps_and_warmup(rows, batch_size, gradient_accumulation_steps, epochs,
                                     warmup_steps)
    return 1.0 if warmup < steps else (steps - 1) / warmup


def e8_2_numpy(rows, batch_size, gradient_accumulation_steps, epochs, warmup_steps):
    steps, warmup = steps_and_warmup(rows, batch_size, gradient_accumulation_steps, epochs,
                                     warmup_steps)
    return np.minimum(1, np.arange(steps) / max(warmup, 1e-9)).max() if warmup else np.float64(1)


def e8_2_loop(rows, batch_size, gradient_accumulation_steps, epochs, warmup_steps):
    steps, warmup = steps_and_warmup(rows, batch_size, gradient_accumulation_steps, epochs,
                                     warmup_steps)
    highest = 0.0
    for step in range(steps):
        rising = step / warmup if step < warmup else 1.0
        falling = (steps - step) / max(1, steps - warmup)
        highest = max(highest, min(rising, falling, 1.0))
    return highest


def e8_2_counted(rows, batch_size, gradient_accumulation_steps, epochs, warmup_steps):
    batches = len(range(0, rows, batch_size))
    steps = epochs * len(range(0, batches, gradient_accumulation_steps))
    warmup = warmup_steps if warmup_steps >= 1 else math.ceil(steps * warmup_steps)
    return min(1, (steps - 1) / warmup) if warmup else 1


def e8_2_last_step(rows, batch_size, gradient_accumulation_steps, epochs, warmup_steps):
    batches = (rows + batch_size - 1) // batch_size
    steps = epochs * ((batches + gradient_accumulation_steps - 1) // gradient_accumulation_steps)
    warmup = math.ceil(warmup_steps * steps) if 0 <= warmup_steps < 1 else int(warmup_steps)
    last = steps - 1
    return float(last >= warmup) or last / warmup


def e8_3_two_passes(values, patience, threshold=0.0):
    seen, waited, best = len(values), 0, -math.inf
    for i, value in enumerate(values):
        waited = waited + 1 if value - best <= threshold else 0
        best = max(best, value)
        if waited == patience:
            seen = i + 1
            break
    return seen, int(np.argmax(values[:seen]))


def e8_3_accumulate(values, patience, threshold=0.0):
    best = [-math.inf, *itertools.accumulate(values, max)]
    run = 0
    for n, (value, before) in enumerate(zip(values, best), 1):
        run = 0 if value > before + threshold else run + 1
        if run >= patience: return n, values.index(max(values[:n]))
    return len(values), values.index(max(values))


def e8_3_while(values, patience, threshold=0.0):
    i = kept = 0
    left, best = patience, -math.inf
    while i < len(values) and left > 0:
        gain = values[i] - best
        left = patience if gain > threshold else left - 1
        if gain > 0: kept, best = i, values[i]
        i += 1
    return i, kept


def e8_3_recursive(values, patience, threshold=0.0, i=0, kept=0, waited=0):
    if i == len(values) or (waited >= patience): return i, kept
    best = values[kept] if i else -math.inf
    waited = 0 if values[i] - best > threshold else waited + 1
    kept = i if values[i] > best else kept
    return e8_3_recursive(values, patience, threshold, i + 1, kept, waited)


def e8_3_progress(values, patience, threshold=0.0):
    v = np.array(values)
    before = np.r_[-np.inf, np.maximum.accumulate(v)[:-1]]
    progress, last = v - before > threshold, -1
    for i in range(len(v)):
        if progress[i]: last = i
        if i - last == patience: return i + 1, v[:i + 1].argmax()
    return len(v), v.argmax()
