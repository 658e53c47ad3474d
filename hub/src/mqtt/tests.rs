//! What takes time, with the clock turned by hand.

use super::*;
use crate::{state::IfMatch, store::Store, throttle::Throttle, x509::Authorities};
use base64ct::{Base64, Encoding as _};
use ring::hmac;
use serde_json::json;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

type Told = Arc<Mutex<Vec<Event>>>;

fn hub() -> (Shared, Told) {
    let told = Told::default();
    let events = told.clone();
    let observer = Arc::new(move |event: &Event| events.lock().unwrap().push(event.clone()));
    let hub = Shared::new(
        "localhost".into(),
        Some(observer),
        Store::Memory,
        Authorities::read(&[]).unwrap(),
        Throttle::new(None),
    )
    .unwrap();
    hub.put_device("d1", &json!({}), &IfMatch::None).unwrap();
    (hub, told)
}

async fn connect(hub: &Shared, peer: &mut DuplexStream, keep_alive: u16) {
    let key = Base64::decode_vec(hub.device_keys()[0].1.as_ref().unwrap()).unwrap();
    let (resource, expiry) = ("localhost/devices/d1", clock::unix() + 10_000);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let signature = hmac::sign(&key, format!("{resource}\n{expiry}").as_bytes());
    let signature = Base64::encode_string(signature.as_ref()).replace('+', "%2B");
    let connect = v3_1_1::Connect::builder()
        .client_id("d1")
        .unwrap()
        .user_name("localhost/d1/?api-version=2021-04-12")
        .unwrap()
        .password(
            format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}").as_str(),
        )
        .unwrap()
        .keep_alive(keep_alive)
        .build()
        .unwrap();
    peer.write_all(&connect.to_continuous_buffer())
        .await
        .unwrap();
    let mut connack = [0; 4];
    peer.read_exact(&mut connack).await.unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_cut_off_after_15_seconds() {
    let (hub, told) = hub();
    let (_peer, stream) = duplex(64);
    let begun = Instant::now();
    serve(&hub, "peer".into(), &[], stream).await;
    assert_eq!(begun.elapsed().as_secs(), 15);
    let told = told.lock().unwrap();
    assert!(
        matches!(&told[..], [Event::ConnectionRefused { reason, .. }] if reason.contains("in time"))
    );
}

#[tokio::test(start_paused = true)]
async fn who_says_connect_too_slowly_is_cut_off_too() {
    let (hub, _) = hub();
    let (mut peer, stream) = duplex(64);
    let begun = Instant::now();
    let dribble = async {
        // CONNECT, and no end of its user name.
        for byte in b"\x10\xff\x01\x00\x04MQTT\x04\x82\x00\x3c\x00\x02d1"
            .iter()
            .chain(&[b'x'; 90])
        {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if peer.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(serve(&hub, "peer".into(), &[], stream), dribble);
    assert!((15..18).contains(&begun.elapsed().as_secs()));
}

#[tokio::test(start_paused = true)]
async fn half_a_packet_is_no_sign_of_life() {
    let (hub, told) = hub();
    let (mut peer, stream) = duplex(1024);
    let begun = Instant::now();
    let client = async {
        connect(&hub, &mut peer, 60).await;
        for byte in b"\x30\xff\x01\x00\x04".iter().chain(&[b'x'; 90]) {
            tokio::time::sleep(Duration::from_secs(10)).await;
            if peer.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(serve(&hub, "peer".into(), &[], stream), client);
    assert!((90..101).contains(&begun.elapsed().as_secs()));
    let last = told.lock().unwrap().last().cloned();
    assert!(matches!(
        last,
        Some(Event::DeviceDisconnected {
            reason: DisconnectReason::KeepAlive,
            ..
        })
    ));
}

#[tokio::test(start_paused = true)]
async fn no_keep_alive_is_longer_than_azure_s() {
    for (keep_alive, silence) in [
        (0, 1767),
        (60, 90),
        (1177, 1765),
        (1200, 1767),
        (65_535, 1767),
    ] {
        let (hub, told) = hub();
        let (mut peer, stream) = duplex(1024);
        let begun = Instant::now();
        let client = async {
            connect(&hub, &mut peer, keep_alive).await;
            peer.read_to_end(&mut Vec::new()).await.unwrap();
        };
        tokio::join!(serve(&hub, "peer".into(), &[], stream), client);
        assert_eq!(begun.elapsed().as_secs(), silence, "{keep_alive}");
        let last = told.lock().unwrap().last().cloned();
        let device = "d1".into();
        assert_eq!(
            last,
            Some(Event::DeviceDisconnected {
                device,
                reason: DisconnectReason::KeepAlive
            })
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_nothing_is_dropped() {
    let (hub, told) = hub();
    let (mut peer, stream) = duplex(1024);
    let client = async {
        connect(&hub, &mut peer, 0).await;
        let filter = "$iothub/methods/POST/#";
        hub.subscriptions("d1", 1, |subscriptions| {
            subscriptions.insert(filter.into(), 0);
        })
        .unwrap();
        let sent = (0..200).take_while(|_| {
            hub.send("d1", "$iothub/methods/POST/m/?$rid=1".into(), vec![0; 100])
                .unwrap()
        });
        assert_eq!(sent.count(), 64);
        tokio::time::sleep(Duration::from_secs(60)).await;
        peer
    };
    tokio::join!(serve(&hub, "peer".into(), &[], stream), client);
    let last = told.lock().unwrap().last().cloned();
    let device = "d1".into();
    assert_eq!(
        last,
        Some(Event::DeviceDisconnected {
            device,
            reason: DisconnectReason::TooSlow
        })
    );
}
