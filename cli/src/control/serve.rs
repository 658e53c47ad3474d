//! The agent's end of its local control.

use super::{CLIENT_TIME, Install, NAME, Order, Problem, REQUEST, Reply, WORK_TIME, short};
use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, Read, Write},
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};
use twinflash::{
    device::{Device, InstallFile, Updater},
    update::{Code, Failure, Phase},
};

/// Clients that are talked to at a time.
const CLIENTS: usize = 8;

/// An agent that can be asked; its socket goes with it.
pub(crate) struct Control(PathBuf);

impl Control {
    /// Begins to listen. Whoever holds the state directory's lock may do that: a socket that is there
    /// already was left over by an agent that was killed.
    pub(crate) fn start(directory: &Path, device: &Arc<Device>) -> io::Result<Self> {
        let listener = bind(directory)?;
        let device = Arc::downgrade(device);
        thread::Builder::new()
            .name("control".into())
            .spawn(move || listen(&listener, &device))?;
        Ok(Self(directory.join(NAME)))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A socket has the mode that `bind` gives it until it is given another one: so it is made where nobody
/// else comes, and then moved to its place.
fn bind(directory: &Path) -> io::Result<UnixListener> {
    let room = directory.join("control.new");
    match fs::remove_dir_all(&room) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&room)?;
    let (path, _held) = short(&room, NAME)?;
    let listener = UnixListener::bind(path)?;
    let made = room.join(NAME);
    fs::set_permissions(&made, Permissions::from_mode(0o600))?;
    fs::rename(&made, directory.join(NAME))?;
    fs::remove_dir(&room)?;
    Ok(listener)
}

fn listen(listener: &UnixListener, device: &Weak<Device>) {
    // As many as there are talked to hold it.
    let clients = Arc::new(());
    for client in listener.incoming() {
        let Ok(client) = client else {
            // No file left to open, perhaps; that may pass.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        if Arc::strong_count(&clients) > CLIENTS {
            continue;
        }
        let (talked_to, device) = (Arc::clone(&clients), device.clone());
        let talk = move || {
            let _talked_to = talked_to;
            // A client that goes away is its own affair.
            let _ = talk(client, &device);
        };
        let _ = thread::Builder::new().name("control".into()).spawn(talk);
    }
}

fn talk(mut client: UnixStream, device: &Weak<Device>) -> io::Result<()> {
    let line = read(&mut client, CLIENT_TIME)?;
    let reply = match serde_json::from_slice::<Order>(&line) {
        Err(error) => {
            let text = format!("the request cannot be understood: {error}");
            problem(&Failure::new(Code::InvalidRequest, text))
        }
        Ok(order) => match device.upgrade() {
            Some(device) => obey(device.updater(), &order),
            None => return Ok(()),
        },
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    client.set_write_timeout(Some(CLIENT_TIME))?;
    client.write_all(&line)
}

/// One line, of limited length and in limited time, however it comes.
fn read(client: &mut UnixStream, time: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + time;
    let mut line = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        client.set_read_timeout(Some(left))?;
        let read = client.read(&mut buffer)?;
        let new = buffer.get(..read).unwrap_or_default();
        let end = new.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(new.get(..end.unwrap_or(read)).unwrap_or_default());
        if line.len() > REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if end.is_some() || read == 0 {
            return Ok(line);
        }
    }
}

fn problem(failure: &Failure) -> Reply {
    Reply {
        done: false,
        status: serde_json::Value::Null,
        error: Some(Problem {
            code: failure.code.as_str().into(),
            message: failure.message.clone(),
        }),
    }
}

/// Does what was asked for.
fn obey(updater: &Updater, order: &Order) -> Reply {
    let downloads = || {
        let phase = updater.status().phase;
        matches!(phase, Some(Phase::Waiting | Phase::Downloading))
    };
    let done = match order {
        Order::Status => Ok(true),
        Order::Cancel => updater.cancel(),
        Order::Pause => {
            updater.pause();
            Ok(downloads())
        }
        Order::Resume => {
            updater.resume();
            Ok(downloads())
        }
        Order::Approve => updater.approve(),
        Order::Defer { seconds } => match Duration::try_from_secs_f64(*seconds) {
            Ok(time) if !time.is_zero() => updater.defer(time),
            _ => {
                let text = format!("an update cannot be put off for {seconds} seconds");
                Err(Failure::new(Code::InvalidRequest, text))
            }
        },
        Order::Install(install) => install_file(updater, install),
        Order::Confirm if updater.status().phase != Some(Phase::Confirming) => Ok(false),
        Order::Confirm => {
            updater.confirm();
            confirmed(updater)
        }
    };
    let saved = |done| match order {
        Order::Status => Ok(done),
        _ => updater.flush(WORK_TIME).map(|()| done),
    };
    match done.and_then(saved) {
        Ok(done) => Reply {
            done,
            status: updater.status().to_json(),
            error: None,
        },
        Err(failure) => problem(&failure),
    }
}

fn install_file(updater: &Updater, install: &Install) -> Result<bool, Failure> {
    let mut options = InstallFile::default();
    options.manifest.clone_from(&install.manifest);
    options.version.clone_from(&install.version);
    options.check.clone_from(&install.check);
    for path in [Some(&install.file), install.manifest.as_ref()]
        .into_iter()
        .flatten()
    {
        if !path.is_absolute() {
            let text = format!("{} is no absolute path", path.display());
            return Err(Failure::new(Code::InvalidRequest, text));
        }
    }
    updater.install_file(&install.file, &options).map(|()| true)
}

/// Waits until the installer has made the new version stay.
fn confirmed(updater: &Updater) -> Result<bool, Failure> {
    let deadline = Instant::now() + WORK_TIME;
    while updater.status().phase == Some(Phase::Confirming) {
        if Instant::now() >= deadline {
            let text = "the new version is good, but could not be made to stay yet: see the agent's output; it is tried again";
            return Err(Failure::new(Code::InstallFailed, text));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(updater
        .status()
        .outcome
        .is_none_or(|outcome| outcome.is_success()))
}
