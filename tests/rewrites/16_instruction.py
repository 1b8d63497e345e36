"""Other right answers to the exercises of chapter 16."""
import re
from itertools import groupby

import numpy as np
import torch

from course_lib.instruction import fitting_row


def labels_of(tokenizer, messages, max_length):
    return fitting_row(tokenizer, messages, max_length)["labels"]


def e16_1_groups(tokenizer, messages, max_length):
    labels = labels_of(tokenizer, messages, max_length)
    return sum(learnt for learnt, _ in groupby(labels, key=lambda label: label != -100))


def e16_1_loop(tokenizer, messages, max_length):
    count, inside = 0, False
    for label in labels_of(tokenizer, messages, max_length):
        if label != -100 and not inside: count += 1
        inside = label != -100
    return count


def e16_1_text(tokenizer, messages, max_length):
    labels = labels_of(tokenizer, messages, max_length)
    return len("".join(" " if label == -100 else "x" for label in labels).split())


def e16_1_numpy(tokenizer, messages, max_length):
    learnt = np.array([-100, *labels_of(tokenizer, messages, max_length)]) != -100
    return np.count_nonzero(learnt[1:] & ~learnt[:-1])


def e16_1_diff(tokenizer, messages, max_length):
    labels = torch.tensor(labels_of(tokenizer, messages, max_length))
    learnt = torch.nn.functional.pad((labels != -100).int(), (1, 1))
    return learnt.diff().clamp(min=0).sum()


def e16_1_pattern(tokenizer, messages, max_length):
    labels = labels_of(tokenizer, messages, max_length)
    return len(re.findall("1+", "".join(str(int(label != -100)) for label in labels)))


def e16_2_groups(row):
    runs = [list(run) for _, run in groupby(row["labels"], key=lambda label: label == -100)]
    last = max((k for k, run in enumerate(runs) if run[0] != -100), default=-1)
    labels = [label if k == last else -100 for k, run in enumerate(runs) for label in run]
    return {**row, "labels": labels}


def e16_2_backwards(row):
    labels, state = [], "behind"
    for label in reversed(row["labels"]):
        if state == "behind" and label != -100: state = "inside"
        elif state == "inside" and label == -100: state = "before"
        labels.append(label if state == "inside" else -100)
    return row | {"labels": labels[::-1]}


def e16_2_numpy(row):
    labels = np.array(row["labels"], dtype=int)
    learnt = labels != -100
    begins = learnt & ~np.concatenate([[False], learnt[:-1]])
    number = begins.cumsum()
    last = number.max() if len(number) else 0
    return {**row, "labels": np.where(learnt & (number == last), labels, -100)}


def e16_2_copied(row):
    new = {name: list(values) for name, values in row.items()}
    labels, k = new["labels"], len(row["labels"]) - 1
    while k >= 0 and labels[k] == -100: k -= 1
    while k >= 0 and labels[k] != -100: k -= 1
    for i in range(k + 1): labels[i] = -100
    return new


def e16_2_places(row):
    learnt = [i for i, label in enumerate(row["labels"]) if label != -100]
    kept = []
    for i in reversed(learnt):
        if kept and i != kept[-1] - 1: break
        kept.append(i)
    return dict(row, labels=[label if i in kept else -100 for i, label in enumerate(row["labels"])])


def e16_2_begins(row):
    labels = row["labels"]
    begins = [i for i, label in enumerate(labels)
              if label != -100 and (i == 0 or labels[i - 1] == -100)]
    start = begins[-1] if begins else len(labels)
    return {**row, "labels": [-100] * start + labels[start:]}
