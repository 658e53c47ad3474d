//! What is said on a line that works.

use crate::{
    Device,
    broker::{Broker, Hub},
    options_for,
};
use std::time::{Duration, Instant, SystemTime};
use twinflash::iothub::{
    Cause, ConnectionString, Event, MAX_MESSAGE, MAX_METHOD_ANSWER, MethodCall,
};

fn method(device: &Device) -> MethodCall {
    match device.next() {
        Event::Method(call) => call,
        event => panic!("{event:?}"),
    }
}

#[test]
fn connects_as_the_documentation_says() {
    let broker = Broker::start();
    let mut options = options_for(&broker);
    options.product_info = "my app/2".into();
    let before = SystemTime::now();
    let device = Device::connect(options);
    let session = device.connected();
    assert_eq!(session.server, format!("localhost:{}", broker.port));
    let lifetime = session
        .token_expires
        .unwrap()
        .duration_since(before)
        .unwrap();
    assert!((3599..3610).contains(&lifetime.as_secs()), "{lifetime:?}");
    let log = broker.log();
    assert!(
        log.contains("as d1 (p2, c0, k240, u'localhost/d1/?api-version=2021-04-12&DeviceClientType=my%20app%2F2')"),
        "{log}"
    );
    for filter in ["methods/POST", "twin/res", "twin/PATCH/properties/desired"] {
        assert!(
            log.contains(&format!("$iothub/{filter}/# (QoS 0)")),
            "{log}"
        );
    }
}

#[test]
fn a_gateway_is_connected_to_in_the_hubs_name() {
    let broker = Broker::start();
    let mut options = options_for(&broker);
    options.connection = format!(
        "HostName=myhub.azure-devices.net;DeviceId=d1;SharedAccessKey=c2VjcmV0;GatewayHostName=localhost:{}",
        broker.port
    )
    .parse::<ConnectionString>()
    .unwrap();
    let _device = Device::online(options);
    let log = broker.log();
    assert!(
        log.contains("u'myhub.azure-devices.net/d1/?api-version="),
        "{log}"
    );
}

#[test]
fn a_method_is_told_and_answered() {
    let broker = Broker::start();
    let hub = Hub::join(&broker);
    let device = Device::online(options_for(&broker));

    hub.publish(
        "$iothub/methods/POST/firmwareUpdate/?$rid=a1",
        r#"{"fwPackageUri":"x"}"#,
    );
    let call = method(&device);
    assert_eq!(call.name, "firmwareUpdate");
    assert_eq!(call.payload, br#"{"fwPackageUri":"x"}"#);
    device
        .client
        .answer_method(&call.request, 200, b"\"started\"".to_vec())
        .unwrap();
    let answer = hub.next();
    assert_eq!(
        answer,
        (
            "$iothub/methods/res/200/?$rid=a1".into(),
            b"\"started\"".to_vec()
        )
    );

    // The portal sends nothing at all; the largest go through both ways.
    hub.publish("$iothub/methods/POST/empty/?$rid=a2", "");
    assert_eq!(method(&device).payload, b"");
    let large = vec![b'1'; MAX_METHOD_ANSWER];
    hub.publish("$iothub/methods/POST/large/?$rid=a3", large.clone());
    let call = method(&device);
    assert!(call.payload == large);
    device
        .client
        .answer_method(&call.request, 400, large.clone())
        .unwrap();
    let (topic, payload) = hub.next();
    assert_eq!(topic, "$iothub/methods/res/400/?$rid=a3");
    assert!(payload == large);
    let refused =
        device
            .client
            .answer_method(&call.request, 200, vec![b'1'; MAX_METHOD_ANSWER + 1]);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the answer to a method may have 131072 bytes, this one has 131073"
    );
}

#[test]
fn the_twin_is_read_and_reported_to() {
    let broker = Broker::start();
    let hub = Hub::join(&broker);
    let device = Device::online(options_for(&broker));

    device.client.read_twin();
    let (first, body) = hub.expect("$iothub/twin/GET/?$rid=");
    assert_eq!(body, b"");
    hub.publish(
        &format!("$iothub/twin/res/200/?$rid={first}"),
        r#"{"desired":{},"reported":{}}"#,
    );
    assert_eq!(
        device.next(),
        Event::Twin(br#"{"desired":{},"reported":{}}"#.to_vec())
    );

    hub.publish(
        "$iothub/twin/PATCH/properties/desired/?$version=8",
        r#"{"a":null,"$version":8}"#,
    );
    assert_eq!(
        device.next(),
        Event::Desired(br#"{"a":null,"$version":8}"#.to_vec())
    );

    device.client.report(77, br#"{"b":1}"#.to_vec());
    let (second, body) = hub.expect("$iothub/twin/PATCH/properties/reported/?$rid=");
    assert_eq!(body, br#"{"b":1}"#);
    assert_ne!(first, second);
    hub.publish("$iothub/twin/res/204/?$rid=nobody", "");
    hub.publish(
        &format!("$iothub/twin/res/204/?$rid={second}&$version=6"),
        "",
    );
    assert_eq!(
        device.next(),
        Event::ReportDone {
            id: 77,
            result: Ok(Some(6))
        }
    );
}

#[test]
fn what_the_hub_refuses_comes_with_its_reason() {
    let broker = Broker::start();
    let hub = Hub::join(&broker);
    let device = Device::online(options_for(&broker));

    device.client.report(1, b"{}".to_vec());
    let (request, _) = hub.expect("$iothub/twin/PATCH/properties/reported/?$rid=");
    hub.publish(
        &format!("$iothub/twin/res/413/?$rid={request}"),
        r#"{"errorCode":403100,"trackingId":"t","message":"'Properties.Reported' size should be less than 32768 bytes.","timestampUtc":"u"}"#,
    );
    let Event::ReportDone {
        id: 1,
        result: Err(error),
    } = device.next()
    else {
        panic!()
    };
    assert_eq!((error.status, error.code), (413, Some(403_100)));
    assert_eq!(
        error.message,
        "'Properties.Reported' size should be less than 32768 bytes."
    );

    device.client.read_twin();
    let (request, _) = hub.expect("$iothub/twin/GET/?$rid=");
    hub.publish(&format!("$iothub/twin/res/429/?$rid={request}"), "");
    let Event::TwinFailed(error) = device.next() else {
        panic!()
    };
    assert_eq!((error.status, error.code), (429, None));

    // Sent, this would cost the connection.
    device.client.report(2, vec![b' '; MAX_MESSAGE + 1]);
    let Event::ReportDone {
        id: 2,
        result: Err(error),
    } = device.next()
    else {
        panic!()
    };
    assert_eq!(error.status, 413);
    assert!(error.message.contains("262145"), "{error}");
    device.client.report(3, vec![b' '; MAX_MESSAGE]);
    assert_eq!(hub.expect("$iothub/twin/PATCH/").1.len(), MAX_MESSAGE);
}

#[test]
fn an_unanswered_request_is_lost_but_not_the_line() {
    let broker = Broker::start();
    let hub = Hub::join(&broker);
    let mut options = options_for(&broker);
    options.answer_timeout = Duration::from_millis(300);
    options.keep_alive = Duration::from_secs(1);
    let device = Device::online(options);
    device.client.report(5, b"{}".to_vec());
    hub.expect("$iothub/twin/PATCH/");
    hub.publish("$iothub/twin/PATCH/properties/desired/?$version=1", "{}");
    assert_eq!(device.next(), Event::Desired(b"{}".to_vec()));
    let Event::ReportDone {
        id: 5,
        result: Err(error),
    } = device.next()
    else {
        panic!()
    };
    assert_eq!(error.status, 0);
    assert!(error.message.contains("no answer"), "{error}");
    device.silent(Duration::from_secs(3));
}

#[test]
fn a_token_is_renewed_before_it_ends() {
    let broker = Broker::start();
    let mut options = options_for(&broker);
    options.token_lifetime = Duration::from_secs(3);
    let device = Device::connect(options);
    let first = device.connected();
    let start = Instant::now();
    let why = device.disconnected();
    assert_eq!((why.cause, why.retry_in), (Cause::Renewal, Duration::ZERO));
    let time = start.elapsed();
    assert!((2.2..2.7).contains(&time.as_secs_f64()), "{time:?}");
    let second = device.connected();
    assert!(second.token_expires.unwrap() >= first.token_expires.unwrap() + Duration::from_secs(2));
    assert!(start.elapsed() < time + Duration::from_millis(500));
    broker.logs("Client d1 disconnected.");
}

#[test]
fn renewal_waits_for_a_method_under_way() {
    let broker = Broker::start();
    let hub = Hub::join(&broker);
    let mut options = options_for(&broker);
    options.token_lifetime = Duration::from_secs(8);
    let device = Device::online(options);
    let start = Instant::now();
    hub.publish("$iothub/methods/POST/slow/?$rid=1", "null");
    let call = method(&device);
    device.silent(Duration::from_millis(7000).saturating_sub(start.elapsed()));
    device
        .client
        .answer_method(&call.request, 200, b"1".to_vec())
        .unwrap();
    hub.expect("$iothub/methods/res/200/");
    assert_eq!(device.disconnected().cause, Cause::Renewal);
    assert!(
        start.elapsed() < Duration::from_millis(7550),
        "{:?}",
        start.elapsed()
    );
    device.connected();

    // It does not wait beyond 95 %; then the answer leaves on the next connection.
    hub.publish("$iothub/methods/POST/slow/?$rid=2", "null");
    let call = method(&device);
    assert_eq!(device.disconnected().cause, Cause::Renewal);
    device
        .client
        .answer_method(&call.request, 200, b"2".to_vec())
        .unwrap();
    device.connected();
    assert_eq!(
        hub.next(),
        ("$iothub/methods/res/200/?$rid=2".into(), b"2".to_vec())
    );
}

#[test]
fn closing_sends_what_was_handed_over() {
    let broker = Broker::start();
    let hub = Hub::join(&broker);
    let device = Device::online(options_for(&broker));
    hub.publish("$iothub/methods/POST/reboot/?$rid=9", "null");
    let call = method(&device);
    let large = vec![b'1'; MAX_METHOD_ANSWER];
    device.client.report(1, b"{}".to_vec());
    device
        .client
        .answer_method(&call.request, 200, large)
        .unwrap();
    let start = Instant::now();
    device.client.close();
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    hub.expect("$iothub/twin/PATCH/properties/reported/");
    assert_eq!(
        hub.expect("$iothub/methods/res/200/?$rid=9").1.len(),
        MAX_METHOD_ANSWER
    );
    broker.logs("Client d1 disconnected.");
    // Nobody is told anything any more.
    device.client.report(2, b"{}".to_vec());
    assert!(device.events.recv().is_err());
}
