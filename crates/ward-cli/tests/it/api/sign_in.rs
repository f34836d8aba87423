//! `ward login`, `ward claim` and the profiles.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use ward_test::{CLIENT_ID, Server, SignIn, both, unknown_key};

use super::{Person, Ran, script};

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

both!(a_key_is_kept_in_a_profile_that_only_its_user_reads, async || {
    let (server, tenant) = Server::with_tenant().await;
    let key = tenant.owner.bearer.clone().unwrap();
    let (person, url) = (Person::new(), server.url());
    let wrong = person.type_in(&["login", "--url", &url, "--json"], &unknown_key()).await;
    assert_eq!(wrong.exit, 3, "{wrong:?}");
    assert!(!person.profiles().exists());
    let made = person.type_in(&["login", "--url", &url, "--json"], &format!("{key}\n")).await;
    assert_eq!((&made.json()["workspace"], &made.json()["kind"]), (&json!(tenant.id), &json!("user")));
    assert!(!made.out.contains(&key[27..]) && !made.err.contains(&key[27..]), "{made:?}");
    assert_eq!((mode(&person.profiles()), mode(person.profiles().parent().unwrap())), (0o600, 0o700));
    assert_eq!(person.run(&["api", "get-workspace", "--json"]).await.json()["slug"], "acme");

    // A second profile, and the choice between the two.
    let viewer = tenant.key(json!({ "duration_days": 9, "role": "viewer" })).await.0.bearer.unwrap();
    person.type_in(&["login", "--url", &url, "--profile", "viewer", "--json"], &viewer).await.json();
    let role = async |arguments: &[&str]| {
        let me = person.run(&[&["api", "get-me", "--json"], arguments].concat()).await.json();
        me["memberships"]["items"][0]["role"].as_str().unwrap().to_owned()
    };
    assert_eq!([role(&[]).await, role(&["--profile", "viewer"]).await], ["owner", "viewer"]);
    let listed = person.run(&["profiles", "--default", "viewer", "--json"]).await;
    assert_eq!(listed.json().as_array().unwrap().len(), 2);
    assert!(!listed.out.contains(&key[27..]), "{listed:?}");
    assert_eq!(role(&[]).await, "viewer");
    person.run(&["api", "get-me", "--profile", "none", "--json"]).await.failed(2, "usage");

    // Another server does not get the credential, and a file that others can read is not used.
    let other = Server::start().await;
    assert_eq!(
        person.run(&["api", "get-me", "--url", &other.url(), "--profile", "viewer", "--json"]).await.exit,
        3
    );
    assert_eq!(person.run(&["api", "get-health", "--url", &other.url(), "--json"]).await.exit, 0);
    std::fs::set_permissions(person.profiles(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = person.run(&["api", "get-me", "--json"]).await;
    assert!(open.exit == 1 && open.err.contains("chmod 600"), "{open:?}");
    std::fs::set_permissions(person.profiles(), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(person.run(&["logout", "--profile", "viewer"]).await.exit, 0);
    assert_eq!(role(&[]).await, "owner");
    assert!(!std::fs::read_to_string(person.profiles()).unwrap().contains(&viewer));
});

both!(profiles_that_are_made_at_once_are_all_kept, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (person, url) = (Person::new(), server.url());
    let key = tenant.owner.bearer.clone().unwrap();
    let names = ["a", "b", "c", "d"];
    let [a, b, c, d] = names.map(|name| {
        let (person, url, key) = (&person, &url, &key);
        async move { person.type_in(&["login", "--url", url, "--profile", name, "--json"], key).await.json() }
    });
    tokio::join!(a, b, c, d);
    let listed = person.run(&["profiles", "--json"]).await.json();
    let listed: Vec<&str> =
        listed.as_array().unwrap().iter().map(|row| row["profile"].as_str().unwrap()).collect();
    assert_eq!(listed, names);
});

both!(a_claim_keeps_the_key_and_prints_none, async || {
    let server = Server::start().await;
    let (person, url) = (Person::new(), server.url());
    let created = person.run(&["claim", "--url", &url, "--create", "acme", "--json"]).await;
    assert_eq!(created.json()["role"], "owner");
    assert!(!created.out.contains("ward_"), "{created:?}");
    assert_eq!(person.run(&["api", "get-workspace", "--json"]).await.json()["slug"], "acme");
    // The id of an unclaimed workspace is a secret, so it comes from standard input.
    let other = server.anonymous().create_workspace("other").await;
    let id = other["id"].as_str().unwrap();
    let unwritable = person.file("a-file", "");
    let full = Person::new().with("WARD_CLIENT_FOLDER", unwritable.display().to_string());
    assert_eq!(full.type_in(&["claim", "--url", &url, "--json"], id).await.exit, 1);
    let claimed =
        person.type_in(&["claim", "--url", &url, "--profile", "other", "--days", "7", "--json"], id).await;
    assert_eq!(claimed.json()["workspace"], id);
    let again = person.type_in(&["claim", "--url", &url, "--profile", "third", "--json"], id).await;
    assert_eq!(again.exit, 3, "{again:?}");
    let me = person.run(&["api", "get-me", "--profile", "other", "--json"]).await.json();
    assert_eq!(me["memberships"]["items"][0]["workspace_id"], id);
});

both!(a_keyring_holds_the_credential_where_there_is_one, async || {
    let (server, tenant) = Server::with_tenant().await;
    let key = tenant.owner.bearer.clone().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept").display().to_string();
    let lines = format!(
        "case $1 in store) [ \"$5\" = profile ] && cat >{kept}.$6 ;; lookup) cat {kept}.$5 ;; clear) rm {kept}.$5 ;; esac"
    );
    script(&folder.path().join("secret-tool"), &lines);
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let person = Person::new().with("PATH", path);
    person.type_in(&["login", "--url", &server.url(), "--json"], &key).await.json();
    assert!(!std::fs::read_to_string(person.profiles()).unwrap().contains(&key));
    assert!(std::fs::read_to_string(format!("{kept}.default")).unwrap().contains(&key));
    assert_eq!(person.run(&["api", "get-workspace", "--json"]).await.json()["slug"], "acme");
    assert_eq!(person.run(&["logout"]).await.exit, 0);
    assert!(!std::path::Path::new(&format!("{kept}.default")).exists());
    // Without the program, the keyring can be asked for and is missed.
    let without = Person::new().with("PATH", "/nonexistent");
    let missed =
        without.type_in(&["login", "--url", &server.url(), "--store", "keyring", "--json"], &key).await;
    assert!(missed.exit == 1 && missed.err.contains("secret-tool"), "{missed:?}");
});

/// Starts a sign-in and returns the lines of standard error until one that ends the instructions, with the running command.
fn instructed(person: &Person, arguments: &[&str]) -> (String, std::process::Child) {
    let mut child = person.command(arguments).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("code") {
        assert!(lines.read_line(&mut said).unwrap() > 0, "the sign-in ended: {said}");
    }
    // The rest of standard error is read by the test.
    child.stderr = Some(lines.into_inner());
    (said, child)
}

async fn ended(child: std::process::Child) -> Ran {
    tokio::task::spawn_blocking(|| child.wait_with_output().unwrap().into()).await.unwrap()
}

both!(a_person_signs_in_with_a_device_code_and_tokens_are_replaced, async || {
    let (server, issuer) = Server::with_issuer().await;
    let sign_in = SignIn::start(&issuer, "ada").await;
    let url = server.url();
    let login = [
        "login",
        "--url",
        &url,
        "--issuer",
        issuer.url(),
        "--client-id",
        CLIENT_ID,
        "--store",
        "file",
        "--json",
    ];
    let signed_in = async |allowed: bool| {
        let person = Person::new();
        let person = tokio::task::spawn_blocking({
            let login = login.map(str::to_owned);
            move || {
                let login: Vec<&str> = login.iter().map(String::as_str).collect();
                let started = instructed(&person, &login);
                (person, started)
            }
        });
        let (person, (said, child)) = person.await.unwrap();
        let said: Value = serde_json::from_str(said.trim()).unwrap();
        let code = said["remark"].as_str().unwrap().rsplit(' ').next().unwrap().to_owned();
        assert!(sign_in.decide(&code, allowed), "{said}");
        (person, ended(child).await)
    };
    let (_, refused) = signed_in(false).await;
    assert_eq!(refused.exit, 3, "{refused:?}");
    // The token is due at once, so each command replaces it, and commands at once do not spoil each other's.
    sign_in.set_life(0);
    let (person, made) = signed_in(true).await;
    assert_eq!(made.json()["display_name"], "ada the tester");
    assert_eq!((mode(&person.profiles()), sign_in.issued()), (0o600, 1));
    let me = ["api", "get-me", "--json"];
    let (one, two, three) = tokio::join!(person.run(&me), person.run(&me), person.run(&me));
    for ran in [one, two, three] {
        assert_eq!(ran.json()["credential"]["type"], "token");
    }
    assert_eq!(sign_in.issued(), 4);
    sign_in.set_life(300);
    person.run(&me).await.json();
    person.run(&me).await.json();
    assert_eq!(sign_in.issued(), 5);
    issuer.set_down(true);
    assert_eq!(person.run(&me).await.json()["kind"], "user");
});

both!(a_person_signs_in_with_a_browser, async || {
    let (server, issuer) = Server::with_issuer().await;
    let _sign_in = SignIn::start(&issuer, "ada").await;
    let person = Person::new();
    // The desktop's program for opening pages, which follows the redirects as a browser does.
    let folder = tempfile::tempdir().unwrap();
    script(&folder.path().join("xdg-open"), "exec curl -sSfL -o /dev/null \"$1\"");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let person = person.with("PATH", path);
    let login = [
        "login",
        "--url",
        &server.url(),
        "--issuer",
        issuer.url(),
        "--client-id",
        CLIENT_ID,
        "--browser",
        "--json",
    ];
    let made = person.run(&login).await;
    assert_eq!(made.json()["display_name"], "ada the tester");
    assert_eq!(person.run(&["api", "get-me", "--json"]).await.json()["kind"], "user");
    // An issuer that calls itself by another name is not trusted with a sign-in.
    let endpoint = "https://another.example/token";
    issuer.amend_discovery(json!({ "issuer": "https://another.example", "token_endpoint": endpoint }));
    let other = person.run(&login).await;
    assert!(other.exit == 3 && other.err.contains("calls itself"), "{other:?}");
});
