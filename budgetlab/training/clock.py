"""Seconds of training, on the processor's clock or by device events."""

import time

import torch

__all__ = ["Clock"]


class Clock:
    """Measures stretches of training; what lies between them is not counted.

    On a GPU the work runs behind the program, so events on the device are used and
    read once at the end of a stretch. ``waiting=True`` waits for the device at every
    reading instead, which a budget in seconds needs.
    """

    def __init__(self, device: torch.device, waiting: bool = False):
        self.on_gpu = device.type == "cuda"
        self.waiting = waiting
        self._begun = 0.0
        self._event: torch.cuda.Event | None = None

    def start(self) -> None:
        """Begin a stretch."""
        if self.on_gpu and not self.waiting:
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record()
        self._begun = time.perf_counter()

    def read(self) -> float | None:
        """Seconds since the start, or None where reading would stall the device."""
        if self.on_gpu and not self.waiting:
            return None
        return self.stop() if self.on_gpu else time.perf_counter() - self._begun

    def skip(self, seconds: float) -> None:
        """Leave out what was not training, such as drawing a picture of it."""
        self._begun += seconds

    def stop(self) -> float:
        """Seconds of the stretch; waits until the device has finished it."""
        if self._event is not None:
            end = torch.cuda.Event(enable_timing=True)
            end.record()
            end.synchronize()
            return self._event.elapsed_time(end) / 1000
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - self._begun
