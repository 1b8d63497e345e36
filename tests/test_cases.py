"Files from public reports, where COURSE_REAL_DATA lies beside a folder with them."
import json

import pytest
from conftest import run_course

pytestmark = pytest.mark.slow


@pytest.fixture
def cases(real_data):
    folder = real_data.parent / "cases"
    if not folder.is_dir(): pytest.skip("there is no folder `cases` beside the real data")
    return folder


def test_long_documents_are_cut_and_it_is_said(cases, tmp_path):
    done = run_course("fine-tune", "--data", cases / "19_long_documents.csv", "--epochs", 1,
                      "--max-length", 2048, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "60 of 60 texts are longer than 256 tokens and are cut" in done.stderr
    assert json.loads((tmp_path / "run/recipe.json").read_text())["max_length"] == 256
    card = (tmp_path / "run/README.md").read_text()
    assert "256" in card and "2048" not in card


def test_ninety_nine_to_one(cases, tmp_path):
    done = run_course("fine-tune", "--data", cases / "20_ninety_nine_to_one.csv", "--epochs", 1,
                      "--max-length", 16, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    answer = json.loads((tmp_path / "run/metrics.json").read_text()).get("only_answer")
    assert answer and f"answers {answer!r} to every row" in done.stdout
    assert f"answers {answer!r} to every row" in (tmp_path / "run/README.md").read_text()
