"""Other right answers to the exercises of chapter 13."""
import math

import numpy as np
import torch


def e13_1_loop(context, n):
    used = 0
    for k, letter in enumerate(context):
        if used == n: return k
        used += len(letter.encode())
    return len(context)


def e13_1_starts(context, n):
    return sum(byte & 0b11000000 != 0b10000000 for byte in context.encode("utf-8")[:n])


def e13_1_numpy(context, n):
    ends = np.cumsum([len(letter.encode()) for letter in context])
    return np.searchsorted(ends, n, side="right")


def e13_1_rest(context, n):
    return len(context) - len(context.encode()[n:].decode())


def e13_1_search(context, n):
    return next(k for k in range(len(context) + 1) if len(context[:k].encode()) >= n)


def e13_1_utf32(context, n):
    return len(bytes(context, "utf-8")[:n].decode("utf-8").encode("utf-32-le")) // 4


def e13_2_pairs(starts, ends, longest):
    n = len(starts)
    spans = [(i, j) for i in range(n) for j in range(i, min(i + longest, n))]
    return max(spans, key=lambda s: starts[s[0]].item() + ends[s[1]].item())


def e13_2_by_length(starts, ends, longest):
    best, where = -math.inf, None
    for more in range(min(longest, len(starts))):
        sums = starts[:len(starts) - more] + ends[more:]
        k = sums.argmax()
        if sums[k] > best: best, where = sums[k], (k.item(), k.item() + more)
    return where


def e13_2_numpy(starts, ends, longest):
    sums = np.add.outer(starts.numpy(), ends.numpy())
    back = np.subtract.outer(np.arange(len(starts)), np.arange(len(ends)))
    sums[(back > 0) | (back <= -longest)] = -np.inf
    return np.unravel_index(sums.argmax(), sums.shape)


def e13_2_masked(starts, ends, longest):
    place = torch.arange(len(starts))
    width = place - place[:, None]
    sums = (starts.unsqueeze(1) + ends).masked_fill((width < 0) | (width >= longest), -math.inf)
    ends_of, values = sums.argmax(1), sums.max(1).values
    first = values.argmax()
    return first, ends_of[first]


def e13_2_windows(starts, ends, longest):
    found = []
    for i in range(len(starts)):
        window = ends[i:i + longest]
        found.append((float(starts[i] + window.max()), i, i + int(window.argmax())))
    return max(found)[1:]
