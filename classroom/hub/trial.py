"""The trial of `make hub`, started and ended by a program: for the load test and the tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from learner import PATIENCE, Learner

CONFIG = Path(__file__).resolve().parent / "jupyterhub_config.py"
PROXY = Path(sys.prefix, "bin", "configurable-http-proxy")
INSTALL = (
    "JupyterHub's proxy is not installed: make hub installs it, make .classroom/.hub does so without starting the hub"
)


@dataclass
class Hub:
    """A running hub: its ``address``, the folder of its ``state``, the id of its process."""

    address: str
    state: Path
    pid: int

    def learner(self, name: str) -> Learner:
        """One of its users, logged in."""
        learner = Learner(self.address, name)
        learner.login((self.state / "password").read_text())
        return learner


@contextmanager
def trial_hub(state: Path, learners: int = 20, config: Path = CONFIG) -> Iterator[Hub]:
    """A hub for trials that keeps everything in ``state``. It ends as by Ctrl-C, its users' servers with it.

    Its users are learner01, learner02 and so on, as many as ``learners`` says.

    Raises:
        RuntimeError: when it does not start, with what it says.
    """
    state.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "ADAPTERS_LESSON_HUB": "trial",
        "ADAPTERS_LESSON_HUB_PORT": str(port),
        "ADAPTERS_LESSON_HUB_STATE": str(state),
        "ADAPTERS_LESSON_HUB_LEARNERS": str(learners),
    }
    log = state / "hub.log"
    with log.open("w") as output:
        hub = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "-f", str(config)], cwd=state, env=environment,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until_open(hub, f"{address}/hub/login", log)
        yield Hub(address, state, hub.pid)
    finally:
        hub.send_signal(signal.SIGINT)
        hub.wait(PATIENCE)


def wait_until_open(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Wait until the ``address`` answers."""
    until, opener = time.monotonic() + PATIENCE, build_opener(ProxyHandler({}))
    while process.poll() is None and time.monotonic() < until:
        with suppress(OSError):  # not yet
            return opener.open(address, timeout=PATIENCE).close()
        time.sleep(0.2)
    raise RuntimeError(f"the hub did not start:\n{log.read_text()}")
