//! The legs of Twilio's calls, in the shapes of its public documents about requests, the verb `<Dial>` with its nouns, the
//! call resource and elastic trunks. A test stays a test in each of them, by the number of either party.

use serde_json::{Value, json};
use ward_test::{Fields as _, Server, Tenant, both};

use crate::calls::{callback, connect, event, set_test_callers, with_twilio};

const TESTER: &str = "+15550100001";
const PATIENT: &str = "+15550100002";
const PRACTICE: &str = "+15550109999";
const AGENT: &str = "client:agent";

/// Twilio's fields of one leg: From, To and Direction.
type Leg = (&'static str, &'static str, &'static str);

/// A shape: its name, the leg of the call itself, and the leg that Twilio dials on its behalf, if there is one.
struct Shape {
    name: &'static str,
    parent: Leg,
    child: Option<Leg>,
    /// The direction and the called party that the call of a patient has.
    direction: &'static str,
    callee: &'static str,
}

/// The documented shapes. `*` is the number of the patient, or of the tester.
const SHAPES: [Shape; 9] = [
    Shape {
        name: "a person calls the practice's number",
        parent: ("*", PRACTICE, "inbound"),
        child: None,
        direction: "inbound",
        callee: PRACTICE,
    },
    Shape {
        name: "the same, and a softphone of the practice answers",
        parent: ("*", PRACTICE, "inbound"),
        child: Some(("*", AGENT, "outbound-dial")),
        direction: "inbound",
        callee: PRACTICE,
    },
    Shape {
        name: "the same, forwarded to another number",
        parent: ("*", PRACTICE, "inbound"),
        child: Some((PRACTICE, "+15550108888", "outbound-dial")),
        direction: "inbound",
        callee: PRACTICE,
    },
    Shape {
        name: "a softphone of the practice dials a person",
        parent: (AGENT, "", "inbound"),
        child: Some((PRACTICE, "*", "outbound-dial")),
        direction: "outbound",
        callee: "*",
    },
    Shape {
        name: "the same, where the application names the number",
        parent: (AGENT, "*", "inbound"),
        child: Some((PRACTICE, "*", "outbound-dial")),
        direction: "outbound",
        callee: "*",
    },
    Shape {
        name: "the API dials a person",
        parent: (PRACTICE, "*", "outbound-api"),
        child: None,
        direction: "outbound",
        callee: "*",
    },
    Shape {
        name: "a person calls over a SIP interface",
        parent: ("sip:*@carrier.example;user=phone", PRACTICE, "inbound"),
        child: None,
        direction: "inbound",
        callee: PRACTICE,
    },
    Shape {
        name: "a trunk takes a person's call",
        parent: ("*", "sip:+15550109999@practice.pstn.example", "trunking-originating"),
        child: None,
        direction: "inbound",
        callee: PRACTICE,
    },
    Shape {
        name: "a person calls over WhatsApp",
        parent: ("whatsapp:*", "whatsapp:+15550109999", "inbound"),
        child: None,
        direction: "inbound",
        callee: PRACTICE,
    },
];

/// The callback of a leg, with `*` replaced by a number. A `parent` makes it the leg of another call.
fn fields(sid: &str, status: &str, leg: Leg, number: &str, parent: Option<&str>) -> Vec<(String, String)> {
    let (from, to, direction) = leg;
    let mut all: Vec<(String, String)> = event(sid, status, "")
        .into_iter()
        .map(|(name, value)| {
            let value = match name {
                "From" => from.replace('*', number),
                "To" => to.replace('*', number),
                "Direction" => direction.to_owned(),
                _ => value.to_owned(),
            };
            (name.to_owned(), value)
        })
        .collect();
    all.extend(parent.map(|parent| ("ParentCallSid".to_owned(), parent.to_owned())));
    all
}

async fn send(server: &Server, tenant: &Tenant, fields: &[(String, String)]) {
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    callback(server, tenant, &fields).await.no_content();
}

both!(a_test_is_a_test_in_every_shape_of_legs_and_in_every_order, async || {
    let (server, tenant) = with_twilio().await;
    connect(&tenant, "fhir_store").await;
    set_test_callers(&tenant, &[TESTER]).await;
    for (index, shape) in SHAPES.iter().enumerate() {
        for (order, child_first) in [(0, true), (1, false)] {
            for (who, number) in [("real", PATIENT), ("test", TESTER)] {
                let parent = format!("CA{index}{order}{who}");
                let tell = async |status: &str| {
                    let leg = fields(&parent, status, shape.parent, number, None);
                    send(&server, &tenant, &leg).await;
                };
                let dial = async || {
                    let Some(child) = shape.child else { return };
                    let child = fields(&format!("{parent}-child"), "completed", child, number, Some(&parent));
                    send(&server, &tenant, &child).await;
                };
                if child_first {
                    dial().await;
                } else {
                    tell("in-progress").await;
                    dial().await;
                }
                tell("completed").await;
                let call = tenant.get(&format!("/calls/{parent}")).await.ok();
                let what = format!("{}, {who}, child first: {child_first}: {call}", shape.name);
                let direction = if who == "test" { "test" } else { shape.direction };
                assert_eq!(call["direction"], direction, "{what}");
                assert_eq!(call["reported_direction"], shape.direction, "{what}");
                assert_eq!(call["phone_number"], shape.callee.replace('*', number), "{what}");
                assert_eq!(call["sync"]["delivery_id"].is_null(), who == "test", "{what}");
                tenant.get(&format!("/calls/{parent}-child")).await.refused(404);
            }
        }
    }
    let waiting = "SELECT count(*) FROM call_legs WHERE parent_sid LIKE 'CA3%' OR parent_sid LIKE 'CA4%'";
    assert_eq!(server.count(waiting).await, 0, "a call took its leg");
});

both!(a_leg_changes_no_party_that_is_known_and_no_finished_call, async || {
    let (server, tenant) = with_twilio().await;
    set_test_callers(&tenant, &[TESTER]).await;
    let leg = async |parent: &str, to: &'static str| {
        let dialled = (PRACTICE, to, "outbound-dial");
        let leg = fields(&format!("{parent}-child"), "ringing", dialled, "", Some(parent));
        send(&server, &tenant, &leg).await;
        tenant.get(&format!("/calls/{parent}")).await.ok()
    };
    let call = async |sid: &str, status: &str, leg: Leg| {
        send(&server, &tenant, &fields(sid, status, leg, PATIENT, None)).await;
    };
    // A patient who is forwarded to a tester's phone is still a patient.
    call("CA1", "in-progress", ("*", PRACTICE, "inbound")).await;
    assert_eq!(leg("CA1", TESTER).await.fields(["direction", "phone_number"]), json!(["inbound", PRACTICE]));
    call("CA2", "in-progress", (AGENT, "*", "inbound")).await;
    assert_eq!(leg("CA2", TESTER).await.fields(["direction", "phone_number"]), json!(["outbound", PATIENT]));
    call("CA3", "completed", (AGENT, "", "inbound")).await;
    assert_eq!(
        leg("CA3", TESTER).await.fields(["direction", "phone_number"]),
        json!(["outbound", Value::Null])
    );
    // The first number that was dialled counts.
    call("CA4", "in-progress", (AGENT, "", "inbound")).await;
    let test = leg("CA4", TESTER).await;
    assert_eq!(test.fields(["direction", "phone_number"]), json!(["test", TESTER]));
    assert_eq!(test["test"]["rule"], "test_callee");
    assert_eq!(leg("CA4", PATIENT).await.fields(["direction", "phone_number"]), json!(["test", TESTER]));
    let noted = tenant.audit().await.into_iter().filter(|event| event["action"] == "call.leg").count();
    assert_eq!(noted, 1);
});

both!(legs_of_calls_that_are_never_reported_go_after_a_day, async || {
    let (server, tenant) = with_twilio().await;
    let dial = async |parent: &str| {
        let dialled = (PRACTICE, "*", "outbound-dial");
        send(&server, &tenant, &fields("CA-child", "completed", dialled, PATIENT, Some(parent))).await;
    };
    for parent in ["CA1", "CA2", "CA2"] {
        dial(parent).await;
    }
    assert_eq!(server.count("SELECT count(*) FROM call_legs").await, 2);
    server.clock.advance(std::time::Duration::from_hours(25));
    dial("CA3").await;
    assert_eq!(server.count("SELECT count(*) FROM call_legs").await, 1);
});
