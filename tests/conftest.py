"""The surroundings of all tests: offline, quiet, and the same under `make test` as under pytest alone."""

import os
import runpy
from pathlib import Path

OFFLINE = Path(__file__).parent / "offline"

# Here rather than in a fixture: libraries read these when they are imported.
os.environ.update(
    ADAPTERS_LESSON_PROGRESS="",  # what the tests solve is nobody's progress
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    MPLBACKEND="agg",
    TOKENIZERS_PARALLELISM="false",
    TQDM_DISABLE="1",
)
# Child processes, such as kernels, cut the network when they start; this process does it now. It is run by its path,
# because Python may have imported another sitecustomize already.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")]))
runpy.run_path(str(OFFLINE / "sitecustomize.py"))

# A make that a test calls must not inherit the flags and arguments of the `make test` around it.
for name in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "ARGS", "LESSON", "PYTHON", "SOLUTIONS"):
    os.environ.pop(name, None)
