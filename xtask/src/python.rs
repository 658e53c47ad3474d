//! The Python package: built as a wheel, installed, and tested as it is installed.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
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

    /// Its types, and its tests with that Python as `python` starts it.
    pub(crate) fn test(&self, mut python: Command, hub: &str) -> Outcome {
        let place = self.target.join("python");
        let mut types = self.module(&place.join("bin/python"), "mypy");
        types.args(["--config-file", "python/pyproject.toml", "--cache-dir"]);
        types.arg(place.join("types"));
        (self.execute)(types.arg("python/python/twinflash"))?;
        python.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
        python.args(["-c", "python/pyproject.toml", "--timeout", "60"]);
        python.env("PYTHONDONTWRITEBYTECODE", "1");
        (self.execute)(python.env("TWINFLASH_HUB", hub).arg("python/tests"))
    }
}
