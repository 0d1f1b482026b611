"""What the live view's two pages look like, the teacher's and the learner's: light and dark, nothing from elsewhere."""

from collections.abc import Sequence
from html import escape

from .words import exercises

_STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --page: #fff; --line: #c9c9c9; --soft: #5c5c5c; --part: #0b6e4f;
  --rest: #e2e2e2; --stuck: #9b2226; --head: #f4f4f4; }
@media (prefers-color-scheme: dark) { :root { --text: #e8e8e8; --page: #161616; --line: #444; --soft: #a8a8a8;
  --part: #52b788; --rest: #3a3a3a; --stuck: #ff9b9b; --head: #222; } }
body { font: 1rem/1.45 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 0 auto;
  max-width: 75rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; }
table { border-collapse: collapse; width: 100%; min-width: 44rem; margin: 1rem 0 2rem; }
caption { text-align: left; font-weight: 600; font-size: 1.15rem; padding-bottom: .4rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
thead th { background: var(--head); }
tbody th { font-weight: 600; overflow-wrap: anywhere; }
.when { white-space: nowrap; }
ul { margin: 0; padding-left: 1.1rem; }
small { display: block; font-weight: normal; color: var(--soft); }
svg { display: block; width: 8rem; height: .5rem; margin-top: .3rem; }
rect { fill: var(--rest); }
.part { fill: var(--part); }
.stuck { color: var(--stuck); font-weight: 600; }
.wide { overflow-x: auto; }
button { font: inherit; padding: .4rem .9rem; }
"""
_REFRESH = """
const [view, when, pause] = ["view", "when", "pause"].map(id => document.getElementById(id));
let since = new Date();
async function refresh() {
  if (!pause.checked) {
    try {
      const headers = {"X-XSRFToken": view.dataset.token};  // the hub's cookie alone counts for whole pages only
      const answer = await fetch("tables", {headers, redirect: "error", cache: "no-store"});
      if (!answer.ok) throw new Error(answer.status);
      view.innerHTML = await answer.text();
      since = new Date();
      when.textContent = "As of " + since.toLocaleTimeString() + ".";
    } catch (error) {
      when.textContent = "Not refreshed since " + since.toLocaleTimeString() + ": reload the page.";
    }
  }
  setTimeout(refresh, 5000);
}
setTimeout(refresh, 5000);
"""


def document(title: str, body: str, nonce: str, script: str = "") -> str:
    """A whole page; style and script have the ``nonce``, the one of which `policy` allows them."""
    code = f'<script nonce="{nonce}">{script}</script>' if script else ""
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f'<style nonce="{nonce}">{_STYLE}</style></head>'
        f"<body><main><h1>{escape(title)}</h1>{body}</main>{code}</body></html>"
    )


def table(caption: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    """A table of rows that are HTML already."""
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def exercise(number: str) -> str:
    """An exercise's number, title and lesson."""
    lesson, title = exercises()[number]
    return f"{number} {escape(title)} <small>{escape(lesson)}</small>"


def policy(nonce: str) -> str:
    """The Content-Security-Policy under which a page can fetch nothing but itself, whatever stands in it."""
    return (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; "
        "img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )


def teachers(tables: str, nonce: str, token: str = "") -> str:
    """The teacher's page, around what it refreshes every five seconds, with the hub's XSRF ``token``."""
    view = f'id="view" class="wide" role="region" aria-label="The class" tabindex="0" data-token="{escape(token)}"'
    body = (
        '<p><span id="when">As of now.</span> <label><input type="checkbox" id="pause"> pause</label></p>'
        f"<div {view}>{tables}</div>"
    )
    return document("Live view of the class", body, nonce, _REFRESH)
