//! The poll: one statement that brings every event which its own snapshot sees and the cursor did not, with that snapshot,
//! the lineage and the log's horizon.
//!
//! `xid >= cursor.xmax or xid = any(cursor.xip)`: what had not completed when the cursor was taken is in either. (A
//! snapshot's xmax is the latest *completed* transaction + 1, so running ones at or above it are not in its xip.) Rows
//! that are visible and not seen by the snapshot belong to another history, or to an orphan that is still pending; they
//! are left out before the bound is counted.

use postgres_types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement};

use super::Trouble;
use crate::catalog::tags;
use crate::catalog::verdict::{Closure, SchemaFingerprint};
use crate::clock::Moment;
use crate::ledger::{Asked, Event, Poll, Rows};
use crate::postgres::analyse::fingerprint;
use crate::postgres::lineage;
use crate::postgres::settings::Announcers;
use crate::sabotage::{self, Sabotage};
use crate::stamp::{Lineage, Snapshot, Stamp};
use crate::tag::Tag;

/// Most events of a poll: a millisecond or two of work here, and 100,000 written keys a second at ten polls a second. More
/// raise the horizon, which is the cheaper answer to so many.
const MOST: i64 = 10_000;

/// What a poll looks at beside the log.
pub(super) enum Look<'a> {
    /// Nothing.
    Log,
    /// Whether definitions have changed.
    Schema(&'a Closure),
}

/// What came back.
pub(super) struct Brought {
    /// For the ledger; `None`: there is no lineage, so the epoch is missing, or the server is in recovery.
    pub(super) poll: Option<Poll>,
    /// Tags of which what depends on them is to be forgotten.
    pub(super) purged: Vec<Tag>,
    /// Canaries among the events.
    pub(super) canaries: Vec<Box<str>>,
    /// Of the session that the statement ran in: the marker, if it still has one.
    pub(super) marker: Option<String>,
    /// The epoch, which pruning names.
    pub(super) epoch: Option<String>,
    /// Of the closure that was looked at.
    pub(super) fingerprint: Option<SchemaFingerprint>,
}

/// The statements, prepared on one session.
pub(super) struct Poller {
    log: Statement,
    schema: Statement,
}

/// The tag with which this pod's own canary is announced.
pub(super) const CANARY: &str = "canary:";

impl Poller {
    pub(super) async fn prepare(client: &Client, announcers: &Announcers) -> Result<Self, Trouble> {
        let own = [Type::TEXT, Type::TEXT_ARRAY, Type::INT8];
        let statement = |fingerprint: &str| match announcers {
            Announcers::Seawall => statement(fingerprint),
            Announcers::Operator { .. } => statement_without_log(fingerprint),
        };
        let log = client.prepare_typed(&statement("NULL::text"), &own).await?;
        // The closure's parameters follow the poll's own; the highest first, so that none is replaced twice.
        let mut looked = fingerprint::FINGERPRINT.to_owned();
        for n in (1..=5).rev() {
            looked = looked.replace(&format!("${n}"), &format!("${}", n + own.len()));
        }
        let types: Vec<Type> =
            own.into_iter().chain(fingerprint::parameters(&Closure::default()).map(|(_, kind)| kind)).collect();
        let schema = client.prepare_typed(&statement(&format!("({looked})")), &types).await?;
        Ok(Self { log, schema })
    }

    /// Polls once. `sent` is the moment before the statement is handed to the socket.
    pub(super) async fn poll(
        &self,
        client: &Client,
        asked: &Asked,
        look: Look<'_>,
        sent: Moment,
    ) -> Result<Brought, Trouble> {
        let (xmax, xip) = asked.cursor.as_ref().map_or((0, &[][..]), |cursor| (cursor.xmax(), cursor.xip()));
        let (xmax, xip) = (xmax.to_string(), xip.iter().map(u64::to_string).collect::<Vec<_>>());
        let xip = if sabotage::is(Sabotage::CursorXmin) { vec![] } else { xip };
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&xmax, &xip, &MORE_THAN_MOST];
        let row = match look {
            Look::Log => client.query_one(&self.log, &values).await?,
            Look::Schema(closure) => {
                values.extend(fingerprint::parameters(closure).map(|(value, _)| value));
                client.query_one(&self.schema, &values).await?
            }
        };
        read(&row, sent)
    }
}

const MORE_THAN_MOST: i64 = MOST + 1;

/// The statement; `fingerprint` is an expression for the schema's.
fn statement(fingerprint: &str) -> String {
    let lineage = lineage::EXPRESSION_WITH_EPOCH;
    let seen = "xid < pg_snapshot_xmax(pg_current_snapshot()) AND pg_visible_in_snapshot(xid, pg_current_snapshot())";
    format!(
        "SELECT pg_current_snapshot()::text, {lineage}, (SELECT pg_snapshot_xmin(horizon)::text FROM seawall.epoch), \
         (SELECT id::text FROM seawall.epoch), current_setting('seawall.session', true), {fingerprint}, \
         coalesce(array_agg(xid::text), '{{}}'), coalesce(array_agg(tag), '{{}}') FROM (\
         (SELECT xid, tag FROM seawall.event WHERE xid >= $1::text::xid8 AND {seen} LIMIT $3) UNION ALL \
         (SELECT xid, tag FROM seawall.event WHERE xid = ANY ($2::text[]::xid8[]) AND xid < $1::text::xid8 AND {seen} LIMIT $3)\
         ) AS unseen"
    )
}

/// The same where there is no log: what is heard is in force from this snapshot on. It takes the cursor, and asks for nothing by
/// it.
fn statement_without_log(fingerprint: &str) -> String {
    let lineage = lineage::EXPRESSION;
    format!(
        "SELECT pg_current_snapshot()::text, {lineage}, NULL::text, NULL::text, current_setting('seawall.session', true), \
         {fingerprint}, '{{}}'::text[], '{{}}'::text[] WHERE $1::text IS NOT NULL OR $2::text[] IS NOT NULL OR $3::int8 > 0"
    )
}

fn read(row: &Row, sent: Moment) -> Result<Brought, Trouble> {
    let nonsense = |what: &str| Trouble::nonsense(format!("a poll brought {what}"));
    let snapshot = Snapshot::parse(row.try_get::<_, &str>(0)?).map_err(|_| nonsense("no snapshot"))?;
    let lineage: Option<&str> = row.try_get(1)?;
    let horizon: Option<&str> = row.try_get(2)?;
    let horizon = horizon.map(str::parse).transpose().map_err(|_| nonsense("no horizon"))?;
    let (epoch, marker): (Option<String>, Option<String>) = (row.try_get(3)?, row.try_get(4)?);
    let digits: Option<&str> = row.try_get(5)?;
    let fingerprint =
        digits.map(|d| u128::from_str_radix(d, 16)).transpose().map_err(|_| nonsense("no fingerprint"))?;
    let (xids, texts): (Vec<&str>, Vec<&str>) = (row.try_get(6)?, row.try_get(7)?);
    let more = texts.len() > usize::try_from(MOST).unwrap_or(usize::MAX);
    let (mut events, mut purged, mut canaries) = (Vec::with_capacity(texts.len()), vec![], vec![]);
    for (xid, text) in xids.into_iter().zip(texts) {
        let xid = xid.parse().map_err(|_| nonsense("no transaction id"))?;
        if let Some(pod) = text.strip_prefix(CANARY) {
            canaries.push(pod.into());
            continue;
        }
        if let Some(tag) = tags::purged(text) {
            purged.push(Tag::new(tag));
            continue;
        }
        events.push(Event { tag: Tag::new(text), xid });
        events.extend(tags::table_of(text).map(|table| Event { tag: Tag::new(table), xid }));
    }
    let poll = lineage.map(|lineage| Poll {
        sent,
        stamp: Stamp { lineage: Lineage::new(lineage), snapshot },
        pruned: horizon,
        events,
        rows: if more { Rows::More } else { Rows::All },
    });
    Ok(Brought { poll, purged, canaries, marker, epoch, fingerprint: fingerprint.map(SchemaFingerprint) })
}
