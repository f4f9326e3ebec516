"""Side-by-side timing: every candidate once a round, rounds repeated, medians compared."""

import atexit
import multiprocessing
import os
import platform
import statistics
import time
import unittest.mock
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch


class Apart:
    """A candidate in a process of its own, with none of our settings for memory and threads: what its own users have.

    `build(*args)` is a function at the top of a module; it returns the call, or None where that cannot be made (`here` is then
    False). A call waits for the other process and returns the seconds that were measured there.
    """

    def __init__(self, build: Callable[..., Callable[[], object] | None], *args: Any, device: torch.device):
        self.ours, theirs = multiprocessing.get_context("spawn").Pipe()
        # what libgomp's manual gives as its default; importing explore would lower it
        spins = {"GOMP_SPINCOUNT": "300000"}
        with unittest.mock.patch.dict(os.environ, spins):
            self.process = multiprocessing.get_context("spawn").Process(
                target=_serve, args=(theirs, torch.get_num_threads(), device, build, args)
            )  # no daemon: a loader in it has workers of its own
            self.process.start()
        theirs.close()
        atexit.register(self.ours.close)  # ends it, before this process waits for it
        self.here: bool = self.ours.recv()

    def __call__(self) -> float:
        self.ours.send(None)
        return self.ours.recv()


def _serve(pipe: Connection, threads: int, device: torch.device, build: Callable, args: tuple) -> None:
    torch.set_num_threads(threads)
    call = build(*args)
    pipe.send(call is not None)
    while call is not None:
        try:
            pipe.recv()
        except EOFError:
            return
        pipe.send(_timed(call, device))


def interleaved(
    candidates: dict[str, Callable[[], object]], rounds: int, device: torch.device, steady: int = 0
) -> dict[str, list[float]]:
    """Seconds of each call, `rounds` of each, in turn after one warm-up; CUDA is waited for.

    With `steady` a turn is one call that is not counted, then the mean of so many: what others left in the caches is gone by then,
    as it is in a training that has the machine for itself.
    """
    for call in candidates.values():
        _timed(call, device)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            turn = [_timed(call, device) for _ in range(1 + steady)]
            seconds[name].append(statistics.fmean(turn[1:] or turn))
    return seconds


def _timed(call: Callable[[], object], device: torch.device) -> float:
    if isinstance(call, Apart):
        return call()
    clock = clock_for(device)
    began = clock()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began


def clock_for(device: torch.device) -> Callable[[], float]:
    """The process's own time on a CPU with one thread, which other programs on the machine disturb least; else the wall's."""
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def table(seconds: dict[str, list[float]], images: int) -> None:
    """Print median, spread and throughput of each candidate."""
    print(f"{'':<30}{'median ms':>10}{'min':>9}{'max':>9}{'images/s':>10}")
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(
            f"{name:<30}{1e3 * middle:>10.1f}{1e3 * min(times):>9.1f}{1e3 * max(times):>9.1f}{images / middle:>10.0f}"
        )


def ratio(seconds: dict[str, list[float]], a: str, b: str) -> float:
    """Median over rounds of time(a) / time(b)."""
    return statistics.median(x / y for x, y in zip(seconds[a], seconds[b], strict=True))


def machine(device: torch.device) -> dict[str, object]:
    """What the figures were measured on."""
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    about = {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine()}
    return {**about, "clock": clock_for(device).__name__, **gpu}
