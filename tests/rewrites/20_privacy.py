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


def e20_1_share(nats, code):
    values = np.asarray(nats)
    return float(-np.log2((1 + np.count_nonzero(values < values[code])) / values.size))


def e20_1_ranked(nats, code):
    from scipy.stats import rankdata
    return float(np.log2(len(nats) / rankdata(nats, method="min")[code]))


def e20_2_quantile(members, others, false_positives):
    others = np.sort(np.asarray(others, dtype=float))
    n = len(others)
    allowed = math.floor(false_positives * n + 1e-9)
    threshold = -math.inf if allowed >= n else others[n - 1 - allowed]
    return np.count_nonzero(np.asarray(members) > threshold) / len(members)


def e20_2_torch(members, others, false_positives):
    members, others = torch.as_tensor(np.asarray(members)), torch.as_tensor(np.asarray(others))
    allowed = int(false_positives * len(others) + 1e-9)
    if allowed >= len(others): return 1.0
    threshold = others.topk(allowed + 1).values[-1]
    return (members > threshold).double().mean().item()


def e20_3_utils(gradients, max_norm):
    total = torch.zeros_like(gradients[0])
    for g in gradients:
        p = torch.zeros_like(g, requires_grad=True)
        p.grad = g.clone()
        if g.norm() > max_norm: torch.nn.utils.clip_grad_norm_([p], max_norm)
        total = total + p.grad
    return total
