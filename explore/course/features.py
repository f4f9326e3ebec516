"""A linear probe, and the scale of its features."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..evaluate import Probe
from .exercise import Exercise, Mistake


# The model answers are shown in the instructor's copy as they stand here.
def standardise(h, h_test):
    """Both sets of features, (n, d) and (m, d), with the mean and the scale of h taken out."""
    mean, std = h.mean(0), h.std(0)
    return (h - mean) / std, (h_test - mean) / std


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


def _draw_features(generator: torch.Generator) -> tuple:
    """Features of unlike sizes away from 0; the test rows lie elsewhere, and spread otherwise."""
    size = torch.exp(torch.linspace(-1, 1, 6))
    h, h_test = (torch.randn(n, 6, generator=generator) for n in (400, 300))
    return (h + 2) * size, (1.5 * h_test + 1.5) * size


def _scaled(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """`change(rows, h)` of both sets of rows."""
    return lambda h, t: (change(h, h), change(t, h))


STANDARDISE_MISTAKES = (
    Mistake("test rows scaled by their own statistics", "use the training rows' mean and standard deviation in both.", lambda h, t: ((h - h.mean(0)) / h.std(0), (t - t.mean(0)) / t.std(0))),
    Mistake("statistics of both sets", "the test rows must not take part: use the training rows' mean and standard deviation.", lambda h, t: _scaled(lambda x, _: (x - torch.cat([h, t]).mean(0)) / torch.cat([h, t]).std(0))(h, t)),
    Mistake("statistics of the test rows", "use the mean and the standard deviation of h, not of h_test.", lambda h, t: _scaled(lambda x, _: (x - t.mean(0)) / t.std(0))(h, t)),
    Mistake("test rows not scaled", "do the same to both sets.", lambda h, t: ((h - h.mean(0)) / h.std(0), t)),
    Mistake("mean not taken out", "subtract the mean first.", _scaled(lambda x, h: x / h.std(0))),
    Mistake("not divided", "divide by the standard deviation as well.", _scaled(lambda x, h: x - h.mean(0))),
    Mistake("divided by the variance", "divide by the standard deviation, its square root.", _scaled(lambda x, h: (x - h.mean(0)) / h.var(0))),
    Mistake("multiplied", "divide by the standard deviation.", _scaled(lambda x, h: (x - h.mean(0)) * h.std(0))),
    Mistake("divided first", "subtract the mean, then divide; as it is, the mean of another scale is subtracted.", _scaled(lambda x, h: x / h.std(0) - h.mean(0))),
    Mistake("over the wrong axis", "every feature (column) has its mean: mean(0), std(0).", _scaled(lambda x, h: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True))),
    Mistake("one scale for all features", "every feature has its own mean and standard deviation: mean(0), std(0).", _scaled(lambda x, h: (x - h.mean()) / h.std())),
    Mistake("scaled to [0, 1]", "take the mean and the standard deviation, not the least and the largest.", _scaled(lambda x, h: (x - h.amin(0)) / (h.amax(0) - h.amin(0)))),
    Mistake("rows of unit length", "every feature is to have mean 0 and standard deviation 1; the rows' lengths do not matter.", _scaled(lambda x, h: F.normalize(x, dim=1))),
    Mistake("sets exchanged", "return the training rows first.", lambda h, t: _scaled(lambda x, _: (x - h.mean(0)) / h.std(0))(t, h)),
    Mistake("unchanged", "the features come back as they were.", lambda h, t: (h, t)),
)  # fmt: skip


EXERCISES = (
    Exercise(
        name="standardise",
        title="Standardise features by the training rows",
        lesson="06",
        minutes=5,
        difficulty="easy",
        returns="two sets of features, of h's and of h_test's shape",
        expect="mean(0) and std(0) of h, used for both; a standard deviation that divides by n passes as well.",
        solution=standardise,
        reference=standardise,
        draw=_draw_features,
        mistakes=STANDARDISE_MISTAKES,
        margin=4e-3,  # n in place of n - 1 moves the scale by 1.3e-3
    ),
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
