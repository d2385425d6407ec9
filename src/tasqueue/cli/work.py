"""`tasqueue worker`: an application's worker processes, always under a supervisor, also when there is only one."""

from __future__ import annotations

import os

import click

from .target import Target, app_target_options

LEVELS = ("debug", "info", "warning", "error")


@click.command()
@app_target_options
@click.argument("app", metavar="APP:SERVER")
@click.option(
    "-q", "--queue", "queues", multiple=True, help="Only this one; may be repeated.  [default: those of all tasks]"
)
@click.option("-p", "--processes", type=click.IntRange(1, 1000), default=1, show_default=True, help="Worker processes.")
@click.option("-c", "--concurrency", type=click.IntRange(1, 100_000), help="Jobs at once, per process and queue.")
@click.option("--grace", type=click.FloatRange(0), metavar="S", help="Seconds that running jobs have at the end.")
@click.option(
    "--log-level",
    type=click.Choice(LEVELS, case_sensitive=False),
    default="info",
    envvar="TASQUEUE_LOG_LEVEL",
    show_default=True,
    help="Of what goes to stderr, when the application has no handlers of its own.",
)
def worker(
    target: Target,
    app: str,
    queues: tuple[str, ...],
    processes: int,
    concurrency: int | None,
    grace: float | None,
    log_level: str,
) -> None:
    """Run the jobs of APP:SERVER, as `jobs:srv` for `srv = Server()` in jobs.py.

    SIGTERM and SIGINT drain, a second one ends at once, SIGHUP loads the application anew.
    """
    from ..runtime.main import supervise
    from ..runtime.supervisor import Supervisor

    tasks = target.app(app).get_tasks()
    if not tasks:
        click.echo(
            f"Warning: {app} has no tasks, so there is nothing to run; is the module that defines them imported?",
            err=True,
        )
    os.environ["TASQUEUE_LOG_LEVEL"] = log_level.upper()  # for the worker processes, too
    supervisor = Supervisor(
        app,
        processes=processes,
        queues=list(queues) or None,
        concurrency=concurrency,
        grace=grace,
    )
    raise SystemExit(supervise(supervisor))
