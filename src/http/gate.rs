//! The gate of the query listener: who a request is from, and whether it may have what it asks for.
//!
//! Without `[auth]` it stands open and costs one load. Otherwise a request has to be somebody's before it learns anything: one
//! without a good token gets the same 401 whatever it asks for, and a query that its caller may not ask is not there for it, by
//! the same answer and the same way to it as one that there isn't.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};

use super::problem::{Code, Problem};
use crate::access::{Access, Admitted, Caller, Place, Refusal};
use crate::catalog::Prepared;
use crate::catalog::claims::Claims;
use crate::clock;
use crate::readthrough::Route;
use crate::telemetry::metrics::{CallerMetrics, Metrics, Passed, Unauthorized};

/// Who is let in. Replaced as a whole by a reload; requests that are under way end as they began.
pub struct Gate(Option<Guarded>);

struct Guarded {
    access: Access,
    callers: Vec<CallerMetrics>,
    metrics: Arc<Metrics>,
}

static NOBODYS: Claims = Claims::none();

/// For whom an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// Whoever asks the same.
    Everybody,
    /// Who presents the same credentials.
    Callers,
}

/// Who asks.
pub(super) struct Visitor<'g>(Option<(&'g Guarded, Admitted<'g>)>);

impl Gate {
    /// Open for everybody where there is no `access`.
    pub fn new(access: Option<Access>, metrics: &Arc<Metrics>) -> Self {
        Self(access.map(|access| {
            let callers = access.names().iter().map(|name| metrics.caller(name)).collect();
            Guarded { access, callers, metrics: Arc::clone(metrics) }
        }))
    }

    /// Whether anybody is kept out.
    pub fn is_guarded(&self) -> bool {
        self.0.is_some()
    }

    /// Lets a request in, by its head.
    ///
    /// # Errors
    /// The 401 or 429 that it gets.
    #[inline]
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<Visitor<'_>, Problem> {
        let Some(guarded) = &self.0 else { return Ok(Visitor(None)) };
        guarded.admit(headers).map(|caller| Visitor(Some((guarded, caller))))
    }
}

impl Guarded {
    #[inline]
    fn admit(&self, headers: &HeaderMap) -> Result<Admitted<'_>, Problem> {
        let mut fields = headers.get_all(header::AUTHORIZATION).iter();
        let admitted = match (fields.next(), fields.next()) {
            (field, None) => self.access.admit(field.map(HeaderValue::as_bytes), clock::time_of_day()),
            // Which of them is meant?
            (_, Some(_)) => Err(Refusal::Malformed),
        };
        let caller = admitted.map_err(|refusal| self.refuse(refusal))?;
        let own = &self.callers[caller.number];
        match caller.limits.take() {
            Ok(()) => {
                own.passed(Passed::Admitted);
                Ok(caller)
            }
            Err(wait) => {
                own.passed(Passed::Rate);
                Err(Problem::new(Code::TooManyRequests, "the caller's rate is used up").retry_after(wait))
            }
        }
    }

    #[cold]
    fn refuse(&self, refusal: Refusal) -> Problem {
        self.metrics.unauthorized(match refusal {
            Refusal::Missing => Unauthorized::Missing,
            Refusal::Malformed => Unauthorized::Malformed,
            Refusal::Unknown => Unauthorized::Unknown,
            Refusal::Expired => Unauthorized::Expired,
            Refusal::NotYet => Unauthorized::NotYet,
            Refusal::Elsewhere => Unauthorized::Elsewhere,
        });
        Problem::unauthorized(refusal)
    }
}

impl Visitor<'_> {
    /// Whether it may ask this query; to whom it may not, it isn't there.
    #[inline]
    pub(super) fn may_ask(&self, route: &Route) -> bool {
        self.0.as_ref().is_none_or(|(_, caller)| caller.grant.includes(route.query().name()))
    }

    /// What is known of it.
    #[inline]
    pub(super) fn claims(&self) -> &Claims {
        self.0.as_ref().map_or(&NOBODYS, |(_, caller)| &caller.claims)
    }

    /// For whom the answers of a query are that it may ask.
    #[inline]
    pub(super) fn audience(&self, route: &Route, prepared: &Prepared) -> Audience {
        match &self.0 {
            None => Audience::Everybody,
            Some((guarded, _)) if guarded.access.is_public(route.query().name()) && !prepared.is_personal() => {
                Audience::Everybody
            }
            Some(_) => Audience::Callers,
        }
    }

    /// It, to keep.
    pub(super) fn to_owned(&self) -> Option<Arc<Caller>> {
        self.0.as_ref().map(|(_, caller)| caller.to_owned())
    }

    /// What who may not ask something gets that isn't there, or not for it: nobody in particular might be somebody.
    pub(super) fn unless_somebody(&self) -> Option<Problem> {
        let (guarded, caller) = self.0.as_ref()?;
        guarded.access.is_anonymous(caller).then(|| guarded.refuse(Refusal::Missing))
    }

    /// A place among the caller's requests that wait; `None`: there is no bound.
    ///
    /// # Errors
    /// The 429 where all are taken.
    pub(super) fn wait(&self) -> Result<Option<Place>, Problem> {
        let Some((guarded, caller)) = self.0.as_ref().filter(|(_, caller)| caller.limits.is_bounded()) else {
            return Ok(None);
        };
        caller.limits.wait().map(Some).ok_or_else(|| {
            guarded.callers[caller.number].passed(Passed::Concurrency);
            Problem::new(Code::TooManyRequests, "as many of the caller's requests wait already as may")
                .retry_after(Duration::from_secs(1))
        })
    }
}

/// The claims of a caller that was kept.
pub(super) fn claims_of(caller: Option<&Caller>) -> &Claims {
    caller.map_or(&NOBODYS, |caller| &caller.claims)
}
