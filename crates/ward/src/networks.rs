//! Networks: the IP ranges from which a credential may be used.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ward_contract::RuleProblem;
use ward_db::{Error, FromColumn, Json, Row};

use crate::address::range;
use crate::context::Context;
use crate::error::ApiError;

/// IP ranges, sorted, none within another. An empty list restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// The ranges with these texts. A range within another one is left out.
    ///
    /// # Errors
    /// The reason why a text is no range.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        let mut all = texts.iter().map(|text| range(text)).collect::<Result<Vec<_>, _>>()?;
        all.sort_unstable();
        all.dedup();
        let within_another = |net: &IpNet| all.iter().any(|other| other != net && other.contains(net));
        Ok(Self(all.iter().filter(|net| !within_another(net)).copied().collect()))
    }

    /// Whether a request may come from this address, which has no IPv4-mapped form.
    pub fn allow(&self, address: IpAddr) -> bool {
        self.0.is_empty() || self.0.iter().any(|net| net.contains(&address))
    }

    /// Whether these ranges allow each address that the others allow.
    pub fn cover(&self, others: &Self) -> bool {
        let covered = |net: &IpNet| self.0.iter().any(|own| own.contains(net));
        self.0.is_empty() || !others.0.is_empty() && others.0.iter().all(covered)
    }

    /// Refuses networks that would keep the caller of this request out (409).
    pub fn keep_caller(&self, context: &Context) -> Result<(), ApiError> {
        if self.allow(context.address) {
            return Ok(());
        }
        let refused = ApiError::conflict(
            "would_lock_out",
            "Your own address is outside of these networks, so you would lock yourself out.",
        );
        let detail = format!(
            "Your own address, {}, is outside of these networks, so you would lock yourself out.",
            context.address
        );
        Err(refused.saying(detail))
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The stored form: a JSON list, or `None` for an empty one.
    pub fn stored(&self) -> Option<String> {
        let ranges = self.0.iter().map(IpNet::to_string);
        (!self.0.is_empty()).then(|| ranges.collect::<Value>().to_string())
    }
}

impl FromColumn for Networks {
    fn from_column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
        match Option::<Json>::from_column(row, index)? {
            Some(Json(text)) => serde_json::from_str(&text).map_err(Error::unreadable),
            None => Ok(Self::default()),
        }
    }
}

/// The value rule of a range.
pub fn rule(value: &Value) -> Vec<RuleProblem> {
    value.as_str().and_then(|text| range(text).err()).map(RuleProblem::here).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        Networks::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn shown(texts: &[&str]) -> Value {
        serde_json::to_value(networks(texts)).unwrap()
    }

    #[test]
    fn ranges_are_normal_and_none_is_within_another() {
        let given = [
            "192.0.2.7",
            "10.1.0.0/16",
            "::ffff:10.2.0.0/112",
            "10.0.0.0/8",
            "2001:DB8:0::/32",
            "10.0.0.0/8",
        ];
        assert_eq!(shown(&given), serde_json::json!(["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]));
        assert_eq!(shown(&["0.0.0.0/0", "::/0", "127.0.0.1"]), serde_json::json!(["0.0.0.0/0", "::/0"]));
        assert_eq!(
            shown(&["10.0.0.0/25", "10.0.0.128/25"]),
            serde_json::json!(["10.0.0.0/25", "10.0.0.128/25"])
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "*",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0/8",
            "010.0.0.0/8",
            "10.0.0.0/8 ",
            "10.0.0.0/255.0.0.0",
            "::/129",
            "fe80::1%eth0",
            "10.0.0.0 - 10.0.0.9",
            "localhost",
            "[::1]",
            "10.0.0.1:80",
        ] {
            assert!(range(text).is_err_and(|why| why.starts_with("Not an IP range")), "{text:?}");
        }
        let why = range("192.0.2.9/24").unwrap_err();
        assert!(why.ends_with("Write 192.0.2.0/24 for the range, or 192.0.2.9 for the address"), "{why}");
        // A prefix of fewer than 96 bits does not end within the mapped addresses.
        for text in ["2001:db8::1/64", "::ffff:10.0.0.1/104", "::ffff:0:0/90", "::ffff:10.0.0.0/64"] {
            assert!(range(text).is_err_and(|why| why.starts_with("The address has bits")), "{text:?}");
        }
    }

    #[test]
    fn addresses_and_ranges_are_within_or_not() {
        let some = networks(&["192.0.2.0/24", "2001:db8::/32"]);
        for (address, allowed) in [
            ("192.0.2.0", true),
            ("192.0.2.255", true),
            ("192.0.3.0", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::192.0.2.1", false),
        ] {
            assert_eq!(some.allow(address.parse().unwrap()), allowed, "{address}");
        }
        let all = networks(&[]);
        assert!(all.allow("192.0.2.1".parse().unwrap()) && all.cover(&some) && all.cover(&all));
        assert!(!some.cover(&all) && some.cover(&some) && some.cover(&networks(&["192.0.2.128/25"])));
        assert!(!some.cover(&networks(&["192.0.2.128/25", "192.0.3.0/24"])));
        assert!(!networks(&["::/0"]).allow("192.0.2.1".parse().unwrap()));
    }
}
