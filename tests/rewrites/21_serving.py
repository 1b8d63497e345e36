"""Other right answers to the exercises of chapter 21, serving."""
import heapq
from bisect import bisect_right
from collections import deque
from itertools import accumulate


def e21_6_total(lengths, most):
    batches, total = [], most
    for length in lengths:
        if total + length > most:
            batches.append([])
            total = 0
        batches[-1].append(length)
        total += length
    return batches


def e21_6_queue(lengths, most):
    queue, batches = deque(lengths), []
    while queue:
        batch = [queue.popleft()]
        while queue and sum(batch) + queue[0] <= most: batch.append(queue.popleft())
        batches.append(batch)
    return batches


def e21_6_recursive(lengths, most):
    if not lengths: return []
    n = 1
    while n < len(lengths) and sum(lengths[:n + 1]) <= most: n += 1
    return [lengths[:n], *e21_6_recursive(lengths[n:], most)]


def e21_6_ends(lengths, most):
    batches, start = [], 0
    while start < len(lengths):
        fit = bisect_right(list(accumulate(lengths[start:])), most)
        end = start + max(1, fit)
        batches.append(lengths[start:end])
        start = end
    return batches


def e21_6_current(lengths, most):
    batches, current = [], []
    for length in lengths:
        if current and sum(current) + length > most:
            batches.append(current)
            current = []
        current = [*current, length]
    return [*batches, current] if current else batches


def e21_7_bisect(arrivals, fixed, each, most):
    answers, free = [], 0
    while len(answers) < len(arrivals):
        begin = max(free, arrivals[len(answers)])
        size = min(most, bisect_right(arrivals, begin) - len(answers))
        free = begin + fixed + each * size
        answers.extend([free] * size)
    return answers


def e21_7_queue(arrivals, fixed, each, most):
    coming, now, answers = deque(arrivals), 0, []
    while coming:
        now, size = max(now, coming[0]), 0
        while coming and coming[0] <= now and size < most:
            coming.popleft()
            size += 1
        now += fixed + size * each
        answers += size * [now]
    return answers


def e21_7_index(arrivals, fixed, each, most):
    answers, i, clock = [0] * len(arrivals), 0, 0
    while i < len(arrivals):
        clock, j = max(clock, arrivals[i]), i
        while j < min(i + most, len(arrivals)) and arrivals[j] <= clock: j += 1
        clock += fixed + each * (j - i)
        answers[i:j] = [clock] * (j - i)
        i = j
    return answers


def e21_7_heap(arrivals, fixed, each, most):
    heap, free, found = list(arrivals), 0, []
    heapq.heapify(heap)
    while heap:
        start = max(free, heap[0])
        batch = []
        while heap and heap[0] <= start and len(batch) < most: batch.append(heapq.heappop(heap))
        free = start + fixed + each * len(batch)
        found += [free for _ in batch]
    return found


def e21_7_recursive(arrivals, fixed, each, most, free=0):
    if not arrivals: return []
    start = max(free, arrivals[0])
    size = len([t for t in arrivals[:most] if t <= start])
    end = start + fixed + each * size
    return [end] * size + e21_7_recursive(arrivals[size:], fixed, each, most, end)
