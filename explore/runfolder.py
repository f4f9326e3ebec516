"""The self-describing run folder: everything about one training, readable without this library.

config.json   the full config        env.json    versions, device, commit, arguments
status.json   running, stopped, done metrics.jsonl  one row a log interval, append-only
encoder.safetensors  weights, the config in the header      resume.safetensors  optimiser and progress
"""

import json
import math
import os
import shutil
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from . import paths
from .config import TrainConfig
from .datasets import at_hand, load, names
from .environment import environment, now
from .errors import UserError, nearest
from .nets import Encoder, TorchEncoder
from .patches import KINDS, PatchEncoder, patch_encoder
from .random import seeded
from .serialization import (
    check_fits,
    folder_for,
    load_into,
    load_tensors,
    parse_json,
    read_json,
    replacing,
    save_tensors,
    write_text,
)

BASELINES = {  # encoders without training that `open_run` opens like a run, and what they are called
    "untrained/resnet10": "untrained network",
    **{f"patches/{kind}": title for kind, title in KINDS.items()},
}
PATCHES = 128  # of a baseline: 512 features, a tenth of a second for 500 images on one core
LOCK = ".lock"  # held by the process that trains a run
MADE = "1"  # raise it when baselines are made otherwise than before


class Run:
    """One run folder. `open_run(name)` opens one, `Run.create(config)` makes one."""

    def __init__(self, path: str | Path, name: str | None = None):
        self.path = Path(path)
        self.name = name or self.path.name
        try:
            self.config = TrainConfig.from_dict(read_json(self.path / "config.json"))
        except FileNotFoundError:
            raise UserError(f"{self.path} is not a run folder: it has no config.json.") from None
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"{self.path / 'config.json'} is not a run's config ({error}).") from error

    def __repr__(self) -> str:
        return f"<run {self.name}: {self.method} on {self.config.dataset}, {self.status['state']}>"

    @classmethod
    def create(cls, config: TrainConfig, *, name: str | None = None, root: Path | None = None) -> "Run":
        """Make the folder of a new run; a name that exists is refused, nothing is overwritten."""
        label = name or config.label
        if Path(label).is_absolute() or ".." in Path(label).parts:
            raise UserError(
                f"A run's name is a plain name like '{config.label}', got '{label}'; use --runs-dir for another place."
            )
        path = (root or paths.runs_root()) / label
        if (path / "config.json").exists():
            raise UserError(
                f"The run '{label}' exists in {path.parent}; go on with --resume, or choose another with --name."
            )
        folder_for(path, "CLAE_RUNS")
        write_text(path / "config.json", config.to_json())
        write_text(path / "env.json", json.dumps(environment(), indent=1))
        run = cls(path)
        run.set_status("new")
        return run

    @property
    def method(self) -> str:
        """How the encoder was made: 'simclr', 'clae', ..., or the name of one without training."""
        return self.env.get("baseline") or self.config.method

    def encoder(self, device: str | torch.device = "cpu") -> Encoder | TorchEncoder:
        """The trained encoder: eval mode, weights frozen. An unreadable or foreign file is a UserError."""
        path = self.path / "encoder.safetensors"
        encoder: Encoder | TorchEncoder
        if self.env.get("baseline") in KINDS.values():
            encoder = PatchEncoder.open(path)
        else:
            found = load_tensors(path)
            with torch.device("meta"):  # sizes that no memory has are refused by their shapes
                check_fits(build_encoder(self.config), found[0], path)
            encoder = build_encoder(self.config)
            load_into(encoder, path, read=lambda _: found)
        return encoder.to(device).eval().requires_grad_(False)

    def untrained(self, device: str | torch.device = "cpu") -> Encoder:
        """The same network before training, from the same seed."""
        return build_encoder(self.config).to(device).eval().requires_grad_(False)

    @property
    def metrics(self) -> pd.DataFrame:
        """All logged rows."""
        return pd.DataFrame(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """All logged rows as dictionaries; what follows a row that is cut off or damaged is dropped."""
        rows = []
        path = self.path / "metrics.jsonl"
        for line in path.read_bytes().splitlines() if path.is_file() else []:
            try:
                rows.append(parse_json(line, path))
            except UserError:
                break
        return rows

    def append(self, row: dict[str, Any]) -> None:
        """Add one row of metrics; NaN is written as null."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(clean) + "\n")

    @property
    def status(self) -> dict[str, Any]:
        """{'state': 'new' | 'running' | 'stopped' | 'failed' | 'done', 'time': ..., 'pid': ...}

        A run whose process is gone without a word is 'stopped'; one that said why is 'failed', and
        'why' is its last line.
        """
        try:
            found = {"state": "unknown", **read_json(self.path / "status.json")}
        except (FileNotFoundError, UserError):
            return {"state": "unknown"}
        if found["state"] not in ("new", "running") or self.held:
            return found
        if why := self.why():
            return {**found, "state": "failed", "why": why}
        return {**found, "state": "stopped"} if found["state"] == "running" else found

    def why(self) -> str:
        """The sentence with which a training in the background failed, out of what it printed; '' where it said none."""
        try:
            lines = [
                line for line in (self.path / "train.log").read_text("utf-8", "replace").splitlines() if line.strip()
            ]
        except OSError:
            return ""
        said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        broken = any(line.startswith("Traceback") for line in lines)
        stopped = f"The training stopped: {lines[-1]}; its whole report is {self.path / 'train.log'}." if broken else ""
        return said[-1] if said else stopped

    @property
    def held(self) -> bool:
        """Whether a process trains it at this moment."""
        try:
            with FileLock(self.path / LOCK, timeout=0):
                return False
        except Timeout:
            return True
        except (OSError, NotImplementedError):  # a place without locks, or not to be written: what status.json says
            return True

    def hold(self) -> FileLock | None:
        """Make this process the one that writes the folder, until the lock is released or the process ends.

        UserError where another process is; None on a file system that has no locks.
        """
        lock = FileLock(self.path / LOCK, thread_local=False)
        try:
            lock.acquire(timeout=2)  # `held` takes it for a moment
        except Timeout:
            pid = self.status.get("pid")
            if pid != os.getpid():
                raise UserError(
                    f"The run '{self.name}' is being trained by another process ({pid}); wait until it has ended, or stop it."
                ) from None
            return None
        except (OSError, NotImplementedError):
            return None
        for left in self.path.glob(".*.tmp"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        return lock

    def set_status(self, state: str, **more: Any) -> None:
        write_text(self.path / "status.json", json.dumps({"state": state, "time": now(), "pid": os.getpid(), **more}))

    @cached_property
    def env(self) -> dict[str, Any]:
        """Versions, device, commit and arguments of the training."""
        path = self.path / "env.json"
        return read_json(path) if path.is_file() else {}

    @property
    def image_size(self) -> int:
        """Height and width in pixels of the images that it was trained on: as the training noted it, else `usual_size`."""
        return int(self.env.get("image_size") or usual_size(self.config))

    def note_env(self, **facts: Any) -> None:
        """Add facts to env.json."""
        self.__dict__.pop("env", None)
        write_text(self.path / "env.json", json.dumps({**self.env, **facts}, indent=1))
        self.__dict__.pop("env", None)

    def save_encoder(self, encoder: Encoder, step: int) -> None:
        header = {"config": json.dumps(self.config.to_dict()), "step": str(step), "format": "clae-explorer"}
        header["image_size"] = str(self.image_size)
        save_tensors(self.path / "encoder.safetensors", encoder.state_dict(), header)

    def export(self, path: str | Path, layout: str = "torchvision") -> Path:
        """Write the encoder without its projector, clean branch: a .safetensors file, or an .onnx file.

        safetensors: weights under the names of torchvision's or timm's ResNet; how images are normalised, the stem and
        the width stand in the header. Their own ResNets take it where width is 64 and the stem 'imagenet';
        `open_encoder` takes all. ONNX: any encoder, from images (n, 3, size, size) in [0, 1] to features (n, D).
        """
        if layout not in ("torchvision", "timm"):  # the names of the two are the same
            raise UserError(f"layout is 'torchvision' or 'timm', got {layout!r:.60}.")
        if Path(path).suffix not in (".safetensors", ".onnx"):
            raise UserError(f"An encoder is exported to a .safetensors or an .onnx file, got {str(path)!r:.100}.")
        encoder = self.encoder()
        if Path(path).suffix == ".onnx":
            from .onnx_export import write_onnx

            write_onnx(encoder, Path(path), self.image_size, {"run": self.name, "image_size": str(self.image_size)})
            return Path(path)
        if not isinstance(encoder, Encoder):
            raise UserError(f"'{self.name}' is no ResNet, so it has no layout of {layout}'s; share its run folder.")
        weights = {n: t for n, t in encoder.trunk.state_dict().items() if ".adv." not in n}
        about = {"layout": layout, "arch": self.config.arch, "width": str(self.config.width), "stem": self.config.stem}
        about |= {name: json.dumps(getattr(encoder, name).flatten().tolist()) for name in ("mean", "std")}
        save_tensors(path, weights, {**about, "image_size": str(self.image_size), "format": "pt"})
        return Path(path)

    def hand_on(self, target: Path, **facts: Any) -> "Run":
        """A copy to ship, with `facts` added to env.json: weights in half precision, nothing for a resumption, no path of this machine."""
        config, env = self.config.with_(data_dir=None), {**self.env, **facts}
        if place := env.get("data", {}).pop("path", None):
            env["warnings"] = [warning.replace(place, Path(place).name) for warning in env["warnings"]]
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        shutil.copy(self.path / "metrics.jsonl", target)
        tensors, meta = load_tensors(self.path / "encoder.safetensors")
        halved = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
        save_tensors(target / "encoder.safetensors", halved, {**meta, "config": json.dumps(config.to_dict())})
        write_text(target / "config.json", config.to_json())
        write_text(target / "env.json", json.dumps(env, indent=1))
        write_text(target / "status.json", json.dumps({"state": "done", "step": int(meta["step"])}))
        return Run(target)

    def save_resume(self, encoder: Encoder, optimizer: torch.optim.Optimizer, sums: Tensor, progress: dict) -> None:
        """Write all that a resumed training needs to equal an uninterrupted one; draws depend on seed and step alone."""
        tensors = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
        tensors["sums"] = sums
        save_tensors(self.path / "resume.safetensors", tensors, {"progress": json.dumps(progress)})

    def load_resume(self, encoder: Encoder, optimizer: torch.optim.Optimizer, sums: Tensor) -> dict[str, Any]:
        """Fill encoder, optimiser and sums from resume.safetensors. Returns the progress."""
        path = self.path / "resume.safetensors"
        tensors, meta = load_tensors(path)
        own = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
        load_into(encoder, path, read=lambda _: (own, meta))
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, i, name = key.split(".", 2)
                p = weights[int(i)]
                laid = (
                    torch.empty_like(p).copy_(value) if value.shape == p.shape else value
                )  # fused optimisers read raw memory
                state.setdefault(int(i), {})[name] = laid
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        sums.copy_(tensors["sums"])
        return parse_json(meta["progress"], path)

    def keep_rows(self, step: int) -> None:
        """Drop the rows of metrics after `step`, those that a crash left behind the last saved state."""
        kept = [row for row in self.rows() if row["step"] <= step]
        with replacing(self.path / "metrics.jsonl") as file:
            file.write("".join(json.dumps(row) + "\n" for row in kept).encode())


def usual_size(config: TrainConfig) -> int:
    """The image size of a training that did not note it: the config's, else the size that the dataset's name stands for."""
    kind = config.dataset.partition(":")[0].removesuffix("-unlabeled")
    return config.image_size or {"stl10": 96, "imagenet100": 224, "folder": 64}.get(kind, 32)


def build_encoder(config: TrainConfig) -> Encoder:
    """The untrained encoder that a config describes, its weights drawn from the config's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Encoder(
            config.arch,
            width=config.width,
            stem=config.stem,
            proj_dim=config.proj_dim,
            proj_hidden=config.proj_hidden,
            dual_bn=config.dual_bn,
            bn_adv_momentum=config.bn_adv_momentum,
        )


def open_run(name: str | Path) -> Run:
    """Open a run by name ('demo/clae', or one of `runs()`) or by its folder's path.

    Encoders without training open too: 'untrained/resnet10', 'patches/kmeans' and 'patches/random'
    (`explore.patches`), fitted on `fashion` in seconds at their first use and kept in the cache;
    'patches/kmeans/cifar10' on another published or shipped set.
    """
    if not isinstance(name, str | os.PathLike):
        raise UserError(
            f"A run is opened by its name or its folder's path, got a {type(name).__name__}; explore.runs() lists them."
        )
    found = _folders()
    if str(name) in found:
        return Run(found[str(name)], str(name))
    if (Path(name) / "config.json").is_file():
        return Run(name)
    kind, _, dataset = str(name).rpartition("/")
    if str(name) in BASELINES:
        return _baseline(str(name), "fashion")
    if kind in BASELINES and dataset in names():
        return _baseline(kind, dataset)
    found = {**found, **dict.fromkeys(BASELINES, Path())}
    raise UserError(f"There is no run '{name}'.{nearest(str(name), found)} explore.runs() lists them.")


def _baseline(kind: str, dataset: str) -> Run:
    """The run folder of an encoder without training, for a data set; made where the cache has none."""
    name = kind if dataset == "fashion" else f"{kind}/{dataset}"
    root = paths.cache() / "baselines"
    path = root / f"{name.replace('/', '-')}-{MADE}"
    if (path / "config.json").is_file():
        return Run(path, name)
    config = TrainConfig(dataset=dataset, arch="resnet10", width=16, stem="small", attack="none", seed=0)
    data = load(dataset, download=False)
    with tempfile.TemporaryDirectory(dir=folder_for(root, "CLAE_CACHE")) as place:
        run = Run.create(config, name=name, root=Path(place))
        run.note_env(baseline=BASELINES[kind], image_size=data.size, device="cpu")
        if kind.startswith("patches/"):
            run.note_env(arch=f"{PATCHES} patches")
            encoder = patch_encoder(data.train, kind.split("/")[1], patches=PATCHES, generator=seeded(config.seed))
            encoder.save(run.path / "encoder.safetensors")
        else:
            run.save_encoder(build_encoder(config), 0)
        run.set_status("done", step=0)
        try:
            run.path.rename(path)
        except OSError:  # another process was first
            if not (path / "config.json").is_file():
                raise
    return Run(path, name)


def runs() -> pd.DataFrame:
    """All runs, the shipped ones first: name, method, dataset, eps, seed, state, epochs, kNN, loss.

    A run with a damaged file has the state 'damaged', and a column `why` says what is wrong with it.
    Shipped encoders of a data set that would have to be downloaded first are left out; `open_run` opens them all the same.
    """
    encoders = paths.shipped() / "encoders"
    here = {n: p for n, p in _folders().items() if p.parent != encoders or at_hand(n.split("/")[0])}
    return pd.DataFrame([_summary(name, path) for name, path in here.items()])


def _folders() -> dict[str, Path]:
    shipped = sorted((paths.shipped() / "demo").glob("*/config.json"))
    order = {"simclr": 0, "clae": 1, "gaussian": 2}
    found = {f"demo/{p.parent.name}": p.parent for p in sorted(shipped, key=lambda p: order.get(p.parent.name, 9))}
    encoders = sorted(
        (paths.shipped() / "encoders").glob("*/config.json"), key=lambda p: order.get(_shipped_name(p)[1], 9)
    )
    found |= {"/".join(_shipped_name(p)): p.parent for p in encoders}
    root = paths.runs_root()
    found |= {p.parent.relative_to(root).as_posix(): p.parent for p in sorted(root.rglob("config.json"))}
    return found


def _shipped_name(config: Path) -> tuple[str, str]:
    """data/encoders/cifar10-clae/config.json -> ('cifar10', 'clae')."""
    dataset, _, method = config.parent.name.partition("-")
    return dataset, method


def _summary(name: str, path: Path) -> dict[str, Any]:
    try:
        run = Run(path, name)
        rows, method = run.rows(), run.method
    except (UserError, OSError) as error:
        return {"run": name, "state": "damaged", "why": str(error)}
    c = run.config
    knn, losses, epochs = (_numbers(rows, column) for column in ("knn", "loss", "epoch"))
    about = {"run": run.name, "method": method, "dataset": c.dataset, "eps": round(c.eps * 255, 2), "seed": c.seed}
    status = run.status
    progress = {"state": status["state"], "epochs": epochs[-1] if epochs else 0}
    found = {
        "knn": knn[-1] if knn else None,
        "knn_untrained": knn[0] if knn else None,
        "loss": losses[-1] if losses else None,
    }
    return {
        **about,
        **progress,
        **found,
        **({"why": status["why"]} if status["state"] == "failed" and "why" in status else {}),
    }


def _numbers(rows: list[dict[str, Any]], column: str) -> list[float]:
    """A column of metrics, where it holds numbers."""
    return [row[column] for row in rows if isinstance(row.get(column), int | float)]
