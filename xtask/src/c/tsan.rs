//! The C programs under ThreadSanitizer, and the library with them. It takes `rustup toolchain install nightly
//! --component rust-src`: what synchronises is in Rust's standard library, which has to be built for it, too.

use super::{Outcome, STRICT, said, servers::Servers, sources};
use crate::test::{Run, execute, twinflash};

/// Builds and runs them; whatever is reported fails.
pub(crate) fn run(run: &Run) -> Outcome {
    let twinflash = twinflash(run)?;
    let nightly = |arguments: &[&str]| {
        let mut command = run.command("rustup", &["run", "nightly"]);
        // What runs this has its own toolchain.
        for variable in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC"] {
            command.env_remove(variable);
        }
        command.args(arguments);
        command
    };
    let host = said(&mut nightly(&["rustc", "--print", "host-tuple"]))?;
    let sysroot = said(&mut nightly(&["rustc", "--print", "sysroot"]))?;
    let target = run.target.join("tsan");
    let mut build = nightly(&[
        "cargo",
        "build",
        "--quiet",
        "-Zbuild-std",
        "-p",
        "twinflash-c",
    ]);
    build
        .args(["--target", &host, "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", "-Zsanitizer=thread");
    execute(&mut build)?;
    let library = target.join(&host).join("debug/libtwinflash.a");
    // Rust's runtime is newer than clang's may be.
    let runtime = format!("{sysroot}/lib/rustlib/{host}/lib/librustc-nightly_rt.tsan.a");
    let servers = Servers::start(&twinflash)?;
    for source in sources(&run.root)? {
        let name = source.file_stem().unwrap_or_default().to_string_lossy();
        let (program, object) = (target.join(&*name), target.join(format!("{name}.o")));
        let mut compile = run.command("clang", STRICT);
        compile.args(["-std=c11", "-fsanitize=thread", "-Iinclude", "-c"]);
        execute(compile.arg(&source).arg("-o").arg(&object))?;
        let mut link = run.command("clang", &[]);
        link.arg(&object).arg(&library).arg("-Wl,--whole-archive");
        link.arg(&runtime).arg("-Wl,--no-whole-archive");
        link.args([
            "-lpthread",
            "-ldl",
            "-lm",
            "-lrt",
            "-lgcc_s",
            "-lresolv",
            "-lstdc++",
        ]);
        execute(link.arg("-o").arg(&program))?;
        let mut command = run.command(program, &[]);
        command
            .env("TSAN_OPTIONS", "exitcode=66")
            .envs(servers.environment());
        execute(command.arg(servers.directory(&name)?))?;
    }
    Ok(())
}
