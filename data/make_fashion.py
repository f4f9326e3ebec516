"""Makes data/fashion/fashion.npz from Debian's package dataset-fashion-mnist.

The first 1,000 training and the first 200 test images of each class, in the original order, as they are:
28x28 gray bytes. Nothing is drawn at random, so every run gives the same arrays. `index` is an image's number
in the full set.

The package's four files were packed anew, so their md5s differ from the published ones. Their content does
not: with the header of the published files (a name and a time) put back in front of the same compressed
bytes, they have the published md5s. This script checks that before it reads them.
"""

import argparse
import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np

PUBLISHED = {  # name: (time in the published file's header, md5 of the published file)
    "train-images-idx3-ubyte": (1504176606, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    "train-labels-idx1-ubyte": (1504176606, "25c81989df183df01b3e8a0aad5dffbe"),
    "t10k-images-idx3-ubyte": (1504176627, "bef4ecab320f06d8554ea6380940ec79"),
    "t10k-labels-idx1-ubyte": (1504176627, "bb300cfdad3c16e7a12a480ee83cd310"),
}
PER_CLASS = {"train": 1000, "test": 200}


def published(source: Path, name: str) -> bytes:
    """The content of one file, after a check that it is the published one."""
    packed = (source / f"{name}.gz").read_bytes()
    seconds, md5 = PUBLISHED[name]
    head = b"\x1f\x8b\x08\x08" + struct.pack("<I", seconds) + b"\x00\x03" + name.encode() + b"\x00"
    if md5 not in (hashlib.md5(packed).hexdigest(), hashlib.md5(head + packed[10:]).hexdigest()):
        raise SystemExit(f"{source / name}.gz is not the published file.")
    return gzip.decompress(packed)


def subset(source: Path) -> dict[str, np.ndarray]:
    """The arrays of fashion.npz."""
    arrays = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = np.frombuffer(published(source, f"{prefix}-images-idx3-ubyte"), np.uint8, offset=16)
        labels = np.frombuffer(published(source, f"{prefix}-labels-idx1-ubyte"), np.uint8, offset=8)
        first = [np.flatnonzero(labels == c)[: PER_CLASS[part]] for c in range(10)]
        index = np.sort(np.concatenate(first))
        arrays[f"{part}_images"] = images.reshape(-1, 28, 28)[index]
        arrays[f"{part}_labels"] = labels[index]
        arrays[f"{part}_index"] = index.astype(np.uint16)
    return arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "fashion" / "fashion.npz")
    args = parser.parse_args()
    np.savez_compressed(args.out, **subset(args.source))
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
