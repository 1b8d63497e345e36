"""Other right answers to the exercises of chapter 6."""
import numpy as np
import sklearn.metrics

from course_lib.evaluation import bootstrap_interval


def e6_1_plain_loop(labels, first, second):
    gain = [int(a == y) - int(b == y) for y, a, b in zip(labels, first, second)]
    return bootstrap_interval(np.mean, np.array(gain, dtype=float))[0] > 0


def e6_1_two_columns(labels, first, second):
    right = np.stack([first == labels, second == labels]).astype(float)
    low, _ = bootstrap_interval(lambda a, b: a.mean() - b.mean(), *right)
    return 0 < low


def e6_1_own_bootstrap(labels, first, second):
    gain = (first == labels) * 1.0 - (second == labels) * 1.0
    rows = np.random.default_rng(7).integers(len(gain), size=(4000, len(gain)))
    return np.quantile(gain[rows].mean(1), 0.025) > 0


def e6_1_normal(labels, first, second):
    gain = np.subtract(first == labels, second == labels, dtype=float)
    return bool(gain.mean() > 1.96 * gain.std(ddof=1) / np.sqrt(len(gain)))


def e6_1_percentile(labels, first, second):
    gain = np.where(first == labels, 1, 0) - np.where(second == labels, 1, 0)
    rng = np.random.default_rng(1)
    means = sorted(rng.choice(gain, len(gain)).mean() for _ in range(2000))
    return int(means[50] > 0)


def e6_2_sklearn(labels, predictions):
    seen = np.isin(predictions, labels)
    known = np.where(seen, predictions, labels.max() + 1)
    return sklearn.metrics.recall_score(labels, known, labels=np.unique(labels), average="macro")


def e6_2_loop(labels, predictions):
    found, there = {}, {}
    for y, p in zip(labels.tolist(), predictions.tolist()):
        there[y] = there.get(y, 0) + 1
        found[y] = found.get(y, 0) + (y == p)
    return sum(found[c] / there[c] for c in there) / len(there)


def e6_2_bincount(labels, predictions):
    there = np.bincount(labels)
    found = np.bincount(labels[labels == predictions], minlength=len(there))
    return (found[there > 0] / there[there > 0]).mean()


def e6_2_weights(labels, predictions):
    classes, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights = 1 / counts[place] / len(classes)
    return np.sum(weights * (labels == predictions))


def e6_2_per_class(labels, predictions):
    recalls = []
    for c in set(labels.tolist()):
        rows = np.flatnonzero(labels == c)
        recalls.append(np.count_nonzero(predictions[rows] == c) / rows.size)
    return np.mean(recalls)


def e6_3_loop(labels, first, second, rounds=1000, seed=0):
    rng = np.random.default_rng(seed)
    gain, count = (first == labels) * 1 - (second == labels) * 1, 0
    for _ in range(rounds):
        flipped = np.where(rng.random(len(gain)) < 0.5, gain, -gain)
        count += abs(flipped.sum()) >= abs(gain.sum())
    return (1 + count) / (1 + rounds)


def e6_3_swapped_answers(labels, first, second, rounds=1000, seed=0):
    rng = np.random.default_rng(seed)
    def gap(a, b): return abs(np.count_nonzero(a == labels) - np.count_nonzero(b == labels))
    real, count = gap(first, second), 0
    for _ in range(rounds):
        swap = rng.integers(2, size=len(labels)) == 1
        count += gap(np.where(swap, second, first), np.where(swap, first, second)) >= real
    return (count + 1) / (rounds + 1)


def e6_3_binomial(labels, first, second, rounds=1000, seed=0):
    gain = (first == labels).astype(int) - (second == labels)
    n = np.count_nonzero(gain)
    heads = np.random.default_rng(seed).binomial(n, 0.5, rounds)
    return (1 + np.sum(abs(2 * heads - n) >= abs(gain.sum()))) / (1 + rounds)


def e6_3_means(labels, first, second, rounds=1000, seed=0):
    gain = np.equal(first, labels).astype(float) - np.equal(second, labels)
    signs = 2 * np.random.default_rng(seed).integers(0, 2, (rounds, gain.size)) - 1
    drawn = abs((signs * gain).mean(axis=1))
    return float(np.r_[1, drawn >= abs(gain.mean()) - 1e-12].mean())


def e6_3_legacy_generator(labels, first, second, rounds=1000, seed=0):
    draw = np.random.RandomState(seed)
    gain = (first == labels).astype(int) - (second == labels).astype(int)
    sums = [int(gain @ draw.choice((-1, 1), len(gain))) for _ in range(rounds)]
    return (1 + sum(abs(s) >= abs(int(gain.sum())) for s in sums)) / (1 + rounds)
