"""The command line as a user has it: the main job, real data, bad input, exit codes."""
import hashlib
import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from conftest import is_here, run_course
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from course_lib.cli import main
from course_lib.counting import COUNTERS
from course_lib.errors import InputError
from course_lib.models import load
from course_lib.runs import LEARNING_RATES, Recipe, fine_tune, predict, verdict

FILES = {"recipe.json", "history.csv", "metrics.json", "loss.png", "confusion.png", "roc.png",
         "reliability.png", "model", "README.md", "checkpoint"}
QUICK = ["--epochs", "1", "--max-length", "24"]


def rows(n=60):
    texts = [f"{'lovely' if i % 2 else 'awful'} film number {i}" for i in range(n)]
    return pd.DataFrame({"text": texts, "label": ["pos" if i % 2 else "neg" for i in range(n)]})


def digest(path): return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "films.csv"
    rows().to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def small_run(tmp_path_factory, data):
    out = tmp_path_factory.mktemp("run") / "small"
    done = run_course("fine-tune", "--data", data, "--out", out, *QUICK)
    assert done.returncode == 0, done.stderr
    return out


def test_the_main_job_writes_the_whole_folder(first_run):
    out, done = first_run
    assert {p.name for p in out.iterdir()} == FILES
    recipe, metrics = (json.loads((out / n).read_text()) for n in ("recipe.json", "metrics.json"))
    assert recipe["model"] == "tiny-gpt2" and recipe["seed"] == 0 and "torch" in recipe["versions"]
    assert set(recipe["fingerprints"]) == {"train", "validation", "test"}
    assert [o["split"] for o in recipe["opened"]] == ["test"] == [metrics["split"]]
    assert metrics["n"] == recipe["rows"]["test"]
    assert set(metrics) == {"split", "n", "metrics", "per_class", "baselines", "best_baseline",
                            "counted", "slices"}
    assert sum(c["support"] for c in metrics["per_class"].values()) == metrics["n"]
    assert "class positive, n =" in done.stdout
    assert set(metrics["baselines"]) == {"majority", *COUNTERS}
    assert sum(s["n"] for s in metrics["slices"].values()) == metrics["n"]
    for scores in (metrics["metrics"], *metrics["baselines"].values()):
        for m in scores.values():
            assert set(m) == {"value", "low", "high"} and m["low"] <= m["value"] <= m["high"]
    history = pd.read_csv(out / "history.csv")
    columns = ["step", "epoch", "split", "loss", "learning_rate", "tokens", "seconds",
               "accuracy"]
    assert list(history.columns) == columns
    train = history.loc[history["split"] == "train", "loss"]
    assert train.tail(30).mean() < train.head(30).mean() - 0.2, "the loss must fall"
    for name in ("loss", "confusion", "roc", "reliability"):
        with Image.open(out / f"{name}.png") as picture:
            assert picture.width > 300 and picture.text["Description"]
    assert all("model_gain" in b for b in metrics["baselines"].values())
    assert "model_gain" not in metrics["metrics"]
    best = metrics["best_baseline"]
    gain = metrics["baselines"][best]["model_gain"]
    card, said = (out / "README.md").read_text(), verdict(metrics)
    assert said in card and said in done.stdout and COUNTERS[best] in said
    assert "| negation |" in card and "| class | rows | precision | recall |" in card
    assert ("more accurate" in said) == (gain["low"] > 0)
    assert ("less accurate" in said) == (gain["high"] < 0)
    accuracy = f"{metrics['metrics']['accuracy']['value']:.3f}"
    assert accuracy in card and "AutoTokenizer" in card and card.startswith("---\n")
    assert f"accuracy {accuracy}" in done.stdout and str(out / "loss.png") in done.stdout
    assert " s. Open the chapters" in done.stderr


def test_the_main_job_beats_guessing_clearly(first_run):
    metrics = json.loads((first_run[0] / "metrics.json").read_text())
    assert metrics["metrics"]["accuracy"]["low"] > 0.55
    assert metrics["baselines"]["majority"]["accuracy"]["value"] == pytest.approx(0.5, abs=0.01)


def test_the_saved_model_loads_in_a_fresh_process(first_run):
    texts = [
        "Not once did I look at my watch.",
        "Dull.",
        "The dog is the only one who can act, and he is gone after ten minutes.",
    ]
    here = (
        AutoTokenizer.from_pretrained(first_run[0] / "model"),
        AutoModelForSequenceClassification.from_pretrained(first_run[0] / "model"),
    )
    with torch.inference_mode():
        alone = [here[1](**here[0](t, return_tensors="pt")).logits[0].tolist() for t in texts]
    program = (
        "import sys, json, torch; from transformers import AutoModelForSequenceClassification as M,"
        " AutoTokenizer as T; t, m = T.from_pretrained(sys.argv[1]),"
        " M.from_pretrained(sys.argv[1])\nwith torch.inference_mode():"
        " print(json.dumps(m(**t(json.loads(sys.argv[2]), padding='max_length', max_length=99,"
        " return_tensors='pt')).logits.tolist()))"
    )
    there = subprocess.run(
        [sys.executable, "-c", program, first_run[0] / "model", json.dumps(texts)],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert torch.allclose(torch.tensor(json.loads(there.stdout)), torch.tensor(alone), atol=1e-5)
    assert here[1].config.id2label == {0: "negative", 1: "positive"}


@pytest.mark.slow
def test_a_second_run_is_bit_equal(small_run, data, tmp_path):
    assert run_course("fine-tune", "--data", data, "--out", tmp_path / "again", *QUICK,
                      anew=True).returncode == 0
    assert digest(small_run / "model/model.safetensors") == digest(
        tmp_path / "again/model/model.safetensors"
    )
    assert json.loads((small_run / "metrics.json").read_text()) == json.loads(
        (tmp_path / "again/metrics.json").read_text()
    )
    run_course("fine-tune", "--data", data, "--out", tmp_path / "other", "--seed", "1", *QUICK)
    assert digest(small_run / "model/model.safetensors") != digest(
        tmp_path / "other/model/model.safetensors"
    )


@pytest.mark.slow
def test_killed_and_resumed_is_bit_equal(data, tmp_path):
    "SIGKILL after the first epoch's checkpoint; `--resume` ends where the uncut run does."
    arguments = ["fine-tune", "--data", str(data), "--epochs", "3", "--batch-size", "4", "--out"]
    assert run_course(*arguments, tmp_path / "whole").returncode == 0
    command = [sys.executable, "-m", "course_lib", *arguments, str(tmp_path / "cut")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    def put_away(): return list((tmp_path / "cut/checkpoint").glob("*-*.pt"))
    while process.poll() is None and not put_away(): pass
    process.kill()
    process.wait()
    assert put_away() and not (tmp_path / "cut/README.md").exists()
    refused = run_course(*arguments, tmp_path / "cut")
    assert refused.returncode == 2 and "--resume" in refused.stderr
    assert run_course(*arguments, tmp_path / "cut", "--resume").returncode == 0
    assert digest(tmp_path / "whole/model/model.safetensors") == digest(
        tmp_path / "cut/model/model.safetensors"
    )
    assert not [p for p in (tmp_path / "cut").rglob(".*")], "no temporary files may be left"


def test_an_existing_folder(small_run, data, tmp_path):
    command = ["fine-tune", "--data", data, "--out", small_run, *QUICK]
    before = digest(small_run / "metrics.json")
    refused = {"is there already": [], "contradict": ["--resume", "--force"],
               "was begun with": ["--resume", "--seed", "3"]}
    for words, options in refused.items():
        done = run_course(*command, *options)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert run_course(*command, "--resume").returncode == 0
    assert digest(small_run / "metrics.json") == before
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_text("meow")
    done = run_course("fine-tune", "--data", data, "--out", tmp_path / "photos", "--force", *QUICK)
    assert done.returncode == 2 and "other things" in done.stderr
    assert (tmp_path / "photos/cat.jpg").exists()


def test_force_never_deletes_what_is_not_of_a_run(data, small_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    shutil.copy(data, run / "films.csv")
    done = run_course("fine-tune", "--data", run / "films.csv", "--out", run, "--force", *QUICK)
    assert done.returncode == 2 and "films.csv" in done.stderr
    assert (run / "films.csv").exists() and (run / "metrics.json").exists()
    (run / "films.csv").unlink()
    done = run_course("fine-tune", "--data", data, "--model", run / "model", "--out", run,
                      "--force", *QUICK)
    assert done.returncode == 2 and "would be lost" in done.stderr
    assert (run / "model/model.safetensors").exists()
    done = run_course("fine-tune", "--data", data, "--out", run, "--force", "--device",
                      "nonsense", *QUICK)
    assert (
        done.returncode == 2 and (run / "metrics.json").exists()
    ), "an old run must survive a mistake in the new one"


def test_evaluating_after_the_training_file_got_a_new_class(tmp_path):
    rows().to_csv(tmp_path / "films.csv", index=False)
    assert run_course("fine-tune", "--data", tmp_path / "films.csv", "--out", tmp_path / "run",
                      *QUICK).returncode == 0
    rows().to_csv(tmp_path / "new.csv", index=False)
    pd.concat(
        [rows(), pd.DataFrame({"text": [f"so so {i}" for i in range(20)], "label": "meh"})]
    ).to_csv(tmp_path / "films.csv", index=False)
    done = run_course("evaluate", tmp_path / "run", "--data", tmp_path / "new.csv", "--json")
    assert done.returncode == 0 and set(json.loads(done.stdout)["baselines"]) == {"majority"}


def test_force_replaces_a_run(data, tmp_path):
    command = ["fine-tune", "--data", data, "--out", tmp_path / "run", *QUICK]
    assert run_course(*command).returncode == 0
    assert run_course(*command, "--force", "--seed", "1").returncode == 0
    assert json.loads((tmp_path / "run/recipe.json").read_text())["seed"] == 1


def test_evaluate(small_run, data, tmp_path):
    done = run_course("evaluate", small_run, "--data", data, "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 0 and result["n"] == 60
    recipe = json.loads((small_run / "recipe.json").read_text())
    assert result["trained_on"] == recipe["rows"]["train"]
    assert "were trained on" in done.stderr
    assert set(result["metrics"]["accuracy"]) == {"value", "low", "high"}
    assert set(result["baselines"]) == {"majority", *COUNTERS}
    rows(30).sample(frac=1, random_state=0).to_csv(tmp_path / "a.csv", index=False)
    rows(30).to_csv(tmp_path / "b.csv", index=False)
    a, b = (json.loads(run_course("evaluate", small_run, "--data", tmp_path / f"{n}.csv",
                                  "--json").stdout) for n in "ab")
    assert a["metrics"]["accuracy"] == b["metrics"]["accuracy"]
    assert a["metrics"]["roc_auc"]["value"] == b["metrics"]["roc_auc"]["value"]
    assert "accuracy" in run_course("evaluate", small_run, "--data", data).stdout


def test_compare(small_run, data, tmp_path):
    run_course("fine-tune", "--data", data, "--out", tmp_path / "weak", *QUICK, "--learning-rate",
               "1e-7", "--labels", "pos,neg")
    found = json.loads(run_course("compare", small_run, tmp_path / "weak", "--data", data,
                                  "--json").stdout)
    assert found["n"] == 60
    first, second, difference = (found[k]["accuracy"]["value"]
                                 for k in ("first", "second", "difference"))
    assert first - second == pytest.approx(difference)
    alone = [
        json.loads(run_course("evaluate", run, "--data", data, "--json").stdout)["metrics"]
        for run in (small_run, tmp_path / "weak")
    ]
    assert [found[k]["accuracy"] for k in ("first", "second")] == [a["accuracy"] for a in alone]
    turned = json.loads(run_course("compare", tmp_path / "weak", small_run, "--data", data,
                                   "--json").stdout)
    assert turned["p_value"] == found["p_value"] and turned["only_first"] == found["only_second"]
    assert min(found["trained_on"]) > 0
    shown = run_course("compare", small_run, small_run, "--data", data)
    assert "Both runs get the same number of rows right." in shown.stdout
    assert "was trained on" in shown.stderr and "first run" in shown.stdout


def test_audit(data, tmp_path):
    page = tmp_path / "new" / "report.html"
    found = json.loads(run_course("audit", "--data", data, "--out", page, "--json").stdout)
    assert set(found["splits"]) == {"train", "validation", "test"}
    assert "<h2>What looks wrong</h2>" in page.read_text(encoding="utf-8")
    assert "median words" in run_course("audit", "--data", data).stdout
    done = run_course("audit", "--data", data, "--out", tmp_path)
    assert done.returncode == 2 and "is a folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_compare_refuses_runs_with_other_labels(small_run, tmp_path):
    table = rows()
    table["label"] = table["label"].map({"pos": "good", "neg": "bad"})
    table.to_csv(tmp_path / "other.csv", index=False)
    run_course("fine-tune", "--data", tmp_path / "other.csv", "--out", tmp_path / "other", *QUICK)
    done = run_course("compare", small_run, tmp_path / "other", "--data", tmp_path / "other.csv")
    assert done.returncode == 2 and "compare runs with the same labels" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_evaluate_without_the_training_rows(tmp_path):
    rows().to_csv(tmp_path / "films.csv", index=False)
    run_course("fine-tune", "--data", tmp_path / "films.csv", "--out", tmp_path / "run", *QUICK)
    (tmp_path / "films.csv").rename(tmp_path / "moved.csv")
    done = run_course("evaluate", tmp_path / "run", "--data", tmp_path / "moved.csv", "--json")
    assert done.returncode == 0
    assert "gone or have changed" in done.stderr
    assert set(json.loads(done.stdout)["baselines"]) == {"majority"}


ASKED = 'id,text\n101,"good, and cheap"\n102,\n103,"first line\nsecond line"\n104,- not bad\n'


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_predict_answers_a_table(small_run, tmp_path, ending):
    "Each row keeps its id and its place; the one without a text is named and has no answer."
    asked, out = tmp_path / "asked.csv", tmp_path / f"answers.{ending}"
    asked.write_text(ASKED, encoding="utf-8")
    done = run_course("predict", small_run, "--data", asked, "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"1 of 4 rows have no text and no answer: {asked}:3" in done.stderr
    found = (pd.read_json(out, lines=True, dtype=str) if ending == "jsonl" else
             pd.read_csv(out, sep="\t" if ending == "tsv" else ",", dtype=str))
    assert found["id"].tolist() == ["101", "102", "103", "104"]
    answers = predict(small_run, ["good, and cheap", "first line\nsecond line", "- not bad"])
    there = found[found["id"] != "102"]
    assert there["predicted_label"].tolist() == [a["label"] for a in answers]
    if ending != "jsonl":
        assert [json.loads(s) for s in there["predicted_scores"]] == [a["scores"] for a in answers]
        assert found["predicted_label"].isna().tolist() == [False, True, False, False]
    again = run_course("predict", small_run, "--data", asked, "--out", out)
    assert again.returncode == 2 and "is there already" in again.stderr
    taken = run_course("predict", small_run, "--data", out, "--out", tmp_path / "more.csv")
    assert taken.returncode == 2 and "has a column 'predicted_label' already" in taken.stderr
    assert not (tmp_path / "more.csv").exists()
    same = run_course("predict", small_run, "--data", asked, "--out", asked, "--force")
    assert same.returncode == 2 and asked.read_text(encoding="utf-8") == ASKED


@pytest.mark.parametrize("options, message", [
    (["--out", "answers.csv"], "give it with --data"),
    (["--data", "gone.csv"], "gone.csv"),
    (["--data", "HERE", "--out", "answers.docx"], "it can be .csv, .tsv, .jsonl"),
    (["--data", "HERE", "--text", "body"], "no column 'body' – the columns are 'id', 'text'")])
def test_predict_refuses(small_run, tmp_path, options, message):
    asked = tmp_path / "asked.csv"
    asked.write_text(ASKED, encoding="utf-8")
    options = [asked if o == "HERE" else o for o in options]
    done = run_course("predict", small_run, *options, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["asked.csv"]


def test_a_run_stops_when_nothing_gets_better(data, tmp_path):
    done = run_course("fine-tune", "--data", data, "--out", tmp_path / "run", "--max-length", 24,
                      "--epochs", 5, "--learning-rate", 0, "--early-stopping-patience", 2)
    assert done.returncode == 0, done.stderr
    history = pd.read_csv(tmp_path / "run/history.csv")
    assert history["epoch"].max() == 3                 # the first is best, two more bring nothing
    kept = json.loads((tmp_path / "run/recipe.json").read_text())["kept"]
    assert kept["epoch"] == 1


def test_rare_classes_count_more_if_asked(tmp_path):
    """A model that learns nothing but how often a class occurs says the common one always; with
    balanced weights it is as unsure of both. Other tasks refuse the setting."""
    table = pd.DataFrame({"text": [f"a film {i}" for i in range(100)],
                          "label": ["rare" if i % 10 == 0 else "common" for i in range(100)]})
    path = tmp_path / "films.csv"
    table.to_csv(path, index=False)
    shares = {}
    for weight in (None, "balanced"):
        recipe = Recipe(data=str(path), epochs=4, learning_rate=1e-3, class_weight=weight)
        out = tmp_path / str(weight)
        metrics = fine_tune(recipe, out, progress=False)
        answers = predict(out, ["a film 7", "a film 8", "a film 9"])
        shares[weight] = sum(a["scores"]["rare"] for a in answers) / 3
        assert set(metrics["per_class"]) == {"common", "rare"}
        if weight is None:
            assert metrics["only_answer"] == "common"
            assert "answers 'common' to every row" in (out / "README.md").read_text()
    assert shares[None] < 0.3 < shares["balanced"]
    with pytest.raises(InputError, match="class_weight – has no use in translation"):
        fine_tune(Recipe(task="translation", data=str(path), class_weight="balanced"),
                  tmp_path / "no", progress=False)


def test_predict(small_run):
    texts = ["a lovely film", "an awful film – ünïcode 🎬"]
    done = run_course("predict", small_run, *texts)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and [a["text"] for a in answers] == texts
    assert set(answers[0]["scores"]) == {"neg", "pos"}
    seconds, unit = done.stderr.removeprefix("loaded in ").split()
    assert 0 < float(seconds) < 600 and unit == "s"
    piped = run_course("predict", small_run, "-",
                       input="a lovely film\r\nan awful film – ünïcode 🎬\n")
    assert piped.stdout == done.stdout
    for raw, words in (
        (b"a\n\nb\n", "text 2 – is empty"),
        (b"caf\xe9\n", "not UTF-8"),
        (b"", "is empty"),
    ):
        bad = run_course("predict", small_run, "-", input=raw, text=False)
        assert bad.returncode == 2 and words in bad.stderr.decode() and bad.stdout == b""


def test_doctor():
    facts = json.loads(run_course("doctor", "--json").stdout)
    assert facts["training_tokens_per_s"] > 50 and facts["matrix_product_GFLOP_per_s"] > 0
    assert facts["cores"] >= 1
    for name in ("smollm2", "minilm"):
        said = facts[f"downloaded_{name}"]
        assert said.endswith(" MB") if is_here(name) else f"course download {name}" in said


GOOD = rows().to_csv(index=False).encode()
BAD = {
    "missing file": ([], "gone.csv", None, "no such file"),
    "empty file": ([], "a.csv", b"", "is empty"),
    "wrong encoding": ([], "a.csv", "text,label\ncafé,x\nB,y\n".encode("latin-1"), "a.csv:2"),
    "missing column": (["--text", "body"], "a.csv", b"text,label\nA,x\nB,y\n", "no column 'body'"),
    "one class only": ([], "a.csv", b"text,label\nA,x\nB,x\n", "at least two classes"),
    "a row without text": ([], "a.csv", b"text,label\nA,x\n,y\nC,y\n", "a.csv:3"),
    "too few rows": ([], "a.csv", b"text,label\nA,x\nB,y\n", "too few"),
    "truncated parquet": ([], "a.parquet", b"PAR1\x15\x04\x15", "not a whole Parquet file"),
    "a directory": ([], ".", None, "is a folder"),
    "unknown model": (["--model", "no/such-model"], "good.csv", GOOD, "the hub didn't give it"),
    "unknown task": (["--task", "guessing"], "good.csv", GOOD, "it can be text-classification"),
    "no epochs": (["--epochs", "0"], "good.csv", GOOD, "--epochs 0 – is not between"),
    "a ratio of 500": (["--warmup-ratio", "500"], "good.csv", GOOD, "not between"),
    "no such device": (["--device", "nonsense"], "good.csv", GOOD, "can't be used here"),
    "labels twice": (["--labels", "pos,neg,pos"], "good.csv", GOOD, "different names"),
    "not a number": (["--learning-rate", "fast"], "good.csv", GOOD, "--learning-rate"),
    "output is a file": (["--out", "good.csv"], "good.csv", GOOD, "is a file"),
    "output below a file": (["--out", "good.csv/run"], "good.csv", GOOD, "is a file"),
    "output can't be written": (["--out", "/proc/run"], "good.csv", GOOD, "can't be written"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(case, tmp_path, monkeypatch, capfd):
    """In this process, which saves the start of Python; the exit codes of a process of its own are
    tested below."""
    options, name, raw, words = BAD[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    if raw is not None: (tmp_path / name).write_bytes(raw)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as end:
        main([
            "fine-tune",
            "--data",
            name,
            *([] if "--out" in options else ["--out", "run"]),
            *options,
        ])
    out, error = capfd.readouterr()
    assert end.value.code == 2 and words in error and error.count("\n") == 1 and out == ""
    assert "Traceback" not in error
    assert sorted(tmp_path.rglob("*")) == before


def test_a_label_the_model_does_not_know(small_run, tmp_path):
    (tmp_path / "new.csv").write_text("text,label\na lovely film,pos\nso so,meh\n")
    done = run_course("evaluate", small_run, "--data", tmp_path / "new.csv")
    assert done.returncode == 2 and "new.csv:3, column 'label'" in done.stderr
    assert "'meh'" not in done.stdout and "neg, pos" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("model", ["tiny-gpt2", "tiny-bert", "tiny-t5"])
def test_a_run_with_lora(tmp_path, data, model):
    out = tmp_path / "lora"
    done = run_course("fine-tune", "--data", data, "--out", out, "--model", model, "--lora-rank",
                      "2", *QUICK)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    assert {p.name for p in out.iterdir()} == FILES | {"adapter"}
    whole = (out / "model/model.safetensors").stat().st_size
    assert (out / "adapter/adapter_model.safetensors").stat().st_size < 0.1 * whole
    recipe = json.loads((out / "recipe.json").read_text())
    card = (out / "README.md").read_text()
    assert recipe["lora_rank"] == 2
    assert recipe["parameters"]["trained"] < 0.05 * recipe["parameters"]["all"]
    assert "LoRA of rank 2" in card
    assert recipe["learning_rate"] == pytest.approx(10 * LEARNING_RATES[model])
    texts = ["a lovely film", "awful"]
    plain, _ = load(str(out / "model"), labels=["neg", "pos"])
    # another head: the adapter brings its own
    untouched, tokenizer = load(model, labels=["neg", "pos"], seed=5)
    call = f"load('{model}', task='text-classification', labels=['neg', 'pos'])"
    assert call in (out / "adapter/README.md").read_text()
    config = json.loads((out / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == model
    beside = PeftModel.from_pretrained(untouched, out / "adapter").eval()
    with torch.inference_mode():
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        assert torch.allclose(plain(**inputs).logits, beside(**inputs).logits, atol=1e-5)
    other = run_course("fine-tune", "--data", data, "--out", out, "--model", model, "--lora-rank",
                       "4", "--resume", *QUICK)
    assert other.returncode == 2 and "lora_rank = 2" in other.stderr


def test_lora_that_cannot_be(tmp_path, monkeypatch, capsys, data):
    with pytest.raises(InputError, match="lora.rank 0"): Recipe(lora_rank=0)
    with pytest.raises(InputError, match="lora.rank 192 – the narrowest layer"):
        fine_tune(Recipe(data=str(data), lora_rank=192), tmp_path / "run")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"course-lib\[adapters\]"):
        fine_tune(Recipe(data=str(data), lora_rank=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_none(tmp_path, small_run):
    for arguments in (
        ["evaluate", tmp_path, "--data", "reviews"],
        ["predict", tmp_path / "x", "A"],
    ):
        done = run_course(*arguments)
        assert done.returncode == 2 and "no run folder" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_misuse_of_the_command_line():
    for arguments in (
        ["fine-tune"],
        ["nonsense"],
        ["run", "--seed", "x"],
        ["run", "--preset", "huge"],
    ):
        done = run_course(*arguments)
        assert done.returncode == 2 and done.stderr.startswith("course: ")
        assert done.stderr.count("\n") == 1 and done.stdout == ""
    gone = run_course("fine-tune", "--data", "gone.csv")
    assert gone.returncode == 2 and gone.stderr.count("\n") == 1 and "no such file" in gone.stderr
    assert run_course("--help").returncode == run_course().returncode == 0
    for arguments in (
        ["nonsense"],
        ["predict", "nowhere", "A"],
    ):  # a new Python says the same as the fork of one that has read the libraries
        new, fork = run_course(*arguments, anew=True), run_course(*arguments)
        assert (new.returncode, new.stdout, new.stderr) == (
            fork.returncode, fork.stdout, fork.stderr
        )


def test_real_rotten_tomatoes(real_data, tmp_path):
    "Two thousand of the sentences to train on, all that are for validation."
    folder = real_data / "rotten_tomatoes"
    pd.read_csv(folder / "train.csv").groupby("label").sample(1000, random_state=0).to_csv(
        tmp_path / "some.csv", index=False
    )
    done = run_course("fine-tune", "--data", tmp_path / "some.csv", "--validation",
                      folder / "validation.csv", "--out", tmp_path / "rt", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    recipe = json.loads((tmp_path / "rt/recipe.json").read_text())
    assert recipe["rows"] == {"train": 2000, "validation": 1066}
    assert recipe["classes"] == {"0": 1000, "1": 1000}
    result = json.loads(run_course("evaluate", tmp_path / "rt", "--data",
                                   folder / "validation.csv", "--json").stdout)
    assert result["n"] == 1066 and result["metrics"]["accuracy"]["low"] > 0.6
    assert result["baselines"]["majority"]["accuracy"]["value"] == 0.5
    assert 0.65 < result["baselines"]["tfidf_logistic_regression"]["accuracy"]["value"] < 0.82
    assert result["metrics"] == json.loads((tmp_path / "rt/metrics.json").read_text())["metrics"]


def test_real_ag_news(real_data, tmp_path):
    pd.read_csv(real_data / "ag_news" / "train.csv").sample(2500, random_state=0).to_csv(
        tmp_path / "some.csv", index=False
    )
    done = run_course("fine-tune", "--data", tmp_path / "some.csv", "--text", "title,description",
                      "--out", tmp_path / "ag", "--epochs", "1", "--max-length", "48")
    assert done.returncode == 0, done.stderr
    result = json.loads(run_course("evaluate", tmp_path / "ag", "--data", tmp_path / "some.csv",
                                   "--json").stdout)
    assert set(json.loads((tmp_path / "ag/recipe.json").read_text())["classes"]) == {
        "0",
        "1",
        "2",
        "3",
    }
    assert result["metrics"]["accuracy"]["low"] > 0.6
    assert json.loads((tmp_path / "ag/metrics.json").read_text())["split"] == "test"


@pytest.mark.parametrize("options", [[], ["--port", "9000"], ["--allow-root", "--no-browser"]])
@pytest.mark.parametrize("user", [0, 1000])
def test_lab_opens_the_first_page_and_passes_options_on(monkeypatch, capsys, options, user):
    started = []
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "execv", lambda program, command: started.append(command))
    with pytest.raises(SystemExit) as end: main(["lab", *options])
    code = end.value.code
    if user == 0 and "--allow-root" not in options:
        assert code == 2 and started == []
        assert "course lab --allow-root" in capsys.readouterr().err
        return
    (command,) = started
    assert command[2] == "jupyterlab" and command[4:] == options
    assert command[3].endswith("index.ipynb")
