"""Every command of the first page does what it says.

The blocks of the README are read, and run in their order.
"""
import json
import re
import shlex
import shutil
import subprocess
import sys
import time

import httpx
import pandas as pd
import pytest
from conftest import ROOT, is_here, run_course

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?ms)^```(\w+)\n(.*?)^```", README)
LINES = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
COMMANDS = [line.split("#")[0].strip() for line in LINES]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A folder with the files that the commands speak of."
    folder = tmp_path_factory.mktemp("reader")
    reviews = pd.read_csv(ROOT / "data/reviews.csv")[["text", "label"]].sample(360, random_state=0)
    reviews.head(240).to_csv(folder / "yours.csv", index=False)
    reviews.tail(120).to_csv(folder / "new.csv", index=False)
    few = reviews.head(40)
    few.to_csv(folder / "few.csv", index=False)
    few.to_csv(folder / "more.csv", index=False)
    few.assign(premise="A review.", hypothesis=few["text"])[["premise", "hypothesis", "label"]
        ].to_csv(folder / "pairs.csv", index=False)
    few.assign(text=8 * (few["text"] + " ")).to_csv(folder / "reports.csv", index=False)
    names = ("story|music", "music", "", "story", "acting|story", "acting")
    few.assign(label=[names[i % 6] for i in range(40)]).to_csv(folder / "films.csv", index=False)
    shutil.copy(ROOT / "data/unlabelled_reviews.txt", folder / "texts.txt")
    return folder


def test_there_is_something_to_run():
    assert {kind for kind, _ in BLOCKS} == {"bash", "bat", "python"}
    assert len(COMMANDS) >= 14 and all(COMMANDS)


@pytest.mark.parametrize("target", [c.split()[1] for c in COMMANDS if c.startswith("make ")])
def test_make_knows_its_targets(target):
    "Run for real they install, open a browser or take hours: what they would do is asked."
    command = ["make", "--dry-run", "--always-make", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and ".venv/bin/" in done.stdout, done.stderr
    scripts = re.findall(r"(?<=python )scripts/\S+", done.stdout)
    assert [s for s in scripts if not (ROOT / s).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.split()[0] not in ("make", "git")])
def test_each_command_runs(place, command, monkeypatch):
    words = shlex.split(command)
    assert words[0] in ("course", ".venv/bin/course")
    # pre-training for seconds instead of minutes
    arguments = [{"1e6": "2e4"}.get(w, w) for w in words[1:]]
    if arguments[0] == "compare": shutil.copytree(place / "runs/yours", place / "runs/other")
    if arguments[0] == "grade":
        (place / "handed-in").mkdir()
        shutil.copy(place / "student/01_data.ipynb", place / "handed-in/a.ipynb")
    if arguments[0] == "download" and not is_here(arguments[1]): pytest.skip("not downloaded")
    needs_smollm2 = "smol" in arguments or arguments[0] == "chat"
    if needs_smollm2: monkeypatch.setenv("COURSE_CACHE", str(place / "empty"))
    if arguments[0] == "serve": return serves(place, arguments)
    done = run_course(*arguments, cwd=place)
    if needs_smollm2:                                    # test_download and test_chat have them
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "course download smollm2" in done.stderr
        return
    if "full" in arguments:                              # a reader has a network, the tests don't
        assert done.returncode == 2, done.stderr
        assert "hub" in done.stderr and "check the name and the network" in done.stderr, done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if "--out" in arguments: assert (place / arguments[arguments.index("--out") + 1]).exists()
    if arguments[0] == "grade":
        row = done.stdout.splitlines()[1]
        assert "01_data,0.0,6,0.0,1,0.0,2,0.0,3,1.1: Exercise 1.1 is not done yet." in row


def serves(place, arguments: list) -> None:
    "A command that runs until it is told to stop."
    command = [sys.executable, "-m", "course_lib", *arguments, "--port", "0"]
    with open(place / "log", "w") as log:
        server = subprocess.Popen(command, cwd=place, stderr=log)
    try:
        end = time.monotonic() + 120
        while '"event": "model"' not in (place / "log").read_text():
            assert server.poll() is None and time.monotonic() < end, (place / "log").read_text()
            time.sleep(0.1)
        address = json.loads((place / "log").read_text().splitlines()[0])["url"]
        answer = httpx.post(f"{address}/predict", json={"text": "Not once did I yawn."}).json()
        assert answer["answers"][0]["label"] in ("negative", "positive")
        server.terminate()
        assert server.wait(30) == 0
    finally: server.kill()


@pytest.mark.slow
def test_the_lines_for_importers_run(place):
    (program,) = [block for kind, block in BLOCKS if kind == "python"]
    assert len([line for line in program.splitlines() if line.strip()]) == 8
    program += 'model.save_pretrained("mine"); tokenizer.save_pretrained("mine")'
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((place / "mine/config.json").read_text())["id2label"]["0"]
    assert (place / "mine/model.safetensors").exists()
    assert (place / "mine/tokenizer.json").exists()


def test_links_of_the_first_page_lead_somewhere():
    links = re.findall(r"\]\(([^)\s]+)\)", README) + re.findall(r"`([\w/-]+\.(?:md|txt))`", README)
    here = [link for link in links if not link.startswith("http")]
    assert len(here) > 15
    assert [link for link in here if not (ROOT / link).exists()] == []
