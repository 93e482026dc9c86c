"""`mintoken usage`: how many requests and tokens, by day, key, model or outcome."""

from typing import Annotated

import typer

from mintoken import admin, tables
from mintoken.cli.base import AsJson, ConfigPath, checked_month, configured, in_store
from mintoken.clock import month_of, utc_ms
from mintoken.models import Directory
from mintoken.reports import PURGED, GroupBy, UsageLine
from mintoken.stores.base import Store

COUNTS = {
    "requests": "Requests",
    "input_tokens": "Input",
    "cached_tokens": "Cached",
    "output_tokens": "Output",
    "reasoning_tokens": "Reasoning",
    "injected_tokens": "Injected",
    "charged_tokens": "Charged",
}
"""The sums of a report, in the order in which they are shown."""


def usage(
    account: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only of this account, by name or id.")
    ] = None,
    month: Annotated[
        str | None, typer.Option(metavar="YYYY-MM", help="A month (UTC); else the present one.")
    ] = None,
    by: Annotated[GroupBy, typer.Option(help="What to add up by.")] = GroupBy.DAY,
    config: ConfigPath = None,
    *,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, without the total.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what was used: requests that ended, and their tokens."""
    if as_csv and as_json:
        raise typer.BadParameter("Choose one of --csv and --json.", param_hint="--csv")
    month = checked_month(month, "--month") if month else month_of(utc_ms())

    async def work(store: Store) -> tuple[list[UsageLine], Directory]:
        directory = await admin.everything(store)
        asked = admin.find_account(directory, account).id if account else None
        return await store.report(month=month, group_by=by, account_id=asked), directory

    lines, directory = in_store(configured(config), work, looks=True)
    rows = [_row(line, by, directory) for line in lines]
    total: dict[str, object] = {"group": "Total"}
    total |= {name: sum(getattr(line, name) for line in lines) for name in COUNTS}
    if as_json:
        del total["group"]
        tables.print_json({"month": month, "by": by.value, "rows": rows, "total": total})
    elif as_csv:
        tables.print_csv(rows, ["group", *COUNTS])
    else:
        tables.print_table(
            rows, {"group": by.capitalize(), **COUNTS}, total=total, title=f"Tokens of {month}, UTC"
        )


def _row(line: UsageLine, by: GroupBy, directory: Directory) -> dict[str, object]:
    row = {"group": line.group} | {name: getattr(line, name) for name in COUNTS}
    if by is GroupBy.KEY and line.group != PURGED:
        key = admin.find_key(directory, line.group)
        row |= {"group": f"{key.name} ({key.id})", "key_id": key.id, "key_name": key.name}
    return row
