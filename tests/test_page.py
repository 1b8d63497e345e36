"A page answers as the library does, with the same ids and probabilities, and is safe to open."
import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import unicodedata
from dataclasses import asdict
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import course_lib.page
from course_lib.data import fingerprint, load_data
from course_lib.errors import InputError
from course_lib.files import read_json_file, write_json
from course_lib.models import load
from course_lib.page import (
    ask_node, check_page, count_flips, dequantize_rows, pack, page_model,
    page_probabilities, page_weights, quantize_rows, read_page, unpack, write_page)
from course_lib.recipe import Recipe
from course_lib.runs import save_model

NODE = shutil.which("node")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_node = pytest.mark.skipif(not NODE, reason="Node.js (node) isn't installed")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="Chromium isn't installed")
HOSTILE = ["</script><script>document.title='owned'</script>", "\"'><b onclick=x>{}&amp;"]
FIRST = pytest.mark.parametrize("written", ["tiny-gpt2"], indirect=True)   # one of them will do
HARD = [
    "Ünïcödé ÇA", "e\u0301 \u00e9 \u1e9b\u0323 q\u0307\u0323", "naïve Σίσυφος ΟΔΟΣ",
    "日本語 한국어", "ไทย हिन्दी",
    "👩‍👩‍👧 👍🏽!! 🏳️‍🌈",
    "a\u00a0b\ufeffc\u0085d\u2028e", "tabs\t\nand  lines\r\n ", "   ", "\ufeff",
    "don't, WE'LL it's 12½ ²Ⅷ", "<|endoftext|>a<|pad|> b<|pad|>", "<|endoftext|>", "<|end",
    "İI ǅ ß ﬀ",
    "\x00\x1f\x7f", "word " * 2000, "a" * 100_000, "1" * 300, "ab" * 700, "מילה العربية" * 200,
    "__proto__ constructor toString undefined", "<!--<script>", "'S 'LL 'll'd",
]


def make_run(folder, model="tiny-gpt2", labels=("negative", "positive"), data="reviews"):
    "A run folder as a training leaves it, with a new head instead of a trained one."
    network, tokenizer = load(model, labels=list(labels))
    head = network.score if hasattr(network, "score") else network.classifier
    with torch.no_grad(): head.weight *= 10        # sure of its answers, as after training
    save_model(folder / "model", network, tokenizer)
    splits = load_data(data)
    kept = {"fingerprints": {name: fingerprint(rows) for name, rows in splits.items()},
            "classes": dict.fromkeys(labels, 1)}
    write_json(folder / "recipe.json", {**asdict(Recipe(data=data, model=model)), **kept})
    scores = {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}
    write_json(folder / "metrics.json", {"split": "test", "n": 10, "metrics": scores})
    return folder


@pytest.fixture(scope="module", params=["tiny-gpt2", "tiny-bert"])
def written(request, tmp_path_factory):
    "A run and its page."
    folder = tmp_path_factory.mktemp(request.param)
    run = make_run(folder / "run", request.param)
    return run, folder / "page.html", write_page(run, folder / "page.html")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    "A run whose classes and data have names that would like to be HTML."
    folder = tmp_path_factory.mktemp("hostile")
    rows = [{"text": f"row number {i} of many", "label": HOSTILE[i % 2]} for i in range(60)]
    table = folder / "<b onload=1>&.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return make_run(folder / "run", labels=sorted(HOSTILE), data=str(table))


@pytest.fixture
def broken(tmp_path, written):
    "A copy of a run, to be changed."
    return shutil.copytree(written[0], tmp_path / "run")


# eight bits

@pytest.mark.parametrize("seed", range(5))
def test_no_weight_is_off_by_more_than_half_a_step(seed):
    rng = np.random.default_rng(seed)
    weight = (rng.standard_normal((40, 30)) * 10.0 ** rng.integers(-6, 6, (40, 1))).astype("f4")
    weight[3] = 0
    steps, scales = quantize_rows(weight)
    assert steps.dtype == np.int8 and scales.dtype == np.float32 and abs(steps).max() == 127
    off = np.abs(dequantize_rows(steps, scales) - weight)
    assert (off <= 0.5001 * scales[:, None]).all() and not dequantize_rows(steps, scales)[3].any()


def test_packing_keeps_every_tensor(written):
    model, _ = load(str(written[0] / "model"))
    weights = unpack(pack(model))
    kept = dict(model.named_parameters())
    assert list(weights) == list(kept)
    for name, weight in weights.items():
        original = kept[name].detach().numpy()
        if original.ndim == 1: assert (weight == original).all()
        else: assert sorted(weight.shape) == sorted(original.shape)


def test_flips_are_counted():
    before = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    after = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.35, 0.65]])
    found = count_flips(before, after, np.array([0, 1, 1, 1]))
    assert (found["n"], found["flips"], found["rate"]) == (4, 1, 0.25)
    assert 0 < found["low"] < 0.25 < found["high"] < 1
    assert (found["accuracy"], found["accuracy_rounded"]) == (0.75, 1.0)
    assert found["largest_shift"] == pytest.approx(0.2)


# what is written

def test_sizes(written):
    run, page, said = written
    assert page.stat().st_size == said["bytes"] < 20e6
    foreseen = page_weights(run / "model/model.safetensors")
    assert said["weights"] <= foreseen < min(4e6, 1.01 * said["weights"])


def test_the_page_states_the_flips_that_were_measured(written):
    run, page, said = written
    flips, html = said["flips"], page.read_text(encoding="utf-8")
    assert flips["n"] == 576 and flips["split"] == "test" and flips["rate"] < 0.05
    assert f"{flips['flips']} of the 576 rows" in html and f"{flips['high']:.1%}" in html
    texts = load_data("reviews")["test"]["text"][:50]
    model, tokenizer = load(str(run / "model"))
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.inference_mode(): exact = model(**inputs).logits.softmax(-1).numpy()
    rounded = page_probabilities(page, texts)
    assert np.abs(exact - rounded).max() <= flips["largest_shift"] + 1e-5
    assert (exact.argmax(-1) != rounded.argmax(-1)).sum() <= flips["flips"]


def test_a_run_and_its_page_say_the_same(written):
    run, page, _ = written
    texts = ["good", "A long, winding bore."]
    assert (page_probabilities(run, texts) == page_probabilities(page, texts)).all()


def test_nothing_is_loaded_from_elsewhere(written):
    html = written[1].read_text(encoding="utf-8")
    visible = re.sub(r'(?s)<script type="application/json".*?</script>', "", html)
    assert not re.search(r"https?:|//\w+\.|\bsrc=|\bhref=|url\(|@import|import\(|fetch\(", visible)


def test_the_policy_allows_exactly_what_is_there(written):
    html = written[1].read_text(encoding="utf-8")
    policy = re.search(r'Security-Policy" content="([^"]+)"', html)[1]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    parts = re.findall(r"(?s)<(script|style)(?: id=\"code\")?>(.*?)</\1>", html)
    sums = [hashlib.sha256(text.encode()).digest() for _, text in parts]
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    assert sorted(base64.b64encode(s).decode() for s in sums) == sorted(allowed)
    assert len(allowed) == 3


class Tags(HTMLParser):
    "Which elements a browser would find."

    def __init__(self, html):
        super().__init__()
        self.seen = []
        self.feed(html)

    def handle_starttag(self, tag, attrs): self.seen.append((tag, tuple(sorted(dict(attrs)))))


def test_hostile_names_stay_names(hostile, tmp_path, written):
    write_page(hostile, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    plain = written[1].read_text(encoding="utf-8")
    assert Tags(html).seen == Tags(plain).seen
    assert read_page(tmp_path / "page.html")["labels"] == sorted(HOSTILE)


@FIRST
def test_rows_that_are_gone_are_said_to_be_gone(broken, tmp_path):
    recipe = read_json_file(broken / "recipe.json")
    recipe["fingerprints"]["test"] = "0" * 16
    write_json(broken / "recipe.json", recipe)
    assert write_page(broken, tmp_path / "page.html")["flips"] is None
    assert "could not be counted" in (tmp_path / "page.html").read_text(encoding="utf-8")


@FIRST
def test_the_run_is_left_as_it_was(broken, tmp_path):
    def state(): return {p: p.read_bytes() for p in broken.rglob("*") if p.is_file()}
    before = state()
    write_page(broken, tmp_path / "page.html")
    assert state() == before


# what is refused

@FIRST
def test_nothing_is_overwritten(written, tmp_path):
    run, page = written[0], tmp_path / "page.html"
    page.write_text("mine")
    for out in (page, tmp_path, run / "page.html", run / "README.md"):
        with pytest.raises(InputError): write_page(run, out)
    assert page.read_text() == "mine" and not (run / "page.html").exists()
    with pytest.raises(InputError, match="is read here"):
        write_page(run, run / "metrics.json", force=True)
    write_page(run, page, force=True)
    assert read_page(page)["labels"] == ["negative", "positive"]


CONFIGS = [{"model_type": "llama"}, {"architectures": ["GPT2LMHeadModel"]}, {"model_type": None}]
OF_FAMILY = {
    "gpt2": [{"activation_function": "relu"}, {"scale_attn_weights": False},
             {"scale_attn_by_inverse_layer_idx": True}],
    "modernbert": [{"classifier_pooling": "mean"}, {"hidden_activation": "gelu"},
                   {"norm_bias": True}, {"layer_types": ["sliding_attention"] * 4},
                   {"rope_parameters": {}}],
}


def test_models_that_the_page_would_get_wrong_are_refused(broken, tmp_path):
    path = broken / "model/config.json"
    config = read_json_file(path)
    for wrong in CONFIGS + OF_FAMILY[config["model_type"]]:
        write_json(path, {**config, **wrong})
        with pytest.raises(InputError, match=" – .* – fine-tune tiny") as error:
            write_page(broken, tmp_path / "page.html")
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [broken]


def change(content, *keys, to):
    "A copy of nested dictionaries with another value at one place."
    copy = json.loads(json.dumps(content))
    place = copy
    for key in keys[:-1]: place = place[key]
    place[keys[-1]] = to
    return copy


@FIRST
def test_other_tokenizers_are_refused(broken):
    path = broken / "model/tokenizer.json"
    content = read_json_file(path)
    for wrong in (change(content, "normalizer", to=None),
                  change(content, "normalizer", "normalizers", 0, "type", to="NFKC"),
                  change(content, "pre_tokenizer", "add_prefix_space", to=False),
                  change(content, "model", "type", to="WordPiece"),
                  change(content, "model", "byte_fallback", to=True),
                  change(content, "added_tokens", 1, "lstrip", to=True),
                  change(content, "model", "vocab", to={"a": 0}),
                  change(content, "post_processor", to=None), {}):
        write_json(path, wrong)
        with pytest.raises(InputError, match="its tokenizer"): check_page(broken)
    write_json(path, content)
    check_page(broken)


@FIRST
def test_other_tasks_and_big_models_are_refused(broken, monkeypatch):
    monkeypatch.setattr(course_lib.page, "LARGEST", 3_000_000)
    with pytest.raises(InputError, match=r"3\.\d MB"): check_page(broken)
    monkeypatch.undo()
    recipe = read_json_file(broken / "recipe.json")
    write_json(broken / "recipe.json", {**recipe, "task": "token-classification"})
    with pytest.raises(InputError, match="token-classification"): check_page(broken)


@FIRST
def test_damaged_weights_are_refused(broken):
    for content in (b"", b"\xff" * 40):
        (broken / "model/model.safetensors").write_bytes(content)
        with pytest.raises(InputError, match="can't be read"): check_page(broken)


@FIRST
@pytest.mark.parametrize("text", ["", " \n", "\ud800"])
def test_texts_that_a_run_refuses(written, text):
    with pytest.raises(InputError): page_probabilities(written[1], [text])


def test_a_file_that_is_no_page(tmp_path):
    (tmp_path / "x.html").write_text("<p>no</p>")
    with pytest.raises(InputError, match="no page"): read_page(tmp_path / "x.html")


def test_a_refusal_needs_no_torch(tmp_path):
    code = ("import sys\nfrom course_lib.page import write_page\n"
            f"try: write_page({str(tmp_path)!r}, 'page.html')\n"
            "except ValueError: print('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_ids_are_those_of_the_run(written):
    run, page, _ = written
    _, tokenizer = load(str(run / "model"))
    ids = tokenizer(HARD, truncation=True, max_length=256)["input_ids"]
    assert ids == [e.ids for e in page_model(read_page(page))[1].encode_batch(HARD)]


# the JavaScript

@needs_node
@pytest.mark.parametrize("n", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_javascript_computes_what_torch_computes(written, n):
    page = written[1]
    hard = [text for text in HARD if text.strip() and len(text) < 100]
    texts = load_data("reviews")["test"]["text"][:n] + hard
    said = ask_node(page, texts)
    encoded = page_model(read_page(page))[1].encode_batch(texts)
    assert [s["ids"] for s in said] == [e.ids for e in encoded]
    away = np.array([s["probabilities"] for s in said]) - page_probabilities(page, texts)
    assert np.abs(away).max() < 1e-4


ENCODER_JS = """
const lines = require("readline").createInterface({ input: process.stdin });
let encode;
lines.on("line", line => {
  const { tokenizer, text, limit } = JSON.parse(line);
  if (tokenizer) encode = tokenizerOf(tokenizer);
  else console.log(JSON.stringify(encode(text, limit)));
});
"""


@pytest.fixture(scope="module")
def encoders(written):
    "The tokenizer in JavaScript, as a process that is asked line by line, and the library's."
    if not NODE: pytest.skip("Node.js (node) isn't installed")
    data = read_page(written[1])
    code = course_lib.page.model_js(data["config"]["model_type"]) + ENCODER_JS
    node = subprocess.Popen([NODE, "-e", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True, encoding="utf-8")
    print(json.dumps({"tokenizer": data["tokenizer"]}), file=node.stdin, flush=True)
    def ask(text, limit):
        print(json.dumps({"text": text, "limit": limit}), file=node.stdin, flush=True)
        return json.loads(node.stdout.readline())
    yield ask, page_model(data)[1]
    node.stdin.close()
    node.wait(20)
    node.stdout.close()


def agree(encoders, text, limit):
    "Both cut the text into the same ids, and say alike whether something was left."
    ask, tokenizer = encoders
    tokenizer.enable_truncation(limit)
    expected = tokenizer.encode(text)
    assert ask(text, limit) == {"ids": expected.ids, "cut": bool(expected.overflowing)}


PIECES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=8),
    st.text("aest'l \n", max_size=12),
    st.text(" \t\n\r\x0b\x0c\x85\xa0\u2003\u3000\ufeff", max_size=4),
    st.text("\u0300\u0301\u0323\u0345\u1100\u1161\u11a8\u00c5oOΣςßİ", max_size=6),
    st.sampled_from(["<|endoftext|>", "<|pad|>", "<|cls|>", "<|", "|>", "'ll", "'S", "👩‍👩‍👧"]),
)


@given(st.lists(PIECES, max_size=8).map("".join), st.integers(3, 40))
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_same_ids_for_any_text(encoders, text, limit):
    agree(encoders, text, limit)


def test_the_same_ids_for_hard_texts(encoders):
    for text in HARD:
        for limit in (2, 3, 20, 256): agree(encoders, text, limit)


@FIRST
def test_the_same_ids_for_every_character(encoders):
    known = [chr(c) for c in range(0x110000) if not is_new(chr(c))]
    assert len(known) > 140_000
    for i in range(0, len(known), 5000):
        agree(encoders, "".join(f"a{c}1{c}! {c}" for c in known[i:i + 5000]), 10**6)


def is_new(c):
    "Whether Unicode, as Python knows it, has no such character (or leaves it to the reader)."
    return unicodedata.category(c) in ("Cs", "Cn", "Co")


# a browser

def dump(page):
    "The page as a browser without a network leaves it after loading."
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
               "--host-resolver-rules=MAP * ~NOTFOUND", f"file://{page}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@needs_chromium
def test_a_browser_gives_the_same_numbers_and_runs_no_hostile_name(hostile, tmp_path, monkeypatch):
    text = "row number 3 of <b>many</b>"
    typing = f"\npage('text').value = {json.dumps(text)}; page('form').requestSubmit();"
    monkeypatch.setattr(course_lib.page, "PAGE_JS", course_lib.page.PAGE_JS + typing)
    page = tmp_path / "page.html"
    write_page(hostile, page)
    added = "<script>document.title = 'owned'</script></main>" # not in the policy
    page.write_text(page.read_text(encoding="utf-8").replace("</main>", added), encoding="utf-8")
    html = dump(page)
    assert "<title>owned" not in html
    shares = page_probabilities(page, [text])[0]
    said = re.search(r"(?s)<div id=\"said\".*?</div>", html)[0]
    assert f"{100 * shares.max():.1f} %" in said and "<b>" not in said
    bars = re.search(r"(?s)<ol id=\"shares\">.*?</ol>", html)[0]
    assert re.findall(r"<span>([\d.]+) %</span>", bars) == [
        f"{100 * share:.1f}" for share in sorted(shares, reverse=True)]
