//! The protocols of outside systems, and the kinds of authentication.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::names::named;

/// The protocol of the external system.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr, VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Rest,
    Fhir,
    /// The Model Context Protocol, which Ward stores but never speaks.
    Mcp,
}

named!(Protocol);

/// The kinds of authentication in `AuthConfig`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthKind {
    ApiKeyHeader,
    /// A bearer token as it was given, which Ward never renews.
    BearerToken,
    /// A client id and a secret, exchanged for a token.
    #[serde(rename = "oauth2_client_credentials")]
    ClientCredentials,
    /// A signed JWT, exchanged for a token (RFC 7523).
    #[serde(rename = "oauth2_jwt_bearer")]
    JwtBearer,
    /// A signed JWT, exchanged for a token at Google's security token service.
    GcpWif,
    /// A signed client assertion, exchanged for a token of an EHR.
    SmartBackendServices,
}
