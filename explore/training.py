"""The training loop: a generator of metric rows, read top to bottom."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from . import datasets
from .attack_table import TABLE
from .attacks import NOISES, attack_named
from .config import TrainConfig
from .distributed import ALONE, Ranks
from .errors import UserError
from .evaluate import embed, knn_accuracy
from .losses import chance
from .nets import Encoder
from .random import seeded
from .runfolder import Run, build_encoder
from .steps import Stepper
from .views import Views, two_views


def train(
    config: TrainConfig,
    data: "datasets.Data | None" = None,
    *,
    run: Run | None = None,
    device: str = "auto",
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    log_every: int = 10,
    ranks: Ranks = ALONE,
) -> Iterator[dict[str, Any]]:
    """Train an encoder; yields a row every `log_every` steps and one with kNN accuracy at every epoch's end.

    With a `run`, rows, weights and what a resumption needs are written to its folder; weights every epoch, so a crash
    costs one epoch at most. `should_stop()` is asked after every step: a stopped run goes on with `resume=True` and equals an
    uninterrupted one bit for bit on the same machine, because every draw depends on the seed and the step alone.

    With several `ranks` every process calls this with the same arguments; batch and chunk are the whole batch's, the first
    alone writes and measures kNN, and `should_stop()` is asked at every row.
    """
    where = resolve_device(device)
    data = data or datasets.load(config.dataset, data_dir=config.data_dir, size=config.image_size)
    data = data.to(where).for_choosing(config.validation)
    images = data.train if config.train_images is None else data.train.take(config.train_images, seeded(config.seed))
    per_epoch = len(images) // config.batch_size
    if per_epoch == 0:
        raise UserError(
            f"A batch of {config.batch_size} is larger than the {len(images)} training images; use --batch-size."
        )

    own = ranks.share(config.batch_size, "batch_size")
    encoder = prepare(config, build_encoder(config).to(where))
    ranks.join(encoder)
    stepper, views = make_stepper(config, encoder, data.gray, ranks), make_views(config, data)
    optimizer = make_optimizer(config, encoder)
    probe = KNNProbe(config, data)
    sums = torch.zeros(3, device=where)  # clean loss, adversarial loss, steps, since the last row
    step, spent = 0, 0.0
    if resume and run is not None and (run.path / "resume.safetensors").is_file():
        progress = run.load_resume(encoder, optimizer, sums)
        step, spent = progress["step"], progress["seconds"]
    run = run if ranks.first else None  # one writer
    if resume and run is not None:
        run.keep_rows(step or -1)  # no row of what a crash left behind; none at all where it ended in its first epoch
    if run is not None:
        about: dict[str, Any] = {
            "knn": probe.about,
            "device": describe_device(where),
            "image_size": data.size,
            "data": data.provenance,
            "warnings": data.warnings,
        }
        run.note_env(
            **about, ranks=ranks.world, precision=str(stepper.autocast or torch.float32).removeprefix("torch.")
        )
        run.set_status("running")
    began = time.perf_counter() - spent
    clock = {"began": began, "total": config.epochs * per_epoch}

    if step == 0:
        knn = probe(encoder) if ranks.first else None
        yield _log(run, {"step": 0, "epoch": 0, "knn": knn, "seconds": time.perf_counter() - began})
    while step < clock["total"]:
        epoch = step // per_epoch
        order = seeded(_mix(config.seed, 1, epoch))
        part, at = (ranks.rank, ranks.world), step % per_epoch
        for x, _ in images.batches(config.batch_size, order, shuffle=True, drop_last=True, start=at, part=part):
            ranks.complete(x, own)
            draws = ranks.seeded(_mix(config.seed, 2, step))
            _set_lr(optimizer, config, step, per_epoch)
            v1, v2 = two_views(views, x, draws)
            optimizer.zero_grad(set_to_none=True)
            if not encoder.training:  # a walk over all modules
                encoder.train()
            done = stepper(v1, v2, draws)
            ranks.average(p.grad for p in encoder.parameters() if p.grad is not None)
            optimizer.step()
            step += 1
            sums += torch.stack(
                [done.loss, done.loss if done.loss_adv is None else done.loss_adv, torch.ones_like(done.loss)]
            )
            end_of_epoch, row = step % per_epoch == 0, None
            due = end_of_epoch or step % log_every == 0
            if due:
                ranks.average([sums])
                asked = probe if end_of_epoch and ranks.first else None
                row = _log(run, _row(config, step, per_epoch, sums, optimizer, clock, asked, encoder))
            stop = should_stop() if ranks.world == 1 else due and ranks.any(should_stop(), where)
            if run is not None and (end_of_epoch or stop):
                run.save_encoder(encoder, step)
                run.save_resume(encoder, optimizer, sums, {"step": step, "seconds": time.perf_counter() - began})
            if row is not None:
                yield row
            if stop:
                if run is not None:
                    run.set_status("stopped", step=step)
                return
    if run is not None:
        run.set_status("done", step=step)


class KNNProbe:
    """Live kNN accuracy (20 neighbours, features h) on a fixed, balanced part of the data.

    The field's 200 neighbours belong to banks of 50,000; with 500 images a class they reach beyond the class. None where
    there are no two classes to tell apart.
    """

    def __init__(self, config: TrainConfig, data: "datasets.Data"):
        self.about: dict[str, Any] = {}
        self.compiled = config.compile
        self.off = data.labelled is None or len(data.classes) < 2
        if data.labelled is not None and not self.off:
            pick = seeded(0)
            self.train = data.labelled.take(min(config.knn_images, len(data.labelled)), pick)
            self.test = data.test.take(min(2000, len(data.test)), pick)
            self.about = {"k": 20, "neighbours": len(self.train), "test": len(self.test), "features": "h"}

    def __call__(self, encoder: Encoder) -> float | None:
        if self.off:
            return None
        eager = torch.compiler.set_stance("force_eager") if self.compiled else contextlib.nullcontext()
        with eager:  # a pass now and then, of other sizes
            return knn_accuracy(*embed(encoder, self.train), *embed(encoder, self.test), k=20).accuracy


def prepare(config: TrainConfig, encoder: Encoder) -> Encoder:
    """The encoder in the memory layout and, where asked for, compiled form that it trains fastest in; the same function."""
    if config.channels_last:
        encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        encoder.trunk.compile(fullgraph=True, dynamic=False)
    return encoder


def make_stepper(config: TrainConfig, encoder: Encoder, gray: bool = False, ranks: Ranks = ALONE) -> Stepper:
    """The training step that a config describes."""
    attack = None
    if config.attack != "none":
        options: dict[str, Any] = {"gray": gray if config.gray is None else config.gray}
        options["clamp"] = (0.0, 1.0) if config.clamp else None
        options |= TABLE[config.attack].options(config.steps)
        if config.attack == "gaussian":
            options["by"] = config.gaussian_by
        if config.attack in NOISES:
            options["norm"] = config.noise_norm
        attack = attack_named(config.attack, config.eps, **options)
    return Stepper(
        encoder,
        attack,
        loss=config.loss,
        temperature=config.temperature,
        alpha=config.alpha,
        reference=config.adv_reference,
        attack_branch=config.attack_branch,
        authors=config.authors_step,
        autocast=resolve_precision(config.precision, next(encoder.parameters()).device),
        chunk=None if config.chunk is None else ranks.share(config.chunk, "chunk"),
        ranks=ranks,
    )


def make_views(config: TrainConfig, data: "datasets.Data") -> Views:
    """The views that a config describes, for a dataset's size and colours."""
    j = config.jitter
    jitter = (0.8 * j, 0.8 * j, 0.8 * j, 0.2 * j)
    views = Views(size=data.size, scale=(config.crop_min, 1.0), jitter=jitter, flip=0.5 if config.flip else 0.0)
    return views.for_gray() if data.gray else views


def contrast_settings(config: TrainConfig, data: "datasets.Data") -> dict[str, Any]:
    """Views, temperature and loss of a run: the keyword arguments of `perturbation.engine.contrast_with` and of the studies."""
    return {"views": make_views(config, data), "temperature": config.temperature, "loss": config.loss}


def make_optimizer(config: TrainConfig, encoder: Encoder) -> torch.optim.Optimizer:
    """Adam (decoupled weight decay, on matrices only), SGD with momentum, or LARS, which leaves vectors alone (arXiv:1708.03888)."""
    matrices = [p for p in encoder.parameters() if p.dim() > 1]
    vectors = [p for p in encoder.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, fused=True)
    if config.optimizer == "lars":
        return _lars()(groups, lr=config.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def _lars() -> Callable[..., torch.optim.Optimizer]:
    try:
        from timm.optim import Lars
    except ImportError:
        raise UserError("optimizer 'lars' is timm's; install it with: pip install timm.") from None
    return Lars


def resolve_device(device: str) -> torch.device:
    """'auto' -> the best there is; a device asked for by name that is not there is a UserError."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
    except RuntimeError:
        raise UserError(f"device is 'auto', 'cpu', 'cuda' or 'cuda:0', got '{device}'.") from None
    if where.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device 'cuda' was asked for, and torch finds no CUDA GPU here; use --device auto or --device cpu."
        )
    if where.type not in ("cpu", "cuda"):
        raise UserError(f"device is 'auto', 'cpu' or 'cuda', got '{device}'; other kinds are not tested here.")
    return where


def describe_device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def resolve_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast type: bf16 where asked for or, for 'auto', on GPUs and CPUs that compute in it; None is full fp32."""
    if precision == "auto" and device.type == "cuda":
        precision = "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    elif precision == "auto":
        can: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        precision = "bf16" if can.get("avx512_bf16") or can.get("amx_bf16") else "fp32"
    return torch.bfloat16 if precision == "bf16" else None


def _set_lr(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, per_epoch: int) -> None:
    """Linear warm-up, then a cosine to zero at the last step (or constant)."""
    warm, total = config.warmup_epochs * per_epoch, config.epochs * per_epoch
    factor = min(1.0, (step + 1) / warm) if warm else 1.0
    if config.cosine and step >= warm:
        factor = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
    for group in optimizer.param_groups:
        group["lr"] = config.lr * factor


def _row(config, step, per_epoch, sums, optimizer, clock, probe: "KNNProbe | None", encoder) -> dict[str, Any]:
    """The row of metrics at this step; resets the sums. A loss that is not finite ends the training here."""
    loss, adv, n = sums.tolist()
    sums.zero_()
    if not math.isfinite(loss + adv):
        raise UserError(
            f"The loss became {loss + adv} at step {step}; lower --lr (now {config.lr:g}) or use --precision fp32."
        )
    row = {"step": step, "epoch": step / per_epoch, "loss": loss / n, "chance": chance(config.batch_size, config.loss)}
    if config.attack != "none":
        row["loss_adv"] = adv / n
    due = config.knn_every and (step // per_epoch) % config.knn_every == 0
    row["knn"] = probe(encoder) if probe and (due or step == clock["total"]) else None
    seconds = time.perf_counter() - clock["began"]
    left = seconds / step * (clock["total"] - step)
    return row | {"lr": optimizer.param_groups[0]["lr"], "seconds": seconds, "seconds_left": left}


def _log(run: Run | None, row: dict[str, Any]) -> dict[str, Any]:
    if run is not None:
        run.append(row)
    return row


def _mix(seed: int, stream: int, count: int) -> int:
    """A seed of its own for every (seed, stream, count), below 2^63."""
    return (seed * 1_000_003 + stream) * 1_000_003_007 + count
