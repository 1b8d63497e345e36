"""One loop for every task: equal to the plain loops it replaces, to `Trainer`, padded or not; whole
at every moment; resumed to the bit."""
import copy
import itertools
import math

import pytest
import reference_loops
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import (AutoModelForCausalLM, AutoModelForQuestionAnswering,
                          AutoModelForSeq2SeqLM, AutoModelForSequenceClassification,
                          AutoModelForTokenClassification, BertConfig, GPT2Config, LlamaConfig,
                          T5Config, Trainer, TrainingArguments)

from course_lib.errors import InputError
from course_lib.models import load
from course_lib.packed import read, unpadded
from course_lib.recipe import Settings
from course_lib.tokens import batches, epoch_order, pad_batch
from course_lib.training import (Plan, Task, TaskLoss, classification, early_stopping, fit,
                                 mean_loss, over_rows, predict_logits, weighted_losses)

TINY = {"vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
SHAPE = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
         "intermediate_size": 64, "max_position_embeddings": 64}
CONFIGS = {
    "gpt2": GPT2Config(n_layer=2, n_embd=32, n_head=4, n_positions=64, **TINY),
    "bert": BertConfig(**SHAPE, **TINY),
    "llama": LlamaConfig(num_key_value_heads=2, **SHAPE, **TINY),
    "t5": T5Config(
        num_layers=2, num_decoder_layers=2, d_model=32, d_ff=64, d_kv=8, num_heads=4,
        decoder_start_token_id=0, **{k: v for k, v in TINY.items() if k != "bos_token_id"},
    ),
}
USUAL = {"learning_rate": 1e-3, "bf16": False, "device": "cpu", "progress": False}


# four tasks beside classification, as later chapters will have them

def on(model, batch): return {k: v.to(model.device) for k, v in batch.items()}


def with_labels(model, rows):
    "Padded ids, and labels padded with -100."
    batch = pad_batch([{"input_ids": r["input_ids"]} for r in rows], model.config.pad_token_id)
    longest = max(len(r["labels"]) for r in rows)
    padded = [list(r["labels"]) + [-100] * (longest - len(r["labels"])) for r in rows]
    return on(model, {**batch, "labels": torch.tensor(padded)})


def over_targets(logits, labels):
    return cross_entropy(logits.float().flatten(0, 1), labels.flatten())
def targets(row): return sum(label != -100 for label in row["labels"])
def tag_loss(model, batch): return over_targets(read(model, batch).logits, batch["labels"]), {}


def next_loss(model, batch):
    return over_targets(read(model, batch).logits[:, :-1], batch["labels"][:, 1:]), {}


def with_spans(model, rows):
    batch = pad_batch([{"input_ids": r["input_ids"]} for r in rows], model.config.pad_token_id)
    ends = {name: torch.tensor([r[name] for r in rows]) for name in ("start", "end")}
    return on(model, {**batch, **ends})


def span_loss(model, batch):
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    out, hidden = read(model, inputs), batch["attention_mask"] == 0
    losses = [cross_entropy(scores.masked_fill(hidden, -math.inf), batch[name])
              for scores, name in ((out.start_logits, "start"), (out.end_logits, "end"))]
    return sum(losses) / 2, {}


def with_decoder(model, rows):
    batch = with_labels(model, rows)
    written = batch["labels"].clamp(min=0)
    start = torch.full_like(written[:, :1], model.config.decoder_start_token_id)
    return {**batch, "decoder_input_ids": torch.cat([start, written[:, :-1]], 1)}


TASKS = {
    "classes": (classification, AutoModelForSequenceClassification),
    "tags": (Task("token-classification", tag_loss, with_labels, targets),
             AutoModelForTokenClassification),
    "next": (Task("text-generation", next_loss, with_labels, targets), AutoModelForCausalLM),
    "spans": (Task("question-answering", span_loss, with_spans), AutoModelForQuestionAnswering),
    "sequences": (Task("summarization", tag_loss, with_decoder, targets), AutoModelForSeq2SeqLM),
}
FAMILIES = {"classes": ("gpt2", "bert", "llama", "t5"), "tags": ("gpt2", "bert", "llama"),
            "next": ("gpt2", "llama"), "spans": ("gpt2", "bert", "llama"), "sequences": ("t5",)}
CASES = [(task, family) for task, families in FAMILIES.items() for family in families]


def rows_of(task, n=24, seed=0):
    "Texts of 3 to 20 tokens, with as many targets as the task has."
    rng = torch.Generator().manual_seed(seed)
    def draw(low, high, n=1): return torch.randint(low, high, (n,), generator=rng).tolist()
    rows = []
    for i in range(n):
        length = draw(3, 20)[0]
        row = {"input_ids": [*draw(2, 99, length - 1), 1]}
        if task == "classes": row["labels"] = i % 3
        if task == "tags":
            row["labels"] = [l if k % 2 else -100 for k, l in enumerate(draw(0, 3, length))]
        if task == "next": row["labels"] = [-100, *row["input_ids"][1:]]
        if task == "spans": row.update(zip(("start", "end"), sorted(draw(0, length, 2))))
        if task == "sequences": row["labels"] = draw(2, 99, draw(1, 9)[0])
        rows.append(row)
    return rows


def new(task, family, dropout=0.0):
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIGS[family])
    config.num_labels = 2 if task == "spans" else 3
    model = TASKS[task][1].from_config(config)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout): layer.p = dropout
    for name in ("attention_dropout", "attn_pdrop", "dropout"):
        for part in model.modules():
            if isinstance(getattr(part, name, None), float): setattr(part, name, dropout)
    return model


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values()))
def train_losses(history): return history.loc[history["split"] == "train", "loss"].tolist()


# equal to what it replaces, to Trainer, with and without padding

@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-bert", "tiny-t5"])
def test_the_plain_loop_to_the_last_bit(name):
    base, _ = load(name, labels=["a", "b", "c"])
    ours, plain = copy.deepcopy(base), copy.deepcopy(base)
    rows = rows_of("classes", 44)
    for row in rows: row["input_ids"][-1] = 0 # the end token of the shipped models
    wanted = reference_loops.classify(plain, rows, 2, 8, 2, 1e-3)
    settings = {**USUAL, "epochs": 2, "batch_size": 8, "gradient_accumulation_steps": 2}
    history = fit(ours, rows, rows[:10], load_best_model_at_end=False, **settings)
    assert train_losses(history) == wanted and same(ours, plain) and not same(ours, base)


class Order:
    "The batches of `fit`, as a sampler."
    def __init__(self, n, size):
        self.n, self.size = n, size
        self.epochs = itertools.count()

    def __len__(self): return math.ceil(self.n / self.size)
    def __iter__(self): return iter(batches(epoch_order(self.n, 0, next(self.epochs)), self.size))


class SameBatches(Trainer):
    def get_train_dataloader(self):
        order = Order(len(self.train_dataset), self.args.per_device_train_batch_size)
        return DataLoader(self.train_dataset, batch_sampler=order, collate_fn=self.data_collator)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.parts = [*getattr(self, "parts", []), loss.item()]
        return loss


def arguments_for(folder):
    "Two epochs, three batches of four a step."
    return TrainingArguments(
        folder, num_train_epochs=2, per_device_train_batch_size=4, gradient_accumulation_steps=3,
        learning_rate=1e-3, weight_decay=0.1, warmup_steps=1, max_grad_norm=1.0,
        save_strategy="no", remove_unused_columns=False, disable_tqdm=True, use_cpu=True)


def sum_over_targets(shift):
    "What Trainer is to compute: the sum over a part's targets, divided by those of the whole step."
    def loss(outputs, labels, num_items_in_batch=None):
        logits = outputs.logits[:, :-1] if shift else outputs.logits
        labels = labels[:, 1:] if shift else labels
        total = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        return total / num_items_in_batch
    return loss


@pytest.mark.parametrize(
    "task, family", [c for c in CASES if c[0] in ("tags", "next", "sequences")]
)
def test_trainer_with_parts_of_unequal_targets(tmp_path, task, family):
    "Three batches of four a step, two epochs; every loss and the weights."
    rows, (made, _) = rows_of(task), TASKS[task]
    ours, theirs = new(task, family), new(task, family)
    settings = {**USUAL, "epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 3}
    history = fit(ours, rows, task=made, weight_decay=0.1, warmup_ratio=0.25, **settings)
    trainer = SameBatches(theirs, arguments_for(tmp_path), train_dataset=rows,
                          data_collator=lambda part: made.collate(theirs, part),
                          compute_loss_func=sum_over_targets(task == "next"))
    trainer.train()
    wanted = torch.tensor(trainer.parts).view(-1, 3).sum(1)
    assert len(history) == 4
    assert torch.allclose(torch.tensor(train_losses(history)), wanted, atol=1e-5)
    weights = zip(ours.parameters(), theirs.parameters())
    assert sum(int(((p - q).abs() > 1e-4).sum()) for p, q in weights) < 40


class SpanTrainer(SameBatches):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        out = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        outside = inputs["attention_mask"] == 0
        start, end = (z.masked_fill(outside, -1e9) for z in (out.start_logits, out.end_logits))
        return (cross_entropy(start, inputs["start"]) + cross_entropy(end, inputs["end"])) / 2


@pytest.mark.parametrize("family", FAMILIES["spans"])
def test_trainer_on_answer_spans(tmp_path, family):
    "An answer is one target whatever its length, so the parts of a step weigh the same."
    rows, (made, _) = rows_of("spans"), TASKS["spans"]
    ours, theirs = new("spans", family), new("spans", family)
    theirs.accepts_loss_kwargs = False # else Trainer believes that the loss divides by all parts
    settings = {**USUAL, "epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 3}
    history = fit(ours, rows, task=made, weight_decay=0.1, warmup_ratio=0.25, **settings)
    trainer = SpanTrainer(theirs, arguments_for(tmp_path), train_dataset=rows,
                          data_collator=lambda part: made.collate(theirs, part))
    trainer.train()
    wanted = torch.tensor(trainer.parts).view(-1, 3).sum(1)
    assert torch.allclose(torch.tensor(train_losses(history)), wanted, atol=1e-5)


@pytest.mark.parametrize("task, family", CASES)
def test_parts_by_targets(task, family):
    "However a step is cut into parts, its loss and its gradient are those of the whole."
    rows, (made, _) = rows_of(task, 11), TASKS[task]
    found = []
    for sizes in ([11], [1, 4, 6]):
        model, ends = new(task, family), [0, *itertools.accumulate(sizes)]
        parts = [("task", rows[a:b]) for a, b in itertools.pairwise(ends)]
        losses = list(weighted_losses(TaskLoss(model, made), parts, {}))
        sum(losses).backward()
        gradient = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((sum(losses).item(), torch.cat(gradient)))
    (a, g), (b, h) = found
    assert abs(a - b) < 1e-5 and (g - h).norm() < 1e-4 * g.norm()


def test_weights_by_rows_would_be_wrong():
    rows, (made, _) = sorted(rows_of("next", 12), key=targets), TASKS["next"]
    model = new("next", "gpt2")
    parts = [("task", rows[:6]), ("task", rows[6:])]
    whole = TaskLoss(model, made)("task", rows)[0].item()
    by_rows = sum(TaskLoss(model, made)(*part)[0].item() / 2 for part in parts)
    assert abs(by_rows - whole) > 1e-3
    assert abs(mean_loss(TaskLoss(model, made), "task", rows, 5) - whole) < 1e-5


def test_a_part_without_targets_is_passed_over():
    rows, (made, _) = rows_of("tags", 6), TASKS["tags"]
    rows[0]["labels"] = [-100] * len(rows[0]["labels"])
    model = new("tags", "bert")
    history = fit(model, rows, rows, task=made, epochs=1, batch_size=1,
                  gradient_accumulation_steps=3, **USUAL)
    assert history["loss"].notna().all()
    empty = [{**row, "labels": [-100] * len(row["labels"])} for row in rows]
    with pytest.raises(InputError, match="nothing to learn"): fit(model, empty, task=made, **USUAL)


@pytest.mark.parametrize("task, family", [c for c in CASES if c[1] != "t5"])
def test_without_padding_inside(task, family):
    "Loss and every gradient, the library's way and with the padding taken out."
    rows, (made, _) = rows_of(task, 9), TASKS[task]
    found = []
    for way in ("padded", "unpadded"):
        model = new(task, family).train()
        batch = made.collate(model, rows)
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
        if way == "padded": out = model(**inputs)
        else:
            with unpadded(model): out = model(**inputs)
        filled = batch["attention_mask"].bool()
        scores = [out.start_logits, out.end_logits] if task == "spans" else [out.logits]
        if task != "classes": scores = [s[filled] for s in scores]
        scores = torch.cat([s.flatten() for s in scores])
        (scores * torch.linspace(-1, 1, len(scores))).sum().backward()
        gradient = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((scores.detach(), torch.cat(gradient)))
    (a, g), (b, h) = found
    assert torch.allclose(a, b, atol=1e-5) and (g - h).norm() < 1e-4 * g.norm()


# whole at every moment

@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_callbacks_may_do_what_they_like(tmp_path, family):
    "Score new rows, keep the state, save, load, draw random numbers, leave the model in eval mode."
    rows = rows_of("classes", 40)
    other = Dataset.from_list(rows_of("classes", 8, seed=5))
    plain, watched = new("classes", family, 0.1), new("classes", family, 0.1)
    seen = []
    def look(history):
        watched.eval()
        torch.rand(3)
        logits = predict_logits(watched, other)
        watched.save_pretrained(tmp_path / "now")
        again = type(watched).from_pretrained(tmp_path / "now")
        again.load_state_dict(copy.deepcopy(watched.state_dict()))
        seen.append(torch.allclose(predict_logits(again, other), logits, atol=1e-5))
    settings = {**USUAL, "epochs": 1, "batch_size": 8}
    a = fit(plain, rows, **settings)
    b = fit(watched, rows, callbacks=[look], **settings)
    assert seen == [True] * 5 and same(plain, watched) and train_losses(a) == train_losses(b)


def test_a_callback_may_let_the_model_write():
    rows, (made, _) = rows_of("next", 16), TASKS["next"]
    plain, watched = new("next", "gpt2", 0.1), new("next", "gpt2", 0.1)
    written = []
    def write(history):
        out = watched.generate(torch.tensor([[5, 6]]), do_sample=True, max_new_tokens=4,
                               attention_mask=torch.ones(1, 2, dtype=torch.long))
        written.append(out.shape[1])
    settings = {**USUAL, "epochs": 1, "batch_size": 4, "task": made}
    fit(plain, rows, **settings)
    fit(watched, rows, callbacks=[write], **settings)
    assert len(written) == 4 and same(plain, watched)
    assert watched.lm_head.weight is watched.transformer.wte.weight, "the matrices are still tied"


# the best weights are kept

def turning():
    "A run whose validation loss rises in the end: the labels of the training rows are noise."
    rows = rows_of("classes", 24)
    return rows, [{**row, "labels": (row["labels"] + 1) % 3} for row in rows]


def test_the_best_epoch_is_kept():
    train, validation = turning()
    states, settings = {}, {**USUAL, "epochs": 4, "batch_size": 8, "learning_rate": 3e-3}
    best, last, early = (new("classes", "gpt2") for _ in range(3))
    def keep(history):
        if history[-1]["split"] == "validation":
            states[history[-1]["step"]] = copy.deepcopy(best.state_dict())
    history = fit(best, train, validation, callbacks=[keep], **settings)
    measured = history[history["split"] == "validation"].set_index("step")["loss"]
    kept = history.attrs["kept"]
    assert kept == measured.idxmin() < 12
    assert all(torch.equal(v, states[kept][k]) for k, v in best.state_dict().items())
    fit(last, train, validation, load_best_model_at_end=False, **settings)
    assert all(torch.equal(v, states[12][k]) for k, v in last.state_dict().items())
    stopped = fit(early, train, validation, callbacks=[early_stopping(1)], **settings)
    assert len(stopped) < len(history) and same(early, best)


def test_best_by_a_metric_and_only_by_what_is_measured():
    train, validation = turning()
    def steps_taken(logits, labels): return float(len(seen))
    seen = []
    def count(history): seen.extend(history[-1:])
    settings = {**USUAL, "epochs": 3, "batch_size": 8, "metric": steps_taken, "callbacks": [count]}
    history = fit(
        new("classes", "gpt2"), train, validation, metric_for_best_model="steps_taken", **settings
    )
    assert history.attrs["kept"] == 9, "greater is better, so the last one"
    with pytest.raises(
        InputError, match="accuracy – is not measured here – it can be loss or steps_taken"
    ):
        fit(new("classes", "gpt2"), train, validation, metric_for_best_model="accuracy", **settings)


def test_a_metric_needs_predictions():
    rows, (made, _) = rows_of("tags"), TASKS["tags"]
    with pytest.raises(InputError, match="makes no predictions – leave metric out"):
        fit(new("tags", "bert"), rows, rows, task=made, metric=max, **USUAL)


def test_one_of_two_validations_may_end_a_run():
    models = torch.nn.ModuleDict({name: new("classes", "gpt2") for name in "ab"})
    plan = Plan(4, 1, lambda step: [("a", rows_of("classes", 2))], {})
    def stop(history): return (history[-1]["split"], history[-1]["task"]) == ("validation", "a")
    validation = {name: rows_of("classes", 4) for name in "ab"}
    history = fit(models, lambda settings: plan, validation, callbacks=[stop], **USUAL)
    assert history["split"].tolist() == ["train", "validation", "validation"]


def test_which_way_a_metric_is_better():
    train, validation = turning()
    def steps_taken(logits, labels): return float(len(seen))
    seen = []
    def count(history): seen.extend(history[-1:])
    history = fit(new("classes", "gpt2"), train, validation, epochs=3, batch_size=8,
                  metric=steps_taken, callbacks=[count], metric_for_best_model="steps_taken",
                  greater_is_better=False, **USUAL)
    assert history.attrs["kept"] == 3, "the first one"


def test_weights_frozen_on_the_way_can_not_be_put_back():
    train, validation = turning()
    model = new("classes", "gpt2")
    def freeze(history): model.transformer.wte.requires_grad_(len(history) < 6)
    settings = {**USUAL, "epochs": 3, "batch_size": 8, "callbacks": [freeze]}
    with pytest.raises(InputError, match="frozen or unfrozen .* load_best_model_at_end=False"):
        fit(model, train, validation, **settings)
    fit(new("classes", "gpt2"), train, validation, load_best_model_at_end=False, **settings)


@pytest.mark.parametrize("change, words", [
    (dict(validation=[]), "no rows"), (dict(train=[]), "no rows"),
    (dict(validation={"train": rows_of("tags"), "test": rows_of("tags")}), "holds several parts"),
])
def test_rows_that_can_not_be_meant(change, words):
    given = {"train": rows_of("tags"), "validation": rows_of("tags"), **change}
    with pytest.raises(InputError, match=words):
        fit(new("tags", "bert"), task=TASKS["tags"][0], **given, **USUAL)


def test_half_precision_weights_are_refused():
    with pytest.raises(InputError, match="16 bits – load it with dtype=torch.float32"):
        fit(new("classes", "gpt2").half(), rows_of("classes"), **USUAL)


def test_arrays_as_rows(tmp_path):
    rows = rows_of("classes", 8)
    arrays = [{k: torch.tensor(v) for k, v in row.items()} for row in rows]
    a, b = new("classes", "gpt2"), new("classes", "gpt2")
    fit(a, rows, epochs=1, batch_size=4, **USUAL)
    fit(b, arrays, epochs=1, batch_size=4, checkpoint=tmp_path, **USUAL)
    assert same(a, b)


# resumed

def cut(at, what=KeyboardInterrupt):
    "A callback that ends a run at a step as a closed lid would."
    def callback(history):
        if history[-1]["step"] == at: raise what
    return callback


@pytest.mark.parametrize(
    "task, family", [("tags", "bert"), ("next", "llama"), ("sequences", "t5"), ("spans", "gpt2")]
)
def test_every_task_resumes_to_the_bit(tmp_path, task, family):
    rows, (made, _) = rows_of(task), TASKS[task]
    whole, first, second = (new(task, family, 0.1) for _ in range(3))
    settings = {**USUAL, "task": made, "epochs": 3, "batch_size": 4,
                "gradient_accumulation_steps": 2}
    uncut = fit(whole, rows, rows[:7], **settings)
    with pytest.raises(KeyboardInterrupt):
        fit(first, rows, rows[:7], checkpoint=tmp_path, callbacks=[cut(5)], **settings)
    rest = fit(second, rows, rows[:7], checkpoint=tmp_path, resume=True, **settings)
    assert same(whole, second) and uncut["loss"].tolist() == rest["loss"].tolist()
    assert rest.attrs["kept"] == uncut.attrs["kept"]


def test_the_best_weights_survive_a_cut(tmp_path):
    train, validation = turning()
    settings = {**USUAL, "epochs": 4, "batch_size": 8, "learning_rate": 3e-3}
    whole, second = new("classes", "gpt2"), new("classes", "gpt2")
    uncut = fit(whole, train, validation, **settings)
    with pytest.raises(KeyboardInterrupt):
        fit(
            new("classes", "gpt2"), train, validation, checkpoint=tmp_path, callbacks=[cut(11)],
            **settings,
        )
    rest = fit(second, train, validation, checkpoint=tmp_path, resume=True, **settings)
    assert rest.attrs["kept"] == uncut.attrs["kept"] < 11 and same(whole, second)


def test_other_rows_are_refused(tmp_path):
    settings = {**USUAL, "epochs": 2, "batch_size": 8, "checkpoint": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        fit(new("classes", "gpt2"), rows_of("classes"), callbacks=[cut(4)], **settings)
    with pytest.raises(InputError, match="was begun on other rows"):
        fit(new("classes", "gpt2"), rows_of("classes", seed=1), resume=True, **settings)


def test_other_validation_rows_are_refused_and_so_is_a_folder_in_use(tmp_path):
    rows, settings = rows_of("classes"), {**USUAL, "epochs": 2, "batch_size": 8}
    settings["checkpoint"] = tmp_path
    with pytest.raises(KeyboardInterrupt):
        fit(new("classes", "gpt2"), rows, rows[:5], callbacks=[cut(4)], **settings)
    with pytest.raises(InputError, match="was begun with other validation rows"):
        fit(new("classes", "gpt2"), rows, rows[5:], resume=True, **settings)
    with pytest.raises(InputError, match="holds the checkpoints of a run – pass resume=True"):
        fit(new("classes", "gpt2"), rows, rows[:5], **settings)


# plans and settings

def test_a_plan_is_a_function_of_the_step():
    rows = rows_of("classes", 21)
    plan = over_rows(rows)(Settings(epochs=2, batch_size=4, gradient_accumulation_steps=2, seed=3))
    assert plan.steps == 6 and plan.per_epoch == 3
    backwards = [plan.parts(step) for step in reversed(range(6))][::-1]
    assert backwards == [plan.parts(step) for step in range(6)]
    for epoch in (0, 3):
        read_rows = [
            row for step in range(epoch, epoch + 3) for _, part in plan.parts(step) for row in part
        ]
        assert sorted(map(str, read_rows)) == sorted(map(str, rows))
    assert plan.fingerprint() != over_rows(rows[1:])(Settings()).fingerprint()


def test_settings_as_a_record_or_one_by_one():
    rows = rows_of("classes")
    settings = Settings(epochs=1, batch_size=8, learning_rate=1e-3, bf16=False)
    a, b = new("classes", "gpt2", 0.1), new("classes", "gpt2", 0.1)
    fit(a, rows, settings=settings, progress=False)
    fit(b, rows, epochs=1, batch_size=8, learning_rate=1e-3, bf16=False, progress=False)
    assert same(a, b)
    with pytest.raises(TypeError): fit(a, rows, learning_rat=1e-3)
    with pytest.raises(InputError, match="epochs 0 – is not between"): fit(a, rows, epochs=0)


def test_a_name_without_a_model():
    models = torch.nn.ModuleDict({"a": new("classes", "gpt2")})
    plan = Plan(1, 1, lambda step: [("b", rows_of("classes", 2))], {"b": []})
    with pytest.raises(InputError, match="task 'b' – has no model – there are models for a"):
        fit(models, lambda settings: plan, **USUAL)
