"""`mintoken serve`, `demo` and `check`.

What they need is imported when they run: it takes most of a second, which other commands save.
"""

import gc
import os
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mintoken import admin, members, tables
from mintoken.cli.base import AsJson, ConfigPath, configured, in_store
from mintoken.clock import utc_ms
from mintoken.config import Config
from mintoken.options import EVERYWHERE, Address
from mintoken.stores.base import Store

FIRST_KEY = """\
This is the first start, so here is a key, shown this one time:

  {token}

Ask with curl, with your provider's key in $OPENAI_API_KEY:

  curl {base_url}/chat/completions \\
    -H "Authorization: Bearer {token}" \\
    -H "X-Provider-Key: $OPENAI_API_KEY" \\
    -H "Content-Type: application/json" \\
    -d '{{"model": "gpt-4o-mini", "messages": [{{"role": "user", "content": "What is a mutex?"}}]}}'

or from Python, with the official SDK:

  import os
  from openai import OpenAI

  client = OpenAI(
      base_url="{base_url}",
      api_key="{token}",
      default_headers={{"X-Provider-Key": os.environ["OPENAI_API_KEY"]}},
  )
  answer = client.chat.completions.create(
      model="gpt-4o-mini", messages=[{{"role": "user", "content": "What is a mutex?"}}]
  )
  print(answer.choices[0].message.content)
"""
WELCOME = """
Become the dashboard's owner by this link, which works once, within 24 hours:

  {origin}/dashboard/welcome/{token}
"""


def serve(config: ConfigPath = None) -> None:
    """Run the proxy until SIGTERM or Ctrl-C; the very first start prints a key and a link."""
    gc.disable()  # Until the parent has loaded all: none of it is garbage.
    import structlog

    from mintoken import logs, systemd
    from mintoken.parent import Parent
    from mintoken.process import hide_memory, raise_file_limit
    from mintoken.server import address_of, bind

    options = configured(config)
    logs.configure()
    raise_file_limit()
    hide_memory()
    with ExitStack() as stack:
        sockets = systemd.inherited_sockets(os.environ) or bind(options)
        for sock in sockets:
            stack.enter_context(sock)
        _greet(options, address_of(sockets[0]), address_of(sockets[-1]))
        if os.geteuid() == 0:
            structlog.get_logger().warning(
                "runs_as_root", advice="Give it a user of its own, as the README's service has."
            )
        parent = Parent(
            options,
            sockets,
            load=lambda: configured(config),
            tell=lambda state: systemd.notify(os.environ, state),
        )
        raise typer.Exit(parent.run())


def _greet(config: Config, public: Address, admin_address: Address) -> None:
    issued, token = in_store(config, lambda store: _begin(store, config.storage.data_dir))
    if issued is not None:
        base_url = f"http://{_usable(public)}/v1"
        print(FIRST_KEY.format(token=issued.token, base_url=base_url), flush=True)
    if token is not None:
        tls = config.admin.tls  # Then there is a front proxy, whose name only the operator knows.
        origin = "https://YOUR-HOST" if tls else f"http://{_usable(admin_address)}"
        print(WELCOME.format(origin=origin, token=token), flush=True)


async def _begin(store: Store, data_dir: Path) -> tuple[admin.Issued | None, str | None]:
    """What a very first start makes: a key, and the end of a link for the first owner."""
    issued = await admin.first_key(store, data_dir, now_ms=utc_ms())
    if issued is None:
        return None, None
    return issued, await members.invite_first_owner(store, data_dir, now_ms=utc_ms())


def _usable(listen: Address) -> Address:
    """Where a caller on this machine finds the server."""
    return Address(EVERYWHERE.get(listen.host, listen.host), listen.port)


def demo(*, as_json: AsJson = False) -> None:
    """Show the whole path offline: a stand-in provider, the proxy, two answers, their usage."""
    from mintoken.demo import run_demo

    run_demo(as_json=as_json)


def check(
    config: ConfigPath = None,
    *,
    accounts: Annotated[
        bool, typer.Option("--accounts", help="Also add up every usage row.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Examine this installation; it fails if anything is bad."""
    from mintoken.checks import Verdict, examine

    findings = examine(configured(config), clock_ms=utc_ms, accounts=accounts)
    good = all(finding.verdict is not Verdict.BAD for finding in findings)
    rows = [asdict(finding) for finding in findings]
    if as_json:
        tables.print_json({"ok": good, "checks": rows})
    else:
        tables.print_table(rows, {"check": "Check", "verdict": "", "detail": "Found"})
    raise typer.Exit(0 if good else 1)
