"""Every fast path against the obvious one, and what must not happen inside an epoch on a GPU."""

import builtins
import contextlib
import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import explore as ex
from explore import cuda_graph
from explore.runfolder import build_encoder
from explore.system import keep_memory
from explore.training import (
    make_optimizer,
    make_stepper,
    make_update,
    make_views,
    prepare,
    set_learning_rate,
    train,
)

WIDE = ex.TrainConfig(arch="resnet10", width=64, stem="cifar", precision="fp32", batch_size=8)
SMALL = ex.TrainConfig(width=8, precision="fp32", batch_size=8)


@pytest.fixture
def pair(generator):
    return [torch.rand(8, 3, 32, 32, generator=generator) for _ in range(2)]


def gradients(config, net, pair):
    done = make_stepper(config, net.train())(*pair, ex.seeded(0))
    return done, [p.grad for p in net.parameters() if p.grad is not None]


def test_the_layout_changes_no_gradient(pair):
    """In float64: in float32 a sign of FGSM's step flips here and there with the order of a sum, and the gradients after it with that."""
    plain, laid = build_encoder(WIDE).double(), prepare(WIDE, build_encoder(WIDE).double())
    one, expected = gradients(WIDE, plain, [view.double() for view in pair])
    two, found = gradients(WIDE, laid, [view.double() for view in pair])
    torch.testing.assert_close(two.loss, one.loss, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(two.x_adv, one.x_adv, rtol=0, atol=1e-12)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
    kernels = [p for p in laid.parameters() if p.dim() == 4]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    assert laid.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_fused_optimiser_is_the_plain_one(optimizer, pair):
    config = SMALL.with_(optimizer=optimizer, weight_decay=0.1)
    net = prepare(config, build_encoder(config))  # weights in channels_last, gradients as a step leaves them
    other = copy.deepcopy(net)
    fused, plain = make_optimizer(config, net), make_optimizer(config, other)
    for group in plain.param_groups:
        group["fused"] = False
    assert all(group["fused"] for group in fused.param_groups)
    for _ in range(3):
        fused.zero_grad()
        gradients(config, net, pair)
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            q.grad = p.grad.clone()
        fused.step(), plain.step()
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # from inside dynamo
def test_compiled_branches_switch_without_another_compilation(pair):
    """As `prepare` compiles the trunk, with a backend that keeps the traced graphs: none broken, none new after the first step."""
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    net, other = build_encoder(SMALL), build_encoder(SMALL)
    counter = CompileCounter()
    net.trunk.compile(backend=counter, fullgraph=True, dynamic=False)
    config = SMALL.with_(attack="pgd", steps=2)
    first, found = gradients(config, net, pair)
    compiled = counter.frame_count
    plain, expected = gradients(config, other, pair)
    assert 2 <= compiled <= 6 and torch.equal(first.loss, plain.loss)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    for _ in range(2):
        make_stepper(config, net)(*pair, ex.seeded(1))
    assert counter.frame_count == compiled
    assert net.state_dict().keys() == other.state_dict().keys()


class Waits(TorchDispatchMode):
    """Counts what makes a host wait for its GPU: numbers read from tensors, and results whose size depends on values."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "equal")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.NAMES and not getattr(args[0], "on_host", False):
            self.found.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("attack", ["none", "fgsm", "ffgsm", "pgd", "gaussian"])
def test_a_step_reads_nothing_back_from_the_device(pair, attack):
    config = SMALL.with_(attack=attack, steps=2, clamp=True, gray=False)
    net = prepare(config, build_encoder(config)).train()
    stepper, optimizer = make_stepper(config, net), make_optimizer(config, net)
    sums = torch.zeros(3)
    with Waits() as waits:
        done = stepper(*pair, ex.seeded(0))
        optimizer.step()
        sums += torch.stack([done.loss, done.loss, torch.ones_like(done.loss)])
    assert waits.found == []
    with Waits() as waits:
        float(done.loss)
    assert waits.found == ["_local_scalar_dense"]


def test_views_send_their_draws_without_waiting(monkeypatch, generator):
    """On a GPU only copies to it that wait for nothing: here every copy's arguments are looked at."""
    x = torch.rand(8, 3, 32, 32, generator=generator)
    moved = []
    original = torch.Tensor.to

    def to(self, *args, **kwargs):
        if any(isinstance(a, torch.device) for a in args):
            moved.append(kwargs.get("non_blocking", False))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", to)
    views = make_views(ex.TrainConfig(dataset="cifar10"), ex.load("fashion"))
    views.for_gray()(x, ex.seeded(0)), ex.Views(blur_p=0.5)(x, ex.seeded(1))
    assert len(moved) > 5 and all(moved)


def test_large_batches_train_in_chunks_from_the_command_lines_settings():
    config = ex.TrainConfig(width=8, epochs=1, batch_size=256, chunk=64, train_images=512, knn_images=200)
    rows = list(train(config, ex.load("fashion"), log_every=1))
    assert rows[-1]["step"] == 2 and rows[-1]["loss"] < rows[-1]["chance"]


def test_kept_memory_is_glibcs(monkeypatch):
    assert keep_memory() in (True, False)
    monkeypatch.setattr("sys.platform", "win32")
    assert keep_memory() is False


def test_lars_is_timms(monkeypatch):
    config = SMALL.with_(optimizer="lars")
    real = builtins.__import__

    def walled(name, *args, **kwargs):
        if name.split(".")[0] == "timm":
            raise ModuleNotFoundError("No module named 'timm'", name="timm")
        return real(name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", walled)
        with pytest.raises(ex.UserError, match="pip install timm"):
            make_optimizer(config, build_encoder(config))
    timm = pytest.importorskip("timm.optim", reason="timm, an optional package, is not installed")
    assert isinstance(make_optimizer(config, build_encoder(config)), timm.Lars)


class FakeGraph:
    """What `Recorded` asks of a CUDA graph."""

    def __init__(self):
        self.registered = []

    def register_generator_state(self, generator):
        self.registered.append(generator)


def test_an_update_is_recorded_after_some_calls_and_replayed(monkeypatch):
    log: list[str] = []
    graphs: list[FakeGraph] = []

    class Stream:
        def __init__(self, *_):
            pass

        def wait_stream(self, other):
            log.append("wait")

    @contextlib.contextmanager
    def capture(graph):
        log.append("record")
        graphs.append(graph)
        yield

    for name, fake in {"Stream": Stream, "CUDAGraph": FakeGraph, "graph": capture}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(FakeGraph, "replay", lambda self: log.append("replay"), raising=False)
    seen = []

    def update(v1, v2, generator):
        log.append("run")
        seen.append((v1, v2, generator.initial_seed()))
        return "losses"

    recorded = cuda_graph.Recorded(update, torch.device("cpu"))
    first = [torch.full((4, 3, 8, 8), float(i)) for i in range(8)]
    for i in range(6):
        assert recorded(first[i], first[i + 1], ex.seeded(i)) == "losses"
        assert recorded.generator.initial_seed() == i  # the draws of a replay are the step's own
    eager = ["wait", "run", "wait"]
    assert log == [*eager * cuda_graph.EAGER, "record", "run", "replay", "replay", "replay"]
    assert graphs[0].registered == [recorded.generator]
    assert recorded.views[0].eq(5).all() and recorded.views[1].eq(6).all()  # the memory that a replay reads
    assert seen[-1][0] is recorded.views[0]
    recorded(torch.rand(3, 3, 8, 8), torch.rand(3, 3, 8, 8), ex.seeded(9))  # a smaller batch
    assert log[-3:] == eager


def test_a_learning_rate_that_was_recorded_is_changed_in_place():
    config = SMALL.with_(optimizer="sgd", lr=0.5, epochs=2, warmup_epochs=0.0)
    optimizer = make_optimizer(config, build_encoder(config))
    lr = torch.tensor(0.5)
    for group in optimizer.param_groups:
        group["lr"] = lr
    assert set_learning_rate(optimizer, config, 10, 10) == pytest.approx(0.25)
    assert all(group["lr"] is lr for group in optimizer.param_groups) and lr.item() == pytest.approx(0.25)


def test_a_device_without_cuda_records_nothing():
    assert not cuda_graph.recordable(torch.device("cpu"))
    config = SMALL.with_(compile=True)
    net = build_encoder(config)
    optimizer = make_optimizer(config, net)
    update = make_update(config, net, make_stepper(config, net), optimizer)
    assert not isinstance(update, cuda_graph.Recorded) and isinstance(optimizer.param_groups[0]["lr"], float)
