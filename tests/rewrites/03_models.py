"""Other right answers to the exercises of chapter 3, the model."""
import numpy as np
import torch


def e3_4_sum(model):
    return model.get_input_embeddings().weight.numel() / sum(p.numel() for p in model.parameters())


def e3_4_shape(model):
    rows, width = model.get_input_embeddings().weight.shape
    return rows * width / model.num_parameters()


def e3_4_by_name(model):
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    return sizes["transformer.wte.weight"] / sum(sizes.values())


def e3_4_by_address(model):
    table = model.get_input_embeddings().weight
    own = {p.data_ptr(): p.numel() for p in model.state_dict().values()}
    return own[table.data_ptr()] / sum(own.values())


def e3_4_numpy(model):
    sizes = np.array([p.numel() for p in model.parameters()])
    return np.float64(model.get_input_embeddings().weight.nelement()) / sizes.sum()


def e3_4_tensor(model):
    table = model.get_input_embeddings()
    return torch.tensor(table.num_embeddings * table.embedding_dim) / model.num_parameters()


def e3_5_loop(states, attention_mask):
    return torch.stack([s[m.bool()].mean(0) for s, m in zip(states, attention_mask)])


def e3_5_matrices(states, attention_mask):
    mask = attention_mask.to(states)
    return (mask[:, None] @ states)[:, 0] / mask.sum(-1, keepdim=True)


def e3_5_shares(states, attention_mask):
    shares = attention_mask / attention_mask.sum(1, keepdim=True)
    return torch.einsum("rt,rtw->rw", shares.to(states.dtype), states)


def e3_5_filled(states, attention_mask):
    kept = states.masked_fill(attention_mask.unsqueeze(-1) == 0, 0)
    return kept.sum(dim=1) / attention_mask.sum(dim=1).unsqueeze(-1)


def e3_5_nan(states, attention_mask):
    real = attention_mask[..., None].bool()
    return torch.where(real, states, torch.nan).nanmean(1)


def e3_6_index(states, attention_mask):
    return torch.stack([s[m.nonzero().max()] for s, m in zip(states, attention_mask)])


def e3_6_turned(states, attention_mask):
    last = attention_mask.shape[1] - 1 - attention_mask.flip(1).int().argmax(1)
    return states[torch.arange(len(states)), last]


def e3_6_gather(states, attention_mask):
    place = torch.arange(states.shape[1]) * attention_mask.long()
    last = place.max(-1).values[:, None, None].expand(-1, 1, states.shape[-1])
    return states.gather(1, last)[:, 0]


def e3_6_loop(states, attention_mask):
    found = []
    for row, mask in zip(states, attention_mask.tolist()):
        real = [i for i, is_real in enumerate(mask) if is_real]
        found.append(row[real[-1]])
    return torch.stack(found)


def e3_6_counted(states, attention_mask):
    last = attention_mask.int().cumsum(1).argmax(1)     # the first place where the count is full
    return states[range(len(states)), last]


def e3_6_masked(states, attention_mask):
    return torch.stack([s[m == 1][-1] for s, m in zip(states, attention_mask)])
