"""Every command of the first page does what it says: the blocks of the README are read, and run in their order."""
import json
import re
import shlex
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT, run_course

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?ms)^```(\w+)\n(.*?)^```", README)
COMMANDS = [line.split("#")[0].strip() for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A folder with the files that the commands speak of."
    folder = tmp_path_factory.mktemp("reader")
    reviews = pd.read_csv(ROOT / "data/reviews.csv")[["text", "label"]].sample(360, random_state=0)
    reviews.head(240).to_csv(folder / "yours.csv", index=False)
    reviews.tail(120).to_csv(folder / "new.csv", index=False)
    shutil.copy(ROOT / "data/unlabelled_reviews.txt", folder / "texts.txt")
    return folder


def test_there_is_something_to_run():
    assert {kind for kind, _ in BLOCKS} == {"bash", "bat", "python"} and len(COMMANDS) >= 14


@pytest.mark.parametrize("target", [c.split()[1] for c in COMMANDS if c.startswith("make ")])
def test_make_knows_its_targets(target):
    "Run for real they install an environment, open a browser or take hours: what they would do is asked."
    done = subprocess.run(["make", "--dry-run", "--always-make", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and ".venv/bin/" in done.stdout, done.stderr
    scripts = re.findall(r"(?<=python )scripts/\S+", done.stdout)
    assert all((ROOT / s).exists() for s in scripts)


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("make ")])
def test_each_command_runs(place, command):
    words = shlex.split(command)
    assert words[0] in ("course", ".venv/bin/course")
    arguments = [{"1e6": "2e4"}.get(w, w) for w in words[1:]]                        # pre-training for seconds instead of minutes
    if arguments[0] == "compare": shutil.copytree(place / "runs/yours", place / "runs/other")
    if arguments[0] == "grade":
        (place / "handed-in").mkdir()
        shutil.copy(place / "student/01_data.ipynb", place / "handed-in/a.ipynb")
    done = run_course(*arguments, cwd=place)
    if "full" in arguments:                                                          # the tests have no network; a reader has
        assert done.returncode == 2 and "network" in done.stderr + done.stdout or "hub" in done.stderr, done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    made = [place / arguments[i + 1] for i, w in enumerate(arguments) if w == "--out"]
    assert all(p.exists() for p in made), made
    if arguments[0] == "grade": assert done.stdout.splitlines()[1] == "a.ipynb,01_data,0.0,6,0.0,0.0,0.0,", "nothing done, and no cell of the chapter failed"


def test_the_lines_for_importers_run(place):
    (program,) = [block for kind, block in BLOCKS if kind == "python"]
    assert len([line for line in program.splitlines() if line.strip()]) == 8
    done = subprocess.run([sys.executable, "-c", program + 'model.save_pretrained("mine"); tokenizer.save_pretrained("mine")'], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((place / "mine/config.json").read_text())["id2label"]["0"] and (place / "mine/model.safetensors").exists() and (place / "mine/tokenizer.json").exists()


def test_links_of_the_first_page_lead_somewhere():
    links = [l for l in re.findall(r"\]\(([^)\s]+)\)", README) + re.findall(r"`([\w/-]+\.(?:md|txt))`", README) if not l.startswith("http")]
    assert len(links) > 15 and all((ROOT / l).exists() for l in links), [l for l in links if not (ROOT / l).exists()]
