"""Shapes written in the annotations are checked at every call of the library during the tests."""

import warnings

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from jaxtyping import install_import_hook

    hook = install_import_hook("explore", "checker.checked")

from browser import lab  # noqa: F401  (one JupyterLab and one browser for all files)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def encoder():
    """A small encoder with BN statistics that are not the defaults, in eval mode."""
    from explore import Encoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = Encoder("resnet10", width=8, stem="small", proj_dim=16)
        for branch in ("clean", "adv"):
            net.train()(torch.rand(16, 3, 32, 32), branch=branch)
    return net.eval()
