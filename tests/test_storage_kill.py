"""kill -9 while an adapter is being saved: the version before or the one being saved, whole.

10 times by default, 100 times by ``-m slow``. A process of its own does it, so that the one that is forked runs no
threads: ``python test_storage_kill.py FOLDER KILLS``.
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


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_any_moment_a_save_leaves_a_whole_adapter(tmp_path, kills):
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    run = subprocess.run(
        [sys.executable, __file__, str(tmp_path), str(kills)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    result = json.loads(run.stdout.splitlines()[-1])
    print(result)
    assert result["kills"] == kills
    assert not result["wrong"]
    assert result["cut off"] > 0 or kills < 100  # else it proves little; how often depends on the disk
    assert result["versions"] > 5  # those before the first kill


def main(folder: Path, kills: int) -> None:
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

    shared, rng, wrong, cut_off = mmap.mmap(-1, 8), random.Random(0), [], 0
    start = time.perf_counter()
    for version in range(6):
        save(version)
    seconds = (time.perf_counter() - start) / 6
    for kill in range(kills):
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
        left = [file for file in folder.iterdir() if file.suffix == ".tmp"]
        cut_off += bool(left)
        for file in left:
            file.unlink()
        version = load()
        if version not in (finished, finished + 1) or not os.WIFSIGNALED(status):
            wrong.append([kill, finished, version, status])
    print(json.dumps({"kills": kills, "wrong": wrong, "versions": version, "cut off": cut_off}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
