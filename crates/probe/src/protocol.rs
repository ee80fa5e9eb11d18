//! One JSON request a line, one JSON reply a line.
//!
//! `{"id":1,"method":"hello","params":{}}` is answered by `{"id":1,"ok":{…}}` or by
//! `{"id":1,"error":{"code":"…","message":"…","errno":…}}`. A line that is no request is answered with `"id":null`.

use std::fmt::Display;
use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A request's longest line, in bytes: larger than anything nvlane sends, small enough for a small guest.
pub const LONGEST_LINE: usize = 4 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub id: Value,
    pub method: String,
    #[serde(default)]
    pub params: Map<String, Value>,
}

/// What kind of thing went wrong: callers tell these apart, people read the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    BadRequest,
    UnknownMethod,
    Failed,
    NotFound,
    Deadline,
    NoTool,
    NoLibpmem,
    Refused,
}

#[derive(Debug, Serialize)]
pub struct Fault {
    pub code: Code,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
}

pub type Answer = Result<Value, Fault>;

impl Fault {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), errno: None }
    }

    /// A failed system call, with what was being done: "open /dev/nvme0n1".
    pub fn io(doing: impl Display, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        Self { code: Code::Failed, message: format!("{doing}: {error}"), errno: error.raw_os_error() }
    }
}

/// The parameters of one method, as its own type.
pub fn params<T: DeserializeOwned>(given: Map<String, Value>) -> Result<T, Fault> {
    serde_json::from_value(Value::Object(given))
        .map_err(|error| Fault::new(Code::BadRequest, format!("params: {error}")))
}

/// An answer's value as JSON.
pub fn value(answer: impl Serialize) -> Answer {
    serde_json::to_value(answer)
        .map_err(|error| Fault::new(Code::Failed, format!("the answer is no JSON: {error}")))
}

/// Answer one line. Blank lines have no answer. `handle` gets the method and its parameters.
pub fn answer(line: &[u8], handle: impl FnOnce(&str, Map<String, Value>) -> Answer) -> Option<String> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return None;
    }
    let (id, outcome) = match serde_json::from_slice::<Request>(line) {
        Ok(request) => (request.id, handle(&request.method, request.params)),
        Err(error) => (id_of(line), Err(Fault::new(Code::BadRequest, format!("not a request: {error}")))),
    };
    let reply = match outcome {
        Ok(ok) => json!({"id": id, "ok": ok}),
        Err(fault) => json!({"id": id, "error": fault}),
    };
    Some(reply.to_string())
}

/// The id of a line that is JSON but no request, so that its sender can tell which one it was.
fn id_of(line: &[u8]) -> Value {
    serde_json::from_slice::<Value>(line)
        .ok()
        .and_then(|value| value.get("id").cloned())
        .unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(line: &str) -> Value {
        let text = answer(line.as_bytes(), |method, given| match method {
            "echo" => Ok(Value::Object(given)),
            other => Err(Fault::new(Code::UnknownMethod, other)),
        });
        serde_json::from_str(&text.expect("an answer")).expect("JSON")
    }

    #[test]
    fn a_request_is_answered_with_its_id() {
        assert_eq!(reply(r#"{"id":7,"method":"echo","params":{"a":1}}"#), json!({"id":7,"ok":{"a":1}}));
    }

    #[test]
    fn params_may_be_left_out() {
        assert_eq!(reply(r#"{"id":"x","method":"echo"}"#), json!({"id":"x","ok":{}}));
    }

    #[test]
    fn rubbish_is_answered_and_never_fatal() {
        assert_eq!(reply("{]")["id"], Value::Null);
        assert_eq!(reply("{]")["error"]["code"], "bad-request");
        assert_eq!(reply(r#"{"id":3,"method":"echo","params":[]}"#)["id"], 3);
        assert_eq!(reply(r#"{"id":3,"methods":"echo"}"#)["error"]["code"], "bad-request");
        assert_eq!(reply(r#"{"id":3,"method":"none"}"#)["error"]["code"], "unknown-method");
    }

    #[test]
    fn any_line_that_is_not_blank_has_one_line_of_answer() {
        for line in crate::pattern::rubbish(b"{}[]\":,idmethoparsn01.\\\xff\0 ") {
            let blank = line.iter().all(u8::is_ascii_whitespace);
            let reply = answer(&line, |_, _| Ok(Value::Null));
            assert_eq!(reply.is_none(), blank);
            assert!(reply.is_none_or(|text| !text.contains('\n')));
        }
    }

    #[test]
    fn blank_lines_have_no_answer() {
        assert!(answer(b" \r\n", |_, _| Ok(Value::Null)).is_none());
    }
}
