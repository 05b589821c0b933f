"""What a person sees while a study runs: stages with bars on stderr, so that stdout stays for the result."""

from __future__ import annotations

import os
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from steelyard.study_file import LoadedStudy


class Display:
    """Progress bars of one run. On a terminal that is none, a line a stage and what is worth keeping."""

    def __init__(self, loaded: LoadedStudy, head: str | None = None) -> None:
        # Our own copy of stderr: while a step runs Dagster points the process's own at a file.
        self._stream = os.fdopen(os.dup(2), "w")
        self.console = Console(file=self._stream)
        self._bars = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=self.console,
            transient=False,
            disable=not self.console.is_terminal,
        )
        self._task: TaskID | None = None
        self._stage, self._total, self._done = "", 0, 0
        study = loaded.study
        self.say(
            head
            or f"{study.study}: {len(study.arms)} arms, {len(study.load_points)} load points, {study.blocks} blocks, "
            f"{len(study.suites)} suites"
        )

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        self._stream.flush()

    def stage(self, name: str, total: int, done: int = 0) -> None:
        """A new bar; the one before stays as it ended."""
        self._stage, self._total, self._done = name, total, done
        self._task = self._bars.add_task(name, total=total, completed=done, note="")
        if not self.console.is_terminal:
            self.say(f"{name}: {total - done} to do" + (f", {done} already stored" if done else ""))

    def advance(self, note: str = "") -> None:
        """One unit done. Off a terminal every tenth of a stage is a line, so that a log shows a run is alive."""
        self._done += 1
        if self._task is not None:
            self._bars.update(self._task, advance=1, note=note)
        if not self.console.is_terminal and self._done * 10 // self._total > (self._done - 1) * 10 // self._total:
            self.say(f"{self._stage}: {self._done} of {self._total}")

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, style="dim", highlight=False, markup=False)
