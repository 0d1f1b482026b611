"""A made-up learner, who does over the network what a browser does: log in, start a server, open a lesson, run it.

For the load test and the tests: twenty real browsers need more memory than twenty learners' servers.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from dataclasses import dataclass
from typing import Any

import requests
import websocket

PATIENCE = 300  # seconds after which something is broken rather than slow


@dataclass
class Ran:
    """A cell that has run: its ``seconds``, its outputs as a notebook keeps them, its number."""

    seconds: float
    outputs: list[dict[str, Any]]
    execution_count: int

    @property
    def complaints(self) -> list[str]:
        """Its exceptions, and what it says on stderr."""
        raised = [f"{o['ename']}: {o['evalue']}" for o in self.outputs if o["output_type"] == "error"]
        return raised + [o["text"] for o in self.outputs if o.get("name") == "stderr"]

    @property
    def text(self) -> str:
        """What it printed, and the text of its value."""
        texts = (o.get("text") or o.get("data", {}).get("text/plain", "") for o in self.outputs)
        return "".join(texts)


class Learner:
    """The user ``name`` of the hub at the address ``hub``, in a session of their own."""

    def __init__(self, hub: str, name: str) -> None:
        self.hub, self.name = hub.rstrip("/"), name
        self.home = f"{self.hub}/user/{name}"
        self.session = requests.Session()
        self.session.trust_env = False  # no proxy, no .netrc

    def login(self, password: str) -> None:
        """Fill in the hub's form.

        Raises:
            PermissionError: when the hub refuses name or password.
        """
        form = self._get(f"{self.hub}/hub/login").text
        hidden = re.search(r'name="_xsrf"\s+value="([^"]+)"', form)
        fields = {"username": self.name, "password": password, "_xsrf": hidden[1] if hidden else ""}
        answer = self.session.post(f"{self.hub}/hub/login", fields, allow_redirects=False, timeout=PATIENCE)
        if answer.status_code != 302:
            raise PermissionError(f"the hub does not let {self.name} in: {answer.status_code} {answer.reason}")

    def spawn(self) -> None:
        """Start the learner's server, and wait until it lets them in.

        Raises:
            RuntimeError: when it does not start.
        """
        self._get(f"{self.hub}/hub/spawn/{self.name}")
        progress = f"{self.hub}/hub/api/users/{self.name}/server/progress"
        with self.session.get(progress, headers=self._headers("/hub/"), stream=True, timeout=PATIENCE) as answer:
            answer.raise_for_status()
            events = [json.loads(line[5:]) for line in answer.iter_lines() if line.startswith(b"data:")]
        if not events or not events[-1].get("ready"):
            raise RuntimeError(f"the server of {self.name} did not start: {events[-1:]}")
        self._get(f"{self.home}/lab")  # logs in to the server, by way of the hub

    def open(self, path: str) -> dict[str, Any]:
        """Open a notebook in JupyterLab: its page, then its content."""
        self._get(f"{self.home}/lab/tree/{path}")
        return self.api("GET", f"contents/{path}")["content"]

    def save(self, path: str, notebook: dict[str, Any]) -> None:
        """Save a notebook, as JupyterLab does."""
        self.api("PUT", f"contents/{path}", {"type": "notebook", "format": "json", "content": notebook})

    def start_kernel(self, path: str) -> Kernel:
        """Start the kernel of a notebook."""
        wanted = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
        return Kernel(self, self.api("POST", "sessions", wanted)["kernel"]["id"])

    def api(self, method: str, path: str, content: Any = None) -> Any:
        """Ask the learner's server; returns its answer.

        Raises:
            requests.HTTPError: when it refuses.
        """
        answer = self.session.request(
            method,
            f"{self.home}/api/{path}",
            json=content,
            headers=self._headers(f"/user/{self.name}/"),
            timeout=PATIENCE,
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def _get(self, address: str) -> requests.Response:
        answer = self.session.get(address, timeout=PATIENCE)
        answer.raise_for_status()
        return answer

    def _headers(self, path: str) -> dict[str, str]:
        tokens = [cookie.value for cookie in self.session.cookies if (cookie.name, cookie.path) == ("_xsrf", path)]
        return {"X-XSRFToken": tokens[0] or ""} if tokens else {}


class Kernel:
    """A running kernel, over its websocket."""

    def __init__(self, learner: Learner, id: str) -> None:
        self.learner, self.id, self.session = learner, id, uuid.uuid4().hex
        address = f"{learner.home}/api/kernels/{id}/channels?session_id={self.session}"
        request = requests.Request("GET", address.replace("/channels", ""))
        cookies = learner.session.prepare_request(request).headers["Cookie"]  # those that belong to this address
        self.socket = websocket.create_connection(
            address.replace("http", "ws", 1), cookie=cookies, origin=learner.hub, timeout=PATIENCE
        )

    def run(self, source: str) -> Ran:
        """Run a cell and wait until it has ended.

        Raises:
            websocket.WebSocketException: when the kernel or its server is gone.
        """
        began, identity = time.perf_counter(), self._send("execute_request", _request(source))
        ran, awaited = Ran(0.0, [], 0), {"reply", "idle"}
        while awaited:
            frame = self.socket.recv()
            if isinstance(frame, bytes):  # the picture of a widget
                continue
            message = json.loads(frame)
            if message["parent_header"].get("msg_id") != identity:
                continue
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "execute_reply":
                ran.execution_count = content["execution_count"]
                awaited.discard("reply")
            elif kind == "status" and content["execution_state"] == "idle":
                awaited.discard("idle")
            elif kind in ("stream", "display_data", "execute_result", "error"):
                ran.outputs.append({"output_type": kind, **{k: v for k, v in content.items() if k != "transient"}})
        ran.seconds = time.perf_counter() - began
        return ran

    def _send(self, kind: str, content: dict[str, Any]) -> str:
        header = {"msg_id": uuid.uuid4().hex, "msg_type": kind, "session": self.session, "version": "5.4"}
        header |= {"username": self.learner.name, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        self.socket.send(json.dumps(message))
        return header["msg_id"]


def _request(source: str) -> dict[str, Any]:
    return {
        "code": source, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False,
        "stop_on_error": True,
    }  # fmt: skip
