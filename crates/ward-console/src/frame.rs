//! The frame of every page: its title, its navigation, and the visitor's permissions.

use serde::Deserialize;

use crate::assets;
use crate::time::Time;
use crate::visit::Guest;
use crate::words;

/// A page of a list of the API.
#[derive(Debug, Deserialize)]
pub struct List<T> {
    pub items: Vec<T>,
    pub has_more: bool,
    #[serde(default)]
    pub continuation_token: Option<i64>,
    #[serde(default)]
    pub total: Option<i64>,
}

impl<T> List<T> {
    /// The token of the next page, if there is one.
    pub fn next(&self) -> Option<i64> {
        self.continuation_token.filter(|_| self.has_more)
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { items: Vec::new(), has_more: false, continuation_token: None, total: None }
    }
}

/// The caller, as `get-me` describes it.
#[derive(Debug, Deserialize)]
pub struct Me {
    pub entity_id: Option<String>,
    pub kind: String,
    pub display_name: Option<String>,
    pub credential: Credential,
    pub memberships: List<Membership>,
}

#[derive(Debug, Deserialize)]
pub struct Credential {
    pub key_id: Option<String>,
    pub expires_at: Time,
}

#[derive(Debug, Deserialize)]
pub struct Membership {
    pub workspace_id: String,
    pub slug: Option<String>,
    pub name: Option<String>,
    pub role: String,
    pub permissions: Vec<String>,
}

/// A workspace with the visitor's permissions in it.
pub struct VisitedWorkspace {
    pub membership: Membership,
    pub me: Me,
}

impl VisitedWorkspace {
    pub fn can(&self, permission: &str) -> bool {
        self.membership.permissions.iter().any(|held| held == permission)
    }

    pub fn is_owner(&self) -> bool {
        self.membership.role == "owner"
    }

    /// Whether the caller is this principal.
    pub fn is_self(&self, entity: &str) -> bool {
        self.me.entity_id.as_deref() == Some(entity)
    }

    pub fn name(&self) -> &str {
        let named = self.membership.name.as_deref().or(self.membership.slug.as_deref());
        named.unwrap_or(&self.membership.workspace_id)
    }
}

/// A place of a workspace in the navigation.
pub struct NavigationItem {
    pub path: &'static str,
    pub label: &'static str,
    needs: &'static str,
}

const PLACES: [NavigationItem; 10] = [
    NavigationItem { path: "", label: "Overview", needs: "Workspace.view" },
    NavigationItem { path: "/calls", label: "Calls", needs: "Call.view" },
    NavigationItem { path: "/deliveries", label: "Deliveries", needs: "Call.view" },
    NavigationItem { path: "/integrations", label: "Integrations", needs: "Integration.view" },
    NavigationItem { path: "/test-callers", label: "Test callers", needs: "Workspace.view" },
    NavigationItem { path: "/keys", label: "API keys", needs: "ApiKey.view" },
    NavigationItem { path: "/people", label: "People", needs: "Workspace.view" },
    NavigationItem { path: "/audit", label: "Audit", needs: "Audit.view" },
    NavigationItem { path: "/usage", label: "Usage", needs: "Workspace.view" },
    NavigationItem { path: "/settings", label: "Settings", needs: "Workspace.view" },
];

/// The data that every page needs around its content.
pub struct Frame {
    pub base: String,
    pub title: String,
    pub csrf: String,
    pub signed_in: bool,
    /// A sentence about the last action. It is empty if there was none.
    pub notice: &'static str,
    pub room: Option<VisitedWorkspace>,
    /// The place of the page in the workspace.
    pub place: &'static str,
}

impl Frame {
    pub fn new(guest: &Guest, title: &str) -> Self {
        Self {
            base: guest.console.base.clone(),
            title: title.to_owned(),
            csrf: guest.session.as_ref().map(|session| session.csrf.clone()).unwrap_or_default(),
            signed_in: guest.session.is_some(),
            notice: words::notice(guest.query.get("done")),
            room: None,
            place: "",
        }
    }

    /// The frame of a page of a workspace.
    #[must_use]
    pub fn within(self, room: VisitedWorkspace, place: &'static str) -> Self {
        Self { room: Some(room), place, ..self }
    }

    pub fn asset(&self, name: &str) -> String {
        format!("{}/assets/{name}?v={}", self.base, assets::version())
    }

    /// The path of the workspace's pages. Empty outside a workspace.
    pub fn here(&self) -> String {
        let room = self.room.as_ref();
        room.map(|room| format!("{}/w/{}", self.base, room.membership.workspace_id)).unwrap_or_default()
    }

    /// The places that the visitor may see.
    pub fn places(&self) -> Vec<&'static NavigationItem> {
        PLACES.iter().filter(|place| self.can(place.needs)).collect()
    }

    pub fn can(&self, permission: &str) -> bool {
        self.room.as_ref().is_some_and(|room| room.can(permission))
    }

    pub fn is_owner(&self) -> bool {
        self.room.as_ref().is_some_and(VisitedWorkspace::is_owner)
    }

    pub fn is_self(&self, entity: &str) -> bool {
        self.room.as_ref().is_some_and(|room| room.is_self(entity))
    }

    pub fn slug(&self) -> &str {
        self.room.as_ref().and_then(|room| room.membership.slug.as_deref()).unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.room.as_ref().map(VisitedWorkspace::name).unwrap_or_default()
    }

    pub fn role(&self) -> &str {
        self.room.as_ref().map_or("", |room| &room.membership.role)
    }

    pub fn id(&self) -> &str {
        self.room.as_ref().map_or("", |room| &room.membership.workspace_id)
    }
}
