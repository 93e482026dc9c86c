"""`mintoken rules`: what an account's own patterns do with its requests."""

import sys
from typing import Annotated

import typer

from mintoken import admin, admin_rules, tables
from mintoken.cli.base import (
    AsJson,
    ConfigPath,
    and_everything,
    configured,
    in_store,
    show,
    show_list,
)
from mintoken.clock import utc_ms
from mintoken.models import Decision, RuleAction
from mintoken.rules import MAX_PRIORITY

COLUMNS = {
    "id": "ID",
    "account": "Account",
    "priority": "Priority",
    "action": "Action",
    "pattern": "Pattern",
    "created_at": "Created",
}

Whose = typer.Option("--account", metavar="NAME", help="Whose rules; a name or an id.")

rules = typer.Typer(no_args_is_help=True)


@rules.callback()
def _group(config: ConfigPath = None) -> None:
    """Patterns over the last user message that choose the level of an account's requests."""


@rules.command()
def add(
    action: Annotated[RuleAction, typer.Option(help="What to do with what matches.")],
    pattern: Annotated[
        str, typer.Option(metavar="REGEX", help="RE2 syntax; '(?i)' first ignores case.")
    ],
    account: Annotated[str, Whose] = admin.FIRST_ACCOUNT,
    priority: Annotated[
        int, typer.Option(min=-MAX_PRIORITY, max=MAX_PRIORITY, help="The higher one wins.")
    ] = 0,
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Add a rule; a running server follows within a second."""

    rule, directory = and_everything(
        configured(config),
        lambda store: admin_rules.add_rule(
            store, account, action, pattern, priority=priority, now_ms=utc_ms()
        ),
    )
    document = admin_rules.rule_document(rule, directory)
    show(document, f"Rule {rule.id} is added.", as_json=as_json)


@rules.command("list")
def list_(
    account: Annotated[str | None, Whose] = None,
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show the rules."""
    directory = in_store(configured(config), admin.everything, looks=True)
    wanted = admin.find_account(directory, account).id if account else None
    rows = [
        admin_rules.rule_document(rule, directory)
        for rule in directory.rules
        if wanted in (None, rule.account_id)
    ]
    show_list(rows, COLUMNS, as_json=as_json, no_limit_at_0=())


@rules.command("test")
def try_(
    text: Annotated[str, typer.Argument(help="A user message; '-' reads standard input.")],
    account: Annotated[str | None, Whose] = None,
    key: Annotated[
        str | None, typer.Option(metavar="ID", help="As this key, by name or id, would send it.")
    ] = None,
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what a text would get, and why."""
    directory = in_store(configured(config), admin.everything, looks=True)
    message = sys.stdin.read() if text == "-" else text
    tried = admin_rules.try_text(directory, message, account_ref=account, key_ref=key)
    rows = [admin_rules.rule_document(rule, directory) for rule in tried.matching]
    if as_json:
        decision, detected = tried.decision, tried.detected
        tables.print_json(
            {
                "intensity": decision and decision.intensity.value,
                "reason": decision and decision.reason,
                "detected": detected and detected.reason,
                "matching": rows,
            }
        )
        return
    if rows:
        tables.print_table(rows, COLUMNS, title="Matching, the one that wins first")
    else:
        print("No rule matches.")
    if tried.decision:
        print(f"It would get {_told(tried.decision)}.")
        return
    smart = _told(tried.detected) if tried.detected else "the key's level"
    print(f"It would get {smart} with smart detection, and the key's level without.")


def _told(decision: Decision) -> str:
    return f"the level {decision.intensity.value} (X-Mintoken-Reason: {decision.reason})"


@rules.command()
def remove(
    rule: Annotated[str, typer.Argument(metavar="ID", help="The rule's id.")],
    config: ConfigPath = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Delete a rule; a running server follows within a second."""
    removed, directory = and_everything(
        configured(config), lambda store: admin_rules.remove_rule(store, rule)
    )
    document = admin_rules.rule_document(removed, directory)
    show(document, f"Rule {removed.id} is removed.", as_json=as_json)
