"Files for other runtimes: what is refused, what is equal, and what a changed folder is told."
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from course_lib import export as exporting
from course_lib import formats
from course_lib.errors import InputError
from course_lib.export import (
    Exported, check_export, compare_exports, compare_writing, export, load_export)
from course_lib.models import load
from course_lib.records import recorded
from course_lib.runs import predict, predict_texts

TEXTS = ["A joy from start to end!", "no.", "🤷🏽‍♀️ 这部电影很好看", "it was " * 300]


def write_run(folder: Path, name: str, task: str, classes: list) -> Path:
    "A run folder as far as an export reads it, with a new head."
    model, tokenizer = load(name, task, classes or None)
    for part in (model, tokenizer): part.save_pretrained(folder / "model")
    recipe = {"task": task, "classes": dict.fromkeys(classes, 1), "max_length": 64}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), "tiny-gpt2", "text-classification",
                     ["bad", "good", "odd"])


@pytest.fixture(scope="module")
def onnx(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "onnx"
    export(run, out, "onnx")
    return out


@pytest.fixture
def copied(onnx, tmp_path):
    return Path(shutil.copytree(onnx, tmp_path / "copied"))


def same_answers(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert one["text"] == other["text"] and one["label"] == other["label"]
        off = [abs(one["scores"][name] - share) for name, share in other["scores"].items()]
        assert max(off) < 1.1e-4 # the run's are rounded to four digits or more


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_classifier_answers_as_its_run(run, onnx, batch_size):
    same_answers(Exported(onnx).answer(TEXTS, batch_size), predict(run, TEXTS))


def test_in_the_model_s_place(run, onnx):
    same_answers(predict_texts(*load_export(onnx), TEXTS, 2), predict(run, TEXTS))


def test_no_torch_is_needed(onnx):
    code = ("import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
            "from course_lib.export import Exported\n"
            "print(Exported(sys.argv[1]).answer(['fine'])[0]['label'])")
    done = subprocess.run([sys.executable, "-c", code, onnx], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and done.stdout.strip() in ("bad", "good", "odd"), done.stderr


def test_what_an_answerer_has(onnx):
    answerer = Exported(onnx)
    assert (answerer.name, answerer.task) == ("onnx", "text-classification")
    for texts in ([""], [3], ["\ud800"]):
        with pytest.raises(InputError): answerer.answer(texts)


def one_line(error) -> str:
    "The message of an error, which must have three parts."
    said = str(error.value)
    assert said.count(" – ") == 2 and "\n" not in said, said
    return said


@pytest.mark.parametrize("kind", ["gguf", "ctranslate2"])
def test_a_classifier_is_no_model_that_writes(run, tmp_path, kind):
    with pytest.raises(InputError) as error: export(run, tmp_path / "out", kind)
    assert "gpt2 and llama" in one_line(error) and not os.listdir(tmp_path)


def test_two_stacks_are_refused(tmp_path):
    with pytest.raises(InputError) as error: export("tiny-t5", tmp_path / "out", "onnx")
    assert "two stacks" in one_line(error) and not os.listdir(tmp_path)


def test_unknown_kind_and_no_run(run, tmp_path):
    with pytest.raises(InputError) as error: export(run, tmp_path / "out", "pickle")
    assert "ctranslate2" in one_line(error)
    with pytest.raises(InputError) as error: export(tmp_path, tmp_path / "out", "onnx")
    assert "recipe.json" in str(error.value) and not os.listdir(tmp_path)


def test_refusals_come_before_torch(run, tmp_path):
    code = ("import sys; sys.modules['torch'] = None\n"
            "from course_lib.export import export\n"
            "from course_lib.errors import InputError\n"
            "try: export(sys.argv[1], sys.argv[2], 'gguf')\n"
            "except InputError as e: print('refused', e)")
    done = subprocess.run([sys.executable, "-c", code, run, tmp_path / "out"], text=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout.startswith("refused"), done.stderr


@pytest.mark.parametrize("force", [False, True])
def test_nothing_of_the_user_s_is_replaced(run, tmp_path, force):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError) as error: export(run, tmp_path / "mine", "onnx", force=force)
    one_line(error)
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


@pytest.mark.parametrize("inside", [".", "model", "model/onnx", ".."])
def test_never_in_the_run_or_around_it(run, inside):
    before = sorted(p for p in run.rglob("*"))
    with pytest.raises(InputError) as error: export(run, run / inside, "onnx", force=True)
    assert "lies in" in one_line(error) and sorted(p for p in run.rglob("*")) == before


def test_an_export_is_replaced_only_by_force(run, copied, monkeypatch):
    with pytest.raises(InputError) as error: export(run, copied, "onnx")
    assert "force=True" in one_line(error)
    monkeypatch.setitem(exporting.WRITERS, "onnx", write_one_file)
    assert "model.onnx" in export(run, copied, "onnx", force=True)["files"]
    assert (copied / "model.onnx").read_text() == "new"
    assert sorted(os.listdir(copied.parent)) == ["copied"]


def write_one_file(model, tokenizer, folder: Path) -> dict:
    (folder / "model.onnx").write_text("new")
    return {}


def test_a_failed_export_leaves_the_old_one(run, copied, monkeypatch):
    def fails(model, tokenizer, folder):
        write_one_file(model, tokenizer, folder)
        raise OSError(28, "No space left on device")
    before = check_export(copied)
    monkeypatch.setitem(exporting.WRITERS, "onnx", fails)
    with pytest.raises(InputError) as error: export(run, copied, "onnx", force=True)
    assert "make room" in str(error.value)
    assert check_export(copied) == before and os.listdir(copied.parent) == ["copied"]


def test_a_library_that_is_missing_is_named(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError) as error: export(run, tmp_path / "out", "onnx")
    assert "course-lib[export]" in one_line(error) and not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_a_changed_file_is_refused(copied, name):
    with open(copied / name, "ab") as f: f.write(b" ")
    with pytest.raises(InputError) as error: Exported(copied)
    assert name in one_line(error)


def test_a_missing_or_further_file_is_refused(copied):
    (copied / "evil.py").write_text("print()")
    with pytest.raises(InputError) as error: check_export(copied)
    assert "evil.py" in one_line(error)
    (copied / "evil.py").unlink()
    (copied / "tokenizer.json").unlink()
    with pytest.raises(InputError) as error: check_export(copied)
    assert "tokenizer.json" in one_line(error)


def test_a_link_is_refused(copied, onnx):
    (copied / "model.onnx").unlink()
    (copied / "model.onnx").symlink_to(onnx / "model.onnx")
    with pytest.raises(InputError) as error: check_export(copied)
    assert "link" in one_line(error)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "pickle"}'])
def test_a_manifest_that_says_nothing(copied, text):
    (copied / "export.json").write_text(text)
    with pytest.raises(InputError): check_export(copied)


def test_a_tokenizer_that_isn_t_whole_is_noticed(onnx):
    _, tokenizer = load("tiny-gpt2", labels=["a", "b"])
    exporting.check_tokenizer(onnx, tokenizer)
    tokenizer.add_tokens(["naïve"])
    with pytest.raises(InputError) as error: exporting.check_tokenizer(onnx, tokenizer)
    assert "cut differently" in one_line(error)
    _, tokenizer = load("tiny-gpt2", labels=["a", "b"])
    tokenizer.chat_template = "{{ messages[0].content }}"
    with pytest.raises(InputError) as error: exporting.check_tokenizer(onnx, tokenizer)
    assert "chat_template" in str(error.value)


def test_eight_bits(run, onnx, tmp_path):
    export(run, tmp_path / "int8", "onnx-int8")
    sizes = [(p / "model.onnx").stat().st_size for p in (tmp_path / "int8", onnx)]
    assert sizes[0] < 0.35 * sizes[1]
    few = exporting.Exported(tmp_path / "int8").probabilities(TEXTS)
    whole = exporting.Exported(onnx).probabilities(TEXTS)
    assert 0 < abs(few - whole).max() < 0.2


def test_the_table(run, onnx):
    rows = {"text": TEXTS, "label": [0, 1, 2, 0]}
    table = compare_exports(run, [onnx], rows, timed=2)
    own = table.loc["onnx"]
    assert own["flips"] == 0 and own["largest difference"] < 1e-4 and own["n"] == 4
    assert own["flip rate low"] == 0 < own["flip rate high"] < 1
    assert table.loc["safetensors", "accuracy"] == own["accuracy"]


def test_exports_of_other_weights_aren_t_compared(onnx, tmp_path):
    classes = ["bad", "good", "odd"]
    other = write_run(tmp_path / "other", "tiny-gpt2", "text-classification", classes)
    path = next((other / "model").glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        compare_exports(other, [onnx], {"text": TEXTS, "label": [0] * 4})
    assert "was not made from" in one_line(error)


@pytest.mark.parametrize("name, task, classes, texts", [
    ("tiny-bert", "text-classification", ["a", "b"], TEXTS),
    ("tiny-bert", "token-classification", ["O", "B-PER", "I-PER"], ["Ada met Grace in Paris."]),
    ("tiny-gpt2", "question-answering", [], ["Who came?\tAda came, and Grace left."]),
])
def test_other_tasks(tmp_path, name, task, classes, texts):
    run = write_run(tmp_path / "run", name, task, classes)
    export(run, tmp_path / "out", "onnx")
    found, wanted = Exported(tmp_path / "out").answer(texts), predict(run, texts)
    if task == "text-classification": return same_answers(found, wanted)
    assert [{**one, "score": 0} for one in found] == [{**one, "score": 0} for one in wanted]


def small_llama():
    "A Llama of two layers whose queries share keys, with positions of another base."
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 5000.0}
    model = LlamaForCausalLM(LlamaConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
        intermediate_size=96, vocab_size=8200, max_position_embeddings=128, rope_parameters=rope,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=1))
    for weight in model.parameters(): weight.data *= 4 # so that it doesn't say one word for ever
    return model


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def writer(request, tmp_path_factory):
    "A run folder of a model that writes."
    folder = tmp_path_factory.mktemp("writer")
    write_run(folder, "tiny-gpt2", "text-generation", [])
    if request.param == "llama":
        shutil.rmtree(folder / "model")
        small_llama().save_pretrained(folder / "model")
        _, tokenizer = load("tiny-gpt2", "text-generation")
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(folder / "model")
    return folder


TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
PROMPTS = [[281, 382], [277, 971, 306, 351, 33], [319], list(range(300, 340))]


def test_models_that_write(writer, tmp_path):
    for kind in ("onnx", "gguf", "ctranslate2"): export(writer, tmp_path / kind, kind)
    made = [tmp_path / kind for kind in ("onnx", "gguf", "ctranslate2")]
    for size in (1, 3): # alone, and together with padding in front
        table = compare_writing(writer, made, PROMPTS, max_new_tokens=16, batch_size=size)
        assert (table["same"] == len(PROMPTS)).all() and table["tokens"].nunique() == 1
    padded_in_front(writer, tmp_path / "onnx")
    template_travels(writer, tmp_path)
    texts = ["Hello", "What is it about, and who is in it?"]
    for out in made: assert Exported(out).answer(texts) == predict(writer, texts)
    inside = check_export(tmp_path / "gguf")["tokenizer_inside"]
    assert 0 < inside["cut_differently"] <= inside["hard_texts"]


def padded_in_front(writer, out):
    "Together, with padding in front, the graph writes what it writes alone."
    model, tokenizer, _ = load_export(out)
    longest = max(map(len, PROMPTS))
    ids = torch.tensor([[1] * (longest - len(p)) + p for p in PROMPTS])
    how = {"max_new_tokens": 9, "eos_token_id": [0, 2], "pad_token_id": 1}
    together = model.generate(ids, (ids != 1).long(), **how)[:, longest:].tolist()
    for prompt, found in zip(PROMPTS, together):
        alone = model.generate(torch.tensor([prompt]), **how)[0, len(prompt):].tolist()
        assert found[:len(alone)] == alone and set(found[len(alone):]) <= {1}
    logits = model(ids[3:]).logits.numpy()
    with torch.inference_mode(): wanted = load(str(writer / "model"), "text-generation")[0](ids[3:])
    assert np.allclose(logits, wanted.logits.numpy(), atol=1e-4)


def template_travels(writer, folder):
    _, own = load(str(writer / "model"), "text-generation")
    for kind in ("onnx", "gguf", "ctranslate2"):
        assert load_export(folder / kind)[1].chat_template == own.chat_template


def test_gguf_s_weights_are_the_same(writer, tmp_path):
    export(writer, tmp_path / "gguf", "gguf")
    again = load_export(tmp_path / "gguf")[0].state_dict()
    own = load(str(writer / "model"), "text-generation")[0].state_dict()
    assert set(own) == set(again) and all(torch.equal(own[name], again[name]) for name in own)


def test_sampling_is_refused(writer, tmp_path):
    export(writer, tmp_path / "out", "ctranslate2")
    model, *_ = load_export(tmp_path / "out")
    with pytest.raises(InputError) as error:
        model.generate(torch.tensor([[5]]), max_new_tokens=1, eos_token_id=0, pad_token_id=1,
                       do_sample=True)
    one_line(error)


def test_a_wrong_graph_is_refused(run, tmp_path, monkeypatch):
    other = write_run(tmp_path / "other", "tiny-gpt2", "text-classification", ["a", "b", "c"])
    model, _ = load(str(other / "model"), labels=["a", "b", "c"])
    with torch.no_grad(): model.score.weight += 0.1
    wrong = formats.reading_graph(model)
    monkeypatch.setattr(formats, "reading_graph", lambda model: wrong)
    with pytest.raises(InputError) as error: export(run, tmp_path / "out", "onnx")
    assert "other logits" in one_line(error) and os.listdir(tmp_path) == ["other"]


def test_what_can_t_be_traced_is_refused(run, tmp_path, monkeypatch):
    class Decides(torch.nn.Module):
        def forward(self, x): return x + 1 if x.sum() > 0 else x - 1
    graph = Decides(), {"x": torch.ones(2)}, ["y"], {"x": {}}
    monkeypatch.setattr(formats, "reading_graph", lambda model: graph)
    with pytest.raises(InputError) as error: export(run, tmp_path / "out", "onnx")
    assert "can't be traced" in one_line(error) and not os.listdir(tmp_path)


def test_the_records_are_those_of_the_settings():
    for name, (_, settings) in exporting.RECORDS.items():
        assert recorded(name)[list(settings[0])].to_dict("records") == settings


def test_prompts_of_the_record_are_openings():
    _, tokenizer = load("tiny-gpt2", "text-generation")
    tokenizer.chat_template = TEMPLATE
    prompts = exporting.chat_prompts(tokenizer, 0, 3)
    said = tokenizer.decode(prompts[2])
    assert len(prompts) == 3 and "system:" in said and "assistant" not in said


def test_a_record_needs_its_data(monkeypatch):
    monkeypatch.delenv("COURSE_REAL_DATA", raising=False)
    with pytest.raises(InputError) as error: exporting.film_rows("train")
    assert "COURSE_REAL_DATA" in one_line(error)
