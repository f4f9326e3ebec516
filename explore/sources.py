"""Show the library's source code in a notebook."""

import inspect
from typing import Any


class Source(str):
    """Source code that a notebook displays with syntax highlighting."""

    def _repr_markdown_(self) -> str:
        return f"```python\n{self}\n```"


def source(thing: Any) -> Source:
    """The source code of a function, class or method.

    >>> ex.source(ex.alignment).startswith("def alignment(")
    True
    """
    return Source(inspect.cleandoc("\n" + inspect.getsource(inspect.unwrap(thing))))
