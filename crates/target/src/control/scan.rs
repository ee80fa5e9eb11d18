//! Finds the end of a JSON value in a stream that arrives in pieces.
//!
//! A stream socket keeps no boundaries: one read may hold half a request or three of them. SPDK parses its whole buffer
//! again after each read, which costs the square of a request that trickles in; this scanner is an automaton that looks
//! at each byte once and stops at the first byte that no JSON text can have there (RFC 8259).

/// As deep as SPDK nests (`SPDK_JSON_MAX_NESTING_DEPTH`); serde_json would stop at 128.
pub const MAX_DEPTH: u32 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// Everything was looked at and the value goes on.
    More,
    /// The value ends after this many bytes of the piece.
    End(usize),
    /// Nothing that follows can make this JSON.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value,
    /// After `[`: a value or the end.
    FirstItem,
    /// After `{`: a key or the end.
    FirstKey,
    /// After `,` in an object.
    Key,
    Colon,
    /// After a value inside an array or object.
    Next,
    String {
        key: bool,
    },
    Escape {
        key: bool,
    },
    Hex {
        key: bool,
        left: u8,
    },
    Literal {
        rest: &'static [u8],
    },
    Number(Number),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Number {
    /// What the next byte makes of it: more of the number, or nothing.
    fn step(self, byte: u8) -> Option<Number> {
        match (self, byte) {
            (Number::Minus, b'0') => Some(Number::Zero),
            (Number::Minus, b'1'..=b'9') | (Number::Digits, b'0'..=b'9') => Some(Number::Digits),
            (Number::Zero | Number::Digits, b'.') => Some(Number::Point),
            (Number::Point | Number::Fraction, b'0'..=b'9') => Some(Number::Fraction),
            (Number::Zero | Number::Digits | Number::Fraction, b'e' | b'E') => Some(Number::Exponent),
            (Number::Exponent, b'+' | b'-') => Some(Number::ExponentSign),
            (Number::Exponent | Number::ExponentSign | Number::ExponentDigits, b'0'..=b'9') => {
                Some(Number::ExponentDigits)
            }
            _ => None,
        }
    }

    fn complete(self) -> bool {
        matches!(self, Number::Zero | Number::Digits | Number::Fraction | Number::ExponentDigits)
    }
}

/// The automaton for one value after another. After [`Scan::End`] it is ready for the next.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    /// One bit a level, the innermost lowest: set for an object.
    objects: u64,
    depth: u32,
}

impl Default for Scanner {
    fn default() -> Self {
        Scanner { state: State::Value, objects: 0, depth: 0 }
    }
}

fn blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

impl Scanner {
    /// Nothing but white space was seen since the last value.
    pub fn between(&self) -> bool {
        self.depth == 0 && self.state == State::Value
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Scan {
        for (at, &byte) in bytes.iter().enumerate() {
            match self.byte(byte) {
                Step::More => {}
                Step::Ended => return self.end(at + 1),
                Step::EndedBefore => return self.end(at),
                Step::Broken => return Scan::Broken,
            }
        }
        Scan::More
    }

    fn end(&mut self, consumed: usize) -> Scan {
        *self = Scanner::default();
        Scan::End(consumed)
    }

    fn byte(&mut self, byte: u8) -> Step {
        match self.state {
            State::String { key } => return self.in_string(byte, key),
            State::Escape { key } => {
                self.state = match byte {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::String { key },
                    b'u' => State::Hex { key, left: 4 },
                    _ => return Step::Broken,
                };
                return Step::More;
            }
            State::Hex { key, left } => {
                if !byte.is_ascii_hexdigit() {
                    return Step::Broken;
                }
                self.state =
                    if left == 1 { State::String { key } } else { State::Hex { key, left: left - 1 } };
                return Step::More;
            }
            State::Literal { rest } => {
                return match rest {
                    [expected, rest @ ..] if *expected == byte => {
                        self.state = State::Literal { rest };
                        if rest.is_empty() { self.value_done() } else { Step::More }
                    }
                    _ => Step::Broken,
                };
            }
            State::Number(number) => {
                if let Some(number) = number.step(byte) {
                    self.state = State::Number(number);
                    return Step::More;
                }
                if !number.complete() {
                    return Step::Broken;
                }
                if self.depth == 0 {
                    return Step::EndedBefore;
                }
                self.state = State::Next;
            }
            _ => {}
        }
        if blank(byte) {
            return Step::More;
        }
        match (self.state, byte) {
            (State::FirstItem, b']') => self.close(false),
            (State::FirstKey, b'}') => self.close(true),
            (State::Next, b']') => self.close(false),
            (State::Next, b'}') => self.close(true),
            (State::Next, b',') => {
                self.state = if self.objects & 1 == 1 { State::Key } else { State::Value };
                Step::More
            }
            (State::FirstKey | State::Key, b'"') => {
                self.state = State::String { key: true };
                Step::More
            }
            (State::Colon, b':') => {
                self.state = State::Value;
                Step::More
            }
            (State::Value | State::FirstItem, _) => self.start(byte),
            _ => Step::Broken,
        }
    }

    fn start(&mut self, byte: u8) -> Step {
        self.state = match byte {
            b'{' | b'[' => {
                if self.depth == MAX_DEPTH {
                    return Step::Broken;
                }
                let object = byte == b'{';
                self.objects = self.objects << 1 | u64::from(object);
                self.depth += 1;
                if object { State::FirstKey } else { State::FirstItem }
            }
            b'"' => State::String { key: false },
            b't' => State::Literal { rest: b"rue" },
            b'f' => State::Literal { rest: b"alse" },
            b'n' => State::Literal { rest: b"ull" },
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Digits),
            _ => return Step::Broken,
        };
        Step::More
    }

    fn in_string(&mut self, byte: u8, key: bool) -> Step {
        match byte {
            b'"' if key => {
                self.state = State::Colon;
                Step::More
            }
            b'"' => self.value_done(),
            b'\\' => {
                self.state = State::Escape { key };
                Step::More
            }
            0..=0x1f => Step::Broken,
            _ => Step::More,
        }
    }

    fn close(&mut self, object: bool) -> Step {
        if (self.objects & 1 == 1) != object {
            return Step::Broken;
        }
        self.objects >>= 1;
        self.depth -= 1;
        self.value_done()
    }

    fn value_done(&mut self) -> Step {
        if self.depth == 0 {
            return Step::Ended;
        }
        self.state = State::Next;
        Step::More
    }
}

enum Step {
    More,
    Ended,
    /// The value ended at the byte before this one.
    EndedBefore,
    Broken,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(text: &str) -> Scan {
        Scanner::default().feed(text.as_bytes())
    }

    #[test]
    fn a_value_ends_where_it_ends() {
        assert_eq!(scan(r#" {"a":[1,-2.5e+3,{}],"b":"}\"\u00e9"} x"#), Scan::End(37));
        assert_eq!(scan("[]"), Scan::End(2));
        assert_eq!(scan("true1"), Scan::End(4));
        assert_eq!(scan("12 "), Scan::End(2), "a number ends where the next thing begins");
        assert_eq!(scan("12"), Scan::More);
        assert_eq!(scan("   \n"), Scan::More);
    }

    #[test]
    fn what_cannot_become_json_is_broken_at_once() {
        for text in [
            "nope",
            "{nope",
            "{\"a\" 1",
            "[1 2",
            "[,",
            "{,",
            "{\"a\":}",
            "[1}",
            "{\"a\":1]",
            "\"\u{1}\"",
            "\"\\x\"",
            "\"\\u12g",
            "01",
            "1.x",
            "-a",
            "nul1",
            "}",
            "]",
            ":",
            "[1,]",
            "{\"a\":1,}",
            "1e+",
            "[1e+]",
        ] {
            let text = format!("{{\"k\":{text} ");
            assert_eq!(scan(&text), Scan::Broken, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert_eq!(scan(&deep(64)), Scan::End(128));
        assert_eq!(scan(&deep(65)), Scan::Broken);
        assert_eq!(scan(&"{\"a\":".repeat(65)), Scan::Broken);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(|n| serde_json::json!(n)),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                proptest::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever serde_json writes is found whole, however it is cut.
        #[test]
        fn cut_anywhere(value in json(), cuts in proptest::collection::vec(0usize..4096, 0..8), pretty: bool) {
            let mut text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let length = text.len();
            text.push('\n');
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % text.len()).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut scanner = Scanner::default();
            let mut found = None;
            for pair in cuts.windows(2) {
                match scanner.feed(&text.as_bytes()[pair[0]..pair[1]]) {
                    Scan::More => {}
                    Scan::End(at) => { found = Some(pair[0] + at); break }
                    Scan::Broken => prop_assert!(false, "broken: {text}"),
                }
            }
            prop_assert_eq!(found, Some(length));
        }

        /// The scanner and serde_json agree on what is JSON, but for bytes inside strings that are no UTF-8.
        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{}:,"\\0-9eE.+\-truefalsn \n]{0,24}"#) {
            let mut stream = serde_json::Deserializer::from_str(&text).into_iter::<serde::de::IgnoredAny>();
            match Scanner::default().feed(text.as_bytes()) {
                Scan::End(at) => prop_assert!(
                    serde_json::from_str::<serde::de::IgnoredAny>(&text[..at]).is_ok(), "{}", &text[..at]),
                Scan::Broken => prop_assert!(
                    // `1x`: one value, and then something else; the automaton stops before it.
                    !matches!(stream.next(), Some(Ok(_))), "serde_json takes {text:?}"),
                Scan::More => {
                    let whole = serde_json::from_str::<serde::de::IgnoredAny>(&text);
                    let number = text.trim().bytes().last().is_some_and(|b| b.is_ascii_digit());
                    prop_assert!(whole.is_err() || number, "{text:?}");
                }
            }
        }
    }
}
