"""Chat: which tokens are learnt, as TRL sees it; what a reader refuses; what becomes of a long
conversation; packed or padded; the end token; judging; the run folder and its commands."""
import json
import random
import re

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast

from course_lib.data import load_data
from course_lib.errors import InputError
from course_lib.generation import count_targets, text_generation
from course_lib.instruction import (
    answer_spans, broken, chat_row, fitting_row, make_features, practice, read_file, read_splits,
    render, side_by_side, token_labels)
from course_lib.models import load
from course_lib.training import TaskLoss

# templates as four families have them, with marks

CHATML = """{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}\
{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>\n' }}\
{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
LLAMA = """{{ '<|begin_of_text|>' }}{% for m in messages %}\
{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}{% if m['role'] == 'assistant' %}\
{% generation %}{{ m['content'] | trim + '<|eot_id|>' }}{% endgeneration %}\
{% else %}{{ m['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
GEMMA = """{{ '<bos>' }}{% if messages[0]['role'] == 'system' %}\
{% set first = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}\
{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}{% for m in turns %}\
{% if m['role'] == 'assistant' %}{{ '<start_of_turn>model\n' }}\
{% generation %}{{ m['content'] | trim + '<end_of_turn>\n' }}{% endgeneration %}\
{% else %}{{ '<start_of_turn>user\n' + (first if loop.first else '') + m['content'] | trim }}\
{{ '<end_of_turn>\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
ZEPHYR = """{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|assistant|>\n' }}\
{% generation %}{{ m['content'] + eos_token + '\n' }}{% endgeneration %}\
{% else %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"""
TEMPLATES = {"ChatML": CHATML, "Llama": LLAMA, "Gemma": GEMMA, "Zephyr": ZEPHYR}
SPECIAL = ["</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>",
           "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<bos>", "<start_of_turn>",
           "<end_of_turn>"]


def without_marks(template): return re.sub(r"{%-? *(end)?generation *-?%}", "", template)


@pytest.fixture(scope="module")
def plain_tokenizer():
    "A byte-level BPE that keeps case and white space."
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=800, initial_alphabet=alphabet, special_tokens=SPECIAL,
                                  show_progress=False)
    texts = [m["content"] for row in practice(200) for m in row["messages"]]
    bpe.train_from_iterator([*texts, "\n\n  \n 漢字 привет 🙂 don't  I'll"] * 2, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="<pad>",
                                   additional_special_tokens=SPECIAL[2:], model_max_length=256)


def with_template(tokenizer, template):
    tokenizer.chat_template = template
    return tokenizer


MARKS = ["\n", "\n\nHi", " ", "  two", "don't", "漢字", "привет", "🙂👩‍👩‍👧", "é", "<|im_end|>", "</s>",
         "assistant\n", "<end_of_turn>\n", "\u200bx", "ß\t"]
TEXTS = st.lists(st.one_of(st.sampled_from(MARKS),
                           st.text(st.characters(exclude_categories=["Cs"]), max_size=12)),
                 min_size=1, max_size=4).map("".join).filter(str.strip)


@st.composite
def conversations(draw):
    turns = draw(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
    head = [{"role": "system", "content": draw(TEXTS)}] if draw(st.booleans()) else []
    return head + [{"role": role, "content": text} for turn in turns
                   for role, text in zip(("user", "assistant"), turn)]


@pytest.fixture(scope="module")
def thousand():
    "A thousand conversations that hypothesis made."
    made = []

    @settings(max_examples=1000, database=None, deadline=None, derandomize=True,
              suppress_health_check=list(HealthCheck))
    @given(conversations())
    def collect(messages): made.append(messages)

    collect()
    return made[-1000:]


def labels_of_trl(tokenizer, many, folder):
    "Input ids and labels as TRL's trainer prepares them with `assistant_only_loss`."
    from trl import SFTConfig, SFTTrainer
    tiny = GPT2Config(vocab_size=len(tokenizer), n_layer=1, n_embd=8, n_head=1, n_positions=64)
    arguments = SFTConfig(str(folder), assistant_only_loss=True, max_length=None, use_cpu=True,
                          bf16=False, report_to="none", disable_tqdm=True)
    trainer = SFTTrainer(GPT2LMHeadModel(tiny), arguments, processing_class=tokenizer,
                         train_dataset=Dataset.from_dict({"messages": many}))
    rows = trainer.train_dataset
    return list(zip(rows["input_ids"], rows["labels"]))


@pytest.mark.parametrize("family", TEMPLATES)
def test_the_mask_is_that_of_trl(family, plain_tokenizer, thousand, tmp_path):
    "A thousand conversations; ours by the marks, and without marks by the texts alone."
    assert len(thousand) == 1000
    marked = with_template(plain_tokenizer, TEMPLATES[family])
    theirs = labels_of_trl(marked, thousand, tmp_path)
    ours = [chat_row(marked, messages) for messages in thousand]
    bare = with_template(plain_tokenizer, without_marks(TEMPLATES[family]))
    by_texts = [chat_row(bare, messages) for messages in thousand]
    for messages, wanted, one, other in zip(thousand, theirs, ours, by_texts, strict=True):
        assert (one["input_ids"], one["labels"]) == wanted, messages
        assert one == other, messages
        assert count_targets(one) >= 2 * sum(m["role"] == "assistant" for m in messages)


TRLS = {"llama3": "Llama", "gemma": "Gemma", "phi3": "Zephyr"} # templates of its own, by kind


@pytest.mark.parametrize("name", ["llama3", "gemma"])
def test_templates_that_trl_patches(name, plain_tokenizer, thousand, tmp_path):
    "A published template without marks: by the texts alone we find what TRL's patch marks."
    from trl import chat_template_utils as trl
    published = with_template(plain_tokenizer, getattr(trl, f"{name}_chat_template"))
    several = [m for m in thousand[:300] if name != "gemma" or m[0]["role"] != "system"]
    ours = [chat_row(published, messages) for messages in several]
    patched = with_template(plain_tokenizer, trl.get_training_chat_template(published))
    for messages, one in zip(several, ours, strict=True):
        assert one == chat_row(patched, messages), messages


def test_tokens_across_the_border(plain_tokenizer):
    "A token that begins in the question and ends in the answer is a target, as in the library."
    text = "ab two cd"
    ids = plain_tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    start = ids["offset_mapping"][1][0] + 1
    row = token_labels(plain_tokenizer, text, [(start, start + 1)])
    assert [label != -100 for label in row["labels"]][:3] == [False, True, False]


def test_a_template_that_changes_its_past(plain_tokenizer):
    last_only = "{% for m in messages %}{{ m['content'] if loop.last else '…' }}</s>{% endfor %}"
    tokenizer = with_template(plain_tokenizer, last_only)
    with pytest.raises(InputError, match="writes a turn differently .* – put {% generation %}"):
        answer_spans(tokenizer, practice(2)[1]["messages"] * 2)


@pytest.mark.parametrize("template", [
    CHATML.replace("+ '<|im_end|>\\n' }}{% endgeneration %}",
                   "}}{% endgeneration %}{{ '<|im_end|>\\n' }}"),
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"])
def test_an_end_that_is_not_learnt_is_refused(template, plain_tokenizer):
    tokenizer = with_template(plain_tokenizer, template)
    with pytest.raises(InputError, match="never learn to stop – write eos_token inside"):
        make_features(DatasetDict(train=practice(4)), tokenizer, 256)


# what a reader takes and what it refuses

def dumped(*rows): return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
def talk(*turns): return {"messages": [{"role": r, "content": c} for r, c in turns]}


ASKED, SAID = ("user", "Hi?"), ("assistant", "Hello.")
GOOD = talk(ASKED, SAID)


def test_three_forms_say_the_same(tmp_path):
    forms = {
        "messages.jsonl": dumped(talk(("user", "Add these.\n\n1, 2"), ("assistant", "3"))),
        "sharegpt.json": json.dumps([{"id": 1, "conversations": [
            {"from": "human", "value": "Add these.\n\n1, 2"}, {"from": "gpt", "value": "3"}]}]),
        "alpaca.json": json.dumps([{"instruction": "Add these.", "input": "1, 2", "output": "3"}])}
    found = []
    for name, content in forms.items():
        (tmp_path / name).write_text(content)
        found.append(read_file(tmp_path / name).to_list())
    assert found[0] == found[1] == found[2] and found[0][0]["text"] == "Add these.\n\n1, 2"
    (tmp_path / "a.jsonl").write_text(dumped({"instruction": "Sing.", "input": "", "output": "La"}))
    assert read_file(tmp_path / "a.jsonl")[0]["messages"][0]["content"] == "Sing."
    (tmp_path / "s.jsonl").write_text(dumped({"conversations": [
        {"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Hi."}]}))
    roles = [m["role"] for m in read_file(tmp_path / "s.jsonl")[0]["messages"]]
    assert roles == ["system", "user", "assistant"]


BAD = {
    "two users": (dumped(GOOD, talk(ASKED, ASKED, SAID)),
                  ":2 – turn 2: two turns of the user in a row – join them"),
    "two answers": (dumped(talk(ASKED, SAID, SAID)), ":1 – turn 3: two turns of the assistant"),
    "answer first": (dumped(talk(SAID, ASKED, SAID)), ":1 – turn 1: an answer to nothing – begin"),
    "answer to rules": (dumped(talk(("system", "Be kind."), SAID)), ":1 – turn 2: an answer to not"),
    "two rules": (dumped(talk(("system", "a"), ("system", "b"), ASKED, SAID)),
                  ":1 – turn 2: two system turns – join them into one"),
    "rules late": (dumped(talk(ASKED, SAID, ("system", "b"), ASKED, SAID)),
                   ":1 – turn 3: a system turn in the middle – put it in front"),
    "a tool": (dumped(talk(ASKED, ("tool", "3"), SAID)), ":1 – turn 2: a tool turn – leave such"),
    "a call": (dumped({"messages": [{"role": "user", "content": "Hi"},
                                    {"role": "assistant", "content": "", "tool_calls": [1]}]}),
               ":1 – turn 2: a tool turn – leave such conversations out"),
    "unknown role": (dumped(talk(ASKED, ("bot", "x"))), "turn 2: the role 'bot' – use system, user"),
    "no role": (dumped({"messages": [{"content": "Hi"}]}), "turn 1: no role – say who speaks"),
    "no content": (dumped({"messages": [{"role": "user"}]}), "turn 1: no text but 'None' – write"),
    "parts": (dumped(talk(("user", [{"type": "text", "text": "Hi"}]), SAID)),
              "turn 1: no text but \"[{'type'"),
    "blank": (dumped(talk(ASKED, ("assistant", " \n"))), "turn 2: an empty turn of the assistant –"),
    "open end": (dumped(talk(ASKED, SAID, ASKED)),
                 ":1 – the last turn is the user's: nothing to learn – add the answer"),
    "no turns": (dumped({"messages": []}), ":1 – no turns – fill the conversation in"),
    "a text": (dumped({"messages": "Hi"}), ":1 – no list of turns but 'Hi' – write [{role,"),
    "no objects": (dumped({"messages": ["Hi"]}), ":1 – no list of turns but"),
    "half a character": ('{"messages": [{"role": "user", "content": "\\ud83d"}]}\n',
                         "turn 1: half of a character"),
    "part": (dumped({**GOOD, "part": "dev"}), ":1 – the part 'dev' – write train, validation"),
    "rule": (dumped({**GOOD, "check": {"rhymes": True}}), ":1 – the rule 'rhymes' – is not known"),
    "rules": (dumped({**GOOD, "check": "short"}), ":1 – check is no object – write {rule: value}"),
    "from": (dumped({"conversations": [{"from": "robot", "value": "x"}]}), "the role 'robot' – use"),
    "value": (dumped({"conversations": [{"from": "human", "text": "x"}]}), "turn 1: no text but"),
    "no output": (dumped({"instruction": "Sing.", "output": None}), "turn 2: no text but 'None'"),
    "empty output": (dumped({"instruction": "Sing.", "output": ""}), "turn 2: an empty turn of the"),
    "no instruction": (dumped({"instruction": None, "output": "x"}), "turn 1: an empty turn"),
    "columns": (dumped({"question": "a", "reply": "b"}),
                " – no column of messages, conversations, instruction with output, nor of texts"),
    "not JSON": (dumped(GOOD) + "{'messages': []}\n", ":2 – not JSON: "),
    "no object": ("3\n", ":1 – int where an object with columns is expected"),
    "empty": ("\n", " – is empty – "),
    "second form": (dumped(GOOD, {"instruction": "a", "output": ""}), ":2 – turn 2: an empty turn"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gets_its_line(name, tmp_path):
    content, said = BAD[name]
    path = tmp_path / "chats.jsonl"
    path.write_text(content)
    with pytest.raises(InputError) as error: read_file(path)
    assert str(error.value).startswith(str(path)) and said in str(error.value)
    assert all("\n" not in problem and " – " in problem for problem in error.value.problems)


def test_every_bad_row_is_named_up_to_twenty(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text(dumped(*[talk(ASKED)] * 30))
    with pytest.raises(InputError) as error: read_file(path)
    assert len(error.value.problems) == 20 and f"{path}:20 – " in error.value.problems[19]


def recipe_for(data, **more):
    return {"data": str(data), "validation": None, "test": None, "text": None, "encoding": None,
            "delimiter": None, "seed": 0, **more}


def test_the_shipped_chat_keeps_its_parts_and_its_rules():
    splits = read_splits(recipe_for("chat"))
    assert {k: len(v) for k, v in splits.items()} == {"train": 380, "validation": 80, "test": 80}
    for part in splits.values():
        for row in part: assert not broken(row["messages"][-1]["content"], json.loads(row["rules"]))


def test_a_cut_keeps_copies_on_one_side(tmp_path):
    rows = [talk(("user", f"Say {i // 2}"), ("assistant", str(i))) for i in range(80)]
    (tmp_path / "a.jsonl").write_text(dumped(*rows))
    splits = read_splits(recipe_for(tmp_path / "a.jsonl"))
    asked = {name: set(part["text"]) for name, part in splits.items()}
    assert sum(map(len, splits.values())) == 80 and set(splits) == {"train", "validation", "test"}
    assert not asked["train"] & asked["validation"] and not asked["train"] & asked["test"]
    assert read_splits(recipe_for(tmp_path / "a.jsonl"))["test"]["text"] == splits["test"]["text"]
    with_file = read_splits(recipe_for(tmp_path / "a.jsonl", validation=str(tmp_path / "a.jsonl")))
    assert len(with_file["train"]) == len(with_file["validation"]) == 80


def test_texts_and_conversations_are_not_mixed(tmp_path):
    (tmp_path / "a.jsonl").write_text(dumped(GOOD))
    (tmp_path / "b.jsonl").write_text(dumped({"text": "Hi"}))
    with pytest.raises(InputError, match="conversations here, plain texts in another"):
        read_splits(recipe_for(tmp_path / "a.jsonl", validation=str(tmp_path / "b.jsonl")))


# a conversation that is too long

def numbers_talk(n, rules=True):
    head = [{"role": "system", "content": "Count."}] if rules else []
    return head + [{"role": role, "content": f"{word} {i}"} for i in range(n)
                   for role, word in (("user", "ask"), ("assistant", "say"))]


@pytest.mark.parametrize("rules", [True, False])
def test_the_oldest_turns_go_first(rules, plain_tokenizer):
    tokenizer = with_template(plain_tokenizer, CHATML)
    messages = numbers_talk(6, rules)
    for max_length in range(8, 260):
        row = fitting_row(tokenizer, messages, max_length)
        assert len(row["input_ids"]) == len(row["labels"]) <= max_length
        text = tokenizer.decode(row["input_ids"])
        kept = [int(i) for i in re.findall(r"ask (\d)", text)]
        assert kept == list(range(6))[6 - len(kept):] and ("Count." in text) == rules
        longer = chat_row(tokenizer, messages[:rules] + messages[rules:][2 * (5 - len(kept)):])
        if 1 < len(kept) < 6: assert len(longer["input_ids"]) > max_length
    assert fitting_row(tokenizer, messages, 10_000) == chat_row(tokenizer, messages)


def test_what_has_nothing_left_is_counted_or_refused(plain_tokenizer):
    tokenizer = with_template(plain_tokenizer, CHATML)
    long = talk(("user", "word " * 90), SAID)
    rows = Dataset.from_list([{**GOOD, "text": "a"}, {**long, "text": "b"}])
    with pytest.warns(UserWarning, match="of 1 of 2 rows in 60 tokens; they are left out"):
        made = make_features(DatasetDict(train=rows, validation=rows), tokenizer, 60)
    assert len(made["train"]) == 1 and len(made["validation"]) == 2
    assert [count_targets(row) > 0 for row in made["validation"]] == [True, False]
    with pytest.raises(InputError, match="max_length=60 – nothing to learn is left of 1 of 1"):
        make_features(DatasetDict(train=rows.select([1])), tokenizer, 60)
