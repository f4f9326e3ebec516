"""An encoder as an ONNX file, for programs without PyTorch."""

import copy
import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, nn

from .errors import UserError, install
from .nets import Encoder, TorchEncoder, pick_features
from .random import seeded
from .serialization import replacing


class _Features(nn.Module):
    """Images in [0, 1] to features h, and nothing else: clean batch norms, no checks, no projector."""

    def __init__(self, encoder: Encoder | TorchEncoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        x = (images - self.encoder.mean) / self.encoder.std
        if isinstance(self.encoder, Encoder):
            return self.encoder.trunk(x)
        return pick_features(self.encoder.network(x), x.shape[0])[0]


def write_onnx(encoder: Encoder | TorchEncoder, path: Path, size: int, about: dict[str, str]) -> None:
    """Write the graph of `encoder.features`: `images` (n, 3, size, size), float32 in [0, 1], to `features` (n, D).

    The number of images is free, the size is fixed; images are normalised inside. `about` stands in
    the file's metadata. The file is run and compared with the network before it is written. Raises
    `UserError` where a package is missing, or where the network cannot be written so.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError:
        raise UserError(
            f"An ONNX file needs onnx, onnxscript and onnxruntime, of which one is not installed; {install('onnx')}."
        ) from None
    from .convolutions import Conv2d

    network = copy.deepcopy(encoder).cpu().float().eval()
    for part in network.modules():
        if type(part) is Conv2d:  # torch's own: the other only computes faster
            part.__class__ = nn.Conv2d  # type: ignore[assignment]
    images = torch.zeros(2, 3, size, size)
    said, before = io.StringIO(), logging.root.manager.disable
    try:
        logging.disable()  # pages of graphs, where a network cannot be written
        with warnings.catch_warnings(), torch.no_grad(), redirect_stdout(said), redirect_stderr(said):
            warnings.simplefilter("ignore")  # of torch about its own parts
            graph = torch.export.export(
                _Features(network), (images,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},), strict=False
            )  # by itself torch.onnx goes on to ways that follow one branch without a word
            program = torch.onnx.export(
                graph, input_names=["images"], output_names=["features"], dynamo=True, verbose=False
            )
    except Exception as error:
        first: BaseException = error
        while first.__cause__ is not None:
            first = first.__cause__
        raise UserError(
            f"torch cannot write this network as ONNX ({' '.join(str(first).split())[:160]}); "
            "share its run folder or a safetensors file."
        ) from error
    finally:
        logging.disable(before)
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info, model.graph):
        del part.metadata_props[:]  # lines of source code and paths of this machine
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, about)
    written, images = model.SerializeToString(), torch.rand(3, 3, size, size, generator=seeded(0))
    with torch.no_grad():
        expected = network.features(images)
    try:  # another number of images than it was traced with
        (found,) = onnxruntime.InferenceSession(written).run(None, {"images": images.numpy()})
        torch.testing.assert_close(
            torch.from_numpy(found), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )
    except Exception as error:
        raise UserError(
            "The network computes otherwise as ONNX, with another number of images for instance, so no file was "
            f"written ({' '.join(str(error).split())[:160]}); share its run folder or a safetensors file."
        ) from error
    with replacing(path) as file:
        file.write(written)
