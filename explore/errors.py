"""Errors a user can act on: one sentence with what was expected, what came, and what to do."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

EXTRAS = {  # modules that the core does without -> the extra of pyproject.toml that has them
    "IPython": "notebooks",
    "ipywidgets": "notebooks",
    "traitlets": "notebooks",
    "anywidget": "notebooks",
    "markupsafe": "notebooks",
    "plotly": "notebooks",
    "nbformat": "notebooks",
    "captum": "notebooks",
    "umap": "notebooks",
    "umap-learn": "notebooks",  # as `importlib.metadata` has it
    "jupyterlab": "lab",
    "nbconvert": "lab",
    "nbclient": "lab",
    "pygments": "lab",
}


class UserError(ValueError):
    """Bad input, explained in one sentence; the command line prints it and exits with status 2.

    >>> try: ex.Attack.fgsm(8)
    ... except ex.UserError as error: print(error)
    ε = 8 is outside 0 to 1, the range of a pixel. Did you mean 8/255?
    """


def nearest(word: object, choices: Iterable[str]) -> str:
    """' Did you mean X?' where some choice resembles `word`, else ''."""
    if not isinstance(word, str):
        return ""
    known = list(choices)
    folded = {c.lower().replace("-", "").replace("_", ""): c for c in known}
    key = word.lower().replace("-", "").replace("_", "")
    if key in folded:
        return f" Did you mean {folded[key]}?"
    close = get_close_matches(key, folded, n=2, cutoff=0.5) or [c for c in folded if key and c.startswith(key)]
    return f" Did you mean {' or '.join(folded[c] for c in close)}?" if close else ""


@contextmanager
def extra(what: str) -> Iterator[None]:
    """Around imports of packages of an extra: where one is missing, a UserError names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        raise UserError(f"{what} needs {module}, which is not installed; {install(EXTRAS[module])}.") from None


def install(name: str) -> str:
    """How an extra is installed, in quotes that every shell takes."""
    return f'install it with: pip install "clae-explorer[{name}]"'
