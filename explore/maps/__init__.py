"""Two-dimensional maps of features, fitted on clean images; other features are placed in them.

Features are scaled to unit length, where Euclidean distance orders points as cosine similarity does
(d² = 2 - 2 cos), and reduced by PCA to 50 axes, which keeps distances as well as 50 axes can (98.5
% of the variance of demo/clae's 128). UMAP (McInnes et al. 2018, arXiv:1802.03426) gets these axes
with metric 'euclidean', and exact neighbours: approximate ones cost it more than the map itself.

Placing a point in a fitted UMAP: the mean of the map positions of its 5 nearest fitted points on
those axes, weighted by ((R - d) / (R d))², d the distance and R that of the 6th (Franke and
Little's weights, Renka 1988). A fitted point lands on its own position, a small step in h is a
small step in the map (a weight is 0 before its point leaves the neighbours), and no point depends
on which others are placed with it. Measured against UMAP's own `transform` (demo/clae, 3,500 fitted
images, 1,500 others, seed 0, busy machine; the map's spread is 7.0 by 4.5):

                                                           transform         here
    seconds for the 1,500                                        9.0          0.2
    of a clean image's 10 nearest in the map, among its
      10 / 50 nearest in h                                 39 / 77 %    39 / 74 %
    the same at 16/255                                     35 / 72 %    34 / 67 %
    fitted points placed among others: off by (mean)            0.09            0
    fitted points at 2/255: moved by (median)                   0.10        0.002
    a point placed in another batch: off by (at most)           0.22            0
    a random step of length 0.001 in h: moved by
      (median / at most)                                  0.08 / 5.6  0.0002 / 0.03

So `transform` is a little better at keeping many neighbours, and its noise would be the film's
first and largest movement.
"""

from .metrics import NEAREST, neighbours, overlap, shared, trustworthiness, vote
from .procrustes import Alignment, aligned, procrustes
from .projection import METHODS, Projection, fit_map, kept_map

__all__ = [
    "METHODS",
    "NEAREST",
    "Alignment",
    "Projection",
    "aligned",
    "fit_map",
    "kept_map",
    "neighbours",
    "overlap",
    "procrustes",
    "shared",
    "trustworthiness",
    "vote",
]
