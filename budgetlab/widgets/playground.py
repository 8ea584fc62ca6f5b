"""Widget to watch two methods choose among 2-D points, epoch by epoch."""

import shutil
import tempfile
import weakref
from typing import Any

from budgetlab import plots, samplers
from budgetlab.config import RunConfig
from budgetlab.data.builtin import PROBLEMS
from budgetlab.errors import counted
from budgetlab.explore import Frame, PointRun, frame_of, grid_of
from budgetlab.training import Run, load_data
from budgetlab.widgets.background import Player, RateLimiter, Session, Trainer
from budgetlab.widgets.controls import FigurePanel, Number, button, choice, ready, row, seed_box

AS_SIZE, AS_COLOUR = "size", "colour"
DEFAULTS = {"epochs": 30, "batch_size": 32, "budget": 0.2, "lr": 0.05}
SPEEDS = {"slow": 1.0, "medium": 0.5, "fast": 0.2}


class SamplerPlayground(Trainer):
    """Compare two methods on the same 2-D points, from the same initial weights.

    Train runs both; every epoch is kept, so that moving between epochs only redraws. The
    background shows the network's prediction; points picked in the epoch have a dark edge, and
    size or colour encodes their probability.

    - ``methods``: the two methods.
    - ``problem``: one of :data:`budgetlab.data.builtin.PROBLEMS`.
    - ``name``: a new playground of the same name replaces the old one.
    - ``**settings``: fields of :class:`budgetlab.RunConfig`, such as ``limit`` or ``label_noise``.
      Records are kept only if ``out`` is given.

    Attributes
    ----------
    problem, left, right, budget, epochs, seed, epoch, way
        The controls; set their ``value``.
    runs
        The two runs, for :func:`budgetlab.explore.playground`.
    frames
        Their frames by side: lists of :class:`~budgetlab.explore.Frame`.

    Examples
    --------
    >>> playground = bl.widgets.SamplerPlayground(("unif-SGD", "p-SGD"))  # doctest: +SKIP
    >>> left, right = playground.fit()  # Train, in this cell  # doctest: +SKIP
    """

    what, elsewhere = "playground", "an argument of SamplerPlayground"

    def __init__(
        self,
        methods: tuple[str, str] = ("unif-SGD", "p-SGD"),
        problem: str = "moons",
        *,
        name: str = "playground",
        **settings: Any,
    ):
        super().__init__(name)
        if "out" not in settings:
            # Temporary runs must not end up among the records of experiments.
            settings["out"] = tempfile.mkdtemp(prefix="budgetlab-playground-")
            weakref.finalize(self, shutil.rmtree, settings["out"], ignore_errors=True)
        self.base = RunConfig(**(DEFAULTS | settings | {"dataset": f"points:{problem}"}))
        self._methods = methods
        self._pace, self._training = RateLimiter(), 0
        self._build_controls(problem)
        self.picture = FigurePanel(900, 470, columns=2, left=0.05, right=0.985, top=0.9,
                                    bottom=0.06, wspace=0.12)  # fmt: skip
        self._load(self.base)
        self.children = (
            row(self.problem, self.left, self.right),
            row(self.budget, self.epochs, self.seed),
            row(self.train_button, self.stop_button),
            row(self.player.button, self.epoch, self.back, self.forth, self.speed, self.way),
            self.status,
            self.picture,
        )
        self.claim(self.train_button, self.stop_button)
        self.status.say("Ready. Train runs both methods; then play, or choose an epoch.")
        self.update()

    def _build_controls(self, problem: str) -> None:
        self.player = Player(self._play_first, self._play_on, SPEEDS["medium"])
        self.control(
            problem=choice("Points", list(PROBLEMS), problem, "11em"),
            left=choice("Left", samplers.names(), self._methods[0], "15em"),
            right=choice("Right", samplers.names(), self._methods[1], "15em"),
            budget=Number("Budget", self.base.budget, 0.01, 1.0, 0.01),
            epochs=Number("Epochs", self.base.epochs, 1, 200, 1),
            seed=seed_box(self.base.seed),
            epoch=Number("Epoch", 1, 1, 1, 1),
            speed=choice("Speed", [*SPEEDS.items()], SPEEDS["medium"], "11em"),
            way=choice("Probability as", [AS_SIZE, AS_COLOUR], AS_SIZE, "13em"),
        )
        self.train_button = button("Train both", self.train, "bl-train", "Train the two runs",
                                   primary=True)  # fmt: skip
        self.stop_button = button("Stop", self.stop, "bl-stop", "Stop both after their step")
        self.stop_button.disabled = True
        self.back = button("Back", lambda: self._go(-1), "bl-back", "One epoch back")
        self.forth = button("Step", lambda: self._go(1), "bl-forth", "One epoch on")

    def changed(self, name: str) -> None:
        """Redraw for ``epoch`` and ``way``, and show other points; the rest is for training."""
        self.player.seconds = self.speed.value
        if self.status.is_problem and name not in ("epoch", "speed", "way"):
            self.status.say("")  # it was of the settings before
        if name == "problem":
            self.player.pause()
            with self.status.showing_errors():
                self._load(self.base.replace(dataset=f"points:{self.problem.value}"))
                self.status.say("Ready. Train runs both methods on these points.")
        if name in ("epoch", "way", "problem"):
            self.update()

    @property
    def configs(self) -> tuple[RunConfig, RunConfig]:
        """Return the settings of the two runs; InputError if they are inconsistent."""
        common = self.base.replace(
            dataset=f"points:{self.problem.value}",
            budget=self.budget.value,
            epochs=self.epochs.value,
            seed=self.seed.value,
        )
        return common.replace(method=self.left.value), common.replace(method=self.right.value)

    @property
    def frames(self) -> tuple[list[Frame], list[Frame]]:
        """Frames of each epoch, by side."""
        return self.runs[0].frames, self.runs[1].frames

    @property
    def _last(self) -> int:
        return max(map(len, self.frames))

    def train(self) -> None:
        """Train both runs in the background."""
        self.train_in_background(self._begin)

    def fit(self) -> tuple[list[Frame], list[Frame]]:
        """Train both runs in the foreground, raise errors, and return the frames of the two."""
        self.train_in_foreground(self._begin)
        return self.frames

    def stop(self) -> None:
        """Stop both runs after the current step."""
        for session in self.sessions:
            session.stop()

    def detach(self) -> None:
        """Stop and never draw again, as another playground of this name has taken over."""
        self.player.pause()
        super().detach()

    def _begin(self) -> list[Session]:
        self.refuse(training=any(session.running for session in self.sessions))
        configs = self.configs
        self._load(configs[0])
        self.sessions = [
            Session(config, splits=lambda _: self.splits, on_epoch=self._keeper(frames),
                    on_end=self._on_end)
            for config, frames in zip(configs, self.frames, strict=True)
        ]  # fmt: skip
        self._training = len(self.sessions)
        self._set_training(True)
        self._pace.begin()
        self.player.pause()
        self.status.say("Training.")
        self.update()
        return self.sessions

    def _set_training(self, training: bool) -> None:
        self.train_button.disabled = self.problem.disabled = training
        self.stop_button.disabled = not training

    def _load(self, config: RunConfig) -> None:
        self.splits = load_data(config, progress=False)
        self.grid, _ = grid_of(self.splits.train)
        points = self.splits.train.x.cpu().numpy(), self.splits.train.y.cpu().numpy()
        self.runs = PointRun(self.left.value, *points), PointRun(self.right.value, *points)
        self.epoch.limit(1, 1)

    def _keeper(self, frames: list[Frame]) -> Any:
        def keep(run: Run) -> None:
            frames.append(frame_of(run, self.grid))
            with self._lock:
                if self._pace.due() and not self._detached:
                    with self._pace.working():
                        self._follow()

        return keep

    def _follow(self) -> None:
        """Show the newest epoch during training."""
        self.epoch.limit(1, self._last)
        self.epoch.value = self._last
        self.status.say(f"Training: {self._last} epochs so far.")

    def _on_end(self, session: Session) -> None:
        with self._lock, self.status.showing_errors():
            self._training -= 1
            if self._detached or self._training:
                return
            self.epoch.limit(1, max(1, self._last))
            self.epoch.value = max(1, self._last)
            self._set_training(False)
            self.update()
            errors = [s.error for s in self.sessions if s.error is not None]
            wrong = [error for error in errors if not isinstance(error, KeyboardInterrupt)]
            if wrong:
                self.status.complain(wrong[0])
                return
            end = "Stopped" if any(s.stopped for s in self.sessions) else "Finished"
            kept = counted(self._last, "epoch")
            self.status.say(f"{end}: {kept} kept. Play, step, or choose an epoch.")

    def _go(self, by: int) -> None:
        self.epoch.value = self.epoch.value + by

    def _play_first(self) -> None:
        self.epoch.value = 1 if self.epoch.value >= self._last else self.epoch.value + 1

    def _play_on(self) -> bool:
        self.epoch.value = min(self.epoch.value + 1, self._last)
        return self.epoch.value < self._last

    def update(self) -> None:
        """Show the chosen epoch; a shorter run stays at its last one."""
        with self._lock, self.status.showing_errors():
            place, said = self.epoch.value - 1, []
            for ax, run in zip(self.picture.axes, self.runs, strict=True):
                shown: dict[str, Any] = {"title": f"{run.name}: not trained so far"}
                if run.frames:
                    now = run.frames[min(place, len(run.frames) - 1)]
                    shown = {"chance": now.chance, "picked": now.picked,
                             "shade": self.way.value == AS_COLOUR,
                             "surface": (now.winner, now.sure),
                             "title": now.headline(run.name)}  # fmt: skip
                plots.points_map(run.x, run.y, **shown, ax=ready(ax))
                ax.title.set_fontsize(10)
                said.append(plots.alt_text(ax))
            self.picture.show(f"Epoch {place + 1} of two runs on the same points. {' '.join(said)}")
