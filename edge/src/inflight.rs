//! How many requests are in flight to each instance, upgraded connections included.
//!
//! The counters belong to names, not to tables, so that they survive every swap: a displaced instance is drained when
//! its counter is 0, whichever tables its requests were bound to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use refloat_model::InstanceName;

/// The counter of one instance.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU32>);

impl Counter {
    /// Counts one request until the lease is dropped.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.0.fetch_add(1, Ordering::SeqCst);
        Lease(self.clone())
    }

    /// How many are in flight.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

/// One request in flight.
#[derive(Debug)]
pub struct Lease(Counter);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The counters of all instances that a table names or a request is in flight to.
#[derive(Debug, Default)]
pub struct Counters(Mutex<HashMap<InstanceName, Counter>>);

impl Counters {
    /// The counter of a name, made when there is none.
    #[must_use]
    pub fn of(&self, name: &InstanceName) -> Counter {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counters.retain(|_, counter| Arc::strong_count(&counter.0) > 1);
        counters.entry(name.clone()).or_default().clone()
    }

    /// How many are in flight to a name; 0 for one that is not known.
    #[must_use]
    pub fn count(&self, name: &str) -> u32 {
        let counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counters.iter().find(|(known, _)| known.as_str() == name).map_or(0, |(_, counter)| counter.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_until_it_is_dropped_and_outlives_the_table() {
        let counters = Counters::default();
        let name = InstanceName::parse("refloat-a-web-1").unwrap();
        let lease = counters.of(&name).lease();
        assert_eq!(counters.count("refloat-a-web-1"), 1);
        // Another instance's counter clears what nobody holds; the lease still holds this one.
        let _other = counters.of(&InstanceName::parse("refloat-b-web-1").unwrap());
        assert_eq!(counters.count("refloat-a-web-1"), 1);
        drop(lease);
        assert_eq!(counters.count("refloat-a-web-1"), 0);
    }
}
