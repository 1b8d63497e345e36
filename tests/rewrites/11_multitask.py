"""Other right answers to the exercises of chapter 11, several tasks."""
import math

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import log_softmax, nll_loss

from course_lib.multitask import mixing_shares


def e11_4_loop(sizes, temperature, steps, batch_size):
    found = {}
    for task, share in mixing_shares(sizes, temperature).items():
        rows_read = share * steps * batch_size
        found[task] = rows_read / sizes[task]
    return found


def e11_4_pandas(sizes, temperature, steps, batch_size):
    shares = pd.Series(mixing_shares(sizes, temperature))
    return (steps * batch_size * shares / pd.Series(sizes)).to_dict()


def e11_4_numpy(sizes, temperature, steps, batch_size):
    n = np.array([*sizes.values()], dtype=float)
    p = (n / n.max()) ** (1 / temperature)
    return dict(zip(sizes, p / p.sum() * steps * batch_size / n))


def e11_4_epochs(sizes, temperature, steps, batch_size):
    shares = mixing_shares(sizes, temperature)
    steps_an_epoch = {task: n / batch_size for task, n in sizes.items()}
    return {task: steps * shares[task] / steps_an_epoch[task] for task in sizes}


def e11_4_map(sizes, temperature, steps, batch_size):
    shares = mixing_shares(sizes, temperature)
    return dict(map(lambda task: (task, steps * batch_size / sizes[task] * shares[task]), sizes))


def e11_4_tensor(sizes, temperature, steps, batch_size):
    shares = torch.tensor([*mixing_shares(sizes, temperature).values()])
    return dict(zip(sizes, shares * steps * batch_size / torch.tensor([*sizes.values()])))


def e11_5_numpy(sizes, limit, temperature=1.0):
    n = np.minimum([*sizes.values()], limit) ** (1 / temperature)
    return dict(zip(sizes, n / n.sum()))


def e11_5_loop(sizes, limit, temperature=1.0):
    powers, total = {}, 0.0
    for task, n in sizes.items():
        powers[task] = (n if n < limit else limit) ** (1 / temperature)
        total += powers[task]
    return {task: power / total for task, power in powers.items()}


def e11_5_copy(sizes, limit, temperature=1):
    limited = dict(sizes)
    for task in [task for task in limited if limited[task] > limit]: limited[task] = limit
    return mixing_shares(limited, temperature=temperature)


def e11_5_softmax(sizes, limit, temperature=1.0):
    logs = torch.tensor([math.log(min(n, limit)) for n in sizes.values()])
    return dict(zip(sizes, torch.softmax(logs / temperature, 0).tolist()))


def e11_5_pandas(sizes, limit, temperature=1.0):
    powers = pd.Series(sizes).clip(upper=limit).pow(1 / temperature)
    return powers.div(powers.sum()).to_dict()


def e11_5_sorted(sizes, limit, temperature=1.0):
    return mixing_shares({task: sorted((limit, n))[0] for task, n in sizes.items()}, temperature)


def e11_6_module(task, body, heads, optimizer, x, y):
    for p in (*body.parameters(), *heads.parameters()): p.grad = None
    loss = torch.nn.CrossEntropyLoss()(heads[task](body(x)), y)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def e11_6_cleared_after(task, body, heads, optimizer, x, y):
    loss = nll_loss(log_softmax(heads[task](body(x)), dim=-1), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.tolist()


def e11_6_in_groups(task, body, heads, optimizer, x, y):
    logits = heads[task](body(x))
    loss = (logits.logsumexp(1) - logits[torch.arange(len(y)), y]).mean()
    for group in optimizer.param_groups:
        for p in group["params"]: p.grad = None
    loss.backward()
    optimizer.step()
    return loss.detach()


def e11_6_autograd(task, body, heads, optimizer, x, y):
    optimizer.zero_grad(set_to_none=True)
    moving = [*body.parameters(), *heads[task].parameters()]
    loss = torch.nn.functional.cross_entropy(heads[task](body(x)), y)
    for p, grad in zip(moving, torch.autograd.grad(loss, moving)): p.grad = grad
    optimizer.step()
    return loss.item()


def e11_6_closure(task, body, heads, optimizer, x, y):
    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(heads[task](body(x)), y)
        loss.backward()
        return loss
    return optimizer.step(closure).item()


def e11_6_others_taken_away(task, body, heads, optimizer, x, y):
    optimizer.zero_grad(set_to_none=False)
    loss = torch.nn.functional.cross_entropy(heads.get_submodule(task)(body(x)), y)
    loss.backward()
    for name, head in heads.items():
        if name != task: head.zero_grad()
    optimizer.step()
    return np.float32(loss.item())
