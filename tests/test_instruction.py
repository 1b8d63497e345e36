"""Chat: which tokens are learnt, as TRL sees it; what a reader refuses; what becomes of a long
conversation; packed or padded; the end token; judging; the run folder and its commands."""
import json
import re
import subprocess
import sys

import pytest
import torch
from conftest import run_course
from datasets import Dataset, DatasetDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast

from course_lib import training
from course_lib.errors import InputError
from course_lib.generation import count_targets, text_generation
from course_lib.instruction import (
    PLAIN_TEMPLATE, ChatPanel, answer_spans, chat_row, end_of_answer, fitting_row, last_questions,
    make_features, measure, overlap, practice, settle_end, side_by_side, token_labels,
    write_answers)
from course_lib.recipe import Recipe
from course_lib.runs import compare, evaluate, fine_tune, predict
from course_lib.training import TaskLoss
from course_lib.turns import broken, near_copies, read_file, read_splits

# templates as four families have them, with marks

CHATML = """{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}\
{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>\n' }}\
{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
LLAMA = """{{ '<|begin_of_text|>' }}{% for m in messages %}\
{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}{% if m['role'] == 'assistant' %}\
{% generation %}{{ m['content'] | trim + '<|eot_id|>' }}{% endgeneration %}\
{% else %}{{ m['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}\
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
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
                                   bos_token="<bos>",
                                   additional_special_tokens=SPECIAL[2:], model_max_length=256)


def with_template(tokenizer, template):
    tokenizer.chat_template = template
    return tokenizer


MARKS = ["\n", "\n\nHi", " ", "  two", "don't", "漢字", "привет", "🙂👩‍👩‍👧", "é", "<|im_end|>",
         "</s>", "assistant\n", "<end_of_turn>\n", "\u200bx", "ß\t"]
TEXTS = st.lists(st.one_of(st.sampled_from(MARKS),
                           st.text(st.characters(exclude_categories=["Cs"]), max_size=12)),
                 min_size=1, max_size=4).map("".join).filter(str.strip)


ANSWERS = st.one_of(st.just(""), TEXTS, TEXTS, TEXTS)


@st.composite
def conversations(draw):
    turns = draw(st.lists(st.tuples(TEXTS, ANSWERS), min_size=1, max_size=5))
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


def test_they_differ(thousand):
    "Among them are all kinds that could go wrong, each many times."
    turns = [[m for m in messages if m["role"] != "system"] for messages in thousand]
    said = [m["content"] for own in turns for m in own]
    assert len({json.dumps(messages) for messages in thousand}) > 950
    assert {len(own) for own in turns} == {2, 4, 6, 8, 10}
    assert 200 < sum(len(own) < len(messages) for own, messages in zip(turns, thousand)) < 800
    kinds = {"empty": "^$", "special token": "<[|]im_end[|]>|</s>|<end_of_turn>",
             "no ASCII": "[^\x00-\x7f]{4}", "Han": "[\u4e00-\u9fff]", "white end": "\\s$"}
    counts = {kind: sum(bool(re.search(what, text)) for text in said)
              for kind, what in kinds.items()}
    assert min(counts.values()) > 100, counts


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
        assert count_targets(one) >= sum(m["role"] == "assistant" for m in messages)


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
    text = "Where is Nadia? At the library."
    ids = plain_tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    places = ids["offset_mapping"]
    i, start = next((i, start) for i, (start, end) in enumerate(places) if end - start > 2)
    row = token_labels(plain_tokenizer, text, [(start + 1, start + 2)])
    assert [k for k, label in enumerate(row["labels"]) if label != -100] == [i]


def test_a_template_that_changes_its_past(plain_tokenizer):
    last_only = "{% for m in messages %}{{ m['content'] if loop.last else '…' }}</s>{% endfor %}"
    tokenizer = with_template(plain_tokenizer, last_only)
    with pytest.raises(InputError, match="writes a turn differently .* – put {% generation %}"):
        answer_spans(tokenizer, practice(2)[1]["messages"] * 2)


def test_a_template_that_refuses(plain_tokenizer):
    refusing = "{{ raise_exception('System role not supported') }}"
    tokenizer = with_template(plain_tokenizer, refusing)
    with pytest.raises(InputError, match="refuses a conversation .*not supported.* – leave such"):
        chat_row(tokenizer, practice(2)[1]["messages"])


@pytest.mark.parametrize("template", [
    CHATML.replace("+ '<|im_end|>\n' }}{% endgeneration %}",
                   "}}{% endgeneration %}{{ '<|im_end|>\n' }}"),
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
        found.append(read_file(tmp_path / name).remove_columns("place").to_list())
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
    "answer to rules": (dumped(talk(("system", "Be kind."), SAID)), ":1 – turn 2: an answer to"),
    "two rules": (dumped(talk(("system", "a"), ("system", "b"), ASKED, SAID)),
                  ":1 – turn 2: two system turns – join them into one"),
    "rules late": (dumped(talk(ASKED, SAID, ("system", "b"), ASKED, SAID)),
                   ":1 – turn 3: a system turn in the middle – put it in front"),
    "a tool": (dumped(talk(ASKED, ("tool", "3"), SAID)), ":1 – turn 2: a tool turn – leave such"),
    "a call": (dumped({"messages": [{"role": "user", "content": "Hi"},
                                    {"role": "assistant", "content": "", "tool_calls": [1]}]}),
               ":1 – turn 2: a tool turn – leave such conversations out"),
    "unknown role": (dumped(talk(ASKED, ("bot", "x"))), "turn 2: the role 'bot' – use system"),
    "no role": (dumped({"messages": [{"content": "Hi"}]}), "turn 1: no role – say who speaks"),
    "no content": (dumped({"messages": [{"role": "user"}]}), "turn 1: no text but None –"),
    "parts": (dumped(talk(("user", [{"type": "text", "text": "Hi"}]), SAID)),
              "turn 1: no text but [{'type'"),
    "blank": (dumped(talk(ASKED, ("assistant", " \n"))), "turn 2: an empty turn of the assist"),
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
    "from": (dumped({"conversations": [{"from": "robot", "value": "x"}]}), "the role 'robot' –"),
    "value": (dumped({"conversations": [{"from": "human", "text": "x"}]}), "turn 1: no text but"),
    "numbers": (dumped({"instruction": 3, "output": 6}), "turn 1: no text but 3 – write a text"),
    "no output": (dumped({"instruction": "Sing.", "output": None}), "turn 2: no text but None"),
    "empty output": (dumped({"instruction": "Sing.", "output": ""}), "turn 2: an empty turn of"),
    "no instruction": (dumped({"instruction": None, "output": "x"}), "turn 1: an empty turn"),
    "columns": (dumped({"question": "a", "reply": "b"}),
                " – no column of messages, conversations, instruction with output, nor of texts"),
    "not JSON": (dumped(GOOD) + "{'messages': []}\n", ":2 – not JSON: "),
    "no object": ("3\n", ":1 – int where an object with columns is expected"),
    "empty": ("\n", " – is empty – "),
    "list of numbers": (dumped({"messages": [1, 2]}), ":1 – no list of turns but '[1, 2]'"),
    "part of some": (dumped({**GOOD, "part": "train"}, GOOD),
                     ":2 – no part, though other rows name one – write train, validation or test"),
    "number as rule": (dumped({**GOOD, "check": {"max_words": "five"}}),
                       "the rule 'max_words' – can't be tested with 'five' – give it a number"),
    "text as rule": (dumped({**GOOD, "check": {"contains": "abc"}}), "'abc' – give it a list"),
    "language": (dumped({**GOOD, "check": {"language": "it"}}), "the language 'it' – can't be"),
    "half in a text": ('{"text": "\\ud83d"}\n', ":1, column 'text' – half of a character"),
    "empty text": (dumped({"text": "Hi"}, {"text": " "}), ":2, column 'text' – no text in this"),
    "part of a text": (dumped({"text": "Hi", "part": "val"}), ":1 – the part 'val' – write train"),
    "no turns at all": (dumped(GOOD, {"text": "Hi"}), ":2 – no list of turns but 'None' – write"),
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


def test_forms_that_are_mixed_or_in_a_cell(tmp_path):
    "ShareGPT's column with the names of messages, a list as JSON in a CSV, a BOM, CRLF."
    hello = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]
    cell = json.dumps(hello).replace('"', '""')
    files = {"a.jsonl": dumped({"conversations": hello}), "b.csv": f'id,messages\r\n1,"{cell}"\r\n',
             "c.jsonl": "\ufeff" + dumped({"messages": hello}).replace("\n", "\r\n\r\n"),
             "d.csv": "\ufeffinstruction;input;output\r\nHi?;;Hello.\r\n",
             "e.json": json.dumps([{"messages": None, "instruction": "Hi?", "output": "Hello."}])}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content.encode())
        rows = read_file(tmp_path / name, delimiter=";" if name == "d.csv" else None)
        assert rows["messages"][:] == [hello], name


def test_parquet_keeps_rules_apart(tmp_path):
    "A table has a column for each rule; those that a row doesn't state are None there."
    rows = [{**GOOD, "check": {"max_words": 3}}, {**GOOD, "check": {"language": "en"}}]
    Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    found = read_file(tmp_path / "a.parquet")
    assert [json.loads(rules) for rules in found["rules"]] == [row["check"] for row in rows]
    assert found["place"][:] == ["a.parquet, row 1", "a.parquet, row 2"]


def test_a_kind_may_be_anything(tmp_path, capfd):
    rows = [talk(("user", f"What is the number {i} called?"), SAID) for i in range(12)]
    kinds = [3, True, None, "\ud83d", ["a"], {"b": 1}] * 2
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({**row, "kind": kind}) + "\n"
                                              for row, kind in zip(rows, kinds)))
    splits = read_splits(recipe_for(tmp_path / "a.jsonl"))
    assert {kind for part in splits.values() for kind in part["kind"]} == {
        "3", "True", "", "?", "['a']", "{'b': 1}"}
    assert capfd.readouterr().err == "" # no progress bars of what takes no time


def test_text_files(tmp_path):
    "Texts are parted by empty lines; a file without any has one a line."
    (tmp_path / "a.txt").write_bytes("\ufeffOne\r\ntwo.\r\n\r\n \r\nThrée.\r\n".encode())
    (tmp_path / "b.txt").write_text("one\ntwo\nthree")
    (tmp_path / "c.txt").write_bytes("caf\u00e9\nth\u00e9".encode("cp1252"))
    found = read_file(tmp_path / "a.txt")
    assert found["text"][:] == ["One\ntwo.", "Thrée."] and found["place"][1] == "a.txt:5"
    assert read_file(tmp_path / "b.txt")["text"][:] == ["one", "two", "three"]
    assert read_file(tmp_path / "c.txt", encoding="cp1252")["text"][1] == "thé"
    with pytest.raises(InputError, match="looks like Windows-1252"): read_file(tmp_path / "c.txt")


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


def test_near_copies_stay_together():
    "Wordings of one question do; requests of one form, signs and other scripts don't."
    ways = [f"Please tell me{more} how tides come about in the Bay of Fundy"
            for more in ("", " briefly", " again", ", friend,")]
    forms = [f"Is this review positive or negative?\n\n{word} {i}"
             for word in ("good", "bad", "fine", "dull") for i in range(10)]
    signs = ["🙂", "👍", "你好吗", "привет", "?!"]
    found = near_copies(ways + forms + signs)
    assert len(set(found[:4])) == 1 and len(set(found)) == 1 + len(forms) + len(signs)
    assert near_copies(["one"]) == [0]


def test_a_cut_keeps_near_copies_on_one_side(tmp_path):
    tails = ("", " please", " now", " again", " for me")
    story = "Tell the story number {i} of the old mill by the river {i}{tail}"
    rows = [talk(("user", story.format(i=i, tail=tail)), SAID)
            for i in range(30) for tail in tails]
    (tmp_path / "a.jsonl").write_text(dumped(*rows))
    for seed in range(3):
        splits = read_splits({**recipe_for(tmp_path / "a.jsonl"), "seed": seed})
        sides = [{re.search(r"\d+", text)[0] for text in part["text"]} for part in splits.values()]
        assert sum(map(len, sides)) == 30 and len(splits["test"]) >= 20


@pytest.mark.parametrize("parts, said", [
    (["train", "test"] * 3, "names parts, but none is 'validation' – write it into some rows"),
    (["validation", "test"] * 3, "names parts, but none is 'train' – write it"),
    ([None], r"too few different rows \(1 in all\) to cut into parts – add rows, or pass valid"),
    ([None] * 9, r"too few different rows \(9 in all\)")])
def test_what_can_t_be_cut(parts, said, tmp_path):
    (tmp_path / "a.jsonl").write_text(dumped(*[{**GOOD, "part": part} for part in parts]))
    with pytest.raises(InputError, match=said): read_splits(recipe_for(tmp_path / "a.jsonl"))


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
    for max_length in range(30, 260):
        row = fitting_row(tokenizer, messages, max_length)
        assert len(row["input_ids"]) == len(row["labels"]) <= max_length
        text = tokenizer.decode(row["input_ids"])
        kept = [int(i) for i in re.findall(r"ask (\d)", text)]
        assert kept == list(range(6))[6 - len(kept):] and ("Count." in text) == rules
        longer = chat_row(tokenizer, messages[:rules] + messages[rules:][2 * (5 - len(kept)):])
        if 1 < len(kept) < 6: assert len(longer["input_ids"]) > max_length
    whole = fitting_row(tokenizer, messages, 10_000)
    assert {k: whole[k] for k in ("input_ids", "labels")} == chat_row(tokenizer, messages)


def test_what_has_nothing_left_is_refused(plain_tokenizer, tmp_path):
    "With file and row, whichever part it is in; with room for an answer it is cut."
    tokenizer = with_template(plain_tokenizer, CHATML)
    long = talk(("user", "word " * 30), SAID)
    (tmp_path / "a.jsonl").write_text(dumped(GOOD, long, GOOD, long))
    rows = read_file(tmp_path / "a.jsonl")
    parts = DatasetDict(train=rows.select([0]), validation=rows)
    with pytest.raises(InputError) as error: make_features(parts, tokenizer, 60)
    assert error.value.problems == [
        f"a.jsonl:{i} – nothing to learn is left of it in 60 tokens – shorten it, take it out, or "
        "train with a larger max_length" for i in (2, 4)]
    assert all(map(count_targets, make_features(parts, tokenizer, 256)["validation"]))


def test_bytes_are_those_of_what_is_left(plain_tokenizer):
    "A conversation that was cut counts the bytes of what is guessed, not of all answers."
    tokenizer = with_template(plain_tokenizer, CHATML)
    messages = numbers_talk(6)
    for max_length in range(40, 260):
        row = fitting_row(tokenizer, messages, max_length)
        text = tokenizer.decode([label for label in row["labels"] if label != -100])
        begun = text.count("s")                          # of "say 1" and so on
        assert 5 * (begun - 1) <= row["bytes"] <= 5 * begun
    assert row["bytes"] == 5 * 6


def test_many_turns_take_few_looks(plain_tokenizer):
    "The turn to begin with is found by halving, and is the first that fits."
    tokenizer = with_template(plain_tokenizer, CHATML)
    messages = numbers_talk(100)
    row = fitting_row(tokenizer, messages, 120)
    start = re.search(r"ask (\d+)", tokenizer.decode(row["input_ids"]))
    i = 1 + 2 * int(start[1])
    assert row["labels"] == chat_row(tokenizer, messages[:1] + messages[i:])["labels"]
    assert len(chat_row(tokenizer, messages[:1] + messages[i - 2:])["input_ids"]) > 120


# the loop

SMALL = {"vocab_size": 811, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0}


def small(family):
    torch.manual_seed(0)
    if family == "gpt2":
        off = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
        return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=4, n_positions=256,
                                          **SMALL, **off))
    return LlamaForCausalLM(LlamaConfig(
        num_hidden_layers=2, hidden_size=32, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=256, **SMALL))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_packed_is_padded(family, plain_tokenizer):
    "Loss and every gradient of conversations, read without padding and the library's way."
    tokenizer = with_template(plain_tokenizer, CHATML)
    assert len(tokenizer) <= SMALL["vocab_size"]
    rows = make_features(DatasetDict(train=practice(9)), tokenizer, 256)["train"].to_list()
    model = small(family).train()
    TaskLoss(model, text_generation)("chat", rows)[0].backward()
    ours = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    batch = text_generation.collate(model, rows)
    assert (batch["attention_mask"] == 0).any()
    model(**batch).loss.backward() # labels are shifted there
    theirs = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


def test_windows_guess_each_token_once(plain_tokenizer):
    texts = ["one two three four five " * n for n in (1, 3, 7)]
    texts = Dataset.from_dict({"text": texts, "place": ["a", "b", "c"]})
    (whole,) = make_features(DatasetDict(rows=texts), plain_tokenizer, 256).values()
    (cut,) = make_features(DatasetDict(rows=texts), plain_tokenizer, 16).values()
    guessed = [0] * 3
    for row in cut: guessed[row["row"]] += count_targets(row)
    assert len(cut) > len(whole) == 3 and max(map(len, cut["input_ids"])) == 16
    assert guessed == [count_targets(row) for row in whole]
    lengths = [round(sum(row["bytes"] for row in cut if row["row"] == i), 6) for i in range(3)]
    assert lengths == [len(text) for text in texts["text"]]
    assert plain_tokenizer.eos_token_id == cut[-1]["labels"][-1]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_counts_are_the_library_s_loss(family, plain_tokenizer):
    tokenizer, rows = with_template(plain_tokenizer, ZEPHYR), practice(7)
    (read,) = make_features(DatasetDict(rows=rows), tokenizer, 256).values()
    model = small(family).eval()
    found = measure(model, tokenizer, rows, read)
    for row, (nats, targets, n_bytes), messages in zip(read, found.counts, rows["messages"]):
        labels = torch.tensor([row["labels"]])
        loss = model(torch.tensor([row["input_ids"]]), labels=labels).loss.item()
        assert abs(nats / targets - loss) < 1e-4 and targets == count_targets(row)
        said = [m["content"] for m in messages if m["role"] == "assistant"]
        assert abs(n_bytes - len("".join(said).encode())) < 1e-6


def test_answers_don_t_depend_on_the_batch(plain_tokenizer):
    tokenizer, model = with_template(plain_tokenizer, CHATML), small("llama")
    prompts = last_questions(practice(8), tokenizer)
    one = write_answers(model, tokenizer, prompts, max_new_tokens=8, batch_size=1)
    assert write_answers(model, tokenizer, prompts, max_new_tokens=8, batch_size=5) == one
    model.generation_config.eos_token_id = list(range(811)) # whatever comes first ends it
    assert all(found == {"answer": "", "stopped": True}
               for found in write_answers(model, tokenizer, prompts, max_new_tokens=8))


def test_the_end_that_was_learnt_is_where_the_model_stops(plain_tokenizer):
    "ChatML on a tokenizer that ends with </s>: the mark that closes answers is saved as an end."
    tokenizer, model = with_template(plain_tokenizer, CHATML), small("llama")
    closing = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end_of_answer(tokenizer) == closing != tokenizer.eos_token_id
    rows = practice(2)
    settle_end(model, tokenizer, rows.remove_columns("messages"), None)
    assert model.generation_config.eos_token_id == 0
    for _ in range(2):
        settle_end(model, tokenizer, rows, None)
        assert model.generation_config.eos_token_id == [closing, 0]
    template = with_template(plain_tokenizer, ZEPHYR)
    assert end_of_answer(template) == tokenizer.eos_token_id


# judging

def test_a_judge_that_looks_at_the_place_is_left_with_a_coin():
    rows = practice(400)
    same = ["x"] * 400
    found = side_by_side(rows, same, same, lambda row, first, second: 1)
    assert found["rate"]["low"] < 0.5 < found["rate"]["high"] and found["draws"] == 0
    assert side_by_side(rows, same, same)["draws"] == 400
    right = [m[-1]["content"] for m in rows["messages"]]
    assert side_by_side(rows, right, same)["wins"] == 400
    assert side_by_side(rows, same, right)["rate"]["value"] == 0


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_overlap(first, second):
    assert 0 <= overlap(first, second) == overlap(second, first) <= 1
    if re.search(r"\w", first): assert overlap(first, first) == 1
    assert overlap(first, "") == 0


@pytest.mark.parametrize("text, rules, wrong", [
    ("- a\n- b", {"bullets": 2, "max_words": 2, "lines": 2}, []),
    ("- a\nb", {"bullets": 1, "max_words": 1}, ["bullets", "max_words"]),
    ("1. a\n2. b", {"numbered": 2}, []),
    ("1. a\n3. b", {"numbered": 2}, ["numbered"]),
    ("Ja, das ist gut.", {"language": "de", "sentences": 1}, []),
    ("Yes, that is good.", {"language": "de"}, ["language"]),
    ('{"a": 1, "b": 2}', {"json_keys": ["a", "b"], "json": {"b": 2, "a": 1}}, []),
    ("{'a': 1}", {"json_keys": ["a"]}, ["json_keys"]),
    ("| a | b |\n|---|---|\n| 1 | 2 |", {"table_cols": 2, "table_rows": 1}, []),
    ("1,250.5 in all", {"number": 1250.5, "expr": "2*625.25"}, []),
    ("I don't know that.", {"contains": ["don't know"], "avoids": ["sorry"]}, []),
    ("pear, Apple", {"alphabetical": True, "items": 2, "each_words": 1}, ["alphabetical"]),
    ("", {"max_words": 5, "avoids": ["x"]}, ["max_words", "avoids"]),
    (" \n", {"case": "lower"}, ["case"]),
])
def test_rules(text, rules, wrong): assert broken(text, rules) == wrong


# the run folder

@pytest.fixture(scope="module")
def chat_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("chats") / "drills.jsonl"
    rows = [{"messages": row["messages"]} for row in practice(140)]
    path.write_text(dumped(*rows))
    return path


def few(data, **more):
    return Recipe(data=str(data), task="text-generation", epochs=2, batch_size=8, bf16=False,
                  max_length=96, learning_rate=2e-3, **more)


def run_code(card, folder) -> str:
    "What the Python code of a card prints."
    code = re.search(r"```python\n(.*?)```", card, re.S)[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def chat_run(chat_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "chat"
    return out, fine_tune(few(chat_file), out, progress=False)


def test_a_run_of_conversations(chat_run, chat_file):
    out, metrics = chat_run
    assert set(metrics["metrics"]) == {"loss", "perplexity", "bits_per_byte"}
    gains = {name: scores["model_gain"] for name, scores in metrics["baselines"].items()}
    assert set(gains) == {"unigrams", "before"} and all(g["low"] > 0 for g in gains.values())
    card = (out / "README.md").read_text()
    assert "Answers in conversations" in card and "lower than that of the model before" in card
    assert run_code(card, out)
    assert {p.name for p in out.iterdir()} >= {"scores.png", "lengths.png", "loss.png"}
    again = evaluate(out, str(chat_file))
    assert again["n"] == 140 and again["trained_on"] == json.loads(
        (out / "recipe.json").read_text())["rows"]["train"]
    (answer,) = predict(out, ["Sort from A to Z: needle, engine"])
    assert set(answer) == {"text", "answer", "stopped"}
    same = compare(out, out, str(chat_file))
    assert same["difference"]["loss"]["value"] == 0 and "can't tell" in same["verdict"]


def test_the_template_is_served_as_it_was_trained(chat_run):
    from transformers import AutoTokenizer
    out, _ = chat_run
    saved = AutoTokenizer.from_pretrained(out / "model")
    assert saved.chat_template == PLAIN_TEMPLATE
    done = run_course("chat", out, "--max-new-tokens", "8", input="Where is Nadia?\n/quit\n")
    assert done.returncode == 0 and "no chat template" not in done.stderr, done.stderr


@pytest.mark.slow
def test_resumed_to_the_bit(chat_run, chat_file, tmp_path):
    "Cut off after some steps and gone on with, the run ends with the same weights."
    import safetensors.torch as safe
    out, _ = chat_run
    real, calls = training.take_step, []

    def until_the_fifth(loop):
        calls.append(1)
        if len(calls) == 6: raise KeyboardInterrupt
        real(loop)
        training.save(loop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "take_step", until_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(few(chat_file), tmp_path / "run", progress=False)
    fine_tune(few(chat_file), tmp_path / "run", resume=True, progress=False)
    one, other = (safe.load_file(place / "model/model.safetensors")
                  for place in (out, tmp_path / "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_run_of_plain_texts(tmp_path):
    texts = [f"{row['messages'][0]['content']} {'and so on ' * (i % 60)}"
             for i, row in enumerate(practice(80))]
    (tmp_path / "texts.jsonl").write_text(dumped(*[{"text": text} for text in texts]))
    out = tmp_path / "run"
    metrics = fine_tune(few(tmp_path / "texts.jsonl", lora_rank=4), out, progress=False)
    assert metrics["baselines"]["before"]["model_gain"]["low"] > 0
    assert metrics["metrics"]["bits_per_byte"]["value"] < 8
    card = (out / "README.md").read_text()
    assert "Continues texts" in card and "tide" in run_code(card, out)
    (answer,) = predict(out, ["Nadia is at the"])
    assert answer["answer"] and (out / "adapter").is_dir()
    done = run_course("chat", out, input="Hi\n")
    assert done.returncode == 2 and "has no chat template" in done.stderr


def test_a_bad_file_leaves_nothing_behind(tmp_path):
    (tmp_path / "bad.jsonl").write_text(dumped(GOOD, talk(ASKED, ("tool", "3"), SAID)))
    before = sorted(tmp_path.rglob("*"))
    done = run_course("fine-tune", "--task", "text-generation", "--data", tmp_path / "bad.jsonl",
                      "--out", tmp_path / "run")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if "bad.jsonl:2" in line]
    assert "a tool turn – leave such conversations out" in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_question_that_fills_the_row_leaves_nothing_behind(tmp_path):
    rows = [talk(("user", f"What is {i}? {'word ' * (300 * (i == 3))}"), SAID) for i in range(12)]
    (tmp_path / "long.jsonl").write_text(dumped(*rows))
    with pytest.raises(InputError, match="long.jsonl:4 – nothing to learn is left of it in 96 tok"):
        fine_tune(few(tmp_path / "long.jsonl"), tmp_path / "run", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["long.jsonl"]


# the panel

def test_panel(plain_tokenizer):
    tokenizer = with_template(plain_tokenizer, CHATML)
    panel = ChatPanel(small("llama").eval(), tokenizer)
    view, note, field, send, clear = (
        panel.parts[name] for name in ("view", "note", "field", "send", "clear"))
    panel.ask("  ")
    assert panel.messages == [] and panel.thread is None
    field.value = "Is <b> a tag?"
    send.click()
    panel.thread.join()
    asked, answered = panel.messages
    assert asked["content"] == "Is <b> a tag?" and answered["role"] == "assistant"
    assert "Is &lt;b&gt; a tag?" in view.value and field.value == ""
    panel.ask("word " * 400)
    panel.thread.join()
    assert panel.messages == [asked, answered] and "tokens" in note.value
    assert not send.disabled and not clear.disabled
    clear.click()
    assert panel.messages == [] and "Is" not in view.value and note.value == ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_panel_outlives_a_failure(plain_tokenizer):
    panel = ChatPanel(None, with_template(plain_tokenizer, CHATML))
    panel.ask("Hi")
    panel.thread.join()
    assert not panel.parts["send"].disabled
