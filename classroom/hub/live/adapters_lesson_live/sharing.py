"""The learner's side of the live view: an extension of the learner's own server, off until the learner switches it on.

The page /user/NAME/share says what is shared and has the switch. Switched on there is a file in the learner's home; as
long as it is there, progress.json is read every few seconds, and a report of it goes to the hub's live view. Without
that file nothing is sent, and nothing read but for the learner who opens the page.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado.httpclient import AsyncHTTPClient, HTTPError
from tornado.ioloop import PeriodicCallback
from tornado.web import HTTPError as Refused
from tornado.web import authenticated

from .page import document, exercise, policy, table
from .report import make

EVERY = 5.0  # seconds from one look at the file to the next
STILL_THERE = 60.0  # seconds after which the same report is sent again
SWITCH = "share_with_teacher.txt"
_IN_IT = (
    "While this file is here, your teacher sees which exercises of the course you have done and tried.\n"
    "Delete it, and that ends. What exactly is shared: the page /hub/user-redirect/share on this hub.\n"
)
_TEXT = """
<p>Your teacher may follow the class in a live view: who is at which exercise, and which mistake is made most often.
<strong>You are in it only if you switch it on, and you can leave at any time.</strong>
The course makes no marks of it.</p>
<p>Shared, with your teachers on this hub only: your name on the hub; which exercises you have done or tried; when you
last had each checked; while it is wrong, which of the course's sentences the check said, and how many times.</p>
<p>Never shared: your code, your answers, your predictions, your quizzes, anything else that you write.
The hub keeps it in memory and stores nothing. It is forgotten when you leave, and a quarter of an hour after your
server has stopped.</p>
"""


class Sharing:
    """Shares the progress of the learner whose home is ``home``, with ``address``, as who the ``token`` says."""

    def __init__(self, home: Path, address: str, token: str) -> None:
        self.home, self.address, self.token = home, address, token
        self.problem = ""
        self._sent: dict[str, Any] | None = None  # what the service has taken, and when
        self._at = 0.0
        self._there = False  # whether the service may know something: an answer may get lost, or tell of a refusal
        self._one = asyncio.Lock()

    @property
    def on(self) -> bool:
        """Whether the learner shares."""
        return (self.home / SWITCH).is_file()

    def switch(self, on: bool) -> None:
        """Begin or end to share."""
        if on:
            (self.home / SWITCH).write_text(_IN_IT, encoding="utf-8")
        else:
            (self.home / SWITCH).unlink(missing_ok=True)

    async def report(self) -> dict[str, Any]:
        """What is shared, or would be."""
        return await asyncio.to_thread(lambda: make(self._progress()))

    async def tick(self) -> None:
        """Send what is new, or take back what was sent."""
        async with self._one:
            if not self.on:
                if self._there and await self._send("DELETE", None):
                    self._sent, self._there = None, False
                return
            now = await self.report()
            if now != self._sent or time.monotonic() - self._at > STILL_THERE:
                self._there = True
                if await self._send("PUT", json.dumps(now)):
                    self._sent, self._at = now, time.monotonic()

    async def _send(self, method: str, body: str | None) -> bool:
        headers = {"Authorization": f"token {self.token}", "Content-Type": "application/json"}
        try:
            await AsyncHTTPClient().fetch(
                f"{self.address}report", method=method, body=body, headers=headers, request_timeout=10,
                follow_redirects=False,
            )  # fmt: skip
            self.problem = ""
        except HTTPError as error:
            refused = error.response.body.decode("utf-8", "replace") if error.code == 400 and error.response else ""
            self.problem = refused or f"{error.code} {error.message}"
        except OSError as error:
            self.problem = str(error)
        return not self.problem

    def _progress(self) -> Path | None:
        """The progress.json that was written last: where the course's variable says, or in a folder of lessons."""
        if named := os.environ.get("ADAPTERS_LESSON_PROGRESS"):
            return Path(named).expanduser()
        times: dict[Path, float] = {}
        for place in ("progress.json", "*/progress.json", "*/notebooks/progress.json"):
            for path in self.home.glob(place):
                with suppress(OSError):
                    times[path] = path.lstat().st_mtime
        return max(times, key=lambda path: times[path], default=None)


def shown(report: dict[str, Any], on: bool) -> str:
    """A report as HTML, whole, for the learner."""
    head = f"<h2>Exactly this {'is' if on else 'would be'} sent, with your name on the hub</h2>"
    if "problem" in report:
        return f"{head}<p>{escape(report['problem'])}</p>"
    if not report["exercises"]:
        return f"{head}<p>That nothing is checked yet.</p>"
    rows = []
    for number, one in report["exercises"].items():
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["at"])) if one["at"] else ""
        said = (
            f"<td>{it}</td>" for it in ("done" if one["done"] else "tried", when, escape(one["said"]), one["times"])
        )
        rows.append(f'<tr><th scope="row">{exercise(number)}</th>{"".join(said)}</tr>')
    heads = ("Exercise", "State", "Last checked", "What the check says", "Times")
    return f'{head}<div class="wide">{table("Your exercises", heads, rows)}</div>'


class Share(JupyterHandler):
    """The learner's page: what is shared, and the switch, which is the learner's alone."""

    def initialize(self, sharing: Sharing) -> None:
        self.sharing = sharing

    @authenticated
    async def get(self) -> None:
        self._only_the_learner()
        nonce = secrets.token_urlsafe(16)
        on = self.sharing.on
        state = "You share now." if on else "You do not share."
        button, value = ("Stop sharing", "off") if on else ("Share with my teacher", "on")
        problem = f"<p>It could not be sent: {escape(self.sharing.problem)}</p>" if on and self.sharing.problem else ""
        report = await self.sharing.report()
        form = (
            f'<form method="post">{self.xsrf_form_html()}<p><strong>{state}</strong> '
            f'<button name="share" value="{value}">{button}</button></p></form>'
        )
        again = f"<p>Deleting the file <code>{SWITCH}</code> in your home stops it, too.</p>" if on else ""
        self.set_header("Content-Security-Policy", policy(nonce))
        self.finish(document("Share with your teacher", f"{_TEXT}{form}{problem}{again}{shown(report, on)}", nonce))

    @authenticated
    async def post(self) -> None:
        self._only_the_learner()
        self.sharing.switch(self.get_body_argument("share", "off") == "on")
        await self.sharing.tick()
        self.redirect(self.request.path)

    def _only_the_learner(self) -> None:
        """The hub's admins get into a learner's server, too."""
        if getattr(self.current_user, "username", None) != os.environ.get("JUPYTERHUB_USER"):
            raise Refused(403, "only the learner decides")


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Add the page to a server, and begin to look whether its learner shares."""
    sharing = Sharing(Path.home(), os.environ["ADAPTERS_LESSON_LIVE"], os.environ["JUPYTERHUB_API_TOKEN"])
    page = url_path_join(server.web_app.settings["base_url"], "share")
    server.web_app.add_handlers(".*$", [(page, Share, {"sharing": sharing})])
    PeriodicCallback(sharing.tick, 1000 * EVERY).start()
