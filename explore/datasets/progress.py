"""Progress bar for downloads and folders: tqdm if installed, else a line every ten percent."""

import sys
from types import TracebackType
from typing import Any


class Bar:
    """A `Progress`: call it with (what, done, total), close it by `with`; silent if short."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""
        self._tenth = 0

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._close()
            if total and done >= total:
                return
            self._what, self._tenth, self._bar = what, 0, _tqdm(what, total)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        elif total and done * 10 // total > self._tenth:
            self._tenth = done * 10 // total
            print(f"{what}: {self._tenth * 10}%", file=sys.stderr)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._what = None, ""


def _tqdm(what: str, total: int) -> Any:
    """A tqdm bar, or None where it is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    bytes_or_images: dict[str, Any] = {"unit": "B", "unit_scale": True} if "downloading" in what else {"unit": ""}
    return tqdm(total=total or None, desc=what, leave=False, **bytes_or_images)
