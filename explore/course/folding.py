"""What a cell shows, folded until the reader has made a prediction."""

from ..errors import extra

_HIDE = "height:0;min-height:0;margin:0;padding:0;overflow:hidden;visibility:hidden"  # its width stays, for charts
_AREAS = (".jp-OutputArea-child", ".output_area")  # JupyterLab, Notebook and Voila; a site's page
_STYLE = ",".join(f"{area}:has(.clae-fold:not([open])) ~ {area}" for area in _AREAS)
_FOLD = (
    f"<style>{_STYLE}{{{_HIDE}}}.clae-fold summary{{cursor:pointer}}</style>"
    "<details class='clae-fold'><summary><b>Predicted? Show what the cell found</b></summary></details>"
)


def fold() -> None:
    """Fold all that the cell shows after this line until a click, also after Run All.

    Where each output is a page of its own (VS Code), and outside of a notebook, nothing is folded.

    >>> fold()
    """
    with extra("Folding a cell's output"):
        from IPython import get_ipython
        from IPython.display import display
    if get_ipython() is not None:
        display({"text/html": _FOLD, "text/plain": "Predict, then look:"}, raw=True)
