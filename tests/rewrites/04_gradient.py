"""Other right answers to the exercises of chapter 4, what a gradient is."""
import math

import numpy as np
import torch

from course_lib.gradient import Scalar


def e4_1_copies(f, x, grad, h=1e-5):
    worst = 0.0
    for i in range(x.numel()):
        up, down = x.clone(), x.clone()
        up[i] += h
        down[i] -= h
        worst = max(worst, abs((f(up) - f(down)).item() / (2 * h) - grad[i].item()))
    return worst


def e4_1_identity(f, x, grad, h=1e-5):
    steps = h * torch.eye(len(x), dtype=x.dtype)
    slopes = torch.stack([f(x + s) - f(x - s) for s in steps]) / (h + h)
    return (slopes - grad).abs().max()


def e4_1_and_back(f, x, grad, h=1e-5):
    x, slopes = x.clone(), torch.empty_like(x)
    for i, value in enumerate(x.tolist()):
        x[i] = value + h
        above = f(x)
        x[i] = value - h
        slopes[i] = (above - f(x)) / h / 2
        x[i] = value
    return torch.linalg.vector_norm(slopes - grad, ord=math.inf).item()


def e4_1_numpy(f, x, grad, h=1e-5):
    steps = np.eye(len(x)) * h
    slopes = [(f(x + torch.tensor(s)) - f(x - torch.tensor(s))).item() for s in steps]
    return np.max(np.abs(np.array(slopes) / (2 * h) - grad.numpy()))


def e4_1_sorted(f, x, grad, h=1e-5):
    def gap(i):
        nudge = torch.tensor([h if j == i else 0.0 for j in range(len(x))], dtype=x.dtype)
        return abs(0.5 * (f(x + nudge) - f(x - nudge)) / h - grad[i])
    return sorted(map(gap, range(len(x))))[-1].item()


def e4_2_cosh(x):
    return Scalar(math.tanh(x.value), ((x, 1 / math.cosh(x.value) ** 2),))


def e4_2_exponentials(x):
    up, down = math.exp(x.value), math.exp(-x.value)
    value = (up - down) / (up + down)
    return Scalar(value, ((x, (1 - value) * (1 + value)),))


def e4_2_numpy(x):
    value = np.tanh(x.value)
    return Scalar(value, ((x, 1 - value * value),))


def e4_2_sigmoid(x):
    s = 1 / (1 + math.exp(-2 * x.value))
    return Scalar(2 * s - 1, ((x, 4 * s * (1 - s)),))


def e4_2_torch(x):
    place = torch.tensor(x.value, dtype=torch.float64, requires_grad=True)
    value = place.tanh()
    value.backward()
    return Scalar(value.item(), [(x, place.grad.item())])


def e4_3_einsum(x, w, grad):
    return (torch.einsum("to,io->ti", grad, w), torch.einsum("ti,to->io", x, grad),
            torch.einsum("to->o", grad))


def e4_3_turned(x, w, grad):
    return (w @ grad.T).T, (grad.T @ x).T, torch.ones(len(x), dtype=x.dtype) @ grad


def e4_3_token_by_token(x, w, grad):
    of_w, of_b, of_x = torch.zeros_like(w), torch.zeros_like(w[0]), torch.zeros_like(x)
    for t in range(len(x)):
        of_x[t] = w @ grad[t]
        of_w += torch.outer(x[t], grad[t])
        of_b += grad[t]
    return of_x, of_w, of_b


def e4_3_mean(x, w, grad):
    n = len(grad)
    return torch.matmul(grad, w.t()), n * (x.mT @ grad / n), n * grad.mean(dim=0)


def e4_3_broadcast(x, w, grad):
    products = x[:, :, None] * grad[:, None, :]
    return (grad[:, None, :] * w).sum(-1), products.sum(0), grad.sum(dim=0)
