"""A tenant's life through the client that openapi-python-client makes from the served document, typed to the last field."""

import sys
from http import HTTPStatus
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

from ward_client import AuthenticatedClient, Client
from ward_client.api.api_keys import create_api_key, delete_api_key, list_api_keys, rotate_api_key
from ward_client.api.audit import list_audit_events
from ward_client.api.auth import get_auth_info
from ward_client.api.workspaces import (
    archive_workspace,
    create_workspace,
    get_test_caller_numbers,
    get_workspace,
    list_workspaces,
    update_test_caller_numbers,
    update_workspace,
)
from ward_client.models import (
    ArchiveWorkspaceRequest,
    CreateApiKeyRequest,
    CreateApiKeyResponse,
    CreateWorkspaceRequest,
    ErrorResponse,
    ForbiddenResponse,
    HTTPValidationError,
    RotateApiKeyRequest,
    TestCallerNumbersRequest,
    UpdateWorkspaceRequest,
    WorkspaceResponse,
)
from ward_client.models.create_workspace_request_environment import CreateWorkspaceRequestEnvironment
from ward_client.types import Response

T = TypeVar("T")


def good(answer: Response[Any], kind: type[T], status: int = 200) -> T:
    """The body of an answer with this status, as the type that the document gives it."""
    assert answer.status_code == status, answer.content
    assert answer.headers["x-request-id"]
    assert isinstance(answer.parsed, kind), answer.parsed
    return answer.parsed


def refused(answer: Response[Any], status: int) -> ErrorResponse:
    """A typed error, which names the request."""
    error = good(answer, ErrorResponse, status)
    assert error.request_id == answer.headers["x-request-id"]
    return error


def main(url: str) -> None:
    anonymous = Client(base_url=url)
    slug = f"clinic-{uuid4().hex[:8]}"
    wanted = CreateWorkspaceRequest(slug, "A clinic", CreateWorkspaceRequestEnvironment.DEVELOPMENT)
    once = str(uuid4())
    created, repeated = (
        good(
            create_workspace.sync_detailed(client=anonymous, body=wanted, idempotency_key=once),
            WorkspaceResponse,
            201,
        )
        for _ in range(2)
    )
    assert repeated == created
    workspace = created.id

    # The generator takes a client without a key only where no key may be sent. A claim is a call without one.
    keyless = cast(AuthenticatedClient, anonymous)
    claim = CreateApiKeyRequest(duration_days=90, name="first key", role="owner")
    claimed = create_api_key.sync_detailed(workspace, client=keyless, body=claim)
    key = good(claimed, CreateApiKeyResponse, 201)
    owner = AuthenticatedClient(base_url=url, token=key.api_key)
    me = get_auth_info.sync(client=owner)
    assert me is not None and not isinstance(me, (ErrorResponse, ForbiddenResponse))
    assert str(me.workspace_id) == str(workspace)

    listed = list_workspaces.sync(client=owner, limit=10)
    assert listed is not None and not isinstance(listed, (ErrorResponse, ForbiddenResponse, HTTPValidationError))
    assert [item.slug for item in listed.items] == [slug]
    changed = update_workspace.sync_detailed(
        workspace, client=owner, body=UpdateWorkspaceRequest(name="A renamed clinic")
    )
    assert good(changed, WorkspaceResponse).name == "A renamed clinic"
    numbers = TestCallerNumbersRequest(numbers=["+15550100001"])
    assert update_test_caller_numbers.sync_detailed(workspace, client=owner, body=numbers).status_code == 200
    assert get_test_caller_numbers.sync_detailed(workspace, client=owner).status_code == 200

    missing = refused(get_workspace.sync_detailed(str(uuid4()), client=owner), 404)
    assert missing.detail and missing.error_code
    wrong = create_api_key.sync_detailed(workspace, client=owner, body=CreateApiKeyRequest(duration_days=0))
    invalid = good(wrong, HTTPValidationError, 422)
    assert invalid.detail and invalid.detail[0].loc == ["body", "duration_days"]
    taken = create_workspace.sync_detailed(client=anonymous, body=wanted)
    assert refused(taken, 409).error_code == "slug_taken"

    minted = good(
        create_api_key.sync_detailed(
            workspace, client=owner, body=CreateApiKeyRequest(duration_days=30, name="a colleague's", role="viewer")
        ),
        CreateApiKeyResponse,
        201,
    )
    viewer = AuthenticatedClient(base_url=url, token=minted.api_key)
    denied = update_workspace.sync_detailed(workspace, client=viewer, body=UpdateWorkspaceRequest(name="A clinic"))
    reasons = good(denied, ForbiddenResponse, 403)
    assert (reasons.missing.kind, reasons.missing.name) == ("permission", "Workspace.update")
    assert reasons.because.reason == "membership_role"
    once = str(uuid4())
    first, second = (
        good(
            rotate_api_key.sync_detailed(
                workspace,
                minted.key_id,
                client=owner,
                body=RotateApiKeyRequest(duration_days=60),
                idempotency_key=once,
            ),
            CreateApiKeyResponse,
        )
        for _ in range(2)
    )
    assert first.api_key == second.api_key != minted.api_key
    ended = delete_api_key.sync_detailed(workspace, minted.key_id, client=owner)
    assert ended.status_code == HTTPStatus.NO_CONTENT
    dead = AuthenticatedClient(base_url=url, token=first.api_key)
    assert refused(get_auth_info.sync_detailed(client=dead), 401).error_code == "unauthorized"

    keys = list_api_keys.sync(workspace, client=owner)
    assert keys is not None and not isinstance(keys, (ErrorResponse, ForbiddenResponse, HTTPValidationError))
    assert [shown.key_id for shown in keys.items] == [key.key_id]
    audit = list_audit_events.sync(workspace, client=owner, limit=50)
    assert audit is not None and not isinstance(audit, (ErrorResponse, ForbiddenResponse, HTTPValidationError))
    assert any(event.action == "api_key.revoke" for event in audit.events)

    archived = archive_workspace.sync_detailed(workspace, client=owner, body=ArchiveWorkspaceRequest(slug=slug))
    assert good(archived, WorkspaceResponse).slug == slug
    print("a tenant's life: done")


if __name__ == "__main__":
    main(sys.argv[1])
