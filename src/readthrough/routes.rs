//! The routes of one catalog, replaced as a whole when the catalog is.
//!
//! Readers load the table without a lock. A route that both catalogs have is the same object in both tables: its
//! numbers, its metrics, its bound on rebuilds, and the requests that hold it, live on. One that is gone is found no
//! more, and ends with the last request that holds it; its entries age out.

use std::collections::HashMap;
use std::sync::Arc;

use super::route::Route;
use crate::catalog::Catalog;
use crate::telemetry::metrics::Metrics;

/// The routes.
#[derive(Default)]
pub struct Routes {
    by_name: HashMap<Box<str>, Arc<Route>, foldhash::fast::FixedState>,
    in_order: Vec<Arc<Route>>,
    next_number: u32,
}

impl Routes {
    /// The table of `catalog`, in place of `self`.
    pub(super) fn succeed(&self, catalog: &Catalog, metrics: &Metrics) -> Self {
        let mut next_number = self.next_number;
        let in_order: Vec<Arc<Route>> = catalog
            .iter()
            .map(|query| match self.find(query.name()) {
                Some(route) if Arc::ptr_eq(route.query(), query) => Arc::clone(route),
                _ => {
                    let number = next_number;
                    // Entries remember their number; after four billion changed queries one is counted as another's.
                    next_number = next_number.wrapping_add(1);
                    Arc::new(Route::new(number, Arc::clone(query), metrics.query(query.name())))
                }
            })
            .collect();
        let by_name = in_order.iter().map(|route| (route.query().name().into(), Arc::clone(route))).collect();
        Self { by_name, in_order, next_number }
    }

    /// The route of the query called `name`.
    #[inline]
    pub fn find(&self, name: &str) -> Option<&Arc<Route>> {
        self.by_name.get(name)
    }

    /// The route that entries of this number belong to, if it is still there.
    pub(super) fn numbered(&self, number: u32) -> Option<&Arc<Route>> {
        // Evictions ask, and there are tens of queries.
        self.in_order.iter().find(|route| route.number() == number)
    }

    /// Every route, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.in_order.iter()
    }
}
