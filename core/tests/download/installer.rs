//! Checkpoints, and what the installer makes durable.

use crate::device::*;

#[test]
fn checkpoints_by_bytes_and_by_time() {
    let server = Server::http(|reply| {
        reply.head(
            "200 OK",
            &[("Content-Length", "300000"), ("ETag", "\"one\"")],
        );
        for piece in image(1).chunks(30_000) {
            reply.body(piece);
            if reply.asked.path == "/slow" {
                thread::sleep(Duration::from_millis(60));
            }
        }
    });
    let offsets = |device: &Device| -> Vec<u64> {
        let durable = device.progress.iter().filter_map(|p| match p {
            Progress::Durable(checkpoint) => Some(checkpoint.offset),
            _ => None,
        });
        durable.collect()
    };
    let mut device = Device::new();
    let ended = device.fetch(&Job {
        checkpoint_bytes: 100_000,
        ..job(server.url("/"))
    });
    device.assert_complete(ended, &image(1));
    let seen = offsets(&device);
    assert!(
        (2..=3).contains(&seen.len()) && seen.is_sorted(),
        "{seen:?}"
    );

    let checkpoint_interval = Duration::from_millis(100);
    let ended = device.fetch(&Job {
        checkpoint_interval,
        ..job(server.url("/slow"))
    });
    device.assert_complete(ended, &image(1));
    assert!(offsets(&device).len() >= 4, "{:?}", offsets(&device));

    // Every one of them can be gone on from.
    for checkpoint in device.progress.clone() {
        let Progress::Durable(checkpoint) = checkpoint else {
            continue;
        };
        let mut checks = Checks::restore(&checkpoint.checks).unwrap();
        checks.update(&image(1)[checkpoint.offset as usize..]);
        assert_eq!(checks.finish(), digests(&image(1)));
    }
}

/// A checkpoint never covers more than `sync` answered.
#[test]
fn an_installer_whose_sync_lags() {
    let server = Server::http(|reply| reply.serve(&image(1), TAG, ALL));
    let mut device = Device::new();
    device.staging.lags = 40_000;
    let ended = device.fetch(&Job {
        checkpoint_bytes: 10_000,
        ..job(server.url("/"))
    });
    device.assert_complete(ended, &image(1));

    device.staging.lags = 1;
    let mut checkpoints = 0;
    let ended = device.fetch_until(&job(server.url("/")), &Stop::new(), &mut |progress| {
        checkpoints += u32::from(matches!(progress, Progress::Durable(_)));
    });
    device.assert_complete(ended, &image(1));
    assert_eq!(checkpoints, 1);
}

#[test]
fn an_installer_that_fails_ends_the_attempt() {
    let server = Server::http(|reply| reply.serve(&image(1), TAG, ALL));
    let mut device = Device::new();
    device.staging.fails_at = Some(100_000);
    let (code, retry, message) = failed(device.fetch(&job(server.url("/"))));
    assert_eq!((code, retry), (Code::NoSpace, Retry::Never));
    assert_eq!(message, "the disk is full");
}
