//! What goes wrong, and what is said about it.

use crate::{
    Device,
    broker::{Authority, Broker, Hub, free_port},
    options, options_for,
};
use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};
use twinflash::iothub::{Cause, Client, Event, Options, Roots};

/// Everything that can be wrong with a server's certificate, told apart.
#[test]
fn certificates_that_are_not_accepted() {
    let broker = Broker::start();
    let mut wrong = options_for(&broker);
    wrong.roots = Roots::BuiltIn;
    Device::connect(wrong.clone()).fails(Cause::Tls, "an authority that is not trusted here");
    // The hub made itself a new authority, of the same name.
    wrong.roots = Authority::new().roots();
    Device::connect(wrong).fails(Cause::Tls, "name its CA file (--ca FILE)");

    let mut late = options_for(&broker);
    let year_2041 = SystemTime::UNIX_EPOCH + Duration::from_secs(71 * 365 * 86400 + 60 * 86400);
    late.clock = Arc::new(move || Some(year_2041));
    Device::connect(late).fails(Cause::Tls, "this machine's clock is wrong");
    let mut early = options_for(&broker);
    early.clock = Arc::new(|| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1)));
    Device::connect(early).fails(Cause::Tls, "this machine's clock is wrong");

    let broker = Broker::with("hub.example", "allow_anonymous true");
    Device::connect(options_for(&broker))
        .fails(Cause::Tls, "is for another name: DnsName(\"hub.example\")");
}

#[test]
fn servers_that_are_not_there() {
    let server = format!("localhost:{}", free_port());
    let device = Device::connect(options(&server, Roots::BuiltIn));
    device.fails(
        Cause::Network,
        &format!("nothing listens on {server} (connection refused)"),
    );

    let device = Device::connect(options("no-such-host.invalid", Roots::BuiltIn));
    device.fails(Cause::Network, "the name no-such-host.invalid is not known");
}

/// A server that does this with every connection.
fn server(with: impl Fn(std::net::TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            with(stream.unwrap());
        }
    });
    format!("127.0.0.1:{port}")
}

#[test]
fn servers_that_speak_something_else() {
    // The answer of a web server to a TLS handshake.
    let web = server(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    Device::connect(options(&web, Roots::BuiltIn)).fails(Cause::Tls, "is no TLS: is it the port");
    let closes = server(drop);
    Device::connect(options(&closes, Roots::BuiltIn))
        .fails(Cause::Tls, "broke off the TLS handshake");

    let (keep, _kept) = mpsc::channel();
    let silent = server(move |stream| keep.send(stream).unwrap());
    let mut options = options(&silent, Roots::BuiltIn);
    options.connect_timeout = Duration::from_secs(1);
    let start = Instant::now();
    Device::connect(options).fails(Cause::Network, "did not answer in time");
    assert!(start.elapsed() < Duration::from_millis(1500));
}

#[test]
fn a_device_the_hub_does_not_accept() {
    let broker = Broker::with(
        "localhost",
        "allow_anonymous false\npassword_file DIRECTORY/passwords",
    );
    let device = Device::connect(options_for(&broker));
    device.fails(
        Cause::Refused,
        "refuses device \"d1\" (not authorized): check that the hub has this device",
    );
    // It goes on trying: it may be registered later.
    device.fails(Cause::Refused, "clock, which says 20");
}

/// A server that looks at the device's certificate in the TLS handshake.
#[test]
fn a_device_whose_certificate_is_not_accepted() {
    let broker = Broker::with(
        "localhost",
        "allow_anonymous true\nrequire_certificate true\ncafile DIRECTORY/authority.pem",
    );
    Device::connect(options_for(&broker)).fails(Cause::Tls, "lets nobody in without a certificate");
    let connection = format!("HostName=localhost:{};DeviceId=d1;x509=true", broker.port);
    let with = |identity| {
        let mut options = options_for(&broker);
        options.connection = connection.parse().unwrap();
        options.identity = identity;
        options
    };
    Device::online(with(Some(broker.authority.device(2040))));
    Device::connect(with(Some(broker.authority.device(2021)))).fails(
        Cause::Tls,
        "good from 2001-01-01 00:00 UTC to 2021-01-01 00:00 UTC",
    );
    Device::connect(with(Some(Authority::new().device(2040))))
        .fails(Cause::Tls, "does not accept the device's certificate");

    let refused = |options| Client::connect(options, |_| {}).unwrap_err().to_string();
    let error = refused(with(None));
    assert!(
        error.contains("client_certificate and client_key"),
        "{error}"
    );
    let mut both = options_for(&broker);
    both.identity = Some(broker.authority.device(2040));
    let error = refused(both);
    assert!(error.contains("which exclude each other"), "{error}");
}

#[test]
fn a_broker_that_dies_and_comes_back() {
    let mut broker = Broker::start();
    let hub = Hub::join(&broker);
    let device = Device::online(options_for(&broker));
    device.client.report(1, b"{}".to_vec());
    hub.expect("$iothub/twin/PATCH/");
    device.client.read_twin();
    hub.expect("$iothub/twin/GET/");
    broker.kill();

    // Both requests are told as lost, in no particular order, before the line is.
    let mut lost = Vec::new();
    for _ in 0..2 {
        lost.push(match device.next() {
            Event::ReportDone {
                id: 1,
                result: Err(error),
            } => ("report", error.status),
            Event::TwinFailed(error) => ("twin", error.status),
            event => panic!("{event:?}"),
        });
    }
    lost.sort_unstable();
    assert_eq!(lost, [("report", 0), ("twin", 0)]);
    device.fails(Cause::Network, "has closed the connection");

    device.fails(Cause::Network, "nothing listens on");
    device.client.report(2, b"{}".to_vec());
    let lost = loop {
        match device.next() {
            Event::Disconnected(why) => assert_eq!(why.cause, Cause::Network),
            Event::ReportDone { id: 2, result } => break result.unwrap_err(),
            event => panic!("{event:?}"),
        }
    };
    assert_eq!((lost.status, lost.message.as_str()), (0, "not connected"));

    broker.restart();
    let connected = loop {
        match device.next() {
            Event::Disconnected(why) => assert!(why.retry_in <= Duration::from_millis(200)),
            event => break event,
        }
    };
    assert!(matches!(connected, Event::Connected(_)));
    let hub = Hub::join(&broker);
    hub.publish("$iothub/methods/POST/again/?$rid=1", "");
    assert!(matches!(device.next(), Event::Method(_)));
}

#[test]
fn a_broker_that_stops_answering() {
    let broker = Broker::start();
    let mut options = options_for(&broker);
    options.keep_alive = Duration::from_secs(1);
    options.connect_timeout = Duration::from_secs(2);
    let device = Device::online(options);
    // Pings are answered.
    device.silent(Duration::from_millis(2500));
    broker.freeze(true);
    let start = Instant::now();
    device.fails(Cause::Network, "has stopped answering");
    assert!(
        start.elapsed() < Duration::from_millis(2600),
        "{:?}",
        start.elapsed()
    );
    device.fails(Cause::Network, "did not answer in time");
    broker.freeze(false);
    while !matches!(device.next(), Event::Connected(_)) {}
}

#[test]
fn an_unanswered_request_on_a_silent_line_ends_it() {
    let broker = Broker::start();
    let mut options = options_for(&broker);
    options.answer_timeout = Duration::from_millis(500);
    let device = Device::online(options);
    device.client.report(1, b"{}".to_vec());
    assert!(matches!(
        device.next(),
        Event::ReportDone {
            id: 1,
            result: Err(_)
        }
    ));
    device.fails(Cause::Network, "has stopped answering");
    device.connected();
}

#[test]
fn another_device_under_the_same_id() {
    let broker = Broker::start();
    let first = Device::online(options_for(&broker));
    let second = Device::connect(options_for(&broker));
    first.fails(
        Cause::Network,
        "another device has connected under the same id",
    );
    second.client.close();
    while !matches!(first.next(), Event::Connected(_)) {}
}

/// A TLS server whose answers, one to each packet, are these bytes.
fn scripted(answers: &'static [&'static [u8]]) -> Options {
    let authority = Authority::new();
    let config = Arc::new(authority.server_config());
    let server = server(move |stream| {
        let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(session, stream);
        let mut answers = answers.iter();
        while let Ok(1..) = stream.read(&mut [0; 4096]) {
            if let Some(answer) = answers.next() {
                stream.write_all(answer).unwrap();
            }
        }
    });
    options(&server, authority.roots())
}

const CONNACK: &[u8] = &[0x20, 2, 0, 0];

#[test]
fn hubs_that_misbehave() {
    let refuses = scripted(&[CONNACK, &[0x90, 5, 0, 1, 0, 0x80, 0]]);
    Device::connect(refuses).fails(
        Cause::Refused,
        "refuses the subscription of $iothub/twin/res/#",
    );

    let mut silent = scripted(&[CONNACK]);
    silent.connect_timeout = Duration::from_secs(1);
    Device::connect(silent).fails(Cause::Network, "does not answer the subscriptions");

    let busy = scripted(&[&[0x20, 2, 0, 3]]);
    Device::connect(busy).fails(Cause::Refused, "not available at the moment");

    let other = scripted(&[&[0xf0, 0]]);
    Device::connect(other).fails(Cause::Network, "is it the right port?");
}

/// A hub may publish on a subscription before it acknowledges it.
#[test]
fn messages_before_the_acknowledgement_come_after_connected() {
    let mut early = vec![0x30, 51, 0, 47];
    early.extend(b"$iothub/twin/PATCH/properties/desired/?$version");
    early.extend(b"{}");
    early.extend([0x90, 5, 0, 1, 0, 0, 0]);
    let device = Device::connect(scripted(Vec::leak(vec![CONNACK, early.leak()])));
    device.connected();
    assert_eq!(device.next(), Event::Desired(b"{}".to_vec()));
}

#[test]
fn a_clock_that_is_not_known_yet() {
    let broker = Broker::start();
    let known = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU32::new(0));
    let mut options = options_for(&broker);
    options.clock = {
        let (known, asked) = (Arc::clone(&known), Arc::clone(&asked));
        Arc::new(move || {
            asked.fetch_add(1, Ordering::Relaxed);
            known.load(Ordering::Relaxed).then(SystemTime::now)
        })
    };
    let device = Device::connect(options);
    assert_eq!(device.next(), Event::WaitingForClock);
    device.silent(Duration::from_millis(1300));
    assert!(asked.load(Ordering::Relaxed) >= 3);
    assert!(!broker.log().contains("as d1"));
    device.client.read_twin();
    assert!(matches!(device.next(), Event::TwinFailed(error) if error.status == 0));
    known.store(true, Ordering::Relaxed);
    device.connected();
}

#[test]
fn closing_takes_less_than_a_second_whatever_happens() {
    let close = |name: &str, device: Device| {
        let start = Instant::now();
        device.client.close();
        let time = start.elapsed();
        assert!(time < Duration::from_secs(1), "{name}: {time:?}");
        while let Ok(event) = device.events.try_recv() {
            assert!(
                matches!(
                    event,
                    Event::Connected(_) | Event::Disconnected(_) | Event::WaitingForClock
                ),
                "{event:?}"
            );
        }
    };

    let broker = Broker::start();
    close("online", Device::online(options_for(&broker)));
    close("starting", Device::connect(options_for(&broker)));

    let device = Device::online(options_for(&broker));
    broker.freeze(true);
    device.client.report(1, vec![b' '; 200_000]);
    close("frozen while online", device);
    let device = Device::connect(options_for(&broker));
    thread::sleep(Duration::from_millis(100));
    close("frozen while connecting", device);
    broker.freeze(false);

    let mut slow = options(&format!("localhost:{}", free_port()), Roots::BuiltIn);
    slow.retry_min = Duration::from_secs(100);
    slow.retry_max = Duration::from_secs(100);
    let device = Device::connect(slow.clone());
    device.disconnected();
    close("waiting to try again", device);

    slow.clock = Arc::new(|| None);
    let device = Device::connect(slow);
    assert_eq!(device.next(), Event::WaitingForClock);
    close("waiting for the clock", device);
}

/// A handler that hangs, and one that drops the client it is called by.
#[test]
fn closing_with_the_handler_in_the_way() {
    let options = options(&format!("localhost:{}", free_port()), Roots::BuiltIn);
    let (release, released) = mpsc::channel::<()>();
    let (called, in_handler) = mpsc::channel();
    let client = Client::connect(options.clone(), move |_| {
        called.send(()).unwrap();
        let _ = released.recv();
    })
    .unwrap();
    in_handler.recv().unwrap();
    let start = Instant::now();
    client.close();
    assert!(start.elapsed() < Duration::from_secs(1));
    drop(release);

    let (give, taken) = mpsc::channel::<Client>();
    let (done, dropped) = mpsc::channel();
    let client = Client::connect(options, move |_| {
        let start = Instant::now();
        drop(taken.recv());
        let _ = done.send(start.elapsed());
    })
    .unwrap();
    give.send(client).unwrap();
    drop(give);
    let time = dropped.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(time < Duration::from_millis(500), "{time:?}");
}

#[test]
fn options_that_make_no_sense() {
    let good = options("localhost", Roots::BuiltIn);
    let start = |change: &dyn Fn(&mut Options)| {
        let mut options = good.clone();
        change(&mut options);
        Client::connect(options, drop).unwrap_err().to_string()
    };
    let second = Duration::from_secs(1);
    for (message, expected) in [
        (
            start(&|options| options.keep_alive = Duration::ZERO),
            "keep_alive must be from 1 to 1767 seconds, not 0",
        ),
        (
            start(&|options| options.keep_alive = second * 1768),
            "keep_alive must be from 1 to 1767 seconds, not 1768",
        ),
        (
            start(&|options| options.token_lifetime = second / 2),
            "token_lifetime must be from 1 to",
        ),
        (
            start(&|options| options.token_lifetime = Duration::MAX),
            "token_lifetime must be from 1 to",
        ),
        (
            start(&|options| options.connect_timeout = second / 2),
            "connect_timeout must be from 1 to 86400",
        ),
        (
            start(&|options| options.answer_timeout = Duration::MAX),
            "answer_timeout must be",
        ),
        (
            start(&|options| options.retry_min = Duration::ZERO),
            "retry_min must be from 0.001",
        ),
        (
            start(&|options| options.retry_max = Duration::MAX),
            "retry_max must be",
        ),
        (
            start(&|options| options.roots = Roots::These(Arc::new([]))),
            "none of the certificates can be used",
        ),
    ] {
        assert!(message.contains(expected), "{message}");
    }
    let shown = format!("{good:?}");
    assert!(!shown.contains(crate::KEY), "{shown}");
}
