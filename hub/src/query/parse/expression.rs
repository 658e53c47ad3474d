//! Expressions, from the weakest binding to the strongest.

use super::{
    lexer::{Input, Parsed, constant, keyword, maybe, must, space, symbol, word, wrong},
    no_column,
    path::{path, plain},
};
use crate::query::{
    MAX_DEPTH,
    evaluate::{Expression, Kind, Operator, TextFunction},
};
use serde_json::Value;
use winnow::{
    Parser,
    combinator::{alt, opt, terminated},
    stream::Location,
};

pub(super) fn or(input: &mut Input<'_>) -> Parsed<Expression> {
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
pub(super) fn call<'a>(input: &mut Input<'a>) -> Parsed<Option<&'a str>> {
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
