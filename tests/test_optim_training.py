"""The step, the loop, and what survives a cut."""
import copy
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import get_scheduler

from course_lib import training
from course_lib.data import load_data
from course_lib.errors import InputError
from course_lib.models import load
from course_lib.optim import (SCHEDULES, AdamW, clip_grad_norm, make_schedule, parameter_groups,
                              schedule_factor)
from course_lib.tokens import batches, epoch_order, pad_batch, tokenize
from course_lib.training import (TaskLoss, classification, csv_logger, early_stopping, fit,
                                 live_plot, plot_history, predict_logits, tensorboard_logger,
                                 training_step)

OPTIONS = dict(epochs=2, batch_size=8, learning_rate=5e-4, progress=False)


@pytest.fixture(scope="module")
def base():
    splits = load_data("reviews")
    model, tokenizer = load("tiny-gpt2", labels=splits["train"].features["label"].names)
    tokens = tokenize(splits, tokenizer, 32)
    return model, tokens["train"].select(range(96)), tokens["validation"].select(range(40))


def pairs(a, b): return zip(a.parameters(), b.parameters())
def apart(a, b): return max((p - q).abs().max().item() for p, q in pairs(a, b))


def same(a, b):
    first, second = a.state_dict(), b.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def far(a, b):
    "How many weights differ; one whose gradient is rounding may go either way."
    return sum(int(((p - q).abs() > 1e-4).sum()) for p, q in pairs(a, b))


def forget_key_biases(model):
    """They cancel in the softmax, and change no logit.

    Their gradient is nothing but rounding, which Adam makes as large as any other."""
    width = model.config.n_embd
    for block in model.transformer.h: block.attn.c_attn.bias.data[width:2 * width] = 0
    return model


OTHER = dict(lr=2e-4, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)


@pytest.mark.parametrize("settings, steps", [(dict(lr=5e-4), 1000), (OTHER, 200)])
@pytest.mark.slow
def test_adamw_equals_torch_on_a_real_model(base, settings, steps):
    """Both kinds of torch's, on the same gradients; one of the layers will do.

    Fused kernels round in another order, and a free run would amplify that."""
    model, train = copy.deepcopy(base[0]), base[1]
    del model.transformer.h[1:]
    ours, plain, fused = (copy.deepcopy(model) for _ in range(3))
    optimizers = [AdamW(ours.parameters(), **settings),
                  torch.optim.AdamW(plain.parameters(), **settings, foreach=False),
                  torch.optim.AdamW(fused.parameters(), **settings, fused=True)]
    rows = [r for e in range(21) for r in batches(epoch_order(len(train), 0, e), 2)][:steps]
    for r in rows:
        TaskLoss(ours, classification)("task", [train[i] for i in r])[0].backward()
        for p, *others in zip(ours.parameters(), plain.parameters(), fused.parameters()):
            for q in others: q.grad = p.grad.clone()
        for o in optimizers:
            o.step()
            o.zero_grad()
    assert len(rows) == steps and apart(ours, model) > 1e-2
    for theirs in (plain, fused): assert apart(ours, theirs) <= 1e-6


def test_adamw_keeps_its_state_through_a_checkpoint(base):
    weight = torch.nn.Parameter(torch.ones(3))
    first = AdamW([weight], lr=0.1)
    for _ in range(3):
        weight.grad = torch.tensor([1.0, -2.0, 3.0])
        first.step()
    twin = torch.nn.Parameter(weight.detach().clone())
    second = AdamW([twin], lr=0.1)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for o, w in ((first, weight), (second, twin)):
        w.grad = torch.ones(3)
        o.step()
    assert torch.equal(weight, twin)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("steps, warmup", [(50, 0), (50, 5), (7, 7), (1, 0)])
def test_schedules_equal_transformers(kind, steps, warmup):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizers = [torch.optim.SGD([weight], lr=0.3) for _ in range(2)]
    ours = make_schedule(optimizers[0], steps, warmup, kind)
    theirs = get_scheduler(kind, optimizers[1], warmup, steps)
    for _ in range(steps):
        assert math.isclose(ours.get_last_lr()[0], theirs.get_last_lr()[0], abs_tol=1e-12)
        for o, s in zip(optimizers, (ours, theirs)):
            o.step()
            s.step()


def test_an_unknown_schedule():
    with pytest.raises(ValueError, match="none of linear, cosine"):
        schedule_factor(0, 10, lr_scheduler_type="spiral")


def test_decay_groups_equal_those_of_trainer(base):
    from transformers.trainer import Trainer
    decays = set(Trainer.get_decay_parameter_names(None, base[0]))
    ours = {id(p) for p in parameter_groups(base[0], 0.1)[0]["params"]}
    assert {n for n, p in base[0].named_parameters() if id(p) in ours} == decays


def test_clipping_equals_torch(base):
    for limit in (0.1, 1e6):
        weights = [torch.nn.Parameter(torch.zeros(5, 3)), torch.nn.Parameter(torch.zeros(2))]
        for w in weights: w.grad = torch.randn_like(w, dtype=torch.float32)
        twins = [torch.nn.Parameter(torch.zeros_like(w)) for w in weights]
        for w, t in zip(weights, twins): t.grad = w.grad.clone()
        theirs = torch.nn.utils.clip_grad_norm_(twins, limit)
        assert torch.isclose(clip_grad_norm(weights, limit), theirs)
        assert all(torch.allclose(w.grad, t.grad) for w, t in zip(weights, twins))


def test_gradients_of_the_step_equal_a_plain_reference(base):
    model, train, _ = base
    ours, plain = copy.deepcopy(model), copy.deepcopy(model)
    batch = pad_batch([train[i] for i in range(8)], model.config.pad_token_id)
    still = torch.optim.SGD(ours.parameters(), lr=0.0)
    loss = training_step(
        ours, [ours(**batch).loss], still, make_schedule(still, 5), max_grad_norm=None
    )
    total = 0
    for i in range(8):  # one review at a time, no padding at all
        z = plain(input_ids=torch.tensor([train[i]["input_ids"]])).logits[0]
        total = total - z.log_softmax(-1)[train[i]["labels"]] / 8
    total.backward()
    errors = [(p.grad - q.grad).norm() / (q.grad.norm() + 1e-8) for p, q in pairs(ours, plain)]
    worst = max(errors).item()
    assert abs(loss - total.item()) < 1e-5 and worst < 1e-4


def test_the_loop_equals_a_loop_written_out(base):
    """fit, with dropout off, against the twelve lines with torch's own parts; every loss and the
    final weights."""
    model, train, _ = base
    ours, plain = copy.deepcopy(model), copy.deepcopy(model)
    for m in (ours, plain):
        for d in m.modules():
            if isinstance(d, torch.nn.Dropout): d.p = 0.0
    history = fit(ours, train, **OPTIONS, weight_decay=0.1, warmup_ratio=0.25, bf16=False)
    matrices = [p for p in plain.parameters() if p.ndim > 1]
    others = [p for p in plain.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer, losses = torch.optim.AdamW(groups, lr=5e-4, fused=True), []
    schedule = get_scheduler("linear", optimizer, 6, 24)
    plain.train()
    for epoch in range(2):
        for rows in batches(epoch_order(len(train), 0, epoch), 8):
            loss = plain(**pad_batch([train[i] for i in rows], model.config.pad_token_id)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert np.allclose(history["loss"], losses, atol=1e-5)
    assert far(forget_key_biases(ours), forget_key_biases(plain)) < 10


def test_same_seed_same_weights(base):
    runs = [copy.deepcopy(base[0]) for _ in range(3)]
    for m, seed in zip(runs, (0, 0, 1)):
        torch.randn(7)
        fit(m, base[1], seed=seed, **OPTIONS)
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2])


def test_fit_leaves_the_callers_random_numbers_alone(base):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    fit(copy.deepcopy(base[0]), base[1].select(range(8)), **OPTIONS)
    assert torch.equal(before, torch.get_rng_state())


def unplug_after(validations):
    "A callback that ends a run in the middle of an epoch's end, as a closed lid would."
    seen = []
    def callback(history):
        if history[-1]["split"] == "validation": seen.append(1)
        if len(seen) > validations: raise KeyboardInterrupt
    return callback


def cut_off(base, folder, cut_after=2, **more):
    "A run that is cut off after some epochs; the options it had."
    options = {**OPTIONS, "epochs": 3, **more}
    callbacks = [unplug_after(cut_after)]
    with pytest.raises(KeyboardInterrupt):
        fit(copy.deepcopy(base[0]), *base[1:], callbacks=callbacks, checkpoint=folder, **options)
    return options


def steps_in(folder): return [int(p.name.split("-")[0]) for p in sorted(folder.glob("*.pt"))]


@pytest.mark.parametrize("cut_after", [0, 1, 2])
def test_resumed_equals_uncut(base, tmp_path, cut_after):
    whole, second = copy.deepcopy(base[0]), copy.deepcopy(base[0])
    options = cut_off(base, tmp_path, cut_after)
    assert steps_in(tmp_path)[-1] < 12 * (cut_after + 1)
    uncut = fit(whole, *base[1:], **options)
    rest = fit(second, *base[1:], checkpoint=tmp_path, resume=True, **options)
    assert same(whole, second)
    assert all(uncut[name].tolist() == rest[name].tolist() for name in ("loss", "step", "tokens"))
    assert (
        steps_in(tmp_path)[-1] == 36 and len(list(tmp_path.iterdir())) == 2
    ), "nothing half-written"


def test_resuming_where_nothing_was_begun(base, tmp_path):
    a, b = copy.deepcopy(base[0]), copy.deepcopy(base[0])
    fit(a, base[1], **OPTIONS)
    fit(b, base[1], checkpoint=tmp_path, resume=True, **OPTIONS)
    assert same(a, b)


@pytest.mark.slow
def test_killed_at_random_moments():
    "A short version of the script, which does the same more often."
    script = Path(__file__).with_name("kill_and_resume.py")
    done = subprocess.run([sys.executable, script, "--runs", "3"], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0 and done.stdout.count("to the bit") == 3, done.stderr


def test_a_checkpoint_costs_at_most_a_twentieth(base, tmp_path, monkeypatch):
    """Written at once, to learn what it costs; then when twenty times that has passed; and at each
    end."""
    now, seconds = [0.0], {"a step": 1.0, "a checkpoint": 0.19}
    monkeypatch.setattr("course_lib.training.time.perf_counter", lambda: now[0])
    written, real_save, real_step = [], training.save_checkpoint, training.training_step
    def save(folder, model, optimizer, schedule, progress, best):
        now[0] += seconds["a checkpoint"]
        written.append(progress["step"])
        real_save(folder, model, optimizer, schedule, progress, best)
    def step(*arguments):
        now[0] += seconds["a step"]
        return real_step(*arguments)
    monkeypatch.setattr(training, "save_checkpoint", save)
    monkeypatch.setattr(training, "training_step", step)
    fit(copy.deepcopy(base[0]), *base[1:], checkpoint=tmp_path, **OPTIONS)
    assert written == [1, 5, 9, 12, 16, 20, 24]


def halve(raw): return raw[:-100]
def flip(raw): return raw[:500] + bytes([raw[500] ^ 1]) + raw[501:]
def empty(raw): return b""


@pytest.mark.parametrize("damage", [halve, flip, empty])
def test_a_damaged_checkpoint(base, tmp_path, capsys, damage):
    "The one before it is used, with a message, and the run still ends with the same weights."
    options = cut_off(base, tmp_path)
    whole, resumed = copy.deepcopy(base[0]), copy.deepcopy(base[0])
    newest = max(tmp_path.glob("*.pt"))
    newest.write_bytes(damage(newest.read_bytes()))
    fit(whole, *base[1:], **options)
    fit(resumed, *base[1:], checkpoint=tmp_path, resume=True, **options)
    said = capsys.readouterr().err
    assert "is damaged, the checkpoint before it is used" in said and same(whole, resumed)


def test_all_checkpoints_damaged(base, tmp_path):
    options = cut_off(base, tmp_path)
    for path in tmp_path.glob("*.pt"): path.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="all checkpoints are damaged"):
        fit(copy.deepcopy(base[0]), *base[1:], checkpoint=tmp_path, resume=True, **options)


OTHERS = [dict(learning_rate=1e-4), dict(seed=5), dict(batch_size=4), dict(bf16=True),
          dict(bf16=False), dict(weight_decay=0.3), dict(load_best_model_at_end=False)]


@pytest.mark.parametrize("other", OTHERS)
def test_resuming_with_other_settings(base, tmp_path, other):
    options = cut_off(base, tmp_path, 1, bf16=not other.get("bf16", True))
    with pytest.raises(InputError, match=f"was begun with {next(iter(other))}"):
        changed = {**options, **other}
        fit(copy.deepcopy(base[0]), *base[1:], checkpoint=tmp_path, resume=True, **changed)


def test_a_full_disk(base, tmp_path, monkeypatch):
    "One line that says what to do; the checkpoint before it stays, nothing half-written does."
    real, written = torch.save, []
    def save(state, path):
        written.append(path)
        if len(written) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(state, path)
    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(InputError, match="No space left.*resume=True"):
        fit(copy.deepcopy(base[0]), *base[1:], checkpoint=tmp_path, **OPTIONS)
    assert len(list(tmp_path.iterdir())) == len(steps_in(tmp_path)) == 1
    monkeypatch.undo()
    resumed, whole = copy.deepcopy(base[0]), copy.deepcopy(base[0])
    fit(resumed, *base[1:], checkpoint=tmp_path, resume=True, **OPTIONS)
    fit(whole, *base[1:], **OPTIONS)
    assert same(resumed, whole)


@pytest.fixture
def heeds_ctrl_c():
    """In a job that a shell put into the background Ctrl-C is ignored, and `fit` leaves it so; here
    it shall count."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


def test_ctrl_c_finishes_the_step_and_saves_it(base, tmp_path, heeds_ctrl_c):
    def press(history):
        if len(history) == 5: os.kill(os.getpid(), signal.SIGINT)
    resumed, whole = copy.deepcopy(base[0]), copy.deepcopy(base[0])
    with pytest.raises(KeyboardInterrupt):
        fit(copy.deepcopy(base[0]), *base[1:], checkpoint=tmp_path, callbacks=[press], **OPTIONS)
    assert steps_in(tmp_path)[-1] == 5
    fit(resumed, *base[1:], checkpoint=tmp_path, resume=True, **OPTIONS)
    fit(whole, *base[1:], **OPTIONS)
    assert same(resumed, whole) and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_loss_that_is_no_number_says_so_and_leaves_the_last_good_state(base, tmp_path):
    model = copy.deepcopy(base[0])
    def spoil(history):
        if history[-1]["step"] == 9: model.score.weight.data.fill_(math.inf)
    before_it = dict(checkpoint=tmp_path, callbacks=[spoil], **OPTIONS)
    with pytest.raises(InputError, match=r"step 10 – the loss is .* take a smaller learning_rate"):
        fit(model, base[1], **before_it)
    states = [torch.load(p, weights_only=True) for p in tmp_path.glob("*.pt")]
    assert states and all(state["progress"]["step"] <= 9 for state in states)


def test_a_first_loss_that_is_no_number_is_not_the_learning_rates_fault(base):
    model = copy.deepcopy(base[0])
    model.score.weight.data.fill_(math.nan)
    with pytest.raises(InputError, match="step 1 – the loss is nan – nothing was trained") as e:
        fit(model, base[1], **OPTIONS)
    assert "learning_rate" not in str(e.value)


def test_accumulated_gradients_are_those_of_the_whole_batch(base):
    "Also where the last part and the last step are shorter: 90 rows in steps of 16, in parts of 5."
    models = [copy.deepcopy(base[0]) for _ in range(2)]
    for layer in [*models[0].modules(), *models[1].modules()]:
        if isinstance(layer, torch.nn.Dropout): layer.p = 0.0
    train, settings = base[1].select(range(90)), {**OPTIONS, "bf16": False}
    whole = fit(models[0], train, **{**settings, "batch_size": 15})
    parts = fit(models[1], train, **{**settings, "batch_size": 5}, gradient_accumulation_steps=3)
    assert np.allclose(whole["loss"], parts["loss"], atol=1e-4)
    assert apart(*map(forget_key_biases, models)) < 1e-3
    small = fit(copy.deepcopy(base[0]), train, **{**settings, "batch_size": 5})
    assert not np.allclose(small["loss"][:12], whole["loss"], atol=1e-4)


def test_early_stopping_looks_at_the_history_alone():
    def rows(*losses): return [{"split": "validation", "loss": l, "accuracy": -l} for l in losses]
    twice = early_stopping(2)
    assert not twice(rows(3, 2, 2.5)) and twice(rows(3, 2, 2.5, 2.1))
    assert not twice(rows(3, 2, 2.5, 1.9)) and not twice([{"split": "train", "loss": 1}])
    by_accuracy = early_stopping(1, "accuracy", greater_is_better=True)
    assert by_accuracy(rows(3, 2, 2.5)) and not by_accuracy(rows(3, 2))


def test_a_stopped_run_stays_stopped(base, tmp_path):
    def stop(history): return len(history) == 7
    first, again = copy.deepcopy(base[0]), copy.deepcopy(base[0])
    options = dict(checkpoint=tmp_path, callbacks=[stop], **OPTIONS)
    a = fit(first, *base[1:], **options)
    b = fit(again, *base[1:], resume=True, **options)
    assert len(a) == len(b) == 7 and same(first, again)


def test_loggers(base, tmp_path, monkeypatch):
    seen, shown = [], []
    class Writer:
        def __init__(self, folder): pass
        def add_scalar(self, name, value, step):
            seen.append((name, step))
            float(value)
        def flush(self): pass
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", type(sys)("fake"))
    with pytest.raises(InputError, match="pip install tensorboard"):
        tensorboard_logger(tmp_path)
    sys.modules["torch.utils.tensorboard"].SummaryWriter = Writer
    class Handle:
        def update(self, picture): shown.append(picture)
    def display(picture, display_id):
        shown.append(picture)
        return Handle()
    monkeypatch.setattr("IPython.display.display", display)
    callbacks = [tensorboard_logger(tmp_path), csv_logger(tmp_path / "h.csv"), live_plot(2)]
    history = fit(copy.deepcopy(base[0]), *base[1:], callbacks=callbacks, **OPTIONS)
    names = {name for name, _ in seen}
    assert {"train/loss", "validation/loss", "train/learning_rate"} <= names
    assert max(step for _, step in seen) == 24
    written = pd.read_csv(tmp_path / "h.csv")["loss"].round(6).tolist()
    assert written == history["loss"].round(6).tolist()
    assert len(shown) == 2
    assert all(p.data[:4] == b"\x89PNG" and "Training loss" in p.alt for p in shown)


def test_predictions_depend_on_nothing_but_the_text(base):
    model, _, validation = base
    reference = predict_logits(model, validation, 1)
    order = torch.randperm(len(validation), generator=torch.Generator().manual_seed(0)).tolist()
    mixed = predict_logits(model, validation.select(order), 64)
    assert torch.allclose(reference, predict_logits(model, validation, 17), atol=1e-5)
    assert torch.allclose(reference[order], mixed, atol=1e-5)
    in_training = predict_logits(model.train(), validation)
    assert torch.equal(in_training, predict_logits(model.eval(), validation)), "dropout must be off"


def test_history(base):
    history = fit(copy.deepcopy(base[0]), base[1], base[2], **OPTIONS)
    columns = ["step", "epoch", "split", "loss", "learning_rate", "tokens", "seconds"]
    assert list(history.columns) == columns
    train, validation = (history[history["split"] == s] for s in ("train", "validation"))
    assert train["step"].tolist() == list(range(1, 25)) and validation["step"].tolist() == [12, 24]
    assert train["tokens"].iloc[-1] == 2 * sum(len(i) for i in base[1]["input_ids"])
    assert train["learning_rate"].iloc[0] == 0


def test_the_plot_of_a_history(base):
    history = fit(copy.deepcopy(base[0]), base[1], base[2], **OPTIONS)
    longer = pd.concat([history.assign(step=history["step"] + 24 * i) for i in range(3)])
    longer.attrs = history.attrs
    for table, lines in (history, 4), (longer, 5): # a running mean needs enough steps
        axes = plot_history(table, 2).axes[0]
        assert axes.get_xlabel() and "nats" in axes.get_ylabel() and len(axes.get_lines()) == lines
    assert "kept" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_label_without_an_output_is_found_before_the_first_step(base):
    rows = base[1].select(range(8)).to_list()
    rows[3]["labels"] = 2
    with pytest.raises(InputError, match="label 2 – the model has 2 outputs"):
        fit(copy.deepcopy(base[0]), rows, **OPTIONS)
    with pytest.raises(InputError, match="no rows"): fit(copy.deepcopy(base[0]), [], **OPTIONS)


def test_a_device_that_is_not_there(base):
    with pytest.raises(InputError, match="can't be used here"):
        fit(copy.deepcopy(base[0]), base[1], device="nonsense", **OPTIONS)
