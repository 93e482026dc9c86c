"""`mintoken savings`: what was saved, measured against the control arm."""

from typing import Annotated

import msgspec
import typer

from mintoken import admin, documents, statement, tables
from mintoken.cli.base import AsJson, ConfigPath, configured, in_store, utc_moment
from mintoken.models import Directory, Key
from mintoken.pricing import load_prices
from mintoken.reports import ArmSample
from mintoken.savings import control_share, report
from mintoken.savings_shown import savings_shown
from mintoken.stores.base import Store


def savings(
    account: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only of this account, by name or id.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="ID", help="Only of this key, by name or id.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="Only from this ISO 8601 date on, in UTC.")
    ] = None,
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what was saved against the control arm, in tokens and money, and how sure that is."""
    options = configured(config)
    prices = load_prices(options.savings.prices)
    since_ms = utc_moment(since, "--since") if since else 0

    async def work(store: Store) -> tuple[list[ArmSample], list[Key], Directory]:
        directory = await admin.everything(store)
        account_id = admin.find_account(directory, account).id if account else None
        keys = _keys(directory, account_id, key)
        of = [keys[0].experiment] if key else None
        samples = await store.samples(since_ms=since_ms, account_id=account_id, experiments=of)
        return samples, keys, directory

    samples, keys, directory = in_store(options, work, looks=True)
    found = report(samples, prices, control_share=control_share(keys))
    stops = documents.stop_documents(directory, keys)
    if as_json:
        shown = savings_shown(found, prices, stops)
        tables.print_json({"since": since, **msgspec.to_builtins(shown)})
        return
    rows, total = [statement.row(line) for line in found.lines], statement.row(found.total)
    title = f"Savings since {since}, UTC" if since else "Savings"
    tables.print_table(rows, statement.COLUMNS, total=total, title=title)
    key_ref = keys[0].id if keys else "KEY"
    print(*statement.sentences(found, prices, key=key_ref, stops=stops), sep="\n")


def _keys(directory: Directory, account_id: str | None, key: str | None) -> list[Key]:
    """The keys that are asked about, those in use first. Raises RefusedError."""
    keys = [admin.find_key(directory, key)] if key else directory.keys
    keys = [one for one in keys if account_id in (None, one.account_id)]
    if key and not keys:
        raise admin.RefusedError(f"Key {key!r} is of another account.")
    return sorted(keys, key=lambda one: one.revoked_at is not None)
