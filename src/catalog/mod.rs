//! The named queries: what may be asked, with which parameters, under which policy.
//!
//! A [`Query`] has two halves. What the operator declared never changes while the catalog lives. What Postgres says of
//! it, its [`Shape`], is found by preparing it and is replaced as a whole when that changes: readers load it without a
//! lock. SQL comes from the configuration alone.

pub mod args;
pub mod claims;
pub mod columns;
pub mod depends;
pub mod params;
pub mod policy;
pub mod query;
pub mod sql;
pub mod tags;
pub mod verdict;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

pub use columns::{Column, JsonType};
pub use policy::{Policy, RequestCacheControl, ResultForm};
pub use query::{Broken, Declaration, ParamDeclaration, Prepared, Query, Shape};

/// The catalog in force, replaced as a whole: whoever works through one loads it once.
pub type InForce = ArcSwap<Catalog>;

/// All queries of one configuration, by name. Immutable; a reload makes a new one.
#[derive(Debug, Default)]
pub struct Catalog {
    by_name: HashMap<Box<str>, Arc<Query>>,
    in_order: Vec<Arc<Query>>,
}

impl Catalog {
    /// A catalog of `declarations`, none of them prepared yet.
    pub fn new(declarations: Vec<Declaration>) -> Self {
        let mut in_order: Vec<Arc<Query>> = declarations.into_iter().map(|d| Arc::new(Query::new(d))).collect();
        in_order.sort_by(|a, b| a.name().cmp(b.name()));
        let by_name = in_order.iter().map(|q| (q.name().into(), Arc::clone(q))).collect();
        Self { by_name, in_order }
    }

    /// A catalog of `declarations` in place of `self`. A query whose declaration is the same stays the same object. One that
    /// differs only in how its answers live has what is known of it with the present one; any other begins unprepared.
    #[must_use]
    pub fn succeed(&self, declarations: Vec<Declaration>) -> Self {
        let mut next = Self::new(declarations);
        for query in &mut next.in_order {
            let Some(present) = self.get(query.name()) else { continue };
            if present.declaration() == query.declaration() {
                *query = Arc::clone(present);
            } else if present.declaration().asks_the_same(query.declaration()) {
                *query = Arc::new(present.declared(query.declaration().clone()));
            }
            next.by_name.insert(query.name().into(), Arc::clone(query));
        }
        next
    }

    /// The queries for which `keeps` holds, the same objects.
    #[must_use]
    pub fn only(&self, keeps: impl Fn(&Query) -> bool) -> Self {
        let in_order: Vec<Arc<Query>> = self.in_order.iter().filter(|query| keeps(query)).cloned().collect();
        let by_name = in_order.iter().map(|q| (q.name().into(), Arc::clone(q))).collect();
        Self { by_name, in_order }
    }

    /// The query called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Query>> {
        self.by_name.get(name)
    }

    /// Every query, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Query>> {
        self.in_order.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.in_order.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.in_order.is_empty()
    }
}
