//! From text to a query. A word of lookahead decides each step, so nothing is parsed twice; what was tried at the furthest
//! place is what an error says was expected there.

use super::{
    Column, Condition, MAX_DEPTH, MAX_LENGTH, Path, Query, QueryError, Source,
    evaluate::{Expression, Kind, Operator, TextFunction},
};
use serde_json::{Number, Value};
use winnow::{
    Parser,
    combinator::{alt, opt, preceded, terminated},
    error::ParserError,
    stream::{LocatingSlice, Location, Stateful},
    token::{any, one_of, take_until, take_while},
};

type Input<'a> = Stateful<LocatingSlice<&'a str>, Progress>;
type Parsed<T> = Result<T, Failure>;

/// What is known beside the rest of the text.
#[derive(Debug, Default)]
struct Progress {
    /// How deep the expression is nested.
    depth: usize,
    /// Where something that was tried is not, and what was.
    furthest: usize,
    expected: Vec<&'static str>,
    /// Where a path first began with `devices.jobs`.
    jobs_path: Option<usize>,
}

#[derive(Debug)]
enum Failure {
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

fn wrong(position: usize, message: impl Into<String>) -> Failure {
    Failure::Wrong {
        position,
        message: message.into(),
    }
}

pub(super) fn query(text: &str) -> Result<Query, QueryError> {
    run(text, select)
}

pub(super) fn condition(text: &str) -> Result<Condition, QueryError> {
    if text.trim().is_empty() {
        return Ok(Condition(None));
    }
    run(text, |input| {
        if symbol(input, "*", "\"*\"")? {
            return Ok(Condition(None));
        }
        let condition = Condition(Some(or(input)?));
        check_jobs_path(input, Source::Devices)?;
        Ok(condition)
    })
}

fn run<T>(text: &str, grammar: fn(&mut Input<'_>) -> Parsed<T>) -> Result<T, QueryError> {
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

// Words and marks. Each takes the white space after it along.

fn space(input: &mut Input<'_>) -> Parsed<()> {
    take_while(0.., char::is_whitespace)
        .void()
        .parse_next(input)
}

/// What a parser finds, if it finds it; if not, it was expected here.
fn maybe<'a, T>(
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

fn expected(input: &mut Input<'_>, position: usize, what: &'static str) {
    let progress = &mut input.state;
    if position > progress.furthest {
        progress.furthest = position;
        progress.expected.clear();
    }
    if position == progress.furthest && !progress.expected.contains(&what) {
        progress.expected.push(what);
    }
}

fn must<'a, T>(
    input: &mut Input<'a>,
    what: &'static str,
    parser: impl Parser<Input<'a>, T, Failure>,
) -> Parsed<T> {
    maybe(input, what, parser)?.ok_or(Failure::Other)
}

fn symbol(input: &mut Input<'_>, symbol: &'static str, shown: &'static str) -> Parsed<bool> {
    maybe(input, shown, symbol).map(|found| found.is_some())
}

fn word<'a>(keyword: &'static str) -> impl Parser<Input<'a>, &'a str, Failure> {
    name.verify(move |found: &str| found.eq_ignore_ascii_case(keyword))
}

fn keyword(input: &mut Input<'_>, keyword: &'static str) -> Parsed<bool> {
    maybe(input, keyword, word(keyword)).map(|found| found.is_some())
}

fn end(input: &mut Input<'_>) -> Parsed<()> {
    must(input, "the end", winnow::combinator::eof).map(drop)
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

fn name<'a>(input: &mut Input<'a>) -> Parsed<&'a str> {
    (
        one_of(|c: char| is_name(c) && !c.is_numeric()),
        take_while(0.., is_name),
    )
        .take()
        .parse_next(input)
}

// Clauses

fn select(input: &mut Input<'_>) -> Parsed<Query> {
    must(input, "SELECT", word("SELECT"))?;
    let top = if keyword(input, "TOP")? {
        Some(must(input, "a number of rows, from 1", count)?)
    } else {
        None
    };
    let list = input.current_token_start();
    let columns = if symbol(input, "*", "\"*\"")? {
        None
    } else {
        Some(columns(input)?)
    };
    must(input, "FROM", word("FROM"))?;
    let source = source(input)?;
    let condition = if keyword(input, "WHERE")? {
        Some(or(input)?)
    } else {
        None
    };
    let group = if keyword(input, "GROUP")? {
        must(input, "BY", word("BY"))?;
        Some(path(input, "a property")?)
    } else {
        None
    };
    check_jobs_path(input, source)?;
    if source == Source::Jobs && (columns.is_some() || group.is_some()) {
        return Err(wrong(
            list,
            "FROM devices.jobs goes with SELECT * only, without GROUP BY",
        ));
    }
    check_groups(list, columns.as_deref(), group.as_ref())?;
    let columns = columns.map(|columns| columns.into_iter().map(|(_, column)| column).collect());
    Ok(Query {
        source,
        top,
        columns,
        condition: Condition(condition),
        group,
    })
}

fn count(input: &mut Input<'_>) -> Parsed<u64> {
    take_while(1.., |c: char| c.is_ascii_digit())
        .verify_map(|digits: &str| digits.parse().ok().filter(|count| *count > 0))
        .parse_next(input)
}

/// The columns with where each begins.
fn columns(input: &mut Input<'_>) -> Parsed<Vec<(usize, Column)>> {
    let mut columns: Vec<(usize, Column)> = Vec::new();
    loop {
        let position = input.current_token_start();
        let (default, path) = match call(input)? {
            Some(name) if name.eq_ignore_ascii_case("COUNT") => {
                must(input, "\")\"", ")")?;
                ("Count".to_owned(), None)
            }
            Some(name) => return Err(no_column(position, name)),
            None => {
                let path = path(input, "a property or COUNT()")?;
                (path.0.last().cloned().unwrap_or_default(), Some(path))
            }
        };
        let name = if keyword(input, "AS")? {
            must(input, "a name", alt((quoted, plain)))?.to_owned()
        } else {
            default
        };
        if columns.iter().any(|(_, column)| column.name == name) {
            return Err(wrong(
                position,
                format!("a column {name:?} is there already: name this one with AS"),
            ));
        }
        columns.push((position, Column { name, path }));
        if !symbol(input, ",", "\",\"")? {
            return Ok(columns);
        }
    }
}

fn no_column(position: usize, name: &str) -> Failure {
    let aggregate = ["AVG", "SUM", "MIN", "MAX"]
        .into_iter()
        .find(|aggregate| name.eq_ignore_ascii_case(aggregate));
    match aggregate {
        Some(name) => wrong(
            position,
            format!("this hub does not have {name}(): of the aggregates only COUNT()"),
        ),
        None => wrong(
            position,
            "only properties and COUNT() can be selected, no other function",
        ),
    }
}

fn source(input: &mut Input<'_>) -> Parsed<Source> {
    let position = input.current_token_start();
    let names = must(
        input,
        "devices or devices.jobs",
        (word("devices"), opt(preceded(".", name))),
    )?;
    match names.1 {
        None => Ok(Source::Devices),
        Some(name) if name.eq_ignore_ascii_case("jobs") => Ok(Source::Jobs),
        Some(name) if name.eq_ignore_ascii_case("modules") => {
            Err(wrong(position, "this hub has no modules"))
        }
        Some(_) => Err(wrong(
            position,
            "only devices and devices.jobs can be queried",
        )),
    }
}

fn check_groups(
    list: usize,
    columns: Option<&[(usize, Column)]>,
    group: Option<&Path>,
) -> Parsed<()> {
    let Some(columns) = columns else {
        return match group {
            Some(_) => Err(wrong(
                list,
                "SELECT * does not go with GROUP BY: name its property or COUNT()",
            )),
            None => Ok(()),
        };
    };
    if group.is_none() && columns.iter().all(|(_, column)| column.path.is_some()) {
        return Ok(());
    }
    let stray = columns
        .iter()
        .find(|(_, column)| column.path.is_some() && column.path.as_ref() != group);
    match stray {
        Some((position, column)) => Err(wrong(
            *position,
            format!(
                "{} is neither COUNT() nor the property of GROUP BY",
                column.name
            ),
        )),
        None => Ok(()),
    }
}

fn check_jobs_path(input: &Input<'_>, source: Source) -> Parsed<()> {
    match (input.state.jobs_path, source) {
        (Some(position), Source::Devices) => Err(wrong(
            position,
            "devices.jobs can be named only in a query FROM devices.jobs",
        )),
        _ => Ok(()),
    }
}

// Expressions, from the weakest binding to the strongest

fn or(input: &mut Input<'_>) -> Parsed<Expression> {
    chain(input, "OR", and, Expression::Or)
}

fn and(input: &mut Input<'_>) -> Parsed<Expression> {
    chain(input, "AND", not, Expression::And)
}

fn chain(
    input: &mut Input<'_>,
    operator: &'static str,
    part: fn(&mut Input<'_>) -> Parsed<Expression>,
    all: fn(Vec<Expression>) -> Expression,
) -> Parsed<Expression> {
    let first = part(input)?;
    if !keyword(input, operator)? {
        return Ok(first);
    }
    let mut parts = vec![first, part(input)?];
    while keyword(input, operator)? {
        parts.push(part(input)?);
    }
    Ok(all(parts))
}

fn not(input: &mut Input<'_>) -> Parsed<Expression> {
    let mut times = 0_usize;
    while keyword(input, "NOT")? {
        times += 1;
    }
    let mut expression = comparison(input)?;
    // Twice is not nothing (it makes undefined of what is no Boolean), but more often says no more.
    for _ in 0..times.min(2 - times % 2) {
        expression = Expression::Not(Box::new(expression));
    }
    Ok(expression)
}

fn comparison(input: &mut Input<'_>) -> Parsed<Expression> {
    const WHAT: &str = "a comparison (= != <> < <= > >= IN NIN)";
    let left = operand(input)?;
    if let Some(operator) = maybe(input, WHAT, operator)? {
        let right = operand(input)?;
        return Ok(Expression::Compare(
            Box::new(left),
            operator,
            Box::new(right),
        ));
    }
    let not_in = (word("NOT"), space, word("IN")).value(true);
    let operator = alt((word("IN").value(false), word("NIN").value(true), not_in));
    let Some(negated) = maybe(input, WHAT, operator)? else {
        return Ok(left);
    };
    let inside = Expression::In(Box::new(left), list(input)?);
    Ok(if negated {
        Expression::Not(Box::new(inside))
    } else {
        inside
    })
}

fn operator(input: &mut Input<'_>) -> Parsed<Operator> {
    alt((
        "<=".value(Operator::LessOrEqual),
        ">=".value(Operator::GreaterOrEqual),
        alt(("<>", "!=")).value(Operator::NotEqual),
        "=".value(Operator::Equal),
        "<".value(Operator::Less),
        ">".value(Operator::Greater),
    ))
    .parse_next(input)
}

fn list(input: &mut Input<'_>) -> Parsed<Vec<Value>> {
    must(input, "\"[\"", "[")?;
    let mut values = Vec::new();
    loop {
        values.push(must(input, "a value", constant)?);
        if !symbol(input, ",", "\",\"")? {
            must(input, "\"]\"", "]")?;
            return Ok(values);
        }
    }
}

fn operand(input: &mut Input<'_>) -> Parsed<Expression> {
    const WHAT: &str = "a property or a value";
    let position = input.current_token_start();
    if maybe(input, WHAT, "(")?.is_some() {
        return nested(input, position, |input| {
            let inside = or(input)?;
            must(input, "\")\"", ")")?;
            Ok(inside)
        });
    }
    if let Some(name) = call(input)? {
        return nested(input, position, |input| function(input, position, name));
    }
    if let Some(value) = maybe(input, WHAT, constant)? {
        return Ok(Expression::Constant(value));
    }
    if maybe(input, WHAT, word("UNDEFINED"))?.is_some() {
        return Ok(Expression::Undefined);
    }
    path(input, WHAT).map(Expression::Path)
}

fn nested<'a, T>(
    input: &mut Input<'a>,
    position: usize,
    inside: impl FnOnce(&mut Input<'a>) -> Parsed<T>,
) -> Parsed<T> {
    if input.state.depth == MAX_DEPTH {
        return Err(wrong(
            position,
            format!("this is nested more than {MAX_DEPTH} deep"),
        ));
    }
    input.state.depth += 1;
    let parsed = inside(input);
    input.state.depth -= 1;
    parsed
}

/// The name of a function with the parenthesis after it.
fn call<'a>(input: &mut Input<'a>) -> Parsed<Option<&'a str>> {
    opt(terminated(plain, (space, "(", space))).parse_next(input)
}

fn function(input: &mut Input<'_>, position: usize, name: &str) -> Parsed<Expression> {
    let upper = name.to_ascii_uppercase();
    let kind = match upper.as_str() {
        "IS_DEFINED" => Some(Kind::Defined),
        "IS_NULL" => Some(Kind::Null),
        "IS_BOOL" => Some(Kind::Bool),
        "IS_NUMBER" => Some(Kind::Number),
        "IS_STRING" => Some(Kind::String),
        "IS_ARRAY" => Some(Kind::Array),
        "IS_OBJECT" => Some(Kind::Object),
        "IS_PRIMITIVE" => Some(Kind::Primitive),
        _ => None,
    };
    let text = match upper.as_str() {
        "STARTSWITH" | "STARTS_WITH" => Some(TextFunction::StartsWith),
        "ENDSWITH" | "ENDS_WITH" => Some(TextFunction::EndsWith),
        "CONTAINS" => Some(TextFunction::Contains),
        _ => None,
    };
    let call = match (kind, text) {
        (Some(Kind::Defined), _) => {
            let path = path(input, "a property")?;
            Expression::Is(Kind::Defined, Box::new(Expression::Path(path)))
        }
        (Some(kind), _) => Expression::Is(kind, Box::new(operand(input)?)),
        (None, Some(function)) => {
            let whole = operand(input)?;
            must(input, "\",\"", ",")?;
            Expression::Text(function, Box::new(whole), Box::new(operand(input)?))
        }
        (None, None) => {
            let message = match upper.as_str() {
                "COUNT" => "COUNT() can only be selected".to_owned(),
                "AVG" | "SUM" | "MIN" | "MAX" => return Err(no_column(position, name)),
                _ => {
                    let name: String = name.chars().take(40).collect();
                    format!(
                        "this hub has no function {name}(): it has IS_DEFINED, IS_NULL, IS_BOOL, IS_NUMBER, IS_STRING, IS_ARRAY, IS_OBJECT, IS_PRIMITIVE, STARTSWITH, ENDSWITH and CONTAINS"
                    )
                }
            };
            return Err(wrong(position, message));
        }
    };
    must(input, "\")\"", ")")?;
    Ok(call)
}

// Properties

fn is_reserved(name: &str) -> bool {
    [
        "SELECT",
        "TOP",
        "FROM",
        "WHERE",
        "GROUP",
        "BY",
        "AS",
        "AND",
        "OR",
        "NOT",
        "IN",
        "NIN",
        "TRUE",
        "FALSE",
        "NULL",
        "UNDEFINED",
    ]
    .into_iter()
    .any(|keyword| name.eq_ignore_ascii_case(keyword))
}

/// A name that is no keyword.
fn plain<'a>(input: &mut Input<'a>) -> Parsed<&'a str> {
    name.verify(|name: &str| !is_reserved(name))
        .parse_next(input)
}

/// `[[name]]`: any name, such as a configuration's id.
fn quoted<'a>(input: &mut Input<'a>) -> Parsed<&'a str> {
    let position = input.current_token_start();
    "[[".parse_next(input)?;
    let name: Option<&str> = opt(terminated(take_until(1.., "]]"), "]]")).parse_next(input)?;
    name.ok_or_else(|| wrong(position, "[[ is not followed by a name and ]]"))
}

fn path(input: &mut Input<'_>, what: &'static str) -> Parsed<Path> {
    let position = input.current_token_start();
    let Some(first) = opt(alt((quoted, plain))).parse_next(input)? else {
        expected(input, position, what);
        return Err(Failure::Other);
    };
    let mut names = vec![first.to_owned()];
    while opt(".").parse_next(input)?.is_some() {
        let position = input.current_token_start();
        match opt(alt((quoted, name))).parse_next(input)? {
            Some(name) => names.push(name.to_owned()),
            None => {
                expected(input, position, "a property's name or [[name]]");
                return Err(Failure::Other);
            }
        }
    }
    space(input)?;

    let is = |index: usize, name: &str| {
        names
            .get(index)
            .is_some_and(|found| found.eq_ignore_ascii_case(name))
    };
    let prefix = if is(0, "devices") && is(1, "jobs") && names.len() > 2 {
        input.state.jobs_path.get_or_insert(position);
        2
    } else {
        usize::from(is(0, "devices") && names.len() > 1)
    };
    names.drain(..prefix);
    Ok(Path::new(names))
}

impl Path {
    /// Gives a document's own members their own spelling.
    fn new(mut names: Vec<String>) -> Self {
        const MEMBERS: [&str; 26] = [
            "authenticationType",
            "capabilities",
            "cloudToDeviceMessageCount",
            "configurations",
            "connectionState",
            "createdDateTimeUtc",
            "deviceEtag",
            "deviceId",
            "endTimeUtc",
            "error",
            "etag",
            "jobId",
            "jobType",
            "lastActivityTime",
            "lastUpdatedDateTimeUtc",
            "modelId",
            "moduleId",
            "outcome",
            "properties",
            "startTimeUtc",
            "status",
            "statusReason",
            "statusUpdateTime",
            "tags",
            "version",
            "x509Thumbprint",
        ];
        let spell = |name: Option<&mut String>, members: &[&str]| {
            let own = |name: &&mut String| {
                members
                    .iter()
                    .find(|member| member.eq_ignore_ascii_case(name))
            };
            if let Some(name) = name
                && let Some(own) = own(&name)
            {
                *name = (*own).to_owned();
            }
        };
        spell(names.first_mut(), &MEMBERS);
        if names.first().is_some_and(|name| name == "properties") {
            spell(names.get_mut(1), &["desired", "reported"]);
        }
        Self(names)
    }
}

// Constants

fn constant(input: &mut Input<'_>) -> Parsed<Value> {
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
