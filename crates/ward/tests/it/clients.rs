//! Clients that generators make from the served document: openapi-typescript with openapi-fetch, and openapi-python-client.
//!
//! Each is generated, compiled strictly, and then lives a tenant's life against a server: typed requests, answers, errors, headers and
//! `Idempotency-Key`. npm and pip install the generators, at pinned versions, on the first run. Where that is not possible the test
//! says that it is LEFT OUT; `WARD_TEST_SERVERS=require` makes that a failure.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;
use tokio::sync::OnceCell;
use ward_test::{Server, both};

use crate::support::{folder_with, left_out, npm_installs, servers_are, succeeds};

/// Runs a command and returns its output; panics with all of it when the command fails.
async fn done(what: &str, command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{what} failed:\n{said}");
    said
}

/// The document as a server serves it, which is what clients are generated from.
async fn document(server: &Server, folder: &Path) -> PathBuf {
    let document: Value = server.anonymous().get("/v1/openapi.json").await.ok();
    let path = folder.join("openapi.json");
    std::fs::write(&path, document.to_string()).unwrap();
    path
}

/// The folder of the compiled TypeScript client, `out/life.js`. `None` if npm cannot install.
async fn typescript(server: &Server) -> Option<&'static Path> {
    static COMPILED: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    let compiled = COMPILED.get_or_init(|| async {
        let files = ["package.json", "package-lock.json", "tsconfig.json", "life.ts"];
        let folder = folder_with("client-typescript", "clients/typescript", &files);
        if !npm_installs(&folder).await {
            left_out(
                "no TypeScript client is generated: npm ci does not work here, or WARD_TEST_SERVERS=off",
            );
            return None;
        }
        let bin = folder.join("node_modules/.bin");
        let document = document(server, &folder).await;
        let mut generate = Command::new(bin.join("openapi-typescript"));
        generate.arg(document).args(["--default-non-nullable", "false", "-o", "api.ts"]).current_dir(&folder);
        done("openapi-typescript", &mut generate).await;
        done("tsc --strict", Command::new(bin.join("tsc")).args(["-p", "."]).current_dir(&folder)).await;
        Some(folder)
    });
    compiled.await.as_deref()
}

/// The folder of the Python client that mypy has checked, `life.py`. `None` if pip cannot install.
async fn python(server: &Server) -> Option<&'static Path> {
    static JUDGED: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    let judged = JUDGED.get_or_init(|| async {
        let files = ["life.py", "mypy.ini", "requirements.txt"];
        let folder = folder_with("client-python", "clients/python", &files);
        let (bin, wanted) = (folder.join("venv/bin"), folder.join("requirements.txt"));
        let mut install = Command::new(bin.join("pip"));
        install.args(["install", "--quiet", "--no-deps", "--require-hashes", "-r"]).arg(wanted);
        if servers_are("off")
            || !succeeds(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv"))).await
            || !succeeds(&mut install).await
        {
            left_out("no Python client is generated: pip does not work here, or WARD_TEST_SERVERS=off");
            return None;
        }
        // The generator runs `ruff` from the path.
        let path = std::env::join_paths(
            std::iter::once(bin.clone()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        let document = document(server, &folder).await;
        let mut generate = Command::new(bin.join("openapi-python-client"));
        generate.args([
            "generate",
            "--meta",
            "none",
            "--overwrite",
            "--output-path",
            "ward_client",
            "--path",
        ]);
        generate.arg(document).env("PATH", path.unwrap()).current_dir(&folder);
        let said = done("openapi-python-client", &mut generate).await;
        // The generator does not know NDJSON, so it leaves out the body of a downloaded export. It leaves out nothing else.
        let warned = said.matches("WARNING").count();
        let known = said.matches("WARNING parsing GET /v1/{workspace_id}/audit/exports/download").count();
        assert!(warned == known && !said.contains("ERROR"), "the generator leaves something out:\n{said}");
        let mut judge = Command::new(bin.join("mypy"));
        judge.args(["--config-file", "mypy.ini", "ward_client", "life.py"]).current_dir(&folder);
        done("mypy --strict", &mut judge).await;
        Some(folder)
    });
    judged.await.as_deref()
}

both!(a_generated_typescript_client_lives_a_tenants_life, threads = 2, async || {
    let server = Server::start().await;
    let Some(folder) = typescript(&server).await else { return };
    let said =
        done("life.js", Command::new("node").arg("out/life.js").arg(server.url()).current_dir(folder)).await;
    assert!(said.contains("a tenant's life: done"), "{said}");
});

both!(a_generated_python_client_lives_a_tenants_life, threads = 2, async || {
    let server = Server::start().await;
    let Some(folder) = python(&server).await else { return };
    let mut life = Command::new(folder.join("venv/bin/python"));
    let said = done("life.py", life.arg("life.py").arg(server.url()).current_dir(folder)).await;
    assert!(said.contains("a tenant's life: done"), "{said}");
});
