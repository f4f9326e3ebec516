"""Widget: an anywidget that hears the kernel however late a busy page loads its script."""

import uuid
from pathlib import Path
from typing import Any

import anywidget
import traitlets

_FIRST = Path(__file__).with_name("widget.js").read_text(encoding="utf-8")


class Widget(anywidget.AnyWidget):
    """What all widgets with a script of our own share. `key` is the model's id, by which the page
    finds the model; it is part of the first message, because later ones can be lost.
    """

    key = traitlets.Unicode().tag(sync=True)

    def __init_subclass__(cls, **kwargs: Any):
        own = vars(cls).get("_esm")
        if isinstance(own, str):  # else it is the trait that anywidget makes of it, in a class of its own
            cls._esm = f"{_FIRST}\n{own}"
        super().__init_subclass__(**kwargs)

    def __init__(self, **state: Any):
        key = uuid.uuid4().hex
        super().__init__(model_id=key, key=key, **state)

    def close(self) -> None:
        """Close the widget and its layout, which ipywidgets would keep for ever."""
        layout = getattr(self, "layout", None)
        super().close()
        if layout is not None:
            layout.close()
