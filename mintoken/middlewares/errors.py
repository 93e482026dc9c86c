"""Known failures become the protocol's error body; unknown ones become a 500 without details."""

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from mintoken.admin import RefusedError
from mintoken.context import CONTEXT
from mintoken.errors import Code, MintokenError, NameTakenError, StorageError
from mintoken.logs import frames
from mintoken.pages import PAGES, page
from mintoken.protocols.openai_chat import OpenAIChat

PROTOCOL = OpenAIChat()
LOG = structlog.get_logger()
_CODES = {code.status: code for code in (Code.NOT_FOUND, Code.METHOD_NOT_ALLOWED)}


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every failure in the caller's protocol."""
    try:
        return await handler(request)
    except MintokenError as error:
        failure = error
    except web.HTTPException as error:
        failure = MintokenError(_CODES[error.status], headers=_allow(error))
    except (NameTakenError, RefusedError, StorageError) as error:
        failure = _said(error)
    except ConnectionError:
        raise  # The caller has left: there is nobody to answer.
    except Exception as error:  # noqa: BLE001 - the server must survive, and says what was lost
        LOG.error("internal_error", id=request[CONTEXT].id, error=frames(error))
        failure = MintokenError(Code.INTERNAL_ERROR)
    ctx = request[CONTEXT]
    ctx.error = failure.code
    if ctx.response is not None:
        # A head is out already: only an abrupt end says that this is not the whole answer.
        if request.transport is not None:
            request.transport.close()
        return ctx.response
    if ctx.member is not None and request.path.startswith(PAGES[0][0]):
        return await page(
            request, "error.html", problem=failure.message, status=failure.code.status
        )
    return error_response(failure)


def error_response(failure: MintokenError) -> web.Response:
    """The failure as a response of its own."""
    headers = dict(failure.headers)
    if failure.code.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if failure.code.status in (429, 503):
        headers.setdefault("Retry-After", "1")
    return web.Response(
        status=failure.code.status,
        headers=headers,
        body=PROTOCOL.error(failure, in_stream=False),
        content_type="application/json",
    )


def _said(error: NameTakenError | RefusedError | StorageError) -> MintokenError:
    """What the control plane's work raises, as its caller may read it: without names of files."""
    if isinstance(error, StorageError):
        return MintokenError(Code.STORAGE_UNAVAILABLE)
    return MintokenError(Code.CONFLICT, str(error))


def _allow(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
