"""Other right answers to the exercises of the page on the registry."""
import bisect


def e21_3_loop(events, stage, at):
    stack = []
    for event in events:
        if event["at"] > at: break
        if event["stage"] != stage: continue
        if event["kind"] == "rollback": stack.pop()
        else: stack.append(event["version"])
    return stack[-1] if stack else None


def e21_3_last_version(events, stage, at):
    "An event of either kind names the version that is there after it."
    found = [e["version"] for e in events if e["at"] <= at and e["stage"] == stage]
    return found[-1] if found else None


def e21_3_backwards(events, stage, at):
    return next((e["version"] for e in reversed(events)
                 if e["stage"] == stage and e["at"] <= at), None)


def e21_3_bisect(events, stage, at):
    own = [e for e in events if e["stage"] == stage]
    i = bisect.bisect_right([e["at"] for e in own], at)
    return own[i - 1]["version"] if i else None


def e21_3_filter(events, stage, at):
    version = None
    for event in filter(lambda e: e["stage"] == stage and not e["at"] > at, events):
        version = event["version"]
    return version


def e21_4_list(found, margin):
    return list(found["difference"].values())[0]["low"] > -margin


def e21_4_other_side(found, margin):
    metric = next(iter(found["difference"]))
    return -found["difference"][metric]["low"] < margin


def e21_4_refuse_first(found, margin):
    for gap in found["difference"].values():
        if gap["low"] <= -margin: return False
        return True


def e21_4_unpacked(found, margin):
    first, *_ = found["difference"].values()
    return not first["low"] <= -margin


def e21_4_largest_loss(found, margin):
    worst = min(next(iter(found["difference"].items()))[1].values())
    return bool(worst > -margin)


def parse(text):
    return dict(line.split("  ", 1)[::-1] for line in text.splitlines())


def e21_5_sets(old, new):
    old, new = parse(old), parse(new)
    return {"added": sorted(set(new) - set(old)), "removed": sorted(set(old) - set(new)),
            "changed": sorted(n for n in set(old) & set(new) if old[n] != new[n])}


def e21_5_loop(old, new):
    old, new = parse(old), parse(new)
    found = {"added": [], "removed": [], "changed": []}
    for name in sorted({*old, *new}):
        if name not in old: found["added"].append(name)
        elif name not in new: found["removed"].append(name)
        elif old[name] != new[name]: found["changed"].append(name)
    return found


def e21_5_items(old, new):
    before, after = parse(old), parse(new)
    gone = {n for n, _ in before.items() - after.items()}
    come = {n for n, _ in after.items() - before.items()}
    return {"removed": sorted(gone - come), "added": sorted(come - gone),
            "changed": sorted(gone & come)}


def e21_5_partition(old, new):
    def read(text):
        files = {}
        for line in text.splitlines():
            digest, _, name = line.partition("  ")
            files[name] = digest
        return files
    before, after = read(old), read(new)
    return {"added": sorted(n for n in after if n not in before),
            "removed": sorted(n for n in before if n not in after),
            "changed": sorted(n for n in after if before.get(n, after[n]) != after[n])}


def e21_5_get(old, new):
    before, after = parse(old), parse(new)
    kinds = {"added": lambda a, b: a is None, "removed": lambda a, b: b is None,
             "changed": lambda a, b: a and b and a != b}
    names = sorted(before | after)
    return {kind: [n for n in names if holds(before.get(n), after.get(n))]
            for kind, holds in kinds.items()}
