"""The whole way in a process of its own, with what its environment may lack."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WHOLE_WAY = """
import sys, tempfile
sys.path.insert(0, {tests!r})
from habits.surroundings import languages, whole
print(whole(tempfile.mkdtemp()), languages())
"""
SURROUNDINGS = {
    "no assertions and no docstrings": (["-OO"], {}),
    "a locale without UTF-8": (
        ["-X", "utf8=0"],
        {"LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "ascii"},
    ),
    "warnings are errors": (["-W", "error::UserWarning", "-W", "error::FutureWarning"], {}),
    "no home folder": ([], {"HOME": "/nonexistent"}),
    "a home folder that takes no file": ([], {"HOME": "/proc/sys", "XDG_CACHE_HOME": "/proc/sys"}),
    "no byte code and a cold start": (["-B", "-I"], {}),
    "development mode": (["-X", "dev"], {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_the_whole_way(name, tmp_path):
    options, variables = SURROUNDINGS[name]
    code = WHOLE_WAY.format(tests=str(Path(__file__).parent))
    run = subprocess.run(
        [sys.executable, *options, "-c", code], env={**os.environ, **variables}, cwd=tmp_path, capture_output=True,
        text=True, encoding="utf-8", timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == ["True", "True"]
