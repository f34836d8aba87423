//! Runs a walk: sends each step to one of two servers on one database, and compares the answer with the rules.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use serde_json::{Value, json};
use ward_test::{Answer, Scanner, Sending, Server, TestIssuer, unknown_key};

use super::integrations::{self, account};
use super::keys::Mint;
use super::protection::AWAY;
use super::rules::{Good, No, Outcome, ROLES, Request};
use super::steps::{Act, Step, Who};
use super::world::{
    State, World, call_id, credential_id, delivery_id, entity_id, integration_id, key_id, micros,
    workspace_id,
};
use super::{calls, keys, people, protection, quotas, tenancy, trust};
use crate::outbound::open_outbound;
use crate::trust_rules::{github, sign, with};

const HOUR: i64 = 3_600_000_000;
/// The scanner that reports leaked keys.
const SCANNER: &str = "the-walks-scanner";

/// The number of steps until a walk failed, and the script of these steps.
pub struct Failure {
    pub steps: usize,
    pub script: String,
}

/// The number of answers by operation and status.
pub type Tally = BTreeMap<&'static str, BTreeMap<u16, usize>>;

pub struct Walk {
    servers: [Server; 2],
    issuer: TestIssuer,
    /// The issuer of the tokens of jobs, whose keys each server fetches.
    outside: TestIssuer,
    scanner: Scanner,
    world: World,
    script: Vec<String>,
    pub tally: Tally,
}

/// The request of a step, and its expected outcome.
fn plan(world: &World, step: &Step) -> (Request, Outcome) {
    match &step.act {
        Act::Wait { .. } | Act::Sweep => unreachable!("sends nothing"),
        Act::Fixed { which } => {
            let path = ["/healthz", "/readyz", "/v1/openapi.json", "/v1/docs"][usize::from(which % 4)];
            let body = [json!({ "status": "ok" }), json!({ "status": "ready" }), json!("*"), json!("*")];
            let request = Request { method: reqwest::Method::GET, path: path.to_owned(), body: None };
            (request, Ok(Good::ok(body[usize::from(which % 4)].clone())))
        }
        Act::Bootstrap { slug, org, region } => tenancy::bootstrap(world, *slug, *org, *region),
        Act::OwnWorkspace { slug, mine } => tenancy::own(world, step, *slug, *mine),
        Act::ListWorkspaces { page } => tenancy::list(world, step, *page),
        Act::GetWorkspace => tenancy::one(world, step),
        Act::Patch { name, environment, region, connector } => {
            tenancy::patch(world, step, (*name, *environment, *region, *connector))
        }
        Act::Provision => tenancy::provision(world, step),
        Act::Archive { right } => tenancy::archive(world, step, *right),
        Act::TestCallers => tenancy::test_callers(world, step),
        Act::SetTestCallers { numbers } => tenancy::set_test_callers(world, step, numbers),
        Act::AuthInfo => keys::auth_info(world, step),
        Act::Me { page } => tenancy::me(world, step, *page),
        Act::ListKeys { mine, page } => keys::list(world, step, *mine, *page),
        Act::Claim { days, wrong } => keys::claim(world, step, *days, *wrong),
        Act::Mint { role, narrow, days, own, named, bound, networks } => {
            let (role, days, own, named) = (*role, *days, *own, *named);
            let (bound, networks) = (*bound, *networks);
            keys::mint(world, step, Mint { role, narrow, days, own, named, bound, networks })
        }
        Act::Rotate { key, days } => keys::rotate(world, step, *key, *days),
        Act::Revoke { key } => keys::revoke(world, step, *key),
        Act::Catalog => keys::catalog(world, step),
        Act::KeyPolicy => protection::key_policy(world, step),
        Act::SetKeyPolicy { ceilings } => protection::set_key_policy(world, step, *ceilings),
        Act::AccessPolicy => protection::access_policy(world, step),
        Act::SetAccessPolicy { networks } => protection::set_access_policy(world, step, *networks),
        Act::SetKeyNetworks { key, networks } => protection::set_key_networks(world, step, *key, *networks),
        Act::LeakPolicy => protection::leak_policy(world, step),
        Act::SetLeakPolicy { quarantine } => protection::set_leak_policy(world, step, *quarantine),
        Act::Leak { secret } => protection::leak(world, *secret),
        Act::Surrender { secret } => protection::surrender(world, *secret),
        Act::HandOver { key } => protection::hand_over(world, step, *key),
        Act::OpenHandover { handover } => protection::open(world, *handover),
        Act::ListRules { page } => trust::list(world, step, *page),
        Act::CreateRule { repository, strict, role } => {
            trust::create(world, step, *repository, *strict, *role)
        }
        Act::GetRule { rule } => trust::one(world, step, *rule),
        Act::DeleteRule { rule } => trust::delete(world, step, *rule),
        Act::ListMembers { page } => people::list(world, step, *page),
        Act::SetRole { member, role } => people::set_role(world, step, *member, *role),
        Act::RemoveMember { member } => people::remove(world, step, *member),
        Act::Leave => people::leave(world, step),
        Act::Transfer => people::transfer(world, step),
        Act::Nominate { member, days } => people::nominate(world, step, *member, *days),
        Act::CancelTransfer => people::cancel_transfer(world, step),
        Act::AcceptOwnership => people::accept_ownership(world, step),
        Act::ListInvitations { page } => people::invitations(world, step, *page),
        Act::Invite { role, days, email } => people::invite(world, step, *role, *days, *email),
        Act::RevokeInvitation { invitation } => people::revoke(world, step, *invitation),
        Act::AcceptInvitation { invitation } => people::accept(world, step, *invitation),
        Act::ExtendInvitation { invitation, days } => people::extend(world, step, *invitation, *days),
        Act::ResendInvitation { invitation, days } => people::resend(world, step, *invitation, *days),
        Act::ListOffers => people::offers(world, step),
        Act::AcceptOffer { invitation } => people::accept_offer(world, step, *invitation),
        Act::ListIntegrations { page, sort, filter } => {
            integrations::list(world, step, *page, *sort, *filter)
        }
        Act::AddIntegration { name, enabled } => integrations::add(world, step, *name, *enabled),
        Act::GetIntegration { integration } => integrations::one(world, step, *integration),
        Act::ChangeIntegration { integration, display_name, base_url, enabled } => {
            let (display_name, base_url, enabled) = (*display_name, *base_url, *enabled);
            let change = integrations::Change { display_name, base_url, enabled };
            integrations::change(world, step, *integration, change)
        }
        Act::DeleteIntegration { integration } => integrations::delete(world, step, *integration),
        Act::Report(report) => calls::report(world, step, report),
        Act::ListCalls { limit, offset, test, simulated, direction, status } => {
            let (limit, offset, test, simulated) = (*limit, *offset, *test, *simulated);
            let (direction, status) = (*direction, *status);
            calls::list(world, step, calls::CallQuery { limit, offset, test, simulated, direction, status })
        }
        Act::GetCall { call } => calls::one(world, step, *call),
        Act::Twilio => integrations::twilio(world, step),
        Act::SetTwilio { account } => integrations::set_twilio(world, step, *account),
        Act::DeleteTwilio => integrations::delete_twilio(world, step),
        Act::ListDeliveries { page, state } => calls::deliveries(world, step, *page, *state),
        Act::GetDelivery { delivery } => calls::delivery(world, step, *delivery),
        Act::Retry { delivery } => calls::retry(world, step, *delivery),
        Act::Resolve { delivery, found } => calls::resolve(world, step, *delivery, *found),
        Act::RetryFailed => calls::retry_failed(world, step),
        Act::SyncStatus => integrations::sync_status(world, step),
        Act::Hold { integration, held } => integrations::hold(world, step, *integration, *held),
        Act::Audit { limit, offset, filter } => calls::audit(world, step, *limit, *offset, *filter),
        Act::AuditSummary => calls::audit_summary(world, step),
        Act::Usage => quotas::usage(world, step),
    }
}

impl Walk {
    pub async fn new() -> Self {
        let scanner = Scanner::new(SCANNER);
        let (server, issuer) = Server::with_issuer_and(|config| {
            quotas::set(config);
            open_outbound(config);
            config.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
            config.leak_report_keys = vec![scanner.key()];
        })
        .await;
        let replica = server.replica().await;
        let stray = unknown_key();
        let mut outside = TestIssuer::start().await;
        outside.follow(&server.clock);
        let world = World { stray, outside_issuer: outside.url().to_owned(), ..World::default() };
        Self {
            servers: [server, replica],
            issuer,
            outside,
            scanner,
            world,
            script: vec![],
            tally: Tally::new(),
        }
    }

    /// Runs the steps, one after the other.
    pub async fn take(&mut self, steps: &[Step]) -> Result<(), Failure> {
        for (number, step) in steps.iter().enumerate() {
            if let Err(why) = self.step(step).await {
                let mut script = self.script.join("\n");
                let _ =
                    write!(script, "\n    WRONG: {}\n    the step: {step:?}", self.world.known.tell(&why));
                return Err(Failure { steps: number + 1, script });
            }
        }
        Ok(())
    }

    /// The script so far, for a step that panicked.
    pub fn script(&self) -> String {
        self.script.join("\n")
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step.act {
            Act::Wait { hours } => {
                self.script.push(format!("{:>3}. the clock moves {hours} hours", self.script.len() + 1));
                self.world.hours += i64::from(hours);
                let by = std::time::Duration::from_hours(hours.unsigned_abs().into());
                let clock = &self.servers[0].clock;
                if hours < 0 {
                    clock.set_back(by);
                } else {
                    clock.advance(by);
                }
                Ok(())
            }
            Act::Sweep => {
                self.script.push(format!("{:>3}. the server sweeps", self.script.len() + 1));
                self.servers[usize::from(step.replica)].app.sweep().await;
                self.swept();
                Ok(())
            }
            _ => self.call(step).await,
        }
    }

    /// Lapses the unclaimed workspaces that are due, settles the invitations that are over, and warns about keys.
    fn swept(&mut self) {
        let World { hours, workspaces, invitations, slugs, .. } = &mut self.world;
        for (at, it) in workspaces.iter_mut().enumerate() {
            if it.state == State::Unclaimed && it.lapses <= *hours {
                it.state = State::Lapsed;
                if slugs.get(&it.slug) == Some(&at) {
                    slugs.remove(&it.slug);
                }
            }
        }
        for it in invitations.iter_mut().filter(|it| it.ends <= *hours) {
            it.settled = true;
        }
        for at in 0..self.world.keys.len() {
            self.warn(at);
        }
    }

    /// Warns about a key before it expires. A clock that was moved back by hours makes some warnings due again.
    fn warn(&mut self, at: usize) {
        let key = &mut self.world.keys[at];
        if key.revoked || key.token.is_some() || key.expires <= self.world.hours {
            return;
        }
        let left = key.expires - self.world.hours;
        let (passed, warned, workspace) = (keys::warnings(left), key.warned, key.workspace);
        if passed > warned || warned > 0 && left >= keys::WARNED_AT[warned - 1] + 2 {
            key.warned = passed;
        }
        if passed > warned && self.world.workspaces[workspace].state == State::Active {
            let what = ("api_keys", "api_key.expires_soon", "api_key");
            self.world.note(workspace, None, what, Some(credential_id(at)));
        }
    }

    async fn call(&mut self, step: &Step) -> Result<(), String> {
        self.world.day = self.servers[0].clock.now().micros().div_euclid(24 * HOUR);
        let (request, outcome) = plan(&self.world, step);
        let (held, bearer) = self.world.presented(step.who);
        let token = held.and_then(|at| self.world.keys[self.world.secrets[at].key].token);
        let bearer = token.map_or(bearer, |name| Some(self.token(name)));
        // A claim is always anonymous, whatever the step says about its caller.
        let bearer = bearer.filter(|_| !matches!(step.act, Act::Claim { .. }));
        let known = self.may_know(step);
        self.note_use(step);
        let server = &self.servers[usize::from(step.replica)];
        self.script.push(self.tell(self.script.len() + 1, step, &request));
        let actor = match &bearer {
            Some(key) => server.bearing(key),
            None => server.anonymous(),
        };
        let once = format!("the-once-of-step-{:08}", self.world.requests);
        let again = step.again && step.act.repeats();
        let signature = request.body.as_ref().map(|body| self.scanner.sign(body.to_string().as_bytes()));
        let mut headers = vec![];
        if again {
            headers.push(("idempotency-key", once.as_str()));
        }
        if step.away {
            headers.push(("x-forwarded-for", AWAY));
        }
        if let (Act::Leak { .. }, Some(signature)) = (&step.act, &signature) {
            headers.push(("github-public-key-identifier", SCANNER));
            headers.push(("github-public-key-signature", signature.as_str()));
        }
        let headers = &headers[..];
        let sending = || Sending { headers, ..request.body.as_ref().map(Sending::json).unwrap_or_default() };
        let before = server.clock.now().micros();
        let answer = actor.send(request.method.clone(), &request.path, sending()).await;
        let moment = (before, server.clock.now().micros());
        let status = answer.status.as_u16();
        if let Some(operation) = step.act.operation() {
            *self.tally.entry(operation).or_default().entry(status).or_default() += 1;
        }
        let _ = write!(self.script.last_mut().expect("this step"), " -> {status}");
        if again && answer.status.is_success() {
            let other = &self.servers[usize::from(!step.replica)];
            let actor = bearer.as_ref().map_or_else(|| other.anonymous(), |key| other.bearing(key));
            let repeated = actor.send(request.method.clone(), &request.path, sending()).await;
            if let Ok(caller) = self.world.caller(step) {
                self.world.keys[caller.key].used[usize::from(!step.replica)] |= !step.act.is_open();
            }
            if (repeated.status, &repeated.text) != (answer.status, &answer.text) {
                return Err(format!(
                    "a replay got another answer: {} {}\n    first: {}",
                    repeated.status, repeated.text, answer.text
                ));
            }
        }
        let mut shows = vec![];
        match outcome {
            Err(no) => refused(&no, &answer)?,
            Ok(mut good) => {
                shows.append(&mut good.shows);
                self.accept(good, &answer, moment)?;
            }
        }
        self.world.requests += 1;
        self.isolated(step, &request, &answer, &[known, shows, self.may_know(step)].concat())
    }

    /// Compares a successful answer with the expected one, and applies its consequences to the model.
    fn accept(&mut self, good: Good, answer: &Answer, (before, after): (i64, i64)) -> Result<(), String> {
        let told = |what: String| format!("{what}\n    answer: {} {}", answer.status, answer.text);
        if answer.status.as_u16() != good.status {
            let wanted = good.body.map(|body| body.to_string()).unwrap_or_default();
            return Err(told(format!("{} was expected: {wanted}", good.status)));
        }
        let known = &mut self.world.known;
        match &good.body {
            None if answer.text.is_empty() => {}
            None => return Err(told("no body was expected".to_owned())),
            Some(wanted) => {
                let body = serde_json::from_str(&answer.text);
                let body = body.unwrap_or_else(|_| Value::String(answer.text.clone()));
                let mut fitted = known.clone();
                fitted
                    .fit(wanted, &body, "body")
                    .map_err(|why| told(format!("{why}\n    expected: {wanted}")))?;
                *known = fitted;
            }
        }
        let at = |symbol: &str| known.text(symbol).and_then(micros);
        for (symbol, hours) in &good.near {
            let moment = before + hours * HOUR..=after + hours * HOUR;
            if at(symbol).is_some_and(|at| !moment.contains(&at)) {
                return Err(told(format!("{symbol} is not {hours} hours from now")));
            }
        }
        for (later, earlier) in &good.grows {
            if at(later).zip(at(earlier)).is_some_and(|(later, earlier)| later <= earlier) {
                return Err(told(format!("{later} is not after {earlier}")));
            }
        }
        let places: Vec<i64> = good.places.iter().filter_map(|symbol| known.number(symbol)).collect();
        if !places.is_sorted_by(|a, b| a < b) {
            return Err(told(format!("places of a list that do not grow: {places:?}")));
        }
        for then in good.then {
            then(&mut self.world);
        }
        Ok(())
    }

    /// Notes on which servers a valid key of this step is used.
    fn note_use(&mut self, step: &Step) {
        if step.act.is_open() {
            return;
        }
        let Ok(caller) = self.world.caller(step) else { return };
        let used = &mut self.world.keys[caller.key].used;
        used[usize::from(step.replica)] = true;
    }

    /// A token of the person of this name, valid for some minutes.
    fn token(&self, name: &str) -> String {
        if trust::REPOSITORIES.contains(&name) {
            let claims = with(&github(&self.outside), json!({ "repository_id": name }));
            return sign(&self.outside, Some("JWT"), &claims);
        }
        let email = json!({ "email": format!("{name}@clinic.example"), "email_verified": true });
        self.issuer.token_with(name, &email)
    }

    /// Adds two people who sign in at an identity provider.
    pub fn meet(&mut self) {
        self.world.meet("dana");
        self.world.meet("eve");
        trust::meet_jobs(&mut self.world);
    }

    /// The workspaces of which the caller of this step is a member, in any state.
    fn may_know(&self, step: &Step) -> Vec<usize> {
        let (Some(at), _) = self.world.presented(step.who) else { return vec![] };
        let key = &self.world.keys[self.world.secrets[at].key];
        if let Some(repository) = trust::repository(key) {
            return trust::workspaces_of(&self.world, repository);
        }
        let who = key.principal;
        let ours = self.world.members.iter().filter(|it| it.who == who && !it.gone);
        ours.map(|it| it.workspace).collect()
    }

    /// Fails if an answer holds a text that belongs only to other workspaces, unless the request held it.
    fn isolated(
        &self,
        step: &Step,
        request: &Request,
        answer: &Answer,
        may_know: &[usize],
    ) -> Result<(), String> {
        let sent = format!("{} {}", request.path, request.body.as_ref().unwrap_or(&Value::Null));
        let told = format!("{:?}\n{}", answer.headers, answer.text);
        for (text, of) in self.belongings() {
            if !of.iter().any(|at| may_know.contains(at)) && told.contains(&text) && !sent.contains(&text) {
                let whose = of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(format!(
                    "{:?} was told of workspace {whose}: {text}\n    answer: {told}",
                    step.who
                ));
            }
        }
        Ok(())
    }

    /// Every text that belongs to one workspace or to a few.
    fn belongings(&self) -> HashMap<String, Vec<usize>> {
        let world = &self.world;
        let mut all: HashMap<String, Vec<usize>> = HashMap::new();
        let mut add = |text: String, at: usize| all.entry(text).or_default().push(at);
        let mut symbols: Vec<(String, usize)> = vec![];
        for (at, it) in world.workspaces.iter().enumerate() {
            symbols.push((workspace_id(at), at));
            for text in [it.slug.clone(), it.name.clone(), format!("+1777{at:03}"), format!("w{at:03}-name-")]
            {
                add(text, at);
            }
            add(format!("host-w{at:03}"), at);
            add(format!("pbx-w{at:03}"), at);
            for text in it.org.iter().cloned().chain((0..3).map(|number| account(at, number))) {
                add(text, at);
            }
        }
        for it in &world.calls {
            add(it.sid.clone(), it.workspace);
        }
        symbols.extend(world.keys.iter().enumerate().map(|(at, it)| (key_id(at), it.workspace)));
        let services = world.members.iter().filter(|it| !world.principals[it.who].is_user);
        symbols.extend(services.map(|it| (entity_id(it.who), it.workspace)));
        symbols
            .extend(world.integrations.iter().enumerate().map(|(at, it)| (integration_id(at), it.workspace)));
        symbols.extend(world.calls.iter().enumerate().map(|(at, it)| (call_id(at), it.workspace)));
        symbols.extend(world.deliveries.iter().enumerate().map(|(at, it)| (delivery_id(at), it.workspace)));
        for (symbol, at) in symbols {
            if let Some(text) = world.known.text(&symbol) {
                add(text.to_owned(), at);
            }
        }
        all
    }

    /// A line of the script for this step.
    fn tell(&self, number: usize, step: &Step, request: &Request) -> String {
        let world = &self.world;
        let who = match world.presented(step.who) {
            (None, None) => "anonymous".to_owned(),
            (None, Some(_)) => "a stray key".to_owned(),
            (Some(at), _) => {
                let at = world.secrets[at].key;
                let key = &world.keys[at];
                let kind = if world.principals[key.principal].is_user { "user" } else { "service" };
                let role = ROLES[key.reach.role];
                let narrowed =
                    if key.reach == super::rules::Reach::whole(key.reach.role) { "" } else { ", narrowed" };
                if let Some(name) = key.token {
                    return self.line(number, &format!("a token of {name}'s"), step, request);
                }
                let over = if matches!(step.who, Who::Former(_)) { ", over" } else { "" };
                format!(
                    "key{at} ({role}{narrowed}{over}) of {kind}{} in workspace{}",
                    key.principal, key.workspace
                )
            }
        };
        self.line(number, &who, step, request)
    }

    fn line(&self, number: usize, who: &str, step: &Step, request: &Request) -> String {
        let replica = if step.replica { " at the replica" } else { "" };
        let again = if step.again && step.act.repeats() { ", twice" } else { "" };
        let away = if step.away { " from elsewhere" } else { "" };
        let body = request.body.as_ref().map(|body| format!(" {body}")).unwrap_or_default();
        let line =
            format!("{number:>3}. {who}{replica}{away}{again}: {} {}{body}", request.method, request.path);
        self.world.known.tell(&line)
    }
}

/// Compares an answer with the expected refusal.
fn refused(no: &No, answer: &Answer) -> Result<(), String> {
    let body: Value = serde_json::from_str(&answer.text).unwrap_or(Value::Null);
    let loc = |problem: &Value| {
        let steps = problem["loc"].as_array().into_iter().flatten();
        let steps = steps.map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned));
        steps.collect::<Vec<_>>().join(".")
    };
    let as_expected = match no {
        No::Because(status, code) => answer.status.as_u16() == *status && body["error_code"] == *code,
        No::Values(wanted) => {
            let found: Vec<String> = body["detail"].as_array().into_iter().flatten().map(loc).collect();
            answer.status.as_u16() == 422 && found == *wanted
        }
    };
    if as_expected {
        Ok(())
    } else {
        Err(format!("{no:?} was expected\n    answer: {} {}", answer.status, answer.text))
    }
}
