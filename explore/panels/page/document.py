"""A saved panel as one HTML document: sheets, body, data and scripts, and a policy under which
it can load nothing else.
"""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...figures import script
from ..html import Markup, tag
from .content import Packed

HERE = Path(__file__).parent
SHEETS = ("../explore.css", "widgets.css", "page.css")
LIVE = "A copy of a panel: what a browser can do goes on working, controls in grey need Python (run the lesson in Jupyter)."
EXPORT = re.compile(r"^export default ", re.MULTILINE)


def sheet(*names: str) -> str:
    """The text of style sheets of this folder."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


def document(packed: Packed, *, title: str, origin: str, plotly: str | None = None) -> str:
    """The page. `plotly`: where its script lies, beside the page; None puts it into the page,
    where a figure needs it.
    """
    scripts = [
        f"const MODULES = {{{','.join(_module(*each) for each in packed.modules.items())}}};\n" + sheet("page.js")
    ]
    beside = Markup("")
    if packed.figures and plotly:
        beside = tag.script(src=plotly)
    elif packed.figures:
        scripts.insert(0, script())
    scripts = [text.replace("</script", "<\\/script").replace("<!--", "<\\!--") for text in scripts]
    policy = "" if beside else _policy(scripts)
    head = f'<meta charset="utf-8">{policy}<meta name="viewport" content="width=device-width">{tag.title(title)}'
    top = tag.div(LIVE, tag.button(id="theme", type="button", title="Light or dark"), class_="ex-top")
    end = tag.div(origin, class_="ex-end")
    data = f'<script type="application/octet-stream" id="data">{packed.data()}</script>'
    body = f'<div class="ex-sheet">{top}{packed.body}{end}</div>{data}{beside}' + "".join(
        f"<script>{text}</script>" for text in scripts
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{sheet(*SHEETS)}</style></head><body>{body}</body></html>\n'


def _module(name: str, text: str) -> str:
    """A widget's module, which has one default export and imports nothing, as a value."""
    if len(EXPORT.findall(text)) != 1 or re.search(r"^import\b", text, re.MULTILINE):
        raise UserError(f"{name} is not one module with one default export; a page can carry no other.")
    return f"{json.dumps(name)}: (() => {{\n{EXPORT.sub('return ', text)}\n}})()"


def _policy(scripts: list[str]) -> str:
    """Nothing is loaded, and no script runs but the page's own."""
    known = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    rules = f"default-src 'none'; script-src {known}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">'


def facts(provenance: Any) -> str:
    """Where a result came from, in one line; without what the page can change."""
    kept = {
        key: value
        for key, value in dict(provenance).items()
        if key not in ("eps", "page", "method", "layer") and value != ""
    }
    return " · ".join(f"{key}: {value}" for key, value in kept.items() if isinstance(value, (str, int, float)))
