"""Names in a sentence: scores equal to two libraries', the head to transformers', files of every
usual kind are read, and bad ones are refused with a place and advice."""
import inspect
import io
import itertools
import json
import re

import numpy as np
import pytest
import torch
from conftest import run_course
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from nervaluate.evaluator import Evaluator
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2
from test_loop import CONFIGS, same
from transformers import AutoModelForTokenClassification, AutoTokenizer

from course_lib import entities, runs
from course_lib.conll import Sentence, read_sentences, to_bilou, to_bio
from course_lib.download import cache_folder, is_there
from course_lib.entities import (
    KINDS, STATISTICS, Marked, ambiguous, answer_texts, best_path, commonest_tags, count_entities,
    count_errors, encode, entity_f1, forbidden, kind_of, mark, pad_tags, predict_sentences,
    read_entities, recipe_for, score_entities, spans_of, split_words, tag_names, tagging, tags_in,
    tags_of, to_rows, word_scores)
from course_lib.errors import InputError
from course_lib.loading import find_model
from course_lib.models import load
from course_lib.packed import unpadded
from course_lib.recipe import Recipe
from course_lib.training import TaskLoss, fit

TYPES = ["PER", "LOC", "creative-work", "人"]
TAGS = tag_names(TYPES)
tag_lists = st.lists(st.sampled_from(TAGS), min_size=1, max_size=9)


@st.composite
def pairs_of_files(draw):
    "Two taggings of the same sentences, possible or not, empty ones among them."
    truth = draw(st.lists(tag_lists, min_size=1, max_size=4))
    found = [draw(st.lists(st.sampled_from(TAGS), min_size=len(t), max_size=len(t))) for t in truth]
    return truth, found


# tags

@given(tag_lists)
def test_every_scheme_says_the_same(tags):
    clean = to_bio(tags)
    assert tags_of(spans_of(clean), len(clean)) == clean
    assert to_bio(to_bilou(clean)) == clean
    as_bioes = [{"L": "E", "U": "S"}.get(t[0], t[0]) + t[1:] for t in to_bilou(clean)]
    assert to_bio(as_bioes) == clean
    iob1 = [f"I{t[1:]}" if t[0] == "B" and before[1:] != t[1:] else t
            for before, t in itertools.pairwise(["O", *clean])]
    assert to_bio(iob1) == clean


def test_bilou_as_it_is_usually_written():
    assert to_bilou(["B-PER", "I-PER", "I-PER", "O", "B-LOC", "B-LOC", "I-LOC"]) == [
        "B-PER", "I-PER", "L-PER", "O", "U-LOC", "B-LOC", "L-LOC"]


# scores

@given(pairs_of_files())
def test_scores_are_those_of_seqeval(files):
    truth, found = files
    counts = count_entities(truth, found, TYPES)
    how = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
    wanted = {"f1": f1_score(truth, found, **how),
              "precision": precision_score(truth, found, **how),
              "recall": recall_score(truth, found, **how),
              "macro_f1": f1_score(truth, found, average="macro", **how)}
    for name, value in wanted.items():
        if name == "macro_f1" and not counts.any(): continue # seqeval has no classes to average
        assert abs(STATISTICS[name](counts) - value) < 1e-9, name
    assert abs(entity_f1(found, truth) - wanted["f1"]) < 1e-9


@given(pairs_of_files())
def test_scores_are_those_of_nervaluate(files):
    truth, found = files
    as_dicts = [[[{"label": t, "start": a, "end": b - 1} for a, b, t in spans_of(tags)]
                 for tags in side] for side in files]
    told = Evaluator(*as_dicts, tags=TYPES, loader="dict").evaluate()["overall"]["strict"]
    counts = count_entities(truth, found, TYPES)
    ours = [STATISTICS[name](counts) for name in ("f1", "precision", "recall")]
    assert np.allclose(ours, [told.f1, told.precision, told.recall])


@given(pairs_of_files())
def test_the_lenient_default_can_only_find_more(files):
    truth, found = files
    begun = [[to_bio(tags) for tags in side] for side in files]
    assert abs(f1_score(truth, found, zero_division=0) - entity_f1(*begun[::-1])) < 1e-9
    for tags in found: assert set(spans_of(tags)) <= set(spans_of(to_bio(tags)))


@given(pairs_of_files())
def test_every_entity_has_one_fate(files):
    truth, found = files
    table, counts = count_errors(truth, found), count_entities(truth, found, TYPES)
    assert table[KINDS[:5]].to_numpy().sum() == counts[..., 2].sum()
    assert table["right"].sum() == counts[..., 0].sum()
    assert table["invented"].sum() <= counts[..., 1].sum()


@pytest.mark.parametrize("answers, kind", [
    ([(2, 4, "PER")], "right"), ([(2, 4, "LOC")], "type"), ([(2, 3, "PER")], "border"),
    ([(1, 5, "LOC")], "border and type"), ([(0, 2, "PER"), (4, 6, "PER")], "missed"),
    ([], "missed"), ([(2, 3, "LOC"), (3, 4, "PER")], "border"),
])
def test_kinds_of_errors(answers, kind):
    assert kind_of((2, 4, "PER"), answers) == kind


# the best possible sequence

@given(st.integers(1, 4), st.integers(0, 10**6))
def test_best_path_is_the_best_of_all(n, seed):
    names = tag_names(["LOC", "PER"])
    scores = np.random.default_rng(seed).normal(size=(n, len(names)))
    possible = [path for path in itertools.product(range(len(names)), repeat=n)
                if to_bio([names[i] for i in path]) == [names[i] for i in path]]
    best = max(possible, key=lambda path: sum(s[i] for s, i in zip(scores, path)))
    assert best_path(scores, forbidden(names)) == list(best)


# the head, padded and packed

def tagger(family, tags=5):
    torch.manual_seed(0)
    config = CONFIGS[family].from_dict({**CONFIGS[family].to_dict(), "num_labels": tags})
    return AutoModelForTokenClassification.from_config(config).eval()


def some_rows(n=9, tags=5):
    draw, rows = np.random.default_rng(0), []
    for _ in range(n):
        length = int(draw.integers(3, 20))
        first = sorted(draw.choice(length, int(draw.integers(1, length)), replace=False).tolist())
        labels = [-100] * length
        for at in first: labels[at] = int(draw.integers(tags))
        rows.append({"input_ids": draw.integers(2, 99, length).tolist(), "labels": labels,
                     "first": first, "row": len(rows)})
    return rows


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_the_head_by_hand(family):
    model = tagger(family)
    batch = pad_tags(model, some_rows())
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    states = model.base_model(**inputs).last_hidden_state
    head = getattr(model, "classifier", None) or model.score
    logits = model(**inputs).logits
    assert torch.allclose(states @ head.weight.T + head.bias, logits, atol=1e-5)
    theirs = model(**inputs, labels=batch["labels"]).loss
    ours, _ = tagging.loss(model, batch)
    assert abs(theirs - ours) < 1e-5


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_packed_as_padded(family):
    found = []
    for packed in (False, True):
        model = tagger(family)
        batch = pad_tags(model, some_rows())
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
        if packed:
            with unpadded(model): logits = model(**inputs).logits
        else: logits = model(**inputs).logits
        targets = batch["labels"].flatten()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((loss.item(), gradient, TaskLoss(model, tagging)("task", some_rows())[0]))
    (a, g, x), (b, h, y) = found
    assert abs(a - b) < 1e-5 and (g - h).norm() < 1e-4 * g.norm()
    assert abs(x.item() - a) < 1e-5 and abs(y.item() - a) < 1e-5


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_batch_size_changes_nothing(family):
    model, rows = tagger(family), some_rows()
    one, all_at_once = (word_scores(model, rows, size) for size in (1, 64))
    for a, b, row in zip(one, all_at_once, rows):
        assert a.shape == (len(row["first"]), 5) and np.allclose(a, b, atol=1e-4)


def test_resumed_to_the_bit(tmp_path):
    rows = some_rows(24)
    settings = dict(epochs=3, batch_size=8, learning_rate=1e-3, bf16=False, device="cpu",
                    progress=False, task=tagging)
    whole, cut = tagger("bert"), tagger("bert")
    fit(whole, rows, rows[:8], **settings)
    def pull_the_plug(history):
        if len(history) == 6: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        fit(cut, rows, rows[:8], checkpoint=tmp_path, callbacks=[pull_the_plug], **settings)
    resumed = tagger("bert")
    fit(resumed, rows, rows[:8], checkpoint=tmp_path, resume=True, **settings)
    assert same(whole, resumed) and not same(whole, tagger("bert"))


# words and pieces

TOKENIZERS = ["tiny-bert", "tiny-gpt2", "tiny-t5", "minilm", "smollm2"]
ODD = ["Zürich", "#photography", "don't", "東京", "😀", "\u200b", "\u00ad", "a" * 300,
       "http://t.co/x", "É", "’s"]


def tokenizer_of(name):
    if name in ("minilm", "smollm2") and not is_there(cache_folder() / name):
        pytest.skip(f"{name} isn't downloaded: course download {name}")
    return AutoTokenizer.from_pretrained(find_model(name))


def rows_of(*sentences):
    return to_rows([Sentence(list(words), ["O"] * len(words), []) for words in sentences], ["LOC"])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_each_word_has_one_place(name):
    tokenizer = tokenizer_of(name)
    sentences = [["Zürich", "is", "old", "."], ["words"], ODD, ["it", "is"] * 200]
    rows = rows_of(*sentences)
    for copies in (1, 2):
        found = encode(rows, tokenizer, 64, copies)
        assert max(map(len, found["input_ids"])) <= 64
        for number, words in enumerate(sentences):
            own = [row for row in found if row["row"] == number]
            assert sum(len(row["first"]) for row in own) == len(words)
        for row in found:
            places = [i for i, label in enumerate(row["labels"]) if label != -100]
            assert places == row["first"] and len(row["labels"]) == len(row["input_ids"])
    assert len(found) > len(sentences), "the long one was cut"


@pytest.mark.parametrize("name", TOKENIZERS[:4])
def test_pieces_are_those_of_the_library(name):
    tokenizer = tokenizer_of(name)
    sentences = [["Zürich", "is", "old", "."], [w for w in ODD if w.isprintable()][:5]]
    theirs = tokenizer(sentences, is_split_into_words=True)
    for i, own in enumerate(encode(rows_of(*sentences), tokenizer)):
        assert theirs["input_ids"][i] == own["input_ids"]
        numbers = theirs.word_ids(i)
        assert own["first"] == [numbers.index(word) for word in range(len(sentences[i]))]


def test_a_gpt_gets_its_spaces():
    tokenizer = tokenizer_of("smollm2")
    (row,) = encode(rows_of("The old bridge of Mostar".split()), tokenizer)
    assert row["input_ids"] == tokenizer(" The old bridge of Mostar")["input_ids"]


@pytest.mark.parametrize("name, copies, sees", [("tiny-bert", 1, True), ("tiny-gpt2", 1, False),
                                                ("tiny-gpt2", 2, True)])
def test_who_sees_what_follows(name, copies, sees):
    model, tokenizer = load(name, "token-classification", TAGS)
    rows = rows_of(["Jordan", "smiled"], ["Jordan", "lies"])
    one, other = word_scores(model, encode(rows, tokenizer, copies=copies))
    assert np.allclose(one[0], other[0], atol=1e-5) != sees


# files

def read(content, tmp_path, name="names.conll", **options):
    path = tmp_path / name
    path.write_bytes(content.encode())
    return read_entities({**recipe_for("entities"), "data": str(path), **options})


def file_of(tags, n=12, columns=1):
    "A file of different sentences, the tag in the last of so many further columns."
    words = "old new red blue tall wide cold warm long short dark pale".split()
    middle = ["NN", "B-NP"][:columns - 1]
    sentences = []
    for i, last in enumerate(words[:n]):
        tagged = [*zip([f"Ada{i}", f"Lovelace{i}", f"from{i}", f"Rome{i}"], tags), (last, "O")]
        sentences.append("\n".join(" ".join([word, *middle, tag]) for word, tag in tagged))
    return "\n\n".join(sentences)


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("tags", ["B-PER I-PER O B-LOC", "I-PER I-PER O I-LOC",
                                  "B-PER L-PER O U-LOC", "B-PER E-PER O S-LOC"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_all_usual_kinds_of_files(tmp_path, tags, columns, ending):
    text = file_of(tags.split(), columns=columns).replace("\n", ending)
    splits = read(text, tmp_path)
    assert sum(map(len, splits.values())) == 12
    for rows in splits.values():
        for own in tags_in(rows): assert own == ["B-PER", "I-PER", "O", "B-LOC", "O"]


def test_odd_but_right_lines(tmp_path):
    text = ("-DOCSTART-\tO\n\n# id = 1\n#photography\tO\n#\tO\nRome\tB-LOC\n\t\n"
            "\n\n-DOCSTART- -X- O O\n\nSan Marino\tB-LOC")
    path = tmp_path / "x.conll"
    path.write_text(text)
    first, second = read_sentences(path, recipe_for("entities"))
    assert first.words == ["#photography", "#", "Rome"] and second.words == ["San Marino"]
    assert first.document != second.document and None not in (first.document, second.document)


def test_documents_stay_on_one_side(tmp_path):
    blocks = []
    for document in range(20):
        words = [f"w{document}x{i}" for i in range(4)]
        blocks.append("-DOCSTART- O\n\n" + "\n\n".join(f"{w} B-LOC\n{w}end O" for w in words))
    blocks.append("w3x0 B-LOC\nw3x0end O") # a copy of a sentence in document 3
    splits = read("\n\n".join(blocks), tmp_path)
    sides = {name: {re.match(r"w(\d+)x", text)[1] for text in rows["text"]}
             for name, rows in splits.items()}
    assert len(sides) == 3 and all(len(rows) > 2 for rows in splits.values())
    for a, b in itertools.combinations(sides.values(), 2): assert not a & b
    again = read("\n\n".join(blocks), tmp_path)
    other = read("\n\n".join(blocks), tmp_path, seed=5)
    texts = [s["test"]["text"][:] for s in (splits, again, other)]
    assert texts[0] == texts[1] != texts[2]


def test_near_copies_stay_on_one_side(tmp_path):
    said = [f"number {i} the cat sat on mat number {i} and slept for {i} hours" for i in range(30)]
    copies = [text + " again" for text in said]
    blocks = ["\n".join(f"{w} {'B-LOC' if w == 'mat' else 'O'}" for w in text.split())
              for text in said + copies]
    splits = read("\n\n".join(blocks), tmp_path)
    for part in splits.values():
        texts = set(part["text"])
        assert all((t.removesuffix(" again") in texts) for t in texts)


def test_parts_of_the_file_are_kept(tmp_path):
    text = file_of(["B-PER", "I-PER", "O", "O"], 6).split("\n\n")
    parts = ["train", "test", "train", "validation", "train", "test"]
    marked = "\n\n".join(f"# id = {i} part = {p}\n{t}" for i, (p, t) in enumerate(zip(parts, text)))
    splits = read(marked, tmp_path)
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 3, "validation": 1, "test": 2}


def test_only_what_is_for_training_is_trained_on(tmp_path):
    "A file that names parts, and a validation file beside it."
    text = file_of(["B-PER", "I-PER", "O", "O"], 4).split("\n\n")
    marked = [f"# part = {part}\n{own}" for part, own in zip(["train", "test"] * 2, text)]
    other = tmp_path / "other.conll"
    other.write_text("Ada B-PER\n\nBob B-PER\n\nEve B-PER")
    splits = read("\n\n".join(marked), tmp_path, validation=str(other))
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 2, "validation": 3, "test": 2}
    assert splits["test"]["words"][0][0] == "Ada1" and splits["validation"]["text"][0] == "Ada"


def test_lists_in_json_and_parquet(tmp_path):
    rows = [{"tokens": [f"Ada{i}", "sings"], "ner_tags": ["B-PER", "O"]} for i in range(12)]
    lines = "\n".join(json.dumps(row) for row in rows)
    first = read(lines, tmp_path, "a.jsonl")
    Dataset.from_list(rows).to_parquet(tmp_path / "b.parquet")
    other = read_entities({**recipe_for("entities"), "data": str(tmp_path / "b.parquet")})
    assert first["train"].to_list() == other["train"].to_list() and len(first["train"]) > 5
    numbered = [{**row, "ner_tags": [1, 0]} for row in rows]
    names = List(ClassLabel(names=["O", "B-PER"]))
    columns = Features(tokens=List(Value("string")), ner_tags=names)
    Dataset.from_list(numbered, features=columns).to_parquet(tmp_path / "hub.parquet")
    other = read_entities({**recipe_for("entities"), "data": str(tmp_path / "hub.parquet")})
    assert first["train"].to_list() == other["train"].to_list()
    renamed = lines.replace("tokens", "w").replace("ner_tags", "t")
    assert len(read(renamed, tmp_path, "c.jsonl", text="w", label="t")["train"]) > 5


GOOD = file_of(["B-PER", "I-PER", "O", "B-LOC"])
BAD = {
    "empty": ("", r": – is empty|– is empty – put something in"),
    "one column": (GOOD + "\n\nlonely", r":73 – one column only: 'lonely' – .* a word, a tab"),
    "unequal columns": (GOOD + "\n\na b O", r":73 – 3 columns, the first line has 2 – give each"),
    "ten columns": ("1 a b c d e f g h O", r":1 – 10 columns – two to four are read"),
    "tag first": ("O Rome\nB-LOC Pisa", r":1 – 'Rome' is no tag – the last column must be O"),
    "no word": ("\tO\nRome\tB-LOC", r":1 – no word in the first column – write it"),
    "numbers for tags": ("Rome 3", r":1 – '3' is no tag"),
    "I behind O": (GOOD + "\n\nin O\nRome I-LOC", r":74 – I-LOC after O, .* begins with B-"),
    "I of another type": (GOOD + "\n\nin B-PER\nRome I-LOC", r":74 – I-LOC after B-PER"),
    "BILOU unfinished": ("a B-PER\nb O\n\nc U-PER", r":2 – O after B-PER, in a file with BILOU"),
    "BILOU open at the end": ("c U-PER\n\na B-PER", r":3 – B-PER at the end of a sentence"),
    "I at the beginning": (GOOD + "\n\nRome I-LOC", r":73 – I-LOC at the beginning of a sentence"),
    "L alone": ("a O\nb L-PER", r":2 – L-PER after O, .* write U- \(or S-\) alone"),
    "capitals of types": (GOOD + "\n\nx B-per", r":73 – the type 'per' was 'PER' before – write"),
    "all O": (file_of(["O"] * 4), r"every tag is O – tag the entities in it"),
    "no empty lines": ("\n".join(f"w{i} O" for i in range(1500)), r":1 – a sentence of 1,500"),
    "not UTF-8": (GOOD.encode() + b"\n\nZ\xfcrich B-LOC", r":73 – byte 0xFC is not UTF-8"),
    "UTF-16": (GOOD.encode("utf-16"), r"UTF-16 – save it"),
    "zero byte": (GOOD + "\n\na\0b O", r":73 – holds a zero byte"),
    "a web page": ("<!DOCTYPE html><p>", r"a web page, not data – download"),
    "some parts": ("# part = train\n" + GOOD, r"lacks .* – give each sentence its part"),
    "too few": (file_of(["B-PER", "O", "O", "O"], 2),
                r"sentences: 2, but groups for only 2 of 3 parts – add sentences"),
    "one document": ("-DOCSTART- O\n\n" + GOOD, r"only 1 of 3 parts – .* or pass validation"),
    "all the same": ("\n\n".join(["Rome B-LOC"] * 4000), r"4,000, but groups for only 1 of 3"),
    "an unknown part": ("# part=dev\n" + GOOD, r":2 – part 'dev' is not known – it can be train"),
    "only documents": ("-DOCSTART- O\n\n-DOCSTART- O\n", r"has no sentences"),
}
BAD_LISTS = {
    "unequal lists": ({"tokens": ["a", "b"], "tags": ["O"]}, r":1 – 2 words and 1 tags – give"),
    "a text": ({"tokens": "a b", "tags": ["O", "O"]}, r":1 – words and tags must be lists"),
    "numbers": ({"tokens": ["a"], "tags": [3]}, r":1 – the tag is the number 3 – write its name"),
    "no words": ({"tokens": [], "tags": []}, r":1 – no words in this row – fill it in"),
    "an empty word": ({"tokens": [" "], "tags": ["O"]}, r":1 – a word that is empty"),
    "columns": ({"text": "a"}, r"no column 'tokens' – it has text; pass text=WORDS"),
    "a part": ({"tokens": ["a"], "tags": ["O"], "part": "dev"},
               r":1, word 1 – part 'dev' is not known – it can be train"),
    "half a character": ({"tokens": ["\ud800"], "tags": ["O"]}, r"word 1 – half of a character"),
    "half a character in a tag": ({"tokens": ["a"], "tags": ["B-\ud800"]}, r"half of a character"),
    "a document alone": ({"tokens": ["a"], "tags": ["B-X"], "document": 0}, r"only 1 of 3"),
    "nothing": ([], r"has no sentences – put some in"),
    "broken": ({"tokens": ["a", "b"], "tags": ["B-X", "I-Y"]}, r":1, word 2 – I-Y after B-X"),
}


def refused(path, tmp_path, wanted, **options):
    "Refused with that line, and nothing is left behind."
    before = sorted(tmp_path.rglob("*"))
    recipe = Recipe(task="token-classification", data=str(path), model="tiny-bert", **options)
    with pytest.raises(InputError, match=wanted) as told:
        runs.fine_tune(recipe, tmp_path / "run", progress=False)
    assert sorted(tmp_path.rglob("*")) == before
    for line in str(told.value).splitlines(): assert " – " in line, line
    assert len(str(told.value).splitlines()) <= 20


@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path, case):
    text, wanted = BAD[case]
    path = tmp_path / "bad.conll"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(path, tmp_path, wanted)


@pytest.mark.parametrize("case", BAD_LISTS)
def test_bad_lists(tmp_path, case):
    row, wanted = BAD_LISTS[case]
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(row) + "\n")
    refused(path, tmp_path, wanted)


def test_other_files_are_checked_as_the_first(tmp_path):
    path, other = tmp_path / "good.conll", tmp_path / "other.conll"
    path.write_text(GOOD)
    other.write_text("it O\nis O")
    refused(path, tmp_path, r"other.conll – every tag is O – tag", validation=str(other))
    refused(path, tmp_path, r"max_length 2 – leaves no room for a word – give more", max_length=2)


def test_types_that_the_model_would_not_know(tmp_path):
    path, other = tmp_path / "good.conll", tmp_path / "other.conll"
    path.write_text(GOOD)
    other.write_text("Rome B-LOC\n\nSony B-ORG")
    refused(path, tmp_path, r"other.conll:3 – the type 'ORG' is not known – .* LOC, PER",
            validation=str(other))
    refused(path, tmp_path, r":1 – the type 'PER' is not known – it must be one of LOC",
            labels=["LOC", "ORG"])
    refused("some/dataset", tmp_path, r"is no file – give a CoNLL or JSON file")


def test_many_problems_are_told_at_once(tmp_path):
    path = tmp_path / "bad.conll"
    path.write_text("\n\n".join(f"a{i} 7" for i in range(50)))
    with pytest.raises(InputError, match="and 19 more like it"):
        read_sentences(path, recipe_for("entities"))


# a text of one's own

@given(st.text(max_size=60))
@settings(max_examples=300)
def test_no_sign_is_lost_by_cutting(text):
    places = split_words(text)
    assert all(a < b for a, b in places) and all(b <= c for (_, b), (c, _) in
                                                 itertools.pairwise(places))
    assert "".join("".join(text[a:b] for a, b in places).split()) == "".join(text.split())


@pytest.mark.parametrize("text, words", [
    ("Dr. O'Malley isn't in Saint-Malo, it's U.S. land.",
     "Dr. O'Malley is n't in Saint-Malo , it 's U.S. land ."),
    ("(H&M’s shop)", "( H&M ’s shop )"), ("x@y.org wrote: hi!!", "x@y.org wrote : hi ! !"),
    ("can't “go”…", "ca n't “ go ” …"), ("नमस्ते दिल्ली।", None),
])
def test_how_a_text_is_cut(text, words):
    found = [text[a:b] for a, b in split_words(text)]
    if words: assert found == words.split()
    else: assert found[0] == "नमस्ते" # marks that belong to a letter stay with it


def test_answers_have_places_in_the_text():
    model, tokenizer = load("tiny-bert", "token-classification", TAGS)
    texts = ["Ada  Lovelace,\tin Rome!", "東京 is big", "a"] + ["word " * 400]
    answers = answer_texts(model, tokenizer, {"max_length": 32}, texts, 2)
    assert [a["text"] for a in answers] == texts
    assert any(a["entities"] for a in answers), "an untrained head finds something"
    for a in answers:
        assert len(a["words"]) == len(a["tags"]) == len(split_words(a["text"]))
        assert [e["type"] for e in a["entities"]] == [s[2] for s in spans_of(a["tags"])]
        assert all(e["text"] == a["text"][e["start"]:e["end"]] for e in a["entities"])
    alone = [answer_texts(model, tokenizer, {"max_length": 32}, [t], 64)[0] for t in texts]
    assert alone == answers


# the display

class Terminal(io.StringIO):
    def isatty(self): return True


def test_colours_in_a_terminal_only(monkeypatch):
    shown = mark(["Ada", "Lovelace", "in", "<Rome>"], ["B-PER", "I-PER", "O", "B-LOC"])
    plain = "[Ada Lovelace PER] in [<Rome> LOC]"
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert str(shown) == plain
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in str(shown) and re.sub(r"\x1b\[\d+m", "", str(shown)) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert str(shown) == plain
    html = shown._repr_html_()
    assert "&lt;Rome&gt;" in html and "<b>PER</b>" in html and "<Rome>" not in html
    assert re.sub("<[^>]*>", "", html) == "Ada Lovelace PER in &lt;Rome&gt; LOC"
    assert Marked("", [])._repr_html_() == "<p></p>"


def test_the_usual_types_have_different_colours():
    assert len({entities.colour_number(name) for name in ("PER", "ORG", "LOC", "MISC")}) == 4


# the shipped sentences, and what is scored

def test_the_shipped_sentences():
    splits = read_entities(recipe_for("entities"))
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 708, "validation": 146, "test": 188}
    people = {}
    for name, rows in splits.items():
        for words, tags in zip(rows["words"], tags_in(rows)):
            assert to_bio(tags) == tags
            for start, end, kind in spans_of(tags):
                if kind == "PER": people.setdefault(words[end - 1].casefold(), set()).add(name)
    assert all(len(parts) == 1 for parts in people.values()), "a person occurs in two parts"


def test_a_word_seen_only_outside_stays_outside():
    train = to_rows([Sentence(["May", "I", "see", "May"], ["O", "O", "O", "O"], []),
                     Sentence(["Rome", "Rome"], ["B-LOC", "O"], []),
                     Sentence(["Rome"], ["B-LOC"], [])], ["LOC"])
    assert commonest_tags(train, [["May", "Rome", "Bonn"]]) == [["O", "B-LOC", "O"]]


def test_scores_and_baselines():
    splits = read_entities(recipe_for("entities"))
    test, recipe = splits["test"], {"classes": entities.count_tags(splits["train"])}
    told = score_entities(test, tags_in(test), splits, recipe)
    assert told["n"] == 188 and all(m["value"] == 1 for m in told["metrics"].values())
    assert set(told["baselines"]) == {"capital_runs", "commonest_tag"}
    for scores in told["baselines"].values():
        assert 0.1 < scores["f1"]["value"] < 0.3 and scores["model_gain"]["low"] > 0.6
    assert "better" in entities.verdict(told)
    alone = score_entities(test, tags_in(test), None, recipe)
    assert set(alone["baselines"]) == {"capital_runs"}
    nothing = [["O"] * len(words) for words in test["words"]]
    told = score_entities(test, nothing, splits, recipe)
    assert told["metrics"]["f1"]["value"] == 0 and "worse" in entities.verdict(told)
    assert "first run is better" in entities.compare_entities(
        test, (tags_in(test), nothing), ("", ""))["verdict"]


def test_few_sentences_allow_no_verdict():
    few = read_entities(recipe_for("entities"))["test"].select(range(entities.FEW - 1))
    told = score_entities(few, tags_in(few), None, {"classes": entities.count_tags(few)})
    assert "too few" in entities.verdict(told)
    nothing = [["O"] * len(words) for words in few["words"]]
    compared = entities.compare_entities(few, (tags_in(few), nothing), ("", ""))
    assert "can't tell" in compared["verdict"]


def test_real_files_are_read(real_data, monkeypatch):
    if not (real_data / "wnut17").exists(): pytest.skip("COURSE_REAL_DATA has no wnut17")
    splits = read_entities(recipe_for("wnut17"))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 3394, "validation": 1009}
    assert sum(map(len, splits["train"]["words"])) == 62730
    assert sum(map(len, splits["validation"]["words"])) == 15733
    assert len(splits["train"].features["tags"].feature.names) == 13


# the whole run

@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    "Ambiguous names, where a second is enough to learn something."
    folder = tmp_path_factory.mktemp("names")
    lines = []
    for rows in (ambiguous(150, 0, False), ambiguous(150, 1, True)):
        for words, tags in zip(rows["words"], tags_in(rows)):
            lines.append("\n".join(f"{w}\t{t}" for w, t in zip(words, tags)))
    path = folder / "both.conll"
    path.write_text("\n\n".join(dict.fromkeys(lines)))
    recipe = Recipe(task="token-classification", data=str(path), model="tiny-bert", epochs=2,
                    learning_rate=1e-3, metric_for_best_model="f1")
    return folder / "run", runs.fine_tune(recipe, folder / "run", progress=False), recipe


def test_a_run(run_folder, tmp_path):
    out, metrics, recipe = run_folder
    assert metrics["split"] == "test" and metrics["metrics"]["f1"]["value"] > 0.5
    assert {"errors.png", "scores.png", "loss.png", "README.md", "model"} <= {
        p.name for p in out.iterdir()}
    assert runs.fine_tune(recipe, out, resume=True) == metrics
    again = runs.evaluate(out, recipe.data)
    assert again["trained_on"] > 0.6 * again["n"] and set(again["metrics"]) == set(STATISTICS)
    told = runs.compare(out, out, recipe.data)
    assert "can't tell" in told["verdict"] and told["difference"]["f1"]["value"] == 0
    (answer,) = runs.predict(out, ["we flew to Jordan today."])
    assert answer["tags"] == ["O", "O", "O", "B-LOC", "O", "O"]
    assert answer["entities"] == [{"text": "Jordan", "type": "LOC", "start": 11, "end": 17}]
    card = (out / "README.md").read_text()
    assert "pipeline_tag: token-classification" in card and "`LOC`, `PER`" in card


def test_the_code_on_the_card_runs(run_folder, capsys, monkeypatch):
    out, _, _ = run_folder
    card = (out / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.S)[1]
    monkeypatch.chdir(out)
    exec(code.replace('["A", "list", "of", "words"]', '["we", "flew", "to", "Jordan"]'), {})
    assert "('Jordan', 'B-LOC')" in capsys.readouterr().out


def test_the_command_line(run_folder, tmp_path):
    out, metrics, recipe = run_folder
    done = run_course("predict", out, "a ticket to Paris .")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["entities"][0]["type"] == "LOC"
    done = run_course("evaluate", out, "--data", recipe.data, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["metrics"]["f1"]["value"] > 0.5
    (tmp_path / "bad.conll").write_text("Rome 3\n")
    done = run_course("evaluate", out, "--data", tmp_path / "bad.conll")
    assert done.returncode == 2 and "bad.conll:1 – '3' is no tag" in done.stderr


@pytest.mark.parametrize("model, copies, lora", [("tiny-bert", 1, 0), ("tiny-gpt2", 2, 4)])
def test_what_is_recorded(run_folder, model, copies, lora):
    _, _, recipe = run_folder
    told = entities.entity_run(recipe.data, model, copies, 1, 1e-3, 0, lora)
    assert told["n"] == told["entities"] > 20 and told["f1_low"] <= told["f1"] <= told["f1_high"]
    assert told["gain"] == pytest.approx(told["f1"] - told["baseline_f1"], abs=2e-4)
    names = {"f1", "precision", "recall", "macro_f1", "seconds", "gain_low", "gain_high"}
    assert names <= set(told) and all(len(str(value)) < 14 for value in told.values())


def test_records_can_be_made(monkeypatch):
    for run, all_of_them in entities.RECORDS.values():
        for own in all_of_them: inspect.signature(run).bind(**own)
    monkeypatch.delenv("COURSE_REAL_DATA", raising=False)
    with pytest.raises(InputError, match="COURSE_REAL_DATA – names no folder"):
        recipe_for("wnut17")


def test_an_order_of_tags_of_its_own():
    "A head that was trained elsewhere has its outputs in another order."
    rows = to_rows([Sentence(["Rome", "is"], ["B-LOC", "O"], [])], ["LOC", "PER"])
    names = ["B-PER", "B-LOC", "O", "I-LOC", "I-PER"]
    matched = entities.match_tags(DatasetDict(train=rows), names)["train"]
    assert tags_in(matched) == tags_in(rows) and matched["tags"][0] == [1, 2]
    with pytest.raises(InputError, match="the model doesn't know it"):
        entities.match_tags(DatasetDict(train=rows), names[:4])


def test_a_long_sentence_gets_all_its_tags():
    model, tokenizer = load("tiny-bert", "token-classification", TAGS)
    rows = rows_of(["Rome", "and"] * 300, ["Rome"])
    features = encode(rows, tokenizer, 40)
    found = predict_sentences(model, tokenizer, rows, features)
    assert [len(tags) for tags in found] == [600, 1] and len(features) > 10
