"""How lists are shown: as a table for people, as JSON or CSV for programs."""

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, TextIO

import orjson
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

Row = Mapping[str, object]

PIPE_WIDTH = 1000
"""Columns where the output is no terminal: a table is as wide as it needs to be."""


def print_table(
    rows: Sequence[Row], columns: Mapping[str, str], *, total: Row | None = None, title: str = ""
) -> None:
    """Print the fields that `columns` names by their headings; the total goes below a line."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=total is not None, title=title or None)
    table.title_justify = "left"
    for field, heading in columns.items():
        values = [row[field] for row in (*rows, *([total] if total else ()))]
        table.add_column(
            heading,
            _cell(total[field]) if total is not None else "",
            justify="right" if any(isinstance(value, int) for value in values) else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(_cell(row[field]) for field in columns))
    console(sys.stdout).print(table)


def print_json(document: object) -> None:
    """Print one JSON document."""
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def print_csv(rows: Sequence[Row], fields: Sequence[str]) -> None:
    """Print a header line, then one line per row."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([_csv_cell(row[field]) for field in fields] for row in rows)


def console(stream: TextIO) -> Console:
    """Where to print for people; nothing is cut off in a pipe."""
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False)


class Tell(Protocol):
    """Takes how much is done, and a note for the text."""

    def __call__(self, done: float, note: str = "") -> None: ...


@contextmanager
def progress(text: str, *, total: float | None) -> Iterator[Tell]:
    """Show on a terminal how much is done, on stderr; elsewhere nothing.

    `text` is a format of rich's `task`, whose `fields` have the note. What the body gets takes how
    much of `total` is done.
    """
    columns = TextColumn(text), BarColumn(), TimeElapsedColumn()
    shown = Progress(
        *columns, console=console(sys.stderr), transient=True, disable=not sys.stderr.isatty()
    )
    with shown:
        task = shown.add_task("", total=total, note="")
        yield lambda done, note="": shown.update(task, completed=done, note=note)


def _cell(value: object) -> Text:
    match value:
        case None | "":
            return Text("-", style="dim")
        case bool():
            return Text("yes" if value else "no")
        case int():
            return Text(f"{value:,}")
        case _:
            # A Text, because a name may look like markup. Callers choose the names of models, so
            # what would steer the terminal is not shown.
            return Text("".join(c if c.isprintable() else "\ufffd" for c in str(value)))


def _csv_cell(value: object) -> object:
    # A spreadsheet would run a model's name that starts like a formula.
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
