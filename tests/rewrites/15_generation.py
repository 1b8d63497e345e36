"""Other right answers to the exercises of chapter 15, generation."""
import math

import numpy as np
import torch


def e15_1_where(scores, epsilon):
    p = scores.softmax(-1)
    kept = (p >= epsilon) | (p == p.max(-1, keepdim=True).values)
    return torch.where(kept, scores, -math.inf)


def e15_1_scatter(scores, epsilon):
    kept = torch.softmax(scores, dim=-1) >= epsilon
    kept.scatter_(-1, scores.argmax(-1, keepdim=True), True)
    return scores.masked_fill(~kept, float("-inf"))


def e15_1_logarithms(scores, epsilon):
    log_p = scores.log_softmax(-1)
    best = log_p.amax(-1, keepdim=True)
    floor = torch.minimum(best, torch.tensor(math.log(epsilon)))
    found = scores.clone()
    found[log_p < floor] = -math.inf
    return found


def e15_1_row_by_row(scores, epsilon):
    if scores.ndim > 1: return torch.stack([e15_1_row_by_row(row, epsilon) for row in scores])
    p, best = scores.softmax(0), scores.argmax()
    return torch.stack([s if p[k] >= epsilon or k == best else torch.tensor(-math.inf)
                        for k, s in enumerate(scores)])


def e15_1_numpy(scores, epsilon):
    z = scores.numpy()
    p = np.exp(z - z.max(-1, keepdims=True))
    p = p / p.sum(-1, keepdims=True)
    return np.where((p < epsilon) & (p < p.max(-1, keepdims=True)), -np.inf, z)


def e15_1_added(scores, epsilon):
    p = scores.softmax(-1)
    gone = (p < epsilon) & (scores < scores.amax(-1, keepdim=True))
    return scores + torch.zeros_like(scores).masked_fill(gone, -math.inf)


def e15_2_loop(scores, ids, n):
    found, last = scores.clone(), ids[len(ids) - (n - 1):] if n > 1 else []
    if len(ids) < n: return found
    for end in range(n - 1, len(ids)):
        if ids[end - n + 1:end] == last: found[ids[end]] = -math.inf
    return found


def e15_2_sequences(scores, ids, n):
    seen = {tuple(ids[k:k + n]) for k in range(len(ids) - n + 1)}
    begun = tuple(ids[len(ids) - n + 1:])
    kept = [(*begun, token) not in seen for token in range(len(scores))]
    return scores.where(torch.tensor(kept), -math.inf)


def e15_2_dictionary(scores, ids, n):
    followers = {}
    for sequence in zip(*(ids[k:] for k in range(n))):
        followers.setdefault(sequence[:-1], []).append(sequence[-1])
    banned = followers.get(tuple(ids[max(0, len(ids) - n + 1):]), [])
    return scores.index_fill(0, torch.tensor(banned, dtype=torch.long), -math.inf)


def e15_2_unfold(scores, ids, n):
    text, found = torch.tensor(ids, dtype=torch.long), scores.clone()
    if len(ids) < n: return found
    windows = text.unfold(0, n, 1)
    alike = (windows[:, :-1] == text[len(text) - n + 1:]).all(1)
    found[windows[alike, -1]] = -math.inf
    return found


def e15_2_numpy(scores, ids, n):
    found = scores.numpy().copy()
    if len(ids) < n: return found
    windows = np.lib.stride_tricks.sliding_window_view(np.array(ids), n)
    begun = np.array(ids[len(ids) + 1 - n:], dtype=int)
    found[windows[(windows[:, :n - 1] == begun).all(1), -1]] = -np.inf
    return found


def e15_2_letters(scores, ids, n):
    text = "".join(map(chr, ids))
    begun = text[len(text) - n + 1:] if n > 1 else ""
    banned = [k for k in range(len(scores)) if begun + chr(k) in text and len(text) >= n]
    return scores.masked_fill(torch.tensor([k in banned for k in range(len(scores))]), -math.inf)
