"""`TrainConfig`: settings that follow from others, copies with changes, JSON."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import explore as ex
from explore.config import ATTACK_NAMES, TrainConfig, recipe
from explore.experiments.cell import Cell
from explore.losses import LOSSES

VALUES = {
    "dataset": st.sampled_from(["fashion", "fashion-mnist", "cifar10", "stl10", "folder:/my/cats"]),
    "attack": st.sampled_from(ATTACK_NAMES),
    "eps": st.sampled_from([None, 0.0, 4 / 255, 8 / 255]),
    "crop_min": st.sampled_from([None, 0.2, 0.35, 0.5]),
    "flip": st.sampled_from([None, False, True]),
    "gaussian_by": st.sampled_from(["std", "variance"]),
    "epochs": st.integers(1, 9),
    "seed": st.integers(0, 3),
}
CHANGES = st.lists(st.fixed_dictionaries({}, optional=VALUES), max_size=6)


@settings(max_examples=100, deadline=None)
@given(CHANGES)
def test_copies_with_changes_equal_the_config_made_at_once(changes):
    config, final = TrainConfig(), {}
    for change in changes:
        config, final = config.with_(**change), {**final, **change}
        again = TrainConfig.from_dict(json.loads(config.to_json()))
        assert again == config and again.to_dict() == config.to_dict()
    once = TrainConfig(**final)
    assert config == once and hash(config) == hash(once) and config.label == once.label
    for more in ({"dataset": "cifar10"}, {"dataset": "fashion"}, {"attack": "pgd"}, {"attack": "none"}):
        assert config.with_(**more).to_dict() == once.with_(**more).to_dict() == TrainConfig(**final | more).to_dict()
    assert Cell(config).key("images") == Cell(once).key("images")


@settings(max_examples=50, deadline=None)
@given(CHANGES)
def test_a_saved_config_goes_on_as_it_did(changes):
    """What was given stays given over JSON, where it differs from what follows anyway."""
    final = {name: value for change in changes for name, value in change.items()}
    config = TrainConfig(**final)
    again = TrainConfig.from_dict(config.to_dict())
    for dataset in ("fashion", "cifar10"):
        moved = again.with_(dataset=dataset)
        for name in ("crop_min", "flip"):
            kept = getattr(config, name) != recipe(config.dataset)[name]
            assert getattr(moved, name) == (getattr(config, name) if kept else recipe(dataset)[name])


def test_a_dataset_brings_its_recipe_and_an_attack_its_eps():
    config = TrainConfig()
    assert (config.crop_min, config.flip, config.eps) == (0.5, False, 4 / 255)
    moved = config.with_(dataset="cifar10")
    assert (moved.crop_min, moved.flip) == (0.2, True) and moved == TrainConfig(dataset="cifar10")
    assert config.with_(dataset="cifar10", crop_min=0.35).with_(dataset="fashion").crop_min == 0.35
    plain = TrainConfig.simclr()
    assert plain.eps == 0 and plain.with_(attack="fgsm") == TrainConfig.clae()
    assert plain.with_(eps=8 / 255).eps == 0 and plain.with_(eps=8 / 255).with_(attack="pgd").eps == 8 / 255
    assert TrainConfig(attack="fgsm", eps=0).eps == 0
    with pytest.raises(ex.UserError, match=r"Did you mean 8/255\?"):
        plain.with_(eps=8)


@pytest.mark.parametrize("name", ["demo/simclr", "demo/clae", "demo/gaussian"])
def test_a_shipped_runs_config_opens_as_it_was_written_and_follows_a_change(name):
    run = ex.open_run(name)
    written = json.loads((run.path / "config.json").read_text())
    assert {**run.config.to_dict(), **written} == run.config.to_dict()
    moved = run.config.with_(dataset="cifar10", attack="fgsm", eps=None)
    assert (moved.crop_min, moved.flip, moved.eps) == (0.2, True, 4 / 255)


def test_options_of_a_loss():
    config = ex.TrainConfig(feature_eps=0.2, hardness=2.0)
    given = [config.with_(loss=name).loss_options for name in ex.config.CHOICES["loss"]]
    assert given == [{}, {}, {}, {"eps": 0.2}, {"beta": 2.0}]
    assert tuple(LOSSES) == ex.config.CHOICES["loss"]
    for name in ("feature_eps", "hardness"):
        for wrong in (-0.1, math.nan, math.inf):
            with pytest.raises(ex.UserError, match=f"^{name} must be 0 or more, got {wrong}; 0 gives NT-Xent"):
                config.with_(**{name: wrong})


@pytest.mark.parametrize(
    "name, value, kind",
    [
        ("eps", "8/255", "a number or None"),
        ("epochs", "five", "a whole number"),
        ("epochs", 2.5, "a whole number"),
        ("width", math.nan, "a whole number"),
        ("lr", None, "a number"),
        ("lr", True, "a number"),
        ("crop_min", "big", "a number or None"),
        ("hardness", "2", "a number"),
        ("chunk", [], "a whole number or None"),
        ("compile", 1, "true or false"),
        ("dataset", 5, "text"),
    ],
)
def test_a_setting_of_another_kind_is_one_sentence(name, value, kind):
    """From JSON; the shape checks of the tests refuse it in the constructor already."""
    with pytest.raises(ex.UserError, match=rf"^{name} must be {kind}, got {re.escape(repr(value))}\."):
        ex.TrainConfig.from_dict({name: value})
    with pytest.raises(ex.UserError, match=rf"^{name} must be {kind}"):
        ex.TrainConfig().with_(**{name: value})


def test_numbers_of_other_kinds_are_read():
    c = ex.TrainConfig.from_dict({"epochs": 3.0, "lr": 1, "width": np.int64(8), "weight_decay": np.float32(0.5)})
    assert (c.epochs, c.lr, c.width, c.weight_decay) == (3, 1.0, 8, 0.5)
    assert [type(v) for v in (c.epochs, c.lr, c.width, c.weight_decay)] == [int, float, int, float]
    assert ex.TrainConfig.from_dict(json.loads(c.to_json())) == c
    with pytest.raises(ex.UserError, match="schema is a whole number"):
        ex.TrainConfig.from_dict({"schema": "x"})
