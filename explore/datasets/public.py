"""The published sets: their urls, checksums, and where a copy is.

The md5s of CIFAR and STL-10 are the ones torchvision checks. Those of Fashion-MNIST are of the
packed files; what they unpack to has the sha256s below, so that a copy packed anew counts as the
published one.
"""

import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .. import paths
from ..errors import UserError
from . import formats
from .download import Unreachable, digest, fetch
from .formats import Parts
from .splits import Progress


@dataclass(frozen=True)
class Published:
    """A published data set; `downloads` and `files` map file names to checksums."""

    name: str
    title: str
    about: str
    source: str
    licence: str
    mirrors: tuple[str, ...]  # addresses that a file of `downloads` is appended to
    downloads: dict[str, str]  # what is fetched, md5
    folders: tuple[str, ...]  # where below a given folder the files may lie; the first is where we put them
    files: dict[str, str]  # what is read, md5 or sha256; a .gz of it serves too
    read: Callable[[Path, int | None], Parts]
    cached: str = ""  # the folder of the cache, where two sets share one

    @property
    def packed(self) -> bool:
        return next(iter(self.downloads)).endswith(".tar.gz")


_KRIZ = (
    "https://www.cs.toronto.edu/~kriz/",
    "https://dataset.bj.bcebos.com/cifar/",
)  # the second: PaddlePaddle's
_STL10 = {
    "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
    "train_y.bin": "5a34089d4802c674881badbb80307741",
    "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
    "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
}
_STL10_PACKED = {"stl10_binary.tar.gz": "91f7769df0f17e558f3565bffb0c7dfb"}
_STL10_SOURCE = "Coates, Lee and Ng 2011, cs.stanford.edu/~acoates/stl10"
_IMAGENET = "images from ImageNet, whose terms of use apply"

_ALL = (
    Published(
        name="cifar10",
        title="CIFAR-10",
        about="50,000 + 10,000 colour photographs, 32x32, 10 classes; 170 MB",
        source="Krizhevsky 2009, www.cs.toronto.edu/~kriz/cifar.html",
        licence="no licence stated; cite Krizhevsky 2009",
        mirrors=_KRIZ,
        downloads={"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
        folders=("cifar-10-batches-py", "."),
        files={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        },
        read=formats.cifar10,
    ),
    Published(
        name="cifar100",
        title="CIFAR-100",
        about="50,000 + 10,000 colour photographs, 32x32, 100 classes in 20 superclasses; 169 MB",
        source="Krizhevsky 2009, www.cs.toronto.edu/~kriz/cifar.html",
        licence="no licence stated; cite Krizhevsky 2009",
        mirrors=_KRIZ,
        downloads={"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
        folders=("cifar-100-python", "."),
        files={
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
        read=formats.cifar100,
    ),
    Published(
        name="stl10",
        title="STL-10",
        about="5,000 + 8,000 colour photographs, 96x96, 10 classes; 2.6 GB",
        source=_STL10_SOURCE,
        licence=_IMAGENET,
        mirrors=("http://ai.stanford.edu/~acoates/stl10/",),
        downloads=_STL10_PACKED,
        folders=("stl10_binary", "."),
        files=_STL10,
        read=formats.stl10,
    ),
    Published(
        name="stl10-unlabeled",
        title="STL-10 (unlabeled)",
        about="STL-10's 100,000 unlabelled photographs to train on (data.labelled: its 5,000 others); 2.6 GB",
        source=_STL10_SOURCE,
        licence=_IMAGENET,
        mirrors=("http://ai.stanford.edu/~acoates/stl10/",),
        downloads=_STL10_PACKED,
        folders=("stl10_binary", "."),
        files={**_STL10, "unlabeled_X.bin": "5242ba1fed5e4be9e1e742405eb56ca4"},
        read=formats.stl10_unlabeled,
        cached="stl10",
    ),
    Published(
        name="fashion-mnist",
        title="Fashion-MNIST",
        about="60,000 + 10,000 gray product photographs, 28x28 shown at 32x32, 10 classes; 31 MB",
        source="Xiao, Rasul and Vollgraf 2017, github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",  # Keras's own
        ),
        downloads={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        folders=("FashionMNIST/raw", "raw", "."),
        files={
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        read=formats.fashion_mnist,
    ),
)
SETS: dict[str, Published] = {s.name: s for s in _ALL}


def located(spec: Published, data_dir: Path | None, download: bool, progress: Progress) -> Path:
    """The folder with a set's files, below `data_dir` or in the cache; downloaded if missing."""
    root = data_dir if data_dir is not None else paths.cache() / (spec.cached or spec.name)
    if data_dir is not None and not data_dir.is_dir():
        raise UserError(f"the data folder {data_dir} does not exist; without --data-dir {spec.name} is downloaded.")
    if found := complete(spec, root):
        return found
    if data_dir is not None and not _archive(spec, root).is_file():
        raise UserError(_incomplete(spec, root))
    fetched = data_dir is None and not _archive(spec, root).is_file()
    if fetched:
        if not download:
            raise UserError(f"{spec.name} is not on this machine yet and download=False: {_remedy(spec, root)}.")
        _download(spec, root, progress)
    if spec.packed:
        _unpack(spec, _archive(spec, root), progress)
        if fetched:
            _archive(spec, root).unlink()
    if found := complete(spec, root):
        return found
    raise UserError(_incomplete(spec, root))


def checked(spec: Published, folder: Path) -> tuple[dict[str, str], list[str]]:
    """Checksum of each file that is read, and the names of those that differ from the published."""
    sums = {}
    for name, known in spec.files.items():
        path = formats.present(folder, name)
        try:
            sums[name] = digest(path, "md5" if len(known) == 32 else "sha256", gunzip=path.suffix == ".gz")
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path} cannot be read ({error}): get it again from its publisher.") from error
    return sums, [name for name, known in spec.files.items() if sums[name] != known]


def complete(spec: Published, root: Path) -> Path | None:
    """The folder at or below `root` with all files of a set, or None."""
    for below in spec.folders:
        if all(formats.present(root / below, name).is_file() for name in spec.files):
            return root / below
    return None


def _incomplete(spec: Published, root: Path) -> str:
    """The error text for a folder with missing files; names those the most complete place lacks."""

    def missing(below: str) -> list[str]:
        return [name for name in spec.files if not formats.present(root / below, name).is_file()]

    below = min(spec.folders, key=lambda place: len(missing(place)))
    lacks = missing(below)
    if len(lacks) == len(spec.files):
        return f"{root} does not hold {spec.title}: expected there (or in {spec.folders[0]}) {', '.join(lacks)}."
    return f"the copy of {spec.title} in {root / below} is not complete: {', '.join(lacks)} missing."


def _archive(spec: Published, root: Path) -> Path:
    """Where the packed set would lie; for a set of single files, a path that does not exist."""
    return root / (next(iter(spec.downloads)) if spec.packed else "-")


def _remedy(spec: Published, root: Path) -> str:
    return (
        f"put {' and '.join(spec.downloads)} from {spec.mirrors[0]} into {root}, or name a folder that "
        f"holds the set (data_dir=, --data-dir), or take 'fashion', which needs no download"
    )


def _download(spec: Published, root: Path, progress: Progress) -> None:
    for name, md5 in spec.downloads.items():
        target = root / name if spec.packed else root / spec.folders[0] / name
        if target.is_file():
            continue
        try:
            fetch([mirror + name for mirror in spec.mirrors], target, md5, progress)
        except Unreachable as tried:
            raise UserError(
                f"{spec.name} is not on this machine and could not be downloaded ({tried}): {_remedy(spec, root)}."
            ) from tried


def _unpack(spec: Published, archive: Path, progress: Progress) -> None:
    """Take the known files (and no path) out of the archive; each appears whole, or not at all."""
    folder = archive.parent / spec.folders[0]
    wanted = {
        *spec.files,
        *(SETS["stl10-unlabeled"].files if spec.name == "stl10" else ()),
        "class_names.txt",
    }
    try:
        folder.mkdir(exist_ok=True)
        with (
            tarfile.open(archive) as tar,
            tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as half,
        ):
            for i, member in enumerate(tar):
                name = PurePosixPath(member.name).name
                if member.isfile() and name in wanted and (inside := tar.extractfile(member)):
                    with open(Path(half) / name, "wb") as file:
                        shutil.copyfileobj(inside, file, 1 << 20)
                    os.replace(Path(half) / name, folder / name)
                    progress(f"unpacking {archive.name}", i, 0)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(
            f"{archive} cannot be unpacked into {folder} ({error}): see that there is room and permission, "
            "else remove the file and get it again."
        ) from error
