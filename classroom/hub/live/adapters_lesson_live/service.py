"""The live view as a service of the hub: `python -m adapters_lesson_live.service`, which the hub starts.

Reports come from the learners' servers, each with the server's own token, so that nobody can speak for another. The
page opens to those who have the hub's scope ``access:services!service=live``, which are its admins. Nothing is stored.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuth, HubOAuthCallbackHandler, HubOAuthenticated
from tornado.escape import to_unicode
from tornado.web import Application, HTTPError, RequestHandler, authenticated

from .page import policy, teachers
from .report import LONGEST
from .view import Class, TooOften, tables
from .words import exercises, sentences

SCOPE = "access:services!service=live"
_TOKEN = re.compile(r"token ([\w.~+/=-]{1,200})", re.IGNORECASE)


class Page(HubOAuthenticated, RequestHandler):
    """The teacher's page, and what it fetches to refresh itself."""

    hub_scopes = frozenset({SCOPE})  # else who may open it would hang on a variable being set

    def initialize(self, those: Class, whole: bool) -> None:
        self.those, self.whole = those, whole

    @authenticated
    def get(self) -> None:
        nonce = secrets.token_urlsafe(16)
        self.set_header("Content-Security-Policy", policy(nonce))
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("X-Content-Type-Options", "nosniff")
        shown = tables(self.those)
        self.finish(teachers(shown, nonce, to_unicode(self.xsrf_token)) if self.whole else shown)


class Report(RequestHandler):
    """PUT a learner's report, or DELETE it. Who it is the token says."""

    def initialize(self, those: Class) -> None:
        self.those = those

    def check_xsrf_cookie(self) -> None:
        """No cookie counts here."""

    async def put(self) -> None:
        try:
            self.those.take(await self._learner(), self.request.body)
        except TooOften:
            raise HTTPError(429) from None
        except ValueError as error:
            self.set_status(400)
            self.set_header("Content-Type", "text/plain; charset=UTF-8")
            self.finish(str(error))

    async def delete(self) -> None:
        self.those.forget(await self._learner())

    async def _learner(self) -> str:
        found = _TOKEN.fullmatch(self.request.headers.get("Authorization", ""))
        who = found and await HubOAuth.instance().user_for_token(found[1], sync=False)
        if not who or who.get("kind", "user") != "user":
            raise HTTPError(403)
        return str(who["name"])


def application(prefix: str, those: Class) -> Application:
    """The service below the path ``prefix``."""
    settings: dict[str, Any] = {"cookie_secret": secrets.token_bytes(32)}
    return Application(
        [
            (prefix, Page, {"those": those, "whole": True}),
            (f"{prefix}tables", Page, {"those": those, "whole": False}),
            (f"{prefix}report", Report, {"those": those}),
            (f"{prefix}oauth_callback", HubOAuthCallbackHandler),
        ],
        **settings,
    )


async def main() -> None:
    """Serve until the hub ends it."""
    for number in exercises():
        sentences(number)  # they are read once, before the first report
    place = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
    app = application(os.environ["JUPYTERHUB_SERVICE_PREFIX"], Class())
    app.listen(place.port or 80, place.hostname or "127.0.0.1", max_body_size=LONGEST, max_buffer_size=2 * LONGEST)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
