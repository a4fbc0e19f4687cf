//! The records of redrives, and the directory that names them.

use nightshift_core::redrive::{DIRECTORY_KEY, Directory, Finish, KEY_PREFIX, Redrive, Source};
use nightshift_ports::{Document, DocumentAnswer};

use crate::{Error, Redriver, TRIES_MAX};

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

impl Redriver {
    pub(crate) async fn read(&self, id: &str) -> Result<Option<Redrive>, Error> {
        let key = format!("{KEY_PREFIX}{id}");
        if key == DIRECTORY_KEY {
            return Ok(None);
        }
        let found = self.ports.documents.read(&key).await?;
        Ok(found.map(|document| Redrive::from_json(&document.json)).transpose()?)
    }

    /// Writes a record that nobody else knows of.
    pub(crate) async fn create(&self, redrive: &Redrive) -> Result<(), Error> {
        match self.ports.documents.write(&document(redrive), None).await? {
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
            let standing = match self.ports.documents.write(&new, Some(expect)).await? {
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
                redrive.finish(Finish::Stopped, self.ports.clock.now_ms());
            }
        }
        Err(Error::Contended)
    }

    pub(crate) async fn directory(&self) -> Result<Directory, Error> {
        match self.ports.documents.read(DIRECTORY_KEY).await? {
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
        Ok(match self.ports.documents.write(&document, expect).await? {
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
