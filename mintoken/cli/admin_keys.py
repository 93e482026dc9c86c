"""`mintoken admin-keys`: the keys of scripts that ask the control plane."""

from typing import Annotated

import typer

from mintoken import admin, documents, members
from mintoken.cli.base import AsJson, ConfigPath, configured, in_store, show, show_list
from mintoken.clock import utc_ms
from mintoken.models import Directory
from mintoken.people import AdminKey, Role
from mintoken.stores.base import Store

COLUMNS = {
    "id": "ID",
    "name": "Name",
    "account": "Account",
    "prefix": "Starts with",
    "role": "Role",
    "state": "State",
    "created_at": "Created",
}

admin_keys = typer.Typer(no_args_is_help=True)


@admin_keys.callback()
def _group(config: ConfigPath = None) -> None:
    """The mt_admin_... keys of scripts that ask the control plane."""


@admin_keys.command()
def create(
    name: Annotated[str, typer.Argument(help="A name for people.")],
    role: Annotated[
        Role,
        typer.Option(help="owner: everything; admin: keys and rules; viewer: looks only."),
    ] = Role.VIEWER,
    account: Annotated[
        str, typer.Option(metavar="NAME", help="Whose; an account's name or id.")
    ] = admin.FIRST_ACCOUNT,
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make an admin key and print it, this one time."""
    options = configured(config)

    async def work(store: Store) -> tuple[members.IssuedAdminKey, Directory]:
        issued = await members.create_admin_key(
            store, options.storage.data_dir, account, name, role, now_ms=utc_ms()
        )
        return issued, await admin.everything(store)

    issued, directory = in_store(options, work)
    shown = documents.admin_key_document(issued.key, directory)
    sentence = f"Admin key {issued.key.name}, shown this one time:\n\n  {issued.token}\n"
    show({"id": issued.key.id, "key": issued.token} | shown, sentence, as_json=as_json)


@admin_keys.command("list")
def list_(config: ConfigPath = None, *, as_json: AsJson = False) -> None:
    """Show the admin keys, without their secrets."""

    async def work(store: Store) -> tuple[list[AdminKey], Directory]:
        return await store.admin_keys(), await admin.everything(store)

    found, directory = in_store(configured(config), work, looks=True)
    rows = [documents.admin_key_document(key, directory) for key in found]
    show_list(rows, COLUMNS, as_json=as_json, no_limit_at_0=())


@admin_keys.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id or name.")],
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """End an admin key for good, at once."""

    async def work(store: Store) -> tuple[AdminKey, Directory]:
        ended = await members.revoke_admin_key(store, key, now_ms=utc_ms())
        return ended, await admin.everything(store)

    ended, directory = in_store(configured(config), work)
    document = documents.admin_key_document(ended, directory)
    show(document, f"Admin key {ended.name} is revoked.", as_json=as_json)
