//! Messages, without a kernel.

use proptest::prelude::*;

use crate::net::netlink::{Message, attribute, attributes, replies, string};

#[test]
fn a_message_is_what_the_manual_says() {
    let mut seen = Vec::new();
    let message = Message::new(16, 0x400, &[1, 2, 3, 4])
        .text(3, "lo")
        .nest(18, &[], |inner| inner.u32(1, 7));
    let bytes = message.bytes(9);
    for reply in replies(&bytes) {
        assert_eq!(reply.kind, 16);
        let attrs = &reply.body[4..];
        seen.push(string(attribute(attrs, 3).unwrap()));
        let nested = attribute(attrs, 18).unwrap();
        assert_eq!(attribute(nested, 1), Some(&7u32.to_ne_bytes()[..]));
    }
    assert_eq!(seen, ["lo"]);
    // struct nlmsghdr, ifla header and "lo\0" padded, a nest of one number.
    assert_eq!(bytes.len(), 16 + 4 + 8 + 4 + 8);
    assert_eq!(bytes[..4], 40u32.to_ne_bytes());
    assert_eq!(bytes[8..12], 9u32.to_ne_bytes());
}

proptest! {
    #[test]
    fn any_bytes_are_taken_apart(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for reply in replies(&bytes) {
            prop_assert!(reply.body.len() + 16 <= bytes.len());
        }
        for (_, content) in attributes(&bytes) {
            prop_assert!(content.len() + 4 <= bytes.len());
        }
        let _text = string(&bytes);
    }

    #[test]
    fn attributes_come_back(list in proptest::collection::vec((1u16..100, proptest::collection::vec(any::<u8>(), 0..40)), 0..8), cut in 0usize..400) {
        let message = list.iter().fold(Message::new(1, 0, &[]), |m, (kind, data)| m.attr(*kind, data));
        let bytes = message.bytes(1);
        let body = &bytes[16..];
        let read: Vec<(u16, Vec<u8>)> = attributes(body).map(|(k, d)| (k, d.to_vec())).collect();
        prop_assert_eq!(&read, &list);
        // Cut off anywhere it is a beginning of it.
        let some: Vec<_> = attributes(&body[..cut.min(body.len())]).map(|(k, d)| (k, d.to_vec())).collect();
        prop_assert!(list.starts_with(&some));
    }
}
