//! The two messages of `grpc.health.v1.Health/Check`, in the encoding of Protocol Buffers.
//!
//! ```text
//! message HealthCheckRequest  { string service = 1; }
//! message HealthCheckResponse { ServingStatus status = 1; }
//! enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
//! ```

use std::fmt;

/// Where a check is asked for.
pub const CHECK_PATH: &str = "/grpc.health.v1.Health/Check";

/// Field 1, with a length.
const SERVICE: u8 = 1 << 3 | 2;
/// Field 1, a number.
const STATUS: u64 = 1 << 3;

/// What a server says of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// It does not say; also any number that has no name yet.
    Unknown,
    /// It serves.
    Serving,
    /// It does not.
    NotServing,
    /// It does not know the service.
    ServiceUnknown,
}

/// A response that is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadResponse;

/// Appends a request; the empty service stands for the server as a whole.
pub fn encode_request(service: &str, out: &mut Vec<u8>) {
    if service.is_empty() {
        return;
    }
    out.push(SERVICE);
    let mut length = service.len();
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            out.push(low);
            break;
        }
        out.push(low | 0x80);
    }
    out.extend_from_slice(service.as_bytes());
}

/// Reads a response; fields that it does not know are passed over.
///
/// # Errors
/// When the bytes are no message.
pub fn decode_response(bytes: &[u8]) -> Result<Serving, BadResponse> {
    let mut rest = bytes;
    let mut serving = Serving::Unknown;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match tag & 7 {
            0 => {
                let number = varint(&mut rest)?;
                if tag == STATUS {
                    serving = Serving::of(number);
                }
            }
            1 => skip(&mut rest, 8)?,
            2 => {
                let length = varint(&mut rest)?;
                skip(&mut rest, usize::try_from(length).map_err(|_| BadResponse)?)?;
            }
            5 => skip(&mut rest, 4)?,
            _ => return Err(BadResponse),
        }
    }
    Ok(serving)
}

fn varint(rest: &mut &[u8]) -> Result<u64, BadResponse> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, after) = rest.split_first().ok_or(BadResponse)?;
        *rest = after;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(BadResponse)
}

fn skip(rest: &mut &[u8], count: usize) -> Result<(), BadResponse> {
    *rest = rest.get(count..).ok_or(BadResponse)?;
    Ok(())
}

impl Serving {
    fn of(number: u64) -> Self {
        match number {
            1 => Self::Serving,
            2 => Self::NotServing,
            3 => Self::ServiceUnknown,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "UNKNOWN",
            Self::Serving => "SERVING",
            Self::NotServing => "NOT_SERVING",
            Self::ServiceUnknown => "SERVICE_UNKNOWN",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let encoded = |service: &str| {
            let mut out = Vec::new();
            encode_request(service, &mut out);
            out
        };
        assert_eq!(encoded(""), b"");
        assert_eq!(encoded("a.B"), b"\x0a\x03a.B");
        let long = "x".repeat(300);
        assert_eq!(encoded(&long)[..3], [0x0a, 0xac, 0x02]);
        assert_eq!(encoded(&long).len(), 303);
    }

    #[test]
    fn responses() {
        for (bytes, expected) in [
            (&b""[..], Ok(Serving::Unknown)),
            (b"\x08\x00", Ok(Serving::Unknown)),
            (b"\x08\x01", Ok(Serving::Serving)),
            (b"\x08\x02", Ok(Serving::NotServing)),
            (b"\x08\x03", Ok(Serving::ServiceUnknown)),
            (b"\x08\x04", Ok(Serving::Unknown)),
            (b"\x08\x81\x00", Ok(Serving::Serving)),
            // The last one counts.
            (b"\x08\x01\x08\x02", Ok(Serving::NotServing)),
            // Fields of other kinds are passed over.
            (
                b"\x12\x02hi\x08\x01\x19abcdefgh\x25abcd",
                Ok(Serving::Serving),
            ),
            // Field 1 as text is not the status.
            (b"\x0a\x01\x01", Ok(Serving::Unknown)),
            (b"\x08", Err(BadResponse)),
            (b"\x08\x80", Err(BadResponse)),
            (
                b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                Err(BadResponse),
            ),
            (b"\x12\x05hi", Err(BadResponse)),
            (b"\x0b", Err(BadResponse)),
            (b"\x0f", Err(BadResponse)),
        ] {
            assert_eq!(decode_response(bytes), expected, "{bytes:x?}");
        }
    }
}
