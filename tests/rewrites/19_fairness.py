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
