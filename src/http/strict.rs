//! Requests that no stored answer will do for unless it has been validated since they came: of strict queries, with `no-cache`,
//! with `Seawall-After`.

use std::sync::Arc;

use http::HeaderMap;

use super::problem::{Code, Problem};
use super::read::{Asking, Service, refuse, withheld};
use super::reply::Reply;
use super::represent::Asked;
use super::response::{Response, SEAWALL_AFTER};
use super::tally::Tally;
use crate::catalog::policy::Consistency;
use crate::readthrough::{Directives, Look, Route, Token};

impl Service {
    /// A request whose answer must be as good as what Postgres would say.
    pub(super) fn strictly(self: &Arc<Self>, tally: Tally, asking: Asking, head: bool, headers: HeaderMap) -> Reply {
        let service = Arc::clone(self);
        Reply::Later(Box::pin(async move {
            let asked = asking.asked(tally.route(), head, &headers);
            service.answer_strictly(tally, &asking, &asked).await
        }))
    }

    pub(super) async fn answer_strictly(&self, tally: Tally, asking: &Asking, asked: &Asked<'_>) -> Response {
        let token = match token(asked.headers) {
            Ok(token) => token,
            Err(problem) => return refuse(tally, problem, asked.headers),
        };
        match self.read().look_strictly(&asking.ask(tally.route()), token.as_ref()).await {
            Ok(Look::Answer(answer)) => self.answered(tally, answer, asked),
            Ok(Look::Withheld) => refuse(tally, withheld(), asked.headers),
            Ok(Look::Rebuild(want)) => self.wait(tally, asking, want, asked).await,
            Err(error) => self.failed(tally, &error.into(), asked.headers),
        }
    }
}

/// Whether no stored answer will do that has not been validated since the request came.
#[inline]
pub(super) fn is_strict(route: &Route, directives: &Directives, headers: &HeaderMap) -> bool {
    route.query().policy().consistency == Consistency::Strict
        || directives.validate()
        || headers.contains_key(&SEAWALL_AFTER)
}

/// What the client has written, if it says so.
fn token(headers: &HeaderMap) -> Result<Option<Token>, Problem> {
    let Some(value) = headers.get(&SEAWALL_AFTER) else { return Ok(None) };
    let token = value.to_str().ok().and_then(Token::parse);
    let detail = "Seawall-After is neither the id of a transaction nor what seawall.token() gives";
    token.map(Some).ok_or_else(|| Problem::new(Code::BadRequest, detail))
}
