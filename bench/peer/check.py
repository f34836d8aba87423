"""Replays the recorded answers and a tenant's life against the peer, on both engines, with and without `--plain`."""

import argparse
import asyncio
import glob
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import apsw
import asyncpg

HERE = Path(__file__).resolve().parent
GOLDENS = HERE.parent.parent / "crates/ward-contract/tests/goldens/validation.json"
TABLES = ("workspaces", "slugs", "unclaimed", "principals", "memberships", "seats", "api_keys", "test_callers",
          "test_caller_lists", "integrations", "audit_events")  # fmt: skip
JSON = "application/json"


class Failed(Exception):
    pass


def same(what: str, found, wanted) -> None:
    if found != wanted:
        raise Failed(f"{what}:\n  found  {json.dumps(found, default=str)[:600]}\n  wanted {json.dumps(wanted, default=str)[:600]}")


class Answer:
    def __init__(self, status: int, headers, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)


class Server:
    def __init__(self, port: int) -> None:
        self.port = port

    def send(self, method, path, body=None, key=None, content_type=JSON, headers=()) -> Answer:
        """Sends one request on a new connection, so that requests reach different workers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = dict(headers)
        if key:
            sent["authorization"] = f"Bearer {key}"
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        if body is not None and content_type:
            sent["content-type"] = content_type
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        found = Answer(answer.status, answer.headers, answer.read())
        connection.close()
        if not found.headers.get("x-request-id"):
            raise Failed(f"{method} {path}: the answer has no x-request-id")
        return found

    def expect(self, status, method, path, body=None, key=None, code=None) -> Answer:
        answer = self.send(method, path, body, key)
        what = f"{method} {path} {answer.body[:300]!r}"
        same(what, answer.status, status)
        if code:
            same(what, answer.json["error_code"], code)
            same(what, answer.json["request_id"], answer.headers["x-request-id"])
        if status == 401:
            same(what, answer.headers["www-authenticate"], "Bearer")
        return answer

    def tenant(self, slug: str) -> tuple[str, str, dict]:
        """Creates and claims a workspace. The result is the workspace, its owner's key, and the answer to the claim."""
        body = {"slug": slug, "name": "Golden", "environment": "production"}
        workspace = self.expect(201, "POST", "/v1/workspaces", body).json["id"]
        claimed = self.expect(201, "POST", f"/v1/{workspace}/api-keys", {"duration_days": 90}).json
        return workspace, claimed["api_key"], claimed


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def ward(binary: str, database: str):
    """A running Ward, which gets the same requests as the peer."""
    port = free_port()
    command = [binary, "serve", "--listen", f"127.0.0.1:{port}", "--database", database, "--metrics-listen", "off"]
    with subprocess.Popen(command, env={**os.environ, "WARD_RATES": "off"}, stderr=subprocess.DEVNULL) as process:
        try:
            server = Server(port)
            while True:
                try:
                    server.send("GET", "/v1/nothing")
                    break
                except OSError:
                    if process.poll() is not None:
                        raise Failed(f"{binary} ended with {process.returncode}") from None
                    time.sleep(0.05)
            yield server
            process.send_signal(signal.SIGTERM)
            same("Ward's exit code after SIGTERM", process.wait(20), 0)
        finally:
            if process.poll() is None:
                process.kill()


@contextmanager
def running(database: str, *more: str):
    command = [HERE / "run", "--venv", os.environ["BENCH_PEER_VENV"], "--listen", "127.0.0.1:0", "--database", database]
    with subprocess.Popen([*command, "--workers", "2", *more], stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            if not line.startswith("listening on http://127.0.0.1:"):
                raise Failed(f"the first line is not an address but {line!r}")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            same("workers", len(children), 2)
            yield Server(int(line.rsplit(":", 1)[1]))
            process.send_signal(signal.SIGTERM)
            same("exit code after SIGTERM", process.wait(20), 0)
            same("workers left", [child for child in children if Path(f"/proc/{child}").exists()], [])
        finally:
            if process.poll() is None:
                process.kill()


@contextmanager
def sqlite(folder: Path):
    path = folder / "peer.db"

    def sql(text: str) -> list:
        database = apsw.Connection(str(path))
        database.set_busy_timeout(10_000)
        try:
            return [list(row) for row in database.execute(text).fetchall()]
        finally:
            database.close()

    yield f"sqlite:{path}", sql


@contextmanager
def postgres(folder: Path):
    binaries = Path(os.environ.get("PGBIN") or sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1])
    port = free_port()
    data = folder / "data"
    as_user = []
    if os.getuid() == 0:
        # initdb refuses root.
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]

    def tool(name: str, *arguments: str) -> None:
        command = [*as_user, "env", f"HOME={folder}", "LC_ALL=C", binaries / name, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        if done.returncode:
            raise Failed(f"{name}: {done.stderr or done.stdout}")

    tool("initdb", "-D", str(data), "-U", "ward", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    tool("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
    url = f"postgres://ward@127.0.0.1:{port}/postgres"

    def sql(text: str) -> list:
        async def ask():
            connection = await asyncpg.connect(url)
            rows = await connection.fetch(text)
            await connection.close()
            return [list(row) for row in rows]

        return asyncio.run(ask())

    try:
        yield url, sql
    finally:
        tool("pg_ctl", "-D", str(data), "-m", "immediate", "stop")


def replay_goldens(server: Server, sql) -> int:
    cases = json.loads(GOLDENS.read_text())["cases"]
    workspace, key, claimed = server.tenant("golden")
    paths = {
        "create-workspace": ("POST", "/v1/workspaces"),
        "list-workspaces": ("GET", "/v1/workspaces"),
        "update-workspace": ("PATCH", f"/v1/workspaces/{workspace}"),
        "archive-workspace": ("POST", f"/v1/workspaces/{workspace}/archive"),
        "update-test-caller-numbers": ("PUT", f"/v1/workspaces/{workspace}/test-caller-numbers"),
        "create-api-key": ("POST", f"/v1/{workspace}/api-keys"),
        "rotate-api-key": ("POST", f"/v1/{workspace}/api-keys/{claimed['key_id']}/rotate"),
    }
    for case in cases:
        note = f"{case['operation']}: {case['note']}"
        method, path = paths[case["operation"]]
        if case.get("query"):
            path += f"?{case['query']}"
        anonymous = case["operation"] == "create-workspace"
        answer = server.send(method, path, case["body"], None if anonymous else key, case["content_type"])
        same(f"{note} {answer.body[:200]!r}", answer.status, case["status"])
        if answer.status == 422:
            found, wanted = answer.json["detail"], case["detail"]
            for one in [*found, *wanted]:
                if one["type"] == "json_invalid":
                    if not (isinstance(one["loc"][1], int) and one["ctx"]["error"]):
                        raise Failed(f"{note}: {one}")
                    one["loc"], one["ctx"] = one["loc"][:1], None
            same(note, found, wanted)
            continue
        accepted = case["accepted"]
        if case["operation"] == "create-workspace":
            same(note, {field: answer.json[field] for field in accepted}, accepted)
            # The next case uses the same slug.
            sql(f"DELETE FROM slugs WHERE workspace_id = '{answer.json['id']}'")
        elif case["operation"] == "update-workspace":
            given = {field: value for field, value in accepted.items() if value is not None}
            same(note, {field: answer.json[field] for field in given}, given)
        elif case["operation"] == "update-test-caller-numbers":
            same(note, answer.json["numbers"], accepted["numbers"])
        elif case["operation"] == "create-api-key":
            same(note, [answer.json["name"], answer.json["role"]], [accepted["name"], accepted["role"]])
        elif case["operation"] == "rotate-api-key":
            same(note, server.send("GET", "/v1/workspaces", key=key).status, 401)
            key = answer.json["api_key"]
    return len(cases)


def live(server: Server, sql) -> None:
    """A tenant's life: the answer to each step as Ward's contract defines it."""
    new = {"slug": "corner-clinic", "name": " The Corner Clinic ", "environment": "production"}
    created = server.expect(201, "POST", "/v1/workspaces", new).json
    workspace = created["id"]
    same("trimmed", created["name"], "The Corner Clinic")
    server.expect(409, "POST", "/v1/workspaces", new, code="slug_taken")

    # The claim: invalid bodies are refused, and then exactly one of many callers succeeds.
    keys, this = f"/v1/{workspace}/api-keys", f"/v1/workspaces/{workspace}"
    wrong = server.expect(422, "POST", keys, {"duration_days": 1, "role": "viewer", "permissions": ["Call.view"]}).json
    same("claim wishes", [one["loc"] for one in wrong["detail"]],
         [["body", "permissions", 0], ["body", "role"], ["body", "permissions"]])  # fmt: skip
    with ThreadPoolExecutor(8) as crowd:
        claims = list(crowd.map(lambda _: server.send("POST", keys, {"duration_days": 90, "name": "owner"}), range(8)))
    same("claims", sorted(claim.status for claim in claims), [201] + [401] * 7)
    owner = next(claim.json for claim in claims if claim.status == 201)
    key = owner["api_key"]
    same("owner", [owner["role"], len(owner["permissions"]), owner["created_by_credential_id"]], ["owner", 13, None])
    server.expect(401, "POST", f"/v1/{'0' * 8}/api-keys", {"duration_days": 1}, code="unauthorized")

    # Reads, and the callers that may not read.
    same("get", server.expect(200, "GET", this, key=key).json, created)
    for bad in (None, "x", key[:-1] + ("0" if key[-1] != "0" else "1"), f"ward_{'0' * 71}"):
        server.expect(401, "GET", this, key=bad, code="unauthorized")
    stranger_home, stranger, _ = server.tenant("elsewhere")
    for hidden in (this, "/v1/workspaces/none", "/v1/workspaces/00000000-0000-0000-0000-000000000000"):
        server.expect(404, "GET", hidden, key=stranger, code="workspace_not_found")

    # The list of a user's workspaces, created by concurrent requests and read page by page.
    def make(number: int) -> str:
        body = {"slug": f"corner-{number:02}", "name": "x", "environment": "staging"}
        return server.expect(201, "POST", "/v1/workspaces/self-service", body, key).json["id"]

    with ThreadPoolExecutor(8) as crowd:
        mine = {workspace, *crowd.map(make, range(20))}
    server.expect(409, "POST", "/v1/workspaces/self-service", {**new, "slug": "corner-00"}, key, "slug_taken")
    walked, token = [], 0
    while token is not None:
        page = server.expect(200, "GET", f"/v1/workspaces?limit=6&continuation_token={token}", key=key).json
        same("total", page["total"], 21)
        walked += [item["id"] for item in page["items"]]
        same("more", page["has_more"], page["continuation_token"] is not None)
        token = page["continuation_token"]
    same("walked", [len(walked), set(walked)], [21, mine])
    same("first", walked[0], workspace)
    beyond = server.expect(200, "GET", f"/v1/workspaces?continuation_token={2**53 - 1}", key=key).json
    same("beyond", beyond, {"items": [], "has_more": False, "continuation_token": None, "total": 21})

    # Merge patches.
    patched = server.expect(200, "PATCH", this, {"connector_type": "epic", "name": "Clinic"}, key).json
    same("patched", [patched["connector_type"], patched["name"], patched["region"]], ["epic", "Clinic", "us-east-1"])
    same("grows", patched["updated_at"] > created["updated_at"], True)
    same("nothing", server.expect(200, "PATCH", this, {"name": "Clinic", "region": None}, key).json, patched)
    with ThreadPoolExecutor(16) as crowd:
        list(crowd.map(lambda n: server.expect(200, "PATCH", this, {"name": f"Clinic {n}"}, key), range(64)))

    # Keys that are created with another key, and their limits.
    member = server.expect(201, "POST", keys, {"duration_days": 1, "name": "m"}, key).json
    same("member", [member["role"], member["permissions"]],
         ["member", ["Workspace.view", "Integration.view", "ApiKey.view", "Call.view"]])  # fmt: skip
    server.expect(200, "GET", this, key=member["api_key"])
    server.expect(403, "PATCH", this, {"name": "n"}, member["api_key"], "forbidden")
    server.expect(403, "POST", keys, {"duration_days": 1}, member["api_key"], "forbidden")
    narrow = {"duration_days": 1, "role": "admin", "permissions": ["ApiKey.create", "Workspace.view", "ApiKey.create"]}
    narrow = server.expect(201, "POST", keys, narrow, key).json
    same("narrow", narrow["permissions"], ["Workspace.view", "ApiKey.create"])
    server.expect(403, "POST", keys, {"duration_days": 1, "role": "admin"}, narrow["api_key"], "beyond_caller")
    server.expect(403, "POST", f"{keys}/{owner['key_id']}/rotate", {"duration_days": 1}, narrow["api_key"], "not_your_key")
    admin = server.expect(201, "POST", keys, {"duration_days": 1, "role": "admin"}, key).json
    server.expect(403, "POST", "/v1/workspaces/self-service", new, admin["api_key"], "unsupported_principal")
    server.expect(403, "DELETE", f"{keys}/{owner['key_id']}", key=admin["api_key"], code="beyond_caller")
    wrong = {"duration_days": 1, "role": "nurse", "permissions": ["Call.view", "Call.end"]}
    wrong = server.expect(422, "POST", keys, wrong, key).json["detail"]
    same("unknown", [(one["type"], one["loc"]) for one in wrong],
         [("value_error", ["body", "role"]), ("value_error", ["body", "permissions", 1])])  # fmt: skip
    wrong = server.expect(422, "POST", keys, {"duration_days": 1, "permissions": ["Audit.view"]}, key).json["detail"]
    same("outside", [(one["msg"], one["loc"], one["ctx"]) for one in wrong],
         [("Value error, Not a permission of the role member", ["body", "permissions", 0], {"error": {}})])  # fmt: skip

    # Rotation of another's key and of the caller's own key: the old secret ends at once, and only one of many succeeds.
    rotated = server.expect(200, "POST", f"{keys}/{member['key_id']}/rotate", {"duration_days": 2}, key).json
    same("rotated", [rotated["key_id"], rotated["name"], rotated["role"]], [member["key_id"], "m", "member"])
    server.expect(401, "GET", this, key=member["api_key"])
    server.expect(200, "GET", this, key=rotated["api_key"])
    own = f"{keys}/{owner['key_id']}/rotate"
    with ThreadPoolExecutor(8) as crowd:
        turns = list(crowd.map(lambda _: server.send("POST", own, {"duration_days": 9}, key), range(8)))
    same("rotations", sorted(turn.status for turn in turns), [200] + [401] * 7)
    server.expect(401, "GET", this, key=key)
    key = next(turn.json["api_key"] for turn in turns if turn.status == 200)
    with ThreadPoolExecutor(8) as crowd:
        other = f"{keys}/{admin['key_id']}/rotate"
        list(crowd.map(lambda _: server.expect(200, "POST", other, {"duration_days": 9}, key), range(24)))
    server.expect(204, "DELETE", f"{keys}/{member['key_id']}", key=key)
    server.expect(401, "GET", this, key=rotated["api_key"])
    server.expect(404, "DELETE", f"{keys}/{member['key_id']}", key=key, code="api_key_not_found")

    # Provisioning, which succeeds only once, then test callers and the archive.
    provisioned = server.expect(200, "POST", f"{this}/provision", key=key).json["workspace"]
    same("provisioned", provisioned["provisioned_at"] is not None, True)
    same("again", server.expect(200, "POST", f"{this}/provision", key=key).json["workspace"], provisioned)
    callers = f"{this}/test-caller-numbers"
    numbers = ["+1 (555) 010-0001", "+15550100001", "+44 7700 900123"]
    wanted = {"numbers": ["+15550100001", "+447700900123"]}
    same("numbers", server.expect(200, "PUT", callers, {"numbers": numbers}, key).json, wanted)
    same("numbers", server.expect(200, "GET", callers, key=narrow["api_key"]).json, wanted)
    wrong = server.expect(422, "PUT", callers, {"numbers": ["+15550100001", "anonymous"]}, key).json["detail"]
    same("no number", [(one["type"], one["loc"], one["input"]) for one in wrong],
         [("value_error", ["body", "numbers", 1], "anonymous")])  # fmt: skip
    server.expect(403, "POST", f"{this}/archive", {"slug": "corner-clinic"}, narrow["api_key"], "forbidden")
    wrong = server.expect(422, "POST", f"{this}/archive", {"slug": "corner"}, key).json["detail"]
    same("confirmation", [(one["type"], one["loc"]) for one in wrong], [("value_error", ["body", "slug"])])
    server.expect(200, "POST", f"{this}/archive", {"slug": "corner-clinic"}, key)
    server.expect(401, "GET", "/v1/workspaces", key=key)
    server.expect(409, "POST", "/v1/workspaces", new, code="slug_taken")
    server.expect(200, "GET", f"/v1/workspaces/{stranger_home}", key=stranger)
    look_behind(sql, workspace, mine)


def look_behind(sql, workspace: str, mine: set) -> None:
    """Checks the database afterwards: one event for each change, and 64 patches that each build on the one before."""
    mark = f"workspace_id = '{workspace}'"
    events = dict(map(tuple, sql(f"SELECT action, count(*) FROM audit_events WHERE {mark} GROUP BY action")))
    wanted = {"workspace.create": 1, "workspace.claim": 1, "workspace.update": 65, "api_key.create": 3, "api_key.rotate": 26,
              "api_key.revoke": 1, "workspace.provision": 1, "test_callers.update": 1, "workspace.archive": 1}  # fmt: skip
    same("events", events, wanted)
    rows = sql(f"SELECT metadata FROM audit_events WHERE {mark} AND action = 'workspace.update'")
    names = [json.loads(row[0])["changes"]["name"] for row in rows]
    follows = {change["from"]: change["to"] for change in names}
    at, steps = "The Corner Clinic", 0
    while at in follows and steps <= 65:
        at, steps = follows[at], steps + 1
    same("patches upon patches", steps, 65)
    places = [row[0] for row in sql("SELECT position FROM memberships WHERE role = 'owner'")]
    same("places", len(places) == len(set(places)) and len(places) >= len(mine), True)
    same("slots", sql("SELECT sum(used) FROM bootstrap_slots")[0][0], sql("SELECT count(*) FROM unclaimed")[0][0])


def beside(binary: str) -> None:
    """Runs the life against Ward. The peer then serves the same database and must answer with the same bytes."""
    with tempfile.TemporaryDirectory(prefix="ward-peer-") as folder, sqlite(Path(folder)) as (database, sql):
        with ward(binary, database) as server:
            live(server, sql)
            workspace, key, _ = server.tenant("shared")
            asked = [f"/v1/workspaces/{workspace}", "/v1/workspaces?limit=20"]
            told = [server.expect(200, "GET", path, key=key).body.decode() for path in asked]
        with running(database) as server:
            same("bytes", [server.expect(200, "GET", path, key=key).body.decode() for path in asked], told)
    print("ward: the same life passes, and the peer answers from Ward's database with the same bytes", flush=True)


ENGINES = {"sqlite": sqlite, "postgres": postgres}


def main() -> int:
    parser = argparse.ArgumentParser(prog="check")
    parser.add_argument("--only", choices=ENGINES)
    parser.add_argument("--ward", metavar="PATH", help="a binary of Ward that gets the same requests first")
    arguments = parser.parse_args()
    only = arguments.only
    if arguments.ward:
        try:
            beside(arguments.ward)
        except Failed as failed:
            print(f"ward: {failed}", file=sys.stderr)
            return 1
    for name, engine in ENGINES.items():
        if only not in (None, name):
            continue
        for way in ((), ("--plain",)):
            folder = Path(tempfile.mkdtemp(prefix="ward-peer-"))
            try:
                with engine(folder) as (database, sql):
                    with running(database, *way) as server:
                        replayed = replay_goldens(server, sql)
                        live(server, sql)
                    # The data from before the restart is still there.
                    counts = {table: sql(f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}
                    with running(database, *way) as server:
                        server.tenant("after-restart")
                    for table, count in counts.items():
                        same(f"{table} grew", sql(f"SELECT count(*) FROM {table}")[0][0] >= count, True)
                print(f"{name} {' '.join(way)}: {replayed} recorded answers and a tenant's life agree with Ward", flush=True)
            except Failed as failed:
                print(f"{name} {' '.join(way)}: {failed}", file=sys.stderr)
                return 1
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
