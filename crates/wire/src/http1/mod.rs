//! HTTP/1 framing as RFC 9112 has it, strict: what two parsers could read in
//! two ways is refused, so that Evenkeel and the server behind it always see
//! the same message.
//!
//! [`decode_request`] and [`decode_response`] read a head, [`ChunkedDecoder`] a
//! chunked body, [`encode`] writes. Heads are offsets ([`Span`]) into the
//! buffer that was decoded, in structures that are recycled from message to
//! message.
//!
//! What it does not do: it keeps no state between messages, does not know which
//! response answers which request (the caller says), drops no field, and does
//! not judge targets beyond their characters.

mod chunked;
pub mod encode;
mod fields;
mod head;
mod known;
mod request;
mod response;
mod scan;
mod text;

pub use chunked::{
    CHUNK_EXTENSION_BYTES_MAX, ChunkError, ChunkedDecoder, Keep, Progress, TRAILER_BYTES_MAX,
    TrailerFields, trailer_fields,
};
pub use encode::reason_phrase;
pub use fields::{Field, named_by_connection};
pub use head::{Body, Decoded, HeadFault, HeadLimits, Method, Span, Version};
pub use known::{Known, KnownSet};
pub use request::{RequestError, RequestErrorKind, RequestHead, decode_request};
pub use response::{ResponseError, ResponseHead, decode_response};
pub use text::{is_field_value, is_host, is_token};
