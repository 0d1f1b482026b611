"""kill -9 while an adapter is being saved, 100 times: the version before or the one being saved, whole.

A process of its own does it, so that the one that is forked runs no threads: ``python test_storage_kill.py FOLDER``.
"""

import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = 100


def test_killed_at_any_moment_a_save_leaves_a_whole_adapter(tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    run = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    result = json.loads(run.stdout.splitlines()[-1])
    print(result)
    assert result["kills"] == KILLS
    assert not result["wrong"]
    # It can only be believed if saves were cut off. How often depends on how long the disk takes.
    assert result["in the tensors"] + result["in the settings"] + result["committed, not cleaned up"] > 0
    assert result["versions"] > 5  # those before the first kill
    assert result["files in the end"] == 2


def main(folder: Path) -> None:
    import torch
    from models import slots, small

    from adapters_lesson import AdapterConfig, Classifier, insert_adapters, remove_adapters
    from adapters_lesson.insertion import adapter_config
    from adapters_lesson.storage import load_adapter, save_adapter

    torch.set_num_threads(1)
    widths = (32, 16)  # of even and odd versions: settings and tensors of two versions do not go together

    def model_with(width):
        torch.manual_seed(0)
        model = Classifier(small(hidden_size=64, num_hidden_layers=2), 2)
        if width:
            insert_adapters(model, AdapterConfig(width), "film")
        return model

    savers, reader = [model_with(width) for width in widths], model_with(None)

    def save(version):
        model = savers[version % 2]
        for slot in slots(model):
            for parameter in slot.parameters():
                parameter.data.fill_(version)
        save_adapter(model, folder, "film")

    def load():
        """The version, None if it is not whole."""
        load_adapter(reader, folder)
        values = {value for slot in slots(reader) for p in slot.parameters() for value in p.unique().tolist()}
        width = adapter_config(reader, "film").bottleneck_dim
        remove_adapters(reader)
        version = int(min(values))
        return version if values == {version} and width == widths[version % 2] else None

    shared, rng, wrong = mmap.mmap(-1, 8), random.Random(0), []
    counts = {"in the tensors": 0, "in the settings": 0, "committed, not cleaned up": 0}
    start = time.perf_counter()
    for version in range(6):
        save(version)
    seconds = (time.perf_counter() - start) / 6
    for kill in range(KILLS):
        shared[:] = struct.pack("q", version)
        child = os.fork()
        if child == 0:
            try:
                while True:
                    version += 1
                    save(version)
                    shared[:] = struct.pack("q", version)
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0, min(4 * seconds, 0.4)))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        (finished,) = struct.unpack("q", shared[:])
        left = [file.name for file in (folder / "film").iterdir()]
        if any(name.endswith(".tmp") for name in left):
            counts[
                "in the settings" if any("config" in name and ".tmp" in name for name in left) else "in the tensors"
            ] += 1
        version = load()
        if version not in (finished, finished + 1) or not os.WIFSIGNALED(status):
            wrong.append([kill, finished, version, status, left])
        counts["committed, not cleaned up"] += version == finished + 1 and len(left) > 2
    save(version + 1)
    end = {
        "kills": KILLS,
        "wrong": wrong,
        "versions": version,
        "files in the end": len(list((folder / "film").iterdir())),
    }
    print(json.dumps(counts | end))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
