//! Nonces for DPoP proofs (RFC 9449, section 9), which bound how long before its use a proof was made.
//!
//! A nonce is the number of a step of time with a MAC under the master key. So every replica verifies those of all others, and
//! none stores any.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use ward_db::Timestamp;

use crate::error::ApiError;
use crate::vault::{Vault, VaultError};

/// The length of a step. A nonce is accepted in its own step, in the next one, and in the one before, because the clocks of
/// replicas differ.
const STEP: i64 = 150 * 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    Current,
    /// The nonce is still accepted, but the client should use the current one.
    Former,
}

fn step(now: Timestamp) -> u64 {
    now.micros().div_euclid(STEP).unsigned_abs()
}

fn message(step: u64) -> Vec<u8> {
    [&b"ward dpop nonce "[..], &step.to_be_bytes()].concat()
}

/// The nonce of the present step.
pub fn current(vault: &Vault, now: Timestamp) -> Result<HeaderValue, ApiError> {
    let step = step(now);
    let mac = vault.mac(&message(step)).ok_or_else(|| ApiError::internal(VaultError::NoKey))?;
    let nonce = URL_SAFE_NO_PAD.encode([&step.to_be_bytes()[..], &mac].concat());
    HeaderValue::try_from(nonce).map_err(ApiError::internal)
}

/// The age of a nonce. `None`: Ward did not make it, or it is too old.
pub fn age(vault: &Vault, nonce: &str, now: Timestamp) -> Option<Age> {
    let bytes = URL_SAFE_NO_PAD.decode(nonce).ok()?;
    let (made, mac) = bytes.split_first_chunk::<8>()?;
    let made = u64::from_be_bytes(*made);
    let age = match step(now).abs_diff(made) {
        0 => Age::Current,
        1 => Age::Former,
        _ => return None,
    };
    vault.made_mac(&message(made), mac).then_some(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_lives_for_its_step_and_the_next_on_every_server_with_the_key() {
        let vault = Vault::new(&[1; 32]).unwrap();
        let at = |steps: i64, micros: i64| Timestamp::from_micros(1_000_000 * STEP + steps * STEP + micros);
        let nonce = current(&vault, at(0, 5)).unwrap();
        let nonce = nonce.to_str().unwrap();
        assert_eq!(age(&vault, nonce, at(0, 0)), Some(Age::Current));
        assert_eq!(age(&vault, nonce, at(1, -1)), Some(Age::Current));
        assert_eq!(age(&vault, nonce, at(1, 0)), Some(Age::Former));
        assert_eq!(age(&vault, nonce, at(2, -1)), Some(Age::Former));
        assert_eq!(age(&vault, nonce, at(2, 0)), None);
        assert_eq!(age(&vault, nonce, at(0, -1)), Some(Age::Former));
        assert_eq!(age(&vault, nonce, at(-1, -1)), None);
        let renewed = Vault::with_former(&[2; 32], [&[1; 32]]).unwrap();
        assert_eq!(age(&renewed, nonce, at(0, 0)), Some(Age::Current));
        assert_eq!(age(&Vault::new(&[2; 32]).unwrap(), nonce, at(0, 0)), None);
    }

    #[test]
    fn a_changed_nonce_is_none() {
        let (vault, now) = (Vault::new(&[1; 32]).unwrap(), Timestamp::from_micros(1_000_000 * STEP));
        let nonce = current(&vault, now).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(nonce.as_bytes()).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(age(&vault, &URL_SAFE_NO_PAD.encode(changed), now), None, "byte {at}");
        }
        for wrong in ["", "x", "AAAAAAAAAAA", &URL_SAFE_NO_PAD.encode(&bytes[..bytes.len() - 1])] {
            assert_eq!(age(&vault, wrong, now), None, "{wrong}");
        }
    }
}
