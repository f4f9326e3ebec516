"""Show the library's own code inside a notebook, so that no lesson pastes a copy of it."""

import inspect
from typing import Any


class Source(str):
    """Source code that a notebook shows with colours."""

    def _repr_markdown_(self) -> str:
        return f"```python\n{self}\n```"


def source(thing: Any) -> Source:
    """The real, tested code of a function, class or method: `ex.source(ex.nt_xent)`."""
    return Source(inspect.cleandoc("\n" + inspect.getsource(inspect.unwrap(thing))))
