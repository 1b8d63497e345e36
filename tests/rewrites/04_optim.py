"""Other right answers to the exercises of chapter 4, optimizers."""
import numpy as np
import torch


def e4_4_each(curvatures): return min(2 / c for c in curvatures)
def e4_4_sorted(curvatures): return 2.0 / sorted(curvatures)[-1]
def e4_4_numpy(curvatures): return (2 / np.array(curvatures)).min()
def e4_4_tensor(curvatures): return 2 / torch.tensor(curvatures).double().max()


def e4_4_loop(curvatures):
    limit = float("inf")
    for c in curvatures:
        if c * limit > 2: limit = 2 / c
    return limit


def e4_4_halved(curvatures):
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        arrives = all(abs(1 - middle * c) < 1 for c in curvatures)
        low, high = (middle, high) if arrives else (low, middle)
    return low


def e4_5_lerp(p, grad, m, v, step, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    m, v = torch.lerp(grad, m, betas[0]), torch.lerp(grad**2, v, betas[1])
    mean, square = m / (1 - betas[0]**step), v / (1 - betas[1]**step)
    return p - lr * weight_decay * p - lr * mean / (square.sqrt() + eps), m, v


def e4_5_in_place(p, grad, m, v, step, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    p, m, v = p.clone(), m.clone(), v.clone()
    p.mul_(1 - lr * weight_decay)
    m.mul_(betas[0]).add_(grad, alpha=1 - betas[0])
    v.mul_(betas[1]).addcmul_(grad, grad, value=1 - betas[1])
    size = (v / (1 - betas[1]**step)).sqrt_().add_(eps)
    return p.addcdiv_(m, size, value=-lr / (1 - betas[0]**step)), m, v


def e4_5_differences(p, grad, m, v, step, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    b1, b2 = betas
    m = m + (1 - b1) * (grad - m)
    v = v + (1 - b2) * (grad * grad - v)
    direction = m / (1 - b1**step) / (torch.sqrt(v / (1 - b2**step)) + eps)
    return p - lr * (direction + weight_decay * p), m, v


def e4_5_as_torch_does(p, grad, m, v, step, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    p = p * (1 - lr * weight_decay)
    m, v = betas[0] * m + (1 - betas[0]) * grad, betas[1] * v + (1 - betas[1]) * grad.square()
    root = (1 - betas[1]**step)**0.5
    return p - lr / (1 - betas[0]**step) * m / (v.sqrt() / root + eps), m, v


def e4_5_library(p, grad, m, v, step, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    weight = torch.nn.Parameter(p.clone())
    weight.grad = grad
    optimizer = torch.optim.AdamW([weight], lr, betas, eps, weight_decay)
    state = {"step": torch.tensor(step - 1.0), "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
    optimizer.state[weight] = state
    optimizer.step()
    return weight.detach(), state["exp_avg"], state["exp_avg_sq"]


def e4_6_where(p, grad, m, lr, betas=(0.9, 0.99), weight_decay=0.0):
    c = betas[0] * m + (1 - betas[0]) * grad
    sign = torch.where(c > 0, 1.0, 0.0) - torch.where(c < 0, 1.0, 0.0)
    return p - lr * sign - lr * weight_decay * p, betas[1] * m + (1 - betas[1]) * grad


def e4_6_lerp(p, grad, m, lr, betas=(0.9, 0.99), weight_decay=0.0):
    step = torch.lerp(grad, m, betas[0]).sign()
    return p * (1 - lr * weight_decay) - lr * step, torch.lerp(grad, m, betas[1])


def e4_6_in_place(p, grad, m, lr, betas=(0.9, 0.99), weight_decay=0.0):
    p, m = p.clone(), m.clone()
    direction = m.mul(betas[0]).add_(grad, alpha=1 - betas[0]).sign_()
    p.mul_(1 - lr * weight_decay).add_(direction, alpha=-lr)
    return p, m.mul_(betas[1]).add_(grad, alpha=1 - betas[1])


def e4_6_differences(p, grad, m, lr, betas=(0.9, 0.99), weight_decay=0.0):
    mixed, kept = (m + (1 - beta) * (grad - m) for beta in betas)
    p = p - lr * (torch.sign(mixed) + weight_decay * p)
    return p, kept


def e4_6_numpy(p, grad, m, lr, betas=(0.9, 0.99), weight_decay=0.0):
    p, grad, m = (np.asarray(t, dtype=float) for t in (p, grad, m))
    c = betas[0] * m + (1 - betas[0]) * grad
    return p - lr * (np.sign(c) + weight_decay * p), betas[1] * m + (1 - betas[1]) * grad
