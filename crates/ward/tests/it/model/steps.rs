//! The steps of a walk, as data that can be generated, shrunk and printed.
//!
//! A step holds numbers and no ids. `Holder(3)` is the third key that is live at that step, so a script keeps its meaning
//! when steps are removed from it.

use proptest::prelude::*;
use proptest::sample::select;

use super::rules::{PERMISSIONS, ROLES};
use super::trust::may_be_of_a_job;

#[derive(Clone, Copy, Debug)]
pub enum Who {
    Anonymous,
    /// With a well-formed key that does not exist.
    Stray,
    Holder(u8),
    /// With a valid key of a user that has all of an owner's permissions.
    Lead(u8),
    /// With a valid key of a user who was nominated as owner of a workspace.
    Nominee(u8),
    /// With the token of a job of an outside issuer.
    Job(u8),
    /// With a key that was revoked or rotated, that has expired, or that is bound to a public key.
    Former(u8),
}

#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// A workspace that the caller is a member of.
    Own(u8),
    Any(u8),
    Unclaimed(u8),
    /// A workspace with a pending transfer of ownership.
    Pending(u8),
    Nowhere,
}

/// A resource: one of the workspace that the step concerns, or one of any workspace.
#[derive(Clone, Copy, Debug)]
pub enum Thing {
    Here(u8),
    Anywhere(u8),
}

#[derive(Clone, Copy, Debug)]
pub struct Page {
    limit: u8,
    /// Below 100 the start, then a negative token, a token beyond the end, and from 140 a token of an earlier answer.
    pub from: u8,
}

impl Page {
    pub fn limit(self) -> usize {
        usize::from(self.limit)
    }
}

#[derive(Clone, Debug)]
pub struct Report {
    pub sid: Thing,
    pub fresh: bool,
    pub status: &'static str,
    /// Absent, withheld, the number of a test caller if there is one, or another number.
    pub caller: u8,
    pub callee: u8,
    pub direction: Option<&'static str>,
    pub reason: Option<&'static str>,
    pub duration: Option<u8>,
    pub patient: bool,
    pub summary: bool,
}

/// The action of a step. `Wait` moves the clock, back if `hours` is negative. `Sweep` is the periodic sweep, which the server
/// makes every minute.
#[derive(Clone, Debug)]
pub enum Act {
    Wait { hours: i16 },
    Sweep,
    Fixed { which: u8 },
    Bootstrap { slug: u8, org: bool, region: u8 },
    OwnWorkspace { slug: u8, mine: bool },
    ListWorkspaces { page: Page },
    GetWorkspace,
    Patch { name: u8, environment: u8, region: u8, connector: u8 },
    Provision,
    Archive { right: bool },
    TestCallers,
    SetTestCallers { numbers: Vec<u8> },
    AuthInfo,
    Me { page: Page },
    ListKeys { mine: bool, page: Page },
    Claim { days: u8, wrong: bool },
    Mint { role: usize, narrow: Vec<usize>, days: u8, own: bool, named: bool, bound: bool, networks: u8 },
    Rotate { key: Thing, days: u8 },
    Revoke { key: Thing },
    KeyPolicy,
    SetKeyPolicy { ceilings: [Option<u8>; 5] },
    AccessPolicy,
    SetAccessPolicy { networks: u8 },
    SetKeyNetworks { key: Thing, networks: u8 },
    LeakPolicy,
    SetLeakPolicy { quarantine: bool },
    Leak { secret: u8 },
    Surrender { secret: u8 },
    HandOver { key: Thing },
    OpenHandover { handover: u8 },
    ListRules { page: Page },
    CreateRule { repository: u8, strict: bool, role: usize },
    GetRule { rule: Thing },
    DeleteRule { rule: Thing },
    Catalog,
    ListMembers { page: Page },
    SetRole { member: Thing, role: usize },
    RemoveMember { member: Thing },
    Leave,
    Transfer,
    Nominate { member: Thing, days: u8 },
    CancelTransfer,
    AcceptOwnership,
    ListInvitations { page: Page },
    Invite { role: usize, days: u8, email: bool },
    RevokeInvitation { invitation: Thing },
    AcceptInvitation { invitation: u8 },
    ExtendInvitation { invitation: Thing, days: u8 },
    ResendInvitation { invitation: Thing, days: u8 },
    ListOffers,
    AcceptOffer { invitation: u8 },
    ListIntegrations { page: Page, sort: u8, filter: u8 },
    AddIntegration { name: u8, enabled: bool },
    GetIntegration { integration: Thing },
    ChangeIntegration { integration: Thing, display_name: bool, base_url: u8, enabled: Option<bool> },
    DeleteIntegration { integration: Thing },
    Report(Report),
    ListCalls { limit: u8, offset: u8, test: bool, simulated: bool, direction: u8, status: u8 },
    GetCall { call: Thing },
    Twilio,
    SetTwilio { account: u8 },
    DeleteTwilio,
    ListDeliveries { page: Page, state: u8 },
    GetDelivery { delivery: Thing },
    Retry { delivery: Thing },
    Resolve { delivery: Thing, found: bool },
    RetryFailed,
    SyncStatus,
    Hold { integration: Thing, held: bool },
    Audit { limit: u8, offset: u8, filter: u8 },
    AuditSummary,
    Usage,
}

#[derive(Clone, Debug)]
pub struct Step {
    /// Whether it goes to the second server.
    pub replica: bool,
    /// Whether it is sent with an `Idempotency-Key`, and again to the other server.
    pub again: bool,
    /// Whether it comes from another network than most steps.
    pub away: bool,
    pub who: Who,
    pub place: Place,
    pub act: Act,
}

impl Act {
    /// The operation that the step calls; `None` if it only moves time.
    pub fn operation(&self) -> Option<&'static str> {
        Some(match self {
            Self::Wait { .. } | Self::Sweep => return None,
            Self::Fixed { which } => {
                ["get-health", "get-readiness", "get-openapi-document", "get-docs"][usize::from(which % 4)]
            }
            Self::Bootstrap { .. } => "create-workspace",
            Self::OwnWorkspace { mine: false, .. } => "create-self-service-workspace",
            Self::OwnWorkspace { mine: true, .. } => "create-my-workspace",
            Self::ListWorkspaces { .. } => "list-workspaces",
            Self::GetWorkspace => "get-workspace",
            Self::Patch { .. } => "update-workspace",
            Self::Provision => "provision-workspace",
            Self::Archive { .. } => "archive-workspace",
            Self::KeyPolicy => "get-key-policy",
            Self::SetKeyPolicy { .. } => "set-key-policy",
            Self::AccessPolicy => "get-access-policy",
            Self::SetAccessPolicy { .. } => "set-access-policy",
            Self::SetKeyNetworks { .. } => "set-api-key-networks",
            Self::LeakPolicy => "get-leaked-key-policy",
            Self::SetLeakPolicy { .. } => "set-leaked-key-policy",
            Self::Leak { .. } => "report-leaked-keys",
            Self::Surrender { .. } => "revoke-presented-api-key",
            Self::HandOver { .. } => "create-handover",
            Self::OpenHandover { .. } => "open-handover",
            Self::ListRules { .. } => "list-trust-rules",
            Self::CreateRule { .. } => "create-trust-rule",
            Self::GetRule { .. } => "get-trust-rule",
            Self::DeleteRule { .. } => "delete-trust-rule",
            Self::TestCallers => "get-test-caller-numbers",
            Self::SetTestCallers { .. } => "update-test-caller-numbers",
            Self::AuthInfo => "get-auth-info",
            Self::Me { .. } => "get-me",
            Self::ListKeys { .. } => "list-api-keys",
            Self::Claim { .. } | Self::Mint { .. } => "create-api-key",
            Self::Rotate { .. } => "rotate-api-key",
            Self::Revoke { .. } => "delete-api-key",
            Self::Catalog => "get-permission-catalog",
            Self::ListMembers { .. } => "list-members",
            Self::SetRole { .. } => "set-member-role",
            Self::RemoveMember { .. } => "remove-member",
            Self::Leave => "leave-workspace",
            Self::Transfer => "get-ownership-transfer",
            Self::Nominate { .. } => "nominate-owner",
            Self::CancelTransfer => "cancel-ownership-transfer",
            Self::AcceptOwnership => "accept-ownership",
            Self::ListInvitations { .. } => "list-invitations",
            Self::Invite { .. } => "create-invitation",
            Self::RevokeInvitation { .. } => "revoke-invitation",
            Self::AcceptInvitation { .. } => "accept-invitation",
            Self::ExtendInvitation { .. } => "extend-invitation",
            Self::ResendInvitation { .. } => "resend-invitation",
            Self::ListOffers => "list-my-invitations",
            Self::AcceptOffer { .. } => "accept-my-invitation",
            Self::ListIntegrations { .. } => "list-integrations",
            Self::AddIntegration { .. } => "create-integration",
            Self::GetIntegration { .. } => "get-integration",
            Self::ChangeIntegration { .. } => "update-integration",
            Self::DeleteIntegration { .. } => "delete-integration",
            Self::Report(_) => "report-call",
            Self::ListCalls { .. } => "list-calls",
            Self::GetCall { .. } => "get-call",
            Self::Twilio => "get-twilio",
            Self::SetTwilio { .. } => "set-twilio",
            Self::DeleteTwilio => "delete-twilio",
            Self::ListDeliveries { .. } => "list-deliveries",
            Self::GetDelivery { .. } => "get-delivery",
            Self::Retry { .. } => "retry-delivery",
            Self::Resolve { .. } => "resolve-delivery",
            Self::RetryFailed => "retry-failed-deliveries",
            Self::SyncStatus => "get-sync-status",
            Self::Hold { .. } => "hold-integration",
            Self::Audit { .. } => "list-audit-events",
            Self::AuditSummary => "get-audit-summary",
            Self::Usage => "get-usage",
        })
    }

    /// Whether the operation only reads, by the name that the document gives it.
    pub fn reads(&self) -> bool {
        self.operation().is_some_and(|it| it.starts_with("get-") || it.starts_with("list-"))
    }

    /// Whether the operation takes no credential.
    pub fn is_open(&self) -> bool {
        matches!(
            self,
            Self::Fixed { .. }
                | Self::Bootstrap { .. }
                | Self::Claim { .. }
                | Self::Leak { .. }
                | Self::Surrender { .. }
                | Self::OpenHandover { .. }
        )
    }

    /// Whether a repeat with the same `Idempotency-Key` gets the same answer. After an archive, the caller has no access.
    pub fn repeats(&self) -> bool {
        matches!(
            self,
            Self::Bootstrap { .. }
                | Self::OwnWorkspace { .. }
                | Self::Provision
                | Self::Claim { .. }
                | Self::Mint { .. }
                | Self::Rotate { .. }
                | Self::HandOver { .. }
                | Self::CreateRule { .. }
                | Self::Nominate { .. }
                | Self::AcceptOwnership
                | Self::Invite { .. }
                | Self::AcceptInvitation { .. }
                | Self::ResendInvitation { .. }
                | Self::AcceptOffer { .. }
                | Self::AddIntegration { .. }
                | Self::Retry { .. }
                | Self::Resolve { .. }
                | Self::RetryFailed
        )
    }
}

/// Operations that no step calls, with the reasons.
pub const LEFT_OUT: [(&str, &str); 38] = [
    ("authorize", "answers with the gate's decision alone: `other_services`"),
    ("explain-access", "reads only: `explain` compares it with every operation"),
    ("get-test-credential-ids", "its writes are left out: `environments` tests it"),
    ("update-test-credential-ids", "would make most of the walk's calls tests: `environments`"),
    ("check-environment-conversion", "depends on deliveries and integrations: `environments`"),
    ("convert-workspace-environment", "is decided by that check: `environments`"),
    ("rename-workspace", "the walk names workspaces by the slugs of their creation: `slugs`"),
    ("list-former-slugs", "its writes are left out: the same"),
    ("get-workspace-by-slug", "is `get-workspace` under another name: the same"),
    ("list-archived-workspaces", "its restorations are left out: `archives`"),
    ("restore-archived-workspace", "the walk tests an archive as the end of a workspace: the same"),
    ("test-integration-connection", "calls outside systems: `environments` has one"),
    ("list-integration-keys", "its keys are random: `integration_keys`"),
    ("create-integration-key", "the same"),
    ("activate-integration-key", "the same"),
    ("delete-integration-key", "the same"),
    ("get-integration-jwks", "the same"),
    ("integration-health-check", "calls outside systems: `outbound` has a scripted one"),
    ("test-integration-endpoint", "the same"),
    ("finish-api-key-rotation", "ends what only a rotation with an overlap leaves: `overlap`"),
    ("get-handover-page", "the same page for every caller: `handover`"),
    ("get-phi-access-report", "is the audit's list with a filter: `reports_of_access`"),
    ("get-entity-access-log", "the same"),
    ("get-access-review", "shows what the list of keys shows: `reports_of_access`"),
    ("create-audit-export", "starts work of a worker, which does not run in a walk: `exports`"),
    ("list-audit-exports", "the same"),
    ("download-audit-export", "the same"),
    ("backfill-deliveries", "depends on earlier connectors of the workspace: `backfill` tests it"),
    ("drop-delivery", "its effects show in deliveries, which no worker sends in a walk: `mending` tests it"),
    ("correct-call", "the same"),
    ("preview-delivery", "shows what only a worker sends: `previews` tests it"),
    ("amend-delivery", "amends what only a worker delivers: `amending` tests it"),
    ("list-reviews", "lists what only a worker holds: `reviews` tests it"),
    ("get-review", "the same"),
    ("resolve-review", "the same"),
    (
        "get-twilio-reconciliation",
        "shows the work of a worker, which does not run in a walk: `reconciling` tests it",
    ),
    ("reconcile-twilio", "the same"),
    (
        "receive-twilio-status",
        "is signed by a telephone provider, not called by a tenant: `calls` and `exclusion`",
    ),
];

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        12 => any::<u8>().prop_map(Who::Holder),
        12 => any::<u8>().prop_map(Who::Lead),
        1 => Just(Who::Anonymous),
        1 => Just(Who::Stray),
        1 => any::<u8>().prop_map(Who::Former),
        2 => any::<u8>().prop_map(Who::Job),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        16 => any::<u8>().prop_map(Place::Own),
        2 => any::<u8>().prop_map(Place::Any),
        1 => Just(Place::Nowhere),
    ]
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![9 => any::<u8>().prop_map(Thing::Here), 1 => any::<u8>().prop_map(Thing::Anywhere)]
}

fn page() -> impl Strategy<Value = Page> {
    (prop_oneof![3 => 1..=3_u8, 1 => 4..=20_u8], any::<u8>()).prop_map(|(limit, from)| Page { limit, from })
}

fn role() -> impl Strategy<Value = usize> {
    0..ROLES.len()
}

/// Mostly an empty list, which stands for the whole role.
fn narrow() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(0..PERMISSIONS.len(), 1..4)]
}

fn days() -> impl Strategy<Value = u8> {
    prop_oneof![4 => 20..=30_u8, 1 => 1..=3_u8]
}

fn report() -> impl Strategy<Value = Report> {
    let statuses = [
        "queued",
        "ringing",
        "in-progress",
        "wrapping-up",
        "completed",
        "completed",
        "completed",
        "no-answer",
        "busy",
    ];
    let directions = [
        None,
        Some("inbound"),
        Some("inbound"),
        Some("inbound"),
        Some("outbound"),
        Some("playground"),
        Some("simulated"),
    ];
    let reasons =
        [None, None, Some("completed"), Some("voicemail"), Some("no_answer"), Some("handed to a robot")];
    // A few values are invalid, so that some reports have two invalid fields.
    let callee = prop_oneof![3 => 0..20_u8, 1 => 40..50_u8, 3 => 90..150_u8, 3 => any::<u8>()];
    (
        (thing(), any::<bool>(), select(statuses.to_vec()), any::<u8>()),
        (callee, select(directions.to_vec()), select(reasons.to_vec())),
        (prop::option::of(0..=240_u8), any::<bool>(), any::<bool>()),
    )
        .prop_map(
            |((sid, fresh, status, caller), (callee, direction, reason), (duration, patient, summary))| {
                Report { sid, fresh, status, caller, callee, direction, reason, duration, patient, summary }
            },
        )
}

fn tenancy() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => (0..12_u8, any::<bool>(), 0..5_u8).prop_map(|(slug, org, region)| Act::Bootstrap { slug, org, region }),
        1 => (0..12_u8, any::<bool>()).prop_map(|(slug, mine)| Act::OwnWorkspace { slug, mine }),
        3 => page().prop_map(|page| Act::ListWorkspaces { page }),
        2 => Just(Act::GetWorkspace),
        3 => (0..5_u8, 0..5_u8, 0..5_u8, 0..8_u8)
            .prop_map(|(name, environment, region, connector)| Act::Patch { name, environment, region, connector }),
        3 => Just(Act::Provision),
        1 => prop::bool::weighted(0.5).prop_map(|right| Act::Archive { right }),
        1 => Just(Act::TestCallers),
        2 => prop::collection::vec(any::<u8>(), 0..5).prop_map(|numbers| Act::SetTestCallers { numbers }),
        1 => (0..4_u8).prop_map(|which| Act::Fixed { which }),
    ]
}

fn keys() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => Just(Act::AuthInfo),
        2 => page().prop_map(|page| Act::Me { page }),
        4 => (any::<bool>(), page()).prop_map(|(mine, page)| Act::ListKeys { mine, page }),
        4 => (days(), prop::bool::weighted(0.1)).prop_map(|(days, wrong)| Act::Claim { days, wrong }),
        8 => (role(), narrow(), days(), any::<(bool, bool)>(), prop::bool::weighted(0.1), mostly_no_networks())
            .prop_map(|(role, narrow, days, (own, named), bound, networks)| Act::Mint {
                role, narrow, days, own, named, bound, networks
            }),
        3 => (thing(), days()).prop_map(|(key, days)| Act::Rotate { key, days }),
        1 => thing().prop_map(|key| Act::Revoke { key }),
        1 => Just(Act::Catalog),
    ]
}

/// Generates a step about the rules that protect credentials.
fn protection() -> impl Strategy<Value = Act> {
    let days = prop_oneof![2 => Just(None), 1 => (2..=90_u8).prop_map(Some)];
    prop_oneof![
        2 => Just(Act::KeyPolicy),
        1 => prop::array::uniform5(days).prop_map(|ceilings| Act::SetKeyPolicy { ceilings }),
        1 => Just(Act::AccessPolicy),
        2 => networks().prop_map(|networks| Act::SetAccessPolicy { networks }),
        2 => (thing(), networks()).prop_map(|(key, networks)| Act::SetKeyNetworks { key, networks }),
        1 => Just(Act::LeakPolicy),
        2 => any::<bool>().prop_map(|quarantine| Act::SetLeakPolicy { quarantine }),
        1 => any::<u8>().prop_map(|secret| Act::Leak { secret }),
        1 => any::<u8>().prop_map(|secret| Act::Surrender { secret }),
        2 => thing().prop_map(|key| Act::HandOver { key }),
        3 => any::<u8>().prop_map(|handover| Act::OpenHandover { handover }),
        1 => page().prop_map(|page| Act::ListRules { page }),
        3 => (any::<u8>(), any::<bool>(), 0..4_usize)
            .prop_map(|(repository, strict, role)| Act::CreateRule { repository, strict, role }),
        1 => thing().prop_map(|rule| Act::GetRule { rule }),
        2 => thing().prop_map(|rule| Act::DeleteRule { rule }),
    ]
}

fn networks() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(0_u8), 2 => Just(1), 1 => Just(2), 3 => Just(3)]
}

fn mostly_no_networks() -> impl Strategy<Value = u8> {
    prop_oneof![9 => Just(0_u8), 1 => networks()]
}

fn people() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => page().prop_map(|page| Act::ListMembers { page }),
        3 => (thing(), role()).prop_map(|(member, role)| Act::SetRole { member, role }),
        1 => thing().prop_map(|member| Act::RemoveMember { member }),
        1 => Just(Act::Leave),
        1 => Just(Act::Transfer),
        3 => (thing(), days()).prop_map(|(member, days)| Act::Nominate { member, days }),
        1 => Just(Act::CancelTransfer),
        2 => Just(Act::AcceptOwnership),
        4 => page().prop_map(|page| Act::ListInvitations { page }),
        5 => (role(), days(), prop::bool::weighted(0.3))
            .prop_map(|(role, days, email)| Act::Invite { role, days, email }),
        1 => thing().prop_map(|invitation| Act::RevokeInvitation { invitation }),
        5 => any::<u8>().prop_map(|invitation| Act::AcceptInvitation { invitation }),
        2 => (thing(), days()).prop_map(|(invitation, days)| Act::ExtendInvitation { invitation, days }),
        2 => (thing(), days()).prop_map(|(invitation, days)| Act::ResendInvitation { invitation, days }),
        2 => Just(Act::ListOffers),
        2 => any::<u8>().prop_map(|invitation| Act::AcceptOffer { invitation }),
    ]
}

fn integrations() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (page(), 0..6_u8, 0..6_u8).prop_map(|(page, sort, filter)| Act::ListIntegrations { page, sort, filter }),
        3 => (0..8_u8, any::<bool>()).prop_map(|(name, enabled)| Act::AddIntegration { name, enabled }),
        1 => thing().prop_map(|integration| Act::GetIntegration { integration }),
        3 => (thing(), any::<bool>(), 0..4_u8, any::<Option<bool>>()).prop_map(
            |(integration, display_name, base_url, enabled)| Act::ChangeIntegration {
                integration, display_name, base_url, enabled
            }
        ),
        1 => thing().prop_map(|integration| Act::DeleteIntegration { integration }),
        1 => Just(Act::Twilio),
        1 => any::<u8>().prop_map(|account| Act::SetTwilio { account }),
        1 => Just(Act::DeleteTwilio),
        1 => Just(Act::SyncStatus),
        1 => (thing(), any::<bool>()).prop_map(|(integration, held)| Act::Hold { integration, held }),
    ]
}

fn calls() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => report().prop_map(Act::Report),
        3 => (1..6_u8, 0..3_u8, any::<bool>(), any::<bool>(), 0..12_u8, 0..8_u8).prop_map(
            |(limit, offset, test, simulated, direction, status)| Act::ListCalls {
                limit, offset, test, simulated, direction, status
            }
        ),
        2 => thing().prop_map(|call| Act::GetCall { call }),
        2 => (page(), 0..9_u8).prop_map(|(page, state)| Act::ListDeliveries { page, state }),
        1 => thing().prop_map(|delivery| Act::GetDelivery { delivery }),
        1 => thing().prop_map(|delivery| Act::Retry { delivery }),
        1 => (thing(), any::<bool>()).prop_map(|(delivery, found)| Act::Resolve { delivery, found }),
        1 => Just(Act::RetryFailed),
        2 => (1..20_u8, 0..9_u8, 0..5_u8).prop_map(|(limit, offset, filter)| Act::Audit { limit, offset, filter }),
        1 => Just(Act::AuditSummary),
        2 => Just(Act::Usage),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => tenancy(),
        5 => keys(),
        3 => protection(),
        5 => people(),
        4 => integrations(),
        6 => calls(),
        1 => prop_oneof![4 => 1..30_i16, 1 => 48..100_i16, 1 => -2..0_i16].prop_map(|hours| Act::Wait { hours }),
        1 => Just(Act::Sweep),
    ]
}

/// Generates one step of a walk.
pub fn step() -> impl Strategy<Value = Step> {
    let away = prop::bool::weighted(0.1);
    (any::<(bool, bool)>(), away, who(), place(), act()).prop_map(
        |((replica, again), away, who, place, act)| {
            let who = match who {
                Who::Job(number) if !may_be_of_a_job(who, act.operation()) => Who::Holder(number),
                who => who,
            };
            // A claim is made without a key, and mostly on an unclaimed workspace.
            let (who, place) = match (&act, place) {
                (Act::Claim { .. }, Place::Own(number)) => (Who::Anonymous, Place::Unclaimed(number)),
                (Act::Claim { .. }, place) => (Who::Anonymous, place),
                (Act::Leak { .. } | Act::Surrender { .. } | Act::OpenHandover { .. }, place) => {
                    (Who::Anonymous, place)
                }
                (Act::AcceptOwnership | Act::CancelTransfer, Place::Own(number)) if number % 4 > 0 => {
                    (if number % 4 == 1 { who } else { Who::Nominee(number / 4) }, Place::Pending(number / 4))
                }
                // Minting without a key would be a claim.
                (Act::Mint { .. }, place) if matches!(who, Who::Anonymous) => (Who::Stray, place),
                (_, place) => (who, place),
            };
            Step { replica, again, away, who, place, act }
        },
    )
}
