"""One training step of the same whole batch in one process and in several (torchrun), one thread each on a CPU.

Wants as many idle cores or GPUs as there are processes: what else runs comes out of the ratio.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from explore.config import TrainConfig
from explore.distributed import together
from explore.errors import UserError
from explore.runfolder import build_encoder
from explore.training import make_optimizer, make_stepper, prepare, resolve_device

from .timing import machine


def run(quick: bool, device: str) -> dict[str, object]:
    """Seconds a step by number of processes, the whole batch equal: CLAE, ResNet-18, 128 images on a CPU, 1,024 on GPUs."""
    where = resolve_device(device)
    most = torch.cuda.device_count() if where.type == "cuda" else min(2, os.cpu_count() or 1)
    if most < 2:
        raise UserError(f"This benchmark compares one process with several, and there is {most} core or GPU here.")
    counts = [n for n in (1, 2, 4, 8) if n <= most]
    seconds: dict[int, list[float]] = {n: [] for n in counts}
    for _ in range(1 if quick else 3):
        for n in counts:
            seconds[n].append(_launched(n, quick, device))
    middle = {n: statistics.median(times) for n, times in seconds.items()}
    print(f"{'processes':<12}{'ms a step':>10}{'times faster':>14}")
    for n, value in middle.items():
        print(f"{n:<12}{1e3 * value:>10.1f}{middle[1] / value:>14.2f}")
    ratios = {f"one_over_{n}_ranks": middle[1] / middle[n] for n in counts[1:]}
    return {**ratios, "quick": quick, **machine(where), "clock": "perf_counter"}


def _launched(processes: int, quick: bool, device: str) -> float:
    code = f"from benchmarks.ranks import steps; steps({quick}, {device!r})"
    words = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "--no-python"]
    root = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, *words, sys.executable, "-c", code], capture_output=True, text=True, env=env)
    if done.returncode:
        raise UserError(f"torchrun ended with an error: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))["seconds"]


def steps(quick: bool, device: str) -> None:
    """This process's part of some steps; the first prints the median of their seconds."""
    where = resolve_device(device)
    batch = 1024 if where.type == "cuda" else 32 if quick else 128
    config = TrainConfig(arch="resnet18", width=16 if quick else 64, stem="cifar", batch_size=batch)
    with together(device) as ranks:
        encoder = prepare(config, build_encoder(config).to(where)).train()
        ranks.join(encoder)
        stepper, optimizer = make_stepper(config, encoder, ranks=ranks), make_optimizer(config, encoder)
        draws = ranks.seeded(1)
        v1, v2 = (torch.rand(ranks.share(batch, "batch"), 3, 32, 32, generator=draws).to(where) for _ in range(2))
        times = []
        for _ in range(3 if quick else 6):
            began = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            stepper(v1, v2, draws)
            ranks.average(p.grad for p in encoder.parameters() if p.grad is not None)
            optimizer.step()
            if where.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        if ranks.first:
            print(json.dumps({"seconds": statistics.median(times[1:])}))
