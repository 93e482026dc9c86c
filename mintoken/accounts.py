"""Accounts, keys and rules in memory, refreshed from the store."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import structlog

from mintoken.errors import StorageError
from mintoken.models import Account, Directory, Key, Rule
from mintoken.rules import CompiledRules, compile_rules
from mintoken.stores.base import Store

REFRESH_S = 0.5
"""Seconds between looks at the store: a change must reach every worker within 1 s."""


class Owner(NamedTuple):
    """A key and the account it belongs to."""

    key: Key
    account: Account


class Accounts:
    """Who may ask, by keyed hash."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._directory = Directory(-1, (), ())
        self._owners: dict[bytes, Owner] = {}
        self._rules: dict[str, CompiledRules] = {}
        self._turns = defaultdict[str, asyncio.Lock](asyncio.Lock)

    @property
    def store(self) -> Store:
        """Where they are kept."""
        return self._store

    @property
    def directory(self) -> Directory:
        """What the store held at the last refresh."""
        return self._directory

    def rules(self, account_id: str) -> CompiledRules | None:
        """An account's custom rules; None without any."""
        return self._rules.get(account_id)

    def turn(self, account_id: str) -> asyncio.Lock:
        """Held while slow rules of this account run, so that they run one request at a time."""
        return self._turns[account_id]

    def find(self, key_hash: bytes) -> Owner | None:
        """The owner of the key with this hash, revoked and expired ones too; None if unknown."""
        return self._owners.get(key_hash)

    def owner_of(self, key_id: str) -> Owner | None:
        """The owner of the key with this id; None if unknown."""
        return next((one for one in self._owners.values() if one.key.id == key_id), None)

    async def refresh(self) -> None:
        """Take over what changed in the store. Raises StorageError."""
        directory = await self._store.directory(self._directory.revision)
        if directory is None:
            return
        if directory.rules != self._directory.rules:
            self._rules = await asyncio.to_thread(_compiled, directory.rules, self._rules)
        accounts = {account.id: account for account in directory.accounts}
        if directory.revision < self._directory.revision:
            return  # Somebody else who refreshed meanwhile has seen more.
        self._owners = {key.hash: Owner(key, accounts[key.account_id]) for key in directory.keys}
        self._directory = directory

    async def keep_fresh(self) -> None:
        """Refresh for ever; what is known stays good while the store cannot be read."""
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except StorageError as error:
                structlog.get_logger().warning("accounts_stale", error=str(error))


def _compiled(
    rules: Iterable[Rule], before: Mapping[str, CompiledRules]
) -> dict[str, CompiledRules]:
    """The rules by account; those that did not change are as they were."""
    by_account: dict[str, list[Rule]] = {}
    for rule in rules:
        by_account.setdefault(rule.account_id, []).append(rule)
    compiled = {}
    for account, those in by_account.items():
        one = before.get(account)
        if one is None or one.source != tuple(those):
            one = compile_rules(those)
            for rule, why in one.unusable:
                structlog.get_logger().warning("rule_unusable", rule=rule.id, why=why)
        compiled[account] = one
    return compiled
