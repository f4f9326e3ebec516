"""A GPU that is not there: tensors that say they lie on cuda:0, have their values on the CPU, and refuse what a GPU refuses.

Within `pretended()` torch finds one: whatever asks for 'cuda' or 'auto' runs as on a GPU, through the same branches, and fails where
tensors of two devices meet, where a generator is of the wrong one, and where numpy is handed a tensor of the GPU. What a host would
have to wait for is noted. It has no kernels: neither speed nor rounding, nor autocast, nor CUDA graphs can be tested with it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
BETWEEN = {aten.copy_.default, aten._to_copy.default}  # these move values from one device to another
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "_unique2", "equal")


class OnGPU(Tensor):
    """A tensor of the pretended GPU; its values are `behind`, on the CPU. For torch's C++ it is a meta tensor."""

    behind: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)

    @staticmethod
    def __new__(cls, behind: Tensor) -> "OnGPU":
        shape = torch.empty_strided(behind.shape, behind.stride(), dtype=behind.dtype, device="meta")
        self = torch.Tensor._make_subclass(cls, shape, False)
        self.behind = behind
        return self

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, None)

    def __repr__(self, **_: Any) -> str:
        return f"OnGPU({self.behind})"

    # what C++ would do with the meta tensor's own, empty storage
    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def new_tensor(self, values: Any, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        return torch.tensor(values, dtype=dtype or self.dtype, device=CUDA)

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_tensors(index))

    def __setitem__(self, index: Any, values: Any) -> None:
        super().__setitem__(_tensors(index), values)


class Pretended(TorchDispatchMode):
    """While it is on, 'cuda' is the pretended GPU; `reads`: what a host had to wait for since, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def __enter__(self) -> "Pretended":
        self._was = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") copies through here
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self._was)
        super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, self.reads)


def _run(func: Any, args: tuple, kwargs: dict, reads: list[str] | None) -> Any:
    """The operator on the values behind, after the checks of a GPU."""
    leaves = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    gpu = any(isinstance(t, OnGPU) for t in leaves)
    if gpu and func in INDEXED:  # by indices of the CPU or of the tensor's own device
        gpu = isinstance(args[0], OnGPU)
        if not gpu:
            raise RuntimeError(f"{func}: a tensor on the cpu is indexed by one on cuda:0")
    elif gpu and func not in BETWEEN and any(not isinstance(t, OnGPU) and t.dim() for t in leaves):
        devices = ", ".join(f"{t.device} {tuple(t.shape)}" for t in leaves)
        raise RuntimeError(f"{func}: expected all tensors on the same device, found {devices}")
    if reads is not None and gpu and func.overloadpacket.__name__ in WAITS:
        reads.append(func.overloadpacket.__name__)
    if (asked := kwargs.get("device")) is not None:
        to_gpu = torch.device(asked).type in ("cuda", "meta")
        if reads is not None and gpu and not to_gpu:
            reads.append("to the cpu")
        gpu, kwargs = to_gpu, {**kwargs, "device": torch.device("cpu"), "pin_memory": False}
    if func is aten.copy_.default:
        gpu = isinstance(args[0], OnGPU)
    generator = kwargs.get("generator")
    if gpu and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{func}: expected a 'cuda' device type for generator but found 'cpu'")
    out = func(*tree_map(_behind, args), **tree_map(_behind, kwargs))
    # what is changed in place stays the tensor it was
    known = {id(t.behind): t for t in leaves if isinstance(t, OnGPU)}
    return tree_map(lambda t: known[id(t)] if id(t) in known else _on_gpu(t), out) if gpu else out


def _behind(value: Any) -> Any:
    return value.behind if isinstance(value, OnGPU) else value


def _on_gpu(value: Any) -> Any:
    return OnGPU(value) if isinstance(value, Tensor) else value


def _tensors(index: Any) -> Any:
    """An index whose lists are tensors."""
    if isinstance(index, tuple):
        return tuple(map(_tensors, index))
    return torch.as_tensor(index) if isinstance(index, list | np.ndarray) else index


def _moved(self: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` that puts new parameters in the old ones' places: values cannot be swapped between devices."""
    for module in self.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                with torch.no_grad():
                    new = change(weight)
                if new is not weight:
                    module._parameters[name] = nn.Parameter(new, weight.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = change(buffer)
    return self


@contextmanager
def pretended() -> Iterator[Pretended]:
    """A machine with one GPU, for as long as it is open."""
    if not (hasattr(torch._C, "_ensureCUDADeviceGuardSet") and hasattr(torch._C, "_set_only_lift_cpu_tensors")):
        pytest.skip(f"torch {torch.__version__} has no device guard to stand in for CUDA's")
    torch._C._ensureCUDADeviceGuardSet()
    there: dict[str, Any] = {"_lazy_init": None, "is_available": True, "is_bf16_supported": True}
    there |= {"device_count": 1, "current_device": 0, "get_device_name": "pretended GPU"}
    with pytest.MonkeyPatch.context() as patch, Pretended() as mode:
        for name, answer in there.items():
            patch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
        patch.setattr(nn.Module, "_apply", _moved)
        patch.setattr(nn.Module, "compile", lambda self, **_: None)
        patch.setattr("explore.training.recordable", lambda device: False)
        yield mode
