"""Bad input drawn at random: a public function answers, or says one sentence; the command line exits with 2.

`tests/test_doors.py` runs it in a process without the import hook of the tests, as a user's is:
`python -m pytest --noconftest tests/hunted.py`. The draws are the same at every run (`derandomize`);
`CLAE_HUNT=n` draws n fresh ones.
"""

import json
import math
import os
import string

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import explore as ex
from explore.cli import main
from explore.runfolder import Run

FRESH = int(os.environ.get("CLAE_HUNT", 0))


def drawn(n: int):
    """Settings of a test: n draws, always the same ones unless CLAE_HUNT asks for others."""
    return settings(
        max_examples=FRESH or n,
        derandomize=not FRESH,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def answers(call):
    """What a call returns, or None where it said one sentence."""
    try:
        return call()
    except ex.UserError as error:
        said = str(error)
        assert said and "\n" not in said and len(said) < 700, said
        return None


ODD = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.text(max_size=12)),
    *(
        st.binary(max_size=4),
        st.lists(st.floats(), max_size=3),
        st.dictionaries(st.text(max_size=2), st.none(), max_size=1),
    ),
)
NUMBER = st.from_regex(r"[+-]?[0-9]{1,4}(\.[0-9]{0,3})?(e[+-]?[0-9]{1,12})?", fullmatch=True)


@drawn(300)
@given(st.one_of(ODD, NUMBER, st.tuples(NUMBER, NUMBER).map("/".join), st.text("0123456789./eE+- ", max_size=9)))
def test_an_eps_is_a_share_of_the_pixel_range_or_a_sentence(value):
    eps = answers(lambda: ex.parse_eps(value))
    assert eps is None or (isinstance(eps, float) and 0 <= eps <= 1)


SHAPES = st.lists(st.integers(0, 5), max_size=5).map(tuple)
DTYPES = [torch.float32, torch.float64, torch.float16, torch.uint8, torch.int64, torch.bool, torch.complex64]
SCALES = st.sampled_from([1.0, 255.0, -1.0, math.nan, math.inf])


@pytest.fixture(scope="module")
def encoder():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ex.Encoder("resnet10", width=4, stem="small", proj_dim=4).eval()


@drawn(120)
@given(SHAPES, st.sampled_from(DTYPES), SCALES, st.integers(0, 99))
def test_images_of_any_shape_and_kind(encoder, shape, dtype, scale, seed):
    x = (torch.rand(shape, generator=ex.seeded(seed)) * scale).to(dtype)
    attack = ex.Attack.fgsm(8 / 255)
    found = answers(lambda: attack(x, lambda x: x.square().flatten(1).sum(1)))
    if found is not None:
        assert found.shape == x.shape and (found - x).abs().max() <= 8 / 255 + 1e-6 and found.min() >= 0
    for call in (ex.embed, ex.contrast):
        answers(lambda call=call: call(encoder, x))


LABELS = st.one_of(
    *(
        st.lists(kind, max_size=9)
        for kind in (st.integers(-2, 4), st.floats(), st.text(max_size=2), st.booleans(), ODD)
    ),
    st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), max_size=9),
)
FORMS = [list, tuple, np.array, lambda y: np.array(y, dtype=object)]


@drawn(200)
@given(LABELS, st.sampled_from(FORMS), st.sampled_from([8, 8, 8, 5]))
def test_labels_of_any_kind(labels, form, n):
    try:
        y = form(labels)
    except ValueError:  # NumPy's, of lists of several lengths
        return
    h = torch.rand(n, 4, generator=ex.seeded(0))
    for call in (
        lambda: ex.Probe(epochs=1).fit(h, y).score(h, y).top1,
        lambda: ex.knn_accuracy(h, y, h, y, k=1),
    ):
        found = answers(call)
        assert found is None or 0 <= float(getattr(found, "accuracy", found)) <= 1


WORDS = st.one_of(
    st.sampled_from(
        ["train", "probe", "knn", "robust", "transfer", "sweep", "jobs", "embed", "runs", "course", "demo/clae"]
    ),
    st.sampled_from(["--eps", "--attack", "--epochs", "--json", "--name", "--seeds", "--images", "--k", "--device"]),
    st.sampled_from(["8/255", "fgsm", "0", "-1", "nan", "1e999", "", "--", "=", "x" * 300, "\x00", "é"]),
    st.text(string.printable, max_size=6),
)


@drawn(150)
@given(st.lists(WORDS, min_size=1, max_size=4))
def test_a_command_line_of_any_words_ends_in_one_sentence(tmp_path_factory, words):
    if words[0] in ("train", "sweep", "course", "embed", "probe", "knn", "robust", "transfer"):
        words = [*words, "--no-such-option"]  # nothing is trained, written or measured
    root = tmp_path_factory.mktemp("hunt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAE_RUNS", str(root))
        patch.setenv("CLAE_CACHE", str(root))
        patch.chdir(root)
        try:
            status = main(words)
        except SystemExit as left:  # argparse's
            status = left.code
    assert status in (0, 2)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)
FILES = st.sampled_from(["config.json", "metrics.jsonl", "status.json", "env.json", "process.json"])


@drawn(150)
@given(FILES, st.one_of(st.binary(max_size=40), JSON.map(lambda value: json.dumps(value).encode())), st.booleans())
def test_a_run_folder_with_any_content_costs_that_run_alone(tmp_path_factory, name, content, changed):
    root = tmp_path_factory.mktemp("hunt")
    config = ex.TrainConfig(arch="resnet10", width=4)
    for each in ("good", "bad"):
        Run.create(config, name=each, root=root)
    path = root / "bad" / name
    if changed and name == "config.json":  # one setting of an otherwise whole file
        try:
            value = json.loads(content)
        except ValueError:
            return
        settings_of = config.to_dict()
        key = list(settings_of)[len(content) % len(settings_of)]
        content = json.dumps({**settings_of, key: value}).encode()
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAE_RUNS", str(root))
        table = ex.runs()
        assert {"good", "bad"} <= set(table["run"])
        assert answers(lambda: ex.open_run("good")) is not None
        answers(lambda: ex.open_run("bad").rows())
        answers(lambda: ex.open_run("bad").config)
        answers(lambda: ex.open_run("bad").encoder())
