"""Two-dimensional maps of features: fitted once on clean ones, then other features are placed in them.

Features are scaled to unit length, where Euclidean distance orders points as cosine similarity does (d² = 2 - 2 cos), and
reduced by PCA to 50 axes, which keeps distances as well as 50 axes can (98.5 % of the variance of demo/clae's 128). UMAP
(McInnes et al. 2018, arXiv:1802.03426) gets these axes with metric 'euclidean', and exact neighbours: approximate ones cost it
more than the map itself.

Placing a point in a fitted UMAP: the mean of the map positions of its 5 nearest fitted points in those axes, weighted by
((R - d) / (R d))², d the distance and R that of the 6th (Franke and Little's weights, Renka 1988). A fitted point lands on its own
position, a small step in h is a small step in the map (a weight is 0 before its point leaves the neighbours), and no point
depends on which others are placed with it. Measured against UMAP's own `transform` (demo/clae, 3,500 fitted points and 1,500 others,
seed 0, busy machine): of a new clean point's 10 nearest in the map 39 % are among its 10 nearest in h for both, and 74 % against
77 % among its 50 nearest; at 16/255 34 % against 35 %, and 67 % against 72 %. `transform` took 9 s where this took 0.2 s, put a point
elsewhere when placed with other company (by up to 0.2 units), moved fitted points off their own position (by 0.09 in the mean), and
answered a random step of length 0.001 with jumps of up to 5.6 units (here 0.014) in a map whose spread is 7.0 by 4.5.
"""

from .fitted import METHODS, Fitted, fit_map, kept_map
from .truths import NEAREST, neighbours, overlap, shared, trustworthiness, vote
from .turns import Turn, aligned, turn_onto

__all__ = [
    "METHODS",
    "NEAREST",
    "Fitted",
    "Turn",
    "aligned",
    "fit_map",
    "kept_map",
    "neighbours",
    "overlap",
    "shared",
    "trustworthiness",
    "turn_onto",
    "vote",
]
