"""How Sphinx renders the site. `docs/build.py` puts the pages together and calls it: see there."""

import re

from docutils import nodes
from latex2mathml.converter import convert
from training_material import script

project = "Adapters, from scratch"
author = "the course's authors"
html_title = project
extensions = ["myst_nb"]

exclude_patterns = ["repository"]  # files to download, texts among them

# The notebooks were executed when they were built. Where a widget left a picture, that is what a page can show.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [("html", "text/html", 0)]
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

html_theme = "furo"
pygments_dark_style = "a11y-dark"
html_favicon = "_static/favicon.svg"  # two layers, narrow in the middle
html_static_path = ["_static"]
html_css_files = ["site.css", "playground.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_use_index = False
html_domain_indices = False


def _mathml(display):
    def visit(self, node):
        formula = convert(node.astext(), display="block" if display else "inline")
        # A word is one identifier, not one for each letter; ± stands between two things.
        formula = formula.replace('</mi><mi mathvariant="normal">', "").replace("<mi>&#x000B1;</mi>", "<mo>±</mo>")
        self.body.append(f'<div class="math">{formula}</div>' if display else formula)
        raise nodes.SkipNode

    return visit, None


def _mend_navigation(app, pagename, templatename, context, doctree):
    # Sphinx calls the captions of its menu headings, but does not say of which level.
    tree = context["furo_navigation_tree"].replace(' role="heading"', "")
    # A lesson's complete page stands in the menu below the lesson, and only while one reads one of the two.
    lesson, complete = pagename.removeprefix("complete_"), pagename.startswith("complete_")
    if f"complete_{lesson}" in app.env.found_docs:
        place, here = ("#", " current-page") if complete else (f"complete_{lesson}.html", "")
        page = f'<li class="toctree-l2{here}"><a class="reference internal" href="{place}">Complete page</a></li>'
        at = re.compile(f'(<a [^>]*href="{"#" if not complete else f"{lesson}.html"}">[^<]*</a>)</li>')
        tree = at.sub(rf"\1<ul>{page}</ul></li>", tree, count=1)
    if complete:
        pages = sorted(name for name in app.env.found_docs if name.startswith("complete_"))
        before, after = ([""] + pages)[pages.index(pagename)], (pages + [""])[pages.index(pagename) + 1]
        for side, name in (("prev", before), ("next", after)):
            context[side] = name and {"link": f"{name}.html", "title": app.env.titles[name].astext()}
    context["furo_navigation_tree"] = tree


def _mend_folds(app, pagename, templatename, context, doctree):
    # MyST gives what unfolds a name of its own, so that nobody would hear what can be read on it.
    context["body"] = context.get("body", "").replace(' aria-label="Toggle hidden content"', "")


def _play(app, pagename, templatename, context, doctree):
    if pagename == "index":
        app.add_js_file("playground.js", defer="defer")


def _describe(app, pagename, templatename, context, doctree):
    if pagename == "index" or pagename[:2].isdigit():
        context["metatags"] += script("" if pagename == "index" else pagename)


def setup(app):
    """Have formulas rendered as MathML, which browsers show without a script."""
    app.connect("html-page-context", _mend_navigation, priority=900)  # after furo
    app.connect("html-page-context", _mend_folds)
    app.connect("html-page-context", _play)
    app.connect("html-page-context", _describe)
    app.add_html_math_renderer("mathml", inline_renderers=_mathml(False), block_renderers=_mathml(True))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
