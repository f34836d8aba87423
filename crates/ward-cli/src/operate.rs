//! The operator's commands. They open the database themselves and may run beside a server.

use std::sync::Arc;

use serde_json::json;
use ward::app::{App, Stage};
use ward::config::Config;
use ward::http::contract::Contract;
use ward::ids::{DeliveryId, WorkspaceId};
use ward::sync::actions::InEhr;
use ward::{operator, router, telemetry};

use crate::args::{CallsAction, DbAction, KeyAction, SecretsAction, SyncAction, WorkspaceAction};
use crate::{Failure, show};

/// `ward workspace`.
pub fn workspace(config: Config, action: WorkspaceAction) -> Result<(), Failure> {
    on(config, async |app| {
        match action {
            WorkspaceAction::List { after, limit, json } => {
                let after = after.map(|id| id.parse().map(WorkspaceId)).transpose();
                let after = after.map_err(|_| "--after must be the id of a workspace")?;
                let listed = operator::list_workspaces(&app, after, limit).await?;
                show::many(
                    &listed,
                    &["id", "slug", "name", "environment", "region", "state", "created_at"],
                    json,
                )?;
                if listed.len() == usize::try_from(limit)? {
                    show::remark("There may be more: --after ID continues after the last one listed.");
                }
            }
            WorkspaceAction::Show { workspace, json } => {
                show::one(&operator::show_workspace(&app, &workspace).await?, json)?;
            }
            WorkspaceAction::Restore { workspace, json } => {
                show::one(&operator::restore_workspace(&app, &workspace).await?, json)?;
            }
        }
        Ok(())
    })
}

/// `ward key`.
pub fn key(config: Config, action: KeyAction) -> Result<(), Failure> {
    on(config, async |app| {
        match action {
            KeyAction::Issue { workspace, role, name, days, json } => {
                let issued = operator::issue_key(&app, &workspace, &role, name, days).await?;
                show::one(&issued, json)?;
                show::remark("The key is shown this once; Ward keeps only its hash.");
            }
            KeyAction::Revoke { key_id, json } => {
                show::one(&operator::revoke_key(&app, &key_id).await?, json)?;
            }
        }
        Ok(())
    })
}

/// What `ward sync` shows of each integration.
const LANE_COLUMNS: [&str; 8] = [
    "name",
    "integration_id",
    "pending",
    "oldest_pending_at",
    "held_deliveries",
    "failed",
    "synced",
    "waits_because",
];

/// `ward sync`.
pub fn sync(config: Config, action: SyncAction) -> Result<(), Failure> {
    on(config, async |app| {
        match action {
            SyncAction::Status { workspace, json } => {
                show::many(&operator::sync_status(&app, &workspace).await?, &LANE_COLUMNS, json)?;
            }
            SyncAction::Retry { workspace, delivery, json } => {
                let delivery = delivery.map(|id| id.parse().map(DeliveryId)).transpose();
                let delivery = delivery.map_err(|_| "a delivery is named by its id")?;
                show::one(&operator::sync_retry(&app, &workspace, delivery).await?, json)?;
            }
            SyncAction::Resolve { workspace, delivery, in_ehr, location, not_in_ehr: _, json } => {
                let delivery =
                    delivery.parse().map(DeliveryId).map_err(|_| "a delivery is named by its id")?;
                let found = if in_ehr { InEhr::Yes { location } } else { InEhr::No };
                show::one(&operator::sync_resolve(&app, &workspace, delivery, found).await?, json)?;
            }
            SyncAction::Hold { workspace, integration, release, json } => {
                let lanes = operator::sync_hold(&app, &workspace, &integration, !release).await?;
                show::many(&lanes, &LANE_COLUMNS, json)?;
            }
        }
        Ok(())
    })
}

/// `ward calls`.
pub fn calls(config: Config, action: CallsAction) -> Result<(), Failure> {
    let CallsAction::ProveExclusion { workspace, from, to, json } = action;
    on(config, async |app| {
        let proof = operator::prove_exclusion(&app, &workspace, &from, &to).await?;
        if json {
            show::one(&proof, true)?;
        } else {
            let columns = [
                "call_sid",
                "started_at",
                "caller",
                "list_version",
                "caller_on_list",
                "deliveries",
                "attempts",
                "excluded",
            ];
            let shown: Vec<_> = proof.calls.iter().chain(&proof.missed).collect();
            show::many(&shown, &columns, false)?;
            show::line(&format!(
                "{} test calls, {} of them not excluded; {} other calls, {} of them from test callers; \
                 {} deliveries of calls that were not real",
                proof.calls.len(),
                proof.violations - proof.missed.len(),
                proof.others_looked_at,
                proof.missed.len(),
                proof.deliveries_of_unreal_calls
            ));
        }
        if proof.violations > 0 || proof.deliveries_of_unreal_calls > 0 {
            let fault = "a test call was not excluded: this is a fault of Ward's, please report it";
            return Err(fault.into());
        }
        Ok(())
    })
}

/// `ward secrets`.
pub fn secrets(config: Config, action: &SecretsAction) -> Result<(), Failure> {
    let SecretsAction::Rotate { json } = *action;
    on(config, async |app| {
        let rotated = operator::rotate_secrets(&app, |progress| {
            show::remark(&format!("{} of {} sealed anew", progress.done, progress.of));
        })
        .await?;
        show::one(&rotated, json)?;
        for what in &rotated.unopened {
            show::remark(&format!("cannot be opened with these keys: {what}"));
        }
        match rotated.left {
            0 => Ok(()),
            left if left <= rotated.unopened.len() => {
                Err("what cannot be opened stays under its former key, so the former keys are still needed: give the one \
                     that is missing among former_master_keys, or store those secrets anew; then run this again"
                    .into())
            }
            _ => Err("a running server still seals under a former key: give it the new one, then run this again".into()),
        }
    })
}

/// `ward migrate`.
pub fn migrate(config: &Config, json: bool) -> Result<(), Failure> {
    telemetry::init_logging(config.log, &config.log_filter)?;
    let migrated = App::migrate(config)?;
    if json {
        show::one(
            &json!({"applied": migrated.applied, "present": migrated.present, "newer": migrated.newer}),
            true,
        )?;
        return Ok(());
    }
    for step in &migrated.applied {
        show::line(&format!("applied {step}"));
    }
    show::line(&format!("{} applied, {} there already", migrated.applied.len(), migrated.present));
    if migrated.newer > 0 {
        show::line(&format!("{} more are a newer Ward's", migrated.newer));
    }
    Ok(())
}

/// `ward db`.
pub fn database(config: Config, action: DbAction) -> Result<(), Failure> {
    telemetry::init_logging(config.log, &config.log_filter)?;
    let DbAction::Copy { from, to, json } = action;
    let to = to.unwrap_or(config.database);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let bar = show::Bar::new();
    let copied = runtime.block_on(App::copy(&from, &to, |progress| {
        let doing = match progress.stage {
            Stage::Copying => "copying",
            Stage::Verifying => "comparing",
        };
        bar.at(progress.done, progress.total, &format!("{doing} {}", progress.table));
    }));
    bar.done();
    let copied = copied?;
    show::many(&copied, &["table", "rows", "digest"], json)?;
    show::remark("Both databases hold the same. Serve the new one with the old one's master key.");
    Ok(())
}

/// `ward openapi`.
pub fn openapi() -> Result<(), Failure> {
    let contract = Contract::load(router::RULES)?;
    show::line(String::from_utf8_lossy(contract.document()).trim_end());
    Ok(())
}

/// Runs `work` on the database of `config`, then writes what it left in memory.
fn on(config: Config, work: impl AsyncFnOnce(Arc<App>) -> Result<(), Failure>) -> Result<(), Failure> {
    telemetry::init_logging(config.log, &config.log_filter)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let app = App::open_beside(config)?;
    runtime.block_on(async {
        app.check_master_key().await?;
        let done = work(Arc::clone(&app)).await;
        app.shutdown().await;
        done
    })
}
