"""Shapes written in the annotations are checked at every call of the library during the tests.

`make test` gives whole files to parallel workers (pytest-xdist), the longest first; each worker has a browser of its own.
"""

import contextlib
import copy
import os
import warnings
from collections.abc import Iterator

import psutil
import pytest

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # the workers, and the processes that they start, share the cores
    every = str(os.cpu_count() or 1)  # which a worker has from the process that started it, see below
    if os.environ.get("OMP_NUM_THREADS", every) == every:
        os.environ["OMP_NUM_THREADS"] = str(max(1, int(every) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))
else:  # the number of threads decides about last bits: not what happens to be free
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
import torch
from hypothesis import HealthCheck, settings

MISSING: list[str] = []  # what a bare GPU machine may lack: tests/test_gpu.py runs without it
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import beartype  # noqa: F401
        from jaxtyping import install_import_hook

        hook = install_import_hook("explore", "checker.checked")
except ModuleNotFoundError as error:
    MISSING.append(f"{error.name} is not installed: shapes in annotations are not checked")
try:
    from browser import lab  # noqa: F401  (one JupyterLab and one browser for all files)
except ModuleNotFoundError as error:
    MISSING.append(f"{error.name} is not installed: tests in a browser cannot run")

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # a slow machine is no fault

# The files that take longest, first (processor time, or by the clock where there is a browser), those with one in between.
LONG = ["test_browser", "test_sweep", "test_browser_hosts", "test_reproduction", "test_browser_probe"]
LONG += ["test_sweep_panel", "test_browser_atlas", "test_attacks", "test_browser_two_views", "test_patches"]
LONG += ["test_gpu", "test_browser_seen", "test_course", "test_panels", "test_probe_panel"]
LONG += ["test_browser_sweep", "test_results", "test_browser_pages", "test_ranks"]
LONG += ["test_browser_training", "test_attribute", "test_maps", "test_jobs", "test_doors", "test_graders"]
LONG += ["test_training_panel", "test_background", "test_browser_scorecard", "test_browser_batch_mates"]


def pytest_report_header() -> list[str]:
    return MISSING


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no worker is left alone with one of them at the end."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session", autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """Processes that a test started and did not end, because it failed perhaps, are killed at the end."""
    yield
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "multiprocessing.resource_tracker" not in " ".join(child.cmdline()):
                child.kill()


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def made_once():
    from explore import Encoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = Encoder("resnet10", width=8, stem="small", proj_dim=16)
        for branch in ("clean", "adv"):
            net.train()(torch.rand(16, 3, 32, 32), branch=branch)
    return net.eval()


@pytest.fixture
def encoder(made_once):
    """A small encoder with BN statistics that are not the defaults, in eval mode."""
    return copy.deepcopy(made_once)
