//! The parties of a call: the spellings of their numbers, and that each of them can make a call a test.

use serde_json::{Value, json};
use ward_test::{Fields as _, Server, both};

use crate::calls::{callback, event, finished, put, reported, set_test_callers, with, with_twilio};

const TESTER: &str = "+442079460001";
const PATIENT: &str = "+15550100002";

/// Spellings with a 0 that callers from abroad omit.
const WITH_TRUNK_ZERO: [&str; 9] = [
    "+44 (0)20 7946 0001",
    "+44(0)2079460001",
    "+49 (0) 30 1234567",
    "+61 [0]2 5550 1234",
    "+44 (\u{a0}0\u{a0}) 20\u{2011}7946\u{2011}0001",
    "+44 \u{ff08}0\u{ff09} 20 7946 0001",
    "+44 (020) 7946 0001",
    "+49 (0 30) 1234567",
    "+61 ()0() 2 5550 1234",
];

both!(a_zero_in_brackets_is_refused_on_the_list, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let path = tenant.workspace("/test-caller-numbers");
    for spelled in WITH_TRUNK_ZERO {
        let body = json!({ "numbers": [PATIENT, spelled, "+44 20 7946 0001"] });
        let refused = tenant.owner.put(&path, body).await;
        assert_eq!(refused.problem_locs(), ["body.numbers.1"], "{spelled}");
        assert!(refused.text.contains("The 0 in brackets"), "{}", refused.text);
    }
    let listed = tenant.owner.get(&path).await.ok();
    assert_eq!(listed["numbers"], json!([]), "nothing was stored");
});

both!(a_zero_in_brackets_is_refused_in_reports_of_the_runtime, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let path = tenant.path("/calls/CA1");
    for spelled in WITH_TRUNK_ZERO {
        for given in [
            spelled.to_owned(),
            format!("tel:{spelled}"),
            format!("whatsapp:{spelled}"),
            format!("sip:{spelled}@pbx.example;user=phone"),
        ] {
            let refused = tenant.owner.put(&path, finished(&given)).await;
            assert_eq!(refused.problem_locs(), ["body.caller_id"], "{given}");
            let mut body = finished(PATIENT);
            body["phone_number"] = json!(given);
            let refused = tenant.owner.put(&path, body).await;
            assert_eq!(refused.problem_locs(), ["body.phone_number"], "{given}");
        }
    }
    tenant.owner.get(&path).await.refused(404);
});

both!(a_zero_in_brackets_is_refused_in_twilios_callbacks, async || {
    let (server, tenant) = with_twilio().await;
    for spelled in WITH_TRUNK_ZERO {
        let answer = callback(&server, &tenant, &event("CA1", "completed", spelled)).await;
        assert_eq!(answer.problem_locs(), ["body.From"], "{spelled}");
        let fields = with(event("CA1", "completed", spelled), "To", spelled);
        let answer = callback(&server, &tenant, &fields).await;
        assert_eq!(answer.problem_locs(), ["body.From", "body.To"], "{spelled}");
    }
    assert_eq!(server.count("SELECT count(*) FROM calls").await, 0);
});

both!(a_zero_that_is_dialled_from_abroad_stays_in_its_brackets, async || {
    let (server, tenant) = with_twilio().await;
    set_test_callers(&tenant, &["+39 (06) 698 12345", "+378 (0549) 888 888"]).await;
    let call = put(&tenant, "CA1", finished("tel:+390669812345")).await;
    assert_eq!(call.fields(["direction", "caller_id"]), json!(["test", "+390669812345"]));
    let call = reported(&server, &tenant, &event("CA2", "completed", "+3780549888888")).await;
    assert_eq!(call["direction"], "test");
    // Without brackets a 0 is a digit like others.
    let call = put(&tenant, "CA3", finished("+44 020 7946 0001")).await;
    assert_eq!(call["caller_id"], "+4402079460001");
});

both!(one_number_is_one_number_however_it_is_separated, async || {
    let (_server, tenant) = Server::with_tenant().await;
    set_test_callers(
        &tenant,
        &[
            "+44\u{a0}20\u{202f}7946\u{2007}0001",
            "+44\u{2010}20\u{2011}7946\u{2212}0001",
            "+44 (20) 7946.0001",
        ],
    )
    .await;
    let listed = tenant.owner.get(&tenant.workspace("/test-caller-numbers")).await.ok();
    assert_eq!(listed["numbers"], json!([TESTER]));
    let spellings = [
        "+44\u{2013}20\u{2014}7946\u{2015}0001",
        "\u{2003}+44 \u{ff0d} 20 7946\u{b7}0001",
        "+44 [20] 7946 0001",
        "whatsapp:+442079460001",
        "WhatsApp:+44 20 7946 0001",
        "sip:+442079460001@pbx.example",
        "sip:+44-20-7946-0001;ext=9@pbx.example;transport=tcp;user=phone",
        "sips:%2B442079460001@pbx.example;USER=PHONE",
        "tel:+44-20-7946-0001;ext=9",
    ];
    for (index, spelled) in spellings.into_iter().enumerate() {
        let call = put(&tenant, &format!("CA{index}"), finished(spelled)).await;
        assert_eq!(
            call.fields(["caller_id", "caller_form", "direction"]),
            json!([TESTER, "number", "test"]),
            "{spelled}"
        );
    }
});

both!(a_character_that_cannot_be_seen_is_named_and_never_stored, async || {
    let (server, tenant) = with_twilio().await;
    for (unseen, code) in
        [('\u{200b}', "U+200B"), ('\u{202a}', "U+202A"), ('\u{feff}', "U+FEFF"), ('\u{7}', "U+0007")]
    {
        let spelled = format!("+44 20{unseen} 7946 0001");
        let path = tenant.workspace("/test-caller-numbers");
        let refused = tenant.owner.put(&path, json!({ "numbers": [TESTER, spelled] })).await;
        assert_eq!(refused.problem_locs(), ["body.numbers.1"]);
        assert!(refused.text.contains(code), "{}", refused.text);
        for (field, given) in [("caller_id", spelled.clone()), ("phone_number", format!("tel:{spelled}"))] {
            let mut body = finished(PATIENT);
            body[field] = json!(given);
            let refused = tenant.put("/calls/CA1", body).await;
            assert_eq!(refused.problem_locs(), [format!("body.{field}")]);
            assert!(refused.text.contains(code), "{}", refused.text);
        }
        let answer = callback(&server, &tenant, &event("CA1", "completed", &spelled)).await;
        assert_eq!(answer.problem_locs(), ["body.From"]);
        assert!(answer.text.contains(code), "{}", answer.text);
    }
    assert_eq!(server.count("SELECT count(*) FROM calls").await, 0);
});

both!(an_invalid_number_on_the_list_is_refused_and_every_one_is_named, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let numbers = json!({ "numbers": [
        "+1 555 CALLNOW", PATIENT, "tel:+15550100002", "+15550100002 x5", "+15550100002;ext=5", "+266696687",
        "sip:+15550100002@pbx.example", "+1555\u{661}100002", "whatsapp:+15550100002",
    ] });
    let refused = tenant.owner.put(&tenant.workspace("/test-caller-numbers"), numbers).await;
    let wrong = [0, 2, 3, 4, 5, 6, 7, 8].map(|index| format!("body.numbers.{index}"));
    assert_eq!(refused.problem_locs(), wrong);
});

both!(a_call_to_a_test_number_is_a_test_too, async || {
    let (server, tenant) = with_twilio().await;
    set_test_callers(&tenant, &[TESTER]).await;
    let report = |caller: Value, callee: &str| json!({ "status": "completed", "caller_id": caller, "phone_number": callee, "direction": "outbound" });
    for (sid, caller, callee, rule) in [
        ("CA1", json!(PATIENT), TESTER, json!("test_callee")),
        ("CA2", json!(PATIENT), "sip:+442079460001@pbx.example", json!("test_callee")),
        ("CA3", Value::Null, "tel:+44-20-7946-0001", json!("test_callee")),
        ("CA4", json!(TESTER), PATIENT, json!("test_caller")),
        ("CA5", json!(TESTER), TESTER, json!("test_caller")),
        ("CA6", json!(PATIENT), "+15550109999", Value::Null),
    ] {
        let call = put(&tenant, sid, report(caller, callee)).await;
        let direction = if rule.is_null() { "outbound" } else { "test" };
        assert_eq!((&call["test"]["rule"], &call["direction"]), (&rule, &json!(direction)), "{sid}");
        assert_eq!(call["sync"]["decision"], if rule.is_null() { "no_connector" } else { "excluded" });
    }
    let fields = with(event("CA7", "completed", PATIENT), "To", "whatsapp:+442079460001");
    let call = reported(&server, &tenant, &fields).await;
    assert_eq!((&call["test"]["rule"], &call["phone_number"]), (&json!("test_callee"), &json!(TESTER)));
    // The operator's proof covers both rules.
    let (first, last) = ("2020-01-01", "2100-01-01");
    let proof = ward::operator::prove_exclusion(&server.app, &tenant.slug, first, last).await.unwrap();
    assert_eq!((proof.violations, proof.calls.len(), proof.others_looked_at), (0, 6, 1));
    let by_callee = proof.calls.iter().filter(|call| call.rule == Some("test_callee"));
    assert_eq!(by_callee.filter(|call| call.callee_on_list && !call.caller_on_list).count(), 4);
});

both!(later_reports_change_neither_party_nor_direction, async || {
    let (server, tenant) = with_twilio().await;
    set_test_callers(&tenant, &[TESTER]).await;
    let first = json!({ "status": "ringing", "caller_id": PATIENT, "phone_number": "+15550109999",
                        "direction": "inbound" });
    put(&tenant, "CA1", first).await;
    let bare = json!({ "status": "ringing", "caller_id": PATIENT, "direction": "inbound" });
    put(&tenant, "CA2", bare).await;
    let later = json!({ "status": "completed", "caller_id": TESTER, "phone_number": TESTER,
                        "direction": "outbound" });
    for (sid, callee) in [("CA1", json!("+15550109999")), ("CA2", Value::Null)] {
        let call = put(&tenant, sid, later.clone()).await;
        assert_eq!(call.fields(["caller_id", "phone_number"]), json!([PATIENT, callee]), "{sid}");
        assert_eq!(call.fields(["direction", "test"]), json!(["inbound", null]), "{sid}");
        let fields = with(event(sid, "completed", TESTER), "To", TESTER);
        let call = reported(&server, &tenant, &fields).await;
        assert_eq!(call.fields(["phone_number", "direction"]), json!([callee, "inbound"]), "{sid}");
    }
});

both!(a_first_callback_carries_its_caller_or_nothing_is_recorded, async || {
    let (server, tenant) = with_twilio().await;
    let mut without_from = event("CA1", "completed", PATIENT);
    without_from.retain(|field| field.0 != "From");
    assert_eq!(callback(&server, &tenant, &without_from).await.problem_locs(), ["body.From"]);
    assert_eq!(server.count("SELECT count(*) FROM calls").await, 0);
    // An empty number means that it is withheld.
    let call = reported(&server, &tenant, &event("CA1", "ringing", "")).await;
    assert_eq!(call.fields(["caller_id", "caller_form"]), json!([null, "withheld"]));
    // Every genuine callback has this field, so a later one without it is not genuine either.
    assert_eq!(callback(&server, &tenant, &without_from).await.problem_locs(), ["body.From"]);
    let call = tenant.get("/calls/CA1").await.ok();
    assert_eq!(call["status"], "ringing");
});

both!(trunks_say_which_way_from_the_networks_side, async || {
    let (server, tenant) = with_twilio().await;
    for (sid, told, direction) in [
        ("CA1", "inbound", "inbound"),
        ("CA2", "trunking-originating", "inbound"),
        ("CA3", "trunking-terminating", "outbound"),
        ("CA4", "outbound-api", "outbound"),
        ("CA5", "outbound-dial", "outbound"),
        ("CA6", "outbound-by-something-new", "outbound"),
        ("CA7", "something-new", "inbound"),
    ] {
        let fields = with(event(sid, "completed", PATIENT), "Direction", told);
        let call = reported(&server, &tenant, &fields).await;
        assert_eq!(call["direction"], direction, "{told}");
    }
});
