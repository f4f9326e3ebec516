"""What the commands share: settings read from text, progress, names."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from ..config import CHOICES, RECIPES, TrainConfig, parse_eps, show_eps
from ..errors import UserError


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Every field of TrainConfig as an option that is absent unless given."""
    settings = parser.add_argument_group("settings (those of TrainConfig)")
    for name, kind in settings_of().items():
        default = getattr(TrainConfig(), name)
        shown = show_eps(default) if name == "eps" else default
        if name in RECIPES["*"]:
            shown = f"the dataset's; {default} for {TrainConfig().dataset}, {RECIPES['*'][name]} for photographs"
        elif name in CHOICES:
            shown = f"{default}; of {', '.join(str(choice) for choice in CHOICES[name])}"
        settings.add_argument(
            "--" + name.replace("_", "-"), type=kind, default=argparse.SUPPRESS, metavar=_metavar(kind), help=f"{shown}"
        )


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were typed."""
    return {name: getattr(args, name) for name in settings_of() if hasattr(args, name)}


def settings_of() -> dict[str, Callable[[str], Any]]:
    """Every field of TrainConfig with the function that reads it from text."""
    hints = get_type_hints(TrainConfig)

    def reader(name: str) -> Callable[[str], Any]:
        if name == "eps":
            return told(parse_eps)
        kinds = [k for k in (get_args(hints[name]) or (hints[name],)) if k is not type(None)]
        if bool in kinds:
            return told(yes_no)
        return next((k for k in (int, float) if k in kinds), str)

    return {f.name: reader(f.name) for f in fields(TrainConfig)}


def told(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """argparse hides the words of a ValueError; this keeps them."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def yes_no(text: str) -> bool:
    if text.lower() in ("yes", "true", "on", "1"):
        return True
    if text.lower() in ("no", "false", "off", "0"):
        return False
    raise UserError(f"expected yes or no, got '{text}'")


def _metavar(kind: Callable) -> str:
    return {int: "N", float: "X", str: "WORD"}.get(kind, "VALUE")  # type: ignore[call-overload]


def step_bar(total: int, initial: int):
    """A progress bar over training steps."""
    from tqdm import tqdm

    form = "{percentage:3.0f} % {bar} {n}/{total}, {remaining} left{postfix}"
    return tqdm(total=total, initial=initial, unit="step", dynamic_ncols=True, bar_format=form)


def counting_line() -> Callable[[str, int, int], None] | None:
    """Progress of loading on a terminal: what is being done, how far, of how much."""
    if not sys.stderr.isatty():
        return None

    def show(what: str, done: int, total: int) -> None:
        of = f" of {total:,}" if total else ""
        print(f"\r{what}: {done:,}{of}", end="\n" if total and done >= total else "", file=sys.stderr, flush=True)

    return show


def spent(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
