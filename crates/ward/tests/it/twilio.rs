//! Twilio's callbacks: valid signatures, the signed text, and several tokens at once.

use serde_json::{Value, json};
use ward_test::{Fields as _, Server, both};

use crate::calls::{
    ACCOUNT, PATIENT, PUBLIC_URL, TESTER, TOKEN, callback, event, post_form, set_test_callers, set_up_twilio,
    sign, with_twilio,
};

both!(one_tenants_wrong_signatures_do_not_touch_anothers_callbacks, threads = 4, async || {
    let server = Server::with(|config| {
        config.public_url = Some(PUBLIC_URL.to_owned());
        config.rates.enforced = true;
        config.rates.failed_credentials = ward::config::Rate { burst: 20, per_minute: 1 };
        config.rates.failed_in_workspace = ward::config::Rate { burst: 10, per_minute: 1 };
    })
    .await;
    let (wrong, right) = (server.tenant("wrong").await, server.tenant("right").await);
    for tenant in [&wrong, &right] {
        set_up_twilio(tenant).await;
    }
    let guess = || {
        let (actor, path) = (server.anonymous(), wrong.path("/twilio/status"));
        tokio::spawn(async move {
            post_form(&actor, &path, "AAAA", &event("CA1", "completed", PATIENT)).await.status.as_u16()
        })
    };
    let guesses: Vec<_> = (0..200).map(|_| guess()).collect();
    for number in 0..40 {
        let sid = format!("CA{number}");
        let fields = event(&sid, "completed", PATIENT);
        callback(&server, &right, &fields).await.no_content();
        callback(&server, &wrong, &fields).await.no_content();
    }
    let mut limited = 0;
    for answer in guesses {
        let status = answer.await.unwrap();
        assert!([403, 429].contains(&status), "{status}");
        limited += usize::from(status == 429);
    }
    assert_eq!(limited, 190);
    assert_eq!(server.count("SELECT count(*) FROM calls").await, 80);
});

both!(while_tokens_rotate_at_twilio_both_sign, async || {
    const NEXT: &str = "the-next-auth-token";
    let (server, tenant) = with_twilio().await;
    let path = tenant.path("/twilio/status");
    let told = async |token: &str, sid: &str| {
        let fields = event(sid, "completed", PATIENT);
        let signature = sign(token, &format!("{PUBLIC_URL}{path}"), &fields);
        post_form(&server.anonymous(), &path, &signature, &fields).await.status.as_u16()
    };
    assert_eq!((told(TOKEN, "CA1").await, told(NEXT, "CA2").await), (204, 403));
    // Tokens are pasted with the white space that a terminal adds.
    let set = json!({
        "account_sid": ACCOUNT, "auth_token": format!(" {TOKEN}\n"), "secondary_auth_token": format!("{NEXT}\r\n\t"),
    });
    let set = tenant.put("/twilio", set).await;
    assert!(!set.text.contains(NEXT));
    assert!(set.ok().text("secondary_auth_token_reference").contains(&tenant.id));
    assert_eq!((told(TOKEN, "CA3").await, told(NEXT, "CA4").await), (204, 204));
    assert_eq!(told("neither-of-the-two", "CA5").await, 403);
    let at_rest = server.at_rest().await;
    assert!(!at_rest.windows(NEXT.len()).any(|part| part == NEXT.as_bytes()));
    let set = json!({ "account_sid": ACCOUNT, "auth_token": NEXT });
    let set = tenant.put("/twilio", set).await.ok();
    assert_eq!(set["secondary_auth_token_reference"], Value::Null);
    assert_eq!((told(TOKEN, "CA6").await, told(NEXT, "CA7").await), (403, 204));
    for event in tenant.audit().await {
        assert!(!event.to_string().contains(NEXT) && !event.to_string().contains(TOKEN));
    }
});

both!(a_signature_is_good_for_one_reading_of_its_text, async || {
    let (server, tenant) = with_twilio().await;
    set_test_callers(&tenant, &[TESTER]).await;
    let path = tenant.path("/twilio/status");
    let mut genuine = event("CA1", "completed", TESTER);
    genuine.extend([("FromCity", "TOLEDO"), ("CallDuration", "42"), ("CallerName", "To From")]);
    let signature = sign(TOKEN, &format!("{PUBLIC_URL}{path}"), &genuine);
    let without = |name: &str| -> Vec<(&str, &str)> {
        genuine.iter().copied().filter(|(known, _)| *known != name).collect()
    };
    // The caller's number absorbs the next field, or the called number loses its name to the field before it.
    let moved = format!("{TESTER}FromCityTOLEDO");
    let mut swallowed = without("FromCity");
    swallowed.retain(|(name, _)| *name != "From");
    let mut renamed = without("FromCity");
    renamed.retain(|(name, _)| *name != "To");
    swallowed.push(("From", &moved));
    renamed.extend([("FromCity", "TOLEDOT"), ("o", "+15550109999")]);
    let version = "2010-04-01CallDuration42";
    let mut undated = without("CallDuration");
    undated.retain(|(name, _)| *name != "ApiVersion");
    undated.push(("ApiVersion", version));
    for other in [&swallowed, &renamed, &undated] {
        assert_eq!(sign(TOKEN, &format!("{PUBLIC_URL}{path}"), other), signature, "the same text");
        post_form(&server.anonymous(), &path, &signature, other).await.refused_as(403, "callback_refused");
    }
    post_form(&server.anonymous(), &path, &signature, &genuine).await.no_content();
    let call = tenant.get("/calls/CA1").await.ok();
    assert_eq!(call.fields(["direction", "duration_seconds"]), json!(["test", 42.0]));
    let large = [("CallSid", "x".repeat(40_000))];
    let large: Vec<(&str, &str)> = large.iter().map(|(name, value)| (*name, value.as_str())).collect();
    post_form(&server.anonymous(), &path, "", &large).await.refused_as(413, "body_too_large");
});

both!(a_port_in_the_signed_url_may_be_there_or_not, async || {
    let server =
        Server::with(|config| config.public_url = Some("https://ward.example:8443/behind".to_owned())).await;
    let tenant = server.tenant("acme").await;
    let set = tenant.put("/twilio", json!({ "account_sid": ACCOUNT, "auth_token": TOKEN })).await.ok();
    let path = tenant.path("/twilio/status");
    assert_eq!(set["status_callback_url"], format!("https://ward.example:8443/behind{path}"));
    let fields = event("CA1", "completed", PATIENT);
    for (base, status) in [
        ("https://ward.example:8443/behind", 204),
        ("https://ward.example/behind", 204),
        ("https://ward.example:443/behind", 204),
        ("https://ward.example:8444/behind", 403),
        ("https://ward.example:8443", 403),
        ("http://ward.example/behind", 403),
    ] {
        let signature = sign(TOKEN, &format!("{base}{path}"), &fields);
        let answer = post_form(&server.anonymous(), &path, &signature, &fields).await;
        assert_eq!(answer.status, status, "{base}");
        // This proxy does not remove the prefix.
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
        let request = reqwest::Client::new().post(format!("{}/behind{path}", server.url()));
        let request = request.header("x-twilio-signature", signature).body(body);
        assert_eq!(request.send().await.unwrap().status(), status, "{base}");
    }
});
