"""Other right answers to the exercises of chapter 9, the curve."""
import math

import numpy as np
import torch


def e9_4_interp(goal, labels, accuracies):
    for k in range(len(labels)):
        if accuracies[k] >= goal:
            if k == 0: return labels[0]
            ends = slice(k - 1, k + 1)
            return math.exp(np.interp(goal, accuracies[ends], np.log(labels[ends])))
    return None


def e9_4_argmax(goal, labels, accuracies):
    reached = np.array(accuracies) >= goal
    if not reached.any(): return None
    k = reached.argmax()
    if not k: return float(labels[0])
    a, b = np.log2(labels[k - 1]), np.log2(labels[k])
    return 2 ** (a + (b - a) * (goal - accuracies[k - 1]) / (accuracies[k] - accuracies[k - 1]))


def e9_4_pairs(goal, labels, accuracies):
    if accuracies[0] >= goal: return labels[0]
    for n, m, low, high in zip(labels, labels[1:], accuracies, accuracies[1:]):
        if low < goal <= high:
            way = (goal - low) / (high - low)
            return n ** (1 - way) * m ** way


def e9_4_highest_so_far(goal, labels, accuracies):
    risen = np.maximum.accumulate(accuracies)
    if risen[-1] < goal: return None
    k = int(np.searchsorted(risen, goal))
    if k == 0: return labels[0]
    share = (goal - accuracies[k - 1]) / (accuracies[k] - accuracies[k - 1])
    return np.exp((1 - share) * np.log(labels[k - 1]) + share * np.log(labels[k]))


def e9_4_tensor(goal, labels, accuracies):
    k = next((k for k, a in enumerate(accuracies) if a >= goal), None)
    if k in (None, 0): return k if k is None else labels[0]
    share = (goal - accuracies[k - 1]) / (accuracies[k] - accuracies[k - 1])
    start, end = torch.tensor(labels[k - 1:k + 1], dtype=torch.float64).log()
    return torch.lerp(start, end, share).exp()


def e9_5_np_std(right):
    draws, rows = right.shape
    return (np.std(right.mean(axis=1), ddof=1) / math.sqrt(draws),
            np.std(right.mean(axis=0), ddof=1) / math.sqrt(rows))


def e9_5_variances(right):
    return tuple(np.sqrt(np.var(right.mean(axis), ddof=1) / right.shape[1 - axis])
                 for axis in (1, 0))


def e9_5_torch(right):
    table = torch.from_numpy(right)
    return [table.mean(axis).std() / table.shape[1 - axis] ** 0.5 for axis in (1, 0)]


def e9_5_by_hand(right):
    def error(means):
        n, middle = len(means), sum(means) / len(means)
        return math.sqrt(sum((m - middle) ** 2 for m in means) / (n - 1) / n)
    return error(right.mean(1).tolist()), error(right.mean(0).tolist())


def e9_5_turned(right):
    def error(table):
        means = np.array([np.mean(line) for line in table])
        return means.std(ddof=1) * len(means) ** -0.5
    return error(right), error(right.T)
