//! What the fuzzer does with a string of bytes; a test does the same with the corpus in the tree.

use super::cpumask::CpuMask;
use super::inbox::{Broken, Inbox};
use super::message::{Incoming, parse, render};
use super::parameters::Parameters;
use super::{drives, load};

/// Bytes from a client, in pieces of the first byte's length: however they are cut, the same requests come out, and each
/// is looked up and answered with JSON that can be read again. The rest of the bytes is also taken for a configuration.
pub fn rpc(data: &[u8]) {
    let Some((&piece, stream)) = data.split_first() else { return };
    let whole = texts(stream, stream.len().max(1));
    assert_eq!(texts(stream, usize::from(piece) + 1), whole);
    for text in whole.0 {
        match parse(&text) {
            Ok(Incoming::Call(request)) => call(request),
            Ok(Incoming::Batch(requests)) => requests.into_iter().flatten().for_each(call),
            Ok(Incoming::Invalid(_)) | Err(_) => {}
        }
    }
    if let Ok(text) = std::str::from_utf8(stream) {
        // Only that they answer.
        let _ = (load::parse(text), CpuMask::parse(text), drives::address(text));
    }
}

fn texts(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<Broken>) {
    let mut inbox = Inbox::default();
    let mut texts = Vec::new();
    for piece in stream.chunks(piece) {
        inbox.push(piece);
        loop {
            match inbox.next_text() {
                // White space before a text is dropped only where a piece ends in it.
                Ok(Some(text)) => texts.push(text.trim_ascii_start().to_vec()),
                Ok(None) => break,
                Err(broken) => return (texts, Some(broken)),
            }
        }
    }
    (texts, None)
}

fn call(request: super::message::Request) {
    use std::sync::OnceLock;
    static METHODS: OnceLock<super::method::Methods> = OnceLock::new();
    let found =
        METHODS.get_or_init(super::methods).find(&request.method, Parameters::new(request.params), true);
    let reply = found.map(|(method, _)| method.name.into());
    let text = render(request.id.as_deref(), &reply);
    serde_json::from_str::<serde_json::Value>(&text).expect("a reply is JSON");
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_does_no_harm() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/rpc");
        let mut files = 0;
        for entry in std::fs::read_dir(&corpus).unwrap() {
            super::rpc(&std::fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files > 0, "{} is empty", corpus.display());
    }
}
