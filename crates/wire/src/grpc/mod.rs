//! gRPC over HTTP/2 as its protocol document has it ("gRPC over HTTP2" of the gRPC project), and gRPC-Web ("gRPC Web"
//! of the same): status codes, timeouts, the text of a status, framing, and the two messages of a health check.
//!
//! What it does not do: HTTP itself, compression of messages, and any message but those of `grpc.health.v1`.

mod base64;
mod code;
mod content_type;
mod frame;
pub mod health;
mod message;
mod timeout;
mod trailers;

pub use base64::{BadBase64, Base64Decoder, encode_base64};
pub use code::Code;
pub use content_type::{Dialect, content_type};
pub use frame::{Boundary, FRAME_HEADER_BYTES, Frame, FrameTooLarge, decode_frame, frame_header};
pub use message::{decode_message, encode_message};
pub use timeout::{TIMEOUT_DIGITS_MAX, decode_timeout, encode_timeout};
pub use trailers::{TRAILER_FLAG, encode_trailers};
