//! What the owner signed is installed, through restarts, cancels and rotations of keys.

use super::{desk::*, *};

#[test]
fn what_the_owner_signed_is_installed() {
    let mut desk = Desk::new();
    let manifest = desk.manifest("2.0.0");
    desk.installed(json!({ "fwManifest": manifest }));
    let events = desk.events();
    let signed = |event: &Event| {
        matches!(
            event,
            Event::Verified {
                by: Verified::Signature,
                ..
            }
        )
    };
    assert!(events.iter().any(signed), "{events:?}");
    // Its version is the manifest's: nobody else has said one.
    assert_eq!(
        desk.updater().status().running_version.as_deref(),
        Some("2.0.0")
    );
    let reported = at_path(&desk.reported, "iothubDM.firmwareVersion").unwrap();
    assert_eq!(reported, "2.0.0");
}

#[test]
fn a_manifest_as_a_json_object_with_two_signatures() {
    let (one, two) = (Signer::ed25519(1), Signer::p256());
    let keys = key_set(1, 2, &[&one, &two]);
    let claims = claims("2.0.0", &image(SIZE, 7)).to_string();
    let both = signed(Kind::Manifest, &[&one, &two], claims.as_bytes());
    let alone = signed(Kind::Manifest, &[&one], claims.as_bytes());
    let twice = signed(Kind::Manifest, &[&one, &one], claims.as_bytes());
    let mut desk = Desk::trusting(one, keys);
    desk.refused(json!({ "fwManifest": alone }), "2 are needed");
    desk.refused(json!({ "fwManifest": twice }), "2 are needed");
    let object: Value = serde_json::from_str(&both).unwrap();
    desk.installed(json!({ "fwManifest": object }));
}

#[test]
fn a_manifest_beside_the_image() {
    let mut desk = Desk::new();
    let manifest = desk.manifest("2.0.0") + "\n";
    desk.serve("/image.bin.jws", manifest.into_bytes());
    desk.installed(json!({}));
    let paths: Vec<_> = desk
        .server
        .asked()
        .into_iter()
        .map(|asked| asked.path)
        .collect();
    assert_eq!(
        paths,
        ["/image.bin.jws?sig=secret", "/image.bin?sig=secret"]
    );
}

#[test]
fn a_signed_update_by_desired_properties() {
    let mut desk = Desk::new();
    desk.contract = "configuration";
    let firmware = |manifest: &str, retry: u32| json!({"fwVersion": "2.0.0", "fwPackageURI": desk.server.url("/image.bin"), "fwManifest": manifest, "fwRetry": retry});
    let wrong = firmware(
        &Signer::ed25519(9).manifest(&claims("2.0.0", &image(SIZE, 7))),
        1,
    );
    let right = firmware(&desk.manifest("2.0.0"), 2);
    let updater = desk.updater();
    updater.connected(true);
    let twin = json!({"desired": {"firmware": wrong, "$version": 1}, "reported": {}});
    updater.handle_twin(true, twin.to_string().as_bytes());
    let end = desk.end();
    assert!(end.message.contains("not trusted"), "{end:?}");
    assert_eq!(desk.reported["firmware"]["fwUpdateStatus"], "error");
    let patch = json!({"firmware": right, "$version": 2});
    desk.updater()
        .handle_twin(false, patch.to_string().as_bytes());
    for _ in 0..500 {
        desk.pump();
        if desk.updater().status().outcome == Some(Outcome::Completed) {
            break;
        }
    }
    assert_eq!(fs::read(desk.target()).unwrap(), image(SIZE, 7));
}

#[test]
fn a_cancel_while_the_manifest_is_fetched() {
    let mut desk = Desk::new();
    desk.serve_by("/image.bin.jws", Reply::hang);
    assert_eq!(desk.call(json!({})).0, 200);
    for _ in 0..1000 {
        desk.pump();
        if desk.asked("/image.bin.jws") > 0 {
            break;
        }
    }
    assert_eq!(desk.asked("/image.bin.jws"), 1);
    assert_eq!(desk.updater().cancel(), Ok(true));
    assert!(matches!(desk.end().outcome, Outcome::Cancelled(_)));
    let manifest = desk.manifest("2.0.0");
    desk.installed(json!({ "fwManifest": manifest }));
}

#[test]
fn a_restart_needs_no_manifest_from_the_network_again() {
    let mut desk = Desk::new();
    let manifest = desk.manifest("2.0.0");
    desk.serve("/image.bin.jws", manifest.into_bytes());
    desk.serve_by("/image.bin", |reply| {
        reply.serve(&image(SIZE, 7), Some("\"1\""), SIZE / 2);
        reply.hang();
    });
    assert_eq!(desk.call(json!({})).0, 200);
    desk.pump_until_half_is_there();
    desk.stop();
    // What vouches for it is in the record; what it vouches for is still asked.
    desk.serve_by("/image.bin.jws", |reply| reply.empty("410 Gone", &[]));
    desk.serve("/image.bin", image(SIZE, 7));
    desk.start();
    let end = desk.end();
    assert_eq!(end.outcome, Outcome::Completed, "{end:?}");
    assert_eq!(fs::read(desk.target()).unwrap(), image(SIZE, 7));
    assert_eq!(desk.asked("/image.bin.jws"), 1);
}

/// An update that is under way when its key is revoked, or when keys are first configured.
#[test]
fn a_restart_looks_at_what_is_under_way_with_the_keys_of_now() {
    let half = |reply: &mut Reply| {
        reply.serve(&image(SIZE, 7), Some("\"1\""), SIZE / 2);
        reply.hang();
    };
    for (first, then, code) in [
        ("owner", "revoked", "untrusted"),
        ("owner", "other", "untrusted"),
        ("nobody", "owner", "manifest-required"),
    ] {
        let mut desk = Desk::new();
        let other = Signer::ed25519(2);
        let both = vec![desk.owner.public.clone(), other.public.clone()];
        let revoked = vec![desk.owner.public.id()];
        let trusting = |whom: &str, desk: &Desk| match whom {
            "owner" => Some(trust(key_set(1, 1, &[&desk.owner]))),
            "other" => Some(trust(key_set(1, 1, &[&other]))),
            "revoked" => Some(trust(
                KeySet::new(1, 1, both.clone(), revoked.clone()).unwrap(),
            )),
            _ => None,
        };
        desk.trust = trusting(first, &desk);
        desk.serve_by("/image.bin", half);
        let crc = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM);
        let payload = match first {
            "nobody" => {
                json!({"fwPackageCheckValue": format!("{:x}", crc.checksum(&image(SIZE, 7)))})
            }
            _ => json!({"fwManifest": desk.manifest("2.0.0")}),
        };
        assert_eq!(desk.call(payload).0, 200);
        desk.pump_until_half_is_there();
        desk.stop();
        desk.trust = trusting(then, &desk);
        desk.serve("/image.bin", image(SIZE, 7));
        desk.start();
        let end = desk.end();
        let Outcome::Failed { failure, .. } = end.outcome else {
            panic!("{first} {then}: {end:?}");
        };
        assert_eq!(failure.code.as_str(), code, "{failure}");
        assert_eq!(fs::read(desk.target()).unwrap(), b"old");
        assert_eq!(desk.asked("/image.bin"), 1, "{first} {then}");
    }
}

#[test]
fn a_manifest_is_not_taken_for_checked_where_no_keys_are() {
    let mut desk = Desk::new();
    let manifest = desk.manifest("2.0.0");
    desk.trust = None;
    desk.refused(
        json!({ "fwManifest": manifest }),
        "no keys are configured to check it with",
    );
    // Nor is anything installed where one must be, and no keys are.
    desk.stop();
    desk.policy.require_manifest = true;
    desk.refused(
        json!({ "fwManifest": manifest }),
        "has no keys that it could trust",
    );
    desk.fails(
        json!({"fwPackageCheckValue": "1"}),
        "untrusted",
        "has no keys",
    );
}

#[test]
fn keys_are_rotated_for_good() {
    let mut desk = Desk::new();
    let (old, new, third) = (Signer::ed25519(1), Signer::ed25519(2), Signer::ed25519(3));
    let set = |version, signers: &[&Signer], by: &Signer| {
        signed(Kind::Keys, &[by], &key_set(version, 1, signers).to_json())
    };
    let claims = |retry: u64| {
        let mut claims = claims("2.0.0", &image(SIZE, 7));
        claims["iat"] = (now() - 100 - retry).into();
        claims
    };
    // A stranger's is not taken, and changes nothing.
    let stranger = set(2, &[&third], &third);
    desk.refused(
        json!({"fwKeys": stranger, "fwManifest": third.manifest(&claims(0))}),
        "is not trusted",
    );
    // The new keys come with the first image they have signed.
    let rotation = set(2, &[&new], &old);
    desk.installed(json!({"fwKeys": rotation, "fwManifest": new.manifest(&claims(1))}));
    desk.refused(
        json!({"fwManifest": old.manifest(&claims(2))}),
        "is not trusted",
    );
    // After a restart with the configuration of old, too; and it is not turned back.
    desk.stop();
    desk.refused(
        json!({"fwManifest": old.manifest(&claims(3))}),
        "is not trusted",
    );
    let back = set(2, &[&old], &new);
    desk.refused(
        json!({"fwKeys": back, "fwManifest": old.manifest(&claims(4))}),
        "is not trusted",
    );
    let older = set(3, &[&old], &old);
    desk.refused(
        json!({"fwKeys": older, "fwManifest": old.manifest(&claims(5))}),
        "is not trusted",
    );
    // The same document again is no matter: it stays in a twin.
    desk.installed(json!({"fwKeys": rotation, "fwManifest": new.manifest(&claims(6))}));
    let events = desk.events();
    let noticed =
        |event: &&Event| matches!(event, Event::Warning(text) if text.contains("new keys"));
    assert_eq!(events.iter().filter(noticed).count(), 2, "{events:?}");
    // A configuration with a higher version counts again.
    desk.stop();
    desk.trust = Some(trust(key_set(3, 1, &[&third])));
    desk.refused(
        json!({"fwManifest": new.manifest(&claims(7))}),
        "is not trusted",
    );
    desk.installed(json!({"fwManifest": third.manifest(&claims(8))}));
}

#[test]
fn a_compressed_image_is_installed_as_it_was_before() {
    let image = image(SIZE, 7);
    let frames = image.chunks(SIZE / 3).map(|bytes| {
        let mut packed = vec![0; zstd_safe::compress_bound(bytes.len())];
        let length = zstd_safe::compress(&mut packed[..], bytes, 3).unwrap();
        packed.truncate(length);
        packed
    });
    let file = frames.collect::<Vec<_>>().concat();
    let mut claims = claims("2.0.0", &image);
    claims["compression"] = json!("zstd");
    let mut desk = Desk::new();
    // A server that has the image as it is, where the file was signed.
    let manifest = desk.owner.manifest(&claims);
    desk.fails(
        json!({ "fwManifest": manifest }),
        "hash-mismatch",
        "cannot be unpacked",
    );
    claims["download"] = json!({"size": file.len() + 1});
    let other = desk.owner.manifest(&claims);
    desk.serve("/image.bin", file.clone());
    desk.fails(
        json!({ "fwManifest": other }),
        "size-mismatch",
        "were announced",
    );
    claims["download"] = json!({"size": file.len()});
    // The request's own size and check are of what is installed, too.
    let manifest = desk.owner.manifest(&claims);
    desk.installed(json!({ "fwManifest": manifest, "fwSize": SIZE }));
}
