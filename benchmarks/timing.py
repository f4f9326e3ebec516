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

    def timed(call: Callable[[], object]) -> float:
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    for call in candidates.values():
        timed(call)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            seconds[name].append(timed(call))
    return seconds


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
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine(), **gpu}
