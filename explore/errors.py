"""Errors a user can act on: one sentence with what was expected, what came, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Bad input, explained in one sentence; the command line prints it and exits with status 2.

    >>> try: ex.Attack.fgsm(8)
    ... except ex.UserError as error: print(error)
    ε = 8 is outside 0 to 1, the range of a pixel. Did you mean 8/255?
    """


def nearest(word: str, choices: Iterable[str]) -> str:
    """' Did you mean X?' where some choice resembles `word`, else ''."""
    known = list(choices)
    folded = {c.lower().replace("-", "").replace("_", ""): c for c in known}
    key = word.lower().replace("-", "").replace("_", "")
    if key in folded:
        return f" Did you mean {folded[key]}?"
    close = get_close_matches(key, folded, n=2, cutoff=0.5) or [c for c in folded if key and c.startswith(key)]
    return f" Did you mean {' or '.join(folded[c] for c in close)}?" if close else ""
