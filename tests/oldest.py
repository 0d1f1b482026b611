"""`make oldest`: do the bounds in pyproject.toml hold, from Python 3.10 to 3.14 and down to the oldest versions?

Every Python gets its resolution with the newest and with the oldest versions that the bounds allow, and the sources are
held against the syntax of the oldest and of the newest. Then the environment .oldest gets the oldest versions, and the
fast tests run there. torch alone is the version of requirements.lock: the oldest has no build for every Python.
With --resolve the tests are left out; other arguments go to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
RUN = Path(".oldest") / ("Scripts" if os.name == "nt" else "bin") / "python"
FAST = "not slow and not notebook and not browser"


def uv(*words: str) -> None:
    """Call uv in the repository; stop where it fails, after its message."""
    if subprocess.run([os.environ.get("UV") or "uv", *words], cwd=ROOT, check=False).returncode:
        sys.exit(f"oldest: uv {' '.join(words[:2])} failed, see above")


def resolve(python: str, resolution: str, output: str) -> None:
    """Write the versions that a Python gets: "highest", or "lowest-direct", the oldest of what pyproject.toml names."""
    extras = ["--all-extras"] if resolution == "highest" else ["--extra", "test"]
    options = ["--python-version", python, "--resolution", resolution, "--no-sources", "--no-emit-index-url"]
    uv("pip", "compile", "pyproject.toml", *extras, *options, "--no-annotate", "--quiet", "-o", output)


def main() -> None:
    """Resolve, check the syntax, install and test; ends with the status of pytest."""
    arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        for python in PYTHONS:
            for resolution in ("highest", "lowest-direct"):
                resolve(python, resolution, f"{folder}/{python}-{resolution}.txt")
            print(f"Python {python}: resolved with the newest versions, and with the oldest", flush=True)
        for python in (PYTHONS[0], PYTHONS[-1]):
            target = f"--target-version=py{python.replace('.', '')}"
            uv("tool", "run", "ruff", "check", "--quiet", "--isolated", "--select=E9", target, "--exclude=*.ipynb", ".")
            print(f"Python {python}: reads every file", flush=True)
        if "--resolve" in arguments:
            return
        here = f"{sys.version_info.major}.{sys.version_info.minor}"
        uv("venv", "--quiet", "--clear", "--python", here, ".oldest")
        install = ["pip", "install", "--quiet", "--no-sources", "--python", str(RUN)]
        oldest = Path(folder) / f"{here}-lowest-direct.txt"
        if index := os.environ.get("TORCH_INDEX"):  # its build for the processor needs none of NVIDIA's libraries
            versions = oldest.read_text(encoding="utf-8").splitlines()
            (torch,) = (line for line in versions if line.startswith("torch=="))
            uv(*install, "--index-url", index, "--no-deps", torch.split()[0])
            kept = [line for line in versions if not line.startswith(("nvidia-", "cuda-", "triton", "torch=="))]
            oldest.write_text("\n".join(kept) + "\n", encoding="utf-8")
        uv(*install, "--no-deps", "-r", str(oldest), "-e", ".")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [str(RUN), "-m", "pytest", "-n", "2", "--dist", "loadgroup", "-m", FAST, *arguments]
    sys.exit(subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
