//! Why a message was not taken.

use std::fmt;

use crate::code::Request;

/// A frame that is whole, and so does no harm to the conversation, but is no message that could be obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The protocol has no request with this number.
    Unknown { number: u32 },
    /// The request belongs to a feature that was not offered.
    Unsupported { request: Request },
    /// The reply flag is set on a request.
    ReplyFlag { number: u32 },
    /// The body is not as long as this request's is.
    Size { request: Request, wanted: &'static str, got: usize },
    /// A descriptor that the request needs did not come with it.
    Descriptors { request: Request, wanted: usize, got: usize },
    /// A value that no front end may send.
    Value { request: Request, what: &'static str },
}

impl Refusal {
    /// The request, where the protocol has one with that number.
    pub fn request(&self) -> Option<Request> {
        match self {
            Refusal::Unknown { .. } | Refusal::ReplyFlag { .. } => None,
            Refusal::Unsupported { request }
            | Refusal::Size { request, .. }
            | Refusal::Descriptors { request, .. }
            | Refusal::Value { request, .. } => Some(*request),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Unknown { number } => write!(f, "the protocol has no request {number}"),
            Refusal::Unsupported { request } => {
                write!(f, "{request:?} belongs to a feature that was not offered")
            }
            Refusal::ReplyFlag { number } => write!(f, "request {number} carries the flag of a reply"),
            Refusal::Size { request, wanted, got } => {
                write!(f, "{request:?} has a body of {got} bytes where {wanted} are needed")
            }
            Refusal::Descriptors { request, wanted, got } => {
                write!(f, "{request:?} came with {got} descriptors where {wanted} are needed")
            }
            Refusal::Value { request, what } => write!(f, "{request:?}: {what}"),
        }
    }
}

impl std::error::Error for Refusal {}
