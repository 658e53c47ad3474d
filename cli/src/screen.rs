//! What a person or a program gets to read.
//!
//! People get lines of time, label and text, with colours and a progress bar where standard output is
//! a terminal; programs get one JSON object a line. Nobody reading is no error: a device goes on
//! with its work when the other end of a pipe has gone.

use crate::error::Error;
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::{
    io::{IsTerminal, Write},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, SyncSender},
    },
    thread,
    time::Duration,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The width of the longest label.
const LABEL: usize = 12;
/// Where an event's label begins, and what belongs to an event: after the time and a gap.
const INDENT: usize = 12 + 2;
/// Progress in lines comes in steps of so many per cent.
const STEP: u64 = 25;
/// How many lines may wait to be written.
const MAX_WAITING: usize = 8192;
/// How long those that wait at the end may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Cheap to clone; all clones write to the same place, line by line.
#[derive(Clone)]
pub(crate) struct Screen(Arc<Inner>);

struct Inner {
    json: bool,
    bars: bool,
    progress: Mutex<Progress>,
    background: OnceLock<Background>,
}

/// The lines' way to the thread that writes them.
struct Background {
    lines: SyncSender<Waiting>,
    /// How many there was no room for.
    lost: AtomicU64,
}

enum Waiting {
    Line(String),
    /// What came before is written when this is dropped.
    End(mpsc::Sender<()>),
}

#[derive(Default)]
struct Progress {
    bar: Option<ProgressBar>,
    /// The last step of [`STEP`] that was shown in a line.
    step: u64,
}

/// What a text means, for its colour.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Normal,
    /// Under way.
    Running,
    Good,
    Bad,
    Warning,
    Dim,
}

impl Tone {
    const fn style(self) -> Style {
        let colour = match self {
            Self::Normal => return Style::new(),
            Self::Dim => return Style::new().dimmed(),
            Self::Running => AnsiColor::Cyan,
            Self::Good => AnsiColor::Green,
            Self::Bad => AnsiColor::Red,
            Self::Warning => AnsiColor::Yellow,
        };
        colour.on_default()
    }
}

#[derive(Serialize)]
struct Timed<'a, E: Serialize> {
    #[serde(flatten)]
    event: &'a E,
    time: String,
}

impl Screen {
    pub(crate) fn new(json: bool) -> Self {
        let terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        Self(Arc::new(Inner {
            json,
            bars: terminal && !json,
            progress: Mutex::default(),
            background: OnceLock::new(),
        }))
    }

    /// From now on a thread of its own writes the lines, and who does not take them (a pipe that nobody empties) holds up
    /// nothing else. When too many wait, further ones are left out.
    pub(crate) fn in_background(&self) -> Result<(), Error> {
        let (lines, waiting) = mpsc::sync_channel(MAX_WAITING);
        let lost = AtomicU64::new(0);
        let _ = self.0.background.set(Background { lines, lost });
        let screen = self.clone();
        let write = move || {
            for waiting in waiting {
                match waiting {
                    Waiting::Line(line) => screen.write_now(&line),
                    Waiting::End(end) => drop(end),
                }
                let lost = screen.0.background.get().map(|background| &background.lost);
                match lost.map_or(0, |lost| lost.swap(0, Ordering::Relaxed)) {
                    0 => {}
                    lost => screen.note(&format!(
                        "{lost} lines are not shown: they came faster than they were taken"
                    )),
                }
            }
        };
        thread::Builder::new()
            .name("screen".into())
            .spawn(write)
            .map(drop)
            .map_err(|error| Error::new(format_args!("cannot start a thread: {error}")))
    }

    /// Before the process ends: what waits is written, if it is taken soon.
    pub(crate) fn finish(&self) {
        let Some(background) = self.0.background.get() else {
            return;
        };
        let (end, ended) = mpsc::channel();
        let lines = background.lines.clone();
        // There may be no room even for that.
        let told = thread::Builder::new().spawn(move || lines.send(Waiting::End(end)));
        if told.is_ok() {
            let _ = ended.recv_timeout(LAST_WORDS);
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.0.json
    }

    fn progress_state(&self) -> MutexGuard<'_, Progress> {
        let progress = &self.0.progress;
        progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a whole line, at once or in the background.
    fn write(&self, line: String) {
        match self.0.background.get() {
            Some(background) => {
                if background.lines.try_send(Waiting::Line(line)).is_err() {
                    background.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            None => self.write_now(&line),
        }
    }

    /// Writes a whole line, above the progress bar if there is one.
    fn write_now(&self, line: &str) {
        let write = || {
            let mut out = anstream::stdout().lock();
            // Nobody reading is no error.
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        };
        // It may take long: others must be able to go on.
        let bar = self.progress_state().bar.clone();
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// An object as it is, without a time.
    pub(crate) fn json(&self, object: &impl Serialize) {
        if let Ok(line) = serde_json::to_string(object) {
            self.write(line);
        }
    }

    /// An object for programs, or what else shows it to people.
    pub(crate) fn json_or(&self, object: &impl Serialize, people: impl FnOnce()) {
        match self.is_json() {
            true => self.json(object),
            false => people(),
        }
    }

    /// Something that happened now: the event for programs, label and text for people.
    pub(crate) fn event(
        &self,
        event: &impl Serialize,
        label: &str,
        tone: Tone,
        text: impl FnOnce() -> String,
    ) {
        self.event_at(OffsetDateTime::now_utc(), event, label, tone, text);
    }

    /// Something that happened at some time.
    pub(crate) fn event_at(
        &self,
        at: OffsetDateTime,
        event: &impl Serialize,
        label: &str,
        tone: Tone,
        text: impl FnOnce() -> String,
    ) {
        if self.is_json() {
            let time = iso(at);
            return self.json(&Timed { event, time });
        }
        let (dim, bold, style) = (Tone::Dim.style(), Style::new().bold(), tone.style());
        let (time, text) = (clock(at), printable(&text()));
        self.write(format!(
            "{dim}{time}{dim:#}  {bold}{label:LABEL$}{bold:#}  {style}{text}{style:#}"
        ));
    }

    /// A line of a name and its value, for people only.
    pub(crate) fn pair(&self, width: usize, name: &str, value: &str, what: &str, tone: Tone) {
        if self.is_json() {
            return;
        }
        let (dim, style) = (Tone::Dim.style(), tone.style());
        let value = printable(value);
        let gap = if what.is_empty() { "" } else { "  " };
        self.write(format!(
            "{dim}{name:width$}{dim:#}  {style}{value}{style:#}{gap}{dim}{what}{dim:#}"
        ));
    }

    /// A line of a name and its value below an event's text, for people only.
    pub(crate) fn below(&self, name: &str, value: &str) {
        self.pair(0, &format!("{:INDENT$}{name:19}", ""), value, "", Tone::Dim);
    }

    /// A line as it is, for people only.
    pub(crate) fn text(&self, text: &str, tone: Tone) {
        if !self.is_json() {
            let style = tone.style();
            self.write(format!("{style}{}{style:#}", printable(text)));
        }
    }

    /// So many bytes are there: a bar on a terminal, else a line from time to time.
    pub(crate) fn progress(&self, event: &impl Serialize, bytes: u64, total: Option<u64>) {
        if self.is_json() {
            let time = iso(OffsetDateTime::now_utc());
            return self.json(&Timed { event, time });
        }
        if self.0.bars {
            const TEMPLATE: &str = "{bar:24.cyan} {bytes} of {total_bytes}, {binary_bytes_per_sec}";
            let bar = self.bar(total.unwrap_or_default(), TEMPLATE);
            return bar.set_position(bytes);
        }
        let Some(percent) = total.and_then(|total| bytes.saturating_mul(100).checked_div(total))
        else {
            return;
        };
        let mut progress = self.progress_state();
        if percent / STEP <= progress.step {
            return;
        }
        progress.step = percent / STEP;
        drop(progress);
        self.event(event, "progress", Tone::Dim, || {
            let total = size(total.unwrap_or_default());
            format!("{percent:3} %  {} of {total}", size(bytes))
        });
    }

    /// So many per cent are there: a bar on a terminal.
    pub(crate) fn percent(&self, percent: u8) {
        if self.0.bars {
            self.bar(100, "{bar:24.cyan} {pos} %")
                .set_position(percent.into());
        }
    }

    /// Lines that stand at the end and change in place, on a terminal. Elsewhere nothing is shown; says
    /// whether it was.
    pub(crate) fn block(&self, lines: impl FnOnce() -> Vec<(String, Tone)>) -> bool {
        if self.0.bars {
            let styled = |(line, tone): (String, Tone)| {
                let style = tone.style();
                format!("{style}{}{style:#}", printable(&line))
            };
            let lines: Vec<_> = lines().into_iter().map(styled).collect();
            self.bar(0, "{msg}")
                .set_message(lines.join(&format!("\n{:INDENT$}", "")));
        }
        self.0.bars
    }

    fn bar(&self, length: u64, template: &str) -> ProgressBar {
        let mut progress = self.progress_state();
        let new = || {
            let style = ProgressStyle::with_template(&format!("{:INDENT$}{template}", ""))
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(length).with_style(style.progress_chars("━━─"))
        };
        let bar = progress.bar.get_or_insert_with(new);
        bar.set_length(length);
        bar.clone()
    }

    /// Nothing is under way any more.
    pub(crate) fn progress_ended(&self) {
        let mut progress = self.progress_state();
        if let Some(bar) = progress.bar.take() {
            bar.finish_and_clear();
        }
        progress.step = 0;
    }

    /// Why the command ends without having done what it was asked for: on standard error, and for
    /// programs as the last line of standard output too.
    pub(crate) fn error(&self, error: &Error) {
        #[derive(Serialize)]
        #[serde(tag = "event", rename = "error")]
        struct Event {
            message: String,
        }
        self.progress_ended();
        let message = printable(&error.to_string());
        let style = Tone::Bad.style().bold();
        let _ = writeln!(anstream::stderr(), "{style}error:{style:#} {message}");
        if self.is_json() {
            self.json(&Event { message });
        }
    }

    /// Something to know about how the command goes on, on standard error.
    pub(crate) fn note(&self, note: &str) {
        let write = || {
            let _ = writeln!(anstream::stderr(), "{}", printable(note));
        };
        let bar = self.progress_state().bar.clone();
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// One line, without what could steer a terminal: some of it was written by others.
fn printable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(clean).collect()
}

/// The time of day in UTC, with the date where that is another than today's.
fn clock(at: OffsetDateTime) -> String {
    let (hour, minute, second, milli) = at.to_hms_milli();
    let time = format!("{hour:02}:{minute:02}:{second:02}.{milli:03}");
    match at.date() == OffsetDateTime::now_utc().date() {
        true => time,
        false => format!("{} {time}", at.date()),
    }
}

/// ISO 8601, UTC, milliseconds.
pub(crate) fn iso(at: OffsetDateTime) -> String {
    let (hour, minute, second, milli) = at.to_hms_milli();
    let date = at.date();
    format!("{date}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// A time as a hub writes it.
pub(crate) fn parse_time(text: &str) -> Option<OffsetDateTime> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(at.to_offset(time::UtcOffset::UTC))
}

/// A number of bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let at = parse_time("2026-11-19T23:59:58.1234567Z").unwrap();
        assert_eq!(iso(at), "2026-11-19T23:59:58.123Z");
        assert_eq!(clock(at), "2026-11-19 23:59:58.123");
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn what_others_wrote_steers_no_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a [2Jb c");
    }
}
