"""Other right answers to the exercises of chapter 21 on watching a model."""
import math
from collections import deque
from itertools import count

import numpy as np

from course_lib.monitoring import confidence_sequence, evidence_against, labels_until_below


def e21_8_counting(m, limit=0.1, bins=10):
    if (bins - 1) / m >= limit: return None
    return next(n for n in count(1) if (bins - 1) * (1 / n + 1 / m) < limit)


def e21_8_floor(m, limit=0.1, bins=10):
    if limit * m <= bins - 1: return None
    return math.floor((bins - 1) * m / (limit * m - bins + 1)) + 1


def e21_8_while(m, limit=0.1, bins=10):
    if limit <= (bins - 1) / m: return None
    n = 1
    while (bins - 1) / n + (bins - 1) / m >= limit: n += 1
    return n


def e21_8_numpy(m, limit=0.1, bins=10):
    n = np.arange(1, 1_000_000)
    found = np.flatnonzero((bins - 1) * (1 / n + 1 / m) < limit)
    return int(n[found[0]]) if len(found) else None


def e21_8_halving(m, limit=0.1, bins=10):
    def below(n): return (bins - 1) * (1 / n + 1 / m) < limit
    low, high = 0, 2**40
    if not below(high): return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if below(middle) else (middle, high)
    return high


def e21_9_deque(differs, needed, last):
    recent, found = deque(maxlen=last), []
    for one in differs:
        recent.append(one)
        found.append(recent.count(True) >= needed)
    return found


def e21_9_padded(differs, needed, last):
    padded = [False] * (last - 1) + list(differs)
    return [sum(padded[i:i + last]) >= needed for i in range(len(differs))]


def e21_9_sums(differs, needed, last):
    total = np.concatenate([np.zeros(last, int), np.cumsum(differs)])
    return (total[last:] - total[:-last] >= needed).tolist()


def e21_9_convolved(differs, needed, last):
    counts = np.convolve(differs, np.ones(last, int))[:len(differs)]
    return [bool(n >= needed) for n in counts]


def e21_9_loop(differs, needed, last):
    found = []
    for i in range(len(differs)):
        n = 0
        for j in range(i, max(-1, i - last), -1): n += differs[j]
        found.append(n >= needed)
    return found


def e21_10_arrays(old, new, error=0.05):
    old, new = np.array(old, bool), np.array(new, bool)
    won, decided = np.cumsum(new & ~old), np.cumsum(new ^ old)
    found = (evidence_against(0.5, won, decided) > np.log(1 / error)) & (won > decided - won)
    return int(found.argmax()) + 1 if found.any() else None


def e21_10_sequence(old, new, error=0.05):
    won = lost = 0
    for n, (a, b) in enumerate(zip(old, new), 1):
        won += b > a
        lost += a > b
        if confidence_sequence(won, won + lost, error)[0] > 0.5: return n


def e21_10_losses(old, new, error=0.05):
    places = [i for i, (a, b) in enumerate(zip(old, new), 1) if a != b]
    found = labels_until_below([old[i - 1] for i in places], 0.5, error)
    return places[found - 1] if found else None


def e21_10_from_scratch(old, new, error=0.05):
    won = lost = 0
    for n, (a, b) in enumerate(zip(old, new), 1):
        if a == b: continue
        if b: won += 1
        else: lost += 1
        ratio = 2 ** (won + lost) / ((won + lost + 1) * math.comb(won + lost, won))
        if ratio > 1 / error and won > lost: return n


def e21_10_prefixes(old, new, error=0.05):
    for n in range(1, len(old) + 1):
        pairs = list(zip(old[:n], new[:n]))
        won, lost = pairs.count((False, True)), pairs.count((True, False))
        if won > lost and evidence_against(0.5, won, won + lost) > -math.log(error): return n
