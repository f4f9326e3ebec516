"""Missing points: the trainings they need, the time these take, and the background jobs that run them."""

from collections.abc import Callable, Sequence

from ...attacks import NOISES
from ...config import TrainConfig
from ...errors import UserError
from ...experiments.cost import duration, price_of, seconds_a_pass
from ...experiments.grid import same_figure, sweep_command
from ...experiments.jobs import BackgroundTraining, JobWatch
from ...studies import Cell
from ..session import Session
from .points import KINDS, LEVELS, MATCHES, OTHERS, TITLES, Choice, Kind, Scene, adversary, longer
from .source import SweepSource


def config_of(kind: Kind, k: float, base: TrainConfig, choice: Choice, attack: str = "fgsm") -> TrainConfig:
    """The settings of a kind's training at eps = k/255, all else as in `base`. `attack`: the adversary's."""
    if kind.level:
        return base.with_(attack="none", epochs=longer(base, attack) if kind.key == "same" else base.epochs)
    name = attack if kind.key == "adversary" else kind.key
    own: dict[str, object] = {"attack": name, "eps": k / 255}
    if name in NOISES:
        match = MATCHES[choice.match]
        own["noise_norm"] = None if match == "plain" else match
        own["gaussian_by"] = "variance" if kind.where["attack"] == "gaussian-variance" else "std"
    return base.with_(**own)


def point_of(config: TrainConfig, base: TrainConfig, attack: str = "fgsm") -> tuple[str, float]:
    """(kind, k) of a training, the reverse of `config_of`."""
    if config.attack == "none":
        return point_key("simclr" if config.epochs == base.epochs else "same", 0.0)
    return point_key("adversary" if config.attack == attack else config.attack, round(config.eps * 255, 6))


def point_key(key: str, k: float) -> tuple[str, float]:
    """(kind, k); a horizontal line has one point, at 0."""
    return key, 0.0 if key in LEVELS else k


class MissingPoints:
    """The trainings that complete a figure of these kinds. `changed(ended)`, a bound method: see `JobWatch`."""

    def __init__(self, source: SweepSource, kinds: Sequence[str], threads: int, changed: Callable[[bool], None]):
        self.source, self.kinds, self.threads = source, kinds, threads
        self.jobs = JobWatch(source.out, self._of_figure, changed)
        self.why_not = "" if source.grows else "settings or images of this sweep are not kept"
        self._a_pass: float | None = None  # seconds of a forward pass of an image on this machine
        self._needed = False  # a card shows how long a training takes

    @property
    def attack(self) -> str:
        """The attack that is called the adversary."""
        return adversary(self.source.training, self.source.base)

    def start(self, scene: Scene, key: str, k: float) -> BackgroundTraining:
        """Start to train the seeds that a point lacks."""
        name = f"{scene.kinds[key].name} at {k:g}/255"
        if self.why_not:
            raise UserError(f"This point cannot be computed here: {self.why_not}.")
        cells = self.lacking(scene, key, k)
        if not cells:
            raise UserError(f"{name} has all its seeds.")
        if point_key(key, k) in {(own, at) for own, at, _ in self.under_way(scene)}:
            raise UserError(f"{name} is being computed.")
        return self.jobs.start(cells, self.seconds(cells), self.threads)

    def lacking(self, scene: Scene, key: str, k: float) -> list[Cell]:
        """The cells of the seeds that a point lacks."""
        if self.source.base is None or not scene.choice.training:
            return []
        point, config = scene.at(key, k), self._config(scene, key, k)
        seeds = [seed for seed in self.source.seeds if point is None or seed not in point.values]
        return [Cell(config.with_(seed=seed), self.source.measure) for seed in seeds]

    def command(self, scene: Scene, key: str, k: float) -> str:
        """The command that trains a point on another machine."""
        return "" if self.source.base is None else sweep_command(self._config(scene, key, k), self.source.seeds)

    def seconds(self, cells: list[Cell]) -> float | None:
        """Estimated seconds that cells take on this machine; None until a pass was timed."""
        self._needed = True
        return None if self._a_pass is None else price_of(cells, self._a_pass)

    def price(self, cells: list[Cell]) -> str:
        """'3 seeds, about 9 min on this machine'."""
        seconds, n = self.seconds(cells), len(cells)
        text = "its time is being measured" if seconds is None else f"about {duration(seconds)} on this machine"
        return f"{n} seed{'s' * (n != 1)}, {text}"

    def measure(self, session: Session) -> bool:
        """Time a forward pass on this machine where a card needs it and it is not known; False where there is nothing to do."""
        base = self.source.base
        if not self._needed or self._a_pass is not None or self.why_not or base is None:
            return False
        try:
            session.set(base.dataset)  # refuses to download
            self._a_pass = seconds_a_pass(base, self.threads)
        except UserError as error:
            self.why_not = str(error).rstrip(".")
        return True

    def points(self, job: BackgroundTraining) -> dict[tuple[str, float], TrainConfig]:
        """(kind, k) of what a job has left to train, in its order, with the settings."""
        base, cells = self.source.base, zip(job.cells, job.finished(), strict=True)
        if base is None:
            return {}
        own = [(point_of(cell.config, base, self.attack), cell.config, done) for cell, done in cells if cell.trained]
        own = [(at, config, done) for at, config, done in own if at[0] in self.kinds]
        left = [(at, config) for at, config, done in own if not done]
        return dict(left or [(at, config) for at, config, _ in own])

    def under_way(self, scene: Scene) -> list[tuple[str, float, str]]:
        """(kind, k, 'computing' or 'waiting') of the jobs' points that belong to this figure."""
        found = []
        for job in self.jobs:
            if job.alive:
                words = ["computing" if job.state["state"] == "running" else "waiting"] + ["waiting"] * len(job.cells)
                points = self.points(job).items()
                found += [(*at, word) for (at, c), word in zip(points, words, strict=False) if self._on(scene, at, c)]
        return found

    def requested(self, scene: Scene) -> set[tuple[str, float]]:
        """(kind, k) of all jobs' points that belong to this figure, including ended jobs: each has a separate card."""
        return {at for job in self.jobs for at, config in self.points(job).items() if self._on(scene, at, config)}

    def running(self) -> int:
        """Jobs that have not ended."""
        return sum(job.alive for job in self.jobs)

    def kind(self, job: BackgroundTraining) -> tuple[Kind, float]:
        """The point that a job computes now."""
        key, k = next(iter(self.points(job)))
        role, name = KINDS[key]
        rivals = key == "adversary" and set(OTHERS) & set(
            self.kinds
        )  # beside other attacks it is called by its own name
        return Kind(key, role, TITLES[self.attack] if rivals else name, {}, key in LEVELS), k

    def act(self, verb: str, name: str) -> None:
        """Handle a button of a job's card: 'stop', 'forget', or 'again', which resumes the job."""
        job = self.jobs[name]
        if verb == "stop":
            job.stop()
        elif verb == "forget":
            self.jobs.forget(name)
        else:
            self.jobs.again(name, self.seconds(job.cells))

    def _config(self, scene: Scene, key: str, k: float) -> TrainConfig:
        assert self.source.base is not None
        return config_of(scene.kinds[key], k, self.source.base, scene.choice, self.attack)

    def _of_figure(self, job: BackgroundTraining) -> bool:
        """Whether a job trains points of this figure, wherever it was started."""
        base, data = self.source.base, self.source.data
        if base is None or (data and not set(job.data) <= set(data)):
            return False
        cells = [cell for cell in job.cells if cell.trained and cell.measure == self.source.measure]
        own = [cell.config for cell in cells if point_of(cell.config, base, self.attack)[0] in self.kinds]
        return any(same_figure(config.to_dict(), base) for config in own)

    def _on(self, scene: Scene, at: tuple[str, float], config: TrainConfig) -> bool:
        """Whether a training makes a point of the chart on the screen."""
        base, kind = self.source.base, scene.kinds.get(at[0])
        if not scene.choice.training or base is None or kind is None:
            return False
        wanted = config_of(kind, at[1], base, scene.choice, self.attack).with_(eps=config.eps, seed=config.seed)
        return Cell(wanted).training("") == Cell(config).training("")
