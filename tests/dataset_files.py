"""Makes tiny data sets on disk, and serves files over http with faults: for the tests of `datasets`."""

import gzip
import io
import pickle
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_cifar10(root: Path, n: int = 20, protocol: int = 2) -> np.ndarray:
    """cifar-10-batches-py below `root`, n images a batch; returns all training images (5n,3,32,32)."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    images = [noise(n, 3072, seed=i) for i in range(6)]
    for i, x in enumerate(images):
        batch = {"data": x, "labels": [k % 10 for k in range(n)], "filenames": ["a.png"] * n}
        name = "test_batch" if i == 5 else f"data_batch_{i + 1}"
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    words = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": words}, protocol))
    return np.concatenate(images[:5]).reshape(-1, 3, 32, 32)


def real_cifar10(archive: Path) -> tuple[Callable[[int], np.ndarray], np.ndarray]:
    """The real images of cifar10_jpeg75.npz, JPEGs less their shared head: (i -> uint8 (3,32,32)), 50,000 + 10,000 of them, and their labels."""
    with np.load(archive) as file:
        head, payload, lengths, labels = (file[k] for k in ("header", "payload", "lengths", "labels"))
    ends, head, payload = np.cumsum(lengths.astype(np.int64)), head.tobytes(), payload.tobytes()

    def picture(i: int) -> np.ndarray:
        body = head + payload[ends[i] - int(lengths[i]) : ends[i]] + b"\xff\xd9"
        return np.asarray(Image.open(io.BytesIO(body)).convert("RGB")).transpose(2, 0, 1)

    return picture, labels.astype(int)


def write_real_cifar10(root: Path, archive: Path, n: int = 10_000) -> Callable[[int], np.ndarray]:
    """cifar-10-batches-py below `root` with the first n real images of each batch of 10,000; returns `real_cifar10`'s pictures."""
    picture, labels = real_cifar10(archive)
    write_cifar10(root, 1)
    for k in range(6):
        rows = np.arange(n) + 10_000 * k
        batch = {"data": np.stack([picture(i) for i in rows]).reshape(n, -1), "labels": labels[rows].tolist()}
        name = "test_batch" if k == 5 else f"data_batch_{k + 1}"
        (root / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(batch, 2))
    return picture


def write_cifar100(root: Path, n: int = 200) -> None:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(("train", "test")):
        fine = [k % 100 for k in range(n)]
        batch = {b"data": noise(n, 3072, seed=i), b"fine_labels": fine, b"coarse_labels": [k // 5 for k in fine]}
        (folder / name).write_bytes(pickle.dumps(batch, 2))
    meta = {"fine_label_names": [f"c{i}" for i in range(100)], "coarse_label_names": [f"s{i}" for i in range(20)]}
    (folder / "meta").write_bytes(pickle.dumps(meta, 2))


def python2_pickle(x: np.ndarray, labels: list[int]) -> bytes:
    """A batch byte for byte as Python 2 wrote them: protocol 2, strings as str, numpy's old module names."""

    def text(s: bytes) -> bytes:
        return b"U" + bytes([len(s)]) + s

    def integer(i: int) -> bytes:
        return b"J" + struct.pack("<i", i)

    raw = x.tobytes()
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + integer(0) + integer(1) + b"\x87R("
    dtype += integer(3) + text(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + integer(0) + b"\x85" + text(b"b") + b"\x87R("
    array += integer(1) + integer(x.shape[0]) + integer(x.shape[1]) + b"\x86" + dtype + b"\x89"
    array += b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
    values = b"](" + b"".join(integer(y) for y in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + values + b"u."


def write_stl10(root: Path, n: int = 20, unlabelled: int = 30) -> np.ndarray:
    """stl10_binary below `root`; returns the training images as rows, columns in place (n,3,96,96)."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True, exist_ok=True)
    train = noise(n, 3, 96, 96)
    train.transpose(0, 1, 3, 2).tofile(folder / "train_X.bin")
    noise(n, 3, 96, 96, seed=1).tofile(folder / "test_X.bin")
    noise(unlabelled, 3, 96, 96, seed=2).tofile(folder / "unlabeled_X.bin")
    for part in ("train", "test"):
        (np.arange(n) % 10 + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
    return train


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_fashion(folder: Path, packed: bool, n: int = 20) -> np.ndarray:
    """The four idx files in `folder`; returns the training images (n,28,28)."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, part in enumerate(("train", "t10k")):
        for kind, array in (
            ("images-idx3", noise(n, 28, 28, seed=i)),
            ("labels-idx1", (np.arange(n) % 10).astype(np.uint8)),
        ):
            name = folder / f"{part}-{kind}-ubyte{'.gz' if packed else ''}"
            name.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return noise(n, 28, 28, seed=0)


def write_images(folder: Path, count: int, seed: int = 0, side: int = 40) -> list[Path]:
    """`count` colour PNGs of mixed sizes, short side `side`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:03d}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(noise(side, side + i % 7, 3, seed=1000 * seed + i)).save(path)
    return paths


class Served:
    """What a mirror has, what it was asked for, and how it fails: `breaks_at` bytes it closes the connection."""

    def __init__(self, files: dict[str, bytes]):
        self.files = files
        self.breaks_at: int | None = None
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []
        self.address = ""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Served]:
    """An http server on 127.0.0.1 that knows Range, until the block ends."""
    served = Served(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            served.asked.append((self.path, asked))
            body = served.files.get(self.path.rsplit("/", 1)[-1])
            if body is None:
                return self.send_error(404, "Not Found")
            begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and served.ranges else 0
            if begin >= len(body):
                self.send_response(416, "Range Not Satisfiable")
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - begin))
            self.end_headers()
            self.wfile.write(body[begin : served.breaks_at if begin < (served.breaks_at or 0) else None])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
