//! What holds for every value of gRPC, and every way of cutting it.

use std::time::Duration;

use evenkeel_wire::grpc::health::{Serving, decode_response, encode_request};
use evenkeel_wire::grpc::{
    Base64Decoder, Code, content_type, decode_frame, decode_message, decode_timeout, encode_base64,
    encode_message, encode_timeout, encode_trailers, frame_header,
};
use evenkeel_wire::http1::Decoded;
use proptest::prelude::*;

proptest! {
    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = Code::decode(&bytes);
        let _ = content_type(&bytes);
        let _ = decode_timeout(&bytes);
        let _ = decode_message(&bytes);
        let _ = decode_frame(&bytes, 50);
        let _ = decode_response(&bytes);
        let _ = Base64Decoder::default().decode(&bytes, &mut Vec::new());
    }

    #[test]
    fn a_time_is_never_written_shorter_than_it_is(nanos in any::<u64>()) {
        let time = Duration::from_nanos(nanos.max(1));
        let value = encode_timeout(time);
        let read = decode_timeout(value.as_bytes()).expect("a value of ours");
        prop_assert!(read >= time);
        // Eight digits: a unit that is 3,600 times the one before leaves at least four of them.
        prop_assert!(read - time <= time / 1000 + Duration::from_nanos(1));
    }

    #[test]
    fn any_text_comes_back_and_is_fit_for_a_field(text in any::<String>()) {
        let mut value = Vec::new();
        encode_message(&text, &mut value);
        prop_assert!(value.iter().all(|byte| (b' '..=b'~').contains(byte)));
        prop_assert_eq!(decode_message(&value), text);
    }

    #[test]
    fn base64_comes_back_however_it_is_cut(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6),
        cut in 1_usize..9,
    ) {
        let mut text = Vec::new();
        for piece in &pieces {
            encode_base64(piece, &mut text);
        }
        let (mut decoder, mut bytes) = (Base64Decoder::default(), Vec::new());
        for piece in text.chunks(cut) {
            decoder.decode(piece, &mut bytes).expect("base64 of ours");
        }
        prop_assert!(decoder.is_whole());
        prop_assert_eq!(bytes, pieces.concat());
    }

    #[test]
    fn a_frame_comes_back(flag in any::<u8>(), payload in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut bytes = frame_header(flag, payload.len() as u32).to_vec();
        bytes.extend_from_slice(&payload);
        match decode_frame(&bytes, 40) {
            Ok(Decoded::Complete(frame)) => {
                prop_assert_eq!((frame.flag, frame.payload), (flag, &payload[..]));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn trailers_are_one_frame(value in "[ -~]{0,40}") {
        let mut bytes = Vec::new();
        encode_trailers([(&b"X-Y"[..], value.as_bytes())], &mut bytes);
        let text = format!("x-y: {value}\r\n");
        match decode_frame(&bytes, 100) {
            Ok(Decoded::Complete(frame)) => {
                prop_assert_eq!((frame.flag, frame.payload), (0x80, text.as_bytes()));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_request_is_a_message_whose_only_field_is_passed_over_by_the_reader(service in "[ -~]{0,300}") {
        let mut bytes = Vec::new();
        encode_request(&service, &mut bytes);
        prop_assert_eq!(decode_response(&bytes), Ok(Serving::Unknown));
    }
}
