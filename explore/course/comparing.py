"""Exercises on numbers that judge: an accuracy with its standard error, paired differences, and
Holm's correction.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..results import holm as corrected
from ..results.sweep import interval
from .exercise import Exercise, Mistake


# The model answers are shown in the instructor's copy as they stand here.
def accuracy(predicted, labels):
    """The share of right predictions (n,), and that share's standard error."""
    right = (predicted == labels).double()
    return right.mean(), right.std() / len(right) ** 0.5


def paired_interval(a, b):
    """The two ends of the 95 % interval of the mean of b - a; a[i] and b[i] have one seed."""
    from scipy import stats

    d = b - a
    half = stats.t.ppf(0.975, len(d) - 1) * d.std() / len(d) ** 0.5
    return d.mean() - half, d.mean() + half


def holm(p):
    """p-values (m,) after Holm's correction, in the order given."""
    order = p.argsort()
    factors = torch.arange(len(p), 0, -1)
    raised = (factors * p[order]).clamp(max=1).cummax(0).values
    return torch.empty_like(raised).index_copy(0, order, raised)


def _draw_predictions(generator: torch.Generator) -> tuple:
    """Predictions of which about 70 % are right, for classes of unlike size and difficulty."""
    labels = (4 * torch.rand(20_000, generator=generator).square()).long()
    right = torch.rand(20_000, generator=generator) < torch.tensor([0.85, 0.75, 0.5, 0.3])[labels]
    return torch.where(right, labels, (labels + 1) % 4), labels


def _draw_seeds(generator: torch.Generator) -> tuple:
    """Accuracies of six seeds that vary far more than their differences do."""
    a = 50 + 3 * torch.randn(6, generator=generator, dtype=torch.float64)
    d = torch.linspace(-1, 1, 6, dtype=torch.float64)[torch.randperm(6, generator=generator)]
    return a, a + 3 + d + 0.1 * torch.randn(6, generator=generator, dtype=torch.float64)


def _draw_p(generator: torch.Generator) -> tuple:
    """Ten p-values: some that the running maximum lifts, one that the limit at 1 cuts."""
    low = 0.001 * (1 + torch.arange(4) + 0.5 * torch.rand(4, generator=generator, dtype=torch.float64))
    middle = 0.02 + 0.002 * torch.rand(4, generator=generator, dtype=torch.float64)
    high = torch.tensor([0.55, 0.8]) * (1 + 0.1 * torch.rand(2, generator=generator, dtype=torch.float64))
    return (torch.cat([low, middle, high])[torch.randperm(10, generator=generator)],)


def _right(change: Callable[[Tensor, Tensor, int], tuple]) -> Callable[[Tensor, Tensor], tuple]:
    """A wrong answer from the accuracy, its standard error and n."""

    def answer(predicted: Tensor, labels: Tensor) -> tuple:
        share, error = accuracy(predicted, labels)
        return change(share, error, len(labels))

    return answer


def _by_class(predicted: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([(predicted == labels)[labels == c].double().mean() for c in labels.unique()])


ACCURACY = (
    Mistake("standard deviation", "this is the spread of single images; divide by the root of n.", _right(lambda a, e, n: (a, e * n**0.5))),
    Mistake("divided by n", "divide the standard deviation by the root of n, not by n.", _right(lambda a, e, n: (a, e / n**0.5))),
    Mistake("no square root", "this is the variance; take its square root.", _right(lambda a, e, n: (a, e**2))),
    Mistake("variance of one image", "divide a (1 - a) by n, and take the square root.", _right(lambda a, e, n: (a, a * (1 - a)))),
    Mistake("half of the interval", "1.96 times the standard error is half of a 95 % interval; leave out 1.96.", _right(lambda a, e, n: (a, 1.96 * e))),
    Mistake("whole interval", "return the standard error, not the width of an interval.", _right(lambda a, e, n: (a, 3.92 * e))),
    Mistake("largest standard error", "0.5 / √n is the largest there is; take it at this accuracy.", _right(lambda a, e, n: (a, 0.5 / n**0.5))),
    Mistake("1 - a forgotten", "the variance of right or wrong is a (1 - a).", _right(lambda a, e, n: (a, (a / n) ** 0.5))),
    Mistake("as for counts", "1 / √n belongs to counts; the variance here is a (1 - a).", _right(lambda a, e, n: (a, n**-0.5))),
    Mistake("error rate", "the first number is the share that is right.", _right(lambda a, e, n: (1 - a, e))),
    Mistake("in percent", "return shares, between 0 and 1.", _right(lambda a, e, n: (100 * a, 100 * e))),
    Mistake("accuracy in percent", "return both as shares, between 0 and 1.", _right(lambda a, e, n: (100 * a, e))),
    Mistake("count instead of share", "divide the number of right predictions by n.", _right(lambda a, e, n: (a * n, e))),
    Mistake("numbers exchanged", "the accuracy comes first, then its standard error.", _right(lambda a, e, n: (e, a))),
    Mistake("interval's ends", "return the accuracy and its standard error.", _right(lambda a, e, n: (a - 1.96 * e, a + 1.96 * e))),
    Mistake("mean over classes", "every image counts the same, not every class.", lambda p, y: (_by_class(p, y).mean(), accuracy(p, y)[1])),
    Mistake("spread over classes", "the classes are no repetitions; take the spread over images.", lambda p, y: (accuracy(p, y)[0], _by_class(p, y).std() / len(y.unique()) ** 0.5)),
    Mistake("mean of labels", "compare predictions with labels before you take the mean.", lambda p, y: (p.double().mean(), p.double().std() / len(y) ** 0.5)),
)  # fmt: skip


def _t(share: float, freedom: int) -> float:
    from scipy import stats

    return float(stats.t.ppf(share, freedom))


def _around(factor: Callable[[int], float], sd: Callable[[Tensor, Tensor], Tensor] | None = None) -> Callable:
    """An interval of half-width factor(n) times a standard deviation over √n."""

    def answer(a: Tensor, b: Tensor) -> tuple:
        mean, half = (b - a).mean(), factor(len(a)) * (sd(a, b) if sd else (b - a).std()) / len(a) ** 0.5
        return mean - half, mean + half

    return answer


def _student(n: int) -> float:
    return _t(0.975, n - 1)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    return (a.var() + b.var()).sqrt()


def _paired(a: Tensor, b: Tensor) -> tuple[float, float]:
    return interval((b - a).tolist())[2:]


PAIRED = (
    Mistake("not paired", "take the difference of each seed first; this is the spread of two separate groups.", _around(_student, _apart)),
    Mistake("not paired", "take the difference of each seed first; this is the spread of two separate groups.", _around(lambda n: _t(0.975, 2 * n - 2), _apart)),
    Mistake("wrong direction", "the difference is b - a.", lambda a, b: _paired(b, a)),
    Mistake("normal instead of t", "with few seeds Student's t is much wider than 1.96: stats.t.ppf(0.975, n - 1).", _around(lambda n: 1.959964)),
    Mistake("two standard errors", "with few seeds Student's t is wider than 2: stats.t.ppf(0.975, n - 1).", _around(lambda n: 2.0)),
    Mistake("one-sided", "2.5 % are left out on each side: the quantile is 0.975.", _around(lambda n: _t(0.95, n - 1))),
    Mistake("99 % interval", "2.5 % are left out on each side: the quantile is 0.975.", _around(lambda n: _t(0.995, n - 1))),
    Mistake("n degrees of freedom", "the mean is estimated too: n - 1 degrees of freedom.", _around(lambda n: _t(0.975, n))),
    Mistake("degrees of freedom of two groups", "six differences have five degrees of freedom, n - 1.", _around(lambda n: _t(0.975, 2 * n - 2))),
    Mistake("divided by n in the variance", "the standard deviation of a sample divides by n - 1.", _around(_student, lambda a, b: (b - a).std(correction=0))),
    Mistake("standard deviation", "this is the spread of single seeds; divide by the root of n.", _around(lambda n: _student(n) * n**0.5)),
    Mistake("divided by n", "divide the standard deviation by the root of n, not by n.", _around(lambda n: _student(n) / n**0.5)),
    Mistake("standard error", "multiply the standard error by Student's t.", _around(lambda n: 1.0)),
    Mistake("ends exchanged", "the lower end comes before the upper one.", lambda a, b: _paired(a, b)[::-1]),
    Mistake("half-width instead of ends", "return mean - half and mean + half.", lambda a, b: ((b - a).mean(), (_paired(a, b)[1] - _paired(a, b)[0]) / 2)),
    Mistake("interval of b alone", "take the differences b - a.", lambda a, b: _paired(0 * a, b)),
    Mistake("sorted apart", "seed i of a belongs to seed i of b; sort neither.", lambda a, b: _paired(a.sort().values, b.sort().values)),
)  # fmt: skip


def _ranked(change: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor], Tensor]:
    """A wrong correction of p-values in rising order, put back in their own order."""
    return lambda p: change(p.sort().values, len(p))[p.argsort().argsort()]


def _falling(p: Tensor, m: int) -> Tensor:
    """p (rising) times m, m - 1, ... 1."""
    return p * torch.arange(m, 0, -1)


def _least_from_above(values: Tensor) -> Tensor:
    return values.flip(0).cummin(0).values.flip(0)


HOLM = (
    Mistake("Bonferroni", "only the smallest is multiplied by m; the next by m - 1, and so on.", lambda p: (p * len(p)).clamp(max=1)),
    Mistake("Bonferroni without a limit", "the next is multiplied by m - 1, and so on; no p-value is above 1.", lambda p: p * len(p)),
    Mistake("no running maximum", "none becomes smaller than the one before it: take the running maximum.", _ranked(lambda p, m: _falling(p, m).clamp(max=1))),
    Mistake("no limit at 1", "no p-value is above 1.", _ranked(lambda p, m: _falling(p, m).cummax(0).values)),
    Mistake("neither maximum nor limit", "take the running maximum, and at most 1.", _ranked(_falling)),
    Mistake("sorted", "return them in the order given, not sorted.", lambda p: _falling(p.sort().values, len(p)).clamp(max=1).cummax(0).values),
    Mistake("ranked in the order given", "the factor follows from a p-value's rank, not from its place: sort first.", lambda p: _falling(p, len(p)).clamp(max=1).cummax(0).values),
    Mistake("ranked from the largest", "the smallest is multiplied by m, the largest by 1.", _ranked(lambda p, m: (p * torch.arange(1, m + 1)).clamp(max=1))),
    Mistake("Benjamini and Hochberg", "this controls the share of false ones among those found; Holm's multiplies by m, m - 1, and so on.", _ranked(lambda p, m: _least_from_above(p * m / torch.arange(1, m + 1)).clamp(max=1))),
    Mistake("Hochberg", "go from the smallest up, with the running maximum; this goes from the largest down.", _ranked(lambda p, m: _least_from_above(_falling(p, m).clamp(max=1)))),
    Mistake("factors from m - 1", "the smallest is multiplied by m.", _ranked(lambda p, m: (p * torch.arange(m - 1, -1, -1)).clamp(max=1).cummax(0).values)),
    Mistake("factors from m + 1", "the smallest is multiplied by m, the largest by 1.", _ranked(lambda p, m: (p * torch.arange(m + 1, 1, -1)).clamp(max=1).cummax(0).values)),
    Mistake("divided", "multiply p, or divide alpha; not both.", _ranked(lambda p, m: (p / torch.arange(m, 0, -1)).cummax(0).values)),
    Mistake("Šidák", "this is Holm's order with Šidák's formula 1 - (1 - p)^k; multiply by k.", _ranked(lambda p, m: (1 - (1 - p) ** torch.arange(m, 0, -1)).cummax(0).values)),
    Mistake("verdicts instead of p-values", "return the corrected p-values, not whether they are below 0.05.", lambda p: (torch.tensor(corrected(p.tolist())) < 0.05).double()),
    Mistake("unchanged", "the p-values come back as they were.", lambda p: p),
)  # fmt: skip

EXERCISES = (
    Exercise(
        name="accuracy",
        title="Accuracy with its standard error",
        lesson="06",
        minutes=5,
        difficulty="easy",
        returns="two numbers: the accuracy and its standard error",
        expect="√(a (1 − a) / n), or the standard deviation of right and wrong (1 and 0) over √n; n or n − 1 both pass.",
        solution=accuracy,
        reference=accuracy,
        draw=_draw_predictions,
        mistakes=ACCURACY,
        margin=5e-3,  # n - 1 in place of n moves even the standard deviation by less
    ),
    Exercise(
        name="paired_interval",
        title="The interval of a paired difference",
        lesson="11",
        minutes=10,
        difficulty="easy",
        returns="two numbers: the lower and the upper end",
        expect="Differences first, then mean ± t(0.975, n − 1) · s / √n; scipy.stats.ttest_1samp(d, 0).confidence_interval() passes as well.",
        solution=paired_interval,
        reference=_paired,
        draw=_draw_seeds,
        mistakes=PAIRED,
    ),
    Exercise(
        name="holm",
        title="Holm's correction for many p-values",
        lesson="11",
        minutes=15,
        difficulty="medium",
        returns="m p-values",
        expect="Sort, multiply by m, m − 1, down to 1, running maximum, at most 1, back to the order given.",
        solution=holm,
        reference=lambda p: torch.tensor(corrected(p.tolist())),
        draw=_draw_p,
        mistakes=HOLM,
    ),
)
