//! Which redrives there are: one item of the ledger, so that they are found without a scan, and so that no two of one
//! source run at the same time and hide each other's messages.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::record::Redrive;
use super::request::Source;

/// Before the name of a redrive, in the ledger.
pub const KEY_PREFIX: &str = "redrive#";
/// The key of the directory; no redrive is called so.
pub const DIRECTORY_KEY: &str = "redrive#directory";
/// How many redrives are remembered, beside those that are not known to be over.
pub const DIRECTORY_MAX: usize = 50;

/// All redrives, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Directory {
    /// Grows with every write, each of which expects the one before; 0: nothing stands.
    pub version: u64,
    /// The newest first.
    #[serde(default)]
    pub redrives: Vec<Listed>,
    /// What another release says of them.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub id: String,
    /// The queue that it takes from.
    pub source: Source,
    /// It is known to be over, so that nobody need look.
    #[serde(default)]
    pub over: bool,
    /// What another release says of it.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Directory {
    /// The one of this source that is not known to be over.
    #[must_use]
    pub fn running(&self, source: Source) -> Option<&str> {
        self.redrives.iter().find(|one| one.source == source && !one.over).map(|one| one.id.as_str())
    }

    /// The newest one of this source.
    #[must_use]
    pub fn last(&self, source: Source) -> Option<&str> {
        self.redrives.iter().find(|one| one.source == source).map(|one| one.id.as_str())
    }

    /// Those that are not known to be over.
    pub fn unfinished(&self) -> impl Iterator<Item = &str> {
        self.redrives.iter().filter(|one| !one.over).map(|one| one.id.as_str())
    }

    /// Whether it is among them.
    #[must_use]
    pub fn holds(&self, id: &str) -> bool {
        self.redrives.iter().any(|one| one.id == id)
    }

    /// Adds one that begins, and forgets the oldest of those that are over.
    pub fn add(&mut self, redrive: &Redrive) {
        let source = redrive.request.source;
        self.redrives.insert(0, Listed { id: redrive.id.clone(), source, over: false, more: Map::new() });
        let mut places = DIRECTORY_MAX - 1;
        self.redrives.retain(|one| {
            let stays = !one.over || places > 0;
            places = places.saturating_sub(usize::from(one.over));
            stays
        });
    }

    /// Notes that one is over. Returns whether that is news.
    pub fn is_over(&mut self, id: &str) -> bool {
        let found = self.redrives.iter_mut().find(|one| one.id == id && !one.over);
        found.map(|one| one.over = true).is_some()
    }

    /// As it is kept.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Plain structs with string keys always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// As it stands.
    ///
    /// # Errors
    /// What is not as this release knows it.
    pub fn from_json(text: &str) -> Result<Self, super::Unreadable> {
        serde_json::from_str(text).map_err(super::Unreadable::because)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redrive::{Depth, Request};

    fn redrive(id: &str, source: Source) -> Redrive {
        Redrive::begin(id.to_owned(), Request::all(source, "r", "c"), 1, Depth::default(), 1).unwrap()
    }

    #[test]
    fn one_of_each_source_runs_and_the_newest_are_remembered() {
        let mut directory = Directory::default();
        directory.add(&redrive("a", Source::DeadLetters));
        assert_eq!(directory.running(Source::DeadLetters), Some("a"));
        assert_eq!(directory.running(Source::Crashed), None);
        directory.add(&redrive("b", Source::Crashed));
        assert!(directory.is_over("a"));
        assert!(!directory.is_over("a") && !directory.is_over("unknown"), "no news");
        assert_eq!(directory.running(Source::DeadLetters), None);
        assert_eq!(directory.running(Source::Crashed), Some("b"));
        assert_eq!(directory.last(Source::DeadLetters), Some("a"));
        assert_eq!(directory.unfinished().collect::<Vec<_>>(), ["b"]);
        for n in 0..2 * DIRECTORY_MAX {
            directory.add(&redrive(&format!("c-{n}"), Source::DeadLetters));
            assert!(directory.is_over(&format!("c-{n}")));
        }
        assert_eq!(directory.redrives[0].id, "c-99");
        assert!(!directory.holds("c-49") && !directory.holds("a") && directory.holds("c-51"));
        assert_eq!(directory.running(Source::Crashed), Some("b"), "what runs is never forgotten");
        assert_eq!(directory.redrives.len(), DIRECTORY_MAX + 1);
        assert_eq!(Directory::from_json(&directory.to_json()).unwrap(), directory);
    }
}
