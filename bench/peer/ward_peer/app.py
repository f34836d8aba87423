"""The routes: FastAPI path operations, each with a shortcut for the ordinary request.

The shortcut checks the key, passes the bytes of the body to pydantic, and answers with bytes. It passes other requests
(an invalid body, another content type) to FastAPI, so that the errors are those of FastAPI.
"""

import re
import time
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Body, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.responses import Response

from ward_peer.access import (
    BIT, RANK, ROLE_BITS, Refusal, invalid, ordered_id, owner_only, path_id, presented, problem, require,
    time_text, unsupported_principal,
)  # fmt: skip
from ward_peer.answers import workspace_body
from ward_peer.models import (
    ArchiveWorkspaceRequest, CreateApiKeyRequest, CreateWorkspaceRequest, PageQuery, RotateApiKeyRequest,
    TestCallerNumbersRequest, UpdateWorkspaceRequest,
)  # fmt: skip

BODY_LIMIT = 65_536
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# The limit of unclaimed workspaces is the largest that Ward allows; a workspace stays unclaimed for at most a day.
UNCLAIMED = (10_000_000, 86_400_000_000)
JSON = (b"content-type", b"application/json")


class Call:
    """The data that all steps of a request share."""

    __slots__ = ("address", "authorization", "content_type", "entry", "now", "params", "query", "request_id", "us",
                 "user_agent")  # fmt: skip

    def __init__(self, scope) -> None:
        self.authorization = self.content_type = self.user_agent = self.entry = request_id = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                self.authorization = value
            elif name == b"content-type":
                self.content_type = value
            elif name == b"user-agent":
                self.user_agent = value.decode("utf-8", "replace").replace("\0", "")[:256]
            elif name == b"x-request-id":
                request_id = value
        self.us = time.time_ns() // 1000
        self.now = time_text(self.us)
        self.params = scope["path_params"]
        self.query = scope["query_string"]
        self.address = scope["client"][0] if scope["client"] else None
        taken = request_id is not None and REQUEST_ID.fullmatch(request_id)
        self.request_id = request_id.decode() if taken else ordered_id(self.us)


class Reply(Response):
    """An answer from ready bytes. Starlette's own response builds its headers in several steps each time."""

    def __init__(self, body: bytes, request_id: str, status: int = 200) -> None:
        self.body, self.status_code, self.background = body, status, None
        self.raw_headers = [(b"x-request-id", request_id.encode())]
        if status != 204:
            self.raw_headers += [JSON, (b"content-length", str(len(body)).encode())]
        if status == 401:
            self.raw_headers.append((b"www-authenticate", b"Bearer"))

    async def __call__(self, scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


def refused(refusal: Refusal, scope) -> Reply:
    call = scope.get("ward_call")
    request_id = call.request_id if call else ordered_id(time.time_ns() // 1000)
    return Reply(refusal.body(request_id), request_id, refusal.status)


class Operation:
    """One operation: its access rule, its body, and the function of `(app, call, value)` that runs it."""

    def __init__(self, work, method, path, need, takes, status, role) -> None:
        self.work, self.method, self.path = work, method, path
        self.need, self.takes, self.status, self.role = need, takes, status, role
        self.target = "{workspace_id}" in path
        # A request to the keys' route without a bearer token is a claim.
        self.claims = need == "ApiKey.create" and path.endswith("/api-keys")

    async def admit(self, app, scope) -> Call:
        """Checks the caller: credential (401), visibility of the workspace (404), permission (403)."""
        call = scope["ward_call"] = Call(scope)
        if self.need is None or (self.claims and call.authorization is None):
            return call
        key_id, secret_hash = presented(call.authorization)
        workspace = path_id(call.params["workspace_id"]) if self.target else None
        entry = call.entry = await app.engine.admit(call, key_id, secret_hash, workspace)
        app.last_used[key_id] = call.us
        require(entry, self.need, self.target)
        if self.role is not None and entry.reach.rank < RANK[self.role]:
            raise owner_only()
        return call

    async def answer(self, app, call, value) -> Reply:
        return Reply(await self.work(app, call, value), call.request_id, self.status)

    def endpoint(self, app):
        """The operation as an endpoint of FastAPI, with declared parameters."""

        async def judged(request: Request) -> None:
            if "ward_call" not in request.scope:
                await self.admit(app, request.scope)

        async def plain(request: Request):
            return await self.answer(app, request.scope["ward_call"], None)

        async def with_body(request: Request, value: Annotated[self.takes, Body()]):
            return await self.answer(app, request.scope["ward_call"], value)

        async def with_query(request: Request, limit: Limit = 10, continuation_token: int = 0):
            page = PageQuery(limit=limit, continuation_token=continuation_token)
            return await self.answer(app, request.scope["ward_call"], page)

        whole = plain if self.takes is None else with_query if self.takes is PageQuery else with_body
        return whole, [Depends(judged)]


Limit = Annotated[int, Query(gt=0, le=20)]


class ShortRoute(APIRoute):
    """A route that handles the ordinary request itself and passes every other request to FastAPI."""

    def __init__(self, path, endpoint, **options) -> None:
        super().__init__(path, endpoint, **options)
        self.whole = ExceptionMiddleware(AsyncExitStackMiddleware(self.app), handlers=HANDLERS)
        self.app = self.short

    def of(self, operation: Operation, peer: "Peer") -> None:
        self.operation, self.peer = operation, peer
        takes = operation.takes
        self.read = takes and takes.__pydantic_validator__

    async def short(self, scope, receive, send) -> None:
        operation, value = self.operation, None
        try:
            call = await operation.admit(self.peer, scope)
            if operation.takes is PageQuery:
                try:
                    value = self.read.validate_python(dict(parse_qsl(call.query.decode(), keep_blank_values=True)))
                except (ValidationError, ValueError):
                    return await self.whole(scope, receive, send)
            elif operation.takes is not None:
                message = await receive()
                body = message.get("body", b"")
                if message.get("more_body") or call.content_type != b"application/json" or len(body) > BODY_LIMIT:
                    return await self.whole(scope, replayed(message, receive), send)
                try:
                    value = self.read.validate_json(body)
                except ValidationError:
                    return await self.whole(scope, replayed(message, receive), send)
            reply = await operation.answer(self.peer, call, value)
        except Refusal as refusal:
            reply = refused(refusal, scope)
        await reply(scope, receive, send)


def replayed(message, receive):
    """A `receive` that first returns a message that was already received."""
    first = [message]

    async def again():
        return first.pop() if first else await receive()

    return again


async def on_refusal(request: Request, refusal: Refusal) -> Reply:
    return refused(refusal, request.scope)


async def on_invalid(request: Request, error: RequestValidationError) -> Reply:
    problems = [{**found, "loc": list(found["loc"])} for found in error.errors()]
    for found in problems:
        found.pop("url", None)
        if found["type"] == "value_error":
            found["ctx"] = {"error": {}}
        # A body that is not JSON is shown as text, with any bytes.
        if isinstance(found["input"], bytes):
            found["input"] = found["input"].decode("utf-8", "replace")
    return refused(invalid(problems), request.scope)


CODES = {404: "not_found", 405: "method_not_allowed", 400: "body_incomplete", 413: "body_too_large"}


async def on_http(request: Request, error: HTTPException) -> Reply:
    return refused(Refusal(error.status_code, CODES.get(error.status_code, "error"), str(error.detail)), request.scope)


HANDLERS = {Refusal: on_refusal, RequestValidationError: on_invalid, HTTPException: on_http}


class Peer(FastAPI):
    """The application: with `plain`, as FastAPI builds it, and otherwise without unnecessary layers."""

    def __init__(self, engine, plain: bool) -> None:
        super().__init__(openapi_url=None, exception_handlers=HANDLERS, max_body_size=BODY_LIMIT)
        self.engine, self.plain, self.last_used = engine, plain, {}
        for operation in OPERATIONS:
            endpoint, dependencies = operation.endpoint(self)
            route = (APIRoute if plain else ShortRoute)(
                operation.path, endpoint, methods=[operation.method], dependencies=dependencies, response_model=None
            )
            if not plain:
                route.of(operation, self)
            self.router.routes.append(route)

    def asgi(self):
        """The entry point for the server. The shortcuts need no layers around a router and no search through all routes
        for each request. FastAPI refuses a request without a route."""
        if self.plain:
            return self
        by_method, rest = {}, ExceptionMiddleware(self.router, handlers=HANDLERS)
        for route in self.router.routes:
            by_method.setdefault(route.operation.method, []).append((route.path_regex.match, route))

        async def dispatch(scope, receive, send) -> None:
            scope["app"] = self
            path = scope["path"]
            for match, route in by_method.get(scope["method"], ()):
                found = match(path)
                if found is not None:
                    scope["path_params"], scope["route"], scope["endpoint"] = found.groupdict(), route, route.endpoint
                    return await route.short(scope, receive, send)
            await rest(scope, receive, send)

        return dispatch

    async def store_last_used(self) -> None:
        used, self.last_used = self.last_used, {}
        if used:
            await self.engine.store_last_used(used)


async def get_workspace(app, call, _) -> bytes:
    return workspace_body(call.entry.workspace)


async def list_workspaces(app, call, page) -> bytes:
    after = min(max(page.continuation_token, 0), 2**63 - 1)
    return await app.engine.list_workspaces(call.entry, after, page.limit)


async def create_workspace(app, call, new) -> bytes:
    return await app.engine.bootstrap(call, new, UNCLAIMED)


async def create_own_workspace(app, call, new) -> bytes:
    if call.entry.kind != "user":
        raise unsupported_principal()
    return await app.engine.create_own(call, new)


async def update_workspace(app, call, change) -> bytes:
    return await app.engine.update(call, change)


async def provision_workspace(app, call, _) -> bytes:
    return await app.engine.provision(call)


async def archive_workspace(app, call, confirmation) -> bytes:
    if confirmation.slug != call.entry.workspace[1]:
        message = "Workspace slug confirmation did not match"
        raise invalid([problem(["body", "slug"], message, confirmation.slug)])
    return await app.engine.archive(call, confirmation.slug)


async def get_test_callers(app, call, _) -> bytes:
    return await app.engine.test_callers(call.entry)


async def set_test_callers(app, call, sent) -> bytes:
    return await app.engine.set_test_callers(call, sent.numbers)


async def create_api_key(app, call, new) -> bytes:
    problems = [problem(["body", "permissions", index], f"Not a permission of the role {new.role}", name)
                for index, name in enumerate(new.permissions) if not ROLE_BITS[RANK[new.role]] & BIT[name]]  # fmt: skip
    if call.entry is None:
        if "role" in new.model_fields_set and new.role != "owner":
            message = "A claim makes an owner key: leave the role out or say owner"
            problems.append(problem(["body", "role"], message, new.role))
        if new.permissions:
            message = "A claim makes a whole owner key: leave permissions out"
            problems.append(problem(["body", "permissions"], message, new.permissions))
    if problems:
        raise invalid(problems)
    if call.entry is None:
        return await app.engine.claim(call, path_id(call.params["workspace_id"]), new)
    return await app.engine.mint(call, new)


async def rotate_api_key(app, call, rotation) -> bytes:
    return await app.engine.rotate(call, call.params["key_id"], rotation.duration_days)


async def delete_api_key(app, call, _) -> bytes:
    await app.engine.revoke(call, call.params["key_id"])
    return b""


def _operation(work, method, path, need, takes=None, status=200, role=None) -> Operation:
    return Operation(work, method, path, need, takes, status, role)


WORKSPACE = "/v1/workspaces/{workspace_id}"
# The most frequent operations come first, because routes are tried in order.
OPERATIONS = [
    _operation(list_workspaces, "GET", "/v1/workspaces", "Workspace.view", PageQuery),
    _operation(create_workspace, "POST", "/v1/workspaces", None, CreateWorkspaceRequest, 201),
    _operation(create_own_workspace, "POST", "/v1/workspaces/self-service", "Workspace.create", CreateWorkspaceRequest, 201),
    _operation(get_workspace, "GET", WORKSPACE, "Workspace.view"),
    _operation(update_workspace, "PATCH", WORKSPACE, "Workspace.update", UpdateWorkspaceRequest),
    _operation(rotate_api_key, "POST", "/v1/{workspace_id}/api-keys/{key_id}/rotate", "ApiKey.create", RotateApiKeyRequest),
    _operation(create_api_key, "POST", "/v1/{workspace_id}/api-keys", "ApiKey.create", CreateApiKeyRequest, 201),
    _operation(delete_api_key, "DELETE", "/v1/{workspace_id}/api-keys/{key_id}", "ApiKey.delete", None, 204),
    _operation(get_test_callers, "GET", f"{WORKSPACE}/test-caller-numbers", "Workspace.view"),
    _operation(set_test_callers, "PUT", f"{WORKSPACE}/test-caller-numbers", "Workspace.update", TestCallerNumbersRequest),
    _operation(provision_workspace, "POST", f"{WORKSPACE}/provision", "Workspace.update"),
    _operation(archive_workspace, "POST", f"{WORKSPACE}/archive", "Workspace.update", ArchiveWorkspaceRequest, 200, "owner"),
]
