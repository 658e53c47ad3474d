//! The examples, built against the installed library and run.

use super::{Outcome, servers::Servers};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

/// Much longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

// Some warnings take an optimizer to be found.
const WARNINGS: &str = "-O2 -g -Wall -Wextra -Wpedantic -Werror";

/// Builds them in C99 with the shared library, in C++17 with the static one, one by CMake in all four ways; runs
/// them.
pub(super) fn run(
    root: &Path,
    prefix: &Path,
    servers: &Servers,
    execute: &dyn Fn(&mut Command) -> Outcome,
) -> Outcome {
    let (shared, linked_in) = make(root, prefix, &[], execute)?;
    let in_c = cmake(root, prefix, "C", execute)?;
    let in_cpp = cmake(root, prefix, "CXX", execute)?;
    let examples = Examples { prefix, servers };
    examples.device(&shared.join("device"))?;
    for by_cmake in [in_c, in_cpp] {
        examples.device(&by_cmake.join("device_static"))?;
        examples.device(&by_cmake.join("device_twinflash"))?;
    }
    examples.device(&shared.join("device_curl"))?;
    examples.silent_server(&shared.join("device_curl"))?;
    examples.flash(&linked_in.join("device_flash"))?;
    examples.sdk(&linked_in.join("device_sdk"))?;
    examples.sdk(&shared.join("device_sdk_ll"))?;
    examples.board(&shared.join("board"))?;
    examples.board(&linked_in.join("board"))
}

/// In C99 with the shared library, and in C++17 with the static one: where they are.
fn make(
    root: &Path,
    prefix: &Path,
    variables: &[&str],
    execute: &dyn Fn(&mut Command) -> Outcome,
) -> Result<(PathBuf, PathBuf), String> {
    let make = |name: &str, more: &[&str]| {
        let out = prefix.join(name);
        let mut make = Command::new("make");
        make.current_dir(root.join("examples/c"))
            .args(["--silent", "--always-make"])
            .arg(format!("OUT={}", out.display()))
            .arg(format!("CFLAGS={WARNINGS}"))
            .args(variables)
            .args(more)
            .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        execute(&mut make).map(|()| out)
    };
    let linked_in = ["STATIC=1", "CC=g++", "LANGUAGE=-std=c++17 -x c++"];
    Ok((
        make("examples", &[])?,
        make("examples-linked-in", &linked_in)?,
    ))
}

fn cmake(
    root: &Path,
    prefix: &Path,
    language: &str,
    execute: &dyn Fn(&mut Command) -> Outcome,
) -> Result<PathBuf, String> {
    let out = prefix.join(format!("examples-cmake-{language}"));
    // What it remembers names the directory the sources were in then.
    let _ = fs::remove_dir_all(&out);
    let mut configure = Command::new("cmake");
    configure
        .arg("-S")
        .arg(root.join("examples/c"))
        .arg("-B")
        .arg(&out)
        .arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()))
        .arg(format!("-DLANGUAGE={language}"))
        .arg(format!("-DCMAKE_{language}_FLAGS={WARNINGS}"))
        .stdout(Stdio::null());
    execute(&mut configure)?;
    let mut build = Command::new("cmake");
    build.arg("--build").arg(&out).stdout(Stdio::null());
    execute(&mut build).map(|()| out)
}

/// Those by the library that pkg-config finds; two of them are run.
pub(super) fn by_pkg_config(
    root: &Path,
    prefix: &Path,
    servers: &Servers,
    execute: &dyn Fn(&mut Command) -> Outcome,
) -> Outcome {
    let these = "PROGRAMS=device device_flash device_sdk device_sdk_ll device_curl";
    let (shared, linked_in) = make(root, prefix, &[these], execute)?;
    let examples = Examples { prefix, servers };
    examples.device(&shared.join("device"))?;
    examples.flash(&linked_in.join("device_flash"))
}

struct Examples<'a> {
    prefix: &'a Path,
    servers: &'a Servers,
}

/// An example that runs.
struct Program {
    name: String,
    process: Child,
    lines: Receiver<String>,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Program {
    fn start(command: &mut Command) -> Result<Self, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run {name}: {error}"))?;
        let output = process.stdout.take().ok_or("it has no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                println!("  {line}");
                let _ = sender.send(line);
            }
        });
        Ok(Self {
            name,
            process,
            lines,
        })
    }

    /// Waits for a line with this text.
    fn says(&self, text: &str) -> Result<String, String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self
                .lines
                .recv_timeout(left)
                .map_err(|_| format!("{} never says {text:?}", self.name))?;
            if line.contains(text) {
                return Ok(line);
            }
        }
    }

    fn ends(&mut self) -> Result<ExitStatus, String> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let ended = self.process.try_wait().map_err(|error| error.to_string())?;
            if let Some(status) = ended {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(format!("{} does not end", self.name))
    }

    /// Asks it to end; it is to do so with this status.
    fn stop(&mut self, expected: i32) -> Outcome {
        let id = self.process.id().to_string();
        let kill = Command::new("kill").args(["-TERM", &id]).status();
        kill.map_err(|error| format!("cannot run kill: {error}"))?;
        let status = self.ends()?;
        match status.code() == Some(expected) {
            true => Ok(()),
            false => Err(format!("{} ends with {status}", self.name)),
        }
    }

    /// Gives it these lines.
    fn asks(&mut self, lines: &str) -> Outcome {
        let input = self.process.stdin.as_mut().ok_or("it has no input")?;
        let written = writeln!(input, "{lines}");
        written.map_err(|error| format!("cannot write to {}: {error}", self.name))
    }
}

impl Examples<'_> {
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", self.prefix.join("lib"));
        for (name, value) in self.servers.environment() {
            command.env(name, value);
            match name {
                "TEST_DEVICE" => command.env("TWINFLASH_DEVICE", value),
                "TEST_CA" => command.env("TWINFLASH_CA", value),
                _ => &mut command,
            };
        }
        command
    }

    fn of(&self, wanted: &str) -> &str {
        let mut environment = self.servers.environment();
        environment
            .find_map(|(name, value)| (name == wanted).then_some(value))
            .unwrap_or_default()
    }

    /// The back end that asks for the image, and follows the update to its end.
    fn back_end(&self) -> Result<Program, String> {
        self.update(&format!("{}/image.bin", self.of("TEST_SERVER")))
    }

    fn update(&self, uri: &str) -> Result<Program, String> {
        let mut command = self.command(self.of("TEST_TWINFLASH").as_ref());
        command.args(["--ca", self.of("TEST_CA"), "update", "device1", uri]);
        command.args(["--check", &self.check()?]);
        Program::start(&mut command)
    }

    fn check(&self) -> Result<String, String> {
        let output = Command::new("sha256sum")
            .arg(self.of("TEST_IMAGE"))
            .output()
            .map_err(|error| format!("cannot run sha256sum: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let digits = text.split_whitespace().next();
        digits
            .map(str::to_owned)
            .ok_or_else(|| "sha256sum says nothing".into())
    }

    fn installed(&self, file: &Path) -> Outcome {
        let read = |path: &Path| {
            fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        match read(file)? == read(self.of("TEST_IMAGE").as_ref())? {
            true => Ok(()),
            false => Err(format!("{} is not the image", file.display())),
        }
    }

    fn directory(&self, program: &Path) -> Result<PathBuf, String> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        self.servers.directory(&format!("example-{name}"))
    }

    fn device(&self, program: &Path) -> Outcome {
        let directory = self.directory(program)?;
        let target = directory.join("app.bin");
        let mut command = self.command(program);
        let mut device = Program::start(command.arg(directory.join("state")).arg(&target))?;
        device.says("connected to")?;
        let ended = self.back_end()?.ends()?;
        if !ended.success() {
            return Err(format!("the back end ends with {ended}"));
        }
        self.installed(&target)?;
        device.stop(0)
    }

    /// One with its own HTTP client ends while a server lets it wait.
    fn silent_server(&self, program: &Path) -> Outcome {
        let failed = |error| format!("cannot serve: {error}");
        let server = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let address = server.local_addr().map_err(failed)?;
        let directory = self.servers.directory("example-silent")?;
        let mut command = self.command(program);
        command
            .arg(directory.join("state"))
            .arg(directory.join("app.bin"));
        let mut device = Program::start(&mut command)?;
        device.says("connected to")?;
        let _back_end = self.update(&format!("http://{address}/image.bin"))?;
        let (sender, client) = mpsc::channel();
        thread::spawn(move || sender.send(server.accept()));
        let _client = client
            .recv_timeout(PATIENCE)
            .map_err(|_| "it asks no server")?
            .map_err(failed)?;
        device.stop(0)
    }

    fn flash(&self, program: &Path) -> Outcome {
        let directory = self.directory(program)?;
        let mut device = Program::start(self.command(program).arg(&directory))?;
        device.says("bank 0 runs")?;
        device.says("connected to")?;
        let mut back_end = self.back_end()?;
        let ended = device.ends()?;
        if !ended.success() {
            return Err(format!("after an update it ends with {ended}"));
        }
        // The supervisor's part.
        let mut device = Program::start(self.command(program).arg(&directory))?;
        device.says("bank 1 runs")?;
        let ended = back_end.ends()?;
        if !ended.success() {
            return Err(format!("the back end ends with {ended}"));
        }
        self.installed(&directory.join("bank1"))?;
        device.stop(3)?;
        match fs::read(directory.join("good")) {
            Ok(good) if good == b"1" => Ok(()),
            other => Err(format!("the good bank is {other:?}")),
        }
    }

    /// One on the stand-in for azure-iot-sdk-c, whose hub are its input and output.
    fn sdk(&self, program: &Path) -> Outcome {
        let directory = self.directory(program)?;
        let target = directory.join("app.bin");
        let mut command = self.command(program);
        let mut device = Program::start(command.arg(directory.join("state")).arg(&target))?;
        let request = format!(
            "method reboot {{}}\n\
             method firmwareUpdate {{\"fwPackageUri\":\"{}/image.bin\",\"fwPackageCheckValue\":\"{}\"}}",
            self.of("TEST_SERVER"),
            self.check()?
        );
        device.asks(&request)?;
        device.says("answer 404")?;
        // The first report is out before the answer is. What was so before may have been reported already.
        device.says("\"startedWaitingTime\":\"2")?;
        device.says("answer 200")?;
        device.says("applyComplete")?;
        self.installed(&target)?;
        // It ends in order while a report is being handed over, which takes longer than the updater's close.
        device.asks(
            r#"method firmwareUpdate {"fwPackageUri":"http://127.0.0.1:1/","fwPackageCheckValue":"31c3"}"#,
        )?;
        device.says("answer 200")?;
        device.asks("slow\nmethod cancelFirmwareUpdate {}")?;
        device.says("slow")?;
        device.stop(0)
    }

    /// One without an operating system, whose hub are its input and output; through two restarts.
    fn board(&self, program: &Path) -> Outcome {
        let flash = self.directory(program)?.join("flash");
        let _ = fs::remove_file(&flash);
        let info = Command::new(self.of("TEST_TWINFLASH"))
            .args(["image", "info", "--json", self.of("TEST_IMAGE")])
            .output()
            .map_err(|error| format!("cannot run the command: {error}"))?;
        let info: Value = serde_json::from_slice(&info.stdout)
            .map_err(|error| format!("image info says no JSON: {error}"))?;
        let twin = json!({
            "desired": {
                "firmware": {
                    "fwVersion": "1.1.0",
                    "fwPackageURI": format!("{}/image.bin", self.of("TEST_SERVER")),
                    "fwPackageCheckValue": info.get("fwPackageCheckValue"),
                    "fwSize": info.get("fwSize"),
                },
                "$version": 2
            },
            "reported": { "$version": 1 }
        });
        for (bank, then) in [(0, "restart"), (1, "\"fwUpdateStatus\":\"Current\"")] {
            let mut board = Program::start(self.command(program).arg(&flash))?;
            board.says(&format!("bank {bank} runs"))?;
            board.asks(&twin.to_string())?;
            board.says(match bank {
                0 => "downloading",
                _ => "ended: completed",
            })?;
            board.says(then)?;
        }
        let read = |path: &Path| {
            fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let (flash, image) = (read(&flash)?, read(self.of("TEST_IMAGE").as_ref())?);
        match flash.windows(image.len()).any(|window| window == image) {
            true => Ok(()),
            false => Err("the image is not in the board's flash".into()),
        }
    }
}
