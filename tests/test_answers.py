"""Answers in a text: every score equals a second statement of its rule, head and windows equal the
library's, and padding changes nothing."""
import copy
import io
import json
import math
import re
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from conftest import run_course
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import (AutoModelForQuestionAnswering, BertConfig, GPT2Config, LlamaConfig,
                          T5Config)

from course_lib import answers
from course_lib.answers import (
    ALWAYS, ANSWERS_USE, BASELINES, NEVER, RECORDS, TASKS, answer_texts, answering,
    answers_verdict, choose_threshold, compare_answers, counts, cut_windows, decide, draw_answers,
    encode_pair, exact_match, kind_of, look_both_ways, make_batch, make_windows, n_best, normalize,
    place_answer, predict_answers, predict_spans, run_squad, runs_of, said, score_answers,
    settle_threshold, span_logits, span_loss, token_f1, word_f1)
from course_lib.download import cache_folder
from course_lib.errors import InputError
from course_lib.evaluation import accuracy
from course_lib.files import is_folder
from course_lib.models import load
from course_lib.packed import unpadded
from course_lib.squad import FORM, QUESTION, all_parts, read_question_splits, read_questions
from course_lib.training import TaskLoss, fit, mean_loss, weighted_losses

RECIPE = {"data": "questions", "validation": None, "test": None, "seed": 0, "text": None,
          "label": None, "encoding": None, "delimiter": None, "max_length": 64}


# the scores

def official(text: str) -> str:
    "The rule of SQuAD's own program, said once more: letter by letter, word by word."
    punctuation = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    text = "".join("" if c in punctuation else c for c in text.lower())
    words, kept = re.split(r"(\W)", text), []
    for word in words: kept.append(" " if word in ("a", "an", "the") else word)
    return " ".join("".join(kept).split())


def official_f1(answer: str, right: str) -> float:
    "Precision and recall, with words struck off one by one."
    ours, theirs = official(answer).split(), official(right).split()
    if len(ours) == 0 or len(theirs) == 0: return 1.0 if ours == theirs else 0.0
    left, same = list(theirs), 0
    for word in ours:
        if word in left:
            left.remove(word)
            same += 1
    if not same: return 0.0
    precision, recall = same / len(ours), same / len(theirs)
    return 2 * precision * recall / (precision + recall)


WORDS = st.sampled_from(["the", "a", "An", "bell", "bell", "Åse", "nine", "1931", "re-open", "U.S.",
                         "l'eau", "北京", "गाँव", "«Oslo»", "İstanbul", "the.", "naïve", "a", "🔔"])
TEXTS = st.one_of(st.lists(WORDS, max_size=8).map(" ".join), st.text(max_size=30),
                  st.lists(WORDS, max_size=5).map("\t\n ".join))


@settings(max_examples=1500, deadline=None)
@given(TEXTS, TEXTS)
def test_scores_equal_a_second_statement_of_the_rule(answer, right):
    assert normalize(answer) == official(answer)
    assert exact_match(answer, right) == float(official(answer) == official(right))
    assert abs(word_f1(answer, right) - official_f1(answer, right)) < 1e-12
    assert abs(word_f1(answer, right) - word_f1(right, answer)) < 1e-12
    assert word_f1(answer, answer) == exact_match(answer, answer) == 1


CASES = [ # answer, acceptable, exact match, F1
    ("", "", 1, 1), ("", "x", 0, 0), ("x", "", 0, 0), ("the", "", 1, 1), ("...", "", 1, 1),
    ("the a an", "An", 1, 1), ("Old Moe", "old  moe.", 1, 1), ("old Moe rang", "Moe", 0, 0.5),
    ("a a b", "b b", 0, 2 / 3), ("bell bell bell", "bell", 0, 0.5), ("b a c", "c b", 0, 1),
    ("theatre", "the atre", 0, 0), ("a-b", "ab", 1, 1), ("nine, ten", "nine ten", 1, 1),
    ("北京市", "北京", 0, 0), ("Москва!", "москва", 1, 1), ("Straße", "STRASSE", 0, 0),
    ("l’eau", "l'eau", 0, 0), ("$5", "5", 1, 1), ("5 %", "5", 1, 1)]


@pytest.mark.parametrize("answer, right, exact, f1", CASES)
def test_scores_by_hand(answer, right, exact, f1):
    assert exact_match(answer, right) == exact
    assert abs(word_f1(answer, right) - f1) < 1e-12


def question(answers=(), text="old Åse rang a bell at nine", **more):
    row = {"text": f"Who?\t{text}", "id": "1", "question": "Who?", "context": text, "title": None,
           "part": None, "answers": list(answers),
           "starts": [text.find(a) for a in answers]}
    return {**row, **more}


def rows_of(*rows): return Dataset.from_list(list(rows), features=QUESTION)


def test_the_best_of_several_answers_counts_and_none_is_right_where_there_is_none():
    rows = rows_of(question(["old Åse", "Åse"]), question(), question(), question(["the", "."]))
    table = counts(rows, ["Åse", "", "Åse", ""])
    assert table.tolist() == [[1, 1], [1, 1], [0, 0], [1, 1]]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(-5, 5)), min_size=1, max_size=12))
def test_no_threshold_is_better_than_the_chosen_one(given):
    rows = rows_of(*(question(["Åse"] if has else []) for has, *_ in given))
    found = [{"answer": "Åse" if right else "nine", "start": 0, "end": 1, "score": 0.5,
              "margin": margin} for _, right, margin in given]
    def f1(threshold): return counts(rows, said(decide(found, threshold)))[:, 0].mean()
    lines = [-math.inf, math.inf, *(m + e for *_, m in given for e in (-1e-3, 0, 1e-3))]
    assert f1(choose_threshold(rows, found)) >= max(map(f1, lines)) - 1e-9


def margin(text, margin): return {"answer": text, "start": 0, "end": 1, "margin": margin}


def test_of_equally_good_thresholds_the_lowest_is_chosen():
    answered = rows_of(*(question(["Åse"]) for _ in range(3)))
    found = [margin("Åse", 2), margin("Åse", 1), margin("nine", -1)]
    assert choose_threshold(answered, found) == ALWAYS, "where all have an answer"
    assert choose_threshold(rows_of(*(question() for _ in range(3))), found) == NEVER
    one = rows_of(question(["Åse"]), question(["Åse"]), question())
    assert choose_threshold(one, found) == 0


def test_equal_margins_and_none_at_all():
    rows = rows_of(question(["Åse"]), question(), question(["Åse"]))
    found = [margin("Åse", 1.0), margin("nine", 1.0), margin("Åse", -math.inf)]
    threshold = choose_threshold(rows, found)
    assert math.isfinite(threshold) and json.loads(json.dumps(threshold)) == threshold
    assert choose_threshold(rows.select([0]), found[2:]) in (ALWAYS, NEVER)


# spans and windows

@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(1, 14), st.integers(0, 10**6))
def test_the_n_best_spans_by_trying_all(tokens, longest, seed):
    starts, ends = torch.randn(2, tokens, generator=torch.Generator().manual_seed(seed))
    pairs = [((starts[a] + ends[b]).item(), a, b) for a in range(tokens)
             for b in range(a, tokens) if b - a < longest]
    assert n_best(starts, ends, 7, longest) == sorted(pairs, reverse=True)[:7]


@pytest.mark.parametrize("name", ["minilm", "tiny-bert", "tiny-gpt2"])
@pytest.mark.parametrize("max_length", [48, 100, 256])
def test_windows_are_the_librarys(name, max_length):
    if name == "minilm" and not is_folder(cache_folder() / "minilm"):
        pytest.skip("minilm isn't downloaded: course download minilm")
    _, tokenizer = load(name, "question-answering")
    rows = all_parts("questions", dict.fromkeys(FORM))["validation"].select(range(30))
    for row in rows:
        mine = cut_windows(tokenizer, row["question"], row["context"], max_length)
        before, _, behind, _ = encode_pair(tokenizer, row["question"], row["context"])
        if len(before) > max_length // 2: continue
        found = tokenizer(row["question"], row["context"], truncation="only_second",
                          max_length=max_length, stride=(max_length - len(before + behind)) // 3,
                          return_overflowing_tokens=True, return_offsets_mapping=True)
        assert [w["input_ids"] for w in mine] == found["input_ids"]
        for i, window in enumerate(mine):
            inside = [o for o, part in zip(found["offset_mapping"][i], found.sequence_ids(i))
                      if part == 1]
            assert list(zip(window["begins"], window["ends"])) == inside
            assert len(window["input_ids"]) <= max_length


@pytest.fixture(scope="module")
def gpt(): return load("tiny-gpt2", "question-answering")


LETTERS = st.text(st.sampled_from("aé北🔔 .x1"), min_size=1, max_size=60).filter(str.strip)


@settings(max_examples=150, deadline=None)
@given(LETTERS, st.integers(0, 59), st.integers(1, 12), st.sampled_from([24, 40, 256]))
def test_every_answer_is_found_again(gpt, context, start, length, max_length):
    "In a window it comes back with at most the rest of its outer tokens; outside, it is `none`."
    _, tokenizer = gpt
    text = context[start:start + length]
    if not text.strip(): return
    for window in cut_windows(tokenizer, "Who?", context, max_length):
        a, b = place_answer(window, [text], [start])
        whole = window["begins"][0] <= start and start + len(text) <= window["ends"][-1]
        if (a, b) == (window["none"],) * 2:
            assert not whole
            continue
        a, b = a - window["first"], b - window["first"]
        begin, end = window["begins"][a], window["ends"][b]
        assert whole and text in context[begin:end] and a <= b
        assert begin <= start < window["ends"][a] and window["begins"][b] < start + len(text) <= end


def test_the_second_answer_where_the_first_is_elsewhere(gpt):
    text = "Moe sat. " + "The rain fell on the roofs. " * 12 + "Then Moe rose."
    answers = dict(answers=["Moe", "Moe"], starts=[text.rfind("Moe"), 0])
    windows = cut_windows(gpt[1], "Who?", text, 64)
    found = [place_answer(w, **answers) for w in windows]
    inside = [f for f, w in zip(found, windows) if f[0] != w["none"]]
    assert len(inside) == 2 and found[0] in inside and found[-1] in inside


def test_no_answer_points_where_everything_has_been_read():
    for name, place in (("tiny-bert", 0), ("tiny-gpt2", -1)):
        _, tokenizer = load(name, "question-answering")
        window, = cut_windows(tokenizer, "Who?", "Old Moe.", 64)
        assert window["none"] == place % len(window["input_ids"])


def test_a_context_without_tokens_and_a_question_that_fills_the_window(gpt):
    model, tokenizer = gpt
    window, *_ = cut_windows(tokenizer, "why " * 200, "Because it rained.", 64)
    assert len(window["input_ids"]) <= 64 and window["begins"]
    with pytest.raises(InputError, match="max_length=4 – leaves no room"):
        cut_windows(tokenizer, "Who?", "Old Moe.", 4)
    empty = {**window, "begins": [], "ends": []}
    assert n_best(torch.zeros(0), torch.zeros(0)) == []
    assert make_batch(model, [{**empty, "start": 0, "end": 0}])["allowed"].sum() == 1


# head, loss, padding

TINY = {"vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
SHAPE = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
         "intermediate_size": 64, "max_position_embeddings": 64}
CONFIGS = {"bert": BertConfig(**SHAPE, **TINY), "gpt2": GPT2Config(
    n_layer=2, n_embd=32, n_head=4, n_positions=64, **TINY),
    "llama": LlamaConfig(num_key_value_heads=2, **SHAPE, **TINY)}


def new(family, dropout=0.0):
    torch.manual_seed(0)
    model = AutoModelForQuestionAnswering.from_config(copy.deepcopy(CONFIGS[family]))
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout): layer.p = dropout
    return model


def windows_of(n=12, seed=0, kinds=False):
    "Windows of random tokens with a question of four and a target each."
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        inside = int(rng.integers(2, 40))
        start = int(rng.integers(0, inside))
        span = (4 + start, 4 + int(rng.integers(start, inside))) if i % 4 else (0, 0)
        row = {"input_ids": rng.integers(2, 99, inside + 5).tolist(), "first": 4, "none": 0,
               "begins": list(range(inside)), "ends": list(range(1, inside + 1)),
               "row": i, "start": span[0], "end": span[1]}
        if kinds: row["token_type_ids"] = [0] * 4 + [1] * (inside + 1)
        rows.append(row)
    return rows


@pytest.mark.parametrize("family", CONFIGS)
def test_the_head_by_hand(family):
    model, batch = new(family).eval(), make_batch(new(family), windows_of())
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        states = model.base_model(**inputs).last_hidden_state
        logits = states @ model.qa_outputs.weight.T + model.qa_outputs.bias
        out = model(**inputs)
        ours = span_logits(model, batch)
    filled = batch["attention_mask"].bool()
    for i, theirs in enumerate((out.start_logits, out.end_logits)):
        assert torch.allclose(logits[..., i][filled], theirs[filled], atol=1e-5)
        allowed = batch["allowed"]
        assert torch.allclose(ours[i][allowed], theirs[allowed], atol=1e-5)
        assert (ours[i][~allowed] == -math.inf).all()


@pytest.mark.parametrize("family", CONFIGS)
def test_the_loss_is_the_librarys_where_all_tokens_may_be_chosen(family):
    model = new(family).eval()
    for row in windows_of(6):
        batch = make_batch(model, [row])
        theirs = model(batch["input_ids"], start_positions=batch["start"],
                       end_positions=batch["end"]).loss
        batch["allowed"] = torch.ones_like(batch["allowed"])
        assert abs(span_loss(model, batch)[0] - theirs) < 1e-5


@pytest.mark.parametrize("family, kinds", [("bert", True), ("bert", False), ("gpt2", False),
                                           ("llama", False)])
def test_packed_equals_padded(family, kinds):
    "Loss and every gradient."
    rows, found = windows_of(9, kinds=kinds), []
    for way in ("padded", "packed"):
        model = new(family).train()
        batch = make_batch(model, rows)
        inputs = {k: v for k, v in batch.items()
                  if k in ("input_ids", "attention_mask", "token_type_ids")}
        if way == "padded": out = model(**inputs)
        else:
            with unpadded(model): out = model(**inputs)
        logits = torch.stack([out.start_logits, out.end_logits])
        logits = logits.masked_fill(~batch["allowed"], -math.inf)
        wanted = torch.cat([batch["start"], batch["end"]])
        loss = cross_entropy(logits.flatten(0, 1), wanted)
        assert abs(loss - span_loss(model, batch)[0]) < 1e-5
        loss.backward()
        gradient = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((loss.item(), torch.cat(gradient)))
    (a, g), (b, h) = found
    assert abs(a - b) < 1e-5 and (g - h).norm() < 1e-4 * g.norm()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_gpt_that_looks_both_ways(family):
    "The last token reaches the first, with padding taken out or not; without it, it doesn't."
    rows = [windows_of()[i] for i in (1, 2, 3)]
    changed = [{**row, "input_ids": [*row["input_ids"][:-1], 5]} for row in rows]
    for both in (False, True):
        model = new(family).eval()
        if both: look_both_ways(model)
        before, after = (make_batch(model, some) for some in (rows, changed))
        inputs = {k: before[k] for k in ("input_ids", "attention_mask")}
        with torch.no_grad():
            first = [span_logits(model, batch)[0, :, 4] for batch in (before, after)]
            with unpadded(model): packed = model(**inputs).start_logits
            padded = model(**inputs).start_logits
        assert torch.allclose(*first, atol=1e-6) != both
        filled = before["attention_mask"].bool()
        assert torch.allclose(packed[filled], padded[filled], atol=1e-5)


@pytest.mark.parametrize("family", CONFIGS)
def test_neighbours_batch_size_and_order_change_nothing(family):
    model, rows = new(family).eval(), windows_of(11)
    one, many = (answers.log_probabilities(model, rows, size) for size in (1, 64))
    back = answers.log_probabilities(model, rows[::-1], 4)[::-1]
    for a, b, c in zip(one, many, back):
        assert torch.allclose(a, b, atol=1e-5) and torch.allclose(a, c, atol=1e-5)
        assert torch.allclose(a.exp().sum(-1), torch.ones(2), atol=1e-5)
    losses = [mean_loss(TaskLoss(model, answering), "task", rows, size) for size in (1, 5, 11)]
    assert max(losses) - min(losses) < 1e-5


def test_parts_of_a_step_and_resuming(tmp_path):
    rows, model = windows_of(11), new("bert")
    parts = [("task", rows[:3]), ("task", rows[3:])]
    loss = TaskLoss(model, answering)
    assert abs(sum(weighted_losses(loss, parts, {})) - loss("task", rows)[0]) < 1e-5
    whole, first, second = (new("bert", 0.1) for _ in range(3))
    usual = dict(task=answering, epochs=3, batch_size=4, learning_rate=1e-3, progress=False,
                 metric=token_f1)
    uncut = fit(whole, rows, rows[:5], **usual)
    def cut(history):
        if history[-1]["step"] == 5: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        fit(first, rows, rows[:5], checkpoint=tmp_path, callbacks=[cut], **usual)
    rest = fit(second, rows, rows[:5], checkpoint=tmp_path, resume=True, **usual)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), second.parameters()))
    assert uncut["loss"].tolist() == rest["loss"].tolist()


def test_windows_can_be_learnt_by_heart_and_watched():
    rows, model = windows_of(8), new("bert")
    fit(model, rows, task=answering, epochs=60, batch_size=8, learning_rate=3e-3, progress=False)
    found, wanted = predict_spans(model, rows)
    assert token_f1(found, wanted) > 0.9 and accuracy(found.numpy(), wanted.numpy()) > 0.9
    assert token_f1(wanted, wanted) == 1
    assert token_f1(torch.tensor([[3, 6]]), torch.tensor([[5, 8]])) == 0.5
    assert token_f1(torch.tensor([[0, 0]]), torch.tensor([[5, 8]])) == 0


def test_another_kind_of_model_is_refused():
    model, _ = load("tiny-gpt2", labels=["a", "b"])
    with pytest.raises(InputError, match="gives no start and end – load it with task="):
        fit(model, windows_of(4), task=answering, progress=False)


# answers over several windows

def test_the_best_window_answers_and_all_must_agree_on_none(monkeypatch):
    text = "old Åse rang a bell at nine"
    rows = rows_of(question(text=text), question(text=text, id="2"))
    window = {"first": 1, "none": 0, "begins": [0, 4, 8], "ends": [3, 7, 12]}
    windows = [{**window, "row": 0}, {**window, "row": 0, "begins": [15, 20, 23],
                                      "ends": [20, 22, 27]}, {**window, "row": 1}]
    logs = torch.tensor([[[.7, .1, .1, .1], [.7, .1, .1, .1]], [[.1, .1, .1, .7], [.1, .1, .1, .7]],
                         [[.9, .05, .05, 0], [.9, .05, .05, 0]]]).log()
    monkeypatch.setattr(answers, "log_probabilities", lambda model, windows, size: logs)
    found = predict_answers(None, None, rows, windows)
    assert (found[0]["answer"], found[0]["start"], found[0]["end"]) == ("nine", 23, 27)
    assert abs(found[0]["score"] - 0.49) < 1e-6
    assert abs(found[0]["margin"] - math.log(0.49 / 0.01)) < 1e-4
    decided = decide(found)
    assert decided[0]["answer"] == "nine" and decided[1]["answer"] is None
    assert decided[1]["start"] is None and said(decided) == ["nine", ""]
    blank = {"answer": "", "start": 3, "end": 3, "score": 0.5, "margin": 1.0}
    assert decide([blank])[0] == {**blank, "answer": None, "start": None, "end": None}


# what a run folder asks

def test_baselines():
    text = "In the hall Åse Moe sat. The bell of Orsund was 90 years old. Old Tom Berg slept."
    assert BASELINES["longest_name"]("", text) == "Old Tom Berg"
    assert BASELINES["first_phrase"]("", text) == "hall Åse Moe sat"
    assert BASELINES["nearest_run"]("How old was the bell?", text) == "90"
    assert BASELINES["nearest_run"]("Who sat in the hall?", text) == "Åse Moe"
    assert BASELINES["never_an_answer"]("Who?", text) == ""
    assert runs_of("a, b c", str.isalpha) == ["a", "b c"]
    for baseline in BASELINES.values(): assert baseline("?", "...") == ""


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS)
def test_baselines_answer_with_words_of_the_text(question, text):
    for baseline in BASELINES.values(): assert baseline(question, text) in text


def some_answers(rows, right):
    return [{"answer": a[0] if a and good else None, "start": None, "end": None, "score": 0.5,
             "margin": 1.0 if good else -1.0} for a, good in zip(rows["answers"], right)]


def test_scores_comparison_pictures_and_verdict():
    rows = read_question_splits(RECIPE)["test"]
    good, bad = some_answers(rows, [True] * 72), some_answers(rows, [False] * 72)
    metrics = score_answers(rows, good)
    assert metrics["n"] == 72 and set(metrics["metrics"]) == {"f1", "exact_match"}
    assert set(metrics["baselines"]) == set(BASELINES)
    assert metrics["metrics"]["f1"]["value"] == 1
    assert "beats the best baseline" in answers_verdict(metrics)
    assert "can't tell" in answers_verdict(score_answers(rows, bad))
    found = compare_answers(rows, (bad, good), ([], []))
    assert "second run is better" in found["verdict"] and found["difference"]["f1"]["high"] < 0
    assert "can't tell" in compare_answers(rows, (good, good), ([], []))["verdict"]
    few = [rows.select(range(n)) for n in (5, 6)]
    assert "can't tell" in compare_answers(few[0], (bad[:5], good[:5]), ([], []))["verdict"]
    assert "second run" in compare_answers(few[1], (bad[:6], good[:6]), ([], []))["verdict"]
    assert "5 questions are too few" in answers_verdict(score_answers(few[0], good[:5]))
    figures = draw_answers(rows, bad)
    assert "12 right" in figures["errors"][1] and "60 missed" in figures["errors"][1]
    nothing = draw_answers(rows_of(question(["Åse"])), [{"answer": "Åse", "margin": -math.inf}])
    assert set(nothing) == {"errors", "scores"}


def test_kinds_of_mistakes():
    kinds = [kind_of(*given) for given in ((["a"], "a", [1, 1]), (["a b"], "a", [.5, 0]),
                                           (["a"], "b", [0, 0]), (["a"], None, [0, 0]),
                                           ([], "b", [0, 0]), ([], None, [1, 1]))]
    assert kinds == ["right", "partly right", "elsewhere", "missed", "invented", "right"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "A run by the command line with the smallest model and few questions, in small windows."
    out = tmp_path_factory.mktemp("answers") / "run"
    done = run_course("fine-tune", "--task", "question-answering", "--data", "questions", "--model",
                      "tiny-gpt2", "--epochs", 1, "--max-train-samples", 40, "--max-length", 96,
                      "--metric-for-best-model", "token_f1", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done


@pytest.mark.slow
def test_a_run_by_the_command_line(run, tmp_path):
    out, done = run
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["split"] == "test" and metrics["n"] == 72 and "never an answer" in done.stdout
    assert {p.name for p in out.iterdir()} >= {"errors.png", "scores.png", "loss.png", "model"}
    assert "Marks the words of a text that answer a question" in (out / "README.md").read_text()
    line = "Who rang?\tOld Åse Moe rang at nine."
    said = run_course("predict", out, line)
    answer = json.loads(said.stdout)
    context = line.partition("\t")[2]
    assert set(answer) == {"question", "answer", "score", "start", "end"}
    assert answer["answer"] is None or context[answer["start"]:answer["end"]] == answer["answer"]
    assert run_course("predict", out, "no context").returncode == 2
    again = run_course("evaluate", out, "--data", "questions", "--json")
    assert again.returncode == 0 and json.loads(again.stdout)["n"] == 490
    same = run_course("compare", out, out, "--data", "questions")
    assert same.returncode == 0 and "can't tell the two apart" in same.stdout


@pytest.mark.slow
def test_the_card_shows_code_that_answers(run, monkeypatch):
    "The code of the card, run as it stands: the best span, as the course's own way finds it."
    out, _ = run
    code = ANSWERS_USE.format(max_length=96).split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(out)
    with redirect_stdout(io.StringIO()) as printed: exec(code, {})
    model, tokenizer = load(str(out / "model"), "question-answering")
    row = question(text="This text is about birds.", question="What is the text about?")
    rows = rows_of(row)
    windows = make_windows(DatasetDict(rows=rows), tokenizer, 96)["rows"]
    (found,) = predict_answers(model, tokenizer, rows, windows)
    assert printed.getvalue().strip() == found["answer"]


def test_the_threshold_of_a_model_is_saved_and_used(gpt, tmp_path):
    model, tokenizer = load("tiny-gpt2", "question-answering")
    line = "Who rang?\tOld Åse Moe rang at nine."
    text = line.partition("\t")[2]
    rows = rows_of(question([], text, question="Who rang?"))
    windows = make_windows(DatasetDict(rows=rows), tokenizer, 64)["rows"]
    (best,) = predict_answers(model, tokenizer, rows, windows)
    for accepted, threshold in (([best["answer"]], ALWAYS), ([], NEVER)):
        rows = rows_of(question(accepted, text, question="Who rang?"))
        settle_threshold(model, tokenizer, rows, windows)
        model.save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        again, _ = load(str(tmp_path / "model"), "question-answering")
        (answer,) = answer_texts(again, tokenizer, {"max_length": 64}, [line], 8)
        assert again.config.no_answer_threshold == threshold
        assert (answer["answer"] is None) == (threshold == NEVER)


def test_t5_answers_or_is_refused():
    config = T5Config(vocab_size=99, num_layers=1, d_model=16, d_ff=32, d_kv=8, num_heads=2,
                      pad_token_id=0, decoder_start_token_id=0)
    model = AutoModelForQuestionAnswering.from_config(config).eval()
    logits = answers.log_probabilities(model, windows_of(3))
    assert all(torch.allclose(z.exp().sum(-1), torch.ones(2), atol=1e-4) for z in logits)


def test_the_table_of_the_task():
    asked = TASKS["question-answering"]
    assert asked.task is answering and asked.classes(None) == {} and asked.match("x", []) == "x"
    run, settings = RECORDS["squad"]
    different = {json.dumps(each, sort_keys=True) for each in settings}
    assert run is run_squad and len(different) == len(settings)


# real data

def test_real_questions(real_data, monkeypatch):
    monkeypatch.setenv("COURSE_REAL_DATA", str(real_data))
    rows = read_questions(real_data / "squad_v1_dev/dev-v1.1.rebuilt.json")
    assert len(rows) == 10_570 and len(set(rows["title"])) == 48
    found = run_squad("nearest_run", held_out=500)
    assert found["n"] == 500 and 20 < found["f1_low"] < found["f1"] < found["f1_high"] < 40
    small = run_squad("tiny-bert", questions=24, learning_rate=1e-3, held_out=16)
    assert small["n"] == 16 and 0 <= small["f1_low"] <= small["f1"] <= small["f1_high"] <= 100


def test_without_real_data(monkeypatch):
    monkeypatch.delenv("COURSE_REAL_DATA", raising=False)
    with pytest.raises(InputError, match="COURSE_REAL_DATA – is not set – name the folder"):
        run_squad("nearest_run")


@pytest.mark.skipif(not is_folder(cache_folder() / "smollm2"),
                    reason="smollm2 isn't downloaded: course download smollm2")
def test_smollm2_reads_question_and_context_apart():
    model, tokenizer = load("smollm2", "question-answering")
    window, = cut_windows(tokenizer, "Who rang?", "Old Åse Moe rang.", 64)
    text = tokenizer.decode(window["input_ids"])
    assert text.startswith("Who rang?\nOld Åse Moe rang.") and text.endswith(tokenizer.eos_token)
    found, = answers.log_probabilities(model, [{**window, "start": 5, "end": 6}])
    assert found.shape == (2, len(window["input_ids"]))
