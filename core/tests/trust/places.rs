//! Who may write beside the target, and names that lead elsewhere.

use super::{
    desk::*,
    support::disturbed::{At, Disturbed},
    *,
};
use std::{os::unix::fs::MetadataExt, path::Path};
use twinflash::{
    install::{CommandInstall, CommandOptions},
    update::Code,
};

const OTHER: &[u8] = b"somebody else's";

/// An installer of a target, in whose directory somebody may write, and does at the worst moment.
fn swapped(target: PathBuf, when: At, how: fn(&Path)) -> Box<dyn Installer> {
    let installer = FileInstall::new(&target).verify_read_back();
    Box::new(Disturbed::new(installer, move |at| {
        if at == when {
            // It gets that name when it is finished.
            let name = if at == At::Finish { "part" } else { "new" };
            how(&target.with_file_name(format!(".app.bin.twinflash-{name}")));
        }
    }))
}

fn replaced(path: &Path) {
    fs::remove_file(path).unwrap();
    fs::write(path, OTHER).unwrap();
}

fn overwritten(path: &Path) {
    let length = fs::metadata(path).unwrap().len();
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    // The kernel's clock for files ticks no faster.
    std::thread::sleep(Duration::from_millis(10));
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, OTHER, length - 100).unwrap();
    // As it was, to a first look.
    file.set_modified(modified).unwrap();
}

fn longer(path: &Path) {
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, OTHER).unwrap();
}

fn a_link(path: &Path) {
    let elsewhere = path.with_file_name("elsewhere");
    fs::rename(path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(elsewhere, path).unwrap();
}

#[test]
fn a_file_swapped_after_the_check() {
    type Make = fn(PathBuf) -> Box<dyn Installer>;
    let moments: [(&str, Make); 12] = [
        ("replaced, before", |target| {
            swapped(target, At::Finish, replaced)
        }),
        ("overwritten, before", |target| {
            swapped(target, At::Finish, overwritten)
        }),
        ("longer, before", |target| {
            swapped(target, At::Finish, longer)
        }),
        ("a link, before", |target| {
            swapped(target, At::Finish, a_link)
        }),
        ("replaced", |target| swapped(target, At::Finished, replaced)),
        ("overwritten", |target| {
            swapped(target, At::Finished, overwritten)
        }),
        ("longer", |target| swapped(target, At::Finished, longer)),
        ("a link", |target| swapped(target, At::Finished, a_link)),
        ("replaced, at last", |target| {
            swapped(target, At::Activate, replaced)
        }),
        ("overwritten, at last", |target| {
            swapped(target, At::Activate, overwritten)
        }),
        ("longer, at last", |target| {
            swapped(target, At::Activate, longer)
        }),
        ("a link, at last", |target| {
            swapped(target, At::Activate, a_link)
        }),
    ];
    for (name, installer) in moments {
        let mut desk = Desk::new();
        desk.installer = installer;
        let manifest = desk.manifest("2.0.0");
        assert_eq!(desk.call(json!({ "fwManifest": manifest })).0, 200);
        let end = desk.end();
        let failure = end.outcome.failure().expect(name);
        assert_eq!(failure.code, Code::Storage, "{name}: {failure}");
        assert_eq!(fs::read(desk.target()).unwrap(), b"old", "{name}");
    }
    // It is the swapping that is refused.
    let mut desk = Desk::new();
    desk.installer = |target| swapped(target, At::Finished, |_| ());
    let manifest = desk.manifest("2.0.0");
    desk.installed(json!({ "fwManifest": manifest }));
}

/// A request for the image that nobody has signed.
fn checked(mut payload: Value) -> Value {
    payload["fwPackageCheckValue"] = claims("2", &image(SIZE, 7))["sha256"].clone();
    payload
}

/// Every file there is below a directory, by its path in it.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap();
                found.push(name.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// What strangers call things by never becomes a path: not the request's version, nor its URL, nor a
/// redirect, nor the name a server gives to a file.
#[test]
fn names_that_are_paths() {
    let mut desk = Desk::new();
    desk.trust = None;
    let canary = desk.dir.path().join("canary");
    fs::write(&canary, OTHER).unwrap();
    let here = desk.dir.path().to_str().unwrap().to_owned();
    let plain = Desk::new().files_after_one_update();
    let headers = format!("attachment; filename=\"{here}/canary\"");
    desk.serve_by("/named", move |reply| {
        let length = SIZE.to_string();
        let named = [
            ("Content-Disposition", headers.as_str()),
            ("Content-Location", "../../../canary"),
            ("ETag", "\"../../canary\""),
            ("Content-Length", &length),
        ];
        reply.head("200 OK", &named);
        reply.body(&image(SIZE, 7));
    });
    let paths = [
        "/../../canary",
        "/%2e%2e/%2e%2e/canary",
        "/..%2f..%2fcanary",
    ];
    for path in paths {
        desk.serve(path, image(SIZE, 7));
    }
    // What becomes of dots is the server's business: it is asked, and no file is looked for.
    desk.serve("/canary", image(SIZE, 7));
    let absolute = canary.to_str().unwrap();
    for version in ["../../canary", absolute, "..", "canary\0", "%2e%2e/canary"] {
        fs::write(desk.target(), b"old").unwrap();
        desk.installed(checked(
            json!({"fwVersion": version, "fwPackageUri": desk.server.url("/named")}),
        ));
    }
    for path in paths {
        fs::write(desk.target(), b"old").unwrap();
        desk.installed(checked(
            json!({"fwVersion": "2", "fwPackageUri": desk.server.url(path)}),
        ));
    }
    for uri in [
        &format!("file://{absolute}"),
        absolute,
        "../canary",
        &format!("file:{absolute}"),
    ] {
        desk.refused(checked(json!({ "fwPackageUri": uri })), "https");
    }
    for to in [format!("file://{absolute}"), format!("ftp://{absolute}")] {
        fs::write(desk.target(), b"old").unwrap();
        desk.serve_by("/moved", move |reply| {
            reply.empty("302 Found", &[("Location", &to)]);
        });
        let (status, _) = desk.call(checked(json!({"fwPackageUri": desk.server.url("/moved")})));
        assert_eq!(status, 200);
        let end = desk.end();
        assert!(end.outcome.failure().is_some(), "{end:?}");
        assert_eq!(fs::read(desk.target()).unwrap(), b"old");
    }
    desk.installed(checked(json!({})));
    assert_eq!(fs::read(&canary).unwrap(), OTHER);
    assert_eq!(fs::metadata(&canary).unwrap().nlink(), 1);
    desk.stop();
    let mut found = files(desk.dir.path());
    found.retain(|name| name != "canary");
    assert_eq!(found, plain);
}

impl Desk {
    /// What an update with nothing special about it leaves.
    fn files_after_one_update(mut self) -> Vec<String> {
        let manifest = self.manifest("2.0.0");
        self.installed(json!({ "fwManifest": manifest }));
        self.stop();
        files(self.dir.path())
    }
}

/// A version is one argument of a command, whatever is in it: no shell looks at it.
#[test]
fn a_version_that_is_a_command() {
    let mut desk = Desk::new();
    desk.trust = None;
    desk.installer = |target| {
        let directory = target.parent().unwrap();
        let mut install = vec![
            "sh",
            "-c",
            "cp \"$1\" \"$2\" && printf %s \"$3\" > \"$4\"",
            "sh",
        ];
        let (target, said) = (target.to_str().unwrap(), directory.join("said"));
        install.extend(["{image}", target, "{version}", said.to_str().unwrap()]);
        Box::new(CommandInstall::new(
            directory.join("state"),
            CommandOptions::new(install),
        ))
    };
    let evil = desk.dir.path().join("evil");
    let shown = evil.to_str().unwrap();
    for version in [
        format!("$(touch {shown})"),
        format!("`touch {shown}`"),
        format!("1; touch {shown}"),
        format!("1' ; touch {shown} ; '"),
        "{image}".into(),
        "--help".into(),
        "a\nb".into(),
    ] {
        desk.installed(checked(json!({ "fwVersion": version })));
        let said = fs::read_to_string(desk.dir.path().join("said")).unwrap();
        assert_eq!(said, version);
        assert!(!evil.exists());
    }
}
