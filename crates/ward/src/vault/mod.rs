//! Sealing under the operator's keys: AES-256-GCM with a random nonce, with the value's location as
//! associated data.

mod store;

pub use store::{RecordedKeys, forget_all, is_used, keep_only, note_check_value, recorded_keys};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use subtle::ConstantTimeEq as _;
use ward_db::{Error, Tx};
use zeroize::Zeroizing;

use crate::error::ApiError;
use crate::text;

/// The first byte of every sealed value, so that the format can change.
const VERSION: u8 = 1;
/// Bytes that identify the key of a sealed value.
const KEY_ID: usize = 4;
const HEAD: usize = 1 + KEY_ID + NONCE_LEN;
/// The length of a MAC in bytes: half of the output of HMAC-SHA-256 (RFC 2104, section 5).
const MAC: usize = 16;

/// The operator's keys: the current one seals, and all of them open. A command that needs no key has no
/// current one.
pub struct Vault {
    current: Option<Key>,
    former: Vec<Key>,
}

struct Key {
    cipher: RandomizedNonceKey,
    mac: hmac::Key,
    id: [u8; KEY_ID],
    check: String,
}

/// The reason why a value could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The cipher refused. When opening: another key, other associated data, or damaged bytes.
    #[error("the cipher refused: wrong key, wrong associated data or damaged bytes")]
    Cipher,
    /// This process has no current key, because its work needs none.
    #[error("this process has no master key")]
    NoKey,
    /// The bytes are not a sealed value, or none of the configured keys sealed them.
    #[error("none of the configured keys sealed this value")]
    Foreign,
}

impl Key {
    fn mac_of(&self, message: &[u8]) -> [u8; MAC] {
        let mut mac = [0; MAC];
        mac.copy_from_slice(&hmac::sign(&self.mac, message).as_ref()[..MAC]);
        mac
    }

    fn new(master_key: &[u8; 32]) -> Result<Self, VaultError> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, master_key).map_err(|_| VaultError::Cipher)?;
        let mac = hmac::Key::new(hmac::HMAC_SHA256, master_key);
        let named = hmac::sign(&mac, b"ward key id");
        let checked = hmac::sign(&mac, b"ward key check");
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&named.as_ref()[..KEY_ID]);
        Ok(Self { cipher, mac, id, check: STANDARD_NO_PAD.encode(checked) })
    }
}

#[derive(Clone, Debug)]
pub struct SealedRow<A> {
    pub at: A,
    /// The associated data of the seal.
    pub place: String,
    pub bytes: Vec<u8>,
    /// A description for the operator, without the value.
    pub what: String,
}

/// The result of sealing some rows again.
pub struct ResealResult<A> {
    /// The number of rows that were sealed again.
    pub done: usize,
    /// Descriptions of the values that none of the configured keys opens; they stay unchanged.
    pub unopened: Vec<String>,
    /// The last row of the step; `None` if there was none.
    pub last: Option<A>,
}

/// Refuses (503) to seal under a key that the database no longer records, because the operator may delete
/// such a key. It is called in the transaction that stores the sealed value. A rotation waits for that
/// transaction before it forgets the key.
pub fn hold(tx: &mut Tx<'_>, vault: &Vault) -> Result<(), ApiError> {
    if !vault.has_key() {
        return Err(ApiError::internal(VaultError::NoKey));
    }
    if is_in_force(tx, vault)? { Ok(()) } else { Err(ApiError::master_key_replaced()) }
}

/// Whether the database records the key that this server seals under. If so, it does so until this
/// transaction ends.
pub fn is_in_force(tx: &mut Tx<'_>, vault: &Vault) -> Result<bool, Error> {
    store::hold(tx, vault.check_value())
}

impl Vault {
    /// A vault with a current key only.
    pub fn new(master_key: &[u8; 32]) -> Result<Self, VaultError> {
        Self::with_former(master_key, [])
    }

    /// A vault with a current key, and previous keys that only open.
    pub fn with_former<'k>(
        master_key: &[u8; 32],
        former: impl IntoIterator<Item = &'k [u8; 32]>,
    ) -> Result<Self, VaultError> {
        let former = former.into_iter().map(Key::new).collect::<Result<_, _>>()?;
        Ok(Self { current: Some(Key::new(master_key)?), former })
    }

    /// A vault that seals nothing, and opens only values that were sealed under one of these keys.
    pub fn without_key<'k>(former: impl IntoIterator<Item = &'k [u8; 32]>) -> Result<Self, VaultError> {
        let former = former.into_iter().map(Key::new).collect::<Result<_, _>>()?;
        Ok(Self { current: None, former })
    }

    pub const fn has_key(&self) -> bool {
        self.current.is_some()
    }

    /// A value that only the current key yields and that does not reveal the key. The database stores it,
    /// so that a replica with another key is refused before it seals anything. Empty without a current key.
    pub fn check_value(&self) -> &str {
        self.current.as_ref().map_or("", |key| &key.check)
    }

    /// The check values of all keys, the current one first.
    pub fn check_values(&self) -> Vec<String> {
        self.keys().map(|key| key.check.clone()).collect()
    }

    /// The id of the current key: eight hexadecimal digits. Empty without one.
    pub fn key_id(&self) -> String {
        self.current.as_ref().map(|key| text::hex(&key.id)).unwrap_or_default()
    }

    /// The four bytes after the first byte of every value sealed under the current key. Empty without one.
    pub fn key_mark(&self) -> &[u8] {
        self.current.as_ref().map_or(&[], |key| &key.id)
    }

    /// Whether the current key sealed this value.
    pub fn is_current(&self, sealed: &[u8]) -> bool {
        sealed.get(1..=KEY_ID).is_some_and(|id| id == self.key_mark())
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        self.current.iter().chain(&self.former)
    }

    /// Seals `plain` with `place` as associated data, so that it does not open anywhere else.
    pub fn seal(&self, plain: &[u8], place: &str) -> Result<Vec<u8>, VaultError> {
        let key = self.current.as_ref().ok_or(VaultError::NoKey)?;
        let mut body = Zeroizing::new(plain.to_vec());
        let nonce = key
            .cipher
            .seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut *body)
            .map_err(|_| VaultError::Cipher)?;
        let mut sealed = Vec::with_capacity(HEAD + body.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens a value that was sealed with `place` as associated data.
    pub fn open(&self, sealed: &[u8], place: &str) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let (head, body) = sealed.split_at_checked(HEAD).ok_or(VaultError::Foreign)?;
        if head[0] != VERSION {
            return Err(VaultError::Foreign);
        }
        let key = self.keys().find(|key| key.id == head[1..=KEY_ID]).ok_or(VaultError::Foreign)?;
        let nonce = Nonce::try_assume_unique_for_key(&head[1 + KEY_ID..]).map_err(|_| VaultError::Foreign)?;
        let mut body = Zeroizing::new(body.to_vec());
        let opened = key
            .cipher
            .open_in_place(nonce, Aad::from(place.as_bytes()), &mut body)
            .map_err(|_| VaultError::Cipher)?
            .len();
        body.truncate(opened);
        Ok(body)
    }

    /// A MAC of a message under the current key, for values that clients bring back. `None` without a current key.
    ///
    /// The message begins with its purpose, so that no MAC serves another one.
    pub fn mac(&self, message: &[u8]) -> Option<[u8; MAC]> {
        self.current.as_ref().map(|key| key.mac_of(message))
    }

    /// Whether one of the keys made this MAC.
    pub fn made_mac(&self, message: &[u8], mac: &[u8]) -> bool {
        self.keys().any(|key| key.mac_of(message).ct_eq(mac).into())
    }

    /// Seals the value again under the current key; `None` if that key sealed it already.
    pub fn reseal(&self, sealed: &[u8], place: &str) -> Result<Option<Vec<u8>>, VaultError> {
        if self.is_current(sealed) {
            return Ok(None);
        }
        self.seal(&self.open(sealed, place)?, place).map(Some)
    }

    /// Seals rows again that are under another key, and calls `replace` to write them. A row that does not
    /// open stops nothing.
    pub fn reseal_rows<A>(
        &self,
        rows: Vec<SealedRow<A>>,
        mut replace: impl FnMut(&SealedRow<A>, &[u8]) -> Result<(), Error>,
    ) -> Result<ResealResult<A>, Error> {
        let mut resealed = ResealResult { done: 0, unopened: Vec::new(), last: None };
        for row in rows {
            match self.reseal(&row.bytes, &row.place) {
                Ok(None) => {}
                Ok(Some(anew)) => {
                    replace(&row, &anew)?;
                    resealed.done += 1;
                }
                Err(_) => resealed.unopened.push(row.what),
            }
            resealed.last = Some(row.at);
        }
        Ok(resealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_with_its_key_and_in_its_place() {
        let vault = Vault::new(&[1; 32]).unwrap();
        let sealed = vault.seal(b"secret", "here").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(&*vault.open(&sealed, "here").unwrap(), b"secret");
        assert!(vault.open(&sealed, "there").is_err());
        assert!(Vault::new(&[2; 32]).unwrap().open(&sealed, "here").is_err());
        assert!(vault.open(&sealed[..10], "here").is_err());
        let mut damaged = sealed;
        *damaged.last_mut().unwrap() ^= 1;
        assert!(vault.open(&damaged, "here").is_err());
    }

    #[test]
    fn without_a_key_nothing_is_sealed_and_only_former_keys_open() {
        let sealed = Vault::new(&[1; 32]).unwrap().seal(b"secret", "here").unwrap();
        let none = Vault::without_key([]).unwrap();
        assert!(none.seal(b"secret", "here").is_err() && none.open(&sealed, "here").is_err());
        assert!(!none.has_key() && none.check_values().is_empty() && !none.is_current(&sealed));
        let former = Vault::without_key([&[1; 32]]).unwrap();
        assert_eq!(&*former.open(&sealed, "here").unwrap(), b"secret");
        assert!(former.seal(b"secret", "here").is_err());
    }

    #[test]
    fn two_seals_of_the_same_differ() {
        let vault = Vault::new(&[1; 32]).unwrap();
        assert_ne!(vault.seal(b"secret", "here").unwrap(), vault.seal(b"secret", "here").unwrap());
        assert_ne!(vault.check_value(), Vault::new(&[2; 32]).unwrap().check_value());
    }

    #[test]
    fn former_keys_open_and_do_not_seal() {
        let old = Vault::new(&[1; 32]).unwrap();
        let sealed = old.seal(b"secret", "here").unwrap();
        let both = Vault::with_former(&[2; 32], [&[1; 32]]).unwrap();
        assert_eq!(&*both.open(&sealed, "here").unwrap(), b"secret");
        assert!(both.open(&sealed, "there").is_err());
        let anew = both.reseal(&sealed, "here").unwrap().unwrap();
        assert!(both.is_current(&anew) && !both.is_current(&sealed));
        assert!(both.reseal(&anew, "here").unwrap().is_none());
        assert!(old.open(&anew, "here").is_err());
        assert_eq!(&*Vault::new(&[2; 32]).unwrap().open(&anew, "here").unwrap(), b"secret");
        assert_eq!(both.check_values(), [both.check_value(), old.check_value()]);
    }
}
