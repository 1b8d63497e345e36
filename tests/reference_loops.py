"""Plain loops, each for one thing, as the course had them before there was one for all.

They stay as they are: `fit` is held to them.
"""
import math

import torch
from torch.nn.functional import cross_entropy

from course_lib.optim import make_optimizer, make_schedule
from course_lib.tokens import batches, epoch_order
from course_lib.training import batch_logits, make_batch


def backward_and_step(model, losses, optimizer, schedule, max_grad_norm=1.0):
    optimizer.zero_grad()
    total = 0.0
    for loss in losses:
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    schedule.step()
    return total


def class_loss(model, rows):
    batch = make_batch(model, rows)
    return cross_entropy(batch_logits(model, batch).float(), batch["labels"])


def classify(model, train, epochs, batch_size, accumulation, learning_rate, weight_decay=0.01,
             seed=0):
    "Classification with accumulation: the losses of all steps."
    size, found = batch_size * accumulation, []
    steps = epochs * math.ceil(len(train) / size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        optimizer = make_optimizer(model, learning_rate, weight_decay)
        schedule = make_schedule(optimizer, steps, round(0.1 * steps), "linear")
        model.train()
        for epoch in range(epochs):
            for order in batches(epoch_order(len(train), seed, epoch), size):
                rows = [train[i] for i in order]
                parts = (class_loss(model, part) * (len(part) / len(rows))
                         for part in batches(rows, batch_size))
                found.append(backward_and_step(model, parts, optimizer, schedule))
    model.eval()
    return found


def take_turns(models, train, order, batch_size, learning_rate, seed=0):
    "Several tasks on one body, each step a batch of one of them: the losses of all steps."
    def stream(n):
        epoch = 0
        while True:
            yield from batches(epoch_order(n, seed, epoch), batch_size)
            epoch += 1
    streams, found = {task: stream(len(rows)) for task, rows in train.items()}, []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        optimizer = make_optimizer(models, learning_rate, 0.01)
        schedule = make_schedule(optimizer, len(order), round(0.1 * len(order)), "linear")
        models.train()
        for task in order:
            rows = [train[task][i] for i in next(streams[task])]
            loss = class_loss(models[task], rows)
            found.append(backward_and_step(models, [loss], optimizer, schedule))
    models.eval()
    return found


def pretrain(model, loss_of, draw, steps, optimizer, schedule):
    "A stream of batches, each determined by the number of its step: the losses of all steps."
    found = []
    for step in range(steps):
        batch = draw(step)
        labels = batch.pop("labels")
        found.append(backward_and_step(model, [loss_of(model, batch, labels)], optimizer, schedule))
    return found
