"""The loop, the run folder, resuming, and live kNN."""

import json

import pytest
import torch

import explore as ex
from explore.evaluate import embed, knn_accuracy
from explore.recorder import Recorder
from explore.results import wilson
from explore.runfolder import Run, build_encoder, open_run
from explore.training import (
    KNNProbe,
    contrast_settings,
    make_optimizer,
    make_stepper,
    make_views,
    resolve_device,
    resolve_precision,
    set_learning_rate,
    train,
)

TINY = {"width": 8, "epochs": 2, "batch_size": 64, "train_images": 256, "knn_images": 200, "warmup_epochs": 0.5}


@pytest.fixture(scope="module")
def data():
    return ex.load("fashion")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAE_RUNS", str(tmp_path))
    return tmp_path


def weights(run):
    return run.encoder().state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def timeless(run):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in run.rows()]


@pytest.mark.parametrize("attack", ex.config.ATTACK_NAMES)
def test_every_method_trains_and_its_loss_falls(data, attack):
    config = ex.TrainConfig(**{**TINY, "attack": attack, "steps": 2, "epochs": 3})
    rows = list(train(config, data, log_every=2))
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0] < rows[-1]["chance"] * 1.1
    assert ("loss_adv" in rows[-1]) == (attack != "none")
    assert rows[0]["knn"] is not None and rows[-1]["knn"] > 0.2
    if attack in ("fgsm", "pgd"):
        assert rows[-1]["loss_adv"] > rows[-1]["loss"]


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "ifm", "attack": "none"},
        {"loss": "ifm", "feature_eps": 0.2, "attack": "fgsm", "chunk": 32},
        {"loss": "hcl", "attack": "none", "hardness": 0.5},
        {"loss": "hcl", "attack": "fgsm"},
    ],
)
def test_the_losses_with_options_train_and_are_attacked(data, changes):
    config = ex.TrainConfig(**TINY, **changes)
    rows = list(train(config, data, log_every=2))
    losses = [row["loss"] for row in rows if "loss" in row]
    level = ex.chance(config.batch_size, config.loss, config.temperature, **config.loss_options)
    assert losses[-1] < losses[0] and rows[-1]["chance"] == level and losses[0] < level * 1.1
    assert config.attack == "none" or rows[-1]["loss_adv"] > rows[-1]["loss"]


def test_a_runs_options_reach_the_loss(encoder, data):
    config = ex.TrainConfig(loss="ifm", feature_eps=0.3, attack="none")
    x = data.test[:8][0]
    stepper, settings = make_stepper(config, encoder, True), contrast_settings(config, data)
    z1, z2 = encoder(x.flip(3)), encoder(x)
    wanted = ex.ifm(z1, z2, config.temperature, eps=0.3)
    torch.testing.assert_close(stepper.each(z1, z2), wanted)
    study = ex.studies.PerturbationStudy(encoder, x, reference=x.flip(3), **settings)
    torch.testing.assert_close(study.measure("clean", 0)[0], wanted.detach())
    assert study.provenance["loss_options"] == {"eps": 0.3}
    away = ex.contrast(encoder, x.flip(3), temperature=config.temperature, loss="ifm", loss_options={"eps": 0.3})
    assert study.adversary(8).equal(ex.Attack.fgsm(8 / 255)(x, away))


@pytest.mark.parametrize("stop_after", [1, 3, 4, 6])
def test_a_resumed_run_equals_an_uninterrupted_one(data, root, stop_after):
    config = ex.TrainConfig(**TINY)
    whole = Run.create(config, name="whole")
    list(train(config, data, run=whole, log_every=3))
    parts, steps = Run.create(config, name="parts"), iter(range(1, 99))
    list(train(config, data, run=parts, log_every=3, should_stop=lambda: next(steps) == stop_after))
    assert parts.status["state"] == "stopped"
    list(train(config, data, run=parts, log_every=3, resume=True))
    assert parts.status["state"] == whole.status["state"] == "done"
    assert same(weights(parts), weights(whole))
    assert timeless(parts) == timeless(whole)


def test_a_crash_costs_one_epoch_at_most(data, root):
    config = ex.TrainConfig(**TINY)
    whole, crashed = Run.create(config, name="whole"), Run.create(config, name="crashed")
    list(train(config, data, run=whole, log_every=1))
    rows = train(config, data, run=crashed, log_every=1)
    for row in rows:
        if row["step"] == 6:  # in the second epoch; nothing is saved after step 4
            break
    rows.close()
    with open(crashed.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 7, "los')  # the line that was being written
    list(train(config, data, run=crashed, log_every=1, resume=True))
    assert timeless(crashed) == timeless(whole) and same(weights(crashed), weights(whole))


def test_a_run_that_ended_in_its_first_epoch_starts_again(data, root):
    config = ex.TrainConfig(**TINY)
    whole, early = Run.create(config, name="whole"), Run.create(config, name="early")
    list(train(config, data, run=whole, log_every=1))
    rows = train(config, data, run=early, log_every=1)
    assert [next(rows)["step"] for _ in range(3)] == [0, 1, 2]
    rows.close()
    list(train(config, data, run=early, log_every=1, resume=True))
    assert timeless(early) == timeless(whole) and same(weights(early), weights(whole))


def test_a_broken_folder_does_not_hide_the_others(data, root):
    Run.create(ex.TrainConfig(**TINY), name="good")
    (root / "good" / "status.json").write_text("")
    broken = {
        "cut": b"{",
        "not UTF-8": b'{"dataset": "\xff\xfe"}',
        "a list": b"[1, 2]",
        "a number": b"7",
        "digits": b'{"seed": ' + b"9" * 100_000 + b"}",
        "deep": b'{"a":' + b"[" * 100_000,
        "other types": b'{"epochs": [], "arch": 5, "schema": "x"}',
        "no numbers": b'{"width": "wide", "epochs": null}',
    }
    for name, content in broken.items():
        (root / name).mkdir()
        (root / name / "config.json").write_bytes(content)
    (root / "no file").mkdir()
    (root / "no file" / "config.json").mkdir()
    table = ex.runs().set_index("run")
    assert table.state["good"] == "unknown"
    for name in (*broken, "no file"):
        assert table.state[name] == "damaged" and "\n" not in table.why[name] and name in table.why[name], name
        with pytest.raises(ex.UserError):
            open_run(name)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[]", b"7", b"[" * 100_000, b'{"step": 1}\n3\n', b""])
@pytest.mark.parametrize("name", ["env.json", "status.json", "metrics.jsonl"])
def test_a_damaged_file_costs_its_run_alone(root, name, content):
    Run.create(ex.TrainConfig(**TINY), name="bad")
    Run.create(ex.TrainConfig(**TINY), name="good")
    (root / "bad" / name).write_bytes(content)
    table = ex.runs().set_index("run")
    assert table.state["good"] == "new" and table.state["bad"] in ("new", "unknown", "damaged")


def test_a_size_that_no_memory_has_is_refused(root):
    run = Run.create(ex.TrainConfig(**TINY), name="small")
    run.save_encoder(build_encoder(run.config), 1)
    config = json.loads((root / "small" / "config.json").read_text())
    (root / "small" / "config.json").write_text(json.dumps(config | {"width": 10**6}))
    with pytest.raises(ex.UserError, match="another network than its config"):
        open_run("small").encoder()


def test_same_seed_same_run_other_seed_other_run(data):
    def last(seed):
        return list(train(ex.TrainConfig(**{**TINY, "seed": seed}), data))[-1]["loss"]

    assert last(0) == last(0) != last(1)


def test_the_folder_describes_itself(data, root):
    config = ex.TrainConfig(**{**TINY, "epochs": 1}, eps=8 / 255)
    run = Run.create(config)
    list(train(config, data, run=run))
    assert run.name == "fashion-resnet10-fgsm-eps8-s0"
    assert {p.name for p in run.path.iterdir()} - {".lock"} == {
        *("config.json", "env.json", "status.json", "metrics.jsonl", "encoder.safetensors", "resume.safetensors")
    }
    again = open_run(run.name)
    assert again.config == config
    env = json.loads((run.path / "env.json").read_text())
    assert (
        env["versions"]["torch"]
        and env["device"] == "cpu"
        and env["data"]
        and env["precision"] in ("float32", "bfloat16")
    )
    encoder = again.encoder()
    assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())
    table = ex.runs()
    row = table[table.run == run.name].iloc[0]
    assert (row.state, row.epochs, row.eps) == ("done", 1, 8) and row.knn == again.metrics.knn.iloc[-1]


def test_no_two_runs_in_one_folder_and_no_foreign_files(data, root, tmp_path):
    run = Run.create(ex.TrainConfig(**TINY), name="mine")
    with pytest.raises(ex.UserError, match=r"exists.*--resume"):
        Run.create(ex.TrainConfig(**TINY), name="mine")
    with pytest.raises(ex.UserError, match="Did you mean mine"):
        open_run("mind")
    with pytest.raises(ex.UserError, match="plain name"):
        Run.create(ex.TrainConfig(**TINY), name="../out")
    with pytest.raises(ex.UserError, match="There is no file"):
        run.encoder()
    (run.path / "encoder.safetensors").write_bytes(b"not weights")
    with pytest.raises(ex.UserError, match="not a complete safetensors"):
        run.encoder()
    other = ex.Encoder("resnet18", width=8)
    run.save_encoder(other, 1)
    with pytest.raises(ex.UserError, match="another network"):
        run.encoder()
    (run.path / "config.json").write_text('{"schema": 1, "epoch": 3}')
    with pytest.raises(ex.UserError, match="Did you mean epochs"):
        open_run(run.path)
    (run.path / "config.json").write_text('{"schema": 99}')
    with pytest.raises(ex.UserError, match="schema 99"):
        open_run(run.path)
    (run.path / "config.json").write_text("{")
    with pytest.raises(ex.UserError, match="not a run's config"):
        open_run(run.path)
    with pytest.raises(ex.UserError, match="There is no run"):
        open_run(tmp_path / "nowhere")


def test_without_an_adversary_there_is_no_eps():
    assert ex.TrainConfig(attack="none", eps=4 / 255) == ex.TrainConfig.simclr()


def test_gray_data_get_gray_adversaries_and_gray_views(data):
    encoder = ex.Encoder("resnet10", width=8)
    assert data.gray and make_stepper(ex.TrainConfig(), encoder, data.gray).attack.gray is True
    assert make_stepper(ex.TrainConfig(gray=False), encoder, data.gray).attack.gray is False
    assert make_views(ex.TrainConfig(), data).gray_p == 0


def test_paper_code_is_the_authors_setting():
    c = ex.TrainConfig.paper_code()
    step = make_stepper(c, ex.Encoder("resnet10", width=8))
    assert (c.arch, c.width, c.stem, c.batch_size, c.epochs, c.lr) == ("resnet18", 64, "cifar", 256, 100, 3e-4)
    assert step.authors and step.attack.eps * 2 == 0.03 and step.attack.clamp is None and step.autocast is None
    assert (c.temperature, c.alpha, c.bn_adv_momentum, c.weight_decay, c.cosine) == (0.5, 1.0, 0.01, 0.0, False)
    assert ex.TrainConfig.from_dict(json.loads(c.to_json())) == c


def test_knn_is_the_brute_force_vote(generator):
    train_h, test_h = torch.randn(60, 5, generator=generator), torch.randn(30, 5, generator=generator)
    y, truth = torch.randint(3, (60,), generator=generator), torch.randint(3, (30,), generator=generator)
    right = 0
    for h, t in zip(test_h, truth, strict=True):
        cos = torch.nn.functional.cosine_similarity(train_h, h[None])
        votes = [0.0, 0.0, 0.0]
        for i in cos.argsort(descending=True)[:7]:
            votes[int(y[i])] += float((cos[i] / 0.2).exp())
        right += votes.index(max(votes)) == int(t)
    for chunk in (4, 1000):
        assert knn_accuracy(train_h, y, test_h, truth, k=7, temperature=0.2, chunk=chunk).accuracy == right / 30
    found = knn_accuracy(train_h, y, test_h, truth, k=999)
    assert found.k == 60 and found.interval[0] < found.accuracy < found.interval[1]


def test_wilsons_interval():
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_embed_is_clean_eval_and_leaves_the_mode(encoder, data):
    encoder.train()
    before = encoder.trunk.bn1.running_mean.clone()
    h, y = embed(encoder, data.test.take(70, ex.seeded(0)), batch_size=32)
    assert encoder.training and torch.equal(encoder.trunk.bn1.running_mean, before)
    x, labels = data.test.take(70, ex.seeded(0))[:]
    assert torch.equal(y, labels)
    torch.testing.assert_close(h, encoder.eval().features(x).detach())
    assert embed(encoder, x, "z")[0].shape == (70, 16)


def test_bad_input_in_one_sentence(data, encoder):
    with pytest.raises(ex.UserError, match=r"finds no CUDA GPU|not tested"):
        resolve_device("cuda:99" if not torch.cuda.is_available() else "tpu")
    with pytest.raises(ex.UserError, match="device is 'auto'"):
        resolve_device("gpu please")
    with pytest.raises(ex.UserError, match="larger than the 100 training images"):
        list(train(ex.TrainConfig(train_images=100, batch_size=128), data))
    with pytest.raises(ex.UserError, match="Did you mean fgsm"):
        ex.TrainConfig(attack="fgsn")
    with pytest.raises(ex.UserError, match="no setting 'epoch'"):
        ex.TrainConfig().with_(epoch=3)
    with pytest.raises(ex.UserError, match="lr must be"):
        ex.TrainConfig(lr=-1)
    with pytest.raises(ex.UserError, match="what is 'h'"):
        embed(encoder, data.test, "x")
    with pytest.raises(ex.UserError, match="must be finite"):
        knn_accuracy(torch.full((4, 2), torch.nan), torch.zeros(4).long(), torch.ones(2, 2), torch.zeros(2).long())
    with pytest.raises(ex.UserError, match="expected 4 labels"):
        knn_accuracy(torch.ones(4, 2), torch.zeros(3).long(), torch.ones(2, 2), torch.zeros(2).long())


def test_another_device_of_torch_is_taken_by_name_with_a_warning(monkeypatch):
    with pytest.raises(ex.UserError, match="device 'xpu' cannot be used with this torch"):
        resolve_device("xpu")
    zeros = torch.zeros
    monkeypatch.setattr("explore.training.torch.zeros", lambda *size, device: zeros(*size))  # as on a Mac
    with pytest.warns(UserWarning, match="device 'mps' was not tested"):
        assert resolve_device("mps").type == "mps"


def test_a_cpu_that_is_held_to_avx2_computes_in_fp32(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    found = []
    for kind in ("AVX512", "AVX2"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda kind=kind: kind)
        found.append(resolve_precision("auto", torch.device("cpu")))
    assert found == [torch.bfloat16, None]


def test_a_loss_that_is_not_a_number_ends_the_training(data, root, monkeypatch):
    import explore.training as training

    def broken(encoder, images, *_, **__):
        return torch.zeros(len(images), 2), torch.zeros(len(images)).long()

    config = ex.TrainConfig(**TINY)
    run = Run.create(config)
    monkeypatch.setattr(training, "embed", broken)
    monkeypatch.setattr(training.Views, "apply", lambda self, x, params: x * torch.nan)
    with pytest.raises(ex.UserError, match="lower --lr"):
        list(train(config, data, run=run))
    assert not (run.path / "encoder.safetensors").exists()  # nothing broken is saved


def test_no_two_classes_no_knn(data):
    from dataclasses import replace

    one = replace(data, classes=["all"])
    assert KNNProbe(ex.TrainConfig(**TINY), one)(ex.Encoder("resnet10", width=8)) is None


def test_a_run_is_handed_on_in_half_precision_without_paths_of_this_machine(tmp_path):
    run = Run.create(ex.TrainConfig.smoke(data_dir=str(tmp_path / "mine"), dataset="cifar10"), root=tmp_path)
    run.save_encoder(build_encoder(run.config), 7)
    run.append({"step": 7, "loss": 1.0})
    place = str(tmp_path / "mine" / "cifar-10-batches-py")
    run.note_env(data={"path": place, "name": "cifar10"}, warnings=[f"CIFAR-10 in {place} is a copy"])
    given = run.hand_on(tmp_path / "shipped", argv=["again"])
    text = b"".join(path.read_bytes() for path in given.path.iterdir())
    assert str(tmp_path).encode() not in text and b"cifar-10-batches-py is a copy" in text
    assert given.config == run.config.with_(data_dir=None) and given.env["argv"] == ["again"]
    assert given.status == {"state": "done", "step": 7} and given.rows() == run.rows()
    for name, weight in given.encoder().state_dict().items():
        assert torch.equal(weight, run.encoder().state_dict()[name].half().to(weight.dtype)), name
    assert str(tmp_path) in (run.path / "env.json").read_text()  # the run itself is as it was


def test_the_strong_preset_is_the_public_recipe():
    """github.com/dkobak/simclr-cifar10: what its file sets, by the names of the settings here."""
    c = ex.TrainConfig.strong(attack="none")
    views = make_views(c, ex.load("emoji"))
    assert (views.scale, views.flip, views.jitter_p, views.gray_p, views.blur_p) == ((0.2, 1.0), 0.5, 0.8, 0.1, 0.0)
    assert views.jitter == pytest.approx((0.4, 0.4, 0.4, 0.1)) and views.crop == "torchvision"
    with torch.device("meta"):
        net = build_encoder(c)
    assert [layer.out_features for layer in net.projector if hasattr(layer, "out_features")] == [1024, 128]
    optimizer = make_optimizer(c, ex.Encoder("resnet10", width=4))
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["momentum"] == 0.9
    assert {group["weight_decay"] for group in optimizer.param_groups} == {5e-4}  # batch norms' too
    assert set_learning_rate(optimizer, c, 0, 97) == 0.06 * 512 / 256
    assert set_learning_rate(optimizer, c, 9699, 97) < 1e-4 and (c.epochs, c.temperature) == (100, 0.5)
    assert ex.TrainConfig.strong().method == "CLAE (fgsm)"


def test_averaged_losses_have_a_gradient_of_simclrs_size():
    """Half of the sum's for alpha = 1, whose gradient has two losses; the adversary is the same."""
    config = ex.TrainConfig(arch="resnet10", width=4, precision="fp32", alpha=1.0)
    v1, v2 = torch.rand(2, 8, 3, 32, 32, generator=ex.seeded(0))
    found = []
    for averaged in (False, True):
        net = build_encoder(config)
        done = make_stepper(config.with_(averaged=averaged), net.train())(v1, v2, ex.seeded(0))
        found.append((done, [p.grad for p in net.parameters() if p.grad is not None]))
    (summed, whole), (mean, half) = found
    assert torch.equal(summed.x_adv, mean.x_adv) and torch.equal(summed.loss, mean.loss)
    for a, b in zip(whole, half, strict=True):
        torch.testing.assert_close(a / 2, b, rtol=1e-3, atol=1e-6)


def test_savings_that_take_long_are_made_seldom(tmp_path, monkeypatch):
    config = ex.TrainConfig.smoke(epochs=2)
    net = build_encoder(config)
    recorder = Recorder(Run.create(config, root=tmp_path), net, make_optimizer(config, net), torch.zeros(3), 100)
    now = [0.0]
    monkeypatch.setattr("explore.recorder.time.perf_counter", lambda: now[0])
    saved = []

    def save_resume(*_):
        saved.append(now[0])
        now[0] += cost

    monkeypatch.setattr(Run, "save_resume", save_resume)
    cost = 0.1
    for _ in range(3):
        now[0] += 0.2
        recorder.save(1, last=False)
    assert len(saved) == 3  # quick: at every epoch's end
    cost = 2.0
    for _ in range(60):
        now[0] += 1.0
        recorder.save(2, last=False)
    assert 4 <= len(saved) <= 6  # one in forty seconds
    recorder.save(3)
    assert len(saved) >= 5 and saved[-1] == pytest.approx(now[0] - cost)  # the last is always made


def test_a_run_whose_process_is_gone_is_stopped(root):
    run = Run.create(ex.TrainConfig(**TINY), name="killed")
    (root / "killed" / "status.json").write_text(json.dumps({"state": "running", "pid": 2**22 + 7}))
    assert run.status["state"] == "stopped" and ex.runs().set_index("run").state["killed"] == "stopped"
    lock = run.hold()
    assert run.held and run.status["state"] == "running"
    with pytest.raises(ex.UserError, match="being trained by another process"):
        run.hold()
    lock.release()
    assert not run.held


def test_a_training_that_was_dropped_lets_the_next_one_write(root, data):
    config = ex.TrainConfig(**TINY)
    run = Run.create(config, name="dropped")
    rows = train(config, data, run=run, log_every=1)
    next(rows)
    assert run.held
    (run.path / ".config.json.1993.tmp").write_text("{")  # as a kill in the middle of a saving leaves it
    rows.close()
    del rows
    assert not run.held
    list(train(config, data, run=run, resume=True))
    assert run.status["state"] == "done" and not run.held and not list(run.path.glob("*.tmp"))
