"""The requests of the differential. Values are JSON *text*, so that every spelling of a number can be sent.

`BODIES` and `QUERIES` have values that a schema does not suggest, such as texts that fit a pattern. `complete` derives the
values of all other fields from the document.
"""

import json
import urllib.parse

SPACES = ["", " ", "\t", "\n", "\u00a0", "\u2003", "\u2028", "\u3000", "\x85", "\x1c", "\x1f", "\u200b", "\ufeff", "\u180e"]
STRINGS = ["", "a", "x", "acme", "acme-health", "A", "-a", "a-", "a--b", "a_b", "ab\n", "\u00e9", "\U0001f3e5", "e\u0301", "\u0661",
           "null", "true", "1", "30", " 30 ", "30.0", "1_0", "0x1", "production", "Production", "staging", "us-east-1",
           "epic", "owner", "Workspace.view", "+15550100001", "\\", "\"", "'", "\x7f", "\x01", "a" * 63, "a" * 64,
           "\U0001f3e5" * 63, "z" * 201, "\u00df" * 200]
# The longest text that is derived from a bound.
LONGEST = 20_001
LONG = ["a" * 5000, "\x01" * 3000, "\u00e9" * 9000, "k" * 300]
NUMBERS = ["0", "1", "-1", "30", "90", "91", "7", "-0", "1.0", "30.0", "90.0", "90.5", "0.5", "-0.0", "1e1", "9e1", "9.1e1",
           "1E+2", "1e-1", "30.000000000000000000001", "1e18", "1e19", "1e20", "-1e20", "1e308", "9007199254740993",
           "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
           "18446744073709551616", "99999999999999999999", "9223372036854774784.0", "9223372036854775807.0", "4.9e-324",
           "123456789.123456789"]
INT_TEXTS = ["5", "+5", "-5", " 5", "5 ", "\n5", "\u00a05", "\u20035\u2003", "\x1c5", "5.0", "5.00", "5.", ".0", "5.5", "5.0_0", "1_0", "_1",
             "1_", "1__0", "+_1", "-_1", "07", "007", "-07", "0_7", "00_7", "0", "-0", "+0", "00", "1e1", "0x5", "0b1", "\u0665", "\uff15",
             "5\u0000", "", " ", "+", "-", "+-5", "--5", "- 5", "true", "nan", "inf", "5,0", "1_0.0", "5.0 ", "5 .0", "19", "20", "21", "99", "100", "101",
             "9223372036854775807", "9223372036854775808", "-9223372036854775809", "9" * 30, "-" + "9" * 30, "9" * 4300,
             "9" * 4301, "0" * 50 + "5", "0" * 5000 + "5", "1" + "_0" * 2200, "9" * 4300 + ".0", "+" + "9" * 4300, "0_0", "0_", "00.0", "-00", "+.0", "0-9", "+0-9", "0.", "000_5", "-0_5", "-00_5", "5_.0", "5._0"]
FLOAT_TEXTS = ["1.5", " 1.5 ", "1e3", "1E+3", ".5", "5.", "-.5", "+.5", "1_000.5", "1__0.5", "_1.5", "1._5", "1e1_0", "nan", "NaN", "inf", "-inf",
               "Infinity", "infinity", "1e400", "-1e400", "1e-400", "0x1p3", "1.5f", "1,5", "\u0661.5", "\u00a01.5", "\x1c1.5", "", "e5", "1e", "+-1",
               "864000.0", "864000.0000000001", "864000.1", "-0.0", "9" * 400, "1d", "true"]
BOOL_TEXTS = ["0", "1", "2", "true", "True", "TRUE", "tRuE", "false", "t", "f", "y", "n", "yes", "no", "Yes", "on", "off", "ON", "", " true",
              "true ", "tru", "null", "1.0", "01", "-1", "\u0130", "o\ufb00", "\u212a"]
UUIDS = ["550e8400-e29b-41d4-a716-446655440000", "550E8400-E29B-41D4-A716-446655440000", "550e8400e29b41d4a716446655440000",
         "{550e8400-e29b-41d4-a716-446655440000}", "urn:uuid:550e8400-e29b-41d4-a716-446655440000",
         "URN:UUID:550e8400-e29b-41d4-a716-446655440000", "urn:uuid:550e8400e29b41d4a716446655440000",
         "{550e8400e29b41d4a716446655440000}", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"]
TIMES = ["2023-01-01", "2023-01-01T00:00", "2023-01-01T00:00:00", "2023-01-01 00:00:00", "2023-01-01_00:00:00", "2023-01-01t00:00:00z",
         "2023-01-01T00:00:00Z", "2023-01-01T12:34:56.1Z", "2023-01-01T12:34:56.123456Z", "2023-01-01T12:34:56.1234567Z",
         "2023-01-01T12:34:56.123456789012Z", "2023-01-01T12:34:56,123Z", "2023-01-01T12:34:56.Z", "2023-01-01T12:34:56+01:00",
         "2023-01-01T12:34:56-0130", "2023-01-01T12:34:56+01", "2023-01-01T12:34:56+24:00", "2023-01-01T12:34:56+23:59",
         "2023-01-01T12:34:56+01:60", "2023-01-01T12:34:56 01:00", "2023-01-01T12:34:56\u221201:00", "2023-01-01T23:59:60Z",
         "2023-01-01T24:00:00Z", "2023-01-01T12:60Z", "2023-02-29", "2024-02-29", "1900-02-29", "2000-02-29T00:00Z", "2023-13-01", "2023-00-10",
         "2023-01-00", "2023-01-32", "0000-01-01", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+10:00",
         "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-10:00", "10000-01-01", "2023-1-1", "20230101", "2023-W01-1", "01/02/2023", "today", "now",
         "", " ", "x", " 2023-01-01", "2023-01-01 ", "2023-01-01Tx", "2023-01-01T1", "2023-01-01T00", "0", "-0", "+0", "-1", "1700000000", "1700000000.5",
         "-1700000000.25", "1700000000.1234567", "1700000000000", "1700000000123", "20000000000", "20000000001", "-20000000001", "-62135596800", "-62135596801", "-62167219200", "-62167219201",
         "253402300799", "253402300799999", "253402300800", "253402300799000", "253402300800000", "-62135596800000", "99999999999999999999", "1e3", "1.", ".5", "1_0", "nan", "inf", "-inf", "infinity", "1700000000Z", "\u0661", "0.1", "-0.5", "1.0000005", "1.9999999"]


def text(rng):
    pick = rng.random()
    if pick < 0.45:
        return rng.choice(STRINGS)
    if pick < 0.75:
        return rng.choice(SPACES) + rng.choice(STRINGS) + rng.choice(SPACES)
    if pick < 0.85:
        return "".join(chr(rng.choice([rng.randrange(0x20, 0x7f), rng.randrange(0xa0, 0xd7ff), rng.randrange(0x10000, 0x10ffff)]))
                       for _ in range(rng.randrange(1, 70)))
    if pick < 0.88:
        return "a\0" + rng.choice(STRINGS)
    if pick < 0.89:
        return rng.choice(LONG)
    return rng.choice(INT_TEXTS)


def spell(rng, value):
    return json.dumps(value, ensure_ascii=rng.random() < 0.5)


def anything(rng, depth=0):
    pick = rng.random()
    if pick < 0.35:
        return spell(rng, text(rng))
    if pick < 0.65:
        return rng.choice(NUMBERS)
    if pick < 0.8:
        return rng.choice(["null", "true", "false", "[]", "{}"])
    if pick < 0.83:
        return rng.choice(["NaN", "Infinity", "-Infinity", "1e400", "-1e999", '"\\ud800"', '"\\udfff x"'])
    if depth > 2:
        return "null"
    if pick < 0.92:
        return "[" + ", ".join(anything(rng, depth + 1) for _ in range(rng.randrange(4))) + "]"
    return "{" + ", ".join(spell(rng, text(rng)) + ": " + anything(rng, depth + 1) for _ in range(rng.randrange(4))) + "}"


def one_of(*values):
    return lambda rng: json.dumps(rng.choice(values))


def name(rng):
    return spell(rng, rng.choice(SPACES) + rng.choice(["Acme", "\u00c9cole", "\U0001f3e5", "x y"]) + rng.choice(SPACES))


def numbers(rng):
    length = rng.choice([0, 1, 2, 3, 19, 20, 21, 25])
    wild = rng.random() < 0.5
    return "[" + ",".join(anything(rng) if wild and rng.random() < 0.2 else spell(rng, "+1555010%04d" % i) for i in range(length)) + "]"


def permissions(rng):
    return "[" + ",".join(anything(rng) if rng.random() < 0.3 else spell(rng, "Workspace.view") for _ in range(rng.randrange(4))) + "]"


def networks(rng):
    length = rng.choice([0, 1, 2, 50, 51])
    wild = rng.random() < 0.3
    return "[" + ",".join(anything(rng) if wild and rng.random() < 0.2 else spell(rng, rng.choice(["192.0.2.0/24", "::1"])) for _ in range(length)) + "]"


def many(make, most=3):
    return lambda rng: "[" + ", ".join(anything(rng) if rng.random() < 0.1 else make(rng) for _ in range(rng.randrange(most + 1))) + "]"


def mapping(make):
    return lambda rng: "{" + ", ".join(spell(rng, text(rng)) + ": " + (anything(rng) if rng.random() < 0.1 else make(rng))
                                       for _ in range(rng.randrange(3))) + "}"


def model(fields, *required):
    """An object that is mostly valid: it has its required fields nearly always, and each other field sometimes."""
    def make(rng):
        parts = [json.dumps(field) + ": " + (anything(rng) if rng.random() < 0.06 else value(rng))
                 for field, value in fields.items() if rng.random() < (0.97 if field in required else 0.25)]
        return "{" + ", ".join(parts) + "}"
    return make


def words(rng):
    return spell(rng, text(rng))


def listed(values):
    return lambda rng: spell(rng, rng.choice(values))


def either(*makers):
    return lambda rng: rng.choice(makers)(rng)


def known(name, *more):
    """Spellings of a declared text, valid and invalid."""
    return either(one_of(name, *more), words)


SLUG = one_of("acme", "acme-health", "a1", "0" * 63, "a--b")
ENVIRONMENT = one_of("production", "staging", "development")
REGION = one_of("us-east-1", "ap-southeast-2", "eu-central-1", "ca-central-1")
NUMBER = lambda rng: rng.choice(NUMBERS)
INTEGER = either(one_of(0, 1, 2, 7, 30, 31), NUMBER, listed(INT_TEXTS))
BOOLEAN = either(one_of(True, False), listed(BOOL_TEXTS), NUMBER)
DAYS = lambda rng: rng.choice(["1", "30", "90", '"30"', "30.0", "true", '" +7 "', "0", "91", rng.choice(NUMBERS), json.dumps(rng.choice(INT_TEXTS))])
CEILINGS = model({role: either(DAYS, one_of(None)) for role in ("viewer", "member", "operator", "admin", "owner")})
SECRET = model({"value": known("s3cret", "-----BEGIN PRIVATE KEY-----")}, "value")
AUTH = model({
    "api_key_value": SECRET, "assertion_algorithm": one_of("RS384", "ES384", "RS256"), "assertion_audience": words, "assertion_issuer": words,
    "assertion_includes_jku": BOOLEAN,
    "assertion_kid": words, "assertion_scopes_in_jwt": BOOLEAN, "assertion_subject": words, "bearer_token_value": SECRET,
    "client_id": words, "client_secret_ssm_param_path": words, "client_secret_value": SECRET, "gcp_scopes": many(words),
    "header_name": words, "private_key_ssm_param_path": words, "private_key_value": SECRET, "scopes": many(words),
    "ssm_param_path": words, "token_lifetime_seconds": INTEGER, "token_ssm_param_path": words, "token_url": words,
    "type": one_of("api_key_header", "bearer_token", "gcp_wif"),
}, "type")
ENDPOINT = model({
    "allow_reserved": BOOLEAN, "auth": AUTH, "base_url": words, "body_format": one_of("json", "form"), "description": words, "headers": mapping(words),
    "input_schema": mapping(anything), "max_result_length": INTEGER, "method": one_of("GET", "DELETE"), "name": known("send"),
    "path": known("/notes"), "response_filter": many(words), "response_mapping": mapping(words),
    "result_delivery": one_of("interrupt", "queue"), "result_key": words, "result_template": words,
    "retry_config": model({"max_retries": INTEGER, "retry_on_status": many(INTEGER)}),
}, "description", "name", "path")
DELIVERY = model({
    "document_status": one_of("preliminary", "final"), "encounter": one_of("optional", "reported", "look_up"),
    "department_id": known("1", "x" * 64, "x" * 65), "provider_id": words, "document_source": words, "document_subclass": words,
    "associate_contacts": BOOLEAN, "send_without_encounter": BOOLEAN, "patient": one_of("reported", "search", "match"),
    "calls": model({
        "statuses": many(one_of("completed", "busy", "no_answer", "failed", "canceled"), 6), "directions": many(one_of("inbound", "outbound")),
        "min_duration_seconds": known(0, 86400, 86401, -1),
        "dispositions": many(known("voicemail", " voicemail ", "x" * 256, "x" * 257), 21),
    }),
    "wait_for_summary_seconds": known(0, 86400, 86401, -1),
    "time_zone": one_of("America/New_York", "x" * 65), "category": known(" Telephone ", "", "z" * 65),
})
UPDATE_INTEGRATION = {
    "auth": AUTH, "delivery": DELIVERY, "base_url": known("https://ehr.example", "x" * 2048, "x" * 2049), "display_name": name, "enabled": BOOLEAN,
    "endpoints": many(ENDPOINT, 2), "mcp_args": many(words), "mcp_command": known("x" * 512, "x" * 513), "mcp_headers": mapping(words),
    "mcp_transport": one_of("stdio", "sse", "http"), "mcp_url": known("x" * 2048, "x" * 2049), "protocol": one_of("rest", "fhir", "mcp"),
}
SHORT = known("x", "y" * 256, "y" * 257)
PARTY = known("+15550100001", " anonymous ", "z" * 320, " " + "z" * 320 + " ", "z" * 321)
CREATE = {"slug": SLUG, "name": name, "environment": ENVIRONMENT, "region": REGION, "backend_org_id": name}
# A list of fields stands for a list of such objects.
BODIES = {
    "create-workspace": CREATE, "create-self-service-workspace": CREATE, "create-my-workspace": CREATE,
    "update-workspace": {"name": name, "environment": ENVIRONMENT, "region": REGION, "connector_type": one_of("epic", "meditab")},
    "archive-workspace": {"slug": SLUG},
    "update-test-caller-numbers": {"numbers": numbers},
    "create-api-key": {"duration_days": DAYS, "name": name, "role": one_of("owner", "x"), "permissions": permissions,
                       "speaks_for": one_of("self", "service", "Service"), "networks": networks,
                       "bound_to": model({"jkt": known("x" * 43, "x" * 42, "x" * 44, "=" * 43), "jwk": mapping(words)})},
    "set-api-key-networks": {"networks": networks},
    "set-access-policy": {"networks": networks, "issuers": many(known("https://id.example", "x" * 2048, "x" * 2049), 33)},
    "rotate-api-key": {"duration_days": DAYS, "grace_seconds": known(0, 604800, 604801, -1)},
    "set-member-role": {"role": known("admin")},
    "nominate-owner": {"entity_id": listed(UUIDS), "duration_days": INTEGER},
    "create-invitation": {"role": known("member"), "email": known("a@b", " a@b.example\n", "a@@b", "a b@c", "@b", "a@", "a" * 252 + "@b", "a" * 253 + "@b"),
                          "duration_days": INTEGER},
    "create-trust-rule": {
        "name": name, "issuer": known("https://id.example", "https://token.actions.githubusercontent.com", "x" * 512, "x" * 513),
        "audience": known("https://ward.example", "", "x" * 512, "x" * 513),
        "conditions": many(model({"claim": known("sub", "/kubernetes.io/serviceaccount/uid", "x" * 257),
                                  "equals": known("a", "", "x" * 2048, "x" * 2049), "starts_with": known("a", "")}, "claim", "equals")),
        "role": known("member"), "permissions": permissions, "expires_at": either(listed(TIMES), NUMBER)},
    "extend-invitation": {"duration_days": INTEGER}, "resend-invitation": {"duration_days": INTEGER},
    "report-leaked-keys": [{"token": known("ward_x", "x" * 4096, "x" * 4097, "a\0b"), "type": SHORT, "url": known("https://h.example/x", "u" * 16385),
                            "source": SHORT}],
    "set-leaked-key-policy": {"action": known("revoke", "quarantine", "Revoke", "", " revoke ")},
    "open-handover": {"token": known("ward_handover_x", "x" * 128, "x" * 129, "", " x ")},
    "set-key-policy": {"ceiling_days": CEILINGS},
    "revoke-presented-api-key": {"api_key": known("ward_x", "x" * 256, "x" * 257, "", " x ")},
    "explain-access": {"caller": known("x" * 22, "x" * 128, "x" * 129, "", " x "),
                       "operation": known("get-workspace", "GET /v1/me", "x" * 2048, "x" * 2049, ""), "address": known("192.0.2.1", "::1")},
    "accept-invitation": {"invitation": known("ward_invitation_x", "x" * 200, "x" * 201, " x ")},
    "create-integration": {**{field: make for field, make in UPDATE_INTEGRATION.items() if field != "protocol"},
                           "name": known("epic"), "protocol": UPDATE_INTEGRATION["protocol"]},
    "update-integration": UPDATE_INTEGRATION,
    "create-integration-key": {"algorithm": one_of("RS256", "RS384", "ES384")},
    "test-integration-endpoint": {"params": mapping(anything)},
    "report-call": {
        "status": known("queued", "in-progress", "completed", "no-answer", "NO_ANSWER", "wrapping-up", "x" * 65), "caller_id": PARTY,
        "direction": known("inbound", " Outbound ", "playground", "outbound-api"), "phone_number": PARTY,
        "completion_reason": known("completed", "voicemail", "no_answer", "z" * 257, "z" * 65536, " " + "z" * 65536, "z" * 65537),
        "duration_seconds": either(one_of(0, 0.5, 864000, 864000.5, 864001, -1), NUMBER, listed(FLOAT_TEXTS)),
        "started_at": either(listed(TIMES), NUMBER), "ended_at": either(listed(TIMES), NUMBER), "turns": either(INTEGER, one_of([], [1])),
        "has_recording": BOOLEAN, "service_id": SHORT, "escalation_status": SHORT, "final_state": SHORT,
        "quality_score": either(NUMBER, listed(FLOAT_TEXTS), listed(INT_TEXTS)), "run_id": SHORT, "parent_session_id": SHORT,
        "fork_turn_index": INTEGER, "patient_id": known("pat-1", "A" * 65, "a_b", "a\n"),
        "encounter_id": known("enc-1", "A" * 65, "a_b", "a\n"),
        "patient_birth_date": known("1980-02-29", "1980-02-30", "a\n"), "patient_phone": known("+15550100001", "x"),
        "summary": known("z" * 20001, "\U0001fa7a"), "credential_id": listed(UUIDS),
    },
    "set-twilio": {"account_sid": one_of("AC" + "0" * 32, "AC" + "f" * 32, "AC" + "F" * 32, "AC" + "0" * 33, "ac" + "0" * 32),
                   "auth_token": known("12345678", "1234567", "x" * 256, "x" * 257),
                   "secondary_auth_token": known(" 12345678 ", "1234567 "),
                   "reconciliation": known("off", "report", "enter", "Report")},
    "resolve-delivery": {"in_ehr": BOOLEAN, "location": known("Communication/1", "x" * 200, "x" * 201, "a b", "\u00e9")},
    "drop-delivery": {"reason": known("x", " x ", "", " ", "z" * 500, "z" * 501)},
    "correct-call": {"patient_id": known("pat-1", "A" * 64, "A" * 65, "a_b", "a\n"),
                     "encounter_id": known("enc-1", "A" * 65, "a_b"),
                     "summary": known("z" * 20000, "z" * 20001, "\U0001fa7a"),
                     "patient_birth_date": known("1980-02-29", "x" * 11), "patient_phone": known("+15550100001", "x" * 65)},
    "resolve-review": {"review_id": listed(UUIDS), "id": known("pat-1", "A" * 64, "A" * 65, "a_b", "a\n")},
    "amend-delivery": {"patient_id": known("pat-1", "A" * 65, "a_b"), "encounter_id": known("enc-1", "A" * 65, "a_b"),
                       "summary": known("z" * 20000, "z" * 20001)},
    "retry-failed-deliveries": {"integration_id": listed(UUIDS)},
    "backfill-deliveries": {"date_from": listed(TIMES), "date_to": listed(TIMES), "after_call_id": listed(UUIDS)},
    "hold-integration": {"held": BOOLEAN},
    "update-test-credential-ids": {"credential_ids": many(listed(UUIDS))},
    "convert-workspace-environment": {"target": one_of("production", "staging", "development"), "confirm_slug": known("acme", "a", "A"),
                                      "accept": many(one_of("real_calls_present", "no_connector", "whatever"))},
    "rename-workspace": {"slug": SLUG, "confirm_slug": SLUG},
    "create-audit-export": {"date_from": listed(TIMES), "date_to": listed(TIMES), "service": known("x" * 64, "x" * 65),
                            "action": known("x" * 128, "x" * 129), "phi_only": BOOLEAN},
}
STATE = ["pending", "sending", "synced", "held", "failed", "dropped", "Held", "held "]
INT, BOOL, UUID_, TIME, TEXT = INT_TEXTS, BOOL_TEXTS, UUIDS, TIMES, STRINGS
PAGE = {"limit": INT, "continuation_token": INT}
QUERIES = {
    "list-workspaces": PAGE,
    "list-api-keys": {"mine_only": BOOL, **PAGE},
    "list-audit-events": {"service": TEXT, "action": TEXT, "actor_entity_id": UUID_, "resource_type": TEXT, "resource_id": UUID_,
                          "phi_only": BOOL, "date_from": TIME, "date_to": TIME, "limit": INT, "offset": INT},
    "get-audit-summary": {"date_from": TIME, "date_to": TIME},
    "list-audit-exports": {"limit": INT},
    "authorize": {"permission": ["Call.view", "Audit.view", "call.view", "", "Call.sing"]},
    "get-phi-access-report": {"entity_id": UUID_, "date_from": TIME, "date_to": TIME, "limit": INT, "offset": INT},
    "get-entity-access-log": {"date_from": TIME, "date_to": TIME, "limit": INT, "offset": INT},
    "check-environment-conversion": {"target": ["production", "staging", "development", "", "Production"]},
    "list-integrations": {"enabled": BOOL, "protocol": TEXT, "search": TEXT, "sort_by": TEXT, **PAGE},
    "get-me": PAGE, "list-trust-rules": PAGE, "list-members": PAGE, "list-invitations": PAGE, "list-my-invitations": PAGE,
    "list-archived-workspaces": PAGE,
    "list-calls": {"date_from": TIME, "date_to": TIME, "status": TEXT, "direction": TEXT, "min_duration": INT, "max_duration": INT,
                   "service_id": TEXT, "include_simulated": BOOL, "include_test": BOOL, "limit": INT, "offset": INT,
                   "continuation_token": INT},
    "list-deliveries": {"state": STATE, "integration_id": UUID_, "call_id": UUID_, **PAGE},
}
TYPES = ["application/json"] * 12 + ["application/json; charset=utf-8", "APPLICATION/JSON", "application/merge-patch+json",
         "application/vnd.api+json ; a=b", " application/json", "application/json;", "text/plain", "text/json", "application/x-json",
         "application/jsonp", "application/json/x", "json", "application/", "/json", "multipart/form-data", "application/+json", "",
         "application/x-www-form-urlencoded", "*/*", "application/json, text/plain"]


def scramble(rng, value):
    """A text with a few characters changed at random."""
    characters = list(value)
    for _ in range(rng.randrange(1, 3)):
        at = rng.randrange(len(characters) + 1)
        change = rng.random()
        if change < 0.4 and at < len(characters):
            del characters[at]
        elif change < 0.7:
            characters.insert(at, rng.choice("0123456789abcdefgx-:+.TZ {}[]\",\\\u00e9"))
        elif at < len(characters):
            characters[at] = rng.choice("0123456789abcdefgx-:+.TZ {}[]\",\\\u00e9")
    return "".join(characters)


def body_request(rng, operation):
    fields = []
    wild = rng.choice([0.0, 0.15, 0.5])
    asked = BODIES[operation]
    of_list = isinstance(asked, list)
    for field, make in ({} if of_list else asked).items():
        if rng.random() < (0.1 if wild else 0.03):
            continue
        if rng.random() < wild:
            value = anything(rng)
        elif rng.random() < 0.05:
            value = "null"
        else:
            value = make(rng)
        fields.append((json.dumps(field), value))
    while rng.random() < 0.2:
        fields.insert(rng.randrange(len(fields) + 1), (spell(rng, rng.choice(["extra", "id", "Slug", text(rng)])), anything(rng)))
    if fields and rng.random() < 0.05:
        fields.append((fields[0][0], anything(rng)))
    if rng.random() < 0.2:
        rng.shuffle(fields)
    body = "{" + ", ".join(f"{key}: {value}" for key, value in fields) + "}"
    if of_list:
        body = many(model(asked[0], *asked[0]), 4)(rng)
    if rng.random() < 0.06:
        body = anything(rng)
    if rng.random() < 0.1:
        body = scramble(rng, body)
    sent = body.encode("utf-8", "surrogatepass")
    if rng.random() < 0.02:
        sent = b"\xef\xbb\xbf" + sent
    if rng.random() < 0.02:
        at = rng.randrange(len(sent) + 1)
        sent = sent[:at] + rng.choice([b"\xff", b"\xc3", b"\x80"]) + sent[at:]
    if rng.random() < 0.01:
        sent = b""
    kind = rng.choice(TYPES) if rng.random() < 0.3 else "application/json"
    return {"operation": operation, "query": None, "content_type": kind or None, "body": sent}


def query_request(rng, operation):
    parts = []
    for field, values in QUERIES[operation].items():
        while rng.random() < 0.45:
            pick = rng.random()
            value = rng.choice(values) if pick < 0.7 else scramble(rng, rng.choice(values)) if pick < 0.85 else text(rng)
            quoted = urllib.parse.quote(value, safe=rng.choice(["", ":+.,'"])) if rng.random() < 0.9 else urllib.parse.quote_plus(value)
            parts.append(rng.choice([field, field, field, field, field.replace("_", "%5F"), field.upper()]) + "=" + quoted)
    while rng.random() < 0.2:
        parts.append(rng.choice(["", "=", "limit", "limit=%", "limit=%zz", "service=%ff", "service=%c3%28", "search=%f0%9f%8f", "x=1", "search=+",
                                 "limit=1;limit=2", "service=a%00b", "phi_only", "search=%EF%BB%BF", "&&", "action=a=b", "limit=5#"]))
    rng.shuffle(parts)
    return {"operation": operation, "query": "&".join(parts), "content_type": None, "body": None}


def around(schema, *names):
    """The declared bounds of these names, and the numbers beside them."""
    return [int(schema[name]) + beside for name in names if name in schema for beside in (-1, 0, 1)]


def values(schema, plain):
    """Makes values of a declared part: valid ones, its bounds, and values just beyond them."""
    schema = plain(schema)
    kind, form = schema.get("type"), schema.get("format")
    if "enum" in schema:
        return either(one_of(*schema["enum"]), one_of(*schema["enum"]), words)
    if form in ("date", "date-time", "uuid"):
        return listed(UUIDS if form == "uuid" else TIMES)
    if kind == "boolean":
        return BOOLEAN
    if kind in ("integer", "number"):
        limits = around(schema, "minimum", "exclusiveMinimum", "maximum")
        return either(INTEGER, INTEGER if kind == "integer" else listed(FLOAT_TEXTS), one_of(*limits) if limits else NUMBER)
    if kind == "string":
        lengths = [length for length in around(schema, "minLength", "maxLength") if 0 < length <= LONGEST]
        return known("x", " x ", "", *("x" * length for length in lengths))
    if kind == "array":
        return many(values(schema["items"], plain), min(schema.get("maxItems", 3), 30) + 1)
    if "properties" in schema:
        return model({field: values(part, plain) for field, part in schema["properties"].items()}, *schema.get("required", []))
    if kind == "object":
        more = schema.get("additionalProperties")
        return mapping(values(more, plain) if isinstance(more, dict) else anything)
    return anything


def texts(schema, plain):
    """Texts for a declared parameter of a query."""
    schema = plain(schema)
    if "enum" in schema:
        return [*schema["enum"], "", schema["enum"][0].capitalize(), schema["enum"][0] + " "]
    by_form = {"uuid": UUIDS, "date": TIMES, "date-time": TIMES}
    return by_form.get(schema.get("format")) or {"integer": INT_TEXTS, "boolean": BOOL_TEXTS}.get(schema["type"], STRINGS)


def complete(document, plain):
    """Adds the bodies, queries and fields of the document that the tables leave out, with values derived from their schemas."""
    for name, one in document.items():
        if one["body"]:
            body = plain(one["body"])
            is_list = body["type"] == "array"
            fields = plain(body["items"] if is_list else body)["properties"]
            derived = {field: values(part, plain) for field, part in fields.items()}
            given = BODIES.get(name) or ([{}] if is_list else {})
            BODIES[name] = [{**derived, **given[0]}] if is_list else {**derived, **given}
        if one["query"]:
            QUERIES[name] = {**{field: texts(part, plain) for field, part in one["query"].items()}, **QUERIES.get(name, {})}
