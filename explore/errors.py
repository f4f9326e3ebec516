"""Errors a user can act on: one sentence that says what was expected, what came, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Bad input, told in one sentence. The CLI prints it and exits with 2; panels show it in their banner."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """' Did you mean X?' where some choice resembles `word`, else ''."""
    known = list(choices)
    folded = {c.lower().replace("-", "").replace("_", ""): c for c in known}
    key = word.lower().replace("-", "").replace("_", "")
    if key in folded:
        return f" Did you mean {folded[key]}?"
    close = get_close_matches(key, folded, n=2, cutoff=0.5) or [c for c in folded if key and c.startswith(key)]
    return f" Did you mean {' or '.join(folded[c] for c in close)}?" if close else ""
