//! What a client has sent so far, cut into JSON texts.

use super::scan::{Scan, Scanner};

/// A request that is longer is refused. SPDK stops at 256 KiB; a whole configuration in one batch may be longer.
pub const MAX_REQUEST: usize = 1 << 20;

#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// No JSON: the stream cannot be followed any longer.
    Syntax,
    TooLong,
}

#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Where the value that is being read starts.
    start: usize,
    /// How far it was looked at.
    scanned: usize,
    scanner: Scanner,
}

impl Inbox {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole text, if there is one.
    pub fn next_text(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        match self.scanner.feed(&self.bytes[self.scanned..]) {
            Scan::Broken => Err(Broken::Syntax),
            Scan::End(length) => {
                let end = self.scanned + length;
                if end - self.start > MAX_REQUEST {
                    return Err(Broken::TooLong);
                }
                let text = self.bytes[self.start..end].to_vec();
                self.start = end;
                self.scanned = end;
                Ok(Some(text))
            }
            Scan::More => {
                self.scanned = self.bytes.len();
                if self.scanner.between() {
                    self.start = self.scanned;
                }
                if self.scanned - self.start > MAX_REQUEST { Err(Broken::TooLong) } else { Ok(None) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(inbox: &mut Inbox) -> Result<Vec<String>, Broken> {
        let mut texts = Vec::new();
        while let Some(text) = inbox.next_text()? {
            texts.push(String::from_utf8(text).unwrap().trim().to_owned());
        }
        Ok(texts)
    }

    #[test]
    fn several_in_one_write_and_one_in_several() {
        let mut inbox = Inbox::default();
        inbox.push(br#"{"a":1}[2] "x"  {"b":"#);
        assert_eq!(all(&mut inbox).unwrap(), [r#"{"a":1}"#, "[2]", r#""x""#]);
        inbox.push(b"3");
        assert_eq!(all(&mut inbox).unwrap(), Vec::<String>::new());
        inbox.push(b"}{");
        assert_eq!(all(&mut inbox).unwrap(), [r#"{"b":3}"#]);
        inbox.push(b"]");
        assert_eq!(all(&mut inbox), Err(Broken::Syntax));
    }

    #[test]
    fn length_is_bounded_and_white_space_costs_nothing() {
        let mut inbox = Inbox::default();
        for _ in 0..100 {
            inbox.push(&[b' '; 65536]);
            assert_eq!(inbox.next_text().unwrap(), None);
        }
        assert!(inbox.bytes.len() <= 65536);
        inbox.push(b"\"");
        let mut result = Ok(None);
        for _ in 0..=(MAX_REQUEST / 65536) {
            inbox.push(&[b'a'; 65536]);
            result = inbox.next_text();
        }
        assert_eq!(result, Err(Broken::TooLong));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_texts(
            numbers in proptest::collection::vec(any::<u32>(), 1..12),
            cuts in proptest::collection::vec(1usize..40, 0..60),
        ) {
            let texts: Vec<String> = numbers.iter().map(|n| format!(r#"{{"method":"m{n}","id":{n}}}"#)).collect();
            let stream = texts.concat();
            let mut inbox = Inbox::default();
            let mut seen = Vec::new();
            let mut rest = stream.as_bytes();
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                inbox.push(piece);
                rest = after;
                seen.extend(all(&mut inbox).unwrap());
            }
            prop_assert_eq!(seen, texts);
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..16)) {
            let mut inbox = Inbox::default();
            for piece in pieces {
                inbox.push(&piece);
                while let Ok(Some(text)) = inbox.next_text() {
                    let _ = super::super::message::parse(&text);
                }
            }
        }
    }
}
