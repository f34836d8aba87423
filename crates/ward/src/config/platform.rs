//! Ward's place in the platform: its region, and the bounds of the platform's later contract.

/// The values of `region` in the contract's schemas.
pub const REGIONS: [&str; 4] = ["us-east-1", "ap-southeast-2", "eu-central-1", "ca-central-1"];

/// Ward's region, and the bounds of the platform's later contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// The one region whose workspaces this Ward holds. `None`: it holds workspaces of all regions.
    pub region: Option<String>,
    /// Pairs of another region and the host that serves it.
    pub region_hosts: Vec<(String, String)>,
    /// Whether only a conversion changes an environment.
    pub environment_by_conversion: bool,
    /// The greatest `limit` of lists; the contract says 20.
    pub list_limit_max: u32,
    /// How many test callers a workspace may have.
    pub test_caller_limit: u32,
}

impl Default for Platform {
    fn default() -> Self {
        Self {
            region: None,
            region_hosts: Vec::new(),
            environment_by_conversion: false,
            list_limit_max: 20,
            test_caller_limit: 20,
        }
    }
}

impl Platform {
    /// The host that serves a region, if the operator configured one.
    pub fn host_of(&self, region: &str) -> Option<&str> {
        self.region_hosts.iter().find(|(known, _)| known == region).map(|(_, host)| host.as_str())
    }
}
