//! A file that is looked at, agreed to, and then sent: it is read several times, and each time says the same.
//!
//! **Invariant:** no byte comes from a further reading that was not there at the first: whoever saves the file meanwhile ends
//! the reading. Memory holds one block, and 32 bytes for each that the file has.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, Take};
use std::slice;

use nightshift_core::input_hash::hex;
use sha2::{Digest, Sha256};

/// What is compared at once: 32 KiB of digests for a file of a gigabyte.
const BLOCK_BYTES: u64 = 1_048_576;

/// A file as it was at its first reading.
#[derive(Debug)]
pub struct LookedAt {
    file: File,
    /// SHA-256 of all.
    pub sha256: String,
    bytes: u64,
    blocks: Vec<[u8; 32]>,
    is_changed: Cell<bool>,
}

impl LookedAt {
    /// Reads it through.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn read(mut file: File) -> io::Result<Self> {
        file.rewind()?;
        let (mut whole, mut bytes, mut blocks) = (Sha256::new(), 0, Vec::new());
        let mut block = Vec::new();
        loop {
            block.clear();
            (&file).take(BLOCK_BYTES).read_to_end(&mut block)?;
            whole.update(&block);
            blocks.push(Sha256::digest(&block).into());
            bytes += block.len() as u64;
            // What is appended from now on is no part of it.
            if (block.len() as u64) < BLOCK_BYTES {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(Self { file, sha256: hex(&whole.finalize()), bytes, blocks, is_changed: Cell::new(false) })
    }

    /// All of it once more, from its first byte; one reading at a time.
    ///
    /// # Errors
    /// Where it cannot be read again.
    pub fn again(&self) -> io::Result<Again<'_>> {
        let mut file = &self.file;
        file.rewind()?;
        let (rest, blocks) = (file.take(self.bytes), self.blocks.iter());
        Ok(Again { rest, blocks, block: Cursor::default(), is_changed: &self.is_changed })
    }

    /// Reads it through once more, to see that it is what it was.
    ///
    /// # Errors
    /// Where it is not, or cannot be read again.
    pub async fn check(&self) -> io::Result<()> {
        let mut again = self.again()?;
        let mut buffer = vec![0; 256 * 1_024];
        while again.read(&mut buffer)? > 0 {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Whether a reading ended because the file is not what it was.
    pub fn is_changed(&self) -> bool {
        self.is_changed.get()
    }
}

/// A further reading.
#[derive(Debug)]
pub struct Again<'a> {
    rest: Take<&'a File>,
    blocks: slice::Iter<'a, [u8; 32]>,
    block: Cursor<Vec<u8>>,
    is_changed: &'a Cell<bool>,
}

impl Read for Again<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.block.read(buffer)?;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        let Some(expected) = self.blocks.next() else { return Ok(0) };
        let mut block = std::mem::take(&mut self.block).into_inner();
        block.clear();
        self.rest.by_ref().take(BLOCK_BYTES).read_to_end(&mut block)?;
        if <[u8; 32]>::from(Sha256::digest(&block)) != *expected {
            self.is_changed.set(true);
            return Err(io::Error::other("it was changed after it was looked at"));
        }
        self.block = Cursor::new(block);
        self.block.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    fn read_again(looked_at: &LookedAt) -> (Vec<u8>, io::Result<usize>) {
        let mut read = Vec::new();
        let ended = looked_at.again().unwrap().read_to_end(&mut read);
        (read, ended)
    }

    #[tokio::test]
    async fn each_reading_says_what_the_first_one_said_or_ends_before_the_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs.jsonl");
        let block = usize::try_from(BLOCK_BYTES).unwrap();
        for length in [0, 1, block - 1, block, block + 1, 2 * block + 7] {
            let content: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            fs::write(&path, &content).unwrap();
            let looked_at = LookedAt::read(File::open(&path).unwrap()).await.unwrap();
            assert_eq!(looked_at.sha256, hex(&Sha256::digest(&content)));
            fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
            for _ in 0..2 {
                let (read, ended) = read_again(&looked_at);
                assert!(ended.is_ok() && read == content, "what is appended is no part of it: {length}");
            }
            assert!(!looked_at.is_changed());
            let Some(last) = length.checked_sub(1) else { continue };
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(b"\xff", last as u64).unwrap();
            let (read, ended) = read_again(&looked_at);
            assert!(ended.is_err() && read == content[..last / block * block], "{length}");
            assert!(looked_at.is_changed());
            file.set_len(0).unwrap();
            assert!(read_again(&looked_at).1.is_err(), "cut: {length}");
        }
    }
}
