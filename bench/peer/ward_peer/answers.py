"""The answers and audit events that both engines share."""

import orjson

from ward_peer.access import DAY_US, narrowed, time_text

WORKSPACE_FIELDS = (
    "id", "slug", "name", "environment", "backend_org_id", "region", "connector_type", "provisioned_at", "created_at",
    "updated_at",
)  # fmt: skip
ID, SLUG, NAME, ENVIRONMENT, BACKEND_ORG_ID, REGION, CONNECTOR, PROVISIONED_AT, CREATED_AT, UPDATED_AT = range(10)
# `orjson` writes whole seconds without a fraction, Ward always writes six digits; both engines pass texts or timestamps.
TIMES = orjson.OPT_UTC_Z
TOTAL_LIMIT = 1_000


def workspace(row) -> dict:
    """A workspace, from the columns of `WORKSPACE_FIELDS` in that order; times are timestamps or texts."""
    shown = dict(zip(WORKSPACE_FIELDS, row, strict=False))
    created_at, provisioned_at = row[CREATED_AT], row[PROVISIONED_AT]
    if type(created_at) is str:
        return shown
    if not (created_at.microsecond and row[UPDATED_AT].microsecond) or (provisioned_at and not provisioned_at.microsecond):
        for field in ("provisioned_at", "created_at", "updated_at"):
            if shown[field] is not None:
                shown[field] = shown[field].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return shown


def workspace_body(row) -> bytes:
    return orjson.dumps(workspace(row), option=TIMES)


def provisioned_body(row) -> bytes:
    return orjson.dumps({"workspace": workspace(row)}, option=TIMES)


def new_workspace_row(workspace_id: str, new, now: str) -> tuple:
    return (workspace_id, new.slug, new.name, new.environment, new.backend_org_id, new.region, None, None, now, now)


def page_body(rows: list, limit: int, counted: int) -> bytes:
    """A page of workspaces; each row is a workspace with its position after it. One row more than the page has means
    that another page follows."""
    more = len(rows) > limit
    rows = rows[:limit]
    return orjson.dumps(
        {
            "items": [workspace(row) for row in rows],
            "has_more": more,
            "continuation_token": rows[-1][10] if more else None,
            "total": counted if counted <= TOTAL_LIMIT else None,
        },
        option=TIMES,
    )


def numbers_body(numbers: list[str]) -> bytes:
    return orjson.dumps({"numbers": numbers})


def key_body(key: dict, text: str) -> bytes:
    """The only answer that contains the text of a key."""
    reach = narrowed(key["role"], key["permissions"])
    return orjson.dumps(
        {
            "key_id": key["key_id"],
            "api_key": text,
            "name": key["name"],
            "role": key["role"],
            "permissions": reach.names(),
            "expires_at": time_text(key["expires_us"]),
            "created_by_entity_id": key["created_by"],
            "created_by_credential_id": key["created_with"],
        }
    )


def expiry(us: int, days: int) -> int:
    return us + days * DAY_US


def metadata(call, **facts) -> str:
    return orjson.dumps({**facts, "request_id": call.request_id}).decode()


def beginnings(call, new) -> str:
    """The first values of a new workspace, for its audit event."""
    return metadata(
        call, name=new.name, environment=new.environment, region=new.region, backend_org_id=new.backend_org_id
    )


def key_facts(call, key: dict) -> str:
    reach = narrowed(key["role"], key["permissions"])
    return metadata(
        call,
        key_id=key["key_id"],
        role=key["role"],
        permissions=reach.names(),
        expires_at=time_text(key["expires_us"]),
    )


def patched(current: tuple, change) -> tuple[list, dict]:
    """Applies a merge patch. The result is the new row, and `{"field": {"from", "to"}}` for each changed field."""
    row, changes = list(current), {}
    given = change.model_fields_set
    for index, field in ((NAME, "name"), (ENVIRONMENT, "environment"), (REGION, "region"), (CONNECTOR, "connector_type")):
        wanted = getattr(change, field)
        # Null clears the connector and does not change the other fields.
        if field not in given or (wanted is None and index != CONNECTOR) or wanted == row[index]:
            continue
        changes[field] = {"from": row[index], "to": wanted}
        row[index] = wanted
    return row, changes


def without_repeats(numbers: list[str]) -> list[str]:
    return list(dict.fromkeys(numbers))
