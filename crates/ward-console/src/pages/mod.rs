//! The pages, one file for each place of the navigation.

mod address;
mod audit;
mod calls;
mod deliveries;
mod entry;
mod integrations;
mod keys;
mod overview;
mod people;
mod settings;
mod workspaces;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use axum::routing::post;
use http::StatusCode;

use crate::api::Refusal;
use crate::console::Console;
use crate::form::Problems;
use crate::visit::{Guest, Page};

/// Every page below the console's path.
pub fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/", get(entry::root))
        .route("/sign-in", get(entry::sign_in).post(entry::signed_in))
        .route("/sign-out", post(entry::sign_out))
        .route("/start", get(entry::start).post(entry::started))
        .route("/claim", post(entry::claimed))
        .route("/workspaces", get(workspaces::list))
        .route("/workspaces/new", get(workspaces::new).post(workspaces::create))
        .route("/w/{workspace}", get(overview::show))
        .route("/w/{workspace}/keys", get(keys::list))
        .route("/w/{workspace}/keys/new", get(keys::new).post(keys::create))
        .route("/w/{workspace}/keys/{key}/rotate", get(keys::rotate).post(keys::rotated))
        .route("/w/{workspace}/keys/{key}/finish", post(keys::finished))
        .route("/w/{workspace}/keys/{key}/revoke", get(keys::revoke).post(keys::revoked))
        .merge(of_people())
        .merge(of_calls())
        .merge(of_the_rest())
}

fn of_people() -> Router<Arc<Console>> {
    Router::new()
        .route("/join", get(people::join).post(people::joined))
        .route("/join/{invitation}", post(people::accept_offer))
        .route("/w/{workspace}/people", get(people::list))
        .route("/w/{workspace}/people/invite", get(people::invite).post(people::invited))
        .route("/w/{workspace}/people/invitations/{invitation}/revoke", post(people::revoke))
        .route("/w/{workspace}/people/leave", get(people::leave).post(people::left))
        .route("/w/{workspace}/people/transfer/accept", post(people::accept))
        .route("/w/{workspace}/people/transfer/cancel", post(people::cancel))
        .route("/w/{workspace}/people/{entity}", get(people::member).post(people::set_role))
        .route("/w/{workspace}/people/{entity}/nominate", post(people::nominate))
        .route("/w/{workspace}/people/{entity}/remove", post(people::remove))
}

fn of_calls() -> Router<Arc<Console>> {
    Router::new()
        .route("/w/{workspace}/calls", get(calls::list))
        .route("/w/{workspace}/calls/{call}", get(calls::show))
        .route("/w/{workspace}/test-callers", get(calls::test_callers).post(calls::set_test_callers))
        .route("/w/{workspace}/deliveries", get(deliveries::list))
        .route("/w/{workspace}/deliveries/retry", post(deliveries::retry_all))
        .route("/w/{workspace}/deliveries/{delivery}", get(deliveries::show))
        .route("/w/{workspace}/deliveries/{delivery}/retry", post(deliveries::retry))
        .route("/w/{workspace}/deliveries/{delivery}/resolve", post(deliveries::resolve))
        .route("/w/{workspace}/deliveries/{delivery}/choose", post(deliveries::choose))
}

fn of_the_rest() -> Router<Arc<Console>> {
    Router::new()
        .route("/w/{workspace}/integrations", get(integrations::list))
        .route("/w/{workspace}/integrations/new", get(integrations::new).post(integrations::create))
        .route("/w/{workspace}/integrations/{id}", get(integrations::show).post(integrations::save))
        .route("/w/{workspace}/integrations/{id}/test", post(integrations::test))
        .route(
            "/w/{workspace}/integrations/{id}/endpoints/{endpoint}/test",
            post(integrations::test_endpoint),
        )
        .route("/w/{workspace}/integrations/{id}/delete", post(integrations::delete))
        .route("/w/{workspace}/integrations/{id}/hold", post(deliveries::hold))
        .route("/w/{workspace}/audit", get(audit::list))
        .route("/w/{workspace}/audit/exports", get(audit::exports).post(audit::export))
        .route("/w/{workspace}/audit/exports/{file}", get(audit::download))
        .route("/w/{workspace}/usage", get(settings::usage))
        .route("/w/{workspace}/settings", get(settings::show).post(settings::save))
        .route("/w/{workspace}/settings/provision", post(settings::provision))
        .route("/w/{workspace}/settings/archive", post(settings::archive))
        .route(
            "/w/{workspace}/settings/environment/{target}",
            get(settings::environment).post(settings::convert),
        )
}

pub async fn not_found(guest: Guest) -> Page {
    let problems = Problems::general("There is no such page.");
    Err(guest.stop(Refusal { status: StatusCode::NOT_FOUND, problems }))
}
