#!/usr/bin/env bash
# The whole life of a tenant with only curl and sed, against a running `ward serve`.
#
#   examples/first-workspace.sh [URL]     URL defaults to http://127.0.0.1:8080
set -euo pipefail

url=${1:-http://127.0.0.1:8080}
slug=clinic-$(date +%s)-$$

# call METHOD PATH KEY [BODY]: sends one request, prints the answer and keeps it in $answer. KEY may be empty.
call() {
    local auth=() body=()
    [[ -z $3 ]] || auth=(-H "authorization: Bearer $3")
    [[ -z ${4:-} ]] || body=(-H 'content-type: application/json' -d "$4")
    answer=$(curl -sS --fail-with-body -X "$1" "$url$2" ${auth[@]+"${auth[@]}"} ${body[@]+"${body[@]}"})
    printf '%s\n' "$answer" | sed 's/"api_key":"ward_[^"]*"/"api_key":"ward_…"/'
}

# refused STATUS METHOD PATH KEY: sends one request that must be refused with this status.
refused() {
    local status
    status=$(curl -sS -o /dev/null -w '%{http_code}' -X "$2" "$url$3" -H "authorization: Bearer $4")
    [[ $status == "$1" ]] || { echo "expected $1, got $status" >&2; exit 1; }
    echo "$2 is refused with $status, as it should be"
}

# field NAME: prints the first text field of this name in the last answer.
field() { sed -n 's/.*"'"$1"'":"\([^"]*\)".*/\1/p' <<<"$answer" | head -n 1; }

say() { printf '\n# %s\n' "$*"; }

say "Create a workspace. It has no key yet."
call POST /v1/workspaces '' '{"slug":"'"$slug"'","name":"First Clinic","environment":"development"}'
workspace=$(sed -n 's/^{"id":"\([^"]*\)".*/\1/p' <<<"$answer")

say "Claim it: the first caller gets the owner key, which is shown only once."
call POST "/v1/$workspace/api-keys" '' '{"duration_days":90,"name":"owner"}'
owner=$(field api_key)

say "Show the owner of the key."
call GET /v1/auth/me "$owner"

say "List the workspaces that the key opens."
call GET '/v1/workspaces?limit=20' "$owner"

say "Read the workspace."
call GET "/v1/workspaces/$workspace" "$owner"

say "Update it: set the EHR that it is connected to."
call PATCH "/v1/workspaces/$workspace" "$owner" '{"name":"First Clinic, Main Street","connector_type":"fhir_store"}'

say "Provision it: this creates the EHR's integration. A second call does no harm."
call POST "/v1/workspaces/$workspace/provision" "$owner"
call POST "/v1/workspaces/$workspace/provision" "$owner"
call GET "/v1/$workspace/integrations" "$owner"

say "Set the test callers: calls from these numbers are never sent to the EHR."
call PUT "/v1/workspaces/$workspace/test-caller-numbers" "$owner" '{"numbers":["+1 555 010 0001","+15550100002"]}'
call GET "/v1/workspaces/$workspace/test-caller-numbers" "$owner"

say "Create a second key with a lower role."
call POST "/v1/$workspace/api-keys" "$owner" '{"duration_days":30,"name":"dashboard","role":"viewer"}'
viewer=$(field api_key)
viewer_id=$(field key_id)
call GET "/v1/workspaces/$workspace" "$viewer"
refused 403 PATCH "/v1/workspaces/$workspace" "$viewer"

say "Rotate it: the old secret ends at once."
call POST "/v1/$workspace/api-keys/$viewer_id/rotate" "$owner" '{"duration_days":30}'
rotated=$(field api_key)
refused 401 GET "/v1/workspaces/$workspace" "$viewer"
call GET "/v1/workspaces/$workspace" "$rotated"

say "Revoke it."
call DELETE "/v1/$workspace/api-keys/$viewer_id" "$owner"
refused 401 GET "/v1/workspaces/$workspace" "$rotated"

say "Read the audit log."
call GET "/v1/$workspace/audit?limit=20" "$owner"

say "Archive the workspace: everything is kept, and access ends."
call POST "/v1/workspaces/$workspace/archive" "$owner" '{"slug":"'"$slug"'"}'
refused 401 GET "/v1/workspaces/$workspace" "$owner"

say "Done."
