"""The pages of keys: list, create, edit, rotate and revoke."""

from collections.abc import Mapping

from aiohttp import web

from mintoken import admin
from mintoken.context import ACCOUNTS, CLOCK, CONFIG
from mintoken.documents import key_document
from mintoken.errors import NameTakenError
from mintoken.models import Intensity, Key
from mintoken.pages import account_of, back_to, keys_of, page
from mintoken.routes.base import form_of
from mintoken.routes.keys import own_key, revoke_key

OVERLAP_MS = 86_400_000
"""How long a rotated key still works, if the page is not asked for something else: a day."""
BLANK = {
    "name": "", "intensity": "full", "smart_detect_enabled": True, "control": 0, "rpm": 0,
    "concurrency": 0,
}  # fmt: skip
NUMBERS = {"control": 50, "rpm": 10**9, "concurrency": 10**9}
"""The fields that are whole numbers, and the most that each takes."""


async def list_keys(request: web.Request) -> web.Response:
    """`GET /dashboard/keys`."""
    return _list(request)


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
        return _list(request, problem=str(error), status=400, blank=_given(form))
    await app[ACCOUNTS].refresh()
    return _list(request, issued=issued)


async def edit(request: web.Request) -> web.Response:
    """`GET /dashboard/keys/{id}`."""
    return _edit(request, _document(request, await own_key(request)))


async def update(request: web.Request) -> web.Response:
    """`POST /dashboard/keys/{id}`."""
    app, form, key = request.app, await form_of(request), await own_key(request)
    try:
        store = app[ACCOUNTS].store
        await admin.update_key(store, key.id, settings_of(form), now_ms=app[CLOCK]())
    except (admin.RefusedError, NameTakenError) as error:
        document = _document(request, key) | _given(form)
        return _edit(request, document, problem=str(error), status=400)
    await app[ACCOUNTS].refresh()
    return back_to("/dashboard/keys")


async def rotate(request: web.Request) -> web.Response:
    """`POST /dashboard/keys/{id}/rotate`."""
    app = request.app
    try:
        issued = await admin.rotate_key(
            app[ACCOUNTS].store,
            app[CONFIG].storage.data_dir,
            (await own_key(request)).id,
            overlap_ms=OVERLAP_MS,
            now_ms=app[CLOCK](),
        )
    except admin.RefusedError as error:
        return _list(request, problem=str(error), status=400)
    await app[ACCOUNTS].refresh()
    return _list(request, issued=issued)


async def revoke(request: web.Request) -> web.Response:
    """`POST /dashboard/keys/{id}/revoke`."""
    await revoke_key(request)
    return back_to("/dashboard/keys")


def settings_of(form: Mapping[str, str]) -> admin.KeySettings:
    """What a form says of a key. Raises RefusedError, naming the field."""
    numbers = {}
    for name, most in NUMBERS.items():
        text = form.get(name, "0").strip() or "0"
        if not text.isdecimal() or int(text) > most:
            raise admin.RefusedError(f"{name} is a whole number from 0 to {most}.")
        numbers[name] = int(text)
    try:
        intensity = Intensity(form.get("intensity", ""))
    except ValueError:
        raise admin.RefusedError(f"intensity is one of {', '.join(Intensity)}.") from None
    return admin.KeySettings(
        name=form.get("name", ""),
        intensity=intensity,
        smart="smart" in form,
        control=numbers["control"],
        rpm=numbers["rpm"],
        concurrency=numbers["concurrency"],
    )


def _given(form: Mapping[str, str]) -> dict[str, object]:
    """The form as it was sent, to be mended."""
    return (
        BLANK
        | {name: form[name] for name in BLANK if name in form}
        | {"smart_detect_enabled": "smart" in form}
    )


def _document(request: web.Request, key: Key) -> dict[str, object]:
    return key_document(key, request.app[ACCOUNTS].directory, now_ms=request.app[CLOCK]())


def _edit(
    request: web.Request, key: Mapping[str, object], *, problem: str = "", status: int = 200
) -> web.Response:
    levels = [level.value for level in Intensity]
    return page(request, "key.html", key=key, levels=levels, problem=problem, status=status)


def _list(
    request: web.Request,
    *,
    issued: admin.Issued | None = None,
    blank: Mapping[str, object] = BLANK,
    problem: str = "",
    status: int = 200,
) -> web.Response:
    return page(
        request,
        "keys.html",
        keys=[_document(request, key) for key in keys_of(request)],
        levels=[level.value for level in Intensity],
        blank=blank,
        issued=issued,
        snippets=_snippets(request, issued.token) if issued else (),
        problem=problem,
        status=status,
    )


def _snippets(request: web.Request, token: str) -> list[tuple[str, str]]:
    """How to use a new key: from the shell, and from the two SDKs."""
    url = f"http://{request.app[CONFIG].server.listen}/v1"
    return [
        (
            "curl",
            f'curl {url}/chat/completions -H "Authorization: Bearer {token}" '
            '-H "X-Provider-Key: $OPENAI_API_KEY" -H "Content-Type: application/json" \\\n'
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
