"""A linear probe."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..evaluate import Probe
from .exercise import Exercise, Mistake


# The model answer is shown in the instructor's copy as it stands here.
def linear_probe(h, y, h_test):
    """Predicted labels (m,) of h_test (m, d): logistic regression on h (n, d), labels y (n,)."""
    mean, std = h.mean(0), h.std(0)
    layer = torch.nn.Linear(h.shape[1], int(y.max()) + 1).to(h.dtype)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(layer((h - mean) / std), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    return layer((h_test - mean) / std).argmax(1)


def _draw_probe(generator: torch.Generator) -> tuple:
    """Three classes that two directions tell apart, under a third that varies far more.

    Two of them lie on one line through the origin, a tenth of the training labels are wrong, and
    the test classes have other shares than the training classes: each undoes one wrong way.
    """
    corners = torch.tensor([[2.0, 0.0], [-1.0, 1.7321], [-1.0, -1.7321]]) + torch.tensor([4.0, -3.4641])

    def sample(y: Tensor) -> Tensor:
        n = len(y)
        place = corners[y] + 0.2 * torch.randn(n, 2, generator=generator)
        large = 2 * torch.randn(n, 1, generator=generator)
        rest = torch.randn(n, 1, generator=generator)
        return torch.cat([place + large, large, rest], dim=1)

    y = torch.arange(450) % 3
    y_test = torch.tensor([0] * 270 + [1] * 15 + [2] * 15)
    h, h_test = sample(y), sample(y_test)
    wrong = torch.rand(len(y), generator=generator) < 0.1
    return h, torch.where(wrong, (y + torch.randint(1, 3, y.shape, generator=generator)) % 3, y), h_test


def _probe(h: Tensor, y: Tensor, h_test: Tensor) -> Tensor:
    return Probe(l2=1.0).fit(h, y).predict(h_test)


def _logits(h: Tensor, y: Tensor, h_test: Tensor) -> Tensor:
    return Probe(l2=1.0).fit(h, y)(h_test)


def _no_bias(h: Tensor, y: Tensor, h_test: Tensor) -> Tensor:
    weight = torch.zeros(3, h.shape[1], dtype=h.dtype, requires_grad=True)
    scale = h.std(0)
    optimizer = torch.optim.LBFGS([weight], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Any:
        (weight.grad,) = torch.autograd.grad(F.cross_entropy(h / scale @ weight.T, y), weight)
        return F.cross_entropy(h / scale @ weight.T, y)

    optimizer.step(closure)
    return (h_test / scale @ weight.T).argmax(1)


def _nearest_mean(h: Tensor, y: Tensor, h_test: Tensor) -> Tensor:
    return torch.cdist(h_test, torch.stack([h[y == c].mean(0) for c in range(3)])).argmin(1)


def _own_scale(h: Tensor, y: Tensor, h_test: Tensor) -> Tensor:
    return _probe((h - h.mean(0)) / h.std(0), y, (h_test - h_test.mean(0)) / h_test.std(0))


def _two_classes(h: Tensor, y: Tensor, h_test: Tensor) -> Tensor:
    return _logits(h, y, h_test)[:, :2].argmax(1)


def _one_step(h: Tensor, y: Tensor, h_test: Tensor) -> Tensor:
    """The classes' order after the first step of gradient descent from zero."""
    x = (h - h.mean(0)) / h.std(0)
    wanted = F.one_hot(y, 3).to(h.dtype) - 1 / 3
    return ((h_test - h.mean(0)) / h.std(0) @ (wanted.T @ x).T + wanted.sum(0)).argmax(1)


def _test_not_scaled(h: Tensor, y: Tensor, h_test: Tensor) -> Tensor:
    probe = Probe(l2=1.0).fit((h - h.mean(0)) / h.std(0), y)
    return probe.predict(h_test)


ONE = (
    "nearly all rows get one class; are test rows scaled like training rows, and is argmax taken over classes (dim=1)?"
)
PROBE_MISTAKES = (
    Mistake("no bias", "the classes do not lie around the origin; a linear layer needs its bias.", _no_bias),
    Mistake(
        "one nearest neighbour",
        "this is the label of the nearest training row; fit one linear layer to all of them.",
        lambda h, y, t: y[torch.cdist(t, h).argmin(1)],
    ),
    Mistake(
        "nearest class mean",
        "distances to class means ignore which directions tell classes apart; minimise the cross-entropy.",
        _nearest_mean,
    ),
    Mistake(
        "test rows scaled by their own statistics",
        "subtract the training rows' mean, and divide by their standard deviation, in both.",
        _own_scale,
    ),
    Mistake("a class is missing", "there are as many logits as classes, int(y.max()) + 1.", _two_classes),
    Mistake(
        "not converged",
        "this is what one step of gradient descent gives; go on until the loss no longer falls.",
        _one_step,
    ),
    Mistake("always one class", ONE, lambda h, y, t: torch.zeros(len(t)).long()),
    Mistake("always one class", ONE, _test_not_scaled),
    Mistake("labels from 1", "labels count from 0.", lambda h, y, t: _probe(h, y, t) + 1),
    Mistake(
        "labels in another order",
        "labels and rows must keep their order; shuffle both, or neither.",
        lambda h, y, t: _probe(h, y.flip(0), t),
    ),
    Mistake(
        "classes shifted",
        "logit c belongs to class c; does the layer's order match the labels?",
        lambda h, y, t: (_probe(h, y, t) + 1) % 3,
    ),
)


EXERCISES = (
    Exercise(
        name="linear_probe",
        title="Fit a linear probe to frozen features",
        lesson="06",
        minutes=20,
        difficulty="medium",
        returns="a label for every test row",
        expect="Any optimiser that reaches the minimum of the cross-entropy passes: L-BFGS, or Adam with enough steps.",
        solution=linear_probe,
        reference=_probe,
        draw=_draw_probe,
        mistakes=PROBE_MISTAKES,
        labels=True,
        margin=0.02,
    ),
)
