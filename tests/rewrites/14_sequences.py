"""Other right answers to the exercises of chapter 14, sequences."""
import math

import numpy as np
import torch


def e14_2_unpacked(prompt, target): return [*(-100 for _ in prompt), *target]


def e14_2_append(prompt, target):
    labels = []
    for _ in prompt: labels.append(-100)
    for token in target: labels.append(token)
    return labels


def e14_2_written_over(prompt, target):
    labels = prompt + target
    labels[:len(prompt)] = [-100] * len(prompt)
    return labels


def e14_2_tensor(prompt, target):
    labels = torch.tensor(prompt + target)
    labels[:len(prompt)] = -100
    return labels


def e14_2_numpy(prompt, target):
    place = np.arange(len(prompt) + len(target))
    return np.where(place < len(prompt), -100, prompt + target)


def e14_2_by_place(prompt, target):
    return [-100 if k < len(prompt) else token for k, token in enumerate([*prompt, *target])]


def e14_2_padded(prompt, target):
    labels = torch.tensor(target)
    return torch.nn.functional.pad(labels, (len(prompt), 0), value=-100).tolist()


def e14_3_key(texts, length_penalty):
    return max(range(len(texts)), key=lambda i: texts[i][0] / texts[i][1] ** length_penalty)


def e14_3_numpy(texts, length_penalty):
    sums, tokens = np.array(texts).T
    return np.argmax(sums * tokens ** -length_penalty)


def e14_3_loop(texts, length_penalty):
    best, place = -math.inf, None
    for i, (total, n) in enumerate(texts):
        score = total / math.pow(n, length_penalty)
        if score > best: best, place = score, i
    return place


def e14_3_tensor(texts, length_penalty):
    table = torch.tensor(texts)
    return (table[:, 0] / table[:, 1].pow(length_penalty)).argmax()


def e14_3_logarithms(texts, length_penalty):
    costs = [math.log(-total) - length_penalty * math.log(n) for total, n in texts]
    return costs.index(min(costs))


def e14_3_sorted(texts, length_penalty):
    def score(i): return texts[i][0] * (1 / texts[i][1]) ** length_penalty
    return sorted(range(len(texts)), key=score)[-1]
