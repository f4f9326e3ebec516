"""The training loop: a generator of metric rows, read top to bottom."""

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from . import datasets
from .attack_table import TABLE
from .attacks import NOISES, attack_named
from .config import TrainConfig
from .cuda_graph import Recorded, Update, recordable
from .distributed import ALONE, Ranks
from .errors import UserError
from .evaluate import embed, knn_accuracy
from .losses import chance
from .monitor import Monitor
from .nets import Encoder
from .random import seeded
from .recorder import Recorder
from .runfolder import Run, build_encoder
from .steps import Step, Stepper
from .threads import at_work
from .types import Images
from .views import Views, two_views_each

AHEAD = 8  # steps whose views are computed at once on a GPU: it then waits less for launches


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
    threads: int | None = None,
    monitored: bool = False,
) -> Iterator[dict[str, Any]]:
    """Train an encoder; yields a row every `log_every` steps and one with kNN accuracy at every epoch's end.

    With a `run`, rows, weights and what a resumption needs are written to its folder; weights every epoch, so a crash
    costs one epoch at most (where writing takes long beside an epoch, a twentieth of the time goes into it).
    `should_stop()` is asked after every step: a stopped run goes on with `resume=True` and equals an uninterrupted one
    bit for bit on the same machine, because every draw depends on the seed and the step alone. A run that another
    process trains is a UserError.

    With several `ranks` every process calls this with the same arguments; batch and chunk are the whole batch's, the first
    alone writes and measures kNN, and `should_stop()` is asked at every row.

    `threads` of torch: None: the run's own where it is resumed, else those that are free when it begins (`threads.choose`). They
    decide about the last bits of sums, so they stay the same until its end and stand in env.json.

    `monitored`: rows with kNN also have alignment, uniformity and RankMe, and pictures of the batch stand in the run folder
    (`Monitor`); the encoder is the same bit for bit.
    """
    where = resolve_device(device)
    with at_work(_threads_of(run if resume else None, ranks, where) if threads is None else threads) as share:
        data = data or datasets.load(config.dataset, data_dir=config.data_dir, size=config.image_size)
        data = data.to(where).for_choosing(config.validation)
        batches = Batches(config, data, ranks)
        encoder = prepare(config, build_encoder(config).to(where).train())
        ranks.join(encoder)
        stepper, views = make_stepper(config, encoder, data.gray, ranks), make_views(config, data)
        optimizer = make_optimizer(config, encoder)
        update = make_update(config, encoder, stepper, optimizer, ranks)
        probe = KNNProbe(config, data)
        monitor = Monitor(data, views, run, compiled=config.compile) if monitored and ranks.first else None
        metrics = Metrics(config, batches, probe, ranks, where, monitor)
        recorder = Recorder(run, encoder, optimizer, metrics.sums, batches.total, resume=resume, first=ranks.first)
        recorder.start(threads=share.threads, **_facts(data, probe, stepper, ranks, where))
        step, stop = recorder.step, False

        if step == 0:
            yield recorder.write({"step": 0, "epoch": 0, **metrics.looks(encoder)})
        for step, v1, v2, draws in batches.views_after(recorder.step, views):
            lr = set_learning_rate(optimizer, config, step - 1, batches.per_epoch)
            losses = update(v1, v2, draws)
            metrics.add(losses)
            if monitor is not None:
                monitor.show(step, v1, v2, losses.x_adv)

            row, epoch_ends = None, step % batches.per_epoch == 0
            if epoch_ends or step % log_every == 0:
                row = recorder.write(metrics.row(step, encoder, lr))
            stop = ranks.stop(should_stop, row is not None, where)
            if epoch_ends or stop:
                recorder.save(step, last=stop or step == batches.total)
            if row is not None:
                yield row
            if stop:
                break
        recorder.end("stopped" if stop else "done", step)


class Batches:
    """The training images of a config in shuffled batches; an epoch's order depends on the seed and the epoch alone."""

    def __init__(self, config: TrainConfig, data: "datasets.Data", ranks: Ranks = ALONE):
        some = config.train_images
        self.images = data.train if some is None else data.train.take(some, seeded(config.seed))
        self.size, self.seed, self.ranks = config.batch_size, config.seed, ranks
        self.per_epoch = len(self.images) // self.size
        self.total = config.epochs * self.per_epoch
        if self.per_epoch == 0:
            raise UserError(
                f"A batch of {self.size} is larger than the {len(self.images)} training images; use --batch-size."
            )
        self.share = ranks.share(self.size, "batch_size")
        small = not self.images.streamed and data.size <= 64
        self.ahead = AHEAD if data.device.type == "cuda" and small else 1

    def after(self, step: int) -> Iterator[tuple[int, Tensor]]:
        """(number of the step, counted from 1; this rank's images) of every step after `step`."""
        part = (self.ranks.rank, self.ranks.world)
        while step < self.total:
            epoch, start = divmod(step, self.per_epoch)
            order = seeded(_mix(self.seed, 1, epoch))
            for x, _ in self.images.batches(self.size, order, shuffle=True, drop_last=True, start=start, part=part):
                self.ranks.complete(x, self.share)
                step += 1
                yield step, x

    def views_after(self, step: int, views: Views) -> Iterator[tuple[int, Images, Images, torch.Generator]]:
        """(number, view 1, view 2, generator for further draws) of every step after `step`.

        On a GPU the views of several steps are computed in one call; each step's draws are its own.
        """
        steps = self.after(step)
        while taken := list(itertools.islice(steps, self.ahead)):
            draws = [self.ranks.seeded(_mix(self.seed, 2, step - 1)) for step, _ in taken]
            pairs = two_views_each(views, [x for _, x in taken], draws)
            for (number, _), (v1, v2), generator in zip(taken, pairs, draws, strict=True):
                yield number, v1, v2, generator


class Metrics:
    """The mean losses since the last row of metrics, and that row."""

    def __init__(
        self,
        config: TrainConfig,
        batches: Batches,
        probe: "KNNProbe",
        ranks: Ranks,
        device: torch.device,
        monitor: Monitor | None = None,
    ):
        self.config, self.batches, self.probe, self.ranks, self.monitor = config, batches, probe, ranks, monitor
        self.sums = torch.zeros(3, device=device)  # clean loss, adversarial loss, steps

    def add(self, losses: Step) -> None:
        """Count a step's losses, without waiting for the device to compute them."""
        clean, adv = losses.loss, losses.loss_adv
        self.sums += torch.stack([clean, clean if adv is None else adv, torch.ones_like(clean)])

    def row(self, step: int, encoder: Encoder, lr: float) -> dict[str, Any]:
        """The row at this step; starts the means anew. UserError where a loss is not finite."""
        c, epoch = self.config, step / self.batches.per_epoch
        self.ranks.average([self.sums])
        loss, adv, n = self.sums.tolist()
        self.sums.zero_()
        if not math.isfinite(loss + adv):
            raise UserError(
                f"The loss became {loss + adv} at step {step}; lower --lr (now {c.lr:g}) or use --precision fp32."
            )
        row = {
            "step": step,
            "epoch": epoch,
            "loss": loss / n,
            "chance": chance(c.batch_size, c.loss, c.temperature, **c.loss_options),
        }
        if c.attack != "none":
            row["loss_adv"] = adv / n
        due = epoch == int(epoch) and ((c.knn_every and int(epoch) % c.knn_every == 0) or step == self.batches.total)
        return row | (self.looks(encoder) if due else {"knn": None}) | {"lr": lr}

    def looks(self, encoder: Encoder) -> dict[str, float | None]:
        """kNN accuracy, and what a monitor measures; by the first rank alone."""
        if not self.ranks.first:
            return {"knn": None}
        return {"knn": self.probe(encoder), **(self.monitor(encoder) if self.monitor is not None else {})}


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
        torch.backends.cudnn.benchmark = True  # shapes stay the same, so its kernels are worth choosing
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
        loss_options=config.loss_options,
        alpha=config.alpha,
        averaged=config.averaged,
        reference=config.adv_reference,
        attack_branch=config.attack_branch,
        attack_mode=config.attack_mode,
        authors=config.authors_step,
        autocast=resolve_precision(config.precision, next(encoder.parameters()).device),
        chunk=None if config.chunk is None else ranks.share(config.chunk, "chunk"),
        ranks=ranks,
    )


def make_views(config: TrainConfig, data: "datasets.Data") -> Views:
    """The views that a config describes, for a dataset's size and colours."""
    j, blur_p = config.jitter, config.blur_p
    if blur_p is None:  # SimCLR blurs ImageNet's images and not CIFAR-10's (Chen et al. 2020, appendices A and B.9)
        blur_p = 0.5 if data.size > 32 and config.crop == "torchvision" else 0.0
    views = Views(
        size=data.size,
        scale=(config.crop_min, 1.0),
        jitter=(0.8 * j, 0.8 * j, 0.8 * j, 0.2 * j),
        flip=0.5 if config.flip else 0.0,
        gray_p=config.gray_p,
        crop=config.crop,
        blur_p=blur_p,
    )
    return views.for_gray() if data.gray else views


def contrast_settings(config: TrainConfig, data: "datasets.Data") -> dict[str, Any]:
    """Views, temperature and loss of a run: the keyword arguments of `perturbation.engine.contrast_with` and of the studies."""
    loss = {"loss": config.loss, "loss_options": config.loss_options}
    return {"views": make_views(config, data), "temperature": config.temperature, **loss}


def make_optimizer(config: TrainConfig, encoder: Encoder) -> torch.optim.Optimizer:
    """Adam (decoupled weight decay, on matrices only), SGD with momentum, or LARS, which leaves vectors alone (arXiv:1708.03888)."""
    matrices = [p for p in encoder.parameters() if p.dim() > 1]
    vectors = [p for p in encoder.parameters() if p.dim() <= 1]
    own = config.weight_decay if config.decay == "all" else 0.0
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": own}]
    if config.optimizer == "lars":
        return _lars()(groups, lr=config.lr, momentum=0.9)
    device, lr = matrices[0].device, config.lr
    recorded = config.compile and recordable(device)
    if recorded:
        lr = torch.tensor(lr, device=device)  # type: ignore[assignment]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, fused=True)
    return torch.optim.AdamW(groups, lr=lr, fused=True, capturable=recorded)


def make_update(
    config: TrainConfig, encoder: Encoder, stepper: Stepper, optimizer: torch.optim.Optimizer, ranks: Ranks = ALONE
) -> Update:
    """The update of the weights by one step: `update(v1, v2, generator)` returns the step's losses.

    With `config.compile` on a GPU it is recorded as a CUDA graph; a GPU shared with other processes, and LARS, are not.
    """

    def update(v1: Images, v2: Images, generator: torch.Generator) -> Step:
        optimizer.zero_grad(set_to_none=True)
        losses = stepper(v1, v2, generator)  # and the gradients of every weight
        ranks.average(p.grad for p in encoder.parameters() if p.grad is not None)
        optimizer.step()
        return losses

    device = next(encoder.parameters()).device
    alone = ranks.world == 1 and config.optimizer != "lars"
    return Recorded(update, device) if config.compile and alone and recordable(device) else update


def _lars() -> Callable[..., torch.optim.Optimizer]:
    try:
        from timm.optim import Lars
    except ImportError:
        raise UserError("optimizer 'lars' is timm's; install it with: pip install timm.") from None
    return Lars


def resolve_device(device: str) -> torch.device:
    """'auto' -> a CUDA GPU, else the CPU; any other of torch's devices ('mps') by name, with a warning; UserError without it."""
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
        try:
            torch.zeros(1, device=where).add(1).item()
        except Exception as error:  # each backend has kinds of its own
            reason = str(error).splitlines()[0]
            raise UserError(
                f"device '{device}' cannot be used with this torch ({reason}); use auto, cpu or cuda."
            ) from None
        warnings.warn(
            f"device '{device}' was not tested with this project; its tests run on cpu and cuda.", stacklevel=2
        )
    return where


def describe_device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def resolve_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast type: bf16 where asked for or, for 'auto', on GPUs and CPUs that compute in it; None is full fp32."""
    if precision == "auto" and device.type == "cuda":
        precision = "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    elif precision == "auto":
        can: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        has = can.get("avx512_bf16") or can.get("amx_bf16")  # and is not held to AVX2 by ATEN_CPU_CAPABILITY
        precision = "bf16" if has and torch.backends.cpu.get_cpu_capability() != "AVX2" else "fp32"
    return torch.bfloat16 if precision == "bf16" else None


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, done: int, per_epoch: int) -> float:
    """The learning rate after `done` steps: linear warm-up, then a cosine to zero at the last step (or constant)."""
    warm, total = config.warmup_epochs * per_epoch, config.epochs * per_epoch
    lr = config.lr * (min(1.0, (done + 1) / warm) if warm else 1.0)
    if config.cosine and done >= warm:
        lr = config.lr * (0.5 * (1 + math.cos(math.pi * (done - warm) / max(1, total - warm))))
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):  # read by a recorded step
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
    return lr


def _threads_of(run: Run | None, ranks: Ranks, where: torch.device) -> int | None:
    """The threads that a training must have: those of the run that it resumes; torch's own for ranks, and beside a GPU."""
    if ranks.world > 1 or where.type != "cpu":
        return torch.get_num_threads()
    return run.env.get("threads") if run is not None else None


def _facts(data: "datasets.Data", probe: KNNProbe, stepper: Stepper, ranks: Ranks, where: torch.device) -> dict:
    """What env.json says of a training beside versions and machine."""
    precision = str(stepper.autocast or torch.float32).removeprefix("torch.")
    about = {
        "knn": probe.about,
        "device": describe_device(where),
        "image_size": data.size,
        "data": data.provenance,
        "warnings": data.warnings,
    }
    return {**about, "ranks": ranks.world, "precision": precision}


def _mix(seed: int, stream: int, count: int) -> int:
    """A seed of its own for every (seed, stream, count), below 2^63."""
    return (seed * 1_000_003 + stream) * 1_000_003_007 + count
