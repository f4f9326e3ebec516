"""Points that are ordered here: what they lack, what they cost, and the jobs that compute them in the background."""

from collections.abc import Callable
from typing import Any

from ...errors import UserError
from ...experiments.cost import price_of, seconds_a_pass
from ...experiments.queue import ENDED, BackgroundTraining
from ...studies import Cell
from ..session import Session
from . import cards
from .commands import cells_of, config_of, train_command
from .jobs import Jobs, family_of
from .points import KINDS, LEVELS, Kind, Scene, adversary
from .source import SweepSource


class MissingPoints:
    """The trainings that complete a figure. `changed(ended)`, a bound method, is told in a thread that jobs have moved."""

    def __init__(self, supply: SweepSource, threads: int, changed: Callable[[bool], None]):
        base = supply.base
        self.supply, self.threads = supply, threads
        self.jobs = Jobs(supply.out, family_of(base, supply.data) if base is not None else "", changed)
        self.why_not = "" if supply.grows else "settings or images of this sweep are not kept"
        self._a_pass: float | None = None  # seconds of a forward pass of an image on this machine
        self._asked = False  # a card waits for a price

    def place(self, scene: Scene, key: str, k: float) -> BackgroundTraining:
        """Begin to train the seeds that a point lacks."""
        if self.why_not:
            raise UserError(f"This point cannot be computed here: {self.why_not}.")
        cells = self.lacking(scene, key, k)
        if not cells:
            raise UserError(f"{scene.kinds[key].name} at {k:g}/255 has all its seeds.")
        if (key, k) in {(own, at) for own, at, _ in self.under_way(scene)}:
            raise UserError(f"{scene.kinds[key].name} at {k:g}/255 is being computed.")
        about = {"kind": key, "k": float(k), "match": scene.choice.match, "gaussian": scene.choice.gaussian}
        return self.jobs.start(cells, about, self.seconds(cells), self.threads)

    def lacking(self, scene: Scene, key: str, k: float) -> list[Cell]:
        """The cells of the seeds that a point lacks."""
        if self.supply.base is None or not scene.choice.training:
            return []
        point, base = scene.at(key, k), self.supply.base
        seeds = [seed for seed in self.supply.seeds if point is None or seed not in point.values]
        config = config_of(scene.kinds[key], k, base, scene.choice, adversary(self.supply.training, base))
        return cells_of(config, seeds, self.supply.measure)

    def command(self, scene: Scene, key: str, k: float) -> str:
        """What trains a point on another machine."""
        if self.supply.base is None:
            return ""
        attack = adversary(self.supply.training, self.supply.base)
        return train_command(config_of(scene.kinds[key], k, self.supply.base, scene.choice, attack), self.supply.seeds)

    def seconds(self, cells: list[Cell]) -> float | None:
        """About how long cells take here; None until that was measured."""
        self._asked = True
        return None if self._a_pass is None else price_of(cells, self._a_pass)

    def price(self, cells: list[Cell]) -> str:
        """'3 seeds, about 9 min on this machine'."""
        seconds, n = self.seconds(cells), len(cells)
        said = "its time is being measured" if seconds is None else f"about {cards.lasting(seconds)} on this machine"
        return f"{n} seed{'s' * (n != 1)}, {said}"

    def measure(self, shelf: Session) -> bool:
        """Measure what a training costs here, where a card asks for it and it is not known; False where there is nothing to do."""
        base = self.supply.base
        if not self._asked or self._a_pass is not None or self.why_not or base is None:
            return False
        try:
            shelf.set(base.dataset)  # refuses to download
            self._a_pass = seconds_a_pass(base, self.threads)
        except UserError as error:
            self.why_not = str(error).rstrip(".")
        return True

    def under_way(self, scene: Scene) -> list[tuple[str, float, str]]:
        """(kind, k, 'computing' or 'waiting') of the jobs whose points belong on this screen."""
        found = []
        for _, job in self.jobs:
            at, state = job.about, job.state["state"]
            if state not in ENDED and self._belongs(at, scene):
                found.append((at["kind"], at["k"], "computing" if state == "running" else "waiting"))
        return found

    def ordered(self, scene: Scene) -> set[tuple[str, float]]:
        """(kind, k) of all jobs whose points belong on this screen, ended ones too: they have a card of their own."""
        return {(job.about["kind"], job.about["k"]) for _, job in self.jobs if self._belongs(job.about, scene)}

    @staticmethod
    def _belongs(at: dict[str, Any], scene: Scene) -> bool:
        same = (at["match"], at["gaussian"]) == (scene.choice.match, scene.choice.gaussian)
        return scene.choice.training and (same or at["kind"] in ("adversary", *LEVELS))

    def running(self) -> int:
        """Jobs that have not ended."""
        return sum(job.alive for _, job in self.jobs)

    def cards(self) -> list[str]:
        """A card a job, wherever its point belongs."""
        cores = f"{self.threads} CPU core{'s' * (self.threads != 1)}"
        return [
            cards.under_way(_kind(job.about), job.about["k"], job.state, job.progress(), name=name, cores=cores)
            for name, job in self.jobs
        ]

    def act(self, verb: str, name: str) -> None:
        """What a job's button asks: 'stop', 'forget', or 'again', which goes on with what it has left."""
        job = self.jobs[name]
        if verb == "stop":
            return job.stop()
        self.jobs.forget(name)
        if verb == "again":
            self.jobs.start(job.cells, job.about, self.seconds(job.cells), self.threads)


def _kind(about: dict[str, Any]) -> Kind:
    key = about["kind"]
    return Kind(key, *KINDS[key], {}, key in LEVELS)
