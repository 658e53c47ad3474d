//! `cargo xtask bench python`: the Python package against the best ways to do the same without it; `python/benches/bench.py` measures.

use super::{Error, Server, make_image};
use crate::test::{Run, execute};

/// Measures, and prints what came out; whether it could be measured.
pub(crate) fn python(arguments: &[&str]) -> bool {
    let measured = match *arguments {
        [] => measure(256, "7"),
        ["--runs", runs] => measure(256, runs),
        ["--mib", mib] => mib.parse().map_or_else(
            |_| Err(format!("--mib {mib} is no number").into()),
            |mib| measure(mib, "7"),
        ),
        _ => Err("its options are --runs N or --mib N".into()),
    };
    if let Err(error) = &measured {
        eprintln!("bench python: {error}");
    }
    measured.is_ok()
}

fn measure(mebibytes: u64, runs: &str) -> Result<(), Error> {
    let run = Run::new(false);
    let place = run.target.join("bench-python");
    let python = crate::python::released(&run, &place)?;
    let directory = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(&run.target)?;
    let directory = directory.path();
    let sha256 = make_image(&directory.join("image.bin"), mebibytes)?;
    let server = Server::start(directory)?;
    println!("server: {}", server.name);
    let script = run.root.join("python/benches/bench.py");
    let mut bench = run.command(&python, &[]);
    bench
        .arg(script)
        .arg(format!("{}/image.bin", server.http))
        .arg(sha256)
        .arg(directory)
        .args(["--runs", runs]);
    Ok(execute(&mut bench)?)
}
