"""Other right answers to the exercises of chapter 19."""
import numpy as np
import pandas as pd
import scipy.stats


def e19_1_pandas(labels, answers, groups):
    table = pd.DataFrame({"y": labels, "a": answers, "g": groups})
    shares = table[table["y"] == 1].groupby("g")["a"].mean()
    return shares.max() - shares.min()


def e19_1_counts(labels, answers, groups):
    yes, all_of = {}, {}
    for y, a, g in zip(labels, answers, groups):
        if y != 1: continue
        yes[g] = yes.get(g, 0) + a
        all_of[g] = all_of.get(g, 0) + 1
    shares = [yes[g] / all_of[g] for g in all_of]
    return max(shares) - min(shares)


def e19_1_bincount(labels, answers, groups):
    _, places = np.unique(groups, return_inverse=True)
    n = np.bincount(places, labels)
    rates = np.bincount(places, np.asarray(labels) * answers)[n > 0] / n[n > 0]
    return float(np.ptp(rates))


def e19_2_pandas(labels, groups):
    table = pd.DataFrame({"y": labels, "g": groups})
    n = len(table)
    both = table.groupby(["y", "g"])["y"].transform("size")
    y, g = (table.groupby(name)[name].transform("size") for name in "yg")
    return (y * g / (n * both)).to_numpy()


def e19_2_crosstab(labels, groups):
    observed = pd.crosstab(np.asarray(labels), np.asarray(groups))
    expected = np.outer(observed.sum(1), observed.sum(0)) / observed.to_numpy().sum()
    ratio = pd.DataFrame(expected, observed.index, observed.columns) / observed
    return [ratio.loc[y, g] for y, g in zip(labels, groups)]


def e19_3_scipy(first, second):
    test = scipy.stats.ttest_rel(np.mean(first, 1), np.mean(second, 1))
    ends = test.confidence_interval(0.95)
    return np.mean(np.subtract(first, second)), ends.low, ends.high


def e19_3_interval(first, second):
    gaps = np.mean(first, axis=1) - np.mean(second, axis=1)
    low, high = scipy.stats.t.interval(0.95, len(gaps) - 1, gaps.mean(), scipy.stats.sem(gaps))
    return gaps.mean(), low, high


def e19_1_masked(labels, answers, groups):
    rates = []
    for group in set(np.asarray(groups).tolist()):
        own = (np.asarray(groups) == group) & (np.asarray(labels) == 1)
        if own.any(): rates.append(np.asarray(answers)[own].sum() / own.sum())
    return np.max(rates) - np.min(rates)


def e19_1_fairlearn(labels, answers, groups):
    from fairlearn.metrics import MetricFrame, true_positive_rate
    has = np.isin(groups, np.unique(np.asarray(groups)[np.asarray(labels) == 1]))
    frame = MetricFrame(metrics=true_positive_rate, y_true=np.asarray(labels)[has],
                        y_pred=np.asarray(answers)[has], sensitive_features=np.asarray(groups)[has])
    return frame.difference()


def e19_2_counter(labels, groups):
    from collections import Counter
    pairs = list(zip(np.asarray(labels).tolist(), np.asarray(groups).tolist()))
    n, both = len(pairs), Counter(pairs)
    y, g = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    return np.array([y[a] * g[b] / n / both[a, b] for a, b in pairs])


def e19_2_conditional(labels, groups):
    table = pd.DataFrame({"y": labels, "g": groups})
    share = table["y"].map(table["y"].value_counts(normalize=True))
    def frequency(own): return own.map(own.value_counts(normalize=True))
    within = table.groupby("g")["y"].transform(frequency)
    return (share / within).tolist()


def e19_2_arrays(labels, groups):
    _, y = np.unique(labels, return_inverse=True)
    _, g = np.unique(groups, return_inverse=True)
    observed = np.zeros((y.max() + 1, g.max() + 1))
    np.add.at(observed, (y, g), 1 / len(y))
    expected = observed.sum(1, keepdims=True) * observed.sum(0, keepdims=True)
    return expected[y, g] / observed[y, g]


def e19_3_by_hand(first, second):
    gaps = [float(np.mean(a) - np.mean(b)) for a, b in zip(first, second)]
    n = len(gaps)
    mean = sum(gaps) / n
    variance = sum((gap - mean) ** 2 for gap in gaps) / (n - 1)
    half = scipy.stats.t(n - 1).ppf(0.975) * (variance / n) ** 0.5
    return mean, mean - half, mean + half


def e19_3_one_sample(first, second):
    gaps = pd.DataFrame(np.asarray(first) - np.asarray(second)).mean(axis=1)
    ends = scipy.stats.ttest_1samp(gaps, 0).confidence_interval()
    return [gaps.mean(), ends.low, ends.high]


def e19_3_pandas(first, second):
    gaps = pd.Series(np.mean(first, 1) - np.mean(second, 1))
    half = gaps.sem() * -scipy.stats.t.ppf(0.025, gaps.size - 1)
    return np.array([gaps.mean(), gaps.mean() - half, gaps.mean() + half])
