"""Cells as tasks of Ray: started here for one machine, or a cluster that runs already."""

import math
import os
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from .task import RETRIES, Done, Engine, Stop, Task, work


def on_ray(tasks: list[Task], out: Path, engine: Engine, should_stop: Stop) -> Generator[Done, None, None]:
    """One Ray task a cell; Ray places it, gives it its share of a GPU, and starts it again where its worker is lost."""
    ray = _ray()
    cpus = engine.threads or (max(1, torch.get_num_threads() // engine.workers) if engine.address is None else 1)
    started = not ray.is_initialized()
    if started:
        _start(ray, engine.address, engine.workers * cpus)
    waiting: dict[Any, Task] = {}
    try:
        share = _gpu_share(ray.cluster_resources(), cpus, engine)
        remote = ray.remote(num_cpus=cpus, num_gpus=share, max_retries=RETRIES)(work)
        waiting = {remote.remote(task, out, engine.device, cpus): task for task in tasks}
        while waiting and not should_stop():
            for ref in ray.wait(list(waiting), timeout=0.5)[0]:
                task = waiting.pop(ref)
                try:
                    done = ray.get(ref)
                except ray.exceptions.WorkerCrashedError:
                    error = f"Its worker was lost {RETRIES + 1} times, out of memory perhaps; run fewer cells at once."
                    done = Done(task.cell, task.key, None, error=error)
                if done is not None:
                    yield done
    finally:
        for ref in waiting:
            ray.cancel(ref, force=True)
        if started:
            ray.shutdown()


def _gpu_share(has: dict[str, float], cpus: int, engine: Engine) -> float:
    """The share of a GPU for each cell; UserError where the cluster has too few CPUs for one."""
    if has.get("CPU", 0) < cpus:
        raise UserError(f"A cell needs {cpus} CPUs and the Ray cluster has {has.get('CPU', 0):g}; use --threads.")
    if engine.gpu_share is not None:
        return engine.gpu_share
    gpus = 0.0 if engine.device == "cpu" else has.get("GPU", 0.0)
    return min(1.0, gpus) if engine.address else min(1.0, math.floor(1e4 * gpus / engine.workers) / 1e4)


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UserError(
            'The engine "ray" is not installed; pip install "clae-explorer[cluster]", or use --engine local.'
        ) from None
    return ray


def _start(ray: Any, address: str | None, cpus: int) -> None:
    """Join a cluster, or start Ray here without dashboard and statistics, and with a small store: cells are small."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": 100_000_000}
    try:
        if address not in (None, "auto"):  # Ray itself would try for many minutes
            host, _, port = str(address).removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address or "local", **options)
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
        raise UserError(
            f"No Ray cluster answers at '{address or 'local'}' ({str(error).splitlines()[0]}); start one with ray start --head, or "
            "leave the address away."
        ) from error
