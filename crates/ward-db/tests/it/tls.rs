//! TLS to PostgreSQL, as far as `sslmode` asks for it.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ward_db::{Db, Error, ErrorKind};
use ward_test_db::postgres::{Server, put};
use ward_test_db::postgres_only;

use crate::support::fast;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Whether the connection that this URL makes is encrypted, if it makes one.
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
