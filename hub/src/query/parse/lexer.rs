//! Words, marks and constants. Each takes the white space after it along.

use crate::query::{MAX_LENGTH, QueryError};
use serde_json::{Number, Value};
use winnow::{
    Parser,
    combinator::{alt, eof, opt, preceded, terminated},
    error::ParserError,
    stream::{LocatingSlice, Location, Stateful},
    token::{any, one_of, take_while},
};

pub(super) type Input<'a> = Stateful<LocatingSlice<&'a str>, Progress>;
pub(super) type Parsed<T> = Result<T, Failure>;

/// What is known beside the rest of the text.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// How deep the expression is nested.
    pub(super) depth: usize,
    /// Where something that was tried is not, and what was.
    furthest: usize,
    expected: Vec<&'static str>,
    /// Where a path first began with `devices.jobs`.
    pub(super) jobs_path: Option<usize>,
}

#[derive(Debug)]
pub(super) enum Failure {
    /// Something else may stand here; if not, [`Progress`] knows what was expected.
    Other,
    /// This is wrong whatever else may stand here.
    Wrong { position: usize, message: String },
}

impl ParserError<Input<'_>> for Failure {
    type Inner = Self;

    fn from_input(_: &Input<'_>) -> Self {
        Self::Other
    }

    fn is_backtrack(&self) -> bool {
        matches!(self, Self::Other)
    }

    fn into_inner(self) -> Result<Self, Self> {
        Ok(self)
    }
}

pub(super) fn wrong(position: usize, message: impl Into<String>) -> Failure {
    Failure::Wrong {
        position,
        message: message.into(),
    }
}

pub(super) fn run<T>(
    text: &str,
    grammar: fn(&mut Input<'_>) -> Parsed<T>,
) -> Result<T, QueryError> {
    if let Some((position, _)) = text.char_indices().nth(MAX_LENGTH) {
        let message = format!("the text is longer than {MAX_LENGTH} characters");
        return Err(QueryError::new(text, position, message));
    }
    let mut input = Input {
        input: LocatingSlice::new(text),
        state: Progress::default(),
    };
    let parsed = space(&mut input)
        .and_then(|()| grammar(&mut input))
        .and_then(|parsed| end(&mut input).map(|()| parsed));
    parsed.map_err(|failure| match failure {
        Failure::Other => {
            let position = input.state.furthest;
            QueryError::new(text, position, unexpected(text, &input.state))
        }
        Failure::Wrong { position, message } => QueryError::new(text, position, message),
    })
}

/// "expected this or that, found the other".
fn unexpected(text: &str, progress: &Progress) -> String {
    let rest = text.get(progress.furthest..).unwrap_or_default();
    let word: String = rest.chars().take_while(|c| is_name(*c)).take(40).collect();
    let (found, hint) = match rest.chars().next() {
        None => ("the end".to_owned(), ""),
        Some(c) if word.is_empty() => (
            format!("{:?}", c.to_string()),
            if "-@:#".contains(c) {
                "; a name with such characters is written [[name]]"
            } else {
                ""
            },
        ),
        Some(_) => (format!("{word:?}"), ""),
    };
    let mut expected = String::new();
    for (index, what) in progress.expected.iter().enumerate() {
        expected.push_str(match index {
            0 => "",
            _ if index + 1 == progress.expected.len() => " or ",
            _ => ", ",
        });
        expected.push_str(what);
    }
    format!("expected {expected}, found {found}{hint}")
}

pub(super) fn space(input: &mut Input<'_>) -> Parsed<()> {
    take_while(0.., char::is_whitespace)
        .void()
        .parse_next(input)
}

/// What a parser finds, if it finds it; if not, it was expected here.
pub(super) fn maybe<'a, T>(
    input: &mut Input<'a>,
    what: &'static str,
    parser: impl Parser<Input<'a>, T, Failure>,
) -> Parsed<Option<T>> {
    let position = input.current_token_start();
    let found = opt(terminated(parser, space)).parse_next(input)?;
    if found.is_none() {
        expected(input, position, what);
    }
    Ok(found)
}

pub(super) fn expected(input: &mut Input<'_>, position: usize, what: &'static str) {
    let progress = &mut input.state;
    if position > progress.furthest {
        progress.furthest = position;
        progress.expected.clear();
    }
    if position == progress.furthest && !progress.expected.contains(&what) {
        progress.expected.push(what);
    }
}

pub(super) fn must<'a, T>(
    input: &mut Input<'a>,
    what: &'static str,
    parser: impl Parser<Input<'a>, T, Failure>,
) -> Parsed<T> {
    maybe(input, what, parser)?.ok_or(Failure::Other)
}

pub(super) fn symbol(
    input: &mut Input<'_>,
    symbol: &'static str,
    shown: &'static str,
) -> Parsed<bool> {
    maybe(input, shown, symbol).map(|found| found.is_some())
}

pub(super) fn word<'a>(keyword: &'static str) -> impl Parser<Input<'a>, &'a str, Failure> {
    name.verify(move |found: &str| found.eq_ignore_ascii_case(keyword))
}

pub(super) fn keyword(input: &mut Input<'_>, keyword: &'static str) -> Parsed<bool> {
    maybe(input, keyword, word(keyword)).map(|found| found.is_some())
}

fn end(input: &mut Input<'_>) -> Parsed<()> {
    must(input, "the end", eof).map(drop)
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

pub(super) fn name<'a>(input: &mut Input<'a>) -> Parsed<&'a str> {
    (
        one_of(|c: char| is_name(c) && !c.is_numeric()),
        take_while(0.., is_name),
    )
        .take()
        .parse_next(input)
}

pub(super) fn constant(input: &mut Input<'_>) -> Parsed<Value> {
    alt((
        string.map(Value::String),
        number.map(Value::Number),
        word("TRUE").value(Value::Bool(true)),
        word("FALSE").value(Value::Bool(false)),
        word("NULL").value(Value::Null),
    ))
    .parse_next(input)
}

fn number(input: &mut Input<'_>) -> Parsed<Number> {
    let position = input.current_token_start();
    let hexadecimal = preceded(
        alt(("0x", "0X")),
        take_while(1.., |c: char| c.is_ascii_hexdigit()),
    );
    if let Some(digits) = opt(hexadecimal).parse_next(input)? {
        return i64::from_str_radix(digits, 16)
            .map(Number::from)
            .map_err(|_| wrong(position, "this number is too large"));
    }
    let sign = || opt(one_of(['+', '-']));
    let digits = || take_while(1.., |c: char| c.is_ascii_digit());
    let text: &str = (
        sign(),
        digits(),
        opt((".", digits())),
        opt((one_of(['e', 'E']), sign(), digits())),
    )
        .take()
        .parse_next(input)?;
    text.parse()
        .ok()
        .map(|number: i64| Number::from(number))
        .or_else(|| Number::from_f64(text.parse().ok()?))
        .ok_or_else(|| wrong(position, "this number is too large"))
}

/// In single or double quotes. The escapes are those Azure documents.
fn string(input: &mut Input<'_>) -> Parsed<String> {
    let start = input.current_token_start();
    let quote = one_of(['\'', '"']).parse_next(input)?;
    let mut text = String::new();
    loop {
        let position = input.current_token_start();
        match opt(any).parse_next(input)? {
            None => return Err(wrong(start, "this string does not end")),
            Some(c) if c == quote => return Ok(text),
            Some('\\') => match opt(escape).parse_next(input)? {
                Some(c) => text.push(c),
                None => {
                    return Err(wrong(
                        position,
                        r#"only \' \" \\ and \uXXXX can follow a \ in a string"#,
                    ));
                }
            },
            Some(c) => text.push(c),
        }
    }
}

fn escape(input: &mut Input<'_>) -> Parsed<char> {
    let unit = || {
        preceded("u", take_while(4, |c: char| c.is_ascii_hexdigit()))
            .verify_map(|digits: &str| u16::from_str_radix(digits, 16).ok())
    };
    let pair = (unit(), preceded("\\", unit())).verify_map(|(high, low)| decode(&[high, low]));
    alt((
        one_of(['\'', '"', '\\']),
        unit().verify_map(|unit| decode(&[unit])),
        pair,
    ))
    .parse_next(input)
}

/// The one character that UTF-16 units stand for.
fn decode(units: &[u16]) -> Option<char> {
    let mut characters = char::decode_utf16(units.iter().copied());
    characters
        .next()?
        .ok()
        .filter(|_| characters.next().is_none())
}
