//! Asks a running agent.

use super::{CLIENT_TIME, NAME, Order, REPLY, Reply, WORK_TIME, short};
use crate::{
    error::Error,
    screen::{Screen, Tone, size},
};
use serde_json::Value;
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

/// The width of the longest name of a line.
const NAMES: usize = 12;

/// Asks the agent whose state directory this is, and shows what it says. `false` where what was asked
/// for did not happen.
pub(crate) fn ask(directory: &Path, order: Order, screen: &Screen) -> Result<bool, Error> {
    let order = match order {
        Order::Install(install) => Order::Install(install.absolute().map_err(Error::new)?),
        order => order,
    };
    let line = exchange(directory, &order).map_err(|error| explain(&error, directory))?;
    let reply: Reply = serde_json::from_slice(&line)
        .map_err(|error| Error::new(format_args!("the agent's answer is no reply: {error}")))?;
    if let Some(problem) = reply.error {
        return Err(Error::new(problem.message));
    }
    if order == Order::Status {
        screen.json_or(&reply.status, || show(&reply.status, screen));
        return Ok(true);
    }
    if !reply.done {
        return Err(Error::new(match order {
            Order::Confirm => "no new version waits to be confirmed",
            Order::Cancel => "no update runs that could be cancelled",
            Order::Approve => "no update waits for consent",
            Order::Defer { .. } => "no update runs that could be put off",
            _ => "no update is being downloaded",
        }));
    }
    screen.json_or(&reply, || {
        let text = match order {
            Order::Confirm => "the new version is confirmed",
            Order::Cancel => "the update is cancelled",
            Order::Pause => "the download is paused until it is resumed",
            Order::Approve => "agreed; the update goes on",
            Order::Defer { .. } => "the update is put off",
            Order::Install(_) => {
                "the installation has begun; ask for the status to see how it goes"
            }
            _ => "the download goes on",
        };
        screen.text(text, Tone::Good);
    });
    Ok(true)
}

fn exchange(directory: &Path, order: &Order) -> io::Result<Vec<u8>> {
    let (path, _held) = short(directory, NAME)?;
    let mut agent = UnixStream::connect(path)?;
    agent.set_write_timeout(Some(CLIENT_TIME))?;
    agent.set_read_timeout(Some(2 * WORK_TIME))?;
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    agent.write_all(&line)?;
    let mut reply = Vec::new();
    BufReader::new(agent.take(REPLY)).read_until(b'\n', &mut reply)?;
    match reply.is_empty() {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok(reply),
    }
}

fn explain(error: &io::Error, directory: &Path) -> Error {
    use io::ErrorKind as Kind;
    let shown = directory.display();
    Error::new(match error.kind() {
        Kind::NotFound | Kind::ConnectionRefused => format!(
            "no agent runs with the state directory {shown}: start one with twinflash device --config FILE"
        ),
        Kind::PermissionDenied => format!(
            "the agent with the state directory {shown} is another user's: only that user and root may ask it"
        ),
        Kind::TimedOut | Kind::WouldBlock => {
            format!("the agent with the state directory {shown} does not answer")
        }
        Kind::UnexpectedEof | Kind::BrokenPipe | Kind::ConnectionReset => {
            format!("the agent with the state directory {shown} is stopping or busy; try again")
        }
        _ => format!("cannot ask the agent with the state directory {shown}: {error}"),
    })
}

/// The status, for people.
fn show(status: &Value, screen: &Screen) {
    let text = |name: &str| status.get(name).and_then(Value::as_str);
    let message = |of: &str| status.get(of)?.get("message")?.as_str();
    let line = |name, value: &str, tone| screen.pair(NAMES, name, value, "", tone);
    let paused = status.get("paused") == Some(&Value::Bool(true));
    let phase = text("phase");
    match phase {
        Some(phase) if paused => line("phase", &format!("{phase}, paused"), Tone::Warning),
        Some(phase) => line("phase", phase, Tone::Running),
        None => line("phase", "idle", Tone::Normal),
    }
    if let Some(version) = text("runningVersion") {
        line("runs", version, Tone::Normal);
    }
    if let Some(version) = text("version") {
        let name = if phase.is_some() {
            "update to"
        } else {
            "last update"
        };
        line(name, version, Tone::Normal);
    }
    if phase.is_some() {
        line("image", &progress(status), Tone::Normal);
    }
    if let Some(waiting) = status.get("waiting").filter(|waiting| waiting.is_object()) {
        line("waiting for", &waiting_for(waiting), Tone::Warning);
    }
    if let Some(outcome) = text("outcome") {
        let tone = match message("error") {
            Some(_) => Tone::Bad,
            None => Tone::Normal,
        };
        let why = message("error").map(|why| format!(": {why}"));
        let value = format!("{outcome}{}", why.unwrap_or_default());
        line("last outcome", &value, tone);
    }
    if let Some(retry) = status.get("retry").filter(|retry| retry.is_object()) {
        let attempts = retry.get("attempts").and_then(Value::as_u64);
        let seconds = retry.get("afterSeconds").and_then(Value::as_f64);
        let next = match seconds {
            Some(seconds) if seconds >= 0.5 => format!("in {seconds:.0} s"),
            None if paused => "when it is resumed".into(),
            _ => "now".into(),
        };
        let next = format!("{next}; {} failed so far", attempts.unwrap_or_default());
        line("next attempt", &next, Tone::Warning);
        let why = message("retry").unwrap_or_default();
        line("last failure", why, Tone::Warning);
    }
}

/// What an update waits for, and until when: `window, before it is applied; opens 2026-11-28 02:00 UTC`.
fn waiting_for(waiting: &Value) -> String {
    let text = |name: &str| waiting.get(name).and_then(Value::as_str);
    let kind = text("for").unwrap_or_default();
    let before = match text("before") {
        Some("apply") => "before it is applied",
        _ => "before its download",
    };
    let seconds = waiting.get("afterSeconds").and_then(Value::as_f64);
    let at = text("until").and_then(|until| Some((until.get(..10)?, until.get(11..16)?)));
    let when = match (at, seconds) {
        (Some((day, time)), _) => format!("{day} {time} UTC"),
        (None, Some(seconds)) => format!("in {seconds:.0} s"),
        (None, None) => String::new(),
    };
    let end = match (kind, when.as_str()) {
        ("consent", "") => "; agree with approve, put off with defer".into(),
        ("clock", _) => "; the wall time is not known yet".into(),
        (_, "") => String::new(),
        ("window", when) => format!("; opens {when}"),
        ("consent" | "ready", when) => format!("; asked again {when}"),
        (_, when) => format!("; until {when}"),
    };
    let kind = match kind {
        "ready" => "the device to be ready",
        "start-delay" => "its turn",
        kind => kind,
    };
    format!("{kind}, {before}{end}")
}

fn progress(status: &Value) -> String {
    let number = |name: &str| status.get(name).and_then(Value::as_u64);
    let bytes = number("bytes").unwrap_or_default();
    match number("size").filter(|size| *size > 0) {
        Some(whole) => {
            let percent = u128::from(bytes) * 100 / u128::from(whole);
            format!("{percent} %, {} of {}", size(bytes), size(whole))
        }
        None => size(bytes),
    }
}
