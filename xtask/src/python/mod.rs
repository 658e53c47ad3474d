//! The Python package: built as a wheel, installed, and tested as it is installed.

pub(crate) mod package;

use crate::test::{Outcome, Run, execute};
use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

/// A virtual environment with what a file asks for; made anew where that has changed. Its Python.
pub(crate) fn environment(place: &Path, requirements: &Path) -> Result<PathBuf, String> {
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
}

impl Package<'_> {
    fn module(&self, python: &Path, module: &str) -> Command {
        let mut command = Command::new(python);
        command.current_dir(self.root).args(["-m", module]);
        command
    }

    /// Builds the source distribution, of that the wheel, without optimisation, and installs it; the Python that has it.
    pub(crate) fn install(&self) -> Result<PathBuf, String> {
        let place = self.target.join("python");
        let requirements = self.root.join("python/tests/requirements.txt");
        let python = environment(&place, &requirements)?;
        // What lies there from another version would be taken, too.
        let built = place.join("built");
        let _ = fs::remove_dir_all(&built);
        let mut sdist = self.module(&python, "maturin");
        sdist.args(["sdist", "--manifest-path", "python/Cargo.toml"]);
        execute(sdist.arg("--out").arg(&built))?;
        // With the time of now: cargo would take what an older one was built of for unchanged.
        let mut unpack = Command::new("tar");
        unpack.args(["--extract", "--touch", "--file"]);
        unpack.arg(only(&built, "gz")?).arg("--directory");
        execute(unpack.arg(&built))?;
        let source = format!("twinflash-{}", env!("CARGO_PKG_VERSION"));
        let mut build = self.module(&python, "maturin");
        build
            .current_dir(built.join(source))
            .args(["build", "--quiet"]);
        build.arg("--out").arg(&built).arg("--target-dir");
        execute(build.arg(self.target))?;
        self.pip_install(&python, &only(&built, "whl")?)?;
        Ok(python)
    }

    fn pip_install(&self, python: &Path, wheel: &Path) -> Outcome {
        let mut pip = self.module(python, "pip");
        pip.args(["install", "--quiet", "--disable-pip-version-check"]);
        execute(pip.args(["--no-deps", "--force-reinstall"]).arg(wheel))
    }

    /// Its types, as mypy and pyright see them: the package's own, a typed application's, and the native module's, which must be
    /// what the module has.
    pub(crate) fn types(&self, python: &Path) -> Outcome {
        let mut mypy = self.module(python, "mypy");
        mypy.args(["--config-file", "python/pyproject.toml", "--cache-dir"]);
        mypy.arg(self.target.join("python/types"));
        execute(mypy.args(["python/python/twinflash", "python/tests/typed.py"]))?;
        let mut stubs = self.module(python, "mypy.stubtest");
        stubs.args(["twinflash._native", "--mypy-config-file"]);
        execute(stubs.arg("python/pyproject.toml"))?;
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
            execute(pyright.args(arguments))?;
        }
        Ok(())
    }

    /// Its tests, with that Python as `python` starts it; in groups at the same time where each has a network, and so the ports, of its own.
    pub(crate) fn test(&self, python: &dyn Fn() -> Command, apart: bool) -> Outcome {
        let groups: [&[&str]; 4] = [
            &["test_attach.py", "test_device.py"],
            &["test_examples.py"],
            &["test_api.py", "test_installer.py", "test_process.py"],
            &["test_many.py"],
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
            pytest
        };
        if !apart {
            return execute(&mut command(&groups.concat()));
        }
        at_once(groups.map(command))
    }
}

/// The Python of an environment with the package as it is published, but for this system only.
pub(crate) fn released(run: &Run, place: &Path) -> Result<PathBuf, String> {
    let requirements = run.root.join("python/benches/requirements.txt");
    let python = environment(place, &requirements)?;
    let built = place.join("built");
    let _ = fs::remove_dir_all(&built);
    let package = Package {
        root: &run.root,
        target: &run.target,
    };
    let mut build = package.module(&python, "maturin");
    build.args(["build", "--release", "--quiet", "--manifest-path"]);
    build.arg("python/Cargo.toml").arg("--out").arg(&built);
    execute(build.arg("--target-dir").arg(&run.target))?;
    package.pip_install(&python, &only(&built, "whl")?)?;
    Ok(python)
}

/// The one file of a directory with this extension.
fn only(directory: &Path, extension: &str) -> Result<PathBuf, String> {
    fs::read_dir(directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension() == Some(OsStr::new(extension)))
        .ok_or_else(|| format!("{} has no .{extension}", directory.display()))
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
