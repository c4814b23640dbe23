//! What the records are kept on: keys and bytes, written all together or not at all.

use std::collections::BTreeMap;

use super::StoreError;

/// One change: a key and its new bytes, `None` to forget it.
pub(super) type Change = (Vec<u8>, Option<Vec<u8>>);
/// A key and its bytes.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// In which order a range is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// Is handed a key and its bytes.
pub(super) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError> + 'a;

/// Keys and bytes.
pub(super) trait Shelf: Send {
    /// The bytes of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// At most `limit` pairs whose key begins with `prefix`.
    fn range(&self, prefix: &[u8], order: Order, limit: usize) -> Result<Vec<Pair>, StoreError>;
    /// Hands every pair to `visit`.
    fn each(&self, visit: &mut Visit<'_>) -> Result<(), StoreError>;
    /// Writes all changes or none.
    fn write(&mut self, changes: Vec<Change>) -> Result<(), StoreError>;
}

/// A shelf in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryShelf(BTreeMap<Vec<u8>, Vec<u8>>);

impl Shelf for MemoryShelf {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn range(&self, prefix: &[u8], order: Order, limit: usize) -> Result<Vec<Pair>, StoreError> {
        let pair = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        Ok(match (order, end_of(prefix)) {
            (Order::Ascending, _) => {
                let from = self.0.range(prefix.to_vec()..);
                from.take_while(|(key, _)| key.starts_with(prefix)).take(limit).map(pair).collect()
            }
            (Order::Descending, Some(end)) => self.0.range(prefix.to_vec()..end).rev().take(limit).map(pair).collect(),
            (Order::Descending, None) => self.0.range(prefix.to_vec()..).rev().take(limit).map(pair).collect(),
        })
    }

    fn each(&self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.0.iter().try_for_each(|(key, value)| visit(key, value))
    }

    fn write(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        for (key, value) in changes {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
        Ok(())
    }
}

/// The smallest key behind every key that begins with `prefix`, if there is one.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}
