"""Where checkpoints come from: objectives, losses, the command, and what was shipped."""
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
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_loops import pretrain as pretrain_plainly
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

from course_lib import pretraining
from course_lib.data import load_data
from course_lib.errors import InputError
from course_lib.files import shipped
from course_lib.models import load
from course_lib.pretraining import (CLASSES, DROPOUT, GAPS, LENGTH, OBJECTIVES, SlicedCrossEntropy,
                                    distillation, draw_rows, fill_blanks, fill_gaps,
                                    family_tokenizer, held_out_rows, language, log_of, new_model,
                                    over_stream, partition, passages, perplexity, pretrain,
                                    pretraining_optimizer, read_texts, sentence_states,
                                    teacher_states, token_loss, wsd)
from course_lib.recipe import Settings
from course_lib.training import fit, predict_logits

FAMILIES = list(OBJECTIVES)
load_tokenizer = AutoTokenizer.from_pretrained
SHIPPED = [f"tiny-{f}" for f in FAMILIES]


@pytest.fixture(scope="module")
def tokenizers():
    folder = shipped("models/tiny-gpt2")
    return {f: family_tokenizer(AutoTokenizer.from_pretrained(folder), f) for f in FAMILIES}


@pytest.fixture(scope="module")
def random_models(tokenizers, tmp_path_factory):
    "A folder for each family with random weights."
    folders = {f: tmp_path_factory.mktemp(f) for f in FAMILIES}
    for f, folder in folders.items():
        new_model(f, tokenizers[f]).save_pretrained(folder)
        tokenizers[f].save_pretrained(folder)
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
    marks = set(tokenizer.convert_tokens_to_ids(GAPS))
    batch = fill_gaps(rows, tokenizer, rng)
    read, written, given = batch["input_ids"], batch["labels"], batch["decoder_input_ids"]
    for row, inputs, labels in zip(rows.tolist(), read.tolist(), written.tolist()):
        pieces = {}
        for token in labels[:-1]:
            if token in marks: here = pieces.setdefault(token, [])
            else: here.append(token)
        assert [x for t in inputs for x in pieces.get(t, [t])] == row
        assert labels[-1] == tokenizer.eos_token_id
    assert torch.equal(given[:, 1:], written[:, :-1])
    assert (given[:, 0] == tokenizer.pad_token_id).all()


def test_blanks_hide_nothing_else(tokenizers):
    rows = torch.randint(300, 8000, (64, LENGTH), generator=torch.Generator().manual_seed(0))
    batch = fill_blanks(rows, tokenizers["bert"], torch.Generator().manual_seed(1))
    kept, told = batch["labels"] == -100, batch["labels"] != -100
    for name, where in (("input_ids", kept[:, 1:]), ("labels", told[:, 1:])):
        assert torch.equal(batch[name][:, 1:][where], rows[:, :-1][where])
    assert 0.29 < told.float().mean() < 0.31


@pytest.mark.parametrize("n, size", [(1, 256), (5, 2), (700, 256), (512, 256)])
def test_sliced_cross_entropy_is_cross_entropy(n, size):
    torch.manual_seed(0)
    def drawn(*shape): return torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    states, weight, bias = drawn(n, 12), drawn(50, 12), drawn(50)
    labels = torch.randint(50, (n,))
    ours = SlicedCrossEntropy.apply(states, weight, bias, labels, True, size)
    theirs = cross_entropy(states @ weight.T + bias, labels)
    a, b = (torch.autograd.grad(3 * loss, (states, weight, bias)) for loss in (ours, theirs))
    assert abs(ours - theirs) < 1e-6
    assert all((x - y).norm() < 1e-6 * y.norm() for x, y in zip(a, b))


@pytest.mark.parametrize("family", FAMILIES)
def test_token_loss_is_the_models_own(family, tokenizers):
    model = new_model(family, tokenizers[family])
    rows = torch.randint(300, 8000, (2, LENGTH))
    batch = OBJECTIVES[family](rows, tokenizers[family], torch.Generator().manual_seed(0))
    with torch.no_grad():
        given = {**batch, "labels": rows} if family == "gpt2" else batch
        theirs = model(**given).loss
        ours = token_loss(model, batch, batch.pop("labels"))
    assert abs(ours - theirs) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
def test_the_distilled_state_is_the_one_a_classifier_reads(family, random_models):
    model, tokenizer = load(str(random_models[family]), labels=["a", "b"])
    body = CLASSES[family].from_pretrained(random_models[family], dtype=torch.float32).eval()
    texts = ["a film", "a much longer film than that one was"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        states, expected = sentence_states(body, **inputs), model(**inputs).logits
        if family == "gpt2": found = model.score(states)
        elif family == "bert": found = model.classifier(model.head(states))
        else: found = model.classification_head(states[:, None] * model.config.d_model**0.5)[:, 0]
    assert torch.allclose(found, expected, atol=1e-4)


def test_rows_depend_on_the_step_alone():
    stream = np.arange(40_000, dtype=np.uint16)
    per_epoch = (len(stream) - LENGTH) // LENGTH // 8
    assert torch.equal(draw_rows(stream, 8, 7), draw_rows(stream, 8, 7))
    assert not torch.equal(draw_rows(stream, 8, 0), draw_rows(stream, 8, per_epoch))
    seen = torch.cat([draw_rows(stream, 8, s) for s in range(per_epoch)])
    assert len(seen.flatten().unique()) == seen.numel() # no token twice in a pass
    assert ((seen[:, 1:] - seen[:, :-1]) == 1).all() # rows are runs of the stream


# --- the loop

def made_up_stream(n=12_000):
    rng = torch.Generator().manual_seed(3)
    return torch.randint(300, 8000, (n,), generator=rng).numpy().astype(np.uint16)


@pytest.mark.parametrize("family", FAMILIES)
def test_as_a_loop_for_pretraining_alone(family, tokenizers):
    "Losses and weights are those of a plain loop that knows nothing else, to the last bit."
    tokenizer, stream, steps = tokenizers[family], made_up_stream(), 10
    given = Settings(batch_size=4, learning_rate=1.5e-3, weight_decay=0.1, seed=2, bf16=False,
                     device="cpu")
    model, reference = (new_model(family, tokenizer) for _ in range(2))
    history = fit(model, over_stream(family, tokenizer, stream, steps), task=language,
                  settings=given, optimizer=pretraining_optimizer, schedule=wsd, progress=False)
    def draw(step):
        rows = draw_rows(stream, 4, step, seed=2)
        return OBJECTIVES[family](rows, tokenizer, torch.Generator().manual_seed(step))
    optimizer = pretraining_optimizer(reference, given)
    wanted = pretrain_plainly(reference, token_loss, draw, steps, optimizer, wsd(optimizer, steps))
    assert list(history["loss"]) == wanted
    assert list(history["tokens"]) == [4 * LENGTH * (i + 1) for i in range(steps)]
    start = new_model(family, tokenizer).state_dict()
    found = reference.state_dict()
    for name, p in model.named_parameters():
        assert torch.equal(p, found[name]) and not torch.equal(p, start[name]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_of_a_step_add_up(family, tokenizers):
    "Rows with unequal numbers of places to guess: one part, or parts of three rows and one."
    found = []
    for size, parts in ((6, 1), (3, 2)):
        plan = over_stream(family, tokenizers[family], made_up_stream(), 3)
        history = fit(new_model(family, tokenizers[family]), plan, task=language, batch_size=size,
                      gradient_accumulation_steps=parts, learning_rate=1e-4, bf16=False,
                      device="cpu", progress=False)
        found.append(history["loss"])
    assert (found[0] - found[1]).abs().max() < 2e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_perplexity_by_its_formula(family, tokenizers):
    "The exponential of the mean over all places that are to be guessed."
    model, tokenizer = new_model(family, tokenizers[family]).eval(), tokenizers[family]
    total, places = 0.0, 0
    for row in held_out_rows(family, tokenizer, made_up_stream(), rows=20):
        batch = {name: tensor[None] for name, tensor in row.items()}
        labels = batch.pop("labels")
        n = int((labels != -100).sum())
        with torch.no_grad(): total += token_loss(model, batch, labels).item() * n
        places += n
    found = perplexity(model, family, tokenizer, made_up_stream(), rows=20)
    assert math.isclose(found, math.exp(total / places), rel_tol=1e-5)


def test_a_log_is_made_of_means():
    steps = np.arange(1, 251)
    train = pd.DataFrame({"step": steps, "epoch": 1, "split": "train", "loss": 1 / steps,
                          "learning_rate": 1e-3, "tokens": 10 * steps, "seconds": 0.123 * steps,
                          "cosine_loss": steps / 1000})
    validation = pd.DataFrame({"step": [200, 250], "epoch": 1, "split": "validation",
                               "loss": [2.0, 1.0], "tokens": [2000, 2500]})
    history = pd.concat([train[:200], validation[:1], train[200:], validation[1:]])
    log = log_of(history.reset_index(drop=True))
    assert list(log.columns) == ["step", "tokens", "loss", "cosine_loss", "learning_rate",
                                 "seconds", "perplexity"]
    assert list(log["step"]) == [100, 200, 250] and list(log["tokens"]) == [1000, 2000, 2500]
    means = [(1 / part).mean() for part in np.split(steps, [100, 200])]
    assert log["loss"].tolist() == pytest.approx(means)
    assert log["cosine_loss"].tolist() == pytest.approx([0.0505, 0.1505, 0.2255])
    assert list(log["seconds"]) == [12.3, 24.6, 30.8]
    assert math.isnan(log["perplexity"][0]) and list(log["perplexity"][1:]) == [7.389, 2.718]
    assert "perplexity" not in log_of(train)


def test_only_the_same_stream_is_gone_on_with(tokenizers, tmp_path):
    stream, tokenizer = made_up_stream(), tokenizers["gpt2"]
    usual = {"task": language, "batch_size": 2, "checkpoint": tmp_path, "progress": False}
    fit(new_model("gpt2", tokenizer), over_stream("gpt2", tokenizer, stream, 2), **usual)
    for other in (over_stream("gpt2", tokenizer, stream, 3),
                  over_stream("gpt2", tokenizer, stream[1:], 2)):
        with pytest.raises(InputError, match="was begun on other rows"):
            fit(new_model("gpt2", tokenizer), other, resume=True, **usual)


def test_reading_a_corpus(tmp_path):
    (tmp_path / "lines.txt").write_text("One film.\n\nAnother film.\n")
    (tmp_path / "table.csv").write_text("id,review\n1,Fine.\n2,Dull.\n")
    paragraphs = ["A paragraph of\nsix words here now."] * 120 + ["Title"]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs))
    assert read_texts(tmp_path / "lines.txt") == ["One film.", "Another film."]
    assert read_texts(tmp_path / "table.csv") == ["Fine.", "Dull."]
    assert read_texts(tmp_path / "book.txt") == ["A paragraph of six words here now."] * 120
    (tmp_path / "bad.csv").write_text("id,stars\n1,2\n")
    with pytest.raises(InputError, match="bad.csv.*no text column"):
        read_texts(tmp_path / "bad.csv")


def test_passages():
    texts = ["One film, too long by far. It was not bad at all though! Why?", "Short."]
    assert all(5 <= len(p.split()) <= 60 for p in passages(texts))
    assert passages(texts) == passages(texts)


@pytest.fixture()
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    lines = shipped("unlabelled_reviews.txt").read_text().splitlines()
    path.write_text("\n".join(lines[:400]))
    return path


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
def test_pretrain_gives_a_model_that_loads_and_trains(family, corpus, tmp_path):
    out, usual = tmp_path / "m", {"tokens": 12 * 8 * LENGTH, "progress": False}
    log = pretrain([corpus], family, out, **usual)
    assert list(log.columns) == ["step", "tokens", "loss", "learning_rate", "seconds", "perplexity"]
    assert list(log["tokens"]) == [6 * 8 * LENGTH, 12 * 8 * LENGTH]
    files = {"config.json", "model.safetensors", "tokenizer.json", "log.csv", "recipe.json"}
    assert files <= {p.name for p in out.iterdir()} and not (out / "checkpoint").exists()
    model, tokenizer = load(str(out), labels=["a", "b"])
    assert getattr(model.config, DROPOUT[family][0]) == 0.1
    assert tokenizer("a film")["input_ids"][-1] == tokenizer.eos_token_id
    assert load_tokenizer(out).backend_tokenizer.truncation is None
    with pytest.raises(InputError, match="resume"): pretrain([corpus], family, out, **usual)
    with pytest.raises(InputError, match="tokens"):
        pretrain([corpus], family, out, **{**usual, "tokens": 13 * 8 * LENGTH}, resume=True)
    assert pretrain([corpus], family, out, **usual, resume=True).equals(log)


@pytest.mark.slow
def test_distilling_from_any_encoder(corpus, tmp_path):
    out, usual = tmp_path / "m", {"tokens": 10 * 8 * LENGTH, "progress": False}
    log = pretrain([corpus], "gpt2", out, teacher="tiny-gpt2", **usual)
    with pytest.raises(InputError, match="teacher"):
        pretrain([corpus], "gpt2", out, teacher="tiny-bert", **usual, resume=True)
    assert load_tokenizer(out).backend_tokenizer.truncation is None
    assert list(log.columns) == ["step", "tokens", "loss", "cosine_loss", "contrastive_loss",
                                 "language_model_loss", "learning_rate", "seconds", "perplexity"]
    assert (out / "log.csv").exists() and not (out / "plain" / "log_distil.csv").exists()
    plain, distilled = (load(str(f), labels=["a", "b"])[0] for f in (out / "plain", out))
    assert not torch.equal(plain.base_model.wte.weight, distilled.base_model.wte.weight)


@pytest.mark.slow
def test_a_distillation_that_was_cut_off_ends_the_same(corpus, tmp_path, monkeypatch):
    usual = {"teacher": "tiny-gpt2", "tokens": 2 * 8 * LENGTH, "progress": False}
    wanted = pretrain([corpus], "bert", tmp_path / "whole", **usual)
    def cut_off(history):
        if len(history) == 4: raise RuntimeError("cut off")
    def fit_for_a_while(*args, task, **settings):
        callbacks = [cut_off] if task is distillation else []
        return fit(*args, task=task, callbacks=callbacks, **settings)
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="cut off"):
        patched.setattr(pretraining, "fit", fit_for_a_while)
        pretrain([corpus], "bert", tmp_path / "cut", **usual)
    assert list((tmp_path / "cut/checkpoint/distil").glob("*-*.pt"))
    found = pretrain([corpus], "bert", tmp_path / "cut", **usual, resume=True)
    assert found.drop(columns="seconds").equals(wanted.drop(columns="seconds"))
    a, b = (tmp_path / name / "model.safetensors" for name in ("cut", "whole"))
    assert a.read_bytes() == b.read_bytes() and not (tmp_path / "cut/checkpoint").exists()


def test_teacher_states_do_not_depend_on_company():
    texts = ["A film.", "A much longer text about a film that nobody liked, and about its music."]
    both, alone = (teacher_states(t, "tiny-gpt2", progress=False) for t in (texts, texts[:1]))
    assert np.abs(both[0].astype(float) - alone[0]).max() < 0.02 and both.shape[1] == 2 * 192


@pytest.mark.slow
def test_killed_and_resumed_ends_the_same(corpus, tmp_path):
    "SIGKILL after the first checkpoint; the weights are those of a run that nobody disturbed."
    killed, tokens = tmp_path / "killed", str(24 * 8 * LENGTH)
    arguments = ["pretrain", "--corpus", str(corpus), "--family", "gpt2", "--tokens", tokens]
    command = [sys.executable, "-m", "course_lib", *arguments, "--out", str(killed)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running, deadline = subprocess.Popen(command, **quiet), time.time() + 300
    def begun(): return list((killed / "checkpoint").glob("*-*.pt"))
    while not begun() and running.poll() is None and time.time() < deadline: time.sleep(0.2)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert begun() and not (killed / "model.safetensors").exists()
    for out, *more in (["killed", "--resume"], ["whole"]):
        assert run_course(*arguments, "--out", tmp_path / out, *more).returncode == 0
    a, b = (tmp_path / name for name in ("killed", "whole"))
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
    assert len(pd.read_csv(a / "log.csv")) == len(pd.read_csv(b / "log.csv")) == 2


@pytest.mark.parametrize("arguments, words", [
    (["--corpus", "gone.txt", "--family", "gpt2"], ["gone.txt", "no such file"]),
    (["--corpus", "corpus.txt", "--family", "gpt3"], ["gpt3", "gpt2, bert, t5"]),
    (["--corpus", "small.txt", "--family", "gpt2"], ["too little"]),
    (["--corpus", "empty.txt", "--family", "bert"], ["empty.txt", "is empty"]),
    (["--corpus", "latin.txt", "--family", "bert"], ["latin.txt:1", "UTF-8"]),
    (["--corpus", "corpus.txt", "--family", "t5", "--tokens", "5"], ["--tokens"]),
    (["--corpus", "corpus.txt", "gone.txt", "--family", "gpt2"], ["gone.txt"]),
    (["--corpus", "corpus.txt", "--family", "gpt2", "--teacher", "./nowhere"], ["nowhere"]),
    (["--corpus", "corpus.txt", "--family", "gpt2", "--teacher", "minlm"], ["minlm"]),
    (["--corpus", "corpus.txt", "--family", "gpt2", "--out", "full"], ["full", "other things"])])
def test_bad_input_is_one_line(corpus, tmp_path, arguments, words):
    (tmp_path / "small.txt").write_bytes(b"A film.\n")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "latin.txt").write_bytes("café\n".encode("latin-1"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    done = run_course("pretrain", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "runs").exists() and (tmp_path / "full" / "thesis.txt").exists()


@pytest.mark.parametrize("changes, said", [
    ({"family": "gpt3"}, "^family 'gpt3' – is not known"), ({"corpus": []}, "^corpus – no file"),
    ({"tokens": 5}, "^tokens=5 – is not between"),
    ({"teacher": "tiny-t5"}, "^teacher tiny-t5 – is an encoder-decoder")])
def test_what_would_mislead_is_refused(corpus, tmp_path, changes, said):
    given = {"corpus": [corpus], "family": "gpt2", "tokens": 10_000, **changes}
    with pytest.raises(InputError, match=said) as e: pretrain(out=tmp_path / "m", **given)
    assert "--" not in str(e.value) and not (tmp_path / "m").exists()


# --- what is shipped

@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_checkpoints(name):
    folder = shipped(f"models/{name}")
    model, tokenizer = load(name, labels=["negative", "positive"])
    assert 2.5e6 <= model.num_parameters() <= 4e6 and len(tokenizer) == 8192
    assert (folder / "model.safetensors").stat().st_size <= 8e6
    log = pd.read_csv(folder / "log.csv")
    assert log["tokens"].iloc[-1] >= 29.9e6
    assert {"tokens", "loss", "learning_rate", "seconds", "perplexity"} <= set(log.columns)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{log['perplexity'].iloc[-1]:.1f}" in card and "CC BY 4.0" in card
    distilled = (folder / "log_distil.csv").exists()
    assert ("all-MiniLM-L6-v2" in card) == distilled != ("Not distilled" in card)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_model_cards_are_up_to_date(name):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
    from model_card import card
    written = (shipped(f"models/{name}") / "README.md").read_text(encoding="utf-8")
    assert written == card(name.removeprefix("tiny-")), "run: python scripts/model_card.py"


def test_shipped_checkpoints_share_vocabulary_and_corpus():
    files = [shipped(f"models/{name}/tokenizer.json") for name in SHIPPED]
    found = [json.loads(file.read_text()) for file in files]
    assert all(t["model"] == found[0]["model"] and t["truncation"] is None for t in found)
    tokens = [pd.read_csv(shipped(f"models/{n}/log.csv"))["tokens"].iloc[-1] for n in SHIPPED]
    sizes = [load(n, labels=["a", "b"])[0].num_parameters() for n in SHIPPED]
    assert max(tokens) - min(tokens) < 0.01 * max(tokens) and max(sizes) < 1.2 * min(sizes)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_score_does_not_depend_on_padding(name):
    model, tokenizer = load(name, labels=["a", "b"])
    texts = load_data("reviews")["validation"]["text"][:40]
    rows = Dataset.from_dict({"input_ids": tokenizer(texts)["input_ids"]})
    together, alone = (predict_logits(model, rows, size) for size in (40, 1))
    assert torch.allclose(together, alone, atol=1e-4)


def as_pretrained(family):
    "The shipped model of a family with its pre-training head, its tokenizer, and some rows."
    name = f"tiny-{family}"
    model = CLASSES[family].from_pretrained(shipped(f"models/{name}"), dtype=torch.float32).eval()
    _, tokenizer = load(name, labels=["a", "b"])
    texts = load_data("reviews")["test"]["text"][:60]
    ids = [i for row in tokenizer(texts, add_special_tokens=False)["input_ids"] for i in row]
    return model, tokenizer, torch.tensor(ids[:4 * LENGTH]).view(4, LENGTH)


def test_shipped_weights_know_english():
    "Word order matters to them: a shuffled text is harder."
    for name in SHIPPED:
        family = name.removeprefix("tiny-")
        model, tokenizer, ids = as_pretrained(family)
        mixed = ids[:, torch.randperm(LENGTH, generator=torch.Generator().manual_seed(0))]
        losses = []
        for rows in (ids, mixed):
            batch = OBJECTIVES[family](rows, tokenizer, torch.Generator().manual_seed(0))
            labels = batch.pop("labels")
            with torch.no_grad(): losses.append(token_loss(model, batch, labels).item())
        assert losses[0] < losses[1] - 0.3 and losses[0] < math.log(8192) - 2, (family, losses)


def test_the_shipped_t5_reads_what_it_is_given():
    "Its decoder is surer of the gaps of its own text than of those of another."
    model, tokenizer, ids = as_pretrained("t5")
    batch = fill_gaps(ids, tokenizer, torch.Generator().manual_seed(0))
    labels, read = batch.pop("labels"), batch.pop("input_ids")
    losses = []
    for text in (read, read.roll(1, 0)):
        batch["input_ids"] = text
        with torch.no_grad(): losses.append(token_loss(model, batch, labels).item())
    assert losses[0] < losses[1] - 0.2, losses
