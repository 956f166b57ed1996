//! What the report says of the database around the queries: what it costs, whom, and what to do.
//!
//! Wording alone; what there is `postgres` has found out. A warning is of something that costs writers or the log now, or
//! will; a note is of what an operator should know and may well want so. Names that others choose are shown escaped, as they
//! go to a terminal.

use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Source;
use crate::postgres::{Holder, HolderKind, Listed, Notified, NotifyingTrigger, Queue, QueueSession, Surroundings};

/// One thing to know.
pub(super) struct Warning {
    kind: &'static str,
    /// A sentence or two.
    pub(super) message: String,
    details: Value,
}

/// Those that nothing need be done about.
const NOTES: [&str; 3] = ["prepared_transactions", "sessions_hidden", "more"];

impl Warning {
    fn new(kind: &'static str, message: String, details: Value) -> Self {
        Self { kind, message, details }
    }

    /// Of so many more of a kind than are listed.
    fn more<T>(listed: &Listed<T>, what: &str) -> Option<Self> {
        let message = format!("{} more {what}", listed.more);
        (listed.more > 0).then(|| Self::new("more", message, json!({ "of": what, "count": listed.more })))
    }

    /// What the line begins with.
    pub(super) fn weight(&self) -> &'static str {
        if NOTES.contains(&self.kind) { "note" } else { "warning" }
    }

    /// For machines: `kind`, `message`, and what it is about.
    pub(super) fn json(&self) -> Value {
        let mut all = json!({ "kind": self.kind, "message": self.message });
        if let (Value::Object(all), Value::Object(details)) = (&mut all, &self.details) {
            all.extend(details.clone());
        }
        all
    }
}

/// Everything that there is to say of `surroundings`, or that they could not be looked at, where events come from `source`
/// and the log keeps them for `retention`.
pub(super) fn warnings(
    surroundings: &Result<Surroundings, String>,
    source: Source,
    retention: Duration,
) -> Vec<Warning> {
    let found = match surroundings {
        Ok(found) => found,
        Err(why) => {
            let message =
                format!("triggers, the notification queue and long transactions could not be looked at: {why}");
            return vec![Warning::new("unseen", message, json!({ "reason": why }))];
        }
    };
    let mut said: Vec<Warning> = found.notifying.first.iter().map(|t| notifying(t, source)).collect();
    said.extend(Warning::more(&found.notifying, "triggers that notify"));
    said.extend(found.notified.map(notified));
    said.extend(found.queue.as_ref().map(queue));
    // Without the log nobody cleans it up, and nobody rings.
    if source == Source::Log {
        said.extend(found.holders.first.iter().map(|holder| held(holder, retention)));
        said.extend(Warning::more(&found.holders, "that hold the event log's cleanup back"));
        said.extend((found.max_prepared_transactions > 0).then(|| two_phase(found.max_prepared_transactions)));
    }
    said.extend((found.hidden_sessions > 0).then(|| hidden(found)));
    said
}

fn notifying(trigger: &NotifyingTrigger, source: Source) -> Warning {
    let NotifyingTrigger { table, trigger: name, function, .. } = trigger;
    let whose = if trigger.is_read { ", which queries depend on," } else { "" };
    let often = match (trigger.calls, trigger.written) {
        (Some(calls), _) => format!(" ({calls} calls since statistics were reset)"),
        (None, 0) => String::new(),
        (None, rows) => format!(" ({rows} rows of the table written since statistics were reset)"),
    };
    let remedy = match (source, trigger.is_read) {
        (Source::Log, true) => "Seawall's own triggers announce these writes: drop this one, or notify rarely",
        (Source::Log, false) => "notify rarely, or from a job that looks for what is new",
        (Source::Notify | Source::None, _) => {
            "with source = \"log\" Seawall's own triggers announce writes, and notify only where a pod sleeps"
        }
    };
    let message = format!(
        "trigger {} on {}{whose} notifies, in {}(){often}: each commit with it holds a lock of the whole server while its \
         WAL is flushed, so writers commit one after the other; {remedy}",
        shown(name),
        shown(table),
        shown(function)
    );
    let details = json!({
        "table": table, "trigger": name, "function": function, "depended_on": trigger.is_read,
        "calls": trigger.calls, "rows_written": trigger.written,
    });
    Warning::new("notify_trigger", message, details)
}

fn notified(notified: Notified) -> Warning {
    let Notified { calls, per_second } = notified;
    let message = format!(
        "clients notify in statements of their own, {per_second:.1} times a second on average ({calls} calls in \
         pg_stat_statements): each such commit holds a lock of the whole server while its WAL is flushed; \
         where it is for Seawall, SELECT seawall.invalidate(…) announces without it"
    );
    Warning::new("notify_statements", message, json!({ "calls": calls, "per_second": per_second }))
}

fn queue(queue: &Queue) -> Warning {
    let percent = queue.usage * 100.0;
    let mut message = format!(
        "the notification queue is {percent:.1} % full: a session that listens doesn't read it, most often one that is idle \
         in a transaction; when it is full, transactions that notify fail"
    );
    if queue.sessions.is_empty() {
        message.push_str("; no session that may be the one can be seen");
    } else {
        let sessions: Vec<String> = queue.sessions.iter().map(reader).collect();
        message.push_str("; look at ");
        message.push_str(&sessions.join(", "));
    }
    let sessions: Vec<Value> = queue
        .sessions
        .iter()
        .map(|s| {
            json!({
                "pid": s.pid, "role": s.role, "database": s.database, "application_name": s.application,
                "state": s.state, "age_seconds": s.age.map(|age| age.as_secs()),
            })
        })
        .collect();
    Warning::new("notification_queue", message, json!({ "usage": queue.usage, "sessions": sessions }))
}

fn reader(session: &QueueSession) -> String {
    let about = match session.age {
        Some(age) => format!("{}, its transaction began {} ago", session.state, rough(age)),
        None => format!("{}, its client takes nothing", session.state),
    };
    let (database, role) = (shown(&session.database), shown(&session.role));
    format!(
        "pid {} (application_name {:?}, role {role}, database {database}, {about})",
        session.pid, session.application
    )
}

fn held(holder: &Holder, retention: Duration) -> Warning {
    let (kind, what, remedy) = match holder.kind {
        HolderKind::Session => (
            "session",
            format!("the transaction of pid {}", holder.name),
            "end it, or SELECT pg_terminate_backend(pid)",
        ),
        HolderKind::Standby => {
            ("standby", format!("the standby of pid {}", holder.name), "end its long queries, or hot_standby_feedback")
        }
        HolderKind::Prepared => {
            ("prepared", format!("the prepared transaction {:?}", holder.name), "COMMIT PREPARED or ROLLBACK PREPARED")
        }
        HolderKind::Slot => (
            "slot",
            format!("the replication slot {}", shown(&holder.name)),
            "let its standby catch up and end its long queries, or drop the slot",
        ),
    };
    let about: Vec<String> = [
        holder.application.as_ref().map(|name| format!("application_name {name:?}")),
        holder.role.as_ref().map(|role| format!("role {}", shown(role))),
        holder.database.as_ref().map(|database| format!("database {}", shown(database))),
        holder.state.clone(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
    let long = match holder.age {
        Some(age) => format!("for {}", rough(age)),
        None => "since before its horizon".to_owned(),
    };
    let message = format!(
        "{what}{about} holds the event log's cleanup back {long}, and invalidation.retention is {}: the log grows until it \
         ends; {remedy}",
        rough(retention)
    );
    let details = json!({
        "holder": kind, "name": holder.name, "age_seconds": holder.age.map(|age| age.as_secs()), "role": holder.role,
        "database": holder.database, "application_name": holder.application, "state": holder.state,
    });
    Warning::new("cleanup_held", message, details)
}

fn two_phase(max: u32) -> Warning {
    let message = format!(
        "max_prepared_transactions is {max}: nobody rings the doorbell, since a transaction that has notified can't be \
         prepared; while nothing is written pods poll every 50 ms"
    );
    Warning::new("prepared_transactions", message, json!({ "max_prepared_transactions": max }))
}

fn hidden(found: &Surroundings) -> Warning {
    let (role, sessions) = (shown(&found.role), found.hidden_sessions);
    let message = format!(
        "role {role} may not see what {sessions} sessions of other roles do, so a long transaction or a listener among them \
         may be missing here; GRANT pg_read_all_stats TO {role} shows them"
    );
    Warning::new("sessions_hidden", message, json!({ "role": found.role, "sessions": sessions }))
}

/// A name with what a terminal would take for a command escaped.
fn shown(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// To the unit that matters.
fn rough(age: Duration) -> String {
    match age.as_secs() {
        0 => format!("{} ms", age.as_millis()),
        s @ 1..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION: Duration = Duration::from_secs(900);

    fn found() -> Surroundings {
        let trigger = NotifyingTrigger {
            table: "shop.products".into(),
            trigger: "tell".into(),
            function: "shop.tell".into(),
            is_read: true,
            calls: None,
            written: 7,
        };
        let holder = Holder {
            kind: HolderKind::Slot,
            name: "old".into(),
            age: None,
            role: None,
            database: None,
            application: None,
            state: Some("inactive".into()),
        };
        Surroundings {
            notifying: Listed { first: vec![trigger], more: 3 },
            holders: Listed { first: vec![holder], more: 0 },
            max_prepared_transactions: 10,
            ..Surroundings::default()
        }
    }

    fn kinds(said: &[Warning]) -> Vec<&str> {
        said.iter().map(|warning| warning.kind).collect()
    }

    #[test]
    fn what_concerns_the_log_is_said_only_where_there_is_one() {
        let with = warnings(&Ok(found()), Source::Log, RETENTION);
        assert_eq!(kinds(&with), ["notify_trigger", "more", "cleanup_held", "prepared_transactions"]);
        assert_eq!(with.iter().map(Warning::weight).collect::<Vec<_>>(), ["warning", "note", "warning", "note"]);
        assert!(with[0].message.contains("drop this one"), "{}", with[0].message);
        for source in [Source::Notify, Source::None] {
            let without = warnings(&Ok(found()), source, RETENTION);
            assert_eq!(kinds(&without), ["notify_trigger", "more"]);
            assert!(!without[0].message.contains("drop"), "{}", without[0].message);
        }
    }

    #[test]
    fn what_could_not_be_looked_at_is_not_called_well() {
        let said = warnings(&Err("it is locked".into()), Source::Log, RETENTION);
        assert_eq!(kinds(&said), ["unseen"]);
        assert!(said[0].message.contains("it is locked"), "{}", said[0].message);
        assert!(warnings(&Ok(Surroundings::default()), Source::Log, RETENTION).is_empty());
    }

    #[test]
    fn names_can_not_command_the_terminal() {
        let mut found = found();
        found.notifying.first[0].trigger = "a\u{1b}[2J\nb".into();
        let said = warnings(&Ok(found), Source::Log, RETENTION);
        assert!(!said[0].message.contains(char::is_control), "{}", said[0].message);
    }

    #[test]
    fn ages_are_told_in_the_unit_that_matters() {
        let said = [0, 1, 119, 120, 7199, 7200, 172_799, 172_800].map(|s| rough(Duration::from_secs(s)));
        assert_eq!(said, ["0 ms", "1 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
    }
}
