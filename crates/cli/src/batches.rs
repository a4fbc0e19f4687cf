//! What fits into one `SendMessageBatch`.

/// Entries of one batch (Amazon SQS message quotas).
const ENTRIES_MAX: usize = 10;
/// Bytes of one batch, all messages together (Amazon SQS message quotas: 1 MiB).
const BYTES_MAX: usize = 1_048_576;

/// What has a size in a queue.
pub trait Weighed {
    /// Bytes that SQS counts.
    fn bytes(&self) -> usize;
}

/// Collects messages until a batch is full.
#[derive(Debug)]
pub struct Batch<M> {
    messages: Vec<M>,
    bytes: usize,
    entries_max: usize,
}

impl<M> Default for Batch<M> {
    fn default() -> Self {
        Self::of_at_most(ENTRIES_MAX)
    }
}

impl<M> Batch<M> {
    /// Batches of at most so many messages.
    pub fn of_at_most(entries: usize) -> Self {
        Self { messages: Vec::new(), bytes: 0, entries_max: entries.clamp(1, ENTRIES_MAX) }
    }
}

impl<M: Weighed> Batch<M> {
    /// Takes one more. Where it does not fit any more, what was collected comes back, and the batch begins with it.
    pub fn push(&mut self, message: M) -> Option<Vec<M>> {
        let bytes = message.bytes();
        let full = self.messages.len() == self.entries_max
            || (!self.messages.is_empty() && self.bytes.saturating_add(bytes) > BYTES_MAX);
        let before = full.then(|| self.take());
        self.bytes += bytes;
        self.messages.push(message);
        before
    }

    /// What was collected; nothing where nothing was.
    pub fn take(&mut self) -> Vec<M> {
        self.bytes = 0;
        std::mem::take(&mut self.messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weighed for usize {
        fn bytes(&self) -> usize {
            *self
        }
    }

    fn batches(sizes: &[usize]) -> Vec<Vec<usize>> {
        let mut batch = Batch::default();
        let mut all: Vec<_> = sizes.iter().filter_map(|size| batch.push(*size)).collect();
        all.push(batch.take());
        all
    }

    #[test]
    fn a_batch_ends_at_ten_messages_or_at_its_bytes() {
        for (sizes, expected) in [
            (&[1; 10][..], vec![10]),
            (&[1; 11], vec![10, 1]),
            (&[BYTES_MAX, 1], vec![1, 1]),
            (&[BYTES_MAX - 1, 1], vec![2]),
            (&[400_000, 400_000, 400_000, 1], vec![2, 2]),
            (&[BYTES_MAX; 3], vec![1, 1, 1]),
            (&[], vec![0]),
        ] {
            let lengths: Vec<_> = batches(sizes).iter().map(Vec::len).collect();
            assert_eq!(lengths, expected, "{sizes:?}");
        }
    }
}
