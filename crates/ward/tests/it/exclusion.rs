//! In every history of reports, no test call is owed to an EHR and no real call is missed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use ward::app::App;
use ward_db::{Error, ErrorKind, decode};
use ward_test::ehr::{Act, ScriptedEhr};
use ward_test::{Fields as _, Server, Tenant, both, fresh_slug};

use crate::calls::{
    PUBLIC_URL, callback, connect, event, finished, put, set_test_callers, set_up_twilio, with,
};
use crate::chosen::{every_end, set_delivery};
use crate::deliveries::{configure, worker};

const NUMBERS: [&str; 4] = ["+15550100001", "+15550100002", "+15550100003", "+15550100004"];

/// Runs a statement that no request would cause.
async fn attempt(app: &Arc<App>, statement: &str) -> Result<u64, Error> {
    let statement = statement.to_owned();
    app.db.write("test.attempt", move |tx| tx.execute(&statement, &[])).await
}

/// The statement that would insert a delivery of the only call of this direction.
fn forged(direction: &str, claimed: &str) -> String {
    format!(
        "INSERT INTO deliveries (workspace_id, id, integration_id, call_id, direction, state, attempts, maybe_sent, \
                position, created_at) \
         SELECT workspace_id, id, id, id, '{claimed}', 'pending', 0, false, 1, first_reported_at FROM calls \
         WHERE direction = '{direction}'"
    )
}

async fn one_of_each(server: &Server) -> Tenant {
    let tenant = server.tenant(&fresh_slug()).await;
    set_test_callers(&tenant, &NUMBERS[..1]).await;
    put(&tenant, "CA-test", finished(NUMBERS[0])).await;
    for direction in ["inbound", "outbound", "playground", "simulated"] {
        let body = json!({ "status": "completed", "caller_id": NUMBERS[1], "direction": direction });
        put(&tenant, &format!("CA-{direction}"), body).await;
    }
    tenant
}

both!(the_database_refuses_a_delivery_of_a_call_that_was_not_real, async || {
    let server = Server::start().await;
    one_of_each(&server).await;
    for direction in ["test", "playground", "simulated"] {
        // The CHECK constraint: a delivery cannot have such a direction.
        let refused = attempt(&server.app, &forged(direction, direction)).await;
        assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::Constraint), "{direction}");
        // The foreign key: a delivery has the direction of its call.
        for claimed in ["inbound", "outbound"] {
            let refused = attempt(&server.app, &forged(direction, claimed)).await;
            assert_eq!(
                refused.map_err(|error| error.kind()),
                Err(ErrorKind::Constraint),
                "{direction} as {claimed}"
            );
        }
    }
    assert_eq!(attempt(&server.app, &forged("inbound", "inbound")).await.unwrap(), 1);
    // A call that owes a delivery cannot become a test afterwards.
    for to in ["test", "outbound"] {
        let turned = attempt(
            &server.app,
            &format!("UPDATE calls SET direction = '{to}' WHERE call_sid = 'CA-inbound'"),
        )
        .await;
        assert_eq!(turned.map_err(|error| error.kind()), Err(ErrorKind::Constraint));
    }
    assert_eq!(server.count("SELECT count(*) FROM deliveries").await, 1);
});

/// A random number generator whose numbers depend only on the seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }
}

/// The expected state, kept without a database: the whole rule in a few lines.
#[derive(Default)]
struct Model {
    list: BTreeSet<&'static str>,
    connected: bool,
    calls: BTreeMap<String, ModelCall>,
}

struct ModelCall {
    direction: &'static str,
    over: bool,
    owed: bool,
}

const FINAL: [&str; 5] = ["completed", "busy", "no-answer", "failed", "canceled"];

impl Model {
    fn report(
        &mut self,
        sid: &str,
        parties: [Option<&'static str>; 2],
        direction: &'static str,
        status: &str,
    ) {
        let is_test = parties.into_iter().flatten().any(|party| self.list.contains(party));
        let call = self.calls.entry(sid.to_owned()).or_insert_with(|| ModelCall {
            direction: if is_test { "test" } else { direction },
            over: false,
            owed: false,
        });
        if FINAL.contains(&status) && !call.over {
            call.over = true;
            call.owed = self.connected && ["inbound", "outbound"].contains(&call.direction);
        }
    }
}

/// The result of a history: the calls that the EHR must get, and the number of test calls.
#[derive(Default)]
struct Expectation {
    owed: BTreeSet<String>,
    tests: usize,
}

fn spelled(number: &str, dice: &mut Dice) -> String {
    let (country, area, rest) = (&number[1..2], &number[2..5], &number[5..]);
    match dice.roll(6) {
        0 => format!(" tel:+{country}-{area}-{rest} "),
        2 => format!("sip:{number}@pbx.example"),
        3 => format!("whatsapp:{number}"),
        1 => format!("+{country} ({area}) {}.{}", &rest[..3], &rest[3..]),
        _ => number.to_owned(),
    }
}

/// One random history of one workspace, reported to both replicas by the runtime and by Twilio.
async fn history(replicas: Arc<[Server; 2]>, ehr: ScriptedEhr, seed: u64) -> Expectation {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let tenant = replicas[0].tenant(&fresh_slug()).await;
    let twilio = dice.roll(3) == 0;
    if twilio {
        set_up_twilio(&tenant).await;
    }
    let elsewhere = replicas[1].bearing(tenant.owner.bearer.clone().unwrap());
    let mut model = Model::default();
    for _ in 0..8 + dice.roll(10) {
        let actor = if dice.roll(2) == 0 { &tenant.owner } else { &elsewhere };
        match dice.roll(10) {
            0 | 1 => {
                let list: Vec<&str> = NUMBERS.into_iter().filter(|_| dice.roll(3) == 0).collect();
                let path = tenant.workspace("/test-caller-numbers");
                actor.put(&path, json!({ "numbers": list })).await.ok();
                model.list = NUMBERS.into_iter().filter(|number| list.contains(number)).collect();
            }
            2 if !model.connected => {
                connect(&tenant, "fhir_store").await;
                set_delivery(&tenant, every_end()).await.ok();
                configure(&replicas[0], &tenant, &ehr.url(), true).await;
                model.connected = true;
            }
            3 if twilio => {
                let sid = format!("CA{}", dice.roll(5));
                let caller = dice.pick(&[Some(NUMBERS[0]), Some(NUMBERS[1]), None]);
                let status = dice.pick(&["ringing", "in-progress", "completed", "no-answer"]);
                let callee = dice.pick(&["+15550109999", "+15550109999", NUMBERS[3]]);
                let fields = with(event(&sid, status, caller.unwrap_or("anonymous")), "To", callee);
                callback(&replicas[dice.roll(2)], &tenant, &fields).await.no_content();
                model.report(&sid, [caller, Some(callee)], "inbound", status);
            }
            _ => {
                let sid = format!("CA{}", dice.roll(5));
                let caller = dice.pick(&[Some(NUMBERS[0]), Some(NUMBERS[1]), Some(NUMBERS[2]), None]);
                let direction = dice.pick(&["inbound", "inbound", "outbound", "playground", "simulated"]);
                let status = dice.pick(&[
                    "queued",
                    "ringing",
                    "in-progress",
                    "completed",
                    "completed",
                    "busy",
                    "failed",
                ]);
                let callee = dice.pick(&[None, None, Some("+15550109999"), Some(NUMBERS[3])]);
                let said = caller.map(|caller| spelled(caller, &mut dice));
                let called = callee.map(|callee| spelled(callee, &mut dice));
                let body = json!({
                    "status": status, "caller_id": said, "phone_number": called, "direction": direction,
                });
                actor.put(&tenant.path(&format!("/calls/{sid}")), body).await.ok();
                model.report(&sid, [caller, callee], direction, status);
            }
        }
    }
    let listed =
        elsewhere.get(&tenant.path("/calls?limit=100&include_simulated=true&include_test=true")).await.ok();
    let told: BTreeMap<&str, &str> =
        listed.list("items").iter().map(|call| (call.text("call_sid"), call.text("direction"))).collect();
    let expected: BTreeMap<&str, &str> =
        model.calls.iter().map(|(sid, call)| (sid.as_str(), call.direction)).collect();
    assert_eq!(told, expected, "seed {seed}");
    let id = tenant.id.clone();
    let owed: BTreeSet<String> = replicas[1]
        .app
        .db
        .read("test.owed", move |tx| {
            tx.all(
                "SELECT c.call_sid FROM deliveries d JOIN calls c ON c.workspace_id = d.workspace_id AND c.id = d.call_id \
                 WHERE d.workspace_id = $1",
                &[ward_db::Uuid::parse_str(&id).unwrap().into()],
                decode::<String>,
            )
        })
        .await
        .map(|sids: Vec<String>| sids.into_iter().collect())
        .map_err(|error: Error| error)
        .unwrap();
    let expected: BTreeSet<String> =
        model.calls.iter().filter(|(_, call)| call.owed).map(|(sid, _)| sid.clone()).collect();
    assert_eq!(owed, expected, "seed {seed}");
    let ids = listed.list("items").iter();
    let ids = ids.filter(|call| owed.contains(call.text("call_sid")));
    Expectation {
        owed: ids.map(|call| call.text("entity_id").to_owned()).collect(),
        tests: model.calls.values().filter(|call| call.direction == "test").count(),
    }
}

both!(random_histories_deliver_every_real_call_and_no_test_call, threads = 2, async || {
    let first = Server::with(|config| config.public_url = Some(PUBLIC_URL.to_owned())).await;
    let second = first.replica().await;
    let replicas = Arc::new([first, second]);
    let histories: u64 = std::env::var("WARD_TEST_HISTORIES").map_or(2_000, |text| text.parse().unwrap());
    let ehr = ScriptedEhr::start().await;
    let mut all = Expectation::default();
    let mut running = JoinSet::new();
    for seed in 1..=histories {
        running.spawn(history(replicas.clone(), ehr.clone(), seed));
        if running.len() >= 8 {
            let left = running.join_next().await.unwrap().unwrap();
            all.owed.extend(left.owed);
            all.tests += left.tests;
        }
    }
    for left in running.join_all().await {
        all.owed.extend(left.owed);
        all.tests += left.tests;
    }
    // The histories hold enough of both kinds for the comparison to mean something.
    let (owed, tests) = (all.owed.len() as u64, all.tests as u64);
    assert!(owed > histories / 4 && tests > histories / 4, "{owed} owed, {tests} tests");

    // In the end, after the workers of both replicas, the EHR has each of those once and nothing else.
    let moods =
        [Act::Take, Act::Take, Act::Take, Act::TakeAndSay(503), Act::Take, Act::Say(409, Value::Null, "")];
    ehr.script(moods.iter().cycle().take(all.owed.len()).cloned());
    let workers = replicas.each_ref().map(|replica| worker(&replica.app));
    let left = "SELECT count(*) FROM delivery_queue";
    for _ in 0..20 {
        replicas[0].clock.advance(Duration::from_hours(1));
        loop {
            let (one, other) = tokio::join!(workers[0].turn(), workers[1].turn());
            if one + other == 0 {
                break;
            }
        }
        if replicas[0].count(left).await == 0 {
            break;
        }
    }
    assert_eq!(replicas[0].count(left).await, 0, "nothing waits");
    let counts = ehr.counts();
    assert!(counts.values().all(|count| *count == 1), "something arrived twice");
    assert!(counts.keys().eq(&all.owed), "{} arrived, {owed} were owed", counts.len());
});

/// A finished call whose number is that of the caller or, at every other index, of the callee.
fn reported(index: usize) -> Value {
    let number = NUMBERS[index % 5 - 1];
    if index.is_multiple_of(2) {
        return finished(number);
    }
    let mut body = finished("+15550199999");
    body["phone_number"] = json!(number);
    body
}

both!(a_list_that_changes_beside_first_reports_is_before_each_of_them_or_after, threads = 2, async || {
    let server = Arc::new(Server::start().await);
    let tenant = Arc::new(server.tenant("acme").await);
    connect(&tenant, "fhir_store").await;
    set_test_callers(&tenant, &NUMBERS[..1]).await;
    let mut running = JoinSet::new();
    for index in 0..200 {
        // The requests wait for each other, so only a few run at once to stay within the time limit.
        if running.len() >= 16 {
            running.join_next().await.unwrap().unwrap();
        }
        let tenant = tenant.clone();
        running.spawn(async move {
            if index % 5 == 0 {
                set_test_callers(&tenant, &NUMBERS[..=index / 5 % 3]).await;
            } else {
                put(&tenant, &format!("CA{index}"), reported(index)).await;
            }
        });
    }
    running.join_all().await;
    // The audit keeps every version of the list, so each call's classification can be checked afterwards.
    let changes = tenant.path("/audit?action=test_callers.update&limit=100");
    let changes = tenant.owner.get(&changes).await.ok();
    let list_of = |event: &Value| {
        let list = event["metadata"]["changes"]["numbers"].list("to").clone();
        (event["metadata"]["list_version"].as_i64().unwrap(), list)
    };
    let lists: BTreeMap<i64, Vec<Value>> = changes.list("events").iter().map(list_of).collect();
    let mut tests = BTreeMap::<&str, usize>::new();
    for index in (0..200).filter(|index| index % 5 != 0) {
        let call = tenant.get(&format!("/calls/CA{index}")).await.ok();
        let list = &lists[&call["test_caller_list_version"].as_i64().unwrap()];
        let is_test = list.contains(&call["caller_id"]) || list.contains(&call["phone_number"]);
        assert_eq!(call["direction"] == "test", is_test, "{call}");
        assert_eq!(call["sync"]["delivery_id"].is_null(), is_test, "{call}");
        *tests.entry(NUMBERS[index % 5 - 1]).or_default() += usize::from(is_test);
    }
    // The first number is on every list and the last on none; the lists differ in the two between.
    assert_eq!((tests[NUMBERS[0]], tests[NUMBERS[3]]), (40, 0), "{tests:?}");
});
