//! The Python package: built as a wheel, installed, and tested as it is installed.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

type Outcome = Result<(), String>;
type Execute<'a> = &'a dyn Fn(&mut Command) -> Outcome;

/// A virtual environment with what a file asks for; made anew where that has changed. Its Python.
pub(crate) fn environment(
    place: &Path,
    requirements: &Path,
    execute: Execute<'_>,
) -> Result<PathBuf, String> {
    let failed = |path: &Path, error| format!("{}: {error}", path.display());
    let wanted = fs::read(requirements).map_err(|error| failed(requirements, error))?;
    let installed = place.join("installed.txt");
    let python = place.join("bin/python");
    if fs::read(&installed).ok().as_ref() != Some(&wanted) {
        let system = env::var_os("PYTHON").unwrap_or("python3".into());
        let mut make = Command::new(system);
        execute(make.args(["-m", "venv", "--clear"]).arg(place))?;
        let quiet = ["install", "--quiet", "--disable-pip-version-check", "-r"];
        let mut pip = Command::new(&python);
        execute(pip.args(["-m", "pip"]).args(quiet).arg(requirements))?;
        fs::write(&installed, &wanted).map_err(|error| failed(&installed, error))?;
    }
    Ok(python)
}

pub(crate) struct Package<'a> {
    pub(crate) root: &'a Path,
    pub(crate) target: &'a Path,
    pub(crate) execute: Execute<'a>,
}

impl Package<'_> {
    fn module(&self, python: &Path, module: &str) -> Command {
        let mut command = Command::new(python);
        command.current_dir(self.root).args(["-m", module]);
        command
    }

    /// Builds the wheel without optimisation, and installs it; the Python that has it.
    pub(crate) fn install(&self) -> Result<PathBuf, String> {
        let place = self.target.join("python");
        let requirements = self.root.join("python/tests/requirements.txt");
        let python = environment(&place, &requirements, self.execute)?;
        let wheels = place.join("wheels");
        // Wheels of another version would be installed, too.
        let _ = fs::remove_dir_all(&wheels);
        let mut build = self.module(&python, "maturin");
        build.args(["build", "--quiet", "--manifest-path", "python/Cargo.toml"]);
        build.arg("--out").arg(&wheels).arg("--target-dir");
        (self.execute)(build.arg(self.target))?;
        let built = fs::read_dir(&wheels)
            .map_err(|error| format!("{}: {error}", wheels.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension() == Some(OsStr::new("whl")))
            .ok_or("maturin built no wheel")?;
        let mut pip = self.module(&python, "pip");
        pip.args(["install", "--quiet", "--disable-pip-version-check"]);
        (self.execute)(pip.args(["--no-deps", "--force-reinstall"]).arg(built))?;
        Ok(python)
    }

    /// Its types, as mypy and pyright see them: the package's own, a typed application's, and the native module's, which must be
    /// what the module has.
    pub(crate) fn types(&self, python: &Path) -> Outcome {
        let mut mypy = self.module(python, "mypy");
        mypy.args(["--config-file", "python/pyproject.toml", "--cache-dir"]);
        mypy.arg(self.target.join("python/types"));
        (self.execute)(mypy.args(["python/python/twinflash", "python/tests/typed.py"]))?;
        let mut stubs = self.module(python, "mypy.stubtest");
        stubs.args(["twinflash._native", "--mypy-config-file"]);
        (self.execute)(stubs.arg("python/pyproject.toml"))?;
        let mut path = python.parent().unwrap_or(python).as_os_str().to_owned();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let checks: [&[&str]; 2] = [
            &["-p", "python"],
            &["--verifytypes", "twinflash", "--ignoreexternal"],
        ];
        for arguments in checks {
            let mut pyright = self.module(python, "pyright");
            pyright
                .env("PATH", &path)
                .env("PYRIGHT_PYTHON_GLOBAL_NODE", "1")
                .env("PYRIGHT_PYTHON_IGNORE_WARNINGS", "1");
            (self.execute)(pyright.args(arguments))?;
        }
        Ok(())
    }

    /// Its tests, with that Python as `python` starts it; in groups at the same time where each has a network, and so the ports, of its own.
    pub(crate) fn test(&self, python: &dyn Fn() -> Command, apart: bool, hub: &str) -> Outcome {
        let groups: [&[&str]; 3] = [
            &["test_attach.py", "test_device.py"],
            &["test_examples.py"],
            &["test_api.py", "test_installer.py", "test_process.py"],
        ];
        let tests = self.root.join("python/tests");
        let found =
            fs::read_dir(&tests).map_err(|error| format!("{}: {error}", tests.display()))?;
        let names = found.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut found: Vec<_> = names.filter(|name| name.starts_with("test_")).collect();
        let mut grouped = groups.concat();
        found.sort();
        grouped.sort_unstable();
        if found != grouped {
            return Err(format!(
                "python/tests has {found:?}, but {grouped:?} are run"
            ));
        }
        let command = |group: &[&str]| {
            let mut pytest = python();
            pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
            pytest.args(["-c", "python/pyproject.toml", "--timeout", "60"]);
            pytest.args(group.iter().map(|name| tests.join(name)));
            pytest.env("PYTHONDONTWRITEBYTECODE", "1");
            pytest.env("TWINFLASH_HUB", hub);
            pytest
        };
        if !apart {
            return (self.execute)(&mut command(&groups.concat()));
        }
        at_once(groups.map(command))
    }
}

/// Runs commands at the same time, and shows what each printed once it has ended.
fn at_once<const N: usize>(commands: [Command; N]) -> Outcome {
    let running = commands.map(|mut command| {
        thread::spawn(move || {
            let done = command.stdin(Stdio::null()).output();
            let done = done.map_err(|error| format!("cannot run {command:?}: {error}"))?;
            print!("{}", String::from_utf8_lossy(&done.stdout));
            eprint!("{}", String::from_utf8_lossy(&done.stderr));
            match done.status.success() {
                true => Ok(()),
                false => Err(format!("{command:?}: {}", done.status)),
            }
        })
    });
    let ended = running.map(|thread| {
        let ended = thread.join();
        ended.unwrap_or_else(|_| Err("a thread of xtask's failed".into()))
    });
    ended.into_iter().collect()
}
