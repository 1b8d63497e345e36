"""Other right answers to the exercises of chapter 7."""
import math

import numpy as np
import pandas as pd
import torch


def e7_1_power_of_ten(low, high, n, rng):
    return 10 ** rng.uniform(math.log10(low), math.log10(high), size=n)


def e7_1_ratio(low, high, n, rng): return low * (high / low) ** rng.random(n)


def e7_1_interpolated(low, high, n, rng):
    return np.exp2(np.interp(rng.random(n), [0, 1], np.log2([low, high])))


def e7_1_one_by_one(low, high, n, rng):
    return [math.exp(rng.uniform(math.log(low), math.log(high))) for _ in range(n)]


def e7_1_backwards(low, high, n, rng):
    share = rng.random(n)
    return np.power(low, share) * np.power(high, 1 - share)


def e7_1_tensor(low, high, n, rng):
    share = torch.from_numpy(rng.uniform(size=n))
    return torch.exp(torch.lerp(torch.tensor(low).double().log(),
                                torch.tensor(high).double().log(), share))


def e7_2_pandas(losses, beta=0.9): return pd.Series(losses).ewm(alpha=1 - beta).mean().tolist()


def e7_2_weights(losses, beta=0.9):
    found = []
    for t in range(1, len(losses) + 1):
        weights = beta ** np.arange(t - 1, -1, -1.0)
        found.append(np.average(losses[:t], weights=weights))
    return found


def e7_2_ratio(losses, beta=0.9):
    above, below, found = 0.0, 0.0, []
    for loss in losses:
        above, below = beta * above + loss, beta * below + 1
        found.append(above / below)
    return found


def e7_2_steps(losses, beta=0.9):
    found, mean, share = [], 0.0, 1.0
    for loss in losses:
        mean += (1 - beta) * (loss - mean)
        share *= beta
        found += [mean / (1 - share)]
    return np.array(found)


def e7_2_generator(losses, beta=0.9):
    def means():
        mean = 0.0
        for loss in losses: yield (mean := mean * beta + loss * (1 - beta))
    return [mean / (1 - beta ** t) for t, mean in enumerate(means(), start=1)]


def e7_2_matrix(losses, beta=0.9):
    t = torch.arange(len(losses))
    back = (t[:, None] - t).clamp(min=0)
    weights = (torch.tensor(beta, dtype=torch.float64) ** back).tril()
    return weights @ torch.tensor(losses, dtype=torch.float64) / weights.sum(1)


def e7_3_sorted(settings, run):
    left, epochs = list(settings), 1
    while len(left) > 1:
        scored = sorted(((run(s, epochs), i) for i, s in enumerate(left)))
        left = [left[i] for _, i in scored[:math.ceil(len(left) / 2)]]
        epochs *= 2
    return left[0]


def e7_3_recursive(settings, run, epochs=1):
    if len(settings) == 1: return settings[0]
    losses = [run(s, epochs) for s in settings]
    kept = np.argsort(losses, kind="stable")[:-(-len(losses) // 2)]
    return e7_3_recursive([settings[i] for i in kept], run, 2 * epochs)


def e7_3_drops_the_worst(settings, run):
    left, epochs = dict(enumerate(settings)), 1
    while len(left) > 1:
        losses = {i: run(s, epochs) for i, s in left.items()}
        for _ in range(len(left) // 2):
            worst = max(losses, key=losses.get)
            del losses[worst], left[worst]
        epochs += epochs
    return left.popitem()[1]


def e7_3_key(settings, run):
    rounds, left = 0, settings
    while len(left) != 1:
        results = [(run(s, 2 ** rounds), s) for s in left]
        results.sort(key=lambda pair: pair[0])
        left = [s for _, s in results[:(len(results) + 1) // 2]]
        rounds += 1
    return left[0]


def e7_3_pandas(settings, run):
    table, epochs = pd.DataFrame({"place": range(len(settings))}), 1
    while len(table) > 1:
        table["loss"] = [run(settings[i], epochs) for i in table["place"]]
        table = table.nsmallest(math.ceil(len(table) / 2), "loss")
        epochs *= 2
    return settings[table["place"].iloc[0]]
