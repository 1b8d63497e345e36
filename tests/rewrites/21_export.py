"""Other right answers to the exercises of chapter 21, export."""
import numpy as np


def e21_1_loop(labels, before, after):
    found = {"flips": 0, "lost": 0, "gained": 0}
    for y, b, a in zip(labels, before, after):
        if b == a: continue
        found["flips"] += 1
        if b == y: found["lost"] += 1
        if a == y: found["gained"] += 1
    return found


def e21_1_arrays(labels, before, after):
    y, b, a = (np.array(own) for own in (labels, before, after))
    changed = b != a
    return {"flips": int(changed.sum()), "lost": int((changed & (b == y)).sum()),
            "gained": int((changed & (a == y)).sum())}


def e21_1_numpy_numbers(labels, before, after):
    right = np.array(before) == labels, np.array(after) == labels
    return {"flips": np.not_equal(before, after).sum(), "lost": (right[0] & ~right[1]).sum(),
            "gained": (~right[0] & right[1]).sum()}


def e21_1_changed_first(labels, before, after):
    changed = [(y, b, a) for y, b, a in zip(labels, before, after) if b != a]
    return {"gained": sum(a == y for y, _, a in changed),
            "lost": sum(b == y for y, b, _ in changed), "flips": len(changed)}


def e21_1_sets(labels, before, after):
    right = [{i for i, (a, y) in enumerate(zip(own, labels)) if a == y} for own in (before, after)]
    flips = len([1 for b, a in zip(before, after) if b != a])
    return {"flips": flips, "lost": len(right[0] - right[1]), "gained": len(right[1] - right[0])}


def e21_2_arrays(x):
    low, high = np.minimum(x.min(), 0), np.maximum(x.max(), 0)
    scale = (high - low) / 255
    zero = np.round(-low / scale)
    return np.clip(np.rint(x / scale + zero), 0, 255).astype("uint8"), scale, zero


def e21_2_padded(x):
    ends = np.append(x, 0.0)
    scale = np.ptp(ends) / 255
    zero = int(np.rint(-ends.min() / scale))
    numbers = np.floor(x / scale + 0.5) + zero
    return numbers.clip(0, 255).astype(np.uint8), scale, zero


def e21_2_loop(x):
    low, high = min([0, *x]), max([0, *x])
    scale = (high - low) / 255
    zero = round(-low / scale)
    numbers = [min(255, max(0, round(value / scale) + zero)) for value in x]
    return np.array(numbers, dtype=np.uint8), scale, zero


def e21_2_steps(x):
    high, low = max(0, x.max()), min(0, x.min())
    steps_per_unit = 255 / (high - low)
    zero = np.uint8(np.round(-low * steps_per_unit))
    numbers = np.round(x * steps_per_unit) + zero
    return np.uint8(np.clip(numbers, 0, 255)), 1 / steps_per_unit, int(zero)


def e21_2_from_below(x):
    low = min(0.0, x.min())
    scale = (max(0.0, x.max()) - low) / 255
    zero = np.around(abs(low) / scale)
    numbers = np.around(x / scale)
    shifted = np.minimum(np.maximum(numbers + zero, 0), 255)
    return shifted.astype(np.uint8), scale, zero
