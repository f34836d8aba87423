//! Long random walks over all of the API, by tenants of every role on two servers, compared with a model of the rules.
//!
//! The model is written from the design and the contract and takes nothing from `ward`. It predicts the status and body of
//! every step. A failing walk is shortened as long as it still fails, and then printed as a script.

mod calls;
mod integrations;
mod keys;
mod people;
mod protection;
mod quotas;
mod rules;
mod steps;
mod tenancy;
mod trust;
mod walk;
mod world;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use proptest::strategy::{Strategy as _, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;
use ward_test::both;

use steps::{Act, LEFT_OUT, Place, Step, Who, step};
use walk::{Failure, Tally, Walk};

/// Walks in the suite, and the steps of one. `WARD_TEST_WALKS` and `WARD_TEST_STEPS` ask for more.
const WALKS: u64 = 6;
const STEPS: u64 = 400;
/// The seed of the suite's first walk. With `WARD_TEST_WALKS`, every run has other seeds.
const SEED: u64 = 1;
/// How often one step of a failing walk is simplified.
const MOST_TRIES: usize = 30;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// Two tenants, each with an owner and a service of every lower role, a connector and test callers; a third with
/// an owner only; and the second's owner is an operator of the first. Beside them come
/// two people who sign in at an identity provider.
fn beginning() -> Vec<Step> {
    let mut steps = vec![];
    let mut take =
        |who, place, act| steps.push(Step { replica: false, again: false, away: false, who, place, act });
    for tenant in [0, 1] {
        take(Who::Anonymous, Place::Nowhere, Act::Bootstrap { slug: tenant, org: true, region: 0 });
        take(Who::Anonymous, Place::Any(tenant), Act::Claim { days: 90, wrong: false });
        for role in 0..4 {
            let (own, named, bound, networks) = (false, true, false, 0);
            let mint = Act::Mint { role, narrow: vec![], days: 60, own, named, bound, networks };
            take(Who::Lead(tenant), Place::Own(0), mint);
        }
        let patch = Act::Patch { name: 0, environment: 0, region: 0, connector: 3 + tenant };
        take(Who::Lead(tenant), Place::Own(0), patch);
        take(Who::Lead(tenant), Place::Own(0), Act::Provision);
        take(Who::Lead(tenant), Place::Own(0), Act::SetTestCallers { numbers: vec![0, 1] });
    }
    take(Who::Anonymous, Place::Nowhere, Act::Bootstrap { slug: 2, org: false, region: 1 });
    take(Who::Anonymous, Place::Any(2), Act::Claim { days: 30, wrong: false });
    take(Who::Lead(0), Place::Own(0), Act::Invite { role: 2, days: 7, email: false });
    take(Who::Lead(1), Place::Own(0), Act::AcceptInvitation { invitation: 0 });
    steps
}

/// Runs a walk on new servers with a new database.
async fn go(steps: &[Step]) -> Result<Tally, Failure> {
    let mut walk = Walk::new().await;
    if let Err(failure) = walk.take(&beginning()).await {
        return Err(Failure { steps: 0, script: format!("(at the very beginning)\n{}", failure.script) });
    }
    walk.meet();
    let taken = AssertUnwindSafe(walk.take(steps)).catch_unwind().await;
    match taken {
        Ok(Ok(())) => Ok(walk.tally),
        Ok(Err(failure)) => Err(failure),
        // An answer that does not fit the document panics in the client.
        Err(panic) => {
            let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            Err(Failure { steps: steps.len(), script: format!("{}\n    WRONG: {why}", walk.script()) })
        }
    }
}

both!(every_answer_is_what_the_rules_predict);
#[expect(clippy::print_stderr, reason = "a long walk prints its statistics")]
async fn every_answer_is_what_the_rules_predict() {
    let more = std::env::var_os("WARD_TEST_WALKS").is_some();
    let first = setting("WARD_TEST_SEED", if more { rand_seed() } else { SEED });
    let (walks, steps) = (setting("WARD_TEST_WALKS", WALKS), setting("WARD_TEST_STEPS", STEPS));
    let mut seen = Tally::new();
    for seed in first..first.saturating_add(walks) {
        let (mut runner, strategy) = (runner(seed), step());
        let begun: Vec<_> = (0..steps).map(|_| strategy.new_tree(&mut runner).expect("a step")).collect();
        match go(&begun.iter().map(ValueTree::current).collect::<Vec<_>>()).await {
            Ok(tally) => add(&mut seen, tally),
            Err(failure) => {
                let at = failure.steps;
                let Failure { steps, script } = shortest(begun, failure).await;
                panic!(
                    "a walk went wrong at its step {at} (WARD_TEST_SEED={seed} repeats it); as short as it could be made, \
                     {steps} steps after the beginning:\n{script}\n"
                );
            }
        }
    }
    for (operation, statuses) in &seen {
        eprintln!("{operation}: {statuses:?}");
    }
    let came = |operation: &str, status: u16| seen.get(operation).is_some_and(|it| it.contains_key(&status));
    for (operation, status) in [("create-api-key", 409), ("create-invitation", 409), ("report-call", 429)] {
        assert!(came(operation, status), "no walk came to the quota of {operation}");
    }
    for (operation, status) in [
        ("create-api-key", 422),
        ("report-leaked-keys", 200),
        ("set-api-key-networks", 200),
        ("set-key-policy", 200),
        ("create-trust-rule", 201),
        ("delete-trust-rule", 204),
    ] {
        assert!(came(operation, status), "no walk saw {status} of {operation}");
    }
}

fn add(seen: &mut Tally, more: Tally) {
    for (operation, statuses) in more {
        for (status, times) in statuses {
            *seen.entry(operation).or_default().entry(status).or_default() += times;
        }
    }
}

/// Shortens a failing walk as long as it still fails. It first leaves out steps, many at once at the beginning, and then
/// simplifies the others.
async fn shortest(mut steps: Vec<impl ValueTree<Value = Step>>, failure: Failure) -> Failure {
    let mut shortest = failure;
    let mut kept: Vec<usize> = (0..steps.len().min(shortest.steps)).collect();
    let mut chunk = kept.len();
    while chunk > 0 {
        let mut from = 0;
        while from < kept.len() {
            let without: Vec<usize> = [&kept[..from], &kept[kept.len().min(from + chunk)..]].concat();
            match go(&without.iter().map(|at| steps[*at].current()).collect::<Vec<_>>()).await {
                Ok(_) => from += chunk,
                Err(failure) => {
                    kept = without;
                    kept.truncate(failure.steps);
                    shortest = failure;
                }
            }
        }
        chunk /= 2;
    }
    for at in kept.clone() {
        for _ in 0..MOST_TRIES {
            if !steps[at].simplify() {
                break;
            }
            match go(&kept.iter().map(|at| steps[*at].current()).collect::<Vec<_>>()).await {
                Err(failure) => shortest = failure,
                Ok(_) if steps[at].complicate() => {}
                Ok(_) => break,
            }
        }
    }
    shortest
}

/// A new seed for every run. A failure prints it.
fn rand_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time after 1970");
    now.subsec_nanos().into()
}

#[test]
fn every_operation_is_walked_or_left_out_by_name() {
    let document: Value = serde_json::from_str(include_str!("../../../../../contract/openapi.json")).unwrap();
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|path| path.as_object().unwrap().values());
    let served: BTreeSet<&str> = operations.filter_map(|it| it["operationId"].as_str()).collect();
    let mut runner = runner(0);
    let steps = step();
    let sample = (0..20_000).filter_map(|_| steps.new_tree(&mut runner).unwrap().current().act.operation());
    let walked: BTreeSet<&str> = sample.collect();
    let left_out: BTreeSet<&str> = LEFT_OUT.iter().map(|(operation, _)| *operation).collect();
    assert!(walked.is_disjoint(&left_out));
    assert_eq!(&walked | &left_out, served);
}
