"""A progress bar: Rich's on a terminal, else a line for each tenth of the way."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import click

from ..terminal import rich_console


class Bar:
    """`with Bar(title) as bar: bar.show(done, total)`; `bar.say(text)` prints a line that stays."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._tenth = 0
        self._rich = None
        console = rich_console()
        if console is not None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._rich = Progress(
                TextColumn("{task.description}"),
                BarColumn(None),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=console,
            )
            self._task = self._rich.add_task(title, total=None)

    def __enter__(self) -> Self:
        if self._rich is not None:
            self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()

    def show(self, done: int, total: int) -> None:
        """So much of it is done."""
        if self._rich is not None:
            self._rich.update(self._task, completed=done, total=total, refresh=True)
        elif (tenth := 10 * done // total) > self._tenth:
            self._tenth = tenth
            click.echo(f"{self._title}: {done:,} of {total:,} done")

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self._rich is not None:
            self._rich.console.print(text)
        else:
            click.echo(text)
