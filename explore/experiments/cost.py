"""How long trainings take on this machine, estimated before they start."""

import time
from collections.abc import Sequence

import torch

from ..config import TrainConfig
from ..random import seeded
from ..runfolder import build_encoder
from ..training import make_stepper, make_views, resolve_device
from .cell import MEASURING, Cell, cost_of, images_of

STARTUP = 6.0  # seconds until Python and torch are loaded


def seconds_a_pass(config: TrainConfig, threads: int) -> float:
    """Seconds of one forward pass of one image on this machine as it is now: SimCLR steps of a batch, 6 passes an image."""
    where, data = resolve_device("auto"), images_of(config)[0]
    plain = config.with_(attack="none", batch_size=min(config.batch_size, len(data.train)))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        encoder = build_encoder(plain).to(where).train()
        if plain.channels_last:
            encoder = encoder.to(memory_format=torch.channels_last)
        step, views = make_stepper(plain, encoder, data.gray), make_views(plain, data)
        x = data.train[: plain.batch_size][0].to(where)
        times = []
        for i in range(3):
            began = time.perf_counter()
            v1, v2 = views(x, seeded(i)), views(x, seeded(i + 9))
            float(step(v1, v2, seeded(i)).loss)
            times.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return min(times[1:]) / 6 / len(x)


def price_of(cells: Sequence[Cell], a_pass: float) -> float:
    """About how many seconds cells take, at `a_pass` seconds a forward pass of one image."""
    total = 0.0
    for cell in cells:
        data = images_of(cell.config)[0]
        images = min(cell.config.train_images or len(data.train), len(data.train))
        total += (cell.work - MEASURING) * images + MEASURING * len(data.train)
    return total * a_pass


def seconds_of_run(config: TrainConfig, a_pass: float) -> float:
    """About how many seconds a run takes that is trained in a process of its own, its live kNN included."""
    data = images_of(config)[0]
    images = min(config.train_images or len(data.train), len(data.train))
    looks = 1 + (config.epochs // config.knn_every if config.knn_every else 1)
    looked_at = 0 if data.labelled is None else min(config.knn_images, len(data.labelled)) + min(2000, len(data.test))
    return STARTUP + a_pass * (cost_of(config) * images + looks * looked_at)


def duration(seconds: float) -> str:
    """'45 s', '4 min 50 s', '12 min', '1 h 40 min'."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 600:
        minutes, rest = divmod(round(seconds / 10) * 10, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
