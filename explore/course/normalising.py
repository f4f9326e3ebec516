"""Batch norm with two branches."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..nets import DualBatchNorm2d
from .exercise import Exercise, Mistake

CHANNELS = 4


# The model answer is shown in the instructor's copy as it stands here.
class DualBatchNorm(torch.nn.Module):
    """A batch norm for each branch, "clean" and "adv": statistics and weights of its own."""

    def __init__(self, channels):
        super().__init__()
        self.clean = torch.nn.BatchNorm2d(channels)
        self.adv = torch.nn.BatchNorm2d(channels)

    def forward(self, x, branch="clean"):
        return self.adv(x) if branch == "adv" else self.clean(x)


STUB = """\
class DualBatchNorm(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()

    def forward(self, x, branch="clean"):
        raise NotImplementedError  # your code"""


class Function(nn.Module):
    """A function forward(x, branch, clean, adv) of two batch norms, as a module."""

    def __init__(self, forward: Callable[..., Any]):
        super().__init__()
        self.clean, self.adv, self.function = nn.BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS), forward

    def forward(self, x: Tensor, branch: str = "clean") -> Any:
        return self.function(x, branch, self.clean, self.adv)


class Library(nn.Module):
    """The library's `DualBatchNorm2d`, its branch as an argument."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = DualBatchNorm2d(channels)

    def forward(self, x: Tensor, branch: str = "clean") -> Tensor:
        self.norm.use.branch = branch  # type: ignore[assignment]
        return self.norm(x)


def two_branches(answer: Any, *batches: Tensor) -> Any:
    """What a module gives: in training, in eval mode, and after a step on adversaries alone.

    `answer`: a module, its class (called with the number of channels), or a function
    forward(x, branch, clean, adv) of two batch norms.
    """
    if isinstance(answer, type):
        module = answer(CHANNELS)
    else:
        module = copy.deepcopy(answer) if isinstance(answer, nn.Module) else Function(answer)
    if not isinstance(module, nn.Module):
        raise TypeError(f"a torch.nn.Module was expected, got a {type(module).__name__}")
    module = module.to(batches[0].dtype).train()
    clean, adv, test = batches
    shown = [module(x, branch) for x, branch in ((clean, "clean"), (adv, "adv"), (clean.flip(0) * 2, "clean"))]
    for part in shown:
        if not isinstance(part, Tensor):
            return part
    module.eval()
    shown += [module(test, "clean"), module(test, "adv")]
    loss = (module(adv, "adv") * test).sum()
    if loss.requires_grad:
        loss.backward()
    with torch.no_grad():
        for weight in module.parameters():
            if weight.grad is not None:
                weight -= 0.01 * weight.grad
        shown += [module(test, "clean"), module(test, "adv")]
    return shown


def _draw(generator: torch.Generator) -> tuple:
    shape, scale = (3, 6, CHANNELS, 3, 3), 0.5 + 2 * torch.rand(3, 1, CHANNELS, 1, 1, generator=generator)
    shift = torch.randn(3, 1, CHANNELS, 1, 1, generator=generator)
    return tuple(torch.randn(shape, generator=generator) * scale + shift)


class _Wrong(DualBatchNorm):
    def __init__(self, channels: int):
        super().__init__(channels)
        self.change()

    def change(self) -> None: ...


class _One(_Wrong):
    def forward(self, x, branch="clean"):
        return self.clean(x)


class _OnlyAdversarial(_Wrong):
    def forward(self, x, branch="clean"):
        return self.clean(x) if branch == "clean" else x


class _SharedWeights(_Wrong):
    def change(self) -> None:
        self.adv.weight, self.adv.bias = self.clean.weight, self.clean.bias


class _SharedStatistics(_Wrong):
    def forward(self, x, branch="clean"):
        clean, adv = self.clean(x), self.adv(x)  # both see every batch
        return adv if branch == "adv" else clean


class _NoStatistics(_Wrong):
    def change(self) -> None:
        for norm in (self.clean, self.adv):
            norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None


class _Frozen(_Wrong):
    def train(self, mode: bool = True):
        return super().train(False)


class _NoWeights(_Wrong):
    def change(self) -> None:
        for norm in (self.clean, self.adv):
            norm.weight.requires_grad_(False), norm.bias.requires_grad_(False)


class _Mean(_Wrong):
    def forward(self, x, branch="clean"):
        return (self.clean(x) + self.adv(x)) / 2


class _AfterAnother(_Wrong):
    def forward(self, x, branch="clean"):
        x = self.clean(x)
        return self.adv(x) if branch == "adv" else x


class _EvalIsClean(_Wrong):
    def forward(self, x, branch="clean"):
        return self.adv(x) if branch == "adv" and self.training else self.clean(x)


class _ByMode(_Wrong):
    def forward(self, x, branch="clean"):
        return self.adv(x) if self.training else self.clean(x)


class _PerImage(_Wrong):
    def forward(self, x, branch="clean"):
        spread = x.var((2, 3), keepdim=True, unbiased=False)
        x = (x - x.mean((2, 3), keepdim=True)) / (spread + 1e-5).sqrt()
        norm = self.adv if branch == "adv" else self.clean
        return x * norm.weight[:, None, None] + norm.bias[:, None, None]


class _Momentum(_Wrong):
    def change(self) -> None:
        self.clean.momentum = self.adv.momentum = 0.9


MISTAKES = (
    Mistake("one norm for both", "`branch` makes no difference; adversaries need a batch norm of their own.", _One),
    Mistake("adversaries not normalised", "the branch 'adv' has to normalise too, by its own norm.", _OnlyAdversarial),
    Mistake("shared weights", "weight and bias are each branch's own, like the statistics (AdvProp).", _SharedWeights),
    Mistake(
        "shared statistics",
        "both branches' running mean and variance have seen all batches: one norm each, and call only the branch's.",
        _SharedStatistics,
    ),
    Mistake(
        "no running statistics",
        "in eval mode a batch norm uses its running mean and variance, not the batch's.",
        _NoStatistics,
    ),
    Mistake("never in train mode", "in train mode it normalises by the batch and updates the statistics.", _Frozen),
    Mistake("weights not trained", "each branch's weight and bias must take a gradient.", _NoWeights),
    Mistake("mean of both", "one branch at a time: choose by `branch`, do not average.", _Mean),
    Mistake("one norm after the other", "'adv' takes x itself, not what the clean norm has made of it.", _AfterAnother),
    Mistake("branch ignored in eval mode", "in eval mode, too, 'adv' uses its own statistics.", _EvalIsClean),
    Mistake("branch by mode", "`branch` chooses the norm; train or eval mode is another matter.", _ByMode),
    Mistake(
        "over the wrong axes",
        "mean and variance of a channel are over the batch, height and width: (0, 2, 3).",
        _PerImage,
    ),
    Mistake("wrong momentum", "keep PyTorch's momentum of 0.1 for the running statistics.", _Momentum),
)

EXERCISES = (
    Exercise(
        name="dual_batch_norm",
        title="Write batch norm with two branches",
        lesson="10",
        minutes=15,
        difficulty="medium",
        returns="images of x's shape",
        expect="A module, its class, or a function forward(x, branch, clean, adv) of two nn.BatchNorm2d: all three pass.",
        solution=DualBatchNorm,
        reference=Library,
        draw=_draw,
        mistakes=MISTAKES,
        run=two_branches,
        blank=STUB,
    ),
)
