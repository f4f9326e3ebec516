"""python -m explore probe | knn | robust | transfer: how good an encoder is."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..attack_table import TABLE
from ..config import parse_eps
from ..errors import UserError
from ..threads import sharing
from .shared import counting_line, told

WHAT = "a run's name, patches/kmeans, patches/random, untrained/resnet10, torchvision's weights (ResNet18_Weights.IMAGENET1K_V1), or a .safetensors or .pth file"


def add(sub: Any) -> None:
    """Register the commands."""
    p = _parser(sub, "probe", "linear probe: logistic regression on frozen features", _probe)
    p.add_argument("--features", choices=("h", "z"), default="h", help="features h or projections z")
    p.add_argument("--share", type=float, default=1.0, metavar="X", help="share of the training labels, 0.01 for 1 %%")
    p.add_argument("--seeds", type=int, default=1, metavar="N", help="draws of the labels and the held-out part")
    p.add_argument("--l2", type=float, metavar="X", help="fix the penalty instead of sweeping 45 values")
    p.add_argument("--protocol", choices=("lbfgs", "authors"), default="lbfgs", help="authors: Adam 3e-4, batch 256")
    p.add_argument("--epochs", type=int, default=100, metavar="N", help="of protocol authors")
    p.add_argument("--against", metavar="ENCODER", help="a second encoder, compared image by image (McNemar)")

    p = _parser(sub, "knn", "k-nearest-neighbour accuracy", _knn)
    p.add_argument("--features", choices=("h", "z"), default="h", help="features h or projections z")
    p.add_argument("--k", type=int, default=200, metavar="N", help="neighbours that vote")
    p.add_argument("--temperature", type=float, default=0.1, metavar="X", help="of the votes")

    p = _parser(sub, "robust", "accuracy of the probe under attack and noise", _robust)
    p.add_argument("--eps", type=told(_grid), metavar="LIST", help="0,2/255,8/255 (default: 0, 1, 2, 4, 8, 16 /255)")
    p.add_argument(
        "--attacks",
        type=lambda t: t.split(","),
        metavar="LIST",
        help=f"pgd,fgsm,contrast,sign (default); of {', '.join(TABLE)}, contrast",
    )
    p.add_argument("--steps", type=int, default=20, metavar="N", help="of PGD")
    p.add_argument("--restarts", type=int, default=1, metavar="N", help="of PGD")
    p.add_argument("--images", type=int, default=500, metavar="N", help="test images, the classes in turn; 0: all")
    p.add_argument("--seed", type=int, default=0, metavar="N")

    p = _parser(sub, "transfer", "linear evaluation on the rebuttal's eight transfer sets", _transfer, data=False)
    p.add_argument("more", nargs="*", metavar="ENCODER", help="further seeds of the same method: mean and spread")
    p.add_argument("--datasets", type=lambda t: t.split(","), metavar="LIST", help="cifar10,pets (default: all eight)")
    p.add_argument("--root", type=Path, metavar="DIR", help="the folder that holds the sets")
    p.add_argument(
        "--size", type=int, metavar="N", help="pixels after resize and crop (default: what the encoder was made for)"
    )
    p.add_argument("--seed", type=int, default=0, metavar="N", help="of the held-out parts")


def _parser(sub: Any, name: str, about: str, command: Callable, *, data: bool = True) -> argparse.ArgumentParser:
    p = sub.add_parser(name, help=about, description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.set_defaults(command=sharing(command))
    p.add_argument("encoder", metavar="RUN|WEIGHTS|FILE", help=WHAT)
    if data:
        p.add_argument("--dataset", help="judged on these images (default: the run's own)")
        p.add_argument("--data-dir", help="your own copy of the data set")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    p.add_argument("--json", action="store_true", help="one line of JSON")
    return p


def _grid(text: str) -> list[float]:
    return [parse_eps(part) for part in text.split(",")]


def _opened(args: argparse.Namespace, name: str | None = None, data: Any = None) -> tuple[Any, dict[str, Any], Any]:
    """Encoder, what is known of it, and the images it is judged on, on the device."""
    from .. import datasets
    from ..evaluate import open_encoder
    from ..training import resolve_device

    device = resolve_device(args.device)
    encoder, about = open_encoder(name or args.encoder, device)
    if data is None:
        wanted = args.dataset or about.get("dataset")
        if wanted is None:
            raise UserError(
                f"{about['encoder']} does not say which images it is judged on; add --dataset, e.g. --dataset fashion."
            )
        data_dir = args.data_dir or (about["data_dir"] if wanted == about.get("dataset") else None)
        data = datasets.load(wanted, data_dir=data_dir, size=about["size"], progress=counting_line()).to(device)
        if data.labelled is None:
            raise UserError(f"{wanted} has no classes; a probe needs a labelled set: choose another by --dataset.")
        for line in data.warnings:
            print(f"note: {line}", file=sys.stderr)
    about.pop("data_dir", None)
    return encoder, about, data


def _features(encoder: Any, data: Any, what: str) -> tuple[Any, Any]:
    from ..evaluate import embed

    line = counting_line()
    return tuple(embed(encoder, s, what, cache=True, progress=line) for s in (data.labelled, data.test))  # type: ignore[return-value]


def _said(args: argparse.Namespace, found: dict[str, Any], text: str) -> int:
    from ..environment import environment

    env = environment()
    about = {k: env[k] for k in ("time", "commit", "versions", "machine")}
    print(json.dumps({**found, **about}) if args.json else text)
    return 0


def _interval(share: float, pair: tuple[float, float]) -> str:
    return f"{100 * share:.1f} % (95 % interval {100 * pair[0]:.1f} to {100 * pair[1]:.1f})"


def _probe(args: argparse.Namespace) -> int:
    from ..evaluate import Probe, take_labels
    from ..random import seeded
    from ..results import Paired

    if args.seeds < 1:
        raise UserError(f"--seeds is 1 or more, got {args.seeds}.")
    names, scores, data, lines, found = [args.encoder, *filter(None, [args.against])], [], None, [], []
    for name in names:
        encoder, about, data = _opened(args, name, data)
        (h, y), (test_h, test_y) = _features(encoder, data, args.features)
        for seed in range(args.seeds):
            part = take_labels(y, args.share, seeded(seed))
            probe = Probe(l2=args.l2, seed=seed, protocol=args.protocol, epochs=args.epochs)
            test = (test_h, test_y) if args.protocol == "authors" else None
            probe.fit(h[part], y[part], classes=data.classes, test=test)
            s = probe.score(test_h, test_y, **about, images=data.name, features=args.features, share=args.share)
            scores.append(s)
            row = {**s.provenance, "top1": s.top1, "low": s.interval[0], "high": s.interval[1], "top5": s.top5}
            row |= {"mean_per_class": s.mean_per_class, "n": s.n, "seconds": probe.seconds_}
            text = f"{about['encoder']}, seed {seed}: top-1 {_interval(s.top1, s.interval)} of {s.n:,} test images"
            text += f", top-5 {100 * s.top5:.1f} %, mean per class {100 * s.mean_per_class:.1f} %; {len(part):,} labels"
            if args.protocol == "authors":
                row |= {"last": probe.last_, "best": probe.best_, "best_epoch": probe.best_epoch_}
                text += f"; best epoch on the test images ({probe.best_epoch_}): {100 * (probe.best_ or 0):.1f} %, not to be reported"
            else:
                text += f", l2 {probe.l2_:.2g}, {probe.seconds_:.1f} s"
            lines.append(text)
            found.append(row)
    result: dict[str, Any] = {"command": "probe", "rows": found}
    if args.against:
        paired = Paired.of(scores[0], scores[args.seeds])
        low, high = paired.interval
        result["paired"] = {"difference": paired.difference, "low": low, "high": high, "p": paired.p}
        lines.append(
            f"{args.against} minus {args.encoder}: {100 * paired.difference:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f}), "
            f"McNemar p = {paired.p:.2g}" + (", seed 0" if args.seeds > 1 else "")
        )
    return _said(args, result, "\n".join(lines))


def _knn(args: argparse.Namespace) -> int:
    from ..evaluate import knn_accuracy

    encoder, about, data = _opened(args)
    train, test = _features(encoder, data, args.features)
    found = knn_accuracy(*train, *test, k=args.k, temperature=args.temperature)
    low, high = found.interval
    row = {
        "command": "knn",
        **about,
        "images": data.name,
        "features": args.features,
        "k": found.k,
        "temperature": found.temperature,
    }
    row |= {"accuracy": found.accuracy, "low": low, "high": high, "n": found.n}
    text = f"{about['encoder']}: kNN {_interval(found.accuracy, found.interval)} of {found.n:,} test images; {found.k} neighbours of {len(train[1]):,}, {args.features}"
    return _said(args, row, text)


def _robust(args: argparse.Namespace) -> int:
    from ..evaluate import Probe, robust_accuracy

    encoder, about, data = _opened(args)
    (h, y), _ = _features(encoder, data, "h")
    probe = Probe(seed=args.seed).fit(h, y, classes=data.classes)
    images = data.test if not args.images else data.test.take(min(args.images, len(data.test)))
    more = {name: getattr(args, name) for name in ("eps", "attacks") if getattr(args, name) is not None}
    found = robust_accuracy(
        encoder,
        probe,
        images,
        steps=args.steps,
        restarts=args.restarts,
        seed=args.seed,
        progress=counting_line(),
        **more,
    )
    wide = found.table.pivot(index="k", columns="attack", values="accuracy").mul(100).round(1)[list(found.attacks)]
    checks = [f"{'✓' if c.ok else '✕'} {c.name}: {c.detail}" for c in found.checks]
    text = (
        f"{about['encoder']}, % of {len(images):,} test images still right, eps in k/255\n{wide.to_string()}\n"
        + "\n".join(checks)
    )
    rows = json.loads(found.table.to_json(orient="records"))
    result = {
        "command": "robust",
        **about,
        **found.provenance,
        "rows": rows,
        "checks": [c._asdict() for c in found.checks],
    }
    return _said(args, result, text)


def _transfer(args: argparse.Namespace) -> int:
    from ..evaluate import transfer
    from ..training import resolve_device

    found = transfer(
        [args.encoder, *args.more],
        datasets=args.datasets,
        root=args.root,
        size=args.size,
        seed=args.seed,
        device=str(resolve_device(args.device)),
        progress=counting_line(),
    )
    return _said(args, {"command": "transfer", "rows": found.rows, "absent": found.absent}, repr(found))
