//! What is answered: JSON, errors too, each with its remedy.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pinmesh_core::AdminObjection;
use serde_json::{Value, json};

use crate::admin_queue::Unanswered;

/// A request that came to nothing.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    error: String,
    remedy: String,
}

pub(super) type Answer = Result<Json<Value>, Failure>;

impl Failure {
    pub(super) fn new(
        status: StatusCode,
        error: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { status, error: error.into(), remedy: remedy.into() }
    }

    /// Something in the path or behind its question mark cannot be read.
    pub(super) fn unreadable(error: impl Into<String>, remedy: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, remedy)
    }

    pub(super) fn unknown_service(name: &str) -> Self {
        let error = format!("no service {name:?} is known");
        let remedy = "GET /v1/services (`pinmesh services`) lists those that are: served, waited \
                      for or configured";
        Self::new(StatusCode::NOT_FOUND, error, remedy)
    }

    pub(super) fn unknown_task(task: &str) -> Self {
        let error = format!("no task {task} is held");
        let remedy = "it may have ended and been acknowledged; GET /v1/tasks lists those that are \
                      held";
        Self::new(StatusCode::NOT_FOUND, error, remedy)
    }

    /// Why an operator's command did nothing to `whom`.
    pub(super) fn objection(objection: AdminObjection, whom: &str) -> Self {
        let conflict = StatusCode::CONFLICT;
        match objection {
            AdminObjection::UnknownService => Self::unknown_service(whom),
            AdminObjection::UnknownTask => Self::unknown_task(whom),
            AdminObjection::HasEnded => {
                let error = format!("task {whom} has ended");
                Self::new(conflict, error, "there is nothing to cancel")
            }
            AdminObjection::AwaitsEnd => {
                let error = format!("the worker of task {whom} is gone, and its end is awaited");
                Self::new(conflict, error, "wait for one heartbeat: then it ends by itself")
            }
            AdminObjection::UnknownPeer => {
                let error = format!("there is no worker or host {whom}");
                let remedy = "GET /v1/workers and /v1/hosts (`pinmesh workers`) list them";
                Self::new(StatusCode::NOT_FOUND, error, remedy)
            }
            AdminObjection::NotConnected => {
                let error = format!("{whom} has no session at the moment");
                let remedy = "try again once it is back, or stop its process on its host (SIGTERM)";
                Self::new(conflict, error, remedy)
            }
        }
    }
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        let (status, error) = match unanswered {
            Unanswered::Full => (StatusCode::SERVICE_UNAVAILABLE, "too many ask at once"),
            Unanswered::Late => (StatusCode::GATEWAY_TIMEOUT, "the broker's loop is busy"),
            Unanswered::Gone => (StatusCode::SERVICE_UNAVAILABLE, "the broker is leaving"),
        };
        Self::new(status, error, "try again in a second")
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.error, "remedy": self.remedy }));
        let mut response = (self.status, body).into_response();
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
