//! The operator's commands. They open the database themselves and may run beside a server.

use std::path::Path;
use std::sync::Arc;

use clap::CommandFactory as _;
use serde_json::{Map, Value, json};
use ward::app::{App, CommandAccess};
use ward::config::Config;
use ward::contract;
use ward::deliveries::actions::InEhr;
use ward::ids::{DeliveryId, WorkspaceId};
use ward::quotas::Quota;
use ward::schema::Stage;
use ward::workspaces::access_policy::actions::Lifted;
use ward::{operator, router, telemetry};

use crate::args::{
    CallChanges, CallsAction, Cli, DbAction, KeyAction, MemberAction, SyncAction, TwilioAction,
    WorkspaceAction,
};
use crate::failure::Failure;
use crate::show::Output;
use crate::{scan, show};

pub fn workspace(config: Config, action: WorkspaceAction, out: Output) -> Result<(), Failure> {
    use WorkspaceAction::{Access as Policy, Archive, Create, Hold, Limits, List, Restore, Show, Unhold};
    let access = match &action {
        List { .. } | Show { .. } | Policy { clear_networks: false, clear_issuers: false, .. } => {
            CommandAccess::Read
        }
        Limits { set, unset, .. } if set.is_empty() && unset.is_empty() => CommandAccess::Read,
        _ => CommandAccess::Write,
    };
    // A Ward with a region of its own creates workspaces only there.
    let own = config.platform.region.clone();
    on(config, access, async |app| {
        match action {
            Create { slug, name, environment, region, backend_org_id } => {
                let mut wanted = json!({
                    "name": name.as_deref().unwrap_or(&slug), "slug": slug, "environment": environment,
                    "backend_org_id": backend_org_id,
                });
                if let Some(region) = region.or(own) {
                    wanted["region"] = region.into();
                }
                out.one(&operator::create_workspace(&app, &wanted).await?)?;
                out.remark(&format!(
                    "To issue its first key: ward key issue {slug} --role owner --name NAME"
                ));
            }
            List { after, limit } => {
                let after = after.map(|id| id.parse().map(WorkspaceId)).transpose();
                let after = after.map_err(|_| "--after must be the id of a workspace")?;
                let listed = operator::list_workspaces(&app, after, limit).await?;
                out.many(&listed, &["id", "slug", "name", "environment", "region", "state", "created_at"])?;
                if listed.len() == usize::try_from(limit)? {
                    out.remark(
                        "There may be more workspaces: --after ID continues after the last one listed.",
                    );
                }
            }
            Show { workspace } => out.one(&operator::show_workspace(&app, &workspace).await?)?,
            Archive { workspace } => {
                out.one(&operator::archive_workspace(&app, &workspace).await?)?;
                out.remark(&format!("`ward workspace restore {workspace}` makes it active again."));
            }
            Limits { workspace, set, unset } => {
                let shown = operator::workspace_limits(&app, &workspace, limits(&set, &unset)?).await?;
                out.many(&shown, &["name", "used", "limit"])?;
            }
            Policy { workspace, clear_networks, clear_issuers } => {
                let lifted = Lifted { networks: clear_networks, issuers: clear_issuers };
                out.one(&operator::workspace_access(&app, &workspace, lifted).await?)?;
            }
            Hold { workspace, reason } => {
                out.one(&operator::hold_workspace(&app, &workspace, &reason).await?)?;
            }
            Unhold { workspace } => out.one(&operator::lift_hold(&app, &workspace).await?)?,
            Restore { workspace } => out.one(&operator::restore_workspace(&app, &workspace).await?)?,
        }
        Ok(())
    })
}

/// The limits from the flags of `ward workspace limits`.
fn limits(set: &[String], unset: &[String]) -> Result<Vec<(Quota, Option<i64>)>, String> {
    let named = |name: &str| {
        let names = Quota::ALL.map(Quota::name).join(", ");
        Quota::named(name).ok_or_else(|| format!("there is no quota {name:?}: the names are {names}"))
    };
    let mut limits = Vec::new();
    for given in set {
        let (name, value) =
            given.split_once('=').ok_or_else(|| format!("--set takes NAME=VALUE, not {given:?}"))?;
        let quota = named(name)?;
        let value = value.parse().ok().filter(|value| (0..=quota.greatest()).contains(value));
        let greatest = quota.greatest();
        limits.push((
            quota,
            Some(value.ok_or_else(|| format!("the limit of {name} must be a number from 0 to {greatest}"))?),
        ));
    }
    for name in unset {
        limits.push((named(name)?, None));
    }
    Ok(limits)
}

pub fn key(config: Config, action: KeyAction, out: Output) -> Result<(), Failure> {
    let only_reads = matches!(action, KeyAction::List { .. } | KeyAction::Scan { .. });
    let access = if only_reads { CommandAccess::Read } else { CommandAccess::Write };
    on(config, access, async |app| {
        match action {
            KeyAction::Scan { files } => scan::files(&app, &files, out).await?,
            KeyAction::List { workspace, page } => {
                let listed = operator::list_keys(&app, &workspace, page.after, page.limit).await?;
                let columns =
                    ["key_id", "name", "role", "kind", "entity_id", "expired", "expires_at", "last_used_at"];
                out.page(&listed, &columns)?;
            }
            KeyAction::Issue { workspace, role, name, days } => {
                out.one(&operator::issue_key(&app, &workspace, &role, &name, days).await?)?;
                out.remark("The key is shown only this once; Ward stores only its hash.");
            }
            KeyAction::Revoke { key_id } => out.one(&operator::revoke_key(&app, &key_id).await?)?,
        }
        Ok(())
    })
}

pub fn member(config: Config, action: MemberAction, out: Output) -> Result<(), Failure> {
    let access =
        if matches!(action, MemberAction::List { .. }) { CommandAccess::Read } else { CommandAccess::Write };
    on(config, access, async |app| {
        match action {
            MemberAction::List { workspace, page } => {
                let listed = operator::list_members(&app, &workspace, page.after, page.limit).await?;
                out.page(&listed, &["entity_id", "kind", "display_name", "role", "joined_at"])?;
            }
            MemberAction::Remove { workspace, entity_id } => {
                out.one(&operator::remove_member(&app, &workspace, &entity_id).await?)?;
            }
        }
        Ok(())
    })
}

/// The columns that `ward sync` prints for each integration.
const QUEUE_COLUMNS: [&str; 8] = [
    "name",
    "integration_id",
    "pending",
    "oldest_pending_at",
    "held_deliveries",
    "failed",
    "synced",
    "waits_because",
];

pub fn sync(config: Config, action: SyncAction, out: Output) -> Result<(), Failure> {
    let access = match &action {
        SyncAction::Status { .. } | SyncAction::Reviews { .. } => CommandAccess::Read,
        SyncAction::Amend { .. } | SyncAction::Review { .. } => CommandAccess::Seal,
        _ => CommandAccess::Write,
    };
    on(config, access, async |app| {
        match action {
            SyncAction::Amend { workspace, delivery, changes } => {
                let delivery =
                    delivery.parse().map(DeliveryId).map_err(|_| "the delivery must be given by its id")?;
                let fields = fields_of(changes);
                out.one(&operator::amend_delivery(&app, &workspace, delivery, fields).await?)?;
            }
            SyncAction::Status { workspace: Some(workspace), .. } => {
                out.many(&operator::sync_status(&app, &workspace).await?, &QUEUE_COLUMNS)?;
            }
            SyncAction::Status { workspace: None, limit, after, all: _ } => {
                let page = operator::sync_status_all(&app, after.as_deref(), limit).await?;
                if out.is_json() {
                    out.one(&page)?;
                } else {
                    let mut columns = vec!["workspace"];
                    columns.extend(QUEUE_COLUMNS);
                    columns.push("waits_since");
                    out.many(&page.queues, &columns)?;
                    if let Some(next) = page.next {
                        out.remark(&format!("There are more entries: --after {next} continues."));
                    }
                }
            }
            SyncAction::Reviews { workspace, page } => {
                let listed = operator::list_reviews(&app, &workspace, page.after, page.limit).await?;
                let columns = ["delivery_id", "call_sid", "needs", "because", "candidate_count", "opened_at"];
                out.page(&listed, &columns)?;
            }
            SyncAction::Review { workspace, delivery, id, review } => {
                let delivery =
                    delivery.parse().map(DeliveryId).map_err(|_| "the delivery must be given by its id")?;
                match review.zip(id) {
                    Some(decision) => {
                        out.one(&operator::resolve_review(&app, &workspace, delivery, decision).await?)?;
                    }
                    None => out.one(&operator::show_review(&app, &workspace, delivery).await?)?,
                }
            }
            SyncAction::Drop { workspace, delivery, reason } => {
                let delivery =
                    delivery.parse().map(DeliveryId).map_err(|_| "the delivery must be given by its id")?;
                out.one(&operator::sync_drop(&app, &workspace, delivery, reason).await?)?;
            }
            SyncAction::Retry { workspace, delivery } => {
                let delivery = delivery.map(|id| id.parse().map(DeliveryId)).transpose();
                let delivery = delivery.map_err(|_| "the delivery must be given by its id")?;
                out.one(&operator::sync_retry(&app, &workspace, delivery).await?)?;
            }
            SyncAction::Resolve { workspace, delivery, in_ehr, location, not_in_ehr: _ } => {
                let delivery =
                    delivery.parse().map(DeliveryId).map_err(|_| "the delivery must be given by its id")?;
                let found = if in_ehr { InEhr::Yes { location } } else { InEhr::No };
                out.one(&operator::sync_resolve(&app, &workspace, delivery, found).await?)?;
            }
            SyncAction::Hold { workspace, integration, release } => {
                let queues = operator::sync_hold(&app, &workspace, &integration, !release).await?;
                out.many(&queues, &QUEUE_COLUMNS)?;
            }
        }
        Ok(())
    })
}

/// The given changes of a call, by their names.
fn fields_of(changes: CallChanges) -> Map<String, Value> {
    let CallChanges { patient_id, encounter_id, summary } = changes;
    let given = [("patient_id", patient_id), ("encounter_id", encounter_id), ("summary", summary)];
    given.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::String(text?)))).collect()
}

pub fn calls(config: Config, action: CallsAction, out: Output) -> Result<(), Failure> {
    let access = match action {
        CallsAction::Correct { .. } => CommandAccess::Seal,
        CallsAction::Unfinished { .. } => CommandAccess::Read,
        // Reading patients' calls writes an audit event.
        CallsAction::ProveExclusion { .. } | CallsAction::Backfill { .. } | CallsAction::End { .. } => {
            CommandAccess::Write
        }
    };
    on(config, access, async |app| {
        let (workspace, from, to) = match action {
            CallsAction::ProveExclusion { workspace, from, to } => (workspace, from, to),
            CallsAction::Backfill { workspace, from, to } => {
                return Ok(out.one(&operator::backfill(&app, &workspace, &from, &to).await?)?);
            }
            CallsAction::Correct { workspace, call_sid, changes } => {
                let fields = fields_of(changes);
                return Ok(out.one(&operator::correct_call(&app, &workspace, &call_sid, fields).await?)?);
            }
            CallsAction::Unfinished { limit } => {
                let found = operator::unfinished_calls(&app, limit).await?;
                let columns = ["workspace_id", "call_sid", "status", "direction", "started_at", "updated_at"];
                return Ok(out.many(&found, &columns)?);
            }
            CallsAction::End { workspace, call_sid, status } => {
                return Ok(out.one(&operator::end_call(&app, &workspace, &call_sid, &status).await?)?);
            }
        };
        let proof = operator::prove_exclusion(&app, &workspace, &from, &to).await?;
        if out.is_json() {
            out.one(&proof)?;
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
            out.many(&shown, &columns)?;
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
            let fault = "a test call was not excluded: this is a fault of Ward; please report it";
            return Err(fault.into());
        }
        Ok(())
    })
}

pub fn twilio(config: Config, action: TwilioAction, out: Output) -> Result<(), Failure> {
    // The auth tokens are sealed.
    on(config, CommandAccess::Seal, async |app| {
        let TwilioAction::Reconcile { workspace } = action;
        let compared = operator::reconcile_twilio(&app, workspace.as_deref()).await?;
        let columns = ["workspace", "outcome", "mode", "reconciled_until", "failure"];
        out.many(&compared, &columns)?;
        if !out.is_json() {
            for run in
                compared.iter().filter_map(|one| Some((one.workspace.as_deref()?, one.state.last.as_ref()?)))
            {
                let (workspace, last) = run;
                show::line(&format!(
                    "{workspace}: {} calls, {} missing ({} entered), {} without an end ({} ended)",
                    last.listed, last.missing, last.entered, last.unfinished, last.ended
                ));
            }
        }
        if compared.iter().any(|one| one.outcome == "failed") {
            return Err("a comparison failed; its reason is in the column failure".into());
        }
        Ok(())
    })
}

pub fn migrate(config: &Config, out: Output) -> Result<(), Failure> {
    telemetry::init_logging(config.log, &config.log_filter)?;
    let migrated = App::migrate(config)?;
    if out.is_json() {
        let done = json!({"applied": migrated.applied, "present": migrated.present, "newer": migrated.newer});
        return Ok(out.one(&done)?);
    }
    for step in &migrated.applied {
        show::line(&format!("applied {step}"));
    }
    show::line(&format!("{} applied, {} applied before", migrated.applied.len(), migrated.present));
    if migrated.newer > 0 {
        show::line(&format!("{} further steps belong to a newer Ward", migrated.newer));
    }
    Ok(())
}

pub fn database(config: Config, action: DbAction, out: Output) -> Result<(), Failure> {
    telemetry::init_logging(config.log, &config.log_filter)?;
    let DbAction::Copy { from, to } = action;
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
    out.many(&copied, &["table", "rows", "digest"])?;
    out.remark("Both databases have the same content. Serve the new one with the old one's master key.");
    Ok(())
}

pub fn openapi(config: &Config) -> Result<(), Failure> {
    let contract = contract::load_for(router::RULES, &config.platform)?;
    show::line(String::from_utf8_lossy(contract.document()).trim_end());
    Ok(())
}

pub fn manual(folder: &Path, out: Output) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)?;
    out.remark(&format!("The manual pages are in {}: man {}/ward.1", folder.display(), folder.display()));
    Ok(())
}

/// Runs `work` on the database of `config`, then writes the data that is still in memory.
pub fn on(
    config: Config,
    access: CommandAccess,
    work: impl AsyncFnOnce(Arc<App>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    telemetry::init_logging(config.log, &config.log_filter)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let app = App::open_beside(config, access)?;
    runtime.block_on(async {
        if access == CommandAccess::Seal {
            app.check_master_key().await?;
        }
        let done = work(Arc::clone(&app)).await;
        app.shutdown().await;
        done
    })
}
