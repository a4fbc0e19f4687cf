//! The records of redrives, and the directory that names them.

use std::sync::Arc;

use nightshift_core::redrive::{DIRECTORY_KEY, Directory, Finish, KEY_PREFIX, Redrive, Source};
use nightshift_ports::{Clock, Document, DocumentAnswer, Documents};

use crate::{Error, TRIES_MAX};

/// Where the records and their directory are kept.
pub(crate) struct Store {
    pub(crate) documents: Arc<dyn Documents>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What became of a write.
pub(crate) enum Wrote {
    /// It stands.
    Ours,
    /// Another step has the lock until then.
    Others { until_ms: u64 },
}

fn document(redrive: &Redrive) -> Document {
    Document {
        key: format!("{KEY_PREFIX}{}", redrive.id),
        version: redrive.version,
        json: redrive.to_json(),
        expires_at_s: Some(redrive.expires_at_ms().div_ceil(1_000)),
    }
}

impl Store {
    pub(crate) async fn read(&self, id: &str) -> Result<Option<Redrive>, Error> {
        let key = format!("{KEY_PREFIX}{id}");
        if key == DIRECTORY_KEY {
            return Ok(None);
        }
        let found = self.documents.read(&key).await?;
        Ok(found.map(|document| Redrive::from_json(&document.json)).transpose()?)
    }

    /// Writes a record that nobody else knows of.
    pub(crate) async fn create(&self, redrive: &Redrive) -> Result<(), Error> {
        match self.documents.write(&document(redrive), None).await? {
            DocumentAnswer::Written => Ok(()),
            DocumentAnswer::Refused(Some(standing)) if standing == document(redrive) => Ok(()),
            DocumentAnswer::Refused(_) => Err(Error::Contended),
        }
    }

    /// Writes a record over the version that it has, and gives it the next one; `token` is of the step that holds its
    /// lock. A stop that came between is taken over.
    pub(crate) async fn write(&self, redrive: &mut Redrive, token: &str) -> Result<Wrote, Error> {
        for _ in 0..TRIES_MAX {
            let expect = redrive.version;
            redrive.version += 1;
            let new = document(redrive);
            let standing = match self.documents.write(&new, Some(expect)).await? {
                DocumentAnswer::Written => return Ok(Wrote::Ours),
                DocumentAnswer::Refused(Some(standing)) if standing == new => return Ok(Wrote::Ours),
                DocumentAnswer::Refused(standing) => standing,
            };
            let Some(standing) = standing else { return Err(Error::NotFound(redrive.id.clone())) };
            let standing = Redrive::from_json(&standing.json)?;
            if !redrive.gives_way_to(&standing, token) {
                return Ok(Wrote::Others { until_ms: standing.lock.map_or(0, |lock| lock.until_ms) });
            }
            // The step that gives its lock back is the last that can obey.
            if redrive.lock.is_none() && redrive.stop.is_some() && redrive.end.is_none() {
                redrive.finish(Finish::Stopped, self.clock.now_ms());
            }
        }
        Err(Error::Contended)
    }

    pub(crate) async fn directory(&self) -> Result<Directory, Error> {
        match self.documents.read(DIRECTORY_KEY).await? {
            None => Ok(Directory::default()),
            Some(document) => Ok(Directory::from_json(&document.json)?),
        }
    }

    /// Writes the directory; `false`: others have written it meanwhile.
    async fn write_directory(&self, directory: &mut Directory) -> Result<bool, Error> {
        let expect = (directory.version > 0).then_some(directory.version);
        directory.version += 1;
        let document = Document {
            key: DIRECTORY_KEY.to_owned(),
            version: directory.version,
            json: directory.to_json(),
            expires_at_s: None,
        };
        Ok(match self.documents.write(&document, expect).await? {
            DocumentAnswer::Written => true,
            DocumentAnswer::Refused(standing) => standing == Some(document),
        })
    }

    /// An error where another redrive of this source is not over.
    pub(crate) async fn refuse_beside_another(&self, source: Source) -> Result<Directory, Error> {
        let mut directory = self.directory().await?;
        while let Some(id) = directory.running(source).map(str::to_owned) {
            if self.read(&id).await?.is_some_and(|other| other.end.is_none()) {
                return Err(Error::Running { id, source_queue: source });
            }
            directory.is_over(&id);
        }
        Ok(directory)
    }

    /// Makes a redrive known. Of two that begin at the same time, one is refused.
    pub(crate) async fn enter(&self, redrive: &Redrive) -> Result<(), Error> {
        for tried in 0..TRIES_MAX {
            // Refused before, its own entry may have been written all the same, and its reply lost.
            if tried > 0 && self.directory().await?.holds(&redrive.id) {
                return Ok(());
            }
            let mut directory = self.refuse_beside_another(redrive.request.source).await?;
            directory.add(redrive);
            if self.write_directory(&mut directory).await? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    /// Notes in the directory that a redrive is over.
    pub(crate) async fn strike_out(&self, redrive: &Redrive) -> Result<(), Error> {
        for _ in 0..TRIES_MAX {
            let mut directory = self.directory().await?;
            if !directory.is_over(&redrive.id) || self.write_directory(&mut directory).await? {
                return Ok(());
            }
        }
        // Whoever starts or lists the next one finds it over.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::{Mutex, PoisonError};

    use async_trait::async_trait;
    use nightshift_core::redrive::{Depth, Request};
    use nightshift_ports::PortError;

    use super::*;

    /// Documents in memory, of which one write takes effect and loses its reply: the SDK makes it again, and what another
    /// redrive wrote in between refuses it.
    #[derive(Default)]
    struct Shelf {
        documents: Mutex<HashMap<String, Document>>,
        between: Mutex<Option<Redrive>>,
    }

    impl Shelf {
        fn put(&self, document: &Document, expect: Option<u64>) -> DocumentAnswer {
            let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
            let standing = documents.get(&document.key).cloned();
            if standing.as_ref().map(|standing| standing.version) != expect {
                return DocumentAnswer::Refused(standing);
            }
            documents.insert(document.key.clone(), document.clone());
            DocumentAnswer::Written
        }

        fn directory(&self) -> Directory {
            let documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
            documents
                .get(DIRECTORY_KEY)
                .map_or_else(Directory::default, |standing| Directory::from_json(&standing.json).unwrap())
        }
    }

    #[async_trait]
    impl Documents for Shelf {
        async fn read(&self, key: &str) -> Result<Option<Document>, PortError> {
            Ok(self.documents.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
        }

        async fn write(&self, document: &Document, expect: Option<u64>) -> Result<DocumentAnswer, PortError> {
            let first = self.put(document, expect);
            let other = self
                .between
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take_if(|_| document.key == DIRECTORY_KEY);
            let Some(other) = other else { return Ok(first) };
            let mut directory = self.directory();
            let before = directory.version;
            directory.version += 1;
            directory.add(&other);
            let json = directory.to_json();
            let theirs = Document {
                key: DIRECTORY_KEY.to_owned(),
                version: directory.version,
                json,
                expires_at_s: None,
            };
            assert_eq!(self.put(&theirs, Some(before)), DocumentAnswer::Written);
            Ok(self.put(document, expect))
        }
    }

    struct Noon;

    impl Clock for Noon {
        fn now_ms(&self) -> u64 {
            43_200_000
        }
    }

    fn redrive(id: &str, source: Source) -> Redrive {
        Redrive::begin(id.to_owned(), Request::all(source, "r", "c"), 1, Depth::default(), 1).unwrap()
    }

    fn store(between: Option<Redrive>) -> (Arc<Shelf>, Store) {
        let shelf = Arc::new(Shelf { between: Mutex::new(between), ..Shelf::default() });
        (Arc::clone(&shelf), Store { documents: shelf, clock: Arc::new(Noon) })
    }

    #[tokio::test]
    async fn one_whose_entry_lost_its_reply_is_entered_once_and_not_refused_by_itself() {
        let (shelf, store) = store(Some(redrive("theirs", Source::Crashed)));
        let ours = redrive("ours", Source::DeadLetters);
        store.create(&ours).await.unwrap();
        store.enter(&ours).await.unwrap();
        let directory = shelf.directory();
        assert_eq!(directory.unfinished().collect::<Vec<_>>(), ["theirs", "ours"]);
    }

    #[tokio::test]
    async fn one_beside_another_of_its_source_is_refused_by_that_ones_name() {
        let (_, store) = store(None);
        for one in [redrive("first", Source::DeadLetters), redrive("elsewhere", Source::Crashed)] {
            store.create(&one).await.unwrap();
            store.enter(&one).await.unwrap();
        }
        let second = redrive("second", Source::DeadLetters);
        store.create(&second).await.unwrap();
        let refused = store.enter(&second).await.unwrap_err().to_string();
        assert_eq!(refused, "the redrive first of dead-letters is not over: wait for it, or stop it first");
    }
}
