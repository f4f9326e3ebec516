"""Formulas of a lesson's text as MathML, which browsers set without any script; without
latex2mathml, as they were written.
"""

import html
import re

CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)
MARKS = str.maketrans({mark: f"&#{ord(mark)};" for mark in "*_`~[]\\"})  # those that Markdown reads


def set_formulas(markdown: str) -> str:
    r"""Markdown with `$...$` and `$$...$$` outside code replaced by MathML.

    >>> from explore.site.formulas import set_formulas
    >>> set_formulas("costs `$5`")
    'costs `$5`'
    """
    parts = CODE.split(markdown)
    parts[::2] = [
        FORMULA.sub(lambda found: _formula(found[1] or found[2], bool(found[1])), text) for text in parts[::2]
    ]
    return "".join(parts)


def _formula(tex: str, block: bool) -> str:
    try:
        from latex2mathml.converter import convert
    except ImportError:
        made = f'<code class="tex">{html.escape(tex.strip())}</code>'
    else:
        made = convert(tex.strip(), display="block" if block else "inline")
    return made.translate(MARKS)
