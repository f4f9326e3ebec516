"""Weighted k-nearest-neighbour accuracy of an embedding."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from .. import incoming
from ..results import wilson
from ..types import LabelsLike


@dataclass(frozen=True)
class KNN:
    """Result of `knn_accuracy`: share of test images classified correctly."""

    accuracy: float
    n: int
    k: int
    temperature: float

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy over the n test images."""
        return wilson(self.accuracy, self.n)


@torch.no_grad()
def knn_accuracy(
    train: Any,
    train_labels: LabelsLike,
    test: Any,
    test_labels: LabelsLike,
    *,
    k: int = 200,
    temperature: float = 0.1,
    chunk: int = 1000,
) -> KNN:
    """Weighted kNN on cosine similarity: each neighbour votes with exp(similarity / temperature).

    Protocol of Wu et al. 2018 (arXiv:1805.01978). With a `temperature` of infinity all votes are
    equal. `k` is at most the number of training rows. Test rows are processed in chunks, so memory is chunk x len(train).

    >>> h, y = torch.eye(4), torch.arange(4)
    >>> ex.knn_accuracy(h, y, h, y, k=1).accuracy
    1.0
    """
    train, names = incoming.features(train, "Training embeddings"), incoming.class_names(train_labels, test_labels)
    test = incoming.features(test, "Test embeddings", dim=train.shape[1])
    train_labels = incoming.labels(train_labels, len(train), names, "Training labels")
    test_labels = incoming.labels(test_labels, len(test), names, "Test labels")
    incoming.number(temperature, "temperature", open_low=True)
    k, chunk = min(incoming.whole(k, "k, the number of neighbours,"), len(train)), incoming.whole(chunk, "chunk")
    bank, labels = F.normalize(train, dim=1), train_labels.to(train.device)
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    right = 0
    for rows, truth in zip(
        F.normalize(test, dim=1).split(chunk), test_labels.to(test.device).split(chunk), strict=True
    ):
        near = (rows @ bank.T).topk(k, dim=1)
        votes = torch.zeros(len(rows), classes, device=rows.device)
        votes.scatter_add_(1, labels[near.indices], (near.values / temperature).exp())
        right += int((votes.argmax(1) == truth).sum())
    return KNN(right / len(test), len(test), k, temperature)
