"""The files in deploy/: they agree with each other and with the server, and their command works."""
import json
import os
import re
import shutil
import subprocess
import sys
import time

import httpx
import pytest
import yaml
from conftest import ROOT

from course_lib.models import load

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def stages() -> dict: # name of a stage -> its instructions, each one line
    "The Dockerfile, cut at each FROM."
    text = re.sub(r"(?m)^#.*\n", "", DOCKERFILE).replace("\\\n", " ")
    parts = re.split(r"(?m)^(?=FROM )", text)[1:]
    return {re.match(r"FROM \S+ AS (\S+)", p)[1]: p.strip().splitlines() for p in parts}


def copied(stage: str) -> list: # of names
    "What a stage copies out of the repository."
    lines = [line.split()[1:] for line in stages()[stage] if line.startswith("COPY ")]
    return [name for words in lines if not words[0].startswith("--from") for name in words[:-1]]


def documents() -> dict: # kind -> document
    parts = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
    return {part["kind"]: part for part in parts}


def container() -> dict:
    (found,) = documents()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return found


def compose() -> dict:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def word_after(line: str, word: str) -> str:
    words = re.findall(r"[^\s\[\],\"]+", line)
    return words[words.index(word) + 1]


def test_the_dockerfile_passes_hadolint():
    beside = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    program = shutil.which("hadolint", path=beside)
    if not program: pytest.skip("hadolint isn't installed")
    done = subprocess.run([program, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_kubernetes_knows_every_field():
    why = "kubernetes-validate isn't installed"
    checker = pytest.importorskip("kubernetes_validate", reason=why)
    for document in documents().values(): checker.validate(document, "1.33", strict=True)
    wrong = documents()["Service"]
    wrong["spec"]["port"] = 80
    with pytest.raises(checker.ValidationError): checker.validate(wrong, "1.33", strict=True)


def test_the_image_lets_in_what_it_needs_and_nothing_else():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    let_in = {line[1:] for line in lines if line[0] == "!"}
    assert lines[0] == "*" and let_in == set(copied("build"))
    assert all((ROOT / name).exists() for name in let_in)


def test_the_server_has_no_rights():
    (user,) = [line.split()[1] for line in stages()["mounted"] if line.startswith("USER")]
    pod = documents()["Deployment"]["spec"]["template"]["spec"]["securityContext"]
    own = container()["securityContext"]
    assert int(user) == pod["runAsUser"] > 0 and pod["runAsNonRoot"]
    assert own["capabilities"]["drop"] == ["ALL"] and not own["allowPrivilegeEscalation"]
    assert own["readOnlyRootFilesystem"] and compose()["services"]["model"]["read_only"]
    assert compose()["services"]["model"]["cap_drop"] == ["ALL"]


def test_no_secret_is_written_down():
    both = compose()["services"]
    assert both["model"]["secrets"] == both["prometheus"]["secrets"] == ["course_token"]
    assert compose()["secrets"] == {"course_token": {"environment": "COURSE_TOKEN"}}
    place = "/run/secrets/course_token"
    assert both["model"]["command"][-2:] == ["--token-file", place]
    scraped = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"][0]
    assert scraped["authorization"] == {"credentials_file": place}
    (token,) = container()["env"]
    assert token["name"] == "COURSE_TOKEN" and "value" not in token
    assert "TOKEN" not in DOCKERFILE


def test_one_port_everywhere():
    (exposed,) = [line.split()[1] for line in stages()["mounted"] if line.startswith("EXPOSE")]
    (command,) = [line for line in stages()["mounted"] if line.startswith("CMD [\"/model")]
    assert word_after(command, "--port") == exposed
    assert str(container()["ports"][0]["containerPort"]) == exposed
    assert container()["args"][container()["args"].index("--port") + 1] == exposed
    scraped = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"][0]
    assert scraped["static_configs"][0]["targets"] == [f"model:{exposed}"]
    assert compose()["services"]["model"]["ports"] == [f"127.0.0.1:{exposed}:{exposed}"]


def test_the_versions_are_those_of_the_package():
    config = (ROOT / "settings.ini").read_text(encoding="utf-8")
    version = re.search(r"(?m)^version = (\S+)", config)[1]
    images = {container()["image"], compose()["services"]["model"]["image"]}
    assert images == {f"course-serve:{version}"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    "The package, installed from nothing but the files that the Dockerfile copies."
    place = tmp_path_factory.mktemp("image")
    source = place / "source"
    source.mkdir()
    for name in copied("build"):
        if (ROOT / name).is_dir():
            unwanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=unwanted)
        else: shutil.copy(ROOT / name, source)
    how = ["--quiet", "--no-deps", "--no-build-isolation", "--no-compile", "--target"]
    done = subprocess.run([sys.executable, "-m", "pip", "install", *how, place / "lib", source],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "lib"


def as_nobody() -> list:
    "What makes a command another user's, who may read everything and write nowhere but in /tmp."
    if not hasattr(os, "geteuid") or os.geteuid() != 0: return []      # then we are nobody special
    program = shutil.which("setpriv")
    if not program: pytest.skip("setpriv isn't installed, which lets root become another user")
    able = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return [program, "--reuid=10001", "--regid=10001", "--clear-groups", *able]


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_the_entry_point_answers_as_another_user_in_a_clean_folder(installed, tmp_path,
                                                                   tmp_path_factory):
    from course_lib.runs import save_model
    run = tmp_path / "model"
    save_model(run / "model", *load("tiny-gpt2", labels=["no", "yes"]))
    recipe = {"task": "text-classification", "classes": {"no": 1, "yes": 1}, "max_length": 64}
    (run / "recipe.json").write_text(json.dumps(recipe))
    clean = tmp_path / "clean"
    clean.mkdir()
    clean.chmod(0o555)
    before = sorted(tmp_path.rglob("*"))
    command = [*as_nobody(), sys.executable, "-B", "-m", "course_lib", "serve", run, "--port", "0"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed), "HOME": str(clean),
                   "HF_HUB_OFFLINE": "1", "MPLCONFIGDIR": "/tmp", "COURSE_TOKEN": "open-sesame"}
    log = tmp_path_factory.mktemp("log") / "log"
    with open(log, "w") as file:
        process = subprocess.Popen(command, cwd=clean, env=environment, stderr=file)
    try:
        until(lambda: "\n" in log.read_text() or process.poll() is not None)
        said = log.read_text()
        assert said.startswith("{"), said
        address = json.loads(said.splitlines()[0])["url"]
        key = {"Authorization": "Bearer open-sesame"}
        with httpx.Client(base_url=address, headers=key, timeout=60) as client:
            until(lambda: client.get("/ready").status_code == 200)
            answers = client.post("/predict", json={"text": "A joy."}).json()["answers"]
        assert answers[0]["label"] in ("no", "yes")
        owner = os.stat(f"/proc/{process.pid}").st_uid if os.path.exists("/proc") else None
        if as_nobody(): assert owner == 10001
        process.terminate()
        assert process.wait(30) == 0
    finally: process.kill()
    assert sorted(tmp_path.rglob("*")) == before
