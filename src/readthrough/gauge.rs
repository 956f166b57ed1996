//! How the read path is: what is degraded, and the gauges that nobody keeps up to date in between.

use super::origin::OriginState;
use super::{Readthrough, StreamState, route};
use crate::catalog::Shape;
use crate::coding::Coding;
use crate::telemetry::metrics::{Degraded, Pooled};

impl Readthrough {
    /// What is not as it should be, for readiness and status: a reason and a sentence each.
    pub fn degraded(&self) -> Vec<(Degraded, String)> {
        let mut reasons = vec![];
        if let OriginState::Away(why) = self.origin().state() {
            reasons.push((Degraded::Postgres, format!("the database can't be reached: {why}")));
        }
        let stream = self.stream();
        if let (Some(reason), Some(why)) = (stream.degraded(), stream.reason()) {
            reasons.push((reason, why.to_owned()));
        }
        if let Some(why) = self.shared.get().and_then(|tier| tier.trouble()) {
            reasons.push((Degraded::Redis, format!("nothing is shared with other pods: {why}")));
        }
        for route in self.routes().iter() {
            let name = route.query().name();
            match &**route.query().shape() {
                Shape::Ready(_) => {
                    let missing = route.query().verdict().is_some_and(|verdict| verdict.missing().next().is_some());
                    if missing && stream == StreamState::Following {
                        let why = format!("query {name} lives by its ttl: tables lack triggers; run seawall migrate");
                        reasons.push((Degraded::Triggers, why));
                    }
                }
                Shape::Pending => {
                    reasons.push((Degraded::QueryPending, format!("query {name} has not been prepared yet")));
                }
                Shape::Broken(_) => {
                    reasons.push((
                        Degraded::QueryBroken,
                        format!("query {name} is broken; the log and `seawall check` say why"),
                    ));
                }
            }
        }
        reasons
    }

    /// Brings the gauges up to date, for whoever reads them next.
    pub fn gauge(&self) {
        fn signed(n: impl TryInto<i64>) -> i64 {
            n.try_into().unwrap_or(i64::MAX)
        }
        let m = self.metrics();
        m.store_entries.set(signed(self.store().len()));
        m.store_bytes.set(signed(self.store().bytes()));
        for coding in Coding::ALL {
            m.packed_bytes(coding, signed(self.store().packed_bytes(coding)));
        }
        m.flights.set(signed(self.flying()));
        m.waiters.set(signed(self.waiting()));
        let (ledger, now) = (self.ledger(), self.clock().now());
        m.ledger_xids.set(signed(ledger.xids()));
        let lag = if ledger.follows() { ledger.lag(now) } else { None };
        m.freshness_bound.set(lag.map_or(f64::INFINITY, |lag| lag.as_secs_f64()));
        let max_lag = self.routes().iter().map(|route| route.query().policy().max_lag).min();
        let blind = max_lag.is_some_and(|max_lag| ledger.version_unless_blind(now, max_lag).is_none());
        m.blind.set(i64::from(blind));
        let pool = self.origin().pool();
        m.pooled(Pooled::Idle, pool.idle);
        m.pooled(Pooled::Busy, pool.busy);
        let reasons = self.degraded();
        for &reason in Degraded::ALL {
            m.degraded(reason, reasons.iter().any(|(r, _)| *r == reason));
        }
        for route in self.routes().iter() {
            m.verdict(route.query().name(), &route::VERDICTS, route.verdict());
        }
    }
}
