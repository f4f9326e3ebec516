"""Two programs at once on the same cores, against one alone: a training step's time, whatever was imported first.

Every program is a process of its own that says how long a step took on average. `former`: without the project's sharing of cores
(`explore.threads`), so with as many threads as torch takes and with libgomp's own waiting. `joined`: a training that began alone
when another came; it keeps its number of threads. `panel`: a panel's computation (PGD and noises on 32 images, with its
worker's threads) beside a training, and that training.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import time

import torch

from explore.threads import at_work, used_by_others

from .timing import machine

SETTLE = 1.5  # seconds that are not counted: the first looks at the cores
Program = tuple[str, str, bool]  # what it computes, what it imports first, whether it shares
CASES: dict[str, list[Program]] = {
    "alone": [("training", "explore", True)],
    "alone, torch first": [("training", "torch", True)],
    "two, torch first": [("training", "torch", True)] * 2,
    "two, explore first": [("training", "explore", True)] * 2,
    "joined": [("training", "torch", True), ("training", "torch", True)],
    "panel alone": [("panel", "torch", True)],
    "panel beside a training": [("panel", "torch", True), ("training", "torch", True)],
    "former: alone": [("training", "explore", False)],
    "former: two, torch first": [("training", "torch", False)] * 2,
    "former: two, explore first": [("training", "explore", False)] * 2,
    "former: panel beside a training": [("panel", "torch", False), ("training", "torch", False)],
}


def run(quick: bool, device: str) -> dict[str, object]:
    """Milliseconds of a step; CPU only."""
    rounds, seconds = (1, 2.0) if quick else (5, 4.0)
    found: dict[str, list[list[float]]] = {name: [] for name in CASES}
    loads, threads = [], {}
    for _ in range(rounds):
        for name, programs in CASES.items():
            loads.append(used_by_others() or 0.0)
            means = _at_once(programs, seconds, apart=name == "joined")
            found[name].append([ms for ms, _ in means])
            threads[name] = [number for _, number in means]
            shown = ", ".join(f"{ms:.0f} ms on {number}" for ms, number in means)
            print(f"{name}: {shown} threads; others used {loads[-1]:.1f} cores before", file=sys.stderr, flush=True)
    middle = {name: [statistics.median(each) for each in zip(*times, strict=True)] for name, times in found.items()}
    print(f"{'ms a step, median of rounds':<34}{'':>24}   threads")
    for name, each in middle.items():
        print(f"{name:<34}{', '.join(f'{ms:.1f}' for ms in each):>24}   {threads[name]}")
    figures: dict[str, object] = {}
    for name, (over, place) in {
        "two, torch first": ("alone", None),
        "two, explore first": ("alone", None),
        "joined": ("alone", None),
        "panel beside a training": ("panel alone", 0),
        "former: two, torch first": ("former: alone", None),
        "former: two, explore first": ("former: alone", None),
        "alone": ("former: alone", None),
    }.items():
        ratios = [(max(a) if place is None else a[place]) / b[0] for a, b in zip(found[name], found[over], strict=True)]
        figures[f"{name} : {over}"] = statistics.median(ratios)
        print(f"{name + ' : ' + over:<58}{statistics.median(ratios):>7.2f}   {min(ratios):.2f} to {max(ratios):.2f}")
    loads.sort()
    print(
        f"cores that other programs used before a case: median {statistics.median(loads):.2f}, at most {loads[-1]:.2f}"
    )
    return {**figures, "others_cores": statistics.median(loads), "quick": quick, **machine(torch.device("cpu"))}


def _at_once(programs: list[Program], seconds: float, apart: bool) -> list[tuple[float, int]]:
    """(milliseconds of a step, number of threads) of each program; `apart`: the second begins a little after the first."""
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")}
    started = []
    for what, first, shares in programs:
        code = f"import {first}; from benchmarks.busy import program; program({what!r}, {shares}, {seconds})"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes))  # type: ignore[call-overload]
    for each in started:
        each.stdout.readline()  # it is ready
    for each in started:
        each.stdin.write("\n")
        each.stdin.flush()
        if apart:
            time.sleep(SETTLE / 2)
    found = [each.communicate()[0].split() for each in started]
    return [(float(ms), int(number)) for ms, number in found]


def program(what: str, shares: bool, seconds: float) -> None:
    """In a process of its own: compute over and over; print the mean milliseconds and the number of threads."""
    from explore.system import keep_memory

    keep_memory()
    call = {"training": _training, "panel": _panel}[what]()
    half = max(1, torch.get_num_threads() // 2)
    torch.set_num_threads(half if what == "panel" else torch.get_num_threads())
    call()
    print("ready", flush=True)
    sys.stdin.readline()

    def work() -> contextlib.AbstractContextManager:
        return at_work(most=half, wait=False) if what == "panel" else at_work()

    with work() if shares and what == "training" else contextlib.nullcontext():
        counted, spent, began = 0, 0.0, time.perf_counter()
        while spent < seconds:
            with work() if shares and what == "panel" else contextlib.nullcontext():
                start = time.perf_counter()
                call()
                end = time.perf_counter()
            if start - began > SETTLE:
                counted, spent = counted + 1, spent + end - start
        print(1e3 * spent / counted, torch.get_num_threads())


def _training():
    """One CLAE step of the small network, as `train` makes it."""
    from explore.config import TrainConfig
    from explore.runfolder import build_encoder
    from explore.training import prepare

    from .step import _step, _views

    bf16 = os.environ.get("ATEN_CPU_CAPABILITY") is None  # a processor that is told to have AVX2 only has none
    config = TrainConfig(precision="auto" if bf16 else "fp32")
    return _step(
        config, prepare(config, build_encoder(config)).train(), *_views(config.batch_size, torch.device("cpu"))
    )


def _panel():
    """One computation of the perturbation lab: 32 images, PGD, and noises of equal length."""
    import explore as ex

    run, data = ex.open_run("demo/clae"), ex.load("fashion")
    encoder, x = run.encoder(), data.test[:32][0]
    return lambda: ex.perturb(encoder, x, 8 / 255, attack="pgd")
