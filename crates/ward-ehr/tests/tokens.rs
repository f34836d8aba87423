//! Tokens against an endpoint that counts its requests, and the outcomes of its refusals.

#![expect(clippy::unwrap_used, reason = "a test that fails stops at the failing line")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use parking_lot::Mutex;
use support::{Peer, json, open, outbound, soon};
use tokio::time::Instant;
use ward_ehr::auth::{Algorithm, Grant, Signer, TokenAuth};
use ward_ehr::{Auth, FailureKind, Request, Secret, Tokens};

fn by_secret(token_url: &str) -> TokenAuth {
    TokenAuth {
        grant: Grant::ClientCredentials {
            client_id: "ward:1".into(),
            client_secret: Secret::new("s3cr€t"),
            in_form: false,
            scopes: vec!["a".into(), "b".into()],
        },
        token_url: Some(token_url.parse().unwrap()),
        assumed_lifetime: Duration::from_hours(1),
    }
}

fn token(index: usize, expires_in: &str) -> Vec<u8> {
    json(
        200,
        &format!(r#"{{"access_token":"token-{index}","token_type":"Bearer","expires_in":{expires_in}}}"#),
    )
}

fn key() -> Secret {
    Secret::new(rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem())
}

#[tokio::test]
async fn many_callers_at_once_ask_once() {
    let endpoint =
        Peer::answering_later(Duration::from_millis(100), |heard| Some(token(heard.index, "300"))).await;
    let (client, tokens) = (outbound(open()), Arc::new(Tokens::default()));
    let how = Arc::new(by_secret(&endpoint.url("/token")));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (client, tokens, how) = (client.clone(), tokens.clone(), how.clone());
        calls.spawn(async move { tokens.get(&client, &how, None, soon()).await.unwrap() });
    }
    let got: HashSet<String> = calls.join_all().await.iter().map(|token| token.expose().to_owned()).collect();
    assert_eq!((got.len(), endpoint.requests()), (1, 1));
    // Another secret needs another token: no old token survives an edit.
    let mut edited = by_secret(&endpoint.url("/token"));
    if let Grant::ClientCredentials { client_secret, .. } = &mut edited.grant {
        *client_secret = Secret::new("another");
    }
    assert_eq!(tokens.get(&client, &edited, None, soon()).await.unwrap().expose(), "token-1");
}

#[tokio::test]
async fn a_caller_that_waited_for_a_refusal_shares_it() {
    let endpoint = Peer::answering_later(Duration::from_millis(200), |_| {
        Some(json(401, r#"{"error":"invalid_client","error_description":"s3cr€t"}"#))
    })
    .await;
    let (client, tokens) = (outbound(open()), Arc::new(Tokens::default()));
    let how = Arc::new(by_secret(&endpoint.url("/token")));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, tokens, how) = (client.clone(), tokens.clone(), how.clone());
        calls.spawn(async move { tokens.get(&client, &how, None, soon()).await.unwrap_err() });
    }
    for failure in calls.join_all().await {
        assert_eq!(failure.kind, FailureKind::AuthFailed);
        assert_eq!(failure.message, "the token endpoint refused with 401: invalid_client");
    }
    assert_eq!(endpoint.requests(), 1);
    // A later caller asks again, because the cause may have been corrected meanwhile.
    tokens.get(&client, &how, None, soon()).await.unwrap_err();
    assert_eq!(endpoint.requests(), 2);
}

#[tokio::test]
async fn a_token_is_kept_as_long_as_it_says() {
    let endpoint = Peer::answering(|heard| {
        Some(match heard.index {
            0 => token(0, "1"),
            1 => token(1, "\"300\""),
            _ => json(200, r#"{"access_token":"third"}"#),
        })
    })
    .await;
    let (client, tokens, how) = (outbound(open()), Tokens::default(), by_secret(&endpoint.url("/token")));
    let get = async |refused: Option<&Secret>| tokens.get(&client, &how, refused, soon()).await.unwrap();
    assert_eq!(get(None).await.expose(), "token-0");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(get(None).await.expose(), "token-1");
    assert_eq!(get(None).await.expose(), "token-1");
    assert_eq!(
        get(Some(&Secret::new("token-0"))).await.expose(),
        "token-1",
        "only the refused one is replaced"
    );
    assert_eq!(get(Some(&Secret::new("token-1"))).await.expose(), "third");
    assert_eq!(get(None).await.expose(), "third", "without expires_in the configured lifetime holds");
    assert_eq!(endpoint.requests(), 3);
}

#[tokio::test]
async fn the_client_authenticates_as_the_standard_says() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    let endpoint = Peer::answering(move |request| {
        told.lock().push(request.clone());
        Some(token(0, "300"))
    })
    .await;
    let how = by_secret(&endpoint.url("/token"));
    Tokens::default().get(&outbound(open()), &how, None, soon()).await.unwrap();
    let request = heard.lock()[0].clone();
    // RFC 6749 section 2.3.1: both parts form-encoded, then Basic. "ward%3A1:s3cr%E2%82%ACt"
    assert_eq!(request.header("authorization"), Some("Basic d2FyZCUzQTE6czNjciVFMiU4MiVBQ3Q="));
    assert_eq!(request.body, "grant_type=client_credentials&scope=a+b");
}

#[tokio::test]
async fn the_client_authenticates_in_the_form_where_that_is_configured() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    let endpoint = Peer::answering(move |request| {
        told.lock().push(request.clone());
        Some(token(0, "300"))
    })
    .await;
    let mut how = by_secret(&endpoint.url("/token"));
    if let Grant::ClientCredentials { in_form, .. } = &mut how.grant {
        *in_form = true;
    }
    Tokens::default().get(&outbound(open()), &how, None, soon()).await.unwrap();
    let request = heard.lock()[0].clone();
    assert_eq!(request.header("authorization"), None);
    let wanted = "grant_type=client_credentials&client_id=ward%3A1&client_secret=s3cr%E2%82%ACt&scope=a+b";
    assert_eq!(request.body, wanted);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_no_more() {
    let endpoint = Peer::answering(|heard| Some(token(heard.index, "300"))).await;
    for (taken, asked, status, calls) in
        [("Bearer token-0", 1, 200, 1), ("Bearer token-1", 2, 200, 2), ("none", 2, 401, 2)]
    {
        let endpoint_before = endpoint.requests();
        let wanted = taken
            .replace("token-0", &format!("token-{endpoint_before}"))
            .replace("token-1", &format!("token-{}", endpoint_before + 1));
        let api = Peer::answering(move |heard| {
            Some(if heard.header("authorization") == Some(&wanted) {
                json(200, "{}")
            } else {
                json(401, "{}")
            })
        })
        .await;
        let auth = Auth::Token(Box::new(by_secret(&endpoint.url("/token"))));
        let request = Request {
            method: Method::POST,
            url: api.url("/").parse().unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let tokens = Tokens::default();
        let got = Auth::send(Some(&auth), &outbound(open()), &tokens, request, soon()).await.unwrap();
        assert_eq!(got.answer.status, status);
        assert_eq!((endpoint.requests() - endpoint_before, api.requests()), (asked, calls), "{taken}");
    }
}

#[tokio::test]
async fn every_assertion_has_a_fresh_jti_and_a_short_life() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    let endpoint = Peer::answering(move |request| {
        told.lock().push(request.body.clone());
        Some(token(request.index, "300"))
    })
    .await;
    let how = TokenAuth {
        grant: Grant::SmartBackendServices {
            signer: Signer::new(Algorithm::Es384, &key(), Some("k1".into())).unwrap(),
            client_id: "ward".into(),
            audience: None,
            scopes: vec!["system/Communication.c".into()],
            fhir_base: endpoint.url("/fhir").parse().unwrap(),
        },
        token_url: Some(endpoint.url("/token").parse().unwrap()),
        assumed_lifetime: Duration::from_mins(5),
    };
    let (client, tokens) = (outbound(open()), Tokens::default());
    let mut last = None;
    for _ in 0..3 {
        last = Some(tokens.get(&client, &how, last.as_ref(), soon()).await.unwrap());
    }
    let mut ids = HashSet::new();
    for body in heard.lock().iter() {
        let assertion = body.split('&').find_map(|pair| pair.strip_prefix("client_assertion=")).unwrap();
        let mut parts = assertion.split('.');
        let mut read = || -> serde_json::Value {
            use base64::Engine as _;
            let bytes =
                base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap();
            serde_json::from_slice(&bytes).unwrap()
        };
        let (header, claims) = (read(), read());
        assert_eq!(header, serde_json::json!({"typ": "JWT", "alg": "ES384", "kid": "k1"}));
        assert_eq!((&claims["iss"], &claims["sub"]), (&"ward".into(), &"ward".into()));
        assert_eq!(claims["aud"], endpoint.url("/token"));
        assert!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap() <= 300);
        assert!(ids.insert(claims["jti"].as_str().unwrap().to_owned()));
    }
    assert_eq!(ids.len(), 3);
}

fn discovering(base: &str) -> TokenAuth {
    TokenAuth {
        grant: Grant::SmartBackendServices {
            signer: Signer::new(Algorithm::Es384, &key(), None).unwrap(),
            client_id: "ward".into(),
            audience: None,
            scopes: Vec::new(),
            fhir_base: base.parse().unwrap(),
        },
        token_url: None,
        assumed_lifetime: Duration::from_mins(5),
    }
}

#[tokio::test]
async fn the_token_endpoint_is_discovered_below_the_fhir_base_and_remembered() {
    let endpoint = Peer::answering(|heard| Some(token(heard.index, "300"))).await;
    let token_url = endpoint.url("/token");
    let server = Peer::answering(move |heard| {
        let document = format!(r#"{{"token_endpoint":"{token_url}"}}"#);
        Some(if heard.path() == "/fhir/r4/.well-known/smart-configuration" {
            json(200, &document)
        } else {
            json(404, "")
        })
    })
    .await;
    let (client, tokens) = (outbound(open()), Tokens::default());
    let how = discovering(&server.url("/fhir/r4/"));
    let first = tokens.get(&client, &how, None, soon()).await.unwrap();
    tokens.get(&client, &how, Some(&first), soon()).await.unwrap();
    assert_eq!((server.requests(), endpoint.requests()), (1, 2));
    let nowhere = tokens.get(&client, &discovering(&server.url("/other")), None, soon()).await.unwrap_err();
    assert_eq!(nowhere.kind, FailureKind::Misconfigured);
}

/// An RSA key in PEM, and the key that verifies its signatures.
fn rsa() -> (Secret, jsonwebtoken::DecodingKey) {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::signature::{KeyPair as _, RsaKeyPair};
    use base64::Engine as _;
    let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    (Secret::new(pem), jsonwebtoken::DecodingKey::from_rsa_der(pair.public_key().as_ref()))
}

const PROVIDER: &str = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/w";

fn workload(signer: Signer, token_url: &str) -> TokenAuth {
    TokenAuth {
        grant: Grant::GcpWif {
            signer,
            issuer: "https://ward.example".into(),
            subject: "clinic".into(),
            provider: PROVIDER.into(),
            scopes: vec!["https://www.googleapis.com/auth/cloud-healthcare".into()],
        },
        token_url: Some(token_url.parse().unwrap()),
        assumed_lifetime: Duration::from_hours(1),
    }
}

/// No published server implements Google's exchange, so the request is compared with Google's documentation.
#[tokio::test]
async fn a_workload_identity_is_exchanged_in_the_form_that_google_documents() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    let endpoint = Peer::answering(move |request| {
        told.lock().push(request.clone());
        let body = r#"{"access_token":"federated","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":3599}"#;
        Some(json(200, body))
    })
    .await;
    let api = Peer::answering(|heard| {
        let fine = heard.header("authorization") == Some("Bearer federated");
        Some(json(if fine { 200 } else { 401 }, "{}"))
    })
    .await;
    let (pem, public) = rsa();
    let signer = Signer::new(Algorithm::Rs256, &pem, Some("k1".into())).unwrap();
    let auth = Auth::Token(Box::new(workload(signer, &endpoint.url("/v1/token"))));
    let request = Request {
        method: Method::GET,
        url: api.url("/").parse().unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    let tokens = Tokens::default();
    for _ in 0..2 {
        let got = Auth::send(Some(&auth), &outbound(open()), &tokens, request.clone(), soon()).await.unwrap();
        assert_eq!(got.answer.status, 200);
    }
    assert_eq!((endpoint.requests(), api.requests()), (1, 2), "the token is kept as long as it says");
    let sent = heard.lock()[0].clone();
    assert!(sent.head.starts_with("POST /v1/token HTTP/1.1\r\n"), "{}", sent.head);
    assert_eq!(sent.header("authorization"), None, "the assertion is the only credential");
    let mut form: std::collections::BTreeMap<String, String> =
        form_urlencoded::parse(sent.body.as_bytes()).into_owned().collect();
    let statement = form.remove("subject_token").unwrap();
    let wanted = [
        ("audience", PROVIDER),
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("scope", "https://www.googleapis.com/auth/cloud-healthcare"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
    ];
    assert_eq!(form, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    rules.set_audience(&[format!("https:{PROVIDER}")]);
    rules.set_issuer(&["https://ward.example"]);
    let read = jsonwebtoken::decode::<serde_json::Value>(&statement, &public, &rules).unwrap();
    assert_eq!((read.header.kid.as_deref(), &read.claims["sub"]), (Some("k1"), &"clinic".into()));
    assert!(read.claims["exp"].as_u64().unwrap() - read.claims["iat"].as_u64().unwrap() <= 3600);
}

#[tokio::test]
async fn googles_refusals_are_told_by_their_name() {
    let (pem, _) = rsa();
    let signer = Signer::new(Algorithm::Rs256, &pem, None).unwrap();
    for (status, error) in [
        (400, "invalid_grant"),
        (400, "invalid_target"),
        (401, "invalid_client"),
        (403, "unauthorized_client"),
    ] {
        let body =
            format!(r#"{{"error":"{error}","error_description":"The audience clinic is not known."}}"#);
        let endpoint = Peer::answering(move |_| Some(json(status, &body))).await;
        let how = workload(signer.clone(), &endpoint.url("/v1/token"));
        let failure = Tokens::default().get(&outbound(open()), &how, None, soon()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::AuthFailed);
        assert_eq!(failure.message, format!("the token endpoint refused with {status}: {error}"));
    }
    // Google accepts RSA only.
    assert!(Signer::new(Algorithm::Rs256, &key(), None).is_err());
}

#[tokio::test]
async fn what_discovery_names_is_guarded_like_everything_else() {
    for named in
        [r#""http://169.254.169.254/token""#, r#""file:///etc/passwd""#, "7", "null", r#""/relative""#]
    {
        let document = format!(r#"{{"token_endpoint":{named}}}"#);
        let server = Peer::answering(move |_| Some(json(200, &document))).await;
        let failure = Tokens::default()
            .get(&outbound(open()), &discovering(&server.url("/fhir")), None, soon())
            .await
            .unwrap_err();
        assert_eq!(failure.kind, FailureKind::Misconfigured, "{named}");
    }
}

#[tokio::test]
async fn a_token_endpoint_that_answers_oddly_is_a_failure_of_its_kind() {
    for (answer, kind) in [
        (Some(json(200, "not json")), FailureKind::Garbage),
        (Some(json(200, r#"{"access_token":""}"#)), FailureKind::Garbage),
        (Some(json(200, r#"{"access_token":"t","token_type":"mac"}"#)), FailureKind::Garbage),
        (Some(json(400, r#"{"error":"invalid_scope"}"#)), FailureKind::AuthFailed),
        (Some(json(404, "")), FailureKind::Misconfigured),
        (Some(support::redirect(302, "/elsewhere")), FailureKind::Misconfigured),
        (Some(json(503, "")), FailureKind::Unreachable),
        (None, FailureKind::Timeout),
    ] {
        // Only an endpoint that hangs reaches its deadline.
        let deadline = if answer.is_none() { Instant::now() + Duration::from_millis(300) } else { soon() };
        let endpoint = Peer::answering(move |_| answer.clone()).await;
        let client = outbound(open());
        let failure =
            Tokens::default().get(&client, &by_secret(&endpoint.url("/")), None, deadline).await.unwrap_err();
        assert_eq!(failure.kind, kind);
    }
}

#[tokio::test]
async fn a_token_with_a_line_end_in_it_goes_nowhere() {
    let endpoint = Peer::answering(|_| Some(json(200, r#"{"access_token":"a\r\nX-Injected: yes"}"#))).await;
    let api = Peer::answering(|_| Some(json(200, "{}"))).await;
    let auth = Auth::Token(Box::new(by_secret(&endpoint.url("/"))));
    let request = Request {
        method: Method::GET,
        url: api.url("/").parse().unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    let failure =
        Auth::send(Some(&auth), &outbound(open()), &Tokens::default(), request, soon()).await.unwrap_err();
    assert_eq!((failure.kind, api.requests()), (FailureKind::Misconfigured, 0));
}

#[test]
fn a_key_is_tried_before_it_is_taken() {
    let p384 = key();
    let p256 =
        Secret::new(rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem());
    assert!(Signer::new(Algorithm::Es384, &p384, None).is_ok());
    for (algorithm, pem) in [
        (Algorithm::Es384, p256),
        (Algorithm::Rs384, p384.clone()),
        (Algorithm::Es384, Secret::new("")),
        (Algorithm::Rs384, Secret::new("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----")),
    ] {
        let failure = Signer::new(algorithm, &pem, None).unwrap_err();
        assert!(!failure.message.contains("BEGIN"), "{failure}");
    }
    let shown = format!("{:?}", Signer::new(Algorithm::Es384, &p384, None).unwrap());
    assert!(!shown.contains("BEGIN"), "{shown}");
}

#[tokio::test]
async fn a_server_that_is_busy_for_a_while_is_not_configured_wrongly() {
    for (status, kind) in [
        (429, FailureKind::Unreachable),
        (500, FailureKind::Unreachable),
        (503, FailureKind::Unreachable),
        (404, FailureKind::Misconfigured),
        (403, FailureKind::Misconfigured),
    ] {
        let server = Peer::answering(move |_| Some(json(status, "{}"))).await;
        let how = TokenAuth {
            grant: Grant::SmartBackendServices {
                signer: Signer::new(Algorithm::Es384, &key(), None).unwrap(),
                client_id: "ward".into(),
                audience: None,
                scopes: Vec::new(),
                fhir_base: server.url("/fhir").parse().unwrap(),
            },
            token_url: None,
            assumed_lifetime: Duration::from_hours(1),
        };
        let failure = Tokens::default().get(&outbound(open()), &how, None, soon()).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{status}: {failure}");
    }
}
