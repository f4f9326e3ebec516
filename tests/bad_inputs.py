"""What the public functions say to bad input: `python tests/bad_inputs.py` writes docs/bad-inputs.csv.

Run by itself, without the import hook of the tests, which would refuse many of these before the
library sees them: a user has no such hook.
"""

import csv
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import explore as ex

_RUNS = tempfile.TemporaryDirectory()
os.environ["CLAE_RUNS"] = _RUNS.name  # a name is compared with those of the shipped runs alone

FILE = Path(__file__).resolve().parent.parent / "docs" / "bad-inputs.csv"
EPS = 8 / 255

torch.manual_seed(0)
x = torch.rand(4, 3, 16, 16)
encoder = ex.Encoder("resnet10", width=4, stem="small", proj_dim=8).eval()
head = nn.Linear(encoder.feature_dim, 3)
h, y = torch.rand(12, 6), torch.arange(12) % 3
probe = ex.Probe(l2=1.0).fit(h, y)
z = torch.rand(4, 8)
split = ex.load("fashion").test.take(4)
means = lambda images: images.mean((1, 2, 3))  # noqa: E731


def spoilt(value: torch.Tensor, number: float) -> torch.Tensor:
    value = value.clone()
    value.view(-1)[3] = number
    return value


IMAGES = {
    "uint8": (x * 255).byte(),
    "int64": (x * 255).long(),
    "bool": x > 0.5,
    "complex": x.to(torch.complex64),
    "0 to 255": x * 255,
    "normalised by 0.5, 0.25": (x - 0.5) / 0.25,
    "-0.1 to 1.1": x * 1.2 - 0.1,
    "channels last": x.permute(0, 2, 3, 1),
    "one image without a batch axis": x[0],
    "one channel without the others": x[0, 0],
    "five axes": x[None],
    "no images": x[:0],
    "no pixels": x[..., :0],
    "a NaN": spoilt(x, math.nan),
    "an infinity": spoilt(x, math.inf),
    "a NumPy array": x.numpy(),
    "a list": x.tolist(),
    "None": None,
    "a file's name": "cat.png",
    "a pair (x, y)": (x, y),
}
IMAGE_DOORS: dict[str, Callable[[Any], Any]] = {
    "Attack.fgsm(eps)(x, objective)": lambda v: ex.Attack.fgsm(EPS)(v, means),
    "Attack.pgd(eps)(x, objective)": lambda v: ex.Attack.pgd(EPS, steps=2)(v, means),
    "Noise.sign(eps)(x)": lambda v: ex.Noise.sign(EPS)(v),
    "embed(encoder, x)": lambda v: ex.embed(encoder, v),
    "perturb(encoder, x, eps)": lambda v: ex.perturb(encoder, v, EPS),
    "contrast(encoder, reference)": lambda v: ex.contrast(encoder, v),
    "similarity(encoder, reference)": lambda v: ex.similarity(encoder, v),
    "attribute(encoder, x, target)": lambda v: ex.attribute(encoder, v, means, "saliency"),
    "studies.what_it_sees(encoder, x, eps)": lambda v: ex.studies.what_it_sees(encoder, v, EPS, reference="view"),
    "two_views(views, x)": lambda v: ex.two_views(ex.Views(size=16), v),
}
LABELS = {
    "a negative": [0, 1, -1, 2] * 3,
    "a NaN": [0.0, 1.0, math.nan, 2.0] * 3,
    "an infinity": torch.tensor([0.0, 1.0, math.inf, 2.0] * 3),
    "halves": [0.5, 1.0, 0.0, 2.0] * 3,
    "complex": torch.zeros(12, dtype=torch.complex64),
    "one too few": [0, 1, 2] * 3 + [0, 1],
    "probabilities": torch.full((12, 3), 1 / 3),
    "two classes an image": torch.ones(12, 3, dtype=torch.long),
    "None among them": [0, 1, None, 2] * 3,
    "names and numbers": ["cat", 1, "dog", 2] * 3,
    "rows of different lengths": [[0], [0, 1], [1], [2]] * 3,
    "one number": 3,
    "None": None,
    "a string": "cat",
    "a dict": dict.fromkeys(range(12), 0),
    "none": [],
}
LABEL_DOORS: dict[str, Callable[[Any], Any]] = {
    "Probe.fit(h, y)": lambda v: ex.Probe().fit(h, v),
    "Probe.score(h, y)": lambda v: probe.score(h, v),
    "knn_accuracy(train labels)": lambda v: ex.knn_accuracy(h, v, h, y),
    "knn_accuracy(test labels)": lambda v: ex.knn_accuracy(h, y, h, v),
    "classify(encoder, head, y)": lambda v: ex.classify(encoder, head, v)(x),
    "logit(encoder, head, y)": lambda v: ex.logit(encoder, head, v)(x),
    "take_labels(y, share)": lambda v: ex.take_labels(v, 0.5, ex.seeded(0)),
}
TAKEN = {("take_labels(y, share)", "a negative"), ("take_labels(y, share)", "one too few")}  # groups of any number
FEATURES = {
    "a NaN": spoilt(h, math.nan),
    "an infinity": spoilt(h, math.inf),
    "complex": h.to(torch.complex64),
    "one axis": h[:, 0],
    "maps": h[:, :, None, None],
    "no rows": h[:0],
    "no columns": h[:, :0],
    "a list": h.tolist(),
    "None": None,
    "a string": "h",
}
FEATURE_DOORS: dict[str, Callable[[Any], Any]] = {
    "Probe.fit(h, y)": lambda v: ex.Probe().fit(v, y),
    "Probe.score(h, y)": lambda v: probe.score(v, y),
    "Probe.predict(h)": lambda v: probe.predict(v),
    "knn_accuracy(train)": lambda v: ex.knn_accuracy(v, y, h, y),
    "knn_accuracy(test)": lambda v: ex.knn_accuracy(h, y, v, y),
    "nt_xent(z1, z2)": lambda v: ex.nt_xent(v, v),
    "ifm(z1, z2)": lambda v: ex.ifm(v, v),
    "hcl(z1, z2)": lambda v: ex.hcl(v, v),
}
OBJECTIVES = {
    "NaN": lambda v: means(v) * math.nan,
    "infinity": lambda v: means(v) / 0,
    "a gradient of NaN": lambda v: (means(v) * 0).sqrt(),
    "complex numbers": lambda v: means(v).to(torch.complex64),
    "one number in all": lambda v: v.mean(),
    "two numbers an image": lambda v: v.mean((2, 3))[:, :2],
    "nothing": lambda v: None,
    "a float": lambda v: 1.0,
    "no gradient": lambda v: means(v).detach(),
    "what does not depend on x": lambda v: torch.zeros(len(v)),
    "a weight's loss alone": lambda v: head.weight.sum().expand(len(v)),
    "an error": lambda v: {}["gone"],
    "an error of its own": lambda v: (_ for _ in ()).throw(RuntimeError("it broke")),
    "a change in place": lambda v: means(v.mul_(2)),
    "two arguments wanted": lambda v, w: means(v),
    "a string instead": "loss",
    "None instead": None,
    "a tensor instead": torch.ones(4),
    "a class instead": dict,
}
OBJECTIVE_DOORS: dict[str, Callable[[Any], Any]] = {
    "Attack.fgsm(eps)(x, objective)": lambda v: ex.Attack.fgsm(EPS)(x, v),
    "Attack.pgd(eps)(x, objective)": lambda v: ex.Attack.pgd(EPS, steps=2)(x, v),
    "attribute(encoder, x, target)": lambda v: ex.attribute(encoder, x, v, "saliency"),
}
ENCODERS = {
    "a run's name": "demo/clae",
    "a pair as open_encoder returns it": (encoder, {}),
    "a run": ex.open_run("demo/clae"),
    "None": None,
    "a dict of weights": encoder.state_dict(),
    "a function": means,
    "a class": nn.Linear,
}
ENCODER_DOORS: dict[str, Callable[[Any], Any]] = {
    "embed(encoder, x)": lambda v: ex.embed(v, x),
    "contrast(encoder, reference)": lambda v: ex.contrast(v, x),
    "classify(encoder, head, y)": lambda v: ex.classify(v, head, [0, 1, 2, 0]),
    "similarity(encoder, reference)": lambda v: ex.similarity(v, x),
    "logit(encoder, head, y)": lambda v: ex.logit(v, head, [0, 1, 2, 0]),
    "perturb(encoder, x, eps)": lambda v: ex.perturb(v, x, EPS),
    "attribute(encoder, x, target)": lambda v: ex.attribute(v, x, means),
    "robust_accuracy(encoder, probe, images)": lambda v: ex.robust_accuracy(v, head, split),
}
POSITIVE: dict[str, Any] = {"0": 0, "-1": -1, "NaN": math.nan, "text": "0.5", "None": None, "a list": [0.5]}
POSITIVE_DOORS: dict[str, Callable[[Any], Any]] = {
    "nt_xent(temperature)": lambda v: ex.nt_xent(z, z, v),
    "ifm(temperature)": lambda v: ex.ifm(z, z, v),
    "chance(temperature)": lambda v: ex.chance(4, temperature=v),
    "contrast(temperature)": lambda v: ex.contrast(encoder, x, temperature=v),
    "knn_accuracy(temperature)": lambda v: ex.knn_accuracy(h, y, h, y, temperature=v),
    "robust_accuracy(temperature)": lambda v: ex.robust_accuracy(encoder, head, split, temperature=v),
    "perturb(temperature)": lambda v: ex.perturb(encoder, x, EPS, temperature=v),
    "uniformity(t)": lambda v: ex.uniformity(z, v),
}
WHOLE: dict[str, Any] = {"0": 0, "-3": -3, "1.5": 1.5, "NaN": math.nan, "text": "4", "a list": [4]}
WHOLE_DOORS: dict[str, Callable[[Any], Any]] = {
    "Attack.pgd(steps)": lambda v: ex.Attack.pgd(EPS, steps=v),
    "knn_accuracy(k)": lambda v: ex.knn_accuracy(h, y, h, y, k=v),
    "embed(batch_size)": lambda v: ex.embed(encoder, x, batch_size=v),
    "Probe(epochs)": lambda v: ex.Probe(epochs=v),
    "chance(n)": lambda v: ex.chance(v),
    "attribute(steps)": lambda v: ex.attribute(encoder, x, means, steps=v),
    "attribute(window)": lambda v: ex.attribute(encoder, x, means, "occlusion", window=v),
    "robust_accuracy(steps)": lambda v: ex.robust_accuracy(encoder, head, split, steps=v),
    "robust_accuracy(restarts)": lambda v: ex.robust_accuracy(encoder, head, split, restarts=v),
    "Encoder(width)": lambda v: ex.Encoder("resnet10", width=v),
    "Encoder(proj_dim)": lambda v: ex.Encoder("resnet10", width=4, proj_dim=v),
    "studies.AtlasStudy(images)": lambda v: ex.studies.AtlasStudy(encoder, split, images=v),
    "load(size)": lambda v: ex.load("fashion", size=v),
    "Split.take(n)": lambda v: split.take(v),
}
EPSILONS: dict[str, Any] = {
    "8": 8,
    "-1/255": -1 / 255,
    "NaN": math.nan,
    "infinity": math.inf,
    "text": "8/255",
    "None": None,
    "a list": [EPS],
}
EPS_DOORS: dict[str, Callable[[Any], Any]] = {
    "Attack.fgsm(eps)": ex.Attack.fgsm,
    "Attack.rfgsm(eps)": ex.Attack.rfgsm,
    "Attack.ffgsm(eps)": ex.Attack.ffgsm,
    "Attack.pgd(eps)": ex.Attack.pgd,
    "Attack.at(eps)": lambda v: ex.Attack.fgsm(EPS).at(v),
    "Noise.gaussian(eps)": ex.Noise.gaussian,
    "Noise.uniform(eps)": ex.Noise.uniform,
    "perturb(encoder, x, eps)": lambda v: ex.perturb(encoder, x, v),
    "robust_accuracy(eps)": lambda v: ex.robust_accuracy(encoder, head, split, eps=(v,)),
    "studies.what_it_sees(encoder, x, eps)": lambda v: ex.studies.what_it_sees(encoder, x, v, reference="view"),
}
NAMES: dict[str, Any] = {"a near miss": "fsgm", "nothing": "", "None": None, "a number": 3, "a list": ["fgsm"]}
NAME_DOORS: dict[str, Callable[[Any], Any]] = {
    "attack_named(name)": lambda v: ex.attack_named(v, EPS),
    "perturb(attack)": lambda v: ex.perturb(encoder, x, EPS, attack=v),
    "perturb(reference)": lambda v: ex.perturb(encoder, x, EPS, reference=v),
    "perturb(match)": lambda v: ex.perturb(encoder, x, EPS, match=v),
    "contrast(loss)": lambda v: ex.contrast(encoder, x, loss=v),
    "contrast(branch)": lambda v: ex.contrast(encoder, x, branch=v),
    "chance(loss)": lambda v: ex.chance(4, v),
    "attribute(method)": lambda v: ex.attribute(encoder, x, means, v),
    "attribute(baseline)": lambda v: ex.attribute(encoder, x, means, baseline=v),
    "attribute(rows)": lambda v: ex.attribute(encoder, x, means, rows=v or []),
    "robust_accuracy(attacks)": lambda v: ex.robust_accuracy(encoder, head, split, attacks=(v,)),
    "embed(what)": lambda v: ex.embed(encoder, x, v),
    "Encoder(arch)": lambda v: ex.Encoder(v),
    "Encoder(stem)": lambda v: ex.Encoder("resnet10", stem=v),
    "Attack(norm)": lambda v: ex.Attack.fgsm(EPS, norm=v),
    "Probe(protocol)": lambda v: ex.Probe(protocol=v),
    "load(name)": ex.load,
    "open_run(name)": ex.open_run,
    "open_encoder(what)": ex.open_encoder,
    "Views(crop)": lambda v: ex.Views(crop=v),
    "TrainConfig(attack)": lambda v: ex.TrainConfig(attack=v),
    "TrainConfig(loss)": lambda v: ex.TrainConfig(loss=v),
    "patch_encoder(kind)": lambda v: ex.patch_encoder(x, v),
    "seeded(seed)": ex.seeded,
}
MEANT = {("contrast(encoder, reference)", "one channel without the others")}  # 16 embeddings of 16 numbers
MEANT |= {("attribute(rows)", "a number"), ("seeded(seed)", "a number"), ("Attack(norm)", "None")}
SINGLE: dict[tuple[str, str], Callable[[], Any]] = {
    **{
        ("parse_eps(text)", text[:20] or "nothing"): lambda text=text: ex.parse_eps(text)
        for text in ("8", "eight", "", "8//255", "1/2/3", "8/0", "-1/255", "nan", "1e400", "1e99999999999", "x/255")
    },
    ("parse_eps(text)", "None"): lambda: ex.parse_eps(None),
    ("parse_eps(text)", "a list"): lambda: ex.parse_eps([]),
    ("attribute(rows)", "out of range"): lambda: ex.attribute(encoder, x, means, rows=[99]),
    ("attribute(rows)", "halves"): lambda: ex.attribute(encoder, x, means, rows=[0.5]),
    ("attribute(layer)", "a number"): lambda: ex.attribute(encoder, x, ex.similarity(encoder, x), "gradcam", layer=3),
    ("attribute(layer)", "with another method"): lambda: ex.attribute(encoder, x, means, layer="trunk.layer1"),
    ("attribute(layer)", "unknown"): lambda: ex.attribute(
        encoder, x, ex.similarity(encoder, x), "gradcam", layer="layer9"
    ),
    ("attribute(steps)", "ten million"): lambda: ex.attribute(encoder, x, means, steps=10_000_000),
    ("attribute(window)", "larger than the image"): lambda: ex.attribute(encoder, x, means, "occlusion", window=17),
    ("attribute(tolerance)", "text"): lambda: ex.attribute(encoder, x, means, tolerance="1 %"),
    ("attribute(baseline)", "another shape"): lambda: ex.attribute(encoder, x, means, baseline=x[:1]),
    ("attribute(baseline)", "a NaN"): lambda: ex.attribute(encoder, x, means, baseline=spoilt(x, math.nan)),
    ("contrast(encoder, reference)", "fewer images"): lambda: ex.contrast(encoder, x[:2])(x),
    ("contrast(loss_options)", "of another loss"): lambda: ex.contrast(encoder, x, loss_options={"beta": 1.0}),
    ("contrast(loss_options)", "text"): lambda: ex.contrast(encoder, x, loss="hcl", loss_options={"beta": "1"}),
    ("classify(encoder, head, y)", "a class too many"): lambda: ex.classify(encoder, head, [0, 1, 2, 3])(x),
    ("classify(encoder, head, y)", "names for a head without"): lambda: ex.classify(encoder, head, list("abcd"))(x),
    ("classify(encoder, head)", "no function"): lambda: ex.classify(encoder, None, [0, 1, 2, 0]),
    ("classify(encoder, head)", "of another width"): lambda: ex.classify(encoder, nn.Linear(5, 3), [0, 1, 2, 0])(x),
    ("classify(encoder, head)", "one logit"): lambda: ex.classify(encoder, lambda h: h[:, 0], [0, 0, 0, 0])(x),
    ("classify(encoder, probe, y)", "another encoder's probe"): lambda: ex.classify(encoder, probe, [0, 1, 2, 0])(x),
    ("Probe.predict(h)", "not fitted"): lambda: ex.Probe().predict(h),
    ("Probe.score(h, y)", "not fitted"): lambda: ex.Probe().score(h, y),
    ("Probe.score(h, y)", "another width"): lambda: probe.score(h[:, :4], y),
    ("Probe.score(h, y)", "a class too many"): lambda: probe.score(h, y + 1),
    ("Probe.score(h, y)", "an unknown name"): lambda: probe.score(h, ["cat"] * 12),
    ("Probe.fit(h, y)", "one class"): lambda: ex.Probe().fit(h, [1] * 12),
    ("Probe.fit(h, y)", "one name"): lambda: ex.Probe().fit(h, ["cat"] * 12),
    ("Probe.fit(classes)", "too few"): lambda: ex.Probe().fit(h, y, classes=["a", "b"]),
    ("Probe.fit(classes)", "a string"): lambda: ex.Probe().fit(h, y, classes="abc"),
    ("Probe.fit(classes)", "none"): lambda: ex.Probe().fit(h, y, classes=[]),
    ("Probe.fit(val)", "features alone"): lambda: ex.Probe().fit(h, y, val=h),
    ("Probe.fit(test)", "of another length"): lambda: ex.Probe(protocol="authors").fit(h, y, test=(h, y[:3])),
    ("Probe(l2)", "0"): lambda: ex.Probe(l2=0),
    ("Probe(l2)", "text"): lambda: ex.Probe(l2="1"),
    ("Probe(held_out)", "1"): lambda: ex.Probe(held_out=1),
    ("Probe(held_out)", "None"): lambda: ex.Probe(held_out=None),
    ("take_labels(share)", "0"): lambda: ex.take_labels(y, 0, None),
    ("take_labels(share)", "10 for 10 %"): lambda: ex.take_labels(y, 10, None),
    ("take_labels(share)", "text"): lambda: ex.take_labels(y, "10 %", None),
    ("take_labels(generator)", "a seed"): lambda: ex.take_labels(y, 0.5, 0),
    ("knn_accuracy(test)", "another width"): lambda: ex.knn_accuracy(h, y, h[:, :4], y),
    ("Attack.fgsm(eps)(generator)", "a seed"): lambda: ex.Attack.fgsm(EPS)(x, means, generator=0),
    ("Noise.sign(eps)(generator)", "a seed"): lambda: ex.Noise.sign(EPS)(x, generator=0),
    ("two_views(generator)", "a seed"): lambda: ex.two_views(ex.Views(), x, 0),
    ("Attack(clamp)", "upside down"): lambda: ex.Attack.fgsm(EPS, clamp=(1.0, 0.0)),
    ("Attack.rfgsm(alpha)", "above eps"): lambda: ex.Attack.rfgsm(EPS, alpha=1.0),
    ("Noise.gaussian(by)", "sd"): lambda: ex.Noise.gaussian(EPS, by="sd"),
    ("match(delta, x)", "no length"): lambda: ex.match(x, x),
    ("match(delta, x)", "both lengths"): lambda: ex.match(x, x, linf=0.1, l2=0.1),
    ("match(delta, x)", "another shape"): lambda: ex.match(x[:2], x, linf=0.1),
    ("match(linf)", "negative"): lambda: ex.match(x, x, linf=-0.1),
    ("match(linf)", "text"): lambda: ex.match(x, x, linf="8/255"),
    ("norms(delta)", "a list"): lambda: ex.norms([1.0]),
    ("norms(delta)", "one axis"): lambda: ex.norms(torch.ones(3)),
    ("nt_xent(z1, z2)", "two lengths"): lambda: ex.nt_xent(z, z[:2]),
    ("nt_xent(z1, z2)", "whole numbers"): lambda: ex.nt_xent(z.long(), z.long()),
    ("ifm(eps)", "negative"): lambda: ex.ifm(z, z, eps=-1),
    ("hcl(beta)", "text"): lambda: ex.hcl(z, z, beta="1"),
    ("hcl(tau_plus)", "1"): lambda: ex.hcl(z, z, tau_plus=1),
    ("alignment(z1, z2)", "two lengths"): lambda: ex.alignment(z, z[:2]),
    ("alignment(z1, z2)", "one axis"): lambda: ex.alignment(z[0], z[0]),
    ("uniformity(z)", "one image"): lambda: ex.uniformity(z[:1]),
    ("uniformity(z)", "a list"): lambda: ex.uniformity(z.tolist()),
    ("robust_accuracy(images)", "a tensor"): lambda: ex.robust_accuracy(encoder, head, x),
    ("robust_accuracy(images)", "a pair (x, y)"): lambda: ex.robust_accuracy(encoder, head, (x, y)),
    ("robust_accuracy(probe)", "None"): lambda: ex.robust_accuracy(encoder, None, split),
    ("robust_accuracy(attacks)", "a string"): lambda: ex.robust_accuracy(encoder, head, split, attacks="pgd"),
    ("robust_accuracy(eps)", "one number"): lambda: ex.robust_accuracy(encoder, head, split, eps=EPS),
    ("robust_accuracy(eps)", "none"): lambda: ex.robust_accuracy(encoder, head, split, eps=()),
    ("studies.AtlasStudy(split)", "a tensor"): lambda: ex.studies.AtlasStudy(encoder, x, images=20),
    ("Views(scale)", "upside down"): lambda: ex.Views(scale=(1.0, 0.2)),
    ("Views(size)", "0"): lambda: ex.Views(size=0),
    ("Views(size)", "text"): lambda: ex.Views(size="32"),
    ("Views(jitter)", "one number"): lambda: ex.Views(jitter=0.8),
    ("Views(flip)", "2"): lambda: ex.Views(flip=2),
    ("two_views(views, x)", "one gray channel"): lambda: ex.two_views(ex.Views(), x[:, :1]),
    ("Encoder(mean)", "two numbers"): lambda: ex.Encoder("resnet10", width=4, mean=(0.5, 0.5)),
    ("Encoder(std)", "0"): lambda: ex.Encoder("resnet10", width=4, std=(0, 0, 0)),
    ("Encoder.features(x)", "one gray channel"): lambda: encoder.features(x[:, :1]),
    ("Encoder.features(x)", "a list"): lambda: encoder.features([1]),
    ("Encoder.features(views)", "3 of 4 images"): lambda: encoder.features(x, views=3),
    ("Encoder.features(branch)", "advers"): lambda: encoder.features(x, branch="advers"),
    ("embed(encoder, x)", "an encoder of one number"): lambda: ex.embed(nn.Flatten(0), x),
    ("TrainConfig.with_(name)", "unknown"): lambda: ex.TrainConfig().with_(epoch=3),
    ("TrainConfig.with_(eps)", "8"): lambda: ex.TrainConfig().with_(eps=8.0),
    ("load(name)", "a path"): lambda: ex.load("/some/folder"),
    ("load(name)", "a folder that is not there"): lambda: ex.load("folder:not/there"),
    ("load(device)", "gpu"): lambda: ex.load("fashion", device="gpu"),
    ("untouched(module)", "a string"): lambda: ex.untouched("encoder").__enter__(),
    ("open_encoder(what)", "a file that is not there"): lambda: ex.open_encoder("not-there.pth"),
    ("open_encoder(what)", "unknown torchvision weights"): lambda: ex.open_encoder("ResNet18_Weights.NOPE"),
    ("patch_encoder(patches)", "odd"): lambda: ex.patch_encoder(x, patches=3),
    ("patch_encoder(size)", "larger than the image"): lambda: ex.patch_encoder(x, size=40, patches=2),
    ("transfer(datasets)", "unknown"): lambda: ex.transfer("demo/clae", datasets=["petz"]),
}
for _name, _bad in {
    "epochs": (0, -1, 1.5, "3", None),
    "batch_size": (1, 0, 2.5, "8"),
    "lr": (0, -1, math.nan, math.inf, "fast"),
    "temperature": (0, -0.5, math.nan, "0.5"),
    "width": (0, 1.5, "64"),
    "seed": (1.5, "0", None),
    "crop_min": (0, 2, math.nan, "0.2"),
    "optimizer": ("adamw", 3),
    "validation": (-1, 0.5),
    "gray_p": (2, "0.2"),
}.items():
    for _value in _bad:
        SINGLE[f"TrainConfig({_name})", repr(_value)] = lambda n=_name, v=_value: ex.TrainConfig(**{n: v})


def calls() -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """(function, input, call) of every bad input."""
    for what, doors, bad in (
        ("images", IMAGE_DOORS, IMAGES),
        ("labels", LABEL_DOORS, LABELS),
        ("features", FEATURE_DOORS, FEATURES),
        ("a function that returns", OBJECTIVE_DOORS, OBJECTIVES),
        ("an encoder", ENCODER_DOORS, ENCODERS),
        ("a number above 0", POSITIVE_DOORS, POSITIVE),
        ("a whole number", WHOLE_DOORS, WHOLE),
        ("eps", EPS_DOORS, EPSILONS),
        ("a name", NAME_DOORS, NAMES),
    ):
        for door, call in doors.items():
            for kind, value in bad.items():
                if (door, kind) not in TAKEN | MEANT:
                    yield door, f"{what}: {kind}", lambda call=call, value=value: call(value)
    yield from ((*where, call) for where, call in SINGLE.items())


def table() -> list[tuple[str, str, str]]:
    """(function, input, sentence), or what went wrong in the sentence's place, in capitals."""
    found = []
    for door, kind, call in calls():
        began = time.perf_counter()
        try:
            call()
            said = "ACCEPTED"
        except ex.UserError as error:
            said = str(error)
        except Exception as error:
            said = f"{type(error).__name__.upper()} {str(error).splitlines()[:1]}"
        if time.perf_counter() - began > 30:
            said = "SLOW"
        for words in (
            r"(?<=raised a RuntimeError )\(a (leaf|view).*?\)(?=;)",
            r"(?<=cannot be used here )\(.*\)(?=: take)",
        ):
            said = re.sub(words, "(torch's words)", said)
        found.append((door, kind, said))
    return found


def main() -> None:
    with open(FILE if len(sys.argv) == 1 else sys.argv[1], "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("function", "input", "what it says"))
        writer.writerows(table())


if __name__ == "__main__":
    main()
