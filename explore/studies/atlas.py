"""Where do images go, in a fixed map of their embedding, as an adversary's eps grows?"""

from dataclasses import replace
from typing import Any

from ..datasets import Data
from ..errors import UserError
from ..evaluate import Probe, embed
from ..maps import NEAREST, overlap, turn_onto
from ..results import Atlas
from ..runfolder import Run, environment, open_run
from ..training import make_views, resolve_device
from .cells import images_of
from .film import AtlasStudy, Progress

__all__ = ["AtlasStudy", "atlas", "compare_atlases", "study_of"]


def study_of(
    run: Run | str,
    *,
    split: str = "test",
    device: str = "auto",
    data: Data | None = None,
    probe: bool = True,
    progress: Progress | None = None,
    **options: Any,
) -> AtlasStudy:
    """A run's study on its own data set, with its temperature, views and batch size, and a probe fitted on the
    training features when it is first needed."""
    run, where = open_run(run) if isinstance(run, str) else run, resolve_device(device)
    if split not in ("train", "test"):
        raise UserError(f"split is 'train' or 'test', got '{split}'.")
    data = (data or images_of(run.config)[0]).to(where)
    chosen = data.test if split == "test" else (data.labelled or data.train)
    encoder, c, env = run.encoder(where), run.config, environment()
    about = {"run": run.name, "data": data.name, "split": split, "config": c.with_(data_dir=None).to_dict()}
    about |= {key: env[key] for key in ("time", "machine", "commit", "versions")}
    usual: dict[str, Any] = {"temperature": c.temperature, "loss": c.loss, "views": make_views(c, data)}
    usual |= {"batch_size": c.batch_size, "classes": data.classes, "provenance": about}
    study = AtlasStudy(encoder, chosen, progress=progress, **{**usual, **options})
    labelled, names = data.labelled, data.classes

    def fit() -> Probe:
        assert labelled is not None
        return Probe().fit(*embed(encoder, labelled, cache=study.keep, progress=study.progress), classes=names)

    if probe and labelled is not None:
        study.probe = fit
    return study


def atlas(run: Run | str, **options: Any) -> Atlas:
    """A run's images in one map at every eps; options are those of `study_of` and `AtlasStudy`."""
    return study_of(run, **options).atlas()


def compare_atlases(a: AtlasStudy, b: AtlasStudy, method: str | None = None) -> tuple[Atlas, Atlas, dict[str, Any]]:
    """Two encoders on the same images: both atlases, the second's map turned onto the first's, and how far they agree.

    `residual`: the share of the first map's spread that no turn explains (0 to 1). `shared_neighbours`: the share of an image's ten
    nearest that both encoders name, in h; `each` (n,) for every image, `chance` that of two random embeddings.
    """
    if len(a) != len(b) or not a.index.equal(b.index):
        raise UserError(
            f"Two atlases are laid side by side image by image, got {len(a)} and {len(b)} images, or others; make both of the same "
            "split with the same number of images."
        )
    first, second = a.atlas(method), b.atlas(method or a.method)
    turn = turn_onto(first.xy[0], second.xy[0])
    each = overlap(a.features, b.features)
    turned = replace(second, xy=turn(second.xy), xy_control=turn(second.xy_control))
    figures = {"residual": turn.residual, "shared_neighbours": float(each.mean()), "each": each}
    return first, turned, figures | {"chance": NEAREST / (len(a) - 1)}
