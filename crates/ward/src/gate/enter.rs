//! The entry of a caller into a workspace, and the validation of the body after it.
//!
//! A handler says in its second argument what it needs: an [`Entry`] alone, or with the query or the body. The route
//! makes that argument, so a handler cannot run without it.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ward_contract::validate;
use ward_guard::Authorized;

use super::limits::{ClientRates, Mark};
use super::{Admitted, Entry};
use crate::context::RateState;
use crate::error::ApiError;
use crate::http::{Query, Request, Sent, SentBody};
use crate::shares::{Full, Share};

/// Authorizes the caller: credential (401), visibility (404), permission (403).
impl Authorized<Request> for Entry {
    type Error = ApiError;

    async fn authorize(request: &mut Request) -> Result<Self, ApiError> {
        Self::admit(request).await?.decided(&request.app)
    }
}

/// Authorizes the caller and then validates the query parameters.
impl Authorized<Request> for (Entry, Query) {
    type Error = ApiError;

    async fn authorize(request: &mut Request) -> Result<Self, ApiError> {
        let entry = Entry::authorize(request).await?;
        let query = validate::query(&request.operation, request.parts.uri.query());
        Ok((entry, Query(Value::Object(query.map_err(ApiError::refused)?))))
    }
}

/// Authorizes the caller and reads the body. The order is: credential, size and syntax, visibility and permission,
/// values.
impl<T: DeserializeOwned + Send + 'static> Authorized<Request> for (Entry, Sent<T>) {
    type Error = ApiError;

    async fn authorize(request: &mut Request) -> Result<Self, ApiError> {
        let (entry, body) = enter_with_body(request).await?;
        Ok((entry, body.valid(request).await?))
    }
}

/// Checks the credential and reads the body. The decision about the caller is left to the handler.
pub async fn admit_with_body(request: &mut Request) -> Result<(Admitted, SentBody), ApiError> {
    let admitted = Entry::admit(request).await?;
    let body = request.read_body_of(admitted.holder()).await?;
    Ok((admitted, body))
}

/// Authorizes the caller and reads the body. The syntax is checked with the values, in one piece of work. Only for a
/// caller who is refused is it checked alone.
async fn enter_with_body(request: &mut Request) -> Result<(Entry, SentBody), ApiError> {
    let (admitted, body) = admit_with_body(request).await?;
    if admitted.decision().is_err() {
        body.check_syntax(request).await?;
    }
    Ok((admitted.decided(&request.app)?, body))
}

/// A body that takes long to validate even if it is short, because it may contain keys.
pub struct Heavy<T>(pub Sent<T>);

impl<T: DeserializeOwned + Send + 'static> Authorized<Request> for (Entry, Heavy<T>) {
    type Error = ApiError;

    async fn authorize(request: &mut Request) -> Result<Self, ApiError> {
        let (entry, body) = enter_with_body(request).await?;
        Ok((entry, Heavy(body.heavy().valid(request).await?)))
    }
}

/// Authorizes the caller and reads an undeclared body, whose bytes distinguish retries.
impl Authorized<Request> for (Entry, Bytes) {
    type Error = ApiError;

    async fn authorize(request: &mut Request) -> Result<Self, ApiError> {
        let admitted = Entry::admit(request).await?;
        let bytes = request.read_bytes_of(admitted.holder(), usize::MAX).await?;
        Ok((admitted.decided(&request.app)?, bytes))
    }
}

/// The handler authorizes the caller itself, because its checks have another order than those of other operations. It
/// still gets an [`Entry`] from the gate only.
pub struct OwnOrder(());

impl Authorized<Request> for OwnOrder {
    type Error = ApiError;

    async fn authorize(_: &mut Request) -> Result<Self, ApiError> {
        Ok(Self(()))
    }
}

impl Request {
    /// Takes a share of look-ups for a credential, if this address or workspace has used up its failures and the
    /// credential was not valid lately. The rest of a request needs none.
    pub async fn look_up_share_of(&self, credential: &Mark) -> Result<Option<Share>, ApiError> {
        let known = self.app.rates.as_ref().is_some_and(|rates| rates.was_valid(credential));
        if known { Ok(None) } else { self.look_up_share().await }
    }

    /// As [`Self::look_up_share_of`], for a credential that is valid for one request only.
    pub async fn look_up_share(&self) -> Result<Option<Share>, ApiError> {
        let Some(rates) = &self.app.rates else { return Ok(None) };
        rates.look_up_share(self.context.address, self.workspace()).await.map_err(queue_is_full)
    }

    /// Takes a share of look-ups for a claim, if its address has had too many failed claims; otherwise
    /// `None`.
    pub async fn failing_claim_share(&self) -> Result<Option<Share>, ApiError> {
        let rates = self.app.rates.as_ref();
        let Some(rates) = rates.filter(|rates| rates.claims_are_used_up(self.context.address)) else {
            return Ok(None);
        };
        rates.claim_share(self.context.address).await.map(Some).map_err(queue_is_full)
    }

    /// Charges the creation of an unclaimed workspace to its address (429).
    pub fn charge_bootstrap(&self) -> Result<(), ApiError> {
        self.charged(|rates| rates.charge_bootstrap(self.context.address))
    }

    /// Charges the request of a public JWK set to its address (429).
    pub fn charge_key_set(&self) -> Result<(), ApiError> {
        self.charged(|rates| rates.charge_key_set(self.context.address))
    }

    /// Charges an unknown key, which a request named without being authorized by it, to its address (429).
    pub fn charge_unknown_key(&self) -> Result<(), ApiError> {
        self.charged(|rates| rates.charge_refused(self.context.address, None))
    }

    fn charged(
        &self,
        charge: impl FnOnce(&ClientRates) -> Result<RateState, RateState>,
    ) -> Result<(), ApiError> {
        let Some(rates) = &self.app.rates else { return Ok(()) };
        let state = charge(rates);
        let _ = self.context.rate.set(state.unwrap_or_else(|exhausted| exhausted));
        state.map(drop).map_err(|exhausted| ApiError::too_many(exhausted.reset_seconds))
    }
}

/// 429: more credentials of one failing client wait for a look-up than a client can send at once.
fn queue_is_full(full: Full) -> ApiError {
    ApiError::too_many(1).because(full)
}
