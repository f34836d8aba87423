//! A secret scanner that reports leaked keys and signs its reports, as that of GitHub does.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use ward::config::LeakReportKey;

use crate::{Answer, Sending, Server};

/// The path of `report-leaked-keys`.
pub const REPORTS: &str = "/v1/keys/leaked";

/// A scanner with its key pair.
pub struct Scanner {
    identifier: &'static str,
    pair: EcdsaKeyPair,
}

impl Scanner {
    pub fn new(identifier: &'static str) -> Self {
        Self { identifier, pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key") }
    }

    /// The public half, as the setting has it.
    pub fn key(&self) -> LeakReportKey {
        let der: PublicKeyX509Der<'_> = self.pair.public_key().as_der().expect("a public key");
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
        LeakReportKey::new(self.identifier, &pem).expect("a key of P-256")
    }

    /// The signature of a body, in base64.
    pub fn sign(&self, body: &[u8]) -> String {
        STANDARD.encode(self.pair.sign(&SystemRandom::new(), body).expect("a signature"))
    }

    /// A server that accepts the reports of this scanner.
    pub async fn server(&self) -> Server {
        Server::with(|config| config.leak_report_keys = vec![self.key()]).await
    }

    /// Sends these bytes with their signature.
    pub async fn send(&self, server: &Server, body: &[u8]) -> Answer {
        let signature = self.sign(body);
        let headers = [
            ("github-public-key-identifier", self.identifier),
            ("github-public-key-signature", signature.as_str()),
        ];
        let sending = Sending { headers: &headers, ..Sending::json_bytes(body) };
        server.anonymous().send(Method::POST, REPORTS, sending).await
    }

    /// Reports these texts, each found at another public place.
    pub async fn report(&self, server: &Server, texts: &[&str]) -> Answer {
        self.send(server, &serde_json::to_vec(&report_of(texts)).expect("JSON")).await
    }
}

/// A report of these texts, each found at another public place.
pub fn report_of(texts: &[&str]) -> Value {
    let found = texts.iter().enumerate().map(|(at, text)| {
        let url = format!("https://github.com/acme/app/blob/main/config-{at}.env");
        json!({ "token": text, "type": "ward_api_key", "url": url, "source": "content" })
    });
    found.collect()
}
