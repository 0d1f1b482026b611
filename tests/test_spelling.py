"""No common typing mistake in any text of the repository; what is no mistake is listed in pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def codespell(folder):
    command = [sys.executable, "-m", "codespell_lib"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_the_repository_is_spelt_well():
    answer = codespell(ROOT)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_a_mistake_would_be_found_in_sources_and_texts_alike(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("lesson.py", "page.md", "quiz.json"):
        (tmp_path / name).write_text("rec" + "ieve\n")  # in two parts, or this line would be a mistake
    (tmp_path / "british.md").write_text("The initialisation of a colour, to and fro, is spelt in the British way.\n")
    answer = codespell(tmp_path)
    assert sorted(line.split(":")[0] for line in answer.stdout.splitlines()) == [
        "./lesson.py", "./page.md", "./quiz.json",
    ]  # fmt: skip
