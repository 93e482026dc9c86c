"""`mintoken keys`: the keys that applications send."""

import re
from typing import Annotated, TypeVar

import typer

from mintoken import admin, documents
from mintoken.arms import MOST_CONTROL
from mintoken.cli.base import (
    NOTHING_GIVEN,
    AsJson,
    ConfigPath,
    NewName,
    and_everything,
    configured,
    in_store,
    show,
    show_list,
    utc_moment,
)
from mintoken.clock import utc_ms, utc_text
from mintoken.models import Directory, Intensity

_T = TypeVar("_T")

COLUMNS = {
    "id": "ID",
    "name": "Name",
    "account": "Account",
    "prefix": "Starts with",
    "state": "State",
    "intensity": "Level",
    "smart_detect_enabled": "Smart",
    "rpm": "Per minute",
    "concurrency": "At once",
    "control": "Control %",
    "concise": "Concise %",
    "created_at": "Created",
    "expires_at": "Expires",
}
UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
LIMIT = 10**9

KeyRef = Annotated[str, typer.Argument(metavar="ID", help="The key's id or name.")]
Level = Annotated[
    Intensity | None, typer.Option(help="The level for requests that name none; 'full' at first.")
]
Smart = Annotated[
    bool | None,
    typer.Option(
        "--smart/--no-smart", help="Whether the level follows what is asked; off at first."
    ),
]
Expiry = Annotated[
    str | None, typer.Option(metavar="DATE", help="ISO 8601 date or time, in UTC; or 'never'.")
]
PerMinute = Annotated[
    int | None, typer.Option(min=0, max=LIMIT, help="Requests a minute; 0 is no limit.")
]
AtOnce = Annotated[
    int | None, typer.Option(min=0, max=LIMIT, help="Requests at the same time; 0 is no limit.")
]
Control = Annotated[
    int | None,
    typer.Option(
        min=0, max=MOST_CONTROL, help="Percent of conversations left as they are; measures savings."
    ),
]
Concise = Annotated[
    int | None,
    typer.Option(
        min=0, max=MOST_CONTROL, help='Percent that only gets "Answer concisely.", to compare with.'
    ),
]
AutoStop = Annotated[
    bool | None,
    typer.Option(
        "--auto-stop/--no-auto-stop",
        help="Whether a model on which nothing is saved gets no text any more; on at first.",
    ),
]

keys = typer.Typer(no_args_is_help=True)


@keys.callback()
def _group(config: ConfigPath = None) -> None:
    """The mt_live_... keys that applications send."""


@keys.command()
def create(
    account: Annotated[
        str, typer.Option(metavar="NAME", help="Whose key; an account's name or id.")
    ] = admin.FIRST_ACCOUNT,
    name: NewName = None,
    intensity: Level = None,
    smart: Smart = None,
    expires: Expiry = None,
    rpm: PerMinute = None,
    concurrency: AtOnce = None,
    control: Control = None,
    concise: Concise = None,
    auto_stop: AutoStop = None,
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this one time."""
    settings = admin.KeySettings(
        name=name,
        intensity=intensity,
        smart=smart,
        rpm=rpm,
        concurrency=concurrency,
        control=control,
        concise=concise,
        auto_stop=auto_stop,
        expires_at=_expiry_ms(expires),
    )
    options = configured(config)
    issued = and_everything(
        options,
        lambda store: admin.create_key(
            store, options.storage.data_dir, account, settings, now_ms=utc_ms()
        ),
    )
    _show_issued(*issued, as_json=as_json)


@keys.command("list")
def list_(config: ConfigPath = None, *, as_json: AsJson = False) -> None:
    """Show the keys, without their secrets."""
    directory = in_store(configured(config), admin.everything, looks=True)
    rows = [documents.key_document(key, directory, now_ms=utc_ms()) for key in directory.keys]
    show_list(rows, COLUMNS, as_json=as_json, no_limit_at_0=("rpm", "concurrency"))


@keys.command()
def update(
    key: KeyRef,
    name: NewName = None,
    intensity: Level = None,
    smart: Smart = None,
    expires: Expiry = None,
    rpm: PerMinute = None,
    concurrency: AtOnce = None,
    control: Control = None,
    concise: Concise = None,
    auto_stop: AutoStop = None,
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Change what is given; a running server follows within a second."""
    settings = admin.KeySettings(
        name=name,
        intensity=intensity,
        smart=smart,
        rpm=rpm,
        concurrency=concurrency,
        control=control,
        concise=concise,
        auto_stop=auto_stop,
        expires_at=_expiry_ms(expires),
    )
    if settings == admin.KeySettings():
        raise typer.BadParameter(NOTHING_GIVEN)
    changed, directory = and_everything(
        configured(config), lambda store: admin.update_key(store, key, settings, now_ms=utc_ms())
    )
    document = documents.key_document(changed, directory, now_ms=utc_ms())
    show(document, f"Key {changed.name} is changed.", as_json=as_json)


@keys.command()
def rotate(
    key: KeyRef,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old one still works: 30m, 24h, 7d.")
    ] = "24h",
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make a new key with the same name and settings; the old one ends after the overlap."""
    options, overlap_ms = configured(config), _duration_ms(overlap)
    issued = and_everything(
        options,
        lambda store: admin.rotate_key(
            store, options.storage.data_dir, key, overlap_ms=overlap_ms, now_ms=utc_ms()
        ),
    )
    _show_issued(*issued, as_json=as_json)


@keys.command()
def revoke(key: KeyRef, config: ConfigPath = None, *, as_json: AsJson = False) -> None:
    """End a key for good; a running server refuses it within a second."""
    ended, directory = and_everything(
        configured(config), lambda store: admin.revoke_key(store, key, now_ms=utc_ms())
    )
    document = documents.key_document(ended, directory, now_ms=utc_ms())
    sentence = f"Key {ended.name} is revoked."
    for key_before in admin.replaced_by(ended, directory, now_ms=utc_ms()):
        until = utc_text(key_before.expires_at)
        sentence += (
            f"\nThe key that it replaced still works until {until}. To end that too: "
            f"mintoken keys revoke {key_before.id}"
        )
    show(document, sentence, as_json=as_json)


def _show_issued(issued: admin.Issued, directory: Directory, *, as_json: bool) -> None:
    document = documents.key_document(issued.key, directory, now_ms=utc_ms())
    document = {"id": issued.key.id, "key": issued.token} | document
    sentences = (
        f"Key {issued.key.name} of account {document['account']}, shown this one time:\n\n"
        f"  {issued.token}\n"
    )
    if issued.replaces is not None:
        document["replaces"] = documents.key_document(issued.replaces, directory, now_ms=utc_ms())
        sentences += f"\nThe old one ends {utc_text(issued.replaces.expires_at)}."
    show(document, sentences, as_json=as_json)


def _expiry_ms(text: str | None) -> int | None:
    if text is None:
        return None
    if text == "never":
        return admin.NEVER
    return utc_moment(text, "--expires", besides=", or 'never'")


def _duration_ms(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,6})([smhd])|0", text)
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is no time. Give one like 30m, 24h, 7d or 0.", param_hint="--overlap"
        )
    return int(match[1] or 0) * UNIT_MS[match[2] or "s"]
