"""Where checkpoints come from: objectives, losses, the command, and what was shipped."""
import hashlib
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import run_course
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

from course_lib.data import InputError, load_data, shipped
from course_lib.models import load
from course_lib.pretraining import (CLASSES, DROPOUT, GAPS, LENGTH, OBJECTIVES, SlicedCrossEntropy, draw_rows, fill_blanks, fill_gaps,
                                    family_tokenizer, new_model, partition, passages, pretrain, read_texts, sentence_states,
                                    teacher_states, token_loss)
from course_lib.training import predict_logits

FAMILIES = list(OBJECTIVES)
load_tokenizer = AutoTokenizer.from_pretrained
SHIPPED = [f"tiny-{f}" for f in FAMILIES]


@pytest.fixture(scope="module")
def tokenizers():
    return {f: family_tokenizer(AutoTokenizer.from_pretrained(shipped("models/tiny-gpt2")), f) for f in FAMILIES}


@pytest.fixture(scope="module")
def random_models(tokenizers, tmp_path_factory):
    "A folder for each family with random weights."
    folders = {f: tmp_path_factory.mktemp(f) for f in FAMILIES}
    for f, folder in folders.items(): new_model(f, tokenizers[f]).save_pretrained(folder); tokenizers[f].save_pretrained(folder)
    return folders


@settings(max_examples=100, deadline=None)
@given(total=st.integers(2, 300), share=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_partition(total, share, seed):
    parts = max(1, int(total * share))
    pieces = partition(total, parts, torch.Generator().manual_seed(seed))
    assert len(pieces) == parts and sum(pieces) == total and min(pieces) >= 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_gaps_lose_nothing(tokenizers, seed):
    tokenizer, rng = tokenizers["t5"], torch.Generator().manual_seed(seed)
    rows = torch.randint(300, 8000, (3, LENGTH), generator=rng)
    batch, marks = fill_gaps(rows, tokenizer, rng), set(tokenizer.convert_tokens_to_ids(GAPS))
    for row, inputs, labels in zip(rows.tolist(), batch["input_ids"].tolist(), batch["labels"].tolist()):
        pieces, mark = {}, None
        for t in labels[:-1]:
            if t in marks: mark = t; pieces[t] = []
            else: pieces[mark].append(t)
        assert [x for t in inputs for x in pieces.get(t, [t])] == row and labels[-1] == tokenizer.eos_token_id
    assert torch.equal(batch["decoder_input_ids"][:, 1:], batch["labels"][:, :-1]) and (batch["decoder_input_ids"][:, 0] == tokenizer.pad_token_id).all()


def test_blanks_hide_nothing_else(tokenizers):
    rows = torch.randint(300, 8000, (64, LENGTH), generator=torch.Generator().manual_seed(0))
    batch = fill_blanks(rows, tokenizers["bert"], torch.Generator().manual_seed(1))
    kept, told = batch["labels"] == -100, batch["labels"] != -100
    assert torch.equal(batch["input_ids"][:, 1:][kept[:, 1:]], rows[:, :-1][kept[:, 1:]]) and torch.equal(batch["labels"][:, 1:][told[:, 1:]], rows[:, :-1][told[:, 1:]])
    assert 0.29 < told.float().mean() < 0.31


@pytest.mark.parametrize("n, size", [(1, 256), (5, 2), (700, 256), (512, 256)])
def test_sliced_cross_entropy_is_cross_entropy(n, size):
    torch.manual_seed(0)
    states, weight, bias = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((n, 12), (50, 12), (50,)))
    labels = torch.randint(50, (n,))
    ours, theirs = SlicedCrossEntropy.apply(states, weight, bias, labels, True, size), cross_entropy(states @ weight.T + bias, labels)
    a, b = (torch.autograd.grad(3 * loss, (states, weight, bias), retain_graph=True) for loss in (ours, theirs))
    assert abs(ours - theirs) < 1e-6 and all((x - y).norm() < 1e-6 * y.norm() for x, y in zip(a, b))


@pytest.mark.parametrize("family", FAMILIES)
def test_token_loss_is_the_models_own(family, tokenizers):
    model, rows = new_model(family, tokenizers[family]), torch.randint(300, 8000, (2, LENGTH))
    batch = OBJECTIVES[family](rows, tokenizers[family], torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = model(**{**batch, "labels": rows}).loss if family == "gpt2" else model(**batch).loss
        ours = token_loss(model, batch, batch.pop("labels"))
    assert abs(ours - theirs) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_distilled_state_is_the_one_a_classifier_reads(family, random_models):
    model, tokenizer = load(str(random_models[family]), labels=["a", "b"])
    body = CLASSES[family].from_pretrained(random_models[family], dtype=torch.float32).eval()
    batch = tokenizer(["a film", "a much longer film than that one was"], padding=True, return_tensors="pt")
    with torch.no_grad():
        states = sentence_states(body, batch["input_ids"], batch["attention_mask"])
        head = {"gpt2": lambda s: model.score(s), "bert": lambda s: model.classifier(model.head(s)),
                "t5": lambda s: model.classification_head(s[:, None] * model.config.d_model**0.5)[:, 0]}[family]
        expected = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.allclose(head(states), expected, atol=1e-4)


def test_rows_depend_on_the_step_alone():
    stream = np.arange(40_000, dtype=np.uint16)
    per_epoch = (len(stream) - LENGTH) // LENGTH // 8
    assert torch.equal(draw_rows(stream, 8, 7), draw_rows(stream, 8, 7)) and not torch.equal(draw_rows(stream, 8, 0), draw_rows(stream, 8, per_epoch))
    seen = torch.cat([draw_rows(stream, 8, s) for s in range(per_epoch)])
    assert len(seen.flatten().unique()) == seen.numel()             # no token twice in a pass
    assert ((seen[:, 1:] - seen[:, :-1]) == 1).all()                # rows are runs of the stream


def test_reading_a_corpus(tmp_path):
    (tmp_path / "lines.txt").write_text("One film.\n\nAnother film.\n")
    (tmp_path / "table.csv").write_text("id,review\n1,Fine.\n2,Dull.\n")
    (tmp_path / "book.txt").write_text("\n\n".join(["A paragraph of\nsix words here now."] * 120 + ["Title"]))
    assert read_texts(tmp_path / "lines.txt") == ["One film.", "Another film."] and read_texts(tmp_path / "table.csv") == ["Fine.", "Dull."]
    assert read_texts(tmp_path / "book.txt") == ["A paragraph of six words here now."] * 120
    (tmp_path / "bad.csv").write_text("id,stars\n1,2\n")
    with pytest.raises(InputError, match="bad.csv.*no text column"): read_texts(tmp_path / "bad.csv")


def test_passages():
    texts = ["One film, too long by far. It was not bad at all though! Why?", "Short."]
    assert all(5 <= len(p.split()) <= 60 for p in passages(texts)) and passages(texts) == passages(texts)


@pytest.fixture()
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(shipped("unlabelled_reviews.txt").read_text().splitlines()[:400]))
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_pretrain_gives_a_model_that_loads_and_trains(family, corpus, tmp_path):
    log = pretrain([corpus], family, tmp_path / "m", tokens=12 * 8 * LENGTH, progress=False)
    assert list(log.columns) == ["step", "tokens", "loss", "learning_rate", "seconds", "perplexity"] and log["tokens"].iloc[-1] == 12 * 8 * LENGTH
    assert {"config.json", "model.safetensors", "tokenizer.json", "log.csv", "recipe.json"} <= {p.name for p in (tmp_path / "m").iterdir()} and not (tmp_path / "m" / "checkpoint").exists()
    model, tokenizer = load(str(tmp_path / "m"), labels=["a", "b"])
    assert getattr(model.config, DROPOUT[family][0]) == 0.1 and tokenizer("a film")["input_ids"][-1] == tokenizer.eos_token_id
    with pytest.raises(InputError, match="--resume"): pretrain([corpus], family, tmp_path / "m", tokens=12 * 8 * LENGTH, progress=False)
    assert load_tokenizer(tmp_path / "m").backend_tokenizer.truncation is None
    with pytest.raises(InputError, match="tokens"): pretrain([corpus], family, tmp_path / "m", tokens=13 * 8 * LENGTH, resume=True, progress=False)
    assert pretrain([corpus], family, tmp_path / "m", tokens=12 * 8 * LENGTH, resume=True, progress=False).equals(log)


def test_distilling_from_any_encoder(corpus, tmp_path):
    out = tmp_path / "m"
    log = pretrain([corpus], "gpt2", out, teacher="tiny-gpt2", tokens=10 * 8 * LENGTH, progress=False)
    with pytest.raises(InputError, match="teacher"): pretrain([corpus], "gpt2", out, teacher="minilm", tokens=10 * 8 * LENGTH, resume=True)
    assert load_tokenizer(out).backend_tokenizer.truncation is None
    assert {"cosine_loss", "contrastive_loss", "language_model_loss"} <= set(log.columns) and (out / "log.csv").exists()
    plain, distilled = (load(str(f), labels=["a", "b"])[0].base_model.wte.weight for f in (out / "plain", out))
    assert not torch.equal(plain, distilled) and not (out / "plain" / "log_distil.csv").exists()


def test_teacher_states_do_not_depend_on_company():
    texts = ["A film.", "A much longer text about a film that nobody liked, and about its music."]
    both, alone = teacher_states(texts, "tiny-gpt2", progress=False), teacher_states(texts[:1], "tiny-gpt2", progress=False)
    assert np.abs(both[0].astype(float) - alone[0]).max() < 0.02 and both.shape[1] == 2 * 192


def test_killed_and_resumed_ends_the_same(corpus, tmp_path):
    "SIGKILL at some moment after the first checkpoint; the weights are those of the run that nobody disturbed."
    arguments = ["pretrain", "--corpus", str(corpus), "--family", "gpt2", "--tokens", str(24 * 8 * LENGTH)]
    running = subprocess.Popen([sys.executable, "-m", "course_lib", *arguments, "--out", str(tmp_path / "killed")], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.time() + 300
    while not list((tmp_path / "killed" / "checkpoint").glob("*-*.pt")) and running.poll() is None and time.time() < deadline: time.sleep(0.2)
    running.send_signal(signal.SIGKILL); running.wait()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    for out, *more in (["killed", "--resume"], ["whole"]): assert run_course(*arguments, "--out", tmp_path / out, *more).returncode == 0
    a, b = (hashlib.sha256((tmp_path / f / "model.safetensors").read_bytes()).hexdigest() for f in ("killed", "whole"))
    assert a == b and len(pd.read_csv(tmp_path / "killed" / "log.csv")) == len(pd.read_csv(tmp_path / "whole" / "log.csv")) == 2


@pytest.mark.parametrize("arguments, words", [
    (["--corpus", "gone.txt", "--family", "gpt2"], ["gone.txt", "no such file"]), (["--corpus", "corpus.txt", "--family", "gpt3"], ["gpt3", "gpt2, bert, t5"]),
    (["--corpus", "small.txt", "--family", "gpt2"], ["too little"]), (["--corpus", "empty.txt", "--family", "bert"], ["empty.txt", "is empty"]),
    (["--corpus", "latin.txt", "--family", "bert"], ["latin.txt:1", "UTF-8"]), (["--corpus", "corpus.txt", "--family", "t5", "--tokens", "5"], ["--tokens"]),
    (["--corpus", "corpus.txt", "gone.txt", "--family", "gpt2"], ["gone.txt"]), (["--corpus", "corpus.txt", "--family", "gpt2", "--teacher", "./nowhere"], ["nowhere"]), (["--corpus", "corpus.txt", "--family", "gpt2", "--teacher", "minlm"], ["minlm"]),
    (["--corpus", "corpus.txt", "--family", "gpt2", "--out", "full"], ["full", "other things"])])
def test_bad_input_is_one_line(corpus, tmp_path, arguments, words):
    for name, raw in {"small.txt": b"A film.\n", "empty.txt": b"", "latin.txt": "café\n".encode("latin-1")}.items(): (tmp_path / name).write_bytes(raw)
    (tmp_path / "full").mkdir(); (tmp_path / "full" / "thesis.txt").write_text("mine")
    done = run_course("pretrain", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and all(w in done.stderr for w in words), done.stderr
    assert not (tmp_path / "runs").exists() and (tmp_path / "full" / "thesis.txt").exists()


# --- what is shipped

@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_checkpoints(name):
    folder = shipped(f"models/{name}")
    model, tokenizer = load(name, labels=["negative", "positive"])
    assert 2.5e6 <= model.num_parameters() <= 4e6 and (folder / "model.safetensors").stat().st_size <= 8e6 and len(tokenizer) == 8192
    log, card = pd.read_csv(folder / "log.csv"), (folder / "README.md").read_text(encoding="utf-8")
    assert log["tokens"].iloc[-1] >= 29.9e6 and {"tokens", "loss", "learning_rate", "seconds", "perplexity"} <= set(log.columns)
    distilled = (folder / "log_distil.csv").exists()
    assert f"{log['perplexity'].iloc[-1]:.1f}" in card and "CC BY 4.0" in card and ("all-MiniLM-L6-v2" in card) == distilled != ("Not distilled" in card)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_model_cards_are_up_to_date(name):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
    from model_card import card
    assert (shipped(f"models/{name}") / "README.md").read_text(encoding="utf-8") == card(name.removeprefix("tiny-")), "run: python scripts/model_card.py"


def test_shipped_checkpoints_share_vocabulary_and_corpus():
    tokenizers = [json.loads(shipped(f"models/{n}/tokenizer.json").read_text()) for n in SHIPPED]
    assert all(t["model"] == tokenizers[0]["model"] and t["truncation"] is None for t in tokenizers)
    tokens = [pd.read_csv(shipped(f"models/{n}/log.csv"))["tokens"].iloc[-1] for n in SHIPPED]
    sizes = [load(n, labels=["a", "b"])[0].num_parameters() for n in SHIPPED]
    assert max(tokens) - min(tokens) < 0.01 * max(tokens) and max(sizes) < 1.2 * min(sizes)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_score_does_not_depend_on_padding(name):
    model, tokenizer = load(name, labels=["a", "b"])
    from datasets import Dataset
    texts = load_data("reviews")["validation"]["text"][:40]
    rows = Dataset.from_dict({"input_ids": tokenizer(texts)["input_ids"]})
    assert torch.allclose(predict_logits(model, rows, 40), predict_logits(model, rows, 1), atol=1e-4)


def test_shipped_weights_know_english():
    "Word order matters to them: a shuffled text is harder."
    for name in SHIPPED:
        family = name.removeprefix("tiny-")
        model, tokenizer = CLASSES[family].from_pretrained(shipped(f"models/{name}"), dtype=torch.float32).eval(), load(name, labels=["a", "b"])[1]
        ids = torch.tensor([i for t in load_data("reviews")["test"]["text"][:60] for i in tokenizer(t, add_special_tokens=False)["input_ids"]][:4 * LENGTH]).view(4, LENGTH)
        mixed = ids[:, torch.randperm(LENGTH, generator=torch.Generator().manual_seed(0))]
        losses = []
        for rows in (ids, mixed):
            batch = OBJECTIVES[family](rows, tokenizer, torch.Generator().manual_seed(0))
            with torch.no_grad(): losses.append(token_loss(model, batch, batch.pop("labels")).item())
        assert losses[0] < losses[1] - 0.3 and losses[0] < math.log(8192) - 2, (family, losses)


def test_the_shipped_t5_reads_what_it_is_given():
    "Its decoder is surer of the gaps of its own text than of those of another."
    model, tokenizer = CLASSES["t5"].from_pretrained(shipped("models/tiny-t5"), dtype=torch.float32).eval(), load("tiny-t5", labels=["a", "b"])[1]
    ids = torch.tensor([i for t in load_data("reviews")["test"]["text"][:60] for i in tokenizer(t, add_special_tokens=False)["input_ids"]][:4 * LENGTH]).view(4, LENGTH)
    batch = fill_gaps(ids, tokenizer, torch.Generator().manual_seed(0))
    labels = batch.pop("labels")
    with torch.no_grad(): own, other = (token_loss(model, {**batch, "input_ids": given}, labels).item() for given in (batch["input_ids"], batch["input_ids"].roll(1, 0)))
    assert own < other - 0.2, (own, other)
