"""The commands that take a run to others: registry, export, serve, watch."""
import json

import pandas as pd
import pytest
from conftest import ROOT, run_course

from course_lib.models import load
from course_lib.runs import save_model


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A folder with two finished runs that have learned nothing, and a table."
    folder = tmp_path_factory.mktemp("deploying")
    for seed, name in enumerate(("one", "two")):
        run = folder / name
        save_model(run / "model", *load("tiny-gpt2", labels=["negative", "positive"], seed=seed))
        recipe = {"task": "text-classification", "classes": {"negative": 1, "positive": 1},
                  "max_length": 64, "data": "gone.csv", "text": None, "label": None,
                  "encoding": None, "delimiter": None, "labels": None, "validation": None,
                  "test": None, "seed": seed, "model": "tiny-gpt2",
                  "fingerprints": {"train": "0", "validation": "0"}}
        (run / "recipe.json").write_text(json.dumps(recipe))
        (run / "metrics.json").write_text(json.dumps({"split": "test", "n": 1, "metrics": {}}))
        (run / "README.md").write_text("A run.")
    rows = pd.read_csv(ROOT / "data/reviews.csv")[["text", "label"]].sample(60, random_state=0)
    rows.to_csv(folder / "rows.csv", index=False)
    return folder


def told(done, *words):
    "One line on standard error, in three parts or more, and exit code 2."
    assert done.returncode == 2 and not done.stdout, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("course: "), done.stderr
    for word in words: assert word in done.stderr, done.stderr


def test_a_version_goes_into_production_and_comes_back(place):
    def registry(*words):
        done = run_course("registry", *words, "--registry", place / "kept", cwd=place)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()
    assert registry("add", "one", "reviews") == "reviews@1"
    assert registry("add", "two", "reviews") == "reviews@2"
    assert registry("add", "one", "reviews") == "reviews@1"
    assert registry("promote", "reviews@1") == "reviews@1 in production: the first version in " \
                                               "production"
    assert registry("promote", "reviews@2", "--data", "rows.csv", "--force").endswith(
        "forced, without a comparison")
    assert json.loads(registry("show", "reviews@production"))["version"] == 2
    assert registry("rollback", "reviews") == "reviews@1"
    versions = json.loads(registry("list", "reviews", "--json"))
    assert [row["version"] for row in versions] == [1, 2]
    told(run_course("registry", "promote", "reviews@2", "--registry", place / "kept", cwd=place),
         "reviews@1", "--data", "--force")


def test_an_export_and_a_page(place):
    done = run_course("export", "one", "--int8", "--out", "eight", cwd=place)
    assert done.returncode == 0 and (place / "eight/export.json").exists(), done.stderr
    done = run_course("export", "one", "--page", "page.html", cwd=place)
    assert done.returncode == 0 and "page.html" in done.stdout, done.stderr
    told(run_course("export", "one", "--page", "page.html", cwd=place), "page.html", "--force")
    told(run_course("export", "one", "--int8", "--out", "eight", cwd=place), "eight", "--force")


@pytest.mark.parametrize("words, said", [
    (["export", "one"], "--onnx"), (["export", "one", "--onnx", "--int8"], "--page FILE"),
    (["export", "one", "--gguf", "--out", "g"], "gguf"),
    (["export", "nothing", "--onnx"], "nothing"),
    (["serve", "nothing/here"], "nothing/here"), (["serve", "nobody@3"], "no registry"),
    (["serve", "one", "--shadow", "gone"], "gone"),
    (["serve", "one", "--shadow", "two", "--canary", "two"], "give one"),
    (["serve", "one", "--token-file", "gone"], "gone"),
    (["watch", "one", "--data", "gone.csv"], "gone.csv"),
    (["watch", "gone", "--data", "rows.csv"], "gone"),
    (["watch", "one", "--data", "rows.csv", "--out", "rows.csv"], "rows.csv"),
    (["registry", "add", "gone", "x"], "gone"), (["registry", "add", "one", "../x"], "../x"),
    (["registry", "show", "x@1"], "no registry"),
    (["registry", "rollback", "x"], "no registry"),
    (["registry", "list", "--registry", "ftp://x"], "ftp://x"),
    (["registry", "promote"], "course registry --help"), (["registry", "what"], "what"),
])
def test_what_is_refused(place, words, said):
    before = sorted(place.rglob("*"))
    told(run_course(*words, cwd=place), said)
    assert sorted(place.rglob("*")) == before
