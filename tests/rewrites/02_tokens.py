"""Other right answers to the exercises of chapter 2."""
import numpy as np
import torch


def e2_1_one_at_a_time(tokenizer, texts, max_length):
    cut = [t for t in texts if len(tokenizer(t)["input_ids"]) > max_length]
    return len(cut) / len(texts)


def e2_1_mean(tokenizer, texts, max_length):
    return np.mean([len(ids) > max_length for ids in tokenizer(texts).input_ids])


def e2_1_encode(tokenizer, texts, max_length):
    return 1 - sum(len(tokenizer.encode(t)) <= max_length for t in texts) / len(texts)


def e2_1_truncated(tokenizer, texts, max_length):
    whole = tokenizer(texts)["input_ids"]
    cut = [len(ids[:max_length]) < len(ids) for ids in whole]
    return torch.tensor(cut).float().mean()


def e2_1_lengths(tokenizer, texts, max_length):
    lengths = np.array(tokenizer(texts, return_length=True)["length"])
    return np.count_nonzero(lengths > max_length) / lengths.size


def e2_2_loop(rows, pad_token_id):
    shape = len(rows), max(map(len, rows))
    ids, mask = torch.full(shape, pad_token_id), torch.zeros(shape, dtype=torch.long)
    places = torch.zeros(shape, dtype=torch.long)
    for k, row in enumerate(rows):
        ids[k, shape[1] - len(row):] = torch.tensor(row)
        mask[k, shape[1] - len(row):] = 1
        places[k, shape[1] - len(row):] = torch.arange(len(row))
    return {"input_ids": ids, "attention_mask": mask, "position_ids": places}


def e2_2_flipped(rows, pad_token_id):
    turned = [torch.tensor(row[::-1]) for row in rows]
    ids = torch.nn.utils.rnn.pad_sequence(turned, True, pad_token_id).flip(1)
    ones = [torch.ones(len(row), dtype=torch.long) for row in rows]
    mask = torch.nn.utils.rnn.pad_sequence(ones, batch_first=True).flip(1)
    places = mask.cumsum(1) - mask
    return {"input_ids": ids, "attention_mask": mask, "position_ids": places}


def e2_2_from_lengths(rows, pad_token_id):
    lengths = torch.tensor([len(r) for r in rows])
    width = int(lengths.max())
    places = torch.arange(width) - (width - lengths)[:, None]
    ids = torch.tensor([[pad_token_id] * (width - len(r)) + list(r) for r in rows])
    return {"input_ids": ids, "attention_mask": places >= 0, "position_ids": places.clamp(0)}


def e2_2_ones_on_padding(rows, pad_token_id):
    made = e2_2_loop(rows, pad_token_id)
    places = made["position_ids"].masked_fill(made["attention_mask"] == 0, 1)
    return {**made, "position_ids": places}


def e2_2_numpy(rows, pad_token_id):
    width = max(len(r) for r in rows)
    missing = [width - len(r) for r in rows]
    ids = np.array([np.r_[np.full(m, pad_token_id, int), r] for m, r in zip(missing, rows)])
    mask = np.array([np.r_[np.zeros(m, int), np.ones(width - m, int)] for m in missing])
    places = np.maximum(np.cumsum(mask, 1) - 1, 0)
    made = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
    return {name: torch.from_numpy(a) for name, a in made.items()}


def by_size(lengths): return sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)


def e2_3_sums(lengths, width):
    rows = []
    for i in by_size(lengths):
        for row in rows:
            if sum(lengths[j] for j in row) + lengths[i] <= width:
                row.append(i)
                break
        else: rows.append([i])
    return rows


def e2_3_numpy(lengths, width):
    rows, used = [[] for _ in lengths], np.zeros(len(lengths), dtype=int)
    for i in np.argsort(-np.array(lengths), kind="stable"):
        r = int(np.argmax(used + lengths[i] <= width))
        used[r] += lengths[i]
        rows[r].append(int(i))
    return [row for row in rows if row]


def e2_3_pairs(lengths, width):
    rows = []                           # [what is used, the texts]
    for n, i in sorted(((n, i) for i, n in enumerate(lengths)), key=lambda pair: -pair[0]):
        free = [row for row in rows if row[0] + n <= width]
        if not free:
            free = [[0, []]]
            rows += free
        free[0][0] += n
        free[0][1].append(i)
    return [texts for _, texts in rows]


def e2_3_recursive(lengths, width):
    def put(i, rows):
        if not rows: return [[i]]
        first, *rest = rows
        if sum(lengths[j] for j in first) + lengths[i] <= width: return [[*first, i], *rest]
        return [first, *put(i, rest)]
    rows = []
    for i in by_size(lengths): rows = put(i, rows)
    return rows


def e2_3_popped(lengths, width):
    waiting = sorted(range(len(lengths)), key=lambda i: lengths[i])
    rows, room = [], []
    while waiting:
        i = waiting.pop()
        k = next((k for k, free in enumerate(room) if free >= lengths[i]), len(room))
        if k == len(room):
            rows.append([])
            room.append(width)
        rows[k] += [i]
        room[k] -= lengths[i]
    return tuple(rows)


def e2_3_row_by_row(lengths, width):
    left, rows = by_size(lengths), []
    while left:
        row, room = [], width
        for i in list(left):
            if lengths[i] <= room:
                row.append(i)
                room -= lengths[i]
                left.remove(i)
        rows.append(row)
    return rows
