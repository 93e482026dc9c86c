"""The pages of keys: list, create, edit, rotate and revoke."""

from collections.abc import Mapping
from datetime import UTC, datetime

from aiohttp import web

from mintoken import admin
from mintoken.arms import MOST_CONTROL
from mintoken.clock import utc_text
from mintoken.context import ACCOUNTS, CLOCK, CONFIG
from mintoken.documents import key_document
from mintoken.errors import NameTakenError
from mintoken.models import Intensity, Key
from mintoken.options import EVERYWHERE, Address
from mintoken.pages import account_of, back_to, keys_of, page
from mintoken.reports import HOUR_MS
from mintoken.routes.base import form_of, whole_number
from mintoken.routes.keys import own_key, revoke_key
from mintoken.shapes import LIMIT

OVERLAPS = {"24": "a day", "0": "no longer", "1": "an hour", "168": "a week"}
"""How many hours a rotated key may still work, the usual first."""
BLANK = {
    "name": "", "intensity": "full", "smart_detect_enabled": True, "control": 0, "concise": 0,
    "auto_stop": True, "rpm": 0, "concurrency": 0, "expires_at": "",
}  # fmt: skip
NUMBERS = {"control": MOST_CONTROL, "concise": MOST_CONTROL, "rpm": LIMIT, "concurrency": LIMIT}
"""The fields that are whole numbers, and the most that each takes."""


async def list_keys(request: web.Request) -> web.Response:
    """`GET /dashboard/keys`; with `?new` and the form of a new one."""
    return await _list(request, creating="new" in request.query)


async def create(request: web.Request) -> web.Response:
    """`POST /dashboard/keys`: the new key is on the page that answers, and nowhere after it."""
    app, form = request.app, await form_of(request)
    try:
        settings = settings_of(form)
        issued = await admin.create_key(
            app[ACCOUNTS].store,
            app[CONFIG].storage.data_dir,
            account_of(request).id,
            settings,
            now_ms=app[CLOCK](),
        )
    except (admin.RefusedError, NameTakenError) as error:
        given = _given(form)
        return await _list(request, creating=True, blank=given, refused=str(error), status=400)
    await app[ACCOUNTS].refresh()
    return await _list(request, issued=issued)


async def edit(request: web.Request) -> web.Response:
    """`GET /dashboard/keys/{id}`."""
    return await _edit(request, _document(request, await own_key(request)))


async def update(request: web.Request) -> web.Response:
    """`POST /dashboard/keys/{id}`."""
    app, form, key = request.app, await form_of(request), await own_key(request)
    try:
        store = app[ACCOUNTS].store
        await admin.update_key(store, key.id, settings_of(form), now_ms=app[CLOCK]())
    except (admin.RefusedError, NameTakenError) as error:
        document = _document(request, key) | _given(form)
        return await _edit(request, document, problem=str(error), status=400)
    await app[ACCOUNTS].refresh()
    return back_to("/dashboard/keys")


async def rotate(request: web.Request) -> web.Response:
    """`POST /dashboard/keys/{id}/rotate`."""
    app, hours = request.app, (await form_of(request)).get("overlap", "")
    try:
        if hours not in OVERLAPS:
            raise admin.RefusedError(f"overlap is one of {', '.join(OVERLAPS)} hours.")
        issued = await admin.rotate_key(
            app[ACCOUNTS].store,
            app[CONFIG].storage.data_dir,
            (await own_key(request)).id,
            overlap_ms=int(hours) * HOUR_MS,
            now_ms=app[CLOCK](),
        )
    except admin.RefusedError as error:
        return await _list(request, problem=str(error), status=400)
    await app[ACCOUNTS].refresh()
    return await _list(request, issued=issued)


async def revoke(request: web.Request) -> web.Response:
    """`POST /dashboard/keys/{id}/revoke`."""
    await revoke_key(request)
    return back_to("/dashboard/keys")


def settings_of(form: Mapping[str, str]) -> admin.KeySettings:
    """What a form says of a key. Raises RefusedError, naming the field."""
    numbers = {}
    for name, most in NUMBERS.items():
        number = whole_number(form.get(name) or "0", most=most)
        if number is None:
            raise admin.RefusedError(f"{name} is a whole number from 0 to {most}.")
        numbers[name] = number
    try:
        intensity = Intensity(form.get("intensity", ""))
    except ValueError:
        raise admin.RefusedError(f"intensity is one of {', '.join(Intensity)}.") from None
    return admin.KeySettings(
        name=form.get("name", ""),
        intensity=intensity,
        smart="smart" in form,
        auto_stop="auto_stop" in form,
        expires_at=_expiry(form.get("expires_at", "").strip()),
        **numbers,
    )


def _expiry(text: str) -> int:
    """UTC milliseconds, or NEVER. Raises RefusedError."""
    if not text:
        return admin.NEVER
    try:
        at = datetime.fromisoformat(text)
        return max(0, int(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000))
    except (ValueError, OverflowError):
        raise admin.RefusedError("expires_at is a time in UTC like 2026-12-31T18:00.") from None


def _given(form: Mapping[str, str]) -> dict[str, object]:
    """The form as it was sent, to be mended."""
    return (
        BLANK
        | {name: form[name] for name in BLANK if name in form}
        | {"smart_detect_enabled": "smart" in form, "auto_stop": "auto_stop" in form}
    )


def _document(request: web.Request, key: Key) -> dict[str, object]:
    return key_document(key, request.app[ACCOUNTS].directory, now_ms=request.app[CLOCK]())


async def _edit(
    request: web.Request, key: Mapping[str, object], *, problem: str = "", status: int = 200
) -> web.Response:
    return await page(
        request,
        "key.html",
        key=key,
        levels=[level.value for level in Intensity],
        overlaps=OVERLAPS,
        problem=problem,
        status=status,
    )


async def _list(
    request: web.Request,
    *,
    issued: admin.Issued | None = None,
    creating: bool = False,
    blank: Mapping[str, object] = BLANK,
    refused: str = "",
    problem: str = "",
    status: int = 200,
) -> web.Response:
    used = await request.app[ACCOUNTS].store.last_used(account_of(request).id)
    return await page(
        request,
        "keys.html",
        keys=[
            _document(request, key) | {"last_used_at": utc_text(used.get(key.id))}
            for key in keys_of(request)
        ],
        levels=[level.value for level in Intensity],
        creating=creating,
        blank=blank,
        refused=refused,
        issued=issued,
        snippets=_snippets(request, issued.token) if issued else (),
        problem=problem,
        status=status,
    )


def _snippets(request: web.Request, token: str) -> list[tuple[str, str]]:
    """How to use a new key: from the shell, and from the two SDKs."""
    listen = request.app[CONFIG].server.listen
    if listen.host in EVERYWHERE:  # Then it is also where the member finds this page.
        listen = Address(request.url.host or listen.host, listen.port)
    url = f"http://{listen}/v1"
    return [
        (
            "curl",
            f"curl {url}/chat/completions \\\n"
            f'  -H "Authorization: Bearer {token}" \\\n'
            '  -H "X-Provider-Key: $OPENAI_API_KEY" \\\n'
            '  -H "Content-Type: application/json" \\\n'
            """  -d '{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello!"}]}'""",
        ),
        (
            "Python",
            "import os\nfrom openai import OpenAI\n\n"
            f'client = OpenAI(base_url="{url}", api_key="{token}",\n'
            '                default_headers={"X-Provider-Key": os.environ["OPENAI_API_KEY"]})',
        ),
        (
            "Node",
            'import OpenAI from "openai";\n\n'
            f'const client = new OpenAI({{ baseURL: "{url}", apiKey: "{token}",\n'
            '  defaultHeaders: { "X-Provider-Key": process.env.OPENAI_API_KEY } });',
        ),
    ]
