//! The value of a payload for which its job counts in a limit of its task: what stands at a path within the JSON text.
//!
//! The text itself is read, and not the value that it was made of: a type may write its fields under other names. Only
//! the path is followed; all else is passed over, which takes a fraction of what reading it would.

use std::borrow::Cow;

use pyo3::prelude::*;

/// A place in a JSON text that is known to be valid; in any other text a step just ends early.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.first().copied()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.take(1)).flatten().map(|_| ())
    }

    /// Passes over a string and gives what stands between its quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.eat(b'"')?;
        let mut escaped = false;
        let end = self.rest.iter().position(|&byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        let inner = self.take(end)?;
        self.take(1)?;
        Some(inner)
    }

    /// Passes over any value and gives its text.
    fn value(&mut self) -> Option<&'a [u8]> {
        self.peek()?;
        let whole = self.rest;
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => drop(self.string()?),
                b'{' | b'[' => {
                    self.take(1)?;
                    depth += 1;
                    continue;
                }
                b'}' | b']' => {
                    self.take(1)?;
                    depth = depth.checked_sub(1)?;
                }
                b',' | b':' => drop(self.take(1)?),
                _ => {
                    let ends = |byte: &u8| matches!(byte, b',' | b':' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
                    let length = self.rest.iter().position(ends).unwrap_or(self.rest.len());
                    self.take(length)?;
                }
            }
            if depth == 0 {
                return whole.get(..whole.len() - self.rest.len());
            }
        }
    }

    /// The text of an object's field, if this is an object that has it. The last one counts, as for decoders.
    fn field(&mut self, name: &str) -> Option<&'a [u8]> {
        self.eat(b'{')?;
        let mut found = None;
        while self.peek()? == b'"' {
            let key = self.string()?;
            self.eat(b':')?;
            let value = self.value()?;
            if unescaped(key).is_some_and(|key| key == name) {
                found = Some(value);
            }
            if self.eat(b',').is_none() {
                break;
            }
        }
        found
    }
}

/// The characters of a string; none where they are no text, such as half of a surrogate pair.
fn unescaped(inner: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(inner).ok()?;
    if !text.contains('\\') {
        return Some(Cow::Borrowed(text));
    }
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let meant = match character {
            '\\' => match characters.next()? {
                'u' => {
                    let digits = characters.as_str().get(..4)?;
                    characters.nth(3);
                    units.push(u16::from_str_radix(digits, 16).ok()?);
                    continue;
                }
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            },
            other => other,
        };
        units.extend_from_slice(meant.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units).ok().map(Cow::Owned)
}

/// What a JSON text has at a path: the characters of a string, or a number or a boolean as it is written. None where
/// there is nothing, an empty string, null, an array or an object, and in a text that is no JSON.
pub fn value_at<'a>(text: &'a [u8], path: &str) -> Option<Cow<'a, str>> {
    let mut here = text;
    for name in path.split('.') {
        here = Cursor { rest: here }.field(name)?;
    }
    match here.first()? {
        b'"' => unescaped(Cursor { rest: here }.string()?).filter(|value| !value.is_empty()),
        b't' | b'f' | b'-' | b'0'..=b'9' => std::str::from_utf8(here).ok().map(Cow::Borrowed),
        _ => None,
    }
}

/// The value at a path such as `customer.id` within a payload's JSON text: a text, or a number or a boolean as it is
/// written. None if there is nothing, an empty text, null, an array or an object.
///
/// Names of the path are keys of objects; of keys that come twice the last one counts.
#[pyfunction]
#[pyo3(signature = (payload, path, /))]
pub fn limit_value(payload: &[u8], path: &str) -> Option<String> {
    value_at(payload, path).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, path: &str) -> Option<String> {
        value_at(text.as_bytes(), path).map(Cow::into_owned)
    }

    #[test]
    fn scalars_are_found_as_they_are_written() {
        let text = r#" { "a" : "x y" , "b":{"c":[1,{"d":"}"}],"d":-1.50e3},"t":true,"f":false,"n":null,"e":"" }"#;
        for (path, value) in [("a", Some("x y")), ("b.d", Some("-1.50e3")), ("t", Some("true")), ("f", Some("false"))] {
            assert_eq!(found(text, path).as_deref(), value, "{path}");
        }
        for path in ["n", "e", "b", "b.c", "b.c.0", "b.x", "a.x", "x", "", "."] {
            assert_eq!(found(text, path), None, "{path}");
        }
    }

    #[test]
    fn escapes_are_characters() {
        let text = r#"{"q\"\\":"\u00e9\ud83d\ude00\n\/","half":"\ud83d"}"#;
        assert_eq!(found(text, "q\"\\").as_deref(), Some("\u{e9}\u{1f600}\n/"));
        assert_eq!(found(text, "half"), None);
    }

    #[test]
    fn the_last_of_two_counts() {
        assert_eq!(found(r#"{"a":1,"a":{"a":2}}"#, "a"), None);
        assert_eq!(found(r#"{"a":{"a":2},"a":1}"#, "a").as_deref(), Some("1"));
    }

    #[test]
    fn other_texts_have_no_value() {
        for text in ["", "{", "[]", "1", "\"a\"", "{\"a\"", "{\"a\":", "{\"a\":[", "{\"a\":]", "{a:1}", "{\"a\":\"\\"] {
            assert_eq!(found(text, "a"), None, "{text}");
        }
    }

    #[test]
    fn depth_takes_no_stack() {
        let deep = format!("{{\"x\":{}{},\"a\":7}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(found(&deep, "a").as_deref(), Some("7"));
    }
}
