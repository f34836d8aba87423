// A tenant's life through a client that openapi-typescript and openapi-fetch make from the served document. Every request and every
// answer is typed by it: what the types refuse does not compile.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const [baseUrl] = process.argv.slice(2);
assert(baseUrl, "usage: life.js URL");

type Problem = components["schemas"]["ErrorResponse"];
type Invalid = components["schemas"]["HTTPValidationError"];

const anonymous = createClient<paths>({ baseUrl });
const bearing = (key: string) => createClient<paths>({ baseUrl, headers: { authorization: `Bearer ${key}` } });

/** The data of an answer with this status. */
function good<T>(answer: { data?: T; error?: unknown; response: Response }, status: number): T {
  assert.equal(answer.response.status, status, JSON.stringify(answer.error));
  assert.ok(answer.response.headers.get("x-request-id"), "an answer without x-request-id");
  assert.notEqual(answer.data, undefined);
  return answer.data as T;
}

/** An error as the document types it: what went wrong, for people and for programs. */
function refused(answer: { error?: Problem | Invalid; response: Response }, status: number): Problem {
  assert.equal(answer.response.status, status);
  const error = answer.error;
  assert(error && "error_code" in error, JSON.stringify(error));
  assert.equal(error.request_id, answer.response.headers.get("x-request-id"));
  return error;
}

// Create, twice with one key: one workspace.
const slug = `clinic-${randomUUID().slice(0, 8)}`;
const once = { header: { "Idempotency-Key": randomUUID() } };
const wanted = { slug, name: "A clinic", environment: "development", region: "us-east-1" } as const;
const created = good(await anonymous.POST("/v1/workspaces", { params: once, body: wanted }), 201);
const repeated = good(await anonymous.POST("/v1/workspaces", { params: once, body: wanted }), 201);
assert.deepEqual(repeated, created);
const inside = { path: { workspace_id: created.id } };

// Claim, and act with the key.
const claim = { name: "first key", duration_days: 90 };
const key = good(await anonymous.POST("/v1/{workspace_id}/api-keys", { params: inside, body: claim }), 201);
const owner = bearing(key.api_key);
const me = good(await owner.GET("/v1/auth/me"), 200);
assert.equal(me.workspace_id, created.id);
assert.ok(me.expires_in_seconds > 89 * 86_400);

const listed = good(await owner.GET("/v1/workspaces", { params: { query: { limit: 10 } } }), 200);
assert.deepEqual(listed.items.map((workspace) => workspace.slug), [slug]);
const patch = { name: "A renamed clinic", connector_type: "fhir_store" } as const;
const changed = good(
  await owner.PATCH("/v1/workspaces/{workspace_id}", { params: inside, body: patch }),
  200,
);
assert.equal(changed.name, patch.name);
good(await owner.POST("/v1/workspaces/{workspace_id}/provision", { params: inside }), 200);
const numbers = ["+15550100001"];
const callers = good(
  await owner.PUT("/v1/workspaces/{workspace_id}/test-caller-numbers", { params: inside, body: { numbers } }),
  200,
);
assert.deepEqual(callers.numbers, numbers);

// Errors are typed: a stranger's workspace, a wrong body, a taken slug, no key.
const stranger = { path: { workspace_id: randomUUID() } };
const missing = refused(await owner.GET("/v1/workspaces/{workspace_id}", { params: stranger }), 404);
assert.equal(typeof missing.detail, "string");
const wrong = await owner.POST("/v1/{workspace_id}/api-keys", {
  params: inside,
  body: { duration_days: 0 },
});
assert.equal(wrong.response.status, 422);
assert(wrong.error && "detail" in wrong.error && Array.isArray(wrong.error.detail));
assert.deepEqual(wrong.error.detail[0]?.loc, ["body", "duration_days"]);
const taken = await anonymous.POST("/v1/workspaces", { body: { ...wanted, slug } });
assert.equal(refused(taken, 409).error_code, "slug_taken");
const keyless = await anonymous.GET("/v1/workspaces");
assert.equal(refused(keyless, 401).error_code, "unauthorized");
assert.match(keyless.response.headers.get("www-authenticate") ?? "", /^Bearer/);

// A second key, rotated once although it is asked for twice, and revoked.
const minted = good(
  await owner.POST("/v1/{workspace_id}/api-keys", {
    params: inside,
    body: { name: "a colleague's", duration_days: 30, role: "viewer", permissions: [] },
  }),
  201,
);
const denied = await bearing(minted.api_key).PATCH("/v1/workspaces/{workspace_id}", { params: inside, body: patch });
assert.equal(refused(denied, 403).error_code, "forbidden");
assert(denied.error && "missing" in denied.error);
assert.deepEqual(denied.error.missing, { kind: "permission", name: "Workspace.update" });
assert.equal(denied.error.because.reason, "membership_role");
const named = { path: { workspace_id: created.id, key_id: minted.key_id } };
const rotation = { ...named, header: { "Idempotency-Key": randomUUID() } };
const rotate = () =>
  owner.POST("/v1/{workspace_id}/api-keys/{key_id}/rotate", { params: rotation, body: { duration_days: 60 } });
const rotated = good(await rotate(), 200);
assert.equal(good(await rotate(), 200).api_key, rotated.api_key);
assert.notEqual(rotated.api_key, minted.api_key);
const ended = await owner.DELETE("/v1/{workspace_id}/api-keys/{key_id}", { params: named });
assert.equal(ended.response.status, 204);
assert.equal((await bearing(rotated.api_key).GET("/v1/auth/me")).response.status, 401);

const audit = good(await owner.GET("/v1/{workspace_id}/audit", { params: { ...inside, query: { limit: 50 } } }), 200);
assert.ok(audit.events.some((event) => event.action === "api_key.revoke"));
const archived = good(
  await owner.POST("/v1/workspaces/{workspace_id}/archive", { params: inside, body: { slug } }),
  200,
);
assert.equal(archived.slug, slug);
assert.equal((await owner.GET("/v1/auth/me")).response.status, 401);
console.log("a tenant's life: done");
