"""One training run's settings: a flat, frozen dataclass with presets, checks and JSON in and out."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from numbers import Real
from os import PathLike, fspath
from pathlib import PurePath
from typing import Any, Generic, Literal, TypeVar, get_args, get_type_hints, overload

from .attack_table import NOISE_NAMES, TABLE
from .errors import UserError, nearest

SCHEMA = 1
RECIPES: dict[str, dict[str, Any]] = {  # views that suit a dataset (LOG.md has the measurements); "*": all others
    "fashion": {"crop_min": 0.5, "flip": False},
    "fashion-mnist": {"crop_min": 0.5, "flip": False},
    "*": {"crop_min": 0.2, "flip": True},
}
DEFAULT_EPS = 4 / 255
# settings newer than SCHEMA, with what a record that lacks them means: crops were drawn otherwise, see `Views`
BEFORE: dict[str, Any] = {"crop": "fitted", "gray_p": 0.2, "blur_p": None}
ATTACK_NAMES = ("none", *TABLE)
CHOICES: dict[str, tuple[str | None, ...]] = {
    "attack": ATTACK_NAMES,
    "adv_reference": ("other_view", "self"),
    "attack_branch": ("clean", "adv"),
    "attack_mode": ("train", "eval"),
    "loss": ("nt_xent", "softmax", "uel", "ifm", "hcl"),
    "optimizer": ("adam", "sgd", "lars"),
    "precision": ("auto", "fp32", "bf16"),
    "gaussian_by": ("std", "variance"),
    "noise_norm": (None, "linf", "l2"),
    "crop": ("torchvision", "fitted"),
    "decay": ("matrices", "all"),
}
LOSS_SETTINGS = {"ifm": {"eps": "feature_eps"}, "hcl": {"beta": "hardness"}}  # of a loss alone: its option, the setting
LEAST = {  # the smallest value of whole numbers
    "validation": 0,
    "epochs": 1,
    "batch_size": 2,
    "width": 1,
    "proj_dim": 1,
    "steps": 1,
    "knn_every": 0,
    "knn_images": 1,
}
T = TypeVar("T")


def recipe(dataset: str) -> dict[str, Any]:
    """The view settings that suit a dataset, for those that are left at None."""
    return RECIPES.get(dataset, RECIPES["*"])


def parse_eps(text: str | float) -> float:
    """'8/255', '3.8/255' or 0.031 -> float in [0, 1], the images' pixel units; 8 is refused with the hint '8/255'."""
    try:
        above, *below = map(float, text.split("/", 1) if isinstance(text, str) else [text])
        value = above / below[0] if below else above
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        raise UserError(f"eps is written as 8/255 or 0.031, got '{text}'.") from None
    return check_eps(value)


def check_eps(eps: float) -> float:
    """eps itself where it lies in [0, 1] (pixel units), else a UserError that guesses what was meant."""
    if not isinstance(eps, Real) or isinstance(eps, bool):
        raise UserError(f"eps is a number in pixel units, like 8 / 255, got {eps!r:.60}; ex.parse_eps reads '8/255'.")
    if not 0 <= eps <= 1 + 1e-6:  # NaN lands here too
        guess = f" Did you mean {eps:g}/255?" if 1 < eps <= 255 else ""
        raise UserError(f"ε = {eps:g} is outside 0 to 1, the range of a pixel.{guess}")
    return eps


def eps_of(k: float) -> float:
    """eps in pixel units of k/255: 8 -> 0.031."""
    return k / 255


def k_of(eps: float) -> float:
    """k of eps = k/255 in pixel units: 0.031... -> 8.0."""
    return round(eps * 255, 6)


def show_eps(eps: float) -> str:
    """eps as k/255: '8/255', '3.8/255'."""
    return f"{round(eps * 255, 2):g}/255"


class Derived(Generic[T]):
    """A setting that, left at None, follows from the others whenever it is read: `rule(config, given)`. What follows is not stored."""

    def __init__(self, rule: "Callable[[TrainConfig, T | None], T]"):
        self.rule = rule

    def __class_getitem__(cls, kind: Any) -> Any:  # as an annotation, what the constructor takes
        return kind | None

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, config: None, owner: type) -> None: ...
    @overload
    def __get__(self, config: "TrainConfig", owner: type) -> T: ...
    def __get__(self, config: "TrainConfig | None", owner: type) -> T | None:
        return None if config is None else self.rule(config, vars(config)[self.name])  # None: the field's default

    def __set__(self, config: "TrainConfig", value: T | None) -> None:
        vars(config)[self.name] = value


def _eps(config: "TrainConfig", given: float | None) -> float:
    return 0.0 if config.attack == "none" else DEFAULT_EPS if given is None else given


def _crop_min(config: "TrainConfig", given: float | None) -> float:
    return recipe(config.dataset)["crop_min"] if given is None else given


def _flip(config: "TrainConfig", given: bool | None) -> bool:
    return recipe(config.dataset)["flip"] if given is None else given


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run. Same config, same seed, same device: same run.

    `attack="none"` is SimCLR; a noise name trains with that noise in the adversary's place. eps is in pixel units.
    `adv_reference` says what the adversary is pushed away from: the other view's embedding (Algorithm 1) or its own
    (`"self"`, the authors' code); `attack_branch` whose batch-norm statistics it is computed with, `attack_mode` whether those of the batch or the
    running ones.

    `eps`, `crop_min` and `flip` may be left at None: read, they are the attack's default and the dataset's recipe. They
    stay None inside, so that `with_(dataset=...)` brings that dataset's recipe and `with_(attack=...)` an eps above 0.
    """

    dataset: str = "fashion"
    data_dir: str | None = None
    image_size: int | None = None  # None: the dataset's own
    train_images: int | None = None  # a balanced subset of the training images; None: all
    validation: int = 0  # training images kept out and measured on in place of the test images, to choose settings by

    arch: str = "resnet10"
    width: int = 16
    stem: str = "small"
    proj_dim: int = 64
    proj_hidden: int | None = None  # width of the projector's hidden layer; None: as many as features
    dual_bn: bool = True
    bn_adv_momentum: float = 0.1

    loss: str = "nt_xent"
    temperature: float = 0.2
    feature_eps: float = 0.1  # of the loss "ifm": how far it moves unit embeddings
    hardness: float = 1.0  # of the loss "hcl": its beta; 0 is NT-Xent
    attack: str = "fgsm"
    eps: Derived[float] = Derived(_eps)  # None: 4/255; without an attack always 0
    steps: int = 5  # of PGD
    alpha: float = 1.0  # weight of the adversarial term
    averaged: bool = (
        False  # divide clean + alpha * adversarial loss by 1 + alpha: the gradient stays as large as SimCLR's
    )
    adv_reference: Literal["other_view", "self"] = "other_view"
    attack_branch: Literal["clean", "adv"] = "clean"
    attack_mode: Literal["train", "eval"] = "train"  # of batch norms in the attack: the batch's or running statistics
    clamp: bool = True
    gray: bool | None = None  # perturbations stay gray; None: as the dataset is
    gaussian_by: Literal["std", "variance"] = "std"
    noise_norm: Literal["linf", "l2"] | None = None
    authors_step: bool = False  # the 15-pass step of the authors' code, see `paper_code`

    crop_min: Derived[float] = Derived(_crop_min)  # smallest share of an image in a view; None: the dataset's recipe
    jitter: float = 1.0  # times SimCLR's (0.8, 0.8, 0.8, 0.2)
    flip: Derived[bool] = Derived(_flip)  # None: the dataset's recipe
    crop: Literal["torchvision", "fitted"] = "torchvision"  # how crops are drawn; fitted: as for the shipped encoders
    gray_p: float = 0.2  # share of the views that are gray
    blur_p: float | None = None  # share that is blurred; None: SimCLR's 0.5 above 32 pixels, 0 for fitted crops

    epochs: int = 5
    batch_size: int = 128
    optimizer: Literal["adam", "sgd", "lars"] = "adam"  # lars, for large batches, is timm's: pip install timm
    lr: float = 2e-3
    weight_decay: float = 1e-4
    decay: Literal["matrices", "all"] = "matrices"  # the weights that decay; all: batch norms' too
    warmup_epochs: float = 0.5
    cosine: bool = True
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    channels_last: bool = True
    compile: bool = (
        False  # torch.compile the encoder's trunk, and on a GPU replay steps as a CUDA graph; a minute at the start
    )
    chunk: int | None = (
        None  # images embedded at a time, so that a large batch fits in memory; batch norm sees its chunk
    )
    knn_every: int = 1  # epochs; 0: only at the end
    knn_images: int = 5000  # of the training set, as neighbours; the test set is capped at 2,000
    seed: int = 0

    def __post_init__(self):
        for name, value in _typed(vars(self)).items():
            object.__setattr__(self, name, value)
        _check(self)

    @classmethod
    def simclr(cls, **changes: Any) -> "TrainConfig":
        """SimCLR: no adversary."""
        return cls(**{"attack": "none", **changes})

    @classmethod
    def clae(cls, **changes: Any) -> "TrainConfig":
        """SimCLR with adversarial examples: Algorithm 1 with FGSM, from the other view."""
        return cls(**changes)

    @classmethod
    def paper_code(cls, **changes: Any) -> "TrainConfig":
        """The authors' public code, step by step (chihhuiho/CLAE, SimCLR/main.py; facts with lines in docs/paper.md).

        Attack from x_i against its own embedding through the adversarial branch, no clipping, eps 0.03 after
        Normalize(.5, .5), that is 0.015 here; Adam 3e-4 without decay or schedule; ResNet-18, batch 256, 100 epochs.
        """
        own: dict[str, Any] = {"dataset": "cifar10", "arch": "resnet18", "width": 64, "stem": "cifar"}
        own |= {"bn_adv_momentum": 0.01, "temperature": 0.5, "crop_min": 0.08, "flip": True, "authors_step": True}
        own |= {"eps": 0.015, "adv_reference": "self", "attack_branch": "adv", "clamp": False, "gray": False}
        own |= {"batch_size": 256, "epochs": 100, "lr": 3e-4, "weight_decay": 0.0, "warmup_epochs": 0.0}
        own |= {"cosine": False, "precision": "fp32", "channels_last": False}
        return cls(**{**own, **changes})

    @classmethod
    def strong(cls, **changes: Any) -> "TrainConfig":
        """SimCLR's strongest public recipe for ResNet-18 on CIFAR-10 (github.com/dkobak/simclr-cifar10), with CLAE's adversary.

        100 epochs, SGD at 0.06 * batch / 256 with a cosine to 0, weight decay on all weights, gray in 0.1 of the views. Its
        author reports for SimCLR, over 3 seeds, a linear probe of 85.6 +- 0.2 % and kNN (k = 10) of 83.2 +- 0.2 %. Other than
        there, the projector has no biases and the rate falls every step. The two losses are averaged: with their sum, SGD
        would take steps twice as large as SimCLR's.
        """
        own: dict[str, Any] = {"dataset": "cifar10", "arch": "resnet18", "width": 64, "stem": "cifar"}
        own |= {"proj_dim": 128, "proj_hidden": 1024, "temperature": 0.5, "averaged": True}
        own |= {"crop_min": 0.2, "jitter": 0.5, "flip": True, "gray_p": 0.1}
        own |= {"epochs": 100, "batch_size": 512, "optimizer": "sgd", "lr": 0.12, "warmup_epochs": 0.0}
        own |= {"weight_decay": 5e-4, "decay": "all", "knn_every": 10}
        return cls(**{**own, **changes})

    @classmethod
    def smoke(cls, **changes: Any) -> "TrainConfig":
        """A few steps of a tiny net: proves the installation in seconds, learns nothing."""
        tiny = {"arch": "resnet10", "width": 8, "epochs": 1, "batch_size": 64, "train_images": 640, "knn_images": 500}
        return cls(**{**tiny, **changes})

    @property
    def method(self) -> str:
        """'SimCLR', 'CLAE (fgsm)', or 'SimCLR + gaussian noise'."""
        if self.attack == "none":
            return "SimCLR"
        return f"SimCLR + {self.attack} noise" if self.attack in NOISE_NAMES else f"CLAE ({self.attack})"

    @property
    def label(self) -> str:
        """The run folder's name: dataset-arch-attack-eps-seed. A label only; the truth is config.json."""
        kind, _, path = self.dataset.partition(":")
        data = kind if kind != "folder" else PurePath(path).name or "folder"
        eps = "" if self.attack == "none" else f"-eps{round(self.eps * 255, 2):g}"
        return f"{data}-{self.arch}-{self.attack}{eps}-s{self.seed}"

    @property
    def loss_options(self) -> dict[str, float]:
        """What `losses.loss_named` and `chance` need beside the loss's name: {"eps": 0.1} for "ifm"."""
        return {option: getattr(self, name) for option, name in LOSS_SETTINGS.get(self.loss, {}).items()}

    def with_(self, **changes: Any) -> "TrainConfig":
        """A copy with some settings changed: equal to a config made at once with all settings that were given."""
        return type(self)(**{**vars(self), **_known(changes)})

    def to_dict(self) -> dict[str, Any]:
        """All settings as they are read, None resolved, so that a record means the same when recipes change."""
        return {"schema": SCHEMA, **asdict(self)}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """Settings from JSON; unknown names and newer schemas are refused in one sentence.

        What equals the value that would follow from the other settings counts as not given. A setting that is newer than
        the record has the value of `BEFORE`, so that a record goes on to mean the run it was written for.
        """
        values = {**BEFORE, **values}
        schema = values.pop("schema", SCHEMA)
        if not isinstance(schema, int):
            raise UserError(f"A config's schema is a whole number, got {schema!r:.60}.")
        if schema > SCHEMA:
            raise UserError(
                f"This config has schema {schema}, this version reads up to {SCHEMA}; update clae-explorer."
            )
        values = _known(values)
        blank = cls(**{**values, **dict.fromkeys(DERIVED)})
        return cls(**{k: v for k, v in values.items() if k not in DERIVED or v != getattr(blank, k)})


DERIVED = tuple(f.name for f in fields(TrainConfig) if isinstance(vars(TrainConfig)[f.name], Derived))


WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "None"}
KINDS: dict[str, tuple[type, ...]] = {  # a setting's kinds of value; none for those of `CHOICES`
    name: tuple(kind for kind in (get_args(hint) or (hint,)) if kind in WORDS)
    for name, hint in get_type_hints(TrainConfig).items()
    if name not in CHOICES
} | dict.fromkeys(CHOICES, ())


def _known(values: dict[str, Any]) -> dict[str, Any]:
    names = [f.name for f in fields(TrainConfig)]
    for key in values:
        if key not in names:
            raise UserError(f"TrainConfig has no setting '{key}'.{nearest(key, names)}")
    return _typed(values)


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    """The settings, with 8.0 for a whole number made 8; UserError for a value of another kind than its setting's."""
    found = {}
    for name, value in values.items():
        kinds = KINDS[name]
        if isinstance(value, Real) and not isinstance(value, bool):  # a number of numpy's too
            number: Any = value
            if int in kinds and math.isfinite(number) and number == int(number):
                value = int(number)
            elif float in kinds:
                value = float(number)
        elif str in kinds and isinstance(value, PathLike):
            value = fspath(value)
        if kinds and type(value) not in kinds:
            hint = " ex.parse_eps reads '8/255'." if name == "eps" else ""
            words = " or ".join(WORDS[kind] for kind in kinds)
            raise UserError(f"{name} must be {words}, got {value!r:.60}.{hint}")
        found[name] = value
    return found


def _check(c: TrainConfig) -> None:
    for name, allowed in CHOICES.items():
        value = getattr(c, name)
        if value not in allowed:
            words = [str(a) for a in allowed]
            raise UserError(f"{name} must be one of {', '.join(words)}, got '{value}'.{nearest(str(value), words)}")
    if (eps := vars(c)["eps"]) is not None:  # also where it has no effect
        check_eps(eps)
    for name, low in LEAST.items():
        if getattr(c, name) < low:
            raise UserError(f"{name} must be {low} or more, got {getattr(c, name)}.")
    if c.proj_hidden is not None and c.proj_hidden < 1:
        raise UserError(f"proj_hidden must be 1 or more, or None for as many as features, got {c.proj_hidden}.")
    for name in ("lr", "temperature"):
        if not (getattr(c, name) > 0 and math.isfinite(getattr(c, name))):
            raise UserError(f"{name} must be a number above 0, got {getattr(c, name)}.")
    for name in ("feature_eps", "hardness"):
        if not 0 <= getattr(c, name) < math.inf:
            raise UserError(f"{name} must be 0 or more, got {getattr(c, name)}; 0 gives NT-Xent.")
    if c.chunk is not None and (c.chunk < 2 or c.batch_size % c.chunk):
        raise UserError(
            f"chunk is the images embedded at a time, 2 or more of which batch_size ({c.batch_size}) is a multiple, got {c.chunk}."
        )
    for name in ("gray_p", "blur_p"):
        if not 0 <= (getattr(c, name) or 0) <= 1:
            raise UserError(f"{name} is a share of the views, in 0 to 1, got {getattr(c, name)}.")
    if not 0 < c.crop_min <= 1:
        raise UserError(
            f"crop_min is the smallest share of an image that a view may show, in 0 to 1, got {c.crop_min}."
        )
