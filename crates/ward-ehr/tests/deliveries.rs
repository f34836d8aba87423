//! One write into an EHR: when it counts as sent, which answers are kept, and how long a pause the EHR asks
//! for.

#![expect(clippy::unwrap_used, reason = "a test that fails stops at the failing line")]

mod support;

use std::time::Duration;

use support::{Peer, json, open, outbound, soon};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use ward_ehr::auth::{Grant, TokenAuth};
use ward_ehr::delivery::{CallNote, Form, Target, Verdict};
use ward_ehr::{Auth, Limits, Secret, Tokens};

fn note() -> CallNote {
    CallNote {
        system: "urn:uuid:0d0f".to_owned(),
        id: "0198".to_owned(),
        inbound: true,
        status: "completed".to_owned(),
        from: None,
        to: None,
        started_at: "2026-04-18T12:00:00.000000Z".to_owned(),
        ended_at: None,
        duration_ms: None,
        patient: None,
        text: "A call.".to_owned(),
        ..CallNote::default()
    }
}

async fn deliver(base_url: &str, auth: Option<&Auth>, limits: Limits) -> Verdict {
    let (outbound, tokens) = (outbound(limits), Tokens::default());
    let target = Target { outbound: &outbound, tokens: &tokens, auth, base_url, form: Form::Communication };
    target.deliver(&note(), false, soon()).await.verdict
}

fn maybe_sent(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Again { maybe_sent, .. } => *maybe_sent,
        other => panic!("{other:?}"),
    }
}

fn by_token(token_url: &str) -> Auth {
    Auth::Token(Box::new(TokenAuth {
        grant: Grant::ClientCredentials {
            client_id: "ward".into(),
            client_secret: Secret::new("a-client-secret"),
            in_form: false,
            scopes: Vec::new(),
        },
        token_url: Some(token_url.parse().unwrap()),
        assumed_lifetime: Duration::from_hours(1),
    }))
}

/// A base URL at which no server listens.
async fn unreachable() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}/fhir", listener.local_addr().unwrap())
}

#[tokio::test]
async fn a_request_that_never_left_was_not_sent() {
    let refused = deliver(&unreachable().await, None, open()).await;
    assert!(!maybe_sent(&refused), "no connection: {refused:?}");

    let unknown = deliver("http://no-such-host.invalid/fhir", None, open()).await;
    assert!(!maybe_sent(&unknown), "no address: {unknown:?}");

    // This listener never starts TLS.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/fhir", silent.local_addr().unwrap());
    let limits = Limits { connect_time: Duration::from_millis(200), ..open() };
    let unanswered = deliver(&url, None, limits).await;
    assert!(!maybe_sent(&unanswered), "no TLS: {unanswered:?}");

    // The EHR works, but no token can be fetched for it.
    let ehr = Peer::answering(|_| Some(json(201, "{}"))).await;
    for status in [429, 500, 503] {
        let endpoint = Peer::answering(move |_| Some(json(status, "{}"))).await;
        let auth = by_token(&endpoint.url("/token"));
        let without = deliver(&ehr.url("/fhir"), Some(&auth), open()).await;
        assert!(!maybe_sent(&without), "no token, {status}: {without:?}");
    }
    let auth = by_token(&unreachable().await);
    assert!(!maybe_sent(&deliver(&ehr.url("/fhir"), Some(&auth), open()).await));
    assert_eq!(ehr.requests(), 0);
}

#[tokio::test]
async fn a_request_that_was_cut_off_after_it_left_may_have_arrived() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/fhir", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut chunk = vec![0; 64 << 10];
            let _ = stream.read(&mut chunk).await;
            let _ = stream.set_zero_linger();
        }
    });
    let cut = deliver(&url, None, open()).await;
    assert!(maybe_sent(&cut), "{cut:?}");

    let hanging = Peer::answering(|_| None).await;
    let target_url = hanging.url("/fhir");
    let (outbound, tokens) = (outbound(open()), Tokens::default());
    let target = Target {
        outbound: &outbound,
        tokens: &tokens,
        auth: None,
        base_url: &target_url,
        form: Form::Communication,
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
    assert!(maybe_sent(&target.deliver(&note(), false, deadline).await.verdict));
}

#[tokio::test]
async fn the_ehrs_words_are_kept_without_what_is_secret_and_without_nul() {
    let ehr = Peer::answering(|heard| {
        let echoed = heard.header("authorization").unwrap_or_default().to_owned();
        Some(json(
            422,
            &format!(
                r#"{{"issue":[{{"code":"invalid","diagnostics":"you sent {echoed}\u0000!","a\u0000b":[null,1]}}]}}"#
            ),
        ))
    })
    .await;
    let auth = Auth::BearerToken(Secret::new("a-token-to-keep"));
    let verdict = deliver(&ehr.url("/fhir"), Some(&auth), open()).await;
    let Verdict::Refused { status: 422, words: Some(words) } = &verdict else { panic!("{verdict:?}") };
    assert_eq!(
        words.to_string(),
        r#"{"issue":[{"code":"invalid","diagnostics":"you sent Bearer **********!","ab":[null,1]}]}"#
    );
    // A location is a text too, and the database takes no NUL in one.
    let ehr =
        Peer::answering(|_| Some(json(201, r#"{"resourceType":"Communication","id":"1\u00002"}"#))).await;
    let verdict = deliver(&ehr.url("/fhir"), None, open()).await;
    assert_eq!(verdict, Verdict::Synced { location: Some("Communication/12".to_owned()) });
}

#[tokio::test]
async fn retry_after_is_seconds_or_a_date() {
    for (headers, expected) in [
        ("retry-after: 600\r\n", Some(600)),
        ("date: Sat, 18 Apr 2026 12:00:00 GMT\r\nretry-after: Sat, 18 Apr 2026 12:10:00 GMT\r\n", Some(600)),
        ("date: Sat, 18 Apr 2026 12:00:00 GMT\r\nretry-after: Sat, 18 Apr 2026 11:00:00 GMT\r\n", Some(0)),
        ("retry-after: soon\r\n", None),
        ("", None),
    ] {
        let ehr = Peer::answering(move |_| {
            Some(
                format!("HTTP/1.1 429 X\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n")
                    .into_bytes(),
            )
        })
        .await;
        let verdict = deliver(&ehr.url("/fhir"), None, open()).await;
        let Verdict::Again { after, why: "throttled", .. } = verdict else { panic!("{verdict:?}") };
        assert_eq!(after, expected.map(Duration::from_secs), "{headers}");
    }
}
