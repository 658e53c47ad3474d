//! From text to a query. A word of lookahead decides each step, so nothing is parsed twice; what was tried at the furthest
//! place is what an error says was expected there.

mod expression;
mod lexer;
mod path;

use super::{Column, Condition, Path, Query, QueryError, Source};
use expression::{call, or};
use lexer::{Failure, Input, Parsed, keyword, must, name, run, symbol, word, wrong};
use path::{path, plain, quoted};
use winnow::{
    Parser,
    combinator::{alt, opt, preceded},
    stream::Location,
    token::take_while,
};

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
