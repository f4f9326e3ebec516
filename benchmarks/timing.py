"""Side-by-side timing: every candidate once a round, rounds repeated, medians compared."""

import platform
import statistics
import time
from collections.abc import Callable

import torch


def interleaved(
    candidates: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each call, `rounds` of each, in turn after one warm-up; CUDA is waited for."""

    clock = clock_for(device)

    def timed(call: Callable[[], object]) -> float:
        began = clock()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock() - began

    for call in candidates.values():
        timed(call)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            seconds[name].append(timed(call))
    return seconds


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
