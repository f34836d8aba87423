//! The vendors whose public documents describe no write that could hold a call (`docs/connectors/`): eClinicalWorks,
//! `CharmHealth`, `RevolutionEHR` and Meditab. Their calls wait with the reason, and nothing is sent.

use serde_json::json;
use ward_test::vendor::{ClientAuth, Vendor};
use ward_test::{Fields as _, both};

use super::{Practice, outcome};

const ACCESS: ClientAuth = ClientAuth::Smart { algorithms: &["RS384"], scopes: &[] };

both!(a_call_that_no_write_could_hold_waits_with_the_reason, async || {
    for connector in ["eclinicalworks", "charmhealth", "revolution", "meditab"] {
        let vendor = Vendor::start(ACCESS, |_, _| outcome(403, "forbidden", "no write is documented")).await;
        let practice = Practice::smart(connector, vendor, json!({})).await;
        let delivery = practice.deliver("CA1", json!({ "patient_id": "p1" })).await;
        let why = json!(["held", "connector_takes_no_calls"]);
        assert_eq!(delivery.fields(["state", "reason"]), why, "{connector}: {delivery}");
        practice.hour().await;
        assert_eq!(practice.delivery(delivery.text("id")).await["state"], "held", "never a dead letter");
        let writes = practice.vendor.asked().into_iter().filter(|asked| asked.method != "GET").count();
        assert_eq!(writes, 0, "{connector}");
    }
});
