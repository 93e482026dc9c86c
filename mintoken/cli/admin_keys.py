"""`mintoken admin-keys`: the keys of scripts that ask the control plane."""

from typing import Annotated

import typer

from mintoken import admin, documents, members
from mintoken.cli.base import (
    AsJson,
    AsRole,
    ConfigPath,
    OfAccount,
    and_everything,
    configured,
    show,
    show_list,
)
from mintoken.clock import utc_ms
from mintoken.people import Role

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
    role: AsRole = Role.VIEWER,
    account: OfAccount = admin.FIRST_ACCOUNT,
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make an admin key and print it, this one time."""
    options = configured(config)

    issued, directory = and_everything(
        options,
        lambda store: members.create_admin_key(
            store, options.storage.data_dir, account, name, role, now_ms=utc_ms()
        ),
    )
    shown = documents.admin_key_document(issued.key, directory)
    sentence = f"Admin key {issued.key.name}, shown this one time:\n\n  {issued.token}\n"
    show({"id": issued.key.id, "key": issued.token} | shown, sentence, as_json=as_json)


@admin_keys.command("list")
def list_(config: ConfigPath = None, *, as_json: AsJson = False) -> None:
    """Show the admin keys, without their secrets."""
    found, directory = and_everything(
        configured(config), lambda store: store.admin_keys(), looks=True
    )
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
    ended, directory = and_everything(
        configured(config), lambda store: members.revoke_admin_key(store, key, now_ms=utc_ms())
    )
    document = documents.admin_key_document(ended, directory)
    show(document, f"Admin key {ended.name} is revoked.", as_json=as_json)
