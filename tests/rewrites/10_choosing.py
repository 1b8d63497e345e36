"""Other right answers to the exercises of chapter 10."""
import math

import numpy as np
import torch

from course_lib.choosing import memory_needed


def needed(model, n, length): return sum(memory_needed(model, n, length).values())


def e10_1_one_by_one(model, length, memory):
    n = 0
    while needed(model, n + 1, length) <= memory: n += 1
    return n


def e10_1_two_points(model, length, memory):
    nothing, one = needed(model, 0, length), needed(model, 1, length)
    return max((memory - nothing) // (one - nothing), 0)


def e10_1_halves(model, length, memory):
    fits, too_many = 0, 2**20
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if needed(model, middle, length) <= memory: fits = middle
        else: too_many = middle
    return fits


def e10_1_popped(model, length, memory):
    parts = memory_needed(model, 1, length)
    text = parts.pop("activations")
    left = memory - sum(parts.values())
    return 0 if left < text else math.floor(left / text)


def e10_1_numpy(model, length, memory):
    parts = memory_needed(model, 1, length)
    kept = np.array([parts[name] for name in ("weights", "gradients", "AdamW")]).sum()
    return np.maximum(0, (memory - kept) // parts["activations"])


def e10_1_of_many(model, length, memory):
    parts = memory_needed(model, 1000, length)
    each = parts.pop("activations") / 1000
    return max(0, math.floor((memory - sum(parts.values())) / each))


def e10_2_nonzero(states, attention_mask):
    return torch.stack([row[mask.nonzero()[0, 0]] for row, mask in zip(states, attention_mask)])


def e10_2_list(states, attention_mask):
    places = [row.index(1) for row in attention_mask.tolist()]
    return torch.stack([row[k] for row, k in zip(states, places)])


def e10_2_cumsum(states, attention_mask):
    real = attention_mask.long()
    first = (real.cumsum(1) == 1) & (real == 1)
    return states[first]


def e10_2_gather(states, attention_mask):
    place = torch.arange(attention_mask.shape[1]).expand(attention_mask.shape)
    first = place.masked_fill(attention_mask == 0, attention_mask.shape[1]).amin(1)
    return states.gather(1, first[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)


def e10_2_numpy(states, attention_mask):
    first = attention_mask.numpy().astype(bool).argmax(axis=1)
    return states.numpy()[np.arange(len(first)), first]


def e10_2_one_hot(states, attention_mask):
    first = torch.nn.functional.one_hot(attention_mask.int().argmax(1), states.shape[1])
    return torch.einsum("rt,rtw->rw", first.to(states.dtype), states)


def e10_3_cross_entropy(scores, answer, candidates):
    places = torch.tensor([candidates.index(a) for a in answer.tolist()])
    return torch.nn.functional.cross_entropy(scores[:, candidates], places, reduction="none")


def e10_3_masked(scores, answer, candidates):
    out = torch.full_like(scores, -math.inf)
    out[:, candidates] = scores[:, candidates]
    return -out.log_softmax(1).gather(1, answer[:, None]).squeeze(1)


def e10_3_by_hand(scores, answer, candidates):
    losses = []
    for row, a in zip(scores.double(), answer):
        z = row[candidates]
        top = z.max()
        losses.append(((z - top).exp().sum().log() + top - row[a]).item())
    return losses


def e10_3_numpy(scores, answer, candidates):
    z = scores.numpy().astype(float)
    right = z[np.arange(len(z)), answer.numpy()]
    return np.logaddexp.reduce(z[:, candidates], axis=1) - right


def e10_3_differences(scores, answer, candidates):
    right = scores.gather(1, answer.unsqueeze(1))
    return torch.logsumexp(scores[:, torch.tensor(candidates)] - right, dim=1)


def e10_3_of_the_rescaled(scores, answer, candidates):
    log_p = scores.double().log_softmax(-1)
    log_p = log_p - torch.logsumexp(log_p[:, candidates], -1, keepdim=True)
    return -log_p[range(len(answer)), answer]
