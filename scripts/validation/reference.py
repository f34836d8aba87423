"""The operations of `contract/openapi.json`, declared by hand for the reference without reading the document."""

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import FastAPI, Query
from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, StringConstraints, TypeAdapter, WrapValidator
from pydantic_core import PydanticCustomError, PydanticKnownError

# In these operations an absent field means "leave as it is".
SPARSE = {"update-workspace", "set-member-role", "report-call", "extend-invitation"}

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Search = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


def text(longest):
    return Annotated[str, StringConstraints(max_length=longest)]


def most(kind, count):
    return Annotated[kind, Field(max_length=count)]


def some(kind, count):
    return Annotated[kind, Field(min_length=1, max_length=count)]


Slug = Annotated[str, StringConstraints(min_length=2, max_length=63, pattern="^[a-z0-9][a-z0-9-]*[a-z0-9]$")]
Environment = Literal["production", "staging", "development"]
Permission = Literal["Workspace.view", "Integration.view", "ApiKey.view", "Call.view", "Integration.update", "Call.create", "Workspace.update",
                     "Workspace.create", "Integration.create", "Integration.delete", "ApiKey.create", "ApiKey.delete", "Audit.view"]
Region = Literal["us-east-1", "ap-southeast-2", "eu-central-1", "ca-central-1"]
Connector = Literal["revolution", "epic", "cerner", "allscripts", "fhir_store", "hubspot", "athenahealth",
                    "charmhealth", "eclinicalworks", "meditab"]
Limit = Annotated[int, Query(gt=0, le=20)]


class Create(BaseModel):
    slug: Slug
    name: Name
    environment: Environment
    region: Region = "us-east-1"
    backend_org_id: Name | None = None


class Update(BaseModel):
    name: Name | None = None
    environment: Environment | None = None
    region: Region | None = None
    connector_type: Connector | None = None


class Archive(BaseModel):
    slug: Slug


class Numbers(BaseModel):
    numbers: Annotated[list[str], Field(max_length=20)]


class KeyBinding(BaseModel):
    jkt: Annotated[str, StringConstraints(min_length=43, max_length=43, pattern=r"^[A-Za-z0-9_-]+$")] | None = None
    jwk: most(dict[text(256), Any], 16) | None = None


class CreateKey(BaseModel):
    duration_days: Annotated[int, Field(ge=1, le=90)]
    name: Name | None = None
    role: text(64) = "member"
    permissions: most(list[text(64)], 64) = Field(default_factory=list)
    speaks_for: Literal["self", "service"] = "service"
    networks: most(list[text(64)], 50) = Field(default_factory=list)
    bound_to: KeyBinding | None = None


class KeyNetworks(BaseModel):
    networks: most(list[text(64)], 50)


class AccessPolicy(BaseModel):
    networks: most(list[text(64)], 50)
    issuers: most(list[Annotated[str, StringConstraints(min_length=1, max_length=2048)]], 32)


class Rotate(BaseModel):
    duration_days: Annotated[int, Field(ge=1, le=90)]
    grace_seconds: Annotated[int, Field(ge=0, le=604800)] = 0


class Role(BaseModel):
    role: text(64)


class Nominate(BaseModel):
    entity_id: UUID
    duration_days: Annotated[int, Field(ge=1, le=30)] = 7


class Invite(BaseModel):
    role: text(64) = "member"
    email: Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=254,
                                            pattern=r"^[^@\s]+@[^@\s]+$")] | None = None
    duration_days: Annotated[int, Field(ge=1, le=30)] = 7


class TrustCondition(BaseModel):
    claim: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    equals: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = None
    starts_with: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = None


class ExtendInvitation(BaseModel):
    duration_days: Annotated[int, Field(ge=1, le=30)]


class ResendInvitation(BaseModel):
    duration_days: Annotated[int, Field(ge=1, le=30)] = 7


class AcceptInvitation(BaseModel):
    invitation: Search


class RevokePresentedKey(BaseModel):
    api_key: Annotated[str, Field(max_length=256)]


class LeakedToken(BaseModel):
    token: text(4096)
    type: text(256) | None = None
    url: text(16384) | None = None
    source: text(256) | None = None


class SetLeakedKeyPolicy(BaseModel):
    action: Literal["revoke", "quarantine"]


class OpenHandover(BaseModel):
    token: Annotated[str, Field(max_length=128)]


class Ceilings(BaseModel):
    viewer: Annotated[int, Field(ge=1, le=90)] | None = None
    member: Annotated[int, Field(ge=1, le=90)] | None = None
    operator: Annotated[int, Field(ge=1, le=90)] | None = None
    admin: Annotated[int, Field(ge=1, le=90)] | None = None
    owner: Annotated[int, Field(ge=1, le=90)] | None = None


class KeyPolicy(BaseModel):
    ceiling_days: Ceilings


class ExplainAccess(BaseModel):
    caller: Annotated[str, Field(max_length=128)]
    operation: Annotated[str, Field(max_length=2048)]
    address: Annotated[str, Field(max_length=64)] | None = None


class Secret(BaseModel):
    value: text(16384)


class Auth(BaseModel):
    api_key_value: Secret | None = None
    assertion_algorithm: Literal["RS384", "ES384", "RS256"] | None = None
    assertion_audience: text(2048) | None = None
    assertion_includes_jku: bool = False
    assertion_issuer: text(2048) | None = None
    assertion_kid: text(256) | None = None
    assertion_scopes_in_jwt: bool = False
    assertion_subject: text(2048) | None = None
    bearer_token_value: Secret | None = None
    client_auth_method: Literal["client_secret_basic", "client_secret_post"] | None = None
    client_id: text(512) | None = None
    client_secret_ssm_param_path: text(2048) | None = None
    client_secret_value: Secret | None = None
    gcp_scopes: most(list[text(512)], 100) | None = None
    header_name: text(256) | None = None
    private_key_ssm_param_path: text(2048) | None = None
    private_key_value: Secret | None = None
    scopes: most(list[text(512)], 100) | None = None
    ssm_param_path: text(2048) | None = None
    token_lifetime_seconds: int = 3600
    token_ssm_param_path: text(2048) | None = None
    token_url: text(2048) | None = None
    type: Literal["api_key_header", "bearer_token", "oauth2_client_credentials", "oauth2_jwt_bearer", "gcp_wif",
                  "smart_backend_services"]


class Retry(BaseModel):
    max_retries: int = 2
    retry_on_status: most(list[int], 200) = [429, 502, 503, 504]


class Endpoint(BaseModel):
    allow_reserved: bool = False
    auth: Auth | None = None
    base_url: text(2048) | None = None
    body_format: Literal["json", "form"] = "json"
    description: text(4096)
    headers: most(dict[text(256), text(4096)], 64) = {}
    input_schema: most(dict[text(256), Any], 256) = {}
    max_result_length: int = 0
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    name: text(64)
    path: text(2048)
    response_filter: most(list[text(16384)], 100) | None = None
    response_mapping: most(dict[text(256), text(16384)], 100) | None = None
    result_delivery: Literal["interrupt", "queue"] = "interrupt"
    result_key: text(256) | None = None
    result_template: text(16384) | None = None
    retry_config: Retry = Retry()


Url = Annotated[str, StringConstraints(max_length=2048)]
Command = Annotated[str, StringConstraints(max_length=512)]
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=256)]
Transport = Literal["stdio", "sse", "http"]
Protocol = Literal["rest", "fhir", "mcp"]
Seconds = Annotated[int, Field(ge=0, le=86400)]


class CallChoice(BaseModel):
    statuses: some(list[Literal["completed", "busy", "no_answer", "failed", "canceled"]], 5) | None = None
    directions: some(list[Literal["inbound", "outbound"]], 2) | None = None
    min_duration_seconds: Seconds | None = None
    dispositions: some(list[Title], 20) | None = None


class Delivery(BaseModel):
    document_status: Literal["preliminary", "final"] | None = None
    encounter: Literal["optional", "reported", "look_up"] | None = None
    department_id: text(64) | None = None
    provider_id: text(64) | None = None
    document_source: text(64) | None = None
    document_subclass: text(64) | None = None
    send_without_encounter: bool | None = None
    patient: Literal["reported", "search", "match"] | None = None
    associate_contacts: bool | None = None
    calls: CallChoice | None = None
    wait_for_summary_seconds: Seconds | None = None
    time_zone: text(64) | None = None
    category: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)] | None = None


class CreateIntegration(BaseModel):
    auth: Auth | None = None
    base_url: Url = ""
    delivery: Delivery | None = None
    display_name: Title
    enabled: bool = True
    endpoints: most(list[Endpoint], 100) = []
    mcp_args: most(list[text(4096)], 100) | None = None
    mcp_command: Command | None = None
    mcp_headers: most(dict[text(256), text(4096)], 64) | None = None
    mcp_transport: Transport | None = None
    mcp_url: Url | None = None
    name: text(64)
    protocol: Protocol = "rest"


class UpdateIntegration(BaseModel):
    auth: Auth | None = None
    base_url: Url | None = None
    delivery: Delivery | None = None
    display_name: Title | None = None
    enabled: bool | None = None
    endpoints: most(list[Endpoint], 100) | None = None
    mcp_args: most(list[text(4096)], 100) | None = None
    mcp_command: Command | None = None
    mcp_headers: most(dict[text(256), text(4096)], 64) | None = None
    mcp_transport: Transport | None = None
    mcp_url: Url | None = None
    protocol: Protocol | None = None


class CreateIntegrationKey(BaseModel):
    # Python keeps one union for equal literals, in the order that it met first. The annotation makes this one another.
    algorithm: Annotated[Literal["RS256", "RS384", "ES384"], Field()] | None = None


class TestEndpoint(BaseModel):
    params: most(dict[text(256), Any], 256) = {}


Finite = Annotated[float, Field(allow_inf_nan=False)]
Short = Annotated[str, StringConstraints(max_length=256)]
Party = Annotated[str, StringConstraints(strip_whitespace=True, max_length=320)]
Count = Annotated[int, Field(ge=0)]


ANY_MOMENT = TypeAdapter(datetime)


def is_number(value):
    try:
        float(value)
        return True
    except (TypeError, ValueError):
        return False


def without_zone():
    return PydanticCustomError("timezone_aware", "Input should have timezone info")


def with_offset(value, read):
    """A time must have its offset from UTC. A number since 1970 has none, but pydantic alone accepts it as UTC."""
    moment = read(value)
    if is_number(value):
        raise without_zone()
    return moment


def bound(time, longest):
    """A time with its offset, or a day, which stands for one of its instants."""
    def checked(value, read):
        if isinstance(value, str) and longest and len(value) > longest:
            raise PydanticKnownError("string_too_long", {"max_length": longest})
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
            ANY_MOMENT.validate_python(value)
            return read(value + time)
        return with_offset(value, read)
    return Annotated[AwareDatetime, WrapValidator(checked)]


def utc_day(value, read):
    """A day, or a time with its offset that is midnight in UTC."""
    day = read(value)
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        return day
    moment = ANY_MOMENT.validate_python(value)
    if moment.tzinfo is None or is_number(value):
        raise without_zone()
    if moment.utcoffset():
        raise PydanticKnownError("date_from_datetime_inexact")
    return day


Moment = Annotated[AwareDatetime, WrapValidator(with_offset)]
FirstOfBody, LastOfBody = bound("T00:00:00Z", None), bound("T23:59:59.999999Z", None)
FirstMoment, LastMoment = bound("T00:00:00Z", 64), bound("T23:59:59.999999Z", 64)
Day = Annotated[date, WrapValidator(utc_day)]


Long = Annotated[str, StringConstraints(max_length=65536)]
Trimmed = Annotated[str, StringConstraints(strip_whitespace=True, max_length=65536)]


class ReportCall(BaseModel):
    status: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=65536)]
    caller_id: Party | None = None
    direction: Trimmed | None = None
    phone_number: Party | None = None
    completion_reason: Trimmed | None = None
    duration_seconds: Finite | None = None
    started_at: Moment | None = None
    ended_at: Moment | None = None
    turns: Annotated[int | None, BeforeValidator(lambda it: None if it == [] else it)] = None
    has_recording: bool | None = None
    service_id: Long | None = None
    escalation_status: Long | None = None
    final_state: Long | None = None
    quality_score: Finite | None = None
    run_id: Long | None = None
    parent_session_id: Long | None = None
    fork_turn_index: int | None = None
    patient_id: Trimmed | None = None
    encounter_id: Trimmed | None = None
    patient_birth_date: Trimmed | None = None
    patient_phone: Trimmed | None = None
    summary: Long | None = None
    credential_id: UUID | None = None


Token = Annotated[str, StringConstraints(strip_whitespace=True, min_length=8, max_length=256)]


class Twilio(BaseModel):
    account_sid: Annotated[str, StringConstraints(max_length=34, pattern="^AC[0-9a-f]{32}$")]
    auth_token: Token
    secondary_auth_token: Token | None = None
    reconciliation: Literal["off", "report", "enter"] | None = None


class Resolve(BaseModel):
    in_ehr: bool
    location: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern="^[!-~]+$")] | None = None


class Drop(BaseModel):
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class CorrectCall(BaseModel):
    patient_id: Annotated[str, StringConstraints(max_length=64, pattern="^[A-Za-z0-9.-]{1,64}$")] | None = None
    encounter_id: Annotated[str, StringConstraints(max_length=64, pattern="^[A-Za-z0-9.-]{1,64}$")] | None = None
    summary: Annotated[str, StringConstraints(max_length=20000)] | None = None
    patient_birth_date: text(10) | None = None
    patient_phone: text(64) | None = None


class AmendDelivery(BaseModel):
    patient_id: Annotated[str, StringConstraints(max_length=64, pattern="^[A-Za-z0-9.-]{1,64}$")] | None = None
    encounter_id: Annotated[str, StringConstraints(max_length=64, pattern="^[A-Za-z0-9.-]{1,64}$")] | None = None
    summary: Annotated[str, StringConstraints(max_length=20000)] | None = None


class ResolveReview(BaseModel):
    review_id: UUID
    id: Annotated[str, StringConstraints(max_length=64, pattern="^[A-Za-z0-9.-]{1,64}$")]


class RetryFailed(BaseModel):
    integration_id: UUID | None = None


class AuditExport(BaseModel):
    date_from: FirstOfBody
    date_to: LastOfBody
    service: Annotated[str, Field(max_length=64)] | None = None
    action: Annotated[str, Field(max_length=128)] | None = None
    phi_only: bool = False


class Backfill(BaseModel):
    date_from: FirstOfBody
    date_to: LastOfBody
    after_call_id: UUID | None = None


class Hold(BaseModel):
    held: bool


class TestCredentials(BaseModel):
    credential_ids: Annotated[list[UUID], Field(max_length=100)]


class Rename(BaseModel):
    slug: Slug
    confirm_slug: Slug


class Convert(BaseModel):
    target: Literal["production", "staging"]
    confirm_slug: Slug
    accept: Annotated[list[Literal["integration_not_provisioned", "integration_disabled", "integration_unconfigured",
                                   "integration_without_tls", "real_calls_present", "no_connector", "test_callers_remain",
                                   "test_credentials_remain", "deliveries_waiting"]], Field(max_length=20)] = []


class TrustRule(BaseModel):
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=256)]
    issuer: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    audience: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    conditions: Annotated[list[TrustCondition], Field(min_length=1, max_length=16)]
    role: text(64) = "member"
    permissions: most(list[text(64)], 64) = Field(default_factory=list)
    expires_at: Moment | None = None


BODIES = {
    "set-access-policy": AccessPolicy, "set-api-key-networks": KeyNetworks,
    "create-trust-rule": TrustRule,
    "update-test-credential-ids": TestCredentials, "convert-workspace-environment": Convert,
    "rename-workspace": Rename,
    "create-workspace": Create, "create-self-service-workspace": Create, "create-my-workspace": Create,
    "update-workspace": Update, "archive-workspace": Archive, "update-test-caller-numbers": Numbers,
    "create-api-key": CreateKey, "rotate-api-key": Rotate, "set-member-role": Role, "nominate-owner": Nominate,
    "create-invitation": Invite, "accept-invitation": AcceptInvitation, "revoke-presented-api-key": RevokePresentedKey,
    "report-leaked-keys": most(list[LeakedToken], 1000), "set-leaked-key-policy": SetLeakedKeyPolicy,
    "set-key-policy": KeyPolicy, "open-handover": OpenHandover,
    "explain-access": ExplainAccess,
    "extend-invitation": ExtendInvitation, "resend-invitation": ResendInvitation, "create-integration": CreateIntegration,
    "update-integration": UpdateIntegration, "create-integration-key": CreateIntegrationKey,
    "test-integration-endpoint": TestEndpoint, "report-call": ReportCall,
    "set-twilio": Twilio, "resolve-delivery": Resolve, "drop-delivery": Drop,
    "correct-call": CorrectCall, "amend-delivery": AmendDelivery, "resolve-review": ResolveReview, "retry-failed-deliveries": RetryFailed,
    "backfill-deliveries": Backfill, "hold-integration": Hold, "create-audit-export": AuditExport,
}


def application():
    """The reference, with one route per operation. It answers an accepted request with the parsed values."""
    app = FastAPI()

    def take(operation, model):
        def route(body):
            told = TypeAdapter(model).dump_python(body, mode="json", exclude_unset=operation in SPARSE)
            return {"query": {}, "body": told}
        route.__annotations__ = {"body": model}
        app.post("/" + operation)(route)

    for operation, model in BODIES.items():
        take(operation, model)

    def given(**query):
        # A parameter that is absent and has no default is absent in Ward's answer.
        return {"query": {name: value for name, value in query.items() if value is not None}, "body": None}

    @app.get("/list-workspaces")
    def _(limit: Limit = 10, continuation_token: int = 0):
        return given(limit=limit, continuation_token=continuation_token)

    @app.get("/list-api-keys")
    def _(mine_only: bool = False, limit: Limit = 10, continuation_token: int = 0):
        return given(mine_only=mine_only, limit=limit, continuation_token=continuation_token)

    @app.get("/check-environment-conversion")
    def _(target: Literal["production", "staging"] = "production"):
        return given(target=target)

    @app.get("/list-audit-events")
    def _(service: text(128) | None = None, action: text(128) | None = None, actor_entity_id: UUID | None = None,
          resource_type: text(128) | None = None, resource_id: UUID | None = None, phi_only: bool = False,
          date_from: FirstMoment | None = None, date_to: LastMoment | None = None,
          limit: Annotated[int, Query(ge=1, le=100)] = 50, offset: Annotated[int, Query(ge=0)] = 0):
        return given(service=service, action=action, actor_entity_id=actor_entity_id, resource_type=resource_type,
                     resource_id=resource_id, phi_only=phi_only, date_from=date_from, date_to=date_to, limit=limit,
                     offset=offset)

    @app.get("/list-audit-exports")
    def _(limit: Annotated[int, Query(ge=1, le=200)] = 50):
        return given(limit=limit)

    @app.get("/authorize")
    def _(permission: Permission | None = None):
        return given(permission=permission)

    @app.get("/get-phi-access-report")
    def _(entity_id: UUID | None = None, date_from: FirstMoment | None = None, date_to: LastMoment | None = None,
          limit: Annotated[int, Query(ge=1, le=100)] = 50, offset: Annotated[int, Query(ge=0)] = 0):
        return given(entity_id=entity_id, date_from=date_from, date_to=date_to, limit=limit, offset=offset)

    @app.get("/get-entity-access-log")
    def _(date_from: FirstMoment | None = None, date_to: LastMoment | None = None,
          limit: Annotated[int, Query(ge=1, le=100)] = 50, offset: Annotated[int, Query(ge=0)] = 0):
        return given(date_from=date_from, date_to=date_to, limit=limit, offset=offset)

    @app.get("/get-audit-summary")
    def _(date_from: FirstMoment | None = None, date_to: LastMoment | None = None):
        return given(date_from=date_from, date_to=date_to)

    @app.get("/list-integrations")
    def _(enabled: bool | None = None, protocol: text(32) | None = None, search: Search | None = None,
          sort_by: text(64) | None = None, limit: Limit = 10, continuation_token: int = 0):
        return given(enabled=enabled, protocol=protocol, search=search, sort_by=sort_by, limit=limit,
                     continuation_token=continuation_token)

    @app.get("/list-calls")
    def _(date_from: Day | None = None, date_to: Day | None = None, status: text(64) | None = None, direction: text(64) | None = None,
          min_duration: int | None = None, max_duration: int | None = None, service_id: text(256) | None = None,
          include_simulated: bool = False, include_test: bool = False, limit: Annotated[int, Query(ge=1, le=100)] = 20,
          offset: Annotated[int, Query(ge=0)] = 0, continuation_token: int | None = None):
        return given(date_from=date_from, date_to=date_to, status=status, direction=direction, min_duration=min_duration,
                     max_duration=max_duration, service_id=service_id, include_simulated=include_simulated,
                     include_test=include_test, limit=limit, offset=offset, continuation_token=continuation_token)

    @app.get("/list-deliveries")
    def _(state: Literal["pending", "sending", "synced", "held", "failed", "dropped"] | None = None, integration_id: UUID | None = None,
          call_id: UUID | None = None, limit: Limit = 10, continuation_token: int = 0):
        return given(state=state, integration_id=integration_id, call_id=call_id, limit=limit,
                     continuation_token=continuation_token)

    for operation in ["get-me", "list-trust-rules", "list-members", "list-invitations", "list-my-invitations",
                      "list-archived-workspaces"]:
        @app.get("/" + operation)
        def _(limit: Limit = 10, continuation_token: int = 0):
            return given(limit=limit, continuation_token=continuation_token)

    return app
