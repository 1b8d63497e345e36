"""A model that speaks, in Python and at a terminal.

Most tests use a small Llama that is made here and recites one text: its layers do nothing, and its
output layer leads from each token to the next. So what it says is known, to the last token.
"""
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, offline, run_course
from transformers import (AutoTokenizer, LlamaConfig, LlamaForCausalLM,
                          LlamaForSequenceClassification)

from course_lib.chat import (Decoding, chat_ids, check_template, continue_text, converse,
                             find_speaker, load_speaker, newest, reply, streamer, text_ids)
from course_lib.download import cache_folder
from course_lib.errors import InputError
from course_lib.files import is_folder

ANSWER = " rain falls – softly on old roofs 🙂 while nobody listens." # as its tokenizer writes
POSITIONS = 400
TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
            "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
downloaded = pytest.mark.skipif(not is_folder(cache_folder() / "smollm2"),
                                reason="smollm2 isn't downloaded: course download smollm2")
at_terminal = pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")


def chat_tokenizer():
    "The tokenizer of tiny-gpt2 with marks and a template for conversations."
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data/models/tiny-gpt2")
    marks = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    tokenizer.add_special_tokens(marks)
    tokenizer.chat_template = TEMPLATE
    tokenizer.model_max_length = 10**9
    return tokenizer


def small_llama(tokenizer, positions):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=positions,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def reciter(folder, end=True):
    "Save a Llama that answers with ANSWER and ends, or says it again and again."
    tokenizer = chat_tokenizer()
    model = small_llama(tokenizer, POSITIONS if end else 200_000)
    opening = chat_ids(tokenizer, [{"role": "user", "content": "x"}])[-1]
    words = tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    chain = [opening, *words, tokenizer.eos_token_id if end else words[0]]
    assert len(set(chain[:-1])) == len(chain) - 1, "each token leads to one other"
    layer = model.model.layers[0]
    layer.self_attn.o_proj.weight.zero_()
    layer.mlp.down_proj.weight.zero_()
    known = model.model.embed_tokens.weight
    known.div_(known.norm(dim=1, keepdim=True))
    model.lm_head.weight.zero_()
    for here, there in zip(chain, chain[1:]): model.lm_head.weight[there] += 5 * known[here]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory): return reciter(tmp_path_factory.mktemp("model") / "reciter")


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    return reciter(tmp_path_factory.mktemp("model") / "endless", end=False)


@pytest.fixture(scope="module")
def loaded(folder): return load_speaker(str(folder))


@pytest.fixture(scope="module")
def tiny(): return load_speaker("tiny-gpt2")


def user(text): return {"role": "user", "content": text}
def assistant(text): return {"role": "assistant", "content": text}


# --- text ---

def test_it_says_all_and_stops_at_the_end_token(loaded):
    pieces = []
    assert reply(*loaded, [user("Hello")], pieces.append, temperature=0) == ANSWER
    assert "".join(pieces) == ANSWER and len(pieces) > 5
    assert reply(*loaded, [user("Hello")]) == ANSWER, "drawn from one likely token"


@pytest.mark.parametrize("tokens", range(1, 30))
def test_no_letter_is_broken_wherever_the_text_is_cut(loaded, tokens):
    pieces = []
    said = reply(*loaded, [user("Hello")], pieces.append, max_new_tokens=tokens)
    assert ANSWER.startswith(said) and not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("text", ["naïve 🙂🙂 end", "日本語 text", "a line\n\nan end", " a", "a\n"])
def test_pieces_are_the_text(tiny, text):
    tokenizer, pieces = tiny[1], []
    stream = streamer(tokenizer, pieces.append)
    stream.put(torch.tensor([[5, 6]]))                   # the prompt
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for i in ids: stream.put(torch.tensor([i]))
    stream.end()
    assert "".join(pieces) == tokenizer.decode(ids) == f" {text}".replace("  ", " ")


@pytest.mark.parametrize("temperature, top_p", [(0, 0.9), (0.7, 0.9), (1.0, 1.0), (1.5, 0.5)])
def test_it_is_the_librarys_text(tiny, temperature, top_p):
    model, tokenizer = tiny
    ids = [tokenizer.bos_token_id, *tokenizer("A film", add_special_tokens=False)["input_ids"]]
    how = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    torch.manual_seed(3)
    found = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)),
                           max_new_tokens=25, pad_token_id=tokenizer.pad_token_id,
                           **(how if temperature else {"do_sample": False}))
    before = torch.get_rng_state()
    said = continue_text(*tiny, "A film", temperature=temperature, top_p=top_p, seed=3,
                         max_new_tokens=25)
    assert said == tokenizer.decode(found[0, len(ids):], skip_special_tokens=True)
    assert torch.equal(before, torch.get_rng_state()), "others' draws stay as they were"


def test_a_text_begins_as_documents_did(tiny, loaded):
    "Unless that token has become the mark of a message."
    assert text_ids(tiny[1], "A film")[0] == tiny[1].bos_token_id
    assert text_ids(loaded[1], "A film") == text_ids(tiny[1], "A film")[1:]


def test_the_seed_decides(tiny):
    texts = [continue_text(*tiny, "A film", seed=seed, max_new_tokens=20) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_two_tokens_are_as_many_as_were_asked_for(tiny):
    said = continue_text(*tiny, "A film", temperature=0, max_new_tokens=2)
    assert len(tiny[1](said, add_special_tokens=False)["input_ids"]) == 2


def test_a_full_window_ends_the_text(tiny):
    said = continue_text(*tiny, "film " * 250, temperature=0, max_new_tokens=100)
    assert len(tiny[1](said, add_special_tokens=False)["input_ids"]) <= 5


@pytest.mark.parametrize("wrong", [
    {"temperature": -0.1}, {"temperature": 2.1}, {"temperature": float("nan")},
    {"temperature": "hot"}, {"top_p": -0.1}, {"top_p": 1.1}, {"max_new_tokens": 0},
    {"max_new_tokens": 1.5}, {"seed": -1}])
def test_impossible_settings_are_refused(tiny, wrong):
    with pytest.raises(InputError) as e: continue_text(*tiny, "A film", **wrong)
    assert next(iter(wrong)) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("text, problem", [
    ("", "is empty"), (" \n", "is empty"), ("\udcff", "not UTF-8"),
    ("word " * 300, "tokens, the model reads 256")])
def test_texts_that_cannot_be_continued(tiny, text, problem):
    with pytest.raises(InputError, match=problem): continue_text(*tiny, text)


# --- a conversation ---

def test_the_oldest_turns_go_first(loaded):
    messages = [user("one " * 60), assistant("1"), user("two " * 60), assistant("2"), user("now")]
    whole = len(chat_ids(loaded[1], messages))
    assert newest(*loaded, messages, Decoding(max_new_tokens=POSITIONS - whole)) == messages
    less = newest(*loaded, messages, Decoding(max_new_tokens=POSITIONS - whole + 1))
    assert less == messages[2:]
    assert newest(*loaded, messages, Decoding(max_new_tokens=POSITIONS)) == messages[4:]


def test_what_is_forgotten_is_said_once(loaded):
    said, notes = [], []
    lines = ["long " * 150, "long " * 150, "short", "short"]
    messages = converse(*loaded, lines, said.append, notes.append, max_new_tokens=60)
    assert notes == ["the oldest 2 messages no longer fit and are forgotten"]
    assert "".join(said) == 4 * f"{ANSWER}\n"
    assert [m["content"] for m in messages] == ["long " * 149 + "long", *[ANSWER, "short"] * 2,
                                                ANSWER]


def test_lines_with_a_meaning_and_lines_without(loaded, caplog):
    said, notes = [], []
    lines = iter(["", "  ", "one", "/clear", "two\n", "word " * 500, "\udcff", "/quit", "three"])
    messages = converse(*loaded, lines, said.append, notes.append)
    assert messages == [user("two"), assistant(ANSWER)] and next(lines) == "three"
    assert len(notes) == 2, "nothing is said to be forgotten when nothing is"
    assert "shorten it" in notes[0] and "not UTF-8" in notes[1]
    assert not caplog.records, "the library has nothing to add"


def test_an_interrupted_answer_stays_as_far_as_it_went(loaded):
    said = []
    def say(piece):
        said.append(piece)
        if len(said) == 3: raise KeyboardInterrupt
    messages = converse(*loaded, ["one", "two"], say)
    first, second = messages[1]["content"], messages[3]["content"]
    assert first.endswith("…") and ANSWER.startswith(first.removesuffix(" …").rstrip())
    assert second == ANSWER


# --- models that can't ---

def test_models_that_cannot_speak_are_refused(loaded, tmp_path):
    classifier = LlamaForSequenceClassification(loaded[0].config)
    classifier.save_pretrained(tmp_path / "classifier")
    loaded[1].save_pretrained(tmp_path / "classifier")
    for name in ("tiny-bert", "tiny-t5", str(tmp_path / "classifier")):
        with pytest.raises(InputError, match="doesn't continue texts – take a GPT"):
            load_speaker(name)


def test_a_run_speaks_if_it_was_trained_to(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"task": "text-classification"}))
    with pytest.raises(InputError, match="it gives labels, no text – .* course predict"):
        find_speaker(str(tmp_path))
    recipe.write_text(json.dumps({"task": "text-generation"}))
    assert reply(*load_speaker(str(tmp_path)), [user("Hello")]) == ANSWER
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(InputError, match="has no model yet"): find_speaker(str(tmp_path))


def test_without_a_template_there_is_no_conversation(tiny, loaded):
    with pytest.raises(InputError, match="course generate tiny-gpt2"):
        check_template("tiny-gpt2", tiny[1])
    check_template("reciter", loaded[1])


def test_what_is_not_downloaded_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="course download smollm2"): load_speaker("smollm2")


# --- the command line ---

def test_a_pipe_gets_the_answers_alone(folder):
    done = run_course("chat", folder, input="Hello\n\nAgain")
    assert (done.returncode, done.stdout, done.stderr) == (0, 2 * f"{ANSWER}\n", "")


def test_bytes_that_are_no_text_are_one_line(folder):
    done = run_course("chat", folder, input=b"\xff\xfe\nHello\n")
    assert done.returncode == 0 and done.stdout == f"{ANSWER}\n"
    assert done.stderr == "course: the text – is not UTF-8 – convert it first\n"


def test_generate_takes_its_text_from_either_side(tiny):
    text = continue_text(*tiny, "The film was", seed=5, max_new_tokens=20) + "\n"
    options = ["--seed", 5, "--max-new-tokens", 20]
    given = run_course("generate", "tiny-gpt2", "The film was", *options)
    piped = run_course("generate", "tiny-gpt2", "-", *options, input="The film was\n")
    assert given.stdout == piped.stdout == text and given.stderr == piped.stderr == ""


@pytest.mark.parametrize("arguments, problem", [
    (["generate", "tiny-gpt2", "A", "--temperature", "3"], "--temperature 3.0 – is not between"),
    (["generate", "tiny-gpt2", "A", "--top-p", "nan"], "--top-p nan – is not between"),
    (["chat", "--max-new-tokens", "0"], "--max-new-tokens 0 – is not between"),
    (["generate", "tiny-gpt2", " "], "is empty"),
    (["generate", "tiny-gpt2", "word " * 400], "tokens, the model reads 256"),
    (["generate", "tiny-bert", "A"], "doesn't continue texts"),
    (["chat", "tiny-gpt2"], "no chat template"),
    (["chat", "./nowhere"], "is not there"),
])
def test_a_refusal_is_one_line(arguments, problem):
    done = run_course(*arguments)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert problem in done.stderr


def start(*arguments, **streams):
    command = [sys.executable, "-m", "course_lib", *map(str, arguments)]
    environment = {**offline(), "PYTHONPATH": str(ROOT), "TERM": "dumb"}
    return subprocess.Popen(command, env=environment, **streams)


@pytest.mark.slow
def test_a_closed_output_ends_it_quietly(endless):
    process = start("generate", endless, "rain", "--max-new-tokens", 90_000,
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert len(process.stdout.read(20)) == 20
    process.stdout.close()
    assert process.wait(timeout=60) == 0 and process.stderr.read() == b""
    process.stderr.close()


class Terminal:
    "A program in a pseudo-terminal of its own, and what it has written there."
    def __init__(self, *arguments, stdout=None):
        import fcntl
        import pty
        import termios
        self.end, inside = pty.openpty()
        def own():
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)   # a background job would ignore Ctrl-C
        self.process = start(*arguments, stdin=inside, stdout=stdout or inside,
                             stderr=inside, start_new_session=True, preexec_fn=own)
        os.close(inside)
        self.seen, self.chunks = "", []

    def read(self, wait):
        "Take what is there; False at the end."
        if not select.select([self.end], [], [], wait)[0]: return True
        try: found = os.read(self.end, 65536)
        except OSError: return False                     # the other end is closed
        self.seen += found.decode(errors="replace").replace("\r\n", "\n")
        self.chunks.append(found)
        return bool(found)

    def until(self, text, seconds=240):
        "What came before that text; it counts as read."
        last = time.monotonic() + seconds
        while text not in self.seen:
            assert self.read(0.2) and time.monotonic() < last, f"no {text!r} in {self.seen[-999:]}"
        before, self.seen = self.seen.split(text, 1)
        return before

    def type(self, text):
        "Type, and read meanwhile: a terminal that nobody reads gets stuck."
        rest = text.encode()
        while rest:
            if select.select([], [self.end], [], 0.1)[1]:
                written = os.write(self.end, rest[:512])
                rest = rest[written:]
            self.read(0)

    def interrupt(self):
        "Ctrl-C, pressed until it is heard: between the prompt and the first key it can be lost."
        for _ in range(5):
            self.type("\x03")
            for _ in range(100):           # a second one while it ends would kill it
                if self.process.poll() is not None: return
                self.read(0.1)

    def close(self):
        "The exit code."
        last = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < last: self.read(0.1)
        while self.read(0.1) and select.select([self.end], [], [], 0)[0]: pass
        if self.process.poll() is None: self.process.kill()
        os.close(self.end)
        return self.process.wait()


@at_terminal
@pytest.mark.slow
def test_a_conversation_at_a_terminal(folder):
    terminal = Terminal("chat", folder)
    assert "/quit or Ctrl-D ends" in terminal.until("> ")
    terminal.type("Hello\n")
    assert ANSWER in terminal.until("> "), "it stops at the end token and asks again"
    terminal.type("\n")
    assert terminal.until("> ").strip() == ""
    terminal.type("word " * 10_000 + "\n")
    terminal.until("course: the text – has ")
    rest = terminal.until("> ")
    assert "reads 400 – shorten it" in rest and rest.count("\n") == 1, "one line, nothing else"
    terminal.type("Still there?\n")
    assert ANSWER in terminal.until("> ")
    terminal.type("\x04")
    assert terminal.close() == 0 and "Traceback" not in terminal.seen


@at_terminal
@pytest.mark.slow
def test_ctrl_c_stops_the_answer_and_then_the_chat(endless):
    terminal = Terminal("chat", endless, "--max-new-tokens", 90_000)
    terminal.until("> ")
    for _ in range(2):
        terminal.type("Hello\n")
        terminal.until("nobody listens. rain falls")       # it is seen while it goes on
        terminal.until("nobody listens. rain falls")
        assert len(terminal.chunks) > 5
        terminal.type("\x03")
        terminal.until("\n> ")
    terminal.interrupt()
    assert terminal.close() == 130 and "Traceback" not in terminal.seen


@at_terminal
@pytest.mark.slow
def test_the_prompt_stays_at_the_terminal_and_head_may_end_it(endless):
    "`course chat | head -c 20`, typed at a terminal."
    terminal = Terminal("chat", endless, "--max-new-tokens", 90_000, stdout=subprocess.PIPE)
    terminal.until("> ")
    terminal.type("Hello\n")
    output = terminal.process.stdout
    assert output.read(20).decode().startswith(" rain falls")
    output.close()
    assert terminal.close() == 0 and terminal.seen == "Hello\n", "but for the echo, nothing"


# --- the real one ---

@downloaded
@at_terminal
@pytest.mark.slow
def test_smollm2_speaks_at_a_terminal():
    terminal = Terminal("chat", "--temperature", 0)
    terminal.until("> ")
    terminal.type("What is the capital of France?\n")
    terminal.chunks.clear()
    assert "Paris" in terminal.until("\n> ")
    assert len(terminal.chunks) > 3, "it comes in pieces"
    terminal.type("word " * 10_000 + "\n")
    assert "the model reads 8,192 – shorten it" in terminal.until("\n> ")
    terminal.type("/quit\n")
    assert terminal.close() == 0
