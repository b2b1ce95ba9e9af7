//! What the operations listener answers: which resources there are, and what each of them says.

use std::cell::RefCell;

use http::StatusCode;

use super::exposition::Format;
use super::history::History;
use super::metrics::metrics;
use super::overview::Overview;
use super::page;
use super::process::Process;
use crate::http::answer::Answer;
use crate::http::head::Request;
use crate::http::page::policy;
use crate::http::probe::Probe;
use crate::http::rejection::Rejected;
use crate::http::request::check_head;

/// The answer to a request for anything else.
const NOT_FOUND: &str = "not found: see / or /metrics, /info, /samples, /livez, /readyz, /health";

/// The resources of the operations listener.
#[derive(Debug)]
pub(super) struct Site {
    overview: Overview,
    history: RefCell<History>,
    process: Process,
    /// The content security policy of the page.
    policy: String,
}

impl Site {
    pub(super) fn new(overview: Overview) -> Self {
        Self { overview, history: RefCell::default(), process: Process::first(), policy: policy(page::HTML) }
    }

    /// Keeps the numbers of this moment for the page.
    pub(super) fn sample(&self) {
        self.history.borrow_mut().sample(&self.overview);
    }

    /// The answer to a request.
    pub(super) fn answer(&self, request: &Request<'_>) -> Answer {
        let answer = self.find(request).unwrap_or_else(|rejected| {
            // Every rejection here has a status: none is of a connection without HTTP.
            rejected.into_answer().unwrap_or_else(|| Answer::empty(StatusCode::BAD_REQUEST))
        });
        answer.with_field("x-content-type-options", b"nosniff")
    }

    fn find(&self, request: &Request<'_>) -> Result<Answer, Rejected> {
        check_head(request)?;
        if !matches!(request.method, "GET" | "HEAD") {
            return Err(Rejected::method("GET, HEAD"));
        }
        let path = request.uri.path();
        if let Some(probe) = Probe::at(path) {
            return Ok(probe.answer(&self.overview.handshakes));
        }
        Ok(match path {
            "/" => self.page(),
            "/metrics" => self.metrics(Format::preferred(request.fields.elements("accept"))),
            "/info" => json(&self.overview.info()),
            "/samples" => json(&self.history.borrow().since(from(request.uri.query()))),
            _ => Answer::with_line(StatusCode::NOT_FOUND, NOT_FOUND),
        })
    }

    fn page(&self) -> Answer {
        Answer::with_body(StatusCode::OK, "text/html; charset=utf-8", page::HTML.to_owned())
            .with_field("content-security-policy", self.policy.as_bytes())
            .with_field("referrer-policy", b"no-referrer")
            .with_field("cross-origin-opener-policy", b"same-origin")
    }

    fn metrics(&self, format: Format) -> Answer {
        let metrics = metrics(&self.overview, Process::now(self.process));
        let text = format.text(metrics).expect("writing to a string does not fail");
        Answer::with_body(StatusCode::OK, format.content_type(), text)
    }
}

fn json(value: &serde_json::Value) -> Answer {
    Answer::with_body(StatusCode::OK, "application/json", format!("{value}\n"))
}

/// The number of the first sample that is asked for, as in `from=7`. Without one, all of them are.
fn from(query: Option<&str>) -> u64 {
    query.and_then(|query| query.strip_prefix("from=")?.parse().ok()).unwrap_or(0)
}
