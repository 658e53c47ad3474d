//! Cases that once failed: each as it was then, whatever becomes of the random ones.

use super::case::{At, Blow, Case, Course, Held, HubFault, Kind, Left, NetworkFault};

pub(super) fn cases() -> Vec<Case> {
    let case = |kind, contract, course, hash, order, blows| Case {
        kind,
        contract,
        course,
        hash,
        signed: false,
        packed: None,
        held: None,
        blows,
        then: Vec::new(),
        order,
    };
    vec![
        case(
            Kind::Program {
                old: false,
                links: true,
            },
            "iothub-dm",
            Course::Mute,
            true,
            0xcedf91461ed04d2d,
            vec![
                (At::Disk(134), Blow::Error(28, 32)),
                (
                    At::Disk(213),
                    Blow::PowerCut(Left::Torn(0xe0de22019f204379)),
                ),
                (At::Disk(14), Blow::PowerCut(Left::Torn(0x349d1c0d2f0c20b0))),
                (At::Network(7), Blow::Network(NetworkFault::Silence)),
                (At::Disk(25), Blow::PowerCut(Left::Torn(0xa6ff88f06845631a))),
            ],
        ),
        case(
            Kind::Link,
            "configuration",
            Course::Dead,
            true,
            0xfb25bfa604ba456b,
            vec![
                (At::Hub(6), Blow::PowerCut(Left::Torn(0x1e980c2a9ef7dcad))),
                (
                    At::Network(10),
                    Blow::PowerCut(Left::Torn(0x8f381ca0e1c1a5b4)),
                ),
                (
                    At::Disk(167),
                    Blow::PowerCut(Left::Torn(0xd49983fb2d3439dc)),
                ),
                (
                    At::Disk(191),
                    Blow::PowerCut(Left::Torn(0x325afb5ef8835dc7)),
                ),
            ],
        ),
        case(
            Kind::Program {
                old: false,
                links: true,
            },
            "iothub-dm",
            Course::Good,
            false,
            0xc31ca2c820c4ff73,
            vec![
                (At::Disk(53), Blow::PowerCut(Left::Torn(0x2407dbb459d15e54))),
                (At::Disk(77), Blow::Error(5, 16)),
            ],
        ),
        case(
            Kind::Program {
                old: false,
                links: true,
            },
            "iothub-dm",
            Course::Mute,
            false,
            0xcd56b9a84f108753,
            vec![
                (At::Disk(49), Blow::PowerCut(Left::Torn(0x2406c9f24086c86b))),
                (At::Hub(19), Blow::Kill),
                (At::Network(2), Blow::Network(NetworkFault::Whole)),
                (
                    At::Disk(189),
                    Blow::PowerCut(Left::Torn(0x1f441763ec94b7b2)),
                ),
                (At::Hub(6), Blow::Hub(HubFault::Lost)),
            ],
        ),
        // A command that was cut off had replaced the program, and the new one never came to say so.
        case(
            Kind::Script,
            "iothub-dm",
            Course::Dead,
            false,
            16182919146273189983,
            vec![
                (
                    At::Disk(150),
                    Blow::PowerCut(Left::Torn(12379710008695345489)),
                ),
                (At::Disk(99), Blow::Error(5, 4)),
                (
                    At::Disk(67),
                    Blow::PowerCut(Left::Torn(3479339921213319348)),
                ),
                (At::Disk(81), Blow::PowerCut(Left::Torn(152647679375297082))),
            ],
        ),
        // The boot loader had gone back, and the installer could not read what would have told it.
        case(
            Kind::Handed,
            "configuration",
            Course::Dead,
            false,
            17362731011408519435,
            vec![
                (
                    At::Disk(103),
                    Blow::PowerCut(Left::Torn(6441757284595156569)),
                ),
                (At::Disk(154), Blow::Error(30, 16)),
                (
                    At::Disk(26),
                    Blow::PowerCut(Left::Torn(9921209911070600996)),
                ),
                (At::Disk(114), Blow::Error(5, 8)),
                (At::Network(13), Blow::Network(NetworkFault::OtherSize)),
            ],
        ),
        // A command had switched when the process was killed, and was run as often as it may be.
        case(
            Kind::Handed,
            "configuration",
            Course::Dead,
            true,
            12819398287797845299,
            vec![
                (
                    At::Disk(86),
                    Blow::PowerCut(Left::Torn(9549420724872168834)),
                ),
                (
                    At::Disk(209),
                    Blow::PowerCut(Left::Torn(1529908325232481443)),
                ),
                (
                    At::Disk(108),
                    Blow::PowerCut(Left::Torn(12116465238136471121)),
                ),
                (At::Disk(150), Blow::Kill),
                (
                    At::Disk(23),
                    Blow::PowerCut(Left::Torn(5404077415425728912)),
                ),
            ],
        ),
        // U-Boot's environment was written and not synced, and read from the kernel's memory.
        case(
            Kind::UBoot,
            "configuration",
            Course::Superseded,
            true,
            250939515050878965,
            vec![
                (At::Disk(143), Blow::Error(5, 8)),
                (At::Hub(24), Blow::Hub(HubFault::Replayed)),
                (
                    At::Disk(184),
                    Blow::PowerCut(Left::Torn(1444453956185026625)),
                ),
                (At::Hub(5), Blow::PowerCut(Left::Torn(6102346711832933489))),
            ],
        ),
        // It was killed between the two, and the next process took what it read for durable.
        case(
            Kind::UBoot,
            "configuration",
            Course::Good,
            false,
            12794825270138213751,
            vec![
                (At::Disk(156), Blow::Kill),
                (
                    At::Disk(62),
                    Blow::PowerCut(Left::Torn(13539071359494105235)),
                ),
                (
                    At::Disk(125),
                    Blow::PowerCut(Left::Torn(11797020514663958568)),
                ),
                (At::Network(12), Blow::Network(NetworkFault::Status(429))),
                (
                    At::Disk(119),
                    Blow::PowerCut(Left::Torn(2581828317942954133)),
                ),
            ],
        ),
        // The old file is made sure of while the new program runs: until the next start the twin says what runs.
        case(
            Kind::Script,
            "configuration",
            Course::Good,
            true,
            7834159231476521433,
            vec![
                (At::Hub(12), Blow::PowerCut(Left::Torn(2002377339799345839))),
                (
                    At::Disk(96),
                    Blow::PowerCut(Left::Torn(4987536614234875109)),
                ),
                (
                    At::Disk(135),
                    Blow::PowerCut(Left::Torn(530081224364917233)),
                ),
                (
                    At::Disk(48),
                    Blow::PowerCut(Left::Torn(10798446737096054582)),
                ),
            ],
        ),
        // The newest copy of the record, that the image was being applied, could not be read: it had been held up before.
        Case {
            held: Some(Held::Unready),
            then: vec![(At::Hub(1), Blow::Clock(86_400))],
            ..case(
                Kind::Service,
                "configuration",
                Course::Superseded,
                true,
                15167326706757436493,
                vec![
                    (At::Disk(129), Blow::Error(5, 4)),
                    (At::Disk(98), Blow::Error(5, 1)),
                    (
                        At::Disk(91),
                        Blow::PowerCut(Left::Torn(3907587228576584492)),
                    ),
                    (At::Disk(11), Blow::PowerCut(Left::Torn(886664722267929668))),
                    (At::Disk(217), Blow::Kill),
                ],
            )
        },
        // The only copy of the record could not be read in one start, which had nothing to save.
        case(
            Kind::Program {
                old: true,
                links: false,
            },
            "iothub-dm",
            Course::Dead,
            false,
            14370350484812398485,
            vec![
                (At::Network(9), Blow::Network(NetworkFault::Status(503))),
                (At::Network(16), Blow::Network(NetworkFault::Status(503))),
                (At::Disk(25), Blow::Error(5, 2)),
                (
                    At::Disk(15),
                    Blow::PowerCut(Left::Torn(4826244592635191596)),
                ),
            ],
        ),
        // As much, where the one before it had the checkpoint at the last byte.
        case(
            Kind::System,
            "configuration",
            Course::Mute,
            true,
            0,
            vec![
                (At::Disk(50), Blow::Kill),
                (At::Disk(57), Blow::Error(5, 1)),
            ],
        ),
        // The guard could not read the only copy of the record that was whole, and put it aside.
        Case {
            held: Some(Held::Delay),
            then: vec![
                (At::Disk(62), Blow::Error(28, 1)),
                (
                    At::Disk(102),
                    Blow::PowerCut(Left::Torn(2241363908802265317)),
                ),
            ],
            ..case(
                Kind::Program {
                    old: true,
                    links: true,
                },
                "configuration",
                Course::Dead,
                true,
                11161312761798780799,
                vec![
                    (At::Network(8), Blow::Network(NetworkFault::Elsewhere)),
                    (At::Disk(144), Blow::Error(30, 4)),
                    (At::Hub(5), Blow::PowerCut(Left::Torn(6390788162517816030))),
                    (At::Disk(156), Blow::Error(5, 2)),
                    (
                        At::Network(2),
                        Blow::PowerCut(Left::Torn(10565921157201478021)),
                    ),
                ],
            )
        },
    ]
}
