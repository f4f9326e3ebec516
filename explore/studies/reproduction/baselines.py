"""Rows without learning beside the reproduction's: the untrained network, and patches as filters.

What any encoder of the table should be seen beside: `explore.patches` says where they come from.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...environment import environment
from ...errors import UserError, nearest
from ...experiments.cell import collect, content_hash, images_of, read_cell, write_cell
from ...experiments.metrics import measured
from ...patches import KINDS, patch_encoder
from ...random import seeded
from ...results import Sweep
from ...runfolder import build_encoder
from ...training import describe_device, resolve_device
from .rows import Tier

PATCHES = {"cpu": 400, "gpu": 1600}  # filters of 6 x 6 pixels; features are four times as many
TITLES = {"untrained": "untrained network", **{f"{kind}-patches": title for kind, title in KINDS.items()}}
SCHEMA = 1  # raise it when the same settings measure something else than before


def baseline(name: str, tier: Tier, out: Path, *, seed: int = 0, device: str = "auto") -> dict[str, Any]:
    """One baseline with one seed, measured as the tier's rows are, but for transfer and projections; kept in `out` like a cell.

    `name`: of `TITLES`. The record's `cpu_seconds` are the process's own, features, probe and
    attack included; `fitting_seconds` those of drawing patches and k-means alone.
    """
    if name not in TITLES:
        raise UserError(f"A baseline is one of {', '.join(TITLES)}, got '{name}'.{nearest(name, TITLES)}")
    config, measure = tier.base.with_(seed=seed, attack="none"), replace(tier.measure, z=False, transfer=())
    key, identity = _identity(name, tier, seed)
    if (kept := read_cell(out, key)) is not None:
        return kept
    data, _ = images_of(config)
    where, (kind, _, patches) = resolve_device(device), name.partition("-")
    began, spent = time.perf_counter(), time.process_time()
    if patches:
        encoder: Any = patch_encoder(data.train, kind, patches=PATCHES[tier.name], generator=seeded(seed))
        encoder = encoder.to(where).eval()
    else:
        encoder = build_encoder(config).to(where).eval().requires_grad_(False)
    fitting = time.process_time() - spent
    rows, env = measured(encoder, data.to(where), measure), environment()
    record = {
        "training": identity,
        "measure": measure.to_dict(),
        "config": config.with_(data_dir=None).to_dict(),
        "rows": rows,
        "run": None,
        "seconds": time.perf_counter() - began,
        "fitting_seconds": fitting,
        "cpu_seconds": time.process_time() - spent,
        "device": describe_device(where),
        "threads": torch.get_num_threads(),
        **{key: env[key] for key in ("versions", "commit", "machine", "time")},
    }
    write_cell(out, key, record)
    return record


def baselines(
    tier: Tier,
    out: Path,
    *,
    names: Sequence[str] = tuple(TITLES),
    seeds: int = 3,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> Sweep:
    """The baselines with several seeds, as a `Sweep` with their names in `method`; what is finished is read from `out`.

    Metrics: 'knn', 'probe', 'robust' (shares of test images), 'CPU seconds' of all and 'CPU seconds of fitting'.
    """
    parts: list[Sweep] = []
    about: dict[str, dict[str, Any]] = {}
    for name in names:
        records = {}
        for seed in range(seeds):
            record = baseline(name, tier, out, seed=seed, device=device)
            records[_identity(name, tier, seed)[0]] = record
            found = ", ".join(f"{row['metric']} {row['value']:.3f}" for row in record["rows"])
            say(f"{TITLES[name]}, seed {seed}: {found}, {record['seconds']:.0f} s")
        one = _sweep(name, tier, records)
        about[name] = {"title": TITLES[name], "cells": sorted(records)}
        if name != "untrained":
            about[name]["patches"] = PATCHES[tier.name]
        parts.append(one)
    joined = parts[0].join(*parts[1:])
    return Sweep(joined.table, {**joined.provenance, "rows": about})


def _identity(name: str, tier: Tier, seed: int) -> tuple[str, dict[str, Any]]:
    """The name on disk of a baseline, and all that determines its encoder."""
    config, measure = tier.base.with_(seed=seed, attack="none"), replace(tier.measure, z=False, transfer=())
    identity: dict[str, Any] = {"schema": SCHEMA, "data": images_of(config)[1], "trained": False, "baseline": name}
    identity |= {"seed": seed}
    if name == "untrained":
        identity |= {"network": [config.arch, config.width, config.stem]}
    else:
        identity |= {"patches": PATCHES[tier.name]}
    return content_hash({**identity, "measure": measure.to_dict()})[:16], identity


def _sweep(name: str, tier: Tier, records: dict[str, dict[str, Any]]) -> Sweep:
    """One baseline's records as a table."""
    first = next(iter(records.values()))
    provenance = {
        "study": "baselines",
        "command": f"python -m explore reproduce --tier {tier.name} --baselines",
        "data": sorted({record["training"]["data"] for record in records.values()}),
        **{key: sorted({record[key] for record in records.values()}) for key in ("device", "machine", "threads")},
        **{key: first[key] for key in ("time", "commit", "versions")},
    }
    found = collect(records.items(), provenance)
    once = found.table.drop_duplicates("cell")
    costs = []
    for metric, key in (("CPU seconds", "cpu_seconds"), ("CPU seconds of fitting", "fitting_seconds")):
        timed = once[[key in records[cell] for cell in once.cell]]
        cost = timed.assign(metric=metric, low=float("nan"), high=float("nan"), n=1)
        costs.append(Sweep(cost.assign(value=[records[cell][key] for cell in timed.cell]), {}))
    arch = {} if name == "untrained" else {"arch": f"{PATCHES[tier.name]} patches"}
    table = found.join(*costs).table.assign(method=name, **arch)
    return Sweep(table, found.provenance)
