"""`mintoken accounts`: who pays, and how many tokens a month."""

from typing import Annotated

import typer

from mintoken import admin, documents
from mintoken.cli.base import (
    NOTHING_GIVEN,
    AsJson,
    ConfigPath,
    NewName,
    configured,
    in_store,
    show,
    show_list,
)
from mintoken.clock import month_of, utc_ms
from mintoken.reports import GroupBy
from mintoken.stores.base import Store

COLUMNS = {
    "id": "ID",
    "name": "Name",
    "used_tokens": "Used this month",
    "monthly_tokens": "Limit",
    "created_at": "Created",
}

AccountRef = Annotated[str, typer.Argument(metavar="NAME", help="The account's name or id.")]
MonthlyTokens = Annotated[
    int | None,
    typer.Option(min=0, max=admin.MONTHLY_TOKENS_LIMIT, help="Tokens a month; 0 is no limit."),
]

accounts = typer.Typer(no_args_is_help=True)


@accounts.callback()
def _group(config: ConfigPath = None) -> None:
    """Who pays, and how many tokens a month."""


@accounts.command()
def create(
    name: Annotated[str, typer.Argument(help="A name for people.")],
    monthly_tokens: MonthlyTokens = None,
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make an account; its keys share its quota."""
    account = in_store(
        configured(config),
        lambda store: admin.create_account(
            store, name, monthly_tokens=monthly_tokens or 0, now_ms=utc_ms()
        ),
    )
    show(documents.account_document(account), f"Account {account.name} is made.", as_json=as_json)


@accounts.command("list")
def list_(config: ConfigPath = None, *, as_json: AsJson = False) -> None:
    """Show the accounts, and what they used this month (UTC) of their limits."""
    rows = in_store(configured(config), _rows, looks=True)
    show_list(rows, COLUMNS, as_json=as_json, no_limit_at_0=("monthly_tokens",))


async def _rows(store: Store) -> list[dict[str, object]]:
    rows = []
    for account in (await admin.everything(store)).accounts:
        lines = await store.report(
            month=month_of(utc_ms()), group_by=GroupBy.OUTCOME, account_id=account.id
        )
        used = sum(line.charged_tokens for line in lines)
        rows.append(documents.account_document(account) | {"used_tokens": used})
    return rows


@accounts.command()
def update(
    account: AccountRef,
    name: NewName = None,
    monthly_tokens: MonthlyTokens = None,
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Change what is given; a running server follows within a second."""
    if name is None and monthly_tokens is None:
        raise typer.BadParameter(NOTHING_GIVEN)
    changed = in_store(
        configured(config),
        lambda store: admin.update_account(
            store, account, name=name, monthly_tokens=monthly_tokens
        ),
    )
    show(
        documents.account_document(changed), f"Account {changed.name} is changed.", as_json=as_json
    )
