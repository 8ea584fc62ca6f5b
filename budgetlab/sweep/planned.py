"""One run of a grid: what it is, how it stands, and the row that says so."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from budgetlab.config import RunConfig
from budgetlab.records import Record
from budgetlab.sweep.found import share_done
from budgetlab.sweep.grid import planned_cost
from budgetlab.sweep.worker import Outcome, summary_of

__all__ = ["Planned"]

RESULTS = ("record", "test_accuracy", "test_loss", "epochs", "steps", "trained_samples",
           "looked_samples", "flops", "seconds")  # fmt: skip


@dataclass(eq=False)
class Planned:
    """One run of a grid.

    Attributes
    ----------
    run
        Its settings.
    name
        Short, for people; no two runs of a grid have the same.
    status
        ``planned``, or as its record says: ``running``, ``finished``, ``stopped``,
        ``failed``.
    how
        ``kept`` as it was found, ``resumed`` or ``trained``; empty before it ended.
    message
        Why it failed.
    summary
        As ``budgetlab train --json`` prints it; empty while there is none.
    share
        Share of its budget spent, 0 to 1.
    lost
        How often the worker that trained it was lost.
    """

    run: RunConfig
    name: str
    status: str = "planned"
    how: str = ""
    message: str = ""
    summary: dict[str, Any] = field(default_factory=dict)
    share: float = 0.0
    lost: int = 0

    @property
    def cost(self) -> float:
        """About what it costs, in samples trained on."""
        return planned_cost(self.run)

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do unless a failure is tried again."""
        return self.status in ("finished", "failed")

    @property
    def done(self) -> float:
        """Cost of what needs no more work."""
        return self.cost * (1.0 if self.ended else self.share)

    @property
    def record(self) -> Path | None:
        """Its record, if there is one."""
        path = self.summary.get("record")
        return Path(path) if path else None

    def take(self, record: Record | None) -> None:
        """Stand as the record says, or as planned where there is none."""
        if record is None:
            self.status, self.message, self.summary, self.share = "planned", "", {}, 0.0
            return
        self.status = record.status
        self.message = str(record.about.get("message", ""))
        self.summary = summary_of(record)
        self.share = share_done(record)

    def mark(self, held: bool) -> None:
        """Tell a run that somebody is at from one that was cut off."""
        if held:
            self.status = "running"
        elif self.status == "running":
            self.status = "stopped"

    def look(self, record: Record | None) -> None:
        """See how far it is, while it runs."""
        if record is not None and not self.ended:
            self.summary, self.share = summary_of(record), share_done(record)

    def end(self, outcome: Outcome) -> None:
        """Stand as the worker says."""
        self.status, self.how, self.message = outcome.status, outcome.how, outcome.message
        self.summary = outcome.summary or self.summary
        if outcome.status == "finished" and not (self.record and self.record.is_dir()):
            self.status = "failed"
            self.message = (
                f"its record '{self.record}' is not to be found on this machine: give a folder "
                "for out that all machines share"
            )

    def row(self, settings: list[str]) -> dict[str, Any]:
        """What it is, what came out, how it stands, and the named settings."""
        run = self.run
        names = ("method", "augmentation", "budget", "budget_unit", "seed", *settings)
        about = {name: getattr(run, name) for name in names}
        results = dict.fromkeys(RESULTS) | self.summary
        state = {"status": self.status, "how": self.how, "message": self.message}
        return {"id": run.id} | about | {"dataset": run.dataset_name} | results | state
