"""What operators do with custom rules."""

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from mintoken.admin import (
    FIRST_ACCOUNT,
    RefusedError,
    everything,
    find_account,
    find_key,
)
from mintoken.chat_asked import clipped
from mintoken.clock import utc_text
from mintoken.detect import load_detector
from mintoken.exchange import Asked
from mintoken.models import Decision, Directory, Rule, RuleAction
from mintoken.rules import (
    MAX_PRIORITY,
    MAX_RULES,
    MAX_STEPS_TOGETHER,
    PatternError,
    compile_rules,
    measure,
)
from mintoken.stores.base import Store


@dataclass(frozen=True, slots=True)
class Tried:
    """What a text would get: the rules that match, the one that wins first, and what comes of it.

    `decision` is None where it is up to the key, which nobody named.
    """

    matching: tuple[Rule, ...]
    detected: Decision | None
    decision: Decision | None


async def add_rule(
    store: Store, account_ref: str, action: RuleAction, pattern: str, *, priority: int, now_ms: int
) -> Rule:
    """A new rule of an account. Raises RefusedError, StorageError."""
    directory = await everything(store)
    account = find_account(directory, account_ref)
    rules = [rule for rule in directory.rules if rule.account_id == account.id]
    if len(rules) >= MAX_RULES:
        raise RefusedError(
            f"Account {account.name!r} has {len(rules)} rules, and {MAX_RULES} is the most. "
            "Remove one first: mintoken rules list"
        )
    if abs(priority) > MAX_PRIORITY:
        raise RefusedError(f"A priority is from -{MAX_PRIORITY} to {MAX_PRIORITY}.")
    try:
        await asyncio.to_thread(_measure, pattern, rules)
    except PatternError as error:
        raise RefusedError(str(error)) from error
    rule = Rule(
        id=_free_id(directory),
        account_id=account.id,
        action=action,
        pattern=pattern,
        priority=priority,
        created_at=now_ms,
    )
    await store.save(rule)
    return rule


def _measure(pattern: str, rules: Iterable[Rule]) -> None:
    measure(pattern, room=MAX_STEPS_TOGETHER - compile_rules(rules).steps)


def _free_id(directory: Directory) -> str:
    """Short, because it stands in a header of every answer that the rule decides."""
    taken = {rule.id for rule in directory.rules}
    while (id_ := f"r_{secrets.token_hex(3)}") in taken:
        pass
    return id_


async def remove_rule(store: Store, rule_id: str) -> Rule:
    """Delete a rule. Raises RefusedError, StorageError."""
    for rule in (await everything(store)).rules:
        if rule.id == rule_id:
            await store.remove_rule(rule_id)
            return rule
    raise RefusedError(f"There is no rule {rule_id!r}. See 'mintoken rules list'.")


def try_text(
    directory: Directory, text: str, *, account_ref: str | None, key_ref: str | None
) -> Tried:
    """What the text would get as the only message of a request, outside of experiments.

    Without an account it is the key's, without both the first. Raises RefusedError.
    """
    key = None if key_ref is None else find_key(directory, key_ref)
    account = find_account(directory, account_ref or (key.account_id if key else FIRST_ACCOUNT))
    if key is not None and key.account_id != account.id:
        raise RefusedError(f"Key {key_ref!r} is of another account than {account.name!r}.")
    rules = compile_rules(rule for rule in directory.rules if rule.account_id == account.id)
    decision = rules.decide(text)
    detected = load_detector().detect(Asked(turns=(clipped(text),)))
    if decision is None and key is not None:
        decision = (detected if key.smart else None) or Decision(key.intensity, "key")
    return Tried(rules.matching(text), detected, decision)


def rule_document(rule: Rule, directory: Directory) -> dict[str, object]:
    """A rule as JSON shows it."""
    return {
        "id": rule.id,
        "account": find_account(directory, rule.account_id).name,
        "action": rule.action.value,
        "pattern": rule.pattern,
        "priority": rule.priority,
        "created_at": utc_text(rule.created_at),
    }
