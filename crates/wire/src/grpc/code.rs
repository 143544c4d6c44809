//! Status codes of gRPC, and what they stand for in HTTP.

use std::fmt;

/// How a call ended ("Status codes and their use in gRPC").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant is the code that it names")]
pub enum Code {
    Ok = 0,
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Code {
    /// Every code, in the order of its number.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// What `grpc-status` carries.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The value of `grpc-status`; what is no known number is `UNKNOWN`, as the document says.
    #[must_use]
    pub fn decode(value: &[u8]) -> Self {
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(value).unwrap_or_default();
        let number = text.parse::<usize>().ok().filter(|_| digits);
        let known = number.and_then(|number| Self::ALL.get(number));
        known.copied().unwrap_or(Self::Unknown)
    }

    /// `UNAVAILABLE`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// The code of this name, whatever its case.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|code| code.name().eq_ignore_ascii_case(name))
    }

    /// What an answer of HTTP without `grpc-status` means to a client ("HTTP to gRPC Status Code Mapping").
    #[must_use]
    pub fn of_http(status: u16) -> Self {
        match status {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }

    /// The status of HTTP as which an answer with this code says something of the server that gave it: what went wrong
    /// there is 500, what it had no room or nobody for is 503, and what is between client and application is 200.
    ///
    /// `DEADLINE_EXCEEDED` is 200 since it is the client who sets the time.
    #[must_use]
    pub fn judged_as(self) -> u16 {
        match self {
            Self::Unavailable => 503,
            Self::Unknown | Self::Internal | Self::DataLoss => 500,
            _ => 200,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn numbers_and_names() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.number()), number);
            assert_eq!(Code::decode(number.to_string().as_bytes()), code);
            assert_eq!(Code::of_name(code.name()), Some(code));
            assert_eq!(Code::of_name(&code.name().to_lowercase()), Some(code));
        }
        for value in [
            "",
            "17",
            "99999999999999999999",
            "-1",
            "+1",
            "1 ",
            "x",
            "\u{661}",
        ] {
            assert_eq!(Code::decode(value.as_bytes()), Code::Unknown, "{value:?}");
        }
        // Leading zeros are a number all the same.
        assert_eq!(Code::decode(b"00"), Code::Ok);
        assert_eq!(Code::of_name("busy"), None);
    }

    #[test]
    fn the_table_of_the_document() {
        for (status, expected) in [
            (400, Code::Internal),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (429, Code::Unavailable),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
            (504, Code::Unavailable),
            (200, Code::Unknown),
            (405, Code::Unknown),
            (500, Code::Unknown),
        ] {
            assert_eq!(Code::of_http(status), expected, "{status}");
        }
    }
}
