//! The values that labels have beside names from the configuration: fixed sets, so the number of series is known at start.

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value of the label.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As the label has it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

labels! {
    /// How a request ended: exactly one for each.
    Outcome {
        /// A fresh answer from memory.
        Hit = "hit",
        /// An old answer from memory, labelled as such.
        Stale = "stale",
        /// A fresh answer from Redis.
        RedisHit = "redis_hit",
        /// It waited for a flight that another request led.
        Collapsed = "collapsed",
        /// It led a flight.
        Miss = "miss",
        /// It asked Postgres although an answer was stored.
        Bypass = "bypass",
        /// 4xx: the client's mistake; or the client left before its answer.
        Rejected = "rejected",
        /// 5xx.
        Error = "error",
    }
}

labels! {
    /// Where an answer came from.
    Served {
        /// Without waiting for anybody.
        Memory = "memory",
        /// Out of the shared tier.
        Redis = "redis",
        /// After a fill.
        Postgres = "postgres",
    }
}

labels! {
    /// Why a rebuild began.
    Rebuild {
        /// Nothing was stored.
        Miss = "miss",
        /// What was stored had outlived its ttl.
        Expired = "expired",
        /// Shortly before expiry.
        Early = "early",
        /// A write made the stored answer wrong.
        Invalidated = "invalidated",
        /// Asked for by a directive or an operator.
        Manual = "manual",
    }
}

labels! {
    /// Why a request had to wait for Postgres.
    Fallback {
        /// Nothing was stored.
        Miss = "miss",
        /// What was stored had outlived its ttl.
        Expired = "expired",
        /// What was stored is another history's, or a write made it wrong.
        Invalidated = "invalidated",
        /// The event stream has been silent for longer than `max_lag`.
        Blind = "blind",
        /// It must not miss any acknowledged write, and the event stream could not be asked.
        Strict = "strict",
        /// What was stored was fresh, and the request's directives wanted a newer one.
        Directive = "directive",
    }
}

labels! {
    /// Why a rebuild brought nothing.
    Failure {
        /// Its deadline passed.
        Timeout = "timeout",
        /// No connection, or none came free.
        Pool = "pool",
        /// Postgres said no.
        Database = "database",
        /// Over `max_rows` or `result_max_bytes`.
        TooLarge = "too_large",
        /// Everybody who wanted it had left.
        Cancelled = "cancelled",
        /// A bug in Seawall.
        Panic = "panic",
    }
}

labels! {
    /// What was turned away at a bound.
    Refused {
        /// `cache.max_queued_fills`.
        QueueFull = "queue_full",
        /// `server.max_waiters`.
        Waiters = "waiters",
        /// The rebuild's deadline passed in the queue.
        Deadline = "deadline",
        /// `server.max_connections`.
        Connections = "connections",
    }
}

labels! {
    /// Why the service is degraded: it serves, and somebody should look.
    Degraded {
        /// The database can't be reached.
        Postgres = "postgres",
        /// A query can't be asked.
        QueryBroken = "query_broken",
        /// A query has not been prepared yet.
        QueryPending = "query_pending",
        /// Schema `seawall` is not in force: every query lives by its ttl alone.
        NoEvents = "no_events",
        /// The event stream is interrupted.
        EventStream = "event_stream",
        /// A pooler is between the event stream and Postgres.
        Pooler = "pooler",
        /// A query's tables lack triggers.
        Triggers = "triggers",
        /// Redis is away or slow: this process shares nothing with others.
        Redis = "redis",
    }
}

labels! {
    /// On which way an invalidation came.
    Announced {
        /// In the log, by a trigger or by SQL.
        Log = "log",
        /// By a notification of somebody else's.
        Notify = "notify",
        /// By hand, where there is no log.
        Manual = "manual",
    }
}

labels! {
    /// Why everything was flushed.
    Flush {
        /// The log was pruned beyond what had been read.
        Gap = "gap",
        /// There was more than one poll brings.
        Flood = "flood",
        /// Another history.
        Lineage = "lineage",
        /// A definition has changed.
        Schema = "schema",
        /// Notifications may have been lost.
        NotifyLost = "notify_lost",
    }
}

labels! {
    /// What became of a hot entry that was invalidated, where its query is refreshed before anybody asks.
    Proactive {
        /// A refresh of it began.
        Begun = "begun",
        /// It is invalidated more often than it is read.
        Damped = "damped",
        /// As many as may be were under way or waiting.
        Refused = "refused",
    }
}

labels! {
    /// What a pooled connection does.
    Pooled {
        /// Open and idle.
        Idle = "idle",
        /// With a fill.
        Busy = "busy",
    }
}

labels! {
    /// How an attempt to connect to Postgres ended.
    Connects {
        /// In a connection.
        Ok = "ok",
        /// In none.
        Failed = "failed",
    }
}

labels! {
    /// What became of a request at the gate, where its credentials were good.
    Passed {
        /// It was let in.
        Admitted = "admitted",
        /// Its caller's rate was used up.
        Rate = "rate",
        /// As many of its caller's requests waited as may.
        Concurrency = "concurrency",
    }
}

labels! {
    /// Why credentials were not accepted.
    Unauthorized {
        /// There were none.
        Missing = "missing",
        /// They were no bearer token, or several.
        Malformed = "malformed",
        /// No such token, or no such signature.
        Unknown = "unknown",
        /// It was good once.
        Expired = "expired",
        /// It will be good.
        NotYet = "not_yet",
        /// It is for others, or from others.
        Elsewhere = "elsewhere",
    }
}

labels! {
    /// What became of an attempt to pack a body.
    Packs {
        /// The form is kept.
        Kept = "kept",
        /// It saves too little, or there is no room for it.
        Pointless = "pointless",
        /// As many as may be were under way.
        Refused = "refused",
    }
}

labels! {
    /// Which of the listeners.
    Listener {
        /// That of queries.
        Queries = "queries",
        /// That of health, metrics and status.
        Admin = "admin",
    }
}

labels! {
    /// How a TLS handshake ended.
    Handshake {
        /// In a connection.
        Ok = "ok",
        /// Closed before anything was said.
        Silent = "silent",
        /// What came was no TLS.
        Plaintext = "plaintext",
        /// No common ground, or a certificate that is missing or not accepted.
        Failed = "failed",
        /// It took too long.
        Slow = "slow",
    }
}

labels! {
    /// What became of a look for an answer of another pod's, and of sharing one's own.
    Shared {
        /// It was there, and is good.
        Hit = "hit",
        /// There was none.
        Miss = "miss",
        /// It lacks a write, or its lifetime is over.
        Outdated = "outdated",
        /// It was made by a version that tells dependencies apart in another way.
        Foreign = "foreign",
        /// What was there is none of ours, or was harmed.
        Malformed = "malformed",
        /// This process's was shared.
        Published = "published",
        /// What is there was read later: it stays.
        Superseded = "superseded",
        /// Neither was read later than the other, which on one primary can't be: what is there stays.
        Incomparable = "incomparable",
        /// As many as may be were being shared.
        Skipped = "skipped",
        /// Redis was away or slow, or became so.
        Failed = "failed",
    }
}

labels! {
    /// What Redis was asked.
    RedisCall {
        /// For an answer.
        Take = "take",
        /// For the right to fill.
        Claim = "claim",
        /// To have it for longer.
        Renew = "renew",
        /// To give it back.
        Release = "release",
        /// To share one.
        Publish = "publish",
        /// Whether it works again.
        Probe = "probe",
    }
}

labels! {
    /// How a flight that found no answer of other pods' came to be the one that fills, or was spared.
    LeaseOutcome {
        /// It was given a lease, and fills.
        Acquired = "acquired",
        /// It waited for another pod's fill, and was given what that brought.
        Waited = "waited",
        /// It waited for another pod that brought nothing, and fills in its place.
        TakenOver = "taken_over",
        /// It fills without: half of its time was over, or Redis was away.
        Skipped = "skipped",
    }
}
