"""Writing: the loss of both kinds of model and both searches are the library's; the scores are
rouge-score's and sacrebleu's; files that can't be used are refused with file, row and advice."""
import copy
import inspect
import json
import os
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given, settings, strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from transformers import (AutoModelForCausalLM, AutoModelForSeq2SeqLM, GPT2Config, LlamaConfig,
                          T5Config)

from course_lib import sequences
from course_lib.download import cache_folder
from course_lib.errors import InputError
from course_lib.files import is_folder
from course_lib.loading import quiet
from course_lib.models import load
from course_lib.overlap import (ascii_words, bleu, bleu_counts, chrf, chrf_counts, rouge, rouge_l,
                                rouge_n, words, words_13a)
from course_lib.packed import unpadded
from course_lib.pairs import cut, grammar_pairs, read_pair_splits, read_pairs, to_pairs
from course_lib.recipe import Recipe
from course_lib.runs import compare, evaluate, fine_tune, predict
from course_lib.sequences import (beam_search, cross_attention, first_tokens, greedy, lead,
                                  longest_sentence, next_token_scores, pad_labels, sentences,
                                  sequence_batch, sequence_features, sequence_loss, sequence_task,
                                  shift_right, tokens_of, word_for_word, word_table, write)
from course_lib.training import TaskLoss, fit, mean_loss

# scores

WORDS = st.sampled_from(["the", "The", "cat", "sat", "3.5", "1,000", "don't", "café", "größer",
                         "no-one", "2-3", "&amp;", "(yes)", "...", "«да»", "поезд", "火车", "है।",
                         "<skipped>", "-", "$5", "a.b", "x/y", "ß", "İ", "\n", "\t", "it's,"])
SENTENCE = st.one_of(st.lists(WORDS, max_size=12).map(" ".join), st.text(max_size=40))
ROWS = st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1, max_size=6)
KINDS = ["rouge1", "rouge2", "rougeL"]


class OurWords:
    "Our rule for words, as rouge-score takes one."
    def tokenize(self, text): return words(text)


@settings(max_examples=300, deadline=None)
@given(SENTENCE, SENTENCE)
def test_rouge_is_rouge_scores(prediction, reference):
    "Precision, recall and F1, with its own rule for words and with ours."
    for scorer, rule in ((RougeScorer(KINDS), ascii_words),
                         (RougeScorer(KINDS, tokenizer=OurWords()), words)):
        wanted = list(scorer.score(reference, prediction).values())
        p, r = rule(prediction), rule(reference)
        ours = [rouge_n(p, r, 1), rouge_n(p, r, 2), rouge_l(p, r)]
        assert np.allclose(ours, wanted, atol=1e-12)
    assert np.allclose(rouge([prediction], [reference])[0], [f for *_, f in ours], atol=1e-12)


@settings(max_examples=300, deadline=None)
@given(SENTENCE)
def test_words_of_13a(text): assert words_13a(text) == BLEU().tokenizer(text.rstrip()).split()


@settings(max_examples=300, deadline=None)
@given(ROWS)
def test_bleu_and_chrf_are_sacrebleus(rows):
    "Of a corpus and of each sentence, with and without case."
    for lower in (False, True):
        pairs = [[t.lower() if lower else t for t in texts] for texts in zip(*rows)]
        found, wanted = map(list, zip(*rows))
        theirs = BLEU(lowercase=lower).corpus_score(found, [wanted]).score / 100
        assert bleu(bleu_counts(*pairs)) == pytest.approx(theirs, abs=1e-9)
        theirs = CHRF(lowercase=lower).corpus_score(found, [wanted]).score / 100
        assert chrf(chrf_counts(*pairs)) == pytest.approx(theirs, abs=1e-9)
    single, letters = BLEU(effective_order=True), CHRF()
    for p, r in rows:
        theirs = single.sentence_score(p, [r]).score / 100
        assert bleu(bleu_counts([p], [r]), short=True) == pytest.approx(theirs, abs=1e-9)
        theirs = letters.sentence_score(p, [r]).score / 100
        assert chrf(chrf_counts([p], [r])) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("text", ["Поезд опаздывает.", "火车晚点一小时。", "रेलगाड़ी लेट है।", "Ναι"])
def test_other_scripts_have_words(text):
    assert RougeScorer(["rouge1"]).score(text, text)["rouge1"].fmeasure == 0
    assert rouge([text], [text])[0, 0] == 1


@pytest.mark.parametrize("p, r", [("", "a b"), ("a b", ""), ("", ""), ("…", "a")])
def test_nothing_scores_nothing(p, r):
    assert rouge([p], [r]).sum() == bleu(bleu_counts([p], [r])) == chrf(chrf_counts([p], [r])) == 0


def test_scores_of_no_rows():
    assert rouge([], []).shape == (0, 3) and bleu_counts([], []).shape == (0, 10)
    assert chrf_counts([], []).shape == (0, 6, 3)


# the loss

TINY = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
CONFIGS = {
    "t5": T5Config(num_layers=2, num_decoder_layers=2, d_model=32, d_ff=64, d_kv=8, num_heads=4,
                   vocab_size=60, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
                   dropout_rate=0.0),
    "gpt2": GPT2Config(n_layer=2, n_embd=32, n_head=4, n_positions=64, resid_pdrop=0.0,
                       attn_pdrop=0.0, embd_pdrop=0.0, **TINY),
    "llama": LlamaConfig(num_hidden_layers=2, hidden_size=32, num_attention_heads=4,
                         intermediate_size=64, num_key_value_heads=2, max_position_embeddings=64,
                         **TINY)}


def new(family, seed=0):
    torch.manual_seed(seed)
    kind = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    return kind.from_config(copy.deepcopy(CONFIGS[family])).eval()


def rows_of(n=10, seed=0):
    rng = torch.Generator().manual_seed(seed)
    def draw(low, high):
        size = torch.randint(low, high, (1,), generator=rng).item()
        return torch.randint(2, 60, (size,), generator=rng).tolist()
    rows = [{"input_ids": [*draw(2, 20), 1], "labels": [*draw(0, 9), 1]} for _ in range(n)]
    return [{**row, "prompt": [*row["input_ids"][:-1], 7, 8]} for row in rows]


def library_loss(model, row):
    "The library's own, for one pair, without padding."
    ids, labels = row["input_ids"], row["labels"]
    if not model.config.is_encoder_decoder:
        ids = row["prompt"] + labels
        labels = [-100] * len(row["prompt"]) + labels
    with quiet(), torch.no_grad():
        return model(torch.tensor([ids]), labels=torch.tensor([labels])).loss


@pytest.mark.parametrize("family", CONFIGS)
def test_the_loss_is_the_librarys(family):
    "Padded, over the tokens of all targets."
    model, rows = new(family), rows_of()
    sums = sum(library_loss(model, row).item() * len(row["labels"]) for row in rows)
    wanted = sums / sum(len(row["labels"]) for row in rows)
    found, more = sequence_loss(model, sequence_batch(model, rows))
    assert abs(found.item() - wanted) < 1e-5 and more == {}
    task = TaskLoss(model, sequence_task("translation"))
    assert abs(mean_loss(task, "task", rows, 3) - wanted) < 1e-5


@pytest.mark.parametrize("family", CONFIGS)
def test_scoring_the_targets_alone_changes_no_gradient(family):
    model, rows = new(family), rows_of()
    batch = sequence_batch(model, rows)
    sequence_loss(model, batch)[0].backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    logits = model(**inputs).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()).backward()
    for mine, p in zip(found, model.parameters()): assert torch.allclose(mine, p.grad, atol=1e-5)
    assert not model.get_output_embeddings()._forward_pre_hooks


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_packed_is_padded(family):
    "Loss and gradients, with the padding taken out by `read` and left in."
    found = []
    for way in ("padded", "packed"):
        model = new(family)
        batch = sequence_batch(model, rows_of())
        assert batch["attention_mask"].float().mean() < 0.9
        inputs = {k: v for k, v in batch.items() if k != "labels"}
        with unpadded(model) if way == "packed" else nullcontext():
            logits = model(**inputs).logits
        wanted = batch["labels"] != -100
        loss = torch.nn.functional.cross_entropy(logits[wanted], batch["labels"][wanted])
        loss.backward()
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    (a, g), (b, h) = found
    ours = sequence_loss(model, batch)[0].item()
    assert abs(a - b) < 1e-5 and abs(a - ours) < 1e-5 and (g - h).norm() < 1e-4 * g.norm()


def test_the_shift_is_t5s():
    model = new("t5")
    labels = pad_labels([[5, 6, 1], [7, 1]])
    assert torch.equal(labels, torch.tensor([[5, 6, 1], [7, 1, -100]]))
    assert torch.equal(shift_right(labels, 0, 0), model._shift_right(labels))


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_resumed_to_the_last_bit(family, tmp_path):
    rows = rows_of(12)
    usual = {"task": sequence_task("summarization"), "epochs": 3, "batch_size": 4, "bf16": False,
             "learning_rate": 1e-3, "device": "cpu", "progress": False}
    whole, resumed = new(family), new(family, seed=1)
    fit(whole, rows, rows[:4], **usual)
    def cut_off(history):
        if history[-1]["step"] == 5: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        fit(new(family), rows, rows[:4], **usual, callbacks=[cut_off], checkpoint=tmp_path)
    fit(resumed, rows, rows[:4], **usual, checkpoint=tmp_path, resume=True)
    weights = zip(whole.parameters(), resumed.parameters(), new(family).parameters())
    assert all(torch.equal(p, q) and not torch.equal(p, r) for p, q, r in weights)


def test_a_pair_too_long_for_a_gpt():
    rows = [{"input_ids": [5], "prompt": [5] * 60, "labels": [5] * 9 + [1]}]
    with pytest.raises(InputError, match="max_length – a pair has 70 tokens, the model 64"):
        fit(new("gpt2"), rows, task=sequence_task("translation"), device="cpu", progress=False)


def test_features_leave_room_for_the_target():
    tokenizer = load("tiny-gpt2", task="translation")[1]
    long = "word " * 400
    splits = DatasetDict(a=Dataset.from_dict({"text": [long, "Hi."], "target": [long, "Hallo."]}))
    rows = list(sequence_features(splits, tokenizer, 256, "\nX:")["a"])
    assert len(rows[0]["prompt"]) + len(rows[0]["labels"]) <= 256
    assert all(row["labels"][-1] == tokenizer.eos_token_id for row in rows)
    assert tokenizer.decode(rows[1]["prompt"]).endswith("x:")
    short = list(sequence_features(splits, tokenizer, 4, "\nX:")["a"])
    assert len(short[0]["input_ids"]) == 4


# the searches

@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("seed", range(3))
def test_searches_are_the_librarys(family, seed):
    "Token for token: greedy, and beams of several widths with several penalties."
    model = new(family, seed)
    with torch.no_grad(): # a random model is sure of nothing: let it prefer, and sometimes end
        for p in model.get_output_embeddings().parameters(): p.mul_(6)
    begin, n = first_tokens(model), 12
    for row in rows_of(2, seed):
        ids = row["input_ids"][:-1]
        scores = next_token_scores(model, torch.tensor(ids))
        def library(**how):
            made = model.generate(torch.tensor([ids]), max_new_tokens=n, do_sample=False,
                                  attention_mask=torch.ones(1, len(ids), dtype=torch.long), **how)
            made = made[0, 1:] if model.config.is_encoder_decoder else made[0, len(ids):]
            return made.tolist()
        def ended(made): return made[:made.index(1) + 1] if 1 in made else made
        assert greedy(scores, begin, 1, n) == ended(library())
        for beams in (2, 4):
            for penalty in (-1.0, 0.0, 0.6, 1.0, 2.0):
                ours = beam_search(scores, begin, 1, n, beams, penalty)
                theirs = ended(library(num_beams=beams, length_penalty=penalty))
                assert ours == theirs, (beams, penalty)


class Words:
    "A tokenizer of numbers."
    eos_token_id, pad_token_id, model_max_length = 1, 0, 64
    def batch_decode(self, rows, skip_special_tokens):
        return [" ".join(str(i) for i in row.tolist() if i > 1) for row in rows]


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("beams", [1, 3])
def test_texts_do_not_depend_on_the_batch(family, beams):
    model, rows = new(family), rows_of(7)
    with torch.no_grad():
        for p in model.get_output_embeddings().parameters(): p.mul_(6)
    model.train()
    whole = write(model, Words(), rows, beams)
    assert model.training and len(whole) == 7
    for size in (1, 3): assert write(model, Words(), rows, beams, batch_size=size) == whole


def test_attention_adds_up():
    weights = cross_attention(new("t5"), [5, 6, 7, 1], [8, 9, 1])
    assert weights.shape == (3, 4) and np.allclose(weights.sum(1), 1, atol=1e-5)


# baselines

def test_sentences():
    text = "Dr Lee left at 3.5 km. \"Why?\" he asked. Nobody knew! The end"
    assert sentences(text)[0] == "Dr Lee left at 3.5 km."
    assert lead([text]) == ["Dr Lee left at 3.5 km."] and longest_sentence([text]) == lead([text])
    assert lead(["one"], 3) == ["one"] and sentences("") == [""]
    assert sentences('He said "No." Then he left. (He did.) So?')[:2] == ['He said "No."',
                                                                        "Then he left."]
    assert lead(["As in Lee et al. (2016), it works.\nIt is fast."]) == [
        "As in Lee et al. (2016), it works."]


@pytest.mark.parametrize("text, first, n", [
    ("火车晚点了。大家都在等！「好。」他说。", "火车晚点了。", 3),
    ("Поезд идёт в г. москва. Он опаздывает.", "Поезд идёт в г. москва.", 2),
    ("रेलगाड़ी लेट है। सब ठीक।", "रेलगाड़ी लेट है।", 2),
    ("Fährt er? Ähnlich wie gestern.", "Fährt er?", 2),
    ("🎬. 🎥!", "🎬.", 2)])
def test_sentences_of_other_scripts(text, first, n):
    assert sentences(text)[0] == first == lead([text])[0] and len(sentences(text)) == n


def test_words_of_a_dictionary():
    assert tokens_of("Don't — Ms Kim's…") == ["don't", "—", "ms", "kim's", "…"]
    assert tokens_of("लेट है।") == ["लेट", "है", "।"] and tokens_of("a火车!") == ["a", "火", "车", "!"]
    assert longest_sentence(["Regen. 大家都没有想到。Ja, ja."]) == ["大家都没有想到。"]


def test_a_dictionary_of_very_long_texts():
    "Every word with every word would be a hundred million links."
    long = {"text": ["word " * 10_000, "yes"], "target": ["Wort " * 10_000, "ja"]}
    assert word_table(Dataset.from_dict(long))["yes"] == "ja"


def test_a_dictionary_is_found():
    english = ["a cat", "a dog", "the cat", "the dog sleeps"]
    german = ["eine katze", "ein hund", "die katze", "der hund schläft"]
    pairs = Dataset.from_dict({"text": english, "target": german})
    table = word_table(pairs)
    assert table["cat"] == "katze" and table["dog"] == "hund"
    assert word_for_word(["The cat, Omar!"], table)[0].endswith("katze, omar!")


def test_grammar():
    pairs = grammar_pairs(400, 3)
    assert len(set(pairs["text"])) == 400 and pairs["text"] == grammar_pairs(400, 3)["text"]
    whole = " ".join([*pairs["text"], *pairs["target"]])
    assert "_" not in whole and "|" not in whole and "  " not in whole
    assert all(t[0].isupper() and t[-1] in ".?" for c in ("text", "target") for t in pairs[c])
    found = dict(zip(grammar_pairs(9000, 1)["text"], grammar_pairs(9000, 1)["target"]))
    assert any(german.startswith("Gestern hat ") for german in found.values())


# files

NUMBERS = [f"This is number {i}.\tDas ist Nummer {i}.\n" for i in range(40)]
GOOD = "english\tgerman\n" + "".join(NUMBERS)


def written(tmp_path, name, content):
    path = tmp_path / name
    if isinstance(content, bytes): path.write_bytes(content)
    else: path.write_text(content, encoding="utf-8")
    return path


def test_forms_that_are_read(tmp_path):
    rows = [{"translation": {"en": f"Number {i}.", "de": f"Nummer {i}."}} for i in range(9)]
    nested = written(tmp_path, "nested.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    lists = [{"source": ["One.", "Two."], "target": ["Both.", "All."]}]
    whole = written(tmp_path, "lists.json", json.dumps(lists))
    written(tmp_path, "train.de", "Ja.\nNein.\n")
    plain = written(tmp_path, "train.en", "Yes.\nNo.\n")
    table = written(tmp_path, "own.csv", "Frage,Antwort\nWer?,Ich.\n")
    assert read_pairs(nested)[3] == {"text": "Number 3.", "target": "Nummer 3.", "part": ""}
    assert read_pairs(nested, "de", "en")[3]["text"] == "Nummer 3."
    assert read_pairs(whole)[0] == {"text": "One.\nTwo.", "target": "Both.", "part": ""}
    assert read_pairs(plain, label="de")["target"][:] == ["Ja.", "Nein."]
    assert read_pairs(table, "Frage", "Antwort")[0]["target"] == "Ich."


BAD = {
    "empty.tsv": ("", "is empty – put something in"),
    "header.tsv": ("english\tgerman\n", "has no rows"),
    "fields.tsv": ("english\tgerman\nYes.\tJa.\tDoch.\n",
                   "fields.tsv:2 – 3 fields, the header has 2"),
    "few.tsv": ("english\tgerman\nYes.\tJa.\nNo.\n", "few.tsv:3 – 1 fields, the header has 2"),
    "target.tsv": ("english\tgerman\nYes.\t \nNo.\tNein.\n",
                   "target.tsv:2, column 'german' – no text in this row"),
    "source.jsonl": ('{"text": null, "summary": "A."}\n',
                     "source.jsonl:1, column 'text' – no text in this row"),
    "number.jsonl": ('{"text": "A b c.", "summary": 12}\n',
                     "number.jsonl:1, column 'summary' – no text in this row: '12'"),
    "missing.jsonl": ('{"text": "A b c.", "summary": "A."}\n{"text": "D e f."}\n',
                      "missing.jsonl:2, column 'summary' – no text"),
    "names.csv": ("one,two\nYes.,Ja.\n", "no source column found – the columns are 'one', 'two'"),
    "half.csv": ("english,zwei\nYes.,Ja.\n", "no target column found"),
    "copies.tsv": ("english\tgerman\nYes.\tyes.\nNo.\tNo.\nOne.\tEins.\n",
                   "source and target are the same in 2 of 3 rows"),
    "part.jsonl": ('{"text": "A.", "summary": "B.", "part": "train"}\n'
                   '{"text": "C.", "summary": "D.", "part": "vaildation"}\n',
                   "part.jsonl:2, column 'part' – 'vaildation' is no part – write train"),
    "one.jsonl": ('{"text": "A.", "summary": "B.", "part": "train"}\n',
                  "column 'part' – no row says 'validation'"),
    "object.json": ('{"text": "A."', "not JSON"),
    "scalar.jsonl": ('"only a text"\n', "str where an object with columns is expected"),
    "latin.tsv": ("english\tgerman\nYes.\tGrüße\n".encode("cp1252"),
                  "latin.tsv:2 – byte 0xFC is not UTF-8"),
    "semicolon.csv": ("english;german\nYes.;Ja.\n", "separated by ';'? pass delimiter=';'"),
    "quote.csv": ('english,german\n"Yes.,Ja.\nNo.,Nein.\n', "a quote opened here is never closed"),
    "surrogate.jsonl": ('{"text": "A \\ud83d b.", "summary": "A."}\n', "half of a character"),
    "list.json": ('[{"source": [], "target": ["B."]}]', "column 'source' – no text in this row"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_refused(name, tmp_path):
    "One line with place and advice; no run folder is left behind."
    content, said = BAD[name]
    path = written(tmp_path, name, content)
    recipe = Recipe(data=str(path), task="translation", model="tiny-t5")
    with pytest.raises(InputError) as e: fine_tune(recipe, tmp_path / "run", progress=False)
    (line, *_) = e.value.problems
    assert said in line and name in line and "\n" not in line and " – " in line
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]


def test_all_bad_rows_are_told(tmp_path):
    path = written(tmp_path, "many.tsv", "english\tgerman\n" + "Yes.\t \n" * 50)
    with pytest.raises(InputError) as e: read_pairs(path)
    assert len(e.value.problems) == 20 and "many.tsv:21," in e.value.problems[-1]


def test_plain_files_of_unequal_length(tmp_path):
    written(tmp_path, "a.de", "Ja.\n")
    path = written(tmp_path, "a.en", "Yes.\nNo.\n")
    with pytest.raises(InputError, match="has 2 lines, .*a.de has 1 – line n of one must belong"):
        read_pairs(path, label="de")


def test_columns_that_are_not_there(tmp_path):
    path = written(tmp_path, "good.tsv", GOOD)
    with pytest.raises(InputError, match="no column 'englisch'"): read_pairs(path, "englisch")
    with pytest.raises(InputError, match="source and target are both 'german'"):
        read_pairs(path, "german", "german")


def test_a_plain_file_alone_and_what_it_advises(tmp_path):
    path = written(tmp_path, "train.en", "Yes.\rNo.\r")
    with pytest.raises(InputError, match="pass label=ENDING of train.ENDING"): read_pairs(path)
    for label in "de", "a/b", ".", "\0":
        with pytest.raises(InputError, match="must be in a file beside it"):
            read_pairs(path, label=label)
    written(tmp_path, "train.de", "\ufeffJa.\r\nNein.\r\n\r\n") # other line ends, a BOM
    assert read_pairs(path, label="de")["target"][:] == ["Ja.", "Nein."]
    table = path.rename(tmp_path / "table.tsv")
    table.write_text(GOOD, encoding="utf-8")
    assert len(read_pairs(table)) == 40


def lines_of(part, n=12):
    rows = [{"text": f"source {i}", "target": f"target {i}", "part": part(i)} for i in range(n)]
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("part", [lambda i: i, lambda i: i if i % 2 else "x", lambda i: [i],
                                  lambda i: {"a": i}, lambda i: None, lambda i: i / 3])
def test_a_column_part_of_other_meaning(part, tmp_path):
    path = written(tmp_path, "own.jsonl", lines_of(part))
    assert sum(map(len, read_pair_splits({"data": str(path)}).values())) == 12


def test_a_column_part_is_kept(tmp_path):
    "In any spelling of case, and beside a validation file: no test row is learnt."
    spelt = ["Train", "VALIDATION ", "Test"]
    path = written(tmp_path, "own.jsonl", lines_of(lambda i: spelt[i % 3]))
    splits = read_pair_splits({"data": str(path)})
    assert {part: len(own) for part, own in splits.items()} == dict.fromkeys(splits, 4)
    more = written(tmp_path, "more.tsv", GOOD)
    splits = read_pair_splits({"data": str(path), "validation": str(more)})
    assert {part: len(own) for part, own in splits.items()} == {
        "train": 4, "validation": 40, "test": 4}


def test_a_first_row_without_a_target(tmp_path):
    path = written(tmp_path, "own.jsonl", '{"text": "A."}\n{"text": "B.", "summary": "C."}\n')
    with pytest.raises(InputError, match="own.jsonl:1, column 'summary' – no text in this row"):
        read_pairs(path)


@pytest.mark.parametrize("rows", ["Yes.\tJa.\n", "Yes.\tJa.\n" * 30])
def test_pairs_that_can_not_be_cut(rows, tmp_path):
    "One pair, or one again and again; the advice works."
    path = written(tmp_path, "few.tsv", f"english\tgerman\n{rows}")
    with pytest.raises(InputError, match="too few different .* cut into 3 parts – add rows, or"):
        read_pair_splits({"data": str(path)})
    assert "test" not in read_pair_splits({"data": str(path), "validation": str(path)})


def test_a_split_keeps_equal_texts_on_one_side():
    rows = [("x", {"text": f"source {i % 20}", "target": f"target {i % 30}", "part": ""})
            for i in range(120)]
    parts = cut(to_pairs(rows, "rows"), 0, True)
    assert sum(map(len, parts.values())) == 120
    for column in ("text", "target"):
        sides = [set(part[column]) for part in parts.values()]
        assert not any(a & b for i, a in enumerate(sides) for b in sides[:i])


def test_shipped_data():
    for name, n in ("summaries", 229), ("translations", 1319):
        splits = read_pair_splits({"data": name})
        assert list(splits) == ["train", "validation", "test"]
        assert sum(map(len, splits.values())) == n
        assert splits["test"].column_names == ["text", "target"]


# a run folder, with either kind of model

RUNS = [("translation", "tiny-t5"), ("summarization", "tiny-gpt2")]


@pytest.mark.parametrize("task, model", RUNS)
def test_a_run(task, model, tmp_path):
    data = written(tmp_path, "pairs.tsv", GOOD)
    out = tmp_path / "run"
    recipe = Recipe(data=str(data), task=task, model=model, epochs=1, max_length=32)
    metrics = fine_tune(recipe, out, progress=False)
    kind = sequences.KINDS[task]
    assert set(metrics["metrics"]) == set(kind.scores) and metrics["n"] == 6
    assert all("model_gain" in found for found in metrics["baselines"].values())
    assert {"scores.png", "lengths.png", "loss.png"} <= {p.name for p in out.iterdir()}
    card = (out / "README.md").read_text(encoding="utf-8")
    assert kind.does in card and sequences.text_verdict(metrics) in card
    again = evaluate(out, str(data))
    assert again["n"] == 40 and again["trained_on"] == 28
    (answer,) = predict(out, ["This is number 3."])
    assert set(answer) == {"text", kind.answer} and isinstance(answer[kind.answer], str)
    both = compare(out, out, str(data))
    assert both["difference"][next(iter(kind.scores))] == {"value": 0, "low": 0, "high": 0}
    assert "can't tell the two apart" in both["verdict"]


def test_a_recorded_run():
    "Numbers only, as a table keeps them; LoRA on a GPT."
    measured = sequences.train_and_score(
        "summarization", "summaries", "tiny-gpt2", rows=8, epochs=1, learning_rate=1e-3,
        batch_size=4, lora_rank=4)
    assert measured["n"] == 34 and measured["lead_1_rouge1"] == pytest.approx(0.195, abs=0.02)
    assert all(isinstance(value, (int, float)) for value in measured.values())
    assert {"rouge1", "rouge1_low", "longest_sentence_model_gain_high", "seconds"} <= set(measured)


@pytest.mark.parametrize("table", sequences.RECORDS)
def test_settings_to_be_recorded(table, monkeypatch):
    run, every = sequences.RECORDS[table]
    for own in every: inspect.signature(run).bind(**own)
    monkeypatch.delenv("COURSE_REAL_DATA", raising=False)
    with pytest.raises(InputError, match="COURSE_REAL_DATA"): run(**every[1])


@pytest.mark.skipif(not is_folder(cache_folder() / "smollm2"),
                    reason="smollm2 isn't downloaded: course download smollm2")
def test_smollm2_summarises():
    model, tokenizer = load("smollm2", task="summarization")
    pairs = {"text": ["It rained all day in Ghent.", "No."], "target": ["Rain in Ghent.", "No!"]}
    splits = DatasetDict(a=Dataset.from_dict(pairs))
    rows = list(sequence_features(splits, tokenizer, 64, "\n\nSummary:")["a"])
    sums = sum(library_loss(model, row).item() * len(row["labels"]) for row in rows)
    found = sequence_loss(model, sequence_batch(model, rows))[0].item()
    assert abs(found - sums / sum(len(row["labels"]) for row in rows)) < 1e-4
    assert rows[1]["labels"][-1] == tokenizer.eos_token_id
    assert tokenizer.decode(rows[0]["labels"][:-1]) == " Rain in Ghent."


def found(value, low, high, other):
    score = {"value": value, "low": 0, "high": 1}
    gain = {"value": value - other, "low": low, "high": high}
    return {"n": 40, "metrics": {"chrf": score},
            "baselines": {"copy": {"chrf": {**score, "value": other}, "model_gain": gain}}}


@pytest.mark.parametrize("metrics, said", [
    (found(0.5, 0.1, 0.3, 0.3), "better than the baseline copy, by 20.0 points of chrf"),
    (found(0.2, -0.3, -0.1, 0.4), "worse than the baseline copy, by 20.0 points"),
    (found(0.3, -0.1, 0.1, 0.3), "can't tell the model from the baseline copy")])
def test_verdicts(metrics, said):
    "And nothing is said about a few rows, whose interval has no width."
    assert said in sequences.text_verdict(metrics)
    assert "scored: 1. That is too few" in sequences.text_verdict({**metrics, "n": 1})


@pytest.mark.parametrize("n, said", [(12, "The second run is better on these rows, by 50.0 points"),
                                     (9, "Rows to compare the two on: 9. That is too few")])
def test_verdicts_on_two_models(n, said):
    rows = Dataset.from_dict({"text": ["a"] * n, "target": ["the red cat sat"] * n})
    texts = ["the blue dog ran"] * n, ["the red cat ran"] * n
    kind = sequences.KINDS["summarization"]
    found = sequences.compare_texts(kind, rows, (texts[0], texts[1]), ("a", "b"))
    assert said in found["verdict"] and found["difference"]["rouge1"]["value"] < 0


@pytest.mark.skipif("COURSE_REAL_DATA" not in os.environ, reason="no folder of real data is named")
def test_real_files():
    folder = os.environ["COURSE_REAL_DATA"]
    papers = read_pair_splits({"data": f"{folder}/scitldr/train.jsonl"})
    assert sum(map(len, papers.values())) == 1992 and len(papers["test"]) > 250
    captions = read_pairs(f"{folder}/multi30k_en_de/val.en", label="de")
    assert len(captions) == 1014 and captions["text"][0].startswith("A group of men")
