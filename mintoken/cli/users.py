"""`mintoken users`: who signs in to the dashboard and the control plane."""

import sys
from typing import Annotated, TypeVar

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
    "role": "Role",
    "created_at": "Created",
}

_T = TypeVar("_T")
UserRef = Annotated[str, typer.Argument(metavar="NAME", help="The user's name or id.")]

users = typer.Typer(no_args_is_help=True)


@users.callback()
def _group(config: ConfigPath = None) -> None:
    """Who signs in on the admin listener."""


@users.command()
def create(
    name: Annotated[str, typer.Argument(help="The name to sign in with.")],
    role: AsRole = Role.OWNER,
    account: OfAccount = admin.FIRST_ACCOUNT,
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Let somebody sign in; asks for the password, or reads it from standard input."""
    options, password_hash = configured(config), _new_password_hash()
    user, directory = and_everything(
        options,
        lambda store: members.create_user(
            store, account, name, role, password_hash=password_hash, now_ms=utc_ms()
        ),
    )
    document = documents.user_document(user, directory)
    show(document, f"User {user.name} may sign in.", as_json=as_json)


@users.command("list")
def list_(config: ConfigPath = None, *, as_json: AsJson = False) -> None:
    """Show the users."""
    found, directory = and_everything(configured(config), lambda store: store.users(), looks=True)
    rows = [documents.user_document(user, directory) for user in found]
    show_list(rows, COLUMNS, as_json=as_json, no_limit_at_0=())


@users.command()
def remove(user: UserRef, config: ConfigPath = None, *, as_json: AsJson = False) -> None:
    """Delete a user, who is signed out at once."""
    removed, directory = and_everything(
        configured(config), lambda store: members.remove_user(store, user)
    )
    document = documents.user_document(removed, directory)
    show(document, f"User {removed.name} is removed.", as_json=as_json)


@users.command()
def password(user: UserRef, config: ConfigPath = None, *, as_json: AsJson = False) -> None:
    """Give a user a new password, asked for or from standard input; ends his sessions."""
    options = configured(config)
    and_everything(options, lambda store: members.find_user(store, user))
    password_hash = _new_password_hash()
    changed, directory = and_everything(
        options, lambda store: members.change_password(store, user, password_hash=password_hash)
    )
    document = documents.user_document(changed, directory)
    show(document, f"User {changed.name} has a new password.", as_json=as_json)


def _new_password_hash() -> str:
    """The hash of a password that somebody types twice, or of the first line of standard input."""
    from mintoken.passwords import hash_password, wrong_with  # Only here: it loads C code.

    if sys.stdin.isatty():
        given = str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    else:
        given = sys.stdin.readline().rstrip("\r\n")
    if (wrong := wrong_with(given)) is not None:
        raise admin.RefusedError(wrong)
    return hash_password(given)
