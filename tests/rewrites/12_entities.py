"""Other right answers to the exercises of chapter 12."""
from course_lib.entities import spans_of


def e12_1_loop(words, tags, kind):
    names = []
    for span in spans_of(tags):
        if span[2] == kind: names.append(" ".join(words[span[0]:span[1]]))
    return names


def e12_1_filter(words, tags, kind):
    mine = filter(lambda span: span[-1] == kind, spans_of(tags))
    return [" ".join(words[k] for k in range(first, end)) for first, end, _ in mine]


def e12_1_tag_by_tag(words, tags, kind):
    names = []
    for word, tag in zip(words, tags):
        if tag == f"B-{kind}": names.append([word])
        elif tag == f"I-{kind}": names[-1].append(word)
    return [" ".join(name) for name in names]


def e12_1_map(words, tags, kind):
    places = [(a, b) for a, b, name in spans_of(tags) if name == kind]
    return list(map(" ".join, (words[a:b] for a, b in places)))


def e12_1_by_kind(words, tags, kind):
    found = {}
    for a, b, name in spans_of(tags): found.setdefault(name, []).append(" ".join(words[a:b]))
    return found.get(kind, [])


def e12_2_flat(tags, pieces):
    return [tag if k == 0 else tag.replace("B-", "I-", 1)
            for tag, n in zip(tags, pieces) for k in range(n)]


def e12_2_dict(tags, pieces):
    later = {tag: "I" + tag[1:] if tag[0] == "B" else tag for tag in tags}
    found = []
    for tag, n in zip(tags, pieces): found.extend([tag] + (n - 1) * [later[tag]])
    return found


def e12_2_spans(tags, pieces):
    found, at = ["O"] * sum(pieces), [sum(pieces[:k]) for k in range(len(pieces) + 1)]
    for first, end, kind in spans_of(tags):
        for k in range(at[first], at[end]): found[k] = f"I-{kind}"
        found[at[first]] = f"B-{kind}"
    return found


def e12_2_split(tags, pieces):
    found = []
    for tag, n in zip(tags, pieces):
        letter, _, kind = tag.partition("-")
        found += [tag]
        found += ["O" if letter == "O" else f"I-{kind}" for _ in range(1, n)]
    return found


def e12_2_while(tags, pieces):
    found = []
    for i, tag in enumerate(tags):
        left = pieces[i]
        while left:
            found.append(tag)
            if tag != "O": tag = "I-" + tag[2:]
            left -= 1
    return found


def e12_3_spans(truth, found):
    def entities(side): return {(i, *s) for i, tags in enumerate(side) for s in spans_of(tags)}
    a, b = entities(truth), entities(found)
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 0


def e12_3_precision_and_recall(truth, found):
    right = answers = there = 0
    for t, f in zip(truth, found):
        t, f = set(spans_of(t)), set(spans_of(f))
        right, answers, there = right + len(t & f), answers + len(f), there + len(t)
    if not right: return 0.0
    precision, recall = right / answers, right / there
    return 2 * precision * recall / (precision + recall)


def e12_3_open_entity(truth, found):
    def entities(side):
        spans = []
        for number, tags in enumerate(side):
            begun = None
            for k, tag in enumerate([*tags, "O"]):
                if begun is not None and tag != f"I-{begun[1]}":
                    spans.append((number, begun[0], k, begun[1]))
                    begun = None
                if tag[0] == "B": begun = (k, tag[2:])
        return spans
    a, b = entities(truth), entities(found)
    return 2 * sum(span in b for span in a) / max(1, len(a) + len(b))


def e12_3_joined(truth, found):
    def entities(side):
        tags = [tag for sentence in side for tag in [*sentence, "O"]]
        return set(spans_of(tags))
    a, b = entities(truth), entities(found)
    return 2 * len(a.intersection(b)) / (len(a) + len(b) or 1)


def e12_3_errors(truth, found):
    a, b = ([(i, s) for i, tags in enumerate(side) for s in spans_of(tags)]
            for side in (truth, found))
    missed, wrong = len(set(a) - set(b)), len(set(b) - set(a))
    right = len(a) - missed
    return right / (right + (missed + wrong) / 2) if a or b else 0.0
