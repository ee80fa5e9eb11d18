//! JSON-RPC 2.0 messages: what came in, and the text that goes out.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Error codes of JSON-RPC 2.0 and SPDK's own (include/spdk/jsonrpc.h).
pub mod code {
    pub const PARSE_ERROR: i32 = -32700;
    pub const INVALID_REQUEST: i32 = -32600;
    pub const METHOD_NOT_FOUND: i32 = -32601;
    pub const INVALID_PARAMS: i32 = -32602;
    pub const INTERNAL_ERROR: i32 = -32603;
    /// `SPDK_JSONRPC_ERROR_INVALID_STATE`
    pub const INVALID_STATE: i32 = -1;
}

/// Why a call failed. Code and message are those that SPDK gives, since scripts match on them; `detail` is a sentence
/// for people and travels as the error's `data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    pub code: i32,
    pub message: String,
    pub detail: Option<String>,
}

impl RpcError {
    pub fn new(code: i32, message: impl Into<String>) -> RpcError {
        RpcError { code, message: message.into(), detail: None }
    }

    pub fn with(mut self, detail: impl Into<String>) -> RpcError {
        self.detail = Some(detail.into());
        self
    }

    /// The negative errno with its text: how SPDK's bdev methods fail.
    pub fn errno(errno: i32) -> RpcError {
        RpcError::new(-errno, errno_text(errno))
    }

    /// Code -32602 with the errno's text: how SPDK's vhost methods fail.
    pub fn vhost(errno: i32) -> RpcError {
        RpcError::new(code::INVALID_PARAMS, errno_text(errno))
    }

    fn to_value(&self) -> Value {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(detail) = &self.detail {
            error["data"] = json!(detail);
        }
        error
    }
}

impl std::fmt::Display for RpcError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

/// strerror(3), as SPDK's replies have it.
pub fn errno_text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    match text.rfind(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

pub type Reply = Result<Value, RpcError>;

/// A call that is well formed. `params` is an object or an array, or left out.
#[derive(Debug)]
pub struct Request {
    /// The text of a string or number, to be sent back byte for byte; none for a notification. SPDK takes `null` for a
    /// notification too.
    pub id: Option<Box<RawValue>>,
    pub method: String,
    pub params: Option<Box<RawValue>>,
}

/// One value from the wire.
#[derive(Debug)]
pub enum Incoming {
    Call(Request),
    /// Not a request object: -32600 with id null.
    Invalid(String),
    /// A batch: each element is as above.
    Batch(Vec<Result<Request, String>>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    jsonrpc: Option<Box<RawValue>>,
    method: Option<Box<RawValue>>,
    params: Option<Box<RawValue>>,
    id: Option<Box<RawValue>>,
}

/// Reads one JSON text. `Err` says that it is no JSON at all (-32700).
pub fn parse(text: &[u8]) -> Result<Incoming, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let value: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if !value.get().starts_with('[') {
        return Ok(match request(value) {
            Ok(request) => Incoming::Call(request),
            Err(why) => Incoming::Invalid(why),
        });
    }
    let items: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(|error| error.to_string())?;
    if items.is_empty() {
        return Ok(Incoming::Invalid("a batch holds one request at least".into()));
    }
    Ok(Incoming::Batch(items.into_iter().map(request).collect()))
}

fn request(value: &RawValue) -> Result<Request, String> {
    if !value.get().starts_with('{') {
        return Err("a request is an object".into());
    }
    let wire: Wire = serde_json::from_str(value.get()).map_err(|error| error.to_string())?;
    if wire.jsonrpc.is_some_and(|version| string(&version).as_deref() != Some("2.0")) {
        return Err("`jsonrpc` is \"2.0\"".into());
    }
    let method = wire.method.as_deref().and_then(string).ok_or("`method` is a string and must be there")?;
    if wire.params.as_ref().is_some_and(|params| !params.get().starts_with(['{', '['])) {
        return Err("`params` is an object or an array".into());
    }
    if wire
        .id
        .as_ref()
        .is_some_and(|id| !id.get().starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()))
    {
        return Err("`id` is a string, a number or null".into());
    }
    Ok(Request { id: wire.id, method, params: wire.params })
}

fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// The text of a reply, without the newline that ends it on the wire.
pub fn render(id: Option<&RawValue>, reply: &Reply) -> String {
    let id = id.map_or("null", RawValue::get);
    match reply {
        Ok(result) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#),
        Err(error) => format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{}}}"#, error.to_value()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str) -> Request {
        match parse(text.as_bytes()).unwrap() {
            Incoming::Call(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ids_come_back_as_they_were() {
        for id in ["1", "-0", "1.50", "12345678901234567890123", "\"a\\u0062\"", "1e9"] {
            let request = call(&format!(r#"{{"method":"m","id":{id}}}"#));
            let text = render(request.id.as_deref(), &Ok(json!(true)));
            assert_eq!(text, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":true}}"#));
        }
        assert!(call(r#"{"method":"m"}"#).id.is_none());
        assert!(call(r#"{"method":"m","id":null}"#).id.is_none());
    }

    #[test]
    fn what_is_no_request_is_said_to_be_none() {
        for text in [
            r#"{"method":"m","id":{}}"#,
            r#"{"method":"m","id":[1]}"#,
            r#"{"method":"m","id":true}"#,
            r#"{"method":1,"id":1}"#,
            r#"{"id":1}"#,
            r#"{"jsonrpc":"1.0","method":"m","id":1}"#,
            r#"{"jsonrpc":2.0,"method":"m","id":1}"#,
            r#"{"method":"m","params":3,"id":1}"#,
            r#"{"method":"m","params":"x","id":1}"#,
            r#"{"method":"m","id":1,"extra":0}"#,
            r#"{"method":"m","method":"n","id":1}"#,
            "[]",
            "3",
            "\"x\"",
            "null",
        ] {
            assert!(matches!(parse(text.as_bytes()).unwrap(), Incoming::Invalid(_)), "{text}");
        }
        assert!(parse(b"{\"method\":\"\xff\"}").is_err());
    }

    #[test]
    fn a_batch_is_read_element_by_element() {
        let text = br#"[{"method":"a","id":1}, 1, {"method":"b"}, ["2.0","m",{},1], []]"#;
        match parse(text).unwrap() {
            Incoming::Batch(items) => {
                let methods: Vec<_> =
                    items.iter().map(|i| i.as_ref().map(|r| r.method.as_str()).ok()).collect();
                assert_eq!(methods, [Some("a"), None, Some("b"), None, None]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn errors_have_spdks_text_and_our_detail() {
        let error = RpcError::errno(17).with("bdev Malloc0 is there already");
        assert_eq!(
            render(None, &Err(error)),
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-17,"message":"File exists","data":"bdev Malloc0 is there already"}}"#
        );
        assert_eq!(errno_text(110), "Connection timed out");
    }
}
