"""Other right answers to the exercises of chapter 9, prompting."""
import numpy as np
import scipy.special
import torch


def e9_1_numpy(found, labels):
    right = np.array([(f.argmax(1) == labels).mean() for f in found])
    together = np.mean([np.exp(f) for f in found], axis=0).argmax(1)
    return right.min(), right.max(), (together == labels).mean()


def e9_1_sorted(found, labels):
    each = sorted(np.mean(np.argmax(f, axis=-1) == labels) for f in found)
    total = sum(np.exp(f) for f in found)
    return each[0], each[-1], np.mean(np.argmax(total, axis=-1) == labels)


def e9_1_logaddexp(found, labels):
    each = (np.stack(found).argmax(-1) == labels).mean(-1)
    mixed = np.logaddexp.reduce(np.stack(found), axis=0)
    return float(each.min()), float(each.max()), float((mixed.argmax(-1) == labels).mean())


def e9_1_loop(found, labels):
    lowest, highest, total = 1.0, 0.0, np.zeros_like(found[0])
    for f in found:
        share = np.count_nonzero(f.argmax(-1) == labels) / len(labels)
        lowest, highest = min(lowest, share), max(highest, share)
        total = total + np.exp(f) / len(found)
    return lowest, highest, np.count_nonzero(total.argmax(-1) == labels) / len(labels)


def e9_1_torch(found, labels):
    stack, labels = torch.tensor(np.array(found)), torch.tensor(labels)
    each = (stack.argmax(-1) == labels).double().mean(-1)
    return each.amin(), each.amax(), (stack.exp().mean(0).argmax(-1) == labels).double().mean()


def e9_2_scipy(scores):
    p = scipy.special.softmax(scores, axis=1)
    return scipy.special.softmax(np.log(p) - np.log(p.mean(0)), axis=1)


def e9_2_by_hand(scores):
    odds = np.exp(scores - np.max(scores, -1, keepdims=True))
    p = odds / odds.sum(-1, keepdims=True)
    q = p / np.mean(p, axis=0)
    return (q.T / q.sum(1)).T


def e9_2_sums(scores):
    p = scipy.special.softmax(scores, -1)
    q = p / p.sum(0, keepdims=True)
    return q / q.sum(-1)[:, None]


def e9_2_torch(scores):
    p = torch.as_tensor(scores).softmax(-1)
    q = p / p.mean(0)
    return torch.nn.functional.normalize(q, p=1, dim=-1).numpy()


def e9_2_rows(scores):
    rows = [scipy.special.softmax(row) for row in scores]
    prior = sum(rows) / len(rows)
    return np.array([row / prior / (row / prior).sum() for row in rows])


def e9_3_loss(logits, ids, n):
    wanted = torch.tensor(ids[n:])
    return -torch.nn.functional.cross_entropy(logits[n - 1:len(ids) - 1], wanted, reduction="sum")


def e9_3_gather(logits, ids, n):
    log_p = torch.log_softmax(logits, -1)[n - 1:-1]
    return log_p.gather(1, torch.tensor(ids[n:])[:, None]).sum().item()


def e9_3_index(logits, ids, n):
    places = list(range(n - 1, len(ids) - 1))
    return float(logits.log_softmax(-1)[places, ids[n:]].sum())


def e9_3_logsumexp(logits, ids, n):
    total = 0.0
    for row, token in zip(logits[n - 1:], ids[n:]): total += row[token] - row.logsumexp(0)
    return total


def e9_3_probabilities(logits, ids, n):
    p = logits.double().softmax(-1)
    return sum(np.log(p[k, ids[k + 1]].item()) for k in range(n - 1, len(ids) - 1))
