"""Other right answers to the exercises of chapter 20."""
import math

import numpy as np
import torch


def e20_1_sorted(nats, code):
    rank = int(np.searchsorted(np.sort(nats), nats[code], side="left")) + 1
    return math.log2(len(nats) / rank)


def e20_1_loop(nats, code):
    less = 0
    for other in nats:
        if other < nats[code]: less += 1
    return math.log(len(nats), 2) - math.log(less + 1, 2)


def e20_1_torch(nats, code):
    values = torch.as_tensor(np.asarray(nats))
    rank = (values < values[code]).sum() + 1
    return (torch.tensor(float(len(values))).double().log2() - rank.double().log2()).item()


def e20_2_every_threshold(members, others, false_positives):
    members, others = np.asarray(members), np.asarray(others)
    best = 0.0
    for threshold in [-np.inf, *members, *others]:
        if (others > threshold).sum() <= false_positives * len(others) + 1e-9:
            best = max(best, float((members > threshold).mean()))
    return best


def e20_2_curve(members, others, false_positives):
    from sklearn.metrics import roc_curve
    truth = [1] * len(members) + [0] * len(others)
    false, true, _ = roc_curve(truth, np.r_[members, others], drop_intermediate=False)
    return true[false <= false_positives + 1e-12].max()


def e20_2_counted(members, others, false_positives):
    allowed = math.floor(false_positives * len(others) + 1e-9)
    found = [m for m in members if sum(o >= m for o in others) <= allowed]
    return len(found) / len(members)


def e20_3_loop(gradients, max_norm):
    total = torch.zeros(gradients.shape[1])
    for g in gradients:
        length = float(g.norm())
        total += g if length <= max_norm else g * (max_norm / length)
    return total


def e20_3_where(gradients, max_norm):
    lengths = (gradients ** 2).sum(1).sqrt()
    factors = torch.where(lengths > max_norm, max_norm / lengths, torch.ones_like(lengths))
    return factors @ gradients


def e20_3_divided(gradients, max_norm):
    return (gradients / (gradients.norm(dim=1) / max_norm).clamp(min=1)[:, None]).sum(0)


def e20_3_renorm(gradients, max_norm): return gradients.renorm(2, 0, max_norm).sum(0)
