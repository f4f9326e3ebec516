"""The progress bar for downloads and folders."""

from types import TracebackType
from typing import Any


class Bar:
    """A `Progress`: call it with (what, done, total), close it by `with`; silent if short."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __call__(self, what: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if what != self._what:
            self._close()
            if total and done >= total:
                return
            units: dict[str, Any] = {"unit": "B", "unit_scale": True} if "downloading" in what else {"unit": ""}
            self._what, self._bar = what, tqdm(total=total or None, desc=what, leave=False, **units)
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._what = None, ""
