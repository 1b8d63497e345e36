"""Other right answers to the exercises of chapter 11, adapters."""
import copy

import numpy as np
import torch
from torch.nn.functional import linear

from course_lib.adapters import LoRA, add_lora, linear_layers, sizes


def e11_1_loop(model, r):
    total = 0
    for layer in linear_layers(model).values(): total += r * sum(sizes(layer))
    return total


def e11_1_shapes(model, r):
    shapes = np.array([layer.weight.shape for layer in linear_layers(model).values()])
    return r * shapes.sum()


def e11_1_copied(model, r):
    other = add_lora(copy.deepcopy(model), r)
    return sum(p.numel() for p in other.parameters()) - sum(p.numel() for p in model.parameters())


def e11_1_matrices(model, r):
    return sum(torch.empty(r, n_in).numel() + torch.empty(n_out, r).numel()
               for n_in, n_out in (sizes(x) for x in linear_layers(model).values()))


def e11_1_two_sums(model, r):
    n_in, n_out = np.transpose([sizes(layer) for layer in linear_layers(model).values()])
    return torch.tensor(r * n_in.sum() + n_out.sum() * r)


def e11_2_two_steps(weight, old, new, scale):
    plain = weight - scale * torch.matmul(old[1], old[0])
    return plain + scale * torch.matmul(new[1], new[0])


def e11_2_in_a_copy(weight, old, new, scale):
    found = weight.clone()
    found -= scale * old[1] @ old[0]
    found += scale * new[1] @ new[0]
    return found


def e11_2_addmm(weight, old, new, scale):
    without = torch.addmm(weight, old[1], old[0], alpha=-scale)
    return torch.addmm(without, new[1], new[0], alpha=scale)


def e11_2_one_product(weight, old, new, scale):
    left = torch.cat([new[1], -old[1]], dim=1)
    return weight + scale * left @ torch.cat([new[0], old[0]])


def e11_2_einsum(weight, old, new, scale):
    def of(pair): return torch.einsum("ri,or->oi", *pair)
    return weight + (of(new) - of(old)) * scale


def e11_2_numpy(weight, old, new, scale):
    (a, b), (c, d) = ([x.numpy() for x in pair] for pair in (old, new))
    return weight.numpy() + scale * (d.dot(c) - b.dot(a))


def e11_3_of_the_chapter(layer, r, alpha):
    return LoRA(layer.requires_grad_(False), r, alpha)


class Parameters(torch.nn.Module):
    def __init__(self, layer, r, alpha):
        super().__init__()
        self.layer, self.r, self.alpha = layer, r, alpha
        for p in layer.parameters(): p.requires_grad = False
        self.A = torch.nn.Parameter(0.02 * torch.randn(r, layer.in_features))
        self.B = torch.nn.Parameter(torch.zeros(layer.out_features, r))

    def forward(self, x):
        change = self.alpha * self.B @ self.A / self.r
        return linear(x, self.layer.weight + change, self.layer.bias)


def e11_3_one_weight(layer, r, alpha): return Parameters(layer, r, alpha)


class Detached(torch.nn.Module):
    def __init__(self, layer, r, alpha):
        super().__init__()
        self.register_buffer("weight", layer.weight.detach().clone())
        self.register_buffer("bias", layer.bias.detach().clone())
        self.A = torch.nn.Parameter(torch.empty(layer.in_features, r))
        self.B = torch.nn.Parameter(torch.zeros(r, layer.out_features))
        torch.nn.init.kaiming_uniform_(self.A, a=5 ** 0.5)
        self.scale = alpha / r

    def forward(self, x): return x @ self.weight.T + self.bias + x @ self.A @ self.B * self.scale


def e11_3_buffers(layer, r, alpha): return Detached(layer, r, alpha)


def e11_3_first_zero(layer, r, alpha):
    class Change(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen = [layer.requires_grad_(False)]
            self.A = torch.nn.Parameter(torch.zeros(r, layer.in_features))
            self.B = torch.nn.Parameter(torch.randn(layer.out_features, r) / r ** 0.5)

        def forward(self, x):
            change = torch.einsum("...i,ri,or->...o", x, self.A, self.B)
            return self.frozen[0](x) + change / r * alpha
    return Change()


def e11_3_in_a_row(layer, r, alpha):
    small = torch.nn.Sequential(torch.nn.Linear(layer.in_features, r, bias=False),
                                torch.nn.Linear(r, layer.out_features, bias=False))
    torch.nn.init.zeros_(small[1].weight)
    torch.nn.init.normal_(small[0].weight)
    for p in (layer.weight, layer.bias): p.requires_grad_(False)

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.small = layer, small

        def forward(self, x): return self.layer(x).add(self.small(x), alpha=alpha / r)
    return Both()
