//! All routes. A route is named by its operation in the contract, which gives path and method.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::{MethodFilter, MethodRouter, get, on};
use http::{HeaderValue, Method};
use ward_contract::{Access, ContractError, Rule};
use ward_guard::Authorized;

use crate::api_keys::{ceilings, handover};
use crate::app::App;
use crate::error::ApiError;
use crate::http::{Reply, Request, Route, cors, health, redirecting, refusing};
use crate::{
    api_keys, audit, bounds, calls, deliveries, identity, integrations, invitations, members, networks,
    phone, quotas, test_callers, trust_rules, twilio, workspaces,
};

/// The value rules of the rooms, by the schema that they extend.
pub const RULES: &[(&str, Rule)] = &[
    ("#/components/schemas/StrippedNonemptyString", bounds::name),
    ("#/components/schemas/CreateWorkspaceRequest", workspaces::slugs::chosen),
    ("#/components/schemas/RenameWorkspaceRequest", workspaces::slugs::chosen),
    ("#/components/schemas/NameString", bounds::title),
    ("#/components/schemas/CreateApiKeyRequest", bounds::key_name),
    ("#/components/schemas/TestCallerNumbersRequest/properties/numbers/items", bounds::number),
    ("#/components/schemas/TestCallerNumbersRequest/properties/numbers/items", phone::rule),
    ("#/components/schemas/ReportCallRequest/properties/caller_id", calls::api::party_rule),
    ("#/components/schemas/ReportCallRequest/properties/phone_number", calls::api::party_rule),
    ("#/components/schemas/ReportCallRequest", calls::api::period_rule),
    (
        "#/components/schemas/CorrectCallRequest/properties/patient_birth_date/anyOf/0",
        calls::patients::birth_date_rule,
    ),
    ("#/components/schemas/CorrectCallRequest/properties/patient_phone/anyOf/0", phone::rule),
    ("#/components/schemas/CreateApiKeyRequest/properties/role", api_keys::rules::role),
    ("#/components/schemas/CreateApiKeyRequest/properties/permissions/items", api_keys::rules::permission),
    ("#/components/schemas/CreateApiKeyRequest", api_keys::rules::within_role),
    ("#/components/schemas/TrustCondition", trust_rules::rules::condition),
    ("#/components/schemas/CreateTrustRuleRequest/properties/issuer", trust_rules::rules::issuer),
    ("#/components/schemas/CreateTrustRuleRequest/properties/audience", trust_rules::rules::exact),
    ("#/components/schemas/CreateTrustRuleRequest/properties/role", trust_rules::rules::role),
    ("#/components/schemas/CreateTrustRuleRequest/properties/permissions/items", api_keys::rules::permission),
    ("#/components/schemas/CreateTrustRuleRequest", api_keys::rules::within_role),
    ("#/components/schemas/CreateTrustRuleRequest", trust_rules::rules::conditions),
    ("#/components/schemas/NewKeyBinding", api_keys::rules::binding),
    ("#/components/schemas/SetMemberRoleRequest/properties/role", api_keys::rules::role),
    ("#/components/schemas/CreateInvitationRequest/properties/role", api_keys::rules::role),
    ("#/components/schemas/EmailAddress", invitations::rules::email),
    ("#/components/schemas/Network", networks::rule),
    ("#/components/schemas/ExplainAccessRequest/properties/address/anyOf/0", identity::address_rule),
    ("#/components/schemas/CreateIntegrationRequest/properties/name", integrations::rules::name),
    ("#/components/schemas/CreateIntegrationRequest/properties/base_url", integrations::rules::base_url),
    (
        "#/components/schemas/UpdateIntegrationRequest/properties/base_url/anyOf/0",
        integrations::rules::base_url,
    ),
    ("#/components/schemas/CreateIntegrationRequest/properties/endpoints", integrations::rules::endpoints),
    (
        "#/components/schemas/UpdateIntegrationRequest/properties/endpoints/anyOf/0",
        integrations::rules::endpoints,
    ),
    ("#/components/schemas/CreateIntegrationRequest", integrations::rules::private_keys),
    ("#/components/schemas/UpdateIntegrationRequest", integrations::rules::private_keys),
    ("#/components/schemas/EndpointConfigWithSecrets", integrations::rules::endpoint),
    ("#/components/schemas/EndpointConfigWithSecrets/properties/name", integrations::rules::name),
    ("#/components/schemas/EndpointConfigWithSecrets/properties/path", integrations::rules::path),
    (
        "#/components/schemas/EndpointConfigWithSecrets/properties/base_url/anyOf/0",
        integrations::rules::base_url,
    ),
    ("#/components/schemas/EndpointConfigWithSecrets/properties/headers", integrations::rules::headers),
    ("#/components/schemas/AuthConfigWithSecrets", integrations::rules::auth),
    (
        "#/components/schemas/AuthConfigWithSecrets/properties/token_url/anyOf/0",
        integrations::rules::token_url,
    ),
    ("#/components/schemas/SecretInput/properties/value", integrations::rules::secret),
    (
        "#/components/schemas/CreateIntegrationRequest/properties/mcp_headers/anyOf/0",
        integrations::rules::mcp_headers,
    ),
    (
        "#/components/schemas/UpdateIntegrationRequest/properties/mcp_headers/anyOf/0",
        integrations::rules::mcp_headers,
    ),
    ("#/components/schemas/DeliverySettings/properties/time_zone/anyOf/0", deliveries::local::zone_rule),
    ("#/components/schemas/TwilioSetupRequest/properties/auth_token", twilio::api::token_rule),
    (
        "#/components/schemas/TwilioSetupRequest/properties/secondary_auth_token/anyOf/0",
        twilio::api::token_rule,
    ),
];

/// The whole service. It fails if a route has no operation, or an operation no route.
pub fn service(app: &Arc<App>) -> Result<Router, ContractError> {
    let mut routes = Routes::new(app.clone());
    add_workspaces_and_access(&mut routes)?;
    add_calls_and_deliveries(&mut routes)?;
    add_audit_and_server(&mut routes)?;
    routes.finish()
}

fn add_workspaces_and_access(routes: &mut Routes) -> Result<(), ContractError> {
    routes.on("list-workspaces", "workspaces", workspaces::api::list)?;
    routes.on("create-workspace", "workspaces", workspaces::api::create)?;
    routes.on("create-self-service-workspace", "workspaces", workspaces::api::create_own)?;
    routes.on("create-my-workspace", "workspaces", workspaces::api::create_own)?;
    routes.on("get-workspace", "workspaces", workspaces::api::get)?;
    routes.on("update-workspace", "workspaces", workspaces::api::update)?;
    routes.on("provision-workspace", "workspaces", workspaces::api::provision)?;
    routes.on("archive-workspace", "workspaces", workspaces::api::archive)?;
    routes.on("get-workspace-by-slug", "workspaces", workspaces::slugs::api::by_slug)?;
    routes.on("rename-workspace", "workspaces", workspaces::slugs::api::rename)?;
    routes.on("list-former-slugs", "workspaces", workspaces::slugs::api::former)?;
    routes.on("list-archived-workspaces", "workspaces", workspaces::archives::api::list)?;
    routes.on("restore-archived-workspace", "workspaces", workspaces::archives::api::restore)?;
    routes.on("get-test-caller-numbers", "workspaces", test_callers::api::numbers)?;
    routes.on("update-test-caller-numbers", "workspaces", test_callers::api::set_numbers)?;

    routes.on("get-test-credential-ids", "workspaces", test_callers::api::credentials)?;
    routes.on("update-test-credential-ids", "workspaces", test_callers::api::set_credentials)?;
    routes.on("check-environment-conversion", "workspaces", workspaces::api::check_environment)?;
    routes.on("convert-workspace-environment", "workspaces", workspaces::api::convert_environment)?;
    routes.on("get-access-policy", "workspaces", workspaces::access_policy::api::get)?;
    routes.on("set-access-policy", "workspaces", workspaces::access_policy::api::set)?;
    routes.on("get-usage", "quotas", quotas::api::get)?;

    routes.on("get-auth-info", "api_keys", api_keys::api::me)?;
    routes.on("get-me", "identity", identity::api::me)?;
    routes.on("authorize", "identity", identity::api::authorize)?;
    routes.on("explain-access", "identity", identity::api::explain)?;
    routes.on("list-api-keys", "api_keys", api_keys::api::list)?;
    routes.on("create-api-key", "api_keys", api_keys::api::create)?;
    routes.on("delete-api-key", "api_keys", api_keys::api::delete)?;
    routes.on("rotate-api-key", "api_keys", api_keys::api::rotate)?;
    routes.on("finish-api-key-rotation", "api_keys", api_keys::api::finish_rotation)?;
    routes.on("set-api-key-networks", "api_keys", api_keys::networks::api::set)?;
    routes.on("revoke-presented-api-key", "api_keys", api_keys::api::revoke_presented)?;
    routes.on("report-leaked-keys", "api_keys", api_keys::leaks::api::report)?;
    routes.on("get-leaked-key-policy", "api_keys", api_keys::leaks::api::policy)?;
    routes.on("set-leaked-key-policy", "api_keys", api_keys::leaks::api::set_policy)?;
    routes.on("get-permission-catalog", "api_keys", api_keys::api::catalog)?;

    routes.on("create-handover", "api_keys", handover::api::create)?;
    routes.on("get-handover-page", "api_keys", handover::api::page)?;
    routes.on("open-handover", "api_keys", handover::api::open)?;
    routes.on("get-key-policy", "api_keys", ceilings::api::get)?;
    routes.on("set-key-policy", "api_keys", ceilings::api::set)?;

    routes.on("list-trust-rules", "trust_rules", trust_rules::api::list)?;
    routes.on("create-trust-rule", "trust_rules", trust_rules::api::create)?;
    routes.on("get-trust-rule", "trust_rules", trust_rules::api::get)?;
    routes.on("delete-trust-rule", "trust_rules", trust_rules::api::delete)?;

    routes.on("list-members", "members", members::api::list)?;
    routes.on("set-member-role", "members", members::api::set_role)?;
    routes.on("remove-member", "members", members::api::remove)?;
    routes.on("leave-workspace", "members", members::api::leave)?;
    routes.on("get-ownership-transfer", "members", members::api::transfer)?;
    routes.on("nominate-owner", "members", members::api::nominate)?;
    routes.on("cancel-ownership-transfer", "members", members::api::cancel)?;
    routes.on("accept-ownership", "members", members::api::accept)?;
    routes.on("list-invitations", "members", invitations::api::list)?;
    routes.on("create-invitation", "members", invitations::api::create)?;
    routes.on("revoke-invitation", "members", invitations::api::revoke)?;
    routes.on("extend-invitation", "members", invitations::api::extend)?;
    routes.on("resend-invitation", "members", invitations::api::resend)?;
    routes.on("list-my-invitations", "members", invitations::api::list_own)?;
    routes.on("accept-my-invitation", "members", invitations::api::accept_own)?;
    routes.on("accept-invitation", "members", invitations::api::accept)?;

    Ok(())
}

fn add_calls_and_deliveries(routes: &mut Routes) -> Result<(), ContractError> {
    routes.on("list-integrations", "integrations", integrations::api::list)?;
    routes.on("create-integration", "integrations", integrations::api::create)?;
    routes.on("integration-health-check", "integrations", integrations::api::health)?;
    routes.on("get-integration", "integrations", integrations::api::get)?;
    routes.on("update-integration", "integrations", integrations::api::update)?;
    routes.on("delete-integration", "integrations", integrations::api::delete)?;
    routes.on("test-integration-endpoint", "integrations", integrations::api::test)?;
    routes.on("list-integration-keys", "integrations", integrations::keys::api::list)?;
    routes.on("create-integration-key", "integrations", integrations::keys::api::create)?;
    routes.on("activate-integration-key", "integrations", integrations::keys::api::activate)?;
    routes.on("delete-integration-key", "integrations", integrations::keys::api::delete)?;
    routes.on("get-integration-jwks", "integrations", integrations::keys::api::jwks)?;
    routes.on("test-integration-connection", "integrations", integrations::api::test_connection)?;

    routes.on("list-calls", "calls", calls::api::list)?;
    routes.on("get-call", "calls", calls::api::get)?;
    routes.on("report-call", "calls", calls::api::report)?;
    routes.on("correct-call", "calls", calls::api::correct)?;
    routes.on("get-twilio", "calls", twilio::api::get)?;
    routes.on("set-twilio", "calls", twilio::api::set)?;
    routes.on("delete-twilio", "calls", twilio::api::delete)?;
    routes.on("get-twilio-reconciliation", "calls", twilio::reconciling::api::get)?;
    routes.on("reconcile-twilio", "calls", twilio::reconciling::api::reconcile)?;
    routes.on("receive-twilio-status", "calls", twilio::api::receive)?;

    routes.on("list-deliveries", "sync", deliveries::api::list)?;
    routes.on("get-delivery", "sync", deliveries::api::get)?;
    routes.on("retry-delivery", "sync", deliveries::api::retry)?;
    routes.on("resolve-delivery", "sync", deliveries::api::resolve)?;
    routes.on("preview-delivery", "sync", deliveries::previewing::preview)?;
    routes.on("drop-delivery", "sync", deliveries::api::drop)?;
    routes.on("amend-delivery", "calls", calls::api::amend)?;
    routes.on("list-reviews", "sync", deliveries::matching::api::list)?;
    routes.on("get-review", "sync", deliveries::matching::api::get)?;
    routes.on("resolve-review", "calls", calls::api::resolve_review)?;
    routes.on("backfill-deliveries", "calls", calls::api::backfill)?;
    routes.on("retry-failed-deliveries", "sync", deliveries::api::retry_failed)?;
    routes.on("get-sync-status", "sync", deliveries::api::status)?;
    routes.on("hold-integration", "sync", deliveries::api::hold)?;

    Ok(())
}

fn add_audit_and_server(routes: &mut Routes) -> Result<(), ContractError> {
    routes.on("list-audit-events", "audit", audit::api::list)?;
    routes.on("get-audit-summary", "audit", audit::api::summary)?;
    routes.on("get-phi-access-report", "audit", audit::api::phi_access)?;
    routes.on("get-entity-access-log", "audit", audit::api::access_log)?;
    routes.on("create-audit-export", "audit", audit::exports::api::create)?;
    routes.on("list-audit-exports", "audit", audit::exports::api::list)?;
    routes.on("download-audit-export", "audit", audit::exports::api::download)?;
    routes.on("get-access-review", "audit", audit::review::review)?;

    routes.on("get-openapi-document", "http", health::document)?;
    routes.on("get-docs", "http", health::docs)?;
    routes.on("get-health", "http", health::alive)?;
    routes.on("get-readiness", "http", health::ready)?;
    Ok(())
}

/// The path of the documentation page, relative to the root.
const DOCS: &str = "v1/docs";

/// The routes so far, by path.
struct Routes {
    app: Arc<App>,
    paths: BTreeMap<String, (MethodRouter, Vec<Method>)>,
    served: Vec<String>,
}

impl Routes {
    const fn new(app: Arc<App>) -> Self {
        Self { app, paths: BTreeMap::new(), served: Vec::new() }
    }

    /// Serves an operation. Its handler receives its authorization; only an operation that the contract opens to all callers
    /// has none.
    fn on<A, H, F>(&mut self, operation: &str, room: &'static str, handler: H) -> Result<(), ContractError>
    where
        A: Authorized<Request, Error = ApiError> + Send + 'static,
        H: Fn(Request, A) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Reply, ApiError>> + Send + 'static,
    {
        let found = self.app.contract.operation(operation).cloned();
        let operation = found.ok_or_else(|| ContractError {
            at: operation.to_owned(),
            what: "a route without an operation".to_owned(),
        })?;
        if A::OPEN != (operation.access == Access::Anonymous) {
            return Err(ContractError {
                at: operation.id.clone(),
                what: "a handler with another authorization than the operation".to_owned(),
            });
        }
        let filter = MethodFilter::try_from(operation.method.clone())
            .map_err(|error| ContractError { at: operation.id.clone(), what: error.to_string() })?;
        let endpoint = Route::new(self.app.clone(), operation.clone(), room, handler);
        let serve = move |request: http::Request<Body>| endpoint.clone().serve(request);
        let (path, methods) = self.paths.entry(operation.path.clone()).or_default();
        *path = std::mem::take(path).on(filter, serve);
        methods.push(operation.method.clone());
        if operation.method == Method::GET && !operation.given {
            // RFC 9110, section 9.1. axum serves HEAD by the GET route, and hyper leaves the body out.
            methods.push(Method::HEAD);
        }
        self.served.push(operation.id.clone());
        Ok(())
    }

    fn finish(self) -> Result<Router, ContractError> {
        if let Some(missing) = self.app.contract.operations().find(|known| !self.served.contains(&known.id)) {
            return Err(ContractError {
                at: missing.id.clone(),
                what: "an operation without a route".to_owned(),
            });
        }
        let mut router = Router::new();
        for (path, (mut methods, allowed)) in self.paths {
            let allow: Vec<&str> = allowed.iter().map(Method::as_str).collect();
            let allow = HeaderValue::from_str(&allow.join(", ")).ok();
            let wrong_method = refusing(self.app.clone(), ApiError::wrong_method, allow);
            // The reference answers HEAD with 405 on the given operations, where axum would treat it as GET.
            if allowed.contains(&Method::GET) && !allowed.contains(&Method::HEAD) {
                methods = methods.merge(on(MethodFilter::HEAD, wrong_method.clone()));
            }
            router = router.route(&path, methods.fallback(wrong_method));
        }
        #[cfg(feature = "bench")]
        let router = crate::http::fixed::add_routes(&self.app, router);
        let to_docs = redirecting(self.app.clone(), DOCS);
        let wrong_method =
            refusing(self.app.clone(), ApiError::wrong_method, Some(HeaderValue::from_static("GET, HEAD")));
        let router = router.route("/", get(to_docs).fallback(wrong_method));
        let router = router.fallback(refusing(self.app.clone(), ApiError::no_route, None));
        let config = &self.app.config;
        let router = match config.path_prefix() {
            "" => router,
            // A nested router has no route for its root with a slash at the end.
            prefix => Router::new()
                .route(&format!("{prefix}/"), get(redirecting(self.app.clone(), DOCS)))
                .nest(prefix, router.clone())
                .merge(router),
        };
        Ok(cors::allow(router, &config.cors_origins))
    }
}
