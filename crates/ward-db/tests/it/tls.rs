//! TLS to PostgreSQL in the modes of `sslmode`.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use ward_db::{Db, Error, ErrorKind};
use ward_test_db::postgres::{Server, put, shared};
use ward_test_db::postgres_only;

use crate::support::fast;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Whether the connection that this URL makes is encrypted; an error if it makes none.
async fn encrypted(url: &str) -> Result<bool, Error> {
    let db = Db::open(url, fast())?;
    let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    db.read("t", move |tx| tx.one(sql, &[], |row| row.get(0))).await
}

postgres_only!(each_mode_asks_for_what_it_says);
async fn each_mode_asks_for_what_it_says() {
    let (ours, other) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ours).unwrap();
    let server = Server::start(&["ssl=on"], |data: &Path| {
        put(data, "server.crt", certificate.pem().as_bytes());
        put(data, "server.key", key.serialize_pem().as_bytes());
    });
    let dir = tempfile::tempdir().unwrap();
    let roots = |name: &str, pem: String| {
        let file = dir.path().join(name);
        std::fs::write(&file, pem).unwrap();
        file.display().to_string()
    };
    let ours = roots("ours.pem", ours.pem());
    let other = roots("other.pem", other.pem());
    let url = |host: &str, options: &str| {
        server.url("postgres").replace("127.0.0.1", host) + "?connect_timeout=5&" + options
    };
    for (host, options, expected) in [
        ("localhost", "sslmode=disable".to_owned(), Some(false)),
        ("127.0.0.1", String::new(), Some(true)),
        ("127.0.0.1", "sslmode=require".to_owned(), Some(true)),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={ours}"), Some(true)),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={other}"), None),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={ours}"), Some(true)),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={other}"), None),
        ("localhost", format!("sslmode=verify-full&sslrootcert={ours}"), Some(true)),
        ("localhost", format!("sslmode=verify-full&sslrootcert={other}"), None),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={ours}"), None),
        ("localhost", "sslmode=verify-full&sslrootcert=system".to_owned(), None),
    ] {
        match (encrypted(&url(host, &options)).await, expected) {
            (Ok(is), Some(expected)) => assert_eq!(is, expected, "{host} {options}"),
            (Err(error), None) => {
                assert!(
                    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Invalid),
                    "{host} {options}: {error}"
                );
            }
            (got, expected) => panic!("{host} {options}: {got:?} instead of {expected:?}"),
        }
    }
}

postgres_only!(a_server_without_tls_is_refused_where_it_is_required);
async fn a_server_without_tls_is_refused_where_it_is_required() {
    let database = shared().database();
    assert!(!encrypted(&database.url).await.unwrap(), "by default it is only preferred");
    let refused = encrypted(&format!("{}?sslmode=require", database.url)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.to_string().contains("TLS"), "{refused}");
}

postgres_only!(passwords_and_certificates_let_in);
async fn passwords_and_certificates_let_in() {
    let ours = authority();
    let (key, client_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let signed = |names: Vec<String>, subject: &str, key: &KeyPair| {
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, subject);
        params.signed_by(key, &ours).unwrap().pem()
    };
    let certificate = signed(vec!["localhost".to_owned()], "localhost", &key);
    let server = Server::start(&["ssl=on", "ssl_ca_file=ca.crt"], |data: &Path| {
        put(data, "server.crt", certificate.as_bytes());
        put(data, "server.key", key.serialize_pem().as_bytes());
        put(data, "ca.crt", ours.pem().as_bytes());
        put(
            data,
            "pg_hba.conf",
            b"host all ward all trust\nhost all scram all scram-sha-256\nhostssl all carded all cert\n",
        );
    });
    server.sql("CREATE ROLE scram LOGIN PASSWORD 'open sesame'");
    server.sql("CREATE ROLE carded LOGIN");
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: String| {
        std::fs::write(dir.path().join(name), pem).unwrap();
        dir.path().join(name).display().to_string()
    };
    let card = file("card.crt", signed(Vec::new(), "carded", &client_key));
    let card = format!("sslcert={card}&sslkey={}", file("card.key", client_key.serialize_pem()));
    let url = |who: &str, options: &str| {
        server.url("postgres").replace("//ward@127.0.0.1", &format!("//{who}@localhost")) + "?" + options
    };
    for (who, options, expected) in [
        ("scram:open%20sesame", "sslmode=disable", Some(false)),
        ("scram:open%20sesame", "sslmode=require", Some(true)),
        // The exchange is bound to the TLS session, so without TLS there is nothing to bind it to.
        ("scram:open%20sesame", "sslmode=require&channel_binding=require", Some(true)),
        ("scram:open%20sesame", "sslmode=disable&channel_binding=require", None),
        ("scram:mellon", "sslmode=require", None),
        ("scram", "sslmode=require", None),
        ("carded", &format!("sslmode=require&{card}"), Some(true)),
        ("carded", "sslmode=require", None),
        ("scram", &format!("sslmode=require&{card}"), None),
    ] {
        match (encrypted(&url(who, options)).await, expected) {
            (Ok(is), Some(expected)) => assert_eq!(is, expected, "{who} {options}"),
            (Err(error), None) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{who} {options}: {error}");
                assert!(!error.to_string().contains("mellon"), "{error}");
            }
            (got, expected) => panic!("{who} {options}: {got:?} instead of {expected:?}"),
        }
    }
}
