//! The downloader, and a server that answers with whatever bytes.

use crate::device::{Choices, IMAGE};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{LazyLock, Mutex},
    thread,
    time::Duration,
};
use twinflash::{
    download::{Downloader, HttpOptions, Proxy, Stop},
    install::Installer,
    update::{Checkpoint, Checks, Ended, Failure, ImageInfo, ImageState, Job, Progress, Retry},
};

const URI: &str = "http://host/image?sig=tOpSeCrEt";
const SECRET: &str = "tOpSeCrEt";
/// More is not written, whatever comes.
const MOST: u64 = 20_000;

/// What every connection is answered with.
static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// It is asked as a proxy: so no redirect leads out of this machine.
static SERVER: LazyLock<SocketAddr> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    address
});

static DOWNLOADER: LazyLock<Downloader> = LazyLock::new(|| {
    let mut options = HttpOptions::default();
    options.proxy = Proxy::Url(format!("http://{}", *SERVER));
    options.connect_timeout = Duration::from_secs(5);
    Downloader::new(options).expect("a downloader")
});

fn answer(stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let tunnel = head(&mut reader)?;
    if tunnel {
        (&stream).write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
        head(&mut reader)?;
    }
    let answer = ANSWER.lock().ok()?.clone();
    (&stream).write_all(&answer).ok()?;
    stream.shutdown(Shutdown::Write).ok()?;
    // What is not read would make the system cut the line.
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    while reader.read(&mut [0; 512]).ok()? > 0 {}
    Some(())
}

/// Reads a request's head; whether it asks for a tunnel.
fn head(reader: &mut impl BufRead) -> Option<bool> {
    let mut first = None;
    loop {
        let mut line = Vec::new();
        if reader.take(4096).read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        first.get_or_insert(line.starts_with(b"CONNECT "));
        // TLS, after a redirect: there is no head to wait for.
        if line == b"\r\n" || line.starts_with(&[0x16]) {
            return first;
        }
    }
}

/// Keeps what it is given, and sees that it is given in order.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    may_resume: bool,
}

impl Installer for Kept {
    fn inspect(&mut self) -> Result<ImageState, Failure> {
        Ok(ImageState::Old)
    }
    fn begin(&mut self, _: &ImageInfo, resume_at: u64) -> Result<u64, Failure> {
        let from = if self.may_resume { resume_at } else { 0 };
        assert!(from <= self.bytes.len() as u64, "begun at {from}");
        self.bytes.truncate(from as usize);
        Ok(from)
    }
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        assert_eq!(offset, self.bytes.len() as u64, "a gap");
        self.bytes.extend_from_slice(bytes);
        assert!(self.bytes.len() as u64 <= MOST, "more than is allowed");
        Ok(())
    }
    fn sync(&mut self) -> Result<u64, Failure> {
        Ok(self.bytes.len() as u64)
    }
    fn finish(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn activate(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn confirm(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn rollback(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    fn abort(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// One attempt, answered with the input. Bytes are only ever appended where they belong, never more
/// than allowed; a complete image is as long as was announced and its digests are those of what was
/// written; no failure tells the query.
pub(crate) fn download(data: &[u8]) {
    const HAVE: usize = 5;
    let (mut choices, answer) = Choices::split(data);
    *ANSWER.lock().expect("the answer") = answer.to_vec();
    let resumes = choices.below(2) == 1;
    let mut checks = Checks::new();
    checks.update(&IMAGE[..HAVE]);
    let resume = resumes.then(|| Checkpoint {
        packed: None,
        sealed: None,
        content: "content".into(),
        validator: (choices.below(2) == 1).then(|| "\"1\"".into()),
        total: (choices.below(2) == 1).then_some(IMAGE.len() as u64),
        offset: HAVE as u64,
        checks: checks.save(),
    });
    let size = (choices.below(3) == 1).then_some(IMAGE.len() as u64);
    let mut kept = Kept {
        bytes: if resumes {
            IMAGE[..HAVE].to_vec()
        } else {
            Vec::new()
        },
        may_resume: choices.below(4) != 1,
    };
    let job = Job {
        uri: URI.into(),
        resume,
        size,
        max_size: MOST,
        hash_judges: choices.below(2) == 1,
        content: "content".into(),
        compression: None,
        encryption: None,
        file_size: None,
        local: false,
        https_only: false,
        max_redirects: 2,
        checkpoint_interval: Duration::ZERO,
        checkpoint_bytes: 1,
        stall_time: Duration::from_secs(5),
        stall_bytes: 1,
        bandwidth: None,
        dry_run: false,
    };
    let mut durable = 0;
    let mut on = |progress| {
        if let Progress::Durable(checkpoint) = progress {
            let checks = Checks::restore(&checkpoint.checks).expect("a checkpoint's state");
            assert_eq!(checks.bytes(), checkpoint.offset);
            durable = checkpoint.offset;
        }
    };
    let ended = DOWNLOADER.fetch(&job, &mut kept, ImageInfo::default(), &Stop::new(), &mut on);
    assert!(
        durable <= kept.bytes.len() as u64,
        "{durable} are said to be durable"
    );
    match ended {
        Ended::Complete { bytes, digests } => {
            assert_eq!(bytes, kept.bytes.len() as u64);
            assert!(size.is_none_or(|size| size == bytes), "{bytes} bytes");
            let mut checks = Checks::new();
            checks.update(&kept.bytes);
            assert_eq!(digests, checks.finish(), "digests of something else");
        }
        Ended::Failed(failure, retry) => {
            assert!(!failure.to_string().contains(SECRET), "{failure}");
            if let Retry::Resume(Some(wait)) = retry {
                assert!(wait <= Duration::from_secs(24 * 3600), "{wait:?}");
            }
        }
        Ended::Manifest(_) => panic!("an image was asked for, no manifest"),
        Ended::Stopped => panic!("nobody stopped it"),
    }
}
