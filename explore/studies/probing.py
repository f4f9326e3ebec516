"""Linear probes on frozen encoders over one data set: every embedding, fit and attack is made once and kept."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..attack_table import ATTACK_MENU, TABLE
from ..config import check_eps
from ..datasets import Data
from ..errors import UserError, nearest
from ..evaluate import Probe, embed, open_encoder, take_labels
from ..nets import as_encoder
from ..objectives import classify
from ..perturbation.checks import NetworkState, small_change, valid_pixels
from ..perturbation.engine import Batch
from ..random import seeded
from ..results import Check, Scores, to_pixels
from ..results.probes import TESTS, ProbeComparison, curve_row, curve_table
from ..runfolder import Run

Encodes = Run | str | Path | nn.Module  # what `open_encoder` opens
Progress = Callable[[str, int, int], None]  # what is being done, how far, of how much; may raise to stop
EDGES = (1e-6, 1e5)  # of the sweep over l2
FEW = 1.0  # the l2 where there are too few labels to hold any out: scikit-learn's default
KEPT = 8  # sets of attacked images
BATCH = 250


class ProbedImages(NamedTuple):
    """What a probe made of the test images, and the images themselves where they are not the split's own."""

    scores: Scores
    pixels: Tensor | None = None  # (n, c, h, w) uint8
    checks: tuple[Check, ...] = ()


class Probing:
    """Probes on frozen encoders over one data set. Whatever was computed is kept, so the next question is cheap.

    `features`: 'h' or the projections 'z'. `attack`: fgsm, rfgsm, ffgsm or pgd (with `steps`) on the probe over its encoder, at most on
    `most` test images. `cache`: features are kept on disk too.
    """

    def __init__(
        self,
        data: Data,
        *,
        features: str = "h",
        attack: str = "pgd",
        steps: int = 5,
        most: int = 2000,
        cache: bool = True,
    ):
        if features not in ("h", "z"):
            raise UserError(f"features are 'h' or the projections 'z', got '{features}'.")
        _check_attack(attack)
        if data.labelled is None or not data.classes:
            raise UserError(f"A probe needs labels, and '{data.name}' has no classes; choose a set with class folders.")
        self.data, self.train, self.features, self.cache = data, data.labelled, features, cache
        self.attack, self.steps, self.most = attack, steps, most
        self.encoders: dict[str, Any] = {}
        self.about: dict[str, dict[str, Any]] = {}
        self._embedded: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}
        self._fitted: dict[tuple, Probe] = {}
        self._seen: dict[tuple, ProbedImages] = {}
        self._moved: OrderedDict[tuple, ProbedImages] = OrderedDict()
        self._twins: Tensor | None = None

    def add(self, what: Encodes, encoder: nn.Module | None = None) -> str:
        """Open an encoder on the data's device, once; its key. `encoder`: the one to use, where it is open there already."""
        key = what.name if isinstance(what, Run) else str(what) if isinstance(what, str | Path) else f"{id(what):x}"
        if key not in self.encoders:
            if encoder is None or not isinstance(what, Run):
                self.encoders[key], self.about[key] = open_encoder(what, self.data.device)
            else:
                about = {"encoder": what.name, "method": what.method, "seed": what.config.seed}
                self.encoders[key], self.about[key] = encoder, about | {"commit": what.env.get("commit")}
        return key

    def embedded(self, key: str, side: str, progress: Progress | None = None) -> tuple[Tensor, Tensor]:
        """Features and labels of a side, 'train' or 'test'."""
        if (key, side) not in self._embedded:
            split = self.train if side == "train" else self.data.test
            found = embed(self.encoders[key], split, self.features, cache=self.cache, progress=progress)
            self._embedded[key, side] = found
        return self._embedded[key, side]

    def labels(self, share: float, seed: int) -> Tensor:
        """Places of the training images whose label is used; the same for every encoder."""
        return take_labels(self.train.labels.cpu(), share, seeded(seed))

    def probe(self, key: str, share: float, seed: int, progress: Progress | None = None) -> Probe:
        """The probe on a share of the labels, l2 chosen among them."""
        if (key, share, seed) not in self._fitted:
            h, y = self.embedded(key, "train", progress)
            used = self.labels(share, seed)
            few = len(used) < 2 * len(y[used].unique())  # one image a class: nothing to hold out
            own = Probe(seed=seed, l2=FEW if few else None)
            self._fitted[key, share, seed] = own.fit(h[used], y[used], classes=self.data.classes)
        return self._fitted[key, share, seed]

    def clean(self, key: str, share: float, seed: int, progress: Progress | None = None) -> Scores:
        """The probe's scores on all test images as they are."""
        if (key, share, seed) not in self._seen:
            probe = self.probe(key, share, seed, progress)
            scores = probe.score(*self.embedded(key, "test", progress), encoder=self.about[key]["encoder"])
            self._seen[key, share, seed] = ProbedImages(scores)
        return self._seen[key, share, seed].scores

    def known(self, key: str, share: float, seed: int) -> bool:
        """True where `clean` would answer at once."""
        return (key, share, seed) in self._seen

    def index(self, test: str) -> Tensor:
        """Places of the test images that are looked at: all, and at most `most` where they are perturbed."""
        n = len(self.data.test)
        if test == "clean" or n <= self.most:
            return torch.arange(n)
        return torch.randperm(n, generator=seeded(0))[: self.most].sort().values

    def perturbed(
        self,
        key: str,
        share: float,
        seed: int,
        test: str,
        eps: float,
        progress: Progress | None = None,
        attack: str | None = None,
    ) -> ProbedImages:
        """Scores on test images that are attacked through this very probe and encoder, or get sign noise of the same size.

        `attack`: another than the study's own.
        """
        name = (key, share, seed, test, eps, "" if test == "noise" else attack or self.attack)
        if name not in self._moved:
            self._moved[name] = self._perturb(*name, progress)
            while len(self._moved) > KEPT:
                self._moved.popitem(last=False)
        self._moved.move_to_end(name)
        return self._moved[name]

    def _perturb(
        self, key: str, share: float, seed: int, test: str, eps: float, attack: str, progress: Progress | None
    ) -> ProbedImages:
        probe, net, index = self.probe(key, share, seed, progress), self.encoders[key], self.index(test)
        before, most, low, high, draws = NetworkState(net), 0.0, 0.0, 1.0, seeded(seed)
        features, pixels, labels = [], [], []
        kind = "sign" if test == "noise" else attack
        what = TABLE[kind].title + (f", {self.steps} steps" if TABLE[kind].steps else "")
        for done, part in enumerate(index.split(BATCH)):
            if progress is not None:
                progress(what, done * BATCH, len(index))
            x, y = self.data.test[part]
            batch = Batch(x, self._objective(net, probe, y), match="plain", steps=self.steps, seed=draws)
            moved = batch.at(kind, [eps])[0]
            most = max(most, float((moved - x).abs().max()))
            low, high = min(low, float(moved.min())), max(high, float(moved.max()))
            features.append(embed(net, moved, self.features)[0])
            shown = torch.from_numpy(to_pixels(moved)).permute(0, 3, 1, 2)
            pixels.append(shown[:, :1] if self.data.gray else shown)
            labels.append(y)
        scores = probe.score(
            torch.cat(features), torch.cat(labels), encoder=self.about[key]["encoder"], test=test, eps=eps
        )
        buffers, modes = before.checks()
        untouched = buffers if modes.ok else buffers._replace(ok=False, detail=buffers.detail or modes.detail)
        return ProbedImages(scores, torch.cat(pixels), (small_change(most, eps), valid_pixels(low, high), untouched))

    def _objective(self, net: Any, probe: Probe, y: Tensor) -> classify:
        """What the attack pushes up: the probe's cross-entropy over the encoder."""
        return classify(net, probe if self.features == "h" else lambda h: probe(as_encoder(net).project(h)), y)

    def curve(self, keys: Sequence[str], names: Sequence[str] | None = None) -> Any:
        """Clean accuracies known so far: one row an encoder, share and draw of labels."""
        rows = []
        for key, name in zip(keys, names or names_of([self.about[k] for k in keys]), strict=True):
            known = sorted((share, seed) for k, share, seed in self._seen if k == key)
            for share, seed in known:
                probe, scores = self._fitted[key, share, seed], self._seen[key, share, seed].scores
                rows.append(curve_row(name, share, probe.n_, seed, probe.l2_, scores))
        return curve_table(rows)

    def compare(
        self,
        *keys: str,
        share: float = 1.0,
        seed: int = 0,
        test: str = "clean",
        eps: float = 8 / 255,
        attack: str | None = None,
        progress: Progress | None = None,
    ) -> ProbeComparison:
        """Probes on the same labels, judged on the same test images. `attack`: another than the study's own."""
        if test not in TESTS:
            raise UserError(f"test is one of {', '.join(TESTS)}, got '{test}'.")
        attack = _check_attack(attack or self.attack)
        eps = 0.0 if test == "clean" else check_eps(eps)
        for key in keys:
            self.clean(key, share, seed, progress)
        if test == "clean":
            seen = [self._seen[key, share, seed] for key in keys]
        else:
            seen = [self.perturbed(key, share, seed, test, eps, progress, attack) for key in keys]
        used, abouts = self.labels(share, seed), [self.about[key] for key in keys]
        names = names_of(abouts)
        return ProbeComparison(
            a=seen[0].scores,
            b=seen[1].scores if len(keys) > 1 else None,
            names=names,
            share=share,
            labels=len(used),
            train=len(self.train),
            seed=seed,
            features=self.features,
            test=test,
            eps=eps,
            l2=tuple(self._fitted[key, share, seed].l2_ for key in keys),
            index=self.index(test),
            curve=self.curve(keys, names),
            seen={k: s.pixels for k, s in zip("ab", seen, strict=False) if s.pixels is not None},
            checks=(*self._checks(keys, share, seed, used), *_all_of([s.checks for s in seen])),
            provenance={
                "study": "probes",
                "encoders": abouts,
                "images": self.data.name,
                "data": self.data.warnings,
                "attack": {"clean": "", "noise": "sign noise"}.get(test, attack),
                "steps": self.steps if test == "attacked" and TABLE[attack].steps else 1,
                "seed": seed,
                "device": str(self.data.device),
                "torch": torch.__version__,
            },
        )

    def _checks(self, keys: Sequence[str], share: float, seed: int, used: Tensor) -> tuple[Check, ...]:
        probes = [self._fitted[key, share, seed] for key in keys]
        left = max(self._slope(key, probe, used) for key, probe in zip(keys, probes, strict=True))
        found = [Check("standardised on train, at the optimum", left < 0.01, f"a slope of {left:.1g} is left")]
        if not self.train.streamed and not self.data.test.streamed:
            twins = int(torch.isin(self._in_both(), used).sum())
            found.append(Check("no test image fitted on", not twins, f"{twins} of {len(used):,} are test images too"))
        at = [p.l2_ for p in probes if len(p.path_) and not EDGES[0] * 1.01 < p.l2_ < EDGES[1] * 0.99]
        if any(len(p.path_) for p in probes):
            found.append(Check("l2 inside its sweep", not at, f"{at[0]:g} is the end of the sweep" if at else ""))
        return tuple(found)

    def _slope(self, key: str, probe: Probe, used: Tensor) -> float:
        """Length of the objective's gradient at the probe, over its length where all weights are 0."""
        h, y = self.embedded(key, "train")
        h, y = h[used].double(), y[used]
        mean, std = h.mean(0), h.std(0, correction=0)
        std = torch.where(std > 1e-8, std, 1.0)
        x, onehot = (h - mean) / std, nn.functional.one_hot(y, len(self.data.classes)).double()
        weight, wrong = probe.weight_.double() * std, probe(h).softmax(1) - onehot
        slope, first = wrong.T @ x + probe.l2_ * weight, (onehot.mean(0) - onehot).T @ x
        return float(slope.norm() / first.norm().clamp_min(1e-12))

    def _in_both(self) -> Tensor:
        """Places of the training images that are in the test split too, pixel for pixel."""
        if self._twins is None:
            test = {bytes(image) for image in self.data.test.stored.cpu().numpy()}
            found = [i for i, image in enumerate(self.train.stored.cpu().numpy()) if bytes(image) in test]
            self._twins = torch.tensor(found, dtype=torch.long)
        return self._twins


def _check_attack(name: str) -> str:
    known = ATTACK_MENU.values()
    if name not in known:
        raise UserError(f"attack is one of {', '.join(known)}, got '{name}'.{nearest(name, known)}")
    return name


def names_of(abouts: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """What to call encoders: by their method, 'SimCLR', 'CLAE', 'Gaussian', or by their runs where methods do not tell them apart."""
    short = tuple(_method(about) for about in abouts)
    runs = tuple(str(about["encoder"]) for about in abouts)
    if len(set(short)) == len(short):
        return short
    return runs if len(set(runs)) == len(runs) else tuple(f"{name} ({k})" for k, name in zip("AB", runs, strict=False))


def _method(about: dict[str, Any]) -> str:
    method = str(about.get("method") or about["encoder"])
    noise = method.removeprefix("SimCLR + ")
    return noise.split()[0].capitalize() if noise != method else method.split(" (")[0]


def _all_of(checks: Iterable[tuple[Check, ...]]) -> tuple[Check, ...]:
    """One check a name: the first that is broken, else the first."""
    found: dict[str, Check] = {}
    for check in (c for row in checks for c in row):
        if check.name not in found or (found[check.name].ok and not check.ok):
            found[check.name] = check
    return tuple(found.values())
