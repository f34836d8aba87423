//! The entry of a caller into a workspace, and the validation of the body after it.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ward_contract::validate;

use super::Entry;
use crate::error::ApiError;
use crate::http::{Query, Request, Sent};
use crate::shares::{Full, Share};

impl Request {
    /// Authorizes the caller: credential (401), visibility (404), permission (403).
    pub async fn enter(&self) -> Result<Entry, ApiError> {
        Entry::admit(self).await?.decided(&self.app)
    }

    /// Authorizes the caller and then validates the query parameters.
    pub async fn enter_with_query(&self) -> Result<(Entry, Query), ApiError> {
        let entry = self.enter().await?;
        let query = validate::query(&self.operation, self.parts.uri.query()).map_err(ApiError::refused)?;
        Ok((entry, Query(Value::Object(query))))
    }

    /// Authorizes the caller and reads the body. The order is: credential, size and syntax, visibility and
    /// permission, values.
    pub async fn enter_with_body<T: DeserializeOwned + Send + 'static>(
        &mut self,
    ) -> Result<(Entry, Sent<T>), ApiError> {
        let admitted = Entry::admit(self).await?;
        let body = self.read_body_of(admitted.holder()).await?;
        let entry = admitted.decided(&self.app)?;
        Ok((entry, body.valid(self).await?))
    }

    /// As [`Self::enter_with_body`], for bodies that take long to validate even if they are short, because
    /// they may contain keys.
    pub async fn enter_with_heavy_body<T: DeserializeOwned + Send + 'static>(
        &mut self,
    ) -> Result<(Entry, Sent<T>), ApiError> {
        let admitted = Entry::admit(self).await?;
        let body = self.read_body_of(admitted.holder()).await?.heavy();
        let entry = admitted.decided(&self.app)?;
        Ok((entry, body.valid(self).await?))
    }

    /// Authorizes the caller and reads an undeclared body, whose bytes distinguish retries.
    pub async fn enter_with_ignored_body(&mut self) -> Result<(Entry, Bytes), ApiError> {
        let admitted = Entry::admit(self).await?;
        let bytes = self.read_ignored_body().await?;
        Ok((admitted.decided(&self.app)?, bytes))
    }

    /// Takes a share of look-ups, if this address or workspace has used up its failures. The rest of a
    /// request needs none.
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
        let Some(rates) = &self.app.rates else { return Ok(()) };
        let state = rates.charge_bootstrap(self.context.address);
        let _ = self.context.rate.set(state.unwrap_or_else(|exhausted| exhausted));
        state.map(drop).map_err(|exhausted| ApiError::too_many(exhausted.reset_seconds))
    }
}

/// 429: more credentials of one failing client wait for a look-up than a client can send at once.
fn queue_is_full(full: Full) -> ApiError {
    ApiError::too_many(1).because(full)
}
