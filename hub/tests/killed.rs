//! A hub that is killed (SIGKILL) while it writes: what was answered is there when it starts again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod common;

use common::{Rest, field, token, unix};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};
use twinflash_hub::{Hub, Info, Limits, Options, Rate};

/// How many devices there are beside d1 and d2, for jobs.
const MANY: usize = 300;
/// How many of them a job comes to in a second.
const JOB_RATE: u32 = 150;

/// A hub in a process of its own: this test program, started again.
struct Process {
    child: Child,
    info: Info,
}

impl Process {
    fn start(state: &Path) -> Self {
        Self::run(Command::new(std::env::current_exe().unwrap()), state)
    }

    /// One that can make its files so large and no larger, in blocks of 512 bytes.
    fn start_within(blocks: u32, state: &Path) -> Self {
        let mut shell = Command::new("sh");
        let limited = format!("trap '' XFSZ && ulimit -S -f {blocks} && exec \"$0\" \"$@\"");
        shell
            .args(["-c", &limited])
            .arg(std::env::current_exe().unwrap());
        Self::run(shell, state)
    }

    fn run(mut command: Command, state: &Path) -> Self {
        let mut child = command
            .args(["--exact", "a_hub_to_be_killed", "--nocapture", "--ignored"])
            .env("TWINFLASH_HUB_STATE", state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut lines = output.lines().map(Result::unwrap);
        let line = lines.find(|line| line.starts_with('{')).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| ready[name].as_str().unwrap().to_owned();
        let port = |name: &str| u16::try_from(ready[name].as_u64().unwrap()).unwrap();
        let info = Info {
            host_name: text("hostName"),
            mqtt_port: port("mqttPort"),
            https_port: port("httpsPort"),
            ca: text("ca").into(),
            ca_pem: text("caPem"),
            service_connection_string: text("serviceConnectionString"),
            policies: Default::default(),
            devices: serde_json::from_value(ready["devices"].clone()).unwrap(),
        };
        Self { child, info }
    }

    fn owner(&self) -> Rest {
        Rest::owner(&self.info)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "is the process that the other tests kill"]
fn a_hub_to_be_killed() {
    let state = std::env::var_os("TWINFLASH_HUB_STATE").unwrap();
    let all = Rate::per_second(1_000_000);
    let hub = Hub::start(Options {
        state: Some(state.into()),
        devices: ["d1".to_owned(), "d2".to_owned()].into(),
        mqtt_port: 0,
        https_port: 0,
        throttle: Some(Limits {
            connections: all,
            telemetry: all,
            twin_reads: all,
            twin_updates: all,
            methods: all,
            registry: all,
            queries: all,
            configurations: all,
            jobs: all,
            job_devices: Rate::per_second(JOB_RATE),
        }),
        ..Options::default()
    })
    .unwrap();
    let mut ready = serde_json::to_value(hub.info()).unwrap();
    ready["caPem"] = hub.info().ca_pem.clone().into();
    println!("\n{ready}");
    std::io::stdout().flush().unwrap();
    thread::sleep(Duration::from_secs(60));
}

/// A disk that was full for a while.
#[test]
fn what_could_not_be_kept_is_kept_when_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    // An empty database has 2,064 blocks.
    let mut hub = Process::start_within(2200, &state);
    let owner = hub.owner();
    let desired: serde_json::Map<_, _> = (0..7)
        .map(|n| (format!("p{n}"), "x".repeat(4000).into()))
        .collect();
    let body = json!({"properties": {"desired": desired}});
    let patch = |n: u32| {
        owner.call("PUT", &format!("/devices/n{n}"), Some(&json!({})));
        owner.call("PATCH", &format!("/twins/n{n}"), Some(&body))
    };
    let (last, refused) = (0..200)
        .map(|n| (n, patch(n)))
        .find(|(_, answer)| answer.status != 200)
        .expect("the disk is full");
    refused.refused(500, "ServerError");
    // Nor is anything told that might be lost.
    owner.get("/twins/d1").refused(500, "ServerError");

    let pid = hub.child.id().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=unlimited"])
        .status();
    assert!(raised.unwrap().success());
    let end = Instant::now() + Duration::from_secs(30);
    while owner.get("/twins/d1").status != 200 {
        assert!(Instant::now() < end, "the hub does not recover");
        thread::sleep(Duration::from_millis(50));
    }
    let twins = |owner: &Rest| -> Vec<_> {
        (0..=last)
            .map(|n| owner.get(&format!("/twins/n{n}")).body)
            .collect()
    };
    let before = twins(&owner);
    hub.kill();
    assert_eq!(twins(&Process::start(&state).owner()), before);
}

#[test]
fn reports() {
    let directory = tempfile::tempdir().unwrap();
    let mut version = 1;
    for round in 0..5 {
        let mut process = Process::start(directory.path());
        let info = &process.info;
        let key = field(&info.devices["d1"], "SharedAccessKey");
        let mut device = common::Device::open(info);
        let token = token("localhost/devices/d1", &key, unix() + 60, None);
        device.write(&common::connect_bytes("d1", &token));
        device.until(0x20);
        device.subscribe_all();
        let reported = &device.get_twin()["reported"];
        // The one that was on its way when the hub was killed may be in or not.
        let found = reported["$version"].as_u64().unwrap();
        assert!(
            found == version || (round > 0 && found == version + 1),
            "{found} {version}"
        );
        if found > 1 {
            assert_eq!(reported["n"], found, "version and value are of one write");
        }
        version = found;
        let killed_after = version + 20 + round * 7;
        while version < killed_after {
            let answer = device.report(&json!({"n": version + 1}).to_string());
            version += 1;
            assert_eq!(
                answer.topic,
                format!("$iothub/twin/res/204/?$rid=r&$version={version}")
            );
        }
        device.publish(
            0,
            "$iothub/twin/PATCH/properties/reported/?$rid=r",
            json!({"n": version + 1}).to_string().as_bytes(),
        );
        process.kill();
    }
}

/// Asks for one thing after another until the hub is gone, and counts what is answered.
fn until_gone(answered: &AtomicU64, mut ask: impl FnMut(u64) -> Option<()>) {
    for _ in (1..).take_while(|n| ask(*n).is_some()) {
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

fn granted(response: common::Response) -> Option<()> {
    assert!(response.status < 300, "{}", response.body);
    Some(())
}

#[test]
fn the_registry_twins_configurations_and_jobs() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let mut process = Process::start(directory.path());
        let owner = process.owner();
        let put = |path: &str, body: &Value| granted(owner.try_call("PUT", path, Some(body))?);
        let delete = |path: &str| granted(owner.try_call("DELETE", path, None)?);
        let patch =
            |path: &str, body: &Value| granted(owner.try_call("PATCH", path, Some(body))?);
        let configuration = |n: u64| {
            json!({
                "content": {"deviceContent": {"properties.desired.c": n}},
                "targetCondition": "deviceId = 'd2'",
                "priority": n,
            })
        };
        let job = |n: u64| {
            json!({
                "type": "scheduleUpdateTwin",
                "updateTwin": {"properties": {"desired": {"j": {"n": n, "round": round}}}},
                "queryCondition": "deviceId = 'd1'",
            })
        };
        let counts: [AtomicU64; 4] = Default::default();
        let [devices, tags, configurations, jobs] = &counts;
        thread::scope(|scope| {
            // Each device is made, and goes when the one after the next has come.
            scope.spawn(|| {
                until_gone(devices, |n| {
                    put(&format!("/devices/{round}-{n}"), &json!({}))?;
                    (n <= 2 || delete(&format!("/devices/{round}-{}", n - 2)).is_some())
                        .then_some(())
                })
            });
            scope.spawn(|| {
                until_gone(tags, |n| {
                    patch("/twins/d2", &json!({"tags": {"n": n, "round": round}}))
                })
            });
            scope.spawn(|| {
                until_gone(configurations, |n| {
                    put(&format!("/configurations/{round}-{n}"), &configuration(n))?;
                    let last = format!("/configurations/{round}-{}", n - 1);
                    (n == 1 || delete(&last).is_some()).then_some(())
                })
            });
            scope.spawn(|| until_gone(jobs, |n| put(&format!("/jobs/v2/{round}-{n}"), &job(n))));
            let end = Instant::now() + Duration::from_secs(20);
            while counts.iter().any(|count| count.load(Ordering::Relaxed) < 3) {
                assert!(Instant::now() < end, "{counts:?}");
                thread::sleep(Duration::from_millis(5));
            }
            thread::sleep(Duration::from_millis(50 + round * 60));
            process.kill();
        });
        let answered = counts.map(AtomicU64::into_inner);
        let [devices, tags, configurations, jobs] = answered;

        let process = Process::start(directory.path());
        let owner = process.owner();
        let is = |path: String, status: u16| {
            let found = owner.get(&path);
            assert_eq!(
                found.status, status,
                "{path} of {answered:?}: {}",
                found.body
            );
            found.body
        };
        // What came last may be there or not; what was answered is.
        for n in 1..=devices {
            let status = if n + 2 <= devices { 404 } else { 200 };
            if n + 2 != devices + 1 {
                is(format!("/devices/{round}-{n}"), status);
            }
        }
        let twin = is("/twins/d2".into(), 200);
        let found = &twin["tags"];
        assert_eq!(found["round"], round);
        let n = found["n"].as_u64().unwrap();
        assert!((tags..=tags + 1).contains(&n), "{n} {answered:?}");
        // A configuration that is known is applied, and one that is gone is taken back.
        let newest = is("/configurations".into(), 200);
        let newest = newest.as_array().unwrap().iter();
        let newest = newest.filter_map(|shown| shown["priority"].as_u64()).max();
        let newest = newest.unwrap();
        assert!((configurations..=configurations + 1).contains(&newest));
        assert_eq!(twin["properties"]["desired"]["c"], newest);
        for n in 1..configurations {
            is(format!("/configurations/{round}-{n}"), 404);
        }
        let end = Instant::now() + Duration::from_secs(20);
        for n in 1..=jobs {
            // Only so many are kept, the newest ones.
            if n + 150 < jobs {
                continue;
            }
            while is(format!("/jobs/v2/{round}-{n}"), 200)["status"] != "completed" {
                assert!(Instant::now() < end);
                thread::sleep(Duration::from_millis(10));
            }
        }
        let twin = is("/twins/d1".into(), 200);
        let found = &twin["properties"]["desired"]["j"];
        assert_eq!(found["round"], round);
        // For the next round.
        for shown in is("/configurations".into(), 200).as_array().unwrap() {
            let path = format!("/configurations/{}", shown["id"].as_str().unwrap());
            assert_eq!(owner.call("DELETE", &path, None).status, 204);
        }
    }
}

#[test]
fn a_twin_job_goes_on_and_patches_no_twin_twice() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(directory.path());
    let owner = process.owner();
    for n in 0..MANY {
        let made = owner.call("PUT", &format!("/devices/n{n}"), Some(&json!({})));
        assert_eq!(made.status, 200);
    }
    let job = json!({
        "type": "scheduleUpdateTwin",
        "updateTwin": {"properties": {"desired": {"v": 2}}},
        "queryCondition": "deviceId NIN ['d1', 'd2']",
    });
    assert_eq!(owner.call("PUT", "/jobs/v2/j", Some(&job)).status, 200);
    let counts = |owner: &Rest| {
        let shown = owner.get("/jobs/v2/j").body;
        let counts = &shown["deviceJobStatistics"];
        let count = |name: &str| usize::try_from(counts[name].as_u64().unwrap()).unwrap();
        assert_eq!(count("failedCount"), 0, "{shown}");
        (shown["status"] == "completed", count("succeededCount"))
    };
    let end = Instant::now() + Duration::from_secs(20);
    while counts(&owner).1 < usize::try_from(JOB_RATE).unwrap() {
        assert!(Instant::now() < end);
    }
    let (completed, answered) = counts(&owner);
    assert!(!completed && answered < MANY);
    process.kill();

    let process = Process::start(directory.path());
    let owner = process.owner();
    assert!(counts(&owner).1 >= answered);
    while !counts(&owner).0 {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(counts(&owner).1, MANY);
    let text = "SELECT COUNT() AS n FROM devices WHERE properties.desired.v = 2 AND properties.desired.$version = 2";
    let found = owner.query(text, &[]);
    assert_eq!(found.body, json!([{"n": MANY}]));
}
