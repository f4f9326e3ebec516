"""The training panel: a training in a process of its own, started, stopped and resumed here, and
watched while it runs.

All that it shows is read from the run folder (`experiments.background`, `experiments.follow`), so a
restarted kernel or another page shows the same.
"""

import threading
import weakref
from typing import Any

import ipywidgets as w
import traitlets
from traitlets import Enum, Float, Int, Unicode

from ... import datasets, figures
from ...attack_table import ATTACK_MENU, TABLE
from ...config import TrainConfig, eps_of, k_of
from ...errors import UserError
from ...experiments.background import RunProcess, running
from ...experiments.follow import curves_of, progress_of
from ...monitor import batch_of
from ...runfolder import Run, open_run, runs
from ..base import Job, NothingToCompute, Panel
from ..html import finding, note
from . import price, view

LOOK = 1.0  # seconds between two looks at the folder of a run that is being trained
NOISES = {row.title: row.name for row in TABLE.values() if row.role == "noise"}
METHODS = ("SimCLR", "CLAE", "noise")
FOLDER = "folder"  # the entry of the menu of images that stands for one's own
SETTINGS = ("images", "folder", "method", "attack", "noise", "k", "epochs", "batch", "width", "seed")


class Training(Panel):
    """`Training(run)`: choose settings, press Start; `panel.run` is the run on the screen,
    `panel.result` its curves.

    `base`: a `TrainConfig` with the settings that have no control. Without a run the one that is
    being trained is shown.
    """

    title = "Train your own"
    inputs = ("shown", "overlay")
    images = Unicode("fashion", help="The images to train on: a data set of this machine, or a folder of your own")
    folder = Unicode("", help="The path of a folder of images: class sub-folders, train/ and test/, or images alone")
    method = Enum(list(METHODS), "CLAE", help="SimCLR: two views; CLAE: and an adversary; noise: noise in its place")
    attack = Enum(list(ATTACK_MENU), "FGSM", help="How the adversary is made: one gradient step, or several (PGD)")
    noise = Enum(list(NOISES), "Gaussian", help="The noise that stands in the adversary's place")
    k = Float(4, min=0, max=255, help="How far adversary or noise may move a pixel: ε = k/255 of its range")
    epochs = Int(2, min=1, help="How often every training image is seen")
    batch = Int(128, min=2, help="Images in a step; each view is compared with all others of its batch")
    width = Int(
        16, min=1, help="Channels of the network's first layer: a network twice as wide takes up to 4 times as long"
    )
    seed = Int(0, min=0, help="It decides about weights, order and views: same seed, same run")
    shown = Unicode("", help="The run on the screen")
    overlay = Unicode("", help="A second run, drawn in the same axes in thinner lines")

    def __init__(self, run: Run | str | None = None, *, base: TrainConfig | None = None, **traits: Any):
        self.base = base or TrainConfig()
        self._open = {run.name: run} if isinstance(run, Run) else {}
        self._closed = False
        self._follower: threading.Thread | None = None
        self._drawn: tuple[Any, ...] = ()  # what the chart on the screen is made of
        self._outcome: view.Seen | None
        c = self.base
        own = {"images": c.dataset, "epochs": c.epochs, "batch": c.batch_size, "width": c.width, "seed": c.seed}
        if base is None:
            own["epochs"] = 2
        if c.attack == "none":
            own["method"] = "SimCLR"
        else:
            row = TABLE[c.attack]
            own |= {"method": "noise" if row.role == "noise" else "CLAE", "k": k_of(c.eps)}
            own["noise" if row.role == "noise" else "attack"] = row.title
        if c.dataset.startswith("folder:"):
            own |= {"images": FOLDER, "folder": c.dataset.removeprefix("folder:")}
        found = run.name if isinstance(run, Run) else run or next((one.name for one in running()), "")
        super().__init__(**{**own, "shown": found, **traits})

    @traitlets.validate("images", "shown", "overlay")
    def _offer(self, proposal: Any) -> str:
        return self.offer(proposal, {"shown": self._opened, "overlay": self._opened})

    # for notebooks
    @property
    def config(self) -> TrainConfig:
        """The settings that Start takes."""
        attack = {"SimCLR": "none", "CLAE": ATTACK_MENU[self.attack], "noise": NOISES[self.noise]}[self.method]
        data = f"folder:{self.folder.strip()}" if self.images == FOLDER else self.images
        own = {"dataset": data, "attack": attack, "eps": None if attack == "none" else eps_of(self.k)}
        own |= {"epochs": self.epochs, "batch_size": self.batch, "width": self.width, "seed": self.seed}
        return self.base.with_(**own)

    @property
    def run(self) -> Run | None:
        """The run on the screen."""
        return self._fresh(self.shown) if self.shown else None

    @property
    def process(self) -> RunProcess:
        """The training of the run on the screen, to start, stop and wait for it in code. UserError
        where there is none.
        """
        if self.run is None:
            raise UserError("No run is shown; press Start, or choose one.")
        return RunProcess(self.run)

    def start(self) -> Run:
        """Start a training with these settings, in a process of its own; it is shown from then on."""
        if self._unnamed:
            raise UserError("No folder is named; type the path of a folder of images beside the menu.")
        config = self.config
        datasets.load(config.dataset, data_dir=config.data_dir, size=config.image_size, download=False)  # refuses here
        if self.shown and self.process.state.alive:
            raise UserError(f"The run '{self.shown}' is being trained; stop it first, two would share the cores.")
        own = RunProcess.start(config)
        self._open[own.name] = own.run
        self.shown = own.name
        self.list_options("overlay", [("none", ""), *((name, name) for name in self._names())])
        return own.run

    def resume(self) -> None:
        """Go on with the run on the screen."""
        self.process.resume()
        self.refresh()

    def stop_training(self) -> None:
        """Stop the training of the run on the screen after its step, within two seconds; what it
        has done is kept.
        """
        self.process.stop()
        self.refresh()

    def close(self) -> None:
        """Close the panel; a training goes on."""
        self._closed = True
        super().close()

    # widgets
    def controls(self) -> list[w.Widget]:
        at_hand = [name for name in datasets.names() if ":" not in name and datasets.at_hand(name)]
        listed = [(name, name) for name in dict.fromkeys([self.images, *at_hand]) if name != FOLDER]
        images = w.Dropdown(options=[*listed, ("my own folder", FOLDER)])
        folder = w.Text(placeholder="/path/of/images", continuous_update=False)
        attack, noise = w.Dropdown(options=list(ATTACK_MENU)), w.Dropdown(options=list(NOISES))
        eps = w.BoundedFloatText(min=0, max=255, step=1)
        least = {"epochs": 1, "batch": 2, "width": 1, "seed": 0}
        numbers = {name: w.BoundedIntText(min=low, max=10**6) for name, low in least.items()}
        fields: list[tuple[str, Any, str, str]] = [
            ("Images", images, "images", "124px"),
            ("Folder", folder, "folder", "156px"),
            ("Method", w.Dropdown(options=list(METHODS)), "method", "84px"),
            ("Attack", attack, "attack", "84px"),
            ("Noise", noise, "noise", "96px"),
            ("ε, k/255", eps, "k", "68px"),
            ("Epochs", numbers["epochs"], "epochs", "60px"),
            ("Batch", numbers["batch"], "batch", "64px"),
            ("Width", numbers["width"], "width", "60px"),
            ("Seed", numbers["seed"], "seed", "56px"),
        ]
        for field, name, where in (
            (folder, "images", (FOLDER,)),
            (attack, "method", ("CLAE",)),
            (noise, "method", ("noise",)),
            (eps, "method", ("CLAE", "noise")),
        ):
            traitlets.dlink(
                (self, name), (field.layout, "display"), lambda value, at=where: "" if value in at else "none"
            )
        row = self.row(fields, "ex-of-")
        names = [("none", ""), *((name, name) for name in self._names())]
        followed = self.row(
            [
                ("Run on the screen", w.Dropdown(options=names), "shown", "256px"),
                ("Compare with", w.Dropdown(options=names), "overlay", "256px"),
            ]
        )
        return [row, self._actions(), followed]

    def _actions(self) -> w.HBox:
        self._start_button = self._button("Start", self._begin, style="primary")
        self._stop_button, self._resume_button = (
            self._button("Stop", self._stop_soon),
            self._button("Resume", self.resume),
        )
        self._start_button.tooltip = "Train with the settings above, in a process of its own"
        self._stop_button.tooltip = (
            "Stop the run on the screen after its step, within two seconds; what it has done is kept"
        )
        self._resume_button.tooltip = "Go on with the run on the screen; it will be what it had been without the stop"
        self._price = w.HTML()
        self.observe(lambda _: self._settings_changed(), names=list(SETTINGS))
        self._enable(None)
        self._tell_price()
        return w.HBox([self._start_button, self._stop_button, self._resume_button, self._price]).add_class("ex-acts")

    def body(self) -> list[w.Widget]:
        self._alert, self._bar, self._facts, self._reading, self._batch, self._foot = (w.HTML() for _ in range(6))
        self._chart = figures.live(figures.empty_training())
        beside = w.Box([self._chart, self._batch]).add_class("ex-train")
        return [self._alert, self._bar, self._facts, self._reading, beside, self._foot]

    def empty(self) -> list[w.Widget]:
        return [w.HTML(finding("Nothing is being trained. Choose settings and press Start, or choose a run above."))]

    # work
    def compute(self, job: Job, **inputs: Any) -> view.Seen:
        if not inputs["shown"]:
            self._enable(None)
            raise NothingToCompute("no run is shown")
        return self._read(**inputs)

    def _read(self, shown: str, overlay: str) -> view.Seen:
        if shown == overlay:
            raise UserError(f"Both runs are {shown}, so there is nothing to compare; choose another, or none.")
        run, *others = map(self._fresh, filter(None, (shown, overlay)))
        return view.Seen(curves_of(run, *others), run, RunProcess(run).state, progress_of(run), batch_of(run))

    def idle(self) -> bool:
        """Time a forward pass for the price of the settings, once for each network."""
        busy = self._outcome is not None and self._outcome.state.alive
        if busy or self._unnamed or price.known(self.config):
            return False
        price.measure(self.config, self._threads)
        self._tell_price()
        return True

    @property
    def _unnamed(self) -> bool:
        """Whether a folder of images is chosen and not named."""
        return self.images == FOLDER and not self.folder.strip()

    def _tell_price(self) -> None:
        self._price.value = note("name a folder of images" if self._unnamed else price.words(self.config))

    def _settings_changed(self) -> None:
        self._tell_price()
        self._work_on()

    # pictures
    def draw(self, seen: view.Seen) -> None:
        self._alert.value, self._bar.value, self._facts.value = view.alert(seen), view.bar(seen), view.facts(seen)
        self._reading.value, self._batch.value = finding(view.reading(seen)), view.batch(seen)
        self._foot.value = view.foot(seen)
        self._enable(seen)
        table = seen.result.table
        rows = (seen.result.runs, len(table), *table.iloc[-1:][["step", "seconds"]].to_numpy().ravel())
        if rows != self._drawn:
            figures.follow(self._chart, figures.training_curves(seen.result))
            self._drawn = rows
        if seen.state.alive and self._follower is None and not self._closed:
            self._follower = threading.Thread(target=_follow, args=(weakref.ref(self),), daemon=True)
            self._follower.start()

    def _enable(self, seen: view.Seen | None) -> None:
        """Switch the buttons to what can be done with the run on the screen."""
        name = "" if seen is None else seen.state.name
        alive = seen is not None and seen.state.alive
        self._start_button.disabled, self._stop_button.disabled = alive, not alive
        self._resume_button.disabled = name not in ("stopped", "failed", "new")

    def _glance(self) -> bool:
        """Read the run's folder anew and draw it; False where it is not trained any more."""
        seen = self._outcome
        if self._closed or seen is None:
            return False
        new = self.guard(lambda: self._read(self.shown, self.overlay), mends=False) if self.shown else None
        if new is None:
            return False
        with self._drawing:
            if self._closed or new.result.runs != tuple(filter(None, (self.shown, self.overlay))):
                return not self._closed  # another run was chosen meanwhile
            self.guard(lambda: self._put(new), mends=False)
            if self.state == "ready":
                self._settle("ready", "")
        return new.state.alive

    def _begin(self) -> None:
        self.start()

    def _stop_soon(self) -> None:
        """Stop in a thread: the page answers meanwhile."""
        self._stop_button.disabled = True
        self._state.value = "stopping after this step"
        threading.Thread(target=lambda: self.guard(self.stop_training), daemon=True).start()

    def _settle(self, state: str, text: str) -> None:
        if state == "ready" and self._outcome is not None:
            text = view.state_words(self._outcome)
        super()._settle(state, text)

    def _opened(self, name: str) -> Run:
        if name not in self._open:
            self._open[name] = open_run(name)
        return self._open[name]

    def _fresh(self, name: str) -> Run:
        """The run with what its files say now."""
        own = self._opened(name)
        return Run(own.path, own.name)

    def _names(self) -> list[str]:
        found = runs()
        whole = found[found.state != "damaged"].run if len(found) else []
        return list(dict.fromkeys([*filter(None, (self.shown, self.overlay)), *whole]))

    def label(self, result: Any) -> str:
        return f"{result.runs[0]}"


def _follow(panel: "weakref.ref[Training]") -> None:
    """Look at the run's folder every second while it is trained and the panel is there."""
    rest = threading.Event()
    while True:
        rest.wait(LOOK)
        own = panel()
        if own is None:
            return
        if not own._glance():
            own._follower = None
            return
        own = None
